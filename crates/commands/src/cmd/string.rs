//! Strings: reading and writing them whole or in part. Counters are in `counter.rs`, bits in `bitmap.rs`.
//!
//! Logged are `SET`, `PEXPIREAT` and `DEL` with absolute times in place of every form that Redis 2.6.0 does not know;
//! plain `SET`, `MSET`, `APPEND` and `SETRANGE` stand in the log as they came.

use std::sync::atomic::Ordering;

use ardb_base::id::UnixMs;
use ardb_base::number::i64_text;
use ardb_types::keyspace::{self, Found};
use ardb_types::string::{self, StringValue};
use ardb_types::{KeyRow, Kind};

use super::args;
use super::compare::Compare;
use super::expire::{self, Clock};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome, dispatch};

/// Replies a string; a big one goes piece by piece from its rows into the reply.
pub(super) fn reply_string(ctx: &mut Ctx<'_>, value: &StringValue) -> Result<(), CmdError> {
    reply_range(ctx, value, 0, value.len())
}

fn reply_range(ctx: &mut Ctx<'_>, value: &StringValue, from: u64, to: u64) -> Result<(), CmdError> {
    let Ctx { rows, out, .. } = ctx;
    if let Some(bytes) = value.inline() {
        // The caller keeps both ends within the string.
        out.bulk(&bytes[from as usize..to as usize]);
        return Ok(());
    }
    out.bulk_start(to - from);
    value.pieces(rows, from, to, &mut |piece| out.raw(piece))?;
    out.bulk_end();
    Ok(())
}

/// Refuses a string longer than `proto-max-bulk-len`, unless the master says so.
pub(super) fn check_length(ctx: &Ctx<'_>, len: u64, more: u64) -> Result<(), CmdError> {
    let max = ctx.shared.settings.max_bulk.load(Ordering::Relaxed);
    match len.checked_add(more) {
        Some(total) if total <= max || ctx.origin == Origin::Stream => Ok(()),
        _ => Err(error::STRING_TOO_LONG),
    }
}

/// Counts and publishes that `key` was written by an `event` of strings. `was_there`: before this command.
pub(super) fn changed(ctx: &mut Ctx<'_>, key: &[u8], was_there: bool, event: &str) {
    changed_as(ctx, key, was_there, Events::STRING, event);
}

/// As [`changed`], for an event of another class.
pub(super) fn changed_as(ctx: &mut Ctx<'_>, key: &[u8], was_there: bool, class: Events, event: &str) {
    ctx.modified(key);
    if !was_there {
        ctx.notify(Events::NEW, "new", key);
    }
    ctx.notify(class, event, key);
}

/// The string at a key that is about to be written.
pub(super) fn found_string(found: &Found) -> Option<StringValue> {
    found.live().cloned().map(StringValue::of_row)
}

/// Logs that the key now is this string with this expiry.
pub(super) fn log_set(ctx: &mut Ctx<'_>, key: &[u8], value: &[u8], expiry: Option<UnixMs>) {
    ctx.effect(&[b"SET", key, value]);
    if let Some(time) = expiry {
        ctx.effect(&[b"PEXPIREAT", key, &i64_text(time)]);
    }
}

/// GET key
fn get(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    match value {
        Some(value) => reply_string(ctx, &value)?,
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// MGET key [key ...]: keys of other types count as missing.
fn mget(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    ctx.out.array(args.len() - 1);
    for key in &args[1..] {
        let row = keyspace::lookup(&ctx.rows, &ctx.at(key))?;
        ctx.looked_up(key, row.is_some());
        match row.filter(|row| row.kind() == Kind::String) {
            Some(row) => reply_string(ctx, &StringValue::of_row(row))?,
            None => ctx.out.null(),
        }
    }
    Ok(Outcome::Done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    Missing,
    Present,
    Compared(Compare<'a>),
}

/// What becomes of the expiry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// It goes.
    None,
    /// It stays.
    Keep,
    /// It becomes this.
    At(UnixMs),
}

/// The expiry option that `word` is, with its clock.
fn clock_option(word: &[u8]) -> Option<Clock> {
    [("EX", Clock::Seconds), ("PX", Clock::Ms), ("EXAT", Clock::UnixSeconds), ("PXAT", Clock::UnixMs)]
        .into_iter()
        .find(|(name, _)| args::is(word, name))
        .map(|(_, clock)| clock)
}

/// The expiry options of SET, MSETEX and GETEX as far as they were read.
#[derive(Default)]
pub(super) struct ExpiryOptions<'a> {
    /// The option without a time was given: KEEPTTL, or PERSIST of GETEX.
    plain: bool,
    time: Option<(Clock, &'a [u8])>,
}

impl<'a> ExpiryOptions<'a> {
    /// Takes an option in, and its time out of `rest`; whether it is one and goes with those before. `plain` is the one without a time.
    pub(super) fn take<'s>(&mut self, plain: &str, option: &[u8], rest: &mut impl Iterator<Item = &'s &'a [u8]>) -> bool
    where
        'a: 's,
    {
        if args::is(option, plain) {
            self.plain = true;
            return self.time.is_none();
        }
        let Some(clock) = clock_option(option) else { return false };
        let fits = !self.plain && self.time.is_none_or(|(earlier, _)| earlier == clock);
        self.time = rest.next().map(|amount| (clock, *amount));
        fits && self.time.is_some()
    }

    /// What SET or MSETEX, which is called `name`, makes of the expiry.
    pub(super) fn expiry(&self, ctx: &Ctx<'_>, name: &str) -> Result<Expiry, CmdError> {
        Ok(match self.time {
            Some((clock, amount)) => Expiry::At(expire::positive_time(ctx, amount, clock, name)?),
            None if self.plain => Expiry::Keep,
            None => Expiry::None,
        })
    }
}

/// SET key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
fn set(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let [_, key, value, options @ ..] = args else { return Err(error::SYNTAX) };
    if options.is_empty() {
        write(ctx, key, value, Expiry::None, Condition::Always)?;
        ctx.out.ok();
        return Ok(Outcome::Done);
    }
    let mut condition = Condition::Always;
    let mut want_old = false;
    let mut expiry = ExpiryOptions::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if args::is(option, "NX") && matches!(condition, Condition::Always | Condition::Missing) {
            condition = Condition::Missing;
        } else if args::is(option, "XX") && matches!(condition, Condition::Always | Condition::Present) {
            condition = Condition::Present;
        } else if args::is(option, "GET") {
            want_old = true;
        } else if !expiry.take("KEEPTTL", option, &mut options) {
            let compare = match options.next() {
                Some(arg) if condition == Condition::Always => Compare::parse(option, arg)?,
                _ => None,
            };
            condition = Condition::Compared(compare.ok_or(error::SYNTAX)?);
        }
    }
    let expiry = expiry.expiry(ctx, "set")?;
    if want_old {
        let old = string::get(&ctx.rows, &ctx.at(key))?;
        ctx.looked_up(key, old.is_some());
        match &old {
            Some(old) => reply_string(ctx, old)?,
            None => ctx.out.null(),
        }
    }
    let written = write_logged(ctx, key, value, expiry, condition)?;
    match (want_old, written) {
        (true, _) => {}
        (false, true) => ctx.out.ok(),
        (false, false) => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// Writes the string if the condition holds; whether it did, and the expiry it has now. The log is the caller's.
fn write(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
    condition: Condition<'_>,
) -> Result<Option<Option<UnixMs>>, CmdError> {
    let at = ctx.at(key);
    let found = match condition {
        Condition::Compared(_) => keyspace::find_kind(&ctx.rows, &at, Kind::String)?,
        _ => keyspace::find(&ctx.rows, &at)?,
    };
    let was_there = found.live().is_some();
    let holds = match condition {
        Condition::Always => true,
        Condition::Missing => !was_there,
        Condition::Present => was_there,
        Condition::Compared(compare) => compare.allows(&ctx.rows, found_string(&found).as_ref())?,
    };
    if !holds {
        return Ok(None);
    }
    let time = match expiry {
        Expiry::None => None,
        Expiry::Keep => found.expiry(),
        Expiry::At(time) => Some(time),
    };
    string::set(&mut ctx.rows, &at, found.raw.as_ref(), value, time);
    changed(ctx, key, was_there, "set");
    if let Expiry::At(_) = expiry {
        ctx.notify(Events::GENERIC, "expire", key);
    }
    Ok(Some(time))
}

/// As [`write`], and logs it as SET and PEXPIREAT.
fn write_logged(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
    condition: Condition<'_>,
) -> Result<bool, CmdError> {
    let Some(time) = write(ctx, key, value, expiry, condition)? else { return Ok(false) };
    log_set(ctx, key, value, time);
    Ok(true)
}

/// SETNX key value
fn setnx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let written = write_logged(ctx, args[1], args[2], Expiry::None, Condition::Missing)?;
    ctx.out.int(i64::from(written));
    Ok(Outcome::Done)
}

/// SETEX key seconds value
fn setex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    set_for(ctx, args, Clock::Seconds, "setex")
}

/// PSETEX key milliseconds value
fn psetex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    set_for(ctx, args, Clock::Ms, "psetex")
}

fn set_for(ctx: &mut Ctx<'_>, args: &[&[u8]], clock: Clock, name: &str) -> CmdResult {
    let time = expire::positive_time(ctx, args[2], clock, name)?;
    write_logged(ctx, args[1], args[3], Expiry::At(time), Condition::Always)?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// GETSET key value
fn getset(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_old(ctx, args[1])?;
    write_logged(ctx, args[1], args[2], Expiry::None, Condition::Always)?;
    Ok(Outcome::Done)
}

/// Replies the string at the key, or null; whether there is one, and its row.
fn reply_old(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<Option<KeyRow>, CmdError> {
    let old = string::get(&ctx.rows, &ctx.at(key))?;
    ctx.looked_up(key, old.is_some());
    match &old {
        Some(old) => reply_string(ctx, old)?,
        None => ctx.out.null(),
    }
    Ok(old.map(|old| old.row().clone()))
}

/// GETDEL key
fn getdel(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if let Some(row) = reply_old(ctx, args[1])? {
        let at = ctx.at(args[1]);
        keyspace::delete(&mut ctx.rows, &at, &row);
        ctx.modified(args[1]);
        ctx.effect(&[b"DEL", args[1]]);
        ctx.notify(Events::GENERIC, "del", args[1]);
    }
    Ok(Outcome::Done)
}

/// GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]
fn getex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut expiry = ExpiryOptions::default();
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        if !expiry.take("PERSIST", option, &mut options) {
            return Err(error::SYNTAX);
        }
    }
    let key = args[1];
    let Some(row) = reply_old(ctx, key)? else { return Ok(Outcome::Done) };
    if let Some((clock, amount)) = expiry.time {
        let when = expire::positive_time(ctx, amount, clock, "getex")?;
        if clock.is_absolute() && expire::is_past(ctx, when) {
            expire::delete_now(ctx, key, &row);
        } else {
            expire::expire_at(ctx, key, &row, when);
        }
    } else if expiry.plain {
        expire::persist_row(ctx, key, &row);
    }
    Ok(Outcome::Done)
}

/// MSET key value [key value ...]
fn mset(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len().is_multiple_of(2) {
        return Err(dispatch::wrong_arity("mset"));
    }
    for pair in args[1..].chunks_exact(2) {
        write(ctx, pair[0], pair[1], Expiry::None, Condition::Always)?;
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// MSETNX key value [key value ...]: logged as MSET.
fn msetnx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len().is_multiple_of(2) {
        return Err(dispatch::wrong_arity("msetnx"));
    }
    for pair in args[1..].chunks_exact(2) {
        if keyspace::lookup(&ctx.rows, &ctx.at(pair[0]))?.is_some() {
            ctx.out.int(0);
            return Ok(Outcome::Done);
        }
    }
    for pair in args[1..].chunks_exact(2) {
        write(ctx, pair[0], pair[1], Expiry::None, Condition::Always)?;
    }
    let mut effect = args.to_vec();
    effect[0] = b"MSET";
    ctx.effect(&effect);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// APPEND key value
fn append(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let at = ctx.at(args[1]);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    let was_there = found.live().is_some();
    let len = found.live().map_or(0, KeyRow::size);
    if was_there {
        check_length(ctx, len, args[2].len() as u64)?;
    }
    let len = string::write(&mut ctx.rows, &at, &found, len, args[2])?;
    changed(ctx, args[1], was_there, "append");
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// STRLEN key
fn strlen(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    ctx.out.size(value.map_or(0, |value| value.len()));
    Ok(Outcome::Done)
}

/// SETRANGE key offset value
fn setrange(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let offset = args::int(args[2])?;
    let Ok(offset) = u64::try_from(offset) else { return Err(CmdError::text("ERR offset is out of range")) };
    let at = ctx.at(args[1]);
    let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
    if args[3].is_empty() {
        ctx.out.size(found.live().map_or(0, KeyRow::size));
        return Ok(Outcome::Done);
    }
    check_length(ctx, offset, args[3].len() as u64)?;
    let was_there = found.live().is_some();
    let len = string::write(&mut ctx.rows, &at, &found, offset, args[3])?;
    changed(ctx, args[1], was_there, "setrange");
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// GETRANGE key start end, also SUBSTR
fn getrange(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (start, end) = (args::int(args[2])?, args::int(args[3])?);
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    match value.and_then(|value| Some((byte_range(start, end, value.len())?, value))) {
        Some(((from, to), value)) => reply_range(ctx, &value, from, to)?,
        None => ctx.out.bulk(b""),
    }
    Ok(Outcome::Done)
}

/// The part of `len` bytes that `start` and `end` (both included, from the end if negative) mean, as `from..to`; `None` if it is empty.
pub(super) fn byte_range(start: i64, end: i64, len: u64) -> Option<(u64, u64)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    if len == 0 || (start < 0 && end < 0 && start > end) {
        return None;
    }
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let last = if end < 0 { end.saturating_add(len).max(0) } else { end.min(len - 1) };
    (from <= last).then_some((from as u64, last as u64 + 1))
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.with(Flags::FAST);
const WRITE: Flags = Flags::WRITE.with(Flags::DENYOOM);
const WRITE_FAST: Flags = WRITE.with(Flags::FAST);
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("append", 3, WRITE_FAST, Keys::ONE, Group::String, append).doc("2.0.0", "Append a value to a key"),
    Command::new("get", 2, READ_FAST, Keys::ONE, Group::String, get).doc("1.0.0", "Get the value of a key"),
    Command::new("getdel", 2, Flags::WRITE.with(Flags::FAST), Keys::ONE, Group::String, getdel)
        .doc("6.2.0", "Get the value of a key and delete the key"),
    Command::new("getex", -2, Flags::WRITE.with(Flags::FAST), Keys::ONE, Group::String, getex)
        .doc("6.2.0", "Get the value of a key and optionally set its expiration"),
    Command::new("getrange", 4, READ, Keys::ONE, Group::String, getrange)
        .doc("2.4.0", "Get a substring of the string stored at a key"),
    Command::new("getset", 3, WRITE_FAST, Keys::ONE, Group::String, getset)
        .doc("1.0.0", "Set the string value of a key and return its old value"),
    Command::new("mget", -2, READ_FAST, Keys::ALL, Group::String, mget)
        .doc("1.0.0", "Get the values of all the given keys"),
    Command::new("mset", -3, WRITE, PAIRS, Group::String, mset).doc("1.0.1", "Set multiple keys to multiple values"),
    Command::new("msetnx", -3, WRITE, PAIRS, Group::String, msetnx)
        .doc("1.0.1", "Set multiple keys to multiple values, only if none of the keys exist"),
    Command::new("psetex", 4, WRITE, Keys::ONE, Group::String, psetex)
        .doc("2.6.0", "Set the value and expiration in milliseconds of a key"),
    Command::new("set", -3, WRITE, Keys::ONE, Group::String, set).doc("1.0.0", "Set the string value of a key"),
    Command::new("setex", 4, WRITE, Keys::ONE, Group::String, setex)
        .doc("2.0.0", "Set the value and expiration of a key"),
    Command::new("setnx", 3, WRITE_FAST, Keys::ONE, Group::String, setnx)
        .doc("1.0.0", "Set the value of a key, only if the key does not exist"),
    Command::new("setrange", 4, WRITE, Keys::ONE, Group::String, setrange)
        .doc("2.2.0", "Overwrite part of a string at key starting at the specified offset"),
    Command::new("strlen", 2, READ_FAST, Keys::ONE, Group::String, strlen)
        .doc("2.2.0", "Get the length of the value stored in a key"),
    Command::new("substr", 4, READ, Keys::ONE, Group::String, getrange)
        .doc("1.0.0", "Get a substring of the string stored at a key"),
];

#[cfg(test)]
#[path = "string_tests.rs"]
mod tests;
