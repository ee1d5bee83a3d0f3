//! Verifies every invariant of a sorted set by reading all of it. For tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ardb_engine::row::order_of_f64;
use ardb_engine::{Direction, RowRange, Rows, Space};

use super::node::NodeRef;
use super::tree::{NODE_MAX, ROOT_MAX, RUN_MAX, node_row};
use super::{ZSet, score_of_row};

type Place = (u64, Vec<u8>);

impl ZSet {
    /// Panics if an invariant does not hold. Gives all members, by name.
    pub(crate) fn check(&self, rows: &(impl Rows + ?Sized)) -> BTreeMap<Vec<u8>, f64> {
        let mut members = BTreeMap::new();
        let mut places = Vec::new();
        if self.size == 0 {
            return members;
        }
        if let Some(packed) = self.members() {
            let all = packed.all(self.size).expect("it parses");
            assert!(all.windows(2).all(|pair| pair[0].position() < pair[1].position()), "in order");
            assert!(
                all.iter().all(|next| next.score.to_bits() != (-0f64).to_bits()),
                "a small set has no negative zero"
            );
            members.extend(all.iter().map(|next| (next.member.to_vec(), next.score)));
            assert_eq!(members.len() as u64, self.size, "different members");
            return members;
        }
        rows.scan(RowRange::group(Space::Member, self.object().0), Direction::Forward, &mut |key, value| {
            members.insert(key.tail.to_vec(), score_of_row(value).expect("a score"));
            ControlFlow::Continue(())
        })
        .expect("rows can be read");
        rows.scan(RowRange::group(Space::Score, self.object().0), Direction::Forward, &mut |key, value| {
            let score = super::score_of_place(key.order, value);
            assert_eq!(
                members.get(key.tail).map(|s| s.to_bits()),
                Some(score.to_bits()),
                "a score row without its member"
            );
            assert!(self.low() <= key.order && key.order <= self.high(), "outside low and high");
            places.push((key.order, key.tail.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("rows can be read");
        assert_eq!(members.len() as u64, self.size, "cardinality");
        assert_eq!(places.len() as u64, self.size, "score rows");
        let mut nodes = 0;
        let root = self.root().expect("a root");
        if !root.is_empty() {
            assert!(root.len() <= ROOT_MAX);
            let counted = self.check_node(rows, &root, self.height(), (0, Vec::new()), None, &places, &mut nodes);
            assert_eq!(counted, self.size + self.front(), "the root's sum");
        } else {
            assert!(self.size <= RUN_MAX + RUN_MAX / 4, "no tree");
        }
        let mut node_rows = 0;
        rows.scan(RowRange::group(Space::Rank1, self.object().0), Direction::Forward, &mut |_, _| {
            node_rows += 1;
            ControlFlow::Continue(())
        })
        .expect("rows can be read");
        assert_eq!(node_rows, nodes, "nodes that nothing leads to");
        members
    }

    #[allow(clippy::too_many_arguments)]
    fn check_node(
        &self,
        rows: &(impl Rows + ?Sized),
        node: &NodeRef<'_>,
        height: u8,
        lower: Place,
        upper: Option<Place>,
        places: &[Place],
        nodes: &mut usize,
    ) -> u64 {
        assert!(!node.is_empty(), "an empty node");
        let begin = |i: usize| if i == 0 { lower.clone() } else { (node.position(i).0, node.position(i).1.to_vec()) };
        let mut sum = 0;
        for i in 0..node.len() {
            let from = begin(i);
            let to = if i + 1 < node.len() { Some(begin(i + 1)) } else { upper.clone() };
            assert!(to.as_ref().is_none_or(|to| from < *to), "separators ascend");
            let first = places.partition_point(|place| *place < from);
            let last = to.as_ref().map_or(places.len(), |to| places.partition_point(|place| place < to));
            let front = if from == (0, Vec::new()) { self.front() } else { 0 };
            assert_eq!(node.count(i), (last - first) as u64 + front, "a count at height {height}");
            assert!(last > first, "an entry without rows");
            sum += node.count(i);
            if height == 0 {
                assert_eq!(node.child(i), 0);
                assert!(node.count(i) <= RUN_MAX, "a run is too long");
            } else {
                *nodes += 1;
                let value = rows
                    .get(node_row(self.object(), node.child(i)))
                    .expect("rows can be read")
                    .expect("the node is there");
                let child = NodeRef::parse(&value).expect("a node");
                assert!(child.len() <= NODE_MAX);
                assert_eq!(self.check_node(rows, &child, height - 1, from, to, places, nodes), node.count(i));
            }
        }
        sum
    }
}

/// The place of a member as the set orders it.
pub fn place(member: &[u8], score: f64) -> Place {
    (order_of_f64(score), member.to_vec())
}
