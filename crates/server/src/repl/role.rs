//! Whom we follow: REPLICAOF, promotion, and what a start finds.
//!
//! Every change counts [`turn`](super::status::Replication::turn) up under the writer lock, so that an older link can commit nothing
//! after it; names of histories are durable before a client hears of the change.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_node::role;
use ardb_store::StateError;

use super::status::{LinkView, Upstream, monotonic_ms};
use super::{link, refresh_gates};
use crate::blocking::{self, Release};
use crate::server::Server;

/// What the data and the configuration say at a start.
pub fn take_up(server: &Arc<Server>) -> Result<(), StateError> {
    let configured = Upstream::parse(&server.config.text("replicaof"));
    let upstream = role::take_up(server.node(), configured.map(|upstream| upstream.text()))?;
    let Some(upstream) = upstream.and_then(|text| Upstream::parse(&text)) else { return Ok(()) };
    server.config.note("replicaof", upstream.text().into_bytes());
    log::info!("This server is a replica of {}", upstream.text());
    server.replication.link.lock().down_since = monotonic_ms();
    if server.replication.failover.resume(&server.store) {
        log::warn!("The failover to {} was not over when this server ended; it is asked again", upstream.text());
    }
    *server.replication.upstream.lock() = Some(upstream);
    refresh_gates(server);
    Ok(())
}

/// Starts the link for the present turn, if we follow anyone and it was not started before. (A client's REPLICAOF may come before the start of the
/// server has come here.)
pub fn follow(server: &Arc<Server>) {
    let mut linked = server.replication.linked.lock();
    let Some(upstream) = server.replication.upstream.lock().clone() else { return };
    let turn = server.replication.turn.load(Ordering::SeqCst);
    if *linked == Some(turn) {
        return;
    }
    let of_thread = server.clone();
    let spawned =
        std::thread::Builder::new().name("ardb-link".into()).spawn(move || link::run(&of_thread, &upstream, turn));
    match spawned {
        Ok(thread) => {
            *linked = Some(turn);
            server.replication.keep(thread);
        }
        Err(error) => log::error!("No thread for the link to the master: {error}; REPLICAOF tries again"),
    }
}

/// Ends what the link may be waiting for.
pub fn hang_up(server: &Server) {
    if let Some(socket) = server.replication.link.lock().socket.take() {
        // It may be closed already.
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Follows another server. The data stay until that one has sent everything, unless it lets us go on from here.
///
/// # Errors
/// The state could not be written; nothing has changed.
pub fn replicate(server: &Arc<Server>, upstream: Upstream) -> Result<(), StateError> {
    replicate_if(server, upstream, None, || true).map(|_| ())
}

/// As [`replicate`], if that is still `wanted` when no other change of the role is under way. Gives whether it was. With `handing` it was our replica,
/// and is to take the role from us, only with everything that is here if that is true.
///
/// # Errors
/// The state could not be written; nothing has changed.
pub fn replicate_if(
    server: &Arc<Server>,
    upstream: Upstream,
    handing: Option<bool>,
    wanted: impl FnOnce() -> bool,
) -> Result<bool, StateError> {
    let replication = &server.replication;
    let _switch = replication.switch.lock();
    if !wanted() {
        return Ok(false);
    }
    let text = upstream.text();
    match handing {
        Some(complete) => role::hand_over(&server.store, &text, complete)?,
        None => role::follow(&server.store, &text)?,
    }
    {
        let _txn = server.store.write();
        replication.turn.fetch_add(1, Ordering::SeqCst);
        replication.failover.forget_resumed();
        server.shared.gates.is_replica.store(true, Ordering::SeqCst);
        *replication.upstream.lock() = Some(upstream);
        hang_up(server);
        *replication.link.lock() = LinkView { down_since: monotonic_ms(), ..LinkView::default() };
        refresh_gates(server);
    }
    server.config.note("replicaof", text.clone().into_bytes());
    log::info!("REPLICAOF {text} enabled");
    for client in server.parked.select(|_| true) {
        blocking::release(server, client, Release::RoleChanged);
    }
    follow(server);
    Ok(true)
}

/// The role that could not be given away stays here, whatever the state file may say of that.
pub fn keep(server: &Server) {
    let _switch = server.replication.switch.lock();
    if server.replication.is_replica() {
        return;
    }
    if let Err(error) = role::keep(&server.store) {
        log::error!("A restart of this server may give its role away: {error}");
    }
}

/// Becomes a master: the history goes on under a new name from here. Gives whether anything changed.
///
/// # Errors
/// The state could not be written; this server is still a replica.
pub fn promote(server: &Arc<Server>) -> Result<bool, StateError> {
    promote_if(server, || true)
}

/// As [`promote`], if that is still `wanted` when no other change of the role is under way.
///
/// # Errors
/// The state could not be written; this server is still a replica.
pub fn promote_if(server: &Arc<Server>, wanted: impl FnOnce() -> bool) -> Result<bool, StateError> {
    let replication = &server.replication;
    let _switch = replication.switch.lock();
    if !replication.is_replica() || !wanted() {
        return Ok(false);
    }
    {
        // The link is in no commit now, and does none after this.
        let _txn = server.store.write();
        replication.turn.fetch_add(1, Ordering::SeqCst);
        hang_up(server);
    }
    let promoted = role::promote(server.node(), || {
        *replication.upstream.lock() = None;
        replication.failover.forget_resumed();
        *replication.link.lock() = LinkView::default();
        refresh_gates(server);
    });
    let history = match promoted {
        Ok(history) => history,
        Err(error) => {
            follow(server);
            return Err(error);
        }
    };
    server.config.note("replicaof", Vec::new());
    log::info!(
        "MASTER MODE enabled: history {} goes on from {} to {}, which begins at offset {}",
        history.second,
        history.second_until,
        history.id,
        history.second_until.0 + 1
    );
    replication.dismiss_peers("the history has a new name");
    Ok(true)
}
