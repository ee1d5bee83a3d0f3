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
//! Invariants: without FORCE the role is given away only when the replica has acknowledged the log's end and nobody can append any more; both are looked at
//! under the writer lock. From then on the role counts as given away: that, and the stage that says so, change together under the writer lock, so nothing
//! enters the log behind the end that was looked at, and whoever gives the failover up finds out whether the role has to be taken back. Nobody takes a role
//! over that was handed over with everything ([`Handing::Complete`]) while it lacks any of it ([`may_take`]).

use std::sync::atomic::Ordering;

use ardb_base::id::Offset;
use ardb_repl::Ms;
use ardb_repl::master;
use ardb_repl::replica::Handing;
use ardb_store::{CommitError, StateError, Store};
use parking_lot::Mutex;

use crate::Node;

/// What names a replica.
pub trait Target: Clone + PartialEq {
    /// Whether both names mean the same one.
    fn is(&self, other: &Self) -> bool {
        self == other
    }
}

/// A replica that could take the role.
#[derive(Clone, Debug)]
pub struct Candidate<T> {
    /// Its name, if it has one under which it can be reached.
    pub at: Option<T>,
    /// It is in the stream.
    pub online: bool,
    /// What it acknowledged.
    pub acknowledged: Offset,
    /// It knows what it means that a hand-over is complete.
    pub checks: bool,
}

/// Where a failover is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage<T> {
    /// There is none.
    #[default]
    None,
    /// Writes are held up until a replica has everything.
    Waiting {
        /// The replica that was asked for; `None` is the first that has everything.
        target: Option<T>,
        /// When the waiting ends.
        until: Option<Ms>,
        /// What happens then: go on all the same, or give up.
        force: bool,
    },
    /// The role is being given away; the link to the new master sends `PSYNC ... FAILOVER`.
    Handing(Handing),
    /// The same, in a process that did not begin it.
    Resumed(Handing),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<T> {
    /// TO host port.
    pub target: Option<T>,
    /// TIMEOUT, in ms.
    pub timeout: Option<Ms>,
    /// FORCE.
    pub force: bool,
}

impl<T> Default for Request<T> {
    fn default() -> Request<T> {
        Request { target: None, timeout: None, force: false }
    }
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

/// What is to be done about a failover now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// Nothing.
    Rest,
    /// The time is up: it is to be given up.
    GiveUp,
    /// The role goes to this one ([`Failover::give`]).
    Hand(Hand<T>),
}

/// The role on its way to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hand<T> {
    /// Who gets it.
    pub target: T,
    /// Everything before was acknowledged; `None` by force.
    pub end: Option<Offset>,
    /// What it is told.
    pub how: Handing,
    /// Where the failover was when that was decided.
    stage: Stage<T>,
}

/// How the target has answered a question that it did not meet with +CONTINUE or +FULLRESYNC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is a master: a link that broke after the first question may have left it one, so nothing is to be taken back.
    Master,
    /// It does not take the role, and this process began the failover: it is a master again.
    TakeBack,
    /// It does not take the role, and who has come back knows too little to be a master again.
    Stay,
}

/// Why a replica does not take the role of its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is one.
    #[error("ERR PSYNC FAILOVER can't be sent to a master.")]
    Master,
    /// It is asked by a server of another history.
    #[error("ERR PSYNC FAILOVER replid must match my replid.")]
    OtherHistory,
    /// It has lost what it had acknowledged.
    #[error("ERR PSYNC FAILOVER was complete up to {told}, and I have only {have}: what is missing was lost here.")]
    Behind {
        /// What the master handed over.
        told: Offset,
        /// What is here.
        have: Offset,
    },
}

/// What a master that hands its role over says of itself: `PSYNC id offset FAILOVER [COMPLETE]`.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its history.
    pub id: &'a [u8],
    /// The byte that it wants next, the first being 1.
    pub next: i64,
    /// Everything before that was acknowledged to it.
    pub complete: bool,
}

impl Asked<'_> {
    /// The words behind `PSYNC id offset`, if they ask for a change of roles.
    #[must_use]
    pub fn of<'a>(id: &'a [u8], next: i64, words: &[&[u8]]) -> Option<Asked<'a>> {
        let (first, rest) = words.split_first()?;
        let complete = rest.first().is_some_and(|word| word.eq_ignore_ascii_case(b"complete"));
        first.eq_ignore_ascii_case(b"failover").then_some(Asked { id, next, complete })
    }
}

/// Whether we may take the role of the master that asks for that. To be asked while nothing of the role can change.
///
/// # Errors
/// Why not; in the words of Redis where Redis has any.
pub fn may_take(store: &Store, is_replica: bool, asked: Asked<'_>) -> Result<(), NotTaken> {
    if !is_replica {
        return Err(NotTaken::Master);
    }
    if !store.history().id.as_bytes().eq_ignore_ascii_case(asked.id) {
        return Err(NotTaken::OtherHistory);
    }
    let told = Offset(u64::try_from(asked.next).unwrap_or(0).saturating_sub(1));
    let have = store.log().end();
    if asked.complete && have < told {
        return Err(NotTaken::Behind { told, have });
    }
    Ok(())
}

/// The failover of a server.
pub struct Failover<T> {
    stage: Mutex<Stage<T>>,
}

impl<T> Default for Failover<T> {
    fn default() -> Failover<T> {
        Failover { stage: Mutex::new(Stage::None) }
    }
}

impl<T: Target> Failover<T> {
    /// The word of INFO. Until this server counts as a replica (`follows`), which takes a write of the state, the waiting is not over for those who look
    /// at it: whoever reads that the failover is in progress finds no master here.
    #[must_use]
    pub fn word(&self, follows: bool) -> &'static str {
        match *self.stage.lock() {
            Stage::None => "no-failover",
            Stage::Waiting { .. } => "waiting-for-sync",
            Stage::Handing(_) if !follows => "waiting-for-sync",
            Stage::Handing(_) | Stage::Resumed(_) => "failover-in-progress",
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn running(&self) -> bool {
        *self.stage.lock() != Stage::None
    }

    /// Whether the link to the new master must ask it to take the role, and how.
    #[must_use]
    pub fn handing(&self) -> Option<Handing> {
        match *self.stage.lock() {
            Stage::Handing(how) | Stage::Resumed(how) => Some(how),
            _ => None,
        }
    }

    /// Whether clients wait for a replica to have everything.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting { .. })
    }

    /// Whether nobody else may change the role now.
    #[must_use]
    pub fn holds_the_role(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting { .. } | Stage::Handing(_))
    }

    /// Takes up at a start what the process before had begun, if the state file says so.
    pub fn resume(&self, store: &Store) -> bool {
        let handing = store.handing();
        if let Some(complete) = handing {
            *self.stage.lock() = Stage::Resumed(Handing::of(complete));
        }
        handing.is_some()
    }

    /// The role has changed: what the process before had begun has no meaning any more.
    pub fn forget_resumed(&self) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Resumed(_)) {
            *stage = Stage::None;
        }
    }

    /// Begins to wait for a replica. `hold_writes` is called before anybody can see that.
    ///
    /// # Errors
    /// Why not; nothing has changed.
    pub fn begin(
        &self,
        request: Request<T>,
        is_replica: impl FnOnce() -> bool,
        candidates: &[Candidate<T>],
        now: Ms,
        hold_writes: impl FnOnce(),
    ) -> Result<(), Refusal> {
        let mut stage = self.stage.lock();
        if *stage != Stage::None {
            return Err(Refusal::Running);
        }
        if is_replica() {
            return Err(Refusal::Replica);
        }
        if candidates.is_empty() {
            return Err(Refusal::Alone);
        }
        if request.force && (request.timeout.is_none() || request.target.is_none()) {
            return Err(Refusal::Force);
        }
        if let Some(target) = &request.target {
            let candidate = candidates.iter().find(|candidate| candidate.is(target)).ok_or(Refusal::Unknown)?;
            if !candidate.online {
                return Err(Refusal::Offline);
            }
        }
        let until = request.timeout.map(|timeout| now.saturating_add(timeout));
        *stage = Stage::Waiting { target: request.target, until, force: request.force };
        hold_writes();
        Ok(())
    }

    /// Asks all replicas how far they are, which those that know the question answer at once; if the failover still waits for them. Whoever had the writer
    /// lock before is done then.
    ///
    /// # Errors
    /// The log takes nothing.
    pub fn question(&self, store: &Store) -> Result<(), CommitError> {
        let mut txn = store.write();
        if !self.waits() {
            // It has gone on, or was given up, while we waited for the lock: the log may be another one's already.
            return Ok(());
        }
        txn.frame().payload.extend_from_slice(master::GETACK);
        txn.commit().map(|_| ())
    }

    /// What is to be done now. `end` is the log's.
    #[must_use]
    pub fn look(&self, candidates: &[Candidate<T>], end: Offset, now: Ms) -> Look<T> {
        let stage = self.stage.lock().clone();
        let Stage::Waiting { target, until, force } = &stage else { return Look::Rest };
        if until.is_some_and(|until| now >= until) {
            return match target.clone().filter(|_| *force) {
                Some(target) => Look::Hand(Hand { target, end: None, how: Handing::Plain, stage }),
                None => Look::GiveUp,
            };
        }
        let wanted = |candidate: &&Candidate<T>| target.as_ref().is_none_or(|target| candidate.is(target));
        let synced = |candidate: &&Candidate<T>| candidate.online && candidate.acknowledged >= end;
        let mut found = candidates.iter().filter(wanted).filter(synced);
        let found = found.find_map(|candidate| Some((candidate.at.clone()?, candidate.checks)));
        match found {
            Some((target, checks)) => {
                let how = if checks { Handing::Complete } else { Handing::Plain };
                Look::Hand(Hand { target, end: Some(end), how, stage })
            }
            None => Look::Rest,
        }
    }

    /// From now on the role counts as given away, if the failover is still where it was and the log still ends there (or wherever it does, by force). Gives
    /// whether that is so.
    pub fn give(&self, node: Node<'_>, hand: &Hand<T>) -> bool {
        let _txn = node.store.write();
        let mut now = self.stage.lock();
        // A write that was under way when writes were held up may have come in between, or FAILOVER ABORT.
        if *now != hand.stage || hand.end.is_some_and(|end| node.store.log().end() != end) {
            return false;
        }
        *now = Stage::Handing(hand.how);
        node.shared.gates.is_replica.store(true, Ordering::SeqCst);
        true
    }

    /// Gives the failover up. Gives where it was; from [`Stage::Handing`] on this server must be promoted, if it is a replica already. `is_replica` is asked
    /// under the writer lock.
    pub fn give_up(&self, node: Node<'_>, is_replica: impl FnOnce() -> bool) -> Stage<T> {
        let _txn = node.store.write();
        let before = std::mem::take(&mut *self.stage.lock());
        if matches!(before, Stage::Handing(_)) && !is_replica() {
            // The role has not gone yet, and now it will not.
            node.shared.gates.is_replica.store(false, Ordering::SeqCst);
        }
        before
    }

    /// What it means that the target has answered with an error.
    #[must_use]
    pub fn refused(&self, reply: &str) -> Refused {
        if reply.contains("can't be sent to a master") {
            return Refused::Master;
        }
        match *self.stage.lock() {
            Stage::Resumed(_) => Refused::Stay,
            _ => Refused::TakeBack,
        }
    }

    /// The target is asked no more. `None`: it was not being asked. An error says that a restart will ask once more.
    pub fn over(&self, store: &Store) -> Option<Result<(), StateError>> {
        let mut stage = self.stage.lock();
        if !matches!(*stage, Stage::Handing(_) | Stage::Resumed(_)) {
            return None;
        }
        *stage = Stage::None;
        drop(stage);
        Some(store.handed_over())
    }

    /// Calls `release` if there is none: the next one may have begun already.
    pub fn release(&self, release: impl FnOnce()) {
        let stage = self.stage.lock();
        if *stage == Stage::None {
            release();
        }
    }
}

impl<T: Target> Candidate<T> {
    fn is(&self, target: &T) -> bool {
        self.at.as_ref().is_some_and(|at| at.is(target))
    }
}
