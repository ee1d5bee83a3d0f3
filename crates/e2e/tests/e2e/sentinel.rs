//! One failover of each kind by real Sentinels; `--bin sentinel` does many.

use std::time::Duration;

use ardb_e2e::sentinel::{Fault, Group};
use ardb_e2e::server::Setup;

fn survives(second: Setup, fault: Fault) {
    let servers = [Setup::ardb(), second, Setup::ardb()].map(|setup| setup.start().unwrap());
    let mut group = Group::form(servers.into(), Duration::from_millis(2000)).unwrap();
    if let Err(failure) = group.fail_over(fault) {
        panic!("{failure}\n{}", group.sentinels.log_tail());
    }
    let (confirmed, lost) = group.finish().unwrap();
    assert!(confirmed > 0);
    assert_eq!(lost, 0, "of {confirmed} writes that all replicas confirmed");
}

#[test]
fn sentinel_replaces_a_killed_master() {
    survives(Setup::ardb(), Fault::Kill);
}

#[test]
fn sentinel_replaces_a_frozen_master_of_a_mixed_group() {
    survives(Setup::redis("7.0"), Fault::Freeze);
}
