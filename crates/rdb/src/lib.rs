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
//!
//! Speed, by `examples/speed.rs` (best of five, one thread of a machine of two cores that was busy otherwise; MB of file, M of items):
//!
//! | content | write | read |
//! |---|---|---|
//! | strings of 100 bytes | 610 MB/s, 9.6 M/s | 510 MB/s, 8.0 M/s |
//! | integers with expiry | 360 MB/s, 16 M/s | 265 MB/s, 12 M/s |
//! | lists, elements of 24 bytes | 395 MB/s, 16 M/s | 490 MB/s, 20 M/s |
//! | hashes, 24 + 100 bytes | 660 MB/s, 10 M/s | 540 MB/s, 8.6 M/s |
//! | sorted sets, scores as text | 224 MB/s, 6.0 M/s | 235 MB/s, 6.3 M/s |
//! | strings of 100 bytes, LZF | 93 MB/s, 5.3 M/s | 127 MB/s, 7.3 M/s |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

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
