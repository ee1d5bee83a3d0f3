//! What an append costs, on the real disk: nanoseconds per append (a reading of the clock included) for several payload sizes, with and
//! without a thread that syncs, at full speed and at 250 MB/s at most.
//!
//! `cargo bench -p ardb-log`; ARDB_BENCH_DIR names another directory, on another disk for instance.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ardb_base::disk::{Disk, RealDisk};
use ardb_log::{Ended, Log, LogOptions, Offset, Opened, Past};

fn main() {
    let base =
        std::env::var_os("ARDB_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = base.join("append-bench");
    println!("payload  ahead  syncing  paced     ns/append    p99.9 ns     max us      MB/s");
    for (payload, count) in [(64usize, 2_000_000u64), (1024, 400_000), (65536, 6_000)] {
        for (ahead, syncing, paced) in
            [(false, false, false), (true, false, false), (true, true, false), (true, true, true)]
        {
            RealDisk.remove_dir_all(&dir).expect("an old directory can be removed");
            run(&dir, payload, if paced { count / 4 } else { count }, ahead, syncing, paced);
        }
    }
    RealDisk.remove_dir_all(&dir).expect("the directory can be removed");
}

fn run(dir: &std::path::Path, payload: usize, count: u64, ahead: bool, syncing: bool, paced: bool) {
    let options = LogOptions { ahead, ..LogOptions::default() };
    let past = Past { epoch: 1, checkpoint: Offset(0), ended: Ended::New };
    let Opened { log, mut appender, .. } =
        Log::open(Arc::new(RealDisk), dir, past, options).expect("an empty log opens");
    let bytes = vec![b'x'; payload];
    // As after a start: the first segment is there and prepared.
    std::thread::sleep(Duration::from_millis(100));
    let done = AtomicBool::new(false);
    let mut histogram = [0u64; 64];
    let mut max = Duration::ZERO;
    let total = std::thread::scope(|scope| {
        if syncing {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    log.sync_to(log.end()).expect("the disk works");
                    log.truncate_front(log.synced());
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let begin = Instant::now();
        let mut last = begin;
        let mut paused = Duration::ZERO;
        for i in 0..count {
            if paced && i % (1 << 18 >> payload.ilog2()).max(1) == 0 {
                // A quarter of a megabyte, then some time for the thread that works ahead; the pause is not counted.
                let pause = Instant::now();
                std::thread::sleep(Duration::from_millis(1));
                last = Instant::now();
                paused += last - pause;
            }
            appender.append(0, 0, &[&bytes]).expect("there is space");
            let now = Instant::now();
            let took = now - last;
            last = now;
            max = max.max(took);
            // Powers of two; indexing: leading_zeros of a number that is not 0 is at most 63.
            histogram[63 - (took.as_nanos() as u64 | 1).leading_zeros() as usize] += 1;
        }
        let total = begin.elapsed() - paused;
        done.store(true, Ordering::Relaxed);
        total
    });
    let mut seen = 0;
    let slow = histogram.iter().position(|n| {
        seen += n;
        seen * 1000 >= count * 999
    });
    println!(
        "{payload:7} {ahead:6} {syncing:8} {paced:6} {:13.1} {:>11} {:10.0} {:9.0}",
        total.as_nanos() as f64 / count as f64,
        format!("<{}", 2u64 << slow.unwrap_or(62)),
        max.as_secs_f64() * 1e6,
        (count as usize * payload) as f64 / total.as_secs_f64() / 1e6,
    );
}
