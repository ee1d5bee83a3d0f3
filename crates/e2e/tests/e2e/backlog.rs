//! The log as a backlog: what is in it is served from both edges, what is not or is damaged never is.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load};
use ardb_e2e::options::seed;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{syncs, wait_equal, wait_linked, wait_until};
use ardb_e2e::wiretap::Tap;

const LIMIT: Duration = Duration::from_secs(20);
const BACKLOG: u64 = 1 << 20;

fn small() -> Setup {
    Setup::ardb().with("repl-backlog-size", BACKLOG).with("log-segment-size", 256 << 10).with("checkpoint-period", 1)
}

/// The answer to a PSYNC, and the connection on which it came.
fn psync(server: &Server, id: &str, offset: u64) -> (String, Tap) {
    let mut tap = Tap::connect(server.port).unwrap();
    tap.send(format!("PSYNC {id} {offset}\r\n")).unwrap();
    loop {
        let line = tap.line(LIMIT).unwrap().expect("an answer in time");
        if !line.is_empty() {
            return (line, tap);
        }
    }
}

/// Writes three times the backlog and waits until the front of it has gone.
fn fill(server: &Server) -> (String, u64, u64) {
    let mut client = server.client().unwrap();
    let value = "v".repeat(1000);
    let mut index = 0;
    let mut facts = (String::new(), 0, 0);
    wait_until("the front has gone", LIMIT, || {
        // At least three times its size, and then on until a checkpoint has let go of the old segments.
        for _ in 0..if index == 0 { 3 * BACKLOG / 1000 } else { 100 } {
            client.queue(&["SET", &format!("key:{}", index % 500), &value]);
            index += 1;
        }
        while client.pending() > 0 {
            client.receive()?;
        }
        let info = client.info("replication")?;
        let number = |name: &str| info[name].parse::<u64>().unwrap_or(0);
        facts = (info["master_replid"].clone(), number("repl_backlog_first_byte_offset"), number("master_repl_offset"));
        Ok(facts.1 > BACKLOG)
    })
    .unwrap();
    facts
}

#[test]
fn both_edges_are_exact_after_three_times_its_size() {
    if stands_in() {
        return;
    }
    let server = small().start().unwrap();
    let (id, first, end) = fill(&server);
    // What was promised is there, and not endlessly more.
    let held = end - first + 1;
    assert!((BACKLOG..3 * BACKLOG).contains(&held), "{held} bytes are held of {BACKLOG}");
    for (offset, goes_on) in
        [(first, true), (first - 1, false), (1, false), (end, true), (end + 1, true), (end + 2, false)]
    {
        let (answer, mut tap) = psync(&server, &id, offset);
        let expected = if goes_on { "+CONTINUE" } else { "+FULLRESYNC" };
        assert!(answer.starts_with(expected), "PSYNC {offset} of {first} to {end}: {answer}");
        if goes_on {
            // Exactly the bytes from there on.
            let wanted = (end + 1 - offset) as usize;
            while tap.waiting().len() < wanted {
                tap.fill().unwrap();
            }
            let bytes = tap.forget(wanted);
            assert!(
                bytes.len() < 10 || bytes.windows(5).any(|part| part == b"\r\nSET"),
                "{}",
                bytes[..50].escape_ascii()
            );
        }
    }
}

/// The segments, oldest first.
fn segments(server: &Server) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs::read_dir(server.dir.join("data/log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "seg"))
        .collect();
    list.sort();
    list
}

/// A replica stands at `from` in the log, the server is ended, `harm` is done to its files, and it is started again: whatever the
/// replica gets from then on is right.
fn never_served(harm: impl Fn(&[PathBuf])) {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    // Where the harm does not only concern what replicas ask for, it does not start otherwise.
    let mut master = small().with("log-truncate-damaged", "yes").start().unwrap();
    let replica = Setup::redis("7.0").start().unwrap();
    let proxy = Proxy::start(master.port, seed).unwrap();
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 8000);
    load.wait_more(4000).unwrap();
    // The replica misses a part of the stream.
    proxy.refusing(true);
    proxy.cut();
    load.wait_more(8000).unwrap();
    load.stop().unwrap();
    master.terminate().unwrap();
    harm(&segments(&master));
    master.restart().unwrap();
    proxy.refusing(false);
    master.client().unwrap().must("SET after harm").unwrap();
    wait_equal(&master, &replica, LIMIT)
        .unwrap_or_else(|failure| panic!("{failure}\n{}\n{}", master.log_tail(), replica.log_tail()));
    let (full, partial) = syncs(&mut master.client().unwrap()).unwrap();
    assert!(
        full >= 1,
        "full {full}, partial {partial}: the harm was in what the replica missed\n{}",
        master.log_tail()
    );
}

#[test]
fn a_damaged_byte_is_never_served() {
    never_served(|segments| {
        for path in segments {
            let file = File::options().read(true).write(true).open(path).unwrap();
            // In the payload of some frame, in the middle of what was missed.
            let length = file.metadata().unwrap().len();
            for at in (4096..length).step_by(8192) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            }
        }
    });
}

#[test]
fn a_shortened_segment_is_never_served() {
    never_served(|segments| {
        for path in segments {
            let file = File::options().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length / 2).unwrap();
        }
    });
}

#[test]
fn a_lengthened_segment_is_never_served() {
    never_served(|segments| {
        for path in segments {
            let mut file = File::options().write(true).open(path).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(&[7; 5000]).unwrap();
        }
    });
}

#[test]
fn a_missing_segment_is_never_served() {
    never_served(|segments| fs::remove_file(&segments[segments.len() / 2]).unwrap());
}
