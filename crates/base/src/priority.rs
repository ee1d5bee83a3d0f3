//! How threads give way to one another.
#![allow(clippy::disallowed_methods, reason = "how long a thread has worked decides only when it pauses")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use uapi::c;

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

/// A thread that can be put aside, where it works only while nobody else wants its processor, and be brought back to its place.
///
/// Linux takes a processor that has nothing but such work for an idle one: a thread that wakes goes there, and begins at once. Behind others, but not aside, such work
/// keeps the processor to itself in their eyes: those who could have had it wait behind somebody who will not let go of his.
#[derive(Debug)]
pub struct Aside {
    thread: Pid,
    /// Its own place.
    place: i32,
    times: Times,
    /// What the system says of it, its state among other things.
    stat: File,
}

impl Aside {
    /// The calling thread.
    ///
    /// # Errors
    /// The system does not tell how it fares.
    pub fn of_this_thread() -> io::Result<Aside> {
        Ok(Aside {
            thread: rustix::thread::gettid(),
            place: rustix::process::getpriority_process(None)?,
            times: Times::of_this_thread()?,
            stat: File::open("/proc/thread-self/stat")?,
        })
    }

    /// Whether it is the calling thread.
    #[must_use]
    pub fn is_this_thread(&self) -> bool {
        rustix::thread::gettid() == self.thread
    }

    /// Puts it aside. Gives whether that could be done.
    pub fn put(&self) -> bool {
        self.schedule(c::SCHED_IDLE) && self.stand(self.place.max(BACKGROUND))
    }

    /// Has it work [`BACKGROUND`] places behind others, who must not have it wait for ever. Gives whether that could be done.
    pub fn bring_behind_others(&self) -> bool {
        self.stand(self.place.max(BACKGROUND)) && self.schedule(c::SCHED_OTHER)
    }

    /// Brings it back to its own place. Gives whether that could be done.
    pub fn bring_back(&self) -> bool {
        self.schedule(c::SCHED_OTHER) && self.stand(self.place)
    }

    fn schedule(&self, policy: i32) -> bool {
        let no_parameter = c::sched_param { sched_priority: 0 };
        uapi::sched_setscheduler(self.thread.as_raw_nonzero().get(), policy, &no_parameter).is_ok()
    }

    fn stand(&self, place: i32) -> bool {
        rustix::process::setpriority_process(Some(self.thread), place).is_ok()
    }

    /// How long it has worked; none where the system does not tell.
    #[must_use]
    pub fn worked(&self) -> Option<Duration> {
        Some(self.times.read()?.0)
    }

    /// Whether it works, or waits for a processor.
    #[must_use]
    pub fn wants_to_run(&self) -> bool {
        let mut text = [0; 128];
        let len = self.stat.read_at(&mut text, 0).unwrap_or(0);
        // The state follows the name, which is in brackets and may have some.
        let name_ends = text[..len].iter().rposition(|byte| *byte == b')');
        name_ends.is_some_and(|at| text[at..len].starts_with(b") R"))
    }
}

/// Whether threads that were put aside may be brought back: whoever may not, as a process without `CAP_SYS_NICE` whose limits (`RLIMIT_NICE`) are the usual ones, could
/// only leave them there.
#[must_use]
pub fn may_bring_back() -> bool {
    let attempt = || Aside::of_this_thread().is_ok_and(|aside| aside.put() && aside.bring_back());
    // One that cannot come back must not be the caller.
    std::thread::scope(|scope| scope.spawn(attempt).join().unwrap_or(false))
}

/// For how long a thread has worked, and has waited for a processor that others had.
#[derive(Debug)]
pub struct Times(File);

impl Times {
    /// Those of the calling thread; others may read them.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn of_this_thread() -> io::Result<Times> {
        Ok(Times(File::open("/proc/thread-self/schedstat")?))
    }

    /// Both, since it began; none where the system does not tell.
    #[must_use]
    pub fn read(&self) -> Option<(Duration, Duration)> {
        let mut text = [0; 64];
        let len = self.0.read_at(&mut text, 0).ok()?;
        let mut fields = std::str::from_utf8(&text[..len]).ok()?.split_ascii_whitespace();
        let mut next = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
        Some((next()?, next()?))
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

    /// The policy by which the system says that a thread runs: 0 is the usual one, 5 that of threads put aside.
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("it is there");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        fields.split_ascii_whitespace().nth(38).expect("a policy").to_string()
    }

    #[test]
    fn a_thread_is_put_aside_and_brought_back_to_its_place() {
        let place = || rustix::process::getpriority_process(None).expect("a thread has a priority");
        let there = std::thread::spawn(move || {
            let before = place();
            let aside = Aside::of_this_thread().expect("the system tells");
            assert!(aside.is_this_thread() && aside.wants_to_run());
            assert!(std::thread::scope(|scope| scope.spawn(|| !aside.is_this_thread()).join().expect("no panic")));
            assert_eq!(policy(), "0");
            assert!(aside.put(), "everybody may");
            assert_eq!((policy().as_str(), place()), ("5", BACKGROUND));
            let came_behind = aside.bring_behind_others();
            assert_eq!((policy().as_str(), place()), (if came_behind { "0" } else { "5" }, BACKGROUND));
            let came_back = aside.bring_back();
            assert!(!came_back || (policy().as_str(), place()) == ("0", before));
            came_back
        });
        assert_eq!(there.join().expect("it does not panic"), may_bring_back());
    }

    #[test]
    fn a_thread_that_sleeps_wants_no_processor() {
        let (send, receive) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let there = std::thread::spawn(move || {
            send.send(Aside::of_this_thread().expect("the system tells")).expect("it is awaited");
            ended.recv()
        });
        let aside = receive.recv().expect("it is sent");
        let began = Instant::now();
        while aside.wants_to_run() {
            assert!(began.elapsed() < Duration::from_secs(20));
        }
        assert!(aside.worked().is_some());
        drop(end);
        assert!(there.join().expect("it does not panic").is_err());
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
