//! The versions of one value: the newest, and the older ones that somebody may still read.
//!
//! Invariants: sequence numbers fall along the chain; a version superseded by a commit stays only while a reader that
//! was active when it was next overwritten can see it, so a chain holds at most one version for each such reader plus the newest
//! committed one and the writer's own.

use ardb_base::prefetch::prefetch;

/// What pushing a version did, and what undoes it.
#[derive(Debug)]
pub enum Pushed<T> {
    /// A version of an earlier sequence number went into the chain.
    Over,
    /// The version of this very sequence number had this value.
    Replaced(T),
}

/// The newest version of a value and a chain of older ones.
#[derive(Debug)]
pub struct Versions<T> {
    seq: u64,
    value: T,
    older: Option<Box<Node<T>>>,
}

#[derive(Debug)]
struct Node<T> {
    seq: u64,
    value: T,
    older: Option<Box<Node<T>>>,
}

impl<T> Versions<T> {
    /// A value with one version.
    #[inline]
    pub fn new(seq: u64, value: T) -> Versions<T> {
        Versions { seq, value, older: None }
    }

    /// Sequence number of the newest version.
    #[inline]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The newest version.
    #[inline]
    pub fn newest(&self) -> &T {
        &self.value
    }

    /// The newest version, to be changed by its own writer.
    #[inline]
    pub fn newest_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Whether older versions are kept.
    pub fn is_single(&self) -> bool {
        self.older.is_none()
    }

    /// Has the processor bring what [`Versions::push`] will look at besides this into its cache, and does not wait for it.
    #[inline]
    pub fn prefetch_older(&self) {
        if let Some(node) = &self.older {
            prefetch(&node.seq);
            // It may lie across two lines.
            prefetch(&node.older);
        }
    }

    /// The version that a reader at `snapshot` sees.
    #[inline]
    pub fn at(&self, snapshot: u64) -> Option<&T> {
        if self.seq <= snapshot {
            return Some(&self.value);
        }
        let mut node = self.older.as_deref();
        while let Some(n) = node {
            if n.seq <= snapshot {
                return Some(&n.value);
            }
            node = n.older.as_deref();
        }
        None
    }

    /// Makes `value` the version of `seq`, which must not be below the newest. Drops the versions that none of `active` (ascending
    /// snapshots of readers) can see; `dropped` is called for each.
    pub fn push(&mut self, seq: u64, value: T, active: &[u64], mut dropped: impl FnMut(&T)) -> Pushed<T> {
        debug_assert!(seq >= self.seq, "one writer, rising sequence numbers");
        if seq == self.seq {
            return Pushed::Replaced(std::mem::replace(&mut self.value, value));
        }
        let mut spare = None;
        // The chain below the newest committed version: each stays only if an active reader stands between it and its successor.
        let mut rest = self.older.take();
        let mut successor = self.seq;
        let mut kept: Option<Box<Node<T>>> = None;
        let mut keep = Vec::new();
        while let Some(mut node) = rest {
            rest = node.older.take();
            let needed = active.get(active.partition_point(|&a| a < node.seq)).is_some_and(|&a| a < successor);
            successor = node.seq;
            if needed {
                keep.push(node);
            } else {
                dropped(&node.value);
                spare = Some(node);
            }
        }
        for mut node in keep.into_iter().rev() {
            node.older = kept;
            kept = Some(node);
        }
        let before = std::mem::replace(&mut self.value, value);
        let before_seq = std::mem::replace(&mut self.seq, seq);
        self.older = Some(match spare {
            Some(mut node) => {
                *node = Node { seq: before_seq, value: before, older: kept };
                node
            }
            None => Box::new(Node { seq: before_seq, value: before, older: kept }),
        });
        Pushed::Over
    }

    /// Takes the newest version back; `None` if there is no older one.
    pub fn pop(&mut self) -> Option<T> {
        let node = self.older.take()?;
        self.seq = node.seq;
        self.older = node.older;
        Some(std::mem::replace(&mut self.value, node.value))
    }

    /// Puts back the value that [`Pushed::Replaced`] handed out.
    pub fn restore(&mut self, value: T) -> T {
        std::mem::replace(&mut self.value, value)
    }

    /// All versions, the newest first.
    pub fn each(&self, mut visit: impl FnMut(u64, &T)) {
        visit(self.seq, &self.value);
        let mut node = self.older.as_deref();
        while let Some(n) = node {
            visit(n.seq, &n.value);
            node = n.older.as_deref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(v: &Versions<u64>) -> Vec<u64> {
        let mut out = Vec::new();
        v.each(|seq, &value| {
            assert_eq!(seq, value);
            out.push(seq);
        });
        out
    }

    #[test]
    fn keeps_what_active_readers_see_and_the_newest_committed() {
        let mut v = Versions::new(1, 1);
        for seq in 2..10 {
            assert!(matches!(v.push(seq, seq, &[3, 6], |_| ()), Pushed::Over));
        }
        assert_eq!(seqs(&v), [9, 8, 6, 3]);
        assert_eq!(v.at(3), Some(&3));
        assert_eq!(v.at(7), Some(&6));
        assert_eq!(v.at(2), None);
        v.push(10, 10, &[], |_| ());
        assert_eq!(seqs(&v), [10, 9]);
        assert_eq!(v.pop(), Some(10));
        assert_eq!(v.pop(), None);
        assert_eq!(seqs(&v), [9]);
    }

    #[test]
    fn a_transaction_overwrites_its_own_version() {
        let mut v = Versions::new(1, 10);
        v.push(2, 20, &[], |_| ());
        let Pushed::Replaced(old) = v.push(2, 21, &[], |_| ()) else { panic!("the same sequence number replaces") };
        assert_eq!(old, 20);
        v.restore(old);
        assert_eq!(v.at(2), Some(&20));
        assert_eq!(v.at(1), Some(&10));
    }
}
