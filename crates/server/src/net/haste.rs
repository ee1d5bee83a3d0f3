//! Looking again before sleeping.
//!
//! A thread that has served all there was would sleep until the next request, which under a brisk load comes some microseconds later. To sleep and be
//! woken costs the thread a part of that, costs the client that wakes it some more, and a processor that went idle takes long to wake. So the thread
//! goes on looking for a while, as long as that finds something as a rule: waiting actively for about what a sleep costs is never much worse than the better
//! of the two (A. Karlin and others, "Competitive Randomized Algorithms for Nonuniform Problems", 1990).
//!
//! With many clients that send one request each, it lets some more of them come first ([`Haste::pause`]). A round of several requests costs the thread less for
//! each, and clients that send while the thread works, and does not poll what they send to, do so at less cost too.

use std::time::Duration;

/// How long the thread looks before it sleeps. A client that sends one request after the other, and sleeps between them, comes back after 30 us.
const LOOKS: Duration = Duration::from_micros(50);
/// Luck at most. It rises by one with each success and falls by two with each failure, so two successes in three keep it up.
const MOST: u32 = 16;
/// Without luck, sleeps from one attempt to the next.
const REST: u32 = 64;

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
}

impl Haste {
    /// How long to look before sleeping.
    pub fn looks(&mut self) -> Duration {
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

#[cfg(test)]
mod tests {
    use super::*;

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
