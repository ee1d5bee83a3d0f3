//! A tiny server for unit tests: commands as text in, reply and logged effects as text out, over the model of rows.

use std::any::Any;
use std::sync::Arc;

use ardb_base::id::{KeyspaceId, ObjectId};
use ardb_engine::row::Visit;
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Value};
use ardb_resp::Reply;
use ardb_types::model::Model;

use crate::context::{Access, Ctx, Host, Origin, Savepoint, Transaction};
use crate::effects::Effects;
use crate::session::Session;
use crate::shared::{NoMailbox, Shared};
use crate::table::Table;
use crate::{Outcome, cmd, dispatch};

struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The model with a frame.
struct ModelTransaction {
    model: Model,
    payload: Vec<u8>,
    stream_db: Option<u32>,
    saved: Vec<Model>,
    payload_limit: usize,
}

impl Rows for ModelTransaction {
    fn get(&self, key: RowKey<'_>) -> Result<Option<Value>, EngineError> {
        self.model.get(key)
    }
    fn scan(&self, range: RowRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.model.scan(range, direction, visit)
    }
    fn keyspace(&self, db: u32) -> KeyspaceId {
        self.model.keyspace(db)
    }
    fn key_count(&self, db: u32) -> u64 {
        self.model.key_count(db)
    }
    fn expiry_count(&self, db: u32) -> u64 {
        self.model.expiry_count(db)
    }
}

impl RowsMut for ModelTransaction {
    fn put(&mut self, key: RowKey<'_>, value: &[u8]) {
        self.model.put(key, value);
    }
    fn delete(&mut self, key: RowKey<'_>) {
        self.model.delete(key);
    }
    fn new_object(&mut self) -> ObjectId {
        self.model.new_object()
    }
    fn discard(&mut self, object: ObjectId) {
        self.model.discard(object);
    }
    fn count(&mut self, db: u32, keys: i64, expiries: i64) {
        self.model.count(db, keys, expiries);
    }
    fn flush(&mut self, db: u32) {
        self.model.flush(db);
    }
    fn swap(&mut self, a: u32, b: u32) {
        self.model.swap(a, b);
    }
}

impl Transaction for ModelTransaction {
    fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.payload
    }
    fn has_room(&mut self) -> bool {
        self.payload.len() <= self.payload_limit
    }
    fn stream_db(&mut self) -> &mut Option<u32> {
        &mut self.stream_db
    }
    fn savepoint(&mut self) -> Savepoint {
        self.saved.push(self.model.clone());
        Savepoint { undo: self.saved.len() - 1, payload: self.payload.len(), stream_db: self.stream_db }
    }
    fn rollback_to(&mut self, savepoint: Savepoint) {
        self.model = self.saved[savepoint.undo].clone();
        self.payload.truncate(savepoint.payload);
        self.stream_db = savepoint.stream_db;
        self.saved.truncate(savepoint.undo);
    }
    fn release(&mut self, savepoint: Savepoint) {
        self.saved.truncate(savepoint.undo);
    }
}

/// One client on one server.
pub struct Harness {
    transaction: ModelTransaction,
    /// What is shared; tests change settings through it.
    pub shared: Arc<Shared>,
    /// The client.
    pub session: Session,
    /// The clock.
    pub now: i64,
    /// Where commands come from.
    pub origin: Origin,
}

impl Harness {
    /// A fresh server with all commands of this crate, 16 databases, the clock at 1,000,000,000,000 ms.
    pub fn new() -> Harness {
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 16, 1));
        let transaction = ModelTransaction {
            model: Model::new(16),
            payload: Vec::new(),
            stream_db: Some(0),
            saved: Vec::new(),
            payload_limit: usize::MAX,
        };
        let session = Session::new(1, Arc::new(NoMailbox));
        Harness { transaction, shared, session, now: 1_000_000_000_000, origin: Origin::Client }
    }

    /// Runs a line of words (no quoting: for other bytes use [`Harness::run_args`]) and gives the raw reply, `(blocked)` if it blocks.
    pub fn run(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
        self.run_args(&args)
    }

    /// Runs a command. CRLF in the reply is shown as a space.
    pub fn run_args(&mut self, args: &[&[u8]]) -> String {
        let (outcome, reply) = self.with_ctx(|ctx| match dispatch::resolve(&ctx.shared.table, args) {
            Ok(command) => dispatch::execute(ctx, command, args),
            Err(error) => {
                dispatch::reject(ctx, args, &error);
                Outcome::Done
            }
        });
        match outcome {
            Outcome::Done => text(&reply),
            Outcome::Block(_) => "(blocked)".into(),
        }
    }

    /// What `run` does with a context, and the bytes that it replied.
    pub fn with_ctx<T>(&mut self, run: impl FnOnce(&mut Ctx<'_>) -> T) -> (T, Vec<u8>) {
        self.transaction.saved.clear();
        let mut out = Reply::new(self.session.protocol);
        let mut ctx = Ctx {
            rows: Access::Write(&mut self.transaction),
            out: &mut out,
            session: &mut self.session,
            shared: &self.shared,
            host: &NoHost,
            origin: self.origin,
            now: self.now,
            effects: Effects::default(),
            dirty: 0,
            calls: 0,
            depth: 0,
            in_script: false,
            fault: None,
        };
        let result = run(&mut ctx);
        (result, out.bytes().to_vec())
    }

    /// The effects logged since the last call, as words; commands are parted by ` | `.
    pub fn take_log(&mut self) -> String {
        let payload = std::mem::take(&mut self.transaction.payload);
        let text = text(&payload);
        let mut commands = Vec::new();
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if word.starts_with('*') {
                commands.push(Vec::new());
            } else if word.starts_with('$')
                && let (Some(command), Some(arg)) = (commands.last_mut(), words.next())
            {
                command.push(arg.to_string());
            }
        }
        commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join(" | ")
    }

    /// The frame can hold this many bytes from now on.
    pub fn limit_payload(&mut self, bytes: usize) {
        self.transaction.payload_limit = bytes;
    }

    /// The bytes logged since the last call.
    pub fn take_payload(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.transaction.payload)
    }

    /// Runs the commands of a log, without MULTI and EXEC. Every reply must be no error.
    pub fn play(&mut self, mut log: &[u8]) {
        let number = |log: &mut &[u8]| -> usize {
            let end = log.iter().position(|&byte| byte == b'\r').expect("a log has whole lines");
            let text = std::str::from_utf8(&log[1..end]).expect("lengths are text");
            *log = &log[end + 2..];
            text.parse().expect("lengths are numbers")
        };
        while !log.is_empty() {
            let mut args = Vec::new();
            for _ in 0..number(&mut log) {
                let len = number(&mut log);
                args.push(&log[..len]);
                log = &log[len + 2..];
            }
            match args[0] {
                b"MULTI" | b"EXEC" => {}
                b"SELECT" => {
                    let text = std::str::from_utf8(args[1]).expect("a number is text");
                    self.session.db = text.parse().expect("SELECT has a number");
                }
                _ => {
                    let reply = self.run_args(&args);
                    assert!(!reply.starts_with('-'), "{}: {reply}", String::from_utf8_lossy(args[0]));
                }
            }
        }
        self.session.db = 0;
    }

    /// The rows.
    pub fn model(&self) -> &Model {
        &self.transaction.model
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches("\r\n").replace("\r\n", " ")
}

#[test]
fn unknown_commands_and_wrong_arity_have_the_texts_of_redis() {
    let mut server = Harness::new();
    assert_eq!(server.run("NOPE a b"), "-ERR unknown command 'NOPE', with args beginning with: 'a' 'b' ");
    assert_eq!(server.run("GET"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(server.run("GET a"), "$-1");
}

#[test]
fn a_command_that_fails_leaves_no_trace_among_the_effects() {
    use crate::table::{Command, Flags, Group, Keys};
    fn fails(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> crate::CmdResult {
        ctx.effect_db(5, &[b"SET", args[1], b"long enough to lie behind all that follows"]);
        ctx.effect(&[b"DEL", args[1]]);
        Err(crate::error::NOT_INTEGER)
    }
    static FAILS: Command = Command::new("fails", 2, Flags::WRITE, Keys::ONE, Group::Generic, fails);
    for commands in [&["SET a 1"][..], &["SET a 1", "SET b 2"]] {
        let mut server = Harness::new();
        server.with_ctx(|ctx| {
            dispatch::call(ctx, &FAILS, &[b"FAILS", b"k"]);
            for line in commands {
                let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                let command = dispatch::resolve(&ctx.shared.table, &args).expect("a command of the table");
                dispatch::call(ctx, command, &args);
            }
            dispatch::call(ctx, &FAILS, &[b"FAILS", b"k"]);
            let mut effects = ctx.effects;
            effects.finish(ctx.rows.transaction());
        });
        let expected = if commands.len() == 1 { "SET a 1" } else { "MULTI | SET a 1 | SET b 2 | EXEC" };
        assert_eq!(server.take_log(), expected);
    }
}
