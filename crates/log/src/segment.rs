//! One file of the log: its name, its header, and how a frame is found in it.
//!
//! A segment's header is written, and checked, here only. Frames before `trusted_from` were written by an earlier process and not checked when the log was
//! opened, so whoever reads one of them checks it first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ardb_base::disk::Region;
use ardb_base::id::Offset;
use parking_lot::Mutex;

use crate::error::Fault;
use crate::frame::{self, Header, Look};

/// Bytes of a segment's header; frames follow.
pub(crate) const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"ARDBSEG\n";
const VERSION: u32 = 1;

/// Bytes of file between two entries of a segment's index.
const INDEX_STEP: usize = 64 << 10;

/// `previous` of a segment that begins its history.
const NO_PREVIOUS: u64 = u64::MAX;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub epoch: u64,
    /// Offset of the first frame.
    pub first: Offset,
    /// First offset of the segment before, unless this one begins the history.
    pub previous: Option<Offset>,
    /// Length of the file, so that a resized one is noticed.
    pub file_len: u64,
}

/// Why a header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// All zeros: it was never written, or that did not reach the disk.
    Blank,
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous.map_or(NO_PREVIOUS, |offset| offset.0).to_le_bytes());
        bytes[40..48].copy_from_slice(&self.file_len.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of a file with these contents.
    pub fn decode(file: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let Some(bytes) = file.first_chunk::<HEADER_BYTES>() else { return Err(BadHeader::Damaged) };
        if *bytes == [0u8; HEADER_BYTES] {
            return Err(BadHeader::Blank);
        }
        // Indexing: constants below 64.
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[..8] != MAGIC || u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadHeader::Damaged);
        }
        // The checksum stands at the same place in every version, so a wrong version is not damage.
        if u32_at(8) != VERSION {
            return Err(BadHeader::Version(u32_at(8)));
        }
        let header = SegmentHeader {
            epoch: u64_at(16),
            first: Offset(u64_at(24)),
            previous: (u64_at(32) != NO_PREVIOUS).then(|| Offset(u64_at(32))),
            file_len: u64_at(40),
        };
        let whole = header.file_len == file.len() as u64 && header.first.0 <= frame::MAX_OFFSET;
        if whole && header.encode() == *bytes { Ok(header) } else { Err(BadHeader::Damaged) }
    }
}

/// The name of a segment's file: epoch and first offset in hex, so that names sort as offsets do.
pub(crate) fn file_name(epoch: u64, first: Offset) -> String {
    format!("{epoch:016x}-{:016x}.seg", first.0)
}

/// Epoch and first offset of a segment's file name, if it is one.
pub(crate) fn parse_name(name: &str) -> Option<(u64, Offset)> {
    let (epoch, first) = name.strip_suffix(".seg")?.split_once('-')?;
    let (epoch, first) = (u64::from_str_radix(epoch, 16).ok()?, Offset(u64::from_str_radix(first, 16).ok()?));
    (file_name(epoch, first) == name).then_some((epoch, first))
}

/// A segment that is held.
#[derive(Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub epoch: u64,
    pub first: Offset,
    /// First offset of the segment before, unless this one begins the history.
    pub previous: Option<Offset>,
    pub region: Arc<Region>,
    /// Frames from this place on were checked at opening or written by this process.
    pub trusted_from: usize,
    /// The file is durable up to here.
    pub synced: AtomicUsize,
    /// Places of some frames, in order, about [`INDEX_STEP`] apart.
    index: Mutex<Vec<(Offset, usize)>>,
}

impl Segment {
    pub fn new(
        path: &Path,
        header: &SegmentHeader,
        region: Arc<Region>,
        trusted_from: usize,
        synced: usize,
    ) -> Segment {
        Segment {
            path: path.to_owned(),
            epoch: header.epoch,
            first: header.first,
            previous: header.previous,
            region,
            trusted_from,
            synced: AtomicUsize::new(synced),
            index: Mutex::new(Vec::new()),
        }
    }

    /// Remembers that the frame of `offset` stands at `at`, if the last place known is far enough.
    pub fn note(&self, offset: Offset, at: usize) {
        let mut index = self.index.lock();
        if at >= index.last().map_or(HEADER_BYTES, |(_, place)| *place) + INDEX_STEP {
            index.push((offset, at));
        }
    }

    /// Whether it is time to [`Segment::note`] the place `at`, when the last one noted was `last`.
    pub fn far_enough(last: usize, at: usize) -> bool {
        at >= last + INDEX_STEP
    }

    /// All published bytes.
    pub fn bytes(&self) -> &[u8] {
        let published = self.region.published();
        // What is published stays published, so this is always there.
        self.region.bytes(0..published).unwrap_or(&[])
    }

    /// Whether all that is published is durable.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire) >= self.region.published()
    }

    /// The frame at `at`, which should begin at offset `expected`; `None` if no frame stands there (yet). It is checked if nobody did before.
    pub fn frame_at(&self, at: usize, expected: Offset) -> Result<Option<Header>, Fault> {
        let bytes = self.bytes();
        match frame::look(bytes, at, expected) {
            Look::End => Ok(None),
            Look::Fault(fault) => Err(fault),
            Look::Frame(header) => {
                if at < self.trusted_from {
                    frame::check(bytes, at, &header, self.epoch)?;
                }
                Ok(Some(header))
            }
        }
    }

    /// Place and first offset of the frame that holds `offset`, or of the end if `offset` is the end; `Gap` if `offset` is past that.
    pub fn locate(&self, offset: Offset) -> Result<(usize, Offset), (Offset, Fault)> {
        let (mut first, mut at) = {
            let index = self.index.lock();
            let after = index.partition_point(|(known, _)| *known <= offset);
            after.checked_sub(1).and_then(|i| index.get(i)).copied().unwrap_or((self.first, HEADER_BYTES))
        };
        let mut noted = at;
        let bytes = self.bytes();
        loop {
            match frame::look(bytes, at, first) {
                Look::Frame(header) if header.end() > offset => return Ok((at, first)),
                Look::Frame(header) => {
                    first = header.end();
                    at += header.stride();
                    if Segment::far_enough(noted, at) {
                        self.note(first, at);
                        noted = at;
                    }
                }
                Look::End if first == offset => return Ok((at, first)),
                Look::End => return Err((first, Fault::Gap)),
                Look::Fault(fault) => return Err((first, fault)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_offsets_and_nothing_else_is_a_name() {
        assert_eq!(parse_name(&file_name(3, Offset(99))), Some((3, Offset(99))));
        assert!(file_name(3, Offset(99)) < file_name(3, Offset(1 << 40)));
        for name in [
            "",
            "x.seg",
            "1-2.seg",
            "0000000000000003-00000000000000FF.seg",
            "a-b-c.seg",
            "+000000000000003-0000000000000063.seg",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn every_changed_bit_of_a_header_is_noticed() {
        let header = SegmentHeader { epoch: 5, first: Offset(77), previous: None, file_len: 4096 };
        let mut file = vec![0u8; 4096];
        assert_eq!(SegmentHeader::decode(&file), Err(BadHeader::Blank));
        file[..HEADER_BYTES].copy_from_slice(&header.encode());
        assert_eq!(SegmentHeader::decode(&file), Ok(header));
        assert_eq!(SegmentHeader::decode(&file[..2048]), Err(BadHeader::Damaged), "a resized file");
        for bit in 0..HEADER_BYTES * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&file), Err(BadHeader::Damaged), "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
