//! Intsets: sorted integers of one width. Layout: width in bytes (u32: 2, 4 or 8), count (u32), the integers; little endian.

use crate::entry::array;
use crate::error::Malformed;

const HEADER: usize = 8;

/// An intset whose size is consistent and whose integers ascend.
#[derive(Debug, Clone, Copy)]
pub struct Intset<'a> {
    items: &'a [u8],
    width: usize,
}

impl<'a> Intset<'a> {
    /// Checks the sizes and the order.
    ///
    /// # Errors
    /// [`Malformed`] with the rule that is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Intset<'a>, Malformed> {
        let (Some(width), Some(count)) = (array(bytes, 0), array(bytes, 4)) else {
            return Err(Malformed("an intset is shorter than its header"));
        };
        let width = u32::from_le_bytes(width) as usize;
        if !matches!(width, 2 | 4 | 8) {
            return Err(Malformed("an intset has an unknown width"));
        }
        let items = bytes.get(HEADER..).unwrap_or_default();
        if items.len() as u64 != u64::from(u32::from_le_bytes(count)) * width as u64 {
            return Err(Malformed("an intset's length is not the one it claims"));
        }
        let set = Intset { items, width };
        if set.iter().zip(set.iter().skip(1)).any(|(a, b)| a >= b) {
            return Err(Malformed("an intset does not ascend"));
        }
        Ok(set)
    }

    /// Number of integers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len() / self.width
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The integers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i64> + use<'a> {
        self.items.chunks_exact(self.width).map(|item| match *item {
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
            // `parse` admits no other width.
            _ => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_order_and_sizes() {
        let set =
            |width: u32, count: u32, items: &[u8]| [&width.to_le_bytes()[..], &count.to_le_bytes(), items].concat();
        let good = set(2, 3, &[0xff, 0xff, 0, 0, 5, 0]);
        assert_eq!(Intset::parse(&good).unwrap().iter().collect::<Vec<_>>(), [-1, 0, 5]);
        let wide = [&i64::MIN.to_le_bytes()[..], &i64::MAX.to_le_bytes()].concat();
        assert_eq!(Intset::parse(&set(8, 2, &wide)).unwrap().iter().collect::<Vec<_>>(), [i64::MIN, i64::MAX]);
        assert_eq!(Intset::parse(&set(4, 0, b"")).unwrap().len(), 0);
        for bad in [
            set(2, 2, &[5, 0, 5, 0]),
            set(2, 2, &[5, 0, 4, 0]),
            set(3, 1, &[0, 0, 0]),
            set(0, 0, b""),
            set(2, 4, &[1, 0]),
            set(8, 0x2000_0000, b""),
            set(2, 0, &[1, 0]),
            vec![2, 0, 0],
        ] {
            assert!(Intset::parse(&bad).is_err());
        }
    }
}
