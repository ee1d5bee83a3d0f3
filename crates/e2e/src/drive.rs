//! A generator of load: a few threads, each with many connections, on each of which so many requests are on their way together.
//!
//! As `redis-benchmark` does, a connection sends a batch of requests and the next one when all replies are there; a request's latency is the time from
//! the sending of its batch to the reading of its reply. What is asked, and whether the answer is right, is a [`Work`]'s to say, one for each connection:
//! it writes requests in place and sees the bytes of each reply, so that the program costs little beside the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::histogram::Histogram;
use crate::usage::Usage;
use crate::{Result, error};

/// Kinds of requests that are counted apart.
pub const KINDS: usize = 2;
/// Silence of a server after which a run has failed.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// What one connection asks.
pub trait Work: Send {
    /// Appends the next request and says of which kind it is, below [`KINDS`]; `None` if nothing is left to do.
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize>;

    /// Judges the reply to the oldest request that has none yet. Errors of the server do not come here.
    ///
    /// # Errors
    /// If it is wrong, which ends the run.
    fn reply(&mut self, reply: &[u8]) -> Result<()>;
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server's port.
    pub port: u16,
    /// Threads of the client.
    pub threads: usize,
    /// Requests on their way on each connection.
    pub pipeline: usize,
    /// The time after which no more requests are sent.
    pub limit: Option<Duration>,
    /// The length of the spans for which requests are also counted apart.
    pub slot: Option<Duration>,
    /// Whether a lost connection is only the end of its work.
    pub may_break: bool,
}

impl Plan {
    /// So many requests on their way, by two threads, until the work is done.
    #[must_use]
    pub fn new(port: u16, pipeline: u64) -> Plan {
        let pipeline = (pipeline as usize).max(1);
        Plan { port, threads: 2, pipeline, limit: None, slot: None, may_break: false }
    }

    /// Until that time is over.
    #[must_use]
    pub fn lasting(self, limit: Duration) -> Plan {
        Plan { limit: Some(limit), ..self }
    }

    /// Counted also for each span of this length.
    #[must_use]
    pub fn in_slots(self, slot: Duration) -> Plan {
        Plan { slot: Some(slot), ..self }
    }
}

/// What was measured of each kind of request.
pub type Kinds = [Histogram; KINDS];

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// When the run began, for what else is noted over time.
    pub began: Option<Instant>,
    /// Over all.
    pub kinds: Kinds,
    /// For each span of time.
    pub slots: Vec<Kinds>,
    /// Processor time of this whole program.
    pub own_cpu: Duration,
}

impl Outcome {
    /// Requests that were answered.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.iter().map(Histogram::count).sum()
    }

    /// The same for each second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// All kinds together.
    #[must_use]
    pub fn all(&self) -> Histogram {
        let mut all = Histogram::default();
        self.kinds.iter().for_each(|kind| all.add(kind));
        all
    }

    fn add(&mut self, other: &Outcome) {
        let join = |mine: &mut Kinds, theirs: &Kinds| mine.iter_mut().zip(theirs).for_each(|(one, more)| one.add(more));
        join(&mut self.kinds, &other.kinds);
        self.slots.resize(self.slots.len().max(other.slots.len()), Kinds::default());
        self.slots.iter_mut().zip(&other.slots).for_each(|(mine, theirs)| join(mine, theirs));
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// One connection with its work.
struct Lane<W> {
    stream: TcpStream,
    work: W,
    out: Vec<u8>,
    written: usize,
    /// Kinds of the requests of this batch, and how many have their reply.
    batch: Vec<u8>,
    answered: usize,
    sent: Instant,
    input: Vec<u8>,
    filled: usize,
    /// Whether the kernel also tells when it can be written.
    pushing: bool,
    done: bool,
}

/// The length of the reply at the front; `None` if it is not whole yet.
fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let (mut at, mut open) = (0, 1u64);
    while open > 0 {
        let Some(rest) = bytes.get(at..) else { return Ok(None) };
        let Some(end) = rest.iter().position(|byte| *byte == b'\r') else { return Ok(None) };
        let count = || -> Result<Option<u64>> {
            let text = &rest[1..end];
            if text.first() == Some(&b'-') {
                return Ok(None);
            }
            let digit = |sum: u64, digit: &u8| match digit {
                b'0'..=b'9' => Ok(sum * 10 + u64::from(digit - b'0')),
                _ => Err(error("a length that is no number")),
            };
            text.iter().try_fold(0, digit).map(Some)
        };
        open -= 1;
        at += end + 2;
        match rest[0] {
            b'$' => at += count()?.map_or(0, |length| length as usize + 2),
            b'*' => open += count()?.unwrap_or(0),
            b'+' | b'-' | b':' => {}
            other => return Err(error(format!("a reply that begins with {other:#x}"))),
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

impl<W: Work> Lane<W> {
    fn new(port: u16, work: W) -> Result<Lane<W>> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (sent, input) = (Instant::now(), vec![0; CHUNK]);
        let (out, batch) = (Vec::new(), Vec::new());
        let (written, answered, filled, pushing, done) = (0, 0, 0, false, false);
        Ok(Lane { stream, work, out, written, batch, answered, sent, input, filled, pushing, done })
    }

    /// Fills the next batch, unless there is nothing more to ask.
    fn next(&mut self, pipeline: usize) -> bool {
        self.out.clear();
        self.batch.clear();
        (self.written, self.answered) = (0, 0);
        while self.batch.len() < pipeline
            && let Some(kind) = self.work.request(&mut self.out)
        {
            self.batch.push(kind as u8);
        }
        self.sent = Instant::now();
        !self.batch.is_empty()
    }

    /// Writes as much as goes. Says whether all is written.
    fn push(&mut self) -> Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(failure) if failure.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(failure) if failure.kind() == ErrorKind::Interrupted => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Reads what is there and judges the replies in it.
    fn pull(&mut self, began: Instant, slot: Option<Duration>, outcome: &mut Outcome) -> Result<()> {
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(count) => self.filled += count,
            Err(failure) if matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.sent).as_nanos() as u64;
        let mut at = 0;
        let mut counted = [0u32; KINDS];
        while let Some(length) = length(&self.input[at..self.filled])? {
            let reply = &self.input[at..at + length];
            if reply[0] == b'-' {
                return Err(error(format!("the server says {}", String::from_utf8_lossy(reply).trim_end())));
            }
            let kind =
                usize::from(*self.batch.get(self.answered).ok_or_else(|| error("a reply that nobody asked for"))?);
            self.work.reply(reply)?;
            counted[kind] += 1;
            self.answered += 1;
            at += length;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        let span = slot.map(|slot| (now.saturating_duration_since(began).as_nanos() / slot.as_nanos().max(1)) as usize);
        if let Some(span) = span {
            outcome.slots.resize(outcome.slots.len().max(span + 1), Kinds::default());
        }
        for (kind, count) in counted.into_iter().enumerate() {
            outcome.kinds[kind].record_many(took, count);
            if let Some(span) = span {
                outcome.slots[span][kind].record_many(took, count);
            }
        }
        Ok(())
    }

    /// What is to be done when the kernel says that something goes. Says whether the work is done.
    fn turn(&mut self, plan: &Plan, began: Instant, outcome: &mut Outcome) -> Result<bool> {
        if self.written < self.out.len() {
            self.push()?;
        }
        self.pull(began, plan.slot, outcome)?;
        if self.answered < self.batch.len() {
            return Ok(false);
        }
        if plan.limit.is_some_and(|limit| began.elapsed() >= limit) || !self.next(plan.pipeline) {
            return Ok(true);
        }
        self.push()?;
        Ok(false)
    }
}

/// Runs the lanes of one thread.
fn run<W: Work>(lanes: &mut [Lane<W>], plan: &Plan, stop: &AtomicBool, start: &Barrier) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, lane) in lanes.iter().enumerate() {
        epoll::add(&poll, &lane.stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
    }
    start.wait();
    let began = Instant::now();
    let mut outcome = Outcome { began: Some(began), ..Outcome::default() };
    let mut left = 0;
    let follow = |lane: &mut Lane<W>, at: u64| -> Result<()> {
        let pushing = !lane.done && lane.written < lane.out.len();
        if pushing != lane.pushing {
            let flags = if pushing { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(&poll, &lane.stream, epoll::EventData::new_u64(at), flags)?;
            lane.pushing = pushing;
        }
        Ok(())
    };
    for (at, lane) in lanes.iter_mut().enumerate() {
        lane.done = !lane.next(plan.pipeline);
        if !lane.done {
            left += 1;
            lane.push()?;
            follow(lane, at as u64)?;
        }
    }
    let mut events = Vec::with_capacity(256);
    let mut heard = Instant::now();
    while left > 0 {
        events.clear();
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&second)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(failure) => return Err(failure.into()),
        }
        if stop.load(Ordering::Relaxed) {
            return Err(error("stopped"));
        }
        if events.is_empty() {
            if heard.elapsed() > PATIENCE {
                return Err(error(format!("no reply for {PATIENCE:?}")));
            }
            continue;
        }
        heard = Instant::now();
        for event in &events {
            let at = event.data.u64();
            let lane = &mut lanes[at as usize];
            if lane.done {
                continue;
            }
            let done = match lane.turn(plan, began, &mut outcome) {
                Ok(done) => done,
                Err(failure) if plan.may_break && broken(&failure) => true,
                Err(failure) => return Err(failure),
            };
            if done {
                lane.done = true;
                left -= 1;
                epoll::delete(&poll, &lane.stream)?;
            } else {
                follow(lane, at)?;
            }
        }
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

/// Whether a failure is that the other side is gone.
fn broken(failure: &std::io::Error) -> bool {
    matches!(failure.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Does this work, each part on a connection of its own, and gives it back when it is done.
///
/// # Errors
/// If a connection cannot be made or is lost, a reply is wrong, or the server is silent.
pub fn drive<W: Work>(plan: &Plan, work: Vec<W>) -> Result<(Outcome, Vec<W>)> {
    let threads = plan.threads.clamp(1, work.len().max(1));
    let mut groups: Vec<Vec<Lane<W>>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, work) in work.into_iter().enumerate() {
        groups[at % threads].push(Lane::new(plan.port, work)?);
    }
    let stop = AtomicBool::new(false);
    let start = Arc::new(Barrier::new(threads));
    let before = Usage::of(std::process::id())?;
    let results: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter_mut()
            .map(|lanes| {
                let (stop, start) = (&stop, Arc::clone(&start));
                scope.spawn(move || {
                    let result = run(lanes, plan, stop, &start);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    result
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(error("a thread panicked")))).collect()
    });
    let mut outcome = Outcome::default();
    // The failure that stopped the others says more than that they were stopped.
    let failure = |result: &Result<Outcome>| result.as_ref().err().map(|failure| failure.to_string() != "stopped");
    let first = results.iter().position(|result| failure(result) == Some(true));
    let mut results = results;
    if let Some(first) = first {
        results.swap(0, first);
    }
    for result in results {
        let part = result?;
        outcome.began = outcome.began.or(part.began);
        outcome.add(&part);
    }
    outcome.own_cpu = Usage::of(std::process::id())?.cpu_since(&before);
    // Back into the order in which they came.
    let count = groups.iter().map(Vec::len).sum();
    let mut groups: Vec<_> = groups.into_iter().map(Vec::into_iter).collect();
    let work = (0..count).filter_map(|at| groups[at % threads].next()).map(|lane| lane.work).collect();
    Ok((outcome, work))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values;
    use std::net::TcpListener;

    #[test]
    fn replies_end_where_they_end() {
        let wire = b"*3\r\n$3\r\na\rb\r\n*1\r\n:5\r\n$-1\r\n";
        assert!((0..wire.len()).all(|end| length(&wire[..end]).unwrap().is_none()));
        assert_eq!(length(&[wire, b"+OK\r\n".as_slice()].concat()).unwrap(), Some(wire.len()));
        assert_eq!(length(b"$0\r\n\r\n").unwrap(), Some(6));
        assert!(length(b"?\r\n").is_err());
    }

    /// Asks a fixed number of times, and wants each question's number back.
    struct Count {
        left: u64,
        next: u64,
    }

    impl Work for Count {
        fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
            self.left = self.left.checked_sub(1)?;
            values::command(out, "ECHO", 1);
            Some((self.left % 2) as usize)
        }

        fn reply(&mut self, reply: &[u8]) -> Result<()> {
            self.next += 1;
            if values::integer(reply)? == self.next { Ok(()) } else { Err(error("wrong")) }
        }
    }

    /// Answers each request of 14 bytes on each connection with how many there were, and from the `wrong`th on with 0.
    fn server(wrong: u64) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut request, mut count) = ([0; 14], 0);
                    while stream.read_exact(&mut request).is_ok() {
                        count += 1;
                        let number = if count >= wrong { 0 } else { count };
                        if write!(stream, ":{number}\r\n").is_err() {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    #[test]
    fn all_requests_are_answered_and_counted() {
        let plan = Plan::new(server(u64::MAX), 8).in_slots(Duration::from_millis(10));
        let work = [100, 0, 37].map(|left| Count { left, next: 0 });
        let (outcome, work) = drive(&plan, work.into()).unwrap();
        assert_eq!(work.iter().map(|work| work.next).collect::<Vec<_>>(), [100, 0, 37]);
        assert_eq!(outcome.count(), 137);
        let slots: u64 = outcome.slots.iter().flatten().map(Histogram::count).sum();
        assert_eq!((slots, outcome.kinds[0].count()), (137, 50 + 19));
    }

    #[test]
    fn a_wrong_reply_ends_the_run_with_its_own_message() {
        let plan = Plan::new(server(50), 8);
        let work = (0..4).map(|_| Count { left: 1000, next: 0 }).collect();
        assert_eq!(drive(&plan, work).err().map(|failure| failure.to_string()), Some("wrong".to_string()));
    }

    #[test]
    fn time_is_a_limit() {
        let plan = Plan::new(server(u64::MAX), 1).lasting(Duration::from_millis(100));
        let (outcome, _) = drive(&plan, vec![Count { left: u64::MAX, next: 0 }]).unwrap();
        assert!(outcome.elapsed >= Duration::from_millis(100) && outcome.count() > 0);
    }
}
