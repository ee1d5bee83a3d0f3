//! Tests of bit operations, bit fields and LCS: replies, and random ones against plain vectors.

use ardb_base::random::Random;

use crate::testing::Harness;

fn check(server: &mut Harness, cases: &[(&str, &str)]) {
    for (line, reply) in cases {
        assert_eq!(server.run(line), *reply, "{line}");
    }
}

#[test]
fn single_bits() {
    let mut server = Harness::new();
    check(
        &mut server,
        &[
            ("SETBIT a 7 1", ":0"),
            ("SETBIT a 7 1", ":1"),
            ("GETBIT a 7", ":1"),
            ("GETBIT a 6", ":0"),
            ("GETBIT a 700", ":0"),
            ("GETBIT nope 0", ":0"),
            ("SETBIT a 20 0", ":0"),
            ("STRLEN a", ":3"),
            ("SETBIT a 4294967295 1", ":0"),
            ("STRLEN a", ":536870912"),
            ("SETBIT a 4294967296 1", "-ERR bit offset is not an integer or out of range"),
            ("SETBIT a -1 1", "-ERR bit offset is not an integer or out of range"),
            ("SETBIT a 0 2", "-ERR bit is not an integer or out of range"),
            ("GETBIT a x", "-ERR bit offset is not an integer or out of range"),
        ],
    );
    assert_eq!(server.take_log(), "SETBIT a 7 1 | SETBIT a 20 0 | SETBIT a 4294967295 1");
}

#[test]
fn counts_and_places() {
    let mut server = Harness::new();
    check(
        &mut server,
        &[
            ("SET a foobar", "+OK"),
            ("BITCOUNT a", ":26"),
            ("BITCOUNT a 0 0", ":4"),
            ("BITCOUNT a 1 1 BYTE", ":6"),
            ("BITCOUNT a 5 30 BIT", ":17"),
            ("BITCOUNT a -2 -1", ":7"),
            ("BITCOUNT a -1 -2", ":0"),
            ("BITCOUNT a 10 20", ":0"),
            ("BITCOUNT nope", ":0"),
            ("BITCOUNT a 0", "-ERR syntax error"),
            ("BITCOUNT a 0 1 HELLO", "-ERR syntax error"),
            ("BITPOS a 1", ":1"),
            ("BITPOS a 0", ":0"),
            ("BITPOS a 1 2 -1 BIT", ":2"),
            ("BITPOS a 0 1 2 BIT", ":-1"),
            ("BITPOS nope 1", ":-1"),
            ("BITPOS nope 0", ":0"),
            ("BITPOS a 2", "-ERR The bit argument must be 1 or 0."),
            ("BITPOS a 1 10", ":-1"),
        ],
    );
    server.run_args(&[b"SET", b"b", b"\xff\xff\xff"]);
    check(
        &mut server,
        &[
            ("BITPOS b 0", ":24"),
            ("BITPOS b 0 1", ":24"),
            ("BITPOS b 0 0 -1", ":-1"),
            ("BITPOS b 0 5", ":-1"),
            ("BITPOS b 1 1", ":8"),
            ("BITPOS b 1 9 -1 BIT", ":9"),
        ],
    );
}

/// Against the plain definitions, over inline and big strings.
#[test]
fn counts_places_and_operations_are_those_of_plain_vectors() {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut random = Random::new(seed);
    let mut server = Harness::new();
    for round in 0..150 {
        let mut value = vec![0u8; random.below([20, 20_000][round % 2]) as usize];
        match random.below(3) {
            0 => random.fill(&mut value),
            1 => value.fill(0xff),
            _ => {}
        }
        if let Some(byte) = value.last_mut() {
            *byte = random.next_u64() as u8;
        }
        server.run_args(&[b"SET", b"v", &value]);
        let bits: Vec<bool> = (0..value.len() * 8).map(|n| value[n / 8] & (0x80 >> (n % 8)) != 0).collect();
        let total = bits.len() as i64;
        let (start, end) = (random.below(200_000) as i64 - 100_000, random.below(200_000) as i64 - 100_000);
        let (start, end) = if random.one_in(3) { (start % 30, end % 30) } else { (start, end) };
        let from_end = |n: i64| if n < 0 { (n + total).max(0) } else { n };
        let (first, last) = (from_end(start), from_end(end).min(total - 1));
        let part = if first <= last { &bits[first as usize..=last as usize] } else { &[] };
        let crossed = start < 0 && end < 0 && start > end;
        let count = if crossed { 0 } else { part.iter().filter(|bit| **bit).count() };
        let context = format!("seed {seed}, round {round}: {start} {end} of {total}");
        assert_eq!(server.run(&format!("BITCOUNT v {start} {end} BIT")), format!(":{count}"), "{context}");
        for bit in [false, true] {
            let place = part.iter().position(|b| *b == bit).map_or(-1, |n| n as i64 + first);
            let line = format!("BITPOS v {} {start} {end} BIT", i32::from(bit));
            assert_eq!(server.run(&line), format!(":{place}"), "{context}");
        }
        let mut other = vec![0u8; random.below(20_000) as usize];
        random.fill(&mut other);
        server.run_args(&[b"SET", b"w", &other]);
        for (name, f) in [("AND", (|a, b| a & b) as fn(u8, u8) -> u8), ("OR", |a, b| a | b), ("XOR", |a, b| a ^ b)] {
            let len = value.len().max(other.len());
            let byte = |v: &[u8], n: usize| v.get(n).copied().unwrap_or(0);
            let expected: Vec<u8> = (0..len).map(|n| f(byte(&value, n), byte(&other, n))).collect();
            assert_eq!(server.run(&format!("BITOP {name} r v w")), format!(":{len}"), "{context}");
            server.run_args(&[b"SET", b"expected", &expected]);
            assert_eq!(server.run("STRLEN r"), server.run("STRLEN expected"), "{context}");
            if !expected.is_empty() {
                assert_eq!(server.run("GET r")[..], server.run("GET expected")[..], "{name}, {context}");
            }
        }
        assert_eq!(server.run("BITOP NOT v v"), format!(":{}", value.len()), "{context}");
        if !value.is_empty() {
            let inverted: Vec<u8> = value.iter().map(|byte| !byte).collect();
            server.run_args(&[b"SET", b"expected", &inverted]);
            assert_eq!(server.run("GET v"), server.run("GET expected"), "{context}");
        }
    }
}

#[test]
fn bitop_checks_its_arguments() {
    let mut server = Harness::new();
    check(
        &mut server,
        &[
            ("BITOP NOT a b c", "-ERR BITOP NOT must be called with a single source key."),
            ("BITOP NAND a b", "-ERR syntax error"),
            ("SET d x", "+OK"),
            ("BITOP AND d no1 no2", ":0"),
            ("EXISTS d", ":0"),
            ("SADD s 1", ":1"),
            ("BITOP OR d s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ],
    );
}

#[test]
fn bitfields() {
    let mut server = Harness::new();
    check(
        &mut server,
        &[
            ("BITFIELD a SET u8 0 255 GET u8 0", "*2 :0 :255"),
            ("BITFIELD a INCRBY u8 0 10", "*1 :9"),
            ("BITFIELD a OVERFLOW SAT INCRBY u8 0 250 OVERFLOW FAIL INCRBY u8 0 1", "*2 :255 $-1"),
            ("BITFIELD a SET i8 #1 -100 GET i8 8 GET u8 #1", "*3 :0 :-100 :156"),
            ("BITFIELD a OVERFLOW SAT INCRBY i8 8 -100", "*1 :-128"),
            ("BITFIELD a INCRBY i8 8 -1", "*1 :127"),
            ("BITFIELD a SET u4 0 -1", "*1 :15"),
            ("BITFIELD a SET i64 100 -9223372036854775808 GET i64 100", "*2 :0 :-9223372036854775808"),
            ("BITFIELD a INCRBY i64 100 -1", "*1 :9223372036854775807"),
            ("BITFIELD a GET u63 101", "*1 :9223372036854775807"),
            ("BITFIELD a", "*0"),
            (
                "BITFIELD a GET u64 0",
                "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            ),
            (
                "BITFIELD a GET i0 0",
                "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            ),
            ("BITFIELD a GET u8 -1", "-ERR bit offset is not an integer or out of range"),
            ("BITFIELD a GET u8 #9223372036854775807", "-ERR bit offset is not an integer or out of range"),
            ("BITFIELD a OVERFLOW NO GET u8 0", "-ERR Invalid OVERFLOW type specified"),
            ("BITFIELD a SET u8 0", "-ERR syntax error"),
            ("BITFIELD a SET u8 0 x", "-ERR value is not an integer or out of range"),
            ("BITFIELD_RO a GET u8 8", "*1 :127"),
            ("BITFIELD_RO a SET u8 8 1", "-ERR BITFIELD_RO only supports the GET subcommand"),
            ("BITFIELD_RO nope GET u8 8", "*1 :0"),
        ],
    );
    server.take_log();
    server.run("BITFIELD b SET u8 16 65 SET u8 16 65");
    assert_eq!(server.take_log(), "MULTI | SETRANGE b 2 \0 | SETRANGE b 2 A | EXEC");
    server.run("BITFIELD b SET u8 16 65");
    assert_eq!(server.take_log(), "", "nothing changed");
}

#[test]
fn longest_common_subsequences() {
    let mut server = Harness::new();
    check(
        &mut server,
        &[
            ("MSET a ohmytext b mynewtext", "+OK"),
            ("LCS a b", "$6 mytext"),
            ("LCS a b LEN", ":6"),
            ("LCS a b IDX", "*4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6"),
            ("LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN", "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6"),
            ("LCS a b IDX LEN", "-ERR If you want both the length and indexes, please just use IDX."),
            ("LCS a nope LEN", ":0"),
            ("LCS a b NO", "-ERR syntax error"),
            ("SADD s x", ":1"),
            ("LCS a s", "-ERR The specified keys must contain string values"),
        ],
    );
}

#[test]
fn the_operations_of_redis_8_are_logged_as_their_results() {
    let mut server = Harness::new();
    server.run_args(&[b"SET", b"x", b"\xff\x0f\xf0\x01"]);
    server.run_args(&[b"SET", b"y", b"\x0f\x0f"]);
    server.run_args(&[b"SET", b"z", b"\x01\xff\x00\x00\x80"]);
    server.run("PEXPIRE y 100000");
    server.take_log();
    for (operation, result) in [
        ("DIFF", &b"\xf0\x00\xf0\x01\x00"[..]),
        ("diff1", b"\x00\xf0\x00\x00\x80"),
        ("ANDOR", b"\x0f\x0f\x00\x00\x00"),
        ("ONE", b"\xf0\xf0\xf0\x01\x80"),
    ] {
        assert_eq!(server.run(&format!("BITOP {operation} to x y z none")), ":5", "{operation}");
        let mut set = b"*3\r\n$3\r\nSET\r\n$2\r\nto\r\n$5\r\n".to_vec();
        set.extend([result, b"\r\n"].concat());
        assert_eq!(server.take_payload(), set, "{operation}");
    }
    assert_eq!(server.run("BITOP ONE y y"), ":2");
    assert_eq!(server.run("BITOP DIFF y y none"), ":2");
    assert_eq!(server.run("TTL y"), ":-1");
    assert_eq!(server.run("BITOP ANDOR gone none none"), ":0");
    for name in ["DIFF", "DIFF1", "ANDOR"] {
        assert_eq!(
            server.run(&format!("BITOP {name} to x")),
            format!("-ERR BITOP {name} must be called with at least two source keys.")
        );
    }
}

#[test]
fn long_results_are_logged_in_pieces() {
    let mut server = Harness::new();
    let mut random = Random::new(9);
    let mut big = vec![0; 200_000];
    random.fill(&mut big);
    server.run_args(&[b"SET", b"x", &big]);
    server.run_args(&[b"SET", b"y", &big[100_000..]]);
    let mut follower = Harness::new();
    follower.play(&server.take_payload());
    for operation in ["DIFF", "DIFF1", "ANDOR", "ONE"] {
        assert_eq!(server.run(&format!("BITOP {operation} to x y")), ":200000");
        follower.play(&server.take_payload());
        assert_eq!(server.run("GET to"), follower.run("GET to"), "{operation}");
    }
    let expected: Vec<u8> =
        big.iter().enumerate().map(|(at, byte)| byte & !big.get(at + 100_000).copied().unwrap_or(0)).collect();
    server.run("BITOP DIFF to x y");
    server.run_args(&[b"SET", b"expected", &expected]);
    assert_eq!(server.run("GET to"), server.run("GET expected"));
}
