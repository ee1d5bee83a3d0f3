//! The types of directives: how their text is read, checked, and shown.
//!
//! Every value has one canonical text, which CONFIG GET shows and CONFIG REWRITE writes.

use ardb_base::number::{parse_i64, parse_memory};

/// The type of a directive, with its bounds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// An integer in these bounds, both included.
    Int(i64, i64),
    /// A number of bytes in these bounds, with an optional unit (`kb`, `mb`, `gb`).
    Memory(u64, u64),
    /// An octal number up to this one.
    Octal(u32),
    /// Any text.
    Text,
    /// A file name without a directory.
    FileName,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several words that a function checks and brings into one form, given the value so far.
    Words(fn(&[Vec<u8>], &str) -> Result<String, String>),
}

impl Kind {
    /// Whether the directive takes more than one argument.
    #[must_use]
    pub fn many_words(&self) -> bool {
        matches!(self, Kind::Words(_))
    }

    /// The canonical form of `args`. `current` is the value so far.
    ///
    /// # Errors
    /// What is wrong, in the words of Redis.
    pub fn read(&self, args: &[Vec<u8>], current: &[u8]) -> Result<Vec<u8>, String> {
        if let Kind::Words(normal) = self {
            return normal(args, &String::from_utf8_lossy(current)).map(String::into_bytes);
        }
        let [arg] = args else { return Err("wrong number of arguments".into()) };
        match self {
            Kind::Bool => {
                let lower = arg.to_ascii_lowercase();
                if lower == b"yes" || lower == b"no" { Ok(lower) } else { Err("argument must be 'yes' or 'no'".into()) }
            }
            Kind::Int(min, max) => {
                let n = parse_i64(arg).ok_or("argument couldn't be parsed into an integer")?;
                if !(*min..=*max).contains(&n) {
                    return Err(format!("argument must be between {min} and {max} inclusive"));
                }
                Ok(n.to_string().into_bytes())
            }
            Kind::Memory(min, max) => {
                let n = parse_memory(arg).ok_or("argument must be a memory value")?;
                if !(*min..=*max).contains(&n) {
                    return Err(format!("argument must be between {min} and {max} inclusive"));
                }
                Ok(n.to_string().into_bytes())
            }
            Kind::Octal(max) => {
                let text = std::str::from_utf8(arg).unwrap_or("");
                let n = u32::from_str_radix(text, 8).map_err(|_| "argument couldn't be parsed as an octal number")?;
                if n > *max {
                    return Err(format!("argument must be between 0 and {max:o} inclusive"));
                }
                Ok(format!("{n:o}").into_bytes())
            }
            Kind::FileName if arg.contains(&b'/') || arg.is_empty() => {
                Err("argument can't be a path, just a filename".into())
            }
            Kind::Text | Kind::FileName => Ok(arg.clone()),
            Kind::Choice(words) => match words.iter().find(|word| word.as_bytes().eq_ignore_ascii_case(arg)) {
                Some(word) => Ok(word.as_bytes().to_vec()),
                None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
            },
            Kind::Words(_) => Err("wrong number of arguments".into()),
        }
    }

    /// The type in a few words, for the reference page.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Kind::Bool => "yes or no".into(),
            Kind::Int(min, max) if *max >= i64::from(i32::MAX) => format!("integer from {min}"),
            Kind::Int(min, max) => format!("integer, {min} to {max}"),
            Kind::Memory(0, _) => "bytes".into(),
            Kind::Memory(min, _) => format!("bytes, from {min}"),
            Kind::Octal(_) => "octal".into(),
            Kind::Text => "text".into(),
            Kind::FileName => "file name".into(),
            Kind::Choice(words) => words.join(", "),
            Kind::Words(_) => "words".into(),
        }
    }
}

fn joined(args: &[Vec<u8>]) -> String {
    args.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ")
}

/// Any words, one blank between them.
pub fn any_words(args: &[Vec<u8>], _: &str) -> Result<String, String> {
    Ok(joined(args))
}

/// `bind`: addresses, each with an optional `-` that allows it to be missing.
pub fn bind(args: &[Vec<u8>], _: &str) -> Result<String, String> {
    if args.len() > 16 {
        return Err("Too many bind addresses specified.".into());
    }
    Ok(joined(args))
}

/// `save`: pairs of seconds and changes, or nothing.
pub fn save(args: &[Vec<u8>], _: &str) -> Result<String, String> {
    if let [only] = args
        && only.is_empty()
    {
        return Ok(String::new());
    }
    let valid = args.len().is_multiple_of(2)
        && args.iter().enumerate().all(|(i, arg)| parse_i64(arg).is_some_and(|n| n >= i64::from(i % 2 == 0)));
    if valid { Ok(joined(args)) } else { Err("Invalid save parameters".into()) }
}

/// `replicaof`: host and port, or `no one`.
pub fn replicaof(args: &[Vec<u8>], _: &str) -> Result<String, String> {
    let [host, port] = args else { return Err("wrong number of arguments".into()) };
    if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
        return Ok(String::new());
    }
    match parse_i64(port) {
        Some(0..=65535) => Ok(joined(args)),
        _ => Err("Invalid master port".into()),
    }
}

/// `notify-keyspace-events`: letters.
pub fn events(args: &[Vec<u8>], _: &str) -> Result<String, String> {
    let [letters] = args else { return Err("wrong number of arguments".into()) };
    match ardb_commands::shared::Events::parse(letters) {
        Some(events) => Ok(events.text()),
        None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
    }
}

/// The classes of clients that have output limits of their own.
pub const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// `client-output-buffer-limit`: class, hard limit, soft limit, seconds; classes that are not named stay as they are.
pub fn output_limits(args: &[Vec<u8>], current: &str) -> Result<String, String> {
    if !args.len().is_multiple_of(4) || args.is_empty() {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut words: Vec<String> = current.split(' ').map(str::to_string).collect();
    words.resize(12, "0".into());
    for group in args.chunks(4) {
        let name = if group[0].eq_ignore_ascii_case(b"replica") { b"slave".as_slice() } else { &group[0] };
        let class = OUTPUT_CLASSES
            .iter()
            .position(|class| class.as_bytes().eq_ignore_ascii_case(name))
            .ok_or("Invalid client class specified in buffer limit configuration.")?;
        let numbers = (parse_memory(&group[1]), parse_memory(&group[2]), parse_i64(&group[3]).filter(|&s| s >= 0));
        let (Some(hard), Some(soft), Some(seconds)) = numbers else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".into());
        };
        words[class * 4] = OUTPUT_CLASSES[class].into();
        words[class * 4 + 1] = hard.to_string();
        words[class * 4 + 2] = soft.to_string();
        words[class * 4 + 3] = seconds.to_string();
    }
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, text: &str) -> Result<String, String> {
        let args: Vec<Vec<u8>> = text.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        kind.read(&args, b"normal 0 0 0 slave 1 2 3 pubsub 4 5 6")
            .map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    #[test]
    fn values_are_checked_and_brought_into_one_form() {
        assert_eq!(read(Kind::Bool, "YES"), Ok("yes".into()));
        assert!(read(Kind::Bool, "1").is_err());
        assert_eq!(read(Kind::Int(0, 10), "7"), Ok("7".into()));
        assert_eq!(read(Kind::Int(0, 10), "11"), Err("argument must be between 0 and 10 inclusive".into()));
        assert_eq!(read(Kind::Memory(0, u64::MAX), "1kb"), Ok("1024".into()));
        assert_eq!(read(Kind::Memory(0, u64::MAX), "x"), Err("argument must be a memory value".into()));
        assert_eq!(read(Kind::Octal(0o777), "700"), Ok("700".into()));
        assert_eq!(read(Kind::Choice(&["a", "b"]), "B"), Ok("b".into()));
        assert!(read(Kind::FileName, "a/b").is_err());
        assert_eq!(read(Kind::Text, "a b"), Err("wrong number of arguments".into()));
        assert_eq!(read(Kind::Words(save), "3600 1 60 100"), Ok("3600 1 60 100".into()));
        assert!(read(Kind::Words(save), "0 1").is_err());
        assert_eq!(read(Kind::Words(replicaof), "host 6379"), Ok("host 6379".into()));
        assert_eq!(read(Kind::Words(replicaof), "NO ONE"), Ok(String::new()));
        assert_eq!(
            read(Kind::Words(output_limits), "replica 1kb 0 9"),
            Ok("normal 0 0 0 slave 1024 0 9 pubsub 4 5 6".into())
        );
        assert!(read(Kind::Words(output_limits), "other 1 1 1").is_err());
    }
}
