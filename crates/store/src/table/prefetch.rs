//! Asking the processor for rows before they are looked for. It changes no result.

use ardb_base::prefetch::prefetch;
use ardb_engine::{RowKey, Space};

use super::{KEY_BITS, Slot, Table};
use crate::place::Place;

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

    /// Has the processor bring what [`Table::get`] will look at for these key rows (keyspace and order) into its cache. While one search waits for
    /// memory several times over, many do so together.
    pub fn prefetch_keys(&self, rows: &[(u64, u64)]) {
        let shard = |order: u64| &self.shards[(order >> (64 - KEY_BITS)) as usize];
        // First the shards themselves; that one is locked does not matter, but the answer lies in the line that is wanted.
        let locked = rows.iter().filter(|(_, order)| shard(*order).is_locked()).count();
        std::hint::black_box(locked);
        for (keyspace, order) in rows {
            if let Some(map) = shard(*order).try_read()
                && let Some(spread) = map.spread(*keyspace)
            {
                spread.prefetch(*order);
            }
        }
    }

    /// As [`Table::prefetch_keys`], for rows of fields and members that will be written, given by object and order.
    pub fn prefetch_members(&self, rows: &[(u64, u64)]) {
        for of_one in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let object = of_one[0].0;
            let shard = Table::shard_of(Place::of(&RowKey::new(Space::Member, object, 0, b"")));
            if let Some(map) = self.shards[shard].try_read()
                && let Some(spread) = map.spread(object)
            {
                of_one.iter().for_each(|(_, order)| spread.prefetch(*order));
                // By now the first of them are there. What is written takes the place of an older version, which lies elsewhere.
                for (_, order) in of_one {
                    if let Some(Slot::One(_, cell)) = spread.get(*order)
                        && let Some(older) = cell.older()
                    {
                        prefetch(older);
                    }
                }
            }
        }
    }
}
