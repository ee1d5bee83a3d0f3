//! What a process does by itself and for clients: periodic work, bursts of requests, replies, WAIT.

use std::sync::atomic::Ordering;

use ardb_commands::shared::NoMailbox;
use ardb_commands::{Access, Origin, Session, dispatch};
use ardb_node::txn::Batch;
use ardb_node::{Node, expire, role};
use ardb_repl::master;
use ardb_store::Fsync;

use crate::client::{self, Confirmed, Reply, Request, What};
use crate::event::Event;
use crate::process::{NoHost, Wait};
use crate::truth::{Write, fold};
use crate::{Violation, World};

/// Between two rounds of periodic work, ms.
const TICK: u64 = 100;
/// How long a client waits for an answer, ms.
const PATIENCE: u64 = 4000;

/// The unique parts of what a request writes.
pub fn tokens(commands: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    commands.iter().flat_map(|args| args.iter().filter_map(|arg| token(arg))).collect()
}

/// The token at the front of an argument.
pub fn token(arg: &[u8]) -> Option<Vec<u8>> {
    let end = arg.iter().position(|byte| *byte == b'>')?;
    arg.starts_with(b"<").then(|| arg[..=end].to_vec())
}

impl World<'_> {
    /// Periodic work: what the server's threads do by the clock.
    pub fn tick(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.now;
        let incarnation = self.machines[node].incarnation;
        let at = now + TICK / 2 + self.random.below(TICK);
        self.queue.at(at, Event::Tick { node, incarnation });
        let unix = self.machines[node].unix();
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        // A failure is reported and tried again.
        let _ = process.store.tick();
        if process.store.wants_checkpoint() && process.store.checkpoint().is_ok() {
            self.counts.checkpoints += 1;
        }
        process.transfers.tick(&process.store, self.settings.transfers, now + 1);
        let store = process.store.clone();
        let parts = Node { store: &store, shared: &process.shared, host: &NoHost };
        // While writes wait nothing else enters the log either.
        let rests = process.failover.running();
        if !rests && expire::may_be_due(parts, unix) {
            let announced = store.write().announce_scan_of_expiries();
            if let Ok(scan) = expire::due(parts, announced, &process.reader.begin(), unix, 64) {
                let mut txn = store.write();
                let mut batch = Batch::new(&mut txn, unix);
                let gone = expire::delete(parts, &mut batch, &scan.due);
                if batch.store().commit().is_ok() {
                    expire::note(&mut txn, scan, gone);
                }
            }
        }
        if now - process.pinged >= self.settings.ping && !rests {
            process.pinged = now;
            if process
                .feeds
                .values()
                .any(|feed| feed.peer.as_ref().is_some_and(|p| p.state() != master::State::WaitDump))
            {
                let _ = role::say(parts, master::PING);
            }
        }
        self.note_log(node)?;
        self.link_tick(node)?;
        self.pump(node)?;
        self.look_at_waits(node);
        if self.random.one_in(300) {
            self.check_data(node)?;
        }
        Ok(())
    }

    /// Executes what clients have sent, as one commit.
    pub fn burst(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.now;
        let unix = self.machines[node].unix();
        let always = self.settings.fsync[node] == Fsync::Always;
        let (name, hash) = (self.machines[node].name, self.machines[node].content.hash);
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        process.burst_is_due = false;
        if process.paused {
            // They are looked at again when it is over.
            return Ok(());
        }
        let requests = std::mem::take(&mut process.requests);
        let (store, shared) = (process.store.clone(), process.shared.clone());
        let parts = Node { store: &store, shared: &shared, host: &NoHost };
        let feeds = !process.feeds.is_empty();
        let mut out = ardb_resp::Reply::new(ardb_resp::Protocol::Resp2);
        // What each request put into the frame, and where.
        let mut done: Vec<(Request, std::ops::Range<usize>, Vec<u8>)> = Vec::new();
        let (start, committed, payload) = {
            let mut txn = store.write();
            let start = txn.offset().0;
            let mut batch = Batch::new(&mut txn, unix);
            for request in requests {
                let from = batch.store().frame().payload.len();
                out.truncate(0);
                match &request.what {
                    What::Commands(commands) => {
                        let mut session = Session::new(request.number, std::sync::Arc::new(NoMailbox));
                        (session.db, session.authenticated) = (request.db, true);
                        for command in commands {
                            let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                            let Ok(command) = dispatch::resolve(&shared.table, &args) else { continue };
                            let rows = Access::Write(&mut batch);
                            let mut ctx = parts.ctx(rows, &mut out, &mut session, Origin::Client, unix);
                            dispatch::execute(&mut ctx, command, &args);
                            batch.next_command();
                        }
                    }
                    What::Wait(..) => {
                        if feeds && !shared.gates.is_replica.load(Ordering::SeqCst) {
                            batch.store().frame().payload.extend_from_slice(master::GETACK);
                        }
                    }
                }
                let to = batch.store().frame().payload.len();
                done.push((request, from..to, out.bytes().to_vec()));
            }
            let payload = batch.store().frame().payload.clone();
            (start, batch.store().commit(), payload)
        };
        let synced = match &committed {
            Ok(end) if always => store.sync_to(*end).is_ok(),
            Ok(_) => true,
            Err(_) => false,
        };
        self.note_log(node)?;
        let (mut hash, mut at) = (hash, 0);
        let mut replies = Vec::new();
        for (request, range, reply) in done {
            let (client, number) = (request.client, request.number);
            let nothing = committed.is_err() || range.is_empty();
            match request.what {
                What::Commands(commands) => {
                    let mut write = None;
                    if nothing {
                        // Refused, or without an effect: what it would have written must be nowhere.
                        let refused = committed.is_err() || reply.starts_with(b"-");
                        if refused {
                            self.truth.refused.extend(tokens(&commands));
                        }
                    } else if let Some(name) = name {
                        hash = fold(hash, &payload[at..range.end]);
                        at = range.end;
                        write = Some(self.truth.writes.len());
                        self.counts.writes += 1;
                        let text: Vec<Vec<u8>> = commands.iter().map(|args| args.join(&b' ')).collect();
                        let mut text = text.join(&b';').escape_ascii().to_string();
                        text.truncate(120);
                        let end = start + range.end as u64;
                        let acked = false;
                        let confirmed = Vec::new();
                        self.truth.writes.push(Write {
                            text,
                            node,
                            client,
                            at: now,
                            name,
                            end,
                            hash,
                            acked,
                            confirmed,
                        });
                    }
                    let refused = reply.starts_with(b"-READONLY");
                    // Where the commit or its sync failed, the client is told so, and the write does not count as acknowledged.
                    let write = write.filter(|_| synced);
                    if refused && self.clients[client].master == node {
                        self.clients[client].master = self.random.below(self.settings.nodes as u64) as usize;
                    }
                    replies.push(Reply { client, number, write, confirms: None });
                }
                What::Wait(replicas, patience) => {
                    let (Some(name), Ok(target)) = (name, &committed) else { continue };
                    let wait = Wait { client, number, name, target: *target, replicas, until: now + patience };
                    if let Some(process) = &mut self.machines[node].process {
                        process.waits.push(wait);
                    }
                }
            }
        }
        let incarnation = self.machines[node].incarnation;
        let at = now + self.random.below(3);
        self.queue.at(at, Event::Send { node, incarnation, replies });
        self.pump_soon(node);
        Ok(())
    }

    /// Answers clients in WAIT that have waited long enough.
    pub fn look_at_waits(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.machines[node].process else { return };
        let mut replies = Vec::new();
        let (feeds, conns) = (&process.feeds, &self.conns);
        process.waits.retain(|wait| {
            let said = |conn: &u64| {
                let acks = conns.get(conn).map(|conn| conn.acks.as_slice()).unwrap_or_default();
                acks.iter().find(|(offset, _)| *offset >= wait.target.0).map_or(now, |(_, at)| *at)
            };
            let has = feeds.iter().filter(|(_, feed)| feed.has(wait.target));
            let mut by: Vec<(usize, u64)> = has.map(|(conn, feed)| (feed.replica, said(conn))).collect();
            by.sort_unstable();
            by.dedup_by_key(|(node, _)| *node);
            let over = by.len() as u64 >= wait.replicas || wait.until <= now;
            if over {
                let target = wait.target.0;
                let confirms = Some(Confirmed { by, node, name: wait.name, target });
                replies.push(Reply { client: wait.client, number: wait.number, write: None, confirms });
            }
            !over
        });
        if !replies.is_empty() {
            let incarnation = self.machines[node].incarnation;
            self.queue.at(now, Event::Send { node, incarnation, replies });
        }
    }

    /// A reply has reached its client.
    pub fn heard(&mut self, reply: Reply) {
        // Now and then the connection breaks just before.
        if self.random.one_in(40) || self.clients[reply.client].waits_for != Some(reply.number) {
            return;
        }
        self.clients[reply.client].waits_for = None;
        if let Some(write) = reply.write.and_then(|at| self.truth.writes.get_mut(at)) {
            write.acked = true;
            self.counts.acknowledged += 1;
        }
        if let Some(confirmed) = reply.confirms {
            self.counts.waits += u64::from(!confirmed.by.is_empty());
            let writes = self.truth.writes.iter_mut().filter(|write| {
                write.client == reply.client
                    && write.node == confirmed.node
                    && write.name == confirmed.name
                    && write.end <= confirmed.target
            });
            for write in writes {
                write.confirmed.extend(confirmed.by.iter().copied());
            }
        }
        self.client_goes_on(reply.client);
    }

    fn client_goes_on(&mut self, client: usize) {
        let at = self.now + self.random.below(self.settings.think + 1);
        self.queue.at(at, Event::Client(client));
    }

    /// A client has waited long enough.
    pub fn give_up(&mut self, client: usize, request: u64) {
        if self.clients[client].waits_for == Some(request) {
            self.clients[client].waits_for = None;
            if self.random.one_in(3) {
                self.clients[client].master = self.random.below(self.settings.nodes as u64) as usize;
            }
            self.client_goes_on(client);
        }
    }

    /// A client sends its next request.
    pub fn client_acts(&mut self, client: usize) {
        if !self.busy || self.clients[client].waits_for.is_some() {
            return;
        }
        self.requests += 1;
        let number = self.requests;
        let request = client::next(&mut self.clients[client], client, number, &mut self.random);
        let node = self.clients[client].master;
        self.clients[client].waits_for = Some(number);
        self.queue.at(self.now + PATIENCE, Event::GiveUp { client, request: number });
        let at = self.now + self.random.below(3);
        let incarnation = self.machines[node].incarnation;
        let Some(process) = &mut self.machines[node].process else { return };
        process.requests.push(request);
        if !std::mem::replace(&mut process.burst_is_due, true) {
            self.queue.at(at, Event::Burst { node, incarnation });
        }
    }
}
