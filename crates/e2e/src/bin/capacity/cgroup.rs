//! A limit on all memory of a process, its part of the page cache included: a cgroup of version 1 or 2.
//!
//! Invariant: the group goes with its [`Group`], which must outlive the process in it only by the time that the kernel takes to notice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ardb_e2e::{Result, error};

/// A group with one process in it.
pub struct Group {
    dir: PathBuf,
}

/// The bytes of a size such as `2gb`.
pub fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_lowercase().as_str() {
        "" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        other => return Err(error(format!("{other} is no unit of bytes"))),
    };
    let number: u64 = digits.parse().map_err(|_| error(format!("{text} is no size")))?;
    Ok(number * unit)
}

impl Group {
    /// Puts a process into a new group that may have so many bytes.
    ///
    /// # Errors
    /// If there are no groups here, or this process may not make one.
    pub fn hold(pid: u32, limit: u64) -> Result<Group> {
        let name = format!("ardb-capacity-{pid}");
        let first = Path::new("/sys/fs/cgroup/memory");
        let (dir, limit_file, member_file) = if first.join("memory.limit_in_bytes").exists() {
            // `cgroup.procs` moves all threads; `tasks` would move one.
            (first.join(name), "memory.limit_in_bytes", "cgroup.procs")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", "cgroup.procs")
        };
        std::fs::create_dir(&dir)?;
        let group = Group { dir };
        std::fs::write(group.dir.join(limit_file), limit.to_string())?;
        std::fs::write(group.dir.join(member_file), pid.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("left: {}", self.dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!([bytes("7").unwrap(), bytes("64mb").unwrap(), bytes("2GB").unwrap()], [7, 64 << 20, 2 << 30]);
        assert!(bytes("2tb").is_err() && bytes("gb").is_err());
    }
}
