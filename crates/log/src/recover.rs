//! Opening a log that was examined: what cannot be part of it goes out of the way, and the rest is handed out.
//!
//! Only what lies behind the checkpoint was read whole. Of the segments before it the headers were checked, which chain each to the one before; their frames
//! are checked by whoever reads them. What cannot be part of the log is removed before the log is handed out, and so that it stays removed: the
//! bytes behind the end are zeroed and that is synced, since a frame left there could else become the successor of a new one. What is cut off as damage is
//! kept under other names, before anything of it is touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ardb_base::disk::{Disk, DiskError, RegionWriter};
use ardb_base::id::Offset;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::append::{Appender, first_segment};
use crate::error::{Damage, Fault, OpenError};
use crate::examine::{COPY_NAME, CUT_OFF, DAMAGED, Ended, Examined, Found, LostHeader, Past, Walk};
use crate::log::{Log, LogOptions, Shared};
use crate::notify::Notify;
use crate::segment::{self, Segment};
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
    /// Good frames in both.
    pub frames: u64,
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
    /// How many whole segments, or files with the names of such, were behind the end.
    pub taken_out: usize,
    /// The damage at which the log was cut, if it was that.
    pub damage: Option<Damage>,
    /// The copy of the bytes that were zeroed, if they were kept.
    pub kept: Option<PathBuf>,
    /// New names of segments that are no part of the log, so that a person may look at them. Those that end in `.damaged` stay; those that end in `.cut`
    /// are deleted when the next ones are found.
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

impl Log {
    /// Opens the log in `dir`, or makes an empty one there that begins at the checkpoint. Frames behind the checkpoint are checked and the log is cut after
    /// the last good one. Nobody else may use the directory.
    ///
    /// # Errors
    /// Damage among others; [`Examined`] is for those who may go on all the same.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, past: Past, options: LogOptions) -> Result<Opened, OpenError> {
        let examined = Examined::new(disk, dir, past, options)?;
        match examined.damage {
            Some(damage) => Err(OpenError::Damaged(Box::new(damage))),
            None => examined.open(),
        }
    }
}

impl Examined {
    /// Whether what is taken out of the log is kept for good.
    fn keeps(&self) -> bool {
        self.damage.is_some() || self.past.ended == Ended::Cutting
    }

    /// Copies the bytes behind the end of the last segment to a file of their own, durably, if they are to be kept. Changes nothing else. [`Examined::open`] does
    /// it too; this is for callers that note something between the two.
    pub fn keep_tail(&mut self) -> Result<(), DiskError> {
        let Some((last, walk)) = self.walked.last().filter(|(_, walk)| self.used > walk.at && self.keeps()) else {
            return Ok(());
        };
        if self.recovery.kept.is_some() {
            return Ok(());
        }
        let tail = last.writer.contents().get(walk.at..self.used).unwrap_or_default();
        let base = with_ending(&last.path, &format!(".{}.tail", walk.at));
        for number in 1.. {
            let path = damaged_name(&base, number);
            if self.is_taken(&path) {
                // An opening that died later than here has kept it already.
                if self.disk.read(&path)? != tail {
                    continue;
                }
            } else {
                let copy = self.dir.join(COPY_NAME);
                self.disk.write_file(&copy, tail)?;
                self.disk.rename(&copy, &path)?;
                self.disk.sync_dir(&self.dir)?;
                // One of an attempt before.
                self.leftovers.retain(|path| *path != copy);
            }
            self.recovery.kept = Some(path);
            break;
        }
        last.writer.region().release(0..last.writer.contents().len());
        Ok(())
    }

    /// Opens the log as it was found. Where there is damage, the log is cut there, and what is cut off is kept.
    pub fn open(mut self) -> Result<Opened, OpenError> {
        self.keep_tail()?;
        self.clear()?;
        let Examined { disk, dir, past, options, before, walked, end, fault, used, rest, damage, .. } = self;
        let mut recovery = self.recovery;
        let shared = Arc::new(Shared {
            disk,
            dir,
            options,
            epoch: AtomicU64::new(past.epoch),
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
        let (last, mut writer, at) = match adopt(&shared, before, walked) {
            Some(adopted) => adopted,
            None => {
                recovery.created = true;
                let (segment, writer) = first_segment(&shared, past.epoch, past.checkpoint)?;
                shared.segments.write().push_back(segment.clone());
                (segment, writer, segment::HEADER_BYTES)
            }
        };
        let bytes = if used > at { writer.zero_from(at) as u64 } else { 0 };
        if bytes > 0 {
            // Before anything is appended, or an old frame could follow a new one.
            writer.sync_all()?;
        }
        writer.region().release(0..writer.contents().len());
        let segments = recovery.taken_out;
        let fault = match fault {
            // An append that was not finished has nothing behind it.
            None | Some(Fault::Unfinished) if segments > 0 => Some(Fault::Gap),
            fault => fault,
        };
        if let Some(fault) = fault {
            recovery.cut = Some(Cut { at: end, fault, bytes, segments, frames: rest.frames });
        }
        recovery.damage = damage;
        recovery.start = shared.start();
        recovery.end = end;
        shared.end.store(end.0, Ordering::SeqCst);
        // What a process that died had appended may not be durable; only the caller's checkpoint says what is.
        let synced = if recovery.created { end } else { past.checkpoint.min(end) };
        shared.synced.store(synced.0, Ordering::Release);
        let appender = Appender::new(shared.clone(), last, writer, at, end);
        Ok(Opened { log: Log { shared }, appender, recovery })
    }

    /// Removes what is no part of the history, and gives other names to segments that are no part of the log.
    fn clear(&mut self) -> Result<(), DiskError> {
        self.recovery.taken_out = self.taken_out();
        let keeps = self.keeps();
        for path in std::mem::take(&mut self.leftovers) {
            self.remove(&path)?;
        }
        for segment in std::mem::take(&mut self.let_go) {
            drop(segment.writer);
            self.remove(&segment.path)?;
        }
        // Last ones first, so that what a death leaves here is no other log.
        for segment in std::mem::take(&mut self.behind).into_iter().rev() {
            drop(segment.writer);
            self.set_aside(&segment.path, keeps)?;
        }
        for lost in std::mem::take(&mut self.lost).into_iter().rev() {
            let empty = lost.writer.is_none();
            drop(lost.writer);
            // Its header was durable before anything in it was, so the header went bad later.
            let once_good = lost.first < self.past.checkpoint && !empty;
            if once_good {
                log::warn!("log: {} has no good header; replicas cannot go on from there", lost.path.display());
            }
            if keeps || once_good {
                self.set_aside(&lost.path, true)?;
            } else if self.walked.is_empty() && lost.first == self.past.checkpoint {
                // It alone tells that the log is empty and not gone, so it stays until the new first segment takes its name.
                self.recovery.leftovers += 1;
            } else if lost.header == LostHeader::Damaged {
                self.set_aside(&lost.path, false)?;
            } else {
                self.remove(&lost.path)?;
            }
        }
        for segment in std::mem::take(&mut self.in_vain) {
            drop(segment.writer);
            self.set_aside(&segment.path, false)?;
        }
        // Before anything is appended: what was taken out must not come back beside new segments.
        self.disk.sync_dir(&self.dir)
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)?;
        self.recovery.leftovers += 1;
        Ok(())
    }

    /// Gives a segment a name that is not a segment's: for good, or in place of those that an earlier opening has set aside.
    fn set_aside(&mut self, path: &Path, keep: bool) -> Result<(), DiskError> {
        let name = if keep {
            let mut number = 1;
            while self.is_taken(&damaged_name(path, number)) {
                number += 1;
            }
            damaged_name(path, number)
        } else {
            for old in std::mem::take(&mut self.old_cut) {
                self.disk.remove(&old)?;
            }
            with_ending(path, CUT_OFF)
        };
        self.disk.rename(path, &name)?;
        self.recovery.set_aside.push(name);
        Ok(())
    }

    /// Whether a file of that name was kept before.
    fn is_taken(&self, path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| self.old_damaged.iter().any(|old| **old == *name))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The name for what is kept of `path`, the `number`-th time.
fn damaged_name(path: &Path, number: u32) -> PathBuf {
    let ending = if number == 1 { DAMAGED.to_owned() } else { format!(".{number}{DAMAGED}") };
    with_ending(path, &ending)
}

/// Puts the segments found into the log. Gives the last one with its writer and the place of its end, unless there is none.
fn adopt(
    shared: &Shared,
    before: Vec<Found>,
    walked: Vec<(Found, Walk)>,
) -> Option<(Arc<Segment>, RegionWriter, usize)> {
    let mut segments = shared.segments.write();
    for Found { path, header, mut writer } in before {
        let region = writer.region().clone();
        let len = region.len();
        writer.publish(len);
        segments.push_back(Arc::new(Segment::new(&path, &header, region, len, len)));
    }
    let mut last = None;
    for (Found { path, header, mut writer }, walk) in walked {
        let Walk { at, trusted_from, .. } = walk;
        // A sync of the process before may have failed. From its page on, or from the header on, which was new then.
        writer.rewrite(if trusted_from == segment::HEADER_BYTES { 0 } else { trusted_from }..at);
        writer.publish(at);
        let segment = Arc::new(Segment::new(&path, &header, writer.region().clone(), trusted_from, 0));
        for (offset, place) in walk.index {
            segment.note(offset, place);
        }
        segments.push_back(segment.clone());
        last = Some((segment, writer, at));
    }
    last
}
