//! The store's threads: one runs checkpoints, one ticks, and one watches the first while it is put aside ([`crate::aside`]).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ardb_base::priority;

use crate::core::Core;
use crate::store::{Shared, Store};

const TICK: Duration = Duration::from_millis(50);
/// How often it is tried to free what a checkpoint has replaced before the next tick asks again, and how long it is waited in between: who serves clients may use it
/// until the end of a batch.
const SWEEPS: u32 = 10;
const BETWEEN_SWEEPS: Duration = Duration::from_millis(2);
/// How long a failed checkpoint waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The running threads.
pub struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Who watches the one that is put aside, if it may be.
    watcher: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Checkpoints,
    Ticks,
}

impl Threads {
    /// Starts them. They hold the store weakly, so that dropping its last handle ends them.
    pub fn start(shared: &Arc<Shared>) -> std::io::Result<Threads> {
        let mut threads = Threads { handles: Vec::new(), watcher: None };
        let may_go_aside = priority::may_bring_back();
        if may_go_aside {
            let core = shared.core.clone();
            threads.watcher = Some(spawn("ardb-watch", move || core.aside.watch(|| core.is_pressed()))?);
        }
        for (name, role) in [("ardb-checkpoint", Role::Checkpoints), ("ardb-store-tick", Role::Ticks)] {
            let weak = Arc::downgrade(shared);
            let core = shared.core.clone();
            let thread = spawn(name, move || {
                if role == Role::Checkpoints && may_go_aside {
                    // For its long parts. While it holds the writer lock nobody should have it wait.
                    core.aside.take_this_thread();
                } else {
                    // What waits for a checkpoint is slowed down, and so leaves it the processor.
                    priority::stand_behind(priority::BACKGROUND);
                }
                while !wait(&core, role) {
                    let Some(shared) = weak.upgrade() else { return };
                    let store = Store { shared };
                    match role {
                        Role::Checkpoints => {
                            let ran = checkpoint_if_wanted(&store);
                            sweep(&core, if ran { SWEEPS } else { 1 });
                        }
                        Role::Ticks => {
                            if let Err(error) = store.tick() {
                                log::warn!("background deletion waits: {error}");
                            }
                        }
                    }
                }
            })?;
            threads.handles.push(thread);
        }
        Ok(threads)
    }

    /// Ends them, waiting for a checkpoint that is under way. One of them may call this (when it held the last handle); that one is not waited for.
    pub fn stop(self, core: &Core) {
        core.wanted.state.lock().stop = true;
        core.wanted.signal.notify_all();
        for handle in self.handles {
            if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
                log::error!("a thread of the store panicked");
            }
        }
        // Not before, so that a checkpoint that is under way is watched to its end.
        core.aside.stop();
        if self.watcher.is_some_and(|watcher| watcher.join().is_err()) {
            log::error!("a thread of the store panicked");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}

/// Waits for a tick, or until a checkpoint is asked for; returns whether to stop.
fn wait(core: &Core, role: Role) -> bool {
    let mut state = core.wanted.state.lock();
    match role {
        Role::Checkpoints => {
            core.wanted.signal.wait_while(&mut state, |state| !state.stop && !state.checkpoint && !state.sweep);
        }
        Role::Ticks => {
            core.wanted.signal.wait_while_for(&mut state, |state| !state.stop, TICK);
        }
    }
    state.stop
}

/// Frees replaced views, as far as they get free soon: it is tried so many times.
fn sweep(core: &Core, tries: u32) {
    core.wanted.state.lock().sweep = false;
    for left in (0..tries).rev() {
        core.sweep();
        let mut state = core.wanted.state.lock();
        if left == 0 || state.stop || state.checkpoint || core.graveyard.lock().is_empty() {
            return;
        }
        core.wanted.signal.wait_for(&mut state, BETWEEN_SWEEPS);
    }
}

/// Gives whether one was wanted.
fn checkpoint_if_wanted(store: &Store) -> bool {
    let core = &store.shared.core;
    if !std::mem::take(&mut core.wanted.state.lock().checkpoint) {
        return false;
    }
    if store.checkpoint().is_err() {
        let mut state = core.wanted.state.lock();
        if !state.stop {
            core.wanted.signal.wait_for(&mut state, RETRY);
        }
        // Until it succeeds.
        state.checkpoint = true;
    }
    true
}
