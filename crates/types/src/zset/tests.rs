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
            set.pop(&mut rows, greatest, count, &mut |member, score| popped.push((member.to_vec(), score))).unwrap();
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
    assert!(set.members().is_some() || rows.live_rows(Space::Rank1) == 1);
    set.pop(&mut rows, false, 9, &mut |_, _| {}).unwrap();
    assert!(!set.save(&mut rows, &at));
    assert_eq!(rows.live_rows(Space::Score), 0, "not in use");
    for space in [Space::Member, Space::Rank1, Space::Key] {
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
    assert!(set.state.height >= 3, "height {}", set.state.height);
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
            set.pop(&mut rows, false, 1, &mut |member, score| assert_eq!((member.to_vec(), score), first)).unwrap();
            map.remove(&first.0);
        }
        fronts += u32::from(set.state.front > 0);
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
fn an_open_set_counts_what_is_not_saved_yet() {
    let mut random = Random::new(seed());
    let mut rows = Model::new(1);
    let mut map = Map::new();
    let shape = Shape { scores: 3000, members: 400, prefix: 0 };
    let place = at(&rows);
    let mut pending = 0;
    for _ in 0..800 {
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        for _ in 0..1 + random.below(3) {
            let (member, score) = (shape.member(&mut random), shape.score(&mut random));
            if random.one_in(4) && map.len() > 1 {
                assert_eq!(set.remove(&mut rows, &member).unwrap(), map.remove(&member));
            } else {
                set.insert(&mut rows, &member, score).unwrap();
                map.insert(member, score);
            }
            pending += u32::from(set.counts.iter().any(Option::is_some));
            let all = ordered(&map);
            let rank = random.below(all.len() as u64);
            assert_eq!(set.rank(&rows, &all[rank as usize].0, false).unwrap(), Some(rank));
            let found = collect(|visit| set.by_rank(&rows, rank, rank, true, visit).unwrap());
            assert_eq!(found, [all[all.len() - 1 - rank as usize].clone()]);
        }
        assert!(set.save(&mut rows, &place));
        ZSet::open(&rows, &place).unwrap().unwrap().check(&rows);
    }
    assert!(pending > 200, "counts are noted beside the root: {pending}");
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
    assert_eq!(set.count(&rows, &Span::all()).unwrap(), 150);
    set.check(&rows);
}

/// Members that meet each other's beginnings, and some that fill a leaf and more.
fn odd_member(random: &mut Random) -> Vec<u8> {
    let long = *[0, 0, 1, 3, 40, 300, 2000, 70_000].get(random.below(8) as usize).unwrap_or(&0);
    let long = if long > 300 && !random.one_in(20) { 2 } else { long };
    let mut member = vec![b'a' + random.below(2) as u8; long];
    member.extend_from_slice(random.below(400).to_string().as_bytes());
    member
}

fn odd_score(random: &mut Random) -> f64 {
    let scores = [f64::NEG_INFINITY, f64::INFINITY, -0.0, 0.0, 5e-324, -5e-324, f64::MAX, f64::MIN, 1.5, -1.0];
    if random.one_in(3) { random.below(50) as f64 } else { *scores.get(random.below(10) as usize).unwrap_or(&0.0) }
}

#[test]
fn odd_scores_and_members_keep_their_places() {
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for all_equal in [false, true] {
        let mut rows = Model::new(1);
        let place = at(&rows);
        let mut map = Map::new();
        for step in 0..4000 {
            let mut set = ZSet::open_or_create(&rows, &place).unwrap();
            let shrinking = (step / 700) % 2 == 1;
            let member = odd_member(&mut random);
            if shrinking && !random.one_in(4) && !map.is_empty() {
                let all = ordered(&map);
                let i = match random.below(3) {
                    0 => {
                        set.pop(&mut rows, false, 1, &mut |_, _| {}).unwrap();
                        0
                    }
                    1 => {
                        set.pop(&mut rows, true, 1, &mut |_, _| {}).unwrap();
                        all.len() - 1
                    }
                    _ => {
                        let i = random.below(all.len() as u64) as usize;
                        assert_eq!(set.remove(&mut rows, &all[i].0).unwrap(), Some(all[i].1));
                        i
                    }
                };
                map.remove(&all[i].0);
            } else {
                let score = if all_equal { 0.0 } else { odd_score(&mut random) };
                set.insert(&mut rows, &member, score).unwrap();
                // A known zero stays as it was; a small set has no negative one.
                let known = map.get(&member).copied();
                if known != Some(score) {
                    let score = set.score(&rows, &member).unwrap().unwrap();
                    map.insert(member, score);
                }
            }
            set.save(&mut rows, &place);
            if random.one_in(40) && !map.is_empty() {
                let set = ZSet::open(&rows, &place).unwrap().unwrap();
                let bits = |map: &Map| -> Vec<_> { map.iter().map(|(m, s)| (m.clone(), s.to_bits())).collect() };
                assert_eq!(bits(&set.check(&rows)), bits(&map), "seed {seed} step {step}");
                let all = ordered(&map);
                assert_eq!(collect(|visit| set.by_rank(&rows, 0, u64::MAX, false, visit).unwrap()), all);
                let rank = random.below(all.len() as u64);
                assert_eq!(set.rank(&rows, &all[rank as usize].0, false).unwrap(), Some(rank));
            }
        }
    }
}

#[test]
fn both_ends_give_their_members_away() {
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut rows = Model::new(1);
    let place = at(&rows);
    let mut map = Map::new();
    let mut lost = [0, 0];
    for step in 0..6000u64 {
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        // Grows from the ends and in the middle, then shrinks from the ends, to nothing in the end.
        let growing = if step < 4500 { (step / 900) % 2 == 0 } else { false };
        if growing && !random.one_in(3) {
            let score = match random.below(3) {
                0 => step as f64,
                1 => -(step as f64),
                _ => random.below(20) as f64,
            };
            let member = step.to_string().into_bytes();
            set.insert(&mut rows, &member, score).unwrap();
            map.insert(member, score);
        } else if !map.is_empty() {
            let greatest = random.one_in(2);
            let all = ordered(&map);
            let count = if random.one_in(10) { 20 } else { 1 };
            let mut popped = Vec::new();
            set.pop(&mut rows, greatest, count, &mut |member, score| popped.push((member.to_vec(), score))).unwrap();
            let wanted: Vec<_> = if greatest { all.into_iter().rev().collect() } else { all };
            assert_eq!(popped, wanted[..(count as usize).min(wanted.len())], "seed {seed} step {step}");
            forget(&mut map, &popped);
        }
        lost[0] += u32::from(set.state.front > 0);
        lost[1] += u32::from(set.state.back > 0);
        assert_eq!(set.save(&mut rows, &place), !map.is_empty());
        if let Some(set) = ZSet::open(&rows, &place).unwrap().filter(|_| step % 5 == 0) {
            assert_eq!(set.check(&rows), map);
            let all = ordered(&map);
            let rank = random.below(all.len() as u64);
            assert_eq!(set.rank(&rows, &all[rank as usize].0, true).unwrap(), Some(all.len() as u64 - 1 - rank));
            assert_eq!(
                collect(|visit| set.by_rank(&rows, rank, rank, false, visit).unwrap()),
                all[rank as usize..][..1]
            );
        }
    }
    assert!(map.is_empty() && lost[0] > 500 && lost[1] > 500, "{lost:?}");
}

#[test]
fn a_score_that_changes_little_writes_one_leaf() {
    let mut rows = Model::new(1);
    let place = at(&rows);
    let mut set = ZSet::open_or_create(&rows, &place).unwrap();
    for n in 0..500u32 {
        set.insert(&mut rows, &n.to_be_bytes(), f64::from(n * 10)).unwrap();
    }
    assert!(set.save(&mut rows, &place));
    let mut set = ZSet::open(&rows, &place).unwrap().unwrap();
    assert_eq!(set.insert(&mut rows, &250u32.to_be_bytes(), 2501.0).unwrap(), Inserted::Updated);
    assert!(set.root.is_none(), "the key's row stays as it is");
    assert!(set.save(&mut rows, &place));
    let set = ZSet::open(&rows, &place).unwrap().unwrap();
    assert_eq!(set.check(&rows).get(&250u32.to_be_bytes()[..]), Some(&2501.0));
}

#[test]
fn sets_that_grow_at_an_end_have_full_leaves() {
    for up in [true, false] {
        let mut rows = Model::new(1);
        let place = at(&rows);
        let mut set = ZSet::open_or_create(&rows, &place).unwrap();
        for n in 0..2000u32 {
            let score = if up { f64::from(n) } else { -f64::from(n) };
            set.insert(&mut rows, &n.to_be_bytes(), score).unwrap();
        }
        assert!(set.save(&mut rows, &place));
        ZSet::open(&rows, &place).unwrap().unwrap().check(&rows);
        assert!(rows.live_rows(Space::Rank1) < 2000 / 7, "{}", rows.live_rows(Space::Rank1));
    }
}

#[test]
fn members_in_order_are_built_either_way() {
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for size in [2u32, 127, 128, 129, 200, 3000] {
        for broken_at in [None, Some(size / 2), Some(size - 1)] {
            for up in [true, false] {
                let mut rows = Model::new(1);
                let place = at(&rows);
                let mut map = Map::new();
                let mut all: Vec<(Vec<u8>, f64)> = (0..size)
                    .map(|n| (format!("m{n}").into_bytes(), random.below(u64::from(size) / 3 + 1) as f64 - 5.0))
                    .collect();
                all.sort_by_key(|(member, score)| super::check::place(member, *score));
                if !up {
                    all.reverse();
                }
                if let Some(at) = broken_at {
                    all.swap(at as usize, 0);
                }
                let mut builder = ZSetBuilder::new(place.limits);
                for (member, score) in &all {
                    assert!(builder.append(&mut rows, member, *score).unwrap());
                    assert!(!builder.append(&mut rows, member, 3.5).unwrap());
                    map.insert(member.clone(), *score);
                }
                assert!(builder.finish(&mut rows, &place, None, None).unwrap());
                let shape = Shape { scores: 50, members: 5000, prefix: 0 };
                verify(&rows, &map, shape, &mut random);
                let mut set = ZSet::open(&rows, &place).unwrap().unwrap();
                for _ in 0..size.min(300) {
                    let greatest = random.one_in(2);
                    set.pop(&mut rows, greatest, 1, &mut |member, _| assert!(map.remove(member).is_some())).unwrap();
                    if set.is_empty() {
                        break;
                    }
                    set.insert(&mut rows, b"m5", random.below(100) as f64).unwrap();
                    map.insert(b"m5".to_vec(), set.score(&rows, b"m5").unwrap().unwrap());
                }
                set.save(&mut rows, &place);
                verify(&rows, &map, shape, &mut random);
            }
        }
    }
}

/// Does everything with a set; what goes wrong must be an error.
fn use_damaged(rows: &Model, random: &mut Random) -> usize {
    let mut rows = rows.clone();
    let place = at(&rows);
    let mut errors = 0;
    let mut note = |failed: bool| errors += usize::from(failed);
    for _ in 0..30 {
        let Ok(Some(mut set)) = ZSet::open(&rows, &place) else { return 1 };
        let member = random.below(900).to_string().into_bytes();
        let rank = random.below(800);
        let range = ScoreRange { min: 3.0, max: 40.0, min_excluded: false, max_excluded: true };
        match random.below(11) {
            0 => note(set.insert(&mut rows, &member, random.below(60) as f64).is_err()),
            1 => note(set.remove(&mut rows, &member).is_err()),
            2 => note(set.pop(&mut rows, false, random.below(20), &mut |_, _| {}).is_err()),
            3 => note(set.pop(&mut rows, true, random.below(20), &mut |_, _| {}).is_err()),
            4 => note(set.rank(&rows, &member, false).is_err()),
            5 => note(set.by_rank(&rows, rank, rank + 50, true, &mut |_, _| ControlFlow::Continue(())).is_err()),
            6 => note(set.count(&rows, &Span::scores(&range)).is_err()),
            7 => note(set.each(&rows, &mut |_, _| ControlFlow::Continue(())).is_err()),
            8 => note(set.remove_ranks(&mut rows, rank, rank + 20).is_err()),
            9 => note(set.lex_span(&rows, LexBound::Included(b"1"), LexBound::Excluded(b"5"), false).is_err()),
            _ => {
                let mut seen = 0;
                note(
                    set.by_span(&rows, &Span::scores(&range), true, 3, Some(100), &mut |_, _| {
                        seen += 1;
                        ControlFlow::Continue(())
                    })
                    .is_err(),
                );
                assert!(seen <= 100);
            }
        }
        set.save(&mut rows, &place);
    }
    errors
}

#[test]
fn damaged_rows_are_errors() {
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut rows = Model::new(1);
    let place = at(&rows);
    let mut set = ZSet::open_or_create(&rows, &place).unwrap();
    for n in 0..800u32 {
        let score = if random.one_in(10) { 7.0 } else { random.below(50) as f64 };
        set.insert(&mut rows, n.to_string().as_bytes(), score).unwrap();
    }
    set.pop(&mut rows, false, 1, &mut |_, _| {}).unwrap();
    set.save(&mut rows, &place);
    assert_eq!(use_damaged(&rows, &mut random), 0, "nothing is damaged");
    let mut errors = 0;
    for _ in 0..1500 {
        let mut damaged = rows.clone();
        damaged.damage(&mut random, &[Space::Rank1, Space::Rank1, Space::Key]);
        errors += usize::from(use_damaged(&damaged, &mut random) > 0);
    }
    assert!(errors > 300, "{errors}");
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
    assert_eq!(rows.live_rows(Space::Rank1), 1);
}
