//! Scripts of a master's bytes, cut at every position.

use ardb_base::id::{Offset, ReplId};

use super::*;

fn id(letter: u8) -> ReplId {
    ReplId::parse(&[letter; 40]).unwrap()
}

fn identity() -> Identity {
    Identity { port: 7000, timeout: 60_000, ..Identity::default() }
}

/// A master that is no Ardb server, up to its answer to PSYNC.
const NO_ROWS: &[u8] = b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n-ERR unknown command 'PSYNC2'\r\n";

/// What came of a script.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<String>,
    rdb: Vec<u8>,
    /// Four bytes stand for all rows.
    rows: Vec<u8>,
    stream: Vec<u8>,
    sent: String,
}

/// Feeds `wire` cut at these places. After the RDB the stream goes on at `offset`.
fn run(identity: Identity, wire: &[u8], cuts: &[usize], offset: u64) -> Result<Seen, LinkError> {
    let mut replica = Replica::new(identity, 0);
    let mut seen = Seen::default();
    let mut held: Vec<u8> = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&wire.len()]) {
        held.extend_from_slice(&wire[from..to]);
        from = to;
        loop {
            let Step { consumed, event } = replica.receive(&held, 1)?;
            match event.clone() {
                Some(Event::Rdb(range)) => seen.rdb.extend_from_slice(&held[range]),
                Some(Event::Rows(range)) => {
                    let taken = (4 - seen.rows.len()).min(range.len());
                    seen.rows.extend(held.drain(..taken));
                    if seen.rows.len() == 4 {
                        replica.rows_end();
                        replica.installed(Offset(offset), 1);
                    }
                }
                Some(Event::Stream(range)) => seen.stream.extend_from_slice(&held[range]),
                Some(event) => seen.events.push(format!("{event:?}")),
                None => {}
            }
            held.drain(..consumed);
            if event == Some(Event::RdbEnds) {
                replica.installed(Offset(offset), 1);
            }
            seen.sent.push_str(&String::from_utf8_lossy(&replica.take_output()));
            if consumed == 0 && event.is_none() {
                break;
            }
        }
    }
    assert!(held.is_empty(), "{}", held.escape_ascii());
    Ok(seen)
}

/// The same whatever the cut.
fn everywhere(identity: &Identity, wire: &[u8], offset: u64) -> Result<Seen, LinkError> {
    let whole = run(identity.clone(), wire, &[], offset);
    for cut in 0..wire.len() {
        assert_eq!(run(identity.clone(), wire, &[cut], offset), whole, "cut at {cut}");
    }
    let every: Vec<usize> = (0..wire.len()).collect();
    assert_eq!(run(identity.clone(), wire, &every, offset), whole, "byte by byte");
    whole
}

/// The arguments of what was sent, a word list a command.
fn words(sent: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in sent.split("\r\n") {
        if line.starts_with('*') {
            commands.push(String::new());
        } else if !line.starts_with('$')
            && !line.is_empty()
            && let Some(last) = commands.last_mut()
        {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(line);
        }
    }
    commands
}

#[test]
fn a_full_sync_by_length_from_a_new_master() {
    let wire = [
        b"+PONG\r\n+OK\r\n+OK\r\n-ERR Unrecognized REPLCONF option: version\r\n-ERR unknown command 'PSYNC2'\r\n\n\n+FULLRESYNC "
            .as_slice(),
        &[b'a'; 40],
        b" 1000\r\n\n\n$9\r\nREDIS0006*1\r\n$4\r\nPING\r\n",
    ]
    .concat();
    let seen = everywhere(&identity(), &wire, 1000).unwrap();
    assert_eq!(seen.rdb, b"REDIS0006");
    assert_eq!(seen.stream, b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(
        seen.events,
        [format!("FullSync(Some(({}, Offset(1000))))", id(b'a')), "RdbBegins(Some(9))".into(), "RdbEnds".into()]
    );
    assert_eq!(
        words(&seen.sent),
        [
            "PING",
            "REPLCONF listening-port 7000",
            "REPLCONF capa eof capa psync2",
            "REPLCONF version 9.0.0",
            "PSYNC2 ? -1 3",
            "PSYNC ? -1",
            "REPLCONF ACK 1000 FACK 0"
        ]
    );
}

#[test]
fn a_full_sync_up_to_a_mark() {
    let mark = *b"0123456789abcdef0123456789abcdef01234567";
    let wire = [
        NO_ROWS,
        b"+FULLRESYNC ",
        &[b'a'; 40],
        b" 5\r\n$EOF:",
        &mark,
        b"\r\nREDIS0009-0123456789abcdef01",
        &mark,
        b"*1\r\n$4\r\nPING\r\n",
    ]
    .concat();
    let seen = everywhere(&identity(), &wire, 5).unwrap();
    assert_eq!(seen.rdb, b"REDIS0009-0123456789abcdef01");
    assert_eq!(seen.stream, b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(seen.events[1..], ["RdbBegins(None)".to_string(), "RdbEnds".into()]);
    assert_eq!(words(&seen.sent).last().map(String::as_str), Some("REPLCONF ACK 5 FACK 0"));
}

#[test]
fn going_on_with_and_without_a_new_name() {
    let mut identity = identity();
    identity.position = Some((id(b'a'), Offset(99)));
    let ardb = b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n".as_slice();
    for start in [NO_ROWS, ardb] {
        for (answer, name) in [
            (b"+CONTINUE\r\n".to_vec(), "Continue(None)".to_string()),
            ([b"+CONTINUE ".as_slice(), &[b'b'; 40], b"\r\n"].concat(), format!("Continue(Some({}))", id(b'b'))),
        ] {
            let wire = [start, &answer, b"*1\r\n$4\r\nPING\r\n"].concat();
            let seen = everywhere(&identity, &wire, 0).unwrap();
            assert_eq!(seen.events, [name]);
            assert_eq!(seen.stream, b"*1\r\n$4\r\nPING\r\n");
            let sent = words(&seen.sent);
            let mut expected = vec![format!("PSYNC2 {} 100 3", id(b'a')), "REPLCONF ACK 99 FACK 0".to_string()];
            if start == NO_ROWS {
                expected.insert(1, format!("PSYNC {} 100", id(b'a')));
            }
            assert_eq!(sent[4..], expected);
        }
    }
}

#[test]
fn rows_from_an_ardb_master() {
    let wire = [
        b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n\n\n+ROWSYNC ".as_slice(),
        &[b'a'; 40],
        b" 1000 ",
        &[b'c'; 40],
        b" 0\r\nROWSPING\r\n",
    ]
    .concat();
    let seen = everywhere(&identity(), &wire, 1000).unwrap();
    assert_eq!((&seen.rows[..], &seen.stream[..]), (&b"ROWS"[..], &b"PING\r\n"[..]));
    let sync = SyncId(id(b'c'));
    assert_eq!(seen.events, [format!("{:?}", Event::RowSync(id(b'a'), Offset(1000), sync, 0))]);
    assert_eq!(words(&seen.sent)[4..], ["PSYNC2 ? -1 3", "REPLCONF ACK 1000 FACK 0"]);

    let mut again = identity();
    again.rows = Rows::Resume(sync, 77);
    again.position = Some((id(b'b'), Offset(9)));
    let seen = everywhere(&again, &wire, 1000).unwrap();
    assert_eq!(words(&seen.sent)[4], format!("PSYNC2 {} 10 3 {} 77", id(b'b'), id(b'c')));

    let mut refuses = identity();
    refuses.rows = Rows::Refuse;
    let wire = [b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n+FULLRESYNC ".as_slice(), &[b'a'; 40], b" 0\r\n"].concat();
    assert_eq!(words(&everywhere(&refuses, &wire, 0).unwrap().sent)[4..], ["PSYNC ? -1"]);

    // A format that the master does not know is a refusal as any other.
    let refusal = b"-ERR rows of format 2 are not sent here\r\n";
    let wire = [&wire[..22], refusal, b"+FULLRESYNC ", &[b'a'; 40], b" 0\r\n"].concat();
    assert_eq!(words(&everywhere(&identity(), &wire, 0).unwrap().sent)[4..], ["PSYNC2 ? -1 3", "PSYNC ? -1"]);
}

#[test]
fn a_master_that_only_knows_sync() {
    let wire = b"+PONG\r\n+OK\r\n-ERR Unrecognized REPLCONF option: capa\r\n-ERR Unrecognized\r\n-ERR unknown command 'PSYNC2'\r\n-ERR unknown command 'PSYNC'\r\n\n\n$4\r\nRDB!PING\r\n";
    let mut identity = identity();
    identity.position = Some((id(b'a'), Offset(99)));
    let seen = everywhere(&identity, wire, 0).unwrap();
    assert_eq!((&seen.rdb[..], &seen.stream[..]), (&b"RDB!"[..], &b"PING\r\n"[..]));
    assert_eq!(seen.events, ["FullSync(None)", "RdbBegins(Some(4))", "RdbEnds"]);
    assert_eq!(words(&seen.sent).last().map(String::as_str), Some("SYNC"), "it wants no acknowledgement");
}

#[test]
fn passwords() {
    let mut identity = identity();
    identity.password = Some(b"secret".to_vec());
    let rest = [b"+OK\r\n+OK\r\n+OK\r\n-ERR no\r\n+FULLRESYNC ".as_slice(), &[b'a'; 40], b" 0\r\n"].concat();
    for ping in ["+PONG", "-NOAUTH Authentication required.", "-ERR operation not permitted"] {
        let wire = [ping.as_bytes(), b"\r\n+OK\r\n", &rest].concat();
        let seen = everywhere(&identity, &wire, 0).unwrap();
        assert_eq!(words(&seen.sent)[..3], ["PING", "AUTH secret", "REPLCONF listening-port 7000"]);
    }
    let refused = everywhere(&identity, b"+PONG\r\n-ERR invalid password\r\n", 0).unwrap_err();
    assert!(matches!(refused, LinkError::Refused { step: "AUTH", .. }), "{refused}");
    let needless = [b"+PONG\r\n-ERR Client sent AUTH, but no password is set\r\n".as_slice(), &rest].concat();
    assert!(everywhere(&identity, &needless, 0).is_ok());
    identity.user = Some(b"me".to_vec());
    let seen = everywhere(&identity, &[b"+PONG\r\n+OK\r\n".as_slice(), &rest].concat(), 0).unwrap();
    assert_eq!(words(&seen.sent)[1], "AUTH me secret");
    let without = run(self::identity(), b"-NOAUTH\r\n-NOAUTH Authentication required.\r\n", &[], 0).unwrap_err();
    assert!(matches!(without, LinkError::Refused { .. }), "{without}");
}

#[test]
fn who_cannot_serve_now_is_asked_later() {
    let start = b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n".as_slice();
    for answer in ["-LOADING x", "-NOMASTERLINK Can't SYNC while not connected", "-BUSY x", "-MASTERDOWN x"] {
        for start in [start, NO_ROWS] {
            let wire = [start, answer.as_bytes(), b"\r\n"].concat();
            assert!(matches!(run(identity(), &wire, &[], 0), Err(LinkError::Later(_))), "{answer}");
        }
    }
    assert!(matches!(run(identity(), b"-LOADING x\r\n", &[], 0), Err(LinkError::Later(_))));
    for answer in ["+FULLRESYNC short 1", "+FULLRESYNC", "+OK", "+CONTINUE", ":1", "$5"] {
        let wire = [NO_ROWS, answer.as_bytes(), b"\r\n"].concat();
        assert!(matches!(run(identity(), &wire, &[], 0), Err(LinkError::Unexpected { .. })), "{answer}");
    }
    for answer in ["+FULLRESYNC", "+OK", "+CONTINUE", ":1", "+ROWSYNC", "+ROWSYNC a 1 b 0", "+ROWSYNC a 1"] {
        let wire = [start, answer.as_bytes(), b"\r\n"].concat();
        assert!(matches!(run(identity(), &wire, &[], 0), Err(LinkError::Unexpected { .. })), "{answer}");
    }
    let wire = [NO_ROWS, b"+FULLRESYNC ", &[b'a'; 40], b" 1\r\n-ERR the dump failed\r\n"].concat();
    assert!(matches!(run(identity(), &wire, &[], 0), Err(LinkError::Later(_))));
}

#[test]
fn silence_ends_every_state_but_loading() {
    let full = [NO_ROWS, b"+FULLRESYNC ", &[b'a'; 40], b" 0\r\n$1\r\nX"].concat();
    for length in 0..=full.len() {
        let mut replica = Replica::new(identity(), 0);
        let mut held = full[..length].to_vec();
        let mut ended = false;
        while let Ok(Step { consumed, event }) = replica.receive(&held, 10) {
            held.drain(..consumed);
            ended |= event == Some(Event::RdbEnds);
            if consumed == 0 && event.is_none() {
                break;
            }
        }
        assert_eq!(replica.tick(10_000), Ok(()), "{}", replica.state());
        // The beginning of a line is shown again and again; it is old.
        assert_eq!(replica.receive(&held, 50_000), Ok(Step { consumed: 0, event: None }));
        assert_eq!(replica.tick(60_011).is_err(), !ended, "after {length} bytes, in {}", replica.state());
    }
    let mut replica = Replica::new(identity(), 0);
    assert!(replica.receive(b"+PO", 10).is_ok() && replica.receive(b"+PON", 50_000).is_ok());
    assert_eq!((replica.tick(110_000), replica.tick(110_001).is_err()), (Ok(()), true));
}

#[test]
fn acknowledges_once_a_second_and_keeps_a_loading_link_alive() {
    let mut identity = identity();
    identity.position = Some((id(b'a'), Offset(5)));
    let mut replica = Replica::new(identity, 0);
    for line in [&b"+PONG\r\n"[..], b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+CONTINUE\r\n"] {
        assert!(replica.receive(line, 0).is_ok());
    }
    let _ = replica.take_output();
    replica.applied(Offset(50));
    replica.tick(999).unwrap();
    assert!(replica.take_output().is_empty());
    replica.tick(1000).unwrap();
    assert_eq!(words(&String::from_utf8(replica.take_output()).unwrap()), ["REPLCONF ACK 50 FACK 0"]);
    replica.tick(1500).unwrap();
    assert!(replica.take_output().is_empty());
    replica.acknowledge(1500);
    assert_eq!(words(&String::from_utf8(replica.take_output()).unwrap()), ["REPLCONF ACK 50 FACK 0"]);

    let mut replica = Replica::new(self::identity(), 0);
    let full = [NO_ROWS, b"+FULLRESYNC ", &[b'a'; 40], b" 0\r\n$2\r\n"].concat();
    let mut rest = &full[..];
    while !rest.is_empty() {
        rest = &rest[replica.receive(rest, 0).unwrap().consumed..];
    }
    let _ = replica.take_output();
    replica.tick(1000).unwrap();
    assert_eq!(replica.take_output(), b"\n");
}

/// A master that refuses PSYNC may be diskless all the same, and then waits for one acknowledgement. With a length it wants none.
#[test]
fn an_rdb_up_to_a_mark_that_came_by_sync_is_acknowledged_once() {
    let mark = [b'm'; 40];
    let start = [NO_ROWS, b"-ERR unknown command 'PSYNC'\r\n"].concat();
    let marked = [&start[..], b"$EOF:", &mark, b"\r\nREDIS", &mark, b"PING\r\n"].concat();
    let counted = [&start[..], b"$5\r\nREDISPING\r\n"].concat();
    for (wire, said) in [(marked, "REPLCONF ACK 0 FACK 0"), (counted, "SYNC")] {
        let seen = everywhere(&identity(), &wire, 0).unwrap();
        assert_eq!((seen.rdb, seen.stream), (b"REDIS".to_vec(), b"PING\r\n".to_vec()));
        let words = words(&seen.sent);
        assert_eq!(words.last().map(String::as_str), Some(said), "{words:?}");
        assert_eq!(words.iter().filter(|words| words.contains("ACK")).count(), usize::from(said != "SYNC"));
    }
}

#[test]
fn garbage_never_panics() {
    let mut random = ardb_base::random::Random::new(3);
    for _ in 0..5000 {
        let mut replica = Replica::new(identity(), 0);
        let mut held = Vec::new();
        for _ in 0..20 {
            let line: &[u8] = [
                &b"+PONG\r\n"[..],
                b"+OK\r\n",
                b"-ERR x\r\n",
                b"$3\r\n",
                b"\n",
                b"$EOF:",
                b"+FULLRESYNC ",
                b"+ROWSYNC ",
            ][random.below(8) as usize];
            held.extend_from_slice(line);
            if random.one_in(3) {
                held.extend_from_slice(&[b'a'; 40]);
            }
            match replica.receive(&held, 0) {
                Ok(step) => {
                    held.drain(..step.consumed);
                    if matches!(step.event, Some(Event::Rows(_))) {
                        replica.rows_end();
                    }
                    if matches!(step.event, Some(Event::RdbEnds | Event::Rows(_))) {
                        replica.installed(Offset(0), 0);
                    }
                }
                Err(_) => break,
            }
        }
    }
}

#[test]
fn what_is_durable_is_said_and_is_never_more_than_what_is_applied() {
    let mut replica = Replica::new(Identity { position: Some((id(b'a'), Offset(99))), ..identity() }, 0);
    replica.take_output();
    for _ in 0..4 {
        replica.receive(b"+OK\r\n", 0).unwrap();
    }
    replica.receive(b"+CONTINUE\r\n", 0).unwrap();
    replica.take_output();
    for (synced, said) in [(60, "60"), (200, "120")] {
        replica.applied(Offset(120));
        replica.synced(Offset(synced));
        replica.acknowledge(0);
        let sent = String::from_utf8(replica.take_output()).unwrap();
        assert_eq!(words(&sent), [format!("REPLCONF ACK 120 FACK {said}")]);
    }
}

#[test]
fn a_complete_failover_says_so_and_is_only_offered_by_those_who_know_it() {
    for (handover, how, last) in [
        (true, Handing::Complete, "PSYNC {id} 100 FAILOVER COMPLETE"),
        (true, Handing::Plain, "PSYNC {id} 100 FAILOVER"),
        (false, Handing::Plain, "PSYNC {id} 100 FAILOVER"),
    ] {
        let position = Some((id(b'a'), Offset(99)));
        let mut replica = Replica::new(Identity { position, failover: Some(how), handover, ..identity() }, 0);
        for _ in 0..4 {
            replica.receive(b"+OK\r\n", 0).unwrap();
        }
        let sent = String::from_utf8(replica.take_output()).unwrap();
        assert_eq!(words(&sent).last(), Some(&last.replace("{id}", &id(b'a').to_string())));
        assert_eq!(sent.contains("handover"), handover);
    }
}

#[test]
fn a_failover_asks_for_the_role_and_takes_no_for_an_answer() {
    let failover = Identity { position: Some((id(b'a'), Offset(99))), failover: Some(Handing::Plain), ..identity() };
    for answer in ["-ERR PSYNC FAILOVER replid must match my replid.\r\n", "-NOMASTERLINK no\r\n", "-LOADING\r\n"] {
        let mut replica = Replica::new(failover.clone(), 0);
        for _ in 0..4 {
            assert!(!replica.asked());
            replica.receive(b"+OK\r\n", 0).unwrap();
        }
        let sent = String::from_utf8(replica.take_output()).unwrap();
        assert_eq!(words(&sent).last(), Some(&format!("PSYNC {} 100 FAILOVER", id(b'a'))));
        assert!(replica.asked());
        let refused = replica.receive(answer.as_bytes(), 0);
        assert!(matches!(refused, Err(LinkError::Refused { step: "PSYNC", .. })), "{answer}: {refused:?}");
    }
}
