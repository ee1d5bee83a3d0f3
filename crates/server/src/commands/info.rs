//! INFO, with Redis's sections and names for what exists here, and a section `storage` for what Redis does not have.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_commands::shared::Kind;
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdResult, Ctx, Outcome};
use ardb_engine::Rows;

use crate::clock;
use crate::server::{self, Server};

/// The version of Redis whose behaviour this server shows; clients decide by it what they may use.
pub const REDIS_VERSION: &str = "7.0.15";

/// The sections in their order; the first group is what INFO shows without arguments.
const DEFAULT: [&str; 10] =
    ["server", "clients", "memory", "persistence", "storage", "stats", "replication", "cpu", "cluster", "keyspace"];
const EXTRA: [&str; 2] = ["commandstats", "errorstats"];

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// `1.50M`.
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    for unit in ["K", "M", "G", "T"] {
        value /= 1024.0;
        if value < 1024.0 {
            return format!("{value:.2}{unit}");
        }
    }
    format!("{value:.2}P")
}

/// Bytes of memory that the process holds, and the most that it ever held.
#[must_use]
pub fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) * 1024, field("VmHWM:").unwrap_or(0) * 1024)
}

macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        let _ = write!($out, $($text)*);
        $out.push_str("\r\n");
    }};
}

fn server_section(server: &Server, out: &mut String) {
    let uname = rustix::system::uname();
    let now = clock::unix_us();
    let up = (now / 1000 - server.started).max(0) / 1000;
    let exe = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let file = server.config.file().map(|path| path.display().to_string()).unwrap_or_default();
    line!(out, "redis_version:{REDIS_VERSION}");
    line!(out, "ardb_version:{}", crate::VERSION);
    line!(out, "redis_mode:standalone");
    line!(
        out,
        "os:{} {} {}",
        uname.sysname().to_string_lossy(),
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy()
    );
    line!(out, "arch_bits:64");
    line!(out, "multiplexing_api:epoll");
    line!(out, "process_id:{}", std::process::id());
    line!(out, "process_supervised:no");
    line!(out, "run_id:{}", server.run_id);
    line!(out, "tcp_port:{}", load(&server.port));
    line!(out, "server_time_usec:{now}");
    line!(out, "uptime_in_seconds:{up}");
    line!(out, "uptime_in_days:{}", up / 86400);
    line!(out, "hz:{}", server.config.int("hz"));
    line!(out, "configured_hz:{}", server.config.int("hz"));
    line!(out, "executable:{exe}");
    line!(out, "config_file:{file}");
    line!(out, "io_threads_active:{}", i32::from(server.balance.active() > 1));
}

fn clients_section(server: &Server, out: &mut String) {
    let (mut input, mut output) = (0, 0);
    for client in server.clients.list() {
        let view = client.view.lock();
        input = input.max(view.input);
        output = output.max(view.output);
    }
    line!(out, "connected_clients:{}", server.clients.count());
    line!(out, "cluster_connections:0");
    line!(out, "maxclients:{}", server.config.int("maxclients"));
    line!(out, "client_recent_max_input_buffer:{input}");
    line!(out, "client_recent_max_output_buffer:{output}");
    line!(out, "blocked_clients:{}", server.parked.count());
    line!(out, "tracking_clients:0");
    line!(out, "clients_in_timeout_table:{}", server.parked.count());
}

fn memory_section(server: &Server, out: &mut String) {
    let (now, peak) = resident();
    let total = rustix::system::sysinfo();
    let total = total.totalram as u64 * u64::from(total.mem_unit);
    let stats = server.store.stats();
    line!(out, "used_memory:{now}");
    line!(out, "used_memory_human:{}", human(now));
    line!(out, "used_memory_rss:{now}");
    line!(out, "used_memory_rss_human:{}", human(now));
    line!(out, "used_memory_peak:{peak}");
    line!(out, "used_memory_peak_human:{}", human(peak));
    line!(out, "total_system_memory:{total}");
    line!(out, "total_system_memory_human:{}", human(total));
    line!(out, "used_memory_vm_eval:{}", server.shared.scripts.memory());
    line!(out, "number_of_cached_scripts:{}", server.shared.scripts.count());
    line!(out, "maxmemory:{}", server.config.size("maxmemory"));
    line!(out, "maxmemory_human:{}", human(server.config.size("maxmemory")));
    line!(out, "maxmemory_policy:{}", server.config.text("maxmemory-policy"));
    line!(out, "memory_limit:{}", server.config.size("memory-limit"));
    line!(out, "memory_changed_rows:{}", stats.active_bytes + stats.frozen_bytes);
    line!(out, "memory_row_cache:{}", stats.cache.bytes);
    line!(out, "memory_engine_cache:{}", stats.engine.cache_bytes);
    line!(out, "memory_engine_tables:{}", stats.engine.table_bytes);
    line!(out, "mem_fragmentation_ratio:1.00");
    // The log on disk is the backlog, and replicas are sent slices of it.
    line!(out, "mem_replication_backlog:0");
    line!(out, "mem_total_replication_buffers:0");
    line!(out, "mem_clients_slaves:0");
    line!(out, "mem_allocator:system");
    line!(out, "active_defrag_running:0");
    line!(out, "lazyfree_pending_objects:{}", stats.garbage);
}

fn persistence_section(server: &Server, out: &mut String) {
    let saving = server.saving.load(Ordering::Relaxed) || server.replication.dumping.load(Ordering::Relaxed) > 0;
    line!(out, "loading:{}", u8::from(server.shared.gates.loading.load(Ordering::Relaxed)));
    // A full sync is loaded beside the old data, which are served meanwhile.
    line!(out, "async_loading:{}", u8::from(server.replication.receives_everything()));
    line!(out, "rdb_changes_since_last_save:{}", server.stats.changes.get());
    line!(out, "rdb_bgsave_in_progress:{}", u8::from(saving));
    line!(out, "rdb_last_save_time:{}", server.last_save.load(Ordering::Relaxed));
    let status = if server.save_failed.load(Ordering::Relaxed) { "err" } else { "ok" };
    line!(out, "rdb_last_bgsave_status:{status}");
    line!(out, "rdb_last_bgsave_time_sec:{}", server.last_save_took.load(Ordering::Relaxed));
    line!(out, "rdb_current_bgsave_time_sec:-1");
    line!(out, "aof_enabled:0");
    line!(out, "aof_rewrite_in_progress:0");
    line!(out, "aof_rewrite_scheduled:0");
    line!(out, "aof_last_rewrite_time_sec:-1");
    line!(out, "aof_current_rewrite_time_sec:-1");
    line!(out, "aof_last_bgrewrite_status:ok");
    line!(out, "aof_last_write_status:ok");
}

fn storage_section(server: &Server, out: &mut String) {
    let stats = server.store.stats();
    line!(out, "engine:{}", stats.engine_name);
    line!(out, "generation:{}", stats.generation);
    line!(out, "engine_disk_bytes:{}", stats.engine.disk_bytes);
    line!(out, "engine_pending_compaction_bytes:{}", stats.engine.pending_compaction_bytes);
    if let Some(log) = &stats.log {
        line!(out, "log_start:{}", log.start);
        line!(out, "log_end:{}", log.end);
        line!(out, "log_synced:{}", log.synced);
        line!(out, "log_segments:{}", log.segments);
        line!(out, "log_disk_bytes:{}", log.disk_bytes);
        line!(out, "log_pins:{}", log.pins);
        line!(out, "log_status:{}", log.failed.as_deref().unwrap_or("ok"));
    }
    line!(out, "checkpoint_offset:{}", stats.checkpoint_offset);
    line!(out, "checkpoints:{}", stats.checkpoints);
    line!(out, "checkpoints_failed:{}", stats.failed_checkpoints);
    line!(out, "checkpoint_last_ms:{}", stats.last_checkpoint_ms);
    line!(out, "checkpoint_last_rows:{}", stats.last_checkpoint_rows);
    line!(out, "checkpoint_status:{}", stats.checkpoint_failure.as_deref().unwrap_or("ok"));
    line!(out, "changed_rows:{}", stats.active_rows + stats.frozen_rows);
    line!(out, "changed_bytes:{}", stats.active_bytes + stats.frozen_bytes);
    line!(out, "row_cache_bytes:{}", stats.cache.bytes);
    line!(out, "writer_delays:{}", stats.delays);
    for (name, value) in &stats.engine.details {
        line!(out, "engine_{name}:{value}");
    }
}

fn stats_section(server: &Server, out: &mut String) {
    let (stats, shared) = (&server.stats, &server.shared);
    let [ops, input, output] = [0, 1, 2].map(|i| load(&stats.rates[i]));
    line!(out, "total_connections_received:{}", load(&stats.connections));
    line!(out, "total_commands_processed:{}", shared.stats.commands.get());
    line!(out, "instantaneous_ops_per_sec:{ops}");
    line!(out, "total_net_input_bytes:{}", stats.input.get());
    line!(out, "total_net_output_bytes:{}", stats.output.get());
    line!(out, "instantaneous_input_kbps:{:.2}", input as f64 / 1024.0);
    line!(out, "instantaneous_output_kbps:{:.2}", output as f64 / 1024.0);
    line!(out, "rejected_connections:{}", load(&stats.rejected));
    server.replication.stats(out);
    line!(out, "expired_keys:{}", shared.stats.expired.get());
    line!(out, "evicted_keys:0");
    line!(out, "evicted_clients:0");
    line!(out, "keyspace_hits:{}", shared.stats.hits.get());
    line!(out, "keyspace_misses:{}", shared.stats.misses.get());
    line!(out, "pubsub_channels:{}", shared.hub.channels(Kind::Channel).len());
    line!(out, "pubsub_patterns:{}", shared.hub.pattern_count());
    line!(out, "pubsubshard_channels:{}", shared.hub.channels(Kind::Shard).len());
    line!(out, "latest_fork_usec:0");
    line!(out, "total_forks:0");
    line!(out, "total_error_replies:{}", shared.stats.errors.get());
    line!(out, "total_reads_processed:{}", stats.reads.get());
    line!(out, "total_writes_processed:{}", stats.writes.get());
    line!(out, "total_commits:{}", stats.commits.get());
    line!(out, "cold_read_threads:{}", server.cold.threads());
    line!(out, "client_query_buffer_limit_disconnections:{}", load(&stats.input_kills));
    line!(out, "client_output_buffer_limit_disconnections:{}", load(&stats.output_kills));
}

fn cpu_section(out: &mut String) {
    // Clock ticks since the start: user and system time, then those of children, after the name in parentheses.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let seconds = |i: usize| fields.get(i).copied().unwrap_or(0) as f64 / ticks as f64;
    line!(out, "used_cpu_sys:{:.6}", seconds(12));
    line!(out, "used_cpu_user:{:.6}", seconds(11));
    line!(out, "used_cpu_sys_children:{:.6}", seconds(14));
    line!(out, "used_cpu_user_children:{:.6}", seconds(13));
}

fn keyspace_section(ctx: &Ctx<'_>, out: &mut String) {
    for db in 0..ctx.shared.settings.databases {
        let keys = ctx.rows.key_count(db);
        if keys > 0 {
            line!(out, "db{db}:keys={keys},expires={},avg_ttl=0", ctx.rows.expiry_count(db));
        }
    }
}

fn section(ctx: &Ctx<'_>, name: &str, out: &mut String) {
    let server = server::of(ctx.host);
    let title = match name {
        "cpu" => "CPU".to_string(),
        _ => name[..1].to_uppercase() + &name[1..],
    };
    if !out.is_empty() {
        out.push_str("\r\n");
    }
    line!(out, "# {title}");
    match name {
        "server" => server_section(server, out),
        "clients" => clients_section(server, out),
        "memory" => memory_section(server, out),
        "persistence" => persistence_section(server, out),
        "storage" => storage_section(server, out),
        "stats" => stats_section(server, out),
        "replication" => server.replication.info(server, out),
        "cpu" => cpu_section(out),
        "commandstats" => server.calls.commands(out),
        "errorstats" => server.calls.errors(out),
        "cluster" => line!(out, "cluster_enabled:0"),
        "keyspace" => keyspace_section(ctx, out),
        _ => {}
    }
}

fn info(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let mut wanted: Vec<&str> = Vec::new();
    let mut add = |names: &[&'static str]| {
        for name in names {
            if !wanted.contains(name) {
                wanted.push(name);
            }
        }
    };
    if args.len() == 1 {
        add(&DEFAULT);
    }
    for arg in &args[1..] {
        match arg.to_ascii_lowercase().as_slice() {
            b"default" => add(&DEFAULT),
            b"all" | b"everything" => {
                add(&DEFAULT);
                add(&EXTRA);
            }
            name => {
                if let Some(name) = DEFAULT.iter().chain(&EXTRA).find(|known| known.as_bytes() == name) {
                    add(&[name]);
                }
            }
        }
    }
    let mut out = String::new();
    for name in DEFAULT.iter().chain(&EXTRA).filter(|name| wanted.contains(name)) {
        section(ctx, name, &mut out);
    }
    ctx.out.verbatim("txt", out.as_bytes());
    Ok(Outcome::Done)
}

/// The rows.
pub const COMMANDS: &[Command] =
    &[Command::new("info", -1, Flags::LOADING.with(Flags::STALE), Keys::None, Group::Server, info)
        .doc("1.0.0", "Returns information and statistics about the server")];

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(10), "10B");
        assert_eq!(human(1536), "1.50K");
        assert_eq!(human(3 << 30), "3.00G");
    }
}
