//! A second thread for a network thread whose script does not end, so that its other clients are told BUSY, new ones are let in, and
//! SCRIPT KILL and SHUTDOWN NOSAVE get through.
//!
//! A thread that executes commands under the writer lock first leaves its [`Worker`] here, without the connections whose commands it
//! executes. The script calls [`begin`] when it turns out to be over its limit: the worker goes to a thread that runs its loop until the
//! first one is done and takes it back.
//!
//! Invariants: a worker is at any time with exactly one thread; the stand-in never takes the writer lock, so it always comes back soon.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::connection::Connection;
use super::mailbox::{Message, ThreadBox};
use super::worker::Worker;

/// What has become of the worker that this thread has left.
#[derive(Default)]
enum Left {
    /// There is none: this is no network thread, or it executes nothing under the lock.
    #[default]
    None,
    /// It waits here.
    Idle(Box<Worker>),
    /// Another thread has it.
    Lent(JoinHandle<io::Result<Box<Worker>>>, Arc<ThreadBox>),
}

thread_local! {
    static LEFT: RefCell<Left> = const { RefCell::new(Left::None) };
}

/// A connection that is away from its worker, while its commands are executed under the lock.
pub struct Guest {
    /// Its place there.
    pub slot: usize,
    /// It.
    pub connection: Box<Connection>,
}

impl Worker {
    /// Executes `run` with the connections in `slots`, without this state, which another thread may take over meanwhile.
    ///
    /// # Errors
    /// The stand-in's poll failed.
    pub(super) fn aside<R>(
        mut self: Box<Self>,
        slots: &[usize],
        run: impl FnOnce(&mut [Guest]) -> R,
    ) -> io::Result<(Box<Self>, R)> {
        let mut guests = Vec::with_capacity(slots.len());
        for &slot in slots {
            if let Some(connection) = self.connections[slot].take() {
                guests.push(Guest { slot, connection });
            }
        }
        LEFT.set(Left::Idle(self));
        let result = run(&mut guests);
        let (mut worker, was_lent) = take_back()?;
        for Guest { slot, mut connection } in guests {
            if let Some(until) = connection.deadline {
                worker.deadlines.insert((until, connection.info.id));
            }
            // What its socket had to say meanwhile was said to the stand-in.
            connection.readable |= was_lent;
            connection.end_ahead |= was_lent;
            worker.connections[slot] = Some(connection);
        }
        if was_lent {
            for message in std::mem::take(&mut worker.late) {
                worker.take_message(message);
            }
            worker.look_again();
        }
        Ok((worker, result))
    }

    /// Serves the clients until the thread that runs a script has time again.
    fn stand_in(mut self: Box<Self>) -> io::Result<Box<Self>> {
        self.standing_in = true;
        // Those of the round that needed no lock have replies that wait to be sent.
        self.look_again();
        let mut worker = self.serve()?;
        worker.standing_in = false;
        worker.returning = false;
        Ok(worker)
    }
}

/// Gives the worker, and whether there was a stand-in; waits for it to finish its round.
fn take_back() -> io::Result<(Box<Worker>, bool)> {
    match LEFT.take() {
        Left::Idle(worker) => Ok((worker, false)),
        Left::Lent(thread, inbox) => {
            inbox.post(Message::TakeBack);
            match thread.join() {
                Ok(worker) => Ok((worker?, true)),
                // A panic ends the process before this is reached.
                Err(_) => Err(io::Error::other("the stand-in of a network thread panicked")),
            }
        }
        Left::None => Err(io::Error::other("invariant: a worker is left before it is taken back")),
    }
}

/// Called by a script's thread when the script is over its limit. Does nothing on threads that serve no clients.
pub fn begin() {
    let left = match LEFT.take() {
        Left::None => Left::None,
        // A second slow script of the same transaction: those who wait since the first one are to be told.
        Left::Lent(thread, inbox) => {
            inbox.post_now(Message::LookAgain);
            Left::Lent(thread, inbox)
        }
        Left::Idle(worker) => lend(worker),
    };
    LEFT.set(left);
}

fn lend(worker: Box<Worker>) -> Left {
    let inbox = worker.inbox.clone();
    let name = format!("ardb-busy-{}", inbox.index());
    // Behind an Arc, so that it is not lost with the closure if there is no thread.
    let parcel = Arc::new(Mutex::new(Some(worker)));
    let received = parcel.clone();
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        let worker = received.lock().take();
        match worker {
            Some(worker) => worker.stand_in(),
            None => Err(io::Error::other("invariant: the parcel is taken back only if there is no thread")),
        }
    });
    match spawned {
        Ok(thread) => Left::Lent(thread, inbox),
        Err(error) => {
            log::warn!("There is no thread for the clients of the one whose script is busy: {error}");
            parcel.lock().take().map_or(Left::None, Left::Idle)
        }
    }
}
