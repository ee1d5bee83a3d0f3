//! The decoder of `cjson`.
//!
//! Errors name what was expected, what was found, and where, counted from 1.

use std::sync::atomic::Ordering;

use mlua::{Lua, MultiValue, Value};

use super::arguments::string;
use super::json::{HARD_DEPTH, Settings};
use super::raw::{Fault, fault};

type Fallible<T> = std::result::Result<T, Fault>;

/// Decodes the one argument.
pub fn decode(lua: &Lua, args: &MultiValue, settings: &Settings) -> Fallible<Value> {
    if args.len() != 1 {
        return Err(Fault::Argument(1, "expected 1 argument".into()));
    }
    let text = string(lua, args, 0)?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return fault("JSON parser does not support UTF-16 or UTF-32");
    }
    let mut parser = Parser {
        lua,
        text: &text,
        at: 0,
        depth: 0,
        max_depth: settings.decode_depth.load(Ordering::Relaxed).min(HARD_DEPTH),
        invalid_numbers: settings.decode_invalid.load(Ordering::Relaxed),
    };
    let first = parser.token()?;
    let value = parser.value(first)?;
    let last = parser.token()?;
    if !matches!(last.kind, Kind::End) {
        return last.unexpected("the end");
    }
    Ok(value)
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

struct Token {
    kind: Kind,
    at: usize,
}

impl Token {
    fn unexpected<T>(&self, expected: &str) -> Fallible<T> {
        let found = match self.kind {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::Text(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Error(what) => what,
        };
        fault(format!("Expected {expected} but found {found} at character {}", self.at + 1))
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    depth: i32,
    max_depth: i32,
    invalid_numbers: bool,
}

impl Parser<'_> {
    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn token(&mut self) -> Fallible<Token> {
        while matches!(self.rest().first(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let single = |kind| (kind, 1);
        let (kind, length) = match self.rest() {
            [] | [0, ..] => (Kind::End, 0),
            [b'{', ..] => single(Kind::ObjectBegin),
            [b'}', ..] => single(Kind::ObjectEnd),
            [b'[', ..] => single(Kind::ArrayBegin),
            [b']', ..] => single(Kind::ArrayEnd),
            [b':', ..] => single(Kind::Colon),
            [b',', ..] => single(Kind::Comma),
            [b'"', ..] => return Ok(self.quoted()),
            [b'-' | b'0'..=b'9', ..] => {
                if !self.invalid_numbers && is_invalid_number(self.rest()) {
                    (Kind::Error("invalid number"), 0)
                } else {
                    number(self.rest())
                }
            }
            [b't', b'r', b'u', b'e', ..] => (Kind::Boolean(true), 4),
            [b'f', b'a', b'l', b's', b'e', ..] => (Kind::Boolean(false), 5),
            [b'n', b'u', b'l', b'l', ..] => (Kind::Null, 4),
            [b'+' | b'i' | b'I' | b'n' | b'N', ..] if self.invalid_numbers && is_invalid_number(self.rest()) => {
                number(self.rest())
            }
            _ => (Kind::Error("invalid token"), 0),
        };
        self.at += length;
        Ok(Token { kind, at })
    }

    /// A string; the quote is next.
    fn quoted(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let error = |what, at| Token { kind: Kind::Error(what), at };
            match *self.rest() {
                [] | [0, ..] => return error("unexpected end of string", self.at),
                [b'"', ..] => {
                    self.at += 1;
                    return Token { kind: Kind::Text(text), at: start };
                }
                [b'\\', b'u', ..] => match unicode(self.rest()) {
                    Some((character, length)) => {
                        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        self.at += length;
                    }
                    None => return error("invalid unicode escape code", self.at),
                },
                [b'\\', escape, ..] => {
                    text.push(match escape {
                        b'"' | b'\\' | b'/' => escape,
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        _ => return error("invalid escape code", self.at),
                    });
                    self.at += 2;
                }
                [b'\\'] => return error("invalid escape code", self.at),
                [byte, ..] => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn value(&mut self, token: Token) -> Fallible<Value> {
        Ok(match token.kind {
            Kind::Text(text) => Value::String(self.lua.create_string(text)?),
            Kind::Number(number) => Value::Number(number),
            Kind::Boolean(truth) => Value::Boolean(truth),
            Kind::Null => Value::NULL,
            Kind::ObjectBegin => self.object()?,
            Kind::ArrayBegin => self.array()?,
            _ => return token.unexpected("value"),
        })
    }

    fn descend(&mut self) -> Fallible<()> {
        self.depth += 1;
        if self.depth > self.max_depth {
            return fault(format!("Found too many nested data structures ({}) at character {}", self.depth, self.at));
        }
        Ok(())
    }

    fn object(&mut self) -> Fallible<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token()?;
        if matches!(token.kind, Kind::ObjectEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::Text(key) = token.kind else { return token.unexpected("object key string") };
            let key = self.lua.create_string(key)?;
            let colon = self.token()?;
            if !matches!(colon.kind, Kind::Colon) {
                return colon.unexpected("colon");
            }
            let first = self.token()?;
            let value = self.value(first)?;
            table.raw_set(key, value)?;
            let after = self.token()?;
            match after.kind {
                Kind::ObjectEnd => break,
                Kind::Comma => token = self.token()?,
                _ => return after.unexpected("comma or object end"),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    fn array(&mut self) -> Fallible<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token()?;
        if matches!(token.kind, Kind::ArrayEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            let value = self.value(token)?;
            table.raw_set(index, value)?;
            let after = self.token()?;
            match after.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.token()?,
                _ => return after.unexpected("comma or array end"),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

fn four_digits(text: &[u8]) -> Option<u32> {
    let digits = text.get(2..6)?;
    if text[0] != b'\\' || text[1] != b'u' {
        return None;
    }
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

/// The character of `\uXXXX` or of a pair of those, and how long it is.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let first = four_digits(text)?;
    if first & 0xF800 != 0xD800 {
        return Some((char::from_u32(first)?, 6));
    }
    if first & 0x400 != 0 {
        return None;
    }
    let second = four_digits(text.get(6..)?)?;
    if second & 0xFC00 != 0xDC00 {
        return None;
    }
    Some((char::from_u32(0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF))?, 12))
}

/// Whether what begins here is a number that C reads and JSON does not have.
fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', next, ..] => next.is_ascii_digit() || next.eq_ignore_ascii_case(&b'x'),
        [b'0'..=b'9', ..] => false,
        _ => begins_with(text, b"inf") || begins_with(text, b"nan"),
    }
}

fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// The number at the beginning as C's `strtod` reads it, and how long it is.
fn number(text: &[u8]) -> (Kind, usize) {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let negative = text.first() == Some(&b'-');
    let body = &text[sign..];
    let found = if begins_with(body, b"infinity") {
        Some((f64::INFINITY, 8))
    } else if begins_with(body, b"inf") {
        Some((f64::INFINITY, 3))
    } else if begins_with(body, b"nan") {
        Some((f64::NAN, 3))
    } else if begins_with(body, b"0x") && body.get(2).is_some_and(u8::is_ascii_hexdigit) {
        Some(hexadecimal(body))
    } else {
        decimal(body)
    };
    match found {
        Some((number, length)) => (Kind::Number(if negative { -number } else { number }), sign + length),
        None => (Kind::Error("invalid number"), 0),
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = digits(text);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(&text[length + 1..]);
        if whole + fraction == 0 {
            return None;
        }
        length += 1 + fraction;
    }
    if length == 0 {
        return None;
    }
    if matches!(text.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(text.get(length + 1 + sign..).unwrap_or_default());
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let number = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
    Some((number, length))
}

/// `0x` and digits, of which there is at least one. Fractions and binary exponents, which `strtod` also knows, end the number.
fn hexadecimal(text: &[u8]) -> (f64, usize) {
    let digits = text[2..].iter().map_while(|&b| char::from(b).to_digit(16));
    let (number, count) = digits.fold((0.0, 0), |(sum, count), digit| (sum * 16.0 + f64::from(digit), count + 1));
    (number, 2 + count)
}
