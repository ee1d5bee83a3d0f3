//! Up to what size a collection is held whole in its key's row: Redis's limits of its listpacks and intsets, cut to what pays here.
//!
//! Only new and changed values are measured by them. A value that is packed and fits no longer goes into rows with its next change; one in rows stays there
//! until it is built anew. No reply depends on it.

/// Most bytes of a packed value's elements: a change writes all of them. Measured over the store (`ardb-node`'s example `collections`), HSET of a new field of
/// 60 bytes took 2.8 us where 4 KiB were there and 3.7 at 8 KiB, 2.5 and 2.9 in rows; LPUSH 1.4 and 3.3, and 2.3 in rows.
pub const PACKED_MAX: u16 = 4 << 10;
/// Most fields or members of a packed value: finding one goes through all of them. HSET of a new short field took 2.1 us at 64 fields, 2.7 at 128, 4.5 at 256
/// and 6.3 at 512, and 2.4 to 3.2 in rows.
pub const PACKED_MEMBERS: u16 = 128;
/// Most elements of a packed list, where only going to one in the middle or at the end goes through those before it.
pub const PACKED_ELEMENTS: u16 = 512;

/// The limits of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Elements, fields or members.
    pub elements: u16,
    /// Bytes of the longest of them.
    pub longest: u16,
    /// Bytes of all of them, lengths included.
    pub bytes: u16,
}

impl Limit {
    /// Nothing is held in the key's row.
    pub const NEVER: Limit = Limit { elements: 0, longest: 0, bytes: 0 };

    /// Whether so many elements fit, the longest of `longest` bytes, all of `bytes`.
    pub(crate) fn holds(&self, elements: u64, longest: usize, bytes: usize) -> bool {
        elements <= u64::from(self.elements) && longest <= usize::from(self.longest) && bytes <= usize::from(self.bytes)
    }

    /// The limits that these two settings of a hash, set or sorted set mean.
    #[must_use]
    pub fn new(elements: u64, longest: u64) -> Limit {
        Limit { elements: cut(elements, PACKED_MEMBERS), longest: cut(longest, PACKED_MAX), bytes: PACKED_MAX }
    }

    /// What a list's one setting means: elements if it is positive; 4, 8, 16, 32 or 64 KiB if it is -1 to -5; nothing if it is 0.
    #[must_use]
    pub fn of_list(size: i64) -> Limit {
        let any = Limit { elements: PACKED_ELEMENTS, longest: PACKED_MAX, bytes: PACKED_MAX };
        match u64::try_from(size) {
            Ok(elements) => Limit { elements: cut(elements, PACKED_ELEMENTS), ..any },
            Err(_) => Limit { bytes: cut(4096 << (size.unsigned_abs().min(5) - 1), PACKED_MAX), ..any },
        }
    }
}

/// The lesser one.
fn cut(setting: u64, most: u16) -> u16 {
    u16::try_from(setting).map_or(most, |setting| setting.min(most))
}

/// The limits of all types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hashes.
    pub hash: Limit,
    /// Sets.
    pub set: Limit,
    /// Members of a set of integers; such a set may pass the limit of other sets.
    pub integers: u16,
    /// Lists.
    pub list: Limit,
    /// Sorted sets.
    pub zset: Limit,
}

impl Limits {
    /// Nothing is held in the key's row.
    pub const NEVER: Limits =
        Limits { hash: Limit::NEVER, set: Limit::NEVER, integers: 0, list: Limit::NEVER, zset: Limit::NEVER };

    /// What `set-max-intset-entries` means for [`Limits::integers`].
    #[must_use]
    pub fn integers(setting: u64) -> u16 {
        cut(setting, PACKED_MEMBERS)
    }
}

impl Default for Limits {
    /// Those of Redis's defaults.
    fn default() -> Limits {
        Limits {
            hash: Limit::new(512, 64),
            set: Limit::new(128, 64),
            integers: Limits::integers(512),
            list: Limit::of_list(-2),
            zset: Limit::new(128, 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lists_setting_is_elements_or_bytes() {
        assert_eq!(Limit::of_list(0).elements, 0);
        assert_eq!(Limit::of_list(3), Limit { elements: 3, longest: PACKED_MAX, bytes: PACKED_MAX });
        assert_eq!(Limit::of_list(i64::MAX).elements, PACKED_ELEMENTS);
        assert_eq!(Limit::of_list(-1).bytes, 4096.min(PACKED_MAX));
        for size in [-2, -5, -6, i64::MIN] {
            let limit = Limit { elements: PACKED_ELEMENTS, longest: PACKED_MAX, bytes: PACKED_MAX };
            assert_eq!(Limit::of_list(size), limit, "{size}");
        }
    }
}
