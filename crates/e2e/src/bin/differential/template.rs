//! From a template and random numbers to a command.
//!
//! A template is words. `$x` stands for a random argument of kind `x` (see [`Maker::argument`]), `[a|b]` for nothing or one of the
//! alternatives, `(a|b)` for one of them, `{a}` for one to three times what is inside, `#{a}` for the same with the number
//! of times before it (and now and then a wrong number). Groups nest. The same seed gives the same commands.

use ardb_base::random::Random;
use ardb_e2e::client::Command;

/// Keys of each type. Few, so that commands meet.
const KEYS: u64 = 18;

/// Makes arguments and commands.
pub struct Maker {
    pub random: Random,
}

/// Where the group that opens at the start of `text` closes.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    panic!("a group without an end in a template: {text}");
}

/// The alternatives of a group's inside, split at bars outside inner groups.
fn alternatives(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut list) = (0, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            '|' if depth == 0 => {
                list.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    list.push(&text[from..]);
    list
}

impl Maker {
    /// One of these.
    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.below(list.len() as u64) as usize]
    }

    /// Appends what a template stands for.
    pub fn expand(&mut self, template: &str, out: &mut Command) {
        let mut rest = template.trim_start();
        while let Some(first) = rest.chars().next() {
            let counted = rest.starts_with("#{");
            if counted || matches!(first, '[' | '(' | '{') {
                let open = usize::from(counted);
                let close = open + closing(&rest[open..]);
                let inside = &rest[open + 1..close];
                self.group(if counted { '#' } else { first }, inside, out);
                rest = rest[close + 1..].trim_start();
                continue;
            }
            let end = rest.find([' ', '[', '(', '{']).unwrap_or(rest.len());
            let word = &rest[..end];
            match word.strip_prefix('$') {
                Some(kind) => {
                    let argument = self.argument(kind);
                    out.push(argument);
                }
                None => out.push(self.word(word)),
            }
            rest = rest[end..].trim_start();
        }
    }

    /// A word as it stands, at times in small letters.
    fn word(&mut self, word: &str) -> Vec<u8> {
        if self.random.one_in(20) { word.to_lowercase().into_bytes() } else { word.as_bytes().to_vec() }
    }

    fn group(&mut self, kind: char, inside: &str, out: &mut Command) {
        match kind {
            '[' if self.random.one_in(2) => {}
            '[' | '(' => {
                let list = alternatives(inside);
                let chosen = self.pick(&list);
                self.expand(chosen, out);
            }
            _ => {
                let times = 1 + self.random.below(3);
                if kind == '#' {
                    let said = if self.random.one_in(60) { self.argument("i") } else { times.to_string().into_bytes() };
                    out.push(said);
                }
                for _ in 0..times {
                    self.expand(inside, out);
                }
            }
        }
    }

    fn key(&mut self, kind: &str) -> Vec<u8> {
        let kind = match self.random.below(300) {
            // A key of another type, and one that never exists.
            0..12 => self.pick(&["s", "c", "b", "l", "t", "h", "z"]),
            12..16 => "none",
            _ => kind,
        };
        format!("{kind}:{}", self.random.below(KEYS)).into_bytes()
    }

    /// A random argument of this kind.
    ///
    /// # Panics
    /// On a kind that is not known: a mistake in the table.
    pub fn argument(&mut self, kind: &str) -> Vec<u8> {
        match kind {
            // Keys: of strings, counters, bitmaps, lists, sets, hashes, sorted sets, HyperLogLogs, places, sorted sets of one score, any.
            "s" | "c" | "b" | "l" | "t" | "h" | "z" | "p" | "g" => self.key(kind),
            "y" => format!("y:{}", self.random.below(6)).into_bytes(),
            "k" => {
                let kind = self.pick(&["s", "c", "b", "l", "t", "h", "z"]);
                self.key(kind)
            }
            "v" => self.value(),
            "m" => self.member(),
            "i" => self.integer(),
            "d" => self.double(),
            // Small counts, indexes around both ends, a count beyond every size.
            "n" => self.random.below(6).to_string().into_bytes(),
            "x" if self.random.one_in(25) => self.integer(),
            "x" => (self.random.below(20) as i64 - 10).to_string().into_bytes(),
            // A negative count asks for that many random members: never a huge one.
            "r" => (self.random.below(20) as i64 - 10).to_string().into_bytes(),
            "all" => b"1000000".to_vec(),
            // Offsets in bytes and in bits.
            "o" => {
                let bound = if self.random.one_in(30) { 20_000 } else { 40 };
                self.random.below(bound).to_string().into_bytes()
            }
            "bit" if self.random.one_in(40) => self.pick(&["4294967296", "-1", "abc", "9999999999999999999"]).into(),
            "bit" => self.random.below(300).to_string().into_bytes(),
            // Expiries: far ahead, thousands of seconds apart, so that the servers' clocks do not matter.
            "ttl" => (100_000 + 1000 * self.random.below(2000)).to_string().into_bytes(),
            "pttl" => (100_000_000 + 1_000_000 * self.random.below(2000)).to_string().into_bytes(),
            "at" => (4_000_000_000 + 1000 * self.random.below(2000)).to_string().into_bytes(),
            "pat" => (4_000_000_000_000 + 1_000_000 * self.random.below(2000)).to_string().into_bytes(),
            "badttl" => self.pick(&["0", "-1", "abc", "9223372036854775807", "-9223372036854775808", "1.5", ""]).into(),
            "pattern" => self
                .pick(&["*", "s:*", "?:1", "[lt]:*", "[^s]:1*", "*1", "h:[0-5]", "\\*", "z:1?", "none", "m*"])
                .into(),
            "min" | "max" => self.bound(kind),
            "lexmin" | "lexmax" => self.lex_bound(kind),
            // One of so many that they count.
            "w" => self.random.below(1_000_000).to_string().into_bytes(),
            "lon" => self.coordinate(180, 13, &["-180", "180", "180.0000001", "-179.99999999", "abc", "nan", "1e400"]),
            "lat" => self.coordinate(85, 37, &["-85.05112878", "85.05112878", "85.0511288", "90", "-0", "x", "inf"]),
            "radius" => self
                .pick(&[
                    "0", "0.5", "1", "10", "50", "100", "166.2742", "200", "500", "1000", "3000", "10000", "20000",
                    "1e9", "-1", "abc", "inf", "1e-300",
                ])
                .into(),
            "type" => {
                let sign = self.pick(&["i", "u"]);
                match self.random.below(12) {
                    0 => self.pick(&["u64", "i65", "u0", "x8", "i", "u-1"]).into(),
                    1 => b"i64".to_vec(),
                    2 => b"u63".to_vec(),
                    _ => format!("{sign}{}", 1 + self.random.below(40)).into_bytes(),
                }
            }
            "bitoffset" => match self.random.below(8) {
                0 => self.pick(&["-1", "abc", "#-1", "#"]).into(),
                1..4 => format!("#{}", self.random.below(12)).into_bytes(),
                _ => self.random.below(200).to_string().into_bytes(),
            },
            other => panic!("no such kind of argument in a template: ${other}"),
        }
    }

    /// A coordinate: mostly within four degrees of one, so that places are near each other, or one of a coarse grid.
    fn coordinate(&mut self, most: i64, near: i64, odd: &[&str]) -> Vec<u8> {
        match self.random.below(20) {
            0 => self.pick(odd).into(),
            1..6 => ((self.random.below(13) as i64 - 6) * (most / 6)).to_string().into_bytes(),
            _ => format!("{}.{:05}", near + self.random.below(4) as i64, self.random.below(100_000)).into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(24) {
            0..6 => self.integer(),
            6..9 => self.double(),
            9 => Vec::new(),
            10 => {
                let mut bytes = vec![0; 1 + self.random.below(30) as usize];
                self.random.fill(&mut bytes);
                bytes
            }
            11 if self.random.one_in(8) => {
                let length = if self.random.one_in(40) { 100_000 } else { 3000 };
                (0..length).map(|index: u32| b'a' + (index % 23) as u8).collect()
            }
            12 => self
                .pick(&[" 1", "1 ", "0x10", "1.", ".5", "-0", "+5", "007", "1e3", "nan", "-inf", "a\tb\r\nc"])
                .into(),
            _ => {
                let length = 1 + self.random.below(12) as usize;
                (0..length).map(|_| b'a' + self.random.below(5) as u8).collect()
            }
        }
    }

    fn member(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0 => self.value(),
            1 => Vec::new(),
            2 => vec![b'L'; 70 + self.random.below(3) as usize],
            3..6 => self.double(),
            6..22 => self.random.below(KEYS + 2).to_string().into_bytes(),
            _ => format!("m{}", self.random.below(12)).into_bytes(),
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        match self.random.below(30) {
            0 => self
                .pick(&["9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551615"])
                .into(),
            1 => self.pick(&["4294967295", "2147483648", "-2147483649", "65536", "128", "-129", "32768"]).into(),
            2 => self.pick(&["abc", "", "1.5", " 3", "3 ", "+1", "01", "-0", "0x1", "1e2"]).into(),
            _ => (self.random.below(41) as i64 - 20).to_string().into_bytes(),
        }
    }

    fn double(&mut self) -> Vec<u8> {
        match self.random.below(30) {
            0 => self.pick(&["inf", "-inf", "+inf", "nan", "Infinity", "infinity"]).into(),
            1 => self.pick(&["1e308", "-1e308", "1e-300", "4.9e-324", "1.7976931348623157e308", "1e400"]).into(),
            2 => self.pick(&["abc", "", "1.5x", " 3", "3 ", "0x10", "1e", "--1", "."]).into(),
            3 => self
                .pick(&["0.1", "0.3", "3.0", "3.14159265358979", "1e21", "1e17", "123456789012345678", "-0", "5e-7"])
                .into(),
            4..12 => format!("{}.{}", self.random.below(20) as i64 - 10, self.random.below(100)).into_bytes(),
            _ => (self.random.below(21) as i64 - 10).to_string().into_bytes(),
        }
    }

    fn bound(&mut self, kind: &str) -> Vec<u8> {
        match self.random.below(12) {
            0..3 => (if kind == "min" { b"-inf".as_slice() } else { b"+inf" }).to_vec(),
            3 => self.double(),
            4..7 => format!("({}", self.random.below(16) as i64 - 8).into_bytes(),
            _ => (self.random.below(16) as i64 - 8).to_string().into_bytes(),
        }
    }

    fn lex_bound(&mut self, kind: &str) -> Vec<u8> {
        match self.random.below(10) {
            0..3 => (if kind == "lexmin" { b"-" } else { b"+" }).to_vec(),
            3 => self.pick(&["+", "-", "(", "[", "abc", ""]).into(),
            _ => {
                let mut bound = vec![if self.random.one_in(2) { b'[' } else { b'(' }];
                bound.extend(self.member());
                bound
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_nest_and_counts_count() {
        let mut maker = Maker { random: Random::new(1) };
        for _ in 0..1000 {
            let mut out = Vec::new();
            maker.expand("A [B (C|D {x})|E] #{$s y} END", &mut out);
            let text: Vec<String> = out.iter().map(|word| String::from_utf8_lossy(word).to_uppercase()).collect();
            assert_eq!(text[0], "A");
            assert_eq!(text.last().unwrap(), "END");
            assert!(text.contains(&"Y".to_string()));
        }
        let mut out = Vec::new();
        maker.expand("{a}b", &mut out);
        assert!(out.len() >= 2);
    }

    #[test]
    fn the_table_expands() {
        let mut maker = Maker { random: Random::new(2) };
        for row in crate::table::TABLE.iter().chain(crate::scripts::SCRIPTS) {
            for step in row.template.split(';') {
                for _ in 0..30 {
                    let mut out = Vec::new();
                    maker.expand(step, &mut out);
                    assert!(!out.is_empty(), "{}", row.template);
                }
            }
        }
    }
}
