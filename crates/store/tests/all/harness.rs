//! A small database of strings and hashes over the store's rows, its model, and a world of disk, engines and time to run it in.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ardb_base::disk::{Disk, SimDisk};
use ardb_base::hash::{key_hash, member_hash};
use ardb_base::id::{Generation, ObjectId, Offset};
use ardb_base::random::Random;
use ardb_engine::faulty::{Faults, FaultyEngine};
use ardb_engine::presence::{PresenceEngine, Survey};
use ardb_engine::{Direction, Engine, EngineError, RowKey, RowRange, Rows, RowsMut, Space};
use ardb_engine_memory::MemoryEngine;
use ardb_log::LogOptions;
use ardb_store::{EngineFactory, Fsync, MemoryBudget, OnDamage, OpenError, Recovery, Store, StoreOptions, object_of};

pub const DATABASES: u32 = 3;

/// One change. Keys and fields are small numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Set(u32, u64, u64),
    Field(u32, u64, u64, u64),
    Unfield(u32, u64, u64),
    Del(u32, u64),
    Flush(u32),
    Swap(u32, u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Val {
    Small(u64),
    Big(BTreeMap<u64, u64>),
}

pub type Db = BTreeMap<u64, Val>;
pub type Model = Vec<Db>;

pub fn empty_model() -> Model {
    vec![Db::new(); DATABASES as usize]
}

pub fn random_op(random: &mut Random) -> Op {
    let db = random.below(u64::from(DATABASES)) as u32;
    let key = random.below(12);
    match random.below(60) {
        0 => Op::Flush(db),
        1 => Op::Swap(db, random.below(u64::from(DATABASES)) as u32),
        2..=9 => Op::Del(db, key),
        10..=25 => Op::Unfield(db, key, random.below(6)),
        26..=45 => Op::Field(db, key, random.below(if key == 3 { 200 } else { 6 }), random.below(1000)),
        _ => Op::Set(db, key, random.below(1000)),
    }
}

fn key_name(key: u64) -> Vec<u8> {
    let mut name = format!("key-{key}").into_bytes();
    if key == 5 {
        name.resize(60, b'x');
    }
    name
}

fn key_number(name: &[u8]) -> u64 {
    let text = std::str::from_utf8(name).expect("names are text");
    text.trim_end_matches('x').strip_prefix("key-").and_then(|n| n.parse().ok()).expect("our own name")
}

fn field_name(field: u64) -> Vec<u8> {
    format!("f{field}").into_bytes()
}

/// Odd keys have an expiry, so that both forms of a key's row are met.
fn key_row(key: u64, encoding: u8, rest: &[u8]) -> Vec<u8> {
    let mut row = vec![b'h', encoding, (key % 2) as u8];
    if key % 2 == 1 {
        row.extend_from_slice(&77i64.to_le_bytes());
    }
    row.extend_from_slice(rest);
    row
}

fn rest_of(row: &[u8]) -> &[u8] {
    if row[2] & 1 == 1 { &row[11..] } else { &row[3..] }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

impl Op {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let n = match *self {
            Op::Set(db, key, value) => [0, u64::from(db), key, value, 0],
            Op::Field(db, key, field, value) => [1, u64::from(db), key, field, value],
            Op::Unfield(db, key, field) => [2, u64::from(db), key, field, 0],
            Op::Del(db, key) => [3, u64::from(db), key, 0, 0],
            Op::Flush(db) => [4, u64::from(db), 0, 0, 0],
            Op::Swap(a, b) => [5, u64::from(a), u64::from(b), 0, 0],
        };
        out.extend(n.iter().flat_map(|n| (*n as u16).to_le_bytes()));
    }

    pub fn decode_all(payload: &[u8]) -> Vec<Op> {
        assert_eq!(payload.len() % 10, 0);
        let ops = payload.chunks(10).map(|chunk| {
            let n: Vec<u64> = chunk.chunks(2).map(|b| u64::from(u16::from_le_bytes([b[0], b[1]]))).collect();
            let db = n[1] as u32;
            match n[0] {
                0 => Op::Set(db, n[2], n[3]),
                1 => Op::Field(db, n[2], n[3], n[4]),
                2 => Op::Unfield(db, n[2], n[3]),
                3 => Op::Del(db, n[2]),
                4 => Op::Flush(db),
                5 => Op::Swap(db, n[2] as u32),
                other => panic!("no operation {other}"),
            }
        });
        ops.collect()
    }

    pub fn apply_to_model(&self, model: &mut Model) {
        match *self {
            Op::Set(db, key, value) => {
                model[db as usize].insert(key, Val::Small(value));
            }
            Op::Field(db, key, field, value) => {
                let entry = model[db as usize].entry(key).or_insert_with(|| Val::Big(BTreeMap::new()));
                if let Val::Big(fields) = entry {
                    fields.insert(field, value);
                }
            }
            Op::Unfield(db, key, field) => {
                if let Some(Val::Big(fields)) = model[db as usize].get_mut(&key) {
                    fields.remove(&field);
                    if fields.is_empty() {
                        model[db as usize].remove(&key);
                    }
                }
            }
            Op::Del(db, key) => {
                model[db as usize].remove(&key);
            }
            Op::Flush(db) => model[db as usize].clear(),
            Op::Swap(a, b) => model.swap(a as usize, b as usize),
        }
    }

    /// Does it to rows.
    pub fn apply<R: RowsMut>(&self, rows: &mut R) -> Result<(), EngineError> {
        match *self {
            Op::Set(db, key, value) => {
                drop_key(rows, db, key)?;
                put_key(rows, db, key, &key_row(key, 0, &value.to_le_bytes()));
                rows.count(db, 1, (key % 2) as i64);
            }
            Op::Field(db, key, field, value) => {
                let (object, size) = match get_key(rows, db, key)? {
                    None => {
                        rows.count(db, 1, (key % 2) as i64);
                        (rows.new_object(), 0)
                    }
                    Some(row) => match object_of(&row) {
                        Some(object) => (object, number(&rest_of(&row)[8..])),
                        None => return Ok(()),
                    },
                };
                let name = field_name(field);
                let place = RowKey::new(Space::Member, object.0, member_hash(&name), &name);
                let size = size + u64::from(rows.get(place)?.is_none());
                rows.put(place, &value.to_le_bytes());
                put_big(rows, db, key, object, size);
            }
            Op::Unfield(db, key, field) => {
                let Some(row) = get_key(rows, db, key)? else { return Ok(()) };
                let Some(object) = object_of(&row) else { return Ok(()) };
                let size = number(&rest_of(&row)[8..]);
                let name = field_name(field);
                let place = RowKey::new(Space::Member, object.0, member_hash(&name), &name);
                if rows.get(place)?.is_some() {
                    rows.delete(place);
                    if size == 1 {
                        delete_key(rows, db, key);
                    } else {
                        put_big(rows, db, key, object, size - 1);
                    }
                }
            }
            Op::Del(db, key) => drop_key(rows, db, key)?,
            Op::Flush(db) => rows.flush(db),
            Op::Swap(a, b) => rows.swap(a, b),
        }
        Ok(())
    }
}

fn get_key(rows: &impl Rows, db: u32, key: u64) -> Result<Option<Vec<u8>>, EngineError> {
    let name = key_name(key);
    let place = RowKey::new(Space::Key, rows.keyspace(db).0, key_hash(&name), &name);
    Ok(rows.get(place)?.map(|row| row.to_vec()))
}

fn put_key(rows: &mut impl RowsMut, db: u32, key: u64, row: &[u8]) {
    let name = key_name(key);
    let keyspace = rows.keyspace(db).0;
    rows.put(RowKey::new(Space::Key, keyspace, key_hash(&name), &name), row);
}

fn put_big(rows: &mut impl RowsMut, db: u32, key: u64, object: ObjectId, size: u64) {
    let mut rest = object.0.to_le_bytes().to_vec();
    rest.extend_from_slice(&size.to_le_bytes());
    put_key(rows, db, key, &key_row(key, 1, &rest));
}

fn delete_key(rows: &mut impl RowsMut, db: u32, key: u64) {
    let name = key_name(key);
    let keyspace = rows.keyspace(db).0;
    rows.delete(RowKey::new(Space::Key, keyspace, key_hash(&name), &name));
    rows.count(db, -1, -((key % 2) as i64));
}

fn drop_key(rows: &mut impl RowsMut, db: u32, key: u64) -> Result<(), EngineError> {
    if let Some(row) = get_key(rows, db, key)? {
        delete_key(rows, db, key);
        if let Some(object) = object_of(&row) {
            rows.discard(object);
        }
    }
    Ok(())
}

/// Everything that can be seen, forward or backward, with the counts checked.
pub fn dump(rows: &dyn Rows, direction: Direction) -> Result<Model, EngineError> {
    let mut model = empty_model();
    for (db, keys) in (0..).zip(&mut model) {
        let mut big = Vec::new();
        let mut expiries = 0;
        let mut before = None;
        rows.scan(RowRange::group(Space::Key, rows.keyspace(db).0), direction, &mut |key, row| {
            let at = (key.order, key.tail.to_vec());
            if let Some(before) = before.replace(at.clone()) {
                assert!(if direction == Direction::Forward { before < at } else { before > at }, "in order");
            }
            let n = key_number(key.tail);
            expiries += n % 2;
            match object_of(row) {
                Some(object) => big.push((n, object, number(&rest_of(row)[8..]))),
                None => {
                    keys.insert(n, Val::Small(number(rest_of(row))));
                }
            }
            ControlFlow::Continue(())
        })?;
        for (n, object, size) in big {
            let mut fields = BTreeMap::new();
            let mut order = Vec::new();
            rows.scan(RowRange::group(Space::Member, object.0), direction, &mut |key, row| {
                let field = std::str::from_utf8(&key.tail[1..]).expect("text").parse().expect("a number");
                fields.insert(field, number(row));
                order.push(number(row));
                ControlFlow::Continue(())
            })?;
            let mut values = Vec::new();
            rows.values(RowRange::group(Space::Member, object.0), &mut |row| {
                values.push(number(row));
                ControlFlow::Continue(())
            })?;
            if direction == Direction::Backward {
                order.reverse();
            }
            assert_eq!(values, order, "db {db} key {n}: the values alone");
            assert_eq!(fields.len() as u64, size, "db {db} key {n}: the size stands in the key's row");
            keys.insert(n, Val::Big(fields));
        }
        assert_eq!(rows.key_count(db), keys.len() as u64, "db {db}: key count");
        assert_eq!(rows.expiry_count(db), expiries, "db {db}: expiry count");
    }
    Ok(model)
}

/// The same through point reads.
pub fn check_gets(rows: &impl Rows, model: &Model) -> Result<(), EngineError> {
    for (db, keys) in (0..).zip(model) {
        for key in 0..12 {
            let row = get_key(rows, db, key)?;
            match (keys.get(&key), row) {
                (None, None) => {}
                (Some(Val::Small(want)), Some(row)) => assert_eq!(number(rest_of(&row)), *want),
                (Some(Val::Big(fields)), Some(row)) => {
                    let object = object_of(&row).expect("a big value");
                    for field in 0..6 {
                        let name = field_name(field);
                        let place = RowKey::new(Space::Member, object.0, member_hash(&name), &name);
                        assert_eq!(rows.get(place)?.map(|v| number(&v)), fields.get(&field).copied());
                    }
                }
                (want, got) => panic!("db {db} key {key}: {want:?} and {got:?}"),
            }
        }
    }
    Ok(())
}

/// Memory engines that live as long as their directory does.
pub struct Engines {
    disk: SimDisk,
    engines: Mutex<BTreeMap<PathBuf, MemoryEngine>>,
    pub faults: Mutex<Option<Arc<Faults>>>,
    /// Bytes for the names of an engine's rows, by which it is known what an engine lacks.
    pub names: AtomicU64,
}

impl EngineFactory for Engines {
    fn open(&self, _: Generation, dir: &Path, _: u64) -> Result<Arc<dyn Engine>, EngineError> {
        let mut engines = self.engines.lock().expect("no panic in here");
        if self.disk.list(dir).is_err() {
            self.disk.create_dir_all(dir).map_err(|error| EngineError::new("open", error))?;
            engines.remove(dir);
        }
        let engine = engines.entry(dir.to_owned()).or_default().clone();
        let engine = PresenceEngine::new(Arc::new(engine), self.names.load(Ordering::Relaxed))?;
        while engine.survey(&mut Vec::new(), usize::MAX)? != Survey::Over {}
        let engine = FaultyEngine::new(Arc::new(engine));
        *self.faults.lock().expect("no panic in here") = Some(engine.faults());
        Ok(Arc::new(engine))
    }
}

/// Everything around a store that outlives its process.
pub struct World {
    pub disk: SimDisk,
    pub engines: Arc<Engines>,
    pub boot: u8,
    pub now: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
    pub memory: MemoryBudget,
    pub background: bool,
    pub segment_bytes: usize,
    pub on_damage: OnDamage,
    /// Stands before the disk, if a test wants to choose what fails.
    pub in_front: Option<Arc<dyn Disk>>,
}

impl World {
    pub fn new() -> World {
        let disk = SimDisk::new();
        World {
            engines: Arc::new(Engines {
                disk: disk.clone(),
                engines: Mutex::default(),
                faults: Mutex::default(),
                names: AtomicU64::new(1 << 20),
            }),
            disk,
            boot: 1,
            now: Arc::new(AtomicI64::new(1_000_000)),
            ids: Arc::new(AtomicU64::new(1)),
            memory: MemoryBudget { changed: 1 << 20, rows: 1 << 20, engine: 0 },
            background: false,
            segment_bytes: 8192,
            on_damage: OnDamage::Refuse,
            in_front: None,
        }
    }

    pub fn options(&self) -> StoreOptions {
        let now = self.now.clone();
        let ids = self.ids.clone();
        StoreOptions {
            dir: PathBuf::from("/data"),
            disk: self.in_front.clone().unwrap_or_else(|| Arc::new(self.disk.clone())),
            engines: self.engines.clone(),
            databases: DATABASES,
            memory: self.memory,
            log: LogOptions { segment_bytes: self.segment_bytes, ahead: false },
            backlog_bytes: 20_000,
            fsync: Fsync::EverySecond,
            checkpoint_age_ms: 5_000,
            boot_id: [self.boot; 16],
            random: Arc::new(move |bytes: &mut [u8]| Random::new(ids.fetch_add(1, Ordering::Relaxed)).fill(bytes)),
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
            background: self.background,
        }
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.engines.faults.lock().expect("no panic in there").clone().expect("an engine was opened")
    }

    /// Opens without replaying.
    pub fn try_open(&self) -> Result<(Store, Recovery), OpenError> {
        Store::open_with(self.options(), self.on_damage)
    }

    /// Opens and replays.
    pub fn open(&self) -> (Store, Recovery) {
        let (store, recovery) = self.try_open().expect("the store opens");
        replay(&store);
        (store, recovery)
    }
}

pub fn replay(store: &Store) {
    let mut last = None;
    store
        .replay(
            &mut |txn, frame| {
                for op in Op::decode_all(frame.payload) {
                    op.apply(txn).map_err(|error| error.to_string())?;
                    txn.frame().payload.extend_from_slice(b"what an execution adds is dropped");
                }
                Ok(())
            },
            &mut |progress| last = Some(progress),
        )
        .expect("the log can be replayed");
    if let Some(progress) = last {
        assert_eq!(progress.at, progress.end);
    }
}

/// Commits operations as one batch.
pub fn commit(store: &Store, ops: &[Op]) -> Offset {
    let mut txn = store.write();
    for op in ops {
        op.apply(&mut txn).expect("no faults are ordered");
        op.encode(&mut txn.frame().payload);
    }
    txn.commit().expect("no faults are ordered")
}

pub fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("ARDB_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

/// Prints the seed when a test fails.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: ARDB_SEED={}", self.0);
        }
    }
}
