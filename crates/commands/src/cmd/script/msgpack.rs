//! The library `cmsgpack`: MessagePack, with Lua's one kind of table as arrays and maps.

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::arguments::{integer, is_absent, string};
use super::raw::{Fault, fault, library};

type Fallible<T> = std::result::Result<T, Fault>;

/// Tables nested deeper than this are packed as nil, which ends tables that hold themselves.
const MAX_PACKED_DEPTH: usize = 16;
/// How deep packed data may be nested.
const MAX_DEPTH: usize = 1000;

fn put_length(
    out: &mut Vec<u8>,
    length: usize,
    short: (u8, usize),
    one: Option<u8>,
    two: u8,
    four: u8,
) -> Fallible<()> {
    match (u8::try_from(length), u16::try_from(length), u32::try_from(length), one) {
        (Ok(n), ..) if length < short.1 => out.push(short.0 | n),
        (Ok(n), .., Some(tag)) => out.extend_from_slice(&[tag, n]),
        (_, Ok(n), ..) => {
            out.push(two);
            out.extend_from_slice(&n.to_be_bytes());
        }
        (_, _, Ok(n), _) => {
            out.push(four);
            out.extend_from_slice(&n.to_be_bytes());
        }
        _ => return fault("too long for MessagePack"),
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: f64) {
    let integral = number.floor() == number && number >= -(2f64.powi(63)) && number < 2f64.powi(63);
    if !integral {
        let single = number as f32;
        if f64::from(single) == number {
            out.push(0xca);
            out.extend_from_slice(&single.to_be_bytes());
        } else {
            out.push(0xcb);
            out.extend_from_slice(&number.to_be_bytes());
        }
        return;
    }
    let n = number as i64;
    match n {
        0..=0x7f => out.push(n as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, n as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&n.to_be_bytes());
        }
        -32..=-1 => out.push(n as i8 as u8),
        -128..=-33 => out.extend_from_slice(&[0xd0, n as i8 as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend_from_slice(&(n as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(n as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

/// How many pairs a table has, and whether their keys are exactly 1, 2, 3, ... Nothing is collected: the interpreter can only hold some
/// thousands of values for us at a time.
fn shape(table: &Table) -> Fallible<(usize, bool)> {
    let (mut count, mut greatest, mut positive) = (0usize, 0.0f64, true);
    for pair in table.pairs::<Value, Value>() {
        let key = match pair?.0 {
            Value::Integer(n) => n as f64,
            Value::Number(n) => n,
            _ => 0.0,
        };
        positive &= key >= 1.0 && key.floor() == key;
        greatest = greatest.max(key);
        count += 1;
    }
    Ok((count, positive && greatest == count as f64))
}

fn put(out: &mut Vec<u8>, value: &Value, depth: usize) -> Fallible<()> {
    match value {
        Value::String(text) => {
            put_length(out, text.as_bytes().len(), (0xa0, 32), Some(0xd9), 0xda, 0xdb)?;
            out.extend_from_slice(&text.as_bytes());
        }
        Value::Boolean(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => put_number(out, *n as f64),
        Value::Number(n) => put_number(out, *n),
        Value::Table(table) if depth < MAX_PACKED_DEPTH => {
            let (count, sequence) = shape(table)?;
            if sequence {
                put_length(out, count, (0x90, 16), None, 0xdc, 0xdd)?;
                for index in 1..=count {
                    put(out, &table.raw_get::<Value>(index)?, depth + 1)?;
                }
            } else {
                put_length(out, count, (0x80, 16), None, 0xde, 0xdf)?;
                for pair in table.pairs::<Value, Value>() {
                    let (key, value) = pair?;
                    put(out, &key, depth + 1)?;
                    put(out, &value, depth + 1)?;
                }
            }
        }
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack(lua: &Lua, args: MultiValue) -> Fallible<Value> {
    if args.is_empty() {
        return Err(Fault::Argument(0, "MessagePack pack needs input.".into()));
    }
    let mut out = Vec::new();
    for value in &args {
        put(&mut out, value, 0)?;
    }
    Ok(Value::String(lua.create_string(out)?))
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Fallible<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(count) else { return fault("Missing bytes in input.") };
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Fallible<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn text(&mut self, length: usize) -> Fallible<Value> {
        let bytes = self.bytes(length)?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn list(&mut self, count: usize, depth: usize) -> Fallible<Value> {
        let table = self.lua.create_table()?;
        for index in 1..=count {
            let value = self.value(depth + 1)?;
            table.raw_set(index, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, count: usize, depth: usize) -> Fallible<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..count {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            if key.is_nil() || key.as_number().is_some_and(f64::is_nan) {
                let text = if key.is_nil() { "table index is nil" } else { "table index is NaN" };
                return Err(Fault::Raise(Value::String(self.lua.create_string(text)?)));
            }
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }

    fn value(&mut self, depth: usize) -> Fallible<Value> {
        if depth > MAX_DEPTH {
            return fault("stack overflow (too many nested tables)");
        }
        let [tag] = self.array::<1>()?;
        let number = |n: f64| Ok(Value::Number(n));
        match tag {
            0..=0x7f => number(f64::from(tag)),
            0xe0..=0xff => number(f64::from(tag as i8)),
            0x80..=0x8f => self.map(usize::from(tag & 15), depth),
            0x90..=0x9f => self.list(usize::from(tag & 15), depth),
            0xa0..=0xbf => self.text(usize::from(tag & 31)),
            0xc0 => Ok(Value::Nil),
            0xc2 | 0xc3 => Ok(Value::Boolean(tag == 0xc3)),
            0xca => number(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => number(f64::from_be_bytes(self.array()?)),
            0xcc => number(f64::from(self.array::<1>()?[0])),
            0xcd => number(f64::from(u16::from_be_bytes(self.array()?))),
            0xce => number(f64::from(u32::from_be_bytes(self.array()?))),
            0xd0 => number(f64::from(self.array::<1>()?[0] as i8)),
            0xd1 => number(f64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => number(f64::from(i32::from_be_bytes(self.array()?))),
            // As in Redis, an unsigned one of 64 bits is read as if it were signed.
            0xcf | 0xd3 => number(i64::from_be_bytes(self.array()?) as f64),
            0xd9 => {
                let [length] = self.array::<1>()?;
                self.text(usize::from(length))
            }
            0xda => {
                let length = u16::from_be_bytes(self.array()?);
                self.text(usize::from(length))
            }
            0xdb => {
                let length = u32::from_be_bytes(self.array()?);
                self.text(length as usize)
            }
            0xdc => {
                let count = u16::from_be_bytes(self.array()?);
                self.list(usize::from(count), depth)
            }
            0xdd => {
                let count = u32::from_be_bytes(self.array()?);
                self.list(count as usize, depth)
            }
            0xde => {
                let count = u16::from_be_bytes(self.array()?);
                self.map(usize::from(count), depth)
            }
            0xdf => {
                let count = u32::from_be_bytes(self.array()?);
                self.map(count as usize, depth)
            }
            _ => fault("Bad data format in input."),
        }
    }
}

fn unpack_some(lua: &Lua, args: &MultiValue, limit: i64, offset: i64) -> Fallible<MultiValue> {
    let data = string(lua, args, 0)?;
    let length = data.len();
    if offset < 0 || limit < 0 {
        return fault(format!("Invalid request to unpack with offset of {offset} and limit of {length}."));
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)) else {
        return fault(format!("Start offset {offset} greater than input length {length}."));
    };
    let all = limit == 0 && offset == 0;
    let mut reader = Reader { lua, rest };
    let mut values = Vec::new();
    while !reader.rest.is_empty() && (all || (values.len() as i64) < limit) {
        values.push(reader.value(0)?);
    }
    if !all {
        let next = if reader.rest.is_empty() { -1.0 } else { (length - reader.rest.len()) as f64 };
        values.insert(0, Value::Number(next));
    }
    Ok(values.into_iter().collect())
}

fn offset(lua: &Lua, args: &MultiValue, index: usize) -> Fallible<i64> {
    if is_absent(args, index) { Ok(0) } else { integer(lua, args, index) }
}

/// Makes the table.
pub fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", library(lua, pack)?)?;
    table.raw_set("unpack", library(lua, |lua, args| unpack_some(lua, &args, 0, 0))?)?;
    table.raw_set(
        "unpack_one",
        library(lua, |lua, args| {
            let offset = offset(lua, &args, 1)?;
            unpack_some(lua, &args, 1, offset)
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        library(lua, |lua, args| {
            let limit = integer(lua, &args, 1)?;
            let offset = offset(lua, &args, 2)?;
            unpack_some(lua, &args, limit, offset)
        })?,
    )?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_DESCRIPTION", "MessagePack for Lua")?;
    table.raw_set("_COPYRIGHT", "")?;
    Ok(table)
}
