//! The loop of one network thread: wait, receive, execute ([`super::burst`]), send.
//!
//! The sockets are registered once, edge-triggered, for reading and writing. A connection that may have more to read than was read, or that has
//! requests left over, stands in `work` and is looked at again without waiting.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_commands::shared::Mailbox;
use ardb_commands::{Session, cmd};
use ardb_node::care::{Care, Foresight};
use ardb_resp::request::Limits;
use ardb_store::Reader;
use mio::{Events, Interest, Poll, Token, Waker};

use super::away::Missed;
use super::connection::Connection;
use super::handover::Detached;
use super::haste::{Crowd, Haste, Round};
use super::input::Received;
use super::listen::Listeners;
use super::mailbox::{Message, ThreadBox, ThreadMailbox};
use super::stream::Stream;
use crate::blocking::{self, Release};
use crate::clients::ClientInfo;
use crate::clock;
use crate::server::Server;

/// The token that wakes the thread.
const WAKER: Token = Token(usize::MAX);
/// Tokens of listeners count down from here.
pub(super) const LISTENERS: usize = usize::MAX - 1;
/// How often idle clients and limits are looked at, ms.
const ROUND: i64 = 100;
/// How often the thread's processor time is noted, ms.
const ACCOUNT: i64 = 10;
/// Reads of one connection before the others get their turn.
const READS: usize = 4;

/// One network thread.
pub struct Worker {
    pub(super) server: Arc<Server>,
    pub(super) reader: Reader,
    pub(super) connections: Vec<Option<Box<Connection>>>,
    /// For each place among them, what the socket had to say while its connection was away.
    pub(super) missed: Vec<Missed>,
    /// How many of these have spoken.
    pub(super) spoken: usize,
    /// Connections to look at in this round.
    pub(super) work: Vec<usize>,
    pub(super) care: Care,
    pub(super) foresight: Foresight,
    /// Requests of the last round asked the engine for rows.
    pub(super) asks_engine: bool,
    poll: Poll,
    haste: Haste,
    crowd: Crowd,
    last_round: Round,
    pub(super) inbox: Arc<ThreadBox>,
    mailbox: Arc<dyn Mailbox>,
    listeners: Option<Listeners>,
    free: Vec<usize>,
    by_id: HashMap<u64, usize>,
    /// When clients stop waiting, with their ids.
    pub(super) deadlines: BTreeSet<(i64, u64)>,
    spare: Vec<Vec<u8>>,
    /// How many of `spare` no round has needed since they were last looked at.
    unused: usize,
    messages: Vec<Message>,
    next_round: i64,
    next_account: i64,
    stopping: bool,
    /// This is a stand-in (see [`super::stand_in`]): it leaves alone what needs the writer lock.
    pub(super) standing_in: bool,
    /// The thread that this one stands in for has time again.
    pub(super) returning: bool,
    /// Messages for connections that are away, with that thread or with one of those that wait for the disk.
    pub(super) late: Vec<Message>,
    /// Connections that are with one of those.
    pub(super) away: usize,
}

impl Worker {
    /// A thread's state. The first thread gets the listeners.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn prepare(index: usize) -> io::Result<(Poll, Arc<ThreadBox>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok((poll, Arc::new(ThreadBox::new(index, waker))))
    }

    /// Around a poll and an inbox from [`Worker::prepare`].
    #[must_use]
    pub fn new(server: Arc<Server>, poll: Poll, inbox: Arc<ThreadBox>, listeners: Option<Listeners>) -> Worker {
        let reader = server.store.reader();
        Worker {
            reader,
            connections: Vec::new(),
            missed: Vec::new(),
            spoken: 0,
            work: Vec::new(),
            care: Care::new(server.slow_after()),
            foresight: Foresight::default(),
            asks_engine: false,
            poll,
            haste: Haste::default(),
            crowd: Crowd::default(),
            last_round: Round::default(),
            mailbox: Arc::new(ThreadMailbox(inbox.clone())),
            inbox,
            listeners,
            free: Vec::new(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            spare: Vec::new(),
            unused: 0,
            messages: Vec::new(),
            next_round: 0,
            next_account: 0,
            stopping: false,
            standing_in: false,
            returning: false,
            late: Vec::new(),
            away: 0,
            server,
        }
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// The system's poll failed, which it does only when the process is broken.
    pub fn run(mut self) -> io::Result<()> {
        if let Some(listeners) = &mut self.listeners {
            listeners.register(self.poll.registry())?;
        }
        Box::new(self).serve()?.end();
        Ok(())
    }

    /// Runs until it is told to stop, or, standing in, to return.
    pub(super) fn serve(mut self: Box<Self>) -> io::Result<Box<Self>> {
        let mut events = Events::with_capacity(1024);
        // One that stands in for another goes on with its clients on its own thread.
        self.crowd = Crowd::of_this_thread();
        while !self.stopping && !self.returning {
            self.wait(&mut events)?;
            self.inbox.awake();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if self.listeners.as_ref().is_some_and(|l| token > LISTENERS - l.count()) => {
                        self.accept(LISTENERS - token);
                    }
                    Token(slot) => match self.connections.get_mut(slot) {
                        Some(Some(connection)) => {
                            connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                            connection.end_ahead |= event.is_read_closed();
                            // A client that waits sends nothing, so its end must be looked for.
                            if event.is_read_closed() && connection.session.is_none() {
                                connection.ended = true;
                            }
                            self.queue(slot);
                        }
                        Some(None) => self.spoken += usize::from(self.missed[slot].note(event)),
                        None => {}
                    },
                }
            }
            self.take_messages();
            self.look_at_clock();
            self = self.round()?;
        }
        Ok(self)
    }

    /// Waits until something happens or is due. What has happened stands in `events`, which holds what happened before.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        if self.work.is_empty() && !events.is_empty() {
            let looks = self.haste.looks();
            if !looks.is_zero() {
                let began = clock::monotonic();
                let pause = self.haste.pause(self.last_round, self.by_id.len());
                while clock::monotonic().saturating_sub(began) < pause {
                    std::hint::spin_loop();
                }
                loop {
                    look(&mut self.poll, events, Some(Duration::ZERO))?;
                    if !events.is_empty() || clock::monotonic().saturating_sub(began) >= pause + looks {
                        break;
                    }
                }
                self.haste.learn(!events.is_empty(), clock::monotonic().saturating_sub(began));
                if !events.is_empty() {
                    return Ok(());
                }
            }
        }
        let timeout = self.timeout();
        look(&mut self.poll, events, timeout)
    }

    /// How long the thread may sleep.
    fn timeout(&mut self) -> Option<Duration> {
        // What waits for a connection that is away wants it back at once, and so does its client.
        let eager = !self.late.is_empty() || self.spoken > 0;
        if !self.work.is_empty() || !self.inbox.going_to_sleep(eager) {
            return Some(Duration::ZERO);
        }
        // Without connections there is nothing that could become due.
        if self.by_id.is_empty() && self.listeners.is_none() {
            self.spare = Vec::new();
            return None;
        }
        let mut until = self.next_round;
        if let Some((first, _)) = self.deadlines.first() {
            until = until.min(*first);
        }
        Some(Duration::from_millis((until - clock::unix_ms()).clamp(0, ROUND) as u64))
    }

    /// Puts a connection on the list of those to look at.
    pub(super) fn queue(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut)
            && !connection.queued
        {
            connection.queued = true;
            self.work.push(slot);
        }
    }

    /// Passes a message on to the thread that a client has moved to.
    fn pass_on(&self, client: u64, message: Message) {
        if let Some(info) = self.server.clients.get(client)
            && info.thread.load(Ordering::Acquire) != self.inbox.index()
        {
            self.server.tell(&info, message);
        }
    }

    /// Gives a connection to the thread that it belongs to now.
    fn move_out(&mut self, slot: usize) {
        let Some(connection) = self.detach(slot) else { return };
        let home = self.server.balance.home(connection.info.id);
        if let Some(thread) = self.server.threads().get(home) {
            connection.info.thread.store(home, Ordering::Release);
            thread.post(Message::Moved(connection));
        }
    }

    /// Takes a connection of another thread.
    fn move_in(&mut self, mut connection: Box<Connection>) {
        if let Some(session) = &mut connection.session {
            session.mailbox = self.mailbox.clone();
        }
        // What its socket had to say meanwhile was said to nobody.
        (connection.readable, connection.end_ahead, connection.queued) = (true, true, false);
        self.enter(connection);
    }

    fn accept(&mut self, listener: usize) {
        let Some(listeners) = &mut self.listeners else { return };
        let server = self.server.clone();
        listeners.accept(listener, &server, &mut |stream, info| {
            if let Some(thread) = server.threads().get(info.thread.load(Ordering::Relaxed)) {
                thread.post(Message::Accepted(stream, info));
            }
        });
    }

    fn take_messages(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        self.inbox.take(&mut messages);
        for message in messages.drain(..) {
            self.take_message(message);
        }
        self.messages = messages;
    }

    pub(super) fn take_message(&mut self, message: Message) {
        match message {
            Message::Accepted(stream, info) => self.open(stream, info),
            Message::Deliver(client, bytes) => {
                let Some(&slot) = self.by_id.get(&client) else {
                    return self.pass_on(client, Message::Deliver(client, bytes));
                };
                match &mut self.connections[slot] {
                    Some(connection) => connection.out.raw(&bytes),
                    None => self.late.push(Message::Deliver(client, bytes)),
                }
                self.queue(slot);
            }
            Message::Resume(mut resumed) => {
                let id = resumed.session.id;
                let Some(&slot) = self.by_id.get(&id) else {
                    forget(&self.server, &mut resumed.session);
                    return;
                };
                match &mut self.connections[slot] {
                    Some(connection) => {
                        if let Some(deadline) = connection.deadline.take() {
                            self.deadlines.remove(&(deadline, id));
                        }
                        connection.info.blocked.store(false, Ordering::Relaxed);
                        connection.out.raw(&resumed.reply);
                        connection.session = Some(resumed.session);
                    }
                    None => self.late.push(Message::Resume(resumed)),
                }
                self.queue(slot);
            }
            Message::Kill(client) => match self.by_id.get(&client) {
                Some(&slot) => self.queue(slot),
                None => self.pass_on(client, Message::Kill(client)),
            },
            Message::LookAgain => self.look_again(),
            Message::Moved(connection) => self.move_in(connection),
            Message::TakeBack => self.returning = true,
            Message::Return(returned) => self.take_in(*returned),
            Message::Stop => self.stopping = true,
        }
    }

    /// Looks at all connections in the next round.
    pub(super) fn look_again(&mut self) {
        (0..self.connections.len()).for_each(|slot| self.queue(slot));
    }

    fn open(&mut self, stream: Stream, info: Arc<ClientInfo>) {
        info.fd.store(i64::from(stream.fd()), Ordering::Relaxed);
        let session = Session::new(info.id, self.mailbox.clone());
        self.enter(Box::new(Connection::new(stream, info, session)));
    }

    /// Gives a connection a place among those of this thread.
    fn enter(&mut self, mut connection: Box<Connection>) {
        let slot = self.free.pop().unwrap_or(self.connections.len());
        let interests = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut connection.stream, Token(slot), interests) {
            log::warn!("Cannot watch a new connection: {error}");
            self.server.clients.remove(connection.info.id);
            if let Some(session) = &mut connection.session {
                forget(&self.server, session);
            }
            if slot < self.connections.len() {
                self.free.push(slot);
            }
            return;
        }
        self.by_id.insert(connection.info.id, slot);
        let connection = Some(connection);
        if slot == self.connections.len() {
            self.connections.push(connection);
            self.missed.push(Missed::default());
        } else {
            self.connections[slot] = connection;
        }
        self.queue(slot);
    }

    /// Timeouts of waiting clients, and once a round those of idle ones.
    fn look_at_clock(&mut self) {
        if self.deadlines.is_empty() && self.next_round == i64::MAX {
            return;
        }
        let now = clock::unix_ms();
        while let Some(&(deadline, client)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(&slot) = self.by_id.get(&client)
                && let Some(connection) = &mut self.connections[slot]
            {
                connection.deadline = None;
            }
            blocking::release(&self.server, client, Release::Timeout);
        }
        if now >= self.next_account {
            // A thread that waits for a processor has work.
            self.inbox.account(self.haste.spent(), self.crowd.waited().unwrap_or_default());
            self.next_account = now + ACCOUNT;
        }
        if now < self.next_round {
            return;
        }
        self.next_round = now + ROUND;
        self.haste.waited(self.crowd.share(clock::monotonic()));
        for listener in self.listeners.as_ref().map(Listeners::unfinished).unwrap_or_default() {
            self.accept(listener);
        }
        let idle = self.server.config.int("timeout") * 1000;
        let limits = *self.server.output_limits.read();
        let pause_over = {
            let until = self.server.pause.until.load(Ordering::Relaxed);
            until != 0 && now >= until
        };
        for slot in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[slot] else { continue };
            let silent = now - connection.info.active.load(Ordering::Relaxed);
            let listens = connection.session.as_ref().is_none_or(Session::in_pubsub);
            if idle > 0 && silent > idle && !listens {
                log::debug!("Closing idle client");
                connection.info.killed.store(true, Ordering::Relaxed);
                self.queue(slot);
            } else if connection.over_limit(&limits, now) {
                self.shed_reader(slot);
            } else if pause_over && connection.input.next().is_some() {
                self.queue(slot);
            }
        }
        // As many as a round needs stay.
        self.spare.truncate(self.spare.len().saturating_sub(self.unused));
        self.unused = self.spare.len();
    }

    /// Closes a client that does not read its replies.
    fn shed_reader(&mut self, slot: usize) {
        if let Some(connection) = &self.connections[slot] {
            log::warn!(
                "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
                connection.info.line(clock::unix_ms())
            );
            self.server.stats.output_kills.fetch_add(1, Ordering::Relaxed);
            connection.info.killed.store(true, Ordering::Relaxed);
            self.queue(slot);
        }
    }

    /// One round over the connections that have something to do.
    fn round(mut self: Box<Self>) -> io::Result<Box<Self>> {
        if self.work.is_empty() {
            return Ok(self);
        }
        let slots = std::mem::take(&mut self.work);
        let now = clock::unix_ms();
        self.last_round = Round { clients: slots.len(), requests: 0 };
        for &slot in &slots {
            if let Some(connection) = &mut self.connections[slot] {
                connection.queued = false;
                connection.passed_over = false;
            }
            self.receive(slot, now);
        }
        self.unused = self.unused.min(self.spare.len());
        self = self.execute(&slots)?;
        let limits = *self.server.output_limits.read();
        // They are looked at again in this order, so those that had no turn get theirs first.
        for passed_over in [true, false] {
            for &slot in &slots {
                if self.connections[slot].as_ref().is_some_and(|connection| connection.passed_over == passed_over) {
                    self.settle(slot, now, &limits);
                }
            }
        }
        Ok(self)
    }

    /// Reads what has come, and understands it.
    fn receive(&mut self, slot: usize, now: i64) {
        let Some(connection) = &mut self.connections[slot] else { return };
        for _ in 0..READS {
            if !connection.wants_input() || connection.killed() {
                break;
            }
            let before = connection.input.pending_bytes();
            match connection.input.receive(&mut connection.stream, &mut self.spare) {
                Ok(Received::End) => connection.ended = true,
                Ok(received) => {
                    connection.end_ahead &= received != Received::Nothing;
                    connection.readable = received == Received::More || connection.end_ahead;
                    let bytes = connection.input.pending_bytes() - before;
                    self.server.stats.input.add(bytes as u64);
                    connection.info.active.store(now, Ordering::Relaxed);
                    self.server.stats.reads.add(1);
                }
                Err(error) => {
                    log::debug!("Reading from client: {error}");
                    connection.info.killed.store(true, Ordering::Relaxed);
                    return;
                }
            }
            let gates = &self.server.shared.gates;
            let limits = Limits {
                max_bulk: self.server.shared.settings.max_bulk.load(Ordering::Relaxed),
                authenticated: !gates.needs_auth.load(Ordering::Relaxed)
                    || connection.session.as_ref().is_some_and(|session| session.authenticated),
            };
            connection.input.parse(&self.server.shared.table, limits);
            if connection.input.next().is_some() {
                break;
            }
        }
        self.last_round.requests += connection.input.waiting();
        let limit = self.server.query_limit();
        let queued =
            connection.session.as_ref().and_then(|session| session.multi.as_ref()).map_or(0, |queue| queue.bytes);
        if (connection.input.pending_bytes() + queued) as u64 > limit {
            log::warn!(
                "Closing client that reached max query buffer length: {}",
                connection.info.line(clock::unix_ms())
            );
            self.server.stats.input_kills.fetch_add(1, Ordering::Relaxed);
            connection.info.killed.store(true, Ordering::Relaxed);
        }
    }

    /// After the execution: sends replies, and decides whether the connection goes on.
    fn settle(&mut self, slot: usize, now: i64, limits: &[crate::config::OutputLimit; 3]) {
        let Some(connection) = &mut self.connections[slot] else { return };
        if let Some(error) = connection.input.error()
            && !connection.closing
            && connection.session.is_some()
        {
            log::debug!("{error} from client: {}", connection.info.line(now));
            connection.out.error(format!("ERR {error}").as_bytes());
            connection.closing = true;
        }
        connection.publish();
        if connection.over_limit(limits, now) {
            self.shed_reader(slot);
            self.close(slot);
            return;
        }
        let unsent = connection.unsent();
        let flushed = match connection.flush() {
            Ok(flushed) => flushed,
            Err(error) => {
                log::debug!("Error writing to client: {error}");
                self.close(slot);
                return;
            }
        };
        if unsent > 0 {
            self.server.stats.writes.add(1);
            self.server.stats.output.add((unsent - connection.unsent()) as u64);
        }
        let waits = connection.session.is_none();
        let idle = connection.input.next().is_none() || (waits && connection.ended);
        if connection.killed() || (connection.closing && flushed) || (connection.ended && idle && (flushed || waits)) {
            self.close(slot);
            return;
        }
        if connection.info.handing_over.load(Ordering::Acquire) && connection.session.is_some() {
            self.hand_over(slot);
            return;
        }
        if self.server.balance.home(connection.info.id) != self.inbox.index()
            && !self.standing_in
            && connection.movable()
        {
            self.move_out(slot);
            return;
        }
        connection.input.release(&mut self.spare);
        if !connection.held && (connection.wants_input() || connection.runnable_now(&self.server)) {
            self.queue(slot);
        }
    }

    fn detach(&mut self, slot: usize) -> Option<Box<Connection>> {
        let mut connection = self.connections[slot].take()?;
        self.free.push(slot);
        self.by_id.remove(&connection.info.id);
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, connection.info.id));
        }
        // It fails only for a socket that is not registered.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        Some(connection)
    }

    fn close(&mut self, slot: usize) {
        let Some(mut connection) = self.detach(slot) else { return };
        let id = connection.info.id;
        connection.info.killed.store(true, Ordering::Relaxed);
        // In this order: see `Parked::park`.
        self.server.clients.remove(id);
        if let Some(waiting) = self.server.parked.take(&self.server.shared, id) {
            connection.session = Some(waiting.session);
        }
        self.server.replication.waits.leave(&self.server, id);
        if let Some(session) = &mut connection.session {
            forget(&self.server, session);
        }
    }

    fn hand_over(&mut self, slot: usize) {
        let Some(mut connection) = self.detach(slot) else { return };
        let taker = connection.info.handover.lock().take();
        let unsent = connection.take_unsent();
        let Connection { stream, info, session, input, .. } = *connection;
        match (taker, session) {
            (Some(take), Some(session)) => {
                take(Detached { stream, session, info, unread: input.into_unread(), unsent })
            }
            _ => self.server.clients.remove(info.id),
        }
    }

    /// Sends what can be sent at once, and closes everything.
    fn end(&mut self) {
        while self.away > 0 {
            std::thread::sleep(Duration::from_millis(1));
            self.take_messages();
        }
        for slot in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[slot] {
                let _ = connection.flush();
            }
            self.close(slot);
        }
    }
}

/// Waits for events as long as it may; to be interrupted is as good as to find none.
fn look(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

/// Undoes what a client has registered with others.
pub fn forget(server: &Server, session: &mut Session) {
    cmd::pubsub::leave(session, &server.shared);
    cmd::multi::unwatch_all(session, &server.shared);
}
