//! Verifies every invariant of a sorted set by reading all of it. For tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ardb_engine::row::order_of_f64;
use ardb_engine::{Direction, RowRange, Rows, Space};

use super::leaf::{LeafRef, raw_order};
use super::node::NodeRef;
use super::tree::{NODE_FEW, NODE_MAX, NODE_TAILS, ROOT_MAX, ROOT_TAILS, is_large, node_row};
use super::{ZSet, score_of_row};

type Place = (u64, Vec<u8>);

/// What is gathered on the way through the tree.
#[derive(Default)]
struct Seen {
    /// The entries of leaves that are members, in order.
    entries: Vec<(Vec<u8>, f64)>,
    /// The numbers of leaves in order, and of nodes.
    leaves: Vec<u64>,
    nodes: Vec<u64>,
}

impl ZSet {
    /// Panics if an invariant does not hold. Gives all members, by name.
    pub(crate) fn check(&self, rows: &(impl Rows + ?Sized)) -> BTreeMap<Vec<u8>, f64> {
        let mut members = BTreeMap::new();
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
        assert_eq!(members.len() as u64, self.size, "cardinality");
        let longest = members.keys().map(Vec::len).max().unwrap_or(0);
        assert!(longest as u64 <= u64::from(self.state.longest) && self.size <= u64::from(self.state.peak));
        if self.is_small() {
            let negative = members.values().any(|score| score.to_bits() == (-0f64).to_bits());
            assert!(!negative, "a small set has no negative zero");
        }

        let root = self.root().expect("a root");
        assert!(root.len() <= ROOT_MAX && (root.len() <= NODE_FEW || root.tail_bytes() <= ROOT_TAILS), "a large root");
        let mut seen = Seen::default();
        let counted = self.check_node(rows, &root, self.state.height, ((0, Vec::new()), None), &mut seen);
        let state = &self.state;
        assert_eq!(counted, self.size + u64::from(state.front) + u64::from(state.back), "the root's sum");
        assert_eq!(seen.entries.len() as u64, self.size, "entries");
        for (member, score) in &seen.entries {
            let known = members.get(member).map(|score| score.to_bits());
            assert_eq!(known, Some(score.to_bits()), "an entry without its member");
        }
        for (known, lost, number) in
            [(state.first, state.front, seen.leaves.first()), (state.last, state.back, seen.leaves.last())]
        {
            assert!(if known == 0 { lost == 0 } else { Some(&known) == number }, "the leaf at an end");
        }
        seen.nodes.extend(&seen.leaves);
        seen.nodes.sort_unstable();
        let mut found = Vec::new();
        rows.scan(RowRange::group(Space::Rank1, self.object().0), Direction::Forward, &mut |key, _| {
            assert!(key.tail.is_empty() && key.order < state.next, "a number that is not given out yet");
            found.push(key.order);
            ControlFlow::Continue(())
        })
        .expect("rows can be read");
        assert_eq!(found, seen.nodes, "each node and leaf is led to once");
        members
    }

    /// Checks what lies below a node, which covers the places from `lower` up to `upper`; the number of entries in leaves.
    fn check_node(
        &self,
        rows: &(impl Rows + ?Sized),
        node: &NodeRef<'_>,
        height: u8,
        (lower, upper): (Place, Option<Place>),
        seen: &mut Seen,
    ) -> u64 {
        assert!(!node.is_empty(), "an empty node");
        assert!(node.is_sound(), "ends of tails");
        let begin = |i: usize| if i == 0 { lower.clone() } else { (node.position(i).0, node.position(i).1.to_vec()) };
        let mut sum = 0;
        for i in 0..node.len() {
            let (from, number) = (begin(i), node.child(i));
            let to = if i + 1 < node.len() { Some(begin(i + 1)) } else { upper.clone() };
            assert!(to.as_ref().is_none_or(|to| from < *to), "separators ascend");
            let value =
                rows.get(node_row(self.object(), number)).expect("rows can be read").expect("the node is there");
            let counted = if height == 0 {
                seen.leaves.push(number);
                self.check_leaf(&LeafRef::parse(&value).expect("a leaf"), number, (from, to), seen)
            } else {
                seen.nodes.push(number);
                let child = NodeRef::parse(&value).expect("a node");
                assert!(child.len() <= NODE_MAX && (child.len() <= NODE_FEW || child.tail_bytes() <= NODE_TAILS));
                self.check_node(rows, &child, height - 1, (from, to), seen)
            };
            assert_eq!(node.count(i), counted, "a count at height {height}");
            sum += counted;
        }
        sum
    }

    fn check_leaf(
        &self,
        leaf: &LeafRef<'_>,
        number: u64,
        (lower, upper): (Place, Option<Place>),
        seen: &mut Seen,
    ) -> u64 {
        assert!(!is_large(leaf, &(0..leaf.len())), "a large leaf");
        let live = self.live(number, leaf).expect("a leaf with members");
        let mut last = None;
        for i in 0..leaf.len() {
            let mut member = Vec::new();
            leaf.member(i, &mut member);
            let score = leaf.score(i).expect("a score");
            let place = place(&member, score);
            assert!(lower <= place && upper.as_ref().is_none_or(|upper| place < *upper), "within its bounds");
            assert!(last.is_none_or(|last| last < place), "entries ascend");
            assert_eq!(f64_bits(raw_order(score)), score.to_bits());
            last = Some(place);
            if live.contains(&i) {
                seen.entries.push((member, score));
            }
        }
        leaf.len() as u64
    }
}

fn f64_bits(raw: u64) -> u64 {
    ardb_engine::row::f64_of_order(raw).to_bits()
}

/// The place of a member as the set orders it.
pub fn place(member: &[u8], score: f64) -> Place {
    (order_of_f64(score), member.to_vec())
}
