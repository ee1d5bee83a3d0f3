//! Receiving everything: the RDB on the wire becomes a new generation, which then becomes current in one step.
//!
//! A thread of its own reads the RDB, writes its rows and finishes them, so that the link's thread can tell the master that we live, however long that
//! takes. Memory is bounded by the wire's buffer, the pipe between the two, the longest element and the store's budget. Until the last
//! step the old data are served as before, and whatever breaks leaves a directory that is deleted.

use std::io::BufRead;
use std::sync::Arc;

use ardb_base::id::{Offset, ReplId};
use ardb_commands::shared::Settings;
use ardb_node::intake::{self, IntakeError, Loaded};
use ardb_repl::replica::Event;
use ardb_store::GenerationLoader;

use super::link::LinkEnd;
use super::pipe::{self, Inlet, Outlet};
use super::status::monotonic_ms;
use super::wire::{Wire, WireError};
use crate::server::Server;
use crate::start::random_bytes;

/// Receives everything and makes it current. `named` is the history and offset that the master announced; one that knows only SYNC announces
/// none, and gets a name from us.
///
/// # Errors
/// The link must be given up; the old data are as they were.
pub fn receive(
    server: &Arc<Server>,
    wire: &mut Wire<'_>,
    named: Option<(ReplId, Offset)>,
    upstream: &str,
) -> Result<(), LinkEnd> {
    let started = monotonic_ms();
    let generation = server.store.begin_generation()?;
    let total = loop {
        if let (Event::RdbBegins(total), _) = wire.next_event()? {
            break total;
        }
    };
    {
        let mut link = server.replication.link.lock();
        (link.sync_total, link.sync_read, link.sync_heard) = (total, 0, monotonic_ms());
        link.sync_rows = None;
    }
    match total {
        Some(bytes) => {
            log::info!("MASTER <-> REPLICA sync: receiving {bytes} bytes from master into {}", generation.generation())
        }
        None => log::info!(
            "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF into {}",
            generation.generation()
        ),
    }
    let loaded = load(server, wire, &generation)?;
    let mut random = [0; 20];
    random_bytes(&mut random);
    let (id, offset) = {
        let _switch = server.replication.switch.lock();
        wire.check()?;
        let fresh = ReplId::from_random(random);
        wire.beside(|| intake::install(server.node(), generation, named, fresh, loaded.stream_db, upstream))??
    };
    log::info!(
        "MASTER <-> REPLICA sync: Finished with success: {} keys, {} bytes of RDB version {}, in {} ms; history {id} at {offset}",
        loaded.keys,
        loaded.bytes,
        loaded.version,
        monotonic_ms() - started
    );
    wire.replica.installed(offset, monotonic_ms());
    Ok(())
}

/// Brings the RDB into the generation, to its end.
fn load(server: &Server, wire: &mut Wire<'_>, generation: &GenerationLoader) -> Result<Loaded, LinkEnd> {
    let (inlet, outlet) = pipe::pipe();
    let settings = &server.shared.settings;
    let (fed, read) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ardb-rdb".into());
        let reader = thread
            .spawn_scoped(scope, || read(generation, settings, outlet))
            .map_err(|error| WireError::Io { doing: "starting a thread for the RDB", error })?;
        let fed = feed(server, wire, &inlet);
        // What breaks meanwhile shows itself again; the rows must be finished before the generation may go.
        let mut alive = fed.is_ok();
        if alive {
            inlet.wait(|| alive = alive && wire.idle().is_ok());
        }
        drop(inlet);
        Ok::<_, LinkEnd>((fed, reader.join().map_err(|_| LinkEnd::Panicked)?))
    })?;
    // The reader's complaint about a link that broke says less than the link's.
    fed?;
    let loaded = match read {
        Ok(loaded) => loaded,
        Err(IntakeError::Rdb(why)) => return Err(LinkEnd::Rdb(why)),
        Err(IntakeError::Generation(error)) => return Err(error.into()),
    };
    if loaded.functions > 0 {
        log::warn!(
            "{} libraries of functions in the master's RDB were left out: functions are not supported",
            loaded.functions
        );
    }
    Ok(loaded)
}

/// The reader's side.
fn read(generation: &GenerationLoader, settings: &Settings, outlet: Outlet) -> Result<Loaded, IntakeError> {
    let (loaded, mut outlet) = intake::load(generation, settings, outlet);
    let loaded = loaded?;
    // The announced length, or the mark, must stand right behind the checksum. If the link breaks before that, it says so itself.
    match outlet.fill_buf() {
        Ok([]) | Err(_) => Ok(loaded),
        Ok(_) => Err(IntakeError::Rdb("bytes follow the RDB's checksum".into())),
    }
}

/// The link's side: hands the RDB's bytes over as they come, up to their end, or until nobody reads them any more.
fn feed(server: &Server, wire: &mut Wire<'_>, inlet: &Inlet) -> Result<(), WireError> {
    loop {
        if !inlet.make_room(|| wire.idle())? {
            return Ok(());
        }
        match wire.next_event()? {
            (Event::Rdb(range), consumed) => {
                inlet.push(wire.bytes(range.clone(), consumed));
                let mut link = server.replication.link.lock();
                link.sync_read += range.len() as u64;
                link.sync_heard = monotonic_ms();
                link.heard = link.sync_heard;
            }
            (Event::RdbEnds, _) => {
                inlet.complete();
                return Ok(());
            }
            // The state machine gives nothing else between the two.
            (_, _) => {}
        }
    }
}
