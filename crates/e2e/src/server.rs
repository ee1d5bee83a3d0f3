//! Servers under a test's control: started on a free loopback port in a folder of their own, killed, ended, restarted.
//!
//! Invariants: a server dies with its [`Server`]; its folder goes with it, unless the test failed or
//! `ARDB_E2E_KEEP` is set: then it stays and its path is printed. What a server prints is kept in `server.log` there, over
//! all its lives.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ardb_base::random::Random;

use crate::client::Client;
use crate::reply::Reply;
use crate::wait::wait_until;
use crate::{Result, error, peers};

/// What kind of server to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server under test.
    Ardb,
    /// A real Redis of this series, for instance `2.8`.
    Redis(&'static str),
    /// A real Valkey of this series, for instance `9.1`.
    Valkey(&'static str),
}

/// A server to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    kind: Kind,
    directives: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
    /// Whether [`Setup::start`] has chosen the folder and deletes it in the end.
    own_dir: bool,
    dir: Option<PathBuf>,
}

impl Setup {
    /// The server under test with its defaults, or, where `ARDB_SERVER` names a real Redis, that one made durable.
    #[must_use]
    pub fn ardb() -> Setup {
        Setup::new(Kind::Ardb)
    }

    /// A real Redis of the series `version`.
    #[must_use]
    pub fn redis(version: &'static str) -> Setup {
        Setup::new(Kind::Redis(version))
    }

    /// A real Valkey 9.1.
    #[must_use]
    pub fn valkey() -> Setup {
        Setup::new(Kind::Valkey("9.1"))
    }

    /// A server of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Setup {
        Setup { kind, directives: Vec::new(), environment: Vec::new(), own_dir: true, dir: None }
    }

    /// Adds a directive, as on the command line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Setup {
        self.directives.push((name.to_string(), value.to_string()));
        self
    }

    /// Adds a directive that only Ardb knows; a Redis that stands in for it is started without.
    #[must_use]
    pub fn with_own(self, name: &str, value: impl ToString) -> Setup {
        if stands_in() { self } else { self.with(name, value) }
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Setup {
        self.environment.push((name.to_string(), value.into()));
        self
    }

    /// Uses this folder and leaves it there.
    #[must_use]
    pub fn in_dir(mut self, dir: &Path) -> Setup {
        self.dir = Some(dir.to_path_buf());
        self.own_dir = false;
        self
    }

    fn program(&self) -> Result<PathBuf> {
        match self.kind {
            Kind::Ardb => peers::ardb_server(),
            Kind::Redis(version) => peers::peer(&format!("redis-server-{version}")),
            Kind::Valkey(version) => peers::peer(&format!("valkey-server-{version}")),
        }
    }

    fn defaults(&self) -> Vec<(&'static str, &'static str)> {
        let modern = [("repl-diskless-sync-delay", "0"), ("enable-debug-command", "yes")];
        let mut list = vec![("bind", "127.0.0.1"), ("save", ""), ("repl-backlog-size", "64mb")];
        match self.kind {
            Kind::Ardb if stands_in() => {
                list.extend(modern);
                list.extend([("appendonly", "yes"), ("appendfsync", "always")]);
            }
            Kind::Redis("7.0" | "8") | Kind::Valkey(_) => list.extend(modern),
            Kind::Redis("6.2") => list.push(("repl-diskless-sync-delay", "0")),
            Kind::Ardb | Kind::Redis(_) => {}
        }
        list
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// If the program is not there, or dies, or does not answer within 30 seconds; with the end of what it printed.
    pub fn start(self) -> Result<Server> {
        let program = self.program()?;
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => fresh_dir()?,
        };
        std::fs::create_dir_all(&dir)?;
        let mut last = error("not tried");
        // Another process may take the port between the test for it and the start.
        for _ in 0..5 {
            let claim = Port::free()?;
            let port = claim.number;
            let mut arguments = vec!["--port".to_string(), port.to_string()];
            arguments.extend(["--dir".to_string(), dir.to_string_lossy().into_owned()]);
            let given = |name: &str| self.directives.iter().any(|(other, _)| other == name);
            for (name, value) in self.defaults().into_iter().filter(|(name, _)| !given(name)) {
                arguments.extend([format!("--{name}"), value.to_string()]);
            }
            for (name, value) in &self.directives {
                arguments.push(format!("--{name}"));
                // A value of several words is several arguments, except where it is empty.
                if value.is_empty() {
                    arguments.push(String::new());
                }
                arguments.extend(value.split(' ').filter(|word| !word.is_empty()).map(str::to_string));
            }
            let mut server = Server {
                kind: self.kind,
                program: program.clone(),
                arguments,
                environment: self.environment.clone(),
                port,
                _claim: claim,
                dir: dir.clone(),
                own_dir: self.own_dir,
                child: None,
            };
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(failure) => {
                    let busy = server.log().contains("in use");
                    server.own_dir = false;
                    last = failure;
                    if !busy {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

/// Whether `ARDB_SERVER` names a real Redis, for the tests of the tests.
#[must_use]
pub fn stands_in() -> bool {
    peers::ardb_server()
        .is_ok_and(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("redis")))
}

/// A new folder for one server, which nobody else has, not even a process with this one's number that ended long ago and left its own.
pub(crate) fn fresh_dir() -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ardb-e2e-{}-{count}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(failure) if failure.kind() == ErrorKind::AlreadyExists => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// A loopback port for one server, claimed among all processes of these tests: nobody listens on the port of a server that is dead for the
/// moment, and it must be free when that one comes back. The claim ends with this.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// A name in the kernel that can be bound once on a machine, and goes with the process.
    _claim: UnixListener,
}

impl Port {
    /// A port that nobody listens on or has claimed. It lies below the ports that the kernel hands to outgoing connections: a
    /// replica that calls a dead master's port from that very port would be connected to itself.
    pub(crate) fn free() -> Result<Port> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40;
        let mut random = Random::new(seed.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)));
        for _ in 0..200 {
            let number = 12_000 + random.below(18_000) as u16;
            let Some(claim) = claim(number)? else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Port { number, _claim: claim });
            }
        }
        Err(error("no free port"))
    }
}

/// The claim on a port, if nobody has it.
fn claim(port: u16) -> Result<Option<UnixListener>> {
    let name = SocketAddr::from_abstract_name(format!("ardb-e2e-port-{port}"))?;
    match UnixListener::bind_addr(&name) {
        Ok(claim) => Ok(Some(claim)),
        Err(failure) if failure.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A running (or killed) server.
pub struct Server {
    kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    /// The loopback port it listens on, over all its lives.
    pub port: u16,
    _claim: Port,
    /// Its folder.
    pub dir: PathBuf,
    own_dir: bool,
    child: Option<Child>,
}

impl Server {
    fn launch(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(Duration::from_secs(30))
    }

    fn spawn(&mut self) -> Result<()> {
        let out = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir).stdin(Stdio::null());
        command.stdout(out.try_clone()?).stderr(out);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until the server answers and has loaded its data.
    ///
    /// # Errors
    /// If it does not in that time, or has ended.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.port) {
                client.set_timeout(limit)?;
                match client.ask("PING") {
                    Ok(Reply::Error(text)) if text.starts_with(b"LOADING") => {}
                    Ok(_) if self.is_ours(&mut client) => return Ok(()),
                    Ok(_) | Err(_) => {}
                }
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(error(format!("{} ended with {status}:\n{}", self.name(), self.log_tail())));
            }
            if start.elapsed() > limit {
                return Err(error(format!("{} does not answer after {limit:?}:\n{}", self.name(), self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it is this process that answers, and not another one that has taken the port meanwhile. One that tells nothing before it
    /// knows a password is believed.
    fn is_ours(&self, client: &mut Client) -> bool {
        let told = client.info("server").ok().and_then(|info| info.get("process_id")?.parse::<u32>().ok());
        told.is_none() || told == self.pid()
    }

    /// The kind of server this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A name for messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Ardb => format!("ardb:{}", self.port),
            Kind::Redis(version) => format!("redis-{version}:{}", self.port),
            Kind::Valkey(version) => format!("valkey-{version}:{}", self.port),
        }
    }

    /// A new connection to it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.port)
    }

    /// Its process id, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it in the middle of whatever it does.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end by SIGTERM and waits for that.
    ///
    /// # Errors
    /// If it has not ended after 20 seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_end(Duration::from_secs(20))
    }

    /// Sends it a signal: TERM, STOP or CONT. After STOP all of its threads stand still: the kernel stops them one by one, and on a busy
    /// machine the last may run for some time more.
    ///
    /// # Errors
    /// If it does not run, or has not stopped after 20 seconds.
    pub fn signal(&self, name: &str) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let number = self.pid().ok_or_else(|| error("not running"))?;
        let pid =
            i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| error("a process id out of range"))?;
        let signal = match name {
            "TERM" => Signal::TERM,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            _ => return Err(error(format!("no signal {name}"))),
        };
        kill_process(pid, signal)?;
        if name == "STOP" {
            wait_until("all threads stand still", Duration::from_secs(20), || stands_still(number))?;
        }
        Ok(())
    }

    /// Waits until it has ended of its own.
    ///
    /// # Errors
    /// If it has not after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        while let Some(child) = self.child.as_mut() {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(error(format!("{} still runs after {limit:?}:\n{}", self.name(), self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(error("not running"))
    }

    /// Starts it again, with the same port, folder and directives.
    ///
    /// # Errors
    /// As [`Setup::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.launch()
    }

    /// The same without waiting until it answers.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_again(&mut self) -> Result<()> {
        self.kill9()?;
        self.spawn()
    }

    /// Where what it prints is kept.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// All that it has printed, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of it.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// How many lines of it contain `text`, in any case.
    #[must_use]
    pub fn log_count(&self, text: &str) -> usize {
        let text = text.to_lowercase();
        self.log().lines().filter(|line| line.to_lowercase().contains(&text)).count()
    }

    /// Its resident memory in bytes.
    #[must_use]
    pub fn resident(&self) -> Option<u64> {
        resident(self.pid()?)
    }

    /// Opens a file in its folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(&self, name: &str) -> Result<File> {
        File::open(self.dir.join(name))
    }
}

/// The resident memory of a process in bytes.
#[must_use]
pub fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill9();
        if std::thread::panicking() || std::env::var_os("ARDB_E2E_KEEP").is_some() {
            eprintln!("kept: {} in {}", self.name(), self.dir.display());
        } else if self.own_dir {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Whether all threads of a process are stopped.
fn stands_still(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The name, in parentheses, may hold anything; the state comes right after it.
        if !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_not_given_again_until_its_claim_ends() {
        let port = Port::free().unwrap();
        assert!(claim(port.number).unwrap().is_none(), "nobody listens on it, and yet it is taken");
        let number = port.number;
        drop(port);
        assert!(claim(number).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_is_there_is_nobodys() {
        let one = fresh_dir().unwrap();
        let other = fresh_dir().unwrap();
        assert_ne!(one, other);
        // The next one, left behind by an earlier process.
        let count: u64 = other.to_string_lossy().rsplit('-').next().unwrap().parse().unwrap();
        let mut left: Vec<PathBuf> = Vec::new();
        for next in count + 1..count + 4 {
            let dir = std::env::temp_dir().join(format!("ardb-e2e-{}-{next}", std::process::id()));
            if std::fs::create_dir(&dir).is_ok() {
                left.push(dir);
            }
        }
        let fresh = fresh_dir().unwrap();
        assert!(!left.contains(&fresh));
        for dir in left.iter().chain([&one, &other, &fresh]) {
            std::fs::remove_dir(dir).unwrap();
        }
    }
}
