//! Receiving everything: an RDB becomes a new generation, which then becomes current in one step.
//!
//! Memory is bounded by the longest element and the store's budget. Until the last step the old data are served as before, and whatever
//! breaks leaves a directory that is deleted.

use std::io::BufRead;

use ardb_base::id::{Offset, ReplId};
use ardb_commands::persist::load::{Existing, LoadError, Loader, Target};
use ardb_commands::shared::Settings;
use ardb_engine::RowsMut;
use ardb_rdb::{KeyMeta, Kind, Options, Reader, Sink};
use ardb_store::{BulkLoad, GenerationError, GenerationLoader, History, SyncPoint};
use ardb_types::{At, KeyRow, TypeError};

use crate::Node;

/// A generation being filled.
struct Filling<'g>(BulkLoad<'g>);

impl Target for Filling<'_> {
    type Error = GenerationError;

    fn rows(&mut self) -> &mut dyn RowsMut {
        &mut self.0
    }

    fn standing(&mut self, at: &At<'_>) -> Result<Option<KeyRow>, TypeError> {
        self.0.recent(&at.row()).map(KeyRow::parse).transpose()
    }

    fn pace(&mut self, _bytes: usize) -> Result<(), GenerationError> {
        self.0.pace()
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

/// What an RDB brought.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Keys.
    pub keys: u64,
    /// Libraries of functions that were left out.
    pub functions: u64,
    /// Length of the RDB in bytes.
    pub bytes: u64,
    /// Its version.
    pub version: u32,
    /// The database that is selected in the stream that follows, if the RDB says so.
    pub stream_db: Option<u32>,
}

/// Why an RDB was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It could not be read, or what it holds cannot be had here.
    #[error("{0}")]
    Rdb(String),
    /// Its rows could not be committed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// Reads an RDB to its end into a generation. Gives the input back, which may have failed for reasons of its own.
pub fn load<R: BufRead>(
    generation: &GenerationLoader,
    settings: &Settings,
    input: R,
) -> (Result<Loaded, IntakeError>, R) {
    let loader = Loader::new(Filling(generation.bulk()), settings.databases, settings.limits(), Existing::Refuse);
    let mut intake = Intake { loader, stream_db: None };
    let mut reader = Reader::new(input, Options::default());
    let read = reader.read(&mut intake);
    let input = reader.into_inner();
    let summary = match read {
        Ok(summary) => summary,
        Err(error) => return (Err(IntakeError::Rdb(error.to_string())), input),
    };
    let Intake { loader, stream_db } = intake;
    let (keys, functions) = (loader.keys, loader.functions);
    let committed = loader.into_target().0.finish();
    let loaded = Loaded { keys, functions, bytes: summary.bytes, version: summary.version, stream_db };
    (committed.map(|()| loaded).map_err(IntakeError::from), input)
}

/// Makes a loaded generation current: the history is the one that the master named, or `fresh` from 0 on if it named none. `stream_db` is the
/// database that is selected in the stream that follows; if the RDB does not say it, the stream does. Gives where the stream goes on.
///
/// # Errors
/// The old data are as they were.
pub fn install(
    node: Node<'_>,
    generation: GenerationLoader,
    named: Option<(ReplId, Offset)>,
    fresh: ReplId,
    stream_db: Option<u32>,
    upstream: &str,
) -> Result<(ReplId, Offset), GenerationError> {
    let (id, offset) = named.unwrap_or((fresh, Offset(0)));
    let databases = node.shared.settings.databases;
    // Not 0: if this server takes writes before the stream has said it, its own stream must.
    let db = stream_db.filter(|db| *db < databases);
    make_current(node, generation, SyncPoint { history: History::new(id), offset, db }, upstream)?;
    Ok((id, offset))
}

/// Makes a whole generation current at a point of a master's history.
///
/// # Errors
/// The old data are as they were.
pub fn make_current(
    node: Node<'_>,
    generation: GenerationLoader,
    point: SyncPoint,
    upstream: &str,
) -> Result<(), GenerationError> {
    node.store.install(generation, point, Some(upstream.as_bytes().to_vec()))?;
    // All keys have changed, for those who watch them.
    for db in 0..node.shared.settings.databases {
        node.shared.db_modified(db, &mut |_| true);
    }
    Ok(())
}
