//! The elements of a packed value, one after the other as they lie in its key's row.
//!
//! Each string is its length (seven bits a byte, low ones first, the high bit set in all bytes but the last) and its bytes. A list or set is its elements, a
//! hash its fields, each followed by its value. What sorted sets add stands in [`crate::zset`]. All of it is read with checks: what does not
//! parse is [`TypeError::Corrupt`].

use std::ops::Range;

use ardb_base::id::ObjectId;

use crate::TypeError;

/// How an open collection is held.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Packed, as the key's row has it.
    Row,
    /// Packed, and new or changed.
    Own(Vec<u8>),
    /// In rows under this object.
    Rows(ObjectId),
}

/// What is said of a packed row that does not parse.
pub(crate) fn corrupt() -> TypeError {
    TypeError::Corrupt("key row: damaged packed value".into())
}

/// Bytes of an encoded length, at most: those of a `u32`.
const LENGTH_MAX: usize = 5;

/// Reads strings one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strings<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Strings<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Strings<'a> {
        Strings { bytes, at: 0 }
    }

    /// From the offset `at` on, which [`Strings::at`] gave.
    pub fn from(bytes: &'a [u8], at: usize) -> Strings<'a> {
        Strings { bytes, at }
    }

    /// Where the next one begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// All bytes, those before the next string too.
    pub fn all(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether nothing is left.
    pub fn is_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next one; `None` at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<&'a [u8]>, TypeError> {
        if self.is_end() {
            return Ok(None);
        }
        let string = string_at(self.bytes, self.at).ok_or_else(corrupt)?;
        self.at = string.end;
        Ok(Some(&self.bytes[string]))
    }

    /// The next `N` bytes, which are no string.
    #[inline]
    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], TypeError> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or_else(corrupt)?;
        self.at += N;
        Ok(*bytes)
    }
}

/// Where the string lies whose length begins at `at`; `None` if there is none. Searches go by this alone, without a `Result` for each string.
#[inline]
pub(crate) fn string_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let first = *bytes.get(at)?;
    let (len, start) = if first < 0x80 { (usize::from(first), at + 1) } else { long_length(bytes, at)? };
    let end = start.checked_add(len)?;
    (end <= bytes.len()).then_some(start..end)
}

/// A length of more than one byte, and where it ends.
fn long_length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut len = 0u64;
    for (n, byte) in bytes.get(at..)?.iter().take(LENGTH_MAX).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(len).ok()?, at + n + 1));
        }
    }
    None
}

/// Whether two strings are equal. Names in one collection are often of one length and begin alike, so their ends are looked at first.
#[inline]
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.last() == b.last() && a == b
}

/// Bytes that a string takes with its length.
pub(crate) fn string_len(string: &[u8]) -> usize {
    let bits = usize::BITS - string.len().leading_zeros();
    string.len() + (bits.max(1).div_ceil(7)) as usize
}

/// Writes a string with its length at the start of `out`, which has room; how many bytes it took.
fn write_string(out: &mut [u8], string: &[u8]) -> usize {
    let (mut at, mut rest) = (0, string.len());
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at += 1;
    out[at..at + string.len()].copy_from_slice(string);
    at + string.len()
}

/// Puts `raw`, which are no string, and then `strings` in the place of the bytes in `range`.
pub(crate) fn replace(bytes: &mut Vec<u8>, range: Range<usize>, raw: &[u8], strings: &[&[u8]]) {
    let added = raw.len() + strings.iter().map(|string| string_len(string)).sum::<usize>();
    let (old, end) = (bytes.len(), range.start + added);
    if end > range.end {
        bytes.resize(old + (end - range.end), 0);
    }
    bytes.copy_within(range.end..old, end);
    if end < range.end {
        bytes.truncate(old - (range.end - end));
    }
    let mut at = range.start + raw.len();
    bytes[range.start..at].copy_from_slice(raw);
    for string in strings {
        at += write_string(&mut bytes[at..], string);
    }
}

/// An element of a list or set, or a field of a hash with its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The element, member or field.
    pub name: &'a [u8],
    /// The field's value; else empty.
    pub value: &'a [u8],
    /// Where it begins.
    pub from: usize,
    /// Where the value begins.
    pub value_from: usize,
    /// Where it ends.
    pub to: usize,
}

/// Reads the entries of a list, set or hash one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'a> {
    strings: Strings<'a>,
    pairs: bool,
}

impl<'a> Entries<'a> {
    /// From the start of `bytes`. `pairs`: of a hash.
    pub fn new(bytes: &'a [u8], pairs: bool) -> Entries<'a> {
        Entries { strings: Strings::new(bytes), pairs }
    }

    /// From the offset `at` on, where an entry begins.
    pub fn from(bytes: &'a [u8], pairs: bool, at: usize) -> Entries<'a> {
        Entries { strings: Strings::from(bytes, at), pairs }
    }

    /// All bytes, those before the next entry too.
    pub fn bytes(&self) -> &'a [u8] {
        self.strings.all()
    }

    /// Where the next one begins; at the end, how many bytes there are.
    pub fn at(&self) -> usize {
        self.strings.at()
    }

    /// The next one; `None` at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, TypeError> {
        let from = self.strings.at();
        let Some(name) = self.strings.next()? else { return Ok(None) };
        let value_from = self.strings.at();
        let value = if self.pairs { self.strings.next()?.ok_or_else(corrupt)? } else { b"" };
        Ok(Some(Entry { name, value, from, value_from, to: self.strings.at() }))
    }

    /// The next one of this name.
    pub fn find(&mut self, name: &[u8]) -> Result<Option<Entry<'a>>, TypeError> {
        let bytes = self.bytes();
        let mut from = self.at();
        while from < bytes.len() {
            let found = string_at(bytes, from).ok_or_else(corrupt)?;
            let value_from = found.end;
            let value =
                if self.pairs { string_at(bytes, value_from).ok_or_else(corrupt)? } else { value_from..value_from };
            let to = value.end;
            if equal(&bytes[found.clone()], name) {
                self.strings.at = to;
                return Ok(Some(Entry { name: &bytes[found], value: &bytes[value], from, value_from, to }));
            }
            from = to;
        }
        self.strings.at = from;
        Ok(None)
    }

    /// The one with this index, counted from here. It must be there.
    pub fn nth(&mut self, index: u64) -> Result<Entry<'a>, TypeError> {
        let bytes = self.bytes();
        let mut at = self.at();
        for _ in 0..index << u32::from(self.pairs) {
            at = string_at(bytes, at).ok_or_else(corrupt)?.end;
        }
        self.strings.at = at;
        self.next()?.ok_or_else(corrupt)
    }

    /// All of them, of which there must be `count`.
    pub fn all(mut self, count: u64) -> Result<Vec<Entry<'a>>, TypeError> {
        let mut all = Vec::with_capacity(usize::from(crate::limits::PACKED_ELEMENTS).min(count as usize));
        while let Some(entry) = self.next()? {
            all.push(entry);
        }
        if all.len() as u64 == count { Ok(all) } else { Err(corrupt()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_lengths_come_back() {
        let lengths = [0usize, 1, 127, 128, 129, 300, 16_383, 16_384, 70_000];
        let strings: Vec<Vec<u8>> = lengths.iter().map(|&len| vec![len as u8; len]).collect();
        let slices: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
        let mut bytes = Vec::new();
        replace(&mut bytes, 0..0, b"raw", &slices);
        assert_eq!(bytes.len(), 3 + strings.iter().map(|string| string_len(string)).sum::<usize>());
        let mut read = Strings::new(&bytes);
        assert_eq!(&read.bytes::<3>().expect("three bytes"), b"raw");
        for string in &strings {
            assert_eq!(read.next().expect("a string"), Some(&string[..]));
        }
        assert_eq!(read.next().expect("the end"), None);
    }

    #[test]
    fn a_part_is_replaced_by_longer_and_shorter_ones() {
        let mut bytes = Vec::new();
        replace(&mut bytes, 0..0, b"", &[b"a", b"bb", b"c"]);
        let middle = Entries::new(&bytes, false).nth(1).expect("it is there");
        let (from, to) = (middle.from, middle.to);
        replace(&mut bytes, from..to, b"", &[b"longer", b"x"]);
        assert_eq!(bytes, b"\x01a\x06longer\x01x\x01c");
        replace(&mut bytes, 2..9, b"", &[]);
        assert_eq!(bytes, b"\x01a\x01x\x01c");
    }

    #[test]
    fn what_is_cut_or_overlong_is_damaged() {
        for bytes in [&b"\x02a"[..], b"\x80", b"\x80\x80\x80\x80\x80\x01a", b"\xff\xff\xff\xff\x7fa", b"\x81\x01a"] {
            assert!(Strings::new(bytes).next().is_err(), "{bytes:?}");
        }
        assert!(Entries::new(b"\x01a", true).next().is_err(), "a field without a value");
        assert!(Entries::new(b"\x01a", false).all(2).is_err());
        assert!(Entries::new(b"\x01a", false).nth(1).is_err());
        assert!(Strings::new(b"\x01").bytes::<8>().is_err());
    }
}
