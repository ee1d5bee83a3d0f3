//! Members by rank, by score and by name: bounds as positions in the set, counting, and visiting either way.
//!
//! A range of any kind becomes a [`Span`] of positions first. The number of members before a position comes from the nodes on the way to its leaf and from the
//! leaf, so counting, ranks and skipping are O(log n); visiting goes from leaf to leaf and costs what is visited.

use std::ops::{ControlFlow, Range};

use ardb_base::random::Random;
use ardb_engine::row::order_of_f64;
use ardb_engine::{Direction, Rows};

use super::ZSet;
use super::leaf::LeafRef;
use super::node::Position;
use super::packed::Members;
use super::tree::{Path, buffer, corrupt, keep};
use crate::packed::Form;
use crate::{TypeError, collection};

/// Skipping fewer members than this by their ranks would not pay.
const SHORT_SKIP: u64 = 256;
/// Drawing a member by its rank costs as much as reading so many.
const DRAWN: u64 = 32;

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

/// What is called for each leaf, with the places whose members are there and room for a member.
type VisitLeaf<'v> = dyn FnMut(&LeafRef<'_>, Range<usize>, &mut Vec<u8>) -> Result<ControlFlow<()>, TypeError> + 'v;

fn borrow(position: &(u64, Vec<u8>)) -> Position<'_> {
    (position.0, &position.1)
}

/// Visits the packed members from `from` up to `to`, either way.
fn scan_packed(
    mut members: Members<'_>,
    from: Position<'_>,
    to: Option<Position<'_>>,
    direction: Direction,
    visit: &mut Visit<'_>,
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
        } else if visit(next.member, next.score).is_break() {
            return Ok(());
        }
    }
    let _ = passed.iter().rev().try_for_each(|next| visit(next.member, next.score));
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
        self.scan(rows, (0, b""), None, Direction::Forward, 0, &mut |member, score| {
            all.push((order_of_f64(score), member.to_vec()));
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
        self.scan(rows, (0, b""), None, side, 0, &mut |_, score| {
            found = order_of_f64(score);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The members from `from` up to `to`, either way, but for the first `skip` of them.
    fn scan(
        &self,
        rows: &(impl Rows + ?Sized),
        from: Position<'_>,
        to: Option<Position<'_>>,
        direction: Direction,
        mut skip: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(), TypeError> {
        if self.size == 0 || to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        if let Some(members) = self.members() {
            return scan_packed(members, from, to, direction, &mut |member, score| {
                if skip > 0 {
                    skip -= 1;
                    return ControlFlow::Continue(());
                }
                visit(member, score)
            });
        }
        let back = direction == Direction::Backward;
        let path = match (back, to) {
            (false, _) if from == (0, b"") => self.path_to_end(rows, false)?,
            (false, _) => self.path_to(rows, from)?,
            (true, Some(to)) => self.path_to(rows, to)?,
            (true, None) => self.path_to_end(rows, true)?,
        };
        // Only leaves at the ends of the range need a search.
        self.walk(rows, path, back, &mut |leaf, live, buf| {
            let start = if leaf.order(0) < from.0 || (leaf.order(0) == from.0 && !from.1.is_empty()) {
                leaf.before(from).clamp(live.start, live.end)
            } else {
                live.start
            };
            let end = match to {
                Some(to) if leaf.order(leaf.len() - 1) >= to.0 => leaf.before(to).clamp(start, live.end),
                _ => live.end,
            };
            let many = (end - start) as u64;
            let cut = skip.min(many);
            skip -= cut;
            let range = if back { start..end - cut as usize } else { start + cut as usize..end };
            if leaf.each(range, back, buf, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // What lies beyond the range ends the walk.
            let beyond = if back { start > live.start } else { end < live.end };
            Ok(if beyond { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// Gives `visit` the leaf at the end of `path` and those after it (or before it), each with the places whose members are there, until it breaks.
    fn walk(
        &self,
        rows: &(impl Rows + ?Sized),
        mut path: Path,
        back: bool,
        visit: &mut VisitLeaf<'_>,
    ) -> Result<(), TypeError> {
        let mut buf = buffer();
        let mut left = self.size;
        loop {
            let leaf = LeafRef::parse(&path.leaf)?;
            let live = self.live(path.way.number, &leaf)?;
            // So that a damaged tree is not walked for ever.
            left = left.checked_sub(live.len() as u64).ok_or_else(|| corrupt("more members than it counts"))?;
            if visit(&leaf, live, &mut buf)?.is_break() || !path.advance(self, rows, back)? {
                keep(buf);
                return Ok(());
            }
        }
    }

    /// How many members lie before a position.
    fn before(&self, rows: &(impl Rows + ?Sized), position: Position<'_>) -> Result<u64, TypeError> {
        if self.size == 0 {
            return Ok(0);
        }
        if let Some(mut members) = self.members() {
            let mut count = 0;
            while let Some(next) = members.next()?
                && next.position() < position
            {
                count += 1;
            }
            return Ok(count);
        }
        let path = self.counted_path_to(rows, position)?;
        let leaf = LeafRef::parse(&path.leaf)?;
        let live = self.live(path.way.number, &leaf)?;
        let counted = path.before + leaf.before(position).clamp(live.start, live.end) as u64;
        counted.checked_sub(u64::from(self.state.front)).ok_or_else(|| corrupt("counts do not add up"))
    }

    /// The ranks of the span's members: of the first, and the one after the last.
    pub(super) fn ranks(&self, rows: &(impl Rows + ?Sized), span: &Span) -> Result<(u64, u64), TypeError> {
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
        let back = reverse;
        if let Some(members) = self.members() {
            let mut skip = start;
            let direction = if reverse { Direction::Backward } else { Direction::Forward };
            return scan_packed(members, (0, b""), None, direction, &mut |member, score| {
                if skip > 0 {
                    skip -= 1;
                    return ControlFlow::Continue(());
                }
                left -= 1;
                visit(member, score)?;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        let rank = if reverse { self.size - 1 - start } else { start };
        let index = rank.saturating_add(u64::from(self.state.front));
        let path = self.path_to_index(rows, index)?;
        // The place in the first leaf from which, or back from which, it goes on.
        let mut place = usize::try_from(index - path.before).ok();
        self.walk(rows, path, back, &mut |leaf, live, buf| {
            let place = place.take();
            if place.is_some_and(|place| !live.contains(&place)) {
                return Err(corrupt("counts do not add up"));
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let range = if back {
                let end = place.map_or(live.end, |place| place + 1);
                live.start.max(end.saturating_sub(most))..end
            } else {
                let start = place.unwrap_or(live.start);
                start..live.end.min(start.saturating_add(most))
            };
            left -= range.len() as u64;
            let broken = leaf.each(range, back, buf, visit)?.is_break() || left == 0;
            Ok(if broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
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
        let mut left = limit.unwrap_or(u64::MAX);
        let direction = if reverse { Direction::Backward } else { Direction::Forward };
        self.scan(rows, borrow(&span.from), span.to.as_ref().map(borrow), direction, offset, &mut |member, score| {
            left -= 1;
            visit(member, score)?;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// Visits all members in order.
    pub fn each(&self, rows: &(impl Rows + ?Sized), visit: &mut Visit<'_>) -> Result<(), TypeError> {
        let (mut seen, mut broken) = (0, false);
        self.scan(rows, (0, b""), None, Direction::Forward, 0, &mut |member, score| {
            seen += 1;
            let flow = visit(member, score);
            broken = flow.is_break();
            flow
        })?;
        if broken || seen == self.size { Ok(()) } else { Err(corrupt("fewer members than it counts")) }
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
        if count.saturating_mul(DRAWN) >= self.size {
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
}
