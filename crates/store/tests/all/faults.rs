//! Engines that fail, disks that are full, memory that has an end.

use std::sync::atomic::Ordering;

use ardb_base::random::Random;
use ardb_engine::faulty::Call;
use ardb_engine::{Direction, Rows};
use ardb_store::{CheckpointError, CommitError};

use crate::harness::*;

#[test]
fn a_failed_checkpoint_loses_nothing_and_is_tried_again() {
    for seed in seeds(20) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        world.memory.changed = 4096;
        let (store, _) = world.open();
        let mut model = empty_model();
        for _ in 0..10 {
            if random.one_in(2) {
                world.faults().fail_nth(Call::Commit, 1);
            }
            if random.one_in(4) {
                world.faults().fail_nth(Call::Move, 1 + random.below(20));
            }
            for _ in 0..random.below(6) {
                let op = random_op(&mut random);
                let mut txn = store.write();
                match op.apply(&mut txn) {
                    Ok(()) => {
                        op.encode(&mut txn.frame().payload);
                        match txn.commit() {
                            Ok(_) => op.apply_to_model(&mut model),
                            Err(CommitError::Checkpoint(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    Err(_) => txn.rollback(),
                }
            }
            let failed = store.checkpoint().is_err();
            assert_eq!(store.stats().checkpoint_failure.is_some(), failed);
            if random.one_in(2) {
                world.faults().heal();
                assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("healed"), model);
            }
        }
        world.faults().heal();
        store.checkpoint().expect("healed");
        assert!(store.stats().checkpoint_failure.is_none());
        let snapshot = store.snapshot_at_checkpoint().expect("healed");
        assert_eq!(dump(&snapshot, Direction::Forward).expect("healed"), model);
        drop((snapshot, store));
        world.disk.kill();
        let (store, _) = world.open();
        assert_eq!(dump(&store.write(), Direction::Backward).expect("healed"), model);
    }
}

#[test]
fn writes_are_refused_when_checkpoints_fail_and_memory_is_full_while_reads_go_on() {
    let mut world = World::new();
    world.memory.changed = 40_000;
    let (store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1)]);
    world.faults().fail_from(Call::Commit, 1);
    assert!(matches!(store.checkpoint(), Err(CheckpointError::Engine(_))));
    let mut refused = None;
    for n in 0..10_000 {
        let mut txn = store.write();
        let op = Op::Field(0, 3, n % 1000, n % 100);
        op.apply(&mut txn).expect("reads go on");
        op.encode(&mut txn.frame().payload);
        if let Err(error) = txn.commit() {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.expect("memory has an end");
    assert!(n > 50, "not before it is full: {n}");
    assert!(matches!(error, CommitError::Checkpoint(_)), "{error}");
    assert!(store.stats().active_bytes + store.stats().frozen_bytes < 45_000, "{:?}", store.stats());
    let mut reader = store.reader();
    assert_eq!(reader.begin().key_count(0), 2);
    dump(&reader.begin(), Direction::Forward).expect("reads go on");
    world.faults().heal();
    store.checkpoint().expect("healed");
    commit(&store, &[Op::Set(0, 1, 2)]);
}

#[test]
fn a_full_disk_refuses_the_batch_whole() {
    let world = World::new();
    let (store, _) = world.open();
    let mut model = empty_model();
    world.disk.set_capacity(Some(60_000));
    let mut random = Random::new(3);
    let mut refused = 0;
    for _ in 0..8000 {
        let ops: Vec<Op> = (0..3).map(|_| random_op(&mut random)).collect();
        let mut txn = store.write();
        for op in &ops {
            op.apply(&mut txn).expect("no faults");
            op.encode(&mut txn.frame().payload);
        }
        match txn.commit() {
            Ok(_) => ops.iter().for_each(|op| op.apply_to_model(&mut model)),
            Err(CommitError::Log(error)) => {
                assert!(error.is_full(), "{error}");
                refused += 1;
                assert_eq!(dump(&txn, Direction::Forward).expect("no faults"), model);
                drop(txn);
                if refused % 3 == 0 {
                    // Space comes back: a checkpoint lets old segments go.
                    store.checkpoint().expect("the engine has space");
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "the disk was full at times");
    assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), model);
    drop(store);
    world.disk.kill();
    world.disk.set_capacity(None);
    let (store, _) = world.open();
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
}

#[test]
fn reads_that_fail_leave_the_transaction_usable() {
    let mut world = World::new();
    world.memory.rows = 0;
    let (store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1), Op::Field(0, 2, 1, 1)]);
    store.checkpoint().expect("no faults");
    world.faults().fail_nth(Call::Get, 2);
    let mut txn = store.write();
    let savepoint = txn.savepoint();
    Op::Set(0, 1, 5).apply(&mut txn).expect("the first read goes well");
    assert!(Op::Field(0, 2, 1, 7).apply(&mut txn).is_err());
    txn.rollback_to(savepoint);
    Op::Set(0, 7, 7).apply(&mut txn).expect("only one read fails");
    txn.commit().expect("no faults");
    drop(txn);
    let mut model = empty_model();
    for op in [Op::Set(0, 1, 1), Op::Field(0, 2, 1, 1), Op::Set(0, 7, 7)] {
        op.apply_to_model(&mut model);
    }
    assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), model);
}

#[test]
fn memory_stays_bounded_and_the_log_is_let_go() {
    let mut world = World::new();
    world.memory.changed = 200_000;
    world.memory.rows = 100_000;
    let (store, _) = world.open();
    let mut most = 0;
    for n in 0..60_000u64 {
        commit(&store, &[Op::Field((n % 3) as u32, n % 12, n % 50_000, 1)]);
        if store.wants_checkpoint() {
            store.checkpoint().expect("no faults");
        }
        if n % 100 == 0 {
            world.now.fetch_add(10, Ordering::Relaxed);
            store.tick().expect("no faults");
            let stats = store.stats();
            most = most.max(stats.active_bytes + stats.frozen_bytes);
            assert!(stats.cache.bytes <= 100_000);
        }
    }
    assert!(most < 210_000, "{most}");
    let log = store.log();
    let held = log.end().since(log.start());
    assert!(held < 20_000 + 3 * 8192 + 200_000, "held {held} bytes");
    assert!(log.synced().0 > log.end().0 / 2, "ticks and checkpoints sync");
}
