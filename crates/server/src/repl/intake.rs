//! Receiving everything: the RDB on the wire becomes a new generation, which then becomes current in one step.
//!
//! Memory is bounded by the wire's buffer, the longest element and the store's budget. Until the last step the old data are served as
//! before, and whatever breaks leaves a directory that is deleted.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use ardb_base::id::{Offset, ReplId};
use ardb_commands::persist::load::{Existing, LoadError, Loader, Target};
use ardb_engine::RowsMut;
use ardb_rdb::{KeyMeta, Kind, Options, Reader, Sink};
use ardb_repl::replica::Event;
use ardb_store::{GenerationError, GenerationLoader, History, SyncPoint, WriteTxn};

use super::link::LinkEnd;
use super::status::monotonic_ms;
use super::wire::{Wire, WireError};
use crate::server::Server;
use crate::start::random_bytes;

/// Bytes of rows after which a transaction of the loader is committed.
const COMMIT: usize = 1 << 20;

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

/// A generation being filled: commits when enough has come, and lets rows go to the engine.
struct Filling<'g> {
    generation: &'g GenerationLoader,
    txn: Option<WriteTxn<'g>>,
    bytes: usize,
}

impl<'g> Filling<'g> {
    fn commit(&mut self) -> Result<(), GenerationError> {
        self.bytes = 0;
        if let Some(mut txn) = self.txn.take() {
            txn.commit()?;
        }
        self.generation.relieve()
    }
}

impl Target for Filling<'_> {
    type Error = GenerationError;

    fn rows(&mut self) -> &mut dyn RowsMut {
        let generation = self.generation;
        self.txn.get_or_insert_with(|| generation.write())
    }

    fn pace(&mut self, bytes: usize) -> Result<(), GenerationError> {
        self.bytes += bytes;
        if self.bytes < COMMIT { Ok(()) } else { self.commit() }
    }
}

/// The loader, and what the RDB says besides keys.
struct Intake<'g> {
    loader: Loader<Filling<'g>>,
    /// The database that is selected in the stream that follows.
    stream_db: Option<u32>,
}

impl Sink for Intake<'_> {
    type Error = LoadError<GenerationError>;

    fn aux(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        if key == b"repl-stream-db" {
            self.stream_db = ardb_base::number::parse_u64(value).and_then(|db| u32::try_from(db).ok());
        }
        self.loader.aux(key, value)
    }

    fn select_db(&mut self, db: u64) -> Result<(), Self::Error> {
        self.loader.select_db(db)
    }

    fn resize(&mut self, keys: u64, expires: u64) -> Result<(), Self::Error> {
        self.loader.resize(keys, expires)
    }

    fn function(&mut self, code: &[u8]) -> Result<(), Self::Error> {
        self.loader.function(code)
    }

    fn empty_key(&mut self, key: &[u8], kind: Kind) -> Result<(), Self::Error> {
        self.loader.empty_key(key, kind)
    }

    fn begin(&mut self, key: &[u8], meta: &KeyMeta, kind: Kind, size: Option<u64>) -> Result<(), Self::Error> {
        self.loader.begin(key, meta, kind, size)
    }

    fn string_value(&mut self, value: &[u8]) -> Result<(), Self::Error> {
        self.loader.string_value(value)
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Self::Error> {
        self.loader.string_piece(piece)
    }

    fn element(&mut self, element: &[u8]) -> Result<(), Self::Error> {
        self.loader.element(element)
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        self.loader.field(field, value)
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Self::Error> {
        self.loader.scored(member, score)
    }

    fn end(&mut self) -> Result<(), Self::Error> {
        self.loader.end()
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
    let (id, offset) = named.unwrap_or_else(|| {
        let mut bytes = [0; 20];
        random_bytes(&mut bytes);
        (ReplId::from_random(bytes), Offset(0))
    });
    let databases = server.shared.settings.databases;
    let db = Some(loaded.stream_db.filter(|db| *db < databases).unwrap_or(0));
    {
        let _switch = server.replication.switch.lock();
        wire.check()?;
        let point = SyncPoint { history: History::new(id), offset, db };
        server.store.install(generation, point, Some(upstream.as_bytes().to_vec()))?;
    }
    // All keys have changed, for those who watch them.
    for db in 0..databases {
        server.shared.db_modified(db, &mut |_| true);
    }
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

/// What an RDB brought.
struct Loaded {
    keys: u64,
    bytes: u64,
    version: u32,
    stream_db: Option<u32>,
}

/// Reads the RDB to its end into the generation.
fn load(server: &Server, wire: &mut Wire<'_>, generation: &GenerationLoader) -> Result<Loaded, LinkEnd> {
    let databases = server.shared.settings.databases;
    let filling = Filling { generation, txn: None, bytes: 0 };
    let mut intake = Intake { loader: Loader::new(filling, databases, Existing::Refuse), stream_db: None };
    let incoming = Incoming { wire, server, open: None, ended: false, failure: None };
    let mut reader = Reader::new(incoming, Options::default());
    let read = reader.read(&mut intake);
    let mut incoming = reader.into_inner();
    let summary = match read {
        Ok(summary) => summary,
        Err(error) => {
            return Err(match incoming.failure.take() {
                Some(failure) => failure.into(),
                None => LinkEnd::Rdb(error.to_string()),
            });
        }
    };
    // The announced length, or the mark, must stand right behind the checksum.
    incoming.advance()?;
    if !incoming.ended {
        return Err(LinkEnd::Rdb("bytes follow the RDB's checksum".into()));
    }
    let Intake { loader, stream_db } = intake;
    let (keys, functions) = (loader.keys, loader.functions);
    loader.into_target().commit()?;
    if functions > 0 {
        log::warn!("{functions} libraries of functions in the master's RDB were left out: functions are not supported");
    }
    Ok(Loaded { keys, bytes: summary.bytes, version: summary.version, stream_db })
}
