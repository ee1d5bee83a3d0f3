//! ZRANGE, the older commands that it replaces, and ZRANGESTORE.

use std::ops::ControlFlow;

use ardb_types::zset::range::Visit;
use ardb_types::zset::{LexBound, ScoreRange, Span, ZSet};

use super::super::args;
use super::{open, parse, reply_member, row, store};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{CmdResult, Outcome};

/// What a command's ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// What a command's name fixes, `None` where an option may say it.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    by: Option<By>,
    reverse: Option<bool>,
    store: bool,
}

enum Ends<'a> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Lex(LexBound<'a>, LexBound<'a>),
}

/// Which members are wanted, and how.
struct Request<'a> {
    ends: Ends<'a>,
    reverse: bool,
    with_scores: bool,
    /// `None` if the offset is negative: then there are no members.
    offset: Option<u64>,
    limit: Option<u64>,
}

impl<'a> Request<'a> {
    /// `args`: min, max, options.
    fn parse(args: &[&'a [u8]], fixed: Fixed) -> Result<Request<'a>, CmdError> {
        let (mut by, mut reverse) = (fixed.by, fixed.reverse);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut at = 2;
        while let Some(option) = args.get(at) {
            if !fixed.store && args::is(option, "withscores") {
                with_scores = true;
            } else if args::is(option, "limit") && args.len() > at + 2 {
                offset = args::int(args[at + 1])?;
                limit = args::int(args[at + 2])?;
                at += 2;
            } else if reverse.is_none() && args::is(option, "rev") {
                reverse = Some(true);
            } else if by.is_none() && args::is(option, "bylex") {
                by = Some(By::Lex);
            } else if by.is_none() && args::is(option, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(error::SYNTAX);
            }
            at += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CmdError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CmdError::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        let (min, max) = if reverse && by != By::Rank { (args[1], args[0]) } else { (args[0], args[1]) };
        let ends = match by {
            By::Rank => Ends::Ranks(args::int(min)?, args::int(max)?),
            By::Score => Ends::Scores(parse::score_range(min, max)?),
            By::Lex => {
                let (min, max) = parse::lex_range(min, max)?;
                Ends::Lex(min, max)
            }
        };
        let (offset, limit) = (u64::try_from(offset).ok(), u64::try_from(limit).ok());
        Ok(Request { ends, reverse, with_scores, offset, limit })
    }

    /// Visits the wanted members in the wanted order.
    fn visit(&self, ctx: &crate::Access<'_>, set: &ZSet, visit: &mut Visit<'_>) -> Result<(), CmdError> {
        let span = match &self.ends {
            Ends::Ranks(start, stop) => {
                if let Some((start, stop)) = parse::ranks(*start, *stop, set.len()) {
                    set.by_rank(ctx, start, stop, self.reverse, visit)?;
                }
                return Ok(());
            }
            Ends::Scores(range) => Span::scores(range),
            Ends::Lex(min, max) => set.lex_span(ctx, *min, *max, self.reverse)?,
        };
        if let Some(offset) = self.offset {
            set.by_span(ctx, &span, self.reverse, offset, self.limit, visit)?;
        }
        Ok(())
    }
}

fn range(ctx: &mut Ctx<'_>, args: &[&[u8]], by: Option<By>, reverse: Option<bool>) -> CmdResult {
    let request = Request::parse(&args[2..], Fixed { by, reverse, store: false })?;
    let Some(set) = open(ctx, args[1])? else {
        ctx.out.array(0);
        return Ok(Outcome::Done);
    };
    let Ctx { rows, out, .. } = ctx;
    let mark = out.later();
    let mut count = 0;
    request.visit(rows, &set, &mut |member, score| {
        reply_member(out, member, score, request.with_scores);
        count += 1;
        ControlFlow::Continue(())
    })?;
    let count = super::elements(out, count, request.with_scores);
    out.array_at(mark, count);
    Ok(Outcome::Done)
}

/// ZRANGE key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]
fn zrange(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, None, None)
}

/// ZREVRANGE key start stop [WITHSCORES]
fn zrevrange(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, Some(By::Rank), Some(true))
}

/// ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]
fn zrangebyscore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, Some(By::Score), Some(false))
}

/// ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]
fn zrevrangebyscore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, Some(By::Score), Some(true))
}

/// ZRANGEBYLEX key min max [LIMIT offset count]
fn zrangebylex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, Some(By::Lex), Some(false))
}

/// ZREVRANGEBYLEX key max min [LIMIT offset count]
fn zrevrangebylex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    range(ctx, args, Some(By::Lex), Some(true))
}

/// ZRANGESTORE destination source min max [BYSCORE|BYLEX] [REV] [LIMIT offset count]
fn zrangestore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let request = Request::parse(&args[3..], Fixed { by: None, reverse: None, store: true })?;
    let mut members = Vec::new();
    if let Some(set) = open(ctx, args[2])? {
        request.visit(&ctx.rows, &set, &mut |member, score| {
            members.push((member.to_vec(), score));
            ControlFlow::Continue(())
        })?;
    }
    store(ctx, args[1], &members, "zrangestore", true)?;
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("zrange", -4, Flags::READONLY, Keys::ONE, zrange).doc("1.2.0", "Members of a range"),
    row("zrangebylex", -4, Flags::READONLY, Keys::ONE, zrangebylex).doc("2.8.9", "Members between two names"),
    row("zrangebyscore", -4, Flags::READONLY, Keys::ONE, zrangebyscore).doc("1.0.5", "Members between two scores"),
    row("zrangestore", -5, Flags::WRITE.with(Flags::DENYOOM), Keys::TWO, zrangestore)
        .doc("6.2.0", "Store the members of a range at another key"),
    row("zrevrange", -4, Flags::READONLY, Keys::ONE, zrevrange).doc("1.2.0", "Members of a range, greatest first"),
    row("zrevrangebylex", -4, Flags::READONLY, Keys::ONE, zrevrangebylex)
        .doc("2.8.9", "Members between two names, greatest first"),
    row("zrevrangebyscore", -4, Flags::READONLY, Keys::ONE, zrevrangebyscore)
        .doc("2.2.0", "Members between two scores, greatest first"),
];
