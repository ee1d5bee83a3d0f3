//! Mixed writes from a seed: all five types, three databases, expiries, MULTI/EXEC, scripts, SPOP.
//!
//! The same seed and flavor give the same commands, whatever the server answers. Commands for a wrong type are among
//! them: a write that fails must not reach the replicas either. [`Load`] sends them from a thread of its own at a given
//! rate, and goes on over a lost connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ardb_base::random::Random;

use crate::client::{Client, Command};
use crate::{Result, error};

/// Which commands the server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Those of Redis 2.8, relative expiries aside: before 7.0 a master passes them on as they are, and its replicas'
    /// clocks start later than its own.
    Old,
    /// Those of Redis 7.0 too.
    New,
}

/// The databases that are written to.
pub const DATABASES: u64 = 3;

/// Makes commands without end.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    flavor: Flavor,
    keys: u64,
    db: u64,
}

/// One command of parts that print.
macro_rules! command {
    ($($part:expr),+ $(,)?) => { vec![$($part.to_string().into_bytes()),+] };
}

/// A script that writes to two keys and fails half way when the second is no list: what is replicated must be what it
/// did. Redis 2.8 replicates the script itself, so there is no relative expiry in it.
const SCRIPT: &str = "local n = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) \
    redis.call('RPUSH', KEYS[2], n) \
    if n % 3 == 0 then redis.call('LTRIM', KEYS[2], -20, -1) end \
    return n";

/// The same with a relative expiry, for servers that replicate what a script did.
const SCRIPT_EXPIRING: &str = "local n = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) \
    redis.call('RPUSH', KEYS[2], n) \
    redis.call('PEXPIRE', KEYS[3], 500 + n % 7 * 10000) \
    return n";

impl Generator {
    /// A generator over about `keys` keys of each type in each database.
    #[must_use]
    pub fn new(seed: u64, flavor: Flavor, keys: u64) -> Generator {
        Generator { random: Random::new(seed), flavor, keys: keys.max(1), db: 0 }
    }

    fn key(&mut self, kind: &str) -> String {
        // Once in a while a key of another type.
        let kind = if self.random.one_in(200) { "str" } else { kind };
        format!("{kind}:{}", self.random.below(self.keys))
    }

    fn value(&mut self) -> String {
        let length = match self.random.below(20) {
            // Redis 2.8 takes an empty string for the number 0, and later ones do not.
            0 if self.flavor == Flavor::New => 0,
            1 => 300,
            2 if self.random.one_in(20) => 20_000,
            _ => 1 + self.random.below(40) as usize,
        };
        let number = self.random.next_u64();
        format!("{number:x}").chars().cycle().take(length).collect()
    }

    fn member(&mut self) -> String {
        format!("m{}", self.random.below(60))
    }

    fn number(&mut self) -> i64 {
        self.random.below(2001) as i64 - 1000
    }

    /// The next commands that belong together: one, or a whole MULTI block, with a SELECT before them at times.
    pub fn next_block(&mut self) -> Vec<Command> {
        let mut block = Vec::new();
        if self.random.one_in(50) {
            self.db = self.random.below(DATABASES);
            block.push(self.select());
        }
        if self.random.one_in(25) {
            block.push(command!["MULTI"]);
            for _ in 0..=self.random.below(6) {
                let command = self.one();
                block.push(command);
            }
            block.push(command!["EXEC"]);
        } else {
            let command = self.one();
            block.push(command);
        }
        block
    }

    /// The command that selects the database in which this generator is.
    #[must_use]
    pub fn select(&self) -> Command {
        command!["SELECT", self.db]
    }

    fn one(&mut self) -> Command {
        match self.random.below(100) {
            0..25 => self.string(),
            25..42 => self.list(),
            42..58 => self.set(),
            58..74 => self.hash(),
            74..90 => self.zset(),
            90..97 => self.generic(),
            _ => {
                let (hash, list, any) = (self.key("hash"), self.key("list"), self.key("str"));
                let script = if self.flavor == Flavor::New { SCRIPT_EXPIRING } else { SCRIPT };
                command!["EVAL", script, 3, hash, list, any, self.member(), self.number()]
            }
        }
    }

    fn string(&mut self) -> Command {
        let key = self.key("str");
        let counter = format!("num:{}", self.random.below(self.keys));
        let new = self.flavor == Flavor::New;
        match self.random.below(18) {
            0..4 => command!["SET", key, self.value()],
            4 if new => command!["SETEX", key, 1 + self.random.below(100), self.value()],
            5 if new => command!["PSETEX", key, 1 + self.random.below(3000), self.value()],
            6 => command!["APPEND", key, self.member()],
            7 => command!["SETRANGE", key, self.random.below(100), self.member()],
            8 => command!["SETBIT", key, self.random.below(2000), self.random.below(2)],
            9 => command!["INCR", counter],
            10 => command!["INCRBY", counter, self.number()],
            11 => command!["DECRBY", counter, self.number()],
            12 => command!["INCRBYFLOAT", counter, format!("{}.25", self.number())],
            13 => command!["MSET", key, self.value(), self.key("str"), self.value()],
            14 => command!["GETSET", key, self.value()],
            15 => command!["BITOP", "XOR", key, self.key("str"), self.key("str")],
            16 if new => command!["SET", key, self.value(), "KEEPTTL", "GET"],
            17 if new => command!["GETEX", key, "PX", 1 + self.random.below(5000)],
            _ => command!["SETNX", key, self.value()],
        }
    }

    fn list(&mut self) -> Command {
        let key = self.key("list");
        match self.random.below(14) {
            0..3 => command!["RPUSH", key, self.value(), self.member()],
            3..5 => command!["LPUSH", key, self.value(), self.member(), self.member()],
            5 => command!["LPUSHX", key, self.value()],
            6 => command!["LPOP", key],
            7 => command!["RPOP", key],
            8 => command!["LTRIM", key, self.random.below(3), 60],
            9 => command!["LSET", key, self.number() % 10, self.value()],
            10 => command!["LINSERT", key, "BEFORE", self.member(), self.value()],
            11 => command!["LREM", key, self.number() % 3, self.member()],
            12 if self.flavor == Flavor::New => command!["LMOVE", key, self.key("list"), "LEFT", "RIGHT"],
            _ => command!["RPOPLPUSH", key, self.key("list")],
        }
    }

    fn set(&mut self) -> Command {
        let key = self.key("set");
        match self.random.below(12) {
            0..4 => command!["SADD", key, self.member(), self.member(), self.member()],
            4 => command!["SADD", key, self.number()],
            5 => command!["SREM", key, self.member(), self.member()],
            6 => command!["SPOP", key],
            7 if self.flavor == Flavor::New => command!["SPOP", key, self.random.below(4)],
            8 => command!["SMOVE", key, self.key("set"), self.member()],
            9 => command!["SUNIONSTORE", key, self.key("set"), self.key("set")],
            10 => command!["SDIFFSTORE", key, self.key("set"), self.key("set")],
            11 => command!["SINTERSTORE", key, self.key("set"), self.key("set")],
            _ => command!["SADD", key, self.value()],
        }
    }

    fn hash(&mut self) -> Command {
        let key = self.key("hash");
        match self.random.below(9) {
            0..3 => command!["HSET", key, self.member(), self.value()],
            3 => command!["HMSET", key, self.member(), self.value(), self.member(), self.value()],
            4 => command!["HDEL", key, self.member(), self.member()],
            5 => command!["HINCRBY", key, self.member(), self.number()],
            6 => command!["HINCRBYFLOAT", key, self.member(), format!("{}.5", self.number())],
            7 => command!["HSETNX", key, self.member(), self.value()],
            _ => command!["HSET", key, self.member(), self.number()],
        }
    }

    fn zset(&mut self) -> Command {
        let key = self.key("zset");
        match self.random.below(13) {
            0..4 => {
                command!["ZADD", key, self.number(), self.member(), format!("{}.125", self.number()), self.member()]
            }
            4 => command!["ZADD", key, "inf", self.member()],
            5 => command!["ZREM", key, self.member(), self.member()],
            6 => command!["ZINCRBY", key, format!("{}.1", self.number()), self.member()],
            7 => command!["ZREMRANGEBYRANK", key, 0, self.random.below(3)],
            8 => command!["ZREMRANGEBYSCORE", key, format!("({}", self.number()), "-900"],
            9 => command!["ZUNIONSTORE", key, 2, self.key("zset"), self.key("zset"), "WEIGHTS", 1, "0.5"],
            10 => command!["ZINTERSTORE", key, 2, self.key("zset"), self.key("zset"), "AGGREGATE", "MAX"],
            11 if self.flavor == Flavor::New => command!["ZADD", key, "GT", "CH", self.number(), self.member()],
            12 if self.flavor == Flavor::New => command!["ZPOPMIN", key, 2],
            _ => command!["ZADD", key, self.number(), self.member()],
        }
    }

    fn generic(&mut self) -> Command {
        let kind = ["str", "list", "set", "hash", "zset"][self.random.below(5) as usize];
        let key = self.key(kind);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let new = self.flavor == Flavor::New;
        match self.random.below(12) {
            0..2 if new => command!["EXPIRE", key, 1 + self.random.below(1000)],
            2..4 if new => command!["PEXPIRE", key, 1 + self.random.below(4000)],
            0..2 | 4 => command!["EXPIREAT", key, clock.as_secs() + self.random.below(500)],
            2..4 | 5 => command!["PEXPIREAT", key, clock.as_millis() as u64 + 1 + self.random.below(100_000)],
            // Before 7.0 it revives a key that has expired and is not in the dump that a replica got.
            6 if new => command!["PERSIST", key],
            7 => command!["RENAME", key, self.key(kind)],
            // Redis 2.8 drops the expiry of a key that it moves, and later ones do not.
            8 if new => command!["MOVE", key, self.random.below(DATABASES)],
            9 => command!["SORT", key, "ALPHA", "STORE", self.key("list")],
            10 if new => command!["COPY", key, self.key(kind), "REPLACE"],
            11 if new => command!["UNLINK", key],
            _ => command!["DEL", key],
        }
    }
}

/// Fills a server with `count` keys of all five types in three databases, one in five with an expiry of minutes.
///
/// # Errors
/// If the connection fails or a write is refused.
pub fn populate(client: &mut Client, seed: u64, count: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut batch: Vec<Command> = Vec::new();
    for index in 0..count {
        if index % (count / DATABASES + 1) == 0 {
            batch.push(command!["SELECT", index / (count / DATABASES + 1)]);
        }
        let length = random.below(60) as usize + 1;
        let value = format!("{:016x}", random.next_u64()).repeat(4)[..length].to_string();
        let (kind, command) = match index % 5 {
            0 => ("str", command!["SET", format!("str:p{index}"), value]),
            1 => ("list", command!["RPUSH", format!("list:p{index}"), value, "b", index]),
            2 => ("set", command!["SADD", format!("set:p{index}"), index, value, random.below(1000)]),
            3 => ("hash", command!["HMSET", format!("hash:p{index}"), "field", value, index, random.below(1000)]),
            _ => ("zset", command!["ZADD", format!("zset:p{index}"), random.below(1000), value, "0.5", index]),
        };
        batch.push(command);
        if random.one_in(5) {
            batch.push(command!["EXPIRE", format!("{kind}:p{index}"), 300 + random.below(3000)]);
        }
        if batch.len() >= 500 || index + 1 == count {
            for (reply, command) in client.pipeline(&batch)?.into_iter().zip(&batch) {
                if reply.is_error() {
                    return Err(error(format!("{}: {reply}", String::from_utf8_lossy(&command.join(&b' ')))));
                }
            }
            batch.clear();
        }
    }
    client.must("SELECT 0").map(|_| ())
}

/// What a load has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Commands that drew a reply.
    pub commands: u64,
    /// Replies that were errors (wrong types are among the commands on purpose).
    pub errors: u64,
    /// Connections that were lost.
    pub lost: u64,
}

/// Writes that go on in a thread until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    commands: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Done>>>,
}

impl Load {
    /// Starts writing to a loopback port, about `rate` commands a second.
    #[must_use]
    pub fn start(port: u16, generator: Generator, rate: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let commands = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, commands) = (Arc::clone(&stop), Arc::clone(&commands));
            move || run(port, generator, rate, &stop, &commands)
        });
        Load { stop, commands, thread: Some(thread) }
    }

    /// How many commands have drawn a reply so far.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Waits until `count` more commands have drawn a reply.
    ///
    /// # Errors
    /// If they have not after 20 seconds.
    pub fn wait_more(&self, count: u64) -> Result<()> {
        let target = self.commands() + count;
        crate::wait::wait_until("the load goes on", Duration::from_secs(20), || Ok(self.commands() >= target))
    }

    /// Ends it and says what was done.
    ///
    /// # Errors
    /// If a reply could not be understood.
    pub fn stop(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| error("stopped before"))?;
        thread.join().map_err(|_| error("the load's thread panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(port: u16, mut generator: Generator, rate: u64, stop: &AtomicBool, count: &AtomicU64) -> Result<Done> {
    let mut done = Done::default();
    let mut connection: Option<Client> = None;
    let start = Instant::now();
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        if sent >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let client = match &mut connection {
            Some(client) => client,
            None => match Client::connect(port) {
                Ok(mut client) => {
                    client.queue(&generator.select());
                    connection.insert(client)
                }
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            },
        };
        let until = (due - sent).min(200);
        let mut queued = 0;
        while queued < until {
            for command in generator.next_block() {
                client.queue(&command);
                queued += 1;
            }
        }
        sent += queued;
        while client.pending() > 0 {
            match client.receive() {
                Ok(reply) => {
                    done.commands += 1;
                    done.errors += u64::from(reply.is_error());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    done.lost += 1;
                    connection = None;
                    break;
                }
            }
        }
    }
    Ok(done)
}
