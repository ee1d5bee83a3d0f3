//! Values of any type item by item: what DUMP, COPY, RDB files and digests read, and what RESTORE and RDB files write.

use std::ops::ControlFlow;

use ardb_base::id::UnixMs;
use ardb_engine::{Direction, EngineError, RowRange, Rows, RowsMut, Space};

use crate::hash::Hash;
use crate::list::{End, List};
use crate::set::Set;
use crate::string::{Builder, StringValue};
use crate::zset::{ZSet, ZSetBuilder};
use crate::{At, KeyRow, Kind, TypeError, keyspace};

/// A part of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// The next bytes of a string.
    Piece(&'a [u8]),
    /// The next element of a list, or a member of a set.
    Element(&'a [u8]),
    /// A field of a hash and its value.
    Field(&'a [u8], &'a [u8]),
    /// A member of a sorted set and its score.
    Scored(&'a [u8], f64),
}

/// Calls `visit` with the items of the value whose key's row is `row` until it breaks: strings and lists in their order, the others in the
/// order of their members' hashes.
pub fn each_item(
    rows: &(impl Rows + ?Sized),
    row: &KeyRow,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    let object = row.object().0;
    let scan = |space, visit: &mut ardb_engine::row::Visit<'_>| -> Result<(), EngineError> {
        rows.scan(RowRange::group(space, object), Direction::Forward, visit)
    };
    match row.kind() {
        Kind::String => {
            let value = StringValue::of_row(row.clone());
            value.pieces_until(rows, 0, u64::MAX, &mut |piece| visit(Item::Piece(piece)))?;
        }
        Kind::List => scan(Space::Element, &mut |_, element| visit(Item::Element(element)))?,
        Kind::Set => scan(Space::Member, &mut |name, _| visit(Item::Element(name.tail)))?,
        Kind::Hash => scan(Space::Member, &mut |name, value| visit(Item::Field(name.tail, value)))?,
        Kind::SortedSet => {
            ZSet::of_row(row.clone())?.each(rows, &mut |member, score| visit(Item::Scored(member, score)))?;
        }
    }
    Ok(())
}

enum Growing {
    String(Builder, Option<KeyRow>),
    List(List),
    Set(Set),
    Hash(Hash),
    SortedSet(ZSetBuilder, Option<KeyRow>),
}

/// A new value of any type, made of its items. Nobody sees it before [`ValueBuilder::finish`].
pub struct ValueBuilder(Growing);

impl ValueBuilder {
    /// An empty value that will replace `old`, the row that stands at the key now, due or not.
    pub fn new(rows: &mut (impl RowsMut + ?Sized), kind: Kind, old: Option<KeyRow>) -> ValueBuilder {
        ValueBuilder(match kind {
            Kind::String => Growing::String(Builder::new(), old),
            Kind::List => Growing::List(List::create(rows, old)),
            Kind::Set => Growing::Set(Set::create(rows, old)),
            Kind::Hash => Growing::Hash(Hash::create(rows, old)),
            Kind::SortedSet => Growing::SortedSet(ZSetBuilder::new(rows), old),
        })
    }

    /// Adds an item, which must be of the value's type. False, and nothing done, if a set or sorted set has the member already; false
    /// if a hash had the field, whose value is now the new one.
    pub fn add(&mut self, rows: &mut (impl RowsMut + ?Sized), item: Item<'_>) -> Result<bool, TypeError> {
        Ok(match (&mut self.0, item) {
            (Growing::String(string, _), Item::Piece(bytes)) => {
                string.push(rows, bytes);
                true
            }
            (Growing::List(list), Item::Element(element)) => {
                list.push(rows, End::Right, element);
                true
            }
            (Growing::Set(set), Item::Element(member)) => set.insert(rows, member)?,
            (Growing::Hash(hash), Item::Field(field, value)) => hash.insert(rows, field, value)?,
            (Growing::SortedSet(set, _), Item::Scored(member, score)) => set.append(rows, member, score)?,
            _ => return Err(TypeError::Corrupt("an item of another type than its value".into())),
        })
    }

    /// Makes it the value of the key. A collection without items leaves no key; whether there is one.
    pub fn finish(
        self,
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        expiry: Option<UnixMs>,
    ) -> Result<bool, TypeError> {
        let there = match self.0 {
            Growing::String(string, old) => {
                string.finish(rows, at, old.as_ref(), expiry);
                return Ok(true);
            }
            Growing::SortedSet(set, old) => return set.finish(rows, at, old, expiry),
            Growing::List(list) => list.save(rows, at),
            Growing::Set(set) => set.save(rows, at),
            Growing::Hash(hash) => hash.save(rows, at),
        };
        if let (true, Some(time)) = (there, expiry)
            && let Some(row) = keyspace::lookup_raw(rows, at)?
        {
            keyspace::set_expiry(rows, at, &row, Some(time));
        }
        Ok(there)
    }
}
