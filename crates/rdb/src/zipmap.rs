//! Zipmaps (small hashes before Redis 2.6): validated as a whole before the first field is handed out.
//!
//! Layout: number of fields (one byte, 254 and more = unknown), then for each field its length, the field, the value's length, a
//! count of unused bytes, the value, the unused bytes; `FF`. A length is one byte, or `FE` and u32 little endian.

use crate::entry::array;
use crate::error::Malformed;

const END: u8 = 0xff;

/// A zipmap whose whole structure was found consistent.
#[derive(Debug, Clone, Copy)]
pub struct Zipmap<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Zipmap<'a> {
    /// Checks every length and the count.
    ///
    /// # Errors
    /// [`Malformed`] with the rule that is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Zipmap<'a>, Malformed> {
        let count = *bytes.first().ok_or(Malformed("a zipmap is empty"))?;
        let (mut at, mut len) = (1, 0usize);
        while *bytes.get(at).ok_or(Malformed("a zipmap has no end"))? != END {
            at = pair(bytes, at)?.2;
            len += 1;
        }
        if at + 1 != bytes.len() {
            return Err(Malformed("a zipmap goes on after its end"));
        }
        if count < 254 && usize::from(count) != len {
            return Err(Malformed("a zipmap's count is wrong"));
        }
        Ok(Zipmap { bytes, len })
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (bytes, mut at) = (self.bytes, 1);
        std::iter::from_fn(move || {
            if *bytes.get(at)? == END {
                return None;
            }
            // `parse` walked the same bytes, so this cannot fail; if it did, the iteration would end.
            let (field, value, next) = pair(bytes, at).ok()?;
            at = next;
            Some((field, value))
        })
    }
}

const CUT: Malformed = Malformed("a zipmap entry is cut");

/// The length at `at`, and what follows it.
fn length(bytes: &[u8], at: usize) -> Result<(usize, usize), Malformed> {
    match *bytes.get(at).ok_or(CUT)? {
        0xfe => Ok((u32::from_le_bytes(array(bytes, at + 1).ok_or(CUT)?) as usize, at + 5)),
        END => Err(Malformed("a zipmap ends after a field without a value")),
        short => Ok((usize::from(short), at + 1)),
    }
}

/// The field and value at `at`, and where the next pair starts (always after `at`).
fn pair(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8], usize), Malformed> {
    let (len, at) = length(bytes, at)?;
    let end = at.checked_add(len).ok_or(CUT)?;
    let field = bytes.get(at..end).ok_or(CUT)?;
    let (len, at) = length(bytes, end)?;
    let free = usize::from(*bytes.get(at).ok_or(CUT)?);
    let at = at + 1;
    let end = at.checked_add(len).ok_or(CUT)?;
    let value = bytes.get(at..end).ok_or(CUT)?;
    let next = end.checked_add(free).filter(|&next| next < bytes.len()).ok_or(CUT)?;
    Ok((field, value, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_short_long_and_padded_values() {
        let long = vec![b'x'; 300];
        let mut bytes = vec![2, 1, b'a', 2, 3, b'b', b'c', 0, 0, 0, 0xfe];
        bytes.extend_from_slice(&300u32.to_le_bytes());
        bytes.extend_from_slice(&long);
        bytes.extend_from_slice(&[0, 0, 0xff]);
        let map = Zipmap::parse(&bytes).unwrap();
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&b"a"[..], &b"bc"[..]), (&long, b"")]);
        assert!(Zipmap::parse(&[0, 0xff]).unwrap().is_empty());
        for cut in 0..bytes.len() {
            assert!(Zipmap::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes[0] = 3;
        assert!(Zipmap::parse(&bytes).is_err());
        bytes[0] = 254;
        assert!(Zipmap::parse(&bytes).is_ok());
    }
}
