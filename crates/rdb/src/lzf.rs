//! LZF, the compression of strings in RDBs, in both directions.
//!
//! A stream of runs. A control byte below 32 is followed by that many literal bytes and one more. Any other holds a length in its
//! top three bits (7 = a further length byte follows) and the high five bits of a distance whose low byte comes last: copy
//! `length + 2` bytes from `distance + 1` bytes before the end of the output. So nothing older than [`WINDOW`] bytes is needed.

use crate::error::Malformed;

/// The farthest that a copy reaches back, in bytes.
pub const WINDOW: usize = 1 << 13;
const LONGEST_COPY: usize = 7 + 255 + 2;
const LONGEST_LITERAL: usize = 32;

#[derive(Debug, Clone, Copy)]
enum State {
    /// A control byte is next.
    Control,
    /// So many literal bytes are to come.
    Literal(usize),
    /// The further length byte of a copy is next; holds the high bits of the distance.
    Length(usize),
    /// The low byte of the distance is next.
    Distance { len: usize, high: usize },
}

/// Decompresses a block that comes in pieces. Needs no more of the earlier output than [`WINDOW`] bytes.
#[derive(Debug)]
pub struct Decompressor {
    state: State,
    left: u64,
}

impl Decompressor {
    /// For a block that claims to become `unpacked` bytes.
    #[must_use]
    pub fn new(unpacked: u64) -> Decompressor {
        Decompressor { state: State::Control, left: unpacked }
    }

    /// Takes the next `input` and appends what it becomes to `out`, whose end must be the end of the earlier output (at
    /// least its last [`WINDOW`] bytes). `out` grows by at most 132 times the input, and never beyond the claim.
    ///
    /// # Errors
    /// [`Malformed`] if a copy reaches before the start or the output exceeds the claim.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            match self.state {
                State::Literal(len) => {
                    let (run, rest) = input.split_at(len.min(input.len()));
                    self.claim(run.len())?;
                    out.extend_from_slice(run);
                    input = rest;
                    self.state = if run.len() == len { State::Control } else { State::Literal(len - run.len()) };
                    continue;
                }
                State::Control => {
                    let (top, low) = (usize::from(byte >> 5), usize::from(byte & 0x1f));
                    self.state = match top {
                        0 => State::Literal(low + 1),
                        7 => State::Length(low << 8),
                        _ => State::Distance { len: top + 2, high: low << 8 },
                    };
                }
                State::Length(high) => self.state = State::Distance { len: usize::from(byte) + 9, high },
                State::Distance { len, high } => {
                    let distance = (high | usize::from(byte)) + 1;
                    self.claim(len)?;
                    let start = out.len().checked_sub(distance).ok_or(Malformed("LZF copies from before the start"))?;
                    // A copy may overlap itself: then the output repeats with the period of the distance, and whatever was
                    // appended so far, being whole periods, can be appended again.
                    let end = out.len() + len;
                    while out.len() < end {
                        let run = (out.len() - start).min(end - out.len());
                        out.extend_from_within(start..start + run); // `start + run` <= `out.len()`
                    }
                    self.state = State::Control;
                }
            }
            input = rest;
        }
        Ok(())
    }

    /// Whether the block ended where it may, with as many bytes as it claimed.
    ///
    /// # Errors
    /// [`Malformed`] if not.
    pub fn finish(&self) -> Result<(), Malformed> {
        match (self.state, self.left) {
            (State::Control, 0) => Ok(()),
            (State::Control, _) => Err(Malformed("LZF gives fewer bytes than it claims")),
            _ => Err(Malformed("LZF ends within a run")),
        }
    }

    fn claim(&mut self, len: usize) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(len as u64).ok_or(Malformed("LZF gives more bytes than it claims"))?;
        Ok(())
    }
}

/// Decompresses a whole block to the end of `out`.
///
/// # Errors
/// [`Malformed`] if the block is inconsistent or does not become `unpacked` bytes. `out` then holds a part of it.
pub fn decompress(input: &[u8], unpacked: u64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    // Copies must not reach into what was in `out` before, so the block gets an output of its own unless there is nothing.
    let mut decompressor = Decompressor::new(unpacked);
    if out.is_empty() {
        decompressor.push(input, out)?;
    } else {
        let mut own = Vec::new();
        decompressor.push(input, &mut own)?;
        out.append(&mut own);
    }
    decompressor.finish()
}

/// Compresses blocks; keeps its table from one to the next.
#[derive(Debug, Default)]
pub struct Compressor {
    /// Where three bytes with this hash were last seen, plus one; 0 = not yet.
    table: Vec<u32>,
}

impl Compressor {
    /// Appends the compressed `input` to `out` and says whether that takes at most `most` bytes; if not, `out` is as before.
    /// Inputs of 4 GiB and more are not compressed.
    pub fn compress(&mut self, input: &[u8], most: usize, out: &mut Vec<u8>) -> bool {
        if u32::try_from(input.len()).is_err() {
            return false;
        }
        let base = out.len();
        // A table as small as the input allows, because it must be cleared for each.
        let bits = input.len().next_power_of_two().trailing_zeros().clamp(6, 14);
        self.table.clear();
        self.table.resize(1 << bits, 0);
        let (mut at, mut literal) = (0, 0);
        while at + 3 <= input.len() {
            // At least three bytes from `at`, by the condition of the loop.
            let three = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]);
            let slot = (three.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize; // below the table's size
            let seen = std::mem::replace(&mut self.table[slot], at as u32 + 1) as usize;
            let candidate = seen.wrapping_sub(1);
            if seen == 0 || at - candidate > WINDOW || input[candidate..candidate + 3] != input[at..at + 3] {
                at += 1;
                continue;
            }
            let longest = (input.len() - at).min(LONGEST_COPY);
            let len =
                3 + input[candidate + 3..].iter().zip(&input[at + 3..at + longest]).take_while(|(a, b)| a == b).count();
            literals(&input[literal..at], out);
            copy(at - candidate - 1, len - 2, out);
            at += len;
            literal = at;
            if out.len() - base > most {
                break;
            }
        }
        literals(&input[literal..], out);
        let fits = out.len() - base <= most;
        if !fits {
            out.truncate(base);
        }
        fits
    }
}

fn literals(bytes: &[u8], out: &mut Vec<u8>) {
    for run in bytes.chunks(LONGEST_LITERAL) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

/// `distance` is one less than the bytes back, `len` two less than the bytes copied, as the format has them.
fn copy(distance: usize, len: usize, out: &mut Vec<u8>) {
    let high = (distance >> 8) as u8;
    if len < 7 {
        out.push((len as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (len - 7) as u8]);
    }
    out.push(distance as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ardb_base::random::Random;

    #[test]
    fn blocks_come_back_whole_and_in_pieces() {
        let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
        let mut random = Random::new(seed);
        let mut compressor = Compressor::default();
        let (mut packed_total, mut plain_total) = (0, 0);
        for round in 0..300 {
            let most = if random.one_in(10) { 60_000 } else { 300 };
            let size = random.below(most) as usize;
            let letters = 1 + random.below(40);
            let mut plain = Vec::with_capacity(size);
            while plain.len() < size {
                if plain.len() > 40 && random.one_in(3) {
                    let from = random.below(plain.len() as u64 - 30) as usize;
                    plain.extend_from_within(from..from + 30);
                } else {
                    plain.push(random.below(letters) as u8);
                }
            }
            let mut packed = vec![1, 2, 3];
            assert!(compressor.compress(&plain, usize::MAX, &mut packed));
            let packed = &packed[3..];
            (packed_total, plain_total) = (packed_total + packed.len(), plain_total + plain.len());
            let mut whole = b"before".to_vec();
            decompress(packed, plain.len() as u64, &mut whole).unwrap();
            assert_eq!(&whole[6..], plain, "seed {seed} round {round}");
            let (mut pieces, mut windowed) = (Decompressor::new(plain.len() as u64), Vec::new());
            for piece in packed.chunks(1 + random.below(50) as usize) {
                pieces.push(piece, &mut windowed).unwrap();
                if windowed.len() > 2 * WINDOW {
                    let cut = windowed.len() - WINDOW;
                    assert_eq!(&windowed[..cut], &plain[..cut]);
                    plain.drain(..cut);
                    windowed.drain(..cut);
                }
            }
            pieces.finish().unwrap();
            assert_eq!(windowed, plain, "seed {seed} round {round}");
        }
        assert!(packed_total * 2 < plain_total, "{packed_total} of {plain_total}");
    }

    #[test]
    fn what_does_not_fit_leaves_nothing() {
        let mut out = vec![9];
        assert!(!Compressor::default().compress(b"no repetition here", 10, &mut out));
        assert_eq!(out, [9]);
    }

    #[test]
    fn contradictions_are_refused() {
        let mut out = Vec::new();
        assert!(decompress(&[0x20, 0], 3, &mut out).is_err(), "a copy before any output");
        for (bytes, claim) in [(&[0, b'a'][..], 0), (&[0, b'a'], 2), (&[1, b'a'], 1), (&[0, b'a', 0xe0], 300)] {
            assert!(decompress(bytes, claim, &mut Vec::new()).is_err());
        }
        decompress(&[0, b'a', 0xe0, 255, 0], 265, &mut out).unwrap();
        assert_eq!(out, [b'a'; 265]);
    }
}
