//! How many of the network threads serve clients.
//!
//! A thread more costs something: batches get smaller, threads wait for each other at the writer lock, and where the processors are busy already, as with
//! clients on the same machine, they take turns with those. So one thread serves all clients until it is busy all the time; then one more is
//! *tried*, and kept only if more commands are executed with it. A thread too many is found in the same way. Each try that was in vain makes the
//! wait for the next one twice as long.
//!
//! A client belongs to the thread `id % active` ([`Balance::home`]); when that changes, its old thread hands it over between two of its bursts
//! ([`super::worker`]), unless others know it by its thread (a subscriber, a client that waits).
//!
//! [`Judge`] decides and knows neither clock nor system; [`run`] measures for it. With `io-threads` other than 0 there are as many as it says, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock;
use crate::server::Server;

/// How often the load is measured while there is some.
const TICK: Duration = Duration::from_millis(20);
/// How often while one thread serves all clients and is not busy: then there is nothing to decide, and each look takes a processor from somebody.
const QUIET: Duration = Duration::from_millis(100);
/// A thread that is busy for such a share of the time is all used.
const BUSY: f64 = 0.9;
/// Processors that must have nothing to do, so that a thread is tried soon: with less than most of one it seldom helps, and while it is tried clients wait
/// longer. A mean in which each tick has this part ([`FRESH`]): the system counts in hundredths of a second, so a single tick, in which there are two,
/// says little.
const FREE: f64 = 0.75;
const FRESH: f64 = 0.3;
/// How much more must be executed, so that a further thread stays.
const GAIN: f64 = 1.08;
/// What must still be executed, so that a thread less is enough.
const SAME: f64 = 0.97;
/// Ticks before a try whose rates are its measure, and ticks of the try itself after the first one, in which clients move.
const WINDOW: usize = 2;
/// Ticks until the second try of a kind, and at most between two.
const FIRST_WAIT: u32 = 25;
const LAST_WAIT: u32 = 3000;
/// Ticks of full load without a free processor before a thread is tried all the same.
const CROWDED: u32 = 50;

/// The number of threads that serve clients.
pub struct Balance {
    active: AtomicUsize,
}

impl Balance {
    /// From now on there are so many.
    pub fn set(&self, active: usize) {
        self.active.store(active.max(1), Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// The thread that a client belongs to.
    #[must_use]
    pub fn home(&self, client: u64) -> usize {
        (client % self.active() as u64) as usize
    }
}

impl Default for Balance {
    /// One.
    fn default() -> Balance {
        Balance { active: AtomicUsize::new(1) }
    }
}

/// What was measured in one tick.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Processors that the network threads used or waited for, of one each at most.
    pub used: f64,
    /// Processors that had nothing to do.
    pub free: f64,
    /// Commands a second.
    pub rate: f64,
}

/// A number of threads that is being tried.
#[derive(Debug)]
struct Try {
    /// How many there were before.
    before: usize,
    /// Commands a second then.
    rate: f64,
    /// Rates since.
    seen: Vec<f64>,
}

/// When to try again what was tried in vain.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    /// Ticks until then.
    left: u32,
    /// Ticks of the next wait.
    next: u32,
}

impl Patience {
    fn failed(&mut self) {
        self.left = self.next.clamp(FIRST_WAIT, LAST_WAIT);
        self.next = (self.left * 2).min(LAST_WAIT);
    }

    fn tick(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

/// Decides how many threads there should be.
#[derive(Debug)]
pub struct Judge {
    most: usize,
    active: usize,
    trial: Option<Try>,
    /// Rates of the last ticks with this number of threads.
    rates: Vec<f64>,
    /// Processors that had nothing to do lately, and since there is full load.
    free: f64,
    room: f64,
    /// Ticks of full load in a row, and ticks with hardly any.
    full: u32,
    idle: u32,
    up: Patience,
    down: Patience,
}

impl Judge {
    /// For a server with so many threads, of which one serves clients.
    #[must_use]
    pub fn new(most: usize) -> Judge {
        Judge {
            most: most.max(1),
            active: 1,
            trial: None,
            rates: Vec::new(),
            free: 0.0,
            room: 0.0,
            full: 0,
            idle: 0,
            up: Patience::default(),
            down: Patience::default(),
        }
    }

    /// Hears of another tick; says how many threads there should be from now on.
    pub fn tick(&mut self, load: Load) -> usize {
        let (may_grow, may_shrink) = (self.up.tick(), self.down.tick());
        let others = (self.active - 1) as f64;
        self.free += FRESH * (load.free - self.free);
        // A load that fewer threads carry easily needs no try.
        self.idle = if load.used < 0.5 * others { self.idle + 1 } else { 0 };
        if self.idle >= 3 {
            self.trial = None;
            return self.become_many(self.active - 1);
        }
        if let Some(trial) = &mut self.trial {
            trial.seen.push(load.rate);
            if trial.seen.len() <= WINDOW {
                return self.active;
            }
            return self.conclude();
        }
        self.rates.push(load.rate);
        if self.rates.len() > WINDOW {
            self.rates.remove(0);
        }
        // What was free before the load came says nothing.
        (self.full, self.room) = if load.used >= BUSY * self.active as f64 {
            (self.full + 1, self.room + FRESH * (load.free - self.room))
        } else {
            (0, 0.0)
        };
        if self.rates.len() < WINDOW {
            return self.active;
        }
        let wanted = self.full >= WINDOW as u32 && (self.room >= FREE || self.full >= CROWDED);
        if wanted && may_grow && self.active < self.most {
            return self.attempt(self.active + 1);
        }
        if self.active > 1 && may_shrink && self.free < FREE && load.used < others + 0.1 {
            return self.attempt(self.active - 1);
        }
        self.active
    }

    fn attempt(&mut self, many: usize) -> usize {
        let rate = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        self.trial = Some(Try { before: self.active, rate, seen: Vec::new() });
        self.become_many(many)
    }

    /// Keeps what was tried, or goes back.
    fn conclude(&mut self) -> usize {
        let Some(trial) = self.trial.take() else { return self.active };
        let seen = &trial.seen[1..];
        let rate = seen.iter().sum::<f64>() / seen.len() as f64;
        if self.active > trial.before {
            if rate >= trial.rate * GAIN {
                // What is good for now need not be doubted at once.
                self.down.failed();
                return self.active;
            }
            self.up.failed();
        } else {
            if rate >= trial.rate * SAME {
                self.up.failed();
                return self.active;
            }
            self.down.failed();
        }
        self.become_many(trial.before)
    }

    fn become_many(&mut self, many: usize) -> usize {
        if many == 1 && self.idle > 0 {
            // Another load may come, of which nothing is known.
            (self.up, self.down) = (Patience::default(), Patience::default());
        }
        (self.rates, self.full, self.room, self.idle) = (Vec::new(), 0, 0.0, 0);
        self.active = many;
        many
    }
}

/// Measures the load of the network threads and sets their number, until `stop`.
pub fn run(server: &Arc<Server>, stop: &AtomicBool) {
    let mut judge = Judge::new(server.threads().len());
    let mut last = Sample::take(server, false);
    while !stop.load(Ordering::SeqCst) {
        let quiet = judge.active == 1 && last.quiet;
        std::thread::park_timeout(if quiet { QUIET } else { TICK });
        let sample = Sample::take(server, !quiet);
        let load = sample.since(&last);
        last = Sample { quiet: load.used < BUSY, ..sample };
        let before = judge.active;
        let active = judge.tick(load);
        if active != before {
            log::debug!("{active} network threads serve clients: {load:?}");
            server.balance.set(active);
            server.look_again();
        }
    }
}

/// The counters that [`Load`] is the change of.
struct Sample {
    at: Duration,
    /// Processor time of the network threads.
    used: Duration,
    /// Time that processors had nothing to do, all together, if it was looked up.
    free: Option<Duration>,
    commands: u64,
    quiet: bool,
}

impl Sample {
    fn take(server: &Server, with_free: bool) -> Sample {
        let at = clock::monotonic();
        Sample {
            at,
            used: server.threads().iter().map(|thread| thread.used(at)).sum(),
            free: if with_free { free_time() } else { None },
            commands: server.shared.stats.commands.get(),
            quiet: true,
        }
    }

    fn since(&self, last: &Sample) -> Load {
        let passed = self.at.saturating_sub(last.at).as_secs_f64().max(1e-6);
        let free = match (self.free, last.free) {
            (Some(now), Some(then)) => now.saturating_sub(then).as_secs_f64() / passed,
            _ => 0.0,
        };
        Load {
            used: self.used.saturating_sub(last.used).as_secs_f64() / passed,
            free,
            // A counter that was reset counts from zero.
            rate: self.commands.checked_sub(last.commands).unwrap_or(self.commands) as f64 / passed,
        }
    }
}

/// How long all processors together had nothing to do since the machine started, or waited for the disk alone, from `/proc/stat`; in hundredths of a
/// second, as the system counts there. What works for threads that stand behind others (nice) is not free: a checkpoint is in its middle.
fn free_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let mut fields = text.lines().next()?.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (_user, _nice, _system, idle, waiting) = (next()?, next()?, next()?, next()?, next()?);
    Some(Duration::from_secs_f64((idle + waiting) as f64 / rustix::param::clock_ticks_per_second() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose commands a second depend on the number of threads.
    fn drive(judge: &mut Judge, ticks: usize, load: impl Fn(usize) -> Load) -> (usize, usize) {
        let mut changes = 0;
        for _ in 0..ticks {
            let before = judge.active;
            changes += usize::from(judge.tick(load(before)) != before);
        }
        (judge.active, changes)
    }

    #[test]
    fn a_thread_that_helps_stays() {
        let mut judge = Judge::new(4);
        let load = |active: usize| Load {
            used: active as f64 * 0.98,
            free: 4.0 - active as f64,
            rate: 1000.0 * active as f64,
        };
        let (active, changes) = drive(&mut judge, 20, load);
        assert_eq!((active, changes), (4, 3), "each after a try of a few ticks");
        assert_eq!(drive(&mut judge, 1000, load), (4, 0));
    }

    #[test]
    fn one_that_does_not_help_goes_and_is_seldom_tried_again() {
        let mut judge = Judge::new(2);
        let load = |active: usize| Load { used: 0.95 * active as f64, free: 1.0, rate: 1000.0 };
        let (active, changes) = drive(&mut judge, 10, load);
        assert_eq!((active, changes), (1, 2));
        let (_, changes) = drive(&mut judge, 10_000, load);
        assert!(changes < 30, "{changes}");
    }

    #[test]
    fn with_no_free_processor_one_is_tried_late() {
        let mut judge = Judge::new(2);
        let load = |active: usize| Load { used: 0.95 * active as f64, free: 0.0, rate: 1000.0 * active as f64 };
        assert_eq!(drive(&mut judge, CROWDED as usize - 1, load), (1, 0));
        assert_eq!(drive(&mut judge, 10, load), (2, 1));
    }

    #[test]
    fn a_hundredth_of_a_second_without_work_is_no_free_processor() {
        let mut judge = Judge::new(2);
        for tick in 0..CROWDED - 1 {
            let free = if tick % 8 == 0 { 0.5 } else { 0.0 };
            assert_eq!(judge.tick(Load { used: 0.95, free, rate: 1000.0 }), 1, "tick {tick}");
        }
    }

    #[test]
    fn what_was_free_before_the_load_is_not_free_under_it() {
        let mut judge = Judge::new(2);
        drive(&mut judge, 20, |_| Load { used: 0.1, free: 1.9, rate: 10.0 });
        let load = |active: usize| Load { used: 0.95 * active as f64, free: 0.4, rate: 1000.0 };
        assert_eq!(drive(&mut judge, CROWDED as usize - 1, load), (1, 0));
    }

    #[test]
    fn a_thread_too_many_is_found() {
        let mut judge = Judge::new(2);
        drive(&mut judge, 10, |active| Load { used: active as f64, free: 1.0, rate: 1000.0 * active as f64 });
        assert_eq!(judge.active, 2);
        // Now the clients take the processors, and one thread does as much as two.
        let crowded = |_: usize| Load { used: 0.9, free: 0.0, rate: 1000.0 };
        assert_eq!(drive(&mut judge, 30, crowded), (1, 1));
    }

    #[test]
    fn without_load_one_is_left_and_what_was_learned_is_forgotten() {
        let mut judge = Judge::new(3);
        drive(&mut judge, 30, |active| Load { used: active as f64, free: 1.0, rate: 1000.0 * active as f64 });
        assert_eq!(judge.active, 3);
        assert_eq!(drive(&mut judge, 10, |_| Load { used: 0.01, free: 3.0, rate: 1.0 }), (1, 2));
        assert_eq!((judge.up.left, judge.down.left), (0, 0));
    }

    #[test]
    fn clients_are_divided_by_their_numbers() {
        let balance = Balance::default();
        assert_eq!(balance.home(17), 0);
        balance.set(3);
        assert_eq!((0..6).map(|id| balance.home(id)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_system_says_how_long_it_had_nothing_to_do() {
        assert!(free_time().is_some_and(|free| free > Duration::ZERO));
    }
}
