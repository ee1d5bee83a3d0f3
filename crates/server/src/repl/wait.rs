//! Clients in WAIT, until enough replicas have acknowledged what they wrote.

use ardb_base::id::Offset;
use ardb_repl::master::State;
use parking_lot::Mutex;

use crate::blocking;
use crate::server::Server;

struct Waiting {
    client: u64,
    offset: Offset,
    replicas: u64,
}

/// All that wait.
#[derive(Default)]
pub struct Waits {
    list: Mutex<Vec<Waiting>>,
}

/// How many replicas have acknowledged everything before `offset`.
#[must_use]
pub fn count(server: &Server, offset: Offset) -> u64 {
    let has =
        |peer: &std::sync::Arc<super::status::PeerView>| peer.state() == State::Online && peer.acknowledged() >= offset;
    server.replication.peers.lock().values().filter(|peer| has(peer)).count() as u64
}

impl Waits {
    /// A client waits. Called under the writer lock, before the client is parked.
    pub fn add(&self, client: u64, offset: Offset, replicas: u64) {
        self.list.lock().push(Waiting { client, offset, replicas });
    }

    /// Answers those that have waited long enough. Called when a replica has acknowledged something, and now and then.
    pub fn look(&self, server: &Server) {
        let due: Vec<(u64, u64)> = {
            let mut list = self.list.lock();
            if list.is_empty() {
                return;
            }
            // Those that went away without an answer.
            list.retain(|waiting| server.clients.get(waiting.client).is_some());
            list.iter()
                .map(|waiting| (waiting.client, waiting.replicas, count(server, waiting.offset)))
                .filter(|(_, wanted, have)| have >= wanted)
                .map(|(client, _, have)| (client, have))
                .collect()
        };
        for (client, have) in due {
            // One that is not parked yet is answered at the next look.
            if blocking::answer(server, client, |reply| reply.size(have)) {
                self.list.lock().retain(|waiting| waiting.client != client);
            }
        }
    }

    /// The client's time is up, or it is gone: how many replicas have what it waited for, if it did wait here.
    pub fn leave(&self, server: &Server, client: u64) -> Option<u64> {
        let offset = {
            let mut list = self.list.lock();
            let at = list.iter().position(|waiting| waiting.client == client)?;
            list.swap_remove(at).offset
        };
        Some(count(server, offset))
    }
}
