//! Making the log durable, once for all who wait.
//!
//! One caller leads: it takes the end as it is, syncs what lies between, and everybody who waited for less returns with it. The lock is not held
//! across the I/O. A failure is kept for ever, because a kernel may drop pages that it could not write and report success the next time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::disk::DiskError;
use ardb_base::id::Offset;

use crate::error::SyncError;
use crate::log::Shared;
use crate::segment::Segment;

/// Guarded by [`Shared::sync`].
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    /// Whether somebody is syncing, or replacing the history, right now.
    pub busy: bool,
}

impl Shared {
    pub fn sync_to(&self, offset: Offset) -> Result<(), SyncError> {
        let epoch = self.epoch();
        if let Some(failure) = self.failed.get() {
            return Err(SyncError::Failed(failure.clone()));
        }
        if offset > self.end() {
            return Err(SyncError::PastEnd { asked: offset, end: self.end() });
        }
        if self.synced() >= offset && self.epoch() == epoch {
            return Ok(());
        }
        let mut state = self.sync.lock();
        loop {
            if let Some(failure) = self.failed.get() {
                return Err(SyncError::Failed(failure.clone()));
            }
            if self.epoch() != epoch {
                return Err(SyncError::PastEnd { asked: offset, end: self.end() });
            }
            if self.synced() >= offset {
                return Ok(());
            }
            if state.busy {
                self.sync_done.wait(&mut state);
                continue;
            }
            state.busy = true;
            drop(state);
            let end = self.end();
            let result = self.flush(end);
            state = self.sync.lock();
            state.busy = false;
            match result {
                Ok(()) => {
                    self.synced.store(end.0, Ordering::Release);
                }
                Err(error) => {
                    log::error!("log: a sync failed, no more writes are accepted: {error}");
                    // Only the one who is busy sets it, so it was not set.
                    let _ = self.failed.set(Arc::new(error));
                }
            }
            self.sync_done.notify_all();
        }
    }

    /// Syncs all that was published when `end` was the end.
    fn flush(&self, end: Offset) -> Result<(), DiskError> {
        let dirty: Vec<Arc<Segment>> = {
            let segments = self.segments.read();
            segments.iter().filter(|segment| segment.first <= end && !segment.is_synced()).cloned().collect()
        };
        for segment in &dirty {
            let published = segment.region.published();
            let from = segment.synced.load(Ordering::Acquire);
            // The system makes each page that it writes read-only first, and interrupts all threads of the process for each that is mapped.
            // Given back all at once, they are interrupted once.
            segment.region.release(from..published);
            segment.region.sync(from..published)?;
            segment.synced.store(published, Ordering::Release);
            // The page in which the next frame begins was made read-only for being written out; taking that fault here saves the appender it.
            segment.region.warm(published..published + 1);
        }
        // After the files: a name that survives has its contents. A name that is made meanwhile sets the mark again.
        if self.names_dirty.swap(false, Ordering::AcqRel) {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}
