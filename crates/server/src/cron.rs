//! Periodic work that belongs to no connection: rates for INFO, syncing the log once a second, expiring keys.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::server::Server;
use crate::stats::Rates;
use crate::{active_expiry, clock};

/// The running thread.
pub struct Cron {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Cron {
    /// Ends it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            log::error!("the thread of periodic work panicked");
        }
    }
}

/// Starts it.
///
/// # Errors
/// The system has no more threads.
pub fn start(server: Arc<Server>) -> io::Result<Cron> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name("ardb-cron".into()).spawn(move || {
        let mut rates = Rates::default();
        let mut last_sync = 0;
        while !stopped.load(Ordering::SeqCst) {
            let hz = server.config.int("hz").clamp(1, 500) as u64;
            std::thread::park_timeout(Duration::from_millis(1000 / hz));
            let now = clock::unix_ms();
            active_expiry::round(&server, Duration::from_millis((1000 / hz).min(100)));
            let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let stats = &server.stats;
            let values = [load(&server.shared.stats.commands), load(&stats.input), load(&stats.output)];
            for (slot, rate) in stats.rates.iter().zip(rates.sample(now, values)) {
                slot.store(rate, Ordering::Relaxed);
            }
            if now - last_sync >= 1000 {
                last_sync = now;
                if server.config.bytes("appendfsync") == b"everysec" {
                    sync(&server);
                }
            }
        }
    })?;
    Ok(Cron { stop, thread })
}

fn sync(server: &Server) {
    let end = server.store.log().end();
    if let Err(error) = server.store.sync_to(end) {
        log::warn!("The log was not synced: {error}");
    }
}
