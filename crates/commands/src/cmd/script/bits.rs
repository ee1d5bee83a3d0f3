//! The library `bit`: operations on 32-bit numbers.

use mlua::{Lua, MultiValue, Result, Table};

use super::arguments::{integer, is_absent, number};
use super::raw::{Fault, library};

/// The 32 low bits of a number, rounded to the nearest integer (ties to even): adding this brings them to the end of the mantissa.
const TO_MANTISSA: f64 = 6_755_399_441_055_744.0;

fn bits(lua: &Lua, args: &MultiValue, index: usize) -> std::result::Result<u32, Fault> {
    Ok((number(lua, args, index)? + TO_MANTISSA).to_bits() as u32)
}

fn signed(bits: u32) -> i32 {
    bits as i32
}

type Unary = fn(u32) -> u32;
type Binary = fn(u32, u32) -> u32;

/// Makes the table.
pub fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let unary: [(&str, Unary); 3] = [("tobit", |a| a), ("bnot", |a| !a), ("bswap", u32::swap_bytes)];
    for (name, apply) in unary {
        table.raw_set(name, library(lua, move |lua, args| Ok(signed(apply(bits(lua, &args, 0)?))))?)?;
    }
    let many: [(&str, Binary); 3] = [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, apply) in many {
        let fold = move |lua: &Lua, args: MultiValue| {
            let mut all = bits(lua, &args, 0)?;
            for index in 1..args.len() {
                all = apply(all, bits(lua, &args, index)?);
            }
            Ok(signed(all))
        };
        table.raw_set(name, library(lua, fold)?)?;
    }
    let shifts: [(&str, Binary); 5] = [
        ("lshift", |a, n| a << n),
        ("rshift", |a, n| a >> n),
        ("arshift", |a, n| (signed(a) >> n) as u32),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, apply) in shifts {
        let shift = move |lua: &Lua, args: MultiValue| {
            let value = bits(lua, &args, 0)?;
            Ok(signed(apply(value, bits(lua, &args, 1)? & 31)))
        };
        table.raw_set(name, library(lua, shift)?)?;
    }
    table.raw_set("tohex", library(lua, tohex)?)?;
    Ok(table)
}

fn tohex(lua: &Lua, args: MultiValue) -> std::result::Result<String, Fault> {
    let value = bits(lua, &args, 0)?;
    let digits = if is_absent(&args, 1) { 8 } else { integer(lua, &args, 1)? };
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let width = usize::try_from(digits.unsigned_abs()).unwrap_or(8).min(8);
    Ok(text[8 - width..].to_string())
}
