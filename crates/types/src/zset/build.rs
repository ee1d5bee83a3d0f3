//! Many members at once, in any order: packed while they are few, then rows first, the tree once at the end.

use std::ops::ControlFlow;

use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::row::order_of_f64;
use ardb_engine::{Direction, RowRange, Rows, RowsMut, Space};

use super::node::{NodeBuf, separator};
use super::packed::{self, Members};
use super::tree::{NODE_MAX, ROOT_MAX, RUN_MAX, TAIL_MAX, node_row};
use super::{
    FRONT, HEIGHT, HIGH, LISTPACK_ENTRIES, LISTPACK_VALUE, LOW, NEXT, ZSet, fresh_extra, member_row, score_row,
    score_sign, u32_at, u64_at,
};
use crate::packed::Form;
use crate::{At, KeyRow, Limits, TypeError};

/// Rows of a run as built: room to grow on both sides of its bounds.
const RUN_BUILT: u64 = RUN_MAX * 3 / 4;
/// Entries of a node as built.
const NODE_BUILT: usize = NODE_MAX * 3 / 4;

/// A sorted set that nobody sees yet. Once it has outgrown a packed one, dropping it unfinished leaves rows behind: [`ZSetBuilder::abandon`] it instead.
#[derive(Debug)]
pub struct ZSetBuilder {
    limits: Limits,
    size: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Members as a packed set has them, but in the order of their coming, and negative zeros as they came.
    Packed(Vec<u8>),
    Rows(Building),
}

/// A set as rows, without its tree.
#[derive(Debug)]
struct Building {
    object: ObjectId,
    size: u64,
    extra: NodeBuf,
    /// Members with a negative zero, while the set could be a listpack in Redis, which has no such thing.
    negative: Vec<Vec<u8>>,
}

impl ZSetBuilder {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> ZSetBuilder {
        ZSetBuilder { limits, size: 0, stage: Stage::Packed(Vec::new()) }
    }

    /// Number of members so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Adds a member with a score that is not NaN; false, and nothing done, if the member is there already.
    pub fn append(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8], score: f64) -> Result<bool, TypeError> {
        let known = match &self.stage {
            Stage::Packed(bytes) => Members::new(bytes).find(member)?.is_some(),
            Stage::Rows(building) => rows.get(member_row(building.object, member))?.is_some(),
        };
        if !known {
            self.append_new(rows, member, score)?;
        }
        Ok(!known)
    }

    /// Adds a member that the caller knows not to be there, with a score that is not NaN.
    pub fn append_new(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        member: &[u8],
        score: f64,
    ) -> Result<(), TypeError> {
        debug_assert!(!score.is_nan(), "a score is a number");
        self.size += 1;
        if let Stage::Packed(bytes) = &mut self.stage {
            let end = bytes.len();
            if packed::limit(self.limits.zset).holds(self.size, member.len(), end + packed::member_len(member)) {
                packed::write(bytes, end..end, member, score);
                return Ok(());
            }
            let mut members = Members::new(bytes);
            let mut building =
                Building { object: rows.new_object(), size: 0, extra: fresh_extra(), negative: Vec::new() };
            while let Some(next) = members.next()? {
                building.append(rows, next.member, next.score);
            }
            self.stage = Stage::Rows(building);
        }
        if let Stage::Rows(building) = &mut self.stage {
            building.append(rows, member, score);
        }
        Ok(())
    }

    /// Gives up: rows that were written go to the janitor.
    pub fn abandon(self, rows: &mut (impl RowsMut + ?Sized)) {
        if let Stage::Rows(building) = self.stage {
            rows.discard(building.object);
        }
    }

    /// Builds the tree, if it takes one (one pass over the score rows, in memory of a few nodes), and makes this the value at the key, in place of `old`, the
    /// key's row as it stands. An empty set leaves no key.
    pub fn finish(
        self,
        rows: &mut (impl RowsMut + ?Sized),
        at: &At<'_>,
        old: Option<KeyRow>,
        expiry: Option<UnixMs>,
    ) -> Result<bool, TypeError> {
        let mut set = ZSet::replacing(old, self.limits);
        set.size = self.size;
        set.expiry = expiry;
        match self.stage {
            Stage::Packed(bytes) => set.form = Form::Own(in_order(bytes, self.size)?),
            Stage::Rows(building) => {
                set.form = Form::Rows(building.object);
                set.extra = Some(building.finish(rows)?);
            }
        }
        Ok(set.save(rows, at))
    }
}

/// Packed members in the order of their coming as those of a set.
fn in_order(bytes: Vec<u8>, size: u64) -> Result<Vec<u8>, TypeError> {
    let mut all = Members::new(&bytes).all(size)?;
    all.sort_unstable_by_key(|next| next.position());
    let mut ordered = Vec::with_capacity(bytes.len());
    for next in &all {
        let end = ordered.len();
        packed::write(&mut ordered, end..end, next.member, next.score + 0.0);
    }
    Ok(ordered)
}

impl Building {
    fn append(&mut self, rows: &mut (impl RowsMut + ?Sized), member: &[u8], score: f64) {
        rows.put(member_row(self.object, member), &score.to_le_bytes());
        rows.put(score_row(self.object, score, member), score_sign(score));
        if !score_sign(score).is_empty() && self.size < LISTPACK_ENTRIES && member.len() as u64 <= LISTPACK_VALUE {
            self.negative.push(member.to_vec());
        }
        self.size += 1;
        let order = order_of_f64(score);
        let bytes = &mut self.extra.bytes;
        let low = u64_at(bytes, LOW).min(order);
        let high = u64_at(bytes, HIGH).max(order);
        bytes[LOW..HIGH].copy_from_slice(&low.to_le_bytes());
        bytes[HIGH..HEIGHT].copy_from_slice(&high.to_le_bytes());
        let longest = u32_at(bytes, 0).max(u32::try_from(member.len()).unwrap_or(u32::MAX));
        bytes[..4].copy_from_slice(&longest.to_le_bytes());
    }

    /// What follows the size in the key's row.
    fn finish(mut self, rows: &mut (impl RowsMut + ?Sized)) -> Result<NodeBuf, TypeError> {
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        self.extra.bytes[4..8].copy_from_slice(&size.to_le_bytes());
        if self.size <= LISTPACK_ENTRIES && u64::from(u32_at(&self.extra.bytes, 0)) <= LISTPACK_VALUE {
            for member in &self.negative {
                rows.put(member_row(self.object, member), &0f64.to_le_bytes());
                rows.put(score_row(self.object, 0.0, member), b"");
            }
        }
        if self.size > RUN_MAX {
            self.build_tree(rows)?;
        }
        Ok(self.extra)
    }

    fn build_tree(&mut self, rows: &mut (impl RowsMut + ?Sized)) -> Result<(), TypeError> {
        let mut levels = Levels { object: self.object, next: 1, open: Vec::new() };
        let mut start = (0u64, Vec::new());
        let mut left = self.size;
        while left > 0 {
            // One run a scan, since rows are written between two.
            let many = if left <= RUN_MAX { left } else { RUN_BUILT };
            let (count, next) = run_from(rows, self.object, (start.0, &start.1), many)?;
            let end = next.is_none();
            levels.push(rows, 0, (start.0, &start.1), count, 0);
            left = left.saturating_sub(count);
            if end != (left == 0) {
                return Err(TypeError::Corrupt("sorted set: fewer rows than members".into()));
            }
            start = next.unwrap_or_default();
        }
        let (root, height, next) = levels.finish(rows);
        self.extra.bytes[HEIGHT] = height;
        self.extra.bytes[NEXT..FRONT].copy_from_slice(&next.to_le_bytes());
        self.extra.load(root.node());
        Ok(())
    }
}

/// Counts about `many` rows from a position on; and where the next run may begin, `None` at the end of the set.
type RunEnd = (u64, Option<(u64, Vec<u8>)>);

fn run_from(rows: &(impl Rows + ?Sized), object: ObjectId, from: (u64, &[u8]), many: u64) -> Result<RunEnd, TypeError> {
    let mut count = 0;
    let mut last = (0, Vec::new());
    let mut next = None;
    let range = RowRange { space: Space::Score, group: object.0, from, to: None };
    rows.scan(range, Direction::Forward, &mut |key, _| {
        if count >= many {
            let (order, tail) = separator((last.0, &last.1), (key.order, key.tail));
            if tail.len() <= TAIL_MAX {
                next = Some((order, tail.to_vec()));
                return ControlFlow::Break(());
            }
        }
        count += 1;
        if count >= many {
            last = (key.order, key.tail.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok((count, next))
}

/// The nodes that are being filled, one a height, lowest first.
struct Levels {
    object: ObjectId,
    next: u64,
    open: Vec<NodeBuf>,
}

impl Levels {
    fn push(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        height: usize,
        position: (u64, &[u8]),
        count: u64,
        child: u64,
    ) {
        if self.open.len() == height {
            let mut node = NodeBuf::default();
            node.clear();
            self.open.push(node);
        }
        if self.open[height].view().len() >= NODE_BUILT {
            self.close(rows, height);
        }
        self.open[height].push(position, count, child);
    }

    /// Writes the open node of a height, which has entries, and enters it above.
    fn close(&mut self, rows: &mut (impl RowsMut + ?Sized), height: usize) {
        let node = std::mem::take(&mut self.open[height]);
        self.open[height].clear();
        let number = self.next;
        self.next += 1;
        rows.put(node_row(self.object, number), node.node());
        let view = node.view();
        self.push(rows, height + 1, view.position(0), view.total(), number);
    }

    /// Closes everything but the root.
    fn finish(mut self, rows: &mut (impl RowsMut + ?Sized)) -> (NodeBuf, u8, u64) {
        let mut height = 0;
        while height + 1 < self.open.len() || self.open[height].view().len() > ROOT_MAX {
            if !self.open[height].view().is_empty() {
                self.close(rows, height);
            }
            height += 1;
        }
        (std::mem::take(&mut self.open[height]), height as u8, self.next)
    }
}
