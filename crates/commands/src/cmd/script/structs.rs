//! The library `struct`: numbers and strings packed into bytes by a format.
//!
//! `b B h H l L T i I` are integers of 1, 1, 2, 2, 8, 8, 8 and (`i`, `I`: 4 or the number that follows) bytes, `f` and `d` floats, `cN` N
//! bytes, `s` a string with a zero behind it, `x` a byte of padding; `<` and `>` choose the byte order, `!N` the alignment.

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::arguments::{integer, is_absent, number, string};
use super::raw::{Fault, fault, library};

type Fallible<T> = std::result::Result<T, Fault>;

/// The greatest size of an integer, bytes.
const MAX_INTEGER: usize = 32;
/// What `!` alone aligns to.
const DEFAULT_ALIGNMENT: usize = 8;
const MAX_COUNT: usize = i32::MAX as usize;

struct Format<'a> {
    rest: &'a [u8],
    little: bool,
    alignment: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format { rest: text, little: true, alignment: 1 }
    }

    fn count(&mut self, default: usize) -> Fallible<usize> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(default);
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let number = ardb_base::number::parse_u64(number.trim_ascii_start()).or_else(|| {
            // Leading zeros are digits here.
            std::str::from_utf8(number).ok()?.parse().ok()
        });
        match number.and_then(|n| usize::try_from(n).ok()) {
            Some(number) if number <= MAX_COUNT => Ok(number),
            _ => fault("integral size overflow"),
        }
    }

    /// The next letter and its size.
    fn next(&mut self) -> Fallible<Option<(u8, usize)>> {
        let Some((&letter, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let size = match letter {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.count(1)?,
            b'i' | b'I' => {
                let size = self.count(4)?;
                if size > MAX_INTEGER {
                    return fault(format!("integral size {size} is larger than limit of {MAX_INTEGER}"));
                }
                size
            }
            _ => 0,
        };
        Ok(Some((letter, size)))
    }

    /// How many bytes bring position `at` to where an item of this size may stand.
    fn padding(&self, at: usize, letter: u8, size: usize) -> usize {
        if size == 0 || letter == b'c' {
            return 0;
        }
        let size = size.min(self.alignment);
        size.wrapping_sub(at & (size - 1)) & (size - 1)
    }

    /// A letter that is no item.
    fn control(&mut self, letter: u8) -> Fallible<()> {
        match letter {
            b' ' => {}
            b'<' => self.little = true,
            b'>' => self.little = false,
            b'!' => {
                let alignment = self.count(DEFAULT_ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return fault(format!("alignment {alignment} is not a power of 2"));
                }
                self.alignment = alignment;
            }
            other => {
                return Err(Fault::Argument(1, format!("invalid format option '{}'", char::from(other))));
            }
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, mut bytes: Vec<u8>, little: bool) {
    if !little {
        bytes.reverse();
    }
    out.extend_from_slice(&bytes);
}

fn pack(lua: &Lua, args: MultiValue) -> Fallible<Value> {
    let text = string(lua, &args, 0)?;
    let mut format = Format::new(&text);
    let mut out = Vec::new();
    let mut next = 1;
    while let Some((letter, size)) = format.next()? {
        out.resize(out.len() + format.padding(out.len(), letter, size), 0);
        match letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = number(lua, &args, next)?;
                next += 1;
                let value = if value < 0.0 { value as i64 as u64 } else { value as u64 };
                let mut bytes = value.to_le_bytes().to_vec();
                bytes.resize(size, 0);
                put(&mut out, bytes, format.little);
            }
            b'x' => out.push(0),
            b'f' => {
                put(&mut out, (number(lua, &args, next)? as f32).to_le_bytes().to_vec(), format.little);
                next += 1;
            }
            b'd' => {
                put(&mut out, number(lua, &args, next)?.to_le_bytes().to_vec(), format.little);
                next += 1;
            }
            b'c' | b's' => {
                let bytes = string(lua, &args, next)?;
                next += 1;
                let size = if size == 0 { bytes.len() } else { size };
                let Some(bytes) = bytes.get(..size) else {
                    return Err(Fault::Argument(next as i32 + 1, "string too short".into()));
                };
                out.extend_from_slice(bytes);
                if letter == b's' {
                    out.push(0);
                }
            }
            other => format.control(other)?,
        }
    }
    Ok(Value::String(lua.create_string(out)?))
}

/// The integer in `bytes`, which are in little-endian order.
fn read_integer(bytes: &[u8], signed: bool) -> f64 {
    let mut low = [0; 8];
    low.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let value = u64::from_le_bytes(low);
    if !signed {
        return value as f64;
    }
    match bytes.len() {
        0 => 0.0,
        size @ 1..8 => {
            let unused = 64 - 8 * size as u32;
            ((value << unused) as i64 >> unused) as f64
        }
        _ => value as i64 as f64,
    }
}

fn unpack(lua: &Lua, args: MultiValue) -> Fallible<MultiValue> {
    let text = string(lua, &args, 0)?;
    let data = string(lua, &args, 1)?;
    let start = if is_absent(&args, 2) { 1 } else { integer(lua, &args, 2)? };
    let too_short = || Fault::Argument(2, "data string too short".into());
    if start == 0 {
        return Err(Fault::Argument(3, "offset must be 1 or greater".into()));
    }
    let mut at = usize::try_from(start).map_err(|_| too_short())? - 1;
    let mut format = Format::new(&text);
    let mut values = Vec::new();
    while let Some((letter, mut size)) = format.next()? {
        at += format.padding(at, letter, size);
        let mut item = data.get(at..).and_then(|rest| rest.get(..size)).ok_or_else(too_short)?;
        match letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' | b'f' | b'd' => {
                let mut bytes = item.to_vec();
                if !format.little {
                    bytes.reverse();
                }
                values.push(Value::Number(match (letter, &bytes[..]) {
                    (b'f', &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
                    (b'd', &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                    _ => read_integer(&bytes, letter.is_ascii_lowercase()),
                }));
            }
            b'x' => {}
            b'c' => {
                if size == 0 {
                    let Some(count) = values.last().and_then(Value::as_number) else {
                        return fault("format 'c0' needs a previous size");
                    };
                    values.pop();
                    size = if count >= 0.0 { count as usize } else { usize::MAX };
                    item = data.get(at..).and_then(|rest| rest.get(..size)).ok_or_else(too_short)?;
                }
                values.push(Value::String(lua.create_string(item)?));
            }
            b's' => {
                let rest = data.get(at..).unwrap_or_default();
                let Some(end) = rest.iter().position(|&b| b == 0) else { return fault("unfinished string in data") };
                values.push(Value::String(lua.create_string(&rest[..end])?));
                size = end + 1;
            }
            other => format.control(other)?,
        }
        at += size;
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(values.into_iter().collect())
}

fn size(lua: &Lua, args: MultiValue) -> Fallible<f64> {
    let text = string(lua, &args, 0)?;
    let mut format = Format::new(&text);
    let mut total = 0usize;
    while let Some((letter, size)) = format.next()? {
        let item = total + format.padding(total, letter, size);
        match (letter, size) {
            (b's', _) => return Err(Fault::Argument(1, "option 's' has no fixed size".into())),
            (b'c', 0) => return Err(Fault::Argument(1, "option 'c0' has no fixed size".into())),
            _ if !letter.is_ascii_alphanumeric() => format.control(letter)?,
            _ => {}
        }
        total = item + size;
        if total > MAX_COUNT {
            return fault("integral size overflow");
        }
    }
    Ok(total as f64)
}

/// Makes the table.
pub fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", library(lua, pack)?)?;
    table.raw_set("unpack", library(lua, unpack)?)?;
    table.raw_set("size", library(lua, size)?)?;
    Ok(table)
}
