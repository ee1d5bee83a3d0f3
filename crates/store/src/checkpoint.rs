//! Bringing changed rows into the engine.
//!
//! A checkpoint freezes the active table between two transactions, syncs the log to that position, and gives the engine the table's rows, the
//! position and the catalog as one atomic commit, streaming the rows in order. Then the rows become clean rows of the cache, and a view without
//! the frozen table is published. One runs at a time; one that fails keeps its frozen table and is tried again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};

use ardb_base::id::Offset;
use ardb_base::priority::Courtesy;
use ardb_engine::{Change, ChangeSource, RowKey, Snapshot, Space, Value};
use ardb_log::Pin;

use crate::cache::RowCache;
use crate::catalog::Catalog;
use crate::core::Core;
use crate::error::CheckpointError;
use crate::janitor::Cleanup;
use crate::place::Tail;
use crate::position::{CATALOG, POSITION, Position};
use crate::table::{Item, Run, Table};
use crate::txn::held;

/// Rows that are taken from the frozen table at a time.
const BATCH: usize = 512;
/// Rows that the processor is asked for before they are needed.
const AHEAD: usize = 16;
/// Rows after which it is asked whether to pause.
const COURTEOUS: u64 = 16;

/// What a running or failed checkpoint holds.
pub struct Frozen {
    table: Arc<Table>,
    seq: u64,
    position: Position,
    catalog: Catalog,
    dead: HashSet<u64>,
    cleanup: Cleanup,
}

/// The state of checkpoints; its lock lets one run at a time.
pub struct Checkpointer {
    /// Where the engine stands.
    pub position: Position,
    pub frozen: Option<Frozen>,
}

/// A finished checkpoint: an engine snapshot that stands at exactly one position.
pub struct Stand {
    pub position: Position,
    pub catalog: Catalog,
    pub snapshot: Arc<dyn Snapshot>,
    pub pin: Option<Pin>,
}

impl Core {
    /// Brings all changes into the engine that were committed when it was called; the position alone, if only that changed.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        let mut checkpointer = self.checkpointer.lock();
        let result = self.run(&mut checkpointer, None, &|| false).map(|_| ());
        self.note(&result);
        result
    }

    /// A checkpoint of everything committed now, and the engine's snapshot of it. With `pin` the log is held from there on.
    /// If `anew`, which is asked under the writer lock, the stream says its database once more from there on.
    pub fn stand(&self, pin: bool, anew: &dyn Fn() -> bool) -> Result<Stand, CheckpointError> {
        let mut checkpointer = self.checkpointer.lock();
        let mut held = None;
        let result = self.run(&mut checkpointer, pin.then_some(&mut held), anew);
        self.note(&result);
        let catalog = result?;
        let snapshot = self.engine.read().snapshot();
        Ok(Stand { position: checkpointer.position, catalog, snapshot, pin: held })
    }

    fn note(&self, result: &Result<impl Sized, CheckpointError>) {
        let failed = result.as_ref().err().cloned();
        if let Some(error) = &failed {
            self.figures.failed_checkpoints.fetch_add(1, Relaxed);
            log::warn!("checkpoint failed, its rows stay in memory: {error}");
        }
        self.failing.store(failed.is_some(), Relaxed);
        *self.failure.lock() = failed;
        self.wanted.flagged.store(false, Ordering::Release);
    }

    fn run(
        &self,
        checkpointer: &mut Checkpointer,
        pin: Option<&mut Option<Pin>>,
        anew: &dyn Fn() -> bool,
    ) -> Result<Catalog, CheckpointError> {
        debug_assert!(!held::by_me(self), "a checkpoint takes the writer lock, so who holds it would wait for itself");
        // One that failed before goes first.
        self.finish(checkpointer)?;
        let catalog = self.freeze(checkpointer, pin, anew)?;
        self.finish(checkpointer)?;
        Ok(catalog)
    }

    /// Puts an empty table in place of the active one, between two transactions. Leaves nothing to finish if nothing changed.
    fn freeze(
        &self,
        checkpointer: &mut Checkpointer,
        pin: Option<&mut Option<Pin>>,
        anew: &dyn Fn() -> bool,
    ) -> Result<Catalog, CheckpointError> {
        debug_assert!(checkpointer.frozen.is_none(), "the table that is frozen would be lost");
        // Made before the lock is taken; writers wait only for the exchange.
        let mut table = Table::new(0);
        let mut writer = self.writer.lock();
        debug_assert!(writer.undo.is_empty(), "a transaction is committed or taken back when it lets go of the lock");
        if let (Some(pin), Some(log)) = (pin, &self.log) {
            *pin = Some(log.pin(writer.offset)?);
        }
        if anew() {
            (writer.frame.db, writer.frame_db) = (None, None);
        }
        let position = Position {
            epoch: self.log.as_ref().map_or(checkpointer.position.epoch, ardb_log::Log::epoch),
            offset: writer.offset,
            db: writer.frame_db,
            id: writer.id,
        };
        writer.renew_view(self);
        let active = writer.view.1.active.clone();
        let mut janitor = self.janitor.lock();
        let idle = active.rows() == 0 && !janitor.has_cleanup();
        let moved = position != checkpointer.position;
        let catalog = writer.catalog.clone();
        self.dirty_since.store(0, Relaxed);
        if idle && !moved {
            return Ok(catalog);
        }
        let cleanup = janitor.freeze();
        table.set_fresh_from(catalog.next_id);
        let table = Arc::new(table);
        let old = self.publication.change(|view| {
            view.frozen = Some(std::mem::replace(&mut view.active, table));
        });
        drop(janitor);
        self.bury(old);
        checkpointer.frozen = Some(Frozen {
            table: active,
            seq: writer.seq - 1,
            position,
            catalog: catalog.clone(),
            dead: std::mem::take(&mut writer.dead),
            cleanup,
        });
        writer.renew_view(self);
        Ok(catalog)
    }

    /// The part that may take long and may fail. Called with the checkpointer's lock only. What is frozen stays there until it is in the engine.
    fn finish(&self, checkpointer: &mut Checkpointer) -> Result<(), CheckpointError> {
        let Some(frozen) = &checkpointer.frozen else { return Ok(()) };
        let started = (self.clock)();
        let rows = self.commit_frozen(frozen)?;
        let position = frozen.position;
        let (_, view) = self.publication.current();
        let number = view.number + 1;
        // In this order, so that no view finds a row in the cache that is older or newer than itself: see `cache`.
        view.cache.advance(number);
        self.renew(frozen, &view.cache, number);
        drop(view);
        let engine = self.engine.read().snapshot();
        let old = self.publication.change(|view| {
            view.engine = engine;
            view.number = number;
            view.frozen = None;
        });
        checkpointer.position = position;
        checkpointer.frozen = None;
        let active = old.active.bytes();
        self.bury(old);
        self.changed.store(active, Relaxed);
        self.figures.checkpoints.fetch_add(1, Relaxed);
        self.figures.last_checkpoint_ms.store(((self.clock)() - started).max(0) as u64, Relaxed);
        self.figures.last_checkpoint_rows.store(rows, Relaxed);
        self.figures.last_checkpoint_offset.store(position.offset.0, Relaxed);
        Ok(())
    }

    fn commit_frozen(&self, frozen: &Frozen) -> Result<u64, CheckpointError> {
        if let Some(log) = &self.log {
            log.sync_to(frozen.position.offset)?;
        }
        let engine = self.engine.read().clone();
        let _aside = self.aside.enter();
        if self.failing.load(Relaxed) {
            // What failed before may have been background work of the engine; its cause may be gone.
            engine.resume()?;
        }
        let snapshot = engine.snapshot();
        let plan = frozen.cleanup.plan(&*snapshot)?;
        let meta = [(POSITION.encoded(), frozen.position.encode()), (CATALOG.encoded(), frozen.catalog.encode())];
        let mut source = Source::new(self, frozen, &*snapshot, meta, plan.keys);
        engine.commit(&plan.ranges, &mut source)?;
        Ok(source.rows)
    }

    /// Puts the rows that have gone into the engine, which counts `number` now, into the cache.
    fn renew(&self, frozen: &Frozen, cache: &RowCache, number: u64) {
        let mut drain = Drain::new(frozen);
        let mut courtesy = Courtesy::of_this_thread();
        let _aside = self.aside.enter();
        while let Some((run, skips, items)) = drain.batch() {
            if !RowCache::takes(run.space) {
                continue;
            }
            for part in items.chunks(AHEAD) {
                cache.prefetch_renewal(part.iter().map(|item| run.key(item)));
                for item in part.iter().filter(|item| !frozen.skips_row(&run, skips, item)) {
                    cache.renew(&run.key(item), item.value.clone(), number);
                }
                if !self.is_pressed() {
                    courtesy.now_and_then();
                }
            }
        }
    }

    /// Where the engine stands.
    pub fn checkpoint_offset(&self) -> Offset {
        Offset(self.figures.last_checkpoint_offset.load(Relaxed))
    }
}

impl Frozen {
    /// Whether rows of this group may be left out, all of them (`Some(true)`), some (`None`), or none.
    fn skips(&self, space: Space, group: u64) -> Option<bool> {
        match space {
            Space::Key if self.cleanup.has_walk(group) => None,
            Space::Key | Space::Meta | Space::Expiry | Space::Garbage => Some(false),
            _ => Some(self.dead.contains(&group)),
        }
    }

    fn skips_row(&self, run: &Run, skips: Option<bool>, item: &Item) -> bool {
        let fresh = run.group >= self.table.fresh_from();
        skips.unwrap_or_else(|| self.cleanup.walked(run.group, item.order))
            // Nothing below this table has it.
            || (fresh && item.value.is_none())
    }
}

/// Walks over the rows of a frozen table in order, holding a batch of them.
struct Drain<'a> {
    frozen: &'a Frozen,
    runs: std::vec::IntoIter<Run>,
    run: Option<(Run, Option<bool>)>,
    items: Vec<Item>,
    at: usize,
    done: bool,
}

impl<'a> Drain<'a> {
    fn new(frozen: &'a Frozen) -> Drain<'a> {
        let runs = frozen.table.runs().into_iter();
        Drain { frozen, runs, run: None, items: Vec::new(), at: 0, done: true }
    }

    fn next(&mut self) -> Option<(Run, &Item)> {
        loop {
            let (run, skips) = self.fill()?;
            while self.at < self.items.len() {
                let at = self.at;
                self.at += 1;
                if !self.frozen.skips_row(&run, skips, &self.items[at]) {
                    return Some((run, &self.items[at]));
                }
            }
        }
    }

    /// The next rows of one run, at most [`BATCH`], and what [`Frozen::skips`] says of it: [`Frozen::skips_row`] may skip some.
    fn batch(&mut self) -> Option<(Run, Option<bool>, &[Item])> {
        let (run, skips) = self.fill()?;
        let at = std::mem::replace(&mut self.at, self.items.len());
        Some((run, skips, &self.items[at..]))
    }

    /// Sees to it that there are items, if there are more.
    fn fill(&mut self) -> Option<(Run, Option<bool>)> {
        loop {
            if let Some((run, skips)) = self.run {
                if self.at < self.items.len() {
                    return Some((run, skips));
                }
                if !self.done {
                    self.refill(run);
                    continue;
                }
            }
            let run = self.runs.next()?;
            let skips = self.frozen.skips(run.space, run.group);
            if skips == Some(true) {
                continue;
            }
            self.run = Some((run, skips));
            self.items.clear();
            self.refill(run);
        }
    }

    /// A row that comes soon.
    fn soon(&self) -> Option<RowKey<'_>> {
        let (run, _) = self.run.as_ref()?;
        let item = self.items.get(self.at + AHEAD)?;
        Some(run.key(item))
    }

    fn refill(&mut self, run: Run) {
        let (order, tail, open) = match self.items.pop() {
            Some(last) => (last.order, last.tail, true),
            None => (0, Tail::new(b""), false),
        };
        self.items.clear();
        self.at = 0;
        let table = &self.frozen.table;
        self.done = table.collect_run(run, (order, &tail), open, self.frozen.seq, BATCH, &mut self.items);
    }
}

/// The rows of a checkpoint: position and catalog, the frozen table, and single deletions, which win over a row of the table.
struct Source<'a> {
    core: &'a Core,
    drain: Drain<'a>,
    /// The engine before the commit.
    engine: &'a dyn Snapshot,
    meta: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    meta_now: (Vec<u8>, Vec<u8>),
    deletions: std::iter::Peekable<std::vec::IntoIter<Vec<u8>>>,
    deletion_now: Vec<u8>,
    /// The table's next row.
    key: Vec<u8>,
    value: Option<Value>,
    pending: bool,
    rows: u64,
    courtesy: Courtesy,
}

impl<'a> Source<'a> {
    fn new(
        core: &'a Core,
        frozen: &'a Frozen,
        engine: &'a dyn Snapshot,
        meta: [(Vec<u8>, Vec<u8>); 2],
        deletions: Vec<Vec<u8>>,
    ) -> Source<'a> {
        Source {
            core,
            drain: Drain::new(frozen),
            engine,
            // Space 0 comes before all others, and the position's group before the catalog's.
            meta: Vec::from(meta).into_iter(),
            meta_now: (Vec::new(), Vec::new()),
            deletions: deletions.into_iter().peekable(),
            deletion_now: Vec::new(),
            key: Vec::new(),
            value: None,
            pending: false,
            rows: 0,
            courtesy: Courtesy::of_this_thread(),
        }
    }
}

impl ChangeSource for Source<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        if let Some(meta) = self.meta.next() {
            self.meta_now = meta;
            return Some((&self.meta_now.0, Some(&self.meta_now.1)));
        }
        if self.rows.is_multiple_of(COURTEOUS) && !self.core.is_pressed() {
            self.courtesy.now_and_then();
        }
        if !self.pending {
            self.drain.soon().iter().for_each(|key| self.engine.prefetch(key));
        }
        if !self.pending
            && let Some((run, item)) = self.drain.next()
        {
            self.key.clear();
            run.key(item).encode(&mut self.key);
            self.value = item.value.clone();
            self.pending = true;
        }
        let pending = self.pending.then_some(&self.key);
        if let Some(deletion) = self.deletions.next_if(|deletion| pending.is_none_or(|key| deletion <= key)) {
            if self.pending && deletion == self.key {
                self.pending = false;
            }
            self.deletion_now = deletion;
            self.rows += 1;
            return Some((&self.deletion_now, None));
        }
        if !self.pending {
            return None;
        }
        self.pending = false;
        self.rows += 1;
        Some((&self.key, self.value.as_deref()))
    }
}
