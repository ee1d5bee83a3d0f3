//! A log that is damaged where a crash leaves no damage: nothing is thrown away unasked, and what is cut off by order stays on the disk.

use std::path::{Path, PathBuf};

use ardb_base::disk::Disk;
use ardb_base::id::{Offset, ReplId};
use ardb_base::random::Random;
use ardb_engine::Direction;
use ardb_log::Proof;
use ardb_store::{OnDamage, OpenError, Store};

use crate::harness::*;

fn log_dir() -> &'static Path {
    Path::new("/data/log")
}

/// How the process that wrote the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Power,
    /// Without a checkpoint, since that fails.
    Close,
}

/// A store that is dead: a checkpoint, and some segments of log behind it, all synced.
struct Dead {
    world: World,
    id: ReplId,
    checkpoint: Offset,
    end: Offset,
    states: Vec<(Offset, Model)>,
}

impl Dead {
    fn new(end: End, upstream: bool) -> Dead {
        let mut world = World::new();
        world.segment_bytes = 4096;
        let (store, _) = world.open();
        if upstream {
            store.set_history(store.history(), Some(b"up 1".to_vec())).expect("no faults");
        }
        let id = store.history().id;
        let mut model = empty_model();
        let mut states = Vec::new();
        let mut checkpoint = Offset(0);
        for n in 0..300 {
            let op = Op::Set(0, n % 12, n);
            op.apply_to_model(&mut model);
            states.push((commit(&store, &[op]), model.clone()));
            if n == 120 {
                store.checkpoint().expect("no faults");
                checkpoint = store.log().end();
            }
        }
        let at = store.log().end();
        store.sync_to(at).expect("no faults");
        if end == End::Close {
            world.faults().fail_from(ardb_engine::faulty::Call::Commit, 1);
            store.close().expect("the log is well");
        }
        drop(store);
        match end {
            End::Power => {
                world.disk.power_loss(&mut Random::new(1));
                world.boot += 1;
            }
            End::Kill | End::Close => world.disk.kill(),
        }
        Dead { world, id, checkpoint, end: at, states }
    }

    /// Segment, place and offset of the frame in the middle between two offsets.
    fn frame(&self, from: Offset, to: Offset) -> (PathBuf, usize, Offset) {
        let middle = from.0 + (to.0 - from.0) / 2;
        for entry in self.world.disk.list(log_dir()).expect("no faults") {
            let path = log_dir().join(&entry.name);
            let bytes = self.world.disk.read(&path).expect("no faults");
            let mut at = 64;
            while let Some(header) = bytes.get(at..at + 32) {
                let len = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
                let first = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
                if len == 0 {
                    break;
                }
                if (first..first + len as u64).contains(&middle) {
                    return (path, at, Offset(first));
                }
                at += (32 + len).next_multiple_of(8);
            }
        }
        panic!("no frame at {middle}")
    }

    fn behind(&self) -> (PathBuf, usize, Offset) {
        self.frame(self.checkpoint, self.end)
    }

    fn model(&self, at: Offset) -> &Model {
        &self.states.iter().find(|(end, _)| *end == at).expect("a commit ends there").1
    }

    fn kept(&self) -> Vec<String> {
        let list = self.world.disk.list(log_dir()).expect("no faults");
        list.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".damaged")).collect()
    }
}

fn contents(store: &Store) -> Model {
    dump(&store.write(), Direction::Forward).expect("no faults")
}

#[test]
fn damage_is_refused_and_changes_nothing_and_by_order_it_is_cut_off() {
    for (end, upstream) in [(End::Kill, false), (End::Close, false), (End::Kill, true), (End::Close, true)] {
        let mut dead = Dead::new(end, upstream);
        let (path, at, bad) = dead.behind();
        dead.world.disk.corrupt(&path, at + 35, 4).expect("the frame is there");
        for _ in 0..2 {
            let Err(OpenError::Log(ardb_log::OpenError::Damaged(damage))) = dead.world.try_open() else {
                panic!("it must not open")
            };
            assert_eq!((&damage.path, damage.at, damage.offset), (&path, at as u64, bad));
            assert_eq!(damage.payload, dead.end.0 - bad.0 - 10, "{damage}");
            assert!(damage.segments > 0 && damage.frames == damage.payload / 10);
            let proof = if end == End::Close { Proof::Closed } else { Proof::Killed };
            assert_eq!(damage.proof, proof);
        }
        // The byte is back: all is as it was.
        dead.world.disk.corrupt(&path, at + 35, 4).expect("the frame is there");
        let (store, recovery) = dead.world.open();
        assert_eq!((store.history().id, recovery.replaced_id, recovery.log_end), (dead.id, None, dead.end));
        drop(store);
        dead.world.disk.kill();

        dead.world.disk.corrupt(&path, at + 35, 4).expect("the frame is there");
        dead.world.on_damage = OnDamage::Cut;
        let (store, recovery) = dead.world.open();
        assert_eq!((recovery.log_end, recovery.torn.is_some()), (bad, false));
        let text = recovery.damage.expect("it is said");
        assert!(text.contains(".tail.damaged") && text.contains(".seg.damaged"), "{text}");
        assert_eq!(&contents(&store), dead.model(bad));
        let history = store.history();
        if upstream {
            assert_eq!((history.id, recovery.replaced_id), (dead.id, None));
        } else {
            assert_ne!(history.id, dead.id);
            assert_eq!((history.second, history.second_until), (dead.id, bad));
            assert_eq!(recovery.replaced_id, Some(dead.id));
        }
        let kept = dead.kept();
        assert!(kept.len() > 1, "{kept:?}");
        commit(&store, &[Op::Set(0, 1, 1)]);
        drop(store);
        dead.world.disk.kill();

        dead.world.on_damage = OnDamage::Refuse;
        for boot in [0, 1] {
            dead.world.boot += boot;
            let (store, recovery) = dead.world.open();
            assert_eq!((recovery.log_end, recovery.damage), (bad.advance(10), None));
            assert_eq!(store.history() == history, upstream || boot == 0);
            drop(store);
            dead.world.disk.kill();
            assert_eq!(dead.kept(), kept);
        }
    }
}

/// After a loss of power only what is before the checkpoint is known to have been synced.
#[test]
fn after_a_loss_of_power_the_checkpoint_tells() {
    let dead = Dead::new(End::Power, false);
    let (path, at, bad) = dead.behind();
    dead.world.disk.corrupt(&path, at + 35, 4).expect("the frame is there");
    let (store, recovery) = dead.world.open();
    assert_eq!((recovery.log_end, recovery.replaced_id, recovery.damage), (bad, Some(dead.id), None));
    let torn = recovery.torn.expect("it is said");
    assert!(torn.contains(&format!("with {} whole frames", (dead.end.0 - bad.0 - 10) / 10)), "{torn}");
    assert_eq!(&contents(&store), dead.model(bad));

    for end in [End::Power, End::Kill, End::Close] {
        let mut dead = Dead::new(end, false);
        let (holding, ..) = dead.frame(Offset(dead.checkpoint.0 - 2), dead.checkpoint);
        let first = dead.world.disk.read(&holding).expect("no faults");
        let first = u64::from_le_bytes(first[24..32].try_into().expect("eight bytes"));
        let (path, at, bad) = dead.frame(Offset(first), dead.checkpoint);
        assert_eq!(path, holding, "the segment that holds the checkpoint");
        dead.world.disk.corrupt(&path, at + 9, 4).expect("the frame is there");
        let Err(OpenError::Log(ardb_log::OpenError::Damaged(damage))) = dead.world.try_open() else {
            panic!("it must not open")
        };
        assert_eq!((damage.proof, damage.offset), (Proof::Checkpoint(dead.checkpoint), bad));
        dead.world.on_damage = OnDamage::Cut;
        let (store, recovery) = dead.world.open();
        assert!(recovery.engine_ahead);
        assert_eq!((recovery.log_start, recovery.log_end), (dead.checkpoint, dead.checkpoint));
        assert_eq!((store.history().second, store.history().second_until), (dead.id, dead.checkpoint));
        assert_eq!(&contents(&store), dead.model(dead.checkpoint));
        assert!(dead.kept().len() > 1);
    }
}

/// Whatever dies in between, the history has another name in the end, and the one before ends where the log was cut.
#[test]
fn a_start_that_cuts_and_dies_leaves_nothing_under_the_old_name() {
    for power in [false, true] {
        for whole_segment in [false, true] {
            let mut tried = 0;
            loop {
                let mut dead = Dead::new(End::Kill, false);
                let (path, at, mut bad) = dead.behind();
                if whole_segment {
                    bad = Offset(u64::from_le_bytes(
                        dead.world.disk.read(&path).expect("no faults")[24..32].try_into().expect("eight bytes"),
                    ));
                    dead.world.disk.remove(&path).expect("no faults");
                    dead.world.disk.sync_dir(log_dir()).expect("no faults");
                } else {
                    dead.world.disk.corrupt(&path, at + 35, 4).expect("the frame is there");
                }
                dead.world.on_damage = OnDamage::Cut;
                dead.world.disk.fail_after(Some(tried));
                let opened = dead.world.try_open();
                dead.world.disk.fail_after(None);
                let failed = opened.is_err();
                drop(opened);
                if power {
                    dead.world.disk.power_loss(&mut Random::new(tried));
                    dead.world.boot += 1;
                } else {
                    dead.world.disk.kill();
                }
                let (store, recovery) = dead.world.open();
                assert_eq!(recovery.log_end, bad, "operation {tried}");
                let history = store.history();
                assert!(!history.covers(dead.id, bad.advance(1)), "operation {tried}: {history:?}");
                // A machine that fails at the very end has one more history begun, and the name between was given to nobody.
                if !power {
                    assert_eq!((history.second, history.second_until), (dead.id, bad), "operation {tried}");
                }
                assert_eq!(&contents(&store), dead.model(bad));
                if !failed {
                    assert!(tried > 15, "each operation was tried");
                    break;
                }
                tried += 1;
            }
        }
    }
}
