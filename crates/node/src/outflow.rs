//! The log as one replica is sent it: slices of the map, or small frames put together.
//!
//! Invariant: a replica gets bytes only as long as the history has the name under which it was promised them. A byte that was appended after a
//! promotion, sent to one who believes in the old name, would let it go on with another server over bytes that this one never had. The same is true
//! of bytes that this one may yet lose: where writes are to be durable before they are acknowledged, they are so before they are sent ([`Outflow::settle`]).

use ardb_base::id::{Offset, ReplId};
use ardb_log::{ReadError, Reader, Slice, SyncError};
use ardb_store::Store;

/// Bytes that one write takes.
pub const CHUNK: usize = 128 << 10;
/// Frames shorter than this are gathered into one write.
const SMALL: usize = 16 << 10;

/// Why nothing more may be sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutflowEnd {
    /// The log no longer has what comes next.
    #[error("{0}")]
    Log(#[from] ReadError),
    /// It must ask again and learn the name.
    #[error("the history has a new name, {0}")]
    Renamed(ReplId),
    /// What comes next cannot be made durable.
    #[error("{0}")]
    Sync(#[from] SyncError),
}

/// The bytes on their way to one replica.
#[derive(Debug)]
pub struct Outflow {
    reader: Reader,
    /// The name that the replica has for them.
    id: ReplId,
    gathered: Vec<u8>,
    /// After what was gathered.
    slice: Option<Slice>,
    sent: usize,
}

impl Outflow {
    /// For a replica that knows the history as `id` and has everything before `from`.
    ///
    /// # Errors
    /// The log does not hold that offset.
    pub fn new(store: &Store, id: ReplId, from: Offset) -> Result<Outflow, ReadError> {
        Ok(Outflow { reader: store.log().reader(from)?, id, gathered: Vec::new(), slice: None, sent: 0 })
    }

    /// Everything before this offset is sent or stands in [`Outflow::bytes`].
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.reader.offset()
    }

    /// Whether there is nothing at hand to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.slice.is_none()
    }

    /// Takes the next bytes out of the log, if all before them are sent.
    ///
    /// # Errors
    /// Nothing more may be sent.
    pub fn gather(&mut self, store: &Store) -> Result<(), OutflowEnd> {
        if !self.is_empty() {
            return Ok(());
        }
        while self.gathered.len() < CHUNK {
            match self.reader.next_slice(CHUNK) {
                Ok(Some(slice)) if slice.len() < SMALL => self.gathered.extend_from_slice(&slice),
                Ok(Some(slice)) => {
                    self.slice = Some(slice);
                    break;
                }
                Ok(None) => break,
                // What came before it is good, and goes first.
                Err(_) if !self.gathered.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        // A history is renamed before anything is appended under the new name. So if it has the old one now, these bytes are of that.
        let id = store.history().id;
        if id != self.id {
            self.gathered.clear();
            self.slice = None;
            return Err(OutflowEnd::Renamed(id));
        }
        Ok(())
    }

    /// Returns when [`Outflow::bytes`] are durable here. Whoever commits them waits for the same sync.
    ///
    /// # Errors
    /// They must not be sent.
    pub fn settle(&self, store: &Store) -> Result<(), OutflowEnd> {
        Ok(store.sync_to(self.offset())?)
    }

    /// What is to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.slice {
            Some(slice) if self.gathered.is_empty() => &slice[self.sent..],
            _ => &self.gathered[self.sent..],
        }
    }

    /// So many of [`Outflow::bytes`] are sent.
    pub fn advance(&mut self, sent: usize) {
        self.sent += sent;
        if !self.bytes().is_empty() {
            return;
        }
        self.sent = 0;
        if self.gathered.is_empty() {
            self.slice = None;
        } else {
            self.gathered.clear();
        }
    }
}
