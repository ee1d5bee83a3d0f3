//! COMMAND: what the table knows about commands.

use ardb_base::glob::{self, Case};
use ardb_commands::cmd::args as parse;
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, error};
use ardb_resp::Reply;

/// The ACL categories of a command, which follow from its flags and its group.
fn categories(command: &Command) -> Vec<&'static str> {
    let flags = command.flags;
    let mut all = Vec::new();
    let mut add = |when: bool, name: &'static str| {
        if when {
            all.push(name);
        }
    };
    let keyed = !matches!(command.keys, Keys::None);
    add(command.group == Group::Generic && keyed, "@keyspace");
    add(flags.has(Flags::READONLY) && keyed, "@read");
    add(flags.has(Flags::WRITE), "@write");
    add(command.group == Group::Set, "@set");
    add(command.group == Group::SortedSet, "@sortedset");
    add(command.group == Group::List, "@list");
    add(command.group == Group::Hash, "@hash");
    add(command.group == Group::String, "@string");
    add(command.group == Group::Bitmap, "@bitmap");
    add(command.group == Group::HyperLogLog, "@hyperloglog");
    add(command.group == Group::Geo, "@geo");
    add(flags.has(Flags::PUBSUB), "@pubsub");
    add(flags.has(Flags::ADMIN), "@admin");
    add(flags.has(Flags::FAST), "@fast");
    add(!flags.has(Flags::FAST), "@slow");
    add(flags.has(Flags::BLOCKING), "@blocking");
    add(flags.has(Flags::ADMIN), "@dangerous");
    add(command.group == Group::Connection, "@connection");
    add(command.group == Group::Transactions, "@transaction");
    add(command.group == Group::Scripting, "@scripting");
    all
}

/// First key, last key and step, as COMMAND shows them.
fn positions(keys: &Keys) -> (i64, i64, i64) {
    match *keys {
        Keys::None | Keys::Custom(_) => (0, 0, 0),
        Keys::Range { first, last, step } => (first as i64, i64::from(last), step as i64),
        Keys::Numkeys { dest: 0, .. } => (0, 0, 0),
        Keys::Numkeys { dest, .. } => (dest as i64, dest as i64, 1),
    }
}

fn key_specs(out: &mut Reply, command: &Command) {
    let Keys::Range { first, last, step } = command.keys else {
        out.array(0);
        return;
    };
    out.array(1);
    out.map(3);
    out.bulk(b"flags");
    out.set(1);
    out.simple(if command.flags.has(Flags::WRITE) { "RW" } else { "RO" });
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.int(first as i64);
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    out.bulk(b"lastkey");
    // Counted from the first key, or from the end.
    out.int(if last < 0 { i64::from(last) } else { i64::from(last) - first as i64 });
    out.bulk(b"keystep");
    out.int(step as i64);
    out.bulk(b"limit");
    out.int(0);
}

fn describe(out: &mut Reply, command: &Command, name: &str) {
    out.array(10);
    out.bulk(name.as_bytes());
    out.int(i64::from(command.arity));
    let mut flags = command.flags.names();
    if matches!(command.keys, Keys::Custom(_) | Keys::Numkeys { .. }) && !flags.contains(&"movablekeys") {
        flags.push("movablekeys");
    }
    out.set(flags.len());
    for flag in flags {
        out.simple(flag);
    }
    let (first, last, step) = positions(&command.keys);
    out.int(first);
    out.int(last);
    out.int(step);
    let categories = categories(command);
    out.set(categories.len());
    for category in categories {
        out.simple(category);
    }
    out.array(0);
    key_specs(out, command);
    out.array(command.subcommands.len());
    for sub in command.subcommands {
        describe(out, sub, &format!("{name}|{}", sub.name));
    }
}

fn all(ctx: &mut Ctx<'_>) {
    let rows = ctx.shared.table.rows();
    ctx.out.array(rows.len());
    for command in rows {
        describe(ctx.out, command, command.name);
    }
}

/// A command by its name, a subcommand by `container|name`.
fn find(ctx: &Ctx<'_>, name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |&b| b == b'|');
    let command = ctx.shared.table.find(parts.next()?)?;
    match parts.next() {
        None => Some(command),
        Some(sub) => command.subcommands.iter().find(|c| c.name.as_bytes().eq_ignore_ascii_case(sub)),
    }
}

fn command(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() == 1 {
        all(ctx);
        return Ok(Outcome::Done);
    }
    ardb_commands::cmd::help::reply(ctx, args)
}

fn count(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.size(ctx.shared.table.rows().len() as u64);
    Ok(Outcome::Done)
}

fn info(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() == 2 {
        all(ctx);
        return Ok(Outcome::Done);
    }
    ctx.out.array(args.len() - 2);
    for name in &args[2..] {
        match find(ctx, name) {
            Some(command) => describe(ctx.out, command, &String::from_utf8_lossy(name).to_ascii_lowercase()),
            None => ctx.out.null_array(),
        }
    }
    Ok(Outcome::Done)
}

fn document(out: &mut Reply, command: &Command, name: &str) {
    out.bulk(name.as_bytes());
    out.map(if command.subcommands.is_empty() { 3 } else { 4 });
    out.bulk(b"summary");
    out.bulk(command.summary.as_bytes());
    out.bulk(b"since");
    out.bulk(command.since.as_bytes());
    out.bulk(b"group");
    out.bulk(command.group.name().as_bytes());
    if !command.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(command.subcommands.len());
        for sub in command.subcommands {
            document(out, sub, &format!("{name}|{}", sub.name));
        }
    }
}

fn docs(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let chosen: Vec<(&Command, String)> = if args.len() == 2 {
        ctx.shared.table.rows().iter().map(|command| (*command, command.name.to_string())).collect()
    } else {
        let named = |name: &&[u8]| Some((find(ctx, name)?, String::from_utf8_lossy(name).to_ascii_lowercase()));
        args[2..].iter().filter_map(named).collect()
    };
    ctx.out.map(chosen.len());
    for (command, name) in chosen {
        document(ctx.out, command, &name);
    }
    Ok(Outcome::Done)
}

fn list(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut names: Vec<String> = Vec::new();
    let mut add = |keep: &dyn Fn(&Command, &str) -> bool| {
        for command in ctx.shared.table.rows() {
            if keep(command, command.name) {
                names.push(command.name.to_string());
            }
            for sub in command.subcommands {
                let name = format!("{}|{}", command.name, sub.name);
                if keep(sub, &name) {
                    names.push(name);
                }
            }
            // HELP is made from the table, and so has no row of its own.
            let help = format!("{}|help", command.name);
            if !command.subcommands.is_empty() && keep(command, &help) {
                names.push(help);
            }
        }
    };
    match args {
        [_, _] => add(&|_, _| true),
        [_, _, filter, kind, what] if parse::is(filter, "filterby") => match kind.to_ascii_lowercase().as_slice() {
            b"module" => {}
            b"aclcat" => {
                add(&|command, _| categories(command).iter().any(|c| c.as_bytes()[1..].eq_ignore_ascii_case(what)))
            }
            b"pattern" => add(&|_, name| glob::matches(what, name.as_bytes(), Case::Ignored)),
            _ => return Err(error::SYNTAX),
        },
        _ => return Err(error::SYNTAX),
    }
    ctx.out.array(names.len());
    for name in names {
        ctx.out.bulk(name.as_bytes());
    }
    Ok(Outcome::Done)
}

fn keys_of<'a>(ctx: &Ctx<'_>, args: &[&'a [u8]]) -> Result<(bool, Vec<&'a [u8]>), CmdError> {
    let command = ardb_commands::dispatch::resolve(&ctx.shared.table, &args[2..]).map_err(|_| {
        match ctx.shared.table.find(args[2]) {
            Some(_) => CmdError::text("ERR Invalid number of arguments specified for command"),
            None => CmdError::text("ERR Invalid command specified"),
        }
    })?;
    if matches!(command.keys, Keys::None) {
        return Err(CmdError::text("ERR The command has no key arguments"));
    }
    let mut keys = Vec::new();
    command.keys.each(&args[2..], |index| keys.push(args[2 + index]));
    // A script may name no keys; for every other command with a count that makes no sense.
    if keys.is_empty() && matches!(command.keys, Keys::Numkeys { .. }) && command.group != Group::Scripting {
        return Err(CmdError::text("ERR Invalid arguments specified for command"));
    }
    Ok((command.flags.has(Flags::WRITE), keys))
}

fn get_keys(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (_, keys) = keys_of(ctx, args)?;
    ctx.out.array(keys.len());
    for key in keys {
        ctx.out.bulk(key);
    }
    Ok(Outcome::Done)
}

const FLAGS: Flags = Flags::LOADING.with(Flags::STALE);

const SUBCOMMANDS: &[Command] = &[
    Command::new("count", 2, FLAGS, Keys::None, Group::Server, count).doc("2.8.13", "Counts the commands"),
    Command::new("docs", -2, FLAGS, Keys::None, Group::Server, docs).doc("7.0.0", "Returns documentation of commands"),
    Command::new("getkeys", -4, FLAGS, Keys::None, Group::Server, get_keys)
        .doc("2.8.13", "Finds the keys of a command line"),
    Command::new("info", -2, FLAGS, Keys::None, Group::Server, info)
        .doc("2.8.13", "Returns the properties of commands"),
    Command::new("list", -2, FLAGS, Keys::None, Group::Server, list).doc("7.0.0", "Lists the names of commands"),
];

/// The rows.
pub const COMMANDS: &[Command] = &[Command::new("command", -1, FLAGS, Keys::None, Group::Server, command)
    .doc("2.8.13", "Returns the properties of all commands")
    .subcommands(SUBCOMMANDS)];
