//! A master that sends everything as rows: the driver of `ardb_node::transfers`, in the order in which the thread of a replica does the same things in the server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_base::id::ReplId;
use ardb_engine::EngineError;
use ardb_log::Pin;
use ardb_node::dump::Point;
use ardb_node::transfers::{NotBegun, Transfer};
use ardb_repl::master::Peer;
use ardb_repl::rows::{RowsError, RowsSender, SyncId};

use crate::World;
use crate::feed::End;
use crate::sabotage::Sabotage;

/// Rows on their way to a replica.
pub struct Sending {
    transfer: Arc<Transfer>,
    /// Not here while the link before this one has it.
    sender: Option<RowsSender>,
    /// The block to be made next.
    next: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is to go on, once the link before this one has given the sender back.
    Waiting,
    /// Blocks are made; the first of a link that goes on where another one broke.
    Blocks { resumed: bool },
    /// The last one is made.
    Made,
    /// They are sent, and the replica has not said yet that it has everything.
    Sent,
}

/// Why blocks are not made any further now.
enum Stop {
    /// There is one, and that is enough.
    Enough,
    Failed(String),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Stop {
        Stop::Failed(error.to_string())
    }
}

impl From<RowsError> for Stop {
    fn from(error: RowsError) -> Stop {
        Stop::Failed(error.to_string())
    }
}

/// What comes next for a replica that is being sent rows.
pub enum Next {
    /// There are bytes to send.
    Bytes,
    /// It is to wait.
    Rest,
    /// It has everything: the log follows.
    Log(Point, Option<Pin>),
}

impl World<'_> {
    /// Begins to send everything as rows, or the rest of it.
    pub fn send_rows(&mut self, node: usize, conn: u64, resume: Option<(SyncId, u64)>) -> Result<(), End> {
        let now = self.now;
        if let Some((sync, block)) = resume {
            let Some(process) = &mut self.machines[node].process else { return Ok(()) };
            match process.transfers.resume(&process.store, conn, sync) {
                Some((transfer, former)) => {
                    if let Some(former) = former.and_then(|former| process.feeds.get_mut(&former)) {
                        former.dismissed = true;
                    }
                    let Some(feed) = process.feeds.get_mut(&conn) else { return Ok(()) };
                    feed.rows = Some(Sending { transfer, sender: None, next: block, stage: Stage::Waiting });
                    feed.peer = Some(Peer::waiting(false, now));
                    self.trace(|| format!("node {node}: connection {conn} wants to go on with {sync} at {block}"));
                    self.pump_soon(node);
                    return Ok(());
                }
                None => self.counts.transfers_gone += 1,
            }
        }
        self.begin_rows(node, conn)
    }

    fn begin_rows(&mut self, node: usize, conn: u64) -> Result<(), End> {
        let (now, limits) = (self.now, self.settings.transfers);
        let mut name = [0; 20];
        self.random.fill(&mut name);
        let sync = SyncId(ReplId::from_random(name));
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let before = process.transfers.figures(limits).snapshots;
        let begun = process.transfers.begin(process.node(), conn, sync, limits);
        let Some(feed) = process.feeds.get_mut(&conn) else { return Ok(()) };
        let transfer = match begun {
            Ok(transfer) => transfer,
            Err(NotBegun::Snapshot(why)) => return Err(End::Drop(why)),
            Err(why @ NotBegun::TooMany(_)) => {
                self.counts.transfers_refused += 1;
                feed.out.extend_from_slice(format!("-TRYAGAIN {why}\r\n").as_bytes());
                return Ok(());
            }
        };
        self.counts.transfers += 1;
        if before > 0 && process.transfers.figures(limits).snapshots == before {
            self.counts.transfers_shared += 1;
        }
        let point = transfer.source.point;
        process.sources.insert(sync, machine.content.prefix(point.offset.0));
        let sender = transfer.take_sender();
        feed.peer = Some(Peer::waiting(false, now));
        feed.rows = Some(Sending { transfer, sender, next: 0, stage: Stage::Waiting });
        self.trace(|| format!("node {node}: everything as rows {sync} to connection {conn}: {point:?}"));
        // What it may have had before the snapshot is looked at by whoever asks.
        self.rows_promised(node, conn, false);
        Ok(())
    }

    /// The blocks from the next one on are promised.
    fn rows_promised(&mut self, node: usize, conn: u64, resumed: bool) {
        let now = self.now;
        let Some(process) = &mut self.machines[node].process else { return };
        let Some(feed) = process.feeds.get_mut(&conn) else { return };
        let (Some(sending), Some(peer)) = (&mut feed.rows, &mut feed.peer) else { return };
        feed.out.extend_from_slice(sending.transfer.promise(sending.next).as_bytes());
        peer.dump_begins(now);
        sending.stage = Stage::Blocks { resumed };
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.dump = process.sources.get(&sending.transfer.sync).cloned();
        }
    }

    /// Everything at hand is sent to a replica that gets rows: what is next?
    pub fn next_rows(&mut self, node: usize, conn: u64) -> Result<Next, End> {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(Next::Rest) };
        let Some(feed) = process.feeds.get_mut(&conn) else { return Ok(Next::Rest) };
        let (Some(sending), Some(peer)) = (&mut feed.rows, &mut feed.peer) else { return Ok(Next::Rest) };
        if !sending.transfer.is_owned_by(conn) {
            return Err(End::Drop("another connection goes on with its sync".into()));
        }
        if sending.transfer.given_up.load(Ordering::SeqCst) {
            return Err(End::Drop("the log that must follow its rows is gone".into()));
        }
        match sending.stage {
            Stage::Waiting => {
                let Some(mut sender) = sending.transfer.take_sender() else { return Ok(Next::Rest) };
                let sync = sending.transfer.sync;
                let there = sender.rewind(sending.next).is_some();
                sending.sender = Some(sender);
                if there {
                    self.counts.transfers_resumed += 1;
                    self.rows_promised(node, conn, true);
                    return Ok(Next::Bytes);
                }
                self.trace(|| format!("node {node}: {sync} cannot go on there"));
                self.rows_end(node, conn);
                if let Some(process) = &self.machines[node].process {
                    process.transfers.remove(sync);
                }
                self.begin_rows(node, conn)?;
                Ok(Next::Bytes)
            }
            Stage::Blocks { resumed } => {
                let Some(sender) = &mut sending.sender else { return Ok(Next::Rest) };
                if resumed && self.sabotage == Some(Sabotage::ResumedTooFar) {
                    machine.skips.store(true, Ordering::Relaxed);
                }
                let mut one = false;
                let (out, from) = (&mut feed.out, sending.next);
                let next = &mut sending.next;
                let made = sending.transfer.blocks(sender, from, |sender, block| {
                    if std::mem::replace(&mut one, true) {
                        return Err(Stop::Enough);
                    }
                    out.append(block);
                    *next = sender.next();
                    Ok(())
                });
                machine.skips.store(false, Ordering::Relaxed);
                sending.stage = match made {
                    Ok(()) => Stage::Made,
                    Err(Stop::Enough) => Stage::Blocks { resumed: false },
                    Err(Stop::Failed(why)) => return Err(End::Drop(why)),
                };
                Ok(Next::Bytes)
            }
            Stage::Made => {
                if let Some(sender) = sending.sender.take() {
                    sending.transfer.return_sender(sender);
                }
                feed.pin = sending.transfer.pin(&process.store);
                peer.dump_sent(true, now);
                sending.stage = Stage::Sent;
                Ok(Next::Rest)
            }
            Stage::Sent if peer.takes_stream() => {
                let point = sending.transfer.source.point;
                process.transfers.remove(sending.transfer.sync);
                let pin = feed.pin.take();
                self.rows_end(node, conn);
                Ok(Next::Log(point, pin))
            }
            Stage::Sent => Ok(Next::Rest),
        }
    }

    /// The link of a transfer ends, or the transfer does.
    pub fn rows_end(&mut self, node: usize, conn: u64) {
        let (now, limits) = (self.now, self.settings.transfers);
        let Some(process) = &mut self.machines[node].process else { return };
        let Some(feed) = process.feeds.get_mut(&conn) else { return };
        let Some(sending) = feed.rows.take() else { return };
        if let Some(sender) = sending.sender {
            sending.transfer.return_sender(sender);
        }
        process.transfers.leave(&sending.transfer, conn, limits, now + 1);
    }
}
