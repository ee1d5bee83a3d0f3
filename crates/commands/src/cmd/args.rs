//! Parsing of arguments, shared by the handlers. Each function returns Redis's own error text.

use ardb_base::number;

use crate::context::Ctx;
use crate::error::{self, CmdError};

/// An integer.
pub fn int(arg: &[u8]) -> Result<i64, CmdError> {
    number::parse_i64(arg).ok_or(error::NOT_INTEGER)
}

/// A float; NaN is none.
pub fn float(arg: &[u8]) -> Result<f64, CmdError> {
    number::parse_f64(arg).ok_or(error::NOT_FLOAT)
}

/// Whether the argument is this word, in any case.
#[must_use]
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// The timeout of a blocking command: seconds, as a float. When it ends in ms since 1970; `None` if it is zero, which waits for ever.
/// A time that 64 bits of milliseconds cannot hold is refused as negative, which is what Redis 7.0 makes of it.
pub fn parse_timeout(ctx: &Ctx<'_>, arg: &[u8]) -> Result<Option<i64>, CmdError> {
    let seconds = number::parse_f64(arg).ok_or(error::TIMEOUT_NOT_FLOAT)?;
    let ms = (seconds * 1000.0).ceil();
    // The float above i64::MAX is the first that does not fit.
    if ms < 0.0 || ms >= i64::MAX as f64 {
        return Err(error::TIMEOUT_NEGATIVE);
    }
    let ms = ms as i64;
    Ok((ms > 0).then(|| ctx.now.saturating_add(ms)))
}
