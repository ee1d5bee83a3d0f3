//! Our side of the link to a replica: what to answer to SYNC and PSYNC, and the state of each replica.
//!
//! ```text
//!   SYNC, or PSYNC that cannot be met                                       PSYNC that can be met
//!      │                                                                         │ +CONTINUE [id]
//!      ▼            the dump is there,                  sent, and acknowledged   ▼
//!   WaitDump ──────── or streams ───────► SendDump ──── if it had no length ──► Online ── silence, errors ──► end
//!      │ line ends keep the link alive       │ no progress                       a replica of Redis 2.6 is silent by nature
//!      └──── the dump failed ────► end       └────────► end
//! ```

use ardb_base::id::{Offset, ReplId};
use ardb_base::number::parse_u64;

use crate::Ms;

/// The history that we hold.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its name.
    pub id: ReplId,
    /// The name that it had before, or [`ReplId::NONE`].
    pub second: ReplId,
    /// `second` names the same history up to here.
    pub second_until: Offset,
    /// The first offset that the log still holds.
    pub start: Offset,
    /// Its end.
    pub end: Offset,
}

/// What a replica asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// `SYNC`: everything; the way of Redis 2.6.
    Sync,
    /// `PSYNC id offset`: from that byte on, the first byte of a history being 1.
    Psync {
        /// The name of its history, or `?`.
        id: &'a [u8],
        /// The byte that it wants next, or -1.
        offset: i64,
        /// Whether it can be told that its history has another name now.
        names: bool,
    },
}

/// Why everything must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It came with SYNC.
    OldProtocol,
    /// It has nothing to go on from.
    Fresh,
    /// Its history is not ours, nor what ours was called before.
    OtherHistory,
    /// Its history has another name now, and it is too old to learn it: it would take what follows for the former history, and go on with it elsewhere.
    Nameless,
    /// It knows more of the former history than we share.
    PastSecond {
        /// The first byte that is not shared.
        bound: u64,
    },
    /// The log no longer, or not yet, holds the byte.
    OutOfLog {
        /// The first byte held.
        first: u64,
        /// The byte after the last.
        next: u64,
    },
    /// The log is damaged where it would go on.
    Damaged,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::OldProtocol => f.write_str("it asked by SYNC"),
            Why::Fresh => f.write_str("it has no history"),
            Why::OtherHistory => f.write_str("its history is another one"),
            Why::Nameless => f.write_str("its history has a new name, which it cannot learn"),
            Why::PastSecond { bound } => write!(f, "its history parted from ours at {bound}"),
            Why::OutOfLog { first, next } => write!(f, "the log holds {first} to {next}"),
            Why::Damaged => f.write_str("the log is damaged there"),
        }
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The stream from here on.
    Continue(Offset),
    /// Everything.
    Full(Why),
}

/// What to answer.
#[must_use]
pub fn decide(ask: Ask<'_>, held: &Held) -> Decision {
    let (id, wanted, names) = match ask {
        Ask::Sync => return Decision::Full(Why::OldProtocol),
        Ask::Psync { id: b"?", .. } => return Decision::Full(Why::Fresh),
        Ask::Psync { id, offset, names } => (id, offset, names),
    };
    // Redis compares them in any case.
    let is = |name: &ReplId| !name.is_none() && name.as_bytes().eq_ignore_ascii_case(id);
    // The byte numbered n is the one at offset n - 1.
    let Some(from) = u64::try_from(wanted).ok().and_then(|n| n.checked_sub(1)).map(Offset) else {
        return Decision::Full(if is(&held.id) || is(&held.second) { out_of_log(held) } else { Why::OtherHistory });
    };
    if !is(&held.id) {
        if !is(&held.second) {
            return Decision::Full(Why::OtherHistory);
        }
        if !names {
            return Decision::Full(Why::Nameless);
        }
        if from > held.second_until {
            return Decision::Full(Why::PastSecond { bound: held.second_until.0 + 1 });
        }
    }
    if from < held.start || from > held.end {
        return Decision::Full(out_of_log(held));
    }
    Decision::Continue(from)
}

fn out_of_log(held: &Held) -> Why {
    Why::OutOfLog { first: held.start.0 + 1, next: held.end.0 + 1 }
}

/// What a replica said of itself by REPLCONF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its port.
    pub port: u16,
    /// The address that it wants to be shown with.
    pub address: Option<String>,
    /// It can take an RDB without a length.
    pub eof: bool,
    /// It understands names of histories in +CONTINUE, so it is Redis 4.0 or newer.
    pub psync2: bool,
    /// It knows what it means that a hand-over of the role is complete, so it is an Ardb.
    pub handover: bool,
    /// The version that it gave.
    pub version: Option<String>,
    /// It wants the RDB and then no stream.
    pub rdb_only: bool,
}

/// A REPLCONF could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplconfError {
    /// An option without a value.
    #[error("ERR syntax error")]
    Syntax,
    /// Not a number.
    #[error("ERR value is not an integer or out of range")]
    Number,
    /// An option that we do not know.
    #[error("ERR Unrecognized REPLCONF option: {0}")]
    Unknown(String),
    /// It wants a part of the data only.
    #[error("ERR an RDB holds all data here: rdb-filter-only is not supported")]
    Filter,
    /// An address of more than 255 bytes, or one that is no text.
    #[error("ERR REPLCONF ip-address provided by replica instance is not valid")]
    Address,
}

impl Profile {
    /// Takes the arguments of a REPLCONF that comes before SYNC or PSYNC.
    ///
    /// # Errors
    /// As Redis words them; what came before the fault stays.
    pub fn configure(&mut self, args: &[&[u8]]) -> Result<(), ReplconfError> {
        if !args.len().is_multiple_of(2) {
            return Err(ReplconfError::Syntax);
        }
        for pair in args.chunks_exact(2) {
            let (name, value) = (pair[0].to_ascii_lowercase(), pair[1]);
            match name.as_slice() {
                b"listening-port" => {
                    self.port = parse_u64(value).and_then(|n| u16::try_from(n).ok()).ok_or(ReplconfError::Number)?;
                }
                b"ip-address" => {
                    let text = std::str::from_utf8(value).ok().filter(|text| text.len() < 256);
                    self.address = Some(text.ok_or(ReplconfError::Address)?.to_owned()).filter(|text| !text.is_empty());
                }
                b"capa" => {
                    self.eof |= value.eq_ignore_ascii_case(b"eof");
                    self.psync2 |= value.eq_ignore_ascii_case(b"psync2");
                    self.handover |= value.eq_ignore_ascii_case(b"handover");
                }
                b"version" => self.version = Some(String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned()),
                b"rdb-only" => self.rdb_only = value != b"0",
                // Whatever it names, even nothing: the rest would be left out, and is not here.
                b"rdb-filter-only" => return Err(ReplconfError::Filter),
                // Of newer replicas: nothing that we send depends on them.
                b"set-rdb-client-id" | b"set-cluster-node-id" | b"getack" | b"ack" | b"fack" => {}
                _ => return Err(ReplconfError::Unknown(String::from_utf8_lossy(pair[0]).into_owned())),
            }
        }
        Ok(())
    }
}

/// The states of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The dump for it is being prepared.
    WaitDump,
    /// The dump is being sent.
    SendDump,
    /// The dump was sent without a length, so the stream waits until the replica has seen its end.
    WaitAck,
    /// The stream flows.
    Online,
}

impl State {
    /// The word of INFO.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            State::WaitDump => "wait_bgsave",
            State::SendDump | State::WaitAck => "send_bulk",
            State::Online => "online",
        }
    }
}

/// Why a replica is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drop {
    /// It has not said anything for too long.
    #[error("it has been silent for {0} ms")]
    Silent(Ms),
    /// It has taken no byte of its dump for too long.
    #[error("it has taken nothing for {0} ms")]
    Stalled(Ms),
}

/// The state machine of one replica.
#[derive(Clone, Debug)]
pub struct Peer {
    state: State,
    /// It came with SYNC: it never acknowledges.
    old: bool,
    /// What it acknowledged.
    acknowledged: Offset,
    /// When it last said anything, or came online.
    heard: Ms,
    /// When bytes last went to it.
    progress: Ms,
    /// When the next line end is due while it waits.
    next_sign: Ms,
}

/// Between two line ends to a replica that waits.
const SIGN_PERIOD: Ms = 1000;

impl Peer {
    /// A replica that goes on at `from`.
    #[must_use]
    pub fn going_on(from: Offset, now: Ms) -> Peer {
        Peer { state: State::Online, old: false, acknowledged: from, heard: now, progress: now, next_sign: now }
    }

    /// A replica that gets everything; `old` says that it asked by SYNC.
    #[must_use]
    pub fn waiting(old: bool, now: Ms) -> Peer {
        let next_sign = now + SIGN_PERIOD;
        Peer { state: State::WaitDump, old, acknowledged: Offset(0), heard: now, progress: now, next_sign }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it asked by SYNC.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.old
    }

    /// What it acknowledged last.
    #[must_use]
    pub fn acknowledged(&self) -> Offset {
        self.acknowledged
    }

    /// It said something, be it a line end as from one that is loading: it lives, which says nothing of what it has.
    pub fn lives(&mut self, now: Ms) {
        self.heard = now;
    }

    /// Milliseconds since it last said anything.
    #[must_use]
    pub fn lag(&self, now: Ms) -> Ms {
        now.saturating_sub(self.heard)
    }

    /// The dump is ready to be sent.
    pub fn dump_begins(&mut self, now: Ms) {
        debug_assert_eq!(self.state, State::WaitDump);
        self.state = State::SendDump;
        self.progress = now;
    }

    /// The last byte of the dump is sent; `marked` says that it had no length.
    pub fn dump_sent(&mut self, marked: bool, now: Ms) {
        debug_assert_eq!(self.state, State::SendDump);
        self.state = if marked { State::WaitAck } else { State::Online };
        (self.heard, self.progress) = (now, now);
    }

    /// Whether the stream may be sent.
    #[must_use]
    pub fn takes_stream(&self) -> bool {
        self.state == State::Online
    }

    /// Bytes went to it.
    pub fn sent(&mut self, now: Ms) {
        self.progress = now;
    }

    /// It acknowledged everything before `offset`. Acknowledgements never go back.
    pub fn acknowledge(&mut self, offset: Offset, now: Ms) {
        self.acknowledged = self.acknowledged.max(offset);
        self.heard = now;
        if self.state == State::WaitAck {
            self.state = State::Online;
            self.progress = now;
        }
    }

    /// Whether a line end must be sent now, so that a waiting replica knows that we live.
    pub fn wants_sign(&mut self, now: Ms) -> bool {
        if self.state != State::WaitDump || now < self.next_sign {
            return false;
        }
        self.next_sign = now + SIGN_PERIOD;
        true
    }

    /// Whether it must be let go after `timeout` ms without a sign of life; `blocked` says that bytes wait for it.
    #[must_use]
    pub fn overdue(&self, timeout: Ms, blocked: bool, now: Ms) -> Option<Drop> {
        let stalled = now.saturating_sub(self.progress);
        if blocked && stalled > timeout {
            return Some(Drop::Stalled(stalled));
        }
        let silent = self.lag(now);
        let must_speak = matches!(self.state, State::Online | State::WaitAck) && !self.old;
        (must_speak && silent > timeout).then_some(Drop::Silent(silent))
    }
}

/// What a replica acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Everything before is applied.
    pub applied: Offset,
    /// Everything before is durable there (FACK), if it says so.
    pub synced: Option<Offset>,
}

/// The acknowledgement in a command that a replica sent, if it is one.
#[must_use]
pub fn acknowledgement(args: &[&[u8]]) -> Option<Acknowledgement> {
    let offset = |word: &[u8]| parse_u64(word).map(Offset);
    match args {
        [name, ack, applied, rest @ ..]
            if name.eq_ignore_ascii_case(b"replconf") && ack.eq_ignore_ascii_case(b"ack") =>
        {
            let synced = match rest {
                [word, synced, ..] if word.eq_ignore_ascii_case(b"fack") => offset(synced),
                _ => None,
            };
            offset(applied).map(|applied| Acknowledgement { applied, synced })
        }
        _ => None,
    }
}

/// The PING that a master sends as a part of the stream.
pub const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// The question to all replicas how far they are, a part of the stream too.
pub const GETACK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: u8) -> ReplId {
        ReplId::parse(&[letter; 40]).unwrap()
    }

    fn held() -> Held {
        Held { id: id(b'a'), second: id(b'b'), second_until: Offset(50), start: Offset(10), end: Offset(100) }
    }

    fn psync(name: u8, offset: i64) -> Decision {
        decide(Ask::Psync { id: &[name; 40], offset, names: true }, &held())
    }

    #[test]
    fn the_matrix_of_names_and_offsets() {
        let gone = Decision::Full(Why::OutOfLog { first: 11, next: 101 });
        for (name, offset, expected) in [
            (b'a', 10, gone),
            (b'a', 11, Decision::Continue(Offset(10))),
            (b'a', 100, Decision::Continue(Offset(99))),
            (b'a', 101, Decision::Continue(Offset(100))),
            (b'a', 102, gone),
            (b'a', 0, gone),
            (b'a', -1, gone),
            (b'a', i64::MIN, gone),
            (b'a', i64::MAX, gone),
            (b'A', 11, Decision::Continue(Offset(10))),
            (b'b', 11, Decision::Continue(Offset(10))),
            (b'b', 51, Decision::Continue(Offset(50))),
            (b'b', 52, Decision::Full(Why::PastSecond { bound: 51 })),
            (b'b', 10, gone),
            (b'c', 51, Decision::Full(Why::OtherHistory)),
            (b'c', -1, Decision::Full(Why::OtherHistory)),
        ] {
            assert_eq!(psync(name, offset), expected, "{} {offset}", char::from(name));
        }
        assert_eq!(decide(Ask::Sync, &held()), Decision::Full(Why::OldProtocol));
        assert_eq!(decide(Ask::Psync { id: b"?", offset: -1, names: true }, &held()), Decision::Full(Why::Fresh));
        assert_eq!(
            decide(Ask::Psync { id: b"short", offset: 20, names: true }, &held()),
            Decision::Full(Why::OtherHistory)
        );
        let mut fresh = held();
        fresh.second = ReplId::NONE;
        let zeros = Ask::Psync { id: ReplId::NONE.as_bytes(), offset: 11, names: true };
        assert_eq!(decide(zeros, &fresh), Decision::Full(Why::OtherHistory), "forty zeros name nothing");
    }

    /// A replica before Redis 4.0 is told no names. It would hold our bytes under the former one, and find nothing wrong with going on with a server
    /// of that name whose bytes are others.
    #[test]
    fn one_who_cannot_learn_a_name_does_not_go_on_under_another() {
        let old = |name: u8, offset| decide(Ask::Psync { id: &[name; 40], offset, names: false }, &held());
        assert_eq!(old(b'a', 101), Decision::Continue(Offset(100)));
        for offset in [11, 50, 51] {
            assert_eq!(old(b'b', offset), Decision::Full(Why::Nameless), "{offset}");
        }
    }

    #[test]
    fn a_replica_with_a_dump_of_known_length() {
        let mut peer = Peer::waiting(false, 0);
        assert_eq!(peer.state().word(), "wait_bgsave");
        assert!(!peer.wants_sign(999) && peer.wants_sign(1000) && !peer.wants_sign(1500) && peer.wants_sign(2000));
        assert_eq!(peer.overdue(60, false, 100_000), None, "it is we who are slow");
        peer.dump_begins(5000);
        assert_eq!(peer.state().word(), "send_bulk");
        assert!(!peer.wants_sign(9000));
        assert_eq!(peer.overdue(60_000, true, 65_001), Some(Drop::Stalled(60_001)));
        peer.sent(65_000);
        assert_eq!(peer.overdue(60_000, true, 65_001), None);
        peer.dump_sent(false, 70_000);
        assert_eq!((peer.state().word(), peer.takes_stream()), ("online", true));
        assert_eq!(peer.overdue(60_000, false, 130_001), Some(Drop::Silent(60_001)));
        peer.acknowledge(Offset(7), 100_000);
        assert_eq!((peer.acknowledged(), peer.lag(101_000)), (Offset(7), 1000));
        assert_eq!(peer.overdue(60_000, false, 130_001), None);
        peer.acknowledge(Offset(3), 100_000);
        assert_eq!(peer.acknowledged(), Offset(7));
        // While it loads it sends line ends only.
        peer.lives(150_000);
        assert_eq!(peer.overdue(60_000, false, 210_000), None);
        assert_eq!(
            (peer.acknowledged(), peer.overdue(60_000, false, 210_001)),
            (Offset(7), Some(Drop::Silent(60_001)))
        );
    }

    #[test]
    fn the_stream_waits_for_the_end_of_a_dump_without_length() {
        let mut peer = Peer::waiting(false, 0);
        peer.dump_begins(0);
        peer.dump_sent(true, 10);
        assert_eq!((peer.state().word(), peer.takes_stream()), ("send_bulk", false));
        assert_eq!(peer.overdue(1000, false, 1011), Some(Drop::Silent(1001)));
        peer.acknowledge(Offset(0), 20);
        assert!(peer.takes_stream());
    }

    #[test]
    fn a_replica_of_redis_2_6_may_be_silent_for_ever() {
        let mut peer = Peer::waiting(true, 0);
        peer.dump_begins(0);
        peer.dump_sent(false, 0);
        assert!(peer.takes_stream());
        assert_eq!(peer.overdue(1000, false, 1_000_000), None);
        assert_eq!(
            peer.overdue(1000, true, 1_000_000),
            Some(Drop::Stalled(1_000_000)),
            "but it must take what we send"
        );
    }

    #[test]
    fn what_replicas_say_of_themselves() {
        let mut profile = Profile::default();
        let say = |profile: &mut Profile, words: &[&str]| {
            profile.configure(&words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(say(&mut profile, &["listening-port", "7001", "CAPA", "eof", "capa", "psync2"]), Ok(()));
        assert_eq!(say(&mut profile, &["ip-address", "10.0.0.1", "version", "8.0.0", "capa", "future"]), Ok(()));
        assert_eq!((profile.port, profile.eof, profile.psync2), (7001, true, true));
        assert_eq!((profile.address.as_deref(), profile.version.as_deref()), (Some("10.0.0.1"), Some("8.0.0")));
        assert_eq!(say(&mut profile, &["listening-port"]), Err(ReplconfError::Syntax));
        assert_eq!(say(&mut profile, &["listening-port", "x"]), Err(ReplconfError::Number));
        assert_eq!(say(&mut profile, &["listening-port", "70000"]), Err(ReplconfError::Number));
        assert_eq!(say(&mut profile, &["ip-address", &"x".repeat(300)]), Err(ReplconfError::Address));
        assert!(matches!(say(&mut profile, &["nothing", "x"]), Err(ReplconfError::Unknown(_))));
        for filter in ["functions", ""] {
            assert_eq!(say(&mut profile, &["rdb-filter-only", filter]), Err(ReplconfError::Filter));
        }
    }

    #[test]
    fn acknowledgements() {
        let ack = |synced| Some(Acknowledgement { applied: Offset(17), synced });
        assert_eq!(acknowledgement(&[b"REPLCONF", b"ack", b"17"]), ack(None));
        assert_eq!(acknowledgement(&[b"REPLCONF", b"ACK", b"17", b"FACK", b"3"]), ack(Some(Offset(3))));
        assert_eq!(acknowledgement(&[b"REPLCONF", b"ACK", b"17", b"FACK"]), ack(None));
        for other in [&[&b"REPLCONF"[..], b"ACK"][..], &[b"REPLCONF", b"ACK", b"x"], &[b"PING"], &[]] {
            assert_eq!(acknowledgement(other), None);
        }
    }
}
