//! The memory engine under the suite for all engines, and the fault-injecting wrapper around it.

use std::sync::Arc;

use ardb_engine::conformance::{Changes, Home};
use ardb_engine::faulty::{Call, FaultyEngine};
use ardb_engine::{Engine, conformance};
use ardb_engine_memory::MemoryEngine;

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
