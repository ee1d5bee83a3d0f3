//! What data a stream makes: its commands, executed one after the other on rows in a plain map.
//!
//! It shares the commands with the nodes, and nothing else: neither store nor log, nor the way in which units are cut and applied. So data that are
//! equal to it hold every command of their history exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;

use ardb_base::id::{KeyspaceId, ObjectId, UnixMs};
use ardb_commands::context::{Savepoint, Transaction};
use ardb_commands::effects::Effects;
use ardb_commands::persist::save::each_key;
use ardb_commands::{Access, Ctx, Host, Origin, Session, Shared, dispatch};
use ardb_engine::row::Visit;
use ardb_engine::{Direction, EngineError, RowKey, RowRange, Rows, RowsMut, Value};
use ardb_node::digest::{self, Sum};
use ardb_node::nobody;
use ardb_resp::{Protocol, Reply};
use ardb_types::TypeError;
use ardb_types::model::Model;

use crate::Violation;
use crate::settings::DATABASES;

/// The rows of a stream's prefix.
pub struct Reference {
    rows: Plain,
    session: Session,
    shared: Arc<Shared>,
    /// Bytes executed.
    pub at: usize,
}

struct Plain {
    model: Model,
    payload: Vec<u8>,
    db: Option<u32>,
}

impl Rows for Plain {
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

impl RowsMut for Plain {
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

impl Transaction for Plain {
    fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.payload
    }
    fn stream_db(&mut self) -> &mut Option<u32> {
        &mut self.db
    }
    // Nothing in a stream fails, so nothing is taken back; an error is found by its reply.
    fn savepoint(&mut self) -> Savepoint {
        Savepoint { undo: 0, payload: 0, stream_db: None }
    }
    fn rollback_to(&mut self, _: Savepoint) {}
    fn release(&mut self, _: Savepoint) {}
}

/// Calls `visit` with the arguments of each command of a stream of RESP arrays, and gives how many bytes were whole commands.
pub fn each_command(stream: &[u8], mut visit: impl FnMut(&[&[u8]])) -> usize {
    let mut at = 0;
    let mut args: Vec<&[u8]> = Vec::new();
    let line = |from: usize, mark: u8| -> Option<(usize, usize)> {
        let rest = stream.get(from..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(rest[..end].strip_suffix(b"\r")?.strip_prefix(&[mark])?).ok()?;
        Some((text.parse().ok()?, from + end + 1))
    };
    loop {
        let Some((count, mut next)) = line(at, b'*') else { return at };
        args.clear();
        for _ in 0..count {
            let Some((length, from)) = line(next, b'$') else { return at };
            let Some(arg) = stream.get(from..from + length) else { return at };
            args.push(arg);
            next = from + length + 2;
        }
        if next > stream.len() {
            return at;
        }
        visit(&args);
        at = next;
    }
}

/// Each key with the sum of its value.
fn sums(rows: &dyn Rows) -> BTreeMap<(u32, Vec<u8>), String> {
    let mut sums = BTreeMap::new();
    for db in 0..DATABASES {
        let _ = each_key(rows, db, |key, row| {
            let sum = digest::value(rows, row, Sum::default())?;
            sums.insert((db, key.to_vec()), sum.hex());
            Ok::<(), TypeError>(())
        });
    }
    sums
}

impl Reference {
    pub fn new(shared: Arc<Shared>) -> Reference {
        let rows = Plain { model: Model::new(DATABASES), payload: Vec::new(), db: None };
        Reference { rows, session: nobody(), shared, at: 0 }
    }

    /// Executes what of `stream`, which begins at the very beginning, was not executed yet.
    pub fn advance(&mut self, stream: &[u8], host: &dyn Host) -> Result<(), Violation> {
        let mut out = Reply::new(Protocol::Resp2);
        let mut fault = None;
        let (rows, session, shared) = (&mut self.rows, &mut self.session, &self.shared);
        let done = each_command(&stream[self.at..], |args| {
            let name = args.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
            match name.as_slice() {
                b"multi" | b"exec" | b"ping" | b"replconf" => return,
                b"select" => {
                    session.db = args.get(1).and_then(|db| std::str::from_utf8(db).ok()?.parse().ok()).unwrap_or(0);
                    return;
                }
                _ => {}
            }
            let Ok(command) = dispatch::resolve(&shared.table, args) else {
                fault = Some(format!("the stream holds '{}'", args.concat().escape_ascii()));
                return;
            };
            out.truncate(0);
            rows.payload.clear();
            let mut ctx = Ctx {
                rows: Access::Write(&mut *rows),
                out: &mut out,
                session: &mut *session,
                shared,
                host,
                origin: Origin::Stream,
                now: UnixMs::MAX / 2,
                effects: Effects::default(),
                dirty: 0,
                calls: 0,
                depth: 0,
                in_script: false,
                fault: None,
            };
            dispatch::execute(&mut ctx, command, args);
            if out.bytes().first() == Some(&b'-') {
                fault = Some(format!(
                    "'{}' in the stream fails: {}",
                    args.join(&b' ').escape_ascii(),
                    out.bytes().escape_ascii()
                ));
            }
        });
        self.at += done;
        if self.at != stream.len() {
            fault = Some(format!("the stream is no stream at {}", self.at));
        }
        fault.map_or(Ok(()), |fault| Err(Violation(fault)))
    }

    /// The sum of the data.
    pub fn digest(&self) -> Sum {
        digest::all(&self.rows, DATABASES).unwrap_or_default()
    }

    /// The keys whose values are others in `rows`, for people.
    pub fn differences(&self, rows: &dyn Rows) -> String {
        let (mine, theirs) = (sums(&self.rows), sums(rows));
        let mut text = String::new();
        for ((db, key), sum) in &mine {
            if theirs.get(&(*db, key.clone())) != Some(sum) {
                let what = if theirs.contains_key(&(*db, key.clone())) { "differs" } else { "is missing" };
                text.push_str(&format!("; {} of db {db} {what}", key.escape_ascii()));
            }
        }
        for (db, key) in theirs.keys().filter(|place| !mine.contains_key(place)) {
            text.push_str(&format!("; {} of db {db} is too much", key.escape_ascii()));
        }
        text
    }
}
