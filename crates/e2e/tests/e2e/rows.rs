//! Full syncs between two of the servers under test: rows instead of an RDB, resumed where the link broke, whole or not at all.

use std::time::{Duration, Instant};

use ardb_base::id::{Offset, ReplId};
use ardb_base::random::Random;
use ardb_e2e::client::Command;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::scripted::{Scripted, rdb, rdb_string};
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked, wait_until};
use ardb_e2e::wiretap::{line, name};
use ardb_repl::rows::{Opening, RowsSender, SyncId};

const LIMIT: Duration = Duration::from_secs(60);

/// A master with mixed data, and `megabytes` of strings that nothing makes shorter.
fn master(setup: Setup, seed: u64, megabytes: u64) -> Server {
    let master = setup.start().unwrap();
    let mut client = master.client().unwrap();
    populate(&mut client, seed, 5000).unwrap();
    let mut random = Random::new(seed);
    for _ in 0..megabytes {
        let commands: Vec<Command> = (0..256)
            .map(|_| {
                let value: Vec<u8> = (0..512).flat_map(|_| random.next_u64().to_le_bytes()).collect();
                vec![b"SET".to_vec(), format!("big:{:x}", random.next_u64()).into_bytes(), value]
            })
            .collect();
        client.pipeline(&commands).unwrap();
    }
    master
}

fn resumed(master: &Server) -> i64 {
    master.client().unwrap().info_number("stats", "sync_full_resumed").unwrap()
}

/// Follows through a proxy.
fn follow_through(replica: &Server, proxy: &Proxy) {
    replica.client().unwrap().must(&format!("REPLICAOF 127.0.0.1 {}", proxy.port)).unwrap();
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn rows_travel_under_load() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master(Setup::ardb(), seed, 8);
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 5000);
    let replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must("SET old-data x").unwrap();
    let proxy = Proxy::start(master.port, seed).unwrap();
    follow_through(&replica, &proxy);
    wait_linked(&replica, LIMIT).unwrap();
    load.wait_more(10_000).unwrap();
    load.stop().unwrap();
    let digest = wait_equal(&master, &replica, LIMIT).unwrap();
    assert!(digest.len() > 3000, "{}", digest.summary());
    assert_eq!(syncs(&mut master.client().unwrap()).unwrap().0, 1);
    // What went over the wire: our own words, and rows instead of commands or an RDB.
    let link = &proxy.kept()[0];
    assert!(holds(&link.asked, b"PSYNC2") && !holds(&link.asked, b"\r\nPSYNC\r\n"), "PSYNC2 alone was sent");
    assert!(holds(&link.answered, b"+ROWSYNC ") && holds(&link.answered, b"ARDBROWS"));
    assert!(!holds(&link.answered, b"REDIS00") && !holds(&link.answered, b"$EOF:"), "no RDB");
    // And the stream selects its database before anything else.
    let info = replica.client().unwrap().info("replication").unwrap();
    assert_eq!(info["master_link_status"], "up");
}

#[test]
fn a_plain_psync_gets_an_rdb_and_formats_that_nobody_knows_are_refused() {
    if stands_in() {
        return;
    }
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("SET a 1").unwrap();
    let refused = client.ask("PSYNC2 ? -1 1").unwrap().text();
    assert!(refused.starts_with("ERR rows of format 1"), "{refused}");
    for words in ["PSYNC2 ?", "PSYNC2 ? x", "PSYNC2 ? -1 3 short 0", "PSYNC2 ? -1 3 0 0 0"] {
        assert!(client.ask(words).unwrap().is_error(), "{words}");
    }
    client.must("REPLCONF listening-port 9 capa eof capa psync2").unwrap();
    let reply = client.ask("PSYNC ? -1").unwrap().text();
    assert!(reply.starts_with("FULLRESYNC "), "the verb decides, not the host: {reply}");
    let id = client_of(&server).info("replication").unwrap()["master_replid"].clone();
    let mut other = client_of(&server);
    let reply = other.call(&["PSYNC2", &id, "1"]).unwrap().text();
    assert!(reply.starts_with("CONTINUE"), "the same decision as for PSYNC: {reply}");
    let mut other = client_of(&server);
    // A transfer that nobody holds begins anew.
    let sync = "0123456789012345678901234567890123456789";
    let reply = other.call(&["PSYNC2", "?", "-1", "3", sync, "5"]).unwrap().text();
    let words: Vec<&str> = reply.split(' ').collect();
    assert_eq!((words[0], words[1], words[4]), ("ROWSYNC", id.as_str(), "0"), "{reply}");
}

fn client_of(server: &Server) -> ardb_e2e::client::Client {
    let mut client = server.client().unwrap();
    client.set_timeout(LIMIT).unwrap();
    client
}

#[test]
fn a_transfer_that_is_cut_again_and_again_goes_on_where_it_was() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master(Setup::ardb(), seed, 24);
    let replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must("SET old-data x").unwrap();
    let proxy = Proxy::start(master.port, seed).unwrap();
    proxy.scale(22);
    proxy.cutting(true);
    let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 1000);
    follow_through(&replica, &proxy);
    let mut seen = 0;
    wait_until("the link has been cut often, or the transfer is through", LIMIT, || {
        let mut client = replica.client()?;
        let info = client.info("replication")?;
        if info["master_link_status"] == "down" && client.ask("EXISTS old-data")?.int() == Some(1) {
            seen += 1;
        }
        Ok(proxy.cuts() >= 15 || resumed(&master) >= 8)
    })
    .unwrap();
    assert!(seen > 0, "the old data are served while the new come");
    proxy.cutting(false);
    wait_linked(&replica, LIMIT).unwrap();
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let (full, _) = syncs(&mut master.client().unwrap()).unwrap();
    let resumed = resumed(&master);
    assert!(resumed >= 2, "{resumed} times resumed:\n{}", master.log_tail());
    // Links that broke before the opening had come begin anew; no others do.
    let openings =
        proxy.kept().iter().filter(|link| holds(&link.answered[..link.answered.len().min(4096)], b"ARDBROWS")).count();
    assert!(full as usize <= openings + 6, "{full} full syncs, {openings} openings:\n{}", replica.log_tail());
    assert!(replica.log_count("going on with") >= 2, "{}", replica.log_tail());
    assert_eq!(replica.log_count("cannot go on with the rows"), 0, "{}", replica.log_tail());
}

#[test]
fn death_of_either_side_in_the_middle_leaves_the_old_data_and_then_the_new() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut master = master(Setup::ardb(), seed, 24);
    let mut replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must("SET old-data x").unwrap();
    follow(&replica, &master).unwrap();
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(random.below(400)));
        let victim = if round % 2 == 0 { &mut replica } else { &mut master };
        victim.restart().unwrap();
        let mut client = replica.client().unwrap();
        let info = client.info("replication").unwrap();
        if info["master_link_status"] == "up" {
            // It was through: nothing of the old data may be left, and the next round begins from nothing.
            assert_eq!(client.ask("EXISTS old-data").unwrap().int(), Some(0));
            client.must("REPLICAOF NO ONE").unwrap();
            client.must("FLUSHALL").unwrap();
            client.must("SET old-data x").unwrap();
            follow(&replica, &master).unwrap();
        }
    }
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(replica.client().unwrap().ask("EXISTS old-data").unwrap().int(), Some(0));
    // The one that was replaced goes with the next tick after the last reader has left it.
    wait_until("what was half loaded and what was replaced is gone", Duration::from_secs(5), || {
        let folders = std::fs::read_dir(replica.dir.join("data"))?.flatten();
        Ok(folders.filter(|folder| folder.file_name().to_string_lossy().starts_with("gen-")).count() == 1)
    })
    .unwrap();
}

#[test]
fn several_replicas_share_a_snapshot() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master(Setup::ardb(), seed, 16);
    let replicas: Vec<Server> = (0..3).map(|_| Setup::ardb().start().unwrap()).collect();
    for replica in &replicas {
        follow(replica, &master).unwrap();
    }
    for replica in &replicas {
        wait_equal(&master, replica, LIMIT).unwrap();
    }
    assert!(master.log_count("shares the snapshot") >= 1, "{}", master.log_tail());
    // They are online, and hold nothing any more: no snapshot, and nothing of the log.
    wait_until("all is let go", LIMIT, || {
        let mut client = master.client()?;
        Ok(transfers(&master)? == ["0", "0", "0"] && client.info_number("storage", "log_pins")? == 0)
    })
    .unwrap();
    let info = master.client().unwrap().info("replication").unwrap();
    assert_eq!(info["connected_slaves"], "3");
}

/// What INFO of a master says of its transfers: all, those without a link, snapshots.
fn transfers(master: &Server) -> ardb_e2e::Result<[String; 3]> {
    let info = master.client()?.info("replication")?;
    Ok(["rows_syncs", "rows_syncs_left", "rows_sync_snapshots"].map(|name| info[name].clone()))
}

#[test]
fn transfers_are_bounded() {
    if stands_in() {
        return;
    }
    let master = master(Setup::ardb().with("repl-sync-max-transfers", 2), 1, 16);
    let ask = || {
        let mut client = client_of(&master);
        let reply = client.call(&["PSYNC2", "?", "-1"]).unwrap().text();
        (client, reply)
    };
    let (first, reply) = ask();
    let name = reply.split(' ').nth(3).unwrap_or_default().to_string();
    let (second, reply) = ask();
    assert!(reply.starts_with("ROWSYNC "), "{reply}");
    let (_, reply) = ask();
    assert!(reply.starts_with("TRYAGAIN "), "{reply}");
    // A replica of ours understands that, and comes again.
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_until("the replica is told to come again", LIMIT, || {
        let info = replica.client()?.info("replication")?;
        Ok(info.get("master_link_error").is_some_and(|error| error.contains("TRYAGAIN")))
    })
    .unwrap();
    assert_eq!(replica.log_count("Full resync from master"), 0, "{}", replica.log_tail());
    // Those that ask by PSYNC are not concerned.
    let redis = Setup::redis("7.0").start().unwrap();
    follow(&redis, &master).unwrap();
    wait_equal(&master, &redis, LIMIT).unwrap();
    // The first to be left makes room, and is gone for its own replica.
    drop(first);
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(master.log_count("makes room for others"), 1, "{}", master.log_tail());
    let mut back = client_of(&master);
    let reply = back.call(&["PSYNC2", "?", "-1", "3", &name, "1"]).unwrap().text();
    let words: Vec<&str> = reply.split(' ').collect();
    assert!(words[0] == "ROWSYNC" && words[3] != name && words[4] == "0", "{reply}");
    let info = master.client().unwrap().info("replication").unwrap();
    assert_eq!((info["rows_syncs"].as_str(), info["rows_syncs_limit"].as_str()), ("2", "2"));
    assert!(info["rows_syncs_refused"].parse::<u64>().unwrap() >= 2, "{}", info["rows_syncs_refused"]);
    // A lower limit takes effect on what nobody sends.
    drop((second, back));
    wait_until("both are left", LIMIT, || Ok(transfers(&master)?[1] == "2")).unwrap();
    master.client().unwrap().must("CONFIG SET repl-sync-max-transfers 1").unwrap();
    wait_until("one is let go", LIMIT, || Ok(transfers(&master)?[..2] == ["1", "1"])).unwrap();
    assert_eq!(transfers(&master).unwrap()[2], "1");
}

#[test]
fn what_nobody_takes_up_again_is_let_go() {
    if stands_in() {
        return;
    }
    for (time, held) in [(0, 0), (1, 1)] {
        let master = master(Setup::ardb().with("repl-sync-resume-time", time), 1, 16);
        let mut client = client_of(&master);
        let reply = client.call(&["PSYNC2", "?", "-1"]).unwrap().text();
        assert!(reply.starts_with("ROWSYNC "), "{reply}");
        let info = master.client().unwrap().info("replication").unwrap();
        assert_eq!(info["rows_syncs"], "1");
        drop(client);
        let started = Instant::now();
        wait_until("the transfer is let go", LIMIT, || Ok(master.client()?.info("replication")?["rows_syncs"] == "0"))
            .unwrap();
        assert!(held == 0 || started.elapsed() > Duration::from_millis(900));
        assert_eq!(master.log_count("was not taken up again"), held, "{}", master.log_tail());
    }
}

#[test]
fn engines_may_differ() {
    if stands_in() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    for (one, other) in [("memory", "rocksdb"), ("rocksdb", "memory")] {
        let master = master(Setup::ardb().with("storage-engine", one), seed, 2);
        let load = Load::start(master.port, Generator::new(seed, Flavor::New, 300), 3000);
        let mut replica = Setup::ardb().with("storage-engine", other).start().unwrap();
        follow(&replica, &master).unwrap();
        wait_linked(&replica, LIMIT).unwrap();
        load.wait_more(3000).unwrap();
        load.stop().unwrap();
        wait_equal(&master, &replica, LIMIT).unwrap();
        replica.restart().unwrap();
        wait_equal(&master, &replica, LIMIT).unwrap();
        assert_eq!(syncs(&mut master.client().unwrap()).unwrap().0, 1, "{one} to {other}");
    }
}

/// A master whose opening names another offset than its answer, and which is glad to go on behind it.
#[test]
fn an_opening_that_cannot_be_opened_is_forgotten() {
    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    if stands_in() {
        return;
    }
    let id = ReplId::parse(ID.as_bytes()).unwrap();
    let opening = Opening { id, offset: Offset(101), db: None, keys: 1, about_bytes: 0, catalog: Vec::new() };
    let mut sender = RowsSender::new(SyncId(id), &opening);
    let (mut block0, mut block1) = (Vec::new(), Vec::new());
    sender.open(&mut block0);
    sender.push(b"key", b"value").unwrap();
    sender.seal(&mut block1);
    let dump = rdb("REDIS0006", &[&[0xfe, 0, 0][..], &rdb_string("k"), &rdb_string("v")].concat());
    let master = Scripted::start(move |guest, _| {
        loop {
            let Some((command, _)) = guest.tap.command(LIMIT)? else { return Ok(()) };
            guest.said.push(line(&command));
            match name(&command).as_str() {
                "PING" => guest.tap.send("+PONG\r\n")?,
                "PSYNC2" => {
                    let block = u64::from(command.len() > 4);
                    guest.tap.send(format!("+ROWSYNC {ID} 100 {ID} {block}\r\n"))?;
                    guest.tap.send(if block == 0 { &block0 } else { &block1 })?;
                }
                "PSYNC" => {
                    guest.full(ID, 100, &dump)?;
                    return guest.idle(|_| {});
                }
                _ => guest.tap.send("+OK\r\n")?,
            }
        }
    })
    .unwrap();
    let replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must(&format!("REPLICAOF 127.0.0.1 {}", master.port)).unwrap();
    wait_until("it asks for an RDB instead", LIMIT, || Ok(replica.client()?.ask("GET k")?.text() == "v"))
        .unwrap_or_else(|failure| panic!("{failure}: {:?}\n{}", master.said(), replica.log_tail()));
}

#[test]
fn a_link_that_is_stuck_does_not_hold_its_transfer_up() {
    if stands_in() {
        return;
    }
    let master = master(Setup::ardb(), seed(), 32);
    // It reads the answer and nothing of the rows behind it.
    let mut stuck = client_of(&master);
    let answer = stuck.call(&["PSYNC2", "?", "-1", "3"]).unwrap().text();
    let sync = answer.split(' ').nth(3).unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(500));
    let mut next = client_of(&master);
    // Much less than `repl-timeout`, after which it would be let go anyway.
    next.set_timeout(Duration::from_secs(20)).unwrap();
    let again = next.call(&["PSYNC2", "?", "-1", "3", &sync, "0"]).unwrap().text();
    assert_eq!(again, answer, "{}", master.log_tail());
    assert_eq!(resumed(&master), 1);
}
