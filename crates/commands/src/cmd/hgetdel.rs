//! HGETDEL: reading fields of a hash and deleting them, of Redis 8 and Valkey 9.1. Logged as HDEL.

use ardb_types::hash::Hash;

use super::args;
use crate::context::Ctx;
use crate::error::CmdError;
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// The fields that `FIELDS count field [field ...]` names.
fn parse<'s, 'a>(args: &'s [&'a [u8]]) -> Result<&'s [&'a [u8]], CmdError> {
    if !args::is(args[2], "fields") {
        return Err(CmdError::text("ERR Mandatory argument FIELDS is missing or not at the right position"));
    }
    let count = args::int(args[3]).ok().filter(|count| *count > 0);
    let count = count.ok_or(CmdError::text("ERR Number of fields must be a positive integer"))?;
    if usize::try_from(count) != Ok(args.len() - 4) {
        return Err(CmdError::text("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(&args[4..])
}

/// HGETDEL key FIELDS count field [field ...]
fn hgetdel(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let fields = parse(args)?;
    let key = args[1];
    let at = ctx.at(key);
    let hash = Hash::open(&ctx.rows, &at)?;
    ctx.looked_up(key, hash.is_some());
    ctx.out.array(fields.len());
    let Some(mut hash) = hash else {
        fields.iter().for_each(|_| ctx.out.null());
        return Ok(Outcome::Done);
    };
    let mut effect: Vec<&[u8]> = vec![b"HDEL", key];
    for field in fields {
        let value = hash.get(&ctx.rows, field)?;
        ctx.out.bulk_or_null(value.as_deref());
        if value.is_some() {
            hash.remove(&mut ctx.rows, field)?;
            effect.push(field);
        }
    }
    let gone = effect.len() - 2;
    if gone == 0 {
        return Ok(Outcome::Done);
    }
    let stays = hash.save(&mut ctx.rows, &at);
    ctx.modified(key);
    ctx.dirty += gone as u64 - 1;
    ctx.effect(&effect);
    ctx.notify(Events::HASH, "hdel", key);
    if !stays {
        ctx.notify(Events::GENERIC, "del", key);
    }
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] =
    &[Command::new("hgetdel", -5, Flags::WRITE.with(Flags::FAST), Keys::ONE, Group::Hash, hgetdel)
        .doc("8.0.0", "Get the values of fields of a hash and delete them")];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn fields_are_read_and_go() {
        let mut server = Harness::new();
        server.run("HSET h a 1 b 2 c 3");
        server.run("LPUSH l x");
        server.take_log();
        let positive = "-ERR Number of fields must be a positive integer";
        let matching = "-ERR The `numfields` parameter must match the number of arguments";
        for (line, reply, log) in [
            ("HGETDEL h FIELDS 1 a", "*1 $1 1", "HDEL h a"),
            ("HGETDEL h FIELDS 1 a", "*1 $-1", ""),
            ("HGETDEL h fields 3 x b b", "*3 $-1 $1 2 $-1", "HDEL h b"),
            ("HGETDEL none FIELDS 2 a b", "*2 $-1 $-1", ""),
            ("HGETDEL h FIELDS 1 c", "*1 $1 3", "HDEL h c"),
            ("EXISTS h", ":0", ""),
            ("HGETDEL l FIELDS 1 a", "-WRONGTYPE Operation against a key holding the wrong kind of value", ""),
            ("HGETDEL h FIELDS 0 a", positive, ""),
            ("HGETDEL h FIELDS x a", positive, ""),
            ("HGETDEL h FIELDS 2 a", matching, ""),
            ("HGETDEL h FIELDS 1 a b", matching, ""),
            ("HGETDEL h FOO 1 a", "-ERR Mandatory argument FIELDS is missing or not at the right position", ""),
            ("HGETDEL h FIELDS 1", "-ERR wrong number of arguments for 'hgetdel' command", ""),
        ] {
            assert_eq!(server.run(line), reply, "{line}");
            assert_eq!(server.take_log(), log, "{line}");
        }
    }
}
