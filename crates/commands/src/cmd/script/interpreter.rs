//! One Lua state, made safe for scripts that clients send: only the libraries that Redis gives them, no global that a script could
//! leave behind, bounded memory, and a look at the clock now and then.
//!
//! The tables that scripts share (the globals, the libraries) stand behind empty ones that pass on reads and refuse writes; Lua's own
//! functions that would write past that are wrapped. See [`super::raw`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use mlua::{Function, HookTriggers, Lua, LuaOptions, LuaString, Result, StdLib, Table, Value, VmState};

use super::cache::Control;
use super::random::Rand48;
use super::{api, bits, convert, json, msgpack, raw, structs};
use crate::shared::Shared;

/// How much memory the interpreter may hold, bytes. Scripts that want more fail.
const MEMORY_LIMIT: usize = if cfg!(test) { 64 << 20 } else { 1 << 30 };
/// How many instructions pass between two looks at the clock.
const HOOK_EVERY: u32 = 100_000;
/// What a script that SCRIPT KILL stops fails with.
const KILLED: &str = "Script killed by user with SCRIPT KILL.";

/// The globals that scripts have; everything else that Lua brings is taken away.
const GLOBALS: &[&str] = &[
    "_VERSION",
    "assert",
    "collectgarbage",
    "coroutine",
    "error",
    "gcinfo",
    "getmetatable",
    "ipairs",
    "load",
    "loadstring",
    "math",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawset",
    "select",
    "setmetatable",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "unpack",
    "xpcall",
];

/// `load` and `loadstring` take source text only: compiled code could break the interpreter.
const LOADERS: &str = r#"
local loadstring, byte, concat, type, error = loadstring, string.byte, table.concat, type, error
local function from_string(text, name)
    if type(text) == 'string' and byte(text) == 27 then
        return nil, "(load):1: unexpected symbol near 'char(27)'"
    end
    return loadstring(text, name)
end
local function from_function(pieces, name)
    if type(pieces) ~= 'function' then
        error("bad argument #1 to 'load' (function expected)", 2)
    end
    local all = {}
    while true do
        local piece = pieces()
        if piece == nil or piece == '' then break end
        if type(piece) ~= 'string' then return nil, 'reader function must return a string' end
        all[#all + 1] = piece
        if #all == 1 and byte(piece) == 27 then break end
    end
    return from_string(concat(all), name or '=(load)')
end
return from_string, from_function
"#;

/// The state and what is needed of it for each script.
pub struct Interpreter {
    pub(super) lua: Lua,
    /// The globals behind the protected table: KEYS and ARGV are set here.
    pub(super) globals: Table,
    /// Its first element is the function that `redis.call` runs.
    pub(super) slot: Table,
    /// The compiled scripts.
    pub(super) functions: Table,
    pub(super) xpcall: Function,
    pub(super) on_error: Function,
    pub(super) random: Arc<Rand48>,
}

impl Interpreter {
    /// A fresh one.
    pub fn new(shared: &Arc<Shared>) -> Result<Interpreter> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        lua.set_memory_limit(MEMORY_LIMIT)?;
        let globals = lua.globals();
        let xpcall: Function = globals.raw_get("xpcall")?;
        let slot = lua.create_table()?;

        replace_functions(&lua, &globals)?;
        keep_only(&globals, GLOBALS)?;
        globals.raw_set("redis", api::table(&lua, &slot, Arc::downgrade(shared), &shared.scripts.control)?)?;
        globals.raw_set("bit", bits::table(&lua)?)?;
        globals.raw_set("cjson", json::table(&lua)?)?;
        globals.raw_set("cmsgpack", msgpack::table(&lua)?)?;
        globals.raw_set("struct", structs::table(&lua)?)?;
        let random = api::set_random(&lua, &globals.raw_get("math")?)?;
        protect_tables(&lua, &globals)?;
        install_hook(&lua, Arc::downgrade(shared), shared.scripts.control.clone(), HOOK_EVERY)?;

        let on_error = lua.create_function(describe_error)?;
        let functions = lua.create_table()?;
        Ok(Interpreter { lua, globals, slot, functions, xpcall, on_error, random })
    }

    /// After a script: if it left much behind, garbage is collected at once, so that the next one has the memory it may use. Lua
    /// collects by itself in steps, but does not try again when an allocation fails.
    pub fn tidy(&self) -> Result<()> {
        if self.lua.used_memory() > MEMORY_LIMIT / 4 { self.lua.gc_collect() } else { Ok(()) }
    }

    /// After a script was killed: looks at the clock as seldom as before.
    pub fn calm_hook(&self, shared: &Arc<Shared>) -> Result<()> {
        install_hook(&self.lua, Arc::downgrade(shared), shared.scripts.control.clone(), HOOK_EVERY)
    }
}

fn keep_only(table: &Table, names: &[&str]) -> Result<()> {
    let mut others = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair?;
        let known =
            matches!(&key, Value::String(name) if names.iter().any(|known| name.as_bytes() == known.as_bytes()));
        if !known {
            others.push(key);
        }
    }
    others.into_iter().try_for_each(|key| table.raw_set(key, Value::Nil))
}

/// Puts wrapped functions in the place of those that would let a script reach what it must not.
fn replace_functions(lua: &Lua, globals: &Table) -> Result<()> {
    let (loadstring, load): (Function, Function) = lua.load(LOADERS).set_name("=loaders").call(())?;
    globals.raw_set("loadstring", loadstring)?;
    globals.raw_set("load", load)?;
    globals.raw_set("pcall", raw::pcall(lua, globals.raw_get("pcall")?)?)?;
    for name in ["setmetatable", "rawset"] {
        globals.raw_set(name, raw::guard_changes(lua, globals.raw_get(name)?)?)?;
    }
    for name in ["rawget", "next"] {
        globals.raw_set(name, raw::see_through(lua, globals.raw_get(name)?)?)?;
    }
    globals.raw_set("pairs", raw::pairs(lua, globals.raw_get("next")?)?)?;
    let tables: Table = globals.raw_get("table")?;
    for name in ["insert", "remove", "sort"] {
        tables.raw_set(name, raw::guard_changes(lua, tables.raw_get(name)?)?)?;
    }
    Ok(())
}

/// Protects the libraries, the strings' metatable and the globals themselves.
fn protect_tables(lua: &Lua, globals: &Table) -> Result<()> {
    let sealed = raw::protect(lua, &lua.create_table()?, None)?;
    let mut libraries = Vec::new();
    for pair in globals.pairs::<Value, Value>() {
        if let (key, Value::Table(library)) = pair? {
            libraries.push((key, library));
        }
    }
    for (name, library) in libraries {
        globals.raw_set(name, raw::protect(lua, &library, Some(&sealed))?)?;
    }
    if let Some(strings) = lua.type_metatable::<LuaString>() {
        let seen = lua.create_table()?;
        seen.raw_set("__index", globals.raw_get::<Value>("string")?)?;
        strings.raw_set("__metatable", raw::protect(lua, &seen, Some(&sealed))?)?;
    }
    let undefined = lua.create_table()?;
    undefined.raw_set("__index", raw::undefined_global(lua)?)?;
    globals.set_metatable(Some(undefined))?;
    let proxy = raw::protect(lua, globals, Some(&sealed))?;
    globals.raw_set("_G", &proxy)?;
    lua.set_globals(proxy)
}

/// Looks at the clock every so many instructions: over the limit other clients learn that a script is busy, and a script that is to
/// be killed fails. From then on it fails at each instruction, so that it cannot catch the error and go on.
fn install_hook(lua: &Lua, shared: Weak<Shared>, control: Arc<Control>, every: u32) -> Result<()> {
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(every), move |lua, _| {
        let Some(shared) = shared.upgrade() else { return Ok(VmState::Continue) };
        if control.running.load(Ordering::Relaxed) {
            look_at_clock(lua, &shared, &control, every > 1)?;
        }
        Ok(VmState::Continue)
    })
}

/// Whether the running script may go on. A call of a command may take longer than many instructions, so those who call some look too.
pub fn look_at_clock(lua: &Lua, shared: &Arc<Shared>, control: &Arc<Control>, alarm: bool) -> Result<()> {
    let gates = &shared.gates;
    if !control.killed.load(Ordering::Relaxed) {
        let limit = shared.settings.script_limit.load(Ordering::Relaxed);
        let ran = (shared.clock)().saturating_sub(control.started.load(Ordering::Relaxed));
        if limit > 0 && ran >= limit && !gates.busy_script.swap(true, Ordering::Relaxed) {
            log::warn!("a script has been running for {ran} ms; other clients get BUSY, SCRIPT KILL may end it");
            (shared.script_is_busy)();
        }
        if !gates.kill_script.load(Ordering::Relaxed) && !gates.abandon_script.load(Ordering::Relaxed) {
            return Ok(());
        }
        log::warn!("a script is killed on request");
        control.killed.store(true, Ordering::Relaxed);
    }
    if alarm {
        install_hook(lua, Arc::downgrade(shared), control.clone(), 1)?;
    }
    Err(mlua::Error::runtime(KILLED))
}

/// What `xpcall` runs while the failed script still stands on the stack: finds the text, and the place in the script. The
/// answer is a table with `err`, `source` and `line`.
fn describe_error(lua: &Lua, error: Value) -> Result<Table> {
    let table = match &error {
        Value::Table(table) => {
            // A table of our own, since the script's may be protected.
            let described = lua.create_table_with_capacity(0, 4)?;
            let text = match table.raw_get::<Value>("err")? {
                text @ Value::String(_) => text,
                Value::Integer(n) => Value::String(lua.create_string(n.to_string())?),
                _ => Value::String(lua.create_string("ERR unknown error")?),
            };
            described.raw_set("err", text)?;
            described.raw_set(convert::COUNTED, table.raw_get::<Value>(convert::COUNTED)?)?;
            described
        }
        other => {
            let mut text = b"ERR ".to_vec();
            match other {
                Value::String(bytes) => text.extend_from_slice(&bytes.as_bytes()),
                Value::Error(error) => text.extend_from_slice(message(error).as_bytes()),
                other => text.extend_from_slice(other.to_string()?.as_bytes()),
            }
            let described = lua.create_table_with_capacity(0, 4)?;
            described.raw_set("err", lua.create_string(text)?)?;
            described
        }
    };
    for level in 1.. {
        let place = lua.inspect_stack(level, |frame| {
            let line = frame.current_line()?;
            Some((frame.source().source?.into_owned(), line))
        });
        match place {
            None => break,
            Some(None) => {}
            Some(Some((source, line))) => {
                table.raw_set("source", source)?;
                table.raw_set("line", line)?;
                break;
            }
        }
    }
    Ok(table)
}

/// The text of an error of the interpreter, without the traces that its library adds.
pub fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => message(cause),
        mlua::Error::RuntimeError(text) | mlua::Error::SyntaxError { message: text, .. } => {
            text.split("\nstack traceback:").next().unwrap_or_default().to_string()
        }
        mlua::Error::MemoryError(_) => "not enough memory".into(),
        other => other.to_string(),
    }
}

/// An error that is no error table, as the reply to EVAL.
pub fn plain_failure(sha: &[u8], text: &str) -> Vec<u8> {
    let cut: String = text.chars().take(100).collect();
    [b"ERR Error running script ", sha, b", ", cut.as_bytes()].concat()
}

/// The reply for the table that [`describe_error`] made.
pub fn failure(sha: &[u8], described: &Table) -> Result<Vec<u8>> {
    let mut text = match described.raw_get::<Value>("err")? {
        Value::String(text) => text.as_bytes().to_vec(),
        _ => b"ERR unknown error".to_vec(),
    };
    if let (Value::String(source), Some(line)) =
        (described.raw_get::<Value>("source")?, described.raw_get::<Option<i64>>("line")?)
    {
        text.extend_from_slice(b" script: ");
        text.extend_from_slice(sha);
        text.extend_from_slice(b", on ");
        text.extend_from_slice(&source.as_bytes());
        text.extend_from_slice(format!(":{line}.").as_bytes());
    }
    Ok(text)
}

/// Raises an error table with this text.
pub fn raise<T>(lua: &Lua, text: &str) -> std::result::Result<T, raw::Fault> {
    Err(raw::Fault::Raise(Value::Table(convert::error_table(lua, text.as_bytes())?)))
}
