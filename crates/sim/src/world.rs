//! Everything that there is in a simulation, and the loop over its events.

use ardb_base::random::Random;
use ardb_node::digest::{self, Sum};

use crate::client::Client;
use crate::event::{Event, Queue};
use crate::feed::Feed;
use crate::net::{Conn, Packet, Pipe};
use crate::process::{Ended, Machine};
use crate::reference::Reference;
use crate::sabotage::Sabotage;
use crate::settings::{DATABASES, Settings};
use crate::truth::{Content, Kind, Truth, fold};
use crate::{Counts, Report, Violation};
use std::collections::BTreeMap;

/// The world.
pub struct World<'t> {
    pub now: u64,
    pub random: Random,
    pub settings: Settings,
    pub sabotage: Option<Sabotage>,
    pub queue: Queue,
    pub machines: Vec<Machine>,
    pub conns: BTreeMap<u64, Conn>,
    /// Pairs of machines that do not reach each other.
    pub parts: Vec<(usize, usize)>,
    pub clients: Vec<Client>,
    /// Clients write.
    pub busy: bool,
    pub truth: Truth,
    pub reference: Option<(Content, Reference)>,
    pub counts: Counts,
    /// Counts attempts of links.
    pub links: u64,
    /// Counts connections.
    pub calls: u64,
    /// Counts requests.
    pub requests: u64,
    hash: u64,
    trace: Option<&'t mut dyn FnMut(&str)>,
}

impl<'t> World<'t> {
    pub fn new(seed: u64, sabotage: Option<Sabotage>, trace: Option<&'t mut dyn FnMut(&str)>) -> World<'t> {
        let mut random = Random::new(seed);
        let settings = Settings::draw(&mut random);
        let machines = (0..settings.nodes).map(|number| Machine::new(number, &mut random)).collect();
        let clients = (0..settings.clients).map(|_| Client::default()).collect();
        let mut world = World {
            now: 0,
            random,
            settings,
            sabotage,
            queue: Queue::default(),
            machines,
            conns: BTreeMap::new(),
            parts: Vec::new(),
            clients,
            busy: false,
            truth: Truth::default(),
            reference: None,
            counts: Counts::default(),
            links: 0,
            calls: 0,
            requests: 0,
            hash: seed,
            trace,
        };
        let settings = world.settings.clone();
        world.trace(|| format!("seed {seed}: {settings:?}"));
        world
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        let violation = self.rounds().err();
        let counts = &mut self.counts;
        [counts.given_up, counts.lost_to_power, counts.lost_to_promotion] = self.truth.lost;
        Report { counts: self.counts, hash: self.hash, violation }
    }

    /// Notes what happens.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        self.hash = fold(self.hash ^ self.now, line.as_bytes());
        if let Some(trace) = &mut self.trace {
            trace(&format!("{:>7} {line}", self.now));
        }
    }

    /// Lets time pass until `until`.
    pub fn pass(&mut self, until: u64) -> Result<(), Violation> {
        while let Some((time, event)) = self.queue.pop(until) {
            if time > self.now {
                self.now = time;
                self.machines.iter().for_each(|machine| machine.set_clock(time));
            }
            self.counts.events += 1;
            self.happen(event)?;
        }
        self.now = self.now.max(until);
        self.machines.iter().for_each(|machine| machine.set_clock(self.now));
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let alive = |world: &World<'_>, node: usize, incarnation: u64| {
            world.machines[node].process.is_some() && world.machines[node].incarnation == incarnation
        };
        match event {
            Event::Tick { node, incarnation } if alive(self, node, incarnation) => self.tick(node),
            Event::Load { node, incarnation, link } if alive(self, node, incarnation) => self.link_loads(node, link),
            Event::Pump { node, incarnation } if alive(self, node, incarnation) => self.pump(node),
            Event::Burst { node, incarnation } if alive(self, node, incarnation) => self.burst(node),
            Event::Look { node, incarnation } if alive(self, node, incarnation) => self.look_at_failover(node),
            Event::Hand { node, incarnation, target, complete } if alive(self, node, incarnation) => {
                self.follow_heir(node, target, complete)
            }
            Event::Dismiss { node, incarnation, conns } if alive(self, node, incarnation) => {
                if let Some(process) = &mut self.machines[node].process {
                    for conn in conns {
                        if let Some(feed) = process.feeds.get_mut(&conn) {
                            feed.dismissed = true;
                        }
                    }
                }
                self.pump_soon(node);
                Ok(())
            }
            Event::Send { node, incarnation, replies } if alive(self, node, incarnation) => {
                for reply in replies {
                    let at = self.now + self.random.below(self.settings.delay + 1);
                    self.queue.at(at, Event::Heard(reply));
                }
                Ok(())
            }
            Event::Tick { .. }
            | Event::Load { .. }
            | Event::Look { .. }
            | Event::Hand { .. }
            | Event::Pump { .. }
            | Event::Burst { .. }
            | Event::Dismiss { .. }
            | Event::Send { .. } => Ok(()),
            Event::Deliver { conn, side } => self.deliver(conn, side),
            Event::Call { node, link } => self.call(node, link),
            Event::CallFailed { node, link } => {
                self.call_failed(node, link);
                Ok(())
            }
            Event::Retry { node, link } => {
                self.retry(node, link);
                Ok(())
            }
            Event::Heard(reply) => {
                self.heard(reply);
                Ok(())
            }
            Event::Client(client) => {
                self.client_acts(client);
                Ok(())
            }
            Event::GiveUp { client, request } => {
                self.give_up(client, request);
                Ok(())
            }
            Event::Start(node) => self.start(node),
            Event::Fault(fault) => self.strike(fault),
        }
    }

    /// Whether two machines do not reach each other.
    pub fn cut_off(&self, a: usize, b: usize) -> bool {
        self.parts.iter().any(|&pair| pair == (a, b) || pair == (b, a)) || !self.machines[a].on || !self.machines[b].on
    }

    /// Makes a connection from a replica to its master.
    pub fn connect(&mut self, replica: usize, master: usize) -> u64 {
        self.calls += 1;
        let incarnations = [self.machines[replica].incarnation, self.machines[master].incarnation];
        let to = [Pipe::default(), Pipe::default()];
        self.conns
            .insert(self.calls, Conn { nodes: [replica, master], incarnations, to, acks: Vec::new(), dump: None });
        if let Some(process) = &mut self.machines[master].process {
            process.feeds.insert(self.calls, Feed::new(replica));
        }
        self.calls
    }

    /// Sends bytes to a side of a connection.
    pub fn send(&mut self, conn: u64, side: usize, bytes: &[u8]) {
        let how = (self.settings.delay, self.settings.packet);
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        for time in connection.to[side].send(bytes, self.now, how, &mut self.random) {
            self.queue.at(time, Event::Deliver { conn, side });
        }
    }

    /// A side closes its connection: the other one hears of it.
    pub fn close(&mut self, conn: u64, side: usize) {
        let at = self.now + self.random.below(self.settings.delay + 1);
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        if let Some(time) = connection.to[1 - side].end(at) {
            self.queue.at(time, Event::Deliver { conn, side: 1 - side });
        }
    }

    fn deliver(&mut self, conn: u64, side: usize) -> Result<(), Violation> {
        let Some(connection) = self.conns.get(&conn) else { return Ok(()) };
        let [a, b] = connection.nodes;
        let (node, incarnation) = (connection.nodes[side], connection.incarnations[side]);
        if self.cut_off(a, b) && self.machines[node].on {
            // It is sent again until they reach each other.
            self.queue.at(self.now + 50, Event::Deliver { conn, side });
            return Ok(());
        }
        let Some(connection) = self.conns.get_mut(&conn) else { return Ok(()) };
        let Some(packet) = connection.to[side].take() else { return Ok(()) };
        if connection.to[side].swallows || !self.machines[node].on {
            return Ok(());
        }
        if self.machines[node].process.is_none() || self.machines[node].incarnation != incarnation {
            // Nobody knows this connection here any more.
            self.close(conn, side);
            return Ok(());
        }
        let bytes = match &packet {
            Packet::Bytes(bytes) => Some(bytes.as_slice()),
            Packet::End => None,
        };
        if side == 0 {
            self.link_hears(node, conn, bytes)?;
            // The master may have more.
            let master = self.conns.get(&conn).map(|connection| connection.nodes[1]);
            if let Some(master) = master {
                self.pump_soon(master);
            }
        } else {
            self.feed_hears(node, conn, bytes)?;
            self.pump_soon(node);
        }
        Ok(())
    }

    /// Takes in what a node has appended since the last look.
    pub fn note_log(&mut self, node: usize) -> Result<(), Violation> {
        let machine = &mut self.machines[node];
        let Some(process) = &machine.process else { return Ok(()) };
        let (have, end) = (machine.content.end(), process.store.log().end().0);
        if end == have {
            return Ok(());
        }
        if end < have {
            return Err(Violation(format!("the log of node {node} went back from {have} to {end}")));
        }
        let mut bytes = Vec::new();
        let read = process.store.log().reader(ardb_base::id::Offset(have));
        let read = read.and_then(|mut reader| reader.read_into(&mut bytes, usize::MAX));
        if let Err(error) = read {
            return Err(Violation(format!("the log of node {node} cannot be read: {error}")));
        }
        let Some(name) = machine.name else { return Err(Violation(format!("node {node} has no name"))) };
        self.truth.appended(node, name, have, &bytes)?;
        machine.content.push(&bytes);
        let hash = machine.content.hash;
        self.trace(|| format!("node {node} has {have}..{end} of {name} ({hash:x})"));
        Ok(())
    }

    /// Compares what a node's log holds with what it must hold.
    pub fn check_content(&self, node: usize) -> Result<(), Violation> {
        let machine = &self.machines[node];
        let Some(process) = &machine.process else { return Ok(()) };
        let log = process.store.log();
        let (start, end) = (log.start().0 as usize, log.end().0);
        if end != machine.content.end() {
            return Err(Violation(format!("node {node} ends at {end} and must end at {}", machine.content.end())));
        }
        let mut bytes = Vec::new();
        let read = log.reader(log.start()).and_then(|mut reader| reader.read_into(&mut bytes, usize::MAX));
        match read {
            Err(error) => Err(Violation(format!("the log of node {node} cannot be read: {error}"))),
            Ok(_) if bytes != machine.content.bytes[start..] => {
                Err(Violation(format!("the log of node {node} holds other bytes than it appended")))
            }
            Ok(_) => Ok(()),
        }
    }

    /// The sum of a node's data.
    pub fn digest(&mut self, node: usize) -> Result<Sum, Violation> {
        let Some(process) = &mut self.machines[node].process else { return Ok(Sum::default()) };
        let view = process.reader.begin();
        digest::all(&view, DATABASES)
            .map_err(|error| Violation(format!("the data of node {node} are damaged: {error}")))
    }

    /// The sum of the data that a stream makes.
    pub fn expected(&mut self, content: &Content) -> Result<Sum, Violation> {
        let goes_on = self.reference.as_ref().is_some_and(|(before, _)| content.agrees(before, before.end()));
        if !goes_on {
            let shared =
                ardb_commands::Shared::new(ardb_commands::Table::new(ardb_commands::cmd::GROUPS), DATABASES, 1);
            self.reference = Some((Content::default(), Reference::new(shared.into())));
        }
        let Some((before, reference)) = &mut self.reference else { return Ok(Sum::default()) };
        reference.advance(&content.bytes, &crate::process::NoHost)?;
        *before = content.clone();
        Ok(reference.digest())
    }

    /// Starts the process of a machine, and compares what it finds with what it must find.
    pub fn start(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.process.is_some() {
            return Ok(());
        }
        machine.on = true;
        machine.incarnation += 1;
        let (process, recovery) = match machine.start(node, &self.settings, self.sabotage, now) {
            Ok(started) => started,
            Err(why) if machine.ill => {
                machine.disk.kill();
                machine.disk.fail_after(None);
                self.trace(|| format!("node {node} cannot start yet: {why}"));
                let at = now + 100 + self.random.below(500);
                self.queue.at(at, Event::Start(node));
                return Ok(());
            }
            Err(why) => return Err(Violation(format!("node {node} cannot start: {why}"))),
        };
        let (end, history) = (process.store.log().end().0, process.store.history());
        let upstream = process.upstream;
        self.counts.handovers_resumed += u64::from(process.failover.running());
        machine.process = Some(process);
        if recovery.engine_ahead {
            return Err(Violation(format!("the engine of node {node} was found ahead of its log")));
        }
        let (had, synced, ended) = (machine.content.end(), machine.synced, machine.ended);
        let sync_failed = std::mem::take(&mut machine.sync_failed);
        let always = self.settings.fsync[node] == ardb_store::Fsync::Always;
        let least = if ended == Ended::Process { had } else { synced.min(had) };
        let taken_over = machine.perhaps.take().filter(|content| {
            let names = self.truth.name(history.id).is_some_and(|name| name.content.agrees(content, content.end()));
            content.end() == end && names && machine.name != Some(history.id)
        });
        if let Some(content) = taken_over {
            machine.replaced(content, now);
            machine.name = Some(history.id);
        } else if end < least || end > had {
            return Err(Violation(format!(
                "node {node} had everything up to {had}, {synced} of it durable, and after the end of its {ended:?} it has {end}"
            )));
        } else if end < had {
            machine.content = machine.content.prefix(end);
            machine.shrank.push(now);
            self.counts.tails_lost += 1;
        }
        if machine.promised > end && (ended == Ended::Process || always) {
            return Err(Violation(format!(
                "node {node} had acknowledged everything up to {} and has come back with {end}",
                machine.promised
            )));
        }
        machine.promised = machine.promised.min(end);
        let content = machine.content.clone();
        let doubt = std::mem::take(&mut machine.name_in_doubt);
        let before = machine.name.replace(history.id);
        if before != Some(history.id) {
            let known = self.truth.name(history.id).map(|name| name.content.agrees(&content, end));
            match (before, known) {
                (None, None) => self.truth.born(history.id, None, Kind::Root, node, now, &content),
                (Some(_), Some(true)) if doubt => {}
                (Some(before), None) if doubt || ended == Ended::Machine || sync_failed => {
                    // A promotion that could not be written may be found on the disk all the same.
                    let kind = if doubt { Kind::Promotion } else { Kind::PowerLoss { synced, always } };
                    if !doubt && (history.second, history.second_until.0) != (before, end) {
                        return Err(Violation(format!("node {node} knows its old name wrongly: {history:?} at {end}")));
                    }
                    self.truth.born(history.id, Some((before, end)), kind, node, now, &content);
                }
                (before, known) => {
                    return Err(Violation(format!(
                        "node {node} came back as {} in the place of {before:?} (known: {known:?})",
                        history.id
                    )));
                }
            }
        }
        self.check_content(node)?;
        let incarnation = self.machines[node].incarnation;
        self.trace(|| format!("node {node} is up: {history:?}, end {end}, upstream {upstream:?}"));
        self.queue.at(now + 1 + self.random.below(100), Event::Tick { node, incarnation });
        self.link_up(node);
        if self.random.one_in(3) {
            self.check_data(node)?;
        }
        Ok(())
    }

    /// Compares a node's data with what its history makes.
    pub fn check_data(&mut self, node: usize) -> Result<(), Violation> {
        if self.machines[node].process.is_none() {
            return Ok(());
        }
        let content = self.machines[node].content.clone();
        let (expected, found) = (self.expected(&content)?, self.digest(node)?);
        if expected != found {
            let rows = self.machines[node].process.as_mut().map(|process| process.reader.begin());
            let differences = match (&self.reference, &rows) {
                (Some((_, reference)), Some(rows)) => reference.differences(rows),
                _ => String::new(),
            };
            return Err(Violation(format!(
                "the data of node {node} are not what its history makes, which ends at {}{differences}",
                content.end()
            )));
        }
        Ok(())
    }

    /// The process ends, alone or with its machine.
    pub fn die(&mut self, node: usize, power: bool) {
        let machine = &mut self.machines[node];
        if let Some(process) = machine.process.take() {
            machine.ended = Ended::Process;
            machine.synced = process.store.synced().0;
            machine.sync_failed |= process.store.log().failure().is_some();
            // Nothing that a destructor does reaches the disk.
            machine.disk.fail_after(Some(0));
            drop(process);
            machine.disk.kill();
            machine.incarnation += 1;
        }
        if power {
            machine.ended = Ended::Machine;
            machine.on = false;
            machine.disk.power_loss(&mut self.random);
            machine.reboot(self.sabotage);
        }
        let ids: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| conn.nodes.contains(&node)).map(|(id, _)| *id).collect();
        for id in ids {
            for side in 0..2 {
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                if conn.nodes[side] != node {
                    continue;
                }
                if power {
                    // Nobody is told; what was on its way arrives.
                    conn.to[1 - side].ended = true;
                } else {
                    self.close(id, side);
                }
            }
        }
    }
}
