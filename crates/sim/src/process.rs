//! A machine with its disk, and the process that runs on it: the real store and the real glue above it, without threads.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use ardb_base::disk::SimDisk;
use ardb_base::id::{Generation, Offset, ReplId};
use ardb_base::random::Random;
use ardb_commands::{Host, Shared, Table, cmd};
use ardb_engine::presence::{PresenceEngine, Survey};
use ardb_engine::{Engine, EngineError};
use ardb_engine_memory::DurableEngine;
use ardb_log::LogOptions;
use ardb_node::Node;
use ardb_node::failover::Failover;
use ardb_node::transfers::Transfers;
use ardb_repl::rows::SyncId;
use ardb_store::{MemoryBudget, Store, StoreOptions};

use crate::client::Request;
use crate::feed::Feed;
use crate::handover::At;
use crate::link::Link;
use crate::sabotage::{Apart, Sabotage, Skipping};
use crate::settings::{DATABASES, Settings};
use crate::truth::Content;

/// The simulation begins at this time, ms since 1970.
pub const EPOCH: i64 = 1_700_000_000_000;

/// A server without commands of its own.
pub struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What clients in WAIT wait for.
pub struct Wait {
    pub client: usize,
    pub number: u64,
    pub name: ReplId,
    pub target: Offset,
    pub replicas: u64,
    pub until: u64,
}

/// A running process.
pub struct Process {
    pub store: Store,
    pub shared: Arc<Shared>,
    pub reader: ardb_store::Reader,
    /// Whom it follows.
    pub upstream: Option<usize>,
    pub link: Option<Link>,
    /// Its replicas, by connection.
    pub feeds: BTreeMap<u64, Feed>,
    pub requests: Vec<Request>,
    pub waits: Vec<Wait>,
    pub pinged: u64,
    /// FAILOVER, and whether writes wait for it.
    pub failover: Failover<At>,
    pub paused: bool,
    /// What it sends as rows.
    pub transfers: Transfers,
    /// The true history of each of them.
    pub sources: HashMap<SyncId, Content>,
    /// Events that are scheduled already, so that there is one of each.
    pub pump_is_due: bool,
    pub burst_is_due: bool,
}

impl Process {
    pub fn node(&self) -> Node<'_> {
        Node { store: &self.store, shared: &self.shared, host: &NoHost }
    }

    /// As the server does with its configuration's defaults.
    pub fn refresh_gates(&self) {
        let gates = &self.shared.gates;
        gates.read_only.store(gates.is_replica.load(Ordering::SeqCst), Ordering::SeqCst);
        gates.log_rests.store(self.paused, Ordering::SeqCst);
    }
}

/// How the last process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Alone: it was killed, or ended cleanly, and nothing that it had appended is lost.
    Process,
    /// With its machine: only what was durable is left for certain.
    Machine,
}

/// A machine.
pub struct Machine {
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Counts processes; connections and events of an earlier one are void.
    pub incarnation: u64,
    /// Names the run of the machine.
    boot: u8,
    /// The history that its log must hold, from the beginning.
    pub content: Content,
    /// What it may hold instead after the next start, because an attempt to install it failed in the last step.
    pub perhaps: Option<Content>,
    /// The name of its history.
    pub name: Option<ReplId>,
    /// A change of the name failed, so the disk may have another one.
    pub name_in_doubt: bool,
    pub ended: Ended,
    /// Everything below was durable when it ended.
    pub synced: u64,
    /// A sync of its log had failed: the tail is suspect, though the disk has it.
    pub sync_failed: bool,
    /// The machine is on.
    pub on: bool,
    /// It has told a master that it has everything before this offset.
    pub promised: u64,
    /// When it lost part of its history or took another one.
    pub shrank: Vec<u64>,
    /// When an operator put it under another node.
    pub reparented: Vec<u64>,
    /// When it gave its role to which node.
    pub heirs: Vec<(u64, usize)>,
    /// What it has handed over with its role, unless by force, and to whom.
    pub handed: Option<(Option<Offset>, usize)>,
    /// Disk operations fail from a while on, or there is no space.
    pub ill: bool,
    /// Unix time, ms; its clock is a little off.
    clock: Arc<AtomicI64>,
    skew: i64,
    ids: Arc<AtomicU64>,
    /// For [`Sabotage::ResumedTooFar`]: the next walk over all rows skips some.
    pub skips: Arc<AtomicBool>,
}

impl Machine {
    pub fn new(number: usize, random: &mut Random) -> Machine {
        Machine {
            disk: SimDisk::new(),
            process: None,
            incarnation: 0,
            boot: 1,
            content: Content::default(),
            perhaps: None,
            name: None,
            name_in_doubt: false,
            ended: Ended::Process,
            synced: 0,
            sync_failed: false,
            on: true,
            promised: 0,
            shrank: Vec::new(),
            reparented: Vec::new(),
            heirs: Vec::new(),
            handed: None,
            ill: false,
            clock: Arc::new(AtomicI64::new(EPOCH)),
            skew: random.below(2000) as i64 - 1000,
            ids: Arc::new(AtomicU64::new(random.next_u64() ^ number as u64)),
            skips: Arc::default(),
        }
    }

    pub fn set_clock(&self, now: u64) {
        self.clock.store(EPOCH + self.skew + now as i64, Ordering::Relaxed);
    }

    pub fn unix(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// The machine comes up again after a loss of power.
    pub fn reboot(&mut self, sabotage: Option<Sabotage>) {
        if sabotage != Some(Sabotage::IdKept) {
            self.boot = self.boot % 250 + 1;
        }
    }

    fn options(&self, number: usize, settings: &Settings, sabotage: Option<Sabotage>) -> StoreOptions {
        let (disk, clock, ids) = (self.disk.clone(), self.clock.clone(), self.ids.clone());
        let skips = self.skips.clone();
        // Every other node has no room for the names of its rows, so it never knows that one is not there.
        let names = if number.is_multiple_of(2) { 1 << 20 } else { 0 };
        type Opened = Result<Arc<dyn Engine>, EngineError>;
        let engines = move |_: Generation, dir: &Path, _: u64| -> Opened {
            let engine = PresenceEngine::new(Arc::new(DurableEngine::open(Arc::new(disk.clone()), dir)?), names)?;
            while engine.survey(&mut Vec::new(), usize::MAX)? != Survey::Over {}
            let engine: Arc<dyn Engine> = Arc::new(engine);
            Ok(match sabotage {
                Some(Sabotage::PositionApart) => Arc::new(Apart(engine)),
                Some(Sabotage::ResumedTooFar) => Arc::new(Skipping(engine, skips.clone())),
                _ => engine,
            })
        };
        StoreOptions {
            dir: "/data".into(),
            disk: Arc::new(self.disk.clone()),
            engines: Arc::new(engines),
            databases: DATABASES,
            memory: MemoryBudget { changed: settings.changed, rows: 1 << 18, engine: 0 },
            log: LogOptions { segment_bytes: settings.segment_bytes, ahead: false },
            backlog_bytes: settings.backlog_bytes,
            fsync: settings.fsync[number],
            checkpoint_age_ms: settings.checkpoint_age,
            boot_id: [self.boot; 16],
            random: Arc::new(move |bytes: &mut [u8]| Random::new(ids.fetch_add(1, Ordering::Relaxed)).fill(bytes)),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            background: false,
        }
    }

    /// Opens the store and replays its log. Gives the process and what the opening found, or why not.
    pub fn start(
        &mut self,
        number: usize,
        settings: &Settings,
        sabotage: Option<Sabotage>,
        now: u64,
    ) -> Result<(Process, ardb_store::Recovery), String> {
        let (store, recovery) =
            Store::open(self.options(number, settings, sabotage)).map_err(|error| error.to_string())?;
        let seed = self.ids.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), DATABASES, seed));
        if settings.tight {
            let of = &shared.settings;
            for limit in [&of.hash_max_entries, &of.set_max_entries, &of.zset_max_entries] {
                limit.store(3, Ordering::Relaxed);
            }
            of.list_max_size.store(3, Ordering::Relaxed);
        }
        let mut process = Process {
            reader: store.reader(),
            store,
            shared,
            upstream: None,
            link: None,
            feeds: BTreeMap::new(),
            requests: Vec::new(),
            waits: Vec::new(),
            pinged: now,
            failover: Failover::default(),
            paused: false,
            transfers: Transfers::default(),
            sources: HashMap::new(),
            pump_is_due: false,
            burst_is_due: false,
        };
        ardb_node::replay::replay(process.node(), &mut |_| {}).map_err(|error| error.to_string())?;
        let upstream = ardb_node::role::take_up(process.node(), None).map_err(|error| error.to_string())?;
        process.upstream = upstream.and_then(|text| text.parse().ok());
        if process.upstream.is_some() {
            process.failover.resume(&process.store);
        }
        process.refresh_gates();
        Ok((process, recovery))
    }
}
