//! Expiry: EXPIRE and its kin, TTL and its kin, and what becomes of an entry of the index that is due.
//!
//! Every way to give an expiry is logged as PEXPIREAT with the absolute time, an expiry in the past as DEL. In the master's
//! stream a past time is kept as it is: the key stays until the master's DEL.

use std::sync::atomic::Ordering;

use ardb_base::id::UnixMs;
use ardb_base::number::i64_text;
use ardb_engine::Rows;
use ardb_types::{At, KeyRow, keyspace};

use super::args;
use crate::context::{Ctx, Origin};
use crate::error::CmdError;
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome, dispatch};

/// What a time in a command counts, and from when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Ms,
    /// Seconds since 1970.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMs,
}

impl Clock {
    /// Whether it counts from 1970.
    pub(super) fn is_absolute(self) -> bool {
        matches!(self, Clock::UnixSeconds | Clock::UnixMs)
    }

    /// The time that `amount` is, in ms since 1970, unless it is out of range.
    fn time(self, amount: i64, now: UnixMs) -> Option<UnixMs> {
        match self {
            Clock::Seconds => amount.checked_mul(1000)?.checked_add(now),
            Clock::Ms => amount.checked_add(now),
            Clock::UnixSeconds => amount.checked_mul(1000),
            Clock::UnixMs => Some(amount),
        }
    }
}

fn invalid_time(name: &str) -> CmdError {
    CmdError::text(format!("ERR invalid expire time in '{name}' command"))
}

/// The time that an option of SET, GETEX and the like gives; the amount must be positive.
pub(super) fn positive_time(ctx: &Ctx<'_>, amount: &[u8], clock: Clock, name: &str) -> Result<UnixMs, CmdError> {
    let amount = args::int(amount)?;
    if amount <= 0 {
        return Err(invalid_time(name));
    }
    clock.time(amount, ctx.now).ok_or_else(|| invalid_time(name))
}

/// Whether an expiry at this time means deletion at once. Never on a replica, which waits for its master's word.
pub(super) fn is_past(ctx: &Ctx<'_>, time: UnixMs) -> bool {
    time <= ctx.now && ctx.origin == Origin::Client && !ctx.shared.gates.is_replica.load(Ordering::Relaxed)
}

/// Deletes the key, whose row is `row`, since its new expiry is in the past.
pub(super) fn delete_now(ctx: &mut Ctx<'_>, key: &[u8], row: &KeyRow) {
    let at = ctx.at(key);
    keyspace::delete(&mut ctx.rows, &at, row);
    ctx.modified(key);
    ctx.effect(&[b"DEL", key]);
    ctx.notify(Events::GENERIC, "del", key);
}

/// Gives the key, whose row is `row`, an expiry.
pub(super) fn expire_at(ctx: &mut Ctx<'_>, key: &[u8], row: &KeyRow, time: UnixMs) {
    let at = ctx.at(key);
    keyspace::set_expiry(&mut ctx.rows, &at, row, Some(time));
    ctx.modified(key);
    ctx.effect(&[b"PEXPIREAT", key, &i64_text(time)]);
    ctx.notify(Events::GENERIC, "expire", key);
}

/// Takes the expiry of the key, whose row is `row`, away; whether it had one.
pub(super) fn persist_row(ctx: &mut Ctx<'_>, key: &[u8], row: &KeyRow) -> bool {
    if row.expiry().is_none() {
        return false;
    }
    let at = ctx.at(key);
    keyspace::set_expiry(&mut ctx.rows, &at, row, None);
    ctx.modified(key);
    ctx.effect(&[b"PERSIST", key]);
    ctx.notify(Events::GENERIC, "persist", key);
    true
}

/// The conditions NX, XX, GT and LT of EXPIRE.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Conditions, CmdError> {
        let mut found = Conditions::default();
        for option in options {
            let flag = match () {
                () if args::is(option, "NX") => &mut found.nx,
                () if args::is(option, "XX") => &mut found.xx,
                () if args::is(option, "GT") => &mut found.gt,
                () if args::is(option, "LT") => &mut found.lt,
                () => {
                    let mut text = b"ERR Unsupported option ".to_vec();
                    text.extend_from_slice(option);
                    return Err(CmdError::Bytes(text));
                }
            };
            *flag = true;
        }
        if found.nx && (found.xx || found.gt || found.lt) {
            return Err(CmdError::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if found.gt && found.lt {
            return Err(CmdError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(found)
    }

    /// Whether the key's expiry may become `time`; no expiry counts as later than any.
    fn allow(self, current: Option<UnixMs>, time: UnixMs) -> bool {
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| time <= current)
            || self.lt && current.is_some_and(|current| time >= current))
    }
}

fn expire_generic(ctx: &mut Ctx<'_>, args: &[&[u8]], clock: Clock, name: &str) -> CmdResult {
    let conditions = Conditions::parse(&args[3..])?;
    let amount = args::int(args[2])?;
    let time = clock.time(amount, ctx.now).ok_or_else(|| invalid_time(name))?;
    let row = keyspace::lookup(&ctx.rows, &ctx.at(args[1]))?;
    let Some(row) = row.filter(|row| conditions.allow(row.expiry(), time)) else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    if is_past(ctx, time) {
        delete_now(ctx, args[1], &row);
    } else {
        expire_at(ctx, args[1], &row, time);
    }
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// EXPIRE key seconds [NX | XX | GT | LT]
fn expire(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    expire_generic(ctx, args, Clock::Seconds, "expire")
}

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
fn pexpire(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    expire_generic(ctx, args, Clock::Ms, "pexpire")
}

/// EXPIREAT key unix-time-seconds [NX | XX | GT | LT]
fn expireat(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    expire_generic(ctx, args, Clock::UnixSeconds, "expireat")
}

/// PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]
fn pexpireat(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    expire_generic(ctx, args, Clock::UnixMs, "pexpireat")
}

/// PERSIST key
fn persist(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let had_one = match keyspace::lookup(&ctx.rows, &ctx.at(args[1]))? {
        Some(row) => persist_row(ctx, args[1], &row),
        None => false,
    };
    ctx.out.int(i64::from(had_one));
    Ok(Outcome::Done)
}

/// Replies -2 without a key, -1 without an expiry, else what `show` makes of it.
fn reply_expiry(ctx: &mut Ctx<'_>, key: &[u8], show: impl FnOnce(UnixMs) -> i64) -> CmdResult {
    let row = keyspace::lookup(&ctx.rows, &ctx.at(key))?;
    ctx.looked_up(key, row.is_some());
    let answer = match row {
        None => -2,
        Some(row) => row.expiry().map_or(-1, show),
    };
    ctx.out.int(answer);
    Ok(Outcome::Done)
}

/// Milliseconds as seconds, rounded to nearest.
fn seconds(ms: i64) -> i64 {
    ((i128::from(ms) + 500) / 1000) as i64
}

/// TTL key
fn ttl(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let now = ctx.now;
    reply_expiry(ctx, args[1], |time| seconds(time.saturating_sub(now).max(0)))
}

/// PTTL key
fn pttl(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let now = ctx.now;
    reply_expiry(ctx, args[1], |time| time.saturating_sub(now).max(0))
}

/// EXPIRETIME key
fn expiretime(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_expiry(ctx, args[1], seconds)
}

/// PEXPIRETIME key
fn pexpiretime(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_expiry(ctx, args[1], |time| time)
}

/// Deals with an entry of the expiry index that was found due, under the writer lock: deletes its key if that is still due, and logs the DEL; an entry
/// that belongs to no key is dropped, which is no effect. Whether the entry is gone. On a replica a key waits for the master's DEL.
pub fn expire_entry(ctx: &mut Ctx<'_>, entry: &keyspace::Due) -> Result<bool, CmdError> {
    let Some(db) = (0..ctx.shared.settings.databases).find(|&db| ctx.rows.keyspace(db) == entry.keyspace) else {
        // Its database was flushed.
        keyspace::drop_expiry_entry(&mut ctx.rows, entry);
        return Ok(true);
    };
    if ctx.shared.gates.is_replica.load(Ordering::Relaxed) {
        return Ok(false);
    }
    Ok(dispatch::delete_if_due(ctx, db, &entry.key)? || drop_stray(ctx, db, entry)?)
}

/// Drops the entry if it breaks the index's invariant, since it must not stop the others. One whose key was given another time, or deleted,
/// since it was read is no more there to be dropped.
fn drop_stray(ctx: &mut Ctx<'_>, db: u32, entry: &keyspace::Due) -> Result<bool, CmdError> {
    let at = At::new(&ctx.rows, db, &entry.key, UnixMs::MIN);
    let row = keyspace::lookup(&ctx.rows, &at)?;
    if row.and_then(|row| row.expiry()) == Some(entry.time) || !keyspace::has_expiry_entry(&ctx.rows, entry)? {
        return Ok(false);
    }
    log::error!("an entry of the expiry index in db {db} had no key; it was removed");
    keyspace::drop_expiry_entry(&mut ctx.rows, entry);
    Ok(true)
}

const READ_FAST: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("expire", -3, WRITE_FAST, Keys::ONE, Group::Generic, expire)
        .doc("1.0.0", "Set a key's time to live in seconds"),
    Command::new("expireat", -3, WRITE_FAST, Keys::ONE, Group::Generic, expireat)
        .doc("1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    Command::new("expiretime", 2, READ_FAST.with(Flags::NO_TOUCH), Keys::ONE, Group::Generic, expiretime)
        .doc("7.0.0", "Get the expiration Unix timestamp for a key"),
    Command::new("persist", 2, WRITE_FAST, Keys::ONE, Group::Generic, persist)
        .doc("2.2.0", "Remove the expiration from a key"),
    Command::new("pexpire", -3, WRITE_FAST, Keys::ONE, Group::Generic, pexpire)
        .doc("2.6.0", "Set a key's time to live in milliseconds"),
    Command::new("pexpireat", -3, WRITE_FAST, Keys::ONE, Group::Generic, pexpireat)
        .doc("2.6.0", "Set the expiration for a key as a UNIX timestamp in milliseconds"),
    Command::new("pexpiretime", 2, READ_FAST.with(Flags::NO_TOUCH), Keys::ONE, Group::Generic, pexpiretime)
        .doc("7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    Command::new("pttl", 2, READ_FAST.with(Flags::NO_TOUCH), Keys::ONE, Group::Generic, pttl)
        .doc("2.6.0", "Get the time to live for a key in milliseconds"),
    Command::new("ttl", 2, READ_FAST.with(Flags::NO_TOUCH), Keys::ONE, Group::Generic, ttl)
        .doc("1.0.0", "Get the time to live for a key in seconds"),
];
