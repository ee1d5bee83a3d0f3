//! The random numbers of scripts: the 48-bit linear congruence of the `drand48` family, so that a script that seeds it gets
//! the same numbers here as in Redis.

use std::sync::atomic::{AtomicU64, Ordering};

const FACTOR: u64 = 0x5_DEEC_E66D;
const ADDEND: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
/// The low 16 bits of a seeded state.
const LOW_SEED: u64 = 0x330E;
/// The state before any seed is given.
const INITIAL: u64 = 0x1234_ABCD_330E;
/// One more than the greatest number that [`Rand48::unit`] divides.
const RANGE: u32 = i32::MAX as u32;

/// The generator. It goes on from script to script, as in Redis 7: what it gave is in the effects, never in the script. Only a script that comes
/// in a stream is to do what it did on the master, so before each the sequence starts anew, as it did there.
pub struct Rand48(AtomicU64);

impl Rand48 {
    /// As if never seeded.
    pub fn new() -> Rand48 {
        Rand48(AtomicU64::new(INITIAL))
    }

    /// Starts the sequence that belongs to `seed`.
    pub fn seed(&self, seed: i32) {
        self.0.store((u64::from(seed as u32) << 16) | LOW_SEED, Ordering::Relaxed);
    }

    /// The next 31 bits.
    pub fn next(&self) -> u32 {
        // Scripts run one at a time, so load and store need no exchange.
        let state = self.0.load(Ordering::Relaxed).wrapping_mul(FACTOR).wrapping_add(ADDEND) & MASK;
        self.0.store(state, Ordering::Relaxed);
        (state >> 17) as u32
    }

    /// The next number of `0..1`.
    pub fn unit(&self) -> f64 {
        f64::from(self.next() % RANGE) / f64::from(RANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequences_are_those_of_redis() {
        let random = Rand48::new();
        assert_eq!(format!("{:.14}", random.unit()), "0.39646477363839");
        assert_eq!(format!("{:.14}", random.unit()), "0.84048536971234");
        random.seed(10);
        assert_eq!(format!("{:.14}", random.unit()), "0.87885112309775");
        assert_eq!((random.unit() * 100.0).floor() as i64 + 1, 80);
    }
}
