//! What the disk gives without a server: random reads of 4 KB past the page cache, by many threads.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::histogram::Histogram;
use ardb_e2e::{Result, error};
use rustix::fs::{Mode, OFlags};

/// Bytes of a read, and what its place is a multiple of.
const PAGE: usize = 4096;

/// What came of it.
pub struct Reads {
    pub threads: usize,
    /// Reads a second.
    pub rate: f64,
    pub latency: Histogram,
}

/// The largest files of a folder and the folders in it, until they have so many bytes together.
fn largest(dir: &Path, enough: u64) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)?.flatten() {
            // A file may go meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sst") {
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let mut sum = 0;
    found.retain(|(_, size)| {
        let wanted = sum < enough && *size >= PAGE as u64;
        sum += size;
        wanted
    });
    Ok(found)
}

/// Reads random pages of the server's largest files.
///
/// # Errors
/// If there are none, or the file system cannot be read past its cache.
pub fn read(dir: &Path, threads: usize, time: Duration, seed: u64) -> Result<Reads> {
    let files: Vec<(File, u64)> = largest(dir, u64::MAX)?
        .into_iter()
        .filter_map(|(path, size)| {
            let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
            Some((File::from(file.ok()?), size / PAGE as u64))
        })
        .collect();
    let pages: u64 = files.iter().map(|(_, pages)| pages).sum();
    if pages == 0 {
        return Err(error(format!("no file in {} can be read past the cache", dir.display())));
    }
    let begin = Instant::now();
    let results: Vec<Result<Histogram>> = std::thread::scope(|scope| {
        let reader = |at: usize| {
            let files = &files;
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_mul(1000) + at as u64);
                let mut latency = Histogram::default();
                let mut buffer = vec![0u8; 2 * PAGE];
                let from = buffer.as_ptr().align_offset(PAGE);
                while begin.elapsed() < time {
                    let mut page = random.below(pages);
                    let Some((file, _)) = files.iter().find(|(_, count)| {
                        let here = page < *count;
                        page -= if here { 0 } else { *count };
                        here
                    }) else {
                        continue;
                    };
                    let start = Instant::now();
                    file.read_exact_at(&mut buffer[from..from + PAGE], page * PAGE as u64)?;
                    latency.record(start.elapsed());
                }
                Ok(latency)
            })
        };
        let threads: Vec<_> = (0..threads).map(reader).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(error("a reader panicked")))).collect()
    });
    let took = begin.elapsed().as_secs_f64();
    let mut latency = Histogram::default();
    for result in results {
        latency.add(&result?);
    }
    Ok(Reads { threads, rate: latency.count() as f64 / took, latency })
}
