//! What a second network thread brings, for GET and SET.

use std::collections::BTreeMap;
use std::sync::Arc;

use ardb_e2e::Result;
use ardb_e2e::drive::Plan;
use ardb_e2e::server::Kind;
use ardb_e2e::values::Shape;
use ardb_e2e::zipf::Choice;

use crate::bed::{Bed, Medians, Run, say};
use crate::strings::{Fill, Mix};

/// GET and SET: SETs of a hundred requests.
const TESTS: [(&str, u64); 2] = [("GET", 0), ("SET", 100)];
const PIPELINES: [u64; 3] = [1, 16, 64];
const CLIENTS: u64 = 50;

pub fn run(bed: &Bed) -> Result<String> {
    let (keys, shape) = (bed.number("thread-keys").max(2), Shape::new(16, 0));
    let servers =
        [bed.start_with(Kind::Ardb, &[("io-threads", "1")])?, bed.start_with(Kind::Ardb, &[("io-threads", "2")])?];
    for server in &servers {
        server.drive(&Plan::new(server.port, 64), Fill::parts(8, keys, shape))?;
    }
    let choice = Arc::new(Choice::Uniform(keys));
    let mut runs: BTreeMap<(u64, usize, usize), Vec<Run>> = BTreeMap::new();
    for round in 0..bed.number("rounds").max(1) {
        for pipeline in PIPELINES {
            for (number, (name, writes)) in TESTS.into_iter().enumerate() {
                for turn in 0..servers.len() {
                    let at = if round % 2 == 0 { turn } else { servers.len() - 1 - turn };
                    let work = Mix::parts(CLIENTS, shape, &choice, writes, bed.number("seed") * 100 + round);
                    let plan = Plan::new(servers[at].port, pipeline).lasting(bed.seconds("seconds"));
                    let (run, _) = servers[at].drive(&plan, work)?;
                    say(format!(
                        "{name}, -P {pipeline}, {} threads: {:.0}/s, {:.2} us, the client {:.2}",
                        at + 1,
                        run.outcome.rate(),
                        run.cpu,
                        run.own
                    ));
                    runs.entry((pipeline, number, at)).or_default().push(run);
                }
            }
        }
    }
    let mut out = format!(
        "{keys} keys with values of 16 bytes, {CLIENTS} connections, two threads of the client; medians of {} rounds in turns of {} s.\n\n\
         | | -P | `io-threads 1`: requests/s | p50 / p99 / p99.9 ms | CPU us | `io-threads 2`: requests/s | p50 / p99 / p99.9 ms | CPU us | two by one |\n|---|---|---|---|---|---|---|---|---|\n",
        bed.number("rounds"),
        bed.number("seconds")
    );
    for (number, (name, _)) in TESTS.into_iter().enumerate() {
        for pipeline in PIPELINES {
            let [one, two] = [0, 1].map(|at| Medians::of(&runs[&(pipeline, number, at)]));
            out.push_str(&format!(
                "| {name} | {pipeline} |{}{} {:.2} |\n",
                one.cells(),
                two.cells(),
                two.rate / one.rate
            ));
        }
    }
    Ok(out)
}
