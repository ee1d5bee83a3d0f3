//! One client's connection on its network thread.
//!
//! Invariants: replies leave in the order of their requests and only after the commit of what they report; a client that waits in a
//! blocking command has no session here (it is parked, see [`crate::blocking`]) and executes nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_commands::Session;
use ardb_resp::{Protocol, Reply};

use super::input::Input;
use super::stream::Stream;
use crate::clients::ClientInfo;
use crate::config::OutputLimit;

/// Unsent bytes from which no further requests of the client are executed, until it reads.
pub const OUTPUT_PAUSE: usize = 32 << 20;
/// Reply buffers larger than this are not kept.
const KEEP: usize = 64 << 10;

/// The connection.
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// How others see it.
    pub info: Arc<ClientInfo>,
    /// The client's state; `None` while it is parked.
    pub session: Option<Session>,
    /// What has been received.
    pub input: Input,
    /// Replies.
    pub out: Reply,
    /// Bytes at the front of `out` that are sent.
    sent: usize,
    /// The socket may have more to read.
    pub readable: bool,
    /// The socket may have the client's end to read behind what has come: it is told once, perhaps together with bytes before it.
    pub end_ahead: bool,
    /// The client sends nothing more.
    pub ended: bool,
    /// Close it once the replies are out.
    pub closing: bool,
    /// It stands in the thread's list of connections with work.
    pub queued: bool,
    /// Its next request needs the writer lock, and its thread is a stand-in.
    pub held: bool,
    /// It had no turn under the writer lock, because others had used it up: the next time it comes before them.
    pub passed_over: bool,
    /// The rows of its next requests have just been looked at, so they do not wait for the disk.
    pub looked_at: bool,
    /// When the wait of a blocked client ends, ms since 1970.
    pub deadline: Option<i64>,
    /// Since when its output is over the soft limit, ms since 1970.
    over_since: Option<i64>,
}

impl Connection {
    /// A fresh one.
    #[must_use]
    pub fn new(stream: Stream, info: Arc<ClientInfo>, session: Session) -> Connection {
        Connection {
            stream,
            info,
            session: Some(session),
            input: Input::default(),
            out: Reply::new(Protocol::Resp2),
            sent: 0,
            readable: true,
            end_ahead: false,
            ended: false,
            closing: false,
            queued: false,
            held: false,
            passed_over: false,
            looked_at: false,
            deadline: None,
            over_since: None,
        }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether its next request may be executed now.
    #[must_use]
    pub fn runnable(&self) -> bool {
        self.session.is_some() && !self.closing && self.input.next().is_some() && self.unsent() < OUTPUT_PAUSE
    }

    /// Whether reading on makes sense.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        const ENOUGH: usize = 64 << 10;
        let busy = self.session.is_none() || self.input.waiting() > 0;
        let enough = busy && self.input.pending_bytes() > ENOUGH;
        self.readable && !self.ended && !self.closing && !enough
    }

    /// Whether another network thread may take it: nobody has its thread's address, and it waits for nothing.
    #[must_use]
    pub fn movable(&self) -> bool {
        self.deadline.is_none()
            && !self.closing
            && self.session.as_ref().is_some_and(|session| !session.in_pubsub() && !session.monitor)
    }

    /// Sends what the socket takes. Gives whether everything is out.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out.bytes()[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shed();
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        let buf = self.out.buffer_mut();
        buf.clear();
        buf.shrink_to(KEEP);
        Ok(true)
    }

    /// Forgets sent bytes when they are the greater part, so that a slow reader's buffer does not grow for ever.
    fn shed(&mut self) {
        if self.sent > KEEP && self.sent > self.out.len() / 2 {
            let sent = std::mem::take(&mut self.sent);
            self.out.buffer_mut().drain(..sent);
        }
    }

    /// Whether the client lets its replies lie for too long, by the limit of its class.
    pub fn over_limit(&mut self, limits: &[OutputLimit; 3], now: i64) -> bool {
        let unsent = self.unsent() as u64;
        // Nearly always it is under the limits of all classes, and which is its own need not be known.
        if limits.iter().all(|limit| [limit.hard, limit.soft].iter().all(|&bytes| bytes == 0 || unsent < bytes)) {
            self.over_since = None;
            return false;
        }
        let limit = limits[(self.info.class() as usize).min(2)];
        if limit.hard > 0 && unsent >= limit.hard {
            return true;
        }
        if limit.soft == 0 || unsent < limit.soft {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        (now - since) / 1000 > i64::try_from(limit.seconds).unwrap_or(i64::MAX)
    }

    /// Shows others what has changed.
    pub fn publish(&self) {
        if let Some(session) = &self.session {
            self.info.publish(session, self.input.pending_bytes(), self.input.free_bytes(), self.unsent());
        }
    }

    /// The unsent replies, for whoever takes the connection over.
    #[must_use]
    pub fn take_unsent(&mut self) -> Vec<u8> {
        let unsent = self.out.bytes()[self.sent..].to_vec();
        self.sent = 0;
        self.out.truncate(0);
        unsent
    }

    /// Whether somebody wants the connection closed.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.info.killed.load(Ordering::Relaxed)
    }
}
