//! The files that RocksDB reads past the page cache: opened and read here, so that reads of many rows can be handed to the system together.
//!
//! RocksDB asks for one block at a time and waits for it. [`together`](crate::together) turns that round: while a thread plans, a read of what is not
//! there yet is noted and put off, and RocksDB gives up on the row; once what was noted has been read, it is asked for the row again.
//!
//! The C++ side is `files.cc`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rust_rocksdb::{Env, ffi_raw::rocksdb_env_t};
use rustix::io::Errno;

use crate::together::{self, Asked};

/// A file that is open for direct reads.
#[derive(Debug)]
pub(crate) struct File(pub(crate) std::fs::File);

/// What a read gives that has been put off.
const LATER: i64 = i64::MIN;

unsafe extern "C" {
    fn ardb_env_new() -> *mut rocksdb_env_t;
}

/// RocksDB's environment, but for these files.
pub(crate) fn environment() -> Env {
    // SAFETY: the environment was made for whoever asks, and is handed on at once.
    unsafe { Env::from_raw(ardb_env_new()) }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(direct).open(path)
}

fn code(error: &io::Error) -> c_int {
    error.raw_os_error().filter(|code| *code > 0).unwrap_or(5)
}

/// Opens the file at `path` for direct reads. Null, with the system's error in `error`, if that fails.
///
/// # Safety
/// `path` is a string that ends with a zero, and `error` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn ardb_file_open(path: *const c_char, error: *mut c_int) -> *const c_void {
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    match open(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))) {
        Ok(file) => Arc::into_raw(Arc::new(File(file))).cast(),
        Err(failed) => {
            // SAFETY: the caller's promise.
            unsafe { *error = code(&failed) };
            std::ptr::null()
        }
    }
}

/// Reads `length` bytes at `offset`, or fewer at the end of the file, to `into`. Gives how many, or the system's error as a negative number, or [`LATER`].
///
/// # Safety
/// `file` is from [`ardb_file_open`] and still open; `into` has room for `length` bytes, and is aligned as direct reads require.
#[unsafe(no_mangle)]
unsafe extern "C" fn ardb_file_read(file: *const c_void, offset: u64, length: usize, into: *mut c_char) -> i64 {
    let file: *const File = file.cast();
    // SAFETY: the pointer is from `Arc::into_raw`, and the count that belongs to it is only given up in `ardb_file_close`.
    let file = ManuallyDrop::new(unsafe { Arc::from_raw(file) });
    // SAFETY: the caller's promise, and nobody else has that memory before this returns.
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<MaybeUninit<u8>>(), length) };
    match together::ask(&file, offset, into) {
        Asked::Read(got) => got as i64,
        Asked::Later => LATER,
        Asked::Unplanned => match read(&file.0, offset, into) {
            Ok(got) => got as i64,
            Err(error) => -i64::from(code(&error)),
        },
    }
}

fn read(file: &std::fs::File, offset: u64, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match rustix::io::pread(file, &mut into[got..], offset + got as u64) {
            Ok(([], _)) => break,
            Ok((more, _)) => {
                got += more.len();
                // The system reads whole blocks, but for the last one of the file.
                if !got.is_multiple_of(together::ALIGNMENT) {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(got)
}

/// Closes the file; the system does once nobody reads it any more.
///
/// # Safety
/// `file` is from [`ardb_file_open`], and is not used again.
#[unsafe(no_mangle)]
unsafe extern "C" fn ardb_file_close(file: *const c_void) {
    // SAFETY: the caller's promise: this is the count that `Arc::into_raw` handed out.
    drop(unsafe { Arc::from_raw(file.cast::<File>()) });
}
