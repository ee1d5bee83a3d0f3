//! How the memtable and the row cache name rows: a [`Place`] (space, group and order in one integer) and a [`Tail`].
//!
//! Comparing two names is one integer comparison nearly always; tails up to 22 bytes lie inline. Owns nothing else.

use std::cmp::Ordering;
use std::ops::Deref;

use ardb_engine::{RowKey, Space};

/// Groups (objects, keyspaces) must lie below this bound. They are drawn one by one from a counter that starts at 1,
/// so no data directory can reach it.
pub const GROUP_LIMIT: u64 = 1 << 56;

/// Space, group and order, packed so that the integer order is theirs: 8, 56 and 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u128);

impl Place {
    /// The place of a row.
    #[inline]
    pub fn new(space: Space, group: u64, order: u64) -> Place {
        debug_assert!(group < GROUP_LIMIT, "groups come from a counter");
        Place((u128::from(space as u8) << 120) | (u128::from(group & (GROUP_LIMIT - 1)) << 64) | u128::from(order))
    }

    /// The place of the row `key`.
    #[inline]
    pub fn of(key: &RowKey<'_>) -> Place {
        Place::new(key.space, key.group, key.order)
    }

    /// The place as an integer, of which the lowest bits are those of the order.
    #[inline]
    pub fn number(self) -> u128 {
        self.0
    }

    /// The place with this [`Place::number`].
    pub fn from_number(number: u128) -> Place {
        Place(number)
    }

    /// The space byte.
    #[inline]
    pub fn space_byte(self) -> u8 {
        (self.0 >> 120) as u8
    }

    /// The space; places are only ever made from one.
    pub fn space(self) -> Space {
        Space::from_byte(self.space_byte()).unwrap_or(Space::Meta)
    }

    /// The keyspace or object.
    #[inline]
    pub fn group(self) -> u64 {
        (self.0 >> 64) as u64 & (GROUP_LIMIT - 1)
    }

    /// The place within the group.
    #[inline]
    pub fn order(self) -> u64 {
        self.0 as u64
    }

    /// The last place of the same group.
    #[inline]
    pub fn group_end(self) -> Place {
        Place(self.0 | u128::from(u64::MAX))
    }

    /// Well mixed bits of the place.
    #[inline]
    pub fn hash(self) -> u64 {
        mix((self.0 >> 64) as u64 ^ mix(self.0 as u64))
    }
}

/// Spreads the bits of `x` over the whole word (the finalizer of SplitMix64).
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const INLINE: usize = 22;

/// The tail of a row's name, owned; short ones without an allocation.
#[derive(Clone, Debug)]
pub struct Tail(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl Tail {
    /// A copy of `bytes`.
    #[inline]
    pub fn new(bytes: &[u8]) -> Tail {
        if bytes.len() <= INLINE {
            let mut inline = [0; INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            Tail(Repr::Inline(bytes.len() as u8, inline))
        } else {
            Tail(Repr::Heap(Box::from(bytes)))
        }
    }

    /// Whether these are its bytes.
    #[inline]
    pub fn is(&self, bytes: &[u8]) -> bool {
        match &self.0 {
            // The system's comparison of no bytes is slow where their address is no memory, as that of an empty slice may be: it loads under a mask, and
            // processors take some hundred cycles to find out that nothing was to be loaded. Numbered rows have empty tails.
            Repr::Inline(0, _) => bytes.is_empty(),
            _ => **self == *bytes,
        }
    }

    /// Bytes it holds outside itself.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline(..) => 0,
            Repr::Heap(bytes) => bytes.len() + 16,
        }
    }
}

impl Deref for Tail {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // The length was checked against INLINE when the tail was made.
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl std::borrow::Borrow<[u8]> for Tail {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Tail {
    fn eq(&self, other: &Tail) -> bool {
        **self == **other
    }
}

impl Eq for Tail {}

impl Ord for Tail {
    fn cmp(&self, other: &Tail) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Tail {
    fn partial_cmp(&self, other: &Tail) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_the_order_of_names() {
        let names = [
            (Space::Meta, 0, u64::MAX),
            (Space::Key, 1, 0),
            (Space::Key, 1, 7),
            (Space::Key, 2, 0),
            (Space::Member, 1, 0),
            (Space::Garbage, GROUP_LIMIT - 1, u64::MAX),
        ];
        for pair in names.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|(s, g, o)| Place::new(s, g, o));
            assert!(a < b);
        }
        for (space, group, order) in names {
            let place = Place::new(space, group, order);
            assert_eq!((place.space(), place.group(), place.order()), (space, group, order));
        }
    }

    #[test]
    fn tails_compare_as_bytes() {
        let long = [7u8; 40];
        for len in 0..40 {
            assert_eq!(&*Tail::new(&long[..len]), &long[..len]);
            assert!(Tail::new(&long[..len]) < Tail::new(&long[..len + 1]));
        }
        assert_eq!(std::mem::size_of::<Tail>(), 24);
    }
}
