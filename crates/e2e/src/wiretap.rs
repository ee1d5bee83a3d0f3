//! Words of the replication protocol taken off a byte stream, for peers that are written by hand.
//!
//! Invariant: [`take`] takes one whole command or line, or nothing; the bytes it reports are exactly those of the command.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::Command;
use crate::{Result, error};

/// One command from the front of `bytes` with the number of its bytes: a list of bulks, or a line of words. An empty line
/// is a command of no words.
///
/// # Errors
/// If the bytes are neither.
pub fn take(bytes: &[u8]) -> Result<Option<(Command, usize)>> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first != b'*' {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let words = bytes[..end].split(|byte| byte.is_ascii_whitespace());
        return Ok(Some((words.filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect(), end + 1)));
    }
    let Some((count, mut at)) = header(bytes, 0, b'*')? else { return Ok(None) };
    let mut command = Command::new();
    for _ in 0..count {
        let Some((length, start)) = header(bytes, at, b'$')? else { return Ok(None) };
        let Some(word) = bytes.get(start..start + length) else { return Ok(None) };
        if bytes.len() < start + length + 2 {
            return Ok(None);
        }
        command.push(word.to_vec());
        at = start + length + 2;
    }
    Ok(Some((command, at)))
}

fn header(bytes: &[u8], at: usize, mark: u8) -> Result<Option<(usize, usize)>> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let number =
        rest[..end].strip_prefix(&[mark]).and_then(|text| std::str::from_utf8(text).ok()?.trim_end().parse().ok());
    let number = number.ok_or_else(|| error(format!("no command: {}", rest[..rest.len().min(80)].escape_ascii())))?;
    Ok(Some((number, at + end + 1)))
}

/// The name of a command in capitals.
#[must_use]
pub fn name(command: &Command) -> String {
    command.first().map(|word| String::from_utf8_lossy(word).to_uppercase()).unwrap_or_default()
}

/// A command as one line, for messages and comparisons.
#[must_use]
pub fn line(command: &Command) -> String {
    String::from_utf8_lossy(&command.join(&b' ')).into_owned()
}

/// One side of a connection, with what has come and was not taken yet.
#[derive(Debug)]
pub struct Tap {
    /// The socket.
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Tap {
    /// Around a connection.
    ///
    /// # Errors
    /// If the socket refuses its options.
    pub fn new(stream: TcpStream) -> Result<Tap> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Tap { stream, input: Vec::new() })
    }

    /// Connects to a loopback port.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(port: u16) -> Result<Tap> {
        Tap::new(TcpStream::connect(("127.0.0.1", port))?)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Waits at most 20 ms for more bytes. Gives whether some came.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn fill(&mut self) -> Result<bool> {
        let mut bytes = [0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the other side closed the connection")),
            Ok(count) => {
                self.input.extend_from_slice(&bytes[..count]);
                Ok(true)
            }
            Err(failure) if matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// What has come and was not taken.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.input
    }

    /// Forgets the first bytes of it.
    pub fn forget(&mut self, count: usize) -> Vec<u8> {
        let rest = self.input.split_off(count);
        std::mem::replace(&mut self.input, rest)
    }

    /// The next command with its bytes, if it comes before `limit` is over.
    ///
    /// # Errors
    /// If the connection is lost or the bytes are no command.
    pub fn command(&mut self, limit: Duration) -> Result<Option<(Command, Vec<u8>)>> {
        let start = Instant::now();
        loop {
            if let Some((command, length)) = take(&self.input)? {
                return Ok(Some((command, self.forget(length))));
            }
            if !self.fill()? && start.elapsed() >= limit {
                return Ok(None);
            }
        }
    }

    /// The next line, without its end, if it comes before `limit` is over.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn line(&mut self, limit: Duration) -> Result<Option<String>> {
        let start = Instant::now();
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = self.forget(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_string()));
            }
            if !self.fill()? && start.elapsed() >= limit {
                return Ok(None);
            }
        }
    }
}
