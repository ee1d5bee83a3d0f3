//! What a process uses: processor time and memory, out of `/proc`; and how large a folder is on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::{Result, error};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of its own, and of its children that have ended.
    pub cpu: Duration,
    /// The most memory it held since [`reset_peak`] or its start, bytes.
    pub peak: u64,
}

/// Ticks of the kernel's clock in a second, as it shows them to programs.
const TICKS: u64 = 100;

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Usage { cpu: processor_time(&stat), peak: field(&status, "VmHWM", pid)? })
    }

    /// The processor time since `before`.
    #[must_use]
    pub fn cpu_since(&self, before: &Usage) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }
}

/// The processor time in a line of `/proc/PID/stat`.
fn processor_time(stat: &str) -> Duration {
    // The name, in parentheses, may hold anything; the times are the 14th to 17th field.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// What memory a process holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All of it.
    pub resident: u64,
    /// What is its own.
    pub anonymous: u64,
    /// Pages of files, which the system can drop at any time.
    pub file: u64,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let [resident, anonymous, file] = ["VmRSS", "RssAnon", "RssFile"].map(|name| field(&status, name, pid));
        Ok(Memory { resident: resident?, anonymous: anonymous?, file: file? })
    }

    /// The larger of each, which may have been at different times.
    #[must_use]
    pub fn most(self, other: Memory) -> Memory {
        Memory {
            resident: self.resident.max(other.resident),
            anonymous: self.anonymous.max(other.anonymous),
            file: self.file.max(other.file),
        }
    }
}

/// A field of a process's status, in bytes.
fn field(status: &str, name: &str, pid: u32) -> Result<u64> {
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kilobytes.map(|number| number * 1024).ok_or_else(|| error(format!("process {pid} has no {name}")))
}

/// The bytes that the files of a folder take on the disk. One that goes meanwhile counts for nothing.
///
/// # Errors
/// If there is no such folder.
pub fn on_disk(dir: &Path) -> Result<u64> {
    /// What the system counts in, whatever the disk's own blocks are.
    const BLOCK: u64 = 512;
    Ok(std::fs::read_dir(dir)?.flatten().filter_map(|file| Some(file.metadata().ok()?.blocks() * BLOCK)).sum())
}

/// As [`on_disk`], with the folders in it.
///
/// # Errors
/// If there is no such folder.
pub fn tree_on_disk(dir: &Path) -> Result<u64> {
    let inner =
        std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink());
    Ok(on_disk(dir)? + inner.map(|path| tree_on_disk(&path).unwrap_or(0)).sum::<u64>())
}

/// The bytes that a process has caused to be written to the disk.
///
/// # Errors
/// If there is no such process, or the kernel does not say.
pub fn written(pid: u32) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    transferred(&io, "write_bytes").ok_or_else(|| error(format!("process {pid} has no write_bytes")))
}

/// A field of `/proc/PID/io`.
fn transferred(io: &str, name: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

/// Lets the process's peak of memory begin anew.
///
/// # Errors
/// If the kernel refuses.
pub fn reset_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Bytes in megabytes, for people.
#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_bytes_are_read_out_of_what_the_kernel_says() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 90 0 1 0 250 31 4 15 20 0 9 0 1234 56 78";
        assert_eq!(processor_time(stat), Duration::from_millis(3000));
        assert_eq!(processor_time("nothing"), Duration::ZERO);
        let io = "rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 16384\n";
        assert_eq!(transferred(io, "write_bytes"), Some(8192));
        assert_eq!(transferred(io, "read_bytes"), Some(4096));
        assert_eq!(transferred("write_bytes: many", "write_bytes"), None);
    }

    #[test]
    fn a_folder_is_as_large_as_the_blocks_of_its_files() {
        let dir = crate::server::fresh_dir().unwrap();
        std::fs::create_dir(dir.join("inner")).unwrap();
        std::fs::write(dir.join("one"), vec![1; 100_000]).unwrap();
        std::fs::write(dir.join("inner/two"), vec![1; 50_000]).unwrap();
        std::fs::File::create(dir.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let (flat, whole) = (on_disk(&dir).unwrap(), tree_on_disk(&dir).unwrap());
        assert!((100_000..200_000).contains(&flat) && (50_000..100_000).contains(&(whole - flat)), "{flat} {whole}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_process_has_memory_of_its_own_and_of_files() {
        let mut before = Memory::of(std::process::id()).unwrap();
        let held = vec![1u8; 32 << 20];
        let after = Memory::of(std::process::id()).unwrap();
        assert!(after.anonymous >= before.anonymous + (30 << 20), "{before:?} {after:?}");
        assert!(after.file > 0 && after.resident >= after.anonymous + after.file, "{after:?}");
        drop(held);
        before.file = after.file + 1;
        let most = before.most(after);
        assert_eq!((most.anonymous, most.file), (after.anonymous, after.file + 1));
        assert!(field("VmRSSX: 5 kB\nVmRSS:\t  7 kB\n", "VmRSS", 1).is_ok_and(|bytes| bytes == 7 << 10));
        assert!(field("VmRSS: 7 MB\n", "VmRSS", 1).is_err());
    }
}
