//! Deliberate bugs, each of which the simulator must find. They live in the simulator's own surroundings of the real code (engine, machine, driver of a
//! link), so nothing of them can be reached in a server.

use std::ops::Range;
use std::sync::Arc;

use ardb_engine::{Change, ChangeSource, Engine, EngineError, EngineStats, RowKey, Snapshot, Space};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The position is committed to the engine apart from its rows, and before them.
    PositionApart,
    /// A machine that comes back after a power failure does not tell that it was away, so a history that lost its end keeps its name.
    IdKept,
    /// A replica acknowledges what it has received before it has appended it.
    AckBeforeAppend,
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
