//! Receiving everything from another Ardb server: the thread and the queue between the wire and the new generation. What is decided about what comes is in
//! `ardb_node::rows`.
//!
//! The link's thread takes the blocks apart and checks them; a thread of the transfer brings their rows into the new engine. Between the two is a queue
//! of a few blocks, so memory stays flat.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_node::intake;
use ardb_node::rows::{BlockRows, Filler, Ongoing, Partial, Promise, RowsIntakeError, Taken};
use ardb_repl::replica::Event;
use ardb_repl::rows::{RawRows, RowsError};
use ardb_store::{GenerationError, RawLoad};
use parking_lot::{Condvar, Mutex};

use super::link::LinkEnd;
use super::status::{RowsView, monotonic_ms};
use super::wire::{Wire, WireError};
use crate::server::Server;

/// Bytes of rows from which on no further block is taken off the wire before the engine has had some.
const QUEUE_BYTES: usize = 4 << 20;
/// How long the link's thread waits for room before it looks at the clock.
const ROUND: Duration = Duration::from_millis(50);
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
struct Blocks(Arc<Queue>);

impl Blocks {
    /// The next block, whenever it comes.
    fn wait(&self) -> Option<RawRows> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(block) = state.blocks.pop_front() {
                state.bytes -= block.bytes();
                self.0.changed.notify_all();
                return Some(block);
            }
            if state.closed {
                return None;
            }
            self.0.changed.wait(&mut state);
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.dead = true;
        state.blocks.clear();
        self.0.changed.notify_all();
    }
}

/// The thread that fills the new generation.
pub struct Worker {
    /// When it began.
    since: u64,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Result<RawLoad, GenerationError>>>,
}

impl Worker {
    fn start(load: RawLoad) -> Result<Worker, LinkEnd> {
        let queue = Arc::new(Queue::default());
        let blocks = Blocks(queue.clone());
        let mut load = load;
        let thread = std::thread::Builder::new().name("ardb-rows".into()).spawn(move || {
            let result = load.part(&mut BlockRows::new(|| blocks.wait()));
            drop(blocks);
            result.map(|()| load)
        });
        let thread = thread.map_err(|error| WireError::Io { doing: "starting a thread for the rows", error })?;
        Ok(Worker { since: monotonic_ms(), queue, thread: Some(thread) })
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

impl Filler for Worker {
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

/// Receives everything, or the rest of it, and makes it current.
///
/// # Errors
/// The link must be given up; the old data are as they were.
pub fn receive(
    ongoing: &mut Ongoing<Worker>,
    server: &Arc<Server>,
    wire: &mut Wire<'_>,
    promise: Promise,
    upstream: &str,
) -> Result<(), LinkEnd> {
    rows(server, wire, ongoing.begin(promise)?)?;
    let Some(whole) = ongoing.take_whole() else {
        return Err(RowsError::Incomplete("the end came without a beginning".into()).into());
    };
    wire.replica.rows_end();
    let (resumed, bytes, keys) = (whole.resumed, whole.bytes, whole.keys());
    let (worker, counted) = whole.part();
    let since = worker.since;
    let load = worker.finish(|| wire.idle())?;
    let (generation, point) = counted.finish(server.node(), load)?;
    let (id, offset) = (point.history.id, point.offset);
    {
        let _switch = server.replication.switch.lock();
        wire.check()?;
        wire.beside(|| intake::make_current(server.node(), generation, point, upstream))??;
    }
    log::info!(
        "MASTER <-> REPLICA sync: Finished with success: {keys} keys, {} rows in {bytes} bytes, in {} ms, {resumed} times resumed; \
         history {id} at {offset}",
        counted.rows(),
        monotonic_ms() - since,
    );
    wire.replica.installed(offset, monotonic_ms());
    Ok(())
}

/// Receives blocks up to the last one.
fn rows(server: &Arc<Server>, wire: &mut Wire<'_>, partial: &mut Partial<Worker>) -> Result<(), LinkEnd> {
    loop {
        let step = wire.step()?;
        let Some(Event::Rows(range)) = step.event else {
            wire.more()?;
            continue;
        };
        // First, because the receiver asks for the block behind this one from then on, even if this link breaks.
        if let Some(worker) = partial.filler() {
            worker.make_room(|| wire.idle())?;
        }
        let (taken, what) = partial.push(wire.bytes(range, step.consumed))?;
        wire.skip(taken);
        match what {
            Taken::Opening(opening) => partial.open(server.node(), &opening, Worker::start)?,
            Taken::Block => {}
            Taken::End => return Ok(()),
            Taken::Part => continue,
        }
        show(server, partial);
    }
}

/// Shows others how far it is.
fn show(server: &Server, partial: &mut Partial<Worker>) {
    let now = monotonic_ms();
    let (keys, about_bytes) = partial.promised();
    let since = partial.filler().map_or(now, |worker| worker.since);
    let view = RowsView { rows: partial.rows(), keys, about_bytes, since, resumed: partial.resumed() };
    let mut link = server.replication.link.lock();
    (link.sync_total, link.sync_read) = (Some(about_bytes).filter(|bytes| *bytes > 0), partial.bytes());
    (link.sync_rows, link.sync_heard, link.heard) = (Some(view), now, now);
}

impl From<RowsIntakeError> for LinkEnd {
    fn from(error: RowsIntakeError) -> LinkEnd {
        match error {
            RowsIntakeError::Rows(error) => error.into(),
            RowsIntakeError::Generation(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::id::{Offset, ReplId};
    use ardb_repl::rows::{Opening, Part, Pushed, RowsReceiver, RowsSender, SyncId};
    use ardb_store::RowSource;

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
        let mut worker = Worker { since: 0, queue: Arc::default(), thread: None };
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
        let blocks = Blocks(worker.queue.clone());
        let mut queued = BlockRows::new(|| blocks.wait());
        let mut next = 1;
        while let Some((key, value)) = queued.next_row().unwrap() {
            assert_eq!((key, value.len()), (&[next as u8 - 1][..], 1 << 20));
            next += 1;
        }
        assert_eq!(receiver.next(), next);
        assert!((2..7).contains(&next), "{next}");
    }
}
