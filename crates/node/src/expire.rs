//! Deleting keys whose time has come, a few at a time, in the order of their time.
//!
//! The index of expiries is read without the lock ([`due`]); only keys that are due are then deleted under it ([`delete`]). On a replica nothing is
//! deleted: the master's DEL does it.

use std::ops::ControlFlow;

use ardb_base::id::{KeyspaceId, UnixMs};
use ardb_commands::{Access, Origin, dispatch};
use ardb_engine::{Direction, EngineError, RowRange, Rows, Space};
use ardb_resp::{Protocol, Reply};
use ardb_store::ReadTxn;
use ardb_types::keyspace::expiry_order;

use crate::txn::Batch;
use crate::{Node, nobody};

/// At most `most` keys that are due at `now`, each with its database.
///
/// # Errors
/// The index cannot be read.
pub fn due(view: &ReadTxn<'_>, now: UnixMs, most: usize) -> Result<Vec<(u32, Vec<u8>)>, EngineError> {
    let mut due: Vec<(KeyspaceId, Vec<u8>)> = Vec::new();
    let range = RowRange::orders(Space::Expiry, 0, 0, expiry_order(now));
    view.scan(range, Direction::Forward, &mut |key, _| {
        if let Some((keyspace, name)) = key.tail.split_first_chunk::<8>() {
            due.push((KeyspaceId(u64::from_be_bytes(*keyspace)), name.to_vec()));
        }
        if due.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    // Those of a database that was flushed belong to none.
    Ok(due.into_iter().filter_map(|(keyspace, key)| Some((view.database_of(keyspace)?, key))).collect())
}

/// Deletes those of the keys that are still due at the batch's time, and logs that; how many they were.
pub fn delete(node: Node<'_>, batch: &mut Batch<'_, '_>, keys: &[(u32, Vec<u8>)]) -> usize {
    let mut session = nobody();
    let mut reply = Reply::new(Protocol::Resp2);
    let mut deleted = 0;
    let now = batch.now();
    for (db, key) in keys {
        let mut ctx = node.ctx(Access::Write(&mut *batch), &mut reply, &mut session, Origin::Client, now);
        match dispatch::delete_if_due(&mut ctx, *db, key) {
            Ok(true) => deleted += 1,
            Ok(false) => {}
            Err(error) => log::warn!("An expired key cannot be deleted: {error}"),
        }
        batch.next_command();
    }
    deleted
}
