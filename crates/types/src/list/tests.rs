//! Lists in rows against a double-ended queue, with every invariant checked after each step; and what damaged rows do.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::{Direction, RowKey, Rows, RowsMut, Space};

use super::{End, List};
use crate::limits::{Limit, Limits};
use crate::model::Model;
use crate::value::{Item, ItemWalk, ValueBuilder, each_item};
use crate::{At, Encoding, Kind, TypeError, keyspace};

fn seed() -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn at(limits: Limits) -> At<'static> {
    At::new(&Model::new(1), 0, b"k", 1000).within(limits)
}

/// The list at the key, in rows.
fn list(rows: &Model, limits: Limits) -> List {
    List::open_or_create(rows, &at(limits)).expect("the model cannot fail")
}

/// What elements are like.
#[derive(Clone, Copy, Debug)]
enum Like {
    /// Short, the empty one too; the longest chunks.
    Short,
    /// About as long as is held in a chunk at most, of any number of elements.
    Border,
    /// All of that, and very long ones.
    Mixed,
}

fn element(random: &mut Random, like: Like) -> Vec<u8> {
    let len = match (like, random.below(8)) {
        (Like::Short, 0) | (_, 3) => 0,
        (Like::Short, _) | (_, 0..=2) => return random.below(12).to_string().into_bytes(),
        (Like::Border, _) => [127, 128, 129, 585, 1023, 1024, 1025][random.below(7) as usize],
        (Like::Mixed, 4) => 5000 + random.below(20_000) as usize,
        (Like::Mixed, _) => random.below(300) as usize,
    };
    // Few different ones, so that LREM finds some.
    vec![b'a' + random.below(2) as u8; len]
}

/// One change of a list and of its model; what it was.
fn change(list: &mut List, rows: &mut Model, model: &mut VecDeque<Vec<u8>>, random: &mut Random, like: Like) -> String {
    let len = model.len() as u64;
    let value = element(random, like);
    let end = if random.one_in(2) { End::Left } else { End::Right };
    match random.below(14) {
        0..=2 => {
            let times = [1, 1, 7, 33][random.below(4) as usize];
            for _ in 0..times {
                list.push(rows, end, &value).expect("the model cannot fail");
                match end {
                    End::Left => model.push_front(value.clone()),
                    End::Right => model.push_back(value.clone()),
                }
            }
            format!("push {times} of {} {end:?}", value.len())
        }
        3..=5 => {
            let times = [1, 1, 5, 20][random.below(4) as usize];
            for _ in 0..times {
                let wanted = if end == End::Left { model.pop_front() } else { model.pop_back() };
                let found = list.pop(rows, end).expect("the model cannot fail");
                assert_eq!(found.as_deref(), wanted.as_deref());
            }
            format!("pop {times} {end:?}")
        }
        6 | 7 => {
            let index = random.below(len + 1);
            list.insert(rows, index, &value).expect("the model cannot fail");
            model.insert(index as usize, value);
            format!("insert at {index}")
        }
        8 | 9 if len > 0 => {
            let index = random.below(len);
            list.set(rows, index, &value).expect("the model cannot fail");
            model[index as usize] = value;
            format!("set at {index}")
        }
        10 | 11 => {
            let value = if len > 0 && random.one_in(2) { model[random.below(len) as usize].clone() } else { value };
            let count = random.below(9) as i64 - 4;
            let count = if count == 0 && !random.one_in(4) { 1 } else { count };
            let hits: Vec<usize> = (0..model.len()).filter(|index| model[*index] == value).collect();
            let most = if count == 0 { hits.len() } else { hits.len().min(count.unsigned_abs() as usize) };
            let gone = if count < 0 { &hits[hits.len() - most..] } else { &hits[..most] };
            for index in gone.iter().rev() {
                model.remove(*index);
            }
            assert_eq!(list.remove(rows, count, &value).expect("the model cannot fail"), most as u64);
            format!("remove {count}")
        }
        12 if len > 0 => {
            let most = if random.one_in(4) { len } else { len.min(10) };
            let from = random.below(most);
            let to = if random.one_in(40) { from } else { len - random.below(most).min(len - from) };
            list.trim(rows, from, to).expect("the model cannot fail");
            model.truncate(to as usize);
            model.drain(..from as usize);
            format!("trim {from}..{to}")
        }
        _ => String::new(),
    }
}

/// Reads all and parts of the list in every way.
fn reads(list: &List, rows: &Model, model: &VecDeque<Vec<u8>>, random: &mut Random, context: &str) {
    let len = model.len() as u64;
    let mut ranges = vec![(0, len)];
    if len > 0 {
        let from = random.below(len);
        ranges.push((from, from + random.below(len - from + 1)));
        let index = random.below(len);
        assert_eq!(*list.get(rows, index).expect("it is there"), model[index as usize][..], "{context}");
    }
    for (from, to) in ranges {
        let wanted: Vec<(u64, &[u8])> = (from..to).map(|index| (index, &model[index as usize][..])).collect();
        let mut values = wanted.iter();
        list.values(rows, from, to, &mut |value| {
            assert_eq!(values.next().map(|(_, value)| *value), Some(value), "{context}");
        })
        .expect("it can be read");
        assert_eq!(values.len(), 0, "{context}");
        for direction in [Direction::Forward, Direction::Backward] {
            let most = if random.one_in(2) { usize::MAX } else { random.below(70) as usize + 1 };
            let mut wanted = wanted.clone();
            if direction == Direction::Backward {
                wanted.reverse();
            }
            wanted.truncate(most);
            let mut seen = 0;
            list.range(rows, from, to, direction, &mut |index, value| {
                assert_eq!(wanted.get(seen), Some(&(index, value)), "{context}");
                seen += 1;
                if seen == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .expect("it can be read");
            assert_eq!(seen, wanted.len(), "{context}");
        }
    }
}

/// Random changes of lists that begin with this many elements.
fn behaves_like_a_queue(like: Like, start: usize, limits: Limits) {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut rows = Model::new(1);
    let mut model: VecDeque<Vec<u8>> = VecDeque::new();
    for step in 0..250 {
        let mut list = list(&rows, limits);
        let mut done = Vec::new();
        if model.is_empty() {
            for _ in 0..start {
                let value = element(&mut random, like);
                list.push(&mut rows, End::Right, &value).expect("the model cannot fail");
                model.push_back(value);
            }
        }
        for _ in 0..=random.below(3) {
            done.push(change(&mut list, &mut rows, &mut model, &mut random, like));
        }
        let context = format!("seed {seed}, step {step}, {like:?} from {start}: {done:?}");
        reads(&list, &rows, &model, &mut random, &context);
        assert_eq!(list.save(&mut rows, &at(limits)), !model.is_empty(), "{context}");
        let list = self::list(&rows, limits);
        assert!(list.check(&rows).iter().eq(&model), "{context}");
        reads(&list, &rows, &model, &mut random, &context);
        if random.one_in(20) {
            copies(&rows, &model, &context);
        }
    }
    if let Some(row) = keyspace::lookup(&rows, &at(limits)).expect("the model cannot fail") {
        keyspace::delete(&mut rows, &at(limits), &row);
    }
    assert_eq!(rows.live_rows(Space::Element), 0);
}

/// A copy, and what is built of the items that walks give, are the same list.
fn copies(rows: &Model, model: &VecDeque<Vec<u8>>, context: &str) {
    let mut rows = rows.clone();
    let from = at(Limits::NEVER);
    let Some(row) = keyspace::lookup(&rows, &from).expect("the model cannot fail") else { return };
    let to = At { key: b"copy", hash: 7, ..from };
    keyspace::copy(&mut rows, &row, &to, None).expect("the model cannot fail");
    keyspace::delete(&mut rows, &from, &row);
    let row = keyspace::lookup(&rows, &to).expect("the model cannot fail").expect("it was copied");
    let copy = List::of_row(row.clone()).expect("it parses");
    assert!(copy.check(&rows).iter().eq(model), "{context}");
    let mut built = ValueBuilder::new(Kind::List, None, Limits::NEVER);
    let mut walk = ItemWalk::new(&row);
    loop {
        let mut some = Vec::new();
        let more = walk.step(&rows, 10, &mut |item| {
            if let Item::Element(element) = item {
                some.push(element.to_vec());
            }
        });
        for element in some {
            assert!(built.add(&mut rows, Item::Element(&element)).expect("the model cannot fail"));
        }
        if !more.expect("it can be read") {
            break;
        }
    }
    assert!(built.finish(&mut rows, &from, None).expect("the model cannot fail"));
    assert!(list(&rows, Limits::NEVER).check(&rows).iter().eq(model), "{context}");
}

#[test]
fn lists_in_rows_behave_like_queues() {
    for like in [Like::Short, Like::Border, Like::Mixed] {
        for start in [0, 1, 3, 31, 32, 33, 63, 64, 65, 300] {
            behaves_like_a_queue(like, start, Limits::NEVER);
        }
        behaves_like_a_queue(like, 100, Limits::default());
        let limit = Limit { elements: 70, longest: 200, bytes: 900 };
        behaves_like_a_queue(like, 60, Limits { list: limit, ..Limits::NEVER });
    }
}

#[test]
fn a_stack_and_a_queue_write_few_rows() {
    let mut rows = Model::new(1);
    let mut list = list(&rows, Limits::NEVER);
    for n in 0..1000 {
        list.push(&mut rows, End::Right, format!("{n}").as_bytes()).expect("the model cannot fail");
    }
    assert!(rows.live_rows(Space::Element) <= 1000 / 32);
    // At the border of a chunk nothing is written in either direction.
    for _ in 0..31 {
        list.pop(&mut rows, End::Right).expect("the model cannot fail");
    }
    let chunks = rows.live_rows(Space::Element);
    for n in 0..500 {
        list.push(&mut rows, End::Right, b"x").expect("the model cannot fail");
        list.pop(&mut rows, if n % 50 == 0 { End::Left } else { End::Right }).expect("the model cannot fail");
        assert!(rows.live_rows(Space::Element) + 1 >= chunks, "{n}");
    }
}

#[test]
fn the_elements_of_a_chunk_suit_their_length() {
    for (len, k) in [(0, 32), (3, 32), (31, 32), (100, 10), (300, 4), (1024, 4), (9000, 32)] {
        let mut rows = Model::new(1);
        let mut list = list(&rows, Limits::NEVER);
        for _ in 0..100 {
            list.push(&mut rows, End::Left, &vec![b'x'; len]).expect("the model cannot fail");
        }
        assert_eq!(list.chunks.as_ref().map(|chunks| chunks.k), Some(k), "{len}");
        assert!(list.save(&mut rows, &at(Limits::NEVER)));
        assert_eq!(self::list(&rows, Limits::NEVER).check(&rows).len(), 100);
    }
}

#[test]
fn the_format_is_what_the_documents_say() {
    let mut rows = Model::new(1);
    let limits = Limits::NEVER;
    let mut list = list(&rows, limits);
    let long = [b'x'; 1025];
    for element in [&[b'a'; 300][..], b"b", b"c", &long, b"d", b"e", b"f", b""] {
        list.push(&mut rows, End::Right, element).expect("the model cannot fail");
    }
    list.push(&mut rows, End::Left, b"z").expect("the model cannot fail");
    let object = list.chunks.as_ref().expect("it is in rows").object;
    assert!(list.save(&mut rows, &at(limits)));
    let row = rows.get(at(limits).row()).expect("the model cannot fail").expect("it is there");
    let mut wanted = vec![1, 1, 0];
    wanted.extend_from_slice(&object.0.to_le_bytes());
    wanted.extend_from_slice(&9u64.to_le_bytes());
    // Four elements a chunk, one in front, four behind, two bytes of the front.
    wanted.extend_from_slice(b"\x04\0\x01\0\x04\0\x02\0");
    for number in [0u64, 1, 1] {
        wanted.extend_from_slice(&number.to_le_bytes());
    }
    wanted.extend_from_slice(b"\x01z\0\x01f\x01e\x01d");
    assert_eq!(*row, wanted[..]);
    let get = |order| rows.get(RowKey::new(Space::Element, object.0, order, b"")).expect("the model cannot fail");
    let chunk = [&b"\xac\x02"[..], &[b'a'; 300], b"\x01b\x01c\xff\x7f\0\0\0\0\0\0\0\0"].concat();
    assert_eq!(get(1 << 63).as_deref(), Some(&chunk[..]));
    assert_eq!(get(0).as_deref(), Some(&long[..]));
    assert_eq!(rows.live_rows(Space::Element), 2);
}

/// Everything that reads and changes a list, on a copy of `rows`. The first failure, if any.
fn use_it(rows: &Model) -> Result<(), TypeError> {
    let rows = &mut rows.clone();
    let at = at(Limits::NEVER);
    let row = keyspace::lookup(rows, &at)?.ok_or(TypeError::WrongType)?;
    if (row.kind(), row.encoding()) != (Kind::List, Encoding::Rows) {
        return Err(TypeError::WrongType);
    }
    let mut results = vec![each_item(rows, &row, &mut |_| ControlFlow::Continue(()))];
    let list = List::open(rows, &at)?.ok_or(TypeError::WrongType)?;
    let len = list.len();
    for index in [0, len / 3, len / 2, len - 1] {
        results.push(list.get(rows, index).map(drop));
        for value in [&b"y"[..], &[b'y'; 3000]] {
            results.push(list.clone().set(&mut rows.clone(), index, value));
            results.push(list.clone().insert(&mut rows.clone(), index, value));
        }
    }
    results.push(list.range(rows, 0, len, Direction::Backward, &mut |_, _| ControlFlow::Continue(())));
    for count in [0, 1, -1] {
        for value in [&b"3"[..], &[b'3'; 2000]] {
            results.push(list.clone().remove(&mut rows.clone(), count, value).map(drop));
        }
    }
    for (from, to) in [(0, 3), (len.max(4) - 3, len), (len / 2, len / 2 + 1), (1, len)] {
        results.push(list.clone().trim(&mut rows.clone(), from, to));
    }
    for end in [End::Left, End::Right] {
        let (mut list, rows) = (list.clone(), &mut rows.clone());
        for _ in 0..70 {
            results.push(list.push(rows, end, b"pushed"));
        }
        for _ in 0..len.min(100) {
            results.push(list.pop(rows, end).map(drop));
        }
    }
    results.into_iter().collect()
}

/// Not for changes of a row that make a model complain of the deletion of rows that do not exist: those are looked for first.
#[test]
fn damaged_rows_are_errors_and_no_panics() {
    let mut random = Random::new(seed());
    let mut rows = Model::new(1);
    let mut list = list(&rows, Limits::NEVER);
    for n in 0..20u8 {
        let value = if n % 3 == 0 { vec![b'0' + n % 10; 2000] } else { vec![b'0' + n % 10; usize::from(n) * 9] };
        list.push(&mut rows, if n < 8 { End::Left } else { End::Right }, &value).expect("the model cannot fail");
    }
    let object = list.chunks.as_ref().expect("it is in rows").object;
    assert!(list.save(&mut rows, &at(Limits::NEVER)));
    use_it(&rows).expect("it is whole");
    let key = at(Limits::NEVER).row();
    let mut names = vec![(key, true)];
    for number in 0..100u64 {
        for order in [number, (1u64 << 63).wrapping_add(number).wrapping_sub(50)] {
            let name = RowKey::new(Space::Element, object.0, order, b"");
            if rows.get(name).expect("the model cannot fail").is_some() {
                names.push((name, order > 1 << 62));
            }
        }
    }
    assert!(names.len() > 8);
    for (name, is_parsed) in names {
        let whole = rows.get(name).expect("the model cannot fail").expect("it is there").to_vec();
        let mut damaged = rows.clone();
        damaged.delete(name);
        assert!(use_it(&damaged).is_err(), "without {name:?}");
        if !is_parsed {
            continue;
        }
        for len in (0..whole.len()).filter(|len| len % 7 == 0 || *len < 80 || len + 20 > whole.len()) {
            damaged.put(name, &whole[..len]);
            assert!(use_it(&damaged).is_err(), "{name:?} of {len} bytes");
        }
        for more in [&b"\0"[..], b"\x01x", b"\x80", &[0xff; 20]] {
            damaged.put(name, &[&whole, more].concat());
            assert!(use_it(&damaged).is_err(), "{name:?} with {more:?}");
        }
        for place in (0..whole.len()).filter(|place| *place < 100 || random.one_in(20)).collect::<Vec<_>>() {
            for _ in 0..8 {
                let mut bytes = whole.clone();
                bytes[place] = random.below(256) as u8;
                damaged.put(name, &bytes);
                let _ = use_it(&damaged);
            }
        }
    }
}
