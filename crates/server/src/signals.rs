//! Signals, panics, and going into the background.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::server::{Server, Shutdown};

/// Set in the process that runs in the background.
const IN_BACKGROUND: &str = "ARDB_IN_BACKGROUND";

/// Signals that are caught and not yet delivered.
pub struct Caught(Signals);

/// From now on signals wait to be delivered.
///
/// # Errors
/// The system refuses.
pub fn catch() -> io::Result<Caught> {
    Ok(Caught(Signals::new([SIGTERM, SIGINT, SIGHUP, SIGPIPE])?))
}

impl Caught {
    /// Starts the thread that turns signals into requests. SIGTERM and SIGINT end the server cleanly, a second SIGINT at once; SIGHUP
    /// is ignored.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn deliver_to(self, server: Arc<Server>) -> io::Result<()> {
        let mut signals = self.0;
        std::thread::Builder::new().name("ardb-signals".into()).spawn(move || {
            let mut interrupted = false;
            for signal in signals.forever() {
                match signal {
                    SIGINT if interrupted => {
                        log::warn!("You insist... exiting now.");
                        std::process::exit(1);
                    }
                    SIGINT | SIGTERM => {
                        interrupted |= signal == SIGINT;
                        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                        log::warn!("Received {name} scheduling shutdown...");
                        server.shut_down(Shutdown { force: true, ..Shutdown::default() });
                    }
                    _ => {}
                }
            }
        })?;
        Ok(())
    }
}

/// Sees to it that no script holds up the end of the server. One that has written nothing is stopped as soon as it is over its limit, any other after
/// `shutdown-timeout`, or at once if the server is to end so. Nothing of it is committed, and no reply was given.
///
/// # Errors
/// The system has no more threads.
pub fn end_scripts(server: Arc<Server>, how: Shutdown) -> io::Result<()> {
    let patience = if how.drop_script { 0 } else { server.config.int("shutdown-timeout").max(0) as u64 };
    let deadline = Instant::now() + Duration::from_secs(patience);
    std::thread::Builder::new().name("ardb-end".into()).spawn(move || {
        // It goes on to the end of the process: other scripts may stand behind the first one.
        loop {
            let scripts = &server.shared.scripts;
            let busy = server.shared.gates.busy_script.load(Ordering::SeqCst);
            if scripts.is_running() && (Instant::now() >= deadline || (busy && scripts.may_be_killed())) {
                server.shared.gates.abandon_script.store(true, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    })?;
    Ok(())
}

/// A panic must not leave a half-changed server running: it is logged, and the process aborts. The log on disk has all that was replied.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_string())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        log::error!("=== BUG: panic at {place}: {text}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
}

/// Whether this process is the one in the background. If not, starts that one.
///
/// # Errors
/// It could not be started.
pub fn in_background(args: &[String]) -> io::Result<bool> {
    if std::env::var_os(IN_BACKGROUND).is_some() {
        return Ok(true);
    }
    // The directory stays: the child reads the same relative paths. A group of its own keeps the terminal's signals away.
    Command::new(std::env::current_exe()?)
        .args(args)
        .env(IN_BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(false)
}
