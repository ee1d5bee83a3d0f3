//! The replication simulator: many nodes, their disks, network, clocks and clients in one process and one thread, from a seed.
//!
//! Everything that decides about data is the real code (`ardb-node`, `ardb-repl`, `ardb-store`, `ardb-log`, the commands); what is simulated is what
//! surrounds it: disks that lose and tear what was not synced, a network that delays, cuts and swallows, clocks, clients, operators. The same
//! seed gives the same run, to the last byte; [`Report::hash`] sums it up.
//!
//! What is checked, and how the simulator knows what is true, stands in `docs/simulator.md`.

mod client;
mod event;
mod fault;
mod feed;
mod handover;
mod link;
mod load;
mod net;
mod process;
mod quiet;
mod reference;
mod roles;
mod sabotage;
mod send;
mod settings;
mod truth;
mod work;
mod world;

pub use sabotage::Sabotage;
pub(crate) use world::World;

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub(crate) String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub events: u64,
    pub writes: u64,
    pub acknowledged: u64,
    pub waits: u64,
    pub kills: u64,
    pub power_losses: u64,
    /// Of them such that took bytes from a log.
    pub tails_lost: u64,
    pub shutdowns: u64,
    pub disk_failures: u64,
    pub disks_full: u64,
    pub cuts: u64,
    pub half_open: u64,
    pub partitions: u64,
    pub promotions: u64,
    pub failovers: u64,
    /// FAILOVERs that were begun; done; by force; given up by anybody, or since nobody had everything in time; taken back after the role had gone; and refused
    /// by a target that lacked something.
    pub handovers: u64,
    pub handovers_done: u64,
    pub handovers_forced: u64,
    pub handovers_aborted: u64,
    pub handovers_late: u64,
    pub handovers_taken_back: u64,
    pub handovers_behind: u64,
    /// Starts that went on with one.
    pub handovers_resumed: u64,
    pub reparented: u64,
    pub links: u64,
    pub full: u64,
    /// Of them such by rows.
    pub rows: u64,
    /// Of these such that came over more than one link.
    pub rows_resumed: u64,
    /// Transfers of rows that were begun, went on over another link, shared a snapshot, or were asked for and not held any more.
    pub transfers: u64,
    pub transfers_resumed: u64,
    pub transfers_shared: u64,
    pub transfers_gone: u64,
    pub transfers_refused: u64,
    pub partial: u64,
    pub commits: u64,
    pub checkpoints: u64,
    pub quiet_points: u64,
    /// Acknowledged writes that did not survive, because their branch was given up by an operator.
    pub given_up: u64,
    /// Because a machine lost power before they were durable.
    pub lost_to_power: u64,
    /// Because a replica was promoted that did not have them yet.
    pub lost_to_promotion: u64,
}

impl Counts {
    fn list(&self) -> [(&'static str, u64); 40] {
        [
            ("events", self.events),
            ("writes", self.writes),
            ("acknowledged", self.acknowledged),
            ("waits", self.waits),
            ("kills", self.kills),
            ("power losses", self.power_losses),
            ("of them with a lost tail", self.tails_lost),
            ("clean ends", self.shutdowns),
            ("disks failed", self.disk_failures),
            ("disks full", self.disks_full),
            ("cuts", self.cuts),
            ("half-open connections", self.half_open),
            ("partitions", self.partitions),
            ("promotions", self.promotions),
            ("of them failovers", self.failovers),
            ("FAILOVERs begun", self.handovers),
            ("of them done", self.handovers_done),
            ("by force", self.handovers_forced),
            ("given up", self.handovers_aborted),
            ("of these out of time", self.handovers_late),
            ("and with the role taken back", self.handovers_taken_back),
            ("refused by a target that lacked something", self.handovers_behind),
            ("taken up again by a start", self.handovers_resumed),
            ("re-parented", self.reparented),
            ("connections", self.links),
            ("full syncs", self.full),
            ("of them by rows", self.rows),
            ("of these over more than one link", self.rows_resumed),
            ("transfers of rows", self.transfers),
            ("resumed at a block", self.transfers_resumed),
            ("of a shared snapshot", self.transfers_shared),
            ("not held any more", self.transfers_gone),
            ("refused, too many", self.transfers_refused),
            ("partial syncs", self.partial),
            ("commits of replicas", self.commits),
            ("checkpoints", self.checkpoints),
            ("quiet points", self.quiet_points),
            ("acknowledged writes given up by operators", self.given_up),
            ("lost to power failures", self.lost_to_power),
            ("lost to promotions", self.lost_to_promotion),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        for (mine, theirs) in [
            (&mut self.events, other.events),
            (&mut self.writes, other.writes),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.waits, other.waits),
            (&mut self.kills, other.kills),
            (&mut self.power_losses, other.power_losses),
            (&mut self.tails_lost, other.tails_lost),
            (&mut self.shutdowns, other.shutdowns),
            (&mut self.disk_failures, other.disk_failures),
            (&mut self.disks_full, other.disks_full),
            (&mut self.cuts, other.cuts),
            (&mut self.half_open, other.half_open),
            (&mut self.partitions, other.partitions),
            (&mut self.promotions, other.promotions),
            (&mut self.failovers, other.failovers),
            (&mut self.handovers, other.handovers),
            (&mut self.handovers_done, other.handovers_done),
            (&mut self.handovers_forced, other.handovers_forced),
            (&mut self.handovers_aborted, other.handovers_aborted),
            (&mut self.handovers_late, other.handovers_late),
            (&mut self.handovers_taken_back, other.handovers_taken_back),
            (&mut self.handovers_behind, other.handovers_behind),
            (&mut self.handovers_resumed, other.handovers_resumed),
            (&mut self.reparented, other.reparented),
            (&mut self.links, other.links),
            (&mut self.full, other.full),
            (&mut self.rows, other.rows),
            (&mut self.rows_resumed, other.rows_resumed),
            (&mut self.transfers, other.transfers),
            (&mut self.transfers_resumed, other.transfers_resumed),
            (&mut self.transfers_shared, other.transfers_shared),
            (&mut self.transfers_gone, other.transfers_gone),
            (&mut self.transfers_refused, other.transfers_refused),
            (&mut self.partial, other.partial),
            (&mut self.commits, other.commits),
            (&mut self.checkpoints, other.checkpoints),
            (&mut self.quiet_points, other.quiet_points),
            (&mut self.given_up, other.given_up),
            (&mut self.lost_to_power, other.lost_to_power),
            (&mut self.lost_to_promotion, other.lost_to_promotion),
        ] {
            *mine += theirs;
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, count) in self.list() {
            writeln!(f, "{count:>12} {name}")?;
        }
        Ok(())
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How often what happened.
    pub counts: Counts,
    /// Sums up everything that happened, in order.
    pub hash: u64,
    /// What must not have happened.
    pub violation: Option<Violation>,
}

/// Runs one seed. With `trace` each line of what happens is given out.
pub fn run(seed: u64, trace: Option<&mut dyn FnMut(&str)>) -> Report {
    World::new(seed, None, trace).run()
}

/// Runs one seed with a deliberate bug, to see whether it is found.
pub fn run_with(seed: u64, sabotage: Sabotage, trace: Option<&mut dyn FnMut(&str)>) -> Report {
    World::new(seed, Some(sabotage), trace).run()
}
