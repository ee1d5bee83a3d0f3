//! Numbers as Redis reads and writes them in commands, replies and configuration.
//!
//! Integers are strict: only the one text that writing the number would give is a number. Floats are what C's `strtod` takes, without
//! blanks, NaN, overflow or underflow to zero; they are written as `%.17g` writes them, which is what replies of Redis 7.0 and
//! version 6 RDB files hold. Arithmetic on floats kept as text (INCRBYFLOAT) is in [`crate::extended`].

use std::fmt::Write as _;
use std::ops::Deref;

/// The integer that `text` spells in its only valid form: no blanks, no plus, no leading zeros, no `-0`, within 64 signed bits.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if negative && digits == b"0" {
        return None;
    }
    let magnitude = parse_u64(digits)?;
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The unsigned integer that `text` spells, as strictly as [`parse_i64`].
#[must_use]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        b"0" => return Some(0),
        [b'1'..=b'9', ..] if text.len() <= 20 => {}
        _ => return None,
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    if text.len() < 20 {
        return text.iter().try_fold(0u64, |n, &byte| Some(n * 10 + digit(byte)?));
    }
    text.iter().try_fold(0u64, |n, &byte| n.checked_mul(10)?.checked_add(digit(byte)?))
}

/// C's `isspace` in the C locale.
#[must_use]
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d)
}

/// The float that the whole of `text` spells. Decimal, hexadecimal (`0x1p3`) and infinity in any case are floats; NaN, a leading
/// blank, a finite text too great for a float and one so small that it would become zero are not.
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let parsed = strtod(text)?;
    (!parsed.value.is_nan() && !parsed.overflow && !parsed.underflow).then_some(parsed.value)
}

/// As [`parse_f64`], but blanks may lead, the empty text is zero and what is out of range becomes infinity or zero:
/// how Redis reads the ends of a range of scores.
#[must_use]
pub fn parse_f64_loose(text: &[u8]) -> Option<f64> {
    let start = text.iter().position(|&b| !is_space(b)).unwrap_or(text.len());
    if text.is_empty() {
        return Some(0.0);
    }
    strtod(&text[start..]).map(|parsed| parsed.value).filter(|value| !value.is_nan())
}

struct Parsed {
    value: f64,
    overflow: bool,
    underflow: bool,
}

fn strtod(text: &[u8]) -> Option<Parsed> {
    let (negative, body) = match text {
        [b'-', body @ ..] => (true, body),
        [b'+', body @ ..] => (false, body),
        body => (false, body),
    };
    let signed = |value: f64| if negative { -value } else { value };
    match body.first()? {
        b'0' if body.len() > 1 && body[1] | 0x20 == b'x' => {
            let hex = Hex::parse(&body[2..])?;
            let value = hex.to_f64();
            Some(Parsed {
                value: signed(value),
                overflow: value.is_infinite(),
                underflow: value == 0.0 && hex.mantissa != 0,
            })
        }
        b'0'..=b'9' | b'.' => {
            let value: f64 = std::str::from_utf8(body).ok()?.parse().ok()?;
            let mantissa = body.split(|b| b | 0x20 == b'e').next().unwrap_or(body);
            let nonzero = mantissa.iter().any(|b| matches!(b, b'1'..=b'9'));
            Some(Parsed { value: signed(value), overflow: value.is_infinite(), underflow: value == 0.0 && nonzero })
        }
        _ if body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity") => {
            Some(Parsed { value: signed(f64::INFINITY), overflow: false, underflow: false })
        }
        _ => None,
    }
}

/// A hexadecimal float: `mantissa * 2^exponent`, with the lowest bit of the mantissa set if bits below it were lost.
pub(crate) struct Hex {
    pub(crate) mantissa: u128,
    pub(crate) exponent: i64,
}

impl Hex {
    /// Reads what follows `0x`.
    pub(crate) fn parse(text: &[u8]) -> Option<Hex> {
        let mut hex = Hex { mantissa: 0, exponent: 0 };
        let (mut digits, mut fraction, mut i) = (0, false, 0);
        while let Some(&byte) = text.get(i) {
            if byte == b'.' && !fraction {
                fraction = true;
            } else if let Some(digit) = (byte as char).to_digit(16) {
                digits += 1;
                if hex.mantissa >> 120 == 0 {
                    hex.mantissa = hex.mantissa << 4 | u128::from(digit);
                    hex.exponent -= if fraction { 4 } else { 0 };
                } else {
                    hex.mantissa |= u128::from(digit != 0);
                    hex.exponent += if fraction { 0 } else { 4 };
                }
            } else {
                break;
            }
            i += 1;
        }
        if digits == 0 {
            return None;
        }
        match &text[i..] {
            [] => {}
            [b'p' | b'P', power @ ..] => {
                hex.exponent = hex.exponent.saturating_add(decimal_exponent(power)?);
            }
            _ => return None,
        }
        Some(hex)
    }

    fn to_f64(&self) -> f64 {
        if self.mantissa == 0 {
            return 0.0;
        }
        let bits = 128 - i64::from(self.mantissa.leading_zeros());
        let top = self.exponent.saturating_add(bits);
        if top > 1024 {
            return f64::INFINITY;
        }
        if top < -1100 {
            return 0.0;
        }
        // How many bits the result can hold: 53, fewer when it is subnormal; all others are rounded off at once.
        let keep = (top + 1074).clamp(0, 53);
        let drop = bits - keep;
        let mut mantissa = self.mantissa;
        let mut exponent = self.exponent;
        if drop > 0 {
            mantissa = round_shift(mantissa, drop as u32);
            exponent += drop;
        }
        // Now exact: at most 54 bits, and both powers are normal floats or exact subnormal steps.
        let half = exponent / 2;
        mantissa as f64 * 2f64.powi(half as i32) * 2f64.powi((exponent - half) as i32)
    }
}

/// `n / 2^shift`, rounded to nearest, ties to even.
pub(crate) fn round_shift(n: u128, shift: u32) -> u128 {
    match shift {
        0 => n,
        1..=127 => {
            let (kept, lost) = (n >> shift, n & ((1 << shift) - 1));
            let half = 1u128 << (shift - 1);
            kept + u128::from(lost > half || (lost == half && kept & 1 == 1))
        }
        128 => u128::from(n > 1 << 127),
        _ => 0,
    }
}

/// A decimal exponent with an optional sign, saturated far beyond any float.
pub(crate) fn decimal_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |n, b| (n * 10 + i64::from(b - b'0')).min(1_000_000_000));
    Some(if negative { -magnitude } else { magnitude })
}

/// A short text on the stack.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; 32],
    len: u8,
}

impl Text {
    const fn new() -> Text {
        Text { bytes: [0; 32], len: 0 }
    }

    fn push(&mut self, text: &[u8]) {
        let start = usize::from(self.len);
        let end = (start + text.len()).min(self.bytes.len());
        debug_assert_eq!(end - start, text.len(), "the longest number has 24 characters");
        self.bytes[start..end].copy_from_slice(&text[..end - start]);
        self.len = end as u8;
    }
}

impl Deref for Text {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self).fmt(f)
    }
}

/// The text of an integer.
#[must_use]
pub fn i64_text(n: i64) -> Text {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut text = Text::new();
    if n < 0 {
        text.push(b"-");
    }
    text.push(&digits[at..]);
    text
}

/// The text of a float as C's `%.17g` gives it; `inf`, `-inf` and `nan` for what is not finite.
#[must_use]
pub fn f64_text(value: f64) -> Text {
    if value == value.trunc() && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) {
        return i64_text(value as i64);
    }
    let mut text = Text::new();
    if !value.is_finite() {
        text.push(if value.is_nan() {
            b"nan"
        } else if value > 0.0 {
            b"inf"
        } else {
            b"-inf"
        });
        return text;
    }
    // Seventeen digits, exactly rounded: d.dddddddddddddddde<exponent>.
    let mut digits = Text::new();
    let _ = write!(digits, "{:.16e}", value.abs());
    let split = digits.iter().position(|&b| b == b'e').unwrap_or(digits.len());
    let exponent = decimal_exponent(digits.get(split + 1..).unwrap_or(b"0")).unwrap_or(0);
    let mut mantissa = [b'0'; 17];
    mantissa[0] = digits[0];
    mantissa[1..].copy_from_slice(&digits[2..18]);
    let significant = mantissa.iter().rposition(|&b| b != b'0').map_or(1, |last| last + 1);
    let mantissa = &mantissa[..significant];

    if value.is_sign_negative() {
        text.push(b"-");
    }
    if (-4..17).contains(&exponent) {
        if exponent < 0 {
            text.push(b"0.");
            text.push(&b"000"[..(-exponent - 1) as usize]);
            text.push(mantissa);
        } else {
            let whole = exponent as usize + 1;
            if significant <= whole {
                text.push(mantissa);
                text.push(&[b'0'; 17][..whole - significant]);
            } else {
                text.push(&mantissa[..whole]);
                text.push(b".");
                text.push(&mantissa[whole..]);
            }
        }
        return text;
    }
    text.push(&mantissa[..1]);
    if significant > 1 {
        text.push(b".");
        text.push(&mantissa[1..]);
    }
    text.push(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.abs() < 10 {
        text.push(b"0");
    }
    text.push(&i64_text(exponent.abs()));
    text
}

/// A size in bytes with an optional unit, in any case: `k`, `m`, `g` are powers of 1000, `kb`, `mb`, `gb` of 1024, `b` is one.
#[must_use]
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    let split = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn integers_have_one_spelling() {
        for n in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
            assert_eq!(&*i64_text(n), n.to_string().as_bytes());
        }
        for text in
            ["", "-", "+1", " 1", "1 ", "01", "-0", "-01", "1.0", "9223372036854775808", "-9223372036854775809", "0x1"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"99999999999999999999999"), None);
    }

    #[test]
    fn floats_are_what_strtod_takes() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-2", 0.01),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x1p3", 8.0),
            ("0X.8", 0.5),
            ("0x10", 16.0),
            ("0x1p-1074", 5e-324),
            ("0x1.fffffffffffff8p0", 2.0),
            ("5e-324", 5e-324),
            ("0e999", 0.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "", " 1", "1 ", "nan", "-nan", "1e", "e5", ".", "+", "1e400", "-1e400", "1e-400", "0x", "0xg", "0x1p",
            "1x", "infin",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_f64_loose(b" 1e400"), Some(f64::INFINITY));
        assert_eq!(parse_f64_loose(b""), Some(0.0));
        assert_eq!(parse_f64_loose(b"1 "), None);
        assert_eq!(parse_f64_loose(b"nan"), None);
    }

    #[test]
    fn floats_are_written_with_seventeen_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (3.3, "3.2999999999999998"),
            (0.1, "0.10000000000000001"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (1e300, "1.0000000000000001e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(String::from_utf8_lossy(&f64_text(value)), text);
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same_float() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(17);
        let mut random = Random::new(seed);
        for _ in 0..100_000 {
            let value = f64::from_bits(random.next_u64());
            if value.is_finite() {
                assert_eq!(
                    parse_f64(&f64_text(value)).map(f64::to_bits),
                    Some(value.to_bits()),
                    "seed {seed}: {value:e}"
                );
            }
        }
    }

    #[test]
    fn memory_has_units() {
        assert_eq!(parse_memory(b"1024"), Some(1024));
        assert_eq!(parse_memory(b"10k"), Some(10_000));
        assert_eq!(parse_memory(b"512Mb"), Some(512 << 20));
        assert_eq!(parse_memory(b"1GB"), Some(1 << 30));
        assert_eq!(parse_memory(b"0"), Some(0));
        for text in ["", "k", "-1", "1t", "1 mb", "99999999999999999999", "99999999999gb"] {
            assert_eq!(parse_memory(text.as_bytes()), None, "{text}");
        }
    }
}
