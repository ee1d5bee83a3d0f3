//! How often each command was called, how long it took, and which errors were replied: INFO commandstats and errorstats.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::counter::{self, LINES};
use ardb_commands::{Command, Table};
use parking_lot::Mutex;

/// Errors of different kinds that are counted apart; further kinds are not.
const MOST_ERRORS: usize = 128;

#[derive(Default)]
struct Calls {
    calls: AtomicU64,
    micros: AtomicU64,
    failed: AtomicU64,
}

/// All counters.
pub struct CallStats {
    /// Commands and subcommands with their names, by address.
    rows: Vec<(usize, &'static str)>,
    /// Places in `rows`, by a hash of the address; one more than the place, 0 is nothing.
    places: Box<[u16]>,
    /// The counters of all rows, once for each [line](counter::line), so that threads that run the same command do not fight for it.
    counts: [Box<[Calls]>; LINES],
    errors: Mutex<BTreeMap<String, u64>>,
}

fn address(command: &'static Command) -> usize {
    std::ptr::from_ref(command).addr()
}

/// Where the search for an address begins among so many places, a power of two.
fn home(address: usize, places: usize) -> usize {
    let mixed = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize & (places - 1)
}

impl CallStats {
    /// Counters for the commands of a table.
    #[must_use]
    pub fn new(table: &Table) -> CallStats {
        let mut rows = Vec::new();
        for command in table.rows() {
            rows.push((address(command), command.name));
            for sub in command.subcommands {
                // As many as there are subcommands, once a process.
                let name: &'static str = Box::leak(format!("{}|{}", command.name, sub.name).into_boxed_str());
                rows.push((address(sub), name));
            }
        }
        rows.sort_unstable();
        // A quarter full at most, so a search is short.
        let mut places = vec![0u16; (rows.len() * 4).next_power_of_two()].into_boxed_slice();
        for (place, (row, _)) in (1..).zip(&rows) {
            let mut at = home(*row, places.len());
            while places[at] != 0 {
                at = (at + 1) % places.len();
            }
            places[at] = place;
        }
        let counts = std::array::from_fn(|_| rows.iter().map(|_| Calls::default()).collect());
        CallStats { rows, places, counts, errors: Mutex::default() }
    }

    /// The place of a command among the counters.
    #[must_use]
    pub fn place(&self, command: &'static Command) -> Option<usize> {
        let row = address(command);
        let mut at = home(row, self.places.len());
        loop {
            let place = usize::from(self.places[at]).checked_sub(1)?;
            if self.rows[place].0 == row {
                return Some(place);
            }
            at = (at + 1) % self.places.len();
        }
    }

    /// The name of the command at a place with that of its container.
    #[must_use]
    pub fn name(&self, place: usize) -> &'static str {
        self.rows[place].1
    }

    /// Counts a call.
    pub fn called(&self, command: &'static Command, micros: u64, failed: bool) {
        if let Some(place) = self.place(command) {
            self.add(place, 1, micros, u64::from(failed));
        }
    }

    /// Counts calls of the command at a place, and how many of them failed.
    pub fn add(&self, place: usize, calls: u64, micros: u64, failed: u64) {
        let counts = &self.counts[counter::line()][place];
        counts.calls.fetch_add(calls, Ordering::Relaxed);
        counts.micros.fetch_add(micros, Ordering::Relaxed);
        if failed > 0 {
            counts.failed.fetch_add(failed, Ordering::Relaxed);
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
        for calls in self.counts.iter().flatten() {
            for counter in [&calls.calls, &calls.micros, &calls.failed] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.errors.lock().clear();
    }

    /// The lines of `commandstats`.
    pub fn commands(&self, out: &mut String) {
        let mut names: Vec<(&str, usize)> = self.rows.iter().map(|(_, name)| *name).zip(0..).collect();
        names.sort_unstable();
        for (name, place) in names {
            let sum = |counter: fn(&Calls) -> &AtomicU64| -> u64 {
                self.counts.iter().map(|counts| counter(&counts[place]).load(Ordering::Relaxed)).sum()
            };
            let (calls, micros, failed) = (sum(|c| &c.calls), sum(|c| &c.micros), sum(|c| &c.failed));
            if calls == 0 {
                continue;
            }
            let _ = write!(
                out,
                "cmdstat_{name}:calls={calls},usec={micros},usec_per_call={:.2},rejected_calls=0,failed_calls={failed}\r\n",
                micros as f64 / calls as f64
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
