//! Links that are cut at random bytes, by a proxy between a master and its replica.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ardb_base::random::Random;
use ardb_e2e::load::{Flavor, Generator, Load, populate};
use ardb_e2e::options::seed;
use ardb_e2e::server::{Setup, stands_in};
use ardb_e2e::wait::{syncs, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Shared {
    /// Whether connections are cut.
    cutting: AtomicBool,
    cuts: AtomicU64,
    stop: AtomicBool,
}

/// Passes bytes on, and while it is told to, cuts each connection after a random number of them.
struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    fn start(to: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            let mut random = Random::new(seed);
            for client in listener.incoming() {
                if of_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", to))) else { continue };
                // From within the handshake to a good part of the stream.
                let scale = random.below(17);
                let budget = 20 + random.below(1 << scale);
                let (back, forth) = ((server.try_clone(), client.try_clone()), (client, server));
                let (Ok(from), Ok(to)) = back else { continue };
                let shared = of_thread.clone();
                std::thread::spawn(move || pass(from, to, budget, &shared));
                let shared = of_thread.clone();
                std::thread::spawn(move || pass(forth.0, forth.1, u64::MAX, &shared));
            }
        });
        Proxy { port, shared }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Passes bytes in one direction, up to `budget` of them while connections are cut.
fn pass(mut from: TcpStream, mut to: TcpStream, budget: u64, shared: &Shared) {
    let mut bytes = [0; 4096];
    let mut passed = 0;
    while let Ok(count) = from.read(&mut bytes) {
        let cut = shared.cutting.load(Ordering::SeqCst) && passed + count as u64 > budget;
        let most = if cut { budget.saturating_sub(passed) as usize } else { count };
        if count == 0 || to.write_all(&bytes[..most.min(count)]).is_err() {
            break;
        }
        passed += count as u64;
        if cut {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Under load, with `wanted` cuts: one full sync in all, and equal in the end.
fn heals(master: Setup, replica: Setup, flavor: Flavor, wanted: u64) {
    let seed = seed();
    eprintln!("seed {seed}");
    let master = master.start().unwrap();
    populate(&mut master.client().unwrap(), seed, 2000).unwrap();
    let replica = replica.start().unwrap();
    let proxy = Proxy::start(master.port, seed);
    replica.client().unwrap().must(&format!("SLAVEOF 127.0.0.1 {}", proxy.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    let load = Load::start(master.port, Generator::new(seed, flavor, 300), 3000);
    proxy.shared.cutting.store(true, Ordering::SeqCst);
    wait_until("the link has been cut often", Duration::from_secs(60), || {
        Ok(proxy.shared.cuts.load(Ordering::SeqCst) >= wanted)
    })
    .unwrap();
    proxy.shared.cutting.store(false, Ordering::SeqCst);
    load.stop().unwrap();
    wait_equal(&master, &replica, LIMIT).unwrap();
    let (full, _) = syncs(&mut master.client().unwrap()).unwrap();
    assert!(stands_in() || full == 1, "{full} full syncs:\n{}", replica.log_tail());
}

#[test]
fn a_cut_link_to_redis_7_heals() {
    heals(Setup::redis("7.0"), Setup::ardb(), Flavor::New, 40);
}

#[test]
fn a_cut_link_to_redis_2_8_heals() {
    heals(Setup::redis("2.8"), Setup::ardb(), Flavor::Old, 40);
}

#[test]
fn a_cut_link_from_redis_7_heals() {
    // It waits a second before each attempt.
    heals(Setup::ardb(), Setup::redis("7.0"), Flavor::New, 5);
}

#[test]
fn a_cut_link_between_two_of_ours_heals() {
    heals(Setup::ardb(), Setup::ardb(), Flavor::New, 40);
}

#[test]
fn what_cannot_be_applied_stops_the_link_and_says_so() {
    if stands_in() {
        return; // Redis knows streams.
    }
    let master = Setup::redis("7.0").start().unwrap();
    let replica = Setup::ardb().start().unwrap();
    let mut client = master.client().unwrap();
    client.must("SET a 1").unwrap();
    replica.client().unwrap().must(&format!("REPLICAOF 127.0.0.1 {}", master.port)).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    // They may come in one piece: what stands before the unknown command is applied.
    client.queue(&["SET", "before", "1"]);
    client.queue(&["XADD", "stream", "*", "field", "value"]);
    client.queue(&["SET", "after", "1"]);
    client.flush().unwrap();
    for _ in 0..3 {
        client.receive().unwrap();
    }
    let mut follower = replica.client().unwrap();
    wait_until("the link stops", LIMIT, || Ok(follower.info("replication")?["master_link_status"] == "down")).unwrap();
    let info = follower.info("replication").unwrap();
    assert_eq!(info["master_link_stopped"], "1");
    assert!(info["master_link_error"].to_lowercase().contains("'xadd'"), "{}", info["master_link_error"]);
    assert_eq!(follower.ask("GET before").unwrap().text(), "1");
    assert_eq!(follower.ask("EXISTS after").unwrap().int(), Some(0));
    // Another attempt comes to the same place, and tells the same.
    follower.must(&format!("REPLICAOF 127.0.0.1 {}", master.port)).unwrap();
    wait_until("it stops again", LIMIT, || Ok(follower.info("replication")?["master_link_stopped"] == "1")).unwrap();
    assert_eq!(replica.log_count("cannot be applied any further"), 2, "{}", replica.log_tail());
}
