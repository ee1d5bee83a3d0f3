//! What hashes, sets and lists have in common: a key's row that holds all elements, or names an object and counts its elements, which are rows then.
//!
//! A command opens a [`Collection`], changes elements and size, and then saves it: the key's row is written once, and only if it changed. A packed
//! collection draws no object; it goes over to rows when a change takes it past its limits.
//! Invariant: after a save the size in the key's row is the number of elements, and it is not zero.

use ardb_base::hash::member_hash;
use ardb_base::id::{ObjectId, UnixMs};
use ardb_base::random::Random;
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Space, Value};
use std::ops::{ControlFlow, Deref, Range};

use crate::limits::{Limit, Limits};
use crate::packed::{self, Entries, Form};
use crate::{At, Encoding, Header, KeyRow, Kind, TypeError, keyspace};

/// An element's or value's bytes: where they lie in a packed collection, or a row's value.
#[derive(Clone, Debug)]
pub enum Bytes<'a> {
    /// A part of the key's row.
    Packed(&'a [u8]),
    /// A row of their own.
    Row(Value),
    /// A part of a row.
    Part(Value, Range<usize>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Packed(bytes) => bytes,
            Bytes::Row(value) => value,
            Bytes::Part(value, range) => value.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// How an open collection's elements can be reached.
pub(crate) enum Held<'a> {
    /// All are here.
    Packed(Entries<'a>),
    /// They are rows under this object.
    Rows(ObjectId),
}

/// A member with what belongs to it (a field's value).
pub type Member = (Vec<u8>, Value);

/// What is called for each member with what belongs to it.
pub(crate) type VisitMember<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// An open collection.
#[derive(Clone, Debug)]
pub struct Collection {
    old: Option<KeyRow>,
    kind: Kind,
    form: Form,
    size: u64,
    fresh: bool,
    expiry: Option<UnixMs>,
    limits: Limits,
}

impl Collection {
    /// The collection at a key, or `None` if there is none.
    pub fn open(rows: &(impl Rows + ?Sized), at: &At<'_>, kind: Kind) -> Result<Option<Collection>, TypeError> {
        Ok(keyspace::lookup_kind(rows, at, kind)?.map(|row| Collection::of_row(row, at.limits)))
    }

    /// The collection at a key; an empty one, not yet in the keyspace, if there is none.
    pub fn open_or_create(rows: &(impl Rows + ?Sized), at: &At<'_>, kind: Kind) -> Result<Collection, TypeError> {
        match keyspace::lookup_raw(rows, at)? {
            Some(row) if !keyspace::is_due(&row, at.now) => {
                if row.kind() == kind {
                    Ok(Collection::of_row(row, at.limits))
                } else {
                    Err(TypeError::WrongType)
                }
            }
            due_or_none => Ok(Collection::create(due_or_none, kind, at.limits)),
        }
    }

    pub(crate) fn of_row(row: KeyRow, limits: Limits) -> Collection {
        let form = if row.encoding() == Encoding::Rows { Form::Rows(row.object()) } else { Form::Row };
        Collection {
            kind: row.kind(),
            form,
            size: row.size(),
            fresh: false,
            expiry: row.expiry(),
            limits,
            old: Some(row),
        }
    }

    /// An empty collection that will replace `old`, the key's row as it stands (with its expiry, which is not kept).
    #[must_use]
    pub fn create(old: Option<KeyRow>, kind: Kind, limits: Limits) -> Collection {
        Collection { old, kind, form: Form::Own(Vec::new()), size: 0, fresh: true, expiry: None, limits }
    }

    /// Gives it an expiry, which a save of a new collection writes.
    pub(crate) fn expire(&mut self, expiry: Option<UnixMs>) {
        self.expiry = expiry;
    }

    /// The key's row as it was found.
    #[must_use]
    pub fn row(&self) -> Option<&KeyRow> {
        self.old.as_ref()
    }

    /// The object under which the elements' rows lie, if they are rows.
    #[must_use]
    pub fn object(&self) -> Option<ObjectId> {
        if let Form::Rows(object) = self.form { Some(object) } else { None }
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

    /// The limits of keys of this type, and of all others.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the type keeps in the key's row after the size; nothing, if the key's row does not name this object.
    #[must_use]
    pub fn extra(&self) -> &[u8] {
        match (&self.old, self.object()) {
            (Some(row), Some(object)) if row.object() == object => row.extra(),
            _ => &[],
        }
    }

    /// Counts elements that were added or removed.
    pub(crate) fn grow(&mut self, by: i64) -> Result<(), TypeError> {
        let size = self.size.checked_add_signed(by);
        self.size = size.ok_or_else(|| TypeError::Corrupt("a collection has more elements than it counts".into()))?;
        Ok(())
    }

    /// How the elements can be reached.
    pub(crate) fn held(&self) -> Held<'_> {
        let bytes = match &self.form {
            Form::Row => self.old.as_ref().map_or(&b""[..], KeyRow::rest),
            Form::Own(bytes) => bytes,
            Form::Rows(object) => return Held::Rows(*object),
        };
        Held::Packed(Entries::new(bytes, self.kind == Kind::Hash))
    }

    /// Where a packed collection's bytes end.
    pub(crate) fn packed_end(&self) -> usize {
        if let Held::Packed(entries) = self.held() { entries.bytes().len() } else { 0 }
    }

    /// Whether a packed collection stays within `limit` with `strings`, of which `more` are new elements, in the place of `gone` bytes.
    pub(crate) fn fits(&self, limit: Limit, more: u64, gone: usize, strings: &[&[u8]]) -> bool {
        let bytes: usize = strings.iter().map(|string| packed::string_len(string)).sum();
        let longest = strings.iter().map(|string| string.len()).max().unwrap_or(0);
        limit.holds(self.size + more, longest, self.packed_end() - gone + bytes)
    }

    /// Puts `strings` in the place of a part of a packed collection, which has `more` elements then.
    pub(crate) fn replace(&mut self, range: Range<usize>, strings: &[&[u8]], more: i64) -> Result<(), TypeError> {
        self.grow(more)?;
        if let (Form::Row, Held::Packed(entries)) = (&self.form, self.held()) {
            // Room for a short element more.
            let mut own = Vec::with_capacity(entries.bytes().len() + 64);
            own.extend_from_slice(entries.bytes());
            self.form = Form::Own(own);
        }
        if let Form::Own(bytes) = &mut self.form {
            packed::replace(bytes, range, b"", strings);
        }
        Ok(())
    }

    /// The object under which the members' rows lie; a packed hash or set goes into rows first.
    pub(crate) fn go_to_rows(&mut self, rows: &mut (impl RowsMut + ?Sized)) -> Result<ObjectId, TypeError> {
        let all = match self.held() {
            Held::Packed(entries) => entries.all(self.size)?,
            Held::Rows(object) => return Ok(object),
        };
        let object = rows.new_object();
        for entry in all {
            rows.put(member_row(object, entry.name), entry.value);
        }
        self.form = Form::Rows(object);
        Ok(object)
    }

    /// Gives a packed list an object, under which the caller is to put its elements: the object, and what was packed.
    pub(crate) fn leave_row(&mut self, rows: &mut (impl RowsMut + ?Sized)) -> (ObjectId, Vec<u8>) {
        let packed = match self.held() {
            Held::Packed(entries) => entries.bytes().to_vec(),
            Held::Rows(_) => Vec::new(),
        };
        let object = rows.new_object();
        self.form = Form::Rows(object);
        (object, packed)
    }

    /// Leaves rows to the janitor that no key's row names, nor will.
    fn discard_own(&self, rows: &mut (impl RowsMut + ?Sized)) {
        if let Some(object) = self.object()
            && self.old.as_ref().is_none_or(|old| old.object() != object)
        {
            rows.discard(object);
        }
    }

    /// Takes out all elements, in O(1): rows are left to the janitor, those of the object that the key's row names with the next save.
    pub(crate) fn clear(&mut self, rows: &mut (impl RowsMut + ?Sized)) {
        self.discard_own(rows);
        self.form = Form::Own(Vec::new());
        self.size = 0;
    }

    /// Visits the members with what belongs to them until it breaks: of a packed collection in its order, else in that of their hashes. Not for lists.
    pub(crate) fn each(&self, rows: &(impl Rows + ?Sized), visit: &mut VisitMember<'_>) -> Result<(), TypeError> {
        match self.held() {
            Held::Packed(entries) => each_entry(entries, self.size, &mut |entry| visit(entry.name, entry.value)),
            Held::Rows(object) => {
                let range = RowRange::group(Space::Member, object.0);
                Ok(rows.scan(range, Direction::Forward, &mut |key, value| visit(key.tail, value))?)
            }
        }
    }

    /// One member, each with the same probability; `None` only if there is none. The cost does not depend on the size.
    pub fn random(&self, rows: &(impl Rows + ?Sized), random: &mut Random) -> Result<Option<Member>, TypeError> {
        match self.held() {
            Held::Rows(object) => random_member(rows, object, self.size, random),
            Held::Packed(_) if self.size == 0 => Ok(None),
            Held::Packed(mut entries) => {
                let entry = entries.nth(random.below(self.size))?;
                Ok(Some((entry.name.to_vec(), Value::new(entry.value))))
            }
        }
    }

    /// `count` different members, each choice equally likely, in random order; all of them if there are not more.
    pub fn random_distinct(
        &self,
        rows: &(impl Rows + ?Sized),
        count: u64,
        random: &mut Random,
    ) -> Result<Vec<Member>, TypeError> {
        let mut all = match self.held() {
            Held::Packed(entries) => entries.all(self.size)?,
            Held::Rows(object) => return random_members(rows, object, self.size, count, random),
        };
        let wanted = usize::try_from(count).map_or(all.len(), |count| count.min(all.len()));
        for place in 0..wanted {
            let left = (all.len() - place) as u64;
            all.swap(place, place + random.below(left) as usize);
        }
        Ok(all[..wanted].iter().map(|entry| (entry.name.to_vec(), Value::new(entry.value))).collect())
    }

    /// Calls `visit` with the members from `cursor` on, at least `count` if there are so many, and returns the cursor of the rest, 0 at the end. A packed
    /// collection gives all members whatever the cursor: one that came from rows has left some out, and nobody knows which.
    pub fn scan(
        &self,
        rows: &(impl Rows + ?Sized),
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64, TypeError> {
        let entries = match self.held() {
            Held::Packed(entries) => entries,
            Held::Rows(object) => return Ok(scan_members(rows, object, cursor, count, visit)?),
        };
        each_entry(entries, self.size, &mut |entry| {
            visit(entry.name, entry.value);
            ControlFlow::Continue(())
        })?;
        Ok(0)
    }

    /// Writes the key's row, with `extra`, in parts, if the elements are rows; an empty collection's key is deleted instead. Whether the key is there now.
    pub fn save(self, rows: &mut (impl RowsMut + ?Sized), at: &At<'_>, extra: &[&[u8]]) -> bool {
        let old = self.old.as_ref();
        if self.size == 0 {
            if let Some(old) = old {
                keyspace::delete(rows, at, old);
            }
            self.discard_own(rows);
            return false;
        }
        let packed: &[u8];
        let (encoding, object, rest) = match &self.form {
            Form::Row => return true,
            Form::Own(bytes) => {
                packed = bytes;
                (Encoding::Packed, ObjectId(0), std::slice::from_ref(&packed))
            }
            Form::Rows(object) => (Encoding::Rows, *object, extra),
        };
        let header = Header { kind: self.kind, encoding, expiry: self.expiry, object, size: self.size };
        // Elements in rows may change without a word of it in the key's row.
        let same = old.is_some_and(|old| encoding == Encoding::Rows && old.header() == header && is(old.rest(), rest));
        if !same {
            keyspace::put_parts(rows, at, old, &header, rest);
        }
        true
    }
}

/// Whether `bytes` are these parts, one after the other.
fn is(bytes: &[u8], parts: &[&[u8]]) -> bool {
    let mut left = Some(bytes);
    for part in parts {
        left = left.and_then(|left| left.strip_prefix(*part));
    }
    left.is_some_and(<[u8]>::is_empty)
}

/// Visits packed entries, of which there must be `count`, until it breaks.
pub(crate) fn each_entry<'a>(
    mut entries: Entries<'a>,
    count: u64,
    visit: &mut dyn FnMut(packed::Entry<'a>) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    let mut seen = 0;
    while let Some(entry) = entries.next()? {
        seen += 1;
        if visit(entry).is_break() {
            return Ok(());
        }
    }
    if seen == count { Ok(()) } else { Err(packed::corrupt()) }
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

/// Adds the members of an object whose hashes lie between these two, inclusive, to `found`.
pub fn members_between(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    from: u64,
    to: u64,
    found: &mut Vec<(Vec<u8>, Value)>,
) -> Result<(), TypeError> {
    rows.scan(RowRange::orders(Space::Member, object.0, from, to), Direction::Forward, &mut |key, value| {
        found.push((key.tail.to_vec(), value.clone()));
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Mean number of members in a window of the hash space from which one is drawn: between this and twice this.
const WINDOW: u64 = 4;
/// More members than this in a window are so rare (once in 10^8 windows) that the bias against them cannot be seen.
const WINDOW_MOST: u64 = 28;
/// Windows that are drawn before the size is held to be wrong. One in seven is accepted at least, so as many are never needed.
const WINDOW_TRIES: u32 = 1000;

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
) -> Result<(), TypeError> {
    let bits = (size / mean.max(1)).checked_ilog2().unwrap_or(0);
    for _ in 0..WINDOW_TRIES {
        found.clear();
        let (from, to) = if bits == 0 {
            (0, u64::MAX)
        } else {
            let width = 64 - bits;
            let from = random.below(1 << bits) << width;
            (from, from | ((1 << width) - 1))
        };
        members_between(rows, object, from, to, found)?;
        let count = found.len() as u64;
        if bits == 0 || (count > 0 && random.below(most.max(1)) < count) {
            return Ok(());
        }
    }
    Err(TypeError::Corrupt("a collection has far fewer members than it counts".into()))
}

/// One member of the object, each with the same probability; `None` only if there is none. The cost does not depend on the size.
pub fn random_member(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    size: u64,
    random: &mut Random,
) -> Result<Option<(Vec<u8>, Value)>, TypeError> {
    let mut found = Vec::new();
    random_window(rows, object, size, (WINDOW, WINDOW_MOST), random, &mut found)?;
    if found.is_empty() {
        return Ok(None);
    }
    let index = random.below(found.len() as u64) as usize;
    Ok(Some(found.swap_remove(index)))
}

/// `count` different members, each choice equally likely, in random order; all of them if there are not more.
fn random_members(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    size: u64,
    count: u64,
    random: &mut Random,
) -> Result<Vec<(Vec<u8>, Value)>, TypeError> {
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
pub(crate) fn scan_members(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    cursor: u64,
    count: usize,
    visit: &mut dyn FnMut(&[u8], &[u8]),
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
