//! The outside tests that continuous integration runs: each takes seconds and starts its own servers.
//!
//! The server under test is found as [`ardb_e2e::peers`] says; the real servers are brought by `scripts/peers.sh`.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

mod e2e {
    pub mod as_master;
    pub mod as_replica;
    pub mod background;
    pub mod backlog;
    pub mod basics;
    pub mod chains;
    pub mod cold;
    pub mod damaged;
    pub mod dumps;
    pub mod durability;
    pub mod links;
    pub mod liveness;
    pub mod matrix;
    pub mod moves;
    pub mod newer;
    pub mod operators;
    pub mod pipelines;
    pub mod protocol;
    pub mod redis26;
    pub mod rows;
    pub mod scripts;
    pub mod sentinel;
    pub mod wire;
    pub mod words;
}
