//! The few C functions that Lua's own interface asks for: those that raise a value as an error, and those that look at tables
//! that scripts must not change. Nothing else of the scripts touches the raw interface.
//!
//! Invariants: a frame of these functions holds nothing that must be dropped, since an error leaves it by a jump; each leaves the
//! stack as Lua's calling convention wants it; no reference to the data of a transaction passes through here.
//!
//! A *library function* is a Rust function that answers with a status and then its results. Were it to raise the error itself, scripts
//! would see an opaque object where Redis gives them a string or a table; so [`library`] wraps it in a C function that raises for it.

use std::ffi::{c_int, c_void};

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Result, Table, Value, ffi, lua_State};

/// How a library function fails.
#[derive(Debug)]
pub enum Fault {
    /// Raise this value as it is.
    Raise(Value),
    /// Raise this text behind the place in the script that called.
    At(String),
    /// An argument (counted from 1) is wrong: the text says what was expected.
    Argument(i32, String),
    /// The interpreter itself failed (out of memory, a script that was killed).
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Fault {
        Fault::Lua(error)
    }
}

/// A fault with a text behind the place of the call.
pub fn fault<T>(text: impl Into<String>) -> std::result::Result<T, Fault> {
    Err(Fault::At(text.into()))
}

const OK: i32 = 0;
const RAISE: i32 = 1;
const RAISE_AT: i32 = 2;
const BAD_ARGUMENT: i32 = 3;

/// A function for scripts, made of a Rust function.
pub fn library<R: IntoLuaMulti>(
    lua: &Lua,
    run: impl Fn(&Lua, MultiValue) -> std::result::Result<R, Fault> + Send + Sync + 'static,
) -> Result<Function> {
    let native = lua.create_function(move |lua, args: MultiValue| -> Result<MultiValue> {
        match run(lua, args) {
            Ok(results) => {
                let mut values = results.into_lua_multi(lua)?;
                values.push_front(Value::Integer(OK.into()));
                Ok(values)
            }
            Err(Fault::Raise(value)) => (RAISE, value).into_lua_multi(lua),
            Err(Fault::At(text)) => (RAISE_AT, text).into_lua_multi(lua),
            Err(Fault::Argument(index, text)) => (BAD_ARGUMENT, text, index).into_lua_multi(lua),
            Err(Fault::Lua(error)) => Err(error),
        }
    })?;
    closure(lua, finish, native)
}

/// A C function with one upvalue.
fn closure(lua: &Lua, function: ffi::lua_CFunction, upvalue: impl mlua::IntoLua) -> Result<Function> {
    // SAFETY: `exec_raw` pushes the one upvalue, which `lua_pushcclosure` pops before it pushes the closure; the call is protected.
    unsafe { lua.exec_raw((upvalue,), |state| ffi::lua_pushcclosure(state, function, 1)) }
}

/// Calls the Rust function (upvalue 1) and does what its status says.
unsafe extern "C-unwind" fn finish(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its arguments on the stack and room for 20 more values. The Rust function is called with all of
    // them and answers with at least the status (see `library`), so index 1, and 2 and 3 where the status promises them, exist.
    // Nothing in this frame needs dropping when `lua_error` and its kin jump out of it.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, ffi::LUA_MULTRET);
        match ffi::lua_tonumber(state, 1) as c_int {
            OK => ffi::lua_gettop(state) - 1,
            RAISE => {
                ffi::lua_settop(state, 2);
                ffi::lua_error(state)
            }
            BAD_ARGUMENT => {
                let index = ffi::lua_tonumber(state, 3) as c_int;
                ffi::luaL_argerror(state, index, ffi::lua_tolstring(state, 2, std::ptr::null_mut()))
            }
            _ => {
                ffi::luaL_where(state, 1);
                ffi::lua_pushvalue(state, 2);
                ffi::lua_concat(state, 2);
                ffi::lua_error(state)
            }
        }
    }
}

/// `redis.call` and `redis.pcall`: both run the function that stands in `slot[1]`, which answers whether it failed and with what.
/// The first raises what failed, the second returns it.
pub fn callers(lua: &Lua, slot: &Table) -> Result<(Function, Function)> {
    Ok((closure(lua, call_raising, slot)?, closure(lua, call_returning, slot)?))
}

/// More arguments than this are handed to the slot's function as [`packed`], a table and a count: the stack of a C function holds
/// 8,000 values and not one more, which `unpack` may have used up.
const MANY: c_int = 1000;

/// Tells the slot's function that its arguments are in a table. Scripts cannot make this value.
pub fn packed() -> Value {
    Value::LightUserData(mlua::LightUserData(mark()))
}

/// Leaves `failed, value` on the stack.
///
/// # Safety
/// For C functions that Lua calls, with the slot as upvalue 1.
unsafe fn call_slot(state: *mut lua_State) {
    // SAFETY: as in `finish`; upvalue 1 is the slot's table. Should it be empty, calling nil raises an error.
    unsafe {
        let count = ffi::lua_gettop(state);
        if count > MANY {
            ffi::lua_createtable(state, count, 0);
            ffi::lua_insert(state, 1);
            for index in (1..=count).rev() {
                ffi::lua_rawseti(state, 1, index.into());
            }
            ffi::lua_rawgeti(state, ffi::lua_upvalueindex(1), 1);
            ffi::lua_insert(state, 1);
            ffi::lua_pushlightuserdata(state, mark());
            ffi::lua_insert(state, 2);
            ffi::lua_pushnumber(state, count.into());
            ffi::lua_call(state, 3, 2);
            return;
        }
        ffi::lua_rawgeti(state, ffi::lua_upvalueindex(1), 1);
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, 2);
    }
}

unsafe extern "C-unwind" fn call_raising(state: *mut lua_State) -> c_int {
    // SAFETY: `call_slot` leaves exactly two values.
    unsafe {
        call_slot(state);
        if ffi::lua_toboolean(state, 1) != 0 {
            ffi::lua_error(state)
        }
        1
    }
}

unsafe extern "C-unwind" fn call_returning(state: *mut lua_State) -> c_int {
    // SAFETY: `call_slot` leaves exactly two values, of which the upper one is returned.
    unsafe {
        call_slot(state);
        1
    }
}

/// Its address marks the metatables of protected tables.
static MARK: u8 = 0;

fn mark() -> *mut c_void {
    (&raw const MARK).cast_mut().cast()
}

/// An empty table that reads as `inner` and that scripts cannot change. What `getmetatable` gives for it is `sealed`.
pub fn protect(lua: &Lua, inner: &Table, sealed: Option<&Table>) -> Result<Table> {
    let proxy = lua.create_table()?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", inner)?;
    // SAFETY: a C function without upvalues is pushed; it follows Lua's calling convention.
    meta.raw_set("__newindex", unsafe { lua.create_c_function(refuse_change)? })?;
    meta.raw_set("__metatable", sealed.unwrap_or(&proxy))?;
    meta.raw_set(mlua::LightUserData(mark()), true)?;
    proxy.set_metatable(Some(meta))?;
    Ok(proxy)
}

unsafe extern "C-unwind" fn refuse_change(state: *mut lua_State) -> c_int {
    // SAFETY: `luaL_error` takes a C string without directives and jumps.
    unsafe { ffi::luaL_error(state, c"Attempt to modify a readonly table".as_ptr()) }
}

/// Whether the value at `index` is a protected table. If so, the table behind it is pushed.
///
/// # Safety
/// `index` must be a valid absolute index, with room for three values on the stack.
unsafe fn push_inner(state: *mut lua_State, index: c_int) -> bool {
    // SAFETY: each branch pops what it pushed, but for the inner table of a protected one.
    unsafe {
        if ffi::lua_type(state, index) != ffi::LUA_TTABLE || ffi::lua_getmetatable(state, index) == 0 {
            return false;
        }
        ffi::lua_pushlightuserdata(state, mark());
        ffi::lua_rawget(state, -2);
        let marked = ffi::lua_toboolean(state, -1) != 0;
        ffi::lua_pop(state, 1);
        if !marked {
            ffi::lua_pop(state, 1);
            return false;
        }
        ffi::lua_pushstring(state, c"__index".as_ptr());
        ffi::lua_rawget(state, -2);
        ffi::lua_remove(state, -2);
        true
    }
}

/// A function of Lua's library that changes its first argument, made to refuse protected tables. `original` must be a C function
/// without upvalues, as those of the table library, `rawset` and `setmetatable` are.
pub fn guard_changes(lua: &Lua, original: Function) -> Result<Function> {
    closure(lua, guarded_change, original)
}

unsafe extern "C-unwind" fn guarded_change(state: *mut lua_State) -> c_int {
    // SAFETY: upvalue 1 is a C function that does not look at its own upvalues (see `guard_changes`), so it may be run in this frame,
    // with the arguments as they are.
    unsafe {
        if ffi::lua_gettop(state) > 0 && push_inner(state, 1) {
            ffi::lua_pushstring(state, c"Attempt to modify a readonly table".as_ptr());
            ffi::lua_error(state);
        }
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(original) => original(state),
            None => 0,
        }
    }
}

/// `rawget` and `next`, made to look into protected tables. `original` as for [`guard_changes`].
pub fn see_through(lua: &Lua, original: Function) -> Result<Function> {
    closure(lua, seeing_through, original)
}

unsafe extern "C-unwind" fn seeing_through(state: *mut lua_State) -> c_int {
    // SAFETY: as in `guarded_change`; the inner table takes the place of the protected one only for this call.
    unsafe {
        if ffi::lua_gettop(state) > 0 && push_inner(state, 1) {
            ffi::lua_replace(state, 1);
        }
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(original) => original(state),
            None => 0,
        }
    }
}

/// `pairs`, with this `next`.
pub fn pairs(lua: &Lua, next: Function) -> Result<Function> {
    closure(lua, pairs_with_next, next)
}

unsafe extern "C-unwind" fn pairs_with_next(state: *mut lua_State) -> c_int {
    // SAFETY: the argument is checked to be a table; three values are pushed, for which there is room.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pushnil(state);
        3
    }
}

/// `pcall` as Redis has it: of an error that is a table, scripts get the text in its field `err`. `original` is Lua's.
pub fn pcall(lua: &Lua, original: Function) -> Result<Function> {
    closure(lua, pcall_with_text, original)
}

unsafe extern "C-unwind" fn pcall_with_text(state: *mut lua_State) -> c_int {
    // SAFETY: as in `finish`. After the call there is at least the truth value, and behind a false one the error.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, ffi::LUA_MULTRET);
        if ffi::lua_toboolean(state, 1) == 0 && ffi::lua_gettop(state) >= 2 {
            match ffi::lua_type(state, 2) {
                ffi::LUA_TTABLE => {
                    ffi::lua_pushstring(state, c"err".as_ptr());
                    ffi::lua_rawget(state, 2);
                    if ffi::lua_type(state, -1) == ffi::LUA_TSTRING {
                        ffi::lua_replace(state, 2)
                    } else {
                        ffi::lua_pop(state, 1)
                    }
                }
                ffi::LUA_TUSERDATA if ffi::luaL_callmeta(state, 2, c"__tostring".as_ptr()) != 0 => {
                    ffi::lua_replace(state, 2);
                }
                _ => {}
            }
        }
        ffi::lua_gettop(state)
    }
}

/// What reading a global that is not there runs.
pub fn undefined_global(lua: &Lua) -> Result<Function> {
    // SAFETY: a C function without upvalues that follows Lua's calling convention.
    unsafe { lua.create_c_function(raise_undefined) }
}

unsafe extern "C-unwind" fn raise_undefined(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls an `__index` with the table and the key; `lua_tolstring` gives a C string that lives as long as the key stays
    // on the stack, or null, for which a constant stands in.
    unsafe {
        let mut name = std::ptr::null();
        if ffi::lua_type(state, 2) == ffi::LUA_TSTRING {
            name = ffi::lua_tolstring(state, 2, std::ptr::null_mut());
        }
        if name.is_null() {
            name = c"?".as_ptr();
        }
        ffi::luaL_error(state, c"Script attempted to access nonexistent global variable '%s'".as_ptr(), name)
    }
}
