//! Random lives of a log, each ended by a death of the process or of the machine, against a model.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use ardb_base::disk::SimDisk;
use ardb_base::random::Random;
use ardb_log::{Appender, Ended, Fault, Log, LogOptions, Offset, OpenError, Opened, Past};

use crate::dir;

/// What must be true of the log.
struct Model {
    /// Whether the log was ever opened.
    made: bool,
    /// The state file: what it names is durable at once here, since it is not this crate's.
    epoch: u64,
    checkpoint: u64,
    /// Frames of the present history from its beginning: first offset, db, payload.
    frames: Vec<(u64, u32, Vec<u8>)>,
    start: u64,
    /// Everything below was reported durable.
    durable: u64,
    /// Everything from here on must be held.
    keep: u64,
}

impl Model {
    fn new(epoch: u64, start: u64) -> Model {
        Model { made: false, epoch, checkpoint: start, frames: Vec::new(), start, durable: start, keep: start }
    }

    /// A new history of a log that was opened.
    fn reset(epoch: u64, start: u64) -> Model {
        Model { made: true, ..Model::new(epoch, start) }
    }

    fn open(&self, disk: &SimDisk, ended: Ended, options: LogOptions) -> Result<Opened, OpenError> {
        let ended = if self.made { ended } else { Ended::New };
        let past = Past { epoch: self.epoch, checkpoint: Offset(self.checkpoint), ended };
        Log::open(Arc::new(disk.clone()), dir(), past, options)
    }

    fn end(&self) -> u64 {
        self.frames.last().map_or(self.start, |(first, _, payload)| first + payload.len() as u64)
    }

    fn bytes(&self, from: u64) -> Vec<u8> {
        let all = self.frames.iter().flat_map(|(_, _, payload)| payload.iter().copied());
        all.skip((from - self.start) as usize).collect()
    }

    /// Compares an opened log with the model, which first forgets what a power loss may have taken.
    fn check_opened(&mut self, opened: &Opened, power_lost: bool) {
        let (log, recovery) = (&opened.log, &opened.recovery);
        self.made = true;
        let end = log.end().0;
        assert_eq!((recovery.start, recovery.end), (log.start(), log.end()));
        assert!(end <= self.end(), "the log ends at {end}, past what was appended, {}", self.end());
        assert!(end >= self.durable, "lost: the log ends at {end}, but {} was durable", self.durable);
        if !power_lost {
            assert_eq!(end, self.end(), "a process that died lost something");
            let lossless = recovery.cut.as_ref().is_none_or(|cut| cut.fault == Fault::Unfinished && cut.segments == 0);
            assert!(lossless, "{recovery:?}");
        }
        self.frames.retain(|(first, _, _)| *first < end);
        assert_eq!(self.end(), end, "the log ends inside a frame");
        assert!(log.start().0 <= self.keep, "the log begins at {}, but {} was to be kept", log.start(), self.keep);
        assert!(log.start().0 >= self.start);
        self.check_readable(log);
        let from = self.checkpoint;
        let mut frames = log.frames_from(Offset(from)).expect("the checkpoint is held");
        for (first, db, payload) in self.frames.iter().filter(|(first, _, p)| first + p.len() as u64 > from) {
            let frame = frames.next_frame().expect("no damage").expect("a frame");
            assert_eq!((frame.first.0, frame.db, &*frame.payload), (*first, *db, &payload[..]));
        }
        assert!(frames.next_frame().expect("no damage").is_none());
    }

    fn check_readable(&self, log: &Log) {
        let start = log.start();
        assert_eq!(crate::read_all(log, start), self.bytes(start.0), "read from {start}");
    }
}

fn append(model: &mut Model, appender: &mut Appender, random: &mut Random) {
    let len = match random.below(20) {
        0 => 3000 + random.below(6000),
        1..=4 => 1 + random.below(1200),
        _ => 1 + random.below(60),
    };
    let mut payload = vec![0u8; len as usize];
    // Zeros are what an unwritten disk holds, so some payloads look like it.
    if !random.one_in(8) {
        random.fill(&mut payload);
    }
    let db = random.below(16) as u32;
    let before = appender.end();
    let cut = random.below(len + 1) as usize;
    match appender.append(db, 0, &[&payload[..cut], &payload[cut..]]) {
        Ok(end) => {
            assert_eq!(end, before.advance(payload.len()));
            model.frames.push((before.0, db, payload));
        }
        Err(_) => assert_eq!((appender.end(), appender.log().end()), (before, before)),
    }
}

/// Begins a new history, and stops before the end of that at random. Gives whether the process goes on.
fn reset(disk: &SimDisk, model: &mut Model, appender: &mut Appender, random: &mut Random) -> bool {
    // The offset may lie anywhere, also where the old history has frames.
    let (epoch, start) = (model.epoch + 1, random.below(20_000));
    let Ok(prepared) = appender.prepare_reset(epoch, Offset(start)) else { return true };
    match random.below(4) {
        0 => {
            // Dies before the state is written. A dead process does not tidy up, so the removal fails.
            disk.fail_after(Some(0));
            drop(prepared);
            false
        }
        1 => {
            // Dies right after the state is written.
            *model = Model::reset(epoch, start);
            disk.fail_after(Some(0));
            drop(prepared);
            false
        }
        _ => {
            *model = Model::reset(epoch, start);
            appender.finish_reset(prepared);
            true
        }
    }
}

/// One life: opens, does things, dies. No death makes a log that is taken for damaged.
fn live(disk: &SimDisk, model: &mut Model, random: &mut Random, options: LogOptions) {
    let open = |model: &Model| model.open(disk, Ended::Killed, options);
    // Opening may be cut short as well.
    if random.one_in(4) {
        disk.fail_after(Some(random.below(12)));
        match open(model) {
            // It died right then. What it read or wrote before does not matter.
            Err(_) => return,
            Ok(opened) => drop(opened),
        }
        disk.fail_after(None);
    }
    let Opened { log, mut appender, recovery } = {
        let opened = open(model).expect("opening a log without failures");
        model.check_opened(&opened, false);
        opened
    };
    drop(recovery);
    if random.one_in(3) {
        disk.fail_after(Some(random.below(60)));
    }
    let mut pin = None;
    for _ in 0..random.below(80) {
        match random.below(40) {
            0..=27 => append(model, &mut appender, random),
            28..=31 => {
                let to = model.start + random.below(model.end() - model.start + 1);
                if log.sync_to(Offset(to)).is_ok() {
                    model.durable = model.durable.max(to);
                    assert!(log.synced().0 >= to);
                }
            }
            32..=34 => {
                if log.sync_to(log.end()).is_ok() {
                    model.durable = model.end();
                    if random.one_in(2) {
                        model.checkpoint = model.end();
                    }
                }
            }
            35..=36 => {
                let keep = model.keep + random.below(model.checkpoint.saturating_sub(model.keep) + 1);
                model.keep = model.keep.max(keep);
                let pinned = pin.as_ref().map_or(keep, |pin: &ardb_log::Pin| pin.offset().0);
                assert!(log.truncate_front(Offset(keep)).0 <= keep.min(pinned));
            }
            37 => pin = log.pin(Offset(model.checkpoint)).ok(),
            38 => disk.set_capacity(random.one_in(2).then(|| 8192 + random.below(60_000))),
            _ => {
                if !reset(disk, model, &mut appender, random) {
                    // The rest of this life never happened.
                    return;
                }
                // Its offset belongs to the old history.
                pin = None;
            }
        }
    }
    model.check_readable(&log);
}

fn round(seed: u64) {
    let mut random = Random::new(seed);
    let disk = SimDisk::new();
    let mut model = Model::new(1, random.below(1 << 20));
    let options = LogOptions { segment_bytes: 4096 << random.below(3), ahead: random.one_in(16) };
    let open = |model: &Model| model.open(&disk, Ended::Suspect, options);
    for _ in 0..2 + random.below(5) {
        live(&disk, &mut model, &mut random, options);
        disk.set_capacity(None);
        if random.one_in(3) {
            disk.kill();
            continue;
        }
        disk.power_loss(&mut random);
        // At times power is lost again while the log is being opened.
        if random.one_in(3) {
            disk.fail_after(Some(random.below(12)));
            drop(open(&model));
            disk.power_loss(&mut random);
        }
        let opened = open(&model).expect("opening a log without failures");
        model.check_opened(&opened, true);
    }
}

#[test]
fn after_any_death_the_log_is_a_prefix_that_holds_all_that_was_durable() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("ARDB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ARDB_ROUNDS").unwrap_or(4000),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| round(seed))) {
            eprintln!("failed with ARDB_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
