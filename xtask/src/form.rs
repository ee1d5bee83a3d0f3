//! The form of the sources: no file over 800 lines, every Rust file opens with `//!`, every script with its purpose.

use std::io;
use std::path::Path;

/// The most lines that a source file may have.
const LINES: usize = 800;

/// Folders with sources, below the root.
const FOLDERS: [&str; 4] = ["crates", "xtask", "scripts", "fuzz"];

/// Every file that is not in form.
///
/// # Errors
/// If a folder or file cannot be read.
pub fn violations(root: &Path) -> io::Result<Vec<String>> {
    let mut violations = Vec::new();
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        if folder.is_dir() {
            visit(root, &folder, &mut violations)?;
        }
    }
    Ok(violations)
}

fn visit(root: &Path, folder: &Path, violations: &mut Vec<String>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" {
                visit(root, &path, violations)?;
            }
            continue;
        }
        let kind = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(kind, "rs" | "sh") {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            violations.extend(faults(kind, &std::fs::read_to_string(&path)?).map(|fault| format!("{shown}: {fault}")));
        }
    }
    Ok(())
}

/// What is wrong with one file.
fn faults(kind: &str, text: &str) -> impl Iterator<Item = String> + use<> {
    let lines = text.lines().count();
    let long = (lines > LINES).then(|| format!("{lines} lines, more than {LINES}"));
    let opens = match kind {
        "rs" => text.starts_with("//!"),
        _ => text.lines().nth(1).is_some_and(|line| line.starts_with("# ")),
    };
    let mute = (!opens).then(|| "does not open by saying what it owns".to_string());
    long.into_iter().chain(mute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_mute_files_are_found() {
        assert_eq!(faults("rs", "//! Owns nothing.\n").count(), 0);
        assert_eq!(faults("rs", "fn main() {}\n").count(), 1);
        assert_eq!(faults("rs", &"x\n".repeat(801)).count(), 2);
        assert_eq!(faults("sh", "#!/bin/sh\n# Does nothing.\n").count(), 0);
        assert_eq!(faults("sh", "#!/bin/sh\nset -e\n").count(), 1);
    }
}
