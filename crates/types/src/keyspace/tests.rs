//! Tests of the keyspace: random changes against a model, counts and the expiry index included.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::{Rows, RowsMut, Space};

use super::*;
use crate::model::Model;
use crate::string::{self, StringValue};

fn seed() -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11)
}

/// What a key should hold: its value, and its expiry.
type Expected = BTreeMap<(u32, Vec<u8>), (Vec<u8>, Option<i64>)>;

fn check(rows: &Model, expected: &Expected, now: i64, context: &str) {
    for db in 0..2 {
        let here: BTreeMap<_, _> = expected.iter().filter(|((d, _), _)| *d == db).collect();
        assert_eq!(rows.key_count(db), here.len() as u64, "{context}");
        let expiring = here.values().filter(|(_, expiry)| expiry.is_some()).count();
        assert_eq!(rows.expiry_count(db), expiring as u64, "{context}");
        let mut seen = 0;
        let mut last = 0;
        scan_keys(rows, rows.keyspace(db), 0, &mut |hash, key, row| {
            assert!(hash >= last, "{context}: in hash order");
            last = hash;
            let (value, expiry) = &expected[&(db, key.to_vec())];
            assert_eq!(row.expiry(), *expiry, "{context}");
            let found = StringValue::of_row(row);
            assert!(*found.bytes(rows).expect("the model cannot fail") == value[..], "{context}");
            seen += 1;
            ControlFlow::Continue(())
        })
        .expect("the model cannot fail");
        assert_eq!(seen, here.len(), "{context}");
    }
    let mut wanted: Vec<(i64, u64, Vec<u8>)> = expected
        .iter()
        .filter_map(|((db, key), (_, expiry))| Some(((*expiry)?, rows.keyspace(*db).0, key.clone())))
        .filter(|(time, ..)| *time <= now)
        .collect();
    wanted.sort();
    let (found, _) = due(rows, (0, b""), now, usize::MAX).expect("the model cannot fail");
    let found: Vec<_> = found.into_iter().map(|entry| (entry.time, entry.keyspace.0, entry.key)).collect();
    assert_eq!(found, wanted, "{context}");
}

#[test]
fn keys_their_counts_and_the_expiry_index_agree() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..10 {
        let mut rows = Model::new(2);
        let mut expected = Expected::new();
        for step in 0..400 {
            let context = format!("seed {seed}, round {round}, step {step}");
            let mut place = || (random.below(2) as u32, format!("key{}", random.below(8)).into_bytes());
            let (from, to) = (place(), place());
            let at = At::new(&rows, from.0, &from.1, UnixMs::MIN);
            let target = At::new(&rows, to.0, &to.1, UnixMs::MIN);
            let found = find(&rows, &at).expect("the model cannot fail");
            let other = find(&rows, &target).expect("the model cannot fail");
            let expiry = random.one_in(2).then(|| random.below(1000) as i64 - 200);
            match random.below(6) {
                0 | 1 => {
                    let most = if random.one_in(3) { 20_000 } else { 50 };
                    let value = vec![7; random.below(most) as usize];
                    string::set(&mut rows, &at, found.raw.as_ref(), &value, expiry);
                    expected.insert(from, (value, expiry));
                }
                2 => {
                    if let Some(row) = &found.raw {
                        set_expiry(&mut rows, &at, row, expiry);
                        expected.entry(from).and_modify(|(_, old)| *old = expiry);
                    }
                }
                3 => {
                    if let Some(row) = &found.raw {
                        delete(&mut rows, &at, row);
                        expected.remove(&from);
                    }
                }
                4 => {
                    if let Some(row) = &found.raw
                        && from != to
                    {
                        relocate(&mut rows, &at, row, &target, other.raw.as_ref());
                        let value = expected.remove(&from).expect("the row is there");
                        expected.insert(to, value);
                    }
                }
                _ => {
                    if let Some(row) = &found.raw
                        && from != to
                    {
                        copy(&mut rows, row, &target, other.raw.as_ref()).expect("the model cannot fail");
                        expected.insert(to, expected[&from].clone());
                    }
                }
            }
            check(&rows, &expected, random.below(1000) as i64 - 200, &context);
        }
        let pieces: usize = expected
            .values()
            .filter(|(value, _)| value.len() > string::INLINE_MAX)
            .map(|(value, _)| value.len().div_ceil(string::chunks::CHUNK))
            .sum();
        assert_eq!(rows.live_rows(Space::Chunk), pieces, "seed {seed}, round {round}");
    }
}

#[test]
fn a_big_value_is_copied_page_by_page() {
    let mut rows = Model::new(1);
    let at = At::new(&rows, 0, b"from", UnixMs::MIN);
    let to = At::new(&rows, 0, b"to", UnixMs::MIN);
    let value: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8 + 1).collect();
    string::set(&mut rows, &at, None, &value, None);
    let row = lookup(&rows, &at).expect("the model cannot fail").expect("it was written");
    copy(&mut rows, &row, &to, None).expect("the model cannot fail");
    delete(&mut rows, &at, &row);
    let copied = string::get(&rows, &to).expect("the model cannot fail").expect("it was copied");
    assert!(*copied.bytes(&rows).expect("the model cannot fail") == value[..]);
    assert_eq!(rows.live_rows(Space::Chunk), value.len().div_ceil(string::chunks::CHUNK));
}

#[test]
fn due_is_bounded_and_knows_flushed_databases() {
    let mut rows = Model::new(1);
    for n in 0..10 {
        let key = format!("{n}").into_bytes();
        let at = At::new(&rows, 0, &key, UnixMs::MIN);
        string::set(&mut rows, &at, None, b"v", Some(n));
    }
    let old = rows.keyspace(0);
    let (found, next) = due(&rows, (0, b""), 5, 4).expect("the model cannot fail");
    let (rest, end) =
        due(&rows, next.as_ref().map(|(order, tail)| (*order, &tail[..])).expect("there are more"), 5, usize::MAX)
            .expect("the model cannot fail");
    assert_eq!(
        (found.len(), [found, rest].concat()),
        (4, due(&rows, (0, b""), 5, usize::MAX).expect("the model cannot fail").0)
    );
    assert!(end.is_none_or(|(order, _)| order > expiry_order(5)));
    assert_eq!(due(&rows, (0, b""), 5, 0).expect("the model cannot fail").0.len(), 0);
    rows.flush(0);
    let (found, _) = due(&rows, (0, b""), 100, 100).expect("the model cannot fail");
    assert_eq!(found.len(), 10);
    for entry in &found {
        assert_eq!(entry.keyspace, old);
        drop_expiry_entry(&mut rows, entry);
    }
    assert_eq!(rows.live_rows(Space::Expiry), 0);
}

#[test]
fn random_keys_are_spread_and_not_expired() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut rows = Model::new(1);
    for n in 0..100 {
        let key = format!("key{n}").into_bytes();
        let at = At::new(&rows, 0, &key, UnixMs::MIN);
        string::set(&mut rows, &at, None, b"v", (n % 2 == 0).then_some(10));
    }
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let key = random_key(&rows, rows.keyspace(0), random.next_u64(), 10).expect("the model cannot fail");
        seen.insert(key.expect("half of the keys are there"));
    }
    assert!(seen.len() > 35, "seed {seed}: only {} of 50 keys were drawn", seen.len());
    let odd = |key: &Vec<u8>| key.last().is_some_and(|digit| digit % 2 == 1);
    assert!(seen.iter().all(odd), "seed {seed}");
    let wrapped = random_key(&rows, rows.keyspace(0), u64::MAX, 0).expect("the model cannot fail");
    assert!(wrapped.is_some(), "the search goes on at the start");
    assert_eq!(random_key(&Model::new(1), KEYSPACE, 5, 0).expect("the model cannot fail"), None);
}

const KEYSPACE: ardb_base::id::KeyspaceId = ardb_base::id::KeyspaceId(1);
