//! SORT and SORT_RO.
//!
//! All elements are held while they are sorted, as in Redis; without sorting (BY with a constant) only the wanted ones. SORT ... STORE is
//! logged as its result, DEL and RPUSH: what it looked up may be somewhere else by the time a replica would look.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use ardb_base::number::{is_space, parse_f64};
use ardb_engine::Direction;
use ardb_types::hash::Hash;
use ardb_types::list::{End, List};
use ardb_types::string::StringValue;
use ardb_types::value::{Item, each_item};
use ardb_types::zset::ZSet;
use ardb_types::{KeyRow, Kind, keyspace};

use super::copy::log_value;
use super::{args, string};
use crate::context::{Ctx, Origin};
use crate::error::{self, CmdError};
use crate::shared::Events;
use crate::table::{Command, Flags, Group, Keys};
use crate::{CmdResult, Outcome};

#[derive(Default)]
struct Options<'a> {
    descending: bool,
    alpha: bool,
    /// Start and count; a negative count is all.
    limit: Option<(i64, i64)>,
    by: Option<Pattern<'a>>,
    get: Vec<Pattern<'a>>,
    store: Option<&'a [u8]>,
}

fn parse<'a>(args: &[&'a [u8]], may_store: bool) -> Result<Options<'a>, CmdError> {
    let mut options = Options::default();
    let mut rest = args;
    while let [name, after @ ..] = rest {
        rest = after;
        let mut operand = || {
            let (first, after) = rest.split_first()?;
            rest = after;
            Some(*first)
        };
        if args::is(name, "ASC") {
            options.descending = false;
        } else if args::is(name, "DESC") {
            options.descending = true;
        } else if args::is(name, "ALPHA") {
            options.alpha = true;
        } else if args::is(name, "LIMIT")
            && let (Some(start), Some(count)) = (operand(), operand())
        {
            options.limit = Some((args::int(start)?, args::int(count)?));
        } else if args::is(name, "STORE")
            && may_store
            && let Some(key) = operand()
        {
            options.store = Some(key);
        } else if args::is(name, "BY")
            && let Some(pattern) = operand()
        {
            options.by = Some(Pattern::parse(pattern));
        } else if args::is(name, "GET")
            && let Some(pattern) = operand()
        {
            options.get.push(Pattern::parse(pattern));
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(options)
}

/// A pattern of BY or GET.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// No star: there is nothing to look up.
    Constant,
    /// A key with the element in the star's place, and perhaps a field of the hash there.
    Key { before: &'a [u8], after: &'a [u8], field: Option<&'a [u8]> },
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = text.iter().position(|&byte| byte == b'*') else { return Pattern::Constant };
        let (before, after) = (&text[..star], &text[star + 1..]);
        // An arrow with nothing behind it is part of the key.
        let arrow = after.windows(2).position(|pair| pair == b"->").filter(|&arrow| arrow + 2 < after.len());
        match arrow {
            Some(arrow) => Pattern::Key { before, after: &after[..arrow], field: Some(&after[arrow + 2..]) },
            None => Pattern::Key { before, after, field: None },
        }
    }

    /// What the pattern means for this element.
    fn look_up(self, ctx: &Ctx<'_>, element: &[u8]) -> Result<Option<Vec<u8>>, CmdError> {
        let (before, after, field) = match self {
            Pattern::Element => return Ok(Some(element.to_vec())),
            Pattern::Constant => return Ok(None),
            Pattern::Key { before, after, field } => (before, after, field),
        };
        let key = [before, element, after].concat();
        let at = ctx.at(&key);
        let row = keyspace::lookup(&ctx.rows, &at)?;
        ctx.looked_up(&key, row.is_some());
        let Some(row) = row else { return Ok(None) };
        match (field, row.kind()) {
            (None, Kind::String) => Ok(Some(StringValue::of_row(row).bytes(&ctx.rows)?.into_owned())),
            (Some(field), Kind::Hash) => match Hash::open(&ctx.rows, &at)? {
                Some(hash) => Ok(hash.get(&ctx.rows, field)?.map(|value| value.to_vec())),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// An element with what it is sorted by.
struct Weighed {
    element: Vec<u8>,
    /// The number, unless sorting is alphabetic.
    score: f64,
    /// What BY found, if sorting is alphabetic with BY.
    text: Option<Vec<u8>>,
}

/// The float that `strtod` makes of the text up to its first zero byte; blanks may lead, and nothing at all is zero.
fn score(text: &[u8]) -> Result<f64, CmdError> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    match &text[start..] {
        [] if text.is_empty() => Ok(0.0),
        number => parse_f64(number).ok_or(CmdError::text("ERR One or more scores can't be converted into double")),
    }
}

fn sort_elements(ctx: &Ctx<'_>, elements: Vec<Vec<u8>>, options: &Options<'_>) -> Result<Vec<Vec<u8>>, CmdError> {
    let mut weighed = Vec::with_capacity(elements.len());
    for element in elements {
        let by = match options.by {
            Some(pattern) => pattern.look_up(ctx, &element)?,
            None => None,
        };
        let mut item = Weighed { element, score: 0.0, text: None };
        match (options.alpha, options.by.is_some()) {
            (true, _) => item.text = by,
            (false, true) => item.score = by.map_or(Ok(0.0), |text| score(&text))?,
            (false, false) => item.score = score(&item.element)?,
        }
        weighed.push(item);
    }
    let compare = |a: &Weighed, b: &Weighed| -> Ordering {
        match (options.alpha, options.by.is_some()) {
            // Missing ones come first.
            (true, true) => a.text.cmp(&b.text),
            (true, false) => a.element.cmp(&b.element),
            (false, _) => {
                a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal).then_with(|| a.element.cmp(&b.element))
            }
        }
    };
    weighed.sort_by(|a, b| if options.descending { compare(b, a) } else { compare(a, b) });
    Ok(weighed.into_iter().map(|item| item.element).collect())
}

/// The first element and the one after the last that LIMIT leaves of `len`.
fn limits(limit: Option<(i64, i64)>, len: u64) -> (u64, u64) {
    let (start, count) = limit.unwrap_or((0, -1));
    let start = u64::try_from(start).unwrap_or(0).min(len);
    let end = match u64::try_from(count) {
        Ok(count) => start.saturating_add(count).min(len),
        Err(_) => len,
    };
    (start, end)
}

/// The elements from `start` to `end` of a list or sorted set in its own order, from its end if `reverse`.
fn in_order(
    ctx: &Ctx<'_>,
    row: &KeyRow,
    key: &[u8],
    (start, end): (u64, u64),
    reverse: bool,
) -> Result<Vec<Vec<u8>>, CmdError> {
    let mut elements = Vec::new();
    if start >= end {
        return Ok(elements);
    }
    if row.kind() == Kind::SortedSet {
        ZSet::of_row(row.clone())?.by_rank(&ctx.rows, start, end - 1, reverse, &mut |member, _| {
            elements.push(member.to_vec());
            ControlFlow::Continue(())
        })?;
    } else if let Some(list) = List::open(&ctx.rows, &ctx.at(key))? {
        let len = list.len();
        let (from, to, direction) =
            if reverse { (len - end, len - start, Direction::Backward) } else { (start, end, Direction::Forward) };
        list.range(&ctx.rows, from, to, direction, &mut |_, element| {
            elements.push(element.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(elements)
}

/// The elements that the command chooses, in their order, before GET.
fn chosen(ctx: &Ctx<'_>, key: &[u8], row: &KeyRow, options: &mut Options<'_>) -> Result<Vec<Vec<u8>>, CmdError> {
    let mut sorted = !matches!(options.by, Some(Pattern::Constant | Pattern::Element));
    if !sorted && row.kind() == Kind::Set && (options.store.is_some() || ctx.in_script) {
        // A set has no order of its own, and the result must be the same everywhere.
        sorted = true;
        options.alpha = true;
        options.by = None;
    }
    let limits = limits(options.limit, row.size());
    if !sorted && row.kind() != Kind::Set {
        return in_order(ctx, row, key, limits, options.descending);
    }
    let mut elements = Vec::new();
    each_item(&ctx.rows, row, &mut |item| {
        if let Item::Element(element) | Item::Scored(element, _) = item {
            elements.push(element.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    if sorted {
        elements = sort_elements(ctx, elements, options)?;
    }
    elements.truncate(limits.1 as usize);
    elements.drain(..(limits.0 as usize).min(elements.len()));
    Ok(elements)
}

fn sort_generic(ctx: &mut Ctx<'_>, args: &[&[u8]], may_store: bool) -> CmdResult {
    let mut options = parse(&args[2..], may_store)?;
    let key = args[1];
    let row = keyspace::lookup(&ctx.rows, &ctx.at(key))?;
    ctx.looked_up(key, row.is_some());
    let elements = match &row {
        Some(row) if matches!(row.kind(), Kind::String | Kind::Hash) => return Err(error::WRONG_TYPE),
        Some(row) => chosen(ctx, key, row, &mut options)?,
        None => Vec::new(),
    };
    if let Some(target) = options.store {
        return store(ctx, target, &elements, &options.get);
    }
    ctx.out.array(elements.len() * options.get.len().max(1));
    for element in &elements {
        if options.get.is_empty() {
            ctx.out.bulk(element);
        }
        for pattern in &options.get {
            let value = pattern.look_up(ctx, element)?;
            ctx.out.bulk_or_null(value.as_deref());
        }
    }
    Ok(Outcome::Done)
}

fn store(ctx: &mut Ctx<'_>, target: &[u8], elements: &[Vec<u8>], get: &[Pattern<'_>]) -> CmdResult {
    let at = ctx.at(target);
    let found = keyspace::find(&ctx.rows, &at)?;
    let live = found.live().cloned();
    let count = elements.len() * get.len().max(1);
    ctx.out.size(count as u64);
    if count == 0 {
        if let Some(row) = live {
            keyspace::delete(&mut ctx.rows, &at, &row);
            ctx.modified(target);
            ctx.effect(&[b"DEL", target]);
            ctx.notify(Events::GENERIC, "del", target);
        }
        return Ok(Outcome::Done);
    }
    let mut list = List::create(found.raw, at.limits);
    for element in elements {
        if get.is_empty() {
            list.push(&mut ctx.rows, End::Right, element)?;
        }
        for pattern in get {
            // A list cannot hold null.
            let value = pattern.look_up(ctx, element)?.unwrap_or_default();
            list.push(&mut ctx.rows, End::Right, &value)?;
        }
    }
    list.save(&mut ctx.rows, &at);
    if ctx.origin == Origin::Client {
        if live.is_some() {
            ctx.effect(&[b"DEL", target]);
        }
        if let Some(row) = keyspace::lookup_raw(&ctx.rows, &at)? {
            log_value(ctx, ctx.session.db, target, &row)?;
        }
    }
    string::changed_as(ctx, target, live.is_some(), Events::LIST, "sortstore");
    ctx.dirty += count as u64 - 1;
    Ok(Outcome::Done)
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE destination]
fn sort(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    sort_generic(ctx, args, true)
}

/// SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]
fn sort_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    sort_generic(ctx, args, false)
}

/// The key, and the destination after the last STORE.
fn sort_keys(args: &[&[u8]]) -> Vec<usize> {
    let mut keys = vec![1];
    let mut index = 2;
    while index < args.len() {
        if args::is(args[index], "STORE") && index + 1 < args.len() {
            keys.truncate(1);
            keys.push(index + 1);
        }
        index += match args[index] {
            option if args::is(option, "LIMIT") => 3,
            option if ["GET", "BY", "STORE"].iter().any(|name| args::is(option, name)) => 2,
            _ => 1,
        };
    }
    keys
}

/// The rows of this group.
pub const COMMANDS: &[Command] = &[
    Command::new(
        "sort",
        -2,
        Flags::WRITE.with(Flags::DENYOOM).with(Flags::MOVABLEKEYS),
        Keys::Custom(sort_keys),
        Group::Generic,
        sort,
    )
    .doc("1.0.0", "Sort the elements in a list, set or sorted set"),
    Command::new("sort_ro", -2, Flags::READONLY.with(Flags::MOVABLEKEYS), Keys::ONE, Group::Generic, sort_ro)
        .doc("7.0.0", "Sort the elements in a list, set or sorted set. Read-only variant of SORT."),
];

#[cfg(test)]
#[path = "sort_tests.rs"]
mod tests;
