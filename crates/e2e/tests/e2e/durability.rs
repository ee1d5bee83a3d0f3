//! What a restart may change: nothing. And what a disk may do to that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ardb_e2e::client::Client;
use ardb_e2e::digest::Digest;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_equal, wait_until};

/// Writes a mixed data set, ends the server one way or the other, and compares what is there before and after.
fn survives(setup: Setup, kill: bool) {
    let seed = seed();
    let mut server = setup.start().unwrap();
    populate(&mut server.client().unwrap(), seed, 3000).unwrap();
    let load = Load::start(server.port, Generator::new(seed, Flavor::New, 200), 20_000);
    load.wait_more(20_000).unwrap();
    load.stop().unwrap();
    let before = Digest::read(&mut server.client().unwrap()).unwrap();
    assert!(before.len() > 1000, "{}", before.summary());
    if kill {
        server.kill9().unwrap();
    } else {
        assert!(server.terminate().unwrap().success());
    }
    server.restart().unwrap();
    let after = Digest::read(&mut server.client().unwrap()).unwrap();
    let differences = before.differences(&after);
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
}

#[test]
fn dbsize_is_exact_after_a_kill() {
    let mut server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    // Its expiries are minutes away: none falls into the test.
    populate(&mut client, seed(), 3000).unwrap();
    for index in 0..500 {
        client.queue(&["DEL", &format!("str:p{}", index * 3)]);
    }
    while client.pending() > 0 {
        client.receive().unwrap();
    }
    for _ in 0..2 {
        server.kill9().unwrap();
        server.restart().unwrap();
        let mut client = server.client().unwrap();
        let there = Digest::read(&mut client).unwrap();
        let mut total = 0;
        for db in 0..3 {
            client.must(&format!("SELECT {db}")).unwrap();
            total += client.ask("DBSIZE").unwrap().int().unwrap();
        }
        assert_eq!(total, there.len() as i64);
        assert!(there.len() < 3000);
    }
}

#[test]
fn a_clean_end_loses_nothing() {
    survives(Setup::ardb(), false);
}

#[test]
fn a_kill_loses_nothing() {
    survives(Setup::ardb(), true);
}

#[test]
fn a_kill_with_a_small_memory_limit_loses_nothing() {
    survives(Setup::ardb().with_own("memory-limit", "16mb"), true);
}

#[test]
fn the_memory_engine_replays_its_log_too() {
    survives(Setup::ardb().with_own("storage-engine", "memory"), false);
}

#[test]
fn kills_in_mid_pipeline_apply_each_command_once() {
    let mut server = Setup::ardb().start().unwrap();
    let mut acknowledged = 0i64;
    for round in 0..4 {
        let mut client = server.client().unwrap();
        client.set_timeout(Duration::from_secs(5)).unwrap();
        let count = client.ask("GET counter").unwrap().int().unwrap_or(0);
        assert!(count >= acknowledged, "round {round}: {acknowledged} acknowledged, {count} there");
        assert_eq!(client.ask("LLEN list").unwrap(), Reply::Int(count));
        acknowledged = count;
        for next in count..count + 20_000 {
            client.queue(&["MULTI"]);
            client.queue(&["INCR", "counter"]);
            client.queue(&["RPUSH", "list", &next.to_string()]);
            client.queue(&["EXEC"]);
        }
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30 + 40 * round));
            server.kill9().unwrap();
            server
        });
        while let Ok(reply) = client.receive() {
            acknowledged += i64::from(matches!(reply, Reply::Array(_)));
        }
        server = killer.join().unwrap();
        server.restart().unwrap();
    }
    let mut client = server.client().unwrap();
    let count = client.ask("GET counter").unwrap().int().unwrap();
    assert!(count >= acknowledged && count > 0, "{acknowledged} acknowledged, {count} there");
    let list = client.ask("LRANGE list 0 -1").unwrap();
    let numbers: Vec<i64> = list.items().unwrap().iter().filter_map(Reply::int).collect();
    let wrong = numbers.iter().copied().zip(0..).find(|(number, place)| number != place);
    assert_eq!(wrong, None, "a number and its place, of {}", numbers.len());
    assert_eq!(numbers.len() as i64, count);
}

const LIMIT: Duration = Duration::from_secs(15);

/// A disk whose syncs fail on demand.
struct Syncs {
    dir: PathBuf,
}

impl Syncs {
    fn new(name: &str) -> Syncs {
        let dir = std::env::temp_dir().join(format!("ardb-e2e-syncs-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/failing_sync.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(dir.join("shim.so")).arg(source).arg("-ldl");
        assert!(cc.status().expect("a C compiler, as for the real servers").success());
        Syncs { dir }
    }

    fn under(&self, setup: Setup) -> Setup {
        setup
            .with_variable("LD_PRELOAD", self.dir.join("shim.so"))
            .with_variable("ARDB_FAIL_SYNC", self.dir.join("fail"))
    }

    fn fail(&self, on: bool) {
        let name = self.dir.join("fail");
        if on { drop(File::create(name).unwrap()) } else { fs::remove_file(name).unwrap() }
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn history(server: &Server) -> [String; 2] {
    let info = server.client().unwrap().info("replication").unwrap();
    ["master_replid", "master_replid2"].map(|name| info[name].clone())
}

#[test]
fn where_every_write_is_synced_nobody_sees_one_that_could_not_be() {
    if stands_in() {
        return;
    }
    let syncs = Syncs::new("always");
    let mut server = syncs.under(Setup::ardb()).with("appendfsync", "always").start().unwrap();
    let replicas = [Setup::ardb().start().unwrap(), Setup::redis("7.0").start().unwrap()];
    let mut client = server.client().unwrap();
    client.must("SET a 1").unwrap();
    for replica in &replicas {
        follow(replica, &server).unwrap();
        wait_equal(&server, replica, LIMIT).unwrap();
    }
    syncs.fail(true);
    // No reply: nobody knows.
    assert!(client.ask("SET b 1").is_err());
    let status = server.wait_end(LIMIT).unwrap();
    assert_eq!(status.code(), Some(1), "{}", server.log_tail());
    std::thread::sleep(Duration::from_millis(300));
    for replica in &replicas {
        let mut client = replica.client().unwrap();
        assert_eq!(client.ask("GET a").unwrap().int(), Some(1));
        assert_eq!(client.ask("EXISTS b").unwrap().int(), Some(0), "it has what its master may lose");
    }
    syncs.fail(false);
    server.restart().unwrap();
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("GET a").unwrap().int(), Some(1));
    client.must("SET c 1").unwrap();
    for replica in &replicas {
        wait_equal(&server, replica, LIMIT).unwrap();
    }
}

#[test]
fn after_a_sync_that_failed_writes_are_refused_and_a_restart_begins_another_history() {
    if stands_in() {
        return;
    }
    let syncs = Syncs::new("everysec");
    let mut server = syncs.under(Setup::ardb()).start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("SET a 1").unwrap();
    follow(&replica, &server).unwrap();
    wait_equal(&server, &replica, LIMIT).unwrap();
    let [before, _] = history(&server);
    syncs.fail(true);
    client.must("SET b 1").unwrap();
    wait_until("writes are refused", LIMIT, || Ok(client.ask("SET b 2")?.text().starts_with("MISCONF"))).unwrap();
    assert!(client.ask("GET b").unwrap().int() >= Some(1), "reads go on");
    // The disk is well again, but the log is not.
    syncs.fail(false);
    assert!(client.ask("SET b 3").unwrap().text().starts_with("MISCONF"));
    assert_eq!(history(&server)[0], before);
    server.restart().unwrap();
    let [after, second] = history(&server);
    assert!(after != before && second == before, "{before} before, {after} and {second} now");
    server.client().unwrap().must("SET b 4").unwrap();
    wait_equal(&server, &replica, LIMIT).unwrap();
    let [after, _] = history(&server);
    server.restart().unwrap();
    assert_eq!(history(&server)[0], after, "once is enough");
}

/// A key is due while a script holds the writer lock, so that whoever deletes it waits; the log is synced all the same.
#[test]
fn the_log_is_synced_once_a_second_whoever_waits_for_the_lock() {
    if stands_in() {
        return;
    }
    let setup = Setup::ardb().with("appendfsync", "everysec").with("busy-reply-threshold", 4000);
    let server = setup.with_own("io-threads", 2).start().unwrap();
    let mut probes: Vec<Client> = (0..8).map(|_| server.client().unwrap()).collect();
    for probe in &mut probes {
        probe.set_timeout(Duration::from_millis(200)).unwrap();
        probe.must("PING").unwrap();
    }
    let mut runner = server.client().unwrap();
    runner.must("SET due v PX 20").unwrap();
    runner.queue(&["EVAL", "while true do end", "0"]);
    runner.flush().unwrap();
    let started = Instant::now();
    let mut synced = false;
    while !synced && started.elapsed() < Duration::from_millis(3500) {
        std::thread::sleep(Duration::from_millis(50));
        // Those whose thread runs the script are silent.
        probes.retain_mut(|probe| match probe.info("storage") {
            Ok(info) => {
                synced |= info["log_synced"] == info["log_end"];
                true
            }
            Err(_) => false,
        });
    }
    assert!(!probes.is_empty(), "no thread is free of the script");
    assert!(synced, "{}", server.log_tail());
    let kill = || Ok(server.client()?.ask("SCRIPT KILL")?.is_ok());
    wait_until("the script can be killed", LIMIT, kill).unwrap();
}

#[test]
fn a_second_server_in_the_same_folder_is_refused() {
    if stands_in() {
        return;
    }
    let server = Setup::ardb().start().unwrap();
    server.client().unwrap().must("SET a 1").unwrap();
    let output = std::process::Command::new(ardb_e2e::peers::ardb_server().unwrap())
        .args(["--port", "0", "--unixsocket", "second.sock", "--dir"])
        .arg(&server.dir)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(server.client().unwrap().ask("GET a").unwrap().text(), "1");
}
