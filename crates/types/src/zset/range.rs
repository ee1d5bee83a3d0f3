//! Members by rank, by score and by name: bounds as positions among the score rows, counting, and visiting either way.
//!
//! A range of any kind becomes a [`Span`] of positions first. The number of rows before a position comes from the tree and from one run, so
//! counting, ranks and skipping are O(log n); visiting costs what is visited.

use std::ops::ControlFlow;

use ardb_base::random::Random;
use ardb_engine::row::order_of_f64;
use ardb_engine::{Direction, RowRange, Rows, RowsMut, Space};

use super::ZSet;
use super::node::Position;
use super::packed::Members;
use crate::packed::Form;
use crate::{TypeError, collection};

/// What a scan calls for each row: the order of its score, the member, the score.
type VisitPlace<'a> = dyn FnMut(u64, &[u8], f64) -> ControlFlow<()> + 'a;

/// Members taken out at a time, which bounds the memory of a removal.
const PIECE: u64 = 1024;
/// Skipping fewer rows than this by the tree would not pay.
const SHORT_SKIP: u64 = 64;

/// Bounds by score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    /// The least score.
    pub min: f64,
    /// The greatest score.
    pub max: f64,
    /// `min` itself is out.
    pub min_excluded: bool,
    /// `max` itself is out.
    pub max_excluded: bool,
}

/// One end of a range by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before all members.
    Least,
    /// After all members.
    Greatest,
    /// At this member, which is in.
    Included(&'a [u8]),
    /// At this member, which is out.
    Excluded(&'a [u8]),
}

/// Positions from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first position in it.
    pub from: (u64, Vec<u8>),
    /// The first position after it; `None` is the end.
    pub to: Option<(u64, Vec<u8>)>,
}

impl Span {
    /// All positions.
    #[must_use]
    pub fn all() -> Span {
        Span { from: (0, Vec::new()), to: None }
    }

    /// Those of the scores in `range`.
    #[must_use]
    pub fn scores(range: &ScoreRange) -> Span {
        let order = |score: f64, after: bool| (order_of_f64(score) + u64::from(after), Vec::new());
        Span { from: order(range.min, range.min_excluded), to: Some(order(range.max, !range.max_excluded)) }
    }

    fn nothing() -> Span {
        Span { from: (0, Vec::new()), to: Some((0, Vec::new())) }
    }

    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// Sets up to this size are walked for ranges by name over unequal scores.
const WALKED: u64 = 128;

/// What is called for each member, with its score.
pub type Visit<'v> = dyn FnMut(&[u8], f64) -> ControlFlow<()> + 'v;

fn borrow(position: &(u64, Vec<u8>)) -> Position<'_> {
    (position.0, &position.1)
}

/// Visits the packed members from `from` up to `to`, either way.
fn scan_packed(
    mut members: Members<'_>,
    from: Position<'_>,
    to: Option<Position<'_>>,
    direction: Direction,
    visit: &mut VisitPlace<'_>,
) -> Result<(), TypeError> {
    let mut passed = Vec::new();
    while let Some(next) = members.next()? {
        let position = next.position();
        if to.is_some_and(|to| position >= to) {
            break;
        }
        if position < from {
            continue;
        }
        if direction == Direction::Backward {
            passed.push(next);
        } else if visit(position.0, next.member, next.score).is_break() {
            return Ok(());
        }
    }
    let _ = passed.iter().rev().try_for_each(|next| visit(next.position().0, next.member, next.score));
    Ok(())
}

impl ZSet {
    /// The span of the members between two names. That has a meaning if all scores are equal. If they are not, a small set is walked
    /// (backward, if `reverse`) until a member is out of bounds, as Redis does it; in a large one the ends count within the first and the last score.
    pub fn lex_span(
        &self,
        rows: &(impl Rows + ?Sized),
        min: LexBound<'_>,
        max: LexBound<'_>,
        reverse: bool,
    ) -> Result<Span, TypeError> {
        if min == LexBound::Greatest || max == LexBound::Least {
            return Ok(Span::nothing());
        }
        let (first, last) = (self.end(rows, Direction::Forward)?, self.end(rows, Direction::Backward)?);
        if first != last && self.size <= WALKED {
            return self.walk_lex(rows, min, max, reverse);
        }
        let name = |order: u64, member: &[u8], after: bool| {
            let mut tail = member.to_vec();
            if after {
                // The least name after this one.
                tail.push(0);
            }
            (order, tail)
        };
        let from = match min {
            LexBound::Included(member) => name(first, member, false),
            LexBound::Excluded(member) => name(first, member, true),
            LexBound::Least | LexBound::Greatest => (0, Vec::new()),
        };
        let to = match max {
            LexBound::Included(member) => Some(name(last, member, true)),
            LexBound::Excluded(member) => Some(name(last, member, false)),
            LexBound::Least | LexBound::Greatest => None,
        };
        Ok(Span { from, to })
    }

    fn walk_lex(
        &self,
        rows: &(impl Rows + ?Sized),
        min: LexBound<'_>,
        max: LexBound<'_>,
        reverse: bool,
    ) -> Result<Span, TypeError> {
        let mut all: Vec<(u64, Vec<u8>)> = Vec::new();
        self.scan(rows, (0, b""), None, Direction::Forward, &mut |order, member, _| {
            all.push((order, member.to_vec()));
            ControlFlow::Continue(())
        })?;
        let above = |place: &(u64, Vec<u8>)| match min {
            LexBound::Included(member) => place.1[..] >= *member,
            LexBound::Excluded(member) => place.1[..] > *member,
            LexBound::Least | LexBound::Greatest => true,
        };
        let below = |place: &(u64, Vec<u8>)| match max {
            LexBound::Included(member) => place.1[..] <= *member,
            LexBound::Excluded(member) => place.1[..] < *member,
            LexBound::Least | LexBound::Greatest => true,
        };
        let crossed = match (min, max) {
            (LexBound::Included(min), LexBound::Included(max)) => min > max,
            (LexBound::Included(min) | LexBound::Excluded(min), LexBound::Included(max) | LexBound::Excluded(max)) => {
                min >= max
            }
            _ => false,
        };
        if crossed || !all.last().is_some_and(above) || !all.first().is_some_and(below) {
            return Ok(Span::nothing());
        }
        let (start, end) = if reverse {
            let end = all.iter().rposition(below).map_or(0, |last| last + 1);
            (all[..end].iter().rposition(|place| !above(place)).map_or(0, |out| out + 1), end)
        } else {
            let start = all.iter().position(above).unwrap_or(all.len());
            (start, all[start..].iter().position(|place| !below(place)).map_or(all.len(), |out| start + out))
        };
        if start >= end {
            return Ok(Span::nothing());
        }
        let to = all.get(end).cloned();
        Ok(Span { from: all.swap_remove(start), to })
    }

    /// The order of the first or last score.
    fn end(&self, rows: &(impl Rows + ?Sized), side: Direction) -> Result<u64, TypeError> {
        let mut found = 0;
        self.scan(rows, (0, b""), None, side, &mut |order, _, _| {
            found = order;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The score rows from `from` up to `to`, either way, within the bounds that are known to hold all of them.
    fn scan(
        &self,
        rows: &(impl Rows + ?Sized),
        from: Position<'_>,
        to: Option<Position<'_>>,
        direction: Direction,
        visit: &mut VisitPlace<'_>,
    ) -> Result<(), TypeError> {
        if self.size == 0 {
            return Ok(());
        }
        if let Some(members) = self.members() {
            return scan_packed(members, from, to, direction, visit);
        }
        let from = from.max((self.low(), b""));
        let end = self.high().checked_add(1).map(|order| (order, &b""[..]));
        let to = match (to, end) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let range = RowRange { space: Space::Score, group: self.object().0, from, to };
        Ok(rows.scan(range, direction, &mut |key, sign| {
            visit(key.order, key.tail, super::score_of_place(key.order, sign))
        })?)
    }

    /// How many members lie before a position.
    fn before(&self, rows: &(impl Rows + ?Sized), position: Position<'_>) -> Result<u64, TypeError> {
        if self.size == 0 {
            return Ok(0);
        }
        // A packed set is one run.
        let run = self.run_at(rows, position)?;
        let mut count = run.before;
        self.scan(rows, borrow(&run.lower), Some(position), Direction::Forward, &mut |_, _, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// The ranks of the span's members: of the first, and the one after the last.
    fn ranks(&self, rows: &(impl Rows + ?Sized), span: &Span) -> Result<(u64, u64), TypeError> {
        if span.is_empty() || self.size == 0 {
            return Ok((0, 0));
        }
        let first = self.before(rows, borrow(&span.from))?;
        let last = match &span.to {
            Some(to) => self.before(rows, borrow(to))?,
            None => self.size,
        };
        Ok((first, last.max(first)))
    }

    /// How many members the span has. O(log n).
    pub fn count(&self, rows: &(impl Rows + ?Sized), span: &Span) -> Result<u64, TypeError> {
        self.ranks(rows, span).map(|(first, last)| last - first)
    }

    /// How many members stand before this one (after it, if `reverse`), or `None` if it is not there. O(log n).
    pub fn rank(&self, rows: &(impl Rows + ?Sized), member: &[u8], reverse: bool) -> Result<Option<u64>, TypeError> {
        let Some(score) = self.score(rows, member)? else { return Ok(None) };
        let rank = self.before(rows, (order_of_f64(score), member))?;
        Ok(Some(if reverse { self.size.saturating_sub(rank + 1) } else { rank }))
    }

    /// Visits the members with the ranks `start..=stop`, counted from the greatest if `reverse`, in that order.
    pub fn by_rank(
        &self,
        rows: &(impl Rows + ?Sized),
        start: u64,
        stop: u64,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), TypeError> {
        if start >= self.size || start > stop {
            return Ok(());
        }
        let mut left = (stop - start).saturating_add(1).min(self.size - start);
        let first = if reverse { self.size - 1 - start } else { start };
        // Near either end there is nothing to look up, nor in a packed set.
        let (mut skip, lower, upper) = if start < SHORT_SKIP || self.members().is_some() {
            (start, (0, Vec::new()), None)
        } else {
            let run = self.run_of(rows, first)?;
            let within = first - run.before;
            (if reverse { run.count.saturating_sub(within + 1) } else { within }, run.lower, run.upper)
        };
        let (from, to, direction) = if reverse {
            ((0, &b""[..]), upper.as_ref().map(borrow), Direction::Backward)
        } else {
            (borrow(&lower), None, Direction::Forward)
        };
        self.scan(rows, from, to, direction, &mut |_, member, score| {
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            left -= 1;
            visit(member, score)?;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// Visits the span's members in order (backward, if `reverse`) after skipping `offset` of them, and at most `limit`.
    pub fn by_span(
        &self,
        rows: &(impl Rows + ?Sized),
        span: &Span,
        reverse: bool,
        offset: u64,
        limit: Option<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), TypeError> {
        if limit == Some(0) || span.is_empty() || offset >= self.size {
            return Ok(());
        }
        if offset >= SHORT_SKIP {
            let (first, last) = self.ranks(rows, span)?;
            if offset >= last - first {
                return Ok(());
            }
            let many = (last - first - offset).min(limit.unwrap_or(u64::MAX));
            let start = offset + if reverse { self.size - last } else { first };
            return self.by_rank(rows, start, start + (many - 1), reverse, visit);
        }
        let mut skip = offset;
        let mut left = limit.unwrap_or(u64::MAX);
        let direction = if reverse { Direction::Backward } else { Direction::Forward };
        self.scan(rows, borrow(&span.from), span.to.as_ref().map(borrow), direction, &mut |_, member, score| {
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            left -= 1;
            visit(member, score)?;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// Visits all members in no useful order (that of the rows by name), which is the cheapest.
    pub fn each(&self, rows: &(impl Rows + ?Sized), visit: &mut Visit<'_>) -> Result<(), TypeError> {
        if let Some(mut members) = self.members() {
            let mut seen = 0;
            while let Some(next) = members.next()? {
                seen += 1;
                if visit(next.member, next.score).is_break() {
                    return Ok(());
                }
            }
            return if seen == self.size { Ok(()) } else { Err(crate::packed::corrupt()) };
        }
        let mut result = Ok(());
        rows.scan(RowRange::group(Space::Member, self.object().0), Direction::Forward, &mut |key, value| {
            match super::score_of_row(value) {
                Ok(score) => visit(key.tail, score),
                Err(error) => {
                    result = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        result
    }

    /// As [`collection::Collection::scan`], with scores.
    pub fn scan_by_hash(
        &self,
        rows: &(impl Rows + ?Sized),
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(&[u8], f64),
    ) -> Result<u64, TypeError> {
        let mut result = Ok(());
        let Form::Rows(object) = self.form else {
            self.each(rows, &mut |member, score| {
                visit(member, score);
                ControlFlow::Continue(())
            })?;
            return Ok(0);
        };
        let mut visit = |member: &[u8], value: &[u8]| match super::score_of_row(value) {
            Ok(score) => visit(member, score),
            Err(error) => result = Err(error),
        };
        let next = collection::scan_members(rows, object, cursor, count, &mut visit)?;
        result.map(|()| next)
    }

    /// A member, each with the same probability; `None` only if there is none. O(log n).
    pub fn random(
        &self,
        rows: &(impl Rows + ?Sized),
        random: &mut Random,
    ) -> Result<Option<(Vec<u8>, f64)>, TypeError> {
        if self.size == 0 {
            return Ok(None);
        }
        let rank = random.below(self.size);
        let mut found = None;
        self.by_rank(rows, rank, rank, false, &mut |member, score| {
            found = Some((member.to_vec(), score));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// `count` different members, each choice equally likely, in order of rank; all of them if there are not more.
    pub fn random_distinct(
        &self,
        rows: &(impl Rows + ?Sized),
        count: u64,
        random: &mut Random,
    ) -> Result<Vec<(Vec<u8>, f64)>, TypeError> {
        let count = count.min(self.size);
        let mut found = Vec::new();
        // Reading on costs less than finding the next one when a good part of all is wanted.
        if count.saturating_mul(SHORT_SKIP) >= self.size {
            let (mut wanted, mut left) = (count, self.size);
            self.by_rank(rows, 0, u64::MAX, false, &mut |member, score| {
                // Selection sampling (Knuth's algorithm S).
                if wanted > 0 && random.below(left.max(1)) < wanted {
                    wanted -= 1;
                    found.push((member.to_vec(), score));
                }
                left = left.saturating_sub(1);
                if wanted == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            return Ok(found);
        }
        let mut ranks = std::collections::BTreeSet::new();
        while (ranks.len() as u64) < count {
            ranks.insert(random.below(self.size));
        }
        for rank in ranks {
            self.by_rank(rows, rank, rank, false, &mut |member, score| {
                found.push((member.to_vec(), score));
                ControlFlow::Break(())
            })?;
        }
        Ok(found)
    }

    /// Takes out the `count` least members (greatest, if `greatest`) and gives each to `visit`, in order.
    pub fn pop(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        greatest: bool,
        count: u64,
        visit: &mut dyn FnMut(Vec<u8>, f64),
    ) -> Result<(), TypeError> {
        let mut left = count.min(self.size);
        while left > 0 {
            let many = left.min(PIECE);
            let piece = self.piece(rows, 0, many, greatest)?;
            if piece.is_empty() {
                return Err(TypeError::Corrupt("sorted set: fewer rows than members".into()));
            }
            left -= piece.len() as u64;
            if self.members().is_some() {
                // It is small, so this is all of them.
                let (size, many) = (self.size, piece.len() as u64);
                self.remove_ranks(
                    rows,
                    if greatest { size - many } else { 0 },
                    if greatest { size - 1 } else { many - 1 },
                )?;
                piece.into_iter().for_each(|(member, score)| visit(member, score));
                return Ok(());
            }
            let last = piece.last().map(|(_, score)| order_of_f64(*score));
            for (member, score) in piece {
                if greatest {
                    self.remove_known(rows, &member, score)?;
                } else {
                    self.remove_first(rows, &member, score)?;
                }
                visit(member, score);
            }
            if let Some(order) = last
                && self.size > 0
            {
                // Nothing lies beyond what was taken out last.
                self.set_u64(if greatest { super::HIGH } else { super::LOW }, order);
            }
        }
        Ok(())
    }

    fn piece(
        &self,
        rows: &(impl Rows + ?Sized),
        start: u64,
        many: u64,
        reverse: bool,
    ) -> Result<Vec<(Vec<u8>, f64)>, TypeError> {
        let mut piece = Vec::with_capacity(many.min(PIECE) as usize);
        self.by_rank(rows, start, start + (many - 1), reverse, &mut |member, score| {
            piece.push((member.to_vec(), score));
            ControlFlow::Continue(())
        })?;
        Ok(piece)
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
            let piece = self.piece(rows, start, left.min(PIECE), false)?;
            if piece.is_empty() {
                return Err(TypeError::Corrupt("sorted set: fewer rows than members".into()));
            }
            left -= piece.len() as u64;
            for (member, score) in &piece {
                self.remove_known(rows, member, *score)?;
            }
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
