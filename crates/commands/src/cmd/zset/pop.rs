//! Commands that take out the least or greatest members, and those that wait for some.
//!
//! In the log a pop is a ZREM, or a DEL if it took all.

use ardb_types::zset::ZSet;

use super::super::args::{int, is, parse_timeout};
use super::{log_removed, reply_score, row, save};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{Block, CmdResult, Outcome, TimeoutReply};

/// Which members go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

/// How the reply is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Members and scores in one array.
    Flat,
    /// An array of pairs.
    Pairs,
    /// The key, then one member and its score, in one array.
    KeyAndOne,
    /// The key and an array of pairs.
    KeyAndPairs,
}

/// Pops up to `count` (at least 1) members of `set`, which stands at `key` and is not empty, and replies them.
fn pop(ctx: &mut Ctx<'_>, mut set: ZSet, key: &[u8], end: End, count: u64, layout: Layout) -> Result<(), CmdError> {
    let mut members = Vec::new();
    set.pop(&mut ctx.rows, end == End::Max, count, &mut |member, score| members.push((member.to_vec(), score)))?;
    let n = members.len();
    match layout {
        Layout::Flat => ctx.out.array(2 * n),
        Layout::Pairs => ctx.out.array(n),
        Layout::KeyAndOne => {
            ctx.out.array(2 * n + 1);
            ctx.out.bulk(key);
        }
        Layout::KeyAndPairs => {
            ctx.out.array(2);
            ctx.out.bulk(key);
            ctx.out.array(n);
        }
    }
    for (member, score) in &members {
        if matches!(layout, Layout::Pairs | Layout::KeyAndPairs) {
            ctx.out.array(2);
        }
        ctx.out.bulk(member);
        reply_score(ctx.out, *score);
    }
    if set.is_empty() {
        ctx.effect(&[b"DEL", key]);
    } else {
        log_removed(ctx, key, &members);
    }
    save(ctx, set, key, if end == End::Min { "zpopmin" } else { "zpopmax" }, n as u64);
    Ok(())
}

fn pop_one_key(ctx: &mut Ctx<'_>, args: &[&[u8]], end: End) -> CmdResult {
    let count = match &args[2..] {
        [] => None,
        [count] => Some(int(count).ok().and_then(|n| u64::try_from(n).ok()).ok_or(error::MUST_BE_POSITIVE)?),
        _ => return Err(error::SYNTAX),
    };
    let layout = if count.is_some() && ctx.out.is_resp3() { Layout::Pairs } else { Layout::Flat };
    match (ZSet::open(&ctx.rows, &ctx.at(args[1]))?, count.unwrap_or(1)) {
        (None, _) | (_, 0) => ctx.out.array(0),
        (Some(set), count) => pop(ctx, set, args[1], end, count, layout)?,
    }
    Ok(Outcome::Done)
}

/// ZPOPMIN key [count]
fn zpopmin(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_one_key(ctx, args, End::Min)
}

/// ZPOPMAX key [count]
fn zpopmax(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_one_key(ctx, args, End::Max)
}

/// Pops from the first of `keys` that has members. `false` if none has.
fn pop_first(ctx: &mut Ctx<'_>, keys: &[&[u8]], end: End, count: u64, layout: Layout) -> Result<bool, CmdError> {
    for key in keys {
        if let Some(set) = ZSet::open(&ctx.rows, &ctx.at(key))? {
            pop(ctx, set, key, end, count, layout)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits for `keys`, or replies at once what a timeout would, where waiting is not possible.
fn block(ctx: &mut Ctx<'_>, keys: &[&[u8]], until: Option<i64>) -> CmdResult {
    if ctx.session.deny_blocking || ctx.origin == Origin::Stream {
        ctx.out.null_array();
        return Ok(Outcome::Done);
    }
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Ok(Outcome::Block(Block { keys, until, on_timeout: TimeoutReply::NullArray }))
}

fn pop_or_block(ctx: &mut Ctx<'_>, args: &[&[u8]], end: End) -> CmdResult {
    let (keys, timeout) = args[1..].split_at(args.len() - 2);
    let until = parse_timeout(ctx, timeout[0])?;
    if pop_first(ctx, keys, end, 1, Layout::KeyAndOne)? {
        return Ok(Outcome::Done);
    }
    block(ctx, keys, until)
}

/// BZPOPMIN key [key ...] timeout
fn bzpopmin(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_or_block(ctx, args, End::Min)
}

/// BZPOPMAX key [key ...] timeout
fn bzpopmax(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_or_block(ctx, args, End::Max)
}

/// What ZMPOP and BZMPOP have in common: `numkeys key [key ...] MIN|MAX [COUNT count]`.
struct Multi<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: u64,
}

impl<'a> Multi<'a> {
    fn parse(args: &'a [&'a [u8]]) -> Result<Multi<'a>, CmdError> {
        let positive = |arg: &[u8], text: &'static str| {
            int(arg).ok().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).ok_or(CmdError::text(text))
        };
        let numkeys = positive(args[0], "ERR numkeys should be greater than 0")?;
        if numkeys >= args.len() as u64 - 1 {
            return Err(error::SYNTAX);
        }
        let (keys, rest) = args[1..].split_at(numkeys as usize);
        let end = match rest[0] {
            word if is(word, "min") => End::Min,
            word if is(word, "max") => End::Max,
            _ => return Err(error::SYNTAX),
        };
        let count = match &rest[1..] {
            [] => 1,
            [word, count, more @ ..] if is(word, "count") => {
                let count = positive(count, "ERR count should be greater than 0")?;
                if !more.is_empty() {
                    return Err(error::SYNTAX);
                }
                count
            }
            _ => return Err(error::SYNTAX),
        };
        Ok(Multi { keys, end, count })
    }

    fn run(&self, ctx: &mut Ctx<'_>) -> Result<bool, CmdError> {
        pop_first(ctx, self.keys, self.end, self.count, Layout::KeyAndPairs)
    }
}

/// ZMPOP numkeys key [key ...] MIN|MAX [COUNT count]
fn zmpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if !Multi::parse(&args[1..])?.run(ctx)? {
        ctx.out.null_array();
    }
    Ok(Outcome::Done)
}

/// BZMPOP timeout numkeys key [key ...] MIN|MAX [COUNT count]
fn bzmpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let multi = Multi::parse(&args[2..])?;
    let until = parse_timeout(ctx, args[1])?;
    if multi.run(ctx)? {
        return Ok(Outcome::Done);
    }
    block(ctx, multi.keys, until)
}

const FAST: Flags = Flags::WRITE.with(Flags::FAST);
const WAITS: Flags = Flags::WRITE.with(Flags::NOSCRIPT).with(Flags::BLOCKING);
const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("bzmpop", -5, WAITS.with(Flags::MOVABLEKEYS), Keys::Numkeys { at: 2, dest: 0 }, bzmpop)
        .doc("7.0.0", "Pop members of the first sorted set that has any, waiting for one"),
    row("bzpopmax", -3, WAITS.with(Flags::FAST), ALL_BUT_LAST, bzpopmax)
        .doc("5.0.0", "Pop the greatest member of a sorted set, waiting for one"),
    row("bzpopmin", -3, WAITS.with(Flags::FAST), ALL_BUT_LAST, bzpopmin)
        .doc("5.0.0", "Pop the least member of a sorted set, waiting for one"),
    row("zmpop", -4, Flags::WRITE.with(Flags::MOVABLEKEYS), Keys::Numkeys { at: 1, dest: 0 }, zmpop)
        .doc("7.0.0", "Pop members of the first sorted set that has any"),
    row("zpopmax", -2, FAST, Keys::ONE, zpopmax).doc("5.0.0", "Pop the greatest members of a sorted set"),
    row("zpopmin", -2, FAST, Keys::ONE, zpopmin).doc("5.0.0", "Pop the least members of a sorted set"),
];
