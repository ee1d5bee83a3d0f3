//! The queue of what happens when. Events of the same moment come in the order in which they were scheduled.

use std::collections::BTreeMap;

use crate::client::Reply;
use crate::fault::Fault;

/// Something that happens. What belongs to a process carries its incarnation, and is void when that is over.
#[derive(Debug)]
pub enum Event {
    /// Periodic work of a process.
    Tick { node: usize, incarnation: u64 },
    /// The next packet of a connection reaches this side.
    Deliver { conn: u64, side: usize },
    /// A replica's call reaches its master.
    Call { node: usize, link: u64 },
    /// A replica's call was not answered.
    CallFailed { node: usize, link: u64 },
    /// A link is tried again.
    Retry { node: usize, link: u64 },
    /// The thread that loads rows for a link has time for some.
    Load { node: usize, incarnation: u64, link: u64 },
    /// The threads of a process's replicas wake.
    Pump { node: usize, incarnation: u64 },
    /// These replicas of it are told to reconnect.
    Dismiss { node: usize, incarnation: u64, conns: Vec<u64> },
    /// It looks after its failover.
    Look { node: usize, incarnation: u64 },
    /// The role that counts as given away to a replica goes.
    Hand { node: usize, incarnation: u64, target: usize, complete: bool },
    /// A network thread executes what clients have sent.
    Burst { node: usize, incarnation: u64 },
    /// Replies leave the process.
    Send { node: usize, incarnation: u64, replies: Vec<Reply> },
    /// A reply reaches its client.
    Heard(Reply),
    /// A client does something.
    Client(usize),
    /// A client has waited long enough for the answer to this request.
    GiveUp { client: usize, request: u64 },
    /// A process is started on a machine that has none.
    Start(usize),
    /// Something goes wrong, or an operator acts.
    Fault(Fault),
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
}

impl Queue {
    /// Schedules an event at a time in ms.
    pub fn at(&mut self, time: u64, event: Event) {
        self.next += 1;
        self.events.insert((time, self.next), event);
    }

    /// Takes the next event, unless it lies behind `until`.
    pub fn pop(&mut self, until: u64) -> Option<(u64, Event)> {
        let (&(time, _), _) = self.events.first_key_value()?;
        if time > until {
            return None;
        }
        self.events.pop_first().map(|((time, _), event)| (time, event))
    }

    /// Takes out all faults that are still to come.
    pub fn drop_faults(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Fault(_)));
    }
}
