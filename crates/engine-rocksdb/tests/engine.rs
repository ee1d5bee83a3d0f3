//! The RocksDB engine under the suite for all engines, and what only an engine with files can be asked.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use ardb_base::random::Random;
use ardb_engine::conformance::{self, Changes, Home};
use ardb_engine::{Engine, Snapshot};
use ardb_engine_rocksdb::{RocksEngine, RocksOptions};

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("engine-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the target directory can be written");
        Dir(dir.join("gen"))
    }

    fn options(&self) -> RocksOptions {
        RocksOptions { block_cache_bytes: 8 << 20, ..RocksOptions::new(&self.0) }
    }

    fn engine(&self) -> RocksEngine {
        RocksEngine::open(&self.options()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.0.join("staging")).expect("the engine made it").count()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap_or(&self.0));
    }
}

struct Opened {
    dir: Dir,
    file_bytes: u64,
    direct_reads: bool,
}

/// The folder of the tests may be on a file system that cannot be read past its cache.
fn direct_reads_work() -> bool {
    use rustix::fs::{Mode, OFlags};
    let dir = Dir::new();
    fs::write(&dir.0, b"").expect("the folder is there");
    rustix::fs::open(&dir.0, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).is_ok()
}

impl Home for Opened {
    fn open(&self) -> Arc<dyn Engine> {
        let (file_bytes, direct_reads) = (self.file_bytes, self.direct_reads);
        let options = RocksOptions { file_bytes, direct_reads, ..self.dir.options() };
        Arc::new(RocksEngine::open(&options).unwrap_or_else(|error| panic!("{error}")))
    }
}

mod whole {
    use super::*;
    ardb_engine::conformance_tests!(|| Opened { dir: Dir::new(), file_bytes: 256 << 20, direct_reads: false });
}

/// Every commit in many files: ranges then reach over several of them.
mod split {
    use super::*;
    ardb_engine::conformance_tests!(|| Opened { dir: Dir::new(), file_bytes: 700, direct_reads: false });

    #[test]
    fn more_seeds() {
        for seed in 1..6 {
            conformance::random_check(&Opened { dir: Dir::new(), file_bytes: 300, direct_reads: false }, seed, 25);
        }
    }
}

/// Past the page cache, as far as the file system allows it.
mod direct {
    use super::*;
    ardb_engine::conformance_tests!(|| Opened { dir: Dir::new(), file_bytes: 700, direct_reads: direct_reads_work() });

    /// How many of the process's open tables in `dir` are read past the page cache, and how many are not.
    fn tables(dir: &Path) -> (usize, usize) {
        let (mut direct, mut others) = (0, 0);
        for entry in fs::read_dir("/proc/self/fd").expect("Linux has it").flatten() {
            let Ok(path) = fs::read_link(entry.path()) else { continue };
            if path.starts_with(dir) && path.extension().is_some_and(|extension| extension == "sst") {
                let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
                let info = fs::read_to_string(info).expect("the file is open");
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("it says so");
                let flags = u32::from_str_radix(flags.trim(), 8).expect("an octal number");
                *(if flags & rustix::fs::OFlags::DIRECT.bits() != 0 { &mut direct } else { &mut others }) += 1;
            }
        }
        (direct, others)
    }

    #[test]
    fn tables_are_opened_as_the_option_says() {
        let can = direct_reads_work();
        let home = Opened { dir: Dir::new(), file_bytes: 256 << 20, direct_reads: can };
        conformance::random_check(&home, 1, 5);
        for direct_reads in [can, false] {
            let engine =
                RocksEngine::open(&RocksOptions { direct_reads, ..home.dir.options() }).expect("it was closed");
            let (direct, others) = tables(&fs::canonicalize(&home.dir.0).expect("it is there"));
            assert!(direct + others > 0, "tables stay open");
            assert_eq!(if direct_reads { others } else { direct }, 0);
            let told =
                engine.stats().details.iter().any(|(name, value)| *name == "rocksdb_direct_reads" && value == "1");
            assert_eq!(told, direct_reads);
            drop(engine);
        }
    }

    /// Rows that fill some thousand blocks, in an engine that was just opened: none of them is in memory. None where the system cannot do it.
    fn cold(dir: &Dir, rows: u32) -> Option<RocksEngine> {
        let options = RocksOptions { direct_reads: direct_reads_work(), ..dir.options() };
        let open = || RocksEngine::open(&options).expect("it is closed");
        let changes = (0..rows).map(|n| {
            let mut value = vec![0; 1500];
            Random::new(n.into()).fill(&mut value);
            (n.to_be_bytes(), value)
        });
        open().commit(&[], &mut Changes::puts(changes)).expect("a commit");
        let engine = open();
        let can = engine.snapshot().reads_together();
        let told = engine.stats().details.iter().any(|(name, value)| *name == "rocksdb_reads_together" && value == "1");
        assert_eq!(can, told);
        can.then_some(engine)
    }

    /// Waits of this thread, as the system counts them.
    fn waits() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).expect("it says so")
    }

    #[test]
    fn many_rows_are_one_wait_for_the_disk() {
        let dir = Dir::new();
        let Some(engine) = cold(&dir, 4000) else { return };
        let snapshot = engine.snapshot();
        // Indexes and filters are in memory from here on.
        for n in (1..4000u32).step_by(40) {
            snapshot.get(&n.to_be_bytes()).expect("a read");
        }
        let keys: Vec<_> = (0..60u32).map(|n| (n * 60 + 20).to_be_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let look = || {
            let (before, mut from_disk) = (waits(), 0);
            snapshot.get_many(&keys, &mut |_, value, waited| {
                assert!(value.expect("a read").is_some());
                from_disk += u32::from(waited);
            });
            (waits() - before, from_disk)
        };
        // Blocks that are read for rows are not kept: the caller keeps the rows.
        for _ in 0..3 {
            let (waits, from_disk) = look();
            assert_eq!(from_disk, 60);
            assert!(waits <= 20, "{waits} waits for 60 rows");
        }
    }

    #[test]
    fn a_damaged_block_fails_its_rows_alone() {
        let dir = Dir::new();
        let Some(engine) = cold(&dir, 1000) else { return };
        drop(engine);
        let file = table(&dir);
        let mut bytes = fs::read(&file).expect("a table");
        bytes[5000..5100].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&file, bytes).expect("a table");
        let engine = RocksEngine::open(&RocksOptions { direct_reads: true, ..dir.options() }).expect("it is closed");
        let keys: Vec<_> = (0..1000u32).map(u32::to_be_bytes).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let (mut good, mut bad) = (0, 0);
        engine.snapshot().get_many(&keys, &mut |_, value, _| match value {
            Ok(value) => good += u32::from(value.is_some()),
            Err(error) => {
                assert!(error.corruption, "{error}");
                bad += 1;
            }
        });
        assert_eq!(good + bad, 1000);
        assert!((1..=4).contains(&bad), "{bad} rows in the damaged block");
    }

    #[test]
    fn a_file_that_was_cut_off_fails_and_does_not_hang() {
        let dir = Dir::new();
        let Some(engine) = cold(&dir, 1000) else { return };
        // Behind the engine's back, while it is open.
        let file = fs::OpenOptions::new().write(true).open(table(&dir)).expect("a table");
        file.set_len(10_000).expect("a cut");
        let keys: Vec<_> = (100..140u32).map(|n| (n * 5).to_be_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let mut bad = 0;
        engine.snapshot().get_many(&keys, &mut |_, value, _| bad += u32::from(value.is_err()));
        assert_eq!(bad, 40);
    }
}

/// The one table of a database.
fn table(dir: &Dir) -> PathBuf {
    let files = fs::read_dir(dir.0.join("db")).expect("the database");
    let mut files = files.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    files.find(|path| path.extension().is_some_and(|extension| extension == "sst")).expect("a table")
}

#[test]
fn nothing_is_left_in_staging() {
    let dir = Dir::new();
    let engine = dir.engine();
    engine.commit(&[], &mut Changes::puts([("a", "1")])).expect("a commit");
    assert_eq!(dir.staged(), 0, "after a commit");
    drop(engine);
    fs::write(dir.0.join("staging/000007.sst"), b"half a file").expect("a file");
    let engine = dir.engine();
    assert_eq!(dir.staged(), 0, "after an open");
    assert_eq!(engine.snapshot().get(b"a").expect("a read").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_second_open_is_refused_and_harmless() {
    let dir = Dir::new();
    let engine = dir.engine();
    fs::write(dir.0.join("staging/000000.sst"), b"a commit in the making").expect("a file");
    let error = RocksEngine::open(&dir.options()).err().expect("two engines in one directory");
    assert!(error.to_string().contains("has it open"), "{error}");
    assert!(!error.corruption);
    assert_eq!(dir.staged(), 1, "the refused engine cleared the other's files");
    drop(engine);
    dir.engine();
}

#[test]
fn a_commit_that_fails_has_no_effect() {
    let dir = Dir::new();
    let engine = dir.engine();
    engine.commit(&[], &mut Changes::puts([("a", "1")])).expect("a commit");
    // In place of the first file there is something that cannot be written.
    let obstacle = dir.0.join("staging/000000.sst");
    fs::create_dir(&obstacle).expect("a directory");
    let range = b"a".to_vec()..b"b".to_vec();
    let error = engine.commit(std::slice::from_ref(&range), &mut Changes::puts([("b", "2")])).expect_err("an obstacle");
    assert!(error.to_string().contains("000000.sst"), "{error}");
    let check = |snapshot: Arc<dyn Snapshot>| {
        assert_eq!(snapshot.get(b"a").expect("a read").as_deref(), Some(&b"1"[..]));
        assert_eq!(snapshot.get(b"b").expect("a read"), None);
    };
    check(engine.snapshot());
    fs::remove_dir(&obstacle).expect("it is empty");
    drop(engine);
    let engine = dir.engine();
    check(engine.snapshot());
    // Rows out of order are refused as a whole, too.
    struct Disorder(u8);
    impl ardb_engine::ChangeSource for Disorder {
        fn next_change(&mut self) -> Option<ardb_engine::Change<'_>> {
            self.0 += 1;
            [(&b"b"[..], Some(&b"2"[..])), (&b"a"[..], None)].get(usize::from(self.0) - 1).copied()
        }
    }
    assert!(engine.commit(&[], &mut Disorder(0)).is_err());
    check(engine.snapshot());
    assert_eq!(dir.staged(), 0);
    engine.commit(&[range], &mut Changes::puts([("b", "2")])).expect("the next commit");
    assert_eq!(engine.snapshot().get(b"a").expect("a read"), None);
    engine.resume().expect("nothing to resume from");
}

#[test]
fn damage_is_told_from_other_failures() {
    let dir = Dir::new();
    let rows = (0..2000u32).map(|n| (n.to_be_bytes(), [n as u8; 100]));
    dir.engine().commit(&[], &mut Changes::puts(rows)).expect("a commit");
    let file = table(&dir);
    let mut bytes = fs::read(&file).expect("a table");
    for byte in &mut bytes[100..200] {
        *byte ^= 0x55;
    }
    fs::write(&file, bytes).expect("a table");
    let engine = dir.engine();
    let snapshot = engine.snapshot();
    let error = snapshot.get(&0u32.to_be_bytes()).expect_err("a damaged block");
    assert!(error.corruption, "{error}");
    let mut cursor = snapshot.cursor(b""..b"\xff");
    let error = cursor.seek(b"").expect_err("a damaged block");
    assert!(error.corruption, "{error}");
    assert!(cursor.row().is_none());
}

#[test]
fn stats_tell_what_is_there() {
    let dir = Dir::new();
    let engine = dir.engine();
    let rows = (0..20_000u32).map(|n| (n.to_be_bytes(), n.to_le_bytes().repeat(25)));
    engine.commit(&[], &mut Changes::puts(rows)).expect("a commit");
    engine.snapshot().get(&5u32.to_be_bytes()).expect("a read");
    let stats = engine.stats();
    assert!(stats.disk_bytes > 20_000, "{stats:?}");
    assert!(stats.cache_bytes > 0, "{stats:?}");
    let rows = stats.details.iter().find(|(name, _)| *name == "rocksdb_estimated_rows");
    assert_eq!(rows.map(|(_, rows)| rows.as_str()), Some("20000"));
}

/// Not a test: the process that is killed. It tells each commit that it finished.
#[test]
#[ignore = "the child process of the test below"]
fn crash_child() {
    let Some(dir) = env::var_os("ARDB_CRASH_DIR") else { return };
    let options = RocksOptions { file_bytes: 100_000, ..RocksOptions::new(dir) };
    let engine = RocksEngine::open(&options).unwrap_or_else(|error| panic!("{error}"));
    let first = env::var("ARDB_CRASH_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    // Straight to the descriptor: what is printed in a test is held back.
    let mut out = std::io::stdout();
    for n in first.. {
        conformance::crash_step(&engine, n).unwrap_or_else(|error| panic!("{error}"));
        if writeln!(out, "\ndone {n}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
fn a_killed_process_leaves_whole_commits() {
    let dir = Dir::new();
    let seed = conformance::seed(7);
    let mut random = Random::new(seed);
    let mut acknowledged = 0;
    for round in 0..12 {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "crash_child", "--ignored", "--nocapture"])
            .env("ARDB_CRASH_DIR", &dir.0)
            .env("ARDB_CRASH_FROM", (acknowledged + 1).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child process");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let wanted = acknowledged + random.below(4) + u64::from(round == 0);
        let done = |line: std::io::Result<String>| line.ok()?.strip_prefix("done ")?.parse::<u64>().ok();
        while acknowledged < wanted {
            match lines.next() {
                Some(line) => acknowledged = done(line).unwrap_or(acknowledged),
                None => panic!("ARDB_SEED={seed}: the child ended by itself after commit {acknowledged}"),
            }
        }
        std::thread::sleep(std::time::Duration::from_micros(random.below(60_000)));
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        for line in lines {
            acknowledged = done(line).unwrap_or(acknowledged);
        }
        let engine = dir.engine();
        acknowledged = conformance::crash_check(&engine, acknowledged);
        assert_eq!(dir.staged(), 0, "ARDB_SEED={seed}, round {round}");
    }
    assert!(acknowledged > 0);
}
