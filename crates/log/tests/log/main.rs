//! Tests of the log through its public interface, on the simulated disk and on the real one.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

mod basics;
mod crashes;
mod damage;
mod ends;
mod race;

use std::path::Path;
use std::sync::Arc;

use ardb_base::disk::{Disk, SimDisk};
use ardb_log::{Ended, Examined, Log, LogOptions, Offset, OpenError, Opened, Past};

/// The directory on simulated disks.
fn dir() -> &'static Path {
    Path::new("/data/log")
}

/// Small segments and no thread, so that a run follows from its seed.
fn small() -> LogOptions {
    LogOptions { segment_bytes: 4096, ahead: false }
}

/// Opens the log after the death of a process, or makes it.
fn open(disk: &SimDisk, epoch: u64, checkpoint: u64) -> Result<Opened, OpenError> {
    let there = disk.list(dir()).is_ok_and(|list| list.iter().any(|entry| entry.name.ends_with(".seg")));
    let ended = if there { Ended::Killed } else { Ended::New };
    Log::open(Arc::new(disk.clone()), dir(), Past { epoch, checkpoint: Offset(checkpoint), ended }, small())
}

/// Looks at a log of epoch 1.
fn examine(disk: &SimDisk, checkpoint: u64, ended: Ended) -> Examined {
    let past = Past { epoch: 1, checkpoint: Offset(checkpoint), ended };
    Examined::new(Arc::new(disk.clone()), dir(), past, small()).expect("the disk does not fail")
}

/// All payload bytes from `from` to the end.
fn read_all(log: &Log, from: Offset) -> Vec<u8> {
    let mut reader = log.reader(from).expect("the offset is held");
    let mut bytes = Vec::new();
    while reader.read_into(&mut bytes, 1000).expect("no damage") > 0 {}
    assert_eq!(reader.offset(), log.end());
    bytes
}
