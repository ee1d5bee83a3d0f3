//! Starting and ending: open the data, replay the log, start the threads, wait, close everything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ardb_base::disk::RealDisk;
use ardb_base::id::Generation;
use ardb_commands::{Shared, Table, cmd};
use ardb_engine::presence::PresenceEngine;
use ardb_engine::{Engine, EngineError};
use ardb_engine_memory::DurableEngine;
use ardb_engine_rocksdb::{RocksEngine, RocksOptions};
use ardb_log::LogOptions;
use ardb_node::replay::{DbKey, replay_what_can_be};
use ardb_store::{Fsync, MemoryBudget, OnDamage, Store, StoreOptions};

use crate::config::Config;
use crate::config::source::ConfigError;
use crate::direct::DirectReads;
use crate::net::listen::{ListenError, Listeners};
use crate::net::mailbox::Message;
use crate::net::worker::Worker;
use crate::repl::ahead::ReadAhead;
use crate::server::Server;
use crate::{VERSION, clock, commands, cron, logger, net, repl, signals, survey};

/// Why the server did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory cannot be used.
    #[error("cannot use the directory {path}: {why}")]
    Dir {
        /// The directory.
        path: String,
        /// The system's reason.
        why: std::io::Error,
    },
    /// The data cannot be opened.
    #[error(transparent)]
    Open(ardb_store::OpenError),
    /// The log is damaged, and was not to be cut.
    #[error(
        "the log is damaged: {0}. Nothing was changed. Restore the data from a backup, or from a replica (promote it, and let this server replicate it \
         with an empty data directory). Or give up all that was written from that offset on: 'log-truncate-damaged yes' cuts the log there, keeps what \
         it cuts off in files that end in .damaged beside the log, and begins a new history"
    )]
    Damaged(Box<ardb_log::Damage>),
    /// The log cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ardb_store::ReplayError),
    /// The sockets.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refuses threads, descriptors or randomness.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// The end was not clean.
    #[error(transparent)]
    Close(#[from] ardb_store::StateError),
}

impl From<ardb_store::OpenError> for StartError {
    fn from(error: ardb_store::OpenError) -> StartError {
        match error {
            ardb_store::OpenError::Log(ardb_log::OpenError::Damaged(mut damage)) => {
                if let Ok(path) = std::path::absolute(&damage.path) {
                    damage.path = path;
                }
                StartError::Damaged(damage)
            }
            other => StartError::Open(other),
        }
    }
}

/// Shares `memory-limit` out: three eighths for changed rows, as much for the row cache, the rest for the engine.
fn budget(limit: u64) -> MemoryBudget {
    let part = limit / 8;
    MemoryBudget { changed: part * 3, rows: part * 3, engine: limit - part * 6 }
}

fn engine_factory(name: &str, direct_reads: DirectReads) -> Arc<dyn ardb_store::EngineFactory> {
    type Opened = Result<Arc<dyn Engine>, EngineError>;
    if name == "memory" {
        return Arc::new(|_: Generation, dir: &Path, _: u64| -> Opened {
            Ok(Arc::new(DurableEngine::open(Arc::new(RealDisk), dir)?))
        });
    }
    Arc::new(move |_: Generation, dir: &Path, cache: u64| -> Opened {
        let mut options = RocksOptions::new(dir);
        // A quarter for the names of the rows, the rest for their blocks.
        let names = cache / 4;
        options.block_cache_bytes = usize::try_from(cache - names).unwrap_or(usize::MAX);
        options.direct_reads = direct_reads.decide(dir)?;
        let engine = Arc::new(PresenceEngine::new(Arc::new(RocksEngine::open(&options)?), names)?);
        survey::start(&engine);
        Ok(engine)
    })
}

/// How often a long replay says how far it is.
const REPORT: Duration = Duration::from_secs(2);

/// Descriptors that are meant for the data: the engine keeps each of its files open, of 64 MB or more.
const DATA_DESCRIPTORS: u64 = 4096;

/// Allows the process as many open files as the system lets it, and says so if that is too few for `maxclients`.
fn raise_descriptor_limit(maxclients: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` stands for no limit.
    let Some(mut allowed) = current else { return };
    if maximum.is_none_or(|maximum| maximum > allowed) {
        let wanted = maximum.unwrap_or(1 << 20).max(allowed);
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => allowed = wanted,
            Err(error) => log::warn!("The limit of {allowed} open files cannot be raised: {error}"),
        }
    }
    let wanted = maxclients.saturating_add(DATA_DESCRIPTORS);
    if allowed < wanted {
        log::warn!(
            "{allowed} files may be open, {wanted} are wanted for 'maxclients' {maxclients} and the data; raise the limit \
             (ulimit -n) or lower 'maxclients'"
        );
    }
}

/// Fills a buffer from the kernel's generator.
pub fn random_bytes(buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                // Ids must not repeat, so there is no going on without randomness.
                log::error!("the kernel gives no random bytes: {error}");
                std::process::abort();
            }
        }
    }
}

/// Names this run of the machine; all zeros where the kernel does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    std::array::from_fn(|i| match digits.get(2 * i..2 * i + 2) {
        Some([high, low]) => high << 4 | low,
        _ => 0,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn network_threads(config: &Config) -> usize {
    match config.int("io-threads") {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(4),
        n => n as usize,
    }
}

/// Runs the server until it is asked to end.
///
/// # Errors
/// It could not start, or not end cleanly.
pub fn run(config: Config, warnings: &[String], args: &[String]) -> Result<(), StartError> {
    if config.flag("daemonize") && !signals::in_background(args)? {
        return Ok(());
    }
    let logfile = config.text("logfile");
    logger::start((!logfile.is_empty()).then(|| logfile.into()), &config.text("loglevel"));
    signals::abort_on_panic();
    let dir = config.text("dir");
    let cannot = |why| StartError::Dir { path: dir.clone(), why };
    std::env::set_current_dir(&dir).map_err(cannot)?;
    // What is relative to it is found from here on by its full name, which CONFIG GET shows too.
    config.note("dir", std::env::current_dir().map_err(cannot)?.into_os_string().into_encoded_bytes());
    log::info!("Ardb {VERSION} starts, PID: {}", std::process::id());
    for warning in warnings {
        log::warn!("{warning}");
    }
    let pidfile = config.text("pidfile");
    if !pidfile.is_empty()
        && let Err(error) = std::fs::write(&pidfile, format!("{}\n", std::process::id()))
    {
        log::warn!("Failed to write PID file: {error}");
    }

    raise_descriptor_limit(config.size("maxclients"));
    if config.flag("disable-thp")
        && let Err(error) = rustix::thread::disable_transparent_huge_pages(true)
    {
        log::warn!("The system goes on giving memory in huge pages, against 'disable-thp yes': {error}");
    }
    // The sockets first: if another server has them, the data need not be opened. Nobody is accepted before the threads run.
    let (listeners, port) = Listeners::open(&config)?;
    let signals = signals::catch()?;
    let server = open(config, &listeners, port)?;
    repl::prepare(&server)?;

    let mut polls = Vec::new();
    for index in 0..network_threads(&server.config) {
        polls.push(Worker::prepare(index)?);
    }
    server.set_threads(polls.iter().map(|(_, inbox)| inbox.clone()).collect());
    if server.config.int("io-threads") != 0 {
        server.balance.set(polls.len());
    }
    let mut threads = Vec::new();
    let mut listeners = Some(listeners);
    for (poll, inbox) in polls {
        let name = format!("ardb-net-{}", inbox.index());
        let worker = Worker::new(server.clone(), poll, inbox, listeners.take());
        threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
    }
    let cron = cron::start(server.clone())?;
    signals.deliver_to(server.clone())?;
    repl::start(&server)?;
    log::info!("Ready to accept connections on port {port} with {} network threads", threads.len());

    let how = server.wait_for_end();
    signals::end_scripts(server.clone(), how)?;
    for thread in server.threads() {
        thread.post(Message::Stop);
    }
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::error!("a network thread failed: {error}"),
            Err(_) => log::error!("a network thread panicked"),
        }
    }
    cron.stop();
    repl::stop(&server);
    server.cold.close();
    survey::end();
    let started = Instant::now();
    server.store.close()?;
    if !pidfile.is_empty() {
        // A leftover would only name a process that is gone.
        let _ = std::fs::remove_file(&pidfile);
    }
    log::info!("The data are on disk ({} ms), bye", started.elapsed().as_millis());
    Ok(())
}

/// Opens the data and brings them to the end of the log.
fn open(config: Config, _held: &Listeners, port: u16) -> Result<Arc<Server>, StartError> {
    let started = Instant::now();
    let databases = u32::try_from(config.int("databases")).unwrap_or(16);
    let data_dir = config.data_dir();
    let options = StoreOptions {
        dir: data_dir.clone(),
        disk: Arc::new(RealDisk),
        engines: engine_factory(
            &config.text("storage-engine"),
            DirectReads::read(&config.text("direct-reads"), config.size("memory-limit")),
        ),
        databases,
        memory: budget(config.size("memory-limit")),
        log: LogOptions { segment_bytes: config.size("log-segment-size") as usize, ..LogOptions::default() },
        backlog_bytes: config.size("repl-backlog-size"),
        // A thread of `cron` syncs once a second, because `appendfsync` can change while the server runs.
        fsync: Fsync::No,
        checkpoint_age_ms: config.size("checkpoint-period") * 1000,
        boot_id: boot_id(),
        random: Arc::new(random_bytes),
        clock: Arc::new(clock::unix_ms),
        background: true,
    };
    let on_damage = if config.flag("log-truncate-damaged") { OnDamage::Cut } else { OnDamage::Refuse };
    let (store, recovery) = Store::open_with(options, on_damage)?;
    let mut seed = [0; 8];
    random_bytes(&mut seed);
    let groups: Vec<_> = cmd::GROUPS.iter().chain(commands::GROUPS).copied().collect();
    let mut shared = Shared::new(Table::new(&groups), databases, u64::from_le_bytes(seed));
    shared.clock = clock::monotonic_ms;
    shared.script_is_busy = net::stand_in::begin;
    let shared = Arc::new(shared);
    let mut run_id = [0; 20];
    random_bytes(&mut run_id);
    let server = Server::new(config, shared, store, hex(&run_id));
    server.port.store(u64::from(port), Ordering::Relaxed);

    log::info!("The data are in {}", std::path::absolute(&data_dir).unwrap_or(data_dir).display());
    if let Some(torn) = &recovery.torn {
        log::warn!("The end of the log was cut off: {torn}");
    }
    if let Some(damage) = &recovery.damage {
        log::warn!("The log was damaged, and was cut there as 'log-truncate-damaged' says: {damage}");
    }
    if let Some(old) = &recovery.replaced_id {
        log::warn!(
            "The end of the log may have been lost, so the history goes on under a new id; the old one was {old}"
        );
    }
    let (mut reported, mut first) = (Instant::now(), None);
    let mut ahead = ReadAhead::new(&server);
    let mut coming = |keys: Vec<DbKey>| ahead.bring_all(&server, &keys);
    let replayed = replay_what_can_be(server.node(), &mut coming, &mut |progress| {
        let begin = *first.get_or_insert(progress.at);
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            let done = progress.at.since(begin);
            log::info!("Replaying the log: {done} of {} bytes", progress.end.since(begin));
        }
    })?;
    if let Some((at, why)) = &replayed.given_up {
        log::error!(
            "The log cannot be replayed beyond offset {at}: {why}. This server is a replica, so it starts with the data as they \
             were there, and will ask its master for everything."
        );
    }
    let keys: u64 = {
        use ardb_engine::Rows;
        let mut reader = server.store.reader();
        let view = reader.begin();
        (0..databases).map(|db| view.key_count(db)).sum()
    };
    log::info!(
        "{} keys: {} generation {}, {} bytes of log and {} commands replayed, in {} ms{}",
        keys,
        if recovery.created { "new" } else { "opened" },
        recovery.generation,
        recovery.log_end.since(recovery.checkpoint),
        replayed.commands,
        started.elapsed().as_millis(),
        if recovery.created || recovery.clean { "" } else { " after an unclean end" },
    );
    Ok(server)
}
