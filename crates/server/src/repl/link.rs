//! The link to our master: a thread that connects, keeps our data in step with the master's, and tries again when it breaks.
//!
//! One thread belongs to one turn of [`Replication::turn`](super::status::Replication::turn): when whom we follow changes, the turn does, and the
//! thread ends. What it commits it commits under the writer lock after having looked at the turn there, so nothing of it comes after a
//! promotion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_base::id::ReplId;
use ardb_node::apply::ApplyError;
use ardb_node::inflow::{Inflow, InflowError, When};
use ardb_node::role;
use ardb_node::rows::{Fault, Ongoing};
use ardb_repl::backoff::Backoff;
use ardb_repl::replica::{Event, Identity, LinkError, Replica, Rows};
use ardb_repl::rows::RowsError;
use ardb_repl::stream::StreamError;
use ardb_store::{CommitError, GenerationError, StateError};

use super::ahead::ReadAhead;
use super::rows_intake::{self, Worker};
use super::status::{Phase, Upstream, monotonic_ms};
use super::wire::{self, Wire, WireError};
use super::{failover, intake, refresh_gates};
use crate::clock;
use crate::net::mailbox;
use crate::server::Server;

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
    /// A command of the stream cannot be executed here, or not committed.
    #[error(transparent)]
    Inflow(#[from] InflowError),
    /// The RDB cannot be taken over.
    #[error("Failed trying to load the MASTER synchronization DB: {0}")]
    Rdb(String),
    /// The rows cannot be taken over.
    #[error("Failed trying to take the master's rows: {0}")]
    Rows(#[from] RowsError),
    /// The thread that takes the rows.
    #[error("the thread that takes the master's rows panicked")]
    Panicked,
    /// A new generation could not be made.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The state could not be written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What the end of an attempt says of rows that came.
fn fault(end: &LinkEnd) -> Fault {
    match end {
        LinkEnd::Rows(error) => Fault::of(error),
        LinkEnd::Generation(_) | LinkEnd::Panicked => Fault::Fatal,
        _ => Fault::Link,
    }
}

/// Runs the link until its turn is over.
pub fn run(server: &Arc<Server>, upstream: &Upstream, turn: u64) {
    let replication = &server.replication;
    let mut backoff = Backoff::default();
    // Our data do not fit the stream that follows: everything must be sent once more.
    let mut forget = false;
    let mut rows = Ongoing::<Worker>::default();
    while replication.is_current(turn) {
        let end = once(server, upstream, turn, &mut backoff, &mut forget, &mut rows);
        let Err(end) = end else { continue };
        rows.judge(fault(&end));
        let stopped = {
            let mut link = replication.link.lock();
            if !replication.is_current(turn) {
                break;
            }
            link.socket = None;
            if link.phase == Phase::Up || link.down_since == 0 {
                link.down_since = monotonic_ms();
            }
            let stopped = matches!(
                &end,
                LinkEnd::Inflow(InflowError::Apply(ApplyError::Unknown { .. } | ApplyError::Failed { .. }))
            );
            link.phase = if stopped { Phase::Stopped } else { Phase::Waiting };
            link.error = Some(end.to_string());
            stopped
        };
        refresh_gates(server);
        match &end {
            LinkEnd::Inflow(InflowError::Apply(ApplyError::NoScript { .. })) => {
                log::warn!("{end}; asking the master for everything once more");
                forget = true;
            }
            LinkEnd::Inflow(InflowError::Commit(CommitError::Offset { .. })) => {
                log::error!(
                    "The log is not where the stream of {} goes on: {end}; asking for everything",
                    upstream.text()
                );
                forget = true;
            }
            LinkEnd::Inflow(InflowError::Apply(_)) if stopped => log::error!(
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
        let least = if matches!(end, LinkEnd::Rdb(_) | LinkEnd::Generation(_)) { AFTER_BAD_RDB } else { 0 };
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

fn identity(server: &Server, forget: bool, rows: Rows) -> Result<Identity, LinkEnd> {
    let config = &server.config;
    let announced = config.int("replica-announce-port");
    let port = if announced > 0 { announced as u64 } else { server.port.load(Ordering::Relaxed) };
    let text = |name: &str| Some(config.bytes(name)).filter(|value| !value.is_empty());
    let position = role::position(&server.store, server.sync_always()).map_err(InflowError::from)?.filter(|_| !forget);
    Ok(Identity {
        port: u16::try_from(port).unwrap_or(0),
        address: Some(config.text("replica-announce-ip")).filter(|text| !text.is_empty()),
        user: text("masteruser"),
        password: text("masterauth"),
        position,
        rows,
        timeout: timeout(server),
        failover: server.replication.failover.handing(),
        handover: true,
    })
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
    rows: &mut Ongoing<Worker>,
) -> Result<(), LinkEnd> {
    let replication = &server.replication;
    set_phase(server, turn, Phase::Connecting);
    log::info!("Connecting to MASTER {}:{}", upstream.host, upstream.port);
    let limit = Duration::from_millis(timeout(server).min(10_000));
    let stream = wire::connect(upstream, limit, &|| replication.is_current(turn))
        .map_err(|error| WireError::Io { doing: "connecting to the master", error })?;
    let identity = identity(server, *forget, rows.ask())?;
    {
        let mut link = replication.link.lock();
        // The turn changes before the socket is taken out of there: the next link's must not be overwritten.
        if !replication.is_current(turn) {
            return Err(WireError::Cancelled.into());
        }
        link.socket = stream.try_clone().ok();
    }
    set_phase(server, turn, Phase::Handshake);
    match &identity.position {
        Some((id, offset)) => log::info!("Trying a partial resynchronization (request {id}:{}).", offset.0 + 1),
        None => log::info!("Partial resynchronization not possible (no cached master)"),
    }
    let handing = identity.failover.is_some();
    let mut wire = Wire::new(stream, Replica::new(identity, monotonic_ms()), server, turn);
    wire.check()?;
    loop {
        let (event, _) = match wire.next_event() {
            Err(WireError::Link(LinkError::Refused { step, reply })) if handing && wire.replica.asked() => {
                failover::refused(server, &reply);
                return Err(WireError::Link(LinkError::Refused { step, reply }).into());
            }
            event => event?,
        };
        if handing && matches!(event, Event::Continue(_) | Event::FullSync(_)) {
            failover::done(server);
        }
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
            Event::RowSync(id, offset, sync, block) => {
                log::info!("Full resync from master by rows: {id}:{offset}");
                set_phase(server, turn, Phase::Syncing);
                // The master serves us: if the link breaks, it is asked again at once.
                backoff.reset();
                rows_intake::receive(rows, server, &mut wire, (id, offset, sync, block), &upstream.text())?;
                *forget = false;
                break;
            }
            // Others do not come before one of these.
            Event::RdbBegins(_) | Event::Rdb(_) | Event::RdbEnds | Event::Rows(_) | Event::Stream(_) => {}
        }
    }
    rows.forget();
    backoff.reset();
    set_phase(server, turn, Phase::Up);
    follow(server, &mut wire, turn)
}

/// The master lets us go on. If its history has got another name, ours takes it too.
fn accept(server: &Server, wire: &Wire<'_>, id: Option<ReplId>, upstream: &Upstream) -> Result<(), LinkEnd> {
    let _switch = server.replication.switch.lock();
    wire.check()?;
    let end = server.store.log().end();
    let renamed = role::accept(&server.store, id, &upstream.text())?;
    let present = server.store.history().id;
    log::info!("Successful partial resynchronization with master: history {present} goes on at {end}");
    if let Some(before) = renamed {
        log::info!("Master replication ID changed to {present}; {before} stays valid up to {end}");
        server.replication.dismiss_peers("the master's history has a new name");
    }
    Ok(())
}

/// Applies the stream until the link breaks.
fn follow(server: &Arc<Server>, wire: &mut Wire<'_>, turn: u64) -> Result<(), LinkEnd> {
    let node = server.node();
    let mut inflow = Inflow::new(wire.replica.position());
    let mut ahead = ReadAhead::new(server);
    loop {
        let mut failed = None;
        loop {
            let step = wire.step()?;
            match step.event {
                Some(Event::Stream(range)) => {
                    if let Err(error) = inflow.push(wire.bytes(range, step.consumed)) {
                        failed = Some(error);
                        break;
                    }
                }
                _ if step.consumed == 0 => break,
                _ => {}
            }
        }
        while ahead.bring(server, &inflow) {
            let wanted = || server.replication.is_current(turn);
            let when =
                When { unix: clock::unix_ms(), link: monotonic_ms(), sync: server.sync_always(), wanted: &wanted };
            mailbox::hold();
            let committed = inflow.commit(node, &mut wire.replica, when);
            match committed {
                Ok(_) => mailbox::release(),
                // Nobody waits on a replica, so only messages are held. What the stream published comes again with it.
                Err(_) => mailbox::release_failed(&[]),
            }
            committed?;
            wire.replica.keep_alive(monotonic_ms());
            wire.send()?;
        }
        {
            let mut link = server.replication.link.lock();
            link.heard = wire.replica.heard();
            link.received = inflow.received();
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        wire.more()?;
    }
}
