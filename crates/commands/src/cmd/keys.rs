//! Keys of any type, and databases: deleting, renaming, moving, counting, flushing.
//!
//! RENAME, MOVE, SWAPDB and FLUSHDB cost the same whatever the size of what they move. They are logged as they came, without ASYNC;
//! UNLINK is logged as DEL.

use std::sync::atomic::Ordering;

use ardb_engine::{Rows, RowsMut};
use ardb_types::keyspace;

use super::args;
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome, dispatch};

/// DEL key [key ...]
fn del(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let deleted = delete_keys(ctx, &args[1..])?;
    ctx.out.int(deleted);
    Ok(Outcome::Done)
}

/// UNLINK key [key ...]
fn unlink(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let deleted = delete_keys(ctx, &args[1..])?;
    if deleted > 0 {
        let mut effect = args.to_vec();
        effect[0] = b"DEL";
        ctx.effect(&effect);
    }
    ctx.out.int(deleted);
    Ok(Outcome::Done)
}

fn delete_keys(ctx: &mut Ctx<'_>, keys: &[&[u8]]) -> Result<i64, CmdError> {
    let mut deleted = 0;
    for key in keys {
        let at = ctx.at(key);
        if let Some(row) = keyspace::lookup(&ctx.rows, &at)? {
            keyspace::delete(&mut ctx.rows, &at, &row);
            ctx.modified(key);
            ctx.notify(Events::GENERIC, "del", key);
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn count_there(ctx: &mut Ctx<'_>, keys: &[&[u8]]) -> CmdResult {
    let mut there = 0;
    for key in keys {
        let found = keyspace::lookup(&ctx.rows, &ctx.at(key))?.is_some();
        ctx.looked_up(key, found);
        there += i64::from(found);
    }
    ctx.out.int(there);
    Ok(Outcome::Done)
}

/// EXISTS key [key ...]
fn exists(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    count_there(ctx, &args[1..])
}

/// TOUCH key [key ...]: counts the keys that are there. No time of access is kept.
fn touch(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    count_there(ctx, &args[1..])
}

/// TYPE key
fn kind(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let row = keyspace::lookup(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], row.is_some());
    ctx.out.simple(row.map_or("none", |row| row.kind().name()));
    Ok(Outcome::Done)
}

/// RENAME key newkey
fn rename(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    rename_generic(ctx, args[1], args[2], false)?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// RENAMENX key newkey
fn renamenx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let renamed = rename_generic(ctx, args[1], args[2], true)?;
    ctx.out.int(i64::from(renamed));
    Ok(Outcome::Done)
}

fn rename_generic(ctx: &mut Ctx<'_>, from: &[u8], to: &[u8], only_new: bool) -> Result<bool, CmdError> {
    let source = ctx.at(from);
    let row = keyspace::lookup(&ctx.rows, &source)?.ok_or(error::NO_SUCH_KEY)?;
    if from == to {
        return Ok(!only_new);
    }
    let target = ctx.at(to);
    let found = keyspace::find(&ctx.rows, &target)?;
    if only_new && found.live().is_some() {
        return Ok(false);
    }
    keyspace::relocate(&mut ctx.rows, &source, &row, &target, found.raw.as_ref());
    ctx.modified(from);
    ctx.modified(to);
    ctx.dirty -= 1;
    ctx.notify(Events::NEW, "new", to);
    ctx.notify(Events::GENERIC, "rename_from", from);
    ctx.notify(Events::GENERIC, "rename_to", to);
    Ok(true)
}

/// A database's number.
pub(super) fn database(ctx: &Ctx<'_>, arg: &[u8]) -> Result<u32, CmdError> {
    let number = args::int(arg)?;
    u32::try_from(number).ok().filter(|&db| db < ctx.shared.settings.databases).ok_or(error::DB_OUT_OF_RANGE)
}

/// Deletes the key of another database if its time has come: the dispatcher does so only for keys of the selected one.
pub(super) fn expire_in(ctx: &mut Ctx<'_>, db: u32, key: &[u8]) -> Result<(), CmdError> {
    if ctx.origin == Origin::Client && !ctx.shared.gates.is_replica.load(Ordering::Relaxed) {
        dispatch::delete_if_due(ctx, db, key)?;
    }
    Ok(())
}

/// MOVE key db
fn move_key(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let key = args[1];
    let db = database(ctx, args[2])?;
    if db == ctx.session.db {
        return Err(error::SAME_OBJECT);
    }
    let source = ctx.at(key);
    let Some(row) = keyspace::lookup(&ctx.rows, &source)? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    expire_in(ctx, db, key)?;
    let target = ctx.at_db(db, key);
    let found = keyspace::find(&ctx.rows, &target)?;
    if found.live().is_some() {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    keyspace::relocate(&mut ctx.rows, &source, &row, &target, found.raw.as_ref());
    if let Some(expiry) = row.expiry() {
        // Redis 2.8 forgets the expiry of a key that is moved.
        ctx.effect(args);
        ctx.effect_db(db, &[b"PEXPIREAT", key, expiry.to_string().as_bytes()]);
    }
    ctx.modified(key);
    ctx.modified_db(db, key);
    ctx.dirty -= 1;
    ctx.notify_db(Events::NEW, "new", db, key);
    ctx.notify(Events::GENERIC, "move_from", key);
    ctx.notify_db(Events::GENERIC, "move_to", db, key);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// RANDOMKEY
fn randomkey(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    /// Places tried when only expired keys are found.
    const PLACES: usize = 16;
    let keyspace = ctx.rows.keyspace(ctx.session.db);
    let mut key = None;
    if ctx.rows.key_count(ctx.session.db) > 0 {
        for _ in 0..PLACES {
            let place = ctx.shared.random.lock().next_u64();
            key = keyspace::random_key(&ctx.rows, keyspace, place, ctx.visible_now())?;
            if key.is_some() {
                break;
            }
        }
    }
    ctx.out.bulk_or_null(key.as_deref());
    Ok(Outcome::Done)
}

/// DBSIZE
fn dbsize(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    ctx.out.size(ctx.rows.key_count(ctx.session.db));
    Ok(Outcome::Done)
}

/// SWAPDB index1 index2
fn swapdb(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let index = |arg: &[u8], text: &'static str| args::int(arg).map_err(|_| CmdError::text(text));
    let first = index(args[1], "ERR invalid first DB index")?;
    let second = index(args[2], "ERR invalid second DB index")?;
    let in_range = |n: i64| u32::try_from(n).ok().filter(|&db| db < ctx.shared.settings.databases);
    let (Some(a), Some(b)) = (in_range(first), in_range(second)) else { return Err(error::DB_OUT_OF_RANGE) };
    if a != b {
        for db in [a, b] {
            let Ctx { rows, shared, .. } = &*ctx;
            shared.db_modified(db, &mut |key| is_there(rows, a, key) || is_there(rows, b, key));
        }
        ctx.rows.swap(a, b);
    }
    ctx.dirty += 1;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Whether a key is there, expired or not. If that cannot be read it counts as there: a WATCH that fails for nothing does no harm.
fn is_there(rows: &impl Rows, db: u32, key: &[u8]) -> bool {
    let at = ardb_types::At::new(rows, db, key, ardb_base::id::UnixMs::MIN);
    !matches!(keyspace::lookup_raw(rows, &at), Ok(None))
}

fn flush_option(args: &[&[u8]]) -> Result<(), CmdError> {
    match args {
        [_] => Ok(()),
        // Flushing takes the same moment either way.
        [_, option] if args::is(option, "ASYNC") || args::is(option, "SYNC") => Ok(()),
        _ => Err(error::SYNTAX),
    }
}

fn flush(ctx: &mut Ctx<'_>, db: u32) {
    let keys = ctx.rows.key_count(db);
    if keys == 0 {
        return;
    }
    let Ctx { rows, shared, .. } = &*ctx;
    shared.db_modified(db, &mut |key| is_there(rows, db, key));
    ctx.rows.flush(db);
    ctx.dirty += keys;
}

/// FLUSHDB [ASYNC | SYNC]
fn flushdb(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    flush_option(args)?;
    flush(ctx, ctx.session.db);
    ctx.effect(&[b"FLUSHDB"]);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// FLUSHALL [ASYNC | SYNC]
fn flushall(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    flush_option(args)?;
    for db in 0..ctx.shared.settings.databases {
        flush(ctx, db);
    }
    ctx.effect(&[b"FLUSHALL"]);
    ctx.out.ok();
    Ok(Outcome::Done)
}

const READ_FAST: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("dbsize", 1, READ_FAST, Keys::None, Group::Server, dbsize)
        .doc("1.0.0", "Return the number of keys in the selected database"),
    Command::new("del", -2, Flags::WRITE, Keys::ALL, Group::Generic, del).doc("1.0.0", "Delete a key"),
    Command::new("exists", -2, READ_FAST.with(Flags::NO_TOUCH), Keys::ALL, Group::Generic, exists)
        .doc("1.0.0", "Determine if a key exists"),
    Command::new("flushall", -1, Flags::WRITE, Keys::None, Group::Server, flushall)
        .doc("1.0.0", "Remove all keys from all databases"),
    Command::new("flushdb", -1, Flags::WRITE, Keys::None, Group::Server, flushdb)
        .doc("1.0.0", "Remove all keys from the current database"),
    Command::new("move", 3, WRITE_FAST, Keys::ONE, Group::Generic, move_key)
        .doc("1.0.0", "Move a key to another database"),
    Command::new("randomkey", 1, Flags::READONLY, Keys::None, Group::Generic, randomkey)
        .doc("1.0.0", "Return a random key from the keyspace"),
    Command::new("rename", 3, Flags::WRITE, Keys::TWO, Group::Generic, rename).doc("1.0.0", "Rename a key"),
    Command::new("renamenx", 3, WRITE_FAST, Keys::TWO, Group::Generic, renamenx)
        .doc("1.0.0", "Rename a key, only if the new key does not exist"),
    Command::new("swapdb", 3, WRITE_FAST, Keys::None, Group::Server, swapdb).doc("4.0.0", "Swaps two Redis databases"),
    Command::new("touch", -2, READ_FAST, Keys::ALL, Group::Generic, touch)
        .doc("3.2.1", "Alters the last access time of a key(s). Returns the number of existing keys specified."),
    Command::new("type", 2, READ_FAST.with(Flags::NO_TOUCH), Keys::ONE, Group::Generic, kind)
        .doc("1.0.0", "Determine the type stored at key"),
    Command::new("unlink", -2, WRITE_FAST, Keys::ALL, Group::Generic, unlink)
        .doc("4.0.0", "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking."),
];

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
