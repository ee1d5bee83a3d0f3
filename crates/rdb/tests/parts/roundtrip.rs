//! What is written reads back the same, in each version and with compression; and the writer's own rules.

use ardb_base::random::Random;
use ardb_rdb::{DumpWriter, Items, Kind, Options, Reader, WriteError, Writer, WriterOptions, load_dump};

use crate::model::{self, Model};

#[test]
fn random_data_comes_back() {
    let seed = model::seed(1);
    for round in 0..20 {
        let mut random = Random::new(seed + round);
        let keys = model::keys(&mut random, 60);
        let (version, compress) = (6 + random.below(7) as u32, random.one_in(2));
        let writer = Writer::new(Vec::new(), WriterOptions { version, compress }).unwrap();
        let file = model::write(&keys, writer).unwrap();
        let options = Options { reject_duplicates: true, whole_string_bytes: random.below(2000), ..Options::default() };
        let mut model = Model::default();
        let summary =
            Reader::new(&file[..], options).read(&mut model).unwrap_or_else(|e| panic!("seed {}: {e}", seed + round));
        assert!(summary.verified);
        assert!(model.keys == keys, "seed {}", seed + round);
    }
}

#[test]
fn random_payloads_come_back() {
    let seed = model::seed(2);
    let mut random = Random::new(seed);
    let mut room = Vec::new();
    for round in 0..400 {
        let value = model::value(&mut random);
        let mut dump = DumpWriter::new(room, random.one_in(2));
        dump.begin(value.kind(), value.len()).unwrap();
        value.write_items(&mut dump).unwrap();
        let payload = dump.finish().unwrap();
        let mut model = Model::default();
        load_dump(&payload, &mut model).unwrap();
        let back = model.single();
        assert!(back == value, "seed {seed} round {round}");
        room = payload;
    }
}

#[test]
fn a_string_longer_than_any_buffer_streams_both_ways() {
    let pattern: Vec<u8> = (0..30_000u32).flat_map(|i| (i % 1001).to_le_bytes()).collect();
    let total = 200 * pattern.len() as u64;
    let mut writer = Writer::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.begin(b"big", None, Kind::String, total).unwrap();
    for _ in 0..200 {
        writer.string_piece(&pattern).unwrap();
    }
    writer.end().unwrap();
    let file = writer.finish().unwrap();
    // The same, compressed, which needs it whole.
    let mut packed = Writer::new(Vec::new(), WriterOptions { compress: true, ..WriterOptions::default() }).unwrap();
    packed.string(b"big", None, &pattern.repeat(200)).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() * 2 < file.len());
    for file in [file, packed] {
        let mut model = Model::default();
        let mut reader = Reader::new(std::io::BufReader::new(&file[..]), Options::default());
        reader.read(&mut model).unwrap();
        assert!(reader.peak_buffer_bytes() < 2 << 20, "{} bytes", reader.peak_buffer_bytes());
        assert!(model.single() == model::Value::String(pattern.repeat(200)));
    }
}

#[test]
fn the_bytes_are_those_of_the_oldest_version() {
    let mut writer = Writer::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.select_db(3).unwrap();
    writer.begin(b"z", Some(1), Kind::SortedSet, 3).unwrap();
    writer.scored(b"a", 3.0).unwrap();
    writer.scored(b"b", f64::INFINITY).unwrap();
    writer.scored(b"c", f64::NEG_INFINITY).unwrap();
    writer.end().unwrap();
    writer.string(b"s", None, b"-129").unwrap();
    let file = writer.finish().unwrap();
    let expected =
        b"REDIS0006\xfe\x03\xfc\x01\0\0\0\0\0\0\0\x03\x01z\x03\x01a\x013\x01b\xfe\x01c\xff\0\x01s\xc1\x7f\xff\xff";
    assert_eq!(file[..file.len() - 8].escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn the_writer_holds_to_what_was_announced() {
    let fresh = || Writer::new(Vec::new(), WriterOptions::default()).unwrap();
    let mut w = fresh();
    assert!(matches!(w.begin(b"k", None, Kind::Set, 0), Err(WriteError::Empty)));
    assert!(matches!(w.begin(b"k", None, Kind::Set, 1 << 32), Err(WriteError::NeedsVersion { needed: 8, .. })));
    assert!(matches!(w.begin(b"k", None, Kind::String, 1 << 32), Err(WriteError::NeedsVersion { needed: 8, .. })));
    assert!(matches!(w.aux(b"a", b"b"), Err(WriteError::NeedsVersion { needed: 7, .. })));
    assert!(matches!(w.element(b"x"), Err(WriteError::Order(_))));
    assert!(matches!(w.end(), Err(WriteError::Order(_))));
    assert_eq!(w.offset(), 9, "nothing was written");
    w.begin(b"k", None, Kind::Set, 1).unwrap();
    assert!(matches!(w.field(b"f", b"v"), Err(WriteError::Order(_))));
    assert!(matches!(w.string(b"k", None, b"v"), Err(WriteError::Order(_))));
    assert!(matches!(w.end(), Err(WriteError::TooFew { missing: 1 })));
    w.element(b"x").unwrap();
    assert!(matches!(w.element(b"y"), Err(WriteError::TooMany)));
    w.end().unwrap();
    w.begin(b"z", None, Kind::SortedSet, 1).unwrap();
    assert!(matches!(w.scored(b"m", f64::NAN), Err(WriteError::NotANumber)));
    assert!(w.finish().is_err(), "a value is open");
    for version in [5, 13] {
        let options = WriterOptions { version, compress: false };
        assert!(matches!(Writer::new(Vec::new(), options), Err(WriteError::Version(v)) if v == version));
    }
    assert!(DumpWriter::new(Vec::new(), false).finish().is_err());
}

#[test]
fn a_failed_target_stays_failed() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut w = Writer::new(Full, WriterOptions::default()).unwrap();
    assert!(matches!(w.string(b"k", None, &[0; 100_000]), Err(WriteError::Io(_))));
    assert!(matches!(w.string(b"k", None, b"v"), Err(WriteError::Order(_))));
    assert!(w.finish().is_err());
}
