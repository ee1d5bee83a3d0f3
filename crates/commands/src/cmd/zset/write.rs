//! ZADD and its kin, ZREM, and the removal of ranges.

use std::ops::ControlFlow;

use ardb_base::number::f64_text;
use ardb_types::zset::{Inserted, Span, ZSet};

use super::super::args;
use super::{log_removed, parse, reply_score, row, save};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{CmdResult, Outcome};

/// The options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
struct AddOptions {
    only_new: bool,
    only_known: bool,
    greater: bool,
    less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// The options from `args[2]` on, and where the first score stands.
    fn parse(args: &[&[u8]]) -> (AddOptions, usize) {
        let mut options = AddOptions::default();
        let mut at = 2;
        while let Some(arg) = args.get(at) {
            let option = match arg {
                _ if args::is(arg, "nx") => &mut options.only_new,
                _ if args::is(arg, "xx") => &mut options.only_known,
                _ if args::is(arg, "gt") => &mut options.greater,
                _ if args::is(arg, "lt") => &mut options.less,
                _ if args::is(arg, "ch") => &mut options.count_changed,
                _ if args::is(arg, "incr") => &mut options.increment,
                _ => break,
            };
            *option = true;
            at += 1;
        }
        (options, at)
    }

    /// The score that a member gets which has `old` now, or `None` if the options leave it alone.
    fn outcome(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, CmdError> {
        let Some(old) = old else { return Ok((!self.only_known).then_some(given)) };
        if self.only_new {
            return Ok(None);
        }
        let score = if self.increment { old + given } else { given };
        if score.is_nan() {
            return Err(CmdError::text("ERR resulting score is not a number (NaN)"));
        }
        let refused = (self.less && score >= old) || (self.greater && score <= old);
        Ok((!refused).then_some(score))
    }

    /// Whether the command itself says what it does, to Redis 2.6 too.
    fn plain(&self) -> bool {
        !(self.only_new || self.only_known || self.greater || self.less || self.count_changed || self.increment)
    }
}

/// ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]
pub(in crate::cmd) fn zadd(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (options, at) = AddOptions::parse(args);
    add(ctx, args, options, at)
}

/// ZINCRBY key increment member
fn zincrby(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (options, at) = AddOptions::parse(args);
    add(ctx, args, AddOptions { increment: true, ..options }, at)
}

fn add(ctx: &mut Ctx<'_>, args: &[&[u8]], options: AddOptions, at: usize) -> CmdResult {
    let pairs = &args[at..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(error::SYNTAX);
    }
    if options.only_new && options.only_known {
        return Err(CmdError::text("ERR XX and NX options at the same time are not compatible"));
    }
    if (options.only_new && (options.greater || options.less)) || (options.greater && options.less) {
        return Err(CmdError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if options.increment && pairs.len() > 2 {
        return Err(CmdError::text("ERR INCR option supports a single increment-element pair"));
    }
    // All scores are read before the first is written. One is read again below, which is cheaper than a vector.
    for pair in pairs.chunks_exact(2) {
        args::float(pair[0])?;
    }
    let key = args[1];
    let place = ctx.at(key);
    let mut set = ZSet::open_or_create(&ctx.rows, &place)?;
    let (mut added, mut updated) = (0, 0);
    let mut result = None;
    let mut changed = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let (given, member) = (args::float(pair[0])?, pair[1]);
        let old = set.score(&ctx.rows, member)?;
        let Some(score) = options.outcome(old, given)? else { continue };
        result = Some(score);
        match set.set(&mut ctx.rows, member, old, score)? {
            Inserted::Added => added += 1,
            Inserted::Updated => updated += 1,
            Inserted::Same => continue,
        }
        if !options.plain() {
            changed.push((member, f64_text(score)));
        }
    }
    if added + updated > 0 {
        if !options.plain() {
            let mut effect: Vec<&[u8]> = vec![b"ZADD", key];
            for (member, score) in &changed {
                effect.extend([&score[..], member]);
            }
            ctx.effect(&effect);
        }
        save(ctx, set, key, if options.increment { "zincr" } else { "zadd" }, added + updated);
    }
    if !options.increment {
        ctx.out.size(if options.count_changed { added + updated } else { added });
    } else if let Some(score) = result {
        reply_score(ctx.out, score);
    } else {
        ctx.out.null();
    }
    Ok(Outcome::Done)
}

/// The set at a key, or a reply of 0.
fn open_or_zero(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<Option<ZSet>, CmdError> {
    let set = ZSet::open(&ctx.rows, &ctx.at(key))?;
    if set.is_none() {
        ctx.out.int(0);
    }
    Ok(set)
}

/// ZREM key member [member ...]
fn zrem(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(mut set) = open_or_zero(ctx, args[1])? else { return Ok(Outcome::Done) };
    let mut gone = 0;
    for member in &args[2..] {
        gone += u64::from(set.remove(&mut ctx.rows, member)?.is_some());
    }
    if gone > 0 {
        save(ctx, set, args[1], "zrem", gone);
    }
    ctx.out.size(gone);
    Ok(Outcome::Done)
}

/// ZREMRANGEBYRANK key start stop
fn zremrangebyrank(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (start, stop) = (args::int(args[2])?, args::int(args[3])?);
    let Some(mut set) = open_or_zero(ctx, args[1])? else { return Ok(Outcome::Done) };
    let gone = match parse::ranks(start, stop, set.len()) {
        Some((start, stop)) => set.remove_ranks(&mut ctx.rows, start, stop)?,
        None => 0,
    };
    removed(ctx, set, args[1], "zremrangebyrank", gone)
}

/// ZREMRANGEBYSCORE key min max
fn zremrangebyscore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let range = parse::score_range(args[2], args[3])?;
    let Some(mut set) = open_or_zero(ctx, args[1])? else { return Ok(Outcome::Done) };
    let gone = set.remove_span(&mut ctx.rows, &Span::scores(&range))?;
    removed(ctx, set, args[1], "zremrangebyscore", gone)
}

/// ZREMRANGEBYLEX key min max. Redis 2.6 does not know it: logged as ZREM or DEL.
fn zremrangebylex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (min, max) = parse::lex_range(args[2], args[3])?;
    let Some(mut set) = open_or_zero(ctx, args[1])? else { return Ok(Outcome::Done) };
    let span = set.lex_span(&ctx.rows, min, max, false)?;
    let count = set.count(&ctx.rows, &span)?;
    if count == set.len() {
        ctx.effect(&[b"DEL", args[1]]);
    } else if count > 0 {
        let mut members = Vec::new();
        set.by_span(&ctx.rows, &span, false, 0, None, &mut |member, score| {
            members.push((member.to_vec(), score));
            ControlFlow::Continue(())
        })?;
        log_removed(ctx, args[1], &members);
    }
    let gone = set.remove_span(&mut ctx.rows, &span)?;
    removed(ctx, set, args[1], "zremrangebylex", gone)
}

fn removed(ctx: &mut Ctx<'_>, set: ZSet, key: &[u8], event: &str, gone: u64) -> CmdResult {
    if gone > 0 {
        save(ctx, set, key, event, gone);
    }
    ctx.out.size(gone);
    Ok(Outcome::Done)
}

const ADDS: Flags = Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("zadd", -4, ADDS, Keys::ONE, zadd).doc("1.2.0", "Add members to a sorted set, or change their scores"),
    row("zincrby", 4, ADDS, Keys::ONE, zincrby).doc("1.2.0", "Add to the score of a member of a sorted set"),
    row("zrem", -3, Flags::WRITE.with(Flags::FAST), Keys::ONE, zrem).doc("1.2.0", "Remove members from a sorted set"),
    row("zremrangebylex", 4, Flags::WRITE, Keys::ONE, zremrangebylex)
        .doc("2.8.9", "Remove the members of a sorted set between two names"),
    row("zremrangebyrank", 4, Flags::WRITE, Keys::ONE, zremrangebyrank)
        .doc("2.0.0", "Remove the members of a sorted set between two ranks"),
    row("zremrangebyscore", 4, Flags::WRITE, Keys::ONE, zremrangebyscore)
        .doc("1.2.0", "Remove the members of a sorted set between two scores"),
];
