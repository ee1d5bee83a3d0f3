//! CLIENT: who is connected, and what may be done to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::number::parse_i64;
use ardb_commands::cmd::{args as parse, help};
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, error};

use super::connection::{BAD_NAME, valid_name};
use crate::blocking::{self, Release};
use crate::clients::{Class, ClientInfo, reply_mode};
use crate::clock;
use crate::server::{self, Server};

/// The client at hand, as others see it. It is missing only for commands that come from no client.
fn own(ctx: &Ctx<'_>) -> Result<Arc<ClientInfo>, CmdError> {
    server::of(ctx.host).clients.get(ctx.session.id).ok_or_else(|| CmdError::text("ERR there is no client"))
}

/// Brings the client's own line up to date, which others see only after the burst.
fn publish_own(ctx: &mut Ctx<'_>, command: &'static str) {
    ctx.session.last_command = command;
    if let Some(info) = server::of(ctx.host).clients.get(ctx.session.id) {
        let (input, free, output) = {
            let view = info.view.lock();
            (view.input, view.input_free, view.output)
        };
        info.publish(ctx.session, input, free, output);
    }
}

fn id(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.size(ctx.session.id);
    Ok(Outcome::Done)
}

fn info(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    publish_own(ctx, "client|info");
    let line = own(ctx)?.line(clock::unix_ms()) + "\n";
    ctx.out.verbatim("txt", line.as_bytes());
    Ok(Outcome::Done)
}

fn class(name: &[u8]) -> Result<Class, CmdError> {
    Class::parse(name).ok_or_else(|| CmdError::Bytes([b"ERR Unknown client type '", name, b"'"].concat()))
}

fn list(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    publish_own(ctx, "client|list");
    let clients = &server::of(ctx.host).clients;
    let chosen: Vec<Arc<ClientInfo>> = match args {
        [_, _] => clients.list(),
        [_, _, option, name] if parse::is(option, "type") => {
            let wanted = class(name)?;
            clients.list().into_iter().filter(|client| client.class() == wanted).collect()
        }
        [_, _, option, ids @ ..] if parse::is(option, "id") && !ids.is_empty() => {
            let mut chosen = Vec::new();
            for id in ids {
                let id = parse_i64(id).ok_or_else(|| CmdError::text("ERR Invalid client ID"))?;
                chosen.extend(u64::try_from(id).ok().and_then(|id| clients.get(id)));
            }
            chosen
        }
        _ => return Err(error::SYNTAX),
    };
    let now = clock::unix_ms();
    let mut text = String::new();
    for client in chosen.iter().filter(|client| !client.killed.load(Ordering::Relaxed)) {
        text.push_str(&client.line(now));
        text.push('\n');
    }
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(Outcome::Done)
}

fn set_name(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if !valid_name(args[2]) {
        return Err(CmdError::text(BAD_NAME));
    }
    ctx.session.name = args[2].to_vec();
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn get_name(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let name = Some(ctx.session.name.as_slice()).filter(|name| !name.is_empty());
    ctx.out.bulk_or_null(name);
    Ok(Outcome::Done)
}

fn reply(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let info = own(ctx)?;
    let mode = &info.reply_mode;
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => {
            mode.store(reply_mode::ON, Ordering::Relaxed);
            ctx.out.ok();
        }
        b"off" => mode.store(reply_mode::OFF, Ordering::Relaxed),
        b"skip" => {
            if mode.load(Ordering::Relaxed) != reply_mode::OFF {
                mode.store(reply_mode::SKIP_NEXT, Ordering::Relaxed);
            }
        }
        _ => return Err(error::SYNTAX),
    }
    Ok(Outcome::Done)
}

fn no_evict(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let on = match args[2].to_ascii_lowercase().as_slice() {
        b"on" => true,
        b"off" => false,
        _ => return Err(error::SYNTAX),
    };
    own(ctx)?.no_evict.store(on, Ordering::Relaxed);
    ctx.out.ok();
    Ok(Outcome::Done)
}

/// Which clients to kill.
#[derive(Default)]
struct Filter<'a> {
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    class: Option<Class>,
    id: Option<u64>,
    spare_me: bool,
}

impl<'a> Filter<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Filter<'a>, CmdError> {
        let mut filter = Filter { spare_me: true, ..Filter::default() };
        for pair in args.chunks(2) {
            let [option, value] = *pair else { return Err(error::SYNTAX) };
            match option.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = parse_i64(value).filter(|&id| id > 0);
                    let id = id.ok_or_else(|| CmdError::text("ERR client-id should be greater than 0"))?;
                    filter.id = Some(id as u64);
                }
                b"type" => filter.class = Some(class(value)?),
                b"addr" => filter.addr = Some(value),
                b"laddr" => filter.laddr = Some(value),
                b"user" if value == b"default" => {}
                b"user" => return Err(CmdError::Bytes([b"ERR No such user '", value, b"'"].concat())),
                b"skipme" if parse::is(value, "yes") => filter.spare_me = true,
                b"skipme" if parse::is(value, "no") => filter.spare_me = false,
                _ => return Err(error::SYNTAX),
            }
        }
        Ok(filter)
    }

    fn takes(&self, client: &ClientInfo) -> bool {
        self.addr.is_none_or(|addr| client.addr.as_bytes() == addr)
            && self.laddr.is_none_or(|laddr| client.laddr.as_bytes() == laddr)
            && self.class.is_none_or(|class| client.class() == class)
            && self.id.is_none_or(|id| client.id == id)
            && !client.killed.load(Ordering::Relaxed)
    }
}

fn kill(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let filter = match args {
        [_, _, addr] => Filter { addr: Some(addr), ..Filter::default() },
        [_, _, rest @ ..] if !rest.is_empty() => Filter::parse(rest)?,
        _ => return Err(error::SYNTAX),
    };
    let server = server::of(ctx.host);
    let mut killed = 0;
    for client in server.clients.list() {
        if !filter.takes(&client) {
            continue;
        }
        if client.id != ctx.session.id {
            server.kill(&client);
        } else if filter.spare_me {
            continue;
        } else {
            ctx.session.close_after_reply = true;
        }
        killed += 1;
    }
    match (args.len(), killed) {
        (3, 0) => return Err(CmdError::text("ERR No such client")),
        (3, _) => ctx.out.ok(),
        _ => ctx.out.int(killed),
    }
    Ok(Outcome::Done)
}

fn unblock(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let how = match args.get(3).map(|how| how.to_ascii_lowercase()).as_deref() {
        None | Some(b"timeout") => Release::Timeout,
        Some(b"error") => Release::Error,
        Some(_) => return Err(CmdError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = parse::int(args[2])?;
    let released = u64::try_from(id).is_ok_and(|id| blocking::release(server::of(ctx.host), id, how));
    ctx.out.int(i64::from(released));
    Ok(Outcome::Done)
}

fn pause(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let all = match args.get(3).map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None | Some(b"all") => true,
        Some(b"write") => false,
        Some(_) => return Err(CmdError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let ms = parse_i64(args[2]).ok_or_else(|| CmdError::text("ERR timeout is not an integer or out of range"))?;
    if ms < 0 {
        return Err(error::TIMEOUT_NEGATIVE);
    }
    let pause = &server::of(ctx.host).pause;
    // A pause under way gets no shorter and no weaker.
    let until = clock::unix_ms().saturating_add(ms).max(pause.until.load(Ordering::Relaxed));
    let before = pause.until.load(Ordering::Relaxed) > clock::unix_ms() && pause.all.load(Ordering::Relaxed);
    pause.all.store(all || before, Ordering::Relaxed);
    pause.until.store(until, Ordering::Relaxed);
    crate::repl::refresh_gates(server::of(ctx.host));
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn unpause(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let server: &Server = server::of(ctx.host);
    server.pause.until.store(0, Ordering::Relaxed);
    crate::repl::refresh_gates(server);
    server.look_again();
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn get_redir(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.int(-1);
    Ok(Outcome::Done)
}

fn tracking(_: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    Err(CmdError::text("ERR Client side caching is not supported by this server"))
}

const FLAGS: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);
const ADMIN: Flags = FLAGS.with(Flags::ADMIN);

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    handler: ardb_commands::table::Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, Keys::None, Group::Connection, handler).doc(since, summary)
}

const SUBCOMMANDS: &[Command] = &[
    sub("getname", 2, FLAGS, get_name, "2.6.9", "Returns the name of the connection"),
    sub("getredir", 2, FLAGS, get_redir, "6.0.0", "Returns the client that tracking notifications go to"),
    sub("id", 2, FLAGS, id, "5.0.0", "Returns the id of the connection"),
    sub("info", 2, FLAGS, info, "6.2.0", "Returns information about the connection"),
    sub("kill", -3, ADMIN, kill, "2.4.0", "Closes connections"),
    sub("list", -2, ADMIN, list, "2.4.0", "Lists the connections"),
    sub("no-evict", 3, ADMIN, no_evict, "7.0.0", "Spares the connection when clients are closed for memory"),
    sub("pause", -3, ADMIN, pause, "3.0.0", "Holds up commands of clients for some time"),
    sub("reply", 3, FLAGS, reply, "3.2.0", "Says whether the server replies"),
    sub("setname", 3, FLAGS, set_name, "2.6.9", "Names the connection"),
    sub("tracking", -3, FLAGS, tracking, "6.0.0", "Not supported: client side caching"),
    sub("unblock", -3, ADMIN, unblock, "5.0.0", "Ends the wait of a blocked client"),
    sub("unpause", 2, ADMIN, unpause, "6.2.0", "Ends a pause"),
];

/// The rows.
pub const COMMANDS: &[Command] = &[Command::new("client", -2, Flags::NONE, Keys::None, Group::Connection, help::reply)
    .doc("2.4.0", "Commands about connections")
    .subcommands(SUBCOMMANDS)];
