//! Tests of the commands: replies, effects, and that the effects make the same string elsewhere.

use crate::context::Origin;
use crate::testing::Harness;

/// The whole string at a key, as text.
fn bytes(server: &mut Harness, key: &str) -> String {
    server.run(&format!("GET {key}"))
}

#[test]
fn elements_count_once() {
    let mut server = Harness::new();
    assert_eq!(server.run("PFADD a x y z"), ":1");
    assert_eq!(server.run("PFADD a x z"), ":0");
    assert_eq!(server.run("PFCOUNT a"), ":3");
    assert_eq!(server.run("PFADD b"), ":1", "it makes the key");
    assert_eq!(server.run("PFADD b"), ":0");
    assert_eq!(server.run("PFCOUNT b"), ":0");
    assert_eq!(server.run("PFADD c z w"), ":1");
    assert_eq!(server.run("PFCOUNT a b c none"), ":4");
    assert_eq!(server.run("PFMERGE d a c none"), "+OK");
    assert_eq!(server.run("PFCOUNT d"), ":4");
    assert_eq!(server.run("PFCOUNT none"), ":0");
}

#[test]
fn other_strings_are_refused() {
    let mut server = Harness::new();
    let not = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    server.run("SET s 0123456789012345678901234567890");
    server.run("LPUSH l x");
    server.run("PFADD good x");
    for (key, text) in [("s", not), ("l", wrong)] {
        for line in ["PFADD KEY x", "PFCOUNT KEY", "PFCOUNT good KEY", "PFMERGE KEY good", "PFMERGE good KEY"] {
            assert_eq!(server.run(&line.replace("KEY", key)), text, "{line}");
        }
    }
    let mut broken = b"HYLL\x01".to_vec();
    broken.resize(15, 0);
    // One register, and no more.
    broken.extend(b"\x80\x80");
    server.run_args(&[b"SET", b"broken", &broken]);
    let before = bytes(&mut server, "broken");
    for line in ["PFADD broken x", "PFCOUNT broken", "PFMERGE good broken", "PFDEBUG TODENSE broken"] {
        assert_eq!(server.run(line), "-INVALIDOBJ Corrupted HLL object detected", "{line}");
    }
    assert_eq!(server.run("PFDEBUG DECODE broken"), "$5 v:1,1");
    assert_eq!(bytes(&mut server, "broken"), before);
}

#[test]
fn the_log_makes_the_same_strings_in_old_words() {
    let mut server = Harness::new();
    let mut follower = Harness::new();
    let mut step = |server: &mut Harness, line: &str| {
        server.run(line);
        let log = server.take_payload();
        follower.play(&log);
        for key in ["a", "b"] {
            assert_eq!(bytes(server, key), bytes(&mut follower, key), "{line}");
            assert_eq!(server.run(&format!("PTTL {key}")), follower.run(&format!("PTTL {key}")), "{line}");
        }
        String::from_utf8_lossy(&log).into_owned()
    };
    assert!(step(&mut server, "PFADD a first").contains("\r\nSET\r\n"));
    step(&mut server, "PEXPIRE a 100000");
    assert_eq!(step(&mut server, "PFADD a first"), "", "nothing has changed");
    for n in 0..3000 {
        let log = step(&mut server, &format!("PFADD a {n}"));
        assert!(!log.contains("PFADD"), "{log}");
    }
    let dense = step(&mut server, "PFADD a 100000 100001 100002");
    assert!(dense.contains("SETRANGE") && dense.len() < 8000, "dense: only what has changed");
    step(&mut server, "PFADD b x");
    step(&mut server, "PFMERGE b a");
    step(&mut server, "PFMERGE a b");
    assert_eq!(server.run("STRLEN b"), ":12304");
}

#[test]
fn counting_leaves_no_trace_but_in_the_masters_stream() {
    let mut server = Harness::new();
    server.run("PFADD a x y");
    server.take_log();
    let before = bytes(&mut server, "a");
    assert_eq!(server.run("PFCOUNT a"), ":2");
    assert_eq!((bytes(&mut server, "a"), server.take_log()), (before.clone(), String::new()));
    server.origin = Origin::Stream;
    assert_eq!(server.run("PFCOUNT a"), ":2");
    assert_ne!(bytes(&mut server, "a"), before);
    assert_eq!(server.run("PFCOUNT a"), ":2");
    assert_eq!(server.run_args(&[b"GETRANGE", b"a", b"8", b"15"]), "$8 \u{2}\0\0\0\0\0\0\0");
    assert_eq!(server.run("PFADD a z"), ":1");
    assert_eq!(server.run("PFCOUNT a"), ":3");
}

#[test]
fn what_is_inside() {
    let mut server = Harness::new();
    assert_eq!(server.run("PFDEBUG ENCODING a"), "-ERR The specified key does not exist");
    server.run("PFADD a");
    assert_eq!(server.run("PFDEBUG DECODE a"), "$7 Z:16384");
    assert_eq!(server.run("PFDEBUG ENCODING a"), "+sparse");
    assert_eq!(server.run("PFDEBUG TODENSE a"), ":1");
    assert_eq!(server.run("PFDEBUG todense a"), ":0");
    assert_eq!(server.run("PFDEBUG ENCODING a"), "+dense");
    assert_eq!(server.run("PFDEBUG DECODE a"), "-ERR HLL encoding is not sparse");
    assert!(server.run("PFDEBUG GETREG a").starts_with("*16384 :0 :0"));
    assert_eq!(server.run("PFDEBUG nope a"), "-ERR Unknown PFDEBUG subcommand 'nope'");
    assert_eq!(server.run("PFDEBUG encoding a b"), "-ERR wrong number of arguments for 'pfdebug' command");
}
