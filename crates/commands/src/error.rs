//! What goes wrong in a command, in Redis's words. All texts that clients see from the data commands stand here.

use std::borrow::Cow;

use ardb_engine::EngineError;

/// Why a command failed. The text is sent after `-`, its first word being the code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CmdError {
    /// An error reply with its code.
    #[error("{0}")]
    Reply(Cow<'static, str>),
    /// An error reply that quotes bytes that need not be UTF-8.
    #[error("{}", String::from_utf8_lossy(.0))]
    Bytes(Vec<u8>),
    /// The data could not be read. The command's writes are taken back.
    #[error("ERR {0}")]
    Engine(#[from] EngineError),
    /// The data make no sense. The command's writes are taken back.
    #[error("ERR corrupt data: {0}")]
    Corrupt(String),
}

impl CmdError {
    /// An error with this text, code included.
    #[must_use]
    pub fn text(text: impl Into<Cow<'static, str>>) -> CmdError {
        CmdError::Reply(text.into())
    }

    /// The bytes that follow `-` in the reply.
    #[must_use]
    pub fn reply_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            CmdError::Reply(text) => Cow::Borrowed(text.as_bytes()),
            CmdError::Bytes(bytes) => Cow::Borrowed(bytes),
            CmdError::Engine(_) | CmdError::Corrupt(_) => Cow::Owned(self.to_string().into_bytes()),
        }
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* #[doc = $text] pub const $name: CmdError = CmdError::Reply(Cow::Borrowed($text));)*
    };
}

texts! {
    WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
    SYNTAX = "ERR syntax error";
    NOT_HLL = "WRONGTYPE Key is not a valid HyperLogLog string value.";
    HLL_CORRUPT = "INVALIDOBJ Corrupted HLL object detected";
    FIELD_COUNT = "ERR the number of fields does not match what follows it";
    FIELD_EXPIRY = "ERR fields of a hash do not expire in this server: HSETEX takes no expiry";
    NOT_INTEGER = "ERR value is not an integer or out of range";
    NOT_FLOAT = "ERR value is not a valid float";
    OUT_OF_RANGE = "ERR value is out of range";
    COUNT_OUT_OF_RANGE = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
    REPLY_TOO_LONG = "ERR the reply would be longer than a client may get (client-output-buffer-limit)";
    MUST_BE_POSITIVE = "ERR value is out of range, must be positive";
    INDEX_OUT_OF_RANGE = "ERR index out of range";
    NO_SUCH_KEY = "ERR no such key";
    SAME_OBJECT = "ERR source and destination objects are the same";
    DB_OUT_OF_RANGE = "ERR DB index is out of range";
    INVALID_DB = "ERR invalid DB index";
    NO_AUTH = "NOAUTH Authentication required.";
    WRONG_PASS = "WRONGPASS invalid username-password pair or user is disabled.";
    BUSY_KEY = "BUSYKEY Target key name already exists.";
    EXEC_ABORT = "EXECABORT Transaction discarded because of previous errors.";
    NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL.";
    BUSY_SCRIPT = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    READ_ONLY = "READONLY You can't write against a read only replica.";
    LOADING = "LOADING Redis is loading the dataset in memory";
    MASTER_DOWN = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    NO_REPLICAS = "NOREPLICAS Not enough good replicas to write.";
    STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    TOO_LARGE = "ERR the command changes more than one commit can hold (4 GiB)";
    NO_MULTI_IN_MULTI = "ERR MULTI calls can not be nested";
    EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI";
    DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI";
    WATCH_IN_MULTI = "ERR WATCH inside MULTI is not allowed";
    TIMEOUT_NEGATIVE = "ERR timeout is negative";
    TIMEOUT_NOT_FLOAT = "ERR timeout is not a float or out of range";
}

impl From<ardb_types::TypeError> for CmdError {
    fn from(error: ardb_types::TypeError) -> CmdError {
        match error {
            ardb_types::TypeError::WrongType => WRONG_TYPE,
            ardb_types::TypeError::Engine(error) => CmdError::Engine(error),
            ardb_types::TypeError::Corrupt(what) => CmdError::Corrupt(what),
        }
    }
}
