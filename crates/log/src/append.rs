//! The appending side: one [`Appender`] a log.
//!
//! A frame is published with one store of the segment's length, after its last byte was written, so a reader sees all of it or nothing; and a
//! process that dies in the middle leaves an unfinished frame behind the end, whose header is still zero, because the header is written last.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::disk::{DiskError, RegionWriter};
use ardb_base::id::{Offset, UnixMs};

use crate::ahead::{Ahead, Spare, WARM_BYTES};
use crate::error::{AppendError, ResetError};
use crate::frame;
use crate::log::{Log, Shared};
use crate::segment::{self, Segment, SegmentHeader};

/// Name of the file that is made ahead. Opening removes it.
pub(crate) const SPARE_NAMES: [&str; 2] = ["spare-0.tmp", "spare-1.tmp"];

/// The right to append to the log. There is one, and it is dropped before the log may be opened again.
pub struct Appender {
    shared: Arc<Shared>,
    ahead: Option<Ahead>,
    segment: Arc<Segment>,
    writer: RegionWriter,
    /// Place of the next frame.
    at: usize,
    /// Offset of the next frame.
    end: Offset,
    epoch: u64,
    /// Place that the segment's index was last told of.
    noted: usize,
    /// The memory is prepared up to here.
    warmed: usize,
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").field("end", &self.end).field("segment", &self.segment.path).finish_non_exhaustive()
    }
}

impl Appender {
    /// For a log whose last segment is `segment`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        segment: Arc<Segment>,
        writer: RegionWriter,
        at: usize,
        end: Offset,
    ) -> Appender {
        let ahead = if shared.options.ahead { Ahead::start(shared.disk.clone()) } else { None };
        let epoch = segment.epoch;
        let mut appender = Appender { shared, ahead, segment, writer, at, end, epoch, noted: at, warmed: 0 };
        appender.prepare_ahead();
        appender
    }

    /// A handle of the log.
    #[must_use]
    pub fn log(&self) -> Log {
        Log { shared: self.shared.clone() }
    }

    /// The offset at which the next append begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Appends the concatenation of `payload` as one frame, in a stream in which `db` is selected before its first byte and whose commands were executed at
    /// `time` (ms since 1970), and lets readers see it. Gives the offset of its end. Durable only after [`Log::sync_to`]; but should only the process die, it is not lost. An empty
    /// payload appends nothing. After an error the log is as it was.
    pub fn append(&mut self, db: u32, time: UnixMs, payload: &[&[u8]]) -> Result<Offset, AppendError> {
        if let Some(failure) = self.shared.failed.get() {
            return Err(AppendError::Failed(failure.clone()));
        }
        let len: usize = payload.iter().map(|part| part.len()).sum();
        if len == 0 {
            return Ok(self.end);
        }
        let counted = u32::try_from(len).ok().filter(|_| len as u64 <= frame::MAX_OFFSET - self.end.0);
        let Some(counted) = counted else { return Err(AppendError::TooLong(len)) };
        let stride = frame::stride(len);
        if stride > self.writer.region().len() - self.at {
            self.next_segment(stride).map_err(AppendError::NoSegment)?;
        }
        let header = frame::encode(self.epoch, self.end, db, time, counted, payload);
        let mut at = self.at + frame::HEADER_BYTES;
        for part in payload {
            self.writer.write(at, part);
            at += part.len();
        }
        // The padding is zero already: nothing was ever written here, or it was zeroed when the log was opened.
        self.writer.write(self.at, &header);
        debug_assert_eq!(self.check_last(self.at), Some((len, db)), "the reader must accept what the writer wrote");
        if Segment::far_enough(self.noted, self.at) {
            self.segment.note(self.end, self.at);
            self.noted = self.at;
        }
        self.at += stride;
        self.end = self.end.advance(len);
        self.writer.publish(self.at);
        self.shared.end.store(self.end.0, Ordering::SeqCst);
        self.shared.notify.grown(self.end);
        if self.at + WARM_BYTES / 2 > self.warmed {
            self.warm();
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.hand_over();
        }
        Ok(self.end)
    }

    /// What the reading side makes of the frame at `at`.
    fn check_last(&self, at: usize) -> Option<(usize, u32)> {
        let bytes = self.writer.contents();
        match frame::look(bytes, at, self.end) {
            frame::Look::Frame(header) => {
                frame::check(bytes, at, &header, self.epoch).ok().map(|()| (header.len, header.db))
            }
            frame::Look::End | frame::Look::Fault(_) => None,
        }
    }

    #[cold]
    fn warm(&mut self) {
        let region = self.writer.region();
        let from = self.warmed.max(self.at).min(region.len());
        let to = (self.at + WARM_BYTES).min(region.len());
        self.warmed = if to == region.len() { usize::MAX } else { to };
        if let Some(ahead) = &mut self.ahead {
            ahead.warm(region.clone(), from..to);
            // Followers that keep up read what was written last, so that much stays.
            ahead.release(region, self.at.saturating_sub(WARM_BYTES));
        }
    }

    /// Has the next segment's file made, and the memory of this one prepared.
    fn prepare_ahead(&mut self) {
        self.warmed = self.at;
        self.warm();
        if let Some(ahead) = &mut self.ahead {
            ahead.want(self.shared.dir.join(SPARE_NAMES[0]), self.shared.options.file_len(0));
            ahead.hand_over();
        }
    }

    /// Goes on in a new segment, which holds a frame of `stride` bytes at least.
    #[cold]
    fn next_segment(&mut self, stride: usize) -> Result<(), DiskError> {
        let len = self.shared.options.file_len(segment::HEADER_BYTES + stride);
        // An empty segment that is too small for the frame is replaced: two of the same offset would have the same name.
        let replace = self.at == segment::HEADER_BYTES;
        let previous = if replace { self.segment.previous } else { Some(self.segment.first) };
        let header = SegmentHeader { epoch: self.epoch, first: self.end, previous, file_len: len as u64 };
        let spare = match &mut self.ahead {
            Some(ahead) if len == self.shared.options.file_len(0) => ahead.take(),
            _ => None,
        };
        let (segment, writer) = create_segment(&self.shared, &header, spare, replace)?;
        self.shared.names_dirty.store(true, Ordering::Release);
        {
            let mut segments = self.shared.segments.write();
            if replace {
                segments.pop_back();
            }
            segments.push_back(segment.clone());
        }
        self.enter(segment, writer, self.end);
        Ok(())
    }

    fn enter(&mut self, segment: Arc<Segment>, writer: RegionWriter, end: Offset) {
        if let Some(ahead) = &mut self.ahead {
            let region = self.writer.region();
            ahead.release(region, region.len());
        }
        self.epoch = segment.epoch;
        self.segment = segment;
        self.writer = writer;
        self.at = segment::HEADER_BYTES;
        self.end = end;
        self.noted = self.at;
        self.prepare_ahead();
    }

    /// First step of beginning a new history, of which the next byte has the offset `start`: makes its first segment, durably, beside the
    /// present log, which stays in use.
    ///
    /// The order that makes the change safe against crashes: this; then the caller writes the new epoch to its own state, durably; then
    /// [`Appender::finish_reset`]. Until the state names the new epoch, opening with the old one removes the new segment; from then on, opening with
    /// the new one removes the old segments. So the state alone decides, in one step. `epoch` must be greater than every epoch used before in this
    /// directory.
    pub fn prepare_reset(&mut self, epoch: u64, start: Offset) -> Result<PreparedReset, ResetError> {
        if let Some(failure) = self.shared.failed.get() {
            return Err(ResetError::Failed(failure.clone()));
        }
        if epoch <= self.epoch {
            return Err(ResetError::Epoch { new: epoch, present: self.epoch });
        }
        if start.0 > frame::MAX_OFFSET {
            return Err(ResetError::Offset(start));
        }
        let (segment, writer) = first_segment(&self.shared, epoch, start)?;
        Ok(PreparedReset { shared: self.shared.clone(), parts: Some((segment, writer)) })
    }

    /// Last step of beginning a new history: switches to it and deletes the old segments. Readers of the old history end with
    /// [`crate::ReadError::Replaced`], its pins hold nothing any more. Call it when the new epoch is durable in the state.
    ///
    /// # Panics
    /// If `prepared` comes from another log.
    pub fn finish_reset(&mut self, mut prepared: PreparedReset) {
        assert!(Arc::ptr_eq(&prepared.shared, &self.shared), "a reset that was prepared for another log");
        // It is taken only here and when dropped.
        let Some((segment, writer)) = prepared.parts.take() else { return };
        let shared = self.shared.clone();
        let start = segment.first;
        // Nobody may sync in the middle of this, or the old history's end would become the new one's synced offset.
        let mut state = shared.sync.lock();
        while state.busy {
            shared.sync_done.wait(&mut state);
        }
        let old = {
            let mut pins = shared.pins.lock();
            let mut segments = shared.segments.write();
            pins.clear();
            shared.epoch.store(segment.epoch, Ordering::SeqCst);
            shared.end.store(start.0, Ordering::SeqCst);
            shared.synced.store(start.0, Ordering::Release);
            std::mem::replace(&mut *segments, [segment.clone()].into())
        };
        shared.sync_done.notify_all();
        drop(state);
        self.enter(segment, writer, start);
        shared.notify.all();
        for segment in old {
            if let Err(error) = shared.disk.remove(&segment.path) {
                log::warn!("log: a segment of the replaced history stays behind: {error}");
            }
        }
    }
}

/// A new history that waits for the state to name it. Dropping it takes it back.
pub struct PreparedReset {
    shared: Arc<Shared>,
    parts: Option<(Arc<Segment>, RegionWriter)>,
}

impl fmt::Debug for PreparedReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedReset").finish_non_exhaustive()
    }
}

impl PreparedReset {
    /// Lets go of it without deleting its file: for a caller that does not know whether its state names the new epoch, because writing it
    /// failed. The next opening keeps the segment or removes it, as the state says.
    pub fn leave(mut self) {
        self.parts = None;
    }
}

impl Drop for PreparedReset {
    fn drop(&mut self) {
        if let Some((segment, writer)) = self.parts.take() {
            drop(writer);
            // If it stays, the next opening removes it, because its epoch is not the state's.
            let _ = self.shared.disk.remove(&segment.path);
        }
    }
}

/// Makes the first segment of a history, durably.
pub(crate) fn first_segment(
    shared: &Shared,
    epoch: u64,
    start: Offset,
) -> Result<(Arc<Segment>, RegionWriter), DiskError> {
    let file_len = shared.options.file_len(0) as u64;
    let header = SegmentHeader { epoch, first: start, previous: None, file_len };
    let (segment, writer) = create_segment(shared, &header, None, false)?;
    writer.region().sync(0..segment::HEADER_BYTES)?;
    shared.disk.sync_dir(&shared.dir)?;
    segment.synced.store(segment::HEADER_BYTES, Ordering::Release);
    Ok((segment, writer))
}

/// Makes a segment from the spare file or a new one, and gives it its name. After an error there is none. `replaces` says that the name is that of a segment
/// which a power failure must find whole, if not the new one: that may be all that there is of the log.
fn create_segment(
    shared: &Shared,
    header: &SegmentHeader,
    spare: Option<Spare>,
    replaces: bool,
) -> Result<(Arc<Segment>, RegionWriter), DiskError> {
    let disk = &*shared.disk;
    let len = header.file_len as usize;
    let Spare { path: temporary, mut writer } = match spare {
        Some(spare) if spare.writer.region().len() == len => spare,
        _ => {
            let path = shared.dir.join(SPARE_NAMES[1]);
            match Spare::make(disk, path.clone(), len) {
                // Left by an attempt that could not clean up.
                Err(error) if error.kind == ardb_base::disk::DiskErrorKind::Exists => {
                    disk.remove(&path)?;
                    Spare::make(disk, path, len)?
                }
                made => made?,
            }
        }
    };
    writer.write(0, &header.encode());
    writer.publish(segment::HEADER_BYTES);
    debug_assert_eq!(SegmentHeader::decode(writer.contents()), Ok(*header));
    let path = shared.dir.join(segment::file_name(header.epoch, header.first));
    let settled = if replaces { writer.region().sync(0..segment::HEADER_BYTES) } else { Ok(()) };
    if let Err(error) = settled.and_then(|()| disk.rename(&temporary, &path)) {
        drop(writer);
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    let segment = Segment::new(Path::new(&path), header, writer.region().clone(), 0, 0);
    Ok((Arc::new(segment), writer))
}
