//! A transaction over a plain ordered map, for tests: the simplest thing that keeps the promises of [`Rows`] and [`RowsMut`].

use std::collections::BTreeMap;
use std::ops::Bound;

use ardb_base::id::{KeyspaceId, ObjectId};
use ardb_base::random::Random;
use ardb_engine::row::Visit;
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Space, Value};

#[derive(Clone, Copy, Debug, Default)]
struct Db {
    keyspace: u64,
    keys: i64,
    expiries: i64,
}

/// All rows in memory.
#[derive(Clone, Debug)]
pub struct Model {
    rows: BTreeMap<Vec<u8>, Value>,
    dbs: Vec<Db>,
    next_id: u64,
    /// Rows were damaged, so one that is not there may be deleted.
    damaged: bool,
    /// Objects left to the janitor.
    pub discarded: Vec<ObjectId>,
}

impl Model {
    /// An empty one with this many databases.
    #[must_use]
    pub fn new(databases: u32) -> Model {
        let dbs = (0..u64::from(databases)).map(|n| Db { keyspace: n + 1, ..Db::default() }).collect();
        Model { rows: BTreeMap::new(), dbs, next_id: u64::from(databases) + 1, damaged: false, discarded: Vec::new() }
    }

    /// How many rows there are in a space whose group was not discarded. Tests use it to find leaks.
    #[must_use]
    pub fn live_rows(&self, space: Space) -> usize {
        self.rows
            .keys()
            .filter_map(|key| RowKey::decode(key))
            .filter(|key| key.space == space && !self.discarded.contains(&ObjectId(key.group)))
            .count()
    }

    /// Changes bytes of a row of one of these spaces, cuts it off, or takes the row away.
    pub fn damage(&mut self, random: &mut Random, spaces: &[Space]) {
        self.damaged = true;
        let Some(space) = spaces.get(random.below(spaces.len() as u64) as usize) else { return };
        let keys: Vec<Vec<u8>> = self.rows.keys().filter(|key| key.first() == Some(&(*space as u8))).cloned().collect();
        let Some(key) = keys.get(random.below(keys.len().max(1) as u64) as usize) else { return };
        let mut bytes = self.rows.get(key).map(|value| value.to_vec()).unwrap_or_default();
        match random.below(8) {
            0 => drop(self.rows.remove(key)),
            1 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
            _ => {
                for _ in 0..=random.below(3) {
                    // Where numbers stand, as a rule.
                    let most = if random.one_in(2) { 60 } else { bytes.len() as u64 };
                    if let Some(byte) = bytes.get_mut(random.below(most.max(1)) as usize) {
                        *byte = if random.one_in(3) { 0xff } else { random.below(256) as u8 };
                    }
                }
            }
        }
        if let Some(value) = self.rows.get_mut(key) {
            *value = Value::new(&bytes);
        }
    }
}

impl Rows for Model {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        Ok(self.rows.get(&key.encoded()).cloned())
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let from = RowKey::new(range.space, range.group, range.from.0, range.from.1).encoded();
        let to = match range.to {
            Some((order, tail)) => RowKey::new(range.space, range.group, order, tail).encoded(),
            None => {
                // The end of the group: one past its greatest header.
                let mut end = RowKey::new(range.space, range.group, u64::MAX, b"").encoded();
                end.extend_from_slice(&[0xff; 1024]);
                end
            }
        };
        if from >= to {
            return Ok(());
        }
        let found = self.rows.range((Bound::Included(from), Bound::Excluded(to)));
        let mut step =
            |(key, value): (&Vec<u8>, &Value)| RowKey::decode(key).is_some_and(|key| visit(key, value).is_break());
        match direction {
            Direction::Forward => {
                let _ = { found }.any(&mut step);
            }
            Direction::Backward => {
                let _ = found.rev().any(&mut step);
            }
        }
        Ok(())
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        KeyspaceId(self.dbs[db as usize].keyspace)
    }

    fn key_count(&self, db: u32) -> u64 {
        u64::try_from(self.dbs[db as usize].keys).unwrap_or(0)
    }

    fn expiry_count(&self, db: u32) -> u64 {
        u64::try_from(self.dbs[db as usize].expiries).unwrap_or(0)
    }
}

impl RowsMut for Model {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.rows.insert(key.encoded(), Value::new(value));
    }

    fn delete(&mut self, key: RowKey<'_>) {
        let removed = self.rows.remove(&key.encoded());
        debug_assert!(removed.is_some() || self.damaged, "deleted a row that does not exist: {key:?}");
    }

    fn new_object(&mut self) -> ObjectId {
        self.next_id += 1;
        ObjectId(self.next_id)
    }

    fn discard(&mut self, object: ObjectId) {
        assert!(!self.discarded.contains(&object), "{object:?} discarded twice");
        self.discarded.push(object);
        // The janitor comes at once.
        for space in Space::ALL.into_iter().filter(|space| (Space::Member..=Space::Rank4).contains(space)) {
            let from = RowKey::new(space, object.0, 0, b"").encoded();
            let to = RowKey::new(space, object.0 + 1, 0, b"").encoded();
            let gone: Vec<Vec<u8>> = self.rows.range(from..to).map(|(key, _)| key.clone()).collect();
            for key in gone {
                self.rows.remove(&key);
            }
        }
    }

    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        let db = &mut self.dbs[db as usize];
        db.keys += keys;
        db.expiries += expiries;
        assert!(db.keys >= 0 && db.expiries >= 0 && db.expiries <= db.keys, "counts went wrong: {db:?}");
    }

    fn flush(&mut self, db: u32) {
        let keyspace = self.new_object().0;
        self.dbs[db as usize] = Db { keyspace, ..Db::default() };
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.dbs.swap(a as usize, b as usize);
    }
}
