//! Layer 1: what a storage engine must be able to do, and how rows are named.
//!
//! An engine holds ordered rows and needs little: point reads, snapshots with ordered cursors, and one atomic, durable
//! commit of sorted rows and deleted ranges. Everything else (versions, caching, the log) is the store's work. Adapters live in
//! crates of their own (`engine-memory`, `engine-rocksdb`); [`conformance`] holds the tests that each must pass.

pub mod conformance;
pub mod faulty;
pub mod presence;
pub mod row;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use row::{Direction, RowKey, RowRange, Rows, RowsMut, Space, Value};

/// An engine failed. The text says what it was doing and why it failed, in the engine's own words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("storage engine: {doing}: {why}")]
pub struct EngineError {
    /// What was being done, with the file or key where that is known.
    pub doing: String,
    /// The engine's or the system's reason.
    pub why: String,
    /// Whether the data on disk were found damaged (as against a full disk or a failed read).
    pub corruption: bool,
}

impl EngineError {
    /// An error that is not a corruption.
    pub fn new(doing: impl Into<String>, why: impl fmt::Display) -> EngineError {
        EngineError { doing: doing.into(), why: why.to_string(), corruption: false }
    }
}

/// One row of a commit: the encoded key, and its value or `None` to delete it.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// Sorted rows on their way into an engine: a pull interface, so that neither side must hold them all.
pub trait ChangeSource {
    /// The next row, with a key strictly greater than that of the one before, or `None` at the end.
    fn next_change(&mut self) -> Option<Change<'_>>;
}

/// What an engine says of itself, for INFO.
#[derive(Clone, Debug, Default)]
pub struct EngineStats {
    /// Bytes of its files on disk.
    pub disk_bytes: u64,
    /// Bytes of memory it holds apart from its cache (filters, indexes, tables).
    pub table_bytes: u64,
    /// Bytes its block cache holds.
    pub cache_bytes: u64,
    /// Bytes that compactions have yet to rewrite; 0 if it does not know.
    pub pending_compaction_bytes: u64,
    /// Further lines for people: name and value.
    pub details: Vec<(&'static str, String)>,
}

/// An ordered, durable map of byte strings. All methods may be called from any thread.
pub trait Engine: Send + Sync {
    /// The engine's name as the configuration spells it.
    fn name(&self) -> &'static str;

    /// The state after the last finished commit. Cheap; it must be dropped for space to come back.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Deletes `ranges` (of encoded keys, each `start..end`), then writes `rows` over that, as one step: atomic for
    /// snapshots and for crashes, and durable when it returns. A row inside a deleted range of the same commit stays.
    /// On an error nothing of it is visible, now or after a restart. Only one commit runs at a time (the store sees to it).
    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError>;

    /// Figures for INFO.
    fn stats(&self) -> EngineStats;

    /// Tries to leave a state of failed background work (a full disk, say) once its cause is gone.
    fn resume(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Takes one of many rows: its place among those that were asked for, its value, and whether the disk had to be waited for.
pub type Found<'f> = dyn FnMut(usize, Result<Option<Value>, EngineError>, bool) + 'f;

/// One point in time of an engine.
pub trait Snapshot: Send + Sync {
    /// The value of the row `key` (encoded), if there is one. One copy at most.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError>;

    /// The values of the rows `keys` (encoded), in any order.
    fn get_many(&self, keys: &[&[u8]], found: &mut Found<'_>) {
        for (at, key) in keys.iter().enumerate() {
            found(at, self.get(key), false);
        }
    }

    /// Whether [`Snapshot::get_many`] asks the disk for several rows at once, and tells which came from there.
    fn reads_together(&self) -> bool {
        false
    }

    /// Whether it is certain, without a look at the disk, that there is no such row. `false` says nothing.
    fn lacks(&self, key: &RowKey<'_>) -> bool {
        let _ = key;
        false
    }

    /// Has the processor bring what [`Snapshot::lacks`] will look at into its cache.
    fn prefetch(&self, key: &RowKey<'_>) {
        let _ = key;
    }

    /// A cursor over the rows with keys in `range` (encoded, `start..end`). It stands nowhere until a seek.
    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_>;
}

/// A place among the ordered rows of a snapshot, within the cursor's range.
pub trait Cursor {
    /// Goes to the first row with a key `>= key`.
    fn seek(&mut self, key: &[u8]) -> Result<(), EngineError>;
    /// Goes to the last row with a key `<= key`.
    fn seek_back(&mut self, key: &[u8]) -> Result<(), EngineError>;
    /// Goes to the next greater row. The cursor must stand on a row.
    fn next(&mut self) -> Result<(), EngineError>;
    /// Goes to the next smaller row. The cursor must stand on a row.
    fn prev(&mut self) -> Result<(), EngineError>;
    /// The row it stands on, or `None` past either end or before any seek.
    fn row(&self) -> Option<(&[u8], &[u8])>;
}
