//! One ordered walk over several sources: the two tables and the engine, the newer hiding the older.

use std::cell::Cell;
use std::cmp::Ordering;

use ardb_engine::{Cursor, Direction, EngineError, RowKey, RowRange, Snapshot, Value, row::Visit};

use crate::cache::RowCache;
use crate::place::Tail;
use crate::table::{Item, Table, Window};

/// How far down rows of a group can lie.
pub enum Reach<'a> {
    /// In the active table only.
    Active,
    /// In the tables only.
    Tables,
    /// In the engine as well. The cache, at that number of the engine, keeps what comes from it, if there is one.
    Engine(&'a dyn Snapshot, Option<(&'a RowCache, u64)>),
}

/// Most walks end at their first row: pops, and the ends of sorted sets.
const FIRST_BATCH: usize = 2;
/// The others are long as a rule.
const GROWTH: usize = 16;
const LARGEST_BATCH: usize = 256;

/// A table's rows of one range, fetched in batches that grow.
struct TableSource<'a> {
    table: &'a Table,
    range: RowRange<'a>,
    direction: Direction,
    seq: u64,
    /// Fetched rows; those before `at` are used.
    items: Vec<Item>,
    at: usize,
    batch: usize,
    done: bool,
}

impl<'a> TableSource<'a> {
    fn new(table: &'a Table, range: RowRange<'a>, direction: Direction, seq: u64) -> TableSource<'a> {
        let items = ITEMS.take();
        let mut source = TableSource { table, range, direction, seq, items, at: 0, batch: FIRST_BATCH, done: false };
        source.refill();
        source
    }

    fn head(&self) -> Option<&Item> {
        self.items.get(self.at)
    }

    fn refill(&mut self) {
        let last = self.items.pop();
        self.items.clear();
        self.at = 0;
        if self.done {
            return;
        }
        let mut window = Window {
            space: self.range.space,
            group: self.range.group,
            lo: self.range.from,
            lo_open: false,
            hi: self.range.to,
        };
        if let Some(last) = &last {
            match self.direction {
                Direction::Forward => (window.lo, window.lo_open) = ((last.order, &last.tail[..]), true),
                Direction::Backward => window.hi = Some((last.order, &last.tail)),
            }
        }
        self.done = self.table.collect(window, self.direction, self.seq, self.batch, &mut self.items);
        self.batch = (self.batch * GROWTH).min(LARGEST_BATCH);
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.at >= self.items.len() {
            self.refill();
        }
    }
}

impl Drop for TableSource<'_> {
    fn drop(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        items.clear();
        ITEMS.set(items);
    }
}

thread_local! {
    /// A buffer for the next walk of the thread, of at most [`LARGEST_BATCH`] rows.
    static ITEMS: Cell<Vec<Item>> = const { Cell::new(Vec::new()) };
}

/// The engine's rows of one range.
pub struct EngineSource<'a> {
    cursor: Box<dyn Cursor + 'a>,
    direction: Direction,
}

impl<'a> EngineSource<'a> {
    pub fn new(snapshot: &'a dyn Snapshot, range: &RowRange<'_>, direction: Direction) -> Result<Self, EngineError> {
        let start = RowKey::new(range.space, range.group, range.from.0, range.from.1).encoded();
        let end = match range.to {
            Some((order, tail)) => RowKey::new(range.space, range.group, order, tail).encoded(),
            None => group_end(range.space as u8, range.group),
        };
        let mut cursor = snapshot.cursor(&start..&end);
        match direction {
            Direction::Forward => cursor.seek(&start)?,
            Direction::Backward => cursor.seek_back(&end)?,
        }
        // A cursor may take the end of its range for a row within it only if such a row exists; step off it.
        if direction == Direction::Backward && cursor.row().is_some_and(|(key, _)| key >= &end[..]) {
            cursor.prev()?;
        }
        Ok(EngineSource { cursor, direction })
    }

    pub fn head(&self) -> Result<Option<(RowKey<'_>, &[u8])>, EngineError> {
        match self.cursor.row() {
            None => Ok(None),
            Some((key, value)) => match RowKey::decode(key) {
                Some(name) => Ok(Some((name, value))),
                None => Err(EngineError {
                    doing: "decode a row's name".into(),
                    why: format!("{key:?} is no name"),
                    corruption: true,
                }),
            },
        }
    }

    pub fn advance(&mut self) -> Result<(), EngineError> {
        match self.direction {
            Direction::Forward => self.cursor.next(),
            Direction::Backward => self.cursor.prev(),
        }
    }
}

/// The first encoded key after all of a group.
pub fn group_end(space: u8, group: u64) -> Vec<u8> {
    let mut end = Vec::with_capacity(17);
    match group.checked_add(1) {
        Some(next) => {
            end.push(space);
            end.extend_from_slice(&next.to_be_bytes());
        }
        None => end.push(space.saturating_add(1)),
    }
    end
}

/// Visits the rows of `range` that a reader at `seq` sees, in order, until `visit` breaks.
pub fn scan(
    tables: [Option<&Table>; 2],
    reach: Reach<'_>,
    range: RowRange<'_>,
    direction: Direction,
    seq: u64,
    visit: &mut Visit<'_>,
) -> Result<(), EngineError> {
    if range.to.is_some_and(|to| to <= range.from) {
        return Ok(());
    }
    let [active, frozen] = tables;
    let frozen = if matches!(reach, Reach::Active) { None } else { frozen };
    let mut sources = [active, frozen].map(|table| table.map(|table| TableSource::new(table, range, direction, seq)));
    let (mut engine, cache) = match reach {
        Reach::Engine(snapshot, cache) => (Some(EngineSource::new(snapshot, &range, direction)?), cache),
        _ => (None, None),
    };
    // What one table holds alone needs no comparing.
    if let ([Some(only), None], None) = (&mut sources, &engine) {
        while let Some(Item { order, tail, value }) = only.head() {
            if let Some(value) = value
                && visit(RowKey::new(range.space, range.group, *order, tail), value).is_break()
            {
                return Ok(());
            }
            only.advance();
        }
        return Ok(());
    }
    loop {
        // The newest source whose head comes first wins; equal heads of older ones are passed over.
        let mut best: Option<(usize, u64, Tail)> = None;
        for (i, source) in sources.iter().enumerate() {
            if let Some(item) = source.as_ref().and_then(TableSource::head)
                && best.as_ref().is_none_or(|(_, order, tail)| {
                    comes_first((item.order, &item.tail), (*order, tail), direction) == Ordering::Less
                })
            {
                best = Some((i, item.order, item.tail.clone()));
            }
        }
        if let Some(source) = &engine
            && let Some((key, value)) = source.head()?
        {
            let against = match &best {
                Some((_, order, tail)) => comes_first((key.order, key.tail), (*order, tail), direction),
                None => Ordering::Less,
            };
            match against {
                Ordering::Less => {
                    let value = Value::new(value);
                    if let Some((cache, number)) = cache {
                        cache.fill(&key, Some(&value), number);
                    }
                    if visit(key, &value).is_break() {
                        return Ok(());
                    }
                    if let Some(source) = &mut engine {
                        source.advance()?;
                    }
                    continue;
                }
                Ordering::Equal => {
                    if let Some(source) = &mut engine {
                        source.advance()?;
                    }
                }
                Ordering::Greater => {}
            }
        }
        let Some((winner, order, tail)) = best else { return Ok(()) };
        for (i, source) in sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            if source.head().is_some_and(|item| item.order == order && *item.tail == *tail) {
                if i == winner
                    && let Some(Item { value: Some(value), .. }) = source.head()
                    && visit(RowKey::new(range.space, range.group, order, &tail), value).is_break()
                {
                    return Ok(());
                }
                source.advance();
            }
        }
    }
}

pub fn comes_first(a: (u64, &[u8]), b: (u64, &[u8]), direction: Direction) -> Ordering {
    match direction {
        Direction::Forward => a.cmp(&b),
        Direction::Backward => b.cmp(&a),
    }
}
