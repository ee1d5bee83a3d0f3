//! DUMP and RESTORE: a value as Redis's own payload.
//!
//! A payload is written with RDB version 6 and plain encodings, which every Redis since 2.6 restores. RESTORE takes any that `ardb-rdb` reads.
//! It is logged as the DEL of what stood there, the RESTORE of a payload of our own making without an expiry, and PEXPIREAT. IDLETIME
//! and FREQ are checked and have no effect: they tell an eviction what to choose, and nothing is evicted here.

use std::ops::ControlFlow;

use ardb_base::number::i64_text;
use ardb_engine::RowsMut;
use ardb_rdb::{DumpError, DumpWriter, Items, KeyMeta, Sink, WriteError};
use ardb_types::value::{Item, ValueBuilder, each_item};
use ardb_types::{KeyRow, Kind, keyspace};

use super::{args, expire};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

fn dump_kind(kind: Kind) -> ardb_rdb::Kind {
    match kind {
        Kind::String => ardb_rdb::Kind::String,
        Kind::List => ardb_rdb::Kind::List,
        Kind::Set => ardb_rdb::Kind::Set,
        Kind::SortedSet => ardb_rdb::Kind::SortedSet,
        Kind::Hash => ardb_rdb::Kind::Hash,
    }
}

fn value_kind(kind: ardb_rdb::Kind) -> Kind {
    match kind {
        ardb_rdb::Kind::String => Kind::String,
        ardb_rdb::Kind::List => Kind::List,
        ardb_rdb::Kind::Set => Kind::Set,
        ardb_rdb::Kind::SortedSet => Kind::SortedSet,
        ardb_rdb::Kind::Hash => Kind::Hash,
    }
}

fn cannot_dump(error: WriteError) -> CmdError {
    CmdError::text(format!("ERR {error}"))
}

/// The payload of the value whose key's row is `row`.
fn payload(ctx: &Ctx<'_>, row: &KeyRow) -> Result<Vec<u8>, CmdError> {
    let mut writer = DumpWriter::new(Vec::new(), true);
    if let (Kind::String, ardb_types::Encoding::Inline) = (row.kind(), row.encoding()) {
        writer.string(row.inline()).map_err(cannot_dump)?;
        return writer.finish().map_err(cannot_dump);
    }
    writer.begin(dump_kind(row.kind()), row.size()).map_err(cannot_dump)?;
    let mut failed = None;
    each_item(&ctx.rows, row, &mut |item| {
        let written = match item {
            Item::Piece(bytes) => writer.string_piece(bytes),
            Item::Element(element) => writer.element(element),
            Item::Field(field, value) => writer.field(field, value),
            Item::Scored(member, score) => writer.scored(member, score),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(cannot_dump(error));
    }
    writer.end().map_err(cannot_dump)?;
    writer.finish().map_err(cannot_dump)
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
        self.value = Some(ValueBuilder::new(self.rows, value_kind(kind), self.old.take()));
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
}

fn parse(args: &[&[u8]]) -> Result<Options, CmdError> {
    let mut options = Options::default();
    let (mut idle, mut freq) = (false, false);
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if args::is(option, "REPLACE") {
            options.replace = true;
        } else if args::is(option, "ABSTTL") {
            options.absolute = true;
        } else if args::is(option, "IDLETIME")
            && !freq
            && let Some(seconds) = rest.next()
        {
            if args::int(seconds)? < 0 {
                return Err(CmdError::text("ERR Invalid IDLETIME value, must be >= 0"));
            }
            idle = true;
        } else if args::is(option, "FREQ")
            && !idle
            && let Some(frequency) = rest.next()
        {
            if !(0..=255).contains(&args::int(frequency)?) {
                return Err(CmdError::text("ERR Invalid FREQ value, must be >= 0 and <= 255"));
            }
            freq = true;
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
    let mut restored = Restored { rows: &mut ctx.rows, old: found.raw, value: None };
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
];

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
