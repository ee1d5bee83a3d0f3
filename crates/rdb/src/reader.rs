//! Reads a whole RDB stream: the header, what stands between keys, the keys, the checksum.

use std::io::BufRead;

use crate::error::{Error, Fault, Stop};
use crate::format::{Magic, kind_of, op, value as ty};
use crate::sink::{KeyMeta, Kind, Sink};
use crate::source::Source;
use crate::value::{self, Buffers};

/// Limits and checks of a reader. Lengths are in bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest key, element, field or member. They are held whole, unlike the values of strings. 512 MiB by default, as in Redis.
    pub max_element_bytes: u64,
    /// The longest packed structure (ziplist, listpack, intset, zipmap). 1 GiB by default, the largest that Redis makes.
    pub max_packed_bytes: u64,
    /// Strings up to this length come by [`Sink::string_value`], longer ones in pieces. 1 MiB by default.
    pub whole_string_bytes: u64,
    /// Whether a set, hash or sorted set that names an item twice is corrupt. Costs 16 bytes an item while the key is read; without
    /// it the sink sees both. Off by default; on for payloads.
    pub reject_duplicates: bool,
    /// Whether the checksum at the end is compared. On by default.
    pub verify_checksum: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_element_bytes: 512 << 20,
            max_packed_bytes: 1 << 30,
            whole_string_bytes: 1 << 20,
            reject_duplicates: false,
            verify_checksum: true,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Who numbered the version.
    pub magic: Magic,
    /// The version in the header.
    pub version: u32,
    /// Keys handed to the sink.
    pub keys: u64,
    /// Keys left out because they held nothing.
    pub empty_keys: u64,
    /// Bytes of the RDB, checksum included.
    pub bytes: u64,
    /// Whether the RDB carried a checksum and it was compared.
    pub verified: bool,
}

/// Buffers larger than this are given back after the key that needed them.
const KEEP: usize = 4 << 20;

/// Reads one RDB from `R`.
///
/// `R` is a [`BufRead`] because exactly the RDB's bytes are consumed from it: after [`read`](Reader::read) whatever follows (in a full
/// sync, the stream of commands) is still there, in the buffer of `R` or behind it. It must block: an error of kind `WouldBlock` ends the
/// reading like any other. A buffer of 64 KiB is a good size.
pub struct Reader<R> {
    source: Source<R>,
    options: Options,
    buffers: Buffers,
    key: Vec<u8>,
    peak: usize,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the RDB that starts at the next byte of `inner`.
    pub fn new(inner: R, options: Options) -> Reader<R> {
        let source = Source::new(inner, options.verify_checksum);
        Reader { source, options, buffers: Buffers::default(), key: Vec::new(), peak: 0 }
    }

    /// Reads the RDB to its end and hands its content to `sink`.
    ///
    /// # Errors
    /// An [`Error`] with the offset. How much of the source was consumed is then not defined, and the reader cannot go on.
    pub fn read<S: Sink>(&mut self, sink: &mut S) -> Result<Summary, Error<S::Error>> {
        let (magic, version) = self.header()?;
        let done = self.body(sink, magic);
        self.note_peak();
        let (keys, empty_keys) = done.map_err(|stop| self.place(stop))?;
        self.key.clear();
        let mut verified = false;
        if version >= 5 {
            let (stored, computed) = self.checksum().map_err(|f| self.place(Stop::Fault(f)))?;
            // Zero says that the writer was told not to compute one.
            verified = stored != 0 && self.options.verify_checksum;
            if verified && stored != computed {
                return Err(Error::Checksum { stored, computed });
            }
        }
        self.source.release().map_err(|f| self.place(Stop::Fault(f)))?;
        Ok(Summary { magic, version, keys, empty_keys, bytes: self.source.offset(), verified })
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The most memory, in bytes, that the reader's own buffers had at once between keys. It follows the longest key, element or packed
    /// structure that arrived, and never a claim.
    pub fn peak_buffer_bytes(&self) -> usize {
        self.peak
    }

    /// The source, standing behind the RDB after a successful [`read`](Reader::read).
    pub fn into_inner(self) -> R {
        self.source.into_inner()
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.buffers.bytes() + self.key.capacity());
    }

    fn header<E>(&mut self) -> Result<(Magic, u32), Error<E>> {
        let bytes: [u8; 9] = self.source.array().map_err(|f| self.place(Stop::Fault(f)))?;
        let (magic, digits) = match &bytes {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (Magic::Redis, &digits[..]),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (Magic::Valkey, &digits[..]),
            _ => return Err(Error::Magic(bytes)),
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Error::Magic(bytes));
        }
        let version = digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'));
        if !magic.knows(version) {
            return Err(Error::Version { magic: magic.name(), version });
        }
        Ok((magic, version))
    }

    /// Everything between the header and the checksum. Gives the numbers of full and of empty keys.
    fn body<S: Sink>(&mut self, sink: &mut S, magic: Magic) -> Result<(u64, u64), Stop<S::Error>> {
        let (mut keys, mut empty_keys) = (0, 0);
        let mut meta = KeyMeta::default();
        let limit = self.options.max_element_bytes;
        loop {
            let code = self.source.byte()?;
            if code < op::LOWEST {
                if self.key(sink, magic, code, &meta)? {
                    keys += 1;
                } else {
                    empty_keys += 1;
                }
                meta = KeyMeta::default();
                self.key.clear();
                continue;
            }
            let source = &mut self.source;
            let Buffers { one, two, .. } = &mut self.buffers;
            match code {
                op::EOF => return Ok((keys, empty_keys)),
                op::SELECT_DB => sink.select_db(source.length()?).map_err(Stop::Sink)?,
                op::EXPIRE_MS => meta.expire_at_ms = Some(i64::from_le_bytes(source.array()?)),
                op::EXPIRE_SECONDS => {
                    meta.expire_at_ms = Some(i64::from(i32::from_le_bytes(source.array()?)) * 1000);
                }
                op::RESIZE_DB => sink.resize(source.length()?, source.length()?).map_err(Stop::Sink)?,
                op::AUX => {
                    source.string(one, limit)?;
                    source.string(two, limit)?;
                    sink.aux(one, two).map_err(Stop::Sink)?;
                }
                op::IDLE => meta.idle = Some(source.length()?),
                op::FREQ => meta.freq = Some(source.byte()?),
                op::FUNCTION2 => {
                    source.string(one, limit)?;
                    sink.function(one).map_err(Stop::Sink)?;
                }
                op::SLOT_INFO => {
                    // Number, keys and expiries of a cluster slot: hints for sizing tables.
                    for _ in 0..3 {
                        source.length()?;
                    }
                }
                op::MODULE_AUX => {
                    let name = crate::format::module_name(source.length()?);
                    return Err(Fault::Unsupported(format!("data of the module \"{name}\"")).into());
                }
                op::FUNCTION_PRE_GA => {
                    return Err(Fault::Unsupported("functions in the form before Redis 7.0".into()).into());
                }
                other => {
                    let what = format!("the opcode {other} under {}", magic.name());
                    return Err(Fault::Unsupported(what).into());
                }
            }
        }
    }

    /// A key and its value; says whether it held anything.
    fn key<S: Sink>(&mut self, sink: &mut S, magic: Magic, code: u8, meta: &KeyMeta) -> Result<bool, Stop<S::Error>> {
        self.source.string(&mut self.key, self.options.max_element_bytes)?;
        let kind = match kind_of(code, magic) {
            Ok(kind) => kind,
            // The value itself names its module, so it is asked before it is refused.
            Err(_) if code == ty::MODULE => Kind::String,
            Err(what) => return Err(Fault::Unsupported(format!("{what} (type {code} under {})", magic.name())).into()),
        };
        let Reader { source, options, buffers, key, .. } = self;
        let full = value::read(source, sink, buffers, options, key, meta, code, kind)?;
        if !full {
            sink.empty_key(key, kind).map_err(Stop::Sink)?;
        }
        self.note_peak();
        self.buffers.shrink(KEEP);
        if self.key.capacity() > KEEP {
            self.key = Vec::new();
        }
        Ok(full)
    }

    /// The checksum that stands here and the one of all bytes before it.
    fn checksum(&mut self) -> Result<(u64, u64), Fault> {
        let computed = self.source.sum()?;
        Ok((u64::from_le_bytes(self.source.array()?), computed))
    }

    /// Adds the place to a fault.
    fn place<E>(&self, stop: Stop<E>) -> Error<E> {
        let (offset, key) = (self.source.offset(), self.key.clone());
        match stop {
            Stop::Sink(e) => Error::Sink(e),
            Stop::Fault(Fault::Io(source)) => Error::Io { offset, source },
            Stop::Fault(Fault::Truncated) => Error::Truncated { offset, key },
            Stop::Fault(Fault::Corrupt(what)) => Error::Corrupt { what, key, offset },
            Stop::Fault(Fault::Unsupported(what)) => Error::Unsupported { what, key, offset },
            Stop::Fault(Fault::TooLong { claimed, limit }) => Error::TooLong { claimed, limit, key, offset },
        }
    }
}
