//! One entry of a packed structure: bytes as they stand there, or an integer that stands for its decimal text.

/// Room for the text of any `i64`.
pub type Text = itoa::Buffer;

/// An entry of a ziplist or listpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A string.
    Bytes(&'a [u8]),
    /// An integer, whose value as a string is its decimal text.
    Int(i64),
}

impl Entry<'_> {
    /// The entry as a string; an integer is written into `room`.
    #[must_use]
    pub fn text<'b>(&'b self, room: &'b mut Text) -> &'b [u8] {
        match self {
            Entry::Bytes(bytes) => bytes,
            Entry::Int(value) => room.format(*value).as_bytes(),
        }
    }

    /// The entry as a score; `None` if it is not a number.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        match self {
            Entry::Bytes(bytes) => crate::number::parse_double(bytes),
            Entry::Int(value) => Some(*value as f64),
        }
    }
}

/// `N` bytes of `bytes` from `at`, if they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A little-endian integer of three bytes with its sign.
pub(crate) fn int24([a, b, c]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
}
