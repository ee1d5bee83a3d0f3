//! An ordered map whose keys are hashes: searching is cheap because they are spread evenly.
//!
//! The keys lie in sorted leaves of some dozens. A directory finds the leaf by the top bits of the key, and within the leaf the key's further bits tell
//! about where it lies, so a search looks at the directory, at one or two cache lines of keys and at the value, however large
//! the map is; walking the directory and the leaves is walking the order. A full leaf is cut in two by its next bit, and when there is no
//! further bit in the directory, that doubles (extendible hashing: Fagin, Nievergelt, Pippenger, Strong 1979, with the top bits in the place of
//! the low ones).
//!
//! Invariants: a leaf of `bits` bits holds just the keys that share their first `bits` bits (after those that all keys of the map share) with its
//! place in the directory; keys rise within a leaf; values stand where their keys do. Keys that are chosen so that they are not spread make leaves
//! larger, and then slower to insert into, never wrong: the directory has at most [`SPARSE`] places for each leaf.

use ardb_base::prefetch::prefetch;

/// Keys from which on a leaf is cut.
const FULL: usize = 64;
/// Places of the directory for each leaf at most; a directory that would need more has keys that are not spread.
const SPARSE: usize = 16;
/// Bits of the directory at most.
const MOST_BITS: u32 = 26;
/// Leaves of more keys are searched by halves: their keys are not spread.
const LARGE: usize = 4 * FULL;

#[derive(Debug)]
struct Leaf<T> {
    keys: Vec<u64>,
    values: Vec<T>,
}

impl<T> Default for Leaf<T> {
    fn default() -> Leaf<T> {
        Leaf { keys: Vec::new(), values: Vec::new() }
    }
}

impl<T> Leaf<T> {
    /// About where the key stands, or would. All keys share their first `shared` bits.
    #[inline]
    fn guess(&self, key: u64, shared: u32) -> usize {
        let spread = key.checked_shl(shared).unwrap_or(0);
        // Below the length, since the first factor is below 2^32.
        (((spread >> 32) * self.keys.len() as u64) >> 32) as usize
    }

    /// Where the key stands, or would. All keys share their first `shared` bits.
    #[inline]
    fn locate(&self, key: u64, shared: u32) -> Result<usize, usize> {
        let keys = &self.keys[..];
        if keys.len() > LARGE {
            return keys.binary_search(&key);
        }
        let mut at = self.guess(key, shared);
        while keys.get(at).is_some_and(|other| *other < key) {
            at += 1;
        }
        while at > 0 && keys[at - 1] >= key {
            at -= 1;
        }
        if keys.get(at) == Some(&key) { Ok(at) } else { Err(at) }
    }

    fn insert(&mut self, at: usize, key: u64, value: T) {
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    fn remove(&mut self, at: usize) -> T {
        self.keys.remove(at);
        self.values.remove(at)
    }

    /// Takes out the keys from `at` on.
    fn split_off(&mut self, at: usize) -> Leaf<T> {
        Leaf { keys: self.keys.split_off(at), values: self.values.split_off(at) }
    }
}

#[derive(Debug)]
struct Tree<T> {
    /// Bits of the directory.
    bits: u32,
    /// Which leaf the keys with these bits lie in: 2^`bits` places.
    places: Vec<u32>,
    /// Each with the number of bits that its keys share.
    leaves: Vec<(u32, Leaf<T>)>,
    /// Keys in all leaves.
    count: usize,
}

/// The map. See the module's text.
#[derive(Debug)]
#[repr(C)]
pub struct Spread<T> {
    /// All there is, as long as it fits.
    first: Leaf<T>,
    tree: Option<Box<Tree<T>>>,
    /// Bits that all keys share.
    shared: u32,
}

impl<T> Spread<T> {
    /// An empty map for keys that share their first `shared` bits, at most 32.
    pub fn new(shared: u32) -> Spread<T> {
        debug_assert!(shared <= 32, "some bits must tell them apart");
        Spread { first: Leaf::default(), tree: None, shared }
    }

    /// Bits that all keys share.
    pub fn shared(&self) -> u32 {
        self.shared
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.first.keys.is_empty() && self.tree.is_none()
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: u64) -> Option<&T> {
        let (leaf, shared) = self.leaf(key);
        leaf.locate(key, shared).ok().map(|at| &leaf.values[at])
    }

    #[inline]
    fn leaf(&self, key: u64) -> (&Leaf<T>, u32) {
        match &self.tree {
            None => (&self.first, self.shared),
            Some(tree) => tree.leaf(tree.place(key, self.shared), self.shared),
        }
    }

    /// Has the processor bring what [`Spread::get`] will look at first for this key into its cache, and does not wait for it: the directory. Whether there is one.
    #[inline]
    pub fn prefetch_tree(&self) -> bool {
        let Some(tree) = &self.tree else { return false };
        prefetch(&**tree);
        true
    }

    /// As [`Spread::prefetch_tree`], the next step: the key's place there, and the leaves of a small one.
    #[inline]
    pub fn prefetch_place(&self, key: u64) {
        if let Some(tree) = &self.tree {
            prefetch(&tree.places[tree.place(key, self.shared)]);
            tree.leaves.iter().take(2).for_each(prefetch);
        }
    }

    /// As [`Spread::prefetch_tree`], the next step: where the key's leaf lies.
    #[inline]
    pub fn prefetch_leaf(&self, key: u64) {
        if let Some(tree) = &self.tree {
            prefetch(&tree.leaves[tree.places[tree.place(key, self.shared)] as usize]);
        }
    }

    /// As [`Spread::prefetch_tree`], the next step: the keys of the leaf among which this one is looked for.
    #[inline]
    pub fn prefetch_keys(&self, key: u64) {
        /// A guess is seldom off by more: the square root of a leaf's length.
        const OFF: usize = 4;
        let (leaf, shared) = self.leaf(key);
        let at = leaf.guess(key, shared);
        if let Some(last) = leaf.keys.len().checked_sub(1) {
            prefetch(&leaf.keys[at.saturating_sub(OFF).min(last)]);
            prefetch(&leaf.keys[(at + OFF).min(last)]);
        }
    }

    /// As [`Spread::prefetch_tree`], the last step: the value. A guess of its place would be off by a line or several.
    #[inline]
    pub fn prefetch_value(&self, key: u64) {
        let (leaf, shared) = self.leaf(key);
        if let Ok(at) = leaf.locate(key, shared) {
            prefetch(&leaf.values[at]);
            // Values lie across lines.
            if let Some(next) = leaf.values.get(at + 1) {
                prefetch(next);
            }
        }
    }

    fn leaf_mut(&mut self, key: u64) -> (&mut Leaf<T>, u32) {
        match &mut self.tree {
            None => (&mut self.first, self.shared),
            Some(tree) => {
                let number = tree.places[tree.place(key, self.shared)];
                let (bits, leaf) = &mut tree.leaves[number as usize];
                (leaf, self.shared + *bits)
            }
        }
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (leaf, shared) = self.leaf_mut(key);
        leaf.locate(key, shared).ok().map(|at| &mut leaf.values[at])
    }

    /// The value of a key, made by `new` if there was none, and whether it was.
    pub fn get_or_insert(&mut self, key: u64, new: impl FnOnce() -> T) -> (&mut T, bool) {
        let (leaf, shared) = self.leaf_mut(key);
        let (at, is_new) = match leaf.locate(key, shared) {
            Ok(at) => (at, false),
            Err(at) if leaf.keys.len() < FULL => {
                leaf.insert(at, key, new());
                (at, true)
            }
            Err(_) => {
                self.cut(key);
                let (leaf, shared) = self.leaf_mut(key);
                // It was not there before the cut.
                let at = leaf.locate(key, shared).unwrap_or_else(|at| at);
                leaf.insert(at, key, new());
                (at, true)
            }
        };
        if is_new && let Some(tree) = &mut self.tree {
            tree.count += 1;
        }
        (&mut self.leaf_mut(key).0.values[at], is_new)
    }

    /// Makes room in the leaf of `key`, if that can be had by cutting it.
    fn cut(&mut self, key: u64) {
        let first = &mut self.first;
        let tree = self.tree.get_or_insert_with(|| {
            let count = first.keys.len();
            Box::new(Tree { bits: 0, places: vec![0], leaves: vec![(0, std::mem::take(first))], count })
        });
        while tree.cut(key, self.shared) {}
    }

    /// Takes a key out, if `wanted` says so of its value.
    pub fn remove_if(&mut self, key: u64, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let (leaf, shared) = self.leaf_mut(key);
        let at = leaf.locate(key, shared).ok().filter(|at| wanted(&leaf.values[*at]))?;
        let gone = leaf.remove(at);
        self.went(1);
        Some(gone)
    }

    /// So many keys were taken out. A map that was large is not kept when it is empty.
    fn went(&mut self, count: usize) {
        if let Some(tree) = &mut self.tree {
            tree.count -= count;
            if tree.count == 0 {
                self.tree = None;
            }
        }
    }

    /// Takes up to `limit` keys of `from..=to` out, the lowest first.
    pub fn extract(&mut self, from: u64, to: u64, limit: usize) -> Vec<T> {
        let mut gone = Vec::new();
        let mut take = |leaf: &mut Leaf<T>, shared: u32| {
            let (Ok(low) | Err(low)) = leaf.locate(from, shared);
            let high = match leaf.locate(to, shared) {
                Ok(at) => at + 1,
                Err(at) => at,
            };
            let high = high.min(low + (limit - gone.len()));
            if low < high {
                leaf.keys.drain(low..high);
                gone.extend(leaf.values.drain(low..high));
            }
            gone.len() < limit
        };
        if from > to || limit == 0 {
            return gone;
        }
        match &mut self.tree {
            None => {
                take(&mut self.first, self.shared);
            }
            Some(tree) => {
                let (mut place, last) = (tree.place(from, self.shared), tree.place(to, self.shared));
                while place <= last {
                    let (bits, leaf) = &mut tree.leaves[tree.places[place] as usize];
                    // The first and the last leaf hold keys outside of the range; between them the search finds an end of the leaf.
                    if !take(leaf, self.shared + *bits) {
                        break;
                    }
                    place = after(place, tree.bits - *bits);
                }
            }
        }
        self.went(gone.len());
        gone
    }

    /// Calls `visit` with the keys of `from..=to` and their values, upward or downward, until it returns false. Whether it never did.
    pub fn walk(&self, from: u64, to: u64, up: bool, visit: &mut impl FnMut(u64, &T) -> bool) -> bool {
        if from > to {
            return true;
        }
        let mut walk = |leaf: &Leaf<T>, shared: u32| {
            if up {
                let (Ok(low) | Err(low)) = leaf.locate(from, shared);
                let mut pairs = leaf.keys[low..].iter().zip(&leaf.values[low..]);
                pairs.by_ref().take_while(|(key, _)| **key <= to).all(|(key, value)| visit(*key, value))
            } else {
                let high = match leaf.locate(to, shared) {
                    Ok(at) => at + 1,
                    Err(at) => at,
                };
                let mut pairs = leaf.keys[..high].iter().zip(&leaf.values[..high]).rev();
                pairs.by_ref().take_while(|(key, _)| **key >= from).all(|(key, value)| visit(*key, value))
            }
        };
        let Some(tree) = &self.tree else { return walk(&self.first, self.shared) };
        let (first, last) = (tree.place(from, self.shared), tree.place(to, self.shared));
        let mut place = if up { first } else { last };
        loop {
            let number = tree.places[place] as usize;
            let (bits, leaf) = &tree.leaves[number];
            if !walk(leaf, self.shared + bits) {
                return false;
            }
            if up {
                place = after(place, tree.bits - bits);
                if place > last {
                    return true;
                }
            } else {
                place = place >> (tree.bits - bits) << (tree.bits - bits);
                if place <= first {
                    return true;
                }
                place -= 1;
            }
        }
    }
}

/// The first place behind those of the leaf at `place`, which has 2^`free` of them.
fn after(place: usize, free: u32) -> usize {
    ((place >> free) + 1) << free
}

impl<T> Tree<T> {
    #[inline]
    fn place(&self, key: u64, shared: u32) -> usize {
        // Two steps, since no bits at all would shift by 64.
        (key << shared >> 1 >> (63 - self.bits)) as usize
    }

    /// The leaf at a place, and how many bits its keys share.
    #[inline]
    fn leaf(&self, place: usize, shared: u32) -> (&Leaf<T>, u32) {
        let (bits, leaf) = &self.leaves[self.places[place] as usize];
        (leaf, shared + bits)
    }

    /// Cuts the leaf of `key` in two. Whether it makes sense to do that again.
    fn cut(&mut self, key: u64, shared: u32) -> bool {
        let mut place = self.place(key, shared);
        let number = self.places[place];
        let bits = self.leaves[number as usize].0;
        if bits == self.bits {
            let is_sparse = self.places.len() > SPARSE * self.leaves.len();
            if is_sparse || bits >= MOST_BITS {
                return false;
            }
            self.places = self.places.iter().flat_map(|number| [*number, *number]).collect();
            self.bits += 1;
            place *= 2;
        }
        let leaf = &mut self.leaves[number as usize];
        leaf.0 = bits + 1;
        let bit = 1 << (63 - shared - bits);
        let at = leaf.1.keys.partition_point(|key| key & bit == 0);
        let upper = leaf.1.split_off(at);
        let go_on = at == 0 || upper.keys.is_empty();
        let new = self.leaves.len() as u32;
        self.leaves.push((bits + 1, upper));
        let free = self.bits - bits;
        let begin = place >> free << free;
        self.places[begin + (1 << (free - 1))..begin + (1 << free)].fill(new);
        go_on
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ardb_base::random::Random;

    use super::*;

    fn check(random: &mut Random, shared: u32, steps: u64, key: impl Fn(&mut Random) -> u64) {
        let mut map = Spread::new(shared);
        let mut model = BTreeMap::new();
        let prefix = if shared == 0 { 0 } else { 0xabcd_ef01_2345_6789 >> (64 - shared) << (64 - shared) };
        let mask = u64::MAX.checked_shr(shared).unwrap_or(0);
        for step in 0..steps {
            let draw = |random: &mut Random| match model.len() {
                n if n > 0 && random.one_in(2) => {
                    let at = prefix | key(random) & mask;
                    model.range(at..).next().or_else(|| model.iter().next()).map_or(at, |(key, _)| *key)
                }
                _ => prefix | key(random) & mask,
            };
            let (one, other) = (draw(random), draw(random));
            let (low, high) = (one.min(other), one.max(other));
            match random.below(12) {
                0 => assert_eq!(map.remove_if(one, |_| true), model.remove(&one)),
                1 => assert_eq!(map.remove_if(one, |_| false), None),
                2 if random.one_in(20) => {
                    let limit = 1 + random.below(300) as usize;
                    let want: Vec<u64> = model.range(low..=high).take(limit).map(|(key, _)| *key).collect();
                    let gone: Vec<u64> = want.iter().filter_map(|key| model.remove(key)).collect();
                    assert_eq!(map.extract(low, high, limit), gone);
                }
                3..=4 => {
                    let limit = 1 + random.below(200) as usize;
                    let up = random.one_in(2);
                    let mut seen = Vec::new();
                    let end = map.walk(low, high, up, &mut |key, value| {
                        seen.push((key, *value));
                        seen.len() < limit
                    });
                    let pair = |(key, value): (&u64, &u64)| (*key, *value);
                    let want: Vec<(u64, u64)> = match up {
                        true => model.range(low..=high).take(limit).map(pair).collect(),
                        false => model.range(low..=high).rev().take(limit).map(pair).collect(),
                    };
                    assert_eq!(end, want.len() < limit, "step {step}");
                    assert_eq!(seen, want, "step {step}");
                }
                5..=6 => {
                    assert_eq!(map.get(one), model.get(&one));
                    assert_eq!(map.get_mut(one), model.get_mut(&one));
                }
                _ => {
                    let was = model.contains_key(&one);
                    let (value, new) = map.get_or_insert(one, || step);
                    assert_eq!(new, !was);
                    assert_eq!(*value, *model.entry(one).or_insert(step));
                }
            }
            assert_eq!(map.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn agrees_with_a_model() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
        for seed in seed..seed + 10 {
            let mut random = Random::new(seed);
            for shared in [0, 14, 32] {
                check(&mut random, shared, 4000, |random| random.next_u64());
                // Far from spread: runs, few bits, all in one corner.
                check(&mut random, shared, 3000, |random| random.below(400));
                check(&mut random, shared, 3000, |random| {
                    random.below(64).checked_shl(random.below(64) as u32).unwrap_or(0)
                });
                check(&mut random, shared, 3000, |random| u64::MAX - random.below(1 << 12));
            }
        }
    }

    #[test]
    fn keys_that_are_not_spread_take_no_more_than_their_share() {
        let mut map = Spread::new(0);
        for key in 0..5000 {
            map.get_or_insert(key, || key);
        }
        let places = map.tree.as_ref().map_or(0, |tree| tree.places.len());
        assert!(places <= 2 * SPARSE * 5000, "{places}");
        assert!((0..5000).all(|key| map.get(key) == Some(&key)));
        assert_eq!(map.extract(0, u64::MAX, usize::MAX), (0..5000).collect::<Vec<u64>>());
        assert!(map.is_empty() && map.tree.is_none());
    }

    #[test]
    fn a_million_hashes_lie_in_leaves_that_are_half_full() {
        let mut map = Spread::new(14);
        for key in 0..100_000u64 {
            let key = crate::place::mix(key) >> 14;
            map.get_or_insert(key, || key);
        }
        let tree = map.tree.as_ref().map(|tree| (tree.places.len(), tree.leaves.len()));
        let (places, leaves) = tree.unwrap_or_default();
        assert!(leaves < 100_000 / (FULL / 3) && places < 8 * leaves, "{places} places, {leaves} leaves");
    }
}
