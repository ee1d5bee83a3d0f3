//! FAILOVER in the simulation: the driver of `ardb_node::failover`, on the master that hands its role over and on the replica that takes it, in the order in which
//! the server's threads do the same things. Where those give up the lock there are two events.

use ardb_base::id::Offset;
use ardb_node::failover::{Asked, Candidate, Hand, Look, Refused, Request, Stage, Target, may_take};
use ardb_node::role;
use ardb_repl::replica::Handing;

use crate::event::Event;
use crate::fault::Fault;
use crate::sabotage::Sabotage;
use crate::truth::Kind;
use crate::{Violation, World};

/// A node as the target of a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub usize);

impl Target for At {}

impl World<'_> {
    fn candidates(&self, node: usize) -> Vec<Candidate<At>> {
        let Some(process) = &self.machines[node].process else { return Vec::new() };
        let early = self.sabotage == Some(Sabotage::HandedOverEarly);
        let candidate = |feed: &crate::feed::Feed| {
            let peer = feed.peer.as_ref()?;
            let acknowledged = if early { Offset(u64::MAX) } else { peer.acknowledged() };
            let at = Some(At(usize::from(feed.profile.port)));
            Some(Candidate { at, online: peer.takes_stream(), acknowledged, checks: feed.profile.handover })
        };
        process.feeds.values().filter_map(candidate).collect()
    }

    /// An operator's FAILOVER, with what it may say, on the master that has most replicas.
    pub fn hand_over(&mut self) -> Result<(), Violation> {
        let feeds = |world: &World<'_>, node: usize| {
            world.machines[node].process.as_ref().map_or(0, |process| process.feeds.len())
        };
        let masters = (0..self.machines.len())
            .filter(|&node| self.machines[node].process.as_ref().is_some_and(|process| process.upstream.is_none()));
        let Some(node) = masters.max_by_key(|&node| feeds(self, node)) else { return Ok(()) };
        let candidates = self.candidates(node);
        let mut request = Request::default();
        if !candidates.is_empty() && self.random.one_in(2) {
            request.target = candidates[self.random.below(candidates.len() as u64) as usize].at;
        }
        if self.random.one_in(2) {
            let longest = [30, 300, 2000][self.random.below(3) as usize];
            request.timeout = Some(1 + self.random.below(longest));
            request.force = request.target.is_some() && self.random.one_in(2);
        }
        let now = self.now;
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        let paused = &mut process.paused;
        let is_replica = process.upstream.is_some();
        let begun = process.failover.begin(request.clone(), || is_replica, &candidates, now, || *paused = true);
        self.trace(|| format!("node {node}: {request:?}: {begun:?}"));
        if begun.is_err() {
            return Ok(());
        }
        self.counts.handovers += 1;
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        process.refresh_gates();
        let asked = process.failover.question(&process.store);
        self.note_log(node)?;
        if let Err(error) = asked {
            return self.give_up_failover(node, &format!("the log takes nothing: {error}"));
        }
        self.pump_soon(node);
        self.look_soon(node);
        // The one that will be asked is lost behind its last acknowledgement, or somebody thinks better of it.
        if let Some(At(target)) = request.target.filter(|_| self.busy && self.random.one_in(4)) {
            let fault = if self.random.one_in(3) { Fault::Kill(target) } else { Fault::Power(target) };
            let at = now + self.random.below(60);
            self.queue.at(at, Event::Fault(fault));
        }
        if self.random.one_in(3) {
            let at = now + self.random.below(3000);
            self.queue.at(at, Event::Fault(Fault::Abort(node)));
        }
        Ok(())
    }

    fn look_soon(&mut self, node: usize) {
        let incarnation = self.machines[node].incarnation;
        let at = self.now + 1 + self.random.below(10);
        self.queue.at(at, Event::Look { node, incarnation });
    }

    /// Carries a failover on.
    pub fn look_at_failover(&mut self, node: usize) -> Result<(), Violation> {
        let candidates = self.candidates(node);
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        match process.failover.look(&candidates, process.store.log().end(), self.now) {
            Look::Rest => {
                if process.failover.waits() {
                    self.look_soon(node);
                }
                Ok(())
            }
            Look::GiveUp => {
                self.counts.handovers_late += 1;
                self.give_up_failover(node, "no replica had everything in time")
            }
            Look::Hand(hand) => self.give_role(node, &hand),
        }
    }

    fn give_role(&mut self, node: usize, hand: &Hand<At>) -> Result<(), Violation> {
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        if !process.failover.give(process.node(), hand) {
            self.look_soon(node);
            return Ok(());
        }
        let At(target) = hand.target;
        self.trace(|| format!("node {node} gives its role to node {target}: {hand:?}"));
        self.counts.handovers_forced += u64::from(hand.end.is_none());
        if let Some(end) = hand.end {
            // It has said that it has everything. If that is not so, it has lost it since, with its machine or to another master.
            let (from, to) = (&self.machines[node], &self.machines[target]);
            let said = self.conns.values().filter(|conn| conn.nodes == [target, node]);
            let said = said.flat_map(|conn| conn.acks.iter().find(|(offset, _)| *offset >= end.0)).map(|(_, at)| *at);
            let since = said.min().unwrap_or(self.now);
            if !to.content.agrees(&from.content, end.0) && !to.shrank.iter().any(|&at| at >= since) {
                return Err(Violation(format!(
                    "node {node} hands its role over to node {target}, which has {} of {end} bytes and has lost nothing",
                    to.content.end()
                )));
            }
        }
        self.machines[node].handed = Some((hand.end, target));
        self.machines[node].heirs.push((self.now, target));
        let incarnation = self.machines[node].incarnation;
        let at = self.now + self.random.below(8);
        self.queue.at(at, Event::Hand { node, incarnation, target, complete: hand.how == Handing::Complete });
        Ok(())
    }

    /// The role counts as given away; now that becomes durable, and the new master is called.
    pub fn follow_heir(&mut self, node: usize, target: usize, complete: bool) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        if process.failover.handing().is_none() {
            return Ok(());
        }
        if let Err(error) = role::hand_over(&process.store, &target.to_string(), complete) {
            self.trace(|| format!("node {node} cannot write that it gives its role away: {error}"));
            return self.give_up_failover(node, "the state cannot be written");
        }
        process.upstream = Some(target);
        process.waits.clear();
        process.refresh_gates();
        self.link_up(node);
        self.trace(|| format!("node {node} follows its heir, node {target}"));
        if self.busy && self.random.one_in(3) {
            let fault = match self.random.below(7) {
                0 => Fault::Kill(node),
                1 => Fault::Power(node),
                2 => Fault::Kill(target),
                3 | 4 => Fault::Power(target),
                5 => Fault::Part(node, target),
                _ => Fault::Abort(node),
            };
            let at = self.now + self.random.below(4 * self.settings.delay + 20);
            self.queue.at(at, Event::Fault(fault));
        }
        Ok(())
    }

    /// FAILOVER ABORT, or another reason to give it up.
    pub fn give_up_failover(&mut self, node: usize, why: &str) -> Result<(), Violation> {
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        let is_replica = process.upstream.is_some();
        let before = process.failover.give_up(process.node(), || is_replica);
        if before == Stage::None {
            return Ok(());
        }
        self.trace(|| format!("node {node} gives its failover up ({why}): it was {before:?}"));
        self.counts.handovers_aborted += 1;
        match before {
            Stage::None | Stage::Waiting { .. } => {}
            Stage::Handing(_) if !is_replica => {
                let Some(process) = &self.machines[node].process else { return Ok(()) };
                if let Err(error) = role::keep(&process.store) {
                    self.trace(|| format!("node {node} cannot write that it keeps its role: {error}"));
                    // A start may find it given away.
                    self.machines[node].handed = None;
                    self.machines[node].reparented.push(self.now);
                }
            }
            Stage::Handing(_) | Stage::Resumed(_) => {
                self.counts.handovers_taken_back += u64::from(self.promote(node)?);
            }
        }
        self.release_writes(node);
        Ok(())
    }

    fn release_writes(&mut self, node: usize) {
        let now = self.now;
        let incarnation = self.machines[node].incarnation;
        let Some(process) = &mut self.machines[node].process else { return };
        if process.failover.running() {
            return;
        }
        process.paused = false;
        process.refresh_gates();
        if !process.requests.is_empty() && !std::mem::replace(&mut process.burst_is_due, true) {
            self.queue.at(now, Event::Burst { node, incarnation });
        }
    }

    /// The target is asked no more.
    fn failover_is_over(&mut self, node: usize, how: &str) {
        let Some(process) = &self.machines[node].process else { return };
        let Some(written) = process.failover.over(&process.store) else { return };
        self.trace(|| format!("node {node}: {how} ({written:?})"));
        self.release_writes(node);
    }

    /// The target lets us go on, or sends everything: it has the role.
    pub fn heir_accepts(&mut self, node: usize) {
        if self.machines[node].process.as_ref().is_some_and(|process| process.failover.handing().is_some()) {
            self.counts.handovers_done += 1;
            self.failover_is_over(node, "the failover is done");
        }
    }

    /// The target has answered our question with an error.
    pub fn heir_refuses(&mut self, node: usize, reply: &str) -> Result<(), Violation> {
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        match process.failover.refused(reply) {
            Refused::Master => self.failover_is_over(node, "the target is a master already"),
            Refused::Stay => self.failover_is_over(node, "the target does not take the role"),
            Refused::TakeBack => return self.give_up_failover(node, reply),
        }
        Ok(())
    }

    /// A replica is asked by its master to take the role. Gives what it answers if it does not.
    pub fn take_role(&mut self, node: usize, from: usize, asked: Asked<'_>) -> Result<Option<String>, Violation> {
        let Some(process) = &self.machines[node].process else { return Ok(None) };
        if let Err(why) = may_take(&process.store, process.upstream.is_some(), asked) {
            self.trace(|| format!("node {node} does not take the role of node {from}: {why}"));
            self.counts.handovers_behind += u64::from(matches!(why, ardb_node::failover::NotTaken::Behind { .. }));
            return Ok(Some(format!("-{why}\r\n")));
        }
        let (heir, giver) = (&self.machines[node], &self.machines[from]);
        let told = u64::try_from(asked.next).unwrap_or(0).saturating_sub(1);
        // What was handed over, though the one who did so may have lost some of it since.
        let name = heir.name.and_then(|name| self.truth.name(name));
        if asked.complete && !name.is_some_and(|name| name.content.agrees(&heir.content, told)) {
            return Err(Violation(format!(
                "node {node} takes the role of node {from} with {} of the {told} bytes that were handed over",
                heir.content.end()
            )));
        }
        // Only what was handed over with everything must not be shorter then.
        let whole = giver.handed.is_some_and(|(end, target)| end.is_some() && target == node);
        let kind = if whole { Kind::HandOver { from, checked: asked.complete } } else { Kind::Promotion };
        match self.promote_as(node, kind)? {
            true => Ok(None),
            false => Ok(Some("-ERR the state cannot be written\r\n".to_owned())),
        }
    }
}
