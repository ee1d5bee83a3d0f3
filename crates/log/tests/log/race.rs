//! Readers, a truncating thread and a syncing thread beside the appender, on the real disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ardb_base::disk::{Disk, RealDisk};
use ardb_base::random::Random;
use ardb_log::{Ended, Log, LogOptions, Offset, Opened, Past, ReadError};

/// The payload byte that stands at an offset.
fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[test]
fn readers_see_exactly_what_was_appended() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("race");
    RealDisk.remove_dir_all(&path).unwrap();
    let options = LogOptions { segment_bytes: 256 << 10, ahead: true };
    let past = |checkpoint, ended| Past { epoch: 1, checkpoint: Offset(checkpoint), ended };
    let Opened { log, mut appender, .. } = Log::open(Arc::new(RealDisk), &path, past(0, Ended::New), options).unwrap();
    let done = AtomicBool::new(false);
    const TOTAL: u64 = 24 << 20;

    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (log, done) = (log.clone(), &done);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                let mut buffer = Vec::new();
                let mut checked = 0u64;
                'again: loop {
                    let pin = log.pin(log.start()).ok();
                    let from = pin.as_ref().map_or(log.end(), ardb_log::Pin::offset);
                    let Ok(mut reader) = log.reader(from) else { continue };
                    // One that starts over now and then, and meets truncations without a pin.
                    let pin = if random.one_in(2) { pin } else { None };
                    let mut steps = 1 + random.below(5000);
                    while steps > 0 || done.load(Ordering::SeqCst) {
                        steps = steps.saturating_sub(1);
                        let from = reader.offset().0;
                        buffer.clear();
                        let result = if random.one_in(2) {
                            reader.read_into(&mut buffer, 1 + random.below(9000) as usize)
                        } else {
                            reader.next_slice(1 + random.below(9000) as usize).map(|slice| {
                                buffer.extend(slice.as_deref().unwrap_or_default());
                                buffer.len()
                            })
                        };
                        match result {
                            Ok(0) if done.load(Ordering::SeqCst) && reader.offset() == log.end() => break 'again,
                            Ok(0) => {
                                log.wait_past(reader.offset(), Duration::from_millis(20));
                            }
                            Ok(_) => {}
                            Err(ReadError::OutOfRange { .. }) if pin.is_none() => continue 'again,
                            Err(error) => panic!("{error}"),
                        }
                        for (i, byte) in buffer.iter().enumerate() {
                            assert_eq!(*byte, byte_at(from + i as u64), "offset {}", from + i as u64);
                        }
                        checked += buffer.len() as u64;
                    }
                }
                assert!(checked > 0);
            });
        }
        {
            let (log, done) = (log.clone(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    log.sync_to(log.end()).unwrap();
                    log.truncate_front(Offset(log.end().0.saturating_sub(2 << 20)));
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut random = Random::new(99);
        let mut payload = Vec::new();
        while appender.end().0 < TOTAL {
            let first = appender.end().0;
            let len = if random.one_in(500) { 300_000 } else { 1 + random.below(3000) };
            payload.clear();
            payload.extend((first..first + len).map(byte_at));
            appender.append(0, 0, &[&payload]).unwrap();
            if random.one_in(20) {
                // Or it would be done before anybody else has begun.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        done.store(true, Ordering::SeqCst);
    });

    let end = log.end();
    drop((log, appender));
    let opened = Log::open(Arc::new(RealDisk), &path, past(end.0 - 1_000_000, Ended::Killed), options).unwrap();
    assert_eq!((opened.log.end(), &opened.recovery.cut), (end, &None));
    let start = opened.log.start();
    let bytes = crate::read_all(&opened.log, start);
    assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == byte_at(start.0 + i as u64)));
    drop(opened);
    RealDisk.remove_dir_all(&path).unwrap();
}
