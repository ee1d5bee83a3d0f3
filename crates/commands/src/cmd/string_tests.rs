//! Tests of the commands for strings and counters: replies and effects, line by line.

use crate::context::Origin;
use crate::testing::Harness;

/// Runs lines `command -> reply`, or `command -> reply => effects`.
fn check(server: &mut Harness, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, rest) = line.split_once(" -> ").unwrap_or_else(|| panic!("no reply in {line:?}"));
        let (reply, effects) = match rest.split_once(" => ") {
            Some((reply, effects)) => (reply, Some(effects)),
            None => (rest, None),
        };
        server.take_log();
        assert_eq!(server.run(command), reply, "{line}");
        if let Some(effects) = effects {
            assert_eq!(server.take_log(), effects.trim_matches('\''), "{line}");
        }
    }
}

#[test]
fn set_has_every_form() {
    let mut server = Harness::new();
    check(
        &mut server,
        "SET a 1 -> +OK => SET a 1
         GET a -> $1 1 => ''
         set a 2 XX -> +OK => SET a 2
         SET a 3 NX -> $-1 => ''
         SET a 3 NX GET -> $1 2 => ''
         SET b 3 XX GET -> $-1 => ''
         SET a 3 GET -> $1 2 => SET a 3
         SET a 4 EX 100 -> +OK => MULTI | SET a 4 | PEXPIREAT a 1000000100000 | EXEC
         SET a 5 KEEPTTL -> +OK => MULTI | SET a 5 | PEXPIREAT a 1000000100000 | EXEC
         TTL a -> :100
         SET a 6 -> +OK => SET a 6
         TTL a -> :-1
         SET a 7 PX 1 -> +OK => MULTI | SET a 7 | PEXPIREAT a 1000000000001 | EXEC
         SET a 7 EXAT 1000000001 -> +OK => MULTI | SET a 7 | PEXPIREAT a 1000000001000 | EXEC
         SET a 7 PXAT 1000000000002 -> +OK => MULTI | SET a 7 | PEXPIREAT a 1000000000002 | EXEC
         SET a 7 EX 1 EX 2 -> +OK => MULTI | SET a 7 | PEXPIREAT a 1000000002000 | EXEC
         SET a 1 EX 1 PX 1 -> -ERR syntax error
         SET a 1 NX XX -> -ERR syntax error
         SET a 1 EX 1 KEEPTTL -> -ERR syntax error
         SET a 1 KEEPTTL EX 1 -> -ERR syntax error
         SET a 1 EX -> -ERR syntax error
         SET a 1 WHAT -> -ERR syntax error
         SET a 1 EX 0 -> -ERR invalid expire time in 'set' command
         SET a 1 EX -1 -> -ERR invalid expire time in 'set' command
         SET a 1 EX 9223372036854775 -> -ERR invalid expire time in 'set' command
         SET a 1 EX 9223372036854776 -> -ERR invalid expire time in 'set' command
         SET a 1 EX x -> -ERR value is not an integer or out of range
         SETEX a 10 v -> +OK => MULTI | SET a v | PEXPIREAT a 1000000010000 | EXEC
         SETEX a 0 v -> -ERR invalid expire time in 'setex' command
         PSETEX a 10 v -> +OK => MULTI | SET a v | PEXPIREAT a 1000000000010 | EXEC
         PSETEX a -10 v -> -ERR invalid expire time in 'psetex' command
         SETNX a w -> :0 => ''
         SETNX c w -> :1 => SET c w
         GETSET a x -> $1 v => SET a x
         TTL a -> :-1
         GETDEL a -> $1 x => DEL a
         GETDEL a -> $-1 => ''
         GETSET a y -> $-1 => SET a y",
    );
}

#[test]
fn getex_changes_the_expiry_alone() {
    let mut server = Harness::new();
    check(
        &mut server,
        "SET a 1 -> +OK
         GETEX a -> $1 1 => ''
         GETEX a EX 10 -> $1 1 => PEXPIREAT a 1000000010000
         GETEX a PERSIST -> $1 1 => PERSIST a
         GETEX a PERSIST -> $1 1 => ''
         GETEX a PXAT 1000000000500 -> $1 1 => PEXPIREAT a 1000000000500
         GETEX a EX 0 -> -ERR invalid expire time in 'getex' command
         GETEX a EX 1 PERSIST -> -ERR syntax error
         GETEX a KEEPTTL -> -ERR syntax error
         GETEX nope EX 0 -> $-1 => ''
         GETEX a PXAT 1 -> $1 1 => DEL a
         EXISTS a -> :0",
    );
}

#[test]
fn many_at_once() {
    let mut server = Harness::new();
    check(
        &mut server,
        "MSET a 1 b 2 a 3 -> +OK => MSET a 1 b 2 a 3
         MGET a b c -> *3 $1 3 $1 2 $-1
         MSET a -> -ERR wrong number of arguments for 'mset' command
         MSET a 1 b -> -ERR wrong number of arguments for 'mset' command
         MSETNX c 1 a 2 -> :0 => ''
         MSETNX c 1 d 2 -> :1 => MSET c 1 d 2
         MSETNX e 1 f -> -ERR wrong number of arguments for 'msetnx' command
         DBSIZE -> :4",
    );
}

#[test]
fn parts_of_strings() {
    let mut server = Harness::new();
    check(
        &mut server,
        "APPEND a Hello -> :5 => APPEND a Hello
         APPEND a World -> :10
         STRLEN a -> :10
         STRLEN b -> :0
         GETRANGE a 0 4 -> $5 Hello
         GETRANGE a -5 -1 -> $5 World
         GETRANGE a -3 -5 -> $0 \u{20}
         GETRANGE a 5 3 -> $0 \u{20}
         GETRANGE a 0 -100 -> $1 H
         GETRANGE a 3 9223372036854775807 -> $7 loWorld
         GETRANGE a -9223372036854775808 1 -> $2 He
         SUBSTR a 5 5 -> $1 W
         GETRANGE b 0 -1 -> $0 \u{20}
         SETRANGE a 5 Earth -> :10 => SETRANGE a 5 Earth
         GET a -> $10 HelloEarth
         SETRANGE c 3 x -> :4
         GETRANGE c 3 3 -> $1 x
         SETRANGE a -1 x -> -ERR offset is out of range
         SETRANGE a 536870912 x -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
         SETRANGE a 9223372036854775807 xx -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)",
    );
    assert_eq!(server.run_args(&[b"SETRANGE", b"none", b"5", b""]), ":0");
    assert_eq!(server.run("EXISTS none"), ":0");
}

#[test]
fn counters() {
    let mut server = Harness::new();
    check(
        &mut server,
        "INCR a -> :1 => INCR a
         INCRBY a 10 -> :11 => INCRBY a 10
         DECR a -> :10
         DECRBY a -5 -> :15
         EXPIRE a 10 -> :1
         INCR a -> :16 => INCR a
         TTL a -> :10
         DECRBY a -9223372036854775808 -> -ERR decrement would overflow
         SET a 9223372036854775807 -> +OK
         INCR a -> -ERR increment or decrement would overflow => ''
         SET a x -> +OK
         INCR a -> -ERR value is not an integer or out of range
         INCRBY b x -> -ERR value is not an integer or out of range
         INCRBYFLOAT a 1 -> -ERR value is not a valid float
         SET a 3 EX 10 -> +OK
         INCRBYFLOAT a 1.5 -> $3 4.5 => MULTI | SET a 4.5 | PEXPIREAT a 1000000010000 | EXEC
         INCRBYFLOAT new 5.0e3 -> $4 5000 => SET new 5000
         INCRBYFLOAT new inf -> -ERR increment would produce NaN or Infinity
         INCR new -> :5001",
    );
}

#[test]
fn errors_take_back_the_writes_and_reply_wrong_type() {
    let mut server = Harness::new();
    check(
        &mut server,
        "SADD s x -> :1
         GET s -> -WRONGTYPE Operation against a key holding the wrong kind of value
         APPEND s x -> -WRONGTYPE Operation against a key holding the wrong kind of value
         INCR s -> -WRONGTYPE Operation against a key holding the wrong kind of value
         SET s v GET -> -WRONGTYPE Operation against a key holding the wrong kind of value => ''
         GETSET s v -> -WRONGTYPE Operation against a key holding the wrong kind of value => ''
         GETEX s -> -WRONGTYPE Operation against a key holding the wrong kind of value
         SETRANGE s 0 v -> -WRONGTYPE Operation against a key holding the wrong kind of value
         MGET s nope -> *2 $-1 $-1
         SET s v -> +OK => SET s v
         TYPE s -> +string",
    );
}

#[test]
fn big_strings_are_read_and_written_in_pieces() {
    let mut server = Harness::new();
    let big: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
    server.run_args(&[b"SET", b"big", &big]);
    assert_eq!(server.run("STRLEN big"), ":400000");
    let reply = server.run_args(&[b"GET", b"big"]);
    assert_eq!(
        reply,
        format!("$400000 {}", String::from_utf8_lossy(&big).replace("\r\n", " ").trim_end_matches("\r\n"))
    );
    assert_eq!(server.run_args(&[b"SETRANGE", b"big", b"4094", b"abcd"]), ":400000");
    assert_eq!(server.run("GETRANGE big 4094 4097"), "$4 abcd");
    assert_eq!(server.run_args(&[b"APPEND", b"big", b"end"]), ":400003");
    assert_eq!(server.run("GETRANGE big -3 -1"), "$3 end");
    assert_eq!(server.run("RENAME big other"), "+OK");
    assert_eq!(server.run("GETRANGE other 4094 4097"), "$4 abcd");
    assert_eq!(server.run("DEL other"), ":1");
    assert_eq!(server.model().live_rows(ardb_engine::Space::Chunk), 0);
}

#[test]
fn the_masters_stream_decides_what_has_expired() {
    let mut server = Harness::new();
    server.origin = Origin::Stream;
    check(
        &mut server,
        "SET a 1 PX 10 -> +OK => ''
         PEXPIREAT a 5 -> :1 => ''
         GET a -> $1 1
         INCR a -> :2 => ''",
    );
    server.origin = Origin::Client;
    check(
        &mut server,
        "GET a -> $-1 => DEL a
         INCR a -> :1 => INCR a
         TTL a -> :-1",
    );
}
