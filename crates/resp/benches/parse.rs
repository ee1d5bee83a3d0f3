//! What the parsing of requests costs: one SET, and sixteen that came together. `cargo bench -p ardb-resp`
#![allow(missing_docs, reason = "the macro makes a function")]

use std::hint::black_box;
use std::ops::Range;

use ardb_resp::request::{Limits, Parser, Progress};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LIMITS: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

/// Parses all requests of a buffer and says how many there are.
fn parse(buffer: &mut [u8], args: &mut Vec<Range<usize>>) -> usize {
    let mut parser = Parser::new();
    let mut count = 0;
    loop {
        args.clear();
        match parser.parse(buffer, args, LIMITS) {
            Ok(Progress::Request { .. }) => count += 1,
            Ok(Progress::Empty) => {}
            Ok(Progress::Incomplete { .. }) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

fn requests(criterion: &mut Criterion) {
    let set = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000007\r\n$20\r\nvvvvvvvvvvvvvvvvvvvv\r\n";
    let mut group = criterion.benchmark_group("parse");
    for (name, count) in [("a SET", 1), ("a pipeline of 16", 16)] {
        let mut buffer = set.repeat(count);
        let mut args = Vec::with_capacity(8);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(parse(black_box(&mut buffer), &mut args), count));
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
