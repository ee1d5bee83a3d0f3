//! Verifies every invariant of a list by reading all of it. For tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ardb_engine::row::{i64_of_order, order_of_i64};
use ardb_engine::{Direction, RowRange, Rows, Space};

use super::chunks::Chunks;
use super::element::{Element, forward, must_be};
use super::{End, List};

/// Bytes that a chunk or the edges' row may take.
const ROW_MAX: usize = 20 << 10;

impl List {
    /// Panics if an invariant does not hold. Gives all elements.
    pub(crate) fn check(&self, rows: &(impl Rows + ?Sized)) -> Vec<Vec<u8>> {
        let Some(chunks) = &self.chunks else {
            let all = self.packed().all(self.len()).expect("it parses");
            return all.iter().map(|entry| entry.name.to_vec()).collect();
        };
        assert!(!self.is_empty(), "an empty list has no rows");
        assert_eq!(chunks.len(), self.len(), "elements that are counted");
        chunks.check(rows)
    }
}

impl Chunks {
    fn check(&self, rows: &(impl Rows + ?Sized)) -> Vec<Vec<u8>> {
        let mut stored = BTreeMap::new();
        rows.scan(RowRange::group(Space::Element, self.object.0), Direction::Forward, &mut |key, value| {
            assert!(key.tail.is_empty());
            stored.insert(key.order, value.to_vec());
            ControlFlow::Continue(())
        })
        .expect("rows can be read");
        let mut apart = BTreeSet::new();
        let mut all = Vec::new();
        let mut see = |bytes: &[u8], count: usize| {
            must_be(bytes, count).expect("as many elements as it should hold");
            assert!(bytes.len() <= ROW_MAX, "a row is bounded");
            let mut some = Vec::new();
            let _ = forward(bytes, 0, count, |element| {
                some.push(match element {
                    Element::Here(string) => {
                        assert!(string.len() <= self.limit(), "a long element is held apart");
                        string.to_vec()
                    }
                    Element::Apart(number) => {
                        assert!(apart.insert(number), "one row for each element held apart");
                        let value = self.apart(rows, number).expect("it has a row");
                        assert!(value.len() > self.limit(), "a short element is not held apart");
                        value.to_vec()
                    }
                });
                Ok(ControlFlow::Continue(()))
            })
            .expect("it parses");
            some
        };
        let edge = |end: End| {
            let (count, bytes) = self.clone().take_edge(end);
            assert!(count < 2 * self.k, "an edge is too long");
            (count, bytes)
        };
        let (count, bytes) = edge(End::Left);
        all.extend(see(&bytes, count));
        for chunk in 0..self.count {
            let bytes = stored.get(&order_of_i64(self.first + chunk as i64)).expect("a chunk");
            all.extend(see(bytes, self.k));
        }
        let (count, bytes) = edge(End::Right);
        all.extend(see(&bytes, count).into_iter().rev());
        assert_eq!(apart.len() as u64, self.apart, "elements held apart");
        let chunks = (0..self.count).map(|chunk| order_of_i64(self.first + chunk as i64));
        let wanted: BTreeSet<u64> = apart.iter().copied().chain(chunks).collect();
        let strays: Vec<i64> =
            stored.keys().filter(|order| !wanted.contains(order)).map(|order| i64_of_order(*order)).collect();
        assert!(strays.is_empty(), "rows that nothing leads to: {strays:?}");
        all
    }
}
