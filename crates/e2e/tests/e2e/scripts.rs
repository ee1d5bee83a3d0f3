//! Scripts that run longer than `busy-reply-threshold`: what other clients, replicas and those who want the server's end get meanwhile.

use std::time::{Duration, Instant};

use ardb_e2e::client::Client;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Server, Setup, stands_in};
use ardb_e2e::wait::{follow, wait_equal, wait_linked, wait_until};

const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const KILLED: &str = "Script killed by user with SCRIPT KILL";
const READS_FOR_EVER: &[&str] = &["EVAL", "while true do redis.call('get', KEYS[1]) end", "1", "k"];
const SPINS_FOR_EVER: &[&str] = &["EVAL", "while true do end", "0"];
const WRITES_FOR_EVER: &[&str] = &["EVAL", "redis.call('set', KEYS[1], 'half') while true do end", "1", "k"];
const SOON: Duration = Duration::from_secs(20);

fn server(threads: u32) -> Server {
    Setup::ardb().with("busy-reply-threshold", 200).with_own("io-threads", threads).start().unwrap()
}

/// A connection with this many seconds of patience.
fn client(server: &Server) -> Client {
    let mut client = server.client().unwrap();
    client.set_timeout(SOON).unwrap();
    client
}

/// Starts the script on a connection of its own, and waits until the server calls itself busy.
fn start(server: &Server, script: &[&str]) -> Client {
    let mut runner = client(server);
    runner.queue(script);
    runner.flush().unwrap();
    wait_busy(server);
    runner
}

fn wait_busy(server: &Server) {
    wait_until("BUSY", SOON, || Ok(client(server).ask("PING")?.text() == BUSY)).unwrap();
}

/// Kills it from a new connection.
fn kill(server: &Server) {
    assert!(client(server).ask("SCRIPT KILL").unwrap().is_ok());
}

fn serves(server: &Server, client: &mut Client) {
    wait_until("no script is busy", SOON, || Ok(client.ask("PING")?.text() != BUSY)).unwrap();
    assert!(client.ask("SET after 1").unwrap().is_ok(), "{}", server.log_tail());
    assert_eq!(client.ask("GET after").unwrap().text(), "1");
}

#[test]
fn others_are_told_and_may_end_it() {
    for threads in [1, 2] {
        for script in [SPINS_FOR_EVER, READS_FOR_EVER] {
            let server = server(threads);
            let mut old: Vec<Client> = (0..6).map(|_| client(&server)).collect();
            old.iter_mut().for_each(|old| assert_eq!(old.ask("PING").unwrap().text(), "PONG"));
            let mut runner = start(&server, script);
            for old in &mut old {
                for command in ["GET a", "SET a 1", "PING", "INFO", "DBSIZE", "BLPOP l 0", "SHUTDOWN", "EVAL return 0"]
                {
                    assert_eq!(old.ask(command).unwrap().text(), BUSY, "{command}, {threads} threads");
                }
                // Those that Redis allows.
                assert!(old.ask("REPLCONF listening-port 1").unwrap().is_ok());
                assert!(matches!(old.ask("HELLO 2").unwrap(), Reply::Array(_)));
                assert!(old.ask("MULTI").unwrap().is_ok());
                assert_eq!(old.ask("SET a 1").unwrap().text(), BUSY);
                assert!(old.ask("DISCARD").unwrap().is_ok());
            }
            kill(&server);
            assert!(runner.receive().unwrap().text().contains(KILLED), "{threads} threads");
            old.iter_mut().chain([&mut runner]).for_each(|client| serves(&server, client));
        }
    }
}

#[test]
fn a_transaction_and_a_pipeline_go_on_after_it() {
    for threads in [1, 2] {
        let server = server(threads);
        let mut waits = client(&server);
        waits.queue(&["BLPOP", "list", "0"]);
        waits.flush().unwrap();
        let mut listens = client(&server);
        listens.must("SUBSCRIBE news").unwrap();
        let mut runner = client(&server);
        runner.queue(&["MULTI"]);
        runner.queue(&["RPUSH", "list", "first"]);
        runner.queue(SPINS_FOR_EVER);
        runner.queue(&["PUBLISH", "news", "here"]);
        runner.queue(&["EXEC"]);
        runner.queue(SPINS_FOR_EVER);
        runner.queue(&["INCR", "n"]);
        runner.flush().unwrap();
        wait_busy(&server);
        // The second one may stand in the same transaction of the server; those who wait are told of it too. Only then come replies.
        runner.set_timeout(Duration::from_millis(100)).unwrap();
        wait_until("both scripts are killed", SOON, || {
            let mut other = client(&server);
            if other.ask("PING")?.text() == BUSY {
                other.ask("SCRIPT KILL")?;
            }
            Ok(runner.receive()?.is_ok())
        })
        .unwrap();
        runner.set_timeout(SOON).unwrap();
        for _ in 0..3 {
            assert!(!runner.receive().unwrap().is_error());
        }
        let Reply::Array(replies) = runner.receive().unwrap() else { panic!("no reply to EXEC") };
        assert_eq!(replies[0], Reply::Int(1));
        assert!(replies[1].text().contains(KILLED));
        assert_eq!(replies[2], Reply::Int(1));
        assert!(runner.receive().unwrap().text().contains(KILLED));
        assert_eq!(runner.receive().unwrap(), Reply::Int(1));
        assert!(matches!(waits.receive().unwrap(), Reply::Array(popped) if popped[1].text() == "first"));
        assert!(matches!(listens.receive().unwrap(), Reply::Array(news) if news[2].text() == "here"));
        serves(&server, &mut waits);
        serves(&server, &mut runner);
    }
}

#[test]
fn connections_come_and_go_while_it_runs() {
    for threads in [1, 2] {
        let server = server(threads);
        // What comes in together with the script is answered, whatever it meets.
        let mut together: Vec<Client> = (0..50).map(|_| client(&server)).collect();
        let mut runner = client(&server);
        runner.queue(READS_FOR_EVER);
        together.iter_mut().for_each(|client| client.queue(&["PING"]));
        for client in together[..25].iter_mut().chain([&mut runner]).collect::<Vec<_>>() {
            client.flush().unwrap();
        }
        for client in &mut together {
            let reply = client.receive().unwrap();
            assert!(reply.text() == "PONG" || reply.text() == BUSY, "{reply}");
        }
        drop(together);
        wait_busy(&server);
        for _ in 0..50 {
            let mut new = client(&server);
            assert_eq!(new.ask("PING").unwrap().text(), BUSY);
        }
        let mut stays = client(&server);
        assert_eq!(stays.ask("SET k 1").unwrap().text(), BUSY);
        // The one who started it goes too.
        drop(client(&server));
        kill(&server);
        assert!(runner.receive().unwrap().text().contains(KILLED));
        drop(runner);
        serves(&server, &mut stays);
        let runner = start(&server, SPINS_FOR_EVER);
        drop(runner);
        kill(&server);
        serves(&server, &mut stays);
        wait_until("all connections are gone but ours", SOON, || {
            Ok(stays.info_number("clients", "connected_clients")? == 1)
        })
        .unwrap();
    }
}

#[test]
fn one_that_has_written_ends_with_the_server_and_leaves_nothing() {
    for threads in [1, 2] {
        let mut server = server(threads);
        let mut before = client(&server);
        before.must("SET k whole").unwrap();
        let _runner = start(&server, WRITES_FOR_EVER);
        let refused = client(&server).ask("SCRIPT KILL").unwrap();
        assert!(refused.text().starts_with("UNKILLABLE"), "{refused}");
        assert_eq!(before.ask("SHUTDOWN").unwrap().text(), BUSY);
        assert_eq!(before.ask("GET k").unwrap().text(), BUSY);
        let asked = Instant::now();
        let mut ender = client(&server);
        ender.queue(&["SHUTDOWN", "NOSAVE"]);
        ender.flush().unwrap();
        let status = server.wait_end(Duration::from_secs(5)).unwrap();
        assert!(status.success(), "{status} after {:?}: {}", asked.elapsed(), server.log_tail());
        server.restart().unwrap();
        assert_eq!(client(&server).ask("GET k").unwrap().text(), "whole");
    }
}

#[test]
fn a_signal_ends_the_server_in_the_middle_of_one() {
    if stands_in() {
        // Redis waits for the script.
        return;
    }
    for (script, limit) in [(READS_FOR_EVER, 5), (WRITES_FOR_EVER, 8)] {
        let mut server = Setup::ardb()
            .with("busy-reply-threshold", 200)
            .with_own("io-threads", 1)
            .with_own("shutdown-timeout", 2)
            .start()
            .unwrap();
        client(&server).must("SET k whole").unwrap();
        let _runner = start(&server, script);
        let asked = Instant::now();
        let status = server.terminate().unwrap();
        assert!(status.success() && asked.elapsed() < Duration::from_secs(limit), "{status}, {:?}", asked.elapsed());
        server.restart().unwrap();
        assert_eq!(client(&server).ask("GET k").unwrap().text(), "whole");
    }
}

#[test]
fn replicas_stay_and_new_ones_come_after_it() {
    for threads in [1, 2] {
        let server = server(threads);
        let mut writer = client(&server);
        writer.must("SET k 1").unwrap();
        let replica = Setup::redis("7.0").start().unwrap();
        follow(&replica, &server).unwrap();
        wait_linked(&replica, SOON).unwrap();
        let late = Setup::redis("7.0").start().unwrap();
        let mut runner = start(&server, READS_FOR_EVER);
        follow(&late, &server).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let link = replica.client().unwrap().info("replication").unwrap();
        assert_eq!(link.get("master_link_status").map(String::as_str), Some("up"));
        kill(&server);
        assert!(runner.receive().unwrap().text().contains(KILLED));
        writer.must("SET k 2").unwrap();
        for replica in [&replica, &late] {
            wait_equal(&server, replica, SOON).unwrap();
        }
        assert_eq!(ardb_e2e::wait::syncs(&mut writer).unwrap().0, 2);
    }
}

/// What each command of a script overwrites is not kept until the script ends.
#[test]
fn a_script_that_overwrites_a_value_again_and_again_keeps_one() {
    if stands_in() {
        return;
    }
    let server = server(1);
    let mut client = client(&server);
    client.call(&["SET", "k", &"v".repeat(4000)]).unwrap();
    let script = "for i = 1, 60000 do redis.call('SETRANGE', 'k', 0, 'x') end";
    let peak = |what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        eprintln!("{what}: {kib} KiB");
        kib
    };
    let before = peak("before");
    client.call(&["EVAL", script, "0"]).unwrap();
    // 240 MB of old values.
    assert!(peak("after EVAL") - before < 100_000);
    client.must("MULTI").unwrap();
    let commands: Vec<_> = (0..60_000).map(|_| ardb_e2e::client::words("SETRANGE k 0 y")).collect();
    client.pipeline(&commands).unwrap();
    let before = peak("queued");
    client.must("EXEC").unwrap();
    assert!(peak("after EXEC") - before < 100_000);
}

#[test]
fn what_scripts_and_transactions_call_is_counted() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("CONFIG RESETSTAT").unwrap();
    client.must("SET a 1").unwrap();
    client
        .call(&["EVAL", "redis.call('set', KEYS[1], 0); redis.pcall('lpush', KEYS[1], 'x'); return 1", "1", "a"])
        .unwrap();
    for words in ["MULTI", "SET a 2", "LPUSH a x", "EXEC"] {
        client.ask(words).unwrap();
    }
    let stats = client.info("commandstats").unwrap();
    for (command, calls, failed) in [("set", 3, 0), ("lpush", 2, 2), ("eval", 1, 0), ("exec", 1, 0)] {
        let line = &stats[&format!("cmdstat_{command}")];
        let is = |part: &str| line.split(',').any(|field| field == part);
        assert!(is(&format!("calls={calls}")) && is(&format!("failed_calls={failed}")), "{command}: {line}");
    }
}
