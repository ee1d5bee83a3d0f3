//! The server as a library, so that its parts can be tested and documented; `main.rs` is the program.
//!
//! Layer 5: the only crate with sockets, threads, a clock and a configuration. [`start`] is where everything begins and ends; [`net`] has the
//! way of a request; [`server::Server`] is what all threads share.

#![allow(clippy::disallowed_methods, reason = "the layer that owns the clock, randomness, the environment and files")]

pub mod active_expiry;
pub mod blocking;
pub mod calls;
pub mod clients;
pub mod clock;
pub mod cold;
pub mod commands;
pub mod compat;
pub mod config;
pub mod cron;
pub mod direct;
pub mod execute;
pub mod logger;
pub mod net;
pub mod repl;
pub mod server;
pub mod signals;
pub mod slowlog;
pub mod start;
pub mod stats;
pub mod survey;
pub mod tally;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
