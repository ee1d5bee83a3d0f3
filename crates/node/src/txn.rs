//! The store's write transaction as commands see it.

use ardb_base::id::{KeyspaceId, ObjectId, UnixMs};
use ardb_commands::Transaction;
use ardb_commands::context::Savepoint;
use ardb_engine::row::{Patch, Visit, VisitValue};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Value};
use ardb_store::WriteTxn;

/// A transaction with the savepoints of the command at hand.
pub struct Batch<'t, 'a> {
    txn: &'t mut WriteTxn<'a>,
    /// The store's savepoints behind those that commands hold, by their number.
    savepoints: Vec<ardb_store::Savepoint>,
    now: UnixMs,
}

impl<'t, 'a> Batch<'t, 'a> {
    /// Around a transaction of the store whose commands are executed at `now` (ms since 1970), and are so again if they are replayed.
    #[must_use]
    pub fn new(txn: &'t mut WriteTxn<'a>, now: UnixMs) -> Batch<'t, 'a> {
        txn.frame().time = Some(now);
        Batch { txn, savepoints: Vec::new(), now }
    }

    /// The time of its commands.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// Forgets the savepoints of the command that has just ended.
    pub fn next_command(&mut self) {
        self.savepoints.clear();
        self.txn.settle();
    }

    /// The store's transaction.
    pub fn store(&mut self) -> &mut WriteTxn<'a> {
        self.txn
    }
}

impl Rows for Batch<'_, '_> {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        self.txn.get(key)
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.txn.scan(range, direction, visit)
    }

    fn values(&self, range: RowRange<'_>, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        self.txn.values(range, visit)
    }

    fn prefetch(&self, key: RowKey<'_>) {
        self.txn.prefetch(key);
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.txn.keyspace(db)
    }

    fn key_count(&self, db: u32) -> u64 {
        self.txn.key_count(db)
    }

    fn expiry_count(&self, db: u32) -> u64 {
        self.txn.expiry_count(db)
    }
}

impl RowsMut for Batch<'_, '_> {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.txn.put(key, value);
    }

    fn patch(&mut self, key: RowKey<'_>, old: Value, patches: &[Patch<'_>]) {
        self.txn.patch(key, old, patches);
    }

    fn delete(&mut self, key: RowKey<'_>) {
        self.txn.delete(key);
    }

    fn new_object(&mut self) -> ObjectId {
        self.txn.new_object()
    }

    fn discard(&mut self, object: ObjectId) {
        self.txn.discard(object);
    }

    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        self.txn.count(db, keys, expiries);
    }

    fn flush(&mut self, db: u32) {
        self.txn.flush(db);
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.txn.swap(a, b);
    }
}

impl Transaction for Batch<'_, '_> {
    fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.txn.frame().payload
    }

    fn stream_db(&mut self) -> &mut Option<u32> {
        &mut self.txn.frame().db
    }

    fn savepoint(&mut self) -> Savepoint {
        self.savepoints.push(self.txn.savepoint());
        let frame = self.txn.frame();
        Savepoint { undo: self.savepoints.len() - 1, payload: frame.payload.len(), stream_db: frame.db }
    }

    fn rollback_to(&mut self, savepoint: Savepoint) {
        // One that is unknown would be of an earlier command, which cannot happen: commands keep none.
        if let Some(point) = self.savepoints.get(savepoint.undo).copied() {
            self.txn.rollback_to(point);
            self.savepoints.truncate(savepoint.undo);
        }
    }

    fn release(&mut self, savepoint: Savepoint) {
        self.savepoints.truncate(savepoint.undo);
        // EXEC and scripts hold no savepoint of their own, so after each of their commands none is left.
        if self.savepoints.is_empty() {
            self.txn.settle();
        }
    }
}
