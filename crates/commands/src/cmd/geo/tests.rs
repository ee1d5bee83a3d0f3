//! Tests of the commands: replies and effects.

use crate::testing::Harness;

fn sicily() -> Harness {
    let mut server = Harness::new();
    assert_eq!(server.run("GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"), ":2");
    assert_eq!(server.take_log(), "ZADD s 3479099956230698 Palermo 3479447370796909 Catania");
    server
}

#[test]
fn adding_is_logged_as_zadd() {
    let mut server = sicily();
    assert_eq!(server.run("GEOADD s 13.361389 38.115556 Palermo"), ":0");
    assert_eq!(server.take_log(), "");
    assert_eq!(server.run("GEOADD s NX CH 13.5 38 Palermo 12.758489 38.788135 edge"), ":1");
    assert_eq!(server.take_log(), "ZADD s 3479273021651468 edge");
    assert_eq!(server.run("GEOADD s XX CH 0 0 nobody 15.0 37.5 Catania"), ":1");
    assert_eq!(server.take_log(), "ZADD s 3479446654650844 Catania");
    for (line, error) in [
        ("GEOADD s NX XX 1 1 a", "-ERR syntax error"),
        ("GEOADD s 1 1 a 2", "-ERR syntax error"),
        ("GEOADD s 1 x a", "-ERR value is not a valid float"),
        ("GEOADD s 200 100 a", "-ERR invalid longitude,latitude pair 200.000000,100.000000"),
        ("GEOADD s 1 85.06 a", "-ERR invalid longitude,latitude pair 1.000000,85.060000"),
    ] {
        assert_eq!(server.run(line), error, "{line}");
    }
}

#[test]
fn places_and_distances() {
    let mut server = sicily();
    assert_eq!(server.run("GEOPOS s Palermo nobody"), "*2 *2 $20 13.36138933897018433 $20 38.11555639549629859 *-1");
    assert_eq!(server.run("GEOPOS none a"), "*1 *-1");
    assert_eq!(server.run("GEOHASH s Palermo Catania nobody"), "*3 $11 sqc8b49rny0 $11 sqdtr74hyu0 $-1");
    assert_eq!(server.run("GEODIST s Palermo Catania"), "$11 166274.1516");
    assert_eq!(server.run("GEODIST s Palermo Catania km"), "$8 166.2742");
    assert_eq!(server.run("GEODIST s Palermo Catania MI"), "$8 103.3182");
    assert_eq!(server.run("GEODIST s Palermo Palermo"), "$6 0.0000");
    assert_eq!(server.run("GEODIST s Palermo nobody"), "$-1");
    assert_eq!(server.run("GEODIST s Palermo Catania x"), "-ERR unsupported unit provided. please use M, KM, FT, MI");
}

#[test]
fn searches() {
    let mut server = sicily();
    server.run("GEOADD s 12.758489 38.788135 edge1 17.241510 38.788135 edge2");
    for (line, reply) in [
        ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km ASC", "*2 $7 Catania $7 Palermo"),
        (
            "GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHDIST",
            "*4 *2 $7 Catania $7 56.4413 *2 $7 Palermo $8 190.4424 *2 $5 edge2 $8 279.7403 *2 $5 edge1 $8 279.7405",
        ),
        ("GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km COUNT 2 DESC", "*2 $5 edge1 $5 edge2"),
        ("GEOSEARCH s FROMMEMBER Palermo BYRADIUS 1 m WITHHASH", "*1 *2 $7 Palermo :3479099956230698"),
        ("GEORADIUS s 15 37 200 km DESC COUNT 1", "*1 $7 Palermo"),
        ("GEORADIUSBYMEMBER_RO s Catania 100 km", "*1 $7 Catania"),
        ("GEOSEARCH none FROMMEMBER a BYRADIUS 1 m", "*0"),
        ("GEOSEARCH s FROMLONLAT 0 0 BYRADIUS 1 m", "*0"),
        ("GEOSEARCH s FROMMEMBER a BYRADIUS 1 m", "-ERR could not decode requested zset member"),
        (
            "geosearch s BYRADIUS 1 m ASC ASC ASC",
            "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch",
        ),
        (
            "GEOSEARCH s FROMLONLAT 1 1 ASC ASC ASC",
            "-ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH",
        ),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m ANY", "-ERR the ANY argument requires COUNT argument"),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m COUNT 0", "-ERR COUNT must be > 0"),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m BYBOX 1 1 m", "-ERR syntax error"),
        (
            "GEOSEARCH s BYPOLYGON 3 13 38 15 37 16 39 ASC WITHDIST",
            "*2 *2 $7 Catania $10 67373.4725 *2 $7 Palermo $11 114549.1931",
        ),
        ("GEOSEARCH s BYPOLYGON 3 13 38 15 37 16 39 BYRADIUS 1 m", "-ERR syntax error"),
        ("GEOSEARCH s FROMLONLAT 15 37 BYPOLYGON 3 13 38 15 37 16 39", "-ERR syntax error"),
        ("GEOSEARCH s BYPOLYGON 3 13 38 15 37 16", "-ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"),
        ("GEOSEARCH s BYPOLYGON x 13 38 15 37", "-ERR invalid number of vertices"),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS -1 m", "-ERR radius cannot be negative"),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS x m", "-ERR need numeric radius"),
        ("GEORADIUS_RO s 1 1 1 m STORE t", "-ERR syntax error"),
        (
            "GEORADIUS s 1 1 1 m STORE t WITHDIST",
            "-ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        ),
    ] {
        assert_eq!(server.run(line), reply, "{line}");
    }
}

#[test]
fn what_is_stored_is_logged_as_its_members() {
    let mut server = sicily();
    server.take_log();
    assert_eq!(server.run("GEOSEARCHSTORE t s FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1"), ":1");
    assert_eq!(server.take_log(), "ZADD t 3479447370796909 Catania");
    assert_eq!(server.run("GEORADIUS s 15 37 200 km COUNT 1 STOREDIST t"), ":1");
    let log = server.take_log();
    assert!(log.starts_with("MULTI | DEL t | ZADD t 56.44") && log.ends_with(" Catania | EXEC"), "{log}");
    assert_eq!(server.run("GEOSEARCHSTORE t none FROMMEMBER a BYRADIUS 1 m"), ":0");
    assert_eq!(server.take_log(), "DEL t");
    assert_eq!(server.run("GEORADIUSBYMEMBER s Palermo 1 m STORE s"), ":1");
    assert_eq!(server.run("ZRANGE s 0 -1"), "*1 $7 Palermo");
}
