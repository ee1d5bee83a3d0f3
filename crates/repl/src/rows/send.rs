//! Making blocks of rows.
//!
//! A row is three numbers, each in groups of seven bits, low ones first, with the high bit set in all bytes but the last: how many bytes its key shares
//! with that of the row before (0 for the first of a block), how many more its key has, and how many its value has; then those of
//! key and value. So a block can be read without the one before it.

use std::collections::VecDeque;

use super::block::{Header, Kind, ROW_OVERHEAD};
use super::{BLOCK_BYTES, Opening, ROW_LIMIT, RowsError, SyncId, Totals, sum_of};

/// What the places to go back to may take in memory. They reach much further back than what a connection can hold.
const MARKS_BYTES: usize = 1 << 20;
/// After a block that compression did not make much shorter, so many go out as they are before it is tried again.
const PLAIN_RUN: u32 = 15;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the block.
    Taken,
    /// The block is full: seal it, and push the row once more.
    Full,
}

/// A block boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Number of the next block.
    block: u64,
    /// Rows in the blocks before it.
    rows: u64,
    /// Their sum.
    sum: u64,
}

const FIRST: Place = Place { block: 1, rows: 0, sum: 0 };

struct Mark {
    place: Place,
    /// The last key before it.
    after: Vec<u8>,
}

/// Makes the blocks of one transfer. Rows come to it in order; it can go back to the beginning of a block that it made lately, and the rows
/// behind that must then come again.
pub struct RowsSender {
    sync: SyncId,
    opening: Vec<u8>,
    keys: u64,
    /// Bytes of rows in a block.
    most: usize,
    place: Place,
    /// The open block.
    raw: Vec<u8>,
    count: u32,
    /// The last key pushed.
    last: Vec<u8>,
    /// The boundaries made last, the oldest first.
    marks: VecDeque<Mark>,
    marks_bytes: usize,
    packed: Vec<u8>,
    /// Blocks that go out uncompressed before compression is tried again.
    plain: u32,
}

fn push_number(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

impl RowsSender {
    /// A transfer that begins.
    #[must_use]
    pub fn new(sync: SyncId, opening: &Opening) -> RowsSender {
        RowsSender {
            sync,
            opening: opening.encode(),
            keys: opening.keys,
            most: BLOCK_BYTES,
            place: FIRST,
            raw: Vec::new(),
            count: 0,
            last: Vec::new(),
            marks: VecDeque::new(),
            marks_bytes: 0,
            packed: Vec::new(),
            plain: 0,
        }
    }

    /// The same with shorter blocks.
    #[must_use]
    pub fn with_blocks_of(mut self, bytes: usize) -> RowsSender {
        self.most = bytes.min(BLOCK_BYTES);
        self
    }

    /// Number of the block that is made next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.place.block
    }

    /// Its name.
    #[must_use]
    pub fn sync(&self) -> SyncId {
        self.sync
    }

    /// Rows in the blocks that were sealed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.place.rows
    }

    /// Appends block 0.
    pub fn open(&self, out: &mut Vec<u8>) {
        let length = self.opening.len() as u32;
        let header = Header { kind: Kind::Opening, compressed: false, stored: length, raw: length, rows: 0, number: 0 };
        header.write(&self.opening, self.sync.seed(), out);
    }

    /// Puts the next row into the open block.
    ///
    /// # Errors
    /// The row is too long to travel, or not behind the one before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<Pushed, RowsError> {
        if self.place.rows + u64::from(self.count) > 0 && key <= self.last.as_slice() {
            return Err(RowsError::Unsorted);
        }
        let length = key.len() + value.len();
        if length > ROW_LIMIT {
            return Err(RowsError::TooLong(length as u64));
        }
        if self.count > 0 && self.raw.len() + length + ROW_OVERHEAD > self.most {
            return Ok(Pushed::Full);
        }
        let shared = match self.count {
            0 => 0,
            _ => key.iter().zip(&self.last).take_while(|(a, b)| a == b).count(),
        };
        push_number(shared, &mut self.raw);
        push_number(key.len() - shared, &mut self.raw);
        push_number(value.len(), &mut self.raw);
        self.raw.extend_from_slice(&key[shared..]);
        self.raw.extend_from_slice(value);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        self.count += 1;
        Ok(Pushed::Taken)
    }

    /// Appends the block of what was pushed, if anything was.
    pub fn seal(&mut self, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        let compressed = self.pack();
        let payload = if compressed { &self.packed } else { &self.raw };
        let (stored, raw) = (payload.len() as u32, self.raw.len() as u32);
        let header = Header { kind: Kind::Rows, compressed, stored, raw, rows: self.count, number: self.place.block };
        header.write(payload, self.sync.seed(), out);
        self.place = Place {
            block: self.place.block + 1,
            rows: self.place.rows + u64::from(self.count),
            sum: sum_of(&self.raw, self.place.sum),
        };
        self.clear();
        self.mark();
    }

    fn clear(&mut self) {
        self.count = 0;
        self.raw.clear();
        // One long row must not hold its memory for ever.
        self.raw.shrink_to(2 * BLOCK_BYTES);
    }

    /// Tries to make the open block shorter.
    fn pack(&mut self) -> bool {
        if self.raw.len() > BLOCK_BYTES || self.plain > 0 {
            self.plain = self.plain.saturating_sub(1);
            return false;
        }
        self.packed.resize(lz4_flex::block::get_maximum_output_size(self.raw.len()), 0);
        // The output is as long as the library asks for, so it has no reason to fail.
        let Ok(length) = lz4_flex::block::compress_into(&self.raw, &mut self.packed) else { return false };
        self.packed.truncate(length);
        let worth = length < self.raw.len() - self.raw.len() / 8;
        if !worth {
            self.plain = PLAIN_RUN;
        }
        worth
    }

    fn mark(&mut self) {
        let cost = |mark: &Mark| mark.after.len() + size_of::<Mark>();
        let mark = Mark { place: self.place, after: self.last.clone() };
        self.marks_bytes += cost(&mark);
        self.marks.push_back(mark);
        while self.marks_bytes > MARKS_BYTES && self.marks.len() > 1 {
            self.marks_bytes -= self.marks.pop_front().as_ref().map_or(0, cost);
        }
    }

    /// All rows have come: appends the last of them and the end.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.seal(out);
        let totals = Totals { rows: self.place.rows, sum: self.place.sum, keys: self.keys }.encode();
        let length = Totals::BYTES as u32;
        let number = self.place.block;
        let header = Header { kind: Kind::End, compressed: false, stored: length, raw: length, rows: 0, number };
        header.write(&totals, self.sync.seed(), out);
    }

    /// Goes back, or forward to where it was once, so that `block` is the next one to be made. Gives the key behind which the rows must come again, empty for
    /// all of them; `None` if the block was not made lately.
    pub fn rewind(&mut self, block: u64) -> Option<&[u8]> {
        let after = if block <= FIRST.block {
            self.place = FIRST;
            self.marks.clear();
            self.marks_bytes = 0;
            Vec::new()
        } else {
            let at = self.marks.iter().position(|mark| mark.place.block == block)?;
            let gone: usize = self.marks.drain(at + 1..).map(|mark| mark.after.len() + size_of::<Mark>()).sum();
            self.marks_bytes -= gone;
            let mark = &self.marks[at];
            self.place = mark.place;
            mark.after.clone()
        };
        self.clear();
        self.last = after;
        Some(&self.last)
    }
}
