//! Executing what a round of reading has brought, with one commit for all that writes.
//!
//! First every connection runs its requests up to the first one that needs the writer lock; they read at one point in time, no lock taken.
//! Then the rows that the other requests will need are brought into memory, the lock is taken once, and the connections run on, in turn, until
//! they have nothing more or the budget is spent. One commit makes it all visible and durable as `appendfsync` says. Only then
//! do replies leave, and only then do other clients hear of it.
//!
//! If the commit fails, nothing of it has happened, and every reply that depends on it becomes an error ([`super::failed`]). If only its sync does, with
//! `appendfsync always`, it can be seen and may be lost all the same; the process ends then, as Redis does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ardb_base::id::{KeyspaceId, Offset};
use ardb_commands::access::Accesses;
use ardb_commands::{Access, Flags, Origin, Outcome, dispatch};
use ardb_engine::Rows;
use ardb_log::SyncError;
use ardb_node::care::{Care, Foresight, Measured};
use ardb_node::txn::Batch;

use super::connection::Connection;
use super::failed::{self, Replies};
use super::mailbox;
use super::stand_in::Guest;
use super::worker::Worker;
use crate::blocking::{self, Waiting};
use crate::clock;
use crate::execute::Run;
use crate::server::Server;
use crate::tally::Tally;

/// Commands that one thread runs under the lock before the others get their turn.
const COMMANDS: usize = 4096;
/// How long it holds the lock at most, unless one command takes longer.
const HOLD: Duration = Duration::from_millis(5);
/// Bytes of effects that make a batch long enough.
const EFFECTS: usize = 1 << 20;
/// Requests of one connection whose rows are brought into memory before the lock is taken.
const TOUCHED: usize = 256;

impl Connection {
    /// Whether its next request may be executed, and no pause holds it up.
    #[must_use]
    pub fn runnable_now(&self, server: &Server) -> bool {
        self.runnable()
            && match (self.session.as_ref(), self.input.next()) {
                (Some(session), Some(request)) => {
                    request.command.as_ref().map_or(true, |command| !server.pauses(session, command))
                }
                _ => false,
            }
    }

    /// Whether its next request takes the writer lock itself.
    fn shuns_writer(&self) -> bool {
        match (&self.session, self.input.next().map(|request| &request.command)) {
            (Some(session), Some(Ok(command))) => dispatch::shuns_writer(session, command),
            _ => false,
        }
    }

    /// Whether the reply to its next request depends on the data.
    fn depends_on_data(&self) -> bool {
        match (&self.session, self.input.next().map(|request| &request.command)) {
            (Some(session), Some(Ok(command))) => dispatch::depends_on_data(session, command),
            _ => false,
        }
    }

    /// Whether its next request takes the writer lock.
    pub(super) fn needs_writer(&self, server: &Server, view: &dyn Rows) -> bool {
        let (Some(session), Some(Ok(command))) = (&self.session, self.input.next().map(|request| &request.command))
        else {
            return false;
        };
        if dispatch::needs_writer(session, command) {
            return true;
        }
        if !command.flags.has(Flags::READONLY) || view.expiry_count(session.db) == 0 {
            return false;
        }
        let mut needs = false;
        self.input.each(|_, args| {
            needs = dispatch::meets_due_key(view, &server.shared, session, command, args, clock::unix_ms());
            false
        });
        needs
    }

    /// Replies BUSY to its next request, which needs the lock that a script over its time holds.
    fn refuse_as_busy(&mut self, server: &Arc<Server>, rows: &dyn ardb_engine::Rows, now: i64) {
        let Some(client) = self.session.as_mut() else { return };
        let Connection { input, out, info, .. } = self;
        input.take(|_, args| {
            let rows = Access::Read(rows);
            let run = Run { server, rows, session: client, out, origin: Origin::Client, now };
            run.request(info, &Err(ardb_commands::error::BUSY_SCRIPT), args, &mut Tally::new(server));
        });
    }

    /// Runs its next request, at `now` (ms since 1970) for the data. Gives the waiting client if it blocks.
    pub(super) fn step(
        &mut self,
        server: &Arc<Server>,
        rows: Access<'_>,
        now: i64,
        tally: &mut Tally<'_>,
    ) -> Option<Waiting> {
        let Connection { input, out, info, session, closing, .. } = self;
        let client = session.as_mut()?;
        let db = client.db;
        let blocked = input.take(|command, args| {
            // Shortened to the life of the call, which all parts of a `Run` share.
            let rows = match rows {
                Access::Read(rows) => Access::Read(rows),
                Access::Write(transaction) => Access::Write(&mut *transaction),
            };
            let run = Run { server, rows, session: client, out, origin: Origin::Client, now };
            match (run.request(info, command, args, tally), command) {
                (Outcome::Block(block), Ok(command)) => {
                    Some((block, *command, args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>()))
                }
                _ => None,
            }
        });
        *closing |= client.close_after_reply;
        let (block, command, args) = blocked.flatten()?;
        // Only a client that waits takes its state with it: it is large, and commands follow one another quickly.
        let session = session.take()?;
        Some(Waiting { session, command, args, block, db, ticket: 0, thread: info.thread.load(Ordering::Relaxed) })
    }
}

impl Worker {
    /// Executes the requests of these connections.
    ///
    /// # Errors
    /// The poll of a stand-in failed.
    pub(super) fn execute(mut self: Box<Self>, slots: &[usize]) -> io::Result<Box<Self>> {
        self.send_away(slots);
        loop {
            let writers = self.execute_reads(slots);
            if writers.is_empty() || self.standing_in {
                return Ok(self);
            }
            self.touch(&writers);
            let server = self.server.clone();
            let mut foresight = std::mem::take(&mut self.foresight);
            let (worker, ran) = self.aside(&writers, |guests| execute_locked(&server, guests, &mut foresight))?;
            self = worker;
            self.foresight = foresight;
            if ran {
                return Ok(self);
            }
            // The lock is held by a script over its time: the next pass tells them.
        }
    }

    /// Executes what needs no lock. Gives the connections whose next request does.
    fn execute_reads(&mut self, slots: &[usize]) -> Vec<usize> {
        let mut writers = Vec::new();
        let server = &self.server;
        let view = self.reader.begin();
        let (mut asked, mut ran) = (false, false);
        let mut tally = Tally::new(server);
        let (is_large, mut foreseen) = (view.is_large(), 0);
        for (at, &slot) in slots.iter().enumerate() {
            if let Some(connection) = &mut self.connections[slot] {
                connection.held = false;
            }
            loop {
                if is_large && foreseen == 0 {
                    let coming = slots[at..].iter().map(|slot| self.connections[*slot].as_deref());
                    let accesses = &server.shared.accesses;
                    let keyspace = |db| view.keyspace(db);
                    (_, foreseen) = foresee(&mut self.foresight, accesses, Flags::READONLY, coming, keyspace);
                    self.foresight.fetch(|keys| view.prefetch_keys(keys));
                }
                let Some(connection) = &mut self.connections[slot] else { break };
                if connection.killed() || !connection.runnable_now(server) {
                    break;
                }
                if connection.needs_writer(server, &view) {
                    if server.shared.gates.busy_script.load(Ordering::Relaxed) {
                        connection.refuse_as_busy(server, &view, clock::unix_ms());
                        continue;
                    }
                    connection.held = self.standing_in;
                    writers.push(slot);
                    break;
                }
                foreseen = foreseen.saturating_sub(1);
                let changes = connection.shuns_writer();
                // Only commands that take the lock may block.
                // Once the engine is asked at all, each request is timed: among others that are quick a quick look into it would seem slow.
                let (before, measured) =
                    (ardb_store::engine_reads(), self.asks_engine.then(|| Measured::begin(clock::monotonic)));
                let now = tally.time() / 1000;
                let waiting = connection.step(server, Access::Read(&view), now, &mut tally);
                debug_assert!(waiting.is_none(), "a command that may block takes the lock");
                if let Some(measured) = measured {
                    let (looks, slow) = measured.end(self.care.slow_after());
                    self.care.count(looks, slow);
                }
                (asked, ran) = (asked | (ardb_store::engine_reads() != before), true);
                // What follows a command that may have changed the data reads at a later point in time.
                if changes || connection.info.handing_over.load(Ordering::Acquire) {
                    break;
                }
            }
        }
        // A round without requests says nothing.
        self.asks_engine = asked || (self.asks_engine && !ran);
        writers
    }

    /// Brings the rows of the keys that are about to be written into memory.
    ///
    /// Which of them, [`Care`] decides.
    fn touch(&mut self, writers: &[usize]) {
        let view = self.reader.begin();
        let care = &mut self.care;
        for &slot in writers {
            let Some(connection) = &self.connections[slot] else { continue };
            let Some(session) = &connection.session else { continue };
            let mut left = TOUCHED;
            connection.input.each(|request, args| {
                if let Ok(command) = &request.command
                    && command.flags.has(Flags::WRITE)
                {
                    command.keys.each(args, |index| {
                        if care.look() {
                            let slow_after = care.slow_after();
                            let (_, slow) = Care::look_at(&view, session.db, args[index], slow_after, clock::monotonic);
                            care.count(1, slow);
                        }
                    });
                }
                left -= 1;
                left > 0
            });
        }
    }
}

/// Notes the keys of the next requests of these connections, as far as they are of this kind (`READONLY` or `WRITE`), so that the processor can be asked for
/// their rows together: each search for itself would wait for memory several times. Gives how many connections, and how many requests, were looked at.
fn foresee<'c>(
    foresight: &mut Foresight,
    accesses: &Accesses,
    kind: Flags,
    connections: impl Iterator<Item = Option<&'c Connection>>,
    keyspace: impl Fn(u32) -> KeyspaceId,
) -> (usize, usize) {
    let (mut looked_at, mut requests, mut room) = (0, 0, true);
    for connection in connections {
        looked_at += 1;
        let Some((connection, session)) = connection.and_then(|c| Some((c, c.session.as_ref()?))) else { continue };
        connection.input.each(|request, args| {
            requests += 1;
            let Ok(command) = &request.command else { return false };
            if !command.flags.has(kind) {
                return false;
            }
            command.keys.each(args, |index| {
                let key = args[index];
                room &= foresight.note(keyspace(session.db), key, || accesses.prefetch(session.db, key));
            });
            room
        });
        if !room {
            break;
        }
    }
    // None at all would be looked for again with each request.
    (looked_at, requests.max(1))
}

/// Notes the fields and members that the next requests of a connection will write, as long as some of so many requests are `left`.
fn foresee_members(foresight: &mut Foresight, connection: &Connection, rows: &dyn Rows, left: &mut usize) {
    // What waits for EXEC needs no row yet.
    let Some(session) = connection.session.as_ref().filter(|session| session.multi.is_none()) else { return };
    connection.input.each(|request, args| {
        let Ok(command) = &request.command else { return false };
        foresight.note_members(rows, session.db, command, args);
        *left = left.saturating_sub(1);
        command.flags.has(Flags::WRITE) && *left > 0
    });
}

/// Executes the connections' requests in one transaction. Gives false, and has done nothing, if a script that is over its time holds the lock.
fn execute_locked(server: &Arc<Server>, guests: &mut [Guest], foresight: &mut Foresight) -> bool {
    let mut ran: Vec<Replies> = Vec::with_capacity(guests.len());
    let gates = &server.shared.gates;
    mailbox::hold();
    let result = {
        let Some(mut txn) = server.node().write_unless_busy() else {
            mailbox::release();
            return false;
        };
        let mut batch = Batch::new(&mut txn, clock::unix_ms());
        let (started, now) = (Instant::now(), batch.now());
        let mut tally = Tally::new(server);
        let mut commands = 0;
        let (is_large, mut foreseen) = (batch.store().is_large(), 0);
        for at in 0..guests.len() {
            let connection = &guests[at].connection;
            let mut replies = Replies::new(&connection.out, connection.input.waiting().min(COMMANDS - commands));
            while commands < COMMANDS {
                if is_large && foreseen == 0 {
                    let coming = guests[at..].iter().map(|guest| Some(&*guest.connection));
                    let accesses = &server.shared.accesses;
                    let connections;
                    (connections, foreseen) =
                        foresee(foresight, accesses, Flags::WRITE, coming, |db| batch.keyspace(db));
                    foresight.fetch(|keys| batch.store().prefetch_keys(keys));
                    let mut left = foreseen;
                    for guest in &guests[at..at + connections] {
                        foresee_members(foresight, &guest.connection, &batch, &mut left);
                    }
                    foresight.fetch(|members| batch.store().prefetch_members(members));
                    foresight.forget();
                }
                let connection = &mut guests[at].connection;
                if connection.killed() || !connection.runnable_now(server) || connection.shuns_writer() {
                    break;
                }
                foreseen = foreseen.saturating_sub(1);
                let depends = connection.depends_on_data();
                let waiting = connection.step(server, Access::Write(&mut batch), now, &mut tally);
                batch.next_command();
                commands += 1;
                if let Some(waiting) = waiting {
                    connection.deadline = waiting.block.until;
                    connection.info.blocked.store(true, Ordering::Relaxed);
                    server.parked.park(server, waiting, None);
                    replies.parked();
                } else {
                    replies.ran(&connection.out, depends);
                }
                blocking::serve_ready(server, &mut batch);
                batch.next_command();
                if connection.info.handing_over.load(Ordering::Acquire) {
                    break;
                }
                let long = batch.store().frame().payload.len() > EFFECTS;
                if long || (commands.is_multiple_of(16) && started.elapsed() > HOLD) {
                    commands = COMMANDS;
                }
            }
            ran.push(replies);
            if commands >= COMMANDS {
                break;
            }
        }
        // Before others see what it has counted.
        drop(tally);
        server.stats.commits.add(1);
        if gates.abandon_script.load(Ordering::SeqCst) {
            Err("the server ends in the middle of a script".into())
        } else {
            batch.store().commit().map_err(|error| error.to_string())
        }
    };
    let result = result.and_then(|end| sync(server, end).map_err(|error| error.to_string()));
    for Guest { connection, .. } in guests.iter_mut().skip(ran.len()) {
        connection.passed_over = true;
    }
    match result {
        Ok(()) => mailbox::release(),
        Err(why) => {
            log::warn!("Writes are refused: {why}");
            let error = failed::reply(&why);
            for (Guest { connection, .. }, replies) in guests.iter_mut().zip(ran) {
                replies.fail(server, connection, &error);
            }
            mailbox::release_failed(&error);
        }
    }
    true
}

/// With `appendfsync always`, waits until the commit is durable. Does not return if it cannot be made so: it is visible, so everybody would go on with what
/// the disk does not have. Replicas have not got it, and no reply has left.
fn sync(server: &Server, end: Offset) -> Result<(), SyncError> {
    if !server.sync_always() {
        return Ok(());
    }
    let result = server.store.sync_to(end);
    if let Err(error @ SyncError::Failed(_)) = &result {
        log::error!("{error}. With appendfsync 'always' this server cannot go on. Exiting...");
        std::process::exit(1);
    }
    result
}
