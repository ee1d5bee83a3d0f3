//! Counters that many threads raise all the time, and that are seldom read.
//!
//! Each thread adds to one of a few cache lines, so that the threads do not take a line from each other with every command. The sum is exact once
//! the threads rest; while they count it is one that lies between the moments at which its reading began and ended.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Cache lines of a counter; threads beyond so many share.
pub const LINES: usize = 8;

/// The line of this thread: below [`LINES`], the same at each call.
#[inline]
#[must_use]
pub fn line() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % LINES;
    }
    LINE.with(|line| *line)
}

/// Two lines wide, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// A number that goes up, or down, modulo 2^64.
#[derive(Debug, Default)]
pub struct Counter {
    lines: [Line; LINES],
}

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.lines[line()].0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away.
    pub fn sub(&self, n: u64) {
        self.lines[line()].0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The sum.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.lines.iter().fold(0, |sum, line| sum.wrapping_add(line.0.load(Ordering::Relaxed)))
    }

    /// Back to zero.
    pub fn reset(&self) {
        for line in &self.lines {
            line.0.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_of_any_thread_is_lost() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * LINES {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(3)));
            }
        });
        assert_eq!(counter.get(), 2 * LINES as u64 * 3000);
        counter.sub(6000);
        assert_eq!(counter.get(), 2 * LINES as u64 * 3000 - 6000, "another thread may take away what others added");
        counter.reset();
        assert_eq!(counter.get(), 0);
    }
}
