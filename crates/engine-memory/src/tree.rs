//! An ordered map that is never changed: a commit makes a new one that shares all untouched parts with the old.
//!
//! Rows lie in sorted chunks of up to [`MAX`] rows behind `Arc`s, and the chunks in one sorted list. A copy of the map is one reference
//! count; a commit copies the list of chunks and the chunks it touches. Invariants: no chunk is empty, keys rise strictly within
//! and across chunks.

use std::ops::Range;
use std::sync::Arc;

use ardb_engine::{ChangeSource, Value};

/// Most rows of a chunk.
const MAX: usize = 128;
/// A rebuilt chunk with fewer rows takes in its neighbour, so that deletions do not leave a list of tiny chunks.
const MIN: usize = 32;

/// A key and its value; a copy is two reference counts.
pub(crate) type Row = (Arc<[u8]>, Value);

/// Neighbouring rows. Never empty once it is in a map.
struct Chunk {
    rows: Vec<Row>,
    /// Bytes of the keys and values.
    bytes: u64,
}

impl Chunk {
    fn new(rows: Vec<Row>) -> Arc<Chunk> {
        let bytes = rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Arc::new(Chunk { rows, bytes })
    }

    fn first(&self) -> &[u8] {
        &self.rows[0].0
    }

    fn last(&self) -> &[u8] {
        &self.rows[self.rows.len() - 1].0
    }
}

/// The map.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    chunks: Arc<Vec<Arc<Chunk>>>,
    rows: usize,
    bytes: u64,
}

/// Where a row is: its chunk and its place in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    chunk: usize,
    row: usize,
}

/// Sorted ranges that neither overlap nor touch.
struct Ranges(Vec<Range<Vec<u8>>>);

impl Ranges {
    fn new(ranges: &[Range<Vec<u8>>]) -> Ranges {
        let mut sorted: Vec<_> = ranges.iter().filter(|range| range.start < range.end).cloned().collect();
        sorted.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Range<Vec<u8>>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => {
                    if range.end > last.end {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Ranges(merged)
    }

    /// Whether some range holds `key`.
    fn cover(&self, key: &[u8]) -> bool {
        let after = self.0.partition_point(|range| range.start.as_slice() <= key);
        after > 0 && key < self.0[after - 1].end.as_slice()
    }

    /// Whether some range reaches into `first..=last`.
    fn touch(&self, first: &[u8], last: &[u8]) -> bool {
        let after = self.0.partition_point(|range| range.start.as_slice() <= last);
        after > 0 && first < self.0[after - 1].end.as_slice()
    }
}

/// Puts chunks together again.
#[derive(Default)]
struct Builder {
    chunks: Vec<Arc<Chunk>>,
    pending: Vec<Row>,
    rows: usize,
    bytes: u64,
}

impl Builder {
    fn push(&mut self, row: Row) {
        self.pending.push(row);
        if self.pending.len() == 2 * MAX {
            let rest = self.pending.split_off(MAX);
            let full = std::mem::replace(&mut self.pending, rest);
            self.add(Chunk::new(full));
        }
    }

    fn add(&mut self, chunk: Arc<Chunk>) {
        self.rows += chunk.rows.len();
        self.bytes += chunk.bytes;
        self.chunks.push(chunk);
    }

    /// Makes chunks of the pending rows. More than one chunk's worth is halved: a full chunk and a rest of one row would
    /// make the next untouched chunk be copied, and the next after that.
    fn flush(&mut self) {
        if self.pending.len() > MAX {
            let rest = self.pending.split_off(self.pending.len() / 2);
            let half = std::mem::replace(&mut self.pending, rest);
            self.add(Chunk::new(half));
        }
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.add(Chunk::new(rest));
        }
    }

    fn finish(mut self) -> Tree {
        self.flush();
        Tree { chunks: Arc::new(self.chunks), rows: self.rows, bytes: self.bytes }
    }
}

/// The next change of a commit, in owned form.
struct Changes<'a> {
    source: &'a mut dyn ChangeSource,
    next: Option<(Arc<[u8]>, Option<Value>)>,
}

impl<'a> Changes<'a> {
    fn new(source: &'a mut dyn ChangeSource) -> Changes<'a> {
        let mut changes = Changes { source, next: None };
        changes.pull();
        changes
    }

    fn pull(&mut self) {
        self.next = self.source.next_change().map(|(key, value)| (Arc::from(key), value.map(Value::new)));
    }

    /// Writes the changes with keys before `limit` (all, if there is none) to `builder`; says whether the change after them is for `limit` itself.
    fn write_before(&mut self, limit: Option<&[u8]>, builder: &mut Builder) -> bool {
        loop {
            match (&self.next, limit) {
                (None, _) => return false,
                (Some((key, _)), Some(limit)) if key.as_ref() >= limit => return key.as_ref() == limit,
                _ => self.write(builder),
            }
        }
    }

    /// Writes the next change and pulls the one after it.
    fn write(&mut self, builder: &mut Builder) {
        if let Some((key, Some(value))) = self.next.take() {
            builder.push((key, value));
        }
        self.pull();
    }
}

impl Tree {
    /// The map after `ranges` were deleted from this one and `source`'s changes written over that.
    pub(crate) fn apply(&self, ranges: &[Range<Vec<u8>>], source: &mut dyn ChangeSource) -> Tree {
        let ranges = Ranges::new(ranges);
        let mut changes = Changes::new(source);
        let mut builder = Builder::default();
        builder.chunks.reserve(self.chunks.len() + 1);
        for chunk in self.chunks.iter() {
            let (first, last) = (chunk.first(), chunk.last());
            let exact = changes.write_before(Some(first), &mut builder);
            let changed = exact || changes.next.as_ref().is_some_and(|(key, _)| key.as_ref() <= last);
            let small = !builder.pending.is_empty() && builder.pending.len() < MIN;
            if !changed && !small && !ranges.touch(first, last) {
                builder.flush();
                builder.add(Arc::clone(chunk));
                continue;
            }
            for (key, value) in &chunk.rows {
                if changes.write_before(Some(key), &mut builder) {
                    changes.write(&mut builder);
                } else if !ranges.cover(key) {
                    builder.push((Arc::clone(key), value.clone()));
                }
            }
        }
        changes.write_before(None, &mut builder);
        builder.finish()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The row at a place that came from this map.
    pub(crate) fn row(&self, place: Place) -> &Row {
        &self.chunks[place.chunk].rows[place.row]
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        let (found, value) = self.row(self.at_or_after(key)?);
        (found.as_ref() == key).then_some(value)
    }

    /// The first row with a key `>= key`.
    pub(crate) fn at_or_after(&self, key: &[u8]) -> Option<Place> {
        // The last chunk that starts at or before the key, else the first of all.
        let chunk = self.chunks.partition_point(|chunk| chunk.first() <= key).saturating_sub(1);
        let row = self.chunks.get(chunk)?.rows.partition_point(|(found, _)| found.as_ref() < key);
        self.settle(Place { chunk, row })
    }

    /// The last row with a key `< key`.
    pub(crate) fn before(&self, key: &[u8]) -> Option<Place> {
        match self.at_or_after(key) {
            Some(place) => self.previous(place),
            None => self.last(),
        }
    }

    fn last(&self) -> Option<Place> {
        let chunk = self.chunks.len().checked_sub(1)?;
        Some(Place { chunk, row: self.chunks[chunk].rows.len() - 1 })
    }

    /// The row after `place`.
    pub(crate) fn next(&self, place: Place) -> Option<Place> {
        self.settle(Place { chunk: place.chunk, row: place.row + 1 })
    }

    /// The row before `place`.
    pub(crate) fn previous(&self, place: Place) -> Option<Place> {
        if place.row > 0 {
            return Some(Place { chunk: place.chunk, row: place.row - 1 });
        }
        let chunk = place.chunk.checked_sub(1)?;
        Some(Place { chunk, row: self.chunks[chunk].rows.len() - 1 })
    }

    /// `place`, which may be one past the end of its chunk, as the place of a row.
    fn settle(&self, place: Place) -> Option<Place> {
        if place.row < self.chunks.get(place.chunk)?.rows.len() {
            return Some(place);
        }
        (place.chunk + 1 < self.chunks.len()).then_some(Place { chunk: place.chunk + 1, row: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List(std::vec::IntoIter<(Vec<u8>, Option<Vec<u8>>)>, (Vec<u8>, Option<Vec<u8>>));

    impl ChangeSource for List {
        fn next_change(&mut self) -> Option<ardb_engine::Change<'_>> {
            self.1 = self.0.next()?;
            Some((&self.1.0, self.1.1.as_deref()))
        }
    }

    fn put(tree: &Tree, keys: impl Iterator<Item = u32>, delete: bool) -> Tree {
        let rows: Vec<_> =
            keys.map(|n| (n.to_be_bytes().to_vec(), (!delete).then(|| n.to_le_bytes().to_vec()))).collect();
        tree.apply(&[], &mut List(rows.into_iter(), Default::default()))
    }

    fn check(tree: &Tree) {
        let mut last: Option<&[u8]> = None;
        for chunk in tree.chunks.iter() {
            assert!(!chunk.rows.is_empty() && chunk.rows.len() < 2 * MAX);
            for (key, _) in &chunk.rows {
                assert!(last.is_none_or(|last| last < key.as_ref()));
                last = Some(key);
            }
        }
        assert_eq!(tree.rows, tree.chunks.iter().map(|chunk| chunk.rows.len()).sum::<usize>());
    }

    #[test]
    fn a_small_change_copies_few_chunks() {
        let base = put(&Tree::default(), 0..100_000, false);
        check(&base);
        // One row more than fits must not make all later chunks move up.
        let more = put(&base, [20_000_000].into_iter(), false);
        let odd = put(&more, std::iter::once(777), false);
        check(&odd);
        let shared = odd.chunks.iter().filter(|chunk| base.chunks.iter().any(|old| Arc::ptr_eq(old, chunk))).count();
        assert!(shared + 4 > base.chunks.len(), "{shared} of {} shared", base.chunks.len());
    }

    #[test]
    fn deletions_leave_no_crumbs() {
        let base = put(&Tree::default(), 0..20_000, false);
        let thin = put(&base, (0..20_000).filter(|n| n % 100 != 0), true);
        check(&thin);
        assert_eq!(thin.rows(), 200);
        assert!(thin.chunks.len() <= 200 / MIN + 1);
        assert_eq!(thin.get(&100u32.to_be_bytes()).map(|value| value.to_vec()), Some(100u32.to_le_bytes().to_vec()));
        assert_eq!(thin.get(&101u32.to_be_bytes()), None);
    }
}
