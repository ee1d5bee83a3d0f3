//! One data set: an engine with the tables above it, its one writer and its readers. The store has one, a generation being loaded has another.
//!
//! Locks, in the order in which they may be taken together: `checkpointer`, `writer`, `janitor`, then the small ones (the current view,
//! reader slots, shards of tables and cache), which are leaves. No leaf is held across I/O.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ardb_base::id::{Generation, Offset, ReplId};
use ardb_engine::{Engine, Snapshot, Space};
use ardb_log::{Appender, Log};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::aside::Aside;
use crate::cache::RowCache;
use crate::catalog::{Catalog, Counts};
use crate::checkpoint::Checkpointer;
use crate::error::CheckpointError;
use crate::expiries::Expiries;
use crate::janitor::Janitor;
use crate::options::{Clock, MemoryBudget};
use crate::position::Position;
use crate::readers::Readers;
use crate::table::Table;
use crate::txn::{FrameBuffer, UndoLog};
use crate::view::{Publication, View};

/// Everything that a data set shares between threads.
pub struct Core {
    /// Replaced only by the install of a generation, under the checkpointer's lock.
    pub engine: RwLock<Arc<dyn Engine>>,
    pub publication: Publication,
    pub readers: Readers,
    pub writer: Mutex<Writer>,
    pub checkpointer: Mutex<Checkpointer>,
    pub janitor: Mutex<Janitor>,
    /// Views that were replaced and whose memory is freed by [`Core::sweep`], never by a reader.
    pub graveyard: Mutex<Vec<Arc<View>>>,
    pub expiries: Expiries,
    pub budget: MemoryBudget,
    pub databases: u32,
    /// The log, unless this is a generation being loaded.
    pub log: Option<Log>,
    /// Why the last checkpoint failed, if it did.
    pub failure: Mutex<Option<CheckpointError>>,
    pub failing: AtomicBool,
    /// Bytes of changed rows, as of the last commit or checkpoint.
    pub changed: AtomicU64,
    /// When the oldest change of the active table was committed, or 0.
    pub dirty_since: AtomicU64,
    pub wanted: Wanted,
    /// Who runs checkpoints in the background.
    pub aside: Aside,
    pub figures: Figures,
    pub clock: Clock,
}

/// Asks the background thread for a checkpoint.
#[derive(Debug, Default)]
pub struct Wanted {
    pub state: Mutex<Requests>,
    pub signal: Condvar,
    /// Set while a checkpoint is asked for, so that writers signal once.
    pub flagged: AtomicBool,
}

/// What the background threads are asked for.
#[derive(Debug, Default)]
pub struct Requests {
    pub checkpoint: bool,
    /// Views were replaced that nobody may need any more.
    pub sweep: bool,
    pub stop: bool,
}

/// Counters for INFO.
#[derive(Debug, Default)]
pub struct Figures {
    pub checkpoints: AtomicU64,
    pub failed_checkpoints: AtomicU64,
    pub last_checkpoint_ms: AtomicU64,
    pub last_checkpoint_rows: AtomicU64,
    pub last_checkpoint_offset: AtomicU64,
    pub delays: AtomicU64,
}

/// What the holder of the writer lock works with.
pub struct Writer {
    /// The view that the open batch reads from, and its version.
    pub view: (u64, Arc<View>),
    /// Sequence number of the open batch.
    pub seq: u64,
    pub catalog: Catalog,
    pub undo: UndoLog,
    /// Snapshots being read when the open batch first wrote.
    pub active: Vec<u64>,
    pub gathered: bool,
    pub frame: FrameBuffer,
    /// The database selected in the stream where the open frame begins.
    pub frame_db: Option<u32>,
    pub appender: Option<Appender>,
    /// Names the history, for the position row.
    pub id: ReplId,
    /// Where the stream stands.
    pub offset: Offset,
    /// While frames of the log are replayed: the end of the frame being applied.
    pub replaying: Option<Offset>,
    /// Objects discarded since the last freeze; their rows in the table must not go to the engine.
    pub dead: HashSet<u64>,
    pub closed: bool,
}

/// The commit at which a core begins, and the number of its engine.
pub const FIRST_SEQ: u64 = 1;

/// Whether the engine has nothing but the store's own rows. An error is left to the reads that will meet it.
fn has_no_rows(engine: &dyn Snapshot) -> bool {
    let (start, end) = ([Space::Key as u8], [Space::Garbage as u8 + 1]);
    let mut cursor = engine.cursor(&start..&end);
    cursor.seek(&start).is_ok() && cursor.row().is_none()
}

impl Core {
    /// A core over an engine that stands at `position` with `catalog`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        engine: Arc<dyn Engine>,
        generation: Generation,
        position: Position,
        mut catalog: Catalog,
        log: Option<(Log, Appender)>,
        databases: u32,
        budget: MemoryBudget,
        clock: Clock,
    ) -> Core {
        catalog.grow(databases);
        let snapshot = engine.snapshot();
        // Of an engine without rows nothing needs to be asked until the first checkpoint.
        let fresh_from = if has_no_rows(&*snapshot) { 1 } else { catalog.next_id };
        let view = View {
            active: Arc::new(Table::new(fresh_from)),
            frozen: None,
            cache: Arc::new(RowCache::new(budget.rows, FIRST_SEQ)),
            engine: snapshot,
            number: FIRST_SEQ,
            keyspaces: catalog.databases.iter().map(|d| d.keyspace).collect(),
            counts: Arc::new(Counts::new(&catalog, FIRST_SEQ)),
            from_seq: FIRST_SEQ,
            generation,
        };
        let publication = Publication::new(view, FIRST_SEQ);
        let (log, appender) = log.map_or((None, None), |(log, appender)| (Some(log), Some(appender)));
        let writer = Writer {
            view: publication.current(),
            seq: FIRST_SEQ + 1,
            catalog,
            undo: UndoLog::default(),
            active: Vec::new(),
            gathered: false,
            frame: FrameBuffer { payload: Vec::new(), db: position.db, time: None },
            frame_db: position.db,
            appender,
            id: position.id,
            offset: position.offset,
            replaying: None,
            dead: HashSet::new(),
            closed: false,
        };
        Core {
            engine: RwLock::new(engine),
            publication,
            readers: Readers::default(),
            writer: Mutex::new(writer),
            checkpointer: Mutex::new(Checkpointer { position, frozen: None }),
            janitor: Mutex::new(Janitor::new(generation)),
            graveyard: Mutex::new(Vec::new()),
            expiries: Expiries::default(),
            budget,
            databases,
            log,
            failure: Mutex::new(None),
            failing: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            dirty_since: AtomicU64::new(0),
            wanted: Wanted::default(),
            aside: Aside::default(),
            figures: Figures::default(),
            clock,
        }
    }

    /// Asks for a checkpoint, once until it is done.
    pub fn want_checkpoint(&self) {
        if !self.wanted.flagged.swap(true, Ordering::AcqRel) {
            self.wanted.state.lock().checkpoint = true;
            self.wanted.signal.notify_all();
        }
    }

    /// Asks the background thread to free replaced views, if there are any.
    pub fn want_sweep(&self) {
        if !self.graveyard.lock().is_empty() {
            self.wanted.state.lock().sweep = true;
            self.wanted.signal.notify_all();
        }
    }

    /// Whether writers will soon be slowed, unless a checkpoint ends.
    pub fn is_pressed(&self) -> bool {
        self.changed.load(Ordering::Relaxed) > self.budget.changed / 4 * 3
    }

    /// Bytes of changed rows now. `changed` may stay too high when a commit and the end of a checkpoint meet, until the next one.
    pub fn changed_bytes(&self) -> u64 {
        let (_, view) = self.publication.current();
        view.active.bytes() + view.frozen.as_ref().map_or(0, |table| table.bytes())
    }

    /// Keeps a replaced view until nobody else has it.
    pub fn bury(&self, view: Arc<View>) {
        self.graveyard.lock().push(view);
    }

    /// Frees what replaced views held, if no reader uses them any more. Never called by readers, because freeing a table takes long.
    pub fn sweep(&self) {
        if self.graveyard.lock().is_empty() {
            return;
        }
        self.readers.drop_idle_views(self.publication.version());
        if let Some(mut writer) = self.writer.try_lock() {
            writer.renew_view(self);
        }
        let free: Vec<Arc<View>> = {
            let mut graveyard = self.graveyard.lock();
            let (used, free) = graveyard.drain(..).partition(|view| Arc::strong_count(view) > 1);
            *graveyard = used;
            free
        };
        let _aside = self.aside.enter();
        drop(free);
    }
}

impl Writer {
    /// Takes over rows that came into the engine past the table: what is read from now on is `engine`, an empty table, and this catalog. Only between
    /// batches, and before anything else was written.
    pub fn adopt(&mut self, core: &Core, catalog: Catalog, engine: Arc<dyn Snapshot>) {
        let seq = self.seq;
        let old = core.publication.change(|view| {
            view.active = Arc::new(Table::new(catalog.next_id));
            view.engine = engine;
            view.keyspaces = catalog.databases.iter().map(|d| d.keyspace).collect();
            view.counts = Arc::new(Counts::new(&catalog, seq));
            view.from_seq = seq;
        });
        core.publication.commit(seq);
        core.bury(old);
        core.expiries.forget();
        self.catalog = catalog;
        self.seq = seq + 1;
        self.gathered = false;
        self.renew_view(core);
    }

    /// Takes the newest view. Only between batches.
    pub fn renew_view(&mut self, core: &Core) {
        if self.undo.is_empty() && self.view.0 != core.publication.version() {
            self.view = core.publication.current();
        }
    }
}
