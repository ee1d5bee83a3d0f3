//! The command lines of the programs in `src/bin`: `--name value` pairs out of a known list, and `--help`.

use std::collections::BTreeMap;

/// What was given on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads the process's arguments. `known` lists each option, its default and a line of help. With `--help`, or when
    /// something is wrong, this prints the list and ends the process.
    #[must_use]
    pub fn read(purpose: &str, known: &[(&str, &str, &str)]) -> Options {
        let mut values: BTreeMap<String, String> =
            known.iter().map(|(name, default, _)| ((*name).to_string(), (*default).to_string())).collect();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").unwrap_or_default().to_string();
            let value = if values.contains_key(&name) { arguments.next() } else { None };
            let Some(value) = value else {
                eprintln!("{purpose}\n");
                for (name, default, help) in known {
                    eprintln!("  --{name:<12} {help} [{default}]");
                }
                std::process::exit(if argument == "--help" { 0 } else { 2 });
            };
            values.insert(name, value);
        }
        Options { values }
    }

    /// The text of an option; empty if it was not given and has no default.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// The number of an option. One that is no number ends the process with a message.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_else(|_| {
            eprintln!("--{name} wants a number, not {:?}", self.text(name));
            std::process::exit(2);
        })
    }

    /// The seed: the option `seed`, or `ARDB_SEED`, or, where neither is given, one from the clock.
    #[must_use]
    pub fn seed(&self) -> u64 {
        if !self.text("seed").is_empty() {
            return self.number("seed");
        }
        seed()
    }
}

/// A seed for a test: `ARDB_SEED`, or one from the clock.
#[must_use]
pub fn seed() -> u64 {
    if let Some(seed) = std::env::var("ARDB_SEED").ok().and_then(|text| text.parse().ok()) {
        return seed;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 % 1_000_000_000
}
