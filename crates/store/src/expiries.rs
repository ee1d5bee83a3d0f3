//! Where the index of expiries begins.
//!
//! Entries are deleted from the front of the index, so whoever looks for the first one would pass all deleted ones, again and again until a checkpoint and the engine's
//! compaction have removed them: deleting many keys in time took ever longer. So it is kept where the first one may be.
//!
//! Invariant: no entry that is committed, or written by the batch that is open, lies before `first`. It moves forward only under the writer lock, to where a scan found the first
//! entry, or to an entry that was written since that scan was [announced](Expiries::announce), whichever comes first. It is not durable: a process begins at the front.

use parking_lot::Mutex;

/// The place of an entry: its order and its tail.
pub type Entry = (u64, Vec<u8>);

/// The scan of a certain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced(u64);

#[derive(Debug, Default)]
pub struct Expiries(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None` if there are no entries.
    first: Option<Entry>,
    /// Number of the scan announced last.
    scan: u64,
    /// The first entry written since then.
    written: Option<Entry>,
}

impl Default for State {
    fn default() -> State {
        State { first: Some((0, Vec::new())), scan: 0, written: None }
    }
}

fn lower(slot: &mut Option<Entry>, order: u64, tail: &[u8]) {
    if slot.as_ref().is_none_or(|(first, rest)| (order, tail) < (*first, rest.as_slice())) {
        *slot = Some((order, tail.to_vec()));
    }
}

impl Expiries {
    /// An entry was written. Under the writer lock.
    pub fn written(&self, order: u64, tail: &[u8]) {
        let mut state = self.0.lock();
        lower(&mut state.first, order, tail);
        if state.scan > 0 {
            lower(&mut state.written, order, tail);
        }
    }

    /// Entries may be anywhere. Under the writer lock.
    pub fn forget(&self) {
        let mut state = self.0.lock();
        *state = State { scan: state.scan + 1, ..State::default() };
    }

    /// A scan will begin. Under the writer lock, between two batches: what was committed before the scan sees.
    pub fn announce(&self) -> Announced {
        let mut state = self.0.lock();
        state.scan += 1;
        state.written = None;
        Announced(state.scan)
    }

    /// A scan from [`Expiries::first`] on found the first entry that is still there at `found`. Under the writer lock, between two batches.
    pub fn begin_at(&self, scan: Announced, found: Option<Entry>) {
        let mut state = self.0.lock();
        if state.scan == scan.0 {
            state.first = found;
            if let Some((order, tail)) = state.written.take() {
                lower(&mut state.first, order, &tail);
            }
        }
    }

    /// No entry lies before this place; `None` if there is none at all.
    pub fn first(&self) -> Option<Entry> {
        self.0.lock().first.clone()
    }

    /// Whether there may be an entry of this order, or one before.
    pub fn may_begin_by(&self, order: u64) -> bool {
        self.0.lock().first.as_ref().is_some_and(|(first, _)| *first <= order)
    }
}
