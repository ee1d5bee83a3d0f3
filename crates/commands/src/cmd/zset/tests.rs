//! Replies and effects of the sorted set commands.

use ardb_base::random::Random;
use ardb_resp::Protocol;

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
fn zadd_has_every_option_and_logs_what_came_of_it() {
    check(
        &mut Harness::new(),
        "ZADD z 1 a 2 b -> :2 => ZADD z 1 a 2 b
         ZADD z 1 a -> :0 => ''
         ZADD z NX 5 a 3 c -> :1 => ZADD z 3 c
         ZADD z XX CH 5 a 3 d -> :1 => ZADD z 5 a
         ZADD z GT CH 4 a 6 b -> :1 => ZADD z 6 b
         ZADD z LT CH 4 a 7 b -> :1 => ZADD z 4 a
         ZADD z INCR 0.1 a -> $18 4.0999999999999996 => ZADD z 4.0999999999999996 a
         ZADD z INCR 0 a -> $18 4.0999999999999996 => ''
         ZADD z GT INCR -1 a -> $-1 => ''
         ZADD z NX INCR 1 a -> $-1 => ''
         ZADD z XX INCR 1 nope -> $-1 => ''
         ZINCRBY z 2 new -> $1 2 => ZADD z 2 new
         ZADD z inf i -> :1
         ZINCRBY z -inf i -> -ERR resulting score is not a number (NaN) => ''
         ZADD z 1 a 2 -> -ERR syntax error
         ZADD z CH NX -> -ERR syntax error
         ZADD z NX XX 1 a -> -ERR XX and NX options at the same time are not compatible
         ZADD z GT LT 1 a -> -ERR GT, LT, and/or NX options at the same time are not compatible
         ZADD z INCR 1 a 2 b -> -ERR INCR option supports a single increment-element pair
         ZADD z 1 x nan y -> -ERR value is not a valid float
         ZSCORE z x -> $-1
         ZADD none XX 1 a -> :0 => ''
         EXISTS none -> :0
         SET s 1 -> +OK
         ZADD s 1 a -> -WRONGTYPE Operation against a key holding the wrong kind of value
         ZADD z -0 zero -> :1
         ZSCORE z zero -> $1 0",
    );
}

#[test]
fn members_are_read_by_name_and_rank() {
    check(
        &mut Harness::new(),
        "ZADD z 1 a 2 b 3 c 3 d -> :4
         ZCARD z -> :4
         ZMSCORE z a nope d -> *3 $1 1 $-1 $1 3
         ZRANK z c -> :2
         ZREVRANK z c -> :1
         ZRANK z nope -> $-1
         ZCOUNT z (1 3 -> :3
         ZCOUNT z -inf (3 -> :2
         ZCOUNT z x 3 -> -ERR min or max is not a float
         ZLEXCOUNT z - + -> :4
         ZLEXCOUNT z a + -> -ERR min or max not valid string range item
         ZREM z a nope d -> :2 => ZREM z a nope d
         ZREM z b c -> :2 => ZREM z b c
         EXISTS z -> :0
         ZREM z b -> :0 => ''",
    );
}

#[test]
fn ranges_have_old_and_new_forms() {
    check(
        &mut Harness::new(),
        "ZADD z 1 a 2 b 3 c 4 d -> :4
         ZRANGE z 0 -1 -> *4 $1 a $1 b $1 c $1 d
         ZRANGE z -2 -1 WITHSCORES -> *4 $1 c $1 3 $1 d $1 4
         ZRANGE z 0 1 REV -> *2 $1 d $1 c
         ZREVRANGE z 1 2 -> *2 $1 c $1 b
         ZRANGE z 5 9 -> *0
         ZRANGE z (1 3 BYSCORE -> *2 $1 b $1 c
         ZRANGE z 3 (1 BYSCORE REV LIMIT 1 1 -> *1 $1 b
         ZRANGEBYSCORE z -inf +inf LIMIT 1 2 WITHSCORES -> *4 $1 b $1 2 $1 c $1 3
         ZRANGEBYSCORE z -inf +inf LIMIT -1 2 -> *0
         ZRANGEBYSCORE z -inf +inf LIMIT 2 -1 -> *2 $1 c $1 d
         ZREVRANGEBYSCORE z 2 1 -> *2 $1 b $1 a
         ZRANGE z 0 1 LIMIT 0 1 -> -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
         ZRANGE z - + BYLEX WITHSCORES -> -ERR syntax error, WITHSCORES not supported in combination with BYLEX
         ZRANGE z 0 1 BYLEX BYSCORE -> -ERR syntax error
         ZRANGE none a b -> -ERR value is not an integer or out of range
         ZADD l 0 a 0 b 0 c 0 d -> :4
         ZRANGEBYLEX l (a [c -> *2 $1 b $1 c
         ZREVRANGEBYLEX l + (b -> *2 $1 d $1 c
         ZRANGE l + - BYLEX REV LIMIT 1 2 -> *2 $1 c $1 b
         ZRANGESTORE r z 1 2 -> :2 => ZADD r 2 b 3 c
         ZRANGESTORE r z 1 2 WITHSCORES -> -ERR syntax error",
    );
}

#[test]
fn stored_results_replace_what_was_there() {
    check(
        &mut Harness::new(),
        "ZADD a 1 x 2 y 3 z -> :3
         ZADD b 10 y 20 z 30 w -> :3
         SADD s x w -> :2
         ZUNION 2 a b WITHSCORES -> *8 $1 x $1 1 $1 y $2 12 $1 z $2 23 $1 w $2 30
         ZINTER 2 a b WEIGHTS 2 1 AGGREGATE MAX WITHSCORES -> *4 $1 y $2 10 $1 z $2 20
         ZDIFF 2 a b WITHSCORES -> *2 $1 x $1 1
         ZINTER 2 a s WITHSCORES -> *2 $1 x $1 2
         ZINTERCARD 2 a b -> :2
         ZINTERCARD 2 a b LIMIT 1 -> :1
         ZINTERCARD 2 a b LIMIT -1 -> -ERR LIMIT can't be negative
         ZUNION 0 a -> -ERR at least 1 input key is needed for 'zunion' command
         ZUNION 3 a b -> -ERR syntax error
         ZUNION 1 a WEIGHTS x -> -ERR weight value is not a float
         ZUNIONSTORE d 2 a b WEIGHTS 1 2 -> :4 => ZUNIONSTORE d 2 a b WEIGHTS 1 2
         ZRANGE d 0 -1 WITHSCORES -> *8 $1 x $1 1 $1 y $2 22 $1 z $2 43 $1 w $2 60
         ZDIFFSTORE d 2 a b -> :1 => MULTI | DEL d | ZADD d 1 x | EXEC
         ZINTERSTORE d 2 a none -> :0 => ZINTERSTORE d 2 a none
         EXISTS d -> :0
         ZINTERSTORE d 2 a none -> :0 => ''
         ZDIFFSTORE a 2 a b -> :1 => MULTI | DEL a | ZADD a 1 x | EXEC
         ZRANGESTORE a a 5 6 -> :0 => DEL a
         SET str 1 -> +OK
         ZUNION 2 b str -> -WRONGTYPE Operation against a key holding the wrong kind of value
         ZRANGESTORE str b 0 -1 -> :3 => MULTI | DEL str | ZADD str 10 y 20 z 30 w | EXEC",
    );
}

#[test]
fn removed_ranges_are_logged_in_old_words() {
    check(
        &mut Harness::new(),
        "ZADD z 0 a 0 b 0 c 0 d 0 e 0 f -> :6
         ZREMRANGEBYLEX z [b (d -> :2 => ZREM z b c
         ZREMRANGEBYLEX z [x [y -> :0 => ''
         ZREMRANGEBYRANK z 0 0 -> :1 => ZREMRANGEBYRANK z 0 0
         ZREMRANGEBYSCORE z 1 2 -> :0 => ''
         ZREMRANGEBYRANK z -1 -1 -> :1 => ZREMRANGEBYRANK z -1 -1
         ZREMRANGEBYLEX z - + -> :2 => DEL z
         EXISTS z -> :0
         ZREMRANGEBYRANK z a 1 -> -ERR value is not an integer or out of range
         ZADD z 1 a -> :1
         ZREMRANGEBYSCORE z -inf inf -> :1 => ZREMRANGEBYSCORE z -inf inf
         EXISTS z -> :0",
    );
}

#[test]
fn pops_are_logged_as_removals() {
    let mut server = Harness::new();
    check(
        &mut server,
        "ZADD z 1 a 2 b 3 c 4 d 5 e -> :5
         ZPOPMIN z -> *2 $1 a $1 1 => ZREM z a
         ZPOPMAX z 2 -> *4 $1 e $1 5 $1 d $1 4 => ZREM z e d
         ZPOPMIN z 0 -> *0 => ''
         ZPOPMIN z -1 -> -ERR value is out of range, must be positive
         ZPOPMIN none -> *0
         BZPOPMIN none 0 -> (blocked)
         BZPOPMIN none -1 -> -ERR timeout is negative
         BZPOPMAX none z 0 -> *3 $1 z $1 c $1 3 => ZREM z c
         BZPOPMAX none z 0 -> *3 $1 z $1 b $1 2 => DEL z
         EXISTS z -> :0
         ZADD z 1 a 2 b 3 c -> :3
         ZMPOP 2 none z MIN COUNT 2 -> *2 $1 z *2 *2 $1 a $1 1 *2 $1 b $1 2 => ZREM z a b
         ZMPOP 0 z MIN -> -ERR numkeys should be greater than 0
         ZMPOP 2 z MIN -> -ERR syntax error
         ZMPOP 1 z MIN COUNT 0 -> -ERR count should be greater than 0
         ZMPOP 1 none MIN -> *-1
         BZMPOP 1 1 none MIN -> (blocked)
         BZMPOP 1 2 none z MAX COUNT 9 -> *2 $1 z *1 *2 $1 c $1 3 => DEL z",
    );
    server.session.deny_blocking = true;
    check(&mut server, "BZPOPMIN none 0 -> *-1\nBZMPOP 1 1 none MIN -> *-1");
    server.session.deny_blocking = false;
    server.origin = Origin::Stream;
    check(&mut server, "BZPOPMIN none 0 -> *-1");
}

#[test]
fn scores_are_doubles_in_the_newer_protocol() {
    let mut server = Harness::new();
    server.session.protocol = Protocol::Resp3;
    check(
        &mut server,
        "ZADD z 1.5 a 2 b -> :2
         ZSCORE z a -> ,1.5
         ZSCORE z nope -> _
         ZRANGE z 0 -1 WITHSCORES -> *2 *2 $1 a ,1.5 *2 $1 b ,2
         ZUNION 1 z WITHSCORES -> *2 *2 $1 a ,1.5 *2 $1 b ,2
         ZADD z INCR 1 a -> ,2.5
         ZPOPMIN z -> *2 $1 b ,2
         ZADD z 2 b -> :1
         ZPOPMIN z 1 -> *1 *2 $1 b ,2
         BZPOPMIN z 0 -> *3 $1 z $1 a ,2.5
         ZMPOP 1 none MIN -> _",
    );
}

#[test]
fn random_members_are_members_and_uniform() {
    let mut server = Harness::new();
    for n in 0..1000 {
        server.run(&format!("ZADD z {} m{n}", n % 7));
    }
    let parts = |reply: &str| -> Vec<String> {
        reply.split(' ').filter(|word| word.starts_with('m')).map(str::to_string).collect()
    };
    for count in [1, 5, 100, 900, 1000, 2000] {
        let mut members = parts(&server.run(&format!("ZRANDMEMBER z {count}")));
        assert_eq!(members.len(), count.min(1000));
        members.sort();
        members.dedup();
        assert_eq!(members.len(), count.min(1000), "all are different");
    }
    let members = parts(&server.run("ZRANDMEMBER z -20000"));
    assert_eq!(members.len(), 20_000);
    let mut counts = std::collections::HashMap::new();
    for member in members {
        *counts.entry(member).or_insert(0u32) += 1;
    }
    // 20 each on average, with a standard deviation of 4.5; the seed is fixed.
    assert!(counts.len() > 990 && counts.values().all(|&n| n < 50), "{counts:?}");
    check(
        &mut server,
        "ZRANDMEMBER none -> $-1
         ZRANDMEMBER none 5 -> *0
         ZRANDMEMBER z 1 x -> -ERR syntax error
         ZRANDMEMBER z -9223372036854775808 -> -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
         ZRANDMEMBER z -9223372036854775807 WITHSCORES -> -ERR value is out of range",
    );
}

#[test]
fn zscan_returns_everything() {
    let mut server = Harness::new();
    for n in 0..500 {
        server.run(&format!("ZADD z {n} m{n}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = "0".to_string();
    loop {
        let reply = server.run(&format!("ZSCAN z {cursor} COUNT 50"));
        let words: Vec<&str> = reply.split(' ').collect();
        cursor = words[2].to_string();
        for pair in words[4..].chunks(4) {
            assert_eq!(pair[1], format!("m{}", pair[3]));
            seen.insert(pair[1].to_string());
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
    check(&mut server, "ZSCAN none 0 -> *2 $1 0 *0\nZSCAN z x -> -ERR invalid cursor");
    assert_eq!(server.run("ZSCAN z 0 MATCH m7 COUNT 1000"), "*2 $1 0 *2 $2 m7 $1 7");
}

/// What random commands leave behind must be what their log leaves behind, to the last bit of every score.
#[test]
fn the_log_says_what_happened() {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut master, mut replica) = (Harness::new(), Harness::new());
    replica.origin = Origin::Stream;
    for _ in 0..4000 {
        let command = random_write(&mut random);
        master.run(&command);
        let log = master.take_payload();
        let words = String::from_utf8_lossy(&log);
        let new_words = ["ZPOPM", "ZMPOP", "BYLEX", "DIFFSTORE", "RANGESTORE", "INCR", "$2\r\nNX", "$2\r\nGT"];
        assert!(!new_words.iter().any(|word| words.contains(word)), "{command}: {words}");
        replica.play(&log);
    }
    for key in ["z0", "z1", "z2", "z3", "lex", "set"] {
        let command = if key == "set" { "SCARD set".to_string() } else { format!("ZRANGE {key} 0 -1 WITHSCORES") };
        assert_eq!(master.run(&command), replica.run(&command), "{key}");
    }
}

fn random_write(random: &mut Random) -> String {
    let mut below = |n: u64| random.below(n);
    let key = format!("z{}", below(4));
    let other = format!("z{}", below(4));
    let member = format!("m{}", below(300));
    let score = [format!("{}", below(50)), format!("{}.1", below(50)), "inf".into(), "-inf".into()]
        [[0, 0, 0, 1, 1, 1, 2, 3][below(8) as usize]]
        .clone();
    let option = ["", "NX", "XX", "GT", "LT", "CH", "INCR"][below(7) as usize];
    match below(20) {
        0..=7 => format!("ZADD {key} {option} {score} {member}"),
        8 => format!("ZADD lex 0 {member} 0 x{member}"),
        9 => format!("ZINCRBY {key} {score} {member}"),
        10 => format!("ZREM {key} {member} m1 m2"),
        11 => format!("ZREMRANGEBYRANK {key} {} {}", below(10), below(12)),
        12 => format!("ZREMRANGEBYSCORE {key} {} {}", below(10), below(12)),
        13 => format!("ZREMRANGEBYLEX lex [{member} (m{}", below(300)),
        14 => format!("ZPOP{} {key} {}", ["MIN", "MAX"][below(2) as usize], below(4)),
        15 => format!("ZMPOP 2 {other} {key} MAX COUNT {}", below(9) + 1),
        16 => format!("ZRANGESTORE {key} {other} {} {}", below(20), below(300)),
        17 => format!(
            "Z{}STORE {key} 2 {other} {} WEIGHTS 1 0.3",
            ["UNION", "INTER"][below(2) as usize],
            ["set", "z1", "lex"][below(3) as usize]
        ),
        18 => format!("ZDIFFSTORE {key} 2 {other} set"),
        _ => format!("SADD set {member}"),
    }
}
