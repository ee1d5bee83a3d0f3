//! Faults as they strike, and what operators do: changes of roles, failovers.

use std::sync::atomic::Ordering;

use ardb_node::{Node, role};

use crate::event::Event;
use crate::fault::Fault;
use crate::process::{Ended, NoHost};
use crate::truth::Kind;
use crate::{Violation, World};

impl World<'_> {
    /// Something goes wrong, or somebody acts.
    pub fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        self.trace(|| format!("{fault:?}"));
        let now = self.now;
        let longest = if self.random.one_in(2) { 100 } else { 3000 };
        let later = 20 + self.random.below(longest);
        match fault {
            Fault::Kill(node) => {
                self.counts.kills += u64::from(self.machines[node].process.is_some());
                self.die(node, false);
                self.queue.at(now + later, Event::Start(node));
            }
            Fault::Power(node) => {
                self.counts.power_losses += 1;
                self.die(node, true);
                self.queue.at(now + later, Event::Start(node));
            }
            Fault::Shutdown(node, off) => {
                let Some(process) = &self.machines[node].process else { return Ok(()) };
                let clean = process.store.close().is_ok();
                self.note_log(node)?;
                self.counts.shutdowns += 1;
                self.die(node, false);
                if off {
                    self.die(node, true);
                    if clean {
                        self.machines[node].ended = Ended::Process;
                    }
                }
                self.queue.at(now + later, Event::Start(node));
            }
            Fault::DiskFails(node, after) => {
                self.counts.disk_failures += 1;
                self.machines[node].ill = true;
                self.machines[node].disk.fail_after(Some(after));
                self.queue.at(now + later, Event::Fault(Fault::DiskFailed(node)));
            }
            Fault::DiskFailed(node) => match self.random.below(3) {
                0 => self.strike(Fault::Kill(node))?,
                1 => self.strike(Fault::Power(node))?,
                _ => self.machines[node].disk.fail_after(None),
            },
            Fault::DiskFull(node, space) => {
                self.counts.disks_full += 1;
                self.machines[node].ill = true;
                let disk = &self.machines[node].disk;
                disk.set_capacity(Some(disk.used() + space));
                self.queue.at(now + later, Event::Fault(Fault::DiskFree(node)));
            }
            Fault::DiskFree(node) => self.machines[node].disk.set_capacity(None),
            Fault::Cut(conn) => {
                if let Some(connection) = self.conns.get_mut(&conn) {
                    self.counts.cuts += 1;
                    for side in 0..2 {
                        connection.to[side].cut(&mut self.random);
                        if let Some(time) = connection.to[side].end(now) {
                            self.queue.at(time, Event::Deliver { conn, side });
                        }
                    }
                }
            }
            Fault::HalfOpen(conn) => {
                let which = self.random.below(3) as usize;
                if let Some(connection) = self.conns.get_mut(&conn) {
                    self.counts.half_open += 1;
                    for side in 0..2 {
                        connection.to[side].swallows |= which != side;
                    }
                }
            }
            Fault::Forget(node) => {
                let wire = self.machines[node].process.as_ref().and_then(|p| p.link.as_ref()?.wire.as_ref());
                if let Some(conn) = wire.map(|wire| wire.conn) {
                    self.counts.half_open += 1;
                    if let Some(connection) = self.conns.get_mut(&conn) {
                        connection.to[1].swallows = true;
                    }
                    self.link_up(node);
                }
            }
            Fault::Part(a, b) => {
                self.counts.partitions += 1;
                self.parts.push((a, b));
                self.queue.at(now + later, Event::Fault(Fault::Join(a, b)));
            }
            Fault::Join(a, b) => {
                if let Some(at) = self.parts.iter().position(|pair| *pair == (a, b)) {
                    self.parts.swap_remove(at);
                }
            }
            Fault::Promote(node) => {
                if !self.holds_the_role(node) && self.promote(node)? && self.random.one_in(2) {
                    self.announce(node);
                }
            }
            Fault::Replicate(node, other) => {
                // Two nodes that follow each other would never hear of anything.
                if !self.follows(other, node) && !self.holds_the_role(node) {
                    self.replicate(node, other);
                }
            }
            Fault::HandOver => self.hand_over()?,
            Fault::Abort(node) => self.give_up_failover(node, "by a client")?,
            Fault::FailOver => self.fail_over(later)?,
            Fault::Announce(node) => self.announce(node),
        }
        Ok(())
    }

    /// Whether nobody may change a node's role, since it is handing it over.
    fn holds_the_role(&self, node: usize) -> bool {
        self.machines[node].process.as_ref().is_some_and(|process| process.failover.holds_the_role())
    }

    /// Clients learn of a master.
    pub fn announce(&mut self, node: usize) {
        self.clients.iter_mut().for_each(|client| client.master = node);
    }

    /// Whether `node` follows `other`, directly or over others.
    pub fn follows(&self, node: usize, other: usize) -> bool {
        let mut at = node;
        for _ in 0..=self.machines.len() {
            if at == other {
                return true;
            }
            match self.upstream(at) {
                Some(upstream) => at = upstream,
                None => return false,
            }
        }
        true
    }

    /// Whom a node's process follows.
    pub fn upstream(&self, node: usize) -> Option<usize> {
        self.machines[node].process.as_ref()?.upstream
    }

    /// REPLICAOF NO ONE. Gives whether the node is a master now that was none.
    pub fn promote(&mut self, node: usize) -> Result<bool, Violation> {
        self.promote_as(node, Kind::Promotion)
    }

    /// The same, for another reason.
    pub fn promote_as(&mut self, node: usize, kind: Kind) -> Result<bool, Violation> {
        let now = self.now;
        let Some(process) = &mut self.machines[node].process else { return Ok(false) };
        if process.upstream.is_none() {
            return Ok(false);
        }
        self.hang_up(node);
        let Some(process) = &mut self.machines[node].process else { return Ok(false) };
        let (store, shared) = (process.store.clone(), process.shared.clone());
        let parts = Node { store: &store, shared: &shared, host: &NoHost };
        let promoted = role::promote(parts, || {
            process.upstream = None;
            process.failover.forget_resumed();
            process.refresh_gates();
        });
        match promoted {
            Ok(history) => {
                self.counts.promotions += 1;
                let machine = &mut self.machines[node];
                let content = machine.content.clone();
                if history.second_until.0 != content.end() {
                    return Err(Violation(format!(
                        "node {node} is promoted at {} and says {history:?}",
                        content.end()
                    )));
                }
                machine.name = Some(history.id);
                machine.name_in_doubt = false;
                self.truth.born(history.id, Some((history.second, content.end())), kind, node, now, &content);
                self.dismiss(node);
                self.trace(|| format!("node {node} is a master: {history:?}"));
                // It has said at once which database is selected.
                self.note_log(node)?;
                Ok(true)
            }
            Err(error) => {
                self.machines[node].name_in_doubt = true;
                self.trace(|| format!("node {node} is not promoted: {error}"));
                self.link_up(node);
                Ok(false)
            }
        }
    }

    /// All replicas of a node must reconnect, which they hear a little later.
    pub fn dismiss(&mut self, node: usize) {
        let at = self.now + self.random.below(5);
        let incarnation = self.machines[node].incarnation;
        let Some(process) = &self.machines[node].process else { return };
        let conns = process.feeds.iter().filter(|(_, feed)| feed.peer.is_some()).map(|(conn, _)| *conn).collect();
        self.queue.at(at, Event::Dismiss { node, incarnation, conns });
    }

    /// REPLICAOF.
    pub fn replicate(&mut self, node: usize, other: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        if process.upstream == Some(other) || node == other {
            return;
        }
        // Even if it fails, the next start may find it.
        machine.reparented.push(now);
        if let Err(error) = role::follow(&process.store, &other.to_string()) {
            self.trace(|| format!("node {node} does not follow node {other}: {error}"));
            return;
        }
        // Under the writer lock in the server.
        process.upstream = Some(other);
        process.failover.forget_resumed();
        process.shared.gates.is_replica.store(true, Ordering::SeqCst);
        process.refresh_gates();
        process.waits.clear();
        self.counts.reparented += 1;
        self.link_up(node);
    }

    /// A master is lost. Of its replicas the one that has most is promoted, and the others follow it.
    fn fail_over(&mut self, later: u64) -> Result<(), Violation> {
        let nodes = 0..self.machines.len();
        let followers =
            |world: &World<'_>, node: usize| nodes.clone().filter(|&other| world.upstream(other) == Some(node)).count();
        let master =
            nodes.clone().filter(|&node| self.upstream(node).is_none()).max_by_key(|&node| followers(self, node));
        let Some(master) = master else { return Ok(()) };
        let name = self.machines[master].name;
        let best = nodes
            .clone()
            .filter(|&node| self.upstream(node) == Some(master) && self.machines[node].name == name)
            .max_by_key(|&node| self.machines[node].content.end());
        let Some(best) = best else { return Ok(()) };
        match self.random.below(3) {
            0 => self.strike(Fault::Kill(master))?,
            1 => self.strike(Fault::Power(master))?,
            // It lives on, and takes writes of clients that have not heard.
            _ => {}
        }
        if !self.promote(best)? {
            return Ok(());
        }
        self.counts.failovers += 1;
        for node in nodes {
            if node != best && self.upstream(node) == Some(master) {
                self.replicate(node, best);
            }
        }
        let at = self.now + self.random.below(500);
        self.queue.at(at, Event::Fault(Fault::Announce(best)));
        let at = self.now + later + self.random.below(2000);
        self.queue.at(at, Event::Fault(Fault::Replicate(master, best)));
        Ok(())
    }
}
