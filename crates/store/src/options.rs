//! What a store is opened with, and what opening found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ardb_base::disk::Disk;
use ardb_base::id::{Generation, Offset, ReplId, UnixMs};
use ardb_engine::{Engine, EngineError};
use ardb_log::LogOptions;

/// Opens engines. The store names directories and never an adapter.
pub trait EngineFactory: Send + Sync {
    /// Opens the engine in `dir`, which it creates if there is none; `cache_bytes` is for its blocks.
    fn open(&self, generation: Generation, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Engine>, EngineError>;
}

impl<F> EngineFactory for F
where
    F: Fn(Generation, &Path, u64) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync,
{
    fn open(&self, generation: Generation, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Engine>, EngineError> {
        self(generation, dir, cache_bytes)
    }
}

/// Fills a buffer with random bytes.
pub type RandomSource = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// How memory is shared out, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBudget {
    /// Changed rows that are not yet in the engine. A checkpoint begins at half of it; past all of it writers are slowed.
    pub changed: u64,
    /// The cache of clean rows.
    pub rows: u64,
    /// The engine's own cache.
    pub engine: u64,
}

/// When the log is made durable, as `appendfsync` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each reply: the caller calls [`crate::Store::sync_to`] after a commit.
    Always,
    /// About once a second, by [`crate::Store::tick`].
    EverySecond,
    /// When the system likes to, and before each checkpoint.
    No,
}

/// Options of a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory. Created if there is none.
    pub dir: PathBuf,
    /// Where log and state live. (Engines do their own I/O.)
    pub disk: Arc<dyn Disk>,
    /// Opens engines.
    pub engines: Arc<dyn EngineFactory>,
    /// Number of databases, at least 1.
    pub databases: u32,
    /// Memory.
    pub memory: MemoryBudget,
    /// The log's layout.
    pub log: LogOptions,
    /// How much of the log stays for replicas, in bytes of payload (`repl-backlog-size`).
    pub backlog_bytes: u64,
    /// When the log is synced.
    pub fsync: Fsync,
    /// A checkpoint begins at the latest when changes have waited this long, in milliseconds.
    pub checkpoint_age_ms: u64,
    /// Names this run of the machine. If it changed since an unclean end, the tail of the log is suspect; zeros, if there is no name, count as changed.
    pub boot_id: [u8; 16],
    /// Fills a buffer with random bytes, for replication ids.
    pub random: RandomSource,
    /// The time in milliseconds since 1970.
    pub clock: Clock,
    /// Whether threads of the store run checkpoints and ticks. Without them the caller calls [`crate::Store::tick`] and
    /// [`crate::Store::checkpoint`]; tests that must be deterministic want that.
    pub background: bool,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("databases", &self.databases)
            .finish_non_exhaustive()
    }
}

/// What opening does with a log that is damaged where a crash leaves no damage ([`ardb_log::Damage`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It fails, and changes nothing.
    Refuse,
    /// It cuts the log there, keeps what it cuts off in files of their own, and begins a new history, as after any loss.
    Cut,
}

/// The names of the history that the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// The replication id.
    pub id: ReplId,
    /// The id that was valid before, or [`ReplId::NONE`].
    pub second: ReplId,
    /// `second` names the same history for offsets up to and including this one.
    pub second_until: Offset,
}

impl History {
    /// A history without a past.
    #[must_use]
    pub fn new(id: ReplId) -> History {
        History { id, second: ReplId::NONE, second_until: Offset(0) }
    }

    /// Whether what `id` names agrees with this history up to `offset`.
    #[must_use]
    pub fn covers(&self, id: ReplId, offset: Offset) -> bool {
        !id.is_none() && (id == self.id || (id == self.second && offset <= self.second_until))
    }
}

/// What opening found. The frames from `checkpoint` to `log_end` wait for [`crate::Store::replay`].
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Whether the data directory was new.
    pub created: bool,
    /// The current generation.
    pub generation: Generation,
    /// Where the engine stands.
    pub checkpoint: Offset,
    /// The first offset that the log holds.
    pub log_start: Offset,
    /// The end of the log.
    pub log_end: Offset,
    /// Whether the store was closed cleanly.
    pub clean: bool,
    /// Whether the machine was started anew since.
    pub boot_changed: bool,
    /// The id before, if a new one was needed because the tail of the log was suspect, or the engine ahead of the log.
    pub replaced_id: Option<ReplId>,
    /// Whether the engine was found ahead of its log (which never happens unless the log was damaged or removed).
    pub engine_ahead: bool,
    /// What the log cut off as the end that a crash leaves, for people.
    pub torn: Option<String>,
    /// What it cut off as damage, because it was told to, for people.
    pub damage: Option<String>,
}
