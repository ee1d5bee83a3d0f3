//! Kills the server under test again and again in the middle of pipelined writes, and counts what was lost or done twice.
//!
//! As a master: a client sends INCR, RPUSH and MULTI blocks and counts what was acknowledged. After each restart the
//! counters, the list and the blocks must hold everything acknowledged, each command that took effect exactly once, and
//! nothing after a gap. As a replica of Redis 2.8: the same load goes to the master while the replica is killed and
//! restarted; in the end both are the same, and the master has sent everything only once.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::client::Client;
use ardb_e2e::options::Options;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Setup, stands_in};
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked};
use ardb_e2e::{Result, error};

/// What a run has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    kills: u64,
    commands: u64,
    losses: u64,
    doubles: u64,
}

fn main() -> ExitCode {
    let options = Options::read(
        "Kills the server in mid-pipeline and counts losses and doubles.",
        &[
            ("kills", "100", "how often to kill it in each role"),
            ("role", "both", "master, replica or both"),
            ("seed", "", "for the moments of the kills"),
            ("fsync", "everysec", "appendfsync of the server"),
        ],
    );
    let seed = options.seed();
    println!("seed {seed}");
    let mut good = true;
    for (role, run) in [("master", as_master as fn(&Options, u64) -> Result<Figure>), ("replica", as_replica)] {
        if options.text("role") != "both" && options.text("role") != role {
            continue;
        }
        match run(&options, seed) {
            Ok(figure) => {
                println!(
                    "as {role}: {} kills, {} commands, {} losses, {} doubles",
                    figure.kills, figure.commands, figure.losses, figure.doubles
                );
                good &= figure.losses == 0 && figure.doubles == 0;
            }
            Err(failure) => {
                println!("as {role}: FAILED: {failure}");
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a client knows about the writes of one kind: they are numbered from 0, and those below `acknowledged` have drawn
/// a reply.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    counter: i64,
    list: i64,
    blocks: i64,
}

/// One round of commands: each kind goes on with its next number.
fn queue_round(client: &mut Client, sent: &mut Known) {
    client.queue(&["INCR", "counter"]);
    client.queue(&["RPUSH", "list", &sent.list.to_string()]);
    client.queue(&["MULTI"]);
    client.queue(&["INCR", "block:a"]);
    client.queue(&["RPUSH", "block:list", &sent.blocks.to_string()]);
    client.queue(&["INCR", "block:b"]);
    client.queue(&["EXEC"]);
    sent.counter += 1;
    sent.list += 1;
    sent.blocks += 1;
}

/// Receives the seven replies of one round, counting what they acknowledge.
fn receive_round(client: &mut Client, acknowledged: &mut Known) -> Result<()> {
    let expect = |reply: Reply, value: i64| match reply.int() {
        Some(number) if number == value => Ok(()),
        _ => Err(error(format!("a reply of {reply} where {value} was due"))),
    };
    expect(client.receive()?, acknowledged.counter + 1)?;
    acknowledged.counter += 1;
    expect(client.receive()?, acknowledged.list + 1)?;
    acknowledged.list += 1;
    for _ in 0..4 {
        client.receive()?;
    }
    let block = client.receive()?;
    if block.items().map_or(0, <[Reply]>::len) != 3 {
        return Err(error(format!("EXEC: {block}")));
    }
    acknowledged.blocks += 1;
    Ok(())
}

fn get(client: &mut Client, key: &str) -> Result<i64> {
    Ok(client.call(&["GET", key])?.int().unwrap_or(0))
}

/// Compares what is there with what was acknowledged, the lists from `from` on, and returns what is there: from there the
/// next round goes on.
fn verify(client: &mut Client, from: Known, acknowledged: Known, sent: Known, figure: &mut Figure) -> Result<Known> {
    let counter = get(client, "counter")?;
    let (a, b) = (get(client, "block:a")?, get(client, "block:b")?);
    let list = verify_list(client, "list", from.list, figure)?;
    let block_list = verify_list(client, "block:list", from.blocks, figure)?;
    if a != b || a != block_list {
        return Err(error(format!("a part of a MULTI block: {a} and {b} counted, {block_list} in the list")));
    }
    let each = [
        ("INCR", counter, acknowledged.counter, sent.counter),
        ("RPUSH", list, acknowledged.list, sent.list),
        ("MULTI", a, acknowledged.blocks, sent.blocks),
    ];
    for (kind, there, acknowledged, sent) in each {
        if there < acknowledged {
            println!("{kind}: {acknowledged} acknowledged, {there} there");
            figure.losses += (acknowledged - there) as u64;
        }
        if there > sent {
            println!("{kind}: {sent} sent, {there} there");
            figure.doubles += (there - sent) as u64;
        }
    }
    Ok(Known { counter, list, blocks: a })
}

/// The length of a list in which each number must stand once, at its own place; those from `from` on are read.
fn verify_list(client: &mut Client, key: &str, from: i64, figure: &mut Figure) -> Result<i64> {
    let length = client.call(&["LLEN", key])?.int().unwrap_or(0);
    let mut next = from.clamp(0, length);
    while next < length {
        let part = client.call(&["LRANGE", key, &next.to_string(), &(next + 9999).to_string()])?;
        let items = part.items().unwrap_or_default();
        if items.is_empty() {
            return Err(error(format!("{key} ends before its length: {part}")));
        }
        for item in items {
            let number = item.int().ok_or_else(|| error(format!("{key} holds {item}")))?;
            match number.cmp(&next) {
                std::cmp::Ordering::Less => figure.doubles += 1,
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => figure.losses += 1,
            }
            next += 1;
        }
    }
    Ok(length)
}

/// Sends rounds until the connection breaks, two portions always on their way.
fn flow(port: u16, sent: &mut Known, acknowledged: &mut Known) -> Result<()> {
    const PORTION: usize = 40;
    let mut client = Client::connect(port)?;
    client.set_timeout(Duration::from_secs(20))?;
    let mut on_the_way = 0;
    loop {
        while on_the_way < 2 * PORTION {
            for _ in 0..PORTION {
                queue_round(&mut client, sent);
            }
            on_the_way += PORTION;
            if client.flush().is_err() {
                return Ok(());
            }
        }
        for _ in 0..PORTION {
            match receive_round(&mut client, acknowledged) {
                Ok(()) => on_the_way -= 1,
                Err(failure) if failure.kind() == std::io::ErrorKind::Other => return Err(failure),
                Err(failure) if failure.kind() == std::io::ErrorKind::TimedOut => return Err(failure),
                Err(_) => return Ok(()),
            }
        }
    }
}

fn as_master(options: &Options, seed: u64) -> Result<Figure> {
    let mut random = Random::new(seed);
    let mut figure = Figure::default();
    let mut server = Setup::ardb().with("appendfsync", options.text("fsync")).start()?;
    let mut known = Known::default();
    let start = Instant::now();
    while figure.kills < options.number("kills") {
        // Some kills fall into the first moments after a restart, most into full flow.
        let moment = Duration::from_millis(5 + random.below(150));
        let port = server.port;
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment);
            server.kill9().map(|()| server)
        });
        let (mut sent, mut acknowledged) = (known, known);
        let outcome = flow(port, &mut sent, &mut acknowledged);
        server = killer.join().map_err(|_| error("the killer panicked"))??;
        outcome?;
        figure.kills += 1;
        server.restart()?;
        let from = Known { list: known.list - 1000, blocks: known.blocks - 1000, ..known };
        let there = verify(&mut server.client()?, from, acknowledged, sent, &mut figure)?;
        let took_effect = there.counter - known.counter + there.list - known.list + 3 * (there.blocks - known.blocks);
        figure.commands += took_effect.max(0) as u64;
        known = there;
        progress("master", &figure, start);
    }
    verify(&mut server.client()?, Known::default(), known, known, &mut figure)?;
    Ok(figure)
}

fn progress(role: &str, figure: &Figure, start: Instant) {
    if figure.kills.is_multiple_of(10) {
        let Figure { kills, commands, losses, doubles } = figure;
        println!(
            "as {role}: {kills} kills, {commands} commands, {losses} losses, {doubles} doubles, {:?}",
            start.elapsed()
        );
    }
}

fn as_replica(options: &Options, seed: u64) -> Result<Figure> {
    let mut random = Random::new(seed);
    let mut figure = Figure::default();
    let master = Setup::redis("2.8").with("repl-backlog-size", "512mb").start()?;
    let mut replica = Setup::ardb().with("appendfsync", options.text("fsync")).start()?;
    follow(&replica, &master)?;
    wait_linked(&replica, Duration::from_secs(20))?;
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let port = master.port;
    let start = Instant::now();
    let sent = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_steadily(port, &stop, &rounds));
        let outcome = (|| -> Result<()> {
            while figure.kills < options.number("kills") {
                // Now and then the kill falls into the handshake; mostly the stream flows.
                if !random.one_in(5) {
                    wait_linked(&replica, Duration::from_secs(20))?;
                }
                std::thread::sleep(Duration::from_millis(random.below(300)));
                replica.kill9()?;
                figure.kills += 1;
                std::thread::sleep(Duration::from_millis(random.below(50)));
                replica.restart()?;
                if stands_in() {
                    follow(&replica, &master)?;
                }
                figure.commands = rounds.load(Ordering::Relaxed) * 5;
                progress("replica", &figure, start);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = writer.join().map_err(|_| error("the writer panicked"))?;
        outcome.and(sent)
    })?;
    wait_equal(&master, &replica, Duration::from_secs(60))?;
    verify(&mut replica.client()?, Known::default(), sent, sent, &mut figure)?;
    figure.commands = sent.counter as u64 * 5;
    let (full, partial) = syncs(&mut master.client()?)?;
    println!("as replica: the master counts {full} full syncs and {partial} partial ones");
    if full != 1 && !stands_in() {
        return Err(error(format!("{full} full syncs")));
    }
    Ok(figure)
}

/// Sends about 2,000 rounds a second until it is stopped, and returns what was sent (all of it acknowledged).
fn write_steadily(port: u16, stop: &AtomicBool, rounds: &AtomicU64) -> Result<Known> {
    let mut client = Client::connect(port)?;
    let (mut sent, mut acknowledged) = (Known::default(), Known::default());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            queue_round(&mut client, &mut sent);
        }
        for _ in 0..20 {
            receive_round(&mut client, &mut acknowledged)?;
        }
        rounds.store(sent.counter as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(9));
    }
    Ok(sent)
}
