//! Every command that is tried, as templates (see [`crate::template`]), with how often and how its replies compare.
//!
//! What is random on purpose is asked so that the answer is not (a count beyond the size), or only its shape is compared.
//! What would make the servers' data differ is not here: a random pop, an expiry near enough to fall into the run.

/// How two replies are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// They are the same.
    Exact,
    /// They hold the same items in any order, so many of them belonging together.
    Unordered(usize),
    /// They are of the same kind and length.
    Shape,
    /// They are numbers this near to each other, or the same.
    Near(i64),
}

/// One or several commands (parted by semicolons) that are sent together.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How often, relative to the others.
    pub weight: u64,
    /// Of the last command's reply; those before it compare exactly.
    pub class: Class,
    /// The commands.
    pub template: &'static str,
}

const fn row(weight: u64, template: &'static str) -> Row {
    Row { weight, class: Class::Exact, template }
}

const fn any_order(weight: u64, template: &'static str) -> Row {
    Row { weight, class: Class::Unordered(1), template }
}

const fn pairs(weight: u64, template: &'static str) -> Row {
    Row { weight, class: Class::Unordered(2), template }
}

const fn shape(weight: u64, template: &'static str) -> Row {
    Row { weight, class: Class::Shape, template }
}

const fn near(weight: u64, within: i64, template: &'static str) -> Row {
    Row { weight, class: Class::Near(within), template }
}

/// The commands.
pub const TABLE: &[Row] = &[
    // Strings.
    row(14, "SET $s $v [EX $ttl|PX $pttl|EXAT $at|PXAT $pat|KEEPTTL] [NX|XX] [GET]"),
    row(3, "SET $k $v [EX $badttl|PX $badttl|EXAT $badttl|NX XX|GET|KEEPTTL EX $ttl|bogus]"),
    row(4, "SET $c $i"),
    row(2, "SETEX $s ($ttl|$badttl) $v"),
    row(2, "PSETEX $s ($pttl|$badttl) $v"),
    row(3, "SETNX $s $v"),
    row(8, "GET $s"),
    row(3, "GETSET $s $v"),
    row(3, "GETDEL $s"),
    row(4, "GETEX $s [EX $ttl|PX $pttl|EXAT $at|PXAT $pat|PERSIST|EX $badttl|PERSIST EX $ttl]"),
    row(6, "APPEND $s $v"),
    row(3, "STRLEN $s"),
    row(5, "SETRANGE $s $o $v"),
    row(1, "SETRANGE $s (-1|536870912|abc) $v"),
    row(6, "(GETRANGE|SUBSTR) $s $x $x"),
    row(4, "MSET {$s $v}"),
    row(1, "MSET {$k $v}"),
    row(2, "MSETNX {$s $v}"),
    row(4, "MGET {$k}"),
    row(5, "(INCR|DECR) $c"),
    row(5, "(INCRBY|DECRBY) $c $i"),
    row(5, "INCRBYFLOAT ($c|$s) $d"),
    // Not on $s: its cost is the product of the lengths.
    row(2, "SET s:one $m;SET s:two $m;LCS s:one s:two [IDX|IDX WITHMATCHLEN]"),
    row(3, "LCS $c $c [LEN|IDX|IDX MINMATCHLEN $n|IDX WITHMATCHLEN|LEN IDX]"),
    // Bits.
    row(6, "SETBIT $b $bit (0|1)"),
    row(1, "SETBIT $k $bit (2|x|-1|1)"),
    row(4, "GETBIT ($b|$s) $bit"),
    row(4, "BITCOUNT ($b|$s) [$x $x|$x $x BYTE|$x $x BIT|$x|$x $x foo]"),
    row(4, "BITPOS ($b|$s) (0|1) [$x|$x $x|$x $x BYTE|$x $x BIT]"),
    row(1, "BITPOS $b (2|x)"),
    row(5, "BITOP (AND|OR|XOR) $b {$b}"),
    row(2, "BITOP (NOT|FOO|AND) $b ($b|$s) [$k]"),
    row(
        6,
        "BITFIELD $b {[OVERFLOW (WRAP|SAT|FAIL|FOO)] (GET $type $bitoffset|SET $type $bitoffset $i|INCRBY $type $bitoffset $i)}",
    ),
    row(2, "BITFIELD_RO $b {GET $type $bitoffset} [SET u8 0 1]"),
    // Lists.
    row(10, "(LPUSH|RPUSH) $l {$m}"),
    row(2, "(LPUSHX|RPUSHX) $l {$m}"),
    row(5, "(LPOP|RPOP) $l [$n|$x]"),
    row(5, "LRANGE $l $x $x"),
    row(3, "LINDEX $l $x"),
    row(3, "LLEN $l"),
    row(4, "LSET $l $x $m"),
    row(4, "LINSERT $l (BEFORE|AFTER|WITHIN) $m $m"),
    row(4, "LREM $l $x $m"),
    row(4, "LTRIM $l $x $x"),
    row(3, "RPOPLPUSH $l $l"),
    row(4, "LMOVE $l $l (LEFT|RIGHT|UP) (LEFT|RIGHT)"),
    row(5, "LPOS $l $m [RANK $x] [COUNT $n] [MAXLEN $n]"),
    row(3, "LMPOP #{$l} (LEFT|RIGHT) [COUNT $x]"),
    row(1, "DEL l:full;RPUSH l:full $m $m;(BLPOP|BRPOP) $l l:full (0|0.01|1)"),
    row(
        1,
        "DEL l:full;RPUSH l:full a;(BRPOPLPUSH l:full $l 0|BLMOVE l:full $l LEFT RIGHT 0|BLMPOP 0 2 $l l:full LEFT COUNT 2)",
    ),
    row(1, "(BLPOP|BRPOP) $k (-1|abc|inf|nan)"),
    // Sets.
    row(10, "SADD $t {$m}"),
    row(5, "SREM $t {$m}"),
    row(4, "SISMEMBER $t $m"),
    row(3, "SMISMEMBER $t {$m}"),
    row(3, "SCARD $t"),
    any_order(4, "SMEMBERS $t"),
    any_order(4, "(SINTER|SUNION|SDIFF) {$t}"),
    row(4, "(SINTERSTORE|SUNIONSTORE|SDIFFSTORE) $t {$t}"),
    row(3, "SINTERCARD #{$t} [LIMIT $x]"),
    row(3, "SMOVE $t $t $m"),
    any_order(2, "SPOP $t $all"),
    row(1, "SPOP $t (0|-1|abc)"),
    row(2, "DEL t:one;SADD t:one $m;SPOP t:one"),
    any_order(2, "SRANDMEMBER $t $all"),
    shape(2, "SRANDMEMBER $t [$r]"),
    // Hashes.
    row(10, "HSET $h {$m $v}"),
    row(2, "HMSET $h {$m $v}"),
    row(2, "HSETNX $h $m $v"),
    row(5, "HGET $h $m"),
    row(3, "HMGET $h {$m}"),
    row(4, "HDEL $h {$m}"),
    row(2, "HEXISTS $h $m"),
    row(2, "HLEN $h"),
    row(2, "HSTRLEN $h $m"),
    row(4, "HINCRBY $h $m $i"),
    row(4, "HINCRBYFLOAT $h $m $d"),
    pairs(3, "HGETALL $h"),
    any_order(3, "(HKEYS|HVALS) $h"),
    any_order(2, "HRANDFIELD $h $all"),
    pairs(2, "HRANDFIELD $h $all WITHVALUES"),
    shape(2, "HRANDFIELD $h [$r [WITHVALUES]]"),
    // Sorted sets.
    row(12, "ZADD $z [NX|XX] [GT|LT] [CH] {$d $m}"),
    row(2, "ZADD $z [NX|XX|GT LT|NX GT] [CH] INCR $d $m"),
    row(1, "ZADD $k (bogus 1 a|1|1 a 2|NX XX 1 a)"),
    row(4, "ZINCRBY $z $d $m"),
    row(4, "ZREM $z {$m}"),
    row(3, "ZCARD $z"),
    row(4, "ZSCORE $z $m"),
    row(3, "ZMSCORE $z {$m}"),
    row(4, "(ZRANK|ZREVRANK) $z $m"),
    row(3, "ZCOUNT $z $min $max"),
    row(5, "ZRANGE $z $x $x [REV] [WITHSCORES]"),
    row(5, "ZRANGE $z $min $max BYSCORE [LIMIT $x $x] [WITHSCORES]"),
    row(3, "ZRANGE $z $max $min BYSCORE REV [LIMIT $x $x] [WITHSCORES]"),
    row(1, "ZRANGE $z ($x $x LIMIT 0 1|$min $max BYLEX WITHSCORES|1 2 BYSCORE BYLEX)"),
    row(2, "ZREVRANGE $z $x $x [WITHSCORES]"),
    row(3, "ZRANGEBYSCORE $z $min $max [WITHSCORES] [LIMIT $x $x]"),
    row(3, "ZREVRANGEBYSCORE $z $max $min [WITHSCORES] [LIMIT $x $x]"),
    row(2, "ZREMRANGEBYRANK $z $x $x"),
    row(2, "ZREMRANGEBYSCORE $z $min $max"),
    row(4, "(ZPOPMIN|ZPOPMAX) $z [$x]"),
    row(3, "ZMPOP #{$z} (MIN|MAX) [COUNT $x]"),
    row(1, "DEL z:full;ZADD z:full 1 a 2 $m;(BZPOPMIN|BZPOPMAX) $z z:full (0|0.01)"),
    row(1, "DEL z:full;ZADD z:full 1 a;BZMPOP 0 2 $z z:full MIN COUNT 2"),
    row(4, "(ZUNIONSTORE|ZINTERSTORE) $z #{($z|$z|$t)} [AGGREGATE (SUM|MIN|MAX|AVG)]"),
    row(3, "(ZUNIONSTORE|ZINTERSTORE) $z 2 $z $z WEIGHTS $d $d [AGGREGATE (SUM|MIN|MAX)]"),
    row(3, "(ZUNION|ZINTER) #{$z} [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]"),
    row(2, "ZDIFF #{$z} [WITHSCORES]"),
    row(2, "ZDIFFSTORE $z #{$z}"),
    row(2, "ZINTERCARD #{$z} [LIMIT $x]"),
    row(3, "ZRANGESTORE $z $z ($x $x|$min $max BYSCORE|$max $min BYSCORE REV) [LIMIT $n $n]"),
    any_order(2, "ZRANDMEMBER $z $all"),
    pairs(2, "ZRANDMEMBER $z $all WITHSCORES"),
    shape(2, "ZRANDMEMBER $z [$r [WITHSCORES]]"),
    row(4, "ZADD $y {0 $m}"),
    row(2, "ZREM $y {$m}"),
    row(3, "ZRANGEBYLEX $y $lexmin $lexmax [LIMIT $x $x]"),
    row(2, "ZREVRANGEBYLEX $y $lexmax $lexmin [LIMIT $x $x]"),
    row(2, "ZRANGE $y $lexmin $lexmax BYLEX [LIMIT $x $x]"),
    row(2, "ZLEXCOUNT $y $lexmin $lexmax"),
    row(1, "ZREMRANGEBYLEX $y $lexmin $lexmax"),
    // HyperLogLogs. A PFCOUNT of one key leaves what it counted in the string on Redis and not here, so such a key is deleted after it.
    row(10, "PFADD $p {{{$w}}}"),
    row(3, "PFADD $p [$m]"),
    row(4, "PFCOUNT $p {$p}"),
    row(3, "DEL p:one;PFMERGE p:one {$p};PFCOUNT p:one;DEL p:one"),
    row(4, "PFMERGE $p {$p}"),
    row(2, "PFDEBUG (ENCODING|DECODE) $p"),
    row(1, "PFDEBUG (TODENSE $p|GETREG never:1|foo $p|ENCODING $p x)"),
    row(1, "SETRANGE $p (0 HYLL|4 x|8 x|15 x)"),
    // Places.
    row(10, "GEOADD $g [NX|XX] [CH] {$lon $lat $m}"),
    row(1, "GEOADD $g (NX XX 1 1 a|1 1|CH|1 1 a 1)"),
    row(2, "ZREM $g {$m}"),
    row(3, "(GEOPOS|GEOHASH) $g {$m}"),
    row(3, "GEODIST $g $m $m [m|KM|ft|mi|foo|m m]"),
    row(
        8,
        "GEOSEARCH $g (FROMLONLAT $lon $lat|FROMMEMBER $m) (BYRADIUS $radius (m|km|ft|mi|x)|BYBOX $radius $radius (m|km)) [ASC|DESC] [COUNT $n [ANY]] [WITHDIST] [WITHHASH] [WITHCOORD]",
    ),
    row(
        1,
        "GEOSEARCH $g (FROMLONLAT 1 1 ASC ANY DESC|BYRADIUS 1 km ASC ANY DESC|FROMLONLAT 1 1 FROMMEMBER $m ASC ASC)",
    ),
    row(
        5,
        "GEOSEARCHSTORE $g $g (FROMLONLAT $lon $lat|FROMMEMBER $m) (BYRADIUS $radius (m|km|mi)|BYBOX $radius $radius km) [ASC|DESC] [COUNT $n [ANY]] [STOREDIST]",
    ),
    row(
        5,
        "(GEORADIUS|GEORADIUS_RO) $g $lon $lat $radius (m|km|ft|x) [WITHDIST] [WITHCOORD] [COUNT $n [ANY]] [ASC|DESC] [STORE $g|STOREDIST $g]",
    ),
    row(
        4,
        "(GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO) $g $m $radius (m|km|mi) [WITHHASH] [COUNT $n [ANY]] [ASC|DESC] [STORE $g|STOREDIST $g]",
    ),
    row(1, "COMMAND GETKEYS (GEORADIUS a 1 1 1 m STORE b|GEORADIUSBYMEMBER a m 1 m STORE b STOREDIST c|PFMERGE a b c)"),
    // Keys and expiry.
    row(8, "(DEL|UNLINK) {$k}"),
    row(3, "EXISTS {$k}"),
    row(2, "TOUCH {$k}"),
    row(3, "TYPE $k"),
    row(2, "RENAME $s $s"),
    row(2, "RENAME $l $l"),
    row(2, "(RENAME|RENAMENX) $z $z"),
    row(2, "(RENAME|RENAMENX) $k $k"),
    row(3, "COPY $h $h [REPLACE] [DB (0|1|99|x)]"),
    row(3, "COPY $k $k [DB (0|1|2)] [REPLACE]"),
    row(2, "MOVE $k (0|1|2|16|-1|x)"),
    row(4, "EXPIRE $k $ttl [NX|XX|GT|LT|GT XX|NX GT|GT LT|foo]"),
    row(3, "PEXPIRE $k $pttl [NX|XX|GT|LT]"),
    row(3, "EXPIREAT $k $at [NX|XX|GT|LT]"),
    row(3, "PEXPIREAT $k $pat [NX|XX|GT|LT]"),
    row(2, "(EXPIRE|PEXPIRE|EXPIREAT|PEXPIREAT) $k $badttl"),
    row(3, "PERSIST $k"),
    near(3, 2, "(TTL|EXPIRETIME) $k"),
    near(3, 2500, "(PTTL|PEXPIRETIME) $k"),
    any_order(1, "KEYS $pattern"),
    row(2, "DBSIZE"),
    shape(1, "RANDOMKEY"),
    row(4, "SELECT (0|0|0|1|2)"),
    row(1, "SELECT (-1|16|abc|99999999999)"),
    row(1, "SWAPDB (0 1|1 2|0 0|0 99|a b|0 b)"),
    row(1, "FLUSHDB [ASYNC|SYNC|foo]"),
    // Sorting.
    row(4, "SORT ($l|$t|$z) [LIMIT $x $x] [ASC|DESC] ALPHA"),
    row(3, "SORT ($l|$t|$z) [LIMIT $x $x] [ASC|DESC]"),
    // In any order, because a set may have got a list's name, and a set has none.
    any_order(3, "SORT $l (BY nosort [ALPHA]|BY c:*|BY h:*->m1) [GET #] [GET c:*] [GET h:*->1]"),
    row(2, "SORT ($l|$t|$z) ALPHA [DESC] STORE $l"),
    row(1, "SORT_RO $l [ALPHA] [STORE $l|GET #|foo]"),
    row(1, "SORT $l [BY c:*] [DESC] [STORE $k]"),
    // The connection and what is about commands.
    row(2, "PING [hello]"),
    row(1, "ECHO $v"),
    row(1, "CLIENT (SETNAME abc|GETNAME|SETNAME)"),
    row(1, "PUBLISH channel $v"),
    row(1, "PUBSUB (CHANNELS|CHANNELS x*|NUMSUB a b|NUMSUB|NUMPAT|FOO)"),
    row(1, "SCRIPT (KILL|FOO|EXISTS|FLUSH|FLUSH ASYNC|FLUSH foo)"),
    row(1, "WAIT 0 (1|-1|abc)"),
    shape(1, "(TIME|CLIENT ID|ROLE)"),
    row(1, "RESET;ECHO reset"),
    row(1, "COMMAND GETKEYS (SET a b|MSET a 1 b 2|ZUNIONSTORE d 2 a b|EVAL x 1 a|GET|PING|SORT a STORE b|FOO)"),
    row(1, "OBJECT (ENCODING never:1|FOO|REFCOUNT never:1)"),
    row(1, "SCAN (abc|0 COUNT 0|0 COUNT abc|0 MATCH|0 foo bar|0x1)"),
    row(1, "(SSCAN|HSCAN|ZSCAN) (never:1 0|$k abc|$k 0 COUNT 0|never:1 0 COUNT 5 MATCH x)"),
    row(1, "(NOSUCH|GETT|LPUSHH) $k $v"),
    row(1, "UNWATCH;DISCARD;EXEC"),
    row(1, "WATCH $s;SET $s x;MULTI;SET $s y;EXEC"),
    row(1, "MULTI;WATCH $s;MULTI;INCR $c;DISCARD"),
    row(1, "RESTORE $k (0|-1|abc) $v [REPLACE]"),
];
