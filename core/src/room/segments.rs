//! The home's knowledge of a room's segments: members, batches on the way, and the cost of passes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::exchange::{Census, Counts, Departure, WriteCost};
use super::id::{Encoding, Epoch, Seq};
use super::pace::PassCost;
use super::rate::Rate;
use super::view::SegmentView;
use crate::limits::{NODE_HOLD_AGE_MAX, ROLL_ENTRIES_MAX, SEGMENT_QUEUED_MAX, SHARDS_MAX};

/// The home's knowledge of a segment.
#[derive(Debug, Default)]
struct HeldSegment {
    census: Census,
    /// Batches on the way to a local segment or queued there, not yet in a pass. At most `SEGMENT_QUEUED_MAX`.
    queued: usize,
    cost: WriteCost,
    /// The members of a local segment, once it has told them: the room pauses.
    roll: Option<Box<Roll>>,
    /// `None` for a local segment.
    node: Option<Box<HeldNode>>,
}

/// The home's further knowledge of all members on another node.
#[derive(Debug, Default)]
struct HeldNode {
    /// Members by the way in which receipts count them: the place may be lost without a word about each member.
    roll: BTreeMap<Enrolled, u32>,
    /// Batches on the way to the node or queued there, oldest first, each with the moment of its cut. At most
    /// `SEGMENT_QUEUED_MAX`.
    awaited: VecDeque<(Seq, Instant)>,
    /// The newest batch that went to the node, awaited or not.
    newest: Seq,
    /// The node held up the room for long, or a batch to it lapsed: until it is level again, no further batch is
    /// awaited, and it holds up none.
    is_late: bool,
}

impl HeldNode {
    /// The cut of the oldest batch, if the node has no room for a further one and holds up the room.
    fn holds_since(&self) -> Option<Instant> {
        let is_full = self.awaited.len() >= SEGMENT_QUEUED_MAX;
        self.awaited.front().filter(|_| is_full && !self.is_late).map(|(_, since)| *since)
    }
}

impl HeldSegment {
    /// Batches without a word of the segment about a pass.
    fn untaken(&self) -> usize {
        self.node.as_ref().map_or(self.queued, |node| node.awaited.len())
    }
}

/// True for the place of another node (`cluster::node_place`), false for a local shard.
pub(super) fn is_of_node(place: usize) -> bool {
    place >= SHARDS_MAX
}

/// A member of a node's place, as receipts count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Enrolled {
    pub(super) encoding: Encoding,
    /// The epoch known to the member.
    pub(super) epoch: Option<Epoch>,
    pub(super) counts_from: u64,
    pub(super) device: u64,
}

impl Enrolled {
    fn of(left: &Departure) -> Self {
        let Departure { encoding, epoch, counts_from, device, .. } = *left;
        Self { encoding, epoch, counts_from, device }
    }

    /// The departure of the member without a word of it.
    pub(super) fn departure(self) -> Departure {
        let Self { encoding, epoch, counts_from, device } = self;
        Departure { encoding, epoch, acked: 0, counts_from, device }
    }
}

/// The members of a segment, as receipts count them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roll(BTreeMap<Enrolled, u32>);

impl Roll {
    /// Takes in a member by its departure, which has not come. False: there are too many different ones.
    #[must_use]
    pub fn add(&mut self, member: &Departure) -> bool {
        *self.0.entry(Enrolled::of(member)).or_default() += 1;
        self.0.len() <= ROLL_ENTRIES_MAX
    }

    /// False, and nothing changes, for a departure of nobody.
    fn remove(&mut self, left: &Departure) -> bool {
        let member = Enrolled::of(left);
        let Some(count) = self.0.get_mut(&member) else { return false };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&member);
        }
        true
    }

    fn members(&self) -> u64 {
        self.0.values().copied().map(u64::from).sum()
    }
}

/// All segments of a room.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Place -> the segment there: on a local shard, or all members of another node.
    by_place: BTreeMap<usize, HeldSegment>,
    /// The cut of the oldest batch awaited of a node. Invariant: the minimum over all places.
    awaited_since: Option<Instant>,
    /// The cut of the oldest batch of a node that holds up the room. Invariant: the minimum over all places.
    held_since: Option<Instant>,
    /// The counts of ended segments.
    pub(super) ended: Counts,
    /// Processor time of passes, in seconds each second, all shards together.
    pub(super) pass_rate: Rate,
}

impl Segments {
    /// Members at all places.
    pub(super) fn members(&self) -> u64 {
        self.by_place.values().map(|segment| segment.census.members()).sum()
    }

    /// Members on local shards.
    pub(super) fn local_members(&self) -> u64 {
        let local = self.held().filter(|(place, _)| !is_of_node(*place));
        local.map(|(_, census)| census.members()).sum()
    }

    /// The places with members, each with a count.
    pub(super) fn held(&self) -> impl Iterator<Item = (usize, Census)> {
        let held = self.by_place.iter().filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(place, segment)| (*place, segment.census))
    }

    pub(super) fn add_member(&mut self, place: usize, member: Enrolled) {
        let segment = self.by_place.entry(place).or_default();
        segment.census.add(member.encoding);
        if is_of_node(place) {
            *segment.node.get_or_insert_default().roll.entry(member).or_default() += 1;
        }
    }

    /// The members on other nodes for the next home of the room: place -> members, each with a count.
    pub(super) fn rolls(&self) -> impl Iterator<Item = (usize, &BTreeMap<Enrolled, u32>)> {
        self.by_place.iter().filter_map(|(place, segment)| Some((*place, &segment.node.as_ref()?.roll)))
    }

    /// A local segment tells its members.
    pub(super) fn enroll_here(&mut self, shard: usize, roll: Option<Box<Roll>>) {
        let held = self.by_place.get_mut(&shard).filter(|held| held.node.is_none());
        if let Some(held) = held {
            // A segment of another life says other numbers.
            held.roll = roll.filter(|roll| roll.members() == held.census.members());
        }
    }

    /// The room goes on here: members come that no roll has.
    pub(super) fn forget_rolls(&mut self) {
        self.by_place.values_mut().for_each(|held| held.roll = None);
    }

    /// The members of all local segments. `None`: one of these has not told them.
    pub(super) fn own_roll(&self) -> Option<BTreeMap<Enrolled, u32>> {
        let mut all = BTreeMap::new();
        let local = self.by_place.values().filter(|held| held.node.is_none() && held.census.members() > 0);
        for held in local {
            for (member, count) in &held.roll.as_ref()?.0 {
                *all.entry(*member).or_default() += count;
            }
        }
        Some(all)
    }

    /// True if each local segment has taken its batches into a pass.
    pub(super) fn is_quiet_here(&self) -> bool {
        self.by_place.values().all(|held| held.node.is_some() || held.queued == 0)
    }

    /// Takes over the members of a node's place from a former home. False, and nothing changes: too many for a count.
    #[must_use]
    pub(super) fn enroll(&mut self, place: usize, roll: BTreeMap<Enrolled, u32>) -> bool {
        let mut census = Census::default();
        for (member, count) in &roll {
            let members = &mut census.0[member.encoding as usize];
            let Some(more) = members.checked_add(*count) else { return false };
            *members = more;
        }
        let node = Some(Box::new(HeldNode { roll, ..HeldNode::default() }));
        if census.members() > 0 {
            self.by_place.insert(place, HeldSegment { census, node, ..HeldSegment::default() });
        }
        true
    }

    /// Takes over a local segment that was a part of this node's branch, with the batches before it.
    pub(super) fn take_over(&mut self, shard: usize, census: Census, queued: usize) {
        let queued = queued.min(SEGMENT_QUEUED_MAX);
        if census.members() == 0 && queued == 0 {
            return;
        }
        self.by_place.insert(shard, HeldSegment { census, queued, ..HeldSegment::default() });
    }

    /// Returns false, and nothing changes, for a departure of nobody: another node may repeat itself, or err.
    #[must_use]
    pub(super) fn remove_member(&mut self, place: usize, left: &Departure) -> bool {
        let Some(segment) = self.by_place.get_mut(&place) else { return false };
        if let Some(node) = &mut segment.node {
            let member = Enrolled::of(left);
            let Some(count) = node.roll.get_mut(&member) else { return false };
            *count -= 1;
            if *count == 0 {
                node.roll.remove(&member);
            }
        }
        if segment.roll.as_mut().is_some_and(|roll| !roll.remove(left)) {
            segment.roll = None;
        }
        let was_member = segment.census.remove(left.encoding);
        self.forget_if_empty(place);
        was_member
    }

    /// Forgets a node's place with its batches under way. Returns the members, each with a count.
    pub(super) fn lose(&mut self, place: usize) -> BTreeMap<Enrolled, u32> {
        // The members of a local segment are counted off one by one, unless they are known all together.
        let is_told = self.by_place.get(&place).is_some_and(|held| held.roll.is_some());
        if !is_of_node(place) && !is_told {
            return BTreeMap::new();
        }
        let held = self.by_place.remove(&place).unwrap_or_default();
        self.note_awaited();
        held.node.map(|node| node.roll).or_else(|| held.roll.map(|roll| roll.0)).unwrap_or_default()
    }

    /// True if a place has members, or owes a word about a batch.
    pub(super) fn has(&self, place: usize) -> bool {
        self.by_place.contains_key(&place)
    }

    /// A local segment took `batches` into a pass of this cost, or dropped the batches (`None`). Returns false if
    /// more batches are said to be taken than were sent.
    #[must_use]
    pub(super) fn taken(
        &mut self,
        place: usize,
        batches: usize,
        cost: Option<WriteCost>,
        now: Instant,
    ) -> bool {
        // A segment is forgotten only once all its batches are taken: a later word of it brings its cost
        // alone.
        let Some(segment) = self.by_place.get_mut(&place) else { return batches == 0 };
        let were_sent = segment.queued >= batches;
        segment.queued = segment.queued.saturating_sub(batches);
        if let Some(cost) = cost {
            segment.cost = cost;
            self.pass_rate.add(cost.pass(segment.census).as_secs_f64(), now);
        }
        self.forget_if_empty(place);
        were_sent
    }

    /// A node took all batches up to `seq` into a pass of this cost, or dropped the batches (`None`). Returns false
    /// if none of them was awaited: a batch that lapsed may be taken after all.
    #[must_use]
    pub(super) fn taken_through(&mut self, place: usize, seq: Seq, cost: Option<WriteCost>) -> bool {
        let Some(segment) = self.by_place.get_mut(&place) else { return false };
        let Some(node) = &mut segment.node else { return false };
        // A word about an old batch comes from a node that is still behind: it would hold up all others at once.
        // (One batch may have left while the word was on its way.)
        node.is_late &= seq.0.saturating_add(1) < node.newest.0;
        let awaited = node.awaited.len();
        while node.awaited.pop_front_if(|(sent, _)| *sent <= seq).is_some() {}
        let were_awaited = awaited > node.awaited.len();
        // The time of another node's processors makes no room hot on this node.
        segment.cost = cost.unwrap_or(segment.cost);
        self.note_awaited();
        self.forget_if_empty(place);
        were_awaited
    }

    /// A batch was left out on its way: no word about the batch is awaited.
    pub(super) fn lapsed(&mut self, place: usize, seq: Seq) {
        let Some(segment) = self.by_place.get_mut(&place) else { return };
        match &mut segment.node {
            Some(node) => {
                node.awaited.retain(|(sent, _)| *sent != seq);
                // One cut for each batch that the link gives up would have the node set the pace of all others.
                node.is_late = true;
            }
            None => segment.queued = segment.queued.saturating_sub(1),
        }
        self.note_awaited();
        self.forget_if_empty(place);
    }

    /// The moment at which a node holds up the room no longer, or batches without a word of their node lapse, at the
    /// age `age_max`.
    pub(super) fn lapse_due(&self, age_max: impl FnOnce() -> Duration) -> Option<Instant> {
        let lapse = self.awaited_since.map(|since| since + age_max());
        let hold = self.held_since.map(|since| since + NODE_HOLD_AGE_MAX);
        lapse.into_iter().chain(hold).min()
    }

    /// Waits no longer for nodes that held up the room for long, and awaits nothing of nodes with a batch as old as
    /// `age_max`. Returns the places of the latter, each with the newest batch that was awaited.
    pub(super) fn lapse(&mut self, age_max: Duration, now: Instant) -> Vec<(usize, Seq)> {
        let mut lapsed = Vec::new();
        for (place, segment) in &mut self.by_place {
            let Some(node) = &mut segment.node else { continue };
            // Behind a slow link each batch is taken, but late: the node would set the pace of all others for ever.
            node.is_late |= node.holds_since().is_some_and(|since| since + NODE_HOLD_AGE_MAX <= now);
            if node.awaited.front().is_some_and(|(_, since)| *since + age_max <= now) {
                lapsed.extend(node.awaited.back().map(|(newest, _)| (*place, *newest)));
                node.awaited.clear();
                // A node that took four batches a second would set the pace of all others.
                node.is_late = true;
            }
        }
        self.note_awaited();
        lapsed.iter().for_each(|(place, _)| self.forget_if_empty(*place));
        lapsed
    }

    fn note_awaited(&mut self) {
        let nodes = || self.by_place.values().filter_map(|segment| segment.node.as_ref());
        self.awaited_since = nodes().filter_map(|node| Some(node.awaited.front()?.1)).min();
        self.held_since = nodes().filter_map(|node| node.holds_since()).min();
    }

    /// The batch `seq` goes to every segment with members.
    pub(super) fn send_batch(&mut self, seq: Seq, now: Instant) {
        // A segment that just lost its last member is not sent the batch, and owes no answer for it.
        for segment in self.by_place.values_mut().filter(|segment| segment.census.members() > 0) {
            let Some(node) = &mut segment.node else {
                segment.queued += 1;
                continue;
            };
            node.newest = seq;
            if !node.is_late {
                node.awaited.push_back((seq, now));
            }
        }
        self.note_awaited();
    }

    /// Batches until the fullest segment is full.
    pub(super) fn batches_left(&self) -> usize {
        // Cutting on for the other segments would have the fullest one miss batches.
        let is_late = |segment: &HeldSegment| segment.node.as_ref().is_some_and(|node| node.is_late);
        let waits_for = self.by_place.values().filter(|segment| !is_late(segment));
        let untaken = waits_for.map(HeldSegment::untaken).max();
        SEGMENT_QUEUED_MAX - untaken.unwrap_or(0)
    }

    /// Returns true if every batch is in a pass.
    pub(super) fn have_taken_all(&self) -> bool {
        self.by_place.values().all(|segment| segment.untaken() == 0)
    }

    /// The cost of a pass on the shard where passes have to be farthest apart.
    pub(super) fn pass_cost(&self) -> PassCost {
        let costs = self.by_place.values().map(|segment| PassCost {
            pass: segment.cost.pass(segment.census),
            stretch_permille: segment.cost.stretch_permille,
        });
        // A window that suits the other shards would have this one spend more than its share.
        costs.max_by_key(|cost| cost.pass.saturating_mul(cost.stretch_permille)).unwrap_or_default()
    }

    /// The views of the segments on local shards.
    pub(super) fn views(&self) -> impl Iterator<Item = SegmentView> {
        let local = self.by_place.iter().filter(|(place, _)| !is_of_node(**place));
        let held = local.filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(shard, segment)| SegmentView {
            shard: *shard,
            members: segment.census.members(),
            pass_us: u64::try_from(segment.cost.pass(segment.census).as_micros()).unwrap_or(u64::MAX),
            counts: Counts::default(),
        })
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.by_place.values().all(|segment| segment.untaken() <= SEGMENT_QUEUED_MAX));
        let mut oldest = None;
        let mut held = None;
        for (place, segment) in &self.by_place {
            assert_eq!(segment.node.is_some(), is_of_node(*place));
            let Some(node) = &segment.node else { continue };
            oldest = oldest.into_iter().chain(node.awaited.front().map(|(_, since)| *since)).min();
            held = held.into_iter().chain(node.holds_since()).min();
            // Small rooms only: with each input, a test of a large one would never end.
            if node.roll.len() <= 64 {
                let enrolled: u64 = node.roll.values().copied().map(u64::from).sum();
                assert_eq!(enrolled, segment.census.members(), "each member of a node is enrolled");
            }
        }
        assert_eq!(self.awaited_since, oldest, "the oldest awaited batch is known");
        assert_eq!(self.held_since, held, "the oldest batch that holds up the room is known");
    }

    /// Forgets a segment without members and without batches on the way.
    fn forget_if_empty(&mut self, place: usize) {
        let is_empty = |segment: &HeldSegment| segment.census.members() == 0 && segment.untaken() == 0;
        if self.by_place.get(&place).is_some_and(is_empty) {
            self.by_place.remove(&place);
        }
    }
}
