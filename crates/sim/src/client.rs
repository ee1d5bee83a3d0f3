//! What clients do: writes that can be told apart, transactions, expiries, other databases, and WAIT.

use ardb_base::random::Random;

use crate::settings::DATABASES;

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: usize,
    /// Its number, among all requests.
    pub number: u64,
    pub db: u32,
    pub what: What,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum What {
    /// Commands that are executed one after the other.
    Commands(Vec<Vec<Vec<u8>>>),
    /// WAIT for so many replicas and so many ms.
    Wait(u64, u64),
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub struct Reply {
    pub client: usize,
    pub number: u64,
    /// The write that it acknowledges, by its place in the truth.
    pub write: Option<usize>,
    /// What a WAIT has found.
    pub confirms: Option<Confirmed>,
}

/// Nodes that have all of a client's writes on a node up to an offset of a name, with the time at which each said so. (It may be gone when that is heard.)
#[derive(Clone, Debug)]
pub struct Confirmed {
    pub by: Vec<(usize, u64)>,
    pub node: usize,
    pub name: ardb_base::id::ReplId,
    pub target: u64,
}

/// A client.
#[derive(Debug, Default)]
pub struct Client {
    /// The node that it believes to be the master.
    pub master: usize,
    /// The request that it waits for.
    pub waits_for: Option<u64>,
    pub db: u32,
    /// Its last request was a write.
    pub wrote: bool,
}

fn args(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// The next request of a client. `number` makes what it writes unique.
pub fn next(client: &mut Client, index: usize, number: u64, random: &mut Random) -> Request {
    if random.one_in(8) {
        client.db = random.below(u64::from(DATABASES)) as u32;
    }
    if client.wrote && random.one_in(6) {
        client.wrote = false;
        let what = What::Wait(1 + random.below(2), [50, 400, 3000][random.below(3) as usize]);
        return Request { client: index, number, db: client.db, what };
    }
    client.wrote = true;
    let most = if random.one_in(4) { 6 } else { 1 };
    let n = 1 + random.below(most);
    let mut commands: Vec<Vec<Vec<u8>>> = (0..n).flat_map(|i| one(number, i, random)).collect();
    if n > 1 && random.one_in(2) {
        commands.insert(0, args(&["MULTI"]));
        commands.push(args(&["EXEC"]));
    }
    Request { client: index, number, db: client.db, what: What::Commands(commands) }
}

/// One command, or two that belong together.
fn one(number: u64, part: u64, random: &mut Random) -> Vec<Vec<Vec<u8>>> {
    let key = |letter: &str, random: &mut Random, of: u64| format!("{letter}{}", random.below(of));
    let token = format!("<{number}.{part}>");
    let token = token.as_str();
    let soon = (50 + random.below(4000)).to_string();
    vec![match random.below(26) {
        0..=3 => args(&["INCR", &key("c", random, 4)]),
        4..=8 => args(&["RPUSH", &key("l", random, 4), token]),
        9 => args(&["LPOP", &key("l", random, 4)]),
        10 => args(&["SADD", &key("m", random, 3), token]),
        11 => args(&["SPOP", &key("m", random, 3)]),
        12 | 13 => args(&["HSET", &key("h", random, 3), &key("f", random, 5), token]),
        14 => args(&["HINCRBY", &key("n", random, 2), &key("f", random, 3), "3"]),
        15 => args(&["ZADD", &key("z", random, 2), &random.below(50).to_string(), token]),
        16 => args(&["SET", &key("s", random, 8), token]),
        17 => args(&["SET", &key("s", random, 8), token, "PX", &soon]),
        18 => args(&["PEXPIRE", &key("s", random, 8), &soon]),
        19 => args(&["APPEND", &key("a", random, 3), token]),
        20 => {
            let long = format!("{token}{}", "x".repeat(random.below(9000) as usize));
            args(&["SET", &key("s", random, 8), &long])
        }
        21 => {
            let of = [("s", 8), ("l", 4), ("h", 3), ("m", 3), ("z", 2), ("a", 3)][random.below(6) as usize];
            args(&["DEL", &key(of.0, random, of.1)])
        }
        22 => args(&["RENAME", &key("s", random, 8), &key("s", random, 8)]),
        23 => args(&["MOVE", &key("s", random, 8), &random.below(u64::from(DATABASES)).to_string()]),
        24 if random.one_in(6) => args(&["FLUSHDB"]),
        25 if random.one_in(6) => args(&["SWAPDB", "0", "1"]),
        _ => args(&["RPUSH", &key("l", random, 4), token]),
    }]
}
