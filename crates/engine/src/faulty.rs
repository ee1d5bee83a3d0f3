//! An engine that fails when it is told to, around any other.
//!
//! Tests that stand on it check what the layers above do when a read, a cursor or a commit fails. A failing commit has no effect
//! whatever (an engine's promise), but it pulls all rows first, as one does that fails at its last step.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{ChangeSource, Cursor, Engine, EngineError, EngineStats, RowKey, Snapshot, Value};

/// What is counted, and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Snapshot::get`.
    Get,
    /// `Cursor::seek`, `seek_back`, `next` and `prev`.
    Move,
    /// `Engine::commit`.
    Commit,
}

/// Calls of one kind: how many there were, and which of them fail (numbered from 1).
#[derive(Debug, Default)]
struct Line {
    calls: AtomicU64,
    first_bad: AtomicU64,
    last_bad: AtomicU64,
}

/// The controls of a [`FaultyEngine`], shared with its snapshots and cursors.
#[derive(Debug, Default)]
pub struct Faults {
    lines: [Line; 3],
    /// Whether commits wait before they do anything.
    held: Mutex<bool>,
    let_go: Condvar,
}

impl Faults {
    fn line(&self, call: Call) -> &Line {
        &self.lines[call as usize]
    }

    /// How many calls of this kind there were, failed ones included.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.line(call).calls.load(Ordering::SeqCst)
    }

    /// Lets the `n`-th call of this kind from now fail (1 is the next one), and only that.
    pub fn fail_nth(&self, call: Call, n: u64) {
        self.fail(call, n, 1);
    }

    /// Lets every call of this kind fail from the `n`-th from now on, until [`heal`](Faults::heal).
    pub fn fail_from(&self, call: Call, n: u64) {
        self.fail(call, n, u64::MAX);
    }

    fn fail(&self, call: Call, n: u64, count: u64) {
        let line = self.line(call);
        let first = line.calls.load(Ordering::SeqCst).saturating_add(n.max(1));
        line.last_bad.store(first.saturating_add(count - 1), Ordering::SeqCst);
        line.first_bad.store(first, Ordering::SeqCst);
    }

    /// Lets commits wait until they are let go: a disk that is slow.
    pub fn hold_commits(&self, hold: bool) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        self.let_go.notify_all();
    }

    fn wait_while_held(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.let_go.wait_while(held, |held| *held));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        for line in &self.lines {
            line.first_bad.store(0, Ordering::SeqCst);
            line.last_bad.store(0, Ordering::SeqCst);
        }
    }

    /// Counts a call, and fails it if that was asked for.
    fn pass(&self, call: Call) -> Result<(), EngineError> {
        let line = self.line(call);
        let number = line.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let first = line.first_bad.load(Ordering::SeqCst);
        if first != 0 && (first..=line.last_bad.load(Ordering::SeqCst)).contains(&number) {
            return Err(EngineError::new(format!("{call:?} number {number}"), "a fault was injected"));
        }
        Ok(())
    }
}

/// The wrapper.
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    faults: Arc<Faults>,
}

impl FaultyEngine {
    /// Wraps `inner`; nothing fails yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Engine>) -> FaultyEngine {
        FaultyEngine { inner, faults: Arc::default() }
    }

    /// Its controls.
    #[must_use]
    pub fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }
}

impl Engine for FaultyEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(FaultySnapshot { inner: self.inner.snapshot(), faults: self.faults() })
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        self.faults.wait_while_held();
        if let Err(error) = self.faults.pass(Call::Commit) {
            while rows.next_change().is_some() {}
            return Err(error);
        }
        self.inner.commit(ranges, rows)
    }

    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }

    fn resume(&self) -> Result<(), EngineError> {
        self.inner.resume()
    }
}

struct FaultySnapshot {
    inner: Arc<dyn Snapshot>,
    faults: Arc<Faults>,
}

impl Snapshot for FaultySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        self.faults.pass(Call::Get)?;
        self.inner.get(key)
    }

    fn cursor(&self, range: Range<&[u8]>) -> Box<dyn Cursor + '_> {
        Box::new(FaultyCursor { inner: self.inner.cursor(range), faults: &self.faults, lost: false })
    }

    fn lacks(&self, key: &RowKey<'_>) -> bool {
        self.inner.lacks(key)
    }
}

struct FaultyCursor<'a> {
    inner: Box<dyn Cursor + 'a>,
    faults: &'a Faults,
    /// The last move failed: it stands nowhere.
    lost: bool,
}

impl FaultyCursor<'_> {
    fn pass(&mut self) -> Result<(), EngineError> {
        self.lost = true;
        self.faults.pass(Call::Move)?;
        self.lost = false;
        Ok(())
    }
}

impl Cursor for FaultyCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.pass()?;
        self.inner.seek(key)
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.pass()?;
        self.inner.seek_back(key)
    }

    fn next(&mut self) -> Result<(), EngineError> {
        self.pass()?;
        self.inner.next()
    }

    fn prev(&mut self) -> Result<(), EngineError> {
        self.pass()?;
        self.inner.prev()
    }

    fn row(&self) -> Option<(&[u8], &[u8])> {
        if self.lost { None } else { self.inner.row() }
    }
}
