//! Encodes values in the plain encodings that every Redis since 2.6 reads, and holds the writer to what it announced.
//!
//! Invariant: a call either appends what it stands for and counts it, or appends nothing and returns an error.

use crate::error::WriteError;
use crate::format::{SCORE_INFINITY, SCORE_NEGATIVE_INFINITY, value as ty};
use crate::lzf::Compressor;
use crate::number::{canonical_i32, put_double};
use crate::sink::Kind;

/// The version that brought lengths of 64 bits and binary scores.
const WIDE: u32 = 8;
/// Strings up to this length are never compressed.
const COMPRESS_ABOVE: usize = 20;

/// Takes the items of a value that was begun, for RDBs and payloads alike.
pub trait Items {
    /// The next element of a list, or a member of a set.
    ///
    /// # Errors
    /// [`WriteError`]: out of order, too many, or the target failed.
    fn element(&mut self, element: &[u8]) -> Result<(), WriteError>;

    /// A field of a hash.
    ///
    /// # Errors
    /// As for [`element`](Items::element).
    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), WriteError>;

    /// A member of a sorted set.
    ///
    /// # Errors
    /// As for [`element`](Items::element), and if the score is NaN.
    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), WriteError>;

    /// The next piece of a string that was begun with its length in bytes.
    ///
    /// # Errors
    /// As for [`element`](Items::element).
    fn string_piece(&mut self, piece: &[u8]) -> Result<(), WriteError>;

    /// The value is complete.
    ///
    /// # Errors
    /// [`WriteError::TooFew`] if it is not; [`WriteError::Order`] if none was begun.
    fn end(&mut self) -> Result<(), WriteError>;
}

pub(crate) struct Encoder {
    pub(crate) version: u32,
    compressor: Option<Compressor>,
    /// Room for a compressed string, whose length must be written before it.
    packed: Vec<u8>,
    /// The value begun, and the items (for a string: bytes) still to come.
    open: Option<(Kind, u64)>,
}

impl Encoder {
    pub(crate) fn new(version: u32, compress: bool) -> Encoder {
        Encoder { version, compressor: compress.then(Compressor::default), packed: Vec::new(), open: None }
    }

    /// Whether no value is open.
    pub(crate) fn idle(&self) -> Result<(), WriteError> {
        if self.open.is_some() { Err(WriteError::Order("a value is still open")) } else { Ok(()) }
    }

    /// Checks a value of `count` items before anything of its key is written.
    pub(crate) fn check(&self, kind: Kind, count: u64) -> Result<(), WriteError> {
        self.idle()?;
        if count == 0 && kind != Kind::String {
            return Err(WriteError::Empty);
        }
        self.check_length(count)
    }

    /// Checks that a length can be written.
    pub(crate) fn check_length(&self, len: u64) -> Result<(), WriteError> {
        if len > u64::from(u32::MAX) && self.version < WIDE {
            let what = "a length of 2^32 or more";
            return Err(WriteError::NeedsVersion { what, needed: WIDE, version: self.version });
        }
        Ok(())
    }

    /// The code of a value type in this version.
    pub(crate) fn code(&self, kind: Kind) -> u8 {
        match kind {
            Kind::String => ty::STRING,
            Kind::List => ty::LIST,
            Kind::Set => ty::SET,
            Kind::Hash => ty::HASH,
            Kind::SortedSet if self.version >= WIDE => ty::ZSET_2,
            Kind::SortedSet => ty::ZSET,
        }
    }

    /// Opens a value that `check` found right.
    pub(crate) fn begin(&mut self, kind: Kind, count: u64, out: &mut Vec<u8>) {
        length(count, out);
        self.open = Some((kind, count));
    }

    /// Counts `items` of the kind that the open value must have.
    fn take(&mut self, fits: impl Fn(Kind) -> bool, items: u64) -> Result<(), WriteError> {
        match &mut self.open {
            Some((kind, left)) if fits(*kind) => {
                *left = left.checked_sub(items).ok_or(WriteError::TooMany)?;
                Ok(())
            }
            Some(_) => Err(WriteError::Order("an item of another kind than was begun")),
            None => Err(WriteError::Order("an item without a value")),
        }
    }

    /// Writes a string in the shortest form that every version knows.
    pub(crate) fn string(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        if bytes.len() <= 11
            && let Some(value) = canonical_i32(bytes)
        {
            if let Ok(value) = i8::try_from(value) {
                out.extend_from_slice(&[0xc0, value as u8]);
            } else if let Ok(value) = i16::try_from(value) {
                out.push(0xc1);
                out.extend_from_slice(&value.to_le_bytes());
            } else {
                out.push(0xc2);
                out.extend_from_slice(&value.to_le_bytes());
            }
            return Ok(());
        }
        self.check_length(bytes.len() as u64)?;
        if let Some(compressor) = &mut self.compressor
            && bytes.len() > COMPRESS_ABOVE
        {
            self.packed.clear();
            // Less than this does not pay for the second length.
            if compressor.compress(bytes, bytes.len() - 4, &mut self.packed) {
                out.push(0xc3);
                length(self.packed.len() as u64, out);
                length(bytes.len() as u64, out);
                out.extend_from_slice(&self.packed);
                return Ok(());
            }
        }
        length(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn element(&mut self, element: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.check_length(element.len() as u64)?;
        self.take(|kind| matches!(kind, Kind::List | Kind::Set), 1)?;
        self.string(element, out)
    }

    pub(crate) fn field(&mut self, field: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.check_length(field.len().max(value.len()) as u64)?;
        self.take(|kind| kind == Kind::Hash, 1)?;
        self.string(field, out)?;
        self.string(value, out)
    }

    pub(crate) fn scored(&mut self, member: &[u8], score: f64, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if score.is_nan() {
            return Err(WriteError::NotANumber);
        }
        self.check_length(member.len() as u64)?;
        self.take(|kind| kind == Kind::SortedSet, 1)?;
        self.string(member, out)?;
        if self.version >= WIDE {
            out.extend_from_slice(&score.to_le_bytes());
        } else if score.is_infinite() {
            out.push(if score > 0.0 { SCORE_INFINITY } else { SCORE_NEGATIVE_INFINITY });
        } else {
            let at = out.len();
            out.push(0);
            put_double(out, score);
            out[at] = (out.len() - at - 1) as u8; // just pushed; the text has at most 25 bytes
        }
        Ok(())
    }

    /// Counts a piece of a string; the caller appends the bytes themselves.
    pub(crate) fn piece(&mut self, len: usize) -> Result<(), WriteError> {
        self.take(|kind| kind == Kind::String, len as u64)
    }

    pub(crate) fn end(&mut self) -> Result<(), WriteError> {
        match self.open {
            None => Err(WriteError::Order("an end without a value")),
            Some((_, 0)) => {
                self.open = None;
                Ok(())
            }
            Some((_, missing)) => Err(WriteError::TooFew { missing }),
        }
    }
}

/// Writes a length in 6, 14, 32 or 64 bits. The last form needs a version that `check_length` has looked at.
pub(crate) fn length(len: u64, out: &mut Vec<u8>) {
    if len < 1 << 6 {
        out.push(len as u8);
    } else if len < 1 << 14 {
        out.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]);
    } else if let Ok(len) = u32::try_from(len) {
        out.push(0x80);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0x81);
        out.extend_from_slice(&len.to_be_bytes());
    }
}
