//! Unions, intersections and differences of sorted sets and sets.
//!
//! The result is put together in memory: a reply holds all of it anyway, and so does the write transaction that stores it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use ardb_base::number;
use ardb_engine::row::order_of_f64;
use ardb_types::set::Set;
use ardb_types::zset::ZSet;
use ardb_types::{Kind, keyspace};

use super::super::args::{int, is};
use super::{Scored, elements, reply_member, row, store};
use crate::context::{Access, Ctx};
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{CmdResult, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Opposite infinities make nothing.
            Aggregate::Sum => number_or_zero(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What is called for each member, with its score.
type TryVisit<'v> = dyn FnMut(&[u8], f64) -> Result<ControlFlow<()>, CmdError> + 'v;

/// One input.
enum Source {
    Missing,
    Sorted(ZSet),
    Plain(Set),
}

impl Source {
    fn open(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<Source, CmdError> {
        let at = ctx.at(key);
        let row = keyspace::lookup(&ctx.rows, &at)?;
        ctx.looked_up(key, row.is_some());
        match row {
            None => Ok(Source::Missing),
            Some(row) => match row.kind() {
                Kind::SortedSet => Ok(Source::Sorted(ZSet::of_row(row)?)),
                Kind::Set => Ok(Set::open(&ctx.rows, &at)?.map_or(Source::Missing, Source::Plain)),
                _ => Err(error::WRONG_TYPE),
            },
        }
    }

    fn len(&self) -> u64 {
        match self {
            Source::Missing => 0,
            Source::Sorted(set) => set.len(),
            Source::Plain(set) => set.len(),
        }
    }

    /// The member's score; members of plain sets have 1.
    fn score(&self, rows: &Access<'_>, member: &[u8]) -> Result<Option<f64>, CmdError> {
        Ok(match self {
            Source::Missing => None,
            Source::Sorted(set) => set.score(rows, member)?,
            Source::Plain(set) => set.contains(rows, member)?.then_some(1.0),
        })
    }

    fn each(&self, rows: &Access<'_>, visit: &mut TryVisit<'_>) -> Result<(), CmdError> {
        let mut result = Ok(());
        let mut visit = |member: &[u8], score: f64| match visit(member, score) {
            Ok(flow) => flow,
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        };
        match self {
            Source::Missing => {}
            Source::Sorted(set) => set.each(rows, &mut visit)?,
            Source::Plain(set) => set.each(rows, &mut |member| visit(member, 1.0))?,
        }
        result
    }
}

/// A command's inputs and options.
struct Request {
    operation: Operation,
    sources: Vec<(Source, f64)>,
    aggregate: Aggregate,
    with_scores: bool,
    /// For ZINTERCARD; 0 is none.
    limit: u64,
}

/// Which options there are besides the inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Reply,
    Store,
    Count,
}

impl Request {
    /// `args`: numkeys, keys, options.
    fn parse(
        ctx: &mut Ctx<'_>,
        args: &[&[u8]],
        operation: Operation,
        form: Form,
        name: &str,
    ) -> Result<Request, CmdError> {
        let numkeys = int(args[0])?;
        if numkeys < 1 {
            return Err(CmdError::text(format!("ERR at least 1 input key is needed for '{name}' command")));
        }
        let numkeys = usize::try_from(numkeys).map_err(|_| error::SYNTAX)?;
        if numkeys > args.len() - 1 {
            return Err(error::SYNTAX);
        }
        let (keys, mut rest) = args[1..].split_at(numkeys);
        let mut sources = Vec::new();
        for key in keys {
            sources.push((Source::open(ctx, key)?, 1.0));
        }
        let mut request = Request { operation, sources, aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        let weighs = operation != Operation::Difference && form != Form::Count;
        while let [option, more @ ..] = rest {
            rest = match more {
                _ if weighs && is(option, "weights") && more.len() >= numkeys => {
                    let (weights, more) = more.split_at(numkeys);
                    for (source, weight) in request.sources.iter_mut().zip(weights) {
                        source.1 =
                            number::parse_f64(weight).ok_or(CmdError::text("ERR weight value is not a float"))?;
                    }
                    more
                }
                [how, more @ ..] if weighs && is(option, "aggregate") => {
                    request.aggregate = match how {
                        _ if is(how, "sum") => Aggregate::Sum,
                        _ if is(how, "min") => Aggregate::Min,
                        _ if is(how, "max") => Aggregate::Max,
                        _ => return Err(error::SYNTAX),
                    };
                    more
                }
                _ if form == Form::Reply && is(option, "withscores") => {
                    request.with_scores = true;
                    more
                }
                [limit, more @ ..] if form == Form::Count && is(option, "limit") => {
                    request.limit = int(limit)
                        .ok()
                        .and_then(|n| u64::try_from(n).ok())
                        .ok_or(CmdError::text("ERR LIMIT can't be negative"))?;
                    more
                }
                _ => return Err(error::SYNTAX),
            };
        }
        if operation != Operation::Difference {
            // The smallest first: fewest lookups, and the order in which Redis adds the scores up.
            request.sources.sort_by_key(|(source, _)| source.len());
        }
        Ok(request)
    }

    /// The members of the result, in the order of a sorted set.
    fn run(&self, rows: &Access<'_>) -> Result<Vec<Scored>, CmdError> {
        let mut found = match self.operation {
            Operation::Union => self.union(rows)?,
            Operation::Intersection => {
                let mut found = Vec::new();
                self.intersect(rows, &mut |member, score| {
                    found.push((member.to_vec(), score));
                    ControlFlow::Continue(())
                })?;
                found
            }
            Operation::Difference => self.difference(rows)?,
        };
        found.sort_unstable_by(|a, b| (order_of_f64(a.1), &a.0).cmp(&(order_of_f64(b.1), &b.0)));
        Ok(found)
    }

    fn union(&self, rows: &Access<'_>) -> Result<Vec<Scored>, CmdError> {
        let mut scores: HashMap<Vec<u8>, f64> = HashMap::new();
        for (source, weight) in &self.sources {
            source.each(rows, &mut |member, score| {
                let score = number_or_zero(weight * score);
                match scores.get_mut(member) {
                    Some(sum) => *sum = self.aggregate.of(*sum, score),
                    None => drop(scores.insert(member.to_vec(), score)),
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(scores.into_iter().collect())
    }

    fn intersect(
        &self,
        rows: &Access<'_>,
        visit: &mut dyn FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), CmdError> {
        let [(first, weight), others @ ..] = &self.sources[..] else { return Ok(()) };
        first.each(rows, &mut |member, score| {
            let mut sum = number_or_zero(weight * score);
            for (source, weight) in others {
                match source.score(rows, member)? {
                    Some(score) => sum = self.aggregate.of(sum, weight * score),
                    None => return Ok(ControlFlow::Continue(())),
                }
            }
            Ok(visit(member, sum))
        })
    }

    fn difference(&self, rows: &Access<'_>) -> Result<Vec<Scored>, CmdError> {
        let mut found = Vec::new();
        let [(first, _), others @ ..] = &self.sources[..] else { return Ok(found) };
        first.each(rows, &mut |member, score| {
            for (source, _) in others {
                if source.score(rows, member)?.is_some() {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            found.push((member.to_vec(), score));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

fn reply(ctx: &mut Ctx<'_>, args: &[&[u8]], operation: Operation, name: &str) -> CmdResult {
    let request = Request::parse(ctx, &args[1..], operation, Form::Reply, name)?;
    let members = request.run(&ctx.rows)?;
    let n = elements(ctx.out, members.len(), request.with_scores);
    ctx.out.array(n);
    for (member, score) in &members {
        reply_member(ctx.out, member, *score, request.with_scores);
    }
    Ok(Outcome::Done)
}

/// Redis 2.6 knows unions and intersections, so they are logged as they are; differences are not.
fn store_result(ctx: &mut Ctx<'_>, args: &[&[u8]], operation: Operation, name: &str) -> CmdResult {
    let request = Request::parse(ctx, &args[2..], operation, Form::Store, name)?;
    let members = request.run(&ctx.rows)?;
    store(ctx, args[1], &members, name, operation == Operation::Difference)?;
    Ok(Outcome::Done)
}

/// ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]
fn zunion(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply(ctx, args, Operation::Union, "zunion")
}

/// ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]
fn zinter(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply(ctx, args, Operation::Intersection, "zinter")
}

/// ZDIFF numkeys key [key ...] [WITHSCORES]
fn zdiff(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply(ctx, args, Operation::Difference, "zdiff")
}

/// ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]
fn zunionstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_result(ctx, args, Operation::Union, "zunionstore")
}

/// ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]
fn zinterstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_result(ctx, args, Operation::Intersection, "zinterstore")
}

/// ZDIFFSTORE destination numkeys key [key ...]
fn zdiffstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_result(ctx, args, Operation::Difference, "zdiffstore")
}

/// ZINTERCARD numkeys key [key ...] [LIMIT limit]
fn zintercard(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let request = Request::parse(ctx, &args[1..], Operation::Intersection, Form::Count, "zintercard")?;
    let mut count = 0;
    request.intersect(&ctx.rows, &mut |_, _| {
        count += 1;
        if count == request.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    ctx.out.size(count);
    Ok(Outcome::Done)
}

const STORES: Flags = Flags::WRITE.with(Flags::DENYOOM).with(Flags::MOVABLEKEYS);
const READS: Flags = Flags::READONLY.with(Flags::MOVABLEKEYS);
const INPUTS: Keys = Keys::Numkeys { at: 1, dest: 0 };
const STORE_KEYS: Keys = Keys::Numkeys { at: 2, dest: 1 };

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("zdiff", -3, READS, INPUTS, zdiff).doc("6.2.0", "Difference of sorted sets"),
    row("zdiffstore", -4, STORES, STORE_KEYS, zdiffstore).doc("6.2.0", "Store the difference of sorted sets"),
    row("zinter", -3, READS, INPUTS, zinter).doc("6.2.0", "Intersection of sorted sets"),
    row("zintercard", -3, READS, INPUTS, zintercard).doc("7.0.0", "Number of members of an intersection"),
    row("zinterstore", -4, STORES, STORE_KEYS, zinterstore).doc("2.0.0", "Store the intersection of sorted sets"),
    row("zunion", -3, READS, INPUTS, zunion).doc("6.2.0", "Union of sorted sets"),
    row("zunionstore", -4, STORES, STORE_KEYS, zunionstore).doc("2.0.0", "Store the union of sorted sets"),
];
