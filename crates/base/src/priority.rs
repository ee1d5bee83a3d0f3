//! How threads give way to one another.
#![allow(clippy::disallowed_methods, reason = "how long a thread has worked decides only when it pauses")]

use std::time::{Duration, Instant};

/// How far background work stands behind the threads that serve clients. Of a processor that both want it gets a tenth, and all of one that is idle.
pub const BACKGROUND: i32 = 10;
/// The last place: work that may as well wait.
pub const LAST: i32 = 19;

/// How long background work goes on without a pause.
const STRETCH: Duration = Duration::from_micros(200);
/// The pause, to which the system adds some microseconds. A sleep that is over before the thread has gone to sleep lets nobody in.
const PAUSE: Duration = Duration::from_micros(20);

/// Puts the calling thread, and the threads that it will start, `places` (0 to 19) behind the others of the process. It cannot come back. If the
/// system refuses, it stays where it is.
pub fn stand_behind(places: i32) {
    // Zero is the calling thread: Linux keeps this number for each thread.
    let _ = rustix::process::setpriority_process(None, places);
}

/// Work in the background that lets others go first, between two pieces of it.
///
/// To stand behind others does not suffice. Linux decides who runs when a thread wakes: one that has just had more than its share must wait, and then
/// nobody looks again until the next tick, up to 4 ms later. Nor does `sched_yield`, with which a thread that stands behind others gives away its share
/// for many milliseconds. To sleep, however briefly, does.
#[derive(Debug)]
pub struct Courtesy {
    since: Instant,
}

impl Courtesy {
    /// That of the calling thread, which from now on sleeps as exactly as the system can.
    #[must_use]
    pub fn of_this_thread() -> Courtesy {
        // As a rule the system rounds what a thread sleeps up by 50 us. If it refuses, the pauses are longer.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        Courtesy { since: Instant::now() }
    }

    /// Pauses if the last pause was [`STRETCH`] ago.
    pub fn now_and_then(&mut self) {
        if self.since.elapsed() >= STRETCH {
            std::thread::sleep(PAUSE);
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_and_its_children_stand_behind() {
        let place = || rustix::process::getpriority_process(None).expect("a thread has a priority");
        let before = place();
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                stand_behind(LAST);
                (place(), std::thread::spawn(place).join().expect("it does not panic"))
            });
            assert_eq!(there.join().expect("it does not panic"), (LAST, LAST));
        });
        assert_eq!(place(), before);
    }

    #[test]
    fn background_work_pauses_when_it_has_worked_for_long() {
        let mut courtesy = Courtesy::of_this_thread();
        let began = courtesy.since;
        while began.elapsed() < STRETCH {
            std::hint::spin_loop();
        }
        courtesy.now_and_then();
        assert!(courtesy.since >= began + STRETCH + PAUSE);
    }
}
