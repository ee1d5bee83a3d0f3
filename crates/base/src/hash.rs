//! The hashes that decide where rows lie on disk. They are part of the format: changing one makes old data unreadable.

use xxhash_rust::xxh3::xxh3_64;

/// Number of slots of a Redis Cluster.
pub const SLOTS: u16 = 16384;

/// `CRC16[n][byte]`: the sum of `byte` with `n` zero bytes behind it.
static CRC16: [[u16; 256]; 8] = {
    let mut tables = [[0u16; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let crc = tables[n - 1][i];
            tables[n][i] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
};

/// CRC-16/XMODEM, which Redis Cluster uses for slots.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    // Eight and four bytes at a time, whose sums do not wait for each other.
    let of = |n: usize, byte: u8| CRC16[n][usize::from(byte)];
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(0u16, |crc, &[a, b, c, d, e, f, g, h]| {
        let first = of(7, (crc >> 8) as u8 ^ a) ^ of(6, crc as u8 ^ b);
        first ^ of(5, c) ^ of(4, d) ^ of(3, e) ^ of(2, f) ^ of(1, g) ^ of(0, h)
    });
    let (fours, rest) = rest.as_chunks::<4>();
    let crc = fours
        .iter()
        .fold(crc, |crc, &[a, b, c, d]| of(3, (crc >> 8) as u8 ^ a) ^ of(2, crc as u8 ^ b) ^ of(1, c) ^ of(0, d));
    rest.iter().fold(crc, |crc, b| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ b)])
}

/// Whether there is a `{`; looks at eight bytes at a time.
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (eights, rest) = key.as_chunks::<8>();
    // Such a byte becomes zero, and some highest bit stays exactly if there is a zero.
    let zeros = eights.iter().fold(0, |zeros, eight| {
        let rest = u64::from_ne_bytes(*eight) ^ (ONES * u64::from(b'{'));
        zeros | (rest.wrapping_sub(ONES) & !rest & (ONES << 7))
    });
    zeros != 0 || rest.contains(&b'{')
}

/// The Redis Cluster slot of a key: only the text in the first non-empty `{...}` counts, if there is one.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    if !has_brace(key) {
        return crc16(key) % SLOTS;
    }
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&b| b == b'}').filter(|&close| close > 0).map(|close| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// Where a key's row lies within its keyspace: the cluster slot in the top 14 bits, then 50 bits of XXH3.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    (u64::from(slot(key)) << 50) | (xxh3_64(key) >> 14)
}

/// Where the row of a field or member lies within its object.
#[must_use]
pub fn member_hash(member: &[u8]) -> u64 {
    xxh3_64(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let bitwise = |bytes: &[u8]| {
            bytes.iter().fold(0u16, |crc, byte| {
                (0..8)
                    .fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc >> 15 == 1 { 0x1021 } else { 0 })
            })
        };
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..len]), bitwise(&bytes[..len]), "{len} bytes");
        }
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        for len in 0..40 {
            for brace in 0..len {
                let mut key = vec![b'{' ^ 0x80; len];
                assert!(!has_brace(&key));
                key[brace] = b'{';
                assert!(has_brace(&key));
            }
        }
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(key_hash(b"foo") >> 50, 12182);
    }
}
