//! Receiving everything from another Ardb server: rows on the wire become a new generation, which then becomes current in one step.
//!
//! The link's thread takes the blocks apart and checks them; a thread of the transfer brings their rows into the new engine. Between the two is a queue
//! of a few blocks, so memory stays flat. What has come outlives the link: the next one asks the master for the rest. Until the last
//! step the old data are served, and whatever breaks for good leaves a directory that is deleted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_base::id::{Offset, ReplId};
use ardb_node::intake;
use ardb_repl::replica::{Event, Rows};
use ardb_repl::rows::{Opening, Part, RawRows, RowsError, RowsReceiver, SyncId};
use ardb_store::{GenerationError, GenerationLoader, History, RawLoad, RawRow, RowSource, SyncPoint};
use parking_lot::{Condvar, Mutex};

use super::link::LinkEnd;
use super::status::{RowsView, monotonic_ms};
use super::wire::{Wire, WireError};
use crate::server::Server;

/// Bytes of rows from which on no further block is taken off the wire before the engine has had some.
const QUEUE_BYTES: usize = 4 << 20;
/// How long the link's thread waits for room before it looks at the clock.
const ROUND: Duration = Duration::from_millis(50);
/// Damaged blocks in one transfer after which it is given up: it is not the wire that damages them.
const DAMAGES: u32 = 3;

/// What stands between the link's thread and the transfer's.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    blocks: VecDeque<RawRows>,
    bytes: usize,
    /// No more blocks will come.
    closed: bool,
    /// The transfer's thread takes no more.
    dead: bool,
}

/// The queue's end at the transfer's thread.
struct Blocks {
    queue: Arc<Queue>,
    open: Option<RawRows>,
}

impl Blocks {
    /// The next block, whenever it comes.
    fn wait(&self) -> Option<RawRows> {
        let mut state = self.queue.state.lock();
        loop {
            if let Some(block) = state.blocks.pop_front() {
                state.bytes -= block.bytes();
                self.queue.changed.notify_all();
                return Some(block);
            }
            if state.closed {
                return None;
            }
            self.queue.changed.wait(&mut state);
        }
    }
}

impl RowSource for Blocks {
    fn next_row(&mut self) -> Result<Option<RawRow<'_>>, String> {
        while self.open.as_ref().is_none_or(RawRows::is_empty) {
            if let Some(mut block) = self.open.take() {
                // The block must end where its last row does.
                block.next().map_err(|error| error.to_string())?;
            }
            match self.wait() {
                Some(block) => self.open = Some(block),
                None => return Ok(None),
            }
        }
        match &mut self.open {
            Some(block) => block.next().map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.dead = true;
        state.blocks.clear();
        self.queue.changed.notify_all();
    }
}

/// The thread that fills the new generation.
struct Worker {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Result<RawLoad, GenerationError>>>,
}

impl Worker {
    fn start(load: RawLoad) -> std::io::Result<Worker> {
        let queue = Arc::new(Queue::default());
        let mut blocks = Blocks { queue: queue.clone(), open: None };
        let mut load = load;
        let thread = std::thread::Builder::new().name("ardb-rows".into()).spawn(move || {
            let result = load.part(&mut blocks);
            drop(blocks);
            result.map(|()| load)
        })?;
        Ok(Worker { queue, thread: Some(thread) })
    }

    /// Waits until there is room for one more block; `idle` is called meanwhile.
    fn make_room(&mut self, mut idle: impl FnMut() -> Result<(), WireError>) -> Result<(), LinkEnd> {
        loop {
            let mut state = self.queue.state.lock();
            if state.dead {
                drop(state);
                return Err(self.failure());
            }
            if state.bytes < QUEUE_BYTES {
                return Ok(());
            }
            if self.queue.changed.wait_for(&mut state, ROUND).timed_out() {
                drop(state);
                idle()?;
            }
        }
    }

    /// Hands a block over, for which [`Worker::make_room`] has found room. It never waits, because a block that has been counted must not be lost.
    fn push(&mut self, block: RawRows) {
        let mut state = self.queue.state.lock();
        // Why the thread is dead is found out when room is made for the next block, or at the end.
        if !state.dead {
            state.bytes += block.bytes();
            state.blocks.push_back(block);
            self.queue.changed.notify_all();
        }
    }

    /// No more blocks come.
    fn close(&self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_all();
    }

    /// Waits for the end of the thread after [`Worker::close`].
    fn finish(mut self, mut idle: impl FnMut() -> Result<(), WireError>) -> Result<RawLoad, LinkEnd> {
        self.close();
        loop {
            let mut state = self.queue.state.lock();
            if state.dead {
                break;
            }
            if self.queue.changed.wait_for(&mut state, ROUND).timed_out() {
                drop(state);
                idle()?;
            }
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(load))) => Ok(load),
            Some(Ok(Err(error))) => Err(error.into()),
            _ => Err(LinkEnd::Panicked),
        }
    }

    /// Why the thread has ended before its time.
    fn failure(&mut self) -> LinkEnd {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error.into(),
            _ => LinkEnd::Panicked,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // What it made is deleted when it ends; the next attempt begins after that.
            let _ = thread.join();
        }
    }
}

/// What has come of a transfer.
struct Partial {
    receiver: RowsReceiver,
    /// From the opening on.
    worker: Option<Worker>,
    view: RowsView,
    bytes: u64,
    damages: u32,
}

impl Partial {
    fn new(sync: SyncId) -> Partial {
        let view = RowsView { rows: 0, keys: 0, about_bytes: 0, since: monotonic_ms(), resumed: 0 };
        Partial { receiver: RowsReceiver::new(sync), worker: None, view, bytes: 0, damages: 0 }
    }
}

/// What the attempts of one link's thread know of full syncs by rows.
#[derive(Default)]
pub struct Ongoing {
    partial: Option<Partial>,
    /// The last one could not be taken: an RDB is asked for instead, until something succeeds.
    refuse: bool,
}

impl Ongoing {
    /// What to ask the master for.
    #[must_use]
    pub fn ask(&self) -> Rows {
        match &self.partial {
            _ if self.refuse => Rows::Refuse,
            Some(partial) if partial.receiver.next() > 0 => {
                Rows::Resume(partial.receiver.sync(), partial.receiver.next())
            }
            _ => Rows::Ask,
        }
    }

    /// The link is up by any way: nothing of earlier attempts counts any more.
    pub fn forget(&mut self) {
        *self = Ongoing::default();
    }

    /// An attempt ended. Gives whether it got further than the one before.
    pub fn judge(&mut self, end: &LinkEnd) {
        match end {
            LinkEnd::Rows(RowsError::Damaged(_) | RowsError::Order { .. }) => {
                // What came before is good. The wire may have been at fault; if it goes on, it is not the wire.
                let partial = self.partial.as_mut();
                if partial.is_none_or(|partial| {
                    partial.damages += 1;
                    partial.damages >= DAMAGES
                }) {
                    (self.partial, self.refuse) = (None, true);
                }
            }
            LinkEnd::Rows(_) | LinkEnd::Generation(_) | LinkEnd::Panicked => (self.partial, self.refuse) = (None, true),
            _ => {}
        }
    }

    /// Receives everything, or the rest of it, and makes it current.
    ///
    /// # Errors
    /// The link must be given up; the old data are as they were.
    pub fn receive(
        &mut self,
        server: &Arc<Server>,
        wire: &mut Wire<'_>,
        named: (ReplId, Offset, SyncId, u64),
        upstream: &str,
    ) -> Result<(), LinkEnd> {
        let (id, offset, sync, block) = named;
        match &mut self.partial {
            Some(partial) if partial.receiver.sync() == sync && partial.receiver.next() == block => {
                partial.receiver.reconnected();
                partial.view.resumed += 1;
                log::info!(
                    "MASTER <-> REPLICA sync: going on with {sync} at block {block}, after {} rows",
                    partial.receiver.rows()
                );
            }
            old => {
                // Of one whose link broke before the first block there is nothing to go on with.
                if old.take().is_some_and(|old| old.receiver.next() > 0) {
                    log::info!(
                        "MASTER <-> REPLICA sync: the master cannot go on with the rows that came, beginning anew"
                    );
                }
                if block != 0 {
                    return Err(LinkEnd::Rows(RowsError::Order { want: 0, got: block }));
                }
                log::info!("MASTER <-> REPLICA sync: receiving rows from master, sync {sync}");
            }
        }
        let partial = self.partial.get_or_insert_with(|| Partial::new(sync));
        let came = rows(server, wire, partial, (id, offset));
        if came.is_err() && partial.worker.is_none() && partial.receiver.next() > 0 {
            // The opening came and nothing could be opened for it, so there is nothing that the blocks behind it could go on with.
            self.partial = None;
        }
        came?;
        let Some(Partial { receiver, worker: Some(worker), view, bytes, .. }) = self.partial.take() else {
            unreachable!("the end comes after the opening, which starts the worker")
        };
        wire.replica.rows_end();
        let load = worker.finish(|| wire.idle())?;
        // Rows that hold no key are in no count of the catalog.
        if load.rows() != receiver.rows() {
            let why = format!("{} are in the engine of {} that came", load.rows(), receiver.rows());
            return Err(LinkEnd::Rows(RowsError::Incomplete(why)));
        }
        let generation = load.finish()?;
        let db = receiver.opening().and_then(|opening| opening.db);
        let databases = server.shared.settings.databases;
        let point = SyncPoint { history: History::new(id), offset, db: db.filter(|db| *db < databases) };
        {
            let _switch = server.replication.switch.lock();
            wire.check()?;
            wire.beside(|| intake::make_current(server.node(), generation, point, upstream))??;
        }
        log::info!(
            "MASTER <-> REPLICA sync: Finished with success: {} keys, {} rows in {bytes} bytes, in {} ms, {} times resumed; \
             history {id} at {offset}",
            view.keys,
            receiver.rows(),
            monotonic_ms() - view.since,
            view.resumed
        );
        wire.replica.installed(offset, monotonic_ms());
        Ok(())
    }
}

/// Receives blocks up to the last one.
fn rows(
    server: &Arc<Server>,
    wire: &mut Wire<'_>,
    partial: &mut Partial,
    point: (ReplId, Offset),
) -> Result<(), LinkEnd> {
    loop {
        let step = wire.step()?;
        let Some(Event::Rows(range)) = step.event else {
            wire.more()?;
            continue;
        };
        // First, because the receiver asks for the block behind this one from then on, even if this link breaks.
        if let Some(worker) = &mut partial.worker {
            worker.make_room(|| wire.idle())?;
        }
        let (taken, part) = partial.receiver.push(wire.bytes(range, step.consumed))?;
        wire.skip(taken);
        partial.bytes += taken as u64;
        match part {
            Some(Part::Opening(opening)) => {
                partial.worker = Some(open(server, &opening, point)?);
                (partial.view.keys, partial.view.about_bytes) = (opening.keys, opening.about_bytes);
            }
            Some(Part::Rows(block)) => {
                let Some(worker) = &mut partial.worker else { unreachable!("block 0 is the opening") };
                worker.push(block);
            }
            Some(Part::End(_)) => return Ok(()),
            None => continue,
        }
        partial.view.rows = partial.receiver.rows();
        let now = monotonic_ms();
        let mut link = server.replication.link.lock();
        (link.sync_total, link.sync_read) = (Some(partial.view.about_bytes).filter(|bytes| *bytes > 0), partial.bytes);
        (link.sync_rows, link.sync_heard, link.heard) = (Some(partial.view), now, now);
    }
}

/// The rows are about to come: a generation for them.
fn open(server: &Arc<Server>, opening: &Opening, point: (ReplId, Offset)) -> Result<Worker, LinkEnd> {
    if (opening.id, opening.offset) != point {
        return Err(LinkEnd::Rows(RowsError::Damaged("the opening")));
    }
    let generation: GenerationLoader = server.store.begin_generation()?;
    log::info!("MASTER <-> REPLICA sync: {} keys are coming into {}", opening.keys, generation.generation());
    let load = RawLoad::new(generation, &opening.catalog)?;
    Worker::start(load).map_err(|error| WireError::Io { doing: "starting a thread for the rows", error }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_repl::rows::{Pushed, RowsSender};

    const SYNC: [u8; 20] = [3; 20];

    /// Blocks of one long row each, from number 1 on, until they are too many for the queue by half.
    fn blocks() -> Vec<Vec<u8>> {
        let sync = SyncId(ReplId::from_random(SYNC));
        let id = ReplId::from_random([1; 20]);
        let opening = Opening { id, offset: Offset(0), db: None, keys: 0, about_bytes: 0, catalog: Vec::new() };
        let mut sender = RowsSender::new(sync, &opening);
        let mut first = Vec::new();
        sender.open(&mut first);
        let mut made = vec![first];
        let value = vec![7; 1 << 20];
        for number in 0..6u8 {
            assert_eq!(sender.push(&[number], &value), Ok(Pushed::Taken));
            let mut out = Vec::new();
            sender.seal(&mut out);
            made.push(out);
        }
        made
    }

    /// A link that breaks while the engine is slow must not take a block along that the receiver has counted.
    #[test]
    fn a_block_that_was_taken_off_the_wire_is_not_lost_with_the_link() {
        let mut receiver = RowsReceiver::new(SyncId(ReplId::from_random(SYNC)));
        let mut worker = Worker { queue: Arc::default(), thread: None };
        let mut broken = false;
        for block in blocks() {
            let mut left = &block[..];
            while !left.is_empty() {
                if worker.make_room(|| Err(WireError::Killed)).is_err() {
                    broken = true;
                    break;
                }
                let (taken, part) = receiver.push(left).unwrap();
                left = &left[taken..];
                if let Some(Part::Rows(block)) = part {
                    worker.push(block);
                }
            }
        }
        assert!(broken, "the queue was full");
        // What is asked for next is exactly what is not in the queue.
        worker.close();
        let mut queued = Blocks { queue: worker.queue.clone(), open: None };
        let mut next = 1;
        while let Some((key, value)) = queued.next_row().unwrap() {
            assert_eq!((key, value.len()), (&[next as u8 - 1][..], 1 << 20));
            next += 1;
        }
        assert_eq!(receiver.next(), next);
        assert!((2..7).contains(&next), "{next}");
    }
}
