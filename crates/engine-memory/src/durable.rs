//! The memory engine with its commits on a [`Disk`], for the simulator and for tests of crashes.
//!
//! Each commit is one file (see `format`), written and synced under a passing name, renamed to `<number>.commit`, and the
//! directory synced: the rename is the point at which it has happened, the sync that at which it is durable. Invariants:
//! - commit files are never changed, and their numbers rise by one; from the newest one that is whole on, none is missing;
//! - a file is removed only when a whole one after it is durable.
//!
//! At open the newest whole file is read and those after it are applied; all else in the directory is rubbish and removed. If a commit
//! fails, what it may have left is taken back; should that fail too, commits are refused until
//! [`Engine::resume`] succeeds in it, or a restart finds out whether it is there.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ardb_base::disk::{DirLock, Disk, DiskError, DiskErrorKind};
use ardb_engine::{Change, ChangeSource, Engine, EngineError, EngineStats, Snapshot};

use crate::tree::{Place, Tree};
use crate::{MemoryEngine, format, stats};

/// Less than this in commit files is never worth writing the whole state for.
const SMALL: u64 = 64 << 10;

/// The engine.
pub struct DurableEngine {
    memory: MemoryEngine,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    journal: Mutex<Journal>,
    _lock: Box<dyn DirLock>,
}

struct Journal {
    /// Number of the next commit.
    next: u64,
    /// Bytes of the files that a restart reads.
    bytes: u64,
    /// A commit with the next number failed, and its file may be there.
    unsure: bool,
}

fn failed(error: &DiskError) -> EngineError {
    EngineError::new(format!("{} {}", error.doing, error.path.display()), &error.why)
}

fn damaged(path: &Path, why: impl ToString) -> EngineError {
    EngineError { doing: format!("read {}", path.display()), why: why.to_string(), corruption: true }
}

/// All rows of a map as changes.
struct Everything<'a> {
    tree: &'a Tree,
    next: Option<Place>,
}

impl ChangeSource for Everything<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        let place = self.next?;
        self.next = self.tree.next(place);
        let (key, value) = self.tree.row(place);
        Some((key, Some(value)))
    }
}

impl DurableEngine {
    /// Opens the engine in `dir` of `disk`, which is created if need be.
    ///
    /// # Errors
    /// Fails if another engine has the directory open, if a commit's file is damaged or missing, or if the disk fails.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<DurableEngine, EngineError> {
        disk.create_dir_all(dir).map_err(|error| failed(&error))?;
        let lock = disk.lock(&dir.join("lock")).map_err(|error| failed(&error))?;
        let mut engine = DurableEngine {
            memory: MemoryEngine::new(),
            disk,
            dir: dir.to_owned(),
            journal: Mutex::new(Journal { next: 1, bytes: 0, unsure: false }),
            _lock: lock,
        };
        engine.recover()?;
        Ok(engine)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}.commit"))
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        let mut numbers = self.commits()?;
        // Newest first, as far as the newest whole one.
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut files: Vec<(u64, Vec<u8>)> = Vec::new();
        for &number in &numbers {
            if files.last().is_some_and(|last| number + 1 != last.0) {
                break;
            }
            let path = self.path(number);
            let file = self.disk.read(&path).map_err(|error| failed(&error))?;
            let whole = format::decode(number, &file).map_err(|why| damaged(&path, why))?.whole;
            files.push((number, file));
            if whole {
                break;
            }
        }
        let mut tree = Tree::default();
        let mut journal = Journal { next: 1, bytes: 0, unsure: false };
        let oldest = files.last().map_or(0, |last| last.0);
        for (number, file) in files.into_iter().rev() {
            let path = self.path(number);
            let mut commit = format::decode(number, &file).map_err(|why| damaged(&path, why))?;
            if number == oldest && number != 1 && !commit.whole {
                return Err(damaged(&self.path(number - 1), "it is missing"));
            }
            let ranges = std::mem::take(&mut commit.ranges);
            tree = tree.apply(&ranges, &mut commit);
            journal = Journal { next: number + 1, bytes: journal.bytes + file.len() as u64, unsure: false };
        }
        self.memory.publish(tree);
        *self.journal.get_mut().unwrap_or_else(PoisonError::into_inner) = journal;
        self.remove_before(oldest);
        Ok(())
    }

    /// The numbers of all commit files.
    fn commits(&self) -> Result<Vec<u64>, EngineError> {
        let names = self.disk.list(&self.dir).map_err(|error| failed(&error))?;
        Ok(names.iter().filter_map(|entry| entry.name.strip_suffix(".commit")?.parse().ok()).collect())
    }

    /// Removes commit files that no restart needs. What cannot be removed now is removed another time.
    fn remove_before(&self, number: u64) {
        for old in self.commits().unwrap_or_default() {
            if old < number {
                let _ = self.disk.remove(&self.path(old));
            }
        }
    }

    /// Makes sure that there is no file of commit `number`.
    fn take_back(&self, number: u64) -> Result<(), DiskError> {
        for path in [self.path(number), self.passing()] {
            match self.disk.remove(&path) {
                Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.disk.sync_dir(&self.dir)
    }

    fn passing(&self) -> PathBuf {
        self.dir.join("next")
    }

    fn write(&self, number: u64, file: &[u8]) -> Result<(), DiskError> {
        let passing = self.passing();
        self.disk.write_file(&passing, file)?;
        self.disk.rename(&passing, &self.path(number))?;
        self.disk.sync_dir(&self.dir)
    }
}

impl Engine for DurableEngine {
    fn name(&self) -> &'static str {
        self.memory.name()
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.memory.snapshot()
    }

    fn commit(&self, ranges: &[Range<Vec<u8>>], rows: &mut dyn ChangeSource) -> Result<(), EngineError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.unsure {
            return Err(EngineError::new("commit", "an earlier commit failed and could not be taken back"));
        }
        let number = journal.next;
        let (mut file, count) =
            format::encode(number, false, ranges, rows).map_err(|why| EngineError::new("commit", why))?;
        if count == 0 && ranges.iter().all(|range| range.start >= range.end) {
            return Ok(());
        }
        // What was just written is read again: recovery will see the same.
        let mut commit = format::decode(number, &file).map_err(|why| EngineError::new("commit", why))?;
        let tree = self.memory.current().tree.apply(ranges, &mut commit);
        let whole = journal.bytes + file.len() as u64 > SMALL.max(2 * tree.bytes());
        if whole {
            let mut everything = Everything { tree: &tree, next: tree.at_or_after(b"") };
            file = format::encode(number, true, &[], &mut everything).map_err(|why| EngineError::new("commit", why))?.0;
        }
        if let Err(error) = self.write(number, &file) {
            journal.unsure = self.take_back(number).is_err();
            return Err(failed(&error));
        }
        journal.next = number + 1;
        journal.bytes = file.len() as u64 + if whole { 0 } else { journal.bytes };
        self.memory.publish(tree);
        if whole {
            self.remove_before(number);
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let disk_bytes = self.journal.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        EngineStats { disk_bytes, ..stats(&self.memory.current().tree) }
    }

    fn resume(&self) -> Result<(), EngineError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.unsure {
            self.take_back(journal.next).map_err(|error| failed(&error))?;
            journal.unsure = false;
        }
        Ok(())
    }
}
