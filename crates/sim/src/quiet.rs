//! The course of a run: rounds of work and faults, each followed by a quiet point at which everything is compared.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::fault;
use crate::process::{Machine, Process};
use crate::reference::each_command;
use crate::work::token;
use crate::{Violation, World};

/// How long a healed group may take to come to rest, ms.
const REST: u64 = 60_000;

/// Whether an operator has put a node, or one that it gave its role to, under another one after a moment. `most` bounds how often the role went on.
fn given_up(machines: &[Machine], node: usize, since: u64, most: usize) -> bool {
    let machine = &machines[node];
    let mut heirs = machine.heirs.iter().filter(|(at, _)| *at >= since);
    machine.reparented.iter().any(|&at| at >= since)
        || most > 0 && heirs.any(|&(at, heir)| given_up(machines, heir, at, most - 1))
}

impl World<'_> {
    /// All of it.
    pub fn rounds(&mut self) -> Result<(), Violation> {
        for node in 0..self.machines.len() {
            self.machines[node].set_clock(0);
            self.start(node)?;
        }
        // The first node has data already when the others come.
        for round in 0..self.settings.rounds {
            self.busy = true;
            for client in 0..self.clients.len() {
                let at = self.now + self.random.below(self.settings.think + 1);
                self.clients[client].waits_for = None;
                self.queue.at(at, Event::Client(client));
            }
            if round == 0 {
                self.pass(self.now + 50)?;
                for node in 1..self.machines.len() {
                    let upstream = self.random.below(node as u64) as usize;
                    self.replicate(node, upstream);
                }
            }
            let begin = self.now;
            self.schedule_faults();
            self.pass(begin + self.settings.round)?;
            self.come_to_rest()?;
            self.compare()?;
        }
        Ok(())
    }

    fn schedule_faults(&mut self) {
        for _ in 0..self.random.below(self.settings.faults + 1) {
            // Connections are those that will be there by then, more or less.
            let conns: Vec<u64> = (self.calls.saturating_sub(3)..=self.calls + 12).collect();
            let fault = fault::draw(&mut self.random, self.settings.nodes, &conns);
            let at = self.now + self.random.below(self.settings.round);
            self.queue.at(at, Event::Fault(fault));
        }
    }

    /// Ends all faults, gives the group one master, and waits until everybody has everything.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.trace(|| "all faults end".into());
        self.busy = false;
        self.queue.drop_faults();
        self.parts.clear();
        for node in 0..self.machines.len() {
            let machine = &mut self.machines[node];
            machine.disk.set_capacity(None);
            machine.disk.fail_after(None);
            // A log that could not be synced takes nothing more until a restart.
            let sick = |process: &Process| process.store.log().failure().is_some();
            if machine.process.as_ref().is_some_and(sick) {
                self.die(node, false);
            }
            self.machines[node].ill = false;
            self.start(node)?;
        }
        // An operator decides who is the master.
        for node in 0..self.machines.len() {
            self.give_up_failover(node, "at the end of the round")?;
        }
        let mut master = self.random.below(self.machines.len() as u64) as usize;
        let masters: Vec<usize> = (0..self.machines.len()).filter(|&node| self.upstream(node).is_none()).collect();
        if !masters.is_empty() && !self.random.one_in(4) {
            master = masters[self.random.below(masters.len() as u64) as usize];
        }
        self.promote(master)?;
        if self.upstream(master).is_some() {
            return Err(Violation(format!("node {master} cannot be promoted on a healthy disk")));
        }
        let mut attached = vec![master];
        for node in 0..self.machines.len() {
            if node == master {
                continue;
            }
            let upstream = match self.random.one_in(3) {
                true => attached[self.random.below(attached.len() as u64) as usize],
                false => master,
            };
            self.replicate(node, upstream);
            attached.push(node);
        }
        self.announce(master);
        let until = self.now + REST;
        loop {
            self.pass(self.now + 50)?;
            // One that was asked to take a role before its master thought better of it may have heard so late.
            for node in 0..self.machines.len() {
                if node != master && self.machines[node].process.is_some() && self.upstream(node).is_none() {
                    self.replicate(node, master);
                }
            }
            let Some(why) = self.unrest(master) else { break };
            if self.now > until {
                return Err(Violation(format!("the group does not come to rest: {why}")));
            }
        }
        self.trace(|| format!("rest under node {master}"));
        Ok(())
    }

    /// Why the group is not at rest, if it is not.
    fn unrest(&self, master: usize) -> Option<String> {
        let first = &self.machines[master];
        for (node, machine) in self.machines.iter().enumerate() {
            let Some(process) = &machine.process else { return Some(format!("node {node} is down")) };
            if node != master {
                let wire = process.link.as_ref().and_then(|link| link.wire.as_ref());
                if wire.is_none_or(|wire| wire.inflow.is_none()) {
                    let state = wire.map_or("no connection", |wire| wire.replica.state());
                    return Some(format!("the link of node {node} to {:?} is not up: {state}", process.upstream));
                }
            }
            if machine.content.end() != first.content.end() || machine.name != first.name {
                return Some(format!(
                    "node {node} stands at {} of {:?}, the master at {} of {:?}",
                    machine.content.end(),
                    machine.name,
                    first.content.end(),
                    first.name
                ));
            }
            if process.failover.running() || process.paused {
                return Some(format!("node {node} is {}", process.failover.word(process.upstream.is_some())));
            }
            if !process.requests.is_empty() || !process.waits.is_empty() {
                return Some(format!("clients wait at node {node}"));
            }
        }
        None
    }

    /// Compares everything with everything.
    fn compare(&mut self) -> Result<(), Violation> {
        self.counts.quiet_points += 1;
        let master = (0..self.machines.len()).find(|&node| self.upstream(node).is_none()).unwrap_or(0);
        let content = self.machines[master].content.clone();
        let name = self.machines[master].name;
        for node in 0..self.machines.len() {
            let machine = &self.machines[node];
            if machine.content != content {
                return Err(Violation(format!(
                    "nodes {master} and {node} agree in name and end, and their bytes differ"
                )));
            }
            let history = machine.process.as_ref().map(|process| process.store.history());
            if history.map(|history| history.id) != name {
                return Err(Violation(format!("node {node} must be called {name:?} and says {history:?}")));
            }
            self.check_content(node)?;
            self.check_data(node)?;
        }
        let mut seen = BTreeSet::new();
        let mut twice = None;
        each_command(&content.bytes, |args| {
            if args[0].eq_ignore_ascii_case(b"srem") {
                return;
            }
            for token in args.iter().skip(1).filter_map(|arg| token(arg)) {
                if !seen.insert(token.clone()) {
                    twice = Some(token);
                }
            }
        });
        if let Some(token) = twice {
            return Err(Violation(format!("the write {} was executed twice", token.escape_ascii())));
        }
        if let Some(token) = self.truth.refused.iter().find(|token| seen.contains(*token)) {
            return Err(Violation(format!("the write {} was refused and has happened", token.escape_ascii())));
        }
        if let Some(name) = name {
            let machines = &self.machines;
            let reparented = |node: usize, since: u64| given_up(machines, node, since, machines.len());
            let shrank =
                |node: usize, from: u64, to: u64| machines[node].shrank.iter().any(|&at| at >= from && at <= to);
            self.truth.judge(name, &content, &reparented, &shrank)?;
        }
        // Each write is judged once; what was lost stays lost.
        self.truth.writes.retain(|write| write.end <= content.end());
        Ok(())
    }
}
