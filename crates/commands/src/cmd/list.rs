//! Lists: everything but the commands that wait, which stand in [`super::list_blocking`].

use std::ops::ControlFlow;

use ardb_engine::Direction;
use ardb_types::At;
use ardb_types::list::{End, List};

use super::args::{int, is};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// The list at a key.
pub(super) fn open(ctx: &Ctx<'_>, key: &[u8]) -> Result<Option<List>, CmdError> {
    Ok(List::open(&ctx.rows, &ctx.at(key))?)
}

/// Writes the key's row after `changes` elements changed, and tells who wants to know.
pub(super) fn save(ctx: &mut Ctx<'_>, list: List, key: &[u8], event: &str, changes: u64) {
    let at = ctx.at(key);
    save_at(ctx, list, &at, event, changes);
}

/// As [`save`], where the key's place is known already.
fn save_at(ctx: &mut Ctx<'_>, list: List, at: &At<'_>, event: &str, changes: u64) {
    let key = at.key;
    let fresh = list.collection().is_fresh();
    let stays = list.save(&mut ctx.rows, at);
    ctx.modified(key);
    if fresh && stays {
        ctx.notify(Events::NEW, "new", key);
    }
    ctx.dirty += changes.saturating_sub(1);
    ctx.notify(Events::LIST, event, key);
    if !stays {
        ctx.notify(Events::GENERIC, "del", key);
    }
}

/// The event of a push at this end.
pub(super) fn push_event(end: End) -> &'static str {
    if end == End::Left { "lpush" } else { "rpush" }
}

/// The event of a pop at this end.
pub(super) fn pop_event(end: End) -> &'static str {
    if end == End::Left { "lpop" } else { "rpop" }
}

fn push(ctx: &mut Ctx<'_>, args: &[&[u8]], end: End, only_existing: bool) -> CmdResult {
    let at = ctx.at(args[1]);
    let mut list = if only_existing {
        match List::open(&ctx.rows, &at)? {
            Some(list) => list,
            None => {
                ctx.out.int(0);
                return Ok(Outcome::Done);
            }
        }
    } else {
        List::open_or_create(&ctx.rows, &at)?
    };
    for value in &args[2..] {
        list.push(&mut ctx.rows, end, value)?;
    }
    let len = list.len();
    save_at(ctx, list, &at, push_event(end), args.len() as u64 - 2);
    if only_existing {
        // LPUSHX takes one value only before Redis 4.0.
        let mut effect = args.to_vec();
        effect[0] = if end == End::Left { b"LPUSH" } else { b"RPUSH" };
        ctx.effect(&effect);
    }
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// LPUSH key element [element ...]
fn lpush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    push(ctx, args, End::Left, false)
}

/// RPUSH key element [element ...]
fn rpush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    push(ctx, args, End::Right, false)
}

/// LPUSHX key element [element ...]
fn lpushx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    push(ctx, args, End::Left, true)
}

/// RPUSHX key element [element ...]
fn rpushx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    push(ctx, args, End::Right, true)
}

/// Logs that `count` elements, `left` of which remain, went at this end: with the one pop that every Redis knows, or as a trim.
pub(super) fn log_pops(ctx: &mut Ctx<'_>, key: &[u8], end: End, count: u64, left: u64) {
    if count == 1 {
        ctx.effect(&[if end == End::Left { b"LPOP" } else { b"RPOP" }, key]);
    } else if left == 0 {
        ctx.effect(&[b"DEL", key]);
    } else if end == End::Left {
        ctx.effect(&[b"LTRIM", key, count.to_string().as_bytes(), b"-1"]);
    } else {
        ctx.effect(&[b"LTRIM", key, b"0", format!("-{}", count + 1).as_bytes()]);
    }
}

/// Pops up to `count` elements into the reply as bulk strings, saves, and logs. How many they were.
pub(super) fn pop_many(ctx: &mut Ctx<'_>, mut list: List, at: &At<'_>, end: End, count: u64) -> Result<u64, CmdError> {
    let count = count.min(list.len());
    for _ in 0..count {
        list.pop_to(&mut ctx.rows, end, &mut |value| ctx.out.bulk(value))?;
    }
    let left = list.len();
    save_at(ctx, list, at, pop_event(end), count);
    log_pops(ctx, at.key, end, count, left);
    Ok(count)
}

fn pop(ctx: &mut Ctx<'_>, args: &[&[u8]], end: End, name: &str) -> CmdResult {
    if args.len() > 3 {
        return Err(crate::dispatch::wrong_arity(name));
    }
    let count = match args.get(2) {
        None => None,
        Some(text) => {
            Some(u64::try_from(int(text).map_err(|_| error::MUST_BE_POSITIVE)?).map_err(|_| error::MUST_BE_POSITIVE)?)
        }
    };
    let at = ctx.at(args[1]);
    match (List::open(&ctx.rows, &at)?, count) {
        (None, None) => ctx.out.null(),
        (None, Some(_)) => ctx.out.null_array(),
        (Some(_), Some(0)) => ctx.out.array(0),
        (Some(list), None) => {
            pop_many(ctx, list, &at, end, 1)?;
        }
        (Some(list), Some(count)) => {
            ctx.out.array(count.min(list.len()) as usize);
            pop_many(ctx, list, &at, end, count)?;
        }
    }
    Ok(Outcome::Done)
}

/// LPOP key [count]
fn lpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop(ctx, args, End::Left, "lpop")
}

/// RPOP key [count]
fn rpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop(ctx, args, End::Right, "rpop")
}

/// LLEN key
fn llen(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let len = open(ctx, args[1])?.map_or(0, |list| list.len());
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// LINDEX key index
fn lindex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(list) = open(ctx, args[1])? else {
        ctx.out.null();
        return Ok(Outcome::Done);
    };
    let value = match list.resolve(int(args[2])?) {
        Some(index) => Some(list.get(&ctx.rows, index)?),
        None => None,
    };
    ctx.out.bulk_or_null(value.as_deref());
    Ok(Outcome::Done)
}

/// LSET key index element
fn lset(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut list = open(ctx, args[1])?.ok_or(error::NO_SUCH_KEY)?;
    let index = list.resolve(int(args[2])?).ok_or(error::INDEX_OUT_OF_RANGE)?;
    list.set(&mut ctx.rows, index, args[3])?;
    let at = ctx.at(args[1]);
    list.save(&mut ctx.rows, &at);
    ctx.modified(args[1]);
    ctx.notify(Events::LIST, "lset", args[1]);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// The indexes `from..to` that a range of possibly negative ones means in a list of this length.
fn clamp(start: i64, stop: i64, len: u64) -> (u64, u64) {
    let len = len as i64;
    let start = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let stop = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
    if start > stop || start >= len { (0, 0) } else { (start as u64, stop as u64 + 1) }
}

/// LRANGE key start stop
fn lrange(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let Some(list) = open(ctx, args[1])? else {
        ctx.out.array(0);
        return Ok(Outcome::Done);
    };
    let (from, to) = clamp(start, stop, list.len());
    ctx.out.array((to - from) as usize);
    list.values(&ctx.rows, from, to, &mut |value| ctx.out.bulk(value))?;
    Ok(Outcome::Done)
}

/// LTRIM key start stop
fn ltrim(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let Some(mut list) = open(ctx, args[1])? else {
        ctx.out.ok();
        return Ok(Outcome::Done);
    };
    let (from, to) = clamp(start, stop, list.len());
    let gone = list.len() - (to - from);
    if gone > 0 {
        list.trim(&mut ctx.rows, from, to)?;
        save(ctx, list, args[1], "ltrim", gone);
    } else {
        ctx.notify(Events::LIST, "ltrim", args[1]);
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// LINSERT key BEFORE|AFTER pivot element
fn linsert(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let after = if is(args[2], "after") {
        true
    } else if is(args[2], "before") {
        false
    } else {
        return Err(error::SYNTAX);
    };
    let Some(mut list) = open(ctx, args[1])? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let mut pivot = None;
    list.range(&ctx.rows, 0, list.len(), Direction::Forward, &mut |index, value| {
        if value == args[3] {
            pivot = Some(index);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let Some(pivot) = pivot else {
        ctx.out.int(-1);
        return Ok(Outcome::Done);
    };
    list.insert(&mut ctx.rows, pivot + u64::from(after), args[4])?;
    let len = list.len();
    save(ctx, list, args[1], "linsert", 1);
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// LREM key count element
fn lrem(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let count = int(args[2])?;
    let Some(mut list) = open(ctx, args[1])? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let gone = list.remove(&mut ctx.rows, count, args[3])?;
    if gone > 0 {
        save(ctx, list, args[1], "lrem", gone);
    }
    ctx.out.size(gone);
    Ok(Outcome::Done)
}

/// LPOS key element [RANK rank] [COUNT num-matches] [MAXLEN len]
fn lpos(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (mut rank, mut count, mut most) = (1i64, None, 0i64);
    let mut options = args[3..].chunks_exact(2);
    for option in options.by_ref() {
        let number = || int(option[1]);
        if is(option[0], "rank") {
            rank = number()?;
            if rank == 0 {
                return Err(CmdError::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
        } else if is(option[0], "count") {
            count = Some(number().ok().filter(|n| *n >= 0).ok_or(CmdError::text("ERR COUNT can't be negative"))?);
        } else if is(option[0], "maxlen") {
            most = number().ok().filter(|n| *n >= 0).ok_or(CmdError::text("ERR MAXLEN can't be negative"))?;
        } else {
            return Err(error::SYNTAX);
        }
    }
    if !options.remainder().is_empty() {
        return Err(error::SYNTAX);
    }
    let mut found = Vec::new();
    if let Some(list) = open(ctx, args[1])? {
        let direction = if rank < 0 { Direction::Backward } else { Direction::Forward };
        let mut skip = rank.unsigned_abs() - 1;
        let wanted = count.unwrap_or(1) as u64;
        let mut looked = 0;
        list.range(&ctx.rows, 0, list.len(), direction, &mut |index, value| {
            if value == args[2] {
                if skip > 0 {
                    skip -= 1;
                } else {
                    found.push(index);
                    if wanted > 0 && found.len() as u64 == wanted {
                        return ControlFlow::Break(());
                    }
                }
            }
            looked += 1;
            if looked == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    match count {
        None => match found.first() {
            Some(index) => ctx.out.size(*index),
            None => ctx.out.null(),
        },
        Some(_) => {
            ctx.out.array(found.len());
            found.iter().for_each(|index| ctx.out.size(*index));
        }
    }
    Ok(Outcome::Done)
}

const READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE;
const GROW_FAST: Flags = Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);

const fn row(name: &'static str, arity: i32, flags: Flags, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, Keys::ONE, Group::List, handler)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("lindex", 3, READ, lindex).doc("1.0.0", "Get an element from a list by its index"),
    row("linsert", 5, Flags::WRITE.with(Flags::DENYOOM), linsert).doc("2.2.0", "Insert an element beside another"),
    row("llen", 2, READ.with(Flags::FAST), llen).doc("1.0.0", "Get the length of a list"),
    row("lpop", -2, WRITE_FAST, lpop).doc("1.0.0", "Remove and get the first elements of a list"),
    row("lpos", -3, READ, lpos).doc("6.0.6", "Get the index of matching elements"),
    row("lpush", -3, GROW_FAST, lpush).doc("1.0.0", "Prepend elements to a list"),
    row("lpushx", -3, GROW_FAST, lpushx).doc("2.2.0", "Prepend elements to a list that exists"),
    row("lrange", 4, READ, lrange).doc("1.0.0", "Get a range of elements of a list"),
    row("lrem", 4, WRITE, lrem).doc("1.0.0", "Remove elements from a list"),
    row("lset", 4, Flags::WRITE.with(Flags::DENYOOM), lset).doc("1.0.0", "Set an element of a list by its index"),
    row("ltrim", 4, WRITE, ltrim).doc("1.0.0", "Keep only a range of a list"),
    row("rpop", -2, WRITE_FAST, rpop).doc("1.0.0", "Remove and get the last elements of a list"),
    row("rpush", -3, GROW_FAST, rpush).doc("1.0.0", "Append elements to a list"),
    row("rpushx", -3, GROW_FAST, rpushx).doc("2.2.0", "Append elements to a list that exists"),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ardb_base::random::Random;

    use crate::testing::Harness;

    fn words(reply: &str) -> Vec<String> {
        reply.split(' ').filter(|w| !w.starts_with(['*', '$'])).map(str::to_string).collect()
    }

    #[test]
    fn pops_of_several_are_logged_as_trims() {
        let mut server = Harness::new();
        server.run("RPUSH l a b c d e f");
        server.take_log();
        assert_eq!(server.run("LPOP l 2"), "*2 $1 a $1 b");
        assert_eq!(server.take_log(), "LTRIM l 2 -1");
        assert_eq!(server.run("RPOP l 2"), "*2 $1 f $1 e");
        assert_eq!(server.take_log(), "LTRIM l 0 -3");
        assert_eq!(server.run("LRANGE l 0 -1"), "*2 $1 c $1 d");
        assert_eq!(server.run("LPOP l 9"), "*2 $1 c $1 d");
        assert_eq!(server.take_log(), "DEL l");
        assert_eq!(server.run("LPOP l"), "$-1");
        assert_eq!(server.run("LPOP l 0"), "*-1");
        assert_eq!(server.run("LPOP l -1"), "-ERR value is out of range, must be positive");
    }

    #[test]
    fn positions() {
        let mut server = Harness::new();
        server.run("RPUSH l a b c 1 2 3 c c");
        assert_eq!(server.run("LPOS l c"), ":2");
        assert_eq!(server.run("LPOS l c RANK -1"), ":7");
        assert_eq!(server.run("LPOS l c COUNT 0"), "*3 :2 :6 :7");
        assert_eq!(server.run("LPOS l c COUNT 0 MAXLEN 3"), "*1 :2");
        assert_eq!(server.run("LPOS l x COUNT 2"), "*0");
        assert_eq!(server.run("LSET l 9 x"), "-ERR index out of range");
    }

    #[test]
    fn lists_behave_as_vectors() {
        for size in [0, 5, -2] {
            behaves_as_a_vector(size);
        }
    }

    /// Random changes against a vector, with this `list-max-listpack-size`.
    fn behaves_as_a_vector(size: i64) {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        let mut random = Random::new(seed);
        let mut server = Harness::new();
        server.shared.settings.list_max_size.store(size, Ordering::Relaxed);
        let mut model: Vec<String> = Vec::new();
        for step in 0..3000 {
            let value = format!("v{}", random.below(4));
            let line = match random.below(9) {
                0 | 1 => {
                    model.push(value.clone());
                    format!("RPUSH l {value}")
                }
                2 | 3 => {
                    model.insert(0, value.clone());
                    format!("LPUSH l {value}")
                }
                4 => {
                    model.pop();
                    "RPOP l".to_string()
                }
                5 => {
                    let pivot = format!("v{}", random.below(4));
                    let after = random.one_in(2);
                    if let Some(index) = model.iter().position(|v| *v == pivot) {
                        model.insert(index + usize::from(after), value.clone());
                    }
                    format!("LINSERT l {} {pivot} {value}", if after { "AFTER" } else { "BEFORE" })
                }
                6 => {
                    let count = random.below(5) as i64 - 2;
                    let mut left = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
                    let mut keep = |v: &String| {
                        let gone = *v == value && left > 0;
                        left -= usize::from(gone);
                        !gone
                    };
                    if count >= 0 {
                        model.retain(&mut keep);
                    } else {
                        model.reverse();
                        model.retain(&mut keep);
                        model.reverse();
                    }
                    format!("LREM l {count} {value}")
                }
                7 if model.len() > 30 => {
                    let from = random.below(5) as usize;
                    let to = model.len() - random.below(5) as usize;
                    model = model[from..to].to_vec();
                    format!("LTRIM l {from} {}", to as i64 - 1)
                }
                _ => "LLEN l".to_string(),
            };
            server.run(&line);
            assert_eq!(words(&server.run("LRANGE l 0 -1")), model, "seed {seed}, step {step}: {line}");
        }
        let rows = server.model().live_rows(ardb_engine::Space::Element);
        assert!(size != -2 || rows == 0, "a small list is packed");
    }
}
