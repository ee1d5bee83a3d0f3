//! Loads of strings: filling a server, overwriting, and mixes of GET and SET.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ardb_base::random::Random;
use ardb_e2e::drive::Work;
use ardb_e2e::values::{self, Shape};
use ardb_e2e::zipf::Choice;
use ardb_e2e::{Result, error};

/// The letter of the keys.
pub const LETTER: u8 = b'k';
/// The number of a reading request's kind.
pub const READ: usize = 0;
/// The number of a writing request's kind.
pub const WRITE: usize = 1;

/// Sets each key of a range once, in an order that looks like chance.
pub struct Fill {
    shape: Shape,
    keys: u64,
    step: u64,
    next: Arc<AtomicU64>,
}

/// A number without a divisor in common with `keys`, somewhere in its middle, by which all keys are visited once.
fn step(keys: u64) -> u64 {
    let common = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let middle = (keys as f64 * 0.618) as u64 + 1;
    (middle..).find(|step| common(*step, keys) == 1).unwrap_or(1)
}

impl Fill {
    /// The work of so many connections, all keys together.
    pub fn parts(connections: u64, keys: u64, shape: Shape) -> Vec<Fill> {
        let next = Arc::new(AtomicU64::new(0));
        (0..connections).map(|_| Fill { shape, keys, step: step(keys), next: Arc::clone(&next) }).collect()
    }
}

impl Work for Fill {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.keys {
            return None;
        }
        let key = (u128::from(at) * u128::from(self.step) % u128::from(self.keys)) as u64;
        set(out, &self.shape, key, 0);
        Some(WRITE)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        ok(reply)
    }
}

/// Appends a SET.
pub fn set(out: &mut Vec<u8>, shape: &Shape, key: u64, write: u64) {
    values::command(out, "SET", 3);
    values::key(out, LETTER, key);
    shape.word(out, key, write);
}

/// Whether it is `+OK`.
pub fn ok(reply: &[u8]) -> Result<()> {
    if reply == b"+OK\r\n" { Ok(()) } else { Err(error(format!("not OK: {}", reply.escape_ascii()))) }
}

/// GET and SET in a ratio, of keys by choice; each value that comes back is judged.
pub struct Mix {
    shape: Shape,
    choice: Arc<Choice>,
    random: Random,
    /// SETs of a hundred requests.
    writes: u64,
    write: u64,
    /// Keys of the requests without a reply; `None` for a SET.
    asked: Vec<Option<u64>>,
    answered: usize,
    /// Requests that are left.
    left: u64,
}

impl Mix {
    /// The work of so many connections, `writes` of a hundred requests being SETs.
    pub fn parts(connections: u64, shape: Shape, choice: &Arc<Choice>, writes: u64, seed: u64) -> Vec<Mix> {
        Mix::some(connections, shape, choice, writes, seed, u64::MAX)
    }

    /// The same with no more than so many requests, all connections together.
    pub fn some(
        connections: u64,
        shape: Shape,
        choice: &Arc<Choice>,
        writes: u64,
        seed: u64,
        requests: u64,
    ) -> Vec<Mix> {
        (0..connections)
            .map(|at| Mix {
                shape,
                choice: Arc::clone(choice),
                random: Random::new(seed.wrapping_mul(0x1000).wrapping_add(at)),
                writes,
                // Different for each connection and seed, so that no two writes are alike.
                write: (seed << 48) + (at << 36) + 1,
                asked: Vec::new(),
                answered: 0,
                left: if requests == u64::MAX { u64::MAX } else { requests.div_ceil(connections) },
            })
            .collect()
    }
}

impl Work for Mix {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        if self.answered == self.asked.len() {
            self.asked.clear();
            self.answered = 0;
        }
        let key = self.choice.next(&mut self.random);
        if self.writes > 0 && self.random.below(100) < self.writes {
            self.write += 1;
            set(out, &self.shape, key, self.write);
            self.asked.push(None);
            return Some(WRITE);
        }
        values::command(out, "GET", 2);
        values::key(out, LETTER, key);
        self.asked.push(Some(key));
        Some(READ)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<()> {
        let asked = self.asked.get(self.answered).copied().ok_or_else(|| error("a reply too many"))?;
        self.answered += 1;
        match asked {
            None => ok(reply),
            Some(key) => {
                self.shape.check(values::bulk(reply).map_err(|failure| error(format!("key {key}: {failure}")))?, key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_visited_once() {
        for keys in [1, 2, 10, 97, 1000] {
            let mut seen: Vec<u64> = (0..keys).map(|at| at * step(keys) % keys).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..keys).collect::<Vec<_>>());
        }
    }
}
