//! A replica as Redis 2.6 is one.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::refused;
use crate::server::{Server, Setup};
use crate::wiretap::{Tap, name, take};
use crate::{Result, error};

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Full syncs that were received whole.
    pub syncs: u64,
    /// Times that nothing came for the timeout.
    pub timeouts: u64,
    /// Line ends before a length.
    pub line_ends: u64,
    /// The longest time between SYNC and the length.
    pub longest_dump: Duration,
    /// What was answered with an error, a line each.
    pub refused: Vec<String>,
    /// PINGs in the stream.
    pub pings: u64,
    /// Why links ended.
    pub ends: Vec<String>,
    /// Whether the stream flows now.
    pub online: bool,
}

struct Shared {
    stop: AtomicBool,
    hang_up: AtomicBool,
    master: AtomicU16,
    chatty: bool,
    timeout: Duration,
    seen: Mutex<Seen>,
    rdb: PathBuf,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A Redis 2.6 that follows whom it is told to. It ends with this.
pub struct Replica26 {
    /// The Redis 2.8 that holds the data.
    pub server: Server,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Replica26 {
    /// Starts one with this `repl-timeout`, which follows the loopback port `master`. A `chatty` one answers every command of the
    /// stream into the link, as the oldest servers did.
    ///
    /// # Errors
    /// If the Redis 2.8 behind it does not start.
    pub fn start(master: u16, timeout: Duration, chatty: bool) -> Result<Replica26> {
        let inner = TcpListener::bind("127.0.0.1:0")?;
        inner.set_nonblocking(true)?;
        let server = Setup::redis("2.8").start()?;
        server.client()?.must(&format!("SLAVEOF 127.0.0.1 {}", inner.local_addr()?.port()))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            hang_up: AtomicBool::new(false),
            master: AtomicU16::new(master),
            chatty,
            timeout,
            seen: Mutex::new(Seen::default()),
            rdb: server.dir.join("received.rdb"),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&inner, &of_thread));
        Ok(Replica26 { server, shared, thread: Some(thread) })
    }

    /// What has happened so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the link to the master; a new one follows after a second.
    pub fn hang_up(&self) {
        self.shared.hang_up.store(true, Ordering::SeqCst);
    }

    /// Follows another port after the next [`Replica26::hang_up`].
    pub fn aim(&self, master: u16) {
        self.shared.master.store(master, Ordering::SeqCst);
    }

    /// The last RDB that was received whole.
    #[must_use]
    pub fn rdb(&self) -> PathBuf {
        self.shared.rdb.clone()
    }
}

impl Drop for Replica26 {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(inner: &TcpListener, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        if let Err(failure) = link(inner, shared) {
            shared.note(|seen| {
                seen.online = false;
                seen.ends.push(failure.to_string());
            });
        }
        // As 2.6, whose cron looks once a second.
        let start = Instant::now();
        while !shared.stop.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(20));
        }
        shared.hang_up.store(false, Ordering::SeqCst);
    }
}

/// Waits for more of the master; silence ends the link.
fn more(master: &mut Tap, heard: &mut Instant, shared: &Shared) -> Result<()> {
    if shared.stop.load(Ordering::SeqCst) || shared.hang_up.load(Ordering::SeqCst) {
        return Err(error("told to hang up"));
    }
    if master.fill()? {
        *heard = Instant::now();
    } else if heard.elapsed() > shared.timeout {
        shared.note(|seen| seen.timeouts += 1);
        return Err(error("the master was silent for too long"));
    }
    Ok(())
}

fn answer(master: &mut Tap, question: &str, heard: &mut Instant, shared: &Shared) -> Result<String> {
    master.send(question)?;
    loop {
        if let Some(line) = master.line(Duration::ZERO)? {
            return Ok(line);
        }
        more(master, heard, shared)?;
    }
}

/// One connection to the master, from its beginning to its end.
fn link(inner: &TcpListener, shared: &Shared) -> Result<()> {
    let mut master = Tap::connect(shared.master.load(Ordering::SeqCst))?;
    let mut heard = Instant::now();
    let pong = answer(&mut master, "PING\r\n", &mut heard, shared)?;
    if pong != "+PONG" {
        return Err(error(format!("PING: {pong}")));
    }
    // Its refusal would not matter.
    answer(&mut master, "REPLCONF listening-port 2600\r\n", &mut heard, shared)?;
    let asked = Instant::now();
    master.send("SYNC\r\n")?;
    let length = loop {
        match master.line(Duration::ZERO)? {
            None => more(&mut master, &mut heard, shared)?,
            Some(line) if line.is_empty() => {
                heard = Instant::now();
                shared.note(|seen| seen.line_ends += 1);
            }
            Some(line) => {
                let length = line.strip_prefix('$').and_then(|text| text.parse::<usize>().ok());
                break length.ok_or_else(|| error(format!("MASTER aborted replication with an error: {line}")))?;
            }
        }
    };
    shared.note(|seen| seen.longest_dump = seen.longest_dump.max(asked.elapsed()));
    while master.waiting().len() < length {
        more(&mut master, &mut heard, shared)?;
    }
    let rdb = master.forget(length);
    let version = rdb.get(5..9).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
    if !rdb.starts_with(b"REDIS") || !version.is_some_and(|version| (1..=6).contains(&version)) {
        return Err(error(format!("Can't handle RDB format: {}", rdb[..rdb.len().min(9)].escape_ascii())));
    }
    std::fs::write(&shared.rdb, &rdb)?;
    let mut behind = serve(inner, &mut master, &mut heard, shared)?;
    behind.stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    behind.send(format!("${}\r\n", rdb.len()))?;
    behind.send(&rdb)?;
    shared.note(|seen| (seen.syncs, seen.online) = (seen.syncs + 1, true));
    loop {
        while let Some((command, length)) = take(master.waiting())? {
            let bytes = master.forget(length);
            match refused(&command).filter(|_| !command.is_empty()) {
                Some(reply) => {
                    shared.note(|seen| seen.refused.push(crate::wiretap::line(&command)));
                    master.send(reply)?;
                }
                None => {
                    if name(&command) == "PING" {
                        shared.note(|seen| seen.pings += 1);
                    }
                    if shared.chatty && !command.is_empty() {
                        master.send("+OK\r\n")?;
                    }
                    behind.send(&bytes)?;
                }
            }
        }
        more(&mut master, &mut heard, shared)?;
        behind.fill()?;
    }
}

/// Waits until the server behind asks for a SYNC, while the master's stream waits in its socket.
fn serve(inner: &TcpListener, master: &mut Tap, heard: &mut Instant, shared: &Shared) -> Result<Tap> {
    loop {
        let Ok((stream, _)) = inner.accept() else {
            more(master, heard, shared)?;
            continue;
        };
        stream.set_nonblocking(false)?;
        let mut behind = Tap::new(stream)?;
        // A connection of its former life may be waiting here, closed long ago.
        while let Ok(Some((command, _))) = behind.command(Duration::from_secs(5)) {
            match name(&command).as_str() {
                "PING" => behind.send("+PONG\r\n")?,
                "REPLCONF" => behind.send("+OK\r\n")?,
                "SYNC" => return Ok(behind),
                other => behind.send(format!("-ERR unknown command '{other}'\r\n"))?,
            }
        }
    }
}
