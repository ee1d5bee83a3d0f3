//! The logical content of a server: every database, key, type, value and absolute expiry, read out with commands that
//! Redis 2.8 knows, and the comparison of two of them.
//!
//! Encodings and internal order do not count. The moment of expiry is read with PEXPIRETIME where that exists; elsewhere
//! it is bracketed between the clock before and after PTTL, and two brackets are equal when they overlap. A key whose
//! time is up by the end of the later reading counts as gone on both sides, whether or not it has been deleted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::{Client, Command};
use crate::reply::{Escaped, Reply};
use crate::{Result, error};

/// When a key expires: somewhere in this range of unix milliseconds, both ends included.
type Expiry = Option<(i64, i64)>;

#[derive(Clone, Debug)]
struct Entry {
    kind: String,
    /// Of the whole value, order removed where it means nothing.
    hash: u64,
    /// Bytes or items, for messages.
    size: usize,
    preview: String,
    expiry: Expiry,
}

/// The content of one server at one time.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    entries: BTreeMap<(u32, Vec<u8>), Entry>,
    /// Unix milliseconds when the reading ended.
    end: i64,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The numbers of the databases that hold keys.
fn databases(client: &mut Client) -> Result<Vec<u32>> {
    let info = client.info("keyspace")?;
    let mut list: Vec<u32> = info.keys().filter_map(|name| name.strip_prefix("db")?.parse().ok()).collect();
    list.sort_unstable();
    Ok(list)
}

/// All keys of the selected database, by SCAN.
fn keys(client: &mut Client) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    let mut cursor = "0".to_string();
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "1000"])?;
        let Some([next, found]) = reply.items() else { return Err(error(format!("SCAN: {reply}"))) };
        keys.extend(found.items().unwrap_or_default().iter().filter_map(|key| key.bytes().map(<[u8]>::to_vec)));
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    // SCAN may name a key twice.
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The command that reads a whole value of this type, and how many items of its reply belong together; 0 where the order
/// means something.
fn reader(kind: &str, key: &[u8]) -> Option<(Command, usize)> {
    let command = |name: &str, rest: &[&str]| -> Command {
        let mut command = vec![name.as_bytes().to_vec(), key.to_vec()];
        command.extend(rest.iter().map(|word| word.as_bytes().to_vec()));
        command
    };
    match kind {
        "string" => Some((command("GET", &[]), 0)),
        "list" => Some((command("LRANGE", &["0", "-1"]), 0)),
        "set" => Some((command("SMEMBERS", &[]), 1)),
        "hash" => Some((command("HGETALL", &[]), 2)),
        "zset" => Some((command("ZRANGE", &["0", "-1", "WITHSCORES"]), 0)),
        _ => None,
    }
}

/// Members and scores in turn, the scores as the shortest text of their number: servers print them with more or fewer digits.
fn scores_as_numbers(value: Reply) -> Reply {
    let Reply::Array(mut items) = value else { return value };
    for score in items.iter_mut().skip(1).step_by(2) {
        if let Ok(number) = score.text().parse::<f64>() {
            // Without the sign of a zero, which Redis keeps or drops with the encoding.
            *score = Reply::Bulk((number + 0.0).to_string().into_bytes());
        }
    }
    Reply::Array(items)
}

impl Digest {
    /// Reads everything out of a server. The client is left with database 0 selected.
    ///
    /// # Errors
    /// If the connection fails, or the server holds a type unknown here.
    pub fn read(client: &mut Client) -> Result<Digest> {
        let mut digest = Digest::default();
        let exact = !client.ask("PEXPIRETIME nothing")?.is_error();
        for db in databases(client)? {
            client.must(&format!("SELECT {db}"))?;
            for portion in keys(client)?.chunks(200) {
                digest.read_keys(client, db, portion, exact)?;
            }
        }
        client.must("SELECT 0")?;
        digest.end = now();
        Ok(digest)
    }

    fn read_keys(&mut self, client: &mut Client, db: u32, keys: &[Vec<u8>], exact: bool) -> Result<()> {
        let expiry_command = if exact { "PEXPIRETIME" } else { "PTTL" };
        let questions: Vec<Command> = keys
            .iter()
            .flat_map(|key| {
                [b"TYPE".as_slice(), expiry_command.as_bytes()].map(|name| vec![name.to_vec(), key.clone()])
            })
            .collect();
        let before = now();
        let answers = client.pipeline(&questions)?;
        let after = now();

        let mut found = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers.chunks(2)) {
            let [kind, time] = answer else { continue };
            let expiry = match (exact, time.int()) {
                (_, Some(-1)) => None,
                (_, Some(-2)) => continue,
                (true, Some(time)) => Some((time, time)),
                // 2.8 shows an expired key that it still holds, with a PTTL of 0.
                (false, Some(time)) => Some((before.saturating_add(time), after.saturating_add(time))),
                (_, None) => return Err(error(format!("{expiry_command}: {time}"))),
            };
            let kind = kind.text();
            if kind == "none" {
                continue;
            }
            let Some((command, group)) = reader(&kind, key) else {
                return Err(error(format!("{} is of a type unknown here: {kind}", Escaped(key))));
            };
            found.push((key, kind, expiry, command, group));
        }
        let commands: Vec<Command> = found.iter().map(|(.., command, _)| command.clone()).collect();
        let values = client.pipeline(&commands)?;
        for ((key, kind, expiry, _, group), value) in found.into_iter().zip(values) {
            let value = match kind.as_str() {
                "zset" => scores_as_numbers(value),
                _ if group > 0 => value.sorted(group),
                _ => value,
            };
            let size = match &value {
                // It expired between the two questions.
                Reply::Nil => continue,
                Reply::Array(items) if items.is_empty() => continue,
                Reply::Error(_) => return Err(error(format!("{kind} {}: {value}", Escaped(key)))),
                Reply::Bulk(bytes) => bytes.len(),
                other => other.items().map_or(0, <[Reply]>::len),
            };
            let mut hasher = DefaultHasher::new();
            value.hash(&mut hasher);
            let preview: String = value.to_string().chars().take(100).collect();
            let entry = Entry { kind, hash: hasher.finish(), size, preview, expiry };
            self.entries.insert((db, key.clone()), entry);
        }
        Ok(())
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One number for all of it, expiries aside, for people to compare by eye.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for ((db, key), entry) in &self.entries {
            (db, key, &entry.kind, entry.hash, entry.expiry.is_some()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Keys by type and keys with an expiry, for messages.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.entries.values() {
            *kinds.entry(&entry.kind).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let expiries = self.entries.values().filter(|entry| entry.expiry.is_some()).count();
        format!("{} keys ({}), {expiries} with an expiry, digest {:016x}", self.len(), kinds.join(", "), self.hash())
    }

    /// What is not the same in `other`, a line each; empty if the two are equal.
    #[must_use]
    pub fn differences(&self, other: &Digest) -> Vec<String> {
        self.differences_within(other, 0)
    }

    /// The same, for servers whose clocks were read apart: moments of expiry may lie `slack` milliseconds from each other.
    #[must_use]
    pub fn differences_within(&self, other: &Digest, slack: i64) -> Vec<String> {
        let end = self.end.max(other.end);
        let lives = |entry: &&Entry| entry.expiry.is_none_or(|(_, latest)| latest > end);
        let names: std::collections::BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let mut list = Vec::new();
        for name in names {
            let one = self.entries.get(name).filter(lives);
            let two = other.entries.get(name).filter(lives);
            let difference = match (one, two) {
                (None, None) => continue,
                (Some(one), None) => format!("only on the first: {}", describe(one)),
                (None, Some(two)) => format!("only on the second: {}", describe(two)),
                (Some(one), Some(two)) => {
                    let same_time = match (one.expiry, two.expiry) {
                        (None, None) => true,
                        (Some((from, to)), Some((other_from, other_to))) => {
                            from <= other_to.saturating_add(slack) && other_from <= to.saturating_add(slack)
                        }
                        _ => false,
                    };
                    if one.kind == two.kind && one.hash == two.hash && same_time {
                        continue;
                    }
                    format!("{}  against  {}", describe(one), describe(two))
                }
            };
            list.push(format!("db{} {}: {difference}", name.0, Escaped(&name.1)));
        }
        list
    }
}

fn describe(entry: &Entry) -> String {
    let expiry = match entry.expiry {
        None => String::new(),
        Some((from, to)) if from == to => format!(" expires at {from}"),
        Some((from, to)) => format!(" expires at {from}..{to}"),
    };
    format!("{} of {}{expiry} {}", entry.kind, entry.size, entry.preview)
}
