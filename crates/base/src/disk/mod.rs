//! The trait behind which every file of the log, of the state and of the memory engine lives, so that tests can lose what
//! was not synced.
//!
//! [`RealDisk`] is the file system. [`SimDisk`] is a seeded model of one that loses, keeps or tears what was not synced when its
//! machine loses power. Small files are read and written whole; segments of the log are [`Region`]s, which are
//! preallocated and mapped.
//!
//! What a caller may rely on, with either disk:
//! - A file's contents survive a power loss only from the moment a sync of them returned; until then each 8-byte word
//!   of what was written may be old or new, on its own.
//! - A name (creation, removal, rename) survives only from the moment [`Disk::sync_dir`] of its directory returned;
//!   until then each change of a name may have happened or not, on its own. A rename is never half done.
//! - A process that merely dies loses nothing that was written.
//! - What a sync that failed should have written is lost for later syncs, which succeed all the same, unless it is written once more
//!   ([`RegionWriter::rewrite`]); the system may forget it at any moment.

mod real;
mod region;
mod sim;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use real::RealDisk;
pub use region::{Backing, Region, RegionWriter};
pub use sim::SimDisk;

/// What kind of failure it was, as far as callers treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// There is no such file or directory.
    NotFound,
    /// The name is taken already.
    Exists,
    /// No space is left, or a quota is used up.
    Full,
    /// Somebody else holds it: a lock, or a region that is open already.
    Busy,
    /// Anything else.
    Other,
}

/// An operation on a file or directory failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {doing} {}: {why}", path.display())]
pub struct DiskError {
    /// What was attempted, as a verb: "create", "sync".
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The kind, for decisions.
    pub kind: DiskErrorKind,
    /// The reason, for people.
    pub why: String,
}

impl DiskError {
    /// An error that is made from a kind and a text.
    pub fn new(doing: &'static str, path: &Path, kind: DiskErrorKind, why: impl fmt::Display) -> DiskError {
        DiskError { doing, path: path.to_owned(), kind, why: why.to_string() }
    }

    /// An error that the system reported.
    pub fn from_io(doing: &'static str, path: &Path, error: &io::Error) -> DiskError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => DiskErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => DiskErrorKind::Exists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                DiskErrorKind::Full
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => DiskErrorKind::Busy,
            _ => DiskErrorKind::Other,
        };
        DiskError::new(doing, path, kind, error)
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: String,
    /// Whether it names a directory.
    pub is_dir: bool,
    /// Length of the file in bytes; 0 for a directory.
    pub len: u64,
}

/// A directory lock, held until it is dropped or the process dies.
pub trait DirLock: Send + Sync + fmt::Debug {}

/// A file system. All methods may be called from any thread; each may block on I/O.
///
/// A file that is open as a [`Region`] must not be touched by [`Disk::write_at`] or [`Disk::write_file`].
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates a directory and those above it; one that exists is no error. The names are synced.
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError>;

    /// Reads a whole file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError>;

    /// Makes `bytes` the whole contents of a file, which is created if need be, and syncs contents (not the name: see
    /// [`Disk::sync_dir`]). A crash in the middle may leave any mixture; to replace a file atomically write another one,
    /// rename it over the first and sync the directory.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError>;

    /// Writes over part of an existing file, which grows if need be. Durable only after [`Disk::sync_file`].
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes a file's contents and length durable.
    fn sync_file(&self, path: &Path) -> Result<(), DiskError>;

    /// The names in a directory, in order.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError>;

    /// Removes a file. Regions of it that are open stay readable.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Removes a directory and everything in it; one that does not exist is no error.
    fn remove_dir_all(&self, dir: &Path) -> Result<(), DiskError>;

    /// Gives a file another name, in place of whatever file had that. Not for directories.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Makes the names in a directory durable: creations, removals and renames.
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError>;

    /// Bytes that can still be written to the file system that holds `path`.
    fn free_space(&self, path: &Path) -> Result<u64, DiskError>;

    /// Takes the lock file `path` (created if need be) for this process alone, or fails with [`DiskErrorKind::Busy`].
    fn lock(&self, path: &Path) -> Result<Box<dyn DirLock>, DiskError>;

    /// Creates a file of `len` zero bytes (not 0) whose space is reserved, and maps it. The name must be free. Fails with
    /// [`DiskErrorKind::Full`], leaving no file behind, if there is no space; writes to the region then never fail for that.
    fn create_region(&self, path: &Path, len: usize) -> Result<RegionWriter, DiskError>;

    /// Maps an existing file as it is. Nothing of it is published yet. Fails with [`DiskErrorKind::Busy`] if a region of the file
    /// is open.
    fn open_region(&self, path: &Path) -> Result<RegionWriter, DiskError>;
}
