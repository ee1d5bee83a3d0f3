//! Layer 1: the Redis protocol, both versions: parsing requests in place ([`request`]) and writing replies ([`reply`]).
//!
//! Knows bytes only: no sockets, no commands.

pub mod reply;
pub mod request;

pub use reply::{Mark, Protocol, Reply};
