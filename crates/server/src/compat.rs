//! The generated part of `docs/compat.md`: the commands of the table, those of Redis 7.0 that are not in it, and the directives without effect.
//!
//! What is there comes from the command table and the table of directives, so the page cannot fall behind them; what is absent is listed here,
//! and a test fails when a name of it has appeared in the table.

use std::fmt::Write as _;

use ardb_commands::Command;
use ardb_commands::cmd;

use crate::commands;
use crate::config::directives;

/// Commands of Redis 7.0 that are absent, by area, with the reason. Subcommands are spelled `container|name`.
const ABSENT: &[(&str, &[&str], &str)] = &[
    (
        "Streams",
        &[
            "xack",
            "xadd",
            "xautoclaim",
            "xclaim",
            "xdel",
            "xgroup",
            "xinfo",
            "xlen",
            "xpending",
            "xrange",
            "xread",
            "xreadgroup",
            "xrevrange",
            "xsetid",
            "xtrim",
        ],
        "the type is not there yet; a full sync or an RDB file with a stream in it is refused with an error that names it",
    ),
    ("HyperLogLog", &["pfselftest"], "it tests parts of the program of Redis"),
    ("Users", &["acl"], "there is one user, `default`, with `requirepass`; AUTH and HELLO take its name"),
    (
        "Functions",
        &[
            "fcall",
            "fcall_ro",
            "function|delete",
            "function|dump",
            "function|kill",
            "function|load",
            "function|restore",
            "function|stats",
        ],
        "not there yet; scripts (EVAL and its kin) are. FUNCTION LIST and FLUSH answer for a server without libraries",
    ),
    (
        "Client side caching",
        &["client|caching", "client|trackinginfo"],
        "not there yet; CLIENT TRACKING ON is refused with an error",
    ),
    (
        "Cluster",
        &["asking", "cluster", "readonly", "readwrite"],
        "there is no cluster mode yet; `cluster-enabled yes` is refused at start",
    ),
    ("Modules", &["module"], "modules are programs for the memory of Redis and cannot run here"),
    ("Moving keys", &["migrate"], "not there yet; DUMP and RESTORE are, and replication moves whole data sets"),
    (
        "Introspection",
        &[
            "command|getkeysandflags",
            "latency|doctor",
            "latency|graph",
            "latency|histogram",
            "memory|malloc-stats",
            "memory|purge",
            "memory|stats",
        ],
        "they show what Redis's event loop and allocator measure; INFO commandstats, SLOWLOG and INFO memory have this server's figures",
    ),
    ("Of later versions", &["client|no-touch", "client|setinfo"], "they came after Redis 7.0"),
];

/// Order and titles of the sections: the name that COMMAND DOCS has, and the title.
const GROUPS: [(&str, &str); 14] = [
    ("generic", "Keys of any type"),
    ("string", "Strings"),
    ("bitmap", "Bits"),
    ("hyperloglog", "HyperLogLogs"),
    ("geo", "Places"),
    ("list", "Lists"),
    ("set", "Sets"),
    ("sorted-set", "Sorted sets"),
    ("hash", "Hashes"),
    ("pubsub", "Publish and subscribe"),
    ("transactions", "Transactions"),
    ("scripting", "Scripts"),
    ("connection", "Connections"),
    ("server", "Server and replication"),
];

/// The line before the generated part of the page.
pub const BEGIN: &str = "<!-- Generated from here on by `ardb-server --print-compat`. -->\n";
/// The line after it.
pub const END: &str = "<!-- Generated up to here. -->\n";

fn rows() -> Vec<&'static Command> {
    let mut rows: Vec<_> = cmd::GROUPS.iter().chain(commands::GROUPS).flat_map(|group| group.iter()).collect();
    rows.sort_by_key(|command| command.name);
    rows
}

fn present(out: &mut String) {
    let rows = rows();
    let subcommands: usize = rows.iter().map(|command| command.subcommands.len()).sum();
    let _ = write!(
        out,
        "\n## Commands\n\n{} commands and {subcommands} subcommands. *Since* is the version of Redis that had the command first; options of \
         later versions up to 7.0 are included.\n",
        rows.len()
    );
    for (group, title) in GROUPS {
        let _ = write!(out, "\n### {title}\n\n| command | since | |\n|---|---|---|\n");
        for command in rows.iter().filter(|command| command.group.name() == group) {
            let _ =
                writeln!(out, "| {} | {} | {} |", command.name.to_ascii_uppercase(), command.since, command.summary);
            for sub in command.subcommands {
                let name = format!("{} {}", command.name, sub.name).to_ascii_uppercase();
                let _ = writeln!(out, "| &nbsp;&nbsp;{name} | {} | {} |", sub.since, sub.summary);
            }
        }
    }
}

fn absent(out: &mut String) {
    out.push_str("\n## Commands of Redis 7.0 that are absent\n\n| area | commands | why |\n|---|---|---|\n");
    for (area, names, why) in ABSENT {
        let names: Vec<String> = names.iter().map(|name| name.replace('|', " ").to_ascii_uppercase()).collect();
        let _ = writeln!(out, "| {area} | {} | {why} |", names.join(", "));
    }
}

fn inert(out: &mut String) {
    out.push_str(
        "\n## Directives without effect\n\nThese are accepted, so that an existing `redis.conf` starts the server; each that is set leaves \
         a line in the log, and CONFIG GET returns what was set.\n\n| directive | why it has no effect |\n|---|---|\n",
    );
    for directive in directives::all().filter(|directive| !directive.used) {
        let _ = writeln!(out, "| `{}` | {} |", directive.name, directive.help);
    }
}

/// The generated part of the page, between its two marks and with them.
#[must_use]
pub fn tables() -> String {
    let mut out = String::from(BEGIN);
    present(&mut out);
    absent(&mut out);
    inert(&mut out);
    out.push('\n');
    out.push_str(END);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compat.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let part = page.find(BEGIN).zip(page.find(END)).map(|(begin, end)| &page[begin..end + END.len()]);
        assert!(
            part == Some(&tables()),
            "docs/compat.md is old: write the output of `ardb-server --print-compat` between its marks"
        );
    }

    #[test]
    fn what_is_absent_is_absent_and_every_row_has_a_section() {
        let rows = rows();
        for name in ABSENT.iter().flat_map(|(_, names, _)| names.iter()) {
            let (container, sub) = name.split_once('|').map_or((*name, None), |(name, sub)| (name, Some(sub)));
            let there = rows.iter().find(|command| command.name == container);
            match sub {
                None => assert!(there.is_none(), "{name} is in the table"),
                Some(sub) => {
                    let container = there.unwrap_or_else(|| panic!("{name} has no container in the table"));
                    assert!(container.subcommands.iter().all(|c| c.name != sub), "{name} is in the table");
                }
            }
        }
        for command in rows {
            assert!(GROUPS.iter().any(|(group, _)| *group == command.group.name()), "{} has no section", command.name);
        }
    }
}
