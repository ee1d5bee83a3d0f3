//! The words of replication on the wire: what a master answers to each PSYNC, byte by byte.

use std::time::Duration;

use ardb_e2e::client::Client;
use ardb_e2e::server::{Server, Setup};
use ardb_e2e::wait::wait_until;

/// Asks as a replica would and returns the first line of the answer.
fn psync(server: &Server, id: &str, offset: i64) -> (String, Client) {
    let mut client = server.client().unwrap();
    client.set_timeout(Duration::from_secs(5)).unwrap();
    for line in ["PING", "REPLCONF listening-port 9", "REPLCONF capa eof capa psync2"] {
        let reply = client.ask(line).unwrap();
        assert!(!reply.is_error(), "{line}: {reply}");
    }
    let mut reply = client.call(&["PSYNC", id, &offset.to_string()]).unwrap().text();
    // Newlines keep the link alive while a dump is made.
    while reply.is_empty() {
        reply = client.receive().unwrap().text();
    }
    (reply, client)
}

/// A master with a history of some commands: its id and offset.
fn with_history() -> (Server, String, i64) {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    // A first full sync, so that the history begins.
    let (reply, first) = psync(&server, "?", -1);
    let words: Vec<&str> = reply.split(' ').collect();
    assert_eq!((words[0], words[1].len()), ("FULLRESYNC", 40), "{reply}");
    assert!(words[1].bytes().all(|byte| byte.is_ascii_hexdigit()));
    for index in 0..100 {
        client.must(&format!("SET key:{index} value")).unwrap();
    }
    drop(first);
    let info = client.info("replication").unwrap();
    let offset = info["master_repl_offset"].parse().unwrap();
    (server, info["master_replid"].clone(), offset)
}

#[test]
fn the_offset_decides_between_going_on_and_starting_over() {
    let (server, id, end) = with_history();
    let info = server.client().unwrap().info("replication").unwrap();
    let first: i64 = info["repl_backlog_first_byte_offset"].parse().unwrap();
    let wrong = "0123456789012345678901234567890123456789";
    let cases = [
        (id.as_str(), end + 1, true),
        (&id, end, true),
        (&id, first, true),
        (&id, first - 1, false),
        (&id, end + 2, false),
        (&id, -1, false),
        (wrong, end + 1, false),
        ("?", -1, false),
        ("short", end, false),
    ];
    for (id, offset, goes_on) in cases {
        let (reply, _client) = psync(&server, id, offset);
        let answer = if goes_on { reply.starts_with("CONTINUE") } else { reply.starts_with("FULLRESYNC ") };
        assert!(answer, "PSYNC {id} {offset} (history {first} to {end}): {reply}");
    }
}

#[test]
fn each_line_of_a_newer_handshake_is_taken() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    for line in [
        "REPLCONF listening-port 9",
        "REPLCONF ip-address 127.0.0.1",
        "REPLCONF capa eof capa psync2",
        "REPLCONF capa something-of-tomorrow",
        "REPLCONF version 9.1.2",
    ] {
        let reply = client.ask(line).unwrap();
        // Redis 7.0, which may stand in, knows no version.
        let known = !(ardb_e2e::server::stands_in() && line.contains("version"));
        assert_eq!(reply.is_ok(), known, "{line}: {reply}");
    }
    let reply = client.ask("PSYNC ? -1").unwrap().text();
    assert!(reply.starts_with("FULLRESYNC "), "{reply}");
}

#[test]
fn after_going_on_come_exactly_the_bytes_from_that_offset() {
    let (server, id, end) = with_history();
    let mut expected = Vec::new();
    ardb_e2e::client::encode(&["SET", "key:99", "value"], &mut expected);
    let (reply, mut client) = psync(&server, &id, end + 1 - expected.len() as i64);
    assert!(reply.starts_with("CONTINUE"), "{reply}");
    client.set_timeout(Duration::from_millis(500)).unwrap();
    let bytes = client.receive_raw().unwrap();
    assert!(bytes.starts_with(&expected), "{}", bytes.escape_ascii());
}

#[test]
fn sync_sends_a_length_a_dump_and_the_stream() {
    let server = Setup::ardb().with("repl-diskless-sync", "no").start().unwrap();
    let mut writer = server.client().unwrap();
    writer.must("SET a 1").unwrap();
    // As Redis 2.6 asks: inline, and with nothing said before.
    let mut client = server.client().unwrap();
    client.queue_raw(b"PING\r\nREPLCONF listening-port 9\r\n", 2);
    assert_eq!(client.receive().unwrap().text(), "PONG");
    assert!(client.receive().unwrap().is_ok());
    client.queue_raw(b"SYNC\r\n", 0);
    client.flush().unwrap();
    client.set_timeout(Duration::from_millis(1500)).unwrap();
    wait_until("the sync is seen", Duration::from_secs(5), || {
        Ok(writer.info("replication")?.get("slave0").is_some_and(|line| line.contains("state=online")))
    })
    .unwrap();
    writer.must("SET b 2").unwrap();
    let bytes = client.receive_raw().unwrap();
    let text: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == b'\n').collect();
    assert_eq!(text[0], b'$', "{}", text.escape_ascii());
    let end = text.windows(2).position(|pair| pair == b"\r\n").unwrap();
    let length: usize = std::str::from_utf8(&text[1..end]).unwrap().parse().unwrap();
    let dump = &text[end + 2..end + 2 + length];
    assert!(dump.starts_with(b"REDIS00"));
    if !ardb_e2e::server::stands_in() {
        assert!(dump.starts_with(b"REDIS0006"), "the oldest version that holds it: {}", dump[..9].escape_ascii());
    }
    let stream = &text[end + 2 + length..];
    let mut expected = Vec::new();
    ardb_e2e::client::encode(&["SELECT", "0"], &mut expected);
    ardb_e2e::client::encode(&["SET", "b", "2"], &mut expected);
    let stream = String::from_utf8_lossy(stream).into_owned();
    assert!(stream.contains(std::str::from_utf8(&expected).unwrap()), "{stream:?}");
}

#[test]
fn what_is_replicated_is_the_effect_in_the_oldest_words() {
    if ardb_e2e::server::stands_in() {
        return; // Redis 7.0 uses words that 2.6 does not know.
    }
    let (server, id, end) = with_history();
    let (reply, mut replica) = psync(&server, &id, end + 1);
    assert!(reply.starts_with("CONTINUE"), "{reply}");
    let mut client = server.client().unwrap();
    // Of more than one member, for the last one takes the key along.
    client.must("SADD s a b").unwrap();
    client.must("SPOP s").unwrap();
    client.must("SET x v EX 100").unwrap();
    client.must("UNLINK x").unwrap();
    client.must("INCRBYFLOAT f 1.5").unwrap();
    client.must("SADD t a").unwrap();
    client.must("SREM t nothing").unwrap();
    client.call(&["EVAL", "redis.call('SET', 'e', '1') return 1", "0"]).unwrap();
    replica.set_timeout(Duration::from_millis(500)).unwrap();
    let stream = String::from_utf8_lossy(&replica.receive_raw().unwrap()).to_uppercase();
    for word in ["SPOP", "UNLINK", "INCRBYFLOAT", "EVAL", "NOTHING", "\r\nEX\r\n"] {
        assert!(!stream.contains(word), "{word} in {stream:?}");
    }
    for word in ["SREM", "PEXPIREAT", "DEL"] {
        assert!(stream.contains(word), "no {word} in {stream:?}");
    }
}
