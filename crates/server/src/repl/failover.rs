//! FAILOVER: this master hands its role to one of its replicas, and follows it.
//!
//! ```text
//!   no-failover ── FAILOVER: writes are held up ──► waiting-for-sync ── the replica has everything, or FORCE and the time is up ──┐
//!        ▲                                                │ ABORT, or the time is up                                          │
//!        ├────────────────────────────────────────────────┘                                                                   ▼
//!        ├───────────── +CONTINUE or +FULLRESYNC: we are its replica ◄──────────────────────────────────── failover-in-progress
//!        └───────────── it refuses, or ABORT: we are a master again, under a new id ◄──────────────────────────────┘
//! ```
//!
//! The last step outlives the process: the state file says that the upstream is to take the role, so a start goes on with it ([`Stage::Resumed`]). Nothing waits
//! for it then, and nobody knows what others have decided in between: so REPLICAOF ends it, and a refusal leaves a replica, never a second master.
//!
//! Writes wait from the first step to the last, so a client sees either OK from this master or READONLY from the replica that it has become. The
//! other side is in [`super::commands`]: a replica that gets `PSYNC id offset FAILOVER` with its own id becomes a master first.
//!
//! Invariant: without FORCE the role is given away only when the replica has acknowledged the log's end and nobody can append any more; both are looked at
//! under the writer lock. From then on the role counts as given away: that, and the stage that says so, change together under the writer lock, so nothing
//! enters the log behind the end that was looked at, and whoever gives the failover up finds out whether the role has to be taken back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::id::Offset;
use ardb_repl::Ms;
use ardb_repl::master::{self, State};
use parking_lot::Mutex;

use super::status::{PeerView, Upstream, monotonic_ms};
use super::{refresh_gates, role};
use crate::server::Server;

/// Where a failover is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    #[default]
    None,
    /// Writes are held up until a replica has everything.
    Waiting {
        /// The replica that was asked for; `None` is the first that has everything.
        target: Option<Upstream>,
        /// When the waiting ends.
        until: Option<Ms>,
        /// What happens then: go on all the same, or give up.
        force: bool,
    },
    /// The role is being given away; the link to the new master sends `PSYNC ... FAILOVER`.
    Handing,
    /// The same, in a process that did not begin it.
    Resumed,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// TO host port.
    pub target: Option<Upstream>,
    /// TIMEOUT, in ms.
    pub timeout: Option<Ms>,
    /// FORCE.
    pub force: bool,
}

/// Why a failover was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One is under way.
    #[error("ERR FAILOVER already in progress.")]
    Running,
    /// We are a replica.
    #[error("ERR FAILOVER is not valid when server is a replica.")]
    Replica,
    /// There is nobody to hand over to.
    #[error("ERR FAILOVER requires connected replicas.")]
    Alone,
    /// FORCE without a time or a target.
    #[error("ERR FAILOVER with force option requires both a timeout and target HOST and IP.")]
    Force,
    /// The target is none of ours.
    #[error("ERR FAILOVER target HOST and PORT is not a replica.")]
    Unknown,
    /// The target is not in the stream yet.
    #[error("ERR FAILOVER target replica is not online.")]
    Offline,
    /// The log takes nothing.
    #[error("ERR the log refuses: no failover")]
    Log,
}

/// The failover of a server.
#[derive(Default)]
pub struct Failover {
    stage: Mutex<Stage>,
}

impl Failover {
    /// The word of INFO. Until this server counts as a replica (`follows`), which takes a write of the state, the waiting is not over for those who look
    /// at it: whoever reads that the failover is in progress finds no master here.
    #[must_use]
    pub fn word(&self, follows: bool) -> &'static str {
        match *self.stage.lock() {
            Stage::None => "no-failover",
            Stage::Waiting { .. } => "waiting-for-sync",
            Stage::Handing if !follows => "waiting-for-sync",
            Stage::Handing | Stage::Resumed => "failover-in-progress",
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn running(&self) -> bool {
        *self.stage.lock() != Stage::None
    }

    /// Whether the link to the new master must ask it to take the role.
    #[must_use]
    pub fn handing(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Handing | Stage::Resumed)
    }

    /// Whether clients wait for a replica to have everything.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting { .. })
    }

    /// Whether nobody else may change the role now.
    #[must_use]
    pub fn holds_the_role(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting { .. } | Stage::Handing)
    }

    /// The state file says that the process before was giving the role away.
    pub fn resume(&self) {
        *self.stage.lock() = Stage::Resumed;
    }

    /// The role has changed: what the process before had begun has no meaning any more.
    pub fn forget_resumed(&self) {
        let mut stage = self.stage.lock();
        if *stage == Stage::Resumed {
            *stage = Stage::None;
        }
    }
}

fn at(peer: &PeerView) -> Option<Upstream> {
    let (host, port) = peer.address.rsplit_once(':')?;
    Some(Upstream { host: host.to_owned(), port: port.parse().ok()? })
}

fn is(peer: &PeerView, target: &Upstream) -> bool {
    at(peer).is_some_and(|address| address.port == target.port && address.host.eq_ignore_ascii_case(&target.host))
}

/// Begins a failover; [`look`] carries it on.
///
/// # Errors
/// Why not; nothing has changed.
pub fn begin(server: &Server, request: Request) -> Result<(), Refusal> {
    let replication = &server.replication;
    let mut stage = replication.failover.stage.lock();
    if *stage != Stage::None {
        return Err(Refusal::Running);
    }
    if replication.is_replica() {
        return Err(Refusal::Replica);
    }
    let peers = replication.peers();
    if peers.is_empty() {
        return Err(Refusal::Alone);
    }
    if request.force && (request.timeout.is_none() || request.target.is_none()) {
        return Err(Refusal::Force);
    }
    if let Some(target) = &request.target {
        let peer = peers.iter().find(|peer| is(peer, target)).ok_or(Refusal::Unknown)?;
        if peer.state() != State::Online {
            return Err(Refusal::Offline);
        }
        log::info!("FAILOVER requested to {}:{}: writes wait until it has everything", target.host, target.port);
    } else {
        log::info!("FAILOVER requested: writes wait until a replica has everything");
    }
    let until = request.timeout.map(|timeout| monotonic_ms().saturating_add(timeout));
    *stage = Stage::Waiting { target: request.target, until, force: request.force };
    server.pause.failover.store(true, Ordering::SeqCst);
    drop(stage);
    refresh_gates(server);
    // Whoever had the lock before us is done; the question makes replicas that know it answer at once.
    let mut txn = server.store.write();
    if !matches!(*replication.failover.stage.lock(), Stage::Waiting { .. }) {
        // It has gone on, or was given up, while we waited for the lock: the log may be another one's already.
        return Ok(());
    }
    txn.frame().payload.extend_from_slice(master::GETACK);
    if let Err(error) = txn.commit() {
        drop(txn);
        abort(server, &format!("the log takes nothing: {error}"));
        return Err(Refusal::Log);
    }
    Ok(())
}

fn release_writes(server: &Server) {
    {
        let stage = server.replication.failover.stage.lock();
        // The next one may have begun already.
        if *stage == Stage::None {
            server.pause.failover.store(false, Ordering::SeqCst);
        }
    }
    refresh_gates(server);
    server.look_again();
}

/// Gives a failover up. Gives false if there was none.
pub fn abort(server: &Server, why: &str) -> bool {
    let before = {
        let _txn = server.store.write();
        let before = std::mem::take(&mut *server.replication.failover.stage.lock());
        if before == Stage::Handing && !server.replication.is_replica() {
            // The role has not gone yet, and now it will not.
            server.shared.gates.is_replica.store(false, Ordering::SeqCst);
        }
        before
    };
    match before {
        Stage::None => return false,
        Stage::Waiting { .. } => log::warn!("Aborting failover: {why}"),
        Stage::Handing | Stage::Resumed => {
            log::warn!("Aborting failover: {why}; this server is a master again");
            if let Err(error) = role::promote(&server.handle()) {
                log::error!("This server stays a replica: {error}");
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
    let resumed = *server.replication.failover.stage.lock() == Stage::Resumed;
    if resumed {
        end(server, &format!("The failover target does not take the role ({reply}); this server stays its replica"));
    } else {
        abort(server, &format!("Failover target rejected psync request: {reply}"));
    }
}

/// The target is asked no more.
fn end(server: &Server, how: &str) {
    let mut stage = server.replication.failover.stage.lock();
    if !matches!(*stage, Stage::Handing | Stage::Resumed) {
        return;
    }
    *stage = Stage::None;
    drop(stage);
    if let Err(error) = server.store.handed_over() {
        // A restart asks once more, and is told that the other one is a master.
        log::warn!("That the failover is over was not written: {error}");
    }
    log::warn!("{how}");
    release_writes(server);
}

/// Carries a failover on. Called now and then, and quickly while there is one.
pub fn look(server: &Arc<Server>) {
    let stage = server.replication.failover.stage.lock().clone();
    let Stage::Waiting { target, until, force } = &stage else { return };
    if until.is_some_and(|until| monotonic_ms() >= until) {
        match target.clone().filter(|_| *force) {
            Some(target) => {
                log::warn!("Failover target {} lacks something: time out exceeded, failing over.", target.text());
                hand_over(server, &stage, None, target);
            }
            None => {
                abort(server, "no replica had everything in time");
            }
        }
        return;
    }
    let wanted = |peer: &&Arc<PeerView>| target.as_ref().is_none_or(|target| is(peer, target));
    let end = server.store.log().end();
    let synced =
        |peer: &&Arc<PeerView>| peer.state() == State::Online && peer.acknowledged() >= end && at(peer).is_some();
    let found = server.replication.peers().into_iter().find(|peer| wanted(&peer) && synced(&peer));
    let Some(target) = found.and_then(|peer| at(&peer)) else { return };
    log::info!("Failover target {} has everything up to {end}: failing over", target.text());
    hand_over(server, &stage, Some(end), target);
}

/// Gives the role to `target`, if the failover is still at `stage` and the log still ends at `end` (or wherever it does, by force).
fn hand_over(server: &Arc<Server>, stage: &Stage, end: Option<Offset>, target: Upstream) {
    let failover = &server.replication.failover;
    {
        let _txn = server.store.write();
        let mut now = failover.stage.lock();
        // A write that was under way when writes were held up may have come in between, or FAILOVER ABORT.
        if *now != *stage || end.is_some_and(|end| server.store.log().end() != end) {
            return;
        }
        *now = Stage::Handing;
        server.shared.gates.is_replica.store(true, Ordering::SeqCst);
    }
    match role::replicate_if(server, target, true, || failover.handing()) {
        // `false`: it was given up, and the one who did so has put the rest right.
        Ok(_) => {}
        Err(error) => {
            log::error!("The failover failed: {error}");
            abort(server, "the state cannot be written");
        }
    }
}
