//! Commands for those who run the server: SHUTDOWN, MONITOR, SLOWLOG, LATENCY, MEMORY, TIME.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use ardb_base::number::parse_i64;
use ardb_commands::cmd::{args as parse, help};
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, error};
use ardb_types::value::{Item, each_item};
use ardb_types::{Kind, keyspace};

use super::save;
use crate::clock;
use crate::server::{self, Shutdown};

fn shutdown(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut how = Shutdown::default();
    let (mut abort, mut no_save) = (false, false);
    for arg in &args[1..] {
        match arg.to_ascii_lowercase().as_slice() {
            b"nosave" if !how.save => no_save = true,
            b"save" if !no_save => how.save = true,
            b"now" => how.now = true,
            b"force" => how.force = true,
            b"abort" => abort = true,
            _ => return Err(error::SYNTAX),
        }
    }
    if abort && args.len() > 2 {
        return Err(error::SYNTAX);
    }
    if ctx.session.deny_blocking && !abort {
        return Err(CmdError::text("ERR SHUTDOWN without NOW or ABORT isn't allowed for DENY BLOCKING client"));
    }
    if abort {
        return Err(CmdError::text("ERR No shutdown in progress."));
    }
    let server = server::of(ctx.host);
    if !no_save && ctx.shared.gates.busy_script.load(Ordering::Relaxed) {
        return Err(error::BUSY_SCRIPT);
    }
    log::warn!("User requested shutdown...");
    how.drop_script = no_save || how.now;
    if how.save
        && let Err(error) = save::save(server)
    {
        log::warn!("Error trying to save the DB: {error}");
        if !how.force {
            return Err(CmdError::text("ERR Errors trying to SHUTDOWN. Check logs."));
        }
    }
    // Nobody is told: the connection's end says that it has begun.
    server.shut_down(how);
    Ok(Outcome::Done)
}

fn monitor(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    if ctx.session.deny_blocking {
        return Err(CmdError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    let server = server::of(ctx.host);
    if !ctx.session.monitor {
        ctx.session.monitor = true;
        if let Some(info) = server.clients.get(ctx.session.id) {
            info.view.lock().monitor = true;
            server.clients.monitors.fetch_add(1, Ordering::SeqCst);
        }
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn slowlog_get(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let count = match args.get(2) {
        None => Some(10),
        Some(text) => match parse_i64(text) {
            Some(-1) => None,
            Some(n) => Some(
                usize::try_from(n).map_err(|_| CmdError::text("ERR count should be greater than or equal to -1"))?,
            ),
            None => return Err(CmdError::text("ERR count should be greater than or equal to -1")),
        },
    };
    let entries = server::of(ctx.host).slowlog.newest(count);
    ctx.out.array(entries.len());
    for entry in entries {
        ctx.out.array(6);
        ctx.out.size(entry.id);
        ctx.out.int(entry.at);
        ctx.out.size(entry.took);
        ctx.out.array(entry.args.len());
        for arg in &entry.args {
            ctx.out.bulk(arg);
        }
        ctx.out.bulk(entry.addr.as_bytes());
        ctx.out.bulk(&entry.name);
    }
    Ok(Outcome::Done)
}

fn slowlog_len(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.size(server::of(ctx.host).slowlog.len() as u64);
    Ok(Outcome::Done)
}

fn slowlog_reset(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    server::of(ctx.host).slowlog.reset();
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn time(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let now = clock::unix_us();
    ctx.out.array(2);
    ctx.out.bulk_int(now / 1_000_000);
    ctx.out.bulk_int(now % 1_000_000);
    Ok(Outcome::Done)
}

fn memory_doctor(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let server = server::of(ctx.host);
    let (resident, _) = super::info::resident();
    let limit = server.config.size("memory-limit");
    let text = if resident > limit.saturating_mul(2) {
        format!(
            "The process holds {resident} bytes, more than twice memory-limit ({limit}). INFO memory says what holds them."
        )
    } else {
        format!("The process holds {resident} bytes; memory-limit is {limit}. Nothing is wrong.")
    };
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(Outcome::Done)
}

/// MEMORY USAGE key [SAMPLES count]: bytes of the rows that hold the key and its value, from the mean of so many items (0: all).
fn memory_usage(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    /// What a row costs besides its own bytes: the rest of its name, and its place in a table.
    const ROW: u64 = 48;
    /// An element's share of that, of many in a row, and its length.
    const SHARE: u64 = 4;
    let samples = match args {
        [_, _, _] => 5,
        [_, _, _, option, count] if parse::is(option, "samples") => {
            parse_i64(count).and_then(|n| u64::try_from(n).ok()).ok_or(error::SYNTAX)?
        }
        _ => return Err(error::SYNTAX),
    };
    let Some(row) = keyspace::lookup(&ctx.rows, &ctx.at(args[2]))? else {
        ctx.out.null();
        return Ok(Outcome::Done);
    };
    let own = ROW + args[2].len() as u64 + row.extra().len() as u64;
    let bytes = if row.kind() == Kind::String {
        row.size()
    } else {
        let (mut seen, mut bytes) = (0u64, 0u64);
        each_item(&ctx.rows, &row, &mut |item| {
            seen += 1;
            bytes += match item {
                Item::Element(bytes) if row.kind() == Kind::List => SHARE + bytes.len() as u64,
                Item::Piece(bytes) | Item::Element(bytes) => ROW + bytes.len() as u64,
                Item::Field(field, value) => ROW + (field.len() + value.len()) as u64,
                // A member has one row by name and one by score.
                Item::Scored(member, _) => 2 * (ROW + member.len() as u64),
            };
            if seen == samples { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        (bytes as f64 / seen.max(1) as f64 * row.size() as f64) as u64
    };
    ctx.out.size(own + bytes);
    Ok(Outcome::Done)
}

fn latency_empty(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.array(0);
    Ok(Outcome::Done)
}

fn latency_reset(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.int(0);
    Ok(Outcome::Done)
}

fn lolwut(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 1 && !(args.len() == 3 && parse::is(args[1], "version")) {
        return Err(error::SYNTAX);
    }
    ctx.out.verbatim("txt", format!("Ardb {}\n", crate::VERSION).as_bytes());
    Ok(Outcome::Done)
}

const ADMIN: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);
const QUICK: Flags = Flags::LOADING.with(Flags::STALE).with(Flags::FAST);

const SLOWLOG: &[Command] = &[
    Command::new("get", -2, ADMIN, Keys::None, Group::Server, slowlog_get)
        .doc("2.2.12", "Returns entries of the slow log"),
    Command::new("len", 2, ADMIN, Keys::None, Group::Server, slowlog_len)
        .doc("2.2.12", "Counts the entries of the slow log"),
    Command::new("reset", 2, ADMIN, Keys::None, Group::Server, slowlog_reset).doc("2.2.12", "Empties the slow log"),
];

const MEMORY: &[Command] = &[
    Command::new("doctor", 2, Flags::NONE, Keys::None, Group::Server, memory_doctor)
        .doc("4.0.0", "Says whether memory is in order"),
    Command::new("usage", -3, Flags::READONLY, Keys::Range { first: 2, last: 2, step: 1 }, Group::Server, memory_usage)
        .doc("4.0.0", "Estimates the bytes that a key and its value take"),
];

const LATENCY: &[Command] = &[
    Command::new("history", 3, ADMIN, Keys::None, Group::Server, latency_empty)
        .doc("2.8.13", "Returns the samples of an event; none are kept"),
    Command::new("latest", 2, ADMIN, Keys::None, Group::Server, latency_empty)
        .doc("2.8.13", "Returns the latest samples; none are kept"),
    Command::new("reset", -2, ADMIN, Keys::None, Group::Server, latency_reset).doc("2.8.13", "Forgets samples"),
];

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command::new(
        "shutdown",
        -1,
        // With SAVE it takes the writer lock.
        ADMIN.with(Flags::NO_MULTI).with(Flags::ALLOW_BUSY).with(Flags::UNLOCKED),
        Keys::None,
        Group::Server,
        shutdown,
    )
    .doc("1.0.0", "Ends the server"),
    Command::new("monitor", 1, ADMIN, Keys::None, Group::Server, monitor)
        .doc("1.0.0", "Shows all commands as they come"),
    Command::new("slowlog", -2, Flags::NONE, Keys::None, Group::Server, help::reply)
        .doc("2.2.12", "Commands about the slow log")
        .subcommands(SLOWLOG),
    Command::new("memory", -2, Flags::NONE, Keys::None, Group::Server, help::reply)
        .doc("4.0.0", "Commands about memory")
        .subcommands(MEMORY),
    Command::new("latency", -2, Flags::NONE, Keys::None, Group::Server, help::reply)
        .doc("2.8.13", "Commands about slow events")
        .subcommands(LATENCY),
    Command::new("time", 1, QUICK, Keys::None, Group::Server, time).doc("2.6.0", "Returns the server's time"),
    Command::new("lolwut", -1, Flags::READONLY.with(Flags::FAST), Keys::None, Group::Server, lolwut)
        .doc("5.0.0", "Returns the server's version"),
];
