//! Layer 2: the values of Redis's types as rows, over any transaction ([`ardb_engine::Rows`], [`ardb_engine::RowsMut`]).
//!
//! [`keyspace`] owns the key's row and everything about keys of any type: lookup, expiry, deletion, rename. Each type has a file for its
//! value. Nothing here knows of RESP, clients, or the log; the time is an argument.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

pub mod collection;
pub mod hash;
pub mod key_row;
pub mod keyspace;
pub mod limits;
pub mod list;
pub mod model;
mod packed;
pub mod set;
pub mod string;
#[cfg(test)]
mod tests;
pub mod value;
pub mod zset;

use ardb_base::hash::key_hash;
use ardb_base::id::{KeyspaceId, UnixMs};
use ardb_engine::{EngineError, RowKey, Rows, Space};

pub use key_row::{Encoding, Header, KeyRow, Kind};
pub use limits::Limits;

/// Why an operation on a value failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TypeError {
    /// The key holds another type.
    #[error("the key holds another type")]
    WrongType,
    /// The data could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row does not have the form that it must have.
    #[error("{0}")]
    Corrupt(String),
}

/// A key and everything that decides what it means: its database, and the time by which keys are expired.
#[derive(Clone, Copy, Debug)]
pub struct At<'k> {
    /// Number of the database.
    pub db: u32,
    /// The keyspace that stands behind it now.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: &'k [u8],
    /// Its `key_hash`.
    pub hash: u64,
    /// Keys with an expiry at or before this time are not there. `UnixMs::MIN`: nothing has expired.
    pub now: UnixMs,
    /// Up to what size what is written there is held whole in the key's row.
    pub limits: Limits,
}

impl<'k> At<'k> {
    /// The place of `key` in `db`, with the limits of Redis's defaults.
    pub fn new(rows: &(impl Rows + ?Sized), db: u32, key: &'k [u8], now: UnixMs) -> At<'k> {
        At { db, keyspace: rows.keyspace(db), key, hash: key_hash(key), now, limits: Limits::default() }
    }

    /// The same place with other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> At<'k> {
        At { limits, ..self }
    }

    /// The name of the key's row.
    #[must_use]
    pub fn row(&self) -> RowKey<'k> {
        RowKey::new(Space::Key, self.keyspace.0, self.hash, self.key)
    }
}
