//! Measures the memtable alone: random puts and gets among a million rows of 16 + 100 bytes, overwrites, one big object,
//! and gets from two threads. `cargo run --release -p ardb-store --example memtable`
#![allow(clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::time::Instant;

use ardb_base::hash::{key_hash, member_hash};
use ardb_base::random::Random;
use ardb_engine::{RowKey, Space, Value};
use ardb_store::table::{Lookup, Table};

const ROWS: u64 = 1_000_000;

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
    println!("{what:<40} {:>8.3} us", spent.as_secs_f64() * 1e6 / count as f64);
}

fn gets(table: &Table, seed: u64, count: u64) {
    let mut random = Random::new(seed);
    for _ in 0..count {
        let name = name(random.below(ROWS));
        let key = RowKey::new(Space::Key, 1, key_hash(&name), &name);
        assert!(!matches!(table.get(&key, 5), Lookup::Hidden));
    }
}

fn main() {
    let data = [b'v'; 100];
    let mut random = Random::new(1);
    let mut order: Vec<u64> = (0..ROWS).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    let start = Instant::now();
    let table = Table::new(1);
    println!("an empty table: {:?}", start.elapsed());
    timed("hashes and names alone", ROWS, || {
        let sum = order.iter().fold(0u64, |sum, &n| sum.wrapping_add(key_hash(&name(n))));
        std::hint::black_box(sum);
    });
    timed("put, new random rows", ROWS, || {
        for &n in &order {
            let name = name(n);
            table.put(&RowKey::new(Space::Key, 1, key_hash(&name), &name), 1, Some(Value::new(&data)), &[]);
        }
    });
    println!("{:.1} bytes a row by its own account", table.bytes() as f64 / ROWS as f64);
    timed("get, random rows, 1 thread", ROWS, || gets(&table, 2, ROWS));
    timed("get, random rows, 2 threads (each)", ROWS, || {
        std::thread::scope(|scope| {
            scope.spawn(|| gets(&table, 3, ROWS));
            scope.spawn(|| gets(&table, 4, ROWS));
        });
    });
    timed("put over, first time", ROWS, || {
        for &n in &order {
            let name = name(n);
            table.put(&RowKey::new(Space::Key, 1, key_hash(&name), &name), 2, Some(Value::new(&data)), &[]);
        }
    });
    timed("put over, second time", ROWS, || {
        for &n in &order {
            let name = name(n);
            table.put(&RowKey::new(Space::Key, 1, key_hash(&name), &name), 3, Some(Value::new(&data)), &[]);
        }
    });
    timed("put over while another thread gets", ROWS, || {
        std::thread::scope(|scope| {
            scope.spawn(|| gets(&table, 5, ROWS));
            for &n in &order {
                let name = name(n);
                table.put(&RowKey::new(Space::Key, 1, key_hash(&name), &name), 4, Some(Value::new(&data)), &[]);
            }
        });
    });
    timed("runs and drain in order", ROWS, || {
        let mut items = Vec::new();
        let mut rows = 0;
        for run in table.runs() {
            items.clear();
            table.collect_run(run, (0, b""), false, 5, usize::MAX, &mut items);
            rows += items.len() as u64;
        }
        assert_eq!(rows, ROWS);
    });
    timed("put into one object: members and scores", 2 * ROWS, || {
        for &n in &order {
            let name = name(n);
            table.put(&RowKey::new(Space::Member, 2, member_hash(&name), &name), 1, Some(Value::new(b"12345678")), &[]);
            table.put(&RowKey::new(Space::Score, 2, n, &name), 1, Some(Value::new(b"")), &[]);
        }
    });
    timed("put into one object: 10 scores only", ROWS, || {
        for &n in &order {
            let name = name(n);
            table.put(&RowKey::new(Space::Score, 3, n % 10, &name), 1, Some(Value::new(b"")), &[]);
        }
    });
    timed("drop", 4 * ROWS, || drop(table));
}
