//! Hashes: a row in `Member` space for each field, its value the field's value.

use std::ops::ControlFlow;

use ardb_engine::{Direction, EngineError, RowRange, Rows, RowsMut, Space, Value};

use crate::collection::{Collection, member_row};
use crate::{At, Kind, TypeError};

/// An open hash. Changes of the size reach the key's row by [`Hash::save`].
#[derive(Clone, Debug)]
pub struct Hash(Collection);

impl Hash {
    /// The hash at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<Hash>, TypeError> {
        Ok(Collection::open(rows, at, Kind::Hash)?.map(Hash))
    }

    /// The hash at a key, or an empty one.
    pub fn open_or_create(rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> Result<Hash, TypeError> {
        Collection::open_or_create(rows, at, Kind::Hash).map(Hash)
    }

    /// An empty one that will replace whatever `old` is.
    pub fn create(rows: &mut (impl RowsMut + ?Sized), old: Option<crate::KeyRow>) -> Hash {
        Hash(Collection::create(rows, old, Kind::Hash))
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.0
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A field's value.
    pub fn get(&self, rows: &(impl Rows + ?Sized), field: &[u8]) -> Result<Option<Value>, EngineError> {
        rows.get(member_row(self.0.object(), field))
    }

    /// Sets a field; whether it is new.
    pub fn insert(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        field: &[u8],
        value: &[u8],
    ) -> Result<bool, EngineError> {
        let row = member_row(self.0.object(), field);
        let new = rows.get(row)?.is_none();
        rows.put(row, value);
        self.0.grow(i64::from(new));
        Ok(new)
    }

    /// Removes a field; whether it was there.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), field: &[u8]) -> Result<bool, EngineError> {
        let row = member_row(self.0.object(), field);
        let found = rows.get(row)?.is_some();
        if found {
            rows.delete(row);
            self.0.grow(-1);
        }
        Ok(found)
    }

    /// Visits all fields with their values, in the order of their hashes.
    pub fn each(&self, rows: &(impl Rows + ?Sized), visit: &mut dyn FnMut(&[u8], &Value)) -> Result<(), EngineError> {
        rows.scan(RowRange::group(Space::Member, self.0.object().0), Direction::Forward, &mut |key, value| {
            visit(key.tail, value);
            ControlFlow::Continue(())
        })
    }

    /// Writes the key's row; an empty hash's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        self.0.save(rows, at, b"")
    }
}
