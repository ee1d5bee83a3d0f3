//! GET and SET of short and long values, over one connection and a thousand, on all servers in turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use ardb_e2e::Result;
use ardb_e2e::drive::Plan;
use ardb_e2e::values::Shape;
use ardb_e2e::zipf::Choice;

use crate::bed::{Bed, Medians, Run, say};
use crate::strings::{Fill, Mix};

/// GET and SET: SETs of a hundred requests.
const TESTS: [(&str, u64); 2] = [("GET", 0), ("SET", 100)];

pub fn run(bed: &Bed) -> Result<String> {
    let peers = bed.peers("size-peers")?;
    let clients = bed.list::<u64>("size-clients")?;
    let mut out = format!(
        "`-P 1`; medians of {} rounds in turns of {} s, or of {} MB of SETs.\n\n| | bytes | connections |",
        bed.number("rounds"),
        bed.number("seconds"),
        bed.number("size-mb")
    );
    for (at, (name, _)) in peers.iter().enumerate() {
        out.push_str(&format!(
            " {name}: requests/s | p50 / p99 / p99.9 ms | CPU us |{}",
            if at > 0 { " ratio |" } else { "" }
        ));
    }
    out.push_str(&format!("\n|{}\n", "---|".repeat(2 + 4 * peers.len())));
    for bytes in bed.list::<u64>("size-bytes")? {
        let shape = Shape::new(bytes, 100);
        let size = shape.size() as u64;
        // As many keys as make a quarter of a gigabyte, so that all fits.
        let keys = ((256 << 20) / size).clamp(100, bed.number("size-keys").max(100));
        let servers = peers.iter().map(|(_, kind)| bed.start(*kind)).collect::<Result<Vec<_>>>()?;
        for server in &servers {
            server.drive(&Plan::new(server.port, if bytes > 100_000 { 1 } else { 16 }), Fill::parts(8, keys, shape))?;
        }
        let choice = Arc::new(Choice::Uniform(keys));
        let most = (bed.number("size-mb") << 20) / size;
        let mut runs: BTreeMap<(u64, usize, usize), Vec<Run>> = BTreeMap::new();
        for round in 0..bed.number("rounds").max(1) {
            for &count in &clients {
                for (number, (name, writes)) in TESTS.into_iter().enumerate() {
                    for turn in 0..servers.len() {
                        let at = if round % 2 == 0 { turn } else { servers.len() - 1 - turn };
                        // Long values would fill the disk with logs.
                        let requests = if writes > 0 { most.max(count) } else { u64::MAX };
                        let seed = bed.number("seed") * 100 + round;
                        let work = Mix::some(count, shape, &choice, writes, seed, requests);
                        let plan = Plan::new(servers[at].port, 1).lasting(bed.seconds("seconds"));
                        let (run, _) = servers[at].drive(&plan, work)?;
                        say(format!(
                            "{name} of {bytes}, {count} connections, {}: {:.0}/s, {:.2} us, the client {:.2}",
                            peers[at].0,
                            run.outcome.rate(),
                            run.cpu,
                            run.own
                        ));
                        runs.entry((count, number, at)).or_default().push(run);
                    }
                }
            }
        }
        for (number, (name, _)) in TESTS.into_iter().enumerate() {
            for &count in &clients {
                out.push_str(&format!("| {name} | {bytes} | {count} |"));
                let all: Vec<Medians> = (0..peers.len()).map(|at| Medians::of(&runs[&(count, number, at)])).collect();
                for (at, one) in all.iter().enumerate() {
                    out.push_str(&one.cells());
                    if at > 0 {
                        out.push_str(&format!(" {:.2} |", all[0].rate / one.rate));
                    }
                }
                out.push('\n');
            }
        }
    }
    Ok(out)
}
