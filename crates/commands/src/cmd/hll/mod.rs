//! HyperLogLogs: PFADD, PFCOUNT, PFMERGE, PFDEBUG. The values are strings; `value.rs` says what is in them.
//!
//! Logged is what became of the string, in words of Redis 2.6: SETRANGE where bytes have changed in place or at the end, which is mostly
//! one register, else SET. PFCOUNT only reads: of what it counts it leaves nothing in the string, unless the master's stream
//! says so, in which the same PFCOUNT has left it in the master's.

mod dense;
mod estimate;
mod sparse;
#[cfg(test)]
mod tests;
mod value;

use std::ops::Range;
use std::sync::atomic::Ordering;

use ardb_types::keyspace::{self, Found};
use ardb_types::{Kind, string};

use self::estimate::REGISTERS;
use self::sparse::Corrupt;
use self::value::{CACHE, HEADER, Hll, Union};
use super::args;
use super::string::{changed, found_string, log_set};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

impl From<Corrupt> for CmdError {
    fn from(_: Corrupt) -> CmdError {
        error::HLL_CORRUPT
    }
}

/// The most bytes of a sparse one.
fn limit(ctx: &Ctx<'_>) -> usize {
    usize::try_from(ctx.shared.settings.hll_sparse_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
}

/// The HyperLogLog at a key that is about to be written, or a new one.
fn found_hll(ctx: &Ctx<'_>, found: &Found) -> Result<Hll, CmdError> {
    let Some(value) = found_string(found) else { return Ok(Hll::new()) };
    Hll::parse(value.bytes(&ctx.rows)?.into_owned()).ok_or(error::NOT_HLL)
}

/// The HyperLogLog at a key that is only read.
fn open(ctx: &Ctx<'_>, key: &[u8]) -> Result<Option<Hll>, CmdError> {
    let value = string::get(&ctx.rows, &ctx.at(key))?;
    ctx.looked_up(key, value.is_some());
    match value {
        Some(value) => Hll::parse(value.bytes(&ctx.rows)?.into_owned()).map(Some).ok_or(error::NOT_HLL),
        None => Ok(None),
    }
}

/// Writes and logs what differs between the string that was `found` at the key and `new`.
fn save(ctx: &mut Ctx<'_>, key: &[u8], found: &Found, new: &Hll) -> Result<(), CmdError> {
    let new = new.bytes();
    let at = ctx.at(key);
    if let Some(old) = found_string(found)
        && old.len() <= new.len() as u64
    {
        let old = old.bytes(&ctx.rows)?.into_owned();
        let ranges = [difference(&old, new, 0..HEADER), difference(&old, new, HEADER..new.len())];
        for range in ranges.into_iter().flatten() {
            // The first write has changed what stands there.
            let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
            string::write(&mut ctx.rows, &at, &found, range.start as u64, &new[range.clone()])?;
            ctx.effect(&[b"SETRANGE", key, range.start.to_string().as_bytes(), &new[range]]);
        }
    } else {
        string::set(&mut ctx.rows, &at, found.raw.as_ref(), new, found.expiry());
        log_set(ctx, key, new, found.expiry());
    }
    changed(ctx, key, found.live().is_some(), "pfadd");
    Ok(())
}

/// The least part of `within` outside of which `old`, which is no longer, and `new` are equal.
fn difference(old: &[u8], new: &[u8], within: Range<usize>) -> Option<Range<usize>> {
    let differs = |at: &usize| old.get(*at) != Some(&new[*at]);
    let first = within.clone().find(differs)?;
    let last = within.rev().find(differs)?;
    Some(first..last + 1)
}

/// PFADD key [element ...]
fn pfadd(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let limit = limit(ctx);
    let found = keyspace::find_kind(&ctx.rows, &ctx.at(args[1]), Kind::String)?;
    let mut hll = found_hll(ctx, &found)?;
    let mut updated = u64::from(found.live().is_none());
    for element in &args[2..] {
        updated += u64::from(hll.add(element, limit)?);
    }
    if updated > 0 {
        hll.invalidate();
        save(ctx, args[1], &found, &hll)?;
        ctx.dirty += updated - 1;
    }
    ctx.out.int(i64::from(updated > 0));
    Ok(Outcome::Done)
}

/// PFCOUNT key [key ...]
fn pfcount(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if let [_, key] = args {
        let count = count_one(ctx, key)?;
        ctx.out.size(count);
        return Ok(Outcome::Done);
    }
    let mut union = Union::new();
    for key in &args[1..] {
        if let Some(hll) = open(ctx, key)? {
            union.merge(&hll)?;
        }
    }
    ctx.out.size(union.count());
    Ok(Outcome::Done)
}

fn count_one(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<u64, CmdError> {
    let Some(hll) = open(ctx, key)? else { return Ok(0) };
    if let Some(count) = hll.cached() {
        return Ok(count);
    }
    let count = hll.count()?;
    if ctx.origin == Origin::Stream && ctx.rows.can_write() {
        let at = ctx.at(key);
        let found = keyspace::find_kind(&ctx.rows, &at, Kind::String)?;
        string::write(&mut ctx.rows, &at, &found, CACHE.start as u64, &count.to_le_bytes())?;
        ctx.modified(key);
    }
    Ok(count)
}

/// PFMERGE destkey [sourcekey ...]
fn pfmerge(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let limit = limit(ctx);
    let mut union = Union::new();
    let mut dense = false;
    for key in &args[1..] {
        if let Some(hll) = open(ctx, key)? {
            dense |= hll.is_dense();
            union.merge(&hll)?;
        }
    }
    let found = keyspace::find_kind(&ctx.rows, &ctx.at(args[1]), Kind::String)?;
    let mut hll = found_hll(ctx, &found)?;
    if dense {
        hll.make_dense()?;
    }
    hll.raise_all(&union, limit)?;
    hll.invalidate();
    save(ctx, args[1], &found, &hll)?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// PFDEBUG GETREG | DECODE | ENCODING | TODENSE key
fn pfdebug(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (word, key) = (args[1], args[2]);
    let found = keyspace::find_kind(&ctx.rows, &ctx.at(key), Kind::String)?;
    if found.live().is_none() {
        return Err(CmdError::text("ERR The specified key does not exist"));
    }
    let mut hll = found_hll(ctx, &found)?;
    let known = ["getreg", "decode", "encoding", "todense"].iter().any(|name| args::is(word, name));
    if !known {
        return Err(CmdError::Bytes([b"ERR Unknown PFDEBUG subcommand '", word, b"'"].concat()));
    }
    if args::is(word, "encoding") {
        ctx.out.simple(if hll.is_dense() { "dense" } else { "sparse" });
        return Ok(Outcome::Done);
    }
    if args::is(word, "decode") {
        if hll.is_dense() {
            return Err(CmdError::text("ERR HLL encoding is not sparse"));
        }
        let mut words = Vec::new();
        // This is for looking at damage too: what can be read is shown.
        let _ = sparse::decode(hll.body(), |run| {
            words.push(match (run.rank, run.long) {
                (0, false) => format!("z:{}", run.len),
                (0, true) => format!("Z:{}", run.len),
                (rank, _) => format!("v:{rank},{}", run.len),
            });
        });
        ctx.out.bulk(words.join(" ").as_bytes());
        return Ok(Outcome::Done);
    }
    let turned = hll.make_dense()?;
    if turned {
        save(ctx, key, &found, &hll)?;
    }
    if args::is(word, "todense") {
        ctx.out.int(i64::from(turned));
        return Ok(Outcome::Done);
    }
    ctx.out.array(REGISTERS);
    dense::each(hll.body(), |_, rank| ctx.out.int(i64::from(rank)));
    Ok(Outcome::Done)
}

const ADDS: Flags = Flags::WRITE.with(Flags::DENYOOM);

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::HyperLogLog, handler)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("pfadd", -2, ADDS.with(Flags::FAST), Keys::ONE, pfadd)
        .doc("2.8.9", "Count elements in a HyperLogLog, each once"),
    row("pfcount", -2, Flags::READONLY.with(Flags::MAY_REPLICATE), Keys::ALL, pfcount)
        .doc("2.8.9", "About how many different elements HyperLogLogs have counted together"),
    row("pfdebug", 3, ADDS.with(Flags::ADMIN), Keys::Range { first: 2, last: 2, step: 1 }, pfdebug)
        .doc("2.8.9", "Look into a HyperLogLog"),
    row("pfmerge", -2, ADDS, Keys::ALL, pfmerge).doc("2.8.9", "Merge HyperLogLogs into the first one"),
];
