//! What can go wrong with each operation of the log.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ardb_base::disk::{DiskError, DiskErrorKind};
use ardb_base::id::Offset;

/// Why the bytes at some place are not the frame that should stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The length is zero in a header that is not empty, or reaches past the end of the segment.
    #[error("the frame's length is impossible")]
    Length,
    /// The frame does not begin at the offset at which the one before it ends.
    #[error("the frame is not the one of this offset")]
    Offset,
    /// A reserved field is not zero.
    #[error("the frame uses a reserved field")]
    Reserved,
    /// Checksum and contents disagree, or the frame belongs to another history.
    #[error("the frame's checksum is wrong")]
    Checksum,
    /// There is no frame, but bytes that are not zero: an append that was not finished.
    #[error("an unfinished frame")]
    Unfinished,
    /// The next segment is missing or does not begin where this one ends.
    #[error("the frame or segment that follows is missing")]
    Gap,
    /// The segment that follows has no good header.
    #[error("the segment's header is damaged")]
    Header,
}

/// Why the bad end of a log is not one that a death can have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The log was synced to a checkpoint at this offset, which lies behind.
    Checkpoint(Offset),
    /// The log was synced to its end and closed.
    Closed,
    /// The process was killed and the machine was not, and what follows was appended later.
    Killed,
}

/// The log is bad where it was good once: a medium that decays, a write that went astray, a file that somebody removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file; the directory, if the segment is missing that should hold the checkpoint.
    pub path: PathBuf,
    /// The byte of the file where its good part ends.
    pub at: u64,
    /// The offset there: the log is good before it.
    pub offset: Offset,
    /// What is wrong there.
    pub fault: Fault,
    /// Bytes of the file behind that, to the last that is not zero.
    pub bytes: u64,
    /// Whole segments that follow without connection.
    pub segments: usize,
    /// Good frames in both.
    pub frames: u64,
    /// Their payload bytes.
    pub payload: u64,
    /// Why it is damage.
    pub proof: Proof,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, at, offset, fault, bytes, segments, frames, payload, proof } = self;
        write!(f, "{} at byte {at}, replication offset {offset}: {fault}; ", path.display())?;
        write!(f, "{bytes} more bytes of this file and {segments} more segment(s) follow, ")?;
        write!(f, "with {frames} good frame(s) of {payload} bytes of the stream in them. ")?;
        match proof {
            Proof::Checkpoint(checkpoint) => {
                write!(
                    f,
                    "It is no end that a crash leaves: everything up to the checkpoint at {checkpoint} was synced"
                )
            }
            Proof::Closed => write!(f, "It is no end that a crash leaves: the log was synced and closed"),
            Proof::Killed => write!(
                f,
                "It is no end that a crash leaves: the process was killed and the machine was not, so what it appended was whole"
            ),
        }
    }
}

/// The log could not be opened. Nothing usable came of it; the files are left for another attempt.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("cannot open the log: {0}")]
    Disk(#[from] DiskError),
    /// A segment was written by a newer version of this program.
    #[error("cannot open the log: {} has format version {version}, newer than this program's", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// The version in its header.
        version: u32,
    },
    /// The log is damaged where more must have been ([`crate::Examined::open`] cuts it there). Nothing was changed.
    #[error("the log is damaged: {0}")]
    Damaged(Box<Damage>),
}

/// A frame was not appended. The log is as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// A new segment was needed and could not be made, on a full disk for instance. The same append may succeed later.
    #[error("the log cannot grow: {0}")]
    NoSegment(DiskError),
    /// A sync failed earlier, so what is on disk is unknown; only a restart helps.
    #[error("the log is closed to writes, because an earlier sync failed: {0}")]
    Failed(Arc<DiskError>),
    /// The payload has more bytes than a frame or an offset can count.
    #[error("a commit of {0} bytes is too large for the log")]
    TooLong(usize),
}

impl AppendError {
    /// Whether the reason is a full disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, AppendError::NoSegment(error) if error.kind == DiskErrorKind::Full)
    }
}

/// The log could not be made durable to the wanted offset.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// This sync or an earlier one failed. After a failed sync the kernel may have dropped the data and report success the next time, so
    /// every later sync fails too, and appends are refused.
    #[error("a sync of the log failed: {0}")]
    Failed(Arc<DiskError>),
    /// The offset is past the end, or a new history began.
    #[error("cannot sync the log to {asked}: it ends at {end}")]
    PastEnd {
        /// The offset that was asked for.
        asked: Offset,
        /// Where the log ends.
        end: Offset,
    },
}

/// The log could not be read at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is not held (any more, or yet).
    #[error("offset {asked} is outside of the log, which holds {start} to {end}")]
    OutOfRange {
        /// The offset that was asked for.
        asked: Offset,
        /// The first offset held.
        start: Offset,
        /// The offset at which the next append begins.
        end: Offset,
    },
    /// The file is damaged there.
    #[error("the log is damaged at {at}: {fault}")]
    Damaged {
        /// Where the frame should begin.
        at: Offset,
        /// What is wrong.
        fault: Fault,
    },
    /// A new history began ([`crate::Appender::finish_reset`]) since this reader was made.
    #[error("the log holds another history now")]
    Replaced,
}

/// A new history could not be prepared. The old one goes on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResetError {
    /// A file operation failed.
    #[error("cannot begin a new log: {0}")]
    Disk(#[from] DiskError),
    /// A sync failed earlier; only a restart helps.
    #[error("the log is closed to writes, because an earlier sync failed: {0}")]
    Failed(Arc<DiskError>),
    /// Epochs must grow, so that no frame of an older history can pass for one of the new.
    #[error("the new epoch {new} must be greater than the present one, {present}")]
    Epoch {
        /// The epoch that was asked for.
        new: u64,
        /// The present epoch.
        present: u64,
    },
    /// The start is past the greatest offset.
    #[error("{0} is not a possible offset")]
    Offset(Offset),
}
