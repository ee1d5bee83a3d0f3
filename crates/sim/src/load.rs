//! A replica that receives everything as rows: the driver of `ardb_node::rows`, in the order in which the server's threads do the same things. The thread that
//! brings rows into the engine is an event here, so that others come in between.

use std::collections::VecDeque;

use ardb_node::intake;
use ardb_node::rows::{BlockRows, Fault, Filler, RowsIntakeError, Taken};
use ardb_repl::rows::RawRows;
use ardb_store::{GenerationError, RawLoad};

use crate::World;
use crate::event::Event;
use crate::fault::Fault as Strike;
use crate::link::End;

/// The blocks that wait for the engine.
pub struct Loader {
    load: RawLoad,
    queue: VecDeque<RawRows>,
    /// An event for the next of them is scheduled.
    due: bool,
    /// Why it takes no more, until somebody asks.
    failure: Option<GenerationError>,
}

impl Filler for Loader {
    fn push(&mut self, block: RawRows) {
        self.queue.push_back(block);
    }
}

impl Loader {
    /// Brings so many blocks into the engine.
    fn work(&mut self, blocks: usize) -> Result<(), GenerationError> {
        let mut left = blocks;
        let queue = &mut self.queue;
        let next = || {
            left = left.checked_sub(1)?;
            queue.pop_front()
        };
        self.load.part(&mut BlockRows::new(next))
    }
}

impl From<RowsIntakeError> for End {
    fn from(error: RowsIntakeError) -> End {
        let fault = match &error {
            RowsIntakeError::Rows(error) => Fault::of(error),
            RowsIntakeError::Generation(_) => Fault::Fatal,
        };
        End::Broken(error.to_string(), fault)
    }
}

impl From<GenerationError> for End {
    fn from(error: GenerationError) -> End {
        RowsIntakeError::from(error).into()
    }
}

impl World<'_> {
    /// Rows are on the wire. Gives whether anything was taken.
    pub fn rows_come(&mut self, node: usize) -> Result<bool, End> {
        let most = self.settings.waiting;
        let Some(process) = &mut self.machines[node].process else { return Ok(false) };
        let (store, shared) = (process.store.clone(), process.shared.clone());
        let parts = ardb_node::Node { store: &store, shared: &shared, host: &crate::process::NoHost };
        let Some(link) = &mut process.link else { return Ok(false) };
        let number = link.number;
        let (Some(wire), Some(partial)) = (&mut link.wire, link.rows.partial()) else { return Ok(false) };
        // First, because the receiver asks for the block behind this one from then on, even if this link breaks.
        if let Some(loader) = partial.filler() {
            if let Some(failure) = loader.failure.take() {
                return Err(failure.into());
            }
            if loader.queue.len() >= most {
                self.load_soon(node, number);
                return Ok(false);
            }
        }
        let (taken, what) = partial.push(&wire.input).map_err(RowsIntakeError::from)?;
        wire.input.drain(..taken);
        match what {
            Taken::Part => {}
            Taken::Opening(opening) => {
                let start = |load| {
                    Ok::<Loader, GenerationError>(Loader { load, queue: VecDeque::new(), due: false, failure: None })
                };
                partial.open(parts, &opening, start)?;
            }
            Taken::Block => {
                self.load_soon(node, number);
                self.trouble(node);
            }
            Taken::End => {
                wire.replica.rows_end();
                wire.whole = link.rows.take_whole();
                self.load_soon(node, number);
                self.trouble(node);
            }
        }
        Ok(taken > 0)
    }

    /// Now and then something goes wrong in the middle of a transfer, which what strikes at random would hardly meet.
    fn trouble(&mut self, node: usize) {
        let one_in = self.settings.trouble;
        if !self.busy || one_in == 0 || !self.random.one_in(one_in) {
            return;
        }
        let link = self.machines[node].process.as_ref().and_then(|process| process.link.as_ref());
        let Some((link, conn)) = link.and_then(|link| Some((link, link.wire.as_ref()?.conn))) else { return };
        let either = [node, node, link.upstream][self.random.below(3) as usize];
        let fault = match self.random.below(14) {
            0..=7 => Strike::Cut(conn),
            8 => Strike::HalfOpen(conn),
            9 => Strike::Forget(node),
            10 => Strike::Kill(either),
            11 => Strike::Power(either),
            _ => Strike::DiskFails(node, self.random.below(8)),
        };
        let at = self.now + self.random.below(10);
        self.queue.at(at, Event::Fault(fault));
    }

    fn loader(&mut self, node: usize, number: u64) -> Option<&mut Loader> {
        let link = self.machines[node].process.as_mut()?.link.as_mut().filter(|link| link.number == number)?;
        match &mut link.wire {
            Some(wire) if wire.whole.is_some() => wire.whole.as_mut().map(|whole| &mut whole.filler),
            _ => link.rows.partial()?.filler(),
        }
    }

    fn load_soon(&mut self, node: usize, number: u64) {
        let incarnation = self.machines[node].incarnation;
        let at = self.now + self.random.below(20);
        if let Some(loader) = self.loader(node, number)
            && !std::mem::replace(&mut loader.due, true)
        {
            self.queue.at(at, Event::Load { node, incarnation, link: number });
        }
    }

    /// The engine takes some blocks, be there a link or not; and everything becomes current if those were the last ones.
    pub fn load(&mut self, node: usize, number: u64) -> Result<(), End> {
        let blocks = 1 + self.random.below(6) as usize;
        let Some(loader) = self.loader(node, number) else { return Ok(()) };
        loader.due = false;
        if let Err(error) = loader.work(blocks) {
            loader.queue.clear();
            loader.failure = Some(error);
        }
        let empty = loader.queue.is_empty();
        if !empty {
            self.load_soon(node, number);
            return Ok(());
        }
        let wire = self.machines[node].process.as_mut().and_then(|process| process.link.as_mut()?.wire.as_mut());
        let Some(whole) = wire.and_then(|wire| wire.whole.take()) else { return Ok(()) };
        let resumed = whole.resumed;
        let (Loader { load, failure, .. }, counted) = whole.part();
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let (generation, point) = counted.finish(process.node(), load)?;
        let upstream = process.upstream.map(|n| n.to_string()).unwrap_or_default();
        let made = intake::make_current(process.node(), generation, point, &upstream);
        self.counts.rows += u64::from(made.is_ok());
        self.counts.rows_resumed += u64::from(made.is_ok() && resumed > 0);
        self.installed(node, made.map(|()| (point.history.id, point.offset)), "rows")?;
        // Nothing that the format checks says that these are the rows that were meant.
        if resumed > 0 || self.random.one_in(3) {
            self.check_data(node)?;
        }
        Ok(())
    }
}
