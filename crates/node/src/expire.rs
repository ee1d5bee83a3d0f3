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
use ardb_store::{Announced, Entry, ReadTxn, WriteTxn};
use ardb_types::TypeError;
use ardb_types::keyspace::{self, Due};

use crate::txn::Batch;
use crate::{Node, nobody};

/// Entries that a replica looks at, from the earliest on, for some that belong to no database. What waits for the master's DEL lies before them.
const LOOKED_AT_BY_A_REPLICA: usize = 1024;

/// What is found at the front of the index.
#[derive(Debug)]
pub struct Scan {
    announced: Announced,
    /// Entries that are due and that [`delete`] can deal with.
    pub due: Vec<Due>,
    /// The first entry besides those.
    rest: Option<Entry>,
}

/// Whether anything may be due. It is asked often, and costs next to nothing.
#[must_use]
pub fn may_be_due(node: Node<'_>, now: UnixMs) -> bool {
    node.store.may_have_expiry_by(keyspace::expiry_order(now))
}

/// At most `most` entries of the index that are due at `now` and that [`delete`] can deal with; none if there is nothing to do. `view` was begun after the scan was
/// [announced](WriteTxn::announce_scan_of_expiries).
///
/// # Errors
/// The index cannot be read.
pub fn due(
    node: Node<'_>,
    announced: Announced,
    view: &ReadTxn<'_>,
    now: UnixMs,
    most: usize,
) -> Result<Scan, TypeError> {
    let is_replica = node.shared.gates.is_replica.load(Ordering::SeqCst);
    let mut scan = Scan { announced, due: Vec::new(), rest: None };
    let Some((order, tail)) = view.first_expiry() else { return Ok(scan) };
    let looked_at = if is_replica { LOOKED_AT_BY_A_REPLICA } else { most };
    (scan.due, scan.rest) = keyspace::due(view, (order, &tail), now, looked_at)?;
    if is_replica {
        let mut first_kept = None;
        scan.due.retain(|entry| {
            let is_dead = view.database_of(entry.keyspace).is_none();
            if !is_dead && first_kept.is_none() {
                first_kept = Some(entry.place());
            }
            is_dead
        });
        if let Some(cut) = scan.due.get(most) {
            // The index is in order, and so is what was taken from it.
            first_kept = first_kept.into_iter().chain([cut.place()]).min();
        }
        scan.due.truncate(most);
        scan.rest = first_kept.or(scan.rest.take());
    }
    Ok(scan)
}

/// Remembers where the index begins when the scan is dealt with. Between two batches, without letting go of the lock since the one that deleted was committed.
pub fn note(txn: &mut WriteTxn<'_>, scan: Scan, gone: Gone) {
    txn.expiries_begin_at(scan.announced, gone.first_left.or(scan.rest));
}

/// What became of the entries of a scan.
#[derive(Debug, Default)]
pub struct Gone {
    /// How many are gone.
    pub entries: usize,
    /// The first that is not.
    first_left: Option<Entry>,
}

/// Deletes the keys of those entries that are still due at the batch's time, and logs that; drops entries that belong to no key.
pub fn delete(node: Node<'_>, batch: &mut Batch<'_, '_>, entries: &[Due]) -> Gone {
    let mut session = nobody();
    let mut reply = Reply::new(Protocol::Resp2);
    let mut gone = Gone::default();
    let now = batch.now();
    for entry in entries {
        let mut ctx = node.ctx(Access::Write(&mut *batch), &mut reply, &mut session, Origin::Client, now);
        let is_gone = expire_entry(&mut ctx, entry).unwrap_or_else(|error| {
            log::warn!("An expired key cannot be deleted: {error}");
            false
        });
        if is_gone {
            gone.entries += 1;
        } else if gone.first_left.is_none() {
            gone.first_left = Some(entry.place());
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
    use ardb_engine::{Direction, Engine, EngineError, RowRange, Rows, RowsMut, Space};
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
        while may_be_due(node, now) {
            let announced = node.store.write().announce_scan_of_expiries();
            let scan = due(node, announced, &reader.begin(), now, most).expect("no faults");
            let found = scan.due.len();
            let mut txn = node.store.write();
            let mut batch = Batch::new(&mut txn, now);
            let deleted = delete(node, &mut batch, &scan.due);
            assert_eq!(deleted.entries, found, "what is due is dealt with");
            gone += deleted.entries;
            txn.commit().expect("no faults");
            note(&mut txn, scan, deleted);
            if found == 0 {
                break;
            }
        }
        gone
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
        let announced = store.write().announce_scan_of_expiries();
        let found_as_master = due(node, announced, &store.reader().begin(), 1000, 30).expect("no faults");
        shared.gates.is_replica.store(true, Ordering::SeqCst);
        let end = store.log().end();
        assert_eq!(rounds(node, 1000, 4), 20);
        assert_eq!((store.log().end(), entries(&store)), (end, 1));
        // The role changed between the look and the lock.
        let mut txn = store.write();
        let mut batch = Batch::new(&mut txn, 1000);
        let gone = delete(node, &mut batch, &found_as_master.due[..1]);
        assert_eq!(gone.entries, 0);
        txn.commit().expect("no faults");
        note(&mut txn, found_as_master, gone);
        drop(txn);
        assert_eq!((store.log().end(), entries(&store)), (end, 1));
        shared.gates.is_replica.store(false, Ordering::SeqCst);
        assert_eq!(rounds(node, 1000, 4), 1);
    }

    /// Nothing that is due is ever passed, whatever is written, flushed, and taken back between a look and what comes of it.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a seed may come from the environment")]
    fn the_front_of_the_index_moves_past_nothing() {
        let seeds = match std::env::var("ARDB_SEED").ok().and_then(|seed| seed.parse().ok()) {
            Some(seed) => seed..seed + 1,
            None => 1..40u64,
        };
        for seed in seeds {
            let mut random = ardb_base::random::Random::new(seed);
            let store = open();
            let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 2, 1));
            let node = Node { store: &store, shared: &shared, host: &NoHost };
            let mut now: UnixMs = 100;
            let change = |random: &mut ardb_base::random::Random, now: UnixMs| {
                for _ in 0..random.below(6) {
                    let (db, key) = (random.below(2) as u32, random.below(30));
                    // Commands run at 1 ms, so the time of a key may lie far behind the look's.
                    let time = 2 + random.below(now as u64 + 60);
                    match random.below(12) {
                        0 => run(node, db, "FLUSHDB"),
                        1 => run(node, db, &format!("DEL {key}")),
                        2 => store.checkpoint().expect("no faults"),
                        3 => {
                            let mut txn = store.write();
                            let (at, value) = (keyspace::expiry_order(time as i64), [&[0u8; 8][..], b"x"].concat());
                            txn.put(ardb_engine::RowKey::new(Space::Expiry, 0, at, &value), b"");
                            txn.rollback();
                        }
                        _ => run(node, db, &format!("SET {key} v PXAT {time}")),
                    }
                }
            };
            for _ in 0..60 {
                change(&mut random, now);
                shared.gates.is_replica.store(random.one_in(4), Ordering::SeqCst);
                now += random.below(20) as i64;
                let announced = store.write().announce_scan_of_expiries();
                if random.one_in(3) {
                    change(&mut random, now);
                }
                let most = 1 + random.below(8) as usize;
                let scan = due(node, announced, &store.reader().begin(), now, most).expect("no faults");
                if random.one_in(2) {
                    change(&mut random, now);
                }
                let mut txn = store.write();
                let mut batch = Batch::new(&mut txn, now);
                let gone = delete(node, &mut batch, &scan.due);
                txn.commit().expect("no faults");
                note(&mut txn, scan, gone);
            }
            shared.gates.is_replica.store(false, Ordering::SeqCst);
            rounds(node, 10_000, 5);
            assert_eq!(entries(&store), 0, "seed {seed}");
        }
    }
}
