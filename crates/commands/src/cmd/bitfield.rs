//! BITFIELD: integers of any width at any bit of a string.
//!
//! The effect is logged as the bytes that were written, by SETRANGE, which Redis 2.6 knows. As in Redis a string grows to the
//! furthest bit that a SET or INCRBY names, even if that then fails by its overflow rule; unlike there, the log has that too.

use ardb_base::number::{i64_text, parse_i64};
use ardb_types::{KeyRow, Kind, keyspace, string};

use super::args;
use super::bitmap::checked_bit_offset;
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// Type of an integer: its width in bits, at most 64 with a sign and 63 without.
#[derive(Clone, Copy)]
struct Width {
    bits: u32,
    signed: bool,
}

impl Width {
    fn parse(arg: &[u8]) -> Result<Width, CmdError> {
        let parsed = arg.split_first().and_then(|(sign, digits)| {
            let signed = match sign {
                b'i' => true,
                b'u' => false,
                _ => return None,
            };
            let bits = u32::try_from(parse_i64(digits)?).ok()?;
            let most = if signed { 64 } else { 63 };
            (1..=most).contains(&bits).then_some(Width { bits, signed })
        });
        parsed.ok_or(CmdError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))
    }

    fn least(self) -> i128 {
        if self.signed { -(1i128 << (self.bits - 1)) } else { 0 }
    }

    fn greatest(self) -> i128 {
        (1i128 << (self.bits - u32::from(self.signed))) - 1
    }

    /// The number whose lowest bits these are.
    fn wrap(self, raw: u128) -> i128 {
        let low = raw & ((1u128 << self.bits) - 1);
        if self.signed && low >> (self.bits - 1) == 1 { low as i128 - (1i128 << self.bits) } else { low as i128 }
    }
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy)]
struct Operation {
    action: Action,
    width: Width,
    /// The first bit.
    offset: u64,
    overflow: Overflow,
}

impl Operation {
    /// The first byte, and how many bytes its bits lie in: at most nine.
    fn bytes(&self) -> (u64, usize) {
        let first = self.offset >> 3;
        let last = (self.offset + u64::from(self.width.bits) - 1) >> 3;
        (first, (last - first + 1) as usize)
    }

    /// How far the integer's lowest bit is from the end of those bytes.
    fn shift(&self) -> u32 {
        let (_, count) = self.bytes();
        count as u32 * 8 - (self.offset & 7) as u32 - self.width.bits
    }

    fn load(&self, bytes: &[u8]) -> i128 {
        let raw = bytes.iter().fold(0u128, |raw, byte| raw << 8 | u128::from(*byte));
        self.width.wrap(raw >> self.shift())
    }

    fn store(&self, bytes: &mut [u8], value: i128) {
        let mask = ((1u128 << self.width.bits) - 1) << self.shift();
        let value = ((value as u128) << self.shift()) & mask;
        let raw = bytes.iter().fold(0u128, |raw, byte| raw << 8 | u128::from(*byte));
        let new = ((raw & !mask) | value).to_be_bytes();
        let unused = new.len() - bytes.len();
        bytes.copy_from_slice(&new[unused..]);
    }

    /// The new number and the reply, or `None` if the operation fails.
    fn apply(&self, old: i128) -> Option<(i128, i128)> {
        let wanted = match self.action {
            Action::Get => return Some((old, old)),
            Action::Set(value) if self.width.signed => i128::from(value),
            // A negative number is a very great one without a sign.
            Action::Set(value) => i128::from(value as u64),
            Action::Add(by) => old + i128::from(by),
        };
        let (least, greatest) = (self.width.least(), self.width.greatest());
        let new = match self.overflow {
            _ if (least..=greatest).contains(&wanted) => wanted,
            Overflow::Wrap => self.width.wrap(wanted as u128),
            // Redis subtracts in 64 bits to see how far the number is from the greatest: one so small that this wraps around counts as
            // too great. Clients that compare see it.
            Overflow::Saturate if matches!(self.action, Action::Set(_)) && greatest - wanted > i128::from(i64::MAX) => {
                greatest
            }
            Overflow::Saturate => wanted.clamp(least, greatest),
            Overflow::Fail => return None,
        };
        Some((new, if matches!(self.action, Action::Set(_)) { old } else { new }))
    }
}

fn parse(ctx: &Ctx<'_>, args: &[&[u8]]) -> Result<Vec<Operation>, CmdError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = args;
    while let [name, after @ ..] = rest {
        if args::is(name, "OVERFLOW")
            && let [kind, after @ ..] = after
        {
            overflow = match () {
                () if args::is(kind, "WRAP") => Overflow::Wrap,
                () if args::is(kind, "SAT") => Overflow::Saturate,
                () if args::is(kind, "FAIL") => Overflow::Fail,
                () => return Err(CmdError::text("ERR Invalid OVERFLOW type specified")),
            };
            rest = after;
            continue;
        }
        let get = args::is(name, "GET");
        let set = args::is(name, "SET");
        let [width, offset, after @ ..] = after else { return Err(error::SYNTAX) };
        if !get && (after.is_empty() || !(set || args::is(name, "INCRBY"))) {
            return Err(error::SYNTAX);
        }
        let width = Width::parse(width)?;
        let place = match offset {
            // `#n` counts integers of this width.
            [b'#', digits @ ..] => parse_i64(digits).and_then(|n| n.checked_mul(i64::from(width.bits))),
            digits => parse_i64(digits),
        };
        let offset = checked_bit_offset(ctx, place)?;
        let (action, after) = match after {
            _ if get => (Action::Get, after),
            [value, after @ ..] => {
                let value = args::int(value)?;
                (if set { Action::Set(value) } else { Action::Add(value) }, after)
            }
            [] => return Err(error::SYNTAX),
        };
        operations.push(Operation { action, width, offset, overflow });
        rest = after;
    }
    Ok(operations)
}

/// BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY type offset increment ...]
fn bitfield(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let operations = parse(ctx, &args[2..])?;
    let end = operations
        .iter()
        .filter(|operation| !matches!(operation.action, Action::Get))
        .map(|operation| operation.bytes().0 + operation.bytes().1 as u64)
        .max();
    let Some(end) = end else { return read_fields(ctx, args[1], &operations) };
    let key = args[1];
    let at = ctx.at(key);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    let was_there = found.live().is_some();
    let grew = found.live().map_or(0, KeyRow::size) < end;
    if grew {
        string::write(&mut ctx.rows, &at, &found, end - 1, &[0])?;
        ctx.effect(&[b"SETRANGE", key, &i64_text(end as i64 - 1), b"\0"]);
    }
    let mut changes = 0;
    ctx.out.array(operations.len());
    for operation in &operations {
        let (first, count) = operation.bytes();
        let mut bytes = [0u8; 9];
        // An integer of 64 bits touches at most nine bytes.
        let bytes = &mut bytes[..count];
        load_bytes(ctx, key, first, bytes)?;
        let old = operation.load(bytes);
        let Some((new, reply)) = operation.apply(old) else {
            ctx.out.null();
            continue;
        };
        // 63 bits without a sign and 64 with one fit.
        ctx.out.int(reply as i64);
        if new != old {
            operation.store(bytes, new);
            let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
            string::write(&mut ctx.rows, &at, &found, first, bytes)?;
            ctx.effect(&[b"SETRANGE", key, &i64_text(first as i64), bytes]);
        }
        if !matches!(operation.action, Action::Get) && (grew || new != old) {
            changes += 1;
        }
    }
    if changes > 0 || grew {
        ctx.modified(key);
        if !was_there {
            ctx.notify(Events::NEW, "new", key);
        }
    }
    if changes > 0 {
        ctx.dirty += changes - 1;
        ctx.notify(Events::STRING, "setbit", key);
    }
    Ok(Outcome::Done)
}

/// BITFIELD_RO key GET type offset ...
fn bitfield_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let operations = parse(ctx, &args[2..])?;
    if operations.iter().any(|operation| !matches!(operation.action, Action::Get)) {
        return Err(CmdError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(ctx, args[1], &operations)
}

fn read_fields(ctx: &mut Ctx<'_>, key: &[u8], operations: &[Operation]) -> CmdResult {
    let there = string::get(&ctx.rows, &ctx.at(key))?.is_some();
    ctx.looked_up(key, there);
    ctx.out.array(operations.len());
    for operation in operations {
        let (first, count) = operation.bytes();
        let mut bytes = [0u8; 9];
        load_bytes(ctx, key, first, &mut bytes[..count])?;
        ctx.out.int(operation.load(&bytes[..count]) as i64);
    }
    Ok(Outcome::Done)
}

/// The bytes of the string at `key` from `first` on; zeros beyond its end.
fn load_bytes(ctx: &Ctx<'_>, key: &[u8], first: u64, out: &mut [u8]) -> Result<(), CmdError> {
    let mut at = 0;
    if let Some(value) = string::get(&ctx.rows, &ctx.at(key))? {
        value.pieces(&ctx.rows, first, first + out.len() as u64, &mut |piece| {
            out[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        })?;
    }
    Ok(())
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("bitfield", -2, Flags::WRITE.with(Flags::DENYOOM), Keys::ONE, Group::Bitmap, bitfield)
        .doc("3.2.0", "Perform arbitrary bitfield integer operations on strings"),
    Command::new("bitfield_ro", -2, Flags::READONLY.with(Flags::FAST), Keys::ONE, Group::Bitmap, bitfield_ro)
        .doc("6.0.0", "Perform arbitrary bitfield integer operations on strings. Read-only variant of BITFIELD"),
];
