//! The rows of [`Space::Meta`]: where in the log the engine stands, and the catalog.
//!
//! Both are written with every checkpoint, in the same engine commit as its rows, so an engine always says exactly what it holds.

use ardb_base::id::{Offset, ReplId};
use ardb_engine::{RowKey, Snapshot, Space};

use crate::catalog::{Catalog, FORMAT as FORMAT_OF_ROWS};
use crate::error::OpenError;
use ardb_base::id::Generation;

/// The row of the position.
pub const POSITION: RowKey<'static> = RowKey { space: Space::Meta, group: 1, order: 0, tail: b"" };
/// The row of the catalog.
pub const CATALOG: RowKey<'static> = RowKey { space: Space::Meta, group: 2, order: 0, tail: b"" };

const FORMAT: u8 = 1;

/// A place in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the log.
    pub epoch: u64,
    /// Everything below is in the engine, nothing from here on.
    pub offset: Offset,
    /// The database that is selected in the stream at `offset`, if that is known.
    pub db: Option<u32>,
    /// The replication id at that time; for people and for checks.
    pub id: ReplId,
}

/// The database as frames and rows store it: all ones for none.
pub fn db_to_u32(db: Option<u32>) -> u32 {
    db.unwrap_or(u32::MAX)
}

/// The inverse of [`db_to_u32`].
pub fn db_from_u32(db: u32) -> Option<u32> {
    (db != u32::MAX).then_some(db)
}

impl Position {
    /// Format 1, epoch (8), offset (8), database (4), id (40 characters); integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(&db_to_u32(self.db).to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out
    }

    /// The position that `bytes` hold, or `None` if they are damaged.
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (db, id) = rest.split_first_chunk()?;
        Some(Position {
            epoch: u64::from_le_bytes(*epoch),
            offset: Offset(u64::from_le_bytes(*offset)),
            db: db_from_u32(u32::from_le_bytes(*db)),
            id: ReplId::parse(id)?,
        })
    }
}

/// Reads both rows; `None` if the engine has neither, as one that was just created.
pub fn read(snapshot: &dyn Snapshot, generation: Generation) -> Result<Option<(Position, Catalog)>, OpenError> {
    let position = snapshot.get(&POSITION.encoded())?;
    let catalog = snapshot.get(&CATALOG.encoded())?;
    match (position, catalog) {
        (None, None) => Ok(None),
        (position, catalog) => {
            let position = position.and_then(|bytes| Position::decode(&bytes));
            if let Some(&format) =
                catalog.as_ref().and_then(|bytes| bytes.first()).filter(|format| **format != FORMAT_OF_ROWS)
            {
                return Err(OpenError::Rows { generation, format });
            }
            let catalog = catalog.and_then(|bytes| Catalog::decode(&bytes));
            match (position, catalog) {
                (Some(position), Some(catalog)) => Ok(Some((position, catalog))),
                (None, _) => Err(OpenError::Meta { generation, what: "position" }),
                (_, None) => Err(OpenError::Meta { generation, what: "catalog" }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_holds_the_position() {
        for db in [None, Some(0), Some(15)] {
            let position = Position { epoch: 3, offset: Offset(1 << 40), db, id: ReplId::from_random([7; 20]) };
            let bytes = position.encode();
            assert_eq!(Position::decode(&bytes), Some(position));
            for len in 0..bytes.len() {
                assert_eq!(Position::decode(&bytes[..len]), None);
            }
        }
    }
}
