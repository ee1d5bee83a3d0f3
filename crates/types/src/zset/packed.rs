//! Packed sorted sets: every member in the key's row, each its score (8 bytes, f64 little-endian) and then its name as a string, in the order of the set.
//!
//! A packed set is never larger than a listpack of Redis by its defaults, so it never keeps a negative zero (see [`ZSet::keeps_sign`]), and what it says of
//! its greatest size is what it would say in rows.

use std::ops::Range;

use ardb_engine::RowsMut;
use ardb_engine::row::order_of_f64;

use super::build::Building;
use super::node::Position;
use super::{Inserted, LISTPACK_ENTRIES, LISTPACK_VALUE, ZSet};
use crate::limits::Limit;
use crate::packed::{self, Form, Strings};
use crate::{KeyRow, TypeError};

/// Bytes of a score.
const SCORE: usize = size_of::<f64>();

/// A member as it lies there.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Its name.
    pub member: &'a [u8],
    /// Its score.
    pub score: f64,
    /// Where it begins.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
}

impl<'a> Packed<'a> {
    /// Its place in the order of the set.
    pub fn position(&self) -> Position<'a> {
        (order_of_f64(self.score), self.member)
    }
}

/// Reads members one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a>(Strings<'a>);

impl<'a> Members<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Members<'a> {
        Members(Strings::new(bytes))
    }

    /// From the offset `at` on, where a member begins.
    pub fn from(bytes: &'a [u8], at: usize) -> Members<'a> {
        Members(Strings::from(bytes, at))
    }

    /// Where the next one begins; at the end, how many bytes there are.
    pub fn at(&self) -> usize {
        self.0.at()
    }

    /// The next one; `None` at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Packed<'a>>, TypeError> {
        if self.0.is_end() {
            return Ok(None);
        }
        let from = self.0.at();
        let score = f64::from_le_bytes(self.0.bytes()?);
        let member = self.0.next()?.filter(|_| !score.is_nan()).ok_or_else(packed::corrupt)?;
        Ok(Some(Packed { member, score, from, to: self.0.at() }))
    }

    /// The one of this name, if it is not passed yet.
    pub fn find(self, member: &[u8]) -> Result<Option<Packed<'a>>, TypeError> {
        let bytes = self.0.all();
        let mut from = self.0.at();
        while from < bytes.len() {
            let found = packed::string_at(bytes, from + SCORE).ok_or_else(packed::corrupt)?;
            let to = found.end;
            if packed::equal(&bytes[found], member) {
                return Members::from(bytes, from).next();
            }
            from = to;
        }
        Ok(None)
    }

    /// How many bytes there are, those before the next one too.
    fn len(&self) -> usize {
        self.0.all().len()
    }

    /// Where the first one begins that stands after this place in the order of the set; the end, if none does.
    fn place(mut self, member: &[u8], score: f64) -> Result<usize, TypeError> {
        while let Some(next) = self.next()? {
            if next.score > score || (next.score == score && next.member > member) {
                return Ok(next.from);
            }
        }
        Ok(self.at())
    }

    /// All of them, of which there must be `count`.
    pub fn all(mut self, count: u64) -> Result<Vec<Packed<'a>>, TypeError> {
        let mut all = Vec::with_capacity(count.min(LISTPACK_ENTRIES) as usize);
        while let Some(next) = self.next()? {
            all.push(next);
        }
        if all.len() as u64 == count { Ok(all) } else { Err(packed::corrupt()) }
    }
}

/// The limit of packed sets under this setting: no more than what Redis's defaults call small.
pub fn limit(setting: Limit) -> Limit {
    Limit {
        elements: setting.elements.min(LISTPACK_ENTRIES as u16),
        longest: setting.longest.min(LISTPACK_VALUE as u16),
        ..setting
    }
}

/// Bytes that a member takes.
pub fn member_len(member: &[u8]) -> usize {
    SCORE + packed::string_len(member)
}

/// Puts a member in the place of the bytes in `range`.
pub fn write(bytes: &mut Vec<u8>, range: Range<usize>, member: &[u8], score: f64) {
    packed::replace(bytes, range, &score.to_le_bytes(), &[member]);
}

impl ZSet {
    /// The members of a packed set; `None` if they are rows.
    pub(super) fn members(&self) -> Option<Members<'_>> {
        match &self.form {
            Form::Row => Some(Members::new(self.old.as_ref().map_or(b"", KeyRow::rest))),
            Form::Own(bytes) => Some(Members::new(bytes)),
            Form::Rows(_) => None,
        }
    }

    /// The bytes of a packed set, to be changed.
    fn own(&mut self) -> &mut Vec<u8> {
        if let Form::Row = self.form {
            let bytes = self.old.as_ref().map_or(&b""[..], KeyRow::rest);
            // Room for a short member more.
            let mut own = Vec::with_capacity(bytes.len() + 64);
            own.extend_from_slice(bytes);
            self.form = Form::Own(own);
        }
        match &mut self.form {
            Form::Own(bytes) => bytes,
            Form::Row | Form::Rows(_) => unreachable!("invariant: only a packed set is changed so"),
        }
    }

    /// As [`ZSet::set`], in a packed set that stays one; `None`, and nothing done, in any other.
    pub(super) fn set_packed(
        &mut self,
        member: &[u8],
        old: Option<f64>,
        score: f64,
    ) -> Result<Option<Inserted>, TypeError> {
        let Some(members) = self.members() else { return Ok(None) };
        let score = score + 0.0;
        let old = match old {
            None => None,
            Some(_) => Some(members.find(member)?.ok_or_else(packed::corrupt)?).map(|found| found.from..found.to),
        };
        let (more, gone) = old.as_ref().map_or((1, 0), |old| (0, old.len()));
        if !self.limit.holds(self.size + more, member.len(), members.len() - gone + member_len(member)) {
            return Ok(None);
        }
        let mut place = members.place(member, score)?;
        let bytes = self.own();
        if let Some(old) = old {
            if place >= old.end {
                place -= old.len();
            }
            packed::replace(bytes, old, b"", &[]);
        }
        write(bytes, place..place, member, score);
        self.size += more;
        Ok(Some(if more == 0 { Inserted::Updated } else { Inserted::Added }))
    }

    /// Takes the member out of a packed set, of which others are left; false, and nothing done, if the set is in rows.
    pub(super) fn remove_packed(&mut self, member: &[u8]) -> Result<bool, TypeError> {
        let Some(members) = self.members() else { return Ok(false) };
        if let Some(range) = members.find(member)?.map(|found| found.from..found.to) {
            packed::replace(self.own(), range, b"", &[]);
            self.size -= 1;
        }
        Ok(true)
    }

    /// Takes the members with the ranks `start..end`, some but not all, out of a packed set; false, and nothing done, if the set is in rows.
    pub(super) fn cut_packed(&mut self, start: u64, end: u64) -> Result<bool, TypeError> {
        let Some(members) = self.members() else { return Ok(false) };
        let all = members.all(self.size)?;
        let gone = &all[start as usize..end as usize];
        let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return Ok(true) };
        let range = first.from..last.to;
        packed::replace(self.own(), range, b"", &[]);
        self.size -= end - start;
        Ok(true)
    }

    /// Makes rows of a packed set.
    pub(super) fn go_to_rows(&mut self, rows: &mut (impl RowsMut + ?Sized)) -> Result<(), TypeError> {
        let Some(members) = self.members() else { return Ok(()) };
        let mut building = Building::new(rows.new_object());
        building.append_sorted(rows, members.all(self.size)?)?;
        building.finish(rows, self)
    }
}
