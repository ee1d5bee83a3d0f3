//! Ziplists (Redis 2.2 to 6.2): validated as a whole before the first entry is handed out.
//!
//! Layout: total bytes (u32), offset of the last entry (u32), number of entries (u16, 65535 = unknown), entries, `FF`; all
//! little endian. An entry is the raw size of the one before it (one byte, or `FE` and u32), an encoding byte, the data.

use crate::entry::{Entry, array, int24};
use crate::error::Malformed;

const HEADER: usize = 10;
const END: u8 = 0xff;

/// A ziplist whose whole structure was found consistent.
#[derive(Debug, Clone, Copy)]
pub struct Ziplist<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Ziplist<'a> {
    /// Checks every size, offset and count in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] with the rule that is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Ziplist<'a>, Malformed> {
        let (Some(total), Some(tail), Some(count)) = (array(bytes, 0), array(bytes, 4), array(bytes, 8)) else {
            return Err(Malformed("a ziplist is shorter than its header"));
        };
        if u32::from_le_bytes(total) as usize != bytes.len() {
            return Err(Malformed("a ziplist's length is not the one it claims"));
        }
        let (mut at, mut before, mut last, mut len) = (HEADER, 0, HEADER, 0usize);
        while *bytes.get(at).ok_or(Malformed("a ziplist has no end"))? != END {
            let (previous, _, next) = entry(bytes, at)?;
            if previous != before {
                return Err(Malformed("a ziplist entry's back length is wrong"));
            }
            (last, before, at, len) = (at, next - at, next, len + 1);
        }
        if at + 1 != bytes.len() {
            return Err(Malformed("a ziplist goes on after its end"));
        }
        if u32::from_le_bytes(tail) as usize != last {
            return Err(Malformed("a ziplist's tail offset is wrong"));
        }
        let count = u16::from_le_bytes(count);
        if count != u16::MAX && usize::from(count) != len {
            return Err(Malformed("a ziplist's count is wrong"));
        }
        Ok(Ziplist { bytes, len })
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

impl<'a> IntoIterator for Ziplist<'a> {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The entries of a [`Ziplist`].
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
        let (_, value, next) = entry(self.bytes, self.at).ok()?;
        self.at = next;
        Some(value)
    }
}

/// The entry at `at`: the size it claims for its predecessor, its value, where the next one starts (always after `at`).
fn entry(bytes: &[u8], at: usize) -> Result<(usize, Entry<'_>, usize), Malformed> {
    const CUT: Malformed = Malformed("a ziplist entry is cut");
    let first = *bytes.get(at).ok_or(CUT)?;
    let (previous, at) = if first < 0xfe {
        (usize::from(first), at + 1)
    } else {
        (u32::from_le_bytes(array(bytes, at + 1).ok_or(CUT)?) as usize, at + 5)
    };
    let encoding = *bytes.get(at).ok_or(CUT)?;
    let data = at + 1;
    let string = |start: usize, len: usize| {
        let end = start.checked_add(len).ok_or(CUT)?;
        Ok((previous, Entry::Bytes(bytes.get(start..end).ok_or(CUT)?), end))
    };
    let (value, next) = match encoding {
        0x00..=0x3f => return string(data, usize::from(encoding)),
        0x40..=0x7f => {
            let low = *bytes.get(data).ok_or(CUT)?;
            return string(data + 1, usize::from(encoding & 0x3f) << 8 | usize::from(low));
        }
        0x80 => return string(data + 4, u32::from_be_bytes(array(bytes, data).ok_or(CUT)?) as usize),
        0xc0 => (i64::from(i16::from_le_bytes(array(bytes, data).ok_or(CUT)?)), data + 2),
        0xd0 => (i64::from(i32::from_le_bytes(array(bytes, data).ok_or(CUT)?)), data + 4),
        0xe0 => (i64::from_le_bytes(array(bytes, data).ok_or(CUT)?), data + 8),
        0xf0 => (int24(array(bytes, data).ok_or(CUT)?), data + 3),
        0xfe => (i64::from(i8::from_le_bytes(array(bytes, data).ok_or(CUT)?)), data + 1),
        0xf1..=0xfd => (i64::from(encoding & 0x0f) - 1, data),
        _ => return Err(Malformed("a ziplist entry has an unknown encoding")),
    };
    Ok((previous, Entry::Int(value), next))
}
