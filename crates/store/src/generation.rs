//! Full syncs as a replica: a new generation is loaded beside the current one, which goes on serving, and becomes current in one step.
//!
//! The step is one write of the state file, which names the generation and the log's epoch together. Everything that the new state needs is
//! durable before it, and nothing that the old one needs is deleted until after it. A loader that is dropped deletes what it made.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ardb_base::id::{Generation, Offset, ReplId};
use ardb_engine::{EngineStats, RowsMut};

use crate::catalog::{Catalog, Counts};
use crate::checkpoint::Checkpointer;
use crate::core::Core;
use crate::error::GenerationError;
use crate::janitor::Janitor;
use crate::options::{History, StoreOptions};
use crate::position::Position;
use crate::recovery::{MetaRows, generation_dir, open_engine};
use crate::state::State;
use crate::store::Store;
use crate::table::Table;
use crate::txn::WriteTxn;

/// A generation that is being loaded. Dropping it deletes it.
pub struct GenerationLoader {
    /// Always there until it is dropped.
    core: Option<Arc<Core>>,
    generation: Generation,
    dir: PathBuf,
    pub(crate) options: StoreOptions,
    /// Whether the directory belongs to the store now, or must be left for the next opening to judge.
    keep: AtomicBool,
}

/// Where the stream goes on after a full sync.
#[derive(Clone, Copy, Debug)]
pub struct SyncPoint {
    /// The names of the master's history.
    pub history: History,
    /// The data stand here; the next byte of the stream has this offset.
    pub offset: Offset,
    /// The database that is selected in the stream there, if that is known.
    pub db: Option<u32>,
}

impl GenerationLoader {
    pub(crate) fn core(&self) -> &Arc<Core> {
        match &self.core {
            Some(core) => core,
            None => unreachable!("only dropping takes it out"),
        }
    }

    /// Rows are written through an ordinary transaction, except that there is no log: the frame buffer is ignored. Each commit
    /// is visible to later transactions of the loader only. Memory stays bounded if [`GenerationLoader::relieve`] is called after commits.
    #[must_use]
    pub fn write(&self) -> WriteTxn<'_> {
        WriteTxn::new(self.core())
    }

    /// Brings rows into the engine if they fill their share of memory. Waits for that.
    pub fn relieve(&self) -> Result<(), GenerationError> {
        let core = self.core();
        if core.changed.load(Ordering::Relaxed) > core.budget.changed / 2 {
            core.checkpoint()?;
            core.sweep();
        }
        Ok(())
    }

    /// Calls `write` with a transaction, commits it, and relieves memory.
    pub fn load<T>(&self, write: impl FnOnce(&mut dyn RowsMut) -> T) -> Result<T, GenerationError> {
        let mut txn = self.write();
        let result = write(&mut txn);
        txn.frame().payload.clear();
        txn.commit()?;
        drop(txn);
        self.relieve()?;
        Ok(result)
    }

    /// Reads what was loaded, for checks.
    #[must_use]
    pub fn reader(&self) -> crate::read::Reader {
        crate::read::Reader::new(self.core().clone())
    }

    /// The number of the generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The new engine's figures.
    #[must_use]
    pub fn engine_stats(&self) -> EngineStats {
        self.core().engine.read().stats()
    }
}

impl Drop for GenerationLoader {
    fn drop(&mut self) {
        if self.keep.load(Ordering::Relaxed) {
            return;
        }
        // The engine closes first (unless a reader still has it; then its files go all the same).
        self.core = None;
        if let Err(error) = self.options.disk.remove_dir_all(&self.dir) {
            log::warn!("an unfinished generation stays behind: {error}");
        }
    }
}

impl Store {
    /// Begins a new generation. It gets half of the memory for changed rows, and a small cache until it is current.
    pub fn begin_generation(&self) -> Result<GenerationLoader, GenerationError> {
        let options = &self.shared.options;
        let generation = Generation(self.shared.generations.fetch_add(1, Ordering::Relaxed) + 1);
        let dir = generation_dir(&options.dir, generation);
        options.disk.remove_dir_all(&dir)?;
        let engine = open_engine(options, generation).map_err(|error| match error {
            crate::error::OpenError::Engine(error) => GenerationError::Engine(error),
            other => GenerationError::Engine(ardb_engine::EngineError::new("open", other)),
        })?;
        // Not the state's epoch, so that an engine that was not finished can never be taken for one that was.
        let position = Position { epoch: 0, offset: Offset(0), db: None, id: ReplId::NONE };
        let catalog = Catalog::empty(options.databases);
        engine.commit(&[], &mut MetaRows::new(&position, &catalog))?;
        let mut budget = options.memory;
        budget.changed /= 2;
        budget.rows /= 8;
        let clock = options.clock.clone();
        let core = Core::new(engine, generation, position, catalog, None, options.databases, budget, clock);
        Ok(GenerationLoader {
            core: Some(Arc::new(core)),
            generation,
            dir,
            options: options.clone(),
            keep: AtomicBool::new(false),
        })
    }

    /// Makes a loaded generation current: the log begins anew at `point.offset`, the history is the master's, readers see the new data from their next
    /// transaction on, and the old generation is deleted. `upstream` is as for [`Store::set_history`]. If it fails, the old generation goes on.
    pub fn install(
        &self,
        loader: GenerationLoader,
        point: SyncPoint,
        upstream: Option<Vec<u8>>,
    ) -> Result<(), GenerationError> {
        // Nothing of the old generation needs to go into its engine any more.
        let mut checkpointer = self.shared.core.checkpointer.lock();
        // Not one that an attempt before may have written to the disk.
        let epoch = self.shared.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let position = Position { epoch, offset: point.offset, db: point.db, id: point.history.id };
        {
            let mut txn = loader.write();
            let writer = txn.writer();
            (writer.offset, writer.frame.db, writer.frame_db, writer.id) =
                (point.offset, point.db, point.db, point.history.id);
            drop(txn);
            loader.core().checkpointer.lock().position.epoch = epoch;
        }
        // All of its rows and the position are durable in the new engine after this.
        loader.core().checkpoint()?;
        self.shared.options.disk.sync_dir(&self.shared.options.dir)?;
        let stand = loader.core().stand(false, &|| false)?;
        let mut janitor = Janitor::new(loader.generation);
        janitor.load(&*stand.snapshot)?;
        debug_assert_eq!(stand.position, position, "the new engine stands where the log will begin");

        let mut txn = WriteTxn::new(&self.shared.core);
        let writer = txn.writer();
        let mut prepared = None;
        if let Some(appender) = &mut writer.appender {
            prepared = Some(appender.prepare_reset(epoch, point.offset)?);
        }
        let mut file = self.shared.state.lock();
        let old_state = file.get().clone();
        let state = State {
            generation: loader.generation,
            epoch,
            history: point.history,
            upstream,
            handing: None,
            ..old_state.clone()
        };
        if let Err(error) = file.set(state) {
            // The disk may hold the new state all the same. Only if the old one can be written over it, the new files may go.
            if file.set(old_state).is_err() {
                loader.keep.store(true, Ordering::Relaxed);
                if let Some(prepared) = prepared {
                    prepared.leave();
                }
            }
            return Err(error.into());
        }
        // From here on nothing fails.
        loader.keep.store(true, Ordering::Relaxed);
        if let (Some(appender), Some(prepared)) = (&mut writer.appender, prepared.take()) {
            appender.finish_reset(prepared);
        }
        *self.shared.history.write() = point.history;
        drop(file);
        self.adopt(&mut txn, &mut checkpointer, &loader, stand.catalog, janitor, position);
        drop(txn);
        drop(checkpointer);
        self.shared.core.sweep();
        self.remove_condemned();
        Ok(())
    }

    /// Switches views, catalog and engine to the loaded generation, and condemns the old one.
    fn adopt(
        &self,
        txn: &mut WriteTxn<'_>,
        checkpointer: &mut Checkpointer,
        loader: &GenerationLoader,
        catalog: Catalog,
        janitor: Janitor,
        position: Position,
    ) {
        let core = &self.shared.core;
        let engine = loader.core().engine.read().clone();
        let writer = txn.writer();
        let seq = writer.seq;
        // Before the view: what the old one's waits for would be looked for in the new tables.
        *core.janitor.lock() = janitor;
        let old = core.publication.change(|view| {
            // A new core over the same engine would number its views from 1; these go on from the old number.
            let number = view.number + 1;
            view.active = Arc::new(Table::new(catalog.next_id));
            view.frozen = None;
            view.cache = Arc::new(crate::cache::RowCache::new(core.budget.rows, number));
            view.engine = engine.snapshot();
            view.number = number;
            view.keyspaces = catalog.databases.iter().map(|d| d.keyspace).collect();
            view.counts = Arc::new(Counts::new(&catalog, seq));
            view.from_seq = seq;
            view.generation = loader.generation;
        });
        core.publication.commit(seq);
        let old_dir = generation_dir(&self.shared.options.dir, old.generation);
        self.shared.condemned.lock().push((Arc::downgrade(&old), old_dir));
        core.bury(old);
        core.expiries.forget();
        writer.seq = seq + 1;
        writer.catalog = catalog;
        writer.dead.clear();
        (writer.offset, writer.frame.db, writer.frame_db, writer.id) =
            (position.offset, position.db, position.db, position.id);
        writer.gathered = false;
        writer.renew_view(core);
        *core.engine.write() = engine;
        checkpointer.position = position;
        checkpointer.frozen = None;
        core.changed.store(0, Ordering::Relaxed);
        core.dirty_since.store(0, Ordering::Relaxed);
        core.failing.store(false, Ordering::Relaxed);
        core.figures.last_checkpoint_offset.store(position.offset.0, Ordering::Relaxed);
    }
}
