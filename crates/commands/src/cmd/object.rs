//! OBJECT: what people ask about how a value is held.
//!
//! ENCODING answers what Redis 7.0 would have chosen for the value as it is now, by the same settings; here every value has the same few
//! forms (see `ardb_types::key_row`). IDLETIME and FREQ are known of keys that were used lately (see [`crate::access`]).

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::number::parse_i64;
use ardb_types::value::{Item, each_item};
use ardb_types::zset::ZSet;
use ardb_types::{KeyRow, Kind, keyspace};

use super::help;
use crate::access::Access;
use crate::context::Ctx;
use crate::error::CmdError;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// The longest string that Redis allocates together with its header.
const EMBEDDED_MAX: u64 = 44;

fn encoding_of(ctx: &Ctx<'_>, row: &KeyRow) -> Result<&'static str, CmdError> {
    let settings = &ctx.shared.settings;
    let get = |setting: &AtomicU64| setting.load(Ordering::Relaxed);
    // Whether a look at all items (no more than the limit) finds them as they must be.
    let all = |fits: &dyn Fn(Item<'_>) -> bool| -> Result<bool, CmdError> {
        let mut fit = true;
        each_item(&ctx.rows, row, &mut |item| {
            fit = fits(item);
            if fit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(fit)
    };
    Ok(match row.kind() {
        Kind::String => match row.size() {
            1..=20 if parse_i64(row.inline()).is_some() => "int",
            0..=EMBEDDED_MAX => "embstr",
            _ => "raw",
        },
        Kind::List => "quicklist",
        Kind::Set => {
            let integers = row.size() <= get(&settings.set_max_intset)
                && all(&|item| matches!(item, Item::Element(member) if parse_i64(member).is_some()))?;
            if integers { "intset" } else { "hashtable" }
        }
        Kind::Hash => {
            let longest = get(&settings.hash_max_value);
            let fits = |bytes: &[u8]| bytes.len() as u64 <= longest;
            let small = row.size() <= get(&settings.hash_max_entries)
                && all(&|item| matches!(item, Item::Field(field, value) if fits(field) && fits(value)))?;
            if small { "listpack" } else { "hashtable" }
        }
        Kind::SortedSet => {
            // As in Redis a set that was big once stays so.
            let set = ZSet::of_row(row.clone())?;
            let small =
                set.peak() <= get(&settings.zset_max_entries) && set.longest_member()? <= get(&settings.zset_max_value);
            if small { "listpack" } else { "skiplist" }
        }
    })
}

/// OBJECT ENCODING key
fn encoding(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    match keyspace::lookup(&ctx.rows, &ctx.at(args[2]))? {
        Some(row) => {
            let name = encoding_of(ctx, &row)?;
            ctx.out.bulk(name.as_bytes());
        }
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// OBJECT REFCOUNT key: nothing shares a value, so 1.
fn refcount(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    match keyspace::lookup(&ctx.rows, &ctx.at(args[2]))? {
        Some(_) => ctx.out.int(1),
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// Replies what `figure` makes of the key's accesses, if the policy shows this figure at all.
fn access(ctx: &mut Ctx<'_>, key: &[u8], lfu: bool, refusal: &'static str, figure: fn(Access) -> u64) -> CmdResult {
    if keyspace::lookup(&ctx.rows, &ctx.at(key))?.is_none() {
        ctx.out.null();
    } else if ctx.shared.lfu.load(Ordering::Relaxed) == lfu {
        ctx.out.size(figure(ctx.shared.accesses.get(ctx.session.db, key, ctx.now)));
    } else {
        return Err(CmdError::text(refusal));
    }
    Ok(Outcome::Done)
}

/// OBJECT IDLETIME key
fn idletime(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    const REFUSAL: &str = "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
    access(ctx, args[2], false, REFUSAL, |access| access.idle)
}

/// OBJECT FREQ key
fn freq(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    const REFUSAL: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
    access(ctx, args[2], true, REFUSAL, |access| u64::from(access.frequency))
}

/// The key stands after the subcommand.
const KEY: Keys = Keys::Range { first: 2, last: 2, step: 1 };

const SUBCOMMANDS: &[Command] = &[
    Command::new("encoding", 3, Flags::READONLY.with(Flags::NO_TOUCH), KEY, Group::Generic, encoding)
        .doc("2.2.3", "Inspect the internal encoding of a Redis object"),
    Command::new("freq", 3, Flags::READONLY.with(Flags::NO_TOUCH), KEY, Group::Generic, freq)
        .doc("4.0.0", "Get the logarithmic access frequency counter of a Redis object"),
    Command::new("idletime", 3, Flags::READONLY.with(Flags::NO_TOUCH), KEY, Group::Generic, idletime)
        .doc("2.2.3", "Get the time since a Redis object was last accessed"),
    Command::new("refcount", 3, Flags::READONLY.with(Flags::NO_TOUCH), KEY, Group::Generic, refcount)
        .doc("2.2.3", "Get the number of references to the value of the key"),
];

/// The rows of this group.
pub const COMMANDS: &[Command] = &[Command::new("object", -2, Flags::NONE, Keys::None, Group::Generic, help::reply)
    .doc("2.2.3", "A container for object introspection commands")
    .subcommands(SUBCOMMANDS)];
