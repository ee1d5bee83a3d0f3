//! Requests written straight into a buffer, and values that can be checked when they come back.
//!
//! A value says which key it belongs to and which write it comes from, and its bytes follow from both: the first eight are the key's number
//! mixed with chance, the next eight the write's, then comes a stretch of a pool of random bytes, then filling that compresses.

use std::sync::OnceLock;

use ardb_base::random::Random;

use crate::zipf::mix;
use crate::{Result, error};

/// Bytes of a key that [`key`] writes.
pub const KEY: usize = 12;
/// Bytes at the front of each value.
pub const HEAD: usize = 16;
/// Bytes of the pool; a longer value holds it several times.
const POOL: usize = 4 << 20;

/// Appends a number in decimal.
pub fn digits(mut number: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Begins a command of so many words, its name among them.
pub fn command(out: &mut Vec<u8>, name: &str, words: u64) {
    out.push(b'*');
    digits(words, out);
    out.extend_from_slice(b"\r\n");
    word(out, name.as_bytes());
}

/// Appends one word of a command.
pub fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    digits(bytes.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number as a word of a command.
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.push(b'$');
    digits(u64::from(number.checked_ilog10().unwrap_or(0)) + 1, out);
    out.extend_from_slice(b"\r\n");
    digits(number, out);
    out.extend_from_slice(b"\r\n");
}

/// The key or member of this number: a letter and eleven digits, in whose order they sort.
#[must_use]
pub fn name(letter: u8, mut number: u64) -> [u8; KEY] {
    let mut text = [letter; KEY];
    for digit in text[1..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

/// Appends [`name`] as a word of a command.
pub fn key(out: &mut Vec<u8>, letter: u8, number: u64) {
    out.extend_from_slice(b"$12\r\n");
    out.extend_from_slice(&name(letter, number));
    out.extend_from_slice(b"\r\n");
}

/// How long values are, and what part of them does not compress.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    size: usize,
    random: usize,
}

fn pool() -> &'static [u8] {
    static POOLED: OnceLock<Vec<u8>> = OnceLock::new();
    POOLED.get_or_init(|| {
        let mut bytes = vec![0; POOL];
        Random::new(0x5eed).fill(&mut bytes);
        bytes
    })
}

impl Shape {
    /// Values of so many bytes, at least [`HEAD`], of which so many percent are random.
    #[must_use]
    pub fn new(size: u64, percent: u64) -> Shape {
        let size = (size as usize).max(HEAD);
        Shape { size, random: (size - HEAD) * percent.min(100) as usize / 100 }
    }

    /// Bytes of each value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Appends the value that the `write`th write gives to a key, as a word of a command.
    pub fn word(&self, out: &mut Vec<u8>, key: u64, write: u64) {
        out.push(b'$');
        digits(self.size as u64, out);
        out.extend_from_slice(b"\r\n");
        self.append(out, key, write);
        out.extend_from_slice(b"\r\n");
    }

    fn append(&self, out: &mut Vec<u8>, key: u64, write: u64) {
        let (of_key, of_write) = (mix(key), mix(!write));
        out.extend_from_slice(&of_key.to_le_bytes());
        out.extend_from_slice(&of_write.to_le_bytes());
        for part in self.parts(of_key ^ of_write) {
            out.extend_from_slice(part);
        }
        out.resize(out.len() + self.size - HEAD - self.random, b'.');
    }

    /// The random bytes, as stretches of the pool.
    fn parts(&self, seed: u64) -> impl Iterator<Item = &'static [u8]> + use<> {
        let (mut left, mut at) = (self.random, (mix(seed) % POOL as u64) as usize);
        std::iter::from_fn(move || {
            let take = left.min(POOL - at);
            let part = &pool()[at..at + take];
            (left, at) = (left - take, 0);
            (take > 0).then_some(part)
        })
    }

    /// Judges the value of a key.
    ///
    /// # Errors
    /// If no write can have made it.
    pub fn check(&self, value: &[u8], key: u64) -> Result<()> {
        let good = value.len() == self.size && {
            let of_key = mix(key).to_le_bytes();
            let of_write = u64::from_le_bytes(value[8..HEAD].try_into().unwrap_or_default());
            let mut rest = &value[HEAD..];
            let body = self.parts(mix(key) ^ of_write).all(|part| {
                let (mine, others) = rest.split_at(part.len());
                rest = others;
                mine == part
            });
            value[..8] == of_key && body && rest.iter().all(|byte| *byte == b'.')
        };
        let shown = || value[..value.len().min(32)].escape_ascii().to_string();
        if good {
            Ok(())
        } else {
            Err(error(format!("key {key} has a wrong value of {} bytes: {}", value.len(), shown())))
        }
    }

    /// Whether it is the value that this write gave.
    #[must_use]
    pub fn is_of(&self, value: &[u8], key: u64, write: u64) -> bool {
        self.check(value, key).is_ok() && value[8..HEAD] == mix(!write).to_le_bytes()
    }
}

/// The bytes of a bulk reply.
///
/// # Errors
/// If it is none, or says that there is nothing.
pub fn bulk(reply: &[u8]) -> Result<&[u8]> {
    let wrong = || error(format!("not a value: {}", reply[..reply.len().min(60)].escape_ascii()));
    let end = reply.iter().position(|byte| *byte == b'\r').ok_or_else(wrong)?;
    if reply[0] == b'$' && reply[1] != b'-' { Ok(&reply[end + 2..reply.len() - 2]) } else { Err(wrong()) }
}

/// The number of an integer reply.
///
/// # Errors
/// If it is none.
pub fn integer(reply: &[u8]) -> Result<u64> {
    let text = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let number = text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    number.ok_or_else(|| error(format!("not a number: {}", reply[..reply.len().min(60)].escape_ascii())))
}

/// The items of an array of bulks.
///
/// # Errors
/// If it is none, or is not of so many.
pub fn items(reply: &[u8], count: usize) -> Result<impl Iterator<Item = &[u8]>> {
    let wrong = || error(format!("not {count} items: {}", reply[..reply.len().min(60)].escape_ascii()));
    let end = reply.iter().position(|byte| *byte == b'\r').ok_or_else(wrong)?;
    let mut head = Vec::with_capacity(12);
    head.push(b'*');
    digits(count as u64, &mut head);
    if reply[..end] != head[..] {
        return Err(wrong());
    }
    let mut rest = &reply[end + 2..];
    Ok(std::iter::from_fn(move || {
        let end = rest.iter().position(|byte| *byte == b'\r')?;
        let length = rest[1..end].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        let item = rest.get(end + 2..end + 2 + length)?;
        rest = &rest[end + length + 4..];
        Some(item)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_write() {
        for (size, percent) in [(16, 0), (100, 100), (1000, 50), (9_000_000, 100)] {
            let shape = Shape::new(size, percent);
            let mut out = Vec::new();
            shape.word(&mut out, 7, 3);
            let value = bulk(&out).unwrap();
            assert_eq!(value.len(), size as usize);
            shape.check(value, 7).unwrap();
            assert!(shape.is_of(value, 7, 3) && !shape.is_of(value, 7, 4));
            assert!(shape.check(value, 8).is_err());
            let mut damaged = value.to_vec();
            damaged[size as usize - 1] ^= 1;
            assert!(shape.check(&damaged, 7).is_err() || size == 16, "the last byte counts");
        }
    }

    #[test]
    fn requests_and_replies_are_in_the_protocols_form() {
        let mut out = Vec::new();
        command(&mut out, "LRANGE", 4);
        key(&mut out, b'l', 42);
        number(&mut out, 0);
        number(&mut out, 1234);
        assert_eq!(out, b"*4\r\n$6\r\nLRANGE\r\n$12\r\nl00000000042\r\n$1\r\n0\r\n$4\r\n1234\r\n");
        let found: Vec<&[u8]> = items(b"*2\r\n$1\r\na\r\n$0\r\n\r\n", 2).unwrap().collect();
        assert_eq!(found, [b"a".as_slice(), b""]);
        assert!(items(b"*1\r\n$1\r\na\r\n", 2).is_err());
        assert_eq!(integer(b":12\r\n").unwrap(), 12);
        assert!(integer(b"+OK\r\n").is_err() && bulk(b"$-1\r\n").is_err());
    }
}
