//! Clients move between network threads while they work: nothing of what they sent, and nothing that is sent to them, is lost or out of order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ardb_e2e::server::Setup;
use ardb_e2e::wait::wait_until;

const THREADS: u64 = 3;
const WORKERS: u64 = 12;
const TIME: Duration = Duration::from_secs(4);

#[test]
fn clients_lose_nothing_on_their_way() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let setup = Setup::ardb().with("enable-debug-command", "yes").with_own("io-threads", THREADS);
    let server = setup.start().unwrap();
    let mut listener = server.client().unwrap();
    listener.must("SUBSCRIBE news").unwrap();
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let (moves, done, heard) = std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut client = server.client().unwrap();
            let mut moves = 0;
            while begun.elapsed() < TIME {
                client.must(&format!("DEBUG NETWORK-THREADS {}", 1 + moves % THREADS)).unwrap();
                moves += 1;
                std::thread::sleep(Duration::from_millis(3));
            }
            over.store(true, Ordering::SeqCst);
            moves
        });
        // Each counts in pipelines and in transactions, and waits for what it pushes itself.
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut client = server.client().unwrap();
                    let (counter, list) = (format!("counter:{worker}"), format!("list:{worker}"));
                    let mut count = 0;
                    while !over.load(Ordering::SeqCst) {
                        for _ in 0..20 {
                            client.queue(&["INCR", &counter]);
                        }
                        client.queue(&["WATCH", &counter]);
                        client.queue(&["MULTI"]);
                        client.queue(&["INCR", &counter]);
                        client.queue(&["RPUSH", &list, &count.to_string()]);
                        client.queue(&["EXEC"]);
                        client.queue(&["BLPOP", &list, "5"]);
                        client.queue(&["PUBLISH", "news", &format!("{worker} {count}")]);
                        let replies: Vec<_> = (0..27).map(|_| client.receive().unwrap()).collect();
                        for reply in &replies[..20] {
                            count += 1;
                            assert_eq!(reply.text(), count.to_string());
                        }
                        count += 1;
                        let executed = replies[24].items().unwrap();
                        assert_eq!(executed[0].text(), count.to_string());
                        assert_eq!(replies[25].items().unwrap()[1].text(), (count - 21).to_string());
                        assert_eq!(replies[26].text(), "1", "the subscriber is there");
                    }
                    count
                })
            })
            .collect();
        let subscriber = scope.spawn(move || {
            let mut last = [None; WORKERS as usize];
            let mut heard = 0;
            loop {
                let message = listener.receive().unwrap().items().unwrap()[2].text();
                if message == "end" {
                    return heard;
                }
                let (worker, count) = message.split_once(' ').unwrap();
                let (worker, count): (usize, u64) = (worker.parse().unwrap(), count.parse().unwrap());
                assert!(last[worker].is_none_or(|last| last < count), "in order");
                last[worker] = Some(count);
                heard += 1;
            }
        });
        let moves = mover.join().unwrap();
        let done: Vec<u64> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        let mut client = server.client().unwrap();
        assert_eq!(client.ask("PUBLISH news end").unwrap().text(), "1");
        (moves, done, subscriber.join().unwrap())
    });
    assert!(moves > 100, "{moves}");
    assert_eq!(heard, done.iter().map(|count| count / 21).sum::<u64>(), "each message once");
    let mut client = server.client().unwrap();
    for (worker, count) in done.iter().enumerate() {
        assert_eq!(client.ask(&format!("GET counter:{worker}")).unwrap().text(), count.to_string());
    }
}

#[test]
fn one_that_has_moved_can_be_killed() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let setup = Setup::ardb().with("enable-debug-command", "yes").with_own("io-threads", THREADS);
    let server = setup.start().unwrap();
    let mut killer = server.client().unwrap();
    for round in 0..30 {
        let mut clients: Vec<_> = (0..6).map(|_| server.client().unwrap()).collect();
        let ids: Vec<String> = clients.iter_mut().map(|client| client.ask("CLIENT ID").unwrap().text()).collect();
        killer.must(&format!("DEBUG NETWORK-THREADS {}", 1 + round % THREADS)).unwrap();
        for id in &ids {
            assert_eq!(killer.ask(&format!("CLIENT KILL ID {id}")).unwrap().text(), "1");
        }
        for client in &mut clients {
            client.set_timeout(Duration::from_secs(10)).unwrap();
            assert!(client.ask("PING").is_err(), "it is closed");
        }
    }
    wait_until("they are gone", Duration::from_secs(10), || {
        Ok(killer.info_number("clients", "connected_clients")? == 1)
    })
    .unwrap();
}

/// Processor time that each further network thread has used, ns.
fn used_by_others(pid: u32) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let others = tasks.filter(|task| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        (1..THREADS).any(|index| name.trim() == format!("ardb-net-{index}"))
    });
    let used = |text: String| text.split(' ').next().unwrap().parse().unwrap();
    others.map(|task| used(std::fs::read_to_string(task.join("schedstat")).unwrap())).collect()
}

#[test]
fn clients_leave_the_threads_that_serve_no_more() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let setup = Setup::ardb().with("enable-debug-command", "yes").with_own("io-threads", THREADS);
    let server = setup.start().unwrap();
    let pid = server.pid().unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| server.client().unwrap()).collect();
    // A thread gives itself its name when it first runs.
    wait_until("all threads run", Duration::from_secs(10), || Ok(used_by_others(pid).len() as u64 == THREADS - 1))
        .unwrap();
    let mut work = || {
        let before = used_by_others(pid);
        for client in &mut clients {
            for _ in 0..2000 {
                client.queue(&["SET", "key", "value"]);
            }
            (0..2000).for_each(|_| assert_eq!(client.receive().unwrap().text(), "OK"));
        }
        used_by_others(pid).iter().zip(before).map(|(after, before)| after - before).sum::<u64>()
    };
    let with_all = work();
    server.client().unwrap().must("DEBUG NETWORK-THREADS 1").unwrap();
    let moving = work();
    let with_one = work();
    assert!(with_one * 5 < with_all, "{with_all} ns with all threads, {moving} while they moved, {with_one} with one");
    server.client().unwrap().must(&format!("DEBUG NETWORK-THREADS {THREADS}")).unwrap();
    work();
    let again = work();
    assert!(with_one * 5 < again, "they come back: {again} ns");
}

#[test]
fn one_that_has_moved_is_found_by_what_it_waits_for() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let setup = Setup::ardb().with("enable-debug-command", "yes").with_own("io-threads", THREADS);
    let server = setup.start().unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| server.client().unwrap()).collect();
    let mut other = server.client().unwrap();
    other.must("DEBUG NETWORK-THREADS 1").unwrap();
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_timeout(Duration::from_secs(5)).unwrap();
        client.must("PING").unwrap();
        client.queue(&["BLPOP", &format!("list:{n}"), "0"]);
        client.flush().unwrap();
    }
    wait_until("they wait", Duration::from_secs(10), || Ok(other.info_number("clients", "blocked_clients")? == 6))
        .unwrap();
    for (n, client) in clients.iter_mut().enumerate() {
        other.must(&format!("RPUSH list:{n} element")).unwrap();
        assert_eq!(client.receive().unwrap().items().unwrap()[1].text(), "element");
        client.must("SUBSCRIBE news").unwrap();
    }
    assert_eq!(other.ask("PUBLISH news now").unwrap().text(), "6");
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().items().unwrap()[2].text(), "now");
    }
}
