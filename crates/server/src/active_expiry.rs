//! Deleting keys whose time has come, a few at a time, in the order of their time.
//!
//! The index of expiries is read without the lock; only keys that are due are then deleted under it, in small batches, so that
//! clients never wait long. On a replica only entries of flushed databases are dropped: for keys the master's DEL does it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ardb_node::expire;
use ardb_node::txn::Batch;
use ardb_types::keyspace::Due;

use crate::net::{failed, mailbox};
use crate::server::Server;
use crate::{blocking, clock};

/// Entries of the index dealt with under one hold of the lock.
const BATCH: usize = 64;

/// Deletes due keys for at most a share of `period` that `active-expire-effort` sets.
pub fn round(server: &Arc<Server>, period: Duration) {
    let shared = &server.shared;
    if !shared.settings.active_expire.load(Ordering::Relaxed)
        || shared.gates.loading.load(Ordering::Relaxed)
        || server.paused()
    {
        return;
    }
    let effort = server.config.int("active-expire-effort").clamp(1, 10) as u32;
    let budget = period / 100 * (15 + 5 * effort);
    let started = Instant::now();
    let mut reader = server.store.reader();
    loop {
        let now = clock::unix_ms();
        let due = match expire::due(server.node(), &reader.begin(), now, BATCH) {
            Ok(due) => due,
            Err(error) => {
                log::warn!("Expired keys cannot be read: {error}");
                return;
            }
        };
        if due.is_empty() || delete(server, &due, now) == 0 || started.elapsed() > budget {
            return;
        }
    }
}

/// Deletes those of the keys that are due; how many entries of the index are gone.
fn delete(server: &Arc<Server>, entries: &[Due], now: i64) -> usize {
    let gone;
    mailbox::hold();
    let committed = {
        let Some(mut txn) = server.node().write_unless_busy() else {
            mailbox::release();
            return 0;
        };
        // The role may have changed while we waited for the lock; what is deleted here would stand in no log.
        if server.shared.gates.is_replica.load(Ordering::Relaxed) || server.paused() {
            drop(txn);
            mailbox::release();
            return 0;
        }
        let mut batch = Batch::new(&mut txn, now);
        gone = expire::delete(server.node(), &mut batch, entries);
        blocking::serve_ready(server, &mut batch);
        batch.store().commit()
    };
    match committed {
        Ok(_) => {
            mailbox::release();
            gone
        }
        Err(error) => {
            log::warn!("Expired keys cannot be deleted: {error}");
            mailbox::release_failed(&failed::reply(&error));
            0
        }
    }
}
