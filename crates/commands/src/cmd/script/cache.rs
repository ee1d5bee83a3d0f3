//! What outlives a script: the interpreter, the compiled scripts by their SHA1, and the state of the one that runs.
//!
//! Scripts run under the writer lock, so the interpreter's mutex is never waited for; what other threads ask (SCRIPT KILL, SCRIPT EXISTS,
//! INFO) stands outside of it. The number of scripts that EVAL left here is bounded: the ones unused for longest go. What SCRIPT LOAD put
//! here stays until SCRIPT FLUSH, since its caller relies on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::interpreter::Interpreter;
use super::shebang::ScriptFlags;

/// How many scripts EVAL may leave in the cache.
pub const MAX_EVAL_SCRIPTS: usize = 10_000;
/// How many go at once when there are too many, so that the search for the oldest is paid by many EVALs.
const EVICTED_AT_ONCE: usize = MAX_EVAL_SCRIPTS / 8;

/// The name of a script: its SHA1 in lower-case hexadecimal digits.
pub type Sha = [u8; 40];

/// A compiled script.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// Its place in the interpreter's table of functions.
    pub slot: i64,
    /// What it says of itself.
    pub flags: ScriptFlags,
}

struct Entry {
    script: Compiled,
    loaded: bool,
    used: u64,
}

/// The compiled scripts.
#[derive(Default)]
pub struct Cache {
    by_sha: HashMap<Sha, Entry>,
    from_eval: usize,
    uses: u64,
    free: Vec<i64>,
    highest: i64,
}

impl Cache {
    /// The script, marked as used now.
    pub fn find(&mut self, sha: &Sha) -> Option<Compiled> {
        self.uses += 1;
        let entry = self.by_sha.get_mut(sha)?;
        entry.used = self.uses;
        Some(entry.script)
    }

    /// Whether it is there.
    pub fn contains(&self, sha: &Sha) -> bool {
        self.by_sha.contains_key(sha)
    }

    /// Lets a script stay until SCRIPT FLUSH.
    pub fn keep(&mut self, sha: &Sha) {
        if let Some(entry) = self.by_sha.get_mut(sha)
            && !entry.loaded
        {
            entry.loaded = true;
            self.from_eval -= 1;
        }
    }

    /// A place for one more function.
    pub fn new_slot(&mut self) -> i64 {
        self.free.pop().unwrap_or_else(|| {
            self.highest += 1;
            self.highest
        })
    }

    /// A place from [`Cache::new_slot`] is not needed after all.
    pub fn give_back(&mut self, slot: i64) {
        self.free.push(slot);
    }

    /// Adds a script that EVAL brought; the slots of those that had to go for it are added to `evicted`.
    pub fn insert(&mut self, sha: Sha, script: Compiled, evicted: &mut Vec<i64>) {
        if self.from_eval >= MAX_EVAL_SCRIPTS {
            let mut ages: Vec<(u64, Sha)> =
                self.by_sha.iter().filter(|(_, e)| !e.loaded).map(|(sha, e)| (e.used, *sha)).collect();
            ages.sort_unstable();
            for (_, old) in ages.iter().take(EVICTED_AT_ONCE) {
                if let Some(entry) = self.by_sha.remove(old) {
                    self.from_eval -= 1;
                    self.free.push(entry.script.slot);
                    evicted.push(entry.script.slot);
                }
            }
        }
        self.uses += 1;
        if self.by_sha.insert(sha, Entry { script, loaded: false, used: self.uses }).is_none() {
            self.from_eval += 1;
        }
    }
}

/// The state of the script that runs, as other threads see it.
#[derive(Debug, Default)]
pub struct Control {
    /// One runs.
    pub running: AtomicBool,
    /// It has called a command that writes.
    pub wrote: AtomicBool,
    /// It came from the master (or the log): it must run to its end.
    pub from_stream: AtomicBool,
    /// It was told to stop and will.
    pub killed: AtomicBool,
    /// When it began, by the shared clock, ms.
    pub started: AtomicU64,
    /// It speaks RESP3 with the commands that it calls.
    pub resp3: AtomicBool,
}

/// Scripts known by their SHA1, and what runs them.
#[derive(Default)]
pub struct Scripts {
    /// Made by the first script. Used under the writer lock only.
    pub(super) interpreter: Mutex<Option<Interpreter>>,
    pub(super) cache: Mutex<Cache>,
    pub(super) control: Arc<Control>,
    pub(super) memory: AtomicUsize,
}

impl Scripts {
    /// How many scripts are cached, for INFO.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cache.lock().by_sha.len()
    }

    /// Bytes that the interpreter held after the last script, for INFO.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Whether the script that runs has changed nothing and comes from a client.
    #[must_use]
    pub fn may_be_killed(&self) -> bool {
        !self.control.wrote.load(Ordering::SeqCst) && !self.control.from_stream.load(Ordering::SeqCst)
    }

    /// Whether a script runs now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.control.running.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_eval_go_when_there_are_too_many_and_loaded_ones_stay() {
        let mut cache = Cache::default();
        let sha = |n: usize| -> Sha {
            let mut sha = [b'0'; 40];
            sha[..8].copy_from_slice(format!("{n:08x}").as_bytes());
            sha
        };
        let mut evicted = Vec::new();
        for n in 0..MAX_EVAL_SCRIPTS {
            let slot = cache.new_slot();
            cache.insert(sha(n), Compiled { slot, flags: ScriptFlags::default() }, &mut evicted);
        }
        cache.keep(&sha(0));
        assert!(cache.find(&sha(1)).is_some());
        assert!(evicted.is_empty());
        for n in MAX_EVAL_SCRIPTS..MAX_EVAL_SCRIPTS + 2 {
            let slot = cache.new_slot();
            cache.insert(sha(n), Compiled { slot, flags: ScriptFlags::default() }, &mut evicted);
        }
        assert_eq!(evicted.len(), EVICTED_AT_ONCE);
        assert!(cache.contains(&sha(0)) && cache.contains(&sha(1)) && !cache.contains(&sha(2)));
        assert!(evicted.contains(&cache.new_slot()), "slots are used again");
    }
}
