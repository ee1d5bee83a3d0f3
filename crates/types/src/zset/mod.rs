//! Sorted sets: a member's score by name, members by score, and ranks, each in O(log n).
//!
//! A small set is packed in the key's row, see [`packed`]. Else there are rows under the object of the set:
//! - `Member`: (member_hash, member) -> the score, f64 little-endian;
//! - `Score`: (order of the score, member) -> empty;
//! - `Rank1`: (number of the node, empty) -> a node of the counted tree (see [`tree`] and [`node`]).
//!
//! Then the key's row holds the cardinality as its size and, after that, what [`ZSet`] needs at once:
//!
//! ```text
//! 0..4    length of the longest member ever, u32 le (saturating)
//! 4..8    greatest cardinality ever, u32 le (saturating)
//! 8..16   low: no score row has a smaller order, u64 le
//! 16..24  high: no score row has a greater order, u64 le
//! 24      height of the tree
//! 25..33  number of the next node, u64 le
//! 33..37  front: first rows taken out that the tree still counts, u32 le (see [`tree`])
//! 37..41  room: how many more may be taken out so, u32 le
//! 41..    the root of the tree; absent while one run covers everything
//! ```
//!
//! Invariants: `Member` and `Score` rows are one to one; the cardinality is their number; the counts of the tree's entries are the
//! numbers of the score rows that they cover, but for the front; `low` and `high` bound all orders, so that a set used as a queue is not searched through the
//! rows that it has already given away; negative zero is stored as zero. `check` in the tests holds all of that.

mod build;
#[cfg(test)]
mod check;
pub mod node;
mod packed;
pub mod range;
#[cfg(test)]
mod tests;
mod tree;

use ardb_base::hash::member_hash;
use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::row::{f64_of_order, order_of_f64};
use ardb_engine::{RowKey, Rows, RowsMut, Space};

use crate::limits::{Limit, Limits};
use crate::packed::Form;
use crate::{At, Encoding, Header, KeyRow, Kind, TypeError, keyspace};
use node::{NodeBuf, NodeRef};

pub use build::ZSetBuilder;
pub(crate) use packed::Members;
pub use range::{LexBound, ScoreRange, Span};

const LOW: usize = 8;
const HIGH: usize = 16;
const HEIGHT: usize = 24;
const NEXT: usize = 25;
const FRONT: usize = 33;
const ROOM: usize = 37;
const ROOT: usize = 41;

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
    /// What follows the size in the key's row, once something has been changed.
    extra: Option<NodeBuf>,
    /// Buffers for nodes.
    spare: Vec<NodeBuf>,
}

fn fresh_extra() -> NodeBuf {
    let mut bytes = Vec::with_capacity(ROOT + 2);
    bytes.resize(ROOT, 0);
    bytes[LOW..HIGH].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes[NEXT..FRONT].copy_from_slice(&1u64.to_le_bytes());
    let mut extra = NodeBuf { bytes, base: ROOT };
    extra.clear();
    extra
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The name of a member's row.
fn member_row(object: ObjectId, member: &[u8]) -> RowKey<'_> {
    RowKey::new(Space::Member, object.0, member_hash(member), member)
}

/// The name of a member's row by score.
fn score_row(object: ObjectId, score: f64, member: &[u8]) -> RowKey<'_> {
    RowKey::new(Space::Score, object.0, order_of_f64(score), member)
}

/// Redis's defaults for what a listpack may hold; see [`ZSet::keeps_sign`].
pub(super) const LISTPACK_ENTRIES: u64 = 128;
pub(super) const LISTPACK_VALUE: u64 = 64;

/// The value of a member's row by score: empty, but for negative zero, which has the place of zero and is told from it by one byte.
fn score_sign(score: f64) -> &'static [u8] {
    if score == 0.0 && score.is_sign_negative() { b"-" } else { b"" }
}

/// The score that a row by score stands for.
fn score_of_place(order: u64, sign: &[u8]) -> f64 {
    if sign.is_empty() { f64_of_order(order) } else { -0.0 }
}

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
        let form = match (row.kind(), row.encoding()) {
            (Kind::SortedSet, Encoding::Packed) => Form::Row,
            (Kind::SortedSet, Encoding::Rows) => {
                NodeRef::parse(row.extra().get(ROOT..).ok_or_else(damaged)?)?;
                Form::Rows(row.object())
            }
            _ => return Err(damaged()),
        };
        let (size, expiry) = (row.size(), row.expiry());
        Ok(ZSet { form, fresh: false, expiry, size, ..ZSet::replacing(Some(row), limits) })
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
            extra: None,
            spare: Vec::new(),
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
            return Ok(self.extra_bytes().map_or(0, |extra| u64::from(u32_at(extra, 0))));
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
        self.extra_bytes().map_or(self.size, |extra| u64::from(u32_at(extra, 4)))
    }

    /// What follows the size in the key's row of a set in rows.
    fn extra_bytes(&self) -> Option<&[u8]> {
        match (&self.extra, &self.old, &self.form) {
            (Some(extra), ..) => Some(&extra.bytes),
            (None, Some(old), Form::Rows(_)) if !self.fresh => Some(old.extra()),
            _ => None,
        }
    }

    fn low(&self) -> u64 {
        self.extra_bytes().map_or(0, |extra| u64_at(extra, LOW))
    }

    fn high(&self) -> u64 {
        self.extra_bytes().map_or(0, |extra| u64_at(extra, HIGH))
    }

    fn height(&self) -> u8 {
        self.extra_bytes().map_or(0, |extra| extra[HEIGHT])
    }

    fn root(&self) -> Result<NodeRef<'_>, TypeError> {
        NodeRef::parse(self.extra_bytes().map_or(b"", |extra| &extra[ROOT..]))
    }

    /// What follows the size in the key's row, to be changed.
    fn extra_mut(&mut self) -> &mut NodeBuf {
        let (old, fresh) = (&self.old, self.fresh);
        self.extra.get_or_insert_with(|| match old {
            Some(old) if !fresh => {
                let from = old.extra();
                let mut bytes = Vec::with_capacity(from.len() + 64);
                bytes.extend_from_slice(from);
                let mut extra = NodeBuf { bytes, base: ROOT };
                if extra.node().is_empty() {
                    extra.clear();
                }
                extra
            }
            _ => fresh_extra(),
        })
    }

    fn set_u64(&mut self, at: usize, value: u64) {
        self.extra_mut().bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn set_height(&mut self, height: u8) {
        self.extra_mut().bytes[HEIGHT] = height;
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
        let order = order_of_f64(score);
        rows.put(member_row(self.object(), member), &score.to_le_bytes());
        rows.put(score_row(self.object(), score, member), score_sign(score));
        if order < self.low() {
            self.set_u64(LOW, order);
        }
        if order > self.high() {
            self.set_u64(HIGH, order);
        }
        if let Some(old) = old {
            rows.delete(score_row(self.object(), old, member));
            self.tree_move(rows, (order_of_f64(old), member), (order, member))?;
            return Ok(Inserted::Updated);
        }
        self.size += 1;
        self.tree_add(rows, (order, member))?;
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        let length = u32::try_from(member.len()).unwrap_or(u32::MAX);
        let extra = self.extra_mut();
        for (at, value) in [(0, length), (4, size)] {
            if u32_at(&extra.bytes, at) < value {
                extra.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
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
        let Some(extra) = self.extra_bytes() else { return true };
        u64::from(u32_at(extra, 4)) <= LISTPACK_ENTRIES && u64::from(u32_at(extra, 0)) <= LISTPACK_VALUE
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
        if self.remove_rows(rows, member, score)? {
            self.tree_take(rows, (order_of_f64(score), member))?;
        }
        Ok(())
    }

    /// As [`ZSet::remove_known`], for the first member of all.
    fn remove_first(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8], score: f64) -> Result<(), TypeError> {
        if self.remove_rows(rows, member, score)? { self.tree_take_first(rows) } else { Ok(()) }
    }

    /// Deletes a member, with its rows; whether there is a tree that must hear of it.
    fn remove_rows(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        score: f64,
    ) -> Result<bool, TypeError> {
        if self.size <= 1 {
            self.clear(rows);
            return Ok(false);
        }
        if self.remove_packed(member)? {
            return Ok(false);
        }
        rows.delete(member_row(self.object(), member));
        rows.delete(score_row(self.object(), score, member));
        self.size -= 1;
        Ok(true)
    }

    /// Takes out all members, in O(1): the rows are left to the janitor.
    pub fn clear(&mut self, rows: &mut (impl RowsMut + ?Sized)) {
        if let (true, Form::Rows(object)) = (self.fresh, &self.form) {
            rows.discard(*object);
        }
        self.form = Form::Own(Vec::new());
        self.fresh = true;
        self.size = 0;
        self.extra = None;
    }

    /// Writes the key's row; if no members are left, the key is deleted instead. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        if self.size == 0 {
            if let Some(old) = &self.old {
                keyspace::delete(rows, at, old);
            }
            return false;
        }
        // Only what was changed is written; a set that was opened and read needs no row.
        let (encoding, rest) = match (&self.form, &self.extra) {
            (Form::Own(bytes), _) => (Encoding::Packed, bytes),
            (Form::Rows(_), Some(extra)) => (Encoding::Rows, &extra.bytes),
            (Form::Row, _) | (Form::Rows(_), None) => return true,
        };
        let (object, size) = (self.object(), self.size);
        let header = Header { kind: Kind::SortedSet, encoding, expiry: self.expiry, object, size };
        keyspace::put(rows, at, self.old.as_ref(), &header, rest);
        true
    }
}
