//! Sets: an empty row in `Member` space for each member.

use std::ops::ControlFlow;

use ardb_engine::{Direction, EngineError, RowRange, Rows, RowsMut, Space};

use crate::collection::{Collection, member_row};
use crate::{At, Kind, TypeError};

/// An open set. Changes of the size reach the key's row by [`Set::save`].
#[derive(Clone, Debug)]
pub struct Set(Collection);

impl Set {
    /// The set at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<Set>, TypeError> {
        Ok(Collection::open(rows, at, Kind::Set)?.map(Set))
    }

    /// The set at a key, or an empty one.
    pub fn open_or_create(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> Result<Set, TypeError> {
        Collection::open_or_create(rows, at, Kind::Set).map(Set)
    }

    /// An empty one that will replace whatever `old` is.
    pub fn create(rows: &mut (impl RowsMut + ?Sized), old: Option<crate::KeyRow>) -> Set {
        Set(Collection::create(rows, old, Kind::Set))
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.0
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is a member.
    pub fn contains(&self, rows: &(impl Rows + ?Sized), member: &[u8]) -> Result<bool, EngineError> {
        Ok(rows.get(member_row(self.0.object(), member))?.is_some())
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8]) -> Result<bool, EngineError> {
        let row = member_row(self.0.object(), member);
        let new = rows.get(row)?.is_none();
        if new {
            rows.put(row, b"");
            self.0.grow(1);
        }
        Ok(new)
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8]) -> Result<bool, EngineError> {
        let row = member_row(self.0.object(), member);
        let found = rows.get(row)?.is_some();
        if found {
            rows.delete(row);
            self.0.grow(-1);
        }
        Ok(found)
    }

    /// Visits all members in the order of their hashes, until it breaks.
    pub fn each(
        &self,
        rows: &(impl Rows + ?Sized),
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        rows.scan(RowRange::group(Space::Member, self.0.object().0), Direction::Forward, &mut |key, _| visit(key.tail))
    }

    /// Writes the key's row; an empty set's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        self.0.save(rows, at, b"")
    }
}
