//! Runs the simulator over seeds, or one seed with everything that happens in it.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool")]

use std::process::ExitCode;
use std::time::Instant;

use ardb_sim::{Counts, Sabotage};

const USAGE: &str = "usage: simulate [--seeds A..B | --seed N [--trace]] [--sabotage ";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let sabotage = match value("--sabotage") {
        None => None,
        Some(wanted) => match Sabotage::ALL.iter().find(|(name, _)| name == wanted) {
            Some((_, sabotage)) => Some(*sabotage),
            None => return usage(),
        },
    };
    let run = |seed: u64, trace: Option<&mut dyn FnMut(&str)>| match sabotage {
        Some(sabotage) => ardb_sim::run_with(seed, sabotage, trace),
        None => ardb_sim::run(seed, trace),
    };
    if let Some(seed) = value("--seed") {
        let Ok(seed) = seed.parse() else { return usage() };
        let mut print = |line: &str| println!("{line}");
        let report = run(seed, args.iter().any(|arg| arg == "--trace").then_some(&mut print));
        print!("{}", report.counts);
        println!("hash {:016x}", report.hash);
        return match report.violation {
            None => ExitCode::SUCCESS,
            Some(violation) => {
                println!("VIOLATION: {violation}");
                ExitCode::FAILURE
            }
        };
    }
    let range = match value("--seeds") {
        None => Some((0, 200)),
        Some(text) => text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?))),
    };
    let Some((from, to)) = range else { return usage() };
    let begin = Instant::now();
    let mut counts = Counts::default();
    for seed in from..to {
        let report = run(seed, None);
        counts.add(&report.counts);
        if let Some(violation) = report.violation {
            println!("seed {seed}: VIOLATION: {violation}");
            let sabotage = value("--sabotage").map(|name| format!(" --sabotage {name}")).unwrap_or_default();
            println!("to replay: cargo run --release -p ardb-sim --bin simulate -- --seed {seed} --trace{sabotage}");
            println!("found after {} seeds, {:.1} s", seed - from + 1, begin.elapsed().as_secs_f64());
            return ExitCode::FAILURE;
        }
    }
    print!("{counts}");
    let took = begin.elapsed().as_secs_f64();
    println!("{} seeds without a violation in {took:.1} s", to - from);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<&str> = Sabotage::ALL.iter().map(|(name, _)| *name).collect();
    eprintln!("{USAGE}{}]", names.join("|"));
    ExitCode::from(2)
}
