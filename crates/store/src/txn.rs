//! The writing side of a transaction: batches of row changes and the log frame that carries their effects.
//!
//! Rows are written straight into the active table under a sequence number that readers do not see yet; a commit appends the frame and
//! publishes the number with one store. Until then every change can be taken back by the undo log.

use ardb_base::id::{KeyspaceId, ObjectId, Offset, UnixMs};
use ardb_engine::row::{Patch, Visit, VisitValue};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Space, Value};
use parking_lot::MutexGuard;

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::{Core, Writer};
use crate::error::CommitError;
use crate::expiries::{Announced, Entry};
use crate::place::Place;
use crate::position::db_to_u32;
use crate::table::{Purpose, Undo};

/// The frame being built: the effects of the open batch as bytes of the replication stream.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// The bytes. Append to them; the buffer is reused.
    pub payload: Vec<u8>,
    /// The database that is selected in the stream after the payload. `None` means that it is not known, so that the next effect
    /// must select one. It is kept from batch to batch and over restarts.
    pub db: Option<u32>,
    /// The time at which the commands of the open batch are executed; a replay executes them at that time again. `None` takes the
    /// time of the commit.
    pub time: Option<UnixMs>,
}

#[derive(Debug)]
enum Op {
    Row { place: Place, tail_at: usize, tail_len: usize, undo: Undo, deleted: bool },
    Count { db: u32, keys: i64, expiries: i64 },
    Database { db: u32, before: crate::catalog::Database },
    Discard { object: u64 },
    Keyspace { keyspace: u64 },
}

/// How to take back what a batch did, in order.
#[derive(Debug, Default)]
pub struct UndoLog {
    ops: Vec<Op>,
    /// For each row its tail, and then what [`Table::patch`] kept of it. Between those may lie what entries that are gone have left.
    tails: Vec<u8>,
    /// No savepoint is left before this entry: from there only the whole batch is taken back.
    settled: usize,
    /// Bytes of `tails` then.
    settled_tails: usize,
    /// Whether databases were flushed or exchanged.
    keyspaces: bool,
}

impl UndoLog {
    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// As [`WriteTxn::settle`].
    fn settle(&mut self) {
        // Of a row that the batch had written before there is an older entry, which takes all back; a later one is needed no more, unless it tells
        // what the janitor must know. So the log does not grow with commands that change the same rows.
        let from = self.settled.min(self.ops.len());
        let mut kept = from;
        let mut tails = self.settled_tails.min(self.tails.len());
        for at in from..self.ops.len() {
            let op = &mut self.ops[at];
            if let Op::Row { tail_at, tail_len, undo, deleted, .. } = op {
                if matches!(undo, Undo::Replaced(_) | Undo::Settled | Undo::Patched) {
                    if !*deleted {
                        continue;
                    }
                    *undo = Undo::Settled;
                }
                tails = *tail_at + *tail_len;
            }
            self.ops.swap(kept, at);
            kept += 1;
        }
        self.ops.truncate(kept);
        self.tails.truncate(tails);
        (self.settled, self.settled_tails) = (kept, tails);
    }

    fn clear(&mut self) {
        self.ops.clear();
        self.tails.clear();
        (self.settled, self.settled_tails) = (0, 0);
        self.keyspaces = false;
        // One huge batch must not hold its memory for ever.
        self.ops.shrink_to(1 << 16);
        self.tails.shrink_to(1 << 20);
    }
}

/// A moment within a batch, to which [`WriteTxn::rollback_to`] goes back.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    seq: u64,
    ops: usize,
    payload: usize,
    db: Option<u32>,
}

/// The right to write. Holds the writer lock; dropping it takes back what was not committed.
pub struct WriteTxn<'a> {
    core: &'a Core,
    writer: MutexGuard<'a, Writer>,
}

impl<'a> WriteTxn<'a> {
    pub(crate) fn new(core: &'a Core) -> WriteTxn<'a> {
        WriteTxn::with(core, core.writer.lock())
    }

    pub(crate) fn new_while(
        core: &'a Core,
        patience: Duration,
        mut go_on: impl FnMut() -> bool,
    ) -> Option<WriteTxn<'a>> {
        loop {
            if let Some(writer) = core.writer.try_lock_for(patience) {
                return Some(WriteTxn::with(core, writer));
            }
            if !go_on() {
                return None;
            }
        }
    }

    fn with(core: &'a Core, mut writer: MutexGuard<'a, Writer>) -> WriteTxn<'a> {
        writer.renew_view(core);
        held::taken(core);
        WriteTxn { core, writer }
    }

    /// As [`crate::ReadTxn::is_large`].
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.writer.view.1.is_large()
    }

    /// As [`crate::ReadTxn::prefetch_keys`].
    pub fn prefetch_keys(&self, rows: &[(u64, u64)]) {
        self.writer.view.1.prefetch_keys(rows, Purpose::Write);
    }

    /// As [`WriteTxn::prefetch_keys`], for rows of fields and members, given by object and hash.
    pub fn prefetch_members(&self, rows: &[(u64, u64)]) {
        self.writer.view.1.prefetch_members(rows, Purpose::Write);
    }

    /// The frame being built.
    pub fn frame(&mut self) -> &mut FrameBuffer {
        &mut self.writer.frame
    }

    /// Where the stream stands: the offset at which the open frame begins.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.writer.offset
    }

    /// Whether anything was done since the last commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.writer.undo.is_empty() || !self.writer.frame.payload.is_empty()
    }

    /// The database whose keyspace `keyspace` is; `None` if it belongs to none (any more).
    #[must_use]
    pub fn database_of(&self, keyspace: KeyspaceId) -> Option<u32> {
        let databases = self.writer.catalog.databases.iter().take(self.core.databases as usize);
        databases.zip(0..).find(|(database, _)| database.keyspace == keyspace).map(|(_, db)| db)
    }

    /// This moment of the open batch.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        let writer = &*self.writer;
        Savepoint {
            seq: writer.seq,
            ops: writer.undo.ops.len(),
            payload: writer.frame.payload.len(),
            db: writer.frame.db,
        }
    }

    /// Takes back what was done to rows, counts and frame since `savepoint`, which must be of the open batch (one of an earlier batch takes back all of
    /// the open one). Object ids handed out since are not used again.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        let (ops, payload, db) = if savepoint.seq == self.writer.seq {
            debug_assert!(savepoint.ops >= self.writer.undo.settled, "a savepoint that was forgotten");
            (savepoint.ops, savepoint.payload, savepoint.db)
        } else {
            debug_assert!(false, "a savepoint of an earlier batch");
            (0, 0, self.writer.frame_db)
        };
        self.writer.undo_to(ops);
        self.writer.frame.payload.truncate(payload);
        self.writer.frame.db = db;
    }

    /// Forgets all savepoints of the open batch: what was done so far will only be taken back with all of it. So the values that the batch
    /// itself had written and replaced need not be kept; one row written by every command of a long batch would hold a copy for each.
    pub fn settle(&mut self) {
        self.writer.undo.settle();
    }

    /// Takes back the whole open batch.
    pub fn rollback(&mut self) {
        self.writer.rollback();
    }

    /// Announces a scan of the index of expiries, to be begun by a reader after this. Only between two batches.
    pub fn announce_scan_of_expiries(&mut self) -> Announced {
        debug_assert!(self.writer.undo.is_empty(), "the scan would not see what this batch has written");
        self.core.expiries.announce()
    }

    /// What an announced scan, and what was committed in this transaction after it, has left as the first entry. It moves [`crate::ReadTxn::first_expiry`]. Only between two
    /// batches.
    pub fn expiries_begin_at(&mut self, scan: Announced, found: Option<Entry>) {
        debug_assert!(self.writer.undo.is_empty(), "a deletion that is not committed may be taken back");
        self.core.expiries.begin_at(scan, found);
    }

    /// Appends the frame, if it has any bytes, and makes the batch visible at once. The transaction goes on with a next, empty batch. Gives the end
    /// of the log, to which [`crate::Store::sync_to`] makes it durable. On an error all of the batch is taken back.
    pub fn commit(&mut self) -> Result<Offset, CommitError> {
        let result = self.writer.commit(self.core);
        if result.is_err() {
            self.writer.rollback();
        }
        result
    }

    /// Like [`WriteTxn::commit`], for a frame that holds a master's own bytes, which must begin at `first`.
    pub fn commit_verbatim(&mut self, first: Offset) -> Result<Offset, CommitError> {
        let want = self.writer.offset;
        if want != first {
            self.writer.rollback();
            return Err(CommitError::Offset { want, got: first });
        }
        self.commit()
    }

    pub(crate) fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        self.writer.rollback();
        held::let_go(self.core);
    }
}

/// Which writer locks this thread holds, so that a thread that would wait for itself is found in tests. Only debug builds count.
pub mod held {
    use std::cell::RefCell;

    use crate::core::Core;

    thread_local! {
        /// The data sets whose lock this thread holds, by address: seldom more than one.
        static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    fn name(core: &Core) -> usize {
        std::ptr::from_ref(core).addr()
    }

    pub fn taken(core: &Core) {
        if cfg!(debug_assertions) {
            HELD.with_borrow_mut(|held| held.push(name(core)));
        }
    }

    pub fn let_go(core: &Core) {
        if cfg!(debug_assertions) {
            HELD.with_borrow_mut(|held| held.retain(|other| *other != name(core)));
        }
    }

    /// Whether this thread holds the lock. Always false in release builds.
    pub fn by_me(core: &Core) -> bool {
        cfg!(debug_assertions) && HELD.with_borrow(|held| held.contains(&name(core)))
    }
}

impl Writer {
    /// Takes back what was done since the undo log had `ops` entries.
    fn undo_to(&mut self, ops: usize) {
        while self.undo.ops.len() > ops {
            match self.undo.ops.pop() {
                Some(Op::Row { place, tail_at, tail_len, undo, .. }) => {
                    // Tails were appended in the same order as the entries, so what lies behind this one is its own.
                    let (tail, saved) = self.undo.tails[tail_at..].split_at(tail_len);
                    let key = RowKey::new(place.space(), place.group(), place.order(), tail);
                    self.view.1.active.undo(&key, undo, saved);
                    self.undo.tails.truncate(tail_at);
                }
                Some(Op::Count { db, keys, expiries }) => {
                    if let Some(database) = self.catalog.databases.get_mut(db as usize) {
                        database.keys = database.keys.wrapping_sub_signed(keys);
                        database.expiries = database.expiries.wrapping_sub_signed(expiries);
                    }
                }
                Some(Op::Database { db, before }) => {
                    if let Some(database) = self.catalog.databases.get_mut(db as usize) {
                        *database = before;
                    }
                }
                Some(Op::Discard { .. } | Op::Keyspace { .. }) | None => {}
            }
        }
    }

    fn rollback(&mut self) {
        self.undo_to(0);
        self.undo.clear();
        self.frame.payload.clear();
        self.frame.time = None;
        self.frame.db = self.frame_db;
    }

    fn commit(&mut self, core: &Core) -> Result<Offset, CommitError> {
        if self.undo.is_empty() && self.frame.payload.is_empty() && self.replaying.is_none() {
            self.frame_db = self.frame.db;
            return Ok(self.offset);
        }
        if self.closed {
            return Err(CommitError::Closed);
        }
        if core.failing.load(Ordering::Relaxed)
            && core.changed.load(Ordering::Relaxed) > core.budget.changed
            && let Some(error) = core.failure.lock().clone()
        {
            return Err(CommitError::Checkpoint(error));
        }
        let time = self.frame.time.take().unwrap_or_else(|| (core.clock)());
        match (self.replaying, &mut self.appender) {
            (Some(end), _) => self.offset = end,
            // Changes without effects, the janitor's for one, leave the stream where it is; that may be in the middle of a replay.
            (None, _) if self.frame.payload.is_empty() => {}
            (None, Some(appender)) if appender.end() != self.offset => {
                return Err(CommitError::Offset { want: appender.end(), got: self.offset });
            }
            (None, Some(appender)) => {
                self.offset = appender.append(db_to_u32(self.frame_db), time, &[&self.frame.payload])?
            }
            // A generation being loaded has no log.
            (None, None) => {}
        }
        // From here on nothing fails.
        self.frame.payload.clear();
        self.frame.payload.shrink_to(1 << 20);
        self.frame_db = self.frame.db;
        self.publish(core);
        Ok(self.offset)
    }

    /// Makes the batch visible and leaves to the janitor what it freed.
    fn publish(&mut self, core: &Core) {
        let seq = self.seq;
        self.publish_counts(core);
        if self.undo.keyspaces {
            let keyspaces = self.catalog.databases.iter().map(|d| d.keyspace).collect();
            // Readers of the new view wait (for the next store) until they stand at this commit.
            let old = core.publication.change(|view| {
                view.keyspaces = keyspaces;
                view.from_seq = seq;
            });
            core.bury(old);
        }
        core.publication.commit(seq);
        self.hand_to_janitor(core);
        self.undo.clear();
        self.seq = seq + 1;
        self.gathered = false;
        self.renew_view(core);
        let view = &self.view.1;
        let active = view.active.bytes();
        core.changed.store(active + view.frozen.as_ref().map_or(0, |table| table.bytes()), Ordering::Relaxed);
        if core.dirty_since.load(Ordering::Relaxed) == 0 {
            core.dirty_since.store(1.max((core.clock)()) as u64, Ordering::Relaxed);
        }
        if active > core.budget.changed / 2 {
            core.want_checkpoint();
        }
    }

    fn publish_counts(&mut self, core: &Core) {
        let mut last = None;
        for at in 0..self.undo.ops.len() {
            let (Op::Count { db, .. } | Op::Database { db, .. }) = self.undo.ops[at] else { continue };
            if last == Some(db) {
                continue;
            }
            last = Some(db);
            self.gather(core);
            if let Some(database) = self.catalog.databases.get(db as usize) {
                self.view.1.counts.set(db, self.seq, (database.keys, database.expiries), &self.active);
            }
        }
    }

    /// Forgets deleted rows that nothing below the active table has at once, unless somebody still reads before the commit, and leaves to the janitor what takes
    /// longer. Whoever looks for the next row that is there would pass all of them, or a set that is filled and emptied would get slower until the next checkpoint.
    fn hand_to_janitor(&mut self, core: &Core) {
        let view = &*self.view.1;
        let active = &*view.active;
        let fresh = active.fresh_from();
        let (mut unseen, mut janitor) = (None, None);
        for op in &self.undo.ops {
            match op {
                Op::Row { place, tail_at, tail_len, deleted: true, undo } => {
                    // As in `undo_to`.
                    let tail = &self.undo.tails[*tail_at..*tail_at + *tail_len];
                    let key = RowKey::new(place.space(), place.group(), place.order(), tail);
                    // One that the table did not have lies below, as a rule, or nobody would have deleted it.
                    if matches!(undo, Undo::Created) && place.group() < fresh || !view.is_only_in_active(&key) {
                        continue;
                    }
                    // The commit is published: who begins to read from here on stands there. No freeze comes between, for want of the writer lock.
                    if *unseen.get_or_insert_with(|| core.readers.oldest() >= self.seq) {
                        active.forget_deleted(&key, self.seq);
                    } else {
                        janitor.get_or_insert_with(|| core.janitor.lock()).deleted(self.seq, *place, tail);
                    }
                }
                Op::Discard { object } => {
                    self.dead.insert(*object);
                    let janitor = janitor.get_or_insert_with(|| core.janitor.lock());
                    janitor.discarded(self.seq, *object, *object >= fresh);
                }
                Op::Keyspace { keyspace } => {
                    janitor.get_or_insert_with(|| core.janitor.lock()).flushed(self.seq, *keyspace);
                }
                _ => {}
            }
        }
    }

    /// Learns which snapshots are being read, once a batch: readers that come later stand at the newest commit, which is never pruned.
    fn gather(&mut self, core: &Core) {
        if !self.gathered {
            core.readers.gather(&mut self.active);
            self.gathered = true;
        }
    }

    fn set(&mut self, core: &Core, key: &RowKey<'_>, value: Option<Value>) {
        self.gather(core);
        let deleted = value.is_none();
        if key.space == Space::Expiry && !deleted {
            core.expiries.written(key.order, key.tail);
        }
        let undo = self.view.1.active.put(key, self.seq, value, &self.active);
        let tail_at = self.undo.tails.len();
        self.undo.tails.extend_from_slice(key.tail);
        self.undo.ops.push(Op::Row { place: Place::of(key), tail_at, tail_len: key.tail.len(), undo, deleted });
    }

    fn patch(&mut self, core: &Core, key: &RowKey<'_>, old: Value, patches: &[Patch<'_>]) {
        self.gather(core);
        let tail_at = self.undo.tails.len();
        self.undo.tails.extend_from_slice(key.tail);
        let undo = self.view.1.active.patch(key, self.seq, old, patches, &self.active, &mut self.undo.tails);
        let (place, tail_len) = (Place::of(key), key.tail.len());
        self.undo.ops.push(Op::Row { place, tail_at, tail_len, undo, deleted: false });
    }

    fn database(&self, db: u32) -> crate::catalog::Database {
        self.catalog.databases.get(db as usize).copied().unwrap_or_default()
    }

    fn replace_database(&mut self, db: u32, with: crate::catalog::Database) {
        if let Some(database) = self.catalog.databases.get_mut(db as usize) {
            let before = std::mem::replace(database, with);
            self.undo.ops.push(Op::Database { db, before });
            self.undo.keyspaces |= before.keyspace != with.keyspace;
        }
    }
}

impl Rows for WriteTxn<'_> {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        self.writer.view.1.get_to_write(key, self.writer.seq)
    }

    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.writer.view.1.scan(range, direction, self.writer.seq, visit)
    }

    fn values(&self, range: RowRange<'_>, visit: &mut VisitValue<'_>) -> Result<(), EngineError> {
        self.writer.view.1.values(range, self.writer.seq, visit)
    }

    fn prefetch(&self, key: RowKey<'_>) {
        self.writer.view.1.active.prefetch_row(&key);
    }

    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.writer.database(db).keyspace
    }

    fn key_count(&self, db: u32) -> u64 {
        self.writer.database(db).keys
    }

    fn expiry_count(&self, db: u32) -> u64 {
        self.writer.database(db).expiries
    }
}

impl RowsMut for WriteTxn<'_> {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.writer.set(self.core, &key, Some(Value::new(value)));
    }

    fn patch(&mut self, key: RowKey<'_>, old: Value, patches: &[Patch<'_>]) {
        self.writer.patch(self.core, &key, old, patches);
    }

    fn delete(&mut self, key: RowKey<'_>) {
        self.writer.set(self.core, &key, None);
    }

    fn new_object(&mut self) -> ObjectId {
        let id = self.writer.catalog.next_id;
        self.writer.catalog.next_id += 1;
        ObjectId(id)
    }

    fn discard(&mut self, object: ObjectId) {
        if object.0 < self.writer.view.1.active.fresh_from() {
            // Rows may be in the engine, so the intent must outlive this process.
            self.put(RowKey::new(Space::Garbage, object.0, 0, b""), &[crate::janitor::KIND_OBJECT]);
        }
        self.writer.undo.ops.push(Op::Discard { object: object.0 });
    }

    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        if let Some(database) = self.writer.catalog.databases.get_mut(db as usize) {
            debug_assert!(database.keys.checked_add_signed(keys).is_some(), "more keys deleted than there were");
            database.keys = database.keys.wrapping_add_signed(keys);
            database.expiries = database.expiries.wrapping_add_signed(expiries);
            self.writer.undo.ops.push(Op::Count { db, keys, expiries });
        }
    }

    fn flush(&mut self, db: u32) {
        let before = self.writer.database(db);
        if before.keyspace.0 == 0 || before.keys == 0 {
            // Without keys there are no rows that anybody could reach.
            return;
        }
        let keyspace = KeyspaceId(self.new_object().0);
        self.put(RowKey::new(Space::Garbage, before.keyspace.0, 0, b""), &[crate::janitor::KIND_KEYSPACE]);
        self.writer.replace_database(db, crate::catalog::Database { keyspace, keys: 0, expiries: 0 });
        self.writer.undo.ops.push(Op::Keyspace { keyspace: before.keyspace.0 });
    }

    fn swap(&mut self, a: u32, b: u32) {
        let (in_a, in_b) = (self.writer.database(a), self.writer.database(b));
        if a != b && in_a.keyspace.0 != 0 && in_b.keyspace.0 != 0 {
            self.writer.replace_database(a, in_b);
            self.writer.replace_database(b, in_a);
        }
    }
}
