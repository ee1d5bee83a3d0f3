//! Executing commands that are in the log already: those of the master's stream, and those that a start replays.
//!
//! Invariants: nothing is logged, nothing expires by the clock, nothing is refused for its origin; the time stands still during a frame, and is the
//! same when the frame is replayed. A command that is unknown or fails means that these data are not those that the stream was
//! made from: it is an error with a name, and never passed over. (Libraries of functions
//! are no data.)

use ardb_base::id::{Offset, UnixMs};
use ardb_base::number::parse_u64;
use ardb_commands::context::Fault;
use ardb_commands::{Access, CmdError, Command, Origin, Session, dispatch};
use ardb_repl::stream::Batch as Units;
use ardb_resp::{Protocol, Reply};
use ardb_store::WriteTxn;

use crate::txn::Batch;
use crate::{Node, nobody};

/// A command of the stream could not be executed. Nothing of its unit may be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// No such command here.
    #[error("the command '{name}' at offset {at} of the stream is not known here")]
    Unknown {
        /// Its name.
        name: String,
        /// Offset of its first byte.
        at: Offset,
    },
    /// A script that the master believes to be here.
    #[error("the script that is called at offset {at} of the stream is not here")]
    NoScript {
        /// Offset of its first byte.
        at: Offset,
    },
    /// The data could not be read. That may be over soon.
    #[error("the command '{name}' at offset {at} of the stream cannot be executed: {why}")]
    Storage {
        /// Its name.
        name: String,
        /// Offset of its first byte.
        at: Offset,
        /// The engine's reason.
        why: String,
    },
    /// It failed here, and cannot have failed on the master.
    #[error("the command '{name}' at offset {at} of the stream failed: {reply}")]
    Failed {
        /// Its name.
        name: String,
        /// Offset of its first byte.
        at: Offset,
        /// The error.
        reply: String,
    },
}

/// What the names mean that do not go through the table.
enum Special {
    /// The units are transactions already.
    Nothing,
    Select,
    Replconf,
    /// Libraries of functions are no data, and a call of one is passed on as what it did.
    Function,
}

fn special(name: &[u8]) -> Option<Special> {
    // The longest of them has eight letters.
    let mut lower = [0u8; 8];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    match &*lower {
        b"multi" | b"exec" | b"ping" => Some(Special::Nothing),
        b"select" => Some(Special::Select),
        b"replconf" => Some(Special::Replconf),
        b"function" => Some(Special::Function),
        _ => None,
    }
}

/// Executes units of a stream.
pub struct Applier {
    session: Session,
    /// Whether it is known which database the stream has selected.
    selected: bool,
    reply: Reply,
    /// Commands executed.
    pub commands: u64,
    /// The master has asked how far we are.
    pub asked: bool,
}

impl Default for Applier {
    fn default() -> Applier {
        Applier { session: nobody(), selected: false, reply: Reply::new(Protocol::Resp2), commands: 0, asked: false }
    }
}

impl Applier {
    /// Executes the units at `now` (ms since 1970), which begin at offset `first`. The transaction's frame tells and keeps the database that the stream
    /// has selected; its payload is left to the caller.
    ///
    /// # Errors
    /// The offset of the unit that failed, counted from `first`, and why. What was executed must be taken back.
    pub fn apply(
        &mut self,
        node: Node<'_>,
        txn: &mut WriteTxn<'_>,
        units: &Units<'_>,
        first: Offset,
        now: UnixMs,
    ) -> Result<(), (usize, ApplyError)> {
        let selected = txn.frame().db;
        (self.session.db, self.selected) = (selected.unwrap_or(0), selected.is_some());
        let mut batch = Batch::new(txn, now);
        let mut unit = 0;
        let mut next_is_new = true;
        units.each(|args, start, closes| {
            if std::mem::replace(&mut next_is_new, closes) {
                unit = start;
            }
            self.one(node, &mut batch, args, first.advance(start)).map_err(|error| (unit, error))
        })?;
        // What was not known and not said stays unknown: the first effect that follows must say it, since replicas may have another one selected.
        batch.store().frame().db = self.selected.then_some(self.session.db);
        Ok(())
    }

    fn one(&mut self, node: Node<'_>, batch: &mut Batch<'_, '_>, args: &[&[u8]], at: Offset) -> Result<(), ApplyError> {
        let name = args.first().copied().unwrap_or_default();
        let named = || String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
        let failed = |reply: String| ApplyError::Failed { name: named(), at, reply };
        match special(name) {
            Some(Special::Nothing) => return Ok(()),
            Some(Special::Select) => {
                let databases = u64::from(node.shared.settings.databases);
                let db = args.get(1).and_then(|text| parse_u64(text)).filter(|db| *db < databases);
                let Some(db) = db else {
                    let text = args.get(1).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
                    return Err(failed(format!("database {text} is not configured here: raise 'databases'")));
                };
                (self.session.db, self.selected) = (db as u32, true);
                return Ok(());
            }
            Some(Special::Replconf) => {
                self.asked |= args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"getack"));
                return Ok(());
            }
            Some(Special::Function) => {
                let word = String::from_utf8_lossy(args.get(1).copied().unwrap_or_default()).to_uppercase();
                log::warn!("FUNCTION {word} at offset {at} of the stream is left out: functions are not supported");
                return Ok(());
            }
            None => {}
        }
        let Some(command) = node.shared.table.find(name) else {
            return Err(ApplyError::Unknown { name: named(), at });
        };
        let command = dispatch::resolve_in(command, args).map_err(|error| failed(text_of(&error)))?;
        self.reply.truncate(0);
        let now = batch.now();
        let rows = Access::Write(&mut *batch);
        let mut ctx = node.ctx(rows, &mut self.reply, &mut self.session, Origin::Stream, now);
        dispatch::execute(&mut ctx, command, args);
        let fault = ctx.fault.take();
        node.shared.stats.commands.add(ctx.calls);
        batch.next_command();
        self.commands += 1;
        node.host.followed(command, self.reply.bytes().first() == Some(&b'-'));
        match fault {
            None => self.judge(command, at, failed),
            Some(Fault::Engine(error)) if !error.corruption => {
                Err(ApplyError::Storage { name: named(), at, why: error.to_string() })
            }
            Some(Fault::Engine(error)) => Err(failed(error.to_string())),
            Some(Fault::Unknown(name)) => Err(ApplyError::Unknown { name, at }),
            Some(Fault::Interpreter(why)) => Err(failed(why)),
        }
    }

    /// Whether the reply is one that the master can have had too.
    fn judge(
        &self,
        command: &Command,
        at: Offset,
        failed: impl FnOnce(String) -> ApplyError,
    ) -> Result<(), ApplyError> {
        let [b'-', text @ ..] = self.reply.bytes() else { return Ok(()) };
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        if matches!(command.name, "eval" | "evalsha") {
            if text.starts_with("NOSCRIPT") {
                return Err(ApplyError::NoScript { at });
            }
            // A script that writes and then fails keeps what it wrote, on the master as here. What need not have failed there is a fault.
            log::warn!(
                "The script at offset {at} of the stream ended with an error, as it will have on the master: {text}"
            );
            return Ok(());
        }
        Err(failed(text))
    }
}

fn text_of(error: &CmdError) -> String {
    String::from_utf8_lossy(&error.reply_bytes()).into_owned()
}

/// Visits the keys that the units name, with their databases. `db` is the one that is selected at their beginning.
pub fn each_key<'u>(node: Node<'_>, units: &Units<'u>, db: u32, visit: &mut dyn FnMut(u32, &'u [u8])) {
    let mut db = db;
    // It has no way to fail.
    let _ = units.each(|args, _, _| {
        let Some(&name) = args.first() else { return Ok(()) };
        match special(name) {
            Some(Special::Select) => {
                let named = args.get(1).and_then(|text| parse_u64(text)).and_then(|n| u32::try_from(n).ok());
                db = named.unwrap_or(db);
            }
            Some(_) => {}
            None => {
                if let Some(command) = node.shared.table.find(name) {
                    command.keys.each(args, |index| visit(db, args[index]));
                }
            }
        }
        Ok::<(), ()>(())
    });
}
