//! The command table: one row a command, everything about it that is not its code.

use crate::CmdResult;
use crate::context::Ctx;

/// Runs a command. `args[0]` is its name as the client spelled it; a subcommand gets the whole line too.
pub type Handler = fn(&mut Ctx<'_>, &[&[u8]]) -> CmdResult;

/// Properties of a command, as bits; the names are those that COMMAND shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// No property.
    pub const NONE: Flags = Flags(0);
    /// May change data: runs under the writer lock, is refused on read-only replicas.
    pub const WRITE: Flags = Flags(1);
    /// Reads keys.
    pub const READONLY: Flags = Flags(1 << 1);
    /// May make the data grow.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Of publish and subscribe.
    pub const PUBSUB: Flags = Flags(1 << 4);
    /// Not from scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 5);
    /// May leave its client waiting.
    pub const BLOCKING: Flags = Flags(1 << 6);
    /// Allowed while data are being loaded.
    pub const LOADING: Flags = Flags(1 << 7);
    /// Allowed on a replica whose link is down and that must not serve stale data.
    pub const STALE: Flags = Flags(1 << 8);
    /// Not shown by MONITOR.
    pub const SKIP_MONITOR: Flags = Flags(1 << 9);
    /// Not in the slow log.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 10);
    /// O(1) or O(log n).
    pub const FAST: Flags = Flags(1 << 11);
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 12);
    /// Keys are where the handler says, not at fixed places.
    pub const MOVABLEKEYS: Flags = Flags(1 << 13);
    /// Runs under the writer lock though it need not write (EXEC, EVAL, WATCH): its place among the commits matters.
    pub const EXCLUSIVE: Flags = Flags(1 << 14);
    /// Not inside MULTI.
    pub const NO_MULTI: Flags = Flags(1 << 15);
    /// Allowed while a script is over its time.
    pub const ALLOW_BUSY: Flags = Flags(1 << 16);
    /// May write even on a read-only replica if it turns out to write nothing (EVAL, EXEC, PUBLISH): the inner commands are checked.
    pub const MAY_REPLICATE: Flags = Flags(1 << 17);

    /// Does not count as a use of its keys (TTL, TYPE, OBJECT and the like).
    pub const NO_TOUCH: Flags = Flags(1 << 18);
    /// Takes the writer lock itself (REPLICAOF, FAILOVER, SAVE), so it never runs under it, and shares no EXEC with commands that write.
    pub const UNLOCKED: Flags = Flags(1 << 19);

    /// Both sets together, in a constant.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are here.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the command runs under the writer lock.
    #[must_use]
    pub const fn needs_writer(self) -> bool {
        self.0 & (Flags::WRITE.0 | Flags::EXCLUSIVE.0) != 0
    }

    /// The names that COMMAND INFO shows, in its order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        const NAMES: [(Flags, &str); 16] = [
            (Flags::WRITE, "write"),
            (Flags::READONLY, "readonly"),
            (Flags::DENYOOM, "denyoom"),
            (Flags::ADMIN, "admin"),
            (Flags::PUBSUB, "pubsub"),
            (Flags::NOSCRIPT, "noscript"),
            (Flags::BLOCKING, "blocking"),
            (Flags::LOADING, "loading"),
            (Flags::STALE, "stale"),
            (Flags::SKIP_MONITOR, "skip_monitor"),
            (Flags::SKIP_SLOWLOG, "skip_slowlog"),
            (Flags::FAST, "fast"),
            (Flags::NO_AUTH, "no_auth"),
            (Flags::MOVABLEKEYS, "movablekeys"),
            (Flags::NO_MULTI, "no_multi"),
            (Flags::ALLOW_BUSY, "allow_busy"),
        ];
        NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }
}

/// Where a command's keys stand among its arguments.
#[derive(Clone, Copy)]
pub enum Keys {
    /// It has none.
    None,
    /// From `first` to `last` (negative: from the end) by `step`, as COMMAND shows them.
    Range {
        /// Index of the first key; the name is 0.
        first: usize,
        /// Index of the last; -1 is the last argument.
        last: i32,
        /// Distance from key to key.
        step: usize,
    },
    /// After a count: `numkeys` stands at the index, the keys follow it; with another key at `dest` (0: none).
    Numkeys {
        /// Index of the count.
        at: usize,
        /// Index of one more key, 0 if there is none.
        dest: usize,
    },
    /// A function finds their indexes.
    Custom(fn(&[&[u8]]) -> Vec<usize>),
}

impl Keys {
    /// One key, the first argument.
    pub const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
    /// Two keys, the first two arguments.
    pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
    /// All arguments are keys.
    pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };

    /// Calls `visit` with the index of each key that `args` has. Arguments that make no sense have no keys.
    pub fn each(&self, args: &[&[u8]], mut visit: impl FnMut(usize)) {
        match *self {
            Keys::None => {}
            Keys::Range { first, last, step } => {
                let last = if last < 0 { args.len() as i64 + i64::from(last) } else { i64::from(last) };
                let mut index = first;
                while index as i64 <= last && index < args.len() {
                    visit(index);
                    index += step.max(1);
                }
            }
            Keys::Numkeys { at, dest } => {
                if dest > 0 && dest < args.len() {
                    visit(dest);
                }
                let count = args
                    .get(at)
                    .and_then(|text| std::str::from_utf8(text).ok())
                    .and_then(|text| text.parse::<usize>().ok());
                if let Some(count) = count
                    && count <= args.len().saturating_sub(at + 1)
                {
                    (at + 1..=at + count).for_each(visit);
                }
            }
            Keys::Custom(find) => find(args).into_iter().filter(|&index| index < args.len()).for_each(visit),
        }
    }
}

/// The groups under which the documentation and ACL categories list commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// Bit operations.
    Bitmap,
    /// Counts of different elements, in strings.
    HyperLogLog,
    /// Places on the globe, in sorted sets.
    Geo,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Hashes.
    Hash,
    /// Publish and subscribe.
    PubSub,
    /// MULTI and its kin.
    Transactions,
    /// Lua.
    Scripting,
    /// Connections.
    Connection,
    /// The server.
    Server,
    /// Replication.
    Replication,
}

impl Group {
    /// The name as COMMAND DOCS spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::HyperLogLog => "hyperloglog",
            Group::Geo => "geo",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Scripting => "scripting",
            Group::Connection => "connection",
            Group::Server | Group::Replication => "server",
        }
    }
}

/// One command.
pub struct Command {
    /// Lower-case name; a subcommand's own name without its container.
    pub name: &'static str,
    /// Number of arguments, the name (and container) included; negative: at least that many.
    pub arity: i32,
    /// Its properties.
    pub flags: Flags,
    /// Where its keys stand.
    pub keys: Keys,
    /// Where the documentation lists it.
    pub group: Group,
    /// The Redis version that had it first.
    pub since: &'static str,
    /// One line of help.
    pub summary: &'static str,
    /// The code; for a container what runs if no subcommand matches is the dispatcher's error.
    pub handler: Handler,
    /// Its subcommands, if it is a container.
    pub subcommands: &'static [Command],
}

impl Command {
    /// A row; the rest is added with the `const` methods below.
    #[must_use]
    pub const fn new(
        name: &'static str,
        arity: i32,
        flags: Flags,
        keys: Keys,
        group: Group,
        handler: Handler,
    ) -> Command {
        Command { name, arity, flags, keys, group, since: "1.0.0", summary: "", handler, subcommands: &[] }
    }

    /// Adds the version and the help.
    #[must_use]
    pub const fn doc(mut self, since: &'static str, summary: &'static str) -> Command {
        self.since = since;
        self.summary = summary;
        self
    }

    /// Makes it a container.
    #[must_use]
    pub const fn subcommands(mut self, subcommands: &'static [Command]) -> Command {
        self.subcommands = subcommands;
        self
    }

    /// Whether `count` arguments (name included) are a possible number.
    #[must_use]
    pub fn arity_fits(&self, count: usize) -> bool {
        if self.arity >= 0 { count == self.arity as usize } else { count >= self.arity.unsigned_abs() as usize }
    }
}

/// All commands of a server, found by name in any case.
pub struct Table {
    /// By a hash of the lower-case name; a third full at most, so a search is short.
    places: Box<[Option<&'static Command>]>,
    rows: Vec<&'static Command>,
}

/// The longest name of a command; a longer one is unknown.
const LONGEST_NAME: usize = 32;

/// Where the search for a name begins among so many places, a power of two; the same for upper and lower case. Whoever sends names can choose them so
/// that they meet, but finds no more places taken than the table has.
#[inline]
fn home(name: &[u8], places: usize) -> usize {
    let hash =
        name.iter().fold(name.len() as u32, |hash, byte| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 15) as usize & (places - 1)
}

impl Table {
    /// A table of these groups of rows. Panics at start-up if two rows have one name, which is a mistake in the code.
    #[must_use]
    pub fn new(groups: &[&'static [Command]]) -> Table {
        let rows: Vec<&'static Command> = groups.iter().flat_map(|group| group.iter()).collect();
        let mut places = vec![None; (rows.len() * 3).next_power_of_two()].into_boxed_slice();
        for &command in &rows {
            assert!(command.name.len() <= LONGEST_NAME, "{} is too long a name", command.name);
            let mut at = home(command.name.as_bytes(), places.len());
            while let Some(other) = places[at] {
                let other: &Command = other;
                assert!(other.name != command.name, "{} stands twice in the table", command.name);
                at = (at + 1) % places.len();
            }
            places[at] = Some(command);
        }
        Table { places, rows }
    }

    /// The command of this name.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&'static Command> {
        if name.len() > LONGEST_NAME {
            return None;
        }
        let mut at = home(name, self.places.len());
        loop {
            // A place that is free ends every search, since some are.
            let command = (*self.places.get(at)?)?;
            if command.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(command);
            }
            at = (at + 1) % self.places.len();
        }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[&'static Command] {
        &self.rows
    }
}
