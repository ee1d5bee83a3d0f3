//! Telling waiting threads and event loops that the log has grown.
//!
//! The appender stores the new end, then loads `interest`; a waiter raises `interest`, then loads the end. All four are sequentially
//! consistent, so at least one of the two sees the other, and no wake-up is lost. While nobody waits, the appender pays that one load.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ardb_base::id::Offset;
use parking_lot::{Condvar, Mutex};

use crate::log::Shared;

/// What an event loop wants called when the log grows. It runs on the appender's thread, so it must be quick and must not call the log.
pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Notify {
    /// Threads in [`Notify::wait`] plus wakers that are armed.
    interest: AtomicUsize,
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads in [`Notify::wait`].
    threads: usize,
    next_id: u64,
    wakers: Vec<Waker>,
}

struct Waker {
    id: u64,
    /// Call when the end is past this.
    armed: Option<Offset>,
    callback: Callback,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("interest", &self.interest).finish_non_exhaustive()
    }
}

impl Notify {
    /// The end has just been stored, with sequential consistency.
    #[inline]
    pub fn grown(&self, end: Offset) {
        if self.interest.load(Ordering::SeqCst) > 0 {
            self.call(|past| past < end);
        }
    }

    /// Something else happened that every waiter must look at.
    pub fn all(&self) {
        self.call(|_| true);
    }

    #[cold]
    fn call(&self, due: impl Fn(Offset) -> bool) {
        let mut callbacks: Vec<Callback> = Vec::new();
        let mut state = self.state.lock();
        for waker in &mut state.wakers {
            if waker.armed.is_some_and(&due) {
                waker.armed = None;
                self.interest.fetch_sub(1, Ordering::SeqCst);
                callbacks.push(waker.callback.clone());
            }
        }
        if state.threads > 0 {
            self.grown.notify_all();
        }
        drop(state);
        for callback in callbacks {
            callback();
        }
    }

    /// Waits until `done()`, which looks at the log, or until `timeout` has passed.
    pub fn wait(&self, timeout: Duration, done: impl Fn() -> bool) -> bool {
        if done() {
            return true;
        }
        let mut state = self.state.lock();
        state.threads += 1;
        self.interest.fetch_add(1, Ordering::SeqCst);
        let result = self.grown.wait_while_for(&mut state, |_| !done(), timeout);
        let done = !result.timed_out() || done();
        self.interest.fetch_sub(1, Ordering::SeqCst);
        state.threads -= 1;
        done
    }
}

/// A registered waker of an event loop; dropping it unregisters. It starts disarmed.
#[derive(Debug)]
pub struct WakerHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl WakerHandle {
    pub(crate) fn new(shared: Arc<Shared>, callback: Callback) -> WakerHandle {
        let mut state = shared.notify.state.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.wakers.push(Waker { id, armed: None, callback });
        drop(state);
        WakerHandle { shared, id }
    }

    /// Asks for one call of the callback, when the log has bytes past `past` or a new history began. Gives false, and asks for nothing,
    /// if there are such bytes already. Arming again replaces what was asked for.
    #[must_use = "false means that there is something to read and no call will come"]
    pub fn arm(&self, past: Offset) -> bool {
        let notify = &self.shared.notify;
        let mut state = notify.state.lock();
        let Some(waker) = state.wakers.iter_mut().find(|waker| waker.id == self.id) else { return true };
        if waker.armed.replace(past).is_none() {
            notify.interest.fetch_add(1, Ordering::SeqCst);
        }
        if self.shared.end() > past {
            waker.armed = None;
            notify.interest.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }
}

impl Drop for WakerHandle {
    fn drop(&mut self) {
        let notify = &self.shared.notify;
        let mut state = notify.state.lock();
        if let Some(at) = state.wakers.iter().position(|waker| waker.id == self.id)
            && state.wakers.swap_remove(at).armed.is_some()
        {
            notify.interest.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
