//! Five servers (three of ours, Redis 7.0, Valkey 9.1) in a tree that is changed at random under load, while links are cut at random
//! bytes and processes die; at the end all are equal, and each full resync has a reason.
//!
//! Ours are killed with `kill -9`. A killed Redis has forgotten its data and its history, so those are only stopped for a while.
//! Valkey follows anyone and so do ours; Redis 7.0 follows ours only, because it cannot read Valkey's RDB. The load
//! holds commands that all know.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

mod explain;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::digest::Digest;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::Options;
use ardb_e2e::proxy::Proxy;
use ardb_e2e::server::{Kind, Server, Setup};
use ardb_e2e::wait::wait_until;
use ardb_e2e::{Result, error};
use rustix::process::{Pid, Signal, kill_process};

use explain::{Names, explain, read};

const LIMIT: Duration = Duration::from_secs(90);

struct Node {
    name: String,
    server: Server,
    /// The proxy in front of each other server, for this one's link.
    proxies: Vec<Option<Proxy>>,
    parent: Option<usize>,
}

impl Node {
    fn ours(&self) -> bool {
        self.server.kind() == Kind::Ardb
    }
}

struct Chaos {
    nodes: Vec<Node>,
    root: usize,
    names: Names,
    random: Random,
    load: Option<Load>,
    rate: u64,
    commands: u64,
    done: BTreeMap<&'static str, u64>,
}

fn main() -> ExitCode {
    let options = Options::read(
        "A tree of five servers, changed, cut and killed at random under load.",
        &[
            ("minutes", "15", "how long"),
            ("rate", "1500", "commands a second"),
            ("seed", "", "seed of everything but the timing"),
        ],
    );
    let seed = options.seed();
    println!("seed {seed}");
    let mut chaos = match Chaos::start(seed, options.number("rate")) {
        Ok(chaos) => chaos,
        Err(failure) => {
            println!("FAILED to start: {failure}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = chaos.run(Duration::from_secs(60 * options.number("minutes"))).and_then(|()| chaos.settle());
    let explained = chaos.account();
    if let Err(failure) = &outcome {
        println!("FAILED: {failure}");
        for node in &chaos.nodes {
            println!("--- {}\n{}", node.name, node.server.log_tail());
        }
    }
    if outcome.is_ok() && explained { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Chaos {
    fn start(seed: u64, rate: u64) -> Result<Chaos> {
        let big = |setup: Setup| setup.with("repl-backlog-size", "512mb").with("repl-timeout", 10);
        let redis = |setup: Setup| big(setup).with("repl-backlog-ttl", 0).with("repl-ping-replica-period", 1);
        let setups = [
            ("ardb-a", big(Setup::ardb())),
            ("ardb-b", big(Setup::ardb())),
            ("ardb-c", big(Setup::ardb())),
            ("redis-7.0", redis(Setup::redis("7.0"))),
            ("valkey-9.1", redis(Setup::valkey())),
        ];
        let mut nodes = Vec::new();
        let mut names = Names::default();
        for (name, setup) in setups {
            let server = setup.start()?;
            names.virgins.push(server.client()?.info("replication")?["master_replid"].clone());
            nodes.push(Node { name: name.to_string(), server, proxies: Vec::new(), parent: None });
        }
        let ports: Vec<u16> = nodes.iter().map(|node| node.server.port).collect();
        for (child, node) in nodes.iter_mut().enumerate() {
            for (parent, port) in ports.iter().enumerate() {
                let proxy = Proxy::start(*port, seed ^ ((child * 8 + parent) as u64 * 0x9e37_79b9))?;
                // A full sync must have a chance to get through.
                proxy.scale(22);
                if !node.ours() {
                    // Redis may start over if it has not read the whole answer to its PSYNC.
                    proxy.least(120);
                }
                node.proxies.push((child != parent).then_some(proxy));
            }
        }
        populate(&mut nodes[0].server.client()?, seed, 5000)?;
        names.parents.insert(names.virgins.remove(0), None);
        let mut chaos = Chaos {
            nodes,
            root: 0,
            names,
            random: Random::new(seed),
            load: None,
            rate,
            commands: 0,
            done: BTreeMap::new(),
        };
        chaos.plant()?;
        chaos.write();
        Ok(chaos)
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn write(&mut self) {
        let generator = Generator::new(self.random.next_u64(), Flavor::New, 300);
        self.load = Some(Load::start(self.nodes[self.root].server.port, generator, self.rate));
    }

    fn rest(&mut self) -> Result<()> {
        if let Some(load) = self.load.take() {
            self.commands += load.stop()?.commands;
        }
        Ok(())
    }

    /// Whether `child` can take everything from `parent`, and a link between them makes no ring.
    fn fits(&self, child: usize, parent: usize) -> bool {
        let readable = self.nodes[child].server.kind() != Kind::Redis("7.0") || self.nodes[parent].ours();
        let mut above = Some(parent);
        while let Some(node) = above {
            if node == child {
                return false;
            }
            above = self.nodes[node].parent;
        }
        readable
    }

    fn attach(&mut self, child: usize, parent: usize) -> Result<()> {
        let Some(proxy) = &self.nodes[child].proxies[parent] else { return Err(error("no link to itself")) };
        let command = format!("SLAVEOF 127.0.0.1 {}", proxy.port);
        let server = &self.nodes[child].server;
        wait_until("a new master is taken", LIMIT, || Ok(!server.client()?.ask(&command)?.is_error()))?;
        self.nodes[child].parent = Some(parent);
        Ok(())
    }

    /// A random tree under the root: every other server follows one that is in it already.
    fn plant(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.parent = None;
        }
        let mut inside = vec![self.root];
        let mut outside: Vec<usize> = (0..self.nodes.len()).filter(|node| *node != self.root).collect();
        while !outside.is_empty() {
            let child = outside[self.below(outside.len())];
            let parent = inside[self.below(inside.len())];
            if self.fits(child, parent) {
                self.attach(child, parent)?;
                inside.push(child);
                outside.retain(|node| *node != child);
            }
        }
        Ok(())
    }

    fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        let mut told = 0;
        while start.elapsed() < time {
            self.step()?;
            std::thread::sleep(Duration::from_millis(300 + self.random.below(3000)));
            let minute = start.elapsed().as_secs() / 60;
            if minute > told {
                told = minute;
                println!("{minute} min: {:?}, {} histories", self.done, self.names.parents.len());
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let on = self.random.one_in(2);
        let child = self.below(self.nodes.len());
        for proxy in self.nodes[child].proxies.iter().flatten() {
            proxy.cutting(on);
        }
        match self.below(10) {
            0..4 => {
                let parent = self.below(self.nodes.len());
                if child != self.root && child != parent && self.fits(child, parent) {
                    self.attach(child, parent)?;
                    self.note("moves");
                }
            }
            4..7 if self.nodes[child].ours() => {
                self.nodes[child].server.kill9()?;
                std::thread::sleep(Duration::from_millis(self.random.below(1000)));
                self.nodes[child].server.restart()?;
                self.note("kills");
            }
            7 if !self.nodes[child].ours() => {
                let time = Duration::from_millis(self.random.below(3000));
                self.signal(child, Signal::STOP)?;
                std::thread::sleep(time);
                self.signal(child, Signal::CONT)?;
                self.note("pauses");
            }
            8 => self.promote(child)?,
            _ => {
                if let Some(parent) = self.nodes[child].parent
                    && let Some(proxy) = &self.nodes[child].proxies[parent]
                {
                    proxy.cut();
                    self.note("cuts of all");
                }
            }
        }
        Ok(())
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let pid = self.nodes[node].server.pid().and_then(|pid| Pid::from_raw(pid as i32));
        Ok(kill_process(pid.ok_or_else(|| error("it does not run"))?, signal)?)
    }

    /// Another server becomes the root; what it has not received is lost. Now and then it is let catch up first.
    fn promote(&mut self, heir: usize) -> Result<()> {
        // One that has never joined would bring an empty history.
        let info = self.nodes[heir].server.client()?.info("replication")?;
        if heir == self.root || !self.names.parents.contains_key(&info["master_replid"]) {
            return Ok(());
        }
        self.rest()?;
        if self.random.one_in(2) {
            std::thread::sleep(Duration::from_secs(2));
        }
        self.nodes[heir].server.client()?.must("SLAVEOF NO ONE")?;
        let info = self.nodes[heir].server.client()?.info("replication")?;
        self.names.parents.insert(info["master_replid"].clone(), Some(info["master_replid2"].clone()));
        self.root = heir;
        self.plant()?;
        self.write();
        self.note("promotions");
        Ok(())
    }

    /// No more harm: all links come up, and all data are the same.
    fn settle(&mut self) -> Result<()> {
        self.rest()?;
        for node in &self.nodes {
            for proxy in node.proxies.iter().flatten() {
                proxy.cutting(false);
            }
        }
        let root = &self.nodes[self.root].server;
        let others = || self.nodes.iter().enumerate().filter(|(index, _)| *index != self.root).map(|(_, node)| node);
        for node in others() {
            wait_until(&format!("the link of {} is up", node.name), LIMIT, || {
                Ok(node.server.client()?.info("replication")?["master_link_status"] == "up")
            })?;
        }
        let start = Instant::now();
        for node in others() {
            loop {
                let digest = Digest::read(&mut root.client()?)?;
                let differences = digest.differences(&Digest::read(&mut node.server.client()?)?);
                if differences.is_empty() {
                    println!("{} is equal: {}", node.name, digest.summary());
                    break;
                }
                if start.elapsed() > LIMIT {
                    let some: Vec<&str> = differences.iter().take(10).map(String::as_str).collect();
                    return Err(error(format!("{} differs: {}\n{}", node.name, differences.len(), some.join("\n"))));
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        Ok(())
    }

    /// Counts the resyncs and prints the reason of each full one. Gives whether all have one.
    fn account(&self) -> bool {
        let (mut partial, mut full, mut good) = (0, 0, true);
        let mut reasons = BTreeMap::new();
        for node in &self.nodes {
            let given = read(&node.server.log());
            partial += given.partial;
            for each in &given.full {
                full += 1;
                let replica = self.nodes.iter().find(|node| node.server.port == each.port);
                let (name, log) = replica.map_or(("?", String::new()), |replica| (&replica.name, replica.server.log()));
                let reason = explain(&self.names, each, &log, &node.server.log());
                let shown = reason.unwrap_or("UNEXPLAINED");
                println!("full resync of {name} by {}: {shown}\n    {}", node.name, each.line);
                explain::count(&mut reasons, shown);
                good &= reason.is_some();
            }
        }
        let cuts: u64 = self.nodes.iter().flat_map(|node| node.proxies.iter().flatten()).map(Proxy::cuts).sum();
        println!(
            "{} commands, {cuts} links cut at a random byte, {:?}, {} histories",
            self.commands,
            self.done,
            self.names.parents.len()
        );
        println!("{full} full and {partial} partial resyncs: {reasons:?}");
        good
    }
}
