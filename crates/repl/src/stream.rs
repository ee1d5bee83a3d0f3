//! Cutting a master's stream into whole commands, and keeping MULTI to EXEC together.
//!
//! A *unit* is what must be applied in one step: one command, or all from MULTI to EXEC. The splitter buffers bytes until units are whole, gives out
//! the bytes of as many units as are asked for, exactly as they came, together with the arguments of their commands, and forgets them when
//! they are consumed. Stray line ends and inline commands (the PING of Redis 2.6) belong to the unit that follows them, or are one, so every byte of
//! the stream is in exactly one unit and offsets stay exact.
//!
//! Invariants: the bytes given out are never altered; units never overlap and leave no gap; at most `limit` bytes wait for the end of a unit.

use std::ops::Range;

use ardb_resp::request::{Limits, MAX_LINE, Parser, Progress, ProtocolError};
use memchr::memchr;

/// The bytes of a stream that wait for the end of their command or transaction, at most, unless the caller says otherwise.
pub const UNIT_LIMIT: usize = 1 << 30;

/// The stream cannot be understood. The link must be given up: there is no telling where the next command begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Not RESP.
    #[error("the stream is not RESP at offset +{at}: {error}")]
    Protocol {
        /// Bytes since the last unit that was given out.
        at: usize,
        /// What is wrong.
        error: ProtocolError,
    },
    /// A unit that does not end.
    #[error("a command or transaction of more than {limit} bytes in the stream")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// EXEC without MULTI, or MULTI within MULTI.
    #[error("{0} out of place in the stream")]
    Unpaired(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Span {
    /// Its first argument in the list of ranges.
    first: usize,
    /// Arguments; 0 for an empty line.
    count: usize,
    /// The first byte after it.
    end: usize,
    /// Whether a unit ends here.
    closes: bool,
}

/// The splitter of one link.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    buf: Vec<u8>,
    /// Where the command that is coming in begins.
    base: usize,
    parser: Parser,
    /// Its arguments so far, counted from `base`.
    partial: Vec<Range<usize>>,
    /// Arguments of whole commands.
    ranges: Vec<Range<usize>>,
    commands: Vec<Span>,
    in_multi: bool,
    /// Whether there is at least one whole unit.
    ready: bool,
    /// The length from which the unfinished command can go on.
    wanted: usize,
}

/// Whole units, in order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    buf: &'a [u8],
    ranges: &'a [Range<usize>],
    commands: &'a [Span],
}

impl<'a> Batch<'a> {
    /// The bytes, exactly as they came.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        &self.buf[..self.commands.last().map_or(0, |span| span.end)]
    }

    /// The units in its first `bytes` bytes, which must end where a unit does.
    #[must_use]
    pub fn prefix(&self, bytes: usize) -> Batch<'a> {
        let count = self.commands.iter().take_while(|span| span.end <= bytes).count();
        Batch { commands: &self.commands[..count], ..*self }
    }

    /// Calls `visit` with the arguments of each command in order, the offset of its first byte within [`Batch::bytes`], and whether a unit ends
    /// with it, until it fails. Empty lines are passed over.
    ///
    /// # Errors
    /// That of `visit`.
    pub fn each<E>(&self, mut visit: impl FnMut(&[&'a [u8]], usize, bool) -> Result<(), E>) -> Result<(), E> {
        let mut args: Vec<&'a [u8]> = Vec::new();
        let mut start = 0;
        for span in self.commands {
            if span.count > 0 {
                args.clear();
                args.extend(self.ranges[span.first..span.first + span.count].iter().map(|r| &self.buf[r.clone()]));
                visit(&args, start, span.closes)?;
            }
            start = span.end;
        }
        Ok(())
    }
}

impl Splitter {
    /// One that lets at most `limit` bytes wait for the end of their unit.
    #[must_use]
    pub fn new(limit: usize) -> Splitter {
        Splitter {
            limit,
            buf: Vec::new(),
            base: 0,
            parser: Parser::new(),
            partial: Vec::new(),
            ranges: Vec::new(),
            commands: Vec::new(),
            in_multi: false,
            ready: false,
            wanted: 0,
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The stream cannot be understood. Units that were whole before the fault can still be taken.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.buf.extend_from_slice(bytes);
        self.parse()?;
        if !self.ready && self.buf.len() > self.limit {
            return Err(StreamError::TooLong { limit: self.limit });
        }
        Ok(())
    }

    /// Bytes that have come and were not consumed.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buf.len()
    }

    /// The units that are whole now: at least one if there is any, and further ones up to `max` bytes together.
    #[must_use]
    pub fn batch(&self, max: usize) -> Option<Batch<'_>> {
        if !self.ready {
            return None;
        }
        let mut count = 0;
        for (i, span) in self.commands.iter().enumerate() {
            if count > 0 && span.end > max {
                break;
            }
            if span.closes {
                count = i + 1;
            }
        }
        Some(Batch { buf: &self.buf, ranges: &self.ranges, commands: &self.commands[..count] })
    }

    /// Forgets the first `bytes` bytes, which must be those of a batch, or of whole units at its front.
    pub fn consume(&mut self, bytes: usize) {
        let count = self.commands.iter().take_while(|span| span.end <= bytes).count();
        let gone = match self.commands.get(count) {
            Some(next) => next.first,
            None => self.ranges.len(),
        };
        debug_assert_eq!(count.checked_sub(1).map_or(0, |last| self.commands[last].end), bytes, "whole units only");
        self.commands.drain(..count);
        self.ranges.drain(..gone);
        self.buf.drain(..bytes);
        for span in &mut self.commands {
            span.first -= gone;
            span.end -= bytes;
        }
        for range in &mut self.ranges {
            *range = range.start - bytes..range.end - bytes;
        }
        self.base -= bytes;
        self.wanted = self.wanted.saturating_sub(bytes);
        self.ready = self.commands.iter().any(|span| span.closes);
        // One huge unit must not hold its memory for ever.
        if self.buf.len() < self.buf.capacity() / 4 {
            self.buf.shrink_to(1 << 20);
        }
    }

    fn parse(&mut self) -> Result<(), StreamError> {
        // A command may only go on once enough has come; until then it is not looked at again.
        while self.buf.len() >= self.wanted && self.base < self.buf.len() {
            let first = self.ranges.len();
            let length = if self.buf[self.base] == b'*' {
                let limits = Limits { max_bulk: self.limit as u64, authenticated: true };
                // A fresh parser for each command, so its ranges count from the command's first byte.
                match self.parser.parse(&mut self.buf[self.base..], &mut self.partial, limits) {
                    Ok(Progress::Incomplete { wanted }) => {
                        self.wanted = self.base + wanted;
                        return Ok(());
                    }
                    Ok(Progress::Request { .. } | Progress::Empty) => {
                        let base = self.base;
                        self.ranges.extend(self.partial.drain(..).map(|r| r.start + base..r.end + base));
                        self.parser.position()
                    }
                    Err(error) => return Err(StreamError::Protocol { at: self.base, error }),
                }
            } else {
                // The parser would unquote words in place, and the bytes must stay as they are.
                match self.inline()? {
                    Some(length) => length,
                    None => return Ok(()),
                }
            };
            self.base += length;
            self.parser = Parser::new();
            self.wanted = self.base + 1;
            self.finish(first)?;
        }
        Ok(())
    }

    /// A line of words. Gives its length with the line end, once that has come.
    fn inline(&mut self) -> Result<Option<usize>, StreamError> {
        let rest = &self.buf[self.base..];
        let Some(end) = memchr(b'\n', rest) else {
            if rest.len() > MAX_LINE {
                return Err(StreamError::Protocol { at: self.base, error: ProtocolError::InlineTooLong });
            }
            self.wanted = self.buf.len() + 1;
            return Ok(None);
        };
        let mut at = 0;
        while at < end {
            let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | 0);
            match rest[at..end].iter().position(|byte| !space(byte)) {
                None => break,
                Some(blanks) => at += blanks,
            }
            let length = rest[at..end].iter().position(space).unwrap_or(end - at);
            self.ranges.push(self.base + at..self.base + at + length);
            at += length;
        }
        Ok(Some(end + 1))
    }

    /// The command whose arguments begin at `first`, and which ends at `base`, is whole.
    fn finish(&mut self, first: usize) -> Result<(), StreamError> {
        let count = self.ranges.len() - first;
        let name = self.ranges.get(first).map_or(&b""[..], |range| &self.buf[range.clone()]);
        if name.eq_ignore_ascii_case(b"multi") {
            if std::mem::replace(&mut self.in_multi, true) {
                return Err(StreamError::Unpaired("MULTI"));
            }
        } else if name.eq_ignore_ascii_case(b"exec") && !std::mem::replace(&mut self.in_multi, false) {
            return Err(StreamError::Unpaired("EXEC"));
        }
        let closes = !self.in_multi;
        self.ready |= closes;
        self.commands.push(Span { first, count, end: self.base, closes });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    type Unit = (Vec<u8>, Vec<Vec<Vec<u8>>>);

    fn take(splitter: &mut Splitter, max: usize, units: &mut Vec<Unit>) {
        while let Some(batch) = splitter.batch(max) {
            let bytes = batch.bytes().to_vec();
            let mut commands = Vec::new();
            let mut from = 0;
            let mut at = 0;
            let visited = batch.each(|args, start, closes| {
                assert!(start >= at);
                at = start;
                commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                if closes {
                    from = start;
                }
                Ok::<(), ()>(())
            });
            assert_eq!(visited, Ok(()));
            splitter.consume(bytes.len());
            units.push((bytes, commands));
        }
    }

    fn command(words: &[&str]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        out
    }

    fn words(unit: &Unit) -> Vec<String> {
        unit.1
            .iter()
            .map(|args| args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn sample() -> Vec<u8> {
        let mut bytes = b"PING\r\n".to_vec();
        bytes.extend(command(&["SELECT", "0"]));
        bytes.extend(command(&["SET", "a", "x\r\n\"y"]));
        bytes.extend_from_slice(b"\n\r\n");
        bytes.extend(command(&["MULTI"]));
        bytes.extend(command(&["INCR", "n"]));
        bytes.extend_from_slice(b"\n");
        bytes.extend(command(&["INCR", "n"]));
        bytes.extend(command(&["exec"]));
        bytes.extend(command(&["DEL", "a"]));
        bytes
    }

    #[test]
    fn every_cut_gives_the_same_units_and_the_same_bytes() {
        let bytes = sample();
        for cut in 0..=bytes.len() {
            for max in [1, 60, 1 << 20] {
                let mut splitter = Splitter::new(1 << 20);
                let mut units = Vec::new();
                splitter.push(&bytes[..cut]).unwrap();
                take(&mut splitter, max, &mut units);
                splitter.push(&bytes[cut..]).unwrap();
                take(&mut splitter, max, &mut units);
                let joined: Vec<u8> = units.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
                assert_eq!(joined, bytes, "cut at {cut}");
                let all: Vec<String> = units.iter().flat_map(words).collect();
                let expected = ["PING", "SELECT 0", "SET a x\r\n\"y", "MULTI", "INCR n", "INCR n", "exec", "DEL a"];
                assert_eq!(all, expected, "cut at {cut}");
                for unit in &units {
                    let names = words(unit);
                    assert_eq!(
                        names.iter().any(|name| name == "MULTI"),
                        names.iter().any(|name| name == "exec"),
                        "a transaction stays together"
                    );
                }
            }
        }
    }

    #[test]
    fn one_byte_at_a_time() {
        let bytes = sample();
        let mut splitter = Splitter::new(1 << 20);
        let mut units = Vec::new();
        for byte in &bytes {
            splitter.push(std::slice::from_ref(byte)).unwrap();
            take(&mut splitter, 1, &mut units);
        }
        assert_eq!(units.iter().map(|(bytes, _)| bytes.len()).sum::<usize>(), bytes.len());
        assert_eq!(units.iter().filter(|unit| !unit.1.is_empty()).count(), 5);
        assert_eq!(splitter.waiting(), 0);
    }

    #[test]
    fn random_streams_keep_their_bytes() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
        let mut random = Random::new(seed);
        for round in 0..200 {
            let mut bytes = Vec::new();
            let mut count = 0;
            for _ in 0..random.below(30) {
                match random.below(6) {
                    0 => bytes.extend_from_slice(b"\n"),
                    1 => {
                        bytes.extend(command(&["MULTI"]));
                        for _ in 0..random.below(4) {
                            bytes.extend(command(&["SET", "k", &"v".repeat(random.below(300) as usize)]));
                            count += 1;
                        }
                        bytes.extend(command(&["EXEC"]));
                        count += 2;
                    }
                    _ => {
                        bytes.extend(command(&["SET", "k", &"v".repeat(random.below(300) as usize)]));
                        count += 1;
                    }
                }
            }
            let mut splitter = Splitter::new(1 << 20);
            let mut units = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + random.below(200) as usize).min(rest.len()));
                splitter.push(now).unwrap();
                if random.one_in(2) {
                    take(&mut splitter, 1 + random.below(500) as usize, &mut units);
                }
                rest = later;
            }
            take(&mut splitter, 100, &mut units);
            let joined: Vec<u8> = units.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            assert_eq!(joined, bytes, "seed {seed} round {round}");
            assert_eq!(units.iter().map(|unit| unit.1.len()).sum::<usize>(), count, "seed {seed} round {round}");
        }
    }

    #[test]
    fn what_cannot_be_a_stream_is_an_error() {
        let fault = |bytes: &[u8]| {
            let mut splitter = Splitter::new(100);
            splitter.push(bytes).unwrap_err()
        };
        assert_eq!(fault(&command(&["EXEC"])), StreamError::Unpaired("EXEC"));
        assert_eq!(fault(b"MULTI\r\nMULTI\r\n"), StreamError::Unpaired("MULTI"));
        assert!(matches!(fault(b"*1\r\n:1\r\n"), StreamError::Protocol { at: 0, .. }));
        assert!(matches!(fault(b"*1\r\n$200\r\n"), StreamError::Protocol { .. }), "one argument over the limit");
        let mut long = b"MULTI\r\n".to_vec();
        long.extend(command(&["SET", "a", &"b".repeat(90)]));
        assert_eq!(fault(&long), StreamError::TooLong { limit: 100 });
        let mut splitter = Splitter::new(100);
        splitter.push(&command(&["SET", "a", "b"])).unwrap();
        assert!(splitter.push(b"*1\r\n+\r\n").is_err());
        assert!(splitter.batch(1000).is_some(), "what was whole before the fault is still there");
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = Random::new(5);
        for _ in 0..5000 {
            let mut splitter = Splitter::new(64);
            for _ in 0..4 {
                let bytes: Vec<u8> =
                    (0..random.below(20)).map(|_| b"*$13\r\nMULTIexec -"[random.below(17) as usize]).collect();
                if splitter.push(&bytes).is_err() {
                    break;
                }
                if let Some(batch) = splitter.batch(10) {
                    let length = batch.bytes().len();
                    splitter.consume(length);
                }
            }
        }
    }
}
