//! `ardb-server`: the command line, and what is printed instead of running.

#![allow(clippy::disallowed_methods, reason = "the layer that owns the clock, randomness, the environment and files")]

use std::io::Write;
use std::process::ExitCode;

use ardb_server::config::source::{self, Invocation};
use ardb_server::{VERSION, commands, compat, config, start};

/// Rows are small allocations that one thread makes and another frees, at which the system's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: ardb-server [/path/to/ardb.conf] [--directive value ...] [-]
       ardb-server -                    reads the configuration from the standard input
       ardb-server -v | --version
       ardb-server -h | --help
       ardb-server --print-config-docs  prints the reference of all directives
       ardb-server --print-compat       prints the tables of commands for docs/compat.md

Examples:
       ardb-server --port 7777 --dir /var/lib/ardb
       ardb-server /etc/ardb.conf --loglevel verbose
       ardb-server --port 7777 --replicaof 127.0.0.1 6379
";

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match source::from_command_line(&args) {
        Ok(Invocation::Version) => {
            print(&format!("Ardb server v={VERSION} redis_version:{} bits=64\n", commands::info::REDIS_VERSION))
        }
        Ok(Invocation::Help) => print(USAGE),
        Ok(Invocation::Reference) => print(&config::docs::reference()),
        Ok(Invocation::Compat) => print(&compat::tables()),
        Ok(Invocation::Run { config, warnings }) => match start::run(*config, &warnings, &args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::error!("{error}");
                eprintln!("ardb-server: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("\n*** FATAL CONFIG FILE ERROR (Ardb {VERSION}) ***\n{error}");
            ExitCode::FAILURE
        }
    }
}
