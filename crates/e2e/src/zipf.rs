//! Which key a request asks for: each as often as any other, or a few much more often than the rest.
//!
//! Invariant: what a seed gives, it gives again.

use ardb_base::random::Random;

/// Terms of the sum that are added one by one; the rest is an integral, right to more digits than matter.
const EXACT: u64 = 1_000_000;

/// Numbers below a bound of which the one of rank r comes in proportion to 1 / (r + 1)^theta (by the method of Gray and others, 1994).
#[derive(Clone, Debug)]
pub struct Zipf {
    bound: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

/// The sum of 1 / i^theta for i from 1 to `bound`.
fn zeta(bound: u64, theta: f64) -> f64 {
    let last = bound.min(EXACT);
    let head: f64 = (1..=last).map(|i| (i as f64).powf(-theta)).sum();
    let rest = |x: f64| (x + 0.5).powf(1.0 - theta) / (1.0 - theta);
    head + rest(bound as f64) - rest(last as f64)
}

impl Zipf {
    /// Numbers below `bound`, which must be more than one; `theta` is more than 0 and less than 1, and the nearer to 1, the more a few are preferred.
    #[must_use]
    pub fn new(bound: u64, theta: f64) -> Zipf {
        assert!(bound > 1 && theta > 0.0 && theta < 1.0, "nothing to choose from");
        let zeta_all = zeta(bound, theta);
        let eta = (1.0 - (2.0 / bound as f64).powf(1.0 - theta)) / (1.0 - zeta(2, theta) / zeta_all);
        Zipf { bound, theta, zeta: zeta_all, alpha: 1.0 / (1.0 - theta), eta }
    }

    /// The next rank, 0 being the one that comes most often.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = (self.bound as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64;
        rank.min(self.bound - 1)
    }
}

/// Mixes the bits of a number: different ones give different ones, which look like chance.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How keys are chosen.
#[derive(Clone, Debug)]
pub enum Choice {
    /// Each as often as any other, of so many.
    Uniform(u64),
    /// By [`Zipf`], the popular ones spread over all.
    Zipf(Zipf),
}

impl Choice {
    /// Zipfian with the exponent 0.99 that YCSB has made usual.
    #[must_use]
    pub fn zipf(bound: u64) -> Choice {
        Choice::Zipf(Zipf::new(bound, 0.99))
    }

    /// The next key.
    pub fn next(&self, random: &mut Random) -> u64 {
        match self {
            Choice::Uniform(bound) => random.below(*bound),
            Choice::Zipf(zipf) => mix(zipf.rank(random)) % zipf.bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_they_should() {
        let (zipf, mut random) = (Zipf::new(1000, 0.99), Random::new(3));
        let mut counts = vec![0u64; 1000];
        const DRAWS: u64 = 1_000_000;
        for _ in 0..DRAWS {
            counts[zipf.rank(&mut random) as usize] += 1;
        }
        let sum: f64 = (1..=1000).map(|i| f64::from(i).powf(-0.99)).sum();
        // The first two are exact; the method approximates the others, so they are compared in groups.
        for (from, to, within) in [(0, 1, 0.02), (1, 2, 0.02), (2, 10, 0.2), (10, 100, 0.1), (100, 1000, 0.1)] {
            let expected: f64 = (from + 1..=to).map(|i| (i as f64).powf(-0.99) / sum).sum();
            let found = counts[from..to].iter().sum::<u64>() as f64 / DRAWS as f64;
            assert!((found / expected - 1.0).abs() < within, "ranks {from}..{to}: {found} for {expected}");
        }
    }

    #[test]
    fn the_long_sum_is_that_of_its_terms() {
        let exact: f64 = (1..=3_000_000u64).map(|i| (i as f64).powf(-0.99)).sum();
        assert!((zeta(3_000_000, 0.99) / exact - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_seed_gives_the_same_keys_again_and_spreads_the_popular_ones() {
        let choice = Choice::zipf(1 << 20);
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| choice.next(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        let high = draw(5).iter().filter(|key| **key >= 1 << 19).count();
        assert!((200..800).contains(&high), "{high} of 1000 in the upper half");
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| Choice::Uniform(10).next(&mut random) < 10));
    }
}
