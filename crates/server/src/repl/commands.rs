//! REPLICAOF, SYNC, PSYNC, PSYNC2, REPLCONF, ROLE, WAIT, FAILOVER.

use std::sync::atomic::Ordering;

use ardb_base::id::Offset;
use ardb_base::number::{parse_i64, parse_u64};
use ardb_commands::table::Group;
use ardb_commands::{Access, Block, CmdError, CmdResult, Command, Ctx, Flags, Keys, Outcome, TimeoutReply};
use ardb_node::failover as handover;
use ardb_repl::master;
use ardb_repl::rows::{FORMAT, SyncId};

use super::feed::{self, Asked};
use super::status::{Phase, Upstream};
use super::{failover, info, role, wait};
use crate::server::of;

const ADMIN: Flags = Flags::ADMIN.with(Flags::NOSCRIPT);
/// They change the role, which takes the writer lock, so they must not hold it.
const ROLE_CHANGE: Flags = ADMIN.with(Flags::STALE).with(Flags::UNLOCKED);
/// PSYNC with FAILOVER changes the role.
const SYNCING: Flags = ADMIN.with(Flags::NO_MULTI).with(Flags::UNLOCKED);

/// The rows of these commands.
pub const COMMANDS: &[Command] = &[
    Command::new("replicaof", 3, ROLE_CHANGE, Keys::None, Group::Replication, replicaof)
        .doc("5.0.0", "Makes the server a replica of another one, or a master."),
    Command::new("slaveof", 3, ROLE_CHANGE, Keys::None, Group::Replication, replicaof)
        .doc("1.0.0", "Makes the server a replica of another one, or a master."),
    Command::new("psync", -3, SYNCING, Keys::None, Group::Replication, psync)
        .doc("2.8.0", "Asks for the stream from an offset on. Used by replicas."),
    Command::new("psync2", -3, SYNCING, Keys::None, Group::Replication, psync2).doc(
        "0.1.0",
        "Asks for the stream from an offset on, or everything as rows. Used by replicas of the same kind.",
    ),
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
    Command::new(
        "waitaof",
        4,
        Flags::NOSCRIPT.with(Flags::BLOCKING).with(Flags::EXCLUSIVE),
        Keys::None,
        Group::Generic,
        wait_for_disks,
    )
    .doc("7.2.0", "Waits until what was written is durable, here and on replicas."),
    Command::new("failover", -1, ROLE_CHANGE, Keys::None, Group::Replication, failover)
        .doc("6.2.0", "Hands the role of the master over to a replica."),
];

fn refused(text: impl Into<String>) -> CmdError {
    CmdError::text(text.into())
}

fn replicaof(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let server = of(ctx.host).handle();
    if server.replication.failover.holds_the_role() {
        return Err(refused("ERR REPLICAOF not allowed while failing over."));
    }
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
    if server.replication.failover.running() {
        return Err(refused("NOMASTERLINK Can't SYNC while failing over"));
    }
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
    let Some(offset) = parse_i64(args[2]) else {
        log::warn!("Replica {} asks for synchronization but with a wrong offset", ctx.session.id);
        return Err(ardb_commands::error::NOT_INTEGER);
    };
    if let Some(asked) = handover::Asked::of(args[1], offset, args.get(3..).unwrap_or_default()) {
        take_role(&of(ctx.host).handle(), asked)?;
    }
    hand_over(ctx, Asked::Psync(args[1].to_vec(), offset))
}

/// Our master asks us to take its place.
fn take_role(server: &std::sync::Arc<crate::server::Server>, asked: handover::Asked<'_>) -> Result<(), CmdError> {
    log::info!("Failover request received for replid {}.", String::from_utf8_lossy(asked.id));
    let mut may = Err(handover::NotTaken::Master);
    let taken = role::promote_if(server, || {
        may = handover::may_take(&server.store, true, asked);
        may.is_ok()
    });
    let taken = taken.map_err(|error| refused(format!("ERR {error}")))?;
    if let Err(why) = may {
        log::warn!("The role is not taken over: {why}");
        return Err(refused(why.to_string()));
    }
    debug_assert!(taken, "nothing else stands in the way");
    log::info!("MASTER MODE enabled (failover request of our master)");
    Ok(())
}

/// `PSYNC2 id offset [format [transfer block]]`.
fn psync2(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let offset = parse_i64(args[2]).ok_or(ardb_commands::error::NOT_INTEGER)?;
    if let Some(format) = args.get(3)
        && parse_u64(format) != Some(u64::from(FORMAT))
    {
        let format = String::from_utf8_lossy(&format[..format.len().min(20)]);
        return Err(refused(format!("ERR rows of format {format} are not sent here, only {FORMAT}")));
    }
    let resume = match args.get(4..).unwrap_or_default() {
        [] => None,
        [sync, block] => match (SyncId::parse(sync), parse_u64(block)) {
            (Some(sync), Some(block)) => Some((sync, block)),
            _ => return Err(ardb_commands::error::SYNTAX),
        },
        _ => return Err(ardb_commands::error::SYNTAX),
    };
    hand_over(ctx, Asked::Psync2(args[1].to_vec(), offset, resume))
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
    wait_for(ctx, wait::Want::Replicas(u64::try_from(wanted).unwrap_or(0)), args[2])
}

/// WAITAOF numlocal numreplicas timeout
fn wait_for_disks(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let local = parse_i64(args[1]).ok_or(ardb_commands::error::NOT_INTEGER)?;
    let local = match local {
        0 => false,
        1 => true,
        _ => return Err(refused("ERR value is out of range, must be between 0 and 1")),
    };
    let replicas = parse_i64(args[2]).ok_or(ardb_commands::error::NOT_INTEGER)?;
    let replicas = u64::try_from(replicas).map_err(|_| refused("ERR value is out of range, must be positive"))?;
    if of(ctx.host).shared.gates.is_replica.load(Ordering::SeqCst) {
        return Err(refused(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated.",
        ));
    }
    wait_for(ctx, wait::Want::Durable { local, replicas }, args[3])
}

fn wait_for(ctx: &mut Ctx<'_>, want: wait::Want, timeout: &[u8]) -> CmdResult {
    let server = of(ctx.host);
    let timeout = parse_i64(timeout).ok_or_else(|| refused("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(refused("ERR timeout is negative"));
    }
    let Access::Write(transaction) = &mut ctx.rows else {
        return Err(refused("ERR WAIT needs the writer"));
    };
    // What this batch has logged so far becomes visible with its commit; the log's end stands still under the lock.
    let target = server.store.log().end().advance(transaction.payload().len());
    let have = wait::have(server, want, target);
    if wait::met(want, have) || ctx.session.deny_blocking || ctx.depth > 0 {
        have.reply(ctx.out);
        return Ok(Outcome::Done);
    }
    server.replication.waits.add(ctx.session.id, target, want);
    // While writes are held up the stream rests too, and replicas acknowledge in their own time.
    if !server.replication.peers.lock().is_empty() && target > Offset(0) && !server.paused() {
        transaction.payload().extend_from_slice(master::GETACK);
    }
    let until = (timeout > 0).then(|| ctx.now.saturating_add(timeout));
    Ok(Outcome::Block(Block { keys: Vec::new(), until, on_timeout: TimeoutReply::Null }))
}

/// FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]
fn failover(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let server = of(ctx.host);
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let mut request = failover::Request::default();
    let mut rest = &args[1..];
    if let [word] = rest
        && is(word, "abort")
    {
        return match failover::abort(server, "by a client's FAILOVER ABORT") {
            true => {
                ctx.out.ok();
                Ok(Outcome::Done)
            }
            false => Err(refused("ERR No failover in progress.")),
        };
    }
    loop {
        rest = match rest {
            [] => break,
            [word, ms, rest @ ..] if is(word, "timeout") && request.timeout.is_none() => {
                let ms = parse_i64(ms).ok_or(ardb_commands::error::NOT_INTEGER)?;
                let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
                request.timeout = Some(ms.ok_or_else(|| refused("ERR FAILOVER timeout must be greater than 0"))?);
                rest
            }
            [word, host, port, rest @ ..] if is(word, "to") && request.target.is_none() => {
                let port = parse_i64(port).ok_or(ardb_commands::error::NOT_INTEGER)?;
                // No replica has a name that is no text, or a port that is none.
                let host = String::from_utf8_lossy(host).into_owned();
                request.target = Some(Upstream { host, port: u16::try_from(port).unwrap_or(0) });
                rest
            }
            [word, rest @ ..] if is(word, "force") && !request.force => {
                request.force = true;
                rest
            }
            _ => return Err(ardb_commands::error::SYNTAX),
        };
    }
    failover::begin(server, request).map_err(|refusal| refused(refusal.to_string()))?;
    ctx.out.ok();
    Ok(Outcome::Done)
}
