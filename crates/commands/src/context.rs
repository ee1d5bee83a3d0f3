//! What a handler sees: the data, the client, the server, the time, and the reply that it writes.
//!
//! One [`Ctx`] lives for one command of a client together with all that it nests (EXEC's queue, a script's calls): time does not
//! move inside it, and its effects form one transaction in the log.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::id::{KeyspaceId, ObjectId, UnixMs};
use ardb_engine::row::{Patch, Visit, VisitValue};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Value};
use ardb_resp::Reply;
use ardb_types::At;

use crate::effects::Effects;
use crate::error::{self, CmdError};
use crate::session::Session;
use crate::shared::{Events, Shared};

/// A point to which a transaction can go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    /// Length of the store's undo list.
    pub undo: usize,
    /// Bytes of the frame.
    pub payload: usize,
    /// The stream's selected database.
    pub stream_db: Option<u32>,
}

/// What a frame of the log can count, less what is put around several effects.
const PAYLOAD_LIMIT: usize = u32::MAX as usize - 1024;

/// A write transaction with the log frame that belongs to it.
pub trait Transaction: RowsMut {
    /// The bytes of the frame being built: the effects as RESP commands.
    fn payload(&mut self) -> &mut Vec<u8>;
    /// Whether the payload, with what is put around several effects, is not longer than a frame can be.
    fn has_room(&mut self) -> bool {
        self.payload().len() <= PAYLOAD_LIMIT
    }
    /// The database that is selected at the end of the payload; `None` if the next effect must say it.
    fn stream_db(&mut self) -> &mut Option<u32>;
    /// Where the transaction stands.
    fn savepoint(&mut self) -> Savepoint;
    /// Takes back all row changes, and all payload, since then.
    fn rollback_to(&mut self, savepoint: Savepoint);
    /// Forgets this savepoint, which is the last that was made: nothing goes back there. What was overwritten since need not be kept once
    /// no savepoint is left.
    fn release(&mut self, savepoint: Savepoint);
}

/// The data as the command may use them.
pub enum Access<'a> {
    /// One point in time, for commands without [`crate::Flags::WRITE`] and `EXCLUSIVE`.
    Read(&'a dyn Rows),
    /// The one write transaction.
    Write(&'a mut dyn Transaction),
}

impl Access<'_> {
    /// The transaction. Only commands that the table marks as writing call this; the dispatcher gives those one.
    pub fn transaction(&mut self) -> &mut dyn Transaction {
        match self {
            Access::Write(transaction) => *transaction,
            Access::Read(_) => {
                unreachable!("invariant: a command without WRITE or EXCLUSIVE in its flags does not write")
            }
        }
    }

    /// Whether this is the write transaction.
    #[must_use]
    pub fn can_write(&self) -> bool {
        matches!(self, Access::Write(_))
    }
}

impl Rows for Access<'_> {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        match self {
            Access::Read(rows) => rows.get(key),
            Access::Write(rows) => rows.get(key),
        }
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        match self {
            Access::Read(rows) => rows.scan(range, direction, visit),
            Access::Write(rows) => rows.scan(range, direction, visit),
        }
    }

    fn values(&self, range: RowRange<'_>, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        match self {
            Access::Read(rows) => rows.values(range, visit),
            Access::Write(rows) => rows.values(range, visit),
        }
    }

    fn prefetch(&self, key: RowKey<'_>) {
        match self {
            Access::Read(rows) => rows.prefetch(key),
            Access::Write(rows) => rows.prefetch(key),
        }
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        match self {
            Access::Read(rows) => rows.keyspace(db),
            Access::Write(rows) => rows.keyspace(db),
        }
    }

    fn key_count(&self, db: u32) -> u64 {
        match self {
            Access::Read(rows) => rows.key_count(db),
            Access::Write(rows) => rows.key_count(db),
        }
    }

    fn expiry_count(&self, db: u32) -> u64 {
        match self {
            Access::Read(rows) => rows.expiry_count(db),
            Access::Write(rows) => rows.expiry_count(db),
        }
    }
}

impl RowsMut for Access<'_> {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.transaction().put(key, value);
    }
    fn patch(&mut self, key: RowKey<'_>, old: Value, patches: &[Patch<'_>]) {
        self.transaction().patch(key, old, patches);
    }
    fn delete(&mut self, key: RowKey<'_>) {
        self.transaction().delete(key);
    }
    fn new_object(&mut self) -> ObjectId {
        self.transaction().new_object()
    }
    fn discard(&mut self, object: ObjectId) {
        self.transaction().discard(object);
    }
    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        self.transaction().count(db, keys, expiries);
    }
    fn flush(&mut self, db: u32) {
        self.transaction().flush(db);
    }
    fn swap(&mut self, a: u32, b: u32) {
        self.transaction().swap(a, b);
    }
}

/// What has failed here and need not have failed on the server whose stream is executed, though the reply may not tell: a script may have caught it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The data could not be read.
    Engine(EngineError),
    /// A script calls a command that is not known here.
    Unknown(String),
    /// The interpreter of scripts, for want of memory for one.
    Interpreter(String),
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of ours: expired keys are deleted before a write sees them, effects are logged.
    Client,
    /// The master's stream, or the log at start-up: the bytes are in the log already, nothing expires by the clock, nothing is refused.
    Stream,
}

/// What the server does for the commands that live in the server; they get at the server behind it by `as_any`.
pub trait Host: Send + Sync {
    /// The server itself, for its own handlers.
    fn as_any(&self) -> &dyn Any;

    /// A script that had been over its limit has ended.
    fn script_is_over(&self) {}

    /// A command was executed that is no client's own request: one of a stream or of the log, or within EXEC or a script; for the server's statistics.
    fn followed(&self, _command: &'static crate::Command, _failed: bool) {}
}

/// All that a handler works with.
pub struct Ctx<'a> {
    /// The data.
    pub rows: Access<'a>,
    /// The reply being written.
    pub out: &'a mut Reply,
    /// The client.
    pub session: &'a mut Session,
    /// What all clients share.
    pub shared: &'a Arc<Shared>,
    /// The server.
    pub host: &'a dyn Host,
    /// Where the command comes from.
    pub origin: Origin,
    /// Milliseconds since 1970, standing still during the command (and during a whole EXEC or script).
    pub now: UnixMs,
    /// What has been logged, and what is still to be.
    pub effects: Effects,
    /// Changes made so far by the command at hand; 0 at its end means that it is not logged. Handlers add to it.
    pub dirty: u64,
    /// Commands called so far, those that it nests too, for the server's statistics.
    pub calls: u64,
    /// How deep the call is nested: 0 for a client's own command, 1 and more within EXEC or a script.
    pub depth: u32,
    /// Whether a script is calling.
    pub in_script: bool,
    /// The first thing that failed here and need not have failed elsewhere.
    pub fault: Option<Fault>,
}

impl<'a> Ctx<'a> {
    /// Something failed that need not have failed elsewhere.
    pub fn at_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// The place of `key` in the selected database, with the clock that decides what has expired.
    pub fn at<'k>(&self, key: &'k [u8]) -> At<'k> {
        self.at_db(self.session.db, key)
    }

    /// The place of `key` in another database.
    pub fn at_db<'k>(&self, db: u32, key: &'k [u8]) -> At<'k> {
        At::new(&self.rows, db, key, self.visible_now()).within(self.shared.settings.limits())
    }

    /// The time by which keys are hidden as expired. Nothing is, in the master's stream: its DEL tells.
    #[must_use]
    pub fn visible_now(&self) -> UnixMs {
        match self.origin {
            Origin::Client => self.now,
            Origin::Stream => UnixMs::MIN,
        }
    }

    /// The key of the selected database was changed: counts one change, fails WATCHes, and wakes clients that wait for it.
    pub fn modified(&mut self, key: &[u8]) {
        self.modified_db(self.session.db, key);
    }

    /// As [`Ctx::modified`], for a key of another database.
    pub fn modified_db(&mut self, db: u32, key: &[u8]) {
        self.dirty += 1;
        self.shared.key_modified(db, key);
    }

    /// Publishes a keyspace event, if the configuration wants this class of events. `key` is of the selected database.
    pub fn notify(&mut self, class: Events, event: &str, key: &[u8]) {
        self.notify_db(class, event, self.session.db, key);
    }

    /// As [`Ctx::notify`], for a key of another database.
    pub fn notify_db(&mut self, class: Events, event: &str, db: u32, key: &[u8]) {
        self.shared.notify(class, event, db, key);
    }

    /// An error if the reply that began at `start` is longer than a client may get. For replies whose length is not bounded by the data.
    pub fn check_reply(&self, start: usize) -> Result<(), CmdError> {
        let most = self.shared.settings.max_reply.load(Ordering::Relaxed);
        if (self.out.len() - start) as u64 > most { Err(error::REPLY_TOO_LONG) } else { Ok(()) }
    }

    /// Counts a read of `key` of the selected database for INFO, and publishes a miss.
    pub fn looked_up(&self, key: &[u8], found: bool) {
        let stats = &self.shared.stats;
        if found {
            stats.hits.add(1);
        } else {
            stats.misses.add(1);
            self.shared.notify(Events::KEY_MISS, "keymiss", self.session.db, key);
        }
    }

    /// Logs `args` as the effect (one of the effects) of this command in the selected database, in place of the command itself.
    pub fn effect(&mut self, args: &[&[u8]]) {
        self.effect_db(self.session.db, args);
    }

    /// As [`Ctx::effect`], in another database.
    pub fn effect_db(&mut self, db: u32, args: &[&[u8]]) {
        self.effects.explicit = true;
        self.log_effect(db, args);
    }

    /// The command needs no log entry of its own, whatever it changed (its effects stand in those of nested calls, say).
    pub fn no_effect(&mut self) {
        self.effects.explicit = true;
    }

    pub(crate) fn log_effect(&mut self, db: u32, args: &[&[u8]]) {
        // A replica's log is its master's stream and nothing else: what clients write there, if they may, stays out of it.
        if self.origin == Origin::Client && !self.shared.gates.is_replica.load(Ordering::Relaxed) {
            self.effects.append(self.rows.transaction(), db, args);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::testing::Harness;

    #[test]
    fn replies_that_repeat_members_end() {
        let mut server = Harness::new();
        server.run("SADD s a");
        server.run("HSET h f v");
        server.run("ZADD z 1 a");
        let commands = ["SRANDMEMBER s", "HRANDFIELD h", "ZRANDMEMBER z"];
        server.shared.settings.max_reply.store(10_000, Ordering::Relaxed);
        for command in commands {
            assert!(server.run(&format!("{command} -1000")).starts_with("*1000 "));
            for count in ["-9223372036854775807", "-4611686018427387904", "-2000"] {
                let reply = server.run(&format!("{command} {count}"));
                assert!(reply.starts_with("-ERR the reply would be longer"), "{command} {count}: {}", &reply[..60]);
            }
            let reply = server.run(&format!("{command} -9223372036854775808"));
            let range = "value must between -9223372036854775807 and 9223372036854775807";
            assert_eq!(reply, format!("-ERR value is out of range, {range}"));
        }
    }
}
