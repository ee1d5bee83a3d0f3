//! Sorted sets, one file a family: [`write`], [`read`], [`range`], [`pop`], [`combine`]. Here stands what they share.
//!
//! In the log stands what became of a command, in words of Redis 2.6: ZADD with the resulting scores, ZREM for pops. Scores are
//! logged with 17 digits, which is all that a float has.

pub mod combine;
mod parse;
pub mod pop;
pub mod range;
pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

use ardb_base::number::f64_text;
use ardb_resp::Reply;
use ardb_types::keyspace;
use ardb_types::zset::{ZSet, ZSetBuilder};

use crate::context::Ctx;
use crate::error::CmdError;
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Handler, Keys};

/// Members in one command of the log, where an effect is taken to pieces.
const PIECE: usize = 512;

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::SortedSet, handler)
}

/// The sorted set at a key that is only read.
pub(super) fn open(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<Option<ZSet>, CmdError> {
    let set = ZSet::open(&ctx.rows, &ctx.at(key))?;
    ctx.looked_up(key, set.is_some());
    Ok(set)
}

/// Writes the key's row after `changes` members came, changed or went, and tells who wants to know.
fn save(ctx: &mut Ctx<'_>, set: ZSet, key: &[u8], event: &str, changes: u64) {
    let at = ctx.at(key);
    let stays = set.save(&mut ctx.rows, &at);
    ctx.modified(key);
    ctx.dirty += changes.saturating_sub(1);
    ctx.notify(Events::ZSET, event, key);
    if !stays {
        ctx.notify(Events::GENERIC, "del", key);
    }
}

/// A score: a double, or its text in RESP2.
fn reply_score(out: &mut Reply, score: f64) {
    out.double_text(&f64_text(score));
}

/// A member, with its score if that is wanted: as a pair of its own in RESP3.
fn reply_member(out: &mut Reply, member: &[u8], score: f64, with_score: bool) {
    if with_score && out.is_resp3() {
        out.array(2);
    }
    out.bulk(member);
    if with_score {
        reply_score(out, score);
    }
}

/// How many elements an array of `n` members has, with their scores or without.
fn elements(out: &Reply, n: usize, with_scores: bool) -> usize {
    if with_scores && !out.is_resp3() { 2 * n } else { n }
}

/// Logs members in commands of at most [`PIECE`]: `name key`, then what `words` gives for each member.
fn log_members<'m, const N: usize, T>(
    ctx: &mut Ctx<'_>,
    name: &[u8],
    key: &[u8],
    members: &'m [T],
    words: impl Fn(&'m T, &mut dyn FnMut([&[u8]; N])),
) {
    for piece in members.chunks(PIECE) {
        // The words of a piece lie one after the other; a command takes slices of them.
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(piece.len() * N);
        for member in piece {
            words(member, &mut |parts| {
                for part in parts {
                    bytes.extend_from_slice(part);
                    ends.push(bytes.len());
                }
            });
        }
        let mut command: Vec<&[u8]> = Vec::with_capacity(2 + ends.len());
        command.extend([name, key]);
        let mut start = 0;
        for end in ends {
            command.push(&bytes[start..end]);
            start = end;
        }
        ctx.effect(&command);
    }
}

/// A member and its score.
type Scored = (Vec<u8>, f64);

/// Logs ZADD with these members.
fn log_added(ctx: &mut Ctx<'_>, key: &[u8], members: &[Scored]) {
    log_members(ctx, b"ZADD", key, members, |(member, score), add| add([&f64_text(*score)[..], &member[..]]));
}

/// Logs ZREM with these members.
fn log_removed(ctx: &mut Ctx<'_>, key: &[u8], members: &[Scored]) {
    if let [(member, _)] = members {
        ctx.effect(&[b"ZREM", key, member]);
        return;
    }
    log_members(ctx, b"ZREM", key, members, |(member, _), add| add([&member[..]]));
}

/// Makes these different members the value at a key, whatever was there; no members delete it. Replies how many there are.
/// `rewrite`: log DEL and ZADD in place of the command.
pub(super) fn store(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    members: &[Scored],
    event: &str,
    rewrite: bool,
) -> Result<(), CmdError> {
    let at = ctx.at(key);
    let old = keyspace::lookup_raw(&ctx.rows, &at)?;
    let existed = old.is_some();
    let mut builder = ZSetBuilder::new(at.limits);
    let mut ordered: Vec<&Scored> = members.iter().collect();
    // In the order of the set, it is written leaf by leaf.
    ordered.sort_unstable_by(|a, b| (a.1 + 0.0).total_cmp(&(b.1 + 0.0)).then_with(|| a.0.cmp(&b.0)));
    for (member, score) in ordered {
        builder.append_new(&mut ctx.rows, member, *score)?;
    }
    builder.finish(&mut ctx.rows, &at, old, None)?;
    if !members.is_empty() || existed {
        ctx.modified(key);
        if members.is_empty() {
            ctx.notify(Events::GENERIC, "del", key);
        } else {
            ctx.notify(Events::ZSET, event, key);
        }
        if rewrite {
            if existed {
                ctx.effect(&[b"DEL", key]);
            }
            log_added(ctx, key, members);
        }
    }
    ctx.out.size(members.len() as u64);
    Ok(())
}
