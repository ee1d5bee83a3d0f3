//! The memtable: changed rows in memory, ordered, each with the versions that someone may still read.
//!
//! The rows of [`Space::Key`] are cut into 16,384 shards by the top bits of their order (the cluster slot), so walking the shards
//! is walking the order; all others are cut by a mix of their group, so that a group lies in one shard. A shard is a small lock
//! around the rows of keys and members, whose order is a hash ([`crate::spread::Spread`]), those whose order is a running number ([`crate::pages::Pages`]), and a B-tree of the others,
//! whose keys are integers ([`Place`]); rows of one place (members of equal score, keys that expire together) lie in a second tree by tail.
//!
//! Invariants: one writer at a time calls [`Table::put`] and [`Table::undo`]; a bit of `filled` is set exactly while its shard has
//! rows (both change under the shard's lock); no lock is held across two shards or across a call that can block.

mod patch;
mod prefetch;
mod shard;

pub use prefetch::Purpose;

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ardb_engine::row::VisitValue;
use ardb_engine::{Direction, RowKey, Space, Value};
use parking_lot::RwLock;

use crate::place::{Place, Tail, mix};
use crate::versions::{Pushed, Versions};
use shard::{Shard, Slot};

const KEY_BITS: u32 = 14;
const KEY_SHARDS: usize = 1 << KEY_BITS;
const OTHER_BITS: u32 = 12;
const OTHER_SHARDS: usize = 1 << OTHER_BITS;
/// Bytes a row costs beyond its heap: its share of B-tree nodes that are two thirds full.
const ROW_COST: usize = 124;
/// Bytes a value costs that does not lie inline, beyond its own: its counts and what the allocator adds.
const VALUE_COST: usize = 32;
/// Bytes that a version costs besides when it is not the newest.
const NODE_COST: i64 = 48;

type Cell = Versions<Option<Value>>;

/// What a table knows of a row at a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its value, or `None` if it was deleted.
    Found(Option<Value>),
    /// It changed, but after the snapshot.
    Hidden,
    /// Nothing.
    Missing,
}

/// How to take a [`Table::put`] back.
#[derive(Debug)]
pub enum Undo {
    /// The row was new to the table.
    Created,
    /// An older version lies beneath.
    Over,
    /// The same transaction had written this before.
    Replaced(Option<Value>),
    /// The same, but no savepoint lies between: the older entry of the row will be taken back too.
    Settled,
    /// The same transaction had written this before, and bytes of it were replaced: see [`Table::patch`].
    Patched,
}

/// One row of a scan.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its order in the group.
    pub order: u64,
    /// Its tail.
    pub tail: Tail,
    /// Its value, or `None` if it is deleted.
    pub value: Option<Value>,
}

/// Part of a group: from `lo` (without `lo` itself if `lo_open`) up to, not including, `hi`.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Kind of row.
    pub space: Space,
    /// Keyspace or object.
    pub group: u64,
    /// Where it starts.
    pub lo: (u64, &'a [u8]),
    /// Whether the row at `lo` is left out.
    pub lo_open: bool,
    /// Where it ends; `None` is the end of the group.
    pub hi: Option<(u64, &'a [u8])>,
}

/// A run of rows of one group within one shard, by which a table is drained in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Kind of row.
    pub space: Space,
    /// Keyspace or object.
    pub group: u64,
    shard: usize,
}

impl Run {
    /// The name of a row of the run.
    #[inline]
    pub fn key<'a>(&self, item: &'a Item) -> RowKey<'a> {
        RowKey::new(self.space, self.group, item.order, &item.tail)
    }
}

/// The table. See the module's text.
#[derive(Debug)]
pub struct Table {
    shards: Box<[RwLock<Shard>]>,
    filled: Box<[AtomicU64]>,
    rows: AtomicU64,
    bytes: AtomicU64,
    fresh_from: u64,
}

impl Table {
    /// An empty table. Groups from `fresh_from` on are known to have no rows in anything older than it.
    pub fn new(fresh_from: u64) -> Table {
        Table {
            shards: (0..KEY_SHARDS + OTHER_SHARDS).map(|shard| RwLock::new(Shard::new(shard))).collect(),
            filled: (0..(KEY_SHARDS + OTHER_SHARDS).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            fresh_from,
        }
    }

    /// Groups from here on have no rows in anything older than this table.
    #[inline]
    pub fn fresh_from(&self) -> u64 {
        self.fresh_from
    }

    /// Says from which group on nothing older than this table has rows. Before the table is shared.
    pub fn set_fresh_from(&mut self, fresh_from: u64) {
        self.fresh_from = fresh_from;
    }

    /// Rows it knows of, deleted ones included.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Bytes of memory its rows take, older versions included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether it knows of a row at this place.
    pub fn has_place(&self, place: Place) -> bool {
        self.shards[Table::shard_of(place)].read().get(place).is_some()
    }

    #[inline]
    fn shard_of(place: Place) -> usize {
        if place.space_byte() == Space::Key as u8 {
            // 64 - 14 bits leave a number below 16,384.
            (place.order() >> (64 - KEY_BITS)) as usize
        } else {
            KEY_SHARDS + (mix(place.group()) >> (64 - OTHER_BITS)) as usize
        }
    }

    /// The part of the orders `first..=last` that a shard can hold.
    fn within(shard: usize, first: u64, last: u64) -> (u64, u64) {
        if shard >= KEY_SHARDS {
            return (first, last);
        }
        let low = (shard as u64) << (64 - KEY_BITS);
        (first.max(low), last.min(low | u64::MAX >> KEY_BITS))
    }

    #[inline]
    fn add_bytes(&self, delta: i64) {
        if delta != 0 {
            self.bytes.fetch_add(delta as u64, Relaxed);
        }
    }

    fn mark(&self, shard: usize, filled: bool) {
        let bit = 1 << (shard % 64);
        if filled {
            self.filled[shard / 64].fetch_or(bit, Relaxed);
        } else {
            self.filled[shard / 64].fetch_and(!bit, Relaxed);
        }
    }

    /// The first shard in `from..=last` that has rows.
    fn next_filled(&self, from: usize, last: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)?.load(Relaxed) & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                let shard = word * 64 + bits.trailing_zeros() as usize;
                return (shard <= last).then_some(shard);
            }
            word += 1;
            if word * 64 > last {
                return None;
            }
            bits = self.filled.get(word)?.load(Relaxed);
        }
    }

    /// The last shard in `first..=from` that has rows.
    fn prev_filled(&self, from: usize, first: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)?.load(Relaxed) & (u64::MAX >> (63 - from % 64));
        loop {
            if bits != 0 {
                let shard = word * 64 + 63 - bits.leading_zeros() as usize;
                return (shard >= first).then_some(shard);
            }
            if word * 64 <= first {
                return None;
            }
            word -= 1;
            bits = self.filled.get(word)?.load(Relaxed);
        }
    }

    /// What a reader at `snapshot` finds.
    #[inline]
    pub fn get(&self, key: &RowKey<'_>, snapshot: u64) -> Lookup {
        let place = Place::of(key);
        let shard = Table::shard_of(place);
        // What a reader may see was put before the commit that it stands at, and so was the bit. Most shards are empty when most rows are clean.
        if self.filled[shard / 64].load(Relaxed) & (1 << (shard % 64)) == 0 {
            return Lookup::Missing;
        }
        let map = self.shards[shard].read();
        let cell = match map.get(place) {
            Some(Slot::One(tail, cell)) if tail.is(key.tail) => cell,
            Some(Slot::Many(tails)) => match tails.get(key.tail) {
                Some(cell) => cell,
                None => return Lookup::Missing,
            },
            _ => return Lookup::Missing,
        };
        match cell.at(snapshot) {
            Some(value) => Lookup::Found(value.clone()),
            None => Lookup::Hidden,
        }
    }

    /// Writes a version of a row (`None` deletes it), dropping those that none of `active` can see.
    pub fn put(&self, key: &RowKey<'_>, seq: u64, value: Option<Value>, active: &[u64]) -> Undo {
        let place = Place::of(key);
        let shard = Table::shard_of(place);
        let mut delta = value_cost(&value);
        let mut map = self.shards[shard].write();
        if map.is_empty() {
            self.mark(shard, true);
        }
        let mut value = Some(value);
        let (slot, created) = map.get_or_insert(place, || {
            let tail = Tail::new(key.tail);
            delta += row_cost(&tail);
            Slot::One(tail, Versions::new(seq, value.take().flatten()))
        });
        let undo = match (slot, value.take()) {
            _ if created => Undo::Created,
            (_, None) => Undo::Created,
            (Slot::One(tail, cell), Some(value)) if tail.is(key.tail) => push(cell, seq, value, active, &mut delta),
            (slot @ Slot::One(..), Some(value)) => {
                let first = std::mem::replace(slot, Slot::Many(BTreeMap::new()));
                if let (Slot::Many(tails), Slot::One(tail, cell)) = (slot, first) {
                    tails.insert(tail, cell);
                    let tail = Tail::new(key.tail);
                    delta += row_cost(&tail);
                    tails.insert(tail, Versions::new(seq, value));
                }
                Undo::Created
            }
            (Slot::Many(tails), Some(value)) => match tails.get_mut(key.tail) {
                Some(cell) => push(cell, seq, value, active, &mut delta),
                None => {
                    let tail = Tail::new(key.tail);
                    delta += row_cost(&tail);
                    tails.insert(tail, Versions::new(seq, value));
                    Undo::Created
                }
            },
        };
        drop(map);
        self.add_bytes(delta);
        if matches!(undo, Undo::Created) {
            self.rows.fetch_add(1, Relaxed);
        }
        undo
    }

    /// Takes the newest version of a row back. `saved` is what [`Table::patch`] kept.
    pub fn undo(&self, key: &RowKey<'_>, undo: Undo, saved: &[u8]) {
        let place = Place::of(key);
        let shard = Table::shard_of(place);
        let mut delta = 0;
        let mut map = self.shards[shard].write();
        match undo {
            Undo::Created => delta -= self.remove_row(&mut map, shard, place, key.tail),
            Undo::Over => {
                if let Some(gone) = cell_mut(&mut map, place, key.tail).and_then(Versions::pop) {
                    delta -= value_cost(&gone) + NODE_COST;
                }
            }
            Undo::Settled => {}
            Undo::Patched => {
                if let Some(value) = cell_mut(&mut map, place, key.tail).and_then(|cell| cell.newest_mut().as_mut()) {
                    patch::restore(value, saved);
                }
            }
            Undo::Replaced(value) => {
                if let Some(cell) = cell_mut(&mut map, place, key.tail) {
                    delta += value_cost(&value);
                    delta -= value_cost(&cell.restore(value));
                }
            }
        }
        drop(map);
        self.add_bytes(delta);
    }

    /// Takes a row out of its shard and returns the bytes that it held.
    fn remove_row(&self, map: &mut Shard, shard: usize, place: Place, tail: &[u8]) -> i64 {
        let gone = match map.get_mut(place) {
            Some(Slot::One(..)) => {
                match map.remove_if(place, |slot| matches!(slot, Slot::One(own, _) if own.is(tail))) {
                    Some(Slot::One(tail, cell)) => Some((tail, cell)),
                    _ => None,
                }
            }
            Some(Slot::Many(tails)) => {
                let gone = tails.remove_entry(tail);
                if tails.is_empty() {
                    map.remove_if(place, |_| true);
                }
                gone
            }
            None => None,
        };
        if map.is_empty() {
            self.mark(shard, false);
        }
        gone.map_or(0, |(tail, cell)| {
            self.rows.fetch_sub(1, Relaxed);
            row_cost(&tail) + cell_cost(&cell)
        })
    }

    /// Forgets a row whose newest version is the deletion of `seq`. The caller knows that nothing older than the table has the
    /// row and that no reader stands before `seq`.
    pub fn forget_deleted(&self, key: &RowKey<'_>, seq: u64) {
        let place = Place::of(key);
        let shard = Table::shard_of(place);
        let mut map = self.shards[shard].write();
        let dead = |cell: &Cell| cell.seq() == seq && cell.newest().is_none();
        // Nearly always the row is the only one of its place; then one search finds and removes it.
        let is_it = |slot: &Slot| matches!(slot, Slot::One(own, cell) if own.is(key.tail) && dead(cell));
        if let Some(gone) = map.remove_if(place, is_it) {
            if map.is_empty() {
                self.mark(shard, false);
            }
            drop(map);
            if let Slot::One(own, cell) = &gone {
                self.add_bytes(-(row_cost(own) + cell_cost(cell)));
            }
            self.rows.fetch_sub(1, Relaxed);
            return;
        }
        if cell_mut(&mut map, place, key.tail).is_some_and(|cell| dead(cell)) {
            let freed = self.remove_row(&mut map, shard, place, key.tail);
            drop(map);
            self.add_bytes(-freed);
        }
    }

    /// Forgets up to `limit` rows of a dead object. Returns how many went; fewer than `limit` means that none is left. The caller knows
    /// that nothing older than the table has rows of the object and that no reader can still reach them.
    pub fn forget_object(&self, object: u64, limit: usize) -> usize {
        let spaces = &Space::ALL[Space::Member as usize..=Space::Rank4 as usize];
        let mut gone = 0;
        for &space in spaces {
            let first = Place::new(space, object, 0);
            gone += self.forget_places(Table::shard_of(first), first..=first.group_end(), limit - gone);
            if gone >= limit {
                break;
            }
        }
        gone
    }

    /// Forgets up to `limit` places of one shard; returns how many rows went.
    fn forget_places(&self, shard: usize, places: RangeInclusive<Place>, limit: usize) -> usize {
        let mut freed = 0;
        let mut rows = 0;
        let mut map = self.shards[shard].write();
        if map.is_empty() || places.is_empty() {
            return 0;
        }
        // What is taken out is dropped after the lock is.
        let gone = map.extract(*places.start(), *places.end(), limit);
        if map.is_empty() {
            self.mark(shard, false);
        }
        drop(map);
        for slot in &gone {
            match slot {
                Slot::One(tail, cell) => {
                    rows += 1;
                    freed += row_cost(tail) + cell_cost(cell);
                }
                Slot::Many(tails) => {
                    rows += tails.len();
                    freed += tails.iter().map(|(tail, cell)| row_cost(tail) + cell_cost(cell)).sum::<i64>();
                }
            }
        }
        self.rows.fetch_sub(rows as u64, Relaxed);
        self.add_bytes(-freed);
        rows
    }

    /// Forgets the key rows of a dead keyspace with orders from `from` up to, not including, `to` (to the end, if `None`). The caller knows that no
    /// reader can still reach them, and that whatever lies below the table is deleted before it is read again.
    pub fn forget_keys(&self, keyspace: u64, from: u64, to: Option<u64>) {
        let first = Table::shard_of(Place::new(Space::Key, keyspace, from));
        let last = Table::shard_of(Place::new(Space::Key, keyspace, to.unwrap_or(u64::MAX)));
        let mut at = first;
        while let Some(shard) = self.next_filled(at, last) {
            let end = match to {
                Some(0) => return,
                Some(to) => to - 1,
                None => u64::MAX,
            };
            let (start, end) = Table::within(shard, from, end);
            let place = |order| Place::new(Space::Key, keyspace, order);
            self.forget_places(shard, place(start)..=place(end), usize::MAX);
            at = shard + 1;
        }
    }

    /// Appends rows of `window` to `out`, as a reader at `snapshot` sees them, until `out` holds `limit`. Goes from the low end up or
    /// from the high end down. Returns whether the window is exhausted.
    pub fn collect(
        &self,
        window: Window<'_>,
        direction: Direction,
        snapshot: u64,
        limit: usize,
        out: &mut Vec<Item>,
    ) -> bool {
        self.walk(window, direction, snapshot, &mut collector(limit, out))
    }

    /// Calls `visit` with the values of up to `limit` rows of `window`, upward, until it breaks. Returns the last of those rows if there may be more.
    /// A shard is locked meanwhile.
    pub fn values(
        &self,
        window: Window<'_>,
        snapshot: u64,
        limit: usize,
        visit: &mut VisitValue<'_>,
    ) -> Option<(u64, Tail)> {
        let mut left = limit;
        let mut last = None;
        self.walk(window, Direction::Forward, snapshot, &mut |order, tail: &Tail, value: &Option<Value>| {
            if let Some(value) = value
                && visit(value).is_break()
            {
                return false;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                last = Some((order, tail.clone()));
            }
            left > 0
        });
        last
    }

    /// Calls `visit` with the rows of `window` in order until it returns false. Whether it never did.
    fn walk(
        &self,
        window: Window<'_>,
        direction: Direction,
        snapshot: u64,
        visit: &mut impl FnMut(u64, &Tail, &Option<Value>) -> bool,
    ) -> bool {
        let lo = Table::shard_of(Place::new(window.space, window.group, window.lo.0));
        let hi = match window.hi {
            Some((order, _)) if order < window.lo.0 => return true,
            Some((order, _)) => Table::shard_of(Place::new(window.space, window.group, order)),
            None => Table::shard_of(Place::new(window.space, window.group, u64::MAX)),
        };
        let mut at = match direction {
            Direction::Forward => self.next_filled(lo, hi),
            Direction::Backward => self.prev_filled(hi, lo),
        };
        while let Some(shard) = at {
            if !self.walk_shard(shard, window, direction, snapshot, visit) {
                return false;
            }
            at = match direction {
                Direction::Forward if shard < hi => self.next_filled(shard + 1, hi),
                Direction::Backward if shard > lo => self.prev_filled(shard - 1, lo),
                _ => None,
            };
        }
        true
    }

    fn walk_shard(
        &self,
        shard: usize,
        window: Window<'_>,
        direction: Direction,
        snapshot: u64,
        visit: &mut impl FnMut(u64, &Tail, &Option<Value>) -> bool,
    ) -> bool {
        let (first, last) = Table::within(shard, window.lo.0, window.hi.map_or(u64::MAX, |(order, _)| order));
        if first > last {
            return true;
        }
        let place = |order| Place::new(window.space, window.group, order);
        let map = self.shards[shard].read();
        let mut add = |order: u64, slot: &Slot| -> bool {
            let mut seen = |tail: &Tail, cell: &Cell| cell.at(snapshot).is_none_or(|value| visit(order, tail, value));
            let on_border = order == window.lo.0 || window.hi.is_some_and(|(end, _)| order == end);
            if let (Slot::One(tail, cell), false) = (slot, on_border) {
                return seen(tail, cell);
            }
            let low = match window.lo {
                (at, tail) if at == order && window.lo_open => Bound::Excluded(tail),
                (at, tail) if at == order => Bound::Included(tail),
                _ => Bound::Unbounded,
            };
            let high = match window.hi {
                Some((at, tail)) if at == order => Bound::Excluded(tail),
                _ => Bound::Unbounded,
            };
            match slot {
                Slot::One(tail, cell) => {
                    let inside = match low {
                        Bound::Excluded(low) => **tail > *low,
                        Bound::Included(low) => **tail >= *low,
                        Bound::Unbounded => true,
                    } && match high {
                        Bound::Excluded(high) => **tail < *high,
                        _ => true,
                    };
                    !inside || seen(tail, cell)
                }
                Slot::Many(tails) => {
                    // A range that starts at or after its end would be refused.
                    if let (Bound::Excluded(l) | Bound::Included(l), Bound::Excluded(h)) = (low, high)
                        && l >= h
                    {
                        return true;
                    }
                    let mut range = tails.range::<[u8], _>((low, high));
                    match direction {
                        Direction::Forward => range.all(|(tail, cell)| seen(tail, cell)),
                        Direction::Backward => range.rev().all(|(tail, cell)| seen(tail, cell)),
                    }
                }
            }
        };
        map.walk(place(first), place(last), direction == Direction::Forward, &mut add)
    }

    /// The runs by which all rows are visited in order.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = 0;
        while let Some(shard) = self.next_filled(at, KEY_SHARDS + OTHER_SHARDS - 1) {
            let map = self.shards[shard].read();
            runs.extend(map.groups(shard).map(|(space, group)| Run { space, group, shard }));
            at = shard + 1;
        }
        runs.sort_unstable();
        runs
    }

    /// Like [`Table::collect`], forward, for the rest of one run from `lo` on.
    pub fn collect_run(
        &self,
        run: Run,
        lo: (u64, &[u8]),
        lo_open: bool,
        snapshot: u64,
        limit: usize,
        out: &mut Vec<Item>,
    ) -> bool {
        let window = Window { space: run.space, group: run.group, lo, lo_open, hi: None };
        self.walk_shard(run.shard, window, Direction::Forward, snapshot, &mut collector(limit, out))
    }
}

/// Puts rows into `out` until it holds `limit`.
fn collector(limit: usize, out: &mut Vec<Item>) -> impl FnMut(u64, &Tail, &Option<Value>) -> bool {
    move |order, tail, value| {
        if out.len() >= limit {
            return false;
        }
        out.push(Item { order, tail: tail.clone(), value: value.clone() });
        true
    }
}

fn push(cell: &mut Cell, seq: u64, value: Option<Value>, active: &[u64], delta: &mut i64) -> Undo {
    let mut freed = 0;
    match cell.push(seq, value, active, |gone| freed += value_cost(gone) + NODE_COST) {
        Pushed::Over => {
            *delta += NODE_COST - freed;
            Undo::Over
        }
        Pushed::Replaced(before) => {
            *delta -= value_cost(&before);
            Undo::Replaced(before)
        }
    }
}

fn cell_mut<'m>(map: &'m mut Shard, place: Place, tail: &[u8]) -> Option<&'m mut Cell> {
    match map.get_mut(place)? {
        Slot::One(own, cell) => own.is(tail).then_some(cell),
        Slot::Many(tails) => tails.get_mut(tail),
    }
}

fn row_cost(tail: &Tail) -> i64 {
    (ROW_COST + tail.heap_bytes()) as i64
}

fn value_cost(value: &Option<Value>) -> i64 {
    match value.as_ref().map_or(0, Value::heap_bytes) {
        0 => 0,
        bytes => (bytes + VALUE_COST) as i64,
    }
}

fn cell_cost(cell: &Cell) -> i64 {
    let mut cost = -NODE_COST;
    cell.each(|_, value| cost += value_cost(value) + NODE_COST);
    cost
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
