//! Starting, answering, configuration and ending.

use std::process::Command;
use std::time::Duration;

use ardb_e2e::client::Client;
use ardb_e2e::peers;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Setup, stands_in};
use ardb_e2e::wait::wait_until;

#[test]
fn answers_and_holds_binary_values() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("PING").unwrap(), Reply::Status(b"PONG".to_vec()));
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert!(client.call(&[b"SET".as_slice(), b"a\r\n\0b", &value]).unwrap().is_ok());
    assert_eq!(client.call(&[b"GET".as_slice(), b"a\r\n\0b"]).unwrap(), Reply::Bulk(value));
    assert_eq!(client.ask("GET nothing").unwrap(), Reply::Nil);
    assert_eq!(client.ask("DBSIZE").unwrap(), Reply::Int(1));
}

#[test]
fn databases_are_apart_and_sixteen() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("SET a 0").unwrap();
    client.must("SELECT 15").unwrap();
    assert_eq!(client.ask("GET a").unwrap(), Reply::Nil);
    assert_eq!(client.ask("SELECT 16").unwrap().text(), "ERR DB index is out of range");
    client.must("SET a 15").unwrap();
    client.must("SWAPDB 0 15").unwrap();
    assert_eq!(client.ask("GET a").unwrap().text(), "0");
    client.must("FLUSHDB").unwrap();
    assert_eq!(client.ask("DBSIZE").unwrap(), Reply::Int(0));
    client.must("SELECT 0").unwrap();
    assert_eq!(client.ask("GET a").unwrap().text(), "15");
}

#[test]
fn speaks_resp3_after_hello() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    let hello = client.ask("HELLO 3").unwrap();
    assert!(matches!(hello, Reply::Map(_)), "{hello}");
    client.must("HSET h f v").unwrap();
    assert!(matches!(client.ask("HGETALL h").unwrap(), Reply::Map(items) if items.len() == 2));
    client.must("SADD s m").unwrap();
    assert!(matches!(client.ask("SMEMBERS s").unwrap(), Reply::Set(items) if items.len() == 1));
    client.must("ZADD z 1.5 m").unwrap();
    assert_eq!(client.ask("ZSCORE z m").unwrap(), Reply::Double(b"1.5".to_vec()));
    assert_eq!(client.ask("GET nothing").unwrap(), Reply::Nil);
    assert_eq!(client.ask("HELLO 4").unwrap().text(), "NOPROTO unsupported protocol version");
    assert!(matches!(client.ask("HELLO 2").unwrap(), Reply::Array(_)));
    assert!(matches!(client.ask("HGETALL h").unwrap(), Reply::Array(_)));
}

#[test]
fn wants_the_password() {
    let server = Setup::ardb().with("requirepass", "secret").start().unwrap();
    let mut client = server.client().unwrap();
    assert!(client.ask("GET a").unwrap().text().starts_with("NOAUTH"));
    assert!(client.ask("AUTH wrong").unwrap().text().starts_with("WRONGPASS"));
    assert!(client.ask("GET a").unwrap().text().starts_with("NOAUTH"));
    assert!(client.ask("AUTH secret").unwrap().is_ok());
    assert_eq!(client.ask("GET a").unwrap(), Reply::Nil);
    let mut other = server.client().unwrap();
    assert!(matches!(other.ask("HELLO 3 AUTH default secret").unwrap(), Reply::Map(_)));
}

#[test]
fn listens_on_a_unix_socket() {
    let server = Setup::ardb().with("unixsocket", "server.sock").start().unwrap();
    let mut client = Client::connect_unix(&server.dir.join("server.sock")).unwrap();
    assert!(client.ask("SET a 1").unwrap().is_ok());
    assert_eq!(server.client().unwrap().ask("GET a").unwrap().text(), "1");
}

#[test]
fn refuses_clients_beyond_the_limit() {
    let server = Setup::ardb().with("maxclients", 3).start().unwrap();
    // The connection by which the start was seen may still be counted for a moment.
    let mut clients = Vec::new();
    wait_until("three clients are in", Duration::from_secs(5), || {
        let mut client = server.client()?;
        if !client.ask("PING")?.is_error() {
            clients.push(client);
        }
        Ok(clients.len() == 3)
    })
    .unwrap();
    let reply = server.client().unwrap().ask("PING");
    assert_eq!(reply.unwrap().text(), "ERR max number of clients reached");
    clients.clear();
    wait_until("there is room again", Duration::from_secs(5), || Ok(!server.client()?.ask("PING")?.is_error()))
        .unwrap();
}

#[test]
fn closes_idle_clients() {
    let server = Setup::ardb().with("timeout", 1).start().unwrap();
    let mut client = server.client().unwrap();
    client.must("PING").unwrap();
    client.set_timeout(Duration::from_secs(8)).unwrap();
    let failure = client.receive().unwrap_err();
    assert_eq!(failure.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn reads_a_file_and_lets_the_command_line_win() {
    let dir = std::env::temp_dir().join(format!("ardb-e2e-file-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("a.conf");
    std::fs::write(&file, "# a comment\nmaxclients 77\ntimeout 7\nrequirepass \"with space\"\n").unwrap();
    let program = peers::ardb_server().unwrap();
    let port = 30_500 + (std::process::id() % 1000) as u16;
    let mut child = Command::new(program)
        .args([file.to_str().unwrap(), "--port", &port.to_string(), "--dir", dir.to_str().unwrap(), "--timeout", "9"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let outcome =
        wait_until("it answers", Duration::from_secs(20), || Client::connect(port)?.ask("PING").map(|_| true));
    let values = outcome.and_then(|()| {
        let mut client = Client::connect(port)?;
        let auth = client.call(&["AUTH", "with space"])?;
        let timeout = client.must("CONFIG GET timeout")?;
        let clients = client.must("CONFIG GET maxclients")?;
        Ok((auth, timeout.items().unwrap()[1].text(), clients.items().unwrap()[1].text()))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    let (auth, timeout, clients) = values.unwrap();
    assert!(auth.is_ok(), "{auth}");
    assert_eq!((timeout.as_str(), clients.as_str()), ("9", "77"));
}

#[test]
fn does_not_start_with_an_unknown_directive() {
    let dir = std::env::temp_dir().join(format!("ardb-e2e-unknown-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("bad.conf");
    std::fs::write(&file, "port 0\nmaxcleints 10\n").unwrap();
    let output = Command::new(peers::ardb_server().unwrap()).arg(&file).current_dir(&dir).output().unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("maxcleints"), "{text}");
    if !stands_in() {
        assert!(text.contains("maxclients") && text.contains("bad.conf") && text.contains('2'), "{text}");
    }
}

#[test]
fn changes_configuration_while_it_runs() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    assert!(client.ask("CONFIG SET timeout 100").unwrap().is_ok());
    let reply = client.ask("CONFIG GET timeo*").unwrap();
    assert_eq!(reply.items().unwrap()[1].text(), "100");
    assert!(client.ask("CONFIG SET port nonsense").unwrap().is_error());
    assert!(client.ask("CONFIG SET no-such-thing 1").unwrap().is_error());
}

#[test]
fn ends_on_shutdown_and_on_sigterm() {
    let mut server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    client.must("SET a 1").unwrap();
    assert!(client.ask("SHUTDOWN").is_err(), "the connection ends without a reply");
    assert!(server.wait_end(Duration::from_secs(10)).unwrap().success());
    server.restart().unwrap();
    assert!(server.terminate().unwrap().success());
}

#[test]
fn blocked_clients_are_served_in_their_order() {
    let server = Setup::ardb().start().unwrap();
    let mut waiting: Vec<Client> = Vec::new();
    for index in 0..3 {
        let mut client = server.client().unwrap();
        client.queue(&["BLPOP", "other", "list", "10"]);
        client.flush().unwrap();
        wait_until("it blocks", Duration::from_secs(5), || {
            Ok(server.client()?.info_number("clients", "blocked_clients")? == index + 1)
        })
        .unwrap();
        waiting.push(client);
    }
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("RPUSH list a b").unwrap(), Reply::Int(2));
    assert_eq!(waiting[0].receive().unwrap().items().unwrap()[1].text(), "a");
    assert_eq!(waiting[1].receive().unwrap().items().unwrap()[1].text(), "b");
    client.must("MULTI").unwrap();
    client.must("RPUSH list c").unwrap();
    client.must("LPUSH other d").unwrap();
    client.must("EXEC").unwrap();
    let reply = waiting[2].receive().unwrap();
    assert_eq!(reply.items().unwrap()[0].text(), "list", "keys are served in the order in which they were pushed to");
    let start = std::time::Instant::now();
    assert_eq!(client.ask("BLPOP nothing 0.2").unwrap(), Reply::NilArray);
    assert!(start.elapsed() >= Duration::from_millis(190));
}

#[test]
fn messages_reach_subscribers() {
    let server = Setup::ardb().start().unwrap();
    let mut listener = server.client().unwrap();
    listener.queue(&["SUBSCRIBE", "news"]);
    listener.queue(&["PSUBSCRIBE", "n*"]);
    assert_eq!(listener.receive().unwrap().items().unwrap()[2], Reply::Int(1));
    assert_eq!(listener.receive().unwrap().items().unwrap()[2], Reply::Int(2));
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("PUBLISH news hello").unwrap(), Reply::Int(2));
    let message = listener.receive().unwrap();
    let texts: Vec<String> = message.items().unwrap().iter().map(Reply::text).collect();
    assert_eq!(texts, ["message", "news", "hello"]);
    let message = listener.receive().unwrap();
    let texts: Vec<String> = message.items().unwrap().iter().map(Reply::text).collect();
    assert_eq!(texts, ["pmessage", "n*", "news", "hello"]);
}

#[test]
fn a_watched_key_that_changed_stops_the_transaction() {
    let server = Setup::ardb().start().unwrap();
    let (mut one, mut two) = (server.client().unwrap(), server.client().unwrap());
    one.must("WATCH a").unwrap();
    two.must("SET a 1").unwrap();
    one.must("MULTI").unwrap();
    one.must("SET a 2").unwrap();
    assert_eq!(one.ask("EXEC").unwrap(), Reply::NilArray);
    assert_eq!(one.ask("GET a").unwrap().text(), "1");
    one.must("MULTI").unwrap();
    assert!(one.ask("SET a").unwrap().is_error());
    assert!(one.ask("EXEC").unwrap().text().starts_with("EXECABORT"));
}

/// The page that says which test shows what names only tests that there are.
#[test]
fn the_acceptance_page_names_tests_that_exist() {
    let root = ardb_e2e::peers::workspace();
    let page = std::fs::read_to_string(root.join("docs/acceptance.md")).unwrap();
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2).filter(|word| word.contains("::")) {
        let (module, test) = name.split_once("::").unwrap();
        if module == "module" {
            continue;
        }
        let file = root.join(format!("crates/e2e/tests/e2e/{module}.rs"));
        let source = std::fs::read_to_string(&file).unwrap_or_else(|failure| panic!("{}: {failure}", file.display()));
        assert!(source.contains(&format!("#[test]\nfn {test}() {{")), "no test {name}");
        named += 1;
    }
    assert!(named > 50, "{named}");
}
