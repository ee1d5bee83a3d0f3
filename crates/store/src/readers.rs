//! Who reads at which point in time.
//!
//! Each reader owns a slot in which it publishes the sequence number that it reads at, and keeps the view that it used last. A slot
//! is stored before the committed number is read a second time (see `Reader::begin`), so a writer that gathers the slots after
//! a commit sees every reader that stands before that commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::view::View;

/// The slot of a reader that reads nothing.
pub const IDLE: u64 = u64::MAX;

/// One reader's slot, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    /// The sequence number it reads at, or [`IDLE`].
    pub snapshot: AtomicU64,
    /// Its last view with the version of that view. Locked while it reads; free otherwise, so that an idle reader's view can be taken
    /// away.
    pub view: Mutex<Option<(u64, Arc<View>)>>,
}

/// All slots.
#[derive(Debug, Default)]
pub struct Readers {
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl Readers {
    /// A new slot.
    pub fn register(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot { snapshot: AtomicU64::new(IDLE), view: Mutex::new(None) });
        self.slots.lock().push(slot.clone());
        slot
    }

    /// Forgets a slot.
    pub fn unregister(&self, slot: &Arc<Slot>) {
        self.slots.lock().retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// The snapshots being read, ascending.
    pub fn gather(&self, out: &mut Vec<u64>) {
        out.clear();
        out.extend(self.slots.lock().iter().map(|slot| slot.snapshot.load(SeqCst)).filter(|&seq| seq != IDLE));
        out.sort_unstable();
        out.dedup();
    }

    /// The oldest snapshot being read, or [`IDLE`].
    pub fn oldest(&self) -> u64 {
        self.slots.lock().iter().map(|slot| slot.snapshot.load(SeqCst)).min().unwrap_or(IDLE)
    }

    /// Takes views older than `version` away from readers that are not reading, so that their memory comes back.
    pub fn drop_idle_views(&self, version: u64) {
        let slots: Vec<Arc<Slot>> = self.slots.lock().clone();
        for slot in slots {
            if let Some(mut view) = slot.view.try_lock()
                && view.as_ref().is_some_and(|(of, _)| *of < version)
            {
                let gone = view.take();
                drop(view);
                drop(gone);
            }
        }
    }
}
