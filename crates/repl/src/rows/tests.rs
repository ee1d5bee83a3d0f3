//! Random rows over links that cut, corrupt and come back.

use ardb_base::random::Random;

use super::block::HEADER;
use super::*;

type Owned = (Vec<u8>, Vec<u8>);

fn seed() -> u64 {
    let seed = std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(17);
    eprintln!("seed {seed}");
    seed
}

fn sync() -> SyncId {
    SyncId(ReplId::from_random([9; 20]))
}

fn bytes(random: &mut Random, most: u64, letters: u64) -> Vec<u8> {
    (0..random.below(most + 1)).map(|_| random.below(letters) as u8).collect()
}

/// Sorted rows, some of them long.
fn rows(random: &mut Random, count: u64) -> Vec<Owned> {
    let mut rows = std::collections::BTreeMap::new();
    for _ in 0..count {
        let letters = if random.one_in(2) { 3 } else { 256 };
        let most = if random.one_in(50) { 3 * BLOCK_BYTES as u64 / 2 } else { 200 };
        let key = [&b"shared prefix"[..random.below(14) as usize], &bytes(random, 40, letters)].concat();
        rows.insert(key, bytes(random, most, letters));
    }
    rows.into_iter().collect()
}

fn opening(keys: u64) -> Opening {
    let id = ReplId::from_random([7; 20]);
    Opening { id, offset: Offset(1 << 40), db: Some(3), keys, about_bytes: 12, catalog: b"catalog".to_vec() }
}

/// Rows as a snapshot gives them: those behind a key.
fn after<'a>(rows: &'a [Owned], key: &[u8], block: u64) -> &'a [Owned] {
    let from = if block <= 1 { 0 } else { rows.partition_point(|row| row.0.as_slice() <= key) };
    &rows[from..]
}

/// Everything from `block` on, in blocks.
fn blocks(sender: &mut RowsSender, rows: &[Owned], block: u64) -> Vec<Vec<u8>> {
    let mut made = Vec::new();
    if block == 0 {
        let mut out = Vec::new();
        sender.open(&mut out);
        made.push(out);
    }
    let key = sender.rewind(block).expect("a block that was made").to_vec();
    for (key, value) in after(rows, &key, block) {
        if sender.push(key, value) == Ok(Pushed::Full) {
            let mut out = Vec::new();
            sender.seal(&mut out);
            made.push(out);
            assert_eq!(sender.push(key, value), Ok(Pushed::Taken));
        }
    }
    let mut out = Vec::new();
    sender.seal(&mut out);
    if !out.is_empty() {
        made.push(std::mem::take(&mut out));
    }
    sender.end(&mut out);
    made.push(out);
    made
}

/// What came so far.
#[derive(Default)]
struct Got {
    opening: Option<Opening>,
    rows: Vec<Owned>,
    end: Option<Totals>,
}

impl Got {
    fn take(&mut self, receiver: &mut RowsReceiver, mut input: &[u8]) -> Result<(), RowsError> {
        while !input.is_empty() && self.end.is_none() {
            let (taken, part) = receiver.push(input)?;
            input = &input[taken..];
            match part {
                Some(Part::Opening(opening)) => self.opening = Some(opening),
                Some(Part::Rows(mut rows)) => {
                    while let Some((key, value)) = rows.next()? {
                        self.rows.push((key.to_vec(), value.to_vec()));
                    }
                }
                Some(Part::End(totals)) => self.end = Some(totals),
                None => {}
            }
        }
        Ok(())
    }
}

#[test]
fn rows_come_through_whole_however_they_are_cut() {
    let mut random = Random::new(seed());
    for count in [0, 1, 2, 40, 400] {
        let rows = rows(&mut random, count);
        let opening = opening(rows.len() as u64);
        let wire = blocks(&mut RowsSender::new(sync(), &opening), &rows, 0).concat();
        for _ in 0..20 {
            let mut receiver = RowsReceiver::new(sync());
            let mut got = Got::default();
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let scale = random.below(20);
                let most = 1 + random.below(1 << scale) as usize;
                let (now, later) = rest.split_at(most.min(rest.len()));
                got.take(&mut receiver, now).expect("intact");
                assert_eq!(got.end.is_some(), later.is_empty(), "never before the end");
                rest = later;
            }
            assert!(got.rows == rows && got.opening.as_ref() == Some(&opening));
            assert_eq!(got.end.map(|end| end.rows), Some(rows.len() as u64));
            assert_eq!(receiver.push(b"stream").expect("nothing to fail").0, 0, "what follows is not the rows'");
        }
    }
}

#[test]
fn every_cut_of_the_wire_gives_whole_blocks_and_no_end() {
    let mut random = Random::new(seed());
    let rows: Vec<Owned> = (0..30u8).map(|n| (vec![n], bytes(&mut random, 20_000, 256))).collect();
    let wire = blocks(&mut RowsSender::new(sync(), &opening(30)), &rows, 0).concat();
    let step = 1 + wire.len() / 3000;
    for cut in (0..wire.len()).step_by(step).chain(wire.len() - 60..wire.len()) {
        let mut receiver = RowsReceiver::new(sync());
        let mut got = Got::default();
        got.take(&mut receiver, &wire[..cut]).expect("intact so far");
        assert!(got.end.is_none() && rows.starts_with(&got.rows), "cut at {cut}");
    }
}

#[test]
fn a_broken_link_goes_on_at_the_block_where_it_broke() {
    let mut random = Random::new(seed());
    for round in 0..30 {
        let rows = rows(&mut random, 300);
        let mut sender = RowsSender::new(sync(), &opening(rows.len() as u64));
        let mut receiver = RowsReceiver::new(sync());
        let mut got = Got::default();
        let mut made = 0;
        let mut links = 0;
        while got.end.is_none() {
            links += 1;
            receiver.reconnected();
            // Half of a link's blocks get lost on the way, at any byte; the last try gets through.
            let sent = blocks(&mut sender, &rows, receiver.next());
            made += sent.len();
            let sent = sent.concat();
            let length = if links < 12 { random.below(sent.len() as u64 + 1) as usize } else { sent.len() };
            got.take(&mut receiver, &sent[..length]).expect("intact");
        }
        assert!(got.rows == rows, "round {round}: {links} links, {made} blocks");
        assert_eq!(got.end.map(|end| end.rows), Some(rows.len() as u64));
    }
}

#[test]
fn a_place_too_far_back_cannot_be_gone_back_to() {
    let mut sender = RowsSender::new(sync(), &opening(1));
    let mut out = Vec::new();
    let long = |n: u32| [&n.to_be_bytes()[..], &[0; 100_000]].concat();
    for n in 0..100 {
        while sender.push(&long(n), b"") == Ok(Pushed::Full) {
            sender.seal(&mut out);
        }
        sender.seal(&mut out);
    }
    assert!(sender.rewind(101).is_some());
    assert!(sender.rewind(95).is_some_and(|key| key == long(93)));
    assert!(sender.rewind(101).is_none(), "what came after is forgotten");
    assert!(sender.rewind(40).is_none());
    assert_eq!(sender.rows(), 94);
    assert!(sender.rewind(1).is_some_and(<[u8]>::is_empty), "from the beginning it always goes");
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    let mut random = Random::new(seed());
    // One block that is compressed, one that is not.
    let mut rows: Vec<Owned> = (0..100u8).map(|n| (vec![n], b"again and again and again".to_vec())).collect();
    rows.push((vec![101], bytes(&mut random, 400, 256)));
    rows.push((vec![102], vec![1; BLOCK_BYTES]));
    let sent = blocks(&mut RowsSender::new(sync(), &opening(102)), &rows, 0);
    assert!(sent.len() > 3 && sent[1][1] == 1 && sent[2][1] == 0, "both encodings");
    let wire = sent.concat();
    let long = sent[0].len() + sent[1].len()..wire.len() - 100;
    for at in (0..wire.len()).filter(|at| !long.contains(at) || at % 97 == 0 || at - long.start < 64) {
        for _ in 0..3 {
            let mut bad = wire.clone();
            bad[at] ^= 1 + random.below(255) as u8;
            let mut got = Got::default();
            let failed = got.take(&mut RowsReceiver::new(sync()), &bad);
            // A length that grew waits for more bytes; it never completes.
            assert!(failed.is_err() || got.end.is_none(), "a change at {at} went unnoticed");
            assert!(rows.starts_with(&got.rows), "a change at {at} gave wrong rows");
        }
    }
    // A block that is missing, comes twice, or is another transfer's.
    for at in 0..sent.len() {
        for blocks in [[&sent[..at], &sent[at + 1..]].concat(), [&sent[..=at], &sent[at..]].concat()] {
            let mut got = Got::default();
            let failed = got.take(&mut RowsReceiver::new(sync()), &blocks.concat());
            // The end twice: the second one is not the rows' any more.
            assert!(failed.is_err() || got.end.is_none() || at + 1 == sent.len(), "block {at}");
        }
        let other = SyncId(ReplId::from_random([1; 20]));
        let mut mixed = sent.clone();
        mixed[at] = blocks(&mut RowsSender::new(other, &opening(102)), &rows, 0)[at].clone();
        assert!(Got::default().take(&mut RowsReceiver::new(sync()), &mixed.concat()).is_err(), "block {at}");
    }
}

#[test]
fn an_end_that_does_not_agree_is_refused() {
    let rows = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
    let take = |wire: &[u8]| Got::default().take(&mut RowsReceiver::new(sync()), wire);
    let honest = blocks(&mut RowsSender::new(sync(), &opening(2)), &rows, 0);
    assert_eq!(take(&honest.concat()), Ok(()));
    for (keys, sent) in [(3, &rows[..]), (1, &[])] {
        let wire = blocks(&mut RowsSender::new(sync(), &opening(keys)), sent, 0).concat();
        assert!(matches!(take(&wire), Err(RowsError::Incomplete(_))), "{keys} keys in {} rows", sent.len());
    }
    assert_eq!(take(&blocks(&mut RowsSender::new(sync(), &opening(0)), &[], 0).concat()), Ok(()), "an empty master");
    // The end of a transfer whose rows were others.
    let others = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"3".to_vec())];
    let mut mixed = honest;
    let end = blocks(&mut RowsSender::new(sync(), &opening(2)), &others, 0).pop().expect("an end");
    *mixed.last_mut().expect("an end") = end;
    assert!(matches!(take(&mixed.concat()), Err(RowsError::Incomplete(_))));
}

#[test]
fn lengths_are_claims() {
    let header = |kind: u8, compressed: u8, stored: u32, raw: u32, rows: u32, number: u64| {
        let mut bytes = [0; HEADER];
        (bytes[0], bytes[1]) = (kind, compressed);
        bytes[4..8].copy_from_slice(&stored.to_le_bytes());
        bytes[8..12].copy_from_slice(&raw.to_le_bytes());
        bytes[12..16].copy_from_slice(&rows.to_le_bytes());
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        block::Header::read(&bytes)
    };
    assert!(header(2, 0, 300, 300, 100, 1).is_ok());
    for (what, bad) in [
        ("many rows over a block", header(2, 0, 1 << 20, 1 << 20, 2, 1)),
        ("a row over the limit", header(2, 0, u32::MAX, u32::MAX, 1, 1)),
        ("much from little", header(2, 1, 10, 1 << 29, 1, 1)),
        ("compression that made it longer", header(2, 1, 300, 300, 1, 1)),
        ("lengths that differ", header(2, 0, 300, 301, 1, 1)),
        ("more rows than bytes", header(2, 0, 300, 300, 101, 1)),
        ("no rows", header(2, 0, 300, 300, 0, 1)),
        ("a long end", header(3, 0, 25, 25, 0, 1)),
        ("a long opening", header(1, 0, 1 << 30, 1 << 30, 0, 0)),
        ("an opening later", header(1, 0, 100, 100, 0, 1)),
        ("rows before the opening", header(2, 0, 300, 300, 1, 0)),
        ("an unknown kind", header(4, 0, 300, 300, 1, 1)),
        ("an unknown encoding", header(2, 2, 300, 300, 1, 1)),
    ] {
        assert!(bad.is_err(), "{what}");
    }
    let mut format = opening(1).encode();
    format[8] = 1;
    assert_eq!(Opening::decode(&format), Err(RowsError::Format(1)));
    for length in 0..format.len() - b"catalog".len() {
        assert!(Opening::decode(&format[..length]).is_err());
    }
    let mut sender = RowsSender::new(sync(), &opening(1));
    assert_eq!(sender.push(b"b", b""), Ok(Pushed::Taken));
    assert_eq!(sender.push(b"b", b""), Err(RowsError::Unsorted));
    assert_eq!(sender.push(b"a", b""), Err(RowsError::Unsorted));
}

#[test]
fn garbage_never_panics() {
    let mut random = Random::new(seed());
    let rows = rows(&mut random, 20);
    let wire = blocks(&mut RowsSender::new(sync(), &opening(0)), &rows, 0).concat();
    for _ in 0..2000 {
        let mut bad = wire[..random.below(wire.len() as u64) as usize].to_vec();
        for _ in 0..random.below(4) {
            let place = random.below(bad.len() as u64 + 1) as usize;
            if let Some(byte) = bad.get_mut(place) {
                *byte = random.below(256) as u8;
            }
        }
        let _ = Got::default().take(&mut RowsReceiver::new(sync()), &bad);
        // Rows that no sender made, behind a right checksum.
        let raw = bytes(&mut random, 60, 256);
        let mut out = Vec::new();
        let (length, number) = (raw.len() as u32, 1);
        let rows = 1 + random.below(1 + u64::from(length) / 3) as u32;
        let kind = block::Kind::Rows;
        let header = block::Header { kind, compressed: false, stored: length, raw: length, rows, number };
        RowsSender::new(sync(), &opening(0)).open(&mut out);
        if length / 3 >= rows {
            header.write(&raw, sync().seed(), &mut out);
            let _ = Got::default().take(&mut RowsReceiver::new(sync()), &out);
        }
    }
}
