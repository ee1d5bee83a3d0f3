//! RocksDB's share of the system's allocator, from which its cache and its files in the making come.
//!
//! The GNU allocator gives each thread a heap of its own, and a heap keeps nearly all that it ever held. Blocks of the cache are read by one thread and
//! freed by another, so every heap grows to the size of the whole cache: three heaps of 52 MB for a cache of 50. One heap for all
//! takes one cache; what lies free inside it after a commit is handed back to the system.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_int;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        fn malloc_trim(pad: usize) -> c_int;
    }

    /// `M_ARENA_MAX` of `malloc.h`: the most heaps there may be.
    const ARENA_MAX: c_int = -8;

    pub fn one_heap() {
        // SAFETY: `mallopt` may be called at any time and from any thread; it takes the allocator's lock. It fails, without consequences,
        // on what it does not know.
        unsafe { mallopt(ARENA_MAX, 1) };
    }

    pub fn trim() {
        // SAFETY: `malloc_trim` may be called at any time and from any thread; it touches free memory only.
        unsafe { malloc_trim(0) };
    }
}

/// Makes threads share one heap. Heaps that there are already stay, so this comes before RocksDB starts any threads.
pub(crate) fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::one_heap();
}

/// Hands free memory back to the system.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::trim();
}
