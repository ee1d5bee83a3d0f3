//! Lets real Redis Sentinels fail groups of servers over, again and again and under load: the master is killed or frozen in turn, comes back, and
//! is made a replica. Every failover must succeed, and no write that WAIT confirmed for all replicas may be missing in the end.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool that measures time")]

use std::process::ExitCode;
use std::time::Duration;

use ardb_e2e::Result;
use ardb_e2e::options::Options;
use ardb_e2e::sentinel::{Fault, Group, Took};
use ardb_e2e::server::{Server, Setup};

fn main() -> ExitCode {
    let options = Options::read(
        "Fails groups of servers over by Sentinel, under load.",
        &[
            ("failovers", "20", "how often, for each group"),
            ("group", "both", "ardb (three of ours), mixed (two of ours and Redis 7.0), or both"),
            ("down-after", "2000", "ms without an answer after which Sentinel takes a server for dead"),
        ],
    );
    let mut good = true;
    for name in ["ardb", "mixed"] {
        if options.text("group") != "both" && options.text("group") != name {
            continue;
        }
        match run(name, &options) {
            Ok((confirmed, 0)) => println!("{name}: {confirmed} writes confirmed by all replicas, 0 lost"),
            Ok((confirmed, lost)) => {
                println!("{name}: FAILED: {lost} of {confirmed} confirmed writes lost");
                good = false;
            }
            Err(failure) => {
                println!("{name}: FAILED: {failure}");
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn servers(name: &str) -> Result<Vec<Server>> {
    let second = if name == "mixed" { Setup::redis("7.0") } else { Setup::ardb() };
    [Setup::ardb(), second, Setup::ardb()].into_iter().map(Setup::start).collect()
}

fn run(name: &str, options: &Options) -> Result<(u64, u64)> {
    let mut group = Group::form(servers(name)?, Duration::from_millis(options.number("down-after")))?;
    let mut all: Vec<Took> = Vec::new();
    for round in 0..options.number("failovers") {
        let fault = if round % 2 == 0 { Fault::Kill } else { Fault::Freeze };
        let before = group.sentinels.agreed()?;
        let master = group.servers.iter().find(|server| Some(server.port) == before).map(Server::name);
        let took = group.fail_over(fault).map_err(|failure| {
            let logs: Vec<String> =
                group.servers.iter().map(|server| format!("{}:\n{}", server.name(), server.log_tail())).collect();
            ardb_e2e::error(format!(
                "failover {round} ({fault:?}): {failure}\nSentinel:\n{}\n{}",
                group.sentinels.log_tail(),
                logs.join("\n")
            ))
        })?;
        println!(
            "{name} {:>2}: {fault:?} of {}: another master after {:.1} s, writes after {:.1} s, whole again {:.1} s after the fault's end",
            round + 1,
            master.unwrap_or_default(),
            took.switched.as_secs_f64(),
            took.served.as_secs_f64(),
            took.healed.as_secs_f64()
        );
        all.push(took);
    }
    let (sent, _) = group.writers.counts();
    let mut served: Vec<f64> = all.iter().map(|took| took.served.as_secs_f64()).collect();
    served.sort_by(f64::total_cmp);
    let at = |part: usize| served.get(served.len() * part / 100).or(served.last()).copied().unwrap_or(0.0);
    println!(
        "{name}: {} failovers, writes went on after {:.1} s (median), {:.1} s (worst); {sent} writes sent",
        all.len(),
        at(50),
        at(99)
    );
    group.finish()
}
