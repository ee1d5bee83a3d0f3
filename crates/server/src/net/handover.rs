//! Connections that leave their network thread for good: a replica's, once it has asked for the stream.

use std::sync::Arc;

use ardb_commands::Session;

use super::stream::Stream;
use crate::clients::ClientInfo;

/// A connection without a network thread.
pub struct Detached {
    /// The socket, which does not block.
    pub stream: Stream,
    /// The client's state.
    pub session: Session,
    /// How the others see it. It stays in the registry until the new owner removes it.
    pub info: Arc<ClientInfo>,
    /// Bytes that have come and are not yet understood.
    pub unread: Vec<u8>,
    /// Replies that have not been sent yet; they come before anything else.
    pub unsent: Vec<u8>,
}

/// Takes a connection over. Called on the network thread, which it must not hold up.
pub type Handover = Box<dyn FnOnce(Detached) + Send>;
