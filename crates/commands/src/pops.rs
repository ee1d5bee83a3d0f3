//! Members drawn in advance for SPOP, so that emptying a big set does not cost a search for each member.
//!
//! A window of the hash space is drawn as for a single member (each member is as likely as any other to be in it), its members are
//! shuffled, and pops take them one by one. The pool of a set is only good while nothing but these pops changes the set's size: a member added
//! later must have its chance too.
//!
//! Of a set that has lost most of its members most rows may be deleted ones, which a scan passes one by one until they are gone from the store, and each window would hold thousands of
//! them for every member. So such a set is swept: its members are taken in the order of their hashes, part by part and shuffled within each, from a random place on and
//! round, and a deleted row is passed once a round. Used under the writer lock.

use std::collections::HashMap;

use ardb_base::id::ObjectId;
use ardb_base::random::Random;
use ardb_engine::{Rows, Value};
use ardb_types::TypeError;
use ardb_types::collection::{Collection, member_row, members_between, random_window};
use parking_lot::Mutex;

/// Mean number of members in a window, at least; and the number that is (but once in 10^9 windows) never passed.
const WINDOW: (u64, u64) = (128, 400);
/// Sets that have a pool at a time.
const POOLS: usize = 64;
/// Bytes of members that a pool holds at most.
const POOL_BYTES: usize = 64 << 10;

/// A set that once was more than this many times as big is swept.
const SPARSE: u64 = 2;
/// Rows, most of them deleted, in the part of the hash space that a sweep takes at a time.
const SWEPT: u64 = 1024;

struct Pool {
    members: Vec<Vec<u8>>,
    /// The set's size after the last pop.
    size: u64,
    /// The greatest size that pops have seen.
    peak: u64,
    /// Where the sweep goes on, as a number of parts. They are counted anew when `peak` grows.
    swept: Option<u64>,
}

impl Pool {
    /// The members of the next part that has any.
    fn sweep(
        &mut self,
        rows: &impl Rows,
        object: ObjectId,
        random: &mut Random,
    ) -> Result<Vec<(Vec<u8>, Value)>, TypeError> {
        let bits = (self.peak / SWEPT).checked_ilog2().unwrap_or(0);
        let parts = 1 << bits;
        let first = self.swept.map_or_else(|| random.below(parts), |next| next % parts);
        let mut found = Vec::new();
        for part in (first..first + parts).map(|part| part % parts) {
            let (from, to) = match bits {
                0 => (0, u64::MAX),
                _ => (part << (64 - bits), part << (64 - bits) | u64::MAX >> bits),
            };
            members_between(rows, object, from, to, &mut found)?;
            if !found.is_empty() {
                self.swept = Some(part + 1);
                return Ok(found);
            }
        }
        Err(TypeError::Corrupt("a set has fewer members than it counts".into()))
    }

    /// The next member that was drawn and is still there.
    fn next(&mut self, rows: &impl Rows, object: ObjectId) -> Result<Option<Vec<u8>>, TypeError> {
        while let Some(member) = self.members.pop() {
            if rows.get(member_row(object, &member))?.is_some() {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    /// Shuffles what was drawn and keeps as much of it as may be. Gives whether that is all.
    fn fill(&mut self, mut found: Vec<(Vec<u8>, Value)>, random: &mut Random) -> bool {
        let (mut bytes, all) = (0, found.len());
        for last in (0..found.len()).rev() {
            found.swap(last, random.below(last as u64 + 1) as usize);
            let (member, _) = found.swap_remove(last);
            bytes += member.len();
            if bytes <= POOL_BYTES || self.members.is_empty() {
                self.members.push(member);
            }
        }
        self.members.len() == all
    }
}

/// The pools of all sets.
#[derive(Default)]
pub struct Pops {
    pools: Mutex<HashMap<ObjectId, Pool>>,
}

impl Pops {
    /// A random member of the set; the caller removes it. `None` only if there is none.
    pub fn take(&self, rows: &impl Rows, set: &Collection, random: &mut Random) -> Result<Option<Vec<u8>>, TypeError> {
        let size = set.len();
        // A packed set is searched at once.
        let Some(object) = set.object() else { return Ok(set.random(rows, random)?.map(|(member, _)| member)) };
        let mut pools = self.pools.lock();
        let after = size.saturating_sub(1);
        if pools.len() >= POOLS && !pools.contains_key(&object) {
            pools.clear();
        }
        // No set has this size.
        let new = || Pool { members: Vec::new(), size: u64::MAX, peak: size, swept: None };
        let pool = pools.entry(object).or_insert_with(new);
        if size > pool.peak {
            (pool.peak, pool.swept) = (size, None);
        }
        let in_a_row = std::mem::replace(&mut pool.size, after) == size;
        let is_sparse = size < pool.peak / SPARSE;
        if !in_a_row && !is_sparse {
            // A pool is worth its making only from the second pop in a row on.
            pool.members.clear();
            drop(pools);
            return Ok(set.random(rows, random)?.map(|(member, _)| member));
        }
        let mut taken = pool.next(rows, object)?;
        if taken.is_none() {
            let mut found = Vec::new();
            if is_sparse {
                found = pool.sweep(rows, object, random)?;
            } else {
                random_window(rows, object, size, WINDOW, random, &mut found)?;
            }
            if !pool.fill(found, random) && is_sparse {
                // The rest of this part comes next.
                pool.swept = pool.swept.map(|next| next - 1);
            }
            taken = pool.members.pop();
        }
        if after == 0 {
            pools.remove(&object);
        }
        Ok(taken)
    }
}
