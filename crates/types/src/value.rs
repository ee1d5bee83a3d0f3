//! Values of any type item by item: what DUMP, COPY, RDB files and digests read, and what RESTORE and RDB files write.

use std::ops::ControlFlow;

use ardb_base::id::UnixMs;
use ardb_engine::{Direction, RowRange, Rows, RowsMut, Space};

use crate::collection::{Walk, each_entry};
use crate::hash::Hash;
use crate::list::{End, List};
use crate::packed::Entries;
use crate::set::Set;
use crate::string::{Builder, StringValue};
use crate::zset::{Members, ZSet, ZSetBuilder, score_of_row};
use crate::{At, Encoding, KeyRow, Kind, Limits, TypeError};

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

/// Calls `visit` with the items of the value whose key's row is `row` until it breaks: strings, lists and sorted sets in their order, packed values as they lie
/// there, the others in the order of their members' hashes.
pub fn each_item(
    rows: &(impl Rows + ?Sized),
    row: &KeyRow,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    let kind = row.kind();
    match (kind, row.encoding()) {
        (Kind::String, _) => {
            let value = StringValue::of_row(row.clone());
            value.pieces_until(rows, 0, u64::MAX, &mut |piece| visit(Item::Piece(piece)))
        }
        (Kind::SortedSet, _) => {
            ZSet::of_row(row.clone())?.each(rows, &mut |member, score| visit(Item::Scored(member, score)))
        }
        (_, Encoding::Packed) => {
            let entries = Entries::new(row.rest(), kind == Kind::Hash);
            each_entry(entries, row.size(), &mut |entry| visit(item(kind, entry.name, entry.value)))
        }
        (Kind::List, _) => {
            let list = List::of_row(row.clone())?;
            list.range(rows, 0, list.len(), Direction::Forward, &mut |_, element| visit(Item::Element(element)))
        }
        (_, Encoding::Inline | Encoding::Rows) => {
            let range = RowRange::group(Space::Member, row.object().0);
            Ok(rows.scan(range, Direction::Forward, &mut |name, value| visit(item(kind, name.tail, value)))?)
        }
    }
}

/// An element or member with what belongs to it, of a value of any kind but string and sorted set.
fn item<'a>(kind: Kind, name: &'a [u8], value: &'a [u8]) -> Item<'a> {
    if kind == Kind::Hash { Item::Field(name, value) } else { Item::Element(name) }
}

/// A place in the items of a collection, to go through them in pieces while other rows are written.
#[derive(Clone, Debug)]
pub struct ItemWalk {
    row: KeyRow,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The offset of the next entry of a packed collection.
    Packed(usize),
    /// The index of the next element of a list in rows.
    Chunks(u64),
    Rows(Walk),
}

impl ItemWalk {
    /// All items of the collection whose key's row this is, in the order of [`each_item`], but those of a sorted set in rows in the order of their hashes.
    #[must_use]
    pub fn new(row: &KeyRow) -> ItemWalk {
        let place = match row.encoding() {
            Encoding::Packed => Place::Packed(0),
            Encoding::Inline | Encoding::Rows if row.kind() == Kind::List => Place::Chunks(0),
            Encoding::Inline | Encoding::Rows => Place::Rows(Walk::group(Space::Member, row.object().0)),
        };
        ItemWalk { row: row.clone(), place }
    }

    /// Calls `visit` for at most `limit` further items; whether there may be more.
    pub fn step(
        &mut self,
        rows: &(impl Rows + ?Sized),
        limit: usize,
        visit: &mut dyn FnMut(Item<'_>),
    ) -> Result<bool, TypeError> {
        let kind = self.row.kind();
        match &mut self.place {
            Place::Packed(at) if kind == Kind::SortedSet => {
                let mut members = Members::from(self.row.rest(), *at);
                for _ in 0..limit {
                    let Some(next) = members.next()? else { return Ok(false) };
                    visit(Item::Scored(next.member, next.score));
                }
                *at = members.at();
                Ok(true)
            }
            Place::Packed(at) => {
                let mut entries = Entries::from(self.row.rest(), kind == Kind::Hash, *at);
                for _ in 0..limit {
                    let Some(entry) = entries.next()? else { return Ok(false) };
                    visit(item(kind, entry.name, entry.value));
                }
                *at = entries.at();
                Ok(true)
            }
            Place::Chunks(next) => {
                let list = List::of_row(self.row.clone())?;
                let from = (*next).min(list.len());
                *next = from.saturating_add(limit as u64).min(list.len());
                list.values(rows, from, *next, &mut |element| visit(Item::Element(element)))?;
                Ok(*next < list.len())
            }
            Place::Rows(walk) => {
                let mut failed = None;
                let more = walk.step(rows, limit, &mut |name, value| match kind {
                    Kind::SortedSet => match score_of_row(value) {
                        Ok(score) => visit(Item::Scored(name.tail, score)),
                        Err(error) => failed = Some(error),
                    },
                    _ => visit(item(kind, name.tail, value)),
                })?;
                failed.map_or(Ok(more), Err)
            }
        }
    }
}

enum Growing {
    String(Builder, Option<KeyRow>),
    List(List),
    Set(Set),
    Hash(Hash),
    SortedSet(ZSetBuilder, Option<KeyRow>),
}

/// A new value of any type, made of its items. Nobody sees it before [`ValueBuilder::finish`]. A small collection is one row, and nothing is written of it before.
pub struct ValueBuilder(Growing);

impl ValueBuilder {
    /// An empty value that will replace `old`, the row that stands at the key now, due or not.
    #[must_use]
    pub fn new(kind: Kind, old: Option<KeyRow>, limits: Limits) -> ValueBuilder {
        ValueBuilder(match kind {
            Kind::String => Growing::String(Builder::new(), old),
            Kind::List => Growing::List(List::create(old, limits)),
            Kind::Set => Growing::Set(Set::create(old, limits)),
            Kind::Hash => Growing::Hash(Hash::create(old, limits)),
            Kind::SortedSet => Growing::SortedSet(ZSetBuilder::new(limits), old),
        })
    }

    /// Adds an item, which must be of the value's type. False, and nothing done, if a set or sorted set has the member already; false
    /// if a hash had the field, whose value is now the new one.
    pub fn add(&mut self, rows: &mut (impl RowsMut + ?Sized), item: Item<'_>) -> Result<bool, TypeError> {
        match (&mut self.0, item) {
            (Growing::String(string, _), Item::Piece(bytes)) => string.push(rows, bytes),
            (Growing::List(list), Item::Element(element)) => list.push(rows, End::Right, element)?,
            (Growing::Set(set), Item::Element(member)) => return set.insert(rows, member),
            (Growing::Hash(hash), Item::Field(field, value)) => return hash.insert(rows, field, value),
            (Growing::SortedSet(set, _), Item::Scored(member, score)) => return set.append(rows, member, score),
            _ => return Err(TypeError::Corrupt("an item of another type than its value".into())),
        }
        Ok(true)
    }

    /// Makes it the value of the key. A collection without items leaves no key; whether there is one.
    pub fn finish(
        self,
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        expiry: Option<UnixMs>,
    ) -> Result<bool, TypeError> {
        Ok(match self.0 {
            Growing::String(string, old) => {
                string.finish(rows, at, old.as_ref(), expiry);
                true
            }
            Growing::SortedSet(set, old) => set.finish(rows, at, old, expiry)?,
            Growing::List(mut list) => {
                list.collection_mut().expire(expiry);
                list.save(rows, at)
            }
            Growing::Set(mut set) => {
                set.collection_mut().expire(expiry);
                set.save(rows, at)
            }
            Growing::Hash(mut hash) => {
                hash.collection_mut().expire(expiry);
                hash.save(rows, at)
            }
        })
    }
}
