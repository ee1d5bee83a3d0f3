//! Log lines in Redis's form, so that the tools that read them go on working: `pid:role date level message`.
//!
//! The role is `M` for a master and `S` for a replica, the level `.` debug, `-` verbose, `*` notice, `#` warning. Times are UTC.
//! The log file is opened for every line, so that it can be moved away at any time.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::clock;

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    /// Where lines go; `None` is the standard output.
    file: Option<PathBuf>,
    replica: AtomicBool,
    level: AtomicU8,
    /// One line at a time.
    turn: Mutex<()>,
}

const LEVELS: [&str; 4] = ["warning", "notice", "verbose", "debug"];

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        rank(metadata.level()) <= self.level.load(Ordering::Relaxed)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let role = if self.replica.load(Ordering::Relaxed) { 'S' } else { 'M' };
        let mark = ['#', '*', '-', '.'][usize::from(rank(record.level()))];
        let date = date(clock::unix_ms());
        let line = format!("{}:{role} {date} {mark} {}\n", std::process::id(), record.args());
        let _turn = self.turn.lock();
        // A log that cannot be written has nowhere to complain.
        let _ = match &self.file {
            None => std::io::stdout().write_all(line.as_bytes()),
            Some(path) => std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
        };
    }

    fn flush(&self) {}
}

/// 0 is the most important.
fn rank(level: Level) -> u8 {
    match level {
        Level::Error | Level::Warn => 0,
        Level::Info => 1,
        Level::Debug => 2,
        Level::Trace => 3,
    }
}

/// Starts logging. Called once; later calls change nothing.
pub fn start(file: Option<PathBuf>, level: &str) {
    let logger = LOGGER.get_or_init(|| Logger {
        file,
        replica: AtomicBool::new(false),
        level: AtomicU8::new(1),
        turn: Mutex::new(()),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
    set_level(level);
}

/// Changes the least important level that is logged: a value of `loglevel`.
pub fn set_level(level: &str) {
    if let (Some(logger), Some(rank)) = (LOGGER.get(), LEVELS.iter().position(|l| *l == level)) {
        logger.level.store(rank as u8, Ordering::Relaxed);
        log::set_max_level([LevelFilter::Warn, LevelFilter::Info, LevelFilter::Debug, LevelFilter::Trace][rank]);
    }
}

/// Says which role the lines show.
pub fn set_replica(replica: bool) {
    if let Some(logger) = LOGGER.get() {
        logger.replica.store(replica, Ordering::Relaxed);
    }
}

/// `22 Nov 2026 12:30:51.123`.
fn date(ms: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days since 1 March of year 0 in the proleptic Gregorian calendar, whose years end with the leap day.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 2 } else { shifted - 10 };
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let (h, m, s, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{day:02} {} {year} {h:02}:{m:02}:{s:02}.{ms:03}", MONTHS[(month as usize).min(11)])
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        assert_eq!(date(0), "01 Jan 1970 00:00:00.000");
        assert_eq!(date(951_782_400_000), "29 Feb 2000 00:00:00.000");
        assert_eq!(date(1_795_350_651_123), "22 Nov 2026 12:30:51.123");
        assert_eq!(date(1_735_689_599_999), "31 Dec 2024 23:59:59.999");
    }
}
