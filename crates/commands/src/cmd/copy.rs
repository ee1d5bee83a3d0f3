//! COPY, and a value as the commands that make it.
//!
//! Redis 2.6 does not know COPY, so it is logged as DEL of what stood there, then SET and APPEND, RPUSH, SADD, HMSET or ZADD of a
//! bounded number of items each, then PEXPIREAT.

use ardb_base::number::{f64_text, i64_text};
use ardb_types::string::StringValue;
use ardb_types::value::{Item, ItemWalk};
use ardb_types::{KeyRow, Kind, keyspace};

use super::args;
use super::keys::{database, expire_in};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// Items in one logged command.
const ITEMS: usize = 64;
/// Bytes of a string in one logged command.
const PIECE: u64 = 1 << 20;

/// Logs the commands that make the value of `row`, with its expiry, at `key` of `db`, where no key is.
pub(super) fn log_value(ctx: &mut Ctx<'_>, db: u32, key: &[u8], row: &KeyRow) -> Result<(), CmdError> {
    if ctx.origin == Origin::Stream {
        return Ok(());
    }
    match row.kind() {
        Kind::String => log_string(ctx, db, key, row)?,
        Kind::List => log_items(ctx, db, key, row, b"RPUSH")?,
        Kind::Set => log_items(ctx, db, key, row, b"SADD")?,
        Kind::Hash => log_items(ctx, db, key, row, b"HMSET")?,
        Kind::SortedSet => log_items(ctx, db, key, row, b"ZADD")?,
    }
    if let Some(time) = row.expiry() {
        ctx.effect_db(db, &[b"PEXPIREAT", key, &i64_text(time)]);
    }
    Ok(())
}

fn log_string(ctx: &mut Ctx<'_>, db: u32, key: &[u8], row: &KeyRow) -> Result<(), CmdError> {
    let value = StringValue::of_row(row.clone());
    let mut from = 0;
    loop {
        let piece = value.range(&ctx.rows, from, from + PIECE)?;
        let name: &[u8] = if from == 0 { b"SET" } else { b"APPEND" };
        ctx.effect_db(db, &[name, key, &piece]);
        from += PIECE;
        if from >= value.len() {
            return Ok(());
        }
    }
}

fn log_items(ctx: &mut Ctx<'_>, db: u32, key: &[u8], row: &KeyRow, command: &[u8]) -> Result<(), CmdError> {
    let mut walk = ItemWalk::new(row);
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut more = true;
    while more {
        more = walk.step(&ctx.rows, ITEMS, &mut |item| match item {
            Item::Element(element) | Item::Piece(element) => words.push(element.to_vec()),
            Item::Field(field, value) => words.extend([field.to_vec(), value.to_vec()]),
            Item::Scored(member, score) => words.extend([f64_text(score).to_vec(), member.to_vec()]),
        })?;
        if !words.is_empty() {
            let mut effect: Vec<&[u8]> = vec![command, key];
            effect.extend(words.iter().map(Vec::as_slice));
            ctx.effect_db(db, &effect);
            words.clear();
        }
    }
    Ok(())
}

/// COPY source destination [DB destination-db] [REPLACE]
fn copy(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (from, to) = (args[1], args[2]);
    let mut db = ctx.session.db;
    let mut replace = false;
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        if args::is(option, "REPLACE") {
            replace = true;
        } else if args::is(option, "DB")
            && let Some(number) = options.next()
        {
            db = database(ctx, number)?;
        } else {
            return Err(error::SYNTAX);
        }
    }
    if db == ctx.session.db && from == to {
        return Err(error::SAME_OBJECT);
    }
    let row = keyspace::lookup(&ctx.rows, &ctx.at(from))?;
    ctx.looked_up(from, row.is_some());
    let Some(row) = row else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    expire_in(ctx, db, to)?;
    let target = ctx.at_db(db, to);
    let found = keyspace::find(&ctx.rows, &target)?;
    let replaces = found.live().is_some();
    if replaces && !replace {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    keyspace::copy(&mut ctx.rows, &row, &target, found.raw.as_ref())?;
    if replaces {
        ctx.effect_db(db, &[b"DEL", to]);
    }
    log_value(ctx, db, to, &row)?;
    ctx.modified_db(db, to);
    ctx.notify_db(Events::NEW, "new", db, to);
    ctx.notify_db(Events::GENERIC, "copy_to", db, to);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] =
    &[Command::new("copy", -3, Flags::WRITE.with(Flags::DENYOOM), Keys::TWO, Group::Generic, copy)
        .doc("6.2.0", "Copy a key")];
