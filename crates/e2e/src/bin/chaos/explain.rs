//! Why each full resync was needed, from what the servers that gave it wrote into their logs.
//!
//! Histories form a tree: each promotion makes a name that parts from another, and the harness knows all of them. A full resync is
//! explained if the tree says that there was nothing to go on from, for a master that knows two names of its history, as Redis's
//! protocol has it; whatever else there is, is a fault of some server.

use std::collections::BTreeMap;

/// The names of all histories, each with the one that it parted from.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Each promotion makes one; it parts from what the promoted server called its history before. The first has no parent.
    pub parents: BTreeMap<String, Option<String>>,
    /// Of servers that have not joined yet.
    pub virgins: Vec<String>,
}

impl Names {
    /// How many promotions lie between `id` and `ancestor`, if the one comes from the other.
    fn steps(&self, id: &str, ancestor: &str) -> Option<usize> {
        let (mut at, mut steps) = (id, 0);
        while at != ancestor {
            at = self.parents.get(at)?.as_deref()?;
            steps += 1;
        }
        Some(steps)
    }
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

/// Whether this server had been sent everything up to the offset `first` before that time, so that its log begins there.
fn begins_at(log: &str, first: u64, when: &str) -> bool {
    log.lines()
        .filter(|line| line.contains("Full resync from master") && time(line).is_some_and(|time| time < when))
        .any(|line| line.rsplit(':').next().and_then(number) == Some(first))
}

/// Says why a full resync was needed; `None` if nothing explains it. `replica` is the log of the server that got it, `master` of the one that gave it.
pub fn explain(names: &Names, full: &Full, replica: &str, master: &str) -> Option<&'static str> {
    let nobody = |id: &str| id.bytes().all(|byte| byte == b'0');
    match &full.refusal {
        // One that has never had anything, or a Redis that has begun to receive everything, has nothing to go on from.
        None => {
            (!whole_at(replica, &full.time)).then_some("it asked for everything: a first transfer, or one that broke")
        }
        Some(Refusal::PastSecond { asked, bound }) => {
            (asked > bound).then_some("it has what the promoted server never had")
        }
        Some(Refusal::Backlog { asked, held: Some((_, next)) }) if asked > next => {
            Some("it is ahead of its new master")
        }
        // Backlogs are larger than all that is written.
        Some(Refusal::Backlog { asked, held: Some((first, _)) }) => (asked < first
            && begins_at(master, *first, &full.time))
        .then_some("its new master's log begins with a full resync of its own"),
        Some(Refusal::Backlog { held: None, .. }) => {
            Some("it is ahead of its new master, or that one's backlog is young")
        }
        Some(Refusal::Id { asked, first, second }) => {
            if names.virgins.contains(asked) {
                return Some("its first one");
            }
            if names.virgins.contains(first) {
                return Some("its new master has not joined yet");
            }
            if !names.parents.contains_key(asked) || !names.parents.contains_key(first) {
                return None;
            }
            match (names.steps(first, asked), names.steps(asked, first)) {
                (Some(1), _) => {
                    nobody(second).then_some("its new master was sent everything itself and knows one name")
                }
                (Some(0), _) => None,
                (Some(_), _) => Some("it missed two promotions"),
                (_, Some(_)) => Some("its new master has not heard of the promotion"),
                (None, None) => Some("its history parted from that of its new master"),
            }
        }
    }
}

/// Adds one to a count.
pub fn count(counts: &mut BTreeMap<&'static str, usize>, what: &'static str) {
    *counts.entry(what).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    /// a, from which b and c part; d parts from b.
    fn names() -> Names {
        let pairs = [('a', None), ('b', Some('a')), ('c', Some('a')), ('d', Some('b'))];
        let parents = pairs.map(|(name, parent)| (id(name), parent.map(id))).into();
        Names { parents, virgins: vec![id('e')] }
    }

    fn judge(refusal: &str, replica: &str) -> Option<&'static str> {
        let log = format!("{refusal}\n1:M 22 Nov 2026 16:00:05.000 * Full resync requested by replica 127.0.0.1:77\n");
        let given = read(&log);
        assert_eq!((given.full.len(), given.full[0].port), (1, 77), "{log}");
        let master = "9:S 22 Nov 2026 16:00:02.000 * Full resync from master by rows: x:55\n";
        explain(&names(), &given.full[0], replica, master)
    }

    fn redis(asked: char, first: char, second: char) -> Option<&'static str> {
        let line = "1:M 22 Nov 2026 16:00:04.000 * Partial resynchronization not accepted: Replication ID mismatch";
        let (asked, first, second) = (id(asked), id(first), id(second));
        judge(&format!("{line} (Replica asked for '{asked}', my replication IDs are '{first}' and '{second}')"), "")
    }

    fn ours(why: &str, asked: char, first: char, second: char) -> Option<&'static str> {
        let line = "1:M 22 Nov 2026 16:00:04.000 * Partial resynchronization not accepted for 127.0.0.1:77:";
        judge(
            &format!("{line} {why} (it asked for {}:50; ours is {}, before it {})", id(asked), id(first), id(second)),
            "",
        )
    }

    #[test]
    fn what_has_a_reason_gets_it_and_what_has_none_does_not() {
        assert_eq!(redis('a', 'd', 'b'), Some("it missed two promotions"));
        assert_eq!(redis('b', 'd', '0'), Some("its new master was sent everything itself and knows one name"));
        assert_eq!(redis('c', 'd', 'b'), Some("its history parted from that of its new master"));
        assert_eq!(redis('e', 'd', 'b'), Some("its first one"));
        assert_eq!(redis('d', 'b', 'a'), Some("its new master has not heard of the promotion"));
        // It should have known the name before its own; and nobody knows f.
        assert_eq!(redis('b', 'd', 'a'), None);
        assert_eq!(redis('d', 'd', 'b'), None);
        assert_eq!(redis('f', 'd', 'b'), None);
        let other = "its history is another one";
        assert_eq!(ours(other, 'a', 'd', 'b'), Some("it missed two promotions"));
        assert_eq!(ours(other, 'b', 'd', 'a'), None);
        assert_eq!(
            ours("its history parted from ours at 40", 'b', 'd', 'b'),
            Some("it has what the promoted server never had")
        );
        assert_eq!(ours("its history parted from ours at 60", 'b', 'd', 'b'), None);
        assert_eq!(ours("the log holds 10 to 40", 'd', 'd', 'b'), Some("it is ahead of its new master"));
        assert_eq!(ours("the log holds 10 to 60", 'd', 'd', 'b'), None);
        assert_eq!(ours("the log holds 54 to 60", 'd', 'd', '0'), None);
        // Whatever its history is called by now.
        assert!(ours("the log holds 55 to 60", 'd', 'd', 'b').is_some());
        assert!(ours("the log holds 55 to 60", 'd', 'd', '0').is_some());
    }

    #[test]
    fn asking_for_everything_has_a_reason_unless_it_had_everything() {
        let finished = "9:S 22 Nov 2026 16:00:01.000 * MASTER <-> REPLICA sync: Finished with success\n";
        let begun = "9:S 22 Nov 2026 16:00:02.000 * Full resync from master: x:1\n";
        assert!(judge("", "").is_some());
        assert!(judge("", &format!("{finished}{begun}")).is_some());
        assert_eq!(judge("", finished), None);
    }
}
