//! The links of replication: to our master, and from our replicas. The protocols themselves are in `ardb-repl`, without I/O;
//! what decides about the data is in `ardb-node`.
//!
//! - [`role`] changes whom we follow: REPLICAOF, promotion, the start;
//! - [`link`] is the thread that follows our master, over a [`wire`]; [`intake`] receives everything (through a [`pipe`]), [`rows_intake`] does from a master of our own
//!   kind;
//! - [`failover`] hands the role of the master over;
//! - [`feed`] is the thread of one replica of ours, which gets a [`dump`] or rows (`ardb_node::transfers`) if it must, and then the log;
//! - [`status`] is what all of them and INFO share, [`cron`] what happens by the clock, [`wait`] the clients in WAIT.
//!
//! States, decisions and crash cases stand in `docs/replication.md`.

pub mod ahead;
pub mod commands;
pub mod cron;
pub mod dump;
pub mod failover;
mod feed;
pub mod info;
mod intake;
mod lag;
mod link;
mod pipe;
pub mod role;
mod rows_intake;
pub mod status;
pub mod wait;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use status::Replication;

use crate::logger;
use crate::server::Server;

/// Brings the gates in line with role, link and configuration.
pub fn refresh_gates(server: &Server) {
    // Whoever has looked at the role before it changed must not open a gate after the one who changed it has closed it.
    let _one = server.replication.gates.lock();
    let gates = &server.shared.gates;
    let replica = gates.is_replica.load(Ordering::SeqCst);
    let config = &server.config;
    gates.read_only.store(replica && config.flag("replica-read-only"), Ordering::SeqCst);
    let stale = replica && !config.flag("replica-serve-stale-data") && !server.replication.link_is_up();
    gates.stale.store(stale, Ordering::SeqCst);
    let wanted = config.int("min-replicas-to-write");
    let lacking = !replica && wanted > 0 && config.int("min-replicas-max-lag") > 0;
    gates.too_few_replicas.store(lacking && (info::good_replicas(server) as i64) < wanted, Ordering::SeqCst);
    gates.log_rests.store(server.paused(), Ordering::SeqCst);
    logger::set_replica(replica);
}

/// Takes up the role that the data and the configuration say. Called after the replay and before any client is served.
///
/// # Errors
/// The state could not be written.
pub fn prepare(server: &Arc<Server>) -> Result<(), ardb_store::StateError> {
    dump::remove_leftovers(server);
    role::take_up(server)
}

/// Starts the threads. Called once, when everything else runs.
///
/// # Errors
/// The system has no more threads.
pub fn start(server: &Arc<Server>) -> std::io::Result<()> {
    cron::start(server)?;
    role::follow(server);
    Ok(())
}

/// Ends all links. What replicas have not been sent yet is sent, if they take it soon.
pub fn stop(server: &Server) {
    let replication = &server.replication;
    replication.stopping.store(true, Ordering::SeqCst);
    role::hang_up(server);
    loop {
        let Some(thread) = replication.threads.lock().pop() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            log::error!("a thread of replication panicked");
        }
    }
}
