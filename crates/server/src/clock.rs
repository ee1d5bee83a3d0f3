//! The one place where the server reads the time of day. Crates below get it as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970.
#[must_use]
pub fn unix_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> i64 {
    unix_us() / 1000
}
