//! How rows are named, and the two traits through which values are read and written.
//!
//! Every row's key has the same shape: a space byte, a group (the keyspace or the object it belongs to), a 64-bit order within the
//! group (a hash, a list position, a score, a time), and a tail (the key, field or member itself). Encoded, the integers are big-endian, so
//! that byte order is the order of `(space, group, order, tail)`.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use ardb_base::id::{KeyspaceId, ObjectId};

use crate::EngineError;

/// Bytes of an encoded key before its tail.
pub const HEADER: usize = 17;

/// The kinds of rows. The numbers are part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// The store's own: position, catalog. Group and order are zero or small constants.
    Meta = 0,
    /// Keys. Group: keyspace; order: `key_hash`; tail: the key.
    Key = 1,
    /// Hash fields, set members, and the scores of sorted set members. Group: object; order: `member_hash`; tail: the member.
    Member = 2,
    /// Elements of lists, a few in a row. Group: object; order: number of the chunk (see `order_of_i64`), or, far from those, of an element that is a row; tail: empty.
    Element = 3,
    /// Pieces of big strings. Group: object; order: piece number; tail: empty.
    Chunk = 4,
    /// Not in use.
    Score = 5,
    /// Nodes and leaves of the tree of a sorted set. Group: object; order: number of the node; tail: empty.
    Rank1 = 6,
    /// Not in use.
    Rank2 = 7,
    /// Not in use.
    Rank3 = 8,
    /// Not in use.
    Rank4 = 9,
    /// Keys by the time they expire. Group: 0; order: milliseconds; tail: keyspace (8 bytes, big-endian), then the key.
    Expiry = 10,
    /// Objects and keyspaces whose rows a background job has yet to delete. Group: the object or keyspace; tail: empty.
    Garbage = 11,
}

impl Space {
    /// All spaces in order.
    pub const ALL: [Space; 12] = [
        Space::Meta,
        Space::Key,
        Space::Member,
        Space::Element,
        Space::Chunk,
        Space::Score,
        Space::Rank1,
        Space::Rank2,
        Space::Rank3,
        Space::Rank4,
        Space::Expiry,
        Space::Garbage,
    ];

    /// The space with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Space> {
        Space::ALL.get(usize::from(byte)).copied()
    }
}

/// The name of a row, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKey<'a> {
    /// Kind of row.
    pub space: Space,
    /// Keyspace or object.
    pub group: u64,
    /// Place within the group.
    pub order: u64,
    /// The rest, compared as bytes.
    pub tail: &'a [u8],
}

impl<'a> RowKey<'a> {
    /// A row's name from its parts.
    #[must_use]
    pub fn new(space: Space, group: u64, order: u64, tail: &'a [u8]) -> RowKey<'a> {
        RowKey { space, group, order, tail }
    }

    /// Appends the encoded key to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER + self.tail.len());
        out.push(self.space as u8);
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&self.order.to_be_bytes());
        out.extend_from_slice(self.tail);
    }

    /// The encoded key as a new vector.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// The name that `bytes` encode, or `None` if they are no row's key.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<RowKey<'a>> {
        let space = Space::from_byte(*bytes.first()?)?;
        let group = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
        let order = u64::from_be_bytes(bytes.get(9..17)?.try_into().ok()?);
        Some(RowKey { space, group, order, tail: &bytes[HEADER..] })
    }
}

impl Ord for RowKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.space, self.group, self.order)
            .cmp(&(other.space, other.group, other.order))
            .then_with(|| self.tail.cmp(other.tail))
    }
}

impl PartialOrd for RowKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The value of a row: immutable bytes. Short ones lie inline, so that most rows need no memory of their own and no count of references; longer ones are
/// shared without copying.
#[derive(Clone)]
pub struct Value(Repr);

/// Bytes that a value holds inline: as many as fit beside the tag where a shared slice would stand.
const INLINE: usize = 22;

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Shared(Arc<[u8]>),
}

impl Value {
    /// A copy of `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &[u8]) -> Value {
        if bytes.len() <= INLINE {
            let mut inline = [0; INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            Value(Repr::Inline(bytes.len() as u8, inline))
        } else {
            Value(Repr::Shared(Arc::from(bytes)))
        }
    }

    /// Whether nobody else holds the bytes, so that [`Value::patch`] changes them where they lie.
    #[inline]
    pub fn is_sole(&mut self) -> bool {
        match &mut self.0 {
            Repr::Inline(..) => true,
            Repr::Shared(bytes) => Arc::get_mut(bytes).is_some(),
        }
    }

    /// Replaces bytes. Others who hold the value keep it as it was: then it is copied first. What would lie beyond the end is left out.
    pub fn patch(&mut self, patches: &[Patch<'_>]) {
        let bytes = match &mut self.0 {
            // As in `deref`.
            Repr::Inline(len, bytes) => &mut bytes[..usize::from(*len)],
            Repr::Shared(bytes) => Arc::make_mut(bytes),
        };
        for (at, new) in patches {
            let old = bytes.get_mut(*at..).and_then(|rest| rest.get_mut(..new.len()));
            debug_assert!(old.is_some(), "a patch beyond the end of a value");
            if let Some(old) = old {
                old.copy_from_slice(new);
            }
        }
    }

    /// Bytes it holds outside itself.
    #[must_use]
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline(..) => 0,
            Repr::Shared(bytes) => bytes.len(),
        }
    }
}

impl Deref for Value {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // The length was checked against INLINE when the value was made.
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Value").field(&&**self).finish()
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::new(bytes)
    }
}

/// Bytes that take the place of as many others in a value, from an offset on.
pub type Patch<'a> = (usize, &'a [u8]);

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From small to great.
    Forward,
    /// From great to small.
    Backward,
}

/// The rows of one group from `(from_order, from_tail)` to `(to_order, to_tail)`.
#[derive(Clone, Copy, Debug)]
pub struct RowRange<'a> {
    /// Kind of row.
    pub space: Space,
    /// Keyspace or object.
    pub group: u64,
    /// The first place, included.
    pub from: (u64, &'a [u8]),
    /// The place after the last, excluded; `None` is the end of the group.
    pub to: Option<(u64, &'a [u8])>,
}

impl<'a> RowRange<'a> {
    /// All rows of a group.
    #[must_use]
    pub fn group(space: Space, group: u64) -> RowRange<'a> {
        RowRange { space, group, from: (0, b""), to: None }
    }

    /// The rows of a group with an order in `from..=to`.
    #[must_use]
    pub fn orders(space: Space, group: u64, from: u64, to: u64) -> RowRange<'a> {
        RowRange { space, group, from: (from, b""), to: to.checked_add(1).map(|end| (end, &b""[..])) }
    }
}

/// What a scan calls for each row.
pub type Visit<'v> = dyn FnMut(RowKey<'_>, &Value) -> ControlFlow<()> + 'v;

/// What [`Rows::values`] calls for each value.
pub type VisitValue<'v> = dyn FnMut(&Value) -> ControlFlow<()> + 'v;

/// Reads at one point in time (or, within a write transaction, its own changes included).
pub trait Rows {
    /// The value of a row.
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError>;

    /// Calls `visit` for each row of `range` in order until it breaks. The cost is that of the rows visited, not of the range.
    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// As [`Rows::scan`], forward and for the values alone, which is quicker. `visit` must not read rows: it may run while a part of a table is locked.
    fn values(&self, range: RowRange<'_>, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        self.scan(range, Direction::Forward, &mut |_, value| visit(value))
    }

    /// Says that the row will be read in a moment, so that the processor may bring it into its cache meanwhile. It changes no result.
    fn prefetch(&self, key: RowKey<'_>) {
        let _ = key;
    }

    /// The keyspace that stands behind database `db` (which must be below the configured number).
    fn keyspace(&self, db: u32) -> KeyspaceId;

    /// How many keys database `db` has, expired but not yet deleted ones included.
    fn key_count(&self, db: u32) -> u64;

    /// How many of them have an expiry.
    fn expiry_count(&self, db: u32) -> u64;
}

/// Writes of one transaction. Everything becomes visible to others at its commit, at once.
pub trait RowsMut: Rows {
    /// Writes a row.
    fn put(&mut self, key: RowKey<'_>, value: &[u8]);

    /// As [`RowsMut::put`] of `old`, which is what the row holds, with some of its bytes replaced. The patches lie within it and apart from one another. If
    /// the transaction has written the row before and nobody else holds its value (so the caller gives `old` away), that costs no copy.
    fn patch(&mut self, key: RowKey<'_>, old: Value, patches: &[Patch<'_>]) {
        let mut value = old;
        value.patch(patches);
        self.put(key, &value);
    }

    /// Deletes a row that the caller knows to exist. (One that does not exist is no error, but costs a tombstone.)
    fn delete(&mut self, key: RowKey<'_>);

    /// A number that no object or keyspace ever had. Rows of a fresh object are known to be nowhere in the engine, so
    /// that reading those it lacks is cheap until the next checkpoint.
    fn new_object(&mut self) -> ObjectId;

    /// Leaves all rows of `object`, in every space, to the background job that deletes them. The caller has already
    /// deleted the row that names the object.
    fn discard(&mut self, object: ObjectId);

    /// Adds to the counts of database `db`.
    fn count(&mut self, db: u32, keys: i64, expiries: i64);

    /// Empties `db` in O(1): it gets a new keyspace, and the old one goes to the background job.
    fn flush(&mut self, db: u32);

    /// Exchanges two databases in O(1).
    fn swap(&mut self, a: u32, b: u32);
}

/// Order of a signed position: the sign bit is flipped, so that the unsigned order is that of the numbers.
#[must_use]
pub fn order_of_i64(n: i64) -> u64 {
    (n as u64) ^ (1 << 63)
}

/// The position with this order.
#[must_use]
pub fn i64_of_order(order: u64) -> i64 {
    (order ^ (1 << 63)) as i64
}

/// Order of a score: IEEE 754 bits with the sign bit flipped, all bits if negative. `-0.0` becomes `0.0`; the score must not be NaN.
#[must_use]
pub fn order_of_f64(score: f64) -> u64 {
    debug_assert!(!score.is_nan(), "a score is a number");
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The score with this order.
#[must_use]
pub fn f64_of_order(order: u64) -> f64 {
    f64::from_bits(if order >> 63 == 1 { order ^ (1 << 63) } else { !order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_keeps_the_order_of_names() {
        let names = [
            RowKey::new(Space::Key, 1, 0, b""),
            RowKey::new(Space::Key, 1, 0, b"a"),
            RowKey::new(Space::Key, 1, 0, b"ab"),
            RowKey::new(Space::Key, 1, 256, b""),
            RowKey::new(Space::Key, 256, 1, b""),
            RowKey::new(Space::Member, 0, 0, b""),
        ];
        for pair in names.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].encoded() < pair[1].encoded());
        }
        for name in names {
            assert_eq!(RowKey::decode(&name.encoded()), Some(name));
        }
        assert_eq!(RowKey::decode(&[1; 16]), None);
        assert_eq!(RowKey::decode(&[200; 17]), None);
    }

    #[test]
    fn values_of_any_length_are_their_bytes() {
        let bytes: Vec<u8> = (0..60).collect();
        for len in 0..60 {
            let value = Value::new(&bytes[..len]);
            assert_eq!(*value, bytes[..len]);
            assert_eq!(value.clone(), value);
            assert_eq!(value.heap_bytes(), if len <= INLINE { 0 } else { len });
        }
        // What tables hold for each row.
        assert_eq!(std::mem::size_of::<Option<Value>>(), 24);
    }

    #[test]
    fn a_patched_value_changes_for_nobody_else() {
        for len in [8, 60] {
            let mut value = Value::new(&vec![7; len]);
            assert!(value.is_sole());
            value.patch(&[(1, b"a"), (len - 2, b"yz")]);
            let mut expected = vec![7; len];
            expected[1] = b'a';
            expected[len - 2..].copy_from_slice(b"yz");
            assert_eq!(*value, expected);
            let mut other = value.clone();
            assert_eq!(other.is_sole(), len <= INLINE);
            other.patch(&[(0, b"0")]);
            assert_eq!(*value, expected);
            expected[0] = b'0';
            assert_eq!(*other, expected);
            assert!(value.is_sole() && other.is_sole());
        }
    }

    #[test]
    fn orders_of_numbers_are_their_order() {
        let scores = [f64::NEG_INFINITY, -1e300, -1.5, -0.0, 1e-300, 1.0, 1.5, 1e300, f64::INFINITY];
        for pair in scores.windows(2) {
            assert!(order_of_f64(pair[0]) < order_of_f64(pair[1]), "{pair:?}");
        }
        for score in scores {
            assert!(f64_of_order(order_of_f64(score)) == score);
        }
        assert_eq!(order_of_f64(-0.0), order_of_f64(0.0));
        for pair in [i64::MIN, -1, 0, 1, i64::MAX].windows(2) {
            assert!(order_of_i64(pair[0]) < order_of_i64(pair[1]));
            assert_eq!(i64_of_order(order_of_i64(pair[0])), pair[0]);
        }
    }
}
