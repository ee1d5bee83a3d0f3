//! One client, as far as commands know it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ardb_resp::Protocol;

use crate::shared::Mailbox;
use crate::table::Command;

/// A command that waits for EXEC.
pub struct Queued {
    /// Its row.
    pub command: &'static Command,
    /// Its arguments, the name included.
    pub args: Vec<Vec<u8>>,
}

impl Queued {
    /// What an argument takes besides its bytes: a vector, and the allocator's part.
    const ARGUMENT: usize = size_of::<Vec<u8>>() + 16;

    /// Bytes of memory that a command with these arguments takes in the queue.
    #[must_use]
    pub fn cost(args: &[&[u8]]) -> usize {
        size_of::<Queued>() + args.iter().map(|arg| Queued::ARGUMENT + arg.len()).sum::<usize>()
    }
}

/// An open MULTI.
#[derive(Default)]
pub struct Queue {
    /// What EXEC will run.
    pub commands: Vec<Queued>,
    /// Bytes of memory held, bounded by the query buffer limit.
    pub bytes: usize,
    /// A command was refused while queueing: EXEC will abort.
    pub failed: bool,
}

/// A key under WATCH.
pub struct Watched {
    /// Its database.
    pub db: u32,
    /// The key.
    pub key: Vec<u8>,
    /// Its time had come already when it was watched.
    pub was_due: bool,
}

/// The state of one client.
pub struct Session {
    /// Its number, never used twice.
    pub id: u64,
    /// The selected database.
    pub db: u32,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// Whether it may run commands (always, if no password is set).
    pub authenticated: bool,
    /// An open MULTI.
    pub multi: Option<Queue>,
    /// Keys that it watches: the flag is raised when one of them changes.
    pub watch: Option<Arc<AtomicBool>>,
    /// What it watches, to unregister.
    pub watched: Vec<Watched>,
    /// Channels subscribed to.
    pub channels: HashSet<Vec<u8>>,
    /// Patterns subscribed to.
    pub patterns: HashSet<Vec<u8>>,
    /// Shard channels subscribed to.
    pub shard_channels: HashSet<Vec<u8>>,
    /// Where messages for it go.
    pub mailbox: Arc<dyn Mailbox>,
    /// It gets a copy of every command.
    pub monitor: bool,
    /// Close the connection once the reply is out.
    pub close_after_reply: bool,
    /// Do not block: within EXEC or a script, or as the server says.
    pub deny_blocking: bool,
    /// The last command's name, for CLIENT LIST.
    pub last_command: &'static str,
}

impl Session {
    /// A new client in database 0.
    #[must_use]
    pub fn new(id: u64, mailbox: Arc<dyn Mailbox>) -> Session {
        Session {
            id,
            db: 0,
            name: Vec::new(),
            protocol: Protocol::Resp2,
            authenticated: false,
            multi: None,
            watch: None,
            watched: Vec::new(),
            channels: HashSet::new(),
            patterns: HashSet::new(),
            shard_channels: HashSet::new(),
            mailbox,
            monitor: false,
            close_after_reply: false,
            deny_blocking: false,
            last_command: "NULL",
        }
    }

    /// How many channels and patterns it is subscribed to, shard channels aside.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Whether it is subscribed to anything; a RESP2 client may then only change its subscriptions.
    #[must_use]
    pub fn in_pubsub(&self) -> bool {
        self.subscriptions() + self.shard_channels.len() > 0
    }
}
