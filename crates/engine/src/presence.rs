//! An engine that knows, without reading, of most absent rows that they are absent.
//!
//! A write to a new key and a read of an absent one must learn that the key is not there. Engines answer that with filters for each of their files, which cost
//! several searches in their cache, microseconds each time. [`Presence`] is one filter over the names of all rows of keys, fields and
//! members: a few loads from memory. It wraps any engine, and sees every row on its way through [`Engine::commit`].
//!
//! The filter is a Bloom filter, cut into blocks of one cache line (F. Putze, P. Sanders, J. Singler, "Cache-, Hash- and Space-Efficient Bloom
//! Filters", 2007), in stages of growing size, since one that is full cannot be enlarged. Nothing is ever taken out of it.
//!
//! Invariants: a row of the engine is in the filter before a snapshot shows it, once the filter [knows all](Presence::lacks): at once for an engine that was
//! opened empty, else when [`PresenceEngine::survey`] has visited all rows. A filter that would need more memory than it may have stops answering.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use ardb_base::prefetch::prefetch;

use crate::row::HEADER;
use crate::{Change, ChangeSource, Cursor, Engine, EngineError, EngineStats, Found, RowKey, Snapshot, Space, Value};

/// Rows of the first stage. Each further one has room for four times as many.
const FIRST: u64 = 1 << 16;
/// Stages; the last one has room for four thousand million rows.
const STAGES: usize = 9;
/// Bits a row. With [`PROBES`] of them set in one block of 512, one absent row in a hundred seems present.
const BITS: u64 = 10;
/// Bits set for a row.
const PROBES: u32 = 6;
/// Words of a block.
const BLOCK: usize = 8;

/// A cache line.
#[repr(align(64))]
#[derive(Default)]
struct Block([AtomicU64; BLOCK]);

struct Stage {
    blocks: Box<[Block]>,
    /// Rows that it is made for, and how many it got.
    room: u64,
    rows: AtomicU64,
}

impl Stage {
    fn bytes(room: u64) -> u64 {
        (room * BITS).div_ceil(512) * 64
    }

    fn new(room: u64) -> Stage {
        let blocks = (Stage::bytes(room) / 64) as usize;
        Stage { blocks: (0..blocks).map(|_| Block::default()).collect(), room, rows: AtomicU64::new(0) }
    }

    /// The block of a row.
    fn block(&self, name: u64) -> &Block {
        &self.blocks[((u128::from(name) * self.blocks.len() as u128) >> 64) as usize]
    }

    fn has(&self, name: u64) -> bool {
        let block = self.block(name);
        probes(name).all(|(word, bit)| block.0[word].load(Relaxed) & bit != 0)
    }

    fn add(&self, name: u64) {
        let block = self.block(name);
        for (word, bit) in probes(name) {
            block.0[word].fetch_or(bit, Relaxed);
        }
        self.rows.fetch_add(1, Relaxed);
    }
}

/// The bits of a row within its block: words, and their bits.
fn probes(name: u64) -> impl Iterator<Item = (usize, u64)> {
    let bits = mix(name);
    (0..PROBES).map(move |probe| {
        let nine = bits >> (9 * probe);
        ((nine >> 6) as usize % BLOCK, 1 << (nine & 63))
    })
}

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The filter.
pub struct Presence {
    stages: [OnceLock<Stage>; STAGES],
    most_bytes: u64,
    /// Every row of the engine is in it.
    complete: AtomicBool,
    /// It had no room for a row.
    overfull: AtomicBool,
}

impl Presence {
    fn new(most_bytes: u64) -> Presence {
        Presence {
            stages: [const { OnceLock::new() }; STAGES],
            most_bytes,
            complete: AtomicBool::new(false),
            overfull: AtomicBool::new(false),
        }
    }

    /// Whether rows of this kind are in it: those whose order is a hash of their name.
    fn takes(space: Space) -> bool {
        matches!(space, Space::Key | Space::Member)
    }

    fn name(space: u64, group: u64, order: u64) -> u64 {
        mix(order ^ group.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (space << 56))
    }

    /// Notes the row with this encoded key.
    fn note(&self, key: &[u8]) {
        let Some(row) = key.get(..HEADER).and_then(RowKey::decode) else { return };
        if !Presence::takes(row.space) || self.overfull.load(Relaxed) {
            return;
        }
        let name = Presence::name(row.space as u64, row.group, row.order);
        let mut last = None;
        for stage in self.stages.iter().map_while(OnceLock::get) {
            if stage.has(name) {
                return;
            }
            last = Some(stage);
        }
        match last {
            Some(stage) if stage.rows.load(Relaxed) < stage.room => stage.add(name),
            _ => match self.grow() {
                Some(stage) => stage.add(name),
                None => self.overfull.store(true, Relaxed),
            },
        }
    }

    /// A further stage, if there is memory for one that is worth it.
    fn grow(&self) -> Option<&Stage> {
        let many = self.stages.iter().map_while(OnceLock::get).count();
        let left = self.most_bytes.saturating_sub(self.bytes());
        let wanted = FIRST << (2 * many);
        // The last one takes what is left.
        let room = wanted.min(left * 8 / BITS);
        if room < FIRST.min(wanted) {
            return None;
        }
        Some(self.stages.get(many)?.get_or_init(|| Stage::new(room)))
    }

    /// Bytes of memory that it takes.
    fn bytes(&self) -> u64 {
        self.stages.iter().map_while(OnceLock::get).map(|stage| Stage::bytes(stage.room)).sum()
    }

    fn rows(&self) -> u64 {
        self.stages.iter().map_while(OnceLock::get).map(|stage| stage.rows.load(Relaxed)).sum()
    }

    fn answers(&self) -> bool {
        self.complete.load(std::sync::atomic::Ordering::Acquire) && !self.overfull.load(Relaxed)
    }

    /// Whether it is certain that no snapshot taken so far has the row. Nothing is certain before the filter knows all rows of the engine.
    #[must_use]
    pub fn lacks(&self, key: &RowKey<'_>) -> bool {
        if !Presence::takes(key.space) || !self.answers() {
            return false;
        }
        let name = Presence::name(key.space as u64, key.group, key.order);
        // The biggest first, which has most rows.
        !self.stages.iter().rev().filter_map(OnceLock::get).any(|stage| stage.has(name))
    }

    /// Has the processor bring what [`Presence::lacks`] will look at into its cache, as far as it is not likely to be there: the two biggest stages.
    fn prefetch(&self, key: &RowKey<'_>) {
        if Presence::takes(key.space) && self.answers() {
            let name = Presence::name(key.space as u64, key.group, key.order);
            for stage in self.stages.iter().rev().filter_map(OnceLock::get).take(2) {
                prefetch(stage.block(name));
            }
        }
    }
}

/// How far a survey is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survey {
    /// There are more rows. This part read so many bytes of them.
    Part(u64),
    /// The filter knows all rows, or has no room for them.
    Over,
}

/// The wrapper.
pub struct PresenceEngine {
    inner: Arc<dyn Engine>,
    presence: Arc<Presence>,
}

impl PresenceEngine {
    /// Wraps an engine that was just opened. The filter takes at most `most_bytes` of memory.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub fn new(inner: Arc<dyn Engine>, most_bytes: u64) -> Result<PresenceEngine, EngineError> {
        let engine = PresenceEngine { inner, presence: Arc::new(Presence::new(most_bytes)) };
        // It is over at once if there is no row.
        engine.survey(&mut Vec::new(), 0)?;
        Ok(engine)
    }

    /// Notes up to `many` rows from the encoded key `from` on, where it leaves the next one. Commits may go on meanwhile.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub fn survey(&self, from: &mut Vec<u8>, many: usize) -> Result<Survey, EngineError> {
        if self.presence.complete.load(Relaxed) || self.presence.overfull.load(Relaxed) {
            return Ok(Survey::Over);
        }
        let end = [Space::Member as u8 + 1];
        if from.is_empty() {
            from.push(Space::Key as u8);
        }
        let snapshot = self.inner.snapshot();
        let mut cursor = snapshot.cursor(from.as_slice()..&end);
        cursor.seek(from)?;
        let (mut seen, mut bytes) = (0, 0);
        while let Some((key, value)) = cursor.row() {
            if seen == many {
                let next = key.to_vec();
                drop(cursor);
                *from = next;
                return Ok(Survey::Part(bytes));
            }
            self.presence.note(key);
            (seen, bytes) = (seen + 1, bytes + (key.len() + value.len()) as u64);
            cursor.next()?;
        }
        self.presence.complete.store(true, std::sync::atomic::Ordering::Release);
        Ok(Survey::Over)
    }
}

/// Rows on their way into the engine, noted as they pass.
struct Noted<'a> {
    presence: &'a Presence,
    rows: &'a mut dyn ChangeSource,
}

impl ChangeSource for Noted<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        let change = self.rows.next_change()?;
        if let (key, Some(_)) = change {
            self.presence.note(key);
        }
        Some(change)
    }
}

impl Engine for PresenceEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(PresenceSnapshot { inner: self.inner.snapshot(), presence: self.presence.clone() })
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        self.inner.commit(ranges, &mut Noted { presence: &self.presence, rows })
    }

    fn stats(&self) -> EngineStats {
        let mut stats = self.inner.stats();
        let presence = &self.presence;
        stats.table_bytes += presence.bytes();
        stats.details.push(("presence_filter_bytes", presence.bytes().to_string()));
        stats.details.push(("presence_filter_rows", presence.rows().to_string()));
        stats.details.push(("presence_filter_answers", u8::from(presence.answers()).to_string()));
        stats
    }

    fn resume(&self) -> Result<(), EngineError> {
        self.inner.resume()
    }
}

struct PresenceSnapshot {
    inner: Arc<dyn Snapshot>,
    presence: Arc<Presence>,
}

impl Snapshot for PresenceSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        self.inner.get(key)
    }

    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_> {
        self.inner.cursor(range)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut Found<'_>) {
        self.inner.get_many(keys, found);
    }

    fn reads_together(&self) -> bool {
        self.inner.reads_together()
    }

    fn lacks(&self, key: &RowKey<'_>) -> bool {
        self.presence.lacks(key)
    }

    fn prefetch(&self, key: &RowKey<'_>) {
        self.presence.prefetch(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RowKey<'static> {
        RowKey::new(Space::Key, 1 + n % 3, mix(n), b"")
    }

    #[test]
    fn no_row_is_missed_and_few_absent_ones_seem_present() {
        let presence = Presence::new(16 << 20);
        presence.complete.store(true, Relaxed);
        let rows = 1_000_000;
        for n in 0..rows {
            presence.note(&key(n).encoded());
            assert!(!presence.lacks(&key(n)), "row {n}");
        }
        assert!((0..rows).all(|n| !presence.lacks(&key(n))));
        let wrong = (rows..2 * rows).filter(|n| !presence.lacks(&key(*n))).count();
        assert!(wrong < 30_000, "{wrong} in a million");
        // Rows that seemed present are not noted.
        assert!((970_000..=rows).contains(&presence.rows()), "{}", presence.rows());
        assert!(presence.bytes() <= 16 << 20);
        let other = RowKey::new(Space::Score, 1, 0, b"");
        assert!(!presence.lacks(&other), "it knows nothing of rows in another order");
    }

    #[test]
    fn one_that_is_full_says_nothing() {
        let presence = Presence::new(Stage::bytes(FIRST) + 1000);
        presence.complete.store(true, Relaxed);
        assert!(presence.lacks(&key(0)));
        for n in 0..2 * FIRST {
            presence.note(&key(n).encoded());
        }
        assert!(!presence.answers());
        assert!((0..4 * FIRST).all(|n| !presence.lacks(&key(n))));
        assert!(presence.bytes() <= Stage::bytes(FIRST) + 1000);
    }
}
