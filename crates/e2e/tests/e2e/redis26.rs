//! Redis 2.6, played by hand, on either side: SYNC, dumps, silence, and full syncs after every cut.

use std::process::Command;
use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::peers;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::redis26::{Master26, Replica26};
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_linked, wait_same, wait_until};
use ardb_e2e::wiretap::Tap;

const LIMIT: Duration = Duration::from_secs(20);
/// Long enough to play no part.
const NEVER: Duration = Duration::from_secs(60);

fn online(replica: &Replica26) {
    wait_until("Redis 2.6 is online", LIMIT, || Ok(replica.seen().online)).unwrap();
}

/// The states of our replicas as INFO shows them.
fn states(master: &Server) -> Vec<String> {
    let info = master.client().unwrap().info("replication").unwrap();
    let lines = info.iter().filter(|(name, value)| name.starts_with("slave") && value.starts_with("ip="));
    lines.filter_map(|(_, line)| Some(line.split("state=").nth(1)?.split(',').next()?.to_string())).collect()
}

#[test]
fn it_follows_and_its_dump_is_clean() {
    if stands_in() {
        return; // Redis 7.0 sends an RDB that 2.6 cannot read.
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = Setup::ardb().start().unwrap();
    populate(&mut master.client().unwrap(), seed, 3000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 4000);
    let replica = Replica26::start(master.port, NEVER, false).unwrap();
    online(&replica);
    load.wait_more(8000).unwrap();
    load.stop().unwrap();
    let digest = wait_same(&master, &replica.server, LIMIT).unwrap();
    assert!(digest.len() > 1000, "{}", digest.summary());
    let seen = replica.seen();
    assert_eq!((seen.syncs, seen.refused.len()), (1, 0), "{seen:?}");
    // What the checkers of that time say of the dump, and what its loader makes of the data.
    for checker in ["redis-check-dump-2.8", "redis-check-rdb-7.0"] {
        let output = Command::new(peers::peer(checker).unwrap()).arg(replica.rdb()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("ERROR"), "{checker}: {text}");
    }
    replica.server.client().unwrap().must("DEBUG RELOAD").unwrap();
    wait_same(&master, &replica.server, LIMIT).unwrap();
}

#[test]
fn two_that_wait_share_a_dump_longer_than_the_timeout() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = Setup::ardb().with("repl-timeout", 1).with("rdb-key-save-delay", 1500).start().unwrap();
    populate(&mut master.client().unwrap(), seed, 3000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 100), 2000);
    let timeout = Duration::from_millis(1800);
    let one = Replica26::start(master.port, timeout, false).unwrap();
    wait_until("the first waits", LIMIT, || Ok(states(&master) == ["wait_bgsave"])).unwrap();
    let two = Replica26::start(master.port, timeout, false).unwrap();
    wait_until("both wait", LIMIT, || Ok(states(&master) == ["wait_bgsave", "wait_bgsave"])).unwrap();
    for replica in [&one, &two] {
        online(replica);
        let seen = replica.seen();
        assert!(seen.longest_dump > timeout, "the dump takes longer than the timeout: {seen:?}");
        assert!(seen.line_ends >= 2, "{seen:?}");
    }
    load.wait_more(2000).unwrap();
    load.stop().unwrap();
    for replica in [&one, &two] {
        // What was written during the dump is there once, in its database.
        wait_same(&master, &replica.server, LIMIT).unwrap();
        let seen = replica.seen();
        assert_eq!((seen.syncs, seen.timeouts, seen.refused.len()), (1, 0, 0), "{seen:?}");
    }
    assert_eq!(master.log_count("joins the dump"), 1, "{}", master.log_tail());
    assert_eq!(master.log_count("The dump for replicas is made"), 1, "{}", master.log_tail());
    assert_eq!(states(&master), ["online", "online"]);
}

#[test]
fn behind_a_replica_of_ours_it_learns_which_database_is_selected() {
    if stands_in() {
        return;
    }
    let origin = Setup::redis("7.0").start().unwrap();
    let middle = Setup::ardb().start().unwrap();
    follow(&middle, &origin).unwrap();
    wait_linked(&middle, LIMIT).unwrap();
    let mut client = origin.client().unwrap();
    client.must("SELECT 3").unwrap();
    client.must("INCR counter").unwrap();
    wait_same(&origin, &middle, LIMIT).unwrap();
    // One that knows what our dump could say of it, at the same time.
    let newer = Setup::redis("7.0").with("repl-diskless-sync", "no").start().unwrap();
    follow(&newer, &middle).unwrap();
    let replica = Replica26::start(middle.port, NEVER, false).unwrap();
    online(&replica);
    wait_linked(&newer, LIMIT).unwrap();
    client.must("INCR counter").unwrap();
    for server in [&replica.server, &newer] {
        wait_same(&origin, server, LIMIT).unwrap();
    }
    let seen = replica.seen();
    assert_eq!((seen.syncs, seen.ends.len(), seen.refused.len()), (1, 0, 0), "{seen:?}\n{}", middle.log_tail());
}

#[test]
fn its_state_goes_from_waiting_over_sending_to_online() {
    let master = Setup::ardb().with("rdb-key-save-delay", 200_000).start().unwrap();
    let mut client = master.client().unwrap();
    // More than sockets hold.
    let value = "x".repeat(4 << 20);
    for index in 0..6 {
        client.call(&["SET", &format!("big:{index}"), &value]).unwrap();
    }
    let mut tap = Tap::connect(master.port).unwrap();
    tap.send("PING\r\nREPLCONF listening-port 2600\r\nSYNC\r\n").unwrap();
    wait_until("wait_bgsave", LIMIT, || Ok(states(&master) == ["wait_bgsave"])).unwrap();
    wait_until("send_bulk", LIMIT, || Ok(states(&master) == ["send_bulk"])).unwrap();
    wait_until("online", LIMIT, || {
        tap.fill()?;
        Ok(states(&master) == ["online"])
    })
    .unwrap();
}

#[test]
fn an_idle_one_is_not_dropped_though_it_never_acknowledges() {
    if stands_in() {
        return;
    }
    let master = Setup::ardb().with("repl-timeout", 1).with("repl-ping-replica-period", 1).start().unwrap();
    // It asks with the words of the time, and says nothing more; what it answers to the stream must not matter either.
    let silent = Replica26::start(master.port, NEVER, false).unwrap();
    let chatty = Replica26::start(master.port, Duration::from_secs(3), true).unwrap();
    online(&silent);
    online(&chatty);
    std::thread::sleep(Duration::from_millis(6000));
    let mut client = master.client().unwrap();
    client.must("SET still here").unwrap();
    // GETACK is a word that 2.6 does not know: the error comes back on the link.
    assert_eq!(client.ask("WAIT 1 300").unwrap().int(), Some(0));
    client.must("SET and here").unwrap();
    for replica in [&silent, &chatty] {
        wait_same(&master, &replica.server, LIMIT).unwrap();
        let seen = replica.seen();
        assert_eq!((seen.syncs, seen.ends.len()), (1, 0), "{seen:?}\n{}", master.log_tail());
        assert!(seen.pings >= 4, "{seen:?}");
        assert_eq!(seen.refused, ["REPLCONF GETACK *"], "{seen:?}");
    }
}

#[test]
fn a_killed_link_means_a_new_full_sync() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = Setup::ardb().start().unwrap();
    let mut client = master.client().unwrap();
    populate(&mut client, seed, 2000).unwrap();
    let replica = Replica26::start(master.port, NEVER, false).unwrap();
    online(&replica);
    wait_same(&master, &replica.server, LIMIT).unwrap();
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 100), 2000);
    for round in 2..4 {
        if round == 2 {
            replica.hang_up()
        } else {
            drop(client.must("CLIENT KILL TYPE slave").unwrap())
        }
        wait_until("the link ends", LIMIT, || Ok(!replica.seen().online)).unwrap();
        // Nothing old may be left behind.
        for index in (0..500).map(|index| index * 5) {
            client.must(&format!("DEL str:p{index}")).unwrap();
        }
        wait_until("it is sent everything again", LIMIT, || Ok(replica.seen().syncs == round)).unwrap();
    }
    load.stop().unwrap();
    wait_same(&master, &replica.server, LIMIT).unwrap();
    assert_eq!(replica.seen().refused.len(), 0);
}

#[test]
fn it_is_followed_in_full_after_each_cut_and_never_hears_an_acknowledgement() {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = Master26::start().unwrap();
    populate(&mut master.server.client().unwrap(), seed, 2000).unwrap();
    let proxy = Proxy::start(master.port, seed).unwrap();
    let replica = Setup::ardb().with("repl-timeout", 3).start().unwrap();
    // Longer than the timeout: line ends keep the link alive.
    master.dump_takes(Duration::from_secs(4));
    let load = Load::start(master.server.port, Generator::new(seed, Flavor::Old, 200), 2000);
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    assert_eq!(master.heard().syncs, 1, "{}", replica.log_tail());
    master.dump_takes(Duration::ZERO);
    load.wait_more(3000).unwrap();
    proxy.cut();
    wait_until("it asks again", LIMIT, || Ok(master.heard().syncs == 2)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    load.wait_more(3000).unwrap();
    load.stop().unwrap();
    // Silence of several timeouts; the master's PINGs are all that is heard, and nothing may be said.
    std::thread::sleep(Duration::from_secs(4));
    wait_same(&master.server, &replica, LIMIT).unwrap();
    let heard = master.heard();
    assert_eq!((heard.syncs, heard.after.len()), (2, 0), "{heard:?}");
    assert!(heard.before.iter().any(|line| line.starts_with("PSYNC ")), "it asks for more at first: {heard:?}");
}

#[test]
fn a_transfer_from_it_that_breaks_leaves_the_old_data() {
    let seed = seed();
    let master = Master26::start().unwrap();
    populate(&mut master.server.client().unwrap(), seed, 3000).unwrap();
    let replica = Setup::ardb().start().unwrap();
    let mut client = replica.client().unwrap();
    client.must("SET old 1").unwrap();
    master.break_next(20_000);
    master.dump_takes(Duration::from_millis(300));
    client.must(&format!("SLAVEOF 127.0.0.1 {}", master.port)).unwrap();
    wait_until("the first transfer broke", LIMIT, || Ok(replica.log_count("Link to master") > 0)).unwrap();
    if !stands_in() {
        assert_eq!(client.ask("GET old").unwrap().text(), "1", "{}", replica.log_tail());
    }
    wait_linked(&replica, LIMIT).unwrap();
    wait_same(&master.server, &replica, LIMIT).unwrap();
    assert_eq!(client.ask("EXISTS old").unwrap().int(), Some(0));
    assert_eq!(master.heard().syncs, 2);
}
