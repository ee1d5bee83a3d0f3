//! Clients in WAIT and WAITAOF, until enough replicas have acknowledged what they wrote, and enough logs hold it on disk.

use ardb_base::id::Offset;
use ardb_repl::master::State;
use ardb_resp::Reply;
use parking_lot::Mutex;

use super::status::PeerView;
use crate::blocking;
use crate::server::Server;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// WAIT: so many replicas have it.
    Replicas(u64),
    /// WAITAOF: it is durable here (if `local`), and on so many replicas.
    Durable {
        /// Here too.
        local: bool,
        /// On so many replicas.
        replicas: u64,
    },
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// The reply to WAIT.
    Replicas(u64),
    /// The reply to WAITAOF.
    Durable {
        /// Whether it is durable here.
        local: bool,
        /// On how many replicas it is.
        replicas: u64,
    },
}

impl Have {
    /// Writes the reply.
    pub fn reply(self, out: &mut Reply) {
        match self {
            Have::Replicas(replicas) => out.size(replicas),
            Have::Durable { local, replicas } => {
                out.array(2);
                out.int(i64::from(local));
                out.size(replicas);
            }
        }
    }
}

struct Waiting {
    client: u64,
    offset: Offset,
    want: Want,
}

/// All that wait.
#[derive(Default)]
pub struct Waits {
    /// Taken before the locks that an answer takes: those of the parked clients and of our replicas.
    list: Mutex<Vec<Waiting>>,
}

fn count(server: &Server, has: impl Fn(&PeerView) -> bool) -> u64 {
    let peers = server.replication.peers.lock();
    peers.values().filter(|peer| peer.state() == State::Online && has(peer)).count() as u64
}

/// How far everything before `offset` has come.
#[must_use]
pub fn have(server: &Server, want: Want, offset: Offset) -> Have {
    match want {
        Want::Replicas(_) => Have::Replicas(count(server, |peer| peer.acknowledged() >= offset)),
        Want::Durable { .. } => Have::Durable {
            local: server.store.log().synced() >= offset,
            replicas: count(server, |peer| peer.synced().is_some_and(|synced| synced >= offset)),
        },
    }
}

/// Whether that is far enough.
#[must_use]
pub fn met(want: Want, have: Have) -> bool {
    match (want, have) {
        (Want::Replicas(wanted), Have::Replicas(replicas)) => replicas >= wanted,
        (Want::Durable { local, replicas: wanted }, Have::Durable { local: here, replicas }) => {
            (here || !local) && replicas >= wanted
        }
        _ => false,
    }
}

impl Waits {
    /// A client waits. Called under the writer lock, before the client is parked.
    pub fn add(&self, client: u64, offset: Offset, want: Want) {
        self.list.lock().push(Waiting { client, offset, want });
    }

    /// Answers those that have waited long enough. Called when a replica has acknowledged something, and now and then.
    pub fn look(&self, server: &Server) {
        // The list stays locked until they are answered, or one who is answered by another thread, and waits again at once, would get this answer too.
        self.list.lock().retain(|waiting| {
            // Those that went away without an answer.
            if server.clients.get(waiting.client).is_none() {
                return false;
            }
            let have = have(server, waiting.want, waiting.offset);
            // One that is not parked yet is answered at the next look.
            !(met(waiting.want, have) && blocking::answer(server, waiting.client, |reply| have.reply(reply)))
        });
    }

    /// The client's time is up, or it is gone: how far what it waited for has come, if it did wait here.
    pub fn leave(&self, server: &Server, client: u64) -> Option<Have> {
        let waiting = {
            let mut list = self.list.lock();
            let at = list.iter().position(|waiting| waiting.client == client)?;
            list.swap_remove(at)
        };
        Some(have(server, waiting.want, waiting.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enough() {
        let durable = |local, replicas| Want::Durable { local, replicas };
        let have = |local, replicas| Have::Durable { local, replicas };
        for (want, have, expected) in [
            (Want::Replicas(0), Have::Replicas(0), true),
            (Want::Replicas(2), Have::Replicas(1), false),
            (durable(true, 0), have(false, 9), false),
            (durable(true, 1), have(true, 1), true),
            (durable(false, 1), have(true, 0), false),
            (durable(false, 1), have(false, 1), true),
        ] {
            assert_eq!(met(want, have), expected, "{want:?} {have:?}");
        }
    }
}
