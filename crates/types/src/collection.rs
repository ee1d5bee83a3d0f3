//! What hashes, sets and lists have in common: a key's row that names an object and counts its elements, and rows under that object.
//!
//! A command opens a [`Collection`], changes rows under its object and its size, and then saves it: the key's row is written once.
//! Invariant: after a save the size in the key's row is the number of the object's element rows, and it is not zero.

use ardb_base::hash::member_hash;
use ardb_base::id::ObjectId;
use ardb_base::random::Random;
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Space, Value};
use std::ops::ControlFlow;

use crate::{At, Encoding, Header, KeyRow, Kind, TypeError, keyspace};

/// An open collection.
#[derive(Clone, Debug)]
pub struct Collection {
    old: Option<KeyRow>,
    kind: Kind,
    object: ObjectId,
    size: u64,
    fresh: bool,
}

impl Collection {
    /// The collection at a key, or `None` if there is none.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>, kind: Kind) -> Result<Option<Collection>, TypeError> {
        Ok(keyspace::lookup_kind(rows, at, kind)?.map(|row| Collection::of_row(row, kind)))
    }

    /// The collection whose key's row this is. The row must be of type `kind`.
    #[must_use]
    pub fn of_row(row: KeyRow, kind: Kind) -> Collection {
        Collection { object: row.object(), size: row.size(), old: Some(row), kind, fresh: false }
    }

    /// The collection at a key; an empty one, not yet in the keyspace, if there is none.
    pub fn open_or_create(
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        kind: Kind,
    ) -> Result<Collection, TypeError> {
        match keyspace::lookup_raw(rows, at)? {
            Some(row) if !keyspace::is_due(&row, at.now) => {
                if row.kind() == kind {
                    Ok(Collection::of_row(row, kind))
                } else {
                    Err(TypeError::WrongType)
                }
            }
            due_or_none => Ok(Collection::create(rows, due_or_none, kind)),
        }
    }

    /// An empty collection that will replace `old`, the key's row as it stands (with its expiry, which is not kept).
    pub fn create(rows: &mut (impl RowsMut + ?Sized), old: Option<KeyRow>, kind: Kind) -> Collection {
        Collection { old, kind, object: rows.new_object(), size: 0, fresh: true }
    }

    /// The object under which the elements' rows lie.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Whether it was made by this command.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What the type keeps in the key's row after the size.
    #[must_use]
    pub fn extra(&self) -> &[u8] {
        match &self.old {
            Some(row) if !self.fresh => row.extra(),
            _ => &[],
        }
    }

    /// Counts elements that were added or removed.
    pub fn grow(&mut self, by: i64) {
        self.size = self
            .size
            .checked_add_signed(by)
            .unwrap_or_else(|| unreachable!("invariant: no more elements are removed than there are"));
    }

    /// Writes the key's row, with `extra`; an empty collection's key is deleted instead. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, extra: &[u8]) -> bool {
        if self.size == 0 {
            if let Some(old) = &self.old {
                keyspace::delete(rows, at, old);
            }
            return false;
        }
        let expiry = if self.fresh { None } else { self.old.as_ref().and_then(KeyRow::expiry) };
        let header = Header { kind: self.kind, encoding: Encoding::Rows, expiry, object: self.object, size: self.size };
        keyspace::put(rows, at, self.old.as_ref(), &header, extra);
        true
    }
}

/// The name of a member's row.
#[must_use]
pub fn member_row(object: ObjectId, member: &[u8]) -> RowKey<'_> {
    RowKey::new(Space::Member, object.0, member_hash(member), member)
}

/// A place in the rows of a group, to go through them in pieces while other rows are written.
#[derive(Clone, Debug)]
pub struct Walk {
    space: Space,
    group: u64,
    next: Option<(u64, Vec<u8>)>,
    end: Option<u64>,
}

impl Walk {
    /// All rows of a group in order.
    #[must_use]
    pub fn group(space: Space, group: u64) -> Walk {
        Walk { space, group, next: Some((0, Vec::new())), end: None }
    }

    /// The rows with an order in `from..end`.
    #[must_use]
    pub fn orders(space: Space, group: u64, from: u64, end: u64) -> Walk {
        Walk { space, group, next: Some((from, Vec::new())), end: Some(end) }
    }

    /// Calls `visit` for at most `limit` further rows; whether there may be more.
    pub fn step(
        &mut self,
        rows: &(impl Rows + ?Sized),
        limit: usize,
        visit: &mut dyn FnMut(RowKey<'_>, &Value),
    ) -> Result<bool, EngineError> {
        let Some((order, tail)) = self.next.take() else { return Ok(false) };
        let range = RowRange {
            space: self.space,
            group: self.group,
            from: (order, &tail),
            to: self.end.map(|end| (end, &b""[..])),
        };
        let mut left = limit;
        let mut next = None;
        rows.scan(range, Direction::Forward, &mut |key, value| {
            if left == 0 {
                next = Some((key.order, key.tail.to_vec()));
                return ControlFlow::Break(());
            }
            left -= 1;
            visit(key, value);
            ControlFlow::Continue(())
        })?;
        self.next = next;
        Ok(self.next.is_some())
    }
}

/// Mean number of members in a window of the hash space from which one is drawn: between this and twice this.
const WINDOW: u64 = 4;
/// More members than this in a window are so rare (once in 10^8 windows) that the bias against them cannot be seen.
const WINDOW_MOST: u64 = 28;

/// Calls `visit` with the rows of one window of the hash space, drawn so that each member of the object is equally likely to be in it.
///
/// The hash space is cut into equal windows. One is drawn at random and accepted with a probability in proportion to the number of
/// its members; so a member drawn from an accepted window is drawn with the same probability as any other. `mean` is the wanted number of members
/// in a window, `most` the number at which acceptance is certain.
pub fn random_window(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    size: u64,
    (mean, most): (u64, u64),
    random: &mut Random,
    found: &mut Vec<(Vec<u8>, Value)>,
) -> Result<(), EngineError> {
    let bits = (size / mean.max(1)).checked_ilog2().unwrap_or(0);
    loop {
        found.clear();
        let (from, to) = if bits == 0 {
            (0, u64::MAX)
        } else {
            let width = 64 - bits;
            let from = random.below(1 << bits) << width;
            (from, from | ((1 << width) - 1))
        };
        rows.scan(RowRange::orders(Space::Member, object.0, from, to), Direction::Forward, &mut |key, value| {
            found.push((key.tail.to_vec(), value.clone()));
            ControlFlow::Continue(())
        })?;
        let count = found.len() as u64;
        if bits == 0 || (count > 0 && random.below(most.max(1)) < count) {
            return Ok(());
        }
    }
}

/// One member of the object, each with the same probability; `None` only if there is none. The cost does not depend on the size.
pub fn random_member(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    size: u64,
    random: &mut Random,
) -> Result<Option<(Vec<u8>, Value)>, EngineError> {
    let mut found = Vec::new();
    random_window(rows, object, size, (WINDOW, WINDOW_MOST), random, &mut found)?;
    if found.is_empty() {
        return Ok(None);
    }
    let index = random.below(found.len() as u64) as usize;
    Ok(Some(found.swap_remove(index)))
}

/// `count` different members, each choice equally likely, in random order; all of them if there are not more.
pub fn random_members(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    size: u64,
    count: u64,
    random: &mut Random,
) -> Result<Vec<(Vec<u8>, Value)>, EngineError> {
    let mut chosen: Vec<(Vec<u8>, Value)> = Vec::new();
    if count.saturating_mul(3) >= size || size <= 2 * WINDOW {
        // Reservoir sampling over all members (Knuth's algorithm R): memory is that of the reply.
        let mut seen = 0u64;
        rows.scan(RowRange::group(Space::Member, object.0), Direction::Forward, &mut |key, value| {
            seen += 1;
            if (chosen.len() as u64) < count {
                chosen.push((key.tail.to_vec(), value.clone()));
            } else {
                let place = random.below(seen);
                if place < count {
                    chosen[place as usize] = (key.tail.to_vec(), value.clone());
                }
            }
            ControlFlow::Continue(())
        })?;
        for last in (1..chosen.len()).rev() {
            chosen.swap(last, random.below(last as u64 + 1) as usize);
        }
        return Ok(chosen);
    }
    let mut seen = std::collections::HashSet::new();
    while (chosen.len() as u64) < count {
        let Some((member, value)) = random_member(rows, object, size, random)? else { break };
        if seen.insert(member.clone()) {
            chosen.push((member, value));
        }
    }
    Ok(chosen)
}

/// Calls `visit` with the members from the hash `cursor` on, at least `count` if there are so many (members of equal hash come together), and
/// returns the cursor of the rest, 0 at the end.
pub fn scan_members(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    cursor: u64,
    count: usize,
    visit: &mut dyn FnMut(&[u8], &Value),
) -> Result<u64, EngineError> {
    let mut seen = 0usize;
    let mut last = None;
    let mut next = 0;
    let range = RowRange { space: Space::Member, group: object.0, from: (cursor, b""), to: None };
    rows.scan(range, Direction::Forward, &mut |key, value| {
        if seen >= count && last != Some(key.order) {
            next = key.order;
            return ControlFlow::Break(());
        }
        seen += 1;
        last = Some(key.order);
        visit(key.tail, value);
        ControlFlow::Continue(())
    })?;
    Ok(next)
}
