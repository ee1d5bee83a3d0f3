//! Commands of newer servers, for values that every server can hold. As a replica ours must follow all that a master passes on, and as a master it
//! must pass them on in words that older replicas know.

use std::fmt::Write as _;
use std::time::Duration;

use ardb_e2e::server::Setup;
use ardb_e2e::wait::{follow, wait_equal, wait_linked};

const LIMIT: Duration = Duration::from_secs(15);

/// Counting different elements, in both forms of the value, and places. Groups are parted by empty lines.
fn sketches() -> String {
    let mut text = String::from(
        "PFADD few a b c
         PFADD few
         PFCOUNT few
         PFADD few d
         PFMERGE copy few none
         PFCOUNT copy few
         PEXPIRE few 1000000
         PFADD few e f g h

         SET text HYLL
         PFADD dense 1 2 3
         PFDEBUG TODENSE dense
         PFCOUNT dense
         PFADD dense 4 5
         PFMERGE few dense
         PFCOUNT few
         PFCOUNT few\n\n",
    );
    for many in 0..12 {
        text.push_str("PFADD many");
        (0..250).for_each(|n| {
            let _ = write!(text, " {}", many * 250 + n);
        });
        text.push_str("\nPFCOUNT many\n\n");
    }
    text.push_str(
        "PFMERGE all few many dense
         PFCOUNT all
         PFMERGE copy all

         GEOADD sicily 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
         GEOADD sicily NX CH 12.758489 38.788135 edge1 17.241510 38.788135 edge2
         GEOADD sicily XX CH 12.758489 38.788136 edge1
         GEOSEARCHSTORE near sicily FROMLONLAT 15 37 BYRADIUS 200 km
         GEOSEARCHSTORE near2 sicily FROMMEMBER Palermo BYBOX 400 400 km ASC COUNT 2 STOREDIST
         GEOSEARCHSTORE none sicily FROMLONLAT 0 0 BYRADIUS 1 m
         GEORADIUS sicily 15 37 200 km STORE near3
         GEORADIUSBYMEMBER sicily Catania 300 mi COUNT 3 DESC STOREDIST near4
         GEORADIUS sicily 15 37 200 km WITHDIST
         GEOSEARCHSTORE near gone FROMMEMBER x BYRADIUS 1 m\n\n",
    );
    // Many at the same places: which of them are kept is the master's choice.
    for n in 0..300 {
        let _ = writeln!(text, "GEOADD crowd {}.{} 45.{} member{n}", n % 3, n % 7, n % 2);
    }
    for count in [1, 5, 50, 150, 299] {
        let _ = writeln!(text, "GEOSEARCHSTORE crowd{count} crowd FROMLONLAT 1 45 BYRADIUS 500 km ASC COUNT {count}");
        let _ = writeln!(text, "GEORADIUS crowd 2 45 500 km DESC COUNT {count} STORE far{count}");
        let _ = writeln!(text, "GEOSEARCHSTORE any{count} crowd FROMLONLAT 1 45 BYRADIUS 500 km COUNT {count} ANY");
    }
    text
}

/// Of Redis 8.
const REDIS_8: &str = "
    HSET h a 1 b 2 c 3 d 4 e 5
    HGETDEL h FIELDS 1 a
    HGETDEL h FIELDS 3 none b b
    HGETEX h FIELDS 2 c none
    HGETEX h PERSIST FIELDS 2 c none
    HSETEX h FIELDS 2 x 1 y 2
    HSETEX h KEEPTTL FIELDS 1 x 3
    HSETEX h FNX FIELDS 1 z 3
    HINCRBYFLOAT h f 1.5
    HEXPIRE h 0 FIELDS 1 d
    HGETEX h PXAT 1000 FIELDS 1 c
    HSETEX h PXAT 1000 FIELDS 1 y 5

    HGETDEL h FIELDS 6 x y z f e none
    SET bits:1 abcdefgh
    SET bits:2 bdf
    SET bits:3 ~~~~~~~~~~~~
    BITOP DIFF diff bits:1 bits:2 bits:3
    BITOP DIFF1 diff1 bits:1 bits:2 bits:3
    BITOP ANDOR andor bits:1 bits:2 bits:3
    BITOP ONE one bits:1 bits:2 bits:3
    BITOP ONE bits:2 bits:2 none
    BITOP DIFF none:1 none none
    PEXPIRE diff 1000000
    BITOP DIFF diff bits:3 bits:1
    ";

/// Of Valkey 9.
const VALKEY_9: &str = "
    HSET h a 1 b 2 c 3
    HGETDEL h FIELDS 3 none b b
    HSETEX h FIELDS 1 x 1
    HSETEX h XX KEEPTTL FNX FIELDS 1 y 1
    HGETDEL h FIELDS 3 a c x

    SET k v
    SET k w IFEQ v
    SET k w IFEQ v
    SET k x IFEQ w GET
    SET k y IFEQ x EX 1000
    SET k z IFEQ y KEEPTTL
    DELIFEQ k y
    SET gone x
    DELIFEQ gone x
    MSETEX 2 m1 a m2 b
    MSETEX 2 m1 a m3 b EX 1000
    MSETEX 2 m1 c m4 d KEEPTTL
    MSETEX 2 m1 e m5 f NX
    MSETEX 2 m3 e m4 f XX PX 1000000
    MSETEX 1 past x PXAT 1000
    GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 12.758489 38.788135 edge
    GEOSEARCHSTORE in g BYPOLYGON 3 13 38 15 37 16 39 STOREDIST
    GEOSEARCHSTORE in2 g BYPOLYGON 4 10 30 20 30 20 40 10 40 COUNT 2 DESC
    GET past
    ";

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Runs the lines on a master of this kind. After each group the replica must hold the same, without having asked for everything again.
fn followed(setup: Setup, text: &str) {
    let master = setup.start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    for group in text.split("\n\n") {
        for line in lines(group) {
            client.must(line).unwrap_or_else(|failure| panic!("{}: {line}: {failure}", master.name()));
        }
        wait_equal(&master, &replica, LIMIT)
            .unwrap_or_else(|failure| panic!("{}: after\n{group}\n{failure}\n{}", master.name(), replica.log_tail()));
    }
    assert_eq!(client.info("stats").unwrap()["sync_full"], "1", "{}", master.name());
}

/// Runs the lines on ours, with a replica of this kind.
fn passed_on(setup: Setup, text: &str) {
    let master = Setup::ardb().start().unwrap();
    let replica = setup.start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut client = master.client().unwrap();
    for line in lines(text) {
        // What it has not is refused, and then there is nothing to pass on.
        client.ask(line).unwrap();
    }
    wait_equal(&master, &replica, LIMIT).unwrap_or_else(|failure| panic!("{}: {failure}", replica.name()));
}

#[test]
fn counts_and_places_of_masters_are_followed() {
    for setup in [Setup::redis("7.0"), Setup::redis("8"), Setup::valkey()] {
        followed(setup, &sketches());
    }
}

#[test]
fn words_of_redis_8_are_followed() {
    followed(Setup::redis("8"), REDIS_8);
}

#[test]
fn words_of_valkey_9_are_followed() {
    followed(Setup::valkey(), VALKEY_9);
}

#[test]
fn old_replicas_get_old_words() {
    let all = [&sketches(), REDIS_8, VALKEY_9].concat();
    for setup in [Setup::redis("2.8"), Setup::redis("7.0"), Setup::redis("8"), Setup::valkey()] {
        passed_on(setup, &all);
    }
}

/// Forms of commands, right and wrong, whose replies must be those of Redis 8.
const REPLIES_8: &str = "
    HSET h a 1 b 2 c 3 d 4
    LPUSH l x
    HGETDEL h FIELDS 1 a
    HGETDEL h fields 3 none b b
    HGETDEL h
    HGETDEL h FIELDS 1
    HGETDEL h FIELDS 0 a
    HGETDEL h FIELDS -1 a
    HGETDEL h FIELDS x a
    HGETDEL h FIELDS 99999999999999999999 a
    HGETDEL h FIELDS 2 a
    HGETDEL h FIELDS 1 a b
    HGETDEL h FOO 1 a
    HGETDEL none FIELDS 2 a b
    HGETDEL l FIELDS 2 a b
    HGETDEL h FIELDS 2 c d
    EXISTS h
    SET bits:1 abcdefgh
    SET bits:2 bdf
    BITOP DIFF to bits:1 bits:2
    GET to
    BITOP diff1 to bits:2 bits:1 none
    GET to
    BITOP ANDOR to bits:1 bits:2 none
    GET to
    BITOP ONE to bits:1
    GET to
    BITOP ONE to bits:1 bits:2 bits:1 bits:2 to
    GET to
    BITOP DIFF to none none
    EXISTS to
    BITOP DIFF to bits:1
    BITOP DIFF1 to bits:1
    BITOP ANDOR to bits:1
    BITOP DIFF to bits:1 l
    BITOP FOO to bits:1
    BITOP NOT to bits:1 bits:2
    BITOP ONE to
    PFADD p a b c
    PFADD p a
    PFCOUNT p
    PFCOUNT p none p
    PFCOUNT l
    PFCOUNT bits:1
    PFMERGE q p l
    PFDEBUG DECODE p
    PFDEBUG ENCODING none
    GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
    GEOHASH g Palermo none
    GEODIST g Palermo Catania ft
    GEOSEARCH g FROMMEMBER Palermo BYRADIUS 200 km WITHDIST WITHHASH ASC
    ";

/// As [`REPLIES_8`], of Valkey 9.
const REPLIES_9: &str = "
    SET k a IFEQ b
    EXISTS k
    SET k a
    LPUSH l x
    SET l a IFEQ x
    SET l a IFEQ x GET
    SET k a IFEQ
    SET k a IFEQ a NX
    SET k a NX IFEQ a
    SET k a XX IFEQ a
    SET k a IFEQ a XX
    SET k a IFEQ b IFEQ a
    SET k b IFEQ a GET
    SET k c IFEQ x GET
    SET none c IFEQ x GET
    SET k c ifeq b EX 100
    TTL k
    SET k d KEEPTTL IFEQ c
    TTL k
    SET k 12
    SET k 13 IFEQ 12
    SET k 14 IFEQ 0013
    DELIFEQ k 14
    DELIFEQ k 13
    DELIFEQ k
    DELIFEQ l x
    DELIFEQ none x
    MSETEX
    MSETEX 1 a
    MSETEX 1 a b
    MSETEX 2 a b
    MSETEX 0 a b
    MSETEX -1 a b
    MSETEX x a b
    MSETEX 1 a b c
    MSETEX 1 a b NX XX
    MSETEX 1 a b XX NX
    MSETEX 1 a b EX 1 PX 1
    MSETEX 1 a b EX 1 KEEPTTL
    MSETEX 1 a b KEEPTTL EX 10
    MSETEX 1 a b EX
    MSETEX 1 a b EX x
    MSETEX 1 a b EX 0
    MSETEX 1 a b EX -5
    MSETEX 1 a b EX 9223372036854775807
    MSETEX 1 a b PXAT 1
    EXISTS a
    MSETEX 2 a 1 a 2
    GET a
    MSETEX 1 a 3 EX 100 EX 200
    TTL a
    MSETEX 1 a 3 KEEPTTL KEEPTTL
    TTL a
    MSETEX 1 a 3 NX NX
    MSETEX 1 a 3 IFEQ 3
    MSETEX 1 a 3 GET
    MSETEX 1000000000 a 3 PERSIST
    MSETEX 2147483648 a 3 PERSIST
    MSETEX 1 l 3 XX
    TYPE l
    COMMAND GETKEYS MSETEX 2 a 1 b 2 NX
    COMMAND GETKEYS MSETEX 3 a 1 b 2 NX
    GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 12.758489 38.788135 edge1 17.241510 38.788135 edge2
    GEOSEARCH g BYPOLYGON 4 10 30 20 30 20 40 10 40 WITHDIST WITHCOORD
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 ASC WITHDIST
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 DESC WITHDIST COUNT 1
    geosearch g bypolygon 2 13 38 15 37
    GEOSEARCH g BYPOLYGON -1 1 1 1 1
    GEOSEARCH g BYPOLYGON x 1 1 1 1
    GEOSEARCH g BYPOLYGON 2147483648 1 1 1 1
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 x
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 99
    GEOSEARCH g BYPOLYGON 4 13 38 15 37 16 39 ASC
    GEOSEARCH g BYPOLYGON 4 13 38 15 37 16 39 ASC DESC
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 FROMLONLAT 15 37
    GEOSEARCH g FROMLONLAT 15 37 BYPOLYGON 3 13 38 15 37 16 39
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 FROMMEMBER none
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 BYRADIUS 1 km
    GEOSEARCH g BYBOX 1 1 km BYPOLYGON 3 13 38 15 37 16 39
    GEOSEARCH g BYPOLYGON 3 13 38 15 37 16 39 BYPOLYGON 3 13 38 15 37 17 39
    GEOSEARCH g ASC ASC ASC BYPOLYGON 3
    GEOSEARCH none BYPOLYGON 3 13 38 15 37 16 39
    GEOSEARCHSTORE d g BYPOLYGON 3 13 38 15 37 16 39 WITHDIST
    GEOSEARCHSTORE d g BYPOLYGON 5 10 30 20 40 10 40 20 30 15 20 STOREDIST
    ";

#[test]
fn newer_commands_reply_as_where_they_come_from() {
    let ours = Setup::ardb().start().unwrap();
    let mut own = ours.client().unwrap();
    for (setup, text) in [(Setup::redis("8"), REPLIES_8), (Setup::valkey(), REPLIES_9)] {
        let real = setup.start().unwrap();
        let mut client = real.client().unwrap();
        own.must("FLUSHALL").unwrap();
        for line in lines(text) {
            let (one, other) = (own.ask(line).unwrap(), client.ask(line).unwrap());
            assert_eq!(one, other, "{line}, as {} replies it", real.name());
        }
    }
}
