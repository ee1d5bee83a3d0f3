//! Reads one value, in any of its encodings, from a source into a sink.
//!
//! Plain encodings stream item by item. Packed ones (ziplist, listpack, intset, zipmap) are read whole, because they end with their
//! consistency, and validated before the first item is handed out. `begin` is sent with the first item, so that a collection that turns
//! out empty was never begun.

use std::io::BufRead;

use xxhash_rust::xxh3::xxh3_128;

use crate::Options;
use crate::entry::{Entry, Text};
use crate::error::{Fault, Stop};
use crate::format::{self, NODE_PACKED, NODE_PLAIN, SCORE_INFINITY, SCORE_NAN, SCORE_NEGATIVE_INFINITY, value as ty};
use crate::intset::Intset;
use crate::listpack::Listpack;
use crate::number::parse_double;
use crate::sink::{KeyMeta, Kind, Sink};
use crate::source::{Header, Source};
use crate::ziplist::Ziplist;
use crate::zipmap::Zipmap;

/// Room that is used again for each value.
#[derive(Default)]
pub(crate) struct Buffers {
    /// An element, field, member, or a packed structure.
    pub(crate) one: Vec<u8>,
    /// The value of a field.
    pub(crate) two: Vec<u8>,
    /// Hashes of the items of the current collection, if duplicates are looked for.
    pub(crate) seen: Vec<u128>,
}

impl Buffers {
    pub(crate) fn bytes(&self) -> usize {
        self.one.capacity() + self.two.capacity() + self.seen.capacity() * size_of::<u128>()
    }

    /// Gives back what one unusual value made large.
    pub(crate) fn shrink(&mut self, most: usize) {
        for buffer in [&mut self.one, &mut self.two] {
            if buffer.capacity() > most {
                *buffer = Vec::new();
            }
        }
        if self.seen.capacity() * size_of::<u128>() > most {
            self.seen = Vec::new();
        }
    }
}

/// The sink with the key being read, begun or not yet.
struct Out<'a, S> {
    sink: &'a mut S,
    seen: Option<&'a mut Vec<u128>>,
    key: &'a [u8],
    meta: &'a KeyMeta,
    kind: Kind,
    hint: Option<u64>,
    begun: bool,
}

impl<S: Sink> Out<'_, S> {
    #[inline]
    fn begin(&mut self) -> Result<(), Stop<S::Error>> {
        if !self.begun {
            self.begun = true;
            self.sink.begin(self.key, self.meta, self.kind, self.hint).map_err(Stop::Sink)?;
        }
        Ok(())
    }

    #[inline]
    fn note(&mut self, item: &[u8]) {
        if let Some(seen) = &mut self.seen {
            seen.push(xxh3_128(item));
        }
    }

    #[inline]
    fn element(&mut self, element: &[u8]) -> Result<(), Stop<S::Error>> {
        self.begin()?;
        self.note(element);
        self.sink.element(element).map_err(Stop::Sink)
    }

    #[inline]
    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), Stop<S::Error>> {
        self.begin()?;
        self.note(field);
        self.sink.field(field, value).map_err(Stop::Sink)
    }

    #[inline]
    fn scored(&mut self, member: &[u8], score: Option<f64>) -> Result<(), Stop<S::Error>> {
        let score = score.filter(|s| !s.is_nan()).ok_or(Fault::Corrupt("a score is not a number"))?;
        self.begin()?;
        self.note(member);
        self.sink.scored(member, score).map_err(Stop::Sink)
    }

    /// Items of a packed structure, by the kind of the key.
    fn entries<'b>(&mut self, mut entries: impl Iterator<Item = Entry<'b>>) -> Result<(), Stop<S::Error>> {
        const ODD: Fault = Fault::Corrupt("a packed hash or sorted set has an odd number of entries");
        let (mut one, mut two) = (Text::new(), Text::new());
        while let Some(first) = entries.next() {
            let first = first.text(&mut one);
            match self.kind {
                Kind::Hash => self.field(first, entries.next().ok_or(ODD)?.text(&mut two))?,
                Kind::SortedSet => self.scored(first, entries.next().ok_or(ODD)?.score())?,
                Kind::List | Kind::Set | Kind::String => self.element(first)?,
            }
        }
        Ok(())
    }

    /// The claim of a structure of `entries` entries.
    fn hint(&mut self, entries: usize) {
        let per_item = if matches!(self.kind, Kind::Hash | Kind::SortedSet) { 2 } else { 1 };
        self.hint = Some(entries as u64 / per_item);
    }

    /// Whether there was anything.
    fn end(self) -> Result<bool, Stop<S::Error>> {
        if let Some(seen) = self.seen {
            seen.sort_unstable();
            if seen.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Fault::Corrupt("an item appears twice").into());
            }
        }
        if self.begun {
            self.sink.end().map_err(Stop::Sink)?;
        }
        Ok(self.begun)
    }
}

/// Reads the value of type `code` and kind `kind` that belongs to `key`; says whether it held anything.
#[allow(clippy::too_many_arguments)] // one call site a border, each argument a different thing
pub(crate) fn read<R: BufRead, S: Sink>(
    source: &mut Source<R>,
    sink: &mut S,
    buffers: &mut Buffers,
    options: &Options,
    key: &[u8],
    meta: &KeyMeta,
    code: u8,
    kind: Kind,
) -> Result<bool, Stop<S::Error>> {
    let Buffers { one, two, seen } = buffers;
    seen.clear();
    let seen = (options.reject_duplicates && !matches!(kind, Kind::String | Kind::List)).then_some(seen);
    let mut out = Out { sink, seen, key, meta, kind, hint: None, begun: false };
    let limit = options.max_element_bytes;
    match code {
        ty::STRING => string(source, &mut out, one, options)?,
        ty::LIST | ty::SET => {
            let count = source.length()?;
            out.hint = Some(count);
            for _ in 0..count {
                source.string(one, limit)?;
                out.element(one)?;
            }
        }
        ty::HASH => {
            let count = source.length()?;
            out.hint = Some(count);
            for _ in 0..count {
                source.string(one, limit)?;
                source.string(two, limit)?;
                out.field(one, two)?;
            }
        }
        ty::ZSET | ty::ZSET_2 => {
            let count = source.length()?;
            out.hint = Some(count);
            for _ in 0..count {
                source.string(one, limit)?;
                let score = match code {
                    ty::ZSET => text_score(source)?,
                    _ => Some(f64::from_le_bytes(source.array()?)),
                };
                out.scored(one, score)?;
            }
        }
        ty::HASH_ZIPMAP => {
            source.string(one, options.max_packed_bytes)?;
            let map = Zipmap::parse(one).map_err(Fault::from)?;
            out.hint = Some(map.len() as u64);
            for (field, value) in map.iter() {
                out.field(field, value)?;
            }
        }
        ty::SET_INTSET => {
            source.string(one, options.max_packed_bytes)?;
            let set = Intset::parse(one).map_err(Fault::from)?;
            out.hint = Some(set.len() as u64);
            let mut text = Text::new();
            for value in set.iter() {
                out.element(text.format(value).as_bytes())?;
            }
        }
        ty::LIST_ZIPLIST | ty::ZSET_ZIPLIST | ty::HASH_ZIPLIST => {
            source.string(one, options.max_packed_bytes)?;
            let list = Ziplist::parse(one).map_err(Fault::from)?;
            out.hint(list.len());
            out.entries(list.iter())?;
        }
        ty::HASH_LISTPACK | ty::ZSET_LISTPACK | ty::SET_LISTPACK => {
            source.string(one, options.max_packed_bytes)?;
            let list = Listpack::parse(one).map_err(Fault::from)?;
            out.hint(list.len());
            out.entries(list.iter())?;
        }
        ty::LIST_QUICKLIST => {
            for _ in 0..source.length()? {
                source.string(one, options.max_packed_bytes)?;
                out.entries(Ziplist::parse(one).map_err(Fault::from)?.iter())?;
            }
        }
        ty::LIST_QUICKLIST_2 => {
            for _ in 0..source.length()? {
                match source.length()? {
                    NODE_PLAIN => {
                        source.string(one, limit)?;
                        out.element(one)?;
                    }
                    NODE_PACKED => {
                        source.string(one, options.max_packed_bytes)?;
                        out.entries(Listpack::parse(one).map_err(Fault::from)?.iter())?;
                    }
                    _ => return Err(Fault::Corrupt("a quicklist node has an unknown container").into()),
                }
            }
        }
        ty::MODULE => {
            let name = format::module_name(source.length()?);
            return Err(Fault::Unsupported(format!("a value of the module type \"{name}\"")).into());
        }
        // `kind_of` gave the kind and knows no other type.
        other => return Err(Fault::Unsupported(format!("the value type {other}")).into()),
    }
    out.end()
}

/// A string value: whole if it is short, else in pieces that are never held together.
fn string<R: BufRead, S: Sink>(
    source: &mut Source<R>,
    out: &mut Out<'_, S>,
    room: &mut Vec<u8>,
    options: &Options,
) -> Result<(), Stop<S::Error>> {
    let header = source.header()?;
    let len = match header {
        Header::Raw(len) | Header::Lzf { unpacked: len, .. } => Some(len),
        Header::Int(_) => None,
    };
    out.hint = len;
    // A short claim may hide a long input, which a block of LZF can be only if it is corrupt: each output byte costs at most two.
    let short = match header {
        Header::Lzf { packed, .. } => packed / 2 <= options.whole_string_bytes,
        _ => true,
    } && len.is_none_or(|len| len <= options.whole_string_bytes);
    if short {
        source.body(header, room, options.whole_string_bytes.saturating_mul(2).saturating_add(64))?;
        out.begin()?;
        return out.sink.string_value(room).map_err(Stop::Sink);
    }
    out.begin()?;
    match header {
        Header::Raw(len) => source.pieces(len, |piece| out.sink.string_piece(piece).map_err(Stop::Sink)),
        Header::Lzf { packed, unpacked } => {
            source.unpack(packed, unpacked, room, |piece| out.sink.string_piece(piece).map_err(Stop::Sink))
        }
        // Always short.
        Header::Int(_) => Ok(()),
    }
}

/// A score as text, after a length byte of its own kind.
fn text_score<R: BufRead>(source: &mut Source<R>) -> Result<Option<f64>, Fault> {
    let mut text = [0; 252];
    let len = match source.byte()? {
        SCORE_NAN => return Ok(None),
        SCORE_INFINITY => return Ok(Some(f64::INFINITY)),
        SCORE_NEGATIVE_INFINITY => return Ok(Some(f64::NEG_INFINITY)),
        len => usize::from(len), // below 253
    };
    let mut at = 0;
    source.pieces(len as u64, |piece| {
        // The pieces are `len` bytes in all.
        text[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
        Ok::<(), Fault>(())
    })?;
    Ok(parse_double(&text[..len]))
}
