//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! EXEC runs under the writer lock, so nothing comes between its commands; what they log stands between MULTI and EXEC. WATCH runs under the
//! lock too, so that no change slips in between the look of a client and its watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ardb_types::keyspace;

use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::session::{Queued, Session, Watched};
use crate::shared::{Gates, Shared};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome, dispatch};

/// MULTI
fn multi(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    if ctx.session.multi.is_some() {
        return Err(error::NO_MULTI_IN_MULTI);
    }
    ctx.session.multi = Some(crate::session::Queue::default());
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Forgets all watches of a client.
pub fn unwatch_all(session: &mut Session, shared: &Shared) {
    if let Some(flag) = session.watch.take() {
        for watched in session.watched.drain(..) {
            shared.unwatch(watched.db, &watched.key, &flag);
        }
    }
}

/// Ends the transaction of an EXEC that may not run.
pub fn abandon(ctx: &mut Ctx<'_>) {
    ctx.session.multi = None;
    unwatch_all(ctx.session, ctx.shared);
}

/// DISCARD
fn discard(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    if ctx.session.multi.take().is_none() {
        return Err(error::DISCARD_WITHOUT_MULTI);
    }
    unwatch_all(ctx.session, ctx.shared);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Whether a watched key has changed, or has expired since it was watched.
fn watches_failed(ctx: &Ctx<'_>) -> Result<bool, CmdError> {
    let Some(flag) = &ctx.session.watch else { return Ok(false) };
    if flag.load(Ordering::SeqCst) {
        return Ok(true);
    }
    for watched in &ctx.session.watched {
        if !watched.was_due {
            let at = ctx.at_db(watched.db, &watched.key);
            if keyspace::lookup_raw(&ctx.rows, &at)?.is_some_and(|row| keyspace::is_due(&row, at.now)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Why commands that were queued may not run now.
fn refusal(commands: &[Queued], gates: &Gates) -> Option<CmdError> {
    let on = |gate: &AtomicBool| gate.load(Ordering::Relaxed);
    let writes = commands.iter().any(|queued| queued.command.flags.has(Flags::WRITE));
    if writes && on(&gates.too_few_replicas) {
        return Some(error::NO_REPLICAS);
    }
    if writes && on(&gates.read_only) {
        return Some(error::READ_ONLY);
    }
    // What is for administrators (DEBUG SLEEP) can do without the lock.
    let needs_lock = |flags: Flags| flags.has(Flags::WRITE) || (flags.needs_writer() && !flags.has(Flags::ADMIN));
    if commands.iter().any(|queued| queued.command.flags.has(Flags::UNLOCKED))
        && commands.iter().any(|queued| needs_lock(queued.command.flags))
    {
        return Some(CmdError::text("ERR a transaction that changes the role may not write"));
    }
    let fresh = commands.iter().any(|queued| !queued.command.flags.has(Flags::STALE));
    (fresh && on(&gates.stale)).then_some(error::MASTER_DOWN)
}

/// EXEC
fn exec(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    let Some(queue) = ctx.session.multi.take() else { return Err(error::EXEC_WITHOUT_MULTI) };
    let failed = watches_failed(ctx);
    unwatch_all(ctx.session, ctx.shared);
    if queue.failed {
        return Err(error::EXEC_ABORT);
    }
    if failed? {
        ctx.out.null_array();
        return Ok(Outcome::Done);
    }
    // The server's state may have changed since the commands were queued.
    if ctx.origin == crate::Origin::Client
        && let Some(reason) = refusal(&queue.commands, &ctx.shared.gates)
    {
        return Err(CmdError::text(format!("EXECABORT Transaction discarded because of: {reason}")));
    }
    ctx.out.array(queue.commands.len());
    let deny_before = std::mem::replace(&mut ctx.session.deny_blocking, true);
    ctx.depth += 1;
    for queued in &queue.commands {
        let args: Vec<&[u8]> = queued.args.iter().map(|arg| &arg[..]).collect();
        let start = ctx.out.len();
        let outcome = dispatch::call(ctx, queued.command, &args);
        ctx.host.followed(queued.command, ctx.out.bytes().get(start) == Some(&b'-'));
        debug_assert_eq!(outcome, Outcome::Done, "nothing blocks inside EXEC");
    }
    ctx.depth -= 1;
    ctx.session.deny_blocking = deny_before;
    Ok(Outcome::Done)
}

/// WATCH key [key ...]
fn watch(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if ctx.session.multi.is_some() {
        return Err(error::WATCH_IN_MULTI);
    }
    let flag = ctx.session.watch.get_or_insert_with(|| Arc::new(AtomicBool::new(false))).clone();
    let db = ctx.session.db;
    for key in &args[1..] {
        if ctx.session.watched.iter().any(|watched| watched.db == db && watched.key == *key) {
            continue;
        }
        let at = ctx.at(key);
        let was_due = keyspace::lookup_raw(&ctx.rows, &at)?.is_some_and(|row| keyspace::is_due(&row, at.now));
        ctx.session.watched.push(Watched { db, key: key.to_vec(), was_due });
        ctx.shared.watch(db, key, &flag);
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// UNWATCH
fn unwatch(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    unwatch_all(ctx.session, ctx.shared);
    ctx.out.ok();
    Ok(Outcome::Done)
}

const PLAIN: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::ALLOW_BUSY);

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::Transactions, handler)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("discard", 1, PLAIN, Keys::None, discard).doc("2.0.0", "Discard all commands issued after MULTI"),
    row(
        "exec",
        1,
        Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::SKIP_SLOWLOG).with(Flags::EXCLUSIVE),
        Keys::None,
        exec,
    )
    .doc("1.2.0", "Execute all commands issued after MULTI"),
    row("multi", 1, PLAIN, Keys::None, multi).doc("1.2.0", "Mark the start of a transaction"),
    row("unwatch", 1, PLAIN, Keys::None, unwatch).doc("2.2.0", "Forget about all watched keys"),
    row("watch", -2, PLAIN.with(Flags::EXCLUSIVE), Keys::ALL, watch)
        .doc("2.2.0", "Watch keys, so that EXEC fails if they change"),
];

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn a_transaction_is_one_entry_of_the_log() {
        let mut server = Harness::new();
        server.run("MULTI");
        assert_eq!(server.run("SADD s a"), "+QUEUED");
        assert_eq!(server.run("RPUSH l b"), "+QUEUED");
        assert_eq!(server.run("LLEN s"), "+QUEUED");
        assert!(server.take_log().is_empty());
        let reply = server.run("EXEC");
        assert_eq!(reply, "*3 :1 :1 -WRONGTYPE Operation against a key holding the wrong kind of value");
        assert_eq!(server.take_log(), "MULTI | SADD s a | RPUSH l b | EXEC");
        assert_eq!(server.run("EXEC"), "-ERR EXEC without MULTI");
        assert_eq!(server.run("DISCARD"), "-ERR DISCARD without MULTI");
    }

    #[test]
    fn a_refused_command_aborts() {
        let mut server = Harness::new();
        server.run("MULTI");
        assert!(server.run("SADD s").starts_with("-ERR wrong number"));
        assert_eq!(server.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.");
        server.run("MULTI");
        server.run("SADD s a");
        let refused = server.run("EXEC now");
        assert_eq!(
            refused,
            "-EXECABORT Transaction discarded because of: ERR wrong number of arguments for 'exec' command"
        );
        assert_eq!(server.run("EXEC"), "-ERR EXEC without MULTI");
        assert_eq!(server.run("EXISTS s"), ":0");
        server.run("MULTI");
        server.run("SADD s a");
        server.with_ctx(|ctx| ctx.shared.gates.too_few_replicas.store(true, std::sync::atomic::Ordering::Relaxed));
        assert!(server.run("EXEC").starts_with("-EXECABORT Transaction discarded because of: NOREPLICAS"));
        server.with_ctx(|ctx| ctx.shared.gates.too_few_replicas.store(false, std::sync::atomic::Ordering::Relaxed));
        assert_eq!(server.run("EXISTS s"), ":0");
        server.run("MULTI");
        assert_eq!(server.run("MULTI"), "-ERR MULTI calls can not be nested");
        assert_eq!(server.run("WATCH a"), "-ERR WATCH inside MULTI is not allowed");
    }

    #[test]
    fn a_watched_key_that_changes_fails_the_transaction() {
        let mut server = Harness::new();
        server.run("WATCH s");
        server.run("SADD s a");
        server.run("MULTI");
        server.run("SADD s b");
        assert_eq!(server.run("EXEC"), "*-1");
        assert_eq!(server.run("SCARD s"), ":1");
        server.run("WATCH s");
        server.run("UNWATCH");
        server.run("SADD s c");
        server.run("MULTI");
        assert_eq!(server.run("EXEC"), "*0");
    }

    #[test]
    fn the_memory_of_the_queue_is_counted() {
        let mut server = Harness::new();
        server.run("MULTI");
        let commands = 1000;
        (0..commands).for_each(|_| assert_eq!(server.run("SADD s a b c d"), "+QUEUED"));
        let queue = server.session.multi.as_ref().expect("a transaction is open");
        let held: usize = queue
            .commands
            .iter()
            .map(|queued| {
                let arguments: usize = queued.args.iter().map(|arg| arg.capacity() + size_of::<Vec<u8>>()).sum();
                size_of_val(queued) + arguments
            })
            .sum();
        assert!(queue.bytes >= held, "{} bytes counted, {held} held", queue.bytes);
    }

    #[test]
    fn one_effect_needs_no_transaction() {
        let mut server = Harness::new();
        server.run("MULTI");
        server.run("SADD s a");
        server.run("EXEC");
        assert_eq!(server.take_log(), "SADD s a");
    }
}
