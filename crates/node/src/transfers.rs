//! Full syncs by rows, as a master: the snapshots that are being sent, the transfers that a replica may go on with, and the blocks that they are made of.
//!
//! A transfer outlives its link: for `repl-sync-resume-time` seconds after the link broke its replica can ask for the rest of it. Replicas that come
//! while a snapshot is held and the log has not gone far beyond it get the same one. A snapshot costs no memory but keeps files of the engine
//! and the log from its offset on, up to `repl-sync-log-limit`: a transfer whose log is gone is given up.
//!
//! Invariant: there are never more than `repl-sync-max-transfers`, with or without a link, so never more snapshots either. Where another one has no room, the
//! one that has been without a link for the longest time goes; if all have one, the replica is told to come again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ardb_engine::EngineError;
use ardb_log::Pin;
use ardb_repl::Ms;
use ardb_repl::rows::{BLOCK_BYTES, Opening, Pushed, RowsError, RowsSender, SyncId};
use ardb_store::{Store, StoreSnapshot};
use parking_lot::Mutex;

use crate::Node;
use crate::dump::{self, Point};

/// What bounds the transfers of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `repl-sync-max-transfers`, at least 1.
    pub transfers: usize,
    /// How long one without a link is held, in ms (`repl-sync-resume-time`).
    pub held: Ms,
    /// Bytes of log behind a snapshot up to which another replica shares it. Beyond, a new one costs less than what it would have to catch up.
    pub shared_log: u64,
    /// Bytes of rows in a block.
    pub block: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { transfers: 1, held: 0, shared_log: 64 << 20, block: BLOCK_BYTES }
    }
}

/// The data that are being sent.
pub struct Source {
    /// The rows.
    pub rows: StoreSnapshot,
    /// Where they stand.
    pub point: Point,
    /// Holds the log.
    _pin: Option<Pin>,
}

/// Rows on their way to one replica.
pub struct Transfer {
    /// Its name.
    pub sync: SyncId,
    /// What is sent.
    pub source: Arc<Source>,
    /// Makes the blocks. The link that sends has taken it.
    sender: Mutex<Option<RowsSender>>,
    /// The client whose link sends. An earlier one gives the sender back and ends.
    owner: AtomicU64,
    /// When the last link ended, by a clock that does not begin with 0; 0 while there is one.
    left: AtomicU64,
    /// The log that must follow is gone.
    pub given_up: AtomicBool,
}

impl Transfer {
    /// Whether the link of this client is the one that sends.
    #[must_use]
    pub fn is_owned_by(&self, client: u64) -> bool {
        self.owner.load(Ordering::SeqCst) == client
    }

    /// Takes the maker of blocks, once a link before this one has given it back.
    #[must_use]
    pub fn take_sender(&self) -> Option<RowsSender> {
        self.sender.lock().take()
    }

    /// Gives it back.
    pub fn return_sender(&self, sender: RowsSender) {
        *self.sender.lock() = Some(sender);
    }

    /// The hold on the log from the snapshot's offset on, for a replica that has all rows. Others that share the snapshot keep theirs.
    #[must_use]
    pub fn pin(&self, store: &Store) -> Option<Pin> {
        // The source's own pin stands until here, so the log still begins at or before the offset.
        store.log().pin(self.source.point.offset).ok()
    }

    /// The line that promises the blocks from `block` on.
    #[must_use]
    pub fn promise(&self, block: u64) -> String {
        let point = &self.source.point;
        format!("+ROWSYNC {} {} {} {block}\r\n", point.id, point.offset, self.sync)
    }

    /// Makes the blocks from `block` on, up to the last one, and hands them to `send` one by one, which takes them out of its buffer. It may end the
    /// work with an error of its own, after which it can begin again with any block that was made. The caller knows that the sender can go there.
    ///
    /// # Errors
    /// Those of `send`, of the snapshot and of the format.
    pub fn blocks<E: From<EngineError> + From<RowsError>>(
        &self,
        sender: &mut RowsSender,
        block: u64,
        mut send: impl FnMut(&RowsSender, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        if block == 0 {
            sender.open(&mut out);
        }
        let after = sender.rewind(block).map(<[u8]>::to_vec).unwrap_or_default();
        self.source.rows.raw_rows(&after, |key, value| {
            if sender.push(key, value)? == Pushed::Full {
                sender.seal(&mut out);
                send(sender, &mut out)?;
                sender.push(key, value)?;
            }
            Ok::<(), E>(())
        })?;
        sender.end(&mut out);
        send(sender, &mut out)
    }
}

/// Why a transfer was not begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// All are being sent.
    #[error("{0} full syncs by rows are under way, as many as repl-sync-max-transfers allows")]
    TooMany(usize),
    /// There is no snapshot.
    #[error("{0}")]
    Snapshot(String),
}

/// What is held.
#[derive(Default)]
struct Held {
    running: HashMap<SyncId, Arc<Transfer>>,
    /// Transfers whose snapshot is being taken.
    beginning: usize,
    /// The snapshots of all of them.
    sources: Vec<Weak<Source>>,
    /// Replicas that were told to come again.
    refused: u64,
}

impl Held {
    /// Takes out the transfer that has been without a link for the longest time.
    fn take_oldest_left(&mut self) -> Option<Arc<Transfer>> {
        let left = |transfer: &&Arc<Transfer>| transfer.left.load(Ordering::SeqCst);
        let sync = self.running.values().filter(|transfer| left(transfer) > 0).min_by_key(left)?.sync;
        log::info!(
            "The sync {sync}, which no replica goes on with, makes room for others (see repl-sync-max-transfers)"
        );
        self.running.remove(&sync)
    }

    fn snapshots(&mut self) -> usize {
        self.sources.retain(|source| source.strong_count() > 0);
        self.sources.len()
    }
}

/// What INFO says of all transfers.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// How many there are.
    pub transfers: usize,
    /// How many of them have no link.
    pub left: usize,
    /// How many there may be.
    pub limit: usize,
    /// How many snapshots are held for them.
    pub snapshots: usize,
    /// Replicas that were told to come again.
    pub refused: u64,
}

/// All transfers.
#[derive(Default)]
pub struct Transfers {
    held: Mutex<Held>,
    /// The snapshot that was made last. Held while one is made, so that those who come together share it.
    last: Mutex<Weak<Source>>,
}

impl Transfers {
    /// Begins a transfer with a new name to a client, of a snapshot that is being sent or of a new one.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn begin(&self, node: Node<'_>, client: u64, sync: SyncId, limits: Limits) -> Result<Arc<Transfer>, NotBegun> {
        let limit = limits.transfers;
        // Dropped outside the lock: a snapshot may be the last that holds files.
        let mut gone = Vec::new();
        {
            let mut held = self.held.lock();
            while held.running.len() + held.beginning >= limit {
                match held.take_oldest_left() {
                    Some(transfer) => gone.push(transfer),
                    None => {
                        held.refused += 1;
                        return Err(NotBegun::TooMany(limit));
                    }
                }
            }
            held.beginning += 1;
        }
        drop(gone);
        let made = self.make(node, client, sync, limits);
        let mut held = self.held.lock();
        held.beginning -= 1;
        let transfer = made.map_err(NotBegun::Snapshot)?;
        held.running.insert(transfer.sync, transfer.clone());
        Ok(transfer)
    }

    fn make(&self, node: Node<'_>, client: u64, sync: SyncId, limits: Limits) -> Result<Arc<Transfer>, String> {
        let source = self.source(node, limits.shared_log)?;
        let stats = node.store.stats();
        let opening = Opening {
            id: source.point.id,
            offset: source.point.offset,
            db: source.point.db,
            keys: source.rows.keys(),
            about_bytes: match stats.engine.disk_bytes {
                0 => stats.engine.table_bytes,
                bytes => bytes,
            },
            catalog: source.rows.catalog(),
        };
        Ok(Arc::new(Transfer {
            sync,
            sender: Mutex::new(Some(RowsSender::new(sync, &opening).with_blocks_of(limits.block))),
            source,
            owner: AtomicU64::new(client),
            left: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        }))
    }

    fn source(&self, node: Node<'_>, shared_log: u64) -> Result<Arc<Source>, String> {
        let mut last = self.last.lock();
        if let Some(source) = last.upgrade() {
            let fits = source.point.id == node.store.history().id
                && node.store.log().start() <= source.point.offset
                && node.store.log().end().since(source.point.offset) <= shared_log;
            if fits {
                log::info!("A replica shares the snapshot at offset {}, which is being sent", source.point.offset);
                return Ok(source);
            }
        }
        let (mut rows, point) = dump::snapshot(node)?;
        let pin = rows.take_pin();
        let source = Arc::new(Source { rows, point, _pin: pin });
        *last = Arc::downgrade(&source);
        self.held.lock().sources.push(Arc::downgrade(&source));
        Ok(source)
    }

    /// The transfer of this name, if it can go on over the link of another client, and the client whose link had it, which must be let go: it may be stuck
    /// in a link that is dead and does not know it, and has the sender.
    #[must_use]
    pub fn resume(&self, store: &Store, client: u64, sync: SyncId) -> Option<(Arc<Transfer>, Option<u64>)> {
        // Under the lock, so that it is not the one that makes room at this moment.
        let held = self.held.lock();
        let transfer = held.running.get(&sync)?;
        if transfer.source.point.id != store.history().id || transfer.given_up.load(Ordering::SeqCst) {
            return None;
        }
        let former = transfer.owner.swap(client, Ordering::SeqCst);
        transfer.left.store(0, Ordering::SeqCst);
        Some((transfer.clone(), Some(former).filter(|former| *former != client)))
    }

    /// The link of a client ended, and with it the sending.
    pub fn leave(&self, transfer: &Transfer, client: u64, limits: Limits, now: Ms) {
        if !transfer.is_owned_by(client) {
            return;
        }
        if limits.held == 0 {
            self.remove(transfer.sync);
        } else {
            transfer.left.store(now, Ordering::SeqCst);
        }
    }

    /// The replica has everything.
    pub fn remove(&self, sync: SyncId) {
        // Dropped outside the lock.
        let _gone = self.held.lock().running.remove(&sync);
    }

    /// For INFO.
    #[must_use]
    pub fn figures(&self, limits: Limits) -> Figures {
        let mut held = self.held.lock();
        let left = held.running.values().filter(|transfer| transfer.left.load(Ordering::SeqCst) > 0).count();
        let (transfers, limit, snapshots) = (held.running.len(), limits.transfers, held.snapshots());
        Figures { transfers, left, limit, snapshots, refused: held.refused }
    }

    /// Lets go of what has been held for too long, for which too much of the log is held, or which is too much since the limit was lowered.
    pub fn tick(&self, store: &Store, limits: Limits, now: Ms) {
        let (time, most) = (limits.held, limits.transfers);
        let (id, start) = (store.history().id, store.log().start());
        let mut gone = Vec::new();
        let mut held = self.held.lock();
        held.snapshots();
        held.running.retain(|sync, transfer| {
            let point = &transfer.source.point;
            if point.id == id && point.offset < start {
                log::warn!(
                    "The sync {sync} is given up: the log begins at {start}, behind its snapshot (see repl-sync-log-limit)"
                );
                transfer.given_up.store(true, Ordering::SeqCst);
            }
            let left = transfer.left.load(Ordering::SeqCst);
            let overdue = left > 0 && now.saturating_sub(left) > time;
            if overdue {
                log::info!("The sync {sync} was not taken up again; its snapshot is let go");
            }
            let keep = point.id == id && !overdue && !transfer.given_up.load(Ordering::SeqCst);
            if !keep {
                // Dropped outside the lock: a snapshot may be the last that holds files.
                gone.push(transfer.clone());
            }
            keep
        });
        while held.running.len() > most
            && let Some(transfer) = held.take_oldest_left()
        {
            gone.push(transfer);
        }
        drop(held);
        drop(gone);
    }
}
