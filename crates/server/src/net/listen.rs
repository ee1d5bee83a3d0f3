//! Listening sockets, and who is let in.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::stream::Stream;
use super::worker::LISTENERS;
use crate::clients::{Address, ClientInfo};
use crate::clock;
use crate::config::Config;
use crate::server::Server;

/// Connections accepted before the others get their turn.
const ACCEPTS: usize = 1000;

/// What a client from another machine is told in protected mode.
const DENIED: &str = "-DENIED Ardb is running in protected mode because protected mode is enabled and no password is set for \
the default user. In this mode connections are only accepted from the loopback interface. To connect from other machines, \
either set a password with 'requirepass', or send 'CONFIG SET protected-mode no' from this machine (and make sure that the server cannot \
be reached from the internet), or start it with '--protected-mode no'.\r\n";

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

/// All listening sockets.
pub struct Listeners {
    all: Vec<Listener>,
    /// See [`Listeners::unfinished`].
    again: BTreeSet<usize>,
}

/// A listening socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {on}: {why}")]
pub struct ListenError {
    /// The address or path.
    pub on: String,
    /// The system's reason.
    pub why: io::Error,
}

impl Listeners {
    /// Opens what the configuration names. Gives the port too, which the system chooses if the first address has none.
    ///
    /// # Errors
    /// An address cannot be listened on (unless it is marked with `-`), or there is nothing to listen on.
    pub fn open(config: &Config) -> Result<(Listeners, u16), ListenError> {
        let port = u16::try_from(config.int("port")).unwrap_or(0);
        let backlog = i32::try_from(config.int("tcp-backlog")).unwrap_or(511);
        let mut all = Vec::new();
        if port != 0 {
            for word in config.text("bind").split_whitespace() {
                let optional = word.starts_with('-');
                let host = word.trim_start_matches('-');
                let host = match host {
                    "*" => "0.0.0.0",
                    "::*" => "::",
                    host => host,
                };
                match tcp(host, port, backlog) {
                    Ok(listener) => all.push(Listener::Tcp(listener)),
                    Err(why) if optional && why.kind() != io::ErrorKind::AddrInUse => {
                        log::debug!("not listening on {host}: {why}");
                    }
                    Err(why) => return Err(ListenError { on: format!("{host}:{port}"), why }),
                }
            }
        }
        let path = config.text("unixsocket");
        if !path.is_empty() {
            let mode = u32::from_str_radix(&config.text("unixsocketperm"), 8).unwrap_or(0);
            let listener = unix(&path, mode).map_err(|why| ListenError { on: path.clone(), why })?;
            all.push(Listener::Unix(listener, path));
        }
        if all.is_empty() {
            let why = io::Error::other("no address and no unix socket is configured");
            return Err(ListenError { on: "anything".into(), why });
        }
        Ok((Listeners { all, again: BTreeSet::new() }, port))
    }

    /// How many sockets there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Has them watched.
    ///
    /// # Errors
    /// The system's reason.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (i, listener) in self.all.iter_mut().enumerate() {
            let token = Token(LISTENERS - i);
            match listener {
                Listener::Tcp(socket) => registry.register(socket, token, Interest::READABLE)?,
                Listener::Unix(socket, _) => registry.register(socket, token, Interest::READABLE)?,
            }
        }
        Ok(())
    }

    /// Listeners on which more may wait, of which the system will not tell again: there were too many at once, or no file descriptor for them.
    #[must_use]
    pub fn unfinished(&self) -> Vec<usize> {
        self.again.iter().copied().collect()
    }

    /// Accepts what waits on a listener, and hands it to `give` with the thread that is to have it.
    pub fn accept(&mut self, index: usize, server: &Server, give: &mut dyn FnMut(Stream, Arc<ClientInfo>)) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.all.get(index) else { return };
            let accepted = match listener {
                Listener::Tcp(socket) => socket.accept().map(|(stream, peer)| {
                    let laddr = stream.local_addr().map_or_else(|_| String::new(), |addr| shown(&addr));
                    let peer_ip = canonical(peer.ip());
                    let address = Address { addr: shown(&peer), laddr, unix: false, local: peer_ip.is_loopback() };
                    (Stream::Tcp(stream), address)
                }),
                Listener::Unix(socket, path) => socket.accept().map(|(stream, _)| {
                    let addr = format!("{path}:0");
                    (Stream::Unix(stream), Address { laddr: addr.clone(), addr, unix: true, local: true })
                }),
            };
            match accepted {
                Ok((stream, address)) => {
                    if let Some(info) = self.admit(&stream, address, server) {
                        give(stream, info);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.again.remove(&index);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Said once, not at every try.
                    if self.again.insert(index) {
                        log::warn!("Accepting client connection: {error}");
                    }
                    return;
                }
            }
        }
        self.again.insert(index);
    }

    /// Whether the connection is let in; if so, its entry.
    fn admit(&mut self, mut stream: &Stream, address: Address, server: &Server) -> Option<Arc<ClientInfo>> {
        let refuse = |text: &str, stream: &mut &Stream| {
            // A fresh socket takes a line; if not, the client will see the end all the same.
            let _ = match stream {
                Stream::Tcp(socket) => (&mut &*socket).write(text.as_bytes()),
                Stream::Unix(socket) => (&mut &*socket).write(text.as_bytes()),
            };
            server.stats.rejected.fetch_add(1, Ordering::Relaxed);
        };
        if server.clients.count() as i64 >= server.config.int("maxclients") {
            refuse("-ERR max number of clients reached\r\n", &mut stream);
            return None;
        }
        let open = server.shared.gates.needs_auth.load(Ordering::Relaxed) || !server.config.flag("protected-mode");
        if !address.local && !open {
            refuse(DENIED, &mut stream);
            return None;
        }
        let keepalive = u32::try_from(server.config.int("tcp-keepalive")).unwrap_or(0);
        if let Err(error) = stream.configure(keepalive) {
            log::debug!("Accepted a connection that is gone: {error}");
            return None;
        }
        server.stats.connections.fetch_add(1, Ordering::Relaxed);
        log::debug!("Accepted {}", address.addr);
        Some(server.clients.add(address, |id| server.balance.home(id), clock::unix_ms()))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &self.all {
            if let Listener::Unix(_, path) = listener {
                // A leftover socket is replaced at the next start anyway.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// An IPv4 address in IPv6 clothes is what it is.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// `host:port` as Redis shows clients, with brackets around IPv6.
fn shown(addr: &SocketAddr) -> String {
    match canonical(addr.ip()) {
        IpAddr::V4(ip) => format!("{ip}:{}", addr.port()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", addr.port()),
    }
}

fn tcp(host: &str, port: u16, backlog: i32) -> io::Result<TcpListener> {
    let addr = (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address"))?;
    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &addr)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(socket)))
}

/// How long a killed predecessor may take to let go of its port: with much memory mapped, the system needs a moment to end a process.
const PREDECESSOR: Duration = Duration::from_secs(3);

/// Binds the socket, and has some patience with an address that is still in use.
fn bind(socket: &OwnedFd, addr: &SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PREDECESSOR;
    let mut told = false;
    loop {
        match rustix::net::bind(socket, addr) {
            Err(rustix::io::Errno::ADDRINUSE) if Instant::now() < deadline => {
                if !told {
                    log::info!("{} is in use; waiting for a predecessor to end", shown(addr));
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return Ok(result?),
        }
    }
}

fn unix(path: &str, mode: u32) -> io::Result<UnixListener> {
    // A socket that a killed process has left behind would refuse the name for ever.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(Path::new(path))?;
    if mode != 0 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}
