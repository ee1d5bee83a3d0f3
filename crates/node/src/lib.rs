//! Layer 4: what decides about the data of one server, between its store, its commands and the protocols of replication.
//!
//! No socket, no thread, no clock: the server calls these functions from its threads, the simulator from a seeded schedule, so both run the same
//! code wherever data, histories and offsets are concerned.
//!
//! - [`apply`] executes commands that are in a stream already, [`replay`] those of the log after a start;
//! - [`inflow`] commits a master's stream and acknowledges it, [`intake`] receives everything and installs it;
//! - [`rows`] receives everything from another Ardb server, [`transfers`] holds what is sent to one;
//! - [`answer`] decides what a replica that asks gets, [`dump`] takes the snapshot that it may need, [`outflow`] reads the log for it;
//! - [`care`] decides which rows are looked at before the writer lock is taken;
//! - [`role`] keeps the names of the history right when the role changes, [`failover`] hands the role over;
//! - [`expire`] deletes what is due, [`digest`] sums the data up, [`txn`] is the store's transaction as commands see it.
//!
//! Invariants: what is acknowledged is in the log, and synced if each commit is to be; no replica is sent a byte under a name of the history that it
//! does not have; rows and position change in one commit.

pub mod answer;
pub mod apply;
pub mod care;
pub mod digest;
pub mod dump;
pub mod expire;
pub mod failover;
pub mod inflow;
pub mod intake;
pub mod outflow;
pub mod private;
pub mod replay;
pub mod role;
pub mod rows;
pub mod transfers;
pub mod txn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_base::id::UnixMs;
use ardb_commands::effects::Effects;
use ardb_commands::shared::NoMailbox;
use ardb_commands::{Access, Ctx, Host, Origin, Session, Shared};
use ardb_resp::Reply;
use ardb_store::{Store, WriteTxn};

/// The data of one server and what its commands share.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// The data.
    pub store: &'a Store,
    /// What commands share.
    pub shared: &'a Arc<Shared>,
    /// The server, for its own commands.
    pub host: &'a dyn Host,
}

/// How long a thread waits for the writer lock before it looks whether a busy script holds it.
const PATIENCE: Duration = Duration::from_millis(20);

impl<'a> Node<'a> {
    /// Takes the writer lock, unless a script that is over its time holds it.
    #[must_use]
    pub fn write_unless_busy(self) -> Option<WriteTxn<'a>> {
        self.store.write_while(PATIENCE, || !self.shared.gates.busy_script.load(Ordering::Relaxed))
    }

    /// All that a command of `origin` works with, at `now`.
    #[must_use]
    pub fn ctx(
        self,
        rows: Access<'a>,
        out: &'a mut Reply,
        session: &'a mut Session,
        origin: Origin,
        now: UnixMs,
    ) -> Ctx<'a> {
        Ctx {
            rows,
            out,
            session,
            shared: self.shared,
            host: self.host,
            origin,
            now,
            effects: Effects::default(),
            dirty: 0,
            calls: 0,
            depth: 0,
            in_script: false,
            fault: None,
        }
    }
}

/// A session for commands that come from no client.
#[must_use]
pub fn nobody() -> Session {
    let mut session = Session::new(0, Arc::new(NoMailbox));
    session.authenticated = true;
    session.deny_blocking = true;
    session
}
