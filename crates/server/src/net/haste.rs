//! Looking again before sleeping.
//!
//! A thread that has served all there was would sleep until the next request, which under a brisk load comes some microseconds later. To sleep and be
//! woken costs the thread a part of that, costs the client that wakes it some more, and a processor that went idle takes long to wake. So the thread
//! goes on looking for a while, as long as that finds something as a rule: waiting actively for about what a sleep costs is never much worse than the better
//! of the two (A. Karlin and others, "Competitive Randomized Algorithms for Nonuniform Problems", 1990).
//!
//! Where more threads want processors than there are, looking takes one from the clients that are to send: so a thread that waits for a processor itself
//! for a good part of the time ([`Crowd`]) does not look.
//!
//! With many clients that send one request each, it lets some more of them come first ([`Haste::pause`]). A round of several requests costs the thread less for
//! each, and clients that send while the thread works, and does not poll what they send to, do so at less cost too.

use std::time::Duration;

use ardb_base::priority::Times;

/// How long the thread looks before it sleeps. A client that sends one request after the other, and sleeps between them, comes back after 30 us.
const LOOKS: Duration = Duration::from_micros(50);
/// Luck at most. It rises by one with each success and falls by two with each failure, so two successes in three keep it up.
const MOST: u32 = 16;
/// Without luck, sleeps from one attempt to the next.
const REST: u32 = 64;

/// Share of the time for which a thread may wait for a processor and still look. With a client of one thread on two processors it is a thirtieth, with one of
/// two threads a third, whether the thread looks or not.
const CROWDED: f64 = 0.2;

/// Time to let more clients come, for each that was served in the last round,
const PAUSE: Duration = Duration::from_micros(5);
/// up to so many.
const PAUSES: u32 = 5;
/// There must be so many clients for each that was served: if most have just been, few can come.
const OTHERS: usize = 8;

/// What a thread has done in a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Clients that it looked at.
    pub clients: usize,
    /// Requests that they had sent.
    pub requests: usize,
}

/// Whether to look again.
#[derive(Debug, Default)]
pub struct Haste {
    luck: u32,
    rest: u32,
    spent: Duration,
    crowded: bool,
}

impl Haste {
    /// Takes note of the share of the time for which the thread has waited for a processor lately.
    pub fn waited(&mut self, share: f64) {
        self.crowded = share > CROWDED;
    }

    /// How long to look before sleeping.
    pub fn looks(&mut self) -> Duration {
        if self.crowded {
            return Duration::ZERO;
        }
        if self.luck > 0 {
            return LOOKS;
        }
        self.rest += 1;
        if self.rest < REST {
            return Duration::ZERO;
        }
        self.rest = 0;
        LOOKS
    }

    /// How long to let clients come, `all` of them being connected, before looking again after `round`.
    pub fn pause(&self, round: Round, all: usize) -> Duration {
        let is_brisk = self.luck > 0 && round.clients > 1 && round.clients * OTHERS <= all;
        // Clients that send many requests at once make rounds large enough.
        if !is_brisk || round.requests > round.clients {
            return Duration::ZERO;
        }
        PAUSE * u32::try_from(round.clients).unwrap_or(PAUSES).min(PAUSES)
    }

    /// Time that it took to look, and to wait before. It is no work, so a thread that has nothing else to do is not busy.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// What came of the looks, which took so long.
    pub fn learn(&mut self, found: bool, took: Duration) {
        self.spent += took;
        self.luck = if found { (self.luck + 1).min(MOST) } else { self.luck.saturating_sub(2) };
    }
}

/// How much a thread waits for a processor that others have.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Of the thread. `None` where the system does not tell.
    times: Option<Times>,
    waited: Duration,
    at: Duration,
}

impl Crowd {
    /// That of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Crowd {
        Crowd { times: Times::of_this_thread().ok(), waited: Duration::ZERO, at: Duration::ZERO }
    }

    /// The share of the time since the last call, until `now`, for which it waited.
    pub fn share(&mut self, now: Duration) -> f64 {
        let Some(waited) = self.waited() else { return 0.0 };
        let more = waited.saturating_sub(std::mem::replace(&mut self.waited, waited));
        let passed = now.saturating_sub(std::mem::replace(&mut self.at, now));
        more.as_secs_f64() / passed.as_secs_f64().max(1e-3)
    }

    /// How long it has waited, all together; none where the system does not tell.
    pub fn waited(&self) -> Option<Duration> {
        Some(self.times.as_ref()?.read()?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_for_a_processor_does_not_look() {
        let mut haste = Haste::default();
        haste.learn(true, Duration::ZERO);
        for (share, looks) in [(0.05, LOOKS), (0.35, Duration::ZERO), (0.05, LOOKS)] {
            haste.waited(share);
            assert_eq!(haste.looks(), looks);
        }
    }

    #[test]
    fn the_system_says_how_long_threads_wait() {
        // All processors of the machine: a group may allow the process less time than it has processors.
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let threads = stat.lines().filter(|line| line.starts_with("cpu")).count().max(1) * 4;
        let shares: Vec<f64> = std::thread::scope(|scope| {
            let busy = |_| {
                scope.spawn(|| {
                    let (mut crowd, began) = (Crowd::of_this_thread(), std::time::Instant::now());
                    assert!(crowd.share(Duration::ZERO) >= 0.0);
                    while began.elapsed() < Duration::from_millis(400) {
                        std::hint::spin_loop();
                    }
                    crowd.share(began.elapsed())
                })
            };
            let all: Vec<_> = (0..threads).map(busy).collect();
            all.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        // A system that does not count has no file, or one of zeros.
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").is_ok_and(|text| !text.starts_with("0 0"));
        assert_eq!(shares.iter().any(|share| *share > CROWDED), told, "{shares:?}");
    }

    /// Attempts in a thousand times, if `finds` says whether something comes soon.
    fn attempts(haste: &mut Haste, finds: impl Fn(u32) -> bool) -> u32 {
        let mut attempts = 0;
        for time in 0..1000 {
            if !haste.looks().is_zero() {
                attempts += 1;
                haste.learn(finds(time), Duration::from_nanos(1));
            }
        }
        attempts
    }

    #[test]
    fn more_clients_may_come_while_there_are_many_with_one_request_each() {
        let mut haste = Haste::default();
        let of = |clients, requests| Round { clients, requests };
        assert_eq!(haste.pause(of(2, 2), 50), Duration::ZERO, "nothing is known of the load");
        haste.learn(true, Duration::ZERO);
        assert_eq!(haste.pause(of(2, 2), 50), 2 * PAUSE);
        assert_eq!(haste.pause(of(6, 5), 50), 5 * PAUSE);
        for (clients, requests, all) in [(1, 1, 50), (2, 2, 5), (10, 10, 50), (2, 32, 50)] {
            assert_eq!(haste.pause(of(clients, requests), all), Duration::ZERO);
        }
    }

    #[test]
    fn it_looks_while_that_finds_something() {
        let mut haste = Haste::default();
        assert!(attempts(&mut haste, |_| true) > 900);
        assert_eq!(attempts(&mut haste, |time| time % 4 != 0), 1000);
        assert!(haste.spent() > Duration::from_nanos(1900));
        // Now hardly ever: the luck is used up first.
        let few = MOST + 1000 / REST + 2;
        assert!(attempts(&mut haste, |_| false) < few);
        assert!(attempts(&mut haste, |_| true) > 900);
        assert!(attempts(&mut haste, |time| time % 2 == 0) < 4 * few, "half of them is too few");
    }
}
