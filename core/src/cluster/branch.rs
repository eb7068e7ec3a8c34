//! The branch of a room: the stand-in of a home on another node. To the segments of its node the branch is the
//! home, and to the home it is one place.
//!
//! The branch keeps no frame. The caller passes each word in, sends the frames of a home to the segments that the
//! branch names, and sends on the branch's own words: [`Branch::poll_said`], to be drained after each call and
//! before the frame of that call. Joins leave by [`Branch::send_join`] alone: the members of all rooms of a node that
//! died come at once.
//!
//! A branch is *attached* to a home. Where the home moves, or the link to its node begins anew, the branch detaches:
//! the segments have their members join again, and words of a segment from before are dropped until the segment has
//! said [`SegmentSaid::Moved`].
//!
//! A home that hands the room over *pauses* the branch first: see `pause`.

mod pause;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::pause::Pause;
use super::{NodeKey, SlotHome};
use crate::limits::{NO_HOME_AGE_MAX, NODE_JOIN_AGE_MAX, SEGMENT_QUEUED_MAX};
use crate::room::id::{Encoding, Epoch, Run, Seq};
use crate::room::{CarryWant, Census, Departure, Join, RefreshWant, SegmentSaid, WriteCost};

pub use self::pause::{HandedIn, HandedOut};

/// The place of a word that no segment has said.
const NO_SHARD: usize = usize::MAX;

/// The branch of a room. Bounded by the members, the joins under way and the shards of its node.
#[derive(Debug, Default)]
pub struct Branch {
    /// The node to which the branch is attached.
    home: Option<NodeKey>,
    /// The life of the room at that home; `None` before the first welcome.
    run: Option<Run>,
    epoch: Option<Epoch>,
    /// The newest batch of the run.
    seq: Seq,
    /// Shard -> the segment there.
    segments: BTreeMap<usize, BranchSegment>,
    joins: BTreeMap<JoinKey, WaitingJoin>,
    /// Joins to send to the home, in order. Some may have been refused meanwhile.
    in_line: VecDeque<JoinKey>,
    /// Ticket -> the join on its way under that number. An answer to an earlier sending finds no join.
    sent: BTreeMap<u32, SentJoin>,
    /// The last ticket.
    ticket: u32,
    /// Request -> the shards that asked. Asked of the home once.
    refreshes: BTreeMap<RefreshWant, Vec<usize>>,
    carries: BTreeMap<CarryWant, Vec<usize>>,
    /// Batches that some segment has not taken yet, oldest first. At most `SEGMENT_QUEUED_MAX` for each segment.
    batches: VecDeque<OnTheWay>,
    said: VecDeque<BranchSaid>,
    /// The room is handed over: words wait for its next home.
    pause: Option<Pause>,
    /// The home that has handed the room over to the present one. The slot may stand with it a little longer.
    handed_from: Option<NodeKey>,
    /// Words that were stale or wrong, and changed nothing.
    stale: u64,
}

/// A segment, as its branch knows it.
#[derive(Debug, Default)]
struct BranchSegment {
    census: Census,
    /// Batches that the segment has not taken, oldest first. At most `SEGMENT_QUEUED_MAX`.
    untaken: VecDeque<Seq>,
    /// The newest batch that passed the segment, which was not told yet.
    passed: Option<Seq>,
    /// Times that the segment was told to have its members join again, and has not said so yet.
    moving: u32,
}

/// A batch on its way to segments.
#[derive(Debug)]
struct OnTheWay {
    seq: Seq,
    /// The last of the batches that all segments have taken behind this one.
    through: Seq,
    /// Segments that have not taken the batch.
    left: usize,
    /// The slowest pass so far.
    pass: Duration,
    stretch_permille: Option<u32>,
}

/// The names of a join: shard and connection, and the number of the join among those of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinKey {
    /// The index of the connection's shard.
    pub shard: u16,
    /// The number of the connection.
    pub connection: u64,
    /// The number of the join.
    pub join: u32,
}

/// A join without an answer.
#[derive(Debug)]
struct WaitingJoin {
    join: Join,
    since: Instant,
    stands: JoinStands,
}

/// The place of a join on its way to the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinStands {
    /// The join was refused by a node that is not the home, or its answer is lost: sent again later.
    Apart,
    /// Among the joins to send.
    InLine,
    /// On its way, under a ticket.
    Sent,
}

/// A join on its way.
#[derive(Debug, Clone, Copy)]
struct SentJoin {
    key: JoinKey,
    at: Instant,
}

/// A welcome of the home, as far as the branch looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Welcoming {
    /// The answered join, with its ticket as its number.
    pub key: JoinKey,
    /// The life of the reliable stream.
    pub epoch: Option<Epoch>,
    /// The encoding of the member's frames.
    pub encoding: Encoding,
    /// The departure of the member, should nobody wait for the welcome.
    pub departure: Departure,
}

/// Own words of a branch.
#[derive(Debug)]
pub enum BranchSaid {
    /// To the home of the room on another node.
    ToHome {
        /// The node.
        node: NodeKey,
        /// The life of the room; `None` for a join.
        run: Option<Run>,
        /// The words.
        said: SegmentSaid,
    },
    /// A join for the home of the room on this node.
    ToHere(Join),
    /// A join while no node is known as the home.
    GaveBack(Join),
    /// The members of the segment on `shard` are to join again.
    Moved {
        /// The shard.
        shard: usize,
        /// The former life of the room.
        run: Run,
    },
    /// The stream of the segment's members on `shard` is another one.
    StreamChanged {
        /// The shard.
        shard: usize,
        /// The life of the room.
        run: Run,
    },
    /// A batch passed the segment on `shard`, which has as many before it as it takes.
    Gap {
        /// The shard.
        shard: usize,
        /// The life of the room.
        run: Run,
        /// The batch.
        seq: Seq,
    },
    /// The join of a newcomer has waited too long for an answer.
    Refused(JoinKey),
}

impl JoinKey {
    fn of(join: &Join) -> Self {
        Self { shard: join.shard, connection: join.connection, join: join.join }
    }
}

impl Branch {
    /// A branch without members. `ticket`: the last ticket of all branches of the room so far, or a later one.
    #[must_use]
    pub fn new(ticket: u32) -> Self {
        Self { ticket, ..Self::default() }
    }

    /// The last ticket given to a join.
    #[must_use]
    pub fn ticket(&self) -> u32 {
        self.ticket
    }

    /// The next own word.
    pub fn poll_said(&mut self) -> Option<BranchSaid> {
        self.said.pop_front()
    }

    /// Stale and wrong words since the last call.
    pub fn take_stale(&mut self) -> u64 {
        std::mem::take(&mut self.stale)
    }

    /// True if joins wait for an answer, or for their turn.
    #[must_use]
    pub fn has_joins(&self) -> bool {
        !self.joins.is_empty() || !self.sent.is_empty()
    }

    /// The joins on their way, with the node.
    #[must_use]
    pub fn joins_sent(&self) -> Option<(NodeKey, usize)> {
        self.home.filter(|_| !self.sent.is_empty()).map(|node| (node, self.sent.len()))
    }

    /// The node to which a join waits to be sent.
    #[must_use]
    pub fn sends_to(&self) -> Option<NodeKey> {
        self.home.filter(|_| !self.in_line.is_empty() && self.pause.is_none())
    }

    /// Sends the next join in line. The caller bounds the joins on their way to a node.
    pub fn send_join(&mut self, now: Instant) {
        let Some(node) = self.sends_to() else { return };
        while let Some(key) = self.in_line.pop_front() {
            // A newcomer may have been refused meanwhile.
            let Some(waiting) = self.joins.get_mut(&key) else { continue };
            waiting.stands = JoinStands::Sent;
            self.ticket = self.ticket.wrapping_add(1);
            self.sent.insert(self.ticket, SentJoin { key, at: now });
            let join = SegmentSaid::Join(Join { join: self.ticket, ..waiting.join });
            self.said.push_back(BranchSaid::ToHome { node, run: None, said: join });
            return;
        }
    }

    /// True if nobody would miss the branch.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_empty = self.joins.is_empty() && self.segments.is_empty() && self.batches.is_empty();
        // The next home is to hear of the members that have left.
        is_empty && self.pause.is_none()
    }

    /// Members on this node.
    #[must_use]
    pub fn members(&self) -> u64 {
        self.segments.values().map(|segment| segment.census.members()).sum()
    }

    /// Shards with their members.
    #[must_use]
    pub fn by_shard(&self) -> Vec<(usize, u64)> {
        self.segments.iter().map(|(shard, segment)| (*shard, segment.census.members())).collect()
    }

    /// Takes the words of a segment. `home` is the present one.
    pub fn hear(&mut self, shard: usize, run: Option<Run>, said: SegmentSaid, home: SlotHome, now: Instant) {
        if let SegmentSaid::Join(join) = said {
            return self.take_join(join, home, now);
        }
        let segment = self.segments.get_mut(&shard);
        if let Some(segment) = segment.filter(|segment| segment.moving > 0) {
            segment.moving -= u32::from(matches!(said, SegmentSaid::Moved));
            return self.forget_if_empty(shard);
        }
        if let (SegmentSaid::Counted(_), Some(node), Some(_)) = (&said, self.home, run) {
            // The counts of a life that ended here with a link: it may go on at its home, which knows its lives.
            return self.send_or_keep(node, shard, run, said);
        }
        // Words about an earlier life of the room change nothing.
        if run.is_none() || run != self.run {
            self.stale += u64::from(!matches!(said, SegmentSaid::Moved));
            return;
        }
        match said {
            SegmentSaid::Join(_) | SegmentSaid::Moved => {}
            // Words of a branch.
            SegmentSaid::TakenThrough { .. } | SegmentSaid::Paused { .. } => self.stale += 1,
            // The answer to a home on this node that is given up by now.
            SegmentSaid::Enrolled { .. } => {}
            SegmentSaid::Left(left) => self.leave(shard, left),
            SegmentSaid::Taken { batches, cost } => {
                for _ in 0..batches {
                    let seq = self.segments.get_mut(&shard).and_then(|segment| segment.untaken.pop_front());
                    self.take(shard, seq, cost);
                }
                // One word for all that passed while the segment was stuck.
                let passed = self.segments.get_mut(&shard).and_then(|segment| segment.passed.take());
                if let (Some(seq), Some(run)) = (passed, run) {
                    self.said.push_back(BranchSaid::Gap { shard, run, seq });
                }
                self.report_taken();
                self.forget_if_empty(shard);
            }
            SegmentSaid::Refresh(want) => {
                if asks_first(&mut self.refreshes, want, shard) {
                    self.tell_home(shard, SegmentSaid::Refresh(want));
                }
            }
            SegmentSaid::Carry(want) => {
                if asks_first(&mut self.carries, want, shard) {
                    self.tell_home(shard, SegmentSaid::Carry(want));
                }
            }
            SegmentSaid::Counted(_) => {}
            SegmentSaid::Acked { .. } | SegmentSaid::AckedEarly { .. } => {
                self.tell_home(shard, said);
            }
        }
    }

    /// The slot of the room stands anew.
    pub fn follow(&mut self, home: SlotHome) {
        if self.stays_here(home) {
            return;
        }
        self.handed_from = None;
        match home {
            SlotHome::There(node) => {
                self.attach(node);
                self.line_up();
            }
            // The home may be heard again. Otherwise the end of its link is said apart.
            SlotHome::Nobody => self.give_back(),
            SlotHome::Here => {
                self.leave_home();
                let joins = std::mem::take(&mut self.joins).into_values();
                self.said.extend(joins.map(|waiting| BranchSaid::ToHere(waiting.join)));
            }
            SlotHome::Frozen => {
                self.leave_home();
                self.give_back();
            }
        }
    }

    /// This node orders the room from now on, and hears the words of segments.
    fn leave_home(&mut self) {
        self.detach(true);
        self.ask_all_again();
        self.home = None;
        self.segments.clear();
    }

    /// The link to a node begins anew, or has ended: words on their way are lost. `home` is the present one.
    pub fn reset(&mut self, node: NodeKey, home: SlotHome) {
        // The room is here as long as it is not the next home's.
        if self.home != Some(node) || self.stands_in() {
            return;
        }
        self.detach(false);
        self.ask_all_again();
        if home == SlotHome::There(node) {
            self.line_up();
        } else {
            self.give_back();
        }
    }

    /// Refuses newcomers that have waited too long, and asks again for the others.
    pub fn due(&mut self, home: SlotHome, now: Instant) {
        let is_late = |waiting: &WaitingJoin| {
            !waiting.join.moved && now.saturating_duration_since(waiting.since) >= NO_HOME_AGE_MAX
        };
        for (key, _) in self.joins.extract_if(.., |_, waiting| is_late(waiting)) {
            // A welcome that comes all the same is answered with a departure.
            self.said.push_back(BranchSaid::Refused(key));
        }
        let is_lost = |sent: &SentJoin| now.saturating_duration_since(sent.at) >= NODE_JOIN_AGE_MAX;
        for (_, SentJoin { key, .. }) in self.sent.extract_if(.., |_, sent| is_lost(sent)) {
            // The other rooms of the connection come first. An answer that comes all the same finds no join.
            if let Some(waiting) = self.joins.remove(&key) {
                self.said.push_back(BranchSaid::GaveBack(waiting.join));
            }
        }
        self.end_long_pause(now);
        if let SlotHome::There(node) = home {
            self.attach(node);
            self.line_up();
        } else {
            self.give_back();
        }
    }

    /// Takes a welcome. Returns the join as its connection knows it: the connection becomes a member.
    #[must_use]
    pub fn welcome(&mut self, node: NodeKey, run: Run, welcome: &Welcoming) -> Option<JoinKey> {
        let Welcoming { key, epoch, encoding, departure } = *welcome;
        let is_asked = self.home.is_none_or(|home| home == node);
        let answered = if is_asked { self.answered(key) } else { None };
        let Some(join) = answered else {
            // The home has counted a member that nobody is: it counts the member off again. So does a former home,
            // which may be the next one as well, in the same life of the room.
            self.stale += 1;
            let said = SegmentSaid::Left(departure);
            self.said.push_back(BranchSaid::ToHome { node, run: Some(run), said });
            return None;
        };
        self.joins.remove(&join);
        if self.run != Some(run) {
            // The home lives anew, and its last words were lost.
            self.detach(false);
            (self.run, self.epoch, self.seq) = (Some(run), epoch, Seq(0));
        } else if self.epoch != epoch {
            // A segment knows one life of the stream.
            let shards = self.shards();
            self.said.extend(shards.into_iter().map(|shard| BranchSaid::StreamChanged { shard, run }));
            self.epoch = epoch;
        }
        self.segments.entry(usize::from(join.shard)).or_default().census.add(encoding);
        Some(join)
    }

    /// Takes the refusal of a join. Returns the join as its connection knows it, unless a node that is not the
    /// home is to be asked again later.
    #[must_use]
    pub fn refused(&mut self, node: NodeKey, key: JoinKey, is_not_home: bool) -> Option<JoinKey> {
        let answered = if self.home == Some(node) { self.answered(key) } else { None };
        let Some(join) = answered else {
            self.stale += 1;
            return None;
        };
        if is_not_home {
            self.joins.entry(join).and_modify(|waiting| waiting.stands = JoinStands::Apart);
            return None;
        }
        self.joins.remove(&join);
        Some(join)
    }

    /// The join that an answer is for. `key` has the ticket as its number.
    fn answered(&mut self, key: JoinKey) -> Option<JoinKey> {
        let join = self.sent.remove(&key.join)?.key;
        // A newcomer that was refused meanwhile waits no more.
        let is_right = join.shard == key.shard && join.connection == key.connection;
        (is_right && self.joins.contains_key(&join)).then_some(join)
    }

    /// Takes a batch. Returns the shards that get it.
    #[must_use]
    pub fn level(&mut self, node: NodeKey, run: Run, seq: Seq) -> Vec<usize> {
        if !self.is_heard(node, run) {
            // The home awaits a word all the same: it sent the batch to members that are counted off again.
            let said = SegmentSaid::TakenThrough { seq, cost: None };
            self.said.push_back(BranchSaid::ToHome { node, run: Some(run), said });
            return Vec::new();
        }
        let mut shards = Vec::new();
        if seq > self.seq {
            self.seq = seq;
            for (shard, segment) in &mut self.segments {
                if segment.census.members() == 0 {
                    continue;
                }
                if segment.untaken.len() < SEGMENT_QUEUED_MAX {
                    segment.untaken.push_back(seq);
                    shards.push(*shard);
                } else {
                    // The home counts a batch as taken that was on its way for long.
                    segment.passed = Some(seq);
                }
            }
        }
        let left = shards.len();
        let pass = Duration::ZERO;
        self.batches.push_back(OnTheWay { seq, through: seq, left, pass, stretch_permille: None });
        self.report_taken();
        shards
    }

    /// A batch found the lane to a segment full.
    pub fn lapsed(&mut self, shard: usize, seq: Seq) {
        let untaken = self.segments.get_mut(&shard).map(|segment| &mut segment.untaken);
        let is_last = untaken.is_some_and(|untaken| untaken.pop_back_if(|last| *last == seq).is_some());
        self.take(shard, is_last.then_some(seq), None);
        self.report_taken();
        self.forget_if_empty(shard);
    }

    /// Takes the answer to a refresh. Returns the shards that asked.
    #[must_use]
    pub fn refreshed(&mut self, node: NodeKey, run: Run, want: &RefreshWant) -> Vec<usize> {
        if self.is_heard(node, run) { self.refreshes.remove(want).unwrap_or_default() } else { Vec::new() }
    }

    /// Takes the answer to a carry. Returns the shards that asked.
    #[must_use]
    pub fn carried(&mut self, node: NodeKey, run: Run, want: &CarryWant) -> Vec<usize> {
        if self.is_heard(node, run) { self.carries.remove(want).unwrap_or_default() } else { Vec::new() }
    }

    /// The shards for a word of the home to all segments.
    #[must_use]
    pub fn to_all(&mut self, node: NodeKey, run: Run) -> Vec<usize> {
        if self.is_heard(node, run) { self.shards() } else { Vec::new() }
    }

    /// The room is closed. Returns the shards with members.
    #[must_use]
    pub fn closed(&mut self, node: NodeKey, run: Run) -> Vec<usize> {
        let shards = self.to_all(node, run);
        if self.run == Some(run) && self.home == Some(node) {
            self.end_life();
        }
        shards
    }

    /// The home of the room is another one from now on, or this one in another life.
    pub fn home_moved(&mut self, node: NodeKey, run: Run) {
        // The next home of a room that is handed over says so too, if it does not go on with the room.
        if self.is_awaited(run) || self.is_heard(node, run) {
            self.detach(false);
        }
    }

    fn take_join(&mut self, join: Join, home: SlotHome, now: Instant) {
        let SlotHome::There(node) = home else { return self.said.push_back(BranchSaid::GaveBack(join)) };
        self.attach(node);
        let key = JoinKey::of(&join);
        self.joins.insert(key, WaitingJoin { join, since: now, stands: JoinStands::InLine });
        self.in_line.push_back(key);
    }

    /// Gives all joins back: a connection has one join on its way, and may have joins for rooms with a home.
    fn give_back(&mut self) {
        self.in_line.clear();
        let joins = std::mem::take(&mut self.joins).into_values();
        self.said.extend(joins.map(|waiting| BranchSaid::GaveBack(waiting.join)));
    }

    fn attach(&mut self, node: NodeKey) {
        if self.pause.is_some() || self.handed_from == Some(node) {
            return;
        }
        if self.home != Some(node) {
            self.detach(true);
            self.ask_all_again();
            self.home = Some(node);
        }
    }

    /// Joins on their way are lost, or were for another home.
    fn ask_all_again(&mut self) {
        self.joins.values_mut().for_each(|waiting| waiting.stands = JoinStands::Apart);
        self.in_line.clear();
        self.sent.clear();
    }

    /// Has all members join again. `says_so`: the former home counts them off at once.
    fn detach(&mut self, says_so: bool) {
        self.pause = None;
        let Some(run) = self.run else { return };
        if says_so {
            self.tell_home(NO_SHARD, SegmentSaid::Moved);
        }
        for (shard, segment) in &mut self.segments {
            if segment.census.members() > 0 || !segment.untaken.is_empty() {
                segment.moving += 1;
                self.said.push_back(BranchSaid::Moved { shard: *shard, run });
            }
        }
        self.end_life();
    }

    fn end_life(&mut self) {
        self.pause = None;
        self.handed_from = None;
        self.run = None;
        self.epoch = None;
        self.refreshes.clear();
        self.carries.clear();
        self.batches.clear();
        for segment in self.segments.values_mut() {
            segment.census = Census::default();
            segment.untaken.clear();
            segment.passed = None;
        }
        self.segments.retain(|_, segment| segment.moving > 0);
    }

    /// Has joins that stand apart wait for their turn.
    fn line_up(&mut self) {
        for (key, waiting) in &mut self.joins {
            if waiting.stands == JoinStands::Apart {
                waiting.stands = JoinStands::InLine;
                self.in_line.push_back(*key);
            }
        }
    }

    fn leave(&mut self, shard: usize, left: Departure) {
        let segment = self.segments.get_mut(&shard);
        if !segment.is_some_and(|segment| segment.census.remove(left.encoding)) {
            self.stale += 1;
            return;
        }
        self.tell_home(shard, SegmentSaid::Left(left));
        self.forget_if_empty(shard);
    }

    /// A segment took a batch; `None`: a batch that it was not sent.
    fn take(&mut self, shard: usize, seq: Option<Seq>, cost: Option<WriteCost>) {
        let batch = seq.and_then(|seq| self.batches.iter_mut().find(|batch| batch.seq == seq));
        let Some(batch) = batch else {
            self.stale += 1;
            return;
        };
        batch.left -= 1;
        let census = self.segments.get(&shard).map_or_else(Census::default, |segment| segment.census);
        if let Some(cost) = cost
            && cost.pass(census) >= batch.pass
        {
            batch.pass = cost.pass(census);
            batch.stretch_permille = Some(cost.stretch_permille);
        }
    }

    /// Tells the home of batches that all segments have taken. The cost is the slowest segment's: members of
    /// other segments are written to at the same time.
    fn report_taken(&mut self) {
        let mut through = None;
        let mut cost = None;
        let members = u32::try_from(self.members()).unwrap_or(u32::MAX).max(1);
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.left == 0) {
            through = Some(batch.through);
            let taken = |stretch_permille| WriteCost { per_member: batch.pass / members, stretch_permille };
            cost = batch.stretch_permille.map(taken).or(cost);
        }
        // Batches behind one that a stuck segment does not take would become more and more.
        for at in (1..self.batches.len()).rev() {
            if self.batches[at].left == 0 {
                // A home repeats no batch; another one may.
                self.batches[at - 1].through = self.batches[at - 1].through.max(self.batches[at].through);
                self.batches.remove(at);
            }
        }
        if let Some(seq) = through {
            self.tell_home(NO_SHARD, SegmentSaid::TakenThrough { seq, cost });
        }
    }

    fn tell_home(&mut self, shard: usize, said: SegmentSaid) {
        if let (Some(node), Some(run)) = (self.home, self.run) {
            self.send_or_keep(node, shard, Some(run), said);
        }
    }

    fn is_heard(&mut self, node: NodeKey, run: Run) -> bool {
        let is_heard = self.home == Some(node) && self.run == Some(run);
        self.stale += u64::from(!is_heard);
        is_heard
    }

    /// The shards with members.
    fn shards(&self) -> Vec<usize> {
        let held = self.segments.iter().filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(shard, _)| *shard).collect()
    }

    fn forget_if_empty(&mut self, shard: usize) {
        let is_empty = |segment: &BranchSegment| {
            segment.census.members() == 0 && segment.untaken.is_empty() && segment.moving == 0
        };
        if self.segments.get(&shard).is_some_and(is_empty) {
            self.segments.remove(&shard);
        }
    }
}

/// Notes that a shard asks. True if it is the first to ask so.
fn asks_first<K: Ord>(asked: &mut BTreeMap<K, Vec<usize>>, want: K, shard: usize) -> bool {
    let shards = asked.entry(want).or_default();
    let is_first = shards.is_empty();
    if !shards.contains(&shard) {
        shards.push(shard);
    }
    is_first
}

#[cfg(test)]
mod tests;
