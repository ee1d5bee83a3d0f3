//! Reading: payload bytes for replicas, whole frames for recovery.
//!
//! A reader holds its segment, so what it reads stays mapped even when the segment's file is deleted. It takes a lock only to go from one segment
//! to the next.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use ardb_base::id::{Offset, UnixMs};

use crate::error::{Fault, ReadError};
use crate::frame::{self, Header};
use crate::log::Shared;
use crate::segment::{self, Segment};

/// Bytes of the log, which stay where they are as long as this lives.
#[derive(Clone)]
pub struct Slice {
    segment: Arc<Segment>,
    range: Range<usize>,
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // The range lay below the published length when the slice was made, and that never shrinks.
        self.segment.region.bytes(self.range.clone()).expect("published bytes stay published")
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("segment", &self.segment.path).field("range", &self.range).finish()
    }
}

/// A place between two frames.
#[derive(Debug)]
struct Cursor {
    shared: Arc<Shared>,
    epoch: u64,
    segment: Arc<Segment>,
    /// Place of the next frame.
    at: usize,
    /// Offset of the next frame.
    next: Offset,
    /// The memory of the segment was let go up to here.
    released: usize,
}

/// How much a reader leaves behind, in bytes, before it lets the memory go.
const RELEASE_BYTES: usize = 4 << 20;

impl Cursor {
    /// Before the frame that holds `offset`.
    fn new(shared: Arc<Shared>, offset: Offset) -> Result<Cursor, ReadError> {
        let (segment, epoch) = shared.segment_of(offset)?;
        match segment.locate(offset) {
            Ok((at, next)) => Ok(Cursor { shared, epoch, segment, at, next, released: 0 }),
            Err((at, fault)) => Err(ReadError::Damaged { at, fault }),
        }
    }

    /// The next frame with its place, and moves past it; `None` at the end.
    fn next_frame(&mut self) -> Result<Option<(Header, usize)>, ReadError> {
        if self.shared.epoch() != self.epoch {
            return Err(ReadError::Replaced);
        }
        loop {
            if let Some(header) = self.frame_here()? {
                let at = self.at;
                if at >= self.released + RELEASE_BYTES {
                    // What is handed out stays readable; it is only brought in again.
                    self.segment.region.release(self.released..at);
                    self.released = at;
                }
                self.at += header.stride();
                self.next = header.end();
                return Ok(Some((header, at)));
            }
            let Some(following) = self.shared.segment_after(&self.segment) else { return Ok(None) };
            // A frame may have come between the look and the rotation; now that there is a following segment, this one is final.
            if self.frame_here()?.is_some() {
                continue;
            }
            if following.epoch != self.epoch {
                return Err(ReadError::Replaced);
            }
            if following.first != self.next {
                // Either the next segment is gone, because this reader was slower than the deletion, or the file is damaged.
                let start = self.shared.start();
                return Err(if self.next < start {
                    self.shared.out_of_range(self.next)
                } else {
                    ReadError::Damaged { at: self.next, fault: Fault::Gap }
                });
            }
            self.segment.region.release(self.released..self.at);
            self.segment = following;
            self.released = 0;
            self.at = segment::HEADER_BYTES;
        }
    }

    fn frame_here(&self) -> Result<Option<Header>, ReadError> {
        self.segment.frame_at(self.at, self.next).map_err(|fault| ReadError::Damaged { at: self.next, fault })
    }

    fn payload(&self, header: &Header, at: usize) -> Range<usize> {
        let start = at + frame::HEADER_BYTES;
        start..start + header.len
    }
}

/// Hands out the payload bytes of the log in order, from any offset on.
#[derive(Debug)]
pub struct Reader {
    cursor: Cursor,
    /// What is left of the frame before the cursor.
    rest: Range<usize>,
    /// Offset of the next byte to hand out.
    offset: Offset,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, offset: Offset) -> Result<Reader, ReadError> {
        let cursor = Cursor::new(shared, offset)?;
        let mut reader = Reader { cursor, rest: 0..0, offset };
        let skip = offset.since(reader.cursor.next) as usize;
        if skip > 0 {
            // `locate` found the frame that holds the offset.
            reader.enter_frame()?;
            reader.rest.start += skip;
        }
        Ok(reader)
    }

    /// Offset of the next byte that will be handed out.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    fn enter_frame(&mut self) -> Result<bool, ReadError> {
        let Some((header, at)) = self.cursor.next_frame()? else { return Ok(false) };
        self.rest = self.cursor.payload(&header, at);
        Ok(true)
    }

    /// The next bytes, at most `max` of them and not past the end of their frame; `None` if the reader is at the end of the log, or `max` is 0.
    pub fn next_slice(&mut self, max: usize) -> Result<Option<Slice>, ReadError> {
        if max == 0 {
            return Ok(None);
        }
        if self.rest.is_empty() {
            if !self.enter_frame()? {
                return Ok(None);
            }
        } else if self.cursor.shared.epoch() != self.cursor.epoch {
            return Err(ReadError::Replaced);
        }
        let len = self.rest.len().min(max);
        let range = self.rest.start..self.rest.start + len;
        self.rest.start += len;
        self.offset = self.offset.advance(len);
        Ok(Some(Slice { segment: self.cursor.segment.clone(), range }))
    }

    /// Appends the next bytes to `buffer`, at most `max` of them, from as many frames as it takes; cheaper than slices where frames are small.
    /// Gives how many there were. An error comes only if there was none before it.
    pub fn read_into(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<usize, ReadError> {
        let mut done = 0;
        while done < max {
            if self.rest.is_empty() {
                match self.enter_frame() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) if done > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            let len = self.rest.len().min(max - done);
            let range = self.rest.start..self.rest.start + len;
            // The range is inside a frame that was published.
            buffer.extend_from_slice(self.cursor.segment.region.bytes(range).expect("published bytes stay published"));
            self.rest.start += len;
            self.offset = self.offset.advance(len);
            done += len;
        }
        Ok(done)
    }
}

/// One commit.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Offset of the first payload byte.
    pub first: Offset,
    /// The database that is selected in the stream before the first payload byte.
    pub db: u32,
    /// When its commands were first executed, in ms since 1970.
    pub time: UnixMs,
    /// The bytes of the stream.
    pub payload: Slice,
}

impl Frame {
    /// Offset of the byte after the payload.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first.advance(self.payload.range.len())
    }
}

/// Hands out whole frames in order.
#[derive(Debug)]
pub struct Frames {
    cursor: Cursor,
}

impl Frames {
    pub(crate) fn new(shared: Arc<Shared>, offset: Offset) -> Result<Frames, ReadError> {
        Ok(Frames { cursor: Cursor::new(shared, offset)? })
    }

    /// First offset of the next frame.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.cursor.next
    }

    /// The next frame; `None` at the end of the log (there may be one later).
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some((header, at)) = self.cursor.next_frame()? else { return Ok(None) };
        let range = self.cursor.payload(&header, at);
        let payload = Slice { segment: self.cursor.segment.clone(), range };
        Ok(Some(Frame { first: header.first, db: header.db, time: header.time, payload }))
    }
}
