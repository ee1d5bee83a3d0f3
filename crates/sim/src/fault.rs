//! What goes wrong, and what operators do.

use ardb_base::random::Random;

/// A fault, or an act of an operator.
#[derive(Clone, Debug)]
pub enum Fault {
    /// kill -9, and a start a while later.
    Kill(usize),
    /// The machine loses power, and comes back a while later.
    Power(usize),
    /// The process ends cleanly; perhaps its machine is switched off, too.
    Shutdown(usize, bool),
    /// Disk operations fail after so many more; then the process dies, or the machine, or it passes.
    DiskFails(usize, u64),
    /// What happens after the disk has failed.
    DiskFailed(usize),
    /// There is only so much space for a while.
    DiskFull(usize, u64),
    /// There is space again.
    DiskFree(usize),
    /// A connection is cut at some byte.
    Cut(u64),
    /// One direction of a connection, or both, swallow what is sent.
    HalfOpen(u64),
    /// A replica forgets its connection and makes another one, while the master keeps the old one.
    Forget(usize),
    /// Two machines do not reach each other.
    Part(usize, usize),
    /// They do again.
    Join(usize, usize),
    /// REPLICAOF NO ONE.
    Promote(usize),
    /// REPLICAOF.
    Replicate(usize, usize),
    /// The master is lost, and an operator promotes the replica that has the most of its history, and puts the others under it.
    FailOver,
    /// FAILOVER.
    HandOver,
    /// FAILOVER ABORT.
    Abort(usize),
    /// Clients learn who the master is.
    Announce(usize),
}

/// Draws one for a group of so many nodes.
pub fn draw(random: &mut Random, nodes: usize, conns: &[u64]) -> Fault {
    let node = random.below(nodes as u64) as usize;
    let other = (node + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
    let conn = match conns.len() {
        0 => 0,
        n => conns[random.below(n as u64) as usize],
    };
    match random.below(42) {
        0..=3 => Fault::Kill(node),
        4..=6 => Fault::Power(node),
        7 => Fault::Shutdown(node, random.one_in(2)),
        8..=10 => Fault::DiskFails(node, random.below(60)),
        28..=30 => Fault::DiskFails(node, random.below(8)),
        31 => Fault::DiskFull(node, random.below(40_000)),
        11..=14 => Fault::Cut(conn),
        15 | 16 => Fault::HalfOpen(conn),
        17 => Fault::Forget(node),
        18..=20 => Fault::Part(node, other),
        21 | 22 => Fault::Promote(node),
        23 | 24 => Fault::Replicate(node, other),
        25 | 26 => Fault::FailOver,
        32..=39 => Fault::HandOver,
        40 | 41 => Fault::Abort(node),
        _ => Fault::Announce(node),
    }
}
