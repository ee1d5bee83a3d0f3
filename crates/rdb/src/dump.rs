//! Payloads of `DUMP` and `RESTORE`: a value type, the value, the RDB version (u16), the CRC-64 of all before it; little endian.
//!
//! What is written carries version 6 and plain encodings, so that any Redis since 2.6 restores it. What is read may come from any up
//! to Redis 8.4.

use ardb_base::crc64::crc64;

use crate::encode::{Encoder, Items};
use crate::error::{DumpError, Fault, Stop, WriteError};
use crate::format::{Magic, kind_of};
use crate::reader::Options;
use crate::sink::{KeyMeta, Kind, Sink};
use crate::source::Source;
use crate::value::{self, Buffers};
use crate::writer::OLDEST_VERSION;

/// The newest version of a payload that is read.
pub const NEWEST_PAYLOAD: u16 = 12;
/// Version and checksum, in bytes.
const FOOTER: usize = 2 + 8;

/// Makes a payload in memory, with the same calls as for a key of an RDB.
pub struct DumpWriter {
    out: Vec<u8>,
    encoder: Encoder,
    complete: bool,
}

impl DumpWriter {
    /// A payload that is made in `room`, whose content is dropped. `compress` is as in [`WriterOptions`](crate::WriterOptions).
    #[must_use]
    pub fn new(mut room: Vec<u8>, compress: bool) -> DumpWriter {
        room.clear();
        DumpWriter { out: room, encoder: Encoder::new(OLDEST_VERSION, compress), complete: false }
    }

    /// The payload's value is this string.
    ///
    /// # Errors
    /// As for [`begin`](DumpWriter::begin).
    pub fn string(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.open(Kind::String, value.len() as u64)?;
        self.encoder.string(value, &mut self.out)?;
        self.complete = true;
        Ok(())
    }

    /// Starts the value, of `count` items (for a string: bytes).
    ///
    /// # Errors
    /// [`WriteError`]: an empty collection, a length beyond 32 bits, or a second value.
    pub fn begin(&mut self, kind: Kind, count: u64) -> Result<(), WriteError> {
        self.open(kind, count)?;
        self.encoder.begin(kind, count, &mut self.out);
        Ok(())
    }

    /// The payload.
    ///
    /// # Errors
    /// [`WriteError::Order`] if the value is not complete.
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        if !self.complete {
            return Err(WriteError::Order("a payload without a complete value"));
        }
        self.out.extend_from_slice(&(OLDEST_VERSION as u16).to_le_bytes());
        let sum = crc64(&self.out);
        self.out.extend_from_slice(&sum.to_le_bytes());
        Ok(self.out)
    }

    fn open(&mut self, kind: Kind, count: u64) -> Result<(), WriteError> {
        self.encoder.check(kind, count)?;
        if !self.out.is_empty() {
            return Err(WriteError::Order("a payload holds one value"));
        }
        self.out.push(self.encoder.code(kind));
        Ok(())
    }
}

impl Items for DumpWriter {
    fn element(&mut self, element: &[u8]) -> Result<(), WriteError> {
        self.encoder.element(element, &mut self.out)
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.encoder.field(field, value, &mut self.out)
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), WriteError> {
        self.encoder.scored(member, score, &mut self.out)
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.encoder.piece(piece.len())?;
        self.out.extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self) -> Result<(), WriteError> {
        self.encoder.end()?;
        self.complete = true;
        Ok(())
    }
}

/// Reads a payload into `sink`: one `begin` with an empty key and no expiry, the items, one `end`. Items that appear twice in a set,
/// hash or sorted set are refused, and so are empty collections and bytes after the value; in such a case calls may have been made
/// already, so the sink must be able to drop what it began.
///
/// # Errors
/// [`DumpError`]; its first two cases are the two errors that Redis replies with.
pub fn load_dump<S: Sink>(payload: &[u8], sink: &mut S) -> Result<(), DumpError<S::Error>> {
    let Some((body, footer)) = payload.split_last_chunk::<FOOTER>() else {
        return Err(DumpError::BadVersionOrChecksum);
    };
    let [v0, v1, sum @ ..] = *footer;
    let summed = &payload[..payload.len() - sum.len()]; // the payload has at least the footer
    if u16::from_le_bytes([v0, v1]) > NEWEST_PAYLOAD || u64::from_le_bytes(sum) != crc64(summed) {
        return Err(DumpError::BadVersionOrChecksum);
    }
    let options = Options { reject_duplicates: true, verify_checksum: false, ..Options::default() };
    match load_value(body, sink, &options) {
        Ok(()) => Ok(()),
        Err(Stop::Sink(e)) => Err(DumpError::Sink(e)),
        Err(Stop::Fault(fault)) => Err(DumpError::BadData(match fault {
            Fault::Io(e) => e.to_string(),
            Fault::Truncated => "the value is cut".into(),
            Fault::Corrupt(what) => what.into(),
            Fault::Unsupported(what) => format!("{what} is not supported"),
            Fault::TooLong { claimed, limit } => format!("a length of {claimed} exceeds {limit}"),
        })),
    }
}

fn load_value<S: Sink>(body: &[u8], sink: &mut S, options: &Options) -> Result<(), Stop<S::Error>> {
    let mut source = Source::new(body, false);
    let code = source.byte()?;
    let kind = match kind_of(code, Magic::Redis) {
        Ok(kind) => kind,
        // The value itself names its module, so it is asked before it is refused.
        Err(_) if code == crate::format::value::MODULE => Kind::String,
        Err(what) => return Err(Fault::Unsupported(what.into()).into()),
    };
    let meta = KeyMeta::default();
    let full = value::read(&mut source, sink, &mut Buffers::default(), options, b"", &meta, code, kind)?;
    if !full {
        return Err(Fault::Corrupt("the collection is empty").into());
    }
    if source.offset() != body.len() as u64 {
        return Err(Fault::Corrupt("bytes follow the value").into());
    }
    Ok(())
}
