//! When keys were last used, and how often, for OBJECT IDLETIME and FREQ.
//!
//! A small table of fixed size, found by a hash of the key: a later key in the same place takes it over, so only what was used lately is
//! remembered, and a forgotten key counts as unused since the server's start. That bounds memory whatever the data's size; nothing is ever evicted by
//! these figures. Each entry is one atomic word: 24 bits of the hash, the counter (8 bits), seconds since the start (32 bits).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ardb_base::prefetch::prefetch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Entries. Half a megabyte, so that noting an access stays within a processor's cache.
const ENTRIES: usize = 1 << 16;
/// What a new key's counter starts with, as in Redis, so that it is not the least used at once.
const FIRST_COUNT: u8 = 5;
/// The greater, the slower the counter grows (`lfu-log-factor` of Redis).
const LOG_FACTOR: u64 = 10;

/// The table.
pub struct Accesses {
    entries: Box<[AtomicU64]>,
    /// The start, ms since 1970; set by the first use.
    start: AtomicU64,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Seconds since its last use.
    pub idle: u64,
    /// How often it was used, logarithmically.
    pub frequency: u8,
}

impl Default for Accesses {
    fn default() -> Accesses {
        Accesses { entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(), start: AtomicU64::new(0) }
    }
}

impl Accesses {
    fn place(&self, db: u32, key: &[u8]) -> (&AtomicU64, u64) {
        let hash = xxh3_64_with_seed(key, u64::from(db));
        // The mask keeps the index below the length.
        (&self.entries[hash as usize & (ENTRIES - 1)], (hash >> 40) | 1)
    }

    fn seconds(&self, now: i64) -> u64 {
        let now = now.max(1) as u64;
        let mut start = self.start.load(Relaxed);
        if start == 0 {
            // Only then: a locked instruction with every key would be dear.
            let _ = self.start.compare_exchange(0, now, Relaxed, Relaxed);
            start = self.start.load(Relaxed);
        }
        (now.saturating_sub(start) / 1000).min(u64::from(u32::MAX))
    }

    /// Has the processor bring what [`Accesses::note`] will look at for this key into its cache, and does not wait for it.
    #[inline]
    pub fn prefetch(&self, db: u32, key: &[u8]) {
        prefetch(self.place(db, key).0);
    }

    /// The key was used at `now` (ms since 1970).
    pub fn note(&self, db: u32, key: &[u8], now: i64) {
        let seconds = self.seconds(now);
        let (entry, tag) = self.place(db, key);
        let old = entry.load(Relaxed);
        let mut count = if old >> 40 == tag { (old >> 32) as u8 } else { FIRST_COUNT };
        // A cheap coin from what differs from call to call; the figure is an estimate anyway.
        let coin = (old ^ now as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        if count < u8::MAX && coin.is_multiple_of(u64::from(count.saturating_sub(FIRST_COUNT)) * LOG_FACTOR + 1) {
            count += 1;
        }
        entry.store(tag << 40 | u64::from(count) << 32 | seconds, Relaxed);
    }

    /// Says what is to be known of a key from now on (RESTORE).
    pub fn set(&self, db: u32, key: &[u8], now: i64, access: Access) {
        let seconds = self.seconds(now);
        // What was idle since before the start moves the start back.
        if access.idle > seconds {
            let back = (access.idle - seconds).saturating_mul(1000);
            let start = self.start.load(Relaxed).saturating_sub(back).max(1);
            self.start.store(start, Relaxed);
        }
        let seconds = self.seconds(now).saturating_sub(access.idle);
        let (entry, tag) = self.place(db, key);
        entry.store(tag << 40 | u64::from(access.frequency) << 32 | seconds, Relaxed);
    }

    /// What is known of a key.
    pub fn get(&self, db: u32, key: &[u8], now: i64) -> Access {
        let seconds = self.seconds(now);
        let (entry, tag) = self.place(db, key);
        let entry = entry.load(Relaxed);
        if entry >> 40 == tag {
            Access { idle: seconds.saturating_sub(entry & u64::from(u32::MAX)), frequency: (entry >> 32) as u8 }
        } else {
            Access { idle: seconds, frequency: 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_from_the_last_use() {
        let accesses = Accesses::default();
        accesses.note(0, b"a", 9_000_010_000);
        accesses.note(0, b"b", 9_000_013_000);
        assert_eq!(accesses.get(0, b"a", 9_000_015_500).idle, 5);
        assert_eq!(accesses.get(0, b"b", 9_000_015_500).idle, 2);
        assert_eq!(accesses.get(1, b"a", 9_000_015_500), Access { idle: 5, frequency: 0 }, "unknown: since the start");
        accesses.set(0, b"c", 9_000_016_000, Access { idle: 1000, frequency: 100 });
        assert_eq!(accesses.get(0, b"c", 9_000_016_000), Access { idle: 1000, frequency: 100 });
    }

    #[test]
    fn the_counter_grows_ever_slower() {
        let accesses = Accesses::default();
        let mut now = 1;
        let mut after = |times: u64| {
            for _ in 0..times {
                now += 1;
                accesses.note(0, b"k", now);
            }
            accesses.get(0, b"k", now).frequency
        };
        let (few, many) = (after(10), after(10_000));
        assert!(few > FIRST_COUNT && few < 12, "{few}");
        assert!(many > 2 * few && many < 100, "{many}");
    }
}
