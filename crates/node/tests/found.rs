//! What the simulator has found, each as a test of its own.

use std::path::Path;
use std::sync::Arc;

use ardb_base::disk::SimDisk;
use ardb_base::id::{Generation, Offset};
use ardb_commands::{Host, Shared, Table, cmd};
use ardb_engine::{Engine, EngineError};
use ardb_engine_memory::DurableEngine;
use ardb_log::LogOptions;
use ardb_node::{Node, replay, role};
use ardb_store::{Fsync, MemoryBudget, Store, StoreOptions};

fn open(disk: &SimDisk) -> Store {
    let of_engine = disk.clone();
    let engines = move |_: Generation, dir: &Path, _: u64| -> Result<Arc<dyn Engine>, EngineError> {
        Ok(Arc::new(DurableEngine::open(Arc::new(of_engine.clone()), dir)?))
    };
    let options = StoreOptions {
        dir: "/data".into(),
        disk: Arc::new(disk.clone()),
        engines: Arc::new(engines),
        databases: 1,
        memory: MemoryBudget { changed: 1 << 20, rows: 1 << 20, engine: 0 },
        log: LogOptions { segment_bytes: 4096, ahead: false },
        backlog_bytes: 1 << 20,
        fsync: Fsync::Always,
        checkpoint_age_ms: 1000,
        boot_id: [1; 16],
        random: Arc::new(|bytes: &mut [u8]| bytes.fill(7)),
        clock: Arc::new(|| 0),
        background: false,
    };
    Store::open(options).expect("an empty disk takes a store").0
}

struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn say(store: &Store) -> Offset {
    let mut txn = store.write();
    txn.frame().payload.extend_from_slice(b"PING\r\n");
    txn.commit().expect("there is space")
}

/// Found by the simulator: a commit whose sync had failed was acknowledged all the same, by the next link's position.
#[test]
fn what_could_not_be_synced_is_not_offered_where_commits_are_synced_first() {
    let disk = SimDisk::new();
    let store = open(&disk);
    assert_eq!(role::position(&store, true).expect("nothing to sync"), None, "a fresh server has no history");
    let first = say(&store);
    let position = role::position(&store, true).expect("the disk is well");
    assert_eq!(position, Some((store.history().id, first)));
    assert_eq!(store.synced(), first, "asked for with every commit synced, so it is durable");
    let second = say(&store);
    disk.fail_after(Some(0));
    assert!(role::position(&store, true).is_err());
    let position = role::position(&store, false).expect("nothing is synced here");
    assert_eq!(position, Some((store.history().id, second)));
}

/// A master whose stream must select its database anew forgot that over a crash, if only a PING was logged in between; replicas that had another one
/// selected then executed its next commands there.
#[test]
fn a_database_that_is_not_known_is_not_known_after_a_replay() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let mut txn = store.write();
    txn.frame().db = None;
    txn.commit().expect("nothing to append");
    drop(txn);
    say(&store);
    drop(store);
    disk.kill();
    let store = open(&disk);
    let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
    let node = Node { store: &store, shared: &shared, host: &NoHost };
    replay::replay(node, &mut |_| {}).expect("a PING can be replayed");
    assert_eq!(store.write().frame().db, None);
}
