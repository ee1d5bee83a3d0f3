//! Readers and a writer on threads, with checkpoints in the background: every snapshot is one point in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ardb_base::random::Random;
use ardb_engine::faulty::Call;
use ardb_engine::{Direction, Rows};
use ardb_store::CommitError;

use crate::harness::*;

/// Key 0 of each database holds a number; every batch writes the same one to all, so a reader must never see two different ones.
fn invariant(rows: &impl Rows) {
    let model = dump(rows, Direction::Forward).expect("no faults");
    let numbers: Vec<Option<&Val>> = model.iter().map(|db| db.get(&0)).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
    let again = dump(rows, Direction::Backward).expect("no faults");
    assert_eq!(model, again, "the same point in time, twice");
    check_gets(rows, &model).expect("no faults");
}

#[test]
fn readers_see_points_in_time() {
    for (seed, rows) in [(1, 1 << 20), (2, 0), (3, 64 << 10)] {
        let mut world = World::new();
        world.background = true;
        world.segment_bytes = 1 << 16;
        world.memory.changed = 30_000;
        world.memory.rows = rows;
        let (store, _) = world.open();
        let mut model = empty_model();
        commit(&store, &[Op::Set(0, 0, 0), Op::Set(1, 0, 0), Op::Set(2, 0, 0)]);
        (0..3).for_each(|db| Op::Set(db, 0, 0).apply_to_model(&mut model));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut readers = Vec::new();
            for _ in 0..3 {
                readers.push(scope.spawn(|| {
                    let mut reader = store.reader();
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let txn = reader.begin();
                        invariant(&txn);
                        if rounds % 10 == 0 {
                            std::thread::sleep(Duration::from_millis(2));
                            invariant(&txn);
                        }
                        rounds += 1;
                    }
                    rounds
                }));
            }
            readers.push(scope.spawn(|| {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = store.snapshot_at_checkpoint().expect("no faults");
                    invariant(&snapshot);
                    rounds += 1;
                    std::thread::sleep(Duration::from_millis(3));
                }
                rounds
            }));
            let mut random = Random::new(seed);
            let mut writes = 0u64;
            for n in 0..8_000u64 {
                let mut ops: Vec<Op> = Vec::new();
                for _ in 0..random.below(4) {
                    let op = random_op(&mut random);
                    match op {
                        // Key 0 must stay in step, so databases are emptied together.
                        Op::Flush(_) => ops.extend((0..3).map(Op::Flush)),
                        Op::Set(_, 0, _) | Op::Field(_, 0, ..) | Op::Unfield(_, 0, _) | Op::Del(_, 0) => {}
                        other => ops.push(other),
                    }
                }
                ops.extend((0..3).map(|db| Op::Set(db, 0, n % 60_000)));
                ops.iter().for_each(|op| op.apply_to_model(&mut model));
                commit(&store, &ops);
                writes += ops.len() as u64;
            }
            stop.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().expect("no reader failed") > 3);
            }
            assert!(writes > 7_000);
        });
        let stats = store.stats();
        assert!(stats.checkpoints > 3, "{stats:?}");
        assert_eq!(stats.failed_checkpoints, 0);
        assert_eq!(dump(&store.reader().begin(), Direction::Forward).expect("no faults"), model);
        store.close().expect("no faults");
        drop(store);
        world.disk.kill();
        let (store, recovery) = world.open();
        assert!(recovery.clean);
        assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
    }
}

/// While a checkpoint takes its time, changed rows come to twice their share of memory and a batch, and no further.
#[test]
fn writers_wait_for_a_slow_checkpoint_and_are_refused_by_a_failing_one() {
    const SHARE: u64 = 200_000;
    for fails in [false, true] {
        let mut world = World::new();
        world.background = true;
        world.segment_bytes = 1 << 20;
        world.memory.changed = SHARE;
        let (store, _) = world.open();
        let faults = world.faults();
        faults.hold_commits(true);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..200u64 {
                    let mut txn = store.write();
                    for m in 0..100 {
                        let op = Op::Field(0, 2, n * 100 + m, 1);
                        op.apply(&mut txn).expect("reads do not fail");
                        op.encode(&mut txn.frame().payload);
                    }
                    txn.commit()?;
                }
                Ok(())
            });
            // Until it stands still, which is past the share; or no longer than half a minute.
            let (mut before, mut most, mut calm) = (0, 0, 0);
            for _ in 0..1500 {
                std::thread::sleep(Duration::from_millis(20));
                let stats = store.stats();
                let now = stats.active_bytes + stats.frozen_bytes;
                most = most.max(now);
                calm = if now == before && now > SHARE { calm + 1 } else { 0 };
                before = now;
                if calm == 25 {
                    break;
                }
            }
            if fails {
                faults.fail_from(Call::Commit, 1);
            }
            faults.hold_commits(false);
            let written = writer.join().expect("the writer goes on");
            assert_eq!(matches!(written, Err(CommitError::Checkpoint(_))), fails, "{written:?}");
            assert_eq!(written.is_ok(), !fails);
            assert_eq!(calm, 25, "the writer stood still");
            assert!(most < 2 * SHARE + SHARE / 4, "{most} bytes");
        });
        faults.heal();
        assert!(store.stats().delays > 0);
    }
}

#[test]
fn an_idle_reader_does_not_hold_memory() {
    let world = World::new();
    let (store, _) = world.open();
    let mut idle = store.reader();
    drop(idle.begin());
    commit(&store, &[Op::Set(0, 1, 1)]);
    let before = store.stats();
    assert!(before.active_rows > 0);
    store.checkpoint().expect("no faults");
    store.tick().expect("no faults");
    assert_eq!(store.buried_views(), 0, "the view of the idle reader was taken away");
    let held = idle.begin();
    commit(&store, &[Op::Set(0, 1, 2)]);
    store.checkpoint().expect("no faults");
    store.tick().expect("no faults");
    assert!(store.buried_views() > 0, "a reading reader keeps its view");
    drop(held);
    store.tick().expect("no faults");
    assert_eq!(store.buried_views(), 0);
}
