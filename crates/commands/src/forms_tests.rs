//! What servers reply and log does not depend on how they hold their collections: one stream of commands for several settings.

use std::sync::atomic::Ordering;

use ardb_base::random::Random;
use ardb_engine::Space;

use crate::testing::Harness;

/// A server whose collections are packed up to so many elements of so many bytes.
fn server(elements: u64, longest: u64) -> Harness {
    let server = Harness::new();
    let settings = &server.shared.settings;
    for setting in
        [&settings.hash_max_entries, &settings.set_max_entries, &settings.set_max_intset, &settings.zset_max_entries]
    {
        setting.store(elements, Ordering::Relaxed);
    }
    for setting in [&settings.hash_max_value, &settings.set_max_value, &settings.zset_max_value] {
        setting.store(longest, Ordering::Relaxed);
    }
    settings.list_max_size.store(elements as i64, Ordering::Relaxed);
    server
}

/// A random command, and whether the order of what it replies or logs is left open.
fn command(random: &mut Random) -> (String, bool) {
    let mut key = |kind: &str| format!("{kind}{}", random.below(3));
    let (h, s, l, z) = (key("h"), key("s"), key("l"), key("z"));
    let (s2, z2, l2) = (key("s"), key("z"), key("l"));
    let number = random.below(12);
    let word = match random.below(8) {
        0 => "x".repeat(random.below(80) as usize + 1),
        1 => format!("w{number}"),
        _ => number.to_string(),
    };
    let score = ["-1", "0", "-0", "2.5", "inf"][random.below(5) as usize];
    let count = random.below(7) as i64 - 3;
    let kinds = [&h, &s, &l, &z];
    let any = kinds[random.below(4) as usize];
    let open = |line: String| (line, true);
    let told = |line: String| (line, false);
    match random.below(64) {
        0..=5 => told(format!("HSET {h} {word} {number} f{number} {word}")),
        6 => told(format!("HSETNX {h} {word} {number}")),
        7 => told(format!("HINCRBY {h} n{number} {count}")),
        8 => told(format!("HINCRBYFLOAT {h} d{number} 0.5")),
        9 => told(format!("HDEL {h} {word} f{number}")),
        10 => told(format!("HMGET {h} {word} f{number} none")),
        11 => open(format!("HGETALL {h}")),
        12 => open(format!("HKEYS {h}")),
        13 => told(format!("HSTRLEN {h} {word}")),
        14 => told(format!("HLEN {h}")),
        15..=18 => told(format!("SADD {s} {word} {number}")),
        19 => told(format!("SREM {s} {word}")),
        20 => told(format!("SMISMEMBER {s} {word} {number}")),
        21 => open(format!("SMEMBERS {s}")),
        22 => told(format!("SMOVE {s} {s2} {number}")),
        23 => open(format!("SINTER {s} {s2}")),
        24 => open(format!("SUNION {s} {s2}")),
        25 => open(format!("SDIFF {s} {s2}")),
        26 => told(format!("SUNIONSTORE s0 {s} {s2}")),
        27 => told(format!("SDIFFSTORE s1 {s} {s2}")),
        28 => told(format!("SINTERSTORE s2 {s} {s2}")),
        29..=32 => told(format!("{} {l} {word} {number}", if number.is_multiple_of(2) { "LPUSH" } else { "RPUSH" })),
        33 => told(format!("{} {l}", if number.is_multiple_of(2) { "LPOP" } else { "RPOP" })),
        34 => told(format!("LPOP {l} 2")),
        35 => told(format!("LINSERT {l} BEFORE {number} {word}")),
        36 => told(format!("LREM {l} {count} {number}")),
        37 => told(format!("LSET {l} {count} {word}")),
        38 => told(format!("LTRIM {l} 1 -2")),
        39 => told(format!("LPOS {l} {number} COUNT 0 RANK -1")),
        40 => told(format!("LRANGE {l} {count} -1")),
        41 => told(format!("LINDEX {l} {count}")),
        42 => told(format!("LMOVE {l} {l2} LEFT RIGHT")),
        43..=46 => told(format!("ZADD {z} {score} {word} {count} {number}")),
        47 => told(format!("ZINCRBY {z} 1.5 {number}")),
        48 => told(format!("ZREM {z} {word} {number}")),
        49 => told(format!("ZRANGE {z} 0 {count} WITHSCORES")),
        50 => told(format!("ZREVRANGEBYSCORE {z} +inf (-1 WITHSCORES LIMIT 1 3")),
        51 => told(format!("ZRANGEBYLEX {z} [1 (w")),
        52 => told(format!("ZREVRANK {z} {number}")),
        53 => told(format!("ZCOUNT {z} 0 2")),
        54 => told(format!("{} {z} 2", if number.is_multiple_of(2) { "ZPOPMIN" } else { "ZPOPMAX" })),
        55 => told(format!("ZREMRANGEBYRANK {z} 1 2")),
        56 => told(format!("ZUNIONSTORE z0 3 {z} {z2} {s} WEIGHTS 1 2 3")),
        57 => told(format!("ZRANGESTORE z1 {z} 0 5")),
        58 => told(format!("ZINTER 2 {z} {z2} WITHSCORES")),
        59 => told(format!("SORT {any} ALPHA STORE l0")),
        60 => open(format!("COPY {any} {any}copy REPLACE")),
        61 => told(format!("RENAME {any}copy {any}")),
        62 => told(format!("PEXPIRE {any} {}", 1_000_000 + number)),
        _ => told(format!("DEL {any}")),
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split(' ').collect();
    words.sort_unstable();
    words
}

#[test]
fn replies_and_logs_are_the_same_in_every_form() {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let mut random = Random::new(seed);
    let mut servers = [server(0, 0), server(512, 64), server(4, 64), server(9, 5)];
    for step in 0..6000 {
        let (line, any_order) = command(&mut random);
        let said: Vec<(String, String)> = servers.iter_mut().map(|s| (s.run(&line), s.take_log())).collect();
        let context = || format!("seed {seed}, step {step}: {line}\n{said:#?}");
        for (reply, log) in &said[1..] {
            if any_order {
                assert_eq!(sorted(reply), sorted(&said[0].0), "{}", context());
                assert_eq!(sorted(log), sorted(&said[0].1), "{}", context());
            } else {
                assert_eq!((reply, log), (&said[0].0, &said[0].1), "{}", context());
            }
        }
    }
    let rows = |server: &Harness| server.model().live_rows(Space::Member) + server.model().live_rows(Space::Element);
    let rows: Vec<usize> = servers.iter().map(rows).collect();
    assert!(rows[0] > rows[2] && rows[2] > rows[1], "they hold their data in different forms: {rows:?}");
}

#[test]
fn scans_give_everything_that_stays_while_the_form_changes() {
    let line = |command: &str, from: u32, to: u32, pair: &str| {
        let words: Vec<String> = (from..to).map(|n| pair.replace('#', &n.to_string())).collect();
        format!("{command} k {}", words.join(" "))
    };
    for (add, pair, scan) in [("HSET", "f# #", "HSCAN"), ("SADD", "f#", "SSCAN"), ("ZADD", "# f#", "ZSCAN")] {
        for small in [true, false] {
            let mut server = server(50, 64);
            server.run(&line(add, 0, if small { 40 } else { 60 }, pair));
            let mut seen = String::new();
            let mut cursor = "0".to_string();
            let mut calls = 0;
            loop {
                let reply = server.run(&format!("{scan} k {cursor} COUNT 7"));
                cursor = reply.split(' ').nth(2).expect("a cursor").to_string();
                seen.push_str(&format!(" {reply} "));
                calls += 1;
                if cursor == "0" {
                    break;
                }
                if calls == 3 {
                    // The same members, packed now.
                    server.run("DEL k");
                    server.run(&line(add, 0, 45, pair));
                }
            }
            assert_eq!(calls, if small { 1 } else { 4 }, "{scan}");
            let all = if small { 40 } else { 45 };
            assert!((0..all).all(|n| seen.contains(&format!(" f{n} "))), "{scan}: {seen}");
        }
    }
}

#[test]
fn members_are_drawn_with_equal_chances_in_every_form() {
    let members: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    for elements in [0, 128] {
        let mut server = server(elements, 64);
        server.run(&format!("HSET h {}", members.iter().map(|m| format!("{m} v")).collect::<Vec<_>>().join(" ")));
        server.run(&format!("SADD s {}", members.join(" ")));
        for draw in ["SRANDMEMBER s", "SRANDMEMBER s 3", "SRANDMEMBER s -2", "HRANDFIELD h", "HRANDFIELD h 2", "SPOP s"]
        {
            let mut drawn = std::collections::HashMap::new();
            let mut total = 0;
            while total < 4000 {
                for word in server.run(draw).split(' ').filter(|word| word.starts_with('m')) {
                    *drawn.entry(word.to_string()).or_insert(0u32) += 1;
                    total += 1;
                }
                if draw == "SPOP s" {
                    server.run(&format!("SADD s {}", members.join(" ")));
                }
            }
            // 200 expected each, standard deviation 14.
            assert_eq!(drawn.len(), 20, "{draw}");
            assert!(drawn.values().all(|n| (130..270).contains(n)), "{draw}, {elements}: {drawn:?}");
        }
    }
}

#[test]
fn a_packed_hash_is_told_in_the_order_of_insertion() {
    let mut server = server(512, 64);
    server.run("HSET h b 1 a 2 c 3");
    server.run("HSET h a 4 d 5");
    server.run("HDEL h b");
    server.run("HSET h b 6");
    assert_eq!(server.run("HGETALL h"), "*8 $1 a $1 4 $1 c $1 3 $1 d $1 5 $1 b $1 6");
}

#[test]
fn encodings_are_told_of_rows_and_packed_values_alike() {
    for elements in [0, 128] {
        let mut server = server(elements, 64);
        for n in 0..129 {
            server.run(&format!("ZADD z {n} {n}"));
        }
        server.run("ZPOPMIN z 128");
        server.run("ZADD y 1 a");
        server.run("HSET h a b");
        server.run("SADD i 1 2");
        for setting in [&server.shared.settings.hash_max_entries, &server.shared.settings.zset_max_entries] {
            setting.store(128, Ordering::Relaxed);
        }
        server.shared.settings.hash_max_value.store(64, Ordering::Relaxed);
        server.shared.settings.set_max_intset.store(512, Ordering::Relaxed);
        for (key, encoding) in [("z", "skiplist"), ("y", "listpack"), ("h", "listpack"), ("i", "intset")] {
            let reply = server.run(&format!("OBJECT ENCODING {key}"));
            assert_eq!(reply, format!("${} {encoding}", encoding.len()), "{key}");
        }
    }
}
