//! Deleting keys whose time has come, a few at a time, in the order of their time.
//!
//! The index of expiries is read without the lock; only keys that are due are then deleted under it, in small batches, so that
//! clients never wait long. On a replica only entries of flushed databases are dropped: for keys the master's DEL does it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ardb_node::expire::{self, Scan};
use ardb_node::txn::Batch;
use ardb_store::Announced;

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
    let node = server.node();
    if !expire::may_be_due(node, clock::unix_ms()) {
        return;
    }
    let started = Instant::now();
    let mut reader = server.store.reader();
    let Some(mut announced) = node.write_unless_busy().map(|mut txn| txn.announce_scan_of_expiries()) else { return };
    loop {
        let now = clock::unix_ms();
        let scan = match expire::due(node, announced, &reader.begin(), now, BATCH) {
            Ok(scan) => scan,
            Err(error) => {
                log::warn!("Expired keys cannot be read: {error}");
                return;
            }
        };
        match delete(server, scan, now) {
            Some(next) if started.elapsed() <= budget => announced = next,
            _ => return,
        }
    }
}

/// Deletes those of the keys that are due. Announces the next scan if there may be more of them.
fn delete(server: &Arc<Server>, scan: Scan, now: i64) -> Option<Announced> {
    mailbox::hold();
    let committed = {
        let Some(mut txn) = server.node().write_unless_busy() else {
            mailbox::release();
            return None;
        };
        // Clients may have been told to wait since. Should the role have changed, keys are left to the master.
        if server.paused() {
            drop(txn);
            mailbox::release();
            return None;
        }
        let mut batch = Batch::new(&mut txn, now);
        let gone = expire::delete(server.node(), &mut batch, &scan.due);
        blocking::serve_ready(server, &mut batch);
        batch.store().commit().map(|_| {
            let some = gone.entries > 0;
            expire::note(&mut txn, scan, gone);
            some.then(|| txn.announce_scan_of_expiries())
        })
    };
    match committed {
        Ok(next) => {
            mailbox::release();
            next
        }
        Err(error) => {
            log::warn!("Expired keys cannot be deleted: {error}");
            mailbox::release_failed(&failed::reply(&error));
            None
        }
    }
}
