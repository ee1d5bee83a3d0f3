//! Measures the engine by itself: `cargo run --release -p ardb-engine-rocksdb --example measure [directory]`.
//!
//! Commits of sorted rows, random reads of rows that are there and of rows that are not, and a scan. Beside the time that passed stands the
//! time that the measuring thread had a processor, which other work on the machine disturbs less. The numbers of a run
//! stand in docs/engine-rocksdb.md.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use ardb_base::random::Random;
use ardb_engine::{Change, ChangeSource, Engine, Snapshot};
use ardb_engine_rocksdb::{RocksEngine, RocksOptions};

const ROWS: u64 = 1_000_000;

/// Rows with 16-byte keys in hash-like order and 100-byte values that compress by about a half.
struct Rows {
    step: u64,
    next: u64,
    first: u64,
    key: [u8; 16],
    value: [u8; 100],
    random: Random,
}

fn key(n: u64, odd: bool) -> [u8; 16] {
    let mut key = [0; 16];
    key[0] = 1;
    // Spread over the whole space; the low bit tells absent keys from present ones.
    key[1..9].copy_from_slice(&((n << 40) | u64::from(odd)).to_be_bytes());
    key
}

impl Rows {
    fn new(first: u64, step: u64, seed: u64) -> Rows {
        Rows { step, next: first, first, key: [0; 16], value: [b'v'; 100], random: Random::new(seed) }
    }
}

impl ChangeSource for Rows {
    fn next_change(&mut self) -> Option<Change<'_>> {
        if self.next >= ROWS {
            return None;
        }
        self.key = key(self.next, false);
        self.next += self.step;
        self.random.fill(&mut self.value[..50]);
        self.value[99] = self.first as u8;
        Some((&self.key, Some(&self.value)))
    }
}

/// Seconds that this thread has had a processor, as Linux counts them; 0 elsewhere.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn reads(name: &str, snapshot: &Arc<dyn Snapshot>, odd: bool, threads: u64) -> String {
    const READS: u64 = 300_000;
    let start = Instant::now();
    let worked: f64 = std::thread::scope(|scope| {
        let work = |thread| {
            move || {
                let mut random = Random::new(thread);
                for _ in 0..READS {
                    let found = snapshot.get(&key(random.below(ROWS), odd)).expect("a read");
                    assert_eq!(found.is_none(), odd);
                }
                busy()
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        running.into_iter().map(|one| one.join().expect("a reader")).sum()
    });
    let count = (READS * threads) as f64;
    format!(
        "{name}, {threads} thread(s): {:.0} k/s, {:.2} us of a processor each",
        count / start.elapsed().as_secs_f64() / 1e3,
        worked / count * 1e6
    )
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "target/measure".to_owned());
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the directory can be written");
    let mut out = std::io::stdout();
    let mut say = |line: String| writeln!(out, "{line}").expect("standard output");
    let options = RocksOptions { block_cache_bytes: 512 << 20, ..RocksOptions::new(format!("{dir}/gen")) };
    let engine = RocksEngine::open(&options).expect("the engine opens");

    let start = Instant::now();
    engine.commit(&[], &mut Rows::new(0, 1, 1)).expect("a commit");
    let seconds = start.elapsed().as_secs_f64();
    say(format!(
        "commit of {ROWS} sorted rows into nothing: {seconds:.2} s, {:.2} M rows/s",
        ROWS as f64 / seconds / 1e6
    ));

    let (start, work) = (Instant::now(), busy());
    let mut longest = 0f64;
    let mut count = 0;
    for round in 0..10 {
        let one = Instant::now();
        engine.commit(&[], &mut Rows::new(round, 5, round)).expect("a commit");
        count += (ROWS - round).div_ceil(5);
        longest = longest.max(one.elapsed().as_secs_f64());
    }
    let (seconds, work) = (start.elapsed().as_secs_f64(), busy() - work);
    say(format!(
        "10 commits of {} k rows over them: {:.2} M rows/s, {:.2} us of a processor each, the longest {longest:.2} s",
        ROWS / 5000,
        count as f64 / seconds / 1e6,
        work / count as f64 * 1e6
    ));
    let start = Instant::now();
    for round in 0..50 {
        engine.commit(&[], &mut Rows::new(round, 100_000, round)).expect("a commit");
    }
    say(format!("commit of 10 rows: {:.2} ms", start.elapsed().as_secs_f64() * 20.0));
    let stats = engine.stats();
    say(format!("{stats:?}"));

    let snapshot = engine.snapshot();
    reads("warm up", &snapshot, false, 2);
    for threads in [1, 2] {
        say(reads("get, cached", &snapshot, false, threads));
        say(reads("get of an absent key", &snapshot, true, threads));
    }
    let start = Instant::now();
    let mut random = Random::new(9);
    let mut rows = 0u64;
    for _ in 0..10_000 {
        let from = key(random.below(ROWS), false);
        let mut cursor = snapshot.cursor(&from..&[255; 16]);
        cursor.seek(&from).expect("a seek");
        for _ in 0..100 {
            rows += u64::from(cursor.row().is_some());
            if cursor.row().is_none() {
                break;
            }
            cursor.next().expect("a step");
        }
    }
    say(format!("scans of 100 rows: {:.1} k/s ({rows} rows)", 10.0 / start.elapsed().as_secs_f64()));
    let start = Instant::now();
    let mut cursor = snapshot.cursor(&[0; 1]..&[255; 16]);
    cursor.seek(&[]).expect("a seek");
    let mut rows = 0u64;
    while cursor.row().is_some() {
        rows += 1;
        cursor.next().expect("a step");
    }
    say(format!("iteration over all: {:.1} M rows/s ({rows})", rows as f64 / start.elapsed().as_secs_f64() / 1e6));
    assert_eq!(rows, ROWS);
    drop(cursor);
    let _ = std::fs::remove_dir_all(&dir);
}
