//! What an RDB file of ten thousand strings costs, written and read. `cargo bench -p ardb-rdb`
#![allow(missing_docs, reason = "the macro makes a function")]

use std::convert::Infallible;

use ardb_rdb::{KeyMeta, Kind, Options, Reader, Sink, Writer, WriterOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const STRINGS: u64 = 10_000;

/// Counts what it is given.
#[derive(Default)]
struct Count(u64);

impl Sink for Count {
    type Error = Infallible;

    fn select_db(&mut self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn function(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn begin(&mut self, _: &[u8], _: &KeyMeta, _: Kind, _: Option<u64>) -> Result<(), Infallible> {
        self.0 += 1;
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        std::hint::black_box(piece);
        Ok(())
    }

    fn element(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn field(&mut self, _: &[u8], _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn scored(&mut self, _: &[u8], _: f64) -> Result<(), Infallible> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn write(names: &[String], file: Vec<u8>) -> Vec<u8> {
    let mut writer = Writer::new(file, WriterOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    for name in names {
        writer.string(name.as_bytes(), None, &[b'v'; 100]).unwrap_or_else(|error| panic!("{error}"));
    }
    writer.finish().unwrap_or_else(|error| panic!("{error}"))
}

fn files(criterion: &mut Criterion) {
    let names: Vec<String> = (0..STRINGS).map(|n| format!("key:{n:012}")).collect();
    let mut file = write(&names, Vec::new());
    let mut group = criterion.benchmark_group("rdb of 10,000 strings");
    group.throughput(Throughput::Bytes(file.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut count = Count::default();
            let read = Reader::new(&file[..], Options::default()).read(&mut count);
            assert!(read.is_ok() && count.0 == STRINGS);
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            let mut room = std::mem::take(&mut file);
            room.clear();
            file = write(&names, room);
        });
    });
    group.finish();
}

criterion_group!(benches, files);
criterion_main!(benches);
