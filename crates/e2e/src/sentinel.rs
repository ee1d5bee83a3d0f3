//! Three real Sentinels over a group of servers, and clients that write through them: what the failover tests are made of.
//!
//! A write counts as confirmed when WAIT says that *all* replicas of the group have it. Fewer promise nothing against Sentinel: it promotes the replica of
//! the highest offset *that it knows of*, from an INFO that may be seconds old, so a write that one of two replicas has may meet the promotion of
//! the other one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::reply::Reply;
use crate::server::{Port, Server, fresh_dir};
use crate::wait::{follow, wait_linked, wait_until};
use crate::{Result, error, peers};

/// The name of the group.
const GROUP: &str = "group";
/// How many Sentinels there are; two of them must agree.
const SENTINELS: usize = 3;
/// SETs that one WAIT confirms.
const BATCH: u64 = 16;

/// The Sentinels. They end with this.
pub struct Sentinels {
    ports: Vec<u16>,
    /// What keeps these ports for them.
    claims: Vec<Port>,
    children: Vec<Child>,
    dir: PathBuf,
}

impl Sentinels {
    /// Starts them for the group of this master; one that does not answer for `down_after` is down.
    ///
    /// # Errors
    /// If they do not find its replicas and each other within half a minute.
    pub fn start(master: u16, replicas: usize, down_after: Duration) -> Result<Sentinels> {
        let program = peers::peer("redis-sentinel")?;
        let mut all = Sentinels { ports: Vec::new(), claims: Vec::new(), children: Vec::new(), dir: fresh_dir()? };
        for index in 0..SENTINELS {
            let dir = all.dir.join(index.to_string());
            std::fs::create_dir_all(&dir)?;
            let claim = Port::free()?;
            let port = claim.number;
            let file = dir.join("sentinel.conf");
            let ms = down_after.as_millis();
            std::fs::write(
                &file,
                format!(
                    "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {GROUP} 127.0.0.1 {master} 2\n\
                     sentinel down-after-milliseconds {GROUP} {ms}\nsentinel failover-timeout {GROUP} 10000\n\
                     sentinel parallel-syncs {GROUP} 2\n",
                    dir.display()
                ),
            )?;
            let out = std::fs::File::create(dir.join("log"))?;
            let mut command = Command::new(&program);
            command.arg(&file).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
            all.children.push(command.spawn()?);
            all.ports.push(port);
            all.claims.push(claim);
        }
        wait_until("each Sentinel knows the group", Duration::from_secs(30), || {
            for &port in &all.ports {
                let mut client = Client::connect(port)?;
                let others = client.must(&format!("SENTINEL SENTINELS {GROUP}"))?.items().map_or(0, <[Reply]>::len);
                let found = client.must(&format!("SENTINEL REPLICAS {GROUP}"))?.items().map_or(0, <[Reply]>::len);
                if others + 1 < SENTINELS || found < replicas {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(all)
    }

    /// Their ports.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The master's port, if all of them name the same.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub fn agreed(&self) -> Result<Option<u16>> {
        let mut named = self.ports.iter().map(|&port| master_of(port)).collect::<Result<Vec<_>>>()?;
        named.dedup();
        Ok(if named.len() == 1 { named[0] } else { None })
    }

    /// The end of what the first of them has printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("0/log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() && std::env::var_os("ARDB_E2E_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The port that a Sentinel names.
fn master_of(sentinel: u16) -> Result<Option<u16>> {
    let mut client = Client::connect(sentinel)?;
    client.set_timeout(Duration::from_secs(2))?;
    let reply = client.must(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {GROUP}"))?;
    Ok(reply.items().and_then(|items| items.get(1)).and_then(|port| port.text().parse().ok()))
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    /// Writes that all replicas have.
    confirmed: AtomicU64,
    /// The port of the server that took the last batch.
    master: AtomicU64,
}

/// Clients that find the master by the Sentinels, write numbered keys to it and confirm them by WAIT.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<u64>>>,
}

impl Writers {
    /// Starts `count` of them for a group with so many replicas.
    #[must_use]
    pub fn start(sentinels: &[u16], count: u64, replicas: usize) -> Writers {
        let shared = Arc::new(Shared::default());
        let threads = (0..count)
            .map(|index| {
                let (shared, sentinels) = (shared.clone(), sentinels.to_vec());
                std::thread::spawn(move || write(&shared, &sentinels, index, replicas))
            })
            .collect();
        Writers { shared, threads }
    }

    /// Writes that were sent, and those that all replicas have confirmed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::SeqCst), self.shared.confirmed.load(Ordering::SeqCst))
    }

    /// The port of the server that took the last batch.
    #[must_use]
    pub fn master(&self) -> u64 {
        self.shared.master.load(Ordering::SeqCst)
    }

    /// Ends them. Gives, for each, the numbers of its first keys in confirmed batches.
    ///
    /// # Errors
    /// If one of them panicked.
    pub fn stop(self) -> Result<Vec<Vec<u64>>> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let joined = self.threads.into_iter().map(JoinHandle::join);
        joined.map(|confirmed| confirmed.map_err(|_| error("a writer panicked"))).collect()
    }
}

fn key(writer: u64, number: u64) -> String {
    format!("w{writer}:{number}")
}

/// One writer, until it is told to stop.
fn write(shared: &Shared, sentinels: &[u16], index: u64, replicas: usize) -> Vec<u64> {
    let (mut next, mut confirmed, mut client) = (0, Vec::new(), None);
    while !shared.stop.load(Ordering::SeqCst) {
        let Some((port, connection)) = &mut client else {
            client = find(sentinels);
            if client.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            continue;
        };
        // A batch that fails is not written again: its numbers are simply not confirmed.
        let first = next;
        next += BATCH;
        shared.sent.fetch_add(BATCH, Ordering::SeqCst);
        match batch(connection, index, first, replicas) {
            Ok(all) => {
                shared.master.store(u64::from(*port), Ordering::SeqCst);
                if all {
                    confirmed.push(first);
                    shared.confirmed.fetch_add(BATCH, Ordering::SeqCst);
                }
            }
            Err(_) => client = None,
        }
    }
    confirmed
}

fn find(sentinels: &[u16]) -> Option<(u16, Client)> {
    let port = sentinels.iter().find_map(|&sentinel| master_of(sentinel).ok().flatten())?;
    let mut client = Client::connect(port).ok()?;
    // A frozen server takes connections and says nothing.
    client.set_timeout(Duration::from_millis(1000)).ok()?;
    let role = client.must("ROLE").ok()?.items()?.first()?.text();
    (role == "master").then_some((port, client))
}

/// Writes a batch. Gives whether all replicas have it.
fn batch(client: &mut Client, index: u64, first: u64, replicas: usize) -> Result<bool> {
    for number in first..first + BATCH {
        client.queue(&["SET", &key(index, number), &number.to_string()]);
    }
    client.queue(&["WAIT", &replicas.to_string(), "100"]);
    client.flush()?;
    for _ in 0..BATCH {
        let reply = client.receive()?;
        if !reply.is_ok() {
            return Err(error(format!("SET: {reply}")));
        }
    }
    Ok(client.receive()?.int() == Some(replicas as i64))
}

/// How many keys of the confirmed batches a server lacks.
///
/// # Errors
/// If it cannot be asked.
pub fn missing(server: &Server, confirmed: &[Vec<u64>]) -> Result<u64> {
    let mut client = server.client()?;
    let mut missing = 0;
    for (index, firsts) in confirmed.iter().enumerate() {
        for portion in firsts.chunks(32) {
            let numbers: Vec<u64> = portion.iter().flat_map(|first| *first..first + BATCH).collect();
            let mut command = vec!["MGET".to_string()];
            command.extend(numbers.iter().map(|number| key(index as u64, *number)));
            let reply = client.call(&command)?;
            let values = reply.items().ok_or_else(|| error(format!("MGET: {reply}")))?;
            let wrong = |(value, number): (&Reply, &u64)| value.text() != number.to_string();
            missing += values.iter().zip(&numbers).filter(|pair| wrong(*pair)).count() as u64;
        }
    }
    Ok(missing)
}

/// What is done to a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; it is started again later.
    Kill,
    /// SIGSTOP; it wakes up later and believes that it is the master.
    Freeze,
}

/// How long a failover took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From the fault until all Sentinels name another master.
    pub switched: Duration,
    /// From the fault until a client's write was taken again.
    pub served: Duration,
    /// From the end of the fault until the group is whole again.
    pub healed: Duration,
}

/// Servers, the first of which begins as the master, with Sentinels and writers.
pub struct Group {
    /// The servers.
    pub servers: Vec<Server>,
    /// The Sentinels.
    pub sentinels: Sentinels,
    /// The clients.
    pub writers: Writers,
}

impl Group {
    /// Makes the servers a group and begins to write to it.
    ///
    /// # Errors
    /// If they do not find together.
    pub fn form(servers: Vec<Server>, down_after: Duration) -> Result<Group> {
        let Some((master, replicas)) = servers.split_first() else { return Err(error("no servers")) };
        for replica in replicas {
            follow(replica, master)?;
            wait_linked(replica, Duration::from_secs(20))?;
        }
        let sentinels = Sentinels::start(master.port, replicas.len(), down_after)?;
        let writers = Writers::start(sentinels.ports(), 2, replicas.len());
        let group = Group { servers, sentinels, writers };
        group.whole(group.servers[0].port, Duration::from_secs(20))?;
        Ok(group)
    }

    /// Waits until all others follow this master, in the stream, and writes are confirmed by all.
    fn whole(&self, master: u16, limit: Duration) -> Result<()> {
        wait_until("all replicas follow the master", limit, || {
            for server in self.servers.iter().filter(|server| server.port != master) {
                let info = server.client()?.info("replication")?;
                let is = |name: &str, value: &str| info.get(name).is_some_and(|have| have == value);
                if !(is("role", "slave") && is("master_port", &master.to_string()) && is("master_link_status", "up")) {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        let before = self.writers.counts().1;
        wait_until("writes are confirmed by all replicas", limit, || Ok(self.writers.counts().1 > before + 4 * BATCH))
    }

    /// Writes for a second, lets the master fail, waits until another one serves, ends the fault, and waits until the group is whole.
    ///
    /// # Errors
    /// If one of that does not happen within a minute.
    pub fn fail_over(&mut self, fault: Fault) -> Result<Took> {
        let limit = Duration::from_secs(60);
        let old = self.sentinels.agreed()?.ok_or_else(|| error("the Sentinels do not agree before the fault"))?;
        let at = self.servers.iter().position(|server| server.port == old);
        let at = at.ok_or_else(|| error(format!("the Sentinels name port {old}, which is none of ours")))?;
        std::thread::sleep(Duration::from_secs(1));
        let started = Instant::now();
        match fault {
            Fault::Kill => self.servers[at].kill9()?,
            Fault::Freeze => self.servers[at].signal("STOP")?,
        }
        let mut new = None;
        wait_until("the Sentinels agree on another master", limit, || {
            new = self.sentinels.agreed()?.filter(|port| *port != old);
            Ok(new.is_some())
        })?;
        let switched = started.elapsed();
        let new = new.unwrap_or(old);
        wait_until("a client's write is taken by the new master", limit, || {
            Ok(self.writers.master() == u64::from(new))
        })?;
        let served = started.elapsed();
        match fault {
            Fault::Kill => self.servers[at].restart()?,
            Fault::Freeze => self.servers[at].signal("CONT")?,
        }
        let back = Instant::now();
        self.whole(new, limit)?;
        Ok(Took { switched, served, healed: back.elapsed() })
    }

    /// Ends the writers. Gives how many confirmed writes there were, and how many of them the master lacks; all servers must be equal.
    ///
    /// # Errors
    /// If they are not.
    pub fn finish(self) -> Result<(u64, u64)> {
        let Group { servers, sentinels, writers } = self;
        let (_, confirmed) = writers.counts();
        let batches = writers.stop()?;
        let port = sentinels.agreed()?.ok_or_else(|| error("the Sentinels do not agree in the end"))?;
        let master = servers.iter().find(|server| server.port == port).ok_or_else(|| error("an unknown master"))?;
        let lost = missing(master, &batches)?;
        for replica in servers.iter().filter(|server| server.port != port) {
            crate::wait::wait_equal(master, replica, Duration::from_secs(60))?;
        }
        Ok((confirmed, lost))
    }
}
