//! What the append of one frame costs, on the real disk, with all else left out: `cargo bench -p ardb-log --bench frames`. How long the slowest take, and what a
//! syncing thread does to them, is `append.rs`'s.
#![allow(missing_docs, reason = "the macro makes a function")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ardb_base::disk::{Disk, RealDisk};
use ardb_log::{Ended, Log, LogOptions, Offset, Opened, Past};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Bytes after which the log is synced and its front is given back, which is not measured.
const KEPT: u64 = 64 << 20;

fn appends(criterion: &mut Criterion) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("frames-bench");
    let mut group = criterion.benchmark_group("append");
    for size in [100u64, 1600] {
        RealDisk.remove_dir_all(&dir).expect("an old directory can be removed");
        let past = Past { epoch: 1, checkpoint: Offset(0), ended: Ended::New };
        let Opened { log, mut appender, .. } =
            Log::open(Arc::new(RealDisk), &dir, past, LogOptions::default()).expect("an empty log opens");
        let bytes = vec![b'x'; size as usize];
        group.throughput(Throughput::Bytes(size));
        group.bench_function(format!("a frame of {size} bytes"), |bencher| {
            bencher.iter_custom(|count| {
                let (mut took, mut left) = (Duration::ZERO, count);
                while left > 0 {
                    let part = left.min(KEPT / size);
                    let start = Instant::now();
                    for _ in 0..part {
                        appender.append(0, 0, &[&bytes]).expect("there is space");
                    }
                    took += start.elapsed();
                    left -= part;
                    log.sync_to(log.end()).expect("the disk works");
                    log.truncate_front(log.synced());
                }
                took
            });
        });
    }
    group.finish();
    RealDisk.remove_dir_all(&dir).expect("the directory can be removed");
}

criterion_group!(benches, appends);
criterion_main!(benches);
