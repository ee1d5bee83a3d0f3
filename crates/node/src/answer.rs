//! What a replica that asks for the stream gets: decided on one consistent look at the names of the history and the log.

use ardb_base::id::Offset;
use ardb_log::ReadError;
use ardb_repl::master::{self, Ask, Decision, Held, Why};
use ardb_store::{History, Store};

use crate::outflow::{Outflow, OutflowEnd};

/// The answer to SYNC or PSYNC.
#[derive(Debug)]
pub enum Answer {
    /// The stream goes on where the replica stands; its history has this name from now on.
    Continue {
        /// Where it stands.
        from: Offset,
        /// Our history, as it was decided upon.
        history: History,
        /// The bytes from there on.
        outflow: Box<Outflow>,
    },
    /// Everything.
    Full(Why),
}

/// Decides.
#[must_use]
pub fn answer(store: &Store, ask: Ask<'_>) -> Answer {
    let log = store.log();
    // Name and log must be of the same history; an install or a promotion may come in between.
    loop {
        let (epoch, history) = (log.epoch(), store.history());
        let held = Held {
            id: history.id,
            second: history.second,
            second_until: history.second_until,
            start: log.start(),
            end: log.end(),
        };
        let answer = match master::decide(ask, &held) {
            Decision::Full(why) => Answer::Full(why),
            Decision::Continue(from) => match Outflow::new(store, history.id, from) {
                Ok(mut outflow) => match outflow.gather(store) {
                    Ok(()) | Err(OutflowEnd::Renamed(_) | OutflowEnd::Sync(_)) => {
                        Answer::Continue { from, history, outflow: Box::new(outflow) }
                    }
                    // Who comes to damaged bytes would come to them again and again.
                    Err(OutflowEnd::Log(error)) => {
                        log::warn!("the log cannot be read at {from}: {error}");
                        Answer::Full(Why::Damaged)
                    }
                },
                // The log has let it go since.
                Err(ReadError::OutOfRange { start, end, .. }) => {
                    Answer::Full(Why::OutOfLog { first: start.0 + 1, next: end.0 + 1 })
                }
                Err(error) => {
                    log::warn!("the log cannot be read at {from}: {error}");
                    Answer::Full(Why::Damaged)
                }
            },
        };
        if log.epoch() == epoch && store.history() == history {
            return answer;
        }
    }
}
