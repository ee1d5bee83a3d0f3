//! All clients as other threads see them: for CLIENT LIST and KILL, for limits and for INFO.
//!
//! A client's state belongs to its network thread. What others may want to know of it is copied into a [`View`] after each burst,
//! before the replies leave, so that who has seen a reply sees its traces here too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use ardb_commands::Session;
use ardb_resp::Protocol;
use parking_lot::Mutex;

use crate::net::handover::Handover;

/// What CLIENT REPLY says about the replies of a client.
pub mod reply_mode {
    /// They are sent.
    pub const ON: u8 = 0;
    /// They are not.
    pub const OFF: u8 = 1;
    /// That of the next command is not.
    pub const SKIP_NEXT: u8 = 2;
    /// That of the command at hand is not.
    pub const SKIP_NOW: u8 = 3;
}

/// A class of clients, for limits and for CLIENT LIST and KILL TYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Everyone else.
    Normal = 0,
    /// A replica of ours.
    Replica = 1,
    /// A subscriber.
    PubSub = 2,
    /// Our master.
    Master = 3,
}

impl Class {
    /// The class of this name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Class> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Some(Class::Normal),
            b"replica" | b"slave" => Some(Class::Replica),
            b"pubsub" => Some(Class::PubSub),
            b"master" => Some(Class::Master),
            _ => None,
        }
    }
}

/// The parts of a client that change with its commands.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// The selected database.
    pub db: u32,
    /// Channels.
    pub channels: usize,
    /// Patterns.
    pub patterns: usize,
    /// Shard channels.
    pub shard_channels: usize,
    /// Commands queued by MULTI; -1 without one.
    pub multi: i64,
    /// Whether it watches keys.
    pub watching: bool,
    /// It gets a copy of every command.
    pub monitor: bool,
    /// RESP3.
    pub resp3: bool,
    /// The last command.
    pub command: &'static str,
    /// Bytes received and not yet executed.
    pub input: usize,
    /// Bytes of its input buffer that are free.
    pub input_free: usize,
    /// Bytes of replies not yet sent.
    pub output: usize,
}

/// One client.
pub struct ClientInfo {
    /// Never used twice.
    pub id: u64,
    /// Its address, or the path of the Unix socket with `:0`.
    pub addr: String,
    /// Our end's address.
    pub laddr: String,
    /// The socket's number.
    pub fd: AtomicI64,
    /// Its network thread. It may be another one a moment later: see [`crate::net::balance`].
    pub thread: AtomicUsize,
    /// Over a Unix socket.
    pub unix: bool,
    /// From this machine.
    pub local: bool,
    /// When it came, ms since 1970.
    pub since: i64,
    /// When it last sent something, ms since 1970.
    pub active: AtomicI64,
    /// It is to be closed, or is.
    pub killed: AtomicBool,
    /// It waits in a blocking command.
    pub blocked: AtomicBool,
    /// CLIENT NO-EVICT.
    pub no_evict: AtomicBool,
    /// See [`reply_mode`].
    pub reply_mode: AtomicU8,
    class: AtomicU8,
    /// What other threads see.
    pub view: Mutex<View>,
    /// Who takes the connection over once the reply at hand is out (a replica's sender).
    pub handover: Mutex<Option<Handover>>,
    /// There is one.
    pub handing_over: AtomicBool,
}

impl ClientInfo {
    /// What it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.class.load(Ordering::Relaxed) {
            1 => Class::Replica,
            3 => Class::Master,
            _ => {
                let view = self.view.lock();
                if view.channels + view.patterns + view.shard_channels > 0 { Class::PubSub } else { Class::Normal }
            }
        }
    }

    /// Makes it a replica of ours, or our master.
    pub fn set_class(&self, class: Class) {
        self.class.store(class as u8, Ordering::Relaxed);
    }

    /// Asks the network thread to give the connection away after the reply at hand.
    pub fn hand_over(&self, to: Handover) {
        *self.handover.lock() = Some(to);
        self.handing_over.store(true, Ordering::Release);
    }

    /// Copies what others may see.
    pub fn publish(&self, session: &Session, input: usize, input_free: usize, output: usize) {
        let mut view = self.view.lock();
        if view.name != session.name {
            view.name.clone_from(&session.name);
        }
        view.db = session.db;
        view.channels = session.channels.len();
        view.patterns = session.patterns.len();
        view.shard_channels = session.shard_channels.len();
        view.multi = session.multi.as_ref().map_or(-1, |queue| queue.commands.len() as i64);
        view.watching = session.watch.is_some();
        view.monitor = session.monitor;
        view.resp3 = session.protocol == Protocol::Resp3;
        view.command = session.last_command;
        view.input = input;
        view.input_free = input_free;
        view.output = output;
    }

    /// Its line in CLIENT LIST, without a line end.
    #[must_use]
    pub fn line(&self, now: i64) -> String {
        let class = self.class();
        let view = self.view.lock();
        let mut flags = String::new();
        if class == Class::Replica {
            flags.push('S');
        }
        if class == Class::Master {
            flags.push('M');
        }
        if view.monitor {
            flags.push('O');
        }
        if class == Class::PubSub {
            flags.push('P');
        }
        if view.multi >= 0 {
            flags.push('x');
        }
        if self.blocked.load(Ordering::Relaxed) {
            flags.push('b');
        }
        if self.killed.load(Ordering::Relaxed) {
            flags.push('c');
        }
        if self.unix {
            flags.push('U');
        }
        if self.no_evict.load(Ordering::Relaxed) {
            flags.push('e');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let mut line = String::new();
        let seconds = |since: i64| (now - since).max(0) / 1000;
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} \
             qbuf={} qbuf-free={} argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem=0 tot-mem={} events=r cmd={} \
             user=default redir=-1 resp={}",
            self.id,
            self.addr,
            self.laddr,
            self.fd.load(Ordering::Relaxed),
            String::from_utf8_lossy(&view.name),
            seconds(self.since),
            seconds(self.active.load(Ordering::Relaxed)),
            view.db,
            view.channels,
            view.patterns,
            view.shard_channels,
            view.multi,
            view.input,
            view.input_free,
            view.output,
            view.input + view.input_free + view.output,
            view.command,
            if view.resp3 { 3 } else { 2 },
        );
        line
    }
}

/// The registry.
#[derive(Default)]
pub struct Clients {
    all: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    next: AtomicU64,
    /// How many clients get a copy of every command.
    pub monitors: AtomicU64,
}

/// How a new client is reached.
pub struct Address {
    /// Its end.
    pub addr: String,
    /// Our end.
    pub laddr: String,
    /// Over a Unix socket.
    pub unix: bool,
    /// From this machine.
    pub local: bool,
}

impl Clients {
    /// Enters a new client. `thread` gives its thread by its number.
    pub fn add(&self, address: Address, thread: impl FnOnce(u64) -> usize, now: i64) -> Arc<ClientInfo> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(ClientInfo {
            id,
            addr: address.addr,
            laddr: address.laddr,
            fd: AtomicI64::new(-1),
            thread: AtomicUsize::new(thread(id)),
            unix: address.unix,
            local: address.local,
            since: now,
            active: AtomicI64::new(now),
            killed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            reply_mode: AtomicU8::new(reply_mode::ON),
            class: AtomicU8::new(Class::Normal as u8),
            view: Mutex::new(View { multi: -1, command: "NULL", ..View::default() }),
            handover: Mutex::new(None),
            handing_over: AtomicBool::new(false),
        });
        self.all.lock().insert(info.id, info.clone());
        info
    }

    /// Forgets a client.
    pub fn remove(&self, id: u64) {
        if let Some(info) = self.all.lock().remove(&id)
            && info.view.lock().monitor
        {
            self.monitors.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The client of this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.all.lock().get(&id).cloned()
    }

    /// All of them by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.all.lock().values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.lock().len()
    }
}
