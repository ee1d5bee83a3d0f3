//! The memory engine under the suite for all engines, and the fault-injecting wrapper around it.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

use std::path::Path;
use std::sync::Arc;

use ardb_base::disk::SimDisk;
use ardb_base::random::Random;
use ardb_engine::conformance::{Changes, Home};
use ardb_engine::faulty::{Call, FaultyEngine};
use ardb_engine::{Engine, conformance};
use ardb_engine_memory::{DurableEngine, MemoryEngine};

struct Kept(MemoryEngine);

impl Home for Kept {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.clone())
    }
}

mod plain {
    use super::*;
    ardb_engine::conformance_tests!(|| Kept(MemoryEngine::new()));

    #[test]
    fn many_seeds() {
        for seed in 0..30 {
            conformance::random_check(&Kept(MemoryEngine::new()), seed, 25);
        }
    }
}

mod wrapped {
    use super::*;

    struct Wrapped(MemoryEngine);

    impl Home for Wrapped {
        fn open(&self) -> Arc<dyn Engine> {
            Arc::new(FaultyEngine::new(Arc::new(self.0.clone())))
        }
    }

    ardb_engine::conformance_tests!(|| Wrapped(MemoryEngine::new()));
}

mod with_presence {
    use super::*;
    use ardb_engine::presence::{PresenceEngine, Survey};
    use ardb_engine::{RowKey, Space};

    struct WithPresence(MemoryEngine);

    impl Home for WithPresence {
        fn open(&self) -> Arc<dyn Engine> {
            Arc::new(PresenceEngine::new(Arc::new(self.0.clone()), 1 << 20).expect("no faults here"))
        }
    }

    ardb_engine::conformance_tests!(|| WithPresence(MemoryEngine::new()));

    fn row(order: u64) -> RowKey<'static> {
        RowKey::new(Space::Key, 7, order, b"tail")
    }

    fn put(engine: &dyn Engine, orders: impl Iterator<Item = u64>) {
        let mut rows = Changes::puts(orders.map(|order| (row(order).encoded(), "x")));
        engine.commit(&[], &mut rows).expect("no faults here");
    }

    #[test]
    fn what_is_absent_is_known_at_once_in_an_engine_that_was_empty() {
        let engine = PresenceEngine::new(Arc::new(MemoryEngine::new()), 1 << 20).expect("no faults here");
        assert!(engine.snapshot().lacks(&row(1)));
        put(&engine, 0..1000);
        let snapshot = engine.snapshot();
        assert!((0..1000).all(|order| !snapshot.lacks(&row(order))));
        assert!((1000..2000).filter(|order| !snapshot.lacks(&row(*order))).count() < 50);
    }

    #[test]
    fn and_in_others_after_a_survey_during_which_commits_go_on() {
        let home = MemoryEngine::new();
        put(&home, (0..1000).map(|n| n * 10));
        let engine = PresenceEngine::new(Arc::new(home), 1 << 20).expect("no faults here");
        let (mut from, mut parts) = (Vec::new(), 0);
        while engine.survey(&mut from, 64).expect("no faults here") != Survey::Over {
            assert!(!engine.snapshot().lacks(&row(5)), "nothing is certain yet");
            // Before and behind the place where the survey stands.
            put(&engine, [parts + 1, 9_000 + parts].into_iter());
            parts += 1;
        }
        assert!(parts > 10);
        let snapshot = engine.snapshot();
        let there = (0..1000).map(|n| n * 10).chain(1..=parts).chain(9_000..9_000 + parts);
        assert!(there.clone().all(|order| !snapshot.lacks(&row(order))));
        assert!((20_000..30_000).filter(|order| !snapshot.lacks(&row(*order))).count() < 300);
    }
}

#[test]
fn crash_steps_pass_their_own_check() {
    let engine = MemoryEngine::new();
    assert_eq!(conformance::crash_check(&engine, 0), 0);
    for n in 1..4 {
        conformance::crash_step(&engine, n).expect("no faults here");
        assert_eq!(conformance::crash_check(&engine, n), n);
        assert_eq!(conformance::crash_check(&engine, n - 1), n);
    }
}

#[test]
#[should_panic(expected = "half a commit")]
fn the_crash_check_notices_half_a_commit() {
    let engine = MemoryEngine::new();
    conformance::crash_step(&engine, 1).expect("no faults here");
    engine.commit(&[], &mut Changes::puts([("row 000077", "0")])).expect("no faults here");
    conformance::crash_check(&engine, 1);
}

#[test]
fn faults_come_when_they_were_ordered() {
    let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()));
    let faults = engine.faults();
    let put = |key: &str| engine.commit(&[], &mut Changes::puts([(key, "x")]));
    faults.fail_nth(Call::Commit, 2);
    assert!(put("a").is_ok());
    assert!(put("b").is_err());
    assert!(put("c").is_ok());
    let snapshot = engine.snapshot();
    assert!(snapshot.get(b"b").is_ok_and(|value| value.is_none()), "a failed commit had an effect");
    faults.fail_from(Call::Get, 2);
    assert!(snapshot.get(b"a").is_ok());
    assert!(snapshot.get(b"a").is_err());
    assert!(snapshot.get(b"a").is_err());
    faults.heal();
    assert!(snapshot.get(b"a").is_ok_and(|value| value.is_some()));
    let mut cursor = snapshot.cursor(b"a"..b"z");
    faults.fail_nth(Call::Move, 3);
    assert!(cursor.seek(b"a").is_ok());
    assert!(cursor.next().is_ok());
    assert_eq!(cursor.row().map(|row| row.0), Some(&b"c"[..]));
    assert!(cursor.prev().is_err());
    assert!(cursor.row().is_none());
    assert!(cursor.seek(b"a").is_ok());
    assert!(cursor.row().is_some());
    assert_eq!((faults.calls(Call::Get), faults.calls(Call::Move), faults.calls(Call::Commit)), (5, 4, 3));
}

/// The engine over a disk. Every reopening is a power loss.
struct OnDisk(SimDisk, std::cell::RefCell<Random>);

impl OnDisk {
    fn new() -> OnDisk {
        OnDisk(SimDisk::new(), Random::new(3).into())
    }

    fn engine(&self) -> DurableEngine {
        DurableEngine::open(Arc::new(self.0.clone()), Path::new("/gen")).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Home for OnDisk {
    fn open(&self) -> Arc<dyn Engine> {
        self.0.power_loss(&mut self.1.borrow_mut());
        Arc::new(self.engine())
    }
}

mod durable {
    use super::*;
    ardb_engine::conformance_tests!(OnDisk::new);

    #[test]
    fn a_second_open_is_refused() {
        let home = OnDisk::new();
        let _engine = home.engine();
        assert!(DurableEngine::open(Arc::new(home.0.clone()), Path::new("/gen")).is_err());
    }

    #[test]
    fn damage_is_found() {
        let home = OnDisk::new();
        for n in 1..4u32 {
            home.engine().commit(&[], &mut Changes::puts([(n.to_string(), "x")])).expect("no faults here");
        }
        let name = format!("/gen/{:020}.commit", 2);
        home.0.corrupt(Path::new(&name), 30, 1).expect("there is such a file");
        let error = DurableEngine::open(Arc::new(home.0.clone()), Path::new("/gen")).err().expect("a damaged commit");
        assert!(error.corruption && error.to_string().contains("checksum"), "{error}");
    }

    /// At every operation of the disk in turn: it fails there and the power goes. Commits are whole, and acknowledged ones stay.
    #[test]
    fn a_power_loss_at_any_step_leaves_whole_commits() {
        let seed = conformance::seed(11);
        let mut random = Random::new(seed);
        for step in 0..40 {
            let home = OnDisk::new();
            let mut acknowledged = 0;
            home.0.fail_after(Some(step));
            if let Ok(engine) = DurableEngine::open(Arc::new(home.0.clone()), Path::new("/gen")) {
                for n in 1..6 {
                    match conformance::crash_step(&engine, n) {
                        Ok(()) => acknowledged = n,
                        Err(_) => break,
                    }
                }
                // Nothing of a failed commit is visible.
                assert_eq!(conformance::crash_check(&engine, acknowledged), acknowledged, "ARDB_SEED={seed}");
            }
            home.0.fail_after(None);
            home.0.power_loss(&mut random);
            let found = conformance::crash_check(&home.engine(), acknowledged);
            conformance::crash_step(&home.engine(), found + 1).expect("no faults here");
            assert_eq!(conformance::crash_check(&home.engine(), found + 1), found + 1);
        }
    }

    /// A commit that failed for a while is taken back, at the latest by `resume`.
    #[test]
    fn a_failed_commit_is_taken_back() {
        for step in 0..4 {
            let home = OnDisk::new();
            let engine = home.engine();
            conformance::crash_step(&engine, 1).expect("no faults here");
            home.0.fail_after(Some(step));
            let failed = conformance::crash_step(&engine, 2).is_err();
            assert_eq!(failed, step < 3, "a commit is three operations");
            home.0.fail_after(None);
            engine.resume().expect("no faults any more");
            assert_eq!(conformance::crash_check(&engine, 1), if failed { 1 } else { 2 });
            drop(engine);
            let engine = home.open();
            assert_eq!(conformance::crash_check(&*engine, 1), if failed { 1 } else { 2 });
            conformance::crash_step(&*engine, 3).expect("no faults here");
        }
    }
}
