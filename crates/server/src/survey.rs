//! Reads the names of all rows after a start, so that the engine's filter of them is whole (see [`ardb_engine::presence`]).
//!
//! Until it is, absent rows are looked for in the engine, as if there were no filter. The thread gives way to all others, reads no more than
//! [`RATE`] from the disk, holds no snapshot for long, and ends with the engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_base::priority;
use ardb_engine::presence::{PresenceEngine, Survey};
use parking_lot::Mutex;

use crate::clock;

/// Rows that are read in one go.
const PART: usize = 4096;
/// Bytes a second, so that clients who need the disk get it.
const RATE: f64 = 64e6;

static ENDING: AtomicBool = AtomicBool::new(false);
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Ends all threads, before the process does.
pub fn end() {
    ENDING.store(true, Ordering::SeqCst);
    for thread in std::mem::take(&mut *THREADS.lock()) {
        thread.thread().unpark();
        if thread.join().is_err() {
            log::error!("a thread that reads the names of rows panicked");
        }
    }
}

/// Starts a thread for an engine that was just opened, unless it has no rows.
pub fn start(engine: &Arc<PresenceEngine>) {
    if engine.survey(&mut Vec::new(), 0).is_ok_and(|survey| survey == Survey::Over) {
        return;
    }
    let weak = Arc::downgrade(engine);
    let mut threads = THREADS.lock();
    threads.retain(|thread| !thread.is_finished());
    match std::thread::Builder::new().name("ardb-survey".into()).spawn(move || run(&weak)) {
        Ok(thread) => threads.push(thread),
        Err(error) => {
            log::warn!(
                "There is no thread to read the names of all rows; looking for absent ones takes longer: {error}"
            );
        }
    }
}

fn run(engine: &Weak<PresenceEngine>) {
    priority::stand_behind(priority::LAST);
    let started = clock::monotonic();
    let (mut from, mut bytes) = (Vec::new(), 0);
    // The engine is held for the time of one part.
    while let Some(held) = engine.upgrade().filter(|_| !ENDING.load(Ordering::SeqCst)) {
        match held.survey(&mut from, PART) {
            Ok(Survey::Part(more)) => bytes += more,
            Ok(Survey::Over) => break,
            Err(error) => {
                log::warn!("The names of the rows cannot be read; looking for absent ones takes longer: {error}");
                return;
            }
        }
        drop(held);
        let due = Duration::from_secs_f64(bytes as f64 / RATE);
        let passed = clock::monotonic().saturating_sub(started);
        if due > passed {
            std::thread::park_timeout(due - passed);
        }
    }
}
