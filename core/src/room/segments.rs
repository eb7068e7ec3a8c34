//! The home's knowledge of a room's segments: members, batches on the way, and the cost of passes.

use std::collections::BTreeMap;
use std::time::Instant;

use super::exchange::{Census, Counts, WriteCost};
use super::id::Encoding;
use super::pace::PassCost;
use super::rate::Rate;
use super::view::SegmentView;
use crate::limits::SEGMENT_QUEUED_MAX;

/// The home's knowledge of a segment.
#[derive(Debug, Clone, Copy, Default)]
struct HeldSegment {
    census: Census,
    /// Batches on the way to the segment or queued there, not yet in a pass. At most `SEGMENT_QUEUED_MAX`.
    untaken: usize,
    cost: WriteCost,
}

/// All segments of a room.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Shard index -> the segment on that shard.
    by_shard: BTreeMap<usize, HeldSegment>,
    /// The counts of ended segments.
    pub(super) ended: Counts,
    /// Processor time of passes, in seconds each second, all shards together.
    pub(super) pass_rate: Rate,
}

impl Segments {
    /// Members on all shards.
    pub(super) fn members(&self) -> u64 {
        self.by_shard.values().map(|segment| segment.census.members()).sum()
    }

    /// The shards with members, each with a count.
    pub(super) fn held(&self) -> impl Iterator<Item = (usize, Census)> {
        let held = self.by_shard.iter().filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(shard, segment)| (*shard, segment.census))
    }

    pub(super) fn add_member(&mut self, shard: usize, encoding: Encoding) {
        self.by_shard.entry(shard).or_default().census.add(encoding);
    }

    pub(super) fn remove_member(&mut self, shard: usize, encoding: Encoding) {
        let segment = self.by_shard.get_mut(&shard).expect("members leave where they joined");
        segment.census.remove(encoding);
        self.forget_if_empty(shard);
    }

    /// A segment took `batches` into a pass of this cost, or dropped the batches (`None`).
    pub(super) fn taken(&mut self, shard: usize, batches: usize, cost: Option<WriteCost>, now: Instant) {
        // A segment is forgotten only once all its batches are taken: a later word of it brings its cost
        // alone.
        let Some(segment) = self.by_shard.get_mut(&shard) else { return };
        segment.untaken = segment.untaken.checked_sub(batches).expect("only what was sent is taken");
        if let Some(cost) = cost {
            segment.cost = cost;
            self.pass_rate.add(cost.pass(segment.census).as_secs_f64(), now);
        }
        self.forget_if_empty(shard);
    }

    /// A batch goes to every segment with members.
    pub(super) fn send_batch(&mut self) {
        // A segment that just lost its last member is not sent the batch, and owes no answer for it.
        for segment in self.by_shard.values_mut().filter(|segment| segment.census.members() > 0) {
            segment.untaken += 1;
        }
    }

    /// Batches until the fullest segment is full.
    pub(super) fn batches_left(&self) -> usize {
        // Cutting on for the other segments would have the fullest one miss batches.
        let untaken = self.by_shard.values().map(|segment| segment.untaken).max();
        SEGMENT_QUEUED_MAX - untaken.unwrap_or(0)
    }

    /// Returns true if every batch is in a pass.
    pub(super) fn have_taken_all(&self) -> bool {
        self.by_shard.values().all(|segment| segment.untaken == 0)
    }

    /// The cost of a pass on the shard where passes have to be farthest apart.
    pub(super) fn pass_cost(&self) -> PassCost {
        let costs = self.by_shard.values().map(|segment| PassCost {
            pass: segment.cost.pass(segment.census),
            stretch_permille: segment.cost.stretch_permille,
        });
        // A window that suits the other shards would have this one spend more than its share.
        costs.max_by_key(|cost| cost.pass.saturating_mul(cost.stretch_permille)).unwrap_or_default()
    }

    pub(super) fn views(&self) -> impl Iterator<Item = SegmentView> {
        let held = self.by_shard.iter().filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(shard, segment)| SegmentView {
            shard: *shard,
            members: segment.census.members(),
            pass_us: u64::try_from(segment.cost.pass(segment.census).as_micros()).unwrap_or(u64::MAX),
            counts: Counts::default(),
        })
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.by_shard.values().all(|segment| segment.untaken <= SEGMENT_QUEUED_MAX));
    }

    /// Forgets a segment without members and without batches on the way.
    fn forget_if_empty(&mut self, shard: usize) {
        let is_empty = |segment: &HeldSegment| segment.census.members() == 0 && segment.untaken == 0;
        if self.by_shard.get(&shard).is_some_and(is_empty) {
            self.by_shard.remove(&shard);
        }
    }
}
