//! FUNCTION, as far as it is true of a server that has no libraries of functions: there are none to list, and none to flush.
//!
//! Clients and test suites call these two to start clean. Whatever would make or call a function is an unknown command.

use super::args::is;
use crate::context::Ctx;
use crate::error;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// FUNCTION FLUSH [ASYNC|SYNC]
fn flush(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    match args {
        [_, _] => {}
        [_, _, mode] if is(mode, "async") || is(mode, "sync") => {}
        _ => return Err(error::SYNTAX),
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]
fn list(ctx: &mut Ctx<'_>, _args: &[&[u8]]) -> CmdResult {
    ctx.out.array(0);
    Ok(Outcome::Done)
}

const FLAGS: Flags = Flags::NOSCRIPT;

const fn row(name: &'static str, arity: i32, handler: crate::table::Handler) -> Command {
    Command::new(name, arity, FLAGS, Keys::None, Group::Scripting, handler)
}

const SUBCOMMANDS: &[Command] = &[
    row("flush", -2, flush).doc("7.0.0", "Delete all libraries (there are none)"),
    row("list", -2, list).doc("7.0.0", "List the libraries (there are none)"),
];

/// The rows of this group.
pub const COMMANDS: &[Command] = &[row("function", -2, super::help::reply)
    .doc("7.0.0", "Libraries of functions, of which there are none")
    .subcommands(SUBCOMMANDS)];
