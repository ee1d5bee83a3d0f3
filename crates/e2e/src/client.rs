//! A small blocking client with pipelining, for RESP2 and RESP3.
//!
//! It knows no command: arguments go out as they are, replies come back as they are. Every read and write has a
//! timeout, so that a server that hangs fails a test instead of holding it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::reply::{Extent, Reply};
use crate::{Result, error};

/// One command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// Makes a [`Command`] of words split at single spaces. For arguments with spaces, build the vector.
#[must_use]
pub fn words(text: &str) -> Command {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Appends one command in the protocol's form to `out`.
pub fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes from which on a reply's end is looked for before it is taken apart: else a long one would be taken apart again for every part
/// of it that comes.
const LONG: usize = 64 << 10;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn timeouts(&self, timeout: Option<Duration>) -> Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
        }
    }
}

/// A connection to a server.
pub struct Client {
    stream: Stream,
    out: Vec<u8>,
    input: Vec<u8>,
    /// Where in `input` the next reply starts.
    at: usize,
    /// How far it is understood, if it is a long one.
    extent: Extent,
    /// Replies that are on their way.
    pending: usize,
}

impl Client {
    fn over(stream: Stream) -> Result<Client> {
        stream.timeouts(Some(Duration::from_secs(60)))?;
        Ok(Client { stream, out: Vec::new(), input: Vec::new(), at: 0, extent: Extent::default(), pending: 0 })
    }

    /// Connects to a loopback port.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(port: u16) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        Client::over(Stream::Tcp(stream))
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect_unix(path: &Path) -> Result<Client> {
        Client::over(Stream::Unix(UnixStream::connect(path)?))
    }

    /// How long a read or a write may take from now on.
    ///
    /// # Errors
    /// If the socket refuses (a zero duration).
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.stream.timeouts(Some(timeout))
    }

    /// Queues a command; nothing is sent before [`Client::flush`] or a receive.
    pub fn queue<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        encode(args, &mut self.out);
        self.pending += 1;
    }

    /// Queues raw bytes, of which nothing is known but how many replies they will draw.
    pub fn queue_raw(&mut self, bytes: &[u8], replies: usize) {
        self.out.extend_from_slice(bytes);
        self.pending += replies;
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&self.out)?,
            Stream::Unix(stream) => stream.write_all(&self.out)?,
        }
        self.out.clear();
        Ok(())
    }

    /// Replies that were asked for and have not been received.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    fn fill(&mut self) -> Result<usize> {
        if self.at > 0 && (self.at == self.input.len() || self.at > 1 << 20) {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let used = self.input.len();
        // Grows with what is there, so that one reply of many megabytes is not decoded again for every 16 KiB.
        let room = used.clamp(16 << 10, 4 << 20);
        self.input.resize(used + room, 0);
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut self.input[used..]),
            Stream::Unix(stream) => stream.read(&mut self.input[used..]),
        };
        self.input.truncate(used + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(count) => Ok(count),
            Err(failure) if matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(std::io::Error::new(ErrorKind::TimedOut, "no reply in time"))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The next reply (or pushed message).
    ///
    /// # Errors
    /// If the connection is lost, time is up, or the bytes are no reply.
    pub fn receive(&mut self) -> Result<Reply> {
        if !self.out.is_empty() {
            self.flush()?;
        }
        loop {
            let have = &self.input[self.at..];
            let whole = have.len() < LONG || self.extent.find(have)?.is_some();
            if whole && let Some((reply, length)) = Reply::decode(have)? {
                self.at += length;
                self.extent = Extent::default();
                if !matches!(reply, Reply::Push(_)) {
                    self.pending = self.pending.saturating_sub(1);
                }
                return Ok(reply);
            }
            self.fill()?;
        }
    }

    /// Reads raw bytes until the server closes the connection or is silent for the timeout.
    ///
    /// # Errors
    /// If the connection breaks otherwise.
    pub fn receive_raw(&mut self) -> Result<Vec<u8>> {
        self.flush()?;
        loop {
            match self.fill() {
                Ok(_) => {}
                Err(failure)
                    if matches!(
                        failure.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::TimedOut | ErrorKind::ConnectionReset
                    ) =>
                {
                    let bytes = self.input.split_off(self.at);
                    self.input.clear();
                    self.at = 0;
                    self.extent = Extent::default();
                    return Ok(bytes);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply> {
        if self.pending > 0 {
            return Err(error("a call while replies are still on their way"));
        }
        self.queue(args);
        self.receive()
    }

    /// The same, of words split at spaces.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn ask(&mut self, text: &str) -> Result<Reply> {
        self.call(&words(text))
    }

    /// The same for a command that must not fail.
    ///
    /// # Errors
    /// As [`Client::receive`], and if the reply is an error.
    pub fn must(&mut self, text: &str) -> Result<Reply> {
        match self.ask(text)? {
            Reply::Error(message) => Err(error(format!("{text}: {}", String::from_utf8_lossy(&message)))),
            reply => Ok(reply),
        }
    }

    /// Sends commands together and returns their replies in order.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn pipeline(&mut self, commands: &[Command]) -> Result<Vec<Reply>> {
        // In portions, because a server that stops reading while its output is full would wait for us for ever.
        let mut replies = Vec::with_capacity(commands.len());
        for portion in commands.chunks(512) {
            for command in portion {
                self.queue(command);
            }
            for _ in portion {
                replies.push(self.receive()?);
            }
        }
        Ok(replies)
    }

    /// INFO's fields. `section` may be empty.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn info(&mut self, section: &str) -> Result<BTreeMap<String, String>> {
        let reply = if section.is_empty() { self.ask("INFO")? } else { self.call(&["INFO", section])? };
        if reply.is_error() {
            return Err(error(format!("INFO: {reply}")));
        }
        Ok(reply
            .text()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_string(), value.trim_end().to_string()))
            .collect())
    }

    /// One field of INFO as a number; 0 if it is not there.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn info_number(&mut self, section: &str, field: &str) -> Result<i64> {
        Ok(self.info(section)?.get(field).and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}
