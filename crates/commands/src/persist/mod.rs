//! Values and whole data sets as RDB: [`save`] writes them out of rows, [`load`] writes them into rows.
//!
//! Full syncs, RDB files, DUMP and RESTORE all go through here, so each type is spelled in one place.

pub mod load;
pub mod save;

#[cfg(test)]
mod tests;

use ardb_types::Kind;

/// The RDB crate's name of a type.
#[must_use]
pub fn rdb_kind(kind: Kind) -> ardb_rdb::Kind {
    match kind {
        Kind::String => ardb_rdb::Kind::String,
        Kind::List => ardb_rdb::Kind::List,
        Kind::Set => ardb_rdb::Kind::Set,
        Kind::SortedSet => ardb_rdb::Kind::SortedSet,
        Kind::Hash => ardb_rdb::Kind::Hash,
    }
}

/// Our name of a type of the RDB crate.
#[must_use]
pub fn value_kind(kind: ardb_rdb::Kind) -> Kind {
    match kind {
        ardb_rdb::Kind::String => Kind::String,
        ardb_rdb::Kind::List => Kind::List,
        ardb_rdb::Kind::Set => Kind::Set,
        ardb_rdb::Kind::SortedSet => Kind::SortedSet,
        ardb_rdb::Kind::Hash => Kind::Hash,
    }
}
