//! The store: one data directory, its log, its state file and the current generation.
//!
//! It is the only writer of all of them. Opening and recovery are in `recovery`, full syncs in `generation`, threads in `background`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ardb_base::disk::DirLock;
use ardb_base::id::{Generation, Offset, ReplId, UnixMs};
use ardb_engine::EngineStats;
use ardb_log::{Log, LogStats};
use parking_lot::{Mutex, RwLock};

use crate::background::Threads;
use crate::cache::CacheStats;
use crate::core::Core;
use crate::error::{CheckpointError, CommitError, StateError};
use crate::options::{Fsync, History, Recovery, StoreOptions};
use crate::read::Reader;
use crate::snapshot::StoreSnapshot;
use crate::state::{State, StateFile, Tail};
use crate::txn::WriteTxn;
use crate::view::View;

/// A handle of the store. Clones are handles of the same store. [`Store::close`] ends it; dropping the last handle ends it as a
/// killed process would.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// What handles share.
pub(crate) struct Shared {
    pub options: StoreOptions,
    pub core: Arc<Core>,
    pub log: Log,
    pub state: Mutex<StateFile>,
    pub history: RwLock<History>,
    /// The newest generation number that was ever used by this process.
    pub generations: AtomicU64,
    /// The newest epoch of the log that was ever used by this process.
    pub epochs: AtomicU64,
    pub last_sync: AtomicU64,
    /// Bytes of log that stay for replicas that come back.
    pub backlog_bytes: AtomicU64,
    /// Bytes of log that pins hold at most.
    pub pinned_bytes: AtomicU64,
    /// Pins that the last trimming passed over.
    pub overruled: AtomicUsize,
    pub last_log_failure: AtomicBool,
    /// Whether it was said that [`Tail::Doubtful`] could not be written.
    pub last_note_failure: AtomicBool,
    pub recovery: Recovery,
    /// Directories of old generations, to be deleted when nobody reads them any more.
    pub condemned: Mutex<Vec<(Weak<View>, PathBuf)>>,
    pub threads: Mutex<Option<Threads>>,
    pub _lock: Box<dyn DirLock>,
}

/// Bytes of log after the last checkpoint that make the next one begin, whatever it costs: a restart replays some 15 MB a second of the
/// smallest commands.
const LONG_LOG: u64 = 256 << 20;
/// As above, if there is little to write.
const CHEAP_LOG: u64 = 32 << 20;
/// Bytes of changed rows that are little.
const CHEAP_ROWS: u64 = 16 << 20;
/// How often a writer looks whether a checkpoint has made room.
const ROOM_POLL: Duration = Duration::from_millis(5);
/// How long a tick deletes garbage at most, in milliseconds.
const JANITOR_MS: i64 = 20;

/// Figures for INFO.
#[derive(Clone, Debug, Default)]
pub struct StoreStats {
    /// Rows of the active table, deleted ones included.
    pub active_rows: u64,
    /// Bytes of the active table.
    pub active_bytes: u64,
    /// Rows of the table that is on its way into the engine.
    pub frozen_rows: u64,
    /// Bytes of that table.
    pub frozen_bytes: u64,
    /// The cache of clean rows.
    pub cache: CacheStats,
    /// The engine.
    pub engine: EngineStats,
    /// The engine's name.
    pub engine_name: &'static str,
    /// The current generation.
    pub generation: Generation,
    /// Finished checkpoints.
    pub checkpoints: u64,
    /// Failed ones.
    pub failed_checkpoints: u64,
    /// How long the last one took, in milliseconds.
    pub last_checkpoint_ms: u64,
    /// How many rows it wrote.
    pub last_checkpoint_rows: u64,
    /// Where in the log it stands.
    pub checkpoint_offset: Offset,
    /// Why the last one failed, if it did.
    pub checkpoint_failure: Option<String>,
    /// The log.
    pub log: Option<LogStats>,
    /// Things that wait for the janitor.
    pub garbage: usize,
    /// How often a writer was slowed.
    pub delays: u64,
}

impl Store {
    /// A reader for one thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.core.clone())
    }

    /// Whether rows can be read from the disk together ([`crate::ReadTxn::fetch`]), and not just one after the other.
    #[must_use]
    pub fn fetches_together(&self) -> bool {
        self.shared.core.publication.current().1.engine.reads_together()
    }

    /// Takes the writer lock. If changed rows fill their share of memory, it first waits a little, longer the fuller it is, so that checkpoints keep up; if
    /// they fill it twice, until a checkpoint has made room or has failed.
    #[must_use]
    pub fn write(&self) -> WriteTxn<'_> {
        self.make_room(&mut || true);
        WriteTxn::new(&self.shared.core)
    }

    /// As [`Store::write`], but asks again and again while it waits, for the lock after each `patience`, whether to go on with it. `None` if `go_on` said no.
    #[must_use]
    pub fn write_while(&self, patience: Duration, mut go_on: impl FnMut() -> bool) -> Option<WriteTxn<'_>> {
        if !self.make_room(&mut go_on) {
            return None;
        }
        WriteTxn::new_while(&self.shared.core, patience, go_on)
    }

    /// Waits if changed rows fill their share of memory; false if `go_on` said no. The lock is free meanwhile, since a checkpoint needs it. Where checkpoints
    /// fail nobody waits for them: the commit will be refused.
    fn make_room(&self, go_on: &mut dyn FnMut() -> bool) -> bool {
        let core = &*self.shared.core;
        let budget = core.budget.changed;
        let changed = core.changed.load(Ordering::Relaxed);
        if changed <= budget {
            return true;
        }
        core.want_checkpoint();
        // Without threads nobody else would make room.
        let in_vain = || !self.shared.options.background || core.failing.load(Ordering::Relaxed);
        if in_vain() {
            return true;
        }
        core.figures.delays.fetch_add(1, Ordering::Relaxed);
        let tenths = (changed - budget).saturating_mul(10) / budget.max(1);
        std::thread::sleep(Duration::from_micros((200 << tenths.min(9)).min(100_000)));
        while core.changed_bytes() > budget.saturating_mul(2) && !in_vain() {
            if !go_on() {
                return false;
            }
            core.want_checkpoint();
            std::thread::sleep(ROOM_POLL);
        }
        true
    }

    /// Returns when everything below `offset` is durable.
    pub fn sync_to(&self, offset: Offset) -> Result<(), ardb_log::SyncError> {
        let result = self.shared.log.sync_to(offset);
        if let Err(ardb_log::SyncError::Failed(_)) = result {
            self.note_failed_sync();
        }
        result
    }

    /// Makes it durable that a sync of the log has failed. From then on what was appended since the last good sync may go at any moment, while replicas
    /// have it; so the next start must not go on under the same name. The disk may refuse this too; then it is tried again.
    fn note_failed_sync(&self) {
        let mut file = self.shared.state.lock();
        if file.get().tail == Tail::Doubtful {
            return;
        }
        let state = State { tail: Tail::Doubtful, ..file.get().clone() };
        match file.set(state) {
            Ok(()) => log::warn!(
                "a sync of the log has failed: the next start begins a new history, unless this is a replica"
            ),
            Err(error) if !self.shared.last_note_failure.swap(true, Ordering::Relaxed) => {
                log::warn!("that a sync of the log has failed was not written down, and will be tried again: {error}");
            }
            Err(_) => {}
        }
    }

    /// Everything below is durable.
    #[must_use]
    pub fn synced(&self) -> Offset {
        self.shared.log.synced()
    }

    /// The log, for those who send it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// When the log is to be synced, as the options said.
    #[must_use]
    pub fn fsync(&self) -> Fsync {
        self.shared.options.fsync
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    /// Brings everything committed by now into the engine. Not to be called by a thread that holds a [`WriteTxn`], nor are the other calls that
    /// wait for a checkpoint or change the history.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.shared.core.checkpoint()?;
        self.trim_log();
        Ok(())
    }

    /// Where the engine stands.
    #[must_use]
    pub fn checkpoint_offset(&self) -> Offset {
        self.shared.core.checkpoint_offset()
    }

    /// The data at the end of the log, with a hold on the log from there on. Writers wait only while a table is exchanged; the caller
    /// waits until the checkpoint is in the engine.
    pub fn snapshot_at_checkpoint(&self) -> Result<StoreSnapshot, CheckpointError> {
        let stand = self.shared.core.stand(true, &|| false)?;
        Ok(StoreSnapshot::new(stand, self.shared.options.databases))
    }

    /// As [`Store::snapshot_at_checkpoint`], for a replica that knows nothing of the stream before. If `anew` the next effect selects its database
    /// again, so that the replica learns it; not to be said where the log is another server's stream. It is asked under the writer lock.
    pub fn snapshot_for_replica(&self, anew: impl Fn() -> bool) -> Result<StoreSnapshot, CheckpointError> {
        let stand = self.shared.core.stand(true, &anew)?;
        Ok(StoreSnapshot::new(stand, self.shared.options.databases))
    }

    /// Periodic work: syncs the log about once a second if the options say so, deletes garbage, frees memory, asks for a checkpoint when
    /// changes are old. The store's thread calls it; without threads the caller does, about ten times a second.
    pub fn tick(&self) -> Result<(), CommitError> {
        let now = (self.shared.options.clock)();
        self.sync_if_due(now);
        if self.shared.log.failure().is_some() {
            self.note_failed_sync();
        }
        let core = &self.shared.core;
        // Bounded, so that a tick ends even if garbage comes as fast as it goes.
        while core.janitor_step()? && (self.shared.options.clock)() - now < JANITOR_MS {}
        if self.shared.options.background {
            // The other thread does it, which is put aside for it.
            core.want_sweep();
        } else {
            core.sweep();
        }
        self.remove_condemned();
        let since = core.dirty_since.load(Ordering::Relaxed);
        let old = since != 0 && (now as u64).saturating_sub(since) >= self.shared.options.checkpoint_age_ms;
        if old || self.replay_is_long() {
            core.want_checkpoint();
        } else {
            let (some, pressing) = {
                let janitor = core.janitor.lock();
                (janitor.has_cleanup(), janitor.is_pressing())
            };
            if since == 0 && some {
                core.dirty_since.store(1.max(now) as u64, Ordering::Relaxed);
            }
            if pressing {
                core.want_checkpoint();
            }
        }
        Ok(())
    }

    /// Whether a restart now would replay more of the log than it is worth: much of it for few rows (counters), or very much for any.
    fn replay_is_long(&self) -> bool {
        let log = self.shared.log.end().since(self.checkpoint_offset());
        log > LONG_LOG || (log > CHEAP_LOG && self.shared.core.changed.load(Ordering::Relaxed) < CHEAP_ROWS)
    }

    /// One bounded step of deleting garbage, of which [`Store::tick`] does as many as it has time for. Gives whether there may be more to do at once.
    pub fn janitor_step(&self) -> Result<bool, CommitError> {
        self.shared.core.janitor_step()
    }

    fn sync_if_due(&self, now: UnixMs) {
        let shared = &self.shared;
        if shared.options.fsync != Fsync::EverySecond {
            return;
        }
        let last = shared.last_sync.load(Ordering::Relaxed);
        if (now as u64).saturating_sub(last) < 1000 {
            return;
        }
        shared.last_sync.store(now as u64, Ordering::Relaxed);
        if let Err(error) = shared.log.sync_to(shared.log.end())
            && !shared.last_log_failure.swap(true, Ordering::Relaxed)
        {
            // A new history may have begun in between, which is no failure of the log.
            log::warn!("the log was not synced: {error}");
        }
    }

    /// Deletes generations that were replaced, once no reader stands in them.
    pub(crate) fn remove_condemned(&self) {
        let mut condemned = self.shared.condemned.lock();
        condemned.retain(|(view, dir)| {
            if view.strong_count() > 0 {
                return true;
            }
            if let Err(error) = self.shared.options.disk.remove_dir_all(dir) {
                log::warn!("an old generation stays behind until the next start: {error}");
            }
            false
        });
    }

    /// Whether the index of expiries may have an entry of this order, or one before. Costs next to nothing.
    #[must_use]
    pub fn may_have_expiry_by(&self, order: u64) -> bool {
        self.shared.core.expiries.may_begin_by(order)
    }

    /// Whether a checkpoint is asked for; the caller runs it if the store has no threads.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.shared.core.wanted.flagged.load(Ordering::Relaxed)
    }

    /// Lets go of segments of the log that neither recovery nor the backlog needs.
    pub(crate) fn trim_log(&self) {
        let (log, shared) = (&self.shared.log, &self.shared);
        let end = log.end().0;
        let backlog = Offset(end.saturating_sub(shared.backlog_bytes.load(Ordering::Relaxed)));
        let pins = Offset(end.saturating_sub(shared.pinned_bytes.load(Ordering::Relaxed)));
        let left = log.truncate_front_past(backlog.min(self.checkpoint_offset()), pins);
        let before = shared.overruled.swap(left.overruled, Ordering::Relaxed);
        if left.overruled > before {
            log::warn!(
                "Full syncs hold more of the log than they may: {} of them will not find what they need, since it begins at {} now",
                left.overruled,
                left.start
            );
        }
    }

    /// How many bytes of the log stay for replicas that come back, and how many for pins at most; from the next checkpoint on.
    pub fn set_log_limits(&self, backlog: u64, pinned: u64) {
        self.shared.backlog_bytes.store(backlog, Ordering::Relaxed);
        self.shared.pinned_bytes.store(pinned, Ordering::Relaxed);
    }

    /// The names of the history.
    #[must_use]
    pub fn history(&self) -> History {
        *self.shared.history.read()
    }

    /// Whom this server replicates, as [`Store::set_history`] was told.
    #[must_use]
    pub fn upstream(&self) -> Option<Vec<u8>> {
        self.shared.state.lock().get().upstream.clone()
    }

    /// Whether the upstream is to take the role of the master from us and has not said yet that it has, and if so, whether only with everything
    /// ([`Store::hand_over`]).
    #[must_use]
    pub fn handing(&self) -> Option<bool> {
        self.shared.state.lock().get().handing
    }

    /// Sets the names of the history and whom this server replicates (which makes the log a prefix of the master's). A handing over of the role
    /// ends with it. Durable when it returns.
    pub fn set_history(&self, history: History, upstream: Option<Vec<u8>>) -> Result<(), StateError> {
        let mut txn = WriteTxn::new(&self.shared.core);
        self.set_history_locked(&mut txn, history, upstream, None)
    }

    /// From now on this server replicates one of its own replicas, which is to be asked to take the role of the master, until
    /// [`Store::set_history`], an install or a promotion says otherwise; after a restart too. The history stays. `complete` is kept for whoever asks
    /// after a restart. Durable when it returns.
    pub fn hand_over(&self, upstream: Vec<u8>, complete: bool) -> Result<(), StateError> {
        let mut txn = WriteTxn::new(&self.shared.core);
        let history = self.history();
        self.set_history_locked(&mut txn, history, Some(upstream), Some(complete))
    }

    /// The upstream has the role, or will not be asked for it any more: what [`Store::hand_over`] began is over, and this server is a replica like any
    /// other. Durable when it returns.
    pub fn handed_over(&self) -> Result<(), StateError> {
        // A promotion must not come in between.
        let mut txn = WriteTxn::new(&self.shared.core);
        if self.handing().is_none() {
            return Ok(());
        }
        let (history, upstream) = (self.history(), self.upstream());
        self.set_history_locked(&mut txn, history, upstream, None)
    }

    /// Promotion, or any other reason to go on under a new name: a new id, and the old one valid up to the end of the log. The upstream
    /// is forgotten. Durable when it returns. Writers wait for the disk here, because the end must stand still.
    pub fn fork_history(&self) -> Result<History, StateError> {
        let mut txn = WriteTxn::new(&self.shared.core);
        let end = txn.offset();
        // Replicas may continue at `end` under the old id; what they know of it must not be lost here.
        self.shared.log.sync_to(end)?;
        let before = self.history();
        let history = History { id: self.new_id(), second: before.id, second_until: end };
        self.set_history_locked(&mut txn, history, None, None)?;
        Ok(history)
    }

    fn set_history_locked(
        &self,
        txn: &mut WriteTxn<'_>,
        history: History,
        upstream: Option<Vec<u8>>,
        handing: Option<bool>,
    ) -> Result<(), StateError> {
        let mut file = self.shared.state.lock();
        let state = State { history, upstream, handing, ..file.get().clone() };
        file.set(state)?;
        *self.shared.history.write() = history;
        txn.writer().id = history.id;
        Ok(())
    }

    pub(crate) fn new_id(&self) -> ReplId {
        let mut bytes = [0; 20];
        (self.shared.options.random)(&mut bytes);
        ReplId::from_random(bytes)
    }

    /// Ends the store cleanly: a checkpoint of everything, the log synced, the state marked clean. Later commits are refused. If the
    /// checkpoint fails, the log is synced and the state marked all the same, since the log holds what the engine lacks.
    pub fn close(&self) -> Result<(), StateError> {
        let threads = self.shared.threads.lock().take();
        if let Some(threads) = threads {
            threads.stop(&self.shared.core);
        }
        let end = {
            let mut txn = WriteTxn::new(&self.shared.core);
            txn.writer().closed = true;
            txn.offset()
        };
        if let Err(error) = self.checkpoint() {
            log::warn!("closing without a checkpoint; the next start replays the log: {error}");
        }
        self.shared.log.sync_to(end)?;
        let mut file = self.shared.state.lock();
        let state = State { clean: true, ..file.get().clone() };
        file.set(state)
    }

    /// Views that were replaced and are still in use or not yet freed.
    #[must_use]
    pub fn buried_views(&self) -> usize {
        self.shared.core.graveyard.lock().len()
    }

    /// Figures for INFO.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let core = &self.shared.core;
        let (_, view) = core.publication.current();
        let figures = &core.figures;
        let mut stats = StoreStats {
            active_rows: view.active.rows(),
            active_bytes: view.active.bytes(),
            frozen_rows: view.frozen.as_ref().map_or(0, |table| table.rows()),
            frozen_bytes: view.frozen.as_ref().map_or(0, |table| table.bytes()),
            cache: view.cache.stats(),
            generation: view.generation,
            checkpoints: figures.checkpoints.load(Ordering::Relaxed),
            failed_checkpoints: figures.failed_checkpoints.load(Ordering::Relaxed),
            last_checkpoint_ms: figures.last_checkpoint_ms.load(Ordering::Relaxed),
            last_checkpoint_rows: figures.last_checkpoint_rows.load(Ordering::Relaxed),
            checkpoint_offset: core.checkpoint_offset(),
            checkpoint_failure: core.failure.lock().as_ref().map(ToString::to_string),
            log: Some(self.shared.log.stats()),
            garbage: core.janitor.lock().len(),
            delays: figures.delays.load(Ordering::Relaxed),
            ..StoreStats::default()
        };
        let engine = core.engine.read().clone();
        stats.engine_name = engine.name();
        stats.engine = engine.stats();
        stats
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.lock().take() {
            threads.stop(&self.core);
        }
    }
}
