//! Full syncs by rows, as a master: the snapshots that are being sent, and the transfers that a replica may go on with.
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

use ardb_base::id::ReplId;
use ardb_log::Pin;
use ardb_node::dump::{self, Point};
use ardb_repl::Ms;
use ardb_repl::rows::{Opening, RowsSender, SyncId};
use ardb_store::StoreSnapshot;
use parking_lot::Mutex;

use super::status::monotonic_ms;
use crate::server::Server;
use crate::start::random_bytes;

/// Bytes of log behind a snapshot up to which another replica shares it. Beyond, a new one costs less than what it would have to catch up.
const SHARED_LOG: u64 = 64 << 20;

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
    /// When the last link ended; 0 while there is one.
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
    pub fn pin(&self, server: &Server) -> Option<Pin> {
        // The source's own pin stands until here, so the log still begins at or before the offset.
        server.store.log().pin(self.source.point.offset).ok()
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

fn limit(server: &Server) -> usize {
    usize::try_from(server.config.int("repl-sync-max-transfers").max(1)).unwrap_or(usize::MAX)
}

impl Transfers {
    /// Begins a transfer to a client, of a snapshot that is being sent or of a new one.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn begin(&self, server: &Server, client: u64) -> Result<Arc<Transfer>, NotBegun> {
        let limit = limit(server);
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
        let made = self.make(server, client);
        let mut held = self.held.lock();
        held.beginning -= 1;
        let transfer = made.map_err(NotBegun::Snapshot)?;
        held.running.insert(transfer.sync, transfer.clone());
        Ok(transfer)
    }

    fn make(&self, server: &Server, client: u64) -> Result<Arc<Transfer>, String> {
        let source = self.source(server)?;
        let mut random = [0; 20];
        random_bytes(&mut random);
        let sync = SyncId(ReplId::from_random(random));
        let stats = server.store.stats();
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
            sender: Mutex::new(Some(RowsSender::new(sync, &opening))),
            source,
            owner: AtomicU64::new(client),
            left: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        }))
    }

    fn source(&self, server: &Server) -> Result<Arc<Source>, String> {
        let mut last = self.last.lock();
        if let Some(source) = last.upgrade() {
            let fits = source.point.id == server.store.history().id
                && server.store.log().start() <= source.point.offset
                && server.store.log().end().since(source.point.offset) <= SHARED_LOG;
            if fits {
                log::info!("A replica shares the snapshot at offset {}, which is being sent", source.point.offset);
                return Ok(source);
            }
        }
        let (mut rows, point) = dump::snapshot(server.node())?;
        let pin = rows.take_pin();
        let source = Arc::new(Source { rows, point, _pin: pin });
        *last = Arc::downgrade(&source);
        self.held.lock().sources.push(Arc::downgrade(&source));
        Ok(source)
    }

    /// The transfer of this name, if it can go on over the link of another client.
    #[must_use]
    pub fn resume(&self, server: &Server, client: u64, sync: SyncId) -> Option<Arc<Transfer>> {
        // Under the lock, so that it is not the one that makes room at this moment.
        let held = self.held.lock();
        let transfer = held.running.get(&sync)?;
        if transfer.source.point.id != server.store.history().id || transfer.given_up.load(Ordering::SeqCst) {
            return None;
        }
        let former = transfer.owner.swap(client, Ordering::SeqCst);
        transfer.left.store(0, Ordering::SeqCst);
        let transfer = transfer.clone();
        drop(held);
        if former != client {
            // It may be stuck in a link that is dead and does not know it, and has the sender.
            server.replication.dismiss_peer(former);
        }
        Some(transfer)
    }

    /// The link of a client ended, and with it the sending.
    pub fn leave(&self, server: &Server, transfer: &Transfer, client: u64) {
        if !transfer.is_owned_by(client) {
            return;
        }
        if server.config.int("repl-sync-resume-time") == 0 {
            self.remove(transfer.sync);
        } else {
            transfer.left.store(monotonic_ms(), Ordering::SeqCst);
        }
    }

    /// The replica has everything.
    pub fn remove(&self, sync: SyncId) {
        // Dropped outside the lock.
        let _gone = self.held.lock().running.remove(&sync);
    }

    /// For INFO.
    #[must_use]
    pub fn figures(&self, server: &Server) -> Figures {
        let mut held = self.held.lock();
        let left = held.running.values().filter(|transfer| transfer.left.load(Ordering::SeqCst) > 0).count();
        let (transfers, limit, snapshots) = (held.running.len(), limit(server), held.snapshots());
        Figures { transfers, left, limit, snapshots, refused: held.refused }
    }

    /// Lets go of what has been held for too long, for which too much of the log is held, or which is too much since the limit was lowered.
    pub fn tick(&self, server: &Server, now: Ms) {
        let time = server.config.int("repl-sync-resume-time").max(0) as u64 * 1000;
        let (id, start) = (server.store.history().id, server.store.log().start());
        let most = limit(server);
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
