//! Hashes, sets and lists against plain models, packed and in rows and across the border between them; and what damaged packed rows do.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use ardb_base::id::{ObjectId, UnixMs};
use ardb_base::random::Random;
use ardb_engine::{Direction, Rows, RowsMut, Space};

use crate::hash::Hash;
use crate::limits::{Limit, Limits, PACKED_MAX};
use crate::list::{End, List};
use crate::model::Model;
use crate::set::Set;
use crate::value::{Item, ItemWalk, ValueBuilder, each_item};
use crate::zset::{Span, ZSet};
use crate::{At, Encoding, Header, KeyRow, Kind, TypeError, keyspace};

fn seed() -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Limits of `elements` of at most `longest` bytes, `bytes` in all, for every type.
fn limits(elements: u16, longest: u16, bytes: u16) -> Limits {
    let limit = Limit { elements, longest, bytes };
    Limits { hash: limit, set: limit, integers: 2 * elements, list: limit, zset: limit }
}

/// The settings that a run goes through: always one, or another one with each step.
fn settings() -> Vec<Vec<Limits>> {
    let tight = [limits(0, 64, 999), limits(3, 64, 999), limits(20, 3, 999), limits(20, 64, 40)];
    let mut all: Vec<Vec<Limits>> = tight.iter().map(|one| vec![*one]).collect();
    all.push(vec![Limits::NEVER]);
    all.push(vec![Limits::default()]);
    all.push(vec![Limits::default(), Limits::NEVER, tight[1], tight[2], tight[3]]);
    all
}

fn at<'k>(rows: &Model, random: &mut Random, settings: &[Limits]) -> At<'k> {
    let limits = settings[random.below(settings.len() as u64) as usize];
    At::new(rows, 0, b"k", 1000).within(limits)
}

/// Short names and a few long ones, numbers among them, from a small world so that they meet again.
fn word(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => vec![b'l'; random.below(200) as usize],
        1 => format!("w{}", random.below(30)).into_bytes(),
        _ => random.below(30).to_string().into_bytes(),
    }
}

/// The items of the value at the key by [`each_item`], which [`ItemWalk`] must give too, of a sorted set in an order of its own.
fn items(rows: &Model, row: &KeyRow, random: &mut Random) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |item: Item<'_>| match item {
        Item::Piece(bytes) | Item::Element(bytes) => (bytes.to_vec(), Vec::new()),
        Item::Field(field, value) => (field.to_vec(), value.to_vec()),
        Item::Scored(member, score) => (member.to_vec(), score.to_le_bytes().to_vec()),
    };
    let mut all = Vec::new();
    each_item(rows, row, &mut |item| {
        all.push(pair(item));
        ControlFlow::Continue(())
    })
    .expect("the model cannot fail");
    let mut walked = Vec::new();
    let mut walk = ItemWalk::new(row);
    let piece = random.below(5) as usize + 1;
    while walk.step(rows, piece, &mut |item| walked.push(pair(item))).expect("the model cannot fail") {}
    let given = all.clone();
    if row.kind() == Kind::SortedSet {
        walked.sort();
        all.sort();
    }
    assert_eq!(walked, all);
    given
}

/// The key's row, whose form must be what was promised: packed rows alone, or rows of members as many as there are, or of elements.
fn row(rows: &Model, at: &At<'_>, space: Space) -> Option<KeyRow> {
    let row = keyspace::lookup(rows, at).expect("the model cannot fail");
    let live = rows.live_rows(space) as u64;
    match &row {
        Some(row) if row.encoding() == Encoding::Rows && row.kind() == Kind::List => {
            List::of_row(row.clone()).expect("it parses").check(rows);
        }
        Some(row) if row.encoding() == Encoding::Rows => assert_eq!(live, row.size()),
        _ => assert_eq!(live, 0),
    }
    row
}

/// How often a run saw the value packed, in rows, and go from packed to rows.
#[derive(Debug, Default)]
struct Seen {
    packed: u32,
    rows: u32,
    grown: u32,
    before: Option<Encoding>,
}

impl Seen {
    fn note(&mut self, row: Option<&KeyRow>) {
        let now = row.map(KeyRow::encoding);
        self.packed += u32::from(now == Some(Encoding::Packed));
        self.rows += u32::from(now == Some(Encoding::Rows));
        self.grown += u32::from((self.before, now) == (Some(Encoding::Packed), Some(Encoding::Rows)));
        self.before = now;
    }

    fn check(&self, settings: &[Limits]) {
        let never = settings.iter().all(|limits| limits.hash.elements == 0);
        assert!(self.rows > 0 || settings == [Limits::default()], "{self:?}");
        assert!(never == (self.packed == 0), "{self:?}");
        assert!(never || settings == [Limits::default()] || self.grown > 0, "{self:?}");
    }
}

#[test]
fn hashes_behave_like_maps() {
    let seed = seed();
    for settings in settings() {
        let (mut random, mut rows, mut seen) = (Random::new(seed), Model::new(1), Seen::default());
        // In the order of insertion, as a packed hash has it.
        let mut map: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for step in 0..600 {
            let context = format!("seed {seed}, step {step}, {settings:?}");
            let at = at(&rows, &mut random, &settings);
            let mut hash = Hash::open_or_create(&rows, &at).expect("the model cannot fail");
            for _ in 0..=random.below(4) {
                let (field, value) = (word(&mut random), word(&mut random));
                let known = map.iter().position(|(name, _)| *name == field);
                if random.one_in(2) {
                    let new = hash.insert(&mut rows, &field, &value).expect("the model cannot fail");
                    assert_eq!(new, known.is_none(), "{context}");
                    match known {
                        Some(index) => map[index].1 = value,
                        None => map.push((field, value)),
                    }
                } else {
                    let gone = hash.remove(&mut rows, &field).expect("the model cannot fail");
                    assert_eq!(gone, known.is_some(), "{context}");
                    known.map(|index| map.remove(index));
                }
                let field = word(&mut random);
                let wanted = map.iter().find(|(name, _)| *name == field).map(|(_, value)| &value[..]);
                let found = hash.get(&rows, &field).expect("the model cannot fail");
                assert_eq!(found.as_deref(), wanted, "{context}");
                assert_eq!(hash.len(), map.len() as u64, "{context}");
            }
            if random.one_in(40) {
                while let Some((field, _)) = map.pop() {
                    assert!(hash.remove(&mut rows, &field).expect("the model cannot fail"), "{context}");
                }
            }
            assert_eq!(hash.save(&mut rows, &at), !map.is_empty(), "{context}");
            let row = row(&rows, &at, Space::Member);
            seen.note(row.as_ref());
            let Some(row) = row else { continue };
            let mut all = items(&rows, &row, &mut random);
            if row.encoding() == Encoding::Packed {
                assert_eq!(all, map, "{context}");
            }
            all.sort();
            let mut wanted = map.clone();
            wanted.sort();
            assert_eq!(all, wanted, "{context}");
            let hash = Hash::open(&rows, &at).expect("the model cannot fail").expect("it is there");
            let drawn = hash.collection().random(&rows, &mut random).expect("the model cannot fail");
            let (field, value) = drawn.expect("there are fields");
            assert!(map.contains(&(field, value.to_vec())), "{context}");
        }
        seen.check(&settings);
        assert_eq!(rows.key_count(0), u64::from(!map.is_empty()));
    }
}

#[test]
fn sets_behave_like_sets() {
    let seed = seed();
    for settings in settings() {
        let (mut random, mut rows, mut seen) = (Random::new(seed), Model::new(1), Seen::default());
        let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
        for step in 0..600 {
            let context = format!("seed {seed}, step {step}, {settings:?}");
            let at = at(&rows, &mut random, &settings);
            let mut set = Set::open_or_create(&rows, &at).expect("the model cannot fail");
            for _ in 0..=random.below(4) {
                let member = word(&mut random);
                if random.one_in(2) {
                    let new = set.insert(&mut rows, &member).expect("the model cannot fail");
                    assert_eq!(new, model.insert(member), "{context}");
                } else {
                    let gone = set.remove(&mut rows, &member).expect("the model cannot fail");
                    assert_eq!(gone, model.remove(&member), "{context}");
                }
                let member = word(&mut random);
                let there = set.contains(&rows, &member).expect("the model cannot fail");
                assert_eq!(there, model.contains(&member), "{context}");
            }
            if random.one_in(40) {
                while let Some(member) = model.pop_first() {
                    assert!(set.remove(&mut rows, &member).expect("the model cannot fail"), "{context}");
                }
            }
            assert_eq!(set.save(&mut rows, &at), !model.is_empty(), "{context}");
            let row = row(&rows, &at, Space::Member);
            seen.note(row.as_ref());
            let Some(row) = row else { continue };
            let all: BTreeSet<Vec<u8>> = items(&rows, &row, &mut random).into_iter().map(|(name, _)| name).collect();
            assert_eq!(all, model, "{context}");
            let set = Set::open(&rows, &at).expect("the model cannot fail").expect("it is there");
            let count = random.below(model.len() as u64 + 3);
            let drawn = set.collection().random_distinct(&rows, count, &mut random).expect("the model cannot fail");
            let drawn: BTreeSet<Vec<u8>> = drawn.into_iter().map(|(member, _)| member).collect();
            assert_eq!(drawn.len() as u64, count.min(model.len() as u64), "{context}");
            assert!(drawn.is_subset(&model), "{context}");
            let (mut cursor, mut scanned) = (0, BTreeSet::new());
            loop {
                let take = &mut |member: &[u8], _: &[u8]| scanned.extend([member.to_vec()]);
                cursor = set.collection().scan(&rows, cursor, 4, take).expect("the model cannot fail");
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, model, "{context}");
        }
        seen.check(&settings);
    }
}

#[test]
fn lists_behave_like_vectors() {
    let seed = seed();
    for settings in settings() {
        let (mut random, mut rows, mut seen) = (Random::new(seed), Model::new(1), Seen::default());
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in 0..1500 {
            let context = format!("seed {seed}, step {step}, {settings:?}");
            let at = at(&rows, &mut random, &settings);
            let mut list = List::open_or_create(&rows, &at).expect("the model cannot fail");
            for _ in 0..=random.below(3) {
                change(&mut list, &mut rows, &mut model, &mut random, &context);
            }
            assert_eq!(list.save(&mut rows, &at), !model.is_empty(), "{context}");
            let row = row(&rows, &at, Space::Element);
            seen.note(row.as_ref());
            let Some(row) = row else { continue };
            let all: Vec<Vec<u8>> = items(&rows, &row, &mut random).into_iter().map(|(element, _)| element).collect();
            assert_eq!(all, model, "{context}");
            let list = List::open(&rows, &at).expect("the model cannot fail").expect("it is there");
            let from = random.below(model.len() as u64);
            let to = from + random.below(model.len() as u64 - from + 1);
            let wanted = &model[from as usize..to as usize];
            let mut found: Vec<Vec<u8>> = Vec::new();
            list.values(&rows, from, to, &mut |value| found.push(value.to_vec())).expect("the model cannot fail");
            assert_eq!(found, wanted, "{context}");
            for direction in [Direction::Forward, Direction::Backward] {
                let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
                let most = random.below(6) as usize + 1;
                list.range(&rows, from, to, direction, &mut |index, value| {
                    found.push((index, value.to_vec()));
                    if found.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .expect("the model cannot fail");
                let mut wanted: Vec<_> = (from..to).zip(wanted.iter().cloned()).collect();
                if direction == Direction::Backward {
                    wanted.reverse();
                }
                wanted.truncate(most);
                assert_eq!(found, wanted, "{context}");
            }
        }
        seen.check(&settings);
    }
}

/// One change of a list and of its model, and a look at one element.
fn change(list: &mut List, rows: &mut Model, model: &mut Vec<Vec<u8>>, random: &mut Random, context: &str) {
    let value = if random.one_in(3) { word(random) } else { random.below(4).to_string().into_bytes() };
    let len = model.len() as u64;
    match random.below(12) {
        0..=2 => {
            list.push(rows, End::Right, &value).expect("the model cannot fail");
            model.push(value);
        }
        3..=4 => {
            list.push(rows, End::Left, &value).expect("the model cannot fail");
            model.insert(0, value);
        }
        5 => assert_eq!(list.pop(rows, End::Right).expect("the model cannot fail").as_deref(), model.pop().as_deref()),
        6 => {
            let wanted = (!model.is_empty()).then(|| model.remove(0));
            assert_eq!(list.pop(rows, End::Left).expect("the model cannot fail").as_deref(), wanted.as_deref());
        }
        7 | 8 => {
            let index = random.below(len + 1);
            list.insert(rows, index, &value).expect("the model cannot fail");
            model.insert(index as usize, value);
        }
        9 if len > 0 => {
            let index = random.below(len);
            list.set(rows, index, &value).expect("the model cannot fail");
            model[index as usize] = value;
        }
        10 => {
            let count = random.below(5) as i64 - 2;
            let before = model.len();
            let mut left = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
            let mut keep = |element: &Vec<u8>| {
                let gone = *element == value && left > 0;
                left -= usize::from(gone);
                !gone
            };
            if count < 0 {
                model.reverse();
            }
            model.retain(&mut keep);
            if count < 0 {
                model.reverse();
            }
            let gone = list.remove(rows, count, &value).expect("the model cannot fail");
            assert_eq!(gone as usize, before - model.len(), "{context}");
        }
        11 if len > 8 || random.one_in(5) => {
            let from = random.below(4).min(len);
            let to = if random.one_in(8) { from } else { len.saturating_sub(random.below(3)).max(from) };
            list.trim(rows, from, to).expect("the model cannot fail");
            *model = model[from as usize..to as usize].to_vec();
        }
        _ => {}
    }
    assert_eq!(list.len(), model.len() as u64, "{context}");
    if let Some(index) = random.next_u64().checked_rem(model.len() as u64) {
        assert_eq!(*list.get(rows, index).expect("the model cannot fail"), model[index as usize][..], "{context}");
    }
}

#[test]
fn a_set_of_integers_may_be_larger() {
    let mut rows = Model::new(1);
    let at = At::new(&rows, 0, b"k", 0).within(limits(3, 64, 999));
    let mut set = Set::open_or_create(&rows, &at).expect("the model cannot fail");
    for n in 0..6 {
        set.insert(&mut rows, n.to_string().as_bytes()).expect("the model cannot fail");
    }
    assert!(set.clone().save(&mut rows, &at));
    assert_eq!(row(&rows, &at, Space::Member).expect("it is there").encoding(), Encoding::Packed);
    for member in [&b"6"[..], b"x"] {
        let mut grown = rows.clone();
        let mut set = Set::open_or_create(&grown, &at).expect("the model cannot fail");
        if member == b"x" {
            set.remove(&mut grown, b"0").expect("the model cannot fail");
        }
        set.insert(&mut grown, member).expect("the model cannot fail");
        assert!(set.save(&mut grown, &at));
        assert_eq!(row(&grown, &at, Space::Member).expect("it is there").encoding(), Encoding::Rows, "{member:?}");
    }
}

/// A value of each type of these items, built by a [`ValueBuilder`] at the key.
fn built(rows: &mut Model, at: &At<'_>, kind: Kind, count: u64, expiry: Option<UnixMs>) {
    let old = keyspace::lookup_raw(rows, at).expect("the model cannot fail");
    let mut builder = ValueBuilder::new(kind, old, at.limits);
    for n in 0..count {
        let (name, value) = (format!("member {n}"), format!("{}", n * n));
        let item = match kind {
            Kind::Hash => Item::Field(name.as_bytes(), value.as_bytes()),
            Kind::SortedSet => Item::Scored(name.as_bytes(), -(n as f64)),
            Kind::String => Item::Piece(name.as_bytes()),
            Kind::List | Kind::Set => Item::Element(name.as_bytes()),
        };
        assert!(builder.add(rows, item).expect("the model cannot fail"));
    }
    assert!(builder.finish(rows, at, expiry).expect("the model cannot fail"));
}

const COLLECTIONS: [Kind; 4] = [Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];

#[test]
fn what_is_built_is_one_row_if_it_is_small_and_moves_as_it_is() {
    for kind in COLLECTIONS {
        let mut rows = Model::new(2);
        let at = At::new(&rows, 0, b"k", 0);
        let to = At::new(&rows, 1, b"other", 0);
        for (count, encoding) in [(20, Encoding::Packed), (2000, Encoding::Rows), (20, Encoding::Packed)] {
            built(&mut rows, &at, kind, count, Some(5000));
            let row = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it was built");
            assert_eq!((row.encoding(), row.size(), row.expiry()), (encoding, count, Some(5000)), "{kind:?}");
            let elements = rows.live_rows(Space::Member) + rows.live_rows(Space::Element);
            let one_each = encoding == Encoding::Rows && kind != Kind::List;
            assert!(elements as u64 == count || !one_each, "{kind:?}");
            assert_eq!(elements > 0, encoding == Encoding::Rows, "{kind:?}");
        }
        assert_eq!(rows.live_rows(Space::Score) + rows.live_rows(Space::Rank1), 0, "{kind:?}");
        let mut random = Random::new(1);
        let row = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it is there");
        let before = items(&rows, &row, &mut random);
        let drawn = rows.new_object();
        keyspace::copy(&mut rows, &row, &to, None).expect("the model cannot fail");
        keyspace::set_expiry(&mut rows, &at, &row, None);
        let row = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it is there");
        assert_eq!((row.expiry(), items(&rows, &row, &mut random)), (None, before.clone()), "{kind:?}");
        let target = keyspace::lookup(&rows, &to).expect("the model cannot fail");
        keyspace::relocate(&mut rows, &at, &row, &to, target.as_ref());
        let row = keyspace::lookup(&rows, &to).expect("the model cannot fail").expect("it was moved");
        assert_eq!(items(&rows, &row, &mut random), before, "{kind:?}");
        assert_eq!(rows.new_object(), ObjectId(drawn.0 + 1), "{kind:?}: no object was drawn");
        assert_eq!((rows.key_count(0), rows.key_count(1), rows.live_rows(Space::Expiry)), (0, 1, 0));
    }
}

#[test]
fn a_packed_value_keeps_its_expiry_when_it_grows() {
    for kind in COLLECTIONS {
        let mut rows = Model::new(1);
        let at = At::new(&rows, 0, b"k", 0);
        built(&mut rows, &at, kind, 3, Some(5000));
        let longer = vec![b'x'; usize::from(PACKED_MAX) + 1];
        let saved = match kind {
            Kind::List => {
                let mut list = List::open_or_create(&rows, &at).expect("the model cannot fail");
                list.push(&mut rows, End::Left, &longer).expect("the model cannot fail");
                list.save(&mut rows, &at)
            }
            Kind::Set => {
                let mut set = Set::open_or_create(&rows, &at).expect("the model cannot fail");
                set.insert(&mut rows, &longer).expect("the model cannot fail");
                set.save(&mut rows, &at)
            }
            Kind::SortedSet => {
                let mut set = ZSet::open_or_create(&rows, &at).expect("the model cannot fail");
                set.insert(&mut rows, &longer, 1.0).expect("the model cannot fail");
                set.save(&mut rows, &at)
            }
            Kind::Hash | Kind::String => {
                let mut hash = Hash::open_or_create(&rows, &at).expect("the model cannot fail");
                assert!(!hash.collection().is_fresh());
                hash.insert(&mut rows, b"member 1", &longer).expect("the model cannot fail");
                assert!(!hash.collection().is_fresh(), "it is still the same hash");
                hash.save(&mut rows, &at)
            }
        };
        assert!(saved);
        let row = keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it is there");
        assert_eq!((row.encoding(), row.expiry()), (Encoding::Rows, Some(5000)), "{kind:?}");
        assert_eq!(items(&rows, &row, &mut Random::new(1)).len() as u64, row.size(), "{kind:?}");
    }
}

/// Everything that reads and changes a value of this type, on a copy of `rows`. The first failure, if any.
fn use_it(rows: &Model, at: &At<'_>, kind: Kind) -> Result<(), TypeError> {
    let mut copy = rows.clone();
    let rows = &mut copy;
    let random = &mut Random::new(3);
    let row = keyspace::lookup(rows, at)?.ok_or(TypeError::WrongType)?;
    if row.kind() != kind {
        return Err(TypeError::WrongType);
    }
    let whole = each_item(rows, &row, &mut |_| ControlFlow::Continue(()));
    let mut walk = ItemWalk::new(&row);
    while walk.step(rows, 2, &mut |_| {})? {}
    // Each of these goes on from the row as it is; what fails in one must not keep the others from being tried.
    let mut results = vec![whole];
    match kind {
        Kind::Hash | Kind::String => {
            let hash = Hash::open(rows, at)?.ok_or(TypeError::WrongType)?;
            results.push(hash.collection().random(rows, random).map(drop));
            results.push(hash.collection().random_distinct(rows, 2, random).map(drop));
            results.push(hash.get(rows, b"member 2").map(drop));
            let long = [b'x'; 100];
            for (field, value) in [(&b"member 1"[..], &b"y"[..]), (b"new", b"z"), (b"member 2", &long)] {
                let mut hash = hash.clone();
                results.push(hash.insert(rows, field, value).map(drop));
            }
            for n in 0..4 {
                let mut hash = hash.clone();
                results.extend((0..=n).map(|m| hash.remove(rows, format!("member {m}").as_bytes()).map(drop)));
            }
        }
        Kind::Set => {
            let set = Set::open(rows, at)?.ok_or(TypeError::WrongType)?;
            results.push(set.collection().random(rows, random).map(drop));
            results.push(set.collection().random_distinct(rows, 2, random).map(drop));
            results.push(set.contains(rows, b"member 2").map(drop));
            for member in [&b"1"[..], &[b'x'; 100]] {
                results.push(set.clone().insert(rows, member).map(drop));
            }
            let mut set = set;
            results.extend((0..4).map(|n| set.remove(rows, format!("member {n}").as_bytes()).map(drop)));
        }
        Kind::List => {
            let list = List::open(rows, at)?.ok_or(TypeError::WrongType)?;
            results.push(list.get(rows, list.len() - 1).map(drop));
            results.push(list.values(rows, 0, list.len(), &mut |_| {}));
            results.push(list.range(rows, 0, list.len(), Direction::Backward, &mut |_, _| ControlFlow::Continue(())));
            results.push(list.clone().set(rows, list.len() - 1, b"y"));
            results.push(list.clone().insert(rows, list.len() / 2, b"y"));
            results.push(list.clone().push(rows, End::Right, &[b'x'; 9000]));
            results.push(list.clone().trim(rows, 1, list.len().max(2) - 1));
            results.push(list.clone().remove(rows, 0, b"member 1").map(drop));
            let mut list = list;
            results.push(list.push(rows, End::Left, b"y"));
            for end in [End::Left, End::Right, End::Left, End::Right] {
                results.push(list.pop(rows, end).map(drop));
            }
        }
        Kind::SortedSet => {
            let set = ZSet::open(rows, at)?.ok_or(TypeError::WrongType)?;
            results.push(set.random(rows, random).map(drop));
            results.push(set.rank(rows, b"member 1", true).map(drop));
            results.push(set.count(rows, &Span::all()).map(drop));
            results.push(set.by_rank(rows, 0, 9, true, &mut |_, _| ControlFlow::Continue(())));
            results.push(set.longest_member().map(drop));
            for (member, score) in [(&b"member 2"[..], 9.0), (b"new", -0.0), (&[b'x'; 100], 0.0)] {
                results.push(set.clone().insert(rows, member, score).map(drop));
            }
            results.push(set.clone().remove_ranks(rows, 1, 1).map(drop));
            results.push(set.clone().pop(rows, true, 2, &mut |_, _| {}));
            let mut set = set;
            results.extend((0..4).map(|n| set.remove(rows, format!("member {n}").as_bytes()).map(drop)));
        }
    }
    results.into_iter().collect()
}

#[test]
fn damaged_packed_rows_are_errors_and_no_panics() {
    let mut random = Random::new(seed());
    for kind in COLLECTIONS {
        let mut rows = Model::new(1);
        let at = At::new(&rows, 0, b"k", 0);
        built(&mut rows, &at, kind, 5, None);
        use_it(&rows, &at, kind).expect("it is whole");
        let whole = rows.get(at.row()).expect("the model cannot fail").expect("it is there").to_vec();
        let mut damaged = |bytes: &[u8]| {
            rows.put(at.row(), bytes);
            use_it(&rows, &at, kind)
        };
        for len in 0..whole.len() {
            assert!(damaged(&whole[..len]).is_err(), "{kind:?} of {len} bytes");
        }
        for more in [&b"\0"[..], b"\x01x", b"\x80", &[0xff; 20]] {
            assert!(damaged(&[&whole, more].concat()).is_err(), "{kind:?} with {more:?}");
        }
        for size in [0, 1, 4, 6, 1000, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[3..7].copy_from_slice(&size.to_le_bytes());
            assert!(damaged(&bytes).is_err(), "{kind:?} of {size}");
        }
        // Any other change: an error or another value, but no panic.
        for place in 0..whole.len() {
            for _ in 0..8 {
                let mut bytes = whole.clone();
                bytes[place] = random.below(256) as u8;
                let _ = damaged(&bytes);
            }
        }
    }
    let mut string = Vec::from([Kind::String as u8, Encoding::Packed as u8, 0]);
    string.extend_from_slice(b"\x01\0\0\0\x01a");
    assert!(KeyRow::parse(ardb_engine::Value::new(&string)).is_err(), "a string is never packed");
    let header = Header { kind: Kind::List, encoding: Encoding::Packed, expiry: Some(7), object: ObjectId(0), size: 3 };
    let mut rows = Model::new(1);
    let at = At::new(&rows, 0, b"k", 0);
    keyspace::put(&mut rows, &at, None, &header, b"\x01a\x01b\x01c");
    let bytes = rows.get(at.row()).expect("the model cannot fail").expect("it is there");
    assert_eq!(*bytes, *b"\x01\x02\x01\x07\0\0\0\0\0\0\0\x03\0\0\0\x01a\x01b\x01c");
    assert_eq!(keyspace::lookup(&rows, &at).expect("the model cannot fail").expect("it is there").header(), header);
}
