//! Between Lua's values and replies: what a command replied becomes a value, and what a script returns becomes a reply.
//!
//! Replies of commands are our own, so they are well formed; should one not be, it reads as nil.

use ardb_base::number::f64_text;
use ardb_resp::{Protocol, Reply};
use mlua::{Lua, Result, Table, Value};

/// How deep tables that a script returns may be nested. A table that holds itself ends there.
const MAX_DEPTH: usize = 1000;

/// The field of an error table that says that the error is in the statistics already.
pub const COUNTED: &str = "ignore_error_stats_update";

/// As [`error_table`], for an error that has been counted.
pub fn counted_error(lua: &Lua, text: &[u8]) -> Result<Value> {
    let table = error_table(lua, text)?;
    table.raw_set(COUNTED, true)?;
    Ok(Value::Table(table))
}

/// The error table that scripts see: `-CODE text` is taken as it is, anything else gets the code `ERR`.
pub fn error_table(lua: &Lua, text: &[u8]) -> Result<Table> {
    let coded = text.strip_prefix(b"-");
    let text = coded.unwrap_or(text);
    let end = text.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let text = &text[..end];
    let table = lua.create_table_with_capacity(0, 1)?;
    if coded.is_some() && text.contains(&b' ') {
        table.raw_set("err", lua.create_string(text)?)?;
    } else {
        table.raw_set("err", lua.create_string([b"ERR ", text].concat())?)?;
    }
    Ok(table)
}

/// A table with one field.
pub fn single(lua: &Lua, field: &str, value: impl mlua::IntoLua) -> Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(field, value)?;
    Ok(Value::Table(table))
}

/// The value of a command's reply.
pub fn to_lua(lua: &Lua, reply: &[u8]) -> Result<Value> {
    Ok(Reader { lua, rest: reply }.value()?.unwrap_or(Value::Nil))
}

/// The reply with its elements in the order of their bytes, if it is an array of bulk strings.
pub fn sorted(reply: &[u8]) -> Option<Vec<u8>> {
    let (count, mut rest) = header(reply, b'*')?;
    let mut elements = Vec::new();
    for _ in 0..count {
        let (length, behind) = header(rest, b'$')?;
        elements.push(behind.get(..length)?);
        rest = behind.get(length + 2..)?;
    }
    elements.sort_unstable();
    let mut out = Reply::new(Protocol::Resp2);
    out.array(elements.len());
    elements.iter().for_each(|element| out.bulk(element));
    Some(std::mem::take(out.buffer_mut()))
}

/// The number of a line that begins with `kind`, and what stands behind the line.
fn header(reply: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let rest = reply.strip_prefix(&[kind])?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let number = ardb_base::number::parse_i64(&rest[..end])?;
    Some((usize::try_from(number).ok()?, &rest[end + 2..]))
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        Some(line)
    }

    fn bytes(&mut self, length: i64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let bytes = self.rest.get(..length)?;
        self.rest = self.rest.get(length + 2..)?;
        Some(bytes)
    }

    /// The next value; `None` if the reply makes no sense from here.
    fn value(&mut self) -> Result<Option<Value>> {
        let Some(line) = self.line() else { return Ok(None) };
        let Some((&kind, text)) = line.split_first() else { return Ok(None) };
        let lua = self.lua;
        let number = || ardb_base::number::parse_i64(text);
        Ok(Some(match kind {
            b'+' => single(lua, "ok", lua.create_string(text)?)?,
            b'-' => counted_error(lua, line)?,
            b':' => match number() {
                Some(n) => Value::Number(n as f64),
                None => return Ok(None),
            },
            b'$' => match number() {
                Some(n) if n < 0 => Value::Boolean(false),
                Some(n) => match self.bytes(n) {
                    Some(bytes) => Value::String(lua.create_string(bytes)?),
                    None => return Ok(None),
                },
                None => return Ok(None),
            },
            b'*' | b'>' => match number() {
                Some(n) if n < 0 => Value::Boolean(false),
                Some(n) => {
                    // The capacity is a hint; the elements are bytes that are here, at least four for each.
                    let hint = usize::try_from(n).unwrap_or(0).min(self.rest.len() / 4 + 1);
                    let table = lua.create_table_with_capacity(hint, 0)?;
                    for index in 1..=n {
                        let Some(value) = self.value()? else { return Ok(None) };
                        table.raw_set(index, value)?;
                    }
                    Value::Table(table)
                }
                None => return Ok(None),
            },
            b'%' => {
                let table = lua.create_table()?;
                for _ in 0..number().unwrap_or(0) {
                    let (Some(key), Some(value)) = (self.value()?, self.value()?) else { return Ok(None) };
                    if !key.is_nil() {
                        table.raw_set(key, value)?;
                    }
                }
                single(lua, "map", table)?
            }
            b'~' => {
                let table = lua.create_table()?;
                for _ in 0..number().unwrap_or(0) {
                    let Some(member) = self.value()? else { return Ok(None) };
                    if !member.is_nil() {
                        table.raw_set(member, true)?;
                    }
                }
                single(lua, "set", table)?
            }
            b'_' => Value::Nil,
            b'#' => Value::Boolean(text == b"t"),
            b',' => single(lua, "double", ardb_base::number::parse_f64_loose(text).unwrap_or(f64::NAN))?,
            b'(' => single(lua, "big_number", lua.create_string(text)?)?,
            b'=' => {
                let Some(bytes) = number().and_then(|n| self.bytes(n)) else { return Ok(None) };
                let table = lua.create_table()?;
                table.raw_set("format", lua.create_string(bytes.get(..3).unwrap_or_default())?)?;
                table.raw_set("string", lua.create_string(bytes.get(4..).unwrap_or_default())?)?;
                single(lua, "verbatim_string", table)?
            }
            _ => return Ok(None),
        }))
    }
}

/// A Lua number as Redis's C makes an integer of it: what does not fit (and what is no number) is the least one.
pub fn truncate(number: f64) -> i64 {
    if number >= -(2f64.powi(63)) && number < 2f64.powi(63) { number as i64 } else { i64::MIN }
}

fn on_one_line(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }).collect()
}

/// Writes what a script returned. `script` is the protocol that the script chose: it decides what a truth value becomes.
pub fn from_lua(out: &mut Reply, value: &Value, script: Protocol) -> Result<()> {
    write(out, value, script, 0)
}

fn write(out: &mut Reply, value: &Value, script: Protocol, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        out.error(b"ERR reached lua stack limit");
        return Ok(());
    }
    match value {
        Value::String(text) => out.bulk(&text.as_bytes()),
        Value::Integer(n) => out.int(*n),
        Value::Number(n) => out.int(truncate(*n)),
        Value::Boolean(truth) => match script {
            Protocol::Resp3 => out.boolean(*truth),
            Protocol::Resp2 if *truth => out.int(1),
            Protocol::Resp2 => out.null(),
        },
        Value::Table(table) => write_table(out, table, script, depth)?,
        _ => out.null(),
    }
    Ok(())
}

fn write_table(out: &mut Reply, table: &Table, script: Protocol, depth: usize) -> Result<()> {
    if let Value::String(text) = table.raw_get::<Value>("err")? {
        out.error(&text.as_bytes());
        return Ok(());
    }
    if let Value::String(text) = table.raw_get::<Value>("ok")? {
        out.raw(b"+");
        out.raw(&on_one_line(&text.as_bytes()));
        out.raw(b"\r\n");
        return Ok(());
    }
    match table.raw_get::<Value>("double")? {
        Value::Number(n) => {
            out.double_text(&f64_text(n));
            return Ok(());
        }
        Value::Integer(n) => {
            out.double_text(&f64_text(n as f64));
            return Ok(());
        }
        _ => {}
    }
    if let Value::Table(map) = table.raw_get::<Value>("map")? {
        let (mark, mut count) = (out.later(), 0);
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            write(out, &key, script, depth + 1)?;
            write(out, &value, script, depth + 1)?;
            count += 1;
        }
        out.map_at(mark, count);
        return Ok(());
    }
    if let Value::Table(set) = table.raw_get::<Value>("set")? {
        let (mark, mut count) = (out.later(), 0);
        for pair in set.pairs::<Value, Value>() {
            write(out, &pair?.0, script, depth + 1)?;
            count += 1;
        }
        out.set_at(mark, count);
        return Ok(());
    }
    if let Value::String(digits) = table.raw_get::<Value>("big_number")? {
        let digits = on_one_line(&digits.as_bytes());
        if out.is_resp3() {
            out.raw(b"(");
            out.raw(&digits);
            out.raw(b"\r\n");
        } else {
            out.bulk(&digits);
        }
        return Ok(());
    }
    if let Value::Table(verbatim) = table.raw_get::<Value>("verbatim_string")?
        && let (Value::String(format), Value::String(text)) =
            (verbatim.raw_get::<Value>("format")?, verbatim.raw_get::<Value>("string")?)
    {
        let mut three = [b' '; 3];
        three.iter_mut().zip(format.as_bytes().iter()).for_each(|(to, from)| *to = *from);
        match std::str::from_utf8(&three) {
            Ok(format) => out.verbatim(format, &text.as_bytes()),
            Err(_) => out.verbatim("txt", &text.as_bytes()),
        }
        return Ok(());
    }
    let (mark, mut count) = (out.later(), 0);
    loop {
        let value = table.raw_get::<Value>(count + 1)?;
        if value.is_nil() {
            break;
        }
        write(out, &value, script, depth + 1)?;
        count += 1;
    }
    out.array_at(mark, count);
    Ok(())
}
