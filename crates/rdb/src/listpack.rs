//! Listpacks (Redis 7): validated as a whole before the first entry is handed out.
//!
//! Layout: total bytes (u32), number of entries (u16, 65535 = unknown), entries, `FF`; little endian. An entry is an encoding
//! byte, the data, and then the size of both, in groups of seven bits that are read backwards.

use crate::entry::{Entry, array, int24};
use crate::error::Malformed;

const HEADER: usize = 6;
const END: u8 = 0xff;

/// A listpack whose whole structure was found consistent.
#[derive(Debug, Clone, Copy)]
pub struct Listpack<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Listpack<'a> {
    /// Checks every size and count in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] with the rule that is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Listpack<'a>, Malformed> {
        let (Some(total), Some(count)) = (array(bytes, 0), array(bytes, 4)) else {
            return Err(Malformed("a listpack is shorter than its header"));
        };
        if u32::from_le_bytes(total) as usize != bytes.len() {
            return Err(Malformed("a listpack's length is not the one it claims"));
        }
        let (mut at, mut len) = (HEADER, 0usize);
        while *bytes.get(at).ok_or(Malformed("a listpack has no end"))? != END {
            let (_, data_end) = entry(bytes, at)?;
            let next = data_end + back_len(data_end - at);
            let back = bytes.get(data_end..next).ok_or(Malformed("a listpack entry is cut"))?;
            if !back_is(back, data_end - at) {
                return Err(Malformed("a listpack entry's back length is wrong"));
            }
            (at, len) = (next, len + 1);
        }
        if at + 1 != bytes.len() {
            return Err(Malformed("a listpack goes on after its end"));
        }
        let count = u16::from_le_bytes(count);
        if count != u16::MAX && usize::from(count) != len {
            return Err(Malformed("a listpack's count is wrong"));
        }
        Ok(Listpack { bytes, len })
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'a> {
        Iter { bytes: self.bytes, at: HEADER }
    }
}

impl<'a> IntoIterator for Listpack<'a> {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The entries of a [`Listpack`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if *self.bytes.get(self.at)? == END {
            return None;
        }
        // `parse` walked the same bytes, so this cannot fail; if it did, the iteration would end.
        let (value, data_end) = entry(self.bytes, self.at).ok()?;
        self.at = data_end + back_len(data_end - self.at);
        Some(value)
    }
}

/// Bytes that the back length of an entry of `size` bytes takes. The steps lie one below the powers of two from the second on.
fn back_len(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Whether `back`, read from its end, spells `size`.
fn back_is(back: &[u8], size: usize) -> bool {
    let mut rest = size as u64;
    for (i, &byte) in back.iter().rev().enumerate() {
        let more = i + 1 < back.len();
        if u64::from(byte & 0x7f) != rest & 0x7f || (byte & 0x80 != 0) != more {
            return false;
        }
        rest >>= 7;
    }
    rest == 0
}

/// The entry at `at`: its value and the end of its data, where the back length starts (always after `at`).
fn entry(bytes: &[u8], at: usize) -> Result<(Entry<'_>, usize), Malformed> {
    const CUT: Malformed = Malformed("a listpack entry is cut");
    let encoding = *bytes.get(at).ok_or(CUT)?;
    let data = at + 1;
    let string = |start: usize, len: usize| {
        let end = start.checked_add(len).ok_or(CUT)?;
        Ok((Entry::Bytes(bytes.get(start..end).ok_or(CUT)?), end))
    };
    let (value, end) = match encoding {
        0x00..=0x7f => (i64::from(encoding), data),
        0x80..=0xbf => return string(data, usize::from(encoding & 0x3f)),
        0xc0..=0xdf => {
            let low = *bytes.get(data).ok_or(CUT)?;
            let raw = i64::from(encoding & 0x1f) << 8 | i64::from(low);
            (if raw < 1 << 12 { raw } else { raw - (1 << 13) }, data + 1)
        }
        0xe0..=0xef => {
            let low = *bytes.get(data).ok_or(CUT)?;
            return string(data + 1, usize::from(encoding & 0x0f) << 8 | usize::from(low));
        }
        0xf0 => return string(data + 4, u32::from_le_bytes(array(bytes, data).ok_or(CUT)?) as usize),
        0xf1 => (i64::from(i16::from_le_bytes(array(bytes, data).ok_or(CUT)?)), data + 2),
        0xf2 => (int24(array(bytes, data).ok_or(CUT)?), data + 3),
        0xf3 => (i64::from(i32::from_le_bytes(array(bytes, data).ok_or(CUT)?)), data + 4),
        0xf4 => (i64::from_le_bytes(array(bytes, data).ok_or(CUT)?), data + 8),
        _ => return Err(Malformed("a listpack entry has an unknown encoding")),
    };
    Ok((Entry::Int(value), end))
}
