//! Bringing the data to the end of the log after a start: the commands of each frame run through the dispatcher again.
//!
//! Nothing is logged again, nothing expires by the clock and nothing is refused, so the result is what it was before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ardb_repl::stream::Splitter;
use ardb_store::{ReplayError, WriteTxn};

use crate::repl::apply::Applier;
use crate::server::Server;

/// How often a long replay says how far it is.
const REPORT: Duration = Duration::from_secs(2);

/// Replays the log. Gives the number of commands.
///
/// # Errors
/// The log cannot be read, or does not fit the data.
pub fn replay(server: &Arc<Server>) -> Result<u64, ReplayError> {
    let mut applier = Applier::default();
    let mut reported = Instant::now();
    let mut first = None;
    server.store.replay(
        &mut |txn: &mut WriteTxn<'_>, frame| {
            // The transaction's frame knows the database that the log has selected here.
            let mut splitter = Splitter::new(usize::MAX);
            splitter.push(frame.payload).map_err(|error| error.to_string())?;
            if let Some(units) = splitter.batch(usize::MAX) {
                let applied = units.bytes().len();
                if applied != frame.payload.len() {
                    return Err(format!("a frame of {} bytes ends within a command at {applied}", frame.payload.len()));
                }
                applier.apply(server, txn, &units, frame.offset, frame.time).map_err(|(_, error)| error.to_string())?;
            }
            Ok(())
        },
        &mut |progress| {
            let start = *first.get_or_insert(progress.at);
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                let done = progress.at.since(start);
                log::info!("Replaying the log: {done} of {} bytes", progress.end.since(start));
            }
        },
    )?;
    Ok(applier.commands)
}
