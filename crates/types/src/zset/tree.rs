//! The tree: where a position or rank lies, and how leaves and the nodes above them change.
//!
//! Leaves hold the members ([`super::leaf`]), inner nodes lead to them and count them ([`super::node`]). The root, an inner node, stands in the key's
//! row; all others are rows, found by number with point reads, which the store's caches serve. Nothing here scans.
//!
//! A set that serves as a queue loses one first member after the other (or last one). The key's row then counts them (`front`, `back`) and the leaf at that
//! end goes on holding them, until it is written for another reason or none of its members is left. So what the nodes count is the members, `front` and `back`.
//!
//! Invariants: the count of an entry is the number of entries in the leaves below it; no leaf and no node is empty; `front` is zero unless the first leaf is
//! known by number, and `back` unless the last one is; whenever such a leaf is written, what was taken out of it goes.

use std::cell::RefCell;
use std::ops::Range;

use ardb_base::id::ObjectId;
use ardb_engine::{RowKey, Rows, RowsMut, Space, Value};

use super::ZSet;
use super::leaf::{self, LeafRef, Part, separator};
use super::node::{MOST, NodeBuf, NodeRef, Position};
use crate::TypeError;

/// Sizes in production, and those of this crate's tests, which want high trees of few members.
const fn sized(real: usize, test: usize) -> usize {
    if cfg!(test) { test } else { real }
}

/// Entries of a leaf before it is split,
pub const LEAF_MAX: usize = sized(128, 8);
/// and bytes, unless it has one entry.
pub const LEAF_BYTES: usize = sized(3072, 400);
/// A leaf with fewer entries is joined with a neighbour,
const LEAF_LEAST: usize = sized(32, 3);
/// if together they have at most as many
const LEAF_JOINED: usize = sized(80, 5);
/// and take at most as many bytes.
const LEAF_JOINED_BYTES: usize = LEAF_BYTES / 2;
/// Entries of a node before it is split,
pub const NODE_MAX: usize = sized(192, 12);
/// and bytes of its separators, unless it has [`NODE_FEW`] entries or fewer.
pub const NODE_TAILS: usize = sized(2048, 300);
/// Entries that a node may have whatever their separators are.
pub const NODE_FEW: usize = 4;
/// A node with fewer entries is joined with a neighbour,
const NODE_LEAST: usize = sized(32, 3);
/// if together they have at most as many.
const NODE_JOINED: usize = sized(128, 8);
/// Entries of the root before they move into a node below. It is written with every change of the cardinality.
pub const ROOT_MAX: usize = sized(64, 6);
/// As [`NODE_TAILS`], of the root.
pub const ROOT_TAILS: usize = NODE_TAILS / 4;
/// No tree is as high: each height has twice the members at least.
const HEIGHT_MAX: u8 = 64;

pub fn corrupt(what: &str) -> TypeError {
    TypeError::Corrupt(format!("sorted set: {what}"))
}

pub fn node_row(object: ObjectId, number: u64) -> RowKey<'static> {
    RowKey::new(Space::Rank1, object.0, number, b"")
}

pub fn read_node(rows: &(impl Rows + ?Sized), object: ObjectId, number: u64) -> Result<Value, TypeError> {
    rows.get(node_row(object, number))?.ok_or_else(|| corrupt("a node is missing"))
}

thread_local! {
    /// Buffers in which leaves and nodes are put together. Nearly every change of a set needs one or two.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps, and the size of the largest.
const BUFFERS_MAX: usize = 4;
const BUFFER_MAX: usize = 64 << 10;

/// An empty buffer.
pub fn buffer() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub fn keep(mut buf: Vec<u8>) {
    if buf.capacity() <= BUFFER_MAX {
        buf.clear();
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < BUFFERS_MAX {
                buffers.push(buf);
            }
        });
    }
}

/// A node below the root on the way to a leaf.
#[derive(Debug)]
struct Step {
    number: u64,
    node: Value,
    at: usize,
}

/// The nodes on the way to a leaf.
#[derive(Debug)]
pub struct Way {
    root_at: usize,
    /// From the root down.
    steps: Vec<Step>,
    /// The leaf's number.
    pub number: u64,
    /// How many places the nodes count before the leaf, if that was asked for.
    before: u64,
    /// It is the first leaf of all.
    first: bool,
    /// It is the last leaf of all.
    last: bool,
}

/// A leaf, and the way to it.
#[derive(Debug)]
pub struct Path {
    /// The way. A change of the leaf uses it up.
    pub way: Way,
    /// The leaf.
    pub leaf: Value,
    /// How many places the nodes count before the leaf, if that was asked for.
    pub before: u64,
}

/// An entry of a node to be: a separator with what lies after it.
#[derive(Debug)]
pub struct Entry {
    /// The order of the separator.
    pub order: u64,
    /// Its tail.
    pub tail: Vec<u8>,
    /// How many places the child has.
    pub count: u64,
    /// The child.
    pub number: u64,
}

/// What became of a child.
enum Change {
    /// It was written; so many places more.
    Count(i64),
    /// It was written in pieces: places of the first, and the others.
    Split(u64, Vec<Entry>),
    /// It is gone.
    Gone,
    /// It is small, and not written yet; so many places more.
    Small(Vec<u8>, i64),
}

/// Where a leaf has grown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grown {
    Within,
    /// Before all members of the set.
    AtStart,
    /// After all members of the set.
    AtEnd,
}

/// Whether a leaf of this range must be cut.
pub fn is_large(leaf: &LeafRef<'_>, range: &Range<usize>) -> bool {
    range.len() > LEAF_MAX || (range.len() > 1 && leaf.weight(range) > LEAF_BYTES)
}

fn node_is_large(node: &NodeRef<'_>, max: usize, tails: usize) -> bool {
    node.len() > max || (node.len() > NODE_FEW && node.tail_bytes() > tails)
}

/// Cuts a range of a leaf in halves until no piece is too large.
fn cut(leaf: &LeafRef<'_>, range: Range<usize>, pieces: &mut Vec<Range<usize>>) {
    if is_large(leaf, &range) {
        let half = leaf.half(&range);
        cut(leaf, range.start..half, pieces);
        cut(leaf, half..range.end, pieces);
    } else {
        pieces.push(range);
    }
}

/// Cuts a range of a node in halves until no piece is too large. It is so large that it has two entries.
fn cut_node(node: &NodeRef<'_>, range: Range<usize>, pieces: &mut Vec<Range<usize>>) {
    let half = (range.start + range.end) / 2;
    for piece in [range.start..half, half..range.end] {
        let tails: usize = piece.clone().map(|i| node.position(i).1.len()).sum();
        if piece.len() > NODE_MAX || (piece.len() > NODE_FEW && tails > NODE_TAILS) {
            cut_node(node, piece, pieces);
        } else {
            pieces.push(piece);
        }
    }
}

fn load(node: &[u8]) -> Result<NodeBuf, TypeError> {
    NodeRef::parse(node)?;
    let mut buf = NodeBuf { bytes: buffer(), base: 0 };
    buf.load(node);
    Ok(buf)
}

/// A count that has become greater, or less.
fn counted(count: u64, more: i64) -> Result<u64, TypeError> {
    count.checked_add_signed(more).ok_or_else(|| corrupt("a count is too small"))
}

/// The node may be changed in more than its counts.
fn sound(node: &NodeBuf) -> Result<(), TypeError> {
    if node.view().is_sound() { Ok(()) } else { Err(corrupt("damaged node")) }
}

impl Path {
    /// Goes on to the next leaf, or back to the one before; whether there is one.
    pub fn advance(&mut self, set: &ZSet, rows: &(impl Rows + ?Sized), back: bool) -> Result<bool, TypeError> {
        let next = |at: usize, len: usize| if back { at.checked_sub(1) } else { Some(at + 1).filter(|at| *at < len) };
        // The lowest node that has one more.
        let mut keep = self.way.steps.len();
        let mut child = None;
        while keep > 0 {
            let step = &mut self.way.steps[keep - 1];
            let node = NodeRef::parse(&step.node)?;
            if let Some(at) = next(step.at, node.len()) {
                step.at = at;
                child = Some(node.child(at));
                break;
            }
            keep -= 1;
        }
        if child.is_none() {
            let root = set.root()?;
            let Some(at) = next(self.way.root_at, root.len()) else { return Ok(false) };
            self.way.root_at = at;
            child = Some(root.child(at));
        }
        let Some(mut number) = child else { return Ok(false) };
        let height = self.way.steps.len();
        self.way.steps.truncate(keep);
        while self.way.steps.len() < height {
            let value = read_node(rows, set.object(), number)?;
            let node = NodeRef::parse(&value)?;
            let at = if back { node.len().saturating_sub(1) } else { 0 };
            let child = if node.is_empty() { return Err(corrupt("an empty node")) } else { node.child(at) };
            self.way.steps.push(Step { number, node: value, at });
            number = child;
        }
        self.leaf = read_node(rows, set.object(), number)?;
        self.way.number = number;
        Ok(true)
    }
}

impl ZSet {
    /// Goes down to the leaf that `choose` leads to; it is told how many places the nodes count before the one at hand, which has entries, if they are `counted`.
    fn descend(
        &self,
        rows: &(impl Rows + ?Sized),
        counted: bool,
        choose: impl Fn(&NodeRef<'_>, u64) -> Option<usize>,
    ) -> Result<Way, TypeError> {
        let (mut first, mut last, mut before) = (true, true, 0);
        let mut pass = |node: &NodeRef<'_>| {
            if node.is_empty() {
                return Err(corrupt("an empty node"));
            }
            let at = choose(node, before).ok_or_else(|| corrupt("counts do not add up"))?;
            first &= at == 0;
            last &= at + 1 == node.len();
            if counted {
                before += node.before(at);
            }
            Ok((at, node.child(at)))
        };
        let (root_at, mut number) = if counted { pass(&self.counted_root()?.view())? } else { pass(&self.root()?)? };
        let height = self.state.height;
        if height > HEIGHT_MAX {
            return Err(corrupt("the tree is too high"));
        }
        let mut steps = Vec::with_capacity(usize::from(height));
        for _ in 0..height {
            let node = read_node(rows, self.object(), number)?;
            let (at, child) = pass(&NodeRef::parse(&node)?)?;
            steps.push(Step { number, node, at });
            number = child;
        }
        Ok(Way { root_at, steps, number, before, first, last })
    }

    /// Reads the leaf at the end of a way.
    fn at_end_of(&self, rows: &(impl Rows + ?Sized), way: Way) -> Result<Path, TypeError> {
        let leaf = read_node(rows, self.object(), way.number)?;
        Ok(Path { before: way.before, leaf, way })
    }

    /// The nodes on the way to the leaf that covers `position`. The processor is asked for the leaf, which its caller is going to read.
    pub(super) fn way_to(&self, rows: &(impl Rows + ?Sized), position: Position<'_>) -> Result<Way, TypeError> {
        let way = self.descend(rows, false, |node, _| Some(node.find(position)))?;
        rows.prefetch(node_row(self.object(), way.number));
        Ok(way)
    }

    /// The way to the leaf that covers `position`.
    pub(super) fn path_to(&self, rows: &(impl Rows + ?Sized), position: Position<'_>) -> Result<Path, TypeError> {
        let way = self.descend(rows, false, |node, _| Some(node.find(position)))?;
        self.at_end_of(rows, way)
    }

    /// The same, with the number of places before the leaf.
    pub(super) fn counted_path_to(
        &self,
        rows: &(impl Rows + ?Sized),
        position: Position<'_>,
    ) -> Result<Path, TypeError> {
        let way = self.descend(rows, true, |node, _| Some(node.find(position)))?;
        self.at_end_of(rows, way)
    }

    /// The way to the leaf that holds the place `index`, counted with those that the first leaf has lost.
    pub(super) fn path_to_index(&self, rows: &(impl Rows + ?Sized), index: u64) -> Result<Path, TypeError> {
        let way = self.descend(rows, true, |node, before| Some(node.find_index(index.checked_sub(before)?)?.0))?;
        self.at_end_of(rows, way)
    }

    /// The way to the first leaf, or to the last one.
    pub(super) fn path_to_end(&self, rows: &(impl Rows + ?Sized), last: bool) -> Result<Path, TypeError> {
        let way = self.descend(rows, false, |node, _| if last { node.len().checked_sub(1) } else { Some(0) })?;
        self.at_end_of(rows, way)
    }

    /// The places of a leaf whose members are still there.
    pub(super) fn live(&self, number: u64, leaf: &LeafRef<'_>) -> Result<Range<usize>, TypeError> {
        let state = &self.state;
        let start = if number == state.first { usize::from(state.front) } else { 0 };
        let gone = if number == state.last { usize::from(state.back) } else { 0 };
        match leaf.len().checked_sub(gone) {
            Some(end) if start < end => Ok(start..end),
            _ => Err(corrupt("a leaf has lost more than it had")),
        }
    }

    fn new_number(&mut self) -> Result<u64, TypeError> {
        let number = self.state.next;
        if number == 0 || number >= MOST {
            return Err(corrupt("no numbers are left for nodes"));
        }
        self.state.next = number + 1;
        Ok(number)
    }

    /// The way to where a member belongs; none in a tree without members.
    pub(super) fn way_for(
        &self,
        rows: &(impl Rows + ?Sized),
        position: Position<'_>,
    ) -> Result<Option<Way>, TypeError> {
        if self.root()?.is_empty() { Ok(None) } else { self.way_to(rows, position).map(Some) }
    }

    /// Puts the member at its place in the tree, to which [`ZSet::way_for`] leads.
    pub(super) fn tree_add<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        way: Option<Way>,
        raw: u64,
        position: Position<'_>,
    ) -> Result<(), TypeError> {
        let Some(way) = way else {
            let number = self.new_number()?;
            let mut buf = buffer();
            leaf::build(&mut buf, &[Part::New(raw, position.1)])?;
            rows.put(node_row(self.object(), number), &buf);
            keep(buf);
            self.root_mut()?.push((0, b""), 1, number);
            (self.state.first, self.state.last) = (number, number);
            return Ok(());
        };
        let mut path = self.at_end_of(rows, way)?;
        let leaf = LeafRef::parse(&path.leaf)?;
        let live = self.live(path.way.number, &leaf)?;
        // What the leaf has lost may lie on either side of it.
        let at = leaf.before(position).clamp(live.start, live.end);
        if at < live.end && leaf.is_at(at, position) {
            return Err(corrupt("a member is in the tree already"));
        }
        let grown = match at {
            at if path.way.last && at == live.end => Grown::AtEnd,
            at if path.way.first && at == live.start => Grown::AtStart,
            _ => Grown::Within,
        };
        let parts = [Part::Old(leaf, live.start..at), Part::New(raw, position.1), Part::Old(leaf, at..live.end)];
        self.change(rows, &mut path.way, leaf.len(), &parts, grown)
    }

    /// The place of a member in the leaf that must hold it.
    fn place(
        &self,
        number: u64,
        leaf: &LeafRef<'_>,
        position: Position<'_>,
    ) -> Result<(usize, Range<usize>), TypeError> {
        let live = self.live(number, leaf)?;
        let at = leaf.before(position);
        if live.contains(&at) && leaf.is_at(at, position) {
            Ok((at, live))
        } else {
            Err(corrupt("a member is not in the tree"))
        }
    }

    /// Takes the member at `position` out of the tree.
    pub(super) fn tree_take<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        position: Position<'_>,
    ) -> Result<(), TypeError> {
        let mut path = self.path_to(rows, position)?;
        let leaf = LeafRef::parse(&path.leaf)?;
        let (at, _) = self.place(path.way.number, &leaf, position)?;
        self.take_places(rows, &mut path, at..at + 1)
    }

    /// Takes the members in these places, which are live ones, out of a leaf.
    pub(super) fn take_places<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        path: &mut Path,
        gone: Range<usize>,
    ) -> Result<(), TypeError> {
        let leaf = LeafRef::parse(&path.leaf)?;
        let live = self.live(path.way.number, &leaf)?;
        let parts = [Part::Old(leaf, live.start..gone.start), Part::Old(leaf, gone.end..live.end)];
        self.change(rows, &mut path.way, leaf.len(), &parts, Grown::Within)
    }

    /// Takes out a leaf of which no member is left; others are.
    pub(super) fn drop_leaf<R: RowsMut + ?Sized>(&mut self, rows: &mut R, path: &mut Path) -> Result<(), TypeError> {
        let before = LeafRef::parse(&path.leaf)?.len();
        self.change(rows, &mut path.way, before, &[], Grown::Within)
    }

    /// Moves a member from one position, to which `way` leads, to another.
    pub(super) fn tree_move<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        way: Way,
        from: Position<'_>,
        raw: u64,
        to: Position<'_>,
    ) -> Result<(), TypeError> {
        let mut path = self.at_end_of(rows, way)?;
        let leaf = LeafRef::parse(&path.leaf)?;
        let (old, live) = self.place(path.way.number, &leaf, from)?;
        let at = leaf.before(to).clamp(live.start, live.end);
        // Between two members of the leaf, or beyond all members of the set.
        if (path.way.first || at > live.start) && (path.way.last || at < live.end) {
            let part = |range| Part::Old(leaf, range);
            let new = Part::New(raw, to.1);
            let parts = if at <= old {
                [part(live.start..at), new, part(at..old), part(old + 1..live.end)]
            } else {
                [part(live.start..old), part(old + 1..at), new, part(at..live.end)]
            };
            return self.change(rows, &mut path.way, leaf.len(), &parts, Grown::Within);
        }
        self.take_places(rows, &mut path, old..old + 1)?;
        drop(path);
        let way = self.way_for(rows, to)?;
        self.tree_add(rows, way, raw, to)
    }

    /// The leaf is written anew, or has gone: what it had lost counts no more.
    fn settle(&mut self, number: u64) {
        let state = &mut self.state;
        if number == state.first {
            state.front = 0;
        }
        if number == state.last {
            state.back = 0;
        }
    }

    /// A leaf is gone.
    fn forget(&mut self, number: u64) {
        self.settle(number);
        let state = &mut self.state;
        for end in [&mut state.first, &mut state.last] {
            if *end == number {
                *end = 0;
            }
        }
    }

    /// Makes `parts` the entries of the leaf at the end of `way`, which has `before` entries; the way leads nowhere any more then.
    fn change<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        way: &mut Way,
        before: usize,
        parts: &[Part<'_>],
        grown: Grown,
    ) -> Result<(), TypeError> {
        let mut buf = buffer();
        let n = leaf::build(&mut buf, parts)?;
        let row = node_row(self.object(), way.number);
        let change = if n == 0 {
            self.forget(way.number);
            rows.delete(row);
            Change::Gone
        } else {
            self.settle(way.number);
            let leaf = LeafRef::parse(&buf)?;
            let more = n as i64 - before as i64;
            if is_large(&leaf, &(0..n)) {
                self.split_leaf(rows, way.number, &leaf, grown)?
            } else if n < before && n < LEAF_LEAST && buf.len() < LEAF_JOINED_BYTES {
                Change::Small(std::mem::take(&mut buf), more)
            } else {
                rows.put(row, &buf);
                Change::Count(more)
            }
        };
        keep(buf);
        if matches!(change, Change::Count(0)) { Ok(()) } else { self.propagate(rows, way, change, grown) }
    }

    fn split_leaf<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        number: u64,
        leaf: &LeafRef<'_>,
        grown: Grown,
    ) -> Result<Change, TypeError> {
        let n = leaf.len();
        let mut pieces = Vec::new();
        // A set that grows at one end has full leaves.
        match grown {
            Grown::AtEnd => pieces.extend([0..n - 1, n - 1..n]),
            Grown::AtStart => pieces.extend([0..1, 1..n]),
            Grown::Within => cut(leaf, 0..n, &mut pieces),
        }
        let mut buf = buffer();
        let mut left = 0;
        let mut others = Vec::with_capacity(pieces.len());
        let mut newest = number;
        for piece in pieces {
            leaf::rebuild(&mut buf, &[Part::Old(*leaf, piece.clone())])?;
            if piece.start == 0 {
                left = piece.len() as u64;
                rows.put(node_row(self.object(), number), &buf);
            } else {
                newest = self.new_number()?;
                rows.put(node_row(self.object(), newest), &buf);
                let (order, tail) = separator(leaf, piece.start - 1, leaf, piece.start);
                others.push(Entry { order, tail, count: piece.len() as u64, number: newest });
            }
        }
        keep(buf);
        if self.state.last == number {
            self.state.last = newest;
        }
        Ok(Change::Split(left, others))
    }

    /// Tells the nodes above a leaf, from the lowest to the root, what became of it.
    fn propagate<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        way: &mut Way,
        mut change: Change,
        grown: Grown,
    ) -> Result<(), TypeError> {
        let mut child = way.number;
        let height = way.steps.len();
        for (depth, step) in way.steps.iter_mut().enumerate().rev() {
            let row = node_row(self.object(), step.number);
            if let Change::Count(more) = change {
                // As a rule a node gets another number in one place, and is not put together anew for that.
                let view = NodeRef::parse(&step.node)?;
                if let Some(patch) = view.count_patch(step.at, counted(view.count(step.at), more)?) {
                    let old = std::mem::replace(&mut step.node, Value::new(b""));
                    rows.patch(row, old, &[(patch.at, patch.bytes())]);
                    child = step.number;
                    continue;
                }
            }
            let mut node = load(&step.node)?;
            let entries = node.view().len();
            let is_lowest = depth + 1 == height;
            let more = self.apply(rows, &mut node, step.at, (child, is_lowest), change)?;
            child = step.number;
            let view = node.view();
            let left = view.len();
            change = if left == 0 {
                rows.delete(row);
                Change::Gone
            } else if node_is_large(&view, NODE_MAX, NODE_TAILS) {
                self.split_node(rows, child, &node, grown)?
            } else if left < entries && left < NODE_LEAST {
                Change::Small(std::mem::take(&mut node.bytes), more)
            } else {
                rows.put(row, node.node());
                Change::Count(more)
            };
            keep(node.bytes);
        }
        if let Change::Count(more) = change {
            // A root of one entry may take in what lies below it.
            let count = counted(self.root_count(way.root_at)?, more)?;
            if (self.root()?.len() > 1 || height == 0) && self.note_root_count(way.root_at, count)? {
                return Ok(());
            }
        }
        self.root_mut()?;
        let Some(mut root) = self.root.take() else { return Ok(()) };
        let result = self.apply(rows, &mut root, way.root_at, (child, height == 0), change);
        let result = result.and_then(|_| self.fit_root(rows, &mut root));
        self.root = Some(root);
        result
    }

    /// Writes a node in pieces, the first under its own number.
    fn split_node<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        number: u64,
        node: &NodeBuf,
        grown: Grown,
    ) -> Result<Change, TypeError> {
        sound(node)?;
        let view = node.view();
        let n = view.len();
        let mut pieces = Vec::new();
        match grown {
            Grown::AtEnd => pieces.extend([0..n - 1, n - 1..n]),
            Grown::AtStart => pieces.extend([0..1, 1..n]),
            Grown::Within => cut_node(&view, 0..n, &mut pieces),
        }
        let mut piece_buf = NodeBuf { bytes: buffer(), base: 0 };
        let (mut left, mut others) = (0, Vec::with_capacity(pieces.len()));
        for piece in pieces {
            piece_buf.clear();
            piece_buf.append(&view, piece.clone(), (0, b""));
            let count = piece_buf.view().total();
            if piece.start == 0 {
                left = count;
                rows.put(node_row(self.object(), number), piece_buf.node());
            } else {
                let number = self.new_number()?;
                rows.put(node_row(self.object(), number), piece_buf.node());
                let (order, tail) = view.position(piece.start);
                others.push(Entry { order, tail: tail.to_vec(), count, number });
            }
        }
        keep(piece_buf.bytes);
        Ok(Change::Split(left, others))
    }

    /// Enters into `node` what became of the child (its number, and whether it is a leaf) of entry `at`. Gives how many places more the node has.
    fn apply<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        node: &mut NodeBuf,
        at: usize,
        (child, is_leaf): (u64, bool),
        change: Change,
    ) -> Result<i64, TypeError> {
        let count = node.view().count(at);
        match change {
            Change::Count(more) => {
                node.set_count(at, counted(count, more)?);
                Ok(more)
            }
            Change::Split(left, others) => {
                sound(node)?;
                node.set_count(at, left);
                let mut now = left;
                for (i, other) in others.iter().enumerate() {
                    node.insert(at + 1 + i, (other.order, &other.tail), other.count, other.number);
                    now += other.count;
                }
                Ok(now as i64 - count as i64)
            }
            Change::Gone => {
                sound(node)?;
                node.remove(at);
                Ok(-(count as i64))
            }
            Change::Small(bytes, more) => {
                node.set_count(at, counted(count, more)?);
                if node.view().len() == 1 || !self.join(rows, node, at, is_leaf, &bytes)? {
                    rows.put(node_row(self.object(), child), &bytes);
                }
                keep(bytes);
                Ok(more)
            }
        }
    }

    /// Joins what entry `at` of `node`, which has others, leads to (its bytes, not written yet) with a neighbour, if the two fit well into one. Whether they did.
    fn join<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        node: &mut NodeBuf,
        at: usize,
        is_leaf: bool,
        bytes: &[u8],
    ) -> Result<bool, TypeError> {
        sound(node)?;
        let view = node.view();
        let other = if at > 0 { at - 1 } else { 1 };
        let right = at.max(other);
        let (kept, dropped, other) = (view.child(right - 1), view.child(right), view.child(other));
        let total = view.count(right - 1) + view.count(right);
        let state = self.state;
        let has_lost = (other == state.first && state.front > 0) || (other == state.last && state.back > 0);
        if is_leaf && has_lost {
            return Ok(false);
        }
        let value = read_node(rows, self.object(), other)?;
        let (left_bytes, right_bytes) = if right == at { (&value[..], bytes) } else { (bytes, &value[..]) };
        let mut joined = NodeBuf { bytes: buffer(), base: 0 };
        if is_leaf {
            let (left, right) = (LeafRef::parse(left_bytes)?, LeafRef::parse(right_bytes)?);
            if left.len() + right.len() > LEAF_JOINED || left_bytes.len() + right_bytes.len() > LEAF_JOINED_BYTES {
                return Ok(false);
            }
            let parts = [Part::Old(left, 0..left.len()), Part::Old(right, 0..right.len())];
            leaf::rebuild(&mut joined.bytes, &parts)?;
            if LeafRef::parse(&joined.bytes).is_ok_and(|leaf| is_large(&leaf, &(0..leaf.len()))) {
                return Ok(false);
            }
            let was_last = self.state.last == dropped;
            self.forget(dropped);
            if was_last {
                self.state.last = kept;
            }
        } else {
            let (left, right_node) = (NodeRef::parse(left_bytes)?, NodeRef::parse(right_bytes)?);
            let tails = left.tail_bytes() + right_node.tail_bytes() + view.position(right).1.len();
            if left.len() + right_node.len() > NODE_JOINED || tails > NODE_TAILS / 2 {
                return Ok(false);
            }
            joined.load(left_bytes);
            if !left.is_sound() || !right_node.is_sound() {
                return Err(corrupt("damaged node"));
            }
            joined.append(&right_node, 0..right_node.len(), view.position(right));
        }
        rows.delete(node_row(self.object(), dropped));
        rows.put(node_row(self.object(), kept), &joined.bytes);
        keep(joined.bytes);
        node.set_count(right - 1, total);
        node.remove(right);
        Ok(true)
    }

    /// Moves what is too much for the root into a node below, and takes in a small single node below.
    fn fit_root<R: RowsMut + ?Sized>(&mut self, rows: &mut R, root: &mut NodeBuf) -> Result<(), TypeError> {
        if node_is_large(&root.view(), ROOT_MAX, ROOT_TAILS) {
            let number = self.new_number()?;
            let below = load(root.node())?;
            let total = below.view().total();
            let (left, others) = if node_is_large(&below.view(), NODE_MAX, NODE_TAILS) {
                match self.split_node(rows, number, &below, Grown::Within)? {
                    Change::Split(left, others) => (left, others),
                    _ => (total, Vec::new()),
                }
            } else {
                rows.put(node_row(self.object(), number), below.node());
                (total, Vec::new())
            };
            keep(below.bytes);
            root.clear();
            root.push((0, b""), left, number);
            for other in &others {
                root.push((other.order, &other.tail), other.count, other.number);
            }
            self.state.height += 1;
        }
        while self.state.height > 0 && root.view().len() == 1 {
            let number = root.view().child(0);
            let value = read_node(rows, self.object(), number)?;
            let below = NodeRef::parse(&value)?;
            if below.len() > ROOT_MAX / 2 || below.tail_bytes() > ROOT_TAILS / 2 {
                break;
            }
            rows.delete(node_row(self.object(), number));
            root.load(&value);
            self.state.height -= 1;
        }
        Ok(())
    }
}
