//! One leaf of the tree, as bytes: members with their scores, in the order of the set.
//!
//! ```text
//! 0..2      n, u16 le, not zero
//! 2         form: 0, or 1 if ends take 4 bytes
//! 3..5      length of the beginning that all members have in common, u16 le
//! n times   order, u64 le
//! n times   end of the rest of the member, u16 le or u32 le
//! then      the common beginning, and the rests, one after the other
//! ```
//! An order is that of the score (see `order_of_f64`), but negative zero, which has the place of zero, has the number below. Ends count from the first rest.
//! The common beginning need not be the longest one. Nothing is read that lies outside, whatever the numbers say.
//!
//! Invariants: entries ascend strictly by (order, member); ends ascend and the last one is the end of the leaf.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use ardb_engine::row::f64_of_order;

use super::node::Position;
use crate::TypeError;

const HEAD: usize = 5;
const ORDER: usize = size_of::<u64>();
/// The order that stands for negative zero: no score has it.
const NEGATIVE_ZERO: u64 = (1 << 63) - 1;

/// What a range of entries is given to: the member and its score.
pub type Visit<'v> = dyn FnMut(&[u8], f64) -> ControlFlow<()> + 'v;

/// The number under which a score stands in a leaf.
pub fn raw_order(score: f64) -> u64 {
    let bits = score.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The order of the score that stands under this number.
fn order_of_raw(raw: u64) -> u64 {
    raw + u64::from(raw == NEGATIVE_ZERO)
}

fn damaged() -> TypeError {
    TypeError::Corrupt("sorted set: damaged leaf".into())
}

/// A leaf, read.
#[derive(Clone, Copy)]
pub struct LeafRef<'a> {
    orders: &'a [u8],
    ends: &'a [u8],
    prefix: &'a [u8],
    rests: &'a [u8],
}

impl<'a> LeafRef<'a> {
    /// Checks the form of a leaf.
    pub fn parse(bytes: &'a [u8]) -> Result<LeafRef<'a>, TypeError> {
        let [n0, n1, form, p0, p1, rest @ ..] = bytes else { return Err(damaged()) };
        let n = usize::from(u16::from_le_bytes([*n0, *n1]));
        if n == 0 || *form > 1 {
            return Err(damaged());
        }
        let (orders, rest) = rest.split_at_checked(n * ORDER).ok_or_else(damaged)?;
        let (ends, rest) = rest.split_at_checked(n * if *form == 1 { 4 } else { 2 }).ok_or_else(damaged)?;
        let prefix = usize::from(u16::from_le_bytes([*p0, *p1]));
        let (prefix, rests) = rest.split_at_checked(prefix).ok_or_else(damaged)?;
        let leaf = LeafRef { orders, ends, prefix, rests };
        if leaf.end(n) == rests.len() { Ok(leaf) } else { Err(damaged()) }
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.orders.len() / ORDER
    }

    fn is_wide(&self) -> bool {
        self.ends.len() != 2 * self.len()
    }

    /// The number under which the score of entry `i`, which is below [`LeafRef::len`], stands.
    #[inline]
    fn raw(&self, i: usize) -> u64 {
        let mut eight = [0; ORDER];
        eight.copy_from_slice(&self.orders[i * ORDER..(i + 1) * ORDER]);
        u64::from_le_bytes(eight)
    }

    /// Where the rests of the first `i` entries end.
    #[inline]
    fn end(&self, i: usize) -> usize {
        if i == 0 {
            0
        } else if self.is_wide() {
            let mut four = [0; 4];
            four.copy_from_slice(&self.ends[(i - 1) * 4..i * 4]);
            u32::from_le_bytes(four) as usize
        } else {
            usize::from(u16::from_le_bytes([self.ends[(i - 1) * 2], self.ends[i * 2 - 1]]))
        }
    }

    /// What follows the common beginning in entry `i`.
    #[inline]
    fn rest(&self, i: usize) -> &'a [u8] {
        // Damaged ends give nothing: wrong, but no panic.
        self.rests.get(self.end(i)..self.end(i + 1)).unwrap_or(b"")
    }

    /// The score of entry `i`.
    pub fn score(&self, i: usize) -> Result<f64, TypeError> {
        let score = f64_of_order(self.raw(i));
        if score.is_nan() { Err(damaged()) } else { Ok(score) }
    }

    /// The order of entry `i`.
    pub fn order(&self, i: usize) -> u64 {
        order_of_raw(self.raw(i))
    }

    /// Appends the member of entry `i` to `out`.
    pub fn member(&self, i: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix);
        out.extend_from_slice(self.rest(i));
    }

    /// How the member of entry `i` compares with `name`.
    #[inline]
    fn cmp_member(&self, i: usize, name: &[u8]) -> Ordering {
        match name.split_at_checked(self.prefix.len()) {
            Some((start, rest)) => self.prefix.cmp(start).then_with(|| self.rest(i).cmp(rest)),
            // The name is shorter than what all begin with: if it is a beginning of that, they come after it.
            None => self.prefix.cmp(name),
        }
    }

    /// How many entries lie before `position`.
    #[inline]
    pub fn before(&self, position: Position<'_>) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            let is_before = match self.order(middle).cmp(&position.0) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => self.cmp_member(middle, position.1) == Ordering::Less,
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether entry `i` is there and stands at this very position.
    pub fn is_at(&self, i: usize, position: Position<'_>) -> bool {
        i < self.len() && self.order(i) == position.0 && self.cmp_member(i, position.1) == Ordering::Equal
    }

    /// Calls `visit` with a range of entries, backward if `reverse`, until it breaks. `buf` is room for a member.
    pub fn each(
        &self,
        range: Range<usize>,
        reverse: bool,
        buf: &mut Vec<u8>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, TypeError> {
        buf.clear();
        buf.extend_from_slice(self.prefix);
        let many = range.len();
        for step in 0..many {
            let i = if reverse { range.end - 1 - step } else { range.start + step };
            let score = self.score(i)?;
            let member = if self.prefix.is_empty() {
                self.rest(i)
            } else {
                buf.truncate(self.prefix.len());
                buf.extend_from_slice(self.rest(i));
                buf.as_slice()
            };
            if visit(member, score).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Bytes of the rests of a range.
    fn bytes(&self, range: &Range<usize>) -> Result<usize, TypeError> {
        let (start, end) = (self.end(range.start), self.end(range.end));
        if end > self.rests.len() { Err(damaged()) } else { end.checked_sub(start).ok_or_else(damaged) }
    }

    /// The place at which the leaf can be cut so that what lies left of it and right of it is about as long. There are two entries at least.
    pub fn half(&self, range: &Range<usize>) -> usize {
        let weight = |i: usize| i * (ORDER + 2) + self.end(i);
        let wanted = (weight(range.start) + weight(range.end)) / 2;
        let (mut low, mut high) = (range.start + 1, range.end - 1);
        while low < high {
            let middle = (low + high) / 2;
            if weight(middle) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The cut before or after the entry in the middle, whichever is nearer.
        if low > range.start + 1 && weight(low).abs_diff(wanted) > weight(low - 1).abs_diff(wanted) {
            low -= 1;
        }
        low
    }

    /// Bytes that a leaf of this range alone would take, at most.
    pub fn weight(&self, range: &Range<usize>) -> usize {
        HEAD + self.prefix.len() + range.len() * (ORDER + 2) + self.end(range.end).saturating_sub(self.end(range.start))
    }
}

/// The shortest position after entry `i` of `left` and not after entry `j` of `right`, which comes later: a separator need not be an entry's own place.
pub fn separator(left: &LeafRef<'_>, i: usize, right: &LeafRef<'_>, j: usize) -> (u64, Vec<u8>) {
    if left.order(i) != right.order(j) {
        return (right.order(j), Vec::new());
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    left.member(i, &mut before);
    right.member(j, &mut after);
    let common = common(&before, &after);
    after.truncate(common + 1);
    (right.order(j), after)
}

/// How many bytes two names have in common at their beginnings.
pub fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A part of a leaf to be.
#[derive(Clone)]
pub enum Part<'a> {
    /// Entries of another leaf.
    Old(LeafRef<'a>, Range<usize>),
    /// An entry: the number of its score ([`raw_order`]), and the member.
    New(u64, &'a [u8]),
}

impl Part<'_> {
    fn len(&self) -> usize {
        if let Part::Old(_, range) = self { range.len() } else { 1 }
    }
}

/// Replaces `out` by a leaf of these parts, which follow one another in the order of the set. Gives the number of entries; without any, `out` is empty.
pub fn build(out: &mut Vec<u8>, parts: &[Part<'_>]) -> Result<usize, TypeError> {
    out.clear();
    let n: usize = parts.iter().map(Part::len).sum();
    if n == 0 {
        return Ok(0);
    }
    // As a rule all entries come from one leaf and a new one begins as they do. Then the parts are copied as they lie.
    let base = parts.iter().find_map(|part| if let Part::Old(leaf, _) = part { Some(*leaf) } else { None });
    if let Some(base) = base
        && parts.iter().all(|part| match part {
            Part::Old(leaf, _) => std::ptr::eq(leaf.orders, base.orders),
            Part::New(_, member) => member.starts_with(base.prefix),
        })
    {
        lay_out(out, n, base.prefix, parts, base.prefix.len())?;
    } else {
        rebuild(out, parts)?;
    }
    Ok(n)
}

/// As [`build`] of one entry at least, with the longest common beginning.
pub fn rebuild(out: &mut Vec<u8>, parts: &[Part<'_>]) -> Result<(), TypeError> {
    out.clear();
    let n = parts.iter().map(Part::len).sum();
    let mut names = Vec::new();
    let mut entries = Vec::with_capacity(n);
    for part in parts {
        match part {
            Part::Old(leaf, range) => {
                for i in range.clone() {
                    let from = names.len();
                    leaf.member(i, &mut names);
                    entries.push((leaf.raw(i), from..names.len()));
                }
            }
            Part::New(raw, member) => {
                let from = names.len();
                names.extend_from_slice(member);
                entries.push((*raw, from..names.len()));
            }
        }
    }
    let mut prefix = entries.first().map_or(&b""[..], |(_, range)| &names[range.clone()]);
    for (_, range) in &entries {
        prefix = &prefix[..common(prefix, &names[range.clone()])];
    }
    let prefix = &prefix[..prefix.len().min(usize::from(u16::MAX))];
    let fresh: Vec<Part<'_>> = entries.iter().map(|(raw, range)| Part::New(*raw, &names[range.clone()])).collect();
    lay_out(out, n, prefix, &fresh, prefix.len())
}

/// Writes the parts, each of which begins with `prefix`: what is new with all of it, the others without.
fn lay_out(out: &mut Vec<u8>, n: usize, prefix: &[u8], parts: &[Part<'_>], skip: usize) -> Result<(), TypeError> {
    let count = u16::try_from(n).map_err(|_| damaged())?;
    let common = u16::try_from(prefix.len()).map_err(|_| damaged())?;
    let mut bytes = 0;
    for part in parts {
        bytes += match part {
            Part::Old(leaf, range) => leaf.bytes(range)?,
            Part::New(_, member) => member.len() - skip,
        };
    }
    let wide = bytes > usize::from(u16::MAX);
    u32::try_from(bytes).map_err(|_| TypeError::Corrupt("sorted set: a leaf is too long".into()))?;
    out.reserve(HEAD + n * (ORDER + if wide { 4 } else { 2 }) + prefix.len() + bytes);
    out.extend_from_slice(&count.to_le_bytes());
    out.push(u8::from(wide));
    out.extend_from_slice(&common.to_le_bytes());
    for part in parts {
        match part {
            Part::Old(leaf, range) => out.extend_from_slice(&leaf.orders[range.start * ORDER..range.end * ORDER]),
            Part::New(raw, _) => out.extend_from_slice(&raw.to_le_bytes()),
        }
    }
    let mut end = 0;
    for part in parts {
        match part {
            Part::Old(leaf, range) => {
                let start = leaf.end(range.start);
                if wide || leaf.is_wide() {
                    for i in range.clone() {
                        push_end(out, end + leaf.end(i + 1).saturating_sub(start), wide);
                    }
                } else {
                    // All move by the same distance.
                    let by = (end as u16).wrapping_sub(start as u16);
                    let at = out.len();
                    out.extend_from_slice(&leaf.ends[range.start * 2..range.end * 2]);
                    for end in out[at..].chunks_exact_mut(2) {
                        let moved = u16::from_le_bytes([end[0], end[1]]).wrapping_add(by);
                        end.copy_from_slice(&moved.to_le_bytes());
                    }
                }
                end += leaf.bytes(range)?;
            }
            Part::New(_, member) => {
                end += member.len() - skip;
                push_end(out, end, wide);
            }
        }
    }
    out.extend_from_slice(prefix);
    for part in parts {
        match part {
            Part::Old(leaf, range) => out.extend_from_slice(&leaf.rests[leaf.end(range.start)..leaf.end(range.end)]),
            Part::New(_, member) => out.extend_from_slice(&member[skip..]),
        }
    }
    Ok(())
}

fn push_end(out: &mut Vec<u8>, end: usize, wide: bool) {
    if wide {
        out.extend_from_slice(&(end as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&(end as u16).to_le_bytes());
    }
}
