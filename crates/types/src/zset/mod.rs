//! Sorted sets: a member's score by name, members by score, and ranks, each in O(log n).
//!
//! A small set is packed in the key's row, see [`packed`]. Else there are rows under the object of the set:
//! - `Member`: (member_hash, member) -> the score, f64 little-endian;
//! - `Rank1`: (number, empty) -> a leaf of the tree ([`leaf`]) with members and scores in the order of the set, or an inner node ([`node`]) that leads to some
//!   of them and counts them.
//!
//! Then the key's row holds the cardinality as its size and, after that, what [`ZSet`] needs at once:
//!
//! ```text
//! 0..4    length of the longest member ever, u32 le (saturating)
//! 4..8    greatest cardinality ever, u32 le (saturating)
//! 8       height of the tree: nodes between the root and a leaf
//! 9..17   number of the next node, u64 le
//! 17..25  number of the first leaf, u64 le, 0 if it is not known
//! 25..33  number of the last leaf, u64 le, 0 if it is not known
//! 33..35  front: members that were taken out and the first leaf still holds, its first ones, u16 le (see [`tree`])
//! 35..37  back: the same at the end of the last leaf
//! 37..    the root of the tree, an inner node
//! ```
//!
//! Invariants: `Member` rows and the entries of leaves, without front and back, are one to one, with the same scores; the cardinality is their number; the
//! counts of inner nodes are right (see [`tree`]); a small set has no negative zero (see [`ZSet::keeps_sign`]). `check` in the tests holds all of that.

mod build;
#[cfg(test)]
mod check;
mod leaf;
pub mod node;
mod packed;
pub mod range;
mod take;
#[cfg(test)]
mod tests;
mod tree;

use ardb_base::hash::member_hash;
use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::row::{Patch, order_of_f64};
use ardb_engine::{RowKey, Rows, RowsMut, Space};

use crate::limits::{Limit, Limits};
use crate::packed::Form;
use crate::{At, Encoding, Header, KeyRow, Kind, TypeError, keyspace};
use node::{NodeBuf, NodeRef};

pub use build::ZSetBuilder;
pub(crate) use packed::Members;
pub use range::{LexBound, ScoreRange, Span};

/// Where the root stands behind the size in the key's row.
const ROOT: usize = 37;

/// How many counts of the root may change before it is written anew: a member that is moved changes two.
const ROOT_COUNTS: usize = 2;

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The member is new.
    Added,
    /// It had another score.
    Updated,
    /// It had this score.
    Same,
}

/// An open sorted set. Changes reach the key's row by [`ZSet::save`]; a set that was changed must be saved.
#[derive(Clone, Debug)]
pub struct ZSet {
    /// The row that stands at the key, whatever it is.
    old: Option<KeyRow>,
    form: Form,
    /// Neither members nor object are those of `old`.
    fresh: bool,
    expiry: Option<UnixMs>,
    size: u64,
    limit: Limit,
    /// What the key's row says of a set in rows before the root.
    state: State,
    /// The root, once more of it than some counts has been changed.
    root: Option<NodeBuf>,
    /// Counts of the root that have changed, by entry: what the key's row says of these is past. None once there is `root`.
    counts: [Option<(usize, u64)>; ROOT_COUNTS],
}

/// What the key's row says of a set in rows between the size and the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Length of the longest member ever.
    longest: u32,
    /// Greatest cardinality ever.
    peak: u32,
    height: u8,
    /// Number of the next node or leaf.
    next: u64,
    /// The first and the last leaf, 0 if it is not known which they are.
    first: u64,
    last: u64,
    /// What they have lost and still hold.
    front: u16,
    back: u16,
}

impl State {
    const FRESH: State = State { longest: 0, peak: 0, height: 0, next: 1, first: 0, last: 0, front: 0, back: 0 };

    fn parse(bytes: &[u8; ROOT]) -> State {
        let u64_at = |at: usize| u64::from_le_bytes(part(bytes, at));
        State {
            longest: u32::from_le_bytes(part(bytes, 0)),
            peak: u32::from_le_bytes(part(bytes, 4)),
            height: bytes[8],
            next: u64_at(9),
            first: u64_at(17),
            last: u64_at(25),
            front: u16::from_le_bytes(part(bytes, 33)),
            back: u16::from_le_bytes(part(bytes, 35)),
        }
    }

    /// The set has come to this size, with this member.
    fn count(&mut self, size: u64, member: &[u8]) {
        self.peak = self.peak.max(u32::try_from(size).unwrap_or(u32::MAX));
        self.longest = self.longest.max(u32::try_from(member.len()).unwrap_or(u32::MAX));
    }

    /// Whether Redis, by its defaults, would hold the set as a listpack.
    fn is_small(&self) -> bool {
        u64::from(self.peak) <= LISTPACK_ENTRIES && u64::from(self.longest) <= LISTPACK_VALUE
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&self.longest.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.peak.to_le_bytes());
        bytes[8] = self.height;
        bytes[9..17].copy_from_slice(&self.next.to_le_bytes());
        bytes[17..25].copy_from_slice(&self.first.to_le_bytes());
        bytes[25..33].copy_from_slice(&self.last.to_le_bytes());
        bytes[33..35].copy_from_slice(&self.front.to_le_bytes());
        bytes[35..37].copy_from_slice(&self.back.to_le_bytes());
    }
}

/// `N` bytes from `at` on, which are there.
fn part<const N: usize>(bytes: &[u8; ROOT], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The root with its counts.
enum CountedRoot<'a> {
    AsItLies(NodeRef<'a>),
    Changed(NodeBuf),
}

impl CountedRoot<'_> {
    fn view(&self) -> NodeRef<'_> {
        match self {
            CountedRoot::AsItLies(root) => *root,
            CountedRoot::Changed(root) => root.view(),
        }
    }
}

fn empty_root() -> NodeBuf {
    let mut root = NodeBuf { bytes: vec![0; ROOT], base: ROOT };
    root.clear();
    root
}

/// The name of a member's row.
fn member_row(object: ObjectId, member: &[u8]) -> RowKey<'_> {
    RowKey::new(Space::Member, object.0, member_hash(member), member)
}

/// Redis's defaults for what a listpack may hold; see [`ZSet::keeps_sign`].
pub(super) const LISTPACK_ENTRIES: u64 = 128;
pub(super) const LISTPACK_VALUE: u64 = 64;

/// The score that a `Member` row holds.
pub fn score_of_row(value: &[u8]) -> Result<f64, TypeError> {
    let bytes: [u8; 8] =
        value.try_into().map_err(|_| TypeError::Corrupt("sorted set: a score is not 8 bytes".into()))?;
    let score = f64::from_le_bytes(bytes);
    if score.is_nan() {
        return Err(TypeError::Corrupt("sorted set: a score is not a number".into()));
    }
    Ok(score)
}

impl ZSet {
    /// The sorted set at a key, or `None` if there is none.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<ZSet>, TypeError> {
        keyspace::lookup_kind(rows, at, Kind::SortedSet)?.map(|row| ZSet::within(row, at.limits)).transpose()
    }

    /// The sorted set at a key, or an empty one that will stand there once it has members and is saved.
    pub fn open_or_create(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<ZSet, TypeError> {
        let found = keyspace::find_kind(rows, at, Kind::SortedSet)?;
        match found.live() {
            Some(row) => ZSet::within(row.clone(), at.limits),
            None => Ok(ZSet::replacing(found.raw, at.limits)),
        }
    }

    /// The sorted set whose key's row this is, to be read. The row must be of its type.
    pub fn of_row(row: KeyRow) -> Result<ZSet, TypeError> {
        ZSet::within(row, Limits::default())
    }

    fn within(row: KeyRow, limits: Limits) -> Result<ZSet, TypeError> {
        let damaged = || TypeError::Corrupt("sorted set: damaged key row".into());
        let (form, state) = match (row.kind(), row.encoding()) {
            (Kind::SortedSet, Encoding::Packed) => (Form::Row, State::FRESH),
            (Kind::SortedSet, Encoding::Rows) => {
                let (state, root) = row.extra().split_first_chunk().ok_or_else(damaged)?;
                NodeRef::parse(root)?;
                (Form::Rows(row.object()), State::parse(state))
            }
            _ => return Err(damaged()),
        };
        let (size, expiry) = (row.size(), row.expiry());
        Ok(ZSet { form, fresh: false, expiry, size, state, ..ZSet::replacing(Some(row), limits) })
    }

    /// An empty set that will replace `old`, the key's row as it stands, and has no expiry.
    #[must_use]
    pub fn replacing(old: Option<KeyRow>, limits: Limits) -> ZSet {
        ZSet {
            old,
            form: Form::Own(Vec::new()),
            fresh: true,
            expiry: None,
            size: 0,
            limit: packed::limit(limits.zset),
            state: State::FRESH,
            root: None,
            counts: [None; ROOT_COUNTS],
        }
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The object under which the rows lie; 0 if it is packed and has none.
    fn object(&self) -> ObjectId {
        if let Form::Rows(object) = self.form { object } else { ObjectId(0) }
    }

    /// Length of the longest member that the set ever had; of a packed set, which has always been small, that it has.
    pub fn longest_member(&self) -> Result<u64, TypeError> {
        let Some(mut members) = self.members() else {
            return Ok(u64::from(self.state.longest));
        };
        let mut longest = 0;
        while let Some(next) = members.next()? {
            longest = longest.max(next.member.len() as u64);
        }
        Ok(longest)
    }

    /// The greatest number of members that it ever had; of a packed set, which has always been small, that it has.
    #[must_use]
    pub fn peak(&self) -> u64 {
        if let Form::Rows(_) = self.form { u64::from(self.state.peak) } else { self.size }
    }

    /// The root as it lies in the key's row.
    fn old_root(&self) -> &[u8] {
        match &self.old {
            Some(old) if !self.fresh => old.extra().get(ROOT..).unwrap_or(b""),
            _ => b"",
        }
    }

    /// The root, but for the counts that have changed.
    fn root(&self) -> Result<NodeRef<'_>, TypeError> {
        match &self.root {
            Some(root) => Ok(root.view()),
            None => NodeRef::parse(self.old_root()),
        }
    }

    /// The root, to be changed. Before it is written, what stands before it will be.
    fn root_mut(&mut self) -> Result<&mut NodeBuf, TypeError> {
        if self.root.is_none() {
            let old = self.old_root();
            NodeRef::parse(old)?;
            let mut bytes = Vec::with_capacity(ROOT + old.len() + 64);
            bytes.resize(ROOT, 0);
            let mut root = NodeBuf { bytes, base: ROOT };
            root.load(old);
            for (at, count) in std::mem::take(&mut self.counts).into_iter().flatten() {
                root.set_count(at, count);
            }
            self.root = Some(root);
        }
        Ok(self.root.get_or_insert_with(empty_root))
    }

    /// The root with its counts.
    fn counted_root(&self) -> Result<CountedRoot<'_>, TypeError> {
        let root = self.root()?;
        if self.counts == [None; ROOT_COUNTS] {
            return Ok(CountedRoot::AsItLies(root));
        }
        let mut changed = NodeBuf::default();
        changed.load(self.old_root());
        for (at, count) in self.counts.into_iter().flatten() {
            changed.set_count(at, count);
        }
        Ok(CountedRoot::Changed(changed))
    }

    /// The count of an entry of the root.
    fn root_count(&self, at: usize) -> Result<u64, TypeError> {
        let changed = self.counts.iter().flatten().find(|changed| changed.0 == at);
        Ok(match changed {
            Some((_, count)) => *count,
            None => self.root()?.count(at),
        })
    }

    /// Notes that an entry of the root has this count now, if that needs no new root. Whether it did.
    fn note_root_count(&mut self, at: usize, count: u64) -> Result<bool, TypeError> {
        if self.root.is_some() || self.fresh || self.root()?.count_patch(at, count).is_none() {
            return Ok(false);
        }
        let known = self.counts.iter().position(|known| known.is_some_and(|(of, _)| of == at));
        let Some(slot) = known.or_else(|| self.counts.iter().position(Option::is_none)) else { return Ok(false) };
        self.counts[slot] = Some((at, count));
        Ok(true)
    }

    /// The member's score.
    pub fn score(&self, rows: &(impl Rows + ?Sized), member: &[u8]) -> Result<Option<f64>, TypeError> {
        if let Some(members) = self.members() {
            return Ok(members.find(member)?.map(|found| found.score));
        }
        rows.get(member_row(self.object(), member))?.map(|value| score_of_row(&value)).transpose()
    }

    /// Gives the member this score, which is not NaN.
    pub fn insert(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        score: f64,
    ) -> Result<Inserted, TypeError> {
        let old = self.score(rows, member)?;
        self.set(rows, member, old, score)
    }

    /// Gives the member, whose score [`ZSet::score`] told to be `old`, this score, which is not NaN.
    pub fn set(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        old: Option<f64>,
        score: f64,
    ) -> Result<Inserted, TypeError> {
        debug_assert!(!score.is_nan(), "a score is a number");
        if old == Some(score) {
            return Ok(Inserted::Same);
        }
        if let Some(done) = self.set_packed(member, old, score)? {
            return Ok(done);
        }
        self.go_to_rows(rows)?;
        self.set_rows(rows, member, old, score)
    }

    /// As [`ZSet::set`], in a set in rows.
    fn set_rows(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        old: Option<f64>,
        score: f64,
    ) -> Result<Inserted, TypeError> {
        let score = if self.keeps_sign(member, old.is_none()) { score } else { score + 0.0 };
        let (raw, order) = (leaf::raw_order(score), order_of_f64(score));
        let row = member_row(self.object(), member);
        if let Some(old) = old {
            // Both leaves are far away in memory, so the processor is asked for them before the first of them is needed.
            let from = (order_of_f64(old), member);
            let way = self.way_to(rows, from)?;
            drop(self.way_to(rows, (order, member))?);
            rows.put(row, &score.to_le_bytes());
            self.tree_move(rows, way, from, raw, (order, member))?;
            return Ok(Inserted::Updated);
        }
        let way = self.way_for(rows, (order, member))?;
        rows.put(row, &score.to_le_bytes());
        self.tree_add(rows, way, raw, (order, member))?;
        self.size = self.size.checked_add(1).ok_or_else(|| tree::corrupt("too many members"))?;
        self.state.count(self.size, member);
        Ok(Inserted::Added)
    }

    /// Whether a negative zero stays one. In Redis it does in sets that are, or have been, too big for a listpack, whose integers have no
    /// such thing; clients see it.
    fn keeps_sign(&self, member: &[u8], new: bool) -> bool {
        let size = self.size + u64::from(new);
        size > LISTPACK_ENTRIES || member.len() as u64 > LISTPACK_VALUE || !self.is_small()
    }

    /// Whether Redis, by its defaults, would hold it as a listpack.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.state.is_small()
    }

    /// Takes the member out; its score, or `None` if it was not there.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8]) -> Result<Option<f64>, TypeError> {
        let score = self.score(rows, member)?;
        if let Some(score) = score {
            self.remove_known(rows, member, score)?;
        }
        Ok(score)
    }

    /// Takes out a member that is there with this score.
    pub fn remove_known(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        score: f64,
    ) -> Result<(), TypeError> {
        if self.size <= 1 {
            self.clear(rows);
            return Ok(());
        }
        if self.remove_packed(member)? {
            return Ok(());
        }
        self.tree_take(rows, (order_of_f64(score), member))?;
        rows.delete(member_row(self.object(), member));
        self.size -= 1;
        Ok(())
    }

    /// Takes out all members, in O(1): the rows are left to the janitor.
    pub fn clear(&mut self, rows: &mut (impl RowsMut + ?Sized)) {
        if let (true, Form::Rows(object)) = (self.fresh, &self.form) {
            rows.discard(*object);
        }
        self.form = Form::Own(Vec::new());
        self.fresh = true;
        self.size = 0;
        self.state = State::FRESH;
        self.root = None;
        self.counts = [None; ROOT_COUNTS];
    }

    /// Whether the key's row says something else of this set in rows, apart from the root.
    fn is_changed(&self) -> bool {
        self.fresh
            || self.old.as_ref().is_none_or(|old| {
                let state = old.extra().first_chunk().map(State::parse);
                old.size() != self.size || state != Some(self.state)
            })
    }

    /// Changes the key's row where it says something else of this set, if all that can be changed in place. Whether it was.
    fn patch(&mut self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        let expiry = self.expiry;
        if !matches!(self.form, Form::Rows(_)) || self.root.is_some() || self.fresh {
            return false;
        }
        let is_changed = self.is_changed();
        if !is_changed && self.counts == [None; ROOT_COUNTS] {
            return true;
        }
        let Some(old) = self.old.take_if(|old| old.expiry() == expiry) else { return false };
        let mut state = [0; ROOT];
        self.state.write(&mut state);
        let counts = self.counts.map(|changed| {
            let (entry, count) = changed?;
            NodeRef::parse(old.extra().get(ROOT..)?).ok()?.count_patch(entry, count)
        });
        let mut patches: [Patch<'_>; 1 + ROOT_COUNTS] = Default::default();
        let mut many = 0;
        let state = is_changed.then_some((0, &state[..]));
        for patch in state.into_iter().chain(counts.iter().flatten().map(|count| (ROOT + count.at, count.bytes()))) {
            patches[many] = patch;
            many += 1;
        }
        keyspace::patch(rows, at, old, self.size, &patches[..many]);
        true
    }

    /// Writes the key's row; if no members are left, the key is deleted instead. Whether the key is there now.
    pub fn save(mut self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        if self.size == 0 {
            if let Some(old) = &self.old {
                keyspace::delete(rows, at, old);
            }
            return false;
        }
        // Only what was changed is written; a set that was opened and read needs no row. As a rule that is a few numbers of the row.
        if self.patch(rows, at) {
            return true;
        }
        let counted = self.counts != [None; ROOT_COUNTS];
        if matches!(self.form, Form::Rows(_)) && (self.root.is_some() || counted || self.is_changed()) {
            let state = self.state;
            // The root was read when the set was opened, so it can be.
            if let Ok(root) = self.root_mut() {
                state.write(&mut root.bytes);
            }
        }
        let (encoding, rest) = match (&self.form, &self.root) {
            (Form::Own(bytes), _) => (Encoding::Packed, bytes),
            (Form::Rows(_), Some(root)) => (Encoding::Rows, &root.bytes),
            (Form::Row, _) | (Form::Rows(_), None) => return true,
        };
        let (object, size) = (self.object(), self.size);
        let header = Header { kind: Kind::SortedSet, encoding, expiry: self.expiry, object, size };
        keyspace::put(rows, at, self.old.as_ref(), &header, rest);
        true
    }
}
