//! Bringing the data to the end of the log after a start: the commands of each frame run through the dispatcher again.
//!
//! Nothing is logged again, nothing expires by the clock and nothing is refused, so the result is what it was before.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ardb_commands::effects::Effects;
use ardb_commands::{Access, Ctx, Origin, Session, dispatch};
use ardb_resp::request::{Limits, Parser, Progress};
use ardb_resp::{Protocol, Reply};
use ardb_store::{ReplayError, WriteTxn};

use crate::blocking;
use crate::server::Server;
use crate::txn::Batch;

/// How often a long replay says how far it is.
const REPORT: Duration = Duration::from_secs(2);

/// Executes the commands of a stream on a write transaction.
pub struct StreamRunner {
    session: Session,
    reply: Reply,
    args: Vec<Range<usize>>,
    buf: Vec<u8>,
    /// Commands executed.
    pub commands: u64,
}

impl Default for StreamRunner {
    fn default() -> StreamRunner {
        StreamRunner {
            session: blocking::nobody(),
            reply: Reply::new(Protocol::Resp2),
            args: Vec::new(),
            buf: Vec::new(),
            commands: 0,
        }
    }
}

impl StreamRunner {
    /// The database that the stream has selected.
    #[must_use]
    pub fn db(&self) -> u32 {
        self.session.db
    }

    /// Selects a database, as a stream that is continued says.
    pub fn select(&mut self, db: u32) {
        self.session.db = db;
    }

    /// Executes the whole commands in `payload`. Gives how many bytes those were.
    ///
    /// # Errors
    /// The bytes are no commands, or one of them fails, which means that these data are not those that the stream was made from.
    pub fn apply(&mut self, server: &Arc<Server>, batch: &mut Batch<'_, '_>, payload: &[u8]) -> Result<usize, String> {
        const LIMITS: Limits = Limits { max_bulk: i64::MAX as u64, authenticated: true };
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.extend_from_slice(payload);
        let mut parser = Parser::new();
        let mut done = 0;
        let result = loop {
            self.args.clear();
            match parser.parse(&mut buf, &mut self.args, LIMITS) {
                Ok(Progress::Request { .. }) => {
                    let args: Vec<&[u8]> = self.args.iter().map(|range| &buf[range.clone()]).collect();
                    if let Err(why) = self.one(server, batch, &args) {
                        break Err(why);
                    }
                    done = parser.position();
                }
                Ok(Progress::Empty) => done = parser.position(),
                Ok(Progress::Incomplete { .. }) => break Ok(done),
                Err(error) => break Err(error.to_string()),
            }
        };
        buf.shrink_to(1 << 20);
        self.buf = buf;
        batch.store().frame().db = Some(self.session.db);
        result
    }

    fn one(&mut self, server: &Arc<Server>, batch: &mut Batch<'_, '_>, args: &[&[u8]]) -> Result<(), String> {
        let named = || String::from_utf8_lossy(args.first().copied().unwrap_or_default()).into_owned();
        let command = dispatch::resolve(&server.shared.table, args)
            .map_err(|error| String::from_utf8_lossy(&error.reply_bytes()).into_owned())?;
        self.reply.truncate(0);
        let batch_now = batch.now();
        let mut ctx = Ctx {
            rows: Access::Write(&mut *batch),
            out: &mut self.reply,
            session: &mut self.session,
            shared: &server.shared,
            host: &**server,
            origin: Origin::Stream,
            now: batch_now,
            effects: Effects::default(),
            dirty: 0,
            depth: 0,
            in_script: false,
        };
        dispatch::execute(&mut ctx, command, args);
        batch.next_command();
        self.commands += 1;
        match self.reply.bytes() {
            [b'-', text @ ..] => Err(format!("{}: {}", named(), String::from_utf8_lossy(text).trim_end())),
            _ => Ok(()),
        }
    }
}

/// Replays the log. Gives the number of commands.
///
/// # Errors
/// The log cannot be read, or does not fit the data.
pub fn replay(server: &Arc<Server>) -> Result<u64, ReplayError> {
    let mut runner = StreamRunner::default();
    let mut reported = Instant::now();
    let mut first = None;
    server.store.replay(
        &mut |txn: &mut WriteTxn<'_>, frame| {
            if let Some(db) = frame.db {
                runner.select(db);
            }
            let mut batch = Batch::new(txn, frame.time);
            let applied = runner.apply(server, &mut batch, frame.payload)?;
            if applied == frame.payload.len() {
                Ok(())
            } else {
                Err(format!("a frame of {} bytes ends within a command at {applied}", frame.payload.len()))
            }
        },
        &mut |progress| {
            let start = *first.get_or_insert(progress.at);
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                let done = progress.at.since(start);
                log::info!("Replaying the log: {done} of {} bytes", progress.end.since(start));
            }
        },
    )?;
    Ok(runner.commands)
}
