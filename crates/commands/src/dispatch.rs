//! The one way to run a command: find it, see whether it may run now, queue it or call it, log its effects.
//!
//! [`resolve`] and [`needs_writer`] are separate from [`execute`], since the server must know whether to take the writer lock
//! before there is a [`Ctx`]. EXEC and scripts run their commands through [`call`], so that all get the same treatment.

use std::sync::atomic::Ordering;

use ardb_base::id::UnixMs;
use ardb_engine::{EngineError, Rows};
use ardb_types::{At, keyspace};

use crate::Outcome;
use crate::context::{Ctx, Fault, Origin};
use crate::error::{self, CmdError};
use crate::session::{Queued, Session};
use crate::shared::{Events, Gates, Shared};
use crate::table::{Command, Flags, Table};

/// Finds the command, or the subcommand, that `args` name, and checks the number of arguments.
pub fn resolve(table: &Table, args: &[&[u8]]) -> Result<&'static Command, CmdError> {
    let Some(command) = args.first().and_then(|name| table.find(name)) else {
        return Err(unknown_command(args));
    };
    resolve_in(command, args)
}

/// As [`resolve`], for `args` whose first is the name of `command`.
pub fn resolve_in(command: &'static Command, args: &[&[u8]]) -> Result<&'static Command, CmdError> {
    if let (false, Some(name)) = (command.subcommands.is_empty(), args.get(1)) {
        if let Some(found) = command.subcommands.iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name)) {
            if !found.arity_fits(args.len()) {
                return Err(wrong_arity(&format!("{}|{}", command.name, found.name)));
            }
            return Ok(found);
        }
        if !name.eq_ignore_ascii_case(b"help") && command.arity < 0 {
            let mut text = b"ERR unknown subcommand '".to_vec();
            text.extend_from_slice(&name[..name.len().min(128)]);
            text.extend_from_slice(format!("'. Try {} HELP.", command.name.to_ascii_uppercase()).as_bytes());
            return Err(CmdError::Bytes(text));
        }
    }
    if !command.arity_fits(args.len()) {
        return Err(wrong_arity(command.name));
    }
    Ok(command)
}

fn unknown_command(args: &[&[u8]]) -> CmdError {
    // Redis prints them as C strings: they end at a zero byte.
    let cut = |bytes: &[u8], most: usize| -> Vec<u8> {
        bytes.iter().take(most).take_while(|byte| **byte != 0).copied().collect()
    };
    let mut text = b"ERR unknown command '".to_vec();
    text.extend(cut(args.first().copied().unwrap_or(b""), 128));
    text.extend_from_slice(b"', with args beginning with: ");
    let mut quoted = Vec::new();
    for arg in args.iter().skip(1) {
        if quoted.len() >= 128 {
            break;
        }
        let room = 128 - quoted.len();
        quoted.push(b'\'');
        quoted.extend(cut(arg, room));
        quoted.extend_from_slice(b"' ");
    }
    text.extend(quoted);
    CmdError::Bytes(text)
}

/// The error for a wrong number of arguments; a subcommand's name is `container|name`.
#[must_use]
pub fn wrong_arity(name: &str) -> CmdError {
    CmdError::text(format!("ERR wrong number of arguments for '{name}' command"))
}

/// Whether running this command for this client takes the writer lock.
#[must_use]
pub fn needs_writer(session: &Session, command: &Command) -> bool {
    command.flags.needs_writer() && !will_queue(session, command) && !shuns_writer(session, command)
}

/// Whether running this command for this client must not happen under the writer lock, since it takes the lock itself.
#[must_use]
pub fn shuns_writer(session: &Session, command: &Command) -> bool {
    let unlocked = |command: &Command| command.flags.has(Flags::UNLOCKED);
    match &session.multi {
        Some(queue) if command.name == "exec" => queue.commands.iter().any(|queued| unlocked(queued.command)),
        Some(_) => false,
        None => unlocked(command),
    }
}

/// Whether the reply to this command depends on the data, so that it is worth nothing if the transaction that it ran in fails. What
/// concerns the connection alone (SELECT, SUBSCRIBE, MULTI and what it queues) has taken effect all the same.
#[must_use]
pub fn depends_on_data(session: &Session, command: &Command) -> bool {
    let flags = command.flags;
    !will_queue(session, command)
        && command.name != "watch"
        && (flags.needs_writer() || flags.has(Flags::READONLY) || flags.has(Flags::MAY_REPLICATE))
}

/// Whether a command that only reads meets a key whose time has come. On a master it then runs under the writer lock, where the key is
/// deleted first, so that a key that was looked at in vain no longer counts.
#[must_use]
pub fn meets_due_key(
    rows: &dyn Rows,
    shared: &Shared,
    session: &Session,
    command: &Command,
    args: &[&[u8]],
    now: UnixMs,
) -> bool {
    if !command.flags.has(Flags::READONLY)
        || rows.expiry_count(session.db) == 0
        || shared.gates.is_replica.load(Ordering::Relaxed)
        || shared.gates.log_rests.load(Ordering::Relaxed)
        || will_queue(session, command)
    {
        return false;
    }
    let mut due = false;
    command.keys.each(args, |index| {
        let at = At::new(rows, session.db, args[index], now);
        // What cannot be read will be reported by the command itself.
        due |= keyspace::lookup_raw(rows, &at).is_ok_and(|row| row.is_some_and(|row| keyspace::is_due(&row, now)));
    });
    due
}

/// Whether this command of this client waits for its EXEC.
#[must_use]
pub fn will_queue(session: &Session, command: &Command) -> bool {
    session.multi.is_some() && !matches!(command.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

/// Why the command may not run now, if it may not.
fn refusal(ctx: &Ctx<'_>, command: &Command) -> Option<CmdError> {
    let gates: &Gates = &ctx.shared.gates;
    let on = |gate: &std::sync::atomic::AtomicBool| gate.load(Ordering::Relaxed);
    let flags = command.flags;
    if on(&gates.needs_auth) && !ctx.session.authenticated && !flags.has(Flags::NO_AUTH) {
        return Some(error::NO_AUTH);
    }
    if flags.has(Flags::NO_MULTI) && ctx.session.multi.is_some() {
        return Some(CmdError::text("ERR Command not allowed inside a transaction"));
    }
    if on(&gates.too_few_replicas) && flags.has(Flags::WRITE) {
        return Some(error::NO_REPLICAS);
    }
    if on(&gates.read_only) && flags.has(Flags::WRITE) {
        return Some(error::READ_ONLY);
    }
    if !ctx.out.is_resp3()
        && ctx.session.in_pubsub()
        && !matches!(
            command.name,
            "ping"
                | "subscribe"
                | "ssubscribe"
                | "unsubscribe"
                | "sunsubscribe"
                | "psubscribe"
                | "punsubscribe"
                | "quit"
                | "reset"
        )
    {
        return Some(CmdError::text(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.name
        )));
    }
    if on(&gates.stale) && !flags.has(Flags::STALE) {
        return Some(error::MASTER_DOWN);
    }
    if on(&gates.loading) && !flags.has(Flags::LOADING) {
        return Some(error::LOADING);
    }
    if on(&gates.busy_script) && !flags.has(Flags::ALLOW_BUSY) {
        return Some(error::BUSY_SCRIPT);
    }
    None
}

/// Runs a client's command: refuses it, queues it for EXEC, or calls it. The reply (an error too) is in `ctx.out` unless the outcome
/// is to block. `command` comes from [`resolve`] for the same `args`; `ctx.rows` must be a transaction if [`needs_writer`] said so.
pub fn execute(ctx: &mut Ctx<'_>, command: &'static Command, args: &[&[u8]]) -> Outcome {
    if ctx.origin == Origin::Client
        && let Some(reason) = refusal(ctx, command)
    {
        reject(ctx, args, &reason);
        return Outcome::Done;
    }
    if will_queue(ctx.session, command) {
        if let Some(queue) = ctx.session.multi.as_mut() {
            queue.bytes += Queued::cost(args);
            queue.commands.push(Queued { command, args: args.iter().map(|arg| arg.to_vec()).collect() });
        }
        ctx.out.simple("QUEUED");
        return Outcome::Done;
    }
    ctx.session.last_command = command.name;
    let outcome = call(ctx, command, args);
    if ctx.rows.can_write() {
        let mut effects = std::mem::take(&mut ctx.effects);
        effects.finish(ctx.rows.transaction());
    }
    outcome
}

/// Replies an error to a command that was not run. If a MULTI is open, its EXEC will abort; if it is the EXEC, the transaction is over.
pub fn reject(ctx: &mut Ctx<'_>, args: &[&[u8]], reason: &CmdError) {
    ctx.shared.stats.errors.add(1);
    if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
        crate::cmd::multi::abandon(ctx);
        let why = [b"EXECABORT Transaction discarded because of: ", &reason.reply_bytes()[..]].concat();
        ctx.out.error(&why);
        return;
    }
    if let Some(queue) = ctx.session.multi.as_mut() {
        queue.failed = true;
    }
    ctx.out.error(&reason.reply_bytes());
}

/// Runs one command, be it a client's own or one inside EXEC or a script, and logs its effect if it changed anything. An error becomes
/// its reply, and all that the handler wrote is taken back.
pub fn call(ctx: &mut Ctx<'_>, command: &'static Command, args: &[&[u8]]) -> Outcome {
    ctx.calls += 1;
    let writes = command.flags.has(Flags::WRITE);
    if ctx.origin == Origin::Client && !command.flags.has(Flags::NO_TOUCH) {
        let db = ctx.session.db;
        command.keys.each(args, |index| ctx.shared.accesses.note(db, args[index], ctx.now));
    }
    let looks = ctx.rows.can_write() && command.flags.has(Flags::READONLY);
    if (writes || looks)
        && let Err(error) = expire_due_keys(ctx, command, args)
    {
        fail(ctx, &error);
        return Outcome::Done;
    }
    let reply_start = ctx.out.len();
    let dirty_before = std::mem::take(&mut ctx.dirty);
    let effects_before = ctx.effects;
    ctx.effects.explicit = false;
    let savepoint = writes.then(|| ctx.rows.transaction().savepoint());
    let result = (command.handler)(ctx, args).and_then(|outcome| {
        if writes && ctx.dirty > 0 && !ctx.effects.explicit {
            ctx.log_effect(ctx.session.db, args);
        }
        // Found now, it is this command's failure, and not that of all whose commands share the commit.
        let fits = !writes || ctx.rows.transaction().has_room();
        fits.then_some(outcome).ok_or(error::TOO_LARGE)
    });
    let outcome = match result {
        Ok(outcome) => {
            if let Some(savepoint) = savepoint {
                ctx.rows.transaction().release(savepoint);
            }
            outcome
        }
        Err(error) => {
            if let Some(savepoint) = savepoint {
                ctx.rows.transaction().rollback_to(savepoint);
                ctx.effects = effects_before;
            }
            ctx.dirty = 0;
            ctx.out.truncate(reply_start);
            fail(ctx, &error);
            Outcome::Done
        }
    };
    ctx.dirty += dirty_before;
    ctx.effects.explicit = effects_before.explicit;
    outcome
}

fn fail(ctx: &mut Ctx<'_>, error: &CmdError) {
    match error {
        CmdError::Engine(error) => ctx.at_fault(Fault::Engine(error.clone())),
        CmdError::Corrupt(what) => {
            let corruption = EngineError { corruption: true, ..EngineError::new("understand a row", what) };
            ctx.at_fault(Fault::Engine(corruption));
        }
        CmdError::Reply(_) | CmdError::Bytes(_) => {}
    }
    ctx.shared.stats.errors.add(1);
    ctx.out.error(&error.reply_bytes());
}

/// Deletes those of the command's keys whose time has come, and logs that, so that the command and every replica see the same data.
fn expire_due_keys(ctx: &mut Ctx<'_>, command: &Command, args: &[&[u8]]) -> Result<(), CmdError> {
    let gates = &ctx.shared.gates;
    if ctx.origin != Origin::Client || gates.is_replica.load(Ordering::Relaxed) {
        return Ok(());
    }
    if !command.flags.has(Flags::WRITE) && gates.log_rests.load(Ordering::Relaxed) {
        return Ok(());
    }
    if ctx.rows.expiry_count(ctx.session.db) == 0 {
        return Ok(());
    }
    let mut result = Ok(());
    command.keys.each(args, |index| {
        if result.is_ok() {
            result = delete_if_due(ctx, ctx.session.db, args[index]).map(|_| ());
        }
    });
    result
}

/// Deletes the key if its time has come, logs the DEL and publishes the event. Whether it did. The active expiry job calls it too.
pub fn delete_if_due(ctx: &mut Ctx<'_>, db: u32, key: &[u8]) -> Result<bool, CmdError> {
    let at = ctx.at_db(db, key);
    if !keyspace::delete_if_due(&mut ctx.rows, &at)? {
        return Ok(false);
    }
    let dirty = ctx.dirty;
    ctx.modified_db(db, key);
    ctx.dirty = dirty;
    ctx.log_effect(db, &[b"DEL", key]);
    ctx.shared.stats.expired.add(1);
    ctx.notify_db(Events::EXPIRED, "expired", db, key);
    Ok(true)
}
