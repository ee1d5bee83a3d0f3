//! Tests of DUMP, RESTORE, COPY and OBJECT ENCODING: what is dumped, copied or logged makes the same value again.

use crate::testing::Harness;

/// The payload that DUMP gives.
fn dump(server: &mut Harness, key: &str) -> Vec<u8> {
    let ((), reply) = server.with_ctx(|ctx| {
        let args: [&[u8]; 2] = [b"DUMP", key.as_bytes()];
        let command = crate::dispatch::resolve(&ctx.shared.table, &args).unwrap_or_else(|error| panic!("{error}"));
        crate::dispatch::execute(ctx, command, &args);
    });
    let start = reply.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    reply[start..reply.len() - 2].to_vec()
}

/// A server with a key of each type, big and small.
fn filled() -> (Harness, Vec<&'static str>) {
    let mut server = Harness::new();
    server.run("SET string hello");
    server.run("SET number 12345");
    server.run_args(&[b"SET", b"empty", b""]);
    let big: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    server.run_args(&[b"SET", b"big", &big]);
    let words = |word: &dyn Fn(u32) -> String| (0..300).map(word).collect::<Vec<_>>().join(" ");
    server.run(&format!("RPUSH list {}", words(&|n| format!("element:{n}"))));
    server.run(&format!("SADD set {}", words(&|n| n.to_string())));
    server.run(&format!("HSET hash {}", words(&|n| format!("field:{n} value:{n}"))));
    server.run(&format!("ZADD zset {}", words(&|n| format!("{}.5 member:{n}", n % 17))));
    server.run("ZADD zset -inf low inf high");
    (server, vec!["string", "number", "empty", "big", "list", "set", "hash", "zset"])
}

/// What shows the whole value, in an order that does not depend on rows.
fn show(server: &mut Harness, key: &str) -> String {
    let kind = server.run(&format!("TYPE {key}"));
    let line = match &kind[1..] {
        "string" => format!("GET {key}"),
        "list" => format!("LRANGE {key} 0 -1"),
        "set" => format!("SORT {key} ALPHA"),
        "hash" => format!("HGETALL {key}"),
        "zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
        other => panic!("{key} is of type {other}"),
    };
    server.run(&line)
}

#[test]
fn what_is_dumped_is_restored() {
    let (mut server, keys) = filled();
    for key in keys {
        let payload = dump(&mut server, key);
        let before = show(&mut server, key);
        assert_eq!(
            server.run_args(&[b"RESTORE", key.as_bytes(), b"0", &payload]),
            "-BUSYKEY Target key name already exists."
        );
        assert_eq!(server.run_args(&[b"RESTORE", key.as_bytes(), b"5000", &payload, b"REPLACE"]), "+OK", "{key}");
        assert!(show(&mut server, key) == before, "{key}");
        assert_eq!(server.run(&format!("PTTL {key}")), ":5000", "{key}");
        assert_eq!(server.run_args(&[b"RESTORE-ASKING", b"other", b"0", &payload]), "+OK", "{key}");
        assert!(show(&mut server, "other") == before, "{key}");
        assert_eq!(server.run("PTTL other"), ":-1", "{key}");
        server.run("DEL other");
    }
}

#[test]
fn restore_checks_everything() {
    let mut server = Harness::new();
    server.run("SET a value");
    let payload = dump(&mut server, "a");
    let mut wrong = payload.clone();
    wrong[2] ^= 1;
    for (key, ttl, bytes, options, reply) in [
        ("b", "0", &wrong, "", "-ERR DUMP payload version or checksum are wrong"),
        ("b", "0", &b"short".to_vec(), "", "-ERR DUMP payload version or checksum are wrong"),
        ("b", "-1", &payload, "", "-ERR Invalid TTL value, must be >= 0"),
        ("b", "x", &payload, "", "-ERR value is not an integer or out of range"),
        ("b", "0", &payload, "NOPE", "-ERR syntax error"),
        ("b", "0", &payload, "IDLETIME", "-ERR syntax error"),
        ("b", "0", &payload, "IDLETIME -1", "-ERR Invalid IDLETIME value, must be >= 0"),
        ("b", "0", &payload, "FREQ 256", "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
        ("b", "0", &payload, "FREQ 1 IDLETIME 1", "-ERR syntax error"),
        ("b", "0", &payload, "IDLETIME 10", "+OK"),
        ("b", "5", &payload, "ABSTTL REPLACE", "+OK"),
        ("c", "1000000000500", &payload, "ABSTTL", "+OK"),
    ] {
        let mut args: Vec<&[u8]> = vec![b"RESTORE", key.as_bytes(), ttl.as_bytes(), bytes];
        args.extend(options.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes));
        assert_eq!(server.run_args(&args), reply, "{ttl} {options}");
    }
    assert_eq!(server.run("EXISTS b"), ":0", "it was restored into the past");
    assert_eq!(server.run("PTTL c"), ":500");
    assert_eq!(server.run("DUMP nope"), "$-1");
}

/// The log of a server, played as a master's stream on another, gives the same data.
fn follows(server: &mut Harness, line: &[&[u8]], keys: &[(u32, &str)]) {
    let (mut replica, _) = filled();
    let log = {
        server.run_args(line);
        server.take_payload()
    };
    replica.origin = crate::context::Origin::Stream;
    replica.now += 1_000_000;
    replica.play(&log);
    for (db, key) in keys {
        (server.session.db, replica.session.db) = (*db, *db);
        for question in ["EXISTS", "PEXPIRETIME", "OBJECT ENCODING"] {
            let line = format!("{question} {key}");
            assert_eq!(server.run(&line), replica.run(&line), "{line}");
        }
        if server.run(&format!("EXISTS {key}")) == ":1" {
            assert!(show(server, key) == show(&mut replica, key), "{key}");
        }
    }
    server.session.db = 0;
}

#[test]
fn what_copy_and_restore_log_makes_the_same_value() {
    let (_, keys) = filled();
    for key in keys {
        let other: &[u8] = if key == "list" { b"set" } else { b"list" };
        let (mut server, _) = filled();
        server.take_payload();
        follows(&mut server, &[b"COPY", key.as_bytes(), b"copy"], &[(0, "copy"), (0, key)]);
        assert!(show(&mut server, key) == show(&mut server, "copy"), "{key}");
        let (mut server, _) = filled();
        server.take_payload();
        follows(&mut server, &[b"COPY", key.as_bytes(), other, b"REPLACE"], &[(0, "list"), (0, "set"), (0, key)]);
        let (mut server, _) = filled();
        server.take_payload();
        server.run(&format!("PEXPIRE {key} 70000"));
        follows(&mut server, &[b"COPY", key.as_bytes(), b"copy", b"DB", b"5"], &[(5, "copy"), (0, key)]);
        let (mut server, _) = filled();
        let payload = dump(&mut server, key);
        server.take_payload();
        follows(&mut server, &[b"RESTORE", b"list", b"80000", &payload, b"REPLACE"], &[(0, "list")]);
    }
}

#[test]
fn copy_checks_its_arguments() {
    let mut server = Harness::new();
    for (line, reply) in [
        ("SET a 1", "+OK"),
        ("SET b 2", "+OK"),
        ("COPY a b", ":0"),
        ("COPY nope b", ":0"),
        ("COPY a a", "-ERR source and destination objects are the same"),
        ("COPY a a DB 1", ":1"),
        ("COPY a a DB 16", "-ERR DB index is out of range"),
        ("COPY a c DB x", "-ERR value is not an integer or out of range"),
        ("COPY a c NOPE", "-ERR syntax error"),
        ("COPY a b REPLACE", ":1"),
        ("GET b", "$1 1"),
    ] {
        assert_eq!(server.run(line), reply, "{line}");
    }
}

#[test]
fn a_copy_lives_its_own_life() {
    let (mut server, keys) = filled();
    for key in keys {
        let before = show(&mut server, key);
        assert_eq!(server.run(&format!("COPY {key} other REPLACE")), ":1");
        server.run(&format!("DEL {key}"));
        assert!(show(&mut server, "other") == before, "{key}");
    }
}

#[test]
fn encodings_are_those_of_redis() {
    let mut server = Harness::new();
    let long = "x".repeat(65);
    for (line, key, encoding) in [
        ("SET a 12", "a", "int"),
        ("SET a 012", "a", "embstr"),
        ("SET a hello", "a", "embstr"),
        (&format!("SET a {long}")[..], "a", "raw"),
        ("RPUSH l 1", "l", "quicklist"),
        ("SADD s 1 2 3", "s", "intset"),
        ("SADD s x", "s", "hashtable"),
        ("HSET h a b", "h", "listpack"),
        (&format!("HSET h {long} b")[..], "h", "hashtable"),
        ("ZADD z 1 a", "z", "listpack"),
        (&format!("ZADD z 1 {long}")[..], "z", "skiplist"),
    ] {
        server.run(line);
        let reply = server.run(&format!("OBJECT ENCODING {key}"));
        assert_eq!(reply, format!("${} {encoding}", encoding.len()), "{line}");
    }
    assert_eq!(server.run("OBJECT ENCODING nope"), "$-1");
    assert_eq!(server.run("OBJECT REFCOUNT a"), ":1");
    assert!(server.run("OBJECT FREQ a").starts_with("-ERR An LFU maxmemory policy is not selected"));
    assert_eq!(server.run("OBJECT IDLETIME a"), ":0");
    assert_eq!(server.run("OBJECT NOPE a"), "-ERR unknown subcommand 'NOPE'. Try OBJECT HELP.");
}
