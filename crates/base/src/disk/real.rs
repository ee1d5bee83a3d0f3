//! The file system of the machine.
//!
//! Regions are shared mappings of files whose space `fallocate` reserved. They are synced with `msync` of just the range wanted, which
//! leaves pages beyond it alone: those that were warmed for the appender stay writable, and their zeros are not written.

#![allow(clippy::disallowed_methods, reason = "the one place of this crate that touches files")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{FallocateFlags, FlockOperation};
use uapi::c;

use super::region::{Backing, RegionWriter};
use super::{DirEntry, DirLock, Disk, DiskError, DiskErrorKind};
use crate::priority::Courtesy;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// How much of a file leaves the system's cache at once: some 0.1 ms.
const FORGET_STEP: u64 = 1 << 20;

/// Device and inode of each region that this process has open: a second writer of the same memory would break the promise of
/// [`Backing`]. Other processes are kept out by the lock on the data directory.
static OPEN: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn open_regions() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    // The set is consistent after each single operation, so a panic elsewhere does not spoil it.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns an I/O error into one that names the operation and the file.
trait Context<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|error| DiskError::from_io(doing, path, &error))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|error| DiskError::from_io(doing, path, &error.into()))
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        let mut missing = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
            missing.push(path);
            at = path.parent();
        }
        fs::create_dir_all(dir).context("create directory", dir)?;
        for path in missing {
            if let Some(parent) = path.parent() {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        fs::read(path).context("read", path)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let mut file = File::create(path).context("create", path)?;
        file.write_all(bytes).context("write", path)?;
        file.sync_all().context("sync", path)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let file = OpenOptions::new().write(true).open(path).context("open", path)?;
        file.write_all_at(bytes, offset).context("write", path)
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        // What another descriptor wrote is synced as well: the pages belong to the file.
        File::open(path).context("open", path)?.sync_all().context("sync", path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).context("list", dir)? {
            let entry = entry.context("list", dir)?;
            // No file of ours has a name that is not UTF-8, so such a one is somebody else's.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(meta) => {
                    let len = if meta.is_dir() { 0 } else { meta.len() };
                    entries.push(DirEntry { name, is_dir: meta.is_dir(), len });
                }
                // Removed since the name was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DiskError::from_io("examine", &entry.path(), &error)),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        forget(path);
        fs::remove_file(path).context("remove", path)
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.context("remove directory", dir),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).context("rename", from)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        File::open(dir).context("open", dir)?.sync_all().context("sync", dir)
    }

    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(path).context("examine the file system of", path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirLock>, DiskError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).context("open", path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).context("lock", path)?;
        Ok(Box::new(FileLock { _file: file }))
    }

    fn create_region(&self, path: &Path, len: usize) -> Result<RegionWriter, DiskError> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).context("create", path)?;
        let made = reserve(&file, len as u64).context("reserve space for", path).and_then(|()| map(file, path));
        if made.is_err() {
            // The name was free before, so the file is ours to remove; the error that is reported is the first one.
            let _ = fs::remove_file(path);
        }
        made
    }

    fn open_region(&self, path: &Path) -> Result<RegionWriter, DiskError> {
        let file = OpenOptions::new().read(true).write(true).open(path).context("open", path)?;
        map(file, path)
    }
}

/// Takes a large file out of the system's cache, bit by bit. Its removal would do it at one go, 10 ms for 64 MB, in which, on a kernel that is built for servers, the
/// thread does not let go of its processor.
fn forget(path: &Path) {
    // It is a hint: what is wrong with the file, its removal will say.
    let Ok(file) = File::open(path) else { return };
    let len = file.metadata().map_or(0, |meta| meta.len());
    if len <= FORGET_STEP {
        return;
    }
    let mut courtesy = Courtesy::of_this_thread();
    for from in (0..len).step_by(FORGET_STEP as usize) {
        let _ = rustix::fs::fadvise(&file, from, NonZeroU64::new(FORGET_STEP), rustix::fs::Advice::DontNeed);
        courtesy.now_and_then();
    }
}

/// Reserves space for a new file's first `len` bytes, which read as zeros.
fn reserve(mut file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        // File systems that cannot reserve have to be written to.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            io::copy(&mut io::Read::take(io::repeat(0), len), &mut file)?;
            file.sync_all()
        }
        result => Ok(result?),
    }
}

/// Maps a whole file that is not empty and that this process has not mapped yet.
fn map(file: File, path: &Path) -> Result<RegionWriter, DiskError> {
    let meta = file.metadata().context("examine", path)?;
    if meta.len() == 0 {
        return Err(DiskError::new("map", path, DiskErrorKind::Other, "the file is empty"));
    }
    let id = (meta.dev(), meta.ino());
    if !open_regions().insert(id) {
        return Err(DiskError::new("map", path, DiskErrorKind::Busy, "the file is mapped already"));
    }
    let entry = OpenEntry(id);
    let map = MmapOptions::new().map_raw(&file).context("map", path)?;
    let file = Mutex::new(Descriptor { file: Some(Arc::new(file)), is_synced: false });
    let (by_page, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let backing = RealBacking { map, by_page, is_done, file, path: path.to_owned(), _entry: entry };
    Ok(RegionWriter::new(Box::new(backing)))
}

/// Takes the file out of the set of open ones when the region goes.
struct OpenEntry((u64, u64));

impl Drop for OpenEntry {
    fn drop(&mut self) {
        open_regions().remove(&self.0);
    }
}

/// The open file of a region. A long log needs no descriptors: it is closed when it was synced and no more will be written.
struct Descriptor {
    file: Option<Arc<File>>,
    /// Whether the first sync is done, which makes length and reserved space durable too.
    is_synced: bool,
}

struct RealBacking {
    map: MmapRaw,
    /// Whether the system reads nothing ahead in it, see [`RealBacking::warm`].
    by_page: AtomicBool,
    /// No more will be written.
    is_done: AtomicBool,
    file: Mutex<Descriptor>,
    path: PathBuf,
    /// Declared after `map`, so dropped after it: the file counts as open until it is unmapped.
    _entry: OpenEntry,
}

// SAFETY: the mapping stays in place until `map` is dropped, its address does not change, nothing here reads or writes it except the kernel,
// and `OPEN` admits one mapping of a file per process. Another process that has the data directory's lock taken away from it,
// or a person who truncates the file by hand, is outside of what a program can rule out.
unsafe impl Backing for RealBacking {
    fn memory(&self) -> (NonNull<u8>, usize) {
        // A mapping is never at address zero: `mmap` reports failures apart from that, and the file is not empty.
        (NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling()), self.map.len())
    }

    fn sync(&self, range: Range<usize>, _published: usize) -> Result<(), DiskError> {
        // Held across the first sync, on purpose: a second one that skipped it would report what is not durable yet.
        let mut open = self.descriptor();
        if let (false, Some(file)) = (open.is_synced, &open.file) {
            file.sync_all().context("sync", &self.path)?;
            open.is_synced = true;
            if self.is_done.load(Ordering::SeqCst) {
                open.file = None;
            }
            return Ok(());
        }
        drop(open);
        self.map.flush_range(range.start, range.end - range.start).context("sync", &self.path)
    }

    fn warm(&self, range: Range<usize>) {
        // Before a page of a file is written the system reads it, and as many around it as the device reads ahead, 8 MB on some. There is nothing to
        // read, but it makes zeros of all of them: 20 ms in which, on a kernel that is built for servers, the thread does not let go of its processor.
        // After the last sync of a file that is done this is called once more.
        if !self.is_done.load(Ordering::SeqCst) && !self.by_page.swap(true, Ordering::Relaxed) {
            let _ = self.map.advise(Advice::Random);
        }
        // A hint: kernels before 5.14 do not know it, and then the appender takes the page faults itself.
        let _ = self.map.advise_range(Advice::PopulateWrite, range.start, range.end - range.start);
    }

    fn release(&self, range: Range<usize>) {
        if range.end == self.map.len() {
            self.is_done.store(true, Ordering::SeqCst);
            // Who reads it again, long after, wants it read ahead.
            if self.by_page.swap(false, Ordering::Relaxed) {
                let _ = self.map.advise(Advice::Normal);
            }
            let mut open = self.descriptor();
            if open.is_synced {
                open.file = None;
            }
        }
        // Of the last page the rest is in use.
        let end = range.end - range.end % rustix::param::page_size();
        if range.start >= end {
            return;
        }
        // SAFETY: the mapping is shared and has a file behind it. What was written to its pages belongs to the file already, dirty or not, so
        // the next access finds the same bytes; private memory, which this advice would clear, there is none.
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, end - range.start) };
    }

    fn write_out(&self, range: Range<usize>) {
        let Some(file) = self.descriptor().file.clone() else { return };
        let (from, len) = (range.start as c::off64_t, (range.end - range.start) as c::off64_t);
        // SAFETY: it takes a descriptor, which `file` keeps open, and numbers, and touches no memory. An error that it has is not lost: the next sync has it too.
        let _ = unsafe { c::sync_file_range(file.as_raw_fd(), from, len, c::SYNC_FILE_RANGE_WRITE) };
    }
}

impl RealBacking {
    fn descriptor(&self) -> MutexGuard<'_, Descriptor> {
        // Each change to it is a single assignment.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct FileLock {
    _file: File,
}

impl DirLock for FileLock {}
