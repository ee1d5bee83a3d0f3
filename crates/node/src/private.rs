//! Names of histories that a single replica knows.
//!
//! A replica from before Redis 4.0 cannot be told which database the stream has selected where its dump stands, and where we are a replica
//! ourselves nobody may put a SELECT into the stream. So it gets a history of its own: under a name that nobody else has, the SELECT and then our
//! stream, counted so that our bytes have our offsets in it. When it comes back with that name it goes on in our history.
//!
//! Invariant: from `from` on both histories have the same bytes at the same offsets, whatever the history is called by then; before it they share nothing.

use std::collections::VecDeque;

use ardb_base::id::{Offset, ReplId};
use parking_lot::Mutex;

/// Names that are kept. A replica whose name was forgotten gets everything anew.
pub const PRIVATE_NAMES: usize = 1024;

struct Private {
    name: ReplId,
    id: ReplId,
    from: Offset,
}

/// What was given to whom since the server began.
#[derive(Default)]
pub struct PrivateNames {
    given: Mutex<VecDeque<Private>>,
}

impl PrivateNames {
    /// Remembers that a replica knows our history, `id`, from `from` on as `name`.
    pub fn give(&self, name: ReplId, id: ReplId, from: Offset) {
        let mut given = self.given.lock();
        if given.len() >= PRIVATE_NAMES {
            given.pop_front();
        }
        given.push_back(Private { name, id, from });
    }

    /// What our history was called when a replica was given this name, if the byte numbered `wanted` (from 1) lies where both have the same.
    #[must_use]
    pub fn resolve(&self, name: &[u8], wanted: i64) -> Option<ReplId> {
        let wanted = u64::try_from(wanted).ok()?;
        let given = self.given.lock();
        let found = given.iter().rev().find(|private| private.name.as_bytes().eq_ignore_ascii_case(name))?;
        (wanted > found.from.0).then_some(found.id)
    }
}

/// The command that selects a database in a stream.
#[must_use]
pub fn select(db: u32) -> Vec<u8> {
    let db = db.to_string();
    format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{db}\r\n", db.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: u8) -> ReplId {
        ReplId::parse(&[letter; 40]).expect("forty letters")
    }

    #[test]
    fn a_name_holds_from_its_point_on_and_for_a_time() {
        let names = PrivateNames::default();
        assert_eq!(names.resolve(&[b'c'; 40], 100), None);
        names.give(id(b'c'), id(b'a'), Offset(100));
        for (wanted, known) in [(i64::MIN, false), (-1, false), (0, false), (100, false), (101, true), (i64::MAX, true)]
        {
            assert_eq!(names.resolve(&[b'c'; 40], wanted), known.then_some(id(b'a')), "{wanted}");
        }
        assert_eq!(names.resolve(&[b'C'; 40], 101), Some(id(b'a')));
        assert_eq!(names.resolve(&[b'a'; 40], 101), None, "our own names are not private");
        assert_eq!(names.resolve(b"c", 101), None);
        for n in 0..PRIVATE_NAMES {
            names.give(ReplId::from_random([(n % 200) as u8; 20]), id(b'a'), Offset(0));
        }
        assert_eq!(names.resolve(&[b'c'; 40], 101), None, "forgotten");
        assert_eq!(names.given.lock().len(), PRIVATE_NAMES);
    }

    #[test]
    fn the_command_is_one_that_is_read_back() {
        assert_eq!(select(3), b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
        assert_eq!(select(15), b"*2\r\n$6\r\nSELECT\r\n$2\r\n15\r\n");
    }
}
