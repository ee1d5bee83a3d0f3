//! Parsing requests in place, over the buffer that a connection reads into.
//!
//! A request is an array of bulk strings, or one line of words (an inline command). The parser leaves the bytes where they are
//! and gives out ranges of the buffer. It can be stopped anywhere: what has arrived of a request is never looked at twice, so a
//! value that comes in a thousand pieces costs no more than one that comes at once.
//!
//! Invariants:
//! - nothing is allocated by what a client claims, only by what it sent;
//! - ranges lie within the buffer as it was at the call that gave them out;
//! - between the calls for one request the buffer may only grow at its end, or lose bytes at its front, of which
//!   [`Parser::rebase`] must be told.

use std::fmt;
use std::ops::Range;

use ardb_base::number::{is_space, parse_i64};
use memchr::memchr;

/// Longest inline command or header line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Most arguments of a client that has yet to authenticate.
const MAX_ARGS_UNAUTHENTICATED: i64 = 10;
/// Longest argument of a client that has yet to authenticate, in bytes.
const MAX_BULK_UNAUTHENTICATED: i64 = 16 * 1024;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument in bytes (`proto-max-bulk-len`).
    pub max_bulk: u64,
    /// Whether the client may do anything; until then it gets little memory.
    pub authenticated: bool,
}

/// Why a connection cannot go on: after such an error there is no telling where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line without an end.
    InlineTooLong,
    /// A quote that is not closed, or not followed by a blank.
    UnbalancedQuotes,
    /// A count line without an end.
    CountTooLong,
    /// No number, or too great a number of arguments.
    InvalidCount,
    /// Too many arguments before authentication.
    UnauthenticatedCount,
    /// A length line without an end.
    LengthTooLong,
    /// Something else than `$` where an argument must begin.
    ExpectedBulk(u8),
    /// No number, a negative one, or one over the limit.
    InvalidLength,
    /// Too long an argument before authentication.
    UnauthenticatedLength,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ProtocolError::InlineTooLong => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::CountTooLong => "too big mbulk count string",
            ProtocolError::InvalidCount => "invalid multibulk length",
            ProtocolError::UnauthenticatedCount => "unauthenticated multibulk length",
            ProtocolError::LengthTooLong => "too big bulk count string",
            ProtocolError::ExpectedBulk(byte) => {
                return write!(f, "Protocol error: expected '$', got '{}'", char::from(*byte));
            }
            ProtocolError::InvalidLength => "invalid bulk length",
            ProtocolError::UnauthenticatedLength => "unauthenticated bulk length",
        };
        write!(f, "Protocol error: {text}")
    }
}

impl std::error::Error for ProtocolError {}

/// How far a call to [`Parser::parse`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A whole request: the last `args` ranges are its arguments, the parser stands after it.
    Request {
        /// How many arguments it has, at least one.
        args: usize,
    },
    /// An empty request (a blank line, `*0`), which has no reply; the parser stands after it.
    Empty,
    /// The buffer ends within a request.
    Incomplete {
        /// How long the buffer must at least become before another call can get further.
        wanted: usize,
    },
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before the first byte of a request.
    #[default]
    Start,
    /// Within an inline command.
    Inline,
    /// Within the line that counts the arguments.
    Count,
    /// Before or within an argument's length line; `left` arguments are to come.
    Length { left: usize },
    /// Before or within an argument.
    Bulk { left: usize, len: usize },
}

/// Where one connection stands in its requests.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    /// First byte not yet understood.
    at: usize,
    /// The line that begins at `at` is known not to end before here.
    scanned: usize,
    /// Arguments of the current request so far.
    args: usize,
}

impl Parser {
    /// A parser at the start of an empty buffer.
    #[must_use]
    pub fn new() -> Parser {
        Parser::default()
    }

    /// The first byte of the buffer that has not been consumed. After a whole request: where the next one begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether a request has been begun and not finished.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !matches!(self.state, State::Start)
    }

    /// Tells that the buffer lost its first `removed` bytes: ranges of the unfinished request, kept in `args`, move with it.
    /// All of them must lie behind what was removed.
    pub fn rebase(&mut self, removed: usize, args: &mut [Range<usize>]) {
        self.at = self.at.saturating_sub(removed);
        self.scanned = self.scanned.saturating_sub(removed);
        for range in args {
            *range = range.start.saturating_sub(removed)..range.end.saturating_sub(removed);
        }
    }

    /// Goes on with the request that begins or goes on in `buf`, adding the ranges of its arguments to `args`. The words of an
    /// inline command are unquoted in place.
    ///
    /// # Errors
    /// The request is malformed or over a limit. The parser must not be used on this connection again.
    pub fn parse(
        &mut self,
        buf: &mut [u8],
        args: &mut Vec<Range<usize>>,
        limits: Limits,
    ) -> Result<Progress, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    if let Some(end) = whole(buf, self.at, args, limits) {
                        (self.at, self.scanned) = (end.at, end.at);
                        self.args = end.args;
                        return Ok(Progress::Request { args: end.args });
                    }
                    let Some(&first) = buf.get(self.at) else {
                        return Ok(Progress::Incomplete { wanted: self.at + 1 });
                    };
                    self.args = 0;
                    self.scanned = self.at;
                    self.state = if first == b'*' { State::Count } else { State::Inline };
                }
                State::Inline => return self.inline(buf, args),
                State::Count => {
                    let Some(end) = self.line(buf, ProtocolError::CountTooLong)? else {
                        return Ok(Progress::Incomplete { wanted: buf.len() + 1 });
                    };
                    let count = parse_i64(&buf[self.at + 1..end])
                        .filter(|&count| count <= i64::from(i32::MAX))
                        .ok_or(ProtocolError::InvalidCount)?;
                    if count > MAX_ARGS_UNAUTHENTICATED && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedCount);
                    }
                    self.next_line(end);
                    if count <= 0 {
                        self.state = State::Start;
                        return Ok(Progress::Empty);
                    }
                    self.state = State::Length { left: count as usize };
                }
                State::Length { left } => {
                    let Some(end) = self.line(buf, ProtocolError::LengthTooLong)? else {
                        return Ok(Progress::Incomplete { wanted: buf.len() + 1 });
                    };
                    if buf[self.at] != b'$' {
                        return Err(ProtocolError::ExpectedBulk(buf[self.at]));
                    }
                    let len = parse_i64(&buf[self.at + 1..end]).ok_or(ProtocolError::InvalidLength)?;
                    if !u64::try_from(len).is_ok_and(|len| len <= limits.max_bulk) {
                        return Err(ProtocolError::InvalidLength);
                    }
                    if len > MAX_BULK_UNAUTHENTICATED && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedLength);
                    }
                    self.next_line(end);
                    self.state = State::Bulk { left, len: len as usize };
                }
                State::Bulk { left, len } => {
                    // The length is an i64 that is not negative, so neither sum can overflow.
                    let end = self.at + len;
                    if buf.len() < end + 2 {
                        return Ok(Progress::Incomplete { wanted: end + 2 });
                    }
                    args.push(self.at..end);
                    self.args += 1;
                    self.next_line(end);
                    if left == 1 {
                        self.state = State::Start;
                        return Ok(Progress::Request { args: self.args });
                    }
                    self.state = State::Length { left: left - 1 };
                }
            }
        }
    }

    /// The place of the CR that ends the line at `self.at`, once the LF (or whatever stands in its place) has come too.
    fn line(&mut self, buf: &[u8], too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        match memchr(b'\r', &buf[self.scanned..]) {
            None => {
                self.scanned = buf.len();
                if buf.len() - self.at > MAX_LINE { Err(too_long) } else { Ok(None) }
            }
            Some(found) => {
                self.scanned += found;
                Ok((self.scanned + 1 < buf.len()).then_some(self.scanned))
            }
        }
    }

    fn next_line(&mut self, end: usize) {
        self.at = end + 2;
        self.scanned = self.at;
    }

    fn inline(&mut self, buf: &mut [u8], args: &mut Vec<Range<usize>>) -> Result<Progress, ProtocolError> {
        let Some(found) = memchr(b'\n', &buf[self.scanned..]) else {
            self.scanned = buf.len();
            if buf.len() - self.at > MAX_LINE {
                return Err(ProtocolError::InlineTooLong);
            }
            return Ok(Progress::Incomplete { wanted: buf.len() + 1 });
        };
        let newline = self.scanned + found;
        let mut end = newline;
        if end > self.at && buf[end - 1] == b'\r' {
            end -= 1;
        }
        let before = args.len();
        let start = self.at;
        if !split_words(&mut buf[start..end], |word| args.push(word.start + start..word.end + start)) {
            return Err(ProtocolError::UnbalancedQuotes);
        }
        self.at = newline + 1;
        self.state = State::Start;
        match args.len() - before {
            0 => Ok(Progress::Empty),
            args => Ok(Progress::Request { args }),
        }
    }
}

/// Splits a line into words as Redis does for inline commands and its configuration file, unquoting each in place and telling
/// `word` its range. `"..."` knows `\n \r \t \b \a \xHH`, `'...'` only `\'`. Returns whether all quotes were closed and followed by a blank.
pub fn split_words(line: &mut [u8], mut word: impl FnMut(Range<usize>)) -> bool {
    // A NUL ends the line, as it does where lines are C strings.
    let len = memchr(0, line).unwrap_or(line.len());
    let line = &mut line[..len];
    // What is written never overtakes what is read: unquoting only shortens.
    let (mut read, mut write) = (0, 0);
    loop {
        while line.get(read).copied().is_some_and(is_space) {
            read += 1;
        }
        if read == line.len() {
            return true;
        }
        let start = write;
        let mut quote = None;
        while let Some(&byte) = line.get(read) {
            let mut put = byte;
            match quote {
                Some(b'"') if byte == b'\\' && read + 1 < line.len() => {
                    let hex = |at: usize| line.get(at).and_then(|&b| char::from(b).to_digit(16));
                    read += 1;
                    put = match (line[read], hex(read + 1), hex(read + 2)) {
                        (b'x', Some(high), Some(low)) => {
                            read += 2;
                            (high * 16 + low) as u8
                        }
                        (b'n', ..) => b'\n',
                        (b'r', ..) => b'\r',
                        (b't', ..) => b'\t',
                        (b'b', ..) => 0x08,
                        (b'a', ..) => 0x07,
                        (other, ..) => other,
                    };
                }
                Some(b'\'') if byte == b'\\' && line.get(read + 1) == Some(&b'\'') => {
                    read += 1;
                    put = b'\'';
                }
                Some(open) if byte == open => {
                    if line.get(read + 1).is_some_and(|&after| !is_space(after)) {
                        return false;
                    }
                    quote = None;
                    read += 1;
                    break;
                }
                Some(_) => {}
                None if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => break,
                None if matches!(byte, b'"' | b'\'') => {
                    quote = Some(byte);
                    read += 1;
                    continue;
                }
                None => {}
            }
            line[write] = put;
            write += 1;
            read += 1;
        }
        if quote.is_some() {
            return false;
        }
        word(start..write);
    }
}

/// Most arguments of a request that [`whole`] understands; what it has looked at in vain is looked at once more.
const FEW_ARGS: usize = 32;

/// The end of a request, and how many arguments it has.
struct End {
    at: usize,
    args: usize,
}

/// Understands a request of few and short arguments that has come as a whole, which nearly all have: no state is kept from piece to piece, and numbers are
/// read as they are looked for. Gives nothing, and adds nothing to `args`, if it is any other request or malformed.
#[inline]
fn whole(buf: &[u8], start: usize, args: &mut Vec<Range<usize>>, limits: Limits) -> Option<End> {
    if buf.get(start) != Some(&b'*') || !limits.authenticated {
        return None;
    }
    let (count, mut at) = short_line(buf, start + 1).filter(|(count, _)| (1..=FEW_ARGS).contains(count))?;
    let before = args.len();
    for _ in 0..count {
        let end = match buf.get(at) {
            Some(b'$') => short_line(buf, at + 1)
                .filter(|(len, from)| *len as u64 <= limits.max_bulk && buf.len() - from >= len + 2),
            _ => None,
        };
        let Some((len, from)) = end else {
            args.truncate(before);
            return None;
        };
        args.push(from..from + len);
        at = from + len + 2;
    }
    Some(End { at, args: count })
}

/// The number of at most five digits, in its only valid form, that a line is from `at` on, and where the next line begins.
#[inline]
fn short_line(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    let digit = |at: usize| buf.get(at).map(|byte| usize::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    let mut number = digit(at)?;
    let mut at = at + 1;
    while let Some(next) = digit(at) {
        if number == 0 || number >= 10_000 {
            return None;
        }
        number = number * 10 + next;
        at += 1;
    }
    (buf.get(at) == Some(&b'\r') && at + 1 < buf.len()).then_some((number, at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    const OPEN: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

    fn all(input: &[u8], limits: Limits) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut buf = input.to_vec();
        let mut parser = Parser::new();
        let mut requests = Vec::new();
        loop {
            let mut args = Vec::new();
            match parser.parse(&mut buf, &mut args, limits)? {
                Progress::Request { args: n } => {
                    assert_eq!(n, args.len());
                    requests.push(args.into_iter().map(|range| buf[range].to_vec()).collect());
                }
                Progress::Empty => requests.push(Vec::new()),
                Progress::Incomplete { wanted } => {
                    assert!(wanted > buf.len());
                    return Ok(requests);
                }
            }
        }
    }

    fn words(line: &str) -> Option<Vec<String>> {
        let mut bytes = line.as_bytes().to_vec();
        let mut ranges = Vec::new();
        split_words(&mut bytes, |range| ranges.push(range))
            .then(|| ranges.into_iter().map(|range| String::from_utf8_lossy(&bytes[range]).into_owned()).collect())
    }

    #[test]
    fn arrays_and_inline_commands() {
        let got = all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n\r\n*0\r\n*-1\r\nset k \"a b\"\n*1\r\n$0\r\n\r\n", OPEN);
        let expected: Vec<Vec<&[u8]>> =
            vec![vec![b"GET", b"k"], vec![b"PING"], vec![], vec![], vec![], vec![b"set", b"k", b"a b"], vec![b""]];
        assert_eq!(got, Ok(expected.iter().map(|r| r.iter().map(|a| a.to_vec()).collect()).collect()));
    }

    #[test]
    fn words_are_unquoted() {
        assert_eq!(words(""), Some(vec![]));
        assert_eq!(words("  a  b\t c "), Some(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(words(r#"set "\x41\n\"q\"" 'it\'s' "" ''"#), {
            Some(vec!["set".into(), "A\n\"q\"".into(), "it's".into(), String::new(), String::new()])
        });
        assert_eq!(words(r#"a"b c"d"#), None);
        assert_eq!(words(r#"a"b c" d"#), Some(vec!["ab c".into(), "d".into()]));
        assert_eq!(words(r#""open"#), None);
        assert_eq!(words("'open"), None);
        assert_eq!(words(r#""a"b"#), None);
        assert_eq!(words(r#""end\"#), None);
        assert_eq!(words(r"a\n"), Some(vec!["a\\n".into()]));
    }

    #[test]
    fn errors_have_the_texts_of_redis() {
        let text = |input: &[u8], limits| all(input, limits).expect_err("malformed").to_string();
        assert_eq!(text(b"*x\r\n", OPEN), "Protocol error: invalid multibulk length");
        assert_eq!(text(b"*3000000000\r\n", OPEN), "Protocol error: invalid multibulk length");
        assert_eq!(text(b"*1\r\nfoo\r\n", OPEN), "Protocol error: expected '$', got 'f'");
        assert_eq!(text(b"*1\r\n$x\r\n", OPEN), "Protocol error: invalid bulk length");
        assert_eq!(text(b"*1\r\n$-1\r\n", OPEN), "Protocol error: invalid bulk length");
        assert_eq!(text(b"*1\r\n$536870913\r\n", OPEN), "Protocol error: invalid bulk length");
        assert_eq!(text(b"a \"b\n", OPEN), "Protocol error: unbalanced quotes in request");
        assert_eq!(text(&[b'a'; 70_000], OPEN), "Protocol error: too big inline request");
        assert_eq!(text(&[b'*'; 70_000], OPEN), "Protocol error: too big mbulk count string");
        let mut long = b"*1\r\n".to_vec();
        long.resize(70_000, b'$');
        assert_eq!(text(&long, OPEN), "Protocol error: too big bulk count string");
        let closed = Limits { authenticated: false, ..OPEN };
        assert_eq!(text(b"*11\r\n", closed), "Protocol error: unauthenticated multibulk length");
        assert_eq!(text(b"*1\r\n$16385\r\n", closed), "Protocol error: unauthenticated bulk length");
        assert!(all(b"*10\r\n$16384\r\n", closed).is_ok());
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_requests() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
        let mut random = Random::new(seed);
        for _ in 0..500 {
            let mut stream = Vec::new();
            let mut expected: Vec<Vec<Vec<u8>>> = Vec::new();
            for _ in 0..random.below(8) {
                let mut request = Vec::new();
                for _ in 0..1 + random.below(4) {
                    let mut arg = vec![0; random.below(40) as usize];
                    random.fill(&mut arg);
                    request.push(arg);
                }
                if random.one_in(3) {
                    for arg in &mut request {
                        arg.iter_mut().for_each(|b| *b = b'a' + *b % 26);
                        stream.extend_from_slice(b"'");
                        stream.extend_from_slice(arg);
                        stream.extend_from_slice(b"' ");
                    }
                    stream.extend_from_slice(b"\r\n");
                } else {
                    stream.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
                    for arg in &request {
                        stream.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                        stream.extend_from_slice(arg);
                        stream.extend_from_slice(b"\r\n");
                    }
                }
                expected.push(request);
            }
            let mut parser = Parser::new();
            let (mut buf, mut args, mut got) = (Vec::new(), Vec::new(), Vec::new());
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
                buf.extend_from_slice(now);
                rest = later;
                while let Progress::Request { .. } = parser.parse(&mut buf, &mut args, OPEN).expect("well-formed") {
                    got.push(args.drain(..).map(|range| buf[range].to_vec()).collect::<Vec<_>>());
                }
                // Drop what is consumed, as a connection does.
                let keep = args.first().map_or(parser.position(), |range| range.start);
                buf.drain(..keep);
                parser.rebase(keep, &mut args);
            }
            assert_eq!(got, expected, "seed {seed}");
        }
    }

    #[test]
    fn what_is_understood_at_once_is_what_is_understood_piece_by_piece() {
        let long = [b"$100000\r\n", &[b'x'; 100_000][..], b"\r\n"].concat();
        let many = [b"*33\r\n", &b"$1\r\na\r\n".repeat(33)[..]].concat();
        let cases: [&[u8]; 10] = [
            b"*1\r\n$4\r\nPING\r\n",
            b"*2\r\n$0\r\n\r\n$10\r\n0123456789\r\n",
            // Whatever follows the CR stands for the LF.
            b"*1\rx$1\ryaxx",
            b"*01\r\n$1\r\na\r\n",
            b"*1\r\n$01\r\na\r\n",
            b"*1\r\n$+1\r\na\r\n",
            b"*1\r\n$99999999999999999999\r\na\r\n",
            b"*1\r\n:1\r\na\r\n",
            &[b"*1\r\n", &long[..]].concat(),
            &many,
        ];
        for bytes in cases {
            let mut args = Vec::new();
            let mut parser = Parser::new();
            let mut end = 0;
            let piecewise = loop {
                end = bytes.len().min(end + if end < 64 { 1 } else { 997 });
                match parser.parse(&mut bytes[..end].to_vec(), &mut args, OPEN) {
                    Ok(Progress::Incomplete { .. }) if end < bytes.len() => {}
                    other => break other.map(|progress| (progress, parser.position())),
                }
            };
            let mut at_once = Vec::new();
            let mut parser = Parser::new();
            let whole = parser.parse(&mut bytes[..end].to_vec(), &mut at_once, OPEN);
            let whole = whole.map(|progress| (progress, parser.position()));
            let start = bytes[..end.min(40)].escape_ascii();
            assert_eq!((whole, at_once), (piecewise, args), "{start}");
        }
    }

    #[test]
    fn noise_never_panics() {
        let mut random = Random::new(9);
        for _ in 0..20_000 {
            let mut buf = vec![0; random.below(40) as usize];
            buf.iter_mut().for_each(|b| *b = b"*$1290\r\n\"'\\xa -\0"[random.below(16) as usize]);
            let _ = all(&buf, OPEN);
        }
    }
}
