//! Tests of the whole store over the memory engine and the simulated disk. `ARDB_SEED` replays one seed.

mod crash;
mod faults;
mod harness;
mod install;
mod model;
mod threads;
