//! What operators and failover tools do to a group: FAILOVER, WAIT and WAITAOF, Sentinel's transaction, replicas that stand still.

use std::time::{Duration, Instant};

use ardb_e2e::Result;
use ardb_e2e::load::{Flavor, Generator, Load};
use ardb_e2e::options::seed;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(15);

fn group(master: Setup, replica: Setup) -> (Server, Server) {
    let master = master.start().unwrap();
    master.client().unwrap().must("SET a 1").unwrap();
    let replica = replica.start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    online(&master, 1);
    (master, replica)
}

fn online(master: &Server, count: usize) {
    wait_until("all replicas are online", LIMIT, || {
        let info = master.client()?.info("replication")?;
        Ok(info.iter().filter(|(name, value)| name.starts_with("slave") && value.contains("state=online")).count()
            == count)
    })
    .unwrap();
}

fn role(server: &Server) -> Result<String> {
    Ok(server.client()?.must("ROLE")?.items().and_then(|items| items.first()).map(Reply::text).unwrap_or_default())
}

fn state(server: &Server) -> Result<String> {
    Ok(server.client()?.info("replication")?.get("master_failover_state").cloned().unwrap_or_default())
}

/// Under load, the role goes to the replica and comes back; nothing that was acknowledged is missing, and nobody is sent everything again.
fn hands_over(first: Setup, second: Setup) {
    let seed = seed();
    eprintln!("seed {seed}");
    let (one, other) = group(first, second);
    let before = syncs(&mut one.client().unwrap()).unwrap().0;
    for (from, to) in [(&one, &other), (&other, &one)] {
        let mut client = from.client().unwrap();
        let load = Load::start(from.port, Generator::new(seed, Flavor::New, 100), 3000);
        load.wait_more(2000).unwrap();
        let reply = client.must(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 10000", to.port)).unwrap();
        assert!(reply.is_ok(), "{reply}");
        wait_until("the failover is done", LIMIT, || Ok(state(from)? == "no-failover" && role(from)? == "slave"))
            .unwrap();
        // From here on it hears READONLY only.
        drop(load);
        assert_eq!(role(to).unwrap(), "master", "{}", from.log_tail());
        to.client().unwrap().must("INCR handed").unwrap();
        wait_equal(to, from, LIMIT).unwrap();
    }
    assert_eq!(one.client().unwrap().ask("GET handed").unwrap().int(), Some(2));
    let after = syncs(&mut one.client().unwrap()).unwrap().0 + syncs(&mut other.client().unwrap()).unwrap().0;
    assert_eq!(after, before, "{}\n{}", one.log_tail(), other.log_tail());
}

#[test]
fn failover_between_two_of_ours() {
    hands_over(Setup::ardb(), Setup::ardb());
}

#[test]
fn failover_to_redis_7_and_back() {
    hands_over(Setup::ardb(), Setup::redis("7.0"));
}

#[test]
fn failovers_that_must_not_happen() {
    let (master, replica) = group(Setup::ardb(), Setup::ardb());
    let mut client = master.client().unwrap();
    let port = replica.port;
    for (command, start) in [
        ("FAILOVER ABORT", "ERR No failover in progress."),
        ("FAILOVER TO 127.0.0.1 nonsense", "ERR value is not an integer"),
        ("FAILOVER TO 127.0.0.1 1", "ERR FAILOVER target HOST and PORT is not a replica."),
        (&format!("FAILOVER TO nowhere {port}"), "ERR FAILOVER target HOST and PORT is not a replica."),
        (&format!("FAILOVER TO 127.0.0.1 {port} FORCE"), "ERR FAILOVER with force option requires both"),
        ("FAILOVER FORCE TIMEOUT 100", "ERR FAILOVER with force option requires both"),
        ("FAILOVER TIMEOUT 0", "ERR FAILOVER timeout must be greater than 0"),
        ("FAILOVER NOW", "ERR syntax error"),
    ] {
        let reply = client.ask(command).unwrap();
        assert!(reply.is_error() && reply.text().starts_with(start), "{command}: {reply}");
    }
    let reply = replica.client().unwrap().ask("FAILOVER").unwrap();
    assert!(reply.text().starts_with("ERR FAILOVER is not valid when server is a replica."), "{reply}");
    let reply = client.ask("PSYNC 0123456789012345678901234567890123456789 1 FAILOVER").unwrap();
    assert!(reply.text().starts_with("ERR PSYNC FAILOVER can't be sent to a master."), "{reply}");
    let reply = replica.client().unwrap().ask("PSYNC 0123456789012345678901234567890123456789 1 FAILOVER").unwrap();
    assert!(reply.text().starts_with("ERR PSYNC FAILOVER replid must match my replid."), "{reply}");
    // One that has lost what was handed over with the role.
    let history = client.info("replication").unwrap()["master_replid"].clone();
    let reply = replica.client().unwrap().ask(&format!("PSYNC {history} 1000000 FAILOVER COMPLETE")).unwrap();
    assert!(reply.text().starts_with("ERR PSYNC FAILOVER was complete up to 999999, and I have only "), "{reply}");
    assert_eq!((role(&master).unwrap(), role(&replica).unwrap()), ("master".into(), "slave".into()));
}

#[test]
fn a_failover_waits_and_can_be_given_up() {
    let (master, replica) = group(Setup::ardb(), Setup::ardb());
    let mut client = master.client().unwrap();
    let history = client.info("replication").unwrap()["master_replid"].clone();
    let ms = if stands_in() { 2000 } else { 700 };
    for abort in [true, false] {
        replica.signal("STOP").unwrap();
        client.must("INCR a").unwrap();
        client
            .must(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT {}", replica.port, if abort { 60_000 } else { ms }))
            .unwrap();
        assert_eq!(state(&master).unwrap(), "waiting-for-sync");
        assert!(client.ask("FAILOVER").unwrap().text().contains("already in progress"));
        let mut writer = master.client().unwrap();
        writer.queue(&["INCR", "a"]);
        writer.flush().unwrap();
        assert_eq!(client.ask("GET a").unwrap().int(), Some(if abort { 2 } else { 4 }), "reads go on, writes wait");
        if abort {
            client.must("FAILOVER ABORT").unwrap();
        }
        assert_eq!(writer.receive().unwrap().int(), Some(if abort { 3 } else { 5 }));
        assert_eq!((state(&master).unwrap().as_str(), role(&master).unwrap().as_str()), ("no-failover", "master"));
        replica.signal("CONT").unwrap();
        wait_equal(&master, &replica, LIMIT).unwrap();
    }
    assert_eq!(client.info("replication").unwrap()["master_replid"], history, "nothing has happened to the history");
    // By force the role goes to a replica that lacks something, which then follows nobody.
    replica.signal("STOP").unwrap();
    client.must("SET lost 1").unwrap();
    client.must(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 200 FORCE", replica.port)).unwrap();
    wait_until("the time is up", LIMIT, || Ok(state(&master)? == "failover-in-progress")).unwrap();
    assert_eq!(role(&master).unwrap(), "slave", "there are never two masters");
    replica.signal("CONT").unwrap();
    wait_until("the failover is done", LIMIT, || Ok(state(&master)? == "no-failover")).unwrap();
    assert_eq!((role(&master).unwrap(), role(&replica).unwrap()), ("slave".into(), "master".into()));
    wait_equal(&replica, &master, LIMIT).unwrap();
}

/// A master that is killed while it gives its role away, to a target that does not answer yet. The target still stands still.
fn killed_in_the_middle(target: Setup) -> (Server, Server) {
    let (mut master, replica) = group(Setup::ardb(), target);
    replica.signal("STOP").unwrap();
    let mut client = master.client().unwrap();
    client.must(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 200 FORCE", replica.port)).unwrap();
    wait_until("the role is given away", LIMIT, || Ok(role(&master)? == "slave")).unwrap();
    for _ in 0..2 {
        master.restart().unwrap();
        assert_eq!((role(&master).unwrap(), state(&master).unwrap()), ("slave".into(), "failover-in-progress".into()));
        let reply = master.client().unwrap().ask("SET b 1").unwrap();
        assert!(reply.text().starts_with("READONLY"), "{reply}");
    }
    (master, replica)
}

fn a_killed_failover_goes_on(target: Setup) {
    if stands_in() {
        return;
    }
    let (mut master, replica) = killed_in_the_middle(target);
    replica.signal("CONT").unwrap();
    wait_until("the failover is done", LIMIT, || Ok(state(&master)? == "no-failover" && role(&replica)? == "master"))
        .unwrap_or_else(|failure| panic!("{failure}\n{}\n{}", master.log_tail(), replica.log_tail()));
    replica.client().unwrap().must("INCR handed").unwrap();
    wait_equal(&replica, &master, LIMIT).unwrap();
    master.restart().unwrap();
    assert_eq!((role(&master).unwrap(), state(&master).unwrap()), ("slave".into(), "no-failover".into()));
    wait_equal(&replica, &master, LIMIT).unwrap();
}

#[test]
fn a_failover_goes_on_after_a_kill() {
    a_killed_failover_goes_on(Setup::ardb());
}

#[test]
fn a_failover_to_redis_7_goes_on_after_a_kill() {
    a_killed_failover_goes_on(Setup::redis("7.0"));
}

#[test]
fn a_failover_that_goes_on_after_a_kill_never_makes_a_second_master() {
    if stands_in() {
        return;
    }
    // Somebody has put the target under another master meanwhile.
    let (master, replica) = killed_in_the_middle(Setup::ardb());
    let other = Setup::ardb().start().unwrap();
    other.client().unwrap().must("SET other 1").unwrap();
    master.signal("STOP").unwrap();
    replica.signal("CONT").unwrap();
    follow(&replica, &other).unwrap();
    wait_equal(&other, &replica, LIMIT).unwrap();
    master.signal("CONT").unwrap();
    wait_until("it is no failover any more", LIMIT, || Ok(state(&master)? == "no-failover")).unwrap();
    assert_eq!(role(&master).unwrap(), "slave", "{}", master.log_tail());
    wait_equal(&other, &master, LIMIT).unwrap();
    // Operators end it as they like.
    for command in ["REPLICAOF NO ONE", "FAILOVER ABORT"] {
        let (mut master, replica) = killed_in_the_middle(Setup::ardb());
        assert!(master.client().unwrap().must(command).unwrap().is_ok(), "{command}");
        for _ in 0..2 {
            assert_eq!((role(&master).unwrap(), state(&master).unwrap()), ("master".into(), "no-failover".into()));
            master.client().unwrap().must("INCR a").unwrap();
            master.restart().unwrap();
        }
        drop(replica);
    }
}

#[test]
fn sentinels_transaction_changes_the_role() {
    let (master, replica) = group(Setup::ardb(), Setup::ardb());
    let mut client = replica.client().unwrap();
    let transaction =
        ["MULTI", "SLAVEOF NO ONE", "CONFIG REWRITE", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub", "EXEC"];
    // In one piece with a write, which holds the lock that the change of the role needs.
    for command in ["SET b 1"].iter().chain(&transaction) {
        client.queue(&command.split(' ').collect::<Vec<_>>());
    }
    client.flush().unwrap();
    assert!(client.receive().unwrap().text().starts_with("READONLY"));
    for _ in 0..5 {
        assert!(!client.receive().unwrap().is_error());
    }
    let reply = client.receive().unwrap();
    assert!(reply.items().is_some_and(|items| items.len() == 4 && items[0].is_ok()), "{reply}");
    assert_eq!(role(&replica).unwrap(), "master");
    let mut client = master.client().unwrap();
    let commands = ["SET c 1", "MULTI", &format!("SLAVEOF 127.0.0.1 {}", replica.port), "INFO replication", "EXEC"];
    for command in commands {
        client.queue(&command.split(' ').collect::<Vec<_>>());
    }
    client.flush().unwrap();
    for _ in 0..4 {
        assert!(!client.receive().unwrap().is_error());
    }
    let reply = client.receive().unwrap();
    let info = reply.items().map(|items| items[1].text()).unwrap_or_default();
    assert!(info.contains("role:slave") && info.contains("master_link_status:down"), "{reply}");
    wait_linked(&master, LIMIT).unwrap();
    // A transaction that writes and changes the role is refused as a whole.
    let mut client = replica.client().unwrap();
    for command in ["MULTI", "SET d 1", "REPLICAOF NO ONE"] {
        client.must(command).unwrap();
    }
    let reply = client.ask("EXEC").unwrap();
    assert!(stands_in() || reply.text().starts_with("EXECABORT"), "{reply}");
}

#[test]
fn waitaof_waits_for_disks() {
    let (master, _replica) = group(Setup::ardb(), Setup::ardb());
    let mut client = master.client().unwrap();
    let pair = |reply: &Reply| reply.items().map(|items| items.iter().filter_map(Reply::int).collect::<Vec<_>>());
    // Both sync their logs once a second.
    client.must("SET a 2").unwrap();
    let reply = client.must("WAITAOF 1 1 5000").unwrap();
    assert_eq!(pair(&reply), Some(vec![1, 1]), "{reply}");
    client.must("SET a 3").unwrap();
    let started = Instant::now();
    let reply = client.must("WAITAOF 0 2 300").unwrap();
    assert!(pair(&reply).is_some_and(|pair| pair[1] <= 1), "{reply}");
    assert!(started.elapsed() >= Duration::from_millis(290));
    client.must("CONFIG SET appendfsync always").unwrap();
    client.must("SET a 4").unwrap();
    assert_eq!(pair(&client.must("WAITAOF 1 0 0").unwrap()).map(|pair| pair[0]), Some(1));
    for (command, start) in [
        ("WAITAOF 2 0 0", "ERR value is out of range"),
        ("WAITAOF 0 -1 0", "ERR value is out of range"),
        ("WAITAOF 0 0 -1", "ERR timeout is negative"),
        ("WAITAOF x 0 0", "ERR value is not an integer"),
    ] {
        let reply = client.ask(command).unwrap();
        assert!(reply.text().starts_with(start), "{command}: {reply}");
    }
}

#[test]
fn a_redis_8_master_knows_what_is_durable_here() {
    let master = Setup::redis("8").with("appendonly", "yes").start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    client.must("SET a 1").unwrap();
    let reply = client.must("WAITAOF 1 1 5000").unwrap();
    let numbers: Vec<_> = reply.items().unwrap_or_default().iter().filter_map(Reply::int).collect();
    assert!(stands_in() || numbers == [1, 1], "{reply}");
}

#[test]
fn a_replica_that_stands_still_costs_nothing() {
    const ROUNDS: usize = 60;
    let (master, slow) = group(Setup::ardb().with("repl-backlog-size", "512mb"), Setup::ardb());
    let quick = Setup::redis("7.0").start().unwrap();
    follow(&quick, &master).unwrap();
    wait_linked(&quick, LIMIT).unwrap();
    online(&master, 2);
    let mut client = master.client().unwrap();
    let value = "x".repeat(4000);
    let round = |client: &mut ardb_e2e::client::Client| -> Duration {
        let started = Instant::now();
        for key in 0..500 {
            client.queue(&["SET", &format!("key:{key}"), &value]);
        }
        for _ in 0..500 {
            assert!(client.receive().unwrap().is_ok());
        }
        started.elapsed()
    };
    let before: Duration = (0..ROUNDS).map(|_| round(&mut client)).sum();
    let resident = master.resident().unwrap();
    slow.signal("STOP").unwrap();
    // 120 MB that the replica does not take.
    let meanwhile: Duration = (0..ROUNDS).map(|_| round(&mut client)).sum();
    let grown = master.resident().unwrap().saturating_sub(resident);
    let behind = {
        let info = client.info("replication").unwrap();
        info.get("master_repl_offset").and_then(|offset| offset.parse::<i64>().ok()).unwrap_or(0)
    };
    wait_until("the other one has everything", LIMIT, || {
        Ok(quick.client()?.info_number("replication", "slave_repl_offset")? >= behind)
    })
    .unwrap();
    slow.signal("CONT").unwrap();
    wait_equal(&master, &slow, LIMIT).unwrap();
    let (full, _) = syncs(&mut master.client().unwrap()).unwrap();
    eprintln!("resident {resident}, {grown} more with 120 MB on hold; {before:?} before, {meanwhile:?} meanwhile");
    assert_eq!(full, 2, "the slow one catches up from the log:\n{}", master.log_tail());
    assert!(stands_in() || grown < 64 << 20, "{grown} bytes more");
}
