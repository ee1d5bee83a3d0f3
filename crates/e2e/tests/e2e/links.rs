//! Links that are cut at random bytes, by a proxy between a master and its replica.

use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Kind, Setup, stands_in};
use ardb_e2e::wait::{syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// Under load, with `wanted` cuts: one full sync in all, and equal in the end.
fn heals(master: Setup, replica: Setup, flavor: Flavor, wanted: u64) {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master.start().unwrap();
    populate(&mut master.client().unwrap(), seed, 2000).unwrap();
    let replica = replica.start().unwrap();
    let proxy = Proxy::start(master.port, seed).unwrap();
    if replica.kind() != Kind::Ardb {
        // Redis 2.8 starts over if it has not read the whole answer to its PSYNC.
        proxy.least(64);
    }
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let load = Load::start(master.port, Generator::new(seed, flavor, 300), 3000);
    proxy.cutting(true);
    wait_until("the link has been cut often", Duration::from_secs(60), || Ok(proxy.cuts() >= wanted)).unwrap();
    proxy.cutting(false);
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let (full, _) = syncs(&mut master.client().unwrap()).unwrap();
    assert!(stands_in() || full == 1, "{full} full syncs:\n{}", replica.log_tail());
}

#[test]
fn a_cut_link_to_redis_7_heals() {
    heals(Setup::redis("7.0"), Setup::ardb(), Flavor::New, 40);
}

#[test]
fn a_cut_link_to_redis_2_8_heals() {
    heals(Setup::redis("2.8"), Setup::ardb(), Flavor::Old, 40);
}

#[test]
fn a_cut_link_from_redis_7_heals() {
    // It waits a second before each attempt.
    heals(Setup::ardb(), Setup::redis("7.0"), Flavor::New, 5);
}

#[test]
fn a_cut_link_from_redis_2_8_heals() {
    if !stands_in() {
        heals(Setup::ardb(), Setup::redis("2.8"), Flavor::New, 5);
    }
}

#[test]
fn a_cut_link_between_two_of_ours_heals() {
    heals(Setup::ardb(), Setup::ardb(), Flavor::New, 40);
}

#[test]
fn what_cannot_be_applied_stops_the_link_and_says_so() {
    if stands_in() {
        return; // Redis knows streams.
    }
    let master = Setup::redis("7.0").start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    let mut client = master.client().unwrap();
    client.must("SET a 1").unwrap();
    replica.client().unwrap().must(&format!("REPLICAOF 127.0.0.1 {}", master.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    // They may come in one piece: what stands before the unknown command is applied.
    client.queue(&["SET", "before", "1"]);
    client.queue(&["XADD", "stream", "*", "field", "value"]);
    client.queue(&["SET", "after", "1"]);
    client.flush().unwrap();
    for _ in 0..3 {
        client.receive().unwrap();
    }
    let mut follower = replica.client().unwrap();
    wait_until("the link stops", LIMIT, || Ok(follower.info("replication")?["master_link_status"] == "down")).unwrap();
    let info = follower.info("replication").unwrap();
    assert_eq!(info["master_link_stopped"], "1");
    assert!(info["master_link_error"].to_lowercase().contains("'xadd'"), "{}", info["master_link_error"]);
    assert_eq!(follower.ask("GET before").unwrap().text(), "1");
    assert_eq!(follower.ask("EXISTS after").unwrap().int(), Some(0));
    // Another attempt comes to the same place, and tells the same.
    follower.must(&format!("REPLICAOF 127.0.0.1 {}", master.port)).unwrap();
    wait_until("it stops again", LIMIT, || Ok(follower.info("replication")?["master_link_stopped"] == "1")).unwrap();
    assert_eq!(replica.log_count("cannot be applied any further"), 2, "{}", replica.log_tail());
}
