//! The slow log: the last commands that took longer than a limit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use ardb_commands::Session;
use parking_lot::Mutex;

use crate::clients::ClientInfo;

/// Arguments that an entry keeps, and bytes of each.
const MOST_ARGS: usize = 32;
const MOST_BYTES: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counts up.
    pub id: u64,
    /// When it began, seconds since 1970.
    pub at: i64,
    /// Microseconds.
    pub took: u64,
    /// Its arguments, cut short.
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub addr: String,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The log.
pub struct Slowlog {
    /// Microseconds from which a command is slow; negative: none is.
    pub limit: AtomicI64,
    /// Entries kept.
    pub most: AtomicUsize,
    next: AtomicU64,
    entries: Mutex<VecDeque<Entry>>,
}

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog {
            limit: AtomicI64::new(10_000),
            most: AtomicUsize::new(128),
            next: AtomicU64::new(0),
            entries: Mutex::new(VecDeque::new()),
        }
    }
}

impl Slowlog {
    /// Notes a command that began at `start` (us since 1970) and took `took` us, if that was long.
    pub fn consider(&self, start: i64, took: u64, args: &[&[u8]], info: &ClientInfo, session: &Session) {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit < 0 || took < limit as u64 {
            return;
        }
        let entry = Entry {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            at: start / 1_000_000,
            took,
            args: shortened(args),
            addr: info.addr.clone(),
            name: session.name.clone(),
        };
        let most = self.most.load(Ordering::Relaxed);
        let mut entries = self.entries.lock();
        entries.push_front(entry);
        entries.truncate(most);
    }

    /// The newest `count` entries, all if it is `None`.
    #[must_use]
    pub fn newest(&self, count: Option<usize>) -> Vec<Entry> {
        let entries = self.entries.lock();
        entries.iter().take(count.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.entries.lock().clear();
    }

    /// Forgets what is beyond the limit, after it has changed.
    pub fn trim(&self) {
        self.entries.lock().truncate(self.most.load(Ordering::Relaxed));
    }
}

fn shortened(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if args.len() > MOST_ARGS { MOST_ARGS - 1 } else { args.len() };
    let mut out: Vec<Vec<u8>> = args[..shown]
        .iter()
        .map(|arg| {
            if arg.len() <= MOST_BYTES {
                return arg.to_vec();
            }
            let mut cut = arg[..MOST_BYTES].to_vec();
            cut.extend_from_slice(format!("... ({} more bytes)", arg.len() - MOST_BYTES).as_bytes());
            cut
        })
        .collect();
    if shown < args.len() {
        out.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn long_commands_are_cut() {
        let long = [b'x'; 200];
        let mut args: Vec<&[u8]> = vec![&long];
        assert_eq!(shortened(&args)[0], [&[b'x'; 128][..], b"... (72 more bytes)"].concat());
        args.resize(40, b"a");
        let cut = shortened(&args);
        assert_eq!(cut.len(), 32);
        assert_eq!(cut[31], b"... (9 more arguments)");
    }
}
