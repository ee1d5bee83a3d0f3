//! How soon a server with many keys is back, after a clean end and after a kill in the middle of writes, and whether all is there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::client::Client;
use ardb_e2e::drive::{Plan, Work};
use ardb_e2e::reply::Reply;
use ardb_e2e::server::Kind;
use ardb_e2e::values::{self, Shape};
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, commas, gb, say};
use crate::strings::{Fill, LETTER, WRITE, ok};

/// Keys of each connection of the load that is killed: more than may be on their way, so that the last one acknowledged is not overwritten.
const SPAN: u64 = 100_000;
/// The letter of those keys.
const OWN: u8 = b'w';
/// Longest wait for an end or a start.
const PATIENCE: Duration = Duration::from_secs(900);

/// Writes to keys of its own, around and around, until the connection breaks.
struct Writer {
    me: u64,
    shape: Shape,
    sent: u64,
    acknowledged: u64,
}

impl Writer {
    fn key(&self, write: u64) -> u64 {
        self.me * SPAN + write % SPAN
    }

    /// Whether a key holds what it must: what the last acknowledged write gave it, or a later one that was on its way.
    fn holds(&self, place: u64, value: Option<&[u8]>) -> bool {
        let of = |write: u64| value.is_some_and(|value| self.shape.is_of(value, self.me * SPAN + place, write));
        let rounds = |count: u64| (count + SPAN - 1 - place) / SPAN;
        // Writes number `place`, `place + SPAN` and so on go here.
        let (sure, possible) = (rounds(self.acknowledged), rounds(self.sent));
        (sure == 0 && value.is_none()) || (sure.max(1)..=possible).any(|round| of((round - 1) * SPAN + place))
    }
}

impl Work for Writer {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        values::command(out, "SET", 3);
        values::key(out, OWN, self.key(self.sent));
        self.shape.word(out, self.key(self.sent), self.sent);
        self.sent += 1;
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        self.acknowledged += 1;
        ok(reply)
    }
}

/// When a server that is being started first answered.
struct Return {
    ping: Duration,
    get: Duration,
    /// What its log says about the start.
    said: String,
}

/// Starts it and asks until it answers.
fn start(server: &mut Guest, ask: impl Fn(&mut Client) -> Result<()>) -> Result<Return> {
    let begin = Instant::now();
    server.spawn_again()?;
    loop {
        if let Ok(mut client) = Client::connect(server.port)
            && let Ok(Reply::Status(_)) = client.ask("PING")
        {
            let ping = begin.elapsed();
            ask(&mut client)?;
            return Ok(Return { ping, get: begin.elapsed(), said: said(&server.log()) });
        }
        if begin.elapsed() > PATIENCE {
            return Err(error(format!("{} does not answer:\n{}", server.name(), server.log_tail())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a log says about the last start: what was replayed, and in what time.
fn said(log: &str) -> String {
    let line = log.lines().rev().find(|line| line.contains(" replayed"));
    line.and_then(|line| line.split_once(" * ")).map_or("nothing", |(_, text)| text).to_string()
}

pub fn run(bed: &Bed) -> Result<String> {
    let (keys, shape) = (bed.number("restart-keys").max(1000), Shape::new(bed.number("restart-bytes"), 100));
    let mut server = bed.start(Kind::Ardb)?;
    let (run, _) = server.drive(&Plan::new(server.port, 64), Fill::parts(8, keys, shape))?;
    let (disk, log) = server.space()?;
    let mut out = format!(
        "{} keys with values of {} bytes, loaded in {:.0} s ({} requests/s, {:.2} us of processor time each); {} on the disk and {} of log.\n\n",
        commas(keys as f64),
        shape.size(),
        run.outcome.elapsed.as_secs_f64(),
        commas(run.outcome.rate()),
        run.cpu,
        gb(disk),
        gb(log)
    );
    say(out.trim());
    let key = Random::new(bed.number("seed")).below(keys);
    let get = |client: &mut Client| -> Result<()> {
        let reply = client.call(&[b"GET".as_slice(), &values::name(LETTER, key)])?;
        shape.check(reply.bytes().ok_or_else(|| error(format!("key {key} is missing")))?, key)
    };

    let begin = Instant::now();
    // There is no reply: the connection ends.
    let _ = server.client()?.ask("SHUTDOWN");
    server.wait_end(PATIENCE)?;
    let ended = begin.elapsed();
    let back = start(&mut server, get)?;
    out.push_str(&format!(
        "A clean end: SHUTDOWN takes {:.2} s. From the start of the process {:.3} s to the first reply to PING, {:.3} s to that of a GET. The server says: {}.\n\n",
        ended.as_secs_f64(),
        back.ping.as_secs_f64(),
        back.get.as_secs_f64(),
        back.said
    ));
    let size = server.client()?.must("DBSIZE")?.int().unwrap_or(0) as u64;
    if size != keys {
        out.push_str(&bed.fault(&format!("DBSIZE is {size}, not {keys}")));
    }
    out.push_str(&killed(bed, &mut server, keys, get)?);
    say(out.trim());
    Ok(out)
}

/// Kills it in the middle of a load, and looks for what was acknowledged.
fn killed(bed: &Bed, server: &mut Guest, keys: u64, get: impl Fn(&mut Client) -> Result<()>) -> Result<String> {
    let (connections, time) = (bed.number("restart-clients").max(1), bed.seconds("restart-seconds"));
    let shape = Shape::new(100, 100);
    let work = (0..connections).map(|me| Writer { me, shape, sent: 0, acknowledged: 0 }).collect();
    let pid = server.process()?;
    let killer = std::thread::spawn(move || -> Result<()> {
        std::thread::sleep(time);
        let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let number = number.ok_or_else(|| error("a process id out of range"))?;
        Ok(rustix::process::kill_process(number, rustix::process::Signal::KILL)?)
    });
    let plan = Plan { may_break: true, ..Plan::new(server.port, 16) };
    let (run, writers) = server.drive(&plan, work)?;
    killer.join().map_err(|_| error("the killer panicked"))??;
    server.kill9()?;
    let back = start(server, get)?;
    let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    let mut out = format!(
        "Killed (`kill -9`) after {:.0} s of SETs of 100 bytes by {connections} connections, `-P 16`, {} requests/s, {} acknowledged: {:.3} s from the start of the process to the first reply to PING, \
         {:.3} s to that of a GET. The server says: {}.\n\n",
        time.as_secs_f64(),
        commas(run.outcome.rate()),
        commas(acknowledged as f64),
        back.ping.as_secs_f64(),
        back.get.as_secs_f64(),
        back.said
    );
    let mut random = Random::new(bed.number("seed") + 1);
    let (mut looked, mut lost) = (0u64, VecDeque::new());
    let mut client = server.client()?;
    for writer in &writers {
        let last = writer.acknowledged.checked_sub(1).map(|write| write % SPAN);
        let places = (0..5000).map(|_| random.below(SPAN));
        for place in last.into_iter().chain(places) {
            let reply = client.call(&[b"GET".as_slice(), &values::name(OWN, writer.me * SPAN + place)])?;
            looked += 1;
            if !writer.holds(place, reply.bytes()) {
                lost.push_back(format!("key {place} of connection {} (the last is {last:?})", writer.me));
            }
        }
    }
    if let Some(first) = lost.front() {
        out.push_str(
            &bed.fault(&format!("{} of {looked} acknowledged writes are lost, the first of {first}", lost.len())),
        );
    } else {
        out.push_str(&format!(
            "Of {} that were looked at, with the last acknowledged of each connection, none is lost.\n\n",
            commas(looked as f64)
        ));
    }
    let size = client.must("DBSIZE")?.int().unwrap_or(0) as u64;
    let least = keys + writers.iter().map(|writer| writer.acknowledged.min(SPAN)).sum::<u64>();
    let most = keys + writers.iter().map(|writer| writer.sent.min(SPAN)).sum::<u64>();
    if !(least..=most).contains(&size) {
        out.push_str(&bed.fault(&format!("DBSIZE is {size}, not between {least} and {most}")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_described_by_its_last_line() {
        let log = "1:M 1 Jan * 5 keys: gen-1, 10 bytes of log and 1 commands replayed, in 63 ms\n1:M * Ready\n\
                   2:M 2 Jan * 7 keys: gen-1, 90 bytes of log and 9 commands replayed, in 8 ms\n";
        assert_eq!(said(log), "7 keys: gen-1, 90 bytes of log and 9 commands replayed, in 8 ms");
        assert_eq!(said("nothing"), "nothing");
    }

    #[test]
    fn a_key_holds_the_last_acknowledged_write_or_one_on_its_way() {
        let shape = Shape::new(32, 100);
        let value = |place: u64, write: u64| {
            let mut out = Vec::new();
            shape.word(&mut out, 3 * SPAN + place, write);
            values::bulk(&out).unwrap().to_vec()
        };
        let writer = Writer { me: 3, shape, sent: 2 * SPAN + 10, acknowledged: 2 * SPAN + 5 };
        // Overwritten and acknowledged; overwritten, perhaps; not overwritten; never an older one, or none.
        assert!(writer.holds(4, Some(&value(4, 2 * SPAN + 4))) && !writer.holds(4, Some(&value(4, SPAN + 4))));
        assert!(writer.holds(5, Some(&value(5, 2 * SPAN + 5))) && writer.holds(5, Some(&value(5, SPAN + 5))));
        assert!(writer.holds(10, Some(&value(10, SPAN + 10))) && !writer.holds(10, Some(&value(10, 2 * SPAN + 10))));
        assert!(!writer.holds(10, None));
        let young = Writer { me: 3, shape, sent: 2, acknowledged: 1 };
        assert!(
            young.holds(1, None) && young.holds(1, Some(&value(1, 1))) && !young.holds(0, None) && young.holds(2, None)
        );
    }
}
