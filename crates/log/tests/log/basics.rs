//! Each operation once, and at its edges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ardb_base::disk::{Disk, RealDisk, SimDisk};
use ardb_log::{AppendError, Ended, Log, LogOptions, Offset, Opened, Past, ReadError, SyncError};

use crate::{dir, open, read_all};

fn fill(opened: &mut Opened, frames: u64) -> Vec<(Offset, Vec<u8>)> {
    (0..frames)
        .map(|i| {
            let first = opened.appender.end();
            let payload = vec![b'a' + (i % 26) as u8; 1 + (i as usize * 37) % 300];
            opened.appender.append(i as u32 % 16, 0, &[&payload]).unwrap();
            (first, payload)
        })
        .collect()
}

#[test]
fn what_was_appended_is_read_from_every_offset() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 1000).unwrap();
    assert!(opened.recovery.created);
    let all: Vec<u8> = fill(&mut opened, 100).into_iter().flat_map(|(_, payload)| payload).collect();
    let log = &opened.log;
    assert_eq!((log.start(), log.end()), (Offset(1000), Offset(1000 + all.len() as u64)));
    assert!(log.stats().segments > 3);
    for skip in 0..=all.len() {
        let mut reader = log.reader(Offset(1000 + skip as u64)).unwrap();
        match reader.next_slice(7).unwrap() {
            Some(slice) => assert_eq!(*slice, all[skip..skip + slice.len()]),
            None => assert_eq!(skip, all.len()),
        }
    }
    assert_eq!(read_all(log, Offset(1003)), all[3..]);
    assert!(matches!(log.reader(Offset(999)), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(log.reader(log.end().advance(1)), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn frames_keep_their_limits_and_databases_across_a_restart() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    let model = fill(&mut opened, 60);
    assert_eq!(opened.appender.append(3, 0, &[]).unwrap(), opened.log.end());
    opened.appender.append(9, 0, &[b"two ", b"", b"parts"]).unwrap();
    drop(opened);
    // The checkpoint lies inside a frame: that frame is the first.
    let inside = Offset(model[30].0.0 + 1);
    let opened = open(&disk, 1, inside.0).unwrap();
    assert_eq!(opened.recovery.cut, None);
    let mut frames = opened.log.frames_from(inside).unwrap();
    for (i, (first, payload)) in model.iter().enumerate().skip(30) {
        let frame = frames.next_frame().unwrap().expect("a frame");
        assert_eq!((frame.first, frame.db, &*frame.payload), (*first, i as u32 % 16, &payload[..]));
        assert_eq!(frame.end(), first.advance(payload.len()));
    }
    let last = frames.next_frame().unwrap().expect("the last frame");
    assert_eq!((last.db, &*last.payload), (9, &b"two parts"[..]));
    assert!(frames.next_frame().unwrap().is_none());
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    let big = vec![7u8; 50_000];
    opened.appender.append(0, 0, &[b"before"]).unwrap();
    opened.appender.append(0, 0, &[&big]).unwrap();
    opened.appender.append(0, 0, &[b"after"]).unwrap();
    let expected = [b"before", &big[..], b"after"].concat();
    assert_eq!(read_all(&opened.log, Offset(0)), expected);
    drop(opened);
    let opened = open(&disk, 1, 0).unwrap();
    assert_eq!(read_all(&opened.log, Offset(0)), expected);
    assert_eq!(opened.recovery.frames, 3);
}

#[test]
fn an_empty_segment_is_replaced_by_a_larger_one() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 50).unwrap();
    let mut reader = opened.log.reader(Offset(50)).unwrap();
    assert!(reader.next_slice(10).unwrap().is_none());
    // It fills 13 pages to the last byte.
    let big = vec![7u8; 13 * 4096 - 64 - 32];
    opened.appender.append(0, 0, &[&big]).unwrap();
    assert_eq!(opened.log.stats().segments, 1);
    assert_eq!(reader.next_slice(usize::MAX).unwrap().as_deref(), Some(&big[..]));
    opened.appender.append(0, 0, &[b"after"]).unwrap();
    opened.log.sync_to(opened.log.end()).unwrap();
    assert_eq!(opened.log.truncate_front(opened.log.end()), Offset(50 + 53_152));
    drop((opened, reader));
    assert_eq!(read_all(&open(&disk, 1, 50 + 53_152).unwrap().log, Offset(50 + 53_152)), b"after");
}

#[test]
fn a_full_disk_refuses_an_append_and_changes_nothing() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    disk.set_capacity(Some(3 * 4096));
    let payload = [1u8; 500];
    let error = loop {
        let before = opened.log.stats();
        match opened.appender.append(0, 0, &[&payload]) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(opened.log.stats(), before);
                break error;
            }
        }
    };
    assert!(error.is_full(), "{error}");
    let end = opened.log.end();
    // A smaller one may still fit, and readers and syncs go on.
    opened.log.sync_to(end).unwrap();
    assert_eq!(read_all(&opened.log, Offset(0)).len() as u64, end.0);
    disk.set_capacity(None);
    opened.appender.append(0, 0, &[&payload]).unwrap();
    assert_eq!(read_all(&opened.log, Offset(0)).len() as u64, end.0 + 500);
}

#[test]
fn a_failed_sync_is_final() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    opened.appender.append(0, 0, &[b"one"]).unwrap();
    assert!(matches!(opened.log.sync_to(Offset(4)), Err(SyncError::PastEnd { .. })));
    disk.fail_after(Some(0));
    assert!(matches!(opened.log.sync_to(Offset(3)), Err(SyncError::Failed(_))));
    disk.fail_after(None);
    assert!(matches!(opened.log.sync_to(Offset(3)), Err(SyncError::Failed(_))));
    assert!(matches!(opened.appender.append(0, 0, &[b"two"]), Err(AppendError::Failed(_))));
    assert_eq!(opened.log.synced(), Offset(0));
    assert!(opened.log.stats().failed.is_some());
    assert_eq!(read_all(&opened.log, Offset(0)), b"one");
}

#[test]
fn pins_and_readers_hold_what_truncation_would_take() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    let all: Vec<u8> = fill(&mut opened, 200).into_iter().flat_map(|(_, payload)| payload).collect();
    let log = opened.log.clone();
    let end = log.end();
    assert_eq!(log.truncate_front(end), Offset(0), "what would be first is not durable");
    log.sync_to(end).unwrap();
    let held = Offset(end.0 / 2);
    let mut pin = log.pin(held).unwrap();
    let mut reader = log.reader(Offset(10)).unwrap();
    let slice = reader.next_slice(5).unwrap().expect("bytes");
    assert!(log.truncate_front(end) <= held);
    assert!(log.start() > Offset(10));
    assert_eq!((log.stats().pins, log.stats().oldest_pin), (1, Some(held)));
    // What a reader holds stays mapped although its file is gone; what follows is gone.
    assert_eq!(*slice, all[10..15]);
    let mut rest = Vec::new();
    let error = loop {
        match reader.read_into(&mut rest, 100) {
            Ok(0) => panic!("the reader jumped over a gap"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
    assert_eq!(rest, all[15..15 + rest.len()]);
    assert!(matches!(log.pin(Offset(10)), Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_all(&log, held), all[held.0 as usize..]);
    pin.advance(end);
    assert!(log.truncate_front(end) > held);
    assert_eq!(log.stats().segments, 1);
    drop(pin);
    assert_eq!(log.stats().pins, 0);
    // The files are gone as well.
    assert_eq!(disk.list(dir()).unwrap().len(), 1);
}

#[test]
fn pins_hold_no_more_than_they_may() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    fill(&mut opened, 200);
    let log = opened.log.clone();
    let (third, end) = (Offset(log.end().0 / 3), log.end());
    log.sync_to(end).unwrap();
    let low = log.pin(Offset(5)).unwrap();
    let high = log.pin(end).unwrap();
    let left = log.truncate_front_past(end, Offset(0));
    assert_eq!((left.start, left.overruled), (Offset(0), 0), "without a limit the lowest pin counts");
    let left = log.truncate_front_past(end, third);
    assert!(left.start > Offset(5) && left.start <= third, "{left:?}");
    assert_eq!(left.overruled, 1);
    assert!(matches!(log.reader(low.offset()), Err(ReadError::OutOfRange { .. })));
    drop(low);
    let left = log.truncate_front_past(end, third);
    assert_eq!(left.overruled, 0);
    assert!(left.start > third, "the other pin is at the end");
    assert!(log.truncate_front_past(third, end).start >= left.start);
    drop(high);
}

#[test]
fn a_new_history_replaces_the_old_one() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    fill(&mut opened, 50);
    let mut reader = opened.log.reader(Offset(0)).unwrap();
    let pin = opened.log.pin(Offset(0)).unwrap();
    drop(opened.appender.prepare_reset(2, Offset(7)).unwrap());
    assert!(opened.appender.prepare_reset(1, Offset(7)).is_err());
    let prepared = opened.appender.prepare_reset(2, Offset(7)).unwrap();
    // The old one is in use until the end.
    opened.appender.append(0, 0, &[b"still"]).unwrap();
    assert!(reader.next_slice(1).unwrap().is_some());
    opened.appender.finish_reset(prepared);
    assert_eq!((opened.log.start(), opened.log.end(), opened.log.synced()), (Offset(7), Offset(7), Offset(7)));
    assert_eq!(reader.next_slice(1).unwrap_err(), ReadError::Replaced);
    let new_pin = opened.log.pin(Offset(7)).unwrap();
    drop(pin);
    assert_eq!(opened.log.stats().oldest_pin, Some(Offset(7)));
    drop(new_pin);
    opened.appender.append(0, 0, &[b"new"]).unwrap();
    drop((opened, reader));
    let opened = open(&disk, 2, 7).unwrap();
    assert_eq!(read_all(&opened.log, Offset(7)), b"new");
    assert_eq!(disk.list(dir()).unwrap().len(), 1);
}

#[test]
fn waiters_and_wakers_hear_of_an_append() {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 1, 0).unwrap();
    let log = opened.log.clone();
    assert!(!log.wait_past(Offset(0), Duration::from_millis(1)));
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let waker = log.register_waker(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    opened.appender.append(0, 0, &[b"x"]).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0, "not armed");
    assert!(!waker.arm(Offset(0)), "there is something already");
    assert!(waker.arm(Offset(1)));
    opened.appender.append(0, 0, &[b"x"]).unwrap();
    opened.appender.append(0, 0, &[b"x"]).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1, "one call for each arming");
    let waiting = log.clone();
    let thread = std::thread::spawn(move || waiting.wait_past(Offset(3), Duration::from_secs(60)));
    opened.appender.append(0, 0, &[b"x"]).unwrap();
    assert!(thread.join().unwrap());
}

#[test]
fn many_callers_share_syncs() {
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("shared-syncs");
    RealDisk.remove_dir_all(&path).unwrap();
    let open = |ended| {
        let past = Past { epoch: 1, checkpoint: Offset(0), ended };
        Log::open(Arc::new(RealDisk), &path, past, LogOptions::default())
    };
    let mut opened = open(Ended::New).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let end = opened.appender.append(0, 0, &[&[1; 100]]).unwrap();
            let log = opened.log.clone();
            scope.spawn(move || {
                log.sync_to(end).unwrap();
                assert!(log.synced() >= end);
            });
        }
    });
    assert_eq!(opened.log.synced(), opened.log.end());
    // The same directory must not be mapped twice.
    assert!(open(Ended::Killed).is_err());
    drop(opened);
    let opened = open(Ended::Killed).unwrap();
    assert_eq!((opened.recovery.frames, &opened.recovery.cut), (20, &None));
    drop(opened);
    RealDisk.remove_dir_all(&path).unwrap();
}
