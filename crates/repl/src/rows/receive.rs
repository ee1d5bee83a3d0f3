//! Taking blocks apart.

use super::block::{self, HEADER, Header, Kind};
use super::{Opening, RowsError, SyncId, Totals, sum_of};

/// What is set aside for a payload before it arrives; the rest as it comes.
const AHEAD: usize = 512 << 10;

/// A row: its key and its value.
pub type Row<'a> = (&'a [u8], &'a [u8]);

/// What a block was.
#[derive(Debug)]
pub enum Part {
    /// The first one.
    Opening(Opening),
    /// Rows.
    Rows(RawRows),
    /// The last one; everything has come, and agrees with it.
    End(Totals),
}

/// The receiving side of one transfer. It outlives the connections over which the blocks come.
pub struct RowsReceiver {
    sync: SyncId,
    seed: u64,
    /// Number of the block that comes next.
    next: u64,
    opening: Option<Opening>,
    rows: u64,
    sum: u64,
    ended: bool,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    filled: usize,
    /// The header, once it is whole.
    open: Option<Header>,
    payload: Vec<u8>,
}

impl RowsReceiver {
    /// A transfer that begins.
    #[must_use]
    pub fn new(sync: SyncId) -> RowsReceiver {
        RowsReceiver {
            sync,
            seed: sync.seed(),
            next: 0,
            opening: None,
            rows: 0,
            sum: 0,
            ended: false,
            header: [0; HEADER],
            filled: 0,
            open: None,
            payload: Vec::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn sync(&self) -> SyncId {
        self.sync
    }

    /// Number of the block that must come next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The opening, once it has come.
    #[must_use]
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// Rows that have come in whole blocks.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The connection is another one now: the part of a block that came over the last one is forgotten.
    pub fn reconnected(&mut self) {
        self.filled = 0;
        self.open = None;
        self.payload = Vec::new();
    }

    /// Takes bytes, up to the end of one block. Gives how many it took and what they completed. After [`Part::End`] it takes nothing.
    ///
    /// # Errors
    /// The transfer is worth nothing any more.
    pub fn push(&mut self, input: &[u8]) -> Result<(usize, Option<Part>), RowsError> {
        if self.ended {
            return Ok((0, None));
        }
        let mut at = 0;
        let header = match self.open {
            Some(header) => header,
            None => {
                let part = (HEADER - self.filled).min(input.len());
                self.header[self.filled..self.filled + part].copy_from_slice(&input[..part]);
                self.filled += part;
                at = part;
                if self.filled < HEADER {
                    return Ok((at, None));
                }
                let header = Header::read(&self.header)?;
                if header.number != self.next {
                    return Err(RowsError::Order { want: self.next, got: header.number });
                }
                self.payload = Vec::with_capacity((header.stored as usize).min(AHEAD));
                self.open = Some(header);
                header
            }
        };
        let part = (header.stored as usize - self.payload.len()).min(input.len() - at);
        self.payload.extend_from_slice(&input[at..at + part]);
        at += part;
        if self.payload.len() < header.stored as usize {
            return Ok((at, None));
        }
        let payload = std::mem::take(&mut self.payload);
        (self.filled, self.open) = (0, None);
        if !block::intact(&self.header, &payload, self.seed) {
            return Err(RowsError::Damaged("a block"));
        }
        let part = self.block(&header, payload)?;
        self.next += 1;
        Ok((at, Some(part)))
    }

    fn block(&mut self, header: &Header, payload: Vec<u8>) -> Result<Part, RowsError> {
        match header.kind {
            Kind::Opening => {
                let opening = Opening::decode(&payload)?;
                self.opening = Some(opening.clone());
                Ok(Part::Opening(opening))
            }
            Kind::Rows => {
                let raw = if header.compressed { unpack(&payload, header.raw as usize)? } else { payload };
                self.rows += u64::from(header.rows);
                self.sum = sum_of(&raw, self.sum);
                Ok(Part::Rows(RawRows { raw, at: 0, left: header.rows, key: Vec::new() }))
            }
            Kind::End => {
                let totals = Totals::decode(&payload).ok_or(RowsError::Damaged("the end"))?;
                self.complete(&totals)?;
                self.ended = true;
                Ok(Part::End(totals))
            }
        }
    }

    fn complete(&self, totals: &Totals) -> Result<(), RowsError> {
        let incomplete = |why: String| Err(RowsError::Incomplete(why));
        if totals.rows != self.rows {
            return incomplete(format!("{} came of {}", self.rows, totals.rows));
        }
        if totals.sum != self.sum {
            return incomplete(format!("their sum is {:016x} and not {:016x}", self.sum, totals.sum));
        }
        let opened = self.opening.as_ref().map_or(0, |opening| opening.keys);
        if totals.keys != opened {
            return incomplete(format!("{opened} keys were announced, {} are meant", totals.keys));
        }
        if totals.rows < totals.keys {
            return incomplete(format!("{} rows cannot hold {} keys", totals.rows, totals.keys));
        }
        Ok(())
    }
}

fn unpack(payload: &[u8], length: usize) -> Result<Vec<u8>, RowsError> {
    let mut raw = vec![0; length];
    match lz4_flex::block::decompress_into(payload, &mut raw) {
        Ok(decoded) if decoded == length => Ok(raw),
        _ => Err(RowsError::Damaged("a block's compression")),
    }
}

/// The rows of one block, to be taken one after the other.
#[derive(Debug)]
pub struct RawRows {
    raw: Vec<u8>,
    at: usize,
    left: u32,
    key: Vec<u8>,
}

impl RawRows {
    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// Whether all its rows were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next row.
    ///
    /// # Errors
    /// The block is not well formed, though its checksum is right.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend its buffer")]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, RowsError> {
        const DAMAGED: RowsError = RowsError::Damaged("a row");
        if self.left == 0 {
            return if self.at == self.raw.len() { Ok(None) } else { Err(DAMAGED) };
        }
        self.left -= 1;
        let (shared, rest, value) = (self.number()?, self.number()?, self.number()?);
        let bytes = self.raw.get(self.at..).unwrap_or_default();
        let (more, bytes) = bytes.split_at_checked(rest).ok_or(DAMAGED)?;
        let value = bytes.get(..value).ok_or(DAMAGED)?;
        if shared > self.key.len() {
            return Err(DAMAGED);
        }
        self.at += more.len() + value.len();
        self.key.truncate(shared);
        self.key.extend_from_slice(more);
        Ok(Some((&self.key, value)))
    }

    fn number(&mut self) -> Result<usize, RowsError> {
        let mut n = 0;
        for shift in (0..35).step_by(7) {
            let byte = *self.raw.get(self.at).ok_or(RowsError::Damaged("a row"))?;
            self.at += 1;
            n |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(RowsError::Damaged("a row"))
    }
}
