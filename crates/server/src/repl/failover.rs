//! FAILOVER: this master hands its role to one of its replicas, and follows it. What is decided is in `ardb_node::failover`, with the diagram; here it is carried
//! out by threads: the one of the clock looks, the link's asks the new master.
//!
//! Writes wait from the first step to the last, so a client sees either OK from this master or READONLY from the replica that it has become. The
//! other side is in [`super::commands`]: a replica that gets `PSYNC id offset FAILOVER` with its own id becomes a master first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_node::failover::{Candidate, Hand, Look, Refused, Stage, Target};
use ardb_repl::master::State;
use ardb_repl::replica::Handing;

use super::status::{PeerView, Upstream, monotonic_ms};
use super::{refresh_gates, role};
use crate::server::Server;

pub use ardb_node::failover::Refusal;

/// The failover of a server.
pub type Failover = ardb_node::failover::Failover<Upstream>;
/// What was asked for.
pub type Request = ardb_node::failover::Request<Upstream>;

impl Target for Upstream {
    fn is(&self, other: &Upstream) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

fn at(peer: &PeerView) -> Option<Upstream> {
    let (host, port) = peer.address.rsplit_once(':')?;
    Some(Upstream { host: host.to_owned(), port: port.parse().ok()? })
}

fn candidates(server: &Server) -> Vec<Candidate<Upstream>> {
    let candidate = |peer: Arc<PeerView>| Candidate {
        at: at(&peer),
        online: peer.state() == State::Online,
        acknowledged: peer.acknowledged(),
        checks: peer.profile.handover,
    };
    server.replication.peers().into_iter().map(candidate).collect()
}

/// Begins a failover; [`look`] carries it on.
///
/// # Errors
/// Why not; nothing has changed.
pub fn begin(server: &Server, request: Request) -> Result<(), Refusal> {
    let replication = &server.replication;
    let target = request.target.clone();
    let hold_writes = || server.pause.failover.store(true, Ordering::SeqCst);
    let (is_replica, candidates) = (|| replication.is_replica(), candidates(server));
    replication.failover.begin(request, is_replica, &candidates, monotonic_ms(), hold_writes)?;
    match target {
        Some(target) => {
            log::info!("FAILOVER requested to {}:{}: writes wait until it has everything", target.host, target.port);
        }
        None => log::info!("FAILOVER requested: writes wait until a replica has everything"),
    }
    refresh_gates(server);
    if let Err(error) = replication.failover.question(&server.store) {
        abort(server, &format!("the log takes nothing: {error}"));
        return Err(Refusal::Log);
    }
    Ok(())
}

fn release_writes(server: &Server) {
    server.replication.failover.release(|| server.pause.failover.store(false, Ordering::SeqCst));
    refresh_gates(server);
    server.look_again();
}

/// Gives a failover up. Gives false if there was none.
pub fn abort(server: &Server, why: &str) -> bool {
    let before = server.replication.failover.give_up(server.node(), || server.replication.is_replica());
    match before {
        Stage::None => return false,
        Stage::Waiting { .. } => log::warn!("Aborting failover: {why}"),
        Stage::Handing(_) | Stage::Resumed(_) => {
            log::warn!("Aborting failover: {why}; this server is a master again");
            match role::promote(&server.handle()) {
                Ok(true) => {}
                Ok(false) => role::keep(server),
                Err(error) => log::error!("This server stays a replica: {error}"),
            }
        }
    }
    release_writes(server);
    true
}

/// The new master has taken us as its replica: clients may go on, and learn that this is one.
pub fn done(server: &Server) {
    end(server, "The failover is done: this server is a replica now");
}

/// The target does not take the role. Who has asked it in the same life is a master again; who has come back knows too little for that.
pub fn refused(server: &Server, reply: &str) {
    match server.replication.failover.refused(reply) {
        Refused::Master => done(server),
        Refused::TakeBack => {
            abort(server, &format!("Failover target rejected psync request: {reply}"));
        }
        Refused::Stay => {
            end(
                server,
                &format!("The failover target does not take the role ({reply}); this server stays its replica"),
            );
        }
    }
}

/// The target is asked no more.
fn end(server: &Server, how: &str) {
    let Some(written) = server.replication.failover.over(&server.store) else { return };
    if let Err(error) = written {
        // A restart asks once more, and is told that the other one is a master.
        log::warn!("That the failover is over was not written: {error}");
    }
    log::warn!("{how}");
    release_writes(server);
}

/// Carries a failover on. Called now and then, and quickly while there is one.
pub fn look(server: &Arc<Server>) {
    let failover = &server.replication.failover;
    if !failover.waits() {
        return;
    }
    match failover.look(&candidates(server), server.store.log().end(), monotonic_ms()) {
        Look::Rest => {}
        Look::GiveUp => {
            abort(server, "no replica had everything in time");
        }
        Look::Hand(hand) => {
            let target = hand.target.text();
            match hand.end {
                Some(end) => log::info!("Failover target {target} has everything up to {end}: failing over"),
                None => log::warn!("Failover target {target} lacks something: time out exceeded, failing over."),
            }
            hand_over(server, hand);
        }
    }
}

/// Gives the role away, if nothing has come in between.
fn hand_over(server: &Arc<Server>, hand: Hand<Upstream>) {
    let failover = &server.replication.failover;
    if !failover.give(server.node(), &hand) {
        return;
    }
    let complete = hand.how == Handing::Complete;
    match role::replicate_if(server, hand.target, Some(complete), || failover.handing().is_some()) {
        // `false`: it was given up, and the one who did so has put the rest right.
        Ok(_) => {}
        Err(error) => {
            log::error!("The failover failed: {error}");
            abort(server, "the state cannot be written");
        }
    }
}
