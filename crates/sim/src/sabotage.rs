//! Deliberate bugs, each of which the simulator must find. They live in the simulator's own surroundings of the real code (engine, machine, driver of a
//! link), so nothing of them can be reached in a server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ardb_engine::{Change, ChangeSource, Cursor, Engine, EngineError, EngineStats, RowKey, Snapshot, Space, Value};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The position is committed to the engine apart from its rows, and before them.
    PositionApart,
    /// A machine that comes back after a power failure does not tell that it was away, so a history that lost its end keeps its name.
    IdKept,
    /// A replica acknowledges what it has received before it has appended it.
    AckBeforeAppend,
    /// FAILOVER asks a replica to take the role before it has everything.
    HandedOverEarly,
    /// A full sync by rows that goes on over a new link goes on some rows too far.
    ResumedTooFar,
}

impl Sabotage {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Sabotage); 5] = [
        ("position-apart", Sabotage::PositionApart),
        ("id-kept", Sabotage::IdKept),
        ("ack-before-append", Sabotage::AckBeforeAppend),
        ("resumed-too-far", Sabotage::ResumedTooFar),
        ("handed-over-early", Sabotage::HandedOverEarly),
    ];
}

/// Rows that a resumed transfer leaves out.
const SKIPPED: usize = 2;

/// An engine that skips rows where a walk over all of them begins in the middle, if it was told to.
pub struct Skipping(pub Arc<dyn Engine>, pub Arc<AtomicBool>);

struct SkippingSnapshot(Arc<dyn Snapshot>, Arc<AtomicBool>);

struct SkippingCursor<'a>(Box<dyn Cursor + 'a>, Arc<AtomicBool>);

impl Engine for Skipping {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(SkippingSnapshot(self.0.snapshot(), self.1.clone()))
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        self.0.commit(ranges, rows)
    }

    fn stats(&self) -> EngineStats {
        self.0.stats()
    }

    fn resume(&self) -> Result<(), EngineError> {
        self.0.resume()
    }
}

impl Snapshot for SkippingSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        self.0.get(key)
    }

    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_> {
        // Only a transfer walks over everything but the store's own rows.
        let everything = range.start == [Space::Meta as u8 + 1];
        let cursor = self.0.cursor(range);
        if everything { Box::new(SkippingCursor(cursor, self.1.clone())) } else { cursor }
    }
}

impl Cursor for SkippingCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.0.seek(key)?;
        if self.1.swap(false, Ordering::Relaxed) {
            for _ in 0..SKIPPED {
                if self.0.row().is_some() {
                    self.0.next()?;
                }
            }
        }
        Ok(())
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.0.seek_back(key)
    }

    fn next(&mut self) -> Result<(), EngineError> {
        self.0.next()
    }

    fn prev(&mut self) -> Result<(), EngineError> {
        self.0.prev()
    }

    fn row(&self) -> Option<(&[u8], &[u8])> {
        self.0.row()
    }
}

/// An engine that commits the store's own rows first, and the others in a second step.
pub struct Apart(pub Arc<dyn Engine>);

struct Rows(std::vec::IntoIter<(Vec<u8>, Option<Vec<u8>>)>, (Vec<u8>, Option<Vec<u8>>));

impl ChangeSource for Rows {
    fn next_change(&mut self) -> Option<Change<'_>> {
        self.1 = self.0.next()?;
        Some((&self.1.0, self.1.1.as_deref()))
    }
}

impl Engine for Apart {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.0.snapshot()
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        while let Some((key, value)) = rows.next_change() {
            let meta = RowKey::decode(key).is_some_and(|key| key.space == Space::Meta);
            let list = if meta { &mut own } else { &mut others };
            list.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        }
        self.0.commit(&[], &mut Rows(own.into_iter(), Default::default()))?;
        self.0.commit(ranges, &mut Rows(others.into_iter(), Default::default()))
    }

    fn stats(&self) -> EngineStats {
        self.0.stats()
    }

    fn resume(&self) -> Result<(), EngineError> {
        self.0.resume()
    }
}
