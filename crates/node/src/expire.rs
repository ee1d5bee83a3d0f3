//! Deleting keys whose time has come, a few at a time, in the order of their time.
//!
//! The index of expiries is read without the lock ([`due`]); what is due is then dealt with under it ([`delete`]). A database that is flushed leaves its
//! entries in the index, which are dropped when they come up; that is no effect, so a replica does it too. A replica deletes no keys: the
//! master's DEL does.

use std::sync::atomic::Ordering;

use ardb_base::id::UnixMs;
use ardb_commands::cmd::expire::expire_entry;
use ardb_commands::{Access, Origin};
use ardb_resp::{Protocol, Reply};
use ardb_store::ReadTxn;
use ardb_types::TypeError;
use ardb_types::keyspace::{self, Due};

use crate::txn::Batch;
use crate::{Node, nobody};

/// Entries that a replica looks at, from the earliest on, for some that belong to no database. What waits for the master's DEL lies before them.
const LOOKED_AT_BY_A_REPLICA: usize = 1024;

/// At most `most` entries of the index that are due at `now` and that [`delete`] can deal with; none if there is nothing to do.
///
/// # Errors
/// The index cannot be read.
pub fn due(node: Node<'_>, view: &ReadTxn<'_>, now: UnixMs, most: usize) -> Result<Vec<Due>, TypeError> {
    if !node.shared.gates.is_replica.load(Ordering::SeqCst) {
        return keyspace::due(view, now, most);
    }
    let mut due = keyspace::due(view, now, LOOKED_AT_BY_A_REPLICA)?;
    due.retain(|entry| view.database_of(entry.keyspace).is_none());
    due.truncate(most);
    Ok(due)
}

/// Deletes the keys of those entries that are still due at the batch's time, and logs that; drops entries that belong to no key. How many entries are gone.
pub fn delete(node: Node<'_>, batch: &mut Batch<'_, '_>, entries: &[Due]) -> usize {
    let mut session = nobody();
    let mut reply = Reply::new(Protocol::Resp2);
    let mut gone = 0;
    let now = batch.now();
    for entry in entries {
        let mut ctx = node.ctx(Access::Write(&mut *batch), &mut reply, &mut session, Origin::Client, now);
        match expire_entry(&mut ctx, entry) {
            Ok(true) => gone += 1,
            Ok(false) => {}
            Err(error) => log::warn!("An expired key cannot be deleted: {error}"),
        }
        batch.next_command();
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ardb_base::disk::SimDisk;
    use ardb_base::id::Generation;
    use ardb_commands::{Host, Shared, Table, cmd, dispatch};
    use ardb_engine::{Direction, Engine, EngineError, RowRange, Rows, Space};
    use ardb_engine_memory::DurableEngine;
    use ardb_log::LogOptions;
    use ardb_store::{Fsync, MemoryBudget, Store, StoreOptions};

    use super::*;

    struct NoHost;

    impl Host for NoHost {
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    fn open() -> Store {
        let disk = SimDisk::new();
        let of_engine = disk.clone();
        let engines = move |_: Generation, dir: &Path, _: u64| -> Result<Arc<dyn Engine>, EngineError> {
            Ok(Arc::new(DurableEngine::open(Arc::new(of_engine.clone()), dir)?))
        };
        let options = StoreOptions {
            dir: "/data".into(),
            disk: Arc::new(disk),
            engines: Arc::new(engines),
            databases: 2,
            memory: MemoryBudget { changed: 1 << 20, rows: 1 << 20, engine: 0 },
            log: LogOptions { segment_bytes: 1 << 16, ahead: false },
            backlog_bytes: 1 << 20,
            fsync: Fsync::No,
            checkpoint_age_ms: 1000,
            boot_id: [1; 16],
            random: Arc::new(|bytes: &mut [u8]| bytes.fill(7)),
            clock: Arc::new(|| 0),
            background: false,
        };
        Store::open(options).expect("an empty disk takes a store").0
    }

    fn run(node: Node<'_>, db: u32, line: &str) {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut session = nobody();
        session.db = db;
        let mut reply = Reply::new(Protocol::Resp2);
        let mut txn = node.store.write();
        let mut batch = Batch::new(&mut txn, 1);
        let command = dispatch::resolve(&node.shared.table, &args).expect("a command");
        let mut ctx = node.ctx(Access::Write(&mut batch), &mut reply, &mut session, Origin::Client, 1);
        dispatch::execute(&mut ctx, command, &args);
        assert!(!reply.bytes().starts_with(b"-"), "{line}: {}", String::from_utf8_lossy(reply.bytes()));
        txn.commit().expect("no faults");
    }

    /// Rounds until one has nothing to do; how many entries they dealt with.
    fn rounds(node: Node<'_>, now: UnixMs, most: usize) -> usize {
        let mut gone = 0;
        let mut reader = node.store.reader();
        loop {
            let due = due(node, &reader.begin(), now, most).expect("no faults");
            if due.is_empty() {
                return gone;
            }
            let mut txn = node.store.write();
            let mut batch = Batch::new(&mut txn, now);
            let deleted = delete(node, &mut batch, &due);
            assert!(deleted > 0, "what is due is dealt with");
            gone += deleted;
            txn.commit().expect("no faults");
        }
    }

    fn entries(store: &Store) -> usize {
        let mut count = 0;
        let range = RowRange::group(Space::Expiry, 0);
        let mut visit = |_: ardb_engine::RowKey<'_>, _: &ardb_engine::Value| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        };
        store.reader().begin().scan(range, Direction::Forward, &mut visit).expect("no faults");
        count
    }

    #[test]
    fn entries_of_flushed_databases_do_not_stand_before_keys_that_are_due() {
        let store = open();
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 2, 1));
        let node = Node { store: &store, shared: &shared, host: &NoHost };
        for n in 0..20 {
            run(node, 0, &format!("SET dead{n} v PXAT {}", 100 + n));
        }
        run(node, 0, "FLUSHDB");
        run(node, 0, "SET a v PXAT 200");
        run(node, 1, "SET b v PXAT 300");
        let end = store.log().end();
        assert_eq!(rounds(node, 99, 4), 0, "nothing is due");
        assert_eq!(rounds(node, 150, 4), 20);
        assert_eq!(
            (store.log().end(), entries(&store)),
            (end, 2),
            "an entry without a key is dropped without an effect"
        );
        assert_eq!(rounds(node, 250, 4), 1);
        assert!(store.log().end() > end, "a key's deletion is logged");
        assert_eq!(rounds(node, 350, 4), 1);
        assert_eq!(entries(&store), 0);
    }

    #[test]
    fn a_replica_drops_what_belongs_to_no_key_and_leaves_keys_to_its_master() {
        let store = open();
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 2, 1));
        let node = Node { store: &store, shared: &shared, host: &NoHost };
        run(node, 1, "SET live v PXAT 50");
        for n in 0..20 {
            run(node, 0, &format!("SET dead{n} v PXAT {}", 100 + n));
        }
        run(node, 0, "FLUSHDB");
        let found_as_master = due(node, &store.reader().begin(), 1000, 30).expect("no faults");
        shared.gates.is_replica.store(true, Ordering::SeqCst);
        let end = store.log().end();
        assert_eq!(rounds(node, 1000, 4), 20);
        assert_eq!((store.log().end(), entries(&store)), (end, 1));
        // The role changed between the look and the lock.
        let mut txn = store.write();
        let mut batch = Batch::new(&mut txn, 1000);
        delete(node, &mut batch, &found_as_master[..1]);
        txn.commit().expect("no faults");
        drop(txn);
        assert_eq!((store.log().end(), entries(&store)), (end, 1));
        shared.gates.is_replica.store(false, Ordering::SeqCst);
        assert_eq!(rounds(node, 1000, 4), 1);
    }
}
