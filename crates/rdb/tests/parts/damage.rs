//! Damaged bytes: never a panic, never an endless loop, never more memory than the bytes that came can explain.

use ardb_base::crc64::crc64;
use ardb_base::random::Random;
use ardb_rdb::{Options, Reader, Writer, WriterOptions, load_dump};

use crate::golden::payloads;
use crate::model::{self, Model};

const FILES: [&str; 6] = ["redis-2.8.17", "redis-3.2.6", "redis-6.2.5", "redis-7.0.15", "redis-8.2.3", "valkey-9.1.2"];

/// Changes a few bytes, cuts, repeats or inserts.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(10) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next_u64() as u8),
            2 => drop(bytes.remove(at)),
            3 => bytes[at..].iter_mut().take(9).for_each(|b| *b = 0xff),
            4 => bytes[at] = [0x80, 0x81, 0xc3, 0xfe, 0xff, 0xf0][random.below(6) as usize],
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
}

#[test]
fn damaged_files_end_in_an_error_or_in_data() {
    let seed = model::seed(3);
    let mut files: Vec<Vec<u8>> = FILES
        .iter()
        .map(|n| std::fs::read(format!("{}/tests/golden/{n}.dump", env!("CARGO_MANIFEST_DIR"))).unwrap())
        .collect();
    let mut random = Random::new(seed);
    let keys = model::keys(&mut random, 10);
    files.push(
        model::write(&keys, Writer::new(Vec::new(), WriterOptions { version: 9, compress: true }).unwrap()).unwrap(),
    );
    let (mut errors, mut loaded) = (0, 0);
    for round in 0..6000 {
        let mut random = Random::new(seed ^ (round << 20));
        let mut bytes = files[random.below(files.len() as u64) as usize].clone();
        if bytes.len() > 20_000 {
            bytes.truncate(20_000);
        }
        damage(&mut random, &mut bytes);
        let options = Options {
            verify_checksum: false,
            reject_duplicates: random.one_in(2),
            whole_string_bytes: random.below(5000),
            ..Options::default()
        };
        let capacity = 1 + random.below(300) as usize;
        let mut reader = Reader::new(std::io::BufReader::with_capacity(capacity, &bytes[..]), options);
        match reader.read(&mut Model::default()) {
            Ok(_) => loaded += 1,
            Err(_) => errors += 1,
        }
        // The most that an honest LZF block gives is 264 bytes for 3; a vector may be twice as large as its content.
        let bound = 4096 + bytes.len() * 88 * 2;
        assert!(reader.peak_buffer_bytes() <= bound, "seed {seed} round {round}: {}", reader.peak_buffer_bytes());
    }
    assert!(errors > 1000 && loaded > 100, "{errors} errors, {loaded} loaded: the damage is of the wrong size");
}

#[test]
fn damaged_payloads_end_in_an_error_or_in_data() {
    let seed = model::seed(4);
    let all: Vec<Vec<u8>> = FILES.iter().flat_map(|n| payloads(n).into_values()).collect();
    for round in 0..20_000 {
        let mut random = Random::new(seed ^ (round << 20));
        let mut bytes = all[random.below(all.len() as u64) as usize].clone();
        bytes.truncate(bytes.len() - 10);
        damage(&mut random, &mut bytes);
        // With a right frame, so that the content is looked at.
        bytes.extend_from_slice(&6u16.to_le_bytes());
        let sum = crc64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let _ = load_dump(&bytes, &mut Model::default());
    }
}

#[test]
fn packed_structures_of_noise_are_refused_or_walked() {
    let seed = model::seed(5);
    let mut random = Random::new(seed);
    for _ in 0..50_000 {
        let mut bytes = vec![0; random.below(40) as usize];
        random.fill(&mut bytes);
        // Sizes that pass the first check, so that the entries are looked at.
        let len = (bytes.len() as u32).to_le_bytes();
        if bytes.len() > 10 {
            bytes[..4].copy_from_slice(&len);
            let last = bytes.len() - 1;
            bytes[last] = 0xff;
        }
        if let Ok(list) = ardb_rdb::listpack::Listpack::parse(&bytes) {
            assert_eq!(list.iter().count(), list.len());
        }
        if let Ok(list) = ardb_rdb::ziplist::Ziplist::parse(&bytes) {
            assert_eq!(list.iter().count(), list.len());
        }
        if let Ok(map) = ardb_rdb::zipmap::Zipmap::parse(&bytes) {
            assert_eq!(map.iter().count(), map.len());
        }
        if let Ok(set) = ardb_rdb::intset::Intset::parse(&bytes) {
            assert_eq!(set.iter().count(), set.len());
        }
        let _ = ardb_rdb::lzf::decompress(&bytes, random.below(1000), &mut Vec::new());
    }
}
