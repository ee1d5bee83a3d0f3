//! The one place where the server reads the time of day. Crates below get it as an argument.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// A clock that is much cheaper to read than the others, and goes on in steps of up to [`TICK`]: whether it has done so is all that it tells.
#[must_use]
pub fn ticks() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
}

/// What passes at most until [`ticks`] goes on.
pub const TICK: Duration = Duration::from_millis(10);

/// The time since the first call; never goes back.
#[must_use]
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Milliseconds since the first call; never goes back.
#[must_use]
pub fn monotonic_ms() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}
