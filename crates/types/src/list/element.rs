//! How elements lie in a chunk or at an edge, one after the other, and how such bytes are read and changed.
//!
//! An element is a string as in a packed value (its length, then its bytes), or a mark that it is held apart: the length 16,383 (`ff 7f`), which no element has that
//! lies there itself, and the number of its row, u64 little-endian. All of it is read with checks: what does not parse is [`TypeError::Corrupt`].

use std::ops::ControlFlow;

use crate::TypeError;
use crate::packed::{self, string_at};

/// An element where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// Its bytes.
    Here(&'a [u8]),
    /// The number of its row.
    Apart(u64),
}

/// What stands before the number of a row.
const MARK: [u8; 2] = [0xff, 0x7f];
/// Bytes of a mark with its number.
pub(super) const MARK_LEN: usize = 10;
/// Most elements of a chunk; an edge has less than twice as many.
pub(super) const CHUNK_MAX: usize = 128;
/// Most elements that are read backward at a time: an edge while a rewritten chunk's rest joins it.
const STARTS: usize = 3 * CHUNK_MAX;

pub(super) fn damaged() -> TypeError {
    TypeError::Corrupt("a list's row does not hold the elements that it should".into())
}

/// The element at the offset `at`, and where it ends.
#[inline]
pub(super) fn element_at(bytes: &[u8], at: usize) -> Option<(Element<'_>, usize)> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(&MARK) {
        let number = rest.get(MARK.len()..)?.first_chunk()?;
        return Some((Element::Apart(u64::from_le_bytes(*number)), at + MARK_LEN));
    }
    let string = string_at(bytes, at)?;
    Some((Element::Here(&bytes[string.clone()]), string.end))
}

/// Where the element at the offset `at` ends.
#[inline]
fn end_of(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        short @ ..0x80 => Some(at + 1 + usize::from(short)).filter(|end| *end <= bytes.len()),
        _ => element_at(bytes, at).map(|(_, end)| end),
    }
}

/// The offset after `count` elements from the offset `at`.
#[inline]
pub(super) fn skip(bytes: &[u8], at: usize, count: usize) -> Result<usize, TypeError> {
    let mut at = at;
    for _ in 0..count {
        at = end_of(bytes, at).ok_or_else(damaged)?;
    }
    Ok(at)
}

/// An error unless `bytes` are this many elements and nothing else.
pub(super) fn must_be(bytes: &[u8], count: usize) -> Result<(), TypeError> {
    if skip(bytes, 0, count)? == bytes.len() { Ok(()) } else { Err(damaged()) }
}

/// Visits `count` elements after the first `from` until it breaks.
#[inline]
pub(super) fn forward<'a>(
    bytes: &'a [u8],
    from: usize,
    count: usize,
    mut visit: impl FnMut(Element<'a>) -> Result<ControlFlow<()>, TypeError>,
) -> Result<ControlFlow<()>, TypeError> {
    let mut at = skip(bytes, 0, from)?;
    for _ in 0..count {
        let (element, end) = element_at(bytes, at).ok_or_else(damaged)?;
        at = end;
        if visit(element)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// As [`forward`], from the last of these elements to the first.
pub(super) fn backward<'a>(
    bytes: &'a [u8],
    from: usize,
    count: usize,
    mut visit: impl FnMut(Element<'a>) -> Result<ControlFlow<()>, TypeError>,
) -> Result<ControlFlow<()>, TypeError> {
    let mut room = [0u32; STARTS];
    let starts = room.get_mut(..count).ok_or_else(damaged)?;
    let mut at = skip(bytes, 0, from)?;
    for start in starts.iter_mut() {
        *start = u32::try_from(at).map_err(|_| damaged())?;
        at = skip(bytes, at, 1)?;
    }
    for start in starts.iter().rev() {
        let (element, _) = element_at(bytes, *start as usize).ok_or_else(damaged)?;
        if visit(element)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Appends `bytes`, which are `count` elements, to `out` in the other order.
pub(super) fn reverse(bytes: &[u8], count: usize, out: &mut Vec<u8>) -> Result<(), TypeError> {
    let mut room = [0u32; STARTS];
    let starts = room.get_mut(..count).ok_or_else(damaged)?;
    let mut at = 0;
    for start in starts.iter_mut() {
        *start = u32::try_from(at).map_err(|_| damaged())?;
        at = skip(bytes, at, 1)?;
    }
    if at != bytes.len() {
        return Err(damaged());
    }
    out.reserve(bytes.len());
    for start in starts.iter().rev() {
        let start = *start as usize;
        out.extend_from_slice(&bytes[start..at]);
        at = start;
    }
    Ok(())
}

/// Puts `element`, or nothing, in the place of `gone` elements after the first `from`.
pub(super) fn replace(
    bytes: &mut Vec<u8>,
    from: usize,
    gone: usize,
    element: Option<Element<'_>>,
) -> Result<(), TypeError> {
    let start = skip(bytes, 0, from)?;
    let end = skip(bytes, start, gone)?;
    write(bytes, start..end, element);
    Ok(())
}

/// Puts `element`, or nothing, in the place of the bytes in `range`.
pub(super) fn write(bytes: &mut Vec<u8>, range: std::ops::Range<usize>, element: Option<Element<'_>>) {
    match element {
        Some(Element::Here(string)) => packed::replace(bytes, range, b"", &[string]),
        Some(Element::Apart(number)) => {
            let mut mark = [0; MARK_LEN];
            mark[..MARK.len()].copy_from_slice(&MARK);
            mark[MARK.len()..].copy_from_slice(&number.to_le_bytes());
            packed::replace(bytes, range, &mark, &[]);
        }
        None => packed::replace(bytes, range, b"", &[]),
    }
}
