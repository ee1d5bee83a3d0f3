//! The one table of directives. Parsing, CONFIG GET and SET, CONFIG REWRITE and the reference page all read it.

use super::inert::INERT;
use super::value::{self, Kind};

/// When a directive can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By CONFIG SET.
    Runtime,
    /// Only at the start.
    Start,
}

/// One directive.
#[derive(Debug)]
pub struct Directive {
    /// Its name.
    pub name: &'static str,
    /// An older name, or an empty text.
    pub alias: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The canonical text of its default.
    pub default: &'static str,
    /// When it can change.
    pub change: Change,
    /// One line of help; for a directive without a meaning here: why.
    pub help: &'static str,
    /// Whether it has a meaning here.
    pub used: bool,
}

impl Directive {
    const fn new(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Directive {
        Directive { name, alias: "", kind, default, change: Change::Runtime, help, used: true }
    }

    /// A directive of Redis 7 that is accepted but has no meaning here.
    pub(super) const fn inert(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Directive {
        let mut directive = Directive::new(name, kind, default, help);
        directive.used = false;
        directive
    }

    pub(super) const fn alias(mut self, alias: &'static str) -> Directive {
        self.alias = alias;
        self
    }

    pub(super) const fn at_start(mut self) -> Directive {
        self.change = Change::Start;
        self
    }
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const BYTES: u64 = i64::MAX as u64;

/// The sections in the order of the reference page, each with its directives.
pub const SECTIONS: &[(&str, &[Directive])] = &[
    ("Network", NETWORK),
    ("Data and durability", DATA),
    ("Clients", CLIENTS),
    ("Replication", REPLICATION),
    ("Encodings that OBJECT ENCODING reports", ENCODINGS),
    ("Server", SERVER),
    ("Accepted without effect", INERT),
];

const NETWORK: &[Directive] = &[
    Directive::new(
        "bind",
        Kind::Words(value::bind),
        "127.0.0.1 -::1",
        "Addresses to listen on; a leading - lets one be missing, * is all.",
    )
    .at_start(),
    Directive::new("port", Kind::Int(0, 65535), "6379", "TCP port; 0 listens on no TCP port.").at_start(),
    Directive::new("unixsocket", Kind::Text, "", "Path of a Unix socket to listen on too.").at_start(),
    Directive::new(
        "unixsocketperm",
        Kind::Octal(0o777),
        "0",
        "Permissions of the Unix socket; 0 leaves them to the umask.",
    )
    .at_start(),
    Directive::new("protected-mode", Kind::Bool, "yes", "Refuse clients from other machines while no password is set."),
    Directive::new("tcp-backlog", Kind::Int(0, INT), "511", "Connections that may wait to be accepted.").at_start(),
    Directive::new(
        "tcp-keepalive",
        Kind::Int(0, INT),
        "300",
        "Seconds after which the kernel probes a silent client; 0 never.",
    ),
    Directive::new(
        "io-threads",
        Kind::Int(0, 128),
        "0",
        "Network threads, each with its own connections. 0 is as many as serve the load best at each time, at most one for each core and four.",
    )
    .at_start(),
    Directive::new(
        "cold-read-microseconds",
        Kind::Int(0, INT),
        "25",
        "A row for which the engine takes at least so long came from the disk; when several do, cold-read-threads do such work.",
    )
    .at_start(),
    Directive::new(
        "cold-read-threads",
        Kind::Int(1, 1024),
        "64",
        "Threads that read rows from the disk while network threads and the link to the master go on; started when needed. Past the page cache a few of them do, as each reads many rows at once.",
    )
    .at_start(),
];

const DATA: &[Directive] = &[
    Directive::new("dir", Kind::Text, "./", "Directory of the data and of RDB files.").at_start(),
    Directive::new("data-dir", Kind::Text, "data", "Directory of log and engine, relative to dir.").at_start(),
    Directive::new(
        "storage-engine",
        Kind::Choice(&["rocksdb", "memory"]),
        "rocksdb",
        "Storage engine. memory keeps rows in memory only, for tests.",
    )
    .at_start(),
    Directive::new(
        "memory-limit",
        Kind::Memory(16 << 20, BYTES),
        "1073741824",
        "Memory that rows not yet checkpointed, the row cache and the engine's cache share.",
    )
    .at_start(),
    Directive::new(
        "direct-reads",
        Kind::Choice(&["auto", "yes", "no"]),
        "auto",
        "Read the engine's files past the system's page cache, in small pieces: for data much larger than the machine's memory. auto looks at both at the start.",
    )
    .at_start(),
    Directive::new(
        "disable-thp",
        Kind::Bool,
        "yes",
        "Have no memory in huge pages, each of which the system must clear first, which can take milliseconds. no: what is in memory is found up to a tenth faster.",
    )
    .at_start(),
    Directive::new("databases", Kind::Int(1, 1 << 20), "16", "Number of databases.").at_start(),
    Directive::new(
        "appendfsync",
        Kind::Choice(&["everysec", "always", "no"]),
        "everysec",
        "When the log is forced to disk: before each reply, once a second, or when the kernel likes.",
    ),
    Directive::new("log-segment-size", Kind::Memory(1 << 16, 1 << 32), "67108864", "Bytes of one log segment.")
        .at_start(),
    Directive::new(
        "log-truncate-damaged",
        Kind::Bool,
        "no",
        "Start with a log that is damaged in the middle: cut it there, and keep what is cut off in files that end in .damaged. no refuses to start.",
    )
    .at_start(),
    Directive::new(
        "checkpoint-period",
        Kind::Int(1, INT),
        "600",
        "Seconds after which changed rows go to the engine even if they are few.",
    ),
    Directive::new("dbfilename", Kind::FileName, "dump.rdb", "Name of the RDB file that SAVE and BGSAVE write."),
];

const CLIENTS: &[Directive] = &[
    Directive::new("maxclients", Kind::Int(1, u32::MAX as i64), "10000", "Connections at the same time."),
    Directive::new("timeout", Kind::Int(0, INT), "0", "Seconds after which an idle client is closed; 0 never."),
    Directive::new("requirepass", Kind::Text, "", "Password that AUTH asks for; empty asks for none."),
    Directive::new(
        "client-query-buffer-limit",
        Kind::Memory(1 << 20, BYTES),
        "1073741824",
        "Bytes that a client may send ahead of being served.",
    ),
    Directive::new(
        "client-output-buffer-limit",
        Kind::Words(value::output_limits),
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        "For each class of clients: bytes of replies at which it is closed at once, and after so many seconds.",
    ),
    Directive::new(
        "proto-max-bulk-len",
        Kind::Memory(1 << 20, BYTES),
        "536870912",
        "Longest argument and longest string value.",
    ),
    Directive::new("notify-keyspace-events", Kind::Words(value::events), "", "Classes of events that are published."),
    Directive::new(
        "busy-reply-threshold",
        Kind::Int(0, LONG),
        "5000",
        "Milliseconds after which a script lets other clients hear of it, and can be killed.",
    )
    .alias("lua-time-limit"),
    Directive::new(
        "slowlog-log-slower-than",
        Kind::Int(-1, LONG),
        "10000",
        "Microseconds from which a command enters the slow log; -1 none, 0 all.",
    ),
    Directive::new("slowlog-max-len", Kind::Int(0, LONG), "128", "Entries of the slow log."),
    Directive::new(
        "latency-monitor-threshold",
        Kind::Int(0, LONG),
        "0",
        "Milliseconds from which LATENCY remembers an event; 0 none.",
    ),
];

const REPLICATION: &[Directive] = &[
    Directive::new("replicaof", Kind::Words(value::replicaof), "", "Host and port of the master.")
        .alias("slaveof")
        .at_start(),
    Directive::new("masterauth", Kind::Text, "", "Password for the master."),
    Directive::new("masteruser", Kind::Text, "", "User name for the master, if it wants one."),
    Directive::new("replica-read-only", Kind::Bool, "yes", "Refuse writes of clients while this is a replica.")
        .alias("slave-read-only"),
    Directive::new("replica-serve-stale-data", Kind::Bool, "yes", "Serve reads while the link to the master is down.")
        .alias("slave-serve-stale-data"),
    Directive::new(
        "replica-priority",
        Kind::Int(0, INT),
        "100",
        "What Sentinel goes by when it promotes; 0 never this one.",
    )
    .alias("slave-priority"),
    Directive::new("replica-announced", Kind::Bool, "yes", "Whether Sentinel lists this replica."),
    Directive::new("replica-announce-ip", Kind::Text, "", "Address that a replica tells its master.")
        .alias("slave-announce-ip"),
    Directive::new(
        "replica-announce-port",
        Kind::Int(0, 65535),
        "0",
        "Port that a replica tells its master; 0 is the real one.",
    )
    .alias("slave-announce-port"),
    Directive::new("repl-timeout", Kind::Int(1, INT), "60", "Seconds of silence after which a link is given up."),
    Directive::new("repl-ping-replica-period", Kind::Int(1, INT), "10", "Seconds between a master's pings.")
        .alias("repl-ping-slave-period"),
    Directive::new(
        "repl-backlog-size",
        Kind::Memory(1, BYTES),
        "67108864",
        "Bytes of log kept for replicas that come back.",
    ),
    Directive::new(
        "repl-sync-log-limit",
        Kind::Memory(0, BYTES),
        "17179869184",
        "Bytes of log held at most for full syncs under way; one that needs more starts again. 0 is no limit.",
    ),
    Directive::new(
        "repl-diskless-sync",
        Kind::Bool,
        "yes",
        "Stream the RDB to replicas that can take it, without a file.",
    ),
    Directive::new(
        "rdb-key-save-delay",
        Kind::Int(0, INT),
        "0",
        "Microseconds of sleep after each key of an RDB that is written, for tests.",
    ),
    Directive::new(
        "repl-sync-resume-time",
        Kind::Int(0, INT),
        "60",
        "Seconds for which a full sync between two of these servers can go on where its link broke; 0 never.",
    ),
    Directive::new(
        "repl-sync-max-transfers",
        Kind::Int(1, INT),
        "16",
        "Full syncs between two of these servers that are sent, or held to go on, at a time; more replicas try again.",
    ),
    Directive::new("repl-disable-tcp-nodelay", Kind::Bool, "no", "Let the kernel gather bytes for replicas."),
    Directive::new("min-replicas-to-write", Kind::Int(0, INT), "0", "Refuse writes with fewer good replicas.")
        .alias("min-slaves-to-write"),
    Directive::new(
        "min-replicas-max-lag",
        Kind::Int(0, INT),
        "10",
        "Seconds of silence up to which a replica is good.",
    )
    .alias("min-slaves-max-lag"),
];

const ENCODINGS: &[Directive] = &[
    Directive::new(
        "hash-max-listpack-entries",
        Kind::Int(0, LONG),
        "512",
        "Fields up to which a hash is one row, a listpack.",
    )
    .alias("hash-max-ziplist-entries"),
    Directive::new("hash-max-listpack-value", Kind::Memory(0, BYTES), "64", "Bytes of its longest field or value.")
        .alias("hash-max-ziplist-value"),
    Directive::new(
        "set-max-intset-entries",
        Kind::Int(0, LONG),
        "512",
        "Members up to which a set of integers is one row, an intset.",
    ),
    Directive::new(
        "set-max-listpack-entries",
        Kind::Int(0, LONG),
        "128",
        "Members up to which another set is one row.",
    ),
    Directive::new("set-max-listpack-value", Kind::Memory(0, BYTES), "64", "Bytes of its longest member."),
    Directive::new(
        "zset-max-listpack-entries",
        Kind::Int(0, LONG),
        "128",
        "Members up to which a sorted set is one row, a listpack.",
    )
    .alias("zset-max-ziplist-entries"),
    Directive::new("zset-max-listpack-value", Kind::Memory(0, BYTES), "64", "Bytes of its longest member.")
        .alias("zset-max-ziplist-value"),
    Directive::new(
        "list-max-listpack-size",
        Kind::Int(i32::MIN as i64, INT),
        "-2",
        "Elements (or KiB: -1 is 4, -2 is 8) up to which a list is one row.",
    )
    .alias("list-max-ziplist-size"),
    Directive::new(
        "hll-sparse-max-bytes",
        Kind::Memory(0, BYTES),
        "3000",
        "Bytes up to which a HyperLogLog keeps its sparse form.",
    ),
];

const SERVER: &[Directive] = &[
    Directive::new("daemonize", Kind::Bool, "no", "Go into the background.").at_start(),
    Directive::new("pidfile", Kind::Text, "", "File that gets the process id.").at_start(),
    Directive::new("logfile", Kind::Text, "", "File for log lines; empty is the standard output.").at_start(),
    Directive::new(
        "loglevel",
        Kind::Choice(&["debug", "verbose", "notice", "warning"]),
        "notice",
        "Least important lines to log.",
    ),
    Directive::new("hz", Kind::Int(1, 500), "10", "Rounds of background work a second."),
    Directive::new(
        "active-expire-effort",
        Kind::Int(1, 10),
        "1",
        "How much of its time background work gives to expired keys.",
    ),
    Directive::new(
        "shutdown-timeout",
        Kind::Int(0, INT),
        "10",
        "Seconds that a shutdown waits for replicas to catch up, and for a script to end that is writing.",
    ),
    Directive::new("enable-debug-command", Kind::Choice(&["no", "yes", "local"]), "local", "Who may use DEBUG.")
        .at_start(),
];

/// All directives, used ones first.
pub fn all() -> impl Iterator<Item = &'static Directive> {
    SECTIONS.iter().flat_map(|(_, directives)| directives.iter())
}

/// The directive of this name or alias, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Directive> {
    all().find(|d| d.name.eq_ignore_ascii_case(name) || (!d.alias.is_empty() && d.alias.eq_ignore_ascii_case(name)))
}

/// The name nearest to a misspelled one.
#[must_use]
pub fn nearest(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    all()
        .flat_map(|d| [d.name, d.alias])
        .filter(|known| !known.is_empty())
        .min_by_key(|known| distance(known.as_bytes(), name.as_bytes()))
        .unwrap_or("")
}

/// Edit distance, over one row of the table.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let b = &b[..b.len().min(64)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_valid() {
        let mut names = std::collections::HashSet::new();
        for directive in all() {
            for name in [directive.name, directive.alias] {
                assert!(name.is_empty() || names.insert(name), "{name} stands twice");
            }
            let args: Vec<Vec<u8>> = match directive.kind {
                Kind::Words(_) if !directive.default.is_empty() => {
                    directive.default.split(' ').map(|w| w.as_bytes().to_vec()).collect()
                }
                _ => vec![directive.default.as_bytes().to_vec()],
            };
            if directive.default.is_empty() {
                continue;
            }
            let read = directive.kind.read(&args, directive.default.as_bytes());
            assert_eq!(read.as_deref(), Ok(directive.default.as_bytes()), "{}", directive.name);
            assert!(!directive.help.is_empty(), "{}", directive.name);
        }
    }

    #[test]
    fn misspelled_names_find_their_neighbour() {
        assert_eq!(nearest("prot"), "port");
        assert_eq!(nearest("maxclient"), "maxclients");
        assert_eq!(nearest("slave-readonly"), "slave-read-only");
    }
}
