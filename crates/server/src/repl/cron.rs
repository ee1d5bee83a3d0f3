//! What replication does by the clock: the master's PING, the count of good replicas, clients in WAIT.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_node::role;
use ardb_repl::master::{self, State};

use super::status::monotonic_ms;
use super::{failover, feed, refresh_gates};
use crate::server::Server;

/// How often it looks.
const ROUND: Duration = Duration::from_millis(100);
/// How often while clients' writes wait for a failover.
const HASTE: Duration = Duration::from_millis(5);

/// Starts the thread; [`super::stop`] ends it.
///
/// # Errors
/// The system has no more threads.
pub fn start(server: &Arc<Server>) -> std::io::Result<()> {
    let of_thread = server.clone();
    let thread = std::thread::Builder::new().name("ardb-repl".into()).spawn(move || run(&of_thread))?;
    server.replication.keep(thread);
    Ok(())
}

fn run(server: &Arc<Server>) {
    let mut pinged = monotonic_ms();
    while !server.replication.stopping.load(Ordering::SeqCst) {
        std::thread::park_timeout(if server.replication.failover.waits() { HASTE } else { ROUND });
        refresh_gates(server);
        failover::look(server);
        server.replication.waits.look(server);
        server.replication.transfers.tick(&server.store, feed::rows::limits(server), monotonic_ms());
        let period = server.config.int("repl-ping-replica-period").max(1) as u64 * 1000;
        if monotonic_ms() - pinged >= period {
            pinged = monotonic_ms();
            ping(server);
        }
    }
}

/// Puts a PING into the stream, if there is anyone to hear it and the stream is ours.
fn ping(server: &Server) {
    if server.replication.failover.running() {
        return;
    }
    let hears = server.replication.peers.lock().values().any(|peer| peer.state() != State::WaitDump);
    if !hears {
        return;
    }
    if let Err(error) = role::say(server.node(), master::PING) {
        log::warn!("The PING for replicas was not logged: {error}");
    }
}
