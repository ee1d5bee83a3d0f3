//! Reads of collections over many keys, which `redis-benchmark` asks of one key or not at all.

use std::collections::{BTreeMap, VecDeque};

use ardb_base::random::Random;
use ardb_e2e::drive::{Plan, Work};
use ardb_e2e::server::Kind;
use ardb_e2e::values::{self, Shape};
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, Medians, Run, say};
use crate::strings::WRITE;

/// Fields of a hash and members of a set.
const FEW: u64 = 10;
/// Elements that a range asks for.
const PART: u64 = 100;

/// How much there is.
#[derive(Clone, Copy)]
struct Scale {
    /// Hashes, and sets.
    small: u64,
    /// Lists, and sorted sets.
    long: u64,
    /// Elements of each of those.
    length: u64,
}

fn value() -> Shape {
    Shape::new(20, 100)
}

fn field(at: u64) -> [u8; 7] {
    let mut name = *b"field:0";
    name[6] += at as u8;
    name
}

/// The element of a list or sorted set, or the member of a set, at a place.
fn element(key: u64, length: u64, at: u64) -> [u8; values::KEY] {
    values::name(b'e', key * length + at)
}

/// Writes all of it, a collection a request, long ones in parts.
struct Fill {
    scale: Scale,
    next: u64,
    step: u64,
}

impl Work for Fill {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let Scale { small, long, length } = self.scale;
        let parts = length.div_ceil(PART);
        let mut at = self.next;
        self.next += self.step;
        if at < small {
            values::command(out, "HSET", 2 + FEW * 2);
            values::key(out, b'h', at);
            for field_at in 0..FEW {
                values::word(out, &field(field_at));
                value().word(out, at, field_at);
            }
            return Some(WRITE);
        }
        at -= small;
        if at < small {
            values::command(out, "SADD", 2 + FEW);
            values::key(out, b's', at);
            (0..FEW).for_each(|place| values::word(out, &element(at, FEW, place)));
            return Some(WRITE);
        }
        // One connection writes all parts of a list, for they have an order.
        at -= small;
        let (part, key) = (at / self.step % parts, at / self.step / parts * self.step + at % self.step);
        if key / self.step * self.step >= long * 2 {
            return None;
        }
        let places = part * PART..((part + 1) * PART).min(length);
        let count = if key < long * 2 { places.end - places.start } else { 0 };
        if count == 0 {
            // Past the end, in the last group.
            values::command(out, "EXISTS", 2);
            values::key(out, b'l', key);
        } else if key < long {
            values::command(out, "RPUSH", 2 + count);
            values::key(out, b'l', key);
            places.for_each(|place| values::word(out, &element(key, length, place)));
        } else {
            values::command(out, "ZADD", 2 + count * 2);
            values::key(out, b'z', key - long);
            for place in places {
                values::number(out, place);
                values::word(out, &element(key - long, length, place));
            }
        }
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        values::integer(reply).map(|_| ())
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Hash,
    List,
    Zset,
    Set,
    Rank,
    Field,
}

const QUESTIONS: [(Question, &str); 6] = [
    (Question::Hash, "HGETALL of 10"),
    (Question::List, "LRANGE of 100"),
    (Question::Zset, "ZRANGE of 100"),
    (Question::Set, "SMEMBERS of 10"),
    (Question::Rank, "ZRANK"),
    (Question::Field, "HGET"),
];

/// Asks one question of random keys, at random places.
struct Ask {
    question: Question,
    scale: Scale,
    random: Random,
    asked: VecDeque<(u64, u64)>,
}

impl Work for Ask {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let Scale { small, long, length } = self.scale;
        let room = length.saturating_sub(PART) + 1;
        let mut below = |bound: u64| self.random.below(bound);
        let asked = match self.question {
            Question::Hash => {
                let key = below(small);
                values::command(out, "HGETALL", 2);
                values::key(out, b'h', key);
                (key, 0)
            }
            Question::Field => {
                let (key, at) = (below(small), below(FEW));
                values::command(out, "HGET", 3);
                values::key(out, b'h', key);
                values::word(out, &field(at));
                (key, at)
            }
            Question::Set => {
                let key = below(small);
                values::command(out, "SMEMBERS", 2);
                values::key(out, b's', key);
                (key, 0)
            }
            Question::List | Question::Zset => {
                let (key, at) = (below(long), below(room));
                let (name, letter) = if self.question == Question::List { ("LRANGE", b'l') } else { ("ZRANGE", b'z') };
                values::command(out, name, 4);
                values::key(out, letter, key);
                values::number(out, at);
                values::number(out, at + PART - 1);
                (key, at)
            }
            Question::Rank => {
                let (key, at) = (below(long), below(length));
                values::command(out, "ZRANK", 3);
                values::key(out, b'z', key);
                values::word(out, &element(key, length, at));
                (key, at)
            }
        };
        self.asked.push_back(asked);
        Some(0)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        let (key, at) = self.asked.pop_front().ok_or_else(|| error("a reply too many"))?;
        let length = self.scale.length;
        let good = match self.question {
            Question::Field => value().is_of(values::bulk(reply)?, key, at),
            Question::Rank => values::integer(reply)? == at,
            Question::List | Question::Zset => {
                let count = PART.min(length - at) as usize;
                values::items(reply, count)?
                    .enumerate()
                    .all(|(more, item)| item == element(key, length, at + more as u64))
            }
            Question::Set => {
                // Any order, each once.
                let mut seen = 0u16;
                for item in values::items(reply, FEW as usize)? {
                    let place = u64::from(item.last().copied().unwrap_or(0).wrapping_sub(b'0')).min(FEW);
                    let known = place < FEW && item == element(key, FEW, place);
                    seen |= u16::from(known) << place;
                }
                seen == (1 << FEW) - 1
            }
            Question::Hash => {
                let mut items = values::items(reply, 2 * FEW as usize)?;
                let mut seen = 0u16;
                while let (Some(name), Some(found)) = (items.next(), items.next()) {
                    let place = u64::from(name.last().copied().unwrap_or(0).wrapping_sub(b'0')).min(FEW);
                    let known = place < FEW && name == field(place) && value().is_of(found, key, place);
                    seen |= u16::from(known) << place;
                }
                seen == (1 << FEW) - 1
            }
        };
        let shown = || reply[..reply.len().min(80)].escape_ascii().to_string();
        if good { Ok(()) } else { Err(error(format!("key {key} at {at}: {}", shown()))) }
    }
}

pub fn run(bed: &Bed) -> Result<String> {
    let scale = Scale {
        small: bed.number("read-keys").max(1),
        long: bed.number("read-lists").max(1),
        length: bed.number("read-length").max(1),
    };
    let names = ["Ardb", "Redis 7.0"];
    let servers = [bed.start(Kind::Ardb)?, bed.start(Kind::Redis("7.0"))?];
    for server in &servers {
        let work = (0..8).map(|next| Fill { scale, next, step: 8 }).collect();
        let (run, _) = server.drive(&Plan::new(server.port, 16), work)?;
        let size = server.client()?.must("DBSIZE")?.int().unwrap_or(0) as u64;
        say(format!("{}: {size} keys in {:.0} s", server.name(), run.outcome.elapsed.as_secs_f64()));
        if size != 2 * (scale.small + scale.long) {
            return Err(error(format!("{}: DBSIZE is {size}", server.name())));
        }
    }
    let pipelines = bed.list::<u64>("read-pipelines")?;
    let mut runs: BTreeMap<(u64, usize, usize), Vec<Run>> = BTreeMap::new();
    for round in 0..bed.number("rounds").max(1) {
        for &pipeline in &pipelines {
            for (number, (question, name)) in QUESTIONS.into_iter().enumerate() {
                for turn in 0..servers.len() {
                    let at = if round % 2 == 0 { turn } else { servers.len() - 1 - turn };
                    let run = ask(bed, &servers[at], scale, question, pipeline, round)?;
                    say(format!(
                        "{name}, -P {pipeline}, {}: {:.0}/s, {:.2} us, the client {:.2}",
                        names[at],
                        run.outcome.rate(),
                        run.cpu,
                        run.own
                    ));
                    runs.entry((pipeline, number, at)).or_default().push(run);
                }
            }
        }
    }
    let mut out = format!(
        "{} hashes of 10 fields and sets of 10 members, {} lists and sorted sets of {}; {} connections; medians of {} rounds in turns of {} s. A ratio above 1 means that Ardb is faster, or spends less.\n\n",
        scale.small,
        scale.long,
        scale.length,
        bed.number("read-clients"),
        bed.number("rounds"),
        bed.number("seconds")
    );
    for pipeline in pipelines {
        out.push_str(&format!("`-P {pipeline}`:\n\n| | Ardb: requests/s | p50 / p99 / p99.9 ms | CPU us | Redis: requests/s | p50 / p99 / p99.9 ms | CPU us | ratio | of CPU |\n|---|---|---|---|---|---|---|---|---|\n"));
        for (number, (_, name)) in QUESTIONS.into_iter().enumerate() {
            let [ours, theirs] = [0, 1].map(|at| Medians::of(&runs[&(pipeline, number, at)]));
            let (ratio, cpu) = (ours.rate / theirs.rate, theirs.cpu / ours.cpu.max(1e-9));
            out.push_str(&format!("| {name} |{}{} {ratio:.2} | {cpu:.2} |\n", ours.cells(), theirs.cells()));
        }
        out.push('\n');
    }
    Ok(out)
}

fn ask(bed: &Bed, server: &Guest, scale: Scale, question: Question, pipeline: u64, round: u64) -> Result<Run> {
    let seed = (bed.number("seed") * 100 + round) * 10_000;
    let part = |at: u64| Ask { question, scale, random: Random::new(seed + at), asked: VecDeque::new() };
    let plan = Plan::new(server.port, pipeline).lasting(bed.seconds("seconds"));
    Ok(server.drive(&plan, (0..bed.number("read-clients").max(1)).map(part).collect())?.0)
}
