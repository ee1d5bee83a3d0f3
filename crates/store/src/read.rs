//! The reading side: a reader a thread, a transaction a command (or a burst of them).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::id::KeyspaceId;
use ardb_engine::row::{Visit, VisitValue};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, Value};
use parking_lot::{MappedMutexGuard, MutexGuard};

use crate::core::Core;
use crate::expiries::Entry;
use crate::fetch::{Fetched, RowList};
use crate::readers::{IDLE, Slot};
use crate::table::Purpose;
use crate::view::View;

/// Reads for one thread. It costs memory, not time, while it is not reading.
pub struct Reader {
    core: Arc<Core>,
    slot: Arc<Slot>,
}

impl Reader {
    pub(crate) fn new(core: Arc<Core>) -> Reader {
        let slot = core.readers.register();
        Reader { core, slot }
    }

    /// Reads at the newest commit from here on. It never waits for the writer.
    pub fn begin(&mut self) -> ReadTxn<'_> {
        let mut cached = self.slot.view.lock();
        let seq = self.core.publication.read_point(&self.slot, &mut cached);
        // `read_point` leaves the view that it found.
        let view = MutexGuard::map(cached, |cached| match cached {
            Some((_, view)) => view,
            None => unreachable!("read_point leaves a view"),
        });
        ReadTxn { core: &self.core, slot: &self.slot, view, seq, expiries: Cell::new(None) }
    }

    /// A reader of the same data for another thread.
    #[must_use]
    pub fn another(&self) -> Reader {
        Reader::new(self.core.clone())
    }

    /// Brings a row into memory, so that a transaction that needs it while it holds the writer lock does not wait for the disk.
    pub fn touch(&mut self, key: RowKey<'_>) -> Result<(), EngineError> {
        self.begin().get(key).map(|_| ())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.core.readers.unregister(&self.slot);
    }
}

/// One point in time.
pub struct ReadTxn<'a> {
    core: &'a Core,
    slot: &'a Slot,
    view: MappedMutexGuard<'a, Arc<View>>,
    seq: u64,
    /// The database whose keys with an expiry were counted last, and how many they were. It is asked before each command, and the counts have a lock.
    expiries: Cell<Option<(u32, u64)>>,
}

impl ReadTxn<'_> {
    /// The database whose keyspace `keyspace` is; `None` if it belongs to none (any more).
    #[must_use]
    pub fn database_of(&self, keyspace: KeyspaceId) -> Option<u32> {
        let keyspaces = self.view.keyspaces.iter().take(self.core.databases as usize);
        keyspaces.zip(0..).find(|(of, _)| **of == keyspace).map(|(_, db)| db)
    }

    /// A place in the index of expiries before which the newest commit has no entry; `None` if it has none at all.
    #[must_use]
    pub fn first_expiry(&self) -> Option<Entry> {
        self.core.expiries.first()
    }

    /// Whether there are so many rows that the processor's caches do not hold them, so that [`ReadTxn::prefetch_keys`] is worth its while.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.view.is_large()
    }

    /// Has the processor bring what is known of the rows of keys into its cache: those that have changed lately, and whether the engine has others. Each
    /// is given by its keyspace and its hash.
    pub fn prefetch_keys(&self, rows: &[(u64, u64)]) {
        self.view.prefetch_keys(rows, Purpose::Read);
    }

    /// Whether it is known without the engine what the row is, so that [`Rows::get`] will not wait for the disk, unless the cache forgets it first.
    #[must_use]
    pub fn is_in_memory(&self, key: RowKey<'_>) -> bool {
        self.view.is_in_memory(&key, self.seq)
    }

    /// Brings rows into memory, so that reading them after this does not wait for the disk, unless they are dropped again meanwhile. `told` learns what became of each, by
    /// its place in the list. A row that is the only one that is not in memory is left to whoever needs it: nothing is told of it.
    pub fn fetch(&self, rows: &RowList, told: impl FnMut(usize, Fetched<'_>)) {
        self.view.fetch(rows, self.seq, told);
    }

    /// Counts commits; a later transaction with the same number sees the same data.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.seq
    }
}

impl Rows for ReadTxn<'_> {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        self.view.get(key, self.seq)
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.view.scan(range, direction, self.seq, visit)
    }

    fn values(&self, range: RowRange<'_>, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        self.view.values(range, self.seq, visit)
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.view.keyspaces.get(db as usize).copied().unwrap_or_default()
    }

    fn key_count(&self, db: u32) -> u64 {
        self.view.counts.at(db, self.seq).0
    }

    fn expiry_count(&self, db: u32) -> u64 {
        match self.expiries.get() {
            Some((of, count)) if of == db => count,
            _ => {
                let count = self.view.counts.at(db, self.seq).1;
                self.expiries.set(Some((db, count)));
                count
            }
        }
    }
}

impl Drop for ReadTxn<'_> {
    fn drop(&mut self) {
        self.slot.snapshot.store(IDLE, Ordering::Release);
    }
}
