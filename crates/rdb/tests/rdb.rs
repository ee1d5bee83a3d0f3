//! The whole format through the public API: files and payloads of real servers, round trips, damaged bytes, real servers' own checks.

#![allow(clippy::disallowed_methods, reason = "tests live on real files and the environment")]

#[path = "parts/damage.rs"]
mod damage;
#[path = "parts/golden.rs"]
mod golden;
#[path = "parts/model.rs"]
mod model;
#[path = "parts/refuse.rs"]
mod refuse;
#[path = "parts/roundtrip.rs"]
mod roundtrip;
#[path = "parts/servers.rs"]
mod servers;
