//! What a restart may change: nothing.

use std::time::Duration;

use ardb_e2e::digest::Digest;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::Setup;

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

#[test]
fn a_second_server_in_the_same_folder_is_refused() {
    if ardb_e2e::server::stands_in() {
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
