//! Tests of strings: random changes against byte vectors, and how many rows a change touches.

use std::collections::HashMap;

use ardb_base::random::Random;
use ardb_engine::Space;

use super::*;
use crate::model::Model;

fn seed() -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(29)
}

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    let len = match random.below(4) {
        0 => random.below(16),
        1 => random.below(INLINE_MAX as u64 + 10),
        _ => random.below(most),
    };
    let mut bytes = vec![0; len as usize];
    // Zeros too: pieces of zeros have no rows.
    if !random.one_in(4) {
        random.fill(&mut bytes);
    }
    bytes
}

/// All operations against plain byte vectors, an expiry among them, with checks for rows that nobody owns any more.
#[test]
fn strings_are_byte_vectors() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..20 {
        let mut rows = Model::new(2);
        let mut model: HashMap<&[u8], Vec<u8>> = HashMap::new();
        for step in 0..150 {
            let key: &[u8] = [&b"a"[..], b"b", b"c"][random.below(3) as usize];
            let at = At::new(&rows, 1, key, 0);
            let found = keyspace::find_kind(&rows, &at, Kind::String).expect("the model cannot fail");
            let context = format!("seed {seed}, round {round}, step {step}");
            match random.below(7) {
                0 => {
                    let value = bytes(&mut random, 30_000);
                    set(&mut rows, &at, found.raw.as_ref(), &value, random.one_in(2).then_some(1000));
                    model.insert(key, value);
                }
                1 => {
                    let piece = bytes(&mut random, 9000);
                    let old = model.entry(key).or_default();
                    let len = write(&mut rows, &at, &found, old.len() as u64, &piece).expect("the model cannot fail");
                    old.extend_from_slice(&piece);
                    assert_eq!(len, old.len() as u64, "{context}");
                }
                2 | 3 => {
                    let piece = bytes(&mut random, 9000);
                    let offset = random.below(40_000) as usize;
                    if piece.is_empty() {
                        continue;
                    }
                    let old = model.entry(key).or_default();
                    let len = write(&mut rows, &at, &found, offset as u64, &piece).expect("the model cannot fail");
                    old.resize(old.len().max(offset + piece.len()), 0);
                    old[offset..offset + piece.len()].copy_from_slice(&piece);
                    assert_eq!(len, old.len() as u64, "{context}");
                }
                4 => {
                    let mut builder = Builder::new();
                    let mut value = Vec::new();
                    for _ in 0..random.below(5) {
                        let piece = bytes(&mut random, 9000);
                        builder.push(&mut rows, &piece);
                        value.extend_from_slice(&piece);
                        assert_eq!(builder.len(), value.len() as u64, "{context}");
                    }
                    if random.one_in(5) {
                        builder.abandon(&mut rows);
                    } else {
                        builder.finish(&mut rows, &at, found.raw.as_ref(), None);
                        model.insert(key, value);
                    }
                }
                5 => {
                    if let Some(row) = found.raw {
                        keyspace::delete(&mut rows, &at, &row);
                        model.remove(key);
                    }
                }
                _ => {
                    if let (Some(row), true) = (&found.raw, random.one_in(2)) {
                        let target = At::new(&rows, 0, b"copy", 0);
                        let old = keyspace::find(&rows, &target).expect("the model cannot fail");
                        keyspace::copy(&mut rows, row, &target, old.raw.as_ref()).expect("the model cannot fail");
                        model.insert(b"copy", model[key].clone());
                    }
                }
            }
            for (key, value) in &model {
                let at = At::new(&rows, u32::from(*key != b"copy"), key, 0);
                let got = get(&rows, &at).expect("the model cannot fail").expect("it was written");
                assert_eq!(got.len(), value.len() as u64, "{context}");
                assert!(got.bytes(&rows).expect("the model cannot fail") == &value[..], "{context}");
                assert_eq!(got.inline().is_some(), got.row().encoding() == Encoding::Inline);
                let (from, to) = (random.below(40_000), random.below(40_000));
                let part = got.range(&rows, from, to).expect("the model cannot fail");
                let end = (to as usize).min(value.len());
                assert_eq!(part, value.get(from as usize..end).unwrap_or_default(), "{context}: {from}..{to}");
            }
            assert_eq!(rows.key_count(1) + rows.key_count(0), model.len() as u64, "{context}");
        }
        let big = model.values().map(|value| value.len().div_ceil(chunks::CHUNK)).sum::<usize>();
        assert!(rows.live_rows(Space::Chunk) <= big, "seed {seed}: pieces of no string are left");
    }
}

#[test]
fn a_bit_far_out_costs_one_row() {
    let mut rows = Model::new(1);
    let at = At::new(&rows, 0, b"k", 0);
    let found = keyspace::find(&rows, &at).expect("the model cannot fail");
    write(&mut rows, &at, &found, 500_000_000, b"x").expect("the model cannot fail");
    assert_eq!(rows.live_rows(Space::Chunk), 1);
    let value = get(&rows, &at).expect("the model cannot fail").expect("it was written");
    assert_eq!(value.len(), 500_000_001);
    assert_eq!(&*value.range(&rows, 499_999_998, u64::MAX).expect("the model cannot fail"), b"\0\0x");
}

#[test]
fn in_place_changes_leave_the_keys_row_alone() {
    let mut rows = Model::new(1);
    let at = At::new(&rows, 0, b"k", 0);
    set(&mut rows, &at, None, &[7; 100_000], None);
    let object = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it was written").object();
    let found = keyspace::find(&rows, &at).expect("the model cannot fail");
    write(&mut rows, &at, &found, 50_000, b"abc").expect("the model cannot fail");
    let row = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it was written");
    assert_eq!((row.object(), row.size()), (object, 100_000));
    assert!(rows.discarded.is_empty());
}
