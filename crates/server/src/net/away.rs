//! Connections that are away from their network thread, because their requests would wait for the disk.
//!
//! While rows come from the disk, a thread of [`crate::cold`] executes what only reads, looks at the rows that the requests behind it will need, and
//! sends the connection back; its network thread goes on with the others meanwhile. So as many rows are read at once as there are clients that want
//! them, up to `cold-read-threads`, and a client whose rows are in memory waits for none of them. That thread sends the replies, too; a connection with
//! which there is nothing more to do is only left for its network thread, which finds it when it is woken, as by the client's next request. If that request came before the
//! connection was left, the thread has been woken in vain, and has it brought back at once.
//!
//! Invariants: a connection that is away keeps its slot and executes nothing else; what is meant for it meanwhile waits in
//! [`Worker::late`]. Nothing is executed out of its order.

use std::sync::Arc;
use std::time::Duration;

use ardb_base::id::UnixMs;
use ardb_commands::table::Group;
use ardb_commands::{Access, Flags};
use ardb_node::care::{Care, Measured};
use ardb_store::{ReadTxn, Reader, RowList};
use ardb_types::At;
use mio::event::Event;

use super::connection::Connection;
use super::mailbox::{Message, ThreadBox};
use super::worker::Worker;
use crate::clock;
use crate::cold::{Job, Looked, Size};
use crate::server::Server;
use crate::tally::Tally;

/// Requests of one connection that are executed or looked at in one go.
const REQUESTS: usize = 256;
/// Rows that are asked for together for one connection: what they hold must stay in memory until it is their turn.
const ROWS: usize = 1024;

/// A connection on its way back.
pub struct Returned {
    slot: usize,
    connection: Box<Connection>,
    /// Rows that the engine was asked for, and how many of them came from the disk.
    looks: u32,
    slow: u32,
}

/// What the socket of a connection that is away had to say. That of one that is not says nothing of interest here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed {
    is_away: bool,
    readable: bool,
    end: bool,
}

impl Missed {
    /// Takes note of it. Gives whether it is the first word.
    pub fn note(&mut self, event: &Event) -> bool {
        let before = self.is_any();
        self.readable |= self.is_away && (event.is_readable() || event.is_read_closed() || event.is_error());
        self.end |= self.is_away && event.is_read_closed();
        self.is_any() && !before
    }

    fn is_any(self) -> bool {
        self.readable || self.end
    }
}

/// A connection whose next requests are executed, or whose rows are looked at, while it is away.
struct Away {
    slot: usize,
    connection: Box<Connection>,
    server: Arc<Server>,
    inbox: Arc<ThreadBox>,
    slow_after: Duration,
}

impl Job for Away {
    fn rows(&self, view: &ReadTxn<'_>, rows: &mut RowList) {
        let Some(session) = &self.connection.session else { return };
        let (first, mut left) = (rows.len(), REQUESTS);
        self.connection.input.each(|request, args| {
            if let Ok(command) = &request.command
                && (command.flags.has(Flags::WRITE) || command.flags.has(Flags::READONLY))
            {
                command.keys.each(args, |index| {
                    if rows.len() - first < ROWS {
                        rows.push(&At::new(view, session.db, args[index], UnixMs::MIN).row());
                    }
                });
            }
            left -= 1;
            left > 0
        });
    }

    fn run(mut self: Box<Self>, reader: &mut Reader, fetched: Looked) {
        let (looks, slow) = self.connection.execute_away(&self.server, reader, self.slow_after);
        // Where no time is quick enough, as in tests, each row counts as one from the disk.
        let fetched_slow = if self.slow_after.is_zero() { fetched.asked } else { fetched.slow };
        let is_done = self.connection.answer(&self.server);
        let Away { slot, connection, inbox, .. } = *self;
        let returned = Returned { slot, connection, looks: looks + fetched.asked, slow: slow + fetched_slow };
        let returned = Message::Return(Box::new(returned));
        if is_done { inbox.leave(returned) } else { inbox.post(returned) }
    }
}

impl Worker {
    /// Sends those of these connections away whose next requests would wait for the disk. Does nothing while hardly any row comes from there.
    pub(super) fn send_away(&mut self, slots: &[usize]) {
        if !self.care.is_high() || self.standing_in {
            return;
        }
        let mut cold = Vec::new();
        {
            let view = self.reader.begin();
            for &slot in slots {
                let Some(connection) = &mut self.connections[slot] else { continue };
                // Those that have come back have nothing to wait for.
                if !std::mem::take(&mut connection.looked_at)
                    && let Some(size) = connection.would_wait(&view, &mut self.care)
                {
                    cold.push((slot, size));
                }
            }
        }
        for (slot, size) in cold {
            let Some(connection) = self.connections[slot].take() else { continue };
            self.away += 1;
            let (server, inbox, slow_after) = (self.server.clone(), self.inbox.clone(), self.care.slow_after());
            // What its socket said before is known.
            self.missed[slot] = Missed { is_away: true, ..Missed::default() };
            let job = Away { slot, connection, server, inbox, slow_after };
            self.server.cold.run(&self.server.store, self.server.cold_threads(), size, Box::new(job));
        }
    }

    /// A connection has come back.
    pub(super) fn take_in(&mut self, returned: Returned) {
        let Returned { slot, mut connection, looks, slow } = returned;
        self.care.count(looks, slow);
        let missed = std::mem::take(&mut self.missed[slot]);
        self.spoken -= usize::from(missed.is_any());
        connection.readable |= missed.readable;
        connection.end_ahead |= missed.end;
        // What comes in from now on was not looked at; but what waits was, and need not go away again.
        connection.looked_at = connection.input.next().is_some();
        self.connections[slot] = Some(connection);
        self.away -= 1;
        for message in std::mem::take(&mut self.late) {
            self.take_message(message);
        }
        self.queue(slot);
    }
}

impl Connection {
    /// How much work its next requests are, if they may wait for the disk.
    fn would_wait(&self, view: &ReadTxn<'_>, care: &mut Care) -> Option<Size> {
        let session = self.session.as_ref().filter(|session| session.multi.is_none())?;
        let mut left = REQUESTS;
        let mut waits = false;
        let mut keys = 0;
        let mut is_long = false;
        self.input.each(|request, args| {
            let Ok(command) = &request.command else { return false };
            if !command.flags.has(Flags::READONLY) && !command.flags.has(Flags::WRITE) {
                return false;
            }
            // A value of many rows may lack any of them.
            let one_row = matches!(command.group, Group::String | Group::Generic | Group::Bitmap);
            is_long |= !one_row;
            command.keys.each(args, |index| {
                keys += 1;
                let known = || view.is_in_memory(At::new(view, session.db, args[index], UnixMs::MIN).row());
                // Each key up to the first one counts, so that this ends some time after the last row has come from the disk.
                waits = waits || (care.look() && !(one_row && known()));
            });
            left -= 1;
            left > 0 && !(waits && is_long)
        });
        waits.then_some(if is_long { Size::Long } else { Size::Keys(keys) })
    }

    /// Whether its next request only reads data.
    fn only_reads(&self) -> bool {
        match (&self.session, self.input.next().map(|request| &request.command)) {
            (Some(session), Some(Ok(command))) => session.multi.is_none() && command.flags.has(Flags::READONLY),
            _ => false,
        }
    }

    /// Sends its replies. Gives whether nothing is left to do for it until the client, or somebody else, wants something: then its network thread need not
    /// wake for it.
    fn answer(&mut self, server: &Server) -> bool {
        let unsent = self.unsent();
        // A broken connection is closed by its thread, which finds that out, too.
        let is_flushed = matches!(self.flush(), Ok(true));
        if unsent > 0 {
            server.stats.writes.add(1);
            server.stats.output.add((unsent - self.unsent()) as u64);
        }
        self.publish();
        let is_over = self.closing || self.ended || self.killed() || self.input.error().is_some();
        is_flushed && !is_over && !self.wants_input() && self.input.next().is_none()
    }

    /// Executes what only reads, and looks at the rows of the writes behind it, and of the reads behind those, which will
    /// be executed under the same lock. Gives how many rows the engine was asked for, and how many of them came
    /// from the disk.
    fn execute_away(&mut self, server: &Arc<Server>, reader: &mut Reader, slow_after: Duration) -> (u32, u32) {
        let view = reader.begin();
        let (mut looks, mut slow) = (0, 0);
        let mut count = |(more, of_them)| (looks, slow) = (looks + more, slow + of_them);
        let mut left = REQUESTS;
        let mut tally = Tally::new(server);
        while left > 0
            && !self.killed()
            && self.only_reads()
            && self.runnable_now(server)
            && !self.needs_writer(server, &view)
        {
            let measured = Measured::begin(clock::monotonic);
            let waiting = self.step(server, Access::Read(&view), tally.time() / 1000, &mut tally);
            count(measured.end(slow_after));
            debug_assert!(waiting.is_none(), "a command that may block takes the lock");
            left -= 1;
        }
        if let Some(session) = &self.session {
            self.input.each(|request, args| {
                if let Ok(command) = &request.command
                    && (command.flags.has(Flags::WRITE) || command.flags.has(Flags::READONLY))
                {
                    command.keys.each(args, |index| {
                        count(Care::look_at(&view, session.db, args[index], slow_after, clock::monotonic));
                    });
                }
                left = left.saturating_sub(1);
                left > 0
            });
        }
        (looks, slow)
    }
}
