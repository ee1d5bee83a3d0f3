//! What a server can hold and for how long it stays fast: what `redis-benchmark` cannot measure.
//!
//! Sections, each of which can be run alone: [`bigger`] data than memory, [`queues`] through which millions pass, [`ranks`] in huge collections, [`disk`] space and
//! wear, [`restart`], [`reads`] of collections over many keys, [`threads`], [`sizes`] of values. Each starts its servers itself, in fresh folders that go
//! when it is done, and checks every reply: a wrong or missing value is a failure. It writes a page of its own into the folder for results;
//! `capacity.md` there is all that have been written, so parts can be measured one by one.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

mod bed;
mod bigger;
mod cgroup;
mod device;
mod disk;
mod machine;
mod queues;
mod ranks;
mod reads;
mod removal;
mod restart;
mod sizes;
mod strings;
mod threads;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use ardb_e2e::Result;
use ardb_e2e::options::Options;

use crate::bed::Bed;

/// A section: its name, its title, and what measures it and gives its text.
type Section = (&'static str, &'static str, fn(&Bed) -> Result<String>);

/// In the order in which they stand on the page.
const SECTIONS: [Section; 8] = [
    ("bigger", "Data larger than memory", bigger::run),
    ("queues", "Queues", queues::run),
    ("ranks", "Large collections", ranks::run),
    ("disk", "Space and wear", disk::run),
    ("restart", "Restart", restart::run),
    ("reads", "Reads of collections", reads::run),
    ("threads", "Network threads", threads::run),
    ("sizes", "Sizes of values, numbers of connections", sizes::run),
];

const OPTIONS: [(&str, &str, &str); 47] = [
    ("sections", "all", "which ones, with commas between: bigger, queues, ranks, disk, restart, reads, threads, sizes"),
    ("out", "target/capacity", "a folder for the pages and plots"),
    ("work", "", "a folder for the servers' folders, on the disk that is measured [the system's for temporary files]"),
    ("ardb", "", "further directives for Ardb: name=value, with commas between"),
    ("seed", "1", "of the keys that are asked for"),
    ("memory", "1gb", "Ardb's memory-limit"),
    ("rounds", "3", "of what is compared; figures are medians"),
    ("seconds", "5", "that each run of reads, threads and sizes takes"),
    ("bigger-gb", "20", "bigger: gigabytes of values"),
    ("bigger-bytes", "1000", "bigger: of a value"),
    ("bigger-random", "50", "bigger: percent of a value that does not compress"),
    ("bigger-seconds", "45", "bigger: that each mix takes"),
    ("bigger-clients", "64", "bigger: connections"),
    ("bigger-pipelines", "1,16", "bigger: requests on their way on each"),
    ("bigger-direct", "yes", "bigger: direct-reads"),
    ("bigger-remove", "yes", "bigger: no leaves out the removal of half of the keys"),
    ("bigger-expire", "100000", "bigger: keys of the other half that expire together"),
    ("cgroup-limit", "2gb", "bigger: memory of the process, its page cache included; no sets no limit"),
    ("device-seconds", "10", "bigger: that the disk alone is read"),
    ("settle", "900", "seconds to wait at most for compaction to end, or for space to come back"),
    ("quiet", "30", "seconds after which space that has not changed is what it will be"),
    ("queue-lists", "100000000", "queues: elements through a list"),
    ("queue-zsets", "100000000", "queues: members through a sorted set"),
    ("queue-standing", "100000", "queues: elements that wait in it"),
    ("queue-clients", "4", "queues: connections"),
    ("queue-pipeline", "64", "queues: requests on their way on each"),
    ("queue-within", "10", "queues: percent that the last tenth may be slower than the first"),
    ("rank-members", "10000000", "ranks: members of the sorted set, and elements of the list"),
    ("rank-seconds", "10", "ranks: that each question is asked"),
    ("rank-peers", "ardb,redis-7.0", "ranks: servers"),
    ("disk-strings", "5000000", "disk: strings of 100 random bytes"),
    ("disk-hashes", "1000000", "disk: hashes of ten fields of 20 random bytes"),
    ("restart-keys", "50000000", "restart: keys"),
    ("restart-bytes", "16", "restart: of a value"),
    ("restart-clients", "8", "restart: connections that write until the kill"),
    ("restart-seconds", "20", "restart: from the beginning of their load to the kill"),
    ("read-keys", "100000", "reads: keys of small collections"),
    ("read-lists", "1000", "reads: lists and sorted sets of 100, 1000 and more"),
    ("read-length", "1000", "reads: elements of each of those"),
    ("read-pipelines", "1,16", "reads: requests on their way on each connection"),
    ("read-clients", "50", "reads: connections"),
    ("thread-keys", "1000000", "threads: keys"),
    ("size-peers", "ardb,redis-7.0,valkey-9.1", "sizes: servers"),
    ("size-bytes", "16,100,4096,1048576", "sizes: of a value"),
    ("size-clients", "1,50,1000", "sizes: connections"),
    ("size-keys", "1000000", "sizes: keys at most; of long values as many as make 256 MB"),
    ("size-mb", "1024", "sizes: megabytes after which a run of SETs ends"),
];

fn main() -> ExitCode {
    let options = Options::read("Measures what a server can hold, and for how long it stays fast.", &OPTIONS);
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} failed");
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<usize> {
    let bed = Bed::new(options)?;
    let wanted =
        |name: &str| options.text("sections") == "all" || options.text("sections").split(',').any(|s| s == name);
    if let Some(other) = options
        .text("sections")
        .split(',')
        .find(|name| *name != "all" && SECTIONS.iter().all(|(known, ..)| known != name))
    {
        return Err(ardb_e2e::error(format!("--sections: there is no {other}")));
    }
    let mut failed = 0;
    for (name, title, section) in SECTIONS.into_iter().filter(|(name, ..)| wanted(name)) {
        println!("== {name}");
        let start = Instant::now();
        let text = section(&bed).unwrap_or_else(|failure| format!("**FAILED**: {failure}\n"));
        failed += usize::from(text.contains("**FAILED**") || bed.take_faults() > 0);
        let text = format!("## {title}\n\n{text}\n{}\n", machine::footer(start.elapsed()));
        println!("{text}");
        bed.page(name, &text)?;
        let parts = SECTIONS.iter().filter_map(|(name, ..)| bed.read_page(name));
        bed.page("capacity", &format!("# Capacity\n\n{}\n{}", machine::describe()?, parts.collect::<String>()))?;
    }
    Ok(failed)
}
