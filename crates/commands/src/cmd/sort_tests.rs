//! Tests of SORT: replies, and what STORE logs.

use crate::testing::Harness;

#[test]
fn sorts_lists_sets_and_sorted_sets() {
    let mut server = Harness::new();
    for line in [
        "RPUSH l 3 1 2 10",
        "SADD s 3 1 2 10",
        "ZADD z 1 10 2 3 3 2",
        "MSET w1 30 w2 20 w3 10 o1 one o2 two",
        "HSET h1 f 5 g x",
        "HSET h2 f 4 g y",
    ] {
        server.run(line);
    }
    for (line, reply) in [
        ("SORT l", "*4 $1 1 $1 2 $1 3 $2 10"),
        ("SORT l DESC", "*4 $2 10 $1 3 $1 2 $1 1"),
        ("SORT l ALPHA", "*4 $1 1 $2 10 $1 2 $1 3"),
        ("SORT s LIMIT 1 2", "*2 $1 2 $1 3"),
        ("SORT s LIMIT 3 10", "*1 $2 10"),
        ("SORT s LIMIT -5 1", "*1 $1 1"),
        ("SORT s LIMIT 9 1", "*0"),
        ("SORT s LIMIT 0 0", "*0"),
        ("SORT z", "*3 $1 2 $1 3 $2 10"),
        ("SORT z BY nosort", "*3 $2 10 $1 3 $1 2"),
        ("SORT z BY nosort DESC LIMIT 0 2", "*2 $1 2 $1 3"),
        ("SORT l BY nosort", "*4 $1 3 $1 1 $1 2 $2 10"),
        ("SORT l BY nosort DESC LIMIT 1 2", "*2 $1 2 $1 1"),
        ("SORT l BY w*", "*4 $2 10 $1 3 $1 2 $1 1"),
        ("SORT l BY h*->f", "*4 $2 10 $1 3 $1 2 $1 1"),
        ("SORT l BY o* ALPHA", "*4 $1 3 $2 10 $1 1 $1 2"),
        (
            "SORT l GET o* GET # GET h*->g GET const",
            "*16 $3 one $1 1 $1 x $-1 $3 two $1 2 $1 y $-1 $-1 $1 3 $-1 $-1 $-1 $2 10 $-1 $-1",
        ),
        ("SORT nope", "*0"),
        ("SORT w1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SORT l BY o*", "-ERR One or more scores can't be converted into double"),
        ("SORT l LIMIT 1", "-ERR syntax error"),
        ("SORT l LIMIT a 1", "-ERR value is not an integer or out of range"),
        ("SORT l NOPE", "-ERR syntax error"),
        ("SORT_RO l", "*4 $1 1 $1 2 $1 3 $2 10"),
        ("SORT_RO l STORE x", "-ERR syntax error"),
    ] {
        assert_eq!(server.run(line), reply, "{line}");
    }
}

#[test]
fn store_is_logged_as_its_result() {
    let mut server = Harness::new();
    server.run("RPUSH l 3 1 2");
    server.run("SET out x");
    server.take_log();
    assert_eq!(server.run("SORT l STORE out"), ":3");
    assert_eq!(server.take_log(), "MULTI | DEL out | RPUSH out 1 2 3 | EXEC");
    assert_eq!(server.run("SORT l STORE l DESC"), ":3");
    assert_eq!(server.take_log(), "MULTI | DEL l | RPUSH l 3 2 1 | EXEC");
    assert_eq!(server.run("SORT l GET x* STORE out"), ":3");
    assert_eq!(server.run("LRANGE out 0 -1"), "*3 $0  $0  $0");
    server.take_log();
    assert_eq!(server.run("SORT nope STORE out"), ":0");
    assert_eq!(server.take_log(), "DEL out");
    assert_eq!(server.run("SORT nope STORE out"), ":0");
    assert_eq!(server.take_log(), "");
    server.run("SADD s b c a");
    server.take_log();
    assert_eq!(server.run("SORT s BY nosort STORE out"), ":3");
    assert_eq!(server.take_log(), "RPUSH out a b c");
}
