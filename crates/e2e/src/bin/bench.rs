//! The bench: `redis-benchmark`'s tests against Ardb and real servers, one after the other, in rounds whose order turns.
//!
//! Every server starts afresh for each number of pipelined requests and runs all tests in their order. Each test is run by one server after the other, while those that
//! are not in turn are stopped (`SIGSTOP`): a machine whose speed drifts over minutes is the same to all of them, and what a server still does in the background it does in
//! its own time. Redis and Valkey keep an append-only file that is synced every second, as Ardb's log is. The tables hold medians over the rounds: requests a second, latency,
//! the processor time that the server spends on a request, which on a busy machine is the truer figure, and the ratios of each round's requests and p99 to those
//! of the first peer after Ardb.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use ardb_e2e::benchmark::{Benchmark, Plan, Report};
use ardb_e2e::lag::median;
use ardb_e2e::options::Options;
use ardb_e2e::plot;
use ardb_e2e::server::{Kind, Server, Setup};
use ardb_e2e::usage::{self, Memory, Usage};
use ardb_e2e::{Result, error};

/// All tests of the program, in its order, and the part of the requests that each gets: the last ones are long.
const TESTS: [(&str, u64); 20] = [
    ("ping_inline", 1),
    ("ping_mbulk", 1),
    ("set", 1),
    ("get", 1),
    ("incr", 1),
    ("lpush", 1),
    ("rpush", 1),
    ("lpop", 1),
    ("rpop", 1),
    ("sadd", 1),
    ("hset", 1),
    ("spop", 1),
    ("zadd", 1),
    ("zpopmin", 1),
    ("lrange_100", 4),
    ("lrange_300", 10),
    ("lrange_500", 10),
    ("lrange_600", 10),
    ("mset", 2),
    ("xadd", 0),
];

/// One run of one test.
struct Figure {
    report: Report,
    /// Microseconds of processor time for each request.
    cpu: f64,
}

/// What a server used by the end of its tests.
struct Footprint {
    resident: u64,
    disk: u64,
    written: u64,
}

/// By pipeline, test and peer.
type Figures = BTreeMap<(u64, usize, usize), Vec<Figure>>;

fn main() -> ExitCode {
    let options = Options::read(
        "Runs redis-benchmark against Ardb and real servers and prints medians, ratios, latencies and processor time.",
        &[
            ("peers", "ardb,redis-7.0", "servers: ardb first, then any of redis-7.0, redis-8, valkey-9.1"),
            ("tests", "all", "tests of redis-benchmark, with commas between"),
            ("pipelines", "1,16,64", "requests on their way on each connection"),
            ("requests", "200000", "of a run without pipelining; four times as many with it; long ones get a part"),
            ("rounds", "3", "medians are over these"),
            ("clients", "50", "connections"),
            ("threads", "1", "threads of the client"),
            ("keys", "1000000", "keys, fields or members"),
            ("bytes", "3", "of a value"),
            ("memory", "1gb", "Ardb's memory-limit"),
            ("ardb", "", "further directives for Ardb: name=value, with commas between"),
            ("goals", "", "the least ratios, as 1=1.0,16=0.9,64=0.9; a test under its own makes the program fail"),
            ("tails", "", "the greatest ratio of p99; a test over it makes the program fail"),
            ("out", "", "a folder for the tables (bench.md) and a plot (bench.svg)"),
        ],
    );
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("{missed} short of their goal");
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn list<T>(text: &str, each: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split(',').filter(|part| !part.is_empty()).map(each).collect()
}

fn peer(name: &str) -> Result<Kind> {
    match name {
        "ardb" => Ok(Kind::Ardb),
        "redis-7.0" => Ok(Kind::Redis("7.0")),
        "redis-8" => Ok(Kind::Redis("8")),
        "valkey-9.1" => Ok(Kind::Valkey("9.1")),
        other => Err(error(format!("--peers: {other} is none of ardb, redis-7.0, redis-8, valkey-9.1"))),
    }
}

fn start(kind: Kind, options: &Options) -> Result<Server> {
    let mut setup = Setup::new(kind).with("appendfsync", "everysec");
    if kind != Kind::Ardb {
        return setup.with("appendonly", "yes").start();
    }
    for pair in options.text("ardb").split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| error(format!("--ardb: {pair} is not name=value")))?;
        setup = setup.with_own(name, value);
    }
    setup.with_own("memory-limit", options.text("memory")).start()
}

fn run(options: &Options) -> Result<usize> {
    let names: Vec<&str> = options.text("peers").split(',').collect();
    let peers = list(options.text("peers"), peer)?;
    let wanted = |test: &str| options.text("tests") == "all" || options.text("tests").split(',').any(|t| t == test);
    let tests: Vec<(&str, u64)> = TESTS.into_iter().filter(|(test, part)| *part > 0 && wanted(test)).collect();
    let pipelines = list(options.text("pipelines"), number)?;
    let goals = list(options.text("goals"), |pair| {
        let (pipeline, least) = pair.split_once('=').ok_or_else(|| error(format!("--goals: {pair} is not P=ratio")))?;
        let least: f64 = least.parse().map_err(|_| error(format!("--goals: {least} is no number")))?;
        Ok((number(pipeline)?, least))
    })?;
    let tails = match options.text("tails") {
        "" => f64::INFINITY,
        text => text.parse().map_err(|_| error(format!("--tails: {text} is no number")))?,
    };
    let mut figures = Figures::new();
    let mut footprints: BTreeMap<usize, Vec<Footprint>> = BTreeMap::new();
    for round in 0..options.number("rounds").max(1) {
        for &pipeline in &pipelines {
            eprintln!("round {}, -P {pipeline}", round + 1);
            let mut servers = Vec::new();
            for peer in &peers {
                let server = start(*peer, options)?;
                server.signal("STOP")?;
                servers.push(server);
            }
            for (number, (test, part)) in tests.iter().enumerate() {
                for turn in 0..peers.len() {
                    // Who comes first changes from test to test and from round to round.
                    let at = (turn + number + round as usize) % peers.len();
                    servers[at].signal("CONT")?;
                    let figure = measure(&servers[at], test, *part, pipeline, options)?;
                    servers[at].signal("STOP")?;
                    figures.entry((pipeline, number, at)).or_default().push(figure);
                }
            }
            for (at, server) in servers.iter().enumerate() {
                footprints.entry(at).or_default().push(footprint(server)?);
            }
        }
    }
    let text = tables(&names, &tests, &pipelines, &figures, &footprints);
    println!("{text}");
    if !options.text("out").is_empty() {
        let dir = Path::new(options.text("out"));
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("bench.md"), &text)?;
        let bars = |pipeline: u64| -> Vec<f64> {
            (0..tests.len()).map(|test| ratio(&figures, pipeline, test, rate).unwrap_or(0.0)).collect()
        };
        let series: Vec<(String, Vec<f64>)> = pipelines.iter().map(|p| (format!("-P {p}"), bars(*p))).collect();
        let labels: Vec<&str> = tests.iter().map(|(test, _)| *test).collect();
        let title = format!("Requests a second of Ardb as a part of those of {}", names.get(1).unwrap_or(&"nobody"));
        std::fs::write(dir.join("bench.svg"), plot::bars(&title, &labels, &series))?;
    }
    let mut missed = 0;
    for &pipeline in &pipelines {
        let least = goals.iter().find(|(of, _)| *of == pipeline).map_or(0.0, |(_, least)| *least);
        for (number, (test, _)) in tests.iter().enumerate() {
            let of = |value| ratio(&figures, pipeline, number, value);
            let (Some(rate), Some(tail)) = (of(rate), of(tail)) else { continue };
            if rate < least {
                println!("-P {pipeline} {test}: {rate:.3} of the requests");
                missed += 1;
            }
            if tail > tails {
                println!("-P {pipeline} {test}: p99 {tail:.2} times as long");
                missed += 1;
            }
        }
    }
    Ok(missed)
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| error(format!("{text} is no number")))
}

fn pid(server: &Server) -> Result<u32> {
    server.pid().ok_or_else(|| error(format!("{} is gone", server.name())))
}

fn measure(server: &Server, test: &str, part: u64, pipeline: u64, options: &Options) -> Result<Figure> {
    let more = if pipeline > 1 { 4 } else { 1 };
    let plan = Plan {
        test,
        requests: (options.number("requests") * more / part).max(1),
        keys: options.number("keys"),
        bytes: options.number("bytes"),
        clients: options.number("clients"),
        pipeline,
    };
    let before = Usage::of(pid(server)?)?;
    let report = Benchmark::start_with_threads(server.port, &plan, options.number("threads"))?.report()?;
    let cpu = Usage::of(pid(server)?)?.cpu_since(&before);
    // What the program sends before a test of ranges, to have something to read, is in the processor time; a hundred requests or so in thousands.
    Ok(Figure { report, cpu: cpu.as_secs_f64() * 1e6 / plan.requests as f64 })
}

fn footprint(server: &Server) -> Result<Footprint> {
    let pid = pid(server)?;
    let resident = Memory::of(pid)?.resident;
    Ok(Footprint { resident, disk: usage::tree_on_disk(&server.dir)?, written: usage::written(pid)? })
}

fn of(figures: &Figures, key: (u64, usize, usize), value: impl Fn(&Figure) -> f64) -> Option<f64> {
    figures.get(&key).map(|runs| median(runs.iter().map(value)))
}

fn rate(figure: &Figure) -> f64 {
    figure.report.rate
}

/// p99, ms.
fn tail(figure: &Figure) -> f64 {
    figure.report.latency[1]
}

/// The median over the rounds of a value of Ardb's, as a part of the next peer's in the same round.
fn ratio(figures: &Figures, pipeline: u64, test: usize, value: fn(&Figure) -> f64) -> Option<f64> {
    let of = |peer| figures.get(&(pipeline, test, peer));
    let ratios = of(0)?.iter().zip(of(1)?).map(|(ours, theirs)| value(ours) / value(theirs));
    Some(median(ratios))
}

fn tables(
    names: &[&str],
    tests: &[(&str, u64)],
    pipelines: &[u64],
    figures: &Figures,
    footprints: &BTreeMap<usize, Vec<Footprint>>,
) -> String {
    let mut out = String::new();
    for &pipeline in pipelines {
        out.push_str(&format!(
            "\n-P {pipeline}: requests/s | p50 / p99 / p99.9 ms | us of processor time for each\n\n| |"
        ));
        for name in names {
            out.push_str(&format!(" {name} | | |"));
        }
        out.push_str(" ratio | of p99 |\n|---|");
        out.push_str(&"---|---|---|".repeat(names.len()));
        out.push_str("---|---|\n");
        for (number, (test, _)) in tests.iter().enumerate() {
            out.push_str(&format!("| {} |", test.to_uppercase()));
            for peer in 0..names.len() {
                let value =
                    |value: &dyn Fn(&Figure) -> f64| of(figures, (pipeline, number, peer), value).unwrap_or(0.0);
                let latency = [0, 1, 2].map(|at| format!("{:.2}", value(&|figure| figure.report.latency[at])));
                out.push_str(&format!(
                    " {:.0} | {} | {:.2} |",
                    value(&|figure| figure.report.rate),
                    latency.join(" / "),
                    value(&|figure| figure.cpu)
                ));
            }
            let of = |value| ratio(figures, pipeline, number, value).unwrap_or(0.0);
            out.push_str(&format!(" {:.2} | {:.2} |\n", of(rate), of(tail)));
        }
    }
    out.push_str("\nAt the end of all tests: MB resident, on the disk, and written to it\n\n");
    for (peer, runs) in footprints {
        let value =
            |value: fn(&Footprint) -> u64| usage::megabytes(median(runs.iter().map(|run| value(run) as f64)) as u64);
        out.push_str(&format!(
            "- {}: {:.0}, {:.0}, {:.0}\n",
            names[*peer],
            value(|run| run.resident),
            value(|run| run.disk),
            value(|run| run.written)
        ));
    }
    out
}
