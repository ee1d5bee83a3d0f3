//! What is written here, judged by Redis itself: its checkers, its loading, its RESTORE. By each server that is installed or that the
//! project's script for peers fetched; skipped, and said so, where there is none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
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

/// The binaries of this name that are installed, and those that the script for peers fetched, each with the newest RDB version it reads.
fn binaries(name: &str) -> Vec<(PathBuf, u32)> {
    let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.peers/bin");
    let mut found = Vec::new();
    let mut fetched: Vec<PathBuf> =
        std::fs::read_dir(peers).into_iter().flatten().flatten().map(|e| e.path()).collect();
    fetched.sort();
    for path in fetched {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(release) = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')) else { continue };
        let newest = match release {
            "2.8" | "3.0" => 6,
            "3.2" => 7,
            "6.2" => 9,
            "7.0" => 10,
            _ => 11,
        };
        if path.exists() {
            found.push((path, newest));
        }
    }
    // The distribution's may be no newer than 7.0.
    if Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        found.push((name.into(), 10));
    }
    found
}

/// The same, and a word if there are none.
fn installed(name: &str) -> Vec<(PathBuf, u32)> {
    let found = binaries(name);
    if found.is_empty() {
        // Not `eprintln!`, which the harness swallows when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not installed, so nothing of it was tested");
    }
    found
}

fn data(seed: u64) -> Keys {
    model::keys(&mut Random::new(seed), 150)
}

fn files() -> Vec<(WriterOptions, Vec<u8>, Keys)> {
    let seed = model::seed(6);
    [(6, false), (6, true), (8, false), (11, true)]
        .into_iter()
        .map(|(version, compress)| WriterOptions { version, compress })
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
    let folder = Folder::new("check");
    let path = folder.0.join("written.rdb");
    // Redis 2.8 had a checker of its own, which knows nothing of the later ones.
    let checkers = installed("redis-check-rdb").into_iter().chain(binaries("redis-check-dump"));
    for (checker, newest) in checkers {
        for (options, file, keys) in files().into_iter().filter(|(options, ..)| options.version <= newest) {
            std::fs::write(&path, file).unwrap();
            let output = Command::new(&checker).arg(&path).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{checker:?} {options:?}: {text}");
            if newest > 6 {
                let whole = text.contains("Checksum OK") && text.contains(&format!("{} keys read", keys.len()));
                assert!(whole, "{checker:?} {options:?}: {text}");
            } else {
                assert!(text.contains("CRC64 checksum is OK"), "{checker:?} {options:?}: {text}");
            }
        }
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
    fn start(binary: &Path, folder: &Folder) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(binary)
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

/// Servers that take the place of `redis-server`.
fn servers() -> Vec<(PathBuf, u32)> {
    installed("redis-server").into_iter().chain(binaries("valkey-server")).collect()
}

#[test]
fn redis_loads_it_and_saves_the_same_again() {
    for (binary, newest) in servers() {
        let folder = Folder::new("load");
        for (options, file, keys) in files().into_iter().filter(|(options, ..)| options.version <= newest) {
            std::fs::write(folder.0.join("dump.rdb"), file).unwrap();
            let mut server = Server::start(&binary, &folder);
            assert_eq!(server.call(&[b"SAVE"]), b"+OK");
            drop(server);
            let saved = read(&std::fs::read(folder.0.join("dump.rdb")).unwrap());
            assert!(saved == keys, "{binary:?} {options:?}");
        }
    }
}

#[test]
fn redis_restores_payloads_and_its_own_come_back() {
    for (binary, _) in servers() {
        let folder = Folder::new("restore");
        let mut server = Server::start(&binary, &folder);
        let keys = data(model::seed(8));
        for ((_, key), (_, value)) in &keys {
            let mut dump = DumpWriter::new(Vec::new(), true);
            dump.begin(value.kind(), value.len()).unwrap();
            value.write_items(&mut dump).unwrap();
            let payload = dump.finish().unwrap();
            let reply = server.call(&[b"RESTORE", key, b"0", &payload]);
            assert_eq!(reply, b"+OK", "{binary:?} {}", reply.escape_ascii());
            let theirs = server.call(&[b"DUMP", key]);
            if theirs[theirs.len() - 10] > 12 {
                continue; // Valkey 9 numbers its payloads beyond those of Redis.
            }
            let mut model = Model::default();
            ardb_rdb::load_dump(&theirs, &mut model).unwrap();
            assert!(model.single() == *value, "{binary:?} {}", key.escape_ascii());
        }
    }
}
