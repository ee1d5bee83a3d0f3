//! What a connection has received: the bytes, and the requests understood so far.
//!
//! Invariants: the first `filled` bytes of the buffer have come from the socket; ranges point into them; requests stand in the order
//! of arrival and own consecutive ranges, behind which stand those of the request that is still coming in.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;

use ardb_commands::table::{Command, Table};
use ardb_commands::{CmdError, dispatch};
use ardb_resp::request::{Limits, Parser, Progress, ProtocolError};

use super::stream::Stream;

/// What one read asks for at most.
const READ: usize = 64 << 10;
/// Buffers of up to this size are kept for the next use.
const KEEP: usize = 128 << 10;

/// A whole request.
pub struct Request {
    /// Its first range.
    first: usize,
    /// Its arguments.
    count: usize,
    /// Which command it names, or what is wrong with it.
    pub command: Result<&'static Command, CmdError>,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// There may be more.
    More,
    /// Less than was asked for: nothing more for now, unless it is the client's end.
    Drained,
    /// Nothing at all for now, and no end.
    Nothing,
    /// The client will send nothing more.
    End,
}

/// The receiving half of a connection.
#[derive(Default)]
pub struct Input {
    buf: Vec<u8>,
    filled: usize,
    parser: Parser,
    ranges: Vec<Range<usize>>,
    requests: VecDeque<Request>,
    /// The command, or the container of subcommands, that was named last.
    last: Option<&'static Command>,
    /// Ranges of requests that have been executed, at the front of `ranges`.
    done: usize,
    /// The length from which the unfinished request can go on.
    wanted: usize,
    error: Option<ProtocolError>,
}

impl Input {
    /// Reads once. `spare` is a buffer to begin with, if there is one.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self, stream: &mut Stream, spare: &mut Vec<Vec<u8>>) -> io::Result<Received> {
        if self.buf.is_empty() {
            self.buf = spare.pop().unwrap_or_else(|| vec![0; READ]);
        }
        if self.requests.is_empty() {
            self.compact();
        }
        // A long argument is read straight to its place, but memory only ever doubles what has really come.
        let room = READ.min(self.buf.len().max(READ) / 2);
        if self.buf.len() - self.filled < room {
            let target = self.wanted.clamp(self.filled + room, (self.filled * 2).max(self.filled + READ));
            self.buf.resize(target, 0);
        }
        let space = &mut self.buf[self.filled..];
        let asked = space.len();
        loop {
            return match stream.read(space) {
                Ok(0) => Ok(Received::End),
                Ok(n) => {
                    self.filled += n;
                    Ok(if n < asked { Received::Drained } else { Received::More })
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Understands what has come. A malformed request stands at the end as an error, and nothing is understood after it.
    pub fn parse(&mut self, table: &Table, limits: Limits) {
        while self.error.is_none() {
            let first = self.ranges.len() - self.unfinished();
            match self.parser.parse(&mut self.buf[..self.filled], &mut self.ranges, limits) {
                Ok(Progress::Request { args: count }) => {
                    let buf = &self.buf;
                    let last = &mut self.last;
                    let command = with_args(buf, &self.ranges[first..], |args| {
                        // Most requests name the command that the one before has named.
                        let same = last.filter(|last| last.name.as_bytes().eq_ignore_ascii_case(args[0]));
                        match same.or_else(|| table.find(args[0])) {
                            Some(command) => {
                                *last = Some(command);
                                dispatch::resolve_in(command, args)
                            }
                            None => dispatch::resolve(table, args),
                        }
                    });
                    self.requests.push_back(Request { first, count, command });
                }
                Ok(Progress::Empty) => {}
                Ok(Progress::Incomplete { wanted }) => {
                    self.wanted = wanted;
                    return;
                }
                Err(error) => {
                    self.error = Some(error);
                }
            }
        }
    }

    /// Ranges of the request that is still coming in.
    fn unfinished(&self) -> usize {
        let owned = self.requests.back().map_or(self.done, |last| last.first + last.count);
        self.ranges.len() - owned
    }

    /// The next request.
    #[must_use]
    pub fn next(&self) -> Option<&Request> {
        self.requests.front()
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// The requests that wait, with their arguments.
    pub fn each(&self, mut visit: impl FnMut(&Request, &[&[u8]]) -> bool) {
        for request in &self.requests {
            let ranges = &self.ranges[request.first..request.first + request.count];
            if !with_args(&self.buf, ranges, |args| visit(request, args)) {
                return;
            }
        }
    }

    /// Takes the next request and calls `run` with its arguments.
    pub fn take<R>(&mut self, run: impl FnOnce(&Result<&'static Command, CmdError>, &[&[u8]]) -> R) -> Option<R> {
        let request = self.requests.pop_front()?;
        let end = request.first + request.count;
        let result = with_args(&self.buf, &self.ranges[request.first..end], |args| run(&request.command, args));
        self.done = end;
        Some(result)
    }

    /// The error that ended the requests, once those before it are executed.
    #[must_use]
    pub fn error(&self) -> Option<ProtocolError> {
        if self.requests.is_empty() { self.error } else { None }
    }

    /// Bytes held that are not executed yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let start = match self.requests.front() {
            Some(request) => self.ranges.get(request.first).map_or(0, |range| range.start),
            None => self.start_of_unfinished(),
        };
        self.filled - start.min(self.filled)
    }

    /// Bytes of the buffer that are free.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.buf.len() - self.filled
    }

    fn start_of_unfinished(&self) -> usize {
        let first = self.ranges.len() - self.unfinished();
        self.ranges.get(first).map_or(self.parser.position(), |range| range.start)
    }

    /// Drops what has been executed.
    fn compact(&mut self) {
        debug_assert!(self.requests.is_empty());
        let start = self.start_of_unfinished();
        self.ranges.drain(..self.done);
        self.done = 0;
        if start > 0 {
            self.buf.copy_within(start..self.filled, 0);
            self.filled -= start;
            self.parser.rebase(start, &mut self.ranges);
            self.wanted = self.wanted.saturating_sub(start);
        }
    }

    /// Gives the buffer back when everything has been executed, so that an idle connection holds none.
    pub fn release(&mut self, spare: &mut Vec<Vec<u8>>) {
        if !self.requests.is_empty() {
            return;
        }
        self.compact();
        if self.filled == 0 && !self.parser.is_partial() {
            let buf = std::mem::take(&mut self.buf);
            if buf.len() <= KEEP && spare.len() < 64 && !buf.is_empty() {
                spare.push(buf);
            }
            self.ranges.shrink_to(64);
        }
    }

    /// The bytes that belong to no executed request, for whoever takes the connection over.
    #[must_use]
    pub fn into_unread(mut self) -> Vec<u8> {
        let unread = self.pending_bytes();
        self.buf.truncate(self.filled);
        self.buf.split_off(self.filled - unread)
    }
}

/// Calls `run` with the slices of `buf` that `ranges` name. Few arguments cost no allocation, and the fewer they are, the less is prepared for them: this is
/// done several times for each request.
#[inline]
fn with_args<R>(buf: &[u8], ranges: &[Range<usize>], run: impl FnOnce(&[&[u8]]) -> R) -> R {
    let count = ranges.len();
    let (few, some, many, all);
    let args: &[&[u8]] = match count {
        0..=4 => {
            few = slices::<4>(buf, ranges);
            &few[..count]
        }
        5..=12 => {
            some = slices::<12>(buf, ranges);
            &some[..count]
        }
        13..=24 => {
            many = slices::<24>(buf, ranges);
            &many[..count]
        }
        _ => {
            all = ranges.iter().map(|range| &buf[range.clone()]).collect::<Vec<_>>();
            &all
        }
    };
    run(args)
}

/// The slices of `buf` that the first `N` of `ranges` name; empty ones behind the last.
#[inline]
fn slices<'b, const N: usize>(buf: &'b [u8], ranges: &[Range<usize>]) -> [&'b [u8]; N] {
    let mut slices: [&[u8]; N] = [&[]; N];
    for (slice, range) in slices.iter_mut().zip(ranges) {
        *slice = &buf[range.clone()];
    }
    slices
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ardb_base::random::Random;
    use ardb_commands::cmd;
    use mio::net::UnixStream;

    use super::*;

    const LIMITS: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

    #[test]
    fn requests_survive_any_cut_and_buffers_come_back() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
        let mut random = Random::new(seed);
        let table = Table::new(cmd::GROUPS);
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut theirs = Stream::Unix(theirs);
        let (mut input, mut spare) = (Input::default(), Vec::new());
        let (mut sent, mut got): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for round in 0..300 {
            let mut bytes = Vec::new();
            for _ in 0..random.below(5) {
                let most = if random.one_in(20) { 100_000 } else { 50 };
                let mut value = vec![0; random.below(most) as usize];
                random.fill(&mut value);
                bytes.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).as_bytes());
                bytes.extend_from_slice(&value);
                bytes.extend_from_slice(b"\r\n");
                sent.push(value);
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let cut = 1 + random.below(rest.len().min(40_000) as u64) as usize;
                ours.write_all(&rest[..cut]).expect("room in the socket");
                rest = &rest[cut..];
                while input.receive(&mut theirs, &mut spare).expect("a whole socket") == Received::More {
                    input.parse(&table, LIMITS);
                }
                input.parse(&table, LIMITS);
                // Sometimes requests wait, as those of a blocked client do.
                if random.one_in(3) && !rest.is_empty() {
                    continue;
                }
                while let Some(value) = input.take(|command, args| {
                    assert!(command.as_ref().is_ok_and(|command| command.name == "set"), "seed {seed}");
                    args[2].to_vec()
                }) {
                    got.push(value);
                }
            }
            while let Some(value) = input.take(|_, args| args[2].to_vec()) {
                got.push(value);
            }
            assert!(got == sent, "seed {seed}, round {round}");
            assert_eq!(input.pending_bytes(), 0, "seed {seed}, round {round}");
            input.release(&mut spare);
            assert!(input.buf.is_empty(), "an idle connection holds no buffer");
        }
    }

    #[test]
    fn an_error_stands_behind_the_requests_before_it() {
        let table = Table::new(cmd::GROUPS);
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut theirs = Stream::Unix(theirs);
        let mut input = Input::default();
        ours.write_all(b"GET a\r\n*1\r\nx\r\nGET b\r\n").expect("room in the socket");
        assert_eq!(input.receive(&mut theirs, &mut Vec::new()).expect("a whole socket"), Received::Drained);
        input.parse(&table, LIMITS);
        assert_eq!((input.waiting(), input.error()), (1, None));
        assert!(input.take(|_, args| args.len()).is_some());
        assert_eq!(input.error(), Some(ProtocolError::ExpectedBulk(b'x')));
        drop(ours);
        assert_eq!(input.receive(&mut theirs, &mut Vec::new()).expect("an end"), Received::End);
    }
}
