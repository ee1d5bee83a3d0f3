//! Rows into RDB.
//!
//! The rows must stand still meanwhile: give it a snapshot, or a transaction. Counts are taken from the key's row of that same point in time, and the
//! writer holds us to them. Memory does not grow with the data: keys and elements pass in pieces.

use std::io::Write;
use std::ops::ControlFlow;

use ardb_engine::{Direction, EngineError, RowRange, Rows, Space};
use ardb_rdb::{Items, WriteError, Writer};
use ardb_types::value::{Item, each_item};
use ardb_types::{Encoding, KeyRow, Kind, TypeError};

use super::rdb_kind;

/// Why saving stopped.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] TypeError),
    /// The RDB could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The caller wanted it to end.
    #[error("cancelled")]
    Cancelled,
}

impl From<EngineError> for SaveError {
    fn from(error: EngineError) -> SaveError {
        SaveError::Data(error.into())
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Keys.
    pub keys: u64,
    /// Of them with an expiry.
    pub expiries: u64,
}

/// Writes all keys of all databases, expired ones too (a master's DEL will tell its replicas). `progress` is called after each key with what has
/// been written so far; it may break the work off.
pub fn whole<W: Write>(
    rows: &(impl Rows + ?Sized),
    databases: u32,
    out: &mut Writer<W>,
    progress: &mut dyn FnMut(Saved) -> ControlFlow<()>,
) -> Result<Saved, SaveError> {
    let mut saved = Saved::default();
    for db in 0..databases {
        let count = rows.key_count(db);
        if count == 0 {
            continue;
        }
        out.select_db(db)?;
        let before = saved.keys;
        each_key(rows, db, |key, row| {
            one(rows, key, row, out)?;
            saved.keys += 1;
            saved.expiries += u64::from(row.expiry().is_some());
            if progress(saved).is_break() {
                return Err(SaveError::Cancelled);
            }
            Ok(())
        })?;
        if saved.keys - before != count {
            let found = saved.keys - before;
            return Err(TypeError::Corrupt(format!("database {db} counts {count} keys and has {found}")).into());
        }
    }
    Ok(saved)
}

/// Calls `visit` with each key of a database and its row, in the order of hashes, those included that have expired and are not deleted yet.
pub fn each_key<E: From<TypeError>>(
    rows: &(impl Rows + ?Sized),
    db: u32,
    mut visit: impl FnMut(&[u8], &KeyRow) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    let range = RowRange::group(Space::Key, rows.keyspace(db).0);
    rows.scan(range, Direction::Forward, &mut |name, value| match KeyRow::parse(value.clone())
        .map_err(E::from)
        .and_then(|row| visit(name.tail, &row))
    {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })
    .map_err(TypeError::from)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Writes one key.
fn one<W: Write>(rows: &(impl Rows + ?Sized), key: &[u8], row: &KeyRow, out: &mut Writer<W>) -> Result<(), SaveError> {
    if row.kind() == Kind::String && row.encoding() == Encoding::Inline {
        return Ok(out.string(key, row.expiry(), row.inline())?);
    }
    out.begin(key, row.expiry(), rdb_kind(row.kind()), row.size())?;
    items(rows, row, out)
}

/// The payload of DUMP for the value whose key's row is `row`.
pub fn payload(rows: &(impl Rows + ?Sized), row: &KeyRow) -> Result<Vec<u8>, SaveError> {
    let mut out = ardb_rdb::DumpWriter::new(Vec::new(), true);
    if row.kind() == Kind::String && row.encoding() == Encoding::Inline {
        out.string(row.inline())?;
    } else {
        out.begin(rdb_kind(row.kind()), row.size())?;
        items(rows, row, &mut out)?;
    }
    Ok(out.finish()?)
}

/// Writes the items of a value that was begun with the size in its row, and ends it.
fn items(rows: &(impl Rows + ?Sized), row: &KeyRow, out: &mut impl Items) -> Result<(), SaveError> {
    let mut failed = None;
    each_item(rows, row, &mut |item| {
        let written = match item {
            Item::Piece(bytes) => out.string_piece(bytes),
            Item::Element(element) => out.element(element),
            Item::Field(field, value) => out.field(field, value),
            Item::Scored(member, score) => out.scored(member, score),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(out.end()?)
}
