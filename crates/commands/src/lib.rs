//! Layer 3: the commands. Each is one row in a table beside its handler; COMMAND, key extraction, the compatibility page and
//! the fuzzers read that table.
//!
//! A handler parses its arguments, calls `types` on a transaction, formats a reply and says what its effect was. It knows
//! neither sockets nor engines. [`dispatch`] is the one way to run a command: for clients, EXEC, scripts, replication and replay alike.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take their seed from the environment"))]

pub mod access;
pub mod cmd;
pub mod context;
pub mod dispatch;
pub mod effects;
pub mod error;
#[cfg(test)]
mod forms_tests;
pub mod persist;
pub mod pops;
pub mod session;
pub mod shared;
pub mod table;
#[cfg(test)]
mod testing;

pub use context::{Access, Ctx, Host, Origin, Transaction};
pub use error::CmdError;
pub use session::Session;
pub use shared::Shared;
pub use table::{Command, Flags, Keys, Table};

/// What a handler came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is written (or is none of the dispatcher's business).
    Done,
    /// There is nothing to reply yet: the client waits until one of the keys changes or the time comes.
    /// The command is then executed again from its arguments.
    Block(Block),
}

/// What a blocked client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Keys of the selected database, in the order of preference.
    pub keys: Vec<Vec<u8>>,
    /// When to give up, in ms since 1970; `None` waits for ever.
    pub until: Option<i64>,
    /// What to reply then.
    pub on_timeout: TimeoutReply,
}

/// The reply of a blocking command that timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReply {
    /// A null array (BLPOP).
    NullArray,
    /// A null (BLMOVE).
    Null,
}

/// A handler's result. On an error the dispatcher takes back what the handler wrote and replies the error.
pub type CmdResult = Result<Outcome, CmdError>;
