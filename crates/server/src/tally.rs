//! What the commands of a burst leave in the statistics, and the clock that goes with them.
//!
//! Threads share the counters, so each addition locks a cache line, and reading the clock holds up the processor for longer than a quick command needs. Clients
//! that send many requests at once mostly repeat one command, and such a run is added up here first, and timed together.
//!
//! Invariants: the counters have all of a burst before its replies leave, and all that a client has done so far before it runs a command that may
//! show or reset them; a run has its whole time; no command that is slow by the slow log's limit goes without its time.

use std::sync::atomic::Ordering;

use ardb_commands::{Command, Ctx, Flags};

use crate::clock;
use crate::server::Server;

/// Commands of a run after which the clock is read at the latest.
const UNTIMED: u32 = 8;

/// The commands of one burst. What it has added up reaches the counters when it is dropped, if not before.
pub struct Tally<'s> {
    server: &'s Server,
    /// When the clock was read last, us since 1970.
    time: i64,
    /// [`clock::ticks`] then.
    ticks: i64,
    /// Commands of the run that have ended since.
    untimed: u32,
    /// The clock is read after each command, since a slow one might be missed otherwise, or somebody wants to know when each began.
    is_exact: bool,
    /// The command whose calls these are, with its place among the counters and its name there.
    run: Option<(&'static Command, Option<usize>, &'static str)>,
    /// Calls that count as the client's own, the time that they took, and how many failed.
    calls: u64,
    micros: u64,
    failed: u64,
    /// All calls, and the changes that they made.
    called: u64,
    changes: u64,
}

impl<'s> Tally<'s> {
    /// Nothing yet. The first command begins now.
    #[must_use]
    pub fn new(server: &'s Server) -> Tally<'s> {
        let (time, ticks) = (clock::unix_us(), clock::ticks());
        let (calls, micros, failed, called, changes) = (0, 0, 0, 0, 0);
        Tally { server, time, ticks, untimed: 0, is_exact: true, run: None, calls, micros, failed, called, changes }
    }

    /// About when the next command begins, us since 1970: no later, and earlier by less than a tick and [`UNTIMED`] commands.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }

    /// A call of this command comes next.
    #[inline]
    pub fn begin(&mut self, command: &'static Command) {
        if !is_blind(command) || !self.run.is_some_and(|(other, ..)| std::ptr::eq(other, command)) {
            self.turn_to(command);
        }
    }

    #[cold]
    fn turn_to(&mut self, command: &'static Command) {
        self.settle();
        let place = self.server.calls.place(command);
        let name = place.map_or(command.name, |place| self.server.calls.name(place));
        self.run = Some((command, place, name));
        let server = self.server;
        let limit = server.slowlog.limit.load(Ordering::Relaxed);
        // Monitors are told when each command began.
        let is_watched = server.clients.monitors.load(Ordering::Relaxed) > 0;
        self.is_exact = !is_blind(command) || is_watched || (0..clock::TICK.as_micros() as i64).contains(&limit);
    }

    /// The name of the command at hand with that of its container.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.run.map_or("", |(_, _, name)| name)
    }

    /// The command at hand has ended; whether it counts as a call of the client's own, and whether it failed. Gives how long it took, us, or 0 if that was not
    /// long: the clock is read for some quick commands at once, so one that was not quick has the time of up to [`UNTIMED`] before it too.
    #[inline]
    pub fn end(&mut self, ctx: &Ctx<'_>, counts: bool, failed: bool) -> u64 {
        self.called += ctx.calls;
        self.changes += ctx.dirty;
        self.calls += u64::from(counts);
        self.failed += u64::from(counts && failed);
        self.untimed += 1;
        if counts && !self.is_exact && self.untimed < UNTIMED && clock::ticks() == self.ticks {
            return 0;
        }
        let is_alone = self.untimed == 1;
        let took = self.read_clock();
        if counts || !is_alone {
            self.micros += took;
        }
        took
    }

    /// How long the commands took that have ended since the clock was read last, us.
    fn read_clock(&mut self) -> u64 {
        let start = std::mem::replace(&mut self.time, clock::unix_us());
        (self.ticks, self.untimed) = (clock::ticks(), 0);
        (self.time - start).max(0) as u64
    }

    /// Adds to the counters what has been added up here.
    pub fn settle(&mut self) {
        if self.untimed > 0 {
            self.micros += self.read_clock();
        }
        let server = self.server;
        for (counter, sum) in
            [(&server.shared.stats.commands, &mut self.called), (&server.stats.changes, &mut self.changes)]
        {
            if *sum > 0 {
                counter.add(std::mem::take(sum));
            }
        }
        if let Some((_, Some(place), _)) = self.run
            && self.calls > 0
        {
            server.calls.add(place, self.calls, self.micros, self.failed);
        }
        (self.calls, self.micros, self.failed) = (0, 0, 0);
    }
}

/// Whether the command cannot look at the counters: those that can neither read nor write data, nor are they quick.
fn is_blind(command: &Command) -> bool {
    command.flags.0 & (Flags::WRITE.0 | Flags::READONLY.0 | Flags::FAST.0) != 0
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}
