//! The bytes of an RDB as they arrive: counts them, sums them, and takes none beyond those asked for.
//!
//! Bytes are read in place from the buffer of the [`BufRead`] beneath and are handed back to it in big steps (so that the
//! checksum runs over long slices); what was not asked for stays there for whoever reads next. Allocations follow the bytes that
//! arrived, never a length that the bytes claim.

use std::io::{BufRead, ErrorKind};

use ardb_base::crc64::Crc64;

use crate::error::{Fault, Malformed};
use crate::lzf::{self, Decompressor};

/// How a string is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// So many bytes follow.
    Raw(u64),
    /// The string is the text of this integer; nothing follows.
    Int(i32),
    /// `packed` bytes of LZF follow, to become `unpacked` bytes.
    Lzf { packed: u64, unpacked: u64 },
}

/// Either a length or the code of a specially encoded string.
enum Length {
    Plain(u64),
    Special(u8),
}

/// Output of a streamed decompression is handed on when it has so many bytes.
const PIECE: usize = 64 << 10;
/// Compressed input taken at once, so that the output of one step stays small.
const STEP: usize = 2 << 10;

pub(crate) struct Source<R> {
    inner: R,
    /// Bytes of the buffer beneath that were read and not yet handed back.
    taken: usize,
    /// Bytes handed back since the start.
    released: u64,
    /// Of the bytes handed back.
    sum: Crc64,
    verify: bool,
}

impl<R: BufRead> Source<R> {
    pub(crate) fn new(inner: R, verify: bool) -> Source<R> {
        Source { inner, taken: 0, released: 0, sum: Crc64::new(), verify }
    }

    /// Bytes read since the start.
    pub(crate) fn offset(&self) -> u64 {
        self.released + self.taken as u64
    }

    /// Hands back what was read, so that the reader beneath stands exactly behind it.
    pub(crate) fn release(&mut self) -> Result<(), Fault> {
        if self.taken > 0 {
            // The buffer holds `taken` bytes and more, so this reads nothing.
            let buffer = self.inner.fill_buf().map_err(Fault::Io)?;
            if self.verify {
                self.sum.update(&buffer[..self.taken]);
            }
            self.inner.consume(self.taken);
            self.released += self.taken as u64;
            self.taken = 0;
        }
        Ok(())
    }

    /// The checksum of all that was read.
    pub(crate) fn sum(&mut self) -> Result<u64, Fault> {
        self.release()?;
        Ok(self.sum.value())
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// What is there to read without waiting, at least one byte.
    #[inline]
    fn available(&mut self) -> Result<&[u8], Fault> {
        loop {
            match self.inner.fill_buf() {
                Ok(buffer) if self.taken < buffer.len() => break,
                Ok([]) => return Err(Fault::Truncated),
                Ok(_) => {
                    self.release()?;
                    // A wait may follow; the loop asks again.
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::Io(e)),
            }
        }
        Ok(&self.inner.fill_buf().map_err(Fault::Io)?[self.taken..])
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.available()?[0]; // never empty
        self.taken += 1;
        Ok(byte)
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        if let Some(whole) = self.available()?.first_chunk() {
            let whole = *whole;
            self.taken += N;
            return Ok(whole);
        }
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// Hands the next `len` bytes to `take`, in pieces as they lie in the buffer.
    #[inline]
    pub(crate) fn pieces<E: From<Fault>>(
        &mut self,
        len: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = len;
        while left > 0 {
            let available = self.available()?;
            let now = usize::try_from(left).map_or(available.len(), |left| left.min(available.len()));
            take(&available[..now])?;
            self.taken += now;
            left -= now as u64;
        }
        Ok(())
    }

    fn length_or_code(&mut self) -> Result<Length, Fault> {
        let first = self.byte()?;
        Ok(match (first >> 6, first & 0x3f) {
            (0, low) => Length::Plain(u64::from(low)),
            (1, low) => Length::Plain(u64::from(low) << 8 | u64::from(self.byte()?)),
            (2, 0) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 1) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (2, _) => return Err(Fault::Corrupt("a length has an unknown encoding")),
            (_, code) => Length::Special(code),
        })
    }

    /// A length that must not be a special encoding.
    #[inline]
    pub(crate) fn length(&mut self) -> Result<u64, Fault> {
        match self.length_or_code()? {
            Length::Plain(len) => Ok(len),
            Length::Special(_) => Err(Fault::Corrupt("a string encoding stands where a length must")),
        }
    }

    /// How the next string is written.
    #[inline]
    pub(crate) fn header(&mut self) -> Result<Header, Fault> {
        Ok(match self.length_or_code()? {
            Length::Plain(len) => Header::Raw(len),
            Length::Special(0) => Header::Int(i32::from(i8::from_le_bytes(self.array()?))),
            Length::Special(1) => Header::Int(i32::from(i16::from_le_bytes(self.array()?))),
            Length::Special(2) => Header::Int(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => Header::Lzf { packed: self.length()?, unpacked: self.length()? },
            Length::Special(_) => return Err(Fault::Corrupt("a string has an unknown encoding")),
        })
    }

    /// Reads a string into `out`, which is emptied first.
    #[inline]
    pub(crate) fn string(&mut self, out: &mut Vec<u8>, limit: u64) -> Result<(), Fault> {
        // By far the most strings are short, plain and wholly in the buffer.
        let available = self.available()?;
        let len = available[0]; // never empty
        if len < 1 << 6
            && u64::from(len) <= limit
            && let Some(body) = available.get(1..1 + usize::from(len))
        {
            out.clear();
            out.extend_from_slice(body);
            self.taken += 1 + usize::from(len);
            return Ok(());
        }
        let header = self.header()?;
        self.body(header, out, limit)
    }

    /// Reads what follows `header` into `out`, which is emptied first.
    #[inline]
    pub(crate) fn body(&mut self, header: Header, out: &mut Vec<u8>, limit: u64) -> Result<(), Fault> {
        out.clear();
        match header {
            Header::Raw(len) => {
                within(len, limit)?;
                self.pieces(len, |piece| {
                    out.extend_from_slice(piece);
                    Ok(())
                })
            }
            Header::Int(value) => {
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                Ok(())
            }
            Header::Lzf { packed, unpacked } => {
                within(packed.max(unpacked), limit)?;
                let mut decompressor = Decompressor::new(unpacked);
                self.pieces(packed, |piece| decompressor.push(piece, out).map_err(Fault::from))?;
                decompressor.finish().map_err(Fault::from)
            }
        }
    }

    /// Reads an LZF block of any size and hands its output on in pieces, with `out` (emptied first) as the window.
    pub(crate) fn unpack<E: From<Fault> + From<Malformed>>(
        &mut self,
        packed: u64,
        unpacked: u64,
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        out.clear();
        let mut decompressor = Decompressor::new(unpacked);
        let mut done = 0; // of `out`: what was handed on and is kept only as the window
        self.pieces(packed, |piece| {
            for step in piece.chunks(STEP) {
                decompressor.push(step, out)?;
                if out.len() - done >= PIECE {
                    take(&out[done..])?;
                    out.drain(..out.len() - lzf::WINDOW);
                    done = out.len();
                }
            }
            Ok::<(), E>(())
        })?;
        decompressor.finish()?;
        if out.len() > done { take(&out[done..]) } else { Ok(()) }
    }
}

/// Refuses a claim above the limit.
pub(crate) fn within(claimed: u64, limit: u64) -> Result<(), Fault> {
    if claimed > limit { Err(Fault::TooLong { claimed, limit }) } else { Ok(()) }
}
