//! The 80-bit floats of x86 in software: what INCRBYFLOAT and HINCRBYFLOAT compute with in Redis, digit for digit.
//!
//! A number is read exactly rounded into 64 bits of mantissa, added with one rounding, and written with seventeen decimals,
//! trailing zeros cut. All roundings are to nearest, ties to even. The result never depends on the machine.
//!
//! Invariant: a finite value is zero or has the top bit of its mantissa set.

use crate::number::{Hex, decimal_exponent, i64_text, round_shift};

/// Longest text that can be a number, in bytes.
const MAX_TEXT: usize = 5 * 1024 - 1;
/// Greatest power of two of the top bit.
const MAX_TOP: i64 = 16383;
/// Power of two of the smallest number's only bit.
const MIN_BIT: i64 = -16445;
/// Decimals that are written.
const DECIMALS: usize = 17;
const TEN_TO_DECIMALS: u128 = 10u128.pow(DECIMALS as u32);

/// A float with 64 bits of mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zero,
    /// `mantissa * 2^exponent`
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
    NotANumber,
}

impl Extended {
    /// Zero.
    pub const ZERO: Extended = Extended { negative: false, kind: Kind::Zero };

    /// The number that the whole of `text` spells, by the rules of [`crate::number::parse_f64`] with the range of 80 bits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, body) = match text {
            [b'-', body @ ..] => (true, body),
            [b'+', body @ ..] => (false, body),
            body => (false, body),
        };
        let kind = match body {
            [b'0', b'x' | b'X', hex @ ..] => {
                let hex = Hex::parse(hex)?;
                in_range(rounded(hex.mantissa, hex.exponent), hex.mantissa != 0)?
            }
            [b'0'..=b'9' | b'.', ..] => decimal(body)?,
            _ if body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity") => Kind::Infinite,
            _ => return None,
        };
        Some(Extended { negative, kind })
    }

    /// An integer, exactly.
    #[must_use]
    pub fn from_i64(n: i64) -> Extended {
        Extended { negative: n < 0, kind: rounded(u128::from(n.unsigned_abs()), 0) }
    }

    /// Whether it is neither infinite nor not a number.
    #[must_use]
    pub fn is_finite(self) -> bool {
        matches!(self.kind, Kind::Zero | Kind::Finite { .. })
    }

    /// The sum, rounded once. Opposite infinities have none, which shows as a value that is not finite.
    #[must_use]
    pub fn plus(self, other: Extended) -> Extended {
        let (x, y) = match (self.kind, other.kind) {
            (Kind::NotANumber, _) => return self,
            (_, Kind::NotANumber) => return other,
            (Kind::Infinite, Kind::Infinite) if self.negative != other.negative => {
                return Extended { negative: false, kind: Kind::NotANumber };
            }
            (Kind::Infinite, _) => return self,
            (_, Kind::Infinite) => return other,
            (Kind::Zero, Kind::Zero) => {
                return Extended { negative: self.negative && other.negative, kind: Kind::Zero };
            }
            (Kind::Zero, _) => return other,
            (_, Kind::Zero) => return self,
            (Kind::Finite { mantissa: a, exponent: i }, Kind::Finite { mantissa: b, exponent: j }) => {
                if (i, a) >= (j, b) {
                    ((self.negative, a, i), (other.negative, b, j))
                } else {
                    ((other.negative, b, j), (self.negative, a, i))
                }
            }
        };
        let ((negative, great, exponent), (other_negative, small, small_exponent)) = (x, y);
        // Both with 62 bits to spare below; what of the smaller falls off even those is kept as one set bit.
        let great = u128::from(great) << 62;
        let small = u128::from(small) << 62;
        let shift = (exponent - small_exponent).min(127) as u32;
        let aligned = (small >> shift) | u128::from(small & ((1 << shift) - 1) != 0);
        let sum = if negative == other_negative { great + aligned } else { great - aligned };
        if sum == 0 {
            return Extended::ZERO;
        }
        Extended { negative, kind: rounded(sum, exponent - 62) }
    }

    /// The text with at most seventeen decimals; `inf`, `-inf` and `nan` for what is not finite.
    #[must_use]
    pub fn text(self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.negative {
            out.push(b'-');
        }
        match self.kind {
            Kind::Zero => return b"0".to_vec(),
            Kind::Infinite => out.extend_from_slice(b"inf"),
            Kind::NotANumber => return b"nan".to_vec(),
            Kind::Finite { mantissa, exponent } if exponent >= 0 => {
                let mut whole = Big::from(u128::from(mantissa));
                whole.shift_left(exponent as usize);
                whole.write_decimal(&mut out);
            }
            Kind::Finite { mantissa, exponent } => {
                let shift = u32::try_from(-exponent).unwrap_or(u32::MAX);
                let scaled = round_shift(u128::from(mantissa) * TEN_TO_DECIMALS, shift);
                // A value is below 2^64, so its whole part fits.
                let (whole, fraction) = ((scaled / TEN_TO_DECIMALS) as u64, scaled % TEN_TO_DECIMALS);
                if scaled == 0 {
                    return b"0".to_vec();
                }
                out.extend_from_slice(whole.to_string().as_bytes());
                if fraction != 0 {
                    out.push(b'.');
                    let digits = i64_text(fraction as i64);
                    out.resize(out.len() + DECIMALS - digits.len(), b'0');
                    out.extend_from_slice(&digits);
                    while out.last() == Some(&b'0') {
                        out.pop();
                    }
                }
            }
        }
        out
    }
}

/// `n * 2^exponent` in 64 bits of mantissa.
fn rounded(n: u128, exponent: i64) -> Kind {
    if n == 0 {
        return Kind::Zero;
    }
    let bits = 128 - i64::from(n.leading_zeros());
    let (mut mantissa, mut exponent) = if bits > 64 {
        (round_shift(n, (bits - 64) as u32), exponent.saturating_add(bits - 64))
    } else {
        (n, exponent)
    };
    // Rounding up may have carried into a 65th bit; then all others are zero.
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    let up = (mantissa as u64).leading_zeros();
    exponent = exponent.saturating_sub(i64::from(up));
    if exponent.saturating_add(63) > MAX_TOP {
        return Kind::Infinite;
    }
    Kind::Finite { mantissa: (mantissa as u64) << up, exponent }
}

/// A parsed number, unless it left the range.
fn in_range(kind: Kind, nonzero: bool) -> Option<Kind> {
    match kind {
        Kind::Infinite | Kind::NotANumber => None,
        Kind::Zero => (!nonzero).then_some(kind),
        // At half of the smallest number and below it would be zero.
        Kind::Finite { mantissa, exponent } => {
            let top = exponent.saturating_add(63);
            (top >= MIN_BIT || (top == MIN_BIT - 1 && mantissa > 1 << 63)).then_some(kind)
        }
    }
}

/// Reads digits, a point, digits, and a power of ten.
fn decimal(text: &[u8]) -> Option<Kind> {
    let (mantissa, power) = match text.iter().position(|b| b | 0x20 == b'e') {
        Some(e) => (&text[..e], decimal_exponent(&text[e + 1..])?),
        None => (text, 0),
    };
    let mut digits = Vec::with_capacity(mantissa.len());
    let mut point = None;
    for &byte in mantissa {
        match byte {
            b'0'..=b'9' => digits.push(byte - b'0'),
            b'.' if point.is_none() => point = Some(digits.len()),
            _ => return None,
        }
    }
    if digits.is_empty() {
        return None;
    }
    let mut power = power - point.map_or(0, |at| (digits.len() - at) as i64);
    while digits.last() == Some(&0) {
        digits.pop();
        power += 1;
    }
    let leading = digits.iter().take_while(|&&d| d == 0).count();
    let digits = &digits[leading..];
    if digits.is_empty() {
        return Some(Kind::Zero);
    }
    // The first digit's power of ten decides at once about what is far out of range, before any big number is made.
    let first = power + digits.len() as i64;
    if !(-4960..=4940).contains(&first) {
        return None;
    }
    let mut n = Big::from(0);
    for &digit in digits {
        n.multiply_add(10, u64::from(digit));
    }
    let mut d = Big::from(1);
    let scaled = if power >= 0 { &mut n } else { &mut d };
    for _ in 0..power.unsigned_abs() {
        scaled.multiply_add(10, 0);
    }
    in_range(quotient(n, d), true)
}

/// `n / d`, rounded once. Neither is zero.
fn quotient(mut n: Big, mut d: Big) -> Kind {
    // Align so that d <= n < 2d, then take bits one by one: 64, one to round by, and whether anything is left.
    let mut exponent = n.bits() as i64 - d.bits() as i64;
    if exponent >= 0 {
        d.shift_left(exponent as usize);
    } else {
        n.shift_left(-exponent as usize);
    }
    if n < d {
        n.shift_left(1);
        exponent -= 1;
    }
    let mut bits: u128 = 0;
    for _ in 0..66 {
        bits <<= 1;
        if n >= d {
            n.subtract(&d);
            bits |= 1;
        }
        n.shift_left(1);
    }
    bits = (bits << 1) | u128::from(!n.is_zero());
    rounded(bits, exponent - 66)
}

/// A natural number in 64-bit words, lowest first, without zero words at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Big(Vec<u64>);

impl Big {
    fn from(n: u128) -> Big {
        let mut big = Big(vec![n as u64, (n >> 64) as u64]);
        big.trim();
        big
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 64 - top.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u64, addend: u64) {
        let mut carry = u128::from(addend);
        for word in &mut self.0 {
            carry += u128::from(*word) * u128::from(factor);
            *word = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            self.0.push(carry as u64);
        }
    }

    fn shift_left(&mut self, bits: usize) {
        let (words, bits) = (bits / 64, bits % 64);
        if bits != 0 {
            let mut carry = 0;
            for word in &mut self.0 {
                let next = *word >> (64 - bits);
                *word = (*word << bits) | carry;
                carry = next;
            }
            if carry != 0 {
                self.0.push(carry);
            }
        }
        if words != 0 && !self.is_zero() {
            self.0.splice(0..0, std::iter::repeat_n(0, words));
        }
    }

    /// Takes away `other`, which is not greater.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (i, word) in self.0.iter_mut().enumerate() {
            let (less, under) = word.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (less, again) = less.overflowing_sub(u64::from(borrow));
            *word = less;
            borrow = under || again;
        }
        debug_assert!(!borrow, "the smaller is taken from the greater");
        self.trim();
    }

    fn write_decimal(mut self, out: &mut Vec<u8>) {
        const BASE: u64 = 10u64.pow(19);
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u128;
            for word in self.0.iter_mut().rev() {
                let whole = (rest << 64) | u128::from(*word);
                *word = (whole / u128::from(BASE)) as u64;
                rest = whole % u128::from(BASE);
            }
            self.trim();
            groups.push(rest as u64);
        }
        match groups.pop() {
            None => out.push(b'0'),
            Some(first) => out.extend_from_slice(first.to_string().as_bytes()),
        }
        for group in groups.iter().rev() {
            out.extend_from_slice(format!("{group:019}").as_bytes());
        }
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Big) -> std::cmp::Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Big) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let a = Extended::parse(a.as_bytes()).expect("a number");
        let b = Extended::parse(b.as_bytes()).expect("a number");
        String::from_utf8(a.plus(b).text()).expect("ASCII")
    }

    #[test]
    fn sums_have_the_digits_that_people_expect() {
        assert_eq!(sum("10.50", "0.1"), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2"), "5200");
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("1", "-1"), "0");
        assert_eq!(sum("-1.5", "0.25"), "-1.25");
        assert_eq!(sum("3", "1.1"), "4.1");
        assert_eq!(sum("0x1p3", "1"), "9");
        assert_eq!(sum("1e-30", "0"), "0");
        assert_eq!(sum("-1e-30", "0"), "0");
        assert_eq!(sum("inf", "1"), "inf");
    }

    // The digits below are those of a real Redis 7.0 on x86-64.
    #[test]
    fn large_and_odd_values_agree_with_redis() {
        assert_eq!(sum("17179869184", "1.5"), "17179869185.5");
        assert_eq!(sum("1e20", "1"), "100000000000000000000");
        assert_eq!(sum("3.0e-9", "1e-17"), "0.00000000300000001");
        assert_eq!(sum("18446744073709551615", "0.5"), "18446744073709551616");
        assert_eq!(sum("0.1", "18446744073709551615").len(), 20);
    }

    #[test]
    fn out_of_range_is_no_number() {
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "1e5000",
            "1e-5000",
            ".",
            "e1",
            "1e",
            "0x",
            "0x1p20000",
            "0x1p-20000",
            "1e99999999999",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        assert!(Extended::parse(b"1e4932").is_some());
        assert!(Extended::parse(b"1.2e4932").is_none());
        assert!(Extended::parse(b"4e-4951").is_some());
        assert!(Extended::parse(b"0e99999").is_some());
        assert!(Extended::parse(&[b'1'; 5120]).is_none());
        let infinite = Extended::parse(b"inf").expect("a number");
        let other = Extended::parse(b"-inf").expect("a number");
        assert!(!infinite.plus(other).is_finite());
    }

    #[test]
    fn integers_are_exact() {
        for n in [0, 1, -1, i64::MAX, i64::MIN, 1 << 53 | 1] {
            assert_eq!(Extended::from_i64(n).text(), n.to_string().into_bytes());
            assert_eq!(Extended::parse(n.to_string().as_bytes()), Some(Extended::from_i64(n)));
        }
    }
}
