//! RDB into rows.
//!
//! A [`Loader`] takes the events of a reader and writes keys through a [`Target`], which is a transaction, and decides when what was written is
//! committed. Big values pass in pieces. If reading fails, what was begun must be dropped with the target: [`Loader::abandon`] discards it
//! where the transaction goes on.

use ardb_engine::{EngineError, RowsMut};
use ardb_rdb::{KeyMeta, Kind, Sink};
use ardb_types::hash::Hash;
use ardb_types::list::{End, List};
use ardb_types::set::Set;
use ardb_types::zset::ZSetBuilder;
use ardb_types::{At, KeyRow, TypeError, keyspace, string};

/// Where rows go.
pub trait Target {
    /// Its own failures.
    type Error;

    /// The transaction. What was got before a [`Target::pace`] may be gone after it.
    fn rows(&mut self) -> &mut dyn RowsMut;

    /// Called after each key and, within a big one, after each [`PACE`] bytes or so: the place to commit. `bytes` were written since the last call.
    fn pace(&mut self, bytes: usize) -> Result<(), Self::Error>;
}

/// Bytes of one value after which [`Target::pace`] is called.
pub const PACE: usize = 1 << 20;

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
    /// Another of the same name is replaced (RESTORE ... REPLACE).
    Replace,
}

enum Open {
    String(string::Builder),
    List(List),
    Set(Set),
    Hash(Hash),
    SortedSet(ZSetBuilder),
}

/// Takes an RDB's or a payload's events. Counts are what was loaded so far.
pub struct Loader<T: Target> {
    target: T,
    databases: u32,
    existing: Existing,
    named: bool,
    db: u32,
    key: Vec<u8>,
    expiry: Option<i64>,
    old: Option<KeyRow>,
    open: Option<Open>,
    bytes: usize,
    /// Keys loaded.
    pub keys: u64,
    /// Of them with an expiry.
    pub expiries: u64,
    /// Libraries of functions that were left out.
    pub functions: u64,
}

impl<T: Target> Loader<T> {
    /// A loader into an empty data set with this many databases.
    pub fn new(target: T, databases: u32, existing: Existing) -> Loader<T> {
        Loader {
            target,
            databases,
            existing,
            named: false,
            db: 0,
            key: Vec::new(),
            expiry: None,
            old: None,
            open: None,
            bytes: 0,
            keys: 0,
            expiries: 0,
            functions: 0,
        }
    }

    /// Takes one payload for this key of this database: a RESTORE.
    pub fn for_key(target: T, db: u32, key: &[u8], expiry: Option<i64>, existing: Existing) -> Loader<T> {
        let mut loader = Loader::new(target, db + 1, existing);
        loader.named = true;
        loader.db = db;
        loader.key = key.to_vec();
        loader.expiry = expiry;
        loader
    }

    /// Gives the target back.
    pub fn into_target(self) -> T {
        self.target
    }

    /// Discards the value that was begun, if there is one.
    pub fn abandon(&mut self) {
        let rows = self.target.rows();
        match self.open.take() {
            None => {}
            Some(Open::String(builder)) => builder.abandon(rows),
            Some(Open::List(list)) => rows.discard(list.collection().object()),
            Some(Open::Set(set)) => rows.discard(set.collection().object()),
            Some(Open::Hash(hash)) => rows.discard(hash.collection().object()),
            Some(Open::SortedSet(builder)) => builder.abandon(rows),
        }
    }

    fn wrote(&mut self, bytes: usize) -> Result<(), LoadError<T::Error>> {
        self.bytes += bytes + 32;
        if self.bytes < PACE {
            return Ok(());
        }
        self.target.pace(std::mem::take(&mut self.bytes)).map_err(LoadError::Target)
    }

    fn wrong() -> LoadError<T::Error> {
        TypeError::Corrupt("an item of another type came".into()).into()
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
        // A payload has no key of its own: the one that was given stays.
        if !self.named {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.expiry = meta.expire_at_ms;
        }
        let rows = self.target.rows();
        let at = At::new(rows, self.db, &self.key, i64::MIN);
        self.old = keyspace::lookup_raw(rows, &at)?;
        if self.old.is_some() && self.existing == Existing::Refuse {
            return Err(LoadError::Duplicate(String::from_utf8_lossy(key).into_owned()));
        }
        let old = self.old.clone();
        self.open = Some(match kind {
            Kind::String => Open::String(string::Builder::new()),
            Kind::List => Open::List(List::create(rows, old)),
            Kind::Set => Open::Set(Set::create(rows, old)),
            Kind::Hash => Open::Hash(Hash::create(rows, old)),
            Kind::SortedSet => Open::SortedSet(ZSetBuilder::new(rows)),
        });
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Self::Error> {
        let Some(Open::String(builder)) = &mut self.open else { return Err(Self::wrong()) };
        builder.push(self.target.rows(), piece);
        self.wrote(piece.len())
    }

    fn element(&mut self, element: &[u8]) -> Result<(), Self::Error> {
        match &mut self.open {
            Some(Open::List(list)) => list.push(self.target.rows(), End::Right, element),
            Some(Open::Set(set)) => {
                set.insert(self.target.rows(), element)?;
            }
            _ => return Err(Self::wrong()),
        }
        self.wrote(element.len())
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        let Some(Open::Hash(hash)) = &mut self.open else { return Err(Self::wrong()) };
        hash.insert(self.target.rows(), field, value)?;
        self.wrote(field.len() + value.len())
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Self::Error> {
        let Some(Open::SortedSet(builder)) = &mut self.open else { return Err(Self::wrong()) };
        builder.append(self.target.rows(), member, score)?;
        self.wrote(2 * member.len() + 32)
    }

    fn end(&mut self) -> Result<(), Self::Error> {
        let rows = self.target.rows();
        let at = At::new(rows, self.db, &self.key, i64::MIN);
        let old = self.old.take();
        match self.open.take() {
            None => return Err(Self::wrong()),
            Some(Open::String(builder)) => builder.finish(rows, &at, old.as_ref(), self.expiry),
            Some(Open::SortedSet(builder)) => {
                builder.finish(rows, &at, old, self.expiry)?;
            }
            Some(Open::List(list)) => {
                list.save(rows, &at);
                expire(rows, &at, self.expiry)?;
            }
            Some(Open::Set(set)) => {
                set.save(rows, &at);
                expire(rows, &at, self.expiry)?;
            }
            Some(Open::Hash(hash)) => {
                hash.save(rows, &at);
                expire(rows, &at, self.expiry)?;
            }
        }
        self.keys += 1;
        self.expiries += u64::from(self.expiry.is_some());
        let bytes = std::mem::take(&mut self.bytes) + self.key.len() + 32;
        self.target.pace(bytes).map_err(LoadError::Target)
    }
}

fn expire(rows: &mut dyn RowsMut, at: &At<'_>, expiry: Option<i64>) -> Result<(), TypeError> {
    if expiry.is_some()
        && let Some(row) = keyspace::lookup_raw(rows, at)?
    {
        keyspace::set_expiry(rows, at, &row, expiry);
    }
    Ok(())
}

/// A transaction that the caller commits: for RESTORE, and wherever the data are known to be small.
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
