//! The catalog: which keyspace stands behind each database, how many keys it has, and the next number for objects and keyspaces.
//!
//! The writer owns the newest state; readers see the keyspaces in their view and the counts in [`Counts`], which keeps versions as
//! rows do. It goes into the engine with every checkpoint as one row of [`Space::Meta`](ardb_engine::Space::Meta), whose format
//! stands here and in `docs/store.md`.

use ardb_base::id::KeyspaceId;
use parking_lot::Mutex;

use crate::versions::Versions;

/// What the writer knows of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// Keys, expired ones that are not yet deleted included.
    pub keys: u64,
    /// How many of them have an expiry.
    pub expiries: u64,
}

/// The whole catalog at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// The next number that no object or keyspace ever had.
    pub next_id: u64,
    /// The databases.
    pub databases: Vec<Database>,
}

/// The version of the rows' values, those of all types included. To be raised when one of them changes.
pub const FORMAT: u8 = 2;

impl Catalog {
    /// The catalog of an empty engine.
    pub fn empty(databases: u32) -> Catalog {
        let databases: Vec<Database> =
            (1..=u64::from(databases)).map(|id| Database { keyspace: KeyspaceId(id), keys: 0, expiries: 0 }).collect();
        Catalog { next_id: databases.len() as u64 + 1, databases }
    }

    /// Gives keyspaces to databases up to `count`. Databases beyond it stay as they are, out of reach.
    pub fn grow(&mut self, count: u32) {
        while self.databases.len() < count as usize {
            self.databases.push(Database { keyspace: KeyspaceId(self.next_id), keys: 0, expiries: 0 });
            self.next_id += 1;
        }
    }

    /// The row's value: [`FORMAT`], next id (8), number of databases (4), then 24 bytes each, integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.next_id.to_le_bytes());
        out.extend_from_slice(&(self.databases.len() as u32).to_le_bytes());
        for database in &self.databases {
            for n in [database.keyspace.0, database.keys, database.expiries] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        out
    }

    /// The catalog that `bytes` hold, or `None` if they are damaged.
    pub fn decode(bytes: &[u8]) -> Option<Catalog> {
        let (&format, rest) = bytes.split_first()?;
        if format != FORMAT {
            return None;
        }
        let (next_id, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let next_id = u64::from_le_bytes(*next_id);
        let (rows, []) = rest.as_chunks::<24>() else { return None };
        if rows.len() != u32::from_le_bytes(*count) as usize {
            return None;
        }
        let databases: Vec<Database> = rows
            .iter()
            .map(|row| {
                // Constants within the 24 bytes.
                let n = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| row[at + i]));
                Database { keyspace: KeyspaceId(n(0)), keys: n(8), expiries: n(16) }
            })
            .collect();
        databases.iter().all(|d| d.keyspace.0 < next_id && d.keyspace.0 > 0).then_some(Catalog { next_id, databases })
    }
}

/// Keys and expiries.
type Pair = (u64, u64);

/// Keys and expiries of each database, with the versions that readers may still see.
#[derive(Debug)]
pub struct Counts {
    databases: Box<[Mutex<Versions<Pair>>]>,
}

impl Counts {
    /// The counts of `catalog` as of `seq`.
    pub fn new(catalog: &Catalog, seq: u64) -> Counts {
        Counts {
            databases: catalog.databases.iter().map(|d| Mutex::new(Versions::new(seq, (d.keys, d.expiries)))).collect(),
        }
    }

    /// Keys and expiries of `db` at a snapshot.
    pub fn at(&self, db: u32, snapshot: u64) -> (u64, u64) {
        self.databases.get(db as usize).and_then(|versions| versions.lock().at(snapshot).copied()).unwrap_or_default()
    }

    /// Makes `counts` the version of `seq`; `active` are the snapshots of readers.
    pub fn set(&self, db: u32, seq: u64, counts: (u64, u64), active: &[u64]) {
        if let Some(versions) = self.databases.get(db as usize) {
            versions.lock().push(seq, counts, active, |_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_holds_the_catalog() {
        let mut catalog = Catalog::empty(3);
        catalog.databases[1].keys = 77;
        catalog.grow(5);
        let bytes = catalog.encode();
        assert_eq!(Catalog::decode(&bytes), Some(catalog));
        for len in 0..bytes.len() {
            assert_eq!(Catalog::decode(&bytes[..len]), None);
        }
        let mut wrong = bytes;
        wrong[0] = FORMAT - 1;
        assert_eq!(Catalog::decode(&wrong), None);
    }

    #[test]
    fn counts_keep_what_readers_see() {
        let counts = Counts::new(&Catalog::empty(2), 1);
        counts.set(0, 2, (5, 1), &[]);
        counts.set(0, 3, (6, 1), &[2]);
        counts.set(0, 4, (7, 1), &[2]);
        assert_eq!(counts.at(0, 2), (5, 1));
        assert_eq!(counts.at(0, 9), (7, 1));
        assert_eq!(counts.at(1, 9), (0, 0));
    }
}
