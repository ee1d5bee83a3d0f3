//! What rows cost: put into the memtable and found there and in the row cache, and brought to the engine by a checkpoint. The engine is the one in memory, the log lies on
//! the real disk. `cargo bench -p ardb-store`
#![allow(missing_docs, reason = "the macro makes a function")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ardb_base::disk::{Disk, RealDisk};
use ardb_base::hash::key_hash;
use ardb_base::id::Generation;
use ardb_base::random::Random;
use ardb_engine::{Engine, EngineError, RowKey, Rows, RowsMut, Space, Value};
use ardb_engine_memory::MemoryEngine;
use ardb_log::LogOptions;
use ardb_store::table::Table;
use ardb_store::{Fsync, MemoryBudget, Store, StoreOptions};
use criterion::{Criterion, criterion_group, criterion_main};

/// Rows of the tables and of a checkpoint.
const ROWS: u64 = 100_000;
const DATA: [u8; 100] = [b'v'; 100];

fn name(n: u64) -> [u8; 16] {
    let mut out = *b"key:000000000000";
    let mut n = n;
    for digit in out.iter_mut().rev().take(12) {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out
}

fn options(dir: &Path) -> StoreOptions {
    let engines: Mutex<BTreeMap<Generation, MemoryEngine>> = Mutex::default();
    StoreOptions {
        dir: dir.to_owned(),
        disk: Arc::new(RealDisk),
        engines: Arc::new(move |generation: Generation, _: &Path, _: u64| {
            let mut engines = engines.lock().map_err(|_| EngineError::new("open", "poisoned"))?;
            Ok(Arc::new(engines.entry(generation).or_default().clone()) as Arc<dyn Engine>)
        }),
        databases: 16,
        memory: MemoryBudget { changed: 1 << 30, rows: 256 << 20, engine: 0 },
        log: LogOptions::default(),
        backlog_bytes: 1 << 20,
        fsync: Fsync::EverySecond,
        checkpoint_age_ms: 600_000,
        boot_id: [1; 16],
        random: Arc::new(|bytes: &mut [u8]| Random::new(1).fill(bytes)),
        clock: Arc::new(|| 0),
        background: true,
    }
}

fn memtable(criterion: &mut Criterion) {
    let table = Table::new(1);
    let put = |n: u64, sequence: u64| {
        let name = name(n);
        table.put(&RowKey::new(Space::Key, 1, key_hash(&name), &name), sequence, Some(Value::new(&DATA)), &[]);
    };
    (0..ROWS).for_each(|n| put(n, 1));
    let mut group = criterion.benchmark_group("memtable");
    let mut random = Random::new(1);
    group.bench_function("get, random rows", |bencher| {
        bencher.iter(|| {
            let name = name(random.below(ROWS));
            std::hint::black_box(table.get(&RowKey::new(Space::Key, 1, key_hash(&name), &name), 5));
        });
    });
    // A batch replaces what it has written itself, so the table does not grow.
    group.bench_function("put over, random rows", |bencher| bencher.iter(|| put(random.below(ROWS), 2)));
    group.bench_function("put, new random rows, a table of 100,000", |bencher| {
        bencher.iter_custom(|count| {
            let mut took = Duration::ZERO;
            for round in 0..count.div_ceil(ROWS) {
                let table = Table::new(1);
                let part = ROWS.min(count - round * ROWS);
                let start = Instant::now();
                for n in 0..part {
                    let name = name(n * 61_803 % ROWS);
                    let key = RowKey::new(Space::Key, 1, key_hash(&name), &name);
                    table.put(&key, 1, Some(Value::new(&DATA)), &[]);
                }
                took += start.elapsed();
            }
            took
        });
    });
    group.finish();
}

fn write(store: &Store) {
    let mut n = 0;
    while n < ROWS {
        let mut txn = store.write();
        for _ in 0..100 {
            let name = name(n * 61_803 % ROWS);
            let key = RowKey::new(Space::Key, txn.keyspace(0).0, key_hash(&name), &name);
            txn.put(key, &DATA);
            n += 1;
        }
        txn.frame().payload.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        txn.commit().unwrap_or_else(|error| panic!("{error}"));
    }
}

fn store(criterion: &mut Criterion) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rows-bench");
    RealDisk.remove_dir_all(&dir).expect("an old directory can be removed");
    let (store, recovery) = Store::open(options(&dir)).unwrap_or_else(|error| panic!("{error}"));
    drop(recovery);
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).bench_function("checkpoint of 100,000 rows", |bencher| {
        bencher.iter_custom(|count| {
            (0..count)
                .map(|_| {
                    write(&store);
                    let start = Instant::now();
                    store.checkpoint().unwrap_or_else(|error| panic!("{error}"));
                    start.elapsed()
                })
                .sum()
        });
    });
    group.sample_size(100).bench_function("get, rows in the row cache", |bencher| {
        let (mut reader, mut random) = (store.reader(), Random::new(4));
        bencher.iter(|| {
            let name = name(random.below(ROWS));
            let txn = reader.begin();
            let key = RowKey::new(Space::Key, txn.keyspace(0).0, key_hash(&name), &name);
            let found = txn.get(key).unwrap_or_else(|error| panic!("{error}"));
            assert!(found.is_some());
        });
    });
    group.finish();
    store.close().unwrap_or_else(|error| panic!("{error}"));
    drop(store);
    RealDisk.remove_dir_all(&dir).expect("the directory can be removed");
}

criterion_group!(benches, memtable, store);
criterion_main!(benches);
