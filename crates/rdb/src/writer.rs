//! Writes a whole RDB stream, by default one of version 6, which every Redis since 2.6 loads.
//!
//! Invariants: what is written is a valid RDB if and only if `finish` succeeded; each collection holds exactly as many items as
//! its count says; the memory used is one buffer of [`FLUSH_AT`] bytes and the longest single item.

use std::io::Write;

use ardb_base::crc64::Crc64;

use crate::encode::{self, Encoder, Items};
use crate::error::WriteError;
use crate::format::op;
use crate::sink::Kind;

/// The version that every Redis since 2.6 loads.
pub const OLDEST_VERSION: u32 = 6;
/// The newest version that a writer can be asked for.
pub const NEWEST_VERSION: u32 = 12;
/// The version that brought auxiliary fields.
const AUX_SINCE: u32 = 7;
/// The buffer goes to the target when it holds so many bytes.
const FLUSH_AT: usize = 64 << 10;

/// How a writer writes.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// The version in the header, [`OLDEST_VERSION`] (the default) to [`NEWEST_VERSION`]. From 7 on there may be auxiliary fields, from 8 on
    /// scores are binary and lengths may exceed 32 bits. The encodings of values are the plain ones in each.
    pub version: u32,
    /// Whether strings of more than 20 bytes are compressed where that helps. Off by default.
    pub compress: bool,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions { version: OLDEST_VERSION, compress: false }
    }
}

/// Writes one RDB to `W`. The writer buffers, `W` need not.
///
/// For each key either [`string`](Writer::string), or [`begin`](Writer::begin) with the number of items, exactly so many calls of
/// [`Items`], and [`end`](Items::end). An error of the target is final; any other leaves the writer as it was before the call.
pub struct Writer<W: Write> {
    target: W,
    buffer: Vec<u8>,
    sum: Crc64,
    written: u64,
    encoder: Encoder,
    failed: bool,
}

impl<W: Write> Writer<W> {
    /// Starts an RDB.
    ///
    /// # Errors
    /// [`WriteError::Version`] for a version out of range.
    pub fn new(target: W, options: WriterOptions) -> Result<Writer<W>, WriteError> {
        let WriterOptions { version, compress } = options;
        if !(OLDEST_VERSION..=NEWEST_VERSION).contains(&version) {
            return Err(WriteError::Version(version));
        }
        let mut buffer = Vec::with_capacity(FLUSH_AT + FLUSH_AT / 4);
        buffer.extend_from_slice(format!("REDIS{version:04}").as_bytes());
        let encoder = Encoder::new(version, compress);
        Ok(Writer { target, buffer, sum: Crc64::new(), written: 0, encoder, failed: false })
    }

    /// Writes an auxiliary field.
    ///
    /// # Errors
    /// [`WriteError::NeedsVersion`] before version 7, else as for [`begin`](Writer::begin).
    pub fn aux(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.ready()?;
        self.since(AUX_SINCE, "an auxiliary field")?;
        self.encoder.check_length(key.len().max(value.len()) as u64)?;
        self.buffer.push(op::AUX);
        self.encoder.string(key, &mut self.buffer)?;
        self.encoder.string(value, &mut self.buffer)?;
        self.flush_if_full()
    }

    /// The keys that follow belong to this database.
    ///
    /// # Errors
    /// As for [`begin`](Writer::begin).
    pub fn select_db(&mut self, db: u32) -> Result<(), WriteError> {
        self.ready()?;
        self.buffer.push(op::SELECT_DB);
        encode::length(u64::from(db), &mut self.buffer);
        self.flush_if_full()
    }

    /// Says how many keys, and keys with an expiry, the current database has.
    ///
    /// # Errors
    /// As for [`aux`](Writer::aux).
    pub fn resize(&mut self, keys: u64, expires: u64) -> Result<(), WriteError> {
        self.ready()?;
        self.since(AUX_SINCE, "the size of a database")?;
        self.encoder.check_length(keys.max(expires))?;
        self.buffer.push(op::RESIZE_DB);
        encode::length(keys, &mut self.buffer);
        encode::length(expires, &mut self.buffer);
        self.flush_if_full()
    }

    /// Writes a key whose value is a string at hand.
    ///
    /// # Errors
    /// As for [`begin`](Writer::begin).
    pub fn string(&mut self, key: &[u8], expire_at_ms: Option<i64>, value: &[u8]) -> Result<(), WriteError> {
        self.ready()?;
        self.encoder.check(Kind::String, value.len() as u64)?;
        self.key(key, expire_at_ms, Kind::String)?;
        self.encoder.string(value, &mut self.buffer)?;
        self.flush_if_full()
    }

    /// Starts a key whose value has `count` items (for a string: bytes). `expire_at_ms` is in Unix milliseconds.
    ///
    /// # Errors
    /// [`WriteError::Empty`] for a collection of none; [`WriteError::NeedsVersion`] for a length beyond 32 bits before
    /// version 8; [`WriteError::Order`] if another value is open; [`WriteError::Io`] if the target fails.
    pub fn begin(&mut self, key: &[u8], expire_at_ms: Option<i64>, kind: Kind, count: u64) -> Result<(), WriteError> {
        self.ready()?;
        self.encoder.check(kind, count)?;
        self.key(key, expire_at_ms, kind)?;
        self.encoder.begin(kind, count, &mut self.buffer);
        self.flush_if_full()
    }

    /// Ends the RDB, flushes the target and gives it back.
    ///
    /// # Errors
    /// [`WriteError::Order`] if a value is open, [`WriteError::Io`] if the target fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.ready()?;
        self.buffer.push(op::EOF);
        self.flush()?;
        self.target.write_all(&self.sum.value().to_le_bytes())?;
        self.target.flush()?;
        Ok(self.target)
    }

    /// Bytes written so far, those in the buffer included.
    pub fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn key(&mut self, key: &[u8], expire_at_ms: Option<i64>, kind: Kind) -> Result<(), WriteError> {
        self.encoder.check_length(key.len() as u64)?;
        if let Some(at) = expire_at_ms {
            self.buffer.push(op::EXPIRE_MS);
            self.buffer.extend_from_slice(&at.to_le_bytes());
        }
        self.buffer.push(self.encoder.code(kind));
        self.encoder.string(key, &mut self.buffer)
    }

    fn usable(&self) -> Result<(), WriteError> {
        if self.failed { Err(WriteError::Order("the target has failed before")) } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), WriteError> {
        self.usable()?;
        self.encoder.idle()
    }

    fn since(&self, needed: u32, what: &'static str) -> Result<(), WriteError> {
        let version = self.encoder.version;
        if version < needed { Err(WriteError::NeedsVersion { what, needed, version }) } else { Ok(()) }
    }

    #[inline]
    fn flush_if_full(&mut self) -> Result<(), WriteError> {
        if self.buffer.len() >= FLUSH_AT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.sum.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.failed = true;
        self.target.write_all(&self.buffer)?;
        self.failed = false;
        self.buffer.clear();
        // What one long item needed is given back.
        self.buffer.shrink_to(FLUSH_AT * 16);
        Ok(())
    }
}

impl<W: Write> Items for Writer<W> {
    #[inline]
    fn element(&mut self, element: &[u8]) -> Result<(), WriteError> {
        self.usable()?;
        self.encoder.element(element, &mut self.buffer)?;
        self.flush_if_full()
    }

    #[inline]
    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.usable()?;
        self.encoder.field(field, value, &mut self.buffer)?;
        self.flush_if_full()
    }

    #[inline]
    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), WriteError> {
        self.usable()?;
        self.encoder.scored(member, score, &mut self.buffer)?;
        self.flush_if_full()
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.usable()?;
        self.encoder.piece(piece.len())?;
        for part in piece.chunks(FLUSH_AT) {
            self.buffer.extend_from_slice(part);
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), WriteError> {
        self.encoder.end()
    }
}
