//! Looking again before sleeping.
//!
//! A thread that has served all there was would sleep until the next request, which under a brisk load comes a few microseconds later. To sleep and be
//! woken costs the thread about as much, and costs the client that wakes it, too. So it looks a few more times first, as long as that often finds something:
//! waiting actively for about what a sleep costs is never much worse than the better of the two (A. Karlin and others, "Competitive Randomized Algorithms
//! for Nonuniform Problems", 1990).
//!
//! With many clients that send one request each, it lets some more of them come first ([`Haste::pause`]). A round of several requests costs the thread less for
//! each, and clients that send while the thread works, and does not poll what they send to, do so at less cost too.

use std::time::Duration;

/// Looks without waiting before the thread sleeps. One takes some 0.35 us.
const LOOKS: u32 = 20;
/// Luck at most. It rises by two with each success and falls by one with each failure, so one success in three keeps it up.
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
    /// How many times to look before sleeping.
    pub fn looks(&mut self) -> u32 {
        if self.luck > 0 {
            return LOOKS;
        }
        self.rest += 1;
        if self.rest < REST {
            return 0;
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
        self.luck = if found { (self.luck + 2).min(MOST) } else { self.luck.saturating_sub(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts in a thousand times of which every `nth` has something to find soon.
    fn attempts(haste: &mut Haste, nth: u32) -> u32 {
        let mut attempts = 0;
        for time in 0..1000 {
            if haste.looks() > 0 {
                attempts += 1;
                haste.learn(time % nth == 0, Duration::from_nanos(1));
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
        assert!(attempts(&mut haste, 1) > 900);
        assert_eq!(attempts(&mut haste, 2), 1000);
        assert!(haste.spent() > Duration::from_nanos(1900));
        // Now hardly ever: the luck is used up first.
        assert!(attempts(&mut haste, 1_000_000) < MOST + 1000 / REST + 2);
        assert!(attempts(&mut haste, 1) > 900);
    }
}
