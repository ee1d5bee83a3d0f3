//! What can go wrong with each operation of the store.

use std::path::PathBuf;

use ardb_base::disk::DiskError;
use ardb_base::id::{Generation, Offset};
use ardb_engine::EngineError;

/// The store could not be opened. Files are left as they were, up to leftovers that another attempt removes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("cannot open the store: {0}")]
    Disk(#[from] DiskError),
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] ardb_log::OpenError),
    /// The log could not be started anew.
    #[error(transparent)]
    Reset(#[from] ardb_log::ResetError),
    /// The engine could not be opened or read.
    #[error("cannot open the store: {0}")]
    Engine(#[from] EngineError),
    /// There are data but no state that says which are current. Nothing is deleted on such a guess.
    #[error("{} holds data but no state file", .0.display())]
    NoState(PathBuf),
    /// Neither slot of the state file is whole.
    #[error("the state file {} is damaged", .0.display())]
    State(PathBuf),
    /// The state file was written by a newer version of this program.
    #[error("the state file has format {0}, newer than this program's")]
    StateVersion(u32),
    /// The rows were written by a version of the server that laid them out in another way.
    #[error(
        "{generation}: its rows have format {format}, and this version reads {own} alone. Start the version that wrote them, and let this one \
         replicate it into an empty data directory",
        own = crate::catalog::FORMAT
    )]
    Rows {
        /// The generation.
        generation: Generation,
        /// Their format.
        format: u8,
    },
    /// The engine's own position or catalog is missing or unreadable.
    #[error("{generation}: the row that holds the engine's {what} is missing or damaged")]
    Meta {
        /// The generation.
        generation: Generation,
        /// Position or catalog.
        what: &'static str,
    },
    /// The log begins after the engine's position, so changes between them are lost.
    #[error("the log begins at {log_start}, after the last checkpoint at {checkpoint}")]
    Gap {
        /// The first offset held.
        log_start: Offset,
        /// Where the engine stands.
        checkpoint: Offset,
    },
}

/// Replaying the log failed; the store must not be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ardb_log::ReadError),
    /// The engine cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A frame does not begin where the engine stands.
    #[error("the engine stands at {checkpoint}, inside a frame that begins at {frame}")]
    InsideFrame {
        /// Where the engine stands.
        checkpoint: Offset,
        /// Where the frame begins.
        frame: Offset,
    },
    /// The caller could not apply a frame.
    #[error("cannot apply the log at {at}: {why}")]
    Apply {
        /// First offset of the frame.
        at: Offset,
        /// The caller's reason.
        why: String,
    },
    /// The rows of a frame were refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What could be applied could not be brought into the engine before the rest was given up.
    #[error("the rest of the log cannot be given up: {0}")]
    GiveUp(CheckpointError),
    /// No new log could be begun.
    #[error("the rest of the log cannot be given up: {0}")]
    Reset(#[from] ardb_log::ResetError),
    /// The state that names it could not be written.
    #[error("the rest of the log cannot be given up: {0}")]
    State(#[from] StateError),
}

/// A batch was not committed; all of it was undone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The log refused the frame.
    #[error(transparent)]
    Log(#[from] ardb_log::AppendError),
    /// Checkpoints fail, and changed rows have filled their share of memory.
    #[error("writes are refused because changed rows cannot be saved: {0}")]
    Checkpoint(CheckpointError),
    /// The bytes are not those that come next in the stream (or the log was not replayed to its end before).
    #[error("the stream goes on at {want}, not at {got}")]
    Offset {
        /// Where the log ends.
        want: Offset,
        /// Where the bytes would begin.
        got: Offset,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A checkpoint failed. Its rows stay in memory and in the log; it is tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log could not be synced first.
    #[error(transparent)]
    Log(#[from] ardb_log::SyncError),
    /// The engine could not commit.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log could not be held for the snapshot.
    #[error(transparent)]
    Pin(#[from] ardb_log::ReadError),
}

/// The state file could not be written; nothing changed in memory. The disk may hold the new state all the same, so that after a restart it
/// counts: a history that was to be forked is then forked where it was to be, which is safe, since the new id was never given out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot write the state: {0}")]
    Disk(#[from] DiskError),
    /// The name of the upstream is too long.
    #[error("cannot write the state: the upstream's name has {0} bytes")]
    TooLong(usize),
    /// The log up to the offset that the state would name could not be synced.
    #[error(transparent)]
    Log(#[from] ardb_log::SyncError),
}

/// A new generation could not be begun, filled or made current; the old one goes on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerationError {
    /// A file operation failed.
    #[error("cannot build a new generation: {0}")]
    Disk(#[from] DiskError),
    /// The new engine failed.
    #[error("cannot build a new generation: {0}")]
    Engine(#[from] EngineError),
    /// The new engine failed in a checkpoint.
    #[error("cannot build a new generation: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Rows were refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The log could not be started anew.
    #[error(transparent)]
    Log(#[from] ardb_log::ResetError),
    /// Raw rows or a catalog are not what another server can have sent.
    #[error("cannot build a new generation: {0}")]
    Raw(String),
    /// The state could not be written.
    #[error(transparent)]
    State(#[from] StateError),
}
