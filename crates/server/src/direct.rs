//! Whether the engine's files are read past the system's page cache (`direct-reads`).
//!
//! A read through the page cache copies, and where the memory for that cache is small, each of its pages must first be taken from somewhere: a third of the
//! processor time of a cold read, and worse for its tail (`docs/capacity.md`). But what the page cache holds need not be read from the disk at all, so it
//! is left out only where it could hold a small part of the data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ardb_engine::EngineError;
use rustix::fs::{Mode, OFlags};

/// By how much the data must exceed what the page cache may hold.
const TIMES: u64 = 4;

/// What the directive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectReads {
    /// `no`.
    Never,
    /// `yes`.
    Always,
    /// `auto`: if the data are large, that is those for which the page cache has so many bytes at most.
    Beside(u64),
}

impl DirectReads {
    /// From the text of `direct-reads`, in a process that uses `memory_limit` bytes itself.
    pub fn read(choice: &str, memory_limit: u64) -> DirectReads {
        match choice {
            "yes" => DirectReads::Always,
            "no" => DirectReads::Never,
            _ => DirectReads::Beside(memory().saturating_sub(memory_limit)),
        }
    }

    /// Whether the engine in `dir`, which is created if need be, is to be read so.
    ///
    /// # Errors
    /// It must be, and the file system cannot.
    pub fn decide(self, dir: &Path) -> Result<bool, EngineError> {
        let wanted = match self {
            DirectReads::Never => false,
            DirectReads::Always => true,
            // A data set that is being loaded is judged by the one that it replaces, beside it.
            DirectReads::Beside(cache) => size(dir.parent().unwrap_or(dir)) / TIMES > cache,
        };
        if !wanted {
            return Ok(false);
        }
        match try_file(dir) {
            Ok(()) => {
                log::info!("The files in {} are read past the system's page cache", dir.display());
                Ok(true)
            }
            Err(why) if self == DirectReads::Always => Err(EngineError::new(
                format!("read files in {} past the page cache, as 'direct-reads yes' says", dir.display()),
                why,
            )),
            Err(_) => Ok(false),
        }
    }
}

/// Bytes of memory that the process may have: the machine's, or less if a cgroup holds it.
fn memory() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram as u64 * u64::from(machine.mem_unit);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(|line| limit_of_group(line, Path::new("/sys/fs/cgroup"))).fold(machine, u64::min)
}

/// The limit of memory in the group that a line of `/proc/self/cgroup` names, and in those around it, if there is any. All groups lie in the folder `all`.
fn limit_of_group(line: &str, all: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (all.to_path_buf(), "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => (all.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let group = Path::new(group.trim_start_matches('/'));
    // In a container the path may be that of the outside; then only the root is found, and it is the container's.
    let limits = group.ancestors().filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

/// Bytes of the files in a folder and those below.
fn size(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // What is not there has no bytes.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Whether a file in this folder can be opened so.
fn try_file(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path: PathBuf = dir.join("direct-reads");
    fs::write(&path, b"")?;
    let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
    fs::remove_file(&path)?;
    opened.map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_large_if_the_page_cache_can_hold_a_quarter_of_them_at_most() {
        let folder = std::env::temp_dir().join(format!("ardb-direct-{}", std::process::id()));
        let dir = folder.join("gen-000002");
        let decide = |choice: DirectReads| choice.decide(&dir).ok();
        assert_eq!(decide(DirectReads::Beside(0)), Some(false), "no data are not large");
        fs::create_dir_all(folder.join("gen-000001/db")).expect("a folder");
        fs::write(folder.join("gen-000001/db/000001.sst"), vec![0; 4100]).expect("a file");
        assert_eq!(decide(DirectReads::Beside(1025)), Some(false));
        // It depends on the file system beneath.
        let can = try_file(&dir).is_ok();
        assert_eq!(decide(DirectReads::Beside(1024)), Some(can));
        assert_eq!(decide(DirectReads::Always), can.then_some(true));
        assert_eq!(decide(DirectReads::Never), Some(false));
        assert_eq!(fs::read_dir(&dir).expect("it was made").count(), 0, "the file that was tried is gone");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn limits_of_groups_are_found() {
        let all = std::env::temp_dir().join(format!("ardb-groups-{}", std::process::id()));
        for (file, text) in [
            ("a/memory.max", "300\n"),
            ("a/b/memory.max", "max\n"),
            ("a/c/memory.max", "200\n"),
            ("memory/d/memory.limit_in_bytes", "100\n"),
        ] {
            let path = all.join(file);
            fs::create_dir_all(path.parent().unwrap_or(&all)).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        for (line, limit) in [
            ("0::/a/c", Some(200)),
            // What has no limit, or is not there, has that of the groups around it.
            ("0::/a/b", Some(300)),
            ("0::/a/c/e", Some(200)),
            ("0::/", None),
            ("4:cpu,memory:/d", Some(100)),
            ("4:cpu,cpuacct:/d", None),
            ("nonsense", None),
        ] {
            assert_eq!(limit_of_group(line, &all), limit, "{line}");
        }
        fs::remove_dir_all(&all).expect("it is ours");
        assert!(memory() > 0);
    }
}
