//! One shard of a table: its rows, each kind in the map that suits its orders.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ardb_engine::Space;
use parking_lot::RwLock;

use super::{Cell, KEY_BITS, KEY_SHARDS};
use crate::pages::Pages;
use crate::place::{Place, Tail};
use crate::spread::Spread;

/// The rows of a place.
#[derive(Debug)]
pub enum Slot {
    One(Tail, Cell),
    Many(BTreeMap<Tail, Cell>),
}

/// What few shards have.
#[derive(Debug)]
struct More {
    /// The other groups of rows whose order is a hash.
    groups: BTreeMap<u64, Spread<Slot>>,
    /// The rows whose order is a running number.
    pages: Pages<Slot>,
}

/// The rows of a shard. With its lock it is two cache lines long, and nearly all searches need the first alone.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    /// The group that came first, or 0, and its rows whose order is a hash: nearly always there is no other.
    group: u64,
    first: Spread<Slot>,
    more: Option<Box<More>>,
    /// All other rows.
    rest: BTreeMap<Place, Slot>,
    _to_the_end_of_the_line: [u64; 2],
}

const _: () = assert!(size_of::<RwLock<Shard>>() == 128);

/// Whether the order of such rows is a hash.
#[inline]
fn is_spread(space_byte: u8) -> bool {
    space_byte == Space::Key as u8 || space_byte == Space::Member as u8
}

/// Whether the orders of such rows follow one another.
#[inline]
fn is_numbered(space_byte: u8) -> bool {
    [Space::Element as u8, Space::Chunk as u8, Space::Rank1 as u8].contains(&space_byte)
}

// Which of the two spaces such a group belongs to is told by the shard.
impl Shard {
    pub fn new(shard: usize) -> Shard {
        let shared = if shard < KEY_SHARDS { KEY_BITS } else { 0 };
        Shard {
            group: 0,
            first: Spread::new(shared),
            more: None,
            rest: BTreeMap::new(),
            _to_the_end_of_the_line: [0; 2],
        }
    }

    pub fn is_empty(&self) -> bool {
        self.group == 0 && self.more.is_none() && self.rest.is_empty()
    }

    #[inline]
    pub fn spread(&self, group: u64) -> Option<&Spread<Slot>> {
        if self.group == group { Some(&self.first) } else { self.more.as_ref()?.groups.get(&group) }
    }

    fn spread_mut(&mut self, group: u64) -> Option<&mut Spread<Slot>> {
        if self.group == group { Some(&mut self.first) } else { self.more.as_mut()?.groups.get_mut(&group) }
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_with(|| Box::new(More { groups: BTreeMap::new(), pages: Pages::new() }))
    }

    /// Forgets a group of rows whose order is a hash that has none any more.
    fn tidy(&mut self, group: u64) {
        if self.group == group {
            if self.first.is_empty() {
                self.group = 0;
            }
        } else if let Some(more) = &mut self.more
            && more.groups.get(&group).is_some_and(Spread::is_empty)
        {
            more.groups.remove(&group);
            self.tidy_more();
        }
    }

    /// Lets go what few shards have if this one has nothing of it any more.
    fn tidy_more(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.groups.is_empty() && more.pages.is_empty()) {
            self.more = None;
        }
    }

    #[inline]
    pub fn get(&self, place: Place) -> Option<&Slot> {
        match place.space_byte() {
            space if is_spread(space) => self.spread(place.group())?.get(place.order()),
            space if is_numbered(space) => self.more.as_ref()?.pages.get(place),
            _ => self.rest.get(&place),
        }
    }

    pub fn get_mut(&mut self, place: Place) -> Option<&mut Slot> {
        match place.space_byte() {
            space if is_spread(space) => self.spread_mut(place.group())?.get_mut(place.order()),
            space if is_numbered(space) => self.more.as_mut()?.pages.get_mut(place),
            _ => self.rest.get_mut(&place),
        }
    }

    /// The slot of a place, made by `new` if there was none, and whether it was.
    pub fn get_or_insert(&mut self, place: Place, new: impl FnOnce() -> Slot) -> (&mut Slot, bool) {
        if is_spread(place.space_byte()) {
            let group = place.group();
            if self.group == 0 && self.more.as_ref().is_none_or(|more| more.groups.is_empty()) {
                self.group = group;
            }
            let spread = if self.group == group {
                &mut self.first
            } else {
                let shared = self.first.shared();
                self.more_mut().groups.entry(group).or_insert_with(|| Spread::new(shared))
            };
            return spread.get_or_insert(place.order(), new);
        }
        if is_numbered(place.space_byte()) {
            return self.more_mut().pages.get_or_insert(place, new);
        }
        match self.rest.entry(place) {
            Entry::Vacant(entry) => (entry.insert(new()), true),
            Entry::Occupied(entry) => (entry.into_mut(), false),
        }
    }

    /// Takes the slot of a place out, if `wanted` says so of it.
    pub fn remove_if(&mut self, place: Place, wanted: impl FnOnce(&Slot) -> bool) -> Option<Slot> {
        if is_spread(place.space_byte()) {
            let gone = self.spread_mut(place.group())?.remove_if(place.order(), wanted)?;
            self.tidy(place.group());
            return Some(gone);
        }
        if is_numbered(place.space_byte()) {
            let gone = self.more.as_mut()?.pages.remove_if(place, wanted)?;
            self.tidy_more();
            return Some(gone);
        }
        match self.rest.entry(place) {
            Entry::Occupied(entry) if wanted(entry.get()) => Some(entry.remove()),
            _ => None,
        }
    }

    /// Takes up to `limit` places from `first` to `last`, which are of one group, out.
    pub fn extract(&mut self, first: Place, last: Place, limit: usize) -> Vec<Slot> {
        if is_spread(first.space_byte()) {
            let Some(spread) = self.spread_mut(first.group()) else { return Vec::new() };
            let gone = spread.extract(first.order(), last.order(), limit);
            self.tidy(first.group());
            return gone;
        }
        if is_numbered(first.space_byte()) {
            let Some(more) = &mut self.more else { return Vec::new() };
            let gone = more.pages.extract(first, last, limit);
            self.tidy_more();
            return gone;
        }
        self.rest.extract_if(first..=last, |_, _| true).take(limit).map(|(_, slot)| slot).collect()
    }

    /// Calls `visit` with the places from `first` to `last`, which are of one group, upward or downward, until it returns false. Whether it never did.
    pub fn walk(&self, first: Place, last: Place, up: bool, visit: &mut impl FnMut(u64, &Slot) -> bool) -> bool {
        if is_spread(first.space_byte()) {
            let spread = self.spread(first.group());
            return spread.is_none_or(|spread| spread.walk(first.order(), last.order(), up, visit));
        }
        if is_numbered(first.space_byte()) {
            return self.more.as_ref().is_none_or(|more| more.pages.walk(first, last, up, visit));
        }
        // Only the end at which the walk begins is searched for; most walks are short.
        match up {
            true => (self.rest.range(first..).take_while(|(place, _)| **place <= last))
                .all(|(place, slot)| visit(place.order(), slot)),
            false => (self.rest.range(..=last).rev().take_while(|(place, _)| **place >= first))
                .all(|(place, slot)| visit(place.order(), slot)),
        }
    }

    /// The groups that have rows, with their space.
    pub fn groups(&self, shard: usize) -> impl Iterator<Item = (Space, u64)> {
        let space = if shard < KEY_SHARDS { Space::Key } else { Space::Member };
        let first = (self.group != 0).then_some((space, self.group));
        let more = self.more.as_deref().into_iter();
        let spread = more.clone().flat_map(|more| more.groups.keys()).map(move |group| (space, *group));
        let mut last = None;
        let others = more.flat_map(|more| more.pages.places()).chain(self.rest.keys().copied());
        first.into_iter().chain(spread).chain(others.filter_map(move |place| {
            let name = (place.space_byte(), place.group());
            (last.replace(name) != Some(name)).then(|| (place.space(), place.group()))
        }))
    }
}
