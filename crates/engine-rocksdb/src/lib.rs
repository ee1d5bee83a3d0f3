//! Layer 1: the engine adapter for RocksDB; nothing else in the project names that library.
//!
//! One column family; no write-ahead log and no memtable of RocksDB's is ever written. A commit builds sorted files in a directory
//! beside the database (`staging`), syncs them, and has them ingested by hard link. Ranges to delete are range tombstones in
//! the first of these files. The ingestion is one record in RocksDB's manifest, synced before it returns:
//! that record is the point at which a commit has happened, for readers and for crashes, ranges and rows together.
//!
//! What a crash leaves, by the step it hits:
//! - while files are built, or before the record is whole: files that nothing refers to. RocksDB removes its own at open, and
//!   [`RocksEngine::open`] those in `staging`.
//! - after the record: the whole commit.
//!
//! A commit whose *record* fails to be written or synced (as against its files) is reported as failed and invisible, and RocksDB
//! refuses further commits until [`Engine::resume`] or a restart; whether that record is found after a power loss is
//! up to the disk, as with any write whose sync failed. Either way it is found whole or not at all.
//!
//! Nothing in RocksDB slows ingestion down when compactions do not keep up, so [`Engine::commit`] itself waits while level 0 holds
//! too many files.
//!
//! Layout of the engine's directory: `db/` is RocksDB's, `staging/` holds commits in the making. Both must be on one file system.
//! The lock is RocksDB's own (`db/LOCK`).

#![allow(clippy::disallowed_methods, reason = "RocksDB keeps its own files; the adapter owns their folder")]

mod files;
mod options;
mod snapshot;
mod staging;
mod together;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ardb_base::priority;
use ardb_engine::{ChangeSource, Engine, EngineError, EngineStats, Snapshot};
use rust_rocksdb::{Cache, DB, Error, ErrorKind, IngestExternalFileOptions, properties};

pub use options::RocksOptions;
use snapshot::RocksSnapshot;
use staging::Staging;

/// Files at level 0 from which on a commit waits for compactions. Every read may have to ask each of their filters.
const LEVEL0_FULL: u64 = 24;
/// How often a waiting commit looks again.
const WAIT_STEP: Duration = Duration::from_millis(10);
/// Looks without any compaction at work after which a commit goes ahead: they do not run (an error stopped them, say),
/// and waiting for them would be for ever.
const IDLE_LOOKS: u32 = 100;

/// An error of RocksDB's, in the engine's terms.
pub(crate) fn failed(doing: impl Into<String>, error: &Error) -> EngineError {
    EngineError { doing: doing.into(), why: error.to_string(), corruption: error.kind() == ErrorKind::Corruption }
}

/// The engine.
pub struct RocksEngine {
    staging: Staging,
    ingest: IngestExternalFileOptions,
    /// The state after the last commit, shared by all who ask for it. Held for the copy of a pointer only.
    current: Mutex<Arc<RocksSnapshot>>,
    /// Held by the running commit: names in `staging` are those of one commit at a time.
    committing: Mutex<()>,
    cache: Cache,
    direct_reads: bool,
    db: Arc<DB>,
}

/// The guard of a lock under which nothing is left half changed, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl RocksEngine {
    /// Opens the engine in `options.dir`, which is created if need be, and removes what an interrupted commit left there.
    ///
    /// # Errors
    /// Fails if another engine, in this process or another, has the directory open; if a file is damaged or missing; or if the
    /// system refuses.
    pub fn open(options: &RocksOptions) -> Result<RocksEngine, EngineError> {
        let dir = &options.dir;
        let (db_dir, staging_dir) = (dir.join("db"), dir.join("staging"));
        let io_failed = |error| EngineError::new(format!("create {}", dir.display()), error);
        fs::create_dir_all(&db_dir).map_err(io_failed)?;
        fs::create_dir_all(&staging_dir).map_err(io_failed)?;
        sync_dir(dir).map_err(io_failed)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent).map_err(io_failed)?;
        }

        let cache = options::cache(options);
        let settings = options::database(options, &cache);
        // RocksDB's threads stand where the thread stood that made them start.
        let opened = thread::scope(|scope| {
            let opener = thread::Builder::new().name("ardb-open".into()).spawn_scoped(scope, || {
                priority::stand_behind(priority::BACKGROUND);
                DB::open(&settings, &db_dir)
            });
            opener.map(|opener| opener.join())
        });
        let db = match opened {
            Ok(Ok(opened)) => opened.map_err(|error| open_failed(dir, &error))?,
            Ok(Err(_)) => {
                return Err(EngineError {
                    doing: format!("open {}", dir.display()),
                    why: "it panicked".into(),
                    corruption: false,
                });
            }
            Err(error) => return Err(EngineError::new(format!("start a thread to open {}", dir.display()), error)),
        };
        let db = Arc::new(db);
        // Only now: before the lock was taken they might have been another process's.
        let staging = Staging::new(staging_dir, options::staged(options, &cache), options.file_bytes);
        staging.clear()?;

        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        // Nothing is ever in the memtable; should something be, an error is better than a flush nobody expects.
        ingest.set_allow_blocking_flush(false);
        let current = Mutex::new(Arc::new(RocksSnapshot::new(&db, options.direct_reads)));
        let direct_reads = options.direct_reads;
        Ok(RocksEngine { staging, ingest, current, committing: Mutex::new(()), cache, direct_reads, db })
    }

    fn number(&self, property: &properties::PropName) -> u64 {
        // A property that RocksDB does not know counts as zero: these are figures for people and for pacing.
        self.db.property_int_value(property).ok().flatten().unwrap_or(0)
    }

    fn files_at(&self, level: usize) -> u64 {
        let text = self.db.property_value(properties::num_files_at_level(level)).ok().flatten();
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Waits until level 0 has room, so that compactions bound what readers must look through.
    fn wait_for_room(&self) {
        let mut idle = 0;
        while idle < IDLE_LOOKS && self.files_at(0) >= LEVEL0_FULL {
            idle = if self.number(properties::NUM_RUNNING_COMPACTIONS) > 0 { 0 } else { idle + 1 };
            thread::sleep(WAIT_STEP);
        }
    }
}

fn open_failed(dir: &Path, error: &Error) -> EngineError {
    let doing = format!("open {}", dir.display());
    let text: &str = error.as_ref();
    if error.kind() == ErrorKind::IOError && (text.contains("lock hold") || text.contains("lock file")) {
        return EngineError::new(doing, format!("another server or engine has it open ({text})"));
    }
    failed(doing, error)
}

/// Ranges from whose deletion the space is to come back soon, if so much is in them. Less waits for the compactions that come anyway.
const WORTH_COMPACTING: u64 = 8 << 20;
/// Ranges that are looked at for that, of one commit.
const LOOKED_AT: usize = 64;
/// How long the snapshots of the time before a commit are left to be dropped: what they hold no compaction takes out.
const PATIENCE: Duration = Duration::from_secs(2);

impl RocksEngine {
    /// Has what lies in deleted ranges compacted away some time later: the tombstones of a few large ranges do not make RocksDB do it.
    fn free(&self, ranges: &[Range<Vec<u8>>]) {
        let ranges = &ranges[..ranges.len().min(LOOKED_AT)];
        let asked: Vec<_> = ranges.iter().map(|range| rust_rocksdb::Range::new(&range.start, &range.end)).collect();
        // What cannot be told, or not marked, comes back with later compactions.
        let sizes = self.db.get_approximate_sizes(&asked).unwrap_or_default();
        let large = ranges.iter().zip(sizes).filter(|(_, size)| *size >= WORTH_COMPACTING);
        let large: Vec<Range<Vec<u8>>> = large.map(|(range, _)| range.clone()).collect();
        if large.is_empty() {
            return;
        }
        let db = Arc::downgrade(&self.db);
        let _ = thread::Builder::new().name("ardb-free".into()).spawn(move || {
            thread::sleep(PATIENCE);
            if let Some(db) = db.upgrade() {
                for range in large {
                    let _ = db.suggest_compact_range(Some(&range.start), Some(&range.end));
                }
            }
        });
    }
}

impl Engine for RocksEngine {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::<RocksSnapshot>::clone(&lock(&self.current))
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        let _one = lock(&self.committing);
        self.wait_for_room();
        let Some(staged) = self.staging.write(ranges, rows)? else {
            return Ok(());
        };
        self.db
            .ingest_external_file_opts(&self.ingest, staged.files.clone())
            .map_err(|error| failed("commit", &error))?;
        staged.taken();
        let fresh = Arc::new(RocksSnapshot::new(&self.db, self.direct_reads));
        // The old state is let go, if this was its last holder, after the lock.
        let _old = std::mem::replace(&mut *lock(&self.current), fresh);
        self.free(ranges);
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let level_files = (0..7).map(|level| self.files_at(level).to_string()).collect::<Vec<_>>().join("/");
        EngineStats {
            disk_bytes: self.number(properties::TOTAL_SST_FILES_SIZE),
            table_bytes: self.number(properties::ESTIMATE_TABLE_READERS_MEM),
            cache_bytes: self.cache.get_usage() as u64,
            pending_compaction_bytes: self.number(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            details: vec![
                ("rocksdb_files_by_level", level_files),
                ("rocksdb_estimated_rows", self.number(properties::ESTIMATE_NUM_KEYS).to_string()),
                ("rocksdb_running_compactions", self.number(properties::NUM_RUNNING_COMPACTIONS).to_string()),
                ("rocksdb_background_errors", self.number(properties::BACKGROUND_ERRORS).to_string()),
                ("rocksdb_snapshots", self.number(properties::NUM_SNAPSHOTS).to_string()),
                ("rocksdb_cache_pinned_bytes", self.cache.get_pinned_usage().to_string()),
                ("rocksdb_direct_reads", u8::from(self.direct_reads).to_string()),
                ("rocksdb_reads_together", u8::from(self.direct_reads && together::is_possible()).to_string()),
            ],
        }
    }

    fn resume(&self) -> Result<(), EngineError> {
        self.db.resume().map_err(|error| failed("resume", &error))
    }
}
