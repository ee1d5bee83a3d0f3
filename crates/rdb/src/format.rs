//! The numbers of the format: opcodes, value types, versions. Facts only, no behaviour beyond naming them.

use crate::sink::Kind;

/// The opcodes between keys.
pub(crate) mod op {
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION2: u8 = 245;
    pub(crate) const FUNCTION_PRE_GA: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DB: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_SECONDS: u8 = 253;
    pub(crate) const SELECT_DB: u8 = 254;
    pub(crate) const EOF: u8 = 255;
    /// The lowest code that can be an opcode; below are value types.
    pub(crate) const LOWEST: u8 = 224;
}

/// The value types.
pub(crate) mod value {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const MODULE_PRE_GA: u8 = 6;
    pub(crate) const MODULE: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const SET_LISTPACK: u8 = 20;
}

/// Containers of a node of a quicklist of the second kind.
pub(crate) const NODE_PLAIN: u64 = 1;
pub(crate) const NODE_PACKED: u64 = 2;

/// Length bytes of scores as text that stand for what has no digits.
pub(crate) const SCORE_NAN: u8 = 253;
pub(crate) const SCORE_INFINITY: u8 = 254;
pub(crate) const SCORE_NEGATIVE_INFINITY: u8 = 255;

/// Who numbers the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Magic {
    /// `REDIS` and four digits.
    Redis,
    /// `VALKEY` and three digits.
    Valkey,
}

impl Magic {
    /// The letters in the header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Magic::Redis => "REDIS",
            Magic::Valkey => "VALKEY",
        }
    }

    /// Whether the types known here may appear in this version. Later versions may change what a known number means.
    pub(crate) fn knows(self, version: u32) -> bool {
        match self {
            Magic::Redis => (1..=15).contains(&version),
            Magic::Valkey => (80..=81).contains(&version),
        }
    }
}

/// The kind that a value type holds, or the name of what cannot be taken over. Modules are named by the caller.
pub(crate) fn kind_of(code: u8, magic: Magic) -> Result<Kind, &'static str> {
    Ok(match code {
        value::STRING => Kind::String,
        value::LIST | value::LIST_ZIPLIST | value::LIST_QUICKLIST | value::LIST_QUICKLIST_2 => Kind::List,
        value::SET | value::SET_INTSET | value::SET_LISTPACK => Kind::Set,
        value::ZSET | value::ZSET_2 | value::ZSET_ZIPLIST | value::ZSET_LISTPACK => Kind::SortedSet,
        value::HASH | value::HASH_ZIPMAP | value::HASH_ZIPLIST | value::HASH_LISTPACK => Kind::Hash,
        value::MODULE_PRE_GA => return Err("a module type in the form before its release"),
        15 | 19 | 21 => return Err("a stream"),
        22 if magic == Magic::Valkey => return Err("a hash with fields that expire"),
        22..=25 if magic == Magic::Redis => return Err("a hash with fields that expire"),
        26 if magic == Magic::Redis => return Err("a stream of Redis 8"),
        _ => return Err("an unknown value type"),
    })
}

/// The name of a module type: nine characters of six bits above ten bits of a version.
pub(crate) fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|i| char::from(LETTERS[(id >> (58 - 6 * i) & 63) as usize])).collect()
}
