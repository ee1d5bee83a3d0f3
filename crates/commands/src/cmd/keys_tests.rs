//! Tests of the commands for keys of any type: expiry, its cycle, SCAN.

use ardb_types::keyspace;

use crate::cmd::expire::expire_entry;
use crate::context::Ctx;
use crate::testing::Harness;

#[test]
fn keys_of_any_type() {
    let mut server = Harness::new();
    for (line, reply) in [
        ("MSET a 1 b 2 c 3", "+OK"),
        ("EXISTS a a nope", ":2"),
        ("TOUCH a b nope", ":2"),
        ("TYPE a", "+string"),
        ("TYPE nope", "+none"),
        ("UNLINK a nope", ":1"),
        ("DEL nope", ":0"),
        ("RENAME nope x", "-ERR no such key"),
        ("RENAME b b", "+OK"),
        ("RENAMENX b b", ":0"),
        ("RENAMENX b c", ":0"),
        ("RENAMENX b d", ":1"),
        ("RENAME d c", "+OK"),
        ("GET c", "$1 2"),
        ("DBSIZE", ":1"),
        ("RANDOMKEY", "$1 c"),
        ("MOVE c 0", "-ERR source and destination objects are the same"),
        ("MOVE c 16", "-ERR DB index is out of range"),
        ("MOVE c x", "-ERR value is not an integer or out of range"),
        ("MOVE c 1", ":1"),
        ("MOVE c 1", ":0"),
        ("DBSIZE", ":0"),
        ("RANDOMKEY", "$-1"),
        ("SWAPDB 0 1", "+OK"),
        ("SWAPDB x 1", "-ERR invalid first DB index"),
        ("SWAPDB 1 x", "-ERR invalid second DB index"),
        ("SWAPDB 1 99", "-ERR DB index is out of range"),
        ("GET c", "$1 2"),
        ("FLUSHDB NOW", "-ERR syntax error"),
        ("FLUSHDB ASYNC", "+OK"),
        ("DBSIZE", ":0"),
        ("FLUSHALL", "+OK"),
    ] {
        assert_eq!(server.run(line), reply, "{line}");
    }
    assert_eq!(
        server.take_log(),
        "MSET a 1 b 2 c 3 | DEL a nope | RENAMENX b d | RENAME d c | MOVE c 1 | SWAPDB 0 1 | FLUSHDB | FLUSHALL"
    );
}

#[test]
fn an_expiry_moves_with_its_key() {
    let mut server = Harness::new();
    server.run("SET a 1 PX 100");
    server.run("SET b 1 PX 50");
    server.run("RENAME a b");
    assert_eq!(server.run("PTTL b"), ":100");
    server.run("MOVE b 3");
    server.run("SET b 2");
    server.session.db = 3;
    assert_eq!(server.run("PTTL b"), ":100");
    server.now += 100;
    server.session.db = 0;
    server.take_log();
    assert_eq!(server.run("MOVE b 3"), ":1", "what has expired there is no obstacle");
    assert_eq!(server.take_log(), "SELECT 3 | MULTI | DEL b | SELECT 0 | MOVE b 3 | EXEC");
}

#[test]
fn expire_has_conditions() {
    let mut server = Harness::new();
    for (line, reply, effect) in [
        ("SET a 1", "+OK", "SET a 1"),
        ("EXPIRE a 10 XX", ":0", ""),
        ("EXPIRE a 10 GT", ":0", ""),
        ("EXPIRE a 10 LT", ":1", "PEXPIREAT a 1000000010000"),
        ("EXPIRE a 5 GT", ":0", ""),
        ("EXPIRE a 20 gt", ":1", "PEXPIREAT a 1000000020000"),
        ("EXPIRE a 20 NX", ":0", ""),
        ("PEXPIRE a 1500 XX LT", ":1", "PEXPIREAT a 1000000001500"),
        ("TTL a", ":2", ""),
        ("PTTL a", ":1500", ""),
        ("EXPIRETIME a", ":1000000002", ""),
        ("PEXPIRETIME a", ":1000000001500", ""),
        ("PERSIST a", ":1", "PERSIST a"),
        ("PERSIST a", ":0", ""),
        ("TTL a", ":-1", ""),
        ("EXPIRETIME nope", ":-2", ""),
        ("EXPIRE nope 10", ":0", ""),
        ("EXPIREAT a 1000000100", ":1", "PEXPIREAT a 1000000100000"),
        ("PEXPIREAT a 1000000000001", ":1", "PEXPIREAT a 1000000000001"),
        ("EXPIRE a 10 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible", ""),
        ("EXPIRE a 10 GT LT", "-ERR GT and LT options at the same time are not compatible", ""),
        ("EXPIRE a 10 XY", "-ERR Unsupported option XY", ""),
        ("EXPIRE a x", "-ERR value is not an integer or out of range", ""),
        ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command", ""),
        ("PEXPIRE a 9223372036854775807", "-ERR invalid expire time in 'pexpire' command", ""),
        ("EXPIREAT a -9223372036854775808", "-ERR invalid expire time in 'expireat' command", ""),
        ("EXPIRE a -1", ":1", "DEL a"),
        ("EXISTS a", ":0", ""),
    ] {
        assert_eq!(server.run(line), reply, "{line}");
        assert_eq!(server.take_log(), effect, "{line}");
    }
}

/// Deals with what is due, at most `most` entries; how many are gone.
fn cycle(server: &mut Harness, most: usize) -> usize {
    let run = |ctx: &mut Ctx<'_>| {
        let due = keyspace::due(&ctx.rows, (0, b""), ctx.now, most).expect("the model cannot fail").0;
        due.iter().filter(|entry| expire_entry(ctx, entry).expect("the model cannot fail")).count()
    };
    server.with_ctx(run).0
}

#[test]
fn the_cycle_deletes_what_is_due_and_no_more() {
    let mut server = Harness::new();
    for n in 0..20i64 {
        server.run(&format!("SET k{n} v PXAT {}", 1_000_000_000_001 + n));
    }
    server.session.db = 2;
    server.run("SET other v PXAT 1000000000001");
    server.run("FLUSHDB");
    server.run("SET kept v PXAT 1000000000002");
    server.take_log();
    server.now += 10;
    assert_eq!(cycle(&mut server, 5), 5);
    assert_eq!(cycle(&mut server, 100), 7);
    assert_eq!(server.run("DBSIZE"), ":0");
    server.session.db = 0;
    assert_eq!(server.run("DBSIZE"), ":10");
    let log = server.take_log();
    assert_eq!(log.matches("DEL").count(), 11, "{log}");
    assert_eq!(server.model().live_rows(ardb_engine::Space::Expiry), 10);
}

#[test]
fn scan_returns_every_key_that_stays() {
    let mut server = Harness::new();
    for n in 0..500 {
        server.run(&format!("SET key:{n} v"));
    }
    let mut seen = std::collections::HashSet::new();
    let mut cursor = "0".to_string();
    let mut calls = 0;
    loop {
        // Keys come and go while the scan is under way.
        server.run(&format!("SET other:{calls} v"));
        server.run(&format!("DEL other:{}", calls / 2));
        let reply = server.run(&format!("SCAN {cursor} COUNT 7 MATCH key:* TYPE string"));
        let words: Vec<&str> = reply.split(' ').collect();
        cursor = words[2].to_string();
        seen.extend(words[3..].iter().filter(|word| word.starts_with("key:")).map(ToString::to_string));
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
    assert!(calls > 50, "{calls} calls");
    assert_eq!(server.run("SCAN 0 TYPE list COUNT 10000"), "*2 $1 0 *0");
    assert_eq!(server.run("SCAN x"), "-ERR invalid cursor");
    assert_eq!(server.run("SCAN 99999999999999999999"), "-ERR invalid cursor");
    assert_eq!(server.run("SCAN 0 COUNT 0"), "-ERR syntax error");
    assert_eq!(server.run("SCAN 0 COUNT"), "-ERR syntax error");
    assert_eq!(server.run("SCAN 0 COUNT x"), "-ERR value is not an integer or out of range");
    assert_eq!(server.run("KEYS key:49?").split(' ').next(), Some("*10"));
}

#[test]
fn a_moved_keys_expiry_is_logged_for_those_who_would_forget_it() {
    let mut server = Harness::new();
    server.run("SET a 1");
    server.run("SET b 1");
    server.run("PEXPIREAT a 99999999999999");
    server.take_log();
    assert_eq!(server.run("MOVE a 1"), ":1");
    assert_eq!(server.run("MOVE b 1"), ":1");
    assert_eq!(
        server.take_log(),
        "MULTI | MOVE a 1 | SELECT 1 | PEXPIREAT a 99999999999999 | EXEC | SELECT 0 | MOVE b 1"
    );
}
