//! Tests of Ardb from outside, against real servers.
//!
//! Owns what such tests need: [`server`] starts and kills servers of any kind, [`client`] speaks to them, [`digest`]
//! reads a whole data set out of one and compares two of them, [`load`] writes to one from a seed, [`peers`] finds the
//! real servers that `scripts/peers.sh` brings. [`proxy`] cuts links, [`scripted`] is a master that says what a test wants,
//! [`redis26`] plays the server that no registry has, [`pairing`] puts two servers together under load. [`benchmark`] runs `redis-benchmark`,
//! [`lag`] says how far a replica is behind, [`usage`] what a process uses. [`drive`] asks as fast as a server answers, with [`values`] that can be checked and keys
//! by [`zipf`]; [`histogram`] keeps how long it took, and [`plot`] draws it. Nothing here shares code with the server under test but the
//! random numbers: a mistake made twice would hide itself.
//!
//! The tests stand in `tests/e2e.rs` and take seconds each; what takes longer is a program of its own in `src/bin`.
#![allow(clippy::disallowed_methods, reason = "tests from outside live on the clock and the environment")]

pub mod benchmark;
pub mod client;
pub mod digest;
pub mod drive;
pub mod histogram;
pub mod lag;
pub mod load;
pub mod options;
pub mod pairing;
pub mod peers;
pub mod plot;
pub mod proxy;
pub mod redis26;
pub mod reply;
pub mod scripted;
pub mod sentinel;
pub mod server;
pub mod usage;
pub mod values;
pub mod wait;
pub mod wiretap;
pub mod zipf;

/// What a failed step of a test says. Only the text matters: the reader is a person.
pub type Result<T> = std::io::Result<T>;

/// An error with this text.
#[must_use]
pub fn error(text: impl Into<String>) -> std::io::Error {
    std::io::Error::other(text.into())
}
