//! The pieces of a big string: rows `(Chunk, object, n)` hold its bytes from `n * CHUNK` on.
//!
//! A row may be missing or shorter than its piece: what it lacks are zeros. So a SETBIT far beyond the end writes one row, and a
//! bitmap with few bits takes little space. A row never holds more than [`CHUNK`] bytes, nor any beyond the string's size.

use std::ops::ControlFlow;

use ardb_base::id::ObjectId;
use ardb_engine::{Direction, RowKey, RowRange, Rows, RowsMut, Space};

use crate::TypeError;

/// Bytes of one piece. Part of the format on disk.
pub const CHUNK: usize = 4096;
const CHUNK_U64: u64 = CHUNK as u64;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

fn name(object: ObjectId, n: u64) -> RowKey<'static> {
    RowKey::new(Space::Chunk, object.0, n, b"")
}

fn zeros(mut count: u64, visit: &mut Visit<'_>) -> ControlFlow<()> {
    while count > 0 {
        let now = count.min(CHUNK_U64);
        visit(&ZEROS[..now as usize])?;
        count -= now;
    }
    ControlFlow::Continue(())
}

/// What is called with each piece that is read.
pub type Visit<'v> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'v;

/// Calls `visit` with the bytes from `from` to `to`, which must be within the string and not empty, until it breaks.
pub fn read(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    from: u64,
    to: u64,
    visit: &mut Visit<'_>,
) -> Result<(), TypeError> {
    let (first, last) = (from / CHUNK_U64, (to - 1) / CHUNK_U64);
    // `at` is how far the bytes were handed on.
    let mut at = from;
    let mut piece = |n: u64, bytes: &[u8], at: &mut u64| {
        let start = n * CHUNK_U64;
        let begin = (*at).max(start);
        zeros(begin - *at, visit)?;
        *at = begin;
        let end = to.min(start + bytes.len() as u64);
        if end > begin {
            *at = end;
            visit(&bytes[(begin - start) as usize..(end - start) as usize])?;
        }
        ControlFlow::Continue(())
    };
    let mut flow = ControlFlow::Continue(());
    if first == last {
        if let Some(bytes) = rows.get(name(object, first))? {
            flow = piece(first, &bytes, &mut at);
        }
    } else {
        rows.scan(RowRange::orders(Space::Chunk, object.0, first, last), Direction::Forward, &mut |row, bytes| {
            flow = piece(row.order, bytes, &mut at);
            flow
        })?;
    }
    if flow.is_continue() {
        let _ = zeros(to - at, visit);
    }
    Ok(())
}

/// Writes the bytes of a string whose object has no rows yet.
pub fn write_fresh(rows: &mut (impl RowsMut + ?Sized), object: ObjectId, bytes: &[u8]) {
    for (n, piece) in bytes.chunks(CHUNK).enumerate() {
        write_piece(rows, object, n as u64, piece);
    }
}

/// Writes the `n`th piece of an object that has no such row yet. A piece of zeros needs none.
pub fn write_piece(rows: &mut (impl RowsMut + ?Sized), object: ObjectId, n: u64, piece: &[u8]) {
    if piece != &ZEROS[..piece.len()] {
        rows.put(name(object, n), piece);
    }
}

/// Writes `bytes` at `offset` into a string of `len` bytes so far. Rows that are not touched are neither read nor written.
pub fn write(
    rows: &mut (impl RowsMut + ?Sized),
    object: ObjectId,
    len: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<(), TypeError> {
    let mut left = bytes;
    let mut at = offset;
    let mut whole = Vec::new();
    while !left.is_empty() {
        let n = at / CHUNK_U64;
        let start = n * CHUNK_U64;
        // Within the piece, so both fit.
        let begin = (at - start) as usize;
        let (now, rest) = left.split_at(left.len().min(CHUNK - begin));
        let end = begin + now.len();
        let existing = len.saturating_sub(start).min(CHUNK_U64) as usize;
        if begin == 0 && end >= existing {
            rows.put(name(object, n), now);
        } else {
            let old = if existing > 0 { rows.get(name(object, n))? } else { None };
            whole.clear();
            whole.extend_from_slice(old.as_deref().unwrap_or_default());
            if whole.len() < end {
                whole.resize(end, 0);
            }
            whole[begin..end].copy_from_slice(now);
            rows.put(name(object, n), &whole);
        }
        at += now.len() as u64;
        left = rest;
    }
    Ok(())
}
