//! Waiting for a state that must come about, with a limit, and then saying what was there instead.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::digest::Digest;
use crate::server::Server;
use crate::{Result, error};

/// Asks `condition` again and again until it is true.
///
/// # Errors
/// If it is not after `limit`, or if asking fails then.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = condition();
        match answer {
            Ok(true) => return Ok(()),
            _ if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            Ok(false) => return Err(error(format!("not after {limit:?}: {what}"))),
            Err(failure) => return Err(error(format!("not after {limit:?}: {what}: {failure}"))),
        }
    }
}

/// Makes `replica` follow `master`.
///
/// # Errors
/// If it refuses.
pub fn follow(replica: &Server, master: &Server) -> Result<()> {
    // The old word, which every version knows.
    replica.client()?.must(&format!("SLAVEOF 127.0.0.1 {}", master.port)).map(|_| ())
}

/// Waits until `replica` says that its link to the master is up.
///
/// # Errors
/// If it is not after `limit`; with the end of its log.
pub fn wait_linked(replica: &Server, limit: Duration) -> Result<()> {
    wait_until("the link to the master is up", limit, || {
        Ok(replica.client()?.info("replication")?.get("master_link_status").is_some_and(|status| status == "up"))
    })
    .map_err(|failure| error(format!("{failure}\n{} says:\n{}", replica.name(), replica.log_tail())))
}

/// Waits until both hold the same: every database, key, type, value and absolute expiry. Nobody may be writing.
///
/// # Errors
/// If they do not after `limit`; with the differences.
pub fn wait_equal(master: &Server, replica: &Server, limit: Duration) -> Result<Digest> {
    let start = Instant::now();
    wait_linked(replica, limit)?;
    loop {
        let caught_up = offsets(master, replica).is_ok_and(|(one, other)| one == other);
        // A last comparison is made whatever the offsets say, for the sake of the message.
        let late = start.elapsed() >= limit;
        if caught_up || late {
            let one = Digest::read(&mut master.client()?)?;
            let other = Digest::read(&mut replica.client()?)?;
            let differences = one.differences(&other);
            if differences.is_empty() {
                return Ok(one);
            }
            if late {
                return Err(error(format!(
                    "{} and {} differ after {limit:?} (offsets {:?}): {} differences\n{}",
                    master.name(),
                    replica.name(),
                    offsets(master, replica).ok(),
                    differences.len(),
                    differences.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n"),
                )));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until two servers hold the same, whatever their offsets say. Nobody may be writing.
///
/// # Errors
/// If they do not after `limit`; with the differences.
pub fn wait_same(one: &Server, other: &Server, limit: Duration) -> Result<Digest> {
    let start = Instant::now();
    loop {
        let digest = Digest::read(&mut one.client()?)?;
        let differences = digest.differences(&Digest::read(&mut other.client()?)?);
        if differences.is_empty() {
            return Ok(digest);
        }
        if start.elapsed() >= limit {
            return Err(error(format!(
                "{} and {} differ after {limit:?}: {} differences\n{}",
                one.name(),
                other.name(),
                differences.len(),
                differences.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n"),
            )));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The master's offset and the replica's.
///
/// # Errors
/// If one of them cannot be asked.
pub fn offsets(master: &Server, replica: &Server) -> Result<(i64, i64)> {
    let master = master.client()?.info_number("replication", "master_repl_offset")?;
    Ok((master, replica.client()?.info_number("replication", "slave_repl_offset")?))
}

/// How often this master has sent everything, and how often it has let a replica go on: `sync_full`, `sync_partial_ok`.
///
/// # Errors
/// If it cannot be asked.
pub fn syncs(master: &mut Client) -> Result<(i64, i64)> {
    let stats = master.info("stats")?;
    let number = |name: &str| stats.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    Ok((number("sync_full"), number("sync_partial_ok")))
}
