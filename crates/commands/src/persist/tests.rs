//! A data set goes out as RDB and comes in again.

use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::{Rows, Space};
use ardb_rdb::{Options, Reader, Writer, WriterOptions};
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
    let mut loader = Loader::new(Within(&mut copy), 16, Existing::Refuse);
    Reader::new(&first[..], Options::default()).read(&mut loader).expect("our own RDB");
    assert_eq!(loader.keys, server.model().key_count(0));
    assert_eq!(loader.expiries, server.model().expiry_count(0));
    drop(loader);
    assert_eq!(copy.live_rows(Space::Expiry), server.model().live_rows(Space::Expiry));
    // Keys and members lie in the order of their hashes, so the same data give the same bytes.
    assert!(rdb_of(&copy) == first, "seed {seed}: the second RDB differs");
}
