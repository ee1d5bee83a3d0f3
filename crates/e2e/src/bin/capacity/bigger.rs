//! Data many times larger than the memory: strings whose values compress by half, read and written at random.
//!
//! The process is held by a cgroup, so that the system's page cache does not hold what the server's memory limit keeps out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::drive::{Plan, Work};
use ardb_e2e::histogram::Histogram;
use ardb_e2e::plot::Lines;
use ardb_e2e::server::Kind;
use ardb_e2e::usage;
use ardb_e2e::values::{self, Shape};
use ardb_e2e::wait::wait_until;
use ardb_e2e::zipf::Choice;
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, Run, commas, gb, say};
use crate::cgroup::{self, Group};
use crate::device;
use crate::removal;
use crate::strings::{Fill, LETTER, Mix, WRITE};
use crate::watch::{Seen, Watch};

/// A mix: its name, whether keys are Zipfian, SETs of a hundred requests.
const MIXES: [(&str, bool, u64); 5] = [
    ("GET, uniform, cold", false, 0),
    ("95:5, uniform", false, 5),
    ("50:50, uniform", false, 50),
    ("95:5, Zipfian", true, 5),
    ("50:50, Zipfian", true, 50),
];

pub fn run(bed: &Bed) -> Result<String> {
    let shape = Shape::new(bed.number("bigger-bytes"), bed.number("bigger-random"));
    let keys = ((bed.decimal("bigger-gb") * f64::from(1 << 30)) as u64 / shape.size() as u64).max(1000);
    let server = bed.start_with(Kind::Ardb, &[("direct-reads", bed.options.text("bigger-direct"))])?;
    let group = hold(bed, &server);
    let mut out = format!(
        "{} strings of {} bytes, {} % of them random ({} of keys and values), `memory-limit {}`, `direct-reads {}`; {}.\n\n",
        commas(keys as f64),
        shape.size(),
        bed.number("bigger-random"),
        gb(keys * (shape.size() + values::KEY) as u64),
        bed.options.text("memory"),
        bed.options.text("bigger-direct"),
        match &group {
            Ok(_) =>
                format!("a cgroup holds the process, its page cache included, to {}", bed.options.text("cgroup-limit")),
            Err(failure) => format!("no cgroup holds the process ({failure}), so the page cache may hold a part"),
        }
    );
    out.push_str(&load(bed, &server, shape, keys)?);
    out.push_str("\n| | -P | requests/s | GET: p50 / p99 / p99.9 ms | SET: the same | CPU us | the client's | checkpoints |\n|---|---|---|---|---|---|---|---|\n");
    let choices = [Arc::new(Choice::Uniform(keys)), Arc::new(Choice::zipf(keys))];
    let mut cold: Vec<(u64, f64)> = Vec::new();
    let mut plots = String::new();
    for (at, (name, zipf, writes)) in MIXES.into_iter().enumerate() {
        for pipeline in bed.list::<u64>("bigger-pipelines")? {
            let seed = bed.number("seed") * 100 + at as u64 * 10 + pipeline % 10;
            let work = Mix::parts(bed.number("bigger-clients"), shape, &choices[usize::from(zipf)], writes, seed);
            let plan = Plan::new(server.port, pipeline)
                .lasting(bed.seconds("bigger-seconds"))
                .in_slots(Duration::from_secs(1));
            let watch = Watch::start(&server)?;
            let (run, _) = server.drive(&plan, work)?;
            let seen = watch.finish()?;
            let [reads, sets] = &run.outcome.kinds;
            let row = format!(
                "| {name} | {pipeline} | {} | {} | {} | {:.2} | {:.2} | {} |\n",
                commas(run.outcome.rate()),
                reads.brief(),
                sets.brief(),
                run.cpu,
                run.own,
                seen.checkpoints.len()
            );
            say(row.trim());
            out.push_str(&row);
            if writes == 0 {
                cold.push((pipeline, run.outcome.rate()));
            }
            if writes == 50 {
                let file = format!("bigger-{}-P{pipeline}", if zipf { "zipfian" } else { "uniform" });
                let title = format!("Latency, {name}, -P {pipeline}");
                plots.push_str(&bed.plot(&file, &title, &latency_plot(&title, &run, &seen))?);
            }
        }
    }
    out.push('\n');
    out.push_str(&plots);
    out.push_str(&device_alone(bed, &server, &cold)?);
    if bed.options.text("bigger-remove") == "yes" {
        out.push_str(&remove(bed, &server, shape, keys)?);
    }
    // The process goes first: a group with somebody in it stays.
    drop(server);
    drop(group);
    Ok(out)
}

fn hold(bed: &Bed, server: &Guest) -> Result<Group> {
    let limit = bed.options.text("cgroup-limit");
    if limit == "no" {
        return Err(error("it was not wanted"));
    }
    Group::hold(server.process()?, cgroup::bytes(limit)?)
}

fn load(bed: &Bed, server: &Guest, shape: Shape, keys: u64) -> Result<String> {
    let data = keys * (shape.size() + values::KEY) as u64;
    let watch = Watch::start(server)?;
    let plan = Plan::new(server.port, 64).in_slots(Duration::from_secs(1));
    let (run, _) = server.drive(&plan, Fill::parts(8, keys, shape))?;
    say(format!("loaded in {:.0} s", run.outcome.elapsed.as_secs_f64()));
    let (settled, whole) = server.settle(bed)?;
    let seen = watch.finish()?;
    let (disk, log) = server.space()?;
    let written = usage::written(server.process()?)?;
    let size = server.client()?.must("DBSIZE")?.int().unwrap_or(0);
    let mut out = format!(
        "Loaded in random order in {:.0} s: {} requests/s ({:.0} MB/s), {:.2} us of processor time each, {} checkpoints, p50 / p99 / p99.9 of a batch of 64 {} ms; \
         settled after {:.0} s more{}. On the disk {} and {} of log; written {:.2} times the data; peak of resident memory {}.\n",
        run.outcome.elapsed.as_secs_f64(),
        commas(run.outcome.rate()),
        usage::megabytes(data) / run.outcome.elapsed.as_secs_f64(),
        run.cpu,
        seen.checkpoints.len(),
        run.outcome.kinds[WRITE].brief(),
        settled.as_secs_f64(),
        if whole { "" } else { " (not in time)" },
        gb(disk),
        gb(log),
        written as f64 / data as f64,
        gb(seen.peak())
    );
    if size as u64 != keys {
        out.push_str(&bed.fault(&format!("DBSIZE is {size}, not {keys}")));
    }
    say(out.trim());
    Ok(out)
}

/// Percentiles of each second, with the checkpoints.
fn latency_plot(title: &str, run: &Run, seen: &Seen) -> String {
    let series = |name: &str, value: &dyn Fn(&Histogram) -> Duration| {
        let points = run.outcome.slots.iter().enumerate().filter_map(|(second, kinds)| {
            let mut all = Histogram::default();
            kinds.iter().for_each(|kind| all.add(kind));
            (all.count() > 0).then(|| (second as f64, value(&all).as_secs_f64() * 1e3))
        });
        (name.to_string(), points.collect())
    };
    let marked = ("checkpoint", run.outcome.began.map(|began| seen.spans(began)).unwrap_or_default());
    let all = vec![
        series("p50", &|all| all.percentile(50.0)),
        series("p99", &|all| all.percentile(99.0)),
        series("max", &Histogram::max),
    ];
    Lines { title, unit: "ms", logarithmic: true, series: all, marked }.draw()
}

fn device_alone(bed: &Bed, server: &Guest, cold: &[(u64, f64)]) -> Result<String> {
    let dir = server.dir.join("data");
    let mut out =
        String::from("\nThe disk alone, random reads of 4 KB of the server's sorted files past the page cache:\n\n");
    out.push_str("| threads | reads/s | p50 / p99 / p99.9 ms |");
    cold.iter().for_each(|(pipeline, _)| out.push_str(&format!(" cold GETs, -P {pipeline}, as a part |")));
    out.push_str(&format!("\n|---|---|---|{}\n", "---|".repeat(cold.len())));
    for threads in [32, 64] {
        let reads = match device::read(&dir, threads, bed.seconds("device-seconds"), bed.number("seed")) {
            Ok(reads) => reads,
            Err(failure) => return Ok(format!("\nThe disk alone was not measured: {failure}.\n")),
        };
        let mut row = format!("| {} | {} | {} |", reads.threads, commas(reads.rate), reads.latency.brief());
        cold.iter().for_each(|(_, rate)| row.push_str(&format!(" {:.2} |", rate / reads.rate)));
        say(&row);
        out.push_str(&row);
        out.push('\n');
    }
    Ok(out)
}

/// Names keys in turn: removes them, or lets them expire at once.
struct Remove {
    next: u64,
    step: u64,
    end: u64,
    expire: bool,
}

impl Remove {
    /// Every second key of a range, by so many connections.
    fn parts(connections: u64, from: u64, end: u64, expire: bool) -> Vec<Remove> {
        (0..connections).map(|at| Remove { next: from + at * 2, step: connections * 2, end, expire }).collect()
    }
}

impl Work for Remove {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let key = self.next;
        if key >= self.end {
            return None;
        }
        self.next += self.step;
        let (name, words) = if self.expire { ("PEXPIRE", 3) } else { ("DEL", 2) };
        values::command(out, name, words);
        values::key(out, LETTER, key);
        if self.expire {
            values::number(out, 1);
        }
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        if values::integer(reply)? == 1 { Ok(()) } else { Err(error("a key that is to go was not there")) }
    }
}

fn remove(bed: &Bed, server: &Guest, shape: Shape, keys: u64) -> Result<String> {
    let (settled, _) = server.settle(bed)?;
    let (before, _) = server.space()?;
    say(format!("settled after {:.0} s, {} on the disk; removing half", settled.as_secs_f64(), gb(before)));
    let connections = bed.number("bigger-clients").min(keys / 2).max(1);
    let plan = Plan::new(server.port, 16);
    let (run, _) = server.drive(&plan, Remove::parts(connections, 0, keys, false))?;
    let release = removal::watch(server, bed, before)?;
    let mut out = format!(
        "\nDEL of every second key, {connections} connections, `-P 16`: {:.0} s ({} requests/s, {:.2} us of processor time). Then a checkpoint was asked for. Disk: {}.\n\n",
        run.outcome.elapsed.as_secs_f64(),
        commas(run.outcome.rate()),
        run.cpu,
        release.describe()
    );
    let title = "Space on the disk after half of the keys went";
    let points = release.series.iter().map(|(at, bytes)| (*at, bytes / f64::from(1 << 20))).collect();
    let lines = Lines { title, unit: "MB", series: vec![("without the log".to_string(), points)], ..Lines::default() };
    out.push_str(&bed.plot("bigger-space", title, &lines.draw())?);

    // Of the keys that are left, some expire together.
    let (expiring, left) = (bed.number("bigger-expire").min(keys / 2), keys / 2);
    let start = Instant::now();
    let (run, _) = server.drive(&plan, Remove::parts(connections, 1, 1 + expiring * 2, true))?;
    let mut client = server.client()?;
    let limit = bed.seconds("settle").min(Duration::from_secs(300));
    let wanted = left - expiring;
    let all = wait_until("all are gone", limit, || Ok(client.must("DBSIZE")?.int().unwrap_or(0) as u64 <= wanted));
    let gone = left.saturating_sub(client.must("DBSIZE")?.int().unwrap_or(0) as u64);
    out.push_str(&format!(
        "\nPEXPIRE of a millisecond on {} of the others: {} requests/s; {} of them were deleted of themselves {:.1} s after the first request{}.\n",
        commas(expiring as f64),
        commas(run.outcome.rate()),
        commas(gone as f64),
        start.elapsed().as_secs_f64(),
        if all.is_ok() { "" } else { ", when the wait ended" },
    ));
    let mut random = Random::new(bed.number("seed"));
    for _ in 0..10_000.min(keys) {
        let key = random.below(keys);
        let name = values::name(LETTER, key);
        let reply = client.call(&[b"GET".as_slice(), &name])?;
        match (key.is_multiple_of(2) || key < expiring * 2, reply.bytes()) {
            (true, None) => {}
            (false, Some(value)) => shape.check(value, key)?,
            (_, value) => out.push_str(&bed.fault(&format!("key {key}: {:?} bytes", value.map(<[u8]>::len)))),
        }
    }
    let size = client.must("DBSIZE")?.int().unwrap_or(0) as u64;
    if all.is_ok() && size != wanted {
        out.push_str(&bed.fault(&format!("DBSIZE is {size}, not {wanted}")));
    }
    say(out.trim());
    Ok(out)
}
