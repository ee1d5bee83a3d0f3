//! Glob patterns as KEYS, SCAN, PSUBSCRIBE and CONFIG GET take them.
//!
//! `?` is any byte, `*` any run of bytes, `[a-z]` one of a class, `[^a-z]` one outside it, and `\` takes the next byte literally.
//! Corner cases follow Redis, since clients see them: a class without `]` ends with the pattern, the ends of a range may stand in
//! either order and compare as signed bytes, and a pattern that is not empty never matches the empty string.
//!
//! Matching takes at most `pattern * string` steps: only the last `*` is ever tried again, because a later start for an earlier
//! one could only leave less of the string for the rest.

/// Whether letters of either case are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They differ.
    Sensitive,
    /// ASCII letters are compared in lower case.
    Ignored,
}

impl Case {
    fn fold(self, byte: u8) -> u8 {
        match self {
            Case::Sensitive => byte,
            Case::Ignored => byte.to_ascii_lowercase(),
        }
    }
}

/// Whether `text` as a whole matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star fails: after the star, and one byte further on in the text.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if t == text.len() {
            return pattern[p..].iter().all(|&b| b == b'*');
        }
        let next = match pattern.get(p) {
            None => None,
            Some(b'*') => {
                while pattern.get(p) == Some(&b'*') {
                    p += 1;
                }
                if p == pattern.len() {
                    return true;
                }
                star = Some((p, t));
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(pattern, p + 1, text[t], case),
            Some(&byte) => {
                let (literal, after) = match (byte, pattern.get(p + 1)) {
                    (b'\\', Some(&escaped)) => (escaped, p + 2),
                    _ => (byte, p + 1),
                };
                (case.fold(literal) == case.fold(text[t])).then_some(after)
            }
        };
        match (next, star) {
            (Some(after), _) => {
                p = after;
                t += 1;
            }
            (None, None) => return false,
            (None, Some((after_star, from))) => {
                star = Some((after_star, from + 1));
                p = after_star;
                t = from + 1;
            }
        }
    }
}

/// Whether `byte` is in the class whose inside begins at `p`: the place after the class if so.
fn class(pattern: &[u8], mut p: usize, byte: u8, case: Case) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    while let Some(&first) = pattern.get(p) {
        if first == b'\\' && p + 1 < pattern.len() {
            // An escaped byte is compared exactly, whatever the case rule; so does Redis.
            found |= pattern[p + 1] == byte;
            p += 2;
        } else if first == b']' {
            p += 1;
            break;
        } else if p + 2 < pattern.len() && pattern[p + 1] == b'-' {
            let (a, b) = (first as i8, pattern[p + 2] as i8);
            let fold = |signed: i8| case.fold(signed as u8) as i8;
            let (low, high) = (fold(a.min(b)), fold(a.max(b)));
            found |= (low..=high).contains(&fold(byte as i8));
            p += 3;
        } else {
            found |= case.fold(first) == case.fold(byte);
            p += 1;
        }
    }
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn yes(pattern: &str, text: &str) {
        assert!(matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive), "{pattern} should match {text}");
    }

    fn no(pattern: &str, text: &str) {
        assert!(!matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive), "{pattern} should not match {text}");
    }

    #[test]
    fn wildcards_and_classes() {
        yes("h?llo", "hello");
        no("h?llo", "hllo");
        yes("h*llo", "hllo");
        yes("h*llo", "heeeello");
        yes("*", "x");
        yes("**a**", "a");
        yes("a*", "a");
        no("*", "");
        yes("", "");
        no("", "x");
        yes("h[ae]llo", "hallo");
        no("h[ae]llo", "hillo");
        yes("h[^e]llo", "hallo");
        no("h[^e]llo", "hello");
        yes("h[a-b]llo", "hbllo");
        yes("h[b-a]llo", "hbllo");
        no("h[a-b]llo", "hcllo");
    }

    #[test]
    fn escapes_and_open_classes() {
        yes("a\\*b", "a*b");
        no("a\\*b", "axb");
        yes("a\\", "a\\");
        yes("[\\]]", "]");
        yes("[a", "a");
        no("[", "a");
        yes("[^", "a");
        // The end of the range is `]`, which therefore does not close the class.
        yes("[a-]", "^");
        yes("[a-", "-");
    }

    #[test]
    fn case_can_be_ignored() {
        for (pattern, text) in [("HeL*", "hello"), ("[A-C]x", "bX"), ("[Q]", "q"), ("\\Q", "q")] {
            assert!(matches(pattern.as_bytes(), text.as_bytes(), Case::Ignored), "{pattern} {text}");
        }
        assert!(!matches(b"[\\Q]", b"q", Case::Ignored));
    }

    #[test]
    fn many_stars_end_soon() {
        let pattern = b"a*".repeat(5000);
        let text = vec![b'a'; 20_000];
        assert!(matches(&pattern, &text, Case::Sensitive));
        let mut pattern = pattern;
        pattern.push(b'b');
        assert!(!matches(&pattern, &text, Case::Sensitive));
    }

    /// The same rules told recursively, one byte a step.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skip| slow(rest, &text[skip..])),
            [b'?', rest @ ..] => !text.is_empty() && slow(rest, &text[1..]),
            [literal, rest @ ..] => text.first() == Some(literal) && slow(rest, &text[1..]),
        }
    }

    #[test]
    fn random_stars_agree_with_the_recursive_rule() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        let mut random = Random::new(seed);
        for _ in 0..20_000 {
            let len = random.below(8);
            let pattern: Vec<u8> = (0..len).map(|_| b"ab*?"[random.below(4) as usize]).collect();
            let len = 1 + random.below(8);
            let text: Vec<u8> = (0..len).map(|_| b"ab"[random.below(2) as usize]).collect();
            assert_eq!(
                matches(&pattern, &text, Case::Sensitive),
                slow(&pattern, &text),
                "seed {seed}: {:?} {:?}",
                String::from_utf8_lossy(&pattern),
                String::from_utf8_lossy(&text)
            );
        }
    }
}
