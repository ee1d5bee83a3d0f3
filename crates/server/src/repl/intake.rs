//! Receiving everything: the RDB on the wire becomes a new generation, which then becomes current in one step.
//!
//! Memory is bounded by the wire's buffer, the longest element and the store's budget. Until the last step the old data are served as
//! before, and whatever breaks leaves a directory that is deleted.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use ardb_base::id::{Offset, ReplId};
use ardb_node::intake::{self, IntakeError, Loaded};
use ardb_repl::replica::Event;
use ardb_store::GenerationLoader;

use super::link::LinkEnd;
use super::status::monotonic_ms;
use super::wire::{Wire, WireError};
use crate::server::Server;
use crate::start::random_bytes;

/// The RDB's bytes, one by one as the reader asks for them.
struct Incoming<'w, 's> {
    wire: &'w mut Wire<'s>,
    server: &'w Server,
    /// Bytes of the last event that were not handed out: their range and the bytes that its step consumed.
    open: Option<(std::ops::Range<usize>, usize)>,
    ended: bool,
    /// Why the reader was told that reading failed.
    failure: Option<WireError>,
}

impl Incoming<'_, '_> {
    fn advance(&mut self) -> Result<(), WireError> {
        while self.open.is_none() && !self.ended {
            match self.wire.next_event()? {
                (Event::Rdb(range), consumed) => {
                    let mut link = self.server.replication.link.lock();
                    link.sync_read += range.len() as u64;
                    link.sync_heard = monotonic_ms();
                    link.heard = link.sync_heard;
                    self.open = Some((range, consumed));
                }
                (Event::RdbEnds, _) => self.ended = true,
                // The state machine gives nothing else between the two.
                (_, _) => {}
            }
        }
        Ok(())
    }
}

impl BufRead for Incoming<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = self.advance() {
            let shown = io::Error::other(error.to_string());
            self.failure = Some(error);
            return Err(shown);
        }
        Ok(match &self.open {
            Some((range, consumed)) => self.wire.bytes(range.clone(), *consumed),
            None => &[],
        })
    }

    fn consume(&mut self, amount: usize) {
        if let Some((range, _)) = &mut self.open {
            range.start += amount;
            if range.start >= range.end {
                self.open = None;
            }
        }
    }
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buf.len());
        buf[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

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
        intake::install(server.node(), generation, named, fresh, loaded.stream_db, upstream)?
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

/// Reads the RDB to its end into the generation.
fn load(server: &Server, wire: &mut Wire<'_>, generation: &GenerationLoader) -> Result<Loaded, LinkEnd> {
    let incoming = Incoming { wire, server, open: None, ended: false, failure: None };
    let (loaded, mut incoming) = intake::load(generation, server.shared.settings.databases, incoming);
    let loaded = match (loaded, incoming.failure.take()) {
        (Ok(loaded), _) => loaded,
        (Err(_), Some(failure)) => return Err(failure.into()),
        (Err(IntakeError::Rdb(why)), None) => return Err(LinkEnd::Rdb(why)),
        (Err(IntakeError::Generation(error)), None) => return Err(error.into()),
    };
    // The announced length, or the mark, must stand right behind the checksum.
    incoming.advance()?;
    if !incoming.ended {
        return Err(LinkEnd::Rdb("bytes follow the RDB's checksum".into()));
    }
    if loaded.functions > 0 {
        log::warn!(
            "{} libraries of functions in the master's RDB were left out: functions are not supported",
            loaded.functions
        );
    }
    Ok(loaded)
}
