//! Measures whole transactions over the memory engine and a real disk: commits of single rows and of bursts, hot and clean gets,
//! a counter, a queue, flushes, a checkpoint. `cargo run --release -p ardb-store --example store_ops [directory]`
#![allow(clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use ardb_base::disk::RealDisk;
use ardb_base::hash::key_hash;
use ardb_base::id::Generation;
use ardb_base::random::Random;
use ardb_engine::{Engine, EngineError, RowKey, Rows, RowsMut, Space};
use ardb_engine_memory::MemoryEngine;
use ardb_log::LogOptions;
use ardb_store::{Fsync, MemoryBudget, Store, StoreOptions};

const ROWS: u64 = 300_000;

fn name(n: u64) -> [u8; 16] {
    let mut out = *b"key:000000000000";
    let mut n = n;
    for digit in out.iter_mut().rev().take(12) {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out
}

fn timed(what: &str, count: u64, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let spent = start.elapsed();
    println!("{what:<48} {:>8.3} us", spent.as_secs_f64() * 1e6 / count as f64);
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
        clock: Arc::new(|| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
        }),
        background: true,
    }
}

/// What SET does: look at the old row, write the new one, count a new key, append the effect.
fn set(txn: &mut ardb_store::WriteTxn<'_>, n: u64, value: &[u8]) {
    let name = name(n);
    let key = RowKey::new(Space::Key, txn.keyspace(0).0, key_hash(&name), &name);
    let old = txn.get(key).unwrap_or_else(|error| panic!("{error}"));
    txn.put(key, value);
    if old.is_none() {
        txn.count(0, 1, 0);
    }
    let payload = &mut txn.frame().payload;
    payload.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
    payload.extend_from_slice(&name);
    payload.extend_from_slice(b"\r\n$100\r\n");
    payload.extend_from_slice(value);
    payload.extend_from_slice(b"\r\n");
}

fn commit(txn: &mut ardb_store::WriteTxn<'_>) {
    txn.commit().map(|_| ()).unwrap_or_else(|error| panic!("{error}"));
}

fn gets(store: &Store, seed: u64, count: u64, burst: u64) {
    let mut reader = store.reader();
    let mut random = Random::new(seed);
    let mut done = 0;
    while done < count {
        let txn = reader.begin();
        for _ in 0..burst {
            let name = name(random.below(ROWS));
            let key = RowKey::new(Space::Key, txn.keyspace(0).0, key_hash(&name), &name);
            std::hint::black_box(txn.get(key).unwrap_or_else(|error| panic!("{error}")));
        }
        done += burst;
    }
}

fn main() {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into).join("ardb-store-ops");
    let _ = std::fs::remove_dir_all(&dir);
    let (store, _) = Store::open(options(&dir)).unwrap_or_else(|error| panic!("{error}"));
    let mut random = Random::new(1);
    let mut value = [b'v'; 100];
    value[..3].fill(0);
    timed("SET of a new random key, a commit each", ROWS, || {
        for _ in 0..ROWS {
            let mut txn = store.write();
            set(&mut txn, random.below(ROWS), &value);
            commit(&mut txn);
        }
    });
    timed("SET over random keys, 16 to a commit", ROWS, || {
        for _ in 0..ROWS / 16 {
            let mut txn = store.write();
            for _ in 0..16 {
                set(&mut txn, random.below(ROWS), &value);
            }
            commit(&mut txn);
        }
    });
    timed("SET of one key, a commit each", ROWS, || {
        for _ in 0..ROWS {
            let mut txn = store.write();
            set(&mut txn, 7, &value);
            commit(&mut txn);
        }
    });
    timed("SET of one key, 16 to a commit", ROWS, || {
        for _ in 0..ROWS / 16 {
            let mut txn = store.write();
            (0..16).for_each(|_| set(&mut txn, 7, &value));
            commit(&mut txn);
        }
    });
    timed("GET from the table, a snapshot each", ROWS, || gets(&store, 2, ROWS, 1));
    timed("GET from the table, 16 to a snapshot", ROWS, || gets(&store, 3, ROWS, 16));
    timed("begin and end of a read transaction", ROWS, || {
        let mut reader = store.reader();
        (0..ROWS).for_each(|_| drop(reader.begin()));
    });
    timed("queue: push and pop of a fresh list, a commit each", ROWS, || {
        let object = store.write().new_object().0;
        for n in 0..ROWS {
            let key = RowKey::new(Space::Element, object, n, b"");
            let mut txn = store.write();
            txn.put(key, &value);
            txn.frame().payload.extend_from_slice(b"*3\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n$1\r\nv\r\n");
            commit(&mut txn);
            txn.delete(key);
            txn.frame().payload.extend_from_slice(b"*2\r\n$4\r\nLPOP\r\n$1\r\nq\r\n");
            commit(&mut txn);
        }
    });
    timed("FLUSHDB of a database of ten keys, and the keys", 5000, || {
        for _ in 0..5000 {
            let mut txn = store.write();
            for n in 0..10 {
                let name = name(n);
                let key = RowKey::new(Space::Key, txn.keyspace(3).0, key_hash(&name), &name);
                txn.put(key, &value);
                txn.count(3, 1, 0);
            }
            commit(&mut txn);
            txn.flush(3);
            txn.frame().payload.extend_from_slice(b"*1\r\n$7\r\nFLUSHDB\r\n");
            commit(&mut txn);
        }
    });
    timed("checkpoint, a row", ROWS, || store.checkpoint().unwrap_or_else(|error| panic!("{error}")));
    timed("GET from the row cache, a snapshot each", ROWS, || gets(&store, 4, ROWS, 1));
    println!("{:?}", store.stats());
    store.close().unwrap_or_else(|error| panic!("{error}"));
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}
