//! Elements that pass through one key, millions of them, while a bounded number waits in it: does the first tenth go as fast as the last?
//!
//! Each connection puts in and takes out in turn, so the length stays. Elements say which connection put them in and as which, and a connection takes those of
//! any. Invariants that are checked: no taker sees two elements of one giver out of order; what comes out, with what is left, is what went in, by number and
//! by the sum of what identifies them.

use std::time::Duration;

use ardb_e2e::drive::{Outcome, Plan, Work};
use ardb_e2e::plot::Lines;
use ardb_e2e::server::Kind;
use ardb_e2e::usage::{self, Memory};
use ardb_e2e::values;
use ardb_e2e::zipf::mix;
use ardb_e2e::{Result, error};

use crate::bed::{Bed, Guest, commas, gb, say};
use crate::watch::{Seen, Watch};

/// Elements are counted in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
/// Kinds of requests.
const PUT: usize = 0;
const TAKE: usize = 1;

/// A connection's elements are numbered from its own multiple of this.
const EACH: u64 = 1 << 32;

/// Which kind of queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// LPUSH and RPOP.
    List,
    /// ZADD with the number as score, and ZPOPMIN.
    Zset,
}

/// What is known of elements that went in or came out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn note(&mut self, number: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix(number));
    }

    fn add(&mut self, other: Tally) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// One connection.
struct Turn {
    form: Form,
    me: u64,
    connections: u64,
    /// Elements that this connection will have put in, first without taking, then in turns.
    first: u64,
    all: u64,
    put: u64,
    taking: bool,
    /// For each giver, one more than the last of its elements that was seen.
    seen: Vec<u64>,
    given: Tally,
    taken: Tally,
    /// Kinds of the requests without a reply.
    asked: std::collections::VecDeque<usize>,
}

const KEY: &[u8] = b"queue";

impl Turn {
    /// The score of an element, by which those of all connections lie among each other.
    fn score(&self, number: u64) -> u64 {
        number % EACH * self.connections + number / EACH
    }

    /// An element's number, out of its text.
    fn number(text: &[u8]) -> Result<u64> {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix("element:")?.parse().ok());
        number.ok_or_else(|| error(format!("no element of this queue: {}", text.escape_ascii())))
    }

    fn judge(&mut self, number: u64) -> Result<()> {
        let (giver, at) = ((number / EACH) as usize, number % EACH);
        let seen = self.seen.get_mut(giver).ok_or_else(|| error(format!("element {number} is of nobody")))?;
        if at < *seen {
            return Err(error(format!("element {at} of connection {giver} came after element {}", *seen - 1)));
        }
        *seen = at + 1;
        self.taken.note(number);
        Ok(())
    }
}

impl Work for Turn {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.taking {
            self.taking = false;
            match self.form {
                Form::List => values::command(out, "RPOP", 2),
                Form::Zset => values::command(out, "ZPOPMIN", 2),
            }
            values::word(out, KEY);
            self.asked.push_back(TAKE);
            return Some(TAKE);
        }
        if self.put == self.all {
            return None;
        }
        let number = self.me * EACH + self.put;
        self.put += 1;
        self.taking = self.put > self.first;
        match self.form {
            Form::List => {
                values::command(out, "LPUSH", 3);
                values::word(out, KEY);
            }
            Form::Zset => {
                values::command(out, "ZADD", 4);
                values::word(out, KEY);
                values::number(out, self.score(number));
            }
        }
        let mut element = Vec::with_capacity(32);
        element.extend_from_slice(b"element:");
        values::digits(number, &mut element);
        values::word(out, &element);
        self.given.note(number);
        self.asked.push_back(PUT);
        Some(PUT)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        if self.asked.pop_front() == Some(PUT) {
            let count = values::integer(reply)?;
            let good = if self.form == Form::Zset { count == 1 } else { count > 0 };
            return if good { Ok(()) } else { Err(error(format!("an element went in as {count}"))) };
        }
        match self.form {
            Form::List => self.judge(Turn::number(values::bulk(reply)?)?),
            Form::Zset => {
                let mut items = values::items(reply, 2)?;
                let (member, score) = (items.next().unwrap_or_default(), items.next().unwrap_or_default());
                let number = Turn::number(member)?;
                if score != self.score(number).to_string().as_bytes() {
                    return Err(error(format!("element {number} has the score {}", score.escape_ascii())));
                }
                self.judge(number)
            }
        }
    }
}

/// When each tenth of the elements was through, in seconds.
fn tenths(outcome: &Outcome, kind: usize) -> Vec<f64> {
    let total: u64 = outcome.slots.iter().map(|slot| slot[kind].count()).sum();
    let (mut done, mut next) = (0, 1);
    let mut times = Vec::new();
    for (at, slot) in outcome.slots.iter().enumerate() {
        let here = slot[kind].count();
        while next <= 10 && here > 0 && (done + here) * 10 >= total * next {
            let part = (total as f64 * next as f64 / 10.0 - done as f64) / here as f64;
            times.push((at as f64 + part) * SLOT.as_secs_f64());
            next += 1;
        }
        done += here;
    }
    times
}

pub fn run(bed: &Bed) -> Result<String> {
    let mut out = String::new();
    for (form, name, option) in
        [(Form::List, "LPUSH and RPOP", "queue-lists"), (Form::Zset, "ZADD and ZPOPMIN", "queue-zsets")]
    {
        if bed.number(option) > 0 {
            out.push_str(&one(bed, form, name, bed.number(option))?);
        }
    }
    Ok(out)
}

fn one(bed: &Bed, form: Form, name: &str, elements: u64) -> Result<String> {
    let server = bed.start(Kind::Ardb)?;
    let connections = bed.number("queue-clients").max(1);
    let standing = bed.number("queue-standing") / connections;
    let mut work: Vec<Turn> = (0..connections)
        .map(|me| Turn {
            form,
            me,
            connections,
            first: standing,
            all: standing,
            put: 0,
            taking: false,
            seen: vec![0; connections as usize],
            given: Tally::default(),
            taken: Tally::default(),
            asked: std::collections::VecDeque::new(),
        })
        .collect();
    let plan = Plan::new(server.port, bed.number("queue-pipeline"));
    (_, work) = server.drive(&plan, work)?;
    work.iter_mut().for_each(|turn| turn.all = standing + elements / connections);
    let watch = Watch::start(&server)?;
    let (run, work) = server.drive(&plan.in_slots(SLOT), work)?;
    let seen = watch.finish()?;

    let times = tenths(&run.outcome, TAKE);
    let each = run.outcome.kinds[TAKE].count() as f64 / 10.0;
    let rates: Vec<f64> =
        times.iter().enumerate().map(|(at, time)| each / (time - if at == 0 { 0.0 } else { times[at - 1] })).collect();
    let (first, last) = (rates.first().copied().unwrap_or(0.0), rates.last().copied().unwrap_or(0.0));
    let mut out = format!(
        "{name}, {} elements through one key in which {} wait, {connections} connections, `-P {}`: {:.0} s, {:.2} us of processor time for each request (the client {:.2}), \
         puts {} and takes {} ms (p50 / p99 / p99.9). Elements a second of each tenth: {}; the last is {:.2} of the first.\n\n",
        commas(elements as f64),
        commas((standing * connections) as f64),
        bed.number("queue-pipeline"),
        run.outcome.elapsed.as_secs_f64(),
        run.cpu,
        run.own,
        run.outcome.kinds[PUT].brief(),
        run.outcome.kinds[TAKE].brief(),
        rates.iter().map(|rate| commas(*rate)).collect::<Vec<_>>().join(", "),
        last / first
    );
    out.push_str(&footprint(&server, &seen)?);
    out.push_str(&check(bed, form, &server, &work)?);
    if last < first * (1.0 - bed.number("queue-within") as f64 / 100.0) {
        out.push_str(&bed.fault("the last tenth is slower than it may be"));
    }
    out.push_str(&plots(bed, form, name, &run.outcome, &seen)?);
    say(out.trim());
    Ok(out)
}

fn footprint(server: &Guest, seen: &Seen) -> Result<String> {
    let pid = server.process()?;
    let (disk, log) = server.space()?;
    Ok(format!(
        "At the end {} resident (at most {}), {} on the disk and {} of log; {} written; {} checkpoints.\n\n",
        gb(Memory::of(pid)?.resident),
        gb(seen.peak()),
        gb(disk),
        gb(log),
        gb(usage::written(pid)?),
        seen.checkpoints.len()
    ))
}

/// Takes out what is left, and compares what went in with what came out.
fn check(bed: &Bed, form: Form, server: &Guest, work: &[Turn]) -> Result<String> {
    let (mut given, mut taken) = (Tally::default(), Tally::default());
    for turn in work {
        given.add(turn.given);
        taken.add(turn.taken);
    }
    let mut client = server.client()?;
    let standing = given.count - taken.count;
    let mut seen = vec![0u64; work.len()];
    let mut ordered = true;
    loop {
        let reply = match form {
            Form::List => client.call(&[b"RPOP".as_slice(), KEY, b"1000"])?,
            Form::Zset => client.call(&[b"ZPOPMIN".as_slice(), KEY, b"1000"])?,
        };
        let items = reply.items().unwrap_or_default();
        let step = if form == Form::Zset { 2 } else { 1 };
        for item in items.iter().step_by(step) {
            let number = Turn::number(item.bytes().unwrap_or_default())?;
            let (giver, at) = ((number / EACH) as usize, number % EACH);
            ordered &= seen.get(giver).is_some_and(|seen| at >= *seen);
            if let Some(seen) = seen.get_mut(giver) {
                *seen = at + 1;
            }
            taken.note(number);
        }
        if items.is_empty() {
            break;
        }
    }
    if given == taken && ordered {
        return Ok(format!(
            "All came out once and in order, the {} that were left at the end too.\n\n",
            commas(standing as f64)
        ));
    }
    Ok(bed.fault(&format!(
        "{} went in and {} came out, the sums equal: {}, in order: {ordered}",
        given.count,
        taken.count,
        given.sum == taken.sum
    )))
}

fn plots(bed: &Bed, form: Form, name: &str, outcome: &Outcome, seen: &Seen) -> Result<String> {
    // Two hundred points at most.
    let group = outcome.slots.len().div_ceil(200).max(1);
    let seconds = group as f64 * SLOT.as_secs_f64();
    // The last group is not whole.
    let points = outcome.slots.chunks_exact(group).enumerate().map(|(at, slots)| {
        (at as f64 * seconds, slots.iter().map(|slot| slot[TAKE].count()).sum::<u64>() as f64 / seconds)
    });
    let file = if form == Form::List { "queues-list" } else { "queues-zset" };
    let marked = ("checkpoint", outcome.began.map(|began| seen.spans(began)).unwrap_or_default());
    let title = format!("{name}: elements a second through one key");
    let series = vec![("elements/s".to_string(), points.collect())];
    let mut out = bed.plot(
        file,
        &title,
        &Lines { title: &title, unit: "", series, marked: marked.clone(), logarithmic: false }.draw(),
    )?;
    if let Some(began) = outcome.began {
        let mb = f64::from(1 << 20);
        let series = vec![
            ("resident".to_string(), seen.series(began, |sample| sample.resident as f64 / mb)),
            ("disk with log".to_string(), seen.series(began, |sample| sample.disk as f64 / mb)),
        ];
        let title = format!("{name}: memory and disk");
        let lines = Lines { title: &title, unit: "MB", series, marked, logarithmic: false };
        out.push_str(&bed.plot(&format!("{file}-space"), &title, &lines.draw())?);
    }
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_end_where_their_elements_do() {
        let mut outcome = Outcome::default();
        // Ten slots of 100 elements, then ten of 50.
        for count in [[100; 10], [50; 10]].concat() {
            let mut slot = ardb_e2e::drive::Kinds::default();
            slot[TAKE].record_many(1, count);
            outcome.slots.push(slot);
        }
        let times = tenths(&outcome, TAKE);
        assert_eq!(times.len(), 10);
        assert!((times[0] - 0.15).abs() < 1e-9 && (times[9] - 2.0).abs() < 1e-9, "{times:?}");
        assert!((times[9] - times[8] - 0.3).abs() < 1e-9);
    }
}
