//! Walking over the keys of a database: in hash order (SCAN, KEYS, RANDOMKEY) and by expiry.

use std::ops::ControlFlow;

use ardb_base::id::{KeyspaceId, UnixMs};
use ardb_engine::{Direction, RowKey, RowRange, Rows, RowsMut, Space};

use super::{expiry_order, is_due};
use crate::{KeyRow, TypeError};

/// What is called with a key's hash, the key and its row.
pub type VisitKey<'v> = dyn FnMut(u64, &[u8], KeyRow) -> ControlFlow<()> + 'v;

/// Calls `visit` with the keys of `keyspace` from hash `from` on, in hash order, until it breaks. Expired keys are among them.
pub fn scan_keys(
    rows: &(impl Rows + ?Sized),
    keyspace: KeyspaceId,
    from: u64,
    visit: &mut VisitKey<'_>,
) -> Result<(), TypeError> {
    let range = RowRange { space: Space::Key, group: keyspace.0, from: (from, b""), to: None };
    let mut failed = None;
    rows.scan(range, Direction::Forward, &mut |name, value| match KeyRow::parse(value.clone()) {
        Ok(row) => visit(name.order, name.tail, row),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// How many expired keys [`random_key`] passes over before it gives up.
const RANDOM_TRIES: usize = 64;

/// The first key at or after `place` in hash order, wrapping around, that has not expired at `now`. `place` should be random. `None` if
/// there is no such key, or none close by: the search ends after a bounded number of expired ones.
pub fn random_key(
    rows: &(impl Rows + ?Sized),
    keyspace: KeyspaceId,
    place: u64,
    now: UnixMs,
) -> Result<Option<Vec<u8>>, TypeError> {
    let mut tries = 0;
    let mut found = None;
    // The second round may see keys of the first again, which is harmless: the number of tries is bounded.
    for from in [place, 0] {
        scan_keys(rows, keyspace, from, &mut |_, key, row| {
            if is_due(&row, now) {
                tries += 1;
                return if tries < RANDOM_TRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            }
            found = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        if found.is_some() || tries >= RANDOM_TRIES {
            break;
        }
    }
    Ok(found)
}

/// An entry of the expiry index whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time at which the key expires.
    pub time: UnixMs,
    /// The keyspace it is in, which may have been flushed since.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Vec<u8>,
}

impl Due {
    /// Its place in the index: order and tail of its row.
    #[must_use]
    pub fn place(&self) -> (u64, Vec<u8>) {
        (expiry_order(self.time), entry_tail(self))
    }
}

/// Entries of the expiry index from the place `from` on with a time at or before `now`, the earliest first, at most `limit`; and the place of the entry that follows
/// them, if there is one.
#[allow(clippy::type_complexity, reason = "a place is an order and a tail everywhere")]
pub fn due(
    rows: &(impl Rows + ?Sized),
    from: (u64, &[u8]),
    now: UnixMs,
    limit: usize,
) -> Result<(Vec<Due>, Option<(u64, Vec<u8>)>), TypeError> {
    let mut found = Vec::new();
    let (mut next, mut failed) = (None, None);
    let range = RowRange { space: Space::Expiry, group: 0, from, to: None };
    rows.scan(range, Direction::Forward, &mut |name, _| {
        if found.len() >= limit || name.order > expiry_order(now) {
            next = Some((name.order, name.tail.to_vec()));
            return ControlFlow::Break(());
        }
        let Some((keyspace, key)) = name.tail.split_first_chunk::<8>() else {
            failed = Some(TypeError::Corrupt("expiry entry: too short".into()));
            return ControlFlow::Break(());
        };
        found.push(Due {
            time: ardb_engine::row::i64_of_order(name.order),
            keyspace: KeyspaceId(u64::from_be_bytes(*keyspace)),
            key: key.to_vec(),
        });
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok((found, next)), Err)
}

/// Removes an entry of the expiry index that belongs to no key: its keyspace was flushed.
pub fn drop_expiry_entry(rows: &mut (impl RowsMut + ?Sized), entry: &Due) {
    let tail = entry_tail(entry);
    rows.delete(RowKey::new(Space::Expiry, 0, expiry_order(entry.time), &tail));
}

/// Whether the entry is (still) in the index.
pub fn has_expiry_entry(rows: &(impl Rows + ?Sized), entry: &Due) -> Result<bool, TypeError> {
    let tail = entry_tail(entry);
    Ok(rows.get(RowKey::new(Space::Expiry, 0, expiry_order(entry.time), &tail))?.is_some())
}

fn entry_tail(entry: &Due) -> Vec<u8> {
    [&entry.keyspace.0.to_be_bytes(), entry.key.as_slice()].concat()
}
