//! The value of a key's row, byte by byte.
//!
//! ```text
//! 0      type (Kind)
//! 1      encoding (Encoding)
//! 2      flags: bit 0 an expiry follows; the others are zero
//! 3..11  expiry, ms since 1970, i64 little-endian        (if bit 0)
//! Inline: the value itself, to the end
//! Rows:   object id u64 le, size u64 le, then what the type adds (`extra`)
//! ```
//! Size is the number of elements, or of bytes for a string. The store's janitor reads type, encoding, flags and object id too.

use ardb_base::id::{ObjectId, UnixMs};
use ardb_engine::Value;

use crate::TypeError;

/// The type of a value. The numbers are part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// String.
    String = 0,
    /// List.
    List = 1,
    /// Set.
    Set = 2,
    /// Sorted set.
    SortedSet = 3,
    /// Hash.
    Hash = 4,
}

impl Kind {
    /// The name that TYPE replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::Hash => "hash",
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash].get(usize::from(byte)).copied()
    }
}

/// How a value is held. The numbers are part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// In the key's row.
    Inline = 0,
    /// In rows under an object id.
    Rows = 1,
}

const HAS_EXPIRY: u8 = 1;

/// A key's row, read. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct KeyRow {
    value: Value,
    kind: Kind,
    encoding: Encoding,
    body: u8,
}

impl KeyRow {
    /// Checks the form of a row's value.
    pub fn parse(value: Value) -> Result<KeyRow, TypeError> {
        let corrupt = |what: &str| TypeError::Corrupt(format!("key row: {what}"));
        let [kind, encoding, flags, ..] = value[..] else { return Err(corrupt("too short")) };
        let kind = Kind::from_byte(kind).ok_or_else(|| corrupt("unknown type"))?;
        let encoding = match encoding {
            0 => Encoding::Inline,
            1 => Encoding::Rows,
            _ => return Err(corrupt("unknown encoding")),
        };
        if flags & !HAS_EXPIRY != 0 {
            return Err(corrupt("unknown flags"));
        }
        let body = if flags & HAS_EXPIRY != 0 { 11u8 } else { 3 };
        let least = usize::from(body) + if encoding == Encoding::Rows { 16 } else { 0 };
        if value.len() < least {
            return Err(corrupt("too short"));
        }
        Ok(KeyRow { value, kind, encoding, body })
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How the value is held.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// When the key expires.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixMs> {
        (self.body == 11).then(|| i64::from_le_bytes(self.bytes(3)))
    }

    fn bytes(&self, from: usize) -> [u8; 8] {
        let mut out = [0; 8];
        out.copy_from_slice(&self.value[from..from + 8]);
        out
    }

    /// The value, if it is held inline; else object id, size and the rest, raw.
    #[must_use]
    pub fn inline(&self) -> &[u8] {
        &self.value[usize::from(self.body)..]
    }

    /// The object under which the rows lie; 0 if the value is inline.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        match self.encoding {
            Encoding::Inline => ObjectId(0),
            Encoding::Rows => ObjectId(u64::from_le_bytes(self.bytes(usize::from(self.body)))),
        }
    }

    /// Number of elements, or of bytes for a string.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.encoding {
            Encoding::Inline => self.inline().len() as u64,
            Encoding::Rows => u64::from_le_bytes(self.bytes(usize::from(self.body) + 8)),
        }
    }

    /// What the type adds after the size.
    #[must_use]
    pub fn extra(&self) -> &[u8] {
        match self.encoding {
            Encoding::Inline => &[],
            Encoding::Rows => &self.value[usize::from(self.body) + 16..],
        }
    }

    /// The row's header, to write it anew with changes.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            kind: self.kind,
            encoding: self.encoding,
            expiry: self.expiry(),
            object: self.object(),
            size: self.size(),
        }
    }
}

/// What stands in a key's row before `extra`, or before an inline value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub kind: Kind,
    /// How the value is held.
    pub encoding: Encoding,
    /// When the key expires.
    pub expiry: Option<UnixMs>,
    /// The object (for `Rows`).
    pub object: ObjectId,
    /// The size (for `Rows`).
    pub size: u64,
}

impl Header {
    /// Appends the row's value to `out`; `rest` is the inline value, or what the type adds.
    pub fn encode(&self, rest: &[u8], out: &mut Vec<u8>) {
        out.reserve(27 + rest.len());
        out.extend_from_slice(&[self.kind as u8, self.encoding as u8, u8::from(self.expiry.is_some()) * HAS_EXPIRY]);
        if let Some(expiry) = self.expiry {
            out.extend_from_slice(&expiry.to_le_bytes());
        }
        if self.encoding == Encoding::Rows {
            out.extend_from_slice(&self.object.0.to_le_bytes());
            out.extend_from_slice(&self.size.to_le_bytes());
        }
        out.extend_from_slice(rest);
    }
}
