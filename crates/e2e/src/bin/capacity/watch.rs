//! What a server says of itself, and takes, while a load runs: its memory, its space on the disk, its checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ardb_e2e::usage::Memory;
use ardb_e2e::{Result, error};

use crate::bed::Guest;

/// What was seen at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub resident: u64,
    /// Of the engine and the log.
    pub disk: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub samples: Vec<(Instant, Sample)>,
    /// When checkpoints began and ended.
    pub checkpoints: Vec<(Instant, Instant)>,
}

impl Seen {
    /// The spans of the checkpoints in seconds since `began`.
    pub fn spans(&self, began: Instant) -> Vec<(f64, f64)> {
        let seconds = |at: Instant| at.saturating_duration_since(began).as_secs_f64();
        self.checkpoints.iter().map(|(from, to)| (seconds(*from), seconds(*to))).collect()
    }

    /// A figure over time.
    pub fn series(&self, began: Instant, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
        let seconds = |at: Instant| at.saturating_duration_since(began).as_secs_f64();
        self.samples.iter().map(|(at, sample)| (seconds(*at), value(sample))).collect()
    }

    /// The most memory that was seen.
    pub fn peak(&self) -> u64 {
        self.samples.iter().map(|(_, sample)| sample.resident).max().unwrap_or(0)
    }
}

/// Looks four times a second until it is stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Watch {
    pub fn start(server: &Guest) -> Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut client, pid) = (server.client()?, server.process()?);
        // The numbers of a server that has none of this are nought.
        let mut last = client.info_number("storage", "checkpoints")?;
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    let Ok(info) = client.info("storage") else { break };
                    let number = |name: &str| info.get(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
                    let (now, count) = (Instant::now(), number("checkpoints"));
                    if count > last {
                        let took = Duration::from_millis(number("checkpoint_last_ms").unsigned_abs());
                        seen.checkpoints.push((now.checked_sub(took).unwrap_or(now), now));
                        last = count;
                    }
                    let disk = (number("engine_disk_bytes") + number("log_disk_bytes")).unsigned_abs();
                    let resident = Memory::of(pid).map_or(0, |memory| memory.resident);
                    seen.samples.push((now, Sample { resident, disk }));
                    std::thread::sleep(Duration::from_millis(250));
                }
                seen
            }
        });
        Ok(Watch { stop, thread: Some(thread) })
    }

    /// Ends it and gives what it has seen.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| error("ended twice"))?;
        thread.join().map_err(|_| error("the watch panicked"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
