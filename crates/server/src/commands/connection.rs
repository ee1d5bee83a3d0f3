//! Commands about the connection itself: PING, ECHO, SELECT, AUTH, HELLO, RESET, QUIT.

use std::sync::atomic::Ordering;

use ardb_base::number::parse_i64;
use ardb_commands::cmd::{args, multi, pubsub};
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, dispatch, error};
use ardb_resp::Protocol;

use super::info::REDIS_VERSION;
use crate::clients::reply_mode;
use crate::server;

fn ping(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 2 {
        return Err(dispatch::wrong_arity("ping"));
    }
    if ctx.session.in_pubsub() && !ctx.out.is_resp3() {
        ctx.out.array(2);
        ctx.out.bulk(b"pong");
        ctx.out.bulk(args.get(1).copied().unwrap_or(b""));
    } else if let Some(text) = args.get(1) {
        ctx.out.bulk(text);
    } else {
        ctx.out.simple("PONG");
    }
    Ok(Outcome::Done)
}

fn echo(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    ctx.out.bulk(args[1]);
    Ok(Outcome::Done)
}

fn select(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let db = parse_i64(args[1]).ok_or(error::NOT_INTEGER)?;
    // Redis reads an int of 32 bits here, and says so.
    let db = i32::try_from(db)
        .map_err(|_| CmdError::text("ERR value is out of range, value must between -2147483648 and 2147483647"))?;
    match u32::try_from(db) {
        Ok(db) if db < ctx.shared.settings.databases => {
            ctx.session.db = db;
            ctx.out.ok();
            Ok(Outcome::Done)
        }
        _ => Err(error::DB_OUT_OF_RANGE),
    }
}

/// Compares without telling by the time taken how much was right.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let mut differ = a.len() ^ b.len();
    for i in 0..a.len().max(b.len()) {
        differ |= usize::from(a.get(i).copied().unwrap_or(0) ^ b.get(i).copied().unwrap_or(0));
    }
    differ == 0
}

fn authenticate(ctx: &mut Ctx<'_>, user: &[u8], password: &[u8]) -> Result<(), CmdError> {
    let secret = server::of(ctx.host).config.bytes("requirepass");
    if user == b"default" && (secret.is_empty() || same_secret(&secret, password)) {
        ctx.session.authenticated = true;
        return Ok(());
    }
    Err(error::WRONG_PASS)
}

fn auth(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let (user, password) = match args {
        [_, password] => {
            if server::of(ctx.host).config.bytes("requirepass").is_empty() {
                return Err(CmdError::text(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            (&b"default"[..], *password)
        }
        [_, user, password] => (*user, *password),
        _ => return Err(error::SYNTAX),
    };
    authenticate(ctx, user, password)?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Whether a client's name can stand in a list of words.
pub fn valid_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

/// What a client's name must not have.
pub const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn hello(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let protocol = match args.get(1) {
        None => None,
        Some(text) => match parse_i64(text) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => return Err(CmdError::text("NOPROTO unsupported protocol version")),
            None => return Err(CmdError::text("ERR Protocol version is not an integer or out of range")),
        },
    };
    let (mut login, mut name) = (None, None);
    let mut i = 2;
    while i < args.len() {
        let more = args.len() - i - 1;
        if args::is(args[i], "auth") && more >= 2 {
            login = Some((args[i + 1], args[i + 2]));
            i += 3;
        } else if args::is(args[i], "setname") && more >= 1 {
            name = Some(args[i + 1]);
            i += 2;
        } else {
            let mut text = b"ERR Syntax error in HELLO option '".to_vec();
            text.extend_from_slice(args[i]);
            text.push(b'\'');
            return Err(CmdError::Bytes(text));
        }
    }
    if let Some((user, password)) = login {
        authenticate(ctx, user, password)?;
    }
    if ctx.shared.gates.needs_auth.load(Ordering::Relaxed) && !ctx.session.authenticated {
        return Err(CmdError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        if !valid_name(name) {
            return Err(CmdError::text(BAD_NAME));
        }
        ctx.session.name = name.to_vec();
    }
    if let Some(protocol) = protocol {
        ctx.session.protocol = protocol;
        ctx.out.set_protocol(protocol);
    }
    let replica = ctx.shared.gates.is_replica.load(Ordering::Relaxed);
    ctx.out.map(7);
    ctx.out.bulk(b"server");
    ctx.out.bulk(b"redis");
    ctx.out.bulk(b"version");
    ctx.out.bulk(REDIS_VERSION.as_bytes());
    ctx.out.bulk(b"proto");
    ctx.out.int(if ctx.out.is_resp3() { 3 } else { 2 });
    ctx.out.bulk(b"id");
    ctx.out.size(ctx.session.id);
    ctx.out.bulk(b"mode");
    ctx.out.bulk(b"standalone");
    ctx.out.bulk(b"role");
    ctx.out.bulk(if replica { b"replica" } else { b"master" });
    ctx.out.bulk(b"modules");
    ctx.out.array(0);
    Ok(Outcome::Done)
}

fn reset(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let server = server::of(ctx.host);
    pubsub::leave(ctx.session, ctx.shared);
    multi::unwatch_all(ctx.session, ctx.shared);
    ctx.session.multi = None;
    ctx.session.db = 0;
    ctx.session.name.clear();
    ctx.session.authenticated = false;
    ctx.session.protocol = Protocol::Resp2;
    ctx.out.set_protocol(Protocol::Resp2);
    if std::mem::take(&mut ctx.session.monitor) {
        server.clients.monitors.fetch_sub(1, Ordering::SeqCst);
    }
    if let Some(info) = server.clients.get(ctx.session.id) {
        info.reply_mode.store(reply_mode::ON, Ordering::Relaxed);
        info.no_evict.store(false, Ordering::Relaxed);
        info.view.lock().monitor = false;
    }
    ctx.out.simple("RESET");
    Ok(Outcome::Done)
}

fn quit(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.session.close_after_reply = true;
    ctx.out.ok();
    Ok(Outcome::Done)
}

const ANYTIME: Flags = Flags::NOSCRIPT
    .with(Flags::LOADING)
    .with(Flags::STALE)
    .with(Flags::FAST)
    .with(Flags::NO_AUTH)
    .with(Flags::ALLOW_BUSY);

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command::new("ping", -1, Flags::FAST, Keys::None, Group::Connection, ping).doc("1.0.0", "Pings the server"),
    Command::new("echo", 2, Flags::LOADING.with(Flags::STALE).with(Flags::FAST), Keys::None, Group::Connection, echo)
        .doc("1.0.0", "Returns the given string"),
    Command::new(
        "select",
        2,
        Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
        Keys::None,
        Group::Connection,
        select,
    )
    .doc("1.0.0", "Changes the selected database"),
    Command::new("auth", -2, ANYTIME, Keys::None, Group::Connection, auth).doc("1.0.0", "Authenticates the connection"),
    Command::new("hello", -1, ANYTIME, Keys::None, Group::Connection, hello).doc("6.0.0", "Handshakes with the server"),
    Command::new("reset", 1, ANYTIME, Keys::None, Group::Connection, reset).doc("6.2.0", "Resets the connection"),
    Command::new("quit", -1, ANYTIME, Keys::None, Group::Connection, quit).doc("1.0.0", "Closes the connection"),
];
