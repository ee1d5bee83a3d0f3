//! Layer 2: the store, the only crate that writes the log and the engine.
//!
//! A [`Store`] is one data directory. [`Store::write`] takes the one writer lock and gives a [`WriteTxn`], whose commits append a frame to the log
//! and become visible at once; [`Store::reader`] gives a [`Reader`], whose transactions each see one point in time and never wait for
//! the writer. Changed rows live in a memtable until a checkpoint brings them, with the position in the log, into the engine as one
//! atomic step. [`Store::open`] and [`Store::replay`] recover; [`Store::begin_generation`] and [`Store::install`] take a full sync.
//!
//! Invariants:
//! - The engine stands at exactly the position that its own position row names; the log is synced at least to there before.
//! - What a reader sees is the effect of whole commits, all of those up to its sequence number.
//! - A commit that fails changes nothing.
//! - The state file alone decides which generation and which epoch of the log count.
//!
//! It knows no command and no engine's name, and reads neither clock nor randomness of its own. Structures, formats and crash cases stand in
//! `docs/store.md`.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

mod aside;
mod background;
mod bulk;
mod cache;
mod catalog;
mod checkpoint;
mod core;
mod error;
mod expiries;
mod fetch;
mod generation;
mod janitor;
mod options;
mod pages;
pub mod place;
mod position;
mod raw;
mod read;
mod readers;
mod recovery;
mod scan;
mod snapshot;
mod spread;
mod state;
mod store;
pub mod table;
mod txn;
pub mod versions;
mod view;

pub use bulk::BulkLoad;
pub use cache::CacheStats;
pub use error::{CheckpointError, CommitError, GenerationError, OpenError, ReplayError, StateError};
pub use expiries::{Announced, Entry};
pub use fetch::{Fetched, RowList};
pub use generation::{GenerationLoader, SyncPoint};
pub use janitor::object_of;
pub use options::{Clock, EngineFactory, Fsync, History, MemoryBudget, OnDamage, RandomSource, Recovery, StoreOptions};
pub use raw::{RawLoad, RawRow, RowSource};
pub use read::{ReadTxn, Reader};
pub use recovery::{ReplayFrame, ReplayProgress};
pub use snapshot::StoreSnapshot;
pub use state::UPSTREAM_LIMIT;
pub use store::{Store, StoreStats};
pub use txn::{FrameBuffer, Savepoint, WriteTxn};
pub use view::engine_reads;
