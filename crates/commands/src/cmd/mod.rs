//! The commands, a file for each group. Every file ends in (or begins with) its rows of the table.

pub mod args;
pub mod script;
pub mod string;

use crate::table::Command;

/// The rows of all groups in this crate; the server adds its own.
pub const GROUPS: &[&[Command]] = &[string::COMMANDS];
