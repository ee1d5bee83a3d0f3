//! A master and a replica of any two kinds under a mixed load, and the comparison of their data at the end.

use std::time::{Duration, Instant};

use crate::load::{Flavor, Generator, Load, populate};
use crate::redis26::{Master26, Replica26};
use crate::server::{Kind, Server, Setup};
use crate::wait::{follow, syncs, wait_equal, wait_linked, wait_same, wait_until};
use crate::{Result, error};

/// One side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A server.
    Server(Kind),
    /// Redis 2.6, played by hand.
    Redis26,
}

/// All that pair with Ardb, from the oldest to the newest.
pub const PEERS: [Side; 8] = [
    Side::Redis26,
    Side::Server(Kind::Redis("2.8")),
    Side::Server(Kind::Redis("3.0")),
    Side::Server(Kind::Redis("3.2")),
    Side::Server(Kind::Redis("6.2")),
    Side::Server(Kind::Redis("7.0")),
    Side::Server(Kind::Redis("8")),
    Side::Server(Kind::Valkey("9.1")),
];

/// Ardb.
pub const OURS: Side = Side::Server(Kind::Ardb);

impl Side {
    /// A name for messages.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Side::Server(Kind::Ardb) => "Ardb".into(),
            Side::Server(Kind::Redis(version)) => format!("Redis {version}"),
            Side::Server(Kind::Valkey(version)) => format!("Valkey {version}"),
            Side::Redis26 => "Redis 2.6".into(),
        }
    }

    /// The commands that may be sent to it as a master.
    #[must_use]
    pub fn flavor(self) -> Flavor {
        match self {
            Side::Server(Kind::Ardb | Kind::Redis("7.0" | "8") | Kind::Valkey(_)) => Flavor::New,
            // Their streams hold relative expiries.
            _ => Flavor::Old,
        }
    }
}

/// The pairings in an option of a program that measures: a master and a replica each, `a` for Ardb and `r` for Redis 7.0, with commas between.
///
/// # Errors
/// If a letter is another one.
pub fn pairs(text: &str) -> Result<Vec<(Kind, Kind)>> {
    let kind = |letter: char| match letter {
        'a' => Ok(Kind::Ardb),
        'r' => Ok(REDIS),
        other => Err(error(format!("--pairs: {other} is neither a nor r"))),
    };
    text.split(',')
        .map(|pair| match pair.chars().collect::<Vec<_>>()[..] {
            [master, replica] => Ok((kind(master)?, kind(replica)?)),
            _ => Err(error(format!("--pairs: {pair} is no pairing"))),
        })
        .collect()
}

/// The Redis that such programs compare with.
pub const REDIS: Kind = Kind::Redis("7.0");

/// A pairing's name in a table.
#[must_use]
pub fn title(pair: (Kind, Kind)) -> String {
    let name = |kind| if kind == Kind::Ardb { "ardb" } else { "redis" };
    format!("{} to {}", name(pair.0), name(pair.1))
}

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the load.
    pub seed: u64,
    /// Keys before the replica comes.
    pub keys: u64,
    /// Commands a second.
    pub rate: u64,
    /// How long they flow once the link is up.
    pub time: Duration,
}

/// What a pair has shown.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Commands that drew a reply.
    pub commands: u64,
    /// The data in the end.
    pub summary: String,
    /// How often the master has sent everything.
    pub full: i64,
    /// From the first command to equality.
    pub time: Duration,
}

const LIMIT: Duration = Duration::from_secs(60);

enum Replica {
    Server(Server),
    Redis26(Replica26),
}

/// Runs one pair: data, a replica that comes while writes flow, the load, and at its end equality; then no drift for a second
/// look.
///
/// # Errors
/// If a step fails, the two differ, or the master has sent everything more than once.
pub fn run(master: Side, replica: Side, plan: Plan) -> Result<Figure> {
    let start = Instant::now();
    let (old_master, server);
    let (master_server, port): (&Server, u16) = match master {
        Side::Server(kind) => {
            server = Setup::new(kind).start()?;
            (&server, server.port)
        }
        Side::Redis26 => {
            old_master = Master26::start()?;
            (&old_master.server, old_master.port)
        }
    };
    populate(&mut master_server.client()?, plan.seed, plan.keys)?;
    let load = Load::start(master_server.port, Generator::new(plan.seed, master.flavor(), 300), plan.rate);
    let replica = match replica {
        Side::Redis26 => Replica::Redis26(Replica26::start(port, Duration::from_secs(10), false)?),
        Side::Server(kind) => {
            let replica = Setup::new(kind).start()?;
            if port == master_server.port {
                follow(&replica, master_server)?;
            } else {
                replica.client()?.must(&format!("SLAVEOF 127.0.0.1 {port}"))?;
            }
            Replica::Server(replica)
        }
    };
    match &replica {
        Replica::Server(replica) => wait_linked(replica, LIMIT)?,
        Replica::Redis26(replica) => wait_until("Redis 2.6 is online", LIMIT, || Ok(replica.seen().online))?,
    }
    std::thread::sleep(plan.time);
    let done = load.stop()?;
    let exact = port == master_server.port;
    let digest = match &replica {
        Replica::Server(replica) if exact => wait_equal(master_server, replica, LIMIT)?,
        Replica::Server(replica) => wait_same(master_server, replica, LIMIT)?,
        Replica::Redis26(replica) => wait_same(master_server, &replica.server, LIMIT)?,
    };
    std::thread::sleep(Duration::from_millis(300));
    let full = match (&replica, exact) {
        (Replica::Server(replica), true) => {
            wait_equal(master_server, replica, LIMIT)?;
            syncs(&mut master_server.client()?)?.0
        }
        (Replica::Server(replica), false) => {
            wait_same(master_server, replica, LIMIT)?;
            // 2.8 counts them behind the peer.
            syncs(&mut master_server.client()?)?.0
        }
        (Replica::Redis26(replica), _) => {
            wait_same(master_server, &replica.server, LIMIT)?;
            let seen = replica.seen();
            if !seen.refused.is_empty() {
                return Err(error(format!(
                    "Redis 2.6 does not know: {:?}",
                    &seen.refused[..seen.refused.len().min(5)]
                )));
            }
            seen.syncs as i64
        }
    };
    if full != 1 {
        return Err(error(format!("{full} full syncs")));
    }
    Ok(Figure { commands: done.commands, summary: digest.summary(), full, time: start.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairings_are_two_letters_each() {
        assert_eq!(pairs("ra,aa").unwrap(), [(REDIS, Kind::Ardb), (Kind::Ardb, Kind::Ardb)]);
        assert_eq!(title((REDIS, Kind::Ardb)), "redis to ardb");
        assert!(pairs("rx").is_err() && pairs("raa").is_err() && pairs("").is_err());
    }
}
