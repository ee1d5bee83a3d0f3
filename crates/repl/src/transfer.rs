//! Finding the end of an RDB on the wire: after a length that was announced, or at a mark.
//!
//! Nothing is held here. The caller shows what it has received; it learns how much of that is surely the RDB's, hands that on, and shows the rest
//! again with more behind it.

use memchr::memmem;

/// Bytes of the mark after `$EOF:`.
pub const MARK_BYTES: usize = 40;

/// An RDB on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// So many bytes are still to come.
    Length(u64),
    /// It ends before this mark.
    Mark([u8; MARK_BYTES]),
}

/// What the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// So many bytes at the front are the RDB's.
    pub data: usize,
    /// So many bytes after them are neither RDB nor stream.
    pub skip: usize,
    /// Whether the RDB ends with them.
    pub end: bool,
}

impl Transfer {
    /// The transfer that a line announces: `$<length>` or `$EOF:<mark>`, without line end.
    #[must_use]
    pub fn announced(line: &[u8]) -> Option<Transfer> {
        let text = line.strip_prefix(b"$")?;
        if let Some(mark) = text.strip_prefix(b"EOF:") {
            return Some(Transfer::Mark(mark.get(..MARK_BYTES)?.try_into().ok()?));
        }
        ardb_base::number::parse_u64(text).map(Transfer::Length)
    }

    /// Bytes still to come, if that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self {
            Transfer::Length(left) => Some(*left),
            Transfer::Mark(_) => None,
        }
    }

    /// Judges the bytes at hand. What it says of them is taken as handed on; the rest comes again.
    #[must_use]
    pub fn take(&mut self, input: &[u8]) -> Part {
        match self {
            Transfer::Length(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= data as u64;
                Part { data, skip: 0, end: *left == 0 }
            }
            Transfer::Mark(mark) => match memmem::find(input, &mark[..]) {
                Some(data) => Part { data, skip: MARK_BYTES, end: true },
                None => {
                    // What could be the beginning of the mark waits for more.
                    let most = input.len().min(MARK_BYTES - 1);
                    let held = (1..=most).rev().find(|&n| mark.starts_with(&input[input.len() - n..])).unwrap_or(0);
                    Part { data: input.len() - held, skip: 0, end: false }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8; 40] = b"0123456789abcdef0123456789abcdef01234567";

    fn run(line: &[u8], wire: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let mut transfer = Transfer::announced(line).unwrap();
        let (mut rdb, mut held, mut after, mut ended) = (Vec::new(), Vec::new(), Vec::new(), false);
        let mut from = 0;
        for &to in cuts.iter().chain([&wire.len()]) {
            if ended {
                after.extend_from_slice(&wire[from..to]);
            } else {
                held.extend_from_slice(&wire[from..to]);
                let part = transfer.take(&held);
                rdb.extend_from_slice(&held[..part.data]);
                held.drain(..part.data + part.skip);
                assert!(part.end || held.len() < MARK_BYTES, "little is held");
                if part.end {
                    ended = true;
                    after.append(&mut held);
                }
            }
            from = to;
        }
        assert!(ended);
        (rdb, after)
    }

    #[test]
    fn a_length_at_every_cut() {
        let wire = b"REDIS0006-dataSTREAM";
        for cut in 0..=wire.len() {
            let (rdb, after) = run(b"$14", wire, &[cut]);
            assert_eq!((&rdb[..], &after[..]), (&b"REDIS0006-data"[..], &b"STREAM"[..]));
        }
    }

    #[test]
    fn a_mark_at_every_cut() {
        // The data hold beginnings of the mark.
        let mut wire = b"REDIS00060123456789abcdef0123456789abcdef0123456X0123".to_vec();
        let data = wire.clone();
        wire.extend_from_slice(MARK);
        wire.extend_from_slice(b"STREAM");
        let line = [b"$EOF:", &MARK[..]].concat();
        for one in 0..=wire.len() {
            for two in (one..=wire.len()).step_by(7) {
                let (rdb, after) = run(&line, &wire, &[one, two]);
                assert_eq!(rdb, data, "cut at {one} and {two}");
                assert_eq!(after, b"STREAM");
            }
        }
        let every: Vec<usize> = (0..wire.len()).collect();
        assert_eq!(run(&line, &wire, &every), (data, b"STREAM".to_vec()));
    }

    #[test]
    fn announcements() {
        assert_eq!(Transfer::announced(b"$0"), Some(Transfer::Length(0)));
        for bad in [&b"$"[..], b"$x", b"$-1", b"$EOF:short", b"+FULL", b"", b"$EOF:"] {
            assert_eq!(Transfer::announced(bad), None, "{}", bad.escape_ascii());
        }
    }
}
