//! A data set many times larger than the memory limit: what memory the server takes in each phase, and how soon it answers
//! after a restart.
//!
//! Phases: load, full SCAN, random reads, an RDB full sync to a real Redis, a restart after SIGTERM, one after a kill in mid-load.
//! The server's resident memory is read every 100 ms; its peak in each phase must stay under twice the limit. Values are hard
//! to compress, so that the data are as large on disk as they are said to be.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::client::Client;
use ardb_e2e::options::Options;
use ardb_e2e::server::{Server, Setup, resident, stands_in};
use ardb_e2e::wait::{follow, offsets, wait_linked, wait_until};
use ardb_e2e::{Result, error};

const MB: u64 = 1 << 20;

fn main() -> ExitCode {
    let options = Options::read(
        "Loads much more data than the memory limit and watches the server's memory.",
        &[
            ("mb", "4096", "how much data, in megabytes of values"),
            ("limit", "200", "the server's memory-limit, in megabytes"),
            ("value", "1000", "bytes a value; a tenth of the keys are hashes with ten of them"),
            ("sync", "yes", "no leaves out the full sync, for which the Redis needs as much memory as there is data"),
            ("dir", "", "the server's folder; left there if it is given"),
            ("seed", "", "of the data"),
        ],
    );
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a process's resident memory ten times a second until it is stopped.
struct Watch {
    pid: u32,
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(server: &Server) -> Result<Watch> {
        let pid = server.pid().ok_or_else(|| error("the server does not run"))?;
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, peak) = (Arc::clone(&stop), Arc::clone(&peak));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(pid).unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        Ok(Watch { pid, stop, peak, thread: Some(thread) })
    }

    /// The peak since it was asked last.
    fn take(&self) -> u64 {
        // A phase may be shorter than the time between two readings.
        self.peak.swap(0, Ordering::Relaxed).max(resident(self.pid).unwrap_or(0))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The phases so far: name, peak in bytes, how long.
struct Report {
    limit: u64,
    good: bool,
}

impl Report {
    fn phase(&mut self, name: &str, peak: u64, time: Duration, more: &str) {
        let good = peak <= 2 * self.limit;
        self.good &= good;
        println!(
            "{name:<22} peak {:>5} MB {} {:>7.1} s  {more}",
            peak / MB,
            if good { "(under twice the limit)" } else { "(OVER TWICE THE LIMIT) " },
            time.as_secs_f64()
        );
    }
}

/// Writes keys `from..to`. Gives how long the slowest portion of 64 commands waited for its replies.
fn load(client: &mut Client, seed: u64, from: u64, to: u64, size: usize) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    let mut value = vec![0; size];
    let mut next = from;
    while next < to {
        let portion = (to - next).min(64);
        for index in next..next + portion {
            let mut random = Random::new(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if index % 10 == 9 {
                let mut command = vec![b"HSET".to_vec(), format!("hash:{index}").into_bytes()];
                for field in 0..10 {
                    random.fill(&mut value);
                    command.push(format!("field:{field}").into_bytes());
                    command.push(value.clone());
                }
                client.queue(&command);
            } else {
                random.fill(&mut value);
                client.queue(&[b"SET".as_slice(), format!("key:{index}").as_bytes(), &value]);
            }
        }
        let sent = Instant::now();
        for _ in 0..portion {
            let reply = client.receive()?;
            if reply.is_error() {
                return Err(error(format!("a write was refused: {reply}")));
            }
        }
        slowest = slowest.max(sent.elapsed());
        next += portion;
    }
    Ok(slowest)
}

/// Kills or ends the server, starts it again, and returns how long it took to its first reply, and the watch over it.
fn restart(server: &mut Server, kill: bool) -> Result<(Duration, Watch)> {
    if kill {
        server.kill9()?;
    } else {
        server.terminate()?;
    }
    let start = Instant::now();
    server.restart()?;
    server.client()?.must("GET key:0")?;
    Ok((start.elapsed(), Watch::start(server)?))
}

fn run(options: &Options) -> Result<bool> {
    let (seed, size) = (options.seed(), options.number("value") as usize);
    let limit = options.number("limit") * MB;
    // Nine strings and one hash of ten fields make nineteen values.
    let keys = options.number("mb") * MB / size.max(1) as u64 * 10 / 19;
    println!("seed {seed}, {keys} keys, {} MB of values, a limit of {} MB", options.number("mb"), limit / MB);

    let mut setup = Setup::ardb().with_own("memory-limit", format!("{}mb", limit / MB));
    if !options.text("dir").is_empty() {
        setup = setup.in_dir(std::path::Path::new(options.text("dir")));
    }
    let mut server = setup.start()?;
    let mut report = Report { limit, good: true };
    let mut watch = Watch::start(&server)?;

    let start = Instant::now();
    let slowest = load(&mut server.client()?, seed, 0, keys, size)?;
    let speed = options.number("mb") as f64 / start.elapsed().as_secs_f64();
    report.phase(
        "load",
        watch.take(),
        start.elapsed(),
        &format!("{speed:.0} MB/s, the slowest 64 writes {} ms", slowest.as_millis()),
    );

    let start = Instant::now();
    let found = scan(&mut server.client()?)?;
    report.phase("full SCAN", watch.take(), start.elapsed(), &format!("{found} keys"));
    if found != keys {
        return Err(error(format!("SCAN found {found} of {keys} keys")));
    }

    let start = Instant::now();
    let mut client = server.client()?;
    let mut random = Random::new(seed);
    for _ in 0..200 {
        for _ in 0..100 {
            client.queue(&["STRLEN", &format!("key:{}", random.below(keys))]);
        }
        for _ in 0..100 {
            client.receive()?;
        }
    }
    report.phase("random reads", watch.take(), start.elapsed(), "20000 of them");

    if options.text("sync") == "yes" {
        let start = Instant::now();
        let replica = Setup::redis("7.0").with("repl-timeout", 600).start()?;
        follow(&replica, &server)?;
        wait_linked(&replica, Duration::from_secs(1800))?;
        wait_until("the replica has caught up", Duration::from_secs(60), || {
            offsets(&server, &replica).map(|(one, other)| one == other)
        })?;
        let there = replica.client()?.must("DBSIZE")?.int().unwrap_or(0);
        report.phase("full sync to Redis 7.0", watch.take(), start.elapsed(), &format!("{there} keys arrived"));
        if there as u64 != keys {
            return Err(error(format!("{there} of {keys} keys arrived")));
        }
    }

    drop(watch);
    let (clean, new_watch) = restart(&mut server, false)?;
    watch = new_watch;
    std::thread::sleep(Duration::from_secs(1));
    report.phase("restart after SIGTERM", watch.take(), clean, "to the first reply");

    let mut writer = server.client()?;
    let writing = std::thread::spawn(move || load(&mut writer, seed, keys, keys * 2, size));
    std::thread::sleep(Duration::from_secs(5));
    drop(watch);
    let (killed, watch) = restart(&mut server, true)?;
    let _ = writing.join();
    std::thread::sleep(Duration::from_secs(1));
    report.phase("restart after a kill", watch.take(), killed, "to the first reply, in mid-load");

    if clean > Duration::from_secs(2) && !stands_in() {
        println!("the clean restart took longer than 2 seconds");
        report.good = false;
    }
    println!("on disk: {} MB", disk(&server.dir) / MB);
    Ok(report.good)
}

/// How many keys a whole SCAN names.
fn scan(client: &mut Client) -> Result<u64> {
    let mut found = 0;
    let mut cursor = "0".to_string();
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "1000"])?;
        let Some([next, keys]) = reply.items() else { return Err(error(format!("SCAN: {reply}"))) };
        found += keys.items().map_or(0, <[_]>::len) as u64;
        cursor = next.text();
        if cursor == "0" {
            return Ok(found);
        }
    }
}

/// Bytes allocated below a folder.
fn disk(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
