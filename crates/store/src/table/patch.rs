//! Replacing a few bytes of a long value without writing it anew.
//!
//! A transaction of many commands writes some rows time and again: a key's row with its counts, and the nodes of a sorted set. The version that it has
//! written itself is seen by nobody else, so it is changed where it lies, unless somebody holds a copy.

use ardb_engine::row::Patch;
use ardb_engine::{RowKey, Value};

use super::{Table, Undo, cell_mut};
use crate::place::Place;

impl Table {
    /// As [`Table::put`] of `old`, the row's value, with some bytes replaced. What undoes [`Undo::Patched`] is appended to `saved`, and for all else nothing.
    pub fn patch(
        &self,
        key: &RowKey<'_>,
        seq: u64,
        old: Value,
        patches: &[Patch<'_>],
        active: &[u64],
        saved: &mut Vec<u8>,
    ) -> Undo {
        let place = Place::of(key);
        let mut old = Some(old);
        let mut map = self.shards[Table::shard_of(place)].write();
        if let Some(cell) = cell_mut(&mut map, place, key.tail)
            && cell.seq() == seq
            && let Some(value) = cell.newest_mut()
        {
            debug_assert!(old.as_ref().is_some_and(|old| old == value), "a row that is patched holds something else");
            drop(old.take());
            if value.is_sole() {
                save(value, patches, saved);
                value.patch(patches);
                return Undo::Patched;
            }
            old = Some(value.clone());
        }
        drop(map);
        if let Some(value) = &mut old {
            value.patch(patches);
        }
        self.put(key, seq, old, active)
    }
}

/// Keeps what the patches will replace: offset, length and bytes of each.
fn save(value: &[u8], patches: &[Patch<'_>], saved: &mut Vec<u8>) {
    for (at, new) in patches {
        if let Some(bytes) = value.get(*at..).and_then(|rest| rest.get(..new.len())) {
            saved.extend_from_slice(&(*at as u64).to_le_bytes());
            saved.extend_from_slice(&(new.len() as u64).to_le_bytes());
            saved.extend_from_slice(bytes);
        }
    }
}

/// Puts back what was kept.
pub fn restore(value: &mut Value, mut saved: &[u8]) {
    while let Some((at, rest)) = saved.split_first_chunk()
        && let Some((len, rest)) = rest.split_first_chunk()
        && let Some((bytes, rest)) = rest.split_at_checked(u64::from_le_bytes(*len) as usize)
    {
        value.patch(&[(u64::from_le_bytes(*at) as usize, bytes)]);
        saved = rest;
    }
}
