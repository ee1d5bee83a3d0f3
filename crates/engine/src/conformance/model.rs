//! The random check: an engine against an ordered map, step by step.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use ardb_base::random::Random;

use super::{Changes, Home};
use crate::{Engine, Snapshot};

/// What the engine should hold.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys from a small space of short strings, so that changes meet; some share long prefixes, some are prefixes of others.
fn random_key(random: &mut Random) -> Vec<u8> {
    let mut key = match random.below(4) {
        0 => b"a common beginning that is longer than a restart interval cares for ".to_vec(),
        1 => vec![0, 255],
        _ => Vec::new(),
    };
    for _ in 0..random.below(4) {
        key.push(*b"\0\x01am\xfe\xff".get(random.below(6) as usize).unwrap_or(&0));
    }
    if random.one_in(3) {
        key.extend_from_slice(&(random.below(300) as u16).to_be_bytes());
    }
    key
}

fn random_value(random: &mut Random) -> Vec<u8> {
    let size = match random.below(10) {
        0 => 0,
        1 => random.below(5_000),
        _ => random.below(60),
    };
    let mut value = vec![0; size as usize];
    random.fill(&mut value);
    value
}

fn commit(engine: &dyn Engine, model: &mut Model, random: &mut Random, note: &str) {
    let mut ranges: Vec<Range<Vec<u8>>> = Vec::new();
    if random.one_in(3) {
        for _ in 0..=random.below(3) {
            let (a, b) = (random_key(random), random_key(random));
            // Some are the wrong way round, and delete nothing.
            ranges.push(if random.one_in(8) { a..b } else { a.clone().min(b.clone())..a.max(b) });
        }
    }
    let count = match random.below(6) {
        0 => 0,
        1 => random.below(2_000),
        _ => random.below(60),
    };
    let mut rows = BTreeMap::new();
    for _ in 0..count {
        let value = (!random.one_in(4)).then(|| random_value(random));
        rows.insert(random_key(random), value);
    }
    engine.commit(&ranges, &mut Changes::new(rows.clone())).unwrap_or_else(|error| panic!("{note}: {error}"));
    for range in &ranges {
        model.retain(|key, _| !range.contains(key));
    }
    for (key, value) in rows {
        match value {
            Some(value) => model.insert(key, value),
            None => model.remove(&key),
        };
    }
}

/// Point reads of keys that are there and keys that are not.
fn check_gets(snapshot: &dyn Snapshot, model: &Model, random: &mut Random, note: &str) {
    for _ in 0..50 {
        let key = random_key(random);
        let found = snapshot.get(&key).unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice), "{note}: get {key:?}");
    }
}

/// A random walk of a cursor over a random range.
fn check_walk(snapshot: &dyn Snapshot, model: &Model, random: &mut Random, note: &str) {
    let (a, b) = if random.one_in(4) {
        (Vec::new(), vec![255; 9])
    } else {
        let (a, b) = (random_key(random), random_key(random));
        if random.one_in(10) { (a, b) } else { (a.clone().min(b.clone()), a.max(b)) }
    };
    let part: Vec<(&Vec<u8>, &Vec<u8>)> = if a < b {
        model.range::<Vec<u8>, _>((Bound::Included(&a), Bound::Excluded(&b))).collect()
    } else {
        Vec::new()
    };
    let mut cursor = snapshot.cursor(&a[..]..&b[..]);
    let mut place: Option<usize> = None;
    for _ in 0..40 {
        let step = if place.is_some() { random.below(8) } else { random.below(2) };
        let key = random_key(random);
        let result = match step {
            0 => {
                let at = part.partition_point(|row| *row.0 < key);
                place = (at < part.len()).then_some(at);
                cursor.seek(&key)
            }
            1 => {
                place = part.partition_point(|row| *row.0 <= key).checked_sub(1);
                cursor.seek_back(&key)
            }
            2..=4 => {
                place = place.map(|at| at + 1).filter(|&at| at < part.len());
                cursor.next()
            }
            _ => {
                place = place.and_then(|at| at.checked_sub(1));
                cursor.prev()
            }
        };
        result.unwrap_or_else(|error| panic!("{note}: {error}"));
        let expected = place.map(|at| (part[at].0.as_slice(), part[at].1.as_slice()));
        assert!(cursor.row() == expected, "{note}: step {step} with {key:?} in {a:?}..{b:?}");
    }
}

/// Every row, forwards and backwards.
fn check_all(snapshot: &dyn Snapshot, model: &Model, note: &str) {
    let mut cursor = snapshot.cursor(b""..&[255; 40]);
    cursor.seek(b"").unwrap_or_else(|error| panic!("{note}: {error}"));
    for (key, value) in model {
        assert!(cursor.row() == Some((&key[..], &value[..])), "{note}: forwards at {key:?}");
        cursor.next().unwrap_or_else(|error| panic!("{note}: {error}"));
    }
    assert!(cursor.row().is_none(), "{note}: rows too many");
    cursor.seek_back(&[255; 40]).unwrap_or_else(|error| panic!("{note}: {error}"));
    for (key, value) in model.iter().rev() {
        assert!(cursor.row() == Some((&key[..], &value[..])), "{note}: backwards at {key:?}");
        cursor.prev().unwrap_or_else(|error| panic!("{note}: {error}"));
    }
    assert!(cursor.row().is_none(), "{note}: rows too many");
}

/// `commits` random commits from `seed`, each followed by reads of the newest state and of older snapshots; now and then a restart.
pub fn random_check(home: &dyn Home, seed: u64, commits: u32) {
    let mut random = Random::new(seed);
    let mut engine = home.open();
    let mut model = Model::new();
    let mut held: Vec<(Arc<dyn Snapshot>, Model)> = Vec::new();
    for number in 0..commits {
        let note = format!("ARDB_SEED={seed}, commit {number}");
        commit(&*engine, &mut model, &mut random, &note);
        if random.one_in(4) {
            held.push((engine.snapshot(), model.clone()));
        }
        if random.one_in(5) && !held.is_empty() {
            let which = random.below(held.len() as u64) as usize;
            let (snapshot, model) = held.swap_remove(which);
            check_all(&*snapshot, &model, &note);
        }
        if random.one_in(15) {
            held.clear();
            drop(engine);
            engine = home.open();
            check_all(&*engine.snapshot(), &model, &note);
        }
        check_gets(&*engine.snapshot(), &model, &mut random, &note);
        for _ in 0..3 {
            check_walk(&*engine.snapshot(), &model, &mut random, &note);
        }
        if let Some((snapshot, model)) = held.first() {
            check_gets(&**snapshot, model, &mut random, &note);
            check_walk(&**snapshot, model, &mut random, &note);
        }
    }
    check_all(&*engine.snapshot(), &model, &format!("ARDB_SEED={seed}, at the end"));
}
