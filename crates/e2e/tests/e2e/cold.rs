//! Rows that are not in memory: while threads wait for them in the place of the network threads, everything stays in its order.
//!
//! The disk of a test machine is hardly ever slow, so here each row that the engine is asked for counts as one from the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ardb_base::random::Random;
use ardb_e2e::client::Client;
use ardb_e2e::options::seed;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_equal, wait_linked, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: u64 = 2000;

/// Everything is cold, and there is more of it than the caches hold. Rows are read one by one, or, past the system's cache, together.
fn cold_setup(direct_reads: &str) -> Setup {
    let setup = Setup::ardb().with("memory-limit", "16mb").with("direct-reads", direct_reads);
    setup.with("cold-read-microseconds", 0).with("cold-read-threads", 8).with("io-threads", 2)
}

/// Whether the server reads rows together, as it should exactly where it reads past the system's cache.
fn check_way(server: &Server, direct_reads: &str) {
    let together = server.client().unwrap().info_number("storage", "engine_rocksdb_reads_together").unwrap();
    assert_eq!(together, i64::from(direct_reads == "yes"));
}

/// Keys of a client, that nobody else writes, with random values. Gives what they are.
fn fill(client: &mut Client, random: &mut Random, name: &str) -> BTreeMap<String, String> {
    let mut model = BTreeMap::new();
    for at in 0..KEYS {
        // Some are long enough to be held in pieces.
        let words = if at % 50 == 0 { 1300 } else { 256 };
        let value: String = (0..words).map(|_| format!("{:016x}", random.next_u64())).collect();
        let key = format!("{name}:{at}");
        client.queue(&["SET", &key, &value]);
        model.insert(key, value);
    }
    client.flush().unwrap();
    (0..KEYS).for_each(|_| assert_eq!(client.receive().unwrap().text(), "OK"));
    model
}

/// Reads and writes in pipelines, each reply compared.
fn use_them(server: &Server, name: &str, model: &mut BTreeMap<String, String>, random: &mut Random) {
    let mut client = server.client().unwrap();
    client.set_timeout(LIMIT).unwrap();
    for _ in 0..150 {
        let mut want = Vec::new();
        for _ in 0..1 + random.below(12) {
            let key = format!("{name}:{}", random.below(KEYS));
            match random.below(8) {
                0..=3 => {
                    client.queue(&["GET", &key]);
                    want.push(model[&key].clone());
                }
                4 => {
                    let value = format!("{}:{}", key, random.next_u64());
                    client.queue(&["SET", &key, &value]);
                    model.insert(key, value);
                    want.push("OK".into());
                }
                5 => {
                    client.queue(&["APPEND", &key, "+"]);
                    let value = model.get_mut(&key).unwrap();
                    value.push('+');
                    want.push(value.len().to_string());
                }
                6 => {
                    for words in [&["MULTI"][..], &["STRLEN", &key], &["EXEC"]] {
                        client.queue(words);
                    }
                    want.extend(["OK".into(), "QUEUED".into(), format!("[{}]", model[&key].len())]);
                }
                _ => {
                    client.queue(&["PING", &key]);
                    want.push(key);
                }
            }
        }
        client.flush().unwrap();
        for want in want {
            let reply = client.receive().unwrap();
            let text = match reply.items() {
                Some(items) => format!("[{}]", items.iter().map(|item| item.text()).collect::<Vec<_>>().join(" ")),
                None => reply.text(),
            };
            assert_eq!(text, want);
        }
    }
}

#[test]
fn clients_whose_rows_are_cold_get_their_replies_in_order() {
    if !stands_in() {
        ["no", "yes"].into_iter().for_each(replies_in_order);
    }
}

fn replies_in_order(direct_reads: &str) {
    let seed = seed();
    eprintln!("seed {seed}");
    let server = cold_setup(direct_reads).start().unwrap();
    check_way(&server, direct_reads);
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut models: Vec<_> = (seed..)
        .zip(names)
        .map(|(seed, name)| fill(&mut server.client().unwrap(), &mut Random::new(seed), name))
        .collect();
    // Into the engine, and out of memory.
    server.client().unwrap().must("SAVE").unwrap();
    let (send, receive) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (seed..)
            .zip(names)
            .zip(&mut models)
            .map(|((seed, name), model)| {
                let server = &server;
                scope.spawn(move || use_them(server, name, model, &mut Random::new(seed ^ 0xc01d)))
            })
            .collect();
        // Others come and go in the middle of it.
        let server = &server;
        scope.spawn(move || {
            let mut random = Random::new(seed ^ 0xdead);
            while receive.recv_timeout(Duration::from_millis(5)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let mut client = server.client().unwrap();
                for _ in 0..20 {
                    client.queue(&["GET", &format!("a:{}", random.below(KEYS))]);
                }
                client.flush().unwrap();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        drop(send);
    });
    let mut client = server.client().unwrap();
    for (key, value) in models.iter().flatten() {
        assert_eq!(client.call(&["GET", key]).unwrap().text(), *value);
    }
    assert!(client.info_number("stats", "cold_read_threads").unwrap() > 0, "{}", server.log_tail());
}

#[test]
fn what_is_sent_to_a_client_that_is_away_reaches_it() {
    if !stands_in() {
        ["no", "yes"].into_iter().for_each(sent_while_away);
    }
}

fn sent_while_away(direct_reads: &str) {
    let server = cold_setup(direct_reads).start().unwrap();
    let model = fill(&mut server.client().unwrap(), &mut Random::new(7), "k");
    server.client().unwrap().must("SAVE").unwrap();
    let mut listener = server.client().unwrap();
    listener.must("HELLO 3").unwrap();
    listener.must("SUBSCRIBE news").unwrap();
    let mut speaker = server.client().unwrap();
    let (mut news, mut values, mut random) = (0, 0, Random::new(8));
    for _ in 0..100 {
        let keys: Vec<String> = (0..20).map(|_| format!("k:{}", random.below(KEYS))).collect();
        keys.iter().for_each(|key| listener.queue(&["GET", key]));
        listener.flush().unwrap();
        speaker.must("PUBLISH news x").unwrap();
        // Pushes stand between replies, never within one.
        let mut wanted = keys.iter();
        let mut next = wanted.next();
        while next.is_some() || news <= values / 20 {
            let reply = listener.receive().unwrap();
            match reply.items() {
                Some(items) => {
                    assert_eq!(items[2].text(), "x");
                    news += 1;
                }
                None => {
                    assert_eq!(reply.text(), model[next.unwrap()]);
                    (values, next) = (values + 1, wanted.next());
                }
            }
            if next.is_none() && news > (values - 1) / 20 {
                break;
            }
        }
    }
    assert_eq!((news, values), (100, 2000));
}

#[test]
fn a_client_that_was_left_after_its_reply_is_there_for_everything() {
    if !stands_in() {
        ["no", "yes"].into_iter().for_each(left_after_its_reply);
    }
}

fn left_after_its_reply(direct_reads: &str) {
    let server = cold_setup(direct_reads).start().unwrap();
    let names = ["a", "b", "c", "d", "e", "f"];
    let models = names.map(|name| fill(&mut server.client().unwrap(), &mut Random::new(9), name));
    server.client().unwrap().must("SAVE").unwrap();
    let mut random = Random::new(10);
    let mut admin = server.client().unwrap();
    for round in 0..60 {
        let mut client = server.client().unwrap();
        client.set_timeout(LIMIT).unwrap();
        client.must("HELLO 3").unwrap();
        let id = client.must("CLIENT ID").unwrap().text();
        client.must("SUBSCRIBE news").unwrap();
        for _ in 0..100 + random.below(4) {
            let at = random.below(6) as usize;
            let key = format!("{}:{}", names[at], random.below(KEYS));
            client.queue(&["GET", &key]);
            assert_eq!(client.receive().unwrap().text(), models[at][&key]);
        }
        // Sooner and later than it comes back by itself.
        std::thread::sleep(Duration::from_millis([0, 0, 1, 120][round % 4]));
        match round % 3 {
            0 => {
                admin.must("PUBLISH news x").unwrap();
                assert_eq!(client.receive().unwrap().items().unwrap()[2].text(), "x");
            }
            1 => {
                assert_eq!(admin.call(&["CLIENT", "KILL", "ID", &id]).unwrap().text(), "1");
                assert!(client.receive().is_err(), "it is closed");
            }
            _ => drop(client),
        }
        let is_gone = || Ok(!admin.call(&["CLIENT", "LIST"])?.text().contains(&format!("id={id} ")));
        if round % 3 > 0 {
            wait_until("the client is gone", LIMIT, is_gone).unwrap();
        }
    }
    assert!(admin.info_number("stats", "cold_read_threads").unwrap() > 0, "{}", server.log_tail());
}

#[test]
fn the_only_client_does_not_wait_for_a_tick() {
    if !stands_in() {
        ["no", "yes"].into_iter().for_each(no_ticks);
    }
}

/// A client that sends its next request as soon as it has its reply may be quicker than the thread that sent it.
fn no_ticks(direct_reads: &str) {
    const ROUNDS: u64 = 1500;
    let server = cold_setup(direct_reads).start().unwrap();
    let names = ["a", "b", "c", "d", "e", "f"];
    let models = names.map(|name| fill(&mut server.client().unwrap(), &mut Random::new(11), name));
    let mut client = server.client().unwrap();
    client.must("SAVE").unwrap();
    let (mut slow, mut random) = (0, Random::new(12));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Others want the processors, so that threads stop at every place.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for _ in 0..ROUNDS {
            let at = random.below(6) as usize;
            let keys: Vec<String> =
                (0..1 + random.below(8)).map(|_| format!("{}:{}", names[at], random.below(KEYS))).collect();
            let began = Instant::now();
            keys.iter().for_each(|key| client.queue(&["GET", key]));
            client.flush().unwrap();
            keys.iter().for_each(|key| assert_eq!(client.receive().unwrap().text(), models[at][key]));
            slow += u64::from(began.elapsed() > Duration::from_millis(60));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(slow < ROUNDS / 100, "{slow} of {ROUNDS} requests took long");
    assert!(client.info_number("stats", "cold_read_threads").unwrap() > 0, "{}", server.log_tail());
}

#[test]
fn a_replica_whose_rows_are_cold_keeps_up() {
    if !stands_in() {
        ["no", "yes"].into_iter().for_each(replica_keeps_up);
    }
}

fn replica_keeps_up(direct_reads: &str) {
    let seed = seed();
    eprintln!("seed {seed}");
    let (master, replica) = (Setup::ardb().start().unwrap(), cold_setup(direct_reads).start().unwrap());
    let mut model = fill(&mut master.client().unwrap(), &mut Random::new(seed), "k");
    follow(&replica, &master).unwrap();
    wait_linked(&replica, LIMIT).unwrap();
    use_them(&master, "k", &mut model, &mut Random::new(seed + 1));
    wait_equal(&master, &replica, LIMIT).unwrap();
    let mut client = replica.client().unwrap();
    wait_until("many rows were read at once", LIMIT, || Ok(client.info_number("stats", "cold_read_threads")? > 0))
        .unwrap();
}
