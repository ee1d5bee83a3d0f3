//! Layer 1: Ardb's one log, which is write-ahead log and replication backlog at once.
//!
//! It owns the files of one directory: segments that are preallocated and mapped into memory, each a header and then frames. A *frame* is one
//! commit: bytes of the replication stream, appended and recovered as a whole. [`Offset`]s count payload bytes only, so they are
//! Redis replication offsets. The formats stand byte by byte in `docs/log-format.md`, with what a crash may leave at each step.
//!
//! - [`Log::open`] recovers what is there and gives the shared handle ([`Log`]) and the one [`Appender`]; it refuses a log that is damaged beyond what a
//!   death explains, and [`Examined`] tells where, or opens it all the same.
//! - [`Appender::append`] copies a frame into the map: no system call, unless a new segment is needed. A full disk is an error there, and nothing
//!   was written.
//! - [`Log::reader`] and [`Log::frames_from`] read while the appender appends, without locks except from one segment to the next.
//! - [`Log::sync_to`] makes it durable; all callers that wait share one sync. A failed sync is final.
//! - [`Log::truncate_front`] lets old segments go, except for what a [`Pin`] holds; [`Log::truncate_front_past`] sets that a limit.
//! - [`Appender::prepare_reset`] and [`Appender::finish_reset`] begin a new history.
//!
//! Invariants: the held segments are contiguous, from [`Log::start`] to [`Log::end`]; what a reader gets was appended at that offset, or is an
//! error; nothing below [`Log::synced`] is lost by a power failure; frames of another history are never taken for frames of this one,
//! because the epoch goes into every checksum. It knows no command, no replica and no engine, and reads no clock.

mod ahead;
mod append;
mod error;
mod examine;
mod frame;
mod log;
mod notify;
mod read;
mod recover;
mod segment;
mod sync;

pub use append::{Appender, PreparedReset};
pub use ardb_base::id::Offset;
pub use error::{AppendError, Damage, Fault, OpenError, Proof, ReadError, ResetError, SyncError};
pub use examine::{Ended, Examined, Past};
pub use frame::HEADER_BYTES as FRAME_HEADER_BYTES;
pub use log::{Log, LogOptions, LogStats, Pin, Truncated};
pub use notify::WakerHandle;
pub use read::{Frame, Frames, Reader, Slice};
pub use recover::{Cut, Opened, Recovery};
