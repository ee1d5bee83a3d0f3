//! A sorted set and a list of millions: what building them costs, and what questions deep inside cost.
//!
//! A hash with the same members as fields, and their scores as values, has a row for each as the sorted set has, and no order. So what ZADD costs more than HSET is what the
//! order costs.
//!
//! Every answer is compared with one worked out here: the scores follow from the members' numbers, and are kept sorted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ardb_base::random::Random;
use ardb_e2e::drive::{Plan, Work};
use ardb_e2e::server::Kind;
use ardb_e2e::usage::Memory;
use ardb_e2e::values;
use ardb_e2e::zipf::mix;
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, commas, gb, say};
use crate::removal;
use crate::strings::WRITE;

const ZSET: &[u8] = b"ranking";
const LIST: &[u8] = b"history";
const HASH: &[u8] = b"scores";
const MEMBER: u8 = b'm';

/// The score of a member: a whole number that every server prints with all its digits.
fn score(member: u64) -> u64 {
    mix(member) >> 14
}

/// What the servers should hold.
struct Model {
    /// Scores and members in their order.
    ranking: Vec<(u64, u64)>,
}

impl Model {
    fn new(members: u64) -> Model {
        let mut ranking: Vec<(u64, u64)> = (0..members).map(|member| (score(member), member)).collect();
        ranking.sort_unstable();
        Model { ranking }
    }

    fn members(&self) -> u64 {
        self.ranking.len() as u64
    }

    /// How many have a lower score.
    fn below(&self, score: u64) -> u64 {
        self.ranking.partition_point(|(other, _)| *other < score) as u64
    }
}

/// What is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    ZSet,
    Hash,
    List,
}

/// Adds members, fields or elements, from a number that all connections share.
struct Build {
    what: Kept,
    next: Arc<AtomicU64>,
    end: u64,
}

impl Work for Build {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.end {
            return None;
        }
        match self.what {
            Kept::ZSet => {
                values::command(out, "ZADD", 4);
                values::word(out, ZSET);
                values::number(out, score(at));
                values::key(out, MEMBER, at);
            }
            Kept::Hash => {
                values::command(out, "HSET", 4);
                values::word(out, HASH);
                values::key(out, MEMBER, at);
                values::number(out, score(at));
            }
            Kept::List => {
                values::command(out, "RPUSH", 3);
                values::word(out, LIST);
                values::key(out, MEMBER, at);
            }
        }
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        let added = values::integer(reply)?;
        if added == 1 || self.what == Kept::List && added > 0 { Ok(()) } else { Err(error(format!("added {added}"))) }
    }
}

/// A question with a place in the middle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Rank,
    Range,
    Count,
    Index,
    Part,
}

const QUESTIONS: [(Question, &str); 5] = [
    (Question::Rank, "ZRANK"),
    (Question::Range, "ZRANGE of 10 at a rank"),
    (Question::Count, "ZCOUNT of a range"),
    (Question::Index, "LINDEX"),
    (Question::Part, "LRANGE of 10"),
];

/// Members that a range asks for.
const FEW: u64 = 10;

/// Asks one question again and again.
struct Ask {
    question: Question,
    model: Arc<Model>,
    random: Random,
    asked: std::collections::VecDeque<(u64, u64)>,
    left: u64,
}

impl Work for Ask {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let members = self.model.members();
        let mut place = |room: u64| self.random.below(members.saturating_sub(room).max(1));
        let (one, other) = match self.question {
            Question::Rank | Question::Index => (place(0), 0),
            Question::Range | Question::Part => (place(FEW), 0),
            Question::Count => {
                let (one, other) = (place(0), place(0));
                (one.min(other), one.max(other))
            }
        };
        match self.question {
            Question::Rank => {
                values::command(out, "ZRANK", 3);
                values::word(out, ZSET);
                values::key(out, MEMBER, self.model.ranking[one as usize].1);
            }
            Question::Range => {
                values::command(out, "ZRANGE", 4);
                values::word(out, ZSET);
                values::number(out, one);
                values::number(out, one + FEW - 1);
            }
            Question::Count => {
                values::command(out, "ZCOUNT", 4);
                values::word(out, ZSET);
                values::number(out, self.model.ranking[one as usize].0);
                values::number(out, self.model.ranking[other as usize].0);
            }
            Question::Index => {
                values::command(out, "LINDEX", 3);
                values::word(out, LIST);
                values::number(out, one);
            }
            Question::Part => {
                values::command(out, "LRANGE", 4);
                values::word(out, LIST);
                values::number(out, one);
                values::number(out, one + FEW - 1);
            }
        }
        self.asked.push_back((one, other));
        Some(0)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        let (one, other) = self.asked.pop_front().ok_or_else(|| error("a reply too many"))?;
        let model = &self.model;
        let score_of = |rank: u64| model.ranking[rank as usize].0;
        let few = |member: &dyn Fn(u64) -> u64| -> Result<bool> {
            let count = FEW.min(model.members() - one);
            let found = values::items(reply, count as usize)?;
            Ok(found.enumerate().all(|(at, item)| item == values::name(MEMBER, member(one + at as u64))))
        };
        let good = match self.question {
            Question::Rank => values::integer(reply)? == one,
            Question::Count => {
                let count = model.below(score_of(other) + 1) - model.below(score_of(one));
                values::integer(reply)? == count
            }
            Question::Index => values::bulk(reply)? == values::name(MEMBER, one),
            Question::Range => few(&|rank| model.ranking[rank as usize].1)?,
            Question::Part => few(&|at| at)?,
        };
        let shown = || reply[..reply.len().min(80)].escape_ascii().to_string();
        if good { Ok(()) } else { Err(error(format!("at {one}, {other}: {}", shown()))) }
    }
}

pub fn run(bed: &Bed) -> Result<String> {
    let model = Arc::new(Model::new(bed.number("rank-members").max(FEW)));
    let mut out = format!("{} members with random scores, and a list of as many.\n\n", commas(model.members() as f64));
    for (name, kind) in bed.peers("rank-peers")? {
        say(&name);
        out.push_str(&format!("### {name}\n\n"));
        let server = bed.start(kind)?;
        out.push_str(&build(&server, &model)?);
        out.push_str(&ask(bed, &server, &model)?);
        out.push_str(&delete(bed, &server)?);
    }
    Ok(out)
}

fn build(server: &Guest, model: &Model) -> Result<String> {
    let plan = Plan::new(server.port, 64);
    let steps = 10;
    let mut out = String::new();
    // The elements of the list have an order, so one connection pushes them.
    for (what, name, connections) in [(Kept::Hash, "HSET", 8), (Kept::ZSet, "ZADD", 8), (Kept::List, "RPUSH", 1)] {
        let next = Arc::new(AtomicU64::new(0));
        let (mut rates, mut cpus, mut total) = (Vec::new(), Vec::new(), 0.0);
        for step in 1..=steps {
            let end = model.members() * step / steps;
            // A connection whose work is done has drawn a number for nothing.
            next.store(model.members() * (step - 1) / steps, Ordering::Relaxed);
            let work = (0..connections).map(|_| Build { what, next: Arc::clone(&next), end }).collect();
            let (run, _) = server.drive(&plan, work)?;
            rates.push(commas(run.outcome.rate()));
            cpus.push(format!("{:.2}", run.cpu));
            total += run.outcome.elapsed.as_secs_f64();
        }
        out.push_str(&format!(
            "{name}, connections: {connections}, `-P 64`: {total:.0} s; of each tenth requests/s {}; processor time us {}.\n\n",
            rates.join(", "),
            cpus.join(", ")
        ));
        if what == Kept::Hash {
            // What is in the way of the others is not measured.
            server.client()?.call(&[b"DEL".as_slice(), HASH])?;
        }
    }
    let (disk, log) = server.space()?;
    let resident = Memory::of(server.process()?)?.resident;
    out.push_str(&format!("{} resident, {} on the disk and {} of log.\n\n", gb(resident), gb(disk), gb(log)));
    say(out.trim());
    Ok(out)
}

fn ask(bed: &Bed, server: &Guest, model: &Arc<Model>) -> Result<String> {
    let mut out = String::from(
        "| | one connection: requests/s | p50 / p99 / p99.9 ms | CPU us | 50: requests/s | p50 / p99 / p99.9 ms | CPU us |\n|---|---|---|---|---|---|---|\n",
    );
    for (question, name) in QUESTIONS {
        let mut row = format!("| {name} |");
        for connections in [1, 50] {
            let part = |at: u64| Ask {
                question,
                model: Arc::clone(model),
                random: Random::new(bed.number("seed") * 1000 + at),
                asked: std::collections::VecDeque::new(),
                left: u64::MAX,
            };
            let plan = Plan::new(server.port, 1).lasting(bed.seconds("rank-seconds"));
            let (run, _) = server.drive(&plan, (0..connections).map(part).collect())?;
            let (rate, latency) = (commas(run.outcome.rate()), run.outcome.all().brief());
            row.push_str(&format!(" {rate} | {latency} | {:.2} |", run.cpu));
        }
        say(&row);
        out.push_str(&row);
        out.push('\n');
    }
    out.push('\n');
    Ok(out)
}

fn delete(bed: &Bed, server: &Guest) -> Result<String> {
    let mut out = String::new();
    let mut client = server.client()?;
    for (key, name) in [(ZSET, "the sorted set"), (LIST, "the list")] {
        let (settled, whole) = server.settle(bed)?;
        let (before, _) = server.space()?;
        let start = Instant::now();
        let reply = client.call(&[b"DEL".as_slice(), key])?;
        let took = start.elapsed();
        if reply.int() != Some(1) {
            out.push_str(&bed.fault(&format!("DEL of {name} gives {reply}")));
        }
        out.push_str(&format!("DEL of {name}: the reply after {:.2} ms", took.as_secs_f64() * 1e3));
        if server.kind() == Kind::Ardb {
            let release = removal::watch(server, bed, before)?;
            out.push_str(&format!(
                " (settled before for {:.0} s{}); a checkpoint was asked for: disk {}",
                settled.as_secs_f64(),
                if whole { "" } else { ", not to the end" },
                release.describe()
            ));
        }
        out.push_str(".\n\n");
    }
    if client.must("DBSIZE")?.int() != Some(0) {
        out.push_str(&bed.fault("keys are left"));
    }
    say(out.trim());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_sorted_and_counts() {
        let model = Model::new(1000);
        assert!(model.ranking.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(model.ranking.iter().all(|(score, _)| *score < 1 << 53));
        assert_eq!(model.below(0), 0);
        assert_eq!(model.below(model.ranking[10].0), 10);
        assert_eq!(model.below(u64::MAX), 1000);
    }
}
