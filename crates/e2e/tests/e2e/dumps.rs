//! The dumps that replicas get: the state at the offset that was announced, clean in the eyes of every checker, and what happens
//! when the disk is full, on either side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ardb_base::random::Random;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::peers;
use ardb_e2e::scripted::Scripted;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_equal, wait_linked, wait_same, wait_until};
use ardb_e2e::wiretap::Tap;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_dump_under_load_is_the_state_at_its_offset() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    // Slow enough for a good part of the load to fall into it.
    let master = Setup::ardb().with("rdb-key-save-delay", 300).start().unwrap();
    populate(&mut master.client().unwrap(), seed, 3000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 100), 4000);
    let mut tap = Tap::connect(master.port).unwrap();
    tap.send("PSYNC ? -1\r\n").unwrap();
    let next = |tap: &mut Tap| loop {
        let line = tap.line(LIMIT).unwrap().expect("a line in time");
        if !line.is_empty() {
            break line;
        }
    };
    let announced = next(&mut tap);
    let words: Vec<&str> = announced.split(' ').collect();
    let offset: u64 = words[2].parse().unwrap();
    assert_eq!((words[0], words[1].len()), ("+FULLRESYNC", 40), "{announced}");
    let length: usize = next(&mut tap).strip_prefix('$').unwrap().parse().unwrap();
    while tap.waiting().len() < length {
        tap.fill().unwrap();
    }
    let rdb = tap.forget(length);
    load.wait_more(4000).unwrap();
    load.stop().unwrap();
    // The stream begins at the announced offset and ends at the master's.
    let end = master.client().unwrap().info_number("replication", "master_repl_offset").unwrap() as u64;
    while tap.waiting().len() < (end - offset) as usize {
        tap.fill().unwrap();
    }
    let stream = tap.forget((end - offset) as usize);
    assert!(stream.starts_with(b"*2\r\n$6\r\nSELECT\r\n"), "{}", stream[..60].escape_ascii());
    let before = String::from_utf8_lossy(&stream).matches("\r\nSET\r\n").count();
    assert!(before > 50, "much was written meanwhile: {before}");

    // A Redis 2.8 that is sent just these bytes has the same data, and stands at the same offset.
    let id = words[1].to_string();
    let sender = Scripted::start(move |guest, _| {
        guest.greet(|_| None)?;
        guest.full(&id, offset, &rdb)?;
        guest.tap.send(&stream)?;
        guest.idle(|_| {})
    })
    .unwrap();
    let other = Setup::redis("2.8").start().unwrap();
    other.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", sender.port)).unwrap();
    let reached = || Ok(other.client()?.info_number("replication", "slave_repl_offset")? as u64 == end);
    wait_until("it has taken everything", LIMIT, reached).unwrap();
    wait_same(&master, &other, LIMIT).unwrap();
}

#[test]
fn what_was_sent_reloads_and_passes_the_checkers() {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = Setup::ardb().start().unwrap();
    populate(&mut master.client().unwrap(), seed, 3000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 200), 4000);
    let mut replicas = vec![Setup::redis("7.0").start().unwrap(), Setup::redis("8").start().unwrap()];
    if !stands_in() {
        replicas.extend([Setup::redis("2.8").start().unwrap(), Setup::valkey().start().unwrap()]);
    }
    for replica in &replicas {
        follow(replica, &master).unwrap();
        wait_linked(replica, LIMIT).unwrap();
    }
    load.wait_more(3000).unwrap();
    load.stop().unwrap();
    for replica in &replicas {
        wait_equal(&master, replica, LIMIT).unwrap();
        replica.client().unwrap().must("DEBUG RELOAD").unwrap();
        wait_equal(&master, replica, LIMIT).unwrap();
    }
    // Of a server of each age that asked in its own way.
    let file = master.dir.join("taken.rdb");
    let output = Command::new(peers::peer("redis-cli").unwrap())
        .args(["-p", &master.port.to_string(), "--rdb"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checkers: &[&str] =
        if stands_in() { &["redis-check-rdb-7.0"] } else { &["redis-check-rdb-7.0", "redis-check-dump-2.8"] };
    for checker in checkers {
        let output = Command::new(peers::peer(checker).unwrap()).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("ERROR"), "{checker}: {text}");
    }
}

/// A file system of its own, of a few megabytes.
struct Small {
    dir: PathBuf,
}

impl Small {
    /// `None`, with a loud line, where this user may not mount one.
    fn mount(megabytes: u64) -> Option<Small> {
        let dir = std::env::temp_dir().join(format!("ardb-e2e-small-{}-{megabytes}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "none"])
            .arg(&dir)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: no right to mount a small file system at {}", dir.display());
            let _ = fs::remove_dir(&dir);
            return None;
        }
        Some(Small { dir })
    }

    fn free(&self) -> u64 {
        let facts = rustix::fs::statvfs(&self.dir).unwrap();
        facts.f_bavail * facts.f_frsize
    }

    /// A file that leaves so many bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.dir.join("ballast");
        fs::write(&path, vec![1; self.free().saturating_sub(left) as usize]).unwrap();
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
        let _ = fs::remove_dir(&self.dir);
    }
}

/// So many kilobytes that do not compress.
fn bulk(server: &Server, seed: u64, kilobytes: usize) {
    let mut random = Random::new(seed);
    let mut client = server.client().unwrap();
    let mut value = [0; 1024];
    for index in 0..kilobytes {
        random.fill(&mut value);
        client.queue(&[b"SET", format!("bulk:{index}").as_bytes(), &value]);
        if index % 100 == 0 || index + 1 == kilobytes {
            while client.pending() > 0 {
                assert!(client.receive().unwrap().is_ok());
            }
        }
    }
}

fn in_small(dir: &Path) -> Setup {
    Setup::ardb()
        .in_dir(dir)
        .with("log-segment-size", 1 << 20)
        .with("repl-backlog-size", 1 << 20)
        .with("checkpoint-period", 1)
        .with("memory-limit", "64mb")
}

#[test]
fn a_full_disk_on_the_master_fails_the_dump_and_nothing_else() {
    if stands_in() {
        return;
    }
    let Some(small) = Small::mount(96) else { return };
    let master = in_small(&small.dir).start().unwrap();
    bulk(&master, seed(), 12 << 10);
    // Old replicas get the dump by way of a file.
    let replica = Setup::redis("2.8").start().unwrap();
    replica.client().unwrap().must("SET old data").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let ballast = small.fill(5 << 20);
    follow(&replica, &master).unwrap();
    wait_until("the dump has failed twice", LIMIT, || Ok(master.log_count("The dump for replicas failed") >= 2))
        .unwrap_or_else(|failure| panic!("{failure}\n{}", master.log_tail()));
    assert_eq!(replica.client().unwrap().ask("GET old").unwrap().text(), "data");
    // The master goes on serving.
    let mut client = master.client().unwrap();
    client.must("SET small value").unwrap();
    assert_eq!(client.ask("GET small").unwrap().text(), "value");
    fs::remove_file(ballast).unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap_or_else(|failure| panic!("{failure}\n{}", master.log_tail()));
    assert_eq!(replica.client().unwrap().ask("EXISTS old").unwrap().int(), Some(0));
}

#[test]
fn a_full_disk_on_the_replica_leaves_its_old_data() {
    if stands_in() {
        return;
    }
    let Some(small) = Small::mount(48) else { return };
    let master = Setup::redis("7.0").start().unwrap();
    bulk(&master, seed(), 60 << 10);
    let replica = in_small(&small.dir).start().unwrap();
    let mut client = replica.client().unwrap();
    client.must("SET old data").unwrap();
    follow(&replica, &master).unwrap();
    wait_until("a sync has failed", LIMIT, || Ok(replica.log_count("Link to master") >= 1))
        .unwrap_or_else(|failure| panic!("{failure}\n{}", replica.log_tail()));
    assert_eq!(client.ask("GET old").unwrap().text(), "data", "{}", replica.log_tail());
    let error = client.info("replication").unwrap().remove("master_link_error").unwrap_or_default();
    assert!(error.to_lowercase().contains("space"), "{error}\n{}", replica.log_tail());
    // Less comes, and fits.
    let mut writer = master.client().unwrap();
    writer.must("FLUSHALL").unwrap();
    writer.must("SET new data").unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap_or_else(|failure| panic!("{failure}\n{}", replica.log_tail()));
    assert_eq!(client.ask("EXISTS old").unwrap().int(), Some(0));
}
