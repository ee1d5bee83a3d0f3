//! Redis 2.6 as a peer, since no registry has one: its words on the wire by hand, its data in a real Redis 2.8 behind it.
//!
//! - [`Replica26`] asks as 2.6 does (inline `PING`, `REPLCONF listening-port`, `SYNC`), never acknowledges, takes an RDB up to
//!   version 6 and commands of 2.6 only, and answers what it does not know with an error into the link.
//! - [`Master26`] knows neither PSYNC nor any REPLCONF but `listening-port`, sends line ends while it dumps, `$length`, the
//!   RDB, and the stream.
//!
//! What they let through, a Redis 2.8 executes: as a replica of [`Replica26`], so that it expires nothing by itself, or as
//! what [`Master26`] dumps and listens to. 2.8 writes and reads the same RDB version and encodings as 2.6.

mod master;
mod replica;

pub use master::Master26;
pub use replica::Replica26;

use crate::client::Command;
use crate::wiretap::name;

/// The commands of Redis 2.6.17 that may stand in a replication stream.
const KNOWN: &str = "APPEND BITOP BLPOP BRPOP BRPOPLPUSH DECR DECRBY DEL EVAL EVALSHA EXEC EXPIRE EXPIREAT FLUSHALL FLUSHDB GETSET HDEL \
    HINCRBY HINCRBYFLOAT HMSET HSET HSETNX INCR INCRBY INCRBYFLOAT LINSERT LPOP LPUSH LPUSHX LREM LSET LTRIM MOVE MSET MSETNX MULTI \
    PERSIST PEXPIRE PEXPIREAT PING PSETEX PUBLISH RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SCRIPT SDIFFSTORE SELECT SET \
    SETBIT SETEX SETNX SETRANGE SINTERSTORE SMOVE SORT SPOP SREM SUNIONSTORE ZADD ZINCRBY ZINTERSTORE ZREM ZREMRANGEBYRANK \
    ZREMRANGEBYSCORE ZUNIONSTORE";

/// Why Redis 2.6 (its first release) would refuse a command.
fn refused(command: &Command) -> Option<String> {
    let name = name(command);
    if !KNOWN.split_whitespace().any(|known| known == name) {
        return Some(format!("-ERR unknown command '{name}'\r\n"));
    }
    let syntax = match name.as_str() {
        // Options came with 2.6.12.
        "SET" => command.len() != 3,
        "ZADD" => command.len() % 2 == 1 || command.get(2).is_some_and(|word| word.iter().all(u8::is_ascii_alphabetic)),
        // Several pairs came with 4.0.
        "HSET" => command.len() != 4,
        "SPOP" => command.len() != 2,
        _ => false,
    };
    // "inf" is a score.
    let infinite = name == "ZADD" && command.get(2).is_some_and(|word| word.to_ascii_lowercase().ends_with(b"inf"));
    (syntax && !(infinite && command.len().is_multiple_of(2))).then(|| "-ERR syntax error\r\n".to_string())
}
