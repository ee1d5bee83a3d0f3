//! The cache of clean rows: what the engine holds, and what it is known not to hold.
//!
//! Every entry says since which engine number (count of finished checkpoints) it is right; a view of an older number does not
//! use it, and a view that is not the newest may not fill it. When a checkpoint finishes, [`RowCache::advance`] runs first, then every row
//! of the checkpoint goes through [`RowCache::renew`], and only then the new view is published; so an entry that was not renewed is
//! right for both numbers.
//!
//! Invariants: the bytes of a shard (overhead included) stay within its share; an eviction looks at each entry at most twice.

use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::hash::member_hash;
use ardb_engine::{RowKey, Space, Value};
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::place::{Place, Tail, mix};

const SHARDS: usize = 256;
/// Bytes an entry costs beyond its heap: itself, its share of a half-full vector and hash table.
const ENTRY_COST: usize = 152;

#[derive(Debug)]
struct Entry {
    hash: u64,
    place: Place,
    tail: Tail,
    value: Option<Value>,
    since: u64,
    used: bool,
    /// Free entries keep their place in the vector until they are used again.
    live: bool,
}

#[derive(Debug, Default)]
struct Shard {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    hand: usize,
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
    fn hash(key: &RowKey<'_>) -> u64 {
        let hash = Place::of(key).hash();
        match key.space {
            // Their order alone tells rows apart.
            Space::Key | Space::Member | Space::Element | Space::Chunk | Space::Rank1 => hash,
            _ => mix(hash ^ member_hash(key.tail)),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The hash table uses the top seven bits and the low ones.
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// What a view at engine `number` finds: `None` if the cache does not know.
    #[inline]
    pub fn get(&self, key: &RowKey<'_>, number: u64) -> Option<Option<Value>> {
        let hash = RowCache::hash(key);
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
        let hash = RowCache::hash(key);
        self.shard(hash).lock().find(hash, key).is_some_and(|entry| entry.since <= number)
    }

    /// Keeps what a view at engine `number` read from its engine, unless a newer checkpoint has finished.
    pub fn fill(&self, key: &RowKey<'_>, value: Option<&Value>, number: u64) {
        let hash = RowCache::hash(key);
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
        let hash = RowCache::hash(key);
        let mut shard = self.shard(hash).lock();
        shard.remove(hash, key);
        shard.insert(hash, key, value, number, self.share);
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

impl Shard {
    fn find(&mut self, hash: u64, key: &RowKey<'_>) -> Option<&mut Entry> {
        let place = Place::of(key);
        let entries = &self.entries;
        // The index names only live entries of the vector.
        let at = *self.index.find(hash, |&at| {
            let entry = &entries[at as usize];
            entry.place == place && entry.tail.is(key.tail)
        })?;
        Some(&mut self.entries[at as usize])
    }

    fn remove(&mut self, hash: u64, key: &RowKey<'_>) {
        let place = Place::of(key);
        let entries = &self.entries;
        let found = self.index.find_entry(hash, |&at| {
            let entry = &entries[at as usize];
            entry.place == place && entry.tail.is(key.tail)
        });
        if let Ok(found) = found {
            let (at, _) = found.remove();
            self.release(at);
        }
    }

    /// Frees an entry that the index no longer names.
    fn release(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
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
        let entry = Entry { hash, place: Place::of(key), tail, value, since, used: false, live: true };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                let Ok(at) = u32::try_from(self.entries.len()) else { return };
                self.entries.push(entry);
                at
            }
        };
        self.bytes += cost;
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |&at| entries[at as usize].hash);
    }

    /// Drops entries until the shard holds at most `target` bytes: those not used since the hand last came by.
    fn evict(&mut self, target: usize) {
        while self.bytes > target && !self.entries.is_empty() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let at = self.hand;
            self.hand += 1;
            let entry = &mut self.entries[at];
            if !entry.live {
                continue;
            }
            if std::mem::take(&mut entry.used) {
                continue;
            }
            // The vector never outgrows u32: see `insert`.
            let at = at as u32;
            if let Ok(found) = self.index.find_entry(entry.hash, |&other| other == at) {
                found.remove();
            }
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
