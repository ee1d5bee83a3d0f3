//! What can go wrong, one enum an operation: [`Error`] for reading a stream, [`DumpError`] for a payload, [`WriteError`] for writing.
//!
//! The decoders below speak [`Fault`], which knows neither offset nor key; the reader adds both at its border, so that no
//! inner function has to carry them.

use std::fmt;
use std::io;

/// Why bytes could not be decoded, without the place.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The source failed.
    Io(io::Error),
    /// The source ended within a value.
    Truncated,
    /// The bytes contradict the format.
    Corrupt(&'static str),
    /// The bytes may be right, but this is a thing that is not read here.
    Unsupported(String),
    /// A claimed length exceeds what the options allow.
    TooLong { claimed: u64, limit: u64 },
}

impl From<Malformed> for Fault {
    fn from(m: Malformed) -> Fault {
        Fault::Corrupt(m.0)
    }
}

/// A packed structure (ziplist, listpack, intset, zipmap, LZF block) whose bytes contradict its format; holds the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Either a fault of the bytes or the sink's own refusal.
#[derive(Debug)]
pub(crate) enum Stop<E> {
    Fault(Fault),
    Sink(E),
}

impl<E> From<Fault> for Stop<E> {
    fn from(f: Fault) -> Stop<E> {
        Stop::Fault(f)
    }
}

impl<E> From<Malformed> for Stop<E> {
    fn from(m: Malformed) -> Stop<E> {
        Stop::Fault(m.into())
    }
}

/// A key as it appears in an error text: escaped and cut.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 64;
        if self.0.is_empty() {
            return Ok(());
        }
        let cut = &self.0[..self.0.len().min(MOST)];
        write!(f, " (key \"{}\"{})", cut.escape_ascii(), if self.0.len() > MOST { "…" } else { "" })
    }
}

/// Why an RDB stream could not be read. Offsets are counted in bytes from the start of the magic and name the place where the
/// fault was noticed, which is at or shortly after the place where it is. `key` is empty outside of keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The source failed.
    #[error("reading the RDB failed at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// The source's error.
        source: io::Error,
    },
    /// The source ended before the RDB did.
    #[error("the RDB ends too early, at offset {offset}{}", Shown(.key))]
    Truncated {
        /// Bytes that came.
        offset: u64,
        /// The key being read.
        key: Vec<u8>,
    },
    /// The stream does not start like an RDB.
    #[error("not an RDB: it starts with \"{}\"", .0.escape_ascii())]
    Magic(
        /// The first nine bytes.
        [u8; 9],
    ),
    /// An RDB of a version that is not known.
    #[error("RDB version {version} of {magic} is not supported")]
    Version {
        /// `REDIS` or `VALKEY`.
        magic: &'static str,
        /// The number in the header.
        version: u32,
    },
    /// The bytes contradict the format.
    #[error("corrupt RDB at offset {offset}: {what}{}", Shown(.key))]
    Corrupt {
        /// The rule that is broken.
        what: &'static str,
        /// The key being read.
        key: Vec<u8>,
        /// Where.
        offset: u64,
    },
    /// A type or a feature that cannot be taken over.
    #[error("the RDB holds what is not supported at offset {offset}: {what}{}", Shown(.key))]
    Unsupported {
        /// The type or feature by name.
        what: String,
        /// The key being read.
        key: Vec<u8>,
        /// Where.
        offset: u64,
    },
    /// A key, an element or a packed structure is longer than [`crate::Options`] allow.
    #[error("the RDB claims {claimed} bytes at offset {offset}, more than the limit of {limit}{}", Shown(.key))]
    TooLong {
        /// The length in the RDB.
        claimed: u64,
        /// The limit that it exceeds.
        limit: u64,
        /// The key being read.
        key: Vec<u8>,
        /// Where.
        offset: u64,
    },
    /// The checksum at the end is not that of the bytes.
    #[error("the RDB's checksum is {stored:016x}, its bytes have {computed:016x}")]
    Checksum {
        /// As written at the end of the RDB.
        stored: u64,
        /// Of the bytes that came.
        computed: u64,
    },
    /// The sink refused.
    #[error("{0}")]
    Sink(E),
}

/// Why a `DUMP` payload could not be restored. The two first cases are the two replies that Redis has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError<E> {
    /// Too short, of a later version than known, or with a wrong checksum.
    #[error("DUMP payload version or checksum are wrong")]
    BadVersionOrChecksum,
    /// The checksum is right and the content is not, or it is of a type that is not supported; holds the reason.
    #[error("Bad data format: {0}")]
    BadData(String),
    /// The sink refused.
    #[error("{0}")]
    Sink(E),
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The target failed. What was written so far is no RDB.
    #[error("writing the RDB failed: {0}")]
    Io(#[from] io::Error),
    /// The value needs a newer version than the writer was made for.
    #[error("{what} needs RDB version {needed}, and version {version} is being written")]
    NeedsVersion {
        /// What needs it.
        what: &'static str,
        /// The oldest version that can hold it.
        needed: u32,
        /// The version of this writer.
        version: u32,
    },
    /// The version is not one that can be written.
    #[error("RDB version {0} cannot be written")]
    Version(u32),
    /// A call that does not fit what was begun: the wrong kind of item, or none begun, or another still open.
    #[error("a call out of order while writing an RDB: {0}")]
    Order(&'static str),
    /// More items than announced.
    #[error("more items came than were announced")]
    TooMany,
    /// Fewer items than announced.
    #[error("{missing} items fewer came than were announced")]
    TooFew {
        /// How many did not come.
        missing: u64,
    },
    /// A collection without items, which no Redis keeps.
    #[error("an empty collection cannot be written")]
    Empty,
    /// A score that is not a number.
    #[error("a score is not a number")]
    NotANumber,
}
