//! Lists: packed in the key's row or, if they are longer, in [`chunks`] of a few elements, between which and either end up to two chunks' worth of elements lie in
//! the key's row.
//!
//! Both ends and any index are reached at once. Removing or inserting in the middle writes the chunks of the shorter side anew.

#[cfg(test)]
mod check;
mod chunks;
mod edge;
mod element;
mod middle;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use ardb_engine::{Direction, Rows, RowsMut, Value};

use crate::collection::{Bytes, Collection, Held};
use crate::limits::Limits;
use crate::packed::Entries;
use crate::{At, KeyRow, Kind, TypeError};
use chunks::Chunks;
use element::{Element, damaged};

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

impl End {
    /// The opposite one.
    #[must_use]
    pub fn other(self) -> End {
        if self == End::Left { End::Right } else { End::Left }
    }
}

/// An open list. Changes reach the key's row by [`List::save`].
#[derive(Clone, Debug)]
pub struct List {
    base: Collection,
    /// The elements, if they are in rows.
    chunks: Option<Chunks>,
}

impl List {
    fn new(base: Collection) -> Result<List, TypeError> {
        let chunks = match (base.held(), base.row()) {
            (Held::Rows(_), Some(row)) => Some(Chunks::parse(row.clone())?),
            _ => None,
        };
        Ok(List { base, chunks })
    }

    /// The list whose key's row this is.
    pub(crate) fn of_row(row: KeyRow) -> Result<List, TypeError> {
        List::new(Collection::of_row(row, Limits::default()))
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
        List { base: Collection::create(old, Kind::List, limits), chunks: None }
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

    /// The elements of a packed list.
    fn packed(&self) -> Entries<'_> {
        match self.base.held() {
            Held::Packed(entries) => entries,
            Held::Rows(_) => Entries::new(b"", false),
        }
    }

    /// The elements in rows, where those of a packed list go now. `value` is one that will be added.
    #[inline]
    fn in_rows(&mut self, rows: &mut (impl RowsMut + ?Sized), value: &[u8]) -> Result<&mut Chunks, TypeError> {
        if self.chunks.is_none() {
            self.go_to_rows(rows, value)?;
        }
        self.chunks.as_mut().ok_or_else(damaged)
    }

    #[cold]
    fn go_to_rows(&mut self, rows: &mut (impl RowsMut + ?Sized), value: &[u8]) -> Result<(), TypeError> {
        let (object, packed) = self.base.leave_row(rows);
        let all = Entries::new(&packed, false).all(self.len())?;
        let mut chunks = Chunks::new(object, all.iter().map(|entry| entry.name).chain([value]));
        for entry in all {
            chunks.push(rows, End::Right, entry.name)?;
        }
        self.chunks = Some(chunks);
        Ok(())
    }

    /// The element at an index below the length.
    pub fn get(&self, rows: &(impl Rows + ?Sized), index: u64) -> Result<Bytes<'_>, TypeError> {
        match &self.chunks {
            Some(chunks) => chunks.get(rows, index),
            None => Ok(Bytes::Packed(self.packed().nth(index)?.name)),
        }
    }

    /// Replaces the element at an index below the length.
    pub fn set(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        if self.chunks.is_none() {
            let old = self.packed().nth(index)?;
            let range = old.from..old.to;
            if self.fits(0, range.len(), value) {
                return self.base.replace(range, &[value], 0);
            }
        }
        self.in_rows(rows, value)?.set(rows, index, value)
    }

    /// Adds an element at an end.
    pub fn push(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, value: &[u8]) -> Result<(), TypeError> {
        if self.chunks.is_none() && self.fits(1, 0, value) {
            let at = if end == End::Left { 0 } else { self.base.packed_end() };
            return self.base.replace(at..at, &[value], 1);
        }
        self.in_rows(rows, value)?.push(rows, end, value)?;
        self.base.grow(1)
    }

    /// Takes the element at an end, if there is one.
    pub fn pop(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End) -> Result<Option<Value>, TypeError> {
        let mut value = None;
        self.pop_to(rows, end, &mut |element| value = Some(Value::new(element)))?;
        Ok(value)
    }

    /// As [`List::pop`], but the element is only given to `take`, not copied. Whether there was one.
    pub fn pop_to(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        end: End,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, TypeError> {
        if self.is_empty() {
            return Ok(false);
        }
        if let Some(chunks) = &mut self.chunks {
            chunks.pop(rows, end, take)?;
            self.base.grow(-1)?;
            return Ok(true);
        }
        let found = self.packed().nth(if end == End::Left { 0 } else { self.len() - 1 })?;
        take(found.name);
        let range = found.from..found.to;
        self.base.replace(range, &[], -1)?;
        Ok(true)
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
        if let Some(chunks) = &self.chunks {
            return chunks.walk(rows, from, to, direction, &mut |index, element| match element {
                Element::Here(string) => Ok(visit(index, string)),
                Element::Apart(number) => Ok(visit(index, &chunks.apart(rows, number)?)),
            });
        }
        let mut entries = self.packed();
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

    /// Visits the elements at indexes `from..to` (within the length) with nothing but their bytes.
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
        if let Some(chunks) = &self.chunks {
            return chunks.walk(rows, from, to, Direction::Forward, &mut |_, element| {
                match element {
                    Element::Here(string) => visit(string),
                    Element::Apart(number) => visit(&chunks.apart(rows, number)?),
                }
                Ok(ControlFlow::Continue(()))
            });
        }
        let mut entries = self.packed();
        visit(entries.nth(from)?.name);
        for _ in from + 1..to {
            visit(entries.nth(0)?.name);
        }
        Ok(())
    }

    /// Takes out all elements, in O(1).
    fn clear(&mut self, rows: &mut (impl RowsMut + ?Sized)) {
        self.base.clear(rows);
        self.chunks = None;
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
        if let Some(chunks) = &mut self.chunks {
            chunks.cut(rows, End::Right, len - to)?;
            chunks.cut(rows, End::Left, from)?;
            return self.base.grow((to - from) as i64 - len as i64);
        }
        let mut entries = self.packed();
        let first = entries.nth(from)?;
        let last = if to - from > 1 { entries.nth(to - from - 2)? } else { first };
        let (front, back) = (0..first.from, last.to..self.base.packed_end());
        self.base.replace(back, &[], -((len - to) as i64))?;
        self.base.replace(front, &[], -(from as i64))
    }

    /// Puts `value` before the element at `index` (or at the end, if `index` is the length).
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        if index == self.len() {
            return self.push(rows, End::Right, value);
        }
        if self.chunks.is_none() {
            let at = self.packed().nth(index)?.from;
            if self.fits(1, 0, value) {
                return self.base.replace(at..at, &[value], 1);
            }
        }
        self.in_rows(rows, value)?.insert(rows, index, value)?;
        self.base.grow(1)
    }

    /// Removes elements equal to `value`: all if `count` is 0, else at most `|count|` from the head (or from the tail, if negative). How many went.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), count: i64, value: &[u8]) -> Result<u64, TypeError> {
        let limit = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let direction = if count < 0 { Direction::Backward } else { Direction::Forward };
        let removed = match &mut self.chunks {
            Some(chunks) => chunks.remove(rows, direction, limit, value)?,
            None => return self.remove_packed(direction, limit, value),
        };
        if removed == self.len() {
            self.clear(rows);
        } else {
            self.base.grow(-(removed as i64))?;
        }
        Ok(removed)
    }

    fn remove_packed(&mut self, direction: Direction, limit: u64, value: &[u8]) -> Result<u64, TypeError> {
        let all = self.packed().all(self.len())?;
        let mut gone: Vec<_> =
            all.iter().filter(|entry| entry.name == value).map(|entry| entry.from..entry.to).collect();
        let most = usize::try_from(limit).unwrap_or(usize::MAX).min(gone.len());
        if direction == Direction::Backward {
            gone.drain(..gone.len() - most);
        } else {
            gone.truncate(most);
        }
        // From the last to the first, so that what lies before stays where it is.
        for range in gone.into_iter().rev() {
            self.base.replace(range, &[], -1)?;
        }
        Ok(most as u64)
    }

    /// Writes the key's row; an empty list's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        let Some(chunks) = self.chunks else { return self.base.save(rows, at, &[]) };
        let head = chunks.head();
        let [a, b, c, d] = chunks.edges();
        self.base.save(rows, at, &[&head, a, b, c, d])
    }
}
