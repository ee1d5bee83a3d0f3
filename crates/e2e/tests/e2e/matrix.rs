//! Ardb beside servers of other ages, both ways. The full matrix with longer loads is the program `matrix`.

use std::time::Duration;

use ardb_e2e::options::seed;
use ardb_e2e::pairing::{OURS, Plan, Side, run};
use ardb_e2e::server::{Kind, stands_in};

const NEWEST: Side = Side::Server(Kind::Valkey("9.1"));
const REDIS_8: Side = Side::Server(Kind::Redis("8"));

fn pair(master: Side, replica: Side) {
    let seed = seed();
    eprintln!("seed {seed}");
    let plan = Plan { seed, keys: 3000, rate: 5000, time: Duration::from_secs(3) };
    let figure = run(master, replica, plan).unwrap();
    eprintln!("{} commands, {}", figure.commands, figure.summary);
    assert!(figure.commands > 3000, "{figure:?}");
}

#[test]
fn redis_2_6_follows_ardb() {
    if !stands_in() {
        pair(OURS, Side::Redis26);
    }
}

#[test]
fn ardb_follows_redis_2_6() {
    pair(Side::Redis26, OURS);
}

#[test]
fn valkey_follows_ardb() {
    pair(OURS, NEWEST);
}

#[test]
fn ardb_follows_valkey() {
    if !stands_in() {
        pair(NEWEST, OURS);
    }
}

#[test]
fn redis_8_follows_ardb() {
    pair(OURS, REDIS_8);
}

#[test]
fn ardb_follows_redis_8() {
    if !stands_in() {
        pair(REDIS_8, OURS);
    }
}

#[test]
fn ardb_follows_ardb() {
    pair(OURS, OURS);
}
