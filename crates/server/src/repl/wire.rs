//! A blocking socket to the master with the state machine that understands it: the one place that reads and writes there.
//!
//! Invariant: a read waits for [`SLICE`] at most before the clock, and whether the link is still wanted, are looked at.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ardb_repl::replica::{Event, LinkError, Replica, Step};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt;

use super::status::{Upstream, monotonic_ms};
use crate::clients::{Address, Class, ClientInfo};
use crate::clock;
use crate::server::Server;

/// What one read takes at most, and what is held of the wire.
const BUFFER: usize = 256 << 10;
/// How long one waits for work that is done beside the link before it looks up.
const ROUND: Duration = Duration::from_millis(50);
/// How long one read waits.
const SLICE: Duration = Duration::from_millis(100);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The protocol.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The socket.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        error: io::Error,
    },
    /// The master closed the connection.
    #[error("the master closed the connection in state '{0}'")]
    Closed(&'static str),
    /// By CLIENT KILL.
    #[error("the connection was killed by a client")]
    Killed,
    /// The link is not wanted any more.
    #[error("the link is no longer wanted")]
    Cancelled,
}

/// The wire of one link.
pub struct Wire<'s> {
    stream: TcpStream,
    /// The protocol.
    pub replica: Replica,
    buf: Vec<u8>,
    /// First byte not yet consumed.
    at: usize,
    filled: usize,
    server: &'s Server,
    turn: u64,
    /// The link among the clients, where it can be killed.
    info: Arc<ClientInfo>,
}

/// Connects to the master.
///
/// # Errors
/// The name has no address, none of them answers in time, or the connection is not `wanted` any more.
pub fn connect(upstream: &Upstream, timeout: Duration, wanted: &dyn Fn() -> bool) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(upstream, timeout, wanted)? {
        match connect_to(address, timeout, wanted) {
            Ok(stream) => {
                // A free port that we call from may be the one that we call: nobody listens there but ourselves.
                if stream.local_addr()? == stream.peer_addr()? {
                    last = io::Error::new(io::ErrorKind::ConnectionRefused, "connected to itself");
                    continue;
                }
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                stream.set_read_timeout(Some(SLICE))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a name is being looked up. That cannot be stopped, so it may outlive the link that wanted it; there is one at a time all the same.
static RESOLVING: AtomicBool = AtomicBool::new(false);

/// The addresses of the master, looked up on a thread of its own, which is left alone if its answer is not `wanted` any more, or takes too long.
fn addresses(upstream: &Upstream, timeout: Duration, wanted: &dyn Fn() -> bool) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = upstream.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, upstream.port)]);
    }
    let until = monotonic_ms() + timeout.as_millis() as u64;
    let look_up = || match (wanted(), monotonic_ms() > until) {
        (false, _) => Err(io::Error::new(io::ErrorKind::Interrupted, "no longer wanted")),
        (true, true) => Err(io::Error::new(io::ErrorKind::TimedOut, "the name was not found in time")),
        (true, false) => Ok(()),
    };
    while RESOLVING.swap(true, Ordering::SeqCst) {
        look_up()?;
        std::thread::sleep(SLICE);
    }
    let (found, result) = mpsc::sync_channel(1);
    let (host, port) = (upstream.host.clone(), upstream.port);
    let started = std::thread::Builder::new().name("ardb-resolve".into()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        RESOLVING.store(false, Ordering::SeqCst);
        // Whoever asked may have gone.
        let _ = found.send(addresses);
    });
    if let Err(error) = started {
        RESOLVING.store(false, Ordering::SeqCst);
        return Err(error);
    }
    loop {
        match result.recv_timeout(SLICE) {
            Ok(addresses) => return addresses,
            Err(RecvTimeoutError::Timeout) => look_up()?,
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the look-up panicked")),
        }
    }
}

/// Connects to one address, looking up now and then.
fn connect_to(address: SocketAddr, timeout: Duration, wanted: &dyn Fn() -> bool) -> io::Result<TcpStream> {
    let mut stream = mio::net::TcpStream::connect(address)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut stream, Token(0), Interest::WRITABLE)?;
    let mut events = Events::with_capacity(4);
    let until = monotonic_ms() + timeout.as_millis() as u64;
    while events.is_empty() {
        if !wanted() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "no longer wanted"));
        }
        if monotonic_ms() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Err(error) = poll.poll(&mut events, Some(SLICE))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
    }
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    poll.registry().deregister(&mut stream)?;
    let stream = TcpStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl<'s> Wire<'s> {
    /// Around a fresh connection.
    #[must_use]
    pub fn new(stream: TcpStream, replica: Replica, server: &'s Server, turn: u64) -> Wire<'s> {
        let shown = |address: io::Result<SocketAddr>| address.map_or_else(|_| String::new(), |a| a.to_string());
        let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let address =
            Address { addr: shown(stream.peer_addr()), laddr: shown(stream.local_addr()), unix: false, local };
        // It belongs to no network thread.
        let info = server.clients.add(address, |_| usize::MAX, clock::unix_ms());
        info.set_class(Class::Master);
        info.fd.store(i64::from(stream.as_raw_fd()), Ordering::Relaxed);
        Wire { stream, replica, buf: vec![0; BUFFER], at: 0, filled: 0, server, turn, info }
    }

    /// Whether the link is still wanted.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), WireError> {
        if !self.server.replication.is_current(self.turn) {
            return Err(WireError::Cancelled);
        }
        if self.info.killed.load(Ordering::Relaxed) { Err(WireError::Killed) } else { Ok(()) }
    }

    /// Sends what the protocol has to say.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self) -> Result<(), WireError> {
        let out = self.replica.take_output();
        self.stream.write_all(&out).map_err(|error| WireError::Io { doing: "writing to the master", error })
    }

    /// What the bytes at hand mean. The bytes of an event are those that [`Wire::bytes`] gives for its range, until the next call.
    ///
    /// # Errors
    /// The link must be given up.
    pub fn step(&mut self) -> Result<Step, WireError> {
        let now = monotonic_ms();
        let step = self.replica.receive(&self.buf[self.at..self.filled], now)?;
        self.at += step.consumed;
        Ok(step)
    }

    /// The bytes of a range in the event of a step that consumed `consumed`.
    #[must_use]
    pub fn bytes(&self, range: std::ops::Range<usize>, consumed: usize) -> &[u8] {
        let base = self.at - consumed;
        &self.buf[base + range.start..base + range.end]
    }

    /// The caller has taken so many of the bytes that an event showed without consuming them.
    pub fn skip(&mut self, bytes: usize) {
        debug_assert!(self.at + bytes <= self.filled, "they were shown");
        self.at += bytes;
    }

    /// The time passes while nothing is read: keeps the link alive.
    ///
    /// # Errors
    /// The link must be given up.
    pub fn idle(&mut self) -> Result<(), WireError> {
        self.check()?;
        self.replica.synced(self.server.store.log().synced());
        self.replica.keep_alive(monotonic_ms());
        self.send()
    }

    /// Does `work`, which may take long, on a thread of its own, and keeps the link alive meanwhile. What breaks on the link shows itself again.
    ///
    /// # Errors
    /// The system has no more threads, or the thread panicked.
    pub fn beside<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T, WireError> {
        let failed = |error| WireError::Io { doing: "working beside the link", error };
        let (done, result) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("ardb-link-work".into());
            let worker = thread.spawn_scoped(scope, move || {
                // We wait for it as long as it takes.
                let _ = done.send(work());
            });
            let worker = worker.map_err(failed)?;
            let mut alive = true;
            loop {
                match result.recv_timeout(ROUND) {
                    Ok(result) => return Ok(result),
                    Err(RecvTimeoutError::Timeout) => alive = alive && self.idle().is_ok(),
                    Err(RecvTimeoutError::Disconnected) => {
                        // A panic that is taken here is not passed on.
                        let _ = worker.join();
                        return Err(failed(io::Error::other("the thread panicked")));
                    }
                }
            }
        })
    }

    /// Waits a little for more bytes. Gives false if none came; only then the master is judged by its silence, since whatever it said while we were
    /// busy waits in the socket.
    ///
    /// # Errors
    /// The link must be given up.
    pub fn more(&mut self) -> Result<bool, WireError> {
        self.idle()?;
        if self.at > 0 {
            // What is left is little: a line, or the beginning of a mark.
            self.buf.copy_within(self.at..self.filled, 0);
            self.filled -= self.at;
            self.at = 0;
        }
        if self.filled == self.buf.len() {
            return Ok(true);
        }
        match self.stream.read(&mut self.buf[self.filled..]) {
            Ok(0) => Err(WireError::Closed(self.replica.state())),
            Ok(n) => {
                self.filled += n;
                self.info.active.store(clock::unix_ms(), Ordering::Relaxed);
                self.server.stats.input.add(n as u64);
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
                    self.replica.tick(monotonic_ms())?;
                    Ok(false)
                }
                _ => Err(WireError::Io { doing: "reading from the master", error }),
            },
        }
    }

    /// The next event, whenever it comes, with the bytes that its step consumed.
    ///
    /// # Errors
    /// The link must be given up.
    pub fn next_event(&mut self) -> Result<(Event, usize), WireError> {
        loop {
            let step = self.step()?;
            if let Some(event) = step.event {
                return Ok((event, step.consumed));
            }
            if step.consumed == 0 {
                self.more()?;
            }
        }
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.server.clients.remove(self.info.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_one_at_a_time_and_only_while_wanted() {
        let upstream = |host: &str| Upstream { host: host.into(), port: 7 };
        let second = Duration::from_secs(1);
        let found = addresses(&upstream("localhost"), Duration::from_secs(30), &|| true).unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
        RESOLVING.store(true, Ordering::SeqCst);
        let kind = |wanted: bool| addresses(&upstream("localhost"), second, &|| wanted).map_err(|error| error.kind());
        assert_eq!(kind(false), Err(io::ErrorKind::Interrupted));
        assert_eq!(kind(true), Err(io::ErrorKind::TimedOut));
        let literal = addresses(&upstream("::1"), second, &|| true).unwrap();
        assert_eq!(literal, ["[::1]:7".parse().unwrap()], "that needs no look-up");
        RESOLVING.store(false, Ordering::SeqCst);
    }
}
