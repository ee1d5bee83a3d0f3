//! RDBs for replicas in files, whose length is sent first and which waiting replicas share.
//!
//! The data are a snapshot at an offset of the log, and the log is held from there on as long as the dump is. Where the stream has a database selected, which
//! only happens where it is another server's, there are two kinds of dumps: those that say so, and those for replicas that could not read that.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ardb_log::Pin;
use ardb_node::dump::{self, Point};
use parking_lot::Mutex;

use super::status::monotonic_ms;
use crate::server::Server;

/// Beginning of the names of files that are being written. They have no name once they are open.
const SPOOL: &str = "full-sync-";

/// The sleep after each key that `rdb-key-save-delay` asks for, as it was when an RDB was begun.
#[derive(Clone, Copy, Debug)]
pub struct Pace(Duration);

impl Pace {
    /// As configured now.
    #[must_use]
    pub fn of(server: &Server) -> Pace {
        Pace(Duration::from_micros(server.config.int("rdb-key-save-delay").max(0) as u64))
    }

    /// Sleeps for one key, unless `go_on` says that nobody wants the rest. Gives its last answer.
    pub fn sleep(self, go_on: impl Fn() -> bool) -> bool {
        let mut left = self.0;
        while !left.is_zero() && go_on() {
            let part = left.min(Duration::from_millis(50));
            std::thread::sleep(part);
            left -= part;
        }
        go_on()
    }
}

/// An RDB for replicas that is being made, counted for INFO until this is dropped.
pub struct Making<'a>(&'a Server);

impl<'a> Making<'a> {
    /// From now on.
    #[must_use]
    pub fn begin(server: &'a Server) -> Making<'a> {
        server.replication.dumping.fetch_add(1, Ordering::SeqCst);
        Making(server)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.replication.dumping.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How far a dump to a file is.
#[derive(Clone)]
pub enum Progress {
    /// The snapshot is being taken.
    Preparing,
    /// The file is being written.
    Writing(Point),
    /// It is there.
    Done(Point, Arc<File>, u64),
    /// It failed.
    Failed(String),
}

/// A dump to a file.
pub struct Dump {
    /// It may say which database the stream has selected.
    pub aux: bool,
    progress: Mutex<Progress>,
    /// Holds the log from the dump's offset on.
    pin: Mutex<Option<Pin>>,
}

impl Dump {
    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }
}

/// The dump that is being made, or else a new one: who holds it may send it. `aux` as in [`Dump`].
///
/// # Errors
/// The system has no more threads.
pub fn join(server: &Arc<Server>, aux: bool) -> io::Result<Arc<Dump>> {
    let mut current = server.replication.dump.lock();
    // Our own stream says its database first, so that all dumps of it are of one kind.
    let fits = |dump: &Dump| dump.aux == aux || !server.replication.is_replica();
    if let Some(dump) = current.upgrade().filter(|dump| fits(dump)) {
        let shared = match dump.progress() {
            Progress::Preparing => true,
            Progress::Writing(point) => point.id == server.store.history().id,
            Progress::Done(..) | Progress::Failed(_) => false,
        };
        if shared {
            log::info!("A replica joins the dump that is being made");
            return Ok(dump);
        }
    }
    let dump = Arc::new(Dump { aux, progress: Mutex::new(Progress::Preparing), pin: Mutex::new(None) });
    *current = Arc::downgrade(&dump);
    drop(current);
    let (server_of_thread, made) = (server.clone(), dump.clone());
    let thread = std::thread::Builder::new().name("ardb-dump".into()).spawn(move || {
        if let Err(why) = make(&server_of_thread, &made) {
            log::warn!("The dump for replicas failed: {why}");
            *made.progress.lock() = Progress::Failed(why);
        }
    })?;
    server.replication.keep(thread);
    Ok(dump)
}

fn make(server: &Server, dump: &Arc<Dump>) -> Result<(), String> {
    let started = monotonic_ms();
    let _making = Making::begin(server);
    let (mut snapshot, point) = dump::snapshot(server.node())?;
    *dump.pin.lock() = snapshot.take_pin();
    *dump.progress.lock() = Progress::Writing(point);
    let file = spool(server).map_err(|error| format!("no file for it: {error}"))?;
    // This thread holds the dump too; if it is the last one, nobody waits any more.
    let wanted = || Arc::strong_count(dump) > 1 && !server.replication.stopping.load(Ordering::SeqCst);
    let pace = Pace::of(server);
    let said = if dump.aux { point } else { point.without_aux() };
    let keys = dump::write(&snapshot, &said, &file, || pace.sleep(wanted))?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    log::info!("The dump for replicas is made: {keys} keys, {length} bytes, in {} ms", monotonic_ms() - started);
    *dump.progress.lock() = Progress::Done(point, Arc::new(file), length);
    Ok(())
}

/// A file without a name, in the data directory: it needs as much room as the data.
fn spool(server: &Server) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = server.config.data_dir().join(format!("{SPOOL}{}-{number}.rdb", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Removes what a death between making a spool file and taking its name away has left.
pub fn remove_leftovers(server: &Server) {
    let Ok(entries) = std::fs::read_dir(server.config.data_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(SPOOL)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            log::warn!("{} cannot be removed: {error}", entry.path().display());
        }
    }
}
