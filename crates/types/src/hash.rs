//! Hashes: packed in the key's row, or a row in `Member` space for each field, its value the field's value.

use std::ops::ControlFlow;

use ardb_engine::{Rows, RowsMut};

use crate::collection::{Bytes, Collection, Held, member_row};
use crate::limits::Limits;
use crate::{At, KeyRow, Kind, TypeError};

/// An open hash. Changes reach the key's row by [`Hash::save`].
#[derive(Clone, Debug)]
pub struct Hash(Collection);

impl Hash {
    /// The hash at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<Hash>, TypeError> {
        Ok(Collection::open(rows, at, Kind::Hash)?.map(Hash))
    }

    /// The hash at a key, or an empty one.
    pub fn open_or_create(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Hash, TypeError> {
        Collection::open_or_create(rows, at, Kind::Hash).map(Hash)
    }

    /// An empty one that will replace whatever `old` is.
    #[must_use]
    pub fn create(old: Option<KeyRow>, limits: Limits) -> Hash {
        Hash(Collection::create(old, Kind::Hash, limits))
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.0
    }

    pub(crate) fn collection_mut(&mut self) -> &mut Collection {
        &mut self.0
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
    pub fn get(&self, rows: &(impl Rows + ?Sized), field: &[u8]) -> Result<Option<Bytes<'_>>, TypeError> {
        Ok(match self.0.held() {
            Held::Packed(mut entries) => entries.find(field)?.map(|entry| Bytes::Packed(entry.value)),
            Held::Rows(object) => rows.get(member_row(object, field))?.map(Bytes::Row),
        })
    }

    /// Sets a field; whether it is new.
    pub fn insert(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        field: &[u8],
        value: &[u8],
    ) -> Result<bool, TypeError> {
        let limit = self.0.limits().hash;
        if let Held::Packed(mut entries) = self.0.held() {
            if let Some(found) = entries.find(field)? {
                let range = found.value_from..found.to;
                if self.0.fits(limit, 0, range.len(), &[value]) {
                    self.0.replace(range, &[value], 0)?;
                    return Ok(false);
                }
            } else if self.0.fits(limit, 1, 0, &[field, value]) {
                let end = self.0.packed_end();
                self.0.replace(end..end, &[field, value], 1)?;
                return Ok(true);
            }
        }
        let row = member_row(self.0.go_to_rows(rows)?, field);
        let new = rows.get(row)?.is_none();
        rows.put(row, value);
        self.0.grow(i64::from(new))?;
        Ok(new)
    }

    /// Removes a field; whether it was there.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), field: &[u8]) -> Result<bool, TypeError> {
        remove(&mut self.0, rows, field)
    }

    /// Visits all fields with their values.
    pub fn each(&self, rows: &(impl Rows + ?Sized), visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), TypeError> {
        self.0.each(rows, &mut |field, value| {
            visit(field, value);
            ControlFlow::Continue(())
        })
    }

    /// Writes the key's row; an empty hash's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        self.0.save(rows, at, &[])
    }
}

/// Removes a member of a hash or set; whether it was there.
pub(crate) fn remove(
    collection: &mut Collection,
    rows: &mut (impl RowsMut + ?Sized),
    member: &[u8],
) -> Result<bool, TypeError> {
    match collection.held() {
        Held::Packed(mut entries) => {
            let Some(found) = entries.find(member)? else { return Ok(false) };
            let range = found.from..found.to;
            collection.replace(range, &[], -1)?;
        }
        Held::Rows(object) => {
            let row = member_row(object, member);
            if rows.get(row)?.is_none() {
                return Ok(false);
            }
            rows.delete(row);
            collection.grow(-1)?;
        }
    }
    Ok(true)
}
