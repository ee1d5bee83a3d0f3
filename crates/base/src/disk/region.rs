//! A mapped file with one appender and many readers.
//!
//! The bytes below the *published* length never change any more while the region is open, and anybody may read them;
//! the bytes from there on belong to the one [`RegionWriter`]. The published length only grows. It is stored with release
//! and loaded with acquire ordering, so whoever sees a length sees the bytes below it. That is the whole argument
//! for the soundness of the shared memory, and it is kept here and nowhere else.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::DiskError;

/// What stands behind a region's memory; a disk implements it.
///
/// # Safety
/// `memory` must give the same block on each call, and that block must stay valid for reads and writes, and be accessed by nobody except
/// through the one [`RegionWriter`] made from it and by `sync` below the length that it is given, until the value is dropped.
pub unsafe trait Backing: Send + Sync {
    /// The start and length of the memory.
    fn memory(&self) -> (NonNull<u8>, usize);

    /// Makes the bytes in `range` durable, all of which are below `published`. May write bytes around it as well.
    fn sync(&self, range: Range<usize>, published: usize) -> Result<(), DiskError>;

    /// Prepares the memory of `range` for being written without waiting. Only a hint; must not change contents.
    fn warm(&self, range: Range<usize>);

    /// Lets the process's own hold on the memory of `range` go; the next access brings it back from the file. Must not change contents. A range that
    /// ends with the file is the last that is written for now.
    fn release(&self, range: Range<usize>);

    /// Has the system begin to write the bytes of `range` to the disk. Only a hint; does not wait for the disk, as a rule.
    fn write_out(&self, range: Range<usize>);

    /// The bytes of `range` were written once more. For disks that cannot see it.
    fn rewritten(&self, _range: Range<usize>) {}
}

/// The shared side of a mapped file: reads what is published, and syncs it.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    published: AtomicUsize,
    /// [`Region::write_out`] has come so far.
    written_out: AtomicUsize,
    backing: Box<dyn Backing>,
}

// SAFETY: the memory is reached only by the rules of the module's header: below `published` it is immutable, from there on it belongs to the one
// writer; `Backing` is Send and Sync and keeps the memory valid as long as the region lives, on whatever thread it is dropped.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Length of the file in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the file has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes from the start may be read.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// The bytes of `range`, or `None` if not all of them are published.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.published() {
            return None;
        }
        // SAFETY: `range` lies below the published length, which is at most `len` (asserted in `publish`); those bytes are valid and do not
        // change while `self` lives, and the acquire load makes the writes to them visible here.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.end - range.start) })
    }

    /// Makes the published bytes of `range` durable (what is not published yet is left out). The name of a new file wants a sync of its
    /// directory besides.
    pub fn sync(&self, range: Range<usize>) -> Result<(), DiskError> {
        let published = self.published();
        let end = range.end.min(published);
        if range.start >= end {
            return Ok(());
        }
        self.backing.sync(range.start..end, published)
    }

    /// Prepares the memory of `range` for being written, so that the appender does not wait for page faults. A hint.
    pub fn warm(&self, range: Range<usize>) {
        let end = range.end.min(self.len);
        if range.start < end {
            self.backing.warm(range.start..end);
        }
    }

    /// Stops counting the memory of `range` as the process's. It can be read on, from the system's cache or the file, and nothing that was
    /// written is lost. A hint, which may leave the memory around the end. A range that ends with the file tells that no more will be written there soon.
    pub fn release(&self, range: Range<usize>) {
        let end = range.end.min(self.len);
        if range.start < end {
            self.backing.release(range.start..end);
        }
    }

    /// Has the system begin to write what is published below `to` to the disk: `step` bytes at most, from where the last call ended. Gives whether there is
    /// more. A hint: only [`Region::sync`] makes anything durable, but has less to do then. Whoever writes right above `to` may have to wait for the disk.
    pub fn write_out(&self, to: usize, step: usize) -> bool {
        let to = to.min(self.published());
        let from = self.written_out.load(Ordering::Relaxed);
        let end = to.min(from + step);
        if from >= end {
            return false;
        }
        self.written_out.store(end, Ordering::Relaxed);
        self.backing.write_out(from..end);
        end < to
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).field("published", &self.published()).finish()
    }
}

/// The one appender of a [`Region`].
#[derive(Debug)]
pub struct RegionWriter {
    region: Arc<Region>,
    /// The published length, which only this writer changes.
    published: usize,
}

impl RegionWriter {
    /// A region over `backing`, with nothing published. For implementations of [`super::Disk`].
    #[must_use]
    pub fn new(backing: Box<dyn Backing>) -> RegionWriter {
        let (base, len) = backing.memory();
        let region =
            Arc::new(Region { base, len, published: AtomicUsize::new(0), written_out: AtomicUsize::new(0), backing });
        RegionWriter { region, published: 0 }
    }

    /// The shared side.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The published length.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published
    }

    /// All bytes of the file, published or not.
    #[must_use]
    pub fn contents(&self) -> &[u8] {
        // SAFETY: only this writer writes, and it is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.region.base.as_ptr(), self.region.len) }
    }

    /// Writes `bytes` at `at`, without publishing them.
    ///
    /// # Panics
    /// If `at` lies below the published length or the bytes reach past the end: the caller's bookkeeping would be broken, and going on
    /// would change what readers hold.
    #[inline]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at >= self.published, "write at {at} below the published length {}", self.published);
        assert!(
            at <= self.region.len && bytes.len() <= self.region.len - at,
            "write of {} bytes at {at} past the end {}",
            bytes.len(),
            self.region.len
        );
        // SAFETY: the target lies inside the mapping and above the published length, so no reader has a slice of it, and `&mut self` rules out
        // a slice from `contents`; `bytes` therefore does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.region.base.as_ptr().add(at), bytes.len()) }
    }

    /// Writes zeros over every byte of `from..` that is not zero, in blocks, so that pages that are zero stay untouched. Gives the number of
    /// bytes from `from` to the last one that was not zero.
    ///
    /// # Panics
    /// As [`RegionWriter::write`].
    pub fn zero_from(&mut self, from: usize) -> usize {
        const BLOCK: usize = 4096;
        static ZEROS: [u8; BLOCK] = [0; BLOCK];
        let mut last = from;
        let mut at = from;
        while at < self.region.len {
            let end = self.region.len.min((at / BLOCK + 1) * BLOCK);
            // Indexing: at < end <= len.
            let used = self.contents()[at..end].iter().rposition(|&b| b != 0);
            if let Some(used) = used {
                last = at + used + 1;
                self.write(at, &ZEROS[..end - at]);
            }
            at = end;
        }
        last - from
    }

    /// Writes the bytes of `range` over themselves, so that the next sync writes them in any case. A system takes what it could not write for written: the sync
    /// that fails is the last one that knows of it.
    ///
    /// # Panics
    /// As [`RegionWriter::write`].
    pub fn rewrite(&mut self, range: Range<usize>) {
        let mut block = [0; 4096];
        let mut at = range.start;
        while at < range.end {
            let part = block.len().min(range.end - at);
            // Indexing: `write` asserts the same.
            block[..part].copy_from_slice(&self.contents()[at..at + part]);
            // Or the compiler could see that nothing changes.
            self.write(at, std::hint::black_box(&block[..part]));
            at += part;
        }
        self.region.backing.rewritten(range);
    }

    /// Makes the whole file durable, what is not published included.
    pub fn sync_all(&mut self) -> Result<(), DiskError> {
        // `&mut self` keeps the writer still, so for the time of the call every byte is as good as published.
        self.region.backing.sync(0..self.region.len, self.region.len)
    }

    /// Lets readers see everything below `to`.
    ///
    /// # Panics
    /// If `to` is less than what is published already, or lies past the end.
    #[inline]
    pub fn publish(&mut self, to: usize) {
        assert!(to >= self.published && to <= self.region.len, "publish {to} after {}", self.published);
        self.published = to;
        self.region.published.store(to, Ordering::Release);
    }
}
