//! Full syncs: a generation is loaded and made current, or given up, at every moment at which a process or a machine may die.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ardb_base::disk::{DirEntry, DirLock, Disk, DiskError, DiskErrorKind, RegionWriter, SimDisk};
use ardb_base::id::{Offset, ReplId};
use ardb_base::random::Random;
use ardb_engine::faulty::Call;
use ardb_engine::{Direction, RowKey, Rows, RowsMut, Space};
use ardb_store::{History, RawLoad, RawRow, RowSource, Store, StoreSnapshot, SyncPoint};

use crate::harness::*;

const POINT: Offset = Offset(5_000_000);

fn point() -> SyncPoint {
    SyncPoint { history: History::new(ReplId::from_random([9; 20])), offset: POINT, db: Some(2) }
}

/// Loads the data of a master. Gives up where the disk fails.
fn load(store: &Store, random: &mut Random) -> Option<(ardb_store::GenerationLoader, Model)> {
    let loader = store.begin_generation().ok()?;
    let mut model = empty_model();
    for _ in 0..60 {
        let op = random_op(random);
        loader
            .load(|_| ())
            .and_then(|()| {
                let mut txn = loader.write();
                op.apply(&mut txn).expect("the engine does not fail here");
                txn.commit()?;
                drop(txn);
                loader.relieve()
            })
            .ok()?;
        op.apply_to_model(&mut model);
    }
    assert_eq!(dump(&loader.reader().begin(), Direction::Forward).expect("no faults"), model);
    Some((loader, model))
}

fn generations(world: &World) -> usize {
    let entries = world.disk.list(Path::new("/data")).expect("the directory is there");
    entries.iter().filter(|entry| entry.name.starts_with("gen-")).count()
}

/// The same changes, past the table: what was put can be read and walked over at once, wherever it is by then.
#[test]
fn rows_in_bulk_are_those_of_the_model() {
    for round in 0..40 {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(100 + round);
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        // From buffers of a row or two to one that holds everything.
        world.memory.changed = 1 << (8 + 2 * random.below(5));
        let (store, _) = world.open();
        let loader = store.begin_generation().expect("no faults");
        let mut bulk = loader.bulk();
        let mut model = empty_model();
        for step in 0..200 {
            let op = random_op(&mut random);
            op.apply(&mut bulk).expect("no faults");
            op.apply_to_model(&mut model);
            bulk.pace().expect("no faults");
            if step % 20 == 0 {
                let direction = if random.one_in(2) { Direction::Forward } else { Direction::Backward };
                let found = dump(&bulk, direction).expect("no faults");
                assert_eq!(found, model, "seed {seed}, step {step}, {direction:?}");
            }
        }
        bulk.finish().expect("no faults");
        assert_eq!(dump(&loader.reader().begin(), Direction::Forward).expect("no faults"), model, "seed {seed}");
        // Ordinary transactions can go on from there.
        let op = random_op(&mut random);
        op.apply_to_model(&mut model);
        let mut txn = loader.write();
        op.apply(&mut txn).expect("no faults");
        txn.commit().expect("no faults");
        drop(txn);
        store.install(loader, point(), None).expect("no faults");
        for _ in 0..40 {
            let op = random_op(&mut random);
            op.apply_to_model(&mut model);
            commit(&store, &[op]);
            store.tick().expect("no faults");
        }
        store.checkpoint().expect("no faults");
        assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), model, "seed {seed}");
        drop(store);
        let (store, _) = world.open();
        assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), model, "seed {seed}");
    }
}

/// Who writes keys without looking whether they are there counts one too often, and is told at the end.
#[test]
fn a_key_that_stands_twice_in_a_bulk_load_is_found() {
    for twice in [false, true] {
        let mut world = World::new();
        world.memory.changed = 1 << 10;
        let (store, _) = world.open();
        let loader = store.begin_generation().expect("no faults");
        let mut bulk = loader.bulk();
        let group = bulk.keyspace(0).0;
        let keys: Vec<u64> = (0..100).chain(twice.then_some(7)).collect();
        for key in keys {
            let row = RowKey::new(Space::Key, group, key, b"k");
            assert!(bulk.recent(&row).is_none(), "the buffers with the first of them were written long ago");
            bulk.put(row, &[0, 0, 0, b'v']);
            assert!(bulk.recent(&row).is_some());
            bulk.count(0, 1, 0);
            bulk.pace().expect("no faults");
        }
        assert_eq!(bulk.finish().is_err(), twice);
    }
}

/// A commit of the new engine fails, or the load is given up while one is under way: nothing is left, and the old data are served.
#[test]
fn a_bulk_load_that_fails_leaves_nothing() {
    let mut failed = 0;
    for step in 1..30 {
        let mut world = World::new();
        world.memory.changed = 1 << 10;
        let (store, _) = world.open();
        commit(&store, &[Op::Set(0, 1, 1)]);
        let before = dump(&store.reader().begin(), Direction::Forward).expect("no faults");
        let loader = store.begin_generation().expect("no faults yet");
        world.faults().fail_nth(Call::Commit, step);
        let mut random = Random::new(step);
        let mut bulk = loader.bulk();
        let load = |bulk: &mut ardb_store::BulkLoad<'_>, random: &mut Random| {
            for _ in 0..60 {
                random_op(random).apply(bulk)?;
                bulk.pace().map_err(|error| ardb_engine::EngineError::new("load", error))?;
            }
            Ok::<(), ardb_engine::EngineError>(())
        };
        let loaded = load(&mut bulk, &mut random);
        let ended = if step % 5 == 0 || loaded.is_err() {
            drop(bulk);
            loaded.map_err(ardb_store::GenerationError::Engine)
        } else {
            bulk.finish()
        };
        failed += u64::from(ended.is_err());
        drop(loader);
        assert_eq!(generations(&world), 1);
        assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), before);
    }
    assert!(failed > 5, "only {failed} loads failed");
}

#[test]
fn the_new_generation_is_current_and_the_old_one_gone() {
    let mut world = World::new();
    world.memory.changed = 8192;
    let mut random = Random::new(1);
    let (store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1), Op::Field(0, 2, 2, 2)]);
    let mut old_log = store.log().reader(Offset(0)).expect("the log is there");
    let (loader, mut model) = load(&store, &mut random).expect("no faults");
    let mut before = empty_model();
    Op::Set(0, 1, 1).apply_to_model(&mut before);
    Op::Field(0, 2, 2, 2).apply_to_model(&mut before);
    let mut reader = store.reader();
    let mut other = store.reader();
    let old = reader.begin();
    store.install(loader, point(), Some(b"up".to_vec())).expect("no faults");
    assert_eq!(dump(&old, Direction::Forward).expect("no faults"), before, "readers keep their point in time");
    assert_eq!(dump(&other.begin(), Direction::Forward).expect("no faults"), model);
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
    assert_eq!((store.log().start(), store.log().end(), store.checkpoint_offset()), (POINT, POINT, POINT));
    assert_eq!((store.history(), store.upstream()), (point().history, Some(b"up".to_vec())));
    assert_eq!(store.write().frame().db, Some(2));
    assert!(old_log.next_slice(10).is_err(), "the old history is over");
    store.tick().expect("no faults");
    assert_eq!(generations(&world), 2, "somebody still reads the old one");
    drop(old);
    store.tick().expect("no faults");
    assert_eq!(generations(&world), 1);
    for _ in 0..40 {
        let op = random_op(&mut random);
        op.apply_to_model(&mut model);
        commit(&store, &[op]);
        store.tick().expect("no faults");
    }
    let end = store.log().end();
    assert!(store.write().commit_verbatim(end).is_ok());
    let mut txn = store.write();
    txn.frame().payload.push(1);
    assert!(txn.commit_verbatim(end.advance(1)).is_err(), "a hole in the stream");
    assert!(!txn.is_dirty());
    drop(txn);
    drop((reader, other, store, old_log));
    world.disk.kill();
    let (store, recovery) = world.open();
    assert_eq!((recovery.checkpoint, recovery.log_end), (POINT, end));
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
    assert_eq!(store.history(), point().history);
}

#[test]
fn a_load_that_is_given_up_leaves_nothing() {
    let world = World::new();
    let (store, _) = world.open();
    let end = commit(&store, &[Op::Set(0, 1, 1)]);
    let (loader, _) = load(&store, &mut Random::new(2)).expect("no faults");
    assert_eq!(generations(&world), 2);
    drop(loader);
    assert_eq!(generations(&world), 1);
    assert_eq!(store.log().end(), end);
    let (loader, _) = load(&store, &mut Random::new(3)).expect("no faults");
    std::mem::forget(loader);
    drop(store);
    world.disk.kill();
    let (_store, _) = world.open();
    assert_eq!(generations(&world), 1, "what a dead process left goes at the next start");
}

/// Dies at each operation of the disk in turn, as a process and as a machine; the data are the old ones whole or the new ones whole.
#[test]
fn death_at_every_step_of_an_install() {
    let mut installed = [0, 0];
    for power in [false, true] {
        for step in 0..60 {
            let seed = step * 2 + u64::from(power);
            let _seed = Seed(seed);
            let mut random = Random::new(seed);
            let mut world = World::new();
            let (store, _) = world.open();
            let mut old = empty_model();
            for _ in 0..10 {
                let op = random_op(&mut random);
                op.apply_to_model(&mut old);
                commit(&store, &[op]);
            }
            let id = store.history().id;
            let end = store.log().end();
            store.sync_to(end).expect("no faults");
            let Some((loader, new)) = load(&store, &mut random) else { panic!("no faults are ordered yet") };
            world.disk.fail_after(Some(step));
            let result = store.install(loader, point(), Some(b"up".to_vec()));
            if result.is_err() {
                // The old generation goes on.
                assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), old);
                assert_eq!(store.history().id, id);
            } else {
                assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), new);
            }
            drop(store);
            if power {
                world.disk.power_loss(&mut random);
                world.boot += 1;
            } else {
                world.disk.kill();
            }
            let (store, recovery) = world.open();
            let found = dump(&store.write(), Direction::Forward).expect("no faults");
            if recovery.log_start == POINT {
                assert_eq!(found, new);
                assert_eq!(store.history().id, point().history.id, "a replica keeps its master's id");
                installed[usize::from(power)] += 1;
            } else {
                assert!(result.is_err(), "what was installed stays");
                assert_eq!(found, old);
                assert_eq!(recovery.log_end, end);
            }
            assert_eq!(generations(&world), 1);
        }
    }
    assert!(installed.iter().all(|&n| n > 0 && n < 60), "both outcomes were met: {installed:?}");
}

/// A disk on which writes and syncs of the state file fail as planned; what was written stays.
#[derive(Debug)]
struct StateFails {
    disk: SimDisk,
    /// Which of the next calls for the state file go well; all that come after do.
    plan: Mutex<VecDeque<bool>>,
}

impl StateFails {
    fn pass(&self, path: &Path) -> Result<(), DiskError> {
        match path.ends_with("state").then(|| self.plan.lock().expect("no panic in here").pop_front()) {
            Some(Some(false)) => Err(DiskError::new("write", path, DiskErrorKind::Other, "ordered")),
            _ => Ok(()),
        }
    }
}

impl Disk for StateFails {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.create_dir_all(dir)
    }
    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        self.disk.read(path)
    }
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.write_file(path, bytes)
    }
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.pass(path)?;
        self.disk.write_at(path, offset, bytes)
    }
    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.sync_file(path)?;
        self.pass(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
        self.disk.list(dir)
    }
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.remove_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }
    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        self.disk.free_space(path)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn DirLock>, DiskError> {
        self.disk.lock(path)
    }
    fn create_region(&self, path: &Path, len: usize) -> Result<RegionWriter, DiskError> {
        self.disk.create_region(path, len)
    }
    fn open_region(&self, path: &Path) -> Result<RegionWriter, DiskError> {
        self.disk.open_region(path)
    }
}

/// The state was written, but nobody knows: if the old one can be written over it, the old generation counts; if not, the disk decides.
#[test]
fn a_state_that_may_have_been_written_is_left_to_the_next_start() {
    for again in [false, true] {
        let mut world = World::new();
        let front = Arc::new(StateFails { disk: world.disk.clone(), plan: Mutex::default() });
        world.in_front = Some(front.clone());
        let (store, _) = world.open();
        commit(&store, &[Op::Set(0, 1, 1)]);
        let mut old = empty_model();
        Op::Set(0, 1, 1).apply_to_model(&mut old);
        let (loader, new) = load(&store, &mut Random::new(5)).expect("no faults");
        // The write of the new state arrives and its sync fails; then the old one is written over it, or that fails, too.
        front.plan.lock().expect("no panic in there").extend([true, false].into_iter().chain(again.then_some(false)));
        assert!(store.install(loader, point(), None).is_err());
        assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), old);
        drop(store);
        world.disk.kill();
        let (store, recovery) = world.open();
        let found = dump(&store.write(), Direction::Forward).expect("no faults");
        let want = if again { (new, POINT) } else { (old, Offset(0)) };
        assert_eq!((found, recovery.log_start), want);
        assert_eq!(generations(&world), 1);
    }
}

/// Rows one after the other.
struct Given<'a>(std::slice::Iter<'a, (Vec<u8>, Vec<u8>)>);

impl RowSource for Given<'_> {
    fn next_row(&mut self) -> Result<Option<RawRow<'_>>, String> {
        Ok(self.0.next().map(|(key, value)| (&key[..], &value[..])))
    }
}

/// The rows of a snapshot behind a key.
fn raw_rows(snapshot: &StoreSnapshot, after: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let read = snapshot.raw_rows(after, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok::<(), ardb_engine::EngineError>(())
    });
    read.expect("no faults");
    rows
}

/// Another store's rows as they are, garbage included.
#[test]
fn raw_rows_make_the_same_data() {
    for seed in seeds(10) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let (master, mut world) = (World::new(), World::new());
        world.memory.changed = 4096;
        let (from, _) = master.open();
        let mut model = empty_model();
        for _ in 0..150 {
            let op = random_op(&mut random);
            op.apply_to_model(&mut model);
            commit(&from, &[op]);
            if random.one_in(30) {
                from.checkpoint().expect("no faults");
            }
        }
        let snapshot = from.snapshot_at_checkpoint().expect("no faults");
        let rows = raw_rows(&snapshot, b"");
        let at = random.below(rows.len() as u64 + 1) as usize;
        if let Some((key, _)) = at.checked_sub(1).map(|last| &rows[last]) {
            assert_eq!(raw_rows(&snapshot, key), &rows[at..], "from any place");
        }
        let (store, _) = world.open();
        let begin = || RawLoad::new(store.begin_generation().expect("no faults"), &snapshot.catalog());
        assert!(RawLoad::new(store.begin_generation().expect("no faults"), b"nonsense").is_err());
        let mut load = begin().expect("a catalog");
        for part in [&rows[..at], &rows[at..]] {
            load.part(&mut Given(part.iter())).expect("rows");
        }
        assert_eq!(load.rows(), rows.len() as u64);
        // What must not be taken.
        for bad in [&[1; 40][..], &[1; 4], &[0; 17], &rows[0].0[..rows[0].0.len() - 1]] {
            let mut load = begin().expect("a catalog");
            load.part(&mut Given(rows[..1].iter())).expect("a row");
            assert!(load.part(&mut Given([(bad.to_vec(), Vec::new())].iter())).is_err(), "{bad:?}");
        }
        if let Some(key) = rows.iter().position(|(key, _)| key[0] == Space::Key as u8) {
            let mut less = rows.clone();
            less.remove(key);
            let mut load = begin().expect("a catalog");
            load.part(&mut Given(less.iter())).expect("rows");
            // That of a flushed database is of no account. Keyspaces stand in the catalog every 24 bytes from 13 on.
            let dead = snapshot.catalog()[13..].chunks(24).all(|d| d[..8].iter().rev().ne(&rows[key].0[1..9]));
            assert_eq!(load.finish().is_ok(), dead, "a key is missing");
        }
        let loader = load.finish().expect("all rows");
        assert_eq!(dump(&loader.reader().begin(), Direction::Forward).expect("no faults"), model);
        store.install(loader, point(), None).expect("no faults");
        for n in 0..20 {
            assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model, "after {n} commits");
            let op = random_op(&mut random);
            op.apply_to_model(&mut model);
            commit(&store, &[op]);
        }
        drop(store);
        world.disk.kill();
        crate::model::nothing_leaks(&world, &model);
    }
}
