//! What comes in over a socket and is not what it should be: each case gets Redis's reply, and the server lives on.

use std::time::Duration;

use ardb_e2e::client::Client;
use ardb_e2e::reply::Reply;
use ardb_e2e::server::{Server, Setup};

/// Sends raw bytes on a connection of their own and returns all that comes back until the server closes it or falls
/// silent.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut client = server.client().unwrap();
    client.set_timeout(Duration::from_millis(400)).unwrap();
    client.queue_raw(bytes, 0);
    String::from_utf8_lossy(&client.receive_raw().unwrap()).into_owned()
}

#[test]
fn malformed_requests_get_an_error_and_lose_the_connection() {
    let server = Setup::ardb().start().unwrap();
    let cases: [(&[u8], &str); 8] = [
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\nabc\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "-ERR Protocol error: expected '$', got 'f'\r\n"),
        (b"*1\r\n$blabla\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*3000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*abc\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"SET a \"unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"SET a 'x'y\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(raw(&server, bytes), expected, "for {}", bytes.escape_ascii());
    }
    assert_eq!(server.client().unwrap().ask("PING").unwrap().text(), "PONG");
}

#[test]
fn lines_without_an_end_are_not_collected_for_ever() {
    let server = Setup::ardb().start().unwrap();
    let mut endless = vec![b'a'; 70_000];
    assert_eq!(raw(&server, &endless), "-ERR Protocol error: too big inline request\r\n");
    endless[0] = b'*';
    assert_eq!(raw(&server, &endless), "-ERR Protocol error: too big mbulk count string\r\n");
    let mut bulk = b"*1\r\n$".to_vec();
    bulk.resize(70_000, b'1');
    assert_eq!(raw(&server, &bulk), "-ERR Protocol error: too big bulk count string\r\n");
}

#[test]
fn inline_commands_with_quotes_and_empty_requests() {
    let server = Setup::ardb().start().unwrap();
    assert_eq!(raw(&server, b"\r\n\n*0\r\n*-1\r\nPING\r\n"), "+PONG\r\n");
    assert_eq!(raw(&server, b"SET \"a b\" \"\\x00\\n'\"\nSTRLEN 'a b'\r\n"), "+OK\r\n:3\r\n");
    assert_eq!(raw(&server, b"PING\nping hello\r\n"), "+PONG\r\n$5\r\nhello\r\n");
}

#[test]
fn unknown_commands_and_wrong_numbers_of_arguments() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("FOO a b").unwrap().text(), "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    assert_eq!(client.ask("GET").unwrap().text(), "ERR wrong number of arguments for 'get' command");
    assert_eq!(client.ask("CONFIG").unwrap().text(), "ERR wrong number of arguments for 'config' command");
    assert!(client.ask("CLIENT NOSUCH").unwrap().text().starts_with("ERR unknown subcommand 'NOSUCH'"));
}

#[test]
fn a_request_in_single_bytes_is_one_request() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    let mut bytes = Vec::new();
    ardb_e2e::client::encode(&["SET", "key", "value"], &mut bytes);
    for (index, byte) in bytes.iter().enumerate() {
        client.queue_raw(&[*byte], usize::from(index + 1 == bytes.len()));
        client.flush().unwrap();
    }
    assert!(client.receive().unwrap().is_ok());
}

#[test]
fn ten_thousand_commands_in_one_pipeline_answer_in_order() {
    let server = Setup::ardb().start().unwrap();
    let mut client = server.client().unwrap();
    let commands: Vec<_> = (0..10_000).map(|_| ardb_e2e::client::words("INCR n")).collect();
    for (index, reply) in client.pipeline(&commands).unwrap().into_iter().enumerate() {
        assert_eq!(reply, Reply::Int(index as i64 + 1));
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off_at_its_limit() {
    let server = Setup::ardb().with("client-output-buffer-limit", "normal 1mb 0 0").start().unwrap();
    let mut client = server.client().unwrap();
    let value = vec![b'x'; 100_000];
    client.call(&[b"SET".as_slice(), b"big", &value]).unwrap();
    let mut greedy = server.client().unwrap();
    for _ in 0..2000 {
        greedy.queue(&["GET", "big"]);
    }
    greedy.flush().unwrap();
    greedy.set_timeout(Duration::from_secs(10)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut received = 0;
    while greedy.receive().is_ok() {
        received += 1;
    }
    assert!(received < 2000, "the connection was closed before all 200 MB were sent");
    assert_eq!(client.ask("PING").unwrap().text(), "PONG");
}

#[test]
fn random_bytes_do_not_kill_it() {
    let seed = ardb_e2e::options::seed();
    let mut random = ardb_base::random::Random::new(seed);
    let server = Setup::ardb().start().unwrap();
    for round in 0..300 {
        let mut bytes = vec![0; random.below(200) as usize + 1];
        random.fill(&mut bytes);
        // Make it look like a request often enough to get past the first byte.
        if round % 2 == 0 {
            let mut request = format!("*{}\r\n${}\r\n", random.below(5), random.below(9)).into_bytes();
            request.extend_from_slice(&bytes);
            bytes = request;
        }
        let mut client = Client::connect(server.port).unwrap();
        client.queue_raw(&bytes, 0);
        let _ = client.flush();
    }
    assert_eq!(server.client().unwrap().ask("PING").unwrap().text(), "PONG", "seed {seed}");
}
