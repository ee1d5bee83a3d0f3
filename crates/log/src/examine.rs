//! Looking at a log before it is opened: where it ends, and whether that is an end that a death can have left, or damage.
//!
//! Nothing is changed on disk here. What may be missing from the end follows from how the process before ended ([`Ended`]): one that closed the log has
//! lost nothing, nor has one that was merely killed, but for the one append that it was in; only where the machine failed may anything be missing that was
//! not synced, in any order. What is bad beyond that is damage: opening would throw away what was acknowledged. The cases stand in
//! `docs/log-format.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ardb_base::disk::{Disk, RegionWriter};
use ardb_base::id::Offset;

use crate::append::SPARE_NAMES;
use crate::error::{Damage, Fault, OpenError, Proof};
use crate::frame::{self, Look};
use crate::log::LogOptions;
use crate::recover::Recovery;
use crate::segment::{self, BadHeader, Segment, SegmentHeader};

/// How the process before ended, as far as the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There was none: the log is to be made.
    New,
    /// It synced the log to its end, appended nothing more, and noted that durably.
    Closed,
    /// It died, and the machine did not: all that it appended is there. An append that it was in may be unfinished.
    Killed,
    /// The machine failed, or a sync did: of what was not synced anything may be missing, in any order.
    Suspect,
    /// As `Suspect`, and perhaps while damage was being cut off; what is left of that is kept as damage is.
    Cutting,
}

/// What the caller knows of the log, from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// Names the history. Segments of other epochs are deleted ([`crate::Appender::prepare_reset`] changes it).
    pub epoch: u64,
    /// The offset from which the caller will replay; everything before it was synced. Frames behind it are checked.
    pub checkpoint: Offset,
    /// How the process before ended.
    pub ended: Ended,
}

/// Ending of the names of what damage took out of the log. Never deleted.
pub(crate) const DAMAGED: &str = ".damaged";

/// Ending of the names of segments that a death left without connection to the log. Deleted when the next ones are found.
pub(crate) const CUT_OFF: &str = ".cut";

/// Name under which a copy is written before it gets its own. Opening removes it.
pub(crate) const COPY_NAME: &str = "copy.tmp";

/// A segment that was found, with a good header.
pub(crate) struct Found {
    pub path: PathBuf,
    pub header: SegmentHeader,
    pub writer: RegionWriter,
}

/// A file with a segment's name and no good header.
pub(crate) struct Lost {
    pub path: PathBuf,
    /// First offset, by its name.
    pub first: Offset,
    pub header: LostHeader,
    /// Not of an empty file.
    pub writer: Option<RegionWriter>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostHeader {
    /// The file was made, and its length or its header did not reach the disk: or they are zeros now.
    Blank,
    Damaged,
}

/// What reading the frames of one segment gave.
pub(crate) struct Walk {
    /// Place and offset of its end.
    pub at: usize,
    pub end: Offset,
    /// Frames from here on are checked.
    pub trusted_from: usize,
    pub fault: Option<Fault>,
    pub index: Vec<(Offset, usize)>,
}

/// Good frames behind a place where there is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rest {
    pub frames: u64,
    /// Their payload.
    pub bytes: u64,
}

/// A log that was looked at, and not yet opened.
pub struct Examined {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) past: Past,
    pub(crate) options: LogOptions,
    /// Files that hold nothing of this history: of other histories, and temporary ones.
    pub(crate) leftovers: Vec<PathBuf>,
    /// Segments that were let go before; the disk had not made their removal durable.
    pub(crate) let_go: Vec<Found>,
    /// Segments before the one that holds the checkpoint.
    pub(crate) before: Vec<Found>,
    /// From the one that holds the checkpoint to the end. Empty if none holds it.
    pub(crate) walked: Vec<(Found, Walk)>,
    /// Segments without connection, in order.
    pub(crate) behind: Vec<Found>,
    /// Empty segments that begin before the end: made by appends that failed all the same, and the log went on without them.
    pub(crate) in_vain: Vec<Found>,
    pub(crate) lost: Vec<Lost>,
    pub(crate) end: Offset,
    pub(crate) fault: Option<Fault>,
    /// The last segment holds bytes that are not zero up to here.
    pub(crate) used: usize,
    pub(crate) rest: Rest,
    /// Files that were set aside before, by their endings.
    pub(crate) old_damaged: Vec<String>,
    pub(crate) old_cut: Vec<PathBuf>,
    pub(crate) damage: Option<Damage>,
    pub(crate) recovery: Recovery,
}

impl std::fmt::Debug for Examined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examined").field("end", &self.end).field("damage", &self.damage).finish_non_exhaustive()
    }
}

impl Examined {
    /// Looks at the log in `dir`, which is made if there is none. Nobody else may use the directory.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, past: Past, options: LogOptions) -> Result<Examined, OpenError> {
        disk.create_dir_all(dir)?;
        let mut examined = Examined {
            disk,
            dir: dir.to_owned(),
            past,
            options,
            leftovers: Vec::new(),
            let_go: Vec::new(),
            before: Vec::new(),
            walked: Vec::new(),
            behind: Vec::new(),
            in_vain: Vec::new(),
            lost: Vec::new(),
            end: past.checkpoint,
            fault: None,
            used: 0,
            rest: Rest::default(),
            old_damaged: Vec::new(),
            old_cut: Vec::new(),
            damage: None,
            recovery: Recovery::default(),
        };
        let found = examined.find()?;
        examined.connect(found);
        examined.damage = examined.judge();
        Ok(examined)
    }

    /// What is wrong with the log, if it is more than the end of the process before can explain. [`Examined::open`] cuts the log there.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Where the log ends, or will when it is opened: less than the checkpoint if it has lost what the caller has.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Takes stock of the directory.
    fn find(&mut self) -> Result<Vec<Found>, OpenError> {
        let mut found = Vec::new();
        // Names sort as offsets do, and the listing is sorted.
        for entry in self.disk.list(&self.dir)? {
            let path = self.dir.join(&entry.name);
            let Some((epoch, first)) = segment::parse_name(&entry.name) else {
                if entry.name == COPY_NAME || SPARE_NAMES.contains(&entry.name.as_str()) {
                    self.leftovers.push(path);
                } else if entry.name.ends_with(CUT_OFF) {
                    self.old_cut.push(path);
                } else if entry.name.ends_with(DAMAGED) {
                    self.old_damaged.push(entry.name);
                }
                continue;
            };
            if epoch != self.past.epoch {
                self.leftovers.push(path);
                continue;
            }
            if entry.len == 0 {
                self.lost.push(Lost { path, first, header: LostHeader::Blank, writer: None });
                continue;
            }
            let writer = self.disk.open_region(&path)?;
            let header = match SegmentHeader::decode(writer.contents()) {
                Ok(header) if header.epoch == epoch && header.first == first => {
                    found.push(Found { path, header, writer });
                    continue;
                }
                Err(BadHeader::Version(version)) => return Err(OpenError::Version { path, version }),
                Err(BadHeader::Blank) => LostHeader::Blank,
                Ok(_) | Err(BadHeader::Damaged) => LostHeader::Damaged,
            };
            self.lost.push(Lost { path, first, header, writer: Some(writer) });
        }
        Ok(found)
    }

    /// Finds the segment that holds the checkpoint, those before it that chain up to it, and those after it that are part of the log.
    fn connect(&mut self, mut found: Vec<Found>) {
        let checkpoint = self.past.checkpoint;
        let Some(anchor) = found.partition_point(|segment| segment.header.first <= checkpoint).checked_sub(1) else {
            // Where no segment holds the checkpoint, those that are there have no connection to it: none is part of the log.
            self.behind = found;
            return;
        };
        let rest = found.split_off(anchor);
        let mut next = rest.first().map(|segment| segment.header.previous);
        let chained = found.iter().rev().take_while(|segment| {
            let linked = next == Some(Some(segment.header.first));
            next = Some(segment.header.previous);
            linked
        });
        let chained = chained.count();
        self.before = found.split_off(found.len() - chained);
        self.let_go = found;

        for segment in rest {
            if let Some((last, walk)) = self.walked.last() {
                if segment.header.first < walk.end && frame::is_end(segment.writer.contents(), segment::HEADER_BYTES) {
                    self.in_vain.push(segment);
                    continue;
                }
                // Bytes behind the last frame of a segment do not matter if the next one says that it begins there.
                let connected = self.behind.is_empty()
                    && walk.end == segment.header.first
                    && segment.header.previous == Some(last.header.first);
                if !connected {
                    self.behind.push(segment);
                    continue;
                }
            }
            let walk = walk(&segment, checkpoint, &mut self.recovery);
            segment.writer.region().release(0..segment.writer.contents().len());
            self.walked.push((segment, walk));
        }
        if let Some((last, walk)) = self.walked.last() {
            self.end = walk.end;
            self.fault = walk.fault;
            self.used = last_used(last.writer.contents(), walk.at);
            if self.used > walk.at {
                self.fault.get_or_insert(Fault::Unfinished);
            }
        }
    }

    /// Whether files without a good header are missing from the end, unlike those that are so old that nothing needs them.
    fn lost_behind(&self) -> impl Iterator<Item = &Lost> {
        let from = if self.walked.is_empty() { Offset(0) } else { self.end };
        self.lost.iter().filter(move |lost| lost.first >= from)
    }

    /// Segments and files without connection that are behind the end.
    pub(crate) fn taken_out(&self) -> usize {
        self.behind.len() + self.lost_behind().count()
    }

    /// Tells damage from an end that a death can have left, and counts the good frames behind it.
    fn judge(&mut self) -> Option<Damage> {
        let Past { checkpoint, ended, epoch } = self.past;
        let missing = self.taken_out() > 0;
        // The log's first segment was empty, and a larger one was on its way into its place.
        let replaced = self.lost.iter().any(|lost| lost.first == checkpoint);
        let mut sure = true;
        let mut rest = Rest::default();
        if let Some((last, walk)) = self.walked.last().filter(|_| self.fault.is_some()) {
            sure = count(last.writer.contents(), walk.at, walk.end, epoch, &mut rest);
            last.writer.region().release(0..last.writer.contents().len());
        }
        let behind = self.behind.iter().map(|segment| (&segment.writer, segment.header.first));
        let lost = self.lost_behind().filter_map(|lost| Some((lost.writer.as_ref()?, lost.first)));
        for (writer, first) in behind.chain(lost) {
            sure &= count(writer.contents(), segment::HEADER_BYTES, first, epoch, &mut rest);
            writer.region().release(0..writer.contents().len());
        }
        self.rest = rest;
        let bad = missing || self.fault.is_some();
        let suspect = matches!(ended, Ended::Suspect | Ended::Cutting);
        let proof = if ended == Ended::New {
            return None;
        } else if self.end < checkpoint || (self.walked.is_empty() && !(suspect && replaced)) {
            Proof::Checkpoint(checkpoint)
        } else if suspect || !bad {
            return None;
        } else if ended == Ended::Closed {
            Proof::Closed
        } else if missing || rest.frames > 0 || !sure {
            Proof::Killed
        } else {
            // Bad bytes alone, with nothing good behind them: the append that the process died in.
            return None;
        };
        Some(self.describe(proof))
    }

    fn describe(&self, proof: Proof) -> Damage {
        // A segment that is to go on where the log ends, or to hold the checkpoint, and has no good header.
        let headless = self.lost.iter().rev().find(|lost| match self.walked.is_empty() {
            true => lost.first <= self.past.checkpoint,
            false => lost.first == self.end,
        });
        let (path, at, fault) = match (self.walked.last(), headless) {
            (Some((last, walk)), _) if self.fault.is_some() => (&last.path, walk.at, self.fault),
            (_, Some(lost)) => (&lost.path, 0, Some(Fault::Header)),
            (Some((last, walk)), None) => (&last.path, walk.at, None),
            (None, None) => (&self.dir, 0, None),
        };
        Damage {
            path: path.clone(),
            at: at as u64,
            offset: self.walked.first().map_or_else(|| self.behind_checkpoint(), |_| self.end),
            fault: fault.unwrap_or(Fault::Gap),
            bytes: self.walked.last().map_or(0, |(_, walk)| (self.used - walk.at) as u64),
            segments: self.taken_out(),
            frames: self.rest.frames,
            payload: self.rest.bytes,
            proof,
        }
    }

    /// The offset to name where no segment holds the checkpoint: that of the file that should, or the checkpoint.
    fn behind_checkpoint(&self) -> Offset {
        let checkpoint = self.past.checkpoint;
        self.lost.iter().rev().map(|lost| lost.first).find(|first| *first <= checkpoint).unwrap_or(checkpoint)
    }
}

/// Goes through the frames of one segment, and checks those that reach past the checkpoint.
fn walk(segment: &Found, checkpoint: Offset, recovery: &mut Recovery) -> Walk {
    let bytes = segment.writer.contents();
    let mut trusted_from = None;
    let mut index = Vec::new();
    let (mut at, mut end) = (segment::HEADER_BYTES, segment.header.first);
    let mut noted = at;
    let fault = loop {
        let header = match frame::look(bytes, at, end) {
            Look::End => break None,
            Look::Fault(fault) => break Some(fault),
            Look::Frame(header) => header,
        };
        if header.end() > checkpoint {
            trusted_from.get_or_insert(at);
            if let Err(fault) = frame::check(bytes, at, &header, segment.header.epoch) {
                break Some(fault);
            }
            recovery.frames += 1;
            recovery.bytes += header.len as u64;
        }
        at += header.stride();
        end = header.end();
        if Segment::far_enough(noted, at) {
            index.push((end, at));
            noted = at;
        }
    };
    Walk { at, end, trusted_from: trusted_from.unwrap_or(at), fault, index }
}

/// The place behind the last byte from `from` on that is not zero; `from` if there is none.
fn last_used(bytes: &[u8], from: usize) -> usize {
    const BLOCK: usize = 4096;
    let rest = bytes.get(from..).unwrap_or_default();
    let used = rest.chunks(BLOCK).enumerate().rev().find(|(_, block)| **block != [0; BLOCK][..block.len()]);
    used.map_or(from, |(i, block)| {
        // Zero is a byte of it that is not zero, so there is one.
        from + i * BLOCK + block.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)
    })
}

/// Counts the good frames from `at` on, where the frame of offset `expected` should stand, over bad places as well. False if it gave up: the bytes are
/// made so that looking at all that may be a frame would take too long.
fn count(bytes: &[u8], mut at: usize, mut expected: Offset, epoch: u64, rest: &mut Rest) -> bool {
    // Bytes of frames with wrong checksums that are read, at most. Of honest bytes hardly any place looks like a header.
    let mut patience = bytes.len().saturating_mul(16);
    let used = last_used(bytes, at);
    loop {
        let header = match frame::look(bytes, at, expected) {
            Look::Frame(header) if frame::check(bytes, at, &header, epoch).is_ok() => header,
            _ => {
                let Some((place, header)) = frame::find_behind(bytes, at..used, expected, epoch, &mut patience) else {
                    return patience > 0;
                };
                at = place;
                header
            }
        };
        rest.frames += 1;
        rest.bytes += header.len as u64;
        at += header.stride();
        expected = header.end();
    }
}
