//! Giving a value to another key: RENAME and MOVE take the object along in O(1), COPY copies its rows.

use std::ops::ControlFlow;

use ardb_base::id::ObjectId;
use ardb_engine::{Direction, RowKey, RowRange, RowsMut, Space, Value};

use super::{put, with_expiry_key};
use crate::{At, Encoding, Header, KeyRow, TypeError};

/// Rows copied at a time, so that memory stays bounded whatever the size of the value.
const PAGE: usize = 128;

/// Moves the value at `from`, whose row is `row`, with its expiry to `to`, in O(1). `target` is the row that stands at `to`, due or not; it is
/// replaced. The two places must differ.
pub fn relocate(rows: &mut (impl RowsMut + ?Sized), from: &At<'_>, row: &KeyRow, to: &At<'_>, target: Option<&KeyRow>) {
    debug_assert!(from.row() != to.row(), "a key is not moved onto itself");
    put(rows, to, target, &row.header(), row.rest());
    if let Some(time) = row.expiry() {
        with_expiry_key(from, time, |key| rows.delete(key));
    }
    rows.delete(from.row());
    rows.count(from.db, -1, -i64::from(row.expiry().is_some()));
}

/// Copies the value of `row` with its expiry to `to`, where `target` stands now, due or not. A big value's rows are copied page by page
/// under a new object.
pub fn copy(
    rows: &mut (impl RowsMut + ?Sized),
    row: &KeyRow,
    to: &At<'_>,
    target: Option<&KeyRow>,
) -> Result<(), TypeError> {
    let mut header: Header = row.header();
    if row.encoding() == Encoding::Rows {
        header.object = rows.new_object();
        for space in [
            Space::Member,
            Space::Element,
            Space::Chunk,
            Space::Score,
            Space::Rank1,
            Space::Rank2,
            Space::Rank3,
            Space::Rank4,
        ] {
            copy_rows(rows, space, row.object(), header.object)?;
        }
    }
    put(rows, to, target, &header, row.rest());
    Ok(())
}

fn copy_rows(rows: &mut (impl RowsMut + ?Sized), space: Space, from: ObjectId, to: ObjectId) -> Result<(), TypeError> {
    let mut next: (u64, Vec<u8>) = (0, Vec::new());
    let mut page: Vec<(u64, Vec<u8>, Value)> = Vec::new();
    loop {
        let range = RowRange { space, group: from.0, from: (next.0, &next.1), to: None };
        rows.scan(range, Direction::Forward, &mut |name, value| {
            page.push((name.order, name.tail.to_vec(), value.clone()));
            if page.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        for (order, tail, value) in &page {
            rows.put(RowKey::new(space, to.0, *order, tail), value);
        }
        if page.len() < PAGE {
            return Ok(());
        }
        if let Some((order, mut tail, _)) = page.pop() {
            // The least name after the last one.
            tail.push(0);
            next = (order, tail);
        }
        page.clear();
    }
}
