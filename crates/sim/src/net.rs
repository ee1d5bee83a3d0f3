//! Connections between replicas and masters: two pipes of packets that arrive in order, late, in pieces, or not at all.
//!
//! Side 0 is the replica's, side 1 the master's. A cut loses what is on its way behind some byte; a half-open connection swallows what is
//! sent, and neither side hears of it.

use std::collections::VecDeque;

use ardb_base::random::Random;

/// What travels.
#[derive(Debug)]
pub enum Packet {
    Bytes(Vec<u8>),
    /// The other side has closed, or was cut off.
    End,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Pipe {
    queue: VecDeque<Packet>,
    /// When the last packet arrives.
    last: u64,
    /// Bytes on their way.
    pub flying: usize,
    /// What is sent goes nowhere.
    pub swallows: bool,
    /// Nothing is sent any more.
    pub ended: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// The machines of both sides.
    pub nodes: [usize; 2],
    /// The incarnations of the processes that hold it.
    pub incarnations: [u64; 2],
    /// By the side that they lead to.
    pub to: [Pipe; 2],
    /// What the replica has acknowledged over it, and when it said so.
    pub acks: Vec<(u64, u64)>,
    /// The true history of the data set that is sent over it, if one is.
    pub dump: Option<crate::truth::Content>,
}

impl Pipe {
    /// Sends bytes in packets of random lengths. Gives the times at which they arrive.
    pub fn send(&mut self, bytes: &[u8], now: u64, (delay, longest): (u64, u64), random: &mut Random) -> Vec<u64> {
        let mut times = Vec::new();
        if self.ended || self.swallows {
            return times;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = (1 + random.below(longest) as usize).min(rest.len());
            let (packet, later) = rest.split_at(n);
            rest = later;
            self.flying += n;
            times.push(self.put(Packet::Bytes(packet.to_vec()), now + random.below(delay + 1)));
        }
        times
    }

    /// Ends the pipe behind what is on its way. Gives when that arrives, if it does.
    pub fn end(&mut self, at: u64) -> Option<u64> {
        if std::mem::replace(&mut self.ended, true) || self.swallows {
            return None;
        }
        Some(self.put(Packet::End, at))
    }

    fn put(&mut self, packet: Packet, at: u64) -> u64 {
        self.last = self.last.max(at);
        self.queue.push_back(packet);
        self.last
    }

    /// Loses what is on its way from a random byte on.
    pub fn cut(&mut self, random: &mut Random) {
        let mut keep = random.below(self.flying as u64 + 1) as usize;
        let mut kept = VecDeque::new();
        self.flying = 0;
        for packet in self.queue.drain(..) {
            let Packet::Bytes(mut bytes) = packet else { continue };
            bytes.truncate(keep);
            keep -= bytes.len();
            self.flying += bytes.len();
            // An event waits for each packet, so an empty one stays in its place.
            kept.push_back(Packet::Bytes(bytes));
        }
        self.queue = kept;
    }

    /// The next packet.
    pub fn take(&mut self) -> Option<Packet> {
        let packet = self.queue.pop_front()?;
        if let Packet::Bytes(bytes) = &packet {
            self.flying -= bytes.len();
        }
        Some(packet)
    }
}
