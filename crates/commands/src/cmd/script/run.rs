//! Runs a script: its arguments, the commands that it calls, and the reply for what it returns.
//!
//! Invariants: a script that fails keeps the effects that it had, as in Redis, so its error is a reply like any other; the session
//! is left as it was found (database, protocol); what the script calls is checked by the rules for scripts here and runs, and is
//! logged, by [`dispatch::call`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::number::f64_text;
use ardb_resp::{Protocol, Reply};
use mlua::{Function, Lua, MultiValue, Value};

use super::cache::{Compiled, Control, Sha};
use super::convert::{self, COUNTED};
use super::interpreter::{Interpreter, failure, look_at_clock, message, plain_failure};
use super::{raw, sha1_hex, shebang};
use crate::context::{Ctx, Fault, Origin};
use crate::error::{self, CmdError};
use crate::shared::Shared;
use crate::table::{Command, Flags};
use crate::{CmdResult, Outcome, dispatch};

fn engine_failure(error: &mlua::Error) -> CmdError {
    CmdError::text(format!("ERR the script interpreter failed: {}", message(error)))
}

/// The script with this body: from the cache, or compiled into it. Called under the writer lock.
pub fn compile(shared: &Arc<Shared>, body: &[u8], sha: &Sha) -> Result<Compiled, CmdError> {
    let scripts = &shared.scripts;
    if let Some(found) = scripts.cache.lock().find(sha) {
        return Ok(found);
    }
    let (flags, skip) = shebang::parse(body)?;
    let mut interpreter = scripts.interpreter.lock();
    let interpreter = match &mut *interpreter {
        Some(interpreter) => interpreter,
        none => none.insert(Interpreter::new(shared).map_err(|error| engine_failure(&error))?),
    };
    let code = body.get(skip..).unwrap_or_default();
    let chunk = interpreter.lua.load(code).set_name("@user_script").set_mode(mlua::chunk::ChunkMode::Text);
    let function = chunk
        .into_function()
        .map_err(|error| CmdError::text(format!("ERR Error compiling script (new function): {}", message(&error))))?;
    let mut cache = scripts.cache.lock();
    let script = Compiled { slot: cache.new_slot(), flags };
    // It takes memory, which may be at an end, so only then is the script known.
    if let Err(error) = interpreter.functions.raw_set(script.slot, function) {
        cache.give_back(script.slot);
        return Err(engine_failure(&error));
    }
    let mut evicted = Vec::new();
    cache.insert(*sha, script, &mut evicted);
    for slot in evicted {
        interpreter.functions.raw_set(slot, Value::Nil).map_err(|error| engine_failure(&error))?;
    }
    Ok(script)
}

/// EVAL, EVALSHA and their read-only forms: `script numkeys [key ...] [arg ...]`.
pub fn eval(ctx: &mut Ctx<'_>, args: &[&[u8]], by_sha: bool, read_only: bool) -> CmdResult {
    let count = ardb_base::number::parse_i64(args[2]).ok_or(error::NOT_INTEGER)?;
    let rest = &args[3..];
    let count = match usize::try_from(count) {
        Err(_) => return Err(CmdError::text("ERR Number of keys can't be negative")),
        Ok(count) if count > rest.len() => {
            return Err(CmdError::text("ERR Number of keys can't be greater than number of args"));
        }
        Ok(count) => count,
    };
    let (sha, script) = if by_sha {
        let mut sha: Sha = args[1].try_into().map_err(|_| error::NO_SCRIPT)?;
        sha.make_ascii_lowercase();
        (sha, ctx.shared.scripts.cache.lock().find(&sha).ok_or(error::NO_SCRIPT)?)
    } else {
        let sha = sha1_hex(args[1]);
        let script = compile(ctx.shared, args[1], &sha).inspect_err(|error| {
            // A master passes on only what it could compile.
            ctx.fault.get_or_insert_with(|| Fault::Interpreter(error.to_string()));
        })?;
        (sha, script)
    };
    if ctx.origin == Origin::Client {
        refusal(ctx, script, read_only)?;
    }
    let (keys, argv) = rest.split_at(count);
    let read_only = read_only || (script.flags.declared && script.flags.no_writes);
    let shared = ctx.shared.clone();
    let interpreter = shared.scripts.interpreter.lock();
    let Some(interpreter) = interpreter.as_ref() else { return Err(error::NO_SCRIPT) };
    run(ctx, interpreter, script, &sha, keys, argv, read_only);
    if let Err(error) = interpreter.tidy() {
        log::error!("the memory of scripts could not be collected: {error}");
    }
    shared.scripts.memory.store(interpreter.lua.used_memory(), Ordering::Relaxed);
    Ok(Outcome::Done)
}

/// Why a script may not begin. One without a shebang line may, and meets the checks when it calls a command.
fn refusal(ctx: &Ctx<'_>, script: Compiled, read_only: bool) -> Result<(), CmdError> {
    let gates = &ctx.shared.gates;
    if gates.stale.load(Ordering::Relaxed) && !script.flags.allow_stale {
        return Err(error::MASTER_DOWN);
    }
    if script.flags.declared && !script.flags.no_writes {
        if gates.read_only.load(Ordering::Relaxed) {
            return Err(error::READ_ONLY);
        }
        if read_only {
            return Err(CmdError::text("ERR Can not execute a script with write flag using *_ro command."));
        }
        if gates.too_few_replicas.load(Ordering::Relaxed) {
            return Err(error::NO_REPLICAS);
        }
    }
    Ok(())
}

/// What one run needs besides the context.
struct Run {
    control: Arc<Control>,
    read_only: bool,
    /// The arguments of the command being called, one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Commands called.
    calls: u32,
}

/// What a script that calls an unknown command is told.
const UNKNOWN_COMMAND: &str = "Unknown Redis command called from script";
/// What Redis before 7 seeds the generator with before each script, and so what a script in a stream is to begin with.
const STREAM_SEED: i32 = 0;
/// Commands that reply in the order of a hash table, which differs from server to server. Masters that pass scripts on as they are give
/// their replies to scripts sorted, so that a script does the same everywhere.
const SORTED_IN_STREAMS: [&str; 7] = ["hkeys", "hvals", "keys", "sdiff", "sinter", "smembers", "sunion"];
/// Calls of commands between two looks at the clock.
const LOOK_EVERY: u32 = 64;

impl Run {
    /// Adds an argument; false if it has no text.
    fn push(&mut self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.bytes.extend_from_slice(&text.as_bytes()),
            Value::Integer(number) => self.bytes.extend_from_slice(number.to_string().as_bytes()),
            Value::Number(number) => self.bytes.extend_from_slice(&f64_text(*number)),
            _ => return false,
        }
        self.ends.push(self.bytes.len());
        true
    }
}

/// Runs the script and writes its reply.
fn run(
    ctx: &mut Ctx<'_>,
    interpreter: &Interpreter,
    script: Compiled,
    sha: &Sha,
    keys: &[&[u8]],
    argv: &[&[u8]],
    read_only: bool,
) {
    let shared = ctx.shared;
    let control = &shared.scripts.control;
    control.wrote.store(false, Ordering::Relaxed);
    control.killed.store(false, Ordering::Relaxed);
    control.resp3.store(false, Ordering::Relaxed);
    control.from_stream.store(ctx.origin == Origin::Stream, Ordering::Relaxed);
    control.started.store((shared.clock)(), Ordering::Relaxed);
    shared.gates.kill_script.store(false, Ordering::Relaxed);
    control.running.store(true, Ordering::SeqCst);

    if ctx.origin == Origin::Stream {
        interpreter.random.seed(STREAM_SEED);
    }

    // The commands that the script calls reply into a buffer of their own; the client's waits here meanwhile.
    let mut client_out = std::mem::replace(ctx.out, Reply::new(Protocol::Resp2));
    let session = (ctx.session.db, ctx.session.protocol, ctx.session.deny_blocking);
    let was_in_script = std::mem::replace(&mut ctx.in_script, true);
    ctx.session.protocol = Protocol::Resp2;
    ctx.session.deny_blocking = true;
    ctx.depth += 1;

    let mut state = Run { control: control.clone(), read_only, bytes: Vec::new(), ends: Vec::new(), calls: 0 };
    let lua = &interpreter.lua;
    let result = lua.scope(|scope| {
        let call = scope.create_function_mut(|lua, args: MultiValue| redis_call(lua, ctx, &mut state, &args))?;
        interpreter.slot.raw_set(1, call)?;
        for (name, values) in [("KEYS", keys), ("ARGV", argv)] {
            let table = lua.create_table_with_capacity(values.len(), 0)?;
            for (index, value) in values.iter().enumerate() {
                table.raw_set(index + 1, lua.create_string(value)?)?;
            }
            interpreter.globals.raw_set(name, table)?;
        }
        let function: Function = interpreter.functions.raw_get(script.slot)?;
        interpreter.xpcall.call::<(bool, Value)>((function, &interpreter.on_error))
    });

    ctx.depth -= 1;
    ctx.in_script = was_in_script;
    (ctx.session.db, ctx.session.protocol, ctx.session.deny_blocking) = session;
    std::mem::swap(ctx.out, &mut client_out);
    control.running.store(false, Ordering::SeqCst);
    if shared.gates.busy_script.swap(false, Ordering::SeqCst) {
        ctx.host.script_is_over();
    }
    shared.gates.kill_script.store(false, Ordering::Relaxed);
    if control.killed.load(Ordering::Relaxed)
        && let Err(error) = interpreter.calm_hook(shared)
    {
        log::error!("scripts run slowly from now on: {error}");
    }
    let protocol = if control.resp3.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 };
    reply(ctx, sha, protocol, result);
}

/// Writes the reply for what came of the script.
fn reply(ctx: &mut Ctx<'_>, sha: &Sha, script: Protocol, result: mlua::Result<(bool, Value)>) {
    let start = ctx.out.len();
    let (error, counted) = match result {
        Ok((true, value)) => match convert::from_lua(ctx.out, &value, script) {
            Ok(()) => {
                if let Value::Table(table) = &value
                    && matches!(table.raw_get::<Value>("err"), Ok(Value::String(_)))
                    && !table.raw_get::<bool>(COUNTED).unwrap_or(false)
                {
                    ctx.shared.stats.errors.add(1);
                }
                return;
            }
            Err(error) => (plain_failure(sha, &message(&error)), false),
        },
        Ok((false, Value::Table(described))) => {
            let counted = described.raw_get::<bool>(COUNTED).unwrap_or(false);
            (failure(sha, &described).unwrap_or_else(|error| plain_failure(sha, &message(&error))), counted)
        }
        // What a script fails with of its own comes as a table.
        Ok((false, other)) => {
            let text = other.to_string().unwrap_or_default();
            ctx.at_fault(Fault::Interpreter(text.clone()));
            (plain_failure(sha, &text), false)
        }
        Err(error) => {
            ctx.at_fault(Fault::Interpreter(message(&error)));
            (plain_failure(sha, &message(&error)), false)
        }
    };
    ctx.out.truncate(start);
    ctx.out.error(&error);
    if !counted {
        ctx.shared.stats.errors.add(1);
    }
}

/// Runs one command for the script: whether it failed, and its reply.
fn redis_call(lua: &Lua, ctx: &mut Ctx<'_>, run: &mut Run, args: &MultiValue) -> mlua::Result<(bool, Value)> {
    if args.is_empty() {
        let text = b"Please specify at least one argument for this redis lib call";
        return Ok((true, Value::Table(convert::error_table(lua, text)?)));
    }
    run.calls = run.calls.wrapping_add(1);
    if run.calls.is_multiple_of(LOOK_EVERY) {
        look_at_clock(lua, ctx.shared, &run.control, true)?;
    }
    run.bytes.clear();
    run.ends.clear();
    let texts = match (&args[0], args.get(1), args.get(2).and_then(Value::as_usize)) {
        // One at a time: the interpreter can only hold some thousands of values for us.
        (first, Some(Value::Table(table)), Some(count)) if *first == raw::packed() => {
            let mut texts = true;
            for index in 1..=count {
                texts = texts && run.push(&table.raw_get(index)?);
            }
            texts
        }
        _ => args.iter().all(|value| run.push(value)),
    };
    if !texts {
        let text = b"Lua redis lib command arguments must be strings or integers";
        return Ok((true, Value::Table(convert::error_table(lua, text)?)));
    }
    let mut start = 0;
    let words: Vec<&[u8]> = run
        .ends
        .iter()
        .map(|&end| {
            // Invariant: each end was the length of `bytes` when it was pushed, and they ascend.
            let word = &run.bytes[start..end];
            start = end;
            word
        })
        .collect();

    let command = match find(ctx, &words).and_then(|command| check(ctx, run, command).map(|()| command)) {
        Ok(command) => command,
        Err(text) => {
            if text == UNKNOWN_COMMAND {
                ctx.at_fault(Fault::Unknown(String::from_utf8_lossy(words[0]).into_owned()));
            }
            ctx.shared.stats.errors.add(1);
            return Ok((true, convert::counted_error(lua, text.as_bytes())?));
        }
    };
    let protocol = if run.control.resp3.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 };
    ctx.session.protocol = protocol;
    ctx.out.set_protocol(protocol);
    if command.flags.has(Flags::WRITE) {
        run.control.wrote.store(true, Ordering::SeqCst);
    }
    if let Outcome::Block(_) = dispatch::call(ctx, command, &words) {
        // Handlers see `deny_blocking`; should one wait all the same, it has nothing to say.
        ctx.out.null_array();
    }
    let failed = ctx.out.bytes().first() == Some(&b'-');
    ctx.host.followed(command, failed);
    let sorted = if ctx.origin == Origin::Stream && SORTED_IN_STREAMS.contains(&command.name) {
        convert::sorted(ctx.out.bytes())
    } else {
        None
    };
    let value = convert::to_lua(lua, sorted.as_deref().unwrap_or(ctx.out.bytes()));
    ctx.out.truncate(0);
    Ok((failed, value?))
}

/// The command by the rules, and with the texts, for scripts.
fn find(ctx: &Ctx<'_>, words: &[&[u8]]) -> Result<&'static Command, &'static str> {
    let table = &ctx.shared.table;
    dispatch::resolve(table, words).map_err(|_| {
        let known = words.first().and_then(|name| table.find(name)).is_some_and(|command| {
            let named =
                |name: &&[u8]| command.subcommands.iter().any(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name));
            command.subcommands.is_empty() || words.get(1).is_none_or(named)
        });
        if known { "Wrong number of args calling Redis command from script" } else { UNKNOWN_COMMAND }
    })
}

/// Why the script may not call the command, if it may not.
fn check(ctx: &Ctx<'_>, run: &Run, command: &Command) -> Result<(), &'static str> {
    let gates = &ctx.shared.gates;
    let flags = command.flags;
    if flags.has(Flags::NOSCRIPT) {
        return Err("This Redis command is not allowed from script");
    }
    let client = ctx.origin == Origin::Client;
    if client && gates.stale.load(Ordering::Relaxed) && !flags.has(Flags::STALE) {
        return Err("Can not execute the command on a stale replica");
    }
    let writes = flags.has(Flags::WRITE);
    if run.read_only && (writes || flags.has(Flags::MAY_REPLICATE)) {
        return Err("Write commands are not allowed from read-only scripts.");
    }
    // What has begun to write goes on: half of a script would be worse.
    if client && writes && !run.control.wrote.load(Ordering::Relaxed) {
        if gates.read_only.load(Ordering::Relaxed) {
            return Err("-READONLY You can't write against a read only replica.");
        }
        if gates.too_few_replicas.load(Ordering::Relaxed) {
            return Err("-NOREPLICAS Not enough good replicas to write.");
        }
    }
    Ok(())
}
