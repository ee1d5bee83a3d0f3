//! DUMP and RESTORE: a value as Redis's own payload.
//!
//! A payload is written with RDB version 6 and plain encodings, which every Redis since 2.6 restores. RESTORE takes any that `ardb-rdb` reads.
//! It is logged as the DEL of what stood there, the RESTORE of a payload of our own making without an expiry, and PEXPIREAT. IDLETIME
//! and FREQ are for OBJECT to show; nothing is evicted by them.

use ardb_base::number::i64_text;
use ardb_engine::RowsMut;
use ardb_rdb::{DumpError, KeyMeta, Sink};
use ardb_types::value::{Item, ValueBuilder};
use ardb_types::{KeyRow, Limits, keyspace};

use super::{args, expire};
use crate::access::Access;
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::persist::save::{self, SaveError};
use crate::persist::value_kind;
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// The payload of the value whose key's row is `row`.
fn payload(ctx: &Ctx<'_>, row: &KeyRow) -> Result<Vec<u8>, CmdError> {
    save::payload(&ctx.rows, row).map_err(|error| match error {
        SaveError::Data(error) => error.into(),
        error => CmdError::text(format!("ERR {error}")),
    })
}

/// DUMP key
fn dump(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let row = keyspace::lookup(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], row.is_some());
    match row {
        Some(row) => {
            let bytes = payload(ctx, &row)?;
            ctx.out.bulk(&bytes);
        }
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// Makes a value of what the reader of a payload tells.
struct Restored<'r, R: RowsMut> {
    rows: &'r mut R,
    old: Option<KeyRow>,
    limits: Limits,
    value: Option<ValueBuilder>,
}

impl<R: RowsMut> Restored<'_, R> {
    fn add(&mut self, item: Item<'_>) -> Result<(), CmdError> {
        match &mut self.value {
            Some(value) => value.add(self.rows, item).map(|_| ()).map_err(CmdError::from),
            None => Err(bad_format()),
        }
    }
}

impl<R: RowsMut> Sink for Restored<'_, R> {
    type Error = CmdError;

    fn select_db(&mut self, _db: u64) -> Result<(), CmdError> {
        Err(bad_format())
    }

    fn function(&mut self, _code: &[u8]) -> Result<(), CmdError> {
        Err(bad_format())
    }

    fn begin(
        &mut self,
        _key: &[u8],
        _meta: &KeyMeta,
        kind: ardb_rdb::Kind,
        _size_hint: Option<u64>,
    ) -> Result<(), CmdError> {
        self.value = Some(ValueBuilder::new(value_kind(kind), self.old.take(), self.limits));
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), CmdError> {
        self.add(Item::Piece(piece))
    }

    fn element(&mut self, element: &[u8]) -> Result<(), CmdError> {
        self.add(Item::Element(element))
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), CmdError> {
        self.add(Item::Field(field, value))
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), CmdError> {
        self.add(Item::Scored(member, score))
    }

    fn end(&mut self) -> Result<(), CmdError> {
        Ok(())
    }
}

fn bad_format() -> CmdError {
    CmdError::text("ERR Bad data format")
}

#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle: Option<u64>,
    frequency: Option<u8>,
}

fn parse(args: &[&[u8]]) -> Result<Options, CmdError> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if args::is(option, "REPLACE") {
            options.replace = true;
        } else if args::is(option, "ABSTTL") {
            options.absolute = true;
        } else if args::is(option, "IDLETIME")
            && options.frequency.is_none()
            && let Some(seconds) = rest.next()
        {
            let seconds = u64::try_from(args::int(seconds)?);
            options.idle = Some(seconds.map_err(|_| CmdError::text("ERR Invalid IDLETIME value, must be >= 0"))?);
        } else if args::is(option, "FREQ")
            && options.idle.is_none()
            && let Some(frequency) = rest.next()
        {
            let frequency = u8::try_from(args::int(frequency)?);
            let invalid = "ERR Invalid FREQ value, must be >= 0 and <= 255";
            options.frequency = Some(frequency.map_err(|_| CmdError::text(invalid))?);
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(options)
}

/// RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]
fn restore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let options = parse(&args[4..])?;
    let key = args[1];
    let at = ctx.at(key);
    let found = keyspace::find(&ctx.rows, &at)?;
    if found.live().is_some() && !options.replace {
        return Err(error::BUSY_KEY);
    }
    let ttl = args::int(args[2])?;
    if ttl < 0 {
        return Err(CmdError::text("ERR Invalid TTL value, must be >= 0"));
    }
    let expiry = match ttl {
        0 => None,
        ttl if options.absolute => Some(ttl),
        ttl => Some(ctx.now.checked_add(ttl).ok_or(CmdError::text("ERR Invalid TTL value, must be >= 0"))?),
    };
    let live = found.live().cloned();
    let mut restored = Restored { rows: &mut ctx.rows, old: found.raw, limits: at.limits, value: None };
    let read = ardb_rdb::load_dump(args[3], &mut restored);
    let value = restored.value.take();
    read.map_err(|error| match error {
        DumpError::BadVersionOrChecksum => CmdError::text("ERR DUMP payload version or checksum are wrong"),
        DumpError::Sink(error) => error,
        _ => bad_format(),
    })?;
    let value = value.ok_or_else(bad_format)?;
    ctx.out.ok();
    if expiry.is_some_and(|time| expire::is_past(ctx, time)) {
        // Nothing to restore: only the old value goes. What was built of the new one must not stay.
        value.finish(&mut ctx.rows, &at, None)?;
        let row = keyspace::lookup_raw(&ctx.rows, &at)?.ok_or_else(bad_format)?;
        match live {
            Some(_) => expire::delete_now(ctx, key, &row),
            None => keyspace::delete(&mut ctx.rows, &at, &row),
        }
        return Ok(Outcome::Done);
    }
    value.finish(&mut ctx.rows, &at, expiry)?;
    if ctx.origin == Origin::Client {
        let row = keyspace::lookup_raw(&ctx.rows, &at)?.ok_or_else(bad_format)?;
        let bytes = payload(ctx, &row)?;
        if live.is_some() {
            ctx.effect(&[b"DEL", key]);
        }
        ctx.effect(&[b"RESTORE", key, b"0", &bytes]);
        if let Some(time) = expiry {
            ctx.effect(&[b"PEXPIREAT", key, &i64_text(time)]);
        }
    }
    if options.idle.is_some() || options.frequency.is_some() {
        let access = Access { idle: options.idle.unwrap_or(0), frequency: options.frequency.unwrap_or(0) };
        ctx.shared.accesses.set(ctx.session.db, key, ctx.now, access);
    }
    ctx.modified(key);
    ctx.notify(Events::NEW, "new", key);
    ctx.notify(Events::GENERIC, "restore", key);
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("dump", 2, Flags::READONLY, Keys::ONE, Group::Generic, dump)
        .doc("2.6.0", "Return a serialized version of the value stored at the specified key."),
    Command::new("restore", -4, Flags::WRITE.with(Flags::DENYOOM), Keys::ONE, Group::Generic, restore)
        .doc("2.6.0", "Create a key using the provided serialized value, previously obtained using DUMP."),
    // A master in a cluster that takes in a slot passes this on as it came.
    Command::new("restore-asking", -4, Flags::WRITE.with(Flags::DENYOOM), Keys::ONE, Group::Server, restore)
        .doc("3.0.0", "RESTORE, as nodes of a cluster send it"),
];

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
