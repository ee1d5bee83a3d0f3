//! What all clients of a server share, as far as commands know it: settings, watched keys, waiting clients, channels, scripts, counters.
//!
//! Everything here may be used from any thread. Locks are held for moments and never across I/O. Registration of watches and of
//! waiting clients happens under the writer lock, so that no change can slip in between a look and a registration.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use ardb_base::counter::Counter;
use ardb_base::random::Random;
use ardb_resp::Protocol;
use ardb_types::limits::{Limit, Limits};
use parking_lot::Mutex;

use crate::table::Table;

/// Where messages for a client go that no command of its own has caused. Implemented by the server.
pub trait Mailbox: Send + Sync {
    /// Queues `bytes`, which are whole messages, for `client`. Never blocks; a client that is gone loses them.
    fn deliver(&self, client: u64, bytes: Arc<[u8]>);
}

/// A mailbox that throws everything away: replay and replication have no client.
pub struct NoMailbox;

impl Mailbox for NoMailbox {
    fn deliver(&self, _client: u64, _bytes: Arc<[u8]>) {}
}

/// Classes of keyspace events, as bits of `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(pub u32);

impl Events {
    /// `K`: publish on `__keyspace@db__:key`.
    pub const KEYSPACE: Events = Events(1);
    /// `E`: publish on `__keyevent@db__:event`.
    pub const KEYEVENT: Events = Events(1 << 1);
    /// `g`.
    pub const GENERIC: Events = Events(1 << 2);
    /// `$`.
    pub const STRING: Events = Events(1 << 3);
    /// `l`.
    pub const LIST: Events = Events(1 << 4);
    /// `s`.
    pub const SET: Events = Events(1 << 5);
    /// `h`.
    pub const HASH: Events = Events(1 << 6);
    /// `z`.
    pub const ZSET: Events = Events(1 << 7);
    /// `x`.
    pub const EXPIRED: Events = Events(1 << 8);
    /// `e`.
    pub const EVICTED: Events = Events(1 << 9);
    /// `t`.
    pub const STREAM: Events = Events(1 << 10);
    /// `m`, not part of `A`.
    pub const KEY_MISS: Events = Events(1 << 11);
    /// `d`.
    pub const MODULE: Events = Events(1 << 13);
    /// `n`, not part of `A`.
    pub const NEW: Events = Events(1 << 14);
    /// `A`: the classes that it stands for.
    pub const ALL: Events = Events(0b10_0111_1111_1100);

    const LETTERS: [(u8, Events); 15] = [
        (b'A', Events::ALL),
        (b'g', Events::GENERIC),
        (b'$', Events::STRING),
        (b'l', Events::LIST),
        (b's', Events::SET),
        (b'h', Events::HASH),
        (b'z', Events::ZSET),
        (b'x', Events::EXPIRED),
        (b'e', Events::EVICTED),
        (b't', Events::STREAM),
        (b'd', Events::MODULE),
        (b'K', Events::KEYSPACE),
        (b'E', Events::KEYEVENT),
        (b'm', Events::KEY_MISS),
        (b'n', Events::NEW),
    ];

    /// The classes that the directive's text names, or `None` if a letter means nothing.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Events> {
        text.iter().try_fold(Events(0), |all, letter| {
            let (_, class) = Events::LETTERS.iter().find(|(l, _)| l == letter)?;
            Some(Events(all.0 | class.0))
        })
    }

    /// The directive's text, as CONFIG GET shows it.
    #[must_use]
    pub fn text(self) -> String {
        let whole = self.0 & Events::ALL.0 == Events::ALL.0;
        Events::LETTERS
            .iter()
            .filter(|(letter, class)| {
                let in_all = class.0 & Events::ALL.0 != 0;
                if *letter == b'A' { whole } else { self.0 & class.0 != 0 && !(whole && in_all) }
            })
            .map(|(letter, _)| char::from(*letter))
            .collect()
    }
}

/// Bytes of a reply that names members again and again (SRANDMEMBER with a negative count), at most.
pub const MAX_REPLY: u64 = 64 << 20;

/// Settings that data commands read. The server's configuration writes them.
#[derive(Debug)]
pub struct Settings {
    /// Number of databases.
    pub databases: u32,
    /// Bits of [`Events`].
    pub notify: AtomicU64,
    /// `proto-max-bulk-len`, bytes.
    pub max_bulk: AtomicU64,
    /// Bytes of a reply whose length is not bounded by the data: at most [`MAX_REPLY`], less if `client-output-buffer-limit` says so.
    pub max_reply: AtomicU64,
    /// `lua-time-limit`, ms.
    pub script_limit: AtomicU64,
    /// `hash-max-listpack-entries`: by these, small collections are held whole in their key's row, and OBJECT ENCODING answers.
    pub hash_max_entries: AtomicU64,
    /// `hash-max-listpack-value`.
    pub hash_max_value: AtomicU64,
    /// `set-max-intset-entries`.
    pub set_max_intset: AtomicU64,
    /// `set-max-listpack-entries`.
    pub set_max_entries: AtomicU64,
    /// `set-max-listpack-value`.
    pub set_max_value: AtomicU64,
    /// `zset-max-listpack-entries`.
    pub zset_max_entries: AtomicU64,
    /// `zset-max-listpack-value`.
    pub zset_max_value: AtomicU64,
    /// `hll-sparse-max-bytes`: the longest sparse HyperLogLog.
    pub hll_sparse_max: AtomicU64,
    /// `list-max-listpack-size`.
    pub list_max_size: AtomicI64,
    /// Whether expired keys are deleted in the background (DEBUG SET-ACTIVE-EXPIRE).
    pub active_expire: AtomicBool,
}

impl Settings {
    /// Up to what size collections are held in their key's row.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let get = |setting: &AtomicU64| setting.load(Ordering::Relaxed);
        Limits {
            hash: Limit::new(get(&self.hash_max_entries), get(&self.hash_max_value)),
            set: Limit::new(get(&self.set_max_entries), get(&self.set_max_value)),
            integers: Limits::integers(get(&self.set_max_intset)),
            list: Limit::of_list(self.list_max_size.load(Ordering::Relaxed)),
            zset: Limit::new(get(&self.zset_max_entries), get(&self.zset_max_value)),
        }
    }
}

/// The state of the server that decides whether a command is refused.
#[derive(Debug, Default)]
pub struct Gates {
    /// A password is needed.
    pub needs_auth: AtomicBool,
    /// This is a replica, and clients may not write (`replica-read-only`).
    pub read_only: AtomicBool,
    /// This is a replica.
    pub is_replica: AtomicBool,
    /// Data are being loaded: only LOADING commands run.
    pub loading: AtomicBool,
    /// The link to the master is down and stale data must not be served.
    pub stale: AtomicBool,
    /// `min-replicas-to-write` is not met.
    pub too_few_replicas: AtomicBool,
    /// Writes are held up (CLIENT PAUSE, FAILOVER): nothing may enter the log, not even the DEL of a key that a read finds expired.
    pub log_rests: AtomicBool,
    /// A script has been running for longer than its limit.
    pub busy_script: AtomicBool,
    /// The running script was asked to stop.
    pub kill_script: AtomicBool,
    /// The server ends and waits for scripts no longer: the one that runs stops, and whoever ran it commits nothing of its transaction.
    pub abandon_script: AtomicBool,
}

/// Counters for INFO.
#[derive(Debug, Default)]
pub struct Stats {
    /// Commands executed.
    pub commands: Counter,
    /// Reads that found their key.
    pub hits: Counter,
    /// Reads that did not.
    pub misses: Counter,
    /// Keys deleted because their time had come.
    pub expired: Counter,
    /// Replies that were errors.
    pub errors: Counter,
}

/// One client that waits for keys, in the order of arrival.
#[derive(Clone)]
pub struct Waiter {
    /// The client.
    pub client: u64,
    /// Where the server finds it again.
    pub mailbox: Arc<dyn Mailbox>,
    /// Arrival order among all waiters.
    pub ticket: u64,
}

/// A database and a key.
pub type DbKey = (u32, Vec<u8>);

/// Keys that changed and have clients waiting: each once, in the order of their first change.
#[derive(Default)]
struct Ready {
    order: Vec<DbKey>,
    known: HashSet<DbKey>,
}

impl Ready {
    fn add(&mut self, place: &DbKey) {
        if self.known.insert(place.clone()) {
            self.order.push(place.clone());
        }
    }

    fn take(&mut self) -> Vec<DbKey> {
        self.known.clear();
        std::mem::take(&mut self.order)
    }
}

/// A subscriber of a channel or pattern.
#[derive(Clone)]
struct Subscriber {
    client: u64,
    protocol: Protocol,
    mailbox: Arc<dyn Mailbox>,
}

/// Channels, patterns, and who listens. A message costs one formatting a protocol and one delivery a listener.
#[derive(Default)]
pub struct Hub {
    channels: Mutex<HashMap<Vec<u8>, Vec<Subscriber>>>,
    patterns: Mutex<Vec<(Vec<u8>, Vec<Subscriber>)>>,
    shards: Mutex<HashMap<Vec<u8>, Vec<Subscriber>>>,
    listeners: AtomicUsize,
}

/// Which registry of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

fn message(protocol: Protocol, kind: &str, parts: &[&[u8]]) -> Arc<[u8]> {
    let mut reply = ardb_resp::Reply::new(protocol);
    reply.push(parts.len() + 1);
    reply.bulk(kind.as_bytes());
    for part in parts {
        reply.bulk(part);
    }
    Arc::from(reply.bytes())
}

fn send(to: &[Subscriber], kind: &str, parts: &[&[u8]]) -> usize {
    let mut spelled: [Option<Arc<[u8]>>; 2] = [None, None];
    for subscriber in to {
        let index = usize::from(subscriber.protocol == Protocol::Resp3);
        let bytes = spelled[index].get_or_insert_with(|| message(subscriber.protocol, kind, parts));
        subscriber.mailbox.deliver(subscriber.client, bytes.clone());
    }
    to.len()
}

impl Hub {
    /// Adds a listener. The session keeps its own list of what it listens to.
    pub fn subscribe(&self, kind: Kind, name: &[u8], client: u64, protocol: Protocol, mailbox: &Arc<dyn Mailbox>) {
        let subscriber = Subscriber { client, protocol, mailbox: mailbox.clone() };
        self.listeners.fetch_add(1, Ordering::SeqCst);
        match kind {
            Kind::Channel => self.channels.lock().entry(name.to_vec()).or_default().push(subscriber),
            Kind::Shard => self.shards.lock().entry(name.to_vec()).or_default().push(subscriber),
            Kind::Pattern => {
                let mut patterns = self.patterns.lock();
                match patterns.iter_mut().find(|(pattern, _)| pattern == name) {
                    Some((_, list)) => list.push(subscriber),
                    None => patterns.push((name.to_vec(), vec![subscriber])),
                }
            }
        }
    }

    /// Removes a listener, if it is there.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], client: u64) {
        let remove = |list: &mut Vec<Subscriber>| {
            let before = list.len();
            list.retain(|s| s.client != client);
            self.listeners.fetch_sub(before - list.len(), Ordering::SeqCst);
            list.is_empty()
        };
        let from_map = |map: &Mutex<HashMap<Vec<u8>, Vec<Subscriber>>>| {
            let mut map = map.lock();
            if map.get_mut(name).is_some_and(remove) {
                map.remove(name);
            }
        };
        match kind {
            Kind::Channel => from_map(&self.channels),
            Kind::Shard => from_map(&self.shards),
            Kind::Pattern => {
                let mut patterns = self.patterns.lock();
                if let Some(index) = patterns.iter().position(|(pattern, _)| pattern == name)
                    && remove(&mut patterns[index].1)
                {
                    patterns.remove(index);
                }
            }
        }
    }

    /// Sends a message to all who listen to the channel, directly or by pattern; how many those were.
    pub fn publish(&self, channel: &[u8], text: &[u8]) -> usize {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        let direct = self.channels.lock().get(channel).cloned().unwrap_or_default();
        let mut receivers = send(&direct, "message", &[channel, text]);
        let matching: Vec<_> = self
            .patterns
            .lock()
            .iter()
            .filter(|(p, _)| ardb_base::glob::matches(p, channel, ardb_base::glob::Case::Sensitive))
            .cloned()
            .collect();
        for (pattern, listeners) in matching {
            receivers += send(&listeners, "pmessage", &[&pattern, channel, text]);
        }
        receivers
    }

    /// Sends a message to all who listen to the shard channel; how many those were.
    pub fn publish_shard(&self, channel: &[u8], text: &[u8]) -> usize {
        let direct = self.shards.lock().get(channel).cloned().unwrap_or_default();
        send(&direct, "smessage", &[channel, text])
    }

    /// The channels (or shard channels) that have listeners, with how many.
    #[must_use]
    pub fn channels(&self, kind: Kind) -> Vec<(Vec<u8>, usize)> {
        let map = if kind == Kind::Shard { &self.shards } else { &self.channels };
        map.lock().iter().map(|(name, list)| (name.clone(), list.len())).collect()
    }

    /// How many different patterns have listeners.
    #[must_use]
    pub fn pattern_count(&self) -> usize {
        self.patterns.lock().len()
    }
}

/// All that is shared.
pub struct Shared {
    /// The commands.
    pub table: Table,
    /// Settings.
    pub settings: Settings,
    /// What is refused now.
    pub gates: Gates,
    /// Counters.
    pub stats: Stats,
    /// Publish and subscribe.
    pub hub: Hub,
    /// Randomness for commands that ask for it.
    pub random: Mutex<Random>,
    /// Scripts (see `cmd::script`).
    pub scripts: crate::cmd::script::Scripts,
    /// A clock that only goes forward, ms; scripts are limited by it. The server sets its own; until then it stands still.
    pub clock: fn() -> u64,
    /// Called in the middle of a script, by its thread, when it turns out to be over its limit. The server lets another thread serve that thread's clients.
    pub script_is_busy: fn(),
    /// When keys were last used.
    pub accesses: crate::access::Accesses,
    /// Whether `maxmemory-policy` names an LFU policy: OBJECT then shows FREQ instead of IDLETIME.
    pub lfu: AtomicBool,
    /// Members drawn for SPOP.
    pub pops: crate::pops::Pops,
    watches: Mutex<HashMap<DbKey, Vec<Arc<AtomicBool>>>>,
    watch_count: AtomicUsize,
    waiters: Mutex<HashMap<DbKey, VecDeque<Waiter>>>,
    waiter_count: AtomicUsize,
    tickets: AtomicU64,
    ready: Mutex<Ready>,
}

impl Shared {
    /// A fresh one.
    #[must_use]
    pub fn new(table: Table, databases: u32, seed: u64) -> Shared {
        Shared {
            table,
            settings: Settings {
                databases,
                notify: AtomicU64::new(0),
                max_bulk: AtomicU64::new(512 << 20),
                max_reply: AtomicU64::new(MAX_REPLY),
                script_limit: AtomicU64::new(5000),
                hash_max_entries: AtomicU64::new(512),
                hash_max_value: AtomicU64::new(64),
                set_max_intset: AtomicU64::new(512),
                set_max_entries: AtomicU64::new(128),
                set_max_value: AtomicU64::new(64),
                zset_max_entries: AtomicU64::new(128),
                zset_max_value: AtomicU64::new(64),
                hll_sparse_max: AtomicU64::new(3000),
                list_max_size: AtomicI64::new(-2),
                active_expire: AtomicBool::new(true),
            },
            gates: Gates::default(),
            stats: Stats::default(),
            hub: Hub::default(),
            random: Mutex::new(Random::new(seed)),
            scripts: crate::cmd::script::Scripts::default(),
            clock: || 0,
            script_is_busy: || {},
            accesses: crate::access::Accesses::default(),
            lfu: AtomicBool::new(false),
            pops: crate::pops::Pops::default(),
            watches: Mutex::new(HashMap::new()),
            watch_count: AtomicUsize::new(0),
            waiters: Mutex::new(HashMap::new()),
            waiter_count: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
            ready: Mutex::new(Ready::default()),
        }
    }

    /// Raises `flag` when the key changes. Called under the writer lock.
    pub fn watch(&self, db: u32, key: &[u8], flag: &Arc<AtomicBool>) {
        self.watches.lock().entry((db, key.to_vec())).or_default().push(flag.clone());
        self.watch_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Forgets a watch.
    pub fn unwatch(&self, db: u32, key: &[u8], flag: &Arc<AtomicBool>) {
        let mut watches = self.watches.lock();
        let place = (db, key.to_vec());
        if let Some(flags) = watches.get_mut(&place) {
            let before = flags.len();
            flags.retain(|f| !Arc::ptr_eq(f, flag));
            self.watch_count.fetch_sub(before - flags.len(), Ordering::SeqCst);
            if flags.is_empty() {
                watches.remove(&place);
            }
        }
    }

    /// A key changed: watches fail, and clients that wait for it will be looked at. Costs two atomic loads if there are none.
    pub fn key_modified(&self, db: u32, key: &[u8]) {
        if self.watch_count.load(Ordering::SeqCst) > 0
            && let Some(flags) = self.watches.lock().get(&(db, key.to_vec()))
        {
            flags.iter().for_each(|flag| flag.store(true, Ordering::SeqCst));
        }
        if self.waiter_count.load(Ordering::SeqCst) > 0 {
            let place = (db, key.to_vec());
            if self.waiters.lock().contains_key(&place) {
                self.ready.lock().add(&place);
            }
        }
    }

    /// All keys of a database changed (FLUSHDB, SWAPDB): watches on keys for which `affected` says so fail, and all its waiting clients will be looked at.
    pub fn db_modified(&self, db: u32, affected: &mut dyn FnMut(&[u8]) -> bool) {
        if self.watch_count.load(Ordering::SeqCst) > 0 {
            for ((_, key), flags) in self.watches.lock().iter().filter(|((d, _), _)| *d == db) {
                if affected(key) {
                    flags.iter().for_each(|flag| flag.store(true, Ordering::SeqCst));
                }
            }
        }
        if self.waiter_count.load(Ordering::SeqCst) > 0 {
            let waiters = self.waiters.lock();
            let mut ready = self.ready.lock();
            waiters.keys().filter(|(d, _)| *d == db).for_each(|place| ready.add(place));
        }
    }

    /// Lets a client wait for keys of a database. Called under the writer lock. A `ticket` from an earlier wait keeps its place in the line.
    pub fn wait_for(
        &self,
        db: u32,
        keys: &[Vec<u8>],
        client: u64,
        mailbox: &Arc<dyn Mailbox>,
        ticket: Option<u64>,
    ) -> u64 {
        let ticket = ticket.unwrap_or_else(|| self.tickets.fetch_add(1, Ordering::SeqCst));
        let mut waiters = self.waiters.lock();
        for key in keys {
            let line = waiters.entry((db, key.clone())).or_default();
            let place = line.partition_point(|w| w.ticket < ticket);
            if line.get(place).is_some_and(|w| w.ticket == ticket) {
                // It named the key twice.
                continue;
            }
            line.insert(place, Waiter { client, mailbox: mailbox.clone(), ticket });
            self.waiter_count.fetch_add(1, Ordering::SeqCst);
        }
        ticket
    }

    /// The client with this ticket no longer waits for these keys.
    pub fn stop_waiting(&self, db: u32, keys: &[Vec<u8>], ticket: u64) {
        let mut waiters = self.waiters.lock();
        for key in keys {
            let place = (db, key.clone());
            if let Some(line) = waiters.get_mut(&place) {
                let at = line.partition_point(|w| w.ticket < ticket);
                if line.get(at).is_some_and(|w| w.ticket == ticket) {
                    line.remove(at);
                    self.waiter_count.fetch_sub(1, Ordering::SeqCst);
                }
                if line.is_empty() {
                    waiters.remove(&place);
                }
            }
        }
    }

    /// Keys that changed and have clients waiting, in the order of their change; the list is then empty.
    #[must_use]
    pub fn take_ready(&self) -> Vec<DbKey> {
        if self.waiter_count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.ready.lock().take()
    }

    /// Who waits for a key longest, of those that came after the one with the ticket `after`.
    #[must_use]
    pub fn next_waiter(&self, place: &DbKey, after: Option<u64>) -> Option<Waiter> {
        let waiters = self.waiters.lock();
        let line = waiters.get(place)?;
        let at = after.map_or(0, |ticket| line.partition_point(|w| w.ticket <= ticket));
        line.get(at).cloned()
    }

    /// Publishes a keyspace event, if its class is wanted.
    pub fn notify(&self, class: Events, event: &str, db: u32, key: &[u8]) {
        let wanted = self.settings.notify.load(Ordering::Relaxed) as u32;
        if wanted & class.0 == 0 {
            return;
        }
        if wanted & Events::KEYSPACE.0 != 0 {
            let mut channel = format!("__keyspace@{db}__:").into_bytes();
            channel.extend_from_slice(key);
            self.hub.publish(&channel, event.as_bytes());
        }
        if wanted & Events::KEYEVENT.0 != 0 {
            let channel = format!("__keyevent@{db}__:{event}");
            self.hub.publish(channel.as_bytes(), key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_found_by_their_place_in_the_line() {
        let shared = Shared::new(Table::new(crate::cmd::GROUPS), 1, 1);
        let mailbox: Arc<dyn Mailbox> = Arc::new(NoMailbox);
        let key = |n: u32| format!("key:{n}").into_bytes();
        let wait = |client, keys: &[Vec<u8>], ticket| shared.wait_for(0, keys, client, &mailbox, ticket);
        let line = |n: u32| {
            let (mut clients, mut after) = (Vec::new(), None);
            while let Some(waiter) = shared.next_waiter(&(0, key(n)), after) {
                after = Some(waiter.ticket);
                clients.push(waiter.client);
            }
            clients
        };
        let first = wait(1, &[key(1), key(2), key(1)], None);
        let second = wait(2, &[key(2)], None);
        wait(3, &[key(2)], None);
        assert_eq!((line(1), line(2)), (vec![1], vec![1, 2, 3]));
        shared.stop_waiting(0, &[key(2)], second);
        shared.stop_waiting(0, &[key(1), key(2), key(1)], first);
        assert_eq!((line(1), line(2)), (vec![], vec![3]));
        wait(1, &[key(2)], Some(first));
        assert_eq!(line(2), [1, 3], "an old ticket keeps its place");
        shared.key_modified(0, &key(2));
        shared.key_modified(0, &key(1));
        shared.db_modified(0, &mut |_| true);
        assert_eq!(shared.take_ready(), [(0, key(2))], "each once, and only where somebody waits");
        shared.key_modified(0, &key(2));
        assert_eq!(shared.take_ready().len(), 1, "after it was taken it may be ready again");
        shared.stop_waiting(0, &[key(2)], first);
    }
}
