//! Ids and offsets as types, so that no bare `u64` with a meaning crosses a module.

use std::fmt;

/// A position in the replication stream, in bytes of payload, counted as Redis counts `master_repl_offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `bytes` further on.
    #[must_use]
    pub fn advance(self, bytes: usize) -> Offset {
        Offset(self.0 + bytes as u64)
    }

    /// How many bytes lie from `earlier` to `self`; zero if `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one replication history: exactly 40 characters of lower-case hex, as Redis writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplId([u8; 40]);

impl ReplId {
    /// The id that names nothing: forty zeros, which Redis shows as the second id of a server that has none.
    pub const NONE: ReplId = ReplId([b'0'; 40]);

    /// The id of 20 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 20]) -> ReplId {
        let mut hex = [0u8; 40];
        for (i, b) in bytes.iter().enumerate() {
            hex[2 * i] = b"0123456789abcdef"[usize::from(b >> 4)];
            hex[2 * i + 1] = b"0123456789abcdef"[usize::from(b & 15)];
        }
        ReplId(hex)
    }

    /// The id spelled by `text`, if it is 40 printable characters without a space (Redis compares ids as text).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<ReplId> {
        let bytes: [u8; 40] = text.try_into().ok()?;
        bytes.iter().all(u8::is_ascii_graphic).then_some(ReplId(bytes))
    }

    /// The 40 characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 40] {
        &self.0
    }

    /// The 40 characters as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }

    /// Whether this is [`ReplId::NONE`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == ReplId::NONE
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names the rows of one big value. Never used twice in the life of a data directory; 0 is no object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u64);

/// Names the keys of one logical database. FLUSHDB gives the database a new one, SWAPDB exchanges two.
/// Drawn from the same counter as [`ObjectId`], so it is never used twice either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u64);

/// Names one engine directory (`gen-000007`); a full sync builds the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen-{:06}", self.0)
    }
}

/// A point in time as milliseconds since 1970, the unit of every expiry.
pub type UnixMs = i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_ids_are_forty_hex_characters() {
        let id = ReplId::from_random([0xab; 20]);
        assert_eq!(id.as_str(), "ab".repeat(20));
        assert_eq!(ReplId::parse(id.as_bytes()), Some(id));
        assert_eq!(ReplId::parse(b"short"), None);
        assert_eq!(ReplId::parse(&[b' '; 40]), None);
        assert!(ReplId::NONE.is_none());
    }
}
