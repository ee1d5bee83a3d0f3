//! Opening a data directory: creating it, or finding out what the last process left, and replaying the log onto the engine.
//!
//! The state file decides which generation and which epoch of the log count; everything else in the directory is a leftover. The engine
//! names its own position. What a crash may leave at each step stands in `docs/store.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ardb_base::disk::Disk;
use ardb_base::id::{Generation, Offset, ReplId, UnixMs};
use ardb_engine::{ChangeSource, Engine};
use ardb_log::{Cut, Ended, Examined, Fault, Log, Opened, Past};
use parking_lot::{Mutex, RwLock};

use crate::background::Threads;
use crate::catalog::Catalog;
use crate::core::Core;
use crate::error::{OpenError, ReplayError, StateError};
use crate::options::{History, OnDamage, Recovery, StoreOptions};
use crate::position::{self, CATALOG, POSITION, Position};
use crate::state::{State, StateFile, Tail};
use crate::store::{Shared, Store};
use crate::txn::WriteTxn;

/// A frame to be replayed.
#[derive(Debug)]
pub struct ReplayFrame<'a> {
    /// Offset of its first byte.
    pub offset: Offset,
    /// The database that is selected in the stream before its first byte; `None` if that is not known.
    pub db: Option<u32>,
    /// When its commands were first executed; they are to be executed at that time again.
    pub time: UnixMs,
    /// The bytes of the stream.
    pub payload: &'a [u8],
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Everything below is applied.
    pub at: Offset,
    /// The end.
    pub end: Offset,
}

/// The engine's directory of a generation.
pub fn generation_dir(dir: &Path, generation: Generation) -> PathBuf {
    dir.join(generation.to_string())
}

fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Rows for a commit of the store's own.
pub struct MetaRows(std::vec::IntoIter<(Vec<u8>, Vec<u8>)>, (Vec<u8>, Vec<u8>));

impl MetaRows {
    /// Position and catalog.
    pub fn new(position: &Position, catalog: &Catalog) -> MetaRows {
        let rows = vec![(POSITION.encoded(), position.encode()), (CATALOG.encoded(), catalog.encode())];
        MetaRows(rows.into_iter(), Default::default())
    }
}

impl ChangeSource for MetaRows {
    fn next_change(&mut self) -> Option<ardb_engine::Change<'_>> {
        self.1 = self.0.next()?;
        Some((&self.1.0, Some(&self.1.1)))
    }
}

impl Store {
    /// Opens the data directory, creating it if need be. Before anything else the caller hands the frames that the log holds beyond the engine to
    /// [`Store::replay`].
    ///
    /// # Errors
    /// A log that is damaged where a crash leaves no damage, among others: what it holds behind that was acknowledged, so it is not thrown away unasked.
    pub fn open(options: StoreOptions) -> Result<(Store, Recovery), OpenError> {
        Store::open_with(options, OnDamage::Refuse)
    }

    /// As [`Store::open`], with a word on damage of the log.
    pub fn open_with(options: StoreOptions, on_damage: OnDamage) -> Result<(Store, Recovery), OpenError> {
        options.disk.create_dir_all(&options.dir)?;
        let lock = options.disk.lock(&options.dir.join("lock"))?;
        let created;
        let mut file = match StateFile::open(&options.disk, &options.dir)? {
            Some(file) if file.get().generation != Generation(0) => {
                created = false;
                file
            }
            found => {
                created = true;
                begin(&options, found)?
            }
        };
        if created {
            fill(&options, &mut file)?;
        }
        remove_leftovers(&*options.disk, &options.dir, file.get().generation)?;

        let mut before = file.get().clone();
        let clean = before.clean;
        let engine = open_engine(&options, before.generation)?;
        let snapshot = engine.snapshot();
        let found = position::read(&*snapshot, before.generation)?;
        let (position, catalog) = found.ok_or(OpenError::Meta { generation: before.generation, what: "position" })?;
        // An epoch that is older than the state's is that of an engine that was ahead of its log (below); 0 that of a loader.
        if position.epoch == 0 || position.epoch > before.epoch {
            return Err(OpenError::Meta { generation: before.generation, what: "position" });
        }
        // Zeros: the system does not tell, so it may have been another run of the machine.
        let boot_changed = before.boot_id != options.boot_id || options.boot_id == [0; 16];
        let past = Past { epoch: before.epoch, checkpoint: position.offset, ended: ended(&before, boot_changed) };
        let mut examined = Examined::new(options.disk.clone(), &log_dir(&options.dir), past, options.log)?;
        if let Some(damage) = examined.damage() {
            if on_damage == OnDamage::Refuse {
                return Err(ardb_log::OpenError::Damaged(Box::new(damage.clone())).into());
            }
            examined.keep_tail()?;
        }
        let mut replaced_id = None;
        if examined.damage().is_some() && examined.end() >= position.offset && before.upstream.is_none() {
            // The name first: a death in the middle of the cutting could leave a log that looks whole. One that ends before the checkpoint never does.
            replaced_id = Some(before.history.id);
            let history = renamed(&options, before.history.id, examined.end());
            before = State { clean: false, boot_id: options.boot_id, history, tail: Tail::Renamed, ..before };
            file.set(before.clone()).map_err(open_error)?;
        }
        let Opened { log, mut appender, recovery: found } = examined.open()?;
        if found.start > position.offset {
            return Err(OpenError::Gap { log_start: found.start, checkpoint: position.offset });
        }

        // A log that is missing, or shorter than the engine, was damaged or taken away: nothing in it connects to what replicas have.
        let engine_ahead = found.end < position.offset || (found.created && !created);
        // A process that dies loses nothing that it appended; a machine may. A cut that is more than an append in progress is a loss in any case.
        let lost = found.damage.is_some() || found.cut.as_ref().is_some_and(|cut| cut.fault != Fault::Unfinished);
        let suspect = !created && ((!before.clean && boot_changed) || lost || before.tail == Tail::Doubtful);
        let mut state = State { clean: false, boot_id: options.boot_id, ..before.clone() };
        let mut position = position;
        let end = found.end.max(position.offset);
        if before.tail == Tail::Renamed {
            // Nobody has heard the name. The opening before may have found more.
            state.history.second_until = before.history.second_until.min(end);
        } else if (engine_ahead || suspect) && before.upstream.is_none() {
            // Up to the end that was found both histories agree, because every frame was checked. What others may have seen beyond it gets another name.
            replaced_id = Some(before.history.id);
            state.history = renamed(&options, before.history.id, end);
            if before.tail != Tail::Sound {
                state.tail = Tail::Renamed;
            }
        } else if engine_ahead || suspect {
            // Engine and log hold a prefix of the master's stream, however much was lost.
            log::info!(
                "the log may have lost its end; the master's id stays, and what is missing comes from the master"
            );
        }
        if engine_ahead {
            state.epoch = before.epoch + 1;
            position = Position { epoch: state.epoch, ..position };
            let prepared = appender.prepare_reset(state.epoch, position.offset)?;
            // The new log begins where the engine stands, so the engine's position is right for both.
            file.set(state).map_err(open_error)?;
            appender.finish_reset(prepared);
        } else {
            file.set(state).map_err(open_error)?;
        }
        // What replicas may be told to continue from must not be lost by a second power failure under the same name.
        if !engine_ahead && !before.clean {
            log.sync_to(log.end()).map_err(|error| sync_error(&options.dir, &error))?;
        }
        if before.tail != Tail::Sound {
            // Only now: what was found may go until then, and what is found next must be judged anew.
            let state = State { tail: Tail::Sound, ..file.get().clone() };
            file.set(state).map_err(open_error)?;
        }
        let state = file.get().clone();
        let recovery = Recovery {
            created,
            generation: state.generation,
            checkpoint: position.offset,
            log_start: log.start(),
            log_end: log.end(),
            clean,
            boot_changed,
            replaced_id,
            engine_ahead,
            torn: found.cut.filter(|_| found.damage.is_none()).map(|cut| {
                let Cut { at, fault, bytes, segments, frames } = cut;
                format!("{bytes} bytes and {segments} segments after {at}, with {frames} whole frames in them: {fault}")
            }),
            damage: found.damage.map(|damage| {
                let kept = found.kept.iter().chain(&found.set_aside).map(|path| path.display().to_string());
                let kept: Vec<String> = kept.collect();
                let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
                format!("{damage}. Kept of it: {kept}")
            }),
        };
        let position = Position { id: state.history.id, ..position };
        let core = Core::new(
            engine,
            state.generation,
            position,
            catalog,
            Some((log.clone(), appender)),
            options.databases,
            options.memory,
            options.clock.clone(),
        );
        core.janitor.lock().load(&*snapshot)?;
        core.figures.last_checkpoint_offset.store(position.offset.0, Ordering::Relaxed);
        let background = options.background;
        let shared = Arc::new(Shared {
            backlog_bytes: AtomicU64::new(options.backlog_bytes),
            pinned_bytes: AtomicU64::new(u64::MAX),
            overruled: AtomicUsize::new(0),
            core: Arc::new(core),
            log,
            history: RwLock::new(state.history),
            generations: AtomicU64::new(state.generation.0),
            epochs: AtomicU64::new(state.epoch),
            state: Mutex::new(file),
            last_sync: AtomicU64::new((options.clock)().max(0) as u64),
            last_log_failure: AtomicBool::new(false),
            last_note_failure: AtomicBool::new(false),
            recovery: recovery.clone(),
            condemned: Mutex::new(Vec::new()),
            threads: Mutex::new(None),
            options,
            _lock: lock,
        });
        if background {
            let threads = Threads::start(&shared).map_err(|error| {
                let dir = &shared.options.dir;
                ardb_base::disk::DiskError::from_io("start the threads of", dir, &error)
            })?;
            *shared.threads.lock() = Some(threads);
        }
        Ok((Store { shared }, recovery))
    }

    /// Applies the frames that the log holds beyond the engine, in order. `apply` executes the commands of one frame in the transaction; whatever it adds to
    /// the frame buffer's payload is dropped, and each frame is committed as one batch without being appended again. It keeps the buffer's `db` up to
    /// date as commands select databases. `progress` is called after each frame. To be called once, right after opening.
    pub fn replay(
        &self,
        apply: &mut dyn FnMut(&mut WriteTxn<'_>, &ReplayFrame<'_>) -> Result<(), String>,
        progress: &mut dyn FnMut(ReplayProgress),
    ) -> Result<(), ReplayError> {
        let log = &self.shared.log;
        let end = log.end();
        let mut at = self.shared.recovery.checkpoint;
        let mut frames = log.frames_from(at)?;
        while at < end {
            let Some(frame) = frames.next_frame()? else { break };
            if frame.first != at {
                return Err(ReplayError::InsideFrame { checkpoint: at, frame: frame.first });
            }
            let replayed = ReplayFrame {
                offset: at,
                db: position::db_from_u32(frame.db),
                time: frame.time,
                payload: &frame.payload,
            };
            let mut txn = WriteTxn::new(&self.shared.core);
            txn.frame().db = replayed.db;
            txn.writer().replaying = Some(frame.end());
            let applied = apply(&mut txn, &replayed).map_err(|why| ReplayError::Apply { at, why });
            let committed = match applied {
                Ok(()) => {
                    txn.frame().payload.clear();
                    txn.commit().map(|_| ()).map_err(ReplayError::from)
                }
                Err(error) => Err(error),
            };
            txn.rollback();
            txn.writer().replaying = None;
            drop(txn);
            committed?;
            at = frame.end();
            progress(ReplayProgress { at, end });
            if self.shared.core.changed.load(Ordering::Relaxed) > self.shared.core.budget.changed {
                // A replay can outrun the disk; here it may simply wait.
                if let Err(error) = self.checkpoint() {
                    log::warn!("a checkpoint during replay failed: {error}");
                }
            }
        }
        // What was replayed need not be so again after the next crash.
        if end > self.shared.recovery.checkpoint {
            self.shared.core.want_checkpoint();
        }
        Ok(())
    }
}

impl Store {
    /// Gives up what the log holds behind the frame at which [`Store::replay`] has ended with an error: the data stay as they are there, and log and
    /// history begin anew there, under a name that nobody else knows, so that another server will be asked for everything. Durable when it
    /// returns. Only where that other server has all of it: see [`Store::upstream`].
    ///
    /// # Errors
    /// A later start finds the data as this one has found them.
    pub fn give_up_rest(&self) -> Result<Offset, ReplayError> {
        // The engine first, since what lies between its position and the new log's beginning goes.
        self.checkpoint().map_err(ReplayError::GiveUp)?;
        let mut txn = WriteTxn::new(&self.shared.core);
        let start = txn.offset();
        let epoch = self.shared.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let writer = txn.writer();
        let prepared = writer.appender.as_mut().map(|appender| appender.prepare_reset(epoch, start)).transpose()?;
        let history = History::new(self.new_id());
        let mut file = self.shared.state.lock();
        let state = State { epoch, history, ..file.get().clone() };
        if let Err(error) = file.set(state) {
            // The disk may hold the new state all the same. If it does not, the next opening deletes the segment.
            if let Some(prepared) = prepared {
                prepared.leave();
            }
            return Err(error.into());
        }
        if let (Some(appender), Some(prepared)) = (&mut writer.appender, prepared) {
            appender.finish_reset(prepared);
        }
        *self.shared.history.write() = history;
        writer.id = history.id;
        Ok(start)
    }
}

/// Makes sure that nothing in the directory would be lost, and writes a state that says that it is being created.
fn begin(options: &StoreOptions, found: Option<StateFile>) -> Result<StateFile, OpenError> {
    if let Some(file) = found {
        // An earlier attempt got this far.
        return Ok(file);
    }
    let entries = options.disk.list(&options.dir)?;
    let data = entries.iter().any(|entry| entry.is_dir && (entry.name.starts_with("gen-") || entry.name == "log"));
    if data {
        return Err(OpenError::NoState(options.dir.clone()));
    }
    let mut bytes = [0; 20];
    (options.random)(&mut bytes);
    let state = State {
        generation: Generation(0),
        epoch: 1,
        history: History::new(ReplId::from_random(bytes)),
        clean: false,
        boot_id: options.boot_id,
        upstream: None,
        handing: None,
        tail: Tail::Sound,
    };
    StateFile::create(&options.disk, &options.dir, state).map_err(open_error)
}

/// Makes the first generation and an empty log, and then the state that names them.
fn fill(options: &StoreOptions, file: &mut StateFile) -> Result<(), OpenError> {
    let generation = Generation(1);
    // What an attempt that did not finish left; the state says that it holds nothing.
    options.disk.remove_dir_all(&generation_dir(&options.dir, generation))?;
    options.disk.remove_dir_all(&log_dir(&options.dir))?;
    let engine = open_engine(options, generation)?;
    let state = file.get().clone();
    let position = Position { epoch: state.epoch, offset: Offset(0), db: None, id: state.history.id };
    engine.commit(&[], &mut MetaRows::new(&position, &Catalog::empty(options.databases)))?;
    drop(engine);
    let past = Past { epoch: state.epoch, checkpoint: Offset(0), ended: Ended::New };
    drop(Log::open(options.disk.clone(), &log_dir(&options.dir), past, options.log)?);
    options.disk.sync_dir(&options.dir)?;
    file.set(State { generation, ..state }).map_err(open_error)
}

/// How the process before ended, from what it left in the state.
fn ended(state: &State, boot_changed: bool) -> Ended {
    match state.tail {
        Tail::Renamed => Ended::Cutting,
        Tail::Doubtful => Ended::Suspect,
        Tail::Sound if state.clean => Ended::Closed,
        Tail::Sound if boot_changed => Ended::Suspect,
        Tail::Sound => Ended::Killed,
    }
}

/// A new name for the history, with the one before valid up to `until`.
fn renamed(options: &StoreOptions, second: ReplId, until: Offset) -> History {
    let mut bytes = [0; 20];
    (options.random)(&mut bytes);
    History { id: ReplId::from_random(bytes), second, second_until: until }
}

/// Opens the engine of a generation.
pub fn open_engine(options: &StoreOptions, generation: Generation) -> Result<Arc<dyn Engine>, OpenError> {
    let dir = generation_dir(&options.dir, generation);
    Ok(options.engines.open(generation, &dir, options.memory.engine)?)
}

/// Removes generations that are not current: those that were given up and those that a full sync did not finish.
fn remove_leftovers(disk: &dyn Disk, dir: &Path, current: Generation) -> Result<(), OpenError> {
    for entry in disk.list(dir)? {
        let number = entry.name.strip_prefix("gen-").and_then(|n| n.parse().ok());
        if let Some(number) = number
            && entry.is_dir
            && Generation(number) != current
        {
            disk.remove_dir_all(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

fn open_error(error: StateError) -> OpenError {
    match error {
        StateError::Disk(error) => OpenError::Disk(error),
        other => OpenError::Disk(ardb_base::disk::DiskError::new(
            "write",
            Path::new("state"),
            ardb_base::disk::DiskErrorKind::Other,
            other,
        )),
    }
}

fn sync_error(dir: &Path, error: &ardb_log::SyncError) -> OpenError {
    let dir = log_dir(dir);
    ardb_base::disk::DiskError::new("sync", &dir, ardb_base::disk::DiskErrorKind::Other, error).into()
}
