//! What is written here, judged by Redis itself: its checker, its loading, its RESTORE. Skipped, and said so, where it is not installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ardb_base::random::Random;
use ardb_rdb::{DumpWriter, Options, Reader, Writer, WriterOptions};

use crate::model::{self, Keys, Model};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn installed(binary: &str) -> bool {
    let there = Command::new(binary).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("SKIPPED: {binary} is not installed, so nothing of it was tested");
    }
    there
}

fn data(seed: u64) -> Keys {
    model::keys(&mut Random::new(seed), 150)
}

fn files() -> Vec<(WriterOptions, Vec<u8>, Keys)> {
    let seed = model::seed(6);
    [(6, false), (6, true), (8, false), (12, true)]
        .into_iter()
        // A server of the distribution may be no newer than 7.0, which reads up to version 10.
        .map(|(version, compress)| WriterOptions { version: version.min(10), compress })
        .map(|options| {
            let keys = data(seed + u64::from(options.version));
            let mut writer = Writer::new(Vec::new(), options).unwrap();
            if options.version >= 7 {
                writer.aux(b"redis-ver", b"7.0.0").unwrap();
            }
            (options, model::write(&keys, writer).unwrap(), keys)
        })
        .collect()
}

#[test]
fn redis_check_rdb_finds_no_fault() {
    if !installed("redis-check-rdb") {
        return;
    }
    let folder = Folder::new("check");
    for (options, file, keys) in files() {
        let path = folder.0.join("written.rdb");
        std::fs::write(&path, file).unwrap();
        let output = Command::new("redis-check-rdb").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{options:?}: {text}");
        assert!(
            text.contains("Checksum OK") && text.contains(&format!("{} keys read", keys.len())),
            "{options:?}: {text}"
        );
    }
}

struct Server {
    child: Child,
    stream: BufReader<TcpStream>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server that loads `dump.rdb` of `folder`.
    fn start(folder: &Folder) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"])
            .arg("--port")
            .arg(port.to_string())
            .arg("--dir")
            .arg(&folder.0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut server = Server { child, stream: BufReader::new(stream) };
                while server.call(&[b"PING"]).starts_with(b"-LOADING") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return server;
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server does not answer");
    }

    /// A command with a reply of one line or one bulk string.
    fn call(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).unwrap();
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        line.truncate(line.len() - 2);
        if line[0] == b'$' {
            let len: usize = std::str::from_utf8(&line[1..]).unwrap().parse().unwrap();
            line.resize(len + 2, 0);
            self.stream.read_exact(&mut line).unwrap();
            line.truncate(len);
        }
        line
    }
}

fn read(file: &[u8]) -> Keys {
    let mut model = Model::default();
    Reader::new(file, Options::default()).read(&mut model).unwrap();
    model.keys
}

#[test]
fn redis_loads_it_and_saves_the_same_again() {
    if !installed("redis-server") {
        return;
    }
    let folder = Folder::new("load");
    for (options, file, keys) in files() {
        std::fs::write(folder.0.join("dump.rdb"), file).unwrap();
        let mut server = Server::start(&folder);
        assert_eq!(server.call(&[b"SAVE"]), b"+OK");
        drop(server);
        let saved = read(&std::fs::read(folder.0.join("dump.rdb")).unwrap());
        assert!(saved == keys, "{options:?}");
    }
}

#[test]
fn redis_restores_payloads_and_its_own_come_back() {
    if !installed("redis-server") {
        return;
    }
    let folder = Folder::new("restore");
    let mut server = Server::start(&folder);
    let keys = data(model::seed(8));
    for ((_, key), (_, value)) in &keys {
        let mut dump = DumpWriter::new(Vec::new(), true);
        dump.begin(value.kind(), value.len()).unwrap();
        value.write_items(&mut dump).unwrap();
        let payload = dump.finish().unwrap();
        assert_eq!(server.call(&[b"RESTORE", key, b"0", &payload]), b"+OK");
        let theirs = server.call(&[b"DUMP", key]);
        let mut model = Model::default();
        ardb_rdb::load_dump(&theirs, &mut model).unwrap();
        assert!(model.single() == *value, "{}", key.escape_ascii());
    }
}
