//! Our side of the link to a master.
//!
//! ```text
//!   connected
//!      │ PING
//!      ▼                +PONG, or an error that asks for a password
//!   Ping ──► Auth ──► Port ──► Address ──► Capabilities ──► Version      (each step is refused by some old master; we go on)
//!                                                             │ PSYNC2 id offset+1 (or ? -1) format [transfer block]
//!                                                             ▼
//!               ┌── +ROWSYNC id offset transfer block ────  Psync2 ── +CONTINUE [id] ────────────────────┐
//!               │                                             │ any other error: not an Ardb server      │
//!               │                                             │ PSYNC id offset+1 (or ? -1)              │
//!               │                                             ▼                                          │
//!               │     ┌── any other error: too old ───────  Psync ── +CONTINUE [id] ─────────────────────┤
//!               │     │ SYNC                                  │                                          │
//!               │     ▼                                       │                                          │
//!               │ Announced  ◄── +FULLRESYNC id offset ───────┘                                          │
//!               │     │ $length or $EOF:mark                                                             │
//!               ▼     ▼                                                                                  ▼
//!             Rows  Receiving ── the last byte ──► Loading ── the caller has installed it ──►        Streaming
//! ```
//!
//! To Psync2 and Psync a master may also say -LOADING, -NOMASTERLINK, -BUSY and the like: later. Every state but Loading has a timeout: what the master
//! sends, line ends included, sets it back. An error ends the link; the caller decides by its kind when to try again.

use std::ops::Range;

use ardb_base::id::{Offset, ReplId};
use memchr::memchr;

use crate::Ms;
use crate::rows::{FORMAT, SyncId};
use crate::transfer::Transfer;

/// Longest line of a handshake, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// How often we acknowledge, or keep the link alive while loading.
const PERIOD: Ms = 1000;
/// What we say that we are: a Valkey 9 master sends hash fields that expire only to those that are as new.
const ANNOUNCED_VERSION: &str = "9.0.0";

/// Whether we ask for rows, as only an Ardb server sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// No: the rows that came last time could not be taken.
    Refuse,
    /// Yes.
    #[default]
    Ask,
    /// Yes, and of this transfer we have all blocks before this one.
    Resume(SyncId, u64),
}

/// What we say to a replica of ours that is to take our role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handing {
    /// `FAILOVER`: that it is to take it, with what it has.
    Plain,
    /// `FAILOVER COMPLETE`: that it has acknowledged everything before our offset, and is to take it only if it has all of that.
    Complete,
}

impl Handing {
    /// Of what was kept: whether the hand-over was complete.
    #[must_use]
    pub fn of(complete: bool) -> Handing {
        if complete { Handing::Complete } else { Handing::Plain }
    }
}

/// What we tell a master of ourselves.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The port that clients reach us at.
    pub port: u16,
    /// The address that clients reach us at, if the configuration says so.
    pub address: Option<String>,
    /// The user to log in as, with [`Identity::password`].
    pub user: Option<Vec<u8>>,
    /// The password for the master, if there is one.
    pub password: Option<Vec<u8>>,
    /// The history that we hold and its end, unless there is nothing to go on from.
    pub position: Option<(ReplId, Offset)>,
    /// Whether to ask for rows.
    pub rows: Rows,
    /// Silence after which the link is given up, in ms.
    pub timeout: Ms,
    /// We were its master, and ask it to take the role: `PSYNC id offset FAILOVER`. Any error in answer to that is a refusal.
    pub failover: Option<Handing>,
    /// We know what it means that a hand-over is complete, and say so (`capa handover`).
    pub handover: bool,
}

/// What happened, in the order of the wire. Ranges count from the first byte of the input that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The master lets us go on at our position. From now on its history has this name, if it gave one.
    Continue(Option<ReplId>),
    /// The master sends everything. A master that only knows SYNC names neither history nor offset.
    FullSync(Option<(ReplId, Offset)>),
    /// An Ardb master sends everything as rows: where they stand, the name of the transfer, and the block that comes first.
    RowSync(ReplId, Offset, SyncId, u64),
    /// Bytes of rows. The caller takes as many of them as it can use, and says so by showing the rest again; after the last of them it calls
    /// [`Replica::rows_end`].
    Rows(Range<usize>),
    /// The RDB begins; its length in bytes if that is known.
    RdbBegins(Option<u64>),
    /// Bytes of the RDB.
    Rdb(Range<usize>),
    /// The RDB is complete. The stream goes on once [`Replica::installed`] is called; until then nothing is consumed.
    RdbEnds,
    /// Bytes of the stream.
    Stream(Range<usize>),
}

/// How far one look at the input came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that need not be shown again.
    pub consumed: usize,
    /// What they meant; `None` if they had no meaning for the caller. With `consumed` 0 it means that more must come.
    pub event: Option<Event>,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The master asks us to come again.
    #[error("the master cannot serve us now: {0}")]
    Later(String),
    /// The master refused a step that cannot be left out.
    #[error("the master refuses {step}: {reply}")]
    Refused {
        /// The step.
        step: &'static str,
        /// Its words.
        reply: String,
    },
    /// The master sent what makes no sense in this state.
    #[error("unexpected answer to {step}: {reply}")]
    Unexpected {
        /// The step.
        step: &'static str,
        /// The words.
        reply: String,
    },
    /// Nothing came for too long.
    #[error("{}", silence(.0))]
    Timeout(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ping,
    Auth,
    Port,
    Address,
    Capabilities,
    Version,
    Psync2,
    Psync,
    /// The RDB has been promised.
    Announced,
    Receiving(Transfer),
    Rows,
    Loading,
    Streaming,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Ping => "PING",
            State::Auth => "AUTH",
            State::Port => "REPLCONF listening-port",
            State::Address => "REPLCONF ip-address",
            State::Capabilities => "REPLCONF capa",
            State::Version => "REPLCONF version",
            State::Psync2 => "PSYNC2",
            State::Psync => "PSYNC",
            State::Announced => "waiting for the RDB",
            State::Receiving(_) => "receiving the RDB",
            State::Rows => "receiving rows",
            State::Loading => "loading",
            State::Streaming => "streaming",
        }
    }
}

/// The state machine of one connection to a master.
#[derive(Debug)]
pub struct Replica {
    identity: Identity,
    state: State,
    out: Vec<u8>,
    /// When the master last sent anything.
    heard: Ms,
    /// Bytes that were shown and not consumed. They will be shown again, which is no sign of life.
    left: usize,
    /// When we last sent an acknowledgement or a sign of life.
    spoke: Ms,
    /// Everything before is applied.
    applied: Offset,
    /// Everything before is durable.
    synced: Offset,
    /// The master only knows SYNC: it does not want acknowledgements.
    old: bool,
    /// The RDB that comes has no length: the master goes on when it hears that we have seen its end.
    marked: bool,
    /// What the master refused on the way, for the log.
    refusals: Vec<String>,
}

/// What is said of a master that was silent for too long.
fn silence(state: &str) -> String {
    match state == State::Streaming.name() {
        true => "no data nor PING received".to_owned(),
        false => format!("Timeout connecting to the MASTER, in state '{state}'"),
    }
}

fn push_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn shown(line: &[u8]) -> String {
    const MOST: usize = 200;
    let cut = &line[..line.len().min(MOST)];
    format!("{}{}", cut.escape_ascii(), if line.len() > MOST { "..." } else { "" })
}

impl Replica {
    /// The link has just been connected.
    #[must_use]
    pub fn new(identity: Identity, now: Ms) -> Replica {
        let mut out = Vec::new();
        push_command(&mut out, &[b"PING"]);
        let applied = identity.position.map_or(Offset(0), |(_, offset)| offset);
        Replica {
            identity,
            state: State::Ping,
            out,
            heard: now,
            left: 0,
            spoke: now,
            applied,
            synced: Offset(0),
            old: false,
            marked: false,
            refusals: Vec::new(),
        }
    }

    /// What is to be sent now.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// What the handshake waits for, for people.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.state.name()
    }

    /// Whether the answer to our PSYNC is what we wait for.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.state == State::Psync
    }

    /// Whether the master only knows SYNC.
    #[must_use]
    pub fn master_is_old(&self) -> bool {
        self.old
    }

    /// Whether the stream flows.
    #[must_use]
    pub fn streaming(&self) -> bool {
        self.state == State::Streaming
    }

    /// Whether an RDB or rows are coming, or being loaded.
    #[must_use]
    pub fn syncing(&self) -> bool {
        matches!(self.state, State::Announced | State::Receiving(_) | State::Rows | State::Loading)
    }

    /// When the master last sent anything.
    #[must_use]
    pub fn heard(&self) -> Ms {
        self.heard
    }

    /// What the master refused on the way and did not need to know, for the log.
    pub fn take_refusals(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refusals)
    }

    /// Everything before `offset` is applied; the next acknowledgement says so.
    pub fn applied(&mut self, offset: Offset) {
        self.applied = offset;
    }

    /// Everything before `offset` is durable; the next acknowledgement says so (FACK), which masters before Redis 7.2 pass over.
    pub fn synced(&mut self, offset: Offset) {
        self.synced = offset;
    }

    /// Everything before this offset is applied.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.applied
    }

    /// The master asked how far we are (REPLCONF GETACK).
    pub fn acknowledge(&mut self, now: Ms) {
        if self.state == State::Streaming && !self.old {
            self.say_acknowledgement(now);
        }
    }

    fn say_acknowledgement(&mut self, now: Ms) {
        let (applied, synced) = (self.applied.to_string(), self.synced.min(self.applied).to_string());
        push_command(&mut self.out, &[b"REPLCONF", b"ACK", applied.as_bytes(), b"FACK", synced.as_bytes()]);
        self.spoke = now;
    }

    /// All rows have come. Nothing more is consumed until [`Replica::installed`].
    pub fn rows_end(&mut self) {
        debug_assert_eq!(self.state, State::Rows, "rows were being received");
        self.state = State::Loading;
    }

    /// What came is installed and the stream goes on at `offset`.
    pub fn installed(&mut self, offset: Offset, now: Ms) {
        debug_assert_eq!(self.state, State::Loading, "something was being loaded");
        self.state = State::Streaming;
        self.applied = offset;
        self.heard = now;
        // A master that sent without a length waits for this before it goes on, even one that we had to ask by SYNC.
        if self.marked && self.old {
            self.say_acknowledgement(now);
        } else {
            self.acknowledge(now);
        }
    }

    /// Nothing has come, and all that came before was shown: keeps the link alive, or gives it up.
    ///
    /// # Errors
    /// The master was silent for too long.
    pub fn tick(&mut self, now: Ms) -> Result<(), LinkError> {
        // While we load, it is not for the master to speak.
        if self.state != State::Loading && now.saturating_sub(self.heard) > self.identity.timeout {
            return Err(LinkError::Timeout(self.state.name()));
        }
        self.keep_alive(now);
        Ok(())
    }

    /// The time passes: acknowledges, or gives a sign of life. To be called while nothing is read, too; what the master says meanwhile is not known, so
    /// its silence is not judged here.
    pub fn keep_alive(&mut self, now: Ms) {
        if now.saturating_sub(self.spoke) >= PERIOD {
            match self.state {
                State::Streaming => self.acknowledge(now),
                State::Receiving(_) | State::Rows | State::Loading => self.sign_of_life(now),
                _ => {}
            }
        }
    }

    fn sign_of_life(&mut self, now: Ms) {
        self.out.push(b'\n');
        self.spoke = now;
    }

    /// Looks at the bytes that the master sent and that were not consumed yet. To be called again and again until it neither consumes
    /// anything nor gives an event.
    ///
    /// # Errors
    /// The link must be given up.
    pub fn receive(&mut self, input: &[u8], now: Ms) -> Result<Step, LinkError> {
        if input.len() > self.left {
            self.heard = now;
        }
        let step = self.understand(input, now)?;
        self.left = input.len() - step.consumed;
        Ok(step)
    }

    fn understand(&mut self, input: &[u8], now: Ms) -> Result<Step, LinkError> {
        match &mut self.state {
            State::Streaming => {
                let event = (!input.is_empty()).then_some(Event::Stream(0..input.len()));
                Ok(Step { consumed: input.len(), event })
            }
            State::Rows => {
                let event = (!input.is_empty()).then_some(Event::Rows(0..input.len()));
                Ok(Step { consumed: 0, event })
            }
            State::Loading => Ok(Step { consumed: 0, event: None }),
            State::Receiving(transfer) => {
                let part = transfer.take(input);
                if part.end && part.data == 0 {
                    self.state = State::Loading;
                    return Ok(Step { consumed: part.skip, event: Some(Event::RdbEnds) });
                }
                if part.end {
                    // The last bytes first; what ends them is seen at the next look.
                    if part.skip == 0 {
                        *transfer = Transfer::Length(0);
                    }
                    return Ok(Step { consumed: part.data, event: Some(Event::Rdb(0..part.data)) });
                }
                let event = (part.data > 0).then_some(Event::Rdb(0..part.data));
                Ok(Step { consumed: part.data, event })
            }
            _ => self.line(input, now),
        }
    }

    fn line(&mut self, input: &[u8], now: Ms) -> Result<Step, LinkError> {
        let Some(end) = memchr(b'\n', input) else {
            if input.len() > LONGEST_LINE {
                return Err(self.unexpected(input));
            }
            return Ok(Step { consumed: 0, event: None });
        };
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Empty lines keep the link alive while the master prepares its answer.
        let event = if line.is_empty() { None } else { self.answer(line, now)? };
        Ok(Step { consumed: end + 1, event })
    }

    fn unexpected(&self, line: &[u8]) -> LinkError {
        LinkError::Unexpected { step: self.state.name(), reply: shown(line) }
    }

    fn refused(&self, line: &[u8]) -> LinkError {
        LinkError::Refused { step: self.state.name(), reply: shown(line) }
    }

    fn send(&mut self, state: State, args: &[&[u8]]) {
        push_command(&mut self.out, args);
        self.state = state;
    }

    fn answer(&mut self, line: &[u8], now: Ms) -> Result<Option<Event>, LinkError> {
        let failed = line.starts_with(b"-");
        match self.state {
            State::Ping => {
                // Those before AUTH; a master that is loading, or a replica without a link, answers with another error.
                let asks_password = [&b"-NOAUTH"[..], b"-NOPERM", b"-ERR operation not permitted"]
                    .iter()
                    .any(|start| line.starts_with(start));
                if failed && !asks_password {
                    return Err(LinkError::Later(shown(line)));
                }
                if !failed && !line.starts_with(b"+") {
                    return Err(self.unexpected(line));
                }
                match (self.identity.user.clone(), self.identity.password.clone()) {
                    (Some(user), Some(password)) => self.send(State::Auth, &[b"AUTH", &user, &password]),
                    (None, Some(password)) => self.send(State::Auth, &[b"AUTH", &password]),
                    (_, None) => self.send_port(),
                }
            }
            State::Auth => {
                if failed {
                    // A master without a password says so, and needs none.
                    let needless = line.windows(10).any(|w| w == b"no passwor");
                    if !needless {
                        return Err(self.refused(line));
                    }
                    self.refusals.push(shown(line));
                }
                self.send_port();
            }
            State::Port => {
                if line.starts_with(b"-NOAUTH") || line.starts_with(b"-NOPERM") {
                    return Err(self.refused(line));
                }
                self.note_refusal(line);
                match self.identity.address.clone() {
                    Some(address) => self.send(State::Address, &[b"REPLCONF", b"ip-address", address.as_bytes()]),
                    None => self.send_capabilities(),
                }
            }
            State::Address => {
                self.note_refusal(line);
                self.send_capabilities();
            }
            State::Capabilities => {
                self.note_refusal(line);
                self.send(State::Version, &[b"REPLCONF", b"version", ANNOUNCED_VERSION.as_bytes()]);
            }
            State::Version => {
                self.note_refusal(line);
                match self.identity.rows {
                    // The role goes over by PSYNC, to whatever kind of server.
                    _ if self.identity.failover.is_some() => self.send_psync(),
                    Rows::Refuse => self.send_psync(),
                    Rows::Ask | Rows::Resume(..) => self.send_psync2(),
                }
            }
            State::Psync2 => return self.psync2_answer(line, now),
            State::Psync => return self.psync_answer(line, now),
            State::Announced => {
                if failed {
                    return Err(LinkError::Later(shown(line)));
                }
                let Some(transfer) = Transfer::announced(line) else { return Err(self.unexpected(line)) };
                let length = transfer.left();
                self.marked = length.is_none();
                self.state = State::Receiving(transfer);
                self.spoke = now;
                return Ok(Some(Event::RdbBegins(length)));
            }
            // They are no lines.
            State::Receiving(_) | State::Rows | State::Loading | State::Streaming => return Err(self.unexpected(line)),
        }
        Ok(None)
    }

    fn note_refusal(&mut self, line: &[u8]) {
        if line.starts_with(b"-") {
            let text = format!("{}: {}", self.state.name(), shown(line));
            self.refusals.push(text);
        }
    }

    fn send_port(&mut self) {
        let port = self.identity.port.to_string();
        self.send(State::Port, &[b"REPLCONF", b"listening-port", port.as_bytes()]);
    }

    fn send_capabilities(&mut self) {
        let words: [&[u8]; 7] = [b"REPLCONF", b"capa", b"eof", b"capa", b"psync2", b"capa", b"handover"];
        self.send(State::Capabilities, &words[..if self.identity.handover { 7 } else { 5 }]);
    }

    /// The history that we name to the master and the byte that we want next.
    fn wanted(&self) -> (Vec<u8>, String) {
        match self.identity.position {
            Some((id, offset)) => (id.as_bytes().to_vec(), (offset.0 + 1).to_string()),
            None => (b"?".to_vec(), "-1".to_owned()),
        }
    }

    fn send_psync(&mut self) {
        let (id, next) = self.wanted();
        let words: [&[u8]; 5] = [b"PSYNC", &id, next.as_bytes(), b"FAILOVER", b"COMPLETE"];
        let most = match self.identity.failover.filter(|_| self.identity.position.is_some()) {
            None => 3,
            Some(Handing::Plain) => 4,
            Some(Handing::Complete) => 5,
        };
        self.send(State::Psync, &words[..most]);
    }

    fn send_psync2(&mut self) {
        let (id, next) = self.wanted();
        let format = FORMAT.to_string();
        match self.identity.rows {
            Rows::Resume(sync, block) => {
                let (sync, block) = (sync.to_string(), block.to_string());
                let args = [b"PSYNC2", &id[..], next.as_bytes(), format.as_bytes(), sync.as_bytes(), block.as_bytes()];
                self.send(State::Psync2, &args);
            }
            _ => self.send(State::Psync2, &[b"PSYNC2", &id, next.as_bytes(), format.as_bytes()]),
        }
    }

    /// What PSYNC2 and PSYNC may both be answered; `None` if the line is something else.
    fn common_answer(&mut self, line: &[u8], now: Ms) -> Result<Option<Event>, LinkError> {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if words.next() == Some(b"+CONTINUE") {
            if self.identity.position.is_none() {
                return Err(self.unexpected(line));
            }
            let id = match words.next() {
                None => None,
                Some(word) => match ReplId::parse(word) {
                    Some(id) => Some(id),
                    None => return Err(self.unexpected(line)),
                },
            };
            self.state = State::Streaming;
            self.acknowledge(now);
            return Ok(Some(Event::Continue(id)));
        }
        let Some(error) = line.strip_prefix(b"-") else { return Ok(None) };
        if self.identity.failover.is_some() {
            return Err(self.refused(line));
        }
        let later = ["LOADING", "NOMASTERLINK", "MASTERDOWN", "BUSY", "TRYAGAIN", "MISCONF"];
        if later.iter().any(|word| error.starts_with(word.as_bytes())) {
            return Err(LinkError::Later(shown(line)));
        }
        Ok(None)
    }

    fn psync2_answer(&mut self, line: &[u8], now: Ms) -> Result<Option<Event>, LinkError> {
        if let Some(event) = self.common_answer(line, now)? {
            return Ok(Some(event));
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if words.next() == Some(b"+ROWSYNC") {
            let id = words.next().and_then(ReplId::parse);
            let offset = words.next().and_then(ardb_base::number::parse_u64);
            let sync = words.next().and_then(SyncId::parse);
            let block = words.next().and_then(ardb_base::number::parse_u64);
            let (Some(id), Some(offset), Some(sync), Some(block)) = (id, offset, sync, block) else {
                return Err(self.unexpected(line));
            };
            self.state = State::Rows;
            self.spoke = now;
            return Ok(Some(Event::RowSync(id, Offset(offset), sync, block)));
        }
        if !line.starts_with(b"-") {
            return Err(self.unexpected(line));
        }
        // No Ardb server, or one that does not know our rows.
        self.note_refusal(line);
        self.send_psync();
        Ok(None)
    }

    fn psync_answer(&mut self, line: &[u8], now: Ms) -> Result<Option<Event>, LinkError> {
        if let Some(event) = self.common_answer(line, now)? {
            return Ok(Some(event));
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if words.next() == Some(b"+FULLRESYNC") {
            let id = words.next().and_then(ReplId::parse);
            let offset = words.next().and_then(ardb_base::number::parse_u64);
            let (Some(id), Some(offset)) = (id, offset) else { return Err(self.unexpected(line)) };
            self.state = State::Announced;
            return Ok(Some(Event::FullSync(Some((id, Offset(offset))))));
        }
        if !line.starts_with(b"-") {
            return Err(self.unexpected(line));
        }
        if line.starts_with(b"-NOAUTH") || line.starts_with(b"-NOPERM") {
            return Err(self.refused(line));
        }
        // It does not know PSYNC. What it sends after SYNC has no name and no offset.
        self.note_refusal(line);
        self.old = true;
        self.send(State::Announced, &[b"SYNC"]);
        Ok(Some(Event::FullSync(None)))
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
