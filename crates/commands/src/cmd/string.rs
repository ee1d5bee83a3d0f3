//! Strings (to be written whole; GET shows the form of a handler).

use crate::context::Ctx;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// GET key
fn get(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let at = ctx.at(args[1]);
    match ardb_types::string::get(&ctx.rows, &at)? {
        Some(value) => ctx.out.bulk(&value),
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] =
    &[Command::new("get", 2, Flags::READONLY.with(Flags::FAST), Keys::ONE, Group::String, get)
        .doc("1.0.0", "Get the value of a key")];
