//! The counted tree over the score rows: how many rows lie before a position, and which row is the n-th.
//!
//! The score rows, in order, are cut into runs of at most [`RUN_MAX`]; an entry of a lowest node tells where a run begins and how many rows
//! it has; an entry of a higher node tells the same of all that a node below covers. The root stands in the key's row, so a set with a few thousand
//! members has no node rows at all, and one with at most [`RUN_MAX`] has no entries either. Nodes are found by number, with point reads, which
//! the store's caches serve; scans happen within one run only.
//!
//! Where an entry that is the first in its node begins is decided above it: the place written in it is not looked at.
//!
//! A set that serves as a queue loses one first row after the other. The key's row then counts them (`front`), and the first run's count, with those above
//! it, is written once for all that the run may lose before it is empty (`room`). So what the nodes count is the rows and `front` more, all of them in the
//! first run; every other change of the tree settles that first.

use std::ops::ControlFlow;

use ardb_base::id::ObjectId;
use ardb_engine::{Direction, RowKey, RowRange, Rows, RowsMut, Space, Value};

use super::node::{NodeBuf, NodeRef, Position, separator};
use super::{FRONT, HEIGHT, NEXT, ROOM, ZSet, u32_at};
use crate::TypeError;

/// Sizes in production, and those of this crate's tests, which want high trees of few members.
const fn sized(real: usize, test: usize) -> usize {
    if cfg!(test) { test } else { real }
}

/// Rows of a run before it is split.
pub const RUN_MAX: u64 = sized(128, 16) as u64;
/// A run with fewer rows is joined with a neighbour,
const RUN_LEAST: u64 = sized(24, 4) as u64;
/// if together they have at most as many.
const RUN_JOINED: u64 = sized(80, 10) as u64;
/// Entries of a node before it is split.
pub const NODE_MAX: usize = sized(96, 12);
/// Room for most nodes: so many entries, and few tails.
const NODE_BYTES: usize = 32 * NODE_MAX;
/// A node with fewer entries is joined with a neighbour,
const NODE_LEAST: usize = sized(16, 3);
/// if together they have at most as many.
const NODE_JOINED: usize = sized(64, 8);
/// Entries of the root before they move into a node below. It is written with every change of the cardinality.
pub const ROOT_MAX: usize = sized(32, 6);
/// A longer separator is not written; the run stays long instead.
pub const TAIL_MAX: usize = 4096;

/// A part of the score rows with known bounds and number.
#[derive(Debug)]
pub struct Run {
    /// Where it begins.
    pub lower: (u64, Vec<u8>),
    /// Where it ends (the first position that is not in it); `None` is the end of the set.
    pub upper: Option<(u64, Vec<u8>)>,
    /// How many rows lie before it.
    pub before: u64,
    /// How many rows it has.
    pub count: u64,
}

fn corrupt(what: &str) -> TypeError {
    TypeError::Corrupt(format!("sorted set: {what}"))
}

pub fn node_row(object: ObjectId, number: u64) -> RowKey<'static> {
    RowKey::new(Space::Rank1, object.0, number, b"")
}

pub fn read_node(rows: &(impl Rows + ?Sized), object: ObjectId, number: u64) -> Result<Value, TypeError> {
    rows.get(node_row(object, number))?.ok_or_else(|| corrupt("a node is missing"))
}

/// Loads a node into `buf`.
fn load(rows: &(impl Rows + ?Sized), object: ObjectId, number: u64, buf: &mut NodeBuf) -> Result<(), TypeError> {
    let value = read_node(rows, object, number)?;
    NodeRef::parse(&value)?;
    buf.load(&value);
    Ok(())
}

/// What the recursion needs besides the node at hand.
struct Walk<'a, R: ?Sized> {
    rows: &'a mut R,
    object: ObjectId,
    next: u64,
    spare: &'a mut Vec<NodeBuf>,
}

impl<R: RowsMut + ?Sized> Walk<'_, R> {
    fn buffer(&mut self) -> NodeBuf {
        let mut buf = self.spare.pop().unwrap_or_else(|| NodeBuf { bytes: Vec::with_capacity(NODE_BYTES), base: 0 });
        buf.clear();
        buf
    }

    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn write(&mut self, number: u64, node: &NodeBuf) {
        self.rows.put(node_row(self.object, number), node.node());
    }

    /// Counts one more row at `position`, which lies in `node`, and splits what has grown too large.
    fn add(
        &mut self,
        node: &mut NodeBuf,
        height: u8,
        lower: Position<'_>,
        position: Position<'_>,
    ) -> Result<(), TypeError> {
        let view = node.view();
        if view.is_empty() {
            return Err(corrupt("an empty node"));
        }
        let i = view.find(position);
        let count = view.count(i) + 1;
        node.set_count(i, count);
        if height == 0 {
            // A run that could not be split is tried again now and then only.
            if count == RUN_MAX + 1 || (count > RUN_MAX && count.is_multiple_of(RUN_MAX / 4)) {
                self.split_run(node, i, lower, count)?;
            }
            return Ok(());
        }
        let number = view_child(node, i)?;
        let mut child = self.buffer();
        load(self.rows, self.object, number, &mut child)?;
        {
            let lower = if i == 0 { lower } else { node.view().position(i) };
            self.add(&mut child, height - 1, lower, position)?;
        }
        if child.view().len() > NODE_MAX {
            let mut right = self.buffer();
            let half = child.view().len() / 2;
            child.move_tail(half, &mut right);
            let right_number = self.new_number();
            self.write(right_number, &right);
            node.set_count(i, child.view().total());
            let view = right.view();
            node.insert(i + 1, view.position(0), view.total(), right_number);
            self.spare.push(right);
        }
        self.write(number, &child);
        self.spare.push(child);
        Ok(())
    }

    /// Cuts the run of entry `i` in two. `lower` is where the node begins.
    fn split_run(&mut self, node: &mut NodeBuf, i: usize, lower: Position<'_>, count: u64) -> Result<(), TypeError> {
        let half = count / 2;
        let from = if i == 0 { lower } else { node.view().position(i) };
        let cut = middle(self.rows, self.object, from, half)?;
        if cut.1.len() <= TAIL_MAX {
            node.set_count(i, half);
            node.insert(i + 1, (cut.0, &cut.1), count - half, 0);
        }
        Ok(())
    }

    /// Counts `many` rows less in the run at `position`, which lies in `node`, and joins what has become too small. The node may be left without entries.
    fn take(&mut self, node: &mut NodeBuf, height: u8, position: Position<'_>, many: u64) -> Result<(), TypeError> {
        let view = node.view();
        if view.is_empty() {
            return Err(corrupt("an empty node"));
        }
        let i = view.find(position);
        let count = view.count(i).checked_sub(many).ok_or_else(|| corrupt("a count is too small"))?;
        node.set_count(i, count);
        if height == 0 {
            if count == 0 {
                node.remove(i);
            } else if count < RUN_LEAST {
                join_runs(node, i);
            }
            return Ok(());
        }
        let number = view_child(node, i)?;
        let mut child = self.buffer();
        load(self.rows, self.object, number, &mut child)?;
        let entries = child.view().len();
        self.take(&mut child, height - 1, position, many)?;
        let left = child.view().len();
        if left == 0 {
            self.rows.delete(node_row(self.object, number));
            node.remove(i);
        } else if left < entries && left < NODE_LEAST && node.view().len() > 1 {
            self.join_nodes(node, i, number, &mut child)?;
        } else {
            self.write(number, &child);
        }
        self.spare.push(child);
        Ok(())
    }

    /// Entry `i` of `node` leads to `child`, which has become small: joins it with a neighbour if the two fit well into one.
    fn join_nodes(&mut self, node: &mut NodeBuf, i: usize, number: u64, child: &mut NodeBuf) -> Result<(), TypeError> {
        let other = if i > 0 { i - 1 } else { 1 };
        let other_number = view_child(node, other)?;
        let mut buf = self.buffer();
        load(self.rows, self.object, other_number, &mut buf)?;
        if buf.view().len() + child.view().len() > NODE_JOINED {
            self.write(number, child);
        } else {
            let right = i.max(other);
            let (left_buf, right_buf) = if right == i { (&mut buf, child) } else { (child, &mut buf) };
            right_buf.set_position(0, node.view().position(right));
            right_buf.move_tail(0, left_buf);
            let (kept, dropped) = if right == i { (other_number, number) } else { (number, other_number) };
            self.rows.delete(node_row(self.object, dropped));
            self.write(kept, left_buf);
            let total = left_buf.view().total();
            node.set_count(right - 1, total);
            node.remove(right);
        }
        self.spare.push(buf);
        Ok(())
    }
}

fn view_child(node: &NodeBuf, i: usize) -> Result<u64, TypeError> {
    match node.view().child(i) {
        0 => Err(corrupt("a node has no child")),
        number => Ok(number),
    }
}

/// Joins the run of entry `i` with a neighbour if both are small. No row is touched: only the border between them goes.
fn join_runs(node: &mut NodeBuf, i: usize) {
    let view = node.view();
    let count = view.count(i);
    for right in [i + 1, i] {
        if right > 0 && right < view.len() && view.count(right - 1) + view.count(right) <= RUN_JOINED {
            let sum = if right == i { view.count(i - 1) + count } else { count + view.count(right) };
            node.set_count(right - 1, sum);
            node.remove(right);
            return;
        }
    }
}

/// A position that has `half` of the rows from `from` on before it.
pub fn middle(
    rows: &(impl Rows + ?Sized),
    object: ObjectId,
    from: Position<'_>,
    half: u64,
) -> Result<(u64, Vec<u8>), TypeError> {
    let mut seen = 0;
    let mut left = (0, Vec::new());
    let mut cut = None;
    let range = RowRange { space: Space::Score, group: object.0, from, to: None };
    rows.scan(range, Direction::Forward, &mut |key, _| {
        seen += 1;
        if seen == half {
            left = (key.order, key.tail.to_vec());
        } else if seen > half {
            let (order, tail) = separator((left.0, &left.1), (key.order, key.tail));
            cut = Some((order, tail.to_vec()));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    cut.ok_or_else(|| corrupt("a run has fewer rows than its count"))
}

impl ZSet {
    /// The parts that a change of the tree needs: the walk, and the root apart from it.
    fn with_root<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        change: impl FnOnce(&mut Walk<'_, R>, &mut NodeBuf, u8) -> Result<(), TypeError>,
    ) -> Result<(), TypeError> {
        self.extra_mut();
        let Some(mut root) = self.extra.take() else { return Ok(()) };
        let height = root.bytes[HEIGHT];
        let next = super::u64_at(&root.bytes, NEXT);
        let mut walk = Walk { rows, object: self.object(), next, spare: &mut self.spare };
        let result = change(&mut walk, &mut root, height);
        let next = walk.next;
        root.bytes[NEXT..NEXT + 8].copy_from_slice(&next.to_le_bytes());
        self.extra = Some(root);
        result
    }

    /// Counts the row at `position`, which was just written. The size counts it already.
    pub(super) fn tree_add<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        position: Position<'_>,
    ) -> Result<(), TypeError> {
        let size = self.size;
        self.settle_front(rows)?;
        if self.root()?.is_empty() {
            if size <= RUN_MAX {
                return Ok(());
            }
            // The one run that has covered everything becomes the first entry.
            self.set_height(0);
            self.extra_mut().push((0, b""), size - 1, 0);
        }
        self.with_root(rows, |walk, root, height| {
            walk.add(root, height, (0, b""), position)?;
            if root.view().len() > ROOT_MAX {
                let mut below = walk.buffer();
                below.load(root.node());
                let number = walk.new_number();
                walk.write(number, &below);
                let total = below.view().total();
                walk.spare.push(below);
                root.clear();
                root.push((0, b""), total, number);
                root.bytes[HEIGHT] = height.checked_add(1).ok_or_else(|| corrupt("the tree is too high"))?;
            }
            Ok(())
        })
    }

    /// Forgets the row at `position`, which was just deleted.
    pub(super) fn tree_take<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        position: Position<'_>,
    ) -> Result<(), TypeError> {
        self.settle_front(rows)?;
        self.take_counted(rows, position, 1)
    }

    /// Forgets the first row of all, which was just deleted.
    pub(super) fn tree_take_first<R: RowsMut + ?Sized>(&mut self, rows: &mut R) -> Result<(), TypeError> {
        let extra = &mut self.extra_mut().bytes;
        let (front, room) = (u32_at(extra, FRONT), u32_at(extra, ROOM));
        if room > 0 {
            extra[FRONT..ROOM].copy_from_slice(&(front + 1).to_le_bytes());
            extra[ROOM..ROOM + 4].copy_from_slice(&(room - 1).to_le_bytes());
            return Ok(());
        }
        self.take_counted(rows, (0, b""), u64::from(front) + 1)?;
        self.set_front(0, 0);
        let room = if self.root()?.is_empty() { 0 } else { self.run_at(rows, (0, b""))?.count.saturating_sub(1) };
        self.set_front(0, u32::try_from(room).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Writes into the nodes what the first run has lost.
    fn settle_front<R: RowsMut + ?Sized>(&mut self, rows: &mut R) -> Result<(), TypeError> {
        self.extra_mut();
        let front = self.front();
        if front > 0 {
            self.take_counted(rows, (0, b""), front)?;
        }
        // The first run may be about to change.
        self.set_front(0, 0);
        Ok(())
    }

    fn set_front(&mut self, front: u32, room: u32) {
        let extra = &mut self.extra_mut().bytes;
        extra[FRONT..ROOM].copy_from_slice(&front.to_le_bytes());
        extra[ROOM..ROOM + 4].copy_from_slice(&room.to_le_bytes());
    }

    /// Rows that the first run no longer has and its count still includes.
    pub(super) fn front(&self) -> u64 {
        self.extra_bytes().map_or(0, |extra| u64::from(u32_at(extra, FRONT)))
    }

    /// Takes `many` off the count of the run at `position`, and off those above it.
    fn take_counted<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        position: Position<'_>,
        many: u64,
    ) -> Result<(), TypeError> {
        if self.root()?.is_empty() {
            return Ok(());
        }
        self.with_root(rows, |walk, root, mut height| {
            walk.take(root, height, position, many)?;
            while height > 0 && root.view().len() == 1 {
                let number = view_child(root, 0)?;
                let mut below = walk.buffer();
                load(walk.rows, walk.object, number, &mut below)?;
                if below.view().len() > ROOT_MAX / 2 {
                    walk.spare.push(below);
                    break;
                }
                walk.rows.delete(node_row(walk.object, number));
                root.load(below.node());
                walk.spare.push(below);
                height -= 1;
                root.bytes[HEIGHT] = height;
            }
            if height == 0 && root.view().len() == 1 {
                // One run covers everything again.
                root.clear();
            }
            Ok(())
        })
    }

    /// A row moved from one position to another.
    pub(super) fn tree_move<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        from: Position<'_>,
        to: Position<'_>,
    ) -> Result<(), TypeError> {
        self.extra_mut();
        if self.root()?.is_empty() || self.run_at(rows, from)?.before == self.run_at(rows, to)?.before {
            return Ok(());
        }
        self.tree_take(rows, from)?;
        self.tree_add(rows, to)
    }

    /// The run that covers `position`.
    pub(super) fn run_at(&self, rows: &(impl Rows + ?Sized), position: Position<'_>) -> Result<Run, TypeError> {
        self.descend(rows, |node, _| Some(node.find(position)))
    }

    /// The run that holds the row with this rank, which is less than the size.
    pub(super) fn run_of(&self, rows: &(impl Rows + ?Sized), rank: u64) -> Result<Run, TypeError> {
        let rank = rank + self.front();
        self.descend(rows, |node, before| Some(node.find_index(rank.checked_sub(before)?)?.0))
    }

    /// Goes down to the run that `choose` leads to; it is told how many rows the nodes count before the one at hand.
    fn descend(
        &self,
        rows: &(impl Rows + ?Sized),
        choose: impl Fn(&NodeRef<'_>, u64) -> Option<usize>,
    ) -> Result<Run, TypeError> {
        let mut run = Run { lower: (0, Vec::new()), upper: None, before: 0, count: self.size };
        let root = self.root()?;
        if root.is_empty() {
            return Ok(run);
        }
        let mut child = narrow(&mut run, &root, &choose)?;
        for _ in 0..self.height() {
            let node = read_node(rows, self.object(), child)?;
            child = narrow(&mut run, &NodeRef::parse(&node)?, &choose)?;
        }
        // The nodes count the front with the first run.
        let counted = if run.before == 0 { &mut run.count } else { &mut run.before };
        *counted = counted.checked_sub(self.front()).ok_or_else(|| corrupt("counts do not add up"))?;
        Ok(run)
    }
}

/// Narrows `run` to an entry of `node`, and gives the node below it.
fn narrow(
    run: &mut Run,
    node: &NodeRef<'_>,
    choose: &impl Fn(&NodeRef<'_>, u64) -> Option<usize>,
) -> Result<u64, TypeError> {
    if node.is_empty() {
        return Err(corrupt("an empty node"));
    }
    let i = choose(node, run.before).ok_or_else(|| corrupt("counts do not add up"))?;
    if i > 0 {
        let (order, tail) = node.position(i);
        run.lower = (order, tail.to_vec());
    }
    if i + 1 < node.len() {
        let (order, tail) = node.position(i + 1);
        run.upper = Some((order, tail.to_vec()));
    }
    run.before += node.before(i);
    run.count = node.count(i);
    Ok(node.child(i))
}
