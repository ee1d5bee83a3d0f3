//! Every pairing of Ardb with the real servers, both ways: a mixed load over all types, three databases, expiries, transactions
//! and scripts; then the data must be equal, with one full sync.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use ardb_e2e::options::Options;
use ardb_e2e::pairing::{OURS, PEERS, Plan, Side, run};

fn main() -> ExitCode {
    let options = Options::read(
        "Every pairing of Ardb with the real servers, under load.",
        &[
            ("seconds", "60", "how long each load flows once the link is up"),
            ("rate", "4000", "commands a second"),
            ("jobs", "2", "pairs at a time"),
            ("only", "", "pairs whose name holds this, for instance 'Redis 2.8'"),
            ("seed", "", "seed of the loads"),
        ],
    );
    let seed = options.seed();
    println!("seed {seed}");
    let both = PEERS.iter().flat_map(|peer| [(OURS, *peer), (*peer, OURS)]);
    let name = |pair: &(Side, Side)| format!("{} -> {}", pair.0.name(), pair.1.name());
    let mut pairs: Vec<(Side, Side)> =
        both.chain([(OURS, OURS)]).filter(|pair| name(pair).contains(options.text("only"))).collect();
    if pairs.is_empty() {
        println!("FAILED: no such pair");
        return ExitCode::FAILURE;
    }
    pairs.reverse();
    let plan =
        Plan { seed, keys: 10_000, rate: options.number("rate"), time: Duration::from_secs(options.number("seconds")) };
    let (pairs, bad) = (Mutex::new(pairs), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..options.number("jobs").max(1) {
            scope.spawn(|| {
                loop {
                    let Some(pair) = pairs.lock().ok().and_then(|mut pairs| pairs.pop()) else { return };
                    match run(pair.0, pair.1, plan) {
                        Ok(figure) => println!(
                            "{:<26} equal  {} commands, {} full sync, {} ({:.0?})",
                            name(&pair),
                            figure.commands,
                            figure.full,
                            figure.summary,
                            figure.time
                        ),
                        Err(failure) => {
                            println!("{:<26} FAILED {failure}", name(&pair));
                            if let Ok(mut bad) = bad.lock() {
                                *bad += 1;
                            }
                        }
                    }
                }
            });
        }
    });
    // A panic in a pair poisons the count.
    if bad.lock().is_ok_and(|bad| *bad == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
