//! CONFIG GET, SET, REWRITE and RESETSTAT.

use std::collections::BTreeMap;

use ardb_base::glob::{self, Case};
use ardb_commands::cmd::help;
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, error};

use crate::config::{directives, rewrite};
use crate::server;

fn get(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let config = &server::of(ctx.host).config;
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for pattern in &args[2..] {
        if !pattern.iter().any(|b| b"[*?".contains(b)) {
            // An exact name is shown as it was asked for, old names too.
            if let Some(directive) = directives::find(&String::from_utf8_lossy(pattern)) {
                found.insert(pattern.to_ascii_lowercase(), config.bytes(directive.name));
            }
            continue;
        }
        for directive in directives::all() {
            for name in [directive.name, directive.alias] {
                if !name.is_empty() && glob::matches(pattern, name.as_bytes(), Case::Ignored) {
                    found.insert(name.as_bytes().to_vec(), config.bytes(directive.name));
                }
            }
        }
    }
    ctx.out.map(found.len());
    for (name, value) in found {
        ctx.out.bulk(&name);
        ctx.out.bulk(&value);
    }
    Ok(Outcome::Done)
}

fn set(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let pairs: Vec<(&[u8], &[u8])> = match args[2..].as_chunks::<2>() {
        (pairs, []) => pairs.iter().map(|[name, value]| (*name, *value)).collect(),
        _ => return Err(error::SYNTAX),
    };
    let server = server::of(ctx.host);
    let changed = server.config.set(&pairs).map_err(|error| CmdError::text(format!("ERR {error}")))?;
    for directive in changed.iter().filter(|directive| !directive.used) {
        log::info!("Directive '{}' has no effect: {}", directive.name, directive.help);
    }
    server.apply_config();
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn rewrite(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let config = &server::of(ctx.host).config;
    if config.file().is_none() {
        return Err(CmdError::text("ERR The server is running without a config file"));
    }
    rewrite::rewrite(config).map_err(|why| CmdError::text(format!("ERR Rewriting config file: {why}")))?;
    log::info!("CONFIG REWRITE executed with success.");
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn reset_stat(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let stats = &ctx.shared.stats;
    for counter in [&stats.commands, &stats.hits, &stats.misses, &stats.expired, &stats.errors] {
        counter.reset();
    }
    let server = server::of(ctx.host);
    server.stats.reset();
    server.calls.reset();
    ctx.out.ok();
    Ok(Outcome::Done)
}

const FLAGS: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);

const SUBCOMMANDS: &[Command] = &[
    Command::new("get", -3, FLAGS, Keys::None, Group::Server, get).doc("2.0.0", "Returns the values of directives"),
    Command::new("resetstat", 2, FLAGS, Keys::None, Group::Server, reset_stat).doc("2.0.0", "Resets the statistics"),
    Command::new("rewrite", 2, FLAGS, Keys::None, Group::Server, rewrite)
        .doc("2.8.0", "Writes the values of now to the configuration file"),
    Command::new("set", -4, FLAGS, Keys::None, Group::Server, set).doc("2.0.0", "Sets directives while running"),
];

/// The rows.
pub const COMMANDS: &[Command] = &[Command::new("config", -2, Flags::NONE, Keys::None, Group::Server, help::reply)
    .doc("2.0.0", "Commands about the configuration")
    .subcommands(SUBCOMMANDS)];
