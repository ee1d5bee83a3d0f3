//! Where configuration comes from: a file in the syntax of redis.conf, the standard input, and the command line, in this order;
//! the last word counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ardb_resp::request::split_words;

use super::{Config, directives};

/// Why the configuration cannot be used. The display says where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the configuration {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// A line makes no sense.
    #[error("{place}, line {line}: {why}\n>>> {text}")]
    Line {
        /// The file, or what stands for one.
        place: String,
        /// Counted from 1.
        line: usize,
        /// The line itself.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run with this configuration.
    Run {
        /// The values.
        config: Box<Config>,
        /// Directives that were set and have no meaning here: a line for each.
        warnings: Vec<String>,
    },
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
    /// Print the reference of all directives.
    Reference,
    /// Print the generated part of the page on compatibility.
    Compat,
}

/// How deep files may include others.
const INCLUDE_DEPTH: usize = 16;

/// Reads the command line (without the program's own name) and what it names.
///
/// # Errors
/// The first thing that makes no sense.
pub fn from_command_line(args: &[String]) -> Result<Invocation, ConfigError> {
    match args.first().map(String::as_str) {
        Some("-v" | "--version") => return Ok(Invocation::Version),
        Some("-h" | "--help") => return Ok(Invocation::Help),
        Some("--print-config-docs") => return Ok(Invocation::Reference),
        Some("--print-compat") => return Ok(Invocation::Compat),
        _ => {}
    }
    let mut loader = Loader::default();
    let mut rest = args;
    if let Some((first, others)) = args.split_first()
        && !first.starts_with('-')
    {
        let path = std::path::absolute(first).unwrap_or_else(|_| PathBuf::from(first));
        loader.file(&path, 0)?;
        loader.config.file = Some(path);
        rest = others;
    }
    if [rest.first(), rest.last()].contains(&Some(&"-".to_string())) {
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|why| ConfigError::Read { path: "(standard input)".into(), why })?;
        loader.text(text.as_bytes(), "standard input", 0)?;
    }
    loader.text(options(rest).as_bytes(), "command line", 0)?;
    Ok(Invocation::Run { config: Box::new(loader.config), warnings: loader.warnings.into_iter().collect() })
}

/// The command line's options as lines of a file: `--name value ...`; what follows a name is its value until the next `--`.
fn options(args: &[String]) -> String {
    let mut text = String::new();
    // Whether the option at hand has a value already, so that a further `--` begins the next one.
    let mut complete = true;
    for (i, arg) in args.iter().enumerate() {
        if arg == "-" && (i == 0 || i + 1 == args.len()) {
            continue;
        }
        if complete && arg.starts_with("--") {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&arg[2..]);
            text.push(' ');
            complete = arg.trim_end().contains(' ');
            let next_is_option = args.get(i + 1).is_none_or(|next| next.starts_with("--"));
            if !complete && arg.eq_ignore_ascii_case("--save") && next_is_option {
                text.push_str("\"\"");
                complete = true;
            }
        } else {
            text.push_str(&quoted(arg.as_bytes()));
            text.push(' ');
            complete = true;
        }
    }
    text
}

/// `bytes` between double quotes, as the parser reads them back.
#[must_use]
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// The words of a line, unquoted; `None` if a quote is not closed.
#[must_use]
pub fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut copy = line.to_vec();
    let mut ranges = Vec::new();
    split_words(&mut copy, |range| ranges.push(range)).then(|| ranges.into_iter().map(|r| copy[r].to_vec()).collect())
}

#[derive(Default)]
struct Loader {
    config: Config,
    warnings: BTreeSet<String>,
    /// A file's first `save` line replaces the default, the others add to it.
    saves: Vec<Vec<u8>>,
}

impl Loader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        let text = std::fs::read(path).map_err(|why| ConfigError::Read { path: path.to_path_buf(), why })?;
        self.text(&text, &path.display().to_string(), depth)
    }

    fn text(&mut self, text: &[u8], place: &str, depth: usize) -> Result<(), ConfigError> {
        for (i, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            let error = |why: String| ConfigError::Line {
                place: place.to_string(),
                line: i + 1,
                text: String::from_utf8_lossy(line).into_owned(),
                why,
            };
            let Some(words) = words(line) else {
                return Err(error("Unbalanced quotes in configuration line".into()));
            };
            let Some((name, args)) = words.split_first() else { continue };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if name == "include" && args.len() == 1 {
                if depth >= INCLUDE_DEPTH {
                    return Err(error("files include each other too deeply".into()));
                }
                let path = PathBuf::from(String::from_utf8_lossy(&args[0]).into_owned());
                self.file(&path, depth + 1)?;
                continue;
            }
            self.directive(&name, args).map_err(error)?;
        }
        Ok(())
    }

    fn directive(&mut self, name: &str, args: &[Vec<u8>]) -> Result<(), String> {
        let Some(directive) = directives::find(name) else {
            return Err(match name {
                "user" | "aclfile" => {
                    "there are no users besides the default one yet; requirepass sets its password".into()
                }
                "rename-command" => "commands cannot be renamed".into(),
                "loadmodule" => "there are no modules".into(),
                "sentinel" => "this server is no Sentinel".into(),
                _ => format!(
                    "Bad directive or wrong number of arguments; the nearest known name is '{}'",
                    directives::nearest(name)
                ),
            });
        };
        let split;
        let mut args = args;
        if let ([only], true) = (args, directive.kind.many_words())
            && !only.is_empty()
        {
            split = words(only).ok_or("Unbalanced quotes in configuration line")?;
            args = &split;
        }
        let saves;
        if directive.name == "save" && !args.first().is_none_or(Vec::is_empty) {
            self.saves.extend_from_slice(args);
            saves = self.saves.clone();
            args = &saves;
        }
        self.config.set_at_start(directive, args)?;
        if !directive.used {
            self.warnings.insert(format!("Directive '{}' has no effect: {}", directive.name, directive.help));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<(Config, Vec<String>), String> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_string()).collect();
        match from_command_line(&args) {
            Ok(Invocation::Run { config, warnings }) => Ok((*config, warnings)),
            Ok(_) => Err("not to be run".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_take_words_until_the_next_one() {
        let (config, warnings) = load(&[
            "--port",
            "7000",
            "--bind",
            "::1",
            "127.0.0.1",
            "--requirepass",
            "--secret",
            "--timeout 5",
            "--save",
        ])
        .expect("valid");
        assert_eq!(config.int("port"), 7000);
        assert_eq!(config.text("bind"), "::1 127.0.0.1");
        assert_eq!(config.text("requirepass"), "--secret");
        assert_eq!(config.int("timeout"), 5);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("'save' has no effect"));
    }

    #[test]
    fn files_have_comments_quotes_and_includes() {
        let dir = std::env::temp_dir().join(format!("ardb-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let inner = dir.join("inner.conf");
        let outer = dir.join("outer.conf");
        std::fs::write(&inner, "maxclients 7\n").expect("written");
        let text = format!(
            "# comment\n  requirepass \"a b\\x41\"  \n\ninclude {}\nsave 1 2\nsave 3 4\nSLAVE-priority 3\n",
            inner.display()
        );
        std::fs::write(&outer, text).expect("written");
        let (config, _) = load(&[outer.to_str().expect("UTF-8"), "--maxclients", "8"]).expect("valid");
        assert_eq!(config.text("requirepass"), "a bA");
        assert_eq!(config.int("maxclients"), 8);
        assert_eq!(config.text("save"), "1 2 3 4");
        assert_eq!(config.int("replica-priority"), 3);
        assert_eq!(config.file(), Some(outer.as_path()));

        std::fs::write(&outer, "port 1\nprot 2\n").expect("written");
        let error = load(&[outer.to_str().expect("UTF-8")]).expect_err("unknown");
        assert!(error.contains("line 2") && error.contains("'port'") && error.contains(">>> prot 2"), "{error}");
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn what_cannot_be_honoured_stops_the_start() {
        for args in
            [["--user", "x"], ["--cluster-enabled", "yes"], ["--port", "x"], ["--port", "65536"], ["--loadmodule", "m"]]
        {
            assert!(load(&args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn quoting_is_read_back() {
        let odd: Vec<u8> = (1..=255).collect();
        assert_eq!(words(quoted(&odd).as_bytes()), Some(vec![odd]));
    }
}
