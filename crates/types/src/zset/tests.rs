//! Random commands against a plain map, every invariant checked on the way.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ardb_base::id::UnixMs;
use ardb_base::random::Random;
use ardb_engine::Space;

use super::check::place;
use super::{Inserted, LexBound, ScoreRange, Span, ZSet, ZSetBuilder};
use crate::limits::{Limit, Limits};
use crate::model::Model;
use crate::{At, keyspace};

type Map = BTreeMap<Vec<u8>, f64>;

fn seed() -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7)
}

/// Everything is in rows.
fn at(rows: &Model) -> At<'static> {
    At::new(rows, 0, b"z", 1000).within(Limits::NEVER)
}

/// Some members are packed.
fn up_to(members: u64) -> Limits {
    Limits { zset: Limit::new(members, 6), ..Limits::NEVER }
}

/// The members in the order of the set.
fn ordered(map: &Map) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = map.iter().map(|(member, score)| (member.clone(), *score)).collect();
    all.sort_by_key(|(member, score)| place(member, *score));
    all
}

fn forget(map: &mut Map, gone: &[(Vec<u8>, f64)]) {
    for (member, _) in gone {
        map.remove(member);
    }
}

fn collect(visit: impl FnOnce(&mut super::range::Visit<'_>)) -> Vec<(Vec<u8>, f64)> {
    let mut found = Vec::new();
    visit(&mut |member, score| {
        found.push((member.to_vec(), score));
        ControlFlow::Continue(())
    });
    found
}

/// How scores and members of one run are drawn.
#[derive(Clone, Copy, Debug)]
struct Shape {
    scores: u64,
    members: u64,
    prefix: usize,
}

impl Shape {
    fn score(&self, random: &mut Random) -> f64 {
        random.below(self.scores) as f64 - (self.scores / 2) as f64
    }
    fn member(&self, random: &mut Random) -> Vec<u8> {
        let mut member = vec![b'p'; self.prefix];
        member.extend_from_slice(random.below(self.members).to_string().as_bytes());
        member
    }
}

fn verify(rows: &Model, map: &Map, shape: Shape, random: &mut Random) {
    let Some(set) = ZSet::open(rows, &at(rows)).unwrap() else {
        assert!(map.is_empty());
        return;
    };
    assert_eq!(set.check(rows), *map);
    let all = ordered(map);
    let n = all.len() as u64;
    for _ in 0..8 {
        let index = random.below(n);
        let (member, score) = &all[index as usize];
        assert_eq!(set.score(rows, member).unwrap(), Some(*score));
        assert_eq!(set.rank(rows, member, false).unwrap(), Some(index));
        assert_eq!(set.rank(rows, member, true).unwrap(), Some(n - 1 - index));
        let (start, stop, reverse) = (random.below(n), random.below(n + 10), random.one_in(2));
        let wanted: Vec<_> = if reverse { all.iter().rev().cloned().collect() } else { all.clone() };
        let slice: Vec<_> =
            wanted.iter().skip(start as usize).take((stop + 1).saturating_sub(start) as usize).cloned().collect();
        assert_eq!(collect(|v| set.by_rank(rows, start, stop, reverse, v).unwrap()), slice);
        let (a, b) = (shape.score(random), shape.score(random));
        let range = ScoreRange { min: a, max: b, min_excluded: random.one_in(2), max_excluded: random.one_in(2) };
        let inside = |score: f64| {
            (if range.min_excluded { score > a } else { score >= a })
                && (if range.max_excluded { score < b } else { score <= b })
        };
        let span = Span::scores(&range);
        let slice: Vec<_> = wanted.iter().filter(|(_, score)| inside(*score)).cloned().collect();
        assert_eq!(set.count(rows, &span).unwrap(), slice.len() as u64);
        let (offset, limit) = (random.below(n.min(300)), random.below(20));
        let cut: Vec<_> = slice.iter().skip(offset as usize).take(limit as usize).cloned().collect();
        assert_eq!(collect(|v| set.by_span(rows, &span, reverse, offset, Some(limit), v).unwrap()), cut);
        assert_eq!(collect(|v| set.by_span(rows, &span, reverse, 0, None, v).unwrap()), slice);
        if shape.scores == 1 {
            let (a, b) = (shape.member(random), shape.member(random));
            let span = set.lex_span(rows, LexBound::Excluded(&a), LexBound::Included(&b), reverse).unwrap();
            let slice: Vec<_> = wanted.iter().filter(|(member, _)| *member > a && *member <= b).cloned().collect();
            assert_eq!(collect(|v| set.by_span(rows, &span, reverse, 0, None, v).unwrap()), slice);
            assert_eq!(set.count(rows, &span).unwrap(), slice.len() as u64);
        }
        let picked = set.random_distinct(rows, random.below(n + 5), random).unwrap();
        assert!(picked.windows(2).all(|pair| place(&pair[0].0, pair[0].1) < place(&pair[1].0, pair[1].1)));
        assert!(picked.iter().all(|(member, score)| map.get(member) == Some(score)));
    }
}

fn run(shape: Shape, steps: u64, grow: u64, settings: &[Limits], seed: u64) {
    eprintln!("seed {seed} {shape:?} {settings:?}");
    let mut random = Random::new(seed);
    let mut rows = Model::new(1);
    let mut map = Map::new();
    for step in 0..steps {
        // The mood changes: growing for a while, then shrinking.
        let shrinking = (step / (steps / 6 + 1)) % 2 == 1;
        let at = at(&rows).within(settings[random.below(settings.len() as u64) as usize]);
        let mut set = ZSet::open_or_create(&rows, &at).unwrap();
        for _ in 0..random.below(grow) + 1 {
            let member = shape.member(&mut random);
            if shrinking != random.one_in(5) {
                let existing = map.keys().nth(random.below(map.len().max(1) as u64) as usize).cloned();
                let member = existing.unwrap_or(member);
                assert_eq!(set.remove(&mut rows, &member).unwrap(), map.remove(&member));
            } else {
                let score = shape.score(&mut random);
                let wanted = match map.insert(member.clone(), score) {
                    None => Inserted::Added,
                    Some(old) if old == score => Inserted::Same,
                    Some(_) => Inserted::Updated,
                };
                assert_eq!(set.insert(&mut rows, &member, score).unwrap(), wanted);
            }
        }
        if random.one_in(40) && !map.is_empty() {
            let all = ordered(&map);
            let count = random.below(all.len() as u64 / 8 + 2);
            let greatest = random.one_in(2);
            let mut popped = Vec::new();
            set.pop(&mut rows, greatest, count, &mut |member, score| popped.push((member, score))).unwrap();
            let wanted: Vec<_> = if greatest { all.into_iter().rev().collect() } else { all };
            assert_eq!(popped, wanted[..(count as usize).min(wanted.len())]);
            forget(&mut map, &popped);
        }
        if random.one_in(100) && !map.is_empty() {
            let all = ordered(&map);
            let (start, stop) = (random.below(all.len() as u64), random.below(all.len() as u64));
            let slice: Vec<_> =
                all.into_iter().skip(start as usize).take((stop + 1).saturating_sub(start) as usize).collect();
            assert_eq!(set.remove_ranks(&mut rows, start, stop).unwrap(), slice.len() as u64);
            forget(&mut map, &slice);
        }
        assert_eq!(set.save(&mut rows, &at), !map.is_empty());
        if random.one_in(steps / 30 + 1) {
            verify(&rows, &map, shape, &mut random);
        }
    }
    verify(&rows, &map, shape, &mut random);
    let at = at(&rows);
    let Some(mut set) = ZSet::open(&rows, &at).unwrap() else { return };
    // Taken out one by one, nothing is left, tree included.
    while set.len() > 1 {
        let index = random.below(set.len());
        let mut member = Vec::new();
        set.by_rank(&rows, index, index, false, &mut |found, _| {
            member = found.to_vec();
            ControlFlow::Break(())
        })
        .unwrap();
        set.remove(&mut rows, &member).unwrap().unwrap();
    }
    set.check(&rows);
    assert_eq!(rows.live_rows(Space::Rank1), 0);
    set.pop(&mut rows, false, 9, &mut |_, _| {}).unwrap();
    assert!(!set.save(&mut rows, &at));
    for space in [Space::Member, Space::Score, Space::Rank1, Space::Key] {
        assert_eq!(rows.live_rows(space), 0, "{space:?}");
    }
}

#[test]
fn behaves_like_a_map() {
    let seed = seed();
    let never = [Limits::NEVER];
    run(Shape { scores: 7, members: 60, prefix: 0 }, 1500, 3, &never, seed);
    run(Shape { scores: 100_000, members: 4000, prefix: 0 }, 1200, 30, &never, seed + 1);
    run(Shape { scores: 1, members: 3000, prefix: 5 }, 600, 40, &never, seed + 2);
    run(Shape { scores: 3, members: 1_000_000, prefix: 0 }, 300, 400, &never, seed + 3);
}

#[test]
fn behaves_like_a_map_when_packed_and_when_it_grows() {
    let seed = seed();
    let small = Shape { scores: 7, members: 60, prefix: 0 };
    let equal = Shape { scores: 1, members: 300, prefix: 5 };
    let border = [Limits::default(), Limits::NEVER, up_to(3), up_to(20)];
    for shape in [small, equal] {
        for settings in [&[Limits::default()][..], &[up_to(2)], &[up_to(10)], &border] {
            run(shape, 1000, 3, settings, seed);
        }
    }
    run(Shape { scores: 100_000, members: 4000, prefix: 0 }, 400, 30, &[Limits::default()], seed + 1);
}

#[test]
fn what_is_said_does_not_depend_on_the_form() {
    let mut random = Random::new(seed());
    let settings = [Limits::NEVER, Limits::default(), up_to(5)];
    let mut servers: Vec<Model> = settings.iter().map(|_| Model::new(1)).collect();
    for step in 0..3000 {
        let long = if random.one_in(400) { 65 } else { 3 };
        let member = format!("{:0long$}", random.below(150));
        let score = *[-1.0, -0.0, 0.0, 2.0].get(random.below(4) as usize).unwrap_or(&0.0);
        let gone = random.one_in(if (step / 500) % 2 == 0 { 3 } else { 2 });
        let clear = random.one_in(700);
        let mut replies = Vec::new();
        for (rows, limits) in servers.iter_mut().zip(settings) {
            let place = at(rows).within(limits);
            let mut set = ZSet::open_or_create(rows, &place).unwrap();
            if clear {
                set.clear(rows);
            } else if gone {
                set.remove(rows, member.as_bytes()).unwrap();
            } else {
                set.insert(rows, member.as_bytes(), score).unwrap();
            }
            set.save(rows, &place);
            let set = ZSet::open_or_create(rows, &place).unwrap();
            let mut said = collect(|visit| set.by_rank(rows, 0, u64::MAX, false, visit).unwrap());
            said.push((vec![u8::from(set.is_small())], set.len() as f64));
            replies.push(said.into_iter().map(|(member, score)| (member, score.to_bits())).collect::<Vec<_>>());
        }
        assert!(replies.windows(2).all(|pair| pair[0] == pair[1]), "step {step}: {replies:?}");
    }
}

#[test]
fn a_high_tree_holds() {
    let mut random = Random::new(seed());
    let mut rows = Model::new(1);
    let mut map = Map::new();
    let shape = Shape { scores: 50_000, members: 1_000_000, prefix: 0 };
    let mut set = ZSet::open_or_create(&rows, &at(&rows)).unwrap();
    for _ in 0..60_000 {
        let (member, score) = (shape.member(&mut random), shape.score(&mut random));
        set.insert(&mut rows, &member, score).unwrap();
        map.insert(member, score);
    }
    assert!(set.height() >= 3, "height {}", set.height());
    let place = at(&rows);
    assert!(set.save(&mut rows, &place));
    verify(&rows, &map, shape, &mut random);
    let mut set = ZSet::open(&rows, &place).unwrap().unwrap();
    let all = ordered(&map);
    assert_eq!(set.remove_ranks(&mut rows, 1000, all.len() as u64 - 500).unwrap(), all.len() as u64 - 1499);
    assert!(set.save(&mut rows, &place));
    forget(&mut map, &all[1000..=all.len() - 500]);
    verify(&rows, &map, shape, &mut random);
}

#[test]
fn a_queue_forgets_what_it_gave_away() {
    let mut rows = Model::new(1);
    let place = at(&rows);
    for n in 0..3000u32 {
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        set.insert(&mut rows, &n.to_be_bytes(), f64::from(n)).unwrap();
        if n >= 500 {
            set.pop(&mut rows, false, 1, &mut |member, _| assert_eq!(member, (n - 500).to_be_bytes())).unwrap();
            assert_eq!(set.low(), ardb_engine::row::order_of_f64(f64::from(n - 500)));
        }
        assert!(set.save(&mut rows, &place));
    }
    ZSet::open(&rows, &place).unwrap().unwrap().check(&rows);
}

#[test]
fn counts_hold_while_first_rows_go() {
    let mut random = Random::new(seed());
    let mut rows = Model::new(1);
    let mut map = Map::new();
    let shape = Shape { scores: 3000, members: 1_000_000, prefix: 0 };
    let place = at(&rows);
    let mut fronts = 0;
    for step in 0..2500u32 {
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        // Grows first, then mostly loses first rows, with other changes in between.
        if step < 900 || random.one_in(30) {
            let (member, score) = (shape.member(&mut random), shape.score(&mut random));
            set.insert(&mut rows, &member, score).unwrap();
            map.insert(member, score);
        } else if random.one_in(40) && !map.is_empty() {
            let (member, score) = ordered(&map).swap_remove(random.below(map.len() as u64) as usize);
            assert_eq!(set.remove(&mut rows, &member).unwrap(), Some(score));
            map.remove(&member);
        } else if !map.is_empty() {
            let first = ordered(&map).swap_remove(0);
            set.pop(&mut rows, false, 1, &mut |member, score| assert_eq!((member, score), first)).unwrap();
            map.remove(&first.0);
        }
        fronts += u32::from(set.front() > 0);
        assert_eq!(set.save(&mut rows, &place), !map.is_empty());
        if step % 7 == 0 && !map.is_empty() {
            let set = ZSet::open(&rows, &place).unwrap().unwrap();
            set.check(&rows);
            let all = ordered(&map);
            let rank = random.below(all.len() as u64);
            let (member, _) = &all[rank as usize];
            assert_eq!(set.rank(&rows, member, false).unwrap(), Some(rank));
            set.by_rank(&rows, rank, rank, false, &mut |found, _| {
                assert_eq!(found, member);
                ControlFlow::Break(())
            })
            .unwrap();
        }
    }
    assert!(fronts > 500, "rows are counted in the key's row: {fronts}");
}

#[test]
fn a_built_set_is_as_good_as_a_grown_one() {
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for size in [0, 1, 16, 17, 28, 300, 5_000, 40_000] {
        let mut rows = Model::new(1);
        let place = at(&rows);
        let shape = Shape { scores: if size == 300 { 1 } else { 5000 }, members: 1 << 40, prefix: 0 };
        let place = if random.one_in(2) { place } else { place.within(Limits::default()) };
        let mut builder = ZSetBuilder::new(place.limits);
        let mut map = Map::new();
        while builder.len() < size {
            let (member, score) = (shape.member(&mut random), shape.score(&mut random));
            assert_eq!(builder.append(&mut rows, &member, score).unwrap(), map.insert(member, score).is_none());
        }
        assert_eq!(builder.finish(&mut rows, &place, None, None).unwrap(), size > 0);
        verify(&rows, &map, shape, &mut random);
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        for _ in 0..500 {
            let (member, score) = (shape.member(&mut random), shape.score(&mut random));
            set.insert(&mut rows, &member, score).unwrap();
            map.insert(member, score);
        }
        assert!(set.save(&mut rows, &place));
        verify(&rows, &map, shape, &mut random);
    }
}

#[test]
fn long_common_beginnings_do_not_fill_the_nodes() {
    let mut rows = Model::new(1);
    let mut set = ZSet::open_or_create(&rows, &at(&rows)).unwrap();
    for n in 0..150u32 {
        let mut member = vec![b'x'; 5000];
        member.extend_from_slice(n.to_string().as_bytes());
        set.insert(&mut rows, &member, 1.0).unwrap();
        assert!(set.rank(&rows, &member, false).unwrap().is_some());
    }
    assert!(set.root().unwrap().len() <= 1);
    assert_eq!(set.count(&rows, &Span::all()).unwrap(), 150);
}

#[test]
fn a_set_that_replaces_another_value_leaves_nothing_of_it() {
    let mut rows = Model::new(1);
    let place = at(&rows);
    let mut first = ZSet::open_or_create(&rows, &place).unwrap();
    first.insert(&mut rows, b"a", 1.0).unwrap();
    assert!(first.save(&mut rows, &place));
    let row = keyspace::lookup(&rows, &place).unwrap().unwrap();
    keyspace::set_expiry(&mut rows, &place, &row, Some(500 as UnixMs));
    // Its time has come: the next insertion finds nothing, and takes its place.
    let mut second = ZSet::open_or_create(&rows, &place).unwrap();
    assert!(second.is_empty());
    second.insert(&mut rows, b"b", 2.0).unwrap();
    assert!(second.save(&mut rows, &place));
    assert_eq!(rows.discarded.len(), 1);
    assert_eq!(rows.live_rows(Space::Expiry), 0);
    assert_eq!(ZSet::open(&rows, &place).unwrap().unwrap().check(&rows).len(), 1);
    // Cleared and filled again in one command.
    let mut third = ZSet::open_or_create(&rows, &place).unwrap();
    third.clear(&mut rows);
    third.insert(&mut rows, b"c", 3.0).unwrap();
    third.clear(&mut rows);
    third.insert(&mut rows, b"d", 4.0).unwrap();
    assert!(third.save(&mut rows, &place));
    assert_eq!(rows.live_rows(Space::Score), 1);
}
