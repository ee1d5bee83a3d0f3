//! DEBUG DIGEST: a sum over the data that does not depend on the order of keys, fields or members, and is the same on a Redis that
//! holds the same data.
//!
//! To *xor* bytes into a sum is to xor their SHA-1 into it; to *mix* them is to xor them and then take the SHA-1 of the sum, so that the
//! order of mixing counts and that of xoring does not.

use std::ops::ControlFlow;

use ardb_base::number::f64_text;
use ardb_engine::Rows;
use ardb_types::value::{Item, each_item};
use ardb_types::{KeyRow, Kind, TypeError};
use sha1::{Digest, Sha1};

use ardb_commands::persist::save::each_key;

/// A sum.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Sum([u8; 20]);

impl Sum {
    fn xor(&mut self, bytes: &[u8]) {
        let hash: [u8; 20] = Sha1::digest(bytes).into();
        for (byte, other) in self.0.iter_mut().zip(hash) {
            *byte ^= other;
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Forty hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The numbers by which Redis calls its types.
fn number(kind: Kind) -> u32 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::SortedSet => 3,
        Kind::Hash => 4,
    }
}

/// Goes on from `sum` with a value and whether it expires.
///
/// # Errors
/// The value cannot be read.
pub fn value(rows: &(impl Rows + ?Sized), row: &KeyRow, mut sum: Sum) -> Result<Sum, TypeError> {
    sum.mix(&number(row.kind()).to_be_bytes());
    // A string may come in pieces, but is one text.
    let mut text = Vec::new();
    each_item(rows, row, &mut |item| {
        match item {
            Item::Piece(piece) => text.extend_from_slice(piece),
            Item::Element(element) if row.kind() == Kind::List => sum.mix(element),
            Item::Element(member) => sum.xor(member),
            Item::Field(field, value) => {
                let mut pair = Sum::default();
                pair.mix(field);
                pair.mix(value);
                sum.xor(&pair.0);
            }
            Item::Scored(member, score) => {
                let mut pair = Sum::default();
                pair.mix(member);
                pair.mix(&f64_text(score));
                sum.xor(&pair.0);
            }
        }
        ControlFlow::Continue(())
    })?;
    if row.kind() == Kind::String {
        sum.mix(&text);
    }
    if row.expiry().is_some() {
        sum.xor(b"!!expire!!");
    }
    Ok(sum)
}

/// The sum of all databases.
///
/// # Errors
/// The data cannot be read.
pub fn all(rows: &(impl Rows + ?Sized), databases: u32) -> Result<Sum, TypeError> {
    let mut sum = Sum::default();
    for db in 0..databases {
        if rows.key_count(db) == 0 {
            continue;
        }
        sum.mix(&db.to_be_bytes());
        each_key(rows, db, |key, row| {
            let mut one = Sum::default();
            one.mix(key);
            let one = value(rows, row, one)?;
            sum.xor(&one.0);
            Ok::<(), TypeError>(())
        })?;
    }
    Ok(sum)
}
