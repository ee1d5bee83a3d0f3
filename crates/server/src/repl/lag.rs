//! How far one replica is behind, as its acknowledgements show it: in bytes, and in the age of the oldest byte that it has not acknowledged.
//!
//! The thread of a replica marks now and then where the log ended at which time. An acknowledgement is compared with these marks: the first one behind it says
//! since when the replica lacks something. Replicas acknowledge once a second and when they are asked (WAIT), so a figure is as fine as that.
//! Both marks and samples are bounded; when there are too many marks every second one goes, so a replica that stands still for long is
//! measured coarsely, and never forgotten.

use std::collections::VecDeque;

use ardb_base::id::Offset;
use ardb_repl::Ms;

/// Marks that are kept at most.
const MARKS: usize = 512;
/// Acknowledgements that the percentiles are about.
const SAMPLES: usize = 256;

/// What INFO shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagFigures {
    /// Acknowledgements that the percentiles are about.
    pub samples: usize,
    /// Bytes not acknowledged: half of the samples had at most so many.
    pub bytes_p50: u64,
    /// 99 of 100 had at most so many.
    pub bytes_p99: u64,
    /// Age of the oldest of those bytes in ms, in the same way.
    pub ms_p50: Ms,
    /// In the same way.
    pub ms_p99: Ms,
}

/// The lag of one replica.
#[derive(Debug, Default)]
pub struct Lag {
    marks: VecDeque<(Offset, Ms)>,
    samples: VecDeque<(u64, Ms)>,
}

impl Lag {
    /// The log ends at `end` now.
    pub fn mark(&mut self, end: Offset, now: Ms) {
        if self.marks.back().is_some_and(|(last, at)| *last >= end || *at >= now) {
            return;
        }
        if self.marks.len() >= MARKS {
            let mut keep = false;
            // The oldest goes first: its time is kept by none of the others, and it is the one that the next sample is likely to need.
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((end, now));
    }

    /// Everything before `offset` was acknowledged, and the log ends at `end`.
    pub fn acknowledged(&mut self, offset: Offset, end: Offset, now: Ms) {
        while self.marks.front().is_some_and(|(mark, _)| *mark <= offset) {
            self.marks.pop_front();
        }
        let behind = if end > offset { end.since(offset) } else { 0 };
        let age = self.marks.front().map_or(0, |(_, at)| now.saturating_sub(*at));
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((behind, age));
    }

    /// The percentiles of the last acknowledgements.
    #[must_use]
    pub fn figures(&self) -> LagFigures {
        let sorted = |value: fn(&(u64, Ms)) -> u64| {
            let mut values: Vec<u64> = self.samples.iter().map(value).collect();
            values.sort_unstable();
            values
        };
        let (bytes, ms) = (sorted(|sample| sample.0), sorted(|sample| sample.1));
        // The smallest value that so many of a hundred do not exceed.
        let rank = |values: &[u64], percent: usize| {
            let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(at).copied().unwrap_or(0)
        };
        LagFigures {
            samples: self.samples.len(),
            bytes_p50: rank(&bytes, 50),
            bytes_p99: rank(&bytes, 99),
            ms_p50: rank(&ms, 50),
            ms_p99: rank(&ms, 99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_missing_byte_counts() {
        let mut lag = Lag::default();
        for at in 1..=10 {
            lag.mark(Offset(at * 100), at * 10);
        }
        lag.acknowledged(Offset(1000), Offset(1000), 105);
        assert_eq!(lag.figures(), LagFigures { samples: 1, ..LagFigures::default() });
        lag.mark(Offset(1100), 110);
        lag.mark(Offset(1200), 120);
        lag.acknowledged(Offset(1100), Offset(1250), 150);
        let figures = lag.figures();
        assert_eq!((figures.samples, figures.bytes_p99, figures.ms_p99), (2, 150, 30));
        assert_eq!((figures.bytes_p50, figures.ms_p50), (0, 0));
    }

    #[test]
    fn a_replica_that_stands_still_costs_no_memory() {
        let mut lag = Lag::default();
        for at in 1..1_000_000 {
            lag.mark(Offset(at), at);
        }
        assert!(lag.marks.len() <= MARKS);
        lag.acknowledged(Offset(0), Offset(1_000_000), 1_000_000);
        assert_eq!(lag.figures().ms_p99, 999_999, "the first mark is kept");
        for at in 0..10_000 {
            lag.acknowledged(Offset(at), Offset(1_000_000), 1_000_000);
        }
        assert_eq!(lag.figures().samples, SAMPLES);
    }
}
