//! Rows of a new generation on their way into its engine, past the table: collected, sorted, and written as sorted files by a second thread while the
//! next are collected.
//!
//! For data that come key by key, as in an RDB. There are no versions and no transactions: rows that were put are there for later reads of the same
//! load, and a load that fails leaves a generation that is of no use.
//!
//! Invariants: at most two buffers hold rows, one that is filled and one that is written, each of the load's limit in bytes and what the caller puts
//! between two calls of [`BulkLoad::pace`]; a buffer names each row once, so that its files hold none twice; a later buffer goes into
//! the engine after an earlier one, so that what it replaces is replaced there too.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::thread::JoinHandle;

use ardb_base::id::{KeyspaceId, ObjectId};
use ardb_engine::row::Visit;
use ardb_engine::{
    Change, ChangeSource, Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Snapshot, Space, Value,
};

use crate::catalog::{Catalog, Database};
use crate::core::Core;
use crate::error::GenerationError;
use crate::generation::GenerationLoader;
use crate::janitor;
use crate::place::{Place, mix};
use crate::scan::{EngineSource, comes_first};

/// Marks a row that is deleted.
const DELETED: u32 = u32::MAX;
/// No further row of the same hash.
const NONE: u32 = u32::MAX;
/// What a row costs in memory beyond its bytes: its entry, its place in the index and in the order.
const ROW_COST: usize = size_of::<Entry>() + 24 + size_of::<(Place, u32)>();

/// Where a row lies in a buffer's bytes: its tail, and behind that its value.
struct Entry {
    place: Place,
    at: usize,
    tail: u32,
    /// Length of the value, or [`DELETED`].
    value: u32,
    /// The next row of the same hash, or [`NONE`].
    next: u32,
}

/// The keys of the index are well mixed already.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only integers are hashed, not {bytes:?}");
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Rows in the order of their arrival, each with its newest value.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The newest row of each hash.
    index: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
    /// Objects from this number on have no rows in anything older than this buffer.
    fresh_from: u64,
    /// The object that was made last, and how many rows there were then.
    newest: (u64, usize),
}

fn hash(place: Place, tail: &[u8]) -> u64 {
    let mut hash = place.hash();
    // Members with the same score differ in their tails alone.
    for bytes in tail.chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}

impl Buffer {
    fn new(fresh_from: u64) -> Buffer {
        Buffer { fresh_from, ..Buffer::default() }
    }

    fn tail(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.at..entry.at + entry.tail as usize]
    }

    /// The value; `None` if the row is deleted.
    fn value(&self, entry: &Entry) -> Option<&[u8]> {
        let start = entry.at + entry.tail as usize;
        (entry.value != DELETED).then(|| &self.bytes[start..start + entry.value as usize])
    }

    fn find(&self, hash: u64, place: Place, tail: &[u8]) -> Option<usize> {
        let mut at = self.index.get(&hash).copied().unwrap_or(NONE);
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.place == place && self.tail(entry) == tail {
                return Some(at as usize);
            }
            at = entry.next;
        }
        None
    }

    fn set(&mut self, key: &RowKey<'_>, value: Option<&[u8]>) {
        let place = Place::of(key);
        let hash = hash(place, key.tail);
        let found = self.find(hash, place, key.tail);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(key.tail);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        // Tails and values are shorter than 4 GB: longer ones are cut into rows.
        let (tail, value) = (key.tail.len() as u32, value.map_or(DELETED, |value| value.len() as u32));
        match found {
            Some(old) => {
                let old = &mut self.entries[old];
                (old.at, old.value) = (at, value);
            }
            None => {
                let number = self.entries.len() as u32;
                let next = self.index.insert(hash, number).unwrap_or(NONE);
                self.entries.push(Entry { place, at, tail, value, next });
            }
        }
    }

    /// The row, if this buffer says anything of it.
    fn get(&self, key: &RowKey<'_>) -> Option<Option<Value>> {
        let place = Place::of(key);
        let entry = &self.entries[self.find(hash(place, key.tail), place, key.tail)?];
        Some(self.value(entry).map(Value::new))
    }

    /// What it takes of memory.
    fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * ROW_COST
    }

    /// The rows in order. Their places lie beside their numbers, so that comparing follows no pointer.
    fn sorted(&self) -> Vec<(Place, u32)> {
        let numbered = self.entries.iter().zip(0u32..);
        let mut order: Vec<(Place, u32)> = numbered.map(|(entry, number)| (entry.place, number)).collect();
        order.sort_unstable_by(|a, b| {
            let tail = |row: u32| self.tail(&self.entries[row as usize]);
            a.0.cmp(&b.0).then_with(|| tail(a.1).cmp(tail(b.1)))
        });
        order
    }

    /// Brings the rows into the engine. Keys, the rows of values, and expiries go apart: those of values belong to new objects, so their files
    /// overlap with none of the buffers before and need no compaction.
    fn write(&self, core: &Core) -> Result<(), EngineError> {
        // One commit at a time, as for checkpoints.
        let _one = core.checkpointer.lock();
        let engine = core.engine.read().clone();
        let order = self.sorted();
        let part = |from: usize, until: Space| {
            from + order[from..].partition_point(|(place, _)| place.space_byte() < until as u8)
        };
        let keys = part(0, Space::Member);
        let values = part(keys, Space::Expiry);
        for rows in [&order[..keys], &order[keys..values], &order[values..]] {
            if !rows.is_empty() {
                engine.commit(&[], &mut Source { buffer: self, rows: rows.iter(), key: Vec::new() })?;
            }
        }
        Ok(())
    }
}

/// Rows of a buffer as the engine takes them.
struct Source<'a> {
    buffer: &'a Buffer,
    rows: std::slice::Iter<'a, (Place, u32)>,
    key: Vec<u8>,
}

impl ChangeSource for Source<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        let &(place, number) = self.rows.next()?;
        let entry = &self.buffer.entries[number as usize];
        self.key.clear();
        RowKey::new(place.space(), place.group(), place.order(), self.buffer.tail(entry)).encode(&mut self.key);
        Some((&self.key, self.buffer.value(entry)))
    }
}

/// A buffer on its way into the engine, and the thread that brings it there.
type Writing = (Arc<Buffer>, JoinHandle<Result<(), EngineError>>);

/// A load of rows into a generation.
pub struct BulkLoad<'g> {
    loader: &'g GenerationLoader,
    catalog: Catalog,
    filling: Buffer,
    /// The buffer that is being written.
    writing: Option<Writing>,
    /// The engine with all buffers before those two; `None` while there were none.
    engine: Option<Arc<dyn Snapshot>>,
    /// Bytes from which a buffer is written.
    limit: usize,
}

impl GenerationLoader {
    /// Begins a load of rows, before anything was written into the generation. [`BulkLoad::finish`] ends it.
    #[must_use]
    pub fn bulk(&self) -> BulkLoad<'_> {
        let core = self.core();
        let catalog = core.writer.lock().catalog.clone();
        let limit = usize::try_from(core.budget.changed / 2).unwrap_or(usize::MAX);
        BulkLoad { loader: self, filling: Buffer::new(catalog.next_id), catalog, writing: None, engine: None, limit }
    }
}

impl BulkLoad<'_> {
    /// Hands a full buffer to the writing thread. To be called often.
    ///
    /// # Errors
    /// An earlier buffer could not be written.
    pub fn pace(&mut self) -> Result<(), GenerationError> {
        // Entries are numbered by 32 bits.
        if self.filling.size() >= self.limit || self.filling.entries.len() >= NONE as usize / 2 {
            self.hand_over()
        } else {
            Ok(())
        }
    }

    fn hand_over(&mut self) -> Result<(), GenerationError> {
        self.wait()?;
        let full = Arc::new(std::mem::replace(&mut self.filling, Buffer::new(self.catalog.next_id)));
        let (core, buffer) = (self.loader.core().clone(), full.clone());
        let thread = std::thread::Builder::new()
            .name("ardb-bulk".into())
            .spawn(move || buffer.write(&core))
            .map_err(|error| EngineError::new("start a thread", error))?;
        self.writing = Some((full, thread));
        Ok(())
    }

    /// Waits for the buffer that is being written.
    fn wait(&mut self) -> Result<(), GenerationError> {
        let Some((_, thread)) = self.writing.take() else { return Ok(()) };
        match thread.join() {
            Ok(written) => written?,
            Err(_) => return Err(EngineError::new("write sorted rows", "the thread panicked").into()),
        }
        self.engine = Some(self.loader.core().engine.read().snapshot());
        Ok(())
    }

    /// The key's row, if it is among those in memory. What does not care to be told of a key that stands twice by its name asks here: [`BulkLoad::finish`]
    /// counts the keys, and that is cheaper than looking each of them up in the engine.
    #[must_use]
    pub fn recent(&self, key: &RowKey<'_>) -> Option<Value> {
        self.buffers(key.group).find_map(|buffer| buffer.get(key)).flatten()
    }

    /// Whether the engine has the keys that the catalog counts.
    fn count_keys(&self, engine: &dyn Snapshot) -> Result<(), GenerationError> {
        for (db, database) in self.catalog.databases.iter().enumerate() {
            let range = RowRange::group(Space::Key, database.keyspace.0);
            let mut source = EngineSource::new(engine, &range, Direction::Forward)?;
            let (mut keys, mut expiries) = (0, 0);
            while let Some((_, value)) = source.head()? {
                keys += 1;
                expiries += u64::from(janitor::expires(value));
                source.advance()?;
            }
            if (keys, expiries) != (database.keys, database.expiries) {
                return Err(GenerationError::Raw(format!(
                    "database {db} has {keys} keys, {expiries} of them with an expiry, where {} and {} were loaded: one stands twice",
                    database.keys, database.expiries
                )));
            }
        }
        Ok(())
    }

    /// Brings all rows into the engine, and the catalog into the generation, which can then be read or installed.
    ///
    /// # Errors
    /// The rows could not be written, or a key was written without regard to one of its name that was there.
    pub fn finish(mut self) -> Result<(), GenerationError> {
        self.hand_over()?;
        // A buffer holds no key twice.
        let several = self.engine.is_some();
        self.wait()?;
        let core = self.loader.core();
        let engine = core.engine.read().snapshot();
        if several {
            self.count_keys(&*engine)?;
        }
        self.loader.write().writer().adopt(core, self.catalog.clone(), engine);
        Ok(())
    }

    /// The buffers, the newest first, that may hold rows of the group.
    fn buffers(&self, group: u64) -> impl Iterator<Item = &Buffer> {
        let older = (group < self.filling.fresh_from).then(|| self.writing.as_ref().map(|(buffer, _)| &**buffer));
        std::iter::once(&self.filling).chain(older.flatten())
    }

    /// The engine, if it may hold rows of the group.
    fn engine(&self, group: u64) -> Option<&dyn Snapshot> {
        let fresh_from = self.writing.as_ref().map_or(self.filling.fresh_from, |(buffer, _)| buffer.fresh_from);
        self.engine.as_deref().filter(|_| group < fresh_from)
    }

    fn database(&mut self, db: u32) -> Option<&mut Database> {
        self.catalog.databases.get_mut(db as usize)
    }

    fn new_number(&mut self) -> u64 {
        let number = self.catalog.next_id;
        self.catalog.next_id += 1;
        number
    }
}

impl Drop for BulkLoad<'_> {
    fn drop(&mut self) {
        // The generation is about to be deleted; nobody may write there any more.
        if let Err(error) = self.wait() {
            log::warn!("a load that was given up: {error}");
        }
    }
}

/// One of our rows as a scan meets it.
type Met<'a> = (u64, &'a [u8], Option<&'a [u8]>);

impl Rows for BulkLoad<'_> {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        for buffer in self.buffers(key.group) {
            if let Some(known) = buffer.get(&key) {
                return Ok(known);
            }
        }
        match self.engine(key.group) {
            Some(engine) => engine.get(&key.encoded()),
            None => Ok(None),
        }
    }

    /// Looks through all rows in memory, or, for the object that was made last, those that came since.
    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let group = Place::new(range.space, range.group, 0);
        let mut ours: Vec<Met<'_>> = Vec::new();
        for buffer in self.buffers(range.group) {
            // The value that is being loaded has rows from its own beginning on only.
            let from = if buffer.newest.0 == range.group { buffer.newest.1 } else { 0 };
            for entry in &buffer.entries[from..] {
                let (order, tail) = (entry.place.order(), buffer.tail(entry));
                if entry.place.group_end() == group.group_end()
                    && (order, tail) >= range.from
                    && range.to.is_none_or(|to| (order, tail) < to)
                {
                    ours.push((order, tail, buffer.value(entry)));
                }
            }
        }
        // Stable, so that of equal names the newer buffer's stays in front, and the other one goes.
        ours.sort_by(|a, b| comes_first((a.0, a.1), (b.0, b.1), direction));
        ours.dedup_by(|later, first| (later.0, later.1) == (first.0, first.1));
        let mut engine = match self.engine(range.group) {
            Some(snapshot) => Some(EngineSource::new(snapshot, &range, direction)?),
            None => None,
        };
        let mut ours = ours.into_iter().peekable();
        loop {
            let theirs = match &engine {
                Some(source) => source.head()?,
                None => None,
            };
            let turn = match (ours.peek(), &theirs) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(row), Some((key, _))) => comes_first((row.0, row.1), (key.order, key.tail), direction),
            };
            let flow = if turn == Ordering::Greater {
                theirs.map(|(key, value)| visit(key, &Value::new(value)))
            } else {
                ours.next().and_then(|(order, tail, value)| {
                    Some(visit(RowKey::new(range.space, range.group, order, tail), &Value::new(value?)))
                })
            };
            if flow.is_some_and(|flow| flow.is_break()) {
                return Ok(());
            }
            if let (Ordering::Equal | Ordering::Greater, Some(source)) = (turn, &mut engine) {
                source.advance()?;
            }
        }
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.catalog.databases.get(db as usize).map_or_else(KeyspaceId::default, |d| d.keyspace)
    }

    fn key_count(&self, db: u32) -> u64 {
        self.catalog.databases.get(db as usize).map_or(0, |d| d.keys)
    }

    fn expiry_count(&self, db: u32) -> u64 {
        self.catalog.databases.get(db as usize).map_or(0, |d| d.expiries)
    }
}

impl RowsMut for BulkLoad<'_> {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.filling.set(&key, Some(value));
    }

    fn delete(&mut self, key: RowKey<'_>) {
        self.filling.set(&key, None);
    }

    fn new_object(&mut self) -> ObjectId {
        let object = self.new_number();
        self.filling.newest = (object, self.filling.entries.len());
        ObjectId(object)
    }

    fn discard(&mut self, object: ObjectId) {
        // The janitor finds it there once the generation is current.
        self.put(RowKey::new(Space::Garbage, object.0, 0, b""), &[1]);
    }

    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        if let Some(database) = self.database(db) {
            database.keys = database.keys.wrapping_add_signed(keys);
            database.expiries = database.expiries.wrapping_add_signed(expiries);
        }
    }

    fn flush(&mut self, db: u32) {
        let keyspace = KeyspaceId(self.new_number());
        if let Some(database) = self.database(db) {
            let old = std::mem::replace(database, Database { keyspace, keys: 0, expiries: 0 });
            self.put(RowKey::new(Space::Garbage, old.keyspace.0, 0, b""), &[2]);
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        let (a, b) = (a as usize, b as usize);
        if a.max(b) < self.catalog.databases.len() {
            self.catalog.databases.swap(a, b);
        }
    }
}
