//! What the janitor must leave alone at moments that only threads meet.

use std::path::Path;
use std::sync::Arc;

use ardb_base::disk::SimDisk;
use ardb_base::id::{Offset, ReplId};
use ardb_engine::{Engine, Rows};
use ardb_engine_memory::DurableEngine;
use ardb_log::LogOptions;

use super::*;
use crate::generation::SyncPoint;
use crate::options::{Fsync, History, MemoryBudget, StoreOptions};
use crate::store::Store;

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
        databases: 1,
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

/// Writes a key whose value is an object with one row; gives the place of that.
fn put_big(txn: &mut WriteTxn<'_>, key: u64) -> RowKey<'static> {
    let object = txn.new_object();
    let member = RowKey::new(Space::Member, object.0, 7, b"field");
    txn.put(member, b"value");
    let mut row = vec![b'h', 1, 0];
    row.extend_from_slice(&object.0.to_le_bytes());
    let group = txn.keyspace(0).0;
    txn.put(RowKey::new(Space::Key, group, key, b"key"), &row);
    txn.count(0, 1, 0);
    member
}

#[test]
fn a_walk_of_the_generation_before_touches_nothing_of_the_new_one() {
    let store = open();
    let core = &store.shared.core;
    let mut txn = store.write();
    let flushed = txn.keyspace(0);
    put_big(&mut txn, 1);
    txn.flush(0);
    txn.commit().expect("no faults");
    drop(txn);
    let loader = store.begin_generation().expect("no faults");
    let mut txn = loader.write();
    assert_eq!(txn.keyspace(0), flushed, "each generation counts anew, so a number of the old one is a database here");
    let member = put_big(&mut txn, 2);
    txn.commit().expect("no faults");
    drop(txn);
    // What a step sees that looks for its walk before an install and for the rows after it.
    let before = std::mem::replace(&mut *core.janitor.lock(), Janitor::new(Generation(1)));
    let point = SyncPoint { history: History::new(ReplId::from_random([9; 20])), offset: Offset(77), db: None };
    store.install(loader, point, None).expect("no faults");
    *core.janitor.lock() = before;
    while store.janitor_step().expect("no faults") {}
    store.checkpoint().expect("no faults");
    let mut reader = store.reader();
    assert!(reader.begin().get(member).expect("no faults").is_some(), "a live object was discarded");
}

#[test]
fn a_reader_that_begins_in_the_middle_of_a_step_keeps_what_is_deleted_after_that() {
    let store = open();
    let core = &store.shared.core;
    let mut txn = store.write();
    let member = put_big(&mut txn, 1);
    txn.commit().expect("no faults");
    drop(txn);
    let unneeded = core.unneeded();
    let mut reader = store.reader();
    let view = reader.begin();
    let mut txn = store.write();
    let group = txn.keyspace(0).0;
    txn.delete(RowKey::new(Space::Key, group, 1, b"key"));
    txn.count(0, -1, 0);
    txn.discard(ObjectId(member.group));
    txn.commit().expect("no faults");
    drop(txn);
    assert!(core.janitor.lock().len() > 0);
    core.forget(unneeded);
    assert!(view.get(member).expect("no faults").is_some(), "its reader is still there");
    drop(view);
    core.forget(core.unneeded());
    assert_eq!(core.janitor.lock().forget.len(), 0);
}
