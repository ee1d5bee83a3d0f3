//! Layer 0: the small things that every other crate stands on.
//!
//! Owns number formats, glob matching, checksums, hashing of keys, ids and offsets as types, and the
//! trait behind which files live ([`disk`]). It knows no other crate of the project, does no I/O of its own outside
//! `disk`, and reads no clock.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

pub mod counter;
pub mod crc64;
pub mod disk;
pub mod extended;
pub mod glob;
pub mod hash;
pub mod id;
pub mod number;
pub mod prefetch;
pub mod priority;
pub mod random;
