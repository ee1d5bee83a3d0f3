//! Layer 1: the Redis protocol, both versions: parsing requests in place ([`request`]) and writing replies ([`reply`]).
//!
//! Knows bytes only: no sockets, no commands.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

pub mod reply;
pub mod request;

pub use reply::{Mark, Protocol, Reply};
