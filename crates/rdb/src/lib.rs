//! Layer 1: Redis's persistence format, as a stream to read, a stream to write, and payloads of `DUMP` and `RESTORE`.
//!
//! Owns the format and nothing else: it knows no store, no socket and no clock. [`Reader`] takes any RDB that Redis 2.6 to 8.4 and Valkey
//! wrote, as far as its values are strings, lists, sets, hashes and sorted sets, and hands it to a [`Sink`] item by item; what it cannot take
//! over (streams, hash fields that expire, modules) is an error with its name. [`Writer`] makes RDBs that every Redis since 2.6 loads.
//!
//! Invariants:
//! - Memory follows the bytes that came, never a length that they claim; a collection is never held, only its longest item or, where it
//!   is packed, the packed structure.
//! - No input makes a panic, an endless loop or an access out of bounds: packed structures are validated whole before use.
//! - The reader consumes exactly the RDB's bytes, the writer writes exactly the items that it announced.

mod dump;
mod encode;
mod entry;
mod error;
mod format;
pub mod intset;
pub mod listpack;
pub mod lzf;
mod number;
mod reader;
mod sink;
mod source;
mod value;
mod writer;
pub mod ziplist;
pub mod zipmap;

pub use dump::{DumpWriter, NEWEST_PAYLOAD, load_dump};
pub use encode::Items;
pub use entry::{Entry, Text};
pub use error::{DumpError, Error, Malformed, WriteError};
pub use format::Magic;
pub use reader::{Options, Reader, Summary};
pub use sink::{KeyMeta, Kind, Sink};
pub use writer::{NEWEST_VERSION, OLDEST_VERSION, Writer, WriterOptions};
