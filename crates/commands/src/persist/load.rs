//! RDB into rows.
//!
//! A [`Loader`] takes the events of a reader and writes keys through a [`Target`], which is a transaction, and decides when what was written is
//! committed. Big values pass in pieces. If reading fails, what was begun is dropped with the target.

use ardb_engine::{EngineError, RowsMut};
use ardb_rdb::{KeyMeta, Kind, Sink};
use ardb_types::value::{Item, ValueBuilder};
use ardb_types::{At, KeyRow, Limits, TypeError, keyspace};

use super::value_kind;

/// Where rows go.
pub trait Target {
    /// Its own failures.
    type Error;

    /// The transaction. What was got before a [`Target::pace`] may be gone after it.
    fn rows(&mut self) -> &mut dyn RowsMut;

    /// The key's row, if there is one. A target that finds out by other means when a key stands twice may know of some only.
    fn standing(&mut self, at: &At<'_>) -> Result<Option<KeyRow>, TypeError> {
        keyspace::lookup_raw(self.rows(), at)
    }

    /// Called after each key and, within a big one, after each [`PACE`] bytes or so: the place to commit. `bytes` were written since the last call.
    fn pace(&mut self, bytes: usize) -> Result<(), Self::Error>;
}

/// Bytes of one value after which [`Target::pace`] is called.
pub const PACE: usize = 1 << 20;
/// What an item costs beyond its bytes, for the pace.
const ITEM_COST: usize = 32;

/// Why loading stopped, apart from the stream itself.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The rows could not be read or written.
    #[error(transparent)]
    Data(#[from] TypeError),
    /// The RDB uses a database that this server does not have.
    #[error("database {0} is not configured here: raise 'databases'")]
    Database(u64),
    /// A key stands twice.
    #[error("the key '{0}' stands twice")]
    Duplicate(String),
    /// Committing failed.
    #[error("{0}")]
    Target(E),
}

impl<E> From<EngineError> for LoadError<E> {
    fn from(error: EngineError) -> LoadError<E> {
        LoadError::Data(error.into())
    }
}

/// What a key may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Another of the same name is a mistake of the stream.
    Refuse,
    /// Another of the same name is replaced (DEBUG RELOAD MERGE).
    Replace,
}

/// Takes an RDB's events. Counts are what was loaded so far.
pub struct Loader<T: Target> {
    target: T,
    databases: u32,
    existing: Existing,
    db: u32,
    key: Vec<u8>,
    expiry: Option<i64>,
    limits: Limits,
    value: Option<ValueBuilder>,
    bytes: usize,
    /// Keys loaded.
    pub keys: u64,
    /// Of them with an expiry.
    pub expiries: u64,
    /// Libraries of functions that were left out.
    pub functions: u64,
}

impl<T: Target> Loader<T> {
    /// A loader into a data set with this many databases, where collections within `limits` are held in their key's row.
    pub fn new(target: T, databases: u32, limits: Limits, existing: Existing) -> Loader<T> {
        Loader {
            target,
            databases,
            limits,
            existing,
            db: 0,
            key: Vec::new(),
            expiry: None,
            value: None,
            bytes: 0,
            keys: 0,
            expiries: 0,
            functions: 0,
        }
    }

    /// Gives the target back.
    pub fn into_target(self) -> T {
        self.target
    }

    fn add(&mut self, item: Item<'_>, bytes: usize) -> Result<(), LoadError<T::Error>> {
        let Some(value) = &mut self.value else {
            return Err(TypeError::Corrupt("an item without a value came".into()).into());
        };
        value.add(self.target.rows(), item)?;
        self.bytes += bytes + ITEM_COST;
        if self.bytes < PACE {
            return Ok(());
        }
        self.target.pace(std::mem::take(&mut self.bytes)).map_err(LoadError::Target)
    }
}

impl<T: Target> Sink for Loader<T> {
    type Error = LoadError<T::Error>;

    fn select_db(&mut self, db: u64) -> Result<(), Self::Error> {
        self.db = u32::try_from(db).ok().filter(|db| *db < self.databases).ok_or(LoadError::Database(db))?;
        Ok(())
    }

    fn function(&mut self, _code: &[u8]) -> Result<(), Self::Error> {
        self.functions += 1;
        Ok(())
    }

    fn begin(&mut self, key: &[u8], meta: &KeyMeta, kind: Kind, _size: Option<u64>) -> Result<(), Self::Error> {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.expiry = meta.expire_at_ms;
        let at = At::new(self.target.rows(), self.db, key, i64::MIN);
        let old = self.target.standing(&at)?;
        if old.is_some() && self.existing == Existing::Refuse {
            return Err(LoadError::Duplicate(String::from_utf8_lossy(key).into_owned()));
        }
        self.value = Some(ValueBuilder::new(value_kind(kind), old, self.limits));
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Self::Error> {
        self.add(Item::Piece(piece), piece.len())
    }

    fn element(&mut self, element: &[u8]) -> Result<(), Self::Error> {
        self.add(Item::Element(element), element.len())
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        self.add(Item::Field(field, value), field.len() + value.len())
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Self::Error> {
        self.add(Item::Scored(member, score), 2 * member.len())
    }

    fn end(&mut self) -> Result<(), Self::Error> {
        let rows = self.target.rows();
        let at = At::new(rows, self.db, &self.key, i64::MIN);
        if let Some(value) = self.value.take() {
            value.finish(rows, &at, self.expiry)?;
        }
        self.keys += 1;
        self.expiries += u64::from(self.expiry.is_some());
        let bytes = std::mem::take(&mut self.bytes) + self.key.len() + ITEM_COST;
        self.target.pace(bytes).map_err(LoadError::Target)
    }
}

/// A transaction that the caller commits, for data that are known to be small.
pub struct Within<'a>(pub &'a mut dyn RowsMut);

impl Target for Within<'_> {
    type Error = std::convert::Infallible;

    fn rows(&mut self) -> &mut dyn RowsMut {
        &mut *self.0
    }

    fn pace(&mut self, _bytes: usize) -> Result<(), Self::Error> {
        Ok(())
    }
}
