//! The shared handle of the log: what it holds, waiting for more, pins and letting old segments go.
//!
//! Invariants: `segments` is never empty, contiguous, in order; its last one is the appender's. Whoever removes segments holds the lock of
//! `pins` while deciding, so a pin that was granted is honoured.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ardb_base::disk::{Disk, DiskError};
use ardb_base::id::Offset;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{ReadError, SyncError};
use crate::notify::{Notify, WakerHandle};
use crate::read::{Frames, Reader};
use crate::segment::Segment;
use crate::sync::SyncState;

/// How the log lays out its files.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Length of a segment's file in bytes; rounded up to whole pages of 4 KiB. A frame that does not fit gets a larger one.
    pub segment_bytes: usize,
    /// Whether a thread makes the next segment ahead of time and prepares memory for the appender. Without it segments are made by the appender; tests
    /// that must be deterministic want that.
    pub ahead: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 64 << 20, ahead: true }
    }
}

impl LogOptions {
    /// File length for a segment that must hold `bytes` besides what every segment holds.
    pub(crate) fn file_len(&self, bytes: usize) -> usize {
        const PAGE: usize = 4096;
        self.segment_bytes.max(bytes).max(PAGE).next_multiple_of(PAGE)
    }
}

/// Figures for INFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// The first offset held.
    pub start: Offset,
    /// The offset at which the next append begins.
    pub end: Offset,
    /// Everything below is durable.
    pub synced: Offset,
    /// Number of segments.
    pub segments: usize,
    /// Bytes of their files. One segment made ahead may come on top.
    pub disk_bytes: u64,
    /// Number of pins.
    pub pins: usize,
    /// The lowest offset that a pin holds.
    pub oldest_pin: Option<Offset>,
    /// Why a sync failed, if one did.
    pub failed: Option<String>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub options: LogOptions,
    /// Names the present history; readers of an earlier one stop.
    pub epoch: AtomicU64,
    pub end: AtomicU64,
    pub synced: AtomicU64,
    pub segments: RwLock<VecDeque<Arc<Segment>>>,
    /// Offset to number of pins, of the history `epoch`.
    pub pins: Mutex<BTreeMap<Offset, usize>>,
    pub notify: Notify,
    pub sync: Mutex<SyncState>,
    pub sync_done: Condvar,
    /// Whether names of segments in the directory may not be durable.
    pub names_dirty: AtomicBool,
    /// Set once, by the first sync that failed.
    pub failed: OnceLock<Arc<DiskError>>,
}

impl Shared {
    pub fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::SeqCst))
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub fn synced(&self) -> Offset {
        Offset(self.synced.load(Ordering::Acquire))
    }

    pub fn start(&self) -> Offset {
        self.segments.read().front().map_or(self.end(), |segment| segment.first)
    }

    pub fn out_of_range(&self, asked: Offset) -> ReadError {
        ReadError::OutOfRange { asked, start: self.start(), end: self.end() }
    }

    /// The segment that holds `offset` (the last one, if `offset` is the end), and the history's epoch.
    pub fn segment_of(&self, offset: Offset) -> Result<(Arc<Segment>, u64), ReadError> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.first <= offset);
        let found = after.checked_sub(1).and_then(|i| segments.get(i)).cloned();
        // Under the lock, which a change of history takes too.
        let (epoch, end) = (self.epoch(), self.end());
        drop(segments);
        match found {
            Some(segment) if offset <= end => Ok((segment, epoch)),
            _ => Err(self.out_of_range(offset)),
        }
    }

    /// The segment after `present`, if there is one; that may also be one that replaced it while it was empty.
    pub fn segment_after(&self, present: &Arc<Segment>) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let from = segments.partition_point(|segment| segment.first < present.first);
        segments.iter().skip(from).find(|segment| !Arc::ptr_eq(segment, present)).cloned()
    }
}

/// A handle of the log. Clones are handles of the same log.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

impl Log {
    /// The first offset still held.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.shared.start()
    }

    /// The offset at which the next append begins. All below is readable.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.shared.end()
    }

    /// Everything below is durable.
    #[must_use]
    pub fn synced(&self) -> Offset {
        self.shared.synced()
    }

    /// The epoch of the present history.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch()
    }

    /// Returns when everything below `offset` is durable. Callers that wait at the same time share one sync, which takes in all that was
    /// appended before it began.
    pub fn sync_to(&self, offset: Offset) -> Result<(), SyncError> {
        self.shared.sync_to(offset)
    }

    /// Why appends are refused and syncs fail, if an earlier sync failed.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<DiskError>> {
        self.shared.failed.get().cloned()
    }

    /// A reader of the payload bytes from `offset` on, which may lie inside a frame or be the end.
    pub fn reader(&self, offset: Offset) -> Result<Reader, ReadError> {
        Reader::new(self.shared.clone(), offset)
    }

    /// A reader of whole frames, beginning with the one that holds `offset` (or, at the end, with the next one).
    pub fn frames_from(&self, offset: Offset) -> Result<Frames, ReadError> {
        Frames::new(self.shared.clone(), offset)
    }

    /// Waits until there are bytes past `offset`, or a new history begins, or `timeout` has passed. Gives whether there are such bytes.
    pub fn wait_past(&self, offset: Offset, timeout: Duration) -> bool {
        let epoch = self.epoch();
        self.shared.notify.wait(timeout, || self.end() > offset || self.epoch() != epoch);
        self.end() > offset
    }

    /// Registers a callback for an event loop. It is called once for each [`WakerHandle::arm`], on the appender's thread, so it must be quick
    /// and must not call the log.
    #[must_use]
    pub fn register_waker(&self, callback: Arc<dyn Fn() + Send + Sync>) -> WakerHandle {
        WakerHandle::new(self.shared.clone(), callback)
    }

    /// Holds the log from `offset` on, until the guard is dropped.
    pub fn pin(&self, offset: Offset) -> Result<Pin, ReadError> {
        let mut pins = self.shared.pins.lock();
        if offset < self.start() || offset > self.end() {
            drop(pins);
            return Err(self.shared.out_of_range(offset));
        }
        *pins.entry(offset).or_insert(0) += 1;
        Ok(Pin { shared: self.shared.clone(), epoch: self.epoch(), offset })
    }

    /// Deletes the segments that lie wholly below `keep_from` and every pin; never the one that is appended to. What is read right now stays mapped
    /// for its readers. Gives the first offset still held. A file that cannot be deleted is reported in the program's log only;
    /// the next opening deals with it.
    pub fn truncate_front(&self, keep_from: Offset) -> Offset {
        self.truncate_front_past(keep_from, Offset(0)).start
    }

    /// As [`Log::truncate_front`], but pins below `pins_from` hold only what is from there on.
    pub fn truncate_front_past(&self, keep_from: Offset, pins_from: Offset) -> Truncated {
        let shared = &*self.shared;
        let mut gone = Vec::new();
        let (start, overruled) = {
            let pins = shared.pins.lock();
            let keep = pins.keys().next().map_or(keep_from, |pinned| keep_from.min(pins_from.max(*pinned)));
            let mut segments = shared.segments.write();
            // A segment ends where the next one begins. That one must be durable, name and all, or a loss of power could leave neither, and
            // nothing would tell that from a log that somebody removed.
            while segments.get(1).is_some_and(|next| next.first <= keep && next.first < shared.synced()) {
                gone.extend(segments.pop_front());
            }
            let start = segments.front().map_or(shared.end(), |segment| segment.first);
            (start, pins.range(..start).map(|(_, count)| count).sum())
        };
        // Oldest first, so that what a crash leaves is contiguous unless the disk reorders removals, which opening notices by the headers' chain.
        for segment in gone {
            if let Err(error) = shared.disk.remove(&segment.path) {
                log::warn!("log: an old segment stays behind: {error}");
            }
        }
        Truncated { start, overruled }
    }

    /// Figures for INFO.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let (pins, oldest_pin) = {
            let pins = self.shared.pins.lock();
            (pins.values().sum(), pins.keys().next().copied())
        };
        let (start, segments, disk_bytes) = {
            let segments = self.shared.segments.read();
            let bytes = segments.iter().map(|segment| segment.region.len() as u64).sum();
            (segments.front().map_or(self.end(), |segment| segment.first), segments.len(), bytes)
        };
        let failed = self.failure().map(|error| error.to_string());
        LogStats { start, end: self.end(), synced: self.synced(), segments, disk_bytes, pins, oldest_pin, failed }
    }
}

/// What [`Log::truncate_front_past`] left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The first offset still held.
    pub start: Offset,
    /// Pins that want more than that.
    pub overruled: usize,
}

/// Holds the log from an offset on. It loses its hold when a new history begins.
#[derive(Debug)]
pub struct Pin {
    shared: Arc<Shared>,
    epoch: u64,
    offset: Offset,
}

impl Pin {
    /// The offset from which the log is held.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Moves the hold forward to `offset`; one that lies behind changes nothing.
    pub fn advance(&mut self, offset: Offset) {
        if offset <= self.offset {
            return;
        }
        let mut pins = self.shared.pins.lock();
        if self.shared.epoch() == self.epoch {
            release(&mut pins, self.offset);
            *pins.entry(offset).or_insert(0) += 1;
        }
        self.offset = offset;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        // The pins of an earlier history were all cleared when it ended.
        if self.shared.epoch() == self.epoch {
            release(&mut pins, self.offset);
        }
    }
}

fn release(pins: &mut BTreeMap<Offset, usize>, offset: Offset) {
    if let Some(count) = pins.get_mut(&offset) {
        *count -= 1;
        if *count == 0 {
            pins.remove(&offset);
        }
    }
}
