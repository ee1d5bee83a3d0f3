//! How often each command was called, how long it took, and which errors were replied: INFO commandstats and errorstats.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_commands::{Command, Table};
use parking_lot::Mutex;

/// Errors of different kinds that are counted apart; further kinds are not.
const MOST_ERRORS: usize = 128;

struct Calls {
    /// Address of the command's row, by which the list is sorted.
    row: usize,
    name: &'static str,
    calls: AtomicU64,
    micros: AtomicU64,
    failed: AtomicU64,
}

/// All counters.
#[derive(Default)]
pub struct CallStats {
    rows: Vec<Calls>,
    errors: Mutex<BTreeMap<String, u64>>,
}

fn address(command: &'static Command) -> usize {
    std::ptr::from_ref(command).addr()
}

impl CallStats {
    /// Counters for the commands of a table.
    #[must_use]
    pub fn new(table: &Table) -> CallStats {
        let mut rows = Vec::new();
        let mut add = |command: &'static Command, name: &'static str| {
            let (calls, micros, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            rows.push(Calls { row: address(command), name, calls, micros, failed });
        };
        for command in table.rows() {
            add(command, command.name);
            for sub in command.subcommands {
                // As many as there are subcommands, once a process.
                add(sub, Box::leak(format!("{}|{}", command.name, sub.name).into_boxed_str()));
            }
        }
        rows.sort_by_key(|calls| calls.row);
        CallStats { rows, errors: Mutex::default() }
    }

    fn find(&self, command: &'static Command) -> Option<&Calls> {
        let at = self.rows.binary_search_by_key(&address(command), |calls| calls.row).ok()?;
        self.rows.get(at)
    }

    /// The name of a command with that of its container.
    #[must_use]
    pub fn name(&self, command: &'static Command) -> &'static str {
        self.find(command).map_or(command.name, |calls| calls.name)
    }

    /// Counts a call.
    pub fn called(&self, command: &'static Command, micros: u64, failed: bool) {
        if let Some(calls) = self.find(command) {
            calls.calls.fetch_add(1, Ordering::Relaxed);
            calls.micros.fetch_add(micros, Ordering::Relaxed);
            if failed {
                calls.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts an error reply, which begins with `-`.
    pub fn replied_error(&self, reply: &[u8]) {
        let code: &[u8] = reply[1..].split(|b| b.is_ascii_whitespace()).next().unwrap_or(b"");
        let code = String::from_utf8_lossy(&code[..code.len().min(64)]);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(&*code) {
            *count += 1;
        } else if errors.len() < MOST_ERRORS {
            errors.insert(code.into_owned(), 1);
        }
    }

    /// Back to zero.
    pub fn reset(&self) {
        for calls in &self.rows {
            for counter in [&calls.calls, &calls.micros, &calls.failed] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.errors.lock().clear();
    }

    /// The lines of `commandstats`.
    pub fn commands(&self, out: &mut String) {
        let mut rows: Vec<&Calls> = self.rows.iter().filter(|c| c.calls.load(Ordering::Relaxed) > 0).collect();
        rows.sort_by_key(|calls| calls.name);
        for row in rows {
            let [calls, micros, failed] = [&row.calls, &row.micros, &row.failed].map(|c| c.load(Ordering::Relaxed));
            let _ = write!(
                out,
                "cmdstat_{}:calls={calls},usec={micros},usec_per_call={:.2},rejected_calls=0,failed_calls={failed}\r\n",
                row.name,
                micros as f64 / calls.max(1) as f64
            );
        }
    }

    /// The lines of `errorstats`.
    pub fn errors(&self, out: &mut String) {
        for (code, count) in &*self.errors.lock() {
            let _ = write!(out, "errorstat_{code}:count={count}\r\n");
        }
    }
}
