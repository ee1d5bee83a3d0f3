//! One inner node of the tree, as bytes: a sorted list of separators, each with the number of entries in the leaves that it covers.
//!
//! ```text
//! 0..2      n, u16 le
//! 2         form: bit 0 counts and children take 8 bytes, bit 1 there are tails; the others are zero
//! n times   order, u64 le
//! n times   count, u32 le or u64 le
//! n times   child, u32 le or u64 le
//! n times   end of the tail, u32 le                         (if bit 1)
//! then      the tails, one after the other                  (if bit 1)
//! ```
//! An entry covers the positions from its own `(order, tail)` up to the next entry's; without tails all are empty. `child` names the inner node or leaf that
//! holds what lies there. What the first entry covers begins where the node does: the place written in it is not looked at. Counts are changed in place.
//!
//! Invariants: positions ascend strictly, but for the first; ends of tails ascend and the last one is the end of the node.

use std::ops::Range;

use crate::TypeError;

/// A place in a sorted set: the order of a score, then the member.
pub type Position<'a> = (u64, &'a [u8]);

const HEAD: usize = 3;
const ORDER: usize = 8;
const END: usize = 4;
const WIDE: u8 = 1;
const TAILS: u8 = 2;
/// The greatest count, and the greatest number of a node.
pub const MOST: u64 = (1 << 48) - 1;

/// A node, read.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    orders: &'a [u8],
    counts: &'a [u8],
    children: &'a [u8],
    ends: &'a [u8],
    tails: &'a [u8],
}

fn u64_at(bytes: &[u8], i: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
    u64::from_le_bytes(eight)
}

fn u32_at(bytes: &[u8], i: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[i * 4..i * 4 + 4]);
    u32::from_le_bytes(four)
}

impl<'a> NodeRef<'a> {
    const EMPTY: NodeRef<'static> = NodeRef { orders: b"", counts: b"", children: b"", ends: b"", tails: b"" };

    /// Checks the form of a node; no bytes at all are a node without entries.
    pub fn parse(bytes: &'a [u8]) -> Result<NodeRef<'a>, TypeError> {
        let corrupt = || TypeError::Corrupt("sorted set: damaged node".into());
        if bytes.is_empty() {
            return Ok(NodeRef::EMPTY);
        }
        let [n0, n1, form, rest @ ..] = bytes else { return Err(corrupt()) };
        let n = usize::from(u16::from_le_bytes([*n0, *n1]));
        if *form > WIDE | TAILS {
            return Err(corrupt());
        }
        let width = if form & WIDE != 0 { 8 } else { 4 };
        let (orders, rest) = rest.split_at_checked(n * ORDER).ok_or_else(corrupt)?;
        let (counts, rest) = rest.split_at_checked(n * width).ok_or_else(corrupt)?;
        let (children, rest) = rest.split_at_checked(n * width).ok_or_else(corrupt)?;
        let (ends, tails) = rest.split_at_checked(if form & TAILS != 0 { n * END } else { 0 }).ok_or_else(corrupt)?;
        let node = NodeRef { orders, counts, children, ends, tails };
        if node.end(n) == tails.len() { Ok(node) } else { Err(corrupt()) }
    }

    /// Bytes of the tails.
    pub fn tail_bytes(&self) -> usize {
        self.tails.len()
    }

    /// Whether the ends of tails ascend, without which the node must not be changed but for its counts.
    pub fn is_sound(&self) -> bool {
        (0..self.len()).all(|i| self.end(i) <= self.end(i + 1))
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.orders.len() / ORDER
    }

    fn is_wide(&self) -> bool {
        self.counts.len() == self.orders.len()
    }

    /// Where the tails of the first `i` entries end.
    fn end(&self, i: usize) -> usize {
        if i == 0 || self.ends.is_empty() { 0 } else { u32_at(self.ends, i - 1) as usize }
    }

    fn order(&self, i: usize) -> u64 {
        u64_at(self.orders, i)
    }

    /// Where the entry begins. Here as below, `i` is less than [`NodeRef::len`].
    pub fn position(&self, i: usize) -> Position<'a> {
        // Damaged ends give an empty tail: wrong, but no panic.
        (self.order(i), self.tails.get(self.end(i)..self.end(i + 1)).unwrap_or(b""))
    }

    fn entry(&self, i: usize) -> Loose<'a> {
        let (order, tail) = self.position(i);
        (order, self.count(i), self.child(i), tail)
    }

    fn number(&self, bytes: &[u8], i: usize) -> u64 {
        // A greater number is damage, and fits no sum.
        if self.is_wide() { u64_at(bytes, i).min(MOST) } else { u64::from(u32_at(bytes, i)) }
    }

    /// How many entries of leaves the entry covers.
    pub fn count(&self, i: usize) -> u64 {
        self.number(self.counts, i)
    }

    /// The node below.
    pub fn child(&self, i: usize) -> u64 {
        self.number(self.children, i)
    }

    /// What replaces bytes of the node so that entry `i` covers so many entries, unless that takes another form of node.
    pub fn count_patch(&self, i: usize, count: u64) -> Option<CountPatch> {
        let width = if self.is_wide() { 8 } else { 4 };
        // A count is greater only where others are damaged.
        let count = count.min(MOST);
        (width == 8 || u32::try_from(count).is_ok()).then(|| CountPatch {
            at: HEAD + self.orders.len() + i * width,
            bytes: count.to_le_bytes(),
            width,
        })
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.before(self.len())
    }

    /// The sum of the counts of the entries before `i`.
    pub fn before(&self, i: usize) -> u64 {
        if self.is_wide() {
            return (0..i).map(|j| self.count(j)).sum();
        }
        let four = |four: &[u8]| u64::from(u32_at(four, 0));
        self.counts[..i * 4].chunks_exact(4).map(four).sum()
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

    /// The entry that covers the `index`-th place (counted from 0 within the node), and the number of that place within it.
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

/// A count that is to be replaced in the bytes of a node.
pub struct CountPatch {
    /// Where it stands.
    pub at: usize,
    bytes: [u8; 8],
    width: usize,
}

impl CountPatch {
    /// The bytes that it becomes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.width]
    }
}

/// An entry that is being moved about: order, count, child, tail.
type Loose<'a> = (u64, u64, u64, &'a [u8]);

/// All entries of a node.
fn loose(node: &[u8]) -> Vec<Loose<'_>> {
    let node = NodeRef::parse(node).unwrap_or(NodeRef::EMPTY);
    let mut entries = Vec::with_capacity(node.len() + 1);
    entries.extend((0..node.len()).map(|i| node.entry(i)));
    entries
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
        NodeRef::parse(&self.bytes[self.base..]).unwrap_or(NodeRef::EMPTY)
    }

    /// Replaces all by a node without entries.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.base);
        self.bytes.extend_from_slice(&[0; HEAD]);
    }

    /// Replaces all by what `node` holds.
    pub fn load(&mut self, node: &[u8]) {
        self.bytes.truncate(self.base);
        self.bytes.extend_from_slice(node);
        if node.is_empty() {
            self.bytes.extend_from_slice(&[0; HEAD]);
        }
    }

    /// The node's bytes.
    pub fn node(&self) -> &[u8] {
        &self.bytes[self.base..]
    }

    /// Sets how many places entry `i` covers.
    pub fn set_count(&mut self, i: usize, count: u64) {
        if let Some(patch) = self.view().count_patch(i, count) {
            let at = self.base + patch.at;
            self.bytes[at..at + patch.width].copy_from_slice(patch.bytes());
            return;
        }
        let old = self.take();
        let mut entries = loose(&old);
        if let Some(entry) = entries.get_mut(i) {
            entry.1 = count.min(MOST);
        }
        self.lay_out(&entries);
    }

    /// Takes the node out, to lay it out anew. Few changes of a set need that.
    fn take(&mut self) -> Vec<u8> {
        self.bytes.split_off(self.base)
    }

    /// Writes a node of these entries where the old one was taken out.
    fn lay_out(&mut self, entries: &[Loose<'_>]) {
        let wide = entries.iter().any(|entry| entry.1.max(entry.2) > u64::from(u32::MAX));
        let tails = entries.iter().any(|entry| !entry.3.is_empty());
        let out = &mut self.bytes;
        out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        out.push(if wide { WIDE } else { 0 } | if tails { TAILS } else { 0 });
        entries.iter().for_each(|entry| out.extend_from_slice(&entry.0.to_le_bytes()));
        for number in [|entry: &Loose<'_>| entry.1, |entry: &Loose<'_>| entry.2] {
            for entry in entries {
                let bytes = number(entry).min(MOST).to_le_bytes();
                out.extend_from_slice(&bytes[..if wide { 8 } else { 4 }]);
            }
        }
        if tails {
            let mut end = 0;
            for entry in entries {
                end += entry.3.len();
                out.extend_from_slice(&(end as u32).to_le_bytes());
            }
            entries.iter().for_each(|entry| out.extend_from_slice(entry.3));
        }
    }

    /// Puts an entry before the one that is at `i` now.
    pub fn insert(&mut self, i: usize, position: Position<'_>, count: u64, child: u64) {
        let old = self.take();
        let mut entries = loose(&old);
        entries.insert(i, (position.0, count, child, position.1));
        self.lay_out(&entries);
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, position: Position<'_>, count: u64, child: u64) {
        let n = self.view().len();
        self.insert(n, position, count, child);
    }

    /// Takes entry `i` out. What it covered is then covered by the one before it; the caller sees to the counts.
    pub fn remove(&mut self, i: usize) {
        let old = self.take();
        let mut entries = loose(&old);
        entries.remove(i);
        self.lay_out(&entries);
    }

    /// Adds the entries of another node in `range` at the end, the first of them at `position`.
    pub fn append(&mut self, other: &NodeRef<'_>, range: Range<usize>, position: Position<'_>) {
        let old = self.take();
        let mut entries = loose(&old);
        let from = entries.len();
        entries.extend(range.map(|i| other.entry(i)));
        if let Some(first) = entries.get_mut(from) {
            (first.0, first.3) = position;
        }
        self.lay_out(&entries);
    }
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
            // Some take eight bytes.
            let entry = if random.one_in(20) { (entry.0, entry.1, 1 << 40, entry.3) } else { entry };
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
                let mut moved = NodeBuf::default();
                moved.clear();
                moved.append(&parsed, from..model.len(), (0, b"first"));
                assert_eq!(moved.view().len(), model.len() - from);
                for i in 0..moved.view().len() {
                    let position = if i == 0 { (0, &b"first"[..]) } else { parsed.position(from + i) };
                    assert_eq!(moved.view().position(i), position);
                    assert_eq!(moved.view().count(i), parsed.count(from + i));
                }
            }
        }
    }

    #[test]
    fn damaged_nodes_are_errors() {
        let short =
            [&b"\x01"[..], b"\x01\x00", b"\x01\x00\x00aaaaaaaaaaaaaaaaaaaaaaaa", b"\x00\x00\x00x", b"\x00\x00\x04"];
        for bytes in short {
            assert!(NodeRef::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
