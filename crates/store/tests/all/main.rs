//! Tests of the whole store over the memory engine and the simulated disk. `ARDB_SEED` replays one seed.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

mod crash;
mod damage;
mod faults;
mod harness;
mod install;
mod model;
mod threads;
