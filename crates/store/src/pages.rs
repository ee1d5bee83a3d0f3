//! An ordered map whose keys are mostly numbers that follow one another: the nodes of a sorted set, the chunks of a list or of a string.
//!
//! A page holds the values of up to 64 neighbouring places, and a word that tells which of them it has; where a value lies among the others is a count of
//! bits. So a search compares keys for a 64th of the map, which stays in the processor's caches, and then goes to the value.
//!
//! Invariants: a page has as many values as its word has bits, in their order, and one at least.

use std::collections::BTreeMap;

use crate::place::Place;

/// Places of a page: as many as a word has bits.
const PLACES: u32 = u64::BITS;
/// Values for which a full page makes room at once.
const GROWTH: usize = 16;

#[derive(Debug)]
struct Page<T> {
    has: u64,
    values: Vec<T>,
}

impl<T> Page<T> {
    /// Where the value of a place lies, or would.
    #[inline]
    fn locate(&self, bit: u32) -> Result<usize, usize> {
        let at = (self.has & ((1 << bit) - 1)).count_ones() as usize;
        if self.has & (1 << bit) != 0 { Ok(at) } else { Err(at) }
    }
}

/// The map. See the module's text.
#[derive(Debug)]
pub struct Pages<T> {
    pages: BTreeMap<u128, Page<T>>,
}

/// The page of a place, and its bit there.
#[inline]
fn split(place: Place) -> (u128, u32) {
    let number = place.number();
    (number / u128::from(PLACES), (number % u128::from(PLACES)) as u32)
}

/// The bits of the places `first..=last` in a page.
fn bits(page: u128, first: Place, last: Place) -> u64 {
    let ((low_page, low), (high_page, high)) = (split(first), split(last));
    let from = if page == low_page { u64::MAX << low } else { u64::MAX };
    let to = if page == high_page { u64::MAX >> (PLACES - 1 - high) } else { u64::MAX };
    from & to
}

impl<T> Pages<T> {
    /// An empty map.
    pub const fn new() -> Pages<T> {
        Pages { pages: BTreeMap::new() }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The value of a place.
    #[inline]
    pub fn get(&self, place: Place) -> Option<&T> {
        let (page, bit) = split(place);
        let page = self.pages.get(&page)?;
        page.values.get(page.locate(bit).ok()?)
    }

    /// The value of a place.
    pub fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        let (page, bit) = split(place);
        let page = self.pages.get_mut(&page)?;
        let at = page.locate(bit).ok()?;
        page.values.get_mut(at)
    }

    /// The value of a place, made by `new` if there was none, and whether it was.
    pub fn get_or_insert(&mut self, place: Place, new: impl FnOnce() -> T) -> (&mut T, bool) {
        let (page, bit) = split(place);
        let page = self.pages.entry(page).or_insert(Page { has: 0, values: Vec::new() });
        match page.locate(bit) {
            Ok(at) => (&mut page.values[at], false),
            Err(at) => {
                if page.values.len() == page.values.capacity() {
                    // Most objects have few such rows, and none should cost the memory of several.
                    page.values.reserve_exact(page.values.len().clamp(1, GROWTH));
                }
                page.has |= 1 << bit;
                page.values.insert(at, new());
                (&mut page.values[at], true)
            }
        }
    }

    /// Takes the value of a place out, if `wanted` says so of it.
    pub fn remove_if(&mut self, place: Place, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let (number, bit) = split(place);
        let page = self.pages.get_mut(&number)?;
        let at = page.locate(bit).ok().filter(|at| wanted(&page.values[*at]))?;
        page.has &= !(1 << bit);
        let gone = page.values.remove(at);
        if page.has == 0 {
            self.pages.remove(&number);
        }
        Some(gone)
    }

    /// Takes up to `limit` values of `first..=last` out, the lowest first.
    pub fn extract(&mut self, first: Place, last: Place, limit: usize) -> Vec<T> {
        let mut gone = Vec::new();
        if first > last {
            return gone;
        }
        while gone.len() < limit {
            let Some((&number, page)) = self
                .pages
                .range_mut(split(first).0..=split(last).0)
                .find(|(number, page)| page.has & bits(**number, first, last) != 0)
            else {
                break;
            };
            let mut wanted = page.has & bits(number, first, last);
            let from = page.locate(wanted.trailing_zeros()).unwrap_or_else(|at| at);
            let many = (wanted.count_ones() as usize).min(limit - gone.len());
            // Those that stay for the next call have the highest bits.
            for _ in 0..many {
                page.has &= !(wanted & wanted.wrapping_neg());
                wanted &= wanted - 1;
            }
            gone.extend(page.values.drain(from..from + many));
            if page.has == 0 {
                self.pages.remove(&number);
            }
        }
        gone
    }

    /// Calls `visit` with the order and value of the places from `first` to `last`, upward or downward, until it returns false. Whether it never did.
    pub fn walk(&self, first: Place, last: Place, up: bool, visit: &mut impl FnMut(u64, &T) -> bool) -> bool {
        let (low, high) = (split(first).0, split(last).0);
        let mut page = |(number, page): (&u128, &Page<T>)| {
            let mut left = page.has & bits(*number, first, last);
            while left != 0 {
                let bit = if up { left.trailing_zeros() } else { PLACES - 1 - left.leading_zeros() };
                left &= !(1 << bit);
                let (Ok(at) | Err(at)) = page.locate(bit);
                if !visit((number * u128::from(PLACES)) as u64 | u64::from(bit), &page.values[at]) {
                    return false;
                }
            }
            true
        };
        // Only the end at which the walk begins is searched for; most walks are short.
        match up {
            true => self.pages.range(low..).take_while(|(number, _)| **number <= high).all(&mut page),
            false => self.pages.range(..=high).rev().take_while(|(number, _)| **number >= low).all(&mut page),
        }
    }

    /// A place of each page, in order.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.pages.keys().map(|page| Place::from_number(page * u128::from(PLACES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;
    use ardb_engine::Space;

    #[test]
    fn is_an_ordered_map() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
        let mut random = Random::new(seed);
        let mut pages = Pages::new();
        let mut model: BTreeMap<Place, u64> = BTreeMap::new();
        for step in 0..40_000 {
            let mut place = || {
                let order = match random.below(3) {
                    0 => random.below(300),
                    1 => (1 << 63) - 40 + random.below(80),
                    _ => u64::MAX - random.below(200),
                };
                Place::new(if random.one_in(2) { Space::Rank1 } else { Space::Element }, 1 + random.below(2), order)
            };
            let (place, other) = (place(), place());
            match random.below(6) {
                0..=2 => {
                    let (value, new) = pages.get_or_insert(place, || step);
                    assert_eq!(new, !model.contains_key(&place), "seed {seed} step {step}");
                    *value = step;
                    model.insert(place, step);
                }
                3 => {
                    let even = |value: &u64| value.is_multiple_of(2);
                    let expected = model.get(&place).copied().filter(even);
                    assert_eq!(pages.remove_if(place, even), expected, "seed {seed} step {step}");
                    if expected.is_some() {
                        model.remove(&place);
                    }
                }
                4 if random.one_in(20) => {
                    let (first, last) = (place.min(other), Place::new(place.space(), place.group(), u64::MAX));
                    let limit = random.below(50) as usize;
                    let gone: Vec<u64> = if first <= last {
                        model.extract_if(first..=last, |_, _| true).take(limit).map(|(_, value)| value).collect()
                    } else {
                        Vec::new()
                    };
                    assert_eq!(pages.extract(first, last, limit), gone, "seed {seed} step {step}");
                }
                _ => {
                    let (first, last) = (place.min(other), place.max(other));
                    let up = random.one_in(2);
                    let mut left = random.below(100);
                    let mut seen = Vec::new();
                    pages.walk(first, last, up, &mut |order, value| {
                        seen.push((order, *value));
                        left = left.saturating_sub(1);
                        left > 0
                    });
                    let range = model.range(first..=last).map(|(place, value)| (place.order(), *value));
                    let mut expected: Vec<_> = if up { range.collect() } else { range.rev().collect() };
                    expected.truncate(seen.len().max(1));
                    assert_eq!(seen, expected, "seed {seed} step {step}");
                }
            }
            assert_eq!(pages.get(place), model.get(&place), "seed {seed} step {step}");
            assert_eq!(pages.get_mut(other), model.get_mut(&other), "seed {seed} step {step}");
            assert_eq!(pages.is_empty(), model.is_empty(), "seed {seed} step {step}");
        }
        let mut groups: Vec<_> = pages.places().map(|place| (place.space(), place.group())).collect();
        groups.dedup();
        let mut expected: Vec<_> = model.keys().map(|place| (place.space(), place.group())).collect();
        expected.dedup();
        assert_eq!(groups, expected);
    }
}
