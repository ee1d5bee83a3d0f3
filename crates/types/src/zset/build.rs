//! Many members at once: held in memory while they are few, then leaves and nodes written one after the other as long as members come in order, up or down.
//! From the first one on that is out of order they are inserted like any others.
//!
//! Memory is bounded: a leaf that is being filled and, for each height, the entries of a node.

use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::RowsMut;
use ardb_engine::row::order_of_f64;

use super::leaf::{self, Part, common};
use super::node::{NodeBuf, Position};
use super::packed::{self, Members};
use super::tree::{
    Entry, LEAF_BYTES, LEAF_MAX, NODE_FEW, NODE_MAX, NODE_TAILS, ROOT_MAX, ROOT_TAILS, buffer, keep, node_row,
};
use super::{LISTPACK_ENTRIES, LISTPACK_VALUE, State, ZSet, empty_root, member_row};
use crate::packed::Form;
use crate::{At, KeyRow, Limits, TypeError};

/// Entries of a leaf as built: room to grow,
const LEAF_BUILT: usize = LEAF_MAX * 3 / 4;
/// and bytes of its members.
const LEAF_BUILT_BYTES: usize = LEAF_BYTES / 2;
/// Entries of a node as built.
const NODE_BUILT: usize = NODE_MAX * 3 / 4;

/// A sorted set that nobody sees yet. Once it is in rows, dropping it unfinished leaves rows behind: [`ZSetBuilder::abandon`] it instead.
#[derive(Debug)]
pub struct ZSetBuilder {
    limits: Limits,
    size: u64,
    /// Length of the longest member.
    longest: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Members as a packed set has them, but in the order of their coming, and negative zeros as they came. While Redis could hold them as a listpack, which
    /// has no negative zeros, it may be that they are not to be kept.
    Held(Vec<u8>),
    /// All came in order.
    Sorted(Building),
    /// Some did not.
    Grown(Box<ZSet>),
}

impl ZSetBuilder {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> ZSetBuilder {
        ZSetBuilder { limits, size: 0, longest: 0, stage: Stage::Held(Vec::new()) }
    }

    /// Number of members so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Adds a member with a score that is not NaN; false, and nothing done, if the member is there already.
    pub fn append(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8], score: f64) -> Result<bool, TypeError> {
        let object = match &self.stage {
            Stage::Held(bytes) => {
                if Members::new(bytes).find(member)?.is_some() {
                    return Ok(false);
                }
                return self.append_new(rows, member, score).map(|()| true);
            }
            Stage::Sorted(building) => building.object,
            Stage::Grown(set) => set.object(),
        };
        let known = rows.get(member_row(object, member))?.is_some();
        if !known {
            self.append_new(rows, member, score)?;
        }
        Ok(!known)
    }

    /// Adds a member that the caller knows not to be there, with a score that is not NaN.
    pub fn append_new(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        score: f64,
    ) -> Result<(), TypeError> {
        debug_assert!(!score.is_nan(), "a score is a number");
        self.size += 1;
        self.longest = self.longest.max(member.len());
        if let Stage::Held(bytes) = &mut self.stage {
            if self.size <= LISTPACK_ENTRIES && self.longest as u64 <= LISTPACK_VALUE {
                let end = bytes.len();
                packed::write(bytes, end..end, member, score);
                return Ok(());
            }
            let held = Members::new(bytes).all(self.size - 1)?;
            let mut building = Building::new(rows.new_object());
            let up = held.is_sorted_by_key(|next| next.position());
            let down = held.iter().rev().is_sorted_by_key(|next| next.position());
            if up || down {
                for next in &held {
                    building.append(rows, next.member, next.score)?;
                }
            } else {
                building.append_sorted(rows, held)?;
            }
            self.stage = Stage::Sorted(building);
        }
        if let Stage::Sorted(building) = &mut self.stage {
            if building.takes((order_of_f64(score), member)) {
                return building.append(rows, member, score);
            }
            let mut set = ZSet::replacing(None, self.limits);
            std::mem::replace(building, Building::new(ObjectId(0))).finish(rows, &mut set)?;
            self.stage = Stage::Grown(Box::new(set));
        }
        if let Stage::Grown(set) = &mut self.stage {
            set.set_rows(rows, member, None, score)?;
        }
        Ok(())
    }

    /// Gives up: rows that were written go to the janitor.
    pub fn abandon(self, rows: &mut (impl RowsMut + ?Sized)) {
        match self.stage {
            Stage::Held(_) => {}
            Stage::Sorted(building) => rows.discard(building.object),
            Stage::Grown(set) => rows.discard(set.object()),
        }
    }

    /// Makes this the value at the key, in place of `old`, the key's row as it stands. An empty set leaves no key.
    pub fn finish(
        self,
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        old: Option<KeyRow>,
        expiry: Option<UnixMs>,
    ) -> Result<bool, TypeError> {
        let mut set = ZSet::replacing(None, self.limits);
        match self.stage {
            Stage::Held(bytes) => {
                let mut all = Members::new(&bytes).all(self.size)?;
                all.sort_unstable_by_key(|next| next.position());
                all.iter_mut().for_each(|next| next.score += 0.0);
                if packed::limit(self.limits.zset).holds(self.size, self.longest, bytes.len()) {
                    let mut ordered = Vec::with_capacity(bytes.len());
                    for next in &all {
                        let end = ordered.len();
                        packed::write(&mut ordered, end..end, next.member, next.score);
                    }
                    (set.form, set.size) = (Form::Own(ordered), self.size);
                } else if !all.is_empty() {
                    let mut building = Building::new(rows.new_object());
                    building.append_sorted(rows, all)?;
                    building.finish(rows, &mut set)?;
                }
            }
            Stage::Sorted(building) => building.finish(rows, &mut set)?,
            Stage::Grown(grown) => set = *grown,
        }
        (set.old, set.expiry) = (old, expiry);
        Ok(set.save(rows, at))
    }
}

/// The place of a member, its own.
#[derive(Debug, Default)]
struct Place {
    order: u64,
    member: Vec<u8>,
}

/// A set in rows whose members come in order.
#[derive(Debug)]
pub struct Building {
    object: ObjectId,
    size: u64,
    state: State,
    /// Whether members come in descending order; not known of less than two.
    down: Option<bool>,
    /// The place of the newest member.
    newest: Place,
    /// The leaf that is being filled: numbers of scores with the ends of their members, which lie one after the other.
    scores: Vec<(u64, usize)>,
    names: Vec<u8>,
    /// Where it begins, if members come in ascending order.
    lower: (u64, Vec<u8>),
    /// The nodes that are being filled, one a height, lowest first, each in the order in which its entries come.
    open: Vec<Vec<Entry>>,
}

impl Building {
    /// An empty one.
    pub fn new(object: ObjectId) -> Building {
        Building {
            object,
            size: 0,
            state: State::FRESH,
            down: None,
            newest: Place::default(),
            scores: Vec::new(),
            names: Vec::new(),
            lower: (0, Vec::new()),
            open: Vec::new(),
        }
    }

    /// Whether a member at this position goes on in order.
    fn takes(&self, position: Position<'_>) -> bool {
        let newest = (self.newest.order, &self.newest.member[..]);
        match self.down {
            _ if self.size == 0 => true,
            None => position != newest,
            Some(true) => position < newest,
            Some(false) => position > newest,
        }
    }

    /// Adds packed members, which are different ones, after sorting them.
    pub fn append_sorted(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        mut all: Vec<packed::Packed<'_>>,
    ) -> Result<(), TypeError> {
        all.sort_unstable_by_key(|next| next.position());
        all.iter().try_for_each(|next| self.append(rows, next.member, next.score))
    }

    /// Adds a member that goes on in order.
    fn append(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8], score: f64) -> Result<(), TypeError> {
        let order = order_of_f64(score);
        if self.size > 0 && self.down.is_none() {
            self.down = Some((order, member) < (self.newest.order, &self.newest.member));
        }
        let full = self.scores.len() >= LEAF_BUILT || self.names.len() + member.len() > LEAF_BUILT_BYTES;
        if full && !self.scores.is_empty() {
            let newest = (self.newest.order, &self.newest.member[..]);
            if self.down == Some(true) {
                let lower = separator((order, member), newest);
                self.close_leaf(rows, lower)?;
            } else {
                let next = separator(newest, (order, member));
                let lower = std::mem::replace(&mut self.lower, next);
                self.close_leaf(rows, lower)?;
            }
        }
        rows.put(member_row(self.object, member), &score.to_le_bytes());
        self.names.extend_from_slice(member);
        self.scores.push((leaf::raw_order(score), self.names.len()));
        self.size += 1;
        self.state.count(self.size, member);
        self.newest.order = order;
        self.newest.member.clear();
        self.newest.member.extend_from_slice(member);
        Ok(())
    }

    /// Writes the open leaf, which has entries, and enters it above. `lower` is where it begins.
    fn close_leaf(&mut self, rows: &mut (impl RowsMut + ?Sized), lower: (u64, Vec<u8>)) -> Result<(), TypeError> {
        let mut start = 0;
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(self.scores.len());
        for (raw, end) in &self.scores {
            parts.push(Part::New(*raw, &self.names[start..*end]));
            start = *end;
        }
        if self.down == Some(true) {
            parts.reverse();
        }
        let mut buf = buffer();
        leaf::rebuild(&mut buf, &parts)?;
        let number = self.new_number();
        rows.put(node_row(self.object, number), &buf);
        keep(buf);
        let (this, first) = match self.down {
            Some(true) => (&mut self.state.first, &mut self.state.last),
            _ => (&mut self.state.last, &mut self.state.first),
        };
        *this = number;
        if *first == 0 {
            *first = number;
        }
        let count = self.scores.len() as u64;
        self.scores.clear();
        self.names.clear();
        self.enter(rows, 0, Entry { order: lower.0, tail: lower.1, count, number });
        Ok(())
    }

    fn new_number(&mut self) -> u64 {
        self.state.next += 1;
        self.state.next - 1
    }

    fn enter(&mut self, rows: &mut (impl RowsMut + ?Sized), height: usize, entry: Entry) {
        if self.open.len() == height {
            self.open.push(Vec::new());
        }
        let tails = self.open[height].iter().map(|entry| entry.tail.len()).sum::<usize>();
        let entries = self.open[height].len();
        if entries >= NODE_BUILT || (entries >= NODE_FEW && tails + entry.tail.len() > NODE_TAILS) {
            self.close_node(rows, height);
        }
        self.open[height].push(entry);
    }

    /// The open node of a height as bytes behind `base` others.
    fn node(&mut self, height: usize, mut node: NodeBuf) -> (Entry, NodeBuf) {
        let mut entries = std::mem::take(&mut self.open[height]);
        if self.down == Some(true) {
            entries.reverse();
        }
        let mut above = Entry { order: 0, tail: Vec::new(), count: 0, number: 0 };
        for (i, entry) in entries.into_iter().enumerate() {
            above.count += entry.count;
            if i == 0 {
                node.push((0, b""), entry.count, entry.number);
                (above.order, above.tail) = (entry.order, entry.tail);
            } else {
                node.push((entry.order, &entry.tail), entry.count, entry.number);
            }
        }
        (above, node)
    }

    /// Writes the open node of a height, which has entries, and enters it above.
    fn close_node(&mut self, rows: &mut (impl RowsMut + ?Sized), height: usize) {
        let mut node = NodeBuf::default();
        node.clear();
        let (mut above, node) = self.node(height, node);
        above.number = self.new_number();
        rows.put(node_row(self.object, above.number), node.node());
        self.enter(rows, height + 1, above);
    }

    /// Closes everything but the root, and makes this what `set`, an empty one, holds.
    pub fn finish(mut self, rows: &mut (impl RowsMut + ?Sized), set: &mut ZSet) -> Result<(), TypeError> {
        if !self.scores.is_empty() {
            let lower = if self.down == Some(true) { (0, Vec::new()) } else { std::mem::take(&mut self.lower) };
            self.close_leaf(rows, lower)?;
        }
        let mut height = 0;
        while let Some(entries) = self.open.get(height) {
            let tails = entries.iter().map(|entry| entry.tail.len()).sum::<usize>();
            let is_root = height + 1 == self.open.len()
                && entries.len() <= ROOT_MAX
                && (entries.len() <= NODE_FEW || tails <= ROOT_TAILS);
            if is_root {
                break;
            }
            self.close_node(rows, height);
            height += 1;
        }
        self.state.height = u8::try_from(height).unwrap_or(u8::MAX);
        set.root = Some(if self.open.is_empty() { empty_root() } else { self.node(height, empty_root()).1 });
        (set.form, set.fresh, set.state, set.size) = (Form::Rows(self.object), true, self.state, self.size);
        Ok(())
    }
}

/// The shortest position after `left` and not after `right`, which comes later.
fn separator(left: Position<'_>, right: Position<'_>) -> (u64, Vec<u8>) {
    if left.0 != right.0 {
        return (right.0, Vec::new());
    }
    let end = right.1.len().min(common(left.1, right.1) + 1);
    (right.0, right.1[..end].to_vec())
}
