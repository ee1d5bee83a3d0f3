//! What clients do not see of how they are served: which threads go first, how files are read, when the clock is.

use std::fs;
use std::time::Duration;

use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Setup, stands_in};
use ardb_e2e::wait::wait_until;

/// Names of a process's threads and their places (nice).
fn threads(pid: u32) -> Vec<(String, i64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .flatten()
        .filter_map(|task| {
            // A thread may end meanwhile. Its name, in brackets, may have blanks.
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            Some((name.to_string(), rest.split_ascii_whitespace().nth(16)?.parse().ok()?))
        })
        .collect()
}

#[test]
fn those_who_serve_clients_go_first() {
    if stands_in() {
        return;
    }
    let server = Setup::ardb().start().unwrap();
    server.client().unwrap().must("BGREWRITEAOF").unwrap();
    let threads = threads(server.pid().unwrap());
    let place = |name: &str| {
        let found = threads.iter().find(|(other, _)| other == name);
        found.map(|(_, place)| *place).unwrap_or_else(|| panic!("there is a thread {name}: {threads:?}"))
    };
    // One that is watched stands behind others only while it has long work to do.
    let is_watched = threads.iter().any(|(name, _)| name == "ardb-watch");
    for name in ["ardb-checkpoint", "ardb-store-tick", "ardb-log", "rocksdb:low"] {
        if is_watched && name == "ardb-checkpoint" {
            continue;
        }
        assert!(place(name) > place("ardb-net-0"), "{name}: {threads:?}");
    }
}

/// The long parts of a checkpoint run where nobody else wants the processor, if the process may bring the thread back; and then it is.
#[test]
fn a_checkpoint_is_put_aside() {
    if stands_in() {
        return;
    }
    let server = Setup::ardb().with("memory-limit", "64mb").start().unwrap();
    let pid = server.pid().unwrap();
    let task = |name: &str| {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| task.path());
        tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
    };
    let thread = task("ardb-checkpoint").unwrap();
    if task("ardb-watch").is_none() {
        return;
    }
    // The usual policy is 0, that of a thread put aside 5.
    let policy = || {
        let stat = fs::read_to_string(thread.join("stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(38).unwrap().to_string()
    };
    let mut client = server.client().unwrap();
    let (mut writes, mut looks) = (0, 0);
    // Checkpoints begin when enough has changed; the one of BGREWRITEAOF has a thread of its own.
    wait_until("a checkpoint is put aside", Duration::from_secs(30), || {
        client.must(&format!("DEBUG POPULATE 5000 k{writes}"))?;
        writes += 1;
        Ok((0..200).any(|_| policy() == "5"))
    })
    .unwrap();
    wait_until("it is brought back", Duration::from_secs(30), || {
        looks = if policy() == "0" { looks + 1 } else { 0 };
        Ok(looks == 5)
    })
    .unwrap();
}

#[test]
fn files_are_read_as_the_directive_says() {
    if stands_in() {
        return;
    }
    for (choice, told) in [("yes", "1"), ("no", "0"), ("auto", "0")] {
        let server = match Setup::ardb().with_own("direct-reads", choice).start() {
            Ok(server) => server,
            // The file system cannot; then that is what is said.
            Err(error) => {
                assert!(choice == "yes" && error.to_string().contains("direct-reads"), "{error}");
                continue;
            }
        };
        let mut client = server.client().unwrap();
        client.must("SET a 1").unwrap();
        client.must("BGREWRITEAOF").unwrap();
        let info = client.info("storage").unwrap();
        assert_eq!(info.get("engine_rocksdb_direct_reads").map(String::as_str), Some(told), "{choice}");
        assert_eq!(client.must("GET a").unwrap().text(), "1");
    }
}

#[test]
fn huge_pages_are_refused_unless_they_are_wanted() {
    if stands_in() {
        return;
    }
    for (disable, told) in [("yes", "0"), ("no", "1")] {
        let server = Setup::ardb().with_own("disable-thp", disable).start().unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
        // Kernels before 5.0 do not tell.
        if let Some(line) = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")) {
            assert_eq!(line.trim(), told, "disable-thp {disable}");
        }
    }
}

/// The clock is not read for each quick command of a run, but no slow one goes without its time.
#[test]
fn slow_commands_among_many_are_found() {
    if stands_in() {
        return;
    }
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    let keys: Vec<String> = (0..400_000).map(|key| format!("key:{key}")).collect();
    for part in keys.chunks(1000) {
        client.queue(&[&["MSET"][..], &part.iter().flat_map(|key| [key.as_str(), "x"]).collect::<Vec<_>>()].concat());
        assert_eq!(client.receive().unwrap().text(), "OK");
    }
    client.must("CONFIG SET slowlog-log-slower-than 10000").unwrap();
    client.must("CONFIG RESETSTAT").unwrap();
    client.must("SLOWLOG RESET").unwrap();
    for _ in 0..6 {
        client.queue(&["KEYS", "none*"]);
    }
    for _ in 0..6 {
        assert_eq!(client.receive().unwrap().items().map(<[Reply]>::len), Some(0));
    }
    assert!(client.must("SLOWLOG LEN").unwrap().int().is_some_and(|entries| entries >= 3));
    let stats = client.info("commandstats").unwrap();
    let of_keys = stats.get("cmdstat_keys").cloned().unwrap_or_default();
    assert!(of_keys.starts_with("calls=6,"), "{of_keys}");
    let micros = of_keys.split(',').find_map(|field| field.strip_prefix("usec=")?.parse::<u64>().ok());
    assert!(micros.is_some_and(|micros| micros > 30_000), "{of_keys}");
}
