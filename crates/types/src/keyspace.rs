//! Keys of any type: lookup, writing and deleting the key's row with everything that hangs on it.
//!
//! Invariants, kept by [`put`] and [`delete`] alone: the count of keys and of keys with an expiry is right; a key has an entry in the
//! expiry index exactly if it has an expiry, at that time; a key's row names an object that no other row names; an object that no row names
//! any more is discarded.

mod transfer;
mod walk;

use std::cell::Cell;

use ardb_base::id::UnixMs;
use ardb_engine::row::Patch;
use ardb_engine::{RowKey, Rows, RowsMut, Space};

use crate::{At, Encoding, Header, KeyRow, Kind, TypeError};

pub use transfer::{copy, relocate};
pub use walk::{Due, VisitKey, drop_expiry_entry, due, has_expiry_entry, random_key, scan_keys};

/// The key's row, or `None` if there is none or its time has come.
pub fn lookup(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<KeyRow>, TypeError> {
    Ok(lookup_raw(rows, at)?.filter(|row| !is_due(row, at.now)))
}

/// The key's row, expired or not.
pub fn lookup_raw(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<KeyRow>, TypeError> {
    rows.get(at.row())?.map(KeyRow::parse).transpose()
}

/// The key's row if it is of this type; an error if it is of another.
pub fn lookup_kind(rows: &(impl Rows + ?Sized), at: &At<'_>, kind: Kind) -> Result<Option<KeyRow>, TypeError> {
    match lookup(rows, at)? {
        Some(row) if row.kind() != kind => Err(TypeError::WrongType),
        row => Ok(row),
    }
}

/// What stands at a key, for a command that is going to write it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The row as it stands, due or not: [`put`] and [`delete`] want this one.
    pub raw: Option<KeyRow>,
    due: bool,
}

impl Found {
    /// The row, unless its time has come.
    #[must_use]
    pub fn live(&self) -> Option<&KeyRow> {
        self.raw.as_ref().filter(|_| !self.due)
    }

    /// The expiry of the live row.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixMs> {
        self.live().and_then(KeyRow::expiry)
    }
}

/// What stands at the key now.
pub fn find(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Found, TypeError> {
    let raw = lookup_raw(rows, at)?;
    let due = raw.as_ref().is_some_and(|row| is_due(row, at.now));
    Ok(Found { raw, due })
}

/// As [`find`]; an error if the key holds another type.
pub fn find_kind(rows: &(impl Rows + ?Sized), at: &At<'_>, kind: Kind) -> Result<Found, TypeError> {
    let found = find(rows, at)?;
    match found.live() {
        Some(row) if row.kind() != kind => Err(TypeError::WrongType),
        _ => Ok(found),
    }
}

/// Whether the row's time has come.
#[must_use]
pub fn is_due(row: &KeyRow, now: UnixMs) -> bool {
    row.expiry().is_some_and(|expiry| expiry <= now)
}

/// Writes the key's row: `header`, then `rest` (see [`KeyRow::rest`]). `old` is the row that stands there now, due or not, as
/// [`lookup_raw`] gave it in this transaction. The old value's object is discarded unless the new header names it too.
pub fn put(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, old: Option<&KeyRow>, header: &Header, rest: &[u8]) {
    put_parts(rows, at, old, header, &[rest]);
}

/// As [`put`], with what follows the header in parts.
pub(crate) fn put_parts(
    rows: &mut (impl RowsMut + ?Sized),
    at: &At<'_>,
    old: Option<&KeyRow>,
    header: &Header,
    rest: &[&[u8]],
) {
    let old_expiry = old.and_then(KeyRow::expiry);
    if old_expiry != header.expiry {
        if let Some(time) = old_expiry {
            with_expiry_key(at, time, |key| rows.delete(key));
        }
        if let Some(time) = header.expiry {
            with_expiry_key(at, time, |key| rows.put(key, b""));
        }
    }
    if let Some(old) = old
        && old.encoding() == Encoding::Rows
        && !(header.encoding == Encoding::Rows && header.object == old.object())
    {
        rows.discard(old.object());
    }
    let keys = i64::from(old.is_none());
    let expiries = i64::from(header.expiry.is_some()) - i64::from(old_expiry.is_some());
    if keys != 0 || expiries != 0 {
        rows.count(at.db, keys, expiries);
    }
    // A row is written once for every command that changes a value, so none of this allocates as a rule: small rows are built on the
    // stack, others in a buffer that the thread keeps.
    let mut small = [0u8; 128];
    let len = header.len() + rest.iter().map(|part| part.len()).sum::<usize>();
    if let Some(out) = small.get_mut(..len) {
        let mut end = 0;
        let mut add = |bytes: &[u8]| {
            out[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        header.encode(&mut add);
        rest.iter().for_each(|part| add(part));
        rows.put(at.row(), out);
    } else {
        let mut out = BUFFER.take();
        out.reserve(len);
        header.encode(|bytes| out.extend_from_slice(bytes));
        rest.iter().for_each(|part| out.extend_from_slice(part));
        rows.put(at.row(), &out);
        out.clear();
        if out.capacity() <= BUFFER_MAX {
            BUFFER.set(out);
        }
    }
}

/// Writes the row of a key whose value is in rows and stays so, with this size and with some bytes of [`KeyRow::extra`] replaced. `old` is the row that
/// stands there now.
pub(crate) fn patch(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, old: KeyRow, size: u64, patches: &[Patch<'_>]) {
    let (size_at, extra) = old.size_and_extra();
    let size = size.to_le_bytes();
    let mut all: [Patch<'_>; 4] = Default::default();
    let mut many = 0;
    let moved = patches.iter().map(|(at, bytes)| (extra + at, *bytes));
    for (to, patch) in all.iter_mut().zip(std::iter::once((size_at, &size[..])).chain(moved)) {
        *to = patch;
        many += 1;
    }
    debug_assert!(many == patches.len() + 1, "more patches than there is room for");
    rows.patch(at.row(), old.into_value(), &all[..many]);
}

/// The largest buffer that a thread keeps.
const BUFFER_MAX: usize = 64 << 10;

thread_local! {
    /// Where rows too long for the stack are built; empty between two calls.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Deletes the key, of which `old` is the row as it stands. O(1) whatever its size: the value's rows are discarded.
pub fn delete(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, old: &KeyRow) {
    if let Some(time) = old.expiry() {
        with_expiry_key(at, time, |key| rows.delete(key));
    }
    if old.encoding() == Encoding::Rows {
        rows.discard(old.object());
    }
    rows.delete(at.row());
    rows.count(at.db, -1, -i64::from(old.expiry().is_some()));
}

/// Deletes the key if its time has come; whether it did.
pub fn delete_if_due(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> Result<bool, TypeError> {
    match lookup_raw(rows, at)? {
        Some(row) if is_due(&row, at.now) => {
            delete(rows, at, &row);
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Gives the key, whose row is `old`, this expiry, or none.
pub fn set_expiry(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, old: &KeyRow, expiry: Option<UnixMs>) {
    put(rows, at, Some(old), &Header { expiry, ..old.header() }, old.rest());
}

/// Calls `then` with the name of the entry of `at` in the expiry index for `time`.
fn with_expiry_key(at: &At<'_>, time: UnixMs, then: impl FnOnce(RowKey<'_>)) {
    let mut small = [0u8; 72];
    let len = 8 + at.key.len();
    if let Some(tail) = small.get_mut(..len) {
        tail[..8].copy_from_slice(&at.keyspace.0.to_be_bytes());
        tail[8..].copy_from_slice(at.key);
        then(RowKey::new(Space::Expiry, 0, expiry_order(time), tail));
        return;
    }
    let tail = [&at.keyspace.0.to_be_bytes(), at.key].concat();
    then(RowKey::new(Space::Expiry, 0, expiry_order(time), &tail));
}

/// The order of a time in the expiry index.
#[must_use]
pub fn expiry_order(time: UnixMs) -> u64 {
    ardb_engine::row::order_of_i64(time)
}

#[cfg(test)]
mod tests;
