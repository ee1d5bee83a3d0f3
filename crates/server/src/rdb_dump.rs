//! Writing the data at one point in time as an RDB: for SAVE, and for replicas.

use std::io::Write;
use std::ops::ControlFlow;

use ardb_engine::Rows;
use ardb_rdb::{Items, Kind, WriteError, Writer, WriterOptions};
use ardb_types::value::{Item, each_item};
use ardb_types::{Encoding, KeyRow, TypeError, keyspace};

/// Why an RDB was not written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The data cannot be read.
    #[error("reading the data: {0}")]
    Data(#[from] TypeError),
    /// The target, or the format.
    #[error("writing: {0}")]
    Write(#[from] WriteError),
}

/// Keys taken at a time, so that nothing is held while one of them is read in full.
const BATCH: usize = 128;

/// Calls `visit` with each key of a database and its row, those included that have expired and are not deleted yet.
///
/// # Errors
/// The data cannot be read, or what `visit` returns.
pub fn each_key<E: From<TypeError>>(
    rows: &(impl Rows + ?Sized),
    db: u32,
    mut visit: impl FnMut(&[u8], KeyRow) -> Result<(), E>,
) -> Result<(), E> {
    let space = rows.keyspace(db);
    let mut from = 0;
    let mut batch: Vec<(u64, Vec<u8>, KeyRow)> = Vec::with_capacity(BATCH);
    loop {
        let mut more = false;
        keyspace::scan_keys(rows, space, from, &mut |hash, key, row| {
            // Keys of one hash stay together, because the next batch begins after it.
            if batch.len() >= BATCH && batch.last().is_some_and(|(last, ..)| *last != hash) {
                more = true;
                return ControlFlow::Break(());
            }
            batch.push((hash, key.to_vec(), row));
            ControlFlow::Continue(())
        })?;
        let last = batch.last().map(|(hash, ..)| *hash);
        for (_, key, row) in batch.drain(..) {
            visit(&key, row)?;
        }
        match last.and_then(|hash| hash.checked_add(1)) {
            Some(next) if more => from = next,
            _ => return Ok(()),
        }
    }
}

fn kind(kind: ardb_types::Kind) -> Kind {
    match kind {
        ardb_types::Kind::String => Kind::String,
        ardb_types::Kind::List => Kind::List,
        ardb_types::Kind::Set => Kind::Set,
        ardb_types::Kind::SortedSet => Kind::SortedSet,
        ardb_types::Kind::Hash => Kind::Hash,
    }
}

/// Writes all databases of `rows` to `target`. Gives the target back and how many keys that were.
///
/// # Errors
/// The data cannot be read, or the target cannot be written; what was written is then no RDB.
pub fn write_rdb<W: Write>(
    rows: &(impl Rows + ?Sized),
    databases: u32,
    target: W,
    options: WriterOptions,
) -> Result<(W, u64), DumpError> {
    let mut writer = Writer::new(target, options)?;
    let mut keys = 0;
    for db in 0..databases {
        if rows.key_count(db) == 0 {
            continue;
        }
        writer.select_db(db)?;
        if options.version >= 7 {
            writer.resize(rows.key_count(db), rows.expiry_count(db))?;
        }
        each_key(rows, db, |key, row| {
            keys += 1;
            write_key(rows, &mut writer, key, &row)
        })?;
    }
    Ok((writer.finish()?, keys))
}

fn write_key<W: Write>(
    rows: &(impl Rows + ?Sized),
    writer: &mut Writer<W>,
    key: &[u8],
    row: &KeyRow,
) -> Result<(), DumpError> {
    if let (ardb_types::Kind::String, Encoding::Inline) = (row.kind(), row.encoding()) {
        writer.string(key, row.expiry(), row.inline())?;
        return Ok(());
    }
    writer.begin(key, row.expiry(), kind(row.kind()), row.size())?;
    let mut failed = None;
    each_item(rows, row, &mut |item| {
        let written = match item {
            Item::Piece(bytes) => writer.string_piece(bytes),
            Item::Element(element) => writer.element(element),
            Item::Field(field, value) => writer.field(field, value),
            Item::Scored(member, score) => writer.scored(member, score),
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
    writer.end()?;
    Ok(())
}
