//! Lists: packed in the key's row, or a row in `Element` space for each element, at consecutive positions.
//!
//! Of a list in rows the key's row keeps the position of the first element (`extra`, 8 bytes, i64 little-endian); the last stands at `head + size - 1`. So both ends
//! and any index are reached at once. Removing or inserting in the middle moves the elements of the shorter side by one.

use std::ops::ControlFlow;

use ardb_base::id::ObjectId;
use ardb_engine::row::{i64_of_order, order_of_i64};
use ardb_engine::{Direction, RowKey, RowRange, Rows, RowsMut, Space, Value};

use crate::collection::{Bytes, Collection, Held, Walk};
use crate::limits::Limits;
use crate::{At, KeyRow, Kind, TypeError};

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

/// An open list. Changes reach the key's row by [`List::save`].
#[derive(Clone, Debug)]
pub struct List {
    base: Collection,
    /// Position of the first element, if they are rows.
    head: i64,
}

impl List {
    fn new(base: Collection) -> Result<List, TypeError> {
        let head = match base.held() {
            Held::Packed(_) => 0,
            Held::Rows(_) => {
                let bytes = base.extra().try_into().map_err(|_| TypeError::Corrupt("list header".into()))?;
                i64::from_le_bytes(bytes)
            }
        };
        Ok(List { base, head })
    }

    /// The list at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<List>, TypeError> {
        Collection::open(rows, at, Kind::List)?.map(List::new).transpose()
    }

    /// The list at a key, or an empty one.
    pub fn open_or_create(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<List, TypeError> {
        List::new(Collection::open_or_create(rows, at, Kind::List)?)
    }

    /// An empty one that will replace whatever `old` is.
    #[must_use]
    pub fn create(old: Option<KeyRow>, limits: Limits) -> List {
        List { base: Collection::create(old, Kind::List, limits), head: 0 }
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.base
    }

    pub(crate) fn collection_mut(&mut self) -> &mut Collection {
        &mut self.base
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

    /// Whether a packed list stays one with `value` as one of `more` elements more, in the place of `gone` bytes.
    fn fits(&self, more: u64, gone: usize, value: &[u8]) -> bool {
        self.base.fits(self.base.limits().list, more, gone, &[value])
    }

    /// The element at an index below the length.
    pub fn get(&self, rows: &(impl Rows + ?Sized), index: u64) -> Result<Bytes<'_>, TypeError> {
        match self.base.held() {
            Held::Packed(mut entries) => Ok(Bytes::Packed(entries.nth(index)?.name)),
            Held::Rows(object) => {
                let value = rows.get(row(object, self.head + index as i64))?;
                value.map(Bytes::Row).ok_or_else(missing)
            }
        }
    }

    /// Replaces the element at an index below the length.
    pub fn set(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        if let Held::Packed(mut entries) = self.base.held() {
            let old = entries.nth(index)?;
            let range = old.from..old.to;
            if self.fits(0, range.len(), value) {
                return self.base.replace(range, &[value], 0);
            }
        }
        let object = self.base.go_to_rows(rows)?;
        rows.put(row(object, self.head + index as i64), value);
        Ok(())
    }

    /// Adds an element at an end.
    pub fn push(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, value: &[u8]) -> Result<(), TypeError> {
        if matches!(self.base.held(), Held::Packed(_)) && self.fits(1, 0, value) {
            let at = if end == End::Left { 0 } else { self.base.packed_end() };
            return self.base.replace(at..at, &[value], 1);
        }
        let object = self.base.go_to_rows(rows)?;
        let position = match end {
            End::Left => {
                self.head -= 1;
                self.head
            }
            End::Right => self.tail(),
        };
        rows.put(row(object, position), value);
        self.base.grow(1)
    }

    /// Takes the element at an end, if there is one.
    pub fn pop(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End) -> Result<Option<Value>, TypeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let object = match self.base.held() {
            Held::Packed(mut entries) => {
                let found = entries.nth(if end == End::Left { 0 } else { self.len() - 1 })?;
                let (value, range) = (Value::new(found.name), found.from..found.to);
                self.base.replace(range, &[], -1)?;
                return Ok(Some(value));
            }
            Held::Rows(object) => object,
        };
        let row = row(object, if end == End::Left { self.head } else { self.tail() - 1 });
        let value = rows.get(row)?.ok_or_else(missing)?;
        rows.delete(row);
        self.head += i64::from(end == End::Left);
        self.base.grow(-1)?;
        Ok(Some(value))
    }

    /// The orders of the rows of the elements at indexes `from..to`, of which there is one at least.
    fn orders(&self, object: ObjectId, from: u64, to: u64) -> RowRange<'static> {
        let first = order_of_i64(self.head + from as i64);
        let last = order_of_i64(self.head + to as i64 - 1);
        RowRange::orders(Space::Element, object.0, first, last)
    }

    /// Visits the elements at indexes `from..to` (within the length), forward or backward, until it breaks.
    pub fn range(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        direction: Direction,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        if from >= to {
            return Ok(());
        }
        match self.base.held() {
            Held::Packed(mut entries) => {
                let mut index = from;
                let mut next = entries.nth(from)?;
                let mut passed = Vec::new();
                loop {
                    if direction == Direction::Backward {
                        passed.push(next.name);
                    } else if visit(index, next.name).is_break() {
                        return Ok(());
                    }
                    index += 1;
                    if index >= to {
                        break;
                    }
                    next = entries.nth(0)?;
                }
                let _ = passed.iter().rev().try_for_each(|element| {
                    index -= 1;
                    visit(index, element)
                });
                Ok(())
            }
            Held::Rows(object) => {
                let head = self.head;
                Ok(rows.scan(self.orders(object, from, to), direction, &mut |key, value| {
                    visit((i64_of_order(key.order) - head) as u64, value)
                })?)
            }
        }
    }

    /// Visits the elements at indexes `from..to` (within the length) with nothing but their bytes. `visit` must not read rows.
    pub fn values(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TypeError> {
        if from >= to {
            return Ok(());
        }
        let object = match self.base.held() {
            Held::Packed(mut entries) => {
                visit(entries.nth(from)?.name);
                for _ in from + 1..to {
                    visit(entries.nth(0)?.name);
                }
                return Ok(());
            }
            Held::Rows(object) => object,
        };
        let mut seen = 0;
        rows.values(self.orders(object, from, to), &mut |value| {
            seen += 1;
            visit(value);
            ControlFlow::Continue(())
        })?;
        if seen == to - from { Ok(()) } else { Err(missing()) }
    }

    /// Takes out all elements, in O(1).
    fn clear(&mut self, rows: &mut (impl RowsMut + ?Sized)) {
        self.base.clear(rows);
        self.head = 0;
    }

    /// Keeps only the elements at indexes `from..to`.
    pub fn trim(&mut self, rows: &mut (impl RowsMut + ?Sized), from: u64, to: u64) -> Result<(), TypeError> {
        let len = self.len();
        let to = to.min(len);
        let from = from.min(to);
        if from == to {
            self.clear(rows);
            return Ok(());
        }
        match self.base.held() {
            Held::Packed(mut entries) => {
                let first = entries.nth(from)?;
                let last = if to - from > 1 { entries.nth(to - from - 2)? } else { first };
                let (front, back) = (0..first.from, last.to..self.base.packed_end());
                self.base.replace(back, &[], -((len - to) as i64))?;
                self.base.replace(front, &[], -(from as i64))
            }
            Held::Rows(object) => {
                let kept = self.head + from as i64..self.head + to as i64;
                for position in (self.head..kept.start).chain(kept.end..self.tail()) {
                    rows.delete(row(object, position));
                }
                self.head = kept.start;
                self.base.grow((to - from) as i64 - len as i64)
            }
        }
    }

    /// Puts `value` before the element at `index` (or at the end, if `index` is the length).
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        if index == self.len() {
            return self.push(rows, End::Right, value);
        }
        if let Held::Packed(mut entries) = self.base.held() {
            let at = entries.nth(index)?.from;
            if self.fits(1, 0, value) {
                return self.base.replace(at..at, &[value], 1);
            }
        }
        let object = self.base.go_to_rows(rows)?;
        let at = self.head + index as i64;
        let position = if index < self.len() / 2 {
            shift(rows, object, self.head, at, -1)?;
            self.head -= 1;
            at - 1
        } else {
            shift(rows, object, at, self.tail(), 1)?;
            at
        };
        rows.put(row(object, position), value);
        self.base.grow(1)
    }

    /// Removes elements equal to `value`: all if `count` is 0, else at most `|count|` from the head (or from the tail, if negative). How many went.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), count: i64, value: &[u8]) -> Result<u64, TypeError> {
        let limit = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let direction = if count < 0 { Direction::Backward } else { Direction::Forward };
        let mut hits: Vec<u64> = Vec::new();
        self.range(rows, 0, self.len(), direction, &mut |index, element| {
            if element == value {
                hits.push(index);
            }
            if hits.len() as u64 >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if hits.is_empty() {
            return Ok(0);
        }
        hits.sort_unstable();
        let removed = hits.len() as i64;
        if removed as u64 == self.len() {
            self.clear(rows);
            return Ok(removed as u64);
        }
        match self.base.held() {
            Held::Packed(entries) => {
                let all = entries.all(self.len())?;
                let gone: Vec<_> = hits.iter().map(|hit| all[*hit as usize].from..all[*hit as usize].to).collect();
                // From the last to the first, so that what lies before stays where it is.
                for range in gone.into_iter().rev() {
                    self.base.replace(range, &[], -1)?;
                }
            }
            Held::Rows(object) => {
                let hits: Vec<i64> = hits.iter().map(|hit| self.head + *hit as i64).collect();
                self.close_gaps(rows, object, &hits)?;
            }
        }
        Ok(removed as u64)
    }

    /// Takes out the rows at these positions, some but not all of the list, in order: the elements beyond them move up from the end that has fewer.
    fn close_gaps(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        object: ObjectId,
        hits: &[i64],
    ) -> Result<(), TypeError> {
        let removed = hits.len() as i64;
        let (first, last) = (hits[0], hits[hits.len() - 1]);
        if last - self.head < self.tail() - first {
            for (done, pair) in hits.windows(2).rev().enumerate() {
                shift(rows, object, pair[0] + 1, pair[1], done as i64 + 1)?;
            }
            shift(rows, object, self.head, first, removed)?;
            for position in self.head..self.head + removed {
                rows.delete(row(object, position));
            }
            self.head += removed;
        } else {
            for (done, pair) in hits.windows(2).enumerate() {
                shift(rows, object, pair[0] + 1, pair[1], -(done as i64 + 1))?;
            }
            shift(rows, object, last + 1, self.tail(), -removed)?;
            for position in self.tail() - removed..self.tail() {
                rows.delete(row(object, position));
            }
        }
        self.base.grow(-removed)
    }

    /// Writes the key's row; an empty list's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        let head = self.head.to_le_bytes();
        self.base.save(rows, at, &head)
    }
}

/// The name of the row of the element at a position.
fn row(object: ObjectId, position: i64) -> RowKey<'static> {
    RowKey::new(Space::Element, object.0, order_of_i64(position), b"")
}

fn missing() -> TypeError {
    TypeError::Corrupt("a list lacks an element that its header counts".into())
}

/// Moves the elements at positions `from..to` by `by` places, one or more, in bounded pieces. The rows that are left behind stay.
fn shift(rows: &mut (impl RowsMut + ?Sized), object: ObjectId, from: i64, to: i64, by: i64) -> Result<(), TypeError> {
    let mut piece: Vec<(i64, Value)> = Vec::new();
    let (mut from, mut to) = (from, to);
    while from < to {
        // Pieces are taken from the side to which the elements move, so that none is overwritten before it was read.
        let (start, end) = if by < 0 { (from, to.min(from + PIECE as i64)) } else { (from.max(to - PIECE as i64), to) };
        piece.clear();
        let mut walk = Walk::orders(Space::Element, object.0, order_of_i64(start), order_of_i64(end));
        walk.step(rows, PIECE, &mut |key, value| piece.push((i64_of_order(key.order), value.clone())))?;
        if piece.len() as i64 != end - start {
            return Err(missing());
        }
        for (position, value) in &piece {
            rows.put(row(object, position + by), value);
        }
        if by < 0 {
            from = end;
        } else {
            to = start;
        }
    }
    Ok(())
}
