//! What both disks promise, and what the simulated one promises besides.

use std::path::{Path, PathBuf};

use super::{Disk, DiskErrorKind, RealDisk, SimDisk};
use crate::random::Random;

/// Runs `check` on either disk, with an empty directory.
fn on_both(name: &str, check: impl Fn(&dyn Disk, &Path)) {
    let sim = SimDisk::new();
    let dir = PathBuf::from("/base/test");
    sim.create_dir_all(&dir).unwrap();
    check(&sim, &dir);
    let dir = std::env::temp_dir().join(format!("ardb-base-{name}-{}", std::process::id()));
    RealDisk.remove_dir_all(&dir).unwrap();
    RealDisk.create_dir_all(&dir).unwrap();
    check(&RealDisk, &dir);
    RealDisk.remove_dir_all(&dir).unwrap();
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn small_files_are_written_read_listed_and_renamed() {
    on_both("files", |disk, dir| {
        let (a, b) = (dir.join("a"), dir.join("b"));
        assert_eq!(disk.read(&a).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(disk.write_at(&a, 0, b"x").unwrap_err().kind, DiskErrorKind::NotFound);
        disk.write_file(&a, b"first version").unwrap();
        disk.write_file(&a, b"second").unwrap();
        disk.write_at(&a, 8, b"!!").unwrap();
        disk.sync_file(&a).unwrap();
        assert_eq!(disk.read(&a).unwrap(), b"second\0\0!!");
        disk.write_file(&b, b"b").unwrap();
        disk.rename(&a, &b).unwrap();
        disk.sync_dir(dir).unwrap();
        assert_eq!(disk.read(&b).unwrap(), b"second\0\0!!");
        disk.create_dir_all(&dir.join("sub/deeper")).unwrap();
        disk.write_file(&dir.join("sub/deeper/x"), b"").unwrap();
        let list = disk.list(dir).unwrap();
        assert_eq!(
            list.iter().map(|e| (&*e.name, e.is_dir, e.len)).collect::<Vec<_>>(),
            [("b", false, 10), ("sub", true, 0)]
        );
        disk.remove_dir_all(&dir.join("sub")).unwrap();
        disk.remove_dir_all(&dir.join("sub")).unwrap();
        disk.remove(&b).unwrap();
        assert!(names(disk, dir).is_empty());
        assert!(disk.remove(&b).is_err());
        assert!(disk.free_space(dir).unwrap() > 0);
    });
}

#[test]
fn a_lock_is_held_once() {
    on_both("lock", |disk, dir| {
        let path = dir.join("lock");
        let lock = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).unwrap_err().kind, DiskErrorKind::Busy);
        drop(lock);
        disk.lock(&path).unwrap();
    });
}

#[test]
fn a_region_shows_readers_what_is_published_and_keeps_the_rest() {
    on_both("region", |disk, dir| {
        let path = dir.join("r");
        let mut writer = disk.create_region(&path, 8192).unwrap();
        assert_eq!(disk.create_region(&path, 8192).unwrap_err().kind, DiskErrorKind::Exists);
        assert_eq!(disk.open_region(&path).unwrap_err().kind, DiskErrorKind::Busy);
        let region = writer.region().clone();
        writer.write(0, b"hello");
        assert_eq!((region.len(), region.published(), region.bytes(0..1)), (8192, 0, None));
        writer.publish(3);
        assert_eq!(region.bytes(0..3), Some(&b"hel"[..]));
        assert_eq!(region.bytes(2..4), None);
        assert_eq!(region.bytes(3..3), Some(&[][..]));
        region.sync(0..3).unwrap();
        region.sync(0..8192).unwrap();
        region.warm(0..usize::MAX);
        writer.write(8191, b"z");
        drop((writer, region));
        let mut writer = disk.open_region(&path).unwrap();
        assert_eq!(writer.contents()[..6], *b"hello\0");
        writer.publish(5);
        assert_eq!(writer.zero_from(5), 8192 - 5);
        assert_eq!(writer.zero_from(5), 0);
        writer.sync_all().unwrap();
        assert!(writer.contents()[5..].iter().all(|&b| b == 0));
        disk.remove(&path).unwrap();
        assert_eq!(writer.region().bytes(0..5), Some(&b"hello"[..]));
    });
}

#[test]
fn memory_that_was_let_go_comes_back_with_what_was_written() {
    on_both("release", |disk, dir| {
        let mut writer = disk.create_region(&dir.join("r"), 64 << 10).unwrap();
        let region = writer.region().clone();
        for step in 0..16_u8 {
            let at = usize::from(step) * 4096;
            writer.write(at, &[step + 1; 4096]);
            writer.publish(at + 4096);
            // Never synced, and what comes later is not written yet.
            region.release(0..64 << 10);
            for before in 0..=step {
                assert_eq!(region.bytes(usize::from(before) * 4096..at + 4096).unwrap()[0], before + 1);
            }
        }
        region.sync(0..64 << 10).unwrap();
        region.release(100..usize::MAX);
        assert_eq!(region.bytes(0..64 << 10).unwrap()[60 << 10..], [16; 4096]);
    });
}

#[test]
fn writing_out_takes_step_by_step_what_is_published_and_no_more() {
    on_both("write-out", |disk, dir| {
        let path = dir.join("r");
        let mut writer = disk.create_region(&path, 64 << 10).unwrap();
        let region = writer.region().clone();
        assert!(!region.write_out(usize::MAX, 4096), "nothing is published");
        writer.write(0, &[7; 40 << 10]);
        writer.publish(40 << 10);
        let steps = |to| 1 + std::iter::repeat_with(|| region.write_out(to, 16 << 10)).take_while(|more| *more).count();
        assert_eq!(steps(20 << 10), 2);
        assert_eq!(steps(usize::MAX), 2);
        assert!(!region.write_out(usize::MAX, 4096));
        // The file stays open until it was synced, whether it was said before or after that no more is written, and the memory works on.
        region.release(0..usize::MAX);
        region.sync(0..usize::MAX).unwrap();
        region.sync(0..usize::MAX).unwrap();
        assert_eq!(region.bytes(39 << 10..40 << 10).unwrap(), [7; 1 << 10]);
        assert!(!region.write_out(usize::MAX, 4096));
    });
}

/// As the system shows it; the last sync of a file that is done prepares memory once more.
#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::disallowed_methods, reason = "the system's own account of the mapping")]
fn what_is_written_is_prepared_by_page_and_what_is_done_is_read_ahead() {
    let dir = std::env::temp_dir().join(format!("ardb-base-by-page-{}", std::process::id()));
    RealDisk.create_dir_all(&dir).unwrap();
    let path = dir.join("r");
    let by_page = || {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, ours) = maps.split_once(path.to_str().unwrap()).expect("it is mapped");
        let flags = ours.lines().find_map(|line| line.strip_prefix("VmFlags:")).expect("a mapping has flags");
        flags.split_ascii_whitespace().any(|flag| flag == "rr")
    };
    let mut writer = RealDisk.create_region(&path, 64 << 10).unwrap();
    assert!(!by_page());
    writer.region().warm(0..4096);
    assert!(by_page());
    writer.publish(4096);
    writer.region().release(0..4096);
    assert!(by_page());
    writer.region().release(0..64 << 10);
    assert!(!by_page());
    writer.region().sync(0..4096).unwrap();
    writer.region().warm(4096..4097);
    assert!(!by_page());
    RealDisk.remove_dir_all(&dir).unwrap();
}

#[test]
fn a_large_file_is_removed_while_it_is_read() {
    on_both("large", |disk, dir| {
        let path = dir.join("r");
        let mut writer = disk.create_region(&path, 3 << 20).unwrap();
        writer.write(0, &[9; 3 << 20]);
        writer.publish(3 << 20);
        writer.region().release(0..3 << 20);
        disk.remove(&path).unwrap();
        assert_eq!(names(disk, dir), [""; 0]);
        assert!(writer.contents().iter().all(|&byte| byte == 9));
        assert_eq!(disk.remove(&path).unwrap_err().kind, DiskErrorKind::NotFound);
    });
}

#[test]
#[should_panic(expected = "below the published length")]
fn what_is_published_cannot_be_written_over() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let mut writer = disk.create_region(Path::new("/d/r"), 4096).unwrap();
    writer.publish(10);
    writer.write(9, b"x");
}

#[test]
fn power_loss_keeps_what_was_synced_and_may_lose_keep_or_tear_the_rest() {
    let (mut lost, mut kept, mut torn, mut absent) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let disk = SimDisk::new();
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let path = dir.join("r");
        let mut writer = disk.create_region(&path, 4096).unwrap();
        writer.write(0, &[1; 1024]);
        writer.publish(1024);
        writer.region().sync(0..1024).unwrap();
        let name_synced = seed % 2 == 0;
        if name_synced {
            disk.sync_dir(dir).unwrap();
        }
        writer.write(1024, &[2; 1024]);
        writer.publish(2048);
        drop(writer);
        disk.power_loss(&mut random);
        let Ok(found) = disk.read(&path) else {
            assert!(!name_synced, "seed {seed}: a synced name is gone");
            absent += 1;
            continue;
        };
        assert_eq!(found.len(), 4096);
        assert!(found[..1024].iter().all(|&b| b == 1), "seed {seed}: synced bytes are gone");
        assert!(found[2048..].iter().all(|&b| b == 0));
        for word in found[1024..2048].as_chunks::<8>().0 {
            assert!(*word == [0; 8] || *word == [2; 8], "seed {seed}: a word is torn");
        }
        match found[1024..2048].iter().filter(|&&b| b == 2).count() {
            0 => lost += 1,
            1024 => kept += 1,
            _ => torn += 1,
        }
        // What was found is what the next loss starts from.
        disk.power_loss(&mut random);
        assert_eq!(disk.read(&path).unwrap(), found);
    }
    assert!(lost > 20 && kept > 20 && torn > 20 && absent > 20, "{lost} {kept} {torn} {absent}");
}

#[test]
fn names_that_are_not_synced_come_and_go_each_on_its_own() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new();
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        for name in ["old", "renamed"] {
            disk.write_file(&dir.join(name), name.as_bytes()).unwrap();
        }
        disk.sync_dir(dir).unwrap();
        disk.remove(&dir.join("old")).unwrap();
        disk.rename(&dir.join("renamed"), &dir.join("target")).unwrap();
        disk.write_file(&dir.join("new"), b"new").unwrap();
        disk.power_loss(&mut Random::new(seed));
        let names = names(&disk, dir);
        assert_ne!(names.contains(&"renamed".into()), names.contains(&"target".into()), "a rename was torn");
        for name in &names {
            // The contents were synced, whatever became of the name.
            let expected = if name == "target" { "renamed" } else { name };
            assert_eq!(disk.read(&dir.join(name)).unwrap(), expected.as_bytes());
        }
        outcomes.insert(names);
    }
    assert_eq!(outcomes.len(), 8, "each of three changes either happened or not");
}

#[test]
fn a_dying_process_loses_nothing() {
    let disk = SimDisk::new();
    let dir = Path::new("/d");
    disk.create_dir_all(dir).unwrap();
    let mut writer = disk.create_region(&dir.join("r"), 4096).unwrap();
    writer.write(100, b"unpublished");
    let lock = disk.lock(&dir.join("lock")).unwrap();
    drop(writer);
    drop(lock);
    disk.kill();
    assert_eq!(disk.read(&dir.join("r")).unwrap()[100..111], *b"unpublished");
}

#[test]
fn failures_and_limits_come_as_ordered() {
    let disk = SimDisk::new();
    let dir = Path::new("/d");
    disk.create_dir_all(dir).unwrap();
    disk.set_capacity(Some(10_000));
    let region = disk.create_region(&dir.join("a"), 8192).unwrap();
    assert_eq!(disk.create_region(&dir.join("b"), 8192).unwrap_err().kind, DiskErrorKind::Full);
    assert_eq!(disk.write_file(&dir.join("b"), &[0; 4096]).unwrap_err().kind, DiskErrorKind::Full);
    assert_eq!(names(&disk, dir), ["a"]);
    disk.write_file(&dir.join("b"), &[0; 1808]).unwrap();
    assert_eq!(disk.free_space(dir).unwrap(), 0);
    drop(region);
    disk.remove(&dir.join("a")).unwrap();
    assert_eq!(disk.free_space(dir).unwrap(), 8192);
    disk.fail_after(Some(1));
    disk.sync_dir(dir).unwrap();
    assert!(disk.sync_dir(dir).is_err());
    assert!(disk.read(&dir.join("b")).is_err());
    disk.fail_after(None);
    assert!(disk.read(&dir.join("b")).is_ok());
}

#[test]
fn what_a_failed_sync_missed_no_later_one_writes_unless_it_is_written_again() {
    let path = Path::new("/d/f");
    // The last byte of each third after a power loss, at its worst.
    let found = |again: bool, forgotten: bool, seed: u64| {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let mut writer = disk.create_region(path, 12_288).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        for (n, fails) in [(1, false), (2, true), (3, false)] {
            let at = writer.published();
            writer.write(at, &[n; 4096]);
            writer.publish(at + 4096);
            disk.fail_after(fails.then_some(0));
            assert_eq!(writer.region().sync(at..at + 4096).is_err(), fails);
            disk.fail_after(None);
        }
        drop(writer);
        disk.kill();
        if forgotten {
            disk.forget_missed();
        }
        let mut writer = disk.open_region(path).unwrap();
        if again {
            writer.rewrite(100..12_288);
        }
        writer.publish(12_288);
        writer.region().sync(0..12_288).unwrap();
        drop(writer);
        disk.power_loss(&mut Random::new(seed));
        let bytes = disk.read(path).unwrap();
        [4095, 8191, 12_287].map(|at| bytes[at])
    };
    let found = |again, forgotten| (0..50).map(|seed| found(again, forgotten, seed)).min().unwrap();
    assert_eq!(found(false, false), [1, 0, 3]);
    assert_eq!(found(true, false), [1, 2, 3]);
    assert_eq!(found(true, true), [1, 0, 3]);
}
