//! What newer masters send: RDBs of every version up to the newest, answers in their own words, and what must be refused by name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ardb_e2e::client::encode;
use ardb_e2e::scripted::{Scripted, acknowledged_by, rdb, rdb_string};
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_equal, wait_linked, wait_until};
use ardb_e2e::wiretap::line;

const LIMIT: Duration = Duration::from_secs(15);

/// The history of [`Scripted`] masters.
const ID: &str = "0123456789abcdef0123456789abcdef01234567";

fn slave_of(replica: &Server, port: u16) {
    let mut client = replica.client().unwrap();
    client.must("SLAVEOF NO ONE").unwrap();
    client.must(&format!("SLAVEOF 127.0.0.1 {port}")).unwrap();
}

/// The replica ends its attempts with an error that holds these words, and serves its old data.
fn refuses(replica: &Server, words: &[&str]) {
    let mut client = replica.client().unwrap();
    let mut last = String::new();
    wait_until("it refuses", LIMIT, || {
        last = client.info("replication")?.remove("master_link_error").unwrap_or_default();
        Ok(words.iter().all(|word| last.contains(word)))
    })
    .unwrap_or_else(|failure| panic!("{failure}: {words:?} in {last:?}\n{}", replica.log_tail()));
    assert_eq!(client.info("replication").unwrap()["master_link_status"], "down");
    assert_eq!(client.ask("GET old").unwrap().text(), "data");
    // INFO knows it a moment earlier.
    let logged = || Ok(words.iter().all(|word| replica.log().contains(word)));
    wait_until("it is logged", LIMIT, logged).unwrap_or_else(|failure| panic!("{failure}\n{}", replica.log_tail()));
}

fn with_old_data() -> Server {
    let replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must("SET old data").unwrap();
    replica
}

/// A master that sends this RDB to everyone.
fn master_of(rdb: Vec<u8>) -> Scripted {
    Scripted::start(move |guest, _| {
        guest.greet(|_| None)?;
        guest.full(ID, 100, &rdb)?;
        guest.idle(|_| {})
    })
    .unwrap()
}

/// The body of an RDB with one string key in database 0.
fn one_key(key: &str, value: &str) -> Vec<u8> {
    [&[0xfe, 0, 0][..], &rdb_string(key), &rdb_string(value)].concat()
}

#[test]
fn every_version_of_an_rdb_is_read() {
    if stands_in() {
        return;
    }
    let replica = with_old_data();
    let redis = (1..=15).map(|version| format!("REDIS{version:04}"));
    for header in redis.chain(["VALKEY080".to_string(), "VALKEY081".to_string()]) {
        let mut body = Vec::new();
        let newer = header.starts_with('V') || header.as_str() >= "REDIS0007";
        if newer {
            body.extend([&[0xfa][..], &rdb_string("redis-ver"), &rdb_string("255.255.255")].concat());
        }
        body.extend(one_key("version", &header));
        if newer {
            // Sizes of tables, and how idle the next key is.
            body.extend([0xfb, 2, 0]);
        }
        if header.starts_with('V') || header.as_str() >= "REDIS0009" {
            body.extend([0xf8, 5]);
        }
        // A set of two.
        body.extend([&[2][..], &rdb_string("set"), &[2], &rdb_string("a"), &rdb_string("b")].concat());
        let master = master_of(rdb(&header, &body));
        slave_of(&replica, master.port);
        let mut client = replica.client().unwrap();
        wait_until(&header, LIMIT, || Ok(client.ask("GET version")?.text() == header))
            .unwrap_or_else(|failure| panic!("{failure}\n{}", replica.log_tail()));
        assert_eq!(client.ask("SCARD set").unwrap().int(), Some(2), "{header}");
        assert_eq!(client.ask("DBSIZE").unwrap().int(), Some(2), "{header}: nothing old is left");
    }
}

#[test]
fn what_cannot_be_taken_over_is_refused_by_name() {
    if stands_in() {
        return;
    }
    let replica = with_old_data();
    let typed = |code: u8, rest: &[u8]| [&[0xfe, 0, code][..], &rdb_string("the-key"), rest].concat();
    // A module's number: nine letters of six bits and a version.
    let module = [&[0x81][..], &0x1234_5678_9abc_def0_u64.to_be_bytes(), &[2, 1, 0]].concat();
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("REDIS0016", one_key("a", "1"), &["version 16"]),
        ("VALKEY082", one_key("a", "1"), &["version 82"]),
        ("REDIS0000", one_key("a", "1"), &["version 0"]),
        ("REDIS0011", typed(21, &[0]), &["stream", "the-key"]),
        ("REDIS0012", typed(24, &[0]), &["fields that expire", "the-key"]),
        ("REDIS0013", typed(25, &[0]), &["fields that expire", "the-key"]),
        ("VALKEY080", typed(22, &[0]), &["fields that expire", "the-key"]),
        ("REDIS0009", typed(7, &module), &["module", "the-key"]),
        ("REDIS0015", typed(99, &[0]), &["unknown value type", "the-key"]),
    ];
    for (header, body, words) in cases {
        eprintln!("{header} {words:?}");
        let master = master_of(rdb(header, &body));
        slave_of(&replica, master.port);
        refuses(&replica, words);
    }
}

#[test]
fn streams_and_expiring_fields_of_real_masters_are_refused_by_name() {
    if stands_in() {
        return;
    }
    let replica = with_old_data();
    let cases: [(Setup, &str, &str, &[&str]); 3] = [
        (
            Setup::redis("7.0"),
            "XADD its-stream * field value",
            "XADD its-stream * field value",
            &["stream", "its-stream"],
        ),
        (
            Setup::redis("8"),
            "HSET its-hash a 1 b 2",
            "HPEXPIRE its-hash 100000 FIELDS 1 a",
            &["fields that expire", "its-hash"],
        ),
        (
            Setup::valkey(),
            "HSET its-hash a 1 b 2",
            "HPEXPIRE its-hash 100000 FIELDS 1 a",
            &["fields that expire", "its-hash"],
        ),
    ];
    for (setup, first, second, words) in cases {
        let master = setup.start().unwrap();
        let mut client = master.client().unwrap();
        client.must(first).unwrap();
        client.must(second).unwrap();
        slave_of(&replica, master.port);
        refuses(&replica, words);
        // Without it the next attempt goes well, and then it comes in the stream.
        client.must(&format!("DEL {}", words[1])).unwrap();
        slave_of(&replica, master.port);
        wait_equal(&master, &replica, LIMIT).unwrap();
        client.must("SET old data").unwrap();
        client.must(first).unwrap();
        let (_, expected) =
            (client.must(second).unwrap(), if words[0] == "stream" { "'xadd'" } else { "'hpexpireat'" });
        let mut follower = replica.client().unwrap();
        wait_until("the link stops", LIMIT, || Ok(follower.info("replication")?.contains_key("master_link_stopped")))
            .unwrap();
        let info = follower.info("replication").unwrap();
        assert_eq!(info["master_link_stopped"], "1", "{}: {info:?}", master.name());
        assert!(info["master_link_error"].to_lowercase().contains(expected), "{}: {info:?}", master.name());
    }
}

#[test]
fn functions_are_left_out_with_a_line_in_the_log() {
    if stands_in() {
        return;
    }
    let master = Setup::redis("7.0").start().unwrap();
    let mut client = master.client().unwrap();
    let code = "#!lua name=mine\nredis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
    client.call(&["FUNCTION", "LOAD", code]).unwrap();
    client.must("FCALL put 1 by-function 1").unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(replica.log_count("libraries of functions"), 1, "{}", replica.log_tail());
    // A function is passed on as what it did.
    client.must("FCALL put 1 by-function 2").unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(replica.client().unwrap().ask("GET by-function").unwrap().text(), "2");
    // The same in the stream as in the RDB.
    client.call(&["FUNCTION", "LOAD", "REPLACE", code]).unwrap();
    client.must("FCALL put 1 by-function 3").unwrap();
    client.must("FUNCTION DELETE mine").unwrap();
    client.must("SET after functions").unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    for word in ["FUNCTION LOAD", "FUNCTION DELETE"] {
        assert_eq!(replica.log_count(&format!("{word} at offset")), 1, "{}", replica.log_tail());
    }
}

#[test]
fn a_question_for_the_offset_is_answered_at_once() {
    let master = Setup::redis("7.0").start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    let start = Instant::now();
    for index in 0..20 {
        client.must(&format!("SET key{index} value")).unwrap();
        assert_eq!(client.ask("WAIT 1 5000").unwrap().int(), Some(1));
    }
    // By the clock it acknowledges once a second.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn absolute_expiries_arrive_to_the_millisecond() {
    for setup in [Setup::redis("7.0"), Setup::redis("8"), Setup::valkey()] {
        let master = setup.start().unwrap();
        let replica = Setup::ardb().start().unwrap();
        follow(&replica, &master).unwrap();
        wait_linked(&replica, LIMIT).unwrap();
        let mut client = master.client().unwrap();
        for text in [
            "SET a 1 PX 123457",
            "SETEX b 200 1",
            "SET c 1 PXAT 4000000000123",
            "SET d 1",
            "GETEX d PX 77777",
            "SET e 1",
            "PEXPIRE e 99999 NX",
        ] {
            client.must(text).unwrap();
        }
        wait_equal(&master, &replica, LIMIT).unwrap();
        let mut follower = replica.client().unwrap();
        for key in ["a", "b", "c", "d", "e"] {
            let question = format!("PEXPIRETIME {key}");
            let (one, other) = (client.ask(&question).unwrap(), follower.ask(&question).unwrap());
            assert!(one.int() > Some(0) && one == other, "{}: {key}: {one} and {other}", master.name());
        }
    }
}

const INCR: &str = "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n";

#[test]
fn it_asks_for_the_byte_after_its_last_and_takes_a_new_name() {
    if stands_in() {
        return; // Redis forgets when it is killed.
    }
    let other = "f".repeat(40);
    let mut stream = Vec::new();
    encode(&["SELECT", "0"], &mut stream);
    encode(&["SET", "a", "1"], &mut stream);
    let end = 100 + stream.len() as u64;
    let (asked, acknowledged) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let master = Scripted::start({
        let (asked, acknowledged, other) = (Arc::clone(&asked), Arc::clone(&acknowledged), other.clone());
        move |guest, index| {
            let question = guest.greet(|_| None)?;
            asked.lock().unwrap().push(line(&question));
            match index {
                0 => {
                    guest.full(ID, 100, &rdb("REDIS0006", &one_key("k", "v")))?;
                    // In the smallest pieces; then the link breaks.
                    for byte in &stream {
                        guest.tap.send([*byte])?;
                    }
                    let start = Instant::now();
                    while acknowledged.load(Ordering::SeqCst) < end && start.elapsed() < LIMIT {
                        if let Some((command, _)) = guest.tap.command(Duration::from_millis(50))?
                            && let Some(offset) = acknowledged_by(&command)
                        {
                            acknowledged.store(offset, Ordering::SeqCst);
                        }
                    }
                    Ok(())
                }
                1 => {
                    for byte in format!("\n+CONTINUE {other}\r\n").bytes() {
                        guest.tap.send([byte])?;
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    guest.tap.send(INCR)?;
                    guest.idle(|offset| acknowledged.store(offset, Ordering::SeqCst))
                }
                _ => {
                    guest.tap.send("+CONTINUE\r\n")?;
                    guest.idle(|offset| acknowledged.store(offset, Ordering::SeqCst))
                }
            }
        }
    })
    .unwrap();
    let mut replica = Setup::ardb().start().unwrap();
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", master.port)).unwrap();
    let new_end = end + INCR.len() as u64;
    wait_until("it goes on under another name", LIMIT, || Ok(acknowledged.load(Ordering::SeqCst) == new_end)).unwrap();
    let info = replica.client().unwrap().info("replication").unwrap();
    assert_eq!((info["master_replid"].as_str(), info["master_replid2"].as_str()), (other.as_str(), ID));
    assert_eq!(info["second_repl_offset"], (end + 1).to_string());
    assert_eq!(replica.client().unwrap().ask("GET a").unwrap().text(), "2");
    // Killed and started again it still knows where it was.
    replica.kill9().unwrap();
    replica.restart().unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let questions = asked.lock().unwrap().clone();
    assert_eq!(questions[1..], [format!("PSYNC {ID} {}", end + 1), format!("PSYNC {other} {}", new_end + 1)]);
    assert_eq!(questions[0], "PSYNC ? -1");
    drop(replica);
    let said = master.said();
    assert!(said[0].iter().any(|line| line.starts_with("REPLCONF listening-port ")), "{said:?}");
    assert!(said[0].iter().any(|line| line.starts_with("REPLCONF capa ")), "{said:?}");
}
