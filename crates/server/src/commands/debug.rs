//! DEBUG: what tests need to look inside or to make things happen now.

use std::fs::File;
use std::io::BufReader;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_base::glob::{self, Case};
use ardb_base::number::{i64_text, parse_f64, parse_i64};
use ardb_commands::cmd::{args as parse, help};
use ardb_commands::persist::load::{Existing, Loader, Within};
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, dispatch, error};
use ardb_engine::RowsMut;
use ardb_node::digest;
use ardb_rdb::{Options, Reader};
use ardb_types::keyspace;

use super::save;
use crate::clock;
use crate::server::{self, Server};

fn allowed(ctx: &Ctx<'_>) -> Result<(), CmdError> {
    let server = server::of(ctx.host);
    let who = server.config.bytes("enable-debug-command");
    let local = || server.clients.get(ctx.session.id).is_some_and(|client| client.local);
    if who == b"yes" || (who == b"local" && local()) {
        return Ok(());
    }
    Err(CmdError::text(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
         connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    ))
}

fn sleep(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let seconds = parse_f64(args[2]).ok_or(error::NOT_FLOAT)?;
    // A day is more than anyone means.
    std::thread::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)));
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn set_active_expire(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let on = parse::int(args[2])? != 0;
    ctx.shared.settings.active_expire.store(on, Ordering::Relaxed);
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn network_threads(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let server = server::of(ctx.host);
    let many = usize::try_from(parse::int(args[2])?).unwrap_or(0);
    if server.config.int("io-threads") == 0 || many == 0 || many > server.threads().len() {
        return Err(CmdError::text("ERR there are as many as the load wants, or not so many"));
    }
    server.balance.set(many);
    server.look_again();
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Runs another command and takes its reply back out of the buffer.
fn reply_of(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> Result<Vec<u8>, CmdError> {
    let command = dispatch::resolve(&ctx.shared.table, args)?;
    let start = ctx.out.len();
    dispatch::call(ctx, command, args);
    let reply = ctx.out.bytes()[start..].to_vec();
    ctx.out.truncate(start);
    Ok(reply)
}

/// The text of a bulk string reply.
fn bulk_text(reply: &[u8]) -> &[u8] {
    let start = reply.iter().position(|&b| b == b'\n').map_or(reply.len(), |at| at + 1);
    reply[start..].strip_suffix(b"\r\n").unwrap_or(&reply[start..])
}

fn object(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    // A key that has expired and waits for its DEL is there too.
    let Some(row) = keyspace::lookup_raw(&ctx.rows, &ctx.at(args[2]))? else { return Err(error::NO_SUCH_KEY) };
    if keyspace::is_due(&row, ctx.now) {
        ctx.out.simple("Value expired and not yet deleted");
        return Ok(Outcome::Done);
    }
    let encoding = reply_of(ctx, &[b"OBJECT", b"ENCODING", args[2]])?;
    let dump = reply_of(ctx, &[b"DUMP", args[2]])?;
    // A payload ends in two bytes of version and eight of checksum, and begins with the type.
    let len = bulk_text(&dump).len().saturating_sub(11);
    ctx.out.simple(&format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{len} lru:0 lru_seconds_idle:0",
        String::from_utf8_lossy(bulk_text(&encoding))
    ));
    Ok(Outcome::Done)
}

fn digest_all(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let sum = digest::all(&ctx.rows, ctx.shared.settings.databases)?;
    ctx.out.simple(&sum.hex());
    Ok(Outcome::Done)
}

fn digest_value(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let mut sums = Vec::new();
    for key in &args[2..] {
        sums.push(match keyspace::lookup(&ctx.rows, &ctx.at(key))? {
            Some(row) => digest::value(&ctx.rows, &row, digest::Sum::default())?,
            None => digest::Sum::default(),
        });
    }
    ctx.out.array(sums.len());
    for sum in sums {
        ctx.out.simple(&sum.hex());
    }
    Ok(Outcome::Done)
}

/// Writes an RDB file, forgets all data and loads the file. Clients see nothing of it but the time that it takes.
fn reload(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let (mut flush, mut write) = (true, true);
    for arg in &args[2..] {
        match arg.to_ascii_lowercase().as_slice() {
            b"noflush" => flush = false,
            b"nosave" => write = false,
            b"merge" => {}
            _ => return Err(CmdError::text("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")),
        }
    }
    let server = server::of(ctx.host);
    if write {
        save::save(server).map_err(|error| CmdError::text(format!("ERR {error}")))?;
    }
    load(server, flush).map_err(|why| {
        log::warn!("DEBUG RELOAD: {why}");
        CmdError::text("ERR Error trying to load the RDB dump, check server logs.")
    })?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn load(server: &Server, flush: bool) -> Result<(), String> {
    let file = File::open(server.config.rdb_path()).map_err(|error| error.to_string())?;
    let databases = server.shared.settings.databases;
    let mut txn = server.store.write();
    txn.frame().time = Some(clock::unix_ms());
    if flush {
        (0..databases).for_each(|db| txn.flush(db));
    }
    {
        let limits = server.shared.settings.limits();
        let mut sink = Loader::new(Within(&mut txn), databases, limits, Existing::Replace);
        Reader::new(BufReader::new(file), Options::default()).read(&mut sink).map_err(|error| error.to_string())?;
    }
    // No effect is logged: what the log says is what was saved and loaded.
    txn.commit().map(|_| ()).map_err(|error| error.to_string())
}

/// DEBUG POPULATE count [prefix] [size]
fn populate(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    ctx.no_effect();
    let count = parse_i64(args[2]).filter(|&n| n >= 0).ok_or(error::MUST_BE_POSITIVE)?;
    let prefix = args.get(3).copied().unwrap_or(b"key");
    let size = match args.get(4) {
        None => 0,
        Some(text) => parse_i64(text).filter(|&n| n >= 0).ok_or(error::MUST_BE_POSITIVE)?,
    };
    let most = ctx.shared.settings.max_bulk.load(Ordering::Relaxed);
    let size = usize::try_from(size).ok().filter(|&size| size as u64 <= most).ok_or(error::STRING_TOO_LONG)?;
    let command = dispatch::resolve(&ctx.shared.table, &[b"SETNX", b"", b""])?;
    let (mut key, mut text) = (Vec::new(), Vec::new());
    for i in 0..count {
        key.clear();
        key.extend_from_slice(prefix);
        key.push(b':');
        key.extend_from_slice(&i64_text(i));
        text.clear();
        text.extend_from_slice(b"value:");
        text.extend_from_slice(&i64_text(i));
        if size > 0 {
            text.resize(size, 0);
        }
        let start = ctx.out.len();
        ctx.depth += 1;
        dispatch::call(ctx, command, &[b"SETNX", &key, &text]);
        ctx.depth -= 1;
        ctx.out.truncate(start);
    }
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn stringmatch_len(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let len = parse::int(args[2])?.clamp(0, 512 << 20) as usize;
    let matched = glob::matches(args[3], &vec![b'x'; len], Case::Sensitive);
    ctx.out.int(i64::from(matched));
    Ok(Outcome::Done)
}

fn log_line(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    log::warn!("DEBUG LOG: {}", String::from_utf8_lossy(args[2]));
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn error_reply(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    Err(CmdError::Bytes(args[2].to_vec()))
}

/// DEBUG PROTOCOL type: one reply of each kind, for tests of clients.
fn protocol(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    allowed(ctx)?;
    let out = &mut *ctx.out;
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.int(12345),
        b"double" => out.double_text(b"3.141"),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"map" => {
            out.map(3);
            for n in 0..3 {
                out.int(n);
                out.boolean(n == 1);
            }
        }
        b"true" => out.boolean(true),
        b"false" => out.boolean(false),
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(CmdError::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|null|array|set|map|true|false|verbatim",
            ));
        }
    }
    Ok(Outcome::Done)
}

const FLAGS: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    handler: ardb_commands::table::Handler,
    help: &'static str,
) -> Command {
    Command::new(name, arity, flags, Keys::None, Group::Server, handler).doc("1.0.0", help)
}

const SUBCOMMANDS: &[Command] = &[
    sub("digest", 2, FLAGS, digest_all, "Returns a sum over all data"),
    sub("digest-value", -2, FLAGS, digest_value, "Returns a sum over each value"),
    sub("error", 3, FLAGS, error_reply, "Replies an error"),
    sub("log", 3, FLAGS, log_line, "Writes a line to the log"),
    sub("object", 3, FLAGS, object, "Shows how a value is stored"),
    sub(
        "network-threads",
        3,
        FLAGS,
        network_threads,
        "Says how many network threads serve clients, if `io-threads` is not 0",
    ),
    sub("populate", -3, FLAGS.with(Flags::WRITE), populate, "Makes keys"),
    sub("protocol", 3, FLAGS, protocol, "Replies one of each kind"),
    sub("reload", -2, FLAGS.with(Flags::NO_MULTI).with(Flags::UNLOCKED), reload, "Saves the data and loads them again"),
    sub("set-active-expire", 3, FLAGS, set_active_expire, "Turns the background deletion of expired keys on or off"),
    sub("sleep", 3, FLAGS.with(Flags::EXCLUSIVE), sleep, "Holds up writers and one network thread"),
    sub("stringmatch-len", 4, FLAGS, stringmatch_len, "Matches a pattern against a long string"),
];

/// The rows.
pub const COMMANDS: &[Command] = &[Command::new("debug", -2, FLAGS, Keys::None, Group::Server, help::reply)
    .doc("1.0.0", "Commands for tests")
    .subcommands(SUBCOMMANDS)];
