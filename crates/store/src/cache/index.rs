//! Where the entries of a shard of the cache lie, by the hash of their names.
//!
//! Open addressing with linear probing, so that a search looks at one line of memory as a rule, and that line can be asked for ahead. A slot holds a tag, 32
//! bits of the hash whose lowest ones are the slot where its search begins, and the number of the entry.
//!
//! Invariants: from the slot where a tag's search begins to the slot that holds it no slot is free; so removing moves later ones up. At most five slots in
//! eight are taken.

use ardb_base::prefetch::prefetch;

/// Nothing.
const FREE: u64 = 0;
/// Slots of the smallest index that holds something.
const FIRST: usize = 16;

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    /// Tag in the upper half, number of the entry and one in the lower.
    slots: Box<[u64]>,
    len: usize,
}

#[inline]
fn tag(hash: u64) -> u32 {
    hash as u32
}

#[inline]
fn parts(slot: u64) -> (u32, u32) {
    ((slot >> 32) as u32, (slot as u32).wrapping_sub(1))
}

impl Index {
    /// Entries that it names.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.slots.len() - 1)
    }

    /// The slot, and the entry it names, that `is` accepts among those with this hash. There may be entries with another hash among those it is asked about.
    #[inline]
    fn search(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<(usize, u32)> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(tag(hash));
        loop {
            let slot = self.slots[at];
            if slot == FREE {
                return None;
            }
            let (its, entry) = parts(slot);
            if its == tag(hash) && is(entry) {
                return Some((at, entry));
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The entry that `is` accepts among those with this hash.
    #[inline]
    pub fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.search(hash, is).map(|(_, entry)| entry)
    }

    /// Names the entry `entry`, below `u32::MAX`, which it does not name yet.
    pub fn insert(&mut self, hash: u64, entry: u32) {
        if (self.len + 1) * 8 > self.slots.len() * 5 {
            self.grow();
        }
        self.put(tag(hash), entry);
        self.len += 1;
    }

    fn put(&mut self, tag: u32, entry: u32) {
        let mut at = self.home(tag);
        while self.slots[at] != FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = (u64::from(tag) << 32) | (u64::from(entry) + 1);
    }

    #[cold]
    fn grow(&mut self) {
        // Written here, not by the system when a page is first touched: as `put` reads first, that would map a page of zeros and then replace it,
        // and replacing interrupts all processors that the process runs on.
        let many = (self.slots.len() * 2).max(FIRST);
        let mut slots = Vec::with_capacity(many);
        slots.resize(many, FREE);
        for slot in std::mem::replace(&mut self.slots, slots.into_boxed_slice()) {
            if slot != FREE {
                let (tag, entry) = parts(slot);
                self.put(tag, entry);
            }
        }
    }

    /// As [`Index::find`]; it does not name the entry any more.
    pub fn remove(&mut self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let (mut hole, entry) = self.search(hash, is)?;
        let last = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & last;
            if self.slots[at] == FREE {
                break;
            }
            // It may move up as far as where its search begins.
            let home = self.home(parts(self.slots[at]).0);
            if at.wrapping_sub(home) & last >= at.wrapping_sub(hole) & last {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = FREE;
        self.len -= 1;
        Some(entry)
    }

    /// Has the processor bring the slots where the search begins into its cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if !self.slots.is_empty() {
            prefetch(&self.slots[self.home(tag(hash))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use ardb_base::random::Random;

    /// Against a map, with hashes of which many share tags and homes.
    #[test]
    fn it_names_what_was_inserted_and_not_removed() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let mut random = Random::new(seed);
        for bits in [1, 3, 8, 32] {
            let mut index = Index::default();
            let mut model: HashMap<u32, u64> = HashMap::new();
            for step in 0..4000 {
                let hash = random.next_u64() & !0xff00 | random.below(4) << 8;
                let hash = if bits < 32 { hash & ((1 << bits) - 1) | 0xffff_fff0 } else { hash };
                let entry = random.below(200) as u32;
                if let Some(hash) = model.remove(&entry) {
                    assert_eq!(index.remove(hash, |other| other == entry), Some(entry), "seed {seed}, step {step}");
                } else {
                    assert_eq!(index.remove(hash, |other| other == entry), None, "seed {seed}, step {step}");
                    index.insert(hash, entry);
                    model.insert(entry, hash);
                }
                assert_eq!(index.len(), model.len());
                assert!(index.len() * 8 <= index.slots.len() * 5);
            }
            for entry in 0..200 {
                let hash = model.get(&entry);
                let found = hash.and_then(|hash| index.find(*hash, |other| other == entry));
                assert_eq!(found, hash.map(|_| entry), "seed {seed}");
            }
            for (entry, hash) in model.drain() {
                assert_eq!(index.remove(hash, |other| other == entry), Some(entry));
            }
            assert!(index.slots.iter().all(|slot| *slot == FREE), "nothing is left behind");
        }
    }

    #[test]
    fn an_empty_one_finds_nothing() {
        let mut index = Index::default();
        index.prefetch(1);
        assert_eq!(index.find(1, |_| true), None);
        assert_eq!(index.remove(1, |_| true), None);
        index.insert(7, u32::MAX - 1);
        assert_eq!(index.find(7, |_| true), Some(u32::MAX - 1));
    }
}
