//! Periodic work that belongs to no connection: rates for INFO, syncing the log once a second, expiring keys, the number of network threads.
//!
//! Syncing has a thread of its own, because expiring takes the writer lock, for which it may wait as long as a script runs or the disk is busy;
//! `appendfsync everysec` must not become longer than that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::net::balance;
use crate::server::Server;
use crate::stats::Rates;
use crate::{active_expiry, clock};

/// How often the log is synced with `appendfsync everysec`.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// The running threads.
pub struct Cron {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cron {
    /// Ends them.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("a thread of periodic work panicked");
            }
        }
    }
}

/// Starts them.
///
/// # Errors
/// The system has no more threads.
pub fn start(server: Arc<Server>) -> io::Result<Cron> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut cron = Cron { stop: stop.clone(), threads: Vec::new() };
    let threads_vary = server.config.int("io-threads") == 0 && server.threads().len() > 1;
    let (of_balance, stop_balance) = (server.clone(), stop.clone());
    let (of_sync, stopped) = (server.clone(), stop.clone());
    cron.threads.push(std::thread::Builder::new().name("ardb-sync".into()).spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            std::thread::park_timeout(SYNC_PERIOD);
            if of_sync.config.bytes("appendfsync") == b"everysec" {
                sync(&of_sync);
            }
        }
    })?);
    cron.threads.push(std::thread::Builder::new().name("ardb-cron".into()).spawn(move || {
        let mut rates = Rates::default();
        while !stop.load(Ordering::SeqCst) {
            let hz = server.config.int("hz").clamp(1, 500) as u64;
            std::thread::park_timeout(Duration::from_millis(1000 / hz));
            let now = clock::unix_ms();
            active_expiry::round(&server, Duration::from_millis((1000 / hz).min(100)));
            let stats = &server.stats;
            let values = [server.shared.stats.commands.get(), stats.input.get(), stats.output.get()];
            for (slot, rate) in stats.rates.iter().zip(rates.sample(now, values)) {
                slot.store(rate, Ordering::Relaxed);
            }
        }
    })?);
    if threads_vary {
        let stopped = stop_balance;
        cron.threads.push(
            std::thread::Builder::new()
                .name("ardb-balance".into())
                .spawn(move || balance::run(&of_balance, &stopped))?,
        );
    }
    Ok(cron)
}

fn sync(server: &Server) {
    let end = server.store.log().end();
    if let Err(error) = server.store.sync_to(end) {
        log::warn!("The log was not synced: {error}");
    }
}
