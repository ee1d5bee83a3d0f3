//! The sparse form: runs of equal registers as opcodes of one or two bytes.
//!
//! ```text
//! 00nnnnnn           n + 1 registers that are 0
//! 01nnnnnn nnnnnnnn  n + 1 registers that are 0, up to all of them
//! 1vvvvvnn           n + 1 registers that are v + 1
//! ```
//!
//! One state of the registers can be written in several ways. Which one it is follows from the order of the changes, and must follow as in
//! Redis, so that master and replica hold the same bytes. Opcodes that do not cover all registers exactly are [`Corrupt`]; nothing here
//! reads or writes out of bounds for them.

use super::estimate::REGISTERS;

/// The greatest value that an opcode can hold.
pub const RANK_MAX: u8 = 32;
/// The most registers of an opcode for values.
const VALUES_MAX: usize = 4;
/// The most registers of the short opcode for zeros.
const ZEROS_MAX: usize = 64;
/// Opcodes looked at after a change for neighbours that can become one.
const MERGE_SCAN: usize = 5;

/// The opcodes make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The register was as high already.
    No,
    /// It was raised.
    Yes,
    /// The form cannot hold it: the value is too great, or there would be too many bytes.
    DoesNotFit,
}

/// An opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The value of its registers.
    pub rank: u8,
    /// How many registers they are.
    pub len: usize,
    /// Whether it is the long opcode for zeros.
    pub long: bool,
}

impl Run {
    /// The opcode at the beginning of `code`, and its bytes.
    fn read(code: &[u8]) -> Result<(Run, usize), Corrupt> {
        match *code {
            [op, ..] if op & 0x80 != 0 => {
                Ok((Run { rank: (op >> 2 & 0x1f) + 1, len: usize::from(op & 3) + 1, long: false }, 1))
            }
            [op, low, ..] if op & 0x40 != 0 => {
                let len = usize::from(op & 0x3f) << 8 | usize::from(low);
                Ok((Run { rank: 0, len: len + 1, long: true }, 2))
            }
            [op, ..] if op & 0x40 == 0 => Ok((Run { rank: 0, len: usize::from(op) + 1, long: false }, 1)),
            _ => Err(Corrupt),
        }
    }
}

/// Appends the opcode for `len` registers of this value, of which it can hold so many.
fn write(out: &mut Vec<u8>, rank: u8, len: usize) {
    // The lengths are below the opcodes' limits, so the parts fit their bits.
    match (rank, len - 1) {
        (0, n) if len <= ZEROS_MAX => out.push(n as u8),
        (0, n) => out.extend([0x40 | (n >> 8) as u8, n as u8]),
        (rank, n) => out.push(0x80 | (rank - 1) << 2 | n as u8),
    }
}

/// All registers zero.
pub fn empty() -> Vec<u8> {
    let mut out = Vec::with_capacity(2);
    write(&mut out, 0, REGISTERS);
    out
}

/// Calls `visit` with each opcode, however many registers they cover. An error after those before one that is cut off.
pub fn decode(mut code: &[u8], mut visit: impl FnMut(Run)) -> Result<(), Corrupt> {
    while !code.is_empty() {
        let (run, bytes) = Run::read(code)?;
        visit(run);
        code = &code[bytes..];
    }
    Ok(())
}

/// Calls `visit` with each opcode up to the last register. An error, perhaps after some calls, if they do not cover all of them exactly.
pub fn each(code: &[u8], mut visit: impl FnMut(Run)) -> Result<(), Corrupt> {
    let mut covered = 0;
    decode(code, |run| {
        covered += run.len;
        if covered <= REGISTERS {
            visit(run);
        }
    })?;
    if covered == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// Raises a register, if the bytes then are at most `limit`.
pub fn raise(code: &mut Vec<u8>, index: usize, rank: u8, limit: usize) -> Result<Raised, Corrupt> {
    if rank > RANK_MAX {
        return Ok(Raised::DoesNotFit);
    }
    // The opcode that covers the register: its place, its first register, and the place of the one before.
    let (mut at, mut first, mut before) = (0, 0, 0);
    let (run, bytes) = loop {
        let (run, bytes) = Run::read(&code[at..])?;
        if index < first + run.len {
            break (run, bytes);
        }
        before = at;
        at += bytes;
        first += run.len;
        if at >= code.len() {
            return Err(Corrupt);
        }
    };
    if run.rank >= rank {
        return Ok(Raised::No);
    }
    let mut split = Vec::with_capacity(5);
    if index > first {
        write(&mut split, run.rank, index - first);
    }
    write(&mut split, rank, 1);
    if index + 1 < first + run.len {
        write(&mut split, run.rank, first + run.len - index - 1);
    }
    if split.len() > bytes && code.len() + split.len() - bytes > limit {
        return Ok(Raised::DoesNotFit);
    }
    code.splice(at..at + bytes, split);
    merge(code, before)?;
    Ok(Raised::Yes)
}

/// Makes one of neighbours with the same value, where one opcode can hold them, from the opcode at `at` on.
fn merge(code: &mut Vec<u8>, mut at: usize) -> Result<(), Corrupt> {
    for _ in 0..MERGE_SCAN {
        if at >= code.len() {
            break;
        }
        let (run, bytes) = Run::read(&code[at..])?;
        if run.rank > 0
            && let Some(next) = code.get(at + 1..).filter(|rest| !rest.is_empty())
            && let Ok((next, _)) = Run::read(next)
            && next.rank == run.rank
            && next.len + run.len <= VALUES_MAX
        {
            let mut both = Vec::with_capacity(1);
            write(&mut both, run.rank, next.len + run.len);
            code.splice(at..at + 2, both);
            continue;
        }
        at += bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ardb_base::random::Random;

    use super::*;

    fn registers(code: &[u8]) -> Result<Vec<u8>, Corrupt> {
        let mut all = Vec::new();
        each(code, |run| all.resize(all.len() + run.len, run.rank))?;
        Ok(all)
    }

    #[test]
    fn random_changes_are_those_of_plain_registers() {
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let mut code = empty();
            let mut plain = vec![0u8; REGISTERS];
            // Few places, so that runs grow together.
            let places = 8 << random.below(10);
            for _ in 0..2000 {
                let (index, rank) = (random.below(places) as usize, 1 + random.below(4) as u8);
                let expected = if plain[index] < rank { Raised::Yes } else { Raised::No };
                assert_eq!(raise(&mut code, index, rank, usize::MAX), Ok(expected));
                plain[index] = plain[index].max(rank);
            }
            assert_eq!(registers(&code).unwrap(), plain, "seed {seed}");
        }
    }

    #[test]
    fn it_says_when_it_does_not_fit() {
        let mut code = empty();
        assert_eq!(raise(&mut code, 100, 33, 3000), Ok(Raised::DoesNotFit));
        assert_eq!(raise(&mut code, 100, 32, 4), Ok(Raised::DoesNotFit));
        assert_eq!(code, empty());
        assert_eq!(raise(&mut code, 100, 32, 5), Ok(Raised::Yes));
        assert_eq!(code, [0x40, 99, 0xfc, 0x7f, 0x9a]);
        assert_eq!(raise(&mut code, 99, 32, 5), Ok(Raised::DoesNotFit), "it grows before it merges");
        assert_eq!(raise(&mut code, 99, 32, 6), Ok(Raised::Yes));
        assert_eq!(code, [0x40, 98, 0xfd, 0x7f, 0x9a]);
    }

    #[test]
    fn damage_is_found_and_does_no_harm() {
        for code in [&b""[..], &[0x7f], &[0x7f, 0xff, 0], &[0x7f, 0xfe], &[0x00; 10]] {
            assert_eq!(registers(code), Err(Corrupt), "{code:?}");
        }
        let mut random = Random::new(3);
        for _ in 0..20_000 {
            let mut code = vec![0; random.below(8) as usize];
            random.fill(&mut code);
            let _ = raise(&mut code, random.below(REGISTERS as u64) as usize, 1 + random.below(32) as u8, 3000);
        }
    }
}
