//! One thread against the model: batches, rollbacks, readers at old points, checkpoints, ticks and restarts in any order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::{Direction, RowKey, RowRange, Rows, RowsMut, Space};
use ardb_store::{ReadTxn, Reader};

use crate::harness::*;

fn check(rows: &impl Rows, model: &Model) {
    assert_eq!(&dump(rows, Direction::Forward).expect("no faults"), model);
    assert_eq!(&dump(rows, Direction::Backward).expect("no faults"), model);
    check_gets(rows, model).expect("no faults");
}

/// Readers hold transactions open over many commits, so each needs its own thread of borrowing.
struct Held<'a> {
    txn: ReadTxn<'a>,
    model: Model,
}

#[test]
fn agrees_with_the_model() {
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        if random.one_in(3) {
            world.memory.rows = 0;
        }
        let mut model = empty_model();
        let mut end = ardb_base::id::Offset(0);
        for _ in 0..1 + random.below(4) {
            let (store, recovery) = world.open();
            assert_eq!(recovery.log_end, end);
            assert_eq!(recovery.replaced_id, None);
            check(&store.write(), &model);
            let mut readers: Vec<Reader> = (0..4).map(|_| store.reader()).collect();
            let mut fresh = store.reader();
            let mut free: Vec<&mut Reader> = readers.iter_mut().collect();
            let mut held: Vec<Held<'_>> = Vec::new();
            for _ in 0..random.below(120) {
                match random.below(20) {
                    0 => store.checkpoint().expect("no faults"),
                    1 | 2 => store.tick().expect("no faults"),
                    3 => {
                        if let Some(reader) = free.pop() {
                            held.push(Held { txn: reader.begin(), model: model.clone() });
                        }
                    }
                    4 => {
                        if !held.is_empty() {
                            let held = held.swap_remove(random.below(held.len() as u64) as usize);
                            check(&held.txn, &held.model);
                        }
                    }
                    5 => check(&fresh.begin(), &model),
                    6 => {
                        // Part of a batch, or all of it, is taken back.
                        let mut txn = store.write();
                        let mut inside = model.clone();
                        let mut ops = Vec::new();
                        for _ in 0..random.below(6) {
                            let op = random_op(&mut random);
                            op.apply(&mut txn).expect("no faults");
                            op.apply_to_model(&mut inside);
                            ops.push(op);
                            if random.one_in(2) {
                                txn.settle();
                            }
                        }
                        let savepoint = txn.savepoint();
                        for _ in 0..random.below(6) {
                            random_op(&mut random).apply(&mut txn).expect("no faults");
                            txn.frame().payload.push(0);
                        }
                        txn.rollback_to(savepoint);
                        check(&txn, &inside);
                        if random.one_in(2) {
                            for op in &ops {
                                op.encode(&mut txn.frame().payload);
                            }
                            end = txn.commit().expect("no faults");
                            model = inside;
                        } else {
                            drop(txn);
                            check(&store.write(), &model);
                        }
                    }
                    _ => {
                        let ops: Vec<Op> = (0..1 + random.below(5)).map(|_| random_op(&mut random)).collect();
                        ops.iter().for_each(|op| op.apply_to_model(&mut model));
                        let before = end;
                        end = commit(&store, &ops);
                        assert_eq!(end, before.advance(10 * ops.len()));
                    }
                }
            }
            for held in held {
                check(&held.txn, &held.model);
            }
            check(&fresh.begin(), &model);
            drop(free);
            drop(readers);
            drop(fresh);
            if random.one_in(2) {
                store.close().expect("no faults");
            }
            drop(store);
            world.disk.kill();
        }
        nothing_leaks(&world, &model);
    }
}

/// Commands that write the same rows time and again, in place where they can, and of which any may fail.
#[test]
fn rows_written_again_and_again_are_taken_back() {
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let world = World::new();
        let (store, _) = world.open();
        let mut reader = store.reader();
        let object = store.write().new_object().0;
        let mut committed: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for _ in 0..1 + random.below(20) {
            let mut txn = store.write();
            let mut open = committed.clone();
            for _ in 0..random.below(20) {
                let before = open.clone();
                let savepoint = txn.savepoint();
                for _ in 0..random.below(8) {
                    let number = random.below(5);
                    let key = RowKey::new(Space::Rank1, object, number, b"");
                    let old = txn.get(key).expect("no faults");
                    assert_eq!(old.as_deref(), open.get(&number).map(|value| &value[..]));
                    match (old, open.get_mut(&number)) {
                        (Some(_), _) if random.one_in(10) => {
                            txn.delete(key);
                            open.remove(&number);
                        }
                        (Some(old), Some(value)) if !random.one_in(5) => {
                            let at = random.below(value.len() as u64) as usize;
                            value[at] = random.below(256) as u8;
                            let held = random.one_in(4).then(|| old.clone());
                            let was = old.to_vec();
                            txn.patch(key, old, &[(at, &[value[at]])]);
                            assert!(held.is_none_or(|held| *held == *was), "what others hold stays as it was");
                        }
                        _ => {
                            let value = vec![random.below(256) as u8; 1 + random.below(60) as usize];
                            txn.put(key, &value);
                            open.insert(number, value);
                        }
                    }
                }
                if random.one_in(4) {
                    txn.rollback_to(savepoint);
                    open = before;
                }
                if random.one_in(2) {
                    txn.settle();
                }
            }
            if random.one_in(3) {
                drop(txn);
            } else {
                txn.commit().expect("no faults");
                drop(txn);
                committed = open;
            }
            if random.one_in(8) {
                store.checkpoint().expect("no faults");
            }
            let txn = reader.begin();
            for number in 0..5 {
                let found = txn.get(RowKey::new(Space::Rank1, object, number, b"")).expect("no faults");
                assert_eq!(found.as_deref(), committed.get(&number).map(|value| &value[..]), "row {number}");
            }
        }
    }
}

/// Pieces of strings are found one by one as long as they are in memory, and then by the engine: with holes, by old readers too, and with a cache that forgets.
#[test]
fn pieces_of_strings_are_visited_wherever_they_lie() {
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        if random.one_in(2) {
            world.memory.rows = 256 * 2500;
        }
        let (mut store, _) = world.open();
        let object = store.write().new_object().0;
        let mut pieces: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for _ in 0..1 + random.below(30) {
            let (mut old, before) = (store.reader(), pieces.clone());
            let held = old.begin();
            let mut txn = store.write();
            for _ in 0..random.below(30) {
                let number = random.below(40);
                let key = RowKey::new(Space::Chunk, object, number, b"");
                if random.one_in(8) && pieces.remove(&number).is_some() {
                    txn.delete(key);
                } else {
                    let value = vec![random.below(256) as u8; 1 + random.below(300) as usize];
                    txn.put(key, &value);
                    pieces.insert(number, value);
                }
            }
            txn.frame().payload.push(b'x');
            txn.commit().expect("no faults");
            drop(txn);
            if random.one_in(2) {
                store.checkpoint().expect("no faults");
            }
            for (rows, pieces) in [(&held, &before), (&store.reader().begin(), &pieces)] {
                let (from, to) = (random.below(42), random.below(42));
                let most = random.below(50);
                let mut found = Vec::new();
                let range = RowRange::orders(Space::Chunk, object, from, to);
                rows.scan(range, Direction::Forward, &mut |key, value| {
                    found.push((key.order, value.to_vec()));
                    if found.len() as u64 == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .expect("no faults");
                let all = pieces.iter().filter(|(number, _)| (from..=to).contains(*number));
                let most = if most == 0 { usize::MAX } else { most as usize };
                let expected: Vec<_> = all.map(|(number, value)| (*number, value.clone())).take(most).collect();
                assert_eq!(found, expected, "{from} to {to}");
            }
            drop(held);
            drop(old);
            if random.one_in(6) {
                store.close().expect("no faults");
                drop(store);
                (store, _) = world.open();
                replay(&store);
            }
        }
    }
}

/// When all garbage is gone, the engine holds what can be reached and nothing else.
pub fn nothing_leaks(world: &World, model: &Model) {
    let (store, _) = world.open();
    for _ in 0..4 {
        store.tick().expect("no faults");
        store.checkpoint().expect("no faults");
    }
    assert_eq!(store.stats().garbage, 0);
    let snapshot = store.snapshot_at_checkpoint().expect("no faults");
    check(&snapshot, model);
    let mut rows = [0u64; 12];
    let (start, end) = (vec![0], vec![255]);
    let mut cursor = snapshot.engine().cursor(&start..&end);
    cursor.seek(&start).expect("no faults");
    while let Some((key, _)) = cursor.row() {
        rows[usize::from(key[0])] += 1;
        cursor.next().expect("no faults");
    }
    let keys: usize = model.iter().map(Db::len).sum();
    let fields: usize = model
        .iter()
        .flat_map(|db| db.values())
        .map(|value| match value {
            Val::Small(_) => 0,
            Val::Big(fields) => fields.len(),
        })
        .sum();
    assert_eq!(rows, [2, keys as u64, fields as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], "rows in the engine by space");
}

#[test]
fn what_comes_and_goes_between_checkpoints_leaves_no_memory_and_no_rows() {
    let world = World::new();
    let (store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1)]);
    store.tick().expect("no faults");
    let before = store.stats();
    for round in 0..50 {
        for field in 0..20 {
            commit(&store, &[Op::Field(0, 2, field, round), Op::Field(1, 2, field, round), Op::Field(1, 4, 1, 1)]);
        }
        for field in 0..20 {
            commit(&store, &[Op::Unfield(0, 2, field)]);
        }
        commit(&store, &[Op::Del(1, 2), Op::Flush(1)]);
        store.tick().expect("no faults");
        let now = store.stats();
        // The key rows of database 0, whose keyspace is not fresh, stay as deletions until the checkpoint.
        assert!(now.active_rows <= before.active_rows + 3, "{round}: {now:?}");
        assert!(now.active_bytes <= before.active_bytes + 1000, "{round}: {now:?}");
    }
    let mut model = empty_model();
    model[0].insert(1, Val::Small(1));
    nothing_leaks_in(store, &world, &model);
}

/// A set that is not new, filled and emptied: what a checkpoint has not seen is forgotten when it is deleted, and what it has seen is not.
#[test]
fn what_was_never_in_the_engine_is_forgotten_when_it_is_deleted() {
    let world = World::new();
    let (store, _) = world.open();
    commit(&store, &(0..20).map(|field| Op::Field(0, 2, field, 1)).collect::<Vec<_>>());
    store.checkpoint().expect("no faults");
    commit(&store, &[Op::Field(0, 2, 5, 2)]);
    let before = store.stats();
    let mut reader = store.reader();
    for round in 0..50 {
        let held = (round % 3 == 0).then(|| reader.begin());
        for field in 100..120 {
            commit(&store, &[Op::Field(0, 2, field, round)]);
        }
        for field in 100..120 {
            commit(&store, &[Op::Unfield(0, 2, field)]);
        }
        drop(held);
        store.tick().expect("no faults");
        let now = store.stats();
        assert_eq!(now.active_rows, before.active_rows, "{round}");
    }
    // One that the engine has, changed since or not, stays as a deletion.
    commit(&store, &[Op::Unfield(0, 2, 5), Op::Unfield(0, 2, 6)]);
    assert_eq!(store.stats().active_rows, before.active_rows + 1);
    drop(reader);
    let mut model = empty_model();
    let ops: Vec<_> = (0..20).filter(|field| ![5, 6].contains(field)).map(|field| Op::Field(0, 2, field, 1)).collect();
    ops.iter().for_each(|op| op.apply_to_model(&mut model));
    check(&store.write(), &model);
    nothing_leaks_in(store, &world, &model);
}

fn nothing_leaks_in(store: ardb_store::Store, world: &World, model: &Model) {
    drop(store);
    world.disk.kill();
    nothing_leaks(world, model);
}

#[test]
fn a_big_flush_is_deleted_in_steps_whatever_happens_between() {
    for seed in seeds(12) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let world = World::new();
        let (mut store, _) = world.open();
        let mut model = empty_model();
        let mut keep = Vec::new();
        for key in 0..1500 {
            let mut ops = vec![Op::Field(0, key, key % 7, 1), Op::Field(0, key, 9, 2)];
            if key % 100 == 0 {
                // A value that is too big to be deleted row by row.
                ops.extend((10..100).map(|field| Op::Field(0, key, field, 3)));
            }
            commit(&store, &ops);
            if random.one_in(700) {
                store.checkpoint().expect("no faults");
            }
        }
        if random.one_in(2) {
            store.checkpoint().expect("no faults");
        }
        keep.push(Op::Set(0, 2, 2));
        keep.push(Op::Field(1, 3, 3, 3));
        commit(&store, &[Op::Flush(0)]);
        commit(&store, &keep);
        keep.iter().for_each(|op| op.apply_to_model(&mut model));
        let mut reader = store.reader();
        let mut held = random.one_in(2).then(|| reader.begin());
        for _ in 0..12 {
            match random.below(4) {
                0 => store.checkpoint().expect("no faults"),
                1 if held.is_none() && random.one_in(2) => break,
                1 => held = None,
                _ => {
                    store.janitor_step().expect("no faults");
                }
            }
            check(&store.write(), &model);
        }
        drop(held);
        drop(reader);
        drop(store);
        world.disk.kill();
        (store, _) = world.open();
        check(&store.write(), &model);
        nothing_leaks_in(store, &world, &model);
    }
}

/// A keyspace that never reached the engine, the first part of which was walked while a reader stood before the flush.
#[test]
fn what_a_reader_kept_of_a_fresh_keyspace_does_not_go_into_the_engine_later() {
    let world = World::new();
    let (store, _) = world.open();
    for key in 0..600 {
        commit(&store, &[Op::Set(0, key, 1)]);
    }
    let mut reader = store.reader();
    let before = reader.begin();
    commit(&store, &[Op::Flush(0)]);
    assert!(store.janitor_step().expect("no faults"));
    assert_eq!(dump(&before, Direction::Forward).expect("no faults")[0].len(), 600);
    drop(before);
    drop(reader);
    while store.janitor_step().expect("no faults") {}
    store.checkpoint().expect("no faults");
    store.checkpoint().expect("no faults");
    nothing_leaks_in(store, &world, &empty_model());
}

#[test]
fn what_an_old_reader_fetches_is_not_kept_for_new_ones() {
    let mut world = World::new();
    // Large enough for the small row in its shard, too small for the big one.
    world.memory.rows = 256 * 800;
    world.engines.names.store(0, std::sync::atomic::Ordering::Relaxed);
    let (store, _) = world.open();
    let key = RowKey::new(Space::Key, store.write().keyspace(0).0, 7, b"k");
    let write = |value: &[u8]| {
        let mut txn = store.write();
        txn.put(key, value);
        txn.frame().payload.push(b'x');
        txn.commit().expect("no faults");
    };
    let read = |rows: &dyn Rows| rows.get(key).expect("no faults").map(|value| value.len());
    write(b"small");
    store.checkpoint().expect("no faults");
    let (mut old, mut new) = (store.reader(), store.reader());
    let before = old.begin();
    write(&[b'b'; 400]);
    store.checkpoint().expect("no faults");
    assert_eq!(read(&before), Some(5));
    assert_eq!(read(&new.begin()), Some(400), "not what the old reader fetched from its own snapshot");
    assert_eq!(read(&store.write()), Some(400));
    write(b"back");
    store.checkpoint().expect("no faults");
    assert_eq!((read(&before), read(&new.begin())), (Some(5), Some(4)));
    // What a new reader fetches is kept, the absence of a row as well.
    let absent = RowKey { order: 8, ..key };
    let hits = || store.stats().cache.hits;
    assert_eq!(new.begin().get(absent).expect("no faults"), None);
    let first = hits();
    assert_eq!(new.begin().get(absent).expect("no faults"), None);
    assert_eq!(hits(), first + 1);
}
