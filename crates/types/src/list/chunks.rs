//! A list in rows: its edges in the key's row, and between them chunks of `k` elements each, a row for each chunk.
//!
//! ```text
//! key's row, after the size:
//! 0..2    k: elements of a chunk, u16 le, 2 to 128
//! 2..4    elements of the front edge, u16 le
//! 4..6    elements of the back edge, u16 le
//! 6..8    bytes of the front edge, u16 le
//! 8..16   number of the first chunk, i64 le
//! 16..24  how many elements are held apart, u64 le
//! 24..32  number of the next row of an element held apart, u64 le
//! 32..    the front edge, then the back edge, to the end
//! ```
//!
//! The rows lie in `Element` space: chunk n, whose elements are in the order of the list, at the order of n as a signed number; and an element held apart at its number.
//! Chunk numbers are within 2^61 of zero and numbers of rows apart below 2^62, so they do not meet.
//!
//! Invariants: there are `(size - front - back) / k` chunks, without a rest, with consecutive numbers; each has k elements; an edge has fewer than 2k, its outermost
//! element first (so the back edge lies in the opposite order of the list); an element is held apart exactly if it is longer than `APART / k` bytes; such
//! elements and their rows are one to one. `check` in the tests holds all of that.
//!
//! What is pushed joins an edge, which is in the key's row, so one row is written. At 2k elements the inner k become a chunk; an empty edge takes the
//! next chunk in. So a stack or queue writes another row once in k changes at most.

use std::ops::ControlFlow;

use ardb_base::id::ObjectId;
use ardb_engine::row::order_of_i64;
use ardb_engine::{Direction, RowKey, Rows, RowsMut, Space, Value};

use super::End;
use super::edge::Edge;
use super::element::{self, CHUNK_MAX, Element, MARK_LEN, backward, damaged, element_at, forward, skip};
use crate::collection::Bytes;
use crate::{KeyRow, TypeError};

/// Bytes before the edges in the key's row.
const HEAD: usize = 32;
/// Bytes that a chunk should have.
const CHUNK: usize = 1024;
/// Fewest and most elements of a chunk in a new list.
const FEWEST: usize = 4;
const MOST: usize = 32;
/// Most bytes of a chunk, lengths not counted: an element of more than its share of that is held apart.
const APART: usize = 4096;
/// Bounds of chunk numbers, and of numbers of rows apart.
const FAR: u64 = 1 << 61;

/// A list in rows, open.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    pub(super) object: ObjectId,
    /// The row in which the edges' old parts lie.
    row: Option<KeyRow>,
    pub(super) k: usize,
    /// Number of the first chunk.
    pub(super) first: i64,
    /// How many chunks there are.
    pub(super) count: u64,
    /// How many elements are held apart.
    pub(super) apart: u64,
    next: u64,
    front: Edge,
    back: Edge,
}

/// Where an element is.
pub(super) enum Spot {
    /// At an edge, at this position from outside.
    Edge(End, usize),
    /// In this chunk, counted from the first, at this position.
    Chunk(u64, usize),
}

impl Chunks {
    /// An empty list of chunks that suit these elements.
    pub fn new<'e>(object: ObjectId, elements: impl Iterator<Item = &'e [u8]>) -> Chunks {
        let (mut count, mut bytes) = (0, 0);
        for element in elements {
            count += 1;
            // Those that are held apart whatever `k` do not count by their length.
            bytes += 1 + if element.len() > APART / FEWEST { MARK_LEN } else { element.len() };
        }
        let k = (CHUNK * count).checked_div(bytes).map_or(MOST, |k| k.clamp(FEWEST, MOST));
        let (front, back) = Default::default();
        Chunks { object, row: None, k, first: 0, count: 0, apart: 0, next: 0, front, back }
    }

    /// The list of which this is the key's row.
    pub fn parse(row: KeyRow) -> Result<Chunks, TypeError> {
        let header = || TypeError::Corrupt("list header".into());
        let extra = row.extra();
        let head: [u8; HEAD] = *extra.first_chunk().ok_or_else(header)?;
        let short = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (k, counts, middle) = (short(0), [short(2), short(4)], HEAD + short(6));
        let (first, apart, next) = (long(8) as i64, long(16), long(24));
        let parts = [HEAD..middle, middle..extra.len()];
        let edges_fit = middle <= extra.len()
            && counts.iter().zip(&parts).all(|(count, part)| *count < 2 * k && (*count == 0) == part.is_empty());
        let inner = row.size().checked_sub((counts[0] + counts[1]) as u64).ok_or_else(header)?;
        let whole = (2..=CHUNK_MAX).contains(&k) && edges_fit && row.size() > 0;
        if !whole || inner % k as u64 != 0 || first.unsigned_abs() > FAR || inner > FAR || next > FAR || apart > next {
            return Err(header());
        }
        let [front, back] = parts;
        Ok(Chunks {
            object: row.object(),
            k,
            first,
            count: inner / k as u64,
            apart,
            next,
            front: Edge::of_row(counts[0], front),
            back: Edge::of_row(counts[1], back),
            row: Some(row),
        })
    }

    /// What stands before the edges in the key's row.
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        // An edge has fewer than 256 elements, each no longer than a share of `APART`.
        let shorts = [self.k, self.front.count(), self.back.count(), self.front.len()];
        for (out, short) in head.chunks_exact_mut(2).zip(shorts) {
            out.copy_from_slice(&(short as u16).to_le_bytes());
        }
        for (out, long) in head[8..].chunks_exact_mut(8).zip([self.first as u64, self.apart, self.next]) {
            out.copy_from_slice(&long.to_le_bytes());
        }
        head
    }

    /// What follows that.
    pub fn edges(&self) -> [&[u8]; 4] {
        let row = self.row();
        let ([a, b], [c, d]) = (self.front.parts(row), self.back.parts(row));
        [a, b, c, d]
    }

    fn row(&self) -> &[u8] {
        self.row.as_ref().map_or(&[], KeyRow::extra)
    }

    pub(super) fn edge(&self, end: End) -> &Edge {
        if end == End::Left { &self.front } else { &self.back }
    }

    /// An edge to change, and the bytes of which it is a part.
    fn edge_mut(&mut self, end: End) -> (&mut Edge, &[u8]) {
        let row = self.row.as_ref().map_or(&[][..], KeyRow::extra);
        (if end == End::Left { &mut self.front } else { &mut self.back }, row)
    }

    /// Takes an edge out, to put it back by [`Chunks::put_edge`]: how many elements, outermost first, and their bytes.
    pub(super) fn take_edge(&mut self, end: End) -> (usize, Vec<u8>) {
        let (edge, row) = self.edge_mut(end);
        edge.take(row)
    }

    /// Makes these elements, outermost first, an edge. Inner ones become chunks, if there are too many.
    pub(super) fn put_edge(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        end: End,
        count: usize,
        bytes: Vec<u8>,
    ) -> Result<(), TypeError> {
        *self.edge_mut(end).0 = Edge::of_bytes(count, bytes);
        while self.edge(end).count() >= 2 * self.k {
            self.spill(rows, end)?;
        }
        Ok(())
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        (self.front.count() + self.back.count()) as u64 + self.count * self.k as u64
    }

    /// Elements of more bytes are held apart.
    pub(super) fn limit(&self) -> usize {
        APART / self.k
    }

    /// The name of the row of a chunk, counted from the first.
    pub(super) fn chunk_row(&self, chunk: u64) -> RowKey<'static> {
        let number = self.first.wrapping_add_unsigned(chunk);
        RowKey::new(Space::Element, self.object.0, order_of_i64(number), b"")
    }

    /// The bytes of a chunk, counted from the first.
    #[inline]
    pub(super) fn chunk(&self, rows: &(impl Rows + ?Sized), chunk: u64) -> Result<Value, TypeError> {
        rows.get(self.chunk_row(chunk))?.ok_or_else(|| TypeError::Corrupt("a list lacks a chunk".into()))
    }

    /// The name of the row of an element held apart.
    pub(super) fn apart_row(&self, number: u64) -> RowKey<'static> {
        RowKey::new(Space::Element, self.object.0, number, b"")
    }

    /// The bytes of an element held apart.
    pub(super) fn apart(&self, rows: &(impl Rows + ?Sized), number: u64) -> Result<Value, TypeError> {
        let value = if number < self.next { rows.get(self.apart_row(number))? } else { None };
        value.ok_or_else(|| TypeError::Corrupt("a list lacks an element held apart".into()))
    }

    /// An element as it is to lie in a chunk or at an edge: a long one gets a row.
    #[inline]
    pub(super) fn own<'v>(&mut self, rows: &mut (impl RowsMut + ?Sized), value: &'v [u8]) -> Element<'v> {
        if value.len() <= self.limit() {
            return Element::Here(value);
        }
        let number = self.next;
        self.next += 1;
        self.apart += 1;
        rows.put(self.apart_row(number), value);
        Element::Apart(number)
    }

    /// Deletes the row of an element that was taken out, if it has one; its bytes then.
    pub(super) fn free(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        element: Element<'_>,
    ) -> Result<Option<Value>, TypeError> {
        let Element::Apart(number) = element else { return Ok(None) };
        let value = self.apart(rows, number)?;
        rows.delete(self.apart_row(number));
        self.apart = self.apart.checked_sub(1).ok_or_else(damaged)?;
        Ok(Some(value))
    }

    /// As [`Chunks::free`] for `count` elements after the first `from` of these, which are only read if any is held apart.
    pub(super) fn free_all(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        bytes: &[u8],
        from: usize,
        count: usize,
    ) -> Result<(), TypeError> {
        if self.apart > 0 {
            let _ = forward(bytes, from, count, |element| {
                self.free(rows, element)?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    /// Where the element at an index below the length is.
    pub(super) fn spot(&self, index: u64) -> Spot {
        let front = self.front.count() as u64;
        if index < front {
            return Spot::Edge(End::Left, index as usize);
        }
        let (chunk, position) = ((index - front) / self.k as u64, (index - front) % self.k as u64);
        if chunk < self.count {
            return Spot::Chunk(chunk, position as usize);
        }
        Spot::Edge(End::Right, (self.len() - 1 - index) as usize)
    }

    /// The element at an index below the length.
    pub fn get(&self, rows: &(impl Rows + ?Sized), index: u64) -> Result<Bytes<'_>, TypeError> {
        let element = match self.spot(index) {
            Spot::Edge(end, position) => self.edge(end).get(self.row(), position)?,
            Spot::Chunk(chunk, position) => {
                let bytes = self.chunk(rows, chunk)?;
                let at = skip(&bytes, 0, position)?;
                match element_at(&bytes, at).ok_or_else(damaged)? {
                    (Element::Here(string), end) => {
                        let from = end - string.len();
                        return Ok(Bytes::Part(bytes, from..end));
                    }
                    (Element::Apart(number), _) => Element::Apart(number),
                }
            }
        };
        Ok(match element {
            Element::Here(string) => Bytes::Packed(string),
            Element::Apart(number) => Bytes::Row(self.apart(rows, number)?),
        })
    }

    /// Visits the elements at indexes `from..to` (within the length), as they lie there, until it breaks.
    #[inline]
    pub(super) fn walk(
        &self,
        rows: &(impl Rows + ?Sized),
        from: u64,
        to: u64,
        direction: Direction,
        visit: &mut impl FnMut(u64, Element<'_>) -> Result<ControlFlow<()>, TypeError>,
    ) -> Result<(), TypeError> {
        let up = direction == Direction::Forward;
        let (front, k, mut room) = (self.front.count() as u64, self.k as u64, Vec::new());
        let back = front + self.count * k;
        // What is left to be visited, and the next index of it.
        let (mut low, mut high) = (from, to);
        while low < high {
            let mut index = if up { low } else { high - 1 };
            // The part in which it lies, the indexes of that, and whether it lies in the order of the list.
            let value;
            let (bytes, start, end) = if index < front {
                (self.front.bytes(self.row(), &mut room), 0, front)
            } else if index < back {
                let chunk = (index - front) / k;
                value = self.chunk(rows, chunk)?;
                (&*value, front + chunk * k, front + (chunk + 1) * k)
            } else {
                (self.back.bytes(self.row(), &mut room), back, self.len())
            };
            let (first, last) = (low.max(start), high.min(end));
            if first >= last {
                return Err(damaged());
            }
            let mut visit = |element: Element<'_>| {
                let at = index;
                index = if up { at + 1 } else { at.wrapping_sub(1) };
                visit(at, element)
            };
            let count = (last - first) as usize;
            let turned = start == back;
            let skipped = if turned { end - last } else { first - start } as usize;
            let flow = if up == turned {
                backward(bytes, skipped, count, &mut visit)?
            } else {
                forward(bytes, skipped, count, &mut visit)?
            };
            if flow.is_break() {
                return Ok(());
            }
            if up { low = last } else { high = first }
        }
        Ok(())
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, value: &[u8]) -> Result<(), TypeError> {
        let element = self.own(rows, value);
        self.edge_mut(end).0.push(element);
        if self.edge(end).count() >= 2 * self.k { self.spill(rows, end) } else { Ok(()) }
    }

    /// Takes the element at an end of a list that is not empty, and gives it to `take`.
    #[inline]
    pub fn pop(
        &mut self,
        rows: &mut (impl RowsMut + ?Sized),
        end: End,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TypeError> {
        if self.edge(end).count() == 0 {
            self.refill(rows, end)?;
        }
        let (edge, row) = self.edge_mut(end);
        let (element, len) = edge.outermost(row)?;
        let apart = match element {
            Element::Here(string) => {
                take(string);
                None
            }
            Element::Apart(number) => Some(number),
        };
        edge.shed(len)?;
        if let Some(number) = apart {
            take(&self.free(rows, Element::Apart(number))?.ok_or_else(damaged)?);
        }
        Ok(())
    }

    /// Makes the inner `k` elements of an edge a chunk.
    #[cold]
    fn spill(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End) -> Result<(), TypeError> {
        let (count, mut bytes) = self.take_edge(end);
        let stays = count.checked_sub(self.k).ok_or_else(damaged)?;
        let from = skip(&bytes, 0, stays)?;
        let inner = &bytes[from..];
        if end == End::Left {
            element::must_be(inner, self.k)?;
            self.first -= 1;
            rows.put(self.chunk_row(0), inner);
        } else {
            let mut chunk = Vec::new();
            element::reverse(inner, self.k, &mut chunk)?;
            rows.put(self.chunk_row(self.count), &chunk);
        }
        self.count += 1;
        bytes.truncate(from);
        *self.edge_mut(end).0 = Edge::of_bytes(stays, bytes);
        Ok(())
    }

    /// Fills an empty edge from the next chunk or, if there is none, from the other edge, of which it takes the inner half.
    #[cold]
    pub(super) fn refill(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End) -> Result<(), TypeError> {
        let mut bytes = Vec::new();
        if self.count == 0 {
            let other = end.other();
            let (count, mut from) = self.take_edge(other);
            let stays = count / 2;
            let at = skip(&from, 0, stays)?;
            element::reverse(&from[at..], count - stays, &mut bytes)?;
            from.truncate(at);
            *self.edge_mut(other).0 = Edge::of_bytes(stays, from);
            *self.edge_mut(end).0 = Edge::of_bytes(count - stays, bytes);
            return Ok(());
        }
        let chunk = if end == End::Left { 0 } else { self.count - 1 };
        let value = self.chunk(rows, chunk)?;
        if end == End::Left {
            // How many these are is seen when they are taken out, or become a chunk again.
            bytes.extend_from_slice(&value);
        } else {
            element::reverse(&value, self.k, &mut bytes)?;
        }
        self.delete_chunks(rows, end, 1);
        *self.edge_mut(end).0 = Edge::of_bytes(self.k, bytes);
        Ok(())
    }

    /// Deletes this many chunks, of those there are, at an end.
    pub(super) fn delete_chunks(&mut self, rows: &mut (impl RowsMut + ?Sized), end: End, count: u64) {
        for n in 0..count {
            rows.delete(self.chunk_row(if end == End::Left { n } else { self.count - 1 - n }));
        }
        self.count -= count;
        if end == End::Left {
            self.first = self.first.wrapping_add_unsigned(count);
        }
    }
}
