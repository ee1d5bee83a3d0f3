//! The long part of a checkpoint in the background is put aside: it works only while nobody else wants its processor.
//!
//! It could work so for ever where others want all processors all the time. So somebody watches it meanwhile, and brings it back to its place behind the others, where it gets
//! a tenth of a processor that they want, too: for a while if it got next to nothing, and as long as writers will soon be slowed.
//!
//! Invariants: only a thread that may be brought back is put aside, only while it holds none of the locks that who serves clients waits for, and it is watched all the time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use ardb_base::priority;

/// How often it is watched.
const LOOK: Duration = Duration::from_millis(10);
/// What it must have worked from one look to the next, unless it waits for something else than a processor: what it would get behind others.
const LEAST: Duration = Duration::from_millis(1);
/// So many looks in a row that find less than that bring it back,
const HUNGRY: u32 = 3;
/// and after so many it is put aside again.
const FED: u32 = 10;

/// The thread that is put aside, and who watches it. They share no lock, which one that is aside might hold for long.
#[derive(Debug, Default)]
pub struct Aside {
    /// Who works in the background, if it may be put aside.
    thread: OnceLock<priority::Aside>,
    watcher: OnceLock<Thread>,
    /// How often it has begun such a part, or ended one: while this is odd it is aside, unless it was brought back.
    turns: AtomicU64,
    stop: AtomicBool,
}

/// As long as this lives, the thread is aside, unless it was brought back.
#[derive(Debug)]
pub struct Guard<'a>(Option<(&'a Aside, &'a priority::Aside)>);

impl Aside {
    /// From now on the calling thread is the one that is put aside. It must be watched.
    pub fn take_this_thread(&self) {
        match priority::Aside::of_this_thread() {
            Ok(thread) => drop(self.thread.set(thread)),
            Err(error) => log::debug!("Checkpoints are not put aside: {error}"),
        }
    }

    /// Puts the calling thread aside, if it is the one.
    pub fn enter(&self) -> Guard<'_> {
        let Some(thread) = self.thread.get().filter(|thread| thread.is_this_thread()) else { return Guard(None) };
        self.turns.fetch_add(1, Ordering::SeqCst);
        self.wake();
        thread.put();
        Guard(Some((self, thread)))
    }

    /// Watches the thread until [`Aside::stop`]. `is_pressed` says whether its work is urgent.
    #[allow(clippy::disallowed_methods, reason = "a thread that gets no processor for some of the system's time")]
    pub fn watch(&self, is_pressed: impl Fn() -> bool) {
        let _ = self.watcher.set(std::thread::current());
        let mut last = 0;
        // Looks that found it hungry, and looks since it was brought back.
        let (mut hungry, mut behind) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            let turn = self.turns.load(Ordering::SeqCst);
            let Some(thread) = self.thread.get().filter(|_| turn % 2 == 1) else {
                std::thread::park();
                continue;
            };
            if std::mem::replace(&mut last, turn) != turn {
                (hungry, behind) = (0, 0);
            }
            let before = thread.worked().unwrap_or_default();
            std::thread::sleep(LOOK);
            if behind > 0 {
                behind += 1;
                if behind > FED && !is_pressed() {
                    (hungry, behind) = (0, 0);
                    thread.put();
                    self.see_to_its_place(thread, turn);
                }
                continue;
            }
            let worked = thread.worked().unwrap_or_default().saturating_sub(before);
            hungry = if worked < LEAST && thread.wants_to_run() { hungry + 1 } else { 0 };
            if hungry >= HUNGRY || is_pressed() {
                thread.bring_behind_others();
                self.see_to_its_place(thread, turn);
                behind = 1;
            }
        }
    }

    /// Its turn may have ended before it was moved, and another begun: then it must not stay where it was moved to.
    fn see_to_its_place(&self, thread: &priority::Aside, mut turn: u64) {
        loop {
            let now = self.turns.load(Ordering::SeqCst);
            if std::mem::replace(&mut turn, now) == now {
                return;
            }
            if now % 2 == 1 {
                thread.put()
            } else {
                thread.bring_back()
            };
        }
    }

    /// Ends the watch.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some((aside, thread)) = self.0 {
            aside.turns.fetch_add(1, Ordering::SeqCst);
            if !thread.bring_back() {
                log::warn!("The thread of checkpoints cannot be brought back to its place");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the system's own time is what is tested")]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Whether the calling thread is aside, as the system says it.
    fn is_aside() -> bool {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("it is there");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        fields.split_ascii_whitespace().nth(38) == Some("5")
    }

    /// Works for so long, while others keep so many threads busy. Gives whether it was aside all the time.
    fn stays(busy: usize, is_pressed: bool, long: Duration) -> bool {
        let (aside, over) = (Aside::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..busy {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            scope.spawn(|| aside.watch(|| is_pressed));
            let work = scope.spawn(|| {
                aside.take_this_thread();
                let guard = aside.enter();
                let began = Instant::now();
                let mut stays = true;
                while began.elapsed() < long {
                    stays &= is_aside();
                }
                drop(guard);
                assert!(!is_aside());
                stays
            });
            let stays = work.join().expect("it does not panic");
            over.store(true, Ordering::Relaxed);
            aside.stop();
            stays
        })
    }

    #[test]
    fn it_is_brought_back_when_others_let_it_do_nothing_or_its_work_is_urgent() {
        if !priority::may_bring_back() {
            return;
        }
        let busy = 4 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        assert!(!stays(busy, false, Duration::from_secs(2)), "it got nothing");
        assert!(!stays(0, true, Duration::from_millis(200)), "it is urgent");
    }

    #[test]
    fn it_is_put_aside_again() {
        if !priority::may_bring_back() {
            return;
        }
        let (aside, is_urgent) = (Aside::default(), AtomicBool::new(true));
        std::thread::scope(|scope| {
            scope.spawn(|| aside.watch(|| is_urgent.load(Ordering::Relaxed)));
            let work = scope.spawn(|| {
                aside.take_this_thread();
                let guard = aside.enter();
                let wait_for = |wanted| {
                    let began = Instant::now();
                    while is_aside() != wanted {
                        assert!(began.elapsed() < Duration::from_secs(20), "{wanted}");
                    }
                };
                wait_for(false);
                is_urgent.store(false, Ordering::Relaxed);
                wait_for(true);
                drop(guard);
                assert!(!is_aside());
            });
            let ended = work.join();
            aside.stop();
            ended.expect("it does not panic");
        });
    }

    #[test]
    fn only_the_thread_itself_is_put_aside() {
        if !priority::may_bring_back() {
            return;
        }
        let aside = Aside::default();
        drop(aside.enter());
        assert!(!is_aside(), "there is none yet");
        aside.take_this_thread();
        let of_another = || {
            let _guard = aside.enter();
            is_aside()
        };
        assert!(!std::thread::scope(|scope| scope.spawn(of_another).join().expect("it does not panic")));
        let guard = aside.enter();
        assert!(is_aside());
        drop(guard);
        assert!(!is_aside());
    }
}
