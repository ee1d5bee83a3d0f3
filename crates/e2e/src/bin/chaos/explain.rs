//! Why each full resync was needed, from what the servers that gave it wrote into their logs.
//!
//! Histories form one line: each promotion adds a name, and the harness knows all of them in order. A full resync is explained
//! if that line says that there was nothing to go on from; whatever else there is, is a fault of some server.

use std::collections::BTreeMap;

/// The names of the one history, oldest first, and those that servers had before they joined it.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// In the order of promotions.
    pub line: Vec<String>,
    /// Of servers that had not joined yet.
    pub virgins: Vec<String>,
}

/// What a replica asked for and why it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `id` is neither `first` nor `second`.
    Id { asked: String, first: String, second: String },
    /// The offset lies past what the second name is good for.
    PastSecond { asked: u64, bound: u64 },
    /// The offset is not in the backlog, which holds these bytes where the log says so.
    Backlog { asked: u64, held: Option<(u64, u64)> },
}

/// One full resync that a server has given.
#[derive(Clone, Debug)]
pub struct Full {
    /// The port of the replica.
    pub port: u16,
    /// Why it could not go on; `None` if it asked for everything.
    pub refusal: Option<Refusal>,
    /// When, as the log has it.
    pub time: String,
    /// The line that says so.
    pub line: String,
}

/// Full and partial resyncs that one server has given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Full ones.
    pub full: Vec<Full>,
    /// Partial ones.
    pub partial: usize,
}

fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let rest = &text[text.find(from)? + from.len()..];
    Some(&rest[..rest.find(to)?])
}

fn number(text: &str) -> Option<u64> {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The port at the end of the first address in a line.
fn port_after(line: &str, mark: &str) -> Option<u16> {
    let rest = &line[line.find(mark)? + mark.len()..];
    let (_, port) = rest.split_once(':')?;
    number(port).and_then(|port| u16::try_from(port).ok())
}

/// One line of a refusal, of Redis, Valkey or Ardb.
fn refusal(line: &str) -> Option<Refusal> {
    if line.contains("Replication ID mismatch") {
        let asked = between(line, "asked for '", "'")?.to_string();
        let first = between(line, "IDs are '", "'")?.to_string();
        let second = between(line, "' and '", "'")?.to_string();
        return Some(Refusal::Id { asked, first, second });
    }
    if let Some(rest) = line.split("Requested offset for second ID was ").nth(1) {
        return Some(Refusal::PastSecond { asked: number(rest)?, bound: number(rest.split("up to ").nth(1)?)? });
    }
    if line.contains("for lack of backlog") {
        return Some(Refusal::Backlog { asked: number(line.split("request was:").nth(1)?)?, held: None });
    }
    if line.contains("Partial resynchronization not accepted for") {
        let (id, offset) = between(line, "it asked for ", ";")?.split_once(':')?;
        let asked = number(offset).unwrap_or(0);
        if let Some(rest) = line.split("parted from ours at ").nth(1) {
            return Some(Refusal::PastSecond { asked, bound: number(rest)? });
        }
        if let Some(rest) = line.split("the log holds ").nth(1) {
            return Some(Refusal::Backlog { asked, held: Some((number(rest)?, number(rest.split(" to ").nth(1)?)?)) });
        }
        let first = between(line, "ours is ", ",")?.to_string();
        let second = between(line, "before it ", ")")?.to_string();
        return Some(Refusal::Id { asked: id.to_string(), first, second });
    }
    None
}

/// The time in a line, `22 Nov 2026 16:16:48.595`. Within a month, such texts are in the order of time.
fn time(line: &str) -> Option<&str> {
    let start = line.find(' ')?;
    let text = line.get(start + 1..start + 25)?;
    text.starts_with(|digit: char| digit.is_ascii_digit()).then_some(text)
}

/// Whether this replica held everything of its master at that time: of what its log says of full resyncs before, the end of one is the
/// last.
fn whole_at(log: &str, when: &str) -> bool {
    let mut whole = false;
    for line in log.lines().filter(|line| time(line).is_some_and(|time| time < when)) {
        if line.contains("Full resync from master") {
            whole = false;
        } else if line.contains("sync: Finished with success") {
            whole = true;
        }
    }
    whole
}

/// Reads a server's log.
pub fn read(log: &str) -> Given {
    let mut given = Given::default();
    // Redis names the replica only in some of its refusals; the full resync follows in the next lines.
    let mut last: Option<(Refusal, String)> = None;
    for line in log.lines() {
        if let Some(refusal) = refusal(line) {
            last = Some((refusal, line.to_string()));
        } else if line.contains("Full resync requested by replica") {
            let port = port_after(line, "by replica ").unwrap_or(0);
            let time = time(line).unwrap_or_default().to_string();
            let (refusal, line) = last.take().map_or((None, line.to_string()), |(refusal, text)| (Some(refusal), text));
            given.full.push(Full { port, refusal, time, line });
        } else if line.contains("Partial resynchronization request from") && line.contains("accepted") {
            given.partial += 1;
        }
    }
    given
}

/// Says why a full resync was needed; `None` if nothing explains it. `replica` is the log of the server that got it.
pub fn explain(names: &Names, full: &Full, replica: &str) -> Option<&'static str> {
    let nobody = |id: &str| id.bytes().all(|byte| byte == b'0');
    match &full.refusal {
        // One that has never had anything, or a Redis that has begun to receive everything, has nothing to go on from.
        None => {
            (!whole_at(replica, &full.time)).then_some("it asked for everything: a first transfer, or one that broke")
        }
        Some(Refusal::PastSecond { asked, bound }) => {
            (asked > bound).then_some("it has what the promoted server never had")
        }
        Some(Refusal::Backlog { asked, held: Some((_, next)) }) => {
            (asked > next).then_some("it is ahead of its new master")
        }
        // The log does not say what is held; backlogs are larger than all that is written.
        Some(Refusal::Backlog { held: None, .. }) => Some("it is ahead of its new master"),
        Some(Refusal::Id { asked, first, second }) => {
            if names.virgins.contains(asked) {
                return Some("its first one");
            }
            if names.virgins.contains(first) {
                return Some("its new master has not joined yet");
            }
            let place = |id: &String| names.line.iter().position(|name| name == id);
            match (place(asked)?, place(first)?) {
                (asked, first) if asked + 1 < first => Some("it missed two promotions"),
                (asked, first) if asked > first => Some("its new master has not heard of the promotion"),
                (asked, first) if asked + 1 == first && nobody(second) => {
                    Some("its new master was sent everything itself and knows one name")
                }
                _ => None,
            }
        }
    }
}

/// Adds one to a count.
pub fn count(counts: &mut BTreeMap<&'static str, usize>, what: &'static str) {
    *counts.entry(what).or_default() += 1;
}
