//! The server under test follows a real Redis.

use std::time::Duration;

use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(15);

/// A Redis with data and a load on it, and the server under test that follows it.
fn pair(master: Setup, replica: Setup, flavor: Flavor) -> (Server, Server, Load) {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master.start().unwrap();
    populate(&mut master.client().unwrap(), seed, 5000).unwrap();
    let load = Load::start(master.port, Generator::new(seed, flavor, 300), 8000);
    let replica = replica.start().unwrap();
    replica.client().unwrap().must("SET old-data x").unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    (master, replica, load)
}

/// Starts the replica again. It finds its master by itself; a Redis that stands in must be told.
fn revive(replica: &mut Server, master: &Server) {
    replica.restart().unwrap();
    if stands_in() {
        follow(replica, master).unwrap();
    }
}

fn follows_under_load(master: Setup, flavor: Flavor) {
    let (master, replica, load) = pair(master, Setup::ardb(), flavor);
    load.wait_more(15_000).unwrap();
    load.stop().unwrap();
    let digest = wait_equal(&master, &replica, LIMIT).unwrap();
    assert!(digest.len() > 1000, "{}", digest.summary());
    let mut client = master.client().unwrap();
    assert_eq!(syncs(&mut client).unwrap().0, 1);
    // The replica acknowledges exactly the offset up to which the master has sent.
    wait_until("the replica's ACK is the master's offset", LIMIT, || {
        let info = client.info("replication")?;
        let offset = info.get("master_repl_offset").cloned().unwrap_or_default();
        Ok(info.get("slave0").is_some_and(|line| line.contains(&format!("offset={offset},"))))
    })
    .unwrap();
}

#[test]
fn redis_7_under_load() {
    follows_under_load(Setup::redis("7.0"), Flavor::New);
}

#[test]
fn redis_7_from_a_file() {
    follows_under_load(Setup::redis("7.0").with("repl-diskless-sync", "no"), Flavor::New);
}

#[test]
fn redis_2_8_under_load() {
    follows_under_load(Setup::redis("2.8"), Flavor::Old);
}

#[test]
fn redis_3_2_under_load() {
    follows_under_load(Setup::redis("3.2"), Flavor::Old);
}

/// The replica is killed in mid-load, again and again, and goes on where it was.
fn goes_on_after_kills(master: Setup, flavor: Flavor) {
    let (master, mut replica, load) = pair(master, Setup::ardb(), flavor);
    for round in 0..3 {
        load.wait_more(4000).unwrap();
        replica.kill9().unwrap();
        load.wait_more(2000).unwrap();
        revive(&mut replica, &master);
        wait_linked(&replica, LIMIT).unwrap();
        let (full, partial) = syncs(&mut master.client().unwrap()).unwrap();
        assert!(stands_in() || (full, partial) == (1, round + 1), "{full} {partial}:\n{}", replica.log_tail());
    }
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
}

#[test]
fn goes_on_after_kills_with_redis_7() {
    goes_on_after_kills(Setup::redis("7.0"), Flavor::New);
}

#[test]
fn goes_on_after_kills_with_redis_2_8() {
    goes_on_after_kills(Setup::redis("2.8"), Flavor::Old);
}

/// Redis before 5.0 passes scripts on, by their names once they are known. A replica keeps them in memory only, so one that died finds calls in its log
/// that it cannot execute.
#[test]
fn one_that_died_starts_though_its_log_calls_scripts_that_are_gone() {
    if stands_in() {
        return;
    }
    let master = Setup::redis("2.8").start().unwrap();
    let mut replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    let script = "redis.call('SET', 'kept', 'x') return redis.call('INCR', 'n')";
    client.call(&["EVAL", script, "0"]).unwrap();
    let sha = client.call(&["SCRIPT", "LOAD", script]).unwrap().text();
    // Passed on as EVAL for the last time.
    assert!(!client.call(&["EVALSHA", &sha, "0"]).unwrap().is_error());
    wait_equal(&master, &replica, LIMIT).unwrap();
    // A checkpoint, behind which the log is replayed.
    replica.client().unwrap().must("SAVE").unwrap();
    for _ in 0..3 {
        assert!(!client.call(&["EVALSHA", &sha, "0"]).unwrap().is_error());
    }
    wait_equal(&master, &replica, LIMIT).unwrap();
    replica.kill9().unwrap();
    replica.restart().unwrap();
    assert_eq!(replica.log_count("cannot be replayed beyond"), 1, "{}", replica.log_tail());
    wait_linked(&replica, LIMIT).unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(syncs(&mut client).unwrap().0, 2, "the data were sent once more");
}

/// Redis before 7.0 passes relative expiries on. They count from their arrival, and a restart does not start them anew.
#[test]
fn relative_expiries_count_once() {
    let master = Setup::redis("2.8").start().unwrap();
    let mut replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    client.must("SETEX a 100 value").unwrap();
    client.must("PSETEX b 100000 value").unwrap();
    client.must("SET c value").unwrap();
    client.must("EXPIRE c 100").unwrap();
    client.must("SET d value").unwrap();
    client.must("PEXPIRE d 1500").unwrap();
    wait_until("they arrive", LIMIT, || Ok(replica.client()?.ask("PTTL d")?.int() > Some(0))).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    replica.kill9().unwrap();
    replica.restart().unwrap();
    let mut follower = replica.client().unwrap();
    for key in ["a", "b", "c"] {
        let left = follower.ask(&format!("PTTL {key}")).unwrap().int().unwrap();
        assert!(left > 90_000 && left < 99_000, "{key} has {left} ms left of 100 s, after more than a second");
    }
    wait_until("the last one expires", Duration::from_secs(2), || Ok(follower.ask("GET d")?.text().is_empty()))
        .unwrap();
}

#[test]
fn goes_on_after_a_clean_restart_and_a_cut_link() {
    let (master, mut replica, load) = pair(Setup::redis("7.0"), Setup::ardb(), Flavor::New);
    load.wait_more(2000).unwrap();
    replica.terminate().unwrap();
    load.wait_more(2000).unwrap();
    revive(&mut replica, &master);
    wait_linked(&replica, LIMIT).unwrap();
    master.client().unwrap().must("CLIENT KILL TYPE replica").unwrap();
    load.wait_more(2000).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let counts = syncs(&mut master.client().unwrap()).unwrap();
    assert!(stands_in() || counts == (1, 2), "{counts:?}:\n{}", replica.log_tail());
}

#[test]
fn a_master_that_has_moved_on_too_far_sends_everything_again() {
    let (master, mut replica, load) =
        pair(Setup::redis("7.0").with("repl-backlog-size", "16kb"), Setup::ardb(), Flavor::New);
    load.wait_more(1000).unwrap();
    replica.kill9().unwrap();
    load.wait_more(5000).unwrap();
    revive(&mut replica, &master);
    wait_linked(&replica, LIMIT).unwrap();
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert!(syncs(&mut master.client().unwrap()).unwrap().0 >= 2);
}

#[test]
fn a_promoted_replica_takes_writes_under_a_new_id() {
    let (master, mut replica, load) = pair(Setup::redis("7.0"), Setup::ardb(), Flavor::New);
    let mut client = replica.client().unwrap();
    assert!(client.ask("SET a 1").unwrap().text().starts_with("READONLY"));
    load.wait_more(3000).unwrap();
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let before = client.info("replication").unwrap();
    assert_eq!(before["role"], "slave");
    let id = master.client().unwrap().info("replication").unwrap()["master_replid"].clone();
    assert_eq!(before["master_replid"], id);

    client.must("REPLICAOF NO ONE").unwrap();
    let after = client.info("replication").unwrap();
    assert_eq!(after["role"], "master");
    assert_ne!(after["master_replid"], id);
    assert_eq!(after["master_replid2"], id);
    client.must("SET mine 1").unwrap();
    assert_eq!(client.ask("ROLE").unwrap().items().unwrap()[0].text(), "master");

    replica.kill9().unwrap();
    replica.restart().unwrap();
    let mut client = replica.client().unwrap();
    let restarted = client.info("replication").unwrap();
    assert_eq!(restarted["role"], "master");
    assert_eq!(client.ask("GET mine").unwrap().text(), "1");
    if !stands_in() {
        assert_eq!(restarted["master_replid"], after["master_replid"], "a killed process keeps its history's name");
    }
}

#[test]
fn logs_in_to_a_master_with_a_password() {
    let master = Setup::redis("7.0").with("requirepass", "secret").start().unwrap();
    let mut client = master.client().unwrap();
    client.must("AUTH secret").unwrap();
    client.must("SET a 1").unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut follower = replica.client().unwrap();
    assert_eq!(follower.info("replication").unwrap()["master_link_status"], "down");
    follower.must("CONFIG SET masterauth secret").unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    wait_until("the key arrives", LIMIT, || Ok(replica.client()?.ask("GET a")?.text() == "1")).unwrap();
}

#[test]
fn serves_stale_data_or_not() {
    let master = Setup::redis("7.0").start().unwrap();
    master.client().unwrap().must("SET a 1").unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_until("the key arrives", LIMIT, || Ok(replica.client()?.ask("GET a")?.text() == "1")).unwrap();
    drop(master);
    let mut client = replica.client().unwrap();
    wait_until("the link is down", LIMIT, || Ok(client.info("replication")?["master_link_status"] == "down")).unwrap();
    assert_eq!(client.ask("GET a").unwrap().text(), "1");
    client.must("CONFIG SET replica-serve-stale-data no").unwrap();
    assert!(client.ask("GET a").unwrap().text().starts_with("MASTERDOWN"));
}

#[test]
fn a_sync_that_breaks_leaves_the_old_data() {
    let master = Setup::redis("7.0").start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    let mut client = replica.client().unwrap();
    client.must("SET old 1").unwrap();
    // A master that promises an RDB, sends a part of it, and goes away.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broken = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut asked = Vec::new();
        loop {
            let mut bytes = [0; 1000];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "it asks for a sync: {}", asked.escape_ascii());
            asked.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&bytes[..count]).to_uppercase();
            if text.contains("PSYNC2") {
                stream.write_all(b"-ERR unknown command\r\n").unwrap();
            } else if text.contains("PSYNC") {
                break;
            } else if text.contains("PING") {
                stream.write_all(b"+PONG\r\n").unwrap();
            } else {
                // Handshake lines may come together; each asks for its own answer.
                for _ in 0..text.matches("REPLCONF").count() {
                    stream.write_all(b"+OK\r\n").unwrap();
                }
            }
        }
        let id = "a".repeat(40);
        stream.write_all(format!("+FULLRESYNC {id} 1000\r\n$5000\r\nREDIS0006").as_bytes()).unwrap();
    });
    client.must(&format!("SLAVEOF 127.0.0.1 {port}")).unwrap();
    broken.join().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    if !stands_in() {
        assert_eq!(client.ask("GET old").unwrap().text(), "1");
    }
    follow(&replica, &master).unwrap();
    master.client().unwrap().must("SET new 1").unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
}

/// Redis before 5 passes the script on and not what it did, so it must do the same here: draw the same numbers, and see sets and hashes in
/// the same order.
#[test]
fn scripts_of_old_masters_do_the_same_here() {
    for version in ["2.8", "3.2"] {
        let master = Setup::redis(version).start().unwrap();
        let replica = Setup::ardb().start().unwrap();
        follow(&replica, &master).unwrap();
        wait_linked(&replica, LIMIT).unwrap();
        let mut client = master.client().unwrap();
        for number in 0..300 {
            client.must(&format!("SADD s member:{number} {number}")).unwrap();
            client.must(&format!("SADD t member:{}", number * 2)).unwrap();
            client.must(&format!("HSET h field:{number} {}", number * 7919 % 1000)).unwrap();
        }
        for call in ["'SMEMBERS','s'", "'SINTER','s','t'", "'SUNION','s','t'", "'SDIFF','s','t'"].into_iter().chain([
            "'HKEYS','h'",
            "'HVALS','h'",
            "'KEYS','*'",
            "'SORT','s','BY','nosort'",
        ]) {
            let script = format!("for _, v in ipairs(redis.call({call})) do redis.call('RPUSH', KEYS[1], v) end");
            client.call(&["EVAL", &script, "1", &format!("from {call}")]).unwrap();
        }
        let draws = "for i = 1, 5 do redis.call('RPUSH', KEYS[1], tostring(math.random(1000000))) end";
        for _ in 0..3 {
            let reply = client.call(&["EVAL", draws, "1", "drawn"]).unwrap();
            assert!(!reply.is_error(), "{reply}");
        }
        wait_equal(&master, &replica, LIMIT).unwrap();
        let drawn = replica.client().unwrap().ask("LRANGE drawn 0 -1").unwrap();
        assert_eq!(drawn.items().unwrap().len(), 15, "the scripts ran");
    }
}
