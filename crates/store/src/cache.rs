//! The cache of clean rows: what the engine holds, and what it is known not to hold.
//!
//! Every entry says since which engine number (count of finished checkpoints) it is right; a view of an older number does not
//! use it, and a view that is not the newest may not fill it. When a checkpoint finishes, [`RowCache::advance`] runs first, then every row
//! of the checkpoint goes through [`RowCache::renew`], and only then the new view is published; so an entry that was not renewed is
//! right for both numbers.
//!
//! Invariants: the bytes of a shard (overhead included) stay within its share; an eviction looks at each entry at most twice.

mod index;

use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::hash::member_hash;
use ardb_base::prefetch::prefetch;
use ardb_engine::{RowKey, Space, Value};
use parking_lot::Mutex;

use self::index::Index;
use crate::place::{Place, Tail, mix};

const SHARDS: usize = 256;
/// Entries lie in pieces of so many, so that none moves when there are more.
const PIECE: usize = 32;
/// Bytes an entry costs beyond its heap: itself and its share of the index.
const ENTRY_COST: usize = size_of::<Entry>() + 24;

#[derive(Debug)]
struct Entry {
    place: Place,
    tail: Tail,
    value: Option<Value>,
    since: u64,
    used: bool,
    /// Free entries keep their place until they are used again.
    live: bool,
}

#[derive(Debug, Default)]
struct Entries(Vec<Vec<Entry>>);

#[derive(Debug, Default)]
struct Shard {
    /// Names the live entries.
    index: Index,
    entries: Entries,
    free: Vec<u32>,
    hand: u32,
    bytes: usize,
    hits: u64,
    misses: u64,
}

/// The cache. See the module's text.
#[derive(Debug)]
pub struct RowCache {
    shards: Box<[Mutex<Shard>]>,
    share: usize,
    number: AtomicU64,
}

/// Figures of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes held, overhead included.
    pub bytes: u64,
    /// Rows held, absent ones included.
    pub rows: u64,
    /// Lookups that it answered.
    pub hits: u64,
    /// Lookups that went on to the engine.
    pub misses: u64,
}

impl RowCache {
    /// An empty cache of at most `bytes` for an engine at `number`.
    pub fn new(bytes: u64, number: u64) -> RowCache {
        RowCache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            share: usize::try_from(bytes / SHARDS as u64).unwrap_or(usize::MAX),
            number: AtomicU64::new(number),
        }
    }

    /// Whether rows of this kind are worth keeping.
    pub fn takes(space: Space) -> bool {
        !matches!(space, Space::Meta | Space::Expiry | Space::Garbage)
    }

    #[inline]
    fn hash(place: Place, tail: &[u8]) -> u64 {
        let hash = place.hash();
        match place.space() {
            // Their order alone tells rows apart.
            Space::Key | Space::Member | Space::Element | Space::Chunk | Space::Rank1 => hash,
            _ => mix(hash ^ member_hash(tail)),
        }
    }

    #[inline]
    fn hash_of(key: &RowKey<'_>) -> u64 {
        RowCache::hash(Place::of(key), key.tail)
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The index uses the lower half.
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// What a view at engine `number` finds: `None` if the cache does not know.
    #[inline]
    pub fn get(&self, key: &RowKey<'_>, number: u64) -> Option<Option<Value>> {
        let hash = RowCache::hash_of(key);
        let mut shard = self.shard(hash).lock();
        let shard = &mut *shard;
        if let Some(entry) = shard.find(hash, key)
            && entry.since <= number
        {
            entry.used = true;
            let value = entry.value.clone();
            shard.hits += 1;
            return Some(value);
        }
        shard.misses += 1;
        None
    }

    /// Whether [`RowCache::get`] would find something. It counts as no use.
    pub fn knows(&self, key: &RowKey<'_>, number: u64) -> bool {
        let hash = RowCache::hash_of(key);
        self.shard(hash).lock().find(hash, key).is_some_and(|entry| entry.since <= number)
    }

    /// Keeps what a view at engine `number` read from its engine, unless a newer checkpoint has finished.
    pub fn fill(&self, key: &RowKey<'_>, value: Option<&Value>, number: u64) {
        let hash = RowCache::hash_of(key);
        let mut shard = self.shard(hash).lock();
        // Read under the shard's lock: a fill that still sees the old number is over before the checkpoint renews this shard.
        if self.number.load(Ordering::SeqCst) != number {
            return;
        }
        if shard.find(hash, key).is_none() {
            shard.insert(hash, key, value.cloned(), number, self.share);
        }
    }

    /// A checkpoint has put its rows into the engine, which now counts `number`.
    pub fn advance(&self, number: u64) {
        self.number.store(number, Ordering::SeqCst);
    }

    /// A row of the checkpoint after which the engine counts `number`.
    pub fn renew(&self, key: &RowKey<'_>, value: Option<Value>, number: u64) {
        let hash = RowCache::hash_of(key);
        let mut shard = self.shard(hash).lock();
        shard.remove(hash, key);
        shard.insert(hash, key, value, number, self.share);
    }

    /// Has the processor bring what [`RowCache::get`] will look at for these rows, whose order alone tells them apart, into its cache. They are given by
    /// group and order. Step by step for all of them, since each step must wait for the one before.
    pub fn prefetch(&self, space: Space, rows: &[(u64, u64)]) {
        let each = |step: &dyn Fn(&Shard, u64)| {
            for &(group, order) in rows {
                let hash = RowCache::hash(Place::new(space, group, order), b"");
                // Who holds the lock brings the shard here, or away from here, in any case.
                if let Some(shard) = self.shard(hash).try_lock() {
                    step(&shard, hash);
                }
            }
        };
        each(&|shard, hash| shard.index.prefetch(hash));
        each(&|shard, hash| shard.first(hash).into_iter().for_each(Entry::prefetch));
        each(&|shard, hash| {
            if let Some(Entry { value: Some(value), .. }) = shard.first(hash)
                && value.heap_bytes() > 0
            {
                prefetch(&value[0]);
            }
        });
    }

    /// Has the processor bring what [`RowCache::renew`] will look at first for these rows into its cache.
    pub fn prefetch_renewal<'a>(&self, rows: impl Iterator<Item = RowKey<'a>>) {
        for key in rows {
            let hash = RowCache::hash_of(&key);
            if let Some(shard) = self.shard(hash).try_lock() {
                shard.index.prefetch(hash);
            }
        }
    }

    /// Figures for INFO.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for shard in &self.shards {
            let shard = shard.lock();
            stats.bytes += shard.bytes as u64;
            stats.rows += shard.index.len() as u64;
            stats.hits += shard.hits;
            stats.misses += shard.misses;
        }
        stats
    }
}

impl Entry {
    #[inline]
    fn is(&self, place: Place, tail: &[u8]) -> bool {
        self.place == place && self.tail.is(tail)
    }

    /// It may lie in two lines.
    #[inline]
    fn prefetch(&self) {
        prefetch(&self.place);
        prefetch(&self.live);
    }
}

impl Entries {
    #[inline]
    fn get(&self, at: u32) -> &Entry {
        &self.0[at as usize / PIECE][at as usize % PIECE]
    }

    #[inline]
    fn get_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.0[at as usize / PIECE][at as usize % PIECE]
    }

    fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    /// Its number, unless there are too many.
    fn push(&mut self, entry: Entry) -> Option<u32> {
        let at = u32::try_from(self.len()).ok().filter(|at| *at < u32::MAX)?;
        if self.0.last().is_none_or(|last| last.len() == PIECE) {
            self.0.push(Vec::with_capacity(PIECE));
        }
        self.0.last_mut()?.push(entry);
        Some(at)
    }
}

impl Shard {
    fn find(&mut self, hash: u64, key: &RowKey<'_>) -> Option<&mut Entry> {
        let place = Place::of(key);
        let at = self.index.find(hash, |at| self.entries.get(at).is(place, key.tail))?;
        Some(self.entries.get_mut(at))
    }

    /// The first entry with this hash, as good as always the only one.
    fn first(&self, hash: u64) -> Option<&Entry> {
        self.index.find(hash, |_| true).map(|at| self.entries.get(at))
    }

    fn remove(&mut self, hash: u64, key: &RowKey<'_>) {
        let place = Place::of(key);
        if let Some(at) = self.index.remove(hash, |at| self.entries.get(at).is(place, key.tail)) {
            self.release(at);
        }
    }

    /// Frees an entry that the index no longer names.
    fn release(&mut self, at: u32) {
        let entry = self.entries.get_mut(at);
        self.bytes -= cost(&entry.tail, entry.value.as_ref());
        entry.live = false;
        entry.value = None;
        entry.tail = Tail::new(b"");
        self.free.push(at);
    }

    fn insert(&mut self, hash: u64, key: &RowKey<'_>, value: Option<Value>, since: u64, share: usize) {
        let tail = Tail::new(key.tail);
        let cost = cost(&tail, value.as_ref());
        // One row must not push out a whole shard.
        if cost > share / 4 {
            return;
        }
        self.evict(share - cost);
        let entry = Entry { place: Place::of(key), tail, value, since, used: false, live: true };
        let at = match self.free.pop() {
            Some(at) => {
                *self.entries.get_mut(at) = entry;
                at
            }
            None => {
                let Some(at) = self.entries.push(entry) else { return };
                at
            }
        };
        self.bytes += cost;
        self.index.insert(hash, at);
    }

    /// Drops entries until the shard holds at most `target` bytes: those not used since the hand last came by.
    fn evict(&mut self, target: usize) {
        while self.bytes > target && self.entries.len() > 0 {
            if self.hand as usize >= self.entries.len() {
                self.hand = 0;
            }
            let at = self.hand;
            self.hand += 1;
            let entry = self.entries.get_mut(at);
            if !entry.live || std::mem::take(&mut entry.used) {
                continue;
            }
            let hash = RowCache::hash(entry.place, &entry.tail);
            self.index.remove(hash, |other| other == at);
            self.release(at);
        }
    }
}

fn cost(tail: &Tail, value: Option<&Value>) -> usize {
    let shared = value.map_or(0, Value::heap_bytes);
    ENTRY_COST + tail.heap_bytes() + if shared == 0 { 0 } else { shared + 32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    fn key(order: u64) -> RowKey<'static> {
        RowKey::new(Space::Key, 1, order, b"a-tail-that-does-not-fit-inline")
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = RowCache::new(1 << 20, 0);
        let mut random = Random::new(1);
        let value = Value::new(&[1; 100]);
        for _ in 0..50_000 {
            cache.fill(&key(random.next_u64()), Some(&value), 0);
            if cache.get(&key(7), 0).is_none() {
                cache.fill(&key(7), Some(&value), 0);
            }
        }
        let stats = cache.stats();
        assert!(stats.bytes <= 1 << 20, "{stats:?}");
        assert!(stats.rows > 2000, "{stats:?}");
        assert!(stats.hits > 49_900, "what is used all the time stays: {stats:?}");
        cache.fill(&key(9), Some(&Value::new(&[0; 4000])), 0);
        assert_eq!(cache.get(&key(9), 0), None, "too big for a shard");
    }

    /// Of rows without tails nothing but the index tells a free entry from one of a row that is known to be absent.
    #[test]
    fn what_was_dropped_is_not_known_any_more() {
        let cache = RowCache::new(1 << 20, 0);
        let row = |order| RowKey::new(Space::Rank1, 1, order, b"");
        let value = |order: u64| Value::new(&order.to_le_bytes());
        let mut random = Random::new(1);
        for _ in 0..50_000 {
            let order = random.below(30_000);
            match cache.get(&row(order), 0) {
                Some(found) => assert_eq!(found, Some(value(order)), "row {order}"),
                None => cache.fill(&row(order), Some(&value(order)), 0),
            }
        }
        let known = (0..30_000).filter(|&order| cache.knows(&row(order), 0)).count() as u64;
        assert_eq!(known, cache.stats().rows);
        assert!((1000..20_000).contains(&known), "some were dropped: {known}");
    }

    #[test]
    fn an_entry_serves_only_views_it_is_right_for() {
        let cache = RowCache::new(1 << 20, 3);
        let old = Value::new(b"old");
        let new = Value::new(b"new");
        cache.fill(&key(1), Some(&old), 2);
        assert_eq!(cache.get(&key(1), 3), None, "a view that is not the newest does not fill");
        cache.fill(&key(1), Some(&old), 3);
        cache.fill(&key(2), None, 3);
        assert_eq!(cache.get(&key(1), 3), Some(Some(old.clone())));
        assert_eq!(cache.get(&key(2), 3), Some(None));
        cache.advance(4);
        cache.renew(&key(1), Some(new.clone()), 4);
        assert_eq!(cache.get(&key(1), 3), None);
        assert_eq!(cache.get(&key(1), 4), Some(Some(new)));
        assert_eq!(cache.get(&key(2), 4), Some(None));
        cache.fill(&key(3), Some(&old), 3);
        assert_eq!(cache.get(&key(3), 4), None);
    }
}
