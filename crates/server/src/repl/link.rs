//! The link to our master: a thread that connects, keeps our data in step with the master's, and tries again when it breaks.
//!
//! One thread belongs to one turn of [`Replication::turn`](super::status::Replication::turn): when whom we follow changes, the turn does, and the
//! thread ends. What it commits it commits under the writer lock after having looked at the turn there, so nothing of it comes after a
//! promotion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_base::id::{Generation, Offset, ReplId};
use ardb_repl::backoff::Backoff;
use ardb_repl::replica::{Event, Identity, Replica};
use ardb_repl::stream::{Batch as Units, Splitter, StreamError, UNIT_LIMIT};
use ardb_store::{CommitError, GenerationError, History, Reader, StateError};

use super::apply::{self, Applier, ApplyError};
use super::status::{Phase, Upstream, monotonic_ms};
use super::wire::{self, Wire, WireError};
use super::{intake, refresh_gates};
use crate::clock;
use crate::net::mailbox;
use crate::server::Server;

/// Bytes of units that go into one commit, unless a single unit is longer.
const COMMIT_BYTES: usize = 512 << 10;

/// The pause after an RDB that could not be taken over, in ms: the next one will hardly be another, and costs the master much.
const AFTER_BAD_RDB: u64 = 10_000;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// The socket or the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream is no stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A command of the stream cannot be executed here.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The RDB cannot be taken over.
    #[error("Failed trying to load the MASTER synchronization DB: {0}")]
    Rdb(String),
    /// A new generation could not be made.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A commit was refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The state could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log could not be synced.
    #[error(transparent)]
    Sync(#[from] ardb_log::SyncError),
}

/// Runs the link until its turn is over.
pub fn run(server: &Arc<Server>, upstream: &Upstream, turn: u64) {
    let replication = &server.replication;
    let mut backoff = Backoff::default();
    // Our data do not fit the stream that follows: everything must be sent once more.
    let mut forget = false;
    while replication.is_current(turn) {
        let end = once(server, upstream, turn, &mut backoff, &mut forget);
        let Err(end) = end else { continue };
        let stopped = {
            let mut link = replication.link.lock();
            if !replication.is_current(turn) {
                break;
            }
            link.socket = None;
            if link.phase == Phase::Up || link.down_since == 0 {
                link.down_since = monotonic_ms();
            }
            let stopped = matches!(&end, LinkEnd::Apply(ApplyError::Unknown { .. } | ApplyError::Failed { .. }));
            link.phase = if stopped { Phase::Stopped } else { Phase::Waiting };
            link.error = Some(end.to_string());
            stopped
        };
        refresh_gates(server);
        match &end {
            LinkEnd::Apply(ApplyError::NoScript { .. }) => {
                log::warn!("{end}; asking the master for everything once more");
                forget = true;
            }
            LinkEnd::Apply(_) => log::error!(
                "The stream of {} cannot be applied any further: {end}. Replication is stopped at offset {}, the data stay as \
                 they were there. REPLICAOF makes another attempt.",
                upstream.text(),
                server.store.log().end()
            ),
            _ => log::warn!("Link to master {} lost: {end}", upstream.text()),
        }
        if stopped {
            return;
        }
        let least = if matches!(end, LinkEnd::Rdb(_)) { AFTER_BAD_RDB } else { 0 };
        pause(server, turn, backoff.pause().max(least));
    }
}

fn pause(server: &Server, turn: u64, ms: u64) {
    let until = monotonic_ms() + ms;
    while server.replication.is_current(turn) {
        let now = monotonic_ms();
        if now >= until {
            return;
        }
        std::thread::park_timeout(Duration::from_millis((until - now).min(50)));
    }
}

fn set_phase(server: &Server, turn: u64, phase: Phase) {
    {
        let mut link = server.replication.link.lock();
        if !server.replication.is_current(turn) {
            return;
        }
        link.phase = phase;
        if phase == Phase::Up {
            (link.down_since, link.error) = (0, None);
        }
    }
    refresh_gates(server);
}

fn identity(server: &Server, forget: bool) -> Identity {
    let config = &server.config;
    let announced = config.int("replica-announce-port");
    let port = if announced > 0 { announced as u64 } else { server.port.load(Ordering::Relaxed) };
    let text = |name: &str| Some(config.bytes(name)).filter(|value| !value.is_empty());
    let end = server.store.log().end();
    // Nothing was ever written or received: there is no history to go on with.
    let fresh = end == Offset(0) && server.store.stats().generation == Generation(1);
    let position = (!forget && !fresh).then(|| (server.store.history().id, end));
    Identity {
        port: u16::try_from(port).unwrap_or(0),
        address: Some(config.text("replica-announce-ip")).filter(|text| !text.is_empty()),
        user: text("masteruser"),
        password: text("masterauth"),
        position,
        timeout: timeout(server),
    }
}

fn timeout(server: &Server) -> u64 {
    server.config.int("repl-timeout").max(1) as u64 * 1000
}

/// One connection, from its beginning to its end.
fn once(
    server: &Arc<Server>,
    upstream: &Upstream,
    turn: u64,
    backoff: &mut Backoff,
    forget: &mut bool,
) -> Result<(), LinkEnd> {
    let replication = &server.replication;
    set_phase(server, turn, Phase::Connecting);
    log::info!("Connecting to MASTER {}:{}", upstream.host, upstream.port);
    let limit = Duration::from_millis(timeout(server).min(10_000));
    let stream = wire::connect(upstream, limit, &|| replication.is_current(turn))
        .map_err(|error| WireError::Io { doing: "connecting to the master", error })?;
    // Whatever was in the middle of a commit is over once the lock is free.
    let identity = {
        let _txn = server.store.write();
        identity(server, *forget)
    };
    replication.link.lock().socket = stream.try_clone().ok();
    set_phase(server, turn, Phase::Handshake);
    match &identity.position {
        Some((id, offset)) => log::info!("Trying a partial resynchronization (request {id}:{}).", offset.0 + 1),
        None => log::info!("Partial resynchronization not possible (no cached master)"),
    }
    let mut wire = Wire::new(stream, Replica::new(identity, monotonic_ms()), server, turn);
    wire.check()?;
    loop {
        let (event, _) = wire.next_event()?;
        for refusal in wire.replica.take_refusals() {
            log::info!("(Non critical) Master does not understand {refusal}");
        }
        match event {
            Event::Continue(id) => {
                accept(server, &wire, id, upstream)?;
                break;
            }
            Event::FullSync(named) => {
                match named {
                    Some((id, offset)) => log::info!("Full resync from master: {id}:{offset}"),
                    None => log::info!("The master knows SYNC only: full resync without a history"),
                }
                set_phase(server, turn, Phase::Syncing);
                intake::receive(server, &mut wire, named, &upstream.text())?;
                *forget = false;
                break;
            }
            // Others do not come before one of these.
            Event::RdbBegins(_) | Event::Rdb(_) | Event::RdbEnds | Event::Stream(_) => {}
        }
    }
    backoff.reset();
    set_phase(server, turn, Phase::Up);
    follow(server, &mut wire, turn)
}

/// The master lets us go on. If its history has got another name, ours takes it too.
fn accept(server: &Server, wire: &Wire<'_>, id: Option<ReplId>, upstream: &Upstream) -> Result<(), LinkEnd> {
    let _switch = server.replication.switch.lock();
    wire.check()?;
    let before = server.store.history();
    let end = server.store.log().end();
    log::info!(
        "Successful partial resynchronization with master: history {} goes on at {end}",
        id.unwrap_or(before.id)
    );
    if let Some(id) = id
        && id != before.id
    {
        log::info!("Master replication ID changed to {id}; {} stays valid up to {end}", before.id);
        let history = History { id, second: before.id, second_until: end };
        server.store.set_history(history, Some(upstream.text().into_bytes()))?;
        server.replication.dismiss_peers("the master's history has a new name");
    }
    Ok(())
}

/// Applies the stream until the link breaks.
fn follow(server: &Arc<Server>, wire: &mut Wire<'_>, turn: u64) -> Result<(), LinkEnd> {
    let mut splitter = Splitter::new(UNIT_LIMIT);
    let mut applier = Applier::default();
    let mut reader = server.store.reader();
    // The stream's own offset. The log must agree with it at each commit, or someone else has written.
    let mut at = wire.replica.position();
    loop {
        let mut failed = None;
        loop {
            let step = wire.step()?;
            match step.event {
                Some(Event::Stream(range)) => {
                    if let Err(error) = splitter.push(wire.bytes(range, step.consumed)) {
                        failed = Some(error);
                        break;
                    }
                }
                _ if step.consumed == 0 => break,
                _ => {}
            }
        }
        while let Some(units) = splitter.batch(COMMIT_BYTES) {
            commit(server, &mut applier, &mut reader, &units, at, turn)?;
            let bytes = units.bytes().len();
            splitter.consume(bytes);
            at = at.advance(bytes);
            wire.replica.applied(at);
            if std::mem::take(&mut applier.asked) {
                wire.replica.acknowledge(monotonic_ms());
            }
            wire.replica.tick(monotonic_ms()).map_err(WireError::from)?;
            wire.send()?;
        }
        {
            let mut link = server.replication.link.lock();
            link.heard = wire.replica.heard();
            link.received = at.advance(splitter.waiting());
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        wire.more()?;
    }
}

/// Executes the units, which begin at `at`, and appends their bytes, as one commit. If one of them fails, those before it are committed all the same.
fn commit(
    server: &Arc<Server>,
    applier: &mut Applier,
    reader: &mut Reader,
    units: &Units<'_>,
    at: Offset,
    turn: u64,
) -> Result<(), LinkEnd> {
    let db = {
        // The database at the beginning; nobody else changes it while we are the one who appends.
        let mut txn = server.store.write();
        txn.frame().db.unwrap_or(0)
    };
    apply::read_ahead(server, reader, units, db);
    mailbox::hold();
    let result = locked(server, applier, units, at, turn);
    mailbox::release();
    let end = match result {
        Ok(end) => end,
        Err((0, error)) => return Err(error),
        Err((whole, error)) => {
            // The units before the one that failed are good.
            mailbox::hold();
            let before = locked(server, applier, &units.prefix(whole), at, turn).map_err(|(_, error)| error);
            mailbox::release();
            before?;
            return Err(error);
        }
    };
    if server.sync_always() {
        server.store.sync_to(end)?;
    }
    Ok(())
}

/// Under the lock. An error comes with the length of the units before the one that failed.
fn locked(
    server: &Arc<Server>,
    applier: &mut Applier,
    units: &Units<'_>,
    at: Offset,
    turn: u64,
) -> Result<Offset, (usize, LinkEnd)> {
    let mut txn = server.store.write();
    if !server.replication.is_current(turn) {
        return Err((0, WireError::Cancelled.into()));
    }
    let want = txn.offset();
    if want != at {
        return Err((0, CommitError::Offset { want, got: at }.into()));
    }
    applier
        .apply(server, &mut txn, units, at, clock::unix_ms())
        .map_err(|(whole, error)| (whole, LinkEnd::from(error)))?;
    let payload = &mut txn.frame().payload;
    payload.clear();
    payload.extend_from_slice(units.bytes());
    txn.commit_verbatim(at).map_err(|error| (0, error.into()))
}
