//! Bringing the data to the end of the log after a start: the commands of each frame run through the dispatcher again.
//!
//! Nothing is logged again, nothing expires by the clock and nothing is refused, so the result is what it was before.

use ardb_repl::stream::Splitter;
use ardb_store::{ReplayError, ReplayProgress, WriteTxn};

use crate::Node;
use crate::apply::Applier;

/// Replays the log, telling `progress` after each frame. Gives the number of commands.
///
/// # Errors
/// The log cannot be read, or does not fit the data.
pub fn replay(node: Node<'_>, progress: &mut dyn FnMut(ReplayProgress)) -> Result<u64, ReplayError> {
    let mut applier = Applier::default();
    node.store.replay(
        &mut |txn: &mut WriteTxn<'_>, frame| {
            // The transaction's frame knows the database that the log has selected here.
            let mut splitter = Splitter::new(usize::MAX);
            splitter.push(frame.payload).map_err(|error| error.to_string())?;
            if let Some(units) = splitter.batch(usize::MAX) {
                let applied = units.bytes().len();
                if applied != frame.payload.len() {
                    return Err(format!("a frame of {} bytes ends within a command at {applied}", frame.payload.len()));
                }
                applier.apply(node, txn, &units, frame.offset, frame.time).map_err(|(_, error)| error.to_string())?;
            }
            Ok(())
        },
        progress,
    )?;
    Ok(applier.commands)
}
