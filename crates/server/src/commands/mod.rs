//! Commands that need the server itself: connections, configuration, INFO, saving, debugging. Their rows stand in the same table as those of
//! the data commands.

pub mod admin;
pub mod client;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod info;
pub mod save;

use ardb_commands::Command;

/// The rows of all files here.
pub const GROUPS: &[&[Command]] = &[
    admin::COMMANDS,
    client::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    info::COMMANDS,
    save::COMMANDS,
    crate::repl::commands::COMMANDS,
];
