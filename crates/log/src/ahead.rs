//! The thread that works ahead of the appender: it makes the next segment's file and prepares the memory that will be written next. It also
//! has the system write what the appender has left behind, and lets that memory go, or a log of gigabytes would count as that much memory of the process.
//!
//! The appender holds the writer lock, and the thread stands behind others: so it may be without a processor in the middle of anything, and the appender waits for
//! it only when it needs a file. What it could not tell the thread it tells it with a later append.
//!
//! At most one file is ahead. A failure here is not reported: the appender then makes the segment itself and gets the reason first hand.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ardb_base::disk::{Disk, Region, RegionWriter};
use ardb_base::priority::{self, Courtesy};
use parking_lot::{Condvar, Mutex};

/// How far ahead of the appender memory is prepared, in bytes. It bounds what a sync by the kernel writes in vain.
pub(crate) const WARM_BYTES: usize = 4 << 20;

/// How much of it at once: some 0.1 ms.
const WARM_STEP: usize = 128 << 10;

/// How much of what was appended is handed to the disk at once: some 0.1 ms.
const WRITE_STEP: usize = 256 << 10;

/// A file of zeros under a temporary name.
#[derive(Debug)]
pub(crate) struct Spare {
    pub path: PathBuf,
    pub writer: RegionWriter,
}

impl Spare {
    /// Makes such a file; the name must be free.
    pub fn make(disk: &dyn Disk, path: PathBuf, len: usize) -> Result<Spare, ardb_base::disk::DiskError> {
        let writer = disk.create_region(&path, len)?;
        Ok(Spare { path, writer })
    }
}

#[derive(Debug)]
enum Stage {
    /// Nothing is wanted, or the last attempt failed.
    Idle,
    /// A file of this name and length is wanted.
    Wanted(PathBuf, usize),
    /// It is being made.
    Making,
    Ready(Spare),
}

#[derive(Debug)]
struct State {
    stage: Stage,
    warm: Option<(Arc<Region>, Range<usize>)>,
    /// Regions of which the memory below a place is done with, the newest last. The thread takes all of them at once.
    done: Vec<(Arc<Region>, usize)>,
    stop: bool,
}

#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    /// For the thread: there is work.
    work: Condvar,
    /// For the appender: the file is made, or cannot be.
    made: Condvar,
}

/// What the appender wishes.
#[derive(Debug, Default)]
struct Wishes {
    /// A spare file, unless there is one.
    file: Option<(PathBuf, usize)>,
    warm: Option<(Arc<Region>, Range<usize>)>,
    done: Vec<(Arc<Region>, usize)>,
}

/// The appender's side. Dropping it ends the thread; a spare file is removed.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// What could not be handed over yet.
    wishes: Wishes,
    desk: Arc<Desk>,
    disk: Arc<dyn Disk>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Starts the thread; `None` if the system gives none, and the appender does without.
    pub fn start(disk: Arc<dyn Disk>) -> Option<Ahead> {
        let state = State { stage: Stage::Idle, warm: None, done: Vec::new(), stop: false };
        let desk = Arc::new(Desk { state: Mutex::new(state), work: Condvar::new(), made: Condvar::new() });
        let (theirs, their_disk) = (desk.clone(), disk.clone());
        let thread = std::thread::Builder::new().name("ardb-log".into()).spawn(move || run(&theirs, &*their_disk));
        match thread {
            Ok(thread) => Some(Ahead { wishes: Wishes::default(), desk, disk, thread: Some(thread) }),
            Err(error) => {
                log::warn!("log: no thread to work ahead: {error}");
                None
            }
        }
    }

    /// Asks for a spare file, unless there is one.
    pub fn want(&mut self, path: PathBuf, len: usize) {
        self.wishes.file = Some((path, len));
    }

    /// Asks for memory to be prepared; a wish that was not taken up yet is replaced.
    pub fn warm(&mut self, region: Arc<Region>, range: Range<usize>) {
        self.wishes.warm = Some((region, range));
    }

    /// Says that the appender has left the memory below `to` behind.
    pub fn release(&mut self, region: &Arc<Region>, to: usize) {
        leave(&mut self.wishes.done, region.clone(), to);
    }

    /// Gives the thread what is wished, unless it stands at the desk just now. To be called again and again.
    pub fn hand_over(&mut self) {
        if self.wishes.is_empty() {
            return;
        }
        let Some(mut state) = self.desk.state.try_lock() else { return };
        let old = self.wishes.give(&mut state);
        drop(state);
        self.desk.work.notify_one();
        // It may be the last that holds a region.
        drop(old);
    }

    /// Takes the spare file, waiting for it if it is being made.
    pub fn take(&mut self) -> Option<Spare> {
        let mut state = self.desk.state.lock();
        let old = self.wishes.give(&mut state);
        while matches!(state.stage, Stage::Wanted(..) | Stage::Making) {
            self.desk.work.notify_one();
            self.desk.made.wait(&mut state);
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Idle);
        drop(state);
        drop(old);
        match stage {
            Stage::Ready(spare) => Some(spare),
            // The loop leaves no other stage.
            Stage::Idle | Stage::Wanted(..) | Stage::Making => None,
        }
    }
}

impl Wishes {
    fn is_empty(&self) -> bool {
        self.file.is_none() && self.warm.is_none() && self.done.is_empty()
    }

    /// Gives back a wish that was not taken up and is replaced.
    fn give(&mut self, state: &mut State) -> Option<(Arc<Region>, Range<usize>)> {
        if let Some((path, len)) = self.file.take()
            && matches!(state.stage, Stage::Idle)
        {
            state.stage = Stage::Wanted(path, len);
        }
        for (region, to) in self.done.drain(..) {
            leave(&mut state.done, region, to);
        }
        match self.warm.take() {
            Some(wish) => state.warm.replace(wish),
            None => None,
        }
    }
}

/// Notes that the memory of a region below `to` is done with.
fn leave(done: &mut Vec<(Arc<Region>, usize)>, region: Arc<Region>, to: usize) {
    match done.last_mut() {
        Some((last, place)) if Arc::ptr_eq(last, &region) => *place = to,
        _ => done.push((region, to)),
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.desk.state.lock().stop = true;
        self.desk.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing to add.
            let _ = thread.join();
        }
        if let Stage::Ready(spare) = std::mem::replace(&mut self.desk.state.lock().stage, Stage::Idle) {
            drop(spare.writer);
            // If it stays, the next opening removes it.
            let _ = self.disk.remove(&spare.path);
        }
    }
}

fn run(desk: &Desk, disk: &dyn Disk) {
    // As a rule it is well ahead; and while an appender waits for it, a thread less wants the processor.
    priority::stand_behind(priority::BACKGROUND);
    let mut courtesy = Courtesy::of_this_thread();
    let mut state = desk.state.lock();
    while !state.stop {
        if let Some((region, range)) = state.warm.take() {
            drop(state);
            warm(&region, range, &mut courtesy);
            drop(region);
            state = desk.state.lock();
        } else if matches!(state.stage, Stage::Wanted(..)) {
            let Stage::Wanted(path, len) = std::mem::replace(&mut state.stage, Stage::Making) else { continue };
            drop(state);
            let spare = make_durable(disk, path, len);
            if let Some(spare) = &spare {
                warm(spare.writer.region(), 0..WARM_BYTES, &mut courtesy);
            }
            state = desk.state.lock();
            state.stage = spare.map_or(Stage::Idle, Stage::Ready);
            desk.made.notify_all();
        } else if !state.done.is_empty() {
            let done = std::mem::take(&mut state.done);
            drop(state);
            for (region, to) in done {
                region.release(0..to);
                // A sync once a second would find a second's worth, and keep its processor to itself for some milliseconds.
                while region.write_out(to, WRITE_STEP) {
                    courtesy.now_and_then();
                }
            }
            state = desk.state.lock();
        } else {
            desk.work.wait(&mut state);
        }
    }
}

/// Prepares memory step by step.
fn warm(region: &Region, range: Range<usize>, courtesy: &mut Courtesy) {
    for from in range.clone().step_by(WARM_STEP) {
        region.warm(from..range.end.min(from + WARM_STEP));
        courtesy.now_and_then();
    }
}

/// Makes a file whose length and space are durable. Were they not yet when something is in it, the first sync would write all memory that is prepared, too.
fn make_durable(disk: &dyn Disk, path: PathBuf, len: usize) -> Option<Spare> {
    let mut spare = Spare::make(disk, path, len).ok()?;
    if spare.writer.sync_all().is_err() {
        drop(spare.writer);
        // If it stays, the next opening removes it.
        let _ = disk.remove(&spare.path);
        return None;
    }
    Some(spare)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ardb_base::disk::SimDisk;

    use super::*;

    #[test]
    fn wishes_wait_until_the_thread_has_left_the_desk() {
        let disk = Arc::new(SimDisk::new());
        disk.create_dir_all(Path::new("/log")).expect("no faults");
        let mut ahead = Ahead::start(disk.clone()).expect("there are threads");
        let writer = disk.create_region(Path::new("/log/segment"), 1 << 20).expect("no faults");
        let desk = ahead.desk.clone();
        let busy = desk.state.lock();
        ahead.release(writer.region(), 4096);
        ahead.warm(writer.region().clone(), 0..4096);
        ahead.want("/log/spare".into(), 1 << 16);
        ahead.hand_over();
        assert!(!ahead.wishes.is_empty() && busy.done.is_empty() && busy.warm.is_none());
        drop(busy);
        // It may stand there again for a moment.
        while !ahead.wishes.is_empty() {
            ahead.hand_over();
        }
        assert!(ahead.wishes.done.is_empty() && ahead.wishes.warm.is_none());
        assert_eq!(ahead.take().expect("it is made").path, Path::new("/log/spare"));
    }
}
