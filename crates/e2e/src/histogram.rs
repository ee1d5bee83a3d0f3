//! How long things took, counted in buckets whose width grows with the value, so that a percentile of any size is right to 1.6 %.
//!
//! Invariant: recording takes no memory after the first value; two histograms add up to what one would have counted.

use std::time::Duration;

/// Buckets for each doubling.
const FINE: u64 = 64;
/// Bits that a bucket's number within its doubling takes.
const BITS: u32 = FINE.trailing_zeros();
/// Doublings above the first [`FINE`] nanoseconds: the last bucket begins at four and a half hours.
const DOUBLINGS: u64 = 38;

/// Counts of durations.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Empty until something is recorded.
    buckets: Vec<u32>,
    count: u64,
    sum: u128,
    most: u64,
}

/// The bucket of so many nanoseconds.
fn bucket(value: u64) -> usize {
    if value < FINE {
        return value as usize;
    }
    let doubling = u64::from(value.ilog2() - BITS);
    let within = (value >> doubling) - FINE;
    (FINE + doubling.min(DOUBLINGS - 1) * FINE + within) as usize
}

/// The largest value that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let (doubling, within) = ((bucket - FINE) / FINE, (bucket - FINE) % FINE);
    ((FINE + within + 1) << doubling) - 1
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, time: Duration) {
        self.record_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one duration given in nanoseconds.
    pub fn record_nanos(&mut self, nanos: u64) {
        self.record_many(nanos, 1);
    }

    /// Counts the same duration so many times.
    pub fn record_many(&mut self, nanos: u64, times: u32) {
        if times == 0 {
            return;
        }
        if self.buckets.is_empty() {
            self.buckets = vec![0; (FINE + DOUBLINGS * FINE) as usize];
        }
        self.buckets[bucket(nanos)] += times;
        self.count += u64::from(times);
        self.sum += u128::from(nanos) * u128::from(times);
        self.most = self.most.max(nanos);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Histogram) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
                *mine += theirs;
            }
        }
        self.count += other.count;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// What they took on average.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.sum / u128::from(self.count.max(1))).unwrap_or(u64::MAX))
    }

    /// What this part of them, in percent, took at most; zero if there are none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = ((percent / 100.0 * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(highest(at).min(self.most));
            }
        }
        self.max()
    }

    /// The percentiles 50, 99 and 99.9 in milliseconds, for a table.
    #[must_use]
    pub fn brief(&self) -> String {
        if self.count == 0 {
            return "–".to_string();
        }
        let each = [50.0, 99.0, 99.9].map(|percent| milliseconds(self.percentile(percent)));
        each.join(" / ")
    }
}

/// A duration in milliseconds with three digits that count.
#[must_use]
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 10.0 => format!("{ms:.2}"),
        _ if ms < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut random = Random::new(7);
        let (mut all, mut parts) = (Histogram::default(), [Histogram::default(), Histogram::default()]);
        let mut draw = |_| random.next_u64() >> (28 + random.below(36));
        let mut values: Vec<u64> = (0..20_000).map(&mut draw).collect();
        for (at, value) in values.iter().enumerate() {
            all.record_nanos(*value);
            parts[at % 2].record_nanos(*value);
        }
        values.sort_unstable();
        let mut sum = Histogram::default();
        parts.iter().for_each(|part| sum.add(part));
        for percent in [0.1, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
            let exact = values[((percent / 100.0 * values.len() as f64).ceil() as usize).max(1) - 1] as f64;
            let found = all.percentile(percent).as_nanos() as f64;
            assert!(found >= exact && found <= exact * 1.016 + 1.0, "{percent} %: {found} for {exact}");
            assert_eq!(sum.percentile(percent), all.percentile(percent));
        }
        assert_eq!(all.max().as_nanos() as u64, values[values.len() - 1]);
        assert_eq!(all.mean().as_nanos(), values.iter().map(|value| u128::from(*value)).sum::<u128>() / 20_000);
        assert_eq!(sum.count(), 20_000);
    }

    #[test]
    fn every_value_has_a_bucket_that_holds_it() {
        for value in (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]) {
            let at = bucket(value);
            if value < 1 << 40 {
                assert!(highest(at) >= value && (at == 0 || highest(at - 1) < value), "{value} in {at}");
            }
        }
        let mut one = Histogram::default();
        one.record_nanos(u64::MAX >> 20);
        assert_eq!(one.percentile(50.0), one.max());
        assert_eq!(Histogram::default().percentile(99.0), Duration::ZERO);
    }
}
