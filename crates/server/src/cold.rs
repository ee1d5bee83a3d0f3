//! Threads that wait for the disk in the place of those that must not.
//!
//! A network thread that met a cold row would let all its clients wait for the disk, and a replica that applies its master's stream would read one
//! row after the other, however many the disk could bring at once. They give such work to these threads instead. There are
//! `cold-read-threads` of them at most, each started when there is work and no idle one, and kept.
//!
//! To wake a thread costs about as much as to read a row. So a job may wait for a thread that will soon be free: half as many as there are threads at
//! work with jobs of one row each. Where the disk is slow more wait than that, and more threads are woken.
//!
//! Invariants: a job only reads, and takes no lock that a writer holds while it waits, so it always ends. Each client has at most one job here, and so has
//! the link to the master in each of the threads, so the queue is as long as there are clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_node::care::Care;
use ardb_store::{Reader, Store};
use parking_lot::{Condvar, Mutex};

use crate::clock;

/// What is done for others.
pub type Job = Box<dyn FnOnce(&mut Reader) + Send>;

/// How much work a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A row or so.
    Brief,
    /// Nobody knows.
    Long,
}

/// Threads at work with brief jobs for each job that may wait.
const PATIENCE: usize = 2;
/// Keys that are worth another thread.
const SHARE: usize = 8;

/// The threads.
#[derive(Default)]
pub struct ColdReads {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Size, Job)>,
    /// Threads at work with brief jobs.
    brief: usize,
    /// Threads that wait for one.
    idle: usize,
    closed: bool,
}

impl ColdReads {
    /// Has a job done. `most` is how many threads there may be. If the system gives none, the caller does it.
    pub fn run(&self, store: &Store, most: usize, size: Size, job: Job) {
        let start = {
            let mut queue = self.shared.queue.lock();
            queue.jobs.push_back((size, job));
            if queue.jobs.len() * PATIENCE <= queue.brief {
                return;
            }
            queue.idle < queue.jobs.len()
        };
        self.shared.changed.notify_one();
        if !start {
            return;
        }
        let mut threads = self.threads.lock();
        if threads.len() >= most {
            return;
        }
        let (shared, mut reader) = (self.shared.clone(), store.reader());
        let name = format!("ardb-cold-{}", threads.len());
        match std::thread::Builder::new().name(name).spawn(move || shared.serve(&mut reader)) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => {
                log::warn!("No thread for cold reads: {error}");
                drop(threads);
                let job = self.shared.queue.lock().jobs.pop_front();
                if let Some((_, job)) = job {
                    job(&mut store.reader());
                }
            }
            // The others do it.
            Err(error) => log::warn!("No further thread for cold reads: {error}"),
        }
    }

    /// Looks at the rows of keys, given with their databases, with many threads at once, and returns when all were looked at. Gives how many of
    /// the looks were slow.
    #[must_use]
    pub fn look(&self, store: &Store, most: usize, keys: Vec<(u32, Vec<u8>)>, slow_after: Duration) -> u32 {
        let count = keys.len().div_ceil(SHARE).min(most);
        let looks = Arc::new(Looks {
            keys,
            slow_after,
            next: AtomicUsize::new(0),
            slow: AtomicU32::new(0),
            running: Mutex::new(count),
            over: Condvar::new(),
        });
        for _ in 0..count {
            let looks = looks.clone();
            self.run(store, most, Size::Long, Box::new(move |reader| looks.run(reader)));
        }
        let mut running = looks.running.lock();
        looks.over.wait_while(&mut running, |running| *running > 0);
        looks.slow.load(Ordering::Relaxed)
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.lock().len()
    }

    /// Does what is still to be done, and ends the threads.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                log::error!("a thread for cold reads panicked");
            }
        }
    }
}

impl Shared {
    fn serve(&self, reader: &mut Reader) {
        let mut before = Size::Long;
        loop {
            let (size, job) = {
                let mut queue = self.queue.lock();
                queue.brief -= usize::from(before == Size::Brief);
                loop {
                    if let Some((size, job)) = queue.jobs.pop_front() {
                        queue.brief += usize::from(size == Size::Brief);
                        break (size, job);
                    }
                    if queue.closed {
                        return;
                    }
                    queue.idle += 1;
                    self.changed.wait(&mut queue);
                    queue.idle -= 1;
                }
            };
            job(reader);
            before = size;
        }
    }
}

/// Keys that several threads look at, each taking the next one.
struct Looks {
    keys: Vec<(u32, Vec<u8>)>,
    slow_after: Duration,
    next: AtomicUsize,
    slow: AtomicU32,
    /// Threads that are not done.
    running: Mutex<usize>,
    over: Condvar,
}

impl Looks {
    fn run(&self, reader: &mut Reader) {
        // Whatever happens, the one who waits is told.
        let _done = Done(self);
        let view = reader.begin();
        while let Some((db, key)) = self.keys.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let (_, slow) = Care::look_at(&view, *db, key, self.slow_after, clock::monotonic);
            self.slow.fetch_add(slow, Ordering::Relaxed);
        }
    }
}

struct Done<'l>(&'l Looks);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.over.notify_all();
    }
}
