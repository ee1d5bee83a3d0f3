//! Who lives and who is dead: what counts as a sign of life on either side of a link, and what does not.

use std::time::{Duration, Instant};

use ardb_e2e::server::Setup;
use ardb_e2e::wait::{follow, syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// Redis says nothing but line ends while it loads, which may take longer than `repl-timeout`.
#[test]
fn line_ends_of_a_replica_that_loads_keep_it() {
    let master = Setup::ardb().with("repl-timeout", 1).with("repl-diskless-sync", "no").start().unwrap();
    let mut client = master.client().unwrap();
    client.must("SET a 1").unwrap();
    let mut replica = master.client().unwrap();
    replica.must("REPLCONF listening-port 9").unwrap();
    replica.queue_raw(b"PSYNC ? -1\r\n", 0);
    replica.flush().unwrap();
    wait_until("the RDB is sent", LIMIT, || {
        Ok(client.info("replication")?.get("slave0").is_some_and(|line| line.contains("state=online")))
    })
    .unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        replica.queue_raw(b"\n", 0);
        replica.flush().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(client.info_number("replication", "connected_slaves").unwrap(), 1, "{}", master.log_tail());
    }
    // They acknowledge nothing, and without them it is let go.
    assert!(client.info("replication").unwrap()["slave0"].contains("offset=0"));
    wait_until("it is let go", LIMIT, || Ok(client.info_number("replication", "connected_slaves")? == 0)).unwrap();
}

/// A script holds the writer for longer than `repl-timeout`, and the link with it. What the master said meanwhile waits in the socket.
#[test]
fn a_replica_that_was_busy_does_not_hold_its_master_for_silent() {
    let master = Setup::ardb().start().unwrap();
    let replica = Setup::ardb().with("repl-timeout", 2).with("busy-reply-threshold", 100).start().unwrap();
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let mut writer = master.client().unwrap();
    writer.must("SET n 0").unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let mut runner = replica.client().unwrap();
    runner.queue(&["EVAL", "while true do redis.call('get', KEYS[1]) end", "1", "k"]);
    runner.flush().unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        writer.must("INCR n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(replica.client().unwrap().ask("SCRIPT KILL").unwrap().is_ok());
    assert!(runner.receive().unwrap().is_error());
    wait_equal(&master, &replica, LIMIT).unwrap();
    assert_eq!(replica.log_count("lost"), 0, "{}", replica.log_tail());
    assert_eq!(syncs(&mut writer).unwrap(), (1, 0));
}
