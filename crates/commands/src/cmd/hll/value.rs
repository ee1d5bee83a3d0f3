//! A HyperLogLog as the bytes of its string, exactly as Redis holds it.
//!
//! ```text
//! 0..4    "HYLL"
//! 4       form: 0 dense, 1 sparse
//! 5..8    zeros
//! 8..16   the last cardinality that was asked for, u64 le; bit 63 is set if registers have changed since
//! 16..    registers: see `dense.rs` and `sparse.rs`
//! ```
//!
//! Invariant: a [`Hll`] has the header, and is as long as its form demands if that is the dense one. The opcodes of the sparse form may be anything.

use std::ops::Range;

use super::estimate::{self, Histogram, REGISTERS};
use super::sparse::{Corrupt, Raised};
use super::{dense, sparse};

/// Bytes before the registers.
pub const HEADER: usize = 16;
const FORM: usize = 4;
/// Where the cached cardinality stands.
pub const CACHE: Range<usize> = 8..HEADER;
const STALE: u64 = 1 << 63;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

/// A HyperLogLog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hll {
    bytes: Vec<u8>,
}

impl Hll {
    /// One to which nothing was added.
    pub fn new() -> Hll {
        let mut bytes = b"HYLL".to_vec();
        bytes.resize(HEADER, 0);
        bytes[FORM] = SPARSE;
        bytes.extend(sparse::empty());
        Hll { bytes }
    }

    /// The one that these bytes are, if they are one.
    pub fn parse(bytes: Vec<u8>) -> Option<Hll> {
        if bytes.len() < HEADER || !bytes.starts_with(b"HYLL") {
            return None;
        }
        match bytes[FORM] {
            SPARSE => Some(Hll { bytes }),
            DENSE if bytes.len() == HEADER + dense::LEN => Some(Hll { bytes }),
            _ => None,
        }
    }

    /// Its string.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it has the dense form.
    pub fn is_dense(&self) -> bool {
        self.bytes[FORM] == DENSE
    }

    /// The registers in their form.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    fn cache(&self) -> u64 {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.bytes[CACHE]);
        u64::from_le_bytes(eight)
    }

    /// The cardinality that was asked for last, if nothing has changed since.
    pub fn cached(&self) -> Option<u64> {
        Some(self.cache()).filter(|cache| cache & STALE == 0)
    }

    /// Says that registers have changed.
    pub fn invalidate(&mut self) {
        let cache = self.cache() | STALE;
        self.bytes[CACHE].copy_from_slice(&cache.to_le_bytes());
    }

    /// The cardinality, from the registers.
    pub fn count(&self) -> Result<u64, Corrupt> {
        let histogram = if self.is_dense() {
            dense::histogram(self.body())
        } else {
            let mut histogram: Histogram = [0; 64];
            // Together at most REGISTERS.
            sparse::each(self.body(), |run| histogram[usize::from(run.rank)] += run.len as u32)?;
            histogram
        };
        Ok(estimate::cardinality(&histogram))
    }

    /// Adds an element; whether a register has changed. The sparse form becomes dense where the string would be longer than `limit`.
    pub fn add(&mut self, element: &[u8], limit: usize) -> Result<bool, Corrupt> {
        let (index, rank) = estimate::place(element);
        self.raise(index, rank, limit)
    }

    fn raise(&mut self, index: usize, rank: u8, limit: usize) -> Result<bool, Corrupt> {
        if !self.is_dense() {
            // Taken out and put back, since it changes its length.
            let mut code = self.bytes.split_off(HEADER);
            let raised = sparse::raise(&mut code, index, rank, limit.saturating_sub(HEADER));
            self.bytes.append(&mut code);
            match raised? {
                Raised::No => return Ok(false),
                Raised::Yes => return Ok(true),
                Raised::DoesNotFit => {
                    self.make_dense()?;
                }
            }
        }
        Ok(dense::raise(&mut self.bytes[HEADER..], index, rank))
    }

    /// Turns the sparse form into the dense one; whether it had to.
    pub fn make_dense(&mut self) -> Result<bool, Corrupt> {
        if self.is_dense() {
            return Ok(false);
        }
        let mut registers = vec![0; dense::LEN];
        let mut index = 0;
        sparse::each(self.body(), |run| {
            if run.rank > 0 {
                (index..index + run.len).for_each(|index| {
                    dense::raise(&mut registers, index, run.rank);
                });
            }
            index += run.len;
        })?;
        self.bytes.truncate(HEADER);
        self.bytes.append(&mut registers);
        self.bytes[FORM] = DENSE;
        Ok(true)
    }

    /// Raises every register to that of `union`.
    pub fn raise_all(&mut self, union: &Union, limit: usize) -> Result<(), Corrupt> {
        for (index, &rank) in union.0.iter().enumerate().filter(|(_, rank)| **rank > 0) {
            self.raise(index, rank, limit)?;
        }
        Ok(())
    }
}

/// Registers of several together, a byte each.
pub struct Union(Vec<u8>);

impl Union {
    /// Of none.
    pub fn new() -> Union {
        Union(vec![0; REGISTERS])
    }

    /// Takes one in.
    pub fn merge(&mut self, hll: &Hll) -> Result<(), Corrupt> {
        let all = &mut self.0;
        if hll.is_dense() {
            dense::each(hll.body(), |index, rank| all[index] = all[index].max(rank));
            return Ok(());
        }
        let mut index = 0;
        sparse::each(hll.body(), |run| {
            let end = index + run.len;
            if run.rank > 0 {
                all[index..end].iter_mut().for_each(|rank| *rank = run.rank.max(*rank));
            }
            index = end;
        })
    }

    /// The cardinality.
    pub fn count(&self) -> u64 {
        let mut histogram: Histogram = [0; 64];
        self.0.iter().for_each(|rank| histogram[usize::from(*rank)] += 1);
        estimate::cardinality(&histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(from: u32, to: u32, limit: usize) -> Hll {
        let mut hll = Hll::new();
        for n in from..to {
            hll.add(format!("element {n}").as_bytes(), limit).unwrap();
        }
        hll
    }

    #[test]
    fn both_forms_count_alike() {
        for count in [0, 1, 2, 10, 100, 1000, 5000] {
            let sparse = filled(0, count, usize::MAX);
            let dense = filled(0, count, 0);
            assert_eq!((sparse.is_dense(), dense.is_dense()), (false, count > 0));
            assert_eq!(sparse.count(), dense.count(), "{count}");
            let mut turned = sparse.clone();
            assert_eq!(turned.make_dense(), Ok(true));
            assert_eq!(turned.body(), if count > 0 { dense.body() } else { turned.body() });
        }
    }

    #[test]
    fn it_turns_dense_where_the_limit_is() {
        let mut hll = Hll::new();
        let mut longest = 0;
        for n in 0..5000 {
            hll.add(format!("{n}").as_bytes(), 3000).unwrap();
            if hll.is_dense() {
                break;
            }
            longest = hll.bytes().len();
        }
        assert!(hll.is_dense() && (2990..=3000).contains(&longest), "{longest}");
        assert_eq!(hll.bytes().len(), HEADER + dense::LEN);
    }

    #[test]
    fn a_union_is_as_if_all_had_been_added_to_one() {
        let (one, other) = (filled(0, 3000, 3000), filled(2000, 2500, 3000));
        assert!(one.is_dense() && !other.is_dense());
        let mut union = Union::new();
        union.merge(&one).unwrap();
        union.merge(&other).unwrap();
        let all = filled(0, 3000, 3000);
        assert_eq!(Ok(union.count()), all.count());
        let mut into = other.clone();
        into.raise_all(&union, 3000).unwrap();
        assert_eq!(into.body(), all.body());
    }

    #[test]
    fn only_what_has_the_form_is_one() {
        let bytes = Hll::new().bytes().to_vec();
        assert!(Hll::parse(bytes.clone()).is_some());
        for (at, byte) in [(0, b'h'), (4, 0), (4, 2)] {
            let mut other = bytes.clone();
            other[at] = byte;
            assert!(Hll::parse(other).is_none(), "{at}");
        }
        assert!(Hll::parse(bytes[..15].to_vec()).is_none());
        assert_eq!(Hll::parse(bytes[..16].to_vec()).unwrap().count(), Err(Corrupt));
    }
}
