//! Snapshots that own their database, and cursors over them.

use std::ops::Range;
use std::sync::Arc;

use ardb_engine::{Cursor, EngineError, Found, Snapshot, Value};
use rust_rocksdb::{DB, DBRawIterator, ReadOptions, SnapshotWithThreadMode};

use crate::{failed, together};

/// Rounds of reads for rows that are read together. One that needs more is read by itself: files come and go meanwhile.
const ROUNDS: usize = 8;
/// Rows that are read together. Each may need two blocks in one round.
const CHUNK: usize = together::MOST / 2;

/// One state of the database.
pub(crate) struct RocksSnapshot {
    // Fields are dropped in this order: the options point to the snapshot, and the snapshot to the database.
    read: ReadOptions,
    /// The same, but RocksDB keeps no block that it reads.
    read_once: ReadOptions,
    snapshot: SnapshotWithThreadMode<'static, DB>,
    db: Arc<DB>,
    direct_reads: bool,
}

impl RocksSnapshot {
    /// The state of `db` now; `direct_reads` as it was opened.
    pub(crate) fn new(db: &Arc<DB>, direct_reads: bool) -> RocksSnapshot {
        // SAFETY: the reference is used by the snapshot alone, which lives beside a clone of the `Arc` in the same struct and is
        // dropped before it (fields drop in order). So the database outlives the reference, at an address that an `Arc` never
        // changes, and it is only ever borrowed shared. The snapshot does not leave this struct.
        let long: &'static DB = unsafe { &*Arc::as_ptr(db) };
        let snapshot = long.snapshot();
        let options = |kept| {
            let mut read = ReadOptions::default();
            read.set_snapshot(&snapshot);
            read.fill_cache(kept);
            read
        };
        let (read, read_once) = (options(true), options(false));
        RocksSnapshot { read, read_once, snapshot, db: Arc::clone(db), direct_reads }
    }
}

impl RocksSnapshot {
    fn get_as(&self, key: &[u8], options: &ReadOptions) -> Result<Option<Value>, EngineError> {
        match self.db.get_pinned_opt(key, options) {
            Ok(found) => Ok(found.map(|value| Value::new(&value))),
            Err(error) => Err(failed("read a row", &error)),
        }
    }
}

impl Snapshot for RocksSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        self.get_as(key, &self.read)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut Found<'_>) {
        let can = self.direct_reads && keys.len() > 1 && together::is_ready();
        for (first, some) in keys.chunks(CHUNK).enumerate().map(|(n, some)| (n * CHUNK, some)) {
            let mut left: Vec<usize> = (0..some.len()).collect();
            for round in 0..if can { ROUNDS } else { 0 } {
                left.retain(|&at| {
                    let options = if round == 1 { &self.read_once } else { &self.read };
                    let (value, is_put_off) = together::planning(|| self.get_as(some[at], options));
                    if !is_put_off {
                        found(first + at, value, round > 0);
                    }
                    is_put_off
                });
                if left.is_empty() {
                    break;
                }
                together::read();
            }
            for at in left {
                found(first + at, self.get(some[at]), can);
            }
            if can {
                together::forget();
            }
        }
    }

    fn reads_together(&self) -> bool {
        self.direct_reads && together::is_possible()
    }

    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_> {
        let mut read = ReadOptions::default();
        read.set_snapshot(&self.snapshot);
        // An inverted range is an empty one; RocksDB makes no promise about it.
        read.set_iterate_lower_bound(range.start);
        read.set_iterate_upper_bound(range.end.max(range.start));
        // Readahead begins by itself once reads turn out to be sequential, and what it has learnt is kept from file to file.
        read.set_adaptive_readahead(true);
        read.set_auto_readahead_size(true);
        // Dropping the cursor may have to delete files: not in this thread.
        read.set_background_purge_on_iterator_cleanup(true);
        Box::new(RocksCursor { rows: self.db.raw_iterator_opt(read) })
    }
}

/// A cursor. It holds on to the files of its snapshot, and to the block it stands in.
struct RocksCursor<'a> {
    rows: DBRawIterator<'a>,
}

impl RocksCursor<'_> {
    /// Not standing anywhere is either the end of the range or an error, which only the status tells.
    fn check(&self, doing: &str) -> Result<(), EngineError> {
        if self.rows.valid() {
            return Ok(());
        }
        self.rows.status().map_err(|error| failed(doing, &error))
    }
}

impl Cursor for RocksCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.rows.seek(key);
        self.check("seek a row")
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.rows.seek_for_prev(key);
        self.check("seek a row")
    }

    fn next(&mut self) -> Result<(), EngineError> {
        debug_assert!(self.rows.valid(), "next from nowhere");
        // The binding ignores a move from nowhere.
        self.rows.next();
        self.check("read the next row")
    }

    fn prev(&mut self) -> Result<(), EngineError> {
        debug_assert!(self.rows.valid(), "prev from nowhere");
        self.rows.prev();
        self.check("read the row before")
    }

    fn row(&self) -> Option<(&[u8], &[u8])> {
        // Before a seek the iterator is not valid, and there is no item.
        self.rows.item()
    }
}
