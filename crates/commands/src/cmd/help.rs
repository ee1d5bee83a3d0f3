//! `HELP` of commands that have subcommands, made from the table.

use crate::context::Ctx;
use crate::dispatch::wrong_arity;
use crate::{CmdResult, Outcome};

/// The handler of every container: a subcommand that is known is run in its place, so only HELP comes here.
pub fn reply(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let Some(command) = ctx.shared.table.find(args[0]) else { return Ok(Outcome::Done) };
    if args.len() > 2 {
        return Err(wrong_arity(&format!("{}|help", command.name)));
    }
    let upper = command.name.to_ascii_uppercase();
    ctx.out.array(2 * command.subcommands.len() + 3);
    ctx.out.simple(&format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for sub in command.subcommands {
        ctx.out.simple(&sub.name.to_ascii_uppercase());
        ctx.out.simple(&format!("    {}.", sub.summary));
    }
    ctx.out.simple("HELP");
    ctx.out.simple("    Print this help.");
    Ok(Outcome::Done)
}
