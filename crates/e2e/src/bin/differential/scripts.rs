//! Lua scripts that are tried: values from and to Lua, errors, and the libraries of Redis's sandbox.
//!
//! In a template `@n` stands for script `n` of [`TEXTS`], and `@nsha` for its SHA-1.

use sha1::{Digest, Sha1};

use crate::table::{Class, Row};

const fn script(weight: u64, template: &'static str) -> Row {
    Row { weight, class: Class::Exact, template }
}

/// Calls of the scripts.
pub const SCRIPTS: &[Row] = &[
    script(1, "EVAL @0 1 $c $i"),
    script(1, "EVAL @1 2 $s $l $v $m"),
    script(1, "EVAL @2 0 $d $i $v"),
    script(1, "EVAL @3 0 $v"),
    script(1, "EVAL @4 0 $i"),
    script(1, "EVAL @5 0 $i $i"),
    script(1, "EVAL @6 1 $k"),
    script(1, "EVAL @7 0"),
    script(1, "EVAL @8 0"),
    script(1, "EVAL @9 1 $k"),
    script(1, "EVAL @10 0 $v"),
    script(1, "EVAL_RO @11 1 $s"),
    script(1, "EVAL @12 ($i|abc|-1|5) $k"),
    script(1, "SCRIPT LOAD @13;EVALSHA @13sha 1 $s $v;EVALSHA 0000000000000000000000000000000000000000 0"),
    script(1, "SCRIPT EXISTS @13sha 0000000000000000000000000000000000000000"),
    script(1, "EVAL @14 0 $v"),
    script(1, "EVAL @15 0"),
    script(1, "EVAL @16 0 $d"),
    script(1, "EVAL @17 1 $z $d $m"),
];

/// The scripts.
pub const TEXTS: [&str; 18] = [
    "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "redis.call('SET', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[2]) return {KEYS[1], ARGV[1], #ARGV[2]}",
    "return {tonumber(ARGV[1]) or false, tonumber(ARGV[2]) or 'none', ARGV[3], 3.99, true, false, {1, {2, nil, 3}}}",
    "return cjson.encode({a = {1, 2.5, 'x', true}}) .. cjson.encode({}) .. #ARGV[1]",
    "return {bit.band(tonumber(ARGV[1]) or 7, 255), bit.bor(1, 2), bit.tohex(255), bit.lshift(1, 5), bit.bnot(0)}",
    "return redis.error_reply('MY ' .. (tonumber(ARGV[1]) or 0) + (tonumber(ARGV[2]) or 0))",
    "local ok = redis.pcall('LPUSH', KEYS[1], 'a') if ok.err then return 'failed: ' .. ok.err end return ok",
    "return redis.call('NOSUCH', 'a')",
    "return nosuchglobal",
    "local t = redis.call('TYPE', KEYS[1]) return {t.ok, redis.status_reply('FINE')}",
    "return {redis.sha1hex(ARGV[1]), string.len(ARGV[1]), string.upper(ARGV[1])}",
    "return redis.call('SET', KEYS[1], 'no')",
    "return {#KEYS, #ARGV}",
    "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('STRLEN', KEYS[1])",
    "local p = cmsgpack.pack({1, 'two', {3, false}, ARGV[1]}) local u = cmsgpack.unpack(p) return {u[1], u[2], u[3][1], u[4], #p}",
    "local p = struct.pack('>I4hs', 1, -2, 'x') local a, b, c = struct.unpack('>I4hs', p) return {a, b, c, struct.size('>I4h')}",
    "local j = cjson.decode('[1, 2.5, \"x\", null, {\"a\": [true]}]') return {j[1], tostring(j[2]), j[3], j[4] == cjson.null, tostring(j[5].a[1]), ARGV[1]}",
    "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) return redis.call('ZSCORE', KEYS[1], ARGV[2])",
];

/// Puts the scripts where a command names them.
pub fn insert(args: &mut [Vec<u8>]) {
    for arg in args {
        let Some(name) = arg.strip_prefix(b"@").and_then(|name| std::str::from_utf8(name).ok()) else { continue };
        let (number, hashed) = name.strip_suffix("sha").map_or((name, false), |number| (number, true));
        let Some(text) = number.parse::<usize>().ok().and_then(|number| TEXTS.get(number)) else { continue };
        *arg = if hashed {
            Sha1::digest(text.as_bytes()).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
        } else {
            text.as_bytes().to_vec()
        };
    }
}
