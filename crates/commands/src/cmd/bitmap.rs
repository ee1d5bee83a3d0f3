//! Strings as arrays of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP. BITFIELD is in `bitfield.rs`.
//!
//! Bit 0 is the highest bit of the first byte. All go over the string piece by piece and touch no more of it than they must.

use std::ops::ControlFlow;

use ardb_base::number;
use ardb_types::string::{Builder, StringValue};
use ardb_types::{Kind, keyspace, string};
use std::sync::atomic::Ordering;

use super::args;
use super::string::{changed, found_string};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// A bit's place, within the longest string that may be.
pub(super) fn parse_bit_offset(ctx: &Ctx<'_>, arg: &[u8]) -> Result<u64, CmdError> {
    checked_bit_offset(ctx, number::parse_i64(arg))
}

/// Refuses a place that is negative or beyond the longest string.
pub(super) fn checked_bit_offset(ctx: &Ctx<'_>, offset: Option<i64>) -> Result<u64, CmdError> {
    let max = ctx.shared.settings.max_bulk.load(Ordering::Relaxed);
    offset
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset >> 3 < max || ctx.origin == Origin::Stream)
        .ok_or(CmdError::text("ERR bit offset is not an integer or out of range"))
}

/// The byte of a string, zero beyond its end.
fn byte_at(ctx: &Ctx<'_>, value: Option<&StringValue>, index: u64) -> Result<u8, CmdError> {
    let mut byte = 0;
    if let Some(value) = value {
        value.pieces(&ctx.rows, index, index + 1, &mut |piece| byte = piece[0])?;
    }
    Ok(byte)
}

/// SETBIT key offset value
fn setbit(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let offset = parse_bit_offset(ctx, args[2])?;
    let on = match args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CmdError::text("ERR bit is not an integer or out of range")),
    };
    let at = ctx.at(args[1]);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    let value = found_string(&found);
    let (index, mask) = (offset >> 3, 0x80u8 >> (offset & 7));
    let old = byte_at(ctx, value.as_ref(), index)?;
    let was_on = old & mask != 0;
    let grows = value.as_ref().is_none_or(|value| value.len() <= index);
    if grows || was_on != on {
        let new = if on { old | mask } else { old & !mask };
        string::write(&mut ctx.rows, &at, &found, index, &[new])?;
        changed(ctx, args[1], value.is_some(), "setbit");
    }
    ctx.out.int(i64::from(was_on));
    Ok(Outcome::Done)
}

/// GETBIT key offset
fn getbit(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let offset = parse_bit_offset(ctx, args[2])?;
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    let byte = byte_at(ctx, value.as_ref(), offset >> 3)?;
    ctx.out.int(i64::from(byte & (0x80 >> (offset & 7)) != 0));
    Ok(Outcome::Done)
}

/// How many bits of `bytes` are set.
fn popcount(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    whole + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// Bits from `first` to `last`, both included.
#[derive(Clone, Copy)]
struct BitRange {
    first: u64,
    last: u64,
}

impl BitRange {
    /// The range that `start` and `end` mean in a string of `len` bytes, in bytes or bits, from the end if negative. `None` if it is empty.
    fn of(start: i64, end: i64, len: u64, in_bits: bool) -> Option<BitRange> {
        let total = i64::try_from(if in_bits { len * 8 } else { len }).unwrap_or(i64::MAX);
        let from_end = |n: i64| if n < 0 { n.saturating_add(total).max(0) } else { n };
        let (start, end) = (from_end(start), from_end(end).min(total - 1));
        if start > end {
            return None;
        }
        let (start, end) = (start as u64, end as u64);
        let range = if in_bits {
            BitRange { first: start, last: end }
        } else {
            BitRange { first: start * 8, last: end * 8 + 7 }
        };
        Some(range)
    }

    /// Calls `visit` with each piece of the range: the number of its first bit, and its bytes; in the first and last byte, bits outside
    /// the range are cleared, after all bits were inverted if `invert`.
    fn visit(
        self,
        ctx: &Ctx<'_>,
        value: &StringValue,
        invert: bool,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), CmdError> {
        let (first, last) = (self.first >> 3, self.last >> 3);
        let mut at = first;
        let mut copy = Vec::new();
        value.pieces_until(&ctx.rows, first, last + 1, &mut |piece| {
            let end = at + piece.len() as u64;
            let ragged = (at == first && self.first & 7 != 0) || (end == last + 1 && self.last & 7 != 7);
            let piece = if invert || ragged {
                copy.clear();
                copy.extend(piece.iter().map(|byte| if invert { !byte } else { *byte }));
                if at == first
                    && let Some(byte) = copy.first_mut()
                {
                    *byte &= 0xff >> (self.first & 7);
                }
                if end == last + 1
                    && let Some(byte) = copy.last_mut()
                {
                    *byte &= 0xffu8 << (7 - (self.last & 7));
                }
                &copy
            } else {
                piece
            };
            let flow = visit(at * 8, piece);
            at = end;
            flow
        })?;
        Ok(())
    }
}

fn in_bits(unit: &[u8]) -> Result<bool, CmdError> {
    match () {
        () if args::is(unit, "BIT") => Ok(true),
        () if args::is(unit, "BYTE") => Ok(false),
        () => Err(error::SYNTAX),
    }
}

/// BITCOUNT key [start end [BYTE | BIT]]
fn bitcount(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    let Some(value) = value else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let range = match args[2..] {
        [] => BitRange::of(0, -1, value.len(), false),
        [start, end, ref unit @ ..] if unit.len() <= 1 => {
            let (start, end) = (args::int(start)?, args::int(end)?);
            if start < 0 && end < 0 && start > end {
                None
            } else {
                let bits = unit.first().map_or(Ok(false), |unit| in_bits(unit))?;
                BitRange::of(start, end, value.len(), bits)
            }
        }
        _ => return Err(error::SYNTAX),
    };
    let mut count = 0;
    if let Some(range) = range {
        range.visit(ctx, &value, false, &mut |_, piece| {
            count += popcount(piece);
            ControlFlow::Continue(())
        })?;
    }
    ctx.out.size(count);
    Ok(Outcome::Done)
}

/// BITPOS key bit [start [end [BYTE | BIT]]]
fn bitpos(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let bit = match args::int(args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CmdError::text("ERR The bit argument must be 1 or 0.")),
    };
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    let Some(value) = value else {
        // No key is zeros without end.
        ctx.out.int(if bit { -1 } else { 0 });
        return Ok(Outcome::Done);
    };
    let range = match args[3..] {
        [] => BitRange::of(0, -1, value.len(), false),
        [start] => BitRange::of(args::int(start)?, -1, value.len(), false),
        [start, end, ref unit @ ..] if unit.len() <= 1 => {
            let start = args::int(start)?;
            let bits = unit.first().map_or(Ok(false), |unit| in_bits(unit))?;
            BitRange::of(start, args::int(end)?, value.len(), bits)
        }
        _ => return Err(error::SYNTAX),
    };
    let mut found = None;
    if let Some(range) = range {
        range.visit(ctx, &value, !bit, &mut |first, piece| match piece.iter().position(|&byte| byte != 0) {
            Some(index) => {
                found = Some(first + index as u64 * 8 + u64::from(piece[index].leading_zeros()));
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        })?;
        if found.is_none() && !bit && args.len() < 5 {
            // Without an end, zeros follow the string.
            found = Some(value.len() * 8);
        }
    }
    match found {
        Some(place) => ctx.out.size(place),
        None => ctx.out.int(-1),
    }
    Ok(Outcome::Done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
    /// Set in the first and in none of the others. This and those below are of Redis 8.2.
    Diff,
    /// Set in one of the others and not in the first.
    Diff1,
    /// Set in the first and in one of the others.
    AndOr,
    /// Set in exactly one.
    One,
}

const OPERATIONS: [(&str, Operation); 8] = [
    ("AND", Operation::And),
    ("OR", Operation::Or),
    ("XOR", Operation::Xor),
    ("NOT", Operation::Not),
    ("DIFF", Operation::Diff),
    ("DIFF1", Operation::Diff1),
    ("ANDOR", Operation::AndOr),
    ("ONE", Operation::One),
];

/// Bytes combined at a time.
const STEP: u64 = 64 << 10;

/// BITOP AND | OR | XOR | NOT | DIFF | DIFF1 | ANDOR | ONE destkey key [key ...]
fn bitop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let operation = OPERATIONS
        .into_iter()
        .find(|(name, _)| args::is(args[1], name))
        .map(|(_, operation)| operation)
        .ok_or(error::SYNTAX)?;
    let [_, _, target, keys @ ..] = args else { return Err(error::SYNTAX) };
    if operation == Operation::Not && keys.len() != 1 {
        return Err(CmdError::text("ERR BITOP NOT must be called with a single source key."));
    }
    if let Some((name, _)) = OPERATIONS[4..7].iter().find(|(_, needs_two)| *needs_two == operation)
        && keys.len() < 2
    {
        return Err(CmdError::text(format!("ERR BITOP {name} must be called with at least two source keys.")));
    }
    let is_old = matches!(operation, Operation::And | Operation::Or | Operation::Xor | Operation::Not);
    let mut sources = Vec::with_capacity(keys.len());
    for key in keys {
        let value = string::get(&ctx.rows, &ctx.at(key))?;
        ctx.looked_up(key, value.is_some());
        sources.push(value);
    }
    let len = sources.iter().flatten().map(StringValue::len).max().unwrap_or(0);
    let at = ctx.at(target);
    let found = keyspace::find(&ctx.rows, &at)?;
    if len == 0 {
        if let Some(row) = found.live() {
            keyspace::delete(&mut ctx.rows, &at, row);
            ctx.modified(target);
            ctx.notify(Events::GENERIC, "del", target);
        }
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    let mut result = Builder::new();
    let mut step = Vec::new();
    let mut from = 0;
    while from < len {
        let to = len.min(from + STEP);
        combine(ctx, operation, &sources, from, to, &mut step)?;
        result.push(&mut ctx.rows, &step);
        if !is_old {
            // Servers before Redis 8.2 do not know the word: they get the result.
            ctx.effect(&[if from == 0 { b"SET" } else { b"APPEND" }, target, &step]);
        }
        from = to;
    }
    result.finish(&mut ctx.rows, &at, found.raw.as_ref(), None);
    changed(ctx, target, found.live().is_some(), "set");
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// Fills `out` with the combination of the sources' bytes from `from` to `to`; beyond its end a source has zeros.
fn combine(
    ctx: &Ctx<'_>,
    operation: Operation,
    sources: &[Option<StringValue>],
    from: u64,
    to: u64,
    out: &mut Vec<u8>,
) -> Result<(), CmdError> {
    out.clear();
    let (first, others) = sources.split_at(sources.len().min(1));
    match operation {
        Operation::One => return one_of(ctx, sources, from, to, out),
        Operation::Diff | Operation::Diff1 | Operation::AndOr => {
            combine(ctx, Operation::Or, others, from, to, out)?;
            let mut alone = Vec::new();
            combine(ctx, Operation::Or, first, from, to, &mut alone)?;
            for (byte, alone) in out.iter_mut().zip(alone) {
                *byte = match operation {
                    Operation::Diff => alone & !*byte,
                    Operation::Diff1 => !alone & *byte,
                    _ => alone & *byte,
                };
            }
            return Ok(());
        }
        Operation::And | Operation::Or | Operation::Xor | Operation::Not => {}
    }
    for (n, source) in sources.iter().enumerate() {
        let mut at = 0;
        if let Some(source) = source {
            source.pieces(&ctx.rows, from, to, &mut |piece| {
                if n == 0 {
                    out.extend_from_slice(piece);
                } else {
                    let under = out[at..].iter_mut().zip(piece);
                    match operation {
                        Operation::And => under.for_each(|(byte, other)| *byte &= other),
                        Operation::Or => under.for_each(|(byte, other)| *byte |= other),
                        Operation::Xor => under.for_each(|(byte, other)| *byte ^= other),
                        _ => {}
                    }
                }
                at += piece.len();
            })?;
        }
        if n == 0 {
            // At most STEP.
            out.resize((to - from) as usize, 0);
        } else if operation == Operation::And {
            out[at..].fill(0);
        }
    }
    if operation == Operation::Not {
        out.iter_mut().for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

/// As [`combine`]: the bits that are set in exactly one source.
fn one_of(
    ctx: &Ctx<'_>,
    sources: &[Option<StringValue>],
    from: u64,
    to: u64,
    out: &mut Vec<u8>,
) -> Result<(), CmdError> {
    // At most STEP.
    let len = (to - from) as usize;
    out.resize(len, 0);
    let mut several = vec![0; len];
    for source in sources.iter().flatten() {
        let mut at = 0;
        source.pieces(&ctx.rows, from, to, &mut |piece| {
            let under = out[at..].iter_mut().zip(&mut several[at..]).zip(piece);
            for ((once, several), byte) in under {
                *several |= *once & byte;
                *once |= byte;
            }
            at += piece.len();
        })?;
    }
    out.iter_mut().zip(several).for_each(|(once, several)| *once &= !several);
    Ok(())
}

const READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.with(Flags::DENYOOM);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("bitcount", -2, READ, Keys::ONE, Group::Bitmap, bitcount).doc("2.6.0", "Count set bits in a string"),
    Command::new("bitop", -4, WRITE, Keys::Range { first: 2, last: -1, step: 1 }, Group::Bitmap, bitop)
        .doc("2.6.0", "Perform bitwise operations between strings"),
    Command::new("bitpos", -3, READ, Keys::ONE, Group::Bitmap, bitpos)
        .doc("2.8.7", "Find first bit set or clear in a string"),
    Command::new("getbit", 3, READ.with(Flags::FAST), Keys::ONE, Group::Bitmap, getbit)
        .doc("2.2.0", "Returns the bit value at offset in the string value stored at key"),
    Command::new("setbit", 4, WRITE, Keys::ONE, Group::Bitmap, setbit)
        .doc("2.2.0", "Sets or clears the bit at offset in the string value stored at key"),
];

#[cfg(test)]
#[path = "bitmap_tests.rs"]
mod tests;
