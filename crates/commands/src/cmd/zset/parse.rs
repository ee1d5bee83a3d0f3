//! Ends of ranges, by score, by name and by rank.

use ardb_base::number;
use ardb_types::zset::{LexBound, ScoreRange};

use crate::error::CmdError;

/// An end by score: a float, after `(` if it is out.
fn score_bound(arg: &[u8]) -> Result<(f64, bool), CmdError> {
    let (text, excluded) = match arg {
        [b'(', text @ ..] => (text, true),
        text => (text, false),
    };
    let score = number::parse_f64_loose(text).filter(|score| !score.is_nan());
    Ok((score.ok_or(CmdError::text("ERR min or max is not a float"))?, excluded))
}

/// A range by score.
pub fn score_range(min: &[u8], max: &[u8]) -> Result<ScoreRange, CmdError> {
    let ((min, min_excluded), (max, max_excluded)) = (score_bound(min)?, score_bound(max)?);
    Ok(ScoreRange { min, max, min_excluded, max_excluded })
}

fn lex_bound(arg: &[u8]) -> Result<LexBound<'_>, CmdError> {
    match arg {
        b"-" => Ok(LexBound::Least),
        b"+" => Ok(LexBound::Greatest),
        [b'[', member @ ..] => Ok(LexBound::Included(member)),
        [b'(', member @ ..] => Ok(LexBound::Excluded(member)),
        _ => Err(CmdError::text("ERR min or max not valid string range item")),
    }
}

/// A range by name.
pub fn lex_range<'a>(min: &'a [u8], max: &'a [u8]) -> Result<(LexBound<'a>, LexBound<'a>), CmdError> {
    Ok((lex_bound(min)?, lex_bound(max)?))
}

/// The ranks that `start` and `stop` mean in a set of `len` members, negative ones counted from the end; `None` if there are none.
pub fn ranks(start: i64, stop: i64, len: u64) -> Option<(u64, u64)> {
    let place = |n: i64| if n < 0 { len.checked_sub(n.unsigned_abs()) } else { Some(n.unsigned_abs()) };
    let (start, stop) = (place(start).unwrap_or(0), place(stop)?.min(len.checked_sub(1)?));
    (start <= stop).then_some((start, stop))
}
