//! How far a replica is behind its master while writes flow: in time and in bytes.
//!
//! Time: a key is set to the numbers 0, 1, 2 ... on the master, one each 10 ms, and read on the replica until the number shows. The lag is from when the
//! master executed the SET until the replica executed the GET that saw it, so it is never too short, and too long by at most the pause
//! between two looks: a millisecond, or a twentieth of the lag. Numbers go out whether or not those before have been seen, so a replica
//! that stands still is in the figures with its full weight.
//!
//! Bytes: both servers' offsets are read each 10 ms. Where the replica was is compared with where the master was at the same moment,
//! between its two nearest readings.
//!
//! All moments are those of the servers' own TIME, right behind what is timed on the same connection: the wait for a busy
//! server is no lag. It is one machine, and so one clock. A server alone gets the same questions, so that they are no part of a comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::reply::Reply;
use crate::{Result, error};

/// Between two numbers, and between two readings of the offsets.
const EVERY: Duration = Duration::from_millis(10);
/// Between two looks for a number that has not shown.
const LOOK: Duration = Duration::from_millis(1);
/// With a replica that is far behind, looks are as far apart as this part of its lag.
const PART: u64 = 20;
/// The longest pause between two looks.
const LONGEST: Duration = Duration::from_millis(100);
/// How long the last number may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The key.
const KEY: &str = "lag:marker";

/// A server's clock in microseconds, and what was so then: an offset, or a number that was visible.
type Moment = (u64, u64);

/// What was seen of a replica.
#[derive(Clone, Debug, Default)]
pub struct Lags {
    /// Milliseconds from a write's execution until it could be read.
    pub ms: Vec<f64>,
    /// Bytes of the stream that were missing.
    pub bytes: Vec<f64>,
}

/// A watch over a master, and a replica if there is one. It goes on until it is stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    /// Whether all numbers have been written.
    done: Arc<AtomicBool>,
    written: JoinHandle<Result<Vec<u64>>>,
    seen: Option<JoinHandle<Result<Vec<Moment>>>>,
    offsets: JoinHandle<Result<[Vec<Moment>; 2]>>,
}

impl Watch {
    /// Starts one over servers on these loopback ports.
    ///
    /// # Errors
    /// If they cannot be reached.
    pub fn start(master: u16, replica: Option<u16>) -> Result<Watch> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let count = Arc::new(AtomicU64::new(0));
        let connect = |port: Option<u16>| port.map(Client::connect).transpose();
        let (mut writer, reader) = (Client::connect(master)?, connect(replica)?);
        let (mut above, mut below) = (Client::connect(master)?, connect(replica)?);
        let written = std::thread::spawn({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            move || write(&mut writer, &stop, &count)
        });
        let seen = reader.map(|mut reader| {
            let (done, count) = (Arc::clone(&done), Arc::clone(&count));
            std::thread::spawn(move || look(&mut reader, &done, &count))
        });
        let offsets = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || read_offsets(&mut above, below.as_mut(), &stop)
        });
        Ok(Watch { stop, done, written, seen, offsets })
    }

    /// Ends it when the replica has shown the last number.
    ///
    /// # Errors
    /// If it does not within two minutes, or a connection was lost.
    pub fn stop(self) -> Result<Lags> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = |_| error("a thread of the watch panicked");
        let written = self.written.join().map_err(ended);
        self.done.store(true, Ordering::SeqCst);
        let seen = self.seen.map(JoinHandle::join).transpose().map_err(ended)?;
        let [master, replica] = self.offsets.join().map_err(ended)??;
        let ms = delays(&written??, &seen.transpose()?.unwrap_or_default());
        Ok(Lags { ms, bytes: missing(&master, &replica) })
    }
}

/// Waits for the next of moments that are [`EVERY`] apart; those that have passed are left out.
fn wait_for(next: &mut Instant) {
    *next = (*next + EVERY).max(Instant::now());
    std::thread::sleep(next.saturating_duration_since(Instant::now()));
}

/// The clock in an answer to TIME.
fn clock(reply: &Reply) -> Result<u64> {
    let parts = reply.items().and_then(|items| Some((items.first()?.int()?, items.get(1)?.int()?)));
    let (seconds, micros) = parts.ok_or_else(|| error(format!("TIME: {reply}")))?;
    Ok((seconds * 1_000_000 + micros) as u64)
}

/// Writes numbers; gives when each was written.
fn write(client: &mut Client, stop: &AtomicBool, count: &AtomicU64) -> Result<Vec<u64>> {
    let (mut times, mut next) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::SeqCst) {
        client.queue(&["SET", KEY, &times.len().to_string()]);
        client.queue(&["TIME"]);
        let reply = client.receive()?;
        if !reply.is_ok() {
            return Err(error(format!("SET: {reply}")));
        }
        times.push(clock(&client.receive()?)?);
        count.store(times.len() as u64, Ordering::SeqCst);
        wait_for(&mut next);
    }
    Ok(times)
}

/// Looks for numbers; gives when each new one was first visible, in order.
fn look(client: &mut Client, done: &AtomicBool, count: &AtomicU64) -> Result<Vec<Moment>> {
    let mut seen: Vec<Moment> = Vec::new();
    let mut moved = Instant::now();
    loop {
        let next = seen.last().map_or(0, |(_, number)| number + 1);
        // Asked first: what is counted after it was set is all.
        let all = done.load(Ordering::SeqCst);
        let waiting = count.load(Ordering::SeqCst).saturating_sub(next);
        if waiting == 0 {
            if all {
                return Ok(seen);
            }
            moved = Instant::now();
        } else {
            client.queue(&["GET", KEY]);
            client.queue(&["TIME"]);
            let number = client.receive()?.int().map(|number| number as u64);
            let time = clock(&client.receive()?)?;
            if let Some(number) = number.filter(|number| *number >= next) {
                seen.push((time, number));
                moved = Instant::now();
            } else if moved.elapsed() > LIMIT {
                return Err(error(format!("the replica shows nothing new for {LIMIT:?}, after {next} numbers")));
            }
        }
        let behind = EVERY * u32::try_from(waiting / PART).unwrap_or(u32::MAX);
        std::thread::sleep(behind.clamp(LOOK, LONGEST));
    }
}

/// Reads the offsets of both.
fn read_offsets(master: &mut Client, mut replica: Option<&mut Client>, stop: &AtomicBool) -> Result<[Vec<Moment>; 2]> {
    let mut offsets = [Vec::new(), Vec::new()];
    let mut next = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        // Both are asked before either answers, so that the readings lie close together.
        for client in [Some(&mut *master), replica.as_deref_mut()].into_iter().flatten() {
            client.queue(&["INFO", "replication"]);
            client.queue(&["TIME"]);
            client.flush()?;
        }
        offsets[0].push(offset(master, "master_repl_offset")?);
        if let Some(replica) = replica.as_deref_mut() {
            offsets[1].push(offset(replica, "slave_repl_offset")?);
        }
        wait_for(&mut next);
    }
    Ok(offsets)
}

fn offset(client: &mut Client, field: &str) -> Result<Moment> {
    let info = client.receive()?.text();
    let time = clock(&client.receive()?)?;
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim_end().parse().ok());
    Ok((time, value.ok_or_else(|| error(format!("INFO has no {field}: {info}")))?))
}

/// How long after it was written each number was visible, in milliseconds, up to the last that was seen.
fn delays(written: &[u64], seen: &[Moment]) -> Vec<f64> {
    let mut at = 0;
    let mut delays = Vec::with_capacity(written.len());
    for (number, time) in (0..).zip(written) {
        while seen.get(at).is_some_and(|(_, shown)| *shown < number) {
            at += 1;
        }
        let Some((shown, _)) = seen.get(at) else { break };
        // TIME comes after the write, and may come after the look.
        delays.push(shown.saturating_sub(*time) as f64 / 1000.0);
    }
    delays
}

/// How many bytes the replica lacked at each of its readings that lies between two of the master.
fn missing(master: &[Moment], replica: &[Moment]) -> Vec<f64> {
    let mut missing = Vec::with_capacity(replica.len());
    for (time, have) in replica {
        let after = master.partition_point(|(moment, _)| moment < time);
        let (Some(one), Some(other)) = (after.checked_sub(1).and_then(|at| master.get(at)), master.get(after)) else {
            continue;
        };
        let part = (time - one.0) as f64 / (other.0 - one.0).max(1) as f64;
        let there = one.1 as f64 + part * other.1.saturating_sub(one.1) as f64;
        missing.push((there - *have as f64).max(0.0));
    }
    missing
}

/// Values in order, of which parts can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    /// Of these values.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Distribution {
        values.sort_by(f64::total_cmp);
        Distribution(values)
    }

    /// The value that `percent` of them are not over; 0 if there is none.
    #[must_use]
    pub fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or(0.0)
    }

    /// The largest.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.at(100)
    }
}

/// The middle one of some values, the lower of two.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Distribution::of(values.into_iter().collect()).at(50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_visible_from_the_first_look_that_shows_it_or_a_later_one() {
        let written = [1000, 11_000, 21_000, 31_000];
        // The second look shows two numbers at once; a clock that is a little early does no harm.
        let seen = [(3000, 0), (24_000, 2), (30_999, 3)];
        assert_eq!(delays(&written, &seen), [2.0, 13.0, 3.0, 0.0]);
        assert_eq!(delays(&written, &seen[..1]), [2.0]);
    }

    #[test]
    fn bytes_are_missing_against_where_the_master_was_at_that_moment() {
        let master = [(1000, 100), (2000, 300), (3000, 300)];
        let replica = [(900, 50), (1500, 150), (2000, 300), (2500, 310), (3100, 300)];
        // The first and the last lie outside; a PING may have come between two readings.
        assert_eq!(missing(&master, &replica), [50.0, 0.0, 0.0]);
    }

    #[test]
    fn parts_of_a_distribution() {
        let values = Distribution::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((values.at(50), values.at(99), values.most()), (100.0, 198.0, 200.0));
        assert_eq!(Distribution::default().at(99), 0.0);
        assert_eq!(Distribution::of(vec![7.0]).at(1), 7.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 1.0);
    }
}
