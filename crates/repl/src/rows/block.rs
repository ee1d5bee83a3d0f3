//! The frame of a block.
//!
//! ```text
//!  0  1  kind: 1 opening, 2 rows, 3 end
//!  1  1  encoding of the payload: 0 as it is, 1 LZ4 (block format)
//!  2  2  zero
//!  4  4  bytes of the payload as it is sent
//!  8  4  bytes of the payload decoded
//! 12  4  rows in it
//! 16  8  number of the block
//! 24  8  checksum: XXH3 of (bytes 0 to 23, then XXH3 of the payload as it is sent), both with the XXH3 of the transfer's name as seed
//! 32     payload
//! ```
//!
//! Integers are little-endian.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BLOCK_BYTES, OPENING_LIMIT, ROW_LIMIT, RowsError, Totals};

/// Bytes before the payload.
pub const HEADER: usize = 32;
/// Bytes of the header before its checksum.
const SUMMED: usize = 24;
/// What the lengths before a key and a value may take.
pub(super) const ROW_OVERHEAD: usize = 15;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::Opening`].
    Opening,
    /// Rows.
    Rows,
    /// [`super::Totals`].
    End,
}

/// A block's header, checked for sense but not for its checksum, which covers the payload too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Its bytes on the wire.
    pub stored: u32,
    /// Its bytes decoded.
    pub raw: u32,
    /// Rows in it.
    pub rows: u32,
    /// Number of the block.
    pub number: u64,
}

impl Header {
    fn summed(&self) -> [u8; SUMMED] {
        let mut out = [0; SUMMED];
        out[0] = match self.kind {
            Kind::Opening => 1,
            Kind::Rows => 2,
            Kind::End => 3,
        };
        out[1] = u8::from(self.compressed);
        out[4..8].copy_from_slice(&self.stored.to_le_bytes());
        out[8..12].copy_from_slice(&self.raw.to_le_bytes());
        out[12..16].copy_from_slice(&self.rows.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    /// Appends header and payload.
    pub(super) fn write(&self, payload: &[u8], seed: u64, out: &mut Vec<u8>) {
        debug_assert_eq!(self.stored as usize, payload.len());
        debug_assert!(self.check().is_ok(), "what is sent is what can be received: {self:?}");
        let summed = self.summed();
        out.reserve(HEADER + payload.len());
        out.extend_from_slice(&summed);
        out.extend_from_slice(&checksum(&summed, payload, seed).to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// The header that `bytes` hold.
    ///
    /// # Errors
    /// No sender makes such a header.
    pub fn read(bytes: &[u8; HEADER]) -> Result<Header, RowsError> {
        let damaged = || RowsError::Damaged("a block's header");
        // Constants within the 32 bytes.
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let kind = match bytes[0] {
            1 => Kind::Opening,
            2 => Kind::Rows,
            3 => Kind::End,
            _ => return Err(damaged()),
        };
        if bytes[1] > 1 || bytes[2] != 0 || bytes[3] != 0 {
            return Err(damaged());
        }
        let number = u64::from(word(16)) | u64::from(word(20)) << 32;
        let header = Header { kind, compressed: bytes[1] == 1, stored: word(4), raw: word(8), rows: word(12), number };
        header.check()?;
        Ok(header)
    }

    /// Whether the numbers go together and are within their limits.
    fn check(&self) -> Result<(), RowsError> {
        let (stored, raw) = (self.stored as usize, self.raw as usize);
        let limit = match self.kind {
            Kind::Opening => OPENING_LIMIT,
            Kind::Rows if self.rows == 1 => ROW_LIMIT + ROW_OVERHEAD,
            Kind::Rows => BLOCK_BYTES,
            Kind::End => Totals::BYTES,
        };
        if raw > limit {
            return Err(RowsError::TooLong(u64::from(self.raw)));
        }
        let right = match (self.kind, self.compressed) {
            // Compression must have made it shorter, and what is long is not compressed, so that nothing big is decoded from little.
            (Kind::Rows, true) => stored < raw && raw <= BLOCK_BYTES,
            (_, true) => false,
            (_, false) => stored == raw,
        };
        // A row takes three bytes at least.
        let rows = match self.kind {
            Kind::Rows => self.rows > 0 && self.rows as usize <= raw / 3,
            Kind::Opening | Kind::End => self.rows == 0,
        };
        if right && rows && (self.kind == Kind::Opening) == (self.number == 0) {
            Ok(())
        } else {
            Err(RowsError::Damaged("a block's header"))
        }
    }
}

fn checksum(summed: &[u8; SUMMED], payload: &[u8], seed: u64) -> u64 {
    let mut both = [0; SUMMED + 8];
    both[..SUMMED].copy_from_slice(summed);
    both[SUMMED..].copy_from_slice(&xxh3_64_with_seed(payload, seed).to_le_bytes());
    xxh3_64_with_seed(&both, seed)
}

/// Whether the checksum in the header is that of header and payload.
#[must_use]
pub fn intact(header: &[u8; HEADER], payload: &[u8], seed: u64) -> bool {
    // The header has 24 bytes and then 8.
    let Some((summed, sum)) = header.split_first_chunk::<SUMMED>() else { return false };
    sum == checksum(summed, payload, seed).to_le_bytes()
}
