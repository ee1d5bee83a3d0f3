//! The hashes that decide where rows lie on disk. They are part of the format: changing one makes old data unreadable.

use xxhash_rust::xxh3::xxh3_64;

/// Number of slots of a Redis Cluster.
pub const SLOTS: u16 = 16384;

const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-16/XMODEM, which Redis Cluster uses for slots.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, b| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ b)])
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
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(key_hash(b"foo") >> 50, 12182);
    }
}
