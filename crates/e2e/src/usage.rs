//! What a process has used: processor time, and the most memory that it held, out of `/proc`.

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
        // The name, in parentheses, may hold anything; the times are the 14th to 17th field.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .ok_or_else(|| error(format!("process {pid} has no memory")))?;
        Ok(Usage { cpu: Duration::from_millis(ticks * 1000 / TICKS), peak: peak * 1024 })
    }

    /// The processor time since `before`.
    #[must_use]
    pub fn cpu_since(&self, before: &Usage) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }
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
