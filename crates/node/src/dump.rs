//! What a replica gets that cannot go on: a snapshot at an offset of the log, written as RDB.
//!
//! The log is held from that offset on as long as the snapshot (or the pin taken out of it) lives. Where we are a replica ourselves and the stream has
//! selected a database other than 0 at that offset, the RDB says so in an auxiliary field, which takes version 7.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use ardb_base::id::{Offset, ReplId};
use ardb_commands::persist::save;
use ardb_rdb::{Writer, WriterOptions};
use ardb_store::StoreSnapshot;

use crate::Node;

/// The version with auxiliary fields.
const AUX_VERSION: u32 = 7;

/// Where the data of a dump stand.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The history.
    pub id: ReplId,
    /// The next byte of the stream.
    pub offset: Offset,
    /// The database that is selected there; `None` if the stream says it first.
    pub db: Option<u32>,
}

impl Point {
    fn of(snapshot: &StoreSnapshot) -> Point {
        Point { id: snapshot.id(), offset: snapshot.offset(), db: snapshot.stream_db() }
    }

    /// Whether a replica must be told by the RDB which database is selected.
    #[must_use]
    pub fn needs_aux(&self) -> bool {
        self.db.is_some_and(|db| db != 0)
    }

    /// The same for an RDB that does not say it, and has version 6 therefore.
    #[must_use]
    pub fn without_aux(self) -> Point {
        Point { db: None, ..self }
    }
}

/// A snapshot of everything, after which the stream selects its database anew where it is ours.
///
/// # Errors
/// The reason, for the log.
pub fn snapshot(node: Node<'_>) -> Result<(StoreSnapshot, Point), String> {
    // The role changes under the lock under which this is asked. One who looked before could make a replica forget what its master's stream has selected.
    let ours = || !node.shared.gates.is_replica.load(Ordering::SeqCst);
    let snapshot = node.store.snapshot_for_replica(ours).map_err(|error| error.to_string())?;
    let point = Point::of(&snapshot);
    Ok((snapshot, point))
}

/// Writes the RDB of a snapshot. `go_on` is asked after each key.
///
/// # Errors
/// The reason, for the log.
pub fn write(
    snapshot: &StoreSnapshot,
    point: &Point,
    out: impl Write,
    go_on: impl Fn() -> bool,
) -> Result<u64, String> {
    let mut options = WriterOptions::default();
    if point.needs_aux() {
        options.version = AUX_VERSION;
    }
    let mut writer = Writer::new(out, options).map_err(|error| error.to_string())?;
    if let Some(db) = point.db.filter(|_| point.needs_aux()) {
        writer.aux(b"repl-stream-db", db.to_string().as_bytes()).map_err(|error| error.to_string())?;
    }
    let saved = save::whole(snapshot, snapshot.databases(), &mut writer, &mut |_| {
        if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(saved.keys)
}
