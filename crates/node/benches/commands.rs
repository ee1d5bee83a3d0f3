//! What commands cost over the store with its memory engine, through dispatch, a transaction for each: the shortest ones, and those of each type on a small value, which is
//! packed in its key's row, and a big one. `cargo bench -p ardb-node`
#![allow(missing_docs, reason = "the macro makes a function")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ardb_base::disk::{Disk, RealDisk};
use ardb_base::id::Generation;
use ardb_base::random::Random;
use ardb_commands::{Access, Host, Origin, Session, Shared, Table, cmd, dispatch};
use ardb_engine::{Engine, EngineError};
use ardb_engine_memory::MemoryEngine;
use ardb_log::LogOptions;
use ardb_node::txn::Batch;
use ardb_node::{Node, nobody};
use ardb_resp::{Protocol, Reply};
use ardb_store::{Fsync, MemoryBudget, Reader, Store, StoreOptions};
use criterion::{Criterion, criterion_group, criterion_main};

/// Keys of strings.
const KEYS: u64 = 100_000;
/// Members of a small collection, and of a big one.
const SIZES: [(&str, u64); 2] = [("packed", 50), ("big", 100_000)];
const NOW: i64 = 1_000_000;
/// Rounds of commands after which the log is given back, so that the disk does not fill up.
const PERIOD: u64 = 1_000_000;

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
        fsync: Fsync::No,
        checkpoint_age_ms: 600_000,
        boot_id: [1; 16],
        random: Arc::new(|bytes: &mut [u8]| Random::new(1).fill(bytes)),
        clock: Arc::new(|| 0),
        background: true,
    }
}

struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A server without sockets.
struct Server {
    store: Store,
    reader: Reader,
    shared: Arc<Shared>,
    session: Session,
    out: Reply,
    random: Random,
}

impl Server {
    fn new(dir: &Path) -> Server {
        let (store, recovery) = Store::open(options(dir)).unwrap_or_else(|error| panic!("{error}"));
        drop(recovery);
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 16, 1));
        let (reader, session, out) = (store.reader(), nobody(), Reply::new(Protocol::Resp2));
        Server { reader, store, shared, session, out, random: Random::new(5) }
    }

    fn run(&mut self, writes: bool, args: &[&[u8]]) {
        let Server { store, reader, shared, session, out, .. } = self;
        let node = Node { store: &*store, shared: &*shared, host: &NoHost };
        let Ok(command) = dispatch::resolve(&shared.table, args) else { panic!("only known commands") };
        out.buffer_mut().clear();
        if writes {
            let mut txn = store.write();
            let mut batch = Batch::new(&mut txn, NOW);
            let access = Access::Write(&mut batch);
            dispatch::execute(&mut node.ctx(access, out, session, Origin::Client, NOW), command, args);
            batch.next_command();
            txn.commit().unwrap_or_else(|error| panic!("{error}"));
        } else {
            let view = reader.begin();
            let access = Access::Read(&view);
            dispatch::execute(&mut node.ctx(access, out, session, Origin::Client, NOW), command, args);
        }
        assert!(!out.bytes().starts_with(b"-"), "{}", String::from_utf8_lossy(out.bytes()));
    }

    /// Runs a line of words: each `#` is a random number below `bound`, of nine digits.
    fn line(&mut self, writes: bool, line: &[&str], bound: u64) {
        let mut numbers = [[b'0'; 9]; 4];
        for (number, word) in numbers.iter_mut().zip(line) {
            let mut rest = if *word == "#" { self.random.below(bound) } else { continue };
            for digit in number.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        let mut args = [b"".as_slice(); 4];
        for (arg, (word, number)) in args.iter_mut().zip(line.iter().zip(&numbers)) {
            *arg = if *word == "#" { number } else { word.as_bytes() };
        }
        self.run(writes, &args[..line.len()]);
    }
}

/// A benchmark: a name, whether it writes, and the lines that are run in turn, so that sizes stay.
type Case = (&'static str, bool, &'static [&'static [&'static str]]);

const CASES: [Case; 7] = [
    ("HSET", true, &[&["HSET", "h", "#", "value"]]),
    ("HGET", false, &[&["HGET", "h", "#"]]),
    ("LPUSH and RPOP", true, &[&["LPUSH", "l", "#"], &["RPOP", "l"]]),
    ("ZADD", true, &[&["ZADD", "z", "#", "#"]]),
    ("ZRANK", false, &[&["ZRANK", "z", "#"]]),
    ("SADD and SREM", true, &[&["SADD", "s", "x"], &["SREM", "s", "x"]]),
    ("SISMEMBER", false, &[&["SISMEMBER", "s", "#"]]),
];

fn commands(criterion: &mut Criterion) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("commands-bench");
    RealDisk.remove_dir_all(&dir).expect("an old directory can be removed");
    let mut server = Server::new(&dir.join("strings"));
    for _ in 0..KEYS {
        server.line(true, &["SET", "#", "vvvvvvvvvvvvvvvvvvvv"], KEYS);
    }
    let mut group = criterion.benchmark_group("dispatch");
    // PING is the server's own; DBSIZE has as little to do.
    let short: [Case; 3] = [
        ("DBSIZE", false, &[&["DBSIZE"]]),
        ("GET", false, &[&["GET", "#"]]),
        ("SET", true, &[&["SET", "#", "vvvvvvvvvvvvvvvvvvvv"]]),
    ];
    for case in short {
        bench(&mut group, &mut server, case.0.to_string(), case, KEYS);
    }
    group.finish();
    for (form, size) in SIZES {
        let mut group = criterion.benchmark_group(form);
        let mut server = Server::new(&dir.join(form));
        for number in 0..size {
            let member = format!("{number:09}");
            let member = member.as_bytes();
            server.run(true, &[b"HSET", b"h", member, b"value"]);
            server.run(true, &[b"RPUSH", b"l", member]);
            server.run(true, &[b"ZADD", b"z", member, member]);
            server.run(true, &[b"SADD", b"s", member]);
        }
        for case in CASES {
            bench(&mut group, &mut server, case.0.to_string(), case, size);
        }
        group.finish();
    }
    RealDisk.remove_dir_all(&dir).expect("the directory can be removed");
}

fn bench(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    server: &mut Server,
    name: String,
    (_, writes, lines): Case,
    bound: u64,
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let (mut took, mut left) = (Duration::ZERO, count);
            while left > 0 {
                let part = left.min(PERIOD);
                let start = Instant::now();
                for _ in 0..part {
                    lines.iter().for_each(|line| server.line(writes, line, bound));
                }
                took += start.elapsed();
                left -= part;
                if left > 0 && writes {
                    server.store.checkpoint().unwrap_or_else(|error| panic!("{error}"));
                }
            }
            took
        });
    });
}

criterion_group!(benches, commands);
criterion_main!(benches);
