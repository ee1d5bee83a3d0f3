//! The hashes that decide where rows lie on disk. They are part of the format: changing one makes old data unreadable.

use xxhash_rust::xxh3::xxh3_64;

/// Number of slots of a Redis Cluster.
pub const SLOTS: u16 = 16384;

/// `CRC16[n][byte]`: the sum of `byte` with `n` zero bytes behind it.
static CRC16: [[u16; 256]; 4] = {
    let mut tables = [[0u16; 256]; 4];
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
    while n < 4 {
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
    // Four bytes at a time, whose sums do not wait for each other.
    let (fours, rest) = bytes.as_chunks::<4>();
    let crc = fours.iter().fold(0u16, |crc, [a, b, c, d]| {
        CRC16[3][usize::from((crc >> 8) as u8 ^ a)]
            ^ CRC16[2][usize::from(crc as u8 ^ b)]
            ^ CRC16[1][usize::from(*c)]
            ^ CRC16[0][usize::from(*d)]
    });
    rest.iter().fold(crc, |crc, b| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ b)])
}

/// The Redis Cluster slot of a key: only the text in the first non-empty `{...}` counts, if there is one.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
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
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(key_hash(b"foo") >> 50, 12182);
    }
}
