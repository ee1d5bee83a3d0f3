//! Layer 3: the protocols of replication as state machines without I/O.
//!
//! Bytes, events and the time go in, bytes to send and decisions come out; sockets, threads, the store and the clock are the server's.
//! Times are milliseconds of any clock that does not go back. The states and decisions are described in `docs/replication.md`.
//!
//! - [`stream`] cuts a master's stream into whole commands and transactions, and counts its bytes exactly;
//! - [`transfer`] finds the end of an RDB on the wire;
//! - [`rows`] is the format in which one Ardb server sends another its data, for both sides;
//! - [`replica`] is our side of a link to a master: handshake, full or partial resynchronization, acknowledgements, timeouts;
//! - [`master`] is our side of a link to a replica: what to answer to SYNC and PSYNC, and what state the replica is in.
//!
//! Invariants: offsets are those of Redis, so the byte after offset `n` is the one that `PSYNC id n+1` asks for; no input makes a panic or
//! an allocation that the input did not pay for.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

pub mod backoff;
pub mod master;
pub mod replica;
pub mod rows;
pub mod stream;
pub mod transfer;

/// Milliseconds of a clock that does not go back.
pub type Ms = u64;
