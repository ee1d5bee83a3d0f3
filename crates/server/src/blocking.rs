//! Clients that wait in a blocking command, and serving them when a key changes.
//!
//! A waiting client's session and arguments leave its connection and stand in the [`Parked`] registry. Whoever holds the writer lock and
//! has changed a key takes the clients that wait for it, in the order of their arrival, and executes their commands again, in
//! the same transaction. A client that got its reply goes back to its network thread; one that must wait on goes back here.
//!
//! Invariant: a client is in the registry exactly as long as it waits; whoever removes it there must give it its reply (or drop it).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_commands::shared::Shared;
use ardb_commands::{Access, Block, Command, Keys, Origin, Outcome, Session, TimeoutReply};
use ardb_node::txn::Batch;
use ardb_resp::Reply;
use ardb_types::{At, Kind, keyspace};
use parking_lot::Mutex;

use crate::execute;
use crate::net::mailbox::{Message, Resumed};
use crate::net::worker::forget;
use crate::server::Server;

/// A client that waits.
pub struct Waiting {
    /// Its state.
    pub session: Session,
    /// The row of its command.
    pub command: &'static Command,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// What it waits for.
    pub block: Block,
    /// The database in which it waits.
    pub db: u32,
    /// Its place in the line.
    pub ticket: u64,
    /// Its network thread.
    pub thread: usize,
}

/// All clients that wait.
#[derive(Default)]
pub struct Parked {
    all: Mutex<HashMap<u64, Waiting>>,
}

impl Parked {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.lock().len()
    }

    /// Lets a client wait. Called under the writer lock, so that no change slips in between. One whose connection is gone is forgotten: its thread
    /// first strikes it off the list of clients and then takes it from here, so one of the two sees the other.
    pub fn park(&self, server: &Server, mut waiting: Waiting, ticket: Option<u64>) {
        let id = waiting.session.id;
        let shared = &server.shared;
        waiting.ticket = shared.wait_for(waiting.db, &waiting.block.keys, id, &waiting.session.mailbox, ticket);
        self.all.lock().insert(id, waiting);
        if server.clients.get(id).is_none()
            && let Some(mut waiting) = self.take(shared, id)
        {
            forget(server, &mut waiting.session);
        }
    }

    /// Takes a client out, if it still waits: it is then the caller's to answer.
    pub fn take(&self, shared: &Shared, client: u64) -> Option<Waiting> {
        let waiting = self.all.lock().remove(&client)?;
        shared.stop_waiting(waiting.db, &waiting.block.keys, waiting.ticket);
        Some(waiting)
    }

    /// What a client waits in, if it does.
    fn command(&self, client: u64) -> Option<&'static Command> {
        self.all.lock().get(&client).map(|waiting| waiting.command)
    }

    /// The clients for which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&Waiting) -> bool) -> Vec<u64> {
        self.all.lock().iter().filter(|(_, waiting)| wanted(waiting)).map(|(id, _)| *id).collect()
    }
}

/// How a wait ends without a key having changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As if the time had come.
    Timeout,
    /// CLIENT UNBLOCK ... ERROR.
    Error,
    /// This server has become a replica.
    RoleChanged,
}

/// Ends a client's wait with the reply that goes with `why`. Gives false if it was not waiting.
pub fn release(server: &Server, client: u64, why: Release) -> bool {
    let Some(waiting) = server.parked.take(&server.shared, client) else { return false };
    let mut reply = Reply::new(waiting.session.protocol);
    // A client in WAIT is told how far what it wrote has come, however its wait ends.
    let have = server.replication.waits.leave(server, client);
    match (why, waiting.block.on_timeout) {
        (Release::Timeout, on_timeout) => match (have, on_timeout) {
            (Some(have), _) => have.reply(&mut reply),
            (None, TimeoutReply::NullArray) => reply.null_array(),
            (None, TimeoutReply::Null) => reply.null(),
        },
        (Release::Error, _) => reply.error(b"UNBLOCKED client unblocked via CLIENT UNBLOCK"),
        (Release::RoleChanged, _) => {
            reply
                .error(b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)");
        }
    }
    resume(server, waiting, std::mem::take(reply.buffer_mut()), false);
    true
}

/// Ends a client's wait with this reply. Gives false if it was not waiting.
pub fn answer(server: &Server, client: u64, write: impl FnOnce(&mut Reply)) -> bool {
    let Some(waiting) = server.parked.take(&server.shared, client) else { return false };
    let mut reply = Reply::new(waiting.session.protocol);
    write(&mut reply);
    server.client_resumes(client);
    resume(server, waiting, std::mem::take(reply.buffer_mut()), false);
    true
}

fn resume(server: &Server, waiting: Waiting, reply: Vec<u8>, of_batch: bool) {
    let message = Message::Resume(Box::new(Resumed { session: waiting.session, reply, of_batch }));
    if let Some(thread) = server.threads().get(waiting.thread) {
        thread.post(message);
    }
}

/// Serves the clients that wait for keys changed in this transaction, until no change lets another one go on.
/// The replies leave with [`crate::net::mailbox::release`] after the commit, or as errors with `release_failed`.
pub fn serve_ready(server: &Arc<Server>, batch: &mut Batch<'_, '_>) {
    let now = batch.now();
    loop {
        let ready = server.shared.take_ready();
        if ready.is_empty() {
            return;
        }
        for place in ready {
            // Commands that have found nothing for one client find nothing for the next one either.
            let mut empty_handed: Vec<&'static str> = Vec::new();
            // One at a time from the head of the line: most changes serve one client, however many wait.
            let mut after = None;
            while let Some(waiter) = server.shared.next_waiter(&place, after) {
                after = Some(waiter.ticket);
                // A key that is gone again, or holds something else by now, wakes nobody. Nor does one that cannot be read; the
                // next command that needs it will report that.
                let at = At::new(&*batch, place.0, &place.1, now);
                let Ok(Some(row)) = keyspace::lookup(&*batch, &at) else { break };
                let Some(command) = server.parked.command(waiter.client) else { continue };
                if row.kind() != awaited(command) || empty_handed.contains(&command.name) {
                    continue;
                }
                let Some(mut waiting) = server.parked.take(&server.shared, waiter.client) else { continue };
                let mut reply = Reply::new(waiting.session.protocol);
                let outcome = {
                    let args = narrowed(waiting.command, &waiting.args, &place.1);
                    let run = execute::Run {
                        server,
                        rows: Access::Write(&mut *batch),
                        session: &mut waiting.session,
                        out: &mut reply,
                        origin: Origin::Client,
                        now,
                    };
                    run.again(waiting.command, &args)
                };
                batch.next_command();
                match outcome {
                    Outcome::Done => {
                        server.client_resumes(waiter.client);
                        resume(server, waiting, std::mem::take(reply.buffer_mut()), true);
                    }
                    // It goes on waiting for all its keys until the time of its first try.
                    Outcome::Block(_) => {
                        empty_handed.push(waiting.command.name);
                        let ticket = waiting.ticket;
                        server.parked.park(server, waiting, Some(ticket));
                    }
                }
            }
        }
    }
}

/// The arguments of a command that waits for several keys, with only the one that has changed: as in Redis, the key that changed first
/// serves the client, not the one that it named first.
fn narrowed<'a>(command: &Command, args: &'a [Vec<u8>], key: &'a [u8]) -> Vec<&'a [u8]> {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    match command.keys {
        Keys::Range { first, last: -2, .. } if args.len() > first + 1 => {
            [&args[..first], &[key], &args[args.len() - 1..]].concat()
        }
        Keys::Numkeys { at, dest: 0 } => {
            let mut keys = 0;
            command.keys.each(&args, |_| keys += 1);
            [&args[..at], &[b"1", key], &args[(at + 1 + keys).min(args.len())..]].concat()
        }
        _ => args,
    }
}

/// The type of value that a blocking command waits for.
fn awaited(command: &Command) -> Kind {
    if command.name.starts_with("bz") { Kind::SortedSet } else { Kind::List }
}

/// Marks a client as waiting, or no longer waiting, for CLIENT LIST.
pub fn mark(server: &Server, client: u64, blocked: bool) {
    if let Some(info) = server.clients.get(client) {
        info.blocked.store(blocked, Ordering::Relaxed);
    }
}
