//! A disk in memory that forgets, tears and fails as real ones may, by a seed.
//!
//! It keeps two versions of everything: what programs see, and what has been synced. A power loss makes of the two
//! what would be found afterwards. For tests; single operations are atomic under one lock.
//!
//! Invariant: the memory of a file that is open as a region is read only below the length that the region's owner
//! passes in as published; everything else of it is read only while the region is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::region::{Backing, RegionWriter};
use super::{DirEntry, DirLock, Disk, DiskError, DiskErrorKind};
use crate::random::Random;

/// A simulated disk. Clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    last_inode: u64,
    /// What programs see.
    names: BTreeMap<PathBuf, Entry>,
    /// What a power loss keeps for certain.
    synced_names: BTreeMap<PathBuf, Entry>,
    /// Changes of names that are not synced, oldest first.
    pending: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    open_regions: usize,
    operations: u64,
    /// Operations that still succeed, if a failure was ordered.
    successes_left: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Entry),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            NameChange::Link(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

#[derive(Debug)]
struct Inode {
    contents: Arc<Memory>,
    synced: Vec<u8>,
    open: bool,
    /// What a failed sync should have written and no later one will.
    missed: Vec<Range<usize>>,
}

/// A block of bytes that a region may write to through a pointer.
#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it is a plain block on the heap; who may access it when is governed by the rule in the module's header.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: Vec<u8>) -> Arc<Memory> {
        let block = Box::leak(bytes.into_boxed_slice());
        let len = block.len();
        Arc::new(Memory { base: NonNull::from(block).cast(), len })
    }

    /// # Safety
    /// Nobody may write to the bytes below `end` while the slice lives.
    unsafe fn below(&self, end: usize) -> &[u8] {
        // SAFETY: `new` made a block of `len` bytes; the caller rules out writers.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), end.min(self.len)) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let block = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.len);
        // SAFETY: the block was leaked from such a box in `new`, and this is the last owner.
        drop(unsafe { Box::from_raw(block) });
    }
}

impl Inode {
    fn new(bytes: Vec<u8>) -> Inode {
        Inode { contents: Memory::new(bytes), synced: Vec::new(), open: false, missed: Vec::new() }
    }

    /// All contents, of a file that is not open as a region.
    fn bytes(&self) -> &[u8] {
        assert!(!self.open, "contents of a file that is open as a region");
        // SAFETY: writers exist only while the file is open as a region, and that takes the lock of the state, which our caller holds.
        unsafe { self.contents.below(self.contents.len) }
    }
}

impl State {
    /// Counts one operation; fails it if that was ordered.
    fn step(&mut self, doing: &'static str, path: &Path) -> Result<(), DiskError> {
        self.operations += 1;
        match &mut self.successes_left {
            None => Ok(()),
            Some(0) => Err(DiskError::new(doing, path, DiskErrorKind::Other, "injected failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn file(&self, doing: &'static str, path: &Path) -> Result<u64, DiskError> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Dir) => Err(DiskError::new(doing, path, DiskErrorKind::Other, "is a directory")),
            None => Err(DiskError::new(doing, path, DiskErrorKind::NotFound, "no such file")),
        }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("every name's inode is kept as long as a name refers to it")
    }

    fn closed_file(&mut self, doing: &'static str, path: &Path) -> Result<&mut Inode, DiskError> {
        let number = self.file(doing, path)?;
        let inode = self.inode(number);
        if inode.open {
            return Err(DiskError::new(doing, path, DiskErrorKind::Busy, "the file is open as a region"));
        }
        Ok(inode)
    }

    fn need_parent(&self, doing: &'static str, path: &Path) -> Result<(), DiskError> {
        match path.parent() {
            Some(dir) if self.names.get(dir) == Some(&Entry::Dir) => Ok(()),
            _ => Err(DiskError::new(doing, path, DiskErrorKind::NotFound, "no such directory")),
        }
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|entry| match entry {
            Entry::File(inode) => self.inodes.get(inode),
            Entry::Dir => None,
        });
        files.map(|inode| inode.contents.len as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn need_space(&self, doing: &'static str, path: &Path, bytes: u64) -> Result<(), DiskError> {
        if bytes > self.free() {
            return Err(DiskError::new(doing, path, DiskErrorKind::Full, "no space left on the simulated disk"));
        }
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn create(&mut self, path: &Path, bytes: Vec<u8>) -> u64 {
        self.last_inode += 1;
        let number = self.last_inode;
        self.inodes.insert(number, Inode::new(bytes));
        self.change(NameChange::Link(path.to_owned(), Entry::File(number)));
        number
    }
}

impl SimDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `n` operations succeed and all later ones fail; `None` ends that. Writes to mapped memory are no operations.
    pub fn fail_after(&self, n: Option<u64>) {
        self.state().successes_left = n;
    }

    /// How many operations were tried so far: the range from which a test draws the `n` of [`SimDisk::fail_after`].
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Limits the sum of the lengths of all files, in bytes. Less than is used now is allowed.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// The sum of the lengths of all files, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The process died: everything written stays, ordered failures end, locks are free.
    ///
    /// # Panics
    /// If a region is still open, because then the process is not dead.
    pub fn kill(&self) {
        let mut state = self.state();
        assert_eq!(state.open_regions, 0, "drop every region before the process dies");
        state.successes_left = None;
        state.locks.clear();
    }

    /// The machine lost power: what was not synced is lost, kept or torn as `random` decides. Ordered failures end, locks are free.
    ///
    /// # Panics
    /// If a region is still open, because then the process is not dead.
    pub fn power_loss(&self, random: &mut Random) {
        self.kill();
        let mut guard = self.state();
        let state = &mut *guard;
        // Pure cases (all kept, all lost) are drawn as often as mixed ones, since chance would hardly ever make them.
        let fate = Fate::draw(random);
        let mut names = std::mem::take(&mut state.synced_names);
        for change in state.pending.drain(..) {
            if fate.keeps(random) {
                change.apply(&mut names);
            }
        }
        // A file whose name survived has its directories.
        let dirs: BTreeSet<PathBuf> =
            names.keys().flat_map(|path| path.ancestors().skip(1).map(Path::to_owned)).collect();
        for dir in dirs {
            names.entry(dir).or_insert(Entry::Dir);
        }
        let kept: BTreeSet<u64> = names
            .values()
            .filter_map(|entry| match entry {
                Entry::File(inode) => Some(*inode),
                Entry::Dir => None,
            })
            .collect();
        state.inodes.retain(|number, _| kept.contains(number));
        for inode in state.inodes.values_mut() {
            let found = tear(&inode.synced, inode.bytes(), random);
            inode.contents = Memory::new(found.clone());
            inode.synced = found;
            inode.missed.clear();
        }
        state.synced_names = names.clone();
        state.names = names;
    }

    /// The system needs its memory: what a failed sync of a region should have written is what it was before.
    ///
    /// # Panics
    /// If a region is open.
    pub fn forget_missed(&self) {
        let mut state = self.state();
        for inode in state.inodes.values_mut().filter(|inode| !inode.missed.is_empty()) {
            let mut bytes = inode.bytes().to_vec();
            for range in std::mem::take(&mut inode.missed) {
                for at in range {
                    bytes[at] = inode.synced.get(at).copied().unwrap_or(0);
                }
            }
            inode.contents = Memory::new(bytes);
        }
    }

    /// Changes one byte of a file where it lies, synced, as decay of the medium would. For tests.
    pub fn corrupt(&self, path: &Path, at: usize, change: u8) -> Result<(), DiskError> {
        let mut state = self.state();
        let inode = state.closed_file("corrupt", path)?;
        let mut bytes = inode.bytes().to_vec();
        let Some(byte) = bytes.get_mut(at) else {
            return Err(DiskError::new("corrupt", path, DiskErrorKind::Other, "past the end"));
        };
        *byte ^= change;
        inode.contents = Memory::new(bytes.clone());
        inode.synced = bytes;
        Ok(())
    }
}

/// What becomes of a group of unsynced changes.
enum Fate {
    Lost,
    Kept,
    Mixed,
}

impl Fate {
    fn draw(random: &mut Random) -> Fate {
        match random.below(4) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => Fate::Mixed,
        }
    }

    fn keeps(&self, random: &mut Random) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Mixed => random.one_in(2),
        }
    }
}

/// What is found of a file after a power loss: of its length and of each unit of its contents either version.
fn tear(synced: &[u8], written: &[u8], random: &mut Random) -> Vec<u8> {
    let fate = Fate::draw(random);
    let unit = if random.one_in(2) { 512 } else { 8 };
    let len = if fate.keeps(random) { written.len() } else { synced.len() };
    let mut found = vec![0u8; len];
    let common = len.min(synced.len());
    found[..common].copy_from_slice(&synced[..common]);
    for (i, new) in written[..len.min(written.len())].chunks(unit).enumerate() {
        let at = i * unit;
        // Indexing: the chunks cover a prefix of `found`.
        let old = &mut found[at..at + new.len()];
        if *old != *new && fate.keeps(random) {
            old.copy_from_slice(new);
        }
    }
    found
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.step("create directory", dir)?;
        for path in dir.ancestors() {
            if let Some(Entry::File(_)) = state.names.get(path) {
                return Err(DiskError::new("create directory", dir, DiskErrorKind::Exists, "a file has that name"));
            }
        }
        // The names are synced, so an earlier removal of one of them is over, too.
        state.pending.retain(|change| !matches!(change, NameChange::Unlink(path) if dir.starts_with(path)));
        for path in dir.ancestors() {
            state.names.insert(path.to_owned(), Entry::Dir);
            state.synced_names.insert(path.to_owned(), Entry::Dir);
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        let mut state = self.state();
        state.step("read", path)?;
        Ok(state.closed_file("read", path)?.bytes().to_vec())
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.need_parent("create", path)?;
        state.need_space("write", path, bytes.len() as u64)?;
        let failure = state.step("write", path);
        // A write that fails has still written something.
        let written = if failure.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let number = match state.names.get(path) {
            Some(_) => {
                state.closed_file("write", path)?;
                state.file("write", path)?
            }
            None => state.create(path, Vec::new()),
        };
        let inode = state.inode(number);
        inode.contents = Memory::new(written.to_vec());
        failure?;
        inode.synced = bytes.to_vec();
        Ok(())
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        let old_len = state.closed_file("write", path)?.contents.len as u64;
        let end = offset.saturating_add(bytes.len() as u64);
        state.need_space("write", path, end.saturating_sub(old_len))?;
        let failure = state.step("write", path);
        let written = if failure.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let inode = state.closed_file("write", path)?;
        let mut contents = inode.bytes().to_vec();
        let start = offset as usize;
        let end = start + written.len();
        contents.resize(contents.len().max(end), 0);
        // Indexing: it was just made long enough.
        contents[start..end].copy_from_slice(written);
        inode.contents = Memory::new(contents);
        failure
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.step("sync", path)?;
        let inode = state.closed_file("sync", path)?;
        inode.synced = inode.bytes().to_vec();
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
        let mut state = self.state();
        state.step("list", dir)?;
        if state.names.get(dir) != Some(&Entry::Dir) {
            return Err(DiskError::new("list", dir, DiskErrorKind::NotFound, "no such directory"));
        }
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let mut entries: Vec<DirEntry> = inside
            .map(|(path, entry)| DirEntry {
                name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                is_dir: *entry == Entry::Dir,
                len: match entry {
                    Entry::Dir => 0,
                    Entry::File(inode) => state.inodes.get(inode).map_or(0, |inode| inode.contents.len as u64),
                },
            })
            .collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.step("remove", path)?;
        state.file("remove", path)?;
        state.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.step("remove directory", dir)?;
        let inside: Vec<PathBuf> = state.names.keys().filter(|path| path.starts_with(dir)).cloned().collect();
        for path in inside.into_iter().rev() {
            state.change(NameChange::Unlink(path));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.step("rename", from)?;
        let inode = state.file("rename", from)?;
        state.need_parent("rename", to)?;
        if state.names.get(to) == Some(&Entry::Dir) {
            return Err(DiskError::new("rename", from, DiskErrorKind::Exists, "a directory has the new name"));
        }
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), Entry::File(inode)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.step("sync", dir)?;
        if state.names.get(dir) != Some(&Entry::Dir) {
            return Err(DiskError::new("sync", dir, DiskErrorKind::NotFound, "no such directory"));
        }
        let (now, later) = std::mem::take(&mut state.pending).into_iter().partition(|change| change.touches(dir));
        state.pending = later;
        let now: Vec<NameChange> = now;
        for change in now {
            change.apply(&mut state.synced_names);
        }
        Ok(())
    }

    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        let mut state = self.state();
        state.step("examine the file system of", path)?;
        Ok(state.free())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirLock>, DiskError> {
        let mut state = self.state();
        state.step("lock", path)?;
        state.need_parent("lock", path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(DiskError::new("lock", path, DiskErrorKind::Busy, "somebody else holds the lock"));
        }
        if !state.names.contains_key(path) {
            state.create(path, Vec::new());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn create_region(&self, path: &Path, len: usize) -> Result<RegionWriter, DiskError> {
        let mut state = self.state();
        state.step("create", path)?;
        state.need_parent("create", path)?;
        if state.names.contains_key(path) {
            return Err(DiskError::new("create", path, DiskErrorKind::Exists, "the name is taken"));
        }
        if len == 0 {
            return Err(DiskError::new("create", path, DiskErrorKind::Other, "a region must not be empty"));
        }
        state.need_space("reserve space for", path, len as u64)?;
        let number = state.create(path, vec![0; len]);
        Ok(self.open(&mut state, number, path))
    }

    fn open_region(&self, path: &Path) -> Result<RegionWriter, DiskError> {
        let mut state = self.state();
        state.step("open", path)?;
        state.closed_file("map", path)?;
        let number = state.file("map", path)?;
        if state.inode(number).contents.len == 0 {
            return Err(DiskError::new("map", path, DiskErrorKind::Other, "the file is empty"));
        }
        Ok(self.open(&mut state, number, path))
    }
}

impl SimDisk {
    fn open(&self, state: &mut State, number: u64, path: &Path) -> RegionWriter {
        state.open_regions += 1;
        let inode = state.inode(number);
        inode.open = true;
        let memory = inode.contents.clone();
        RegionWriter::new(Box::new(SimBacking { disk: self.clone(), number, memory, path: path.to_owned() }))
    }
}

struct SimBacking {
    disk: SimDisk,
    number: u64,
    memory: Arc<Memory>,
    path: PathBuf,
}

// SAFETY: the block lives as long as `memory`, at one address. While the file is marked open, nothing but `sync` reads it (`Inode::bytes` asserts
// that), below the published length, and no second region of it is made.
unsafe impl Backing for SimBacking {
    fn memory(&self) -> (NonNull<u8>, usize) {
        (self.memory.base, self.memory.len)
    }

    fn sync(&self, range: Range<usize>, published: usize) -> Result<(), DiskError> {
        let mut state = self.disk.state();
        let step = state.step("sync", &self.path);
        // The inode may be gone after the name was removed; there is nothing to make durable then.
        if let Some(inode) = state.inodes.get_mut(&self.number) {
            if step.is_err() {
                inode.missed.push(range);
                return step;
            }
            // SAFETY: bytes below the published length are not written any more.
            let bytes = unsafe { self.memory.below(published) };
            inode.synced.resize(self.memory.len, 0);
            let mut at = range.start;
            // In order, so that what lies between them is found.
            inode.missed.sort_unstable_by_key(|missed| missed.start);
            for missed in &inode.missed {
                let end = missed.start.clamp(at, range.end.max(at));
                inode.synced[at..end].copy_from_slice(&bytes[at..end]);
                at = at.max(missed.end);
            }
            if at < range.end {
                inode.synced[at..range.end].copy_from_slice(&bytes[at..range.end]);
            }
        }
        step
    }

    fn rewritten(&self, range: Range<usize>) {
        if let Some(inode) = self.disk.state().inodes.get_mut(&self.number) {
            let rest = std::mem::take(&mut inode.missed).into_iter().flat_map(|missed| {
                let before = missed.start..missed.end.min(range.start);
                [before, missed.start.max(range.end)..missed.end]
            });
            inode.missed = rest.filter(|missed| missed.start < missed.end).collect();
        }
    }

    fn warm(&self, _range: Range<usize>) {}

    fn release(&self, _range: Range<usize>) {}

    fn write_out(&self, _range: Range<usize>) {}
}

impl Drop for SimBacking {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.open_regions -= 1;
        if let Some(inode) = state.inodes.get_mut(&self.number) {
            inode.open = false;
        }
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}
