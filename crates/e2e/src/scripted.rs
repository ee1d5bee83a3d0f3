//! A master whose every byte a test decides: it answers the handshake, and leaves the rest to a closure.
//!
//! It is for what no real server can be made to say: dumps of versions that nobody writes any more or yet, broken
//! transfers, answers in odd pieces. [`Scripted::start`] runs the closure for each connection, one after the other.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Command;
use crate::wiretap::{Tap, line, name};
use crate::{Result, error};

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection from a replica.
pub struct Guest {
    /// The connection.
    pub tap: Tap,
    /// What it has said so far, a line a command.
    pub said: Vec<String>,
    stop: Arc<AtomicBool>,
}

impl Guest {
    /// Answers the handshake as `answer` says (`None` for the answer of a newest Redis) until it asks for a sync, and
    /// returns that question.
    ///
    /// # Errors
    /// If it asks for none, or goes away.
    pub fn greet(&mut self, answer: impl Fn(&Command) -> Option<String>) -> Result<Command> {
        loop {
            let Some((command, _)) = self.tap.command(PATIENCE)? else { return Err(error("it says nothing")) };
            self.said.push(line(&command));
            let given = answer(&command);
            match name(&command).as_str() {
                "SYNC" | "PSYNC" if given.is_none() => return Ok(command),
                "PING" => self.tap.send(given.unwrap_or_else(|| "+PONG\r\n".into()))?,
                "REPLCONF" | "AUTH" => self.tap.send(given.unwrap_or_else(|| "+OK\r\n".into()))?,
                other => self.tap.send(given.unwrap_or_else(|| format!("-ERR unknown command '{other}'\r\n")))?,
            }
        }
    }

    /// Sends a full sync: the announcement, the length, the RDB.
    ///
    /// # Errors
    /// If it goes away.
    pub fn full(&mut self, id: &str, offset: u64, rdb: &[u8]) -> Result<()> {
        self.tap.send(format!("+FULLRESYNC {id} {offset}\r\n${}\r\n", rdb.len()))?;
        self.tap.send(rdb)
    }

    /// Keeps the link alive with PINGs until the other side or the test ends it, and gives the offset of its last ACK to
    /// `acknowledged`. Returns what else it said.
    ///
    /// # Errors
    /// None that a test looks at: the link ended.
    pub fn idle(&mut self, mut acknowledged: impl FnMut(u64)) -> Result<()> {
        while !self.stop.load(Ordering::SeqCst) {
            if let Some((command, _)) = self.tap.command(Duration::from_millis(50))? {
                let words = line(&command);
                if let Some(offset) = acknowledged_by(&command) {
                    acknowledged(offset);
                } else if !words.is_empty() {
                    self.said.push(words);
                }
            }
        }
        Ok(())
    }
}

/// The offset in an acknowledgement; what else may stand in it (FACK, how much is durable) does not count.
#[must_use]
pub fn acknowledged_by(command: &Command) -> Option<u64> {
    let words = line(command);
    words.strip_prefix("REPLCONF ACK ")?.split(' ').next()?.parse().ok()
}

/// The master. It ends with this.
pub struct Scripted {
    /// The loopback port it listens on.
    pub port: u16,
    stop: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<Vec<String>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts one. `script` gets each connection and its number, from 0.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub fn start(script: impl Fn(&mut Guest, usize) -> Result<()> + Send + 'static) -> Result<Scripted> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let said = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (stop, said) = (Arc::clone(&stop), Arc::clone(&said));
            move || {
                for (index, stream) in listener.incoming().enumerate() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Some(tap) = stream.ok().and_then(|stream| Tap::new(stream).ok()) else { continue };
                    let mut guest = Guest { tap, said: Vec::new(), stop: Arc::clone(&stop) };
                    if let Err(failure) = script(&mut guest, index) {
                        guest.said.push(format!("(ended: {failure})"));
                    }
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(guest.said);
                }
            }
        });
        Ok(Scripted { port, stop, said, thread: Some(thread) })
    }

    /// What was said on the connections that have ended.
    #[must_use]
    pub fn said(&self) -> Vec<Vec<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An RDB with this header (for instance `REDIS0006`) and these bytes between it and the end.
#[must_use]
pub fn rdb(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.push(0xff);
    let version: u32 = header.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(0);
    if version >= 5 {
        // Zeros say that the writer computed none.
        bytes.extend_from_slice(&[0; 8]);
    }
    bytes
}

/// A string in the short form of an RDB, of at most 63 bytes.
#[must_use]
pub fn rdb_string(text: &str) -> Vec<u8> {
    assert!(text.len() < 64, "the short form holds 63 bytes");
    [&[text.len() as u8], text.as_bytes()].concat()
}
