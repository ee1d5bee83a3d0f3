//! What the server keeps of both sides of replication, for INFO, ROLE, WAIT and the gates.
//!
//! Locks here are held for moments and never across I/O, with one exception: [`Replication::switch`] is held while the history changes
//! (an install, a promotion), so that only one of them happens at a time. It is taken before the writer lock. [`Replication::gates`] is taken behind the
//! writer lock and before all others.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use ardb_base::id::Offset;
use ardb_node::private::PrivateNames;
use ardb_node::transfers::Transfers;
use ardb_repl::Ms;
use ardb_repl::master::{Profile, State};
use parking_lot::Mutex;

use super::dump::Dump;
use super::failover::Failover;
use super::lag::Lag;
use super::wait::Waits;

/// Milliseconds of a clock that does not go back.
#[must_use]
pub fn monotonic_ms() -> Ms {
    static START: OnceLock<Instant> = OnceLock::new();
    // Counted from 1, so that 0 can mean never.
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// Whom we follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Upstream {
    /// Its form in the state file and in the configuration.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {}", self.host, self.port)
    }

    /// The inverse of [`Upstream::text`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Upstream> {
        let (host, port) = text.trim().rsplit_once(' ')?;
        let host = host.trim();
        (!host.is_empty()).then_some(Upstream { host: host.to_owned(), port: port.parse().ok()? })
    }
}

/// Where the link to the master is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It will be tried.
    #[default]
    Waiting,
    /// The connection is being made.
    Connecting,
    /// Connected, the handshake goes on.
    Handshake,
    /// Everything is being received.
    Syncing,
    /// The stream flows.
    Up,
    /// The stream cannot be applied; only a new REPLICAOF or a restart makes another attempt.
    Stopped,
}

/// What others may know of the link to the master.
#[derive(Debug, Default)]
pub struct LinkView {
    /// Where it is.
    pub phase: Phase,
    /// When the master last sent anything, or 0.
    pub heard: Ms,
    /// Since when it is not up.
    pub down_since: Ms,
    /// Length of the RDB that is coming, if it is known.
    pub sync_total: Option<u64>,
    /// Bytes of it received, or of rows.
    pub sync_read: u64,
    /// What is known of rows that are coming.
    pub sync_rows: Option<RowsView>,
    /// When the last of them came.
    pub sync_heard: Ms,
    /// Offset up to which the stream was received.
    pub received: Offset,
    /// Why the last attempt ended.
    pub error: Option<String>,
    /// The socket, to end a wait on it.
    pub socket: Option<TcpStream>,
}

/// What others may know of rows that are coming.
#[derive(Clone, Copy, Debug)]
pub struct RowsView {
    /// Rows received.
    pub rows: u64,
    /// Keys that the master has.
    pub keys: u64,
    /// About how many bytes will come; 0 if the master cannot say.
    pub about_bytes: u64,
    /// When the first of them came.
    pub since: Ms,
    /// How often the transfer went on after its link had broken.
    pub resumed: u64,
}

/// What was sent of rows, over all links of a transfer.
#[derive(Debug, Default)]
pub struct Sent {
    bytes: AtomicU64,
    rows: AtomicU64,
    since: AtomicU64,
}

impl Sent {
    /// Bytes went out; with them `rows` rows in all.
    pub fn add(&self, bytes: u64, rows: u64) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(monotonic_ms(), Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.store(rows, Ordering::Relaxed);
    }

    /// Bytes, rows, and since when; `None` if no rows were sent.
    #[must_use]
    pub fn get(&self) -> Option<(u64, u64, Ms)> {
        let since = self.since.load(Ordering::Relaxed);
        (since > 0).then(|| (self.bytes.load(Ordering::Relaxed), self.rows.load(Ordering::Relaxed), since))
    }
}

/// One of our replicas as others see it.
#[derive(Debug)]
pub struct PeerView {
    /// The client's number.
    pub id: u64,
    /// Its address.
    pub address: String,
    /// What it said of itself.
    pub profile: Profile,
    /// It asked by SYNC.
    pub old: AtomicBool,
    /// The stream was cut off from it: let it go.
    pub dismissed: AtomicBool,
    /// Its dump goes to it as it is made, without a file.
    pub streamed: AtomicBool,
    /// Wakes its thread.
    pub waker: OnceLock<Arc<mio::Waker>>,
    /// Rows that were sent to it.
    pub sent: Sent,
    state: AtomicU8,
    acknowledged: AtomicU64,
    /// Everything before is durable there; all ones if it never said so.
    synced: AtomicU64,
    heard: AtomicU64,
    /// How far it is behind.
    pub lag: Mutex<Lag>,
}

const STATES: [State; 4] = [State::WaitDump, State::SendDump, State::WaitAck, State::Online];

impl PeerView {
    /// A replica that has just asked.
    #[must_use]
    pub fn new(id: u64, address: String, profile: Profile) -> PeerView {
        PeerView {
            id,
            address,
            profile,
            old: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            streamed: AtomicBool::new(false),
            waker: OnceLock::new(),
            sent: Sent::default(),
            state: AtomicU8::new(0),
            acknowledged: AtomicU64::new(0),
            synced: AtomicU64::new(u64::MAX),
            heard: AtomicU64::new(0),
            lag: Mutex::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        STATES[usize::from(self.state.load(Ordering::SeqCst)).min(3)]
    }

    /// The word of INFO for it. As in Redis, a replica waits for a dump until it is made, though it is sent at the same time.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state() {
            State::SendDump if self.streamed.load(Ordering::Relaxed) => State::WaitDump.word(),
            state => state.word(),
        }
    }

    /// What it acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Offset {
        Offset(self.acknowledged.load(Ordering::SeqCst))
    }

    /// What is durable there, if it says so.
    #[must_use]
    pub fn synced(&self) -> Option<Offset> {
        Some(self.synced.load(Ordering::SeqCst)).filter(|synced| *synced != u64::MAX).map(Offset)
    }

    /// It says that everything before `offset` is durable there.
    pub fn show_synced(&self, offset: Offset) {
        self.synced.store(offset.0, Ordering::SeqCst);
    }

    /// Seconds since it last said anything.
    #[must_use]
    pub fn silence(&self, now: Ms) -> u64 {
        now.saturating_sub(self.heard.load(Ordering::Relaxed)) / 1000
    }

    /// Shows others where it is.
    pub fn show(&self, state: State, acknowledged: Offset, heard: Ms) {
        let number = STATES.iter().position(|s| *s == state).unwrap_or(0) as u8;
        self.heard.store(heard, Ordering::Relaxed);
        self.acknowledged.store(acknowledged.0, Ordering::SeqCst);
        self.state.store(number, Ordering::SeqCst);
    }
}

/// Both sides of replication.
#[derive(Default)]
pub struct Replication {
    /// Held while the history changes.
    pub switch: Mutex<()>,
    /// Held while the gates are brought in line with the role, so that nobody does so by an older look at it.
    pub gates: Mutex<()>,
    /// Counts changes of the upstream. A link of an earlier number must not touch the data.
    pub turn: AtomicU64,
    /// The turn whose link was started last: there is one link a turn, whoever asks for it.
    pub linked: Mutex<Option<u64>>,
    /// Whom we follow.
    pub upstream: Mutex<Option<Upstream>>,
    /// The link to it.
    pub link: Mutex<LinkView>,
    /// Our replicas by client number.
    pub peers: Mutex<BTreeMap<u64, Arc<PeerView>>>,
    /// What clients said of themselves that have not asked yet.
    pub profiles: Mutex<HashMap<u64, Profile>>,
    /// FAILOVER.
    pub failover: Failover,
    /// Clients in WAIT.
    pub waits: Waits,
    /// The dump to a file that is being made, if there is one.
    pub dump: Mutex<Weak<Dump>>,
    /// RDBs for replicas that are being made.
    pub dumping: AtomicUsize,
    /// Full syncs by rows.
    pub transfers: Transfers,
    /// Names under which single replicas know our history.
    pub names: PrivateNames,
    /// Full syncs begun.
    pub sync_full: AtomicU64,
    /// Links over which a full sync went on that an earlier one had begun.
    pub sync_resumed: AtomicU64,
    /// Replicas that could go on.
    pub partial_ok: AtomicU64,
    /// Replicas that wanted to go on and could not.
    pub partial_err: AtomicU64,
    /// The server ends.
    pub stopping: AtomicBool,
    /// Threads to wait for at the end.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Replication {
    /// Whether this is a replica.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.upstream.lock().is_some()
    }

    /// Whether the stream of the master flows.
    #[must_use]
    pub fn link_is_up(&self) -> bool {
        self.link.lock().phase == Phase::Up
    }

    /// Whether an RDB from the master is on its way.
    #[must_use]
    pub fn receives_everything(&self) -> bool {
        let link = self.link.lock();
        link.phase == Phase::Syncing && link.sync_heard > 0
    }

    /// Whether a link that began in this turn is still the one.
    #[must_use]
    pub fn is_current(&self, turn: u64) -> bool {
        self.turn.load(Ordering::SeqCst) == turn && !self.stopping.load(Ordering::SeqCst)
    }

    /// Our replicas.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<PeerView>> {
        self.peers.lock().values().cloned().collect()
    }

    /// Lets go of all replicas, so that they ask again and learn the history's new name.
    pub fn dismiss_peers(&self, why: &str) {
        for peer in self.peers() {
            log::info!("Disconnecting the replica {}: {why}", peer.address);
            peer.dismissed.store(true, Ordering::SeqCst);
            self.wake_peer(peer.id);
        }
    }

    /// Lets go of one replica, if it is still there.
    pub fn dismiss_peer(&self, id: u64) {
        let peer = self.peers.lock().get(&id).cloned();
        if let Some(peer) = peer {
            peer.dismissed.store(true, Ordering::SeqCst);
            self.wake_peer(id);
        }
    }

    /// Lets a replica's thread look at what it was told.
    pub fn wake_peer(&self, id: u64) {
        let waker = self.peers.lock().get(&id).and_then(|peer| peer.waker.get().cloned());
        if let Some(waker) = waker {
            // The only failure is a full counter, and then the thread is awake.
            let _ = waker.wake();
        }
    }

    /// Keeps a thread's handle, and lets go of those that have ended.
    pub fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }
}
