//! Sets: packed in the key's row, or an empty row in `Member` space for each member.

use std::ops::ControlFlow;

use ardb_base::number::parse_i64;
use ardb_engine::{Rows, RowsMut};

use crate::collection::{Collection, Held, member_row};
use crate::hash;
use crate::limits::{Limit, Limits};
use crate::packed::Entries;
use crate::{At, KeyRow, Kind, TypeError};

/// An open set. Changes reach the key's row by [`Set::save`].
#[derive(Clone, Debug)]
pub struct Set(Collection);

impl Set {
    /// The set at a key.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<Set>, TypeError> {
        Ok(Collection::open(rows, at, Kind::Set)?.map(Set))
    }

    /// The set at a key, or an empty one.
    pub fn open_or_create(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Set, TypeError> {
        Collection::open_or_create(rows, at, Kind::Set).map(Set)
    }

    /// An empty one that will replace whatever `old` is.
    #[must_use]
    pub fn create(old: Option<KeyRow>, limits: Limits) -> Set {
        Set(Collection::create(old, Kind::Set, limits))
    }

    /// What all collections have.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.0
    }

    pub(crate) fn collection_mut(&mut self) -> &mut Collection {
        &mut self.0
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
    pub fn contains(&self, rows: &(impl Rows + ?Sized), member: &[u8]) -> Result<bool, TypeError> {
        Ok(match self.0.held() {
            Held::Packed(mut entries) => entries.find(member)?.is_some(),
            Held::Rows(object) => rows.get(member_row(object, member))?.is_some(),
        })
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8]) -> Result<bool, TypeError> {
        if let Held::Packed(mut entries) = self.0.held() {
            if entries.find(member)?.is_some() {
                return Ok(false);
            }
            if self.stays_packed(member)? {
                let end = self.0.packed_end();
                self.0.replace(end..end, &[member], 1)?;
                return Ok(true);
            }
        }
        let row = member_row(self.0.go_to_rows(rows)?, member);
        let new = rows.get(row)?.is_none();
        if new {
            rows.put(row, b"");
            self.0.grow(1)?;
        }
        Ok(new)
    }

    /// Whether a packed set has room for a new member, or for one more if all are integers.
    fn stays_packed(&self, member: &[u8]) -> Result<bool, TypeError> {
        let limits = self.0.limits();
        if self.0.fits(limits.set, 1, 0, &[member]) {
            return Ok(true);
        }
        let of_integers = Limit { elements: limits.integers, ..Limit::new(0, u64::MAX) };
        if !self.0.fits(of_integers, 1, 0, &[member]) || parse_i64(member).is_none() {
            return Ok(false);
        }
        if self.len() > u64::from(limits.set.elements) {
            // That all are integers was seen when it passed the limit.
            return Ok(true);
        }
        if let Held::Packed(entries) = self.0.held() { only_integers(entries) } else { Ok(false) }
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8]) -> Result<bool, TypeError> {
        hash::remove(&mut self.0, rows, member)
    }

    /// Visits all members until it breaks.
    pub fn each(
        &self,
        rows: &(impl Rows + ?Sized),
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        self.0.each(rows, &mut |member, _| visit(member))
    }

    /// Writes the key's row; an empty set's key goes. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>) -> bool {
        self.0.save(rows, at, &[])
    }
}

fn only_integers(mut entries: Entries<'_>) -> Result<bool, TypeError> {
    while let Some(entry) = entries.next()? {
        if parse_i64(entry.name).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
