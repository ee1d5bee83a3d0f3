//! The network: threads that each own their connections, and what comes and goes on them.
//!
//! A byte's way: [`input`] reads and understands it, [`burst`] executes the requests of all connections that have some, with one
//! commit for all that write, and [`connection`] sends the replies. Other threads reach a connection only through its thread's
//! [`mailbox`]. While a thread is held up by a script, a [`stand_in`] serves its other clients.

mod away;
pub mod balance;
pub mod burst;
pub mod connection;
pub mod failed;
pub mod handover;
mod haste;
pub mod input;
pub mod listen;
pub mod mailbox;
pub mod stand_in;
pub mod stream;
pub mod worker;
