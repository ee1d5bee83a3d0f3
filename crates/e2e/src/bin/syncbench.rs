//! Measures full syncs: the same data from Redis to Redis, from Ardb to Redis, from Redis to Ardb and from Ardb to Ardb.
//!
//! Four of five keys are strings, the others hashes. Each pairing gets a fresh replica. The time runs from REPLICAOF until the replica's link is up and
//! it has as many keys as the master. Fails if a sync fails, or if a goal is missed: no pairing with Ardb takes over 1.5 times as
//! long as Redis to Redis, and Ardb to Ardb at most half as long.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::options::Options;
use ardb_e2e::pairing::{REDIS, pairs, title};
use ardb_e2e::server::{Kind, Server, Setup};
use ardb_e2e::usage::{Usage, megabytes, reset_peak};
use ardb_e2e::wait::follow;
use ardb_e2e::{Result, error};

fn main() -> ExitCode {
    let options = Options::read(
        "Measures full syncs between Redis 7.0 and Ardb.",
        &[
            ("keys", "5000000", "keys; every fifth is a hash"),
            ("value", "100", "bytes of a string"),
            ("fields", "10", "fields of a hash"),
            ("memory", "1gb", "Ardb's memory-limit"),
            ("pairs", "rr,ra,ar,aa", "pairings: master and replica, r for Redis and a for Ardb"),
            ("limit", "1800", "seconds that one sync may take"),
            ("goals", "yes", "no to pass whatever the times are"),
            ("seed", "1", "of the data"),
        ],
    );
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(kind: Kind, options: &Options) -> Result<Server> {
    let setup = Setup::new(kind);
    match kind {
        Kind::Ardb => setup.with_own("memory-limit", options.text("memory")).start(),
        Kind::Redis(_) | Kind::Valkey(_) => setup.start(),
    }
}

/// Writes the data; gives the bytes of their keys, fields and values.
fn fill(server: &Server, options: &Options) -> Result<u64> {
    let (value, fields) = (options.number("value") as usize, options.number("fields"));
    let mut random = Random::new(options.seed());
    let mut client = server.client()?;
    client.set_timeout(Duration::from_secs(120))?;
    let mut text = vec![0; value];
    let mut bytes = 0;
    for n in 0..options.number("keys") {
        let key = format!("key:{n:012}").into_bytes();
        bytes += key.len();
        if n % 5 == 4 {
            let mut args = vec![b"HSET".to_vec(), key];
            for field in 0..fields {
                args.push(format!("field:{field}").into_bytes());
                args.push(random.next_u64().to_string().into_bytes());
            }
            bytes += args[2..].iter().map(Vec::len).sum::<usize>();
            client.queue(&args);
        } else {
            random.fill(&mut text);
            text.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
            bytes += text.len();
            client.queue(&[b"SET".as_slice(), &key, &text]);
        }
        if client.pending() == 500 {
            drain(&mut client)?;
        }
    }
    drain(&mut client)?;
    Ok(bytes as u64)
}

fn drain(client: &mut ardb_e2e::client::Client) -> Result<()> {
    while client.pending() > 0 {
        let reply = client.receive()?;
        if reply.is_error() {
            return Err(error(format!("filling: {reply}")));
        }
    }
    Ok(())
}

/// One sync; gives how long it took.
fn sync(master: &Server, kind: Kind, options: &Options, bytes: u64) -> Result<Duration> {
    let replica = start(kind, options)?;
    let pid = |server: &Server| server.pid().ok_or_else(|| error(format!("{} is gone", server.name())));
    let keys = master.client()?.ask("DBSIZE")?;
    reset_peak(pid(master)?)?;
    let (master_before, replica_before) = (Usage::of(pid(master)?)?, Usage::of(pid(&replica)?)?);
    let begin = Instant::now();
    follow(&replica, master)?;
    let mut client = replica.client()?;
    loop {
        let link = client.info("replication")?;
        if link.get("master_link_status").is_some_and(|status| status == "up") && client.ask("DBSIZE")? == keys {
            break;
        }
        if begin.elapsed().as_secs() > options.number("limit") {
            return Err(error(format!("{} is not there:\n{}", replica.name(), replica.log_tail())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begin.elapsed();
    let (master_after, replica_after) = (Usage::of(pid(master)?)?, Usage::of(pid(&replica)?)?);
    println!(
        "{:<14} {:>8.1} {:>8.1} {:>14.1} {:>14.1} {:>14.0} {:>14.0}",
        title((master.kind(), kind)),
        took.as_secs_f64(),
        megabytes(bytes) / took.as_secs_f64(),
        master_after.cpu_since(&master_before).as_secs_f64(),
        replica_after.cpu_since(&replica_before).as_secs_f64(),
        megabytes(master_after.peak),
        megabytes(replica_after.peak),
    );
    Ok(took)
}

fn run(options: &Options) -> Result<bool> {
    let pairs = pairs(options.text("pairs"))?;
    println!(
        "{:<14} {:>8} {:>8} {:>14} {:>14} {:>14} {:>14}",
        "", "seconds", "MB/s", "master CPU s", "replica CPU s", "master MB", "replica MB"
    );
    let mut times = Vec::new();
    for master_kind in [REDIS, Kind::Ardb] {
        let replicas: Vec<Kind> = pairs.iter().filter(|(m, _)| *m == master_kind).map(|(_, r)| *r).collect();
        if replicas.is_empty() {
            continue;
        }
        let master = start(master_kind, options)?;
        let bytes = fill(&master, options)?;
        for replica in replicas {
            times.push(((master_kind, replica), sync(&master, replica, options, bytes)?));
        }
    }
    let Some((_, base)) = times.iter().find(|(pair, _)| *pair == (REDIS, REDIS)) else { return Ok(true) };
    let mut met = true;
    for ((master, replica), took) in times.iter().filter(|(pair, _)| *pair != (REDIS, REDIS)) {
        let times = took.as_secs_f64() / base.as_secs_f64();
        let goal = if (*master, *replica) == (Kind::Ardb, Kind::Ardb) { 0.5 } else { 1.5 };
        let verdict = if times <= goal { "met" } else { "MISSED" };
        println!("{}: {times:.2} times redis to redis, goal {goal}: {verdict}", title((*master, *replica)));
        met &= times <= goal;
    }
    Ok(met || options.text("goals") == "no")
}
