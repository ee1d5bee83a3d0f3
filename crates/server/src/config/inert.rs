//! Directives of Redis 7 that have no meaning here. They are accepted, so that an existing redis.conf starts the server, and each that is
//! set says so with one line in the log; the help says why it has no effect.

use super::directives::Directive;
use super::value::{self, Kind};

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const BYTES: u64 = i64::MAX as u64;

const NO_AOF: &str = "the log is always written; there is no append-only file to configure";
const NO_FORK: &str = "snapshots are made without a fork";
const ON_DISK: &str = "data live on disk and nothing is evicted; see memory-limit";
const NO_CLUSTER: &str = "there is no cluster mode yet";
const NO_DEFRAG: &str = "memory is not defragmented by the server";
const LAZY: &str = "big values are always freed in the background";
const NO_TLS: &str = "there is no TLS yet";
const NO_ACL: &str = "there are no users besides the default one yet";
const NO_SYSLOG: &str = "log lines go to logfile or the standard output";
const OTHER: &str = "it concerns something that works differently here";
const NO_STREAMS: &str = "the type is not there yet";

/// The table.
pub const INERT: &[Directive] = &[
    Directive::inert(
        "save",
        Kind::Words(value::save),
        "",
        "every write is in the log already; SAVE and BGSAVE make an RDB when asked",
    ),
    Directive::inert("appendonly", Kind::Bool, "yes", NO_AOF),
    Directive::inert("appendfilename", Kind::FileName, "appendonly.aof", NO_AOF).at_start(),
    Directive::inert("appenddirname", Kind::FileName, "appendonlydir", NO_AOF).at_start(),
    Directive::inert("no-appendfsync-on-rewrite", Kind::Bool, "no", NO_AOF),
    Directive::inert("auto-aof-rewrite-percentage", Kind::Int(0, INT), "100", NO_AOF),
    Directive::inert("auto-aof-rewrite-min-size", Kind::Memory(0, BYTES), "67108864", NO_AOF),
    Directive::inert("aof-load-truncated", Kind::Bool, "yes", NO_AOF),
    Directive::inert("aof-use-rdb-preamble", Kind::Bool, "yes", NO_AOF),
    Directive::inert("aof-timestamp-enabled", Kind::Bool, "no", NO_AOF),
    Directive::inert("aof-rewrite-incremental-fsync", Kind::Bool, "yes", NO_AOF),
    Directive::inert("aof-disable-auto-gc", Kind::Bool, "no", NO_AOF),
    Directive::inert("rdb-save-incremental-fsync", Kind::Bool, "yes", OTHER),
    Directive::inert("rdbchecksum", Kind::Bool, "yes", "RDB files always have a checksum").at_start(),
    Directive::inert(
        "rdbcompression",
        Kind::Bool,
        "yes",
        "RDB files are written plain, so that every version loads them",
    ),
    Directive::inert("rdb-del-sync-files", Kind::Bool, "no", "a full sync leaves no files behind"),
    Directive::inert("key-load-delay", Kind::Int(i32::MIN as i64, INT), "0", "it is a test of Redis"),
    Directive::inert("loading-process-events-interval-bytes", Kind::Memory(1024, INT as u64), "2097152", OTHER),
    Directive::inert("stop-writes-on-bgsave-error", Kind::Bool, "yes", "an RDB is not what makes writes durable"),
    Directive::inert(
        "sanitize-dump-payload",
        Kind::Choice(&["no", "yes", "clients"]),
        "no",
        "payloads are always checked in full",
    ),
    Directive::inert("always-show-logo", Kind::Bool, "no", "there is no logo").at_start(),
    Directive::inert("set-proc-title", Kind::Bool, "yes", "the process keeps its title").at_start(),
    Directive::inert(
        "proc-title-template",
        Kind::Text,
        "{title} {listen-addr} {server-mode}",
        "the process keeps its title",
    ),
    Directive::inert(
        "supervised",
        Kind::Choice(&["upstart", "systemd", "auto", "no"]),
        "no",
        "the server does not talk to a supervisor",
    )
    .at_start(),
    Directive::inert("crash-log-enabled", Kind::Bool, "yes", "a crash always leaves a line in the log"),
    Directive::inert("crash-memcheck-enabled", Kind::Bool, "yes", OTHER),
    Directive::inert("use-exit-on-panic", Kind::Bool, "no", OTHER),
    Directive::inert("watchdog-period", Kind::Int(0, INT), "0", OTHER),
    Directive::inert("ignore-warnings", Kind::Text, "", OTHER),
    Directive::inert("oom-score-adj", Kind::Choice(&["no", "yes", "relative", "absolute"]), "no", NO_FORK),
    Directive::inert("oom-score-adj-values", Kind::Words(value::any_words), "0 200 800", NO_FORK),
    Directive::inert("server_cpulist", Kind::Text, "", "threads are not pinned; use taskset").at_start(),
    Directive::inert("bio_cpulist", Kind::Text, "", "threads are not pinned; use taskset").at_start(),
    Directive::inert("aof_rewrite_cpulist", Kind::Text, "", "threads are not pinned; use taskset").at_start(),
    Directive::inert("bgsave_cpulist", Kind::Text, "", "threads are not pinned; use taskset").at_start(),
    Directive::inert("jemalloc-bg-thread", Kind::Bool, "yes", NO_DEFRAG),
    Directive::inert("activedefrag", Kind::Bool, "no", NO_DEFRAG),
    Directive::inert("active-defrag-cycle-min", Kind::Int(1, 99), "1", NO_DEFRAG),
    Directive::inert("active-defrag-cycle-max", Kind::Int(1, 99), "25", NO_DEFRAG),
    Directive::inert("active-defrag-threshold-lower", Kind::Int(0, 1000), "10", NO_DEFRAG),
    Directive::inert("active-defrag-threshold-upper", Kind::Int(0, 1000), "100", NO_DEFRAG),
    Directive::inert("active-defrag-ignore-bytes", Kind::Memory(1, BYTES), "104857600", NO_DEFRAG),
    Directive::inert("active-defrag-max-scan-fields", Kind::Int(1, LONG), "1000", NO_DEFRAG),
    Directive::inert("activerehashing", Kind::Bool, "yes", OTHER),
    Directive::inert("dynamic-hz", Kind::Bool, "yes", OTHER),
    Directive::inert("io-threads-do-reads", Kind::Bool, "no", "network threads read, execute and write").at_start(),
    Directive::inert("lazyfree-lazy-eviction", Kind::Bool, "no", LAZY),
    Directive::inert("lazyfree-lazy-expire", Kind::Bool, "no", LAZY),
    Directive::inert("lazyfree-lazy-server-del", Kind::Bool, "no", LAZY),
    Directive::inert("lazyfree-lazy-user-del", Kind::Bool, "no", LAZY),
    Directive::inert("lazyfree-lazy-user-flush", Kind::Bool, "no", LAZY),
    Directive::inert("replica-lazy-flush", Kind::Bool, "no", LAZY).alias("slave-lazy-flush"),
    Directive::inert("maxmemory", Kind::Memory(0, u64::MAX), "0", ON_DISK),
    Directive::inert(
        "maxmemory-policy",
        Kind::Choice(&[
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "noeviction",
        ]),
        "noeviction",
        ON_DISK,
    ),
    Directive::inert("maxmemory-samples", Kind::Int(1, INT), "5", ON_DISK),
    Directive::inert("maxmemory-eviction-tenacity", Kind::Int(0, 100), "10", ON_DISK),
    Directive::inert(
        "maxmemory-clients",
        Kind::Text,
        "0",
        "see client-output-buffer-limit and client-query-buffer-limit",
    ),
    Directive::inert("replica-ignore-maxmemory", Kind::Bool, "yes", ON_DISK).alias("slave-ignore-maxmemory"),
    Directive::inert("replica-ignore-disk-write-errors", Kind::Bool, "no", "what cannot be logged is never applied"),
    Directive::inert("lfu-log-factor", Kind::Int(0, INT), "10", ON_DISK),
    Directive::inert("lfu-decay-time", Kind::Int(0, INT), "1", ON_DISK),
    Directive::inert(
        "repl-diskless-load",
        Kind::Choice(&["disabled", "on-empty-db", "swapdb"]),
        "disabled",
        "a full sync always builds a new generation beside the old one",
    ),
    Directive::inert(
        "repl-diskless-sync-delay",
        Kind::Int(0, INT),
        "5",
        "a dump costs no fork, and a replica that comes while one is written to a file shares it",
    ),
    Directive::inert("repl-diskless-sync-max-replicas", Kind::Int(0, INT), "0", OTHER),
    Directive::inert("repl-backlog-ttl", Kind::Int(0, LONG), "3600", "the backlog is the log on disk and is kept"),
    Directive::inert(
        "propagation-error-behavior",
        Kind::Choice(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
        OTHER,
    ),
    Directive::inert("list-compress-depth", Kind::Int(0, INT), "0", "the engine compresses"),
    Directive::inert("stream-node-max-entries", Kind::Int(0, LONG), "100", NO_STREAMS),
    Directive::inert("stream-node-max-bytes", Kind::Memory(0, BYTES), "4096", NO_STREAMS),
    Directive::inert("tracking-table-max-keys", Kind::Int(0, LONG), "1000000", "client side caching is not there yet"),
    Directive::inert("latency-tracking", Kind::Bool, "yes", "percentiles are not kept"),
    Directive::inert(
        "latency-tracking-info-percentiles",
        Kind::Words(value::any_words),
        "50 99 99.9",
        "percentiles are not kept",
    ),
    Directive::inert("acl-pubsub-default", Kind::Choice(&["allchannels", "resetchannels"]), "resetchannels", NO_ACL),
    Directive::inert("acllog-max-len", Kind::Int(0, LONG), "128", NO_ACL),
    Directive::inert(
        "enable-protected-configs",
        Kind::Choice(&["no", "yes", "local"]),
        "no",
        "dir and dbfilename are protected by who may connect",
    )
    .at_start(),
    Directive::inert("enable-module-command", Kind::Choice(&["no", "yes", "local"]), "no", "there are no modules")
        .at_start(),
    Directive::inert(
        "shutdown-on-sigint",
        Kind::Words(value::any_words),
        "default",
        "a signal always ends the server cleanly",
    ),
    Directive::inert(
        "shutdown-on-sigterm",
        Kind::Words(value::any_words),
        "default",
        "a signal always ends the server cleanly",
    ),
    Directive::inert("syslog-enabled", Kind::Bool, "no", NO_SYSLOG).at_start(),
    Directive::inert("syslog-ident", Kind::Text, "redis", NO_SYSLOG).at_start(),
    Directive::inert(
        "syslog-facility",
        Kind::Choice(&["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"]),
        "local0",
        NO_SYSLOG,
    )
    .at_start(),
    Directive::inert(
        "bind-source-addr",
        Kind::Text,
        "",
        "outgoing links leave from the address that the kernel chooses",
    ),
    Directive::inert("socket-mark-id", Kind::Int(0, u32::MAX as i64), "0", OTHER).at_start(),
    Directive::inert("cluster-enabled", Kind::Choice(&["no"]), "no", NO_CLUSTER).at_start(),
    Directive::inert("cluster-config-file", Kind::Text, "nodes.conf", NO_CLUSTER).at_start(),
    Directive::inert("cluster-port", Kind::Int(0, 65535), "0", NO_CLUSTER).at_start(),
    Directive::inert("cluster-node-timeout", Kind::Int(0, LONG), "15000", NO_CLUSTER),
    Directive::inert("cluster-replica-validity-factor", Kind::Int(0, INT), "10", NO_CLUSTER)
        .alias("cluster-slave-validity-factor"),
    Directive::inert("cluster-replica-no-failover", Kind::Bool, "no", NO_CLUSTER).alias("cluster-slave-no-failover"),
    Directive::inert("cluster-migration-barrier", Kind::Int(0, INT), "1", NO_CLUSTER),
    Directive::inert("cluster-allow-replica-migration", Kind::Bool, "yes", NO_CLUSTER),
    Directive::inert("cluster-require-full-coverage", Kind::Bool, "yes", NO_CLUSTER),
    Directive::inert("cluster-allow-reads-when-down", Kind::Bool, "no", NO_CLUSTER),
    Directive::inert("cluster-allow-pubsubshard-when-down", Kind::Bool, "yes", NO_CLUSTER),
    Directive::inert("cluster-link-sendbuf-limit", Kind::Memory(0, u64::MAX), "0", NO_CLUSTER),
    Directive::inert("cluster-announce-ip", Kind::Text, "", NO_CLUSTER),
    Directive::inert("cluster-announce-hostname", Kind::Text, "", NO_CLUSTER),
    Directive::inert("cluster-announce-port", Kind::Int(0, 65535), "0", NO_CLUSTER),
    Directive::inert("cluster-announce-tls-port", Kind::Int(0, 65535), "0", NO_CLUSTER),
    Directive::inert("cluster-announce-bus-port", Kind::Int(0, 65535), "0", NO_CLUSTER),
    Directive::inert(
        "cluster-preferred-endpoint-type",
        Kind::Choice(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
        NO_CLUSTER,
    ),
    Directive::inert("tls-port", Kind::Int(0, 0), "0", NO_TLS).at_start(),
    Directive::inert("tls-cluster", Kind::Bool, "no", NO_TLS).at_start(),
    Directive::inert("tls-replication", Kind::Choice(&["no"]), "no", NO_TLS).at_start(),
    Directive::inert("tls-auth-clients", Kind::Choice(&["no", "yes", "optional"]), "yes", NO_TLS).at_start(),
    Directive::inert("tls-cert-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-key-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-key-file-pass", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-client-cert-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-client-key-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-client-key-file-pass", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-dh-params-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-ca-cert-file", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-ca-cert-dir", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-protocols", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-ciphers", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-ciphersuites", Kind::Text, "", NO_TLS).at_start(),
    Directive::inert("tls-prefer-server-ciphers", Kind::Bool, "no", NO_TLS).at_start(),
    Directive::inert("tls-session-caching", Kind::Bool, "yes", NO_TLS).at_start(),
    Directive::inert("tls-session-cache-size", Kind::Int(0, INT), "20480", NO_TLS).at_start(),
    Directive::inert("tls-session-cache-timeout", Kind::Int(0, INT), "300", NO_TLS).at_start(),
    Directive::inert("lua-replicate-commands", Kind::Bool, "yes", "scripts are always replicated by their effects")
        .at_start(),
];
