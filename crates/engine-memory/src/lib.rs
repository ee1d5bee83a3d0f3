//! Layer 1: the engine that keeps its rows in memory, for tests and for the simulator.
//!
//! [`MemoryEngine`] forgets everything when its last copy is dropped. Snapshots are O(1), a commit copies what it changes
//! (see `tree`), and an empty engine costs a few hundred bytes, so that a simulation can make thousands of them.
//! [`DurableEngine`] is the same with its commits on a disk behind the project's own trait, which may be a simulated one.

mod durable;
mod format;
mod tree;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ardb_engine::{ChangeSource, Cursor, Engine, EngineError, EngineStats, Snapshot, Value};

pub use durable::DurableEngine;

use crate::tree::{Place, Tree};

/// The engine. Clones are the same engine, so that a test can keep its rows over what it calls a restart.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    // Held for the copy of a pointer only: commits build the new map outside.
    current: Arc<Mutex<Arc<MemorySnapshot>>>,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    fn current(&self) -> Arc<MemorySnapshot> {
        // Nothing panics while the lock is held, so its content is whole even if it says otherwise.
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, tree: Tree) {
        let snapshot = Arc::new(MemorySnapshot { tree });
        // The old map is freed, if this was its last holder, after the lock.
        let _old = std::mem::replace(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner), snapshot);
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.current()
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        let tree = self.current().tree.apply(ranges, rows);
        self.publish(tree);
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        stats(&self.current().tree)
    }
}

fn stats(tree: &Tree) -> EngineStats {
    EngineStats {
        table_bytes: tree.bytes(),
        details: vec![("engine_rows", tree.rows().to_string())],
        ..EngineStats::default()
    }
}

/// One state of the engine.
#[derive(Default)]
struct MemorySnapshot {
    tree: Tree,
}

impl Snapshot for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        Ok(self.tree.get(key).cloned())
    }

    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_> {
        Box::new(MemoryCursor { tree: &self.tree, start: range.start.to_vec(), end: range.end.to_vec(), place: None })
    }
}

/// A cursor over one state.
struct MemoryCursor<'a> {
    tree: &'a Tree,
    start: Vec<u8>,
    end: Vec<u8>,
    place: Option<Place>,
}

impl MemoryCursor<'_> {
    /// Stands on `place` if that lies in the cursor's range, else nowhere.
    fn stand(&mut self, place: Option<Place>) {
        self.place = place.filter(|&place| {
            let key = self.tree.row(place).0.as_ref();
            self.start.as_slice() <= key && key < self.end.as_slice()
        });
    }
}

impl Cursor for MemoryCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        let place = self.tree.at_or_after(key.max(&self.start));
        self.stand(place);
        Ok(())
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<(), EngineError> {
        let place = if key >= self.end.as_slice() {
            self.tree.before(&self.end)
        } else {
            match self.tree.at_or_after(key) {
                Some(place) if self.tree.row(place).0.as_ref() == key => Some(place),
                _ => self.tree.before(key),
            }
        };
        self.stand(place);
        Ok(())
    }

    fn next(&mut self) -> Result<(), EngineError> {
        debug_assert!(self.place.is_some(), "next from nowhere");
        let place = self.place.and_then(|place| self.tree.next(place));
        self.stand(place);
        Ok(())
    }

    fn prev(&mut self) -> Result<(), EngineError> {
        debug_assert!(self.place.is_some(), "prev from nowhere");
        let place = self.place.and_then(|place| self.tree.previous(place));
        self.stand(place);
        Ok(())
    }

    fn row(&self) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.tree.row(self.place?);
        Some((key, value))
    }
}
