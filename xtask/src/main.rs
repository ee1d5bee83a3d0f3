//! Chores of the project, called as `cargo xtask <chore>`.
//!
//! `check` holds what Cargo itself does not: the layers between the crates ([`layers`]) and the form of the source files
//! ([`form`]). It reads `cargo metadata` and the working tree, prints every violation, and fails if there is one.
#![allow(clippy::print_stdout, reason = "a command-line tool")]
#![allow(clippy::disallowed_methods, reason = "a tool that reads the sources")]

mod form;
mod json;
mod layers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => {
            eprintln!("usage: cargo xtask check");
            ExitCode::from(2)
        }
    }
}

fn check() -> ExitCode {
    // Of the checkout that it is called in, not of one in which the program was built: they may share a folder for what is built.
    let of_package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "xtask".into()));
    let root = of_package.parent().unwrap_or(Path::new("."));
    let violations = metadata(root).and_then(|metadata| {
        let mut violations = layers::violations(&metadata)?;
        violations.extend(form::violations(root).map_err(|failure| format!("reading the sources: {failure}"))?);
        Ok(violations)
    });
    match violations {
        Ok(violations) if violations.is_empty() => {
            println!("xtask: layers and form are as they should be");
            ExitCode::SUCCESS
        }
        Ok(violations) => {
            for violation in &violations {
                println!("xtask: {violation}");
            }
            println!("xtask: {} violations", violations.len());
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn metadata(root: &Path) -> Result<json::Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|failure| format!("cargo metadata: {failure}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    json::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| "cargo metadata printed no JSON".to_string())
}
