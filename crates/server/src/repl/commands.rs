//! REPLICAOF, SYNC, PSYNC, REPLCONF, ROLE, WAIT, FAILOVER.

use std::sync::atomic::Ordering;

use ardb_base::id::Offset;
use ardb_base::number::parse_i64;
use ardb_commands::table::Group;
use ardb_commands::{Access, Block, CmdError, CmdResult, Command, Ctx, Flags, Keys, Outcome, TimeoutReply};
use ardb_repl::master;

use super::feed::{self, Asked};
use super::status::{Phase, Upstream};
use super::{info, role, wait};
use crate::server::of;

const ADMIN: Flags = Flags::ADMIN.with(Flags::NOSCRIPT);
/// They change the role, which takes the writer lock, so they must not hold it.
const ROLE_CHANGE: Flags = ADMIN.with(Flags::STALE).with(Flags::NO_MULTI);
const SYNCING: Flags = ADMIN.with(Flags::NO_MULTI);

/// The rows of these commands.
pub const COMMANDS: &[Command] = &[
    Command::new("replicaof", 3, ROLE_CHANGE, Keys::None, Group::Replication, replicaof)
        .doc("5.0.0", "Makes the server a replica of another one, or a master."),
    Command::new("slaveof", 3, ROLE_CHANGE, Keys::None, Group::Replication, replicaof)
        .doc("1.0.0", "Makes the server a replica of another one, or a master."),
    Command::new("psync", -3, SYNCING, Keys::None, Group::Replication, psync)
        .doc("2.8.0", "Asks for the stream from an offset on. Used by replicas."),
    Command::new("sync", 1, SYNCING, Keys::None, Group::Replication, sync)
        .doc("1.0.0", "Asks for everything. Used by replicas."),
    Command::new(
        "replconf",
        -1,
        ADMIN.with(Flags::LOADING).with(Flags::STALE).with(Flags::ALLOW_BUSY),
        Keys::None,
        Group::Replication,
        replconf,
    )
    .doc("3.0.0", "Says what a replica is. Used by replicas."),
    Command::new(
        "role",
        1,
        Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST),
        Keys::None,
        Group::Replication,
        role_of,
    )
    .doc("2.8.12", "Returns the role of the server in replication."),
    Command::new(
        "wait",
        3,
        Flags::NOSCRIPT.with(Flags::BLOCKING).with(Flags::EXCLUSIVE),
        Keys::None,
        Group::Generic,
        wait_for_replicas,
    )
    .doc("3.0.0", "Waits until replicas have acknowledged what was written."),
    Command::new("failover", -1, ROLE_CHANGE, Keys::None, Group::Replication, failover)
        .doc("6.2.0", "Hands the role of the master over. Not supported."),
];

fn refused(text: impl Into<String>) -> CmdError {
    CmdError::text(text.into())
}

fn replicaof(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if ctx.rows.can_write() {
        // A transaction holds the lock that a change of the role needs.
        return Err(refused("ERR REPLICAOF is not allowed inside a transaction"));
    }
    let server = of(ctx.host).handle();
    let state = |error: ardb_store::StateError| refused(format!("ERR {error}"));
    if args[1].eq_ignore_ascii_case(b"no") && args[2].eq_ignore_ascii_case(b"one") {
        if role::promote(&server).map_err(state)? {
            log::info!("MASTER MODE enabled (user request of client {})", ctx.session.id);
        }
        ctx.out.ok();
        return Ok(Outcome::Done);
    }
    let port = parse_i64(args[2]).and_then(|port| u16::try_from(port).ok());
    let host = std::str::from_utf8(args[1]).ok().filter(|host| !host.is_empty() && !host.contains([' ', '\r', '\n']));
    let (Some(host), Some(port)) = (host, port) else { return Err(refused("ERR Invalid master port")) };
    let upstream = Upstream { host: host.to_owned(), port };
    let stopped = server.replication.link.lock().phase == Phase::Stopped;
    if server.replication.upstream.lock().as_ref() == Some(&upstream) && !stopped {
        log::info!(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation performed."
        );
        ctx.out.simple("OK Already connected to specified master");
        return Ok(Outcome::Done);
    }
    role::replicate(&server, upstream).map_err(state)?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn hand_over(ctx: &Ctx<'_>, asked: Asked) -> CmdResult {
    let server = of(ctx.host).handle();
    let id = ctx.session.id;
    let Some(info) = server.clients.get(id) else { return Err(refused("ERR no client asked for this")) };
    let profile = server.replication.profiles.lock().remove(&id).unwrap_or_default();
    log::info!(
        "Replica {}:{} asks for synchronization",
        info.addr.rsplit_once(':').map_or("", |(ip, _)| ip),
        profile.port
    );
    info.hand_over(Box::new(move |detached| feed::take_over(server, detached, asked, profile)));
    Ok(Outcome::Done)
}

fn sync(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    hand_over(ctx, Asked::Sync)
}

fn psync(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 3 {
        return Err(refused("ERR PSYNC with FAILOVER is not supported"));
    }
    let offset = parse_i64(args[2]).ok_or(ardb_commands::error::NOT_INTEGER)?;
    hand_over(ctx, Asked::Psync(args[1].to_vec(), offset))
}

fn replconf(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let server = of(ctx.host);
    // An acknowledgement gets no answer, and means nothing from one who gets no stream.
    if master::acknowledgement(args).is_some() || args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"getack")) {
        return Ok(Outcome::Done);
    }
    let mut profiles = server.replication.profiles.lock();
    // Those of clients that went away without a PSYNC.
    profiles.retain(|id, _| *id == ctx.session.id || server.clients.get(*id).is_some());
    profiles.entry(ctx.session.id).or_default().configure(&args[1..]).map_err(|error| refused(error.to_string()))?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn role_of(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    info::role(of(ctx.host), ctx.out);
    Ok(Outcome::Done)
}

fn wait_for_replicas(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let server = of(ctx.host);
    if server.shared.gates.is_replica.load(Ordering::SeqCst) {
        return Err(refused(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let wanted = parse_i64(args[1]).ok_or(ardb_commands::error::NOT_INTEGER)?;
    let timeout = parse_i64(args[2]).ok_or_else(|| refused("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(refused("ERR timeout is negative"));
    }
    let Access::Write(transaction) = &mut ctx.rows else {
        return Err(refused("ERR WAIT needs the writer"));
    };
    // What this batch has logged so far becomes visible with its commit; the log's end stands still under the lock.
    let target = server.store.log().end().advance(transaction.payload().len());
    let have = wait::count(server, target);
    let wanted = u64::try_from(wanted).unwrap_or(0);
    if have >= wanted || ctx.session.deny_blocking || ctx.depth > 0 {
        ctx.out.size(have);
        return Ok(Outcome::Done);
    }
    server.replication.waits.add(ctx.session.id, target, wanted);
    if !server.replication.peers.lock().is_empty() && target > Offset(0) {
        transaction.payload().extend_from_slice(master::GETACK);
    }
    let until = (timeout > 0).then(|| ctx.now.saturating_add(timeout));
    Ok(Outcome::Block(Block { keys: Vec::new(), until, on_timeout: TimeoutReply::Null }))
}

fn failover(_ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    Err(refused("ERR FAILOVER is not supported: promote a replica with REPLICAOF NO ONE, then point the others at it"))
}
