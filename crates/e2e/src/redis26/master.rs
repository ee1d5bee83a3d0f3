//! A master as Redis 2.6 is one.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Command;
use crate::server::{Server, Setup};
use crate::wiretap::{Tap, line, name, take};
use crate::{Result, error};

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Every command that came before a SYNC, a line each.
    pub before: Vec<String>,
    /// Every command that came after one. 2.6 answers them into the stream, so there must be none.
    pub after: Vec<String>,
    /// SYNCs.
    pub syncs: u64,
}

struct Shared {
    stop: AtomicBool,
    /// How long a dump seems to take, in ms.
    dump: AtomicU64,
    /// The bytes of the next RDB that are sent before the connection breaks; 0 for all.
    cut: AtomicU64,
    heard: Mutex<Heard>,
    behind: u16,
}

/// A Redis 2.6 as a master. Write to [`Master26::server`]; replicas connect to [`Master26::port`]. It ends with this.
pub struct Master26 {
    /// The Redis 2.8 that holds the data.
    pub server: Server,
    /// The loopback port for replicas.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Master26 {
    /// Starts one.
    ///
    /// # Errors
    /// If the Redis 2.8 behind it does not start.
    pub fn start() -> Result<Master26> {
        let server = Setup::redis("2.8").with("repl-ping-slave-period", 1).start()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            dump: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            heard: Mutex::new(Heard::default()),
            behind: server.port,
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&of_thread);
                // Its error is the replica's hanging up.
                std::thread::spawn(move || Tap::new(stream).and_then(|tap| converse(tap, &shared)));
            }
        });
        Ok(Master26 { server, port, shared })
    }

    /// What has happened so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Dumps take at least so long from now on.
    pub fn dump_takes(&self, time: Duration) {
        self.shared.dump.store(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// The next transfer breaks after so many bytes of the RDB.
    pub fn break_next(&self, bytes: u64) {
        self.shared.cut.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Master26 {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn reply(command: &Command) -> String {
    match name(command).as_str() {
        "PING" => "+PONG\r\n".into(),
        "REPLCONF" if command.len().is_multiple_of(2) => "-ERR syntax error\r\n".into(),
        "REPLCONF" => {
            let unknown =
                command[1..].chunks(2).map(|pair| &pair[0]).find(|word| !word.eq_ignore_ascii_case(b"listening-port"));
            match unknown {
                None => "+OK\r\n".into(),
                Some(word) => format!("-ERR Unrecognized REPLCONF option: {}\r\n", String::from_utf8_lossy(word)),
            }
        }
        "AUTH" => "-ERR Client sent AUTH, but no password is set\r\n".into(),
        _ => format!("-ERR unknown command '{}'\r\n", String::from_utf8_lossy(&command[0])),
    }
}

fn converse(mut replica: Tap, shared: &Shared) -> Result<()> {
    loop {
        if shared.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        let Some((command, _)) = replica.command(Duration::from_millis(200))? else { continue };
        if command.is_empty() {
            continue;
        }
        let mut heard = shared.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.before.push(line(&command));
        if name(&command) == "SYNC" {
            heard.syncs += 1;
            break;
        }
        drop(heard);
        replica.send(reply(&command))?;
    }
    let mut behind = Tap::connect(shared.behind)?;
    behind.send("SYNC\r\n")?;
    let asked = Instant::now();
    let mut signs = 0;
    let length = loop {
        if let Some(line) = behind.line(Duration::from_millis(50))?
            && !line.is_empty()
        {
            let length = line.strip_prefix('$').and_then(|text| text.parse::<usize>().ok());
            break length.ok_or_else(|| error(format!("SYNC: {line}")))?;
        }
    };
    while asked.elapsed() < Duration::from_millis(shared.dump.load(Ordering::SeqCst)) {
        // One a second, as its cron does.
        if asked.elapsed().as_secs() >= signs {
            replica.send("\n")?;
            signs += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    replica.send(format!("${length}\r\n"))?;
    let cut = shared.cut.swap(0, Ordering::SeqCst) as usize;
    let mut sent = 0;
    while sent < length {
        if behind.waiting().is_empty() {
            behind.fill()?;
        }
        let most = if cut > 0 { cut.min(length) } else { length };
        let part = behind.waiting().len().min(most - sent);
        let bytes = behind.forget(part);
        replica.send(&bytes)?;
        sent += part;
        if cut > 0 && sent >= most {
            return Err(error("broken as wished"));
        }
    }
    let mut pings = 0;
    replica.stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    behind.stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        while let Some((command, length)) = take(behind.waiting())? {
            let bytes = behind.forget(length);
            pings += u64::from(name(&command) == "PING");
            // Both forms were seen in the wild.
            if name(&command) == "PING" && pings % 2 == 0 {
                replica.send("PING\r\n")?;
            } else {
                replica.send(&bytes)?;
            }
        }
        behind.fill()?;
        // What the replica says is executed, and answered into the stream.
        while let Some((command, _)) = replica.command(Duration::ZERO)? {
            if !command.is_empty() {
                shared.heard.lock().unwrap_or_else(PoisonError::into_inner).after.push(line(&command));
                replica.send(reply(&command))?;
            }
        }
        if shared.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
}
