//! The form of a frame: a header of 32 bytes, the payload, zeros up to a multiple of 8.
//!
//! Both sides are here, so that the writer's form and the reader's checks cannot part: [`encode`] makes a header, [`look`] and [`check`] accept
//! exactly those.

use std::ops::Range;

use ardb_base::id::{Offset, UnixMs};

use crate::error::Fault;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 32;

/// Frames begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// The greatest offset: those of Redis are signed 64-bit numbers.
pub(crate) const MAX_OFFSET: u64 = i64::MAX as u64;

/// A frame's header, as far as it can be judged without the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Payload bytes, not 0.
    pub len: usize,
    pub crc: u32,
    /// Offset of the first payload byte.
    pub first: Offset,
    /// The database that is selected in the stream before the first payload byte.
    pub db: u32,
    /// When the frame's commands were first executed, in ms since 1970.
    pub time: UnixMs,
}

impl Header {
    /// Bytes from this frame's header to the next one's.
    pub fn stride(&self) -> usize {
        stride(self.len)
    }

    /// Offset of the next frame.
    pub fn end(&self) -> Offset {
        self.first.advance(self.len)
    }
}

/// What stands at a place where a frame may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Frame(Header),
    /// Nothing: zeros, or no room for a frame.
    End,
    Fault(Fault),
}

/// Bytes that a frame with `len` payload bytes takes. `len` is at most `u32::MAX`, so it cannot overflow.
pub(crate) fn stride(len: usize) -> usize {
    (HEADER_BYTES + len).next_multiple_of(ALIGN)
}

/// The checksum: over the epoch and all header fields but itself, then the payload. The epoch is not stored in the frame.
struct Checksum(u32);

impl Checksum {
    fn new(epoch: u64, len: u32, first: Offset, db: u32, time: UnixMs) -> Checksum {
        let mut fixed = [0u8; 32];
        fixed[0..8].copy_from_slice(&epoch.to_le_bytes());
        fixed[8..12].copy_from_slice(&len.to_le_bytes());
        fixed[12..20].copy_from_slice(&first.0.to_le_bytes());
        fixed[20..24].copy_from_slice(&db.to_le_bytes());
        fixed[24..32].copy_from_slice(&time.to_le_bytes());
        Checksum(crc32c::crc32c(&fixed))
    }

    fn update(&mut self, payload: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, payload);
    }
}

/// The header for a payload that is given in parts, whose lengths sum up to `len`.
pub(crate) fn encode(
    epoch: u64,
    first: Offset,
    db: u32,
    time: UnixMs,
    len: u32,
    payload: &[&[u8]],
) -> [u8; HEADER_BYTES] {
    let mut crc = Checksum::new(epoch, len, first, db, time);
    for part in payload {
        crc.update(part);
    }
    let mut header = [0u8; HEADER_BYTES];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[4..8].copy_from_slice(&crc.0.to_le_bytes());
    header[8..16].copy_from_slice(&first.0.to_le_bytes());
    header[16..20].copy_from_slice(&db.to_le_bytes());
    header[24..32].copy_from_slice(&time.to_le_bytes());
    header
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    // Indexing: callers pass constants with at + 4 <= 32.
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

/// Judges the header at `at` in a segment's `bytes`, where the frame that begins at offset `expected` should stand.
pub(crate) fn look(bytes: &[u8], at: usize, expected: Offset) -> Look {
    let Some(rest) = bytes.get(at..) else { return Look::End };
    let Some(raw) = rest.first_chunk::<HEADER_BYTES>() else {
        return if rest.iter().all(|&b| b == 0) { Look::End } else { Look::Fault(Fault::Length) };
    };
    if *raw == [0u8; HEADER_BYTES] {
        return Look::End;
    }
    let len = u32_at(raw, 0) as usize;
    if len == 0 || stride(len) > rest.len() {
        return Look::Fault(Fault::Length);
    }
    let first = Offset(u64_at(raw, 8));
    if first != expected || len as u64 > MAX_OFFSET - first.0.min(MAX_OFFSET) {
        return Look::Fault(Fault::Offset);
    }
    if u32_at(raw, 20) != 0 {
        return Look::Fault(Fault::Reserved);
    }
    let time = u64_at(raw, 24).cast_signed();
    Look::Frame(Header { len, crc: u32_at(raw, 4), first, db: u32_at(raw, 16), time })
}

/// Whether no frame and nothing of one stands at `at`.
pub(crate) fn is_end(bytes: &[u8], at: usize) -> bool {
    // The offset does not matter: whatever is not blank is not the end.
    look(bytes, at, Offset(0)) == Look::End
}

/// Looks for the next good frame that begins in `range`, at whose start the one of offset `expected` should stand and does not. Its offset must be one that it
/// can have if only frames lie between; so a frame that is quoted in a payload hardly passes for one. `patience` is how many bytes of frames with wrong
/// checksums are read at most; it is 0 when they are used up.
pub(crate) fn find_behind(
    bytes: &[u8],
    range: Range<usize>,
    expected: Offset,
    epoch: u64,
    patience: &mut usize,
) -> Option<(usize, Header)> {
    // At least one frame of at least one byte lies between.
    let mut place = range.start + stride(1);
    while place < range.end {
        let raw = bytes.get(place..)?.first_chunk::<HEADER_BYTES>()?;
        let first = Offset(u64_at(raw, 8));
        let between = first.0.wrapping_sub(expected.0);
        // Smallest header and no padding: the payload between is less than the room for it.
        if (1..=(place - range.start - HEADER_BYTES) as u64).contains(&between)
            && let Look::Frame(header) = look(bytes, place, first)
        {
            if check(bytes, place, &header, epoch).is_ok() {
                return Some((place, header));
            }
            *patience = patience.saturating_sub(header.stride());
            if *patience == 0 {
                return None;
            }
        }
        place += ALIGN;
    }
    None
}

/// Judges payload and padding of the frame at `at`, whose header [`look`] gave for the same bytes.
pub(crate) fn check(bytes: &[u8], at: usize, header: &Header, epoch: u64) -> Result<(), Fault> {
    let start = at + HEADER_BYTES;
    let end = start + header.len;
    let (Some(payload), Some(padding)) = (bytes.get(start..end), bytes.get(end..at + header.stride())) else {
        return Err(Fault::Length);
    };
    let mut crc = Checksum::new(epoch, header.len as u32, header.first, header.db, header.time);
    crc.update(payload);
    if crc.0 != header.crc {
        return Err(Fault::Checksum);
    }
    if padding.iter().any(|&b| b != 0) {
        return Err(Fault::Reserved);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(epoch: u64, first: u64, db: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = encode(epoch, Offset(first), db, 1_800_000_000_123, payload.len() as u32, &[payload]).to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(stride(payload.len()), 0);
        bytes
    }

    #[test]
    fn the_reader_accepts_what_the_writer_made() {
        let bytes = frame(7, 1000, 3, b"hello");
        assert_eq!(bytes.len(), 40);
        let Look::Frame(header) = look(&bytes, 0, Offset(1000)) else { panic!("no frame") };
        assert_eq!(
            (header.len, header.first, header.db, header.time, header.end()),
            (5, Offset(1000), 3, 1_800_000_000_123, Offset(1005))
        );
        assert_eq!(check(&bytes, 0, &header, 7), Ok(()));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = frame(7, 1000, 3, b"hello");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let good = match look(&changed, 0, Offset(1000)) {
                Look::Frame(header) => check(&changed, 0, &header, 7).is_ok(),
                Look::End | Look::Fault(_) => false,
            };
            assert!(!good, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_history_or_place_is_refused() {
        let bytes = frame(7, 1000, 3, b"hello");
        assert_eq!(look(&bytes, 0, Offset(1001)), Look::Fault(Fault::Offset));
        let Look::Frame(header) = look(&bytes, 0, Offset(1000)) else { panic!("no frame") };
        assert_eq!(check(&bytes, 0, &header, 8), Err(Fault::Checksum));
        assert_eq!(look(&[0; 64], 0, Offset(0)), Look::End);
        assert_eq!(look(&[0; 64], 64, Offset(0)), Look::End);
        assert_eq!(look(&bytes[..32], 0, Offset(1000)), Look::Fault(Fault::Length));
    }
}
