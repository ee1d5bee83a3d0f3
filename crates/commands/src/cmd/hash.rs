//! Hashes.

use ardb_base::extended::Extended;
use ardb_base::number;
use ardb_resp::Reply;
use ardb_types::At;
use ardb_types::hash::Hash;

use super::args::{int, is};
use super::scan;
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

const HASH_NOT_INTEGER: &str = "ERR hash value is not an integer";
const HASH_NOT_FLOAT: &str = "ERR hash value is not a float";

fn open(ctx: &Ctx<'_>, key: &[u8]) -> Result<Option<Hash>, CmdError> {
    Ok(Hash::open(&ctx.rows, &ctx.at(key))?)
}

/// Sets the pairs that follow the key; how many fields are new.
fn set_pairs(ctx: &mut Ctx<'_>, args: &[&[u8]], name: &str) -> Result<i64, CmdError> {
    if !args.len().is_multiple_of(2) {
        return Err(crate::dispatch::wrong_arity(name));
    }
    let at = ctx.at(args[1]);
    let mut hash = Hash::open_or_create(&ctx.rows, &at)?;
    let mut new = 0;
    for pair in args[2..].chunks_exact(2) {
        new += i64::from(hash.insert(&mut ctx.rows, pair[0], pair[1])?);
    }
    save_at(ctx, hash, &at, "hset", args.len() as u64 / 2 - 1);
    Ok(new)
}

/// Writes the key's row after a change of `changes` fields, and tells who wants to know.
fn save(ctx: &mut Ctx<'_>, hash: Hash, key: &[u8], event: &str, changes: u64) {
    let at = ctx.at(key);
    save_at(ctx, hash, &at, event, changes);
}

/// As [`save`], where the key's place is known already.
fn save_at(ctx: &mut Ctx<'_>, hash: Hash, at: &At<'_>, event: &str, changes: u64) {
    let key = at.key;
    let fresh = hash.collection().is_fresh();
    let stays = hash.save(&mut ctx.rows, at);
    ctx.modified(key);
    if fresh && stays {
        ctx.notify(Events::NEW, "new", key);
    }
    ctx.dirty += changes.saturating_sub(1);
    ctx.notify(Events::HASH, event, key);
    if !stays {
        ctx.notify(Events::GENERIC, "del", key);
    }
}

/// HSET key field value [field value ...]
fn hset(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let new = set_pairs(ctx, args, "hset")?;
    if args.len() > 4 {
        // Redis before 4.0 takes several pairs by HMSET only.
        let mut effect = args.to_vec();
        effect[0] = b"HMSET";
        ctx.effect(&effect);
    }
    ctx.out.int(new);
    Ok(Outcome::Done)
}

/// HMSET key field value [field value ...]
fn hmset(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    set_pairs(ctx, args, "hmset")?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// HSETEX key [FNX|FXX] [KEEPTTL] FIELDS count field value [field value ...]
///
/// Redis 8 passes HINCRBYFLOAT on in this form. Fields never expire here, so there is nothing to keep, and an expiry is refused.
fn hsetex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut wanted = None;
    let mut at = 2;
    let pairs = loop {
        let Some(&word) = args.get(at) else { return Err(error::SYNTAX) };
        at += 1;
        if is(word, "fields") {
            let Some(&count) = args.get(at) else { return Err(error::SYNTAX) };
            let pairs = &args[at + 1..];
            let named = usize::try_from(int(count)?).ok().and_then(|count| count.checked_mul(2));
            if pairs.is_empty() || named != Some(pairs.len()) {
                return Err(error::FIELD_COUNT);
            }
            break pairs;
        } else if is(word, "fnx") && wanted.is_none() {
            wanted = Some(false);
        } else if is(word, "fxx") && wanted.is_none() {
            wanted = Some(true);
        } else if ["ex", "px", "exat", "pxat"].iter().any(|option| is(word, option)) {
            return Err(error::FIELD_EXPIRY);
        } else if !is(word, "keepttl") {
            return Err(error::SYNTAX);
        }
    };
    if let Some(wanted) = wanted {
        let hash = open(ctx, args[1])?;
        for pair in pairs.chunks_exact(2) {
            let there = match &hash {
                Some(hash) => hash.get(&ctx.rows, pair[0])?.is_some(),
                None => false,
            };
            if there != wanted {
                ctx.out.int(0);
                return Ok(Outcome::Done);
            }
        }
    }
    let mut effect: Vec<&[u8]> = vec![b"HMSET", args[1]];
    effect.extend(pairs);
    set_pairs(ctx, &effect, "hsetex")?;
    ctx.effect(&effect);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// HSETNX key field value
fn hsetnx(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let at = ctx.at(args[1]);
    let mut hash = Hash::open_or_create(&ctx.rows, &at)?;
    if hash.get(&ctx.rows, args[2])?.is_some() {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    hash.insert(&mut ctx.rows, args[2], args[3])?;
    save(ctx, hash, args[1], "hset", 1);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// HGET key field
fn hget(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let hash = open(ctx, args[1])?;
    let value = match &hash {
        Some(hash) => hash.get(&ctx.rows, args[2])?,
        None => None,
    };
    ctx.out.bulk_or_null(value.as_deref());
    Ok(Outcome::Done)
}

/// HMGET key field [field ...]
fn hmget(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let hash = open(ctx, args[1])?;
    ctx.out.array(args.len() - 2);
    for field in &args[2..] {
        let value = match &hash {
            Some(hash) => hash.get(&ctx.rows, field)?,
            None => None,
        };
        ctx.out.bulk_or_null(value.as_deref());
    }
    Ok(Outcome::Done)
}

/// HDEL key field [field ...]
fn hdel(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(mut hash) = open(ctx, args[1])? else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    let mut gone = 0;
    for field in &args[2..] {
        gone += u64::from(hash.remove(&mut ctx.rows, field)?);
    }
    if gone > 0 {
        save(ctx, hash, args[1], "hdel", gone);
    }
    ctx.out.size(gone);
    Ok(Outcome::Done)
}

/// HLEN key
fn hlen(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let len = open(ctx, args[1])?.map_or(0, |hash| hash.len());
    ctx.out.size(len);
    Ok(Outcome::Done)
}

/// HSTRLEN key field
fn hstrlen(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let hash = open(ctx, args[1])?;
    let value = match &hash {
        Some(hash) => hash.get(&ctx.rows, args[2])?,
        None => None,
    };
    ctx.out.size(value.map_or(0, |value| value.len() as u64));
    Ok(Outcome::Done)
}

/// HEXISTS key field
fn hexists(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let found = match open(ctx, args[1])? {
        Some(hash) => hash.get(&ctx.rows, args[2])?.is_some(),
        None => false,
    };
    ctx.out.int(i64::from(found));
    Ok(Outcome::Done)
}

fn reply_all(ctx: &mut Ctx<'_>, key: &[u8], fields: bool, values: bool) -> CmdResult {
    let hash = open(ctx, key)?;
    let len = hash.as_ref().map_or(0, Hash::len) as usize;
    if fields && values {
        ctx.out.map(len);
    } else {
        ctx.out.array(len);
    }
    if let Some(hash) = hash {
        hash.each(&ctx.rows, &mut |field, value| {
            if fields {
                ctx.out.bulk(field);
            }
            if values {
                ctx.out.bulk(value);
            }
        })?;
    }
    Ok(Outcome::Done)
}

/// HGETALL key
fn hgetall(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_all(ctx, args[1], true, true)
}

/// HKEYS key
fn hkeys(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_all(ctx, args[1], true, false)
}

/// HVALS key
fn hvals(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    reply_all(ctx, args[1], false, true)
}

/// HINCRBY key field increment
fn hincrby(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let by = int(args[3])?;
    let at = ctx.at(args[1]);
    let mut hash = Hash::open_or_create(&ctx.rows, &at)?;
    let old = match hash.get(&ctx.rows, args[2])? {
        Some(value) => number::parse_i64(&value).ok_or(CmdError::text(HASH_NOT_INTEGER))?,
        None => 0,
    };
    let sum = old.checked_add(by).ok_or(CmdError::text("ERR increment or decrement would overflow"))?;
    hash.insert(&mut ctx.rows, args[2], &number::i64_text(sum))?;
    save(ctx, hash, args[1], "hincrby", 1);
    ctx.out.int(sum);
    Ok(Outcome::Done)
}

/// HINCRBYFLOAT key field increment
fn hincrbyfloat(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let by = Extended::parse(args[3]).ok_or(error::NOT_FLOAT)?;
    if !by.is_finite() {
        return Err(CmdError::text("ERR value is NaN or Infinity"));
    }
    let at = ctx.at(args[1]);
    let mut hash = Hash::open_or_create(&ctx.rows, &at)?;
    let old = match hash.get(&ctx.rows, args[2])? {
        Some(value) => Extended::parse(&value).ok_or(CmdError::text(HASH_NOT_FLOAT))?,
        None => Extended::from_i64(0),
    };
    let sum = old.plus(by);
    if !sum.is_finite() {
        return Err(CmdError::text("ERR increment would produce NaN or Infinity"));
    }
    let text = sum.text();
    hash.insert(&mut ctx.rows, args[2], &text)?;
    save(ctx, hash, args[1], "hincrbyfloat", 1);
    // The sum, not the sum's making: floats differ from machine to machine.
    ctx.effect(&[b"HSET", args[1], args[2], &text]);
    ctx.out.bulk(&text);
    Ok(Outcome::Done)
}

/// HRANDFIELD key [count [WITHVALUES]]
fn hrandfield(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(count) = args.get(2) else {
        let found = match open(ctx, args[1])? {
            Some(hash) => hash.collection().random(&ctx.rows, &mut ctx.shared.random.lock())?,
            None => None,
        };
        ctx.out.bulk_or_null(found.as_ref().map(|(field, _)| &field[..]));
        return Ok(Outcome::Done);
    };
    let count = int(count)?;
    let with_values = match args.get(3) {
        None => false,
        Some(word) if is(word, "withvalues") && args.len() == 4 => true,
        Some(_) => return Err(error::SYNTAX),
    };
    if count == i64::MIN {
        return Err(error::COUNT_OUT_OF_RANGE);
    }
    if with_values && !(-(i64::MAX / 2)..=i64::MAX / 2).contains(&count) {
        return Err(error::OUT_OF_RANGE);
    }
    let hash = open(ctx, args[1])?;
    let nested = with_values && ctx.out.is_resp3();
    let start = ctx.out.len();
    let mark = ctx.out.later();
    let mut replied = 0;
    let mut reply = |ctx: &mut Ctx<'_>, field: &[u8], value: &[u8]| {
        replied += 1;
        if nested {
            ctx.out.array(2);
        }
        ctx.out.bulk(field);
        if with_values {
            ctx.out.bulk(value);
        }
    };
    if let Some(hash) = hash {
        let hash = hash.collection();
        if count >= 0 {
            let chosen = hash.random_distinct(&ctx.rows, count as u64, &mut ctx.shared.random.lock())?;
            for (field, value) in chosen {
                reply(ctx, &field, &value);
            }
        } else {
            for _ in 0..count.unsigned_abs() {
                ctx.check_reply(start)?;
                let drawn = hash.random(&ctx.rows, &mut ctx.shared.random.lock())?;
                let Some((field, value)) = drawn else { break };
                reply(ctx, &field, &value);
            }
        }
    }
    ctx.out.array_at(mark, if with_values && !nested { 2 * replied } else { replied });
    Ok(Outcome::Done)
}

/// HSCAN key cursor [MATCH pattern] [COUNT count]
fn hscan(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let cursor = scan::parse_cursor(args[2])?;
    let hash = open(ctx, args[1])?;
    let mut found = Reply::new(ctx.out.protocol());
    let (mut count, mut next) = (0, 0);
    if let Some(hash) = hash {
        let options = scan::parse_scan_options(cursor, &args[3..], false)?;
        next = hash.collection().scan(&ctx.rows, options.cursor, options.count, &mut |field, value| {
            if options.matches(field) {
                found.bulk(field);
                found.bulk(value);
                count += 2;
            }
        })?;
    }
    scan::reply_scan(ctx.out, next, count);
    ctx.out.raw(found.bytes());
    Ok(Outcome::Done)
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);
const GROW_FAST: Flags = WRITE_FAST.with(Flags::DENYOOM);

const fn row(name: &'static str, arity: i32, flags: Flags, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, Keys::ONE, Group::Hash, handler)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("hdel", -3, WRITE_FAST, hdel).doc("2.0.0", "Delete one or more hash fields"),
    row("hexists", 3, READ_FAST, hexists).doc("2.0.0", "Determine if a hash field exists"),
    row("hget", 3, READ_FAST, hget).doc("2.0.0", "Get the value of a hash field"),
    row("hgetall", 2, READ, hgetall).doc("2.0.0", "Get all the fields and values in a hash"),
    row("hincrby", 4, GROW_FAST, hincrby).doc("2.0.0", "Increment the integer value of a hash field"),
    row("hincrbyfloat", 4, GROW_FAST, hincrbyfloat).doc("2.6.0", "Increment the float value of a hash field"),
    row("hkeys", 2, READ, hkeys).doc("2.0.0", "Get all the fields in a hash"),
    row("hlen", 2, READ_FAST, hlen).doc("2.0.0", "Get the number of fields in a hash"),
    row("hmget", -3, READ_FAST, hmget).doc("2.0.0", "Get the values of several hash fields"),
    row("hmset", -4, GROW_FAST, hmset).doc("2.0.0", "Set several hash fields"),
    row("hrandfield", -2, READ, hrandfield).doc("6.2.0", "Get random fields of a hash"),
    row("hscan", -3, READ, hscan).doc("2.8.0", "Iterate over fields and values of a hash"),
    row("hset", -4, GROW_FAST, hset).doc("2.0.0", "Set fields of a hash"),
    row("hsetex", -6, GROW_FAST, hsetex).doc("8.0.0", "Set fields of a hash, if all or none of them exist"),
    row("hsetnx", 4, GROW_FAST, hsetnx).doc("2.0.0", "Set a hash field only if it does not exist"),
    row("hstrlen", 3, READ_FAST, hstrlen).doc("3.2.0", "Get the length of a hash field's value"),
    row("hvals", 2, READ, hvals).doc("2.0.0", "Get all the values in a hash"),
];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn several_pairs_are_logged_as_hmset() {
        let mut server = Harness::new();
        assert_eq!(server.run("HSET h a 1 b 2"), ":2");
        assert_eq!(server.take_log(), "HMSET h a 1 b 2");
        assert_eq!(server.run("HSET h a 3"), ":0");
        assert_eq!(server.take_log(), "HSET h a 3");
        assert_eq!(server.run("HSET h a"), "-ERR wrong number of arguments for 'hset' command");
        assert_eq!(server.run("HLEN h"), ":2");
    }

    #[test]
    fn hsetex_sets_pairs_and_refuses_expiries() {
        let mut server = Harness::new();
        assert_eq!(server.run("HSETEX h KEEPTTL FIELDS 2 a 1 b 2"), ":1");
        assert_eq!(server.take_log(), "HMSET h a 1 b 2");
        assert_eq!(server.run("HSETEX h FNX FIELDS 2 c 1 b 3"), ":0");
        assert_eq!(server.run("HSETEX h FXX FIELDS 2 c 1 b 3"), ":0");
        assert_eq!(server.run("HSETEX none FXX FIELDS 1 a 1"), ":0");
        assert_eq!(server.take_log(), "");
        assert_eq!(server.run("HSETEX h FXX KEEPTTL FIELDS 1 b 3"), ":1");
        assert_eq!(server.run("HMGET h a b c"), "*3 $1 1 $1 3 $-1");
        server.take_log();
        assert_eq!(
            server.run("HSETEX h EX 10 FIELDS 1 a 1"),
            "-ERR fields of a hash do not expire in this server: HSETEX takes no expiry"
        );
        assert!(server.run("HSETEX h FIELDS 2 a 1").starts_with("-ERR"));
        assert!(server.run("HSETEX h FIELDS -1 a 1").starts_with("-ERR"));
        assert!(server.run("HSETEX h KEEPTTL FNX FXX FIELDS 1 a 1").starts_with("-ERR syntax"));
        server.run("SET s 1");
        server.take_log();
        assert!(server.run("HSETEX s FIELDS 1 a 1").starts_with("-WRONGTYPE"));
        assert_eq!(server.take_log(), "");
    }

    #[test]
    fn a_hash_goes_with_its_last_field() {
        let mut server = Harness::new();
        server.run("HSET h a 1 b 2");
        assert_eq!(server.run("HDEL h a x b"), ":2");
        assert_eq!(server.run("HLEN h"), ":0");
        assert_eq!(server.model().live_rows(ardb_engine::Space::Member), 0);
        assert_eq!(server.run("HDEL h a"), ":0");
        assert_eq!(server.take_log(), "HMSET h a 1 b 2 | HDEL h a x b");
    }

    #[test]
    fn increments_check_what_they_add_to() {
        let mut server = Harness::new();
        assert_eq!(server.run("HINCRBY h n 5"), ":5");
        assert_eq!(server.run("HINCRBYFLOAT h f 10.5"), "$4 10.5");
        server.take_log();
        assert_eq!(server.run("HINCRBYFLOAT h f 0.1"), "$4 10.6");
        assert_eq!(server.take_log(), "HSET h f 10.6");
        server.run("HSET h s text");
        assert_eq!(server.run("HINCRBY h s 1"), "-ERR hash value is not an integer");
        assert_eq!(server.run("HINCRBYFLOAT h s 1"), "-ERR hash value is not a float");
    }

    #[test]
    fn random_fields_are_fields() {
        let mut server = Harness::new();
        server.run("HSET h a 1 b 2 c 3");
        assert!(server.run("HRANDFIELD h -5 WITHVALUES").starts_with("*10 "));
        assert!(server.run("HRANDFIELD h 5").starts_with("*3 "));
        assert_eq!(server.run("HRANDFIELD none 5"), "*0");
        assert_eq!(server.run("HRANDFIELD none"), "$-1");
    }
}
