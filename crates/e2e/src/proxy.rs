//! A proxy on a link, which cuts its connections at random bytes, holds them up, or refuses them.
//!
//! Each connection gets a budget of bytes from the server's side when it is made; while the proxy is told to cut, the connection ends
//! exactly after so many of them, wherever that falls. What comes back from the client's side is passed on whole. The beginning of both sides is
//! kept, for tests that look at the words on the wire.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ardb_base::random::Random;

use crate::Result;

#[derive(Debug)]
struct Shared {
    to: AtomicU16,
    cutting: AtomicBool,
    refusing: AtomicBool,
    stop: AtomicBool,
    cuts: AtomicU64,
    connections: AtomicU64,
    /// The bytes of a connection that are never cut.
    least: AtomicU64,
    /// Budgets are less than two to this power.
    scale: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    kept: Mutex<Vec<Kept>>,
}

/// Bytes that are kept of each side of a connection.
const KEPT: usize = 64 << 10;

/// The beginning of what went through one connection.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// From the client's side.
    pub asked: Vec<u8>,
    /// From the server's side.
    pub answered: Vec<u8>,
}

/// A proxy in front of one port. It ends with this.
#[derive(Debug)]
pub struct Proxy {
    /// The loopback port it listens on.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one in front of the loopback port `to`; where it cuts follows from `seed`.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub fn start(to: u16, seed: u64) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            to: AtomicU16::new(to),
            cutting: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            least: AtomicU64::new(1),
            scale: AtomicU64::new(16),
            open: Mutex::new(Vec::new()),
            kept: Mutex::new(Vec::new()),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, seed, &of_thread));
        Ok(Proxy { port, shared })
    }

    /// Whether connections are cut from now on, those that are open included.
    pub fn cutting(&self, on: bool) {
        self.shared.cutting.store(on, Ordering::SeqCst);
    }

    /// Whether new connections are closed at once. (Open ones go on.)
    pub fn refusing(&self, on: bool) {
        self.shared.refusing.store(on, Ordering::SeqCst);
    }

    /// No connection is cut before so many bytes.
    pub fn least(&self, bytes: u64) {
        self.shared.least.store(bytes.max(1), Ordering::SeqCst);
    }

    /// Connections are cut before two to the power of `scale` bytes (16 at first), short ones as often as long ones.
    pub fn scale(&self, scale: u64) {
        self.shared.scale.store(scale.min(40), Ordering::SeqCst);
    }

    /// New connections go to this loopback port.
    pub fn aim(&self, to: u16) {
        self.shared.to.store(to, Ordering::SeqCst);
    }

    /// Ends all open connections now.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were cut after their budget.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// The beginning of what went through each connection.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, seed: u64, shared: &Arc<Shared>) {
    let mut random = Random::new(seed);
    for client in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        // Drawn before anything can fail, so that the n-th connection has the same budget in each run.
        let scale = random.below(shared.scale.load(Ordering::SeqCst) + 1);
        let budget = random.below(1 << scale);
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", shared.to.load(Ordering::SeqCst))) else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let (Ok(server_half), Ok(client_half)) = (server.try_clone(), client.try_clone()) else { continue };
        if let (Ok(one), Ok(other)) = (server.try_clone(), client.try_clone()) {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that have ended have no peer any more.
            open.retain(|stream| stream.peer_addr().is_ok());
            open.extend([one, other]);
        }
        let budget = shared.least.load(Ordering::SeqCst) + budget;
        let link = {
            let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(Kept::default());
            kept.len() - 1
        };
        let of_thread = Arc::clone(shared);
        std::thread::spawn(move || {
            pass(server_half, client_half, budget, &of_thread, |bytes| keep(&of_thread, link, true, bytes));
        });
        let of_thread = Arc::clone(shared);
        std::thread::spawn(move || {
            pass(client, server, u64::MAX, &of_thread, |bytes| keep(&of_thread, link, false, bytes));
        });
    }
}

fn keep(shared: &Shared, link: usize, answered: bool, bytes: &[u8]) {
    let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = kept.get_mut(link) {
        let side = if answered { &mut kept.answered } else { &mut kept.asked };
        side.extend_from_slice(&bytes[..bytes.len().min(KEPT - side.len())]);
    }
}

/// Passes bytes in one direction, up to `budget` of them while connections are cut.
fn pass(mut from: TcpStream, mut to: TcpStream, budget: u64, shared: &Shared, keep: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    let mut passed = 0u64;
    while let Ok(count) = from.read(&mut bytes) {
        let cut = shared.cutting.load(Ordering::SeqCst) && passed + count as u64 >= budget;
        let most = if cut { budget.saturating_sub(passed) as usize } else { count };
        keep(&bytes[..most.min(count)]);
        if count == 0 || to.write_all(&bytes[..most.min(count)]).is_err() {
            break;
        }
        passed += count as u64;
        if cut {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
