//! Lists: a row in `Element` space for each element, at consecutive positions.
//!
//! The key's row keeps the position of the first element (`extra`, 8 bytes, i64 little-endian); the last stands at `head + size - 1`. So both ends
//! and any index are reached at once. Removing or inserting in the middle moves the elements of the shorter side by one.

use std::ops::ControlFlow;

use ardb_engine::row::{i64_of_order, order_of_i64};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Space, Value};

use crate::collection::{Collection, Walk};
use crate::{At, Kind, TypeError};

/// Elements that are moved at a time, so that a long list is never held in memory.
const PIECE: usize = 1024;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// An open list. Changes of the ends reach the key's row by [`List::save`].
#[derive(Clone, Debug)]
pub struct List {
    base: Collection,
    head: i64,
}

impl List {
    fn new(base: Collection) -> Result<List, TypeError> {
        let head = match *base.extra() {
            [] if base.is_fresh() => 0,
            ref bytes => i64::from_le_bytes(bytes.try_into().map_err(|_| TypeError::Corrupt("list header".into()))?),
        };
        Ok(List { base, head })
    }

    /// The list at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<List>, TypeError> {
        Collection::open(rows, at, Kind::List)?.map(List::new).transpose()
    }

    /// The list at a key, or an empty one.
    pub fn open_or_create(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> Result<List, TypeError> {
        List::new(Collection::open_or_create(rows, at, Kind::List)?)
    }

    /// An empty one that will replace whatever `old` is.
    pub fn create(rows: &mut (impl RowsMut + ?Sized), old: Option<crate::KeyRow>) -> List {
        List { base: Collection::create(rows, old, Kind::List), head: 0 }
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.base
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.base.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    fn row(&self, position: i64) -> RowKey<'static> {
        RowKey::new(Space::Element, self.base.object().0, order_of_i64(position), b"")
    }

    fn tail(&self) -> i64 {
        self.head + self.base.len() as i64
    }

    /// The index that a possibly negative one means, if there is an element.
    #[must_use]
    pub fn resolve(&self, index: i64) -> Option<u64> {
        let len = self.base.len() as i64;
        let index = if index < 0 { index.checked_add(len)? } else { index };
        (0..len).contains(&index).then_some(index as u64)
    }

    fn missing(&self) -> TypeError {
        TypeError::Corrupt("a list lacks an element that its header counts".into())
    }

    /// The element at an index below the length.
    pub fn get(&self, rows: &(impl Rows + ?Sized), index: u64) -> Result<Value, TypeError> {
        rows.get(self.row(self.head + index as i64))?.ok_or_else(|| self.missing())
    }

    /// Replaces the element at an index below the length.
    pub fn set(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) {
        rows.put(self.row(self.head + index as i64), value);
    }

    /// Adds an element at an end.
    pub fn push(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, value: &[u8]) {
        let position = match end {
            End::Left => {
                self.head -= 1;
                self.head
            }
            End::Right => self.tail(),
        };
        rows.put(self.row(position), value);
        self.base.grow(1);
    }

    /// Takes the element at an end, if there is one.
    pub fn pop(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End) -> Result<Option<Value>, TypeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let position = if end == End::Left { self.head } else { self.tail() - 1 };
        let row = self.row(position);
        let value = rows.get(row)?.ok_or_else(|| self.missing())?;
        rows.delete(row);
        self.head += i64::from(end == End::Left);
        self.base.grow(-1);
        Ok(Some(value))
    }

    /// Visits the elements at indexes `from..to` (within the length), forward or backward, until it breaks.
    pub fn range(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        direction: Direction,
        visit: &mut dyn FnMut(u64, &Value) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        let first = order_of_i64(self.head + from as i64);
        let last = order_of_i64(self.head + to as i64 - 1);
        let head = self.head;
        rows.scan(RowRange::orders(Space::Element, self.base.object().0, first, last), direction, &mut |key, value| {
            visit((i64_of_order(key.order) - head) as u64, value)
        })
    }

    /// Visits the elements at indexes `from..to` (within the length) with nothing but their bytes; how many there were. `visit` must not read rows.
    pub fn values(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, EngineError> {
        if from >= to {
            return Ok(0);
        }
        let first = order_of_i64(self.head + from as i64);
        let last = order_of_i64(self.head + to as i64 - 1);
        let mut seen = 0;
        rows.values(RowRange::orders(Space::Element, self.base.object().0, first, last), &mut |value| {
            seen += 1;
            visit(value);
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }

    /// Keeps only the elements at indexes `from..to`.
    pub fn trim(&mut self, rows: &mut (impl RowsMut + ?Sized), from: u64, to: u64) {
        let to = to.min(self.len());
        let from = from.min(to);
        if from == to {
            // All goes, and the rows with the object.
            self.base.grow(-(self.base.len() as i64));
            return;
        }
        for position in (self.head..self.head + from as i64).chain(self.head + to as i64..self.tail()) {
            rows.delete(self.row(position));
        }
        self.base.grow((to - from) as i64 - self.base.len() as i64);
        self.head += from as i64;
    }

    /// Puts `value` before the element at `index` (or at the end, if `index` is the length).
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        let at = self.head + index as i64;
        let position = if index < self.len() / 2 {
            self.shift(rows, self.head, at, -1)?;
            self.head -= 1;
            at - 1
        } else {
            self.shift(rows, at, self.tail(), 1)?;
            at
        };
        rows.put(self.row(position), value);
        self.base.grow(1);
        Ok(())
    }

    /// Moves the elements at positions `from..to` by `by` places, one or more, in bounded pieces. The rows that are left behind stay.
    fn shift(&self, rows: &mut (impl RowsMut + ?Sized), from: i64, to: i64, by: i64) -> Result<(), TypeError> {
        let mut piece: Vec<(i64, Value)> = Vec::new();
        let (mut from, mut to) = (from, to);
        while from < to {
            // Pieces are taken from the side to which the elements move, so that none is overwritten before it was read.
            let (start, end) =
                if by < 0 { (from, to.min(from + PIECE as i64)) } else { (from.max(to - PIECE as i64), to) };
            piece.clear();
            let mut walk = Walk::orders(Space::Element, self.base.object().0, order_of_i64(start), order_of_i64(end));
            walk.step(rows, PIECE, &mut |key, value| piece.push((i64_of_order(key.order), value.clone())))?;
            if piece.len() as i64 != end - start {
                return Err(self.missing());
            }
            for (position, value) in &piece {
                rows.put(self.row(position + by), value);
            }
            if by < 0 {
                from = end;
            } else {
                to = start;
            }
        }
        Ok(())
    }

    /// Removes elements equal to `value`: all if `count` is 0, else at most `|count|` from the head (or from the tail, if negative). How many went.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), count: i64, value: &[u8]) -> Result<u64, TypeError> {
        let limit = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let direction = if count < 0 { Direction::Backward } else { Direction::Forward };
        let mut hits: Vec<i64> = Vec::new();
        self.range(rows, 0, self.len(), direction, &mut |index, element| {
            if **element == *value {
                hits.push(self.head + index as i64);
            }
            if hits.len() as u64 >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if hits.is_empty() {
            return Ok(0);
        }
        hits.sort_unstable();
        let removed = hits.len() as i64;
        if removed as u64 == self.len() {
            self.base.grow(-removed);
            return Ok(removed as u64);
        }
        let (first, last) = (hits[0], hits[hits.len() - 1]);
        // Close the gaps towards the end that has less to move.
        if last - self.head < self.tail() - first {
            for (done, pair) in hits.windows(2).rev().enumerate() {
                self.shift(rows, pair[0] + 1, pair[1], done as i64 + 1)?;
            }
            self.shift(rows, self.head, first, removed)?;
            for position in self.head..self.head + removed {
                rows.delete(self.row(position));
            }
            self.head += removed;
        } else {
            for (done, pair) in hits.windows(2).enumerate() {
                self.shift(rows, pair[0] + 1, pair[1], -(done as i64 + 1))?;
            }
            self.shift(rows, last + 1, self.tail(), -removed)?;
            for position in self.tail() - removed..self.tail() {
                rows.delete(self.row(position));
            }
        }
        self.base.grow(-removed);
        Ok(removed as u64)
    }

    /// Writes the key's row; an empty list's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        let head = self.head.to_le_bytes();
        self.base.save(rows, at, &head)
    }
}
