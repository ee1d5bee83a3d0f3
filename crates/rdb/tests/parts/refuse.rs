//! What must be refused, with which error; and what looks odd and must be read. Files and packed structures are made by hand here.

use std::convert::Infallible;

use ardb_base::crc64::crc64;
use ardb_rdb::{DumpError, Error, KeyMeta, Options, Reader, load_dump};

use crate::model::{Model, Value};

type Read = Result<Model, Error<Infallible>>;

fn read(bytes: &[u8]) -> Read {
    let mut model = Model::default();
    Reader::new(bytes, Options::default()).read(&mut model).map(|_| model)
}

/// A file of version 9 with this between header and end, without a checksum.
fn file(body: &[u8]) -> Vec<u8> {
    [b"REDIS0009", body, &[0xff; 1], &[0; 8]].concat()
}

fn payload(body: &[u8], version: u16) -> Vec<u8> {
    let mut out = [body, &version.to_le_bytes()].concat();
    let sum = crc64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn bad_data(body: &[u8]) -> String {
    match load_dump(&payload(body, 6), &mut Model::default()) {
        Err(DumpError::BadData(why)) => why,
        other => panic!("{}: {other:?}", body.escape_ascii()),
    }
}

/// A string of fewer than 64 bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8][..], bytes].concat()
}

fn listpack(entries: &[&[u8]], count: u16) -> Vec<u8> {
    let mut body: Vec<u8> = entries.iter().flat_map(|e| [*e, &[e.len() as u8]].concat()).collect();
    body.push(0xff);
    [&(body.len() as u32 + 6).to_le_bytes()[..], &count.to_le_bytes(), &body].concat()
}

fn ziplist(entries: &[&[u8]], count: u16) -> Vec<u8> {
    let (mut body, mut before, mut tail) = (Vec::new(), 0u8, 10);
    for entry in entries {
        tail = 10 + body.len();
        body.push(before);
        body.extend_from_slice(entry);
        before = entry.len() as u8 + 1;
    }
    body.push(0xff);
    [&(body.len() as u32 + 10).to_le_bytes()[..], &(tail as u32).to_le_bytes(), &count.to_le_bytes(), &body].concat()
}

#[test]
fn headers() {
    assert!(matches!(read(b"RUBIS0006\xff"), Err(Error::Magic(_))));
    assert!(matches!(read(b"REDIS00x6\xff"), Err(Error::Magic(_))));
    assert!(matches!(read(b"REDIS0016\xff"), Err(Error::Version { magic: "REDIS", version: 16 })));
    assert!(matches!(read(b"VALKEY011\xff"), Err(Error::Version { magic: "VALKEY", version: 11 })));
    assert!(matches!(read(b"REDIS"), Err(Error::Truncated { offset: 5, .. })));
    assert!(read(b"REDIS0004\xff").is_ok(), "no checksum before version 5");
    assert!(read(b"VALKEY081\xff\0\0\0\0\0\0\0\0").is_ok());
    assert!(matches!(read(b"REDIS0006\xff\x01\0\0\0\0\0\0\0"), Err(Error::Checksum { stored: 1, .. })));
}

#[test]
fn unsupported_things_are_named_with_key_and_place() {
    let refused = |bytes: &[u8]| match read(bytes) {
        Err(Error::Unsupported { what, key, offset }) => (what, key, offset),
        other => panic!("{other:?}"),
    };
    for code in [15, 19, 21, 26] {
        let (what, key, offset) = refused(&file(&[code, 3, b'k', b'e', b'y', 1]));
        assert!(what.contains("stream"), "{what}");
        assert_eq!((&key[..], offset), (&b"key"[..], 14));
    }
    for code in 22..=25 {
        assert!(refused(&file(&[code, 1, b'k'])).0.contains("expire"));
    }
    assert!(refused(b"VALKEY080\x16\x01k").0.contains("expire"));
    assert!(refused(b"VALKEY080\x17\x01k").0.contains("unknown value type"));
    // "ReJSON-RL" of version 3, as 54 bits of name and 10 of version.
    let id = b"ReJSON-RL".iter().fold(0u64, |id, c| {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        id << 6 | letters.iter().position(|l| l == c).unwrap() as u64
    });
    let id = [&[0x81][..], &(id << 10 | 3).to_be_bytes()].concat();
    let (what, key, _) = refused(&file(&[&[7, 1, b'j'], &id[..]].concat()));
    assert!(what.contains("ReJSON-RL"), "{what}");
    assert_eq!(key, b"j");
    assert!(refused(&file(&[&[247], &id[..]].concat())).0.contains("ReJSON-RL"));
    assert!(refused(&file(&[246])).0.contains("functions"));
    assert!(refused(&file(&[243])).0.contains("opcode 243"));
    assert!(bad_data(&[&[7], &id[..]].concat()).contains("ReJSON-RL"));
    assert!(bad_data(&[15, 0]).contains("stream"));
}

#[test]
fn a_claim_costs_nothing_before_its_bytes_come() {
    let huge = [0x81, 0, 0, 0xff, 0, 0, 0, 0, 0];
    for body in [
        [&[0, 1, b'k'][..], &huge].concat(),                    // a string
        [&[1, 1, b'k'][..], &huge].concat(),                    // a list
        [&[4, 1, b'k'][..], &huge, &[1, b'f']].concat(),        // a hash
        [&[14, 1, b'k'][..], &huge].concat(),                   // a quicklist
        [&[0, 1, b'k', 0xc3][..], &huge, &huge, b"x"].concat(), // LZF of both lengths
    ] {
        let bytes = [b"REDIS0009", &body[..]].concat();
        let mut reader = Reader::new(&bytes[..], Options::default());
        let result = reader.read(&mut Model::default());
        assert!(matches!(&result, Err(Error::Truncated { key, .. }) if key == b"k"), "{result:?}");
        assert!(reader.peak_buffer_bytes() < 4096);
    }
    for body in
        [[&[2, 1, b'k', 1][..], &huge].concat(), [&[13, 1, b'k'][..], &huge].concat(), [&[0][..], &huge].concat()]
    {
        assert!(matches!(read(&file(&body)), Err(Error::TooLong { claimed: 0xff00_0000_0000, .. })));
    }
}

#[test]
fn expiries_meta_and_hints_of_every_kind() {
    let body = b"\xfd\x02\0\0\0\x00\x01a\x01x\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xf8\x40\x80\x00\x01b\x01y\xf9\x07\xfa\x01p\x01q\xfb\x05\x06\xf4\x01\x02\x03\x00\x01c\x01z";
    let model = read(&file(body)).unwrap();
    let expiries: Vec<_> = model.keys.values().map(|(expire, _)| *expire).collect();
    assert_eq!(expiries, [Some(2000), Some(-1), None]);
    let meta = |expire_at_ms, idle, freq| KeyMeta { expire_at_ms, idle, freq };
    // What stands before a key is that key's alone.
    assert_eq!(model.metas, [meta(Some(2000), None, None), meta(Some(-1), Some(128), None), meta(None, None, Some(7))]);
    assert_eq!(model.aux, [("p".to_owned(), "q".to_owned())]);
}

#[test]
fn empty_collections_are_left_out() {
    let empty_lists = [
        [&[10, 1, b'e'][..], &string(&ziplist(&[], 0))].concat(),
        [&[14, 1, b'f', 1][..], &string(&ziplist(&[], 0))].concat(),
        [&[16, 1, b'g'][..], &string(&listpack(&[], 0))].concat(),
        vec![2, 1, b'h', 0, 18, 1, b'i', 0],
    ]
    .concat();
    let model = read(&file(&empty_lists)).unwrap();
    assert_eq!((model.keys.len(), model.empty), (0, 5));
    assert!(bad_data(&[2, 0]).contains("empty"));
}

#[test]
fn old_encodings_read() {
    let zipmap = [2, 1, b'a', 1, 2, b'1', 0, 0, 1, b'b', 0, 0, 0xff];
    let model = read(&file(&[&[9, 1, b'h'][..], &string(&zipmap)].concat())).unwrap();
    let expected = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())];
    assert_eq!(model.single(), Value::Hash(expected.into()));
    // Scores as text, with the codes for the infinities.
    let zset = b"\x03\x01z\x03\x01a\x041e-3\x01b\xfe\x01c\xff";
    let model = read(&file(zset)).unwrap();
    let expected = [("a", 0.001), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)];
    assert_eq!(model.single(), Value::SortedSet(expected.map(|(m, s)| (m.as_bytes().to_vec(), s)).into()));
    for bad in [&b"\x03\x01z\x01\x01a\xfd"[..], b"\x03\x01z\x01\x01a\x031.x", b"\x05\x01z\x01\x01a\0\0\0\0\0\0\xf8\x7f"]
    {
        assert!(matches!(read(&file(bad)), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn quicklists_of_both_containers() {
    let packed = listpack(&[&[7], &[0x82, b'h', b'i']], 2);
    let body = [&[18, 1, b'l', 3, 1, 0xc3, 4, 6, 0, b'a', 0x60, 0, 2][..], &string(&packed), &[1, 0]].concat();
    let model = read(&file(&body)).unwrap();
    assert_eq!(model.single(), Value::List([&b"aaaaaa"[..], b"7", b"hi", b""].map(<[u8]>::to_vec).into()));
}

/// A source that gives one byte at a time, is interrupted before each, and at last fails.
struct Broken<'a>(&'a [u8], bool);

impl std::io::Read for Broken<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let (Some((first, rest)), Some(to)) = (self.0.split_first(), to.first_mut()) else {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        };
        (*to, self.0) = (*first, rest);
        Ok(1)
    }
}

#[test]
fn interruptions_are_nothing_and_failures_are_told() {
    let whole = file(b"\x00\x01k\x01v");
    for len in 0..=whole.len() {
        let mut reader = Reader::new(std::io::BufReader::new(Broken(&whole[..len], false)), Options::default());
        match reader.read(&mut Model::default()) {
            Ok(summary) => assert_eq!((len, summary.keys, summary.verified), (whole.len(), 1, false)),
            Err(Error::Io { offset, source }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
                assert!(len < whole.len() && offset <= len as u64);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn the_sink_can_stop_the_reading() {
    struct Stops;
    impl ardb_rdb::Sink for Stops {
        type Error = &'static str;
        fn select_db(&mut self, _: u64) -> Result<(), &'static str> {
            Ok(())
        }
        fn function(&mut self, _: &[u8]) -> Result<(), &'static str> {
            Ok(())
        }
        fn begin(&mut self, _: &[u8], _: &KeyMeta, _: ardb_rdb::Kind, _: Option<u64>) -> Result<(), &'static str> {
            Ok(())
        }
        fn string_piece(&mut self, _: &[u8]) -> Result<(), &'static str> {
            Err("enough")
        }
        fn element(&mut self, _: &[u8]) -> Result<(), &'static str> {
            Err("enough")
        }
        fn field(&mut self, _: &[u8], _: &[u8]) -> Result<(), &'static str> {
            Err("enough")
        }
        fn scored(&mut self, _: &[u8], _: f64) -> Result<(), &'static str> {
            Err("enough")
        }
        fn end(&mut self) -> Result<(), &'static str> {
            panic!("a call after an error")
        }
    }
    let bytes = file(b"\x02\x01k\x02\x01a\x01b");
    assert!(matches!(Reader::new(&bytes[..], Options::default()).read(&mut Stops), Err(Error::Sink("enough"))));
    assert!(matches!(load_dump(&payload(b"\x00\x01k", 6), &mut Stops), Err(DumpError::Sink("enough"))));
}

#[test]
fn every_width_of_packed_integers() {
    let wide = [-1i64 << 40, -1 << 20, -1 << 12, -100, 5, 100, 127, 4095, -4096];
    let zip: Vec<Vec<u8>> = [
        vec![0xe0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff],
        vec![0xd0, 0, 0, 0xf0, 0xff],
        vec![0xc0, 0, 0xf0],
        vec![0xfe, 0x9c],
        vec![0xf6],
        vec![0xfe, 100],
        vec![0xfe, 127],
        vec![0xf0, 0xff, 0x0f, 0],
        vec![0xf0, 0, 0xf0, 0xff],
    ]
    .into();
    let pack: Vec<Vec<u8>> = [
        vec![0xf4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff],
        vec![0xf3, 0, 0, 0xf0, 0xff],
        vec![0xf1, 0, 0xf0],
        vec![0xdf, 0x9c],
        vec![5],
        vec![100],
        vec![127],
        vec![0xcf, 0xff],
        vec![0xd0, 0],
    ]
    .into();
    let expected: Vec<_> = wide.iter().map(|v| ardb_rdb::Entry::Int(*v)).collect();
    let zip: Vec<&[u8]> = zip.iter().map(|e| &e[..]).collect();
    let zip = ziplist(&zip, 9);
    assert_eq!(ardb_rdb::ziplist::Ziplist::parse(&zip).unwrap().iter().collect::<Vec<_>>(), expected);
    let pack: Vec<&[u8]> = pack.iter().map(|e| &e[..]).collect();
    let pack = listpack(&pack, u16::MAX);
    assert_eq!(ardb_rdb::listpack::Listpack::parse(&pack).unwrap().iter().collect::<Vec<_>>(), expected);
}

#[test]
fn payloads_with_contradictions_are_bad_data() {
    let twice: &[u8] = &[0x81, b'a'];
    for (code, packed) in [
        (20, listpack(&[twice, twice], 2)),
        (16, listpack(&[twice, &[1], twice, &[2]], 4)),
        (17, listpack(&[twice, &[1], twice, &[2]], 4)),
        (13, ziplist(&[&[1, b'a'], &[0xf2], &[1, b'a'], &[0xf3]], 4)),
    ] {
        let body = [&[code][..], &string(&packed)].concat();
        assert!(bad_data(&body).contains("twice"));
        // In a stream they are the sink's affair, unless asked otherwise.
        assert!(read(&file(&[&[code, 1, b'k'][..], &string(&packed)].concat())).is_ok());
    }
    assert!(bad_data(&[2, 2, 1, b'a', 1, b'a']).contains("twice"));
    // The integer 7 and the text "7" are one member.
    assert!(bad_data(&[2, 2, 0xc0, 7, 1, b'7']).contains("twice"));
    let set = |packed: Vec<u8>| bad_data(&[&[20][..], &string(&packed)].concat());
    assert!(set(listpack(&[&[1]], 2)).contains("count"));
    assert!(set(listpack(&[&[0xf5]], 1)).contains("unknown encoding"));
    assert!(set(listpack(&[&[0xbf, b'x']], 1)).contains("cut"));
    let hash = |packed: Vec<u8>| bad_data(&[&[13][..], &string(&packed)].concat());
    assert!(hash(ziplist(&[&[0xf2]], 1)).contains("odd"));
    assert!(hash(ziplist(&[&[0xf2], &[0x81, 0]], 2)).contains("unknown encoding"));
    let mut wrong = ziplist(&[&[0xf2], &[0xf3]], 2);
    wrong[4] += 1;
    assert!(hash(wrong.clone()).contains("tail"));
    wrong[12] = 9;
    assert!(hash(wrong).contains("back length"));
    assert!(bad_data(&[12, 3, b'a', b'b', b'c']).contains("header"));
    assert!(bad_data(&[18, 1, 3, 1, b'a']).contains("container"));
    assert!(bad_data(&[0, 1, b'a', b'b']).contains("follow"));
    assert!(bad_data(&[0, 2, b'a']).contains("cut"));
    assert!(bad_data(&[]).contains("cut"));
    assert!(bad_data(&[0, 0xc5]).contains("unknown encoding"));
    assert!(bad_data(&[1, 0xc0, 1, 0]).contains("length"));
}

#[test]
fn the_frame_of_a_payload_is_checked_first() {
    let refused = |p: &[u8]| matches!(load_dump(p, &mut Model::default()), Err(DumpError::BadVersionOrChecksum));
    let good = payload(&[0, 1, b'a'], 12);
    assert!(load_dump(&good, &mut Model::default()).is_ok());
    assert!(refused(&payload(&[0, 1, b'a'], 13)));
    assert!(refused(&good[..good.len() - 1]));
    assert!(refused(b"short") && refused(b""));
    for at in 0..good.len() {
        let mut wrong = good.clone();
        wrong[at] ^= 0x10;
        assert!(refused(&wrong), "byte {at}");
    }
}
