//! How fast RDBs are written and read: `cargo run --release -p ardb-rdb --example speed [megabytes]`.

#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::print_stdout)] // its output is its purpose

use std::convert::Infallible;
use std::io::BufReader;
use std::time::Instant;

use ardb_rdb::{Items, KeyMeta, Kind, Options, Reader, Sink, WriteError, Writer, WriterOptions};

/// Counts items and bytes, so that nothing is optimized away.
#[derive(Default)]
struct Count {
    items: u64,
    bytes: u64,
}

impl Sink for Count {
    type Error = Infallible;

    fn select_db(&mut self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn function(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn begin(&mut self, key: &[u8], _: &KeyMeta, _: Kind, _: Option<u64>) -> Result<(), Infallible> {
        self.string_piece(key)
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        self.items += 1;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    fn element(&mut self, element: &[u8]) -> Result<(), Infallible> {
        self.string_piece(element)
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.string_piece(field)?;
        self.string_piece(value)
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Infallible> {
        self.bytes += u64::from(score > 0.5);
        self.string_piece(member)
    }

    fn end(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

type Fill = fn(&mut Writer<Vec<u8>>, u64) -> Result<(), WriteError>;

/// What is written per step: one key, or one big value of a thousand items.
const CASES: [(&str, Fill); 5] = [
    ("strings of 100 bytes", |w, i| w.string(&name(b"key:", i), None, &[b'v'; 100])),
    ("integers with expiry", |w, i| {
        w.string(&name(b"key:", i), Some(4_000_000_000_000), &name(b"", 900_000_000 + i % 1000)[14..22])
    }),
    ("lists of 24 bytes", |w, i| {
        w.begin(&name(b"list:", i), None, Kind::List, 1000)?;
        for n in 0..1000 {
            w.element(&name(b"element:", n))?;
        }
        w.end()
    }),
    ("hashes of 24 + 100 bytes", |w, i| {
        w.begin(&name(b"hash:", i), None, Kind::Hash, 1000)?;
        for n in 0..1000 {
            w.field(&name(b"fiel", n), &[b'v'; 100])?;
        }
        w.end()
    }),
    ("sorted sets", |w, i| {
        w.begin(&name(b"zset:", i), None, Kind::SortedSet, 1000)?;
        for n in 0..1000 {
            w.scored(&name(b"member:", n), n as f64 * 1.1)?;
        }
        w.end()
    }),
];

/// A prefix and twelve digits, without an allocation, so that the writer is measured and not this.
fn name(prefix: &[u8], n: u64) -> [u8; 24] {
    let mut out = [b'_'; 24];
    out[..prefix.len()].copy_from_slice(prefix);
    let mut n = n + 10_000_000_000;
    for digit in out[12..].iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes: u64 = std::env::args().nth(1).map_or(Ok(50), |arg| arg.parse())?;
    for compress in [false, true] {
        for (what, fill) in CASES {
            let options = WriterOptions { compress, ..WriterOptions::default() };
            let (mut wrote, mut read) = (f64::MAX, f64::MAX);
            let (mut file, mut count) = (Vec::new(), Count::default());
            // The best of a few, because the machine may have other work.
            for _ in 0..5 {
                file.clear();
                file.reserve(megabytes as usize * 1_100_000);
                let start = Instant::now();
                let mut writer = Writer::new(file, options)?;
                let mut steps = 0;
                while writer.offset() < megabytes * 1_000_000 {
                    fill(&mut writer, steps)?;
                    steps += 1;
                }
                file = writer.finish()?;
                wrote = wrote.min(start.elapsed().as_secs_f64());
                let start = Instant::now();
                count = Count::default();
                Reader::new(BufReader::with_capacity(64 << 10, &file[..]), Options::default()).read(&mut count)?;
                read = read.min(start.elapsed().as_secs_f64());
            }
            let (mb, items) = (file.len() as f64 / 1e6, count.items as f64 / 1e6);
            println!(
                "{what:26} {:4} {mb:5.0} MB {:5.0} MB content  write {:5.0} MB/s {:5.1} M/s  read {:5.0} MB/s {:5.1} M/s",
                if compress { "LZF" } else { "" },
                count.bytes as f64 / 1e6,
                mb / wrote,
                items / wrote,
                mb / read,
                items / read
            );
        }
    }
    Ok(())
}
