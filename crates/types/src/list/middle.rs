//! Changes of a list in rows elsewhere than at its ends.
//!
//! What changes the number of elements in the middle writes the chunks between there and one end anew, that with fewer of them, one at a time; what is left over or lacks
//! joins the edge. So memory is bounded, and the longer side is not touched.

use std::ops::{ControlFlow, Range};

use ardb_engine::{Direction, Rows, RowsMut};

use super::End;
use super::chunks::{Chunks, Spot};
use super::element::{self, Element, damaged, element_at, must_be, skip};
use crate::TypeError;

/// Where elements are that are to be removed: these and no others are equal to the value within `all`.
struct Hits {
    count: u64,
    /// From the first to the last.
    all: Range<u64>,
    /// The chunks with the first and the last that is in one.
    chunks: Option<(u64, u64)>,
}

impl Chunks {
    /// Replaces the element at an index below the length.
    pub fn set(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        match self.spot(index) {
            Spot::Edge(end, position) => {
                let (count, mut bytes) = self.take_edge(end);
                self.set_in(rows, &mut bytes, position, value)?;
                self.put_edge(rows, end, count, bytes)
            }
            Spot::Chunk(chunk, position) => {
                let mut bytes = self.chunk(rows, chunk)?.to_vec();
                if self.set_in(rows, &mut bytes, position, value)? {
                    rows.put(self.chunk_row(chunk), &bytes);
                }
                Ok(())
            }
        }
    }

    /// Replaces the element at a position; whether that changed `bytes`.
    fn set_in(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        bytes: &mut Vec<u8>,
        position: usize,
        value: &[u8],
    ) -> Result<bool, TypeError> {
        let start = skip(bytes, 0, position)?;
        let (old, end) = element_at(bytes, start).ok_or_else(damaged)?;
        if let Element::Apart(number) = old {
            self.apart(rows, number)?;
            if value.len() > self.limit() {
                rows.put(self.apart_row(number), value);
                return Ok(false);
            }
        }
        self.free(rows, old)?;
        let new = self.own(rows, value);
        element::write(bytes, start..end, Some(new));
        Ok(true)
    }

    /// Puts `value` before the element at an index, which is within the list.
    pub fn insert(&mut self, rows: &mut (impl RowsMut + ?Sized), index: u64, value: &[u8]) -> Result<(), TypeError> {
        let element = self.own(rows, value);
        let (front, back) = (self.edge(End::Left).count() as u64, self.edge(End::Right).count() as u64);
        let behind = self.len() - index;
        let (end, position) = if index <= front {
            (End::Left, index as usize)
        } else if behind <= back {
            (End::Right, behind as usize)
        } else {
            let (at, k) = (index - front, self.k as u64);
            let (chunk, position) = (at / k, (at % k) as usize);
            let end = if chunk < self.count / 2 { End::Left } else { End::Right };
            return self.rewrite(rows, chunk, end, |_, _, n, bytes, out| {
                let from = out.len();
                out.extend_from_slice(bytes);
                if n != chunk {
                    return Ok(0);
                }
                let at = from + skip(bytes, 0, position)?;
                element::write(out, at..at, Some(element));
                Ok(1)
            });
        };
        let (count, mut bytes) = self.take_edge(end);
        element::replace(&mut bytes, position, 0, Some(element))?;
        self.put_edge(rows, end, count + 1, bytes)
    }

    /// Writes the chunks from this one (counted from the first) to an end anew. `edit` is given each chunk's number and bytes, and appends what shall stand there: how
    /// many elements more that are (one at most), or fewer.
    fn rewrite<R: RowsMut + ?Sized>(
        &mut self,
        rows: &mut R,
        chunk: u64,
        end: End,
        mut edit: impl FnMut(&mut Chunks, &mut R, u64, &[u8], &mut Vec<u8>) -> Result<isize, TypeError>,
    ) -> Result<(), TypeError> {
        let k = self.k;
        // The elements that are to stand next, in the order of the list, fewer than a chunk between two steps; and how many chunks have been written. None is written
        // that has not been read, since at most one element is more.
        let (mut held, mut bytes, mut written) = (0usize, Vec::new(), 0u64);
        let left = if end == End::Left { chunk + 1 } else { self.count - chunk };
        let nth = |n: u64| if end == End::Left { chunk - n } else { chunk + n };
        let mut before = Vec::new();
        for n in 0..left {
            let value = self.chunk(rows, nth(n))?;
            must_be(&value, k)?;
            let more = if end == End::Left {
                std::mem::swap(&mut before, &mut bytes);
                bytes.clear();
                let more = edit(self, rows, nth(n), &value, &mut bytes)?;
                bytes.extend_from_slice(&before);
                more
            } else {
                edit(self, rows, nth(n), &value, &mut bytes)?
            };
            held = (held + k).checked_add_signed(more).ok_or_else(damaged)?;
            if held < k {
                continue;
            }
            held -= k;
            if end == End::Left {
                let at = skip(&bytes, 0, held)?;
                rows.put(self.chunk_row(nth(written)), &bytes[at..]);
                bytes.truncate(at);
            } else {
                let at = skip(&bytes, 0, k)?;
                rows.put(self.chunk_row(nth(written)), &bytes[..at]);
                bytes.drain(..at);
            }
            written += 1;
        }
        self.delete_chunks(rows, end, left - written);
        if held > 0 {
            let (count, mut edge) = self.take_edge(end);
            if end == End::Left {
                edge.extend_from_slice(&bytes);
            } else {
                element::reverse(&bytes, held, &mut edge)?;
            }
            self.put_edge(rows, end, count + held, edge)?;
        }
        Ok(())
    }

    /// Takes out this many elements at an end, but not all.
    pub fn cut(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, count: u64) -> Result<(), TypeError> {
        let (mut left, k) = (count, self.k as u64);
        let outer = self.edge(end).count() as u64;
        if left >= outer {
            let (all, bytes) = self.take_edge(end);
            self.free_all(rows, &bytes, 0, all)?;
            left -= outer;
            let whole = (left / k).min(self.count);
            let last = whole.checked_sub(1).map(|n| if end == End::Left { n } else { self.count - 1 - n });
            if let Some(last) = last {
                // A size that is wrong by far must not make for as many deletions.
                self.chunk(rows, last)?;
            }
            for n in 0..whole {
                if self.apart == 0 {
                    break;
                }
                let value = self.chunk(rows, if end == End::Left { n } else { self.count - 1 - n })?;
                self.free_all(rows, &value, 0, self.k)?;
            }
            self.delete_chunks(rows, end, whole);
            left -= whole * k;
            if left == 0 {
                return Ok(());
            }
            if self.count == 0 {
                return self.cut_inner(rows, end.other(), left as usize);
            }
            self.refill(rows, end)?;
        }
        let (count, mut bytes) = self.take_edge(end);
        let gone = left as usize;
        self.free_all(rows, &bytes, 0, gone)?;
        element::replace(&mut bytes, 0, gone, None)?;
        self.put_edge(rows, end, count - gone, bytes)
    }

    /// Takes out the innermost elements of an edge, of which there are more.
    fn cut_inner(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, gone: usize) -> Result<(), TypeError> {
        let (count, mut bytes) = self.take_edge(end);
        let stays = count.checked_sub(gone).ok_or_else(damaged)?;
        self.free_all(rows, &bytes, stays, gone)?;
        let at = skip(&bytes, 0, stays)?;
        bytes.truncate(at);
        self.put_edge(rows, end, stays, bytes)
    }

    /// Whether an element is this value. One held apart is only read if it may be.
    fn is(&self, rows: &(impl Rows + ?Sized), element: Element<'_>, value: &[u8]) -> Result<bool, TypeError> {
        match element {
            Element::Here(string) => Ok(string == value),
            Element::Apart(number) => Ok(value.len() > self.limit() && *self.apart(rows, number)? == *value),
        }
    }

    /// Removes at most `limit` elements equal to `value`, from the first or from the last on. How many went.
    pub fn remove(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        direction: Direction,
        limit: u64,
        value: &[u8],
    ) -> Result<u64, TypeError> {
        let hits = self.hits(rows, direction, limit, value)?;
        if hits.count == 0 || hits.count == self.len() {
            return Ok(hits.count);
        }
        // As the hits were counted.
        let (front, k, len) = (self.edge(End::Left).count() as u64, self.k as u64, self.len());
        for end in [End::Left, End::Right] {
            let (count, bytes) = self.take_edge(end);
            let mut out = Vec::with_capacity(bytes.len());
            let index = |position: usize| match end {
                End::Left => position as u64,
                End::Right => len - 1 - position as u64,
            };
            let gone = self.keep(rows, &bytes, count, value, &mut out, |at| hits.all.contains(&index(at)))?;
            self.put_edge(rows, end, count - gone, out)?;
        }
        if let Some((first, last)) = hits.chunks {
            let (chunk, end) = if last + 1 < self.count - first { (last, End::Left) } else { (first, End::Right) };
            self.rewrite(rows, chunk, end, |list, rows, n, bytes, out| {
                let start = front + n * k;
                let gone =
                    list.keep(rows, bytes, k as usize, value, out, |at| hits.all.contains(&(start + at as u64)))?;
                Ok(-(gone as isize))
            })?;
        }
        Ok(hits.count)
    }

    fn hits(
        &self,
        rows: &(impl Rows + ?Sized),
        direction: Direction,
        limit: u64,
        value: &[u8],
    ) -> Result<Hits, TypeError> {
        let mut hits = Hits { count: 0, all: 0..0, chunks: None };
        self.walk(rows, 0, self.len(), direction, &mut |index, element| {
            if self.is(rows, element, value)? {
                let all = &mut hits.all;
                *all = if hits.count == 0 { index..index + 1 } else { all.start.min(index)..all.end.max(index + 1) };
                if let Spot::Chunk(chunk, _) = self.spot(index) {
                    let (first, last) = hits.chunks.unwrap_or((chunk, chunk));
                    hits.chunks = Some((first.min(chunk), last.max(chunk)));
                }
                hits.count += 1;
            }
            Ok(if hits.count >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(hits)
    }

    /// Appends these elements to `out` but for those that are `value` at a position where it shall go, whose rows are deleted: how many.
    fn keep(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        bytes: &[u8],
        count: usize,
        value: &[u8],
        out: &mut Vec<u8>,
        goes: impl Fn(usize) -> bool,
    ) -> Result<usize, TypeError> {
        let (mut at, mut gone) = (0, 0);
        for position in 0..count {
            let (element, end) = element_at(bytes, at).ok_or_else(damaged)?;
            if goes(position) && self.is(rows, element, value)? {
                self.free(rows, element)?;
                gone += 1;
            } else {
                out.extend_from_slice(&bytes[at..end]);
            }
            at = end;
        }
        Ok(gone)
    }
}
