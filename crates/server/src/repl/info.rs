//! What INFO and ROLE say of replication, in Redis's fields.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::id::Offset;
use ardb_repl::master::State;
use ardb_resp::Reply;

use super::status::{PeerView, Phase, Replication, monotonic_ms};
use crate::server::Server;

/// How many replicas are online and not behind in time, as `min-replicas-max-lag` has it.
#[must_use]
pub fn good_replicas(server: &Server) -> usize {
    let most = server.config.int("min-replicas-max-lag").max(0) as u64;
    let now = monotonic_ms();
    let good = |peer: &&std::sync::Arc<PeerView>| {
        peer.state() == State::Online && !peer.old.load(Ordering::Relaxed) && peer.silence(now) <= most
    };
    server.replication.peers.lock().values().filter(good).count()
}

impl Replication {
    /// The lines of INFO stats that are about replication.
    pub fn stats(&self, out: &mut String) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "sync_full:{}\r\nsync_full_resumed:{}\r\nsync_partial_ok:{}\r\nsync_partial_err:{}\r\n",
            of(&self.sync_full),
            of(&self.sync_resumed),
            of(&self.partial_ok),
            of(&self.partial_err)
        );
    }

    /// The lines of INFO replication.
    pub fn info(&self, server: &Server, out: &mut String) {
        section(server, out);
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        for counter in [&self.sync_full, &self.sync_resumed, &self.partial_ok, &self.partial_err] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

fn section(server: &Server, out: &mut String) {
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{name}:{value}\r\n");
    };
    let replication = &server.replication;
    let now = monotonic_ms();
    let log = server.store.log();
    let (start, end) = (log.start(), log.end());
    let upstream = replication.upstream.lock().clone();
    let flag = |name: &str| u8::from(server.config.flag(name));
    let follows = upstream.is_some();
    line("role", &if follows { "slave" } else { "master" });
    if let Some(upstream) = upstream {
        let link = replication.link.lock();
        let up = link.phase == Phase::Up;
        let seconds = |since: u64| if since == 0 { -1 } else { (now.saturating_sub(since) / 1000) as i64 };
        line("master_host", &upstream.host);
        line("master_port", &upstream.port);
        line("master_link_status", &if up { "up" } else { "down" });
        line("master_last_io_seconds_ago", &if up { seconds(link.heard) } else { -1 });
        let syncing = link.phase == Phase::Syncing;
        line("master_sync_in_progress", &u8::from(syncing));
        line("slave_read_repl_offset", &if up { link.received.max(end) } else { end });
        line("slave_repl_offset", &end);
        if syncing {
            let total = link.sync_total;
            let left = total.map_or(-1, |total| total.saturating_sub(link.sync_read) as i64);
            let percent =
                total.filter(|total| *total > 0).map_or(0.0, |total| link.sync_read as f64 / total as f64 * 100.0);
            line("master_sync_total_bytes", &total.unwrap_or(0));
            line("master_sync_read_bytes", &link.sync_read);
            line("master_sync_left_bytes", &left);
            line("master_sync_perc", &format_args!("{percent:.2}"));
            line("master_sync_last_io_seconds_ago", &seconds(link.sync_heard));
            if let Some(rows) = &link.sync_rows {
                let (rate, left) = pace(link.sync_read, rows.about_bytes, now.saturating_sub(rows.since));
                line("master_sync_rows", &rows.rows);
                line("master_sync_rows_keys", &rows.keys);
                line("master_sync_rows_resumed", &rows.resumed);
                line("master_sync_rows_bytes_per_second", &rate);
                line("master_sync_rows_seconds_left", &left);
            }
        }
        if !up {
            line("master_link_down_since_seconds", &seconds(link.down_since));
            if let Some(error) = &link.error {
                line("master_link_error", &error.replace(['\r', '\n'], " "));
            }
            line("master_link_stopped", &u8::from(link.phase == Phase::Stopped));
        }
        line("slave_priority", &server.config.int("replica-priority"));
        line("slave_read_only", &flag("replica-read-only"));
        line("replica_announced", &flag("replica-announced"));
    }
    let peers = replication.peers();
    line("connected_slaves", &peers.len());
    if server.config.int("min-replicas-to-write") > 0 {
        line("min_slaves_good_slaves", &good_replicas(server));
    }
    for (i, peer) in peers.iter().enumerate() {
        let (host, port) = peer.address.rsplit_once(':').unwrap_or((&peer.address, "0"));
        line(
            &format!("slave{i}"),
            &format_args!(
                "ip={host},port={port},state={},offset={},lag={}",
                peer.word(),
                peer.acknowledged(),
                if peer.state() == State::Online { peer.silence(now) } else { 0 }
            ),
        );
    }
    for (i, peer) in peers.iter().enumerate() {
        let lag = peer.lag.lock().figures();
        line(
            // Not "slave...": Sentinel takes such lines for replicas.
            &format!("replica{i}_lag"),
            &format_args!(
                "samples={},bytes_p50={},bytes_p99={},ms_p50={},ms_p99={}",
                lag.samples, lag.bytes_p50, lag.bytes_p99, lag.ms_p50, lag.ms_p99
            ),
        );
    }
    let rows = replication.transfers.figures(super::feed::rows::limits(server));
    line("rows_syncs", &rows.transfers);
    line("rows_syncs_left", &rows.left);
    line("rows_syncs_limit", &rows.limit);
    line("rows_syncs_refused", &rows.refused);
    line("rows_sync_snapshots", &rows.snapshots);
    let about = server.store.stats().engine.disk_bytes;
    for (i, peer) in peers.iter().filter(|peer| peer.state() != State::Online).enumerate() {
        if let Some((bytes, rows, since)) = peer.sent.get() {
            let (rate, left) = pace(bytes, about, now.saturating_sub(since));
            let text = format!(
                "replica={},rows={rows},bytes={bytes},bytes_per_second={rate},seconds_left={left}",
                peer.address
            );
            line(&format!("rows_sync{i}"), &text);
        }
    }
    let history = server.store.history();
    line("master_failover_state", &replication.failover.word(follows));
    line("master_replid", &history.id);
    line("master_replid2", &history.second);
    line("master_repl_offset", &end);
    match history.second.is_none() {
        true => line("second_repl_offset", &-1),
        false => line("second_repl_offset", &(history.second_until.0 + 1)),
    }
    line("repl_backlog_active", &1);
    line("repl_backlog_size", &server.config.size("repl-backlog-size"));
    line("repl_backlog_first_byte_offset", &(start.0 + 1));
    line("repl_backlog_histlen", &end.since(start));
}

/// Bytes a second, and how many seconds will pass until `total` bytes have gone; -1 if nobody knows. The total is the sender's guess, so
/// what goes beyond it counts as nothing.
fn pace(bytes: u64, total: u64, ms: u64) -> (u64, i64) {
    let rate = bytes * 1000 / ms.max(1);
    let known = total > 0 && rate > 0;
    (rate, if known { (total.saturating_sub(bytes) / rate.max(1)) as i64 } else { -1 })
}

/// The reply to ROLE.
pub fn role(server: &Server, out: &mut Reply) {
    let end: Offset = server.store.log().end();
    let upstream = server.replication.upstream.lock().clone();
    match upstream {
        None => {
            out.array(3);
            out.bulk(b"master");
            out.size(end.0);
            let online: Vec<_> =
                server.replication.peers().into_iter().filter(|peer| peer.state() == State::Online).collect();
            out.array(online.len());
            for peer in online {
                let (host, port) = peer.address.rsplit_once(':').unwrap_or((&peer.address, "0"));
                out.array(3);
                out.bulk(host.as_bytes());
                out.bulk(port.as_bytes());
                out.bulk(peer.acknowledged().to_string().as_bytes());
            }
        }
        Some(upstream) => {
            let phase = server.replication.link.lock().phase;
            out.array(5);
            out.bulk(b"slave");
            out.bulk(upstream.host.as_bytes());
            out.int(i64::from(upstream.port));
            out.bulk(match phase {
                Phase::Waiting | Phase::Stopped => b"connect",
                Phase::Connecting => b"connecting",
                Phase::Handshake => b"handshake",
                Phase::Syncing => b"sync",
                Phase::Up => b"connected",
            });
            match phase {
                Phase::Up => out.size(end.0),
                _ => out.int(-1),
            }
        }
    }
}
