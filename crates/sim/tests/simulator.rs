//! A quick run of the simulator, its determinism, and that it finds what it must find.

#![allow(clippy::disallowed_methods, reason = "a seed may come from the environment")]

use ardb_sim::{Sabotage, run, run_with};

/// Seeds of the ordinary run.
const SEEDS: u64 = 150;

#[test]
fn no_seed_violates_anything() {
    let seeds = match std::env::var("ARDB_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    for seed in seeds {
        if let Some(violation) = run(seed, None).violation {
            panic!(
                "seed {seed}: {violation}\nto replay: cargo run --release -p ardb-sim --bin simulate -- --seed {seed} --trace"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..12 {
        let (one, two) = (run(seed, None), run(seed, None));
        assert_eq!(one, two, "seed {seed}");
        assert!(one.counts.events > 100, "seed {seed} has hardly any events");
    }
    assert_ne!(run(1, None).hash, run(2, None).hash);
}

#[test]
fn a_trace_changes_nothing() {
    let mut lines = 0;
    let traced = run(3, Some(&mut |_| lines += 1));
    assert_eq!(traced, run(3, None));
    assert!(lines > 50);
}

/// What finds a deliberate bug. `known` is a seed that has found it before; should the simulator draw otherwise since, others do.
fn found(sabotage: Sabotage, known: u64, most: u64) -> String {
    for seed in [known].into_iter().chain(0..most) {
        if let Some(violation) = run_with(seed, sabotage, None).violation {
            return violation.to_string();
        }
    }
    panic!("{sabotage:?} is not found in {most} seeds");
}

#[test]
fn a_position_apart_from_its_rows_is_found() {
    let violation = found(Sabotage::PositionApart, 16, 120);
    assert!(violation.contains("are not what its history makes"), "{violation}");
}

#[test]
fn a_name_kept_after_a_lost_tail_is_found() {
    let violation = found(Sabotage::IdKept, 7, 60);
    assert!(violation.contains("two histories have the name"), "{violation}");
}

#[test]
fn acknowledging_before_appending_is_found() {
    let violation = found(Sabotage::AckBeforeAppend, 1, 60);
    assert!(violation.contains("had acknowledged everything"), "{violation}");
}

#[test]
fn a_full_sync_that_goes_on_too_far_is_found() {
    let violation = found(Sabotage::ResumedTooFar, 177, 1500);
    assert!(violation.contains("are not what its history makes"), "{violation}");
}

#[test]
fn handing_a_role_over_early_is_found() {
    let violation = found(Sabotage::HandedOverEarly, 2, 60);
    assert!(violation.contains("hands its role over"), "{violation}");
}
