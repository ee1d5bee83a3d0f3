//! Parsing of arguments, shared by the handlers. Each function returns Redis's own error text.

use ardb_base::number;

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
