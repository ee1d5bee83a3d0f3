//! One node of the counted tree, as bytes: a sorted list of separators, each with the number of score rows that it covers.
//!
//! ```text
//! 0..2      n, u16 le
//! n times   order u64 le, count u48 le, child u48 le, end of the tail u32 le
//! then      the tails, one after the other
//! ```
//! An entry covers the positions from its own `(order, tail)` up to the next entry's. `child` names the node that divides it further; 0 at the
//! lowest height, where the entry covers a run of score rows directly. Fields have fixed widths so that a count is changed in place.
//!
//! Invariants: positions ascend strictly; ends of tails ascend and the last one is the end of the node.

use crate::TypeError;

/// A place among score rows: the order of a score, then the member.
pub type Position<'a> = (u64, &'a [u8]);

const ENTRY: usize = 24;
const COUNT_AT: usize = 8;
const CHILD_AT: usize = 14;
const END_AT: usize = 20;
const U48_MAX: u64 = (1 << 48) - 1;

/// A node, read.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    entries: &'a [u8],
    tails: &'a [u8],
}

fn u48(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(&bytes[..6]);
    u64::from_le_bytes(wide)
}

fn u32_at(bytes: &[u8]) -> usize {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(four) as usize
}

impl<'a> NodeRef<'a> {
    /// Checks the form of a node; no bytes at all are a node without entries.
    pub fn parse(bytes: &'a [u8]) -> Result<NodeRef<'a>, TypeError> {
        let corrupt = || TypeError::Corrupt("sorted set: damaged node".into());
        if bytes.is_empty() {
            return Ok(NodeRef { entries: b"", tails: b"" });
        }
        let [low, high, rest @ ..] = bytes else { return Err(corrupt()) };
        let n = usize::from(u16::from_le_bytes([*low, *high]));
        let (entries, tails) = rest.split_at_checked(n * ENTRY).ok_or_else(corrupt)?;
        let node = NodeRef { entries, tails };
        let ends = if n == 0 { 0 } else { node.end(n - 1) };
        if ends != tails.len() {
            return Err(corrupt());
        }
        Ok(node)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// The entry's bytes. `i` is below `len()` in all callers.
    fn entry(&self, i: usize) -> &'a [u8] {
        &self.entries[i * ENTRY..(i + 1) * ENTRY]
    }

    fn end(&self, i: usize) -> usize {
        u32_at(&self.entry(i)[END_AT..])
    }

    fn order(&self, i: usize) -> u64 {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.entry(i)[..8]);
        u64::from_le_bytes(eight)
    }

    /// Where the entry begins.
    pub fn position(&self, i: usize) -> Position<'a> {
        let start = if i == 0 { 0 } else { self.end(i - 1) };
        // Damaged ends give an empty tail: wrong, but no panic.
        (self.order(i), self.tails.get(start..self.end(i)).unwrap_or(b""))
    }

    /// How many score rows the entry covers.
    pub fn count(&self, i: usize) -> u64 {
        u48(&self.entry(i)[COUNT_AT..])
    }

    /// The node below, 0 if there is none.
    pub fn child(&self, i: usize) -> u64 {
        u48(&self.entry(i)[CHILD_AT..])
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.before(self.len())
    }

    /// The sum of the counts of the entries before `i`.
    pub fn before(&self, i: usize) -> u64 {
        (0..i).map(|j| self.count(j)).sum()
    }

    /// The entry that covers `position`: the last that begins at or before it (the first, if none does). The node has entries.
    pub fn find(&self, position: Position<'_>) -> usize {
        let (mut low, mut high) = (1, self.len());
        while low < high {
            let middle = (low + high) / 2;
            let at_or_before = match self.order(middle).cmp(&position.0) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => self.position(middle).1 <= position.1,
            };
            if at_or_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low - 1
    }

    /// The entry that covers the row number `index` (counted from 0 within the node), and the row's number within that entry.
    pub fn find_index(&self, index: u64) -> Option<(usize, u64)> {
        let mut rest = index;
        for i in 0..self.len() {
            let count = self.count(i);
            if rest < count {
                return Some((i, rest));
            }
            rest -= count;
        }
        None
    }
}

/// A node being changed. Each call leaves it in its whole form.
#[derive(Clone, Debug, Default)]
pub struct NodeBuf {
    /// The bytes; what stands before `base` is not the node's.
    pub bytes: Vec<u8>,
    /// Where the node begins.
    pub base: usize,
}

impl NodeBuf {
    /// The node, read. It was checked when it was loaded.
    pub fn view(&self) -> NodeRef<'_> {
        NodeRef::parse(&self.bytes[self.base..]).unwrap_or(NodeRef { entries: b"", tails: b"" })
    }

    fn entry_at(&self, i: usize) -> usize {
        self.base + 2 + i * ENTRY
    }

    /// Replaces all by a node without entries.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.base);
        self.bytes.extend_from_slice(&[0, 0]);
    }

    /// Replaces all by what `node` holds.
    pub fn load(&mut self, node: &[u8]) {
        self.bytes.truncate(self.base);
        self.bytes.extend_from_slice(node);
        if node.is_empty() {
            self.bytes.extend_from_slice(&[0, 0]);
        }
    }

    /// The node's bytes.
    pub fn node(&self) -> &[u8] {
        &self.bytes[self.base..]
    }

    /// Sets how many rows entry `i` covers.
    pub fn set_count(&mut self, i: usize, count: u64) {
        debug_assert!(count <= U48_MAX);
        let at = self.entry_at(i) + COUNT_AT;
        self.bytes[at..at + 6].copy_from_slice(&count.to_le_bytes()[..6]);
    }

    fn shift_ends(&mut self, from: usize, by: i64) {
        for i in from..self.view().len() {
            let at = self.entry_at(i) + END_AT;
            let end = u32_at(&self.bytes[at..]) as i64 + by;
            self.bytes[at..at + 4].copy_from_slice(&(end as u32).to_le_bytes());
        }
    }

    fn set_len(&mut self, n: usize) {
        let base = self.base;
        self.bytes[base..base + 2].copy_from_slice(&(n as u16).to_le_bytes());
    }

    /// Puts an entry before the one that is at `i` now.
    pub fn insert(&mut self, i: usize, position: Position<'_>, count: u64, child: u64) {
        debug_assert!(count <= U48_MAX && child <= U48_MAX);
        let n = self.view().len();
        let start = if i == 0 { 0 } else { self.view().end(i - 1) };
        self.shift_ends(i, position.1.len() as i64);
        let tails = self.entry_at(n) + start;
        self.bytes.splice(tails..tails, position.1.iter().copied());
        let mut entry = [0u8; ENTRY];
        entry[..8].copy_from_slice(&position.0.to_le_bytes());
        entry[COUNT_AT..CHILD_AT].copy_from_slice(&count.to_le_bytes()[..6]);
        entry[CHILD_AT..END_AT].copy_from_slice(&child.to_le_bytes()[..6]);
        entry[END_AT..].copy_from_slice(&((start + position.1.len()) as u32).to_le_bytes());
        let at = self.entry_at(i);
        self.bytes.splice(at..at, entry);
        self.set_len(n + 1);
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, position: Position<'_>, count: u64, child: u64) {
        let n = self.view().len();
        self.insert(n, position, count, child);
    }

    /// Takes entry `i` out. What it covered is then covered by the one before it; the caller sees to the counts.
    pub fn remove(&mut self, i: usize) {
        let view = self.view();
        let n = view.len();
        let (start, end) = (if i == 0 { 0 } else { view.end(i - 1) }, view.end(i));
        self.shift_ends(i + 1, start as i64 - end as i64);
        let tails = self.entry_at(n);
        self.bytes.drain(tails + start..tails + end);
        let at = self.entry_at(i);
        self.bytes.drain(at..at + ENTRY);
        self.set_len(n - 1);
    }

    /// Lets entry `i` begin at `position`.
    pub fn set_position(&mut self, i: usize, position: Position<'_>) {
        let view = self.view();
        let (count, child) = (view.count(i), view.child(i));
        self.remove(i);
        self.insert(i, position, count, child);
    }

    /// Moves the entries from `from` on to the end of `to`.
    pub fn move_tail(&mut self, from: usize, to: &mut NodeBuf) {
        let view = self.view();
        for i in from..view.len() {
            to.push(view.position(i), view.count(i), view.child(i));
        }
        let keep = if from == 0 { 0 } else { view.end(from - 1) };
        let n = view.len();
        let (first, last) = (self.entry_at(from), self.entry_at(n));
        self.bytes.truncate(last + keep);
        self.bytes.drain(first..last);
        self.set_len(from);
    }
}

/// The shortest position that lies after `left` and not after `right`, where `left < right`: a separator need not be a row's own place.
pub fn separator<'a>(left: Position<'_>, right: Position<'a>) -> Position<'a> {
    debug_assert!(left < right);
    if left.0 < right.0 {
        return (right.0, b"");
    }
    let common = left.1.iter().zip(right.1).take_while(|(a, b)| a == b).count();
    (right.0, &right.1[..right.1.len().min(common + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    #[test]
    fn a_node_is_a_sorted_list() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
        let mut random = Random::new(seed);
        let mut model: Vec<(u64, Vec<u8>, u64, u64)> = Vec::new();
        let mut node = NodeBuf { bytes: vec![9; 5], base: 5 };
        node.clear();
        for step in 0..4000 {
            let entry = (random.below(5), vec![b'x'; random.below(4) as usize], random.below(1000), random.below(9));
            let place = model.partition_point(|e| (e.0, &e.1) < (entry.0, &entry.1));
            if model.len() > 15 || (random.one_in(3) && place < model.len()) {
                let at = place.min(model.len() - 1);
                model.remove(at);
                node.remove(at);
            } else if model.get(place).is_none_or(|e| (e.0, &e.1) != (entry.0, &entry.1)) {
                node.insert(place, (entry.0, &entry.1), entry.2, entry.3);
                model.insert(place, entry);
            } else {
                node.set_count(place, entry.2);
                model[place].2 = entry.2;
            }
            let parsed = NodeRef::parse(node.node()).expect("the node is whole");
            let shown: Vec<_> = (0..parsed.len())
                .map(|i| (parsed.position(i).0, parsed.position(i).1.to_vec(), parsed.count(i), parsed.child(i)))
                .collect();
            assert_eq!(shown, model, "seed {seed} step {step}");
            assert_eq!(parsed.total(), model.iter().map(|e| e.2).sum::<u64>());
            if !model.is_empty() {
                let wanted = (random.below(5), vec![b'x'; random.below(4) as usize]);
                let found = parsed.find((wanted.0, &wanted.1));
                let right = model.partition_point(|e| (e.0, &e.1) <= (wanted.0, &wanted.1)).max(1) - 1;
                assert_eq!(found, right, "seed {seed} step {step}");
                let from = random.below(model.len() as u64 + 1) as usize;
                let (mut left, mut moved) = (node.clone(), NodeBuf::default());
                moved.clear();
                left.move_tail(from, &mut moved);
                assert_eq!((left.view().len(), moved.view().len()), (from, model.len() - from));
                for i in 0..moved.view().len() {
                    assert_eq!(moved.view().position(i), node.view().position(from + i));
                }
            }
        }
    }

    #[test]
    fn separators_part_their_neighbours() {
        for (left, right, shown) in [
            ((1, &b"zz"[..]), (2, &b"abc"[..]), (2, &b""[..])),
            ((2, b"abc"), (2, b"abdef"), (2, b"abd")),
            ((2, b"abc"), (2, b"abcde"), (2, b"abcd")),
            ((2, b""), (2, b"a"), (2, b"a")),
        ] {
            let found = separator(left, right);
            assert_eq!(found, shown);
            assert!(left < found && found <= right);
        }
    }

    #[test]
    fn damaged_nodes_are_errors() {
        for bytes in [&b"\x01"[..], b"\x01\x00", b"\x01\x00aaaaaaaaaaaaaaaaaaaaaaaa", b"\x00\x00x"] {
            assert!(NodeRef::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
