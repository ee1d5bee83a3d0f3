//! What data take on the disk, and how much is written to it for each byte of them.

use std::sync::Arc;
use std::time::Duration;

use ardb_base::random::Random;
use ardb_e2e::drive::{Plan, Work};
use ardb_e2e::server::Kind;
use ardb_e2e::usage::{self, Memory};
use ardb_e2e::values::{self, Shape};
use ardb_e2e::zipf::Choice;
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, Run, commas, gb, say};
use crate::strings::{Fill, LETTER, Mix, WRITE};

/// Fields of a hash, and the bytes of each value.
const FIELDS: u64 = 10;
const BYTES: u64 = 20;
/// Bytes of a field's name: `field:0`.
const FIELD: usize = 7;

/// Writes each hash of a range once.
struct Hashes {
    next: u64,
    step: u64,
    end: u64,
}

fn field(at: u64) -> [u8; FIELD] {
    let mut name = *b"field:0";
    name[FIELD - 1] += at as u8;
    name
}

impl Work for Hashes {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.next >= self.end {
            return None;
        }
        let key = self.next;
        self.next += self.step;
        values::command(out, "HSET", 2 + FIELDS * 2);
        values::key(out, LETTER, key);
        for at in 0..FIELDS {
            values::word(out, &field(at));
            Shape::new(BYTES, 100).word(out, key, at);
        }
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        if values::integer(reply)? == FIELDS { Ok(()) } else { Err(error("fields were there before")) }
    }
}

/// Rows of the table.
struct Report {
    out: String,
    keys: u64,
    /// Bytes of all keys and values.
    data: u64,
    written: u64,
    log: i64,
}

impl Report {
    fn new(keys: u64, each: usize) -> Report {
        Report { out: String::new(), keys, data: keys * each as u64, written: 0, log: 0 }
    }

    /// Waits until all is written, and notes what there is.
    fn row(&mut self, bed: &Bed, server: &Guest, name: &str, run: &Run) -> Result<()> {
        let loaded = Memory::of(server.process()?)?;
        let (settled, whole) = server.settle(bed)?;
        // What the kernel has not written yet counts when it does.
        rustix::fs::sync();
        std::thread::sleep(Duration::from_secs(1));
        let pid = server.process()?;
        let (disk, log) = server.space()?;
        let written = usage::written(pid)?;
        let end = server.client()?.info_number("storage", "log_end")?;
        let (now, logged) = (written - self.written, end - self.log);
        (self.written, self.log) = (written, end);
        let row = format!(
            "| {name} | {} | {:.2} | {:.1} | {:.1} | {} | {:.2} | {:.2} | {} / {} | {:.0}{} |\n",
            commas(run.outcome.rate()),
            run.cpu,
            self.data as f64 / self.keys as f64,
            disk as f64 / self.keys as f64,
            gb(log),
            now as f64 / self.data as f64,
            logged as f64 / self.data as f64,
            gb(loaded.resident),
            gb(Memory::of(pid)?.resident),
            settled.as_secs_f64(),
            if whole { "" } else { ", not whole" }
        );
        say(row.trim());
        self.out.push_str(&row);
        Ok(())
    }
}

pub fn run(bed: &Bed) -> Result<String> {
    let mut out = String::from(
        "After a checkpoint, when compaction has ended. *Written* is what the process has caused to be written to the disk for each byte of keys and values, log included; *log* the part that \
         the stream in the log makes up. Memory: after the load, and when it has settled.\n\n\
         | | requests/s | CPU us | bytes of a key and its value | on the disk | log on the disk | written | log | resident | settled after s |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut faults = String::new();
    strings(bed, &mut out, &mut faults)?;
    hashes(bed, &mut out, &mut faults)?;
    out.push('\n');
    Ok(out + &faults)
}

fn strings(bed: &Bed, out: &mut String, faults: &mut String) -> Result<()> {
    let (keys, shape) = (bed.number("disk-strings"), Shape::new(100, 100));
    if keys < 2 {
        return Ok(());
    }
    let server = bed.start(Kind::Ardb)?;
    let mut report = Report::new(keys, shape.size() + values::KEY);
    let plan = Plan::new(server.port, 32);
    let (run, _) = server.drive(&plan, Fill::parts(8, keys, shape))?;
    report.row(bed, &server, "strings of 100 bytes, random order", &run)?;
    let choice = Arc::new(Choice::Uniform(keys));
    for round in 1..=2 {
        let work = Mix::some(8, shape, &choice, 100, bed.number("seed") * 10 + round, keys);
        let (run, _) = server.drive(&plan, work)?;
        report.row(bed, &server, &format!("as many overwritten, uniform, {round}"), &run)?;
    }
    let mut client = server.client()?;
    let size = client.must("DBSIZE")?.int().unwrap_or(0) as u64;
    if size != keys {
        faults.push_str(&bed.fault(&format!("DBSIZE is {size}, not {keys}")));
    }
    let mut random = Random::new(bed.number("seed"));
    for _ in 0..10_000.min(keys) {
        let key = random.below(keys);
        let reply = client.call(&[b"GET".as_slice(), &values::name(LETTER, key)])?;
        shape.check(reply.bytes().ok_or_else(|| error(format!("key {key} is missing")))?, key)?;
    }
    out.push_str(&report.out);
    Ok(())
}

fn hashes(bed: &Bed, out: &mut String, faults: &mut String) -> Result<()> {
    let keys = bed.number("disk-hashes");
    if keys == 0 {
        return Ok(());
    }
    let server = bed.start(Kind::Ardb)?;
    let mut report = Report::new(keys, values::KEY + FIELDS as usize * (FIELD + BYTES as usize));
    let work = (0..8).map(|at| Hashes { next: at, step: 8, end: keys }).collect();
    let (run, _) = server.drive(&Plan::new(server.port, 32), work)?;
    report.row(bed, &server, "hashes of 10 fields of 20 bytes", &run)?;
    let mut client = server.client()?;
    let size = client.must("DBSIZE")?.int().unwrap_or(0) as u64;
    if size != keys {
        faults.push_str(&bed.fault(&format!("DBSIZE is {size}, not {keys}")));
    }
    let mut random = Random::new(bed.number("seed"));
    for _ in 0..10_000.min(keys) {
        let (key, at) = (random.below(keys), random.below(FIELDS));
        let reply = client.call(&[b"HGET".as_slice(), &values::name(LETTER, key), &field(at)])?;
        if !reply.bytes().is_some_and(|value| Shape::new(BYTES, 100).is_of(value, key, at)) {
            faults.push_str(&bed.fault(&format!("hash {key} has a wrong field {at}: {reply}")));
            break;
        }
    }
    out.push_str(&report.out);
    Ok(())
}
