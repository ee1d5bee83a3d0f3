//! What a reader reads from: the tables, the cache and the engine's snapshot that belong together.
//!
//! Lookup order: active table, frozen table, row cache, what the engine is known to lack, engine. A row that a table knows of, but only in versions newer than the
//! reader's snapshot, is taken from what lies below the table. Groups that are fresh to a table have no rows below it.
//!
//! Invariants: a view and a sequence number that a reader took together (see [`Publication::read_point`]) stood together at one
//! moment. Everything committed by then is in the view, and nothing that the reader may see is pruned while its slot shows the number.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::id::{Generation, KeyspaceId};
use ardb_engine::row::{Visit, VisitValue};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Snapshot, Space, Value};
use parking_lot::Mutex;

use crate::cache::RowCache;
use crate::catalog::Counts;
use crate::place::Place;
use crate::readers::Slot;
use crate::scan;
use crate::table::{Lookup, Purpose, Table, Window};

thread_local! {
    static ENGINE_READS: Cell<u64> = const { Cell::new(0) };
}

/// How many rows this thread has asked the engine for one by one, because neither table nor cache knew them: these alone may have waited for the disk.
#[must_use]
pub fn engine_reads() -> u64 {
    ENGINE_READS.get()
}

/// Rows that are visited under a shard's lock.
const PIECE: usize = 256;
/// Pieces of a string that the processor is asked for together.
const AHEAD: usize = 16;

/// One state of everything that rows are read from.
pub struct View {
    /// Takes the writes.
    pub active: Arc<Table>,
    /// On its way into the engine.
    pub frozen: Option<Arc<Table>>,
    /// Clean rows.
    pub cache: Arc<RowCache>,
    /// The engine after its last finished checkpoint.
    pub engine: Arc<dyn Snapshot>,
    /// How many checkpoints finished since the engine was opened.
    pub number: u64,
    /// Keyspaces by database.
    pub keyspaces: Arc<[KeyspaceId]>,
    /// Key counts by database.
    pub counts: Arc<Counts>,
    /// A reader must stand here or later to use this view: the commit that the view came with.
    pub from_seq: u64,
    /// The engine's generation.
    pub generation: Generation,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("generation", &self.generation)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl View {
    /// A copy to be changed and published.
    pub fn fork(&self) -> View {
        View {
            active: self.active.clone(),
            frozen: self.frozen.clone(),
            cache: self.cache.clone(),
            engine: self.engine.clone(),
            number: self.number,
            keyspaces: self.keyspaces.clone(),
            counts: self.counts.clone(),
            from_seq: self.from_seq,
            generation: self.generation,
        }
    }

    /// The value of a row at snapshot `seq`.
    pub fn get(&self, key: RowKey<'_>, seq: u64) -> Result<Option<Value>, EngineError> {
        self.find(key, seq, true)
    }

    /// As [`View::get`], for one who is about to write the row: if it is not there, the cache does not learn that, since it will be.
    pub fn get_to_write(&self, key: RowKey<'_>, seq: u64) -> Result<Option<Value>, EngineError> {
        self.find(key, seq, false)
    }

    #[inline]
    fn find(&self, key: RowKey<'_>, seq: u64, keep_absence: bool) -> Result<Option<Value>, EngineError> {
        if let Some(known) = self.find_in_memory(&key, seq) {
            return Ok(known);
        }
        if !RowCache::takes(key.space) {
            return self.get_from_engine(&key);
        }
        if self.engine.lacks(&key) {
            return Ok(None);
        }
        let value = self.get_from_engine(&key)?;
        if keep_absence || value.is_some() {
            self.cache.fill(&key, value.as_ref(), self.number);
        }
        Ok(value)
    }

    /// The row, if the tables or the cache know what it is.
    #[inline]
    fn find_in_memory(&self, key: &RowKey<'_>, seq: u64) -> Option<Option<Value>> {
        if let Lookup::Found(value) = self.active.get(key, seq) {
            return Some(value);
        }
        if key.group >= self.active.fresh_from() {
            return Some(None);
        }
        if let Some(frozen) = &self.frozen {
            if let Lookup::Found(value) = frozen.get(key, seq) {
                return Some(value);
            }
            if key.group >= frozen.fresh_from() {
                return Some(None);
            }
        }
        if !RowCache::takes(key.space) {
            return None;
        }
        self.cache.get(key, self.number)
    }

    /// What is known of the row without a read of the engine.
    pub fn known(&self, key: &RowKey<'_>, seq: u64) -> Option<Option<Value>> {
        self.find_in_memory(key, seq).or_else(|| self.engine.lacks(key).then_some(None))
    }

    /// Whether [`View::get`] needs no engine.
    pub fn is_in_memory(&self, key: &RowKey<'_>, seq: u64) -> bool {
        let tables = [Some(&self.active), self.frozen.as_ref()];
        tables
            .into_iter()
            .flatten()
            .any(|table| key.group >= table.fresh_from() || matches!(table.get(key, seq), Lookup::Found(_)))
            || (RowCache::takes(key.space) && self.cache.knows(key, self.number))
            || self.engine.lacks(key)
    }

    /// Whether it is certain that nothing below the active table has the row, now or later.
    pub fn is_only_in_active(&self, key: &RowKey<'_>) -> bool {
        if key.group >= self.active.fresh_from() {
            return true;
        }
        if let Some(frozen) = &self.frozen {
            if frozen.has_place(Place::of(key)) {
                return false;
            }
            if key.group >= frozen.fresh_from() {
                return true;
            }
        }
        self.engine.lacks(key)
    }

    /// Whether there are so many rows that the processor's caches do not hold them, so that [`View::prefetch_keys`] is worth its while.
    pub fn is_large(&self) -> bool {
        const ROWS: u64 = 1 << 14;
        self.active.rows() > ROWS || self.has_older()
    }

    /// Whether rows may lie elsewhere than in the active table.
    fn has_older(&self) -> bool {
        // Groups are counted from 1.
        self.active.fresh_from() > 1
    }

    /// Has the processor bring what [`View::get`] looks at first into its cache. Keys are given by their keyspace and their hash.
    pub fn prefetch_keys(&self, rows: &[(u64, u64)], purpose: Purpose) {
        self.active.prefetch_keys(rows, purpose);
        self.prefetch_older(Space::Key, rows, Table::prefetch_keys);
    }

    /// As [`View::prefetch_keys`], for rows of fields and members. They are given by their object and their hash.
    pub fn prefetch_members(&self, rows: &[(u64, u64)], purpose: Purpose) {
        self.active.prefetch_members(rows, purpose);
        self.prefetch_older(Space::Member, rows, Table::prefetch_members);
    }

    /// The same for where rows are looked for that the active table does not have.
    fn prefetch_older(&self, space: Space, rows: &[(u64, u64)], prefetch: impl Fn(&Table, &[(u64, u64)], Purpose)) {
        thread_local! {
            static REST: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
        }
        if !self.has_older() {
            return;
        }
        REST.with_borrow_mut(|rest| {
            let lacks = |table: &Table, (group, order): (u64, u64)| {
                group < table.fresh_from() && !table.has_place(Place::new(space, group, order))
            };
            rest.clear();
            rest.extend(rows.iter().filter(|row| lacks(&self.active, **row)));
            if let Some(frozen) = self.frozen.as_ref().filter(|_| !rest.is_empty()) {
                prefetch(frozen, rest, Purpose::Read);
                rest.retain(|row| lacks(frozen, *row));
            }
            if rest.is_empty() {
                return;
            }
            for &(group, order) in &*rest {
                self.engine.prefetch(&RowKey::new(space, group, order, b""));
            }
            self.cache.prefetch(space, rest);
        });
    }

    fn get_from_engine(&self, key: &RowKey<'_>) -> Result<Option<Value>, EngineError> {
        thread_local! {
            static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        ENGINE_READS.set(ENGINE_READS.get() + 1);
        ENCODED.with_borrow_mut(|encoded| {
            encoded.clear();
            key.encode(encoded);
            self.engine.get(encoded)
        })
    }

    /// Visits the values of `range`, upward, at snapshot `seq`.
    pub fn values(&self, range: RowRange<'_>, seq: u64, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        if range.group < self.active.fresh_from() {
            return self.scan(range, Direction::Forward, seq, &mut |_, value| visit(value));
        }
        // All in one table, which is walked in place, a piece at a time: a writer waits for no more than one.
        let RowRange { space, group, from, to } = range;
        let window = Window { space, group, lo: from, lo_open: false, hi: to };
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let mut last = self.active.values(window, seq, PIECE, visit);
        while let Some((order, tail)) = last {
            last = self.active.values(Window { lo: (order, &tail), lo_open: true, ..window }, seq, PIECE, visit);
        }
        Ok(())
    }

    /// Visits the rows of `range` at snapshot `seq`.
    pub fn scan(
        &self,
        mut range: RowRange<'_>,
        direction: Direction,
        seq: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        // The pieces of a big string follow one another. As long as they are in memory none is copied; when one is not, the engine reads ahead.
        let is_string = range.space == Space::Chunk && direction == Direction::Forward;
        if is_string && range.group < self.active.fresh_from() {
            while range.to.is_none_or(|to| range.from < to) {
                let first = range.from.0;
                if first.is_multiple_of(AHEAD as u64) {
                    let next: [_; AHEAD] = std::array::from_fn(|n| (range.group, first.wrapping_add(n as u64)));
                    // A string just too long for its key's row has two pieces.
                    let left = range.to.map_or(u64::MAX, |(last, _)| last.saturating_sub(first).saturating_add(1));
                    self.cache.prefetch(range.space, &next[..left.min(AHEAD as u64) as usize]);
                }
                let key = RowKey::new(range.space, range.group, range.from.0, b"");
                let Some(Some(value)) = self.find_in_memory(&key, seq) else { break };
                if visit(key, &value).is_break() {
                    return Ok(());
                }
                let Some(next) = range.from.0.checked_add(1) else { return Ok(()) };
                range.from = (next, b"");
            }
        }
        let tables = [Some(&*self.active), self.frozen.as_deref()];
        // Nothing below the oldest table that knows the group from its beginning.
        let reach = match (&self.frozen, range.group) {
            (_, group) if group >= self.active.fresh_from() => scan::Reach::Active,
            (Some(frozen), group) if group >= frozen.fresh_from() => scan::Reach::Tables,
            _ => scan::Reach::Engine(&*self.engine, is_string.then_some((&*self.cache, self.number))),
        };
        scan::scan(tables, reach, range, direction, seq, visit)
    }
}

/// The current view and the newest committed sequence number.
#[derive(Debug)]
pub struct Publication {
    current: Mutex<Arc<View>>,
    version: Line,
    committed: Line,
}

/// A number on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Publication {
    /// Publishes the first view.
    pub fn new(view: View, committed: u64) -> Publication {
        Publication {
            current: Mutex::new(Arc::new(view)),
            version: Line(AtomicU64::new(1)),
            committed: Line(AtomicU64::new(committed)),
        }
    }

    /// The newest committed sequence number.
    #[inline]
    pub fn committed(&self) -> u64 {
        self.committed.0.load(Ordering::SeqCst)
    }

    /// Makes everything up to `seq` visible.
    #[inline]
    pub fn commit(&self, seq: u64) {
        self.committed.0.store(seq, Ordering::SeqCst);
    }

    /// Counts the views published.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.0.load(Ordering::SeqCst)
    }

    /// The current view and its version.
    pub fn current(&self) -> (u64, Arc<View>) {
        let current = self.current.lock();
        (self.version(), current.clone())
    }

    /// Publishes a changed copy of the current view and returns the one it replaced.
    pub fn change(&self, change: impl FnOnce(&mut View)) -> Arc<View> {
        let mut current = self.current.lock();
        let mut view = current.fork();
        change(&mut view);
        let old = std::mem::replace(&mut *current, Arc::new(view));
        self.version.0.fetch_add(1, Ordering::SeqCst);
        old
    }

    /// Finds a view and a sequence number that stand together, and leaves the number in the reader's slot and the view in `cached`.
    pub fn read_point(&self, slot: &Slot, cached: &mut Option<(u64, Arc<View>)>) -> u64 {
        loop {
            let version = self.version();
            let from_seq = match cached {
                Some((of, view)) if *of == version => view.from_seq,
                _ => {
                    let current = self.current();
                    let from_seq = current.1.from_seq;
                    *cached = Some(current);
                    from_seq
                }
            };
            let seq = self.committed();
            slot.snapshot.store(seq, Ordering::SeqCst);
            // The slot was stored before these loads: a writer that commits after them sees it (see `readers`).
            let same = cached.as_ref().is_some_and(|(of, _)| *of == self.version()) && seq == self.committed();
            if same && seq >= from_seq {
                return seq;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::catalog::Catalog;
    use crate::readers::Readers;
    use ardb_engine::Engine;

    fn publication() -> Publication {
        let catalog = Catalog::empty(1);
        let view = View {
            active: Arc::new(Table::new(1)),
            frozen: None,
            cache: Arc::new(RowCache::new(0, 1)),
            engine: ardb_engine_memory::MemoryEngine::new().snapshot(),
            number: 1,
            keyspaces: Arc::new([KeyspaceId(1)]),
            counts: Arc::new(Counts::new(&catalog, 1)),
            from_seq: 1,
            generation: Generation(1),
        };
        Publication::new(view, 1)
    }

    #[test]
    fn a_reader_of_a_flush_waits_for_its_commit() {
        let publication = publication();
        let readers = Readers::default();
        let slot = readers.register();
        publication.change(|view| {
            view.keyspaces = Arc::new([KeyspaceId(2)]);
            view.from_seq = 2;
        });
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            let (publication, slot) = (&publication, &slot);
            scope.spawn(move || {
                let mut cached = None;
                let seq = publication.read_point(slot, &mut cached);
                send.send((seq, cached.map(|(_, view)| view.keyspaces[0]))).unwrap();
            });
            assert!(receive.recv_timeout(Duration::from_millis(50)).is_err(), "half of a transaction");
            publication.commit(2);
            assert_eq!(receive.recv(), Ok((2, Some(KeyspaceId(2)))));
        });
        let mut active = Vec::new();
        readers.gather(&mut active);
        assert_eq!((active, readers.oldest()), (vec![2], 2));
    }

    #[test]
    fn a_view_is_taken_from_idle_readers_only() {
        let publication = publication();
        let readers = Readers::default();
        let slot = readers.register();
        let mut cached = slot.view.lock();
        publication.read_point(&slot, &mut cached);
        let old = publication.change(|view| view.number += 1);
        readers.drop_idle_views(publication.version());
        assert_eq!(Arc::strong_count(&old), 2, "it is reading");
        drop(cached);
        readers.drop_idle_views(publication.version());
        assert_eq!(Arc::strong_count(&old), 1);
    }
}
