//! Messages between two seqs, put together from exact statements about parts.
//!
//! A batch 7 with 3 messages states 3 messages between seq 6 and seq 7. A refresh from 7 to 11 with
//! a `skipped` of 12 states 12 messages between 7 and 11, sent to a device or not. Both join seqs 6
//! and 11 at a distance of 15. The seqs form a union-find with a distance along each edge (weighted
//! quick-union). So a contradicting statement is found at once, and the distance between any
//! two joined seqs is known. Pure.

use std::collections::BTreeMap;

/// Seqs and the numbers of messages between them.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    index: BTreeMap<u64, usize>,
    /// A seq's parent, and the messages from the parent to the seq. A root is its own parent.
    nodes: Vec<(usize, i64)>,
}

impl Spans {
    /// States that `count` messages lie after `after` up to `through`. `false`: a contradiction to earlier
    /// statements.
    #[must_use]
    pub(crate) fn state(&mut self, after: u64, through: u64, count: u64) -> bool {
        // A quarter of the range: a forged count must not overflow when distances are added.
        let count = i64::try_from(count).unwrap_or(i64::MAX / 4);
        let (root_a, to_a) = self.root(after);
        let (root_b, to_b) = self.root(through);
        if root_a == root_b {
            return to_b - to_a == count;
        }
        self.nodes[root_b] = (root_a, to_a + count - to_b);
        true
    }

    /// Messages after `after` up to `through`; `None` while no statements join the two seqs.
    pub(crate) fn between(&mut self, after: u64, through: u64) -> Option<i64> {
        let (root_a, to_a) = self.root(after);
        let (root_b, to_b) = self.root(through);
        (root_a == root_b).then_some(to_b - to_a)
    }

    /// The same as a count; 0 for an unknown distance, and for a negative distance, a product of
    /// contradictions.
    pub(crate) fn entered(&mut self, after: u64, through: u64) -> u64 {
        self.between(after, through).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    /// The root of a seq and the messages from the root to the seq. Shortens the path on the way.
    fn root(&mut self, seq: u64) -> (usize, i64) {
        let nodes = &mut self.nodes;
        let start = *self.index.entry(seq).or_insert_with(|| {
            nodes.push((nodes.len(), 0));
            nodes.len() - 1
        });
        let mut at = start;
        let mut distance = 0;
        while nodes[at].0 != at {
            let (parent, from_parent) = nodes[at];
            // Path halving: point at the grandparent. A root's own distance is 0, so a missing grandparent
            // does no harm.
            let (grandparent, from_grandparent) = nodes[parent];
            nodes[at] = (grandparent, from_parent + from_grandparent);
            distance += nodes[at].1;
            at = grandparent;
        }
        (at, distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_add_up_and_contradictions_are_found() {
        let mut spans = Spans::default();
        assert!(spans.state(1, 2, 5));
        assert!(spans.state(3, 4, 1));
        assert_eq!(spans.between(1, 4), None);
        assert!(spans.state(1, 4, 9), "says that batch 3 held 3");
        assert_eq!(spans.between(2, 3), Some(3));
        assert!(spans.state(2, 3, 3));
        assert!(!spans.state(2, 4, 5));
        assert!(!spans.state(4, 4, 1));
    }

    #[test]
    fn any_order_of_true_statements_gives_the_same_distances() {
        let seed = 0x5eed;
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let totals: Vec<u64> = (0..40)
                .scan(0, |sum, _| {
                    *sum += random.u64(..5);
                    Some(*sum)
                })
                .collect();
            let mut spans = Spans::default();
            for _ in 0..200 {
                let one = random.usize(..40);
                let other = random.usize(..40);
                let a = one.min(other);
                let b = one.max(other);
                assert!(spans.state(a as u64, b as u64, totals[b] - totals[a]), "seed {seed:#x}");
            }
            if let Some(found) = spans.between(0, 39) {
                assert_eq!(found, (totals[39] - totals[0]).cast_signed(), "seed {seed:#x}");
            }
        }
    }
}
