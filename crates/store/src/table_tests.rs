//! Tests of the memtable against a map of vectors.

use std::collections::BTreeMap;

use ardb_base::random::Random;

use super::*;

type Name = (Space, u64, u64, Vec<u8>);
type Model = BTreeMap<(Space, u64, u64, Vec<u8>), Vec<(u64, Option<Vec<u8>>)>>;

fn value(n: u64) -> Value {
    Value::new(format!("value-{n}").as_bytes())
}

fn random_key(random: &mut Random) -> (Space, u64, u64, Vec<u8>) {
    let spaces = [Space::Key, Space::Member, Space::Score, Space::Expiry, Space::Element, Space::Rank1];
    let space = spaces[random.below(6) as usize];
    let group = 1 + random.below(3);
    let order = random.below(12) << [0, 40, 60][random.below(3) as usize];
    let tail = vec![b'a'; random.below(30) as usize];
    (space, group, order, tail)
}

fn visible(versions: &[(u64, Option<Vec<u8>>)], snapshot: u64) -> Option<&Option<Vec<u8>>> {
    versions.iter().rev().find(|(seq, _)| *seq <= snapshot).map(|(_, value)| value)
}

#[test]
fn agrees_with_a_model() {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in seed..seed + 20 {
        let mut random = Random::new(seed);
        let table = Table::new(1);
        let mut model = Model::new();
        let mut undos: Vec<(Name, Undo, Vec<u8>)> = Vec::new();
        let mut held: Vec<(Value, Vec<u8>)> = Vec::new();
        let mut seq = 1;
        let active: Vec<u64> = (0..100).collect();
        for step in 0..3000 {
            let name = random_key(&mut random);
            let key = RowKey::new(name.0, name.1, name.2, &name.3);
            match random.below(20) {
                0 => {
                    seq += 1;
                    undos.clear();
                }
                1 => {
                    while let Some((name, undo, saved)) = undos.pop() {
                        let key = RowKey::new(name.0, name.1, name.2, &name.3);
                        table.undo(&key, undo, &saved);
                    }
                    model.retain(|_, versions| {
                        versions.retain(|(s, _)| *s < seq);
                        !versions.is_empty()
                    });
                }
                2..=5 if matches!(table.get(&key, seq), Lookup::Found(Some(_))) => {
                    let Lookup::Found(Some(old)) = table.get(&key, seq) else { panic!("it was there") };
                    let mut new = old.to_vec();
                    let at = random.below(new.len() as u64 - 1) as usize;
                    new[at] = b'!';
                    *new.last_mut().expect("it has bytes") = b'?';
                    if random.one_in(3) {
                        held.push((old.clone(), old.to_vec()));
                    }
                    let patches = [(at, &b"!"[..]), (new.len() - 1, &b"?"[..])];
                    let mut saved = Vec::new();
                    let undo = table.patch(&key, seq, old, &patches, &active, &mut saved);
                    undos.push((name.clone(), undo, saved));
                    let versions = model.entry(name).or_default();
                    versions.retain(|(s, _)| *s < seq);
                    versions.push((seq, Some(new)));
                }
                2..=12 => {
                    // Some lie inline, others do not.
                    let width = [0, 40][random.below(2) as usize];
                    let new = (!random.one_in(4)).then(|| format!("v{step:width$}").into_bytes());
                    let undo = table.put(&key, seq, new.as_deref().map(Value::new), &active);
                    undos.push((name.clone(), undo, Vec::new()));
                    let versions = model.entry(name).or_default();
                    versions.retain(|(s, _)| *s < seq);
                    versions.push((seq, new));
                }
                13..=16 => {
                    let snapshot = random.below(seq + 1);
                    let want = match model.get(&name).map(|versions| visible(versions, snapshot)) {
                        None => Lookup::Missing,
                        Some(None) => Lookup::Hidden,
                        Some(Some(v)) => Lookup::Found(v.as_deref().map(Value::new)),
                    };
                    assert_eq!(table.get(&key, snapshot), want, "seed {seed} step {step}");
                }
                _ => {
                    let other = random_key(&mut random);
                    let (mut lo, mut hi) = ((name.2, name.3), (other.2, other.3));
                    if lo > hi && !random.one_in(10) {
                        std::mem::swap(&mut lo, &mut hi);
                    }
                    let open_end = random.one_in(4);
                    let window = Window {
                        space: name.0,
                        group: name.1,
                        lo: (lo.0, &lo.1),
                        lo_open: random.one_in(2),
                        hi: (!open_end).then_some((hi.0, &hi.1[..])),
                    };
                    let direction = [Direction::Forward, Direction::Backward][random.below(2) as usize];
                    let snapshot = random.below(seq + 1);
                    let limit = 1 + random.below(8) as usize;
                    let mut want: Vec<_> = model
                        .iter()
                        .filter(|((space, group, order, tail), _)| {
                            let at = (*order, &tail[..]);
                            *space == window.space
                                && *group == window.group
                                && (at > window.lo || at == window.lo && !window.lo_open)
                                && window.hi.is_none_or(|hi| at < hi)
                        })
                        .filter_map(|((_, _, order, tail), versions)| {
                            visible(versions, snapshot).map(|v| (*order, tail.clone(), v.clone()))
                        })
                        .collect();
                    let mut values = Vec::new();
                    let mut visit = |value: &Value| {
                        values.push(value.to_vec());
                        std::ops::ControlFlow::Continue(())
                    };
                    let mut last = table.values(window, snapshot, limit, &mut visit);
                    while let Some((order, tail)) = last {
                        let rest = Window { lo: (order, &tail), lo_open: true, ..window };
                        last = table.values(rest, snapshot, limit, &mut visit);
                    }
                    let all: Vec<_> = want.iter().filter_map(|(_, _, value)| value.clone()).collect();
                    assert_eq!(values, all, "seed {seed} step {step}");
                    if direction == Direction::Backward {
                        want.reverse();
                    }
                    let done = want.len() <= limit;
                    want.truncate(limit);
                    let mut got = Vec::new();
                    assert_eq!(
                        table.collect(window, direction, snapshot, limit, &mut got),
                        done,
                        "seed {seed} step {step}"
                    );
                    let got: Vec<_> =
                        got.into_iter().map(|i| (i.order, i.tail.to_vec(), i.value.map(|v| v.to_vec()))).collect();
                    assert_eq!(got, want, "seed {seed} step {step}");
                }
            }
        }
        assert!(held.iter().all(|(value, bytes)| **value == **bytes), "seed {seed}: what others hold stays as it was");
        assert_eq!(table.rows(), model.len() as u64, "seed {seed}");
        drained_in_order(&table, &model, seq, seed);
        for (name, _) in model {
            let key = RowKey::new(name.0, name.1, name.2, &name.3);
            let place = Place::of(&key);
            let shard = Table::shard_of(place);
            let freed = table.remove_row(&mut table.shards[shard].write(), shard, place, key.tail);
            table.add_bytes(-freed);
        }
        assert_eq!((table.rows(), table.bytes()), (0, 0), "seed {seed}: all bytes are accounted for");
        assert!(table.next_filled(0, KEY_SHARDS + OTHER_SHARDS - 1).is_none());
    }
}

fn drained_in_order(table: &Table, model: &Model, seq: u64, seed: u64) {
    let mut drained = Vec::new();
    for run in table.runs() {
        let (mut order, mut tail, mut open) = (0, Tail::new(b""), false);
        loop {
            let mut items = Vec::new();
            let done = table.collect_run(run, (order, &tail), open, seq, 3, &mut items);
            if let Some(last) = items.last() {
                (order, tail, open) = (last.order, last.tail.clone(), true);
            }
            drained.extend(items.into_iter().map(|i| (run.space, run.group, i.order, i.tail.to_vec())));
            if done {
                break;
            }
        }
    }
    let want: Vec<_> = model.keys().cloned().collect();
    assert_eq!(drained, want, "seed {seed}");
}

#[test]
fn forgets_what_is_dead() {
    let table = Table::new(5);
    for order in 0..10 {
        for space in [Space::Member, Space::Score, Space::Element] {
            table.put(&RowKey::new(space, 7, order, b"x"), 1, Some(value(order)), &[]);
            table.put(&RowKey::new(space, 8, order, b"x"), 1, Some(value(order)), &[]);
        }
        table.put(&RowKey::new(Space::Key, 9, order << 55, b"k"), 1, Some(value(order)), &[]);
    }
    assert_eq!(table.forget_object(7, 25), 25);
    assert_eq!(table.forget_object(7, 25), 5);
    assert_eq!(table.forget_object(8, 100), 30);
    assert_eq!(table.rows(), 10);
    table.forget_keys(9, 2 << 55, Some(5 << 55));
    assert_eq!(table.rows(), 7);
    table.forget_keys(9, 0, None);
    assert_eq!((table.rows(), table.bytes()), (0, 0));
    let key = RowKey::new(Space::Element, 7, 1, b"");
    table.put(&key, 2, Some(value(1)), &[]);
    table.forget_deleted(&key, 2);
    assert_eq!(table.rows(), 1, "a row that is not deleted stays");
    table.put(&key, 3, None, &[]);
    table.forget_deleted(&key, 2);
    assert_eq!(table.rows(), 1, "another deletion is not this one");
    table.forget_deleted(&key, 3);
    assert_eq!((table.rows(), table.bytes()), (0, 0));
}
