//! Processes that die and machines that lose power at any moment, failing disks included, and what the next start finds.

use ardb_base::id::Offset;
use ardb_base::random::Random;
use ardb_engine::Direction;
use ardb_store::{OnDamage, OpenError, Store};

use crate::harness::*;

/// What was committed at which offset, oldest first; and what a power loss must leave.
struct Past {
    states: Vec<(Offset, Model)>,
    synced: Offset,
}

impl Past {
    fn new() -> Past {
        Past { states: vec![(Offset(0), empty_model())], synced: Offset(0) }
    }

    fn end(&self) -> Offset {
        self.states.last().expect("never empty").0
    }

    fn model(&self) -> &Model {
        &self.states.last().expect("never empty").1
    }

    /// The store stands at `end` now, whatever came after it is lost.
    fn back_to(&mut self, end: Offset) {
        while self.end() > end {
            self.states.pop();
        }
        assert_eq!(self.end(), end, "the log ends between two commits");
    }
}

/// Works until something fails or it was enough. Every failure must leave what was there.
/// Gives whether the disk may hold a newer name of the history than the store has.
fn work(store: &Store, past: &mut Past, random: &mut Random) -> bool {
    let mut doubtful = false;
    for _ in 0..random.below(60) {
        match random.below(16) {
            0 => {
                if store.checkpoint().is_ok() {
                    past.synced = past.end();
                }
            }
            1 => {
                // Only deletes garbage here; it may fail for want of a segment.
                let _ = store.tick();
            }
            2 | 3 => {
                let end = past.end();
                if store.sync_to(end).is_ok() {
                    past.synced = end;
                }
            }
            4 => {
                if let Ok(snapshot) = store.snapshot_at_checkpoint() {
                    past.synced = past.end();
                    assert_eq!(snapshot.offset(), past.end());
                    assert_eq!(&dump(&snapshot, Direction::Forward).expect("no faults"), past.model());
                }
            }
            5 if random.one_in(3) => {
                let end = past.end();
                let before = store.history();
                if let Ok(history) = store.fork_history() {
                    past.synced = end;
                    assert_eq!((history.second, history.second_until), (before.id, end));
                } else {
                    assert_eq!(store.history(), before);
                    doubtful = true;
                }
            }
            _ => {
                let mut model = past.model().clone();
                let mut txn = store.write();
                for _ in 0..1 + random.below(5) {
                    let op = random_op(random);
                    op.apply(&mut txn).expect("the engine does not fail here");
                    op.apply_to_model(&mut model);
                    op.encode(&mut txn.frame().payload);
                }
                match txn.commit() {
                    Ok(end) => past.states.push((end, model)),
                    Err(_) => assert_eq!(&dump(&txn, Direction::Forward).expect("no faults"), past.model()),
                }
            }
        }
    }
    let mut reader = store.reader();
    assert_eq!(&dump(&reader.begin(), Direction::Forward).expect("no faults"), past.model());
    doubtful
}

#[test]
fn nothing_synced_is_lost_and_nothing_happens_twice() {
    for seed in seeds(200) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        let mut past = Past::new();
        let mut power_lost = false;
        let mut last_id = None;
        for _ in 0..8 {
            if random.one_in(3) {
                // The opening itself is cut short.
                world.disk.fail_after(Some(random.below(40)));
            }
            let opened = world.try_open();
            world.disk.fail_after(None);
            if let Ok((store, recovery)) = opened {
                assert!(!recovery.engine_ahead, "{recovery:?}");
                let end = recovery.log_end;
                assert!(end >= past.synced, "synced to {}, found {end}", past.synced);
                if !power_lost {
                    assert_eq!(end, past.end(), "a process that dies loses nothing");
                }
                past.back_to(end);
                // Whatever was found is durable now, or the next loss would have to be known by the same name.
                past.synced = if recovery.clean { past.synced } else { end };
                replay(&store);
                assert_eq!(&dump(&store.reader().begin(), Direction::Forward).expect("no faults"), past.model());
                if let Some(last_id) = last_id
                    && let Some(replaced) = recovery.replaced_id
                {
                    assert_eq!(replaced, last_id);
                    assert_eq!((store.history().second, store.history().second_until), (last_id, end));
                }
                if power_lost && !recovery.created && !recovery.clean && recovery.boot_changed {
                    assert!(recovery.replaced_id.is_some(), "another name for what may differ");
                }
                power_lost = false;
                if random.one_in(3) {
                    world.disk.fail_after(Some(random.below(60)));
                }
                let doubtful = work(&store, &mut past, &mut random);
                if random.one_in(4) && store.close().is_ok() {
                    past.synced = past.end();
                }
                last_id = (!doubtful).then(|| store.history().id);
                drop(store);
            } else {
                // An opening that failed may have given the history another name already.
                last_id = None;
            }
            if random.one_in(2) {
                world.disk.power_loss(&mut random);
                world.boot += 1;
                power_lost = true;
            } else {
                world.disk.kill();
            }
        }
        let (store, _) = world.open();
        past.back_to(store.log().end());
        assert_eq!(&dump(&store.reader().begin(), Direction::Forward).expect("no faults"), past.model());
    }
}

#[test]
fn a_killed_process_keeps_its_id_and_a_suspect_tail_gets_another() {
    let mut world = World::new();
    let (store, _) = world.open();
    let id = store.history().id;
    let end = commit(&store, &[Op::Set(0, 1, 1)]);
    drop(store);
    world.disk.kill();
    let (store, recovery) = world.open();
    assert_eq!((store.history().id, recovery.clean, recovery.replaced_id), (id, false, None));
    // As a replica, whose log is a prefix of its master's.
    store.set_history(store.history(), Some(b"master:6379".to_vec())).expect("no faults");
    drop(store);
    world.disk.kill();
    world.boot += 1;
    let (store, recovery) = world.open();
    assert_eq!((store.history().id, recovery.replaced_id), (id, None));
    assert_eq!(store.upstream().as_deref(), Some(&b"master:6379"[..]));
    let promoted = store.fork_history().expect("no faults");
    assert!(promoted.covers(id, end) && !promoted.covers(id, end.advance(1)) && promoted.covers(promoted.id, end));
    assert_eq!(store.upstream(), None);
    drop(store);
    world.disk.kill();
    world.boot += 1;
    let (store, recovery) = world.open();
    assert_eq!(recovery.replaced_id, Some(promoted.id));
    store.close().expect("no faults");
    let id = store.history().id;
    assert!(store.write().commit().is_ok(), "an empty commit is nothing");
    let mut txn = store.write();
    Op::Set(0, 1, 2).apply(&mut txn).expect("no faults");
    assert!(txn.commit().is_err(), "the store is closed");
    drop(txn);
    drop(store);
    world.disk.kill();
    world.boot += 1;
    let (store, recovery) = world.open();
    assert!(recovery.clean && recovery.boot_changed);
    assert_eq!(store.history().id, id, "a clean end is trusted");
}

/// What a start must know of a master that was giving its role away, and what ends that.
#[test]
fn a_role_that_is_being_handed_over_outlives_the_process_until_something_ends_it() {
    let world = World::new();
    let (mut store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1)]);
    for (i, end) in [
        Store::handed_over,
        |s: &Store| s.set_history(s.history(), s.upstream()),
        |s: &Store| s.fork_history().map(|_| ()),
    ]
    .into_iter()
    .enumerate()
    {
        let history = store.history();
        assert_eq!(store.handing(), None);
        store.handed_over().expect("nothing to end");
        store.hand_over(b"heir 6379".to_vec(), true).expect("no faults");
        for _ in 0..2 {
            drop(store);
            world.disk.kill();
            store = world.open().0;
            assert_eq!(store.history(), history);
            assert_eq!((store.upstream().as_deref(), store.handing()), (Some(&b"heir 6379"[..]), Some(true)));
        }
        end(&store).expect("no faults");
        for _ in 0..2 {
            assert_eq!((store.upstream().is_some(), store.handing()), (i < 2, None), "end {i}");
            drop(store);
            world.disk.kill();
            store = world.open().0;
        }
        assert_eq!(store.history() == history, i < 2);
    }
}

/// A sync that fails and the system's memory of it: the page is taken for written, and let go. Nobody's power has failed.
#[test]
fn what_a_failed_sync_loses_is_not_missed_under_the_same_name() {
    for replica in [false, true] {
        let world = World::new();
        let (store, _) = world.open();
        let upstream = replica.then(|| b"up 1".to_vec());
        store.set_history(store.history(), upstream).expect("no faults");
        let history = store.history();
        let end = commit(&store, &[Op::Set(0, 1, 1)]);
        store.sync_to(end).expect("no faults");
        let lost = commit(&store, &[Op::Set(0, 2, 2)]);
        world.disk.fail_after(Some(0));
        assert!(store.sync_to(lost).is_err());
        world.disk.fail_after(None);
        assert!(store.sync_to(lost).is_err(), "a later success would be none");
        store.tick().expect("no faults");
        drop(store);
        world.disk.kill();
        world.disk.forget_missed();
        for _ in 0..2 {
            let (store, recovery) = world.open();
            assert_eq!((recovery.log_end, recovery.boot_changed), (end, false));
            // Else a replica that has it could go on here, over whatever is written next.
            assert_eq!(store.history().covers(history.id, lost), replica, "a replica's master sends them again");
            assert!(store.history().covers(history.id, end));
            assert_eq!(store.history() == history, replica);
            drop(store);
            world.disk.kill();
        }
        let (store, recovery) = world.open();
        assert_eq!(recovery.replaced_id, None, "once is enough: {:?}", store.history());
    }
}

/// The next start may fail, at each of its steps, while the system has the page, and forget it then.
#[test]
fn a_start_after_a_failed_sync_that_fails_itself_is_not_the_last_word() {
    for n in 0.. {
        let world = World::new();
        let (store, _) = world.open();
        let id = store.history().id;
        let end = commit(&store, &[Op::Set(0, 1, 1)]);
        store.sync_to(end).expect("no faults");
        let lost = commit(&store, &[Op::Set(0, 2, 2)]);
        world.disk.fail_after(Some(0));
        assert!(store.sync_to(lost).is_err());
        world.disk.fail_after(None);
        store.tick().expect("no faults");
        drop(store);
        world.disk.kill();
        world.disk.fail_after(Some(n));
        let started = world.try_open();
        world.disk.fail_after(None);
        let failed = started.is_err();
        drop(started);
        world.disk.kill();
        world.disk.forget_missed();
        let (store, recovery) = world.open();
        // If it did not fail, it has synced what it found.
        let found = if failed { recovery.log_end } else { lost };
        assert!(found == end || found == lost);
        assert_ne!(store.history().id, id, "operation {n}");
        assert_eq!((store.history().second, store.history().second_until), (id, found), "operation {n}");
        if !failed {
            assert!(n > 10, "it must have been tried");
            return;
        }
    }
}

/// The same, where the system still has the page: what the next start reads it must write, before it counts as durable.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_once_more() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut world = World::new();
        let (store, _) = world.open();
        store.sync_to(commit(&store, &[Op::Set(0, 1, 1)])).expect("no faults");
        let end = commit(&store, &[Op::Set(0, 2, 2), Op::Field(0, 3, 4, 5)]);
        let state = dump(&store.write(), Direction::Forward).expect("no faults");
        world.disk.fail_after(Some(0));
        assert!(store.sync_to(end).is_err());
        drop(store);
        world.disk.kill();
        let (store, recovery) = world.open();
        assert_eq!((recovery.log_end, store.synced()), (end, end));
        drop(store);
        world.boot += 1;
        world.disk.power_loss(&mut random);
        let (store, recovery) = world.open();
        assert_eq!(recovery.log_end, end);
        assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), state);
    }
}

#[test]
fn a_system_that_does_not_name_its_runs_is_not_trusted() {
    let mut world = World::new();
    world.boot = 0;
    let (store, _) = world.open();
    let id = store.history().id;
    commit(&store, &[Op::Set(0, 1, 1)]);
    drop(store);
    world.disk.kill();
    let (_store, recovery) = world.open();
    assert_eq!((recovery.boot_changed, recovery.replaced_id), (true, Some(id)));
}

#[test]
fn an_engine_ahead_of_its_log_starts_a_new_history_there() {
    let mut world = World::new();
    let (store, _) = world.open();
    let id = store.history().id;
    let end = commit(&store, &[Op::Set(0, 1, 1), Op::Field(1, 2, 3, 4)]);
    store.checkpoint().expect("no faults");
    drop(store);
    world.disk.kill();
    use ardb_base::disk::Disk;
    world.disk.remove_dir_all(std::path::Path::new("/data/log")).expect("no faults");
    assert!(matches!(world.try_open(), Err(OpenError::Log(ardb_log::OpenError::Damaged(_)))));
    world.on_damage = OnDamage::Cut;
    let (store, recovery) = world.open();
    assert!(recovery.engine_ahead && recovery.damage.is_some());
    assert_eq!((recovery.log_start, recovery.log_end, recovery.checkpoint), (end, end, end));
    assert_eq!((store.history().second, store.history().second_until), (id, end));
    let mut model = empty_model();
    Op::Set(0, 1, 1).apply_to_model(&mut model);
    Op::Field(1, 2, 3, 4).apply_to_model(&mut model);
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
    commit(&store, &[Op::Set(0, 1, 2)]);
    Op::Set(0, 1, 2).apply_to_model(&mut model);
    drop(store);
    world.disk.kill();
    let (store, recovery) = world.open();
    assert!(!recovery.engine_ahead);
    let id = store.history().id;
    store.set_history(store.history(), Some(b"up".to_vec())).expect("no faults");
    store.checkpoint().expect("no faults");
    let end = store.log().end();
    drop(store);
    world.disk.kill();
    world.disk.remove_dir_all(std::path::Path::new("/data/log")).expect("no faults");
    let (store, recovery) = world.open();
    assert!(recovery.engine_ahead);
    assert_eq!((store.history().id, store.log().start()), (id, end), "a replica's data are its master's up to here");
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
}

#[test]
fn a_replay_that_dies_in_the_middle_begins_again_where_the_engine_stands() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let world = World::new();
        let (store, _) = world.open();
        let mut model = empty_model();
        for n in 0..60 {
            let op = if n % 9 == 8 { Op::Flush(random.below(3) as u32) } else { random_op(&mut random) };
            op.apply_to_model(&mut model);
            commit(&store, &[op]);
        }
        let end = store.log().end();
        drop(store);
        world.disk.kill();
        for _ in 0..3 {
            let (store, recovery) = world.try_open().expect("no faults");
            assert_eq!(recovery.log_end, end);
            let mut left = random.below(40);
            let mut ticks = random.clone();
            let result = store.replay(
                &mut |txn, frame| {
                    for op in Op::decode_all(frame.payload) {
                        op.apply(txn).map_err(|error| error.to_string())?;
                    }
                    left = left.checked_sub(1).ok_or("dies")?;
                    Ok(())
                },
                &mut |_| {
                    if ticks.one_in(3) {
                        store.tick().expect("no faults");
                    }
                    if ticks.one_in(6) {
                        store.checkpoint().expect("no faults");
                    }
                },
            );
            if result.is_err() {
                let mut txn = store.write();
                Op::Set(0, 1, 1).apply(&mut txn).expect("no faults");
                txn.frame().payload.push(0);
                assert!(txn.commit().is_err(), "no writes before the log is replayed");
            }
            drop(store);
            world.disk.kill();
        }
        let (store, _) = world.open();
        assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults"), model);
        commit(&store, &[Op::Set(0, 1, 1)]);
    }
}

#[test]
fn data_without_a_state_are_not_touched() {
    use ardb_base::disk::Disk;
    let world = World::new();
    let (store, _) = world.open();
    commit(&store, &[Op::Set(0, 1, 1)]);
    assert!(world.try_open().is_err(), "one process at a time");
    drop(store);
    world.disk.kill();
    let state = std::path::Path::new("/data/state");
    let bytes = world.disk.read(state).expect("no faults");
    world.disk.remove(state).expect("no faults");
    assert!(matches!(world.try_open(), Err(ardb_store::OpenError::NoState(_))));
    world.disk.write_file(state, &vec![0; bytes.len()]).expect("no faults");
    assert!(matches!(world.try_open(), Err(ardb_store::OpenError::State(_))));
    world.disk.write_file(state, &bytes).expect("no faults");
    let (store, recovery) = world.open();
    assert_eq!(recovery.log_end, Offset(10));
    assert_eq!(dump(&store.write(), Direction::Forward).expect("no faults")[0].len(), 1);
}
