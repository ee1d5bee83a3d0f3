//! The tests that every engine must pass, over a factory that opens it.
//!
//! An adapter's tests call [`conformance_tests!`](crate::conformance_tests) with a function that makes a [`Home`]; each check
//! below becomes a test of its own. Checks panic when the engine is wrong, as tests do, and name the seed if chance had a
//! part; `ARDB_SEED` replays it. What a killed process leaves behind is checked by [`crash_step`] and [`crash_check`],
//! which an adapter with files drives from a child process.

#![allow(clippy::disallowed_methods, reason = "the suite takes its seed from the environment")]

mod model;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ardb_base::random::Random;

use crate::{Change, ChangeSource, Engine, EngineError, Snapshot, Value};
pub use model::{Model, random_check};

/// A place where one engine lives.
pub trait Home {
    /// Opens the engine, with all that was committed here before. The engine opened before and its snapshots are gone by then.
    fn open(&self) -> Arc<dyn Engine>;
}

/// Owned changes as a source. Sorts them; of several with the same key the last one counts.
pub struct Changes {
    rows: std::vec::IntoIter<(Vec<u8>, Option<Vec<u8>>)>,
    now: (Vec<u8>, Option<Vec<u8>>),
}

impl Changes {
    /// A source of these rows.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> Changes {
        let sorted: std::collections::BTreeMap<_, _> = rows.into_iter().collect();
        Changes { rows: sorted.into_iter().collect::<Vec<_>>().into_iter(), now: Default::default() }
    }

    /// A source of these rows, all written.
    #[must_use]
    pub fn puts<K: Into<Vec<u8>>, V: Into<Vec<u8>>>(rows: impl IntoIterator<Item = (K, V)>) -> Changes {
        Changes::new(rows.into_iter().map(|(key, value)| (key.into(), Some(value.into()))))
    }

    /// A source of deletions.
    #[must_use]
    pub fn deletes<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Changes {
        Changes::new(keys.into_iter().map(|key| (key.into(), None)))
    }
}

impl ChangeSource for Changes {
    fn next_change(&mut self) -> Option<Change<'_>> {
        self.now = self.rows.next()?;
        Some((&self.now.0, self.now.1.as_deref()))
    }
}

/// Makes one `#[test]` of each check; `$home` is called for a fresh, empty [`Home`] every time.
#[macro_export]
macro_rules! conformance_tests {
    ($home:expr) => {
        $crate::conformance_tests!(@each $home;
            rows_are_written_and_deleted, cursors_stop_at_every_edge, random_commits_match_a_model, ranges_go_before_rows,
            snapshots_stay_as_they_were, restarts_keep_what_was_committed, values_of_all_sizes, readers_see_whole_commits,
            many_rows_are_read_as_one_by_one);
    };
    (@each $home:expr; $($check:ident),+) => {
        $(
            #[test]
            fn $check() {
                $crate::conformance::$check(&$home());
            }
        )+
    };
}

/// The seed of a random check: `ARDB_SEED`, or else fixed, so that a failure in CI is one on every machine.
#[must_use]
pub fn seed(default: u64) -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn ok<T>(result: Result<T, EngineError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn write(engine: &dyn Engine, ranges: &[(&str, &str)], mut rows: Changes) {
    let ranges: Vec<Range<Vec<u8>>> = ranges.iter().map(|(from, to)| (*from).into()..(*to).into()).collect();
    ok(engine.commit(&ranges, &mut rows));
}

fn get(snapshot: &dyn Snapshot, key: &str) -> Option<String> {
    ok(snapshot.get(key.as_bytes())).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// All keys in `from..to`, forwards; and the same backwards, which must agree.
fn keys(snapshot: &dyn Snapshot, from: &str, to: &str) -> Vec<String> {
    let mut cursor = snapshot.cursor(from.as_bytes()..to.as_bytes());
    let mut forward = Vec::new();
    ok(cursor.seek(b""));
    while let Some((key, _)) = cursor.row() {
        forward.push(String::from_utf8_lossy(key).into_owned());
        ok(cursor.next());
    }
    let mut backward = Vec::new();
    ok(cursor.seek_back(&[255; 40]));
    while let Some((key, _)) = cursor.row() {
        backward.push(String::from_utf8_lossy(key).into_owned());
        ok(cursor.prev());
    }
    backward.reverse();
    assert_eq!(forward, backward, "the two directions of a cursor");
    forward
}

/// Point reads after puts, overwrites and deletions; empty commits; deletions of nothing.
pub fn rows_are_written_and_deleted(home: &dyn Home) {
    let engine = home.open();
    assert_eq!(get(&*engine.snapshot(), "a"), None);
    write(&*engine, &[], Changes::puts([("a", "1"), ("b", "2"), ("empty", ""), ("c", "3")]));
    let snapshot = engine.snapshot();
    assert_eq!(get(&*snapshot, "a").as_deref(), Some("1"));
    assert_eq!(get(&*snapshot, "b").as_deref(), Some("2"));
    assert_eq!(get(&*snapshot, "empty").as_deref(), Some(""));
    for absent in ["", "aa", "0", "d", "emptyy"] {
        assert_eq!(get(&*snapshot, absent), None, "{absent:?}");
    }
    let mixed = [("a", None), ("absent", None), ("b", Some("two")), ("d", Some("4"))];
    write(&*engine, &[], Changes::new(mixed.map(|(key, value)| (key.into(), value.map(Into::into)))));
    assert_eq!(get(&*engine.snapshot(), "a"), None);
    assert_eq!(get(&*engine.snapshot(), "b").as_deref(), Some("two"));
    assert_eq!(keys(&*engine.snapshot(), "", "zz"), ["b", "c", "d", "empty"]);
    // Commits of nothing: no rows, no ranges, ranges that hold no key.
    write(&*engine, &[], Changes::puts::<&str, &str>([]));
    write(&*engine, &[("b", "b"), ("z", "a")], Changes::puts::<&str, &str>([]));
    assert_eq!(keys(&*engine.snapshot(), "", "zz"), ["b", "c", "d", "empty"]);
    write(&*engine, &[], Changes::deletes(["b", "c", "d", "empty"]));
    assert_eq!(keys(&*engine.snapshot(), "", "zz"), Vec::<String>::new());
    write(&*engine, &[], Changes::puts([("b", "again")]));
    assert_eq!(get(&*engine.snapshot(), "b").as_deref(), Some("again"));
}

/// Seeks and moves at, before and past the first and last row of a cursor's range.
pub fn cursors_stop_at_every_edge(home: &dyn Home) {
    let engine = home.open();
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.cursor(b""..b"z");
    assert!(cursor.row().is_none());
    ok(cursor.seek(b"a"));
    assert!(cursor.row().is_none(), "a row in an empty engine");
    ok(cursor.seek_back(b"z"));
    assert!(cursor.row().is_none(), "a row in an empty engine");
    drop(cursor);

    write(&*engine, &[], Changes::puts(["b", "d", "f", "h", "j"].map(|key| (key, key.to_uppercase()))));
    let snapshot = engine.snapshot();
    // (range, key, the first row at or after the key, the last row at or before it)
    let cases = [
        ("a", "z", "a", Some("b"), None),
        ("a", "z", "b", Some("b"), Some("b")),
        ("a", "z", "c", Some("d"), Some("b")),
        ("a", "z", "j", Some("j"), Some("j")),
        ("a", "z", "k", None, Some("j")),
        ("", "\u{7f}", "", Some("b"), None),
        ("d", "h", "", Some("d"), None),
        ("d", "h", "a", Some("d"), None),
        ("d", "h", "d", Some("d"), Some("d")),
        ("d", "h", "e", Some("f"), Some("d")),
        ("d", "h", "g", None, Some("f")),
        ("d", "h", "h", None, Some("f")),
        ("d", "h", "zz", None, Some("f")),
        ("c", "hh", "c", Some("d"), None),
        ("c", "hh", "hh", None, Some("h")),
        ("c", "hh", "h", Some("h"), Some("h")),
        ("e", "f", "e", None, None),
        ("e", "f", "f", None, None),
        ("f", "f", "f", None, None),
        ("h", "d", "f", None, None),
        ("k", "z", "a", None, None),
        ("k", "z", "z", None, None),
        ("", "b", "", None, None),
        ("", "b", "z", None, None),
    ];
    for (from, to, key, after, before) in cases {
        let mut cursor = snapshot.cursor(from.as_bytes()..to.as_bytes());
        assert!(cursor.row().is_none(), "a cursor stands nowhere until a seek");
        for _ in 0..2 {
            ok(cursor.seek(key.as_bytes()));
            assert_eq!(cursor.row().map(|row| row.0), after.map(str::as_bytes), "seek {key:?} in {from:?}..{to:?}");
            ok(cursor.seek_back(key.as_bytes()));
            assert_eq!(cursor.row().map(|row| row.0), before.map(str::as_bytes), "back {key:?} in {from:?}..{to:?}");
        }
    }
    let mut cursor = snapshot.cursor(b"c"..b"j");
    ok(cursor.seek(b"d"));
    ok(cursor.prev());
    assert!(cursor.row().is_none(), "before the first row of the range");
    ok(cursor.seek(b"h"));
    assert_eq!(cursor.row(), Some((&b"h"[..], &b"H"[..])));
    ok(cursor.next());
    assert!(cursor.row().is_none(), "past the last row of the range");
    // Turning round in the middle.
    ok(cursor.seek(b"d"));
    ok(cursor.next());
    assert_eq!(cursor.row(), Some((&b"f"[..], &b"F"[..])));
    ok(cursor.prev());
    assert_eq!(cursor.row(), Some((&b"d"[..], &b"D"[..])));
    ok(cursor.next());
    ok(cursor.next());
    assert_eq!(cursor.row(), Some((&b"h"[..], &b"H"[..])));
    ok(cursor.prev());
    assert_eq!(cursor.row(), Some((&b"f"[..], &b"F"[..])));
}

/// Seeded random commits, reads and walks against a map, with several snapshots held and restarts in between.
pub fn random_commits_match_a_model(home: &dyn Home) {
    random_check(home, seed(20_261_122), 60);
}

/// Ranges delete what was there before the commit, and nothing that it writes itself.
pub fn ranges_go_before_rows(home: &dyn Home) {
    let engine = home.open();
    let rows = |from: u32, to: u32| (from..to).map(|n| (format!("k{n:04}"), format!("v{n}"))).collect::<Vec<_>>();
    write(&*engine, &[], Changes::puts(rows(0, 1000)));
    write(&*engine, &[("k0100", "k0200")], Changes::puts([("k0150", "stays"), ("k0100", "first"), ("k0199", "last")]));
    let snapshot = engine.snapshot();
    assert_eq!(keys(&*snapshot, "k0099", "k0201"), ["k0099", "k0100", "k0150", "k0199", "k0200"]);
    assert_eq!(get(&*snapshot, "k0150").as_deref(), Some("stays"));
    assert_eq!(get(&*snapshot, "k0120"), None);
    drop(snapshot);
    // A range without rows, overlapping ranges out of order, rows on both sides of them, and a deletion inside one.
    write(&*engine, &[("k0150", "k0160")], Changes::puts::<&str, &str>([]));
    assert_eq!(keys(&*engine.snapshot(), "k0099", "k0201"), ["k0099", "k0100", "k0199", "k0200"]);
    let mixed = [("k0299", Some("before")), ("k0350", Some("inside")), ("k0360", None), ("k0401", Some("after"))];
    write(
        &*engine,
        &[("k0390", "k0400"), ("k0300", "k0395"), ("k0310", "k0320")],
        Changes::new(mixed.map(|(key, value)| (key.into(), value.map(Into::into)))),
    );
    assert_eq!(keys(&*engine.snapshot(), "k0299", "k0402"), ["k0299", "k0350", "k0400", "k0401"]);
    // Everything goes, and comes back in the same step.
    write(&*engine, &[("", "l")], Changes::puts(rows(500, 600)));
    let snapshot = engine.snapshot();
    assert_eq!(keys(&*snapshot, "", "z").len(), 100);
    assert_eq!(get(&*snapshot, "k0555").as_deref(), Some("v555"));
    drop((snapshot, engine));
    let engine = home.open();
    assert_eq!(keys(&*engine.snapshot(), "", "z").len(), 100, "after a restart");
}

/// A snapshot is unmoved by later commits and ranges, and outlives the engine's own handle.
pub fn snapshots_stay_as_they_were(home: &dyn Home) {
    let engine = home.open();
    let empty = engine.snapshot();
    write(&*engine, &[], Changes::puts((0..500).map(|n| (format!("k{n:03}"), "one"))));
    let one = engine.snapshot();
    let mut cursor = one.cursor(b"k"..b"l");
    ok(cursor.seek(b"k100"));
    write(&*engine, &[], Changes::puts((0..500).map(|n| (format!("k{n:03}"), "two"))));
    let two = engine.snapshot();
    write(&*engine, &[("k", "l")], Changes::puts([("m", "three")]));
    let three = engine.snapshot();
    assert_eq!(keys(&*empty, "", "z"), Vec::<String>::new());
    assert_eq!(keys(&*one, "", "z").len(), 500);
    assert_eq!(keys(&*two, "", "z").len(), 500);
    assert_eq!(keys(&*three, "", "z"), ["m"]);
    for (snapshot, value) in [(&empty, None), (&one, Some("one")), (&two, Some("two")), (&three, None)] {
        assert_eq!(get(&**snapshot, "k123").as_deref(), value);
    }
    for n in 100..500 {
        let key = format!("k{n:03}");
        assert_eq!(cursor.row(), Some((key.as_bytes(), &b"one"[..])), "a cursor opened before the commits");
        ok(cursor.next());
    }
    assert!(cursor.row().is_none());
    drop(cursor);
    drop(engine);
    assert_eq!(get(&*two, "k499").as_deref(), Some("two"), "after the engine's handle was dropped");
}

/// What a finished commit wrote is there after a restart, again and again.
pub fn restarts_keep_what_was_committed(home: &dyn Home) {
    for round in 0..5u32 {
        let engine = home.open();
        let snapshot = engine.snapshot();
        assert_eq!(get(&*snapshot, "round"), round.checked_sub(1).map(|last| last.to_string()));
        for past in 0..round {
            assert_eq!(get(&*snapshot, &format!("kept {past}")).as_deref(), Some("x"));
            assert_eq!(get(&*snapshot, &format!("dropped {past}")), None);
        }
        drop(snapshot);
        let rows = [format!("kept {round}"), format!("dropped {round}")].map(|key| (key, "x".to_owned()));
        write(&*engine, &[], Changes::puts(rows));
        let last = Changes::puts([("round", round.to_string())]);
        write(&*engine, &[(&format!("dropped {round}"), &format!("dropped {round}x"))], last);
    }
}

/// Values from nothing to several megabytes come back as they went in, by reads and by cursors, also after a restart.
pub fn values_of_all_sizes(home: &dyn Home) {
    let mut random = Random::new(1);
    let sizes = [0, 1, 100, 4_095, 16_384, 65_537, 1_000_000, 9_000_001];
    let rows: Vec<(Vec<u8>, Vec<u8>)> = sizes
        .iter()
        .map(|&size| {
            let mut value = vec![0; size];
            random.fill(&mut value);
            (format!("{size:010}").into_bytes(), value)
        })
        .collect();
    let long_key = vec![b'~'; 70_000];
    let check = |engine: &dyn Engine| {
        let snapshot = engine.snapshot();
        for (key, value) in &rows {
            let found = ok(snapshot.get(key)).unwrap_or_else(|| panic!("a value of {} bytes is gone", value.len()));
            assert!(found[..] == value[..], "a value of {} bytes changed", value.len());
        }
        assert_eq!(ok(snapshot.get(&long_key)).as_deref(), Some(&b"long"[..]));
        let mut cursor = snapshot.cursor(b""..b"\xff");
        ok(cursor.seek(b""));
        for (key, value) in &rows {
            assert!(cursor.row() == Some((&key[..], &value[..])), "a cursor at {} bytes", value.len());
            ok(cursor.next());
        }
        assert_eq!(cursor.row(), Some((&long_key[..], &b"long"[..])));
    };
    let engine = home.open();
    ok(engine.commit(&[], &mut Changes::puts(rows.clone().into_iter().chain([(long_key.clone(), b"long".to_vec())]))));
    check(&*engine);
    drop(engine);
    check(&*home.open());
}

/// Threads that read while commits go on see each of them whole, and never an older one after a newer one.
pub fn readers_see_whole_commits(home: &dyn Home) {
    const ROWS: u64 = 200;
    const COMMITS: u64 = 40;
    let engine = home.open();
    let commit = |n: u64| {
        // The rows of an odd commit lie elsewhere than those of an even one; the range takes the others away.
        let (mine, other) = if n.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        let rows = (0..ROWS).map(|row| (format!("{mine}{row:05}"), n.to_string()));
        write(&*engine, &[(other, &format!("{other}9"))], Changes::puts(rows));
    };
    commit(0);
    let done = AtomicBool::new(false);
    let newest = AtomicU64::new(0);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for reader in 0..3 {
            let (engine, done, newest, reads) = (&engine, &done, &newest, &reads);
            readers.push(scope.spawn(move || {
                let mut random = Random::new(reader);
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let committed = newest.load(Ordering::Acquire);
                    let snapshot = engine.snapshot();
                    let mut cursor = snapshot.cursor(b"a"..b"c");
                    let mut seen = Vec::new();
                    ok(cursor.seek(b"a"));
                    while let Some((_, value)) = cursor.row() {
                        seen.push(String::from_utf8_lossy(value).parse::<u64>().unwrap_or(u64::MAX));
                        ok(cursor.next());
                    }
                    assert_eq!(seen.len() as u64, ROWS, "half a commit: {seen:?}");
                    assert!(seen.iter().all(|&n| n == seen[0]), "rows of several commits: {seen:?}");
                    assert!(seen[0] >= committed && seen[0] >= last, "an older state came back");
                    last = seen[0];
                    let here = if last.is_multiple_of(2) { "a" } else { "b" };
                    let key = format!("{here}{:05}", random.below(ROWS));
                    assert_eq!(get(&*snapshot, &key), Some(last.to_string()));
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        // On a busy machine readers may not get a turn for a while. One that ends by itself has found a fault.
        let mut n = 0;
        while (n < COMMITS || reads.load(Ordering::Relaxed) < COMMITS) && !readers.iter().any(|one| one.is_finished()) {
            n += 1;
            commit(n);
            newest.store(n, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}

/// Rows that are asked for together are those that are found one by one, each once, in an engine that was just opened, so that the disk has them all, and while commits go on.
pub fn many_rows_are_read_as_one_by_one(home: &dyn Home) {
    const ROWS: u64 = 400;
    let seed = seed(20_261_128);
    let engine = home.open();
    let commit = |engine: &dyn Engine, n: u64| {
        let mut random = Random::new(seed ^ n);
        // Of all sizes up to some blocks, and each second one is not there.
        let rows = (0..ROWS / 2).map(|row| {
            let size = random.below(if row % 20 == 0 { 40_000 } else { 400 }) as usize;
            let mut value = vec![0; size];
            random.fill(&mut value);
            (format!("row {:06}", row * 2), [n.to_string().as_bytes(), &value].concat())
        });
        ok(engine.commit(&[], &mut Changes::puts(rows)));
    };
    (0..3).for_each(|n| commit(&*engine, n));
    drop(engine);
    let engine = home.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (engine, done) = (&engine, &done);
                scope.spawn(move || {
                    let mut random = Random::new(seed + reader);
                    let mut rounds = 0;
                    while !done.load(Ordering::Acquire) || rounds < 20 {
                        rounds += 1;
                        let snapshot = engine.snapshot();
                        let count = [0, 1, 2, 30, 64, 65, 300][random.below(7) as usize];
                        let keys: Vec<String> =
                            (0..count).map(|_| format!("row {:06}", random.below(ROWS + 10))).collect();
                        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
                        let mut found: Vec<Option<Option<Value>>> = vec![None; keys.len()];
                        snapshot.get_many(&keys, &mut |at, value, _| {
                            assert!(found[at].replace(ok(value)).is_none(), "seed {seed}: a row was given twice");
                        });
                        for (key, found) in keys.iter().zip(found) {
                            let key = String::from_utf8_lossy(key);
                            let found = found.unwrap_or_else(|| panic!("seed {seed}: {key} was not given"));
                            assert!(found == ok(snapshot.get(key.as_bytes())), "seed {seed}: {key} differs");
                        }
                    }
                })
            })
            .collect();
        let mut n = 3;
        while n < 12 && !readers.iter().any(|one| one.is_finished()) {
            commit(&*engine, n);
            n += 1;
        }
        done.store(true, Ordering::Release);
    });
}

const CRASH_ROWS: u64 = 3_000;

/// Commit number `n` (from 1 on) of the process that is to be killed: it stamps all rows with `n`, and moves a block of them.
///
/// # Errors
/// Those of the engine.
pub fn crash_step(engine: &dyn Engine, n: u64) -> Result<(), EngineError> {
    let rows = (0..CRASH_ROWS).map(|row| (format!("row {row:06}"), n.to_string()));
    let block = (0..CRASH_ROWS).map(|row| (format!("block {n:06} {row:06}"), n.to_string()));
    let old = format!("block {:06}", n - 1);
    let ranges = [old.clone().into_bytes()..format!("{old}~").into_bytes()];
    engine.commit(&ranges, &mut Changes::puts(rows.chain(block)))
}

/// After a kill: the rows are those of one commit, which is the last acknowledged one or the one after it. Its number.
pub fn crash_check(engine: &dyn Engine, acknowledged: u64) -> u64 {
    let snapshot = engine.snapshot();
    let Some(stamp) = get(&*snapshot, "row 000000") else {
        assert_eq!(acknowledged, 0, "an acknowledged commit is gone");
        assert_eq!(keys(&*snapshot, "", "~"), Vec::<String>::new(), "half of the first commit");
        return 0;
    };
    let n: u64 = stamp.parse().unwrap_or_else(|_| panic!("a damaged stamp: {stamp:?}"));
    assert!(n == acknowledged || n == acknowledged + 1, "commit {n} stands after {acknowledged} was acknowledged");
    for row in 0..CRASH_ROWS {
        assert_eq!(get(&*snapshot, &format!("row {row:06}")), Some(stamp.clone()), "half a commit");
    }
    let block = keys(&*snapshot, "block", "block~");
    assert_eq!(block.len() as u64, CRASH_ROWS, "half a range");
    assert!(block.iter().all(|key| key.starts_with(&format!("block {n:06}"))), "a deleted range came back");
    n
}
