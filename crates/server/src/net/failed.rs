//! What clients are told when the commit of a batch fails.
//!
//! Invariants: each request still gets exactly one reply, in order. A reply that depends on the data becomes the error; one that does not
//! (to SELECT, SUBSCRIBE, MULTI, a queued command) stays, since what it says about the connection is so. A client that began to wait in the
//! batch waits no longer: what it had looked at in vain may be there again.

use std::fmt::Display;
use std::sync::atomic::Ordering;

use ardb_resp::{Protocol, Reply};

use super::connection::Connection;
use crate::clients::reply_mode;
use crate::server::Server;

/// The error as a whole reply.
#[must_use]
pub fn reply(why: &dyn Display) -> Vec<u8> {
    let mut reply = Reply::new(Protocol::Resp2);
    reply.error(format!("MISCONF Errors writing to the log: {why}").as_bytes());
    std::mem::take(reply.buffer_mut())
}

/// The replies that one connection got in a batch.
pub struct Replies {
    /// Where they begin in its output.
    start: usize,
    /// Where each ends, and whether it depends on the data.
    ends: Vec<(usize, bool)>,
    /// Its last command waits.
    parked: bool,
}

impl Replies {
    /// None so far, and so many that may come.
    #[must_use]
    pub fn new(out: &Reply, expected: usize) -> Replies {
        Replies { start: out.len(), ends: Vec::with_capacity(expected), parked: false }
    }

    /// A command has written its reply, or none if the client wants none.
    pub fn ran(&mut self, out: &Reply, depends: bool) {
        self.ends.push((out.len(), depends));
    }

    /// A command waits; its client runs no further one in this batch.
    pub fn parked(&mut self) {
        self.parked = true;
    }

    /// The commit has failed: the error stands in for what depended on it.
    pub fn fail(self, server: &Server, connection: &mut Connection, error: &[u8]) {
        substitute(&mut connection.out, self.start, &self.ends, error);
        if !self.parked {
            return;
        }
        let info = &connection.info;
        // If it is not there any more, somebody has answered it: that reply is on its way here.
        if let Some(waiting) = server.parked.take(&server.shared, info.id) {
            server.replication.waits.leave(server, info.id);
            info.blocked.store(false, Ordering::Relaxed);
            if info.reply_mode.load(Ordering::Relaxed) != reply_mode::OFF {
                connection.out.raw(error);
            }
            connection.deadline = None;
            connection.session = Some(waiting.session);
        }
    }
}

/// Puts `error` in the place of those replies behind `start` that depend on the data. Where there was none there is none.
fn substitute(out: &mut Reply, start: usize, ends: &[(usize, bool)], error: &[u8]) {
    let before = out.bytes()[start..].to_vec();
    out.truncate(start);
    let mut from = 0;
    for &(end, depends) in ends {
        let reply = &before[from..end - start];
        from = end - start;
        out.raw(if depends && !reply.is_empty() { error } else { reply });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replies_that_depend_on_the_data_become_errors() {
        let mut out = Reply::new(Protocol::Resp2);
        out.raw(b"+OK\r\n");
        let mut replies = Replies::new(&out, 4);
        for (reply, depends) in [(":1\r\n", true), ("+OK\r\n", false), ("", true), ("*2\r\n:1\r\n:2\r\n", true)] {
            out.raw(reply.as_bytes());
            replies.ran(&out, depends);
        }
        let error = reply(&"no room");
        substitute(&mut out, replies.start, &replies.ends, &error);
        let text = String::from_utf8_lossy(out.bytes()).replace("\r\n", "|");
        let wrong = "-MISCONF Errors writing to the log: no room|";
        assert_eq!(text, format!("+OK|{wrong}+OK|{wrong}"));
    }
}
