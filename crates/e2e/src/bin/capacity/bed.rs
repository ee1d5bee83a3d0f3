//! What every section works with: the options, the folders, the servers.
//!
//! Invariant: a server's folder goes with its [`Guest`].

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ardb_e2e::drive::{Outcome, Plan, Work, drive};
use ardb_e2e::lag::median;
use ardb_e2e::options::Options;
use ardb_e2e::server::{Kind, Server, Setup};
use ardb_e2e::usage::{self, Usage};
use ardb_e2e::wait::wait_until;
use ardb_e2e::{Result, error};

/// The options, and where things are.
pub struct Bed {
    pub options: Options,
    out: PathBuf,
    work: PathBuf,
    /// Figures that are not what they must be.
    faults: Cell<usize>,
}

/// A server with a folder that goes with it.
pub struct Guest {
    server: Server,
    dir: PathBuf,
}

impl Deref for Guest {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.server.kill9();
        if std::env::var_os("ARDB_E2E_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

impl Guest {
    /// Its process.
    pub fn process(&self) -> Result<u32> {
        self.pid().ok_or_else(|| error(format!("{} is gone", self.name())))
    }

    /// Bytes of its data on the disk: without the log, and the log's.
    pub fn space(&self) -> Result<(u64, u64)> {
        if self.kind() != Kind::Ardb {
            return Ok((usage::tree_on_disk(&self.dir)?, 0));
        }
        let data = self.dir.join("data");
        let log = usage::tree_on_disk(&data.join("log"))?;
        Ok((usage::tree_on_disk(&data)? - log, log))
    }

    /// Runs a load, and says what processor time the server took for each request, in microseconds.
    pub fn drive<W: Work>(&self, plan: &Plan, work: Vec<W>) -> Result<(Run, Vec<W>)> {
        let pid = self.process()?;
        let before = Usage::of(pid)?;
        let (outcome, work) = drive(plan, work)?;
        let count = outcome.count().max(1) as f64;
        // One that was killed meanwhile took nobody knows how much.
        let cpu = Usage::of(pid).map_or(0.0, |after| after.cpu_since(&before).as_secs_f64() * 1e6 / count);
        let own = outcome.own_cpu.as_secs_f64() * 1e6 / count;
        Ok((Run { outcome, cpu, own }, work))
    }

    /// Has what is in memory written to the engine, and waits until that and the compaction after it are done. Says how long it took and whether it is.
    pub fn settle(&self, bed: &Bed) -> Result<(Duration, bool)> {
        let (start, limit) = (Instant::now(), bed.seconds("settle"));
        let mut client = self.client()?;
        if self.kind() != Kind::Ardb {
            return Ok((start.elapsed(), true));
        }
        let before = client.info_number("storage", "checkpoints")?;
        client.must("BGREWRITEAOF")?;
        let written = wait_until("a checkpoint", limit, || {
            let info = client.info("storage")?;
            let number = |name: &str| info.get(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
            Ok(number("checkpoints") > before || number("changed_rows") == 0)
        });
        let mut since = Instant::now();
        while written.is_ok() && since.elapsed() < Duration::from_secs(3) && start.elapsed() < limit {
            let info = client.info("storage")?;
            let idle = |name: &str| info.get(name).is_none_or(|text| text == "0");
            if !idle("engine_pending_compaction_bytes") || !idle("engine_rocksdb_running_compactions") {
                since = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok((start.elapsed(), written.is_ok() && start.elapsed() < limit))
    }
}

/// A run of a load.
pub struct Run {
    pub outcome: Outcome,
    /// Microseconds of the server's processor time for each request.
    pub cpu: f64,
    /// The same of this program.
    pub own: f64,
}

impl Bed {
    pub fn new(options: &Options) -> Result<Bed> {
        let work = match options.text("work") {
            "" => std::env::temp_dir(),
            given => PathBuf::from(given),
        };
        let work = std::path::absolute(work.join(format!("ardb-capacity-{}", std::process::id())))?;
        let out = PathBuf::from(options.text("out"));
        std::fs::create_dir_all(&out)?;
        Ok(Bed { options: options.clone(), out, work, faults: Cell::new(0) })
    }

    pub fn number(&self, name: &str) -> u64 {
        self.options.number(name)
    }

    /// A number with decimals.
    pub fn decimal(&self, name: &str) -> f64 {
        self.options.text(name).parse().unwrap_or_else(|_| self.number(name) as f64)
    }

    pub fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.number(name))
    }

    /// The parts of an option with commas in it.
    pub fn list<T: FromStr>(&self, name: &str) -> Result<Vec<T>> {
        let parts = self.options.text(name).split(',').filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(|_| error(format!("--{name}: {part} is no number")))).collect()
    }

    /// The servers that an option names.
    pub fn peers(&self, name: &str) -> Result<Vec<(String, Kind)>> {
        let kind = |peer: &str| match peer {
            "ardb" => Ok(Kind::Ardb),
            "redis-7.0" => Ok(Kind::Redis("7.0")),
            "redis-8" => Ok(Kind::Redis("8")),
            "valkey-9.1" => Ok(Kind::Valkey("9.1")),
            other => Err(error(format!("--{name}: {other} is none of ardb, redis-7.0, redis-8, valkey-9.1"))),
        };
        self.options.text(name).split(',').map(|peer| Ok((peer.to_string(), kind(peer)?))).collect()
    }

    /// Notes that a figure is not what it must be, and says so for the page.
    pub fn fault(&self, what: &str) -> String {
        self.faults.set(self.faults.get() + 1);
        format!("**FAILED**: {what}\n")
    }

    /// Faults since this was asked last.
    pub fn take_faults(&self) -> usize {
        self.faults.replace(0)
    }

    /// Starts a server in a folder of its own. What syncs, syncs every second.
    pub fn start(&self, kind: Kind) -> Result<Guest> {
        self.start_with(kind, &[])
    }

    /// The same with more directives.
    pub fn start_with(&self, kind: Kind, directives: &[(&str, &str)]) -> Result<Guest> {
        thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });
        let count = COUNT.replace(COUNT.get() + 1);
        let dir = self.work.join(count.to_string());
        std::fs::create_dir_all(&dir)?;
        let mut setup = Setup::new(kind).in_dir(&dir).with("appendfsync", "everysec").with("maxclients", 10_000);
        if kind == Kind::Ardb {
            setup = setup.with("memory-limit", self.options.text("memory"));
            for pair in self.options.text("ardb").split(',').filter(|pair| !pair.is_empty()) {
                let (name, value) =
                    pair.split_once('=').ok_or_else(|| error(format!("--ardb: {pair} is not name=value")))?;
                setup = setup.with(name, value);
            }
        } else {
            setup = setup.with("appendonly", "yes");
        }
        for (name, value) in directives {
            setup = setup.with(name, value);
        }
        Ok(Guest { server: setup.start()?, dir })
    }

    /// Writes a page.
    pub fn page(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.out.join(format!("{name}.md")), text)
    }

    /// A page that was written, in this run or an earlier one.
    pub fn read_page(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.out.join(format!("{name}.md"))).ok()
    }

    /// Writes a plot, and gives what shows it on the page.
    pub fn plot(&self, name: &str, title: &str, svg: &str) -> Result<String> {
        std::fs::write(self.out.join(format!("{name}.svg")), svg)?;
        Ok(format!("![{title}]({name}.svg)\n"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.work);
    }
}

/// Prints a line of progress.
pub fn say(text: impl AsRef<str>) {
    println!("  {}", text.as_ref());
}

/// Gigabytes of so many bytes, for people.
pub fn gb(bytes: u64) -> String {
    let mb = usage::megabytes(bytes);
    if mb >= 10_240.0 { format!("{:.1} GB", mb / 1024.0) } else { format!("{mb:.0} MB") }
}

/// A number with commas.
pub fn commas(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Medians over the rounds of one measurement: requests a second, server's processor time, percentiles in milliseconds.
pub struct Medians {
    pub rate: f64,
    pub cpu: f64,
    pub latency: [f64; 3],
}

impl Medians {
    pub fn of(runs: &[Run]) -> Medians {
        let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value));
        let percentile = |percent: f64| of(&|run| run.outcome.all().percentile(percent).as_secs_f64() * 1e3);
        Medians {
            rate: of(&|run| run.outcome.rate()),
            cpu: of(&|run| run.cpu),
            latency: [percentile(50.0), percentile(99.0), percentile(99.9)],
        }
    }

    /// Three cells of a table.
    pub fn cells(&self) -> String {
        let latency = self.latency.map(|ms| format!("{ms:.2}"));
        format!(" {} | {} | {:.2} |", commas(self.rate), latency.join(" / "), self.cpu)
    }
}
