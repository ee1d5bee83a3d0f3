//! What a reader tells: the [`Sink`] trait and the few types in its calls.

/// The five types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One string of bytes.
    String,
    /// Elements in order.
    List,
    /// Distinct members.
    Set,
    /// Distinct fields with values.
    Hash,
    /// Distinct members with scores.
    SortedSet,
}

/// What stands beside a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyMeta {
    /// When the key expires, in Unix milliseconds.
    pub expire_at_ms: Option<i64>,
    /// Seconds since the last access, if the writer kept them.
    pub idle: Option<u64>,
    /// The logarithmic access counter, if the writer kept it.
    pub freq: Option<u8>,
}

/// Takes what a reader finds, in the order of the stream.
///
/// For each key: one [`begin`](Sink::begin), then its items, then one [`end`](Sink::end). The items are, by kind: for `String` either
/// one `string_value` or several `string_piece`s; for `List` and `Set` `element`s; for `Hash` `field`s; for `SortedSet` `scored`s. A
/// collection has at least one item. All slices live for the call only. After an error, whether of the sink or of the stream, no
/// further call comes: what was begun and not ended must be dropped.
pub trait Sink {
    /// The sink's own refusals; the first one ends the reading.
    type Error;

    /// An auxiliary field of the file, such as `redis-ver` or `repl-id`.
    fn aux(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        let _ = (key, value);
        Ok(())
    }

    /// The keys that follow belong to this database (0 before the first call).
    fn select_db(&mut self, db: u64) -> Result<(), Self::Error>;

    /// How many keys, and keys with an expiry, the file claims for the current database.
    fn resize(&mut self, keys: u64, expires: u64) -> Result<(), Self::Error> {
        let _ = (keys, expires);
        Ok(())
    }

    /// The source text of a library of functions. It is not executed here; say so in a log if it is dropped.
    fn function(&mut self, code: &[u8]) -> Result<(), Self::Error>;

    /// A collection without items, which no server keeps; it is left out.
    fn empty_key(&mut self, key: &[u8], kind: Kind) -> Result<(), Self::Error> {
        let _ = (key, kind);
        Ok(())
    }

    /// A key starts. `size_hint` is a number of items (for strings, of bytes) that the stream claims: never allocate by it.
    fn begin(&mut self, key: &[u8], meta: &KeyMeta, kind: Kind, size_hint: Option<u64>) -> Result<(), Self::Error>;

    /// The whole value of a string of at most [`Options::whole_string_bytes`](crate::Options::whole_string_bytes).
    fn string_value(&mut self, value: &[u8]) -> Result<(), Self::Error> {
        self.string_piece(value)
    }

    /// The next piece of a longer string.
    fn string_piece(&mut self, piece: &[u8]) -> Result<(), Self::Error>;

    /// The next element of a list, from its head, or some member of a set.
    fn element(&mut self, element: &[u8]) -> Result<(), Self::Error>;

    /// A field of a hash.
    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Self::Error>;

    /// A member of a sorted set; the score is never NaN.
    fn scored(&mut self, member: &[u8], score: f64) -> Result<(), Self::Error>;

    /// The key is complete.
    fn end(&mut self) -> Result<(), Self::Error>;
}
