//! How long space that was freed takes to come back from the disk.

use std::time::{Duration, Instant};

use ardb_e2e::Result;

use crate::bed::{Bed, Guest, gb, say};

/// Space on the disk over time, after something was removed.
pub struct Release {
    /// Before and in the end, without the log.
    pub before: u64,
    pub after: u64,
    /// The log's in the end.
    pub log: u64,
    /// Until 90 % of what came back was back, and until the last change.
    pub most: Duration,
    pub last: Duration,
    /// Whether it stood still in the end.
    pub still: bool,
    /// Seconds and bytes.
    pub series: Vec<(f64, f64)>,
}

impl Release {
    /// In words.
    pub fn describe(&self) -> String {
        format!(
            "{} before, {} after; nine tenths of what came back were back after {:.1} s, the last change came after {:.1} s{} (the log has {} then)",
            gb(self.before),
            gb(self.after),
            self.most.as_secs_f64(),
            self.last.as_secs_f64(),
            if self.still { "" } else { ", and it was still changing at the limit" },
            gb(self.log)
        )
    }
}

/// Asks for a checkpoint and looks at the folder until it has not changed for the time `quiet`.
pub fn watch(server: &Guest, bed: &Bed, before: u64) -> Result<Release> {
    let (start, limit, quiet) = (Instant::now(), bed.seconds("settle"), bed.seconds("quiet"));
    let mut client = server.client()?;
    client.must("BGREWRITEAOF")?;
    let mut series: Vec<(f64, f64)> = Vec::new();
    let (mut last, mut size, mut told) = (Duration::ZERO, 0, Instant::now());
    loop {
        let (now, _) = server.space()?;
        let at = start.elapsed();
        // Less than that is the engine's own bookkeeping.
        if now.abs_diff(size) > (before / 1000).max(256 << 10) {
            (size, last) = (now, at);
        }
        series.push((at.as_secs_f64(), now as f64));
        if told.elapsed() > Duration::from_secs(20) {
            say(format!("{:.0} s: {}", at.as_secs_f64(), gb(now)));
            told = Instant::now();
        }
        let info = client.info("storage")?;
        let busy = ["engine_pending_compaction_bytes", "engine_rocksdb_running_compactions"]
            .iter()
            .any(|name| info.get(*name).is_some_and(|text| text != "0"));
        if at >= limit || (!busy && at.saturating_sub(last) >= quiet) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let (after, log) = server.space()?;
    let enough = before as f64 - (before.saturating_sub(after)) as f64 * 0.9;
    let most = series.iter().find(|(_, bytes)| *bytes <= enough).map_or(last.as_secs_f64(), |(at, _)| *at);
    let still = start.elapsed() < limit;
    Ok(Release { before, after, log, most: Duration::from_secs_f64(most), last, still, series })
}
