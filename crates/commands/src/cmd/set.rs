//! Sets.

use std::collections::HashSet;
use std::ops::ControlFlow;

use ardb_base::number;
use ardb_resp::Reply;
use ardb_types::keyspace;
use ardb_types::set::Set;
use ardb_types::value::{Item, ItemWalk};
use ardb_types::{At, TypeError};

use super::args::{int, is};
use super::scan;
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

fn open(ctx: &Ctx<'_>, key: &[u8]) -> Result<Option<Set>, CmdError> {
    Ok(Set::open(&ctx.rows, &ctx.at(key))?)
}

/// Writes the key's row after `changes` members came or went, and tells who wants to know.
fn save(ctx: &mut Ctx<'_>, set: Set, key: &[u8], event: &str, changes: u64) {
    let at = ctx.at(key);
    save_at(ctx, set, &at, event, changes);
}

/// As [`save`], where the key's place is known already.
fn save_at(ctx: &mut Ctx<'_>, set: Set, at: &At<'_>, event: &str, changes: u64) {
    let key = at.key;
    let fresh = set.collection().is_fresh();
    let stays = set.save(&mut ctx.rows, at);
    ctx.modified(key);
    if fresh && stays {
        ctx.notify(Events::NEW, "new", key);
    }
    ctx.dirty += changes.saturating_sub(1);
    ctx.notify(Events::SET, event, key);
    if !stays {
        ctx.notify(Events::GENERIC, "del", key);
    }
}

/// SADD key member [member ...]
fn sadd(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let at = ctx.at(args[1]);
    let mut set = Set::open_or_create(&ctx.rows, &at)?;
    let mut new = 0;
    for member in &args[2..] {
        new += u64::from(set.insert(&mut ctx.rows, member)?);
    }
    if new > 0 {
        save_at(ctx, set, &at, "sadd", new);
    }
    ctx.out.size(new);
    Ok(Outcome::Done)
}

/// SREM key member [member ...]
fn srem(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(mut set) = open(ctx, args[1])? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let mut gone = 0;
    for member in &args[2..] {
        gone += u64::from(set.remove(&mut ctx.rows, member)?);
    }
    if gone > 0 {
        save(ctx, set, args[1], "srem", gone);
    }
    ctx.out.size(gone);
    Ok(Outcome::Done)
}

/// SISMEMBER key member
fn sismember(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let found = match open(ctx, args[1])? {
        Some(set) => set.contains(&ctx.rows, args[2])?,
        None => false,
    };
    ctx.out.int(i64::from(found));
    Ok(Outcome::Done)
}

/// SMISMEMBER key member [member ...]
fn smismember(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let set = open(ctx, args[1])?;
    ctx.out.array(args.len() - 2);
    for member in &args[2..] {
        let found = match &set {
            Some(set) => set.contains(&ctx.rows, member)?,
            None => false,
        };
        ctx.out.int(i64::from(found));
    }
    Ok(Outcome::Done)
}

/// SCARD key
fn scard(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let len = open(ctx, args[1])?.map_or(0, |set| set.len());
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// SMEMBERS key
fn smembers(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let set = open(ctx, args[1])?;
    ctx.out.set(set.as_ref().map_or(0, Set::len) as usize);
    if let Some(set) = set {
        set.each(&ctx.rows, &mut |member| {
            ctx.out.bulk(member);
            ControlFlow::Continue(())
        })?;
    }
    Ok(Outcome::Done)
}

/// SMOVE source destination member
fn smove(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(mut from) = open(ctx, args[1])? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let to = open(ctx, args[2])?;
    if args[1] == args[2] {
        let found = from.contains(&ctx.rows, args[3])?;
        ctx.out.int(i64::from(found));
        return Ok(Outcome::Done);
    }
    if !from.remove(&mut ctx.rows, args[3])? {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    save(ctx, from, args[1], "srem", 1);
    let mut to = match to {
        Some(to) => to,
        None => {
            let at = ctx.at(args[2]);
            Set::open_or_create(&ctx.rows, &at)?
        }
    };
    if to.insert(&mut ctx.rows, args[3])? {
        save(ctx, to, args[2], "sadd", 1);
    }
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// A count that is not negative.
fn positive(text: &[u8]) -> Result<u64, CmdError> {
    int(text).ok().and_then(|n| u64::try_from(n).ok()).ok_or(error::MUST_BE_POSITIVE)
}

/// SPOP key [count]
fn spop(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 3 {
        return Err(error::SYNTAX);
    }
    let count = match args.get(2) {
        None => None,
        Some(text) => Some(positive(text)?),
    };
    let set = open(ctx, args[1])?;
    let (Some(mut set), true) = (set, count != Some(0)) else {
        match count {
            None => ctx.out.null(),
            Some(_) => ctx.out.set(0),
        }
        return Ok(Outcome::Done);
    };
    let popped: Vec<Vec<u8>> = match count {
        None => {
            let member = ctx.shared.pops.take(&ctx.rows, set.collection(), &mut ctx.shared.random.lock())?;
            member.into_iter().collect()
        }
        Some(count) => {
            let chosen = set.collection().random_distinct(&ctx.rows, count, &mut ctx.shared.random.lock())?;
            chosen.into_iter().map(|(member, _)| member).collect()
        }
    };
    for member in &popped {
        set.remove(&mut ctx.rows, member)?;
    }
    let emptied = set.is_empty();
    save(ctx, set, args[1], "spop", popped.len() as u64);
    if emptied {
        ctx.effect(&[b"DEL", args[1]]);
    } else {
        // In pieces, so that no single command of the log is huge.
        for piece in popped.chunks(1024) {
            let mut effect: Vec<&[u8]> = vec![b"SREM", args[1]];
            effect.extend(piece.iter().map(|member| &member[..]));
            ctx.effect(&effect);
        }
    }
    match count {
        None => ctx.out.bulk_or_null(popped.first().map(|member| &member[..])),
        Some(_) => {
            ctx.out.set(popped.len());
            popped.iter().for_each(|member| ctx.out.bulk(member));
        }
    }
    Ok(Outcome::Done)
}

/// SRANDMEMBER key [count]
fn srandmember(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 3 {
        return Err(error::SYNTAX);
    }
    let Some(count) = args.get(2) else {
        let found = match open(ctx, args[1])? {
            Some(set) => set.collection().random(&ctx.rows, &mut ctx.shared.random.lock())?,
            None => None,
        };
        ctx.out.bulk_or_null(found.as_ref().map(|(member, _)| &member[..]));
        return Ok(Outcome::Done);
    };
    let count = int(count)?;
    if count == i64::MIN {
        return Err(error::COUNT_OUT_OF_RANGE);
    }
    let Some(set) = open(ctx, args[1])? else {
        ctx.out.array(0);
        return Ok(Outcome::Done);
    };
    let set = set.collection();
    if count >= 0 {
        let chosen = set.random_distinct(&ctx.rows, count as u64, &mut ctx.shared.random.lock())?;
        ctx.out.array(chosen.len());
        chosen.iter().for_each(|(member, _)| ctx.out.bulk(member));
        return Ok(Outcome::Done);
    }
    let start = ctx.out.len();
    ctx.out.array(count.unsigned_abs() as usize);
    for _ in 0..count.unsigned_abs() {
        ctx.check_reply(start)?;
        let drawn = set.random(&ctx.rows, &mut ctx.shared.random.lock())?;
        ctx.out.bulk_or_null(drawn.as_ref().map(|(member, _)| &member[..]));
    }
    Ok(Outcome::Done)
}

/// SSCAN key cursor [MATCH pattern] [COUNT count]
fn sscan(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let cursor = scan::parse_cursor(args[2])?;
    let mut found = Reply::new(ctx.out.protocol());
    let (mut count, mut next) = (0, 0);
    if let Some(set) = open(ctx, args[1])? {
        let options = scan::parse_scan_options(cursor, &args[3..], false)?;
        next = set.collection().scan(&ctx.rows, options.cursor, options.count, &mut |member, _| {
            if options.matches(member) {
                found.bulk(member);
                count += 1;
            }
        })?;
    }
    scan::reply_scan(ctx.out, next, count);
    ctx.out.raw(found.bytes());
    Ok(Outcome::Done)
}

/// The three operations on sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Inter,
    Union,
    Diff,
}

/// The sets at the keys, each checked for its type.
fn open_all(ctx: &Ctx<'_>, keys: &[&[u8]]) -> Result<Vec<Option<Set>>, CmdError> {
    keys.iter().map(|key| open(ctx, key)).collect()
}

/// The sets of an operation. An intersection in a master's stream looks no further than the first key that is missing: before Redis 7.0 that
/// was the result, whatever the keys behind it hold.
fn open_operands(ctx: &Ctx<'_>, operation: Operation, keys: &[&[u8]]) -> Result<Vec<Option<Set>>, CmdError> {
    let mut sets = Vec::with_capacity(keys.len());
    for key in keys {
        let set = open(ctx, key)?;
        let decided = set.is_none() && operation == Operation::Inter && ctx.origin == Origin::Stream;
        sets.push(set);
        if decided {
            break;
        }
    }
    Ok(sets)
}

/// Visits each member of the operation's result once, until it breaks.
fn compute(
    ctx: &Ctx<'_>,
    operation: Operation,
    sets: &[Option<Set>],
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), CmdError> {
    let rows = &ctx.rows;
    let mut failed: Option<TypeError> = None;
    match operation {
        Operation::Union => {
            let mut seen = HashSet::new();
            let present: Vec<&Set> = sets.iter().flatten().collect();
            for set in &present {
                let mut stop = false;
                set.each(rows, &mut |member| {
                    if (present.len() == 1 || seen.insert(member.to_vec())) && visit(member).is_break() {
                        stop = true;
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
                if stop {
                    break;
                }
            }
        }
        Operation::Inter => {
            if sets.iter().any(Option::is_none) {
                return Ok(());
            }
            // The smallest is gone through, and the others are asked, the next smallest first.
            let mut present: Vec<&Set> = sets.iter().flatten().collect();
            present.sort_by_key(|set| set.len());
            let Some((smallest, others)) = present.split_first() else { return Ok(()) };
            smallest.each(rows, &mut |member| {
                for other in others {
                    match other.contains(rows, member) {
                        Ok(true) => {}
                        Ok(false) => return ControlFlow::Continue(()),
                        Err(error) => {
                            failed = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                visit(member)
            })?;
        }
        Operation::Diff => {
            let Some(Some(first)) = sets.first() else { return Ok(()) };
            let mut others: Vec<&Set> = sets[1..].iter().flatten().collect();
            // A set less itself: nothing is left, and nothing need be read. A packed one is read quickly.
            let object = first.collection().object();
            if object.is_some() && others.iter().any(|other| other.collection().object() == object) {
                return Ok(());
            }
            // The greatest is the most likely to hold a member, which ends the search.
            others.sort_by_key(|set| std::cmp::Reverse(set.len()));
            first.each(rows, &mut |member| {
                for other in &others {
                    match other.contains(rows, member) {
                        Ok(false) => {}
                        Ok(true) => return ControlFlow::Continue(()),
                        Err(error) => {
                            failed = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                visit(member)
            })?;
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn reply_operation(ctx: &mut Ctx<'_>, operation: Operation, keys: &[&[u8]]) -> CmdResult {
    let sets = open_operands(ctx, operation, keys)?;
    let mut found: Vec<u8> = Vec::new();
    let mut count = 0;
    let mut reply = ardb_resp::Reply::new(ctx.out.protocol());
    std::mem::swap(reply.buffer_mut(), &mut found);
    compute(ctx, operation, &sets, &mut |member| {
        count += 1;
        reply.bulk(member);
        ControlFlow::Continue(())
    })?;
    ctx.out.set(count);
    ctx.out.raw(reply.bytes());
    Ok(Outcome::Done)
}

fn store_operation(ctx: &mut Ctx<'_>, operation: Operation, args: &[&[u8]], event: &str) -> CmdResult {
    let sets = open_operands(ctx, operation, &args[2..])?;
    let at = ctx.at(args[1]);
    let old = keyspace::lookup_raw(&ctx.rows, &at)?;
    let existed = old.as_ref().is_some_and(|row| !keyspace::is_due(row, at.now));
    let mut result = Set::create(old, at.limits);
    if let (Operation::Union, true) = (operation, sets.len() > 1) {
        // Each set is copied in pieces, so that memory does not grow with the result.
        for set in sets.iter().flatten() {
            copy_into(ctx, set, &mut result)?;
        }
    } else {
        let mut members = Vec::new();
        compute(ctx, operation, &sets, &mut |member| {
            members.push(member.to_vec());
            ControlFlow::Continue(())
        })?;
        for member in &members {
            result.insert(&mut ctx.rows, member)?;
        }
    }
    let len = result.len();
    if len == 0 && !existed {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    result.save(&mut ctx.rows, &at);
    ctx.modified(args[1]);
    if len > 0 {
        ctx.notify(Events::SET, event, args[1]);
    } else {
        ctx.notify(Events::GENERIC, "del", args[1]);
    }
    ctx.out.size(len);
    Ok(Outcome::Done)
}

fn copy_into(ctx: &mut Ctx<'_>, from: &Set, to: &mut Set) -> Result<(), CmdError> {
    let Some(row) = from.collection().row() else { return Ok(()) };
    let mut walk = ItemWalk::new(row);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let more = walk.step(&ctx.rows, 1024, &mut |item| {
            if let Item::Element(member) = item {
                piece.push(member.to_vec());
            }
        })?;
        for member in &piece {
            to.insert(&mut ctx.rows, member)?;
        }
        if !more {
            return Ok(());
        }
    }
}

/// SINTER key [key ...]
fn sinter(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_operation(ctx, Operation::Inter, &args[1..])
}

/// SUNION key [key ...]
fn sunion(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_operation(ctx, Operation::Union, &args[1..])
}

/// SDIFF key [key ...]
fn sdiff(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_operation(ctx, Operation::Diff, &args[1..])
}

/// SINTERSTORE destination key [key ...]
fn sinterstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_operation(ctx, Operation::Inter, args, "sinterstore")
}

/// SUNIONSTORE destination key [key ...]
fn sunionstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_operation(ctx, Operation::Union, args, "sunionstore")
}

/// SDIFFSTORE destination key [key ...]
fn sdiffstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    store_operation(ctx, Operation::Diff, args, "sdiffstore")
}

/// SINTERCARD numkeys key [key ...] [LIMIT limit]
fn sintercard(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let numkeys = number::parse_i64(args[1])
        .filter(|n| *n > 0)
        .ok_or(CmdError::text("ERR numkeys should be greater than 0"))? as usize;
    if numkeys > args.len() - 2 {
        return Err(CmdError::text("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, rest) = args[2..].split_at(numkeys);
    let mut limit = 0;
    let mut options = rest.chunks_exact(2);
    for option in options.by_ref() {
        if !is(option[0], "limit") {
            return Err(error::SYNTAX);
        }
        let number = number::parse_i64(option[1]).filter(|n| *n >= 0);
        limit = number.ok_or(CmdError::text("ERR LIMIT can't be negative"))?;
    }
    if !options.remainder().is_empty() {
        return Err(error::SYNTAX);
    }
    let sets = open_all(ctx, keys)?;
    let mut count = 0;
    compute(ctx, Operation::Inter, &sets, &mut |_| {
        count += 1;
        if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    ctx.out.int(count);
    Ok(Outcome::Done)
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);
const GROW: Flags = Flags::WRITE.with(Flags::DENYOOM);

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::Set, handler)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("sadd", -3, GROW.with(Flags::FAST), Keys::ONE, sadd).doc("1.0.0", "Add members to a set"),
    row("scard", 2, READ_FAST, Keys::ONE, scard).doc("1.0.0", "Get the number of members of a set"),
    row("sdiff", -2, READ, Keys::ALL, sdiff).doc("1.0.0", "Subtract sets"),
    row("sdiffstore", -3, GROW, Keys::ALL, sdiffstore).doc("1.0.0", "Subtract sets and store the result"),
    row("sinter", -2, READ, Keys::ALL, sinter).doc("1.0.0", "Intersect sets"),
    row("sintercard", -3, READ.with(Flags::MOVABLEKEYS), Keys::Numkeys { at: 1, dest: 0 }, sintercard)
        .doc("7.0.0", "Count the members of an intersection"),
    row("sinterstore", -3, GROW, Keys::ALL, sinterstore).doc("1.0.0", "Intersect sets and store the result"),
    row("sismember", 3, READ_FAST, Keys::ONE, sismember).doc("1.0.0", "Determine if a value is a member of a set"),
    row("smembers", 2, READ, Keys::ONE, smembers).doc("1.0.0", "Get all members of a set"),
    row("smismember", -3, READ_FAST, Keys::ONE, smismember).doc("6.2.0", "Determine which values are members of a set"),
    row("smove", 4, WRITE_FAST, Keys::TWO, smove).doc("1.0.0", "Move a member from one set to another"),
    row("spop", -2, WRITE_FAST, Keys::ONE, spop).doc("1.0.0", "Remove and return random members of a set"),
    row("srandmember", -2, READ, Keys::ONE, srandmember).doc("1.0.0", "Get random members of a set"),
    row("srem", -3, WRITE_FAST, Keys::ONE, srem).doc("1.0.0", "Remove members of a set"),
    row("sscan", -3, READ, Keys::ONE, sscan).doc("2.8.0", "Iterate over members of a set"),
    row("sunion", -2, READ, Keys::ALL, sunion).doc("1.0.0", "Unite sets"),
    row("sunionstore", -3, GROW, Keys::ALL, sunionstore).doc("1.0.0", "Unite sets and store the result"),
];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn an_old_masters_intersection_ends_at_the_first_missing_key() {
        let mut server = Harness::new();
        server.run("SADD to a");
        server.run("SET wrong x");
        let reply = server.run("SINTERSTORE to none wrong");
        assert!(reply.starts_with("-WRONGTYPE"), "{reply}");
        let mut in_stream = |args: &[&[u8]]| {
            let run = |ctx: &mut crate::Ctx<'_>| {
                ctx.origin = crate::Origin::Stream;
                let command = crate::dispatch::resolve(&ctx.shared.table, args).expect("it is known");
                crate::dispatch::execute(ctx, command, args);
            };
            String::from_utf8_lossy(&server.with_ctx(run).1).into_owned()
        };
        assert_eq!(in_stream(&[b"SINTERSTORE", b"to", b"none", b"wrong"]), ":0\r\n");
        assert!(in_stream(&[b"SINTERSTORE", b"to", b"wrong", b"none"]).starts_with("-WRONGTYPE"));
        assert_eq!(server.run("EXISTS to"), ":0");
    }

    #[test]
    fn pops_are_logged_as_removals() {
        let mut server = Harness::new();
        assert_eq!(server.run("SADD s a b c"), ":3");
        server.take_log();
        let popped = server.run("SPOP s");
        let member = popped.split(' ').next_back().unwrap_or("").to_string();
        assert_eq!(server.take_log(), format!("SREM s {member}"));
        assert!(server.run("SPOP s 5").starts_with("*2 "));
        assert_eq!(server.take_log(), "DEL s");
        assert_eq!(server.run("SPOP s"), "$-1");
        assert_eq!(server.run("SPOP s -1"), "-ERR value is out of range, must be positive");
        assert_eq!(server.model().live_rows(ardb_engine::Space::Member), 0);
    }

    /// Whatever comes meanwhile, and when the set is so empty that it is swept.
    #[test]
    fn a_set_that_is_emptied_gives_every_member_once() {
        for long in [1, 800] {
            let mut server = Harness::new();
            let name = |n: usize| format!("{n:0long$}");
            let mut left: std::collections::HashSet<String> = (0..4000).map(name).collect();
            for member in &left {
                server.run(&format!("SADD s {member}"));
            }
            let mut next = 4000;
            while !left.is_empty() {
                let reply = server.run("SPOP s");
                let member = reply.split(' ').next_back().expect("there is always a last one").trim_start_matches('$');
                assert!(left.remove(member), "{reply:.40} with {} left", left.len());
                if next < 4200 && left.len() < 600 {
                    server.run(&format!("SADD s {}", name(next)));
                    left.insert(name(next));
                    next += 1;
                }
                if left.len() % 97 == 96
                    && let Some(other) = left.iter().next().cloned()
                {
                    server.run(&format!("SREM s {other}"));
                    left.remove(&other);
                }
            }
            assert_eq!(server.run("SPOP s"), "$-1");
            assert_eq!(server.run("EXISTS s"), ":0");
        }
    }

    #[test]
    fn every_member_is_popped_as_often_as_any_other() {
        let mut server = Harness::new();
        let members: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
        let mut popped = std::collections::HashMap::new();
        for _ in 0..8000 {
            server.run("DEL s");
            server.run(&format!("SADD s {}", members.join(" ")));
            *popped.entry(server.run("SPOP s")).or_insert(0u32) += 1;
        }
        // 200 expected each, standard deviation 14.
        assert_eq!(popped.len(), 40);
        assert!(popped.values().all(|n| (130..270).contains(n)), "{popped:?}");
    }

    #[test]
    fn operations() {
        let mut server = Harness::new();
        server.run("SADD a 1 2 3 4");
        server.run("SADD b 3 4 5");
        assert_eq!(server.run("SINTERCARD 2 a b"), ":2");
        assert_eq!(server.run("SINTERCARD 2 a b LIMIT 1"), ":1");
        assert_eq!(server.run("SUNIONSTORE u a b"), ":5");
        assert_eq!(server.run("SDIFFSTORE u a b"), ":2");
        assert_eq!(server.run("SMISMEMBER u 1 3"), "*2 :1 :0");
        assert_eq!(server.run("SINTERSTORE u a none"), ":0");
        assert_eq!(server.run("SCARD u"), ":0");
        assert_eq!(server.run("SDIFF a a"), "*0");
        assert_eq!(server.run("SMOVE a b 1"), ":1");
        assert_eq!(server.run("SCARD b"), ":4");
    }
}
