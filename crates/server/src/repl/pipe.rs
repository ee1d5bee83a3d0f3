//! Bytes from the thread of a link to one that reads them with patience, an RDB's reader.
//!
//! The link's thread must not wait for what the reader waits for (an engine that writes, say), because its master would take it for dead: it looks up
//! while there is no room. Memory is bounded by [`PIPE_BYTES`] and the piece that comes last.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Bytes in the pipe from which on nothing more goes in before something was read.
const PIPE_BYTES: usize = 1 << 20;
/// How long one who writes waits for room before it looks up.
const ROUND: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// All has been written.
    complete: bool,
    /// The end that writes is gone.
    closed: bool,
    /// The end that reads is gone.
    deaf: bool,
}

/// The end that writes. Dropping it before [`Inlet::complete`] tells the reader that the rest will not come.
pub struct Inlet(Arc<Shared>);

/// The end that reads.
pub struct Outlet {
    shared: Arc<Shared>,
    piece: Vec<u8>,
    at: usize,
}

/// A pipe.
#[must_use]
pub fn pipe() -> (Inlet, Outlet) {
    let shared = Arc::new(Shared::default());
    (Inlet(shared.clone()), Outlet { shared, piece: Vec::new(), at: 0 })
}

impl Inlet {
    /// Waits until there is room, or the reader has gone; `idle` is called meanwhile. Gives whether anybody reads.
    ///
    /// # Errors
    /// Those of `idle`.
    pub fn make_room<E>(&self, mut idle: impl FnMut() -> Result<(), E>) -> Result<bool, E> {
        loop {
            {
                let mut state = self.0.state.lock();
                if state.deaf || state.bytes < PIPE_BYTES {
                    return Ok(!state.deaf);
                }
                if !self.0.changed.wait_for(&mut state, ROUND).timed_out() {
                    continue;
                }
            }
            idle()?;
        }
    }

    /// Puts a piece in.
    pub fn push(&self, piece: &[u8]) {
        let mut state = self.0.state.lock();
        state.bytes += piece.len();
        state.pieces.push_back(piece.to_vec());
        self.0.changed.notify_all();
    }

    /// That was all.
    pub fn complete(&self) {
        self.0.state.lock().complete = true;
        self.0.changed.notify_all();
    }

    /// Waits until the reader has gone. `idle` is called meanwhile.
    pub fn wait(&self, mut idle: impl FnMut()) {
        loop {
            {
                let mut state = self.0.state.lock();
                if state.deaf {
                    return;
                }
                if !self.0.changed.wait_for(&mut state, ROUND).timed_out() {
                    continue;
                }
            }
            idle();
        }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl BufRead for Outlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() {
            let mut state = self.shared.state.lock();
            if let Some(piece) = state.pieces.pop_front() {
                state.bytes -= piece.len();
                (self.piece, self.at) = (piece, 0);
                self.shared.changed.notify_all();
            } else if state.complete {
                return Ok(&[]);
            } else if state.closed {
                return Err(io::Error::other("the link is gone"));
            } else {
                self.shared.changed.wait(&mut state);
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.piece.len());
    }
}

impl Read for Outlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buf.len());
        buf[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.deaf = true;
        state.pieces.clear();
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_then_the_end() {
        let (inlet, mut outlet) = pipe();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            outlet.read_to_end(&mut all).map(|_| all)
        });
        let mut sent = Vec::new();
        for round in 0..200u8 {
            let piece = vec![round; 40_000];
            assert_eq!(inlet.make_room(|| Ok::<(), ()>(())), Ok(true));
            inlet.push(&piece);
            sent.extend(piece);
        }
        inlet.complete();
        drop(inlet);
        assert!(reader.join().expect("no panic").expect("no error") == sent);
    }

    #[test]
    fn one_who_writes_looks_up_while_nobody_reads() {
        let (inlet, outlet) = pipe();
        inlet.push(&vec![0; PIPE_BYTES]);
        let mut looks = 0;
        let given_up = inlet.make_room(|| {
            looks += 1;
            if looks < 3 { Ok(()) } else { Err("enough") }
        });
        assert_eq!((given_up, looks), (Err("enough"), 3));
        drop(outlet);
        assert_eq!(inlet.make_room(|| Err("nobody is waited for")), Ok(false));
        inlet.wait(|| unreachable!("it has gone"));
    }

    #[test]
    fn a_reader_learns_that_the_rest_will_not_come() {
        let (inlet, mut outlet) = pipe();
        inlet.push(b"half");
        drop(inlet);
        let mut all = Vec::new();
        assert!(outlet.read_to_end(&mut all).is_err());
        assert_eq!(all, b"half");
    }
}
