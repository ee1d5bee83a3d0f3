//! Counters that INFO shows and the rates derived from them.

use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::counter::Counter;

/// Samples that a rate is the mean of.
const SAMPLES: usize = 16;

/// The counters.
#[derive(Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused.
    pub rejected: AtomicU64,
    /// Bytes received.
    pub input: Counter,
    /// Bytes sent.
    pub output: Counter,
    /// Reads from sockets.
    pub reads: Counter,
    /// Writes to sockets.
    pub writes: Counter,
    /// Commits of clients' commands.
    pub commits: Counter,
    /// Changes since the last RDB file.
    pub changes: Counter,
    /// Clients closed for their output.
    pub output_kills: AtomicU64,
    /// Clients closed for their input.
    pub input_kills: AtomicU64,
    /// The rates of now: commands, bytes in, bytes out a second.
    pub rates: [AtomicU64; 3],
}

impl Stats {
    /// Back to zero (CONFIG RESETSTAT).
    pub fn reset(&self) {
        for counter in [&self.connections, &self.rejected, &self.output_kills, &self.input_kills] {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [&self.input, &self.output, &self.reads, &self.writes, &self.commits] {
            counter.reset();
        }
    }
}

/// Turns counters into rates, once a sample.
#[derive(Default)]
pub struct Rates {
    samples: [[u64; SAMPLES]; 3],
    last: [u64; 3],
    at: i64,
    next: usize,
}

impl Rates {
    /// Takes the counters' values at `now` (ms) and gives the rates a second.
    pub fn sample(&mut self, now: i64, values: [u64; 3]) -> [u64; 3] {
        let passed = (now - self.at).max(1) as u64;
        for (i, value) in values.into_iter().enumerate() {
            // A counter that was reset counts from zero.
            let more = value.checked_sub(self.last[i]).unwrap_or(value);
            self.samples[i][self.next] = if self.at == 0 { 0 } else { more * 1000 / passed };
            self.last[i] = value;
        }
        self.at = now;
        self.next = (self.next + 1) % SAMPLES;
        self.samples.map(|samples| samples.iter().sum::<u64>() / SAMPLES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_of_samples() {
        let mut rates = Rates::default();
        let mut now = 1000;
        let mut last = [0; 3];
        for i in 0..=SAMPLES as u64 {
            last = rates.sample(now, [i * 10, i * 100, 0]);
            now += 100;
        }
        assert_eq!(last, [100, 1000, 0]);
        assert_eq!(rates.sample(now, [5, 0, 0])[0], (15 * 100 + 50) / 16);
    }
}
