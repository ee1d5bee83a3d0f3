//! Deleting in the background what nobody can reach any more.
//!
//! Three kinds of garbage:
//! - Deleted rows that nothing below the active table knows (queues that empty): their entry can simply go.
//! - Objects. Their rows in the active table are forgotten; if the engine may hold some, a row of [`Space::Garbage`] names the object until
//!   a checkpoint has deleted them there.
//! - Keyspaces of flushed databases. Their key rows are walked in bounded steps for the objects that they name, which are discarded; the
//!   part that was walked is deleted by the next checkpoint.
//!
//! Garbage never affects visible data, so nothing of it goes into the log. Every step is repeated after a crash if the checkpoint that
//! would have carried it did not finish: the rows in `Garbage` go away in the same commit as what they name.
//!
//! Memory is taken back only when no reader stands before the commit that made it garbage.

use std::collections::{HashMap, VecDeque};
use std::ops::{ControlFlow, Range};

use ardb_base::id::{Generation, ObjectId};
use ardb_engine::{Direction, EngineError, RowKey, RowRange, RowsMut, Snapshot, Space};

use crate::core::Core;
use crate::error::CommitError;
use crate::place::{Place, Tail};
use crate::scan::group_end;
use crate::txn::WriteTxn;

/// Value of a garbage row that names an object.
pub const KIND_OBJECT: u8 = 1;
/// Value of a garbage row that names a keyspace.
pub const KIND_KEYSPACE: u8 = 2;

/// Objects whose engine rows one checkpoint deletes at most.
const OBJECTS_A_CHECKPOINT: usize = 8192;
/// Rows of one object that are deleted one by one; of more, whole ranges are. With the constant above it bounds the memory of a plan.
const FEW_ROWS: usize = 64;
/// Key rows that one step of a walk reads.
const WALK_ROWS: usize = 256;
/// Rows that one step forgets under one shard's lock.
const FORGET_ROWS: usize = 512;
/// Rows that it forgets under the janitor's lock, for which a commit that deletes rows waits.
const FORGET_AT_ONCE: usize = 16;

/// The spaces in which objects have rows.
pub const OBJECT_SPACES: [Space; 8] =
    [Space::Member, Space::Element, Space::Chunk, Space::Score, Space::Rank1, Space::Rank2, Space::Rank3, Space::Rank4];

#[derive(Debug)]
enum Forget {
    Row(Place, Tail),
    Object(u64),
}

/// A keyspace whose keys are being walked.
#[derive(Clone, Debug)]
struct Walk {
    keyspace: u64,
    /// The commit that gave it up.
    seq: u64,
    /// Rows of orders below are walked.
    next: u64,
    /// The walk so far has gone into a checkpoint.
    told: u64,
    /// The rows walked so far were all forgotten in the active table: no reader needed them.
    forgotten: bool,
}

/// What waits to be deleted, of one generation.
#[derive(Debug)]
pub struct Janitor {
    /// In which all the numbers below mean what they mean.
    generation: Generation,
    /// What to forget in the active table, by the commit that made it garbage.
    forget: VecDeque<(u64, Forget)>,
    /// Objects with rows in the engine, perhaps.
    objects: VecDeque<u64>,
    /// The first one is being walked.
    keyspaces: VecDeque<Walk>,
    /// Walked to the end; the next checkpoint deletes them.
    walked: Vec<Walk>,
}

/// What one checkpoint deletes in the engine besides its own rows.
#[derive(Clone, Debug, Default)]
pub struct Cleanup {
    objects: Vec<u64>,
    /// Keyspaces, with the order up to which they were walked; `None` is to the end.
    walks: HashMap<u64, Option<u64>>,
}

/// Engine deletions in the form of a commit: ranges, and sorted single keys.
#[derive(Debug, Default)]
pub struct Plan {
    pub ranges: Vec<Range<Vec<u8>>>,
    pub keys: Vec<Vec<u8>>,
}

impl Janitor {
    /// For a generation in which nothing waits.
    pub fn new(generation: Generation) -> Janitor {
        Janitor {
            generation,
            forget: VecDeque::new(),
            objects: VecDeque::new(),
            keyspaces: VecDeque::new(),
            walked: Vec::new(),
        }
    }

    /// A row that nothing below the active table has was deleted at `seq`.
    pub fn deleted(&mut self, seq: u64, place: Place, tail: &[u8]) {
        self.forget.push_back((seq, Forget::Row(place, Tail::new(tail))));
    }

    /// An object was discarded at `seq`; if it is not fresh, the engine may have rows of it.
    pub fn discarded(&mut self, seq: u64, object: u64, fresh: bool) {
        self.forget.push_back((seq, Forget::Object(object)));
        if !fresh {
            self.objects.push_back(object);
        }
    }

    /// A keyspace was given up at `seq`.
    pub fn flushed(&mut self, seq: u64, keyspace: u64) {
        self.keyspaces.push_back(Walk { keyspace, seq, next: 0, told: 0, forgotten: true });
    }

    /// Things that wait, for INFO.
    pub fn len(&self) -> usize {
        self.forget.len() + self.objects.len() + self.keyspaces.len() + self.walked.len()
    }

    /// Whether a checkpoint would have something to delete.
    pub fn has_cleanup(&self) -> bool {
        let under_way = self.keyspaces.front().is_some_and(|walk| walk.next > walk.told);
        under_way || !self.objects.is_empty() || !self.walked.is_empty()
    }

    /// Whether there is enough to delete for a checkpoint of its own.
    pub fn is_pressing(&self) -> bool {
        self.objects.len() >= OBJECTS_A_CHECKPOINT || self.walked.len() >= OBJECTS_A_CHECKPOINT
    }

    /// At a freeze: takes what the checkpoint is to delete. What waits to be forgotten in the table that is frozen now goes with it.
    pub fn freeze(&mut self) -> Cleanup {
        self.forget.clear();
        let count = self.objects.len().min(OBJECTS_A_CHECKPOINT);
        let objects = self.objects.drain(..count).collect();
        let mut walks: HashMap<u64, Option<u64>> = self.walked.drain(..).map(|walk| (walk.keyspace, None)).collect();
        if let Some(walk) = self.keyspaces.front_mut()
            && walk.next > walk.told
        {
            walks.insert(walk.keyspace, Some(walk.next));
            walk.told = walk.next;
        }
        Cleanup { objects, walks }
    }

    /// Reads the garbage that an engine knows of.
    pub fn load(&mut self, snapshot: &dyn Snapshot) -> Result<(), EngineError> {
        let start = RowKey::new(Space::Garbage, 0, 0, b"").encoded();
        let end = vec![Space::Garbage as u8 + 1];
        let mut cursor = snapshot.cursor(&start..&end);
        cursor.seek(&start)?;
        while let Some((key, value)) = cursor.row() {
            match (RowKey::decode(key), value) {
                (Some(key), [KIND_OBJECT]) => self.objects.push_back(key.group),
                (Some(key), [KIND_KEYSPACE]) => self.flushed(0, key.group),
                _ => {
                    return Err(EngineError {
                        doing: "read the rows of garbage".into(),
                        why: format!("{key:?} with {} bytes", value.len()),
                        corruption: true,
                    });
                }
            }
            cursor.next()?;
        }
        Ok(())
    }
}

impl Cleanup {
    /// Whether the key row of `order` in the dead `keyspace` was walked, so that it need not go to the engine.
    pub fn walked(&self, keyspace: u64, order: u64) -> bool {
        self.walks.get(&keyspace).is_some_and(|next| next.is_none_or(|next| order < next))
    }

    /// The dead keyspaces that were walked, in part at least.
    pub fn has_walk(&self, keyspace: u64) -> bool {
        self.walks.contains_key(&keyspace)
    }

    /// Finds out what the engine holds of it.
    pub fn plan(&self, snapshot: &dyn Snapshot) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        for &object in &self.objects {
            plan.object(snapshot, object)?;
            plan.keys.push(RowKey::new(Space::Garbage, object, 0, b"").encoded());
        }
        for (&keyspace, &next) in &self.walks {
            let start = RowKey::new(Space::Key, keyspace, 0, b"").encoded();
            let end = match next {
                None => group_end(Space::Key as u8, keyspace),
                Some(next) => RowKey::new(Space::Key, keyspace, next, b"").encoded(),
            };
            let mut cursor = snapshot.cursor(&start..&end);
            cursor.seek(&start)?;
            if cursor.row().is_some() {
                drop(cursor);
                plan.ranges.push(start..end);
            }
            if next.is_none() {
                plan.keys.push(RowKey::new(Space::Garbage, keyspace, 0, b"").encoded());
            }
        }
        plan.keys.sort_unstable();
        plan.keys.dedup();
        Ok(plan)
    }
}

impl Plan {
    /// A small object's rows one by one, a bigger one's in ranges.
    fn object(&mut self, snapshot: &dyn Snapshot, object: u64) -> Result<(), EngineError> {
        let before = self.keys.len();
        for space in OBJECT_SPACES {
            let start = RowKey::new(space, object, 0, b"").encoded();
            let end = group_end(space as u8, object);
            let keys = self.keys.len();
            let mut cursor = snapshot.cursor(&start..&end);
            cursor.seek(&start)?;
            while let Some((key, _)) = cursor.row() {
                if self.keys.len() - before >= FEW_ROWS {
                    self.keys.truncate(keys);
                    drop(cursor);
                    self.ranges.push(start..end);
                    break;
                }
                self.keys.push(key.to_vec());
                cursor.next()?;
            }
        }
        Ok(())
    }
}

/// The object that a key's row names: byte 1 is the encoding (1 means rows), byte 2 holds flags, of which bit 0 says that eight bytes of expiry
/// follow; then comes the object's number, little-endian.
pub fn object_of(value: &[u8]) -> Option<ObjectId> {
    const ENCODING_ROWS: u8 = 1;
    if *value.get(1)? != ENCODING_ROWS {
        return None;
    }
    let at = if expires(value) { 11 } else { 3 };
    let id = u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?);
    (id > 0 && id < crate::place::GROUP_LIMIT).then_some(ObjectId(id))
}

/// Whether a key's row says that it expires.
pub fn expires(value: &[u8]) -> bool {
    value.get(2).is_some_and(|flags| flags & 1 == 1)
}

impl Core {
    /// One bounded step of background deletion. Gives whether there may be more to do right away.
    pub fn janitor_step(&self) -> Result<bool, CommitError> {
        let forgot = self.forget(self.unneeded());
        let walked = self.walk_step()?;
        Ok(forgot || walked)
    }

    /// What was garbage at this commit no reader needs, now or later.
    fn unneeded(&self) -> u64 {
        // In this order: a reader that does not show in its slot yet will stand at `committed` or later.
        let committed = self.publication.committed();
        committed.min(self.readers.oldest())
    }

    /// Forgets garbage of commits up to `unneeded` in the active table.
    fn forget(&self, unneeded: u64) -> bool {
        let mut budget = FORGET_ROWS;
        while budget > 0 {
            // The lock is held over some items: a freeze, which clears the queue, waits for it, so the table is the one they are about.
            let mut janitor = self.janitor.lock();
            let table = self.publication.current().1.active.clone();
            for _ in 0..FORGET_AT_ONCE {
                let Some((seq, item)) = janitor.forget.front() else { return false };
                if *seq > unneeded {
                    return false;
                }
                match item {
                    Forget::Row(place, tail) => {
                        table.forget_deleted(&RowKey::new(place.space(), place.group(), place.order(), tail), *seq);
                        budget = budget.saturating_sub(1);
                    }
                    Forget::Object(object) => {
                        let gone = table.forget_object(*object, budget);
                        budget -= gone.min(budget);
                        if budget == 0 {
                            // There may be more of this object.
                            return true;
                        }
                    }
                }
                janitor.forget.pop_front();
                if budget == 0 {
                    break;
                }
            }
        }
        true
    }

    /// Walks on in the first flushed keyspace, discarding the objects that its keys name, and forgets in the active table what was walked.
    /// Waits for the next checkpoint while changed rows fill their share of memory, because it adds some.
    fn walk_step(&self) -> Result<bool, CommitError> {
        let (walk, generation) = {
            let janitor = self.janitor.lock();
            let Some(walk) = janitor.keyspaces.front().cloned() else { return Ok(false) };
            (walk, janitor.generation)
        };
        if self.changed_bytes() > self.budget.changed {
            self.want_checkpoint();
            return Ok(false);
        }
        // Nobody writes to a dead keyspace, so the rows can be read before the lock is taken.
        let range = RowRange { space: Space::Key, group: walk.keyspace, from: (walk.next, b""), to: None };
        let mut rows = 0;
        let mut next = None;
        let mut last = walk.next;
        let mut objects = Vec::new();
        let (_, view) = self.publication.current();
        if view.generation != generation {
            // A full sync is being installed: there the number may be that of a database.
            return Ok(false);
        }
        let read = view.scan(range, Direction::Forward, self.publication.committed(), &mut |key, value| {
            if rows >= WALK_ROWS && key.order != last {
                next = Some(key.order);
                return ControlFlow::Break(());
            }
            rows += 1;
            last = key.order;
            objects.extend(object_of(value));
            ControlFlow::Continue(())
        });
        drop(view);
        if let Err(error) = read {
            log::warn!("janitor: cannot read a flushed database, trying again later: {error}");
            return Ok(false);
        }
        // Readers that still stand before the flush keep their rows until the next freeze.
        let unseen = self.readers.oldest() >= walk.seq;
        let mut txn = WriteTxn::new(self);
        if txn.writer().view.1.generation != generation {
            return Ok(false);
        }
        for &object in &objects {
            txn.discard(object);
        }
        let forgotten = walk.forgotten && unseen;
        let gone = next.is_none() && forgotten && walk.keyspace >= txn.writer().view.1.active.fresh_from();
        if gone {
            // The engine never heard of it, and will not: the rows go below.
            txn.delete(RowKey::new(Space::Garbage, walk.keyspace, 0, b""));
        }
        txn.commit()?;
        let table = txn.writer().view.1.active.clone();
        if unseen {
            // Under the writer lock, because a freeze in between would take rows along that nothing would delete again.
            table.forget_keys(walk.keyspace, walk.next, next);
        }
        let mut janitor = self.janitor.lock();
        // Others only append to the queue (or, with a new generation, replace it).
        if janitor.keyspaces.front().is_some_and(|first| first.keyspace == walk.keyspace) {
            match next {
                Some(next) => {
                    janitor.keyspaces[0].next = next;
                    janitor.keyspaces[0].forgotten = forgotten;
                }
                None => {
                    let walk = janitor.keyspaces.pop_front();
                    if !gone {
                        janitor.walked.extend(walk);
                    }
                }
            }
        }
        drop(janitor);
        drop(txn);
        Ok(true)
    }
}

#[cfg(test)]
#[path = "janitor_tests.rs"]
mod tests;
