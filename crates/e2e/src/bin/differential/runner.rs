//! Carries the plan out on all servers, compares, and says what differed.
//!
//! The first server in the list is held against each of the others. Every connection stays in one database and one protocol
//! version with the others, because all of them get the same commands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use ardb_e2e::client::{Client, Command};
use ardb_e2e::digest::Digest;
use ardb_e2e::reply::{Escaped, Reply};
use ardb_e2e::server::Server;
use ardb_e2e::{Result, error};

use crate::compare::{How, same};
use crate::plan::{Action, Step};
use crate::table::Class;

/// How many earlier commands are remembered for a mismatch's story.
const MEMORY: usize = 200_000;
/// Commands between two comparisons of all data.
const DATA_EVERY: u64 = 20_000;

struct Side {
    name: String,
    server: Server,
    client: Client,
}

/// The servers and what has happened.
pub struct Runner {
    sides: Vec<Side>,
    seed: u64,
    commands: u64,
    next_data: u64,
    mismatches: u64,
    /// Errors of SORT that only Redis gives, see [`stale_errno`].
    stale: u64,
    /// Replies that differ as [`sign_of_zero`] says.
    zeros: u64,
    /// Numbers and commands since the servers were last emptied.
    history: VecDeque<(u64, Command)>,
    tried: BTreeMap<String, u64>,
    start: Instant,
}

fn show(args: &Command) -> String {
    args.iter().map(|arg| Escaped(arg).to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether SORT failed on Redis alone. Its 7.0 looks at `errno` after `strtod` without having cleared it, so a number out of range anywhere earlier
/// makes a later SORT of good numbers fail; the others must not copy that.
fn stale_errno(sides: &[Side], commands: &[&Command], replies: &[Reply]) -> bool {
    let is_sort = |arg: &Vec<u8>| arg.to_ascii_uppercase().starts_with(b"SORT");
    let failed = |reply: &Reply| reply.to_string().contains("can\\'t be converted into double");
    commands.iter().any(|command| command.iter().any(is_sort))
        && sides.iter().zip(replies).all(|(side, reply)| side.name.starts_with("redis") == failed(reply))
}

/// Whether the replies differ by the sign of zeros alone, after a SORT. Redis's SORT makes a small sorted set into one of the kind that keeps
/// the sign of a zero; here a command that reads changes nothing.
fn sign_of_zero(history: &VecDeque<(u64, Command)>, replies: &[Reply]) -> bool {
    let first = replies.first().map(unsigned);
    replies.iter().all(|reply| Some(unsigned(reply)) == first)
        && history.iter().any(|(_, command)| command.iter().any(|arg| arg.to_ascii_uppercase().starts_with(b"SORT")))
}

/// The reply without the signs of zeros.
fn unsigned(reply: &Reply) -> Reply {
    let all = |items: &[Reply]| items.iter().map(unsigned).collect();
    match reply {
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Map(items) => Reply::Map(all(items)),
        Reply::Bulk(text) if text == b"-0" => Reply::Bulk(b"0".to_vec()),
        Reply::Double(text) if text == b"-0" => Reply::Double(b"0".to_vec()),
        other => other.clone(),
    }
}

/// Whether an argument looks like a key of the plan.
fn is_key(arg: &[u8]) -> bool {
    matches!(arg, [kind, b':', rest @ ..] if kind.is_ascii_lowercase() && !rest.is_empty())
}

impl Runner {
    /// Connects to each server.
    pub fn new(servers: Vec<(String, Server)>, seed: u64) -> Result<Runner> {
        let mut sides = Vec::new();
        for (name, server) in servers {
            let mut client = server.client()?;
            client.set_timeout(Duration::from_secs(20))?;
            sides.push(Side { name, server, client });
        }
        Ok(Runner {
            sides,
            seed,
            commands: 0,
            next_data: DATA_EVERY,
            mismatches: 0,
            stale: 0,
            zeros: 0,
            history: VecDeque::new(),
            tried: BTreeMap::new(),
            start: Instant::now(),
        })
    }

    /// Commands sent so far (to each server).
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Mismatches found so far.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Does what the plan says next.
    pub fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Batch(steps) => self.batch(&steps)?,
            Action::Scan(args) => self.scan(&args)?,
            Action::Dump { from, key, to } => self.dump(from, key, to)?,
            Action::ExpireSoon(key) => self.expire_soon(key)?,
            Action::Hello(version) => {
                let args = vec![b"HELLO".to_vec(), version.to_string().into_bytes()];
                self.batch(&[Step { args, how: How::As(Class::Shape) }])?;
            }
        }
        if self.commands >= self.next_data {
            self.next_data += DATA_EVERY;
            self.compare_data()?;
        }
        Ok(())
    }

    fn remember(&mut self, args: &Command) {
        self.commands += 1;
        *self.tried.entry(String::from_utf8_lossy(&args[0]).to_uppercase()).or_default() += 1;
        if self.history.len() == MEMORY {
            self.history.pop_front();
        }
        let short = |arg: &Vec<u8>| if arg.len() > 300 { arg[..300].to_vec() } else { arg.clone() };
        self.history.push_back((self.commands, args.iter().map(short).collect()));
    }

    /// Sends a command to all and returns the replies in the order of the sides.
    fn all(&mut self, args: &Command) -> Result<Vec<Reply>> {
        self.remember(args);
        for side in &mut self.sides {
            side.client.queue(args);
            side.client.flush()?;
        }
        let number = self.commands;
        self.sides.iter_mut().map(|side| receive(side, number, args)).collect()
    }

    fn batch(&mut self, steps: &[Step]) -> Result<()> {
        for side in &mut self.sides {
            for step in steps {
                side.client.queue(&step.args);
            }
            side.client
                .flush()
                .map_err(|failure| error(format!("{}: {failure}\n{}", side.name, side.server.log_tail())))?;
        }
        let mut found = None;
        for (index, step) in steps.iter().enumerate() {
            self.remember(&step.args);
            let number = self.commands;
            let mut replies = Vec::with_capacity(self.sides.len());
            for side in &mut self.sides {
                // Replies may be held back until the batch is through: any command from here on may be the culprit.
                let reply = receive(side, number, &step.args).inspect_err(|_| {
                    println!("\nNO REPLY from command {number} on, seed {}; the rest of the batch:", self.seed);
                    for step in &steps[index..] {
                        println!("  {}", show(&step.args));
                    }
                });
                replies.push(reply?);
            }
            // What follows a mismatch in a batch is mostly its consequence.
            if found.is_none() && replies[1..].iter().any(|reply| !same(&step.how, &replies[0], reply)) {
                found = Some((index, number, replies));
            }
        }
        match found {
            None => Ok(()),
            Some((index, number, replies)) => {
                // EXEC's own arguments say little: show what was queued, too.
                let begin = steps[..index].iter().rposition(|step| step.args[0] == b"MULTI").unwrap_or(index);
                let from = if steps[index].args[0] == b"EXEC" { begin } else { index };
                let commands: Vec<&Command> = steps[from..=index].iter().map(|step| &step.args).collect();
                self.mismatch(number, &commands, &replies)
            }
        }
    }

    /// A whole iteration on each server.
    fn scan(&mut self, args: &Command) -> Result<()> {
        self.remember(args);
        let keyless = args[0].eq_ignore_ascii_case(b"SCAN");
        let at = if keyless { 1 } else { 2 };
        let mut outcomes = Vec::new();
        for side in &mut self.sides {
            let mut cursor = Reply::Bulk(b"0".to_vec());
            let mut items: BTreeSet<Vec<Reply>> = BTreeSet::new();
            let outcome = loop {
                let mut command = args.clone();
                command.insert(at, cursor.bytes().unwrap_or_default().to_vec());
                let reply = side.client.call(&command)?;
                let Some([next, part]) = reply.items() else { break reply };
                let group = if args[0].eq_ignore_ascii_case(b"HSCAN") || args[0].eq_ignore_ascii_case(b"ZSCAN") {
                    2
                } else {
                    1
                };
                items.extend(part.items().unwrap_or_default().chunks(group).map(<[Reply]>::to_vec));
                cursor = next.clone();
                if cursor.bytes() == Some(b"0") {
                    break Reply::Array(items.into_iter().flatten().collect());
                }
            };
            outcomes.push(outcome);
        }
        self.hold(args, &How::As(Class::Exact), &outcomes)
    }

    fn hold(&mut self, args: &Command, how: &How, replies: &[Reply]) -> Result<()> {
        if replies[1..].iter().any(|reply| !same(how, &replies[0], reply)) {
            return self.mismatch(self.commands, &[args], replies);
        }
        Ok(())
    }

    fn dump(&mut self, from: u64, key: Vec<u8>, to: Vec<u8>) -> Result<()> {
        let ask = vec![b"DUMP".to_vec(), key];
        let payloads = self.all(&ask)?;
        self.hold(&ask, &How::As(Class::Shape), &payloads)?;
        let source = (from % payloads.len() as u64) as usize;
        let Some(payload) = payloads[source].bytes() else { return Ok(()) };
        let restore = vec![b"RESTORE".to_vec(), to, b"0".to_vec(), payload.to_vec(), b"REPLACE".to_vec()];
        let replies = self.all(&restore)?;
        if !replies.iter().all(Reply::is_ok) {
            println!("the payload is of {}", self.sides[source].name);
            return self.mismatch(self.commands, &[&ask, &restore], &replies);
        }
        // A payload with a broken checksum is refused by all.
        let mut broken = restore;
        if let Some(byte) = broken[3].first_mut() {
            *byte ^= 0x40;
        }
        let replies = self.all(&broken)?;
        self.hold(&broken, &How::As(Class::Exact), &replies)
    }

    fn expire_soon(&mut self, key: Vec<u8>) -> Result<()> {
        let word = |text: &str| text.as_bytes().to_vec();
        for args in
            [vec![word("SET"), key.clone(), word("soon"), word("PX"), word("30")], vec![word("STRLEN"), key.clone()]]
        {
            let replies = self.all(&args)?;
            if args[0] == b"SET" {
                self.hold(&args, &How::As(Class::Exact), &replies)?;
            }
        }
        std::thread::sleep(Duration::from_millis(60));
        for args in [
            vec![word("GET"), key.clone()],
            vec![word("EXISTS"), key.clone()],
            vec![word("TTL"), key.clone()],
            vec![word("DBSIZE")],
        ] {
            let replies = self.all(&args)?;
            self.hold(&args, &How::As(Class::Exact), &replies)?;
        }
        Ok(())
    }

    /// Compares everything that the servers hold.
    pub fn compare_data(&mut self) -> Result<()> {
        let mut digests = Vec::new();
        for side in &self.sides {
            digests.push(Digest::read(&mut side.server.client()?)?);
        }
        for (index, digest) in digests.iter().enumerate().skip(1) {
            let differences = digests[0].differences_within(digest, 3000);
            if !differences.is_empty() {
                self.mismatches += 1;
                println!(
                    "\nMISMATCH of data between {} and {}, seed {}, before command {}:\n{}",
                    self.sides[0].name,
                    self.sides[index].name,
                    self.seed,
                    self.commands,
                    differences.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n")
                );
                let keys: BTreeSet<&[u8]> =
                    differences.iter().filter_map(|line| line.split('"').nth(1)).map(str::as_bytes).take(1).collect();
                self.story(&keys);
                return self.start_over();
            }
        }
        if self.next_data.is_multiple_of(10 * DATA_EVERY) {
            println!("{} commands, {:?}", self.commands, self.start.elapsed());
        }
        Ok(())
    }

    fn mismatch(&mut self, number: u64, commands: &[&Command], replies: &[Reply]) -> Result<()> {
        if stale_errno(&self.sides, commands, replies) {
            self.stale += 1;
            return self.start_over();
        }
        if sign_of_zero(&self.history, replies) {
            self.zeros += 1;
            return self.start_over();
        }
        self.mismatches += 1;
        println!("\nMISMATCH {} at command {number}, seed {}:", self.mismatches, self.seed);
        for command in commands {
            println!("  {}", show(command));
        }
        for (side, reply) in self.sides.iter().zip(replies) {
            println!("    {:<8} {reply}", side.name);
        }
        let keys: BTreeSet<&[u8]> =
            commands.iter().flat_map(|command| command.iter()).map(Vec::as_slice).filter(|arg| is_key(arg)).collect();
        self.story(&keys);
        self.start_over()
    }

    /// The last commands that named one of these keys.
    fn story(&self, keys: &BTreeSet<&[u8]>) {
        let names = |command: &Command| command.iter().any(|arg| keys.contains(arg.as_slice()));
        let last: Vec<&(u64, Command)> =
            self.history.iter().rev().filter(|(_, command)| names(command)).take(12).collect();
        println!("  earlier on these keys:");
        for (number, command) in last.into_iter().rev() {
            println!("    {number:>8} {}", show(command));
        }
    }

    /// Empties all servers and connects anew, so that the run can go on.
    fn start_over(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.client = side.server.client()?;
            side.client.must("FLUSHALL")?;
            side.client.must("SCRIPT FLUSH")?;
        }
        self.history.clear();
        Ok(())
    }

    /// Prints what was done.
    pub fn report(&mut self) {
        let elapsed = self.start.elapsed();
        if self.stale > 0 {
            println!("{} times SORT failed on Redis alone, by an errno that it did not clear", self.stale);
        }
        if self.zeros > 0 {
            println!(
                "{} times a zero kept its sign on Redis alone, whose SORT had changed the sorted set's encoding",
                self.zeros
            );
        }
        println!(
            "{} commands of {} kinds in {elapsed:?} ({:.0} a second) on {} servers: {} mismatches",
            self.commands,
            self.tried.len(),
            self.commands as f64 / elapsed.as_secs_f64(),
            self.sides.len(),
            self.mismatches
        );
        // What the server has and the table does not, so that a new command is not forgotten here.
        let listed = self.sides[0].client.ask("COMMAND LIST");
        let Ok(Reply::Array(names) | Reply::Set(names)) = listed else { return };
        let names: BTreeSet<String> = names.iter().map(|name| name.text().to_uppercase()).collect();
        let missing: Vec<&str> = names
            .iter()
            .filter(|name| !name.contains('|') && !self.tried.contains_key(*name))
            .map(String::as_str)
            .collect();
        println!("commands of {} that were not tried: {}", self.sides[0].name, missing.join(" ").to_lowercase());
    }
}

fn receive(side: &mut Side, number: u64, args: &Command) -> Result<Reply> {
    side.client.receive().map_err(|failure| {
        error(format!("{} at command {number}, {}: {failure}\n{}", side.name, show(args), side.server.log_tail()))
    })
}
