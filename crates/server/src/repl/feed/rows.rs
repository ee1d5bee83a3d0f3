//! Sending everything to another Ardb server: rows of a snapshot, in blocks, as fast as disk and network go.
//!
//! One block is in memory at a time. The rows are read from the snapshot's cursor, which the writer does not notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ardb_base::id::ReplId;
use ardb_log::Pin;
use ardb_node::dump::Point;
use ardb_node::transfers::{Limits, NotBegun, Transfer};
use ardb_repl::rows::{RowsSender, SyncId};

use super::{End, Feed, Never};
use crate::repl::status::monotonic_ms;
use crate::server::Server;
use crate::start::random_bytes;

/// Where the rows of a replica that has all of them stand, and a hold on the log from there on.
type Sent = (Point, Option<Pin>);

/// What the configuration says of transfers.
pub fn limits(server: &Server) -> Limits {
    let transfers = usize::try_from(server.config.int("repl-sync-max-transfers").max(1)).unwrap_or(usize::MAX);
    let held = server.config.int("repl-sync-resume-time").max(0) as u64 * 1000;
    Limits { transfers, held, ..Limits::default() }
}

impl Feed<'_> {
    /// Sends everything, or the rest of it from a block on.
    pub(super) fn full_rows(&mut self, resume: Option<(SyncId, u64)>) -> Result<Never, End> {
        let transfers = &self.server.replication.transfers;
        let client = self.view.id;
        if let Some((sync, block)) = resume {
            let name = self.view.address.clone();
            match transfers.resume(&self.server.store, client, sync) {
                Some((transfer, former)) => {
                    if let Some(former) = former {
                        self.server.replication.dismiss_peer(former);
                    }
                    let result = self.resume_rows(&transfer, block);
                    transfers.leave(&transfer, client, limits(self.server), monotonic_ms());
                    // The snapshot goes before the stream begins, which has no end.
                    drop(transfer);
                    if let Some((point, pin)) = result? {
                        return self.catch_up(point, pin, None);
                    }
                    log::info!("The sync {sync} cannot go on at block {block} for replica {name}");
                    transfers.remove(sync);
                }
                None => log::info!("The sync {sync} that replica {name} wants to go on with is not held any more"),
            }
        }
        let server = self.server;
        let mut random = [0; 20];
        random_bytes(&mut random);
        let sync = SyncId(ReplId::from_random(random));
        let transfer = match self.beside(|| transfers.begin(server.node(), client, sync, limits(server)))? {
            Ok(transfer) => transfer,
            Err(NotBegun::Snapshot(why)) => return Err(End::Dump(why)),
            Err(why @ NotBegun::TooMany(_)) => {
                self.write_all(format!("-TRYAGAIN {why}\r\n").as_bytes())?;
                return Err(End::Later(why));
            }
        };
        let result = match transfer.take_sender() {
            Some(sender) => self.send_rows(&transfer, sender, 0),
            // Only one who has guessed its name can have been quicker.
            None => Err(End::Dismissed),
        };
        transfers.leave(&transfer, client, limits(self.server), monotonic_ms());
        drop(transfer);
        let (point, pin) = result?;
        self.catch_up(point, pin, None)
    }

    /// Goes on with a transfer. Gives `None` if it cannot from this block on.
    fn resume_rows(&mut self, transfer: &Arc<Transfer>, block: u64) -> Result<Option<Sent>, End> {
        let mut sender = loop {
            if let Some(sender) = transfer.take_sender() {
                break sender;
            }
            // The link before this one has not noticed yet that it is over.
            self.pump(Duration::from_millis(20), false)?;
            if !transfer.is_owned_by(self.view.id) {
                return Err(End::Replaced);
            }
        };
        if sender.rewind(block).is_none() {
            transfer.return_sender(sender);
            return Ok(None);
        }
        self.server.replication.sync_resumed.fetch_add(1, Ordering::Relaxed);
        log::info!(
            "Replica {} goes on with the sync {} at block {block}, after {} rows",
            self.view.address,
            transfer.sync,
            sender.rows()
        );
        self.send_rows(transfer, sender, block).map(Some)
    }

    /// Sends the blocks from `block` on, until the replica says that it has all of them. The log is next.
    fn send_rows(&mut self, transfer: &Arc<Transfer>, mut sender: RowsSender, block: u64) -> Result<Sent, End> {
        let started = monotonic_ms();
        let sent = self.blocks(transfer, &mut sender, block);
        let rows = sender.rows();
        transfer.return_sender(sender);
        let bytes = sent?;
        let ms = monotonic_ms() - started;
        log::info!(
            "Sent {rows} rows to replica {}, {bytes} bytes from block {block} on, in {ms} ms",
            self.view.address
        );
        // The transfer is held until the replica has said that it has everything: its last blocks may be lost on the way.
        let pin = transfer.pin(&self.server.store);
        self.peer.dump_sent(true, monotonic_ms());
        self.show();
        while !self.peer.takes_stream() {
            self.pump(super::ROUND, false)?;
            self.still_wanted(transfer)?;
        }
        self.server.replication.transfers.remove(transfer.sync);
        Ok((transfer.source.point, pin))
    }

    fn still_wanted(&self, transfer: &Transfer) -> Result<(), End> {
        if !transfer.is_owned_by(self.view.id) {
            return Err(End::Replaced);
        }
        if transfer.given_up.load(Ordering::SeqCst) {
            return Err(End::Refused("the log that must follow its rows is gone"));
        }
        Ok(())
    }

    fn blocks(&mut self, transfer: &Transfer, sender: &mut RowsSender, block: u64) -> Result<u64, End> {
        self.write_all(transfer.promise(block).as_bytes())?;
        self.peer.dump_begins(monotonic_ms());
        self.show();
        if block == 0 {
            self.server.replication.sync_full.fetch_add(1, Ordering::Relaxed);
        }
        let mut bytes = 0;
        transfer.blocks(sender, block, |sender, out| {
            bytes += self.block(transfer, sender, out)?;
            Ok::<(), End>(())
        })?;
        Ok(bytes)
    }

    /// Sends what was sealed.
    fn block(&mut self, transfer: &Transfer, sender: &RowsSender, out: &mut Vec<u8>) -> Result<u64, End> {
        self.write_all(out)?;
        self.pump(Duration::ZERO, false)?;
        self.still_wanted(transfer)?;
        let bytes = out.len() as u64;
        self.view.sent.add(bytes, sender.rows());
        out.clear();
        Ok(bytes)
    }
}
