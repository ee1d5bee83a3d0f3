//! Measures commands on small collections over the store with its memory engine: packed in their key's row, and as rows; on long lists, and on large sorted
//! sets.
//! `cargo run --release -p ardb-node --example collections [directory [lists]]`
#![allow(clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ardb_base::disk::RealDisk;
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

/// Keys of each kind.
const KEYS: usize = 5000;
/// Commands that are timed together.
const GROUP: usize = 25;
/// Keys of each kind that grow.
const GROWING: usize = 100;
const NOW: i64 = 1_000_000;

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

struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

type Line = Vec<Vec<u8>>;

/// A server without sockets.
struct Server {
    store: Store,
    reader: Reader,
    shared: Arc<Shared>,
    session: Session,
    out: Reply,
}

impl Server {
    fn new(dir: &Path, packed: bool) -> Server {
        let (store, recovery) = Store::open(options(dir)).unwrap_or_else(|error| panic!("{error}"));
        drop(recovery);
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 16, 1));
        if !packed {
            let all = &shared.settings;
            let of_members = [&all.set_max_entries, &all.set_max_intset, &all.zset_max_entries];
            of_members.iter().chain(&[&all.hash_max_entries]).for_each(|setting| setting.store(0, Ordering::Relaxed));
            all.list_max_size.store(0, Ordering::Relaxed);
        }
        Server { reader: store.reader(), store, shared, session: nobody(), out: Reply::new(Protocol::Resp2) }
    }

    /// Runs commands that write, each in a transaction of its own, or commands that read: microseconds for one, as the median of small groups, which leaves out
    /// what others do on the machine.
    fn run(&mut self, lines: &[Line], writes: bool) -> f64 {
        self.run_bursts(lines, writes, 1)
    }

    /// As [`Server::run`], with so many commands in one transaction.
    fn run_bursts(&mut self, lines: &[Line], writes: bool, burst: usize) -> f64 {
        let size = GROUP.div_ceil(burst) * burst;
        let mut groups: Vec<f64> = lines.chunks(size).map(|group| self.group(group, writes, burst)).collect();
        groups.sort_unstable_by(f64::total_cmp);
        groups[groups.len() / 2]
    }

    fn group(&mut self, lines: &[Line], writes: bool, burst: usize) -> f64 {
        let Server { store, reader, shared, session, out } = self;
        let node = Node { store: &*store, shared: &*shared, host: &NoHost };
        let start = Instant::now();
        for lines in lines.chunks(burst) {
            if writes {
                let mut txn = store.write();
                let mut batch = Batch::new(&mut txn, NOW);
                for line in lines {
                    run(&node, Access::Write(&mut batch), out, session, line);
                    assert!(!out.bytes().starts_with(b"-"), "{}", String::from_utf8_lossy(out.bytes()));
                    batch.next_command();
                }
                txn.commit().unwrap_or_else(|error| panic!("{error}"));
            } else {
                let view = reader.begin();
                for line in lines {
                    run(&node, Access::Read(&view), out, session, line);
                    assert!(!out.bytes().starts_with(b"-"), "{}", String::from_utf8_lossy(out.bytes()));
                }
            }
        }
        start.elapsed().as_secs_f64() * 1e6 / lines.len() as f64
    }
}

fn run<'a>(node: &Node<'a>, access: Access<'a>, out: &'a mut Reply, session: &'a mut Session, line: &Line) {
    let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
    let Ok(command) = dispatch::resolve(&node.shared.table, &args) else { panic!("only known commands") };
    out.buffer_mut().clear();
    dispatch::execute(&mut node.ctx(access, out, session, Origin::Client, NOW), command, &args);
}

fn words(line: &str) -> Line {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// A command for each key, in an order that jumps about. `#` is the number of the key.
fn each_key(line: impl Fn(usize) -> String) -> Vec<Line> {
    (0..KEYS).map(|n| n * 7919 % KEYS).map(|n| words(&line(n).replace('#', &n.to_string()))).collect()
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(" ")
}

/// What is measured: a name, whether it writes, and the commands.
fn measured() -> Vec<(&'static str, bool, Vec<Line>)> {
    let value = "v".repeat(20);
    let pairs = list(10, |n| format!("field{n} {value}"));
    let members = list(10, |n| format!("member{n}"));
    let elements = list(100, |n| format!("element{n}"));
    let scored = list(100, |n| format!("{} member{n}", n * 31 % 100));
    vec![
        ("HSET, a new hash of 10 fields", true, each_key(|_| format!("HSET h# {pairs}"))),
        ("HSET, a field of the 10", true, each_key(|n| format!("HSET h# field{} {value}", n % 10))),
        ("HGET", false, each_key(|n| format!("HGET h# field{}", n % 10))),
        ("HGETALL of 10", false, each_key(|_| "HGETALL h#".into())),
        ("HSET, an 11th field", true, each_key(|_| format!("HSET h# more {value}"))),
        ("SADD, a new set of 10", true, each_key(|_| format!("SADD s# {members}"))),
        ("SISMEMBER", false, each_key(|n| format!("SISMEMBER s# member{}", n % 10))),
        ("SMEMBERS of 10", false, each_key(|_| "SMEMBERS s#".into())),
        ("RPUSH, a new list of 100", true, each_key(|_| format!("RPUSH l# {elements}"))),
        ("LRANGE of 100", false, each_key(|_| "LRANGE l# 0 -1".into())),
        ("LINDEX 50", false, each_key(|_| "LINDEX l# 50".into())),
        ("LPUSH to 100", true, each_key(|_| "LPUSH l# element".into())),
        ("RPOP from 101", true, each_key(|_| "RPOP l#".into())),
        ("ZADD, a new sorted set of 100", true, each_key(|_| format!("ZADD z# {scored}"))),
        ("ZRANGE of 100", false, each_key(|_| "ZRANGE z# 0 -1 WITHSCORES".into())),
        ("ZSCORE of 100", false, each_key(|n| format!("ZSCORE z# member{}", n % 100))),
        ("ZRANK of 100", false, each_key(|n| format!("ZRANK z# member{}", n % 100))),
        ("ZADD, a member of the 100", true, each_key(|n| format!("ZADD z# {} member{}", n % 77, n % 100))),
        ("ZPOPMIN from 100", true, each_key(|_| "ZPOPMIN z#".into())),
        ("COPY of a hash of 11", true, each_key(|_| "COPY h# copy#".into())),
        ("DEL of it", true, each_key(|_| "DEL copy#".into())),
    ]
}

/// What one more element costs collections at each of these sizes, if they grow by one a command.
fn growing(server: &mut Server, name: &str, line: &dyn Fn(usize) -> String, marks: &[usize]) -> Vec<String> {
    let one_more = |n: usize| (0..GROWING).map(move |key| words(&line(n).replace('#', &format!("{name}{key}"))));
    let mut costs = Vec::new();
    let mut size = 0;
    for mark in marks {
        let until = mark - 8;
        server.run(&(size..until).flat_map(one_more).collect::<Vec<_>>(), true);
        costs.push(format!("{:>7.2}", server.run(&(until..*mark).flat_map(one_more).collect::<Vec<_>>(), true)));
        size = *mark;
    }
    costs
}

/// Commands of each kind on a long list.
const ON_A_LIST: usize = 10_000;

/// What commands on one long list cost, one and 16 in a transaction, before a checkpoint and after one.
fn long_lists(server: &mut Server) {
    let columns = ["1", "16", "1, cold", "16, cold"].map(|column| format!("{column:>8}")).concat();
    println!("{:<36} {columns}  commands a transaction, after a checkpoint", "long lists");
    for (count, len) in [(100_000, 3), (1_000_000, 3), (100_000, 100), (1_000_000, 100)] {
        let element = "v".repeat(len);
        let key = format!("long{count}x{len}");
        let many = list(1000, |_| element.clone());
        server.run(&vec![words(&format!("RPUSH {key} {many}")); count / 1000], true);
        let middle = count / 2;
        let cases = [
            ("LPUSH", true, format!("LPUSH {key} {element}")),
            ("RPUSH", true, format!("RPUSH {key} {element}")),
            ("LPOP", true, format!("LPOP {key}")),
            ("RPOP", true, format!("RPOP {key}")),
            ("RPOPLPUSH to itself", true, format!("RPOPLPUSH {key} {key}")),
            ("LSET in the middle", true, format!("LSET {key} {middle} {element}")),
            ("LINDEX in the middle", false, format!("LINDEX {key} {middle}")),
            ("LRANGE of the first 100", false, format!("LRANGE {key} 0 99")),
            ("LRANGE of the first 600", false, format!("LRANGE {key} 0 599")),
            ("LRANGE of 100 in the middle", false, format!("LRANGE {key} {middle} {}", middle + 99)),
        ];
        let mut costs = vec![String::new(); cases.len()];
        for cold in [false, true] {
            for burst in [1, 16] {
                if cold {
                    server.store.checkpoint().unwrap_or_else(|error| panic!("{error}"));
                }
                for ((_, writes, line), costs) in cases.iter().zip(&mut costs) {
                    let times = if *writes { ON_A_LIST } else { ON_A_LIST / 10 };
                    let cost = server.run_bursts(&vec![words(line); times], *writes, burst);
                    costs.push_str(&format!("{cost:>8.2}"));
                }
            }
        }
        for ((name, ..), costs) in cases.iter().zip(costs) {
            println!("{:<36} {costs}", format!("{name}, {count} of {len}"));
        }
        server.run(&[words(&format!("DEL {key}"))], true);
    }
}

/// Sorted sets of these sizes are measured, and commands of each kind on them.
const SETS: [usize; 2] = [100_000, 1_000_000];
const COMMANDS: usize = 20_000;

/// A number that jumps about below `below`, another one for each `n`.
fn jump(n: usize, below: usize) -> usize {
    (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) as usize % below
}

/// Commands on a large sorted set: as many members as its size are there, and some come and go.
fn large_set(server: &mut Server, size: usize) -> Vec<(&'static str, f64)> {
    let lines = |line: &dyn Fn(usize) -> String| (0..COMMANDS).map(|n| words(&line(n))).collect::<Vec<_>>();
    let member = |n: usize| format!("element:{n:012}");
    let add = |n: usize| format!("ZADD z {} {}", jump(n, size), member(n));
    for from in (0..size).step_by(COMMANDS) {
        let all: Vec<Line> = (from..size.min(from + COMMANDS)).map(|n| words(&add(n))).collect();
        server.run(&all, true);
    }
    let mut costs = Vec::new();
    let mut run = |name, writes, line: &dyn Fn(usize) -> String| costs.push((name, server.run(&lines(line), writes)));
    run("ZADD of a new member", true, &|n| add(size + n));
    run("ZADD of a known one", true, &|n| format!("ZADD z {} {}", jump(n + 7, size), member(jump(n, size))));
    run("ZINCRBY 1 of a known one", true, &|n| format!("ZINCRBY z 1 {}", member(jump(n, size))));
    run("ZSCORE", false, &|n| format!("ZSCORE z {}", member(jump(n, size))));
    run("ZRANK", false, &|n| format!("ZRANK z {}", member(jump(n, size))));
    run("ZCOUNT", false, &|n| format!("ZCOUNT z {} {}", jump(n, size / 2), size / 2 + jump(n, size / 2)));
    run("ZRANGE of 100, deep", false, &|n| format!("ZRANGE z {0} {1}", jump(n, size), jump(n, size) + 99));
    run("ZREM", true, &|n| format!("ZREM z {}", member(size + n)));
    run("ZPOPMIN", true, &|_| "ZPOPMIN z".into());
    run("ZPOPMAX", true, &|_| "ZPOPMAX z".into());
    server.run(&[words("DEL z")], true);
    costs
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "/tmp/ardb-collections".into());
    let _ = std::fs::remove_dir_all(&dir);
    let mut servers = [false, true].map(|packed| Server::new(&Path::new(&dir).join(packed.to_string()), packed));
    if std::env::args().nth(2).is_some_and(|only| only == "lists") {
        long_lists(&mut servers[1]);
        return;
    }
    println!("{:<36} {:>7} {:>7} us a command", "", "rows", "packed");
    for (name, writes, lines) in measured() {
        let rounds = if writes { 1 } else { 5 };
        let best = servers
            .each_mut()
            .map(|server| (0..rounds).map(|_| server.run(&lines, writes)).fold(f64::INFINITY, f64::min));
        println!("{name:<36} {:>7.2} {:>7.2}", best[0], best[1]);
    }
    let marks = [16, 32, 64, 128, 256, 512];
    let long = "v".repeat(55);
    println!("{:<36} {}", "one more, at a size of", marks.map(|mark| format!("{mark:>7}")).join(" "));
    let kinds: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("HSET, short", &|n| format!("HSET # f{n} {n}")),
        ("HSET, 60 bytes", &|n| format!("HSET # f{n} {long}")),
        ("SADD, integers", &|n| format!("SADD # {}", 1_000_000 + n)),
        ("LPUSH, short", &|n| format!("LPUSH # {n}")),
        ("LPUSH, 60 bytes", &|n| format!("LPUSH # {long}{n}")),
        ("ZADD, short", &|n| format!("ZADD # {} m{n}", n * 31 % 101)),
        ("ZADD, 60 bytes", &|n| format!("ZADD # {} {long}{n}", n * 31 % 101)),
    ];
    for (name, line) in kinds {
        for (form, server) in ["rows", "packed"].iter().zip(&mut servers) {
            let costs = growing(server, &name.replace([' ', ','], ""), line, &marks);
            println!("{:<36} {}", format!("{name}, {form}"), costs.join(" "));
        }
    }
    long_lists(&mut servers[1]);
    let [_, server] = &mut servers;
    let costs = SETS.map(|size| large_set(server, size));
    println!("{:<36} {}", "a sorted set of", SETS.map(|size| format!("{size:>9}")).join(" "));
    for (i, (name, _)) in costs[0].iter().enumerate() {
        println!("{name:<36} {:>9.2} {:>9.2}", costs[0][i].1, costs[1][i].1);
    }
    let _ = std::fs::remove_dir_all(&dir);
}
