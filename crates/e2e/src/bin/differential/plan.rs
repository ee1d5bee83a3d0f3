//! What is sent next: batches of steps out of the table, wrapped at times into MULTI or a script, spoilt at times.
//!
//! The plan follows from the seed alone, never from a reply, so that a run can be repeated up to any command.

use ardb_base::random::Random;
use ardb_e2e::client::Command;

use crate::compare::How;
use crate::scripts::{self, SCRIPTS};
use crate::table::{Class, Row, TABLE};
use crate::template::Maker;

/// One command and how its replies compare.
#[derive(Clone, Debug)]
pub struct Step {
    pub args: Command,
    pub how: How,
}

/// What is done next.
pub enum Action {
    /// Commands sent together.
    Batch(Vec<Step>),
    /// A whole iteration, of which only the collected items compare. The command lacks its cursor.
    Scan(Command),
    /// A value taken out of the server with this number (modulo their count) and put into all.
    Dump { from: u64, key: Vec<u8>, to: Vec<u8> },
    /// A key that expires while everybody waits.
    ExpireSoon(Vec<u8>),
    /// A change of the protocol's version.
    Hello(u64),
}

/// Commands whose spoilt forms would block, answer at random, or list everything.
fn fragile(name: &str) -> bool {
    let name = name.to_uppercase();
    let starts =
        ["B", "SPOP", "SRAND", "HRAND", "ZRAND", "EVAL", "COMMAND", "SCRIPT", "SHUTDOWN", "WATCH", "MULTI", "PFCOUNT"];
    (starts.iter().any(|start| name.starts_with(start)) && !name.starts_with("BIT")) || name.ends_with("SCAN")
}

/// Makes the plan.
pub struct Plan {
    maker: Maker,
    rows: Vec<&'static Row>,
    total: u64,
}

impl Plan {
    /// The plan for a seed, of the rows that name a command of `only` (all if empty) and none of `skip`.
    pub fn new(seed: u64, only: &[String], skip: &[String]) -> Plan {
        let names = |row: &Row, list: &[String]| {
            let words = row.template.to_uppercase();
            let mut words = words.split([' ', '(', ')', '|', '[', ']', ';', '{', '}']);
            words.any(|word| list.iter().any(|name| name == word))
        };
        let all = TABLE.iter().chain(SCRIPTS);
        let rows: Vec<&Row> = all.filter(|row| (only.is_empty() || names(row, only)) && !names(row, skip)).collect();
        let total = rows.iter().map(|row| row.weight).sum();
        Plan { maker: Maker { random: Random::new(seed) }, rows, total }
    }

    /// Whether anything is left to do.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn row(&mut self) -> &'static Row {
        let mut at = self.maker.random.below(self.total);
        for row in &self.rows {
            if at < row.weight {
                return row;
            }
            at -= row.weight;
        }
        self.rows[0]
    }

    fn steps(&mut self, row: &Row) -> Vec<Step> {
        let parts: Vec<&str> = row.template.split(';').collect();
        let mut steps = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let mut args = Command::new();
            self.maker.expand(part, &mut args);
            scripts::insert(&mut args);
            let class = if index + 1 == parts.len() { row.class } else { Class::Exact };
            steps.push(Step { args, how: How::As(class) });
        }
        if let [step] = steps.as_mut_slice()
            && row.class == Class::Exact
            && self.maker.random.one_in(40)
            && !fragile(&String::from_utf8_lossy(&step.args[0]))
        {
            if self.maker.random.one_in(2) {
                step.args.push(self.maker.pick(&["1", "junk", ""]).into());
            } else if step.args.len() > 1 {
                step.args.pop();
            }
        }
        steps
    }

    /// One command that may stand inside of something else.
    fn single(&mut self) -> Step {
        for _ in 0..1000 {
            let row = self.row();
            if !row.template.contains(';') {
                return self.steps(row).remove(0);
            }
        }
        Step { args: vec![b"PING".to_vec()], how: How::As(Class::Exact) }
    }

    fn transaction(&mut self, steps: &mut Vec<Step>) {
        let exact = |word: &str| Step { args: vec![word.into()], how: How::As(Class::Exact) };
        steps.push(exact("MULTI"));
        let mut classes = Vec::new();
        for _ in 0..=self.maker.random.below(4) {
            let Step { args, how } = self.single();
            classes.push(if let How::As(class) = how { class } else { Class::Exact });
            steps.push(Step { args, how: How::As(Class::Exact) });
        }
        if self.maker.random.one_in(12) {
            steps.push(exact("DISCARD"));
        } else {
            steps.push(Step { args: vec![b"EXEC".to_vec()], how: How::Each(classes) });
        }
    }

    fn batch(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..64 {
            match self.maker.random.below(100) {
                0..2 => self.transaction(&mut steps),
                2..5 => {
                    let inner = self.single();
                    let script =
                        self.maker.pick(&["return redis.call(unpack(ARGV))", "return redis.pcall(unpack(ARGV))"]);
                    let mut args: Command = vec![b"EVAL".to_vec(), script.into(), b"0".to_vec()];
                    args.extend(inner.args);
                    steps.push(Step { args, how: inner.how });
                }
                _ => {
                    let row = self.row();
                    steps.extend(self.steps(row));
                }
            }
        }
        steps
    }

    /// What is done next.
    pub fn next(&mut self) -> Action {
        match self.maker.random.below(400) {
            0..8 => {
                let template = self.maker.pick(&[
                    "SCAN [MATCH $pattern] [COUNT (1|5|100)] [TYPE (string|list|set|zset|hash|foo)]",
                    "SSCAN $t [MATCH (1*|m*|*)] [COUNT (1|10)]",
                    "HSCAN $h [MATCH (1*|m*|*)] [COUNT (1|10)]",
                    "ZSCAN $z [MATCH (1*|m*|*)] [COUNT (1|10)]",
                ]);
                let mut args = Command::new();
                self.maker.expand(template, &mut args);
                Action::Scan(args)
            }
            8..20 => {
                let kind = self.maker.pick(&["s", "c", "b", "l", "t", "h", "z"]);
                Action::Dump {
                    from: self.maker.random.next_u64(),
                    key: self.maker.argument(kind),
                    to: self.maker.argument(kind),
                }
            }
            20 => Action::ExpireSoon(self.maker.argument("k")),
            21..23 => Action::Hello(2 + self.maker.random.below(2)),
            _ => Action::Batch(self.batch()),
        }
    }
}
