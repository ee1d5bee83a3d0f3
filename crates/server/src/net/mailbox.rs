//! Messages from other threads to the connections of one network thread.
//!
//! Invariants: posting never blocks and never does I/O beyond waking the thread. Messages of one sender arrive in the order of
//! posting. What is posted inside a write transaction is held back by [`hold`] until [`release`], so that nobody hears of a
//! change before it is visible.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ardb_commands::Session;
use ardb_commands::shared::Mailbox;
use mio::Waker;
use parking_lot::Mutex;

use super::away::Returned;
use super::connection::Connection;
use super::stream::Stream;
use crate::clients::ClientInfo;
use crate::clock;

/// What a network thread is told.
pub enum Message {
    /// A new connection is yours.
    Accepted(Stream, Arc<ClientInfo>),
    /// Bytes for a client that none of its commands asked for.
    Deliver(u64, Arc<[u8]>),
    /// A blocked client has its reply.
    Resume(Box<Resumed>),
    /// Close the connection of a client.
    Kill(u64),
    /// Look at all connections again: a pause is over, or a limit has changed.
    LookAgain,
    /// The thread that this one stands in for has time again.
    TakeBack,
    /// A connection of another thread is yours.
    Moved(Box<Connection>),
    /// A connection that was away.
    Return(Box<Returned>),
    /// Flush what can be flushed, close everything, end.
    Stop,
}

/// A client that waited, on its way back to its thread.
pub struct Resumed {
    /// The client's state.
    pub session: Session,
    /// The reply to its blocking command.
    pub reply: Vec<u8>,
    /// The reply tells of a change in the transaction that it was written in, so it is worth nothing if that fails.
    pub of_batch: bool,
}

/// The inbox of one network thread.
pub struct ThreadBox {
    index: usize,
    queue: Mutex<Vec<Message>>,
    waker: Waker,
    /// The thread is about to sleep, or sleeps, and has not been woken yet.
    asleep: AtomicBool,
    /// It is to be woken for what can wait, too.
    eager: AtomicBool,
    /// Processor time that the thread had used when it last looked, and when that was, nanoseconds.
    used: AtomicU64,
    used_at: AtomicU64,
}

type Held = Vec<(Arc<ThreadBox>, Message)>;

thread_local! {
    /// What this thread has posted since [`hold`].
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// From now on this thread's posts wait for [`release`].
pub fn hold() {
    HELD.with_borrow_mut(|held| {
        held.get_or_insert_default();
    });
}

/// Sends what has been held back.
pub fn release() {
    let held = HELD.with_borrow_mut(Option::take);
    for (to, message) in held.into_iter().flatten() {
        to.push(message);
    }
}

/// As [`release`], after a transaction that failed: what was published in it is forgotten, and clients served by it get the reply `error`
/// (a whole one) instead.
pub fn release_failed(error: &[u8]) {
    let held = HELD.with_borrow_mut(Option::take);
    for (to, message) in held.into_iter().flatten() {
        match message {
            Message::Deliver(..) => {}
            Message::Resume(mut resumed) if resumed.of_batch => {
                resumed.reply = error.to_vec();
                to.push(Message::Resume(resumed));
            }
            other => to.push(other),
        }
    }
}

impl ThreadBox {
    /// The inbox of the thread `index`, which is woken by `waker`.
    #[must_use]
    pub fn new(index: usize, waker: Waker) -> ThreadBox {
        ThreadBox {
            index,
            queue: Mutex::new(Vec::new()),
            waker,
            asleep: AtomicBool::new(false),
            eager: AtomicBool::new(false),
            used: AtomicU64::new(0),
            used_at: AtomicU64::new(0),
        }
    }

    /// The thread's number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends a message, after the transaction if this thread is in one.
    pub fn post(self: &Arc<Self>, message: Message) {
        let now = HELD.with_borrow_mut(|held| match held {
            Some(list) => {
                list.push((self.clone(), message));
                None
            }
            None => Some(message),
        });
        if let Some(message) = now {
            self.push(message);
        }
    }

    /// Sends a message at once, whatever this thread is in the middle of.
    pub fn post_now(&self, message: Message) {
        self.push(message);
    }

    fn push(&self, message: Message) {
        self.queue.lock().push(message);
        self.wake();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // The only failure is a full counter, and then the thread is awake.
            let _ = self.waker.wake();
        }
    }

    /// Sends a message for which the thread, should it sleep, need not wake, unless it said that it is eager. It finds it when something else wakes it.
    pub fn leave(&self, message: Message) {
        if self.eager.load(Ordering::SeqCst) {
            return self.push(message);
        }
        self.queue.lock().push(message);
        // It may have become eager, and gone to sleep, in between.
        if self.eager.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Takes all messages, in order, leaving the buffer `into`'s old one.
    pub fn take(&self, into: &mut Vec<Message>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.queue.lock(), into);
    }

    /// Says that the thread is going to sleep, and whether it is `eager` to have what is left for it. Returns whether it may: not if messages wait.
    pub fn going_to_sleep(&self, eager: bool) -> bool {
        self.eager.store(eager, Ordering::SeqCst);
        self.asleep.store(true, Ordering::SeqCst);
        self.queue.lock().is_empty()
    }

    /// Says that the thread is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Notes the processor time that the thread, which calls this, has used, apart from so much that it spent in vain, and for which it has waited.
    pub fn account(&self, idle: Duration, waited: Duration) {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let used = used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64 + waited.as_nanos() as u64;
        let used = used.saturating_sub(idle.as_nanos() as u64);
        self.used.store(used, Ordering::Relaxed);
        self.used_at.store(clock::monotonic().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Processor time that the thread has used, and waited for. One that has not slept or looked for long is in the middle of a long command.
    #[must_use]
    pub fn used(&self, now: Duration) -> Duration {
        const LONG: Duration = Duration::from_millis(20);
        let used = Duration::from_nanos(self.used.load(Ordering::Relaxed));
        let since = now.saturating_sub(Duration::from_nanos(self.used_at.load(Ordering::Relaxed)));
        if since > LONG && !self.asleep.load(Ordering::Relaxed) { used + since } else { used }
    }
}

/// A [`ThreadBox`] as commands see it.
pub struct ThreadMailbox(pub Arc<ThreadBox>);

impl Mailbox for ThreadMailbox {
    fn deliver(&self, client: u64, bytes: Arc<[u8]>) {
        self.0.post(Message::Deliver(client, bytes));
    }
}

#[cfg(test)]
mod tests {
    use mio::Events;

    use super::super::worker::Worker;
    use super::*;

    #[test]
    fn what_is_left_wakes_a_thread_only_if_it_is_eager() {
        let (mut poll, inbox) = Worker::prepare(0).expect("the system has descriptors");
        let mut events = Events::with_capacity(4);
        let mut is_woken = || {
            poll.poll(&mut events, Some(Duration::ZERO)).expect("it can be polled");
            !events.is_empty()
        };
        let mut messages = Vec::new();
        for eager in [false, true] {
            assert!(inbox.going_to_sleep(eager));
            inbox.leave(Message::LookAgain);
            assert_eq!(is_woken(), eager);
            assert!(!inbox.going_to_sleep(eager), "it is there all the same");
            inbox.take(&mut messages);
            assert_eq!(messages.drain(..).count(), 1);
            inbox.awake();
        }
        assert!(inbox.going_to_sleep(false));
        inbox.post(Message::LookAgain);
        assert!(is_woken());
    }
}
