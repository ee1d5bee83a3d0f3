//! The data at one position of the log, for full syncs and RDB files: an engine snapshot, so it costs no memory however long it is held.

use std::sync::Arc;

use ardb_base::id::{KeyspaceId, Offset, ReplId};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, Snapshot, Value, row::Visit};
use ardb_log::Pin;

use crate::catalog::Catalog;
use crate::checkpoint::Stand;
use crate::position::Position;
use crate::scan;

/// The data at [`StoreSnapshot::offset`]. The log is held from there on until this is dropped (or [`StoreSnapshot::take_pin`] hands the hold on).
pub struct StoreSnapshot {
    position: Position,
    catalog: Catalog,
    databases: u32,
    snapshot: Arc<dyn Snapshot>,
    pin: Option<Pin>,
}

impl StoreSnapshot {
    pub(crate) fn new(stand: Stand, databases: u32) -> StoreSnapshot {
        StoreSnapshot {
            position: stand.position,
            catalog: stand.catalog,
            databases,
            snapshot: stand.snapshot,
            pin: stand.pin,
        }
    }

    /// Everything before this offset of the stream is in the data, nothing from it on.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.position.offset
    }

    /// The history that the offset belongs to.
    #[must_use]
    pub fn id(&self) -> ReplId {
        self.position.id
    }

    /// The database that is selected in the stream at the offset, if that is known.
    #[must_use]
    pub fn stream_db(&self) -> Option<u32> {
        self.position.db
    }

    /// Number of databases.
    #[must_use]
    pub fn databases(&self) -> u32 {
        self.databases
    }

    /// The hold on the log. It can be taken once.
    pub fn take_pin(&mut self) -> Option<Pin> {
        self.pin.take()
    }

    /// The catalog, for a load of raw rows ([`crate::RawLoad::new`]).
    #[must_use]
    pub fn catalog(&self) -> Vec<u8> {
        self.catalog.encode()
    }

    /// The engine's own snapshot, for sending raw rows. Those of the space `Meta` are not for others.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Snapshot> {
        &self.snapshot
    }
}

impl Rows for StoreSnapshot {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        self.snapshot.get(&key.encoded())
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let reach = scan::Reach::Engine(&*self.snapshot, None);
        scan::scan([None, None], reach, range, direction, 0, visit)
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.catalog.databases.get(db as usize).map(|d| d.keyspace).unwrap_or_default()
    }

    fn key_count(&self, db: u32) -> u64 {
        self.catalog.databases.get(db as usize).map_or(0, |d| d.keys)
    }

    fn expiry_count(&self, db: u32) -> u64 {
        self.catalog.databases.get(db as usize).map_or(0, |d| d.expiries)
    }
}
