//! Writing replies in RESP2 or RESP3 into one growing buffer.
//!
//! A handler says what it means (a map, a double, a null); the writer spells it in the protocol that the client speaks.
//! Where the number of elements is known only at the end, a [`Mark`] keeps the place for the header.

/// The protocol version that a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, the default.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// The place of a header that is written later. Marks are closed in the reverse order of their opening.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Mark(usize);

/// A buffer of replies on their way to one client.
#[derive(Debug, Default)]
pub struct Reply {
    buf: Vec<u8>,
    protocol: Protocol,
}

impl Reply {
    /// An empty buffer.
    #[must_use]
    pub fn new(protocol: Protocol) -> Reply {
        Reply { buf: Vec::new(), protocol }
    }

    /// The protocol of what is written from now on.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether RESP3 is spoken.
    #[must_use]
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// Changes the protocol of what is written from now on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// All bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// The buffer itself, for the socket layer, which drains it.
    pub fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Forgets what was written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// Appends bytes that are replies already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    fn header(&mut self, kind: u8, n: i64) {
        // Nearly all are short, and then the pieces have fixed lengths.
        match n {
            0..10 => self.buf.extend_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']),
            10..100 => {
                self.buf.extend_from_slice(&[kind, b'0' + (n / 10) as u8, b'0' + (n % 10) as u8, b'\r', b'\n']);
            }
            _ => {
                self.buf.push(kind);
                let mut text = itoa::Buffer::new();
                self.buf.extend_from_slice(text.format(n).as_bytes());
                self.buf.extend_from_slice(b"\r\n");
            }
        }
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.buf.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string. It must not contain CR or LF.
    pub fn simple(&mut self, text: &str) {
        self.buf.push(b'+');
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An error: `text` starts with its code (`ERR ...`). CR and LF in it become spaces.
    pub fn error(&mut self, text: &[u8]) {
        self.buf.push(b'-');
        self.buf.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn int(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// A length or count as an integer.
    pub fn size(&mut self, n: u64) {
        self.int(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len() as i64);
        self.buf.extend_from_slice(bytes);
        self.buf.extend_from_slice(b"\r\n");
    }

    /// The header of a bulk string of `len` bytes, which the caller appends with [`Reply::raw`], and then [`Reply::bulk_end`].
    pub fn bulk_start(&mut self, len: u64) {
        self.header(b'$', i64::try_from(len).unwrap_or(i64::MAX));
        // At once, since a long one would be copied each time that the buffer doubles.
        self.buf.reserve(usize::try_from(len).map_or(0, |len| len + 2));
    }

    /// The end of a bulk string that [`Reply::bulk_start`] began.
    pub fn bulk_end(&mut self) {
        self.buf.extend_from_slice(b"\r\n");
    }

    /// A bulk string that spells an integer.
    pub fn bulk_int(&mut self, n: i64) {
        let mut text = itoa::Buffer::new();
        self.bulk(text.format(n).as_bytes());
    }

    /// The null of a missing bulk string (`$-1`, or `_` in RESP3).
    pub fn null(&mut self) {
        self.buf.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The null of a missing array (`*-1`, or `_` in RESP3).
    pub fn null_array(&mut self) {
        self.buf.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The header of an array of `n` elements.
    pub fn array(&mut self, n: usize) {
        self.header(b'*', n as i64);
    }

    /// The header of a set of `n` members (an array in RESP2).
    pub fn set(&mut self, n: usize) {
        self.header(if self.is_resp3() { b'~' } else { b'*' }, n as i64);
    }

    /// The header of a map of `n` pairs (an array of `2n` in RESP2).
    pub fn map(&mut self, n: usize) {
        if self.is_resp3() {
            self.header(b'%', n as i64);
        } else {
            self.header(b'*', 2 * n as i64);
        }
    }

    /// The header of a push message of `n` elements (an array in RESP2).
    pub fn push(&mut self, n: usize) {
        self.header(if self.is_resp3() { b'>' } else { b'*' }, n as i64);
    }

    /// A double, given as its text in Redis's form (a bulk string in RESP2).
    pub fn double_text(&mut self, text: &[u8]) {
        if self.is_resp3() {
            self.buf.push(b',');
            self.buf.extend_from_slice(text);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// A truth value (`#t`/`#f`; 1 or 0 in RESP2).
    pub fn boolean(&mut self, truth: bool) {
        match (self.protocol, truth) {
            (Protocol::Resp3, true) => self.buf.extend_from_slice(b"#t\r\n"),
            (Protocol::Resp3, false) => self.buf.extend_from_slice(b"#f\r\n"),
            (Protocol::Resp2, truth) => self.int(i64::from(truth)),
        }
    }

    /// Text for people with a three-letter format (`txt`, `mkd`); a bulk string in RESP2.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3);
        if self.is_resp3() {
            self.header(b'=', text.len() as i64 + 4);
            self.buf.extend_from_slice(format.as_bytes());
            self.buf.push(b':');
            self.buf.extend_from_slice(text);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// Keeps the place of a header whose count is not known yet.
    pub fn later(&mut self) -> Mark {
        Mark(self.buf.len())
    }

    fn insert_header(&mut self, mark: Mark, kind: u8, n: i64) {
        let tail = self.buf.len();
        self.header(kind, n);
        // The header was written at the end; rotate it to its place.
        let width = self.buf.len() - tail;
        self.buf[mark.0..].rotate_right(width);
    }

    /// Writes the header of an array of `n` elements where `mark` was set.
    pub fn array_at(&mut self, mark: Mark, n: usize) {
        self.insert_header(mark, b'*', n as i64);
    }

    /// Writes the header of a set of `n` members where `mark` was set.
    pub fn set_at(&mut self, mark: Mark, n: usize) {
        let kind = if self.is_resp3() { b'~' } else { b'*' };
        self.insert_header(mark, kind, n as i64);
    }

    /// Writes the header of a map of `n` pairs where `mark` was set.
    pub fn map_at(&mut self, mark: Mark, n: usize) {
        if self.is_resp3() {
            self.insert_header(mark, b'%', n as i64);
        } else {
            self.insert_header(mark, b'*', 2 * n as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_spells_its_own() {
        let mut two = Reply::new(Protocol::Resp2);
        let mut three = Reply::new(Protocol::Resp3);
        for reply in [&mut two, &mut three] {
            reply.map(1);
            reply.bulk(b"k");
            reply.double_text(b"1.5");
            reply.null();
            reply.boolean(true);
        }
        assert_eq!(two.bytes(), b"*2\r\n$1\r\nk\r\n$3\r\n1.5\r\n$-1\r\n:1\r\n");
        assert_eq!(three.bytes(), b"%1\r\n$1\r\nk\r\n,1.5\r\n_\r\n#t\r\n");
    }

    #[test]
    fn headers_can_come_late() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.ok();
        let outer = reply.later();
        reply.int(7);
        let inner = reply.later();
        reply.bulk(b"x");
        reply.array_at(inner, 1);
        reply.array_at(outer, 2);
        assert_eq!(reply.bytes(), b"+OK\r\n*2\r\n:7\r\n*1\r\n$1\r\nx\r\n");
    }

    #[test]
    fn errors_stay_on_one_line() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.error(b"ERR a\r\nb");
        assert_eq!(reply.bytes(), b"-ERR a  b\r\n");
    }
}
