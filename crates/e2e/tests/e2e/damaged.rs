//! A log with a bad byte in the middle: the server does not start on what is left of it, unless it is told to.

use std::fs;
use std::path::{Path, PathBuf};

use ardb_e2e::server::{Server, Setup, stands_in};

const KEYS: usize = 400;
const BAD: usize = 250;

/// The segments of the log and what was cut off, by name, with their contents.
fn files(server: &Server) -> Vec<(String, Vec<u8>)> {
    let list = fs::read_dir(server.dir.join("data/log")).unwrap().map(|entry| entry.unwrap().path());
    // Not what is being made for later.
    let mut list: Vec<PathBuf> = list.filter(|path| path.extension().is_some_and(|ending| ending != "tmp")).collect();
    list.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    list.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn history(server: &Server) -> [String; 3] {
    let info = server.client().unwrap().info("replication").unwrap();
    ["master_replid", "master_replid2", "second_repl_offset"].map(|name| info[name].clone())
}

/// The bytes of the stream that write a key.
fn write_of(key: usize) -> Vec<u8> {
    format!("$7\r\nkey:{key:03}\r\n").into_bytes()
}

#[test]
fn a_flipped_byte_in_the_middle_keeps_it_from_starting_until_it_is_told_to_cut_there() {
    if stands_in() {
        return;
    }
    let mut server = Setup::ardb().with("log-segment-size", 64 << 10).start().unwrap();
    let mut client = server.client().unwrap();
    let value = "v".repeat(400);
    for key in 0..KEYS {
        // Each is a commit of its own.
        client.must(&format!("SET key:{key:03} {value}")).unwrap();
    }
    let [id, ..] = history(&server);
    let end = client.info_number("replication", "master_repl_offset").unwrap();
    server.kill9().unwrap();

    let before = files(&server);
    assert!(before.len() > 2, "{} segments", before.len());
    let write = write_of(BAD);
    let find = |(_, bytes): &(String, Vec<u8>)| bytes.windows(write.len()).position(|part| part == write);
    let (segment, place) =
        before.iter().enumerate().find_map(|(i, file)| Some((i, find(file)?))).expect("the write is in the log");
    let name = &before[segment].0;
    let path = server.dir.join("data/log").join(name);
    let mut harmed = before[segment].1.clone();
    harmed[place + 100] ^= 0x10;
    fs::write(&path, &harmed).unwrap();

    let refused = server.restart().expect_err("the log is damaged").to_string();
    assert!(refused.contains("exit status: 1"), "{refused}");
    let said = server.log();
    let said = said.lines().find(|line| line.starts_with("ardb-server: the log is damaged")).expect("it says why");
    for part in [&*path.to_string_lossy(), " at byte ", "replication offset ", "checksum", "log-truncate-damaged yes"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let segments = format!("{} more segment(s) follow", before.len() - segment - 1);
    let frames = format!("with {} good frame(s)", KEYS - BAD - 1);
    assert!(said.contains(&segments) && said.contains(&frames), "{said}");
    let number = |after: &str| {
        let text = &said[said.find(after).unwrap() + after.len()..];
        text[..text.find(|c: char| !c.is_ascii_digit()).unwrap()].parse::<usize>().unwrap()
    };
    let (at, offset) = (number(" at byte "), number("replication offset "));
    assert!(at < place && place - at < 100, "the frame begins before the bad byte: {said}");
    // Nothing was changed.
    let now = files(&server);
    assert!(now[segment].1 == harmed && now.iter().map(|file| &file.0).eq(before.iter().map(|file| &file.0)));

    let cut = Setup::ardb().in_dir(&server.dir).with("log-segment-size", 64 << 10).with("log-truncate-damaged", "yes");
    let mut cut = cut.start().unwrap();
    assert_eq!(cut.log_count("The log was damaged, and was cut there"), 1, "{}", cut.log_tail());
    let mut client = cut.client().unwrap();
    assert_eq!(client.ask("DBSIZE").unwrap().int(), Some(BAD as i64));
    for key in 0..KEYS {
        let there = client.ask(&format!("EXISTS key:{key:03}")).unwrap().int();
        assert_eq!(there, Some(i64::from(key < BAD)), "key {key}");
    }
    let [new_id, second, until] = history(&cut);
    assert!(new_id != id && second == id, "{id} before, {new_id} and {second} now");
    // The first byte that the old name does not cover.
    assert_eq!(until.parse::<usize>().unwrap(), offset + 1);
    assert!((offset as i64) < end);
    let shown = client.ask("CONFIG GET log-truncate-damaged").unwrap();
    assert_eq!(shown.items().unwrap()[1].text(), "yes");
    assert!(client.ask("CONFIG SET log-truncate-damaged no").unwrap().is_error());
    // What was cut off is there.
    let kept: Vec<(String, Vec<u8>)> = files(&cut).into_iter().filter(|(name, _)| name.ends_with(".damaged")).collect();
    assert_eq!(kept.len(), before.len() - segment, "{:?}", kept.iter().map(|file| &file.0).collect::<Vec<_>>());
    let (_, tail) = kept.iter().find(|file| file.0 == format!("{name}.{at}.tail.damaged")).expect("the rest of it");
    assert!(harmed[at..].starts_with(tail) && harmed[at + tail.len()..].iter().all(|&b| b == 0));
    for (name, bytes) in &before[segment + 1..] {
        assert!(kept.iter().any(|file| file.0 == format!("{name}.damaged") && file.1 == *bytes), "{name}");
    }

    client.must("SET after 1").unwrap();
    assert!(cut.terminate().unwrap().success());
    // And from here on all is as ever.
    server.restart().unwrap();
    let mut client = server.client().unwrap();
    assert_eq!(client.ask("DBSIZE").unwrap().int(), Some(BAD as i64 + 1));
    assert_eq!(history(&server)[0], new_id);
    assert_eq!(files(&server).iter().filter(|(name, _)| name.ends_with(".damaged")).count(), kept.len());
}

#[test]
fn a_log_that_was_removed_is_not_taken_for_an_empty_one() {
    if stands_in() {
        return;
    }
    for clean in [false, true] {
        let mut server = Setup::ardb().start().unwrap();
        server.client().unwrap().must("SET a 1").unwrap();
        if clean {
            assert!(server.terminate().unwrap().success());
        } else {
            server.kill9().unwrap();
        }
        fs::remove_dir_all(server.dir.join("data/log")).unwrap();
        let refused = server.restart().expect_err("the log is gone").to_string();
        assert!(refused.contains("exit status: 1") && refused.contains("log-truncate-damaged yes"), "{refused}");
        let cut = Setup::ardb().in_dir(&server.dir).with("log-truncate-damaged", "yes").start().unwrap();
        // What the engine has is there.
        assert_eq!(cut.client().unwrap().ask("EXISTS a").unwrap().int(), Some(i64::from(clean)));
    }
}
