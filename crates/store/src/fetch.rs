//! Bringing the rows of many requests into memory with one wait for the disk.

use ardb_engine::{RowKey, Value};

use crate::cache::RowCache;
use crate::view::View;

/// Bytes of names for which memory is kept.
const KEEP: usize = 256 << 10;

/// Names of rows, one after the other in one buffer that is used again.
#[derive(Debug, Default)]
pub struct RowList {
    bytes: Vec<u8>,
    /// Where each name ends.
    ends: Vec<usize>,
}

impl RowList {
    /// Appends a row.
    pub fn push(&mut self, row: &RowKey<'_>) {
        row.encode(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets them, but not the memory, unless it is much.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEEP {
            *self = RowList::default();
        }
        self.bytes.clear();
        self.ends.clear();
    }

    /// The encoded names in order.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.bytes[from..*to])
    }
}

/// What became of one of the rows.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'v> {
    /// Its value, if it is there and could be read.
    pub value: Option<&'v Value>,
    /// The engine was asked for it: it was not in memory.
    pub asked: bool,
    /// The disk had to be waited for.
    pub waited: bool,
}

impl View {
    /// Asks the engine, with one call, for those of the rows that are not in memory, and keeps what it has in the row cache. Tells what became of each row, by its place
    /// in the list. What cannot be read is left to whoever needs it, and so is a row that is the only one to be asked for, of which nothing is told.
    pub(crate) fn fetch(&self, rows: &RowList, seq: u64, mut told: impl FnMut(usize, Fetched<'_>)) {
        let (mut places, mut keys) = (Vec::new(), Vec::new());
        for (place, encoded) in rows.iter().enumerate() {
            let Some(row) = RowKey::decode(encoded).filter(|row| RowCache::takes(row.space)) else { continue };
            match self.known(&row, seq) {
                Some(value) => told(place, Fetched { value: value.as_ref(), asked: false, waited: false }),
                None => {
                    places.push(place);
                    keys.push(encoded);
                }
            }
        }
        if keys.len() < 2 {
            return;
        }
        self.engine.get_many(&keys, &mut |at, value, waited| {
            let is_known = value.is_ok();
            let value = value.ok().flatten();
            if let Some(row) = RowKey::decode(keys[at]).filter(|_| is_known) {
                self.cache.fill(&row, value.as_ref(), self.number);
            }
            told(places[at], Fetched { value: value.as_ref(), asked: true, waited });
        });
    }
}
