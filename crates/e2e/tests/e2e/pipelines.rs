//! Commands in one pipeline: what one of them does to the lock, the commit or the connection, the others must stand.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ardb_e2e::client::words;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Server, Setup};
use ardb_e2e::wait::wait_until;

fn texts(server: &Server, commands: &[&str]) -> Vec<String> {
    let mut client = server.client().unwrap();
    client.set_timeout(Duration::from_secs(20)).unwrap();
    let commands: Vec<_> = commands.iter().map(|text| words(text)).collect();
    client.pipeline(&commands).unwrap().iter().map(Reply::text).collect()
}

#[test]
fn what_takes_the_writer_lock_runs_outside_of_it() {
    let server = Setup::ardb().with("enable-debug-command", "yes").start().unwrap();
    assert_eq!(texts(&server, &["SET a 1", "SAVE", "SET b 2"]), ["OK", "OK", "OK"]);
    assert_eq!(texts(&server, &["SET a 2", "DEBUG RELOAD", "GET a"]), ["OK", "OK", "2"]);
    // What stands behind it sees what it has loaded.
    assert_eq!(texts(&server, &["SET a 3", "DEBUG RELOAD NOSAVE", "GET a"]), ["OK", "OK", "2"]);
    // The read of a key whose time has come takes the lock too.
    texts(&server, &["SET gone 1 PX 1", "DEBUG SET-ACTIVE-EXPIRE 0"]);
    std::thread::sleep(Duration::from_millis(20));
    let replies = texts(&server, &["EXISTS gone", "SAVE", "BGREWRITEAOF", "SET c 3"]);
    assert_eq!((replies[0].as_str(), replies[1].as_str(), replies[3].as_str()), ("0", "OK", "OK"));
    let refused = "ERR Command not allowed inside a transaction";
    assert_eq!(
        texts(&server, &["MULTI", "SET d 4", "SAVE", "EXEC"]),
        ["OK", "QUEUED", refused, "EXECABORT Transaction discarded because of previous errors."]
    );
    assert!(texts(&server, &["EVAL return(redis.pcall('SAVE').err) 0"])[0].contains("not allowed from script"));
}

/// Fills the log's last segment, and takes its folder away so that there is no next one: then no large commit succeeds.
fn fill_log(server: &Server) {
    std::fs::rename(server.dir.join("data/log"), server.dir.join("log-gone")).unwrap();
    let mut client = server.client().unwrap();
    let value = "v".repeat(2000);
    for _ in 0..1000 {
        let reply = client.call(&["SET", "filler", &value]).unwrap();
        if reply.is_error() {
            assert!(reply.text().starts_with("MISCONF"), "{reply}");
            return;
        }
    }
    panic!("the log has no end");
}

#[test]
fn a_failed_commit_is_taken_back_for_everyone_and_keeps_protocols_in_step() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let setup =
        Setup::ardb().with("log-segment-size", "64kb").with("notify-keyspace-events", "KA").with("appendfsync", "no");
    let server = setup.start().unwrap();
    let client = || {
        let mut client = server.client().unwrap();
        client.set_timeout(Duration::from_secs(10)).unwrap();
        client
    };
    let (mut waits, mut listens, mut works) = (client(), client(), client());
    works.must("SET where db0").unwrap();
    works.must("RPUSH full here").unwrap();
    listens.must("SUBSCRIBE __keyspace@0__:q channel").unwrap();
    listens.receive().unwrap();
    waits.queue(&["BLPOP", "q", "0"]);
    waits.flush().unwrap();
    wait_until("the client waits", Duration::from_secs(10), || {
        Ok(works.info_number("clients", "blocked_clients")? == 1)
    })
    .unwrap();
    fill_log(&server);

    let large = "v".repeat(4000);
    let mut queue = |words: &[&str]| works.queue(words);
    queue(&["SET", "large", &large]);
    queue(&["RPUSH", "q", "rolled back"]);
    queue(&["PUBLISH", "channel", "never was"]);
    queue(&["SELECT", "3"]);
    queue(&["CLIENT", "REPLY", "SKIP"]);
    queue(&["SET", "silent", "1"]);
    queue(&["MULTI"]);
    queue(&["SET", "queued", "1"]);
    queue(&["EXEC"]);
    queue(&["SELECT", "0"]);
    queue(&["MULTI"]);
    queue(&["GET", "where"]);
    queue(&["DISCARD"]);
    queue(&["LTRIM", "full", "1", "0"]);
    queue(&["BLPOP", "full", "0"]);
    let mut replies = String::new();
    // Two commands have no reply.
    for _ in 0..13 {
        replies.push_str(&format!("{} ", works.receive().unwrap().text().split(' ').next().unwrap()));
    }
    let expected = "MISCONF MISCONF MISCONF OK OK QUEUED MISCONF OK OK QUEUED OK MISCONF MISCONF ";
    assert_eq!(replies, expected);
    drop(works);

    assert!(waits.receive().unwrap().text().starts_with("MISCONF"));
    let mut looks = client();
    assert_eq!(looks.ask("LLEN q").unwrap(), Reply::Int(0));
    assert_eq!(looks.ask("LRANGE full 0 -1").unwrap().items().unwrap()[0].text(), "here");
    assert_eq!(looks.ask("GET where").unwrap().text(), "db0");
    assert_eq!(looks.info_number("clients", "blocked_clients").unwrap(), 0);
    std::fs::rename(server.dir.join("log-gone"), server.dir.join("data/log")).unwrap();
    // The first that is heard is of a commit that was.
    looks.must("PUBLISH channel now").unwrap();
    assert_eq!(listens.receive().unwrap().items().unwrap()[2].text(), "now");
}

#[test]
fn a_shutdown_with_save_behind_a_write_ends() {
    let mut server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.queue(&["SET", "a", "1"]);
    client.queue(&["SHUTDOWN", "SAVE"]);
    client.flush().unwrap();
    assert!(server.wait_end(Duration::from_secs(30)).unwrap().success());
    server.restart().unwrap();
    assert_eq!(server.client().unwrap().ask("GET a").unwrap().text(), "1");
}

#[test]
fn an_end_that_comes_together_with_a_request_is_seen() {
    let server = Setup::ardb().start().unwrap();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"PING\r\nECHO last\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).unwrap();
        assert_eq!(replies, "+PONG\r\n$4\r\nlast\r\n");
    }
    // Clients that are gone before they are looked at leave nothing behind.
    let held = server.client().unwrap();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(b"PING\r\n").unwrap();
    }
    let mut client = held;
    wait_until("they are gone", Duration::from_secs(10), || {
        Ok(client.info_number("clients", "connected_clients")? == 1)
    })
    .unwrap();
}

#[test]
fn connections_that_found_no_descriptor_are_let_in_later() {
    if ardb_e2e::server::stands_in() {
        return;
    }
    let server = Setup::ardb().start().unwrap();
    let pid = server.pid().unwrap();
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let ping = |stream: &mut TcpStream| {
        let mut reply = [0; 7];
        stream.write_all(b"PING\r\n").unwrap();
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
    };
    let mut first = connect();
    ping(&mut first);
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = |files: usize| {
        let status = Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={files}:4096")]).status();
        assert!(status.unwrap().success());
    };
    limit(used);
    let mut late: Vec<TcpStream> = (0..5).map(|_| connect()).collect();
    wait_until("there is no descriptor", Duration::from_secs(10), || {
        Ok(server.log_count("Accepting client connection") > 0)
    })
    .unwrap();
    limit(4096);
    late.iter_mut().for_each(ping);
}

#[test]
fn a_full_pipeline_leaves_the_others_their_turn() {
    let server = Setup::ardb().with_own("io-threads", 1).start().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut writes = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            let mut reads = writes.try_clone().unwrap();
            let pipeline = b"INCR a\r\n".repeat(20_000);
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) && writes.write_all(&pipeline).is_ok() {}
                writes.shutdown(Shutdown::Both).unwrap();
            });
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while reads.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut client = server.client().unwrap();
        client.set_timeout(Duration::from_secs(10)).unwrap();
        let started = Instant::now();
        let served = (0..20).all(|_| client.ask("SET b 1").is_ok_and(|reply| reply.is_ok()));
        let took = started.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(served, "a client was not served");
        assert!(took < Duration::from_secs(5), "20 commands took {took:?}");
    });
}
