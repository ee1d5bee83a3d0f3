//! Deleting keys whose time has come, a few at a time, in the order of their time.
//!
//! The index of expiries is read without the lock; only keys that are due are then deleted under it, in small batches, so that
//! clients never wait long. On a replica nothing is deleted: the master's DEL does it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ardb_base::id::KeyspaceId;
use ardb_commands::effects::Effects;
use ardb_commands::{Access, Ctx, Origin, dispatch};
use ardb_engine::{Direction, RowRange, Rows, Space};
use ardb_resp::{Protocol, Reply};
use ardb_types::keyspace::expiry_order;

use crate::net::mailbox;
use crate::server::Server;
use crate::txn::Batch;
use crate::{blocking, clock};

/// Keys deleted under one hold of the lock.
const BATCH: usize = 64;

/// Deletes due keys for at most a share of `period` that `active-expire-effort` sets.
pub fn round(server: &Arc<Server>, period: Duration) {
    let shared = &server.shared;
    if !shared.settings.active_expire.load(Ordering::Relaxed)
        || shared.gates.is_replica.load(Ordering::Relaxed)
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
        let mut due: Vec<(KeyspaceId, Vec<u8>)> = Vec::new();
        let mut databases: Vec<(u32, Vec<u8>)> = Vec::new();
        {
            let view = reader.begin();
            let range = RowRange::orders(Space::Expiry, 0, 0, expiry_order(now));
            let read = view.scan(range, Direction::Forward, &mut |key, _| {
                if let Some((keyspace, name)) = key.tail.split_first_chunk::<8>() {
                    due.push((KeyspaceId(u64::from_be_bytes(*keyspace)), name.to_vec()));
                }
                if due.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(error) = read {
                log::warn!("Expired keys cannot be read: {error}");
                return;
            }
            for (keyspace, key) in due.drain(..) {
                if let Some(db) = view.database_of(keyspace) {
                    databases.push((db, key));
                }
            }
        }
        if databases.is_empty() || delete(server, &databases, now) == 0 || started.elapsed() > budget {
            return;
        }
    }
}

/// Deletes those of the keys that are due; how many that were.
fn delete(server: &Arc<Server>, keys: &[(u32, Vec<u8>)], now: i64) -> usize {
    let mut session = blocking::nobody();
    let mut reply = Reply::new(Protocol::Resp2);
    let mut deleted = 0;
    mailbox::hold();
    {
        let mut txn = server.store.write();
        let mut batch = Batch::new(&mut txn, now);
        for (db, key) in keys {
            let mut ctx = Ctx {
                rows: Access::Write(&mut batch),
                out: &mut reply,
                session: &mut session,
                shared: &server.shared,
                host: &**server,
                origin: Origin::Client,
                now,
                effects: Effects::default(),
                dirty: 0,
                depth: 0,
                in_script: false,
            };
            match dispatch::delete_if_due(&mut ctx, *db, key) {
                Ok(true) => deleted += 1,
                Ok(false) => {}
                Err(error) => log::warn!("An expired key cannot be deleted: {error}"),
            }
            batch.next_command();
        }
        blocking::serve_ready(server, &mut batch);
        if let Err(error) = batch.store().commit() {
            log::warn!("Expired keys cannot be deleted: {error}");
            deleted = 0;
        }
    }
    mailbox::release();
    deleted
}
