//! The commands, a file for each group. Every file ends in (or begins with) its rows of the table.

pub mod args;
pub mod bitfield;
pub mod bitmap;
pub mod compare;
pub mod copy;
pub mod counter;
pub mod dump;
pub mod expire;
pub mod function;
pub mod geo;
pub mod hash;
pub mod help;
pub mod hgetdel;
pub mod hll;
pub mod keys;
pub mod lcs;
pub mod list;
pub mod list_blocking;
pub mod msetex;
pub mod multi;
pub mod object;
pub mod pubsub;
pub mod scan;
pub mod script;
pub mod set;
pub mod sort;
pub mod string;
pub mod zset;

use crate::table::Command;

/// The rows of all groups in this crate; the server adds its own.
pub const GROUPS: &[&[Command]] = &[
    bitfield::COMMANDS,
    bitmap::COMMANDS,
    compare::COMMANDS,
    copy::COMMANDS,
    counter::COMMANDS,
    dump::COMMANDS,
    expire::COMMANDS,
    function::COMMANDS,
    geo::COMMANDS,
    geo::search::COMMANDS,
    hash::COMMANDS,
    hgetdel::COMMANDS,
    hll::COMMANDS,
    keys::COMMANDS,
    lcs::COMMANDS,
    list::COMMANDS,
    list_blocking::COMMANDS,
    msetex::COMMANDS,
    multi::COMMANDS,
    object::COMMANDS,
    pubsub::COMMANDS,
    scan::COMMANDS,
    script::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    string::COMMANDS,
    zset::combine::COMMANDS,
    zset::pop::COMMANDS,
    zset::range::COMMANDS,
    zset::read::COMMANDS,
    zset::write::COMMANDS,
];
