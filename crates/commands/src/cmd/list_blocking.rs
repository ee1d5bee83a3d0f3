//! List commands that move elements or wait for them: LMOVE and its kin, BLPOP and its kin, LMPOP.
//!
//! In the log a waiting command is what it came to: a pop, or a pop and a push.

use ardb_types::list::{End, List};

use super::args::{is, parse_timeout};
use super::list::{log_pops, open, pop_event, pop_many, push_event, save};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Keys};
use crate::{Block, CmdResult, Outcome, TimeoutReply};

fn end(arg: &[u8]) -> Result<End, CmdError> {
    if is(arg, "left") {
        Ok(End::Left)
    } else if is(arg, "right") {
        Ok(End::Right)
    } else {
        Err(error::SYNTAX)
    }
}

/// Waits for `keys`, or replies at once what a timeout would, where waiting is not possible.
fn block(ctx: &mut Ctx<'_>, keys: &[&[u8]], until: Option<i64>, on_timeout: TimeoutReply) -> CmdResult {
    if ctx.session.deny_blocking {
        match on_timeout {
            TimeoutReply::Null => ctx.out.null(),
            TimeoutReply::NullArray => ctx.out.null_array(),
        }
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Block(Block { keys: keys.iter().map(|key| key.to_vec()).collect(), until, on_timeout }))
}

/// Moves one element and replies it. `false` if the source has none.
fn move_one(ctx: &mut Ctx<'_>, from_key: &[u8], to_key: &[u8], from: End, to: End) -> Result<bool, CmdError> {
    let Some(mut source) = open(ctx, from_key)? else { return Ok(false) };
    if from_key == to_key {
        let Some(value) = source.pop(&mut ctx.rows, from)? else { return Ok(false) };
        source.push(&mut ctx.rows, to, &value)?;
        save(ctx, source, from_key, pop_event(from), 1);
        ctx.notify(crate::shared::Events::LIST, push_event(to), to_key);
        log_rotation(ctx, from_key, from, to, &value);
        ctx.out.bulk(&value);
        return Ok(true);
    }
    let at = ctx.at(to_key);
    let mut destination = List::open_or_create(&ctx.rows, &at)?;
    let Some(value) = source.pop(&mut ctx.rows, from)? else { return Ok(false) };
    destination.push(&mut ctx.rows, to, &value)?;
    let emptied = source.is_empty();
    save(ctx, destination, to_key, push_event(to), 1);
    save(ctx, source, from_key, pop_event(from), 1);
    log_move(ctx, from_key, to_key, from, to, &value, emptied);
    ctx.out.bulk(&value);
    Ok(true)
}

/// Within one list the push comes first: a list of one element would be gone in between, and with it its expiry.
fn log_rotation(ctx: &mut Ctx<'_>, key: &[u8], from: End, to: End, value: &[u8]) {
    if (from, to) == (End::Right, End::Left) {
        ctx.effect(&[b"RPOPLPUSH", key, key]);
    } else {
        log_push(ctx, key, to, value);
        log_pops(ctx, key, from, 1, 1);
    }
}

fn log_push(ctx: &mut Ctx<'_>, key: &[u8], to: End, value: &[u8]) {
    ctx.effect(&[if to == End::Left { b"LPUSH" } else { b"RPUSH" }, key, value]);
}

fn log_move(ctx: &mut Ctx<'_>, from_key: &[u8], to_key: &[u8], from: End, to: End, value: &[u8], emptied: bool) {
    if (from, to) == (End::Right, End::Left) {
        ctx.effect(&[b"RPOPLPUSH", from_key, to_key]);
    } else {
        log_pops(ctx, from_key, from, 1, u64::from(!emptied));
        log_push(ctx, to_key, to, value);
    }
}

fn move_or_null(ctx: &mut Ctx<'_>, args: &[&[u8]], from: End, to: End) -> CmdResult {
    if !move_one(ctx, args[1], args[2], from, to)? {
        ctx.out.null();
    }
    Ok(Outcome::Done)
}

/// RPOPLPUSH source destination
fn rpoplpush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    move_or_null(ctx, args, End::Right, End::Left)
}

/// LMOVE source destination LEFT|RIGHT LEFT|RIGHT
fn lmove(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (from, to) = (end(args[3])?, end(args[4])?);
    move_or_null(ctx, args, from, to)
}

fn move_or_block(ctx: &mut Ctx<'_>, args: &[&[u8]], from: End, to: End, timeout: &[u8]) -> CmdResult {
    let until = parse_timeout(ctx, timeout)?;
    if move_one(ctx, args[1], args[2], from, to)? {
        return Ok(Outcome::Done);
    }
    block(ctx, &args[1..2], until, TimeoutReply::Null)
}

/// BRPOPLPUSH source destination timeout
fn brpoplpush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    move_or_block(ctx, args, End::Right, End::Left, args[3])
}

/// BLMOVE source destination LEFT|RIGHT LEFT|RIGHT timeout
fn blmove(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (from, to) = (end(args[3])?, end(args[4])?);
    move_or_block(ctx, args, from, to, args[5])
}

fn pop_first(ctx: &mut Ctx<'_>, args: &[&[u8]], end: End) -> CmdResult {
    let until = parse_timeout(ctx, args[args.len() - 1])?;
    let keys = &args[1..args.len() - 1];
    for key in keys {
        let at = ctx.at(key);
        if let Some(list) = List::open(&ctx.rows, &at)? {
            ctx.out.array(2);
            ctx.out.bulk(key);
            pop_many(ctx, list, &at, end, 1)?;
            return Ok(Outcome::Done);
        }
    }
    block(ctx, keys, until, TimeoutReply::NullArray)
}

/// BLPOP key [key ...] timeout
fn blpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_first(ctx, args, End::Left)
}

/// BRPOP key [key ...] timeout
fn brpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    pop_first(ctx, args, End::Right)
}

/// What LMPOP and BLMPOP have in common: `numkeys key [key ...] LEFT|RIGHT [COUNT count]`.
struct Multi<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: u64,
}

impl<'a> Multi<'a> {
    fn parse(args: &'a [&'a [u8]]) -> Result<Multi<'a>, CmdError> {
        let positive = |arg: &[u8], text: &'static str| {
            super::args::int(arg).ok().filter(|n| *n > 0).map(|n| n as u64).ok_or(CmdError::text(text))
        };
        let numkeys = positive(args[0], "ERR numkeys should be greater than 0")?;
        if numkeys >= args.len() as u64 - 1 {
            return Err(error::SYNTAX);
        }
        let (keys, rest) = args[1..].split_at(numkeys as usize);
        let end = end(rest[0])?;
        // A bad count is complained of before what follows it, as in Redis.
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
        for key in self.keys {
            let at = ctx.at(key);
            if let Some(list) = List::open(&ctx.rows, &at)? {
                ctx.out.array(2);
                ctx.out.bulk(key);
                ctx.out.array(self.count.min(list.len()) as usize);
                pop_many(ctx, list, &at, self.end, self.count)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count]
fn lmpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if !Multi::parse(&args[1..])?.run(ctx)? {
        ctx.out.null_array();
    }
    Ok(Outcome::Done)
}

/// BLMPOP timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]
fn blmpop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let multi = Multi::parse(&args[2..])?;
    let until = parse_timeout(ctx, args[1])?;
    if multi.run(ctx)? {
        return Ok(Outcome::Done);
    }
    block(ctx, multi.keys, until, TimeoutReply::NullArray)
}

const MOVES: Flags = Flags::WRITE.with(Flags::DENYOOM);
const WAITS: Flags = Flags::WRITE.with(Flags::NOSCRIPT).with(Flags::BLOCKING);

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::List, handler)
}

const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("blmove", 6, WAITS.with(Flags::DENYOOM), Keys::TWO, blmove).doc("6.2.0", "Move an element, waiting for one"),
    row(
        "blmpop",
        -5,
        Flags::WRITE.with(Flags::BLOCKING).with(Flags::MOVABLEKEYS),
        Keys::Numkeys { at: 2, dest: 0 },
        blmpop,
    )
    .doc("7.0.0", "Pop elements of the first list that has any, waiting for one"),
    row("blpop", -3, WAITS, ALL_BUT_LAST, blpop).doc("2.0.0", "Pop the first element of a list, waiting for one"),
    row("brpop", -3, WAITS, ALL_BUT_LAST, brpop).doc("2.0.0", "Pop the last element of a list, waiting for one"),
    row("brpoplpush", 4, WAITS.with(Flags::DENYOOM), Keys::TWO, brpoplpush)
        .doc("2.2.0", "Move the last element of a list to the head of another, waiting for one"),
    row("lmove", 5, MOVES, Keys::TWO, lmove).doc("6.2.0", "Move an element from one list to another"),
    row("lmpop", -4, Flags::WRITE.with(Flags::MOVABLEKEYS), Keys::Numkeys { at: 1, dest: 0 }, lmpop)
        .doc("7.0.0", "Pop elements of the first list that has any"),
    row("rpoplpush", 3, MOVES, Keys::TWO, rpoplpush)
        .doc("1.2.0", "Move the last element of a list to the head of another"),
];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn moves_are_logged_in_old_words() {
        let mut server = Harness::new();
        server.run("RPUSH a 1 2 3");
        server.take_log();
        assert_eq!(server.run("LMOVE a b RIGHT LEFT"), "$1 3");
        assert_eq!(server.take_log(), "RPOPLPUSH a b");
        assert_eq!(server.run("LMOVE a b LEFT RIGHT"), "$1 1");
        assert_eq!(server.take_log(), "MULTI | LPOP a | RPUSH b 1 | EXEC");
        assert_eq!(server.run("BRPOPLPUSH a a 0"), "$1 2");
        assert_eq!(server.take_log(), "RPOPLPUSH a a");
        assert_eq!(server.run("BLMOVE none b LEFT LEFT 1"), "(blocked)");
        assert_eq!(server.run("BLPOP none a 0"), "*2 $1 a $1 2");
        assert_eq!(server.take_log(), "LPOP a");
        assert_eq!(server.run("BLPOP none -1"), "-ERR timeout is negative");
        assert_eq!(server.run("LMPOP 2 none b RIGHT COUNT 5"), "*2 $1 b *2 $1 1 $1 3");
        assert_eq!(server.take_log(), "DEL b");
    }

    /// A replica must not see a list of one element disappear when it is rotated: its expiry would go with it.
    #[test]
    fn a_list_that_is_rotated_never_becomes_empty() {
        let mut server = Harness::new();
        server.run("RPUSH l 1");
        server.run("PEXPIREAT l 9999999999999");
        for (ends, log) in [
            ("LEFT RIGHT", "MULTI | RPUSH l 1 | LPOP l | EXEC"),
            ("RIGHT RIGHT", "MULTI | RPUSH l 1 | RPOP l | EXEC"),
            ("LEFT LEFT", "MULTI | LPUSH l 1 | LPOP l | EXEC"),
            ("RIGHT LEFT", "RPOPLPUSH l l"),
        ] {
            server.take_log();
            assert_eq!(server.run(&format!("LMOVE l l {ends}")), "$1 1");
            assert_eq!(server.take_log(), log);
            assert_eq!(server.run("PEXPIRETIME l"), ":9999999999999");
        }
    }

    #[test]
    fn nothing_blocks_where_it_must_not() {
        let mut server = Harness::new();
        server.session.deny_blocking = true;
        assert_eq!(server.run("BLPOP l 0"), "*-1");
        assert_eq!(server.run("BRPOPLPUSH l m 0"), "$-1");
    }
}
