//! The reference page of all directives, generated from the table.

use std::fmt::Write as _;

use super::directives::{Change, SECTIONS};

/// `docs/config.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Directives\n\n\
         <!-- Generated from crates/server/src/config; `ardb-server --print-config-docs` prints it. -->\n\n\
         `ardb-server [file] [--directive value ...]` reads a file in the syntax of redis.conf, then the command line; the last word counts. \
         `-` as first or last argument reads the standard input as a file too. Sizes take `k`, `kb`, `m`, `mb`, `g`, `gb`. \
         *Runtime* directives can be changed by `CONFIG SET` and kept by `CONFIG REWRITE`.\n",
    );
    for (title, directives) in SECTIONS {
        let _ = write!(out, "\n## {title}\n\n| directive | type | default | changes | |\n|---|---|---|---|---|\n");
        for d in *directives {
            let alias = if d.alias.is_empty() { String::new() } else { format!(" (`{}`)", d.alias) };
            let default =
                if d.default.is_empty() { String::new() } else { format!("`{}`", d.default.replace('|', "\\|")) };
            let change = match d.change {
                Change::Runtime => "runtime",
                Change::Start => "start",
            };
            let _ =
                writeln!(out, "| `{}`{alias} | {} | {default} | {change} | {} |", d.name, d.kind.describe(), d.help);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == super::reference(),
            "docs/config.md is old: write the output of `ardb-server --print-config-docs` there"
        );
    }
}
