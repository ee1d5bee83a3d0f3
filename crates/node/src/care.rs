//! Deciding which rows are looked at, or at least asked for, before they are needed.
//!
//! Rows may come from the disk, and then they are looked at before the writer lock is taken. Looking at a row that is in memory already costs nearly as much as the
//! command that needs it, so while hardly any row turns out to come from the disk only a sample is looked at; a few that do bring the next thousands
//! under care. Rows that are in memory come from there into the processor's cache, all together sooner than one by one ([`Foresight`]).

use std::time::Duration;

use ardb_base::hash::{key_hash, member_hash};
use ardb_base::id::{KeyspaceId, UnixMs};
use ardb_commands::Command;
use ardb_commands::table::Group;
use ardb_engine::Rows;
use ardb_store::ReadTxn;
use ardb_types::{At, KeyRow};

/// Decides which keys are looked at before the lock is taken.
#[derive(Debug)]
pub struct Care {
    /// A row for which the engine takes longer came from the disk; or the thread was interrupted.
    slow_after: Duration,
    /// Keys that are all looked at from here on.
    left: u32,
    /// Keys passed over since the last look.
    passed: u32,
    /// Looks of the current window, and how many of them were slow.
    looks: u32,
    slow: u32,
}

impl Care {
    /// One key in so many is looked at while all rows are in memory.
    const SAMPLE: u32 = 8;
    /// Looks that make a window, and slow ones in it that cannot be interruptions.
    const WINDOW: u32 = 64;
    const MANY: u32 = 3;
    /// Keys looked at after such a window.
    const AFTER: u32 = 4096;

    /// Nothing is known yet. What the engine takes longer for comes from the disk.
    #[must_use]
    pub fn new(slow_after: Duration) -> Care {
        Care { slow_after, left: 0, passed: 0, looks: 0, slow: 0 }
    }

    /// What the engine takes longer for comes from the disk.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        self.slow_after
    }

    /// Whether rows come from the disk these days, so that every key is looked at.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.left > 0
    }

    /// Whether to look at the next key.
    #[must_use]
    pub fn look(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return true;
        }
        self.passed += 1;
        if self.passed >= Self::SAMPLE {
            self.passed = 0;
            return true;
        }
        false
    }

    /// Looks at the row of a key. Gives what [`Measured::end`] does.
    pub fn look_at(
        view: &ReadTxn<'_>,
        db: u32,
        key: &[u8],
        slow_after: Duration,
        clock: fn() -> Duration,
    ) -> (u32, u32) {
        let measured = Measured::begin(clock);
        // What cannot be read here will be reported by the command itself.
        let _ = view.get(At::new(view, db, key, UnixMs::MIN).row());
        measured.end(slow_after)
    }

    /// So many were looked at, of which so many were slow.
    pub fn count(&mut self, looks: u32, slow: u32) {
        self.looks += looks;
        self.slow += slow;
        if self.slow >= Self::MANY {
            self.left = Self::AFTER;
        }
        if self.looks >= Self::WINDOW || self.slow >= Self::MANY {
            (self.looks, self.slow) = (0, 0);
        }
    }
}

/// How long the rows take that this thread asks the engine for. Nothing but the engine waits for the disk; whatever else takes long was interrupted.
#[derive(Debug)]
pub struct Measured {
    reads: u64,
    started: Duration,
    clock: fn() -> Duration,
}

impl Measured {
    /// From here.
    #[must_use]
    pub fn begin(clock: fn() -> Duration) -> Measured {
        Measured { reads: ardb_store::engine_reads(), started: clock(), clock }
    }

    /// Rows that the engine was asked for since, and how many of them came from the disk: all, if they took longer on average.
    #[must_use]
    pub fn end(self, slow_after: Duration) -> (u32, u32) {
        let reads = u32::try_from(ardb_store::engine_reads() - self.reads).unwrap_or(u32::MAX);
        if reads == 0 {
            return (0, 0);
        }
        let each = (self.clock)().saturating_sub(self.started) / reads;
        (reads, if each >= slow_after { reads } else { 0 })
    }
}

/// Keys whose rows will be needed at once, so that the processor is asked for them together.
#[derive(Debug, Default)]
pub struct Foresight {
    rows: Vec<(u64, u64)>,
    /// Keys that were noted, those that came again and again too.
    noted: usize,
    /// The last of them.
    last_noted: Vec<u8>,
    last: Option<LastKey>,
}

/// The key whose members were noted last, and its object if it has one.
#[derive(Debug)]
struct LastKey {
    db: u32,
    key: Vec<u8>,
    object: Option<u64>,
}

/// Where a command that writes names fields or members of the key in its first argument: the first one, and how far it is to the next. A wrong guess costs
/// nothing but time.
fn members(command: &Command) -> Option<(usize, usize)> {
    const ALONE: usize = usize::MAX;
    if !matches!(command.group, Group::Set | Group::Hash | Group::SortedSet) {
        return None;
    }
    match command.name {
        "sadd" | "srem" | "hdel" | "zrem" => Some((2, 1)),
        "hset" | "hmset" => Some((2, 2)),
        "hsetnx" | "hincrby" | "hincrbyfloat" => Some((2, ALONE)),
        "zadd" => Some((3, 2)),
        "zincrby" => Some((3, ALONE)),
        _ => None,
    }
}

impl Foresight {
    /// Keys that are taken at most: what they need must stay in the cache until it is their turn.
    const MOST: usize = 128;

    /// Notes a key of a keyspace; `first` is called unless it was noted just before. Gives whether there is room for another one.
    #[inline]
    pub fn note(&mut self, keyspace: KeyspaceId, key: &[u8], first: impl FnOnce()) -> bool {
        if self.noted < Self::MOST {
            self.noted += 1;
            // Clients that write to one collection send its key with each request.
            let again = self.rows.last().is_some_and(|(of, _)| *of == keyspace.0) && self.last_noted == key;
            if !again {
                self.rows.push((keyspace.0, key_hash(key)));
                self.last_noted.clear();
                self.last_noted.extend_from_slice(key);
                first();
            }
        }
        self.noted < Self::MOST
    }

    /// Notes the fields or members that a command names, if its key's value is held in rows. `rows` is asked for the key's row, which the command will need
    /// in a moment.
    pub fn note_members(&mut self, rows: &dyn Rows, db: u32, command: &Command, args: &[&[u8]]) {
        let Some((first, step)) = members(command) else { return };
        let Some(&key) = args.get(1) else { return };
        let known = self.last.as_ref().filter(|last| last.db == db && last.key == key);
        let object = match known {
            Some(last) => last.object,
            None => {
                // What cannot be read here will be reported by the command itself.
                let row = rows.get(At::new(rows, db, key, UnixMs::MIN).row()).ok().flatten();
                let row = row.and_then(|row| KeyRow::parse(row).ok());
                let object = row.map(|row| row.object().0).filter(|object| *object != 0);
                self.last = Some(LastKey { db, key: key.to_vec(), object });
                object
            }
        };
        if let Some(object) = object {
            for member in args.iter().skip(first).step_by(step) {
                if self.rows.len() < Self::MOST {
                    self.rows.push((object, member_hash(member)));
                }
            }
        }
    }

    /// Forgets what the key's row of the last command said, since commands are executed now.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Asks for all that were noted, by [`ReadTxn::prefetch_keys`] or that of a write transaction.
    pub fn fetch(&mut self, prefetch_keys: impl FnOnce(&[(u64, u64)])) {
        // A single one is looked for at once anyway.
        if self.rows.len() > 1 {
            prefetch_keys(&self.rows);
        }
        self.rows.clear();
        self.noted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Care;
    use std::time::Duration;

    #[test]
    fn slow_rows_bring_all_that_follow_under_care() {
        let mut care = Care::new(Duration::ZERO);
        let looked = |care: &mut Care, keys: u32| (0..keys).filter(|_| care.look()).count();
        assert_eq!(looked(&mut care, 80), 10);
        care.count(1, 1);
        (0..Care::WINDOW).for_each(|_| care.count(1, 0));
        care.count(1, 1);
        assert_eq!(looked(&mut care, 80), 10, "single slow looks are interruptions");
        (0..Care::MANY).for_each(|_| care.count(1, 1));
        assert_eq!(looked(&mut care, Care::AFTER), Care::AFTER as usize);
        assert_eq!(looked(&mut care, 80), 10);
    }
}
