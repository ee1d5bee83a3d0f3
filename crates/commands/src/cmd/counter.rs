//! Strings as numbers: INCR and its kin.
//!
//! Integers are logged as they came, since a replay applies each command exactly once. INCRBYFLOAT is logged as the SET of its result.

use ardb_base::extended::Extended;
use ardb_base::number::{self, i64_text};
use ardb_types::{Kind, keyspace, string};

use super::args;
use super::string::{changed, found_string, log_set};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

fn add(ctx: &mut Ctx<'_>, key: &[u8], by: i64) -> CmdResult {
    let at = ctx.at(key);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    let old = match found_string(&found) {
        // An integer is always held inline.
        Some(value) => value.inline().and_then(number::parse_i64).ok_or(error::NOT_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(CmdError::text("ERR increment or decrement would overflow"))?;
    string::set(&mut ctx.rows, &at, found.raw.as_ref(), &i64_text(new), found.expiry());
    changed(ctx, key, found.live().is_some(), "incrby");
    ctx.out.int(new);
    Ok(Outcome::Done)
}

/// INCR key
fn incr(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    add(ctx, args[1], 1)
}

/// DECR key
fn decr(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    add(ctx, args[1], -1)
}

/// INCRBY key increment
fn incrby(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    add(ctx, args[1], args::int(args[2])?)
}

/// DECRBY key decrement
fn decrby(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let by = args::int(args[2])?;
    add(ctx, args[1], by.checked_neg().ok_or(CmdError::text("ERR decrement would overflow"))?)
}

/// INCRBYFLOAT key increment
fn incrbyfloat(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let at = ctx.at(args[1]);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    let old = match found_string(&found) {
        // No text longer than a row is a number.
        Some(value) => value.inline().and_then(Extended::parse).ok_or(error::NOT_FLOAT)?,
        None => Extended::ZERO,
    };
    let new = old.plus(Extended::parse(args[2]).ok_or(error::NOT_FLOAT)?);
    if !new.is_finite() {
        return Err(CmdError::text("ERR increment would produce NaN or Infinity"));
    }
    let text = new.text();
    string::set(&mut ctx.rows, &at, found.raw.as_ref(), &text, found.expiry());
    log_set(ctx, args[1], &text, found.expiry());
    changed(ctx, args[1], found.live().is_some(), "incrbyfloat");
    ctx.out.bulk(&text);
    Ok(Outcome::Done)
}

const WRITE_FAST: Flags = Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("decr", 2, WRITE_FAST, Keys::ONE, Group::String, decr)
        .doc("1.0.0", "Decrement the integer value of a key by one"),
    Command::new("decrby", 3, WRITE_FAST, Keys::ONE, Group::String, decrby)
        .doc("1.0.0", "Decrement the integer value of a key by the given number"),
    Command::new("incr", 2, WRITE_FAST, Keys::ONE, Group::String, incr)
        .doc("1.0.0", "Increment the integer value of a key by one"),
    Command::new("incrby", 3, WRITE_FAST, Keys::ONE, Group::String, incrby)
        .doc("1.0.0", "Increment the integer value of a key by the given amount"),
    Command::new("incrbyfloat", 3, WRITE_FAST, Keys::ONE, Group::String, incrbyfloat)
        .doc("2.6.0", "Increment the float value of a key by the given amount"),
];
