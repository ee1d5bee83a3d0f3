//! Arguments of library functions, checked as Lua's own libraries check theirs, with their texts.

use mlua::{Lua, MultiValue, Value};

use super::convert::truncate;
use super::raw::Fault;

/// The name of a value's type as Lua gives it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// The fault of an argument (counted from 0 here) that has another type.
pub fn wrong_type(args: &MultiValue, index: usize, expected: &str) -> Fault {
    let got = args.get(index).map_or("no value", type_name);
    Fault::Argument(index as i32 + 1, format!("{expected} expected, got {got}"))
}

/// A number, or a string that spells one.
pub fn number(lua: &Lua, args: &MultiValue, index: usize) -> Result<f64, Fault> {
    let value = args.get(index).cloned().unwrap_or(Value::Nil);
    match lua.coerce_number(value)? {
        Some(number) => Ok(number),
        None => Err(wrong_type(args, index, "number")),
    }
}

/// As [`number`], without its fraction.
pub fn integer(lua: &Lua, args: &MultiValue, index: usize) -> Result<i64, Fault> {
    number(lua, args, index).map(truncate)
}

/// The argument is missing or nil.
pub fn is_absent(args: &MultiValue, index: usize) -> bool {
    args.get(index).is_none_or(Value::is_nil)
}

/// A string, or the text of a number.
pub fn string(lua: &Lua, args: &MultiValue, index: usize) -> Result<Vec<u8>, Fault> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        Some(value @ (Value::Integer(_) | Value::Number(_))) => {
            Ok(lua.coerce_string(value.clone())?.map(|text| text.as_bytes().to_vec()).unwrap_or_default())
        }
        _ => Err(wrong_type(args, index, "string")),
    }
}
