//! Writing a string only if it is what one thinks it is: conditions on the value at a key, for SET and by themselves in DELEX and DELIFEQ.
//!
//! Redis 8.4 and Valkey have them. What is logged is what was done, which needs no condition.

use ardb_engine::Rows;
use ardb_types::string::StringValue;
use ardb_types::{keyspace, string};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::args;
use super::string::found_string;
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// A condition on a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare<'a> {
    /// It is this one.
    Equal(&'a [u8]),
    /// It is another one, or there is none.
    Different(&'a [u8]),
    /// It has this digest.
    Digest(u64),
    /// It has another digest, or there is none.
    OtherDigest(u64),
}

impl<'a> Compare<'a> {
    /// The condition that an option and its argument are, if the option is one of these.
    pub(super) fn parse(option: &[u8], arg: &'a [u8]) -> Result<Option<Compare<'a>>, CmdError> {
        Ok(Some(match () {
            () if args::is(option, "IFEQ") => Compare::Equal(arg),
            () if args::is(option, "IFNE") => Compare::Different(arg),
            () if args::is(option, "IFDEQ") => Compare::Digest(parse_digest(arg)?),
            () if args::is(option, "IFDNE") => Compare::OtherDigest(parse_digest(arg)?),
            () => return Ok(None),
        }))
    }

    /// Whether it holds for a string.
    fn holds(self, rows: &(impl Rows + ?Sized), value: &StringValue) -> Result<bool, CmdError> {
        match self {
            Compare::Equal(other) => equal(rows, value, other),
            Compare::Different(other) => Ok(!equal(rows, value, other)?),
            Compare::Digest(other) => Ok(digest_of(rows, value)? == other),
            Compare::OtherDigest(other) => Ok(digest_of(rows, value)? != other),
        }
    }

    /// Whether it holds where there may be no string.
    pub(super) fn allows(self, rows: &(impl Rows + ?Sized), value: Option<&StringValue>) -> Result<bool, CmdError> {
        match value {
            Some(value) => self.holds(rows, value),
            None => Ok(matches!(self, Compare::Different(_) | Compare::OtherDigest(_))),
        }
    }
}

/// A digest as DIGEST replies it: 16 hexadecimal digits.
fn parse_digest(arg: &[u8]) -> Result<u64, CmdError> {
    std::str::from_utf8(arg)
        .ok()
        .filter(|text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(CmdError::text("ERR The digest must be exactly 16 hexadecimal characters"))
}

fn equal(rows: &(impl Rows + ?Sized), value: &StringValue, other: &[u8]) -> Result<bool, CmdError> {
    if value.len() != other.len() as u64 {
        return Ok(false);
    }
    let mut rest = other;
    let mut same = true;
    value.pieces_until(rows, 0, u64::MAX, &mut |piece| {
        let (here, after) = rest.split_at(piece.len().min(rest.len()));
        same = here == piece;
        rest = after;
        if same { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
    })?;
    Ok(same)
}

/// The hash by which Redis compares strings without sending them.
fn digest_of(rows: &(impl Rows + ?Sized), value: &StringValue) -> Result<u64, CmdError> {
    if let Some(bytes) = value.inline() {
        return Ok(xxh3_64(bytes));
    }
    let mut hash = Xxh3::new();
    value.pieces(rows, 0, u64::MAX, &mut |piece| hash.update(piece))?;
    Ok(hash.digest())
}

/// DIGEST key
fn digest(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let value = string::get(&ctx.rows, &ctx.at(args[1]))?;
    ctx.looked_up(args[1], value.is_some());
    match value {
        Some(value) => {
            let digest = digest_of(&ctx.rows, &value)?;
            ctx.out.bulk(format!("{digest:016x}").as_bytes());
        }
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// Deletes the key if there is a string of which the condition holds, or whatever there is without a condition; replies whether it did.
fn delete_if(ctx: &mut Ctx<'_>, key: &[u8], condition: Option<Compare<'_>>) -> CmdResult {
    let at = ctx.at(key);
    let found = match condition {
        Some(_) => keyspace::find_kind(&ctx.rows, &at, ardb_types::Kind::String)?,
        None => keyspace::find(&ctx.rows, &at)?,
    };
    let Some(row) = found.live() else {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    };
    if let Some(condition) = condition
        && let Some(value) = found_string(&found)
        && !condition.holds(&ctx.rows, &value)?
    {
        ctx.out.int(0);
        return Ok(Outcome::Done);
    }
    keyspace::delete(&mut ctx.rows, &at, row);
    ctx.modified(key);
    ctx.effect(&[b"DEL", key]);
    ctx.notify(Events::GENERIC, "del", key);
    ctx.out.int(1);
    Ok(Outcome::Done)
}

/// DELEX key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]
fn delex(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let condition = match args[2..] {
        [] => None,
        [option, arg] => Some(Compare::parse(option, arg)?.ok_or(error::SYNTAX)?),
        _ => return Err(crate::dispatch::wrong_arity("delex")),
    };
    delete_if(ctx, args[1], condition)
}

/// DELIFEQ key value
fn delifeq(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    delete_if(ctx, args[1], Some(Compare::Equal(args[2])))
}

const DELETES: Flags = Flags::WRITE.with(Flags::FAST);

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("delex", -2, DELETES, Keys::ONE, Group::String, delex)
        .doc("8.4.0", "Delete a key, if its value or the digest of that is, or is not, the given one"),
    Command::new("delifeq", 3, DELETES, Keys::ONE, Group::String, delifeq)
        .doc("Valkey 9.0.0", "Delete a key if its value is the given one"),
    Command::new("digest", 2, Flags::READONLY.with(Flags::FAST), Keys::ONE, Group::String, digest)
        .doc("8.4.0", "The digest of the string stored at a key"),
];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn set_compares_first() {
        let mut server = Harness::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        server.run("LPUSH l x");
        server.run("SET k a");
        server.take_log();
        for (line, reply, log) in [
            ("SET none a IFEQ b", "$-1", ""),
            ("SET k b IFEQ x", "$-1", ""),
            ("SET k b IFEQ a", "+OK", "SET k b"),
            ("SET k c ifeq b GET", "$1 b", "SET k c"),
            ("SET k d IFEQ b GET", "$1 c", ""),
            ("SET none d IFEQ b GET", "$-1", ""),
            ("SET k d IFNE c", "$-1", ""),
            ("SET k d IFNE x EX 100", "+OK", "MULTI | SET k d | PEXPIREAT k 1000000100000 | EXEC"),
            ("SET k e KEEPTTL IFEQ d", "+OK", "MULTI | SET k e | PEXPIREAT k 1000000100000 | EXEC"),
            ("SET new e IFNE d", "+OK", "SET new e"),
            ("SET l a IFEQ x", wrong, ""),
            ("SET l a IFNE x", wrong, ""),
            ("SET k a IFEQ", "-ERR syntax error", ""),
            ("SET k a IFEQ e NX", "-ERR syntax error", ""),
            ("SET k a XX IFEQ e", "-ERR syntax error", ""),
            ("SET k a IFEQ e IFEQ e", "-ERR syntax error", ""),
            ("SET k a IFDEQ 12", "-ERR The digest must be exactly 16 hexadecimal characters", ""),
        ] {
            assert_eq!(server.run(line), reply, "{line}");
            assert_eq!(server.take_log(), log, "{line}");
        }
    }

    #[test]
    fn digests_are_those_of_the_hash() {
        let mut server = Harness::new();
        assert_eq!(server.run("DIGEST k"), "$-1");
        server.run_args(&[b"SET", b"k", b""]);
        // The hash of nothing, as its authors give it.
        assert_eq!(server.run("DIGEST k"), "$16 2d06800538d394c2");
        assert_eq!(server.run("SET k x IFDEQ 2D06800538D394C2"), "+OK");
        assert_eq!(server.run("SET k y IFDEQ 2d06800538d394c2"), "$-1");
        assert_eq!(server.run("SET k y IFDNE 2d06800538d394c2"), "+OK");
        assert_eq!(server.run("SET new y IFDNE 2d06800538d394c2"), "+OK");
        // One in pieces has the digest of its whole.
        let big: Vec<u8> = (0..30_000u32).flat_map(u32::to_le_bytes).collect();
        server.run_args(&[b"SET", b"big", &big]);
        let digest = server.run("DIGEST big");
        assert_eq!(digest, format!("$16 {:016x}", xxhash_rust::xxh3::xxh3_64(&big)));
        assert_eq!(server.run_args(&[b"SET", b"big", b"x", b"IFEQ", &big[1..]]), "$-1");
        let mut other = big.clone();
        other[100_000] ^= 1;
        assert_eq!(server.run_args(&[b"DELIFEQ", b"big", &other]), ":0");
        assert_eq!(server.run_args(&[b"DELIFEQ", b"big", &big]), ":1");
    }

    #[test]
    fn deleting_compares_first() {
        let mut server = Harness::new();
        server.run("MSET a 1 b 2 c 3");
        server.run("LPUSH l x");
        server.take_log();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        for (line, reply, log) in [
            ("DELIFEQ a 2", ":0", ""),
            ("DELIFEQ a 1", ":1", "DEL a"),
            ("DELIFEQ a 1", ":0", ""),
            ("DELIFEQ l x", wrong, ""),
            ("DELEX b IFNE 2", ":0", ""),
            ("DELEX b IFEQ 2", ":1", "DEL b"),
            ("DELEX none IFNE 2", ":0", ""),
            ("DELEX l IFNE 2", wrong, ""),
            ("DELEX l", ":1", "DEL l"),
            ("DELEX c IFDNE 2d06800538d394c2", ":1", "DEL c"),
            ("DELEX c FOO x", "-ERR syntax error", ""),
            ("DELEX c IFEQ", "-ERR wrong number of arguments for 'delex' command", ""),
        ] {
            assert_eq!(server.run(line), reply, "{line}");
            assert_eq!(server.take_log(), log, "{line}");
        }
    }
}
