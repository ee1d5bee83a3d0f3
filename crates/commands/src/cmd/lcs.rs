//! LCS: the longest common subsequence of two strings.

use std::sync::atomic::Ordering;

use ardb_types::string::StringValue;
use ardb_types::{Kind, keyspace};

use super::args;
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

#[derive(Default)]
struct Options {
    length: bool,
    indexes: bool,
    shortest: u64,
    with_length: bool,
}

fn parse(args: &[&[u8]]) -> Result<Options, CmdError> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if args::is(option, "IDX") {
            options.indexes = true;
        } else if args::is(option, "LEN") {
            options.length = true;
        } else if args::is(option, "WITHMATCHLEN") {
            options.with_length = true;
        } else if args::is(option, "MINMATCHLEN")
            && let Some(least) = rest.next()
        {
            options.shortest = args::int(least)?.max(0) as u64;
        } else {
            return Err(error::SYNTAX);
        }
    }
    if options.length && options.indexes {
        return Err(CmdError::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(options)
}

/// Lengths of the longest common subsequences of all beginnings of two strings.
struct Lengths {
    table: Vec<u32>,
    width: usize,
}

impl Lengths {
    /// Refuses strings whose table would take more than `most` bytes.
    fn new(a: &[u8], b: &[u8], most: u64) -> Result<Lengths, CmdError> {
        let width = b.len() + 1;
        let cells = (a.len() as u64 + 1).checked_mul(width as u64);
        let bytes = cells.and_then(|cells| cells.checked_mul(4));
        let Some(cells) = bytes.filter(|&bytes| bytes <= most).and(cells) else {
            return Err(CmdError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
        };
        let mut table = Vec::new();
        if table.try_reserve_exact(cells as usize).is_err() {
            return Err(CmdError::text("ERR Insufficient memory, failed allocating transient memory for LCS"));
        }
        table.resize(cells as usize, 0);
        let mut lengths = Lengths { table, width };
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let length = if x == y { lengths.at(i, j) + 1 } else { lengths.at(i, j + 1).max(lengths.at(i + 1, j)) };
                lengths.table[(i + 1) * width + j + 1] = length;
            }
        }
        Ok(lengths)
    }

    /// For the first `i` bytes of one and the first `j` of the other.
    fn at(&self, i: usize, j: usize) -> u32 {
        self.table[i * self.width + j]
    }
}

/// A run of bytes that both strings have: where it begins in each, and its length.
#[derive(Clone, Copy)]
struct Match {
    a: usize,
    b: usize,
    length: usize,
}

/// Walks back through the table: the subsequence, and its matches from the last to the first.
fn trace(a: &[u8], b: &[u8], lengths: &Lengths) -> (Vec<u8>, Vec<Match>) {
    let (mut i, mut j) = (a.len(), b.len());
    let mut common = Vec::with_capacity(lengths.at(i, j) as usize);
    let mut matches: Vec<Match> = Vec::new();
    // Whether the last match may still grow at its front.
    let mut open = false;
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            common.push(a[i - 1]);
            i -= 1;
            j -= 1;
            match matches.last_mut() {
                Some(last) if open => *last = Match { a: i, b: j, length: last.length + 1 },
                _ => matches.push(Match { a: i, b: j, length: 1 }),
            }
            open = true;
        } else {
            open = false;
            if lengths.at(i - 1, j) > lengths.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
    common.reverse();
    (common, matches)
}

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]
fn lcs(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut rows = Vec::with_capacity(2);
    for key in &args[1..3] {
        let row = keyspace::lookup(&ctx.rows, &ctx.at(key))?;
        ctx.looked_up(key, row.is_some());
        rows.push(row);
    }
    if rows.iter().flatten().any(|row| row.kind() != Kind::String) {
        return Err(CmdError::text("ERR The specified keys must contain string values"));
    }
    let values: Vec<Option<StringValue>> = rows.into_iter().map(|row| row.map(StringValue::of_row)).collect();
    let options = parse(&args[3..])?;
    let most = ctx.shared.settings.max_bulk.load(Ordering::Relaxed);
    let length = |n: usize| values[n].as_ref().map_or(0, StringValue::len);
    if length(0).max(length(1)) >= u64::from(u32::MAX) - 1 {
        return Err(CmdError::text("ERR String too long for LCS"));
    }
    let bytes = |n: usize| match &values[n] {
        Some(value) => value.bytes(&ctx.rows),
        None => Ok(b"".as_slice().into()),
    };
    let (a, b) = (bytes(0)?, bytes(1)?);
    let lengths = Lengths::new(&a, &b, most)?;
    let total = lengths.at(a.len(), b.len());
    if options.length {
        ctx.out.int(i64::from(total));
        return Ok(Outcome::Done);
    }
    let (common, matches) = trace(&a, &b, &lengths);
    if !options.indexes {
        ctx.out.bulk(&common);
        return Ok(Outcome::Done);
    }
    ctx.out.map(2);
    ctx.out.bulk(b"matches");
    let long_enough = || matches.iter().filter(|found| found.length as u64 >= options.shortest);
    ctx.out.array(long_enough().count());
    for found in long_enough() {
        ctx.out.array(if options.with_length { 3 } else { 2 });
        for start in [found.a, found.b] {
            ctx.out.array(2);
            ctx.out.size(start as u64);
            ctx.out.size((start + found.length - 1) as u64);
        }
        if options.with_length {
            ctx.out.size(found.length as u64);
        }
    }
    ctx.out.bulk(b"len");
    ctx.out.int(i64::from(total));
    Ok(Outcome::Done)
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[Command::new("lcs", -3, Flags::READONLY, Keys::TWO, Group::String, lcs)
    .doc("7.0.0", "Find longest common substring")];
