//! Files and payloads that real servers wrote, against their content as the servers listed it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ardb_rdb::{Magic, Options, Reader, load_dump};

use crate::model::{Keys, Model, Value};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Undoes `\xNN`.
fn plain(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' {
            out.push(u8::from_str_radix(std::str::from_utf8(&after[1..3]).unwrap(), 16).unwrap());
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    out
}

/// The content that all servers were filled with, one key a line: `db type expiry kKEY vITEM...`. Scores are the hex of their bits.
pub fn content() -> Keys {
    let text = std::fs::read_to_string(golden("content.txt")).unwrap();
    let keys: Keys = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let (db, kind, expire, key) = (word().parse().unwrap(), word(), word().parse().ok(), plain(&word()[1..]));
            let items: Vec<Vec<u8>> = words.map(|w| plain(&w[1..])).collect();
            let pairs = || items.chunks(2).map(|p| (p[0].clone(), p[1].clone()));
            let score = |text: Vec<u8>| match std::str::from_utf8(&text).unwrap() {
                "inf" => f64::INFINITY,
                "-inf" => f64::NEG_INFINITY,
                bits => f64::from_bits(u64::from_str_radix(bits, 16).unwrap()),
            };
            let value = match kind {
                "string" => Value::String(items[0].clone()),
                "list" => Value::List(items.clone()),
                "set" => Value::Set(items.iter().map(|m| (m.clone(), ())).collect()),
                "hash" => Value::Hash(pairs().collect()),
                "zset" => Value::SortedSet(pairs().map(|(m, s)| (m, score(s))).collect()),
                other => panic!("type {other}"),
            };
            ((db, key), (expire, value))
        })
        .collect();
    assert!(keys.len() > 40, "{} keys", keys.len());
    keys
}

/// Name, magic, version, libraries of functions.
const FILES: [(&str, Magic, u32, usize); 6] = [
    ("redis-2.8.17", Magic::Redis, 6, 0),
    ("redis-3.2.6", Magic::Redis, 7, 0),
    ("redis-6.2.5", Magic::Redis, 9, 0),
    ("redis-7.0.15", Magic::Redis, 10, 1),
    ("redis-8.2.3", Magic::Redis, 12, 1),
    ("valkey-9.1.2", Magic::Valkey, 80, 1),
];

#[test]
fn files_of_real_servers_hold_what_the_servers_held() {
    let expected = content();
    for (name, magic, version, functions) in FILES {
        let file = std::fs::read(golden(&format!("{name}.dump"))).unwrap();
        // What follows an RDB is not the reader's.
        let stream = [&file[..], b"*1\r\n$4\r\nPING\r\n"].concat();
        for capacity in [1, 7, 64 << 10] {
            let mut reader = Reader::new(
                std::io::BufReader::with_capacity(capacity, &stream[..]),
                Options { reject_duplicates: true, whole_string_bytes: 100, ..Options::default() },
            );
            let mut model = Model::default();
            let summary = reader.read(&mut model).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(
                (summary.magic, summary.version, summary.keys),
                (magic, version, expected.len() as u64),
                "{name}"
            );
            assert!(summary.verified);
            assert_eq!(summary.bytes, file.len() as u64);
            assert_eq!(model.functions, functions, "{name}");
            assert_eq!(model.aux.is_empty(), version < 7, "{name}");
            for (key, value) in &expected {
                assert_eq!(model.keys.get(key), Some(value), "{name}: {}", key.1.escape_ascii());
            }
            assert_eq!(model.keys.len(), expected.len());
            let mut rest = Vec::new();
            std::io::Read::read_to_end(&mut reader.into_inner(), &mut rest).unwrap();
            assert_eq!(rest, b"*1\r\n$4\r\nPING\r\n");
        }
    }
}

/// The payloads of one server, by key.
pub fn payloads(name: &str) -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(golden(&format!("{name}.payloads"))).unwrap();
    text.lines()
        .map(|line| {
            let (key, hex) = line.split_once(' ').unwrap();
            let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
            (key.to_owned(), (0..hex.len() / 2).map(byte).collect())
        })
        .collect()
}

#[test]
fn payloads_of_real_servers_restore() {
    let expected = content();
    for (name, magic, ..) in FILES {
        for (key, payload) in payloads(name) {
            let mut model = Model::default();
            let result = load_dump(&payload, &mut model);
            if magic == Magic::Valkey {
                // Its numbers are beyond those of Redis, so the payload is as foreign here as it is to a Redis.
                assert!(matches!(result, Err(ardb_rdb::DumpError::BadVersionOrChecksum)), "{name} {key}");
                continue;
            }
            result.unwrap_or_else(|e| panic!("{name} {key}: {e}"));
            assert_eq!(model.single(), expected[&(0, key.clone().into_bytes())].1, "{name} {key}");
        }
    }
}
