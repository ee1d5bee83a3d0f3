//! A data set in memory, a sink that fills it, and its writing; and random data sets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;

use ardb_base::random::Random;
use ardb_rdb::{Items, KeyMeta, Kind, Sink, WriteError, Writer};

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(BTreeMap<Vec<u8>, ()>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    SortedSet(BTreeMap<Vec<u8>, f64>),
}

impl Value {
    pub fn new(kind: Kind) -> Value {
        match kind {
            Kind::String => Value::String(Vec::new()),
            Kind::List => Value::List(Vec::new()),
            Kind::Set => Value::Set(BTreeMap::new()),
            Kind::Hash => Value::Hash(BTreeMap::new()),
            Kind::SortedSet => Value::SortedSet(BTreeMap::new()),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Value::String(_) => Kind::String,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::SortedSet(_) => Kind::SortedSet,
        }
    }

    pub fn len(&self) -> u64 {
        (match self {
            Value::String(v) => v.len(),
            Value::List(v) => v.len(),
            Value::Set(v) => v.len(),
            Value::Hash(v) => v.len(),
            Value::SortedSet(v) => v.len(),
        }) as u64
    }

    pub fn write_items(&self, to: &mut impl Items) -> Result<(), WriteError> {
        match self {
            Value::String(v) => v.chunks(1000).try_for_each(|piece| to.string_piece(piece))?,
            Value::List(v) => v.iter().try_for_each(|e| to.element(e))?,
            Value::Set(v) => v.keys().try_for_each(|e| to.element(e))?,
            Value::Hash(v) => v.iter().try_for_each(|(f, v)| to.field(f, v))?,
            Value::SortedSet(v) => v.iter().try_for_each(|(m, s)| to.scored(m, *s))?,
        }
        to.end()
    }
}

pub type Keys = BTreeMap<(u64, Vec<u8>), (Option<i64>, Value)>;

/// A key that was begun: its name, what stands beside it, the items so far, their number, the claimed number.
type Open = (Vec<u8>, KeyMeta, Value, u64, Option<u64>);

/// Collects everything; checks the order of the calls.
#[derive(Default, Debug)]
pub struct Model {
    pub db: u64,
    pub keys: Keys,
    pub aux: Vec<(String, String)>,
    pub functions: usize,
    pub empty: usize,
    pub metas: Vec<KeyMeta>,
    open: Option<Open>,
}

impl Model {
    /// The only value, of a payload.
    pub fn single(mut self) -> Value {
        let (_, (_, value)) = self.keys.pop_first().expect("one value");
        assert!(self.keys.is_empty());
        value
    }

    fn item(&mut self) -> &mut Value {
        let (_, _, value, count, _) = self.open.as_mut().expect("an item within a key");
        *count += 1;
        value
    }
}

impl Sink for Model {
    type Error = Infallible;

    fn aux(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.aux.push((String::from_utf8_lossy(key).into(), String::from_utf8_lossy(value).into()));
        Ok(())
    }

    fn select_db(&mut self, db: u64) -> Result<(), Infallible> {
        self.db = db;
        Ok(())
    }

    fn function(&mut self, _: &[u8]) -> Result<(), Infallible> {
        self.functions += 1;
        Ok(())
    }

    fn empty_key(&mut self, _: &[u8], _: Kind) -> Result<(), Infallible> {
        self.empty += 1;
        Ok(())
    }

    fn begin(&mut self, key: &[u8], meta: &KeyMeta, kind: Kind, hint: Option<u64>) -> Result<(), Infallible> {
        assert!(self.open.is_none());
        self.open = Some((key.to_vec(), *meta, Value::new(kind), 0, hint));
        Ok(())
    }

    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        match self.item() {
            Value::String(v) => v.extend_from_slice(piece),
            other => panic!("a piece in {other:?}"),
        }
        Ok(())
    }

    fn element(&mut self, element: &[u8]) -> Result<(), Infallible> {
        match self.item() {
            Value::List(v) => v.push(element.to_vec()),
            Value::Set(v) => drop(v.insert(element.to_vec(), ())),
            other => panic!("an element in {other:?}"),
        }
        Ok(())
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Infallible> {
        match self.item() {
            Value::Hash(v) => drop(v.insert(field.to_vec(), value.to_vec())),
            other => panic!("a field in {other:?}"),
        }
        Ok(())
    }

    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Infallible> {
        assert!(!score.is_nan());
        match self.item() {
            Value::SortedSet(v) => drop(v.insert(member.to_vec(), score)),
            other => panic!("a member in {other:?}"),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Infallible> {
        let (key, meta, value, count, hint) = self.open.take().expect("an end of a begun key");
        assert!(count > 0, "at least one item");
        if let (Some(hint), false) = (hint, value.kind() == Kind::String) {
            assert_eq!(hint, count, "the hint of a complete collection");
        }
        self.metas.push(meta);
        self.keys.insert((self.db, key), (meta.expire_at_ms, value));
        Ok(())
    }
}

/// Writes all of `keys`.
pub fn write<W: Write>(keys: &Keys, mut writer: Writer<W>) -> Result<W, WriteError> {
    let mut current = None;
    for ((db, key), (expire, value)) in keys {
        if current != Some(*db) {
            writer.select_db(*db as u32)?;
            current = Some(*db);
        }
        match value {
            Value::String(v) if v.len() < 500 => writer.string(key, *expire, v)?,
            other => {
                writer.begin(key, *expire, other.kind(), other.len())?;
                other.write_items(&mut writer)?;
            }
        }
    }
    writer.finish()
}

/// The seed of a random test, to be printed when it fails.
pub fn seed(fallback: u64) -> u64 {
    std::env::var("ARDB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(fallback)
}

pub fn bytes(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => {
            let shift = random.below(64);
            (random.next_u64() as i64 >> shift).to_string()
        }
        .into_bytes(),
        1 => format!("0{}", random.below(1000)).into_bytes(),
        2 => {
            let byte = random.below(256) as u8;
            vec![byte; random.below(400) as usize]
        }
        3 => {
            let most = if random.one_in(20) { 70_000 } else { 300 };
            let mut noise = vec![0; random.below(most) as usize];
            random.fill(&mut noise);
            noise
        }
        _ => format!("item-{}", random.below(100_000)).into_bytes(),
    }
}

pub fn score(random: &mut Random) -> f64 {
    match random.below(6) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => random.below(1000) as f64 - 500.0,
        3 => random.unit(),
        _ => Some(f64::from_bits(random.next_u64())).filter(|v| v.is_finite()).unwrap_or(-0.0),
    }
}

pub fn value(random: &mut Random) -> Value {
    let kind = [Kind::String, Kind::List, Kind::Set, Kind::Hash, Kind::SortedSet][random.below(5) as usize];
    let mut value = Value::new(kind);
    let most = if random.one_in(30) { 5000 } else { 20 };
    let count = 1 + random.below(most);
    for _ in 0..count {
        match &mut value {
            Value::String(v) if v.is_empty() => *v = bytes(random),
            Value::String(_) => break,
            Value::List(v) => v.push(bytes(random)),
            Value::Set(v) => drop(v.insert(bytes(random), ())),
            Value::Hash(v) => drop(v.insert(bytes(random), bytes(random))),
            Value::SortedSet(v) => drop(v.insert(bytes(random), score(random))),
        }
    }
    value
}

pub fn keys(random: &mut Random, count: u64) -> Keys {
    (0..count)
        .map(|i| {
            let expire = random.one_in(4).then(|| 4_000_000_000_000 + random.below(1 << 40) as i64);
            let mut key = bytes(random);
            key.extend_from_slice(format!(":{i}").as_bytes());
            ((random.below(16), key), (expire, value(random)))
        })
        .collect()
}
