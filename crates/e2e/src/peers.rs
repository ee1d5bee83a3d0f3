//! Where the programs under test and the real servers are.
//!
//! `ARDB_SERVER` names the server under test; without it tests take the newest `ardb-server` in the target folder, and programs of the release profile
//! the one beside them. It may name a real Redis, which then stands in: that is how the tests themselves are tested.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Result, error};

const NO_SERVER: &str = "no ardb-server: build it (cargo build --release -p ardb-server) or set ARDB_SERVER";

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.map(Path::to_path_buf).unwrap_or_default()
}

/// The path of the server under test.
///
/// # Errors
/// If it has not been built.
pub fn ardb_server() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ARDB_SERVER") {
        let path = std::path::absolute(path)?;
        return if path.is_file() { Ok(path) } else { Err(error(format!("ARDB_SERVER: no file {}", path.display()))) };
    }
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Ok(me) = std::env::current_exe() {
        // target/<profile>/deps/<test> or target/<profile>/<program>
        folders.extend(me.ancestors().skip(2).take(2).map(Path::to_path_buf));
    }
    folders.extend(std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    folders.push(workspace().join("target"));
    // A program that is optimized measures, and not what somebody has just built for the debugger.
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent)
        && folder.file_name().is_some_and(|name| name == "release")
    {
        let path = folder.join("ardb-server");
        return if path.is_file() { Ok(path) } else { Err(error(NO_SERVER)) };
    }
    let newest = folders
        .iter()
        .flat_map(|folder| ["release", "debug"].map(|profile| folder.join(profile).join("ardb-server")))
        .filter_map(|path| Some((path.metadata().ok()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), path)))
        .max();
    newest.map(|(_, path)| path).ok_or_else(|| error(NO_SERVER))
}

/// The path of a program that `scripts/peers.sh` brings, for instance `redis-server-2.8` or `redis-cli`.
///
/// # Errors
/// If it is not there.
pub fn peer(name: &str) -> Result<PathBuf> {
    let path = workspace().join(".peers/bin").join(name);
    if path.is_file() { Ok(path) } else { Err(error(format!("no {}: run scripts/peers.sh", path.display()))) }
}
