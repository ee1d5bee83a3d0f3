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

/// What it reports of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Requests a second.
    pub rate: f64,
    /// Milliseconds that so many of the requests took at most: half of them, 99 of 100, 999 of 1,000.
    pub latency: [f64; 3],
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
        Benchmark::start_as(port, plan, &["--csv"])
    }

    /// Starts it with so many threads, for a whole [`Report`].
    ///
    /// # Errors
    /// If the program is not there.
    pub fn start_with_threads(port: u16, plan: &Plan<'_>, threads: u64) -> Result<Benchmark> {
        match threads {
            0 | 1 => Benchmark::start_as(port, plan, &[]),
            _ => Benchmark::start_as(port, plan, &["--threads", &threads.to_string()]),
        }
    }

    fn start_as(port: u16, plan: &Plan<'_>, more: &[&str]) -> Result<Benchmark> {
        let number = |value: u64| value.to_string();
        let mut command = Command::new(peers::peer("redis-benchmark")?);
        command.args(["-p", &number(port.into()), "-t", plan.test, "-n", &number(plan.requests)]);
        command.args(more).args(["-r", &number(plan.keys), "-d", &number(plan.bytes), "-c", &number(plan.clients)]);
        command.args(["-P", &number(plan.pipeline)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Benchmark { child: command.spawn()?, test: plan.test.to_string() })
    }

    /// Waits for its end and gives the requests a second that it reports.
    ///
    /// # Errors
    /// If it fails, or reports nothing.
    pub fn wait(mut self) -> Result<f64> {
        let test = self.test.clone();
        self.end(|out| requests_a_second(out, &test))
    }

    /// Waits for its end, if it was [started for that](Benchmark::start_with_threads), and gives its report.
    ///
    /// # Errors
    /// If it fails, or reports nothing.
    pub fn report(mut self) -> Result<Report> {
        self.end(last_report)
    }

    fn end<T>(&mut self, understand: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let said = |stream: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            stream.map(|stream| stream.read_to_string(&mut text)).transpose().map(|_| text)
        };
        // It complains in a few lines, less than a pipe holds.
        let out = said(self.child.stdout.as_mut().map(|stream| stream as _))?;
        let faults = said(self.child.stderr.as_mut().map(|stream| stream as _))?;
        let status = self.child.wait()?;
        match understand(&out) {
            Some(report) if status.success() => Ok(report),
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

/// The last test in a report for people.
fn last_report(report: &str) -> Option<Report> {
    let test = &report[report.rfind("======\n")?..];
    let rate = test.lines().find_map(|line| line.trim().strip_prefix("throughput summary: "))?;
    // Lines such as `99.902% <= 0.527 milliseconds (cumulative count 99908)`, in two lists, of which the first goes by percentiles.
    let list = test[test.find("Latency by percentile distribution:")?..].split("Cumulative distribution").next()?;
    let points: Vec<(f64, f64)> = list
        .lines()
        .filter_map(|line| {
            let (part, rest) = line.trim().split_once("% <= ")?;
            Some((part.parse().ok()?, rest.split(' ').next()?.parse().ok()?))
        })
        .collect();
    let at = |part: f64| points.iter().find(|(least, _)| *least >= part).map(|(_, ms)| *ms);
    Some(Report { rate: rate.split(' ').next()?.parse().ok()?, latency: [at(50.0)?, at(99.0)?, at(99.9)?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_test_of_a_report_counts() {
        let one = |name: &str, rate: &str, ms: &str| {
            format!(
                "====== {name} ======\n  9 requests completed in 0.1 seconds\n\nLatency by percentile distribution:\n0.000% <= 0.1 milliseconds (cumulative count 1)\n\
                 50.000% <= 0.2 milliseconds (cumulative count 5)\n99.219% <= {ms} milliseconds (cumulative count 9)\n99.902% <= 7 milliseconds (cumulative count 9)\n\n\
                 Cumulative distribution of latencies:\n99.9% <= 0.9 milliseconds (cumulative count 9)\n\nSummary:\n  throughput summary: {rate} requests per second\n"
            )
        };
        let both = one("LPUSH (needed to benchmark LRANGE)", "1.0", "3")
            + &one("LRANGE_100 (first 100 elements)", "250.50", "4");
        assert_eq!(last_report(&both), Some(Report { rate: 250.5, latency: [0.2, 4.0, 7.0] }));
        assert_eq!(last_report("nothing"), None);
    }

    #[test]
    fn the_rate_is_that_of_the_test() {
        let report = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"1234.50\",\"0.5\"\n\"HSET\",\"99.00\",\"1\"\n";
        assert_eq!(requests_a_second(report, "set"), Some(1234.5));
        assert_eq!(requests_a_second(report, "hset"), Some(99.0));
        assert_eq!(requests_a_second(report, "zadd"), None);
        assert_eq!(requests_a_second("\"SET\",\"nan?\"", "set"), None);
    }
}
