//! `redis-benchmark` against a server: a test of so many requests, or writes at the highest rate until they are stopped.
//!
//! Invariant: the program dies with its [`Benchmark`].

use std::process::{Child, Command, Stdio};

use crate::{Result, error, peers};

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// One of its tests, `set` for instance.
    pub test: &'a str,
    /// So many requests.
    pub requests: u64,
    /// Over so many keys, fields or members.
    pub keys: u64,
    /// Bytes of a value.
    pub bytes: u64,
    /// Connections.
    pub clients: u64,
    /// Requests that are on their way at a time on each.
    pub pipeline: u64,
}

/// More requests than any run sends: the program's own largest number.
pub const ENDLESS: u64 = i32::MAX as u64;

/// The program while it runs.
#[derive(Debug)]
pub struct Benchmark {
    child: Child,
    test: String,
}

impl Benchmark {
    /// Starts it against a loopback port.
    ///
    /// # Errors
    /// If the program is not there.
    pub fn start(port: u16, plan: &Plan<'_>) -> Result<Benchmark> {
        let number = |value: u64| value.to_string();
        let mut command = Command::new(peers::peer("redis-benchmark")?);
        command.args(["-p", &number(port.into()), "-t", plan.test, "-n", &number(plan.requests), "--csv"]);
        command.args(["-r", &number(plan.keys), "-d", &number(plan.bytes), "-c", &number(plan.clients)]);
        command.args(["-P", &number(plan.pipeline)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Benchmark { child: command.spawn()?, test: plan.test.to_string() })
    }

    /// Waits for its end and gives the requests a second that it reports.
    ///
    /// # Errors
    /// If it fails, or reports nothing.
    pub fn wait(mut self) -> Result<f64> {
        // It prints a few lines, less than a pipe holds.
        let status = self.child.wait()?;
        let said = |stream: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            stream.map(|stream| stream.read_to_string(&mut text)).transpose().map(|_| text)
        };
        let out = said(self.child.stdout.as_mut().map(|stream| stream as _))?;
        let faults = said(self.child.stderr.as_mut().map(|stream| stream as _))?;
        match requests_a_second(&out, &self.test) {
            Some(rate) if status.success() => Ok(rate),
            _ => Err(error(format!("redis-benchmark ended with {status}: {out}{faults}"))),
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If the kernel cannot say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Benchmark {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rate in its report: a line of quoted fields, the first of which names the test.
fn requests_a_second(report: &str, test: &str) -> Option<f64> {
    report.lines().find_map(|line| {
        let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
        let name = fields.next()?;
        if name.eq_ignore_ascii_case(test) { fields.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_test() {
        let report = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"1234.50\",\"0.5\"\n\"HSET\",\"99.00\",\"1\"\n";
        assert_eq!(requests_a_second(report, "set"), Some(1234.5));
        assert_eq!(requests_a_second(report, "hset"), Some(99.0));
        assert_eq!(requests_a_second(report, "zadd"), None);
        assert_eq!(requests_a_second("\"SET\",\"nan?\"", "set"), None);
    }
}
