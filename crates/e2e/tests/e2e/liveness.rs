//! Who lives and who is dead: what counts as a sign of life on either side of a link, and what does not.

use std::time::{Duration, Instant};

use ardb_e2e::server::Setup;
use ardb_e2e::wait::wait_until;

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
