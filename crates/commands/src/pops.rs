//! Members drawn in advance for SPOP, so that emptying a big set does not cost a search for each member.
//!
//! A window of the hash space is drawn as for a single member (each member is as likely as any other to be in it), its members are
//! shuffled, and pops take them one by one. The pool of a set is only good while nothing but these pops changes the set's size: a member added
//! later must have its chance too. Used under the writer lock.

use std::collections::HashMap;

use ardb_base::id::ObjectId;
use ardb_base::random::Random;
use ardb_engine::Rows;
use ardb_types::TypeError;
use ardb_types::collection::{Collection, member_row, random_window};
use parking_lot::Mutex;

/// Mean number of members in a window, at least; and the number that is (but once in 10^9 windows) never passed.
const WINDOW: (u64, u64) = (128, 400);
/// Sets that have a pool at a time.
const POOLS: usize = 64;
/// Bytes of members that a pool holds at most.
const POOL_BYTES: usize = 64 << 10;

struct Pool {
    members: Vec<Vec<u8>>,
    size: u64,
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
        let in_a_row = pools.get(&object).is_some_and(|pool| pool.size == size);
        if !in_a_row {
            // A pool is worth its making only from the second pop in a row on.
            if pools.len() >= POOLS {
                pools.clear();
            }
            pools.insert(object, Pool { members: Vec::new(), size: after });
            drop(pools);
            return Ok(set.random(rows, random)?.map(|(member, _)| member));
        }
        let Some(pool) = pools.get_mut(&object) else { return Ok(None) };
        pool.size = after;
        while let Some(member) = pool.members.pop() {
            if rows.get(member_row(object, &member))?.is_some() {
                return Ok(Some(member));
            }
        }
        let mut found = Vec::new();
        random_window(rows, object, size, WINDOW, random, &mut found)?;
        let mut bytes = 0;
        for last in (0..found.len()).rev() {
            found.swap(last, random.below(last as u64 + 1) as usize);
            let (member, _) = found.swap_remove(last);
            bytes += member.len();
            if bytes <= POOL_BYTES || pool.members.is_empty() {
                pool.members.push(member);
            }
        }
        let taken = pool.members.pop();
        if after == 0 {
            pools.remove(&object);
        }
        Ok(taken)
    }
}
