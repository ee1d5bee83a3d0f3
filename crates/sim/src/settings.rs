//! What differs from seed to seed: the size of the group, how its servers are configured, how bad the network is.

use ardb_base::random::Random;
use ardb_node::transfers::Limits;
use ardb_store::Fsync;

/// Databases of each node.
pub const DATABASES: u32 = 3;

/// The settings of one seed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub nodes: usize,
    pub clients: usize,
    /// `appendfsync`, by node.
    pub fsync: Vec<Fsync>,
    /// Nodes that stand for other servers: they know nothing that only Ardb does, so they send and get RDBs.
    pub plain: Vec<bool>,
    /// Collections go from one row to many at a few elements.
    pub tight: bool,
    /// What bounds full syncs by rows.
    pub transfers: Limits,
    /// Blocks of rows that wait for the engine, at most.
    pub waiting: usize,
    /// One of so many blocks of rows brings trouble to those who send and take it; none if it is 0.
    pub trouble: u64,
    pub segment_bytes: usize,
    pub backlog_bytes: u64,
    /// Bytes of changed rows.
    pub changed: u64,
    pub checkpoint_age: u64,
    /// `repl-ping-replica-period`, ms.
    pub ping: u64,
    /// `repl-timeout`, ms.
    pub timeout: u64,
    /// Bytes on their way in one direction of a connection, at most.
    pub window: usize,
    /// Longest delay of a packet, ms.
    pub delay: u64,
    /// Longest packet in bytes.
    pub packet: u64,
    /// Between two requests of a client, ms at most.
    pub think: u64,
    pub rounds: usize,
    /// Faults and changes of roles in a round, at most.
    pub faults: u64,
    /// Length of a round, ms.
    pub round: u64,
}

impl Settings {
    /// Draws them.
    pub fn draw(random: &mut Random) -> Settings {
        let nodes = 2 + random.below(4) as usize;
        let pick = |random: &mut Random, of: &[u64]| of[random.below(of.len() as u64) as usize];
        let policy = |random: &mut Random| match random.below(5) {
            0 => Fsync::No,
            1 | 2 => Fsync::EverySecond,
            _ => Fsync::Always,
        };
        // All alike, or each its own.
        let common = policy(random);
        let mixed = random.one_in(3);
        let fsync = (0..nodes).map(|_| if mixed { policy(random) } else { common }).collect();
        // All of our kind, or some of another one, or all.
        let share = pick(random, &[0, 0, 1, 3]);
        let plain = (0..nodes).map(|_| random.below(3) < share).collect();
        let transfers = Limits {
            transfers: pick(random, &[1, 2, 8]) as usize,
            held: pick(random, &[0, 500, 3000, 20_000]),
            shared_log: pick(random, &[0, 3000, 64 << 20]),
            block: pick(random, &[60, 300, 2000, 256 << 10]) as usize,
        };
        Settings {
            nodes,
            clients: 1 + random.below(4) as usize,
            fsync,
            plain,
            tight: random.one_in(2),
            transfers,
            waiting: pick(random, &[1, 4, 64]) as usize,
            trouble: pick(random, &[0, 3, 8, 25]),
            segment_bytes: pick(random, &[4096, 8192, 16_384, 65_536]) as usize,
            backlog_bytes: pick(random, &[0, 2000, 10_000, 40_000, 1 << 20]),
            changed: pick(random, &[8 << 10, 64 << 10, 1 << 20]),
            checkpoint_age: pick(random, &[300, 2000, 10_000, 60_000]),
            ping: pick(random, &[500, 1000, 10_000]),
            timeout: pick(random, &[2500, 5000, 10_000]),
            window: pick(random, &[500, 5000, 100_000]) as usize,
            delay: pick(random, &[1, 5, 30, 200]),
            packet: pick(random, &[20, 300, 5000]),
            think: pick(random, &[20, 60, 300]),
            rounds: 1 + random.below(3) as usize,
            faults: pick(random, &[3, 8, 16]),
            round: pick(random, &[1500, 4000, 9000]),
        }
    }
}
