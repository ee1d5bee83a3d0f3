//! Chains and siblings: a replica of a replica, cuts anywhere, promotions, and who goes on from where.

use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, offsets, syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

fn follow_through(replica: &Server, proxy: &Proxy) {
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port)).unwrap();
    wait_linked(replica, LIMIT).unwrap();
}

fn full(server: &Server) -> i64 {
    syncs(&mut server.client().unwrap()).unwrap().0
}

/// `last` follows `middle`, which follows `origin`, each through a proxy; the links are cut in turn under load. One full sync a
/// link, and all equal.
fn chain_heals(origin: Setup, middle: Setup, last: Setup, flavor: Flavor) {
    let seed = seed();
    eprintln!("seed {seed}");
    let (origin, middle, last) = (origin.start().unwrap(), middle.start().unwrap(), last.start().unwrap());
    populate(&mut origin.client().unwrap(), seed, 2000).unwrap();
    let (upper, lower) = (Proxy::start(origin.port, seed).unwrap(), Proxy::start(middle.port, seed + 1).unwrap());
    let load = Load::start(origin.port, Generator::new(seed, flavor, 300), 3000);
    follow_through(&middle, &upper);
    follow_through(&last, &lower);
    for round in 0..3 {
        load.wait_more(1500).unwrap();
        match round {
            0 => upper.cut(),
            1 => lower.cut(),
            _ => {
                upper.cut();
                lower.cut();
            }
        }
        load.wait_more(1500).unwrap();
        wait_linked(&middle, LIMIT).unwrap();
        wait_linked(&last, LIMIT).unwrap();
    }
    load.stop().unwrap();
    wait_equal(&origin, &middle, LIMIT).unwrap();
    wait_equal(&middle, &last, LIMIT).unwrap();
    assert_eq!((full(&origin), full(&middle)), (1, 1), "{}\n{}", middle.log_tail(), last.log_tail());
    // Offsets are the origin's all the way down.
    let offset = |server: &Server, name: &str| server.client().unwrap().info_number("replication", name).unwrap();
    let end = offset(&origin, "master_repl_offset");
    assert!(offset(&middle, "slave_repl_offset") <= end && offset(&last, "slave_repl_offset") <= end + 1000);
}

#[test]
fn redis_2_8_ardb_redis_2_8() {
    if !stands_in() {
        chain_heals(Setup::redis("2.8"), Setup::ardb(), Setup::redis("2.8"), Flavor::Old);
    }
}

/// An old replica behind a server of ours whose stream has another database selected than 0, and never selects it again.
fn an_old_replica_learns_what_is_selected(last: Setup) {
    if stands_in() {
        return;
    }
    let (origin, middle, last) =
        (Setup::redis("7.0").start().unwrap(), Setup::ardb().start().unwrap(), last.start().unwrap());
    let (upper, lower) = (Proxy::start(origin.port, 1).unwrap(), Proxy::start(middle.port, 2).unwrap());
    follow_through(&middle, &upper);
    let mut client = origin.client().unwrap();
    client.must("SELECT 3").unwrap();
    client.must("INCR counter").unwrap();
    wait_equal(&origin, &middle, LIMIT).unwrap();
    follow_through(&last, &lower);
    // What follows says no database.
    client.must("INCR counter").unwrap();
    wait_equal(&middle, &last, LIMIT).unwrap();
    // It goes on after a cut, and after the history has got another name.
    for round in 0..2 {
        lower.refusing(true);
        lower.cut();
        client.must("INCR counter").unwrap();
        if round == 1 {
            wait_equal(&origin, &middle, LIMIT).unwrap();
            middle.client().unwrap().must("REPLICAOF NO ONE").unwrap();
            client = middle.client().unwrap();
            client.must("SELECT 5").unwrap();
            client.must("INCR counter").unwrap();
        }
        lower.refusing(false);
        wait_linked(&last, LIMIT).unwrap();
        client.must("INCR counter").unwrap();
        wait_equal(&middle, &last, LIMIT).unwrap();
    }
    assert_eq!(full(&middle), 1, "{}\n{}", middle.log_tail(), last.log_tail());
    assert_eq!(syncs(&mut middle.client().unwrap()).unwrap().1, 2, "{}", last.log_tail());
}

#[test]
fn redis_2_8_behind_ardb_learns_what_is_selected() {
    an_old_replica_learns_what_is_selected(Setup::redis("2.8"));
}

#[test]
fn redis_3_2_behind_ardb_learns_what_is_selected() {
    an_old_replica_learns_what_is_selected(Setup::redis("3.2"));
}

#[test]
fn redis_7_ardb_redis_7() {
    chain_heals(Setup::redis("7.0"), Setup::ardb(), Setup::redis("7.0"), Flavor::New);
}

#[test]
fn ardb_ardb_ardb() {
    chain_heals(Setup::ardb(), Setup::ardb(), Setup::ardb(), Flavor::New);
}

#[test]
fn ardb_redis_7_ardb() {
    chain_heals(Setup::ardb(), Setup::redis("7.0"), Setup::ardb(), Flavor::New);
}

/// `origin` with two replicas goes away; one of them is promoted, and the other one goes on with it. Then the origin comes back as its
/// replica, having written nothing more.
fn siblings_go_on(origin: Setup, heir: Setup, sibling: Setup) {
    let seed = seed();
    eprintln!("seed {seed}");
    let (origin, heir, sibling) = (origin.start().unwrap(), heir.start().unwrap(), sibling.start().unwrap());
    populate(&mut origin.client().unwrap(), seed, 2000).unwrap();
    for replica in [&heir, &sibling] {
        follow(replica, &origin).unwrap();
        wait_linked(replica, LIMIT).unwrap();
    }
    let load = Load::start(origin.port, Generator::new(seed, Flavor::New, 300), 5000);
    load.wait_more(4000).unwrap();
    load.stop().unwrap();
    // Deleting what is due is writing, too.
    origin.client().unwrap().must("DEBUG SET-ACTIVE-EXPIRE 0").unwrap();
    for replica in [&heir, &sibling] {
        wait_equal(&origin, replica, LIMIT).unwrap();
    }
    // Looking at a key that is due deletes it.
    for replica in [&heir, &sibling] {
        wait_until("it has everything", LIMIT, || offsets(&origin, replica).map(|(one, other)| one == other)).unwrap();
    }
    let before = heir.client().unwrap().info("replication").unwrap();
    heir.client().unwrap().must("SLAVEOF NO ONE").unwrap();
    follow(&sibling, &heir).unwrap();
    follow(&origin, &heir).unwrap();
    let load = Load::start(heir.port, Generator::new(seed + 1, Flavor::New, 300), 5000);
    for replica in [&sibling, &origin] {
        wait_linked(replica, LIMIT).unwrap();
    }
    load.wait_more(4000).unwrap();
    load.stop().unwrap();
    for replica in [&sibling, &origin] {
        wait_equal(&heir, replica, LIMIT).unwrap();
    }
    assert_eq!(full(&heir), 0, "{}\n{}\n{}", heir.log_tail(), sibling.log_tail(), origin.log_tail());
    let after = heir.client().unwrap().info("replication").unwrap();
    assert_ne!(after["master_replid"], before["master_replid"]);
    assert_eq!(after["master_replid2"], before["master_replid"]);
    // All call the history by its new name.
    for replica in [&sibling, &origin] {
        assert_eq!(replica.client().unwrap().info("replication").unwrap()["master_replid"], after["master_replid"]);
    }
}

#[test]
fn siblings_of_ours_go_on_with_the_promoted_one() {
    siblings_go_on(Setup::ardb(), Setup::ardb(), Setup::ardb());
}

#[test]
fn a_promoted_redis_takes_our_replicas() {
    siblings_go_on(Setup::ardb(), Setup::redis("7.0"), Setup::ardb());
}

#[test]
fn a_promoted_ardb_takes_replicas_of_redis() {
    siblings_go_on(Setup::redis("7.0"), Setup::ardb(), Setup::redis("7.0"));
}

#[test]
fn a_promoted_valkey_takes_our_replicas() {
    if !stands_in() {
        siblings_go_on(Setup::ardb(), Setup::valkey(), Setup::ardb());
    }
}

#[test]
fn what_a_promoted_one_never_had_is_not_gone_on_from() {
    let seed = seed();
    let origin = Setup::ardb().start().unwrap();
    populate(&mut origin.client().unwrap(), seed, 1000).unwrap();
    let heir = Setup::ardb().start().unwrap();
    let proxy = Proxy::start(origin.port, seed).unwrap();
    follow_through(&heir, &proxy);
    wait_equal(&origin, &heir, LIMIT).unwrap();
    // The heir is cut off, and the origin writes on.
    proxy.refusing(true);
    proxy.cut();
    wait_until("it is cut off", LIMIT, || Ok(heir.client()?.info("replication")?["master_link_status"] == "down"))
        .unwrap();
    let mut client = origin.client().unwrap();
    client.must("SET only-here 1").unwrap();
    heir.client().unwrap().must("REPLICAOF NO ONE").unwrap();
    heir.client().unwrap().must("SET only-there 1").unwrap();
    follow(&origin, &heir).unwrap();
    wait_equal(&heir, &origin, LIMIT).unwrap();
    assert_eq!(client.ask("EXISTS only-here only-there").unwrap().int(), Some(1));
    assert_eq!(full(&heir), 1, "{}", heir.log_tail());
}

#[test]
fn one_that_follows_itself_does_not_call_its_link_up() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("SET a 1").unwrap();
    follow(&server, &server).unwrap();
    wait_until("it is refused", LIMIT, || Ok(server.log_count("NOMASTERLINK") >= 2)).unwrap();
    assert_eq!(client.info("replication").unwrap()["master_link_status"], "down", "{}", server.log_tail());
    client.must("REPLICAOF NO ONE").unwrap();
    client.must("SET a 2").unwrap();
}
