//! Fills, loads and compares servers that somebody else has started: the parts of a demonstration that redis-cli cannot do.
//!
//! `workload populate`, `workload load` and `workload compare`, chosen by `--do`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_e2e::client::Client;
use ardb_e2e::digest::Digest;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::Options;
use ardb_e2e::{Result, error};

fn main() -> ExitCode {
    let options = Options::read(
        "Fills, loads and compares running servers.",
        &[
            ("do", "", "populate, load or compare"),
            ("port", "6379", "the server's loopback port"),
            ("other", "", "compare: the port of the second server"),
            ("keys", "200000", "populate: how many keys; load: keys of each type"),
            ("rate", "5000", "load: commands a second"),
            ("seconds", "60", "load: how long; compare: how long they may take to become equal"),
            ("old", "no", "load: yes for the commands of Redis 2.8 only"),
            ("seed", "1", "of the data and commands"),
        ],
    );
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn port(options: &Options, name: &str) -> Result<u16> {
    u16::try_from(options.number(name)).map_err(|_| error(format!("--{name} is no port")))
}

fn run(options: &Options) -> Result<()> {
    let server = port(options, "port")?;
    match options.text("do") {
        "populate" => {
            populate(&mut Client::connect(server)?, options.seed(), options.number("keys"))?;
            println!("{}", Digest::read(&mut Client::connect(server)?)?.summary());
            Ok(())
        }
        "load" => {
            let flavor = if options.text("old") == "yes" { Flavor::Old } else { Flavor::New };
            let generator = Generator::new(options.seed(), flavor, options.number("keys"));
            let load = Load::start(server, generator, options.number("rate"));
            std::thread::sleep(Duration::from_secs(options.number("seconds")));
            let done = load.stop()?;
            println!(
                "{} writes, {} of them refused (wrong types are part of it), {} connections lost",
                done.commands, done.errors, done.lost
            );
            Ok(())
        }
        "compare" => compare(server, port(options, "other")?, Duration::from_secs(options.number("seconds"))),
        other => Err(error(format!("--do {other:?}: populate, load or compare"))),
    }
}

/// Reads both servers until they hold the same.
fn compare(one: u16, other: u16, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let first = Digest::read(&mut Client::connect(one)?)?;
        let second = Digest::read(&mut Client::connect(other)?)?;
        let differences = first.differences(&second);
        if differences.is_empty() {
            println!("equal: {}", first.summary());
            return Ok(());
        }
        if start.elapsed() > limit {
            let shown = differences.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n");
            return Err(error(format!("{} differences:\n{shown}", differences.len())));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
