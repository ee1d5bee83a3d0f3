//! KEYS, SCAN, and what all commands of the SCAN family share.
//!
//! A cursor is a position in hash order: the next call goes on at the first key (or member) whose hash is at least the cursor. Those
//! with one hash are returned together, so an element that is there from the first call to the last is returned at least once,
//! whatever is added or removed meanwhile. 0 starts and 0 ends.

use std::ops::ControlFlow;

use ardb_base::glob::{self, Case};
use ardb_base::number::i64_text;
use ardb_engine::Rows;
use ardb_resp::Reply;
use ardb_types::keyspace;

use super::args;
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

/// How many elements a call looks at unless told.
const DEFAULT_COUNT: usize = 10;

/// The options of SCAN, SSCAN, HSCAN and ZSCAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    /// Where to go on.
    pub cursor: u64,
    /// How many elements to look at, at least 1.
    pub count: usize,
    /// What names must match; `None` is every name.
    pub pattern: Option<&'a [u8]>,
    /// The name of the type that keys must have (SCAN only).
    pub kind: Option<&'a [u8]>,
}

impl ScanOptions<'_> {
    /// Whether a name is wanted.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, Case::Sensitive))
    }
}

/// The cursor, read as C's `strtoul` does: signs, leading zeros and nothing at all are numbers.
pub fn parse_cursor(arg: &[u8]) -> Result<u64, CmdError> {
    let invalid = CmdError::text("ERR invalid cursor");
    let (negative, digits) = match arg {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(invalid);
    }
    let value = digits.iter().try_fold(0u64, |n, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    });
    value.map(|n| if negative { n.wrapping_neg() } else { n }).ok_or(invalid)
}

/// The options that follow the cursor. `with_type`: whether TYPE is one (in SCAN alone).
pub fn parse_scan_options<'a>(cursor: u64, options: &[&'a [u8]], with_type: bool) -> Result<ScanOptions<'a>, CmdError> {
    let mut parsed = ScanOptions { cursor, count: DEFAULT_COUNT, pattern: None, kind: None };
    for option in options.chunks(2) {
        let &[name, value] = option else { return Err(error::SYNTAX) };
        if args::is(name, "COUNT") {
            let count = args::int(value)?;
            parsed.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(error::SYNTAX)?;
        } else if args::is(name, "MATCH") {
            parsed.pattern = Some(value).filter(|&pattern| pattern != b"*");
        } else if args::is(name, "TYPE") && with_type {
            parsed.kind = Some(value);
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(parsed)
}

/// The head of a SCAN reply: an array of the cursor and of an array of `count` elements, which the caller appends.
pub fn reply_scan(out: &mut Reply, cursor: u64, count: usize) {
    out.array(2);
    match i64::try_from(cursor) {
        Ok(cursor) => out.bulk(&i64_text(cursor)),
        Err(_) => out.bulk(cursor.to_string().as_bytes()),
    }
    out.array(count);
}

/// Says when a walk in hash order may stop: after `count` elements, but never between two with one hash.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    left: usize,
    last: Option<u64>,
    next: u64,
}

impl Pace {
    /// A walk over at least `count` elements.
    #[must_use]
    pub fn new(count: usize) -> Pace {
        Pace { left: count, last: None, next: 0 }
    }

    /// An element with this hash comes; `Break`: it belongs to the next call.
    pub fn step(&mut self, hash: u64) -> ControlFlow<()> {
        if self.left == 0 && self.last != Some(hash) {
            self.next = hash;
            return ControlFlow::Break(());
        }
        self.left = self.left.saturating_sub(1);
        self.last = Some(hash);
        ControlFlow::Continue(())
    }

    /// The cursor for the next call; 0 if the walk reached the end.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.next
    }
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
fn scan(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let options = parse_scan_options(parse_cursor(args[1])?, &args[2..], true)?;
    let now = ctx.visible_now();
    let mut pace = Pace::new(options.count);
    let mut found: Vec<u8> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    let keyspace = ctx.rows.keyspace(ctx.session.db);
    keyspace::scan_keys(&ctx.rows, keyspace, options.cursor, &mut |hash, key, row| {
        pace.step(hash)?;
        if !keyspace::is_due(&row, now)
            && options.kind.is_none_or(|kind| args::is(kind, row.kind().name()))
            && options.matches(key)
        {
            found.extend_from_slice(key);
            ends.push(found.len());
        }
        ControlFlow::Continue(())
    })?;
    reply_scan(ctx.out, pace.cursor(), ends.len());
    let mut start = 0;
    for end in ends {
        ctx.out.bulk(&found[start..end]);
        start = end;
    }
    Ok(Outcome::Done)
}

/// KEYS pattern: each key goes from the scan into the reply.
fn keys(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let now = ctx.visible_now();
    let pattern = Some(args[1]).filter(|&pattern| pattern != b"*");
    let keyspace = ctx.rows.keyspace(ctx.session.db);
    let Ctx { rows, out, .. } = ctx;
    let mark = out.later();
    let mut count = 0;
    keyspace::scan_keys(rows, keyspace, 0, &mut |_, key, row| {
        if !keyspace::is_due(&row, now) && pattern.is_none_or(|pattern| glob::matches(pattern, key, Case::Sensitive)) {
            out.bulk(key);
            count += 1;
        }
        ControlFlow::Continue(())
    })?;
    out.array_at(mark, count);
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new("keys", 2, Flags::READONLY, Keys::None, Group::Generic, keys)
        .doc("1.0.0", "Find all keys matching the given pattern"),
    Command::new("scan", -2, Flags::READONLY, Keys::None, Group::Generic, scan)
        .doc("2.8.0", "Incrementally iterate the keys space"),
];
