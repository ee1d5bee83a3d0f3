//! The state file: two checksummed slots written in turn, of which the newest whole one counts.
//!
//! It names the current generation and the log's epoch (so switching both is one write), the history, the upstream, and whether the
//! store was closed cleanly on which run of the machine. The format stands in `docs/store.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ardb_base::disk::{Disk, DiskErrorKind};
use ardb_base::id::{Generation, Offset, ReplId};

use crate::error::{OpenError, StateError};
use crate::options::History;

const MAGIC: [u8; 8] = *b"ARDBSTAT";
const VERSION: u32 = 1;
const SLOT: usize = 4096;
const FIXED: usize = 160;
/// Values of the byte that says whether there is an upstream.
const FOLLOWING: u8 = 1;
const HANDING: u8 = 2;
const HANDING_COMPLETE: u8 = 3;
/// Longest name of an upstream, in bytes.
pub const UPSTREAM_LIMIT: usize = 1024;

/// What the state file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The current generation. 0 while the data directory is being created.
    pub generation: Generation,
    /// Epoch of the log.
    pub epoch: u64,
    /// The names of the history.
    pub history: History,
    /// Whether the store was closed cleanly.
    pub clean: bool,
    /// The run of the machine that wrote this.
    pub boot_id: [u8; 16],
    /// Whom this server replicates, in the caller's own words, if anyone. While it is set the log is a prefix of the master's.
    pub upstream: Option<Vec<u8>>,
    /// The upstream was our replica and is to take the role of the master from us; it has not said yet that it has. Never without an upstream. True if it
    /// is to take it only with everything that was in our log.
    pub handing: Option<bool>,
    /// What is known of the end of the log.
    pub tail: Tail,
}

/// Whether what was appended stays there as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It does.
    Sound,
    /// A sync has failed, so what comes after the last good one may go though neither the process nor the machine ends.
    Doubtful,
    /// The same, and an opening has begun a new history for it, but has not come to its end: nobody has heard the new name.
    Renamed,
}

/// The file and its contents.
#[derive(Debug)]
pub struct StateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    count: u64,
    state: State,
}

impl State {
    fn encode(&self, count: u64) -> Result<Vec<u8>, StateError> {
        let upstream = self.upstream.as_deref().unwrap_or_default();
        if upstream.len() > UPSTREAM_LIMIT {
            return Err(StateError::TooLong(upstream.len()));
        }
        let mut out = Vec::with_capacity(SLOT);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for n in [count, self.generation.0, self.epoch, self.history.second_until.0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(self.history.id.as_bytes());
        out.extend_from_slice(self.history.second.as_bytes());
        out.extend_from_slice(&self.boot_id);
        out.push(u8::from(self.clean));
        out.push(match (&self.upstream, self.handing) {
            (None, _) => 0,
            (Some(_), None) => FOLLOWING,
            (Some(_), Some(false)) => HANDING,
            (Some(_), Some(true)) => HANDING_COMPLETE,
        });
        out.extend_from_slice(&(upstream.len() as u16).to_le_bytes());
        out.push(match self.tail {
            Tail::Sound => 0,
            Tail::Doubtful => 1,
            Tail::Renamed => 2,
        });
        out.resize(FIXED, 0);
        out.extend_from_slice(upstream);
        out.resize(SLOT, 0);
        let crc = crc32c::crc32c(&out);
        // Constants within the slot.
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    fn decode(slot: &[u8]) -> Result<Option<(u64, State)>, OpenError> {
        // All indexing below stays within the slot, whose length is checked here.
        if slot.len() != SLOT || slot[..8] != MAGIC {
            return Ok(None);
        }
        let mut copy = slot.to_vec();
        copy[12..16].fill(0);
        if slot[12..16] != crc32c::crc32c(&copy).to_le_bytes() {
            return Ok(None);
        }
        let version = u32::from_le_bytes(std::array::from_fn(|i| slot[8 + i]));
        if version != VERSION {
            return Err(OpenError::StateVersion(version));
        }
        let n = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| slot[at + i]));
        let (Some(id), Some(second)) = (ReplId::parse(&slot[48..88]), ReplId::parse(&slot[88..128])) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes([slot[146], slot[147]]));
        let Some(upstream) = slot.get(FIXED..FIXED + length) else { return Ok(None) };
        let state = State {
            generation: Generation(n(24)),
            epoch: n(32),
            history: History { id, second, second_until: Offset(n(40)) },
            clean: slot[144] != 0,
            boot_id: std::array::from_fn(|i| slot[128 + i]),
            upstream: (slot[145] != 0).then(|| upstream.to_vec()),
            handing: match slot[145] {
                HANDING => Some(false),
                HANDING_COMPLETE => Some(true),
                _ => None,
            },
            tail: match slot[148] {
                0 => Tail::Sound,
                2 => Tail::Renamed,
                _ => Tail::Doubtful,
            },
        };
        Ok(Some((n(16), state)))
    }
}

impl StateFile {
    /// Reads the state in `dir`; `None` if there is no file.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<StateFile>, OpenError> {
        let path = dir.join("state");
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut newest: Option<(u64, State)> = None;
        for slot in bytes.chunks(SLOT).take(2) {
            if let Some((count, state)) = State::decode(slot)?
                && newest.as_ref().is_none_or(|(other, _)| *other < count)
            {
                newest = Some((count, state));
            }
        }
        match newest {
            Some((count, state)) => Ok(Some(StateFile { disk: disk.clone(), path, count, state })),
            None => Err(OpenError::State(path)),
        }
    }

    /// Writes the first state of `dir` under another name and renames it, so that there is a whole file or none.
    pub fn create(disk: &Arc<dyn Disk>, dir: &Path, state: State) -> Result<StateFile, StateError> {
        let path = dir.join("state");
        let mut bytes = state.encode(2)?;
        bytes.resize(2 * SLOT, 0);
        let temporary = dir.join("state.new");
        disk.write_file(&temporary, &bytes)?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)?;
        Ok(StateFile { disk: disk.clone(), path, count: 2, state })
    }

    /// What it says.
    pub fn get(&self) -> &State {
        &self.state
    }

    /// Writes `state` over the older slot; durable when it returns. After an error the newer slot still holds what [`StateFile::get`] gives,
    /// but the other one may hold `state` all the same, so the caller tries again or gives up for good.
    pub fn set(&mut self, state: State) -> Result<(), StateError> {
        let count = self.count + 1;
        let bytes = state.encode(count)?;
        self.disk.write_at(&self.path, (count % 2) * SLOT as u64, &bytes)?;
        self.disk.sync_file(&self.path)?;
        self.count = count;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::disk::SimDisk;
    use ardb_base::random::Random;

    fn state(n: u64) -> State {
        State {
            generation: Generation(n),
            epoch: n + 1,
            history: History {
                id: ReplId::from_random([n as u8; 20]),
                second: ReplId::NONE,
                second_until: Offset(n * 1000),
            },
            clean: n.is_multiple_of(2),
            boot_id: [n as u8; 16],
            upstream: n.is_multiple_of(3).then(|| vec![b'u'; n as usize]),
            handing: n.is_multiple_of(6).then_some(n.is_multiple_of(12)),
            tail: [Tail::Sound, Tail::Doubtful, Tail::Renamed][n as usize % 3],
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let sim = SimDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        assert!(StateFile::open(&disk, dir).unwrap().is_none());
        let mut file = StateFile::create(&disk, dir, state(1)).unwrap();
        for n in 2..9 {
            file.set(state(n)).unwrap();
            assert_eq!(StateFile::open(&disk, dir).unwrap().unwrap().get(), &state(n));
        }
        // The slot of 8 is damaged, then that of 7 as well.
        let path = dir.join("state");
        let bytes = disk.read(&path).unwrap();
        let newest = bytes.chunks(SLOT).position(|slot| slot[24] == 8).unwrap();
        for at in [0, 9, 13, 20, 60, 150, SLOT - 1] {
            sim.corrupt(&path, newest * SLOT + at, 0x40).unwrap();
            assert_eq!(StateFile::open(&disk, dir).unwrap().unwrap().get(), &state(7), "byte {at}");
            sim.corrupt(&path, newest * SLOT + at, 0x40).unwrap();
        }
        sim.corrupt(&path, newest * SLOT + 30, 1).unwrap();
        sim.corrupt(&path, (1 - newest) * SLOT + 30, 1).unwrap();
        assert!(matches!(StateFile::open(&disk, dir), Err(OpenError::State(_))));
        let mut long = state(1);
        long.upstream = Some(vec![0; UPSTREAM_LIMIT + 1]);
        assert!(matches!(file.set(long), Err(StateError::TooLong(_))));
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_or_after() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let sim = SimDisk::new();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let dir = Path::new("/d");
            disk.create_dir_all(dir).unwrap();
            let mut n = 1;
            let mut file = StateFile::create(&disk, dir, state(n)).unwrap();
            for _ in 0..6 {
                sim.fail_after(Some(random.below(3)));
                let set = file.set(state(n + 1)).is_ok();
                sim.power_loss(&mut random);
                file = StateFile::open(&disk, dir).unwrap().unwrap();
                let found = file.get().generation.0;
                assert_eq!(file.get(), &state(found), "seed {seed}");
                assert!(found == n + 1 || (!set && found == n), "seed {seed}: {found} after {n}");
                n = found;
            }
        }
    }
}
