//! Bringing the data to the end of the log after a start: the commands of each frame run through the dispatcher again.
//!
//! Nothing is logged again, nothing expires by the clock and nothing is refused, so the result is what it was before. But scripts that EVALSHA names, and
//! changes that clients made on a replica, are not in the log: what needs them cannot be executed again.

use ardb_base::id::Offset;
use ardb_log::Frames;
use ardb_repl::stream::Splitter;
use ardb_store::{ReplayError, ReplayProgress, WriteTxn};

use crate::Node;
use crate::apply::{self, Applier, ApplyError};

/// Bytes of the log whose keys are looked up before their commands are executed.
const WINDOW: usize = 1 << 20;

/// A key, with its database.
pub type DbKey = (u32, Vec<u8>);

/// Replays the log, telling `progress` after each frame. Gives the number of commands.
///
/// # Errors
/// The log cannot be read, or does not fit the data.
pub fn replay(node: Node<'_>, progress: &mut dyn FnMut(ReplayProgress)) -> Result<u64, ReplayError> {
    let mut applier = Applier::default();
    run(node, &mut applier, &mut false, &mut |_| {}, progress)?;
    Ok(applier.commands)
}

/// `unread` tells whether it ended because the data could not be read.
fn run(
    node: Node<'_>,
    applier: &mut Applier,
    unread: &mut bool,
    coming: &mut dyn FnMut(Vec<DbKey>),
    progress: &mut dyn FnMut(ReplayProgress),
) -> Result<(), ReplayError> {
    let mut scout = None;
    node.store.replay(
        &mut |txn: &mut WriteTxn<'_>, frame| {
            if scout.as_ref().is_none_or(|scout: &Scout| scout.until <= frame.offset) {
                // What it cannot read, the replay will not be able to read either.
                scout = Scout::at(node, frame.offset, scout.take());
                if let Some(scout) = &mut scout {
                    coming(scout.keys(node));
                }
            }
            // The transaction's frame knows the database that the log has selected here.
            let mut splitter = Splitter::new(usize::MAX);
            splitter.push(frame.payload).map_err(|error| error.to_string())?;
            if let Some(units) = splitter.batch(usize::MAX) {
                let applied = units.bytes().len();
                if applied != frame.payload.len() {
                    return Err(format!("a frame of {} bytes ends within a command at {applied}", frame.payload.len()));
                }
                applier.apply(node, txn, &units, frame.offset, frame.time).map_err(|(_, error)| {
                    *unread = matches!(error, ApplyError::Storage { .. });
                    error.to_string()
                })?;
            }
            Ok(())
        },
        progress,
    )
}

/// Reads the log ahead of the replay.
struct Scout {
    frames: Frames,
    /// Everything before it was read.
    until: Offset,
}

impl Scout {
    /// The one that was there, if it stands at `at`, or a new one.
    fn at(node: Node<'_>, at: Offset, scout: Option<Scout>) -> Option<Scout> {
        match scout {
            Some(scout) if scout.until == at => Some(scout),
            _ => Some(Scout { frames: node.store.log().frames_from(at).ok()?, until: at }),
        }
    }

    /// The keys of the next frames.
    fn keys(&mut self, node: Node<'_>) -> Vec<DbKey> {
        let mut keys = Vec::new();
        let mut read = 0;
        while read < WINDOW
            && let Ok(Some(frame)) = self.frames.next_frame()
        {
            self.until = frame.end();
            read += frame.payload.len();
            let mut splitter = Splitter::new(usize::MAX);
            if splitter.push(&frame.payload).is_ok()
                && let Some(units) = splitter.batch(usize::MAX)
            {
                // A number beyond all databases stands for one that is not known: its key is looked for in the wrong one, or not at all.
                apply::each_key(node, &units, frame.db, &mut |db, key| keys.push((db, key.to_vec())));
            }
        }
        keys
    }
}

/// What a start has replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Commands.
    pub commands: u64,
    /// Where the log was given up, and why, if it was.
    pub given_up: Option<(Offset, String)>,
}

/// As [`replay`], and `coming` is given the keys of what is executed next, so that their rows can be read from the disk together. But a replica begins all the same if a frame cannot be executed: the log is given up from there on, and the history with it, so
/// that the master will be asked for everything. It has all of it, and nobody else would have these data go on.
///
/// # Errors
/// As [`replay`]; the data cannot be read, which may be over soon; on a master a frame that cannot be executed is one.
pub fn replay_what_can_be(
    node: Node<'_>,
    coming: &mut dyn FnMut(Vec<DbKey>),
    progress: &mut dyn FnMut(ReplayProgress),
) -> Result<Replayed, ReplayError> {
    let mut applier = Applier::default();
    let mut unread = false;
    let replayed = run(node, &mut applier, &mut unread, coming, progress);
    let commands = applier.commands;
    match replayed {
        Ok(()) => Ok(Replayed { commands, given_up: None }),
        Err(ReplayError::Apply { at, why }) if !unread && node.store.upstream().is_some() => {
            let start = node.store.give_up_rest()?;
            debug_assert_eq!(start, at, "everything before the frame was applied");
            Ok(Replayed { commands, given_up: Some((start, why)) })
        }
        Err(error) => Err(error),
    }
}
