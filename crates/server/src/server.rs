//! The server itself: what all its threads share.
//!
//! Locks, in the order in which they may be taken together: the store's writer lock, then any one of the small ones here, which
//! are never held while another is taken, or across I/O.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ardb_commands::shared::{Events, MAX_REPLY};
use ardb_commands::{Command, Flags, Host, Session, Shared};
use ardb_node::Node;
use ardb_store::Store;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::blocking::{self, Parked};
use crate::calls::CallStats;
use crate::clients::{Class, ClientInfo, Clients};
use crate::clock;
use crate::cold::ColdReads;
use crate::config::{Config, OutputLimit};
use crate::logger;
use crate::net::balance::Balance;
use crate::net::mailbox::{Message, ThreadBox};
use crate::repl::Replication;
use crate::slowlog::Slowlog;
use crate::stats::Stats;

/// How the server is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Write an RDB file first, which the command does before it asks.
    pub save: bool,
    /// Do not wait for replicas.
    pub now: bool,
    /// End even if something fails.
    pub force: bool,
    /// Do not wait for a script that is running.
    pub drop_script: bool,
}

/// What CLIENT PAUSE holds up.
#[derive(Default)]
pub struct Pause {
    /// Until when, ms since 1970; 0 is no pause.
    pub until: AtomicI64,
    /// All commands, not only those that may write.
    pub all: AtomicBool,
    /// FAILOVER holds writes up, whatever the time.
    pub failover: AtomicBool,
}

/// The server.
pub struct Server {
    /// Its configuration.
    pub config: Config,
    /// What commands share.
    pub shared: Arc<Shared>,
    /// The data.
    pub store: Store,
    /// All clients.
    pub clients: Clients,
    /// Clients that wait in a blocking command.
    pub parked: Parked,
    /// The slow log.
    pub slowlog: Slowlog,
    /// Counters.
    pub stats: Stats,
    /// Both sides of replication.
    pub replication: Replication,
    /// Threads for rows that are not in memory.
    pub cold: ColdReads,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// Limits of pending output by class.
    pub output_limits: RwLock<[OutputLimit; 3]>,
    /// Names this run of the process.
    pub run_id: String,
    /// When it started, ms since 1970.
    pub started: i64,
    /// The port that it really listens on.
    pub port: AtomicU64,
    /// When the last RDB file was finished, seconds since 1970.
    pub last_save: AtomicI64,
    /// An RDB file is being written in the background.
    pub saving: AtomicBool,
    /// The last one failed.
    pub save_failed: AtomicBool,
    /// How long the last one took, seconds; -1 without one.
    pub last_save_took: AtomicI64,
    /// How often each command was called.
    pub calls: CallStats,
    this: OnceLock<Weak<Server>>,
    query_limit: AtomicU64,
    sync_always: AtomicBool,
    threads: OnceLock<Vec<Arc<ThreadBox>>>,
    /// How many of them serve clients.
    pub balance: Balance,
    ending: Mutex<Option<Shutdown>>,
    ended: Condvar,
}

impl Host for Server {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn script_is_over(&self) {
        self.look_again();
    }

    fn followed(&self, command: &'static Command, failed: bool) {
        // A stream is executed in batches, whose time belongs to no single command; that of EXEC and of a script counts as theirs.
        self.calls.called(command, 0, failed);
    }
}

impl Server {
    /// A server without threads.
    #[must_use]
    pub fn new(config: Config, shared: Arc<Shared>, store: Store, run_id: String) -> Arc<Server> {
        let server = Arc::new(Server {
            config,
            store,
            clients: Clients::default(),
            parked: Parked::default(),
            slowlog: Slowlog::default(),
            stats: Stats::default(),
            replication: Replication::default(),
            cold: ColdReads::default(),
            pause: Pause::default(),
            output_limits: RwLock::new([OutputLimit::default(); 3]),
            run_id,
            started: clock::unix_ms(),
            port: AtomicU64::new(0),
            last_save: AtomicI64::new(clock::unix_ms() / 1000),
            saving: AtomicBool::new(false),
            save_failed: AtomicBool::new(false),
            last_save_took: AtomicI64::new(-1),
            calls: CallStats::new(&shared.table),
            this: OnceLock::new(),
            shared,
            query_limit: AtomicU64::new(u64::MAX),
            sync_always: AtomicBool::new(false),
            threads: OnceLock::new(),
            balance: Balance::default(),
            ending: Mutex::new(None),
            ended: Condvar::new(),
        });
        let first = server.this.set(Arc::downgrade(&server)).is_ok();
        debug_assert!(first, "a fresh server knows no handle of itself");
        server.apply_config();
        server
    }

    /// A handle for another thread.
    #[must_use]
    pub fn handle(&self) -> Arc<Server> {
        match self.this.get().and_then(Weak::upgrade) {
            Some(server) => server,
            None => unreachable!("invariant: a server is only ever made behind an Arc, and whoever calls this has it"),
        }
    }

    /// Its data and what its commands share.
    #[must_use]
    pub fn node(&self) -> Node<'_> {
        Node { store: &self.store, shared: &self.shared, host: self }
    }

    /// Gives it its network threads. Called once.
    pub fn set_threads(&self, threads: Vec<Arc<ThreadBox>>) {
        let first = self.threads.set(threads).is_ok();
        debug_assert!(first, "threads are started once");
    }

    /// The inboxes of the network threads.
    #[must_use]
    pub fn threads(&self) -> &[Arc<ThreadBox>] {
        self.threads.get().map_or(&[], Vec::as_slice)
    }

    /// Sends a message to the thread of a client.
    pub fn tell(&self, client: &ClientInfo, message: Message) {
        // If the client moves meanwhile, that thread passes the message on.
        if let Some(thread) = self.threads().get(client.thread.load(Ordering::Acquire)) {
            thread.post(message);
        }
    }

    /// Closes a client's connection.
    pub fn kill(&self, client: &ClientInfo) {
        client.killed.store(true, Ordering::SeqCst);
        match client.class() {
            // Their threads wait on the socket.
            Class::Master => crate::repl::role::hang_up(self),
            Class::Replica => self.replication.wake_peer(client.id),
            Class::Normal | Class::PubSub => self.tell(client, Message::Kill(client.id)),
        }
    }

    /// How many threads [`Server::cold`] may have.
    #[must_use]
    pub fn cold_threads(&self) -> usize {
        self.config.int("cold-read-threads").max(1) as usize
    }

    /// A row for which the engine takes longer came from the disk.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        Duration::from_micros(self.config.int("cold-read-microseconds").max(0) as u64)
    }

    /// Lets every network thread look at its connections again.
    pub fn look_again(&self) {
        for thread in self.threads() {
            thread.post(Message::LookAgain);
        }
    }

    /// A waiting client has been served.
    pub fn client_resumes(&self, client: u64) {
        blocking::mark(self, client, false);
    }

    /// Copies what the hot path needs out of the configuration.
    pub fn apply_config(&self) {
        let config = &self.config;
        let settings = &self.shared.settings;
        let events = Events::parse(config.text("notify-keyspace-events").as_bytes()).map_or(0, |events| events.0);
        settings.notify.store(u64::from(events), Ordering::Relaxed);
        for (to, name) in [
            (&settings.max_bulk, "proto-max-bulk-len"),
            (&settings.script_limit, "busy-reply-threshold"),
            (&settings.hash_max_entries, "hash-max-listpack-entries"),
            (&settings.hash_max_value, "hash-max-listpack-value"),
            (&settings.set_max_intset, "set-max-intset-entries"),
            (&settings.set_max_entries, "set-max-listpack-entries"),
            (&settings.set_max_value, "set-max-listpack-value"),
            (&settings.zset_max_entries, "zset-max-listpack-entries"),
            (&settings.zset_max_value, "zset-max-listpack-value"),
            (&settings.hll_sparse_max, "hll-sparse-max-bytes"),
        ] {
            to.store(config.size(name), Ordering::Relaxed);
        }
        settings.list_max_size.store(config.int("list-max-listpack-size"), Ordering::Relaxed);
        self.shared.lfu.store(config.text("maxmemory-policy").ends_with("-lfu"), Ordering::Relaxed);
        let gates = &self.shared.gates;
        gates.needs_auth.store(!config.bytes("requirepass").is_empty(), Ordering::Relaxed);
        crate::repl::refresh_gates(self);
        let pinned = match config.size("repl-sync-log-limit") {
            0 => u64::MAX,
            bytes => bytes,
        };
        self.store.set_log_limits(config.size("repl-backlog-size"), pinned);
        self.slowlog.limit.store(config.int("slowlog-log-slower-than"), Ordering::Relaxed);
        self.slowlog.most.store(config.size("slowlog-max-len") as usize, Ordering::Relaxed);
        self.slowlog.trim();
        self.query_limit.store(config.size("client-query-buffer-limit"), Ordering::Relaxed);
        self.sync_always.store(config.bytes("appendfsync") == b"always", Ordering::Relaxed);
        let limits = config.output_limits();
        let most = if limits[0].hard == 0 { MAX_REPLY } else { limits[0].hard.min(MAX_REPLY) };
        settings.max_reply.store(most, Ordering::Relaxed);
        *self.output_limits.write() = limits;
        logger::set_level(&config.text("loglevel"));
    }

    /// Whether the command has to wait for the end of a pause.
    #[must_use]
    pub fn pauses(&self, session: &Session, command: &Command) -> bool {
        let until = self.pause.until.load(Ordering::Relaxed);
        let by_client = until != 0 && clock::unix_ms() < until;
        if !by_client && !self.pause.failover.load(Ordering::SeqCst) {
            return false;
        }
        if by_client && self.pause.all.load(Ordering::Relaxed) {
            return true;
        }
        let may_write = |command: &Command| command.flags.has(Flags::WRITE) || command.flags.has(Flags::MAY_REPLICATE);
        match &session.multi {
            Some(queue) if command.name == "exec" => queue.commands.iter().any(|queued| may_write(queued.command)),
            Some(_) => false,
            None => may_write(command) && command.name != "exec",
        }
    }

    /// Whether a pause is on.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.pause.failover.load(Ordering::SeqCst) || self.pause.until.load(Ordering::Relaxed) > clock::unix_ms()
    }

    /// Bytes that a client may send ahead.
    #[must_use]
    pub fn query_limit(&self) -> u64 {
        self.query_limit.load(Ordering::Relaxed)
    }

    /// Whether each commit is made durable before its replies leave.
    #[must_use]
    pub fn sync_always(&self) -> bool {
        self.sync_always.load(Ordering::Relaxed)
    }

    /// Shows a command to the clients that watch all of them.
    pub fn feed_monitors(&self, info: &ClientInfo, session: &Session, command: &Command, args: &[&[u8]], now: i64) {
        let hidden = command.flags.has(Flags::SKIP_MONITOR) || command.flags.has(Flags::ADMIN);
        if hidden || (self.shared.gates.needs_auth.load(Ordering::Relaxed) && !session.authenticated) {
            return;
        }
        let mut line = format!("+{}.{:06} [{} {}]", now / 1_000_000, now % 1_000_000, session.db, info.addr);
        for arg in args {
            line.push(' ');
            line.push_str(&crate::config::source::quoted(arg));
        }
        line.push_str("\r\n");
        let bytes: Arc<[u8]> = Arc::from(line.as_bytes());
        for client in self.clients.list() {
            if client.view.lock().monitor {
                self.tell(&client, Message::Deliver(client.id, bytes.clone()));
            }
        }
    }

    /// Asks the server to end.
    pub fn shut_down(&self, how: Shutdown) {
        *self.ending.lock() = Some(how);
        self.ended.notify_all();
    }

    /// Waits until someone asks the server to end. Gives how.
    pub fn wait_for_end(&self) -> Shutdown {
        let mut ending = self.ending.lock();
        loop {
            if let Some(how) = ending.take() {
                return how;
            }
            self.ended.wait(&mut ending);
        }
    }
}

/// The server behind a host. Handlers of this crate only ever run on it.
#[must_use]
pub fn of(host: &dyn Host) -> &Server {
    match host.as_any().downcast_ref::<Server>() {
        Some(server) => server,
        None => unreachable!("invariant: the server's own commands stand in no other host's table"),
    }
}
