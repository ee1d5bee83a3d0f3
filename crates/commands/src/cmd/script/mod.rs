//! EVAL, EVALSHA, EVAL_RO, EVALSHA_RO and SCRIPT: Lua 5.1 scripts with Redis 7.0's semantics and texts.
//!
//! Scripts run one at a time, under the writer lock. What they call is logged command by command, several of them between MULTI and EXEC;
//! the script itself never is.

mod api;
mod arguments;
mod bits;
mod cache;
mod convert;
mod interpreter;
mod json;
mod json_decode;
#[cfg(test)]
mod library_tests;
mod msgpack;
mod random;
mod raw;
mod run;
mod shebang;
mod structs;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use sha1::{Digest, Sha1};

pub use cache::Scripts;
use cache::{Cache, Sha};

use crate::context::Ctx;
use crate::error::CmdError;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// The SHA1 of `bytes` in hexadecimal digits.
fn sha1_hex(bytes: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 40];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

/// EVAL script numkeys [key ...] [arg ...]
fn eval(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run::eval(ctx, args, false, false)
}

/// EVAL_RO script numkeys [key ...] [arg ...]
fn eval_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run::eval(ctx, args, false, true)
}

/// EVALSHA sha1 numkeys [key ...] [arg ...]
fn evalsha(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run::eval(ctx, args, true, false)
}

/// EVALSHA_RO sha1 numkeys [key ...] [arg ...]
fn evalsha_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run::eval(ctx, args, true, true)
}

/// SCRIPT LOAD script
fn load(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let sha = sha1_hex(args[2]);
    run::compile(ctx.shared, args[2], &sha)?;
    ctx.shared.scripts.cache.lock().keep(&sha);
    ctx.out.bulk(&sha);
    Ok(Outcome::Done)
}

/// SCRIPT EXISTS sha1 [sha1 ...]
fn exists(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    ctx.out.array(args.len() - 2);
    let cache = ctx.shared.scripts.cache.lock();
    for name in &args[2..] {
        let sha: Option<Sha> = (*name).try_into().ok();
        let known = sha.is_some_and(|mut sha| {
            sha.make_ascii_lowercase();
            cache.contains(&sha)
        });
        ctx.out.int(i64::from(known));
    }
    Ok(Outcome::Done)
}

/// SCRIPT FLUSH [ASYNC|SYNC]
fn flush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mode_known =
        args.get(2).is_none_or(|mode| mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async"));
    if args.len() > 3 || !mode_known {
        return Err(CmdError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    let scripts = &ctx.shared.scripts;
    let mut interpreter = scripts.interpreter.lock();
    *scripts.cache.lock() = Cache::default();
    *interpreter = None;
    scripts.memory.store(0, Ordering::Relaxed);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// SCRIPT KILL: runs beside the script, without the writer lock.
fn kill(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    let control = &ctx.shared.scripts.control;
    if !control.running.load(Ordering::SeqCst) {
        return Err(CmdError::text("NOTBUSY No scripts in execution right now."));
    }
    if control.from_stream.load(Ordering::SeqCst) {
        return Err(CmdError::text(
            "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be killed.",
        ));
    }
    if control.wrote.load(Ordering::SeqCst) {
        return Err(CmdError::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
             script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        ));
    }
    ctx.shared.gates.kill_script.store(true, Ordering::SeqCst);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// SCRIPT DEBUG YES|SYNC|NO: there is no debugger to switch on.
fn debug(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mode = args[2];
    if mode.eq_ignore_ascii_case(b"no") {
        ctx.out.ok();
        return Ok(Outcome::Done);
    }
    if mode.eq_ignore_ascii_case(b"yes") || mode.eq_ignore_ascii_case(b"sync") {
        return Err(CmdError::text("ERR this server has no debugger for scripts"));
    }
    Err(CmdError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

const EVAL: Flags = Flags::NOSCRIPT
    .with(Flags::SKIP_MONITOR)
    .with(Flags::STALE)
    .with(Flags::MOVABLEKEYS)
    .with(Flags::EXCLUSIVE)
    .with(Flags::MAY_REPLICATE);
const EVAL_RO: Flags = Flags::NOSCRIPT
    .with(Flags::SKIP_MONITOR)
    .with(Flags::STALE)
    .with(Flags::READONLY)
    .with(Flags::MOVABLEKEYS)
    .with(Flags::EXCLUSIVE);
const NUMKEYS: Keys = Keys::Numkeys { at: 2, dest: 0 };
/// What compiles or forgets scripts does so between two commits, as those that run them.
const CHANGES_CACHE: Flags = Flags::NOSCRIPT.with(Flags::STALE).with(Flags::EXCLUSIVE);

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::Scripting, handler)
}

const SUBCOMMANDS: &[Command] = &[
    row("debug", 3, Flags::NOSCRIPT, Keys::None, debug).doc("3.2.0", "Set the debug mode for executed scripts"),
    row("exists", -3, Flags::NOSCRIPT.with(Flags::STALE), Keys::None, exists)
        .doc("2.6.0", "Check existence of scripts in the script cache"),
    row("flush", -2, CHANGES_CACHE, Keys::None, flush).doc("2.6.0", "Remove all the scripts from the script cache"),
    row("kill", 2, Flags::NOSCRIPT.with(Flags::STALE).with(Flags::ALLOW_BUSY), Keys::None, kill)
        .doc("2.6.0", "Kill the script currently in execution"),
    row("load", 3, CHANGES_CACHE, Keys::None, load).doc("2.6.0", "Load the specified Lua script into the script cache"),
];

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    row("eval", -3, EVAL, NUMKEYS, eval).doc("2.6.0", "Execute a Lua script server side"),
    row("eval_ro", -3, EVAL_RO, NUMKEYS, eval_ro).doc("7.0.0", "Execute a read-only Lua script server side"),
    row("evalsha", -3, EVAL, NUMKEYS, evalsha).doc("2.6.0", "Execute a Lua script server side, by its SHA1"),
    row("evalsha_ro", -3, EVAL_RO, NUMKEYS, evalsha_ro)
        .doc("7.0.0", "Execute a read-only Lua script server side, by its SHA1"),
    row("script", -2, Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE), Keys::None, super::help::reply)
        .doc("2.6.0", "A container for Lua script management commands")
        .subcommands(SUBCOMMANDS),
];
