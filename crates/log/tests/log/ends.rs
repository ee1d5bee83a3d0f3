//! Ends that a death leaves, and damage: each case of the table in `docs/log-format.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ardb_base::disk::{Disk, SimDisk};
use ardb_log::{Damage, Ended, Examined, Fault, Offset, Past, Proof};

use crate::{dir, examine, open, read_all, small};

/// Where a frame stands.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    at: usize,
    first: u64,
    /// Payload bytes.
    len: usize,
}

/// A log of several segments that was synced, on the disk of a dead process.
struct Made {
    disk: SimDisk,
    all: Vec<u8>,
    frames: Vec<Place>,
    segments: Vec<PathBuf>,
}

const DEAD: [Ended; 3] = [Ended::Closed, Ended::Killed, Ended::Suspect];

impl Made {
    fn new() -> Made {
        let disk = SimDisk::new();
        let mut opened = open(&disk, 1, 0).unwrap();
        let (mut all, mut frames, mut segments) = (Vec::new(), Vec::new(), Vec::<PathBuf>::new());
        let mut at = 64;
        for i in 0..21u8 {
            let payload = vec![b'a' + i; 450 + usize::from(i)];
            let first = opened.appender.append(0, 7, &[&payload]).unwrap().0 - payload.len() as u64;
            let names = names(&disk);
            if names.len() > segments.len() {
                at = 64;
                segments = names;
            }
            frames.push(Place { path: segments.last().unwrap().clone(), at, first, len: payload.len() });
            at += (32 + payload.len()).next_multiple_of(8);
            all.extend_from_slice(&payload);
        }
        assert_eq!(segments.len(), 3);
        opened.log.sync_to(opened.log.end()).unwrap();
        drop(opened);
        disk.kill();
        Made { disk, all, frames, segments }
    }

    fn end(&self) -> u64 {
        self.all.len() as u64
    }

    /// The frames of a segment.
    fn of(&self, segment: usize) -> Vec<Place> {
        self.frames.iter().filter(|frame| frame.path == self.segments[segment]).cloned().collect()
    }

    fn last(&self) -> &Place {
        self.frames.last().unwrap()
    }

    /// Writes over a part of a file, as a medium does.
    fn write(&self, path: &Path, at: usize, bytes: &[u8]) {
        let mut file = self.disk.read(path).unwrap();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        self.disk.write_file(path, &file).unwrap();
    }

    fn flip_payload(&self, frame: &Place) {
        self.disk.corrupt(&frame.path, frame.at + 32, 0x20).unwrap();
    }

    fn flip_header(&self, frame: &Place) {
        self.disk.corrupt(&frame.path, frame.at + 8, 0x20).unwrap();
    }

    fn damage(&self, checkpoint: u64, ended: Ended) -> Option<Damage> {
        examine(&self.disk, checkpoint, ended).damage().cloned()
    }

    /// Opens it all the same, and gives how far it goes.
    fn cut(&self, checkpoint: u64, ended: Ended) -> u64 {
        let opened = examine(&self.disk, checkpoint, ended).open().unwrap();
        let end = opened.log.end();
        if end.0 >= checkpoint {
            assert_eq!(read_all(&opened.log, Offset(0)), self.all[..end.0 as usize]);
        }
        drop(opened);
        let again = open(&self.disk, 1, checkpoint.min(end.0)).unwrap();
        assert_eq!((again.log.end(), &again.recovery.cut), (end, &None), "what was cut off is gone for good");
        end.0
    }
}

fn names(disk: &SimDisk) -> Vec<PathBuf> {
    all_names(disk).into_iter().filter(|name| name.ends_with(".seg")).map(|name| dir().join(name)).collect()
}

fn all_names(disk: &SimDisk) -> Vec<String> {
    disk.list(dir()).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn an_append_that_was_under_way_is_no_damage_after_a_kill() {
    // Part of the payload behind a blank header; a header of which a part is missing; one whose payload is not whole.
    for (skip, bytes) in [(32, vec![b'x'; 300]), (0, vec![9, 0, 0, 0, 1, 2, 3, 4]), (0, vec![7; 200])] {
        for ended in DEAD {
            let made = Made::new();
            let last = made.last();
            made.write(&last.path, last.at + (32 + last.len).next_multiple_of(8) + skip, &bytes);
            let damage = made.damage(0, ended);
            assert_eq!(damage.as_ref().map(|damage| damage.proof), (ended == Ended::Closed).then_some(Proof::Closed));
            let opened = examine(&made.disk, 0, ended).open().unwrap();
            let cut = opened.recovery.cut.expect("it is zeroed");
            assert_eq!((cut.at.0, cut.frames, cut.segments), (made.end(), 0, 0));
            assert_eq!(cut.bytes, (skip + bytes.len()) as u64);
            assert_eq!(cut.fault == Fault::Unfinished, skip > 0);
            assert_eq!(opened.recovery.kept.is_some(), ended == Ended::Closed);
        }
    }
}

#[test]
fn after_a_loss_of_power_good_frames_may_follow_a_torn_one() {
    let made = Made::new();
    let torn = &made.of(2)[1];
    made.flip_payload(torn);
    assert_eq!(made.damage(torn.first, Ended::Suspect), None);
    let behind = made.of(2).len() as u64 - 2;
    let damage = made.damage(torn.first, Ended::Killed).expect("what a killed process appended is whole");
    assert_eq!((damage.proof, damage.fault, damage.frames), (Proof::Killed, Fault::Checksum, behind));
    let opened = examine(&made.disk, 0, Ended::Suspect).open().unwrap();
    let cut = opened.recovery.cut.as_ref().expect("it is cut");
    assert_eq!((cut.at.0, cut.frames, cut.segments), (torn.first, behind, 0));
    assert!(opened.recovery.set_aside.is_empty() && opened.recovery.kept.is_none());
    drop(opened);

    // A page of a segment before is missing, and whole segments follow.
    let made = Made::new();
    let torn = &made.of(0)[2];
    made.write(&torn.path, torn.at, &[0; 700]);
    assert_eq!(made.damage(0, Ended::Suspect), None);
    let damage = made.damage(0, Ended::Killed).expect("damage");
    assert_eq!((damage.fault, damage.segments), (Fault::Unfinished, 2));
    assert_eq!(damage.frames, made.frames.len() as u64 - 4);
    let opened = examine(&made.disk, 0, Ended::Suspect).open().unwrap();
    assert_eq!(opened.recovery.cut.as_ref().map(|cut| (cut.at.0, cut.segments)), Some((torn.first, 2)));
    assert!(opened.recovery.set_aside.iter().all(|path| path.to_string_lossy().ends_with(".cut")));
}

#[test]
fn a_flipped_byte_in_the_middle_is_named_and_what_follows_is_kept() {
    for ended in [Ended::Closed, Ended::Killed] {
        let made = Made::new();
        let bad = &made.of(1)[3];
        made.flip_payload(bad);
        let files: Vec<Vec<u8>> = made.segments.iter().map(|path| made.disk.read(path).unwrap()).collect();
        let before = all_names(&made.disk);
        let damage = made.damage(0, ended).expect("damage");
        let proof = if ended == Ended::Closed { Proof::Closed } else { Proof::Killed };
        let good: Vec<&Place> = made.frames.iter().filter(|frame| frame.first > bad.first).collect();
        assert_eq!(
            damage,
            Damage {
                path: bad.path.clone(),
                at: bad.at as u64,
                offset: Offset(bad.first),
                fault: Fault::Checksum,
                bytes: files[1].iter().rposition(|&b| b != 0).unwrap() as u64 + 1 - bad.at as u64,
                segments: 1,
                frames: good.len() as u64,
                payload: good.iter().map(|frame| frame.len as u64).sum(),
                proof,
            }
        );
        // Looking changes nothing, and the ordinary opening refuses.
        assert!(open(&made.disk, 1, 0).is_err());
        assert_eq!(all_names(&made.disk), before);
        assert_eq!(made.segments.iter().map(|path| made.disk.read(path).unwrap()).collect::<Vec<_>>(), files);

        assert_eq!(made.cut(0, ended), bad.first);
        let name = |path: &PathBuf, ending: &str| path.file_name().unwrap().to_string_lossy().into_owned() + ending;
        let tail = name(&bad.path, &format!(".{}.tail.damaged", bad.at));
        let whole = name(&made.segments[2], ".damaged");
        assert_eq!(
            all_names(&made.disk),
            [name(&made.segments[0], ""), name(&bad.path, ""), tail.clone(), whole.clone()]
        );
        assert_eq!(made.disk.read(&dir().join(&tail)).unwrap(), files[1][bad.at..][..damage.bytes as usize]);
        assert_eq!(made.disk.read(&dir().join(&whole)).unwrap(), files[2]);

        // It goes on there, is damaged again, and nothing that was kept is touched.
        let mut opened = open(&made.disk, 1, 0).unwrap();
        for byte in b'A'..=b'Z' {
            opened.appender.append(0, 7, &[&[byte; 460]]).unwrap();
        }
        drop(opened);
        made.flip_payload(bad);
        assert!(examine(&made.disk, 0, ended).open().unwrap().recovery.damage.is_some());
        assert_eq!(made.disk.read(&dir().join(&tail)).unwrap(), files[1][bad.at..][..damage.bytes as usize]);
        let kept = all_names(&made.disk);
        assert!(kept.contains(&tail.replace("tail.", "tail.2.")) && kept.contains(&tail), "{kept:?}");
        drop(examine(&made.disk, 0, Ended::Suspect).open().unwrap());
        assert_eq!(all_names(&made.disk), kept);
    }
}

#[test]
fn what_a_checkpoint_proves_holds_after_any_end() {
    for ended in DEAD {
        let made = Made::new();
        let bad = &made.of(1)[2];
        made.flip_header(bad);
        let damage = made.damage(bad.first + 1, ended).expect("damage");
        assert_eq!((damage.proof, damage.offset.0), (Proof::Checkpoint(Offset(bad.first + 1)), bad.first));
        assert_eq!(made.damage(bad.first, ended).is_some(), ended != Ended::Suspect);
        assert_eq!(made.cut(bad.first + 1, ended), bad.first);
    }
    // What only readers check does not end the log: payload before the checkpoint, and segments before its own.
    let made = Made::new();
    let bad = &made.of(1)[2];
    made.flip_payload(bad);
    assert_eq!(made.damage(bad.first + bad.len as u64, Ended::Closed), None);
    made.flip_header(bad);
    assert_eq!(made.damage(made.of(2)[0].first, Ended::Closed), None);
}

#[test]
fn a_damaged_header_in_the_middle_or_at_the_end() {
    for segment in [1, 2] {
        let made = Made::new();
        let first = made.of(segment)[0].first;
        made.disk.corrupt(&made.segments[segment], 20, 1).unwrap();
        assert_eq!(made.damage(first, Ended::Suspect), None, "it may not have been written whole");
        for ended in [Ended::Closed, Ended::Killed] {
            let damage = made.damage(first, ended).expect("damage");
            assert_eq!((&damage.path, damage.at), (&made.segments[segment], 0));
            assert_eq!((damage.offset.0, damage.fault, damage.segments), (first, Fault::Header, 3 - segment));
            assert_eq!(damage.frames, made.frames.iter().filter(|frame| frame.first >= first).count() as u64);
        }
        let proof = made.damage(first + 1, Ended::Suspect).map(|damage| damage.proof);
        assert_eq!(proof, Some(Proof::Checkpoint(Offset(first + 1))));
        assert_eq!(made.cut(0, Ended::Killed), first);
        assert_eq!(all_names(&made.disk).iter().filter(|name| name.ends_with(".seg.damaged")).count(), 3 - segment);
    }
    // Blank, or of no length: a file of this history that is no longer what it was.
    for bytes in [vec![0; 4096], Vec::new()] {
        let made = Made::new();
        made.disk.write_file(&made.segments[2], &bytes).unwrap();
        let first = made.of(2)[0].first;
        assert_eq!(made.damage(0, Ended::Suspect), None);
        assert_eq!(made.damage(0, Ended::Killed).map(|damage| damage.fault), Some(Fault::Header));
        assert_eq!(made.cut(0, Ended::Killed), first);
        assert!(all_names(&made.disk).iter().any(|name| name.ends_with(".seg.damaged")));
    }
    // Before the checkpoint's segment nothing is needed but by replicas.
    let made = Made::new();
    made.disk.corrupt(&made.segments[0], 20, 1).unwrap();
    let opened = examine(&made.disk, made.end(), Ended::Closed).open().unwrap();
    assert_eq!((opened.recovery.damage, opened.log.start().0), (None, made.of(1)[0].first));
    assert!(all_names(&made.disk)[0].ends_with(".damaged"));
}

#[test]
fn a_missing_segment() {
    for ended in [Ended::Closed, Ended::Killed] {
        let made = Made::new();
        made.disk.remove(&made.segments[1]).unwrap();
        let damage = made.damage(0, ended).expect("damage");
        let last = made.of(0).pop().unwrap();
        assert_eq!((damage.path, damage.fault), (made.segments[0].clone(), Fault::Gap));
        assert_eq!(damage.at as usize, last.at + (32 + last.len).next_multiple_of(8));
        assert_eq!((damage.segments, damage.frames), (1, made.of(2).len() as u64));
        // What the engine has does not matter.
        let behind = made.of(2)[0].first;
        assert_eq!(made.damage(behind, ended), None);
        assert_eq!(made.cut(0, ended), made.of(1)[0].first);
    }
    let made = Made::new();
    made.disk.remove(&made.segments[1]).unwrap();
    assert_eq!(made.damage(0, Ended::Suspect), None, "its name may not have been durable");
    let checkpoint = made.of(1)[0].first + 1;
    assert_eq!(made.damage(checkpoint, Ended::Suspect).map(|damage| damage.fault), Some(Fault::Gap));
    // The one that holds the checkpoint and all before it.
    made.disk.remove(&made.segments[0]).unwrap();
    for ended in DEAD {
        let damage = made.damage(checkpoint, ended).expect("damage");
        assert_eq!((damage.path.as_path(), damage.at, damage.segments), (dir(), 0, 1));
    }
    // All.
    made.disk.remove(&made.segments[2]).unwrap();
    for ended in DEAD {
        assert_eq!(made.damage(0, ended).map(|damage| damage.segments), Some(0));
    }
    assert_eq!(made.damage(0, Ended::New), None);
    let opened = examine(&made.disk, 77, Ended::Killed).open().unwrap();
    assert_eq!((opened.recovery.created, opened.log.start()), (true, Offset(77)));
}

#[test]
fn damage_in_the_last_frame_alone() {
    let made = Made::new();
    let last = made.last().clone();
    made.flip_payload(&last);
    assert_eq!(made.damage(last.first, Ended::Killed), None, "it may be the append that the process died in");
    assert_eq!(made.damage(last.first, Ended::Suspect), None);
    let damage = made.damage(last.first, Ended::Closed).expect("a log that was closed has no such append");
    assert_eq!((damage.proof, damage.frames, damage.segments), (Proof::Closed, 0, 0));
    assert_eq!(made.cut(last.first, Ended::Closed), last.first);
    let made = Made::new();
    made.flip_header(&last);
    for ended in DEAD {
        let proof = made.damage(made.end(), ended).map(|damage| damage.proof);
        assert_eq!(proof, Some(Proof::Checkpoint(Offset(made.end()))));
    }
}

#[test]
fn the_first_segment_may_be_lost_in_being_replaced() {
    for bytes in [Vec::new(), vec![0; 8192], vec![1; 8192]] {
        let disk = SimDisk::new();
        drop(open(&disk, 1, 500).unwrap());
        let path = names(&disk).remove(0);
        disk.write_file(&path, &bytes).unwrap();
        assert!(examine(&disk, 500, Ended::Killed).damage().is_some());
        let examined = examine(&disk, 500, Ended::Suspect);
        assert_eq!(examined.damage(), None);
        assert_eq!(examined.open().unwrap().log.end(), Offset(500));
    }
}

#[test]
fn frames_in_a_payload_are_no_frames() {
    let made = Made::new();
    let last = made.last();
    let quoted = made.disk.read(&made.segments[0]).unwrap();
    let place = last.at + (32 + last.len).next_multiple_of(8) + 32;
    // As much of it as there is room.
    let room = 4096 - place;
    assert!(room > 1100, "{room}");
    made.write(&last.path, place, &quoted[64..64 + room]);
    assert_eq!(made.damage(0, Ended::Killed), None);
}

#[test]
fn looking_for_frames_has_an_end() {
    // Each place looks like the header of a frame that fills the rest.
    let disk = SimDisk::new();
    drop(
        Examined::new(Arc::new(disk.clone()), dir(), Past { epoch: 1, checkpoint: Offset(0), ended: Ended::New }, {
            ardb_log::LogOptions { segment_bytes: 4 << 20, ..small() }
        })
        .unwrap()
        .open()
        .unwrap(),
    );
    let path = names(&disk).remove(0);
    let mut file = disk.read(&path).unwrap();
    for at in (64 + 40..file.len() - 64).step_by(32) {
        let len = ((file.len() - at - 40) as u32).to_le_bytes();
        file[at..at + 4].copy_from_slice(&len);
        file[at + 8..at + 16].copy_from_slice(&1u64.to_le_bytes());
    }
    disk.write_file(&path, &file).unwrap();
    let damage = examine(&disk, 0, Ended::Killed).damage().cloned();
    assert_eq!(damage.map(|damage| damage.frames), Some(0), "in doubt nothing is thrown away");
}

#[test]
fn bytes_behind_a_segment_that_is_followed_do_not_matter() {
    let made = Made::new();
    made.write(&made.segments[0], 4090, &[5; 6]);
    for ended in DEAD {
        assert_eq!(made.damage(0, ended), None);
        let opened = examine(&made.disk, 0, ended).open().unwrap();
        assert_eq!((&opened.recovery.cut, opened.log.end().0), (&None, made.end()));
        assert_eq!(read_all(&opened.log, Offset(0)), made.all);
    }
}

/// The name was given although the operation reported a failure, and the log went on in the segment before.
#[test]
fn an_empty_segment_that_was_made_in_vain_does_not_matter() {
    let made = Made::new();
    let other = SimDisk::new();
    let mut opened = open(&other, 1, 0).unwrap();
    let half = made.of(1)[2].first as usize;
    for frame in made.frames.iter().filter(|frame| (frame.first as usize) < half) {
        let from = frame.first as usize;
        opened.appender.append(0, 7, &[&made.all[from..from + frame.len]]).unwrap();
    }
    opened.appender.append(0, 7, &[&[1; 4000]]).unwrap();
    drop(opened);
    let path = names(&other).pop().unwrap();
    let mut bytes = other.read(&path).unwrap();
    bytes[64..].fill(0);
    made.disk.write_file(&path, &bytes).unwrap();
    assert_eq!(names(&made.disk).len(), 4);
    for ended in DEAD {
        assert_eq!(made.damage(0, ended), None);
    }
    assert_eq!(made.cut(0, Ended::Killed), made.end());
    assert_eq!(names(&made.disk).len(), 3);
}

/// The cutting dies at each of its steps: in the end the log is cut at the same place, and everything is kept.
#[test]
fn a_cut_that_dies_begins_again() {
    for power in [false, true] {
        for n in 0.. {
            let made = Made::new();
            let bad = made.of(0)[3].clone();
            made.flip_payload(&bad);
            let files: Vec<Vec<u8>> = made.segments.iter().map(|path| made.disk.read(path).unwrap()).collect();
            let past = |ended| Past { epoch: 1, checkpoint: Offset(0), ended };
            let open = |ended| Examined::new(Arc::new(made.disk.clone()), dir(), past(ended), small())?.open();
            let mut examined = examine(&made.disk, 0, Ended::Killed);
            made.disk.fail_after(Some(n));
            // The caller notes that it cuts between the two.
            let noted = examined.keep_tail().is_ok();
            let opened = noted.then(|| examined.open());
            let done = opened.is_some_and(|opened| opened.is_ok());
            let mut random = ardb_base::random::Random::new(n);
            if power {
                made.disk.power_loss(&mut random)
            } else {
                made.disk.kill()
            }
            let ended = match (noted, power) {
                (true, _) => Ended::Cutting,
                (false, false) => Ended::Killed,
                // Not noted, so nothing but the copy was made; by now the machine counts.
                (false, true) => continue,
            };
            let opened = open(ended).unwrap();
            assert_eq!(opened.log.end().0, bad.first);
            drop(opened);
            let ending = |name: &str| dir().join(name);
            let kept = all_names(&made.disk);
            let tails: Vec<&String> = kept.iter().filter(|name| name.ends_with(".tail.damaged")).collect();
            assert_eq!(tails.len(), 1, "{kept:?}");
            let tail = made.disk.read(&ending(tails[0])).unwrap();
            assert_eq!(files[0][bad.at..][..tail.len()], tail);
            for (path, bytes) in made.segments.iter().zip(&files).skip(1) {
                let mut name = path.clone().into_os_string();
                name.push(".damaged");
                assert_eq!(&made.disk.read(&PathBuf::from(name)).unwrap(), bytes);
            }
            if done {
                assert!(n > 6, "each step was tried");
                break;
            }
        }
    }
}
