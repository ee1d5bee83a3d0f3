//! The dense form: all registers, 6 bits each, the first in the lowest bits of the first byte.

use super::estimate::{Histogram, REGISTERS};

/// Bytes of all registers.
pub const LEN: usize = REGISTERS * 6 / 8;
const MASK: u16 = 63;

/// Where a register's bits begin: the byte, and the bit in it.
fn place(index: usize) -> (usize, u32) {
    (index * 6 / 8, (index * 6 % 8) as u32)
}

/// The two bytes over which a register may reach; beyond the last there is nothing.
fn pair(registers: &[u8], byte: usize) -> u16 {
    u16::from_le_bytes([registers[byte], registers.get(byte + 1).copied().unwrap_or(0)])
}

/// A register's value.
pub fn get(registers: &[u8], index: usize) -> u8 {
    let (byte, bit) = place(index);
    ((pair(registers, byte) >> bit) & MASK) as u8
}

/// Raises a register to `rank`, at most 63; whether it was lower.
pub fn raise(registers: &mut [u8], index: usize, rank: u8) -> bool {
    if get(registers, index) >= rank {
        return false;
    }
    let (byte, bit) = place(index);
    let both = pair(registers, byte) & !(MASK << bit) | u16::from(rank) << bit;
    let [low, high] = both.to_le_bytes();
    registers[byte] = low;
    if let Some(next) = registers.get_mut(byte + 1) {
        *next = high;
    }
    true
}

/// Calls `visit` with the value of each register.
pub fn each(registers: &[u8], mut visit: impl FnMut(usize, u8)) {
    // Three bytes hold four registers.
    for (group, bytes) in registers.as_chunks::<3>().0.iter().enumerate() {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        for register in 0..4 {
            visit(group * 4 + register, (word >> (register * 6)) as u8 & MASK as u8);
        }
    }
}

/// Counts the values.
pub fn histogram(registers: &[u8]) -> Histogram {
    let mut histogram = [0; 64];
    each(registers, |_, rank| histogram[usize::from(rank)] += 1);
    histogram
}

#[cfg(test)]
mod tests {
    use ardb_base::random::Random;

    use super::*;

    #[test]
    fn registers_are_apart() {
        let mut random = Random::new(7);
        let mut plain = vec![0u8; REGISTERS];
        let mut packed = vec![0u8; LEN];
        for round in 0..40_000 {
            let index = match round {
                0 => REGISTERS - 1,
                _ => random.below(REGISTERS as u64) as usize,
            };
            let rank = random.below(64) as u8;
            assert_eq!(raise(&mut packed, index, rank), plain[index] < rank);
            plain[index] = plain[index].max(rank);
        }
        for (index, rank) in plain.iter().enumerate() {
            assert_eq!(get(&packed, index), *rank, "{index}");
        }
        let mut seen = 0;
        each(&packed, |index, rank| {
            assert_eq!((index, rank), (seen, plain[index]));
            seen += 1;
        });
        assert_eq!(seen, REGISTERS);
    }
}
