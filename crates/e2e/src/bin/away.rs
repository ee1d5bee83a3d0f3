//! A replica that is away for ten minutes while its master takes writes at the highest rate, and then goes on where it was.
//!
//! The link goes through a proxy, which cuts it and refuses it meanwhile; or the replica is stopped, or killed. Measures what is written
//! meanwhile, what memory and disk the master takes for it, how long the replica needs until it goes on, and until it has caught up while the
//! writes flow. Fails if the master had to send everything again, if the two differ in the end, or if the master's own memory grew.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_e2e::benchmark::{Benchmark, ENDLESS, Plan};
use ardb_e2e::client::Client;
use ardb_e2e::options::Options;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Kind, Server, Setup, stands_in};
use ardb_e2e::usage::{Memory, megabytes, on_disk};
use ardb_e2e::wait::{syncs, wait_equal, wait_linked, wait_until};
use ardb_e2e::{Result, error};

/// For a link, and for the comparison at the end.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two readings of the master's memory.
const READING: Duration = Duration::from_millis(200);
/// Between two looks at a replica that comes back.
const LOOK: Duration = Duration::from_millis(10);
/// What the master writes in this time is no lag: a replica that takes part has as much on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// The part of the backlog, in percent, that may be used up while the replica is away: the log goes by whole segments, and the writes do not
/// stop when it comes back.
const BACKLOG_USE: u64 = 90;

/// How the replica goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Proxy,
    Stop,
    Kill,
}

/// The master's memory and disk over some time.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    memory: Memory,
    log: u64,
}

struct Away {
    how: How,
    master: Server,
    replica: Server,
    proxy: Proxy,
    /// To each of them. That to the replica is made anew when it was killed.
    above: Client,
    below: Client,
    load: Option<Benchmark>,
}

fn main() -> ExitCode {
    let options = Options::read(
        "A replica that is away while its master takes writes at the highest rate.",
        &[
            ("seconds", "600", "how long it is away"),
            ("replicas", "ardb", "ardb, 7.0, 2.8, or several with commas between, one after the other"),
            (
                "how",
                "proxy",
                "the link is cut and refused (proxy), the replica is stopped (stop), or killed (kill, ardb only)",
            ),
            ("backlog", "32gb", "the master's repl-backlog-size"),
            ("memory", "1gb", "Ardb's memory-limit"),
            ("growth", "256", "MB by which the master's own memory may grow over what it was before"),
            ("warm", "30", "seconds of writes before it goes away"),
            (
                "chase",
                "600",
                "seconds for it to catch up while the writes flow; then they end, and it has as long again",
            ),
            ("keys", "1000000", "keys"),
            ("bytes", "100", "of a value"),
        ],
    );
    let mut good = true;
    for replica in options.text("replicas").split(',') {
        match run(replica, &options) {
            Ok(()) => println!("{replica}: passed\n"),
            Err(failure) => {
                println!("{replica}: FAILED: {failure}\n");
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn choose(replica: &str, options: &Options) -> Result<(Kind, How)> {
    let kind = match replica {
        "ardb" => Kind::Ardb,
        "7.0" => Kind::Redis("7.0"),
        "2.8" => Kind::Redis("2.8"),
        other => return Err(error(format!("--replicas: no {other}"))),
    };
    match (options.text("how"), kind) {
        ("proxy", _) => Ok((kind, How::Proxy)),
        ("stop", _) => Ok((kind, How::Stop)),
        ("kill", Kind::Ardb) => Ok((kind, How::Kill)),
        // It would have forgotten where it was.
        ("kill", _) => Err(error("--how kill: a killed Redis asks for everything")),
        (other, _) => Err(error(format!("--how: no {other}"))),
    }
}

impl Away {
    /// A master with data, and a replica that has caught up.
    fn start(kind: Kind, how: How, options: &Options) -> Result<Away> {
        let memory = |setup: Setup| setup.with_own("memory-limit", options.text("memory"));
        let master = memory(Setup::ardb()).with("appendfsync", "everysec");
        let master = master.with("repl-backlog-size", options.text("backlog")).start()?;
        // Twice as many requests as keys: six of seven keys are there, and new ones come ever more slowly.
        let fill = Plan { requests: 2 * options.number("keys"), ..plan(options) };
        Benchmark::start(master.port, &fill)?.wait()?;
        let replica = match kind {
            Kind::Ardb => memory(Setup::ardb()),
            Kind::Redis(_) | Kind::Valkey(_) => Setup::new(kind).with("appendonly", "yes"),
        };
        let replica = replica.with("appendfsync", "everysec").start()?;
        let proxy = Proxy::start(master.port, 1)?;
        let (above, mut below) = (master.client()?, replica.client()?);
        below.must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port))?;
        wait_linked(&replica, LIMIT)?;
        let mut away = Away { how, master, replica, proxy, above, below, load: None };
        wait_until("the replica has caught up", LIMIT, || Ok(away.behind()?.1 == 0))?;
        Ok(away)
    }

    /// The master's offset, and how many bytes the replica lacks.
    fn behind(&mut self) -> Result<(u64, u64)> {
        let have = self.below.info_number("replication", "slave_repl_offset")?;
        let written = self.above.info_number("replication", "master_repl_offset")?;
        Ok((written as u64, (written - have).max(0) as u64))
    }

    fn held(&self) -> Result<Held> {
        let pid = self.master.pid().ok_or_else(|| error("the master is gone"))?;
        // A Redis that stands in has no such folder.
        let log = if stands_in() { 0 } else { on_disk(&self.master.dir.join("data/log"))? };
        Ok(Held { memory: Memory::of(pid)?, log })
    }

    /// Lets time pass while writes flow, until `end`, asked once in `every`, says that it is enough; gives the most that the master held.
    fn pass(
        &mut self,
        limit: Duration,
        every: Duration,
        mut end: impl FnMut(&mut Away) -> Result<bool>,
    ) -> Result<Held> {
        let (start, mut most, mut read) = (Instant::now(), Held::default(), None);
        while start.elapsed() < limit {
            if read.is_none_or(|read: Instant| read.elapsed() >= READING) {
                if !self.load.as_mut().map_or(Ok(true), Benchmark::runs)? {
                    return Err(error("the writes have ended of their own"));
                }
                let held = self.held()?;
                most = Held { memory: most.memory.most(held.memory), log: most.log.max(held.log) };
                read = Some(Instant::now());
            }
            if end(self)? {
                break;
            }
            std::thread::sleep(every.min(limit.saturating_sub(start.elapsed())));
        }
        Ok(most)
    }

    fn go(&mut self) -> Result<()> {
        match self.how {
            How::Proxy => {
                self.proxy.refusing(true);
                self.proxy.cut();
            }
            How::Stop => self.replica.signal("STOP")?,
            How::Kill => self.replica.kill9()?,
        }
        Ok(())
    }

    fn come_back(&mut self) -> Result<()> {
        match self.how {
            How::Proxy => self.proxy.refusing(false),
            How::Stop => self.replica.signal("CONT")?,
            How::Kill => {
                self.replica.restart()?;
                self.below = self.replica.client()?;
            }
        }
        Ok(())
    }

    fn replicas(&mut self) -> Result<i64> {
        self.above.info_number("replication", "connected_slaves")
    }
}

fn plan(options: &Options) -> Plan<'static> {
    Plan {
        test: "set",
        requests: ENDLESS,
        keys: options.number("keys"),
        bytes: options.number("bytes"),
        clients: 50,
        pipeline: 16,
    }
}

/// A line of the report.
fn line(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<46} {value}");
}

fn held(what: &str, held: &Held) {
    let memory = held.memory;
    let [resident, own, file] = [memory.resident, memory.anonymous, memory.file].map(megabytes);
    line(what, format!("{resident:.0} MB = {own:.0} own + {file:.0} of files; log {:.0} MB", megabytes(held.log)));
}

fn run(replica: &str, options: &Options) -> Result<()> {
    let (kind, how) = choose(replica, options)?;
    let mut away = Away::start(kind, how, options)?;
    println!("{} with the replica {}, {how:?}", away.master.name(), away.replica.name());
    let backlog = away.above.must("CONFIG GET repl-backlog-size")?;
    let backlog = backlog.items().and_then(|items| items.get(1)?.int()).unwrap_or(0) as u64;

    // Its memory sways with checkpoints: what counts is the most of some time, before and then.
    away.load = Some(Benchmark::start(away.master.port, &plan(options))?);
    let warm = Duration::from_secs(options.number("warm"));
    let (first, started) = (away.behind()?.0, Instant::now());
    let before = away.pass(warm, READING, |_| Ok(false))?;
    let (from, behind) = away.behind()?;
    line("MB/s of stream with the replica", rate(from - first, started.elapsed()));
    line("MB that it was behind", format!("{:.1}", megabytes(behind)));
    held("master before (most)", &before);

    away.go()?;
    let gone = Instant::now();
    // The stop of a replica is seen when it has taken nothing for long.
    if how != How::Stop {
        wait_until("the master has seen that it is gone", LIMIT, || {
            // What the proxy had let through just before it began to refuse.
            if how == How::Proxy {
                away.proxy.cut();
            }
            Ok(away.replicas()? == 0)
        })?;
    }
    let mut lost = how != How::Stop;
    let mut full = false;
    let worst = away.pass(Duration::from_secs(options.number("seconds")), READING, |away| {
        lost |= away.replicas()? == 0;
        let written = away.above.info_number("replication", "master_repl_offset")? as u64 - from;
        full = written > backlog / 100 * BACKLOG_USE;
        Ok(full)
    })?;
    let (time, until) = (gone.elapsed(), away.above.info_number("replication", "master_repl_offset")? as u64);
    line("seconds away", format!("{:.0}", time.as_secs_f64()));
    line("MB of stream written meanwhile", format!("{:.0}", megabytes(until - from)));
    line("MB/s", rate(until - from, time));
    held("master meanwhile (most)", &worst);
    if full {
        return Err(error(format!(
            "{BACKLOG_USE} % of the backlog are written: take more --backlog or fewer --seconds"
        )));
    }

    let counts = syncs(&mut away.above)?;
    let back = Instant::now();
    away.come_back()?;
    if lost {
        while syncs(&mut away.above)?.1 == counts.1 {
            if syncs(&mut away.above)?.0 != counts.0 {
                return Err(error(format!("everything was sent again:\n{}", away.master.log_tail())));
            }
            if back.elapsed() > LIMIT {
                return Err(error(format!("it does not come back:\n{}", away.replica.log_tail())));
            }
            std::thread::sleep(LOOK);
        }
        line("seconds until CONTINUE", format!("{:.2}", back.elapsed().as_secs_f64()));
    } else {
        line("its link has survived", "there was nothing to go on from");
    }
    let chased = chase(&mut away, &back, options, (until - from) as f64 / time.as_secs_f64())?;

    away.load = None;
    let (ended, left) = (Instant::now(), away.behind()?.1);
    let limit = Duration::from_secs(options.number("chase")).max(LIMIT);
    wait_until("the replica has everything", limit, || Ok(away.behind()?.1 == 0))?;
    line("MB left when the writes ended", format!("{:.1}", megabytes(left)));
    line("seconds until it had everything", format!("{:.2}", ended.elapsed().as_secs_f64()));
    held("master while it caught up (most)", &chased);
    held("master after", &away.held()?);

    let (fulls, partials) = syncs(&mut away.above)?;
    line("full and partial syncs", format!("{fulls}, {partials}"));
    let digest = wait_equal(&away.master, &away.replica, LIMIT)?;
    line("equal", digest.summary());
    if fulls != 1 || (lost && partials == 0) {
        return Err(error(format!("{fulls} full and {partials} partial syncs:\n{}", away.master.log_tail())));
    }
    let most = worst.memory.most(chased.memory).anonymous;
    let growth = most.saturating_sub(before.memory.anonymous);
    line("MB by which the master's own memory grew", format!("{:.0}", megabytes(growth)));
    if growth > options.number("growth") << 20 {
        return Err(error(format!("the master's own memory grew by more than {} MB", options.number("growth"))));
    }
    Ok(())
}

/// Waits until the replica has caught up with a master that writes on, and says how fast it was; gives the most that the master held.
fn chase(away: &mut Away, back: &Instant, options: &Options, speed: f64) -> Result<Held> {
    let near = (speed * ON_ITS_WAY.as_secs_f64()) as u64;
    let begin = Instant::now();
    let (written, behind) = away.behind()?;
    let had = written - behind;
    let mut caught_up = false;
    let held = away.pass(Duration::from_secs(options.number("chase")), LOOK, |away| {
        caught_up = away.behind()?.1 <= near;
        Ok(caught_up)
    })?;
    let (time, (written, behind)) = (begin.elapsed(), away.behind()?);
    line("MB/s that the replica took then", rate(written - behind - had, time));
    if caught_up {
        line("seconds until it had caught up under load", format!("{:.1}", back.elapsed().as_secs_f64()));
    } else {
        let (seconds, left) = (back.elapsed().as_secs_f64(), megabytes(behind));
        line("it had NOT caught up under load", format!("{left:.1} MB behind after {seconds:.0} s"));
    }
    Ok(held)
}

fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.1}", megabytes(bytes) / time.as_secs_f64().max(0.001))
}
