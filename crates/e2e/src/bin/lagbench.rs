//! Measures steady replication at the master's highest rate of writes, for the four pairings of Redis 7.0 and Ardb: how far the replica is
//! behind, and what following costs the master.
//!
//! Each test of `redis-benchmark` runs twice against a fresh master: alone, and with one replica that has caught up. Then the two must be equal, by
//! one full sync and a link that never broke. Goals: the lag of Ardb to Ardb (99th percentile of the time) is at most 1.5 times that of
//! Redis to Redis, and its master loses no larger part of its requests a second to its replica than Redis does.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_e2e::benchmark::{Benchmark, Plan};
use ardb_e2e::lag::{Distribution, Lags, Watch, median};
use ardb_e2e::options::Options;
use ardb_e2e::pairing::{REDIS, pairs, title};
use ardb_e2e::server::{Kind, Server, Setup};
use ardb_e2e::usage::Usage;
use ardb_e2e::wait::{follow, offsets, syncs, wait_equal, wait_linked, wait_until};
use ardb_e2e::{Result, error};

/// For a link, and for the comparison at the end.
const LIMIT: Duration = Duration::from_secs(120);
/// A replica that has everything so soon after the last write has kept up.
const KEPT_UP: Duration = Duration::from_secs(1);
/// How many times the lag of Redis to Redis ours may be.
const LAG_GOAL: f64 = 1.5;

/// One run of a test without a replica and with one.
struct Figure {
    /// Requests a second.
    alone: f64,
    followed: f64,
    /// Processor seconds.
    master_alone: f64,
    master: f64,
    replica: f64,
    lags: Lags,
    /// Bytes that the replica lacked after the last request, and how long they took it.
    left: u64,
    rest: Duration,
}

/// All runs of a test for a pairing.
struct Row {
    pair: (Kind, Kind),
    test: String,
    figures: Vec<Figure>,
}

fn main() -> ExitCode {
    let options = Options::read(
        "Measures how far a replica is behind at the master's highest rate of writes, and what it costs.",
        &[
            ("pairs", "rr,ar,aa,ra", "pairings: master and replica, r for Redis and a for Ardb"),
            ("tests", "set,hset,zadd", "tests of redis-benchmark"),
            ("requests", "2000000", "requests of a run"),
            ("zadds", "1000000", "requests of a run of zadd"),
            ("rounds", "3", "runs of each, in turns of order; medians count"),
            ("keys", "1000000", "keys, fields or members"),
            ("bytes", "3", "of a value"),
            ("clients", "50", "connections"),
            ("pipeline", "16", "requests on their way on each"),
            ("memory", "1gb", "Ardb's memory-limit"),
            ("backlog", "1gb", "Ardb's repl-backlog-size"),
            ("goals", "no", "yes to fail if a goal is missed"),
        ],
    );
    match run(&options) {
        Ok(met) if met || options.text("goals") != "yes" => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(kind: Kind, options: &Options) -> Result<Server> {
    let setup = Setup::new(kind).with("appendfsync", "everysec");
    match kind {
        Kind::Ardb => setup
            .with("repl-backlog-size", options.text("backlog"))
            .with_own("memory-limit", options.text("memory"))
            .start(),
        // A replica that is behind is not to be dropped for it: what is measured is how far that is.
        Kind::Redis(_) | Kind::Valkey(_) => {
            setup.with("appendonly", "yes").with("client-output-buffer-limit", "replica 0 0 0").start()
        }
    }
}

fn usage(server: &Server) -> Result<Usage> {
    Usage::of(server.pid().ok_or_else(|| error(format!("{} is gone", server.name())))?)
}

fn plan<'o>(test: &'o str, options: &Options) -> Plan<'o> {
    Plan {
        test,
        requests: options.number(if test == "zadd" { "zadds" } else { "requests" }),
        keys: options.number("keys"),
        bytes: options.number("bytes"),
        clients: options.number("clients"),
        pipeline: options.number("pipeline"),
    }
}

/// The test against a master alone: requests a second, and its processor seconds.
fn alone(kind: Kind, test: &str, options: &Options) -> Result<(f64, f64)> {
    let master = start(kind, options)?;
    let before = usage(&master)?;
    // It is asked the same as one with a replica.
    let watch = Watch::start(master.port, None)?;
    let rate = Benchmark::start(master.port, &plan(test, options))?.wait()?;
    watch.stop()?;
    Ok((rate, usage(&master)?.cpu_since(&before).as_secs_f64()))
}

/// The same with a replica, and what is seen of that one.
fn followed(pair: (Kind, Kind), test: &str, options: &Options, alone: (f64, f64)) -> Result<Figure> {
    let (master, replica) = (start(pair.0, options)?, start(pair.1, options)?);
    follow(&replica, &master)?;
    wait_linked(&replica, LIMIT)?;
    let caught_up = || offsets(&master, &replica).map(|(one, other)| one == other);
    wait_until("the replica has caught up", LIMIT, caught_up)?;
    let (master_before, replica_before) = (usage(&master)?, usage(&replica)?);
    let watch = Watch::start(master.port, Some(replica.port))?;
    let rate = Benchmark::start(master.port, &plan(test, options))?.wait()?;
    let end = Instant::now();
    let (written, have) = offsets(&master, &replica)?;
    let mut client = replica.client()?;
    while client.info_number("replication", "slave_repl_offset")? < written {
        if end.elapsed() > LIMIT {
            return Err(error(format!("{} does not catch up:\n{}", replica.name(), replica.log_tail())));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let rest = end.elapsed();
    let lags = watch.stop()?;
    let (master_after, replica_after) = (usage(&master)?, usage(&replica)?);
    let digest = wait_equal(&master, &replica, LIMIT)?;
    if digest.len() < 2 {
        return Err(error(format!("nothing was written: {}", digest.summary())));
    }
    let counts = syncs(&mut master.client()?)?;
    if counts != (1, 0) {
        return Err(error(format!("the link broke: {counts:?} full and partial syncs\n{}", master.log_tail())));
    }
    Ok(Figure {
        alone: alone.0,
        followed: rate,
        master_alone: alone.1,
        master: master_after.cpu_since(&master_before).as_secs_f64(),
        replica: replica_after.cpu_since(&replica_before).as_secs_f64(),
        lags,
        left: written.saturating_sub(have).max(0) as u64,
        rest,
    })
}

impl Row {
    fn median(&self, value: impl Fn(&Figure) -> f64) -> f64 {
        median(self.figures.iter().map(value))
    }

    /// Milliseconds that the replica was behind, in all runs.
    fn ms(&self) -> Distribution {
        Distribution::of(self.figures.iter().flat_map(|figure| figure.lags.ms.iter().copied()).collect())
    }

    /// Kilobytes that it lacked.
    fn kilobytes(&self) -> Distribution {
        Distribution::of(self.figures.iter().flat_map(|figure| figure.lags.bytes.iter().map(|b| b / 1024.0)).collect())
    }

    /// The part of its requests a second that the master keeps with a replica.
    fn kept(&self) -> f64 {
        self.median(|figure| figure.followed / figure.alone)
    }

    fn print(&self) {
        let (ms, kilobytes) = (self.ms(), self.kilobytes());
        let rest = self.figures.iter().map(|figure| figure.rest).max().unwrap_or_default();
        println!(
            "{:<14} {:<5} {:>8.0} {:>8.0} {:>6.2} {:>22} {:>26} {:>8.1} {:>8.1} {:>8.1} {:>9.0} {:>8.0}  {}",
            title(self.pair),
            self.test,
            self.median(|figure| figure.alone),
            self.median(|figure| figure.followed),
            self.kept(),
            format!("{:.1} / {:.1} / {:.1}", ms.at(50), ms.at(99), ms.most()),
            format!("{:.0} / {:.0} / {:.0}", kilobytes.at(50), kilobytes.at(99), kilobytes.most()),
            self.median(|figure| figure.master_alone),
            self.median(|figure| figure.master),
            self.median(|figure| figure.replica),
            self.figures.iter().map(|figure| figure.left).max().unwrap_or(0) as f64 / 1024.0,
            rest.as_secs_f64() * 1000.0,
            if rest <= KEPT_UP { "yes" } else { "NO" },
        );
    }
}

fn heading() {
    println!(
        "{:<14} {:<5} {:>8} {:>8} {:>6} {:>22} {:>26} {:>8} {:>8} {:>8} {:>9} {:>8}  kept up",
        "",
        "",
        "alone/s",
        "with/s",
        "ratio",
        "ms p50/p99/max",
        "KB p50/p99/max",
        "CPU s",
        "with",
        "replica",
        "end KB",
        "end ms"
    );
}

fn run(options: &Options) -> Result<bool> {
    let tests: Vec<&str> = options.text("tests").split(',').collect();
    let mut rows: Vec<Row> = Vec::new();
    for pair in pairs(options.text("pairs"))? {
        rows.extend(tests.iter().map(|test| Row { pair, test: (*test).to_string(), figures: Vec::new() }));
    }
    heading();
    for round in 0..options.number("rounds").max(1) {
        // In turns of order, so that a machine that slows down hurts all of them.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (pair, test) = (rows[at].pair, rows[at].test.clone());
            let figure = alone(pair.0, &test, options)
                .and_then(|alone| followed(pair, &test, options, alone))
                .map_err(|failure| error(format!("{}, {test}: {failure}", title(pair))))?;
            let one = Row { pair, test, figures: vec![figure] };
            one.print();
            rows[at].figures.extend(one.figures);
        }
    }
    println!("\nall rounds: medians; lags of all runs together");
    heading();
    rows.iter().for_each(Row::print);
    let met: Vec<bool> = tests.iter().filter_map(|test| goals(&rows, test)).collect();
    Ok(met.iter().all(|met| *met))
}

/// Whether ours meets the goals, where both pairings were measured.
fn goals(rows: &[Row], test: &str) -> Option<bool> {
    let of = |pair: (Kind, Kind)| rows.iter().find(|row| row.pair == pair && row.test == test);
    let (redis, ours) = (of((REDIS, REDIS))?, of((Kind::Ardb, Kind::Ardb))?);
    let (base, lag) = (redis.ms().at(99), ours.ms().at(99));
    let (base_cost, cost) = (100.0 * (1.0 - redis.kept()), 100.0 * (1.0 - ours.kept()));
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    let lag_met = lag <= base * LAG_GOAL;
    let times = lag / base.max(0.001);
    println!("{test}: lag p99 {lag:.1} ms, {times:.2} times redis to redis, goal {LAG_GOAL}: {}", verdict(lag_met));
    let cost_met = cost <= base_cost;
    println!("{test}: a replica costs {cost:.0} % of requests, redis {base_cost:.0} %: {}", verdict(cost_met));
    Some(lag_met && cost_met)
}
