//! The stream of our master on its way into the log: whole units, executed in one transaction whose frame is exactly their bytes, and
//! acknowledged only then.
//!
//! Invariants: data and position change in one commit; the log is a prefix of what the master sent; nothing is committed at another
//! offset than the stream's own, so nobody else can have written in between.

use std::sync::atomic::Ordering;

use ardb_base::id::{Offset, UnixMs};
use ardb_engine::Rows;
use ardb_log::SyncError;
use ardb_repl::Ms;
use ardb_repl::replica::Replica;
use ardb_repl::stream::{Batch as Units, Splitter, StreamError, UNIT_LIMIT};
use ardb_store::{CommitError, Reader};
use ardb_types::At;

use crate::Node;
use crate::apply::{self, Applier, ApplyError};

/// Bytes of units that go into one commit, unless a single unit is longer. The rows of so many commands stay in a processor's cache.
const COMMIT_BYTES: usize = 128 << 10;

/// Why the stream does not go on here.
#[derive(Debug, thiserror::Error)]
pub enum InflowError {
    /// The link is not wanted any more; nothing was committed.
    #[error("the link is no longer wanted")]
    Cancelled,
    /// A command cannot be executed here; everything before it is committed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The commit was refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The log could not be synced.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// The moment of a commit, and what goes with it.
#[derive(Clone, Copy)]
pub struct When<'a> {
    /// The time at which the commands are executed, ms since 1970.
    pub unix: UnixMs,
    /// The link's own clock.
    pub link: Ms,
    /// Whether each commit is synced before it is acknowledged.
    pub sync: bool,
    /// Whether the link is still wanted; asked under the writer lock.
    pub wanted: &'a dyn Fn() -> bool,
}

/// The stream of one link.
pub struct Inflow {
    splitter: Splitter,
    applier: Applier,
    /// The stream's own offset. The log must agree with it at each commit.
    at: Offset,
}

impl Inflow {
    /// A stream that goes on at `at`.
    #[must_use]
    pub fn new(at: Offset) -> Inflow {
        Inflow { splitter: Splitter::new(UNIT_LIMIT), applier: Applier::default(), at }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The stream is no stream. What was whole before the fault can still be committed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.splitter.push(bytes)
    }

    /// Everything before this offset was received.
    #[must_use]
    pub fn received(&self) -> Offset {
        self.at.advance(self.splitter.waiting())
    }

    /// Visits the keys of the next commit, so that their rows can be brought into memory before the lock is taken. Gives whether there is anything to
    /// commit.
    pub fn each_key<'s>(&'s self, node: Node<'_>, visit: &mut dyn FnMut(u32, &'s [u8])) -> bool {
        let Some(units) = self.splitter.batch(COMMIT_BYTES) else { return false };
        let db = {
            // The database at the beginning; nobody else changes it while we are the one who appends.
            let mut txn = node.store.write();
            txn.frame().db.unwrap_or(0)
        };
        apply::each_key(node, &units, db, visit);
        true
    }

    /// Brings the rows of the next commit into memory, on this thread. Gives whether there is anything to commit.
    pub fn read_ahead(&self, node: Node<'_>, reader: &mut Reader) -> bool {
        let view = reader.begin();
        self.each_key(node, &mut |db, key| {
            // What cannot be read here will be reported by the command itself.
            let _ = view.get(At::new(&view, db, key, UnixMs::MIN).row());
        })
    }

    /// Commits the whole units that have come, up to a limit, and then tells `replica`, which acknowledges them. If one of them fails, those before
    /// it are committed all the same. Gives whether there was anything to commit.
    ///
    /// # Errors
    /// The link must end.
    pub fn commit(&mut self, node: Node<'_>, replica: &mut Replica, when: When<'_>) -> Result<bool, InflowError> {
        let Some(units) = self.splitter.batch(COMMIT_BYTES) else { return Ok(false) };
        let end = match commit(node, &mut self.applier, &units, self.at, when) {
            Ok(end) => end,
            Err((0, error)) => return Err(error),
            Err((whole, error)) => {
                // The units before the one that failed are good.
                commit(node, &mut self.applier, &units.prefix(whole), self.at, when).map_err(|(_, error)| error)?;
                return Err(error);
            }
        };
        let bytes = units.bytes().len();
        self.splitter.consume(bytes);
        self.at = self.at.advance(bytes);
        debug_assert_eq!(end, self.at, "the frame is what was received");
        if when.sync {
            node.store.sync_to(end)?;
        }
        replica.applied(self.at);
        replica.synced(node.store.log().synced());
        if std::mem::take(&mut self.applier.asked) {
            replica.acknowledge(when.link);
        }
        Ok(true)
    }
}

/// Executes the units, which begin at `at`, and appends their bytes, as one commit. An error comes with the length of the units before
/// the one that failed.
fn commit(
    node: Node<'_>,
    applier: &mut Applier,
    units: &Units<'_>,
    at: Offset,
    when: When<'_>,
) -> Result<Offset, (usize, InflowError)> {
    let mut txn = node.store.write();
    if !(when.wanted)() {
        return Err((0, InflowError::Cancelled));
    }
    let want = txn.offset();
    if want != at {
        return Err((0, CommitError::Offset { want, got: at }.into()));
    }
    applier.apply(node, &mut txn, units, at, when.unix).map_err(|(whole, error)| (whole, error.into()))?;
    if node.shared.gates.abandon_script.load(Ordering::SeqCst) {
        return Err((0, InflowError::Cancelled));
    }
    let payload = &mut txn.frame().payload;
    payload.clear();
    payload.extend_from_slice(units.bytes());
    txn.commit_verbatim(at).map_err(|error| (0, error.into()))
}
