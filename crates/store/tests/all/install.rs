//! Full syncs: a generation is loaded and made current, or given up, at every moment at which a process or a machine may die.

use ardb_base::disk::Disk;
use ardb_base::id::{Offset, ReplId};
use ardb_base::random::Random;
use ardb_engine::Direction;
use ardb_store::{History, Store, SyncPoint};

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
    let entries = world.disk.list(std::path::Path::new("/data")).expect("the directory is there");
    entries.iter().filter(|entry| entry.name.starts_with("gen-")).count()
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
