//! Asking the processor for rows before they are looked for. It changes no result.
//!
//! A search goes from one piece of memory to the next, and waits for each. Here many searches go on together, step by step: what the next step will look at is
//! asked for, for all of them, before the first of them goes on.

use std::cell::Cell;

use ardb_base::prefetch::prefetch;
use ardb_engine::{RowKey, Space};

use super::{KEY_BITS, Slot, Table};
use crate::place::Place;
use crate::spread::Spread;

/// What the rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// [`Table::get`] alone.
    Read,
    /// [`Table::put`] too.
    Write,
}

impl Slot {
    /// Asks for what [`Table::put`] looks at besides.
    #[inline]
    fn prefetch_older(&self) {
        if let Slot::One(_, cell) = self {
            cell.prefetch_older();
        }
    }
}

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Bytes of a value that are asked for at most: a leaf of a sorted set.
const MOST: usize = 3072;

impl Table {
    /// Has the processor bring the newest value of a row into its cache, and does not wait for it.
    pub fn prefetch_row(&self, key: &RowKey<'_>) {
        let place = Place::of(key);
        let map = self.shards[Table::shard_of(place)].read();
        if let Some(Slot::One(_, cell)) = map.get(place)
            && let Some(value) = cell.newest()
        {
            value[..value.len().min(MOST)].iter().step_by(LINE).for_each(prefetch);
        }
    }

    /// Has the processor bring what these key rows (keyspace and order) are looked for in, and they themselves, into its cache.
    pub fn prefetch_keys(&self, rows: &[(u64, u64)], purpose: Purpose) {
        let shard = |order: u64| &self.shards[(order >> (64 - KEY_BITS)) as usize];
        // First the shards themselves; that one is locked does not matter, but the answer lies in the line that is wanted.
        let locked = rows.iter().filter(|(_, order)| shard(*order).is_locked()).count();
        std::hint::black_box(locked);
        let each = |step: &dyn Fn(&Spread<Slot>, u64)| {
            for (keyspace, order) in rows {
                if let Some(map) = shard(*order).try_read()
                    && let Some(spread) = map.spread(*keyspace)
                {
                    step(spread, *order);
                }
            }
        };
        // Directories are small.
        let any = Cell::new(false);
        each(&|spread, _| any.set(any.get() | spread.prefetch_tree()));
        if any.get() {
            each(&Spread::prefetch_place);
        }
        each(&Spread::prefetch_keys);
        each(&Spread::prefetch_value);
        if purpose == Purpose::Write {
            each(&|spread, order| spread.get(order).into_iter().for_each(Slot::prefetch_older));
        }
    }

    /// As [`Table::prefetch_keys`], for rows of fields and members, given by object and order.
    pub fn prefetch_members(&self, rows: &[(u64, u64)], purpose: Purpose) {
        for of_one in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let object = of_one[0].0;
            let shard = Table::shard_of(Place::of(&RowKey::new(Space::Member, object, 0, b"")));
            if let Some(map) = self.shards[shard].try_read()
                && let Some(spread) = map.spread(object)
            {
                of_one.iter().for_each(|(_, order)| spread.prefetch_leaf(*order));
                of_one.iter().for_each(|(_, order)| spread.prefetch_keys(*order));
                of_one.iter().for_each(|(_, order)| spread.prefetch_value(*order));
                if purpose == Purpose::Write {
                    for (_, order) in of_one {
                        spread.get(*order).into_iter().for_each(Slot::prefetch_older);
                    }
                }
            }
        }
    }
}
