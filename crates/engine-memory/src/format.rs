//! The file of one commit, byte by byte (all integers little-endian):
//!
//! ```text
//! 8  magic "ardbmem1"
//! 8  number of the commit, as in the file's name
//! 1  1 if the file holds the whole state (earlier files are then of no use), 0 if it builds on the commit before
//! 4  number of ranges; each: 4 length of start, 4 length of end, start, end
//! 8  number of rows;   each: 4 length of key, 1 written (1) or deleted (0), 4 length of value, key, value
//! 8  CRC-64 of everything before
//! ```
//!
//! Rows are in order of their keys. Lengths are claims until the checksum has been verified, and are checked even then.

use std::fmt;
use std::ops::Range;

use ardb_base::crc64::Crc64;
use ardb_engine::{Change, ChangeSource};

const MAGIC: &[u8; 8] = b"ardbmem1";

/// Why bytes are not the file of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Checksum,
    Header,
    Length,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Checksum => "its checksum is wrong",
            Damage::Header => "its header is not that of this commit",
            Damage::Length => "a length in it is wrong",
        })
    }
}

/// A key or a value has 4 GiB or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key or value of 4 GiB or more")
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut crc = Crc64::new();
    crc.update(bytes);
    crc.value()
}

fn length(bytes: &[u8]) -> Result<[u8; 4], TooLong> {
    Ok(u32::try_from(bytes.len()).map_err(|_| TooLong)?.to_le_bytes())
}

/// The file of commit `number`, and how many rows it has. `whole`: it stands for itself.
pub(crate) fn encode(
    number: u64,
    whole: bool,
    ranges: &[Range<Vec<u8>>],
    rows: &mut dyn ChangeSource,
) -> Result<(Vec<u8>, u64), TooLong> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&number.to_le_bytes());
    out.push(u8::from(whole));
    out.extend_from_slice(&u32::try_from(ranges.len()).map_err(|_| TooLong)?.to_le_bytes());
    for range in ranges {
        out.extend_from_slice(&length(&range.start)?);
        out.extend_from_slice(&length(&range.end)?);
        out.extend_from_slice(&range.start);
        out.extend_from_slice(&range.end);
    }
    let count_at = out.len();
    out.extend_from_slice(&[0; 8]);
    let mut count = 0u64;
    while let Some((key, value)) = rows.next_change() {
        out.extend_from_slice(&length(key)?);
        out.push(u8::from(value.is_some()));
        out.extend_from_slice(&length(value.unwrap_or_default())?);
        out.extend_from_slice(key);
        out.extend_from_slice(value.unwrap_or_default());
        count += 1;
    }
    out[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
    let crc = checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok((out, count))
}

/// A file that has been checked; a source of its rows.
pub(crate) struct Decoded<'a> {
    pub(crate) whole: bool,
    pub(crate) ranges: Vec<Range<Vec<u8>>>,
    rows: std::vec::IntoIter<Change<'a>>,
}

impl ChangeSource for Decoded<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        self.rows.next()
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Damage::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<usize, Damage> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Damage::Length)
    }
}

/// Reads what [`encode`] wrote as commit `number`.
pub(crate) fn decode(number: u64, file: &[u8]) -> Result<Decoded<'_>, Damage> {
    let (body, crc) = file.split_last_chunk::<8>().ok_or(Damage::Checksum)?;
    if checksum(body) != u64::from_le_bytes(*crc) {
        return Err(Damage::Checksum);
    }
    let mut reader = Reader(body);
    if reader.array()? != *MAGIC || reader.array()? != number.to_le_bytes() {
        return Err(Damage::Header);
    }
    let [whole] = reader.array()?;
    if whole > 1 {
        return Err(Damage::Header);
    }
    let mut ranges = Vec::new();
    for _ in 0..u32::from_le_bytes(reader.array()?) {
        let (start, end) = (reader.length()?, reader.length()?);
        ranges.push(reader.take(start)?.to_vec()..reader.take(end)?.to_vec());
    }
    let mut rows: Vec<Change<'_>> = Vec::new();
    for _ in 0..u64::from_le_bytes(reader.array()?) {
        let (key, [written], value) = (reader.length()?, reader.array()?, reader.length()?);
        let (key, value) = (reader.take(key)?, reader.take(value)?);
        if rows.last().is_some_and(|last| last.0 >= key) {
            return Err(Damage::Length);
        }
        rows.push((key, (written == 1).then_some(value)));
    }
    if !reader.0.is_empty() {
        return Err(Damage::Length);
    }
    Ok(Decoded { whole: whole == 1, ranges, rows: rows.into_iter() })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(bool);

    impl ChangeSource for One {
        fn next_change(&mut self) -> Option<Change<'_>> {
            (!std::mem::replace(&mut self.0, true)).then_some((b"key", Some(b"value")))
        }
    }

    #[test]
    fn damage_anywhere_is_found() {
        let range = b"a".to_vec()..b"b".to_vec();
        let (file, rows) = encode(7, false, std::slice::from_ref(&range), &mut One(false)).expect("short");
        assert_eq!(rows, 1);
        let mut decoded = decode(7, &file).expect("intact");
        assert!(!decoded.whole);
        assert_eq!(decoded.ranges, [range]);
        assert_eq!(decoded.next_change(), Some((&b"key"[..], Some(&b"value"[..]))));
        assert_eq!(decoded.next_change(), None);
        assert_eq!(decode(8, &file).err(), Some(Damage::Header));
        for cut in 0..file.len() {
            assert!(decode(7, &file[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert_eq!(decode(7, &bad).err(), Some(Damage::Checksum), "changed at {at}");
        }
        // With a right checksum over wrong lengths nothing is allocated or read beyond the file.
        for at in 17..file.len() - 8 {
            let mut bad = file[..file.len() - 8].to_vec();
            bad[at] = 255;
            let crc = checksum(&bad);
            bad.extend_from_slice(&crc.to_le_bytes());
            let _ = decode(7, &bad);
        }
    }
}
