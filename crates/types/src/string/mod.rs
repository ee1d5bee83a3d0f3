//! Strings: bytes in the key's row up to [`INLINE_MAX`], above that in pieces of [`chunks::CHUNK`] bytes under an object.
//!
//! A string only grows in place (APPEND, SETRANGE, SETBIT); to become shorter it is written anew. So an inline string becomes pieces
//! once, and pieces never become inline. [`chunks`] says how pieces lie and what a missing one means.
//!
//! Invariant: a string in pieces is longer than [`INLINE_MAX`], and no piece reaches beyond its size.

pub mod chunks;

use std::borrow::Cow;
use std::ops::ControlFlow;

use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::{Rows, RowsMut};

use crate::keyspace::{self, Found};
use crate::{At, Encoding, Header, KeyRow, Kind, TypeError};

/// The longest string that is held in the key's row. Above it, changing a byte costs one piece instead of the whole.
///
/// Measured over rows in memory, on a busy machine: changing a byte took 0.6 us in 100 bytes, 1.7 us in 8,000 and 3.2 us in 16,000 bytes held inline, and
/// 1.4 to 2.5 us in pieces of 4 KiB whatever the length; pieces of 16 KiB took 3.3 us. Reading all of 9,000 bytes took 0.8 us inline and 1.9 us
/// in pieces. So the two meet at about 8 KiB.
pub const INLINE_MAX: usize = 8192;

/// A string as it was found. Holding it is cheap: an inline value is shared with the row, a big one stays where it is.
#[derive(Clone, Debug)]
pub struct StringValue {
    row: KeyRow,
}

impl StringValue {
    /// The string of a key's row, which must be of this kind.
    #[must_use]
    pub fn of_row(row: KeyRow) -> StringValue {
        debug_assert_eq!(row.kind(), Kind::String);
        StringValue { row }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.row.size()
    }

    /// Whether it is the empty string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, if they are held in the key's row.
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        (self.row.encoding() == Encoding::Inline).then(|| self.row.inline())
    }

    /// The key's row.
    #[must_use]
    pub fn row(&self) -> &KeyRow {
        &self.row
    }

    /// Calls `visit` with the bytes from `from` up to `to` (excluded, and cut to the length), piece by piece.
    pub fn pieces(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TypeError> {
        self.pieces_until(rows, from, to, &mut |piece| {
            visit(piece);
            ControlFlow::Continue(())
        })
    }

    /// As [`StringValue::pieces`], until `visit` breaks.
    pub fn pieces_until(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        visit: &mut chunks::Visit<'_>,
    ) -> Result<(), TypeError> {
        let to = to.min(self.len());
        if from >= to {
            return Ok(());
        }
        match self.inline() {
            // Both ends are within the slice, so they fit.
            Some(bytes) => {
                let _ = visit(&bytes[from as usize..to as usize]);
            }
            None => chunks::read(rows, self.row.object(), from, to, visit)?,
        }
        Ok(())
    }

    /// The bytes from `from` up to `to` (excluded, and cut to the length) in one slice.
    pub fn range(&self, rows: &(impl Rows + ?Sized), from: u64, to: u64) -> Result<Cow<'_, [u8]>, TypeError> {
        let to = to.min(self.len());
        if from >= to {
            return Ok(Cow::Borrowed(b""));
        }
        if let Some(bytes) = self.inline() {
            return Ok(Cow::Borrowed(&bytes[from as usize..to as usize]));
        }
        let mut all = Vec::with_capacity((to - from) as usize);
        self.pieces(rows, from, to, &mut |piece| all.extend_from_slice(piece))?;
        Ok(Cow::Owned(all))
    }

    /// All bytes in one slice.
    pub fn bytes(&self, rows: &(impl Rows + ?Sized)) -> Result<Cow<'_, [u8]>, TypeError> {
        self.range(rows, 0, u64::MAX)
    }
}

/// The string at a key, or `None` if there is none.
pub fn get(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<StringValue>, TypeError> {
    Ok(keyspace::lookup_kind(rows, at, Kind::String)?.map(StringValue::of_row))
}

/// Writes the whole string with this expiry, whatever stands at the key (`old`, due or not) now.
pub fn set(
    rows: &mut (impl RowsMut + ?Sized),
    at: &At<'_>,
    old: Option<&KeyRow>,
    value: &[u8],
    expiry: Option<UnixMs>,
) {
    if value.len() <= INLINE_MAX {
        keyspace::put(rows, at, old, &inline_header(expiry), value);
        return;
    }
    let object = rows.new_object();
    chunks::write_fresh(rows, object, value);
    let header = Header { kind: Kind::String, encoding: Encoding::Rows, expiry, object, size: value.len() as u64 };
    keyspace::put(rows, at, old, &header, b"");
}

fn inline_header(expiry: Option<UnixMs>) -> Header {
    Header { kind: Kind::String, encoding: Encoding::Inline, expiry, object: Default::default(), size: 0 }
}

/// Writes `bytes` into the string at `offset`; what lies between its end and `offset` becomes zeros. `found` is the key as
/// [`keyspace::find_kind`] gave it in this transaction; the expiry stays. The new length. Costs the pieces touched.
pub fn write(
    rows: &mut (impl RowsMut + ?Sized),
    at: &At<'_>,
    found: &Found,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, TypeError> {
    let live = found.live();
    let old_len = live.map_or(0, KeyRow::size);
    let len = old_len.max(offset + bytes.len() as u64);
    let expiry = found.expiry();
    let old_bytes = match live {
        Some(row) if row.encoding() == Encoding::Rows => {
            chunks::write(rows, row.object(), old_len, offset, bytes)?;
            if len > old_len {
                let header = Header { size: len, ..row.header() };
                keyspace::put(rows, at, found.raw.as_ref(), &header, row.extra());
            }
            return Ok(len);
        }
        Some(row) => row.inline(),
        None => b"",
    };
    if len <= INLINE_MAX as u64 {
        // Within the limit, so the numbers fit.
        let (len, offset) = (len as usize, offset as usize);
        let mut value = Vec::with_capacity(len);
        value.extend_from_slice(old_bytes);
        value.resize(len, 0);
        value[offset..offset + bytes.len()].copy_from_slice(bytes);
        keyspace::put(rows, at, found.raw.as_ref(), &inline_header(expiry), &value);
        return Ok(len as u64);
    }
    let object = rows.new_object();
    chunks::write_fresh(rows, object, old_bytes);
    chunks::write(rows, object, old_len, offset, bytes)?;
    let header = Header { kind: Kind::String, encoding: Encoding::Rows, expiry, object, size: len };
    keyspace::put(rows, at, found.raw.as_ref(), &header, b"");
    Ok(len)
}

/// A new string whose bytes come one after the other: it holds at most [`INLINE_MAX`] of them in memory.
#[derive(Debug, Default)]
pub struct Builder {
    object: Option<ObjectId>,
    /// Bytes not yet written; once there is an object, less than a piece.
    rest: Vec<u8>,
    /// Pieces written.
    written: u64,
}

impl Builder {
    /// An empty string.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written * chunks::CHUNK as u64 + self.rest.len() as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    pub fn push(&mut self, rows: &mut (impl RowsMut + ?Sized), mut bytes: &[u8]) {
        while self.object.is_some() || self.rest.len() + bytes.len() > INLINE_MAX {
            let object = *self.object.get_or_insert_with(|| rows.new_object());
            let mut whole = self.rest.chunks_exact(chunks::CHUNK);
            for piece in whole.by_ref() {
                chunks::write_piece(rows, object, self.written, piece);
                self.written += 1;
            }
            let left = whole.remainder().len();
            self.rest.drain(..self.rest.len() - left);
            if bytes.is_empty() {
                return;
            }
            let (now, later) = bytes.split_at(bytes.len().min(chunks::CHUNK - left));
            self.rest.extend_from_slice(now);
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
    }

    /// Writes the string to a key, as [`set`] does.
    pub fn finish(
        mut self,
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        old: Option<&KeyRow>,
        expiry: Option<UnixMs>,
    ) {
        let Some(object) = self.object else {
            keyspace::put(rows, at, old, &inline_header(expiry), &self.rest);
            return;
        };
        self.push(rows, b"");
        let size = self.len();
        if !self.rest.is_empty() {
            chunks::write_piece(rows, object, self.written, &self.rest);
        }
        let header = Header { kind: Kind::String, encoding: Encoding::Rows, expiry, object, size };
        keyspace::put(rows, at, old, &header, b"");
    }

    /// Gives the string up: what was written of it is left to the janitor.
    pub fn abandon(self, rows: &mut (impl RowsMut + ?Sized)) {
        if let Some(object) = self.object {
            rows.discard(object);
        }
    }
}

#[cfg(test)]
mod tests;
