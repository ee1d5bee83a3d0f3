//! Strings (to be written whole; `get` shows the form).

use ardb_engine::{Rows, Value};

use crate::{At, Encoding, Kind, TypeError, keyspace};

/// The whole string.
pub fn get(rows: &(impl Rows + ?Sized), at: &At<'_>) -> Result<Option<Value>, TypeError> {
    Ok(match keyspace::lookup_kind(rows, at, Kind::String)? {
        None => None,
        Some(row) => match row.encoding() {
            Encoding::Inline => Some(Value::new(row.inline())),
            Encoding::Rows => None,
        },
    })
}
