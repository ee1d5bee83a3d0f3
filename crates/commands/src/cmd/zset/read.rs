//! Commands that read scores, ranks and counts, or members at random.

use ardb_base::number::f64_text;
use ardb_types::zset::{Span, ZSet};

use super::super::{args, scan};
use super::{elements, open, parse, reply_member, reply_score, row};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{CmdResult, Outcome};

/// ZSCORE key member
fn zscore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let score = match open(ctx, args[1])? {
        Some(set) => set.score(&ctx.rows, args[2])?,
        None => None,
    };
    reply_score_or_null(ctx, score);
    Ok(Outcome::Done)
}

fn reply_score_or_null(ctx: &mut Ctx<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply_score(ctx.out, score),
        None => ctx.out.null(),
    }
}

/// ZMSCORE key member [member ...]
fn zmscore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let set = open(ctx, args[1])?;
    ctx.out.array(args.len() - 2);
    for member in &args[2..] {
        let score = match &set {
            Some(set) => set.score(&ctx.rows, member)?,
            None => None,
        };
        reply_score_or_null(ctx, score);
    }
    Ok(Outcome::Done)
}

/// ZCARD key
fn zcard(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let len = open(ctx, args[1])?.map_or(0, |set| set.len());
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// ZCOUNT key min max
fn zcount(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let range = parse::score_range(args[2], args[3])?;
    let count = match open(ctx, args[1])? {
        Some(set) => set.count(&ctx.rows, &Span::scores(&range))?,
        None => 0,
    };
    ctx.out.size(count);
    Ok(Outcome::Done)
}

/// ZLEXCOUNT key min max
fn zlexcount(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (min, max) = parse::lex_range(args[2], args[3])?;
    let count = match open(ctx, args[1])? {
        Some(set) => set.count(&ctx.rows, &set.lex_span(&ctx.rows, min, max, false)?)?,
        None => 0,
    };
    ctx.out.size(count);
    Ok(Outcome::Done)
}

fn rank(ctx: &mut Ctx<'_>, args: &[&[u8]], reverse: bool) -> CmdResult {
    let rank = match open(ctx, args[1])? {
        Some(set) => set.rank(&ctx.rows, args[2], reverse)?,
        None => None,
    };
    match rank {
        Some(rank) => ctx.out.size(rank),
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// ZRANK key member
fn zrank(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    rank(ctx, args, false)
}

/// ZREVRANK key member
fn zrevrank(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    rank(ctx, args, true)
}

/// ZRANDMEMBER key [count [WITHSCORES]]
fn zrandmember(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(count) = args.get(2) else {
        let member = match open(ctx, args[1])? {
            Some(set) => set.random(&ctx.rows, &mut ctx.shared.random.lock())?,
            None => None,
        };
        ctx.out.bulk_or_null(member.as_ref().map(|(member, _)| &member[..]));
        return Ok(Outcome::Done);
    };
    let count = args::int(count)?;
    if count == i64::MIN {
        return Err(error::COUNT_OUT_OF_RANGE);
    }
    let with_scores = match &args[3..] {
        [] => false,
        [word] if args::is(word, "withscores") => true,
        _ => return Err(error::SYNTAX),
    };
    if with_scores && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err(error::OUT_OF_RANGE);
    }
    let Some(set) = open(ctx, args[1])? else {
        ctx.out.array(0);
        return Ok(Outcome::Done);
    };
    if count < 0 {
        return repeated_members(ctx, &set, count.unsigned_abs(), with_scores);
    }
    let members = set.random_distinct(&ctx.rows, count.unsigned_abs(), &mut ctx.shared.random.lock())?;
    let n = elements(ctx.out, members.len(), with_scores);
    ctx.out.array(n);
    for (member, score) in &members {
        reply_member(ctx.out, member, *score, with_scores);
    }
    Ok(Outcome::Done)
}

fn repeated_members(ctx: &mut Ctx<'_>, set: &ZSet, count: u64, with_scores: bool) -> CmdResult {
    let n = usize::try_from(count).map_err(|_| error::OUT_OF_RANGE)?;
    let n = elements(ctx.out, n, with_scores);
    let start = ctx.out.len();
    ctx.out.array(n);
    for _ in 0..count {
        ctx.check_reply(start)?;
        let Some((member, score)) = set.random(&ctx.rows, &mut ctx.shared.random.lock())? else {
            return Err(CmdError::text("ERR corrupt data: a sorted set without members"));
        };
        reply_member(ctx.out, &member, score, with_scores);
    }
    Ok(Outcome::Done)
}

/// ZSCAN key cursor [MATCH pattern] [COUNT count]
fn zscan(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let cursor = scan::parse_cursor(args[2])?;
    let Some(set) = open(ctx, args[1])? else {
        scan::reply_scan(ctx.out, 0, 0);
        return Ok(Outcome::Done);
    };
    let options = scan::parse_scan_options(cursor, &args[3..], false)?;
    let mut found = Vec::new();
    let next = set.scan_by_hash(&ctx.rows, options.cursor, options.count, &mut |member, score| {
        if options.matches(member) {
            found.push((member.to_vec(), score));
        }
    })?;
    scan::reply_scan(ctx.out, next, 2 * found.len());
    for (member, score) in &found {
        ctx.out.bulk(member);
        // A listpack holds whole numbers as integers, and ZSCAN shows them so.
        if set.is_small() && score.fract() == 0.0 && score.abs() < i64::MAX as f64 {
            ctx.out.bulk_int(*score as i64);
        } else {
            ctx.out.bulk(&f64_text(*score));
        }
    }
    Ok(Outcome::Done)
}

const FAST: Flags = Flags::READONLY.with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("zcard", 2, FAST, Keys::ONE, zcard).doc("1.2.0", "Number of members of a sorted set"),
    row("zcount", 4, FAST, Keys::ONE, zcount).doc("2.0.0", "Number of members with scores in a range"),
    row("zlexcount", 4, FAST, Keys::ONE, zlexcount).doc("2.8.9", "Number of members between two names"),
    row("zmscore", -3, FAST, Keys::ONE, zmscore).doc("6.2.0", "Scores of members"),
    row("zrandmember", -2, Flags::READONLY, Keys::ONE, zrandmember).doc("6.2.0", "Members at random"),
    row("zrank", 3, FAST, Keys::ONE, zrank).doc("2.0.0", "How many members stand before one"),
    row("zrevrank", 3, FAST, Keys::ONE, zrevrank).doc("2.0.0", "How many members stand after one"),
    row("zscan", -3, Flags::READONLY, Keys::ONE, zscan).doc("2.8.0", "Iterate the members of a sorted set"),
    row("zscore", 3, FAST, Keys::ONE, zscore).doc("1.2.0", "The score of a member"),
];
