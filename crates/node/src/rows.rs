//! Receiving everything from another Ardb server: blocks of rows become a new generation, which then becomes current in one step.
//!
//! What has come outlives the link: the next one asks the master for the rest. Until the last step the old data are served, and whatever breaks for good
//! leaves a directory that is deleted. How the rows get from a block into the new engine is the driver's affair ([`Filler`]): the server has a thread for it.
//!
//! Invariants: the receiver counts a block only when it is handed to the filler, so what is asked for next is exactly what the filler lacks; a generation is
//! made current only with as many rows as came, at the point that the first block names.

use ardb_base::id::{Offset, ReplId};
use ardb_repl::replica::Rows;
use ardb_repl::rows::{Opening, Part, RawRows, RowsError, RowsReceiver, SyncId};
use ardb_store::{GenerationError, GenerationLoader, History, RawLoad, RawRow, RowSource, SyncPoint};

use crate::Node;

/// Damaged blocks in one transfer after which it is given up: it is not the wire that damages them.
const DAMAGES: u32 = 3;

/// Brings rows into the engine of a new generation.
pub trait Filler {
    /// Takes the next block. What goes wrong with it is told later.
    fn push(&mut self, block: RawRows);
}

/// The rows of blocks, one after the other, as a load takes them. `next` gives the blocks.
pub struct BlockRows<N> {
    next: N,
    open: Option<RawRows>,
}

impl<N: FnMut() -> Option<RawRows>> BlockRows<N> {
    /// Those of the blocks that `next` gives, until it gives none.
    pub fn new(next: N) -> BlockRows<N> {
        BlockRows { next, open: None }
    }
}

impl<N: FnMut() -> Option<RawRows>> RowSource for BlockRows<N> {
    fn next_row(&mut self) -> Result<Option<RawRow<'_>>, String> {
        while self.open.as_ref().is_none_or(RawRows::is_empty) {
            if let Some(mut block) = self.open.take() {
                // The block must end where its last row does.
                block.next().map_err(|error| error.to_string())?;
            }
            match (self.next)() {
                Some(block) => self.open = Some(block),
                None => return Ok(None),
            }
        }
        match &mut self.open {
            Some(block) => block.next().map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }
}

/// What the end of an attempt says of the rows that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the link broke, or the master would not go on.
    Link,
    /// A block was damaged on the way, or came out of turn.
    Damaged,
    /// They cannot be taken over.
    Fatal,
}

impl Fault {
    /// Of an error in the blocks.
    #[must_use]
    pub fn of(error: &RowsError) -> Fault {
        match error {
            RowsError::Damaged(_) | RowsError::Order { .. } => Fault::Damaged,
            _ => Fault::Fatal,
        }
    }
}

/// Why rows were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum RowsIntakeError {
    /// What came is not what was promised.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The new generation cannot be had.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// What the master has promised: the point of its history, the name of the transfer, and the block that comes first.
pub type Promise = (ReplId, Offset, SyncId, u64);

/// What has come of a transfer.
pub struct Partial<F> {
    receiver: RowsReceiver,
    /// From the opening on.
    filler: Option<F>,
    point: (ReplId, Offset),
    /// How often it went on after its link had broken.
    resumed: u64,
    bytes: u64,
    damages: u32,
}

/// How far a look at the wire came.
pub enum Taken {
    /// Not to the end of a block.
    Part,
    /// The opening: [`Partial::open`] follows.
    Opening(Opening),
    /// A block of rows, which the filler has.
    Block,
    /// The last block: [`Ongoing::take_whole`] follows.
    End,
}

impl<F: Filler> Partial<F> {
    /// Takes bytes off the wire, up to the end of a block. Gives how many it took, and what they completed.
    ///
    /// # Errors
    /// The link must end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Taken), RowsError> {
        let (taken, part) = self.receiver.push(bytes)?;
        self.bytes += taken as u64;
        let what = match part {
            None => Taken::Part,
            Some(Part::Opening(opening)) => {
                if (opening.id, opening.offset) != self.point {
                    return Err(RowsError::Damaged("the opening"));
                }
                Taken::Opening(opening)
            }
            Some(Part::Rows(block)) => {
                // Block 0 is the opening, after which nothing is taken without a filler.
                let Some(filler) = &mut self.filler else { return Err(RowsError::Damaged("the order of the blocks")) };
                filler.push(block);
                Taken::Block
            }
            Some(Part::End(_)) => Taken::End,
        };
        Ok((taken, what))
    }

    /// Makes a generation for the rows, of which `start` makes a filler.
    ///
    /// # Errors
    /// There is no generation, the catalog cannot be had here, or those of `start`.
    pub fn open<E: From<GenerationError>>(
        &mut self,
        node: Node<'_>,
        opening: &Opening,
        start: impl FnOnce(RawLoad) -> Result<F, E>,
    ) -> Result<(), E> {
        let generation: GenerationLoader = node.store.begin_generation()?;
        log::info!("MASTER <-> REPLICA sync: {} keys are coming into {}", opening.keys, generation.generation());
        self.filler = Some(start(RawLoad::new(generation, &opening.catalog)?)?);
        Ok(())
    }

    /// The filler, from the opening on.
    pub fn filler(&mut self) -> Option<&mut F> {
        self.filler.as_mut()
    }

    /// Rows that have come in whole blocks.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.receiver.rows()
    }

    /// Keys, and about how many bytes (0 if the master cannot say), that the opening promises.
    #[must_use]
    pub fn promised(&self) -> (u64, u64) {
        self.receiver.opening().map_or((0, 0), |opening| (opening.keys, opening.about_bytes))
    }

    /// Bytes that have come, over all links.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How often it went on after its link had broken.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed
    }
}

/// Everything that came, while it is on its way into the engine.
pub struct Whole<F> {
    /// Brings the last rows in, and gives the load.
    pub filler: F,
    receiver: RowsReceiver,
    point: (ReplId, Offset),
    /// How often it went on after its link had broken.
    pub resumed: u64,
    /// Bytes that came, over all links.
    pub bytes: u64,
}

/// The same without the filler.
pub struct Counted {
    receiver: RowsReceiver,
    point: (ReplId, Offset),
}

impl<F> Whole<F> {
    /// Keys that came.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.receiver.opening().map_or(0, |opening| opening.keys)
    }

    /// Parts the filler from what is known of the rows.
    pub fn part(self) -> (F, Counted) {
        (self.filler, Counted { receiver: self.receiver, point: self.point })
    }
}

impl Counted {
    /// Rows that came.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.receiver.rows()
    }

    /// The filler has brought in all that it was handed: gives the generation, and the point at which it becomes current
    /// ([`crate::intake::make_current`]).
    ///
    /// # Errors
    /// The rows are not those that were promised.
    pub fn finish(&self, node: Node<'_>, load: RawLoad) -> Result<(GenerationLoader, SyncPoint), RowsIntakeError> {
        // Rows that hold no key are in no count of the catalog.
        if load.rows() != self.receiver.rows() {
            let why = format!("{} are in the engine of {} that came", load.rows(), self.receiver.rows());
            return Err(RowsError::Incomplete(why).into());
        }
        let generation = load.finish()?;
        let databases = node.shared.settings.databases;
        let db = self.receiver.opening().and_then(|opening| opening.db).filter(|db| *db < databases);
        let (id, offset) = self.point;
        Ok((generation, SyncPoint { history: History::new(id), offset, db }))
    }
}

/// What the attempts of one link know of full syncs by rows.
pub struct Ongoing<F> {
    partial: Option<Partial<F>>,
    /// The last one could not be taken: an RDB is asked for instead, until something succeeds.
    refuse: bool,
}

impl<F> Default for Ongoing<F> {
    fn default() -> Ongoing<F> {
        Ongoing { partial: None, refuse: false }
    }
}

impl<F: Filler> Ongoing<F> {
    /// What to ask the master for.
    #[must_use]
    pub fn ask(&self) -> Rows {
        match &self.partial {
            _ if self.refuse => Rows::Refuse,
            Some(partial) if partial.receiver.next() > 0 => {
                Rows::Resume(partial.receiver.sync(), partial.receiver.next())
            }
            _ => Rows::Ask,
        }
    }

    /// The link is up by any way: nothing of earlier attempts counts any more.
    pub fn forget(&mut self) {
        *self = Ongoing::default();
    }

    /// An attempt ended.
    pub fn judge(&mut self, fault: Fault) {
        if self.partial.as_ref().is_some_and(|partial| partial.filler.is_none() && partial.receiver.next() > 0) {
            // The opening came and nothing could be opened for it, so there is nothing that the blocks behind it could go on with.
            self.partial = None;
        }
        match fault {
            Fault::Damaged => {
                // What came before is good. The wire may have been at fault; if it goes on, it is not the wire.
                let partial = self.partial.as_mut();
                if partial.is_none_or(|partial| {
                    partial.damages += 1;
                    partial.damages >= DAMAGES
                }) {
                    (self.partial, self.refuse) = (None, true);
                }
            }
            Fault::Fatal => (self.partial, self.refuse) = (None, true),
            Fault::Link => {}
        }
    }

    /// The master promises everything, or the rest of it.
    ///
    /// # Errors
    /// It promises the rest of something that is not here.
    pub fn begin(&mut self, promise: Promise) -> Result<&mut Partial<F>, RowsError> {
        let (id, offset, sync, block) = promise;
        match &mut self.partial {
            Some(partial)
                if (partial.receiver.sync(), partial.receiver.next(), partial.point) == (sync, block, (id, offset)) =>
            {
                partial.receiver.reconnected();
                partial.resumed += 1;
                log::info!(
                    "MASTER <-> REPLICA sync: going on with {sync} at block {block}, after {} rows",
                    partial.receiver.rows()
                );
            }
            old => {
                // Of one whose link broke before the first block there is nothing to go on with.
                if old.take().is_some_and(|old| old.receiver.next() > 0) {
                    log::info!(
                        "MASTER <-> REPLICA sync: the master cannot go on with the rows that came, beginning anew"
                    );
                }
                if block != 0 {
                    return Err(RowsError::Order { want: 0, got: block });
                }
                log::info!("MASTER <-> REPLICA sync: receiving rows from master, sync {sync}");
            }
        }
        Ok(self.partial.get_or_insert_with(|| Partial {
            receiver: RowsReceiver::new(sync),
            filler: None,
            point: (id, offset),
            resumed: 0,
            bytes: 0,
            damages: 0,
        }))
    }

    /// What is coming.
    pub fn partial(&mut self) -> Option<&mut Partial<F>> {
        self.partial.as_mut()
    }

    /// After the last block: everything that came. Whatever happens to it, a further attempt begins anew.
    pub fn take_whole(&mut self) -> Option<Whole<F>> {
        let partial = self.partial.take()?;
        let Partial { receiver, filler: Some(filler), point, resumed, bytes, .. } = partial else { return None };
        Some(Whole { filler, receiver, point, resumed, bytes })
    }
}
