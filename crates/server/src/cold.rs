//! Threads that wait for the disk in the place of those that must not.
//!
//! A network thread that met a cold row would let all its clients wait for the disk, and a replica that applies its master's stream would read one
//! row after the other, however many the disk could bring at once. They give such work to these threads instead. There are
//! `cold-read-threads` of them at most, each started when there is work and no idle one, and kept.
//!
//! Where the engine reads rows together, a thread takes brief jobs that wait, up to [`TOGETHER`] rows, asks for all their rows with one call, and then does
//! from memory what was to be done. A few threads keep the disk busy so, and each row costs less.
//!
//! To wake a thread costs about as much as to read a row. So a job may wait for a thread that will soon be free. Where the disk is slow more wait than
//! that, and more threads are woken.
//!
//! Invariants: a job only reads, and takes no lock that a writer holds while it waits, so it always ends. Each client has at most one job here, and so has
//! the link to the master in each of the threads, so the queue is as long as there are clients.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_base::id::UnixMs;
use ardb_engine::Value;
use ardb_node::care::Care;
use ardb_store::{ReadTxn, Reader, RowList, Store};
use ardb_types::{At, KeyRow};
use parking_lot::{Condvar, Mutex};

use crate::clock;

/// What is done for others.
pub trait Job: Send {
    /// Appends the rows that it needs, as far as that is known before it has seen any.
    fn rows(&self, view: &ReadTxn<'_>, rows: &mut RowList);

    /// Does it. Its rows were asked for, if the engine reads rows together.
    fn run(self: Box<Self>, reader: &mut Reader, fetched: Looked);
}

/// The rows of a job that were looked at before its turn, together with those of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    /// Rows that were not in memory, so that the engine was asked for them.
    pub asked: u32,
    /// Rows among them that came from the disk.
    pub slow: u32,
}

/// How much work a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// It needs the rows of so many keys, and no others.
    Keys(usize),
    /// Nobody knows.
    Long,
}

/// Threads at work with brief jobs for each job that may wait, where rows are read one after the other.
const PATIENCE: usize = 2;
/// Rows that are asked for together.
const TOGETHER: usize = 32;
/// Threads for brief jobs for each processor, where rows are read together.
const READERS: usize = 2;
/// Keys that are worth another thread.
const SHARE: usize = 8;

/// The threads.
#[derive(Default)]
pub struct ColdReads {
    shared: Arc<Shared>,
    /// Known once a job has come.
    way: OnceLock<Way>,
}

/// How rows are read here.
#[derive(Clone, Copy)]
struct Way {
    /// The engine reads them together.
    together: bool,
    /// Threads for brief jobs, in that case.
    readers: usize,
    /// Threads for all.
    most: usize,
}

/// A job that waits for a thread.
struct Waiting {
    size: Size,
    job: Box<dyn Job>,
    /// What was done for it before.
    fetched: Looked,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Waiting>,
    /// Threads at work with brief jobs.
    brief: usize,
    /// Threads that wait for one.
    idle: usize,
    closed: bool,
}

impl Queue {
    /// How many threads should be idle, so that a job of this size that came last is done soon. None if those that are at work will see to it.
    fn wanted(&self, size: Size, way: &Way) -> usize {
        let waiting = self.jobs.len();
        if !way.together {
            return if waiting * PATIENCE > self.brief { waiting } else { 0 };
        }
        if !size.is_brief(way.together) {
            return waiting;
        }
        // Each of those at work will take several.
        usize::from(self.brief < way.readers && waiting > self.brief)
    }

    /// Takes the next job, and brief ones behind it.
    fn take(&mut self, together: bool, jobs: &mut Vec<Waiting>) -> Option<Size> {
        let first = self.jobs.pop_front()?;
        let size = first.size;
        jobs.push(first);
        if together && let Size::Keys(mut keys) = size {
            while let Some(Waiting { size: Size::Keys(more), .. }) = self.jobs.front()
                && keys + more <= TOGETHER
            {
                keys += more;
                jobs.extend(self.jobs.pop_front());
            }
        }
        Some(size)
    }
}

impl Size {
    /// Whether threads that do nothing else will soon be free. Rows that are read one after the other take long when there are several.
    fn is_brief(self, together: bool) -> bool {
        match self {
            Size::Keys(keys) => keys == 1 || together,
            Size::Long => false,
        }
    }
}

impl ColdReads {
    /// Has a job done. `most` is how many threads there may be. If the system gives none, the caller does it.
    pub fn run(&self, store: &Store, most: usize, size: Size, job: Box<dyn Job>) {
        let way = self.way(store, most);
        self.shared.add(Waiting { size, job, fetched: Looked::default() }, way, || store.reader());
    }

    /// Looks at the rows of keys, given with their databases, with many threads at once, and returns when all were looked at. Gives how many of
    /// the looks were slow.
    #[must_use]
    pub fn look(&self, store: &Store, most: usize, keys: Vec<(u32, Vec<u8>)>, slow_after: Duration) -> u32 {
        let together = self.way(store, most).together;
        let count = keys.len().div_ceil(if together { TOGETHER } else { SHARE }).min(most);
        let looks = Arc::new(Looks {
            keys,
            slow_after,
            together,
            next: AtomicUsize::new(0),
            slow: AtomicU32::new(0),
            running: Mutex::new(count),
            over: Condvar::new(),
        });
        for _ in 0..count {
            self.run(store, most, Size::Long, Box::new(Look(looks.clone())));
        }
        let mut running = looks.running.lock();
        looks.over.wait_while(&mut running, |running| *running > 0);
        looks.slow.load(Ordering::Relaxed)
    }

    fn way(&self, store: &Store, most: usize) -> &Way {
        self.way.get_or_init(|| {
            let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
            Way { together: store.fetches_together(), readers: READERS * processors, most }
        })
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads.lock().len()
    }

    /// Does what is still to be done, and ends the threads.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread for cold reads panicked");
            }
        }
    }
}

impl Shared {
    /// Puts a job into the queue, and wakes or starts a thread if it is worth one.
    fn add(self: &Arc<Shared>, waiting: Waiting, way: &Way, reader: impl Fn() -> Reader) {
        let size = waiting.size;
        let start = {
            let mut queue = self.queue.lock();
            queue.jobs.push_back(waiting);
            let wanted = queue.wanted(size, way);
            if wanted == 0 {
                return;
            }
            queue.idle < wanted && !queue.closed
        };
        self.changed.notify_one();
        if !start {
            return;
        }
        let mut threads = self.threads.lock();
        if threads.len() >= way.most {
            return;
        }
        let (shared, way, mut its_reader) = (self.clone(), *way, reader());
        let name = format!("ardb-cold-{}", threads.len());
        match std::thread::Builder::new().name(name).spawn(move || shared.serve(&mut its_reader, &way)) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => {
                log::warn!("No thread for cold reads: {error}");
                drop(threads);
                let waiting = self.queue.lock().jobs.pop_front();
                if let Some(Waiting { job, fetched, .. }) = waiting {
                    job.run(&mut reader(), fetched);
                }
            }
            // The others do it.
            Err(error) => log::warn!("No further thread for cold reads: {error}"),
        }
    }

    fn serve(self: &Arc<Shared>, reader: &mut Reader, way: &Way) {
        let mut before = Size::Long;
        let mut jobs = Vec::new();
        let mut rows = RowList::default();
        loop {
            before = {
                let mut queue = self.queue.lock();
                queue.brief -= usize::from(before.is_brief(way.together));
                loop {
                    if let Some(size) = queue.take(way.together, &mut jobs) {
                        queue.brief += usize::from(size.is_brief(way.together));
                        break size;
                    }
                    if queue.closed {
                        return;
                    }
                    queue.idle += 1;
                    self.changed.wait(&mut queue);
                    queue.idle -= 1;
                }
            };
            if way.together {
                self.fetch(reader, &mut jobs, &mut rows, way);
            }
            for Waiting { job, fetched, .. } in jobs.drain(..) {
                job.run(reader, fetched);
            }
        }
    }

    /// Asks for the rows of all the jobs. Brief ones that turn out to need further rows, as of a string in pieces, wait again, for threads of their own.
    fn fetch(self: &Arc<Shared>, reader: &mut Reader, jobs: &mut Vec<Waiting>, rows: &mut RowList, way: &Way) {
        rows.clear();
        let mut long = Vec::new();
        {
            let view = reader.begin();
            let mut ends = Vec::with_capacity(jobs.len());
            for waiting in &*jobs {
                waiting.job.rows(&view, rows);
                ends.push(rows.len());
            }
            view.fetch(rows, |row, found| {
                let at = ends.partition_point(|end| *end <= row);
                let Waiting { size, fetched, .. } = &mut jobs[at];
                fetched.asked += u32::from(found.asked);
                fetched.slow += u32::from(found.waited);
                if *size != Size::Long && found.value.is_some_and(is_in_rows) {
                    *size = Size::Long;
                    long.push(at);
                }
            });
        }
        long.sort_unstable();
        for at in long.into_iter().rev() {
            let waiting = jobs.remove(at);
            self.add(waiting, way, || reader.another());
        }
    }
}

/// Whether the row of a key says that its value is held in other rows.
fn is_in_rows(row: &Value) -> bool {
    KeyRow::parse(row.clone()).is_ok_and(|row| row.object().0 != 0)
}

/// Keys that several threads look at, each taking the next ones.
struct Looks {
    keys: Vec<(u32, Vec<u8>)>,
    slow_after: Duration,
    /// Whether to ask for rows together.
    together: bool,
    next: AtomicUsize,
    slow: AtomicU32,
    /// Threads that are not done.
    running: Mutex<usize>,
    over: Condvar,
}

/// The part of one thread.
struct Look(Arc<Looks>);

impl Job for Look {
    /// It asks itself, for a piece after the other.
    fn rows(&self, _: &ReadTxn<'_>, _: &mut RowList) {}

    fn run(self: Box<Self>, reader: &mut Reader, _: Looked) {
        let looks = &*self.0;
        // Whatever happens, the one who waits is told.
        let _done = Done(looks);
        let view = reader.begin();
        let mut rows = RowList::default();
        let step = if looks.together { TOGETHER } else { 1 };
        loop {
            let first = looks.next.fetch_add(step, Ordering::Relaxed);
            let Some(keys) = looks.keys.get(first..).filter(|keys| !keys.is_empty()) else { return };
            let keys = &keys[..keys.len().min(step)];
            if looks.together {
                rows.clear();
                for (db, key) in keys {
                    rows.push(&At::new(&view, *db, key, UnixMs::MIN).row());
                }
                view.fetch(&rows, |_, found| {
                    looks.slow.fetch_add(u32::from(found.waited), Ordering::Relaxed);
                });
            }
            for (db, key) in keys {
                let (_, slow) = Care::look_at(&view, *db, key, looks.slow_after, clock::monotonic);
                looks.slow.fetch_add(slow, Ordering::Relaxed);
            }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ardb_base::disk::SimDisk;
    use ardb_base::id::Generation;
    use ardb_engine::{Engine, EngineError, RowsMut};
    use ardb_engine_memory::DurableEngine;
    use ardb_log::LogOptions;
    use ardb_store::{Fsync, MemoryBudget, StoreOptions};

    use super::*;

    /// Wants a key, and says so when it is done.
    struct Get(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Job for Get {
        fn rows(&self, view: &ReadTxn<'_>, rows: &mut RowList) {
            rows.push(&At::new(view, 0, self.0.as_bytes(), UnixMs::MIN).row());
        }

        fn run(self: Box<Self>, _: &mut Reader, _: Looked) {
            self.1.lock().push(self.0);
        }
    }

    fn open() -> Store {
        let disk = SimDisk::new();
        let of_engine = disk.clone();
        let engines = move |_: Generation, dir: &Path, _: u64| -> Result<Arc<dyn Engine>, EngineError> {
            Ok(Arc::new(DurableEngine::open(Arc::new(of_engine.clone()), dir)?))
        };
        let options = StoreOptions {
            dir: "/data".into(),
            disk: Arc::new(disk),
            engines: Arc::new(engines),
            databases: 1,
            memory: MemoryBudget { changed: 1 << 20, rows: 1 << 20, engine: 0 },
            log: LogOptions { segment_bytes: 1 << 16, ahead: false },
            backlog_bytes: 1 << 20,
            fsync: Fsync::No,
            checkpoint_age_ms: 1000,
            boot_id: [1; 16],
            random: Arc::new(|bytes: &mut [u8]| bytes.fill(7)),
            clock: Arc::new(|| 0),
            background: false,
        };
        Store::open(options).expect("an empty disk takes a store").0
    }

    #[test]
    fn brief_jobs_whose_values_are_held_in_rows_wait_again_for_threads_of_their_own() {
        let store = open();
        // Rows of keys: of a string that is there itself, and of one in pieces, of object 9 and 100 bytes.
        let inline = [0, 0, 0, b'x'].to_vec();
        let in_rows = [&[0, 1, 0][..], &9u64.to_le_bytes(), &100u64.to_le_bytes()].concat();
        let mut txn = store.write();
        for (key, value) in [("a", &inline), ("b", &in_rows), ("c", &inline), ("d", &in_rows)] {
            let at = At::new(&txn, 0, key.as_bytes(), UnixMs::MIN);
            txn.put(at.row(), value);
        }
        txn.commit().expect("no faults");

        let done = Arc::new(Mutex::new(Vec::new()));
        let waiting = |(key, size)| Waiting { size, job: Box::new(Get(key, done.clone())), fetched: Looked::default() };
        let brief = Size::Keys(1);
        let mut jobs: Vec<Waiting> =
            [("a", brief), ("b", brief), ("c", brief), ("d", Size::Long), ("none", brief)].map(waiting).into();
        let shared = Arc::new(Shared::default());
        // No thread takes what waits.
        let way = Way { together: true, readers: 4, most: 0 };
        let mut reader = store.reader();
        shared.fetch(&mut reader, &mut jobs, &mut RowList::default(), &way);
        let sizes = |jobs: &mut dyn Iterator<Item = Waiting>, reader: &mut Reader| -> (Vec<Size>, Vec<&str>) {
            let sizes = jobs.map(|waiting| {
                waiting.job.run(reader, waiting.fetched);
                waiting.size
            });
            (sizes.collect(), std::mem::take(&mut *done.lock()))
        };
        let kept = sizes(&mut jobs.into_iter(), &mut reader);
        assert_eq!(kept, (vec![brief, brief, Size::Long, brief], vec!["a", "c", "d", "none"]));
        let again = sizes(&mut shared.queue.lock().jobs.drain(..), &mut reader);
        assert_eq!(again, (vec![Size::Long], vec!["b"]));
    }

    struct Nothing;

    impl Job for Nothing {
        fn rows(&self, _: &ReadTxn<'_>, _: &mut RowList) {}

        fn run(self: Box<Self>, _: &mut Reader, _: Looked) {}
    }

    fn queue(sizes: &[Size]) -> Queue {
        let waiting = |size: &Size| Waiting { size: *size, job: Box::new(Nothing), fetched: Looked::default() };
        let jobs = sizes.iter().map(waiting).collect();
        Queue { jobs, ..Queue::default() }
    }

    #[test]
    fn a_thread_takes_brief_jobs_up_to_its_rows() {
        let sizes = [Size::Keys(20), Size::Keys(12), Size::Keys(1), Size::Long, Size::Keys(1000), Size::Keys(1)];
        let takes = |together| {
            let mut queue = queue(&sizes);
            let mut taken = Vec::new();
            let mut jobs = Vec::new();
            while queue.take(together, &mut jobs).is_some() {
                taken.push(std::mem::take(&mut jobs).len());
            }
            taken
        };
        assert_eq!(takes(true), [2, 1, 1, 1, 1]);
        assert_eq!(takes(false), [1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn threads_are_woken_as_far_as_they_help() {
        let wanted = |sizes: &[Size], brief, together| {
            let queue = Queue { brief, ..queue(sizes) };
            queue.wanted(sizes[sizes.len() - 1], &Way { together, readers: 4, most: 64 })
        };
        let one = Size::Keys(1);
        // Together: each at work takes several, a few are enough, and long jobs are not among these.
        assert_eq!(wanted(&[one], 0, true), 1);
        assert_eq!(wanted(&[one; 3], 3, true), 0);
        assert_eq!(wanted(&[one; 4], 3, true), 1);
        assert_eq!(wanted(&[one; 100], 4, true), 0);
        assert_eq!(wanted(&[one, Size::Long], 4, true), 2);
        // One by one: half as many may wait as are at work.
        assert_eq!(wanted(&[one; 2], 4, false), 0);
        assert_eq!(wanted(&[one; 3], 4, false), 3);
        assert_eq!(wanted(&[one], 0, false), 1);
    }
}
