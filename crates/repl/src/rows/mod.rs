//! A full sync between two Ardb servers: the rows of a snapshot, in order, in blocks that can be sent again from any of them.
//!
//! ```text
//! opening (block 0) ── rows (blocks 1, 2, ...) ── end (the last block)
//! ```
//!
//! The format is described byte by byte in `docs/replication.md`; [`FORMAT`] is its version, the encoding of the rows' values included. Here are
//! - [`block`], the frame of a block: lengths, number, checksum;
//! - [`RowsSender`], which makes blocks of rows, and can go back to a block that it has made before;
//! - [`RowsReceiver`], which takes blocks apart, and knows which one must come next.
//!
//! Invariants: blocks come in the order of their numbers, and every one is checked before anything of it is believed; the checksum of a block
//! depends on the name of the transfer, so one of another transfer never fits; the receiver says [`Part::End`] only if rows and checksum of all blocks
//! agree with what the sender counted; what a length claims is allocated as the bytes arrive.

pub mod block;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use ardb_base::id::{Offset, ReplId};

use crate::stream::UNIT_LIMIT;

pub use receive::{Part, RawRows, Row, RowsReceiver};
pub use send::{Pushed, RowsSender};

/// The version of this format and of the rows' values. To be raised when either changes in a way that an older server would misread.
pub const FORMAT: u32 = 3;

/// Bytes of rows in a block, unless a single row has more.
pub const BLOCK_BYTES: usize = 256 << 10;

/// The longest row that can travel, in bytes: no longer one can have come to the sender by the stream either.
pub const ROW_LIMIT: usize = UNIT_LIMIT;

/// The longest opening, in bytes. It holds a few bytes for each database.
pub const OPENING_LIMIT: usize = 32 << 20;

/// Names one transfer: a replica that was cut off asks for the rest of it by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SyncId(pub ReplId);

impl SyncId {
    /// The name as it goes over the wire, if `text` is one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<SyncId> {
        ReplId::parse(text).map(SyncId)
    }

    fn seed(self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0.as_bytes())
    }
}

impl std::fmt::Display for SyncId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the first block says: where the rows stand, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The history.
    pub id: ReplId,
    /// The next byte of the stream has this offset.
    pub offset: Offset,
    /// The database that is selected in the stream there; `None` if the stream says it before anything else.
    pub db: Option<u32>,
    /// Keys in all databases.
    pub keys: u64,
    /// About how many bytes the transfer will have; 0 if the sender cannot say.
    pub about_bytes: u64,
    /// The store's catalog: keyspaces, counts, next number.
    pub catalog: Vec<u8>,
}

const MAGIC: &[u8; 8] = b"ARDBROWS";
/// Bytes of an opening before its catalog.
const OPENING_FIXED: usize = 8 + 4 + 40 + 8 + 4 + 8 + 8;
/// Stands for no database.
const NO_DB: u32 = u32::MAX;

impl Opening {
    /// The payload of the opening block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OPENING_FIXED + self.catalog.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(&self.db.unwrap_or(NO_DB).to_le_bytes());
        out.extend_from_slice(&self.keys.to_le_bytes());
        out.extend_from_slice(&self.about_bytes.to_le_bytes());
        debug_assert_eq!(out.len(), OPENING_FIXED);
        out.extend_from_slice(&self.catalog);
        out
    }

    /// The inverse of [`Opening::encode`].
    ///
    /// # Errors
    /// It is of another format, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Opening, RowsError> {
        let damaged = || RowsError::Damaged("the opening");
        let mut rest = bytes;
        if take::<8>(&mut rest) != Some(MAGIC) {
            return Err(damaged());
        }
        let format = take(&mut rest).map(|bytes| u32::from_le_bytes(*bytes)).ok_or_else(damaged)?;
        if format != FORMAT {
            return Err(RowsError::Format(format));
        }
        let id = take::<40>(&mut rest).and_then(|text| ReplId::parse(text)).ok_or_else(damaged)?;
        let mut number = || take(&mut rest).map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(damaged);
        let offset = Offset(number()?);
        let db = take(&mut rest).map(|bytes| u32::from_le_bytes(*bytes)).ok_or_else(damaged)?;
        let mut number = || take(&mut rest).map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(damaged);
        let (keys, about_bytes) = (number()?, number()?);
        let db = (db != NO_DB).then_some(db);
        Ok(Opening { id, offset, db, keys, about_bytes, catalog: rest.to_vec() })
    }
}

/// What the last block says of all blocks of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// The checksum of all rows: that of each block's, with the sum of those before as its seed.
    pub sum: u64,
    /// Keys in all databases, as the opening said.
    pub keys: u64,
}

impl Totals {
    /// Bytes of the payload of the end block.
    pub const BYTES: usize = 24;

    fn encode(&self) -> [u8; Totals::BYTES] {
        let mut out = [0; Totals::BYTES];
        for (place, n) in out.chunks_exact_mut(8).zip([self.rows, self.sum, self.keys]) {
            place.copy_from_slice(&n.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Totals> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let [rows, sum, keys] = numbers else { return None };
        let [rows, sum, keys] = [rows, sum, keys].map(|bytes| u64::from_le_bytes(*bytes));
        Some(Totals { rows, sum, keys })
    }
}

/// The checksum of rows that come after others whose sum is `before`.
fn sum_of(raw: &[u8], before: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(raw, before)
}

/// Takes an array off the front.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

/// Why rows cannot be sent or taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// Bytes are not what the sender can have sent.
    #[error("{0} of the rows is damaged")]
    Damaged(&'static str),
    /// The format is another one.
    #[error("rows of format {0} are not known here (only {FORMAT})")]
    Format(u32),
    /// A block is not the one that comes next.
    #[error("block {got} of the rows came where {want} was due")]
    Order {
        /// The number that was due.
        want: u64,
        /// The number that came.
        got: u64,
    },
    /// A length is over its limit.
    #[error("a block of {0} bytes of rows is over the limit")]
    TooLong(u64),
    /// The end does not agree with what came before it.
    #[error("the rows are not complete: {0}")]
    Incomplete(String),
    /// The sender's rows are not in order.
    #[error("the rows are not in order")]
    Unsorted,
}
