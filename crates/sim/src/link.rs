//! The driver of a replica's link to its master, in the order in which the server's thread does the same things.

use ardb_base::id::Offset;
use ardb_base::id::ReplId;
use ardb_node::inflow::{Inflow, When};
use ardb_node::rows::{Fault, Ongoing, RowsIntakeError, Whole};
use ardb_node::{intake, role};
use ardb_repl::backoff::Backoff;
use ardb_repl::replica::{Event as Heard, Identity, LinkError, Replica, Rows};
use ardb_store::{Fsync, GenerationError, GenerationLoader};

use crate::event::Event;
use crate::load::Loader;
use crate::sabotage::Sabotage;
use crate::truth::Content;
use crate::{Violation, World};

/// A link.
pub struct Link {
    /// Counts attempts; what belongs to an earlier one is void.
    pub number: u64,
    pub upstream: usize,
    pub wire: Option<Wire>,
    pub backoff: Backoff,
    /// Full syncs by rows, which may go on over the next connection.
    pub rows: Ongoing<Loader>,
}

/// A connection that was made.
pub struct Wire {
    pub conn: u64,
    pub replica: Replica,
    pub input: Vec<u8>,
    /// The stream, once it flows.
    pub inflow: Option<Inflow>,
    /// A full sync on its way.
    sync: Option<Sync>,
    /// Rows that came to their end and are being loaded.
    pub whole: Option<Whole<Loader>>,
    /// It asks the master to take the role from us.
    handing: bool,
}

struct Sync {
    named: Option<(ReplId, Offset)>,
    generation: Option<GenerationLoader>,
    rdb: Vec<u8>,
}

impl World<'_> {
    /// Starts the link of a node's process to its upstream anew.
    pub fn link_up(&mut self, node: usize) {
        self.hang_up(node);
        self.links += 1;
        let number = self.links;
        let at = self.now + self.random.below(20);
        let Some(process) = &mut self.machines[node].process else { return };
        process.link = process.upstream.map(|upstream| Link {
            number,
            upstream,
            wire: None,
            backoff: Backoff::default(),
            rows: Ongoing::default(),
        });
        if process.link.is_some() {
            self.queue.at(at, Event::Retry { node, link: number });
        }
    }

    /// Ends the link.
    pub fn hang_up(&mut self, node: usize) {
        let link = self.machines[node].process.as_mut().and_then(|process| process.link.take());
        if let Some(wire) = link.and_then(|link| link.wire) {
            self.close(wire.conn, 0);
        }
    }

    fn link(&mut self, node: usize, number: u64) -> Option<&mut Link> {
        self.machines[node].process.as_mut()?.link.as_mut().filter(|link| link.number == number)
    }

    /// Calls the master.
    pub fn retry(&mut self, node: usize, number: u64) {
        let Some(link) = self.link(node, number) else { return };
        let upstream = link.upstream;
        let delay = 1 + self.random.below(self.settings.delay + 1);
        let event = if self.cut_off(node, upstream) {
            self.queue.at(self.now + self.settings.timeout, Event::CallFailed { node, link: number });
            return;
        } else {
            Event::Call { node, link: number }
        };
        self.queue.at(self.now + delay, event);
    }

    /// The call has failed, or the link has broken: another attempt follows.
    pub fn call_failed(&mut self, node: usize, number: u64) {
        self.link_lost(node, number, Fault::Link);
    }

    fn link_lost(&mut self, node: usize, number: u64, fault: Fault) {
        let now = self.now;
        let Some(link) = self.link(node, number) else { return };
        link.rows.judge(fault);
        let at = now + link.backoff.pause();
        let wire = link.wire.take();
        self.queue.at(at, Event::Retry { node, link: number });
        if let Some(wire) = wire {
            self.close(wire.conn, 0);
        }
    }

    /// The call reaches the master's machine.
    pub fn call(&mut self, node: usize, number: u64) -> Result<(), Violation> {
        let Some(link) = self.link(node, number) else { return Ok(()) };
        let upstream = link.upstream;
        if self.cut_off(node, upstream) || self.machines[upstream].process.is_none() {
            self.call_failed(node, number);
            return Ok(());
        }
        let conn = self.connect(node, upstream);
        self.counts.links += 1;
        let now = self.now;
        let timeout = self.settings.timeout;
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        let sync = self.settings.fsync[node] == Fsync::Always;
        let failover = process.failover.handing();
        let position = match role::position(&process.store, sync) {
            Ok(position) => position,
            Err(error) => {
                self.trace(|| format!("node {node} cannot say where it stands: {error}"));
                self.call_failed(node, number);
                return Ok(());
            }
        };
        self.trace(|| format!("node {node} calls node {upstream} (connection {conn}) at {position:?}"));
        let plain = self.settings.plain[node];
        let Some(link) = self.link(node, number) else { return Ok(()) };
        let rows = if plain { Rows::Refuse } else { link.rows.ask() };
        let handing = failover.is_some();
        let handover = !plain;
        let identity =
            Identity { port: node as u16, position, rows, timeout, failover, handover, ..Identity::default() };
        let replica = Replica::new(identity, now);
        link.wire = Some(Wire { conn, replica, input: Vec::new(), inflow: None, sync: None, whole: None, handing });
        self.link_says(node)
    }

    /// Sends what the protocol has to say. What an acknowledgement promises is kept in mind.
    fn link_says(&mut self, node: usize) -> Result<(), Violation> {
        let Some(wire) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()?.wire.as_mut()) else {
            return Ok(());
        };
        let out = wire.replica.take_output();
        let (conn, streams, at) = (wire.conn, wire.replica.streaming(), wire.replica.position().0);
        if out.is_empty() {
            return Ok(());
        }
        if streams {
            let machine = &mut self.machines[node];
            machine.promised = machine.promised.max(at);
            if let Some(connection) = self.conns.get_mut(&conn) {
                connection.acks.push((at, self.now));
            }
        }
        self.send(conn, 1, &out);
        Ok(())
    }

    /// The time passes for a link.
    pub fn link_tick(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(link) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()) else { return Ok(()) };
        let number = link.number;
        let Some(wire) = &mut link.wire else { return Ok(()) };
        match wire.replica.tick(now) {
            Ok(()) => {
                if self.sabotage == Some(Sabotage::AckBeforeAppend) {
                    if let Err(End::Violation(violation)) = self.commit(node) {
                        return Err(violation);
                    }
                    self.note_log(node)?;
                }
                self.link_says(node)
            }
            Err(error) => {
                self.trace(|| format!("node {node}: link lost: {error}"));
                self.call_failed(node, number);
                Ok(())
            }
        }
    }

    /// Bytes have come from the master, or the connection is over.
    pub fn link_hears(&mut self, node: usize, conn: u64, bytes: Option<&[u8]>) -> Result<(), Violation> {
        let Some(link) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()) else { return Ok(()) };
        let number = link.number;
        let Some(wire) = link.wire.as_mut().filter(|wire| wire.conn == conn) else { return Ok(()) };
        let Some(bytes) = bytes else {
            self.trace(|| format!("node {node}: the master closed connection {conn}"));
            self.call_failed(node, number);
            return Ok(());
        };
        wire.input.extend_from_slice(bytes);
        let result = self.link_turn(node);
        self.link_turned(node, number, result)
    }

    /// The thread of a transfer does some work.
    pub fn link_loads(&mut self, node: usize, number: u64) -> Result<(), Violation> {
        let result = self.load(node, number).and_then(|()| self.link_turn(node));
        self.link_turned(node, number, result)
    }

    fn link_turned(&mut self, node: usize, number: u64, result: Result<(), End>) -> Result<(), Violation> {
        self.note_log(node)?;
        match result {
            Ok(()) => {
                self.link_says(node)?;
                self.pump_soon(node);
                Ok(())
            }
            Err(End::Violation(violation)) => Err(violation),
            Err(End::Broken(why, fault)) => {
                self.trace(|| format!("node {node}: link lost: {why}"));
                self.link_lost(node, number, fault);
                Ok(())
            }
        }
    }

    /// Works through what has come.
    fn link_turn(&mut self, node: usize) -> Result<(), End> {
        loop {
            let now = self.now;
            let Some(wire) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()?.wire.as_mut()) else {
                return Ok(());
            };
            let handing = wire.handing;
            let step = match wire.replica.receive(&wire.input, now) {
                Err(LinkError::Refused { step, reply }) if handing && wire.replica.asked() => {
                    self.heir_refuses(node, &reply)?;
                    return Err(broken(LinkError::Refused { step, reply }));
                }
                step => step.map_err(broken)?,
            };
            if handing && matches!(step.event, Some(Heard::Continue(_) | Heard::FullSync(_))) {
                self.heir_accepts(node);
            }
            let Some(wire) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()?.wire.as_mut()) else {
                return Ok(());
            };
            if let Some(Heard::Rows(_)) = step.event {
                match self.rows_come(node)? {
                    true => continue,
                    false => break,
                }
            }
            if step.consumed == 0 && step.event.is_none() {
                break;
            }
            let taken: Vec<u8> = wire.input.drain(..step.consumed).collect();
            match step.event {
                None => {}
                Some(Heard::Continue(id)) => {
                    self.accept(node, id)?;
                }
                Some(Heard::FullSync(named)) => wire.sync = Some(Sync { named, generation: None, rdb: Vec::new() }),
                Some(Heard::RdbBegins(_)) => {
                    let Some(process) = &mut self.machines[node].process else { return Ok(()) };
                    let generation = process.store.begin_generation()?;
                    let sync = process.link.as_mut().and_then(|link| link.wire.as_mut()?.sync.as_mut());
                    if let Some(sync) = sync {
                        sync.generation = Some(generation);
                    }
                }
                Some(Heard::Rdb(range)) => {
                    if let Some(sync) = &mut wire.sync {
                        sync.rdb.extend_from_slice(&taken[range]);
                    }
                }
                Some(Heard::RdbEnds) => self.install(node)?,
                Some(Heard::RowSync(id, offset, sync, block)) => {
                    self.trace(|| format!("node {node}: rows {sync} come from block {block} on"));
                    let link = self.machines[node].process.as_mut().and_then(|process| process.link.as_mut());
                    if let Some(link) = link {
                        // The master serves us: if the link breaks, it is asked again at once.
                        link.backoff.reset();
                        link.rows.begin((id, offset, sync, block)).map_err(RowsIntakeError::from)?;
                    }
                }
                // Looked at before.
                Some(Heard::Rows(_)) => {}
                Some(Heard::Stream(range)) => {
                    if let Some(inflow) = &mut wire.inflow {
                        inflow.push(&taken[range]).map_err(|error| End::Violation(Violation(error.to_string())))?;
                    }
                }
            }
        }
        if self.sabotage == Some(Sabotage::AckBeforeAppend) {
            // What was received is acknowledged, and appended a little later, at the next turn.
            let now = self.now;
            let late = self.random.one_in(2);
            if let Some(wire) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()?.wire.as_mut())
                && let Some(inflow) = &wire.inflow
                && wire.replica.streaming()
            {
                let received = inflow.received();
                wire.replica.applied(received);
                wire.replica.acknowledge(now);
                if late {
                    return Ok(());
                }
            }
        }
        self.commit(node)
    }

    /// Commits what of the stream is whole.
    pub fn commit(&mut self, node: usize) -> Result<(), End> {
        let now = self.now;
        let sync = self.settings.fsync[node] == Fsync::Always;
        let unix = self.machines[node].unix();
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        let (store, shared) = (process.store.clone(), process.shared.clone());
        let parts = ardb_node::Node { store: &store, shared: &shared, host: &crate::process::NoHost };
        let Some(wire) = process.link.as_mut().and_then(|link| link.wire.as_mut()) else { return Ok(()) };
        let Some(inflow) = &mut wire.inflow else { return Ok(()) };
        while inflow.read_ahead(parts, &mut process.reader) {
            let when = When { unix, link: now, sync, wanted: &|| true };
            match inflow.commit(parts, &mut wire.replica, when) {
                Ok(_) => self.counts.commits += 1,
                Err(ardb_node::inflow::InflowError::Apply(error)) => {
                    return Err(End::Violation(Violation(format!("node {node}: {error}"))));
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }

    fn stream_begins(&mut self, node: usize) {
        let Some(link) = self.machines[node].process.as_mut().and_then(|p| p.link.as_mut()) else { return };
        link.backoff.reset();
        link.rows.forget();
        if let Some(wire) = &mut link.wire {
            wire.inflow = Some(Inflow::new(wire.replica.position()));
        }
    }

    /// The master lets the node go on.
    fn accept(&mut self, node: usize, id: Option<ReplId>) -> Result<(), End> {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let Some(upstream) = process.upstream else { return Ok(()) };
        let renamed = match role::accept(&process.store, id, &upstream.to_string()) {
            Ok(renamed) => renamed,
            Err(error) => {
                machine.name_in_doubt = true;
                return Err(broken(error));
            }
        };
        self.counts.partial += 1;
        let present = process.store.history();
        machine.name = Some(present.id);
        if renamed.is_some() {
            let content = &machine.content;
            let known = self.truth.name(present.id).is_some_and(|name| name.content.agrees(content, content.end()));
            if !known {
                let text = format!("node {node} takes the name {} for bytes that do not belong to it", present.id);
                return Err(End::Violation(Violation(text)));
            }
            self.dismiss(node);
        }
        self.trace(|| format!("node {node} goes on as {} at {:?}", present.id, present));
        self.stream_begins(node);
        Ok(())
    }

    /// The RDB has come to its end: loads it, and makes it current.
    fn install(&mut self, node: usize) -> Result<(), End> {
        let mut random = [0; 20];
        self.random.fill(&mut random);
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let Some(wire) = process.link.as_mut().and_then(|link| link.wire.as_mut()) else { return Ok(()) };
        let Some(Sync { named, generation: Some(generation), rdb }) = wire.sync.take() else {
            return Err(broken("an RDB without a beginning"));
        };
        let (loaded, _) = intake::load(&generation, &process.node().shared.settings, &rdb[..]);
        let loaded = loaded.map_err(broken)?;
        let upstream = process.upstream.map(|n| n.to_string()).unwrap_or_default();
        let fresh = ReplId::from_random(random);
        let installed = intake::install(process.node(), generation, named, fresh, loaded.stream_db, &upstream);
        self.installed(node, installed, "RDB")
    }

    /// Everything that has come is current, or could not be made so.
    pub fn installed(
        &mut self,
        node: usize,
        installed: Result<(ReplId, Offset), GenerationError>,
        what: &str,
    ) -> Result<(), End> {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let Some(wire) = process.link.as_mut().and_then(|link| link.wire.as_mut()) else { return Ok(()) };
        let Some(dump) = self.conns.get(&wire.conn).and_then(|conn| conn.dump.clone()) else {
            return Err(End::Violation(Violation(format!("node {node} got everything, which nobody has sent"))));
        };
        let (id, offset) = match installed {
            Ok(installed) => installed,
            Err(error) => {
                machine.perhaps = Some(dump);
                return Err(error.into());
            }
        };
        wire.replica.installed(offset, now);
        machine.replaced(dump, now);
        machine.name = Some(id);
        self.counts.full += 1;
        self.trace(|| format!("node {node} has everything of {id} up to {offset}, by {what}"));
        self.check_content(node)?;
        self.stream_begins(node);
        Ok(())
    }
}

impl crate::process::Machine {
    /// Its history is another one.
    pub fn replaced(&mut self, content: Content, now: u64) {
        self.promised = 0;
        self.content = content;
        self.shrank.push(now);
        // A later attempt has overwritten whatever the earlier one may have left.
        self.perhaps = None;
        self.name_in_doubt = false;
    }
}

/// Why work on a link stopped.
pub enum End {
    /// It is to be tried again. What it says of rows that have come.
    Broken(String, Fault),
    Violation(Violation),
}

/// A link that broke.
fn broken(why: impl std::fmt::Display) -> End {
    End::Broken(why.to_string(), Fault::Link)
}

impl From<Violation> for End {
    fn from(violation: Violation) -> End {
        End::Violation(violation)
    }
}
