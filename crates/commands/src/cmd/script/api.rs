//! The table `redis` that scripts see, but for `call` and `pcall` (see [`super::run`]), and `math`'s random numbers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::arguments::{integer, string};
use super::cache::Control;
use super::interpreter::raise;
use super::random::Rand48;
use super::raw::{self, Fault, library};
use super::{convert, sha1_hex};
use crate::dispatch;
use crate::shared::Shared;

/// The version of Redis whose scripting this is; scripts look at it.
const VERSION: &str = "7.0.15";
const VERSION_NUM: i64 = 0x0007_000f;
const LEVELS: [(&str, i64); 4] = [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
const REPL_ALL: i64 = 3;
const REPL: [(&str, i64); 5] =
    [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", REPL_ALL)];

/// Makes the table.
pub fn table(lua: &Lua, slot: &Table, shared: Weak<Shared>, control: &Arc<Control>) -> Result<Table> {
    let redis = lua.create_table()?;
    let (call, pcall) = raw::callers(lua, slot)?;
    redis.raw_set("call", call)?;
    redis.raw_set("pcall", pcall)?;
    for (name, value) in LEVELS.iter().chain(&REPL) {
        redis.raw_set(*name, *value)?;
    }
    redis.raw_set("REDIS_VERSION", VERSION)?;
    redis.raw_set("REDIS_VERSION_NUM", VERSION_NUM)?;
    redis.raw_set("sha1hex", library(lua, sha1hex)?)?;
    redis.raw_set("log", library(lua, log)?)?;
    redis.raw_set("error_reply", library(lua, |lua, args| one_field(lua, &args, true))?)?;
    redis.raw_set("status_reply", library(lua, |lua, args| one_field(lua, &args, false))?)?;
    redis.raw_set("set_repl", library(lua, set_repl)?)?;
    // Effects are what is replicated, always.
    redis.raw_set("replicate_commands", library(lua, |_, _| Ok(true))?)?;
    // There is no debugger that a breakpoint could stop in.
    redis.raw_set("breakpoint", library(lua, |_, _| Ok(false))?)?;
    redis.raw_set("debug", library(lua, |_, _| Ok(()))?)?;
    let own = control.clone();
    redis.raw_set("setresp", library(lua, move |lua, args| setresp(lua, &args, &own))?)?;
    redis.raw_set("acl_check_cmd", library(lua, move |lua, args| acl_check_cmd(lua, &args, &shared))?)?;
    Ok(redis)
}

fn sha1hex(lua: &Lua, args: MultiValue) -> std::result::Result<Value, Fault> {
    if args.len() != 1 {
        return raise(lua, "wrong number of arguments");
    }
    let text = string(lua, &args, 0)?;
    Ok(Value::String(lua.create_string(sha1_hex(&text))?))
}

fn log(lua: &Lua, args: MultiValue) -> std::result::Result<(), Fault> {
    if args.len() < 2 {
        return raise(lua, "redis.log() requires two arguments or more.");
    }
    let (Value::Integer(_) | Value::Number(_)) = args[0] else {
        return raise(lua, "First argument must be a number (log level).");
    };
    let level = match integer(lua, &args, 0).ok() {
        Some(0 | 1) => log::Level::Debug,
        Some(2) => log::Level::Info,
        Some(3) => log::Level::Warn,
        _ => return raise(lua, "Invalid debug level."),
    };
    let mut line = Vec::new();
    for index in 1..args.len() {
        if let Ok(text) = string(lua, &args, index) {
            if !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(&text);
        }
    }
    log::log!(target: "script", level, "{}", String::from_utf8_lossy(&line));
    Ok(())
}

fn one_field(lua: &Lua, args: &MultiValue, error: bool) -> std::result::Result<Value, Fault> {
    let Some(Value::String(text)) = args.front().filter(|_| args.len() == 1) else {
        return Ok(Value::Table(convert::error_table(lua, b"wrong number or type of arguments")?));
    };
    Ok(if error {
        let text = text.as_bytes();
        let text = if text.first() == Some(&b'-') { text.to_vec() } else { [b"-", &text[..]].concat() };
        Value::Table(convert::error_table(lua, &text)?)
    } else {
        convert::single(lua, "ok", text.clone())?
    })
}

fn set_repl(lua: &Lua, args: MultiValue) -> std::result::Result<(), Fault> {
    if args.len() != 1 {
        return raise(lua, "redis.set_repl() requires two arguments.");
    }
    match integer(lua, &args, 0).ok() {
        Some(REPL_ALL) => Ok(()),
        // The log that replicas read is the one that makes writes durable: there is no write that only one of them gets.
        Some(0..REPL_ALL) => raise(lua, "redis.set_repl(): only redis.REPL_ALL is supported by this server."),
        _ => raise(lua, "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."),
    }
}

fn setresp(lua: &Lua, args: &MultiValue, control: &Control) -> std::result::Result<(), Fault> {
    if args.len() != 1 {
        return raise(lua, "redis.setresp() requires one argument.");
    }
    match integer(lua, args, 0).ok() {
        Some(version @ (2 | 3)) => {
            control.resp3.store(version == 3, Ordering::Relaxed);
            Ok(())
        }
        _ => raise(lua, "RESP version must be 2 or 3."),
    }
}

/// Whether the user may run the command. There is one user, who may run all.
fn acl_check_cmd(lua: &Lua, args: &MultiValue, shared: &Weak<Shared>) -> std::result::Result<bool, Fault> {
    if args.is_empty() {
        return raise(lua, "Please specify at least one argument for this redis lib call");
    }
    let mut words = Vec::with_capacity(args.len());
    for index in 0..args.len() {
        match string(lua, args, index) {
            Ok(word) => words.push(word),
            Err(_) => return raise(lua, "Lua redis lib command arguments must be strings or integers"),
        }
    }
    let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
    match shared.upgrade() {
        Some(shared) if dispatch::resolve(&shared.table, &words).is_ok() => Ok(true),
        _ => raise(lua, "Invalid command passed to redis.acl_check_cmd()"),
    }
}

/// `math.random` and `math.randomseed` of Redis. Gives the generator behind them.
pub fn set_random(lua: &Lua, math: &Table) -> Result<Arc<Rand48>> {
    let random = Arc::new(Rand48::new());
    let all = random.clone();
    let seeded = random.clone();
    math.raw_set(
        "randomseed",
        library(lua, move |lua, args| {
            seeded.seed(integer(lua, &args, 0)? as i32);
            Ok(())
        })?,
    )?;
    math.raw_set("random", library(lua, move |lua, args| draw(lua, &args, &random))?)?;
    Ok(all)
}

fn draw(lua: &Lua, args: &MultiValue, random: &Rand48) -> std::result::Result<f64, Fault> {
    let unit = random.unit();
    let bound = |index: usize| integer(lua, args, index).map(|n| n as f64);
    let (low, high) = match args.len() {
        0 => return Ok(unit),
        1 => (1.0, bound(0)?),
        2 => (bound(0)?, bound(1)?),
        _ => return raw::fault("wrong number of arguments"),
    };
    if low > high {
        return Err(Fault::Argument(args.len() as i32, "interval is empty".into()));
    }
    Ok((unit * (high - low + 1.0)).floor() + low)
}
