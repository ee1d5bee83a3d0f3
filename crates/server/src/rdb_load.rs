//! Taking an RDB's keys into rows: for DEBUG RELOAD, and for full syncs.

use ardb_engine::RowsMut;
use ardb_rdb::{KeyMeta, Sink};
use ardb_types::value::{Item, ValueBuilder};
use ardb_types::{At, Kind, TypeError, keyspace};

/// Why a key was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rows.
    #[error(transparent)]
    Data(#[from] TypeError),
    /// There are not so many databases here.
    #[error("the RDB has a database {0}, and there are only {1} here; see the directive 'databases'")]
    Database(u64, u32),
    /// An item came before its key.
    #[error("an item without a key")]
    Order,
}

struct Growing {
    key: Vec<u8>,
    expiry: Option<i64>,
    value: ValueBuilder,
}

/// Puts keys into rows. A key that is there already is replaced.
pub struct RowSink<'r> {
    rows: &'r mut dyn RowsMut,
    databases: u32,
    db: u32,
    growing: Option<Growing>,
    /// Keys taken so far.
    pub keys: u64,
    /// Libraries of functions that were left out, since they cannot be run here.
    pub functions: u64,
}

impl<'r> RowSink<'r> {
    /// Into `rows`, from database 0 on.
    pub fn new(rows: &'r mut dyn RowsMut, databases: u32) -> RowSink<'r> {
        RowSink { rows, databases, db: 0, growing: None, keys: 0, functions: 0 }
    }

    fn add(&mut self, item: Item<'_>) -> Result<(), LoadError> {
        let growing = self.growing.as_mut().ok_or(LoadError::Order)?;
        growing.value.add(self.rows, item)?;
        Ok(())
    }
}

impl Sink for RowSink<'_> {
    type Error = LoadError;

    fn select_db(&mut self, db: u64) -> Result<(), LoadError> {
        self.db =
            u32::try_from(db).ok().filter(|db| *db < self.databases).ok_or(LoadError::Database(db, self.databases))?;
        Ok(())
    }

    fn function(&mut self, _code: &[u8]) -> Result<(), LoadError> {
        self.functions += 1;
        Ok(())
    }

    fn begin(&mut self, key: &[u8], meta: &KeyMeta, kind: ardb_rdb::Kind, _: Option<u64>) -> Result<(), LoadError> {
        let kind = match kind {
            ardb_rdb::Kind::String => Kind::String,
            ardb_rdb::Kind::List => Kind::List,
            ardb_rdb::Kind::Set => Kind::Set,
            ardb_rdb::Kind::SortedSet => Kind::SortedSet,
            ardb_rdb::Kind::Hash => Kind::Hash,
        };
        let old = keyspace::lookup_raw(self.rows, &At::new(self.rows, self.db, key, i64::MIN))?;
        let value = ValueBuilder::new(self.rows, kind, old);
        self.growing = Some(Growing { key: key.to_vec(), expiry: meta.expire_at_ms, value });
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        self.add(Item::Piece(piece))
    }

    fn element(&mut self, element: &[u8]) -> Result<(), LoadError> {
        self.add(Item::Element(element))
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), LoadError> {
        self.add(Item::Field(field, value))
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), LoadError> {
        self.add(Item::Scored(member, score))
    }

    fn end(&mut self) -> Result<(), LoadError> {
        let Growing { key, expiry, value } = self.growing.take().ok_or(LoadError::Order)?;
        let at = At::new(self.rows, self.db, &key, i64::MIN);
        value.finish(self.rows, &at, expiry)?;
        self.keys += 1;
        Ok(())
    }
}
