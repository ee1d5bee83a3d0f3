//! The elements at one end of a list in rows, which lie in the key's row.
//!
//! They lie from the outermost inward, at both ends, so that pushing and popping are at the start of the bytes. What is pushed is kept beside the bytes of the row as it
//! was found, so that those are copied once, when the row is written.

use std::ops::Range;

use super::element::{self, Element, damaged, element_at};
use crate::TypeError;

/// One edge. The functions that take `row` want the bytes of which `kept` is a part.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    count: usize,
    /// The outer elements, which are new.
    new: Vec<u8>,
    /// The others: where they lie in the key's row.
    kept: Range<usize>,
}

impl Edge {
    /// What the key's row holds in this part.
    pub fn of_row(count: usize, kept: Range<usize>) -> Edge {
        Edge { count, new: Vec::new(), kept }
    }

    /// These elements, outermost first.
    pub fn of_bytes(count: usize, bytes: Vec<u8>) -> Edge {
        Edge { count, new: bytes, kept: 0..0 }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its bytes, in two parts.
    pub fn parts<'a>(&'a self, row: &'a [u8]) -> [&'a [u8]; 2] {
        [&self.new, row.get(self.kept.clone()).unwrap_or_default()]
    }

    /// Number of its bytes.
    pub fn len(&self) -> usize {
        self.new.len() + self.kept.len()
    }

    /// Adds an outermost element.
    pub fn push(&mut self, element: Element<'_>) {
        element::write(&mut self.new, 0..0, Some(element));
        self.count += 1;
    }

    /// The outermost element, of which there must be one, and its length for [`Edge::shed`].
    pub fn outermost<'a>(&'a self, row: &'a [u8]) -> Result<(Element<'a>, usize), TypeError> {
        let [new, kept] = self.parts(row);
        element_at(if new.is_empty() { kept } else { new }, 0).ok_or_else(damaged)
    }

    /// Takes out the outermost element, of this length.
    pub fn shed(&mut self, len: usize) -> Result<(), TypeError> {
        if self.new.is_empty() {
            self.kept.start += len;
        } else {
            self.new.drain(..len);
        }
        self.count = self.count.checked_sub(1).ok_or_else(damaged)?;
        if (self.count == 0) == (self.len() == 0) { Ok(()) } else { Err(damaged()) }
    }

    /// The element at a position from outside, of those there are.
    pub fn get<'a>(&'a self, row: &'a [u8], position: usize) -> Result<Element<'a>, TypeError> {
        let mut left = position;
        for part in self.parts(row) {
            let mut at = 0;
            while let Some((element, end)) = element_at(part, at) {
                if left == 0 {
                    return Ok(element);
                }
                left -= 1;
                at = end;
            }
            if at != part.len() {
                break;
            }
        }
        Err(damaged())
    }

    /// Its bytes in one; they are gathered in `room` if they do not lie so.
    pub fn bytes<'a>(&'a self, row: &'a [u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        match self.parts(row) {
            [new, []] => new,
            [[], kept] => kept,
            [new, kept] => {
                room.clear();
                room.extend_from_slice(new);
                room.extend_from_slice(kept);
                room
            }
        }
    }

    /// Takes out all: how many elements, and their bytes.
    pub fn take(&mut self, row: &[u8]) -> (usize, Vec<u8>) {
        let Edge { count, mut new, kept } = std::mem::take(self);
        new.extend_from_slice(row.get(kept).unwrap_or_default());
        (count, new)
    }
}
