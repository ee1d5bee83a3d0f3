//! The links of replication: to our master, and from our replicas. The protocol itself is in `ardb-repl`, without I/O.

use std::fmt::Write as _;

use crate::server::Server;

/// What the server keeps about replication.
#[derive(Default)]
pub struct Replication {}

impl Replication {
    /// The lines of INFO stats that are about replication.
    pub fn stats(&self, out: &mut String) {
        out.push_str("sync_full:0\r\nsync_partial_ok:0\r\nsync_partial_err:0\r\n");
    }

    /// The lines of INFO replication.
    pub fn info(&self, server: &Server, out: &mut String) {
        let (history, log) = (server.store.history(), server.store.log());
        let second = if history.second.is_none() { -1 } else { history.second_until.0 as i64 + 1 };
        let _ = write!(
            out,
            "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:{}\r\n\
             master_replid2:{}\r\nmaster_repl_offset:{}\r\nsecond_repl_offset:{second}\r\nrepl_backlog_active:1\r\n\
             repl_backlog_size:{}\r\nrepl_backlog_first_byte_offset:{}\r\nrepl_backlog_histlen:{}\r\n",
            history.id,
            history.second,
            log.end(),
            server.config.size("repl-backlog-size"),
            log.start(),
            log.end().since(log.start()),
        );
    }
}

/// Starts what the configuration asks for.
pub fn start(_server: &Server) {}

/// Ends all links.
pub fn stop(_server: &Server) {}
