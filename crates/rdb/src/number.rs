//! Numbers as text: what Redis writes into RDBs, and what its `strtod` would read back. Knows no format beyond that.

/// Reads a score. `None` for what is not a number, `nan` included.
pub(crate) fn parse_double(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Writes a finite score so that `strtod` gives back the same bits: integers plainly, the rest in the shortest form.
pub(crate) fn put_double(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite(), "infinities have codes of their own");
    // Below 2^53 each integer is exact, so the plain digits are right, and they are what Redis writes.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.trunc() == value && value.abs() < EXACT && !(value == 0.0 && value.is_sign_negative()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

/// The integer that `text` spells in the one way that Redis would spell it, if it fits 32 bits.
pub(crate) fn canonical_i32(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 10 => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(d - b'0');
    }
    i32::try_from(if negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(v: f64) -> String {
        let mut out = Vec::new();
        put_double(&mut out, v);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_come_back_bit_by_bit() {
        assert_eq!(shown(3.0), "3");
        assert_eq!(shown(-0.0), "-0");
        assert_eq!(shown(0.1), "0.1");
        assert_eq!(shown(1e20), "1e20");
        let mut random = ardb_base::random::Random::new(7);
        for _ in 0..20_000 {
            let v = f64::from_bits(random.next_u64());
            if v.is_finite() {
                let text = shown(v);
                assert!(text.len() < 250);
                assert_eq!(parse_double(text.as_bytes()).unwrap().to_bits(), v.to_bits(), "{text}");
            }
        }
        assert_eq!(parse_double(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_double(b"1.0000000000000002e+20"), Some(1.000_000_000_000_000_2e20));
        for bad in [&b""[..], b"nan", b"-nan", b"1x", b" 1", b"\xff"] {
            assert_eq!(parse_double(bad), None);
        }
    }

    #[test]
    fn only_canonical_integers_are_integers() {
        assert_eq!(canonical_i32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(canonical_i32(b"0"), Some(0));
        for not in [&b""[..], b"-", b"-0", b"007", b"+1", b"1 ", b"2147483648", b"99999999999", b"1a"] {
            assert_eq!(canonical_i32(not), None, "{}", not.escape_ascii());
        }
    }
}
