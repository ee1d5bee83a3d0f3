//! Publish and subscribe.

use ardb_base::glob;

use crate::context::Ctx;
use crate::error::CmdError;
use crate::session::Session;
use crate::shared::{Kind, Shared};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

fn verbs(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Channel => ("subscribe", "unsubscribe"),
        Kind::Pattern => ("psubscribe", "punsubscribe"),
        Kind::Shard => ("ssubscribe", "sunsubscribe"),
    }
}

fn names(session: &mut Session, kind: Kind) -> &mut std::collections::HashSet<Vec<u8>> {
    match kind {
        Kind::Channel => &mut session.channels,
        Kind::Pattern => &mut session.patterns,
        Kind::Shard => &mut session.shard_channels,
    }
}

fn count(session: &Session, kind: Kind) -> i64 {
    match kind {
        Kind::Shard => session.shard_channels.len() as i64,
        Kind::Channel | Kind::Pattern => session.subscriptions() as i64,
    }
}

fn confirm(ctx: &mut Ctx<'_>, verb: &str, name: Option<&[u8]>, count: i64) {
    ctx.out.push(3);
    ctx.out.bulk(verb.as_bytes());
    ctx.out.bulk_or_null(name);
    ctx.out.int(count);
}

fn subscribe_to(ctx: &mut Ctx<'_>, args: &[&[u8]], kind: Kind) -> CmdResult {
    if ctx.session.deny_blocking && !ctx.out.is_resp3() {
        // In a transaction of RESP2 the confirmations could not be told from replies.
        return Err(CmdError::text(format!(
            "ERR {} isn't allowed for a DENY BLOCKING client",
            verbs(kind).0.to_ascii_uppercase()
        )));
    }
    for name in &args[1..] {
        if names(ctx.session, kind).insert(name.to_vec()) {
            let mailbox = ctx.session.mailbox.clone();
            ctx.shared.hub.subscribe(kind, name, ctx.session.id, ctx.out.protocol(), &mailbox);
        }
        let count = count(ctx.session, kind);
        confirm(ctx, verbs(kind).0, Some(name), count);
    }
    Ok(Outcome::Done)
}

fn unsubscribe_from(ctx: &mut Ctx<'_>, args: &[&[u8]], kind: Kind) -> CmdResult {
    let wanted: Vec<Vec<u8>> = if args.len() > 1 {
        args[1..].iter().map(|name| name.to_vec()).collect()
    } else {
        names(ctx.session, kind).iter().cloned().collect()
    };
    for name in &wanted {
        if names(ctx.session, kind).remove(name) {
            ctx.shared.hub.unsubscribe(kind, name, ctx.session.id);
        }
        let count = count(ctx.session, kind);
        confirm(ctx, verbs(kind).1, Some(name), count);
    }
    if wanted.is_empty() {
        let count = count(ctx.session, kind);
        confirm(ctx, verbs(kind).1, None, count);
    }
    Ok(Outcome::Done)
}

/// A client that leaves listens to nothing any more.
pub fn leave(session: &mut Session, shared: &Shared) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        let id = session.id;
        for name in names(session, kind).drain() {
            shared.hub.unsubscribe(kind, &name, id);
        }
    }
}

/// SUBSCRIBE channel [channel ...]
fn subscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    subscribe_to(ctx, args, Kind::Channel)
}

/// PSUBSCRIBE pattern [pattern ...]
fn psubscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    subscribe_to(ctx, args, Kind::Pattern)
}

/// SSUBSCRIBE channel [channel ...]
fn ssubscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    subscribe_to(ctx, args, Kind::Shard)
}

/// UNSUBSCRIBE [channel ...]
fn unsubscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Channel)
}

/// PUNSUBSCRIBE [pattern ...]
fn punsubscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Pattern)
}

/// SUNSUBSCRIBE [channel ...]
fn sunsubscribe(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Shard)
}

/// PUBLISH channel message
fn publish(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let receivers = ctx.shared.hub.publish(args[1], args[2]);
    // Replicas have listeners too; a replica's own messages stay with it.
    if !ctx.shared.gates.is_replica.load(std::sync::atomic::Ordering::Relaxed) {
        ctx.effect(&[b"PUBLISH", args[1], args[2]]);
    }
    ctx.out.size(receivers as u64);
    Ok(Outcome::Done)
}

/// SPUBLISH shardchannel message
fn spublish(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    // Not logged: Redis before 7.0 does not know it, and replicas of a server without cluster mode have other means.
    let receivers = ctx.shared.hub.publish_shard(args[1], args[2]);
    ctx.out.size(receivers as u64);
    Ok(Outcome::Done)
}

fn list_channels(ctx: &mut Ctx<'_>, args: &[&[u8]], kind: Kind) -> CmdResult {
    if args.len() > 3 {
        let name = String::from_utf8_lossy(args[1]);
        return Err(CmdError::text(format!(
            "ERR unknown subcommand or wrong number of arguments for '{name}'. Try PUBSUB HELP."
        )));
    }
    let pattern = args.get(2);
    let found: Vec<Vec<u8>> = ctx
        .shared
        .hub
        .channels(kind)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name, glob::Case::Sensitive)))
        .collect();
    ctx.out.array(found.len());
    found.iter().for_each(|name| ctx.out.bulk(name));
    Ok(Outcome::Done)
}

fn count_listeners(ctx: &mut Ctx<'_>, args: &[&[u8]], kind: Kind) -> CmdResult {
    let known: std::collections::HashMap<Vec<u8>, usize> = ctx.shared.hub.channels(kind).into_iter().collect();
    ctx.out.array(2 * (args.len() - 2));
    for name in &args[2..] {
        ctx.out.bulk(name);
        ctx.out.size(known.get(*name).copied().unwrap_or(0) as u64);
    }
    Ok(Outcome::Done)
}

/// PUBSUB CHANNELS [pattern]
fn channels(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    list_channels(ctx, args, Kind::Channel)
}

/// PUBSUB SHARDCHANNELS [pattern]
fn shard_channels(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    list_channels(ctx, args, Kind::Shard)
}

/// PUBSUB NUMSUB [channel ...]
fn numsub(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    count_listeners(ctx, args, Kind::Channel)
}

/// PUBSUB SHARDNUMSUB [channel ...]
fn shard_numsub(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    count_listeners(ctx, args, Kind::Shard)
}

/// PUBSUB NUMPAT
fn numpat(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    ctx.out.size(ctx.shared.hub.pattern_count() as u64);
    Ok(Outcome::Done)
}

fn container(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    super::help::reply(ctx, args)
}

const LISTEN: Flags = Flags::PUBSUB.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);
const SPEAK: Flags = Flags::PUBSUB.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::MAY_REPLICATE);
const ASK: Flags = Flags::PUBSUB.with(Flags::LOADING).with(Flags::STALE);

const fn row(name: &'static str, arity: i32, flags: Flags, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, Keys::None, Group::PubSub, handler)
}

const PUBSUB: &[Command] = &[
    row("channels", -2, ASK, channels).doc("2.8.0", "List active channels"),
    row("numpat", 2, ASK, numpat).doc("2.8.0", "Get the count of unique patterns"),
    row("numsub", -2, ASK, numsub).doc("2.8.0", "Get the count of subscribers of channels"),
    row("shardchannels", -2, ASK, shard_channels).doc("7.0.0", "List active shard channels"),
    row("shardnumsub", -2, ASK, shard_numsub).doc("7.0.0", "Get the count of subscribers of shard channels"),
];

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("psubscribe", -2, LISTEN, psubscribe).doc("2.0.0", "Listen to channels that match patterns"),
    row("publish", 3, SPEAK.with(Flags::EXCLUSIVE), publish).doc("2.0.0", "Post a message to a channel"),
    row("pubsub", -2, ASK, container).doc("2.8.0", "Inspect publish and subscribe").subcommands(PUBSUB),
    row("punsubscribe", -1, LISTEN, punsubscribe).doc("2.0.0", "Stop listening to patterns"),
    row("spublish", 3, SPEAK, spublish).doc("7.0.0", "Post a message to a shard channel"),
    row("ssubscribe", -2, LISTEN, ssubscribe).doc("7.0.0", "Listen to shard channels"),
    row("subscribe", -2, LISTEN, subscribe).doc("2.0.0", "Listen to channels"),
    row("sunsubscribe", -1, LISTEN, sunsubscribe).doc("7.0.0", "Stop listening to shard channels"),
    row("unsubscribe", -1, LISTEN, unsubscribe).doc("2.0.0", "Stop listening to channels"),
];
