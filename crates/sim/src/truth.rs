//! What really happened: the true bytes of every name of a history, every write of every client, and how names came to be.
//!
//! Invariants that are checked as things happen: under one name there is one sequence of bytes, whoever appends them; a name that begins in another
//! one agrees with it up to there.

use ardb_base::id::ReplId;

use crate::Violation;

/// The stream of a data set from its very beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// Sums up the bytes.
    pub hash: u64,
}

/// Goes on with a hash.
pub fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5))
}

impl Content {
    pub fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.hash = fold(self.hash, bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Its first `end` bytes.
    pub fn prefix(&self, end: u64) -> Content {
        let bytes = self.bytes[..end as usize].to_vec();
        Content { hash: fold(0, &bytes), bytes }
    }

    /// Whether both agree up to `end`, and have as much.
    pub fn agrees(&self, other: &Content, end: u64) -> bool {
        let end = end as usize;
        self.bytes.len() >= end && other.bytes.len() >= end && self.bytes[..end] == other.bytes[..end]
    }
}

/// How a name came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new data directory.
    Root,
    /// REPLICAOF NO ONE.
    Promotion,
    /// FAILOVER without force, from a node, whose new master was told that it must have everything if `checked`.
    HandOver { from: usize, checked: bool },
    /// The machine lost power; so much of its log was durable then.
    PowerLoss { synced: u64, always: bool },
}

/// A name of a history.
#[derive(Debug)]
pub struct Name {
    pub id: ReplId,
    /// The name before it, and up to where both agree.
    pub parent: Option<(ReplId, u64)>,
    pub kind: Kind,
    /// The node that gave it.
    pub node: usize,
    pub born: u64,
    /// All that was ever appended under it, and what it began with.
    pub content: Content,
}

/// A write of a client that is in some log.
#[derive(Debug)]
pub struct Write {
    /// What was executed, for people.
    pub text: String,
    pub node: usize,
    pub client: usize,
    pub at: u64,
    /// The name of the history that it was appended under.
    pub name: ReplId,
    /// Its bytes lie just below this offset.
    pub end: u64,
    /// The sum of the stream up to there.
    pub hash: u64,
    /// The client has got its reply.
    pub acked: bool,
    /// Replicas that had it, as a WAIT told the client, and since when.
    pub confirmed: Vec<(usize, u64)>,
}

/// Everything.
#[derive(Default)]
pub struct Truth {
    pub names: Vec<Name>,
    pub writes: Vec<Write>,
    /// Tokens of writes that were refused.
    pub refused: Vec<Vec<u8>>,
    /// Acknowledged writes that did not survive, by the reason that was found for it.
    pub lost: [u64; 3],
}

fn violation<T>(text: String) -> Result<T, Violation> {
    Err(Violation(text))
}

impl Truth {
    pub fn name(&self, id: ReplId) -> Option<&Name> {
        self.names.iter().find(|name| name.id == id)
    }

    /// A name begins with `content`.
    pub fn born(
        &mut self,
        id: ReplId,
        parent: Option<(ReplId, u64)>,
        kind: Kind,
        node: usize,
        now: u64,
        content: &Content,
    ) {
        self.names.push(Name { id, parent, kind, node, born: now, content: content.clone() });
    }

    /// `node` has appended `bytes` at `at` under a name.
    pub fn appended(&mut self, node: usize, id: ReplId, at: u64, bytes: &[u8]) -> Result<(), Violation> {
        let Some(name) = self.names.iter_mut().find(|name| name.id == id) else {
            return violation(format!("node {node} appends under the name {id}, which nobody has given"));
        };
        let have = &mut name.content;
        let end = at + bytes.len() as u64;
        if at > have.end() {
            return violation(format!(
                "node {node} has bytes of {id} at {at}, and nobody had those before them, from {}",
                have.end()
            ));
        }
        let known = (have.end().min(end) - at) as usize;
        let old = &have.bytes[at as usize..at as usize + known];
        if let Some(differs) = old.iter().zip(bytes).position(|(old, new)| old != new) {
            return violation(format!(
                "two histories have the name {id}: node {node} has other bytes at {} than were there before",
                at + differs as u64
            ));
        }
        have.push(&bytes[known..]);
        Ok(())
    }

    /// The names from `id` back to its root.
    fn path(&self, id: ReplId) -> Vec<&Name> {
        let mut path = Vec::new();
        let mut at = self.name(id);
        while let Some(name) = at {
            path.push(name);
            at = name.parent.and_then(|(parent, _)| self.name(parent));
        }
        path
    }

    /// Judges the writes at a quiet point, where `content` under the name `id` has survived. `reparented` says whether an operator has put a
    /// node under another one after a moment; `shrank` whether a node lost or replaced its history between two moments.
    pub fn judge(
        &mut self,
        id: ReplId,
        content: &Content,
        reparented: &dyn Fn(usize, u64) -> bool,
        shrank: &dyn Fn(usize, u64, u64) -> bool,
    ) -> Result<(), Violation> {
        let mut order: Vec<usize> = (0..self.writes.len()).collect();
        order.sort_by_key(|&i| self.writes[i].end);
        let path = self.path(id);
        let (mut hash, mut at) = (0, 0u64);
        let mut lost_here = [0; 3];
        for i in order {
            let write = &self.writes[i];
            let present = write.end <= content.end() && {
                hash = fold(hash, &content.bytes[at as usize..write.end as usize]);
                at = write.end;
                hash == write.hash
            };
            if present || !write.acked {
                continue;
            }
            let what = format!(
                "the write '{}' that node {} acknowledged at {} ms (offset {} of {})",
                write.text, write.node, write.at, write.end, write.name
            );
            // Where the one that survived left its history. What was written on a side branch is gone because that branch was given up.
            let Some(own) = path.iter().position(|name| name.id == write.name) else {
                if !reparented(write.node, write.at) {
                    return violation(format!("{what} is gone, although its node was never given to another history"));
                }
                lost_here[0] += 1;
                continue;
            };
            // The oldest name after it that begins before the write.
            let child = path[..own].iter().rev().find(|name| name.parent.is_some_and(|(_, at)| at < write.end));
            let Some(child) = child else {
                return violation(format!("{what} is gone, although its history has survived"));
            };
            match child.kind {
                Kind::PowerLoss { synced, always } => {
                    if always || write.end <= synced {
                        return violation(format!("{what} is gone after a power failure, although it was durable"));
                    }
                    lost_here[1] += 1;
                }
                Kind::HandOver { from, checked } => {
                    // It had everything. If it was told so, both sides must have lost power for that.
                    let lost = |node: usize| shrank(node, write.at, child.born);
                    if !lost(child.node) || checked && !lost(from) {
                        return violation(format!("{what} is gone, although the role was handed over with it"));
                    }
                    lost_here[2] += 1;
                }
                Kind::Promotion => {
                    let since = write.confirmed.iter().find(|(node, _)| *node == child.node).map(|(_, since)| *since);
                    if let Some(since) = since
                        && since < child.born
                        && !shrank(child.node, since, child.born)
                    {
                        return violation(format!(
                            "{what} is gone, although WAIT had said that node {} has it, which was then promoted",
                            child.node
                        ));
                    }
                    lost_here[2] += 1;
                }
                // A root has no parent, so it is nobody's child.
                Kind::Root => return violation(format!("{what} is gone: the names make no sense")),
            }
        }
        for (sum, more) in self.lost.iter_mut().zip(lost_here) {
            *sum += more;
        }
        Ok(())
    }
}
