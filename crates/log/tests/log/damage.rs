//! A byte of a file is changed: the log may end early or give an error, but never a byte that was not appended.

use ardb_base::disk::{Disk, SimDisk};
use ardb_base::random::Random;
use ardb_log::{Ended, Log, ReadError};

use crate::{dir, examine, open};

/// A log of three segments, and its payload bytes.
fn build() -> (SimDisk, Vec<u8>) {
    let (disk, all, _) = build_and_tell();
    (disk, all)
}

/// The same, and the offset of the last frame.
fn build_and_tell() -> (SimDisk, Vec<u8>, u64) {
    let disk = SimDisk::new();
    let mut random = Random::new(5);
    let mut opened = open(&disk, 1, 0).unwrap();
    let (mut all, mut last) = (Vec::new(), 0);
    while opened.log.stats().segments < 3 {
        let mut payload = vec![0u8; 1 + random.below(700) as usize];
        random.fill(&mut payload);
        last = opened.appender.end().0;
        opened.appender.append(random.below(16) as u32, 0, &[&payload]).unwrap();
        all.extend_from_slice(&payload);
    }
    opened.log.sync_to(opened.log.end()).unwrap();
    drop(opened);
    disk.kill();
    (disk, all, last)
}

/// Reads as far as it goes; gives where it went wrong, if it did.
fn read_and_compare(log: &Log, all: &[u8], what: &str) -> Option<ReadError> {
    let mut reader = match log.reader(log.start()) {
        Ok(reader) => reader,
        Err(error) => return Some(error),
    };
    loop {
        let from = reader.offset().0 as usize;
        match reader.next_slice(usize::MAX) {
            Ok(Some(slice)) => assert_eq!(*slice, all[from..from + slice.len()], "{what}: wrong bytes at {from}"),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

#[test]
fn no_changed_byte_is_ever_handed_out() {
    let (disk, all, last) = build_and_tell();
    let files: Vec<(String, u64)> = disk.list(dir()).unwrap().into_iter().map(|e| (e.name, e.len)).collect();
    let mut random = Random::new(6);
    let (mut cut, mut refused, mut harmless) = (0, 0, 0);
    for (name, len) in &files {
        for at in 0..*len {
            let (disk, _) = build();
            let change = 1 << random.below(8);
            disk.corrupt(&dir().join(name), at as usize, change).unwrap();
            let checkpoint = *[0, all.len() as u64 / 2, all.len() as u64].get(random.below(3) as usize).unwrap();
            let ended = *[Ended::Closed, Ended::Killed, Ended::Suspect].get(random.below(3) as usize).unwrap();
            let what = format!("{name} byte {at} ^ {change}, checkpoint {checkpoint}, {ended:?}");
            let examined = examine(&disk, checkpoint, ended);
            let damage = examined.damage().cloned();
            let opened = examined.open().unwrap_or_else(|error| panic!("{what}: {error}"));
            let error = read_and_compare(&opened.log, &all, &what);
            let end = opened.log.end().0;
            let whole = end == all.len() as u64;
            assert_eq!(opened.recovery.damage, damage, "{what}");
            match (ended, &damage) {
                _ if end < checkpoint => assert!(damage.is_some(), "{what}"),
                (Ended::Suspect, damage) => assert_eq!(damage, &None, "{what}"),
                (Ended::Closed, damage) => assert_eq!(damage.is_some(), opened.recovery.cut.is_some(), "{what}"),
                (_, Some(damage)) => assert!(!whole && damage.frames > 0, "{what}: {damage}"),
                // The last frame alone may be one that was being appended.
                (_, None) => assert!(whole || end == last, "{what}: cut at {end}"),
            }
            match (&opened.recovery.cut, error) {
                (_, Some(_)) => refused += 1,
                (Some(_), None) => cut += 1,
                (None, None) if whole => harmless += 1,
                (None, None) => panic!("{what}: the log ends at {} without a word", opened.log.end()),
            }
            assert!(opened.log.start().0 <= checkpoint, "{what}");
            let front_gone = opened.log.start().0 > 0;
            assert!(!front_gone || !opened.recovery.set_aside.is_empty(), "{what}");
        }
    }
    assert!(cut > 1000 && refused > 1000, "cut {cut}, refused {refused}, harmless {harmless}");
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_not_used() {
    for grow in [false, true] {
        let (disk, all) = build();
        let names: Vec<String> = disk.list(dir()).unwrap().into_iter().map(|e| e.name).collect();
        let path = dir().join(names.last().unwrap());
        let mut bytes = disk.read(&path).unwrap();
        let len = if grow { bytes.len() * 2 } else { bytes.len() / 2 };
        bytes.resize(len, 0);
        disk.write_file(&path, &bytes).unwrap();
        assert!(open(&disk, 1, 0).is_err());
        let opened = examine(&disk, 0, Ended::Suspect).open().unwrap();
        assert!(opened.recovery.cut.is_some());
        assert_eq!(opened.recovery.set_aside.len(), 1);
        assert_eq!(read_and_compare(&opened.log, &all, "resized"), None);
    }
}

#[test]
fn a_missing_segment_ends_the_log_before_it() {
    let (disk, all) = build();
    let names: Vec<String> = disk.list(dir()).unwrap().into_iter().map(|e| e.name).collect();
    disk.remove(&dir().join(&names[1])).unwrap();
    // Behind the gap lies the checkpoint: what is before the gap goes.
    let end = all.len() as u64;
    let copy = open(&disk, 1, end).unwrap();
    assert_eq!(copy.log.end().0, end);
    assert!(copy.log.start().0 > 0);
    assert_eq!(read_and_compare(&copy.log, &all, "front"), None);
    drop(copy);

    let (disk, all) = build();
    disk.remove(&dir().join(&names[1])).unwrap();
    let opened = examine(&disk, 0, Ended::Suspect).open().unwrap();
    assert!(opened.log.end().0 < end && opened.log.start().0 == 0);
    assert_eq!(opened.recovery.cut.as_ref().map(|cut| cut.segments), Some(1));
    assert_eq!(read_and_compare(&opened.log, &all, "back"), None);
}
