//! The library `cjson`: its settings and the encoder. The decoder is in [`super::json_decode`].
//!
//! Settings live in the library's table from script to script, as they do in Redis; `cjson.new` makes a table with its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::arguments::{integer, is_absent, string, type_name};
use super::json_decode::decode;
use super::raw::{Fault, fault, library};

type Fallible<T> = std::result::Result<T, Fault>;

/// However deep the settings let tables be nested, the thread's stack holds no more than this.
pub const HARD_DEPTH: i32 = 1200;
const DEFAULT_DEPTH: i32 = 1000;
const DEFAULT_PRECISION: i32 = 14;

/// What `encode_invalid_numbers` chooses.
const INVALID: [&str; 3] = ["off", "on", "null"];
const INVALID_ON: i32 = 1;
const INVALID_NULL: i32 = 2;

/// The settings of one table.
#[derive(Debug)]
pub struct Settings {
    sparse_convert: AtomicBool,
    sparse_ratio: AtomicI32,
    sparse_safe: AtomicI32,
    encode_depth: AtomicI32,
    /// How deep decoded arrays and objects may be nested.
    pub decode_depth: AtomicI32,
    precision: AtomicI32,
    keep_buffer: AtomicBool,
    invalid: AtomicI32,
    /// Whether numbers that JSON does not know (hexadecimal, infinity) are read.
    pub decode_invalid: AtomicBool,
}

impl Settings {
    fn new() -> Settings {
        Settings {
            sparse_convert: AtomicBool::new(false),
            sparse_ratio: AtomicI32::new(2),
            sparse_safe: AtomicI32::new(10),
            encode_depth: AtomicI32::new(DEFAULT_DEPTH),
            decode_depth: AtomicI32::new(DEFAULT_DEPTH),
            precision: AtomicI32::new(DEFAULT_PRECISION),
            keep_buffer: AtomicBool::new(true),
            invalid: AtomicI32::new(0),
            decode_invalid: AtomicBool::new(true),
        }
    }
}

fn at_most(args: &MultiValue, count: usize) -> Fallible<()> {
    if args.len() > count {
        return Err(Fault::Argument(count as i32 + 1, "found too many arguments".into()));
    }
    Ok(())
}

fn set_integer(
    lua: &Lua,
    args: &MultiValue,
    index: usize,
    setting: &AtomicI32,
    low: i32,
    high: i32,
) -> Fallible<Value> {
    if !is_absent(args, index) {
        let value = i32::try_from(integer(lua, args, index)?).ok().filter(|value| (low..=high).contains(value));
        let Some(value) = value else {
            return Err(Fault::Argument(index as i32 + 1, format!("expected integer between {low} and {high}")));
        };
        setting.store(value, Ordering::Relaxed);
    }
    Ok(Value::Number(setting.load(Ordering::Relaxed).into()))
}

/// The option that an argument names: a truth value, or one of the texts.
fn option(lua: &Lua, args: &MultiValue, index: usize, options: &[&str]) -> Fallible<i32> {
    if let Some(Value::Boolean(truth)) = args.get(index) {
        return Ok(i32::from(*truth));
    }
    let text = string(lua, args, index)?;
    match options.iter().position(|option| option.as_bytes() == text) {
        Some(position) => Ok(position as i32),
        None => {
            let text = String::from_utf8_lossy(&text).into_owned();
            Err(Fault::Argument(index as i32 + 1, format!("invalid option '{text}'")))
        }
    }
}

fn set_switch(lua: &Lua, args: &MultiValue, setting: &AtomicBool) -> Fallible<Value> {
    if !is_absent(args, 0) {
        setting.store(option(lua, args, 0, &INVALID[..2])? == 1, Ordering::Relaxed);
    }
    Ok(Value::Boolean(setting.load(Ordering::Relaxed)))
}

/// Makes a table with settings of its own.
pub fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let settings = Arc::new(Settings::new());
    let with = |run: fn(&Lua, MultiValue, &Settings) -> Fallible<MultiValue>| {
        let settings = settings.clone();
        library(lua, move |lua, args| run(lua, args, &settings))
    };
    table.raw_set("encode", with(|lua, args, settings| encode(lua, &args, settings).map(single))?)?;
    table.raw_set("decode", with(|lua, args, settings| decode(lua, &args, settings).map(single))?)?;
    table.raw_set(
        "encode_sparse_array",
        with(|lua, args, settings| {
            at_most(&args, 3)?;
            let convert = set_switch(lua, &args, &settings.sparse_convert)?;
            let ratio = set_integer(lua, &args, 1, &settings.sparse_ratio, 0, i32::MAX)?;
            let safe = set_integer(lua, &args, 2, &settings.sparse_safe, 0, i32::MAX)?;
            Ok(MultiValue::from_iter([convert, ratio, safe]))
        })?,
    )?;
    table.raw_set(
        "encode_max_depth",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            set_integer(lua, &args, 0, &settings.encode_depth, 1, i32::MAX).map(single)
        })?,
    )?;
    table.raw_set(
        "decode_max_depth",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            set_integer(lua, &args, 0, &settings.decode_depth, 1, i32::MAX).map(single)
        })?,
    )?;
    table.raw_set(
        "encode_number_precision",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            set_integer(lua, &args, 0, &settings.precision, 1, DEFAULT_PRECISION).map(single)
        })?,
    )?;
    table.raw_set(
        // There is no buffer to keep: the setting is remembered for who asks for it, and changes nothing that a script could see.
        "encode_keep_buffer",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            set_switch(lua, &args, &settings.keep_buffer).map(single)
        })?,
    )?;
    table.raw_set(
        "encode_invalid_numbers",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            if !is_absent(&args, 0) {
                settings.invalid.store(option(lua, &args, 0, &INVALID)?, Ordering::Relaxed);
            }
            Ok(single(match settings.invalid.load(Ordering::Relaxed) {
                INVALID_NULL => Value::String(lua.create_string("null")?),
                other => Value::Boolean(other == INVALID_ON),
            }))
        })?,
    )?;
    table.raw_set(
        "decode_invalid_numbers",
        with(|lua, args, settings| {
            at_most(&args, 1)?;
            set_switch(lua, &args, &settings.decode_invalid).map(single)
        })?,
    )?;
    table.raw_set("new", library(lua, |lua, _| Ok(self::table(lua)?))?)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn single(value: Value) -> MultiValue {
    MultiValue::from_iter([value])
}

fn encode(lua: &Lua, args: &MultiValue, settings: &Settings) -> Fallible<Value> {
    let Some(value) = args.front().filter(|_| args.len() == 1) else {
        return Err(Fault::Argument(1, "expected 1 argument".into()));
    };
    let mut out = Vec::new();
    put(&mut out, value, settings, 0)?;
    Ok(Value::String(lua.create_string(out)?))
}

fn refuse<T>(value: &Value, why: &str) -> Fallible<T> {
    fault(format!("Cannot serialise {}: {why}", type_name(value)))
}

fn put(out: &mut Vec<u8>, value: &Value, settings: &Settings, depth: i32) -> Fallible<()> {
    match value {
        Value::String(text) => put_text(out, &text.as_bytes()),
        Value::Integer(n) => put_number(out, *n as f64, settings)?,
        Value::Number(n) => put_number(out, *n, settings)?,
        Value::Boolean(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Table(table) => {
            let depth = depth + 1;
            if depth > settings.encode_depth.load(Ordering::Relaxed).min(HARD_DEPTH) {
                return fault(format!("Cannot serialise, excessive nesting ({depth})"));
            }
            match array_length(table, settings)? {
                Some(length) => put_array(out, table, length, settings, depth)?,
                None => put_object(out, table, settings, depth)?,
            }
        }
        other => return refuse(other, "type not supported"),
    }
    Ok(())
}

/// The length of the array that the table is; `None` if it is an object (as an empty one is).
fn array_length(table: &Table, settings: &Settings) -> Fallible<Option<i64>> {
    let (mut greatest, mut items) = (0.0f64, 0.0f64);
    for pair in table.pairs::<Value, Value>() {
        let key = match pair?.0 {
            Value::Integer(n) => n as f64,
            Value::Number(n) => n,
            _ => return Ok(None),
        };
        if key < 1.0 || key.floor() != key {
            return Ok(None);
        }
        greatest = greatest.max(key);
        items += 1.0;
    }
    let ratio = f64::from(settings.sparse_ratio.load(Ordering::Relaxed));
    let safe = f64::from(settings.sparse_safe.load(Ordering::Relaxed));
    if ratio > 0.0 && greatest > items * ratio && greatest > safe {
        if !settings.sparse_convert.load(Ordering::Relaxed) {
            return fault("Cannot serialise table: excessively sparse array");
        }
        return Ok(None);
    }
    Ok(if items > 0.0 { Some(greatest as i64) } else { None })
}

fn put_array(out: &mut Vec<u8>, table: &Table, length: i64, settings: &Settings, depth: i32) -> Fallible<()> {
    out.push(b'[');
    for index in 1..=length {
        if index > 1 {
            out.push(b',');
        }
        put(out, &table.raw_get::<Value>(index)?, settings, depth)?;
    }
    out.push(b']');
    Ok(())
}

fn put_object(out: &mut Vec<u8>, table: &Table, settings: &Settings, depth: i32) -> Fallible<()> {
    out.push(b'{');
    let mut first = true;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match &key {
            Value::String(text) => put_text(out, &text.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                out.push(b'"');
                put(out, &key, settings, depth)?;
                out.push(b'"');
            }
            other => return refuse(other, "table key must be a number or string"),
        }
        out.push(b':');
        put(out, &value, settings, depth)?;
    }
    out.push(b'}');
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: f64, settings: &Settings) -> Fallible<()> {
    if !number.is_finite() {
        match settings.invalid.load(Ordering::Relaxed) {
            INVALID_NULL => out.extend_from_slice(b"null"),
            INVALID_ON if number.is_nan() => out.extend_from_slice(b"nan"),
            INVALID_ON => out.extend_from_slice(if number > 0.0 { b"inf" } else { b"-inf" }),
            _ => return refuse(&Value::Number(number), "must not be NaN or Inf"),
        }
        return Ok(());
    }
    let precision = usize::try_from(settings.precision.load(Ordering::Relaxed)).unwrap_or(1).max(1);
    out.extend_from_slice(general(number, precision).as_bytes());
    Ok(())
}

/// The text that C's `%.<precision>g` gives of a finite number.
fn general(number: f64, precision: usize) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text.to_string() }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
    trimmed(&format!("{number:.decimals$}"))
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..32 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::general;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, text) in [
            (0.1, "0.1"),
            (3.0, "3"),
            (-0.0, "-0"),
            (1e100, "1e+100"),
            (123_456_789_012_345_678.0, "1.2345678901235e+17"),
            (1.0 / 3.0, "0.33333333333333"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (99_999_999_999_999.0, "99999999999999"),
            (100_000_000_000_000.0, "1e+14"),
            (999_999_999_999_999.9, "1e+15"),
            (-5000.0, "-5000"),
        ] {
            assert_eq!(general(number, 14), text);
        }
        assert_eq!(general(1.0 / 3.0, 3), "0.333");
        assert_eq!(general(1234.0, 1), "1e+03");
    }
}
