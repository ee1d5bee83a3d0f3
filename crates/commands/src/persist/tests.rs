//! A data set goes out as RDB and comes in again.

use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::{Rows, Space};
use ardb_rdb::{Options, Reader, Writer, WriterOptions};
use ardb_types::Limits;
use ardb_types::model::Model;

use super::load::{Existing, Loader, Within};
use super::save;
use crate::testing::Harness;

fn rdb_of(rows: &Model) -> Vec<u8> {
    let mut out = Writer::new(Vec::new(), WriterOptions::default()).expect("version 6 is known");
    save::whole(rows, 16, &mut out, &mut |_| ControlFlow::Continue(())).expect("memory does not fail");
    out.finish().expect("memory does not fail")
}

#[test]
fn what_was_saved_is_loaded() {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    let mut random = Random::new(seed);
    let mut server = Harness::new();
    for _ in 0..400 {
        let n = random.below(20);
        let v = random.below(1000);
        let line = match random.below(7) {
            0 => format!("SET s{n} {}", "x".repeat(random.below(30000) as usize + 1)),
            1 => format!("RPUSH l{n} {v} b c"),
            2 => format!("SADD m{n} {v} {n}"),
            3 => format!("HSET h{n} f{v} {v}"),
            4 => format!("EXPIRE l{n} {}", v + 10),
            5 => format!("EXPIRE s{n} {}", v + 10),
            _ => format!("ZADD z{n} {v} a{v} {n} b"),
        };
        server.run(&line);
    }
    let first = rdb_of(server.model());
    let mut copy = Model::new(16);
    let mut loader = Loader::new(Within(&mut copy), 16, Limits::default(), Existing::Refuse);
    Reader::new(&first[..], Options::default()).read(&mut loader).expect("our own RDB");
    assert_eq!(loader.keys, server.model().key_count(0));
    assert_eq!(loader.expiries, server.model().expiry_count(0));
    drop(loader);
    assert_eq!(copy.live_rows(Space::Expiry), server.model().live_rows(Space::Expiry));
    // Keys and members lie in the order of their hashes, so the same data give the same bytes.
    assert!(rdb_of(&copy) == first, "seed {seed}: the second RDB differs");
}

fn loaded(rdb: &[u8], limits: Limits) -> Model {
    let mut copy = Model::new(16);
    let mut loader = Loader::new(Within(&mut copy), 16, limits, Existing::Refuse);
    Reader::new(rdb, Options::default()).read(&mut loader).expect("our own RDB");
    copy
}

#[test]
fn what_was_packed_is_loaded_into_rows_and_back() {
    let mut server = Harness::new();
    for n in 0..50 {
        for m in 0..n {
            server.run(&format!("RPUSH l{n} {m} {n}"));
            server.run(&format!("SADD s{n} m{m}"));
            server.run(&format!("HSET h{n} f{m} {n}"));
            server.run(&format!("ZADD z{n} {} m{m}", m % 7));
        }
    }
    assert_eq!(server.model().live_rows(Space::Member) + server.model().live_rows(Space::Element), 0);
    let rows = loaded(&rdb_of(server.model()), Limits::NEVER);
    assert_eq!(rows.live_rows(Space::Member), (0..50).map(|n| 3 * n).sum::<usize>());
    assert!(rows.live_rows(Space::Element) > 0);
    let first = rdb_of(&rows);
    let packed = loaded(&first, Limits::default());
    assert_eq!(packed.live_rows(Space::Member) + packed.live_rows(Space::Element), 0);
    // In rows everything lies in the order of hashes, so the same data give the same bytes.
    assert!(rdb_of(&loaded(&rdb_of(&packed), Limits::NEVER)) == first);
}
