//! The sorted files of one commit, on their way into the database.
//!
//! They are built in a directory beside the database, on the same file system, so that taking them in is a hard link. Invariants:
//! whatever is in the directory when an engine opens is rubbish; files of a commit that does not come to its end are removed.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ardb_engine::{ChangeSource, EngineError};
use rust_rocksdb::{EnvOptions, Options, SstFileWriter};

use crate::failed;

/// Where the files are built, and how.
pub(crate) struct Staging {
    dir: PathBuf,
    options: Options,
    file_options: EnvOptions,
    file_bytes: u64,
}

/// The files of one commit in the order in which they take effect. They are removed when this is dropped.
pub(crate) struct Staged {
    pub(crate) files: Vec<PathBuf>,
}

impl Staged {
    /// The database has the files now.
    pub(crate) fn taken(mut self) {
        self.files.clear();
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for file in &self.files {
            // At worst it stays until the next open, which removes it.
            let _ = fs::remove_file(file);
        }
    }
}

impl Staging {
    pub(crate) fn new(dir: PathBuf, options: Options, file_bytes: u64) -> Staging {
        let mut file_options = EnvOptions::default();
        // Written back as it goes, so that the sync at the end is short.
        file_options.set_bytes_per_sync(1 << 20);
        Staging { dir, options, file_options, file_bytes }
    }

    /// Removes what an interrupted commit left. Only the holder of the database's lock may.
    pub(crate) fn clear(&self) -> Result<(), EngineError> {
        let broken = |error| EngineError::new(format!("clear {}", self.dir.display()), error);
        for entry in fs::read_dir(&self.dir).map_err(broken)? {
            fs::remove_file(entry.map_err(broken)?.path()).map_err(broken)?;
        }
        Ok(())
    }

    /// Writes `ranges` and `rows` as files, synced. None if there is nothing to write.
    ///
    /// The ranges are in the first file. Within a file a deleted range does not touch its rows, and a file later in the list
    /// takes effect after those before it, so all rows of the commit stay whatever ranges cover them.
    pub(crate) fn write(
        &self,
        ranges: &[Range<Vec<u8>>],
        rows: &mut dyn ChangeSource,
    ) -> Result<Option<Staged>, EngineError> {
        let mut staged = Staged { files: Vec::new() };
        let mut writer = SstFileWriter::create_with_env_options(&self.options, &self.file_options);
        let mut open: Option<PathBuf> = None;
        for range in ranges.iter().filter(|range| range.start < range.end) {
            let path = self.opened(&mut open, &mut writer, &mut staged)?;
            writer.delete_range(&range.start, &range.end).map_err(|error| failed(format!("write {path}"), &error))?;
        }
        let mut bytes = 0;
        while let Some((key, value)) = rows.next_change() {
            let path = self.opened(&mut open, &mut writer, &mut staged)?;
            match value {
                Some(value) => writer.put(key, value),
                None => writer.delete(key),
            }
            .map_err(|error| failed(format!("write {path}"), &error))?;
            bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
            if bytes >= self.file_bytes {
                finish(&mut open, &mut writer)?;
                bytes = 0;
            }
        }
        finish(&mut open, &mut writer)?;
        Ok((!staged.files.is_empty()).then_some(staged))
    }

    /// Opens the commit's next file unless one is open. Its path, for messages.
    fn opened<'p>(
        &self,
        open: &'p mut Option<PathBuf>,
        writer: &mut SstFileWriter<'_>,
        staged: &mut Staged,
    ) -> Result<std::path::Display<'p>, EngineError> {
        if open.is_none() {
            let path = self.dir.join(format!("{:06}.sst", staged.files.len()));
            // On the list before it exists, so that a failure on the way removes it.
            staged.files.push(path.clone());
            writer.open(&path).map_err(|error| failed(format!("create {}", path.display()), &error))?;
            *open = Some(path);
        }
        Ok(open.as_deref().unwrap_or(Path::new("")).display())
    }
}

/// Finishes and syncs the open file, if there is one.
fn finish(open: &mut Option<PathBuf>, writer: &mut SstFileWriter<'_>) -> Result<(), EngineError> {
    match open.take() {
        Some(path) => writer.finish().map_err(|error| failed(format!("finish {}", path.display()), &error)),
        None => Ok(()),
    }
}
