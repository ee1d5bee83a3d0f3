//! MSETEX: several strings with one expiry, of Redis 8.4 and Valkey 9.1.
//!
//! Logged as MSET and a PEXPIREAT for each key that has an expiry then.

use ardb_base::number::i64_text;
use ardb_types::{keyspace, string};

use super::args;
use super::string::{Expiry, ExpiryOptions, changed};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// How many keys the first argument says.
fn parse_count(arg: &[u8]) -> Result<usize, CmdError> {
    args::int(arg)
        .ok()
        .and_then(|count| i32::try_from(count).ok())
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or(CmdError::text("ERR invalid numkeys value or out of range"))
}

/// MSETEX numkeys key value [key value ...] [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
fn msetex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let count = parse_count(args[1])?;
    let (pairs, options) = args[2..].split_at_checked(2 * count).ok_or(error::SYNTAX)?;
    let mut must_exist = None;
    let mut expiry = ExpiryOptions::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if args::is(option, "NX") && must_exist != Some(true) {
            must_exist = Some(false);
        } else if args::is(option, "XX") && must_exist != Some(false) {
            must_exist = Some(true);
        } else if !expiry.take("KEEPTTL", option, &mut options) {
            return Err(error::SYNTAX);
        }
    }
    let expiry = expiry.expiry(ctx, "msetex")?;
    if let Some(must_exist) = must_exist {
        for pair in pairs.chunks_exact(2) {
            if keyspace::lookup(&ctx.rows, &ctx.at(pair[0]))?.is_some() != must_exist {
                ctx.out.int(0);
                return Ok(Outcome::Done);
            }
        }
    }
    let mut mset: Vec<&[u8]> = vec![b"MSET"];
    mset.extend(pairs);
    ctx.effect(&mset);
    for pair in pairs.chunks_exact(2) {
        let (key, value) = (pair[0], pair[1]);
        let at = ctx.at(key);
        let found = keyspace::find(&ctx.rows, &at)?;
        let time = match expiry {
            Expiry::None => None,
            Expiry::Keep => found.expiry(),
            Expiry::At(time) => Some(time),
        };
        string::set(&mut ctx.rows, &at, found.raw.as_ref(), value, time);
        changed(ctx, key, found.live().is_some(), "set");
        if let Some(time) = time {
            ctx.effect(&[b"PEXPIREAT", key, &i64_text(time)]);
        }
        if let Expiry::At(_) = expiry {
            ctx.notify(Events::GENERIC, "expire", key);
        }
    }
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// Every second argument after the count, as many as that says.
fn pair_keys(args: &[&[u8]]) -> Vec<usize> {
    let count = args.get(1).and_then(|count| args::int(count).ok()).and_then(|count| usize::try_from(count).ok());
    (2..args.len()).step_by(2).take(count.unwrap_or(0)).collect()
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[Command::new(
    "msetex",
    -4,
    Flags::WRITE.with(Flags::DENYOOM).with(Flags::MOVABLEKEYS),
    Keys::Custom(pair_keys),
    Group::String,
    msetex,
)
.doc("8.4.0", "Set several keys, with one expiry for all, if all or none of them exist")];

#[cfg(test)]
mod tests {
    use crate::context::Origin;
    use crate::testing::Harness;

    #[test]
    fn it_has_every_form() {
        let mut server = Harness::new();
        let numkeys = "-ERR invalid numkeys value or out of range";
        let syntax = "-ERR syntax error";
        let invalid = "-ERR invalid expire time in 'msetex' command";
        for (line, reply, log) in [
            ("MSETEX 2 a 1 b 2", ":1", "MSET a 1 b 2"),
            ("MSETEX 2 a 1 c 2 NX", ":0", ""),
            ("MSETEX 2 a 1 c 2 XX", ":0", ""),
            ("MSETEX 1 c 3 NX EX 100", ":1", "MULTI | MSET c 3 | PEXPIREAT c 1000000100000 | EXEC"),
            ("MSETEX 2 a 4 c 5 XX KEEPTTL", ":1", "MULTI | MSET a 4 c 5 | PEXPIREAT c 1000000100000 | EXEC"),
            ("MSETEX 2 c 6 c 7", ":1", "MSET c 6 c 7"),
            ("TTL c", ":-1", ""),
            ("MSETEX 1 a 3 PX 10 PX 20", ":1", "MULTI | MSET a 3 | PEXPIREAT a 1000000000020 | EXEC"),
            ("MSETEX 2 a b", syntax, ""),
            ("MSETEX 0 a b", numkeys, ""),
            ("MSETEX -1 a b", numkeys, ""),
            ("MSETEX x a b", numkeys, ""),
            ("MSETEX 2147483648 a b", numkeys, ""),
            ("MSETEX 1 a b c", syntax, ""),
            ("MSETEX 1 a b NX XX", syntax, ""),
            ("MSETEX 1 a b EX 1 PX 1", syntax, ""),
            ("MSETEX 1 a b KEEPTTL EX 10", syntax, ""),
            ("MSETEX 1 a b EX 1 KEEPTTL", syntax, ""),
            ("MSETEX 1 a b EX", syntax, ""),
            ("MSETEX 1 a b EX 0", invalid, ""),
            ("MSETEX 1 a b EX 9223372036854775807", invalid, ""),
            ("MSETEX 1 a b EX x", "-ERR value is not an integer or out of range", ""),
            ("MSETEX 1 a", "-ERR wrong number of arguments for 'msetex' command", ""),
        ] {
            assert_eq!(server.run(line), reply, "{line}");
            assert_eq!(server.take_log(), log, "{line}");
        }
    }

    #[test]
    fn its_keys_follow_the_count() {
        for (line, keys) in [
            ("MSETEX 2 a 1 b 2 NX", vec![2, 4]),
            ("MSETEX 9 a 1 b", vec![2, 4]),
            ("MSETEX x a 1 b", vec![]),
            ("MSETEX", vec![]),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(super::pair_keys(&args), keys, "{line}");
        }
    }

    #[test]
    fn a_master_may_set_what_is_past() {
        let mut server = Harness::new();
        server.origin = Origin::Stream;
        assert_eq!(server.run("MSETEX 2 a 1 b 2 PXAT 1000"), ":1");
        assert_eq!(server.run("EXISTS a b"), ":2", "until it says that they are gone");
        assert_eq!(server.run("DEL a b"), ":2");
    }
}
