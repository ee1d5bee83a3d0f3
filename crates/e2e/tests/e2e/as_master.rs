//! Real Redis servers follow the server under test.

use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::peers;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked};

const LIMIT: Duration = Duration::from_secs(15);

/// What a Redis replica prints when its master let it go on.
const WENT_ON: &str = "Successful partial resynchronization with master";
const WENT_ON_OLD: &str = "MASTER <-> SLAVE sync: Master accepted a Partial Resynchronization";
/// What it prints when it begins to receive everything.
const FULL: &str = "Full resync from master";

fn went_on(replica: &Server) -> usize {
    // Redis 2.8 prints both lines.
    replica.log_count(WENT_ON).max(replica.log_count(WENT_ON_OLD))
}

fn loaded(setup: Setup) -> (Server, Load) {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = setup.start().unwrap();
    populate(&mut master.client().unwrap(), seed, 5000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 8000);
    (master, load)
}

fn is_followed_under_load(replica: Setup) {
    let (master, load) = loaded(Setup::ardb());
    let replica = replica.start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    load.wait_more(15_000).unwrap();
    load.stop().unwrap();
    let digest = wait_equal(&master, &replica, LIMIT).unwrap();
    assert!(digest.len() > 1000, "{}", digest.summary());
    assert_eq!(replica.log_count(FULL), 1, "{}", replica.log_tail());
    assert_eq!(syncs(&mut master.client().unwrap()).unwrap().0, 1);
}

#[test]
fn redis_7_under_load() {
    is_followed_under_load(Setup::redis("7.0"));
}

#[test]
fn redis_7_loading_from_the_socket() {
    is_followed_under_load(Setup::redis("7.0").with("repl-diskless-load", "swapdb"));
}

#[test]
fn redis_2_8_under_load() {
    // A Redis 7.0 that stands in sends an RDB that 2.8 cannot read.
    if !stands_in() {
        is_followed_under_load(Setup::redis("2.8"));
    }
}

#[test]
fn redis_3_2_under_load() {
    if !stands_in() {
        is_followed_under_load(Setup::redis("3.2"));
    }
}

#[test]
fn all_go_on_after_the_master_was_killed() {
    if stands_in() {
        return; // A Redis that was killed has forgotten its history.
    }
    let (mut master, load) = loaded(Setup::ardb());
    let replicas = [Setup::redis("7.0"), Setup::redis("2.8"), Setup::ardb()].map(|setup| setup.start().unwrap());
    for replica in &replicas {
        follow(replica, &master).unwrap();
        wait_linked(replica, LIMIT).unwrap();
    }
    for round in 1..=2 {
        load.wait_more(4000).unwrap();
        master.kill9().unwrap();
        master.restart().unwrap();
        load.wait_more(4000).unwrap();
        for replica in &replicas {
            wait_linked(replica, LIMIT).unwrap();
            assert_eq!(replica.log_count(FULL), 1, "{}:\n{}", replica.name(), replica.log_tail());
            assert_eq!(went_on(replica), round, "{}:\n{}", replica.name(), replica.log_tail());
        }
    }
    load.stop().unwrap();
    for replica in &replicas {
        wait_equal(&master, replica, LIMIT).unwrap();
        assert_eq!(replica.log_count(FULL), 1);
    }
}

#[test]
fn a_replica_goes_on_after_a_clean_restart_of_the_master() {
    if stands_in() {
        return; // Redis 7.0 needs an RDB of its own for that.
    }
    let (mut master, load) = loaded(Setup::ardb());
    let replica = Setup::redis("7.0").start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    load.wait_more(2000).unwrap();
    master.terminate().unwrap();
    master.restart().unwrap();
    load.wait_more(2000).unwrap();
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!((replica.log_count(FULL), went_on(&replica)), (1, 1), "{}", replica.log_tail());
}

#[test]
fn a_replica_goes_on_over_promotion_through_the_second_id() {
    let seed = seed();
    let origin = Setup::redis("7.0").start().unwrap();
    populate(&mut origin.client().unwrap(), seed, 2000).unwrap();
    let ardb = Setup::ardb().start().unwrap();
    let sibling = Setup::redis("7.0").start().unwrap();
    for replica in [&ardb, &sibling] {
        follow(replica, &origin).unwrap();
        wait_linked(replica, LIMIT).unwrap();
    }
    let load = Load::start(origin.port, Generator::new(seed, Flavor::New, 300), 8000);
    load.wait_more(3000).unwrap();
    load.stop().unwrap();
    for replica in [&ardb, &sibling] {
        wait_equal(&origin, replica, LIMIT).unwrap();
    }
    drop(origin);
    ardb.client().unwrap().must("REPLICAOF NO ONE").unwrap();
    follow(&sibling, &ardb).unwrap();
    let load = Load::start(ardb.port, Generator::new(seed + 1, Flavor::New, 300), 8000);
    load.wait_more(3000).unwrap();
    load.stop().unwrap();
    wait_equal(&ardb, &sibling, LIMIT).unwrap();
    assert_eq!(syncs(&mut ardb.client().unwrap()).unwrap(), (0, 1), "{}", ardb.log_tail());
}

#[test]
fn a_chain_passes_everything_on() {
    let seed = seed();
    let origin = Setup::redis("7.0").start().unwrap();
    populate(&mut origin.client().unwrap(), seed, 2000).unwrap();
    let middle = Setup::ardb().start().unwrap();
    let last = Setup::redis("7.0").start().unwrap();
    follow(&middle, &origin).unwrap();
    wait_linked(&middle, LIMIT).unwrap();
    follow(&last, &middle).unwrap();
    wait_linked(&last, LIMIT).unwrap();
    let load = Load::start(origin.port, Generator::new(seed, Flavor::New, 300), 8000);
    load.wait_more(5000).unwrap();
    load.stop().unwrap();
    wait_equal(&origin, &middle, LIMIT).unwrap();
    wait_equal(&origin, &last, LIMIT).unwrap();
}

#[test]
fn a_dump_taken_under_load_passes_the_checker() {
    let (master, load) = loaded(Setup::ardb());
    let file = master.dir.join("taken.rdb");
    let output = std::process::Command::new(peers::peer("redis-cli").unwrap())
        .args(["-p", &master.port.to_string(), "--rdb"])
        .arg(&file)
        .output()
        .unwrap();
    load.stop().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = std::process::Command::new(peers::peer("redis-check-rdb-7.0").unwrap()).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("RDB looks OK"), "{text}");
}

#[test]
fn wait_counts_the_replicas_that_have_it() {
    let master = Setup::ardb().start().unwrap();
    let replica = Setup::redis("7.0").start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    client.must("SET a 1").unwrap();
    assert_eq!(client.ask("WAIT 1 5000").unwrap().int(), Some(1));
    assert_eq!(client.ask("WAIT 2 50").unwrap().int(), Some(1));
}
