//! Tests of the log through its public interface, on the simulated disk and on the real one.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

mod basics;
mod crashes;
mod damage;
mod race;

use std::path::Path;
use std::sync::Arc;

use ardb_base::disk::SimDisk;
use ardb_log::{Log, LogOptions, Offset, OpenError, Opened};

/// The directory on simulated disks.
fn dir() -> &'static Path {
    Path::new("/data/log")
}

/// Small segments and no thread, so that a run follows from its seed.
fn small() -> LogOptions {
    LogOptions { segment_bytes: 4096, ahead: false }
}

fn open(disk: &SimDisk, epoch: u64, checkpoint: u64) -> Result<Opened, OpenError> {
    Log::open(Arc::new(disk.clone()), dir(), epoch, Offset(checkpoint), small())
}

/// All payload bytes from `from` to the end.
fn read_all(log: &Log, from: Offset) -> Vec<u8> {
    let mut reader = log.reader(from).expect("the offset is held");
    let mut bytes = Vec::new();
    while reader.read_into(&mut bytes, 1000).expect("no damage") > 0 {}
    assert_eq!(reader.offset(), log.end());
    bytes
}
