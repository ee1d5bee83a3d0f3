//! The names of the history when the role changes: what a start finds, REPLICAOF, promotion, and a master that gives the history a new name.
//!
//! Every name is durable before anybody hears of it. The upstream is kept as text, which only the server understands.

use std::sync::atomic::Ordering;

use ardb_base::id::{Generation, Offset, ReplId};
use ardb_commands::effects;
use ardb_log::SyncError;
use ardb_store::{CommitError, History, StateError, Store};

use crate::Node;

/// Takes the role up that the data and the configuration say: gives the upstream, if there is one. The configured one goes before the stored one.
///
/// # Errors
/// The state could not be written.
pub fn take_up(node: Node<'_>, configured: Option<String>) -> Result<Option<String>, StateError> {
    let stored = node.store.upstream().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Some(upstream) = configured.or(stored.clone()) else { return Ok(None) };
    if stored.as_ref() != Some(&upstream) {
        follow(node.store, &upstream)?;
    }
    node.shared.gates.is_replica.store(true, Ordering::SeqCst);
    Ok(Some(upstream))
}

/// Makes it durable that another server is followed. The history stays what it is until that one says otherwise. From now on nobody may append but
/// the link.
///
/// # Errors
/// The state could not be written; nothing has changed.
pub fn follow(store: &Store, upstream: &str) -> Result<(), StateError> {
    store.set_history(store.history(), Some(upstream.as_bytes().to_vec()))
}

/// As [`follow`], where the other server was our replica and is to take the role of the master from us: after a restart it must be asked for that again,
/// until [`Store::handed_over`]. `complete` says that it is to take it only with everything that is in the log.
///
/// # Errors
/// The state could not be written; nothing has changed for this process, and the next one may find it ([`keep`]).
pub fn hand_over(store: &Store, upstream: &str, complete: bool) -> Result<(), StateError> {
    store.hand_over(upstream.as_bytes().to_vec(), complete)
}

/// The role that [`hand_over`] could not give away stays here: what may stand in the state file all the same is overwritten, so that no start gives the role
/// away behind the writes that follow.
///
/// # Errors
/// The state could not be written.
pub fn keep(store: &Store) -> Result<(), StateError> {
    store.set_history(store.history(), None)
}

/// Where a master is asked to go on; `None` if nothing was ever written or received, so that there is no history to go on with. The master takes it
/// for acknowledged, so it is durable if `sync` says that every commit is to be before it is acknowledged.
///
/// # Errors
/// The log could not be synced.
pub fn position(store: &Store, sync: bool) -> Result<Option<(ReplId, Offset)>, SyncError> {
    // Whatever was in the middle of a commit is over once the lock is free.
    let end = store.write().offset();
    if sync {
        // The last commit may be one whose sync has failed, which ended the link before this one.
        store.sync_to(end)?;
    }
    let fresh = end == Offset(0) && store.stats().generation == Generation(1);
    Ok((!fresh).then(|| (store.history().id, end)))
}

/// The master lets us go on. If its history has got another name, ours takes it too, and the old one is given back.
///
/// # Errors
/// The state could not be written.
pub fn accept(store: &Store, id: Option<ReplId>, upstream: &str) -> Result<Option<ReplId>, StateError> {
    let before = store.history();
    let Some(id) = id.filter(|id| *id != before.id) else { return Ok(None) };
    let history = History { id, second: before.id, second_until: store.log().end() };
    store.set_history(history, Some(upstream.as_bytes().to_vec()))?;
    Ok(Some(before.id))
}

/// The history goes on under a new name from here, as our own. `switch` is called with the writer lock held, when the name is durable and before anybody
/// can write; no link may commit any more.
///
/// # Errors
/// The state could not be written; the name is the old one.
pub fn promote(node: Node<'_>, switch: impl FnOnce()) -> Result<History, StateError> {
    let history = node.store.fork_history()?;
    let mut txn = node.store.write();
    // A replica that knows only the name of the history does not know what was selected in the stream. It is said at once, so that it stands in the log
    // whatever happens to this process, and to its role, before the first write.
    let db = txn.frame().db.unwrap_or(0);
    effects::append_command(&mut txn.frame().payload, &[b"SELECT", db.to_string().as_bytes()]);
    txn.frame().db = Some(db);
    if let Err(error) = txn.commit() {
        log::warn!("The database of the stream is not said before the first write: {error}");
        txn.frame().db = None;
        if let Err(error) = txn.commit() {
            log::warn!("The database of the stream is not forgotten: {error}");
        }
    }
    node.shared.gates.is_replica.store(false, Ordering::SeqCst);
    switch();
    Ok(history)
}

/// Puts bytes of ours into the stream (PING, say), if the stream is ours. While a script is busy nothing enters the stream, on Redis neither.
///
/// # Errors
/// They were not logged.
pub fn say(node: Node<'_>, bytes: &[u8]) -> Result<(), CommitError> {
    let Some(mut txn) = node.write_unless_busy() else { return Ok(()) };
    // Under the lock, because a replica's log is its master's stream and nothing else.
    if node.shared.gates.is_replica.load(Ordering::SeqCst) {
        return Ok(());
    }
    txn.frame().payload.extend_from_slice(bytes);
    txn.commit().map(|_| ())
}
