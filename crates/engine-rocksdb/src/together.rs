//! Reads of many blocks at once.
//!
//! A thread that wants several rows plans: RocksDB is asked for each, and what it would have to read is noted ([`ask`]) instead of read. Then the system is
//! handed all of it in one call, by an io_uring, and the thread waits once. Then RocksDB is asked again, for the rows that it gave up on, and finds what
//! was read. A row may need more than one round: the piece of an index first, then the block it names.
//!
//! Invariants: nothing is put off while the thread does not plan. Memory that the system reads into is not touched, moved or freed before the system says
//! that it is done with it. At most [`MOST`] blocks, of [`MOST_BYTES`] together, are noted at a time.

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use crate::files::File;

/// What direct reads are aligned to.
pub(crate) const ALIGNMENT: usize = 4096;
/// Blocks that are read in one go at most.
pub(crate) const MOST: usize = 128;
/// Bytes of all of them, but for a single one that is larger.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of the memory for an ordinary block; that is used again.
const ROOM: usize = 16 << 10;

/// What became of a read.
pub(crate) enum Asked {
    /// So many bytes are there.
    Read(usize),
    /// It is noted, or there is no room for it in this round.
    Later,
    /// The thread does not plan, or it cannot be had this way: to be read now.
    Unplanned,
}

/// Memory for one block, aligned for direct reads, and at least [`ROOM`].
struct Room {
    start: NonNull<u8>,
    layout: Layout,
}

impl Room {
    /// Memory for `length` bytes. None if there can be no such memory.
    fn new(length: usize) -> Option<Room> {
        let layout = Layout::from_size_align(length.max(ROOM), ALIGNMENT).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Room { start, layout })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, in `new`.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// One block that is wanted.
struct Wanted {
    file: Arc<File>,
    offset: u64,
    length: usize,
    room: Room,
    /// What the system said: bytes, or its error, negative. None before.
    result: Option<i32>,
}

/// A thread's plan.
struct Plan {
    ring: IoUring,
    wanted: Vec<Wanted>,
    /// Bytes of all that is wanted.
    bytes: usize,
    /// Memory that waits for the next block.
    rooms: Vec<Room>,
    /// Whether reads are put off now.
    active: bool,
    /// Whether one was since the last look.
    missed: bool,
}

thread_local! {
    /// None if the system has no rings for this thread, or before it wanted one.
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Whether the system refused.
static REFUSED: AtomicBool = AtomicBool::new(false);
/// Whether it has rings at all.
static HAS_RINGS: OnceLock<bool> = OnceLock::new();

/// What to do with a read of RocksDB's.
pub(crate) fn ask(file: &Arc<File>, offset: u64, into: &mut [MaybeUninit<u8>]) -> Asked {
    PLAN.with_borrow_mut(|plan| match plan {
        Some(plan) if plan.active => plan.ask(file, offset, into),
        _ => Asked::Unplanned,
    })
}

/// Whether reads can be handed to the system together.
pub(crate) fn is_possible() -> bool {
    *HAS_RINGS.get_or_init(|| ring().is_ok()) && !REFUSED.load(Ordering::Relaxed)
}

/// Whether this thread can do so: it gets its ring now, if need be.
pub(crate) fn is_ready() -> bool {
    is_possible()
        && PLAN.with_borrow_mut(|plan| {
            if plan.is_none() {
                match ring() {
                    Ok(ring) => {
                        let (wanted, rooms) = (Vec::new(), Vec::new());
                        *plan = Some(Plan { ring, wanted, bytes: 0, rooms, active: false, missed: false });
                    }
                    Err(_) => REFUSED.store(true, Ordering::Relaxed),
                }
            }
            plan.is_some()
        })
}

fn ring() -> io::Result<IoUring> {
    // Completions wait until the thread asks for them: it is not interrupted for each. From Linux 6.1 on.
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(MOST as u32)
        .or_else(|_| IoUring::new(MOST as u32))
}

/// Calls `look` with reads put off. Gives whether one was: then what `look` gave means nothing.
pub(crate) fn planning<T>(look: impl FnOnce() -> T) -> (T, bool) {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            PLAN.with_borrow_mut(|plan| plan.iter_mut().for_each(|plan| plan.active = false));
        }
    }
    PLAN.with_borrow_mut(|plan| plan.iter_mut().for_each(|plan| (plan.active, plan.missed) = (true, false)));
    let over = Over;
    let found = look();
    drop(over);
    (found, PLAN.with_borrow(|plan| plan.as_ref().is_some_and(|plan| plan.missed)))
}

/// Reads what was noted since the last time.
pub(crate) fn read() {
    PLAN.with_borrow_mut(|plan| {
        let Some(Err(error)) = plan.as_mut().map(Plan::read) else { return };
        // Whether the system still reads is not known: nobody may ever use that memory for anything else. From here on rows are read one by one.
        log::error!("reads cannot be handed to the system together any more: {error}");
        REFUSED.store(true, Ordering::Relaxed);
        plan.take().into_iter().flat_map(|plan| plan.wanted).for_each(std::mem::forget);
    });
}

/// Forgets what was read.
pub(crate) fn forget() {
    PLAN.with_borrow_mut(|plan| plan.iter_mut().for_each(Plan::forget));
}

impl Plan {
    fn ask(&mut self, file: &Arc<File>, offset: u64, into: &mut [MaybeUninit<u8>]) -> Asked {
        let length = into.len();
        let same =
            |wanted: &&Wanted| wanted.offset == offset && wanted.length == length && Arc::ptr_eq(&wanted.file, file);
        match self.wanted.iter().find(same) {
            Some(Wanted { result: None, .. }) => {}
            Some(Wanted { result: Some(got), room, .. }) => {
                let Ok(got) = usize::try_from(*got) else { return Asked::Unplanned };
                // A read that ends early, but not at the end of the file, is done again.
                if got > length || (got < length && got.is_multiple_of(ALIGNMENT)) {
                    return Asked::Unplanned;
                }
                // SAFETY: the system has written `got` bytes there, at most the `length` that the room has, and is done with it; all were zero before that.
                into[..got].write_copy_of_slice(unsafe { std::slice::from_raw_parts(room.start.as_ptr(), got) });
                return Asked::Read(got);
            }
            None if self.wanted.len() < MOST && (self.bytes + length <= MOST_BYTES || self.bytes == 0) => {
                let kept = if length <= ROOM { self.rooms.pop() } else { None };
                let Some(room) = kept.or_else(|| Room::new(length)) else { return Asked::Unplanned };
                self.wanted.push(Wanted { file: file.clone(), offset, length, room, result: None });
                self.bytes += length;
            }
            None => {}
        }
        self.missed = true;
        Asked::Later
    }

    fn forget(&mut self) {
        self.rooms.extend(self.wanted.drain(..).map(|old| old.room).filter(|room| room.layout.size() == ROOM));
        self.bytes = 0;
    }

    /// On an error what is wanted, and the ring, must not be used again.
    fn read(&mut self) -> io::Result<()> {
        for (at, wanted) in self.wanted.iter_mut().enumerate().filter(|(_, wanted)| wanted.result.is_none()) {
            let fd = types::Fd(wanted.file.0.as_raw_fd());
            let read = opcode::Read::new(fd, wanted.room.start.as_ptr(), wanted.length as u32).offset(wanted.offset);
            // SAFETY: the file stays open, by the count held here, and the memory, of at least `length` bytes, in its place, until the loop
            // below has seen the system's answer. If that ends with an error, the caller leaves both in their place for ever.
            let pushed = unsafe { self.ring.submission().push(&read.build().user_data(at as u64)) };
            if pushed.is_err() {
                // No room: it is read by itself.
                wanted.result = Some(-1);
            }
        }
        loop {
            for done in self.ring.completion() {
                if let Some(wanted) = self.wanted.get_mut(done.user_data() as usize) {
                    wanted.result = Some(done.result());
                }
            }
            let left = self.wanted.iter().filter(|wanted| wanted.result.is_none()).count();
            if left == 0 {
                return Ok(());
            }
            match self.ring.submit_and_wait(left) {
                Ok(_) => {}
                Err(error)
                    if matches!(Errno::from_io_error(&error), Some(Errno::INTR | Errno::AGAIN | Errno::BUSY)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
