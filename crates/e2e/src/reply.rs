//! Replies of a server, decoded from RESP2 and RESP3, and their comparison with and without order.
//!
//! Invariant: [`Reply::decode`] takes exactly the bytes of one reply or none; it never guesses over a partial one.

use std::fmt;

use crate::{Result, error};

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// `+OK`
    Status(Vec<u8>),
    /// `-ERR ...`, without the dash
    Error(Vec<u8>),
    /// `:1`
    Int(i64),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1`, and `_` of RESP3
    Nil,
    /// `*-1`
    NilArray,
    /// `*2`
    Array(Vec<Reply>),
    /// `%1`: keys and values in turn
    Map(Vec<Reply>),
    /// `~2`
    Set(Vec<Reply>),
    /// `>2`
    Push(Vec<Reply>),
    /// `,1.5`, as the text that was sent
    Double(Vec<u8>),
    /// `#t`
    Bool(bool),
    /// `(123`
    BigNumber(Vec<u8>),
    /// `=7 txt:abc`, with the format's prefix
    Verbatim(Vec<u8>),
}

/// The line that starts at `at`, without its CRLF, and where the next byte after it is.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..end], at + end + 2))
}

fn number(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| error(format!("not a number in a reply: {:?}", String::from_utf8_lossy(text))))
}

/// Where the reply at the front of some bytes ends, found while they come in without looking at any of them twice: a reply of a
/// million items arrives in hundreds of parts.
#[derive(Debug, Default)]
pub struct Extent {
    /// What lies before is understood.
    at: usize,
    /// Items still to come, those of all levels together; `None` before the first line.
    open: Option<usize>,
}

impl Extent {
    /// The length of the reply; `None` if it is not whole yet. `bytes` are those of the last call with more behind them.
    ///
    /// # Errors
    /// If the bytes are no reply.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        while self.open != Some(0) {
            let Some((head, mut next)) = line(bytes, self.at) else { return Ok(None) };
            let mut open = self.open.unwrap_or(1) - 1;
            match head.split_first() {
                Some((b'$' | b'=', text)) => {
                    if let Ok(length) = usize::try_from(number(text)?) {
                        next = next.saturating_add(length).saturating_add(2);
                    }
                }
                Some((kind @ (b'*' | b'~' | b'>' | b'%'), text)) => {
                    let count = usize::try_from(number(text)?).unwrap_or(0);
                    open = open.saturating_add(count.saturating_mul(if *kind == b'%' { 2 } else { 1 }));
                }
                _ => {}
            }
            if bytes.len() < next {
                return Ok(None);
            }
            (self.at, self.open) = (next, Some(open));
        }
        Ok(Some(self.at))
    }
}

impl Reply {
    /// Takes one reply from the front of `bytes` and says how long it was; `None` if it is not whole yet.
    ///
    /// # Errors
    /// If the bytes are no reply at all.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
        Reply::decode_at(bytes, 0)
    }

    fn decode_at(bytes: &[u8], at: usize) -> Result<Option<(Reply, usize)>> {
        let Some((head, next)) = line(bytes, at) else { return Ok(None) };
        let Some((&kind, text)) = head.split_first() else { return Err(error("an empty line for a reply")) };
        let done = |reply| Ok(Some((reply, next)));
        match kind {
            b'+' => done(Reply::Status(text.to_vec())),
            b'-' => done(Reply::Error(text.to_vec())),
            b':' => done(Reply::Int(number(text)?)),
            b',' => done(Reply::Double(text.to_vec())),
            b'(' => done(Reply::BigNumber(text.to_vec())),
            b'_' => done(Reply::Nil),
            b'#' => done(Reply::Bool(text == b"t")),
            b'$' | b'=' => {
                let Ok(length) = usize::try_from(number(text)?) else { return done(Reply::Nil) };
                let Some(body) = bytes.get(next..next + length) else { return Ok(None) };
                match bytes.get(next + length..next + length + 2) {
                    None => return Ok(None),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(error("a bulk reply that does not end where it says")),
                }
                let body = body.to_vec();
                let reply = if kind == b'$' { Reply::Bulk(body) } else { Reply::Verbatim(body) };
                Ok(Some((reply, next + length + 2)))
            }
            b'*' | b'~' | b'>' | b'%' => {
                let Ok(mut count) = usize::try_from(number(text)?) else { return done(Reply::NilArray) };
                if kind == b'%' {
                    count *= 2;
                }
                let mut items = Vec::with_capacity(count.min(1024));
                let mut next = next;
                for _ in 0..count {
                    let Some((item, after)) = Reply::decode_at(bytes, next)? else { return Ok(None) };
                    items.push(item);
                    next = after;
                }
                let reply = match kind {
                    b'*' => Reply::Array(items),
                    b'~' => Reply::Set(items),
                    b'>' => Reply::Push(items),
                    _ => Reply::Map(items),
                };
                Ok(Some((reply, next)))
            }
            _ => Err(error(format!("not a reply: {:?}", String::from_utf8_lossy(head)))),
        }
    }

    /// The bytes of a bulk, a status or a verbatim text.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bulk(bytes) | Reply::Status(bytes) | Reply::Verbatim(bytes) | Reply::Double(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The same as text, lossily; errors and numbers as they would be printed.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Reply::Error(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Int(number) => number.to_string(),
            other => other.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default(),
        }
    }

    /// The number of an integer reply, or of a text that is one.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            other => std::str::from_utf8(other.bytes()?).ok()?.parse().ok(),
        }
    }

    /// The items of an array, set, map or push.
    #[must_use]
    pub fn items(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Map(items) | Reply::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Whether this is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// Whether this is the status `OK`.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Reply::Status(text) if text == b"OK")
    }

    /// The same reply with the items of its outer array in an order of their own, `group` items staying together (2 for
    /// fields with their values).
    #[must_use]
    pub fn sorted(self, group: usize) -> Reply {
        let sort = |items: Vec<Reply>| -> Vec<Reply> {
            let mut groups: Vec<&[Reply]> = items.chunks(group.max(1)).collect();
            groups.sort();
            groups.concat()
        };
        match self {
            Reply::Array(items) => Reply::Array(sort(items)),
            Reply::Set(items) => Reply::Set(sort(items)),
            Reply::Push(items) => Reply::Push(sort(items)),
            Reply::Map(items) => {
                let mut pairs: Vec<&[Reply]> = items.chunks(2).collect();
                pairs.sort();
                Reply::Map(pairs.concat())
            }
            other => other,
        }
    }
}

/// Prints bytes readably and exactly: printable ASCII as it is, the rest as `\xHH`, and the middle of long ones left out.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, tail) =
            if self.0.len() > 240 { (&self.0[..160], &self.0[self.0.len() - 40..]) } else { (self.0, &[][..]) };
        write!(f, "\"{}", head.escape_ascii())?;
        if !tail.is_empty() {
            write!(f, "\" ...{} bytes... \"{}", self.0.len() - 200, tail.escape_ascii())?;
        }
        write!(f, "\"")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = |name: &str, items: &[Reply]| {
            write!(f, "{name}{}[", items.len())?;
            for (index, item) in items.iter().take(64).enumerate() {
                write!(f, "{}{item}", if index == 0 { "" } else { " " })?;
            }
            write!(f, "{}]", if items.len() > 64 { " ..." } else { "" })
        };
        match self {
            Reply::Array(items) => list("*", items),
            Reply::Map(items) => list("%", items),
            Reply::Set(items) => list("~", items),
            Reply::Push(items) => list(">", items),
            Reply::Status(text) => write!(f, "+{}", text.escape_ascii()),
            Reply::Error(text) => write!(f, "-{}", text.escape_ascii()),
            Reply::Int(number) => write!(f, ":{number}"),
            Reply::Bulk(bytes) => write!(f, "{}", Escaped(bytes)),
            Reply::Nil => write!(f, "(nil)"),
            Reply::NilArray => write!(f, "(nil array)"),
            Reply::Double(text) => write!(f, ",{}", text.escape_ascii()),
            Reply::Bool(value) => write!(f, "#{value}"),
            Reply::BigNumber(text) => write!(f, "({}", text.escape_ascii()),
            Reply::Verbatim(text) => write!(f, "={}", Escaped(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_each_kind_and_waits_for_the_rest_of_a_partial_one() {
        let wire = b"*7\r\n+OK\r\n-ERR x\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n%1\r\n,1.5\r\n#t\r\n".as_slice();
        let mut extent = Extent::default();
        for end in 0..wire.len() {
            assert_eq!(Reply::decode(&wire[..end]).unwrap(), None, "the first {end} bytes are no reply");
            assert_eq!(extent.find(&wire[..end]).unwrap(), None, "it does not end after {end} bytes");
        }
        let more = [wire, b"+OK\r\n"].concat();
        assert_eq!(extent.find(&more).unwrap(), Some(wire.len()));
        assert_eq!(Extent::default().find(&more).unwrap(), Some(wire.len()));
        let (reply, length) = Reply::decode(wire).unwrap().unwrap();
        assert_eq!(length, wire.len());
        assert_eq!(
            reply,
            Reply::Array(vec![
                Reply::Status(b"OK".to_vec()),
                Reply::Error(b"ERR x".to_vec()),
                Reply::Int(-5),
                Reply::Bulk(b"a\r\n".to_vec()[..3].to_vec()),
                Reply::Nil,
                Reply::NilArray,
                Reply::Map(vec![Reply::Double(b"1.5".to_vec()), Reply::Bool(true)]),
            ])
        );
        assert!(Reply::decode(b"?what\r\n").is_err());
    }

    #[test]
    fn sorting_keeps_fields_with_their_values() {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let reply = Reply::Array(vec![bulk("b"), bulk("1"), bulk("a"), bulk("2")]);
        assert_eq!(reply.sorted(2), Reply::Array(vec![bulk("a"), bulk("2"), bulk("b"), bulk("1")]));
    }
}
