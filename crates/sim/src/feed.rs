//! The driver of one replica on its master's side, in the order in which the server's thread does the same things.

use std::sync::atomic::Ordering;

use ardb_base::id::{Offset, ReplId};
use ardb_base::number::{parse_i64, parse_u64};
use ardb_log::Pin;
use ardb_node::answer::{Answer, answer};
use ardb_node::dump::{self, Point};
use ardb_node::failover::Asked;
use ardb_node::outflow::Outflow;
use ardb_repl::master::{self, Ask, Peer, Profile};
use ardb_repl::rows::SyncId;
use ardb_repl::stream::Splitter;
use ardb_store::Fsync;

use crate::event::Event;
use crate::send::{Next, Sending};
use crate::{Violation, World};

/// One replica.
pub struct Feed {
    input: Splitter,
    pub profile: Profile,
    /// Once it has asked.
    pub peer: Option<Peer>,
    /// What must be sent before the stream.
    pub out: Vec<u8>,
    /// A dump is on its way, with or without a mark.
    dump: Option<(Point, bool)>,
    /// Rows are on their way.
    pub rows: Option<Sending>,
    pub pin: Option<Pin>,
    outflow: Option<Outflow>,
    /// It must reconnect.
    pub dismissed: bool,
    /// The replica's machine.
    pub replica: usize,
}

impl Feed {
    pub fn new(replica: usize) -> Feed {
        Feed {
            input: Splitter::new(64 << 10),
            profile: Profile::default(),
            peer: None,
            out: Vec::new(),
            dump: None,
            rows: None,
            pin: None,
            outflow: None,
            dismissed: false,
            replica,
        }
    }

    /// Whether it has everything before `target`, as far as it said.
    pub fn has(&self, target: Offset) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.takes_stream() && peer.acknowledged() >= target)
    }
}

/// How everything goes to a replica that asks, if it must.
enum How {
    Rdb,
    /// It wants to go on with a transfer, at a block.
    Rows(Option<(SyncId, u64)>),
}

/// Why a feed ends.
pub enum End {
    Drop(String),
    Violation(Violation),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> End {
        End::Violation(violation)
    }
}

impl World<'_> {
    fn feed(&mut self, node: usize, conn: u64) -> Option<&mut Feed> {
        self.machines[node].process.as_mut()?.feeds.get_mut(&conn)
    }

    /// Ends a feed.
    pub fn feed_ends(&mut self, node: usize, conn: u64) {
        self.rows_end(node, conn);
        if let Some(process) = &mut self.machines[node].process
            && process.feeds.remove(&conn).is_some()
        {
            self.close(conn, 1);
        }
    }

    /// Bytes have come from a replica, or its connection is over.
    pub fn feed_hears(&mut self, node: usize, conn: u64, bytes: Option<&[u8]>) -> Result<(), Violation> {
        let Some(bytes) = bytes else {
            self.feed_ends(node, conn);
            return Ok(());
        };
        let Some(feed) = self.feed(node, conn) else { return Ok(()) };
        if let Err(error) = feed.input.push(bytes) {
            return Err(Violation(format!("node {node}: a replica sends what makes no sense: {error}")));
        }
        let result = self.feed_answers(node, conn);
        self.feed_end_of(node, conn, result)?;
        self.look_at_waits(node);
        Ok(())
    }

    fn feed_end_of(&mut self, node: usize, conn: u64, result: Result<(), End>) -> Result<(), Violation> {
        match result {
            Ok(()) => Ok(()),
            Err(End::Violation(violation)) => Err(violation),
            Err(End::Drop(why)) => {
                self.trace(|| format!("node {node} lets go of connection {conn}: {why}"));
                self.feed_ends(node, conn);
                Ok(())
            }
        }
    }

    fn feed_answers(&mut self, node: usize, conn: u64) -> Result<(), End> {
        let plain = self.settings.plain[node];
        loop {
            let now = self.now;
            let Some(feed) = self.feed(node, conn) else { return Ok(()) };
            let Some(units) = feed.input.batch(1) else { return Ok(()) };
            let mut commands: Vec<Vec<Vec<u8>>> = Vec::new();
            let _ = units.each(|args, _, _| {
                commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                Ok::<(), ()>(())
            });
            let length = units.bytes().len();
            feed.input.consume(length);
            for command in commands {
                let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                let Some(feed) = self.feed(node, conn) else { return Ok(()) };
                if let Some(peer) = &mut feed.peer {
                    if let Some(ack) = master::acknowledgement(&args) {
                        peer.acknowledge(ack.applied, now);
                    }
                    continue;
                }
                match args[0].to_ascii_lowercase().as_slice() {
                    b"ping" => feed.out.extend_from_slice(b"+PONG\r\n"),
                    b"replconf" => {
                        let known = feed.profile.configure(&args[1..]);
                        let reply = known.map_or_else(|error| format!("-{error}\r\n"), |()| "+OK\r\n".to_owned());
                        feed.out.extend_from_slice(reply.as_bytes());
                    }
                    b"psync" | b"psync2" if args.len() >= 3 && (args[0].len() == 5 || !plain) => {
                        let Some(offset) = parse_i64(args[2]) else {
                            return Err(End::Violation(Violation("PSYNC without a number".into())));
                        };
                        if let Some(asked) = Asked::of(args[1], offset, args.get(3..).unwrap_or_default()) {
                            let from = feed.replica;
                            if let Some(refusal) = self.take_role(node, from, asked)? {
                                let Some(feed) = self.feed(node, conn) else { return Ok(()) };
                                feed.out.extend_from_slice(refusal.as_bytes());
                                continue;
                            }
                        }
                        let resume = match args.get(4..) {
                            Some([sync, block]) => SyncId::parse(sync).zip(parse_u64(block)),
                            _ => None,
                        };
                        let how = if args[0].len() == 5 { How::Rdb } else { How::Rows(resume) };
                        self.psync(node, conn, Ask::Psync { id: args[1], offset, names: true }, how)?;
                    }
                    b"sync" => self.psync(node, conn, Ask::Sync, How::Rdb)?,
                    _ => feed.out.extend_from_slice(b"-ERR unknown command\r\n"),
                }
            }
            self.pump_one(node, conn)?;
        }
    }

    /// Answers the replica that asks.
    fn psync(&mut self, node: usize, conn: u64, ask: Ask<'_>, how: How) -> Result<(), End> {
        let now = self.now;
        let machine = &self.machines[node];
        let Some(process) = &machine.process else { return Ok(()) };
        if process.failover.running() {
            let Some(feed) = self.feed(node, conn) else { return Ok(()) };
            feed.out.extend_from_slice(b"-NOMASTERLINK Can't SYNC while failing over\r\n");
            return Ok(());
        }
        // Going on too: one that follows itself, or a circle, would call itself up.
        let wire = process.link.as_ref().and_then(|link| link.wire.as_ref());
        if process.shared.gates.is_replica.load(Ordering::SeqCst) && wire.is_none_or(|wire| wire.inflow.is_none()) {
            let Some(feed) = self.feed(node, conn) else { return Ok(()) };
            feed.out.extend_from_slice(b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n");
            return Ok(());
        }
        match answer(&process.store, ask) {
            Answer::Continue { from, history, outflow } => {
                // The replica stands still while it waits for the answer, unless this is an old connection of it.
                let Some(feed) = process.feeds.get(&conn) else { return Ok(()) };
                let replica = &self.machines[feed.replica];
                let current = replica.process.as_ref().and_then(|p| p.link.as_ref()?.wire.as_ref());
                if current.is_some_and(|wire| wire.conn == conn) && !replica.content.agrees(&machine.content, from.0) {
                    return Err(End::Violation(Violation(format!(
                        "node {node} says CONTINUE at {from} to node {}, whose bytes before that are others",
                        feed.replica
                    ))));
                }
                let replica = feed.replica;
                self.trace(|| format!("node {node}: node {replica} may go on at {from}, history {history:?}"));
                let Some(feed) = self.feed(node, conn) else { return Ok(()) };
                feed.out.extend_from_slice(format!("+CONTINUE {}\r\n", history.id).as_bytes());
                feed.peer = Some(Peer::going_on(from, now));
                feed.outflow = Some(*outflow);
            }
            Answer::Full(why) => {
                if let How::Rows(resume) = how {
                    return self.send_rows(node, conn, resume);
                }
                // As RDB, streamed with a mark; or with its length first.
                let streamed = self.random.one_in(2);
                let Some(process) = &self.machines[node].process else { return Ok(()) };
                let (mut snapshot, point) = dump::snapshot(process.node()).map_err(End::Drop)?;
                let mut rdb = Vec::new();
                dump::write(&snapshot, &point, &mut rdb, || true).map_err(End::Drop)?;
                let pin = snapshot.take_pin();
                drop(snapshot);
                let content = self.machines[node].content.prefix(point.offset.0);
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.dump = Some(content);
                }
                let mut mark = [0; 20];
                self.random.fill(&mut mark);
                let mark = *ReplId::from_random(mark).as_bytes();
                self.trace(|| {
                    format!("node {node}: everything to connection {conn} ({why}): {point:?}, {} bytes", rdb.len())
                });
                let Some(feed) = self.feed(node, conn) else { return Ok(()) };
                let mut peer = Peer::waiting(matches!(ask, Ask::Sync), now);
                peer.dump_begins(now);
                feed.peer = Some(peer);
                (feed.pin, feed.dump) = (pin, Some((point, streamed)));
                feed.out.extend_from_slice(format!("+FULLRESYNC {} {}\r\n", point.id, point.offset).as_bytes());
                match streamed {
                    true => feed.out.extend_from_slice(&[b"$EOF:", &mark[..], b"\r\n", &rdb, &mark[..]].concat()),
                    false => {
                        feed.out.extend_from_slice(format!("${}\r\n", rdb.len()).as_bytes());
                        feed.out.extend_from_slice(&rdb);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets the threads of a node's replicas wake a little later.
    pub fn pump_soon(&mut self, node: usize) {
        let incarnation = self.machines[node].incarnation;
        let at = self.now + self.random.below(4);
        let Some(process) = &mut self.machines[node].process else { return };
        if !process.feeds.is_empty() && !std::mem::replace(&mut process.pump_is_due, true) {
            self.queue.at(at, Event::Pump { node, incarnation });
        }
    }

    /// All replicas of a node get what they take.
    pub fn pump(&mut self, node: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        process.pump_is_due = false;
        let conns: Vec<u64> = process.feeds.keys().copied().collect();
        for conn in conns {
            let result = self.pump_one(node, conn);
            self.feed_end_of(node, conn, result)?;
        }
        Ok(())
    }

    fn pump_one(&mut self, node: usize, conn: u64) -> Result<(), End> {
        let (now, window, timeout) = (self.now, self.settings.window, self.settings.timeout);
        let always = self.settings.fsync[node] == Fsync::Always;
        loop {
            let room = self.conns.get(&conn).map_or(0, |c| window.saturating_sub(c.to[0].flying));
            let Some(process) = &mut self.machines[node].process else { return Ok(()) };
            let store = process.store.clone();
            let Some(feed) = process.feeds.get_mut(&conn) else { return Ok(()) };
            if feed.dismissed {
                return Err(End::Drop("it was told to reconnect".into()));
            }
            let mut sent = Vec::new();
            if !feed.out.is_empty() {
                let n = room.min(feed.out.len());
                sent = feed.out.drain(..n).collect();
            } else if let Some((point, marked)) = feed.dump {
                let Some(peer) = &mut feed.peer else { return Ok(()) };
                if peer.state() == master::State::SendDump {
                    peer.dump_sent(marked, now);
                }
                if peer.takes_stream() {
                    feed.dump = None;
                    let outflow = Outflow::new(&store, point.id, point.offset).map_err(|e| End::Drop(e.to_string()))?;
                    feed.outflow = Some(outflow);
                    continue;
                }
            } else if feed.rows.is_some() {
                match self.next_rows(node, conn)? {
                    Next::Bytes => continue,
                    Next::Rest => {}
                    Next::Log(point, pin) => {
                        let outflow =
                            Outflow::new(&store, point.id, point.offset).map_err(|e| End::Drop(e.to_string()))?;
                        let Some(feed) = self.feed(node, conn) else { return Ok(()) };
                        (feed.pin, feed.outflow) = (pin, Some(outflow));
                        continue;
                    }
                }
            } else if let Some(outflow) = &mut feed.outflow {
                outflow.gather(&store).map_err(|error| End::Drop(error.to_string()))?;
                if always && !outflow.is_empty() {
                    outflow.settle(&store).map_err(|error| End::Drop(error.to_string()))?;
                }
                let n = room.min(outflow.bytes().len());
                sent = outflow.bytes()[..n].to_vec();
                outflow.advance(n);
                match &mut feed.pin {
                    Some(pin) if n > 0 => pin.advance(outflow.offset()),
                    _ if outflow.is_empty() => feed.pin = None,
                    _ => {}
                }
            }
            let Some(feed) = self.feed(node, conn) else { return Ok(()) };
            if sent.is_empty() {
                let blocked = room == 0;
                let late = feed.peer.as_ref().and_then(|peer| peer.overdue(timeout, blocked, now));
                return late.map_or(Ok(()), |late| Err(End::Drop(late.to_string())));
            }
            if let Some(peer) = &mut feed.peer {
                peer.sent(now);
            }
            self.send(conn, 0, &sent);
        }
    }
}
