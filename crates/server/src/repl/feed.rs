//! One replica of ours: a thread that answers its SYNC, PSYNC or PSYNC2, sends everything if it must ([`rows`] to our own kind, else an RDB), and then
//! the log.
//!
//! The stream goes out straight from the mapped log, as slowly as the replica takes it, so a slow one costs no memory. A replica that still has to
//! catch up after a dump holds the log, so that its next attempt does not begin from nothing again; one that is online does not, and is let go
//! when the log has left it behind.

pub mod rows;

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use ardb_base::id::{Offset, ReplId};
use ardb_log::{Pin, ReadError, WakerHandle};
use ardb_node::answer::{Answer, answer};
use ardb_node::dump;
use ardb_node::outflow::{CHUNK, Outflow, OutflowEnd};
use ardb_node::private;
use ardb_node::transfers::NotBegun;
use ardb_repl::master::{self, Ask, Peer, Profile, State};
use ardb_repl::rows::{RowsError, SyncId};
use ardb_repl::stream::{Splitter, StreamError};
use mio::{Events, Interest, Poll, Token, Waker};

use super::dump::{Dump, Making, Pace, Progress, join};
use super::status::{PeerView, monotonic_ms};
use crate::clients::Class;
use crate::net::handover::Detached;
use crate::net::stream::Stream;
use crate::server::Server;
use crate::start::random_bytes;

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// The longest wait before the clock and the orders of others are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// What a replica may say in one command.
const WORDS: usize = 64 << 10;
/// How long a replica that wanted the RDB only may take to close the connection, in ms.
const LAST: u64 = 2000;

/// What the replica asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// SYNC.
    Sync,
    /// PSYNC with its two arguments.
    Psync(Vec<u8>, i64),
    /// PSYNC2 with the same, and the transfer and block where it wants to go on.
    Psync2(Vec<u8>, i64, Option<(SyncId, u64)>),
}

/// Why the link ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("{0}")]
    Overdue(master::Drop),
    #[error("it was told to reconnect, or killed")]
    Dismissed,
    #[error("it sent what makes no sense: {0}")]
    Words(#[from] StreamError),
    #[error("{0}")]
    Log(#[from] ReadError),
    #[error("{0}")]
    Outflow(#[from] OutflowEnd),
    #[error("the dump failed: {0}")]
    Dump(String),
    #[error("the rows cannot be read: {0}")]
    Engine(#[from] ardb_engine::EngineError),
    #[error("the rows cannot be sent: {0}")]
    Rows(#[from] RowsError),
    #[error("another connection goes on with its sync")]
    Replaced,
    #[error("it is to try again later: {0}")]
    Later(NotBegun),
    #[error("refused: {0}")]
    Refused(&'static str),
    #[error("it wanted the RDB only")]
    RdbOnly,
    #[error("the server ends")]
    Stopping,
}

struct Feed<'a> {
    server: &'a Arc<Server>,
    stream: Stream,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    input: Splitter,
    peer: Peer,
    view: Arc<PeerView>,
    info: Arc<crate::clients::ClientInfo>,
    readable: bool,
    writable: bool,
    /// When the server's end was noticed, or 0.
    ending: u64,
    /// What goes to it between the dump and our stream: the database that this has selected.
    select: Vec<u8>,
}

/// Takes a connection over whose client asked for the stream. Called on its network thread.
pub fn take_over(server: Arc<Server>, detached: Detached, asked: Asked, profile: Profile) {
    let id = detached.info.id;
    let owner = server.clone();
    let spawned = std::thread::Builder::new().name("ardb-replica".into()).spawn(move || {
        let info = detached.info.clone();
        let address = shown(&info.addr, &profile);
        let view = Arc::new(PeerView::new(id, address.clone(), profile));
        view.show(State::WaitDump, Offset(0), monotonic_ms());
        info.set_class(Class::Replica);
        server.replication.peers.lock().insert(id, view.clone());
        match serve(&server, detached, &view, &asked) {
            End::RdbOnly => log::info!("Replica {address} has the RDB that it asked for"),
            end => log::warn!("Connection with replica {address} lost: {end}"),
        }
        server.replication.peers.lock().remove(&id);
        server.clients.remove(id);
        server.replication.waits.look(&server);
    });
    match spawned {
        Ok(thread) => owner.replication.keep(thread),
        Err(error) => {
            log::warn!("No thread for a replica: {error}");
            owner.clients.remove(id);
        }
    }
}

/// The replica as Redis shows it: its address with the port that it listens on. The last colon parts them; an IPv6 address has no brackets, because
/// Sentinel and FAILOVER take it for an address as it is.
fn shown(addr: &str, profile: &Profile) -> String {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    format!("{}:{}", profile.address.as_deref().unwrap_or(host), profile.port)
}

fn serve(server: &Arc<Server>, detached: Detached, view: &Arc<PeerView>, asked: &Asked) -> End {
    let Detached { mut stream, info, unread, unsent, .. } = detached;
    let prepare = |stream: &mut Stream| -> io::Result<(Poll, Arc<Waker>)> {
        let poll = Poll::new()?;
        poll.registry().register(stream, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        if let Stream::Tcp(tcp) = stream {
            tcp.set_nodelay(!server.config.flag("repl-disable-tcp-nodelay"))?;
        }
        Ok((poll, waker))
    };
    let (poll, waker) = match prepare(&mut stream) {
        Ok(prepared) => prepared,
        Err(error) => return error.into(),
    };
    let known = view.waker.set(waker.clone()).is_ok();
    debug_assert!(known, "a replica has one thread");
    let old = matches!(asked, Asked::Sync);
    view.old.store(old, Ordering::Relaxed);
    let mut feed = Feed {
        server,
        stream,
        poll,
        events: Events::with_capacity(16),
        waker,
        input: Splitter::new(WORDS),
        peer: Peer::waiting(old, monotonic_ms()),
        view: view.clone(),
        info,
        readable: true,
        writable: true,
        ending: 0,
        select: Vec::new(),
    };
    let result = feed.hear(&unread).and_then(|()| feed.write_all(&unsent)).and_then(|()| feed.run(asked));
    match result {
        Ok(never) => match never {},
        Err(end) => {
            if matches!(end, End::RdbOnly) {
                feed.close_gently();
            }
            end
        }
    }
}

/// The stream has no end of its own.
enum Never {}

impl Feed<'_> {
    fn run(&mut self, asked: &Asked) -> Result<Never, End> {
        let name = self.view.address.clone();
        let counts = &self.server.replication;
        let known;
        let ask = match asked {
            Asked::Sync => Ask::Sync,
            Asked::Psync(id, offset) | Asked::Psync2(id, offset, _) => {
                known = counts.names.resolve(id, *offset);
                // Nobody else knows a name that was made for one replica, so what it may be called later does no harm.
                let names = self.view.profile.psync2 || known.is_some();
                let id = known.as_ref().map_or(&id[..], |id| &id.as_bytes()[..]);
                Ask::Psync { id, offset: *offset, names }
            }
        };
        // Going on too: one that follows itself, or a circle, would call itself up.
        if self.server.shared.gates.is_replica.load(Ordering::SeqCst) && !counts.link_is_up() {
            self.write_all(b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n")?;
            return Err(End::Refused("our own master is not there"));
        }
        match answer(&self.server.store, ask) {
            Answer::Continue { from, history, outflow } => {
                counts.partial_ok.fetch_add(1, Ordering::Relaxed);
                log::info!(
                    "Partial resynchronization request from {name} accepted. Sending {} bytes of backlog starting from offset {}.",
                    self.server.store.log().end().since(from),
                    from.0 + 1
                );
                let answer = match self.view.profile.psync2 {
                    true => format!("+CONTINUE {}\r\n", history.id),
                    false => "+CONTINUE\r\n".to_owned(),
                };
                self.write_all(answer.as_bytes())?;
                self.peer = Peer::going_on(from, monotonic_ms());
                self.show();
                self.stream_log(*outflow, None)
            }
            Answer::Full(why) => {
                if let Ask::Psync { id, .. } = ask
                    && id != b"?"
                {
                    counts.partial_err.fetch_add(1, Ordering::Relaxed);
                    let history = self.server.store.history();
                    log::info!(
                        "Partial resynchronization not accepted for {name}: {why} (it asked for {}:{}; ours is {}, before it {})",
                        String::from_utf8_lossy(id),
                        match ask {
                            Ask::Psync { offset, .. } => offset,
                            Ask::Sync => -1,
                        },
                        history.id,
                        history.second
                    );
                }
                if let Asked::Psync2(_, _, resume) = asked {
                    log::info!("Full resync by rows requested by replica {name}");
                    return self.full_rows(*resume);
                }
                log::info!("Full resync requested by replica {name}");
                self.full()
            }
        }
    }

    fn full(&mut self) -> Result<Never, End> {
        if self.view.profile.eof && self.server.config.flag("repl-diskless-sync") {
            self.full_streamed()
        } else {
            self.full_spooled()
        }
    }

    /// Whether it understands what an RDB says besides keys: the database that the stream has selected.
    fn reads_aux(&self) -> bool {
        self.view.profile.psync2
    }

    /// Promises everything. `aux` is that of the dump.
    fn announce(&mut self, point: &dump::Point, aux: bool) -> Result<(), End> {
        let (mut id, mut offset) = (point.id, point.offset);
        if let Some(db) = point.db.filter(|db| *db != 0 && !(aux && self.reads_aux())) {
            // A SELECT before our stream tells it. Those that count offsets get a history of their own for that, in which our bytes have our offsets.
            let select = private::select(db);
            let room = offset.0.checked_sub(select.len() as u64).filter(|_| !aux);
            let Some(before) = room else {
                self.write_all(b"-TRYAGAIN no dump for this replica at this moment\r\n")?;
                return Err(End::Refused("the dump tells it nothing of the database that the stream has selected"));
            };
            if !self.peer.is_old() {
                let mut random = [0; 20];
                random_bytes(&mut random);
                (id, offset) = (ReplId::from_random(random), Offset(before));
                self.server.replication.names.give(id, point.id, point.offset);
                log::info!("Replica {} knows the history {} as {id}", self.view.address, point.id);
            }
            self.select = select;
        }
        self.server.replication.sync_full.fetch_add(1, Ordering::Relaxed);
        if !self.peer.is_old() {
            self.write_all(format!("+FULLRESYNC {id} {offset}\r\n").as_bytes())?;
        }
        Ok(())
    }

    /// Writes the RDB to the socket as it is made.
    fn full_streamed(&mut self) -> Result<Never, End> {
        let started = monotonic_ms();
        let server = self.server;
        let (mut snapshot, point) = self.beside(|| dump::snapshot(server.node()))?.map_err(End::Dump)?;
        let pin = snapshot.take_pin();
        let aux = self.reads_aux();
        self.announce(&point, aux)?;
        let said = if aux { point } else { point.without_aux() };
        let mut random = [0; 20];
        random_bytes(&mut random);
        let mark = *ReplId::from_random(random).as_bytes();
        self.write_all(&[b"$EOF:", &mark[..], b"\r\n"].concat())?;
        self.view.streamed.store(true, Ordering::Relaxed);
        self.peer.dump_begins(monotonic_ms());
        self.show();
        let making = Making::begin(self.server);
        let mut out = Out { feed: self, end: None };
        let (server, pace) = (out.feed.server, Pace::of(out.feed.server));
        let (info, view) = (out.feed.info.clone(), out.feed.view.clone());
        // The rest shows itself when the socket is written to.
        let wanted = || {
            !server.replication.stopping.load(Ordering::SeqCst)
                && !info.killed.load(Ordering::Relaxed)
                && !view.dismissed.load(Ordering::SeqCst)
        };
        let written = dump::write(&snapshot, &said, &mut out, || pace.sleep(wanted));
        let end = out.end.take();
        drop(making);
        drop(snapshot);
        let keys = match (written, end) {
            (_, Some(end)) => return Err(end),
            (Err(why), None) => return Err(End::Dump(why)),
            (Ok(keys), None) => keys,
        };
        self.write_all(&mark)?;
        log::info!("Streamed {keys} keys to replica {}, in {} ms", self.view.address, monotonic_ms() - started);
        self.dump_is_sent(true, point, pin, None)
    }

    /// Sends a file, whose length comes first.
    fn full_spooled(&mut self) -> Result<Never, End> {
        let shared = join(self.server, self.reads_aux())?;
        let mut announced = false;
        let (point, file, length) = loop {
            let progress = shared.progress();
            if let (Progress::Writing(point) | Progress::Done(point, ..), false) = (&progress, announced) {
                self.announce(point, shared.aux)?;
                announced = true;
            }
            match progress {
                Progress::Done(point, file, length) => break (point, file, length),
                Progress::Failed(why) => return Err(End::Dump(why)),
                Progress::Preparing | Progress::Writing(_) => {}
            }
            self.wait_for_dump(announced)?;
        };
        self.peer.dump_begins(monotonic_ms());
        self.show();
        self.write_all(format!("${length}\r\n").as_bytes())?;
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            let part = buffer.len().min((length - at) as usize);
            // Replicas share the file, so none of them may move its position.
            file.read_exact_at(&mut buffer[..part], at)?;
            self.write_all(&buffer[..part])?;
            at += part as u64;
        }
        log::info!("Sent {length} bytes of RDB to replica {}", self.view.address);
        self.dump_is_sent(false, point, None, Some(shared))
    }

    /// Waits a little, and gives a sign of life if that is due.
    fn wait_for_dump(&mut self, announced: bool) -> Result<(), End> {
        self.pump(Duration::from_millis(20), false)?;
        // Before the answer to its PSYNC Redis 2.8 takes an empty line for the answer.
        let understands = announced || self.peer.is_old() || self.view.profile.psync2;
        if understands && self.peer.wants_sign(monotonic_ms()) {
            self.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Does `work` on a thread of its own before a full sync is announced, and hears and signs meanwhile. It is waited for even if the link ends.
    fn beside<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T, End> {
        let (done, result) = mpsc::sync_channel(1);
        let waker = self.waker.clone();
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("ardb-snapshot".into()).spawn_scoped(scope, move || {
                // Whoever waited may have gone; and the only failure of waking is a full counter, and then it is awake.
                let _ = done.send(work());
                let _ = waker.wake();
            })?;
            loop {
                match result.try_recv() {
                    Ok(result) => return Ok(result),
                    Err(TryRecvError::Empty) => self.wait_for_dump(false)?,
                    Err(TryRecvError::Disconnected) => {
                        // A panic that is taken here is not passed on.
                        let _ = worker.join();
                        return Err(End::Dump("its thread panicked".into()));
                    }
                }
            }
        })
    }

    /// The stream follows. `pin` or `dump` hold the log until the replica has caught up.
    fn dump_is_sent(
        &mut self,
        marked: bool,
        point: dump::Point,
        pin: Option<Pin>,
        dump: Option<Arc<Dump>>,
    ) -> Result<Never, End> {
        if self.view.profile.rdb_only {
            return Err(End::RdbOnly);
        }
        self.peer.dump_sent(marked, monotonic_ms());
        self.show();
        while !self.peer.takes_stream() {
            self.pump(ROUND, false)?;
        }
        self.catch_up(point, pin, dump)
    }

    /// The replica has everything up to `point`: the log follows.
    fn catch_up(&mut self, point: dump::Point, pin: Option<Pin>, dump: Option<Arc<Dump>>) -> Result<Never, End> {
        log::info!("Synchronization with replica {} succeeded", self.view.address);
        let select = std::mem::take(&mut self.select);
        self.write_all(&select)?;
        let outflow = Outflow::new(&self.server.store, point.id, point.offset)?;
        self.stream_log(outflow, Some((pin, dump)))
    }

    fn stream_log(
        &mut self,
        mut out: Outflow,
        mut hold: Option<(Option<Pin>, Option<Arc<Dump>>)>,
    ) -> Result<Never, End> {
        let waker = self.waker.clone();
        let handle: WakerHandle = self.server.store.log().register_waker(Arc::new(move || {
            // The only failure is a full counter, and then the thread is awake.
            let _ = waker.wake();
        }));
        loop {
            out.gather(&self.server.store)?;
            if out.is_empty() {
                hold = None;
                if self.ending > 0 {
                    return Err(End::Stopping);
                }
                let wait = if handle.arm(out.offset()) { ROUND } else { Duration::ZERO };
                self.pump(wait, false)?;
                continue;
            }
            if let Some((Some(pin), _)) = &mut hold {
                pin.advance(out.offset());
            }
            if self.server.sync_always() {
                out.settle(&self.server.store)?;
            }
            let sent = self.write(out.bytes())?;
            out.advance(sent);
            // Acknowledgements must be heard however much there is to send.
            self.pump(if sent == 0 { ROUND } else { Duration::ZERO }, sent == 0)?;
        }
    }

    fn show(&self) {
        let now = monotonic_ms();
        self.view.show(self.peer.state(), self.peer.acknowledged(), now.saturating_sub(self.peer.lag(now)));
    }

    /// Waits at most so long for something to happen, and hears what the replica says. `blocked` says that bytes wait for it.
    fn pump(&mut self, wait: Duration, blocked: bool) -> Result<(), End> {
        let ready = self.readable || (blocked && self.writable);
        let wait = if ready { Duration::ZERO } else { wait };
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &self.events {
            if event.token() == SOCKET {
                self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
            }
        }
        let now = monotonic_ms();
        if self.peer.takes_stream() {
            self.view.lag.lock().mark(self.server.store.log().end(), now);
        }
        let replication = &self.server.replication;
        if self.info.killed.load(Ordering::Relaxed) || self.view.dismissed.load(Ordering::SeqCst) {
            return Err(End::Dismissed);
        }
        if replication.stopping.load(Ordering::SeqCst) {
            if self.ending == 0 {
                self.ending = now;
            }
            let limit = self.server.config.int("shutdown-timeout").max(0) as u64 * 1000;
            if !self.peer.takes_stream() || now - self.ending > limit {
                return Err(End::Stopping);
            }
        }
        while self.readable {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => self.hear(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let timeout = self.server.config.int("repl-timeout").max(1) as u64 * 1000;
        match self.peer.overdue(timeout, blocked, now) {
            Some(why) => Err(End::Overdue(why)),
            None => Ok(()),
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.info.active.store(crate::clock::unix_ms(), Ordering::Relaxed);
        self.input.push(bytes)?;
        let now = monotonic_ms();
        self.peer.lives(now);
        self.show();
        let mut heard = false;
        while let Some(units) = self.input.batch(usize::MAX) {
            let (peer, view) = (&mut self.peer, &self.view);
            // It has no way to fail: what is not understood is not for us.
            let _ = units.each(|args, _, _| {
                if let Some(ack) = master::acknowledgement(args) {
                    peer.acknowledge(ack.applied, now);
                    if let Some(synced) = ack.synced {
                        view.show_synced(synced);
                    }
                    heard = true;
                }
                Ok::<(), ()>(())
            });
            let length = units.bytes().len();
            self.input.consume(length);
        }
        if heard {
            self.show();
            if self.peer.takes_stream() && !self.peer.is_old() {
                self.view.lag.lock().acknowledged(self.peer.acknowledged(), self.server.store.log().end(), now);
            }
            self.server.replication.waits.look(self.server);
        }
        Ok(())
    }

    /// Sends what the socket takes now.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, End> {
        match self.stream.write(bytes) {
            Ok(n) => {
                self.peer.sent(monotonic_ms());
                self.server.stats.output.add(n as u64);
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let sent = self.write(bytes)?;
            bytes = &bytes[sent..];
            if sent == 0 {
                self.pump(ROUND, true)?;
            }
        }
        Ok(())
    }

    /// Lets the other side read everything before the socket goes.
    fn close_gently(&mut self) {
        let socket = match &self.stream {
            Stream::Tcp(tcp) => rustix::net::shutdown(tcp, rustix::net::Shutdown::Write),
            Stream::Unix(unix) => rustix::net::shutdown(unix, rustix::net::Shutdown::Write),
        };
        let until = monotonic_ms() + LAST;
        while socket.is_ok() && monotonic_ms() < until && self.pump(ROUND, false).is_ok() {}
    }
}

/// The socket as the RDB writer sees it. It keeps the reason of a failure, which an I/O error could not carry.
struct Out<'f, 'a> {
    feed: &'f mut Feed<'a>,
    end: Option<End>,
}

impl Write for Out<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.feed.write_all(buf).and_then(|()| self.feed.pump(Duration::ZERO, false)) {
            Ok(()) => Ok(buf.len()),
            Err(end) => {
                let shown = io::Error::other(end.to_string());
                self.end = Some(end);
                Err(shown)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_by_address_and_port() {
        let named = |addr: &str, address: Option<&str>| {
            shown(addr, &Profile { port: 7, address: address.map(str::to_owned), ..Profile::default() })
        };
        assert_eq!(named("10.0.0.1:50000", None), "10.0.0.1:7");
        assert_eq!(named("[fe80::1]:50000", None), "fe80::1:7");
        assert_eq!(named("[::1]:50000", Some("there.example")), "there.example:7");
    }
}
