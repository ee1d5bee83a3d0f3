//! Taking out members by their places: pops, and the removal of ranges.
//!
//! What goes from an end of the set stays in its leaf, and the key's row counts it (see [`super::tree`]): a pop reads the leaf, deletes a member's row and
//! writes the key's. What goes from elsewhere is taken out leaf by leaf.

use std::ops::{ControlFlow, Range};

use ardb_engine::RowsMut;

use super::leaf::LeafRef;
use super::range::Span;
use super::tree::{buffer, corrupt, keep, read_node};
use super::{ZSet, member_row};
use crate::TypeError;

/// What a pop gives each member to, with its score.
pub type VisitPopped<'v> = dyn FnMut(&[u8], f64) + 'v;

impl ZSet {
    /// Takes out the `count` least members (greatest, if `greatest`) and gives each to `visit`, in order.
    pub fn pop(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        greatest: bool,
        count: u64,
        visit: &mut VisitPopped<'_>,
    ) -> Result<(), TypeError> {
        let count = count.min(self.size);
        if count == 0 {
            return Ok(());
        }
        if count == self.size || self.members().is_some() {
            let mut seen = 0;
            self.by_rank(rows, 0, count - 1, greatest, &mut |member, score| {
                seen += 1;
                visit(member, score);
                ControlFlow::Continue(())
            })?;
            if seen != count {
                return Err(corrupt("fewer members than it counts"));
            }
            let start = if greatest { self.size - count } else { 0 };
            self.remove_ranks(rows, start, start + (count - 1))?;
            return Ok(());
        }
        let mut left = count;
        while left > 0 {
            left -= self.pop_from_leaf(rows, greatest, left, visit)?;
        }
        Ok(())
    }

    /// Takes at most `most` members, but not all of the set, out of the first leaf, or the last one. Gives how many it took.
    fn pop_from_leaf(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        greatest: bool,
        most: u64,
        visit: &mut VisitPopped<'_>,
    ) -> Result<u64, TypeError> {
        let known = if greatest { self.state.last } else { self.state.first };
        let (number, value) = match known {
            0 => {
                let path = self.path_to_end(rows, greatest)?;
                let end = if greatest { &mut self.state.last } else { &mut self.state.first };
                *end = path.way.number;
                (path.way.number, path.leaf)
            }
            number => (number, read_node(rows, self.object(), number)?),
        };
        let leaf = LeafRef::parse(&value)?;
        let live = self.live(number, &leaf)?;
        let many = usize::try_from(most).map_or(live.len(), |most| most.min(live.len()));
        let gone = if greatest { live.end - many..live.end } else { live.start..live.start + many };
        self.delete_members(rows, &leaf, gone, greatest, visit)?;
        if many == live.len() {
            let mut path = self.path_to_end(rows, greatest)?;
            if path.way.number != number {
                return Err(corrupt("the leaf at an end is not the one that is known"));
            }
            self.drop_leaf(rows, &mut path)?;
        } else {
            let lost = if greatest { &mut self.state.back } else { &mut self.state.front };
            // There are no more than this in a leaf.
            *lost += many as u16;
        }
        Ok(many as u64)
    }

    /// Deletes the rows of the members in these places of a leaf, some but not all of the set, and counts them out.
    fn delete_members(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        leaf: &LeafRef<'_>,
        gone: Range<usize>,
        reverse: bool,
        visit: &mut VisitPopped<'_>,
    ) -> Result<(), TypeError> {
        self.size = self.size.checked_sub(gone.len() as u64).ok_or_else(|| corrupt("more members than it counts"))?;
        let object = self.object();
        let mut buf = buffer();
        let _ = leaf.each(gone, reverse, &mut buf, &mut |member, score| {
            rows.delete(member_row(object, member));
            visit(member, score);
            ControlFlow::Continue(())
        })?;
        keep(buf);
        Ok(())
    }

    /// Takes out the members with the ranks `start..=stop`; how many those were.
    pub fn remove_ranks(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        start: u64,
        stop: u64,
    ) -> Result<u64, TypeError> {
        if start >= self.size || start > stop {
            return Ok(0);
        }
        let count = (stop - start).saturating_add(1).min(self.size - start);
        if count == self.size {
            self.clear(rows);
            return Ok(count);
        }
        if self.cut_packed(start, start + count)? {
            return Ok(count);
        }
        let mut left = count;
        while left > 0 {
            let index = start.saturating_add(u64::from(self.state.front));
            let mut path = self.path_to_index(rows, index)?;
            let leaf = LeafRef::parse(&path.leaf)?;
            let live = self.live(path.way.number, &leaf)?;
            let from = usize::try_from(index - path.before).unwrap_or(usize::MAX);
            if !live.contains(&from) {
                return Err(corrupt("counts do not add up"));
            }
            let many = usize::try_from(left).map_or(live.end - from, |left| left.min(live.end - from));
            self.delete_members(rows, &leaf, from..from + many, false, &mut |_, _| ())?;
            self.take_places(rows, &mut path, from..from + many)?;
            left -= many as u64;
        }
        Ok(count)
    }

    /// Takes out the span's members; how many those were.
    pub fn remove_span(&mut self, rows: &mut (impl RowsMut + ?Sized), span: &Span) -> Result<u64, TypeError> {
        let (first, last) = self.ranks(rows, span)?;
        if first == last {
            return Ok(0);
        }
        self.remove_ranks(rows, first, last - 1)
    }
}
