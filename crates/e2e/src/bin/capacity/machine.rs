//! What the figures were measured on, and with.

use std::process::Command;
use std::time::Duration;

use ardb_e2e::{Result, peers};

/// The first value of a field in a text of `name : value` lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
}

/// What a program says of its version.
fn version(path: Result<std::path::PathBuf>) -> Option<String> {
    let said = Command::new(path.ok()?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().next().map(str::to_string)
}

/// The machine, the servers and the command line.
pub fn describe() -> Result<String> {
    let (cpu, memory) = (std::fs::read_to_string("/proc/cpuinfo")?, std::fs::read_to_string("/proc/meminfo")?);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes =
        field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    let mut out = format!(
        "{cores} cores ({}), {:.1} GB of memory, Linux {}.\n\n",
        field(&cpu, "model name").unwrap_or("of an unknown model"),
        kilobytes as f64 / f64::from(1 << 20),
        kernel.trim()
    );
    let programs = [peers::ardb_server(), peers::peer("redis-server-7.0"), peers::peer("valkey-server-9.1")];
    for said in programs.into_iter().filter_map(version) {
        out.push_str(&format!("- {said}\n"));
    }
    Ok(out)
}

/// What stands below a section: how it was made, and how long that took.
pub fn footer(took: Duration) -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("`capacity {}`, {} s for this section.\n", words.join(" "), took.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: A Processor\nMemTotal:       24 kB\n";
        assert_eq!(field(text, "model name"), Some("A Processor"));
        assert_eq!(field(text, "model"), Some("85"));
        assert_eq!(field(text, "MemTotal"), Some("24 kB"));
        assert_eq!(field(text, "Swap"), None);
    }
}
