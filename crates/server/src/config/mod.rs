//! Configuration: one table of directives ([`directives`]), where their values come from ([`source`]), and the values themselves.
//!
//! Invariant: every value has been through its directive's [`Kind::read`], so the typed getters cannot meet a text that they do not
//! understand. Values that the hot path needs are copied into atomics by the server when they change; here is a lock.

pub mod directives;
pub mod docs;
mod inert;
pub mod rewrite;
pub mod source;
pub mod value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ardb_base::number::{parse_i64, parse_u64};
use parking_lot::RwLock;

pub use directives::{Change, Directive};
use value::Kind;

/// A directive could not be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No directive has this name, or a pair is not complete.
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// The value is not possible.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {why}")]
    Refused {
        /// The directive.
        name: String,
        /// Why.
        why: String,
    },
}

/// The values of all directives.
#[derive(Debug)]
pub struct Config {
    values: RwLock<HashMap<&'static str, Vec<u8>>>,
    /// The file that it was read from, absolute; CONFIG REWRITE writes it.
    file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        let values = directives::all().map(|d| (d.name, d.default.as_bytes().to_vec())).collect();
        Config { values: RwLock::new(values), file: None }
    }
}

impl Config {
    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Sets one directive while starting, whether or not it can change later.
    ///
    /// # Errors
    /// Why the value is not possible.
    pub fn set_at_start(&mut self, directive: &Directive, args: &[Vec<u8>]) -> Result<(), String> {
        let values = self.values.get_mut();
        let current = values.get(directive.name).map_or(&b""[..], Vec::as_slice);
        let value = directive.kind.read(args, current)?;
        values.insert(directive.name, value);
        Ok(())
    }

    /// CONFIG SET: all pairs or none.
    ///
    /// # Errors
    /// As Redis words them.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<Vec<&'static Directive>, SetError> {
        let mut changes: Vec<(&'static Directive, Vec<u8>)> = Vec::new();
        for (name, text) in pairs {
            let shown = String::from_utf8_lossy(name).into_owned();
            let refused = |why: String| SetError::Refused { name: shown.clone(), why };
            let directive = directives::find(&shown).ok_or_else(|| SetError::Unknown(shown.clone()))?;
            if directive.change == Change::Start {
                return Err(refused("can't set immutable config".into()));
            }
            if changes.iter().any(|(d, _)| d.name == directive.name) {
                return Err(refused("duplicate parameter".into()));
            }
            let args = if directive.kind.many_words() && !text.is_empty() {
                source::words(text).ok_or_else(|| refused("Unbalanced quotes in configuration line".into()))?
            } else {
                vec![text.to_vec()]
            };
            let current = self.bytes(directive.name);
            changes.push((directive, directive.kind.read(&args, &current).map_err(refused)?));
        }
        let mut values = self.values.write();
        Ok(changes
            .into_iter()
            .map(|(directive, value)| {
                values.insert(directive.name, value);
                directive
            })
            .collect())
    }

    /// Notes a value that the server itself has changed (`replicaof`), for CONFIG GET and REWRITE.
    pub fn note(&self, name: &'static str, value: Vec<u8>) {
        debug_assert!(directives::find(name).is_some(), "{name} is no directive");
        self.values.write().insert(name, value);
    }

    /// The canonical text of a value.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        debug_assert!(directives::find(name).is_some(), "{name} is no directive");
        self.values.read().get(name).cloned().unwrap_or_default()
    }

    /// A value as text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.bytes(name)).into_owned()
    }

    /// A `yes` or `no`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.bytes(name) == b"yes"
    }

    /// An integer.
    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        parse_i64(&self.bytes(name)).unwrap_or(0)
    }

    /// A number of bytes, or another number that is not negative.
    #[must_use]
    pub fn size(&self, name: &str) -> u64 {
        parse_u64(&self.bytes(name)).unwrap_or(0)
    }

    /// The three limits (hard, soft, seconds) of each class in [`value::OUTPUT_CLASSES`].
    #[must_use]
    pub fn output_limits(&self) -> [OutputLimit; 3] {
        let text = self.text("client-output-buffer-limit");
        let words: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
        let word = |i: usize| words.get(i).copied().unwrap_or(0);
        std::array::from_fn(|class| OutputLimit {
            hard: word(class * 4 + 1),
            soft: word(class * 4 + 2),
            seconds: word(class * 4 + 3),
        })
    }

    /// The directory of log and engine.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        Path::new(&self.text("dir")).join(self.text("data-dir"))
    }

    /// The path of the RDB file.
    #[must_use]
    pub fn rdb_path(&self) -> PathBuf {
        Path::new(&self.text("dir")).join(self.text("dbfilename"))
    }
}

/// Limits of a client's pending output; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which the client is closed at once.
    pub hard: u64,
    /// Bytes over which it may stay for `seconds`.
    pub soft: u64,
    /// See `soft`.
    pub seconds: u64,
}

/// Whether a value is shown quoted in a file.
fn needs_quotes(kind: &Kind, value: &[u8]) -> bool {
    value.is_empty()
        || (!kind.many_words()
            && value.iter().any(|b| !b.is_ascii_graphic() || matches!(b, b'"' | b'\'' | b'\\' | b'#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_values_are_set_together_or_not_at_all() {
        let config = Config::default();
        assert!(config.set(&[(b"timeout", b"7"), (b"MAXCLIENTS", b"12")]).is_ok());
        assert_eq!((config.int("timeout"), config.int("maxclients")), (7, 12));
        let error = config.set(&[(b"timeout", b"8"), (b"maxclients", b"0")]).expect_err("out of bounds");
        assert!(
            error.to_string().starts_with(
                "CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between"
            )
        );
        assert_eq!(config.int("timeout"), 7);
        let error = config.set(&[(b"timeout", b"8"), (b"timeout", b"9")]).expect_err("twice");
        assert_eq!(
            error.to_string(),
            "CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter"
        );
        let error = config.set(&[(b"port", b"1")]).expect_err("immutable");
        assert_eq!(
            error.to_string(),
            "CONFIG SET failed (possibly related to argument 'port') - can't set immutable config"
        );
        let error = config.set(&[(b"nope", b"1")]).expect_err("unknown");
        assert_eq!(error.to_string(), "Unknown option or number of arguments for CONFIG SET - 'nope'");
    }

    #[test]
    fn output_limits_have_three_classes() {
        let config = Config::default();
        assert!(config.set(&[(b"client-output-buffer-limit", b"pubsub 1mb 10 3")]).is_ok());
        let [normal, _, pubsub] = config.output_limits();
        assert_eq!(normal, OutputLimit::default());
        assert_eq!(pubsub, OutputLimit { hard: 1 << 20, soft: 10, seconds: 3 });
    }
}
