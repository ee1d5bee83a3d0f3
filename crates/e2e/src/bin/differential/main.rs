//! Random commands against several servers side by side, reply by reply.
//!
//! The same commands, from a seed, go to the server under test on each of its engines and to a real Redis 7.0, in pipelined
//! batches; what comes back must be the same, order aside where it means nothing. Every few batches the whole data is
//! compared too. On a mismatch the seed, the command's number, its replies and the earlier commands on its keys are
//! printed; then all servers are emptied and the run goes on, up to `--mismatches`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

mod compare;
mod plan;
mod runner;
mod scripts;
mod table;
mod template;

use std::process::ExitCode;

use ardb_e2e::options::Options;
use ardb_e2e::server::Setup;
use ardb_e2e::{Result, error};

use crate::plan::Plan;
use crate::runner::Runner;

fn main() -> ExitCode {
    let options = Options::read(
        "Random commands against several servers side by side.",
        &[
            ("commands", "1000000", "how many"),
            ("seed", "", "of the commands"),
            ("upto", "0", "stop after the command with this number (0: do not)"),
            ("mismatches", "1", "stop after so many"),
            (
                "servers",
                "rocksdb,memory,redis",
                "which: rocksdb and memory are engines of ardb, tight is ardb that packs only the smallest collections (then skip OBJECT, whose answers are by these limits), redis is Redis 7.0",
            ),
            ("only", "", "only rows of the table that name one of these commands"),
            ("skip", "", "no rows of the table that name one of these commands"),
        ],
    );
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The limits of the server `tight`.
const TIGHT: [(&str, &str); 8] = [
    ("appendfsync", "no"),
    ("hash-max-listpack-entries", "4"),
    ("set-max-intset-entries", "5"),
    ("set-max-listpack-entries", "3"),
    ("set-max-listpack-value", "8"),
    ("zset-max-listpack-entries", "4"),
    ("zset-max-listpack-value", "10"),
    ("list-max-listpack-size", "3"),
];

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_uppercase).collect()
}

fn run(options: &Options) -> Result<bool> {
    let seed = options.seed();
    let mut servers = Vec::new();
    for name in options.text("servers").split(',') {
        let setup = match name {
            "rocksdb" | "memory" => Setup::ardb().with_own("storage-engine", name).with("appendfsync", "no"),
            // Here collections go over from their key's row to rows all the time.
            "tight" => TIGHT.iter().fold(Setup::ardb().with_own("storage-engine", "memory"), |setup, (name, value)| {
                setup.with(name, value)
            }),
            "redis" => Setup::redis("7.0"),
            other => return Err(error(format!("--servers {other}: rocksdb, memory, tight or redis"))),
        };
        servers.push((name.to_string(), setup.start()?));
    }
    let mut plan = Plan::new(seed, &list(options.text("only")), &list(options.text("skip")));
    if plan.is_empty() {
        return Err(error("no row of the table is left"));
    }
    println!("seed {seed}, servers {}", options.text("servers"));
    let mut runner = Runner::new(servers, seed)?;
    let limit = match options.number("upto") {
        0 => options.number("commands"),
        upto => upto,
    };
    while runner.commands() < limit && runner.mismatches() < options.number("mismatches") {
        runner.act(plan.next())?;
    }
    runner.compare_data()?;
    runner.report();
    Ok(runner.mismatches() == 0)
}
