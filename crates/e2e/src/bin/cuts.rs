//! Links that are cut at a random byte, again and again, under load: one full sync in all, and equal data at the end.
//!
//! A replica of ours may be cut anywhere, in the first byte of the handshake too. Redis 2.8 forgets its position when the link
//! breaks before it has read the whole answer to its PSYNC, so its connections live for 64 bytes, which that answer ends
//! within, before they may be cut. Since it waits a second before each attempt, its load is a quarter, and its connections live
//! for up to 1 MiB instead of 64 KiB: else it would fall behind for ever.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_e2e::load::{Generator, Load, populate};
use ardb_e2e::options::Options;
use ardb_e2e::pairing::{OURS, Side};
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Kind, Setup};
use ardb_e2e::wait::{syncs, wait_equal, wait_linked};
use ardb_e2e::{Result, error};

const LIMIT: Duration = Duration::from_secs(60);

const PAIRS: [(Side, Side); 3] =
    [(OURS, OURS), (OURS, Side::Server(Kind::Redis("2.8"))), (Side::Server(Kind::Redis("7.0")), OURS)];

fn main() -> ExitCode {
    let options = Options::read(
        "Cuts the link of a master and its replica at random bytes under load.",
        &[
            ("cuts", "1000", "cuts of each pair"),
            ("rate", "2000", "commands a second"),
            ("parallel", "yes", "no for one pair after the other"),
            ("only", "", "pairs whose name holds this, for instance 'Redis 2.8'"),
            ("seed", "", "seed of the loads and the cuts"),
        ],
    );
    let seed = options.seed();
    println!("seed {seed}");
    let name = |pair: &(Side, Side)| format!("{} -> {}", pair.0.name(), pair.1.name());
    let pairs: Vec<_> = PAIRS.iter().filter(|pair| name(pair).contains(options.text("only"))).collect();
    if pairs.is_empty() {
        println!("FAILED: no such pair");
        return ExitCode::FAILURE;
    }
    // Together, because most of the time is a replica's pause before it connects again.
    let together = if options.text("parallel") == "no" { 1 } else { pairs.len() };
    let run = |pair: &(Side, Side)| {
        let outcome = one(*pair, &name(pair), options.number("cuts"), options.number("rate"), seed);
        outcome.map_err(|failure| println!("{}: FAILED: {failure}", name(pair))).is_ok()
    };
    let mut outcomes = Vec::new();
    for group in pairs.chunks(together) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = group.iter().map(|pair| scope.spawn(|| run(pair))).collect();
            outcomes.extend(threads.into_iter().map(|thread| thread.join().unwrap_or(false)));
        });
    }
    if outcomes.iter().all(|good| *good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(pair: (Side, Side), name: &str, wanted: u64, rate: u64, seed: u64) -> Result<()> {
    let (Side::Server(master_kind), Side::Server(replica_kind)) = pair else { return Err(error("no server")) };
    let start = Instant::now();
    // A replica that waits a second before it connects again falls behind, and must find what it missed.
    let master = Setup::new(master_kind).with("repl-backlog-size", "1gb").start()?;
    populate(&mut master.client()?, seed, 5000)?;
    let replica = Setup::new(replica_kind).start()?;
    let proxy = Proxy::start(master.port, seed)?;
    let waits = replica_kind != Kind::Ardb;
    if waits {
        proxy.least(64);
        proxy.scale(20);
    }
    replica.client()?.must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port))?;
    wait_linked(&replica, LIMIT)?;
    let load =
        Load::start(master.port, Generator::new(seed, pair.0.flavor(), 300), if waits { rate / 4 } else { rate });
    proxy.cutting(true);
    let (mut last, mut moved) = (0, Instant::now());
    while proxy.cuts() < wanted {
        std::thread::sleep(Duration::from_millis(20));
        let cuts = proxy.cuts();
        if cuts > last {
            if cuts / 100 > last / 100 {
                println!("{name}: {cuts} cuts after {:.0?}", start.elapsed());
            }
            (last, moved) = (cuts, Instant::now());
        } else if moved.elapsed() > LIMIT {
            return Err(error(format!("no cut for {LIMIT:?} after {cuts}:\n{}", replica.log_tail())));
        }
    }
    proxy.cutting(false);
    let done = load.stop()?;
    let digest = wait_equal(&master, &replica, LIMIT)?;
    let (full, partial) = syncs(&mut master.client()?)?;
    println!(
        "{name}: {} cuts, {} connections, {full} full and {partial} partial resyncs, {} commands, equal: {} ({:.0?})",
        proxy.cuts(),
        proxy.connections(),
        done.commands,
        digest.summary(),
        start.elapsed()
    );
    if full == 1 {
        return Ok(());
    }
    // The second one, and what led to it, on both sides.
    let telling = ["resync", "synchroniz", "SYNC", "lost"];
    let lines = |log: String| -> Vec<String> {
        log.lines().filter(|line| telling.iter().any(|word| line.contains(word))).map(str::to_string).collect()
    };
    for server in [&master, &replica] {
        let lines = lines(server.log());
        let fulls = |line: &&String| line.contains("Full resync from master") || line.contains("Full resync requested");
        let second = lines.iter().enumerate().filter(|(_, line)| fulls(line)).nth(1).map_or(lines.len(), |(at, _)| at);
        println!("{}, up to the second full sync:", server.name());
        for line in &lines[second.saturating_sub(12)..lines.len().min(second + 2)] {
            println!("    {line}");
        }
    }
    Err(error(format!("{full} full syncs")))
}
