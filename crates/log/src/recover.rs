//! Opening a log: finding out what a crash, or a person, has left.
//!
//! Only what lies behind the checkpoint is read whole. Of the segments before it the headers are checked, which chain each to the one before; their frames
//! are checked by whoever reads them. What cannot be part of the log is removed before the log is handed out, and so that it stays removed: the
//! bytes behind the end are zeroed and that is synced, since a frame left there could else become the successor of a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ardb_base::disk::{Disk, DiskError, RegionWriter};
use ardb_base::id::Offset;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::append::{Appender, SPARE_NAMES, first_segment};
use crate::error::{Fault, OpenError};
use crate::frame::{self, Look};
use crate::log::{Log, LogOptions, Shared};
use crate::notify::Notify;
use crate::segment::{self, BadHeader, Segment, SegmentHeader};
use crate::sync::SyncState;

/// What was cut off the end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The end of the log, behind which things were cut off.
    pub at: Offset,
    /// Why the log ends there.
    pub fault: Fault,
    /// Bytes of file that were zeroed in the last segment.
    pub bytes: u64,
    /// Whole segments that were taken out.
    pub segments: usize,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The first offset held, never more than the checkpoint.
    pub start: Offset,
    /// The end. Less than the checkpoint if the log has lost what the engine already has: then a new history must begin.
    pub end: Offset,
    /// Whether there was no log and an empty one was made.
    pub created: bool,
    /// Frames that were read and checked.
    pub frames: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// What was cut off. [`Fault::Unfinished`] alone is what a killed process leaves in mid-append; it lost nothing that was appended.
    pub cut: Option<Cut>,
    /// Files of other histories, and temporary ones, that were deleted.
    pub leftovers: usize,
    /// Segments with damage or without connection, renamed so that a person may look at them. They are deleted when the next ones are found.
    pub set_aside: Vec<PathBuf>,
}

/// An opened log.
#[derive(Debug)]
pub struct Opened {
    /// The shared handle.
    pub log: Log,
    /// The right to append.
    pub appender: Appender,
    /// What was found.
    pub recovery: Recovery,
}

/// Ending of the names of segments that were set aside.
const SET_ASIDE: &str = ".damaged";

/// A segment that was found, with a good header.
struct Found {
    path: PathBuf,
    header: SegmentHeader,
    writer: RegionWriter,
}

/// What reading the frames of one segment gave.
struct Walk {
    /// Place and offset of its end.
    at: usize,
    end: Offset,
    /// Frames from here on are checked.
    trusted_from: usize,
    fault: Option<Fault>,
    index: Vec<(Offset, usize)>,
}

impl Log {
    /// Opens the log in `dir`, or makes an empty one there that begins at `checkpoint`.
    ///
    /// `epoch` names the history; the caller keeps it in its state ([`Appender::prepare_reset`] changes it). Segments of other epochs are deleted.
    /// `checkpoint` is the offset from which the caller will replay: frames behind it are checked and the log is cut after the last good
    /// one; everything before it must have been synced. Nobody else may use the directory.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        epoch: u64,
        checkpoint: Offset,
        options: LogOptions,
    ) -> Result<Opened, OpenError> {
        let mut recovery = Recovery::default();
        disk.create_dir_all(dir)?;
        let Listing { mut found, lost, mut aside } = find(&*disk, dir, epoch, &mut recovery)?;

        // The segment that holds the checkpoint, and before it those that chain up to it.
        let holding = found.partition_point(|segment| segment.header.first <= checkpoint).checked_sub(1);
        let anchor = holding.unwrap_or(0);
        let mut oldest = anchor;
        while oldest > 0 && found[oldest].header.previous == Some(found[oldest - 1].header.first) {
            oldest -= 1;
        }
        // These were let go before; the disk had not made their removal durable.
        for segment in found.drain(..oldest) {
            drop(segment.writer);
            disk.remove(&segment.path)?;
            recovery.leftovers += 1;
        }
        let anchor = anchor - oldest;

        let mut walks: Vec<Walk> = Vec::new();
        // Where no segment holds the checkpoint, those that are there have no connection to it: none is part of the log.
        let connected = if holding.is_some() { found.len() } else { 0 };
        for (i, segment) in found.iter().enumerate().take(connected).skip(anchor) {
            if let Some(before) = walks.last() {
                let connected =
                    before.end == segment.header.first && segment.header.previous == Some(found[i - 1].header.first);
                if before.fault.is_some() || !connected {
                    break;
                }
            }
            walks.push(walk(segment, checkpoint, &mut recovery));
            segment.writer.region().release(0..segment.writer.contents().len());
        }
        let behind = found.split_off((anchor + walks.len()).min(found.len()));
        let end = walks.last().map_or(checkpoint, |walk| walk.end);
        // Segments without a good header are missing from the end, unless they are so old that nothing needs them.
        let lost = lost.iter().filter(|first| **first >= end).count();
        let taken_out = behind.len() + lost;
        let fault = walks.last().and_then(|walk| walk.fault).or((taken_out > 0).then_some(Fault::Gap));
        for segment in behind.into_iter().rev() {
            let path = segment.path;
            drop(segment.writer);
            aside.put(&*disk, &path, &mut recovery)?;
        }
        // Before anything is appended: what was taken out must not come back beside new segments.
        disk.sync_dir(dir)?;

        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options,
            epoch: AtomicU64::new(epoch),
            end: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            segments: RwLock::default(),
            pins: Mutex::default(),
            notify: Notify::default(),
            sync: Mutex::new(SyncState::default()),
            sync_done: Condvar::new(),
            // A process that died may have made the last segments without syncing their names.
            names_dirty: AtomicBool::new(true),
            failed: OnceLock::new(),
        });
        let (last, mut writer, at) = if walks.is_empty() {
            recovery.created = true;
            let (segment, writer) = first_segment(&shared, epoch, checkpoint)?;
            shared.segments.write().push_back(segment.clone());
            (segment, writer, segment::HEADER_BYTES)
        } else {
            adopt(&shared, found, walks, anchor)
        };
        let bytes = writer.zero_from(at) as u64;
        if bytes > 0 {
            // Before anything is appended, or an old frame could follow a new one.
            writer.sync_all()?;
        }
        writer.region().release(0..writer.contents().len());
        if bytes > 0 || fault.is_some() {
            let fault = fault.unwrap_or(Fault::Unfinished);
            recovery.cut = Some(Cut { at: end, fault, bytes, segments: taken_out });
        }
        recovery.start = shared.start();
        recovery.end = end;
        shared.end.store(end.0, Ordering::SeqCst);
        // What a process that died had appended may not be durable; only the caller's checkpoint says what is.
        let synced = if recovery.created { end } else { checkpoint.min(end) };
        shared.synced.store(synced.0, Ordering::Release);
        let appender = Appender::new(shared.clone(), last, writer, at, end);
        Ok(Opened { log: Log { shared }, appender, recovery })
    }
}

/// What a directory holds.
struct Listing {
    /// Segments of the history with good headers, in order.
    found: Vec<Found>,
    /// First offsets, by their names, of segments of the history without a good header.
    lost: Vec<Offset>,
    aside: Aside,
}

/// Takes stock of a directory, and removes what is no part of the history.
fn find(disk: &dyn Disk, dir: &Path, epoch: u64, recovery: &mut Recovery) -> Result<Listing, OpenError> {
    let mut listing = Listing { found: Vec::new(), lost: Vec::new(), aside: Aside { old: Vec::new() } };
    let mut leftovers = Vec::new();
    let mut damaged = Vec::new();
    // Names sort as offsets do, and the listing is sorted.
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        let Some((of_epoch, first)) = segment::parse_name(&entry.name) else {
            if SPARE_NAMES.contains(&entry.name.as_str()) {
                leftovers.push(path);
            } else if entry.name.ends_with(SET_ASIDE) {
                listing.aside.old.push(path);
            }
            continue;
        };
        if of_epoch != epoch {
            leftovers.push(path);
            continue;
        }
        if entry.len == 0 {
            // The file was made, but its length did not reach the disk.
            listing.lost.push(first);
            leftovers.push(path);
            continue;
        }
        let writer = disk.open_region(&path)?;
        match SegmentHeader::decode(writer.contents()) {
            Ok(header) if header.epoch == epoch && header.first == first => {
                listing.found.push(Found { path, header, writer });
            }
            Err(BadHeader::Version(version)) => return Err(OpenError::Version { path, version }),
            Err(BadHeader::Blank) => {
                listing.lost.push(first);
                leftovers.push(path);
            }
            Ok(_) | Err(BadHeader::Damaged) => {
                listing.lost.push(first);
                damaged.push(path);
            }
        }
    }
    // Only now, when no file forbids to go on.
    for path in leftovers {
        disk.remove(&path)?;
        recovery.leftovers += 1;
    }
    for path in damaged {
        listing.aside.put(disk, &path, recovery)?;
    }
    Ok(listing)
}

/// Sets segments aside that cannot be used, in place of those that an earlier opening set aside.
struct Aside {
    old: Vec<PathBuf>,
}

impl Aside {
    fn put(&mut self, disk: &dyn Disk, path: &Path, recovery: &mut Recovery) -> Result<(), DiskError> {
        for old in self.old.drain(..) {
            disk.remove(&old)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(SET_ASIDE);
        let name = PathBuf::from(name);
        disk.rename(path, &name)?;
        recovery.set_aside.push(name);
        Ok(())
    }
}

/// Goes through the frames of one segment, and checks those that reach past the checkpoint.
fn walk(segment: &Found, checkpoint: Offset, recovery: &mut Recovery) -> Walk {
    let bytes = segment.writer.contents();
    let mut trusted_from = None;
    let mut index = Vec::new();
    let (mut at, mut end) = (segment::HEADER_BYTES, segment.header.first);
    let mut noted = at;
    let fault = loop {
        let header = match frame::look(bytes, at, end) {
            Look::End => break None,
            Look::Fault(fault) => break Some(fault),
            Look::Frame(header) => header,
        };
        if header.end() > checkpoint {
            trusted_from.get_or_insert(at);
            if let Err(fault) = frame::check(bytes, at, &header, segment.header.epoch) {
                break Some(fault);
            }
            recovery.frames += 1;
            recovery.bytes += header.len as u64;
        }
        at += header.stride();
        end = header.end();
        if Segment::far_enough(noted, at) {
            index.push((end, at));
            noted = at;
        }
    };
    Walk { at, end, trusted_from: trusted_from.unwrap_or(at), fault, index }
}

/// Puts the segments found into the log. Gives the last one with its writer and the place of its end. `walks` are those of `found[anchor..]` and
/// there is at least one.
fn adopt(shared: &Shared, found: Vec<Found>, walks: Vec<Walk>, anchor: usize) -> (Arc<Segment>, RegionWriter, usize) {
    let mut segments = shared.segments.write();
    let mut last = None;
    let mut walks = walks.into_iter();
    for (i, Found { path, header, mut writer }) in found.into_iter().enumerate() {
        let region = writer.region().clone();
        let len = region.len();
        let walk = if i < anchor { None } else { walks.next() };
        let (at, trusted_from, synced) = walk.as_ref().map_or((len, len, len), |walk| (walk.at, walk.trusted_from, 0));
        if synced < at {
            // A sync of the process before may have failed. From its page on, or from the header on, which was new then.
            writer.rewrite(if trusted_from == segment::HEADER_BYTES { 0 } else { trusted_from }..at);
        }
        writer.publish(at);
        let segment = Arc::new(Segment::new(&path, &header, region, trusted_from, synced));
        for (offset, place) in walk.into_iter().flat_map(|walk| walk.index) {
            segment.note(offset, place);
        }
        segments.push_back(segment.clone());
        last = Some((segment, writer, at));
    }
    last.expect("there is a walked segment, so there is a last one")
}
