//! The value of a key's row, byte by byte.
//!
//! ```text
//! 0      type (Kind)
//! 1      encoding (Encoding)
//! 2      flags: bit 0 an expiry follows; the others are zero
//! 3..11  expiry, ms since 1970, i64 little-endian        (if bit 0)
//! Inline: the value itself, to the end
//! Rows:   object id u64 le, size u64 le, then what the type adds (`extra`)
//! Packed: size u32 le, not zero, then the elements (see [`crate::packed`]); never a string
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
    /// A collection, whole in the key's row.
    Packed = 2,
}

impl Encoding {
    /// Bytes between the expiry and what [`KeyRow::rest`] gives.
    pub(crate) const fn head(self) -> usize {
        match self {
            Encoding::Inline => 0,
            Encoding::Rows => 16,
            Encoding::Packed => 4,
        }
    }
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
            2 if kind != Kind::String => Encoding::Packed,
            _ => return Err(corrupt("unknown encoding")),
        };
        if flags & !HAS_EXPIRY != 0 {
            return Err(corrupt("unknown flags"));
        }
        let body = if flags & HAS_EXPIRY != 0 { 11u8 } else { 3 };
        if value.len() < usize::from(body) + encoding.head() {
            return Err(corrupt("too short"));
        }
        let row = KeyRow { value, kind, encoding, body };
        if encoding == Encoding::Packed && row.size() == 0 {
            return Err(corrupt("a collection without elements"));
        }
        Ok(row)
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

    fn bytes<const N: usize>(&self, from: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.value[from..from + N]);
        out
    }

    /// The value, if it is held inline; else all that follows the expiry, raw.
    #[must_use]
    pub fn inline(&self) -> &[u8] {
        &self.value[usize::from(self.body)..]
    }

    /// The object under which the rows lie; 0 if the value is in the key's row.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        match self.encoding {
            Encoding::Inline | Encoding::Packed => ObjectId(0),
            Encoding::Rows => ObjectId(u64::from_le_bytes(self.bytes(usize::from(self.body)))),
        }
    }

    /// Number of elements, or of bytes for a string.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.encoding {
            Encoding::Inline => self.inline().len() as u64,
            Encoding::Rows => u64::from_le_bytes(self.bytes(usize::from(self.body) + 8)),
            Encoding::Packed => u64::from(u32::from_le_bytes(self.bytes(usize::from(self.body)))),
        }
    }

    /// What follows the header: an inline value, the elements of a packed one, or what the type adds after the size.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.value[usize::from(self.body) + self.encoding.head()..]
    }

    /// Where the size stands in the row of a value in rows, and where what the type adds.
    pub(crate) fn size_and_extra(&self) -> (usize, usize) {
        let body = usize::from(self.body);
        (body + 8, body + Encoding::Rows.head())
    }

    /// The row as it lies.
    pub(crate) fn into_value(self) -> Value {
        self.value
    }

    /// What the type adds after the size of a value in rows.
    #[must_use]
    pub fn extra(&self) -> &[u8] {
        if self.encoding == Encoding::Rows { self.rest() } else { &[] }
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

/// What stands in a key's row before its [`KeyRow::rest`].
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
    /// The size (for `Rows` and `Packed`).
    pub size: u64,
}

impl Header {
    /// Bytes that it takes in a row.
    pub(crate) fn len(&self) -> usize {
        3 + 8 * usize::from(self.expiry.is_some()) + self.encoding.head()
    }

    /// Gives the row's parts before its rest to `add`, one after the other.
    pub(crate) fn encode(&self, mut add: impl FnMut(&[u8])) {
        add(&[self.kind as u8, self.encoding as u8, u8::from(self.expiry.is_some()) * HAS_EXPIRY]);
        if let Some(expiry) = self.expiry {
            add(&expiry.to_le_bytes());
        }
        match self.encoding {
            Encoding::Inline => {}
            Encoding::Rows => {
                add(&self.object.0.to_le_bytes());
                add(&self.size.to_le_bytes());
            }
            // A packed value has far fewer elements than would fill this.
            Encoding::Packed => add(&(self.size as u32).to_le_bytes()),
        }
    }
}
