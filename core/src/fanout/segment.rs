//! The segment: one room's members on one shard.
//!
//! A frame takes a member from one seq to a later seq (a carry leaves the seq). A member gets a frame exactly
//! if the member stands at the first of the two. This one rule serves level frames, refreshes, and members
//! that join or leave during a pass. A member's slot is stable: a leaver leaves a hole, and a later member
//! fills the hole.
//!
//! Pure. The shard passes frames, turns and a [`Sink`] in, and sends the segment's requests to the room's
//! home: [`Segment::take_wants`], [`Segment::take_carry_wants`], [`Segment::give_up_tallies`],
//! [`Segment::take_early_acks`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::cursors::Cursors;
pub use super::cursors::StreamPlace;
pub use super::frames::{Level, RefreshFrame, Refreshed};
pub use super::pass::{Member, PassFrames, PassTally, pass};
use super::pass::{Standing, VACANT};
pub use super::turn::{CaughtUp, TurnTally};
use super::{Offer, Sink};
use crate::limits::{
    RATE_PRESUMED, REFRESH_STATES_MAX, SEGMENT_QUEUED_MAX, SIGHT_BYTES_MAX, SMALL_FRAME_BYTES_MAX,
};
use crate::room::id::{Encoding, Epoch, RoomName, Run, Seq};
use crate::room::receipt::Acks;
use crate::room::{CarryWant, Census, Departure, EarlyAck, LatestPlace, Reach, RefreshWant, Roll};

/// A new member, with the place at the welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant {
    /// Index of the connection on this shard.
    pub connection: u32,
    /// Encoding of the member's frames.
    pub encoding: Encoding,
    /// Seq of the welcome: the member holds every batch up to this seq.
    pub seq: Seq,
    /// Place in the reliable stream.
    pub place: StreamPlace,
    /// Place among the latest values. `None`: the welcome brought all of them.
    pub latest: Option<LatestPlace>,
}

/// One room's members on one shard.
#[derive(Debug)]
pub struct Segment {
    room: RoomName,
    run: Run,
    members: Vec<Member>,
    holes: Vec<u32>,
    census: Census,
    /// Newest batch that has arrived or will never arrive.
    seq: Seq,
    queue: VecDeque<Queued>,
    sight: Sight,
    pass: Option<Pass>,
    visits: VecDeque<Visit>,
    asked: BTreeMap<RefreshWant, Vec<u32>>,
    /// Slot -> place among the latest values, for the members that lack some: a frame had no room for all.
    lacking: BTreeMap<u32, LatestPlace>,
    /// Members in line to ask, while [`REFRESH_STATES_MAX`] states are asked for.
    unasked: VecDeque<Unasked>,
    /// Requests for the home, not yet taken by the shard.
    wants: Vec<RefreshWant>,
    /// Life of the reliable stream. `None`: unknown while the store does not answer.
    epoch: Option<Epoch>,
    cursors: Cursors,
}

#[derive(Debug)]
enum Queued {
    Level(Arc<Level>),
    /// Batches up to this seq never came: a member before this seq has missed batches.
    Gap(Seq),
    /// A carry. The place in the queue counts: the frame repeats the seq of the batch before.
    Carry {
        want: CarryWant,
        seq: Seq,
        frame: Bytes,
    },
}

/// A member in line to ask for a refresh.
#[derive(Debug, Clone, Copy)]
struct Unasked {
    slot: u32,
    /// Last seq of the member.
    since: Seq,
    speed: Speed,
}

/// Speed of a member's device, as far as frames go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// Frames of any size are in time.
    Fast,
    /// The device is slow, or nothing is known of it.
    Unproven,
}

impl Speed {
    /// Speed of the connection's device.
    fn of<S: Sink>(connection: u32, sink: &S) -> Self {
        if sink.is_fast(connection) { Self::Fast } else { Self::Unproven }
    }

    /// Standing of a member that has everything.
    fn standing(self) -> Standing {
        match self {
            Self::Fast => Standing::Level,
            Self::Unproven => Standing::Small,
        }
    }

    /// Standing of a member that has everything since a frame of any size.
    fn standing_unseen(self) -> Standing {
        match self {
            Self::Fast => Standing::Level,
            Self::Unproven => Standing::Unseen,
        }
    }
}

/// Bytes of small frames that stand before a link of 64 kbit/s, as far as they were offered without asking for the
/// room of the device. Without asking, a link takes more than it carries as long as the kernel refuses nothing.
#[derive(Debug, Default)]
struct Sight {
    unseen_bytes: usize,
    /// Bytes at which the next pass asks; 0 stands for the least.
    bytes_max: usize,
    at: Option<Instant>,
}

impl Sight {
    /// True if a pass with so many bytes is to ask for the room of every device that is not fast.
    fn is_due(&mut self, bytes: usize, now: Instant) -> bool {
        let passed = self.at.replace(now).map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let carried = u128::from(RATE_PRESUMED) * passed / 1000;
        let left = self.unseen_bytes.saturating_sub(usize::try_from(carried).unwrap_or(usize::MAX));
        // Slow devices are found at the begin of a flood. After that asking would cost the others too much.
        let bytes_max =
            if left == 0 { SMALL_FRAME_BYTES_MAX } else { self.bytes_max.max(SMALL_FRAME_BYTES_MAX) };
        let is_due = left + bytes > bytes_max;
        self.unseen_bytes = if is_due { bytes } else { left + bytes };
        self.bytes_max = if is_due { SIGHT_BYTES_MAX.min(2 * bytes_max) } else { bytes_max };
        is_due
    }
}

/// A pass under way.
#[derive(Debug)]
struct Pass {
    frames: PassFrames,
    /// Next slot to visit.
    next: usize,
    /// Slot behind the last slot to visit: members that join during the pass stand past these frames.
    end: usize,
    /// Acceptance of the oldest message of each batch.
    oldest: Vec<Instant>,
}

/// A frame on the way to a few members.
#[derive(Debug)]
struct Visit {
    slots: Vec<u32>,
    next: usize,
    frame: Bytes,
    brings: Brings,
    /// Pieces of history to follow a refresh.
    history: Arc<[Bytes]>,
}

/// Content of a visit's frame.
#[derive(Debug, Clone, Copy)]
enum Brings {
    /// The refresh for members that asked `want` takes these members to `to`.
    Refresh { want: RefreshWant, to: Refreshed },
    /// The carry for `want` serves members that stand at `seq`.
    Carry { want: CarryWant, seq: Seq },
}

impl Segment {
    /// A segment without members, at the room's present `seq`.
    pub fn new(room: RoomName, run: Run, seq: Seq, epoch: Option<Epoch>) -> Self {
        Self {
            cursors: Cursors::new(&room),
            room,
            run,
            members: Vec::new(),
            holes: Vec::new(),
            census: Census::default(),
            seq,
            queue: VecDeque::new(),
            sight: Sight::default(),
            pass: None,
            visits: VecDeque::new(),
            asked: BTreeMap::new(),
            lacking: BTreeMap::new(),
            unasked: VecDeque::new(),
            wants: Vec::new(),
            epoch,
        }
    }

    /// Name of the room.
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// Life of the room.
    pub fn run(&self) -> Run {
        self.run
    }

    /// Number of members by encoding.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Connections of the members, in order of slot.
    pub fn connections(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter(|member| member.last_seq != VACANT).map(|member| member.connection)
    }

    /// Life of the reliable stream. `None`: unknown while the store does not answer.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Adds a member. Returns the slot, stable until the member leaves.
    pub fn join(&mut self, entrant: Entrant, now: Instant) -> u32 {
        let Entrant { connection, encoding, seq, place, latest } = entrant;
        // Nothing is known of the device yet.
        let has_all = place.sent >= place.head && latest.is_none();
        let standing = if has_all { Standing::Unseen } else { Standing::Missed };
        let member = Member { last_seq: seq, sent: place.sent, connection, encoding, standing };
        // The first member of an empty segment: earlier batches and messages concern no member here.
        if self.census.members() == 0 {
            self.seq = self.seq.max(seq);
            self.cursors.begin(place.head);
        }
        self.census.add(encoding);
        let slot = if let Some(hole) = self.holes.pop() {
            self.members[hole as usize] = member;
            hole
        } else {
            self.members.push(member);
            u32::try_from(self.members.len() - 1).expect("a segment has fewer than 2^32 slots")
        };
        self.lacking.extend(latest.map(|place| (slot, place)));
        self.cursors.join(slot, place, &self.members, now);
        slot
    }

    /// Removes the member of a slot. The slot becomes a hole.
    ///
    /// # Panics
    /// The slot is a hole.
    pub fn leave(&mut self, slot: u32) -> Departure {
        let member = &mut self.members[slot as usize];
        assert_ne!(member.last_seq, VACANT, "a member leaves once");
        member.last_seq = VACANT;
        let encoding = member.encoding;
        self.holes.push(slot);
        let was_member = self.census.remove(encoding);
        assert!(was_member, "the census counts each member");
        let acked = self.cursors.leave(slot);
        self.lacking.remove(&slot);
        Departure {
            encoding,
            epoch: self.epoch,
            acked: acked.through,
            counts_from: acked.counts_from,
            device: acked.device,
        }
    }

    /// The members, as their departures would tell. `None`: there are too many different ones.
    #[must_use]
    pub fn roll(&self) -> Option<Box<Roll>> {
        let mut roll = Box::<Roll>::default();
        for (member, acked) in self.members.iter().zip(&self.cursors.acked) {
            let left = Departure {
                encoding: member.encoding,
                epoch: self.epoch,
                acked: acked.through,
                counts_from: acked.counts_from,
                device: acked.device,
            };
            if member.last_seq != VACANT && !roll.add(&left) {
                return None;
            }
        }
        Some(roll)
    }

    /// The last seq of a member, and the last offset that the member has acknowledged or was welcomed with.
    #[must_use]
    pub fn stands(&self, slot: u32) -> (Seq, u64) {
        (self.members[slot as usize].last_seq, self.cursors.acked[slot as usize].through)
    }

    /// Takes an acknowledgement of everything up to `offset`. False for an impossible offset: never sent, or
    /// below an earlier acknowledgement.
    pub fn acknowledge(&mut self, slot: u32, offset: u64, now: Instant) -> bool {
        self.cursors.acknowledge(slot, offset, self.members[slot as usize].sent, now)
    }

    /// Acknowledgements of a message on this segment. `None`: the segment has no tally of the message.
    pub fn acks(&self, offset: u64) -> Option<&Acks> {
        self.cursors.acks(offset)
    }

    /// Named devices of members with an acknowledgement at or past `offset`. Cost: one walk over the members.
    #[must_use]
    pub fn devices_with(&self, offset: u64) -> Vec<u64> {
        self.cursors.devices_with(offset, &self.members)
    }

    /// Takes offset and tally of messages for the home to keep: tallies without a place here, and all tallies
    /// of a segment without members.
    pub fn give_up_tallies(&mut self) -> Vec<(u64, Acks)> {
        if self.census.members() == 0 {
            self.cursors.give_up_all();
        }
        std::mem::take(&mut self.cursors.given_up)
    }

    /// Takes acknowledgements for the home to count, noted since the last call: messages without a tally
    /// here.
    pub fn take_early_acks(&mut self) -> Vec<EarlyAck> {
        std::mem::take(&mut self.cursors.early)
    }

    /// Queues a batch for the next pass. `false`: every member holds the batch already, and the batch is
    /// dropped.
    #[must_use]
    pub fn arrive(&mut self, level: Arc<Level>) -> bool {
        if level.seq <= self.seq {
            return false;
        }
        self.seq = level.seq;
        self.queue.push_back(Queued::Level(level));
        debug_assert!(self.queued_batches() <= SEGMENT_QUEUED_MAX, "the home stops cutting before");
        true
    }

    /// Notes that batches up to `seq` exist and that the missing ones will not come: a frame lane was full.
    pub fn gap(&mut self, seq: Seq) {
        if seq > self.seq {
            self.seq = seq;
            self.queue.push_back(Queued::Gap(seq));
        }
    }

    /// Takes the home's answer to `want`. Returns the connections to close.
    ///
    /// `None` as answer: the members missed more than the room's account reaches back
    /// ([`ACCOUNT_SEQS_MAX`](crate::limits::ACCOUNT_SEQS_MAX)), and come back afresh.
    #[must_use]
    pub fn refreshed(&mut self, want: RefreshWant, refresh: Option<RefreshFrame>) -> Vec<u32> {
        // `seq` stays: members that did not ask still need the batches in between.
        let slots = self.asked.remove(&want).unwrap_or_default();
        // A state is free: the next in line ask. A member that left meanwhile is passed over.
        while self.asked.len() < REFRESH_STATES_MAX {
            let Some(Unasked { slot, since, speed }) = self.unasked.pop_front() else { break };
            if self.asker(slot, since).is_some() {
                self.ask(slot, speed);
            }
        }
        let Some(RefreshFrame { frame, to, history }) = refresh else {
            return slots.iter().filter_map(|slot| Some(self.asker(*slot, want.since)?.connection)).collect();
        };
        self.visits.push_back(Visit { slots, next: 0, frame, brings: Brings::Refresh { want, to }, history });
        Vec::new()
    }

    /// Takes the home's answer to a carry request. `None` as frame: no message of the carry is alive.
    /// `floor`: no message up to this offset is alive.
    pub fn carried(&mut self, want: CarryWant, seq: Seq, frame: Option<Bytes>, floor: u64) {
        self.cursors.schedule.forget_through(floor);
        match frame {
            Some(frame) => self.queue.push_back(Queued::Carry { want, seq, frame }),
            None => self.cursors.nothing_alive(want),
        }
    }

    /// Notes that a member's connection owes nothing any more. A member that missed a batch asks for a
    /// refresh now.
    pub fn drained(&mut self, slot: u32, speed: Speed) {
        let member = &mut self.members[slot as usize];
        match member.standing {
            Standing::Missed => self.ask(slot, speed),
            Standing::Asked => {}
            // The drain has measured the device.
            Standing::Level | Standing::Small | Standing::Unseen => member.standing = speed.standing(),
        }
    }

    /// True if a member has every batch so far: no refresh is asked for, or will be once the member's
    /// connection owes nothing.
    #[must_use]
    pub fn is_level(&self, slot: u32) -> bool {
        self.members[slot as usize].standing.has_every_batch()
    }

    /// Takes the refresh requests for the home, noted since the last call.
    pub fn take_wants(&mut self) -> Vec<RefreshWant> {
        std::mem::take(&mut self.wants)
    }

    /// Drops the pass, the queue and the visits. Returns the number of frames that members do not get.
    pub fn give_up(&mut self) -> u64 {
        let unvisited =
            self.pass.take().map_or(0, |pass| (pass.end - pass.next) as u64 * pass.frames.batches());
        let queued = self.queued_batches() as u64 * self.census.members();
        self.queue.clear();
        self.visits.clear();
        self.cursors.give_up_carrying();
        unvisited + queued
    }

    /// True if a turn has work.
    pub fn is_busy(&self) -> bool {
        self.pass.is_some() || !self.visits.is_empty() || !self.queue.is_empty()
    }

    /// True if a member waits for a refresh about missed batches.
    pub fn awaits_refresh(&self) -> bool {
        self.asked.keys().any(|want| want.since < self.seq || want.latest.is_some())
    }

    /// True while a pass is under way.
    pub fn is_passing(&self) -> bool {
        self.pass.is_some()
    }

    /// Batches in the queue for the next pass, at most [`SEGMENT_QUEUED_MAX`].
    pub fn queued_batches(&self) -> usize {
        self.queue.iter().filter(|queued| matches!(queued, Queued::Level(_))).count()
    }

    /// Visits up to `members_max` members: the members of a refresh or a carry, else the next members of the
    /// pass.
    ///
    /// Visits go before passes, so a refreshed member stands at the seq before the next batch.
    pub fn turn<S: Sink>(&mut self, members_max: usize, sink: &mut S, now: Instant) -> TurnTally {
        let mut tally = TurnTally::default();
        if !self.visits.is_empty() {
            self.visit(members_max, sink, now, &mut tally);
            return tally;
        }
        if self.pass.is_none() {
            tally.taken = self.begin_pass(now);
        }
        let Some(mut pass) = self.pass.take() else { return tally };
        let end = pass.end.min(pass.next + members_max);
        self.pass_over(pass.next..end, &pass.frames, sink, now, &mut tally);
        tally.visited = end - pass.next;
        pass.next = end;
        if pass.next < pass.end {
            self.pass = Some(pass);
        } else {
            tally.written = pass.oldest;
        }
        tally
    }

    /// Moves consecutive batches from the queue into a new pass, or a carry into a visit. Returns the number
    /// of batches.
    fn begin_pass(&mut self, now: Instant) -> usize {
        let mut frames = PassFrames::default();
        let mut oldest = Vec::new();
        match self.queue.pop_front() {
            None => return 0,
            // A pass without frames: the walk notes the members before the gap.
            Some(Queued::Gap(seq)) => (frames.from, frames.to) = (seq, seq),
            Some(Queued::Carry { want, seq, frame }) => {
                let slots = self.cursors.take_carrying(want);
                let brings = Brings::Carry { want, seq };
                self.visits.push_back(Visit { slots, next: 0, frame, brings, history: Arc::default() });
                return 0;
            }
            Some(Queued::Level(first)) => {
                (frames.from, frames.reach) = (Seq(first.seq.0 - 1), first.reach);
                self.begin_batch(&first, &mut frames, now);
                oldest.push(first.oldest);
            }
        }
        while let Some(Queued::Level(next)) = self.queue.front().filter(|_| frames.batches() > 0) {
            // A gap lies between: the next pass begins behind the gap.
            if next.seq != frames.to.next() {
                break;
            }
            let next = Arc::clone(next);
            self.begin_batch(&next, &mut frames, now);
            oldest.push(next.oldest);
            self.queue.pop_front();
        }
        if self.sight.is_due(frames.bytes, now) {
            frames.widest = Standing::Level;
        }
        let taken = oldest.len();
        self.pass = Some(Pass { frames, next: 0, end: self.members.len(), oldest });
        taken
    }

    /// Adds a batch to a beginning pass. Acknowledgements of reliable messages are expected from now on.
    fn begin_batch(&mut self, level: &Level, frames: &mut PassFrames, now: Instant) {
        frames.push(level);
        let Reach { after, through } = level.reach;
        if after < through {
            self.cursors.advance(through, &self.members, now);
            self.cursors.expect(through, level.ack_within, now);
        }
    }

    /// Moment of the next call of [`Self::look`]. `None`: every member has acknowledged everything.
    pub fn poll_look(&self) -> Option<Instant> {
        self.cursors.look_at
    }

    /// Looks for members with an overdue acknowledgement, and notes the carries to ask of the home. Cost: one
    /// walk over the members.
    pub fn look<S: Sink>(&mut self, sink: &S, now: Instant) {
        self.cursors.look(&self.members, self.census.members(), sink, now);
        // The rest of the pass brings messages to members that lack nothing yet.
        if self.pass.is_some() {
            self.cursors.look_again(self.census.members(), now);
        }
    }

    /// Members without an acknowledgement that was due, at the last look or since.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        self.cursors.overdue
    }

    /// Takes the carry requests for the home, noted since the last call.
    pub fn take_carry_wants(&mut self) -> Vec<CarryWant> {
        std::mem::take(&mut self.cursors.wants)
    }

    fn pass_over<S: Sink>(
        &mut self,
        slots: std::ops::Range<usize>,
        frames: &PassFrames,
        sink: &mut S,
        now: Instant,
        turn: &mut TurnTally,
    ) {
        let first = u32::try_from(slots.start).expect("a segment has fewer than 2^32 slots");
        let mut tally = PassTally::default();
        let members = slots.len();
        if frames.batches() == 0 {
            tally.aside = members;
            for (slot, member) in self.members[slots].iter().enumerate() {
                tally.set_aside_before(slot, member, frames.to);
            }
        } else {
            pass(&mut self.members[slots], frames, sink, &mut tally, now);
            turn.messages_skipped += tally.messages_skipped(frames);
        }
        turn.level += tally.level;
        turn.queued += tally.queued;
        turn.skipped += tally.skipped;
        turn.offered += members - tally.aside + tally.late.len() + tally.small.len();
        // A refused member asks when the outbox is empty: `drained` tells.
        for slot in tally.refused {
            self.members[(first + slot) as usize].standing = Standing::Missed;
        }
        for slot in tally.missed {
            turn.skipped += frames.to.0 - self.members[(first + slot) as usize].last_seq.0;
            self.miss(first + slot, sink);
        }
        // Late: after the first of the batches. Small: all of the batches, as far as the device's rate allows.
        for slot in tally.late.into_iter().chain(tally.small) {
            self.offer_apart(first + slot, frames, sink, now, turn);
        }
    }

    /// Offers a member the batches of a pass after the member's seq: as many as the rate of the device allows.
    fn offer_apart<S: Sink>(
        &mut self,
        slot: u32,
        frames: &PassFrames,
        sink: &mut S,
        now: Instant,
        turn: &mut TurnTally,
    ) {
        let member = &mut self.members[slot as usize];
        let first = usize::try_from(member.last_seq.0 - frames.from.0).expect("a pass has few batches");
        let all = &frames.frames[member.encoding as usize][first..];
        let is_large = member.standing > frames.widest;
        let room = if is_large { sink.room_for(member.connection, now) } else { usize::MAX };
        // The kernel knew more than the shard: the next pass has the member in its loop.
        if is_large {
            member.standing = Speed::of(member.connection, sink).standing();
        }
        let offered = &all[..fitting(all, room)];
        let taken = match offered {
            [] => 0,
            _ => match sink.offer(member.connection, offered, now) {
                Offer::Written => offered.len(),
                Offer::Queued => {
                    turn.queued += offered.len() as u64;
                    offered.len()
                }
                Offer::Refused { taken } => taken,
            },
        };
        frames.taken_by(member, first + taken);
        turn.level += taken as u64;
        turn.messages_skipped += frames.skipped[first..first + taken].iter().sum::<u64>();
        turn.skipped += (all.len() - taken) as u64;
        if taken < all.len() {
            self.miss(slot, sink);
        }
    }

    fn visit<S: Sink>(&mut self, members_max: usize, sink: &mut S, now: Instant, turn: &mut TurnTally) {
        let Some(mut visit) = self.visits.pop_front() else { return };
        let end = visit.slots.len().min(visit.next + members_max);
        let mut brought = None;
        for slot in &visit.slots[visit.next..end] {
            match visit.brings {
                Brings::Refresh { want, to } => {
                    // The slot may have another member by now.
                    let latest = self.lacking.get(slot).copied();
                    let is_for = |member: &&mut Member| {
                        member.sent == want.sent && member.encoding == want.encoding && latest == want.latest
                    };
                    let Some(member) = self.asker(*slot, want.since).filter(is_for) else { continue };
                    let connection = member.connection;
                    // A refresh goes out whatever the room, and the next may be asked for at once: the asking
                    // bounds what stands in the kernel.
                    if !sink.is_fast(connection) {
                        sink.room_for(connection, now);
                    }
                    // Refused: the member asks again when the outbox is empty.
                    if !turn.offer(connection, &visit.frame, sink, now) {
                        member.standing = Standing::Missed;
                        continue;
                    }
                    if self.take_refresh(*slot, to, sink, now, turn) {
                        brought = Some(to);
                    }
                    if to.is_all() {
                        let history = Arc::clone(&visit.history);
                        turn.caught_up.push(CaughtUp { connection, history });
                    }
                }
                Brings::Carry { want, seq } => {
                    let member = &self.members[*slot as usize];
                    // A member past this place, or with another acknowledgement, needs another carry.
                    let is_for_it = member.last_seq == seq
                        && member.encoding == want.encoding
                        && member.standing.has_every_batch()
                        && self.cursors.acked[*slot as usize].through == want.reach.after;
                    // Refused or taken: the next attempt comes after the next delay.
                    if is_for_it && turn.offer(member.connection, &visit.frame, sink, now) {
                        turn.carried += 1;
                        turn.carried_to.push(member.connection);
                    }
                }
            }
        }
        if let Some(to) = brought {
            self.cursors.advance(to.sent, &self.members, now);
            self.cursors.expect(to.sent, to.ack_within, now);
        }
        turn.visited = end - visit.next;
        visit.next = end;
        // Back to the front: the rest of this visit goes before the next frame.
        if visit.next < visit.slots.len() {
            self.visits.push_front(visit);
        }
    }

    /// Moves a member behind a taken refresh. True if the refresh had reliable messages.
    fn take_refresh<S: Sink>(
        &mut self,
        slot: u32,
        to: Refreshed,
        sink: &mut S,
        now: Instant,
        turn: &mut TurnTally,
    ) -> bool {
        let member = &mut self.members[slot as usize];
        let has_reliable = to.sent > member.sent;
        if !to.is_all() && !sink.is_fast(member.connection) {
            // The kernel may know by now that the device is fast: the next frame is larger then.
            sink.room_for(member.connection, now);
        }
        let standing = Speed::of(member.connection, sink).standing_unseen();
        (member.last_seq, member.sent, member.standing) = (to.seq, to.sent, standing);
        turn.refreshed += 1;
        turn.messages_skipped += to.skipped;
        if has_reliable {
            self.cursors.brought(slot, now);
        }
        self.lacking.remove(&slot);
        self.lacking.extend(to.latest.map(|place| (slot, place)));
        // More is to come than one frame holds: the member asks again, at once or with the next drain.
        if !to.is_all() {
            turn.catching_up += 1;
            self.miss(slot, sink);
        }
        has_reliable
    }

    /// Member of a slot, if the member asked for a refresh at `since` and still waits.
    fn asker(&mut self, slot: u32, since: Seq) -> Option<&mut Member> {
        let member = self.members.get_mut(slot as usize)?;
        (member.last_seq == since && member.standing == Standing::Asked).then_some(member)
    }

    /// Marks a member that missed batches without a refusal: the batches never came, or one frame did not
    /// hold all.
    fn miss<S: Sink>(&mut self, slot: u32, sink: &S) {
        let member = &mut self.members[slot as usize];
        member.standing = Standing::Missed;
        let connection = member.connection;
        // An empty outbox never drains, so no call of `drained` would come.
        if !sink.is_waiting(connection) {
            self.ask(slot, Speed::of(connection, sink));
        }
    }

    fn ask(&mut self, slot: u32, speed: Speed) {
        let member = &mut self.members[slot as usize];
        member.standing = Standing::Asked;
        let small = speed == Speed::Unproven;
        let want = RefreshWant {
            encoding: member.encoding,
            since: member.last_seq,
            sent: member.sent,
            small,
            latest: self.lacking.get(&slot).copied(),
        };
        // Members of one state share one refresh: a state in `asked` costs no further request.
        if let Some(slots) = self.asked.get_mut(&want) {
            slots.push(slot);
        } else if self.asked.len() < REFRESH_STATES_MAX {
            self.asked.insert(want, vec![slot]);
            self.wants.push(want);
        } else {
            self.unasked.push_back(Unasked { slot, since: want.since, speed });
        }
    }

    /// Asserts the invariants after a mutation; for the simulated world.
    ///
    /// # Panics
    /// An invariant is broken.
    pub fn check_invariants(&self) {
        let living = self.members.iter().filter(|member| member.last_seq != VACANT).count();
        assert_eq!(living as u64, self.census.members(), "the census counts members");
        assert_eq!(living + self.holes.len(), self.members.len(), "a slot is a member or a hole");
        let catches_up = |slot: &u32| self.members[*slot as usize].standing > Standing::Small;
        assert!(self.lacking.keys().all(catches_up), "a level member has all latest values");
        assert!(self.queued_batches() <= SEGMENT_QUEUED_MAX, "the queue keeps its bound");
        assert!(self.asked.len() <= REFRESH_STATES_MAX, "the states asked for keep their bound");
        self.cursors.check_invariants(&self.members);
    }
}

/// Number of the first frames that fit `room` together.
fn fitting(frames: &[Bytes], room: usize) -> usize {
    let mut left = room;
    let fits = |frame: &&Bytes| {
        let fits = frame.len() <= left;
        left = left.saturating_sub(frame.len());
        fits
    };
    frames.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::STREAM_MESSAGES_MAX;
    use crate::now::Now;

    /// A sink that notes the frames of each connection, and refuses frames for the `full` connections.
    #[derive(Default)]
    struct Notes {
        taken: BTreeMap<u32, Vec<Bytes>>,
        full: Vec<u32>,
        /// Connection -> room for frames; the others are fast.
        slow: BTreeMap<u32, usize>,
    }

    impl Sink for Notes {
        fn offer(&mut self, connection: u32, frames: &[Bytes], _now: Instant) -> Offer {
            if self.full.contains(&connection) {
                return Offer::Refused { taken: 0 };
            }
            self.taken.entry(connection).or_default().extend_from_slice(frames);
            Offer::Written
        }

        fn is_waiting(&self, connection: u32) -> bool {
            self.full.contains(&connection)
        }

        fn is_fast(&self, connection: u32) -> bool {
            !self.slow.contains_key(&connection)
        }

        fn room_for(&mut self, connection: u32, _now: Instant) -> usize {
            self.slow.get(&connection).copied().unwrap_or(usize::MAX)
        }
    }

    fn room() -> RoomName {
        RoomName::parse("r1").unwrap()
    }

    fn level(seq: u64, now: Instant) -> Arc<Level> {
        let frame = Bytes::from(seq.to_string());
        Arc::new(Level {
            seq: Seq(seq),
            frames: [frame.clone(), frame],
            reach: Reach::default(),
            ack_within: Duration::ZERO,
            oldest: now,
            skipped: 0,
        })
    }

    fn segment(members: u32) -> Segment {
        let mut segment = Segment::new(room(), Run(1), Seq(0), None);
        for connection in 0..members {
            segment.join(entrant(connection, 0), Now::made_up().instant);
        }
        segment
    }

    fn entrant(connection: u32, seq: u64) -> Entrant {
        let place = StreamPlace::default();
        Entrant { connection, encoding: Encoding::Json, seq: Seq(seq), place, latest: None }
    }

    fn run(segment: &mut Segment, notes: &mut Notes, now: Instant) -> TurnTally {
        let mut last = TurnTally::default();
        while segment.is_busy() {
            last = segment.turn(1, notes, now);
            segment.check_invariants();
        }
        last
    }

    /// Takes everything, but from connection 1 only the first frame of each write.
    struct OneFrameForOne;

    impl Sink for OneFrameForOne {
        fn offer(&mut self, connection: u32, _frames: &[Bytes], _now: Instant) -> Offer {
            if connection == 1 { Offer::Refused { taken: 1 } } else { Offer::Written }
        }

        fn is_waiting(&self, connection: u32) -> bool {
            connection == 1
        }

        fn is_fast(&self, _connection: u32) -> bool {
            true
        }

        fn room_for(&mut self, _connection: u32, _now: Instant) -> usize {
            usize::MAX
        }
    }

    #[test]
    fn what_a_batch_leaves_out_is_counted_for_each_member_that_takes_its_frame() {
        let mut segment = segment(2);
        let now = Now::made_up().instant;
        segment.join(entrant(2, 1), now);
        for (seq, skipped) in [(1, 3), (2, 5)] {
            let level = Arc::into_inner(level(seq, now)).unwrap();
            assert!(segment.arrive(Arc::new(Level { skipped, ..level })));
        }
        let turn = segment.turn(128, &mut OneFrameForOne, now);
        assert_eq!(turn.messages_skipped, (3 + 5) + 3 + 5, "all of it, the first batch, the second");
    }

    #[test]
    fn a_flood_of_small_frames_is_looked_at_and_a_trickle_is_not() {
        let now = Now::made_up().instant;
        let after = |ms| now + Duration::from_millis(ms);
        let mut sight = Sight::default();
        assert!((0..100).all(|n| !sight.is_due(700, after(n * 100))), "7 KB/s pass the slowest link");
        let mut sight = Sight::default();
        let looks: Vec<u64> = (0..100).filter(|n| sight.is_due(4_000, after(n * 10))).collect();
        assert_eq!(looks[..3], [2, 6, 14], "once 8, 16, 32 KB stand there: {looks:?}");
        assert!(sight.is_due(8_001, after(60_000)), "after a pause the least counts");
    }

    #[test]
    fn batches_that_wait_leave_in_one_write_per_member() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(level(1, now));
        let _ = segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).taken, 2);
        assert_eq!(notes.taken[&0], ["1", "2"]);
        assert_eq!(notes.taken[&1], ["1", "2"]);
    }

    #[test]
    fn who_joins_during_a_pass_gets_nothing_twice_and_who_leaves_gets_nothing_more() {
        let mut segment = segment(3);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(level(1, now));
        segment.turn(1, &mut notes, now);
        segment.leave(1);
        assert_eq!(segment.join(entrant(9, 1), now), 1, "the hole is used again");
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken.keys().copied().collect::<Vec<_>>(), [0, 2]);
        let _ = segment.arrive(level(2, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&9], ["2"]);
        assert_eq!(notes.taken[&0], ["1", "2"]);
    }

    #[test]
    fn who_refuses_a_batch_asks_when_it_has_drained_and_is_refreshed_before_the_next() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        notes.full.push(0);
        let _ = segment.arrive(level(1, now));
        run(&mut segment, &mut notes, now);
        assert!(segment.take_wants().is_empty(), "not before it has drained");
        let _ = segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).skipped, 1);
        notes.full.clear();
        segment.drained(0, Speed::Fast);
        let want =
            RefreshWant { encoding: Encoding::Json, since: Seq(0), sent: 0, small: false, latest: None };
        assert_eq!(segment.take_wants(), [want]);
        let to =
            Refreshed { seq: Seq(2), sent: 0, head: 0, latest: None, ack_within: Duration::ZERO, skipped: 2 };
        let frame = RefreshFrame { frame: Bytes::from_static(b"refresh to 2"), to, history: Arc::default() };
        assert!(segment.refreshed(want, Some(frame)).is_empty());
        let _ = segment.arrive(level(3, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&0], ["refresh to 2", "3"]);
    }

    fn large(seq: u64, bytes: usize, now: Instant) -> Arc<Level> {
        let frame = Bytes::from(vec![b'x'; bytes]);
        let level = Arc::into_inner(level(seq, now)).unwrap();
        Arc::new(Level { frames: [frame.clone(), frame], ..level })
    }

    #[test]
    fn a_large_frame_is_for_who_takes_it_in_time() {
        let mut segment = segment(3);
        let now = Now::made_up().instant;
        let mut notes = Notes { slow: BTreeMap::from([(1, 8_000), (2, 16_000)]), ..Notes::default() };
        let _ = segment.arrive(large(1, 8_000, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(
            notes.taken.values().map(Vec::len).collect::<Vec<_>>(),
            [1, 1, 1],
            "small ones are for all"
        );
        let _ = segment.arrive(large(2, 8_001, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken.values().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
        let want =
            RefreshWant { encoding: Encoding::Json, since: Seq(1), sent: 0, small: true, latest: None };
        assert_eq!(segment.take_wants(), [want], "at once: nothing is owed to it");
        assert!(!segment.is_level(1) && segment.is_level(2));
        // Two frames of one pass count together.
        let _ = segment.arrive(large(3, 9_000, now));
        let _ = segment.arrive(large(4, 9_000, now));
        let mut turns = vec![segment.turn(128, &mut notes, now)];
        turns.extend(segment.is_busy().then(|| segment.turn(128, &mut notes, now)));
        assert_eq!(notes.taken.values().map(Vec::len).collect::<Vec<_>>(), [4, 1, 3]);
        let skipped: u64 = turns.iter().map(|turn| turn.skipped).sum();
        assert_eq!(skipped, 1 + 2, "the second for one, both for the one that waits for its refresh");
    }

    #[test]
    fn who_is_found_fast_is_level_from_then_on_and_who_is_found_slow_is_not() {
        let mut segment = segment(1);
        let now = Now::made_up().instant;
        let mut notes = Notes::default();
        let _ = segment.arrive(large(1, 20_000, now));
        assert_eq!(segment.turn(128, &mut notes, now).level, 1);
        segment.drained(0, Speed::Unproven);
        notes.slow.insert(0, 8_000);
        let _ = segment.arrive(large(2, 20_000, now));
        assert_eq!(segment.turn(128, &mut notes, now).skipped, 1);
        let [want] = segment.take_wants()[..] else { panic!("it asks at once") };
        let history: Arc<[Bytes]> = Arc::from([Bytes::from_static(b"piece")]);
        let refresh = refresh(2, 0, 0).map(|refresh| RefreshFrame { history, ..refresh });
        assert!(segment.refreshed(want, refresh).is_empty());
        let [caught_up] = &segment.turn(128, &mut notes, now).caught_up[..] else { panic!("one member") };
        assert_eq!((caught_up.connection, &*caught_up.history), (0, &[Bytes::from_static(b"piece")][..]));
        notes.slow.clear();
        let _ = segment.arrive(large(3, 20_000, now));
        assert_eq!(segment.turn(128, &mut notes, now).level, 1);
    }

    #[test]
    fn batches_that_never_came_make_everybody_ask_once() {
        let mut segment = segment(3);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        segment.gap(Seq(4));
        run(&mut segment, &mut notes, now);
        assert_eq!(segment.take_wants().len(), 1, "they all stand at the same seq");
        segment.gap(Seq(4));
        assert!(!segment.is_busy(), "it is known already");
    }

    fn reliable(seq: u64, after: u64, through: u64, now: Instant) -> Arc<Level> {
        let frame = Bytes::from(format!("{seq}: ({after}, {through}]"));
        Arc::new(Level {
            seq: Seq(seq),
            frames: [frame.clone(), frame],
            reach: Reach { after, through },
            ack_within: Duration::from_millis(200),
            oldest: now,
            skipped: 0,
        })
    }

    fn placed(connection: u32, seq: u64, sent: u64, head: u64) -> Entrant {
        let place = StreamPlace { sent, head, ..StreamPlace::default() };
        Entrant { place, ..entrant(connection, seq) }
    }

    fn refresh(seq: u64, sent: u64, head: u64) -> Option<RefreshFrame> {
        let ack_within = Duration::from_millis(200);
        let to = Refreshed { seq: Seq(seq), sent, head, latest: None, ack_within, skipped: 0 };
        Some(RefreshFrame { frame: Bytes::from(format!("refresh to {sent}")), to, history: Arc::default() })
    }

    #[test]
    fn a_member_that_is_catching_up_is_fed_by_refreshes_alone_until_it_is_level() {
        let mut segment = segment(0);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let slot = segment.join(placed(1, 3, 0, 100), now);
        segment.drained(slot, Speed::Fast);
        let first = segment.take_wants();
        let _ = segment.arrive(reliable(4, 100, 100, now));
        run(&mut segment, &mut notes, now);
        assert!(notes.taken.is_empty(), "a level frame would have it stand past what it lacks");
        assert!(segment.refreshed(first[0], refresh(4, 64, 100)).is_empty());
        run(&mut segment, &mut notes, now);
        let next = segment.take_wants();
        assert_eq!((next[0].since, next[0].sent), (Seq(4), 64), "it asks again at once");
        assert!(segment.refreshed(next[0], refresh(4, 100, 100)).is_empty());
        let _ = segment.arrive(reliable(5, 100, 101, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&1], ["refresh to 64", "refresh to 100", "5: (100, 101]"]);
    }

    #[test]
    fn a_member_that_lacks_latest_values_asks_for_them_and_hears_no_batch_before() {
        let mut segment = segment(0);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let places = [1, 2].map(|known| LatestPlace::begin(Seq(known), Seq(3)));
        let entrant = Entrant { latest: Some(places[0]), ..entrant(1, 3) };
        let slot = segment.join(entrant, now);
        segment.drained(slot, Speed::Fast);
        let [first] = segment.take_wants()[..] else { panic!("it asks at once") };
        assert_eq!(first.latest, Some(places[0]));
        let _ = segment.arrive(level(4, now));
        run(&mut segment, &mut notes, now);
        let with_rest = |latest| {
            refresh(4, 0, 0).map(|frame| RefreshFrame { to: Refreshed { latest, ..frame.to }, ..frame })
        };
        assert!(segment.refreshed(first, with_rest(Some(places[1]))).is_empty());
        run(&mut segment, &mut notes, now);
        let [next] = segment.take_wants()[..] else { panic!("it asks for the rest") };
        assert_eq!((next.since, next.latest), (Seq(4), Some(places[1])));
        assert!(segment.refreshed(next, with_rest(None)).is_empty());
        let _ = segment.arrive(level(5, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&1], ["refresh to 0", "refresh to 0", "5"]);
        // Who has the slot next has another welcome.
        segment.leave(slot);
        assert_eq!(segment.join(Entrant { latest: None, ..entrant }, now), slot);
        assert!(segment.is_level(slot));
    }

    #[test]
    fn what_a_refresh_brought_after_a_gap_is_carried_and_its_acknowledgements_count() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        segment.gap(Seq(1));
        run(&mut segment, &mut notes, now);
        let wants = segment.take_wants();
        assert!(segment.refreshed(wants[0], refresh(1, 5, 5)).is_empty());
        run(&mut segment, &mut notes, now);
        assert!(segment.acknowledge(0, 5, now));
        assert_eq!((1..=5).filter_map(|offset| segment.acks(offset)).map(|acks| acks.count).sum::<u64>(), 5);
        let look_at = segment.poll_look().unwrap();
        segment.look(&notes, look_at + Duration::from_secs(1));
        let reach = Reach { after: 0, through: 5 };
        assert_eq!(segment.take_carry_wants(), [CarryWant { encoding: Encoding::Json, reach }]);
    }

    #[test]
    fn an_acknowledgement_is_counted_here_or_at_home_but_once() {
        let mut segment = segment(0);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let former = segment.join(placed(1, 0, 0, 0), now);
        let _ = segment.arrive(reliable(1, 0, 3, now));
        run(&mut segment, &mut notes, now);
        segment.leave(former);
        let returned = segment.join(placed(2, 1, 3, 3), now);
        assert!(segment.acknowledge(returned, 3, now));
        let reach = Reach { after: 0, through: 3 };
        assert_eq!(segment.take_early_acks(), [EarlyAck { reach, is_named: false }]);
        assert_eq!(segment.acks(3), None);
    }

    /// A jump past the tallies left the older ones in front of the gap. Acknowledgements of the gap were then
    /// counted nowhere.
    #[test]
    fn a_jump_past_the_tallies_loses_no_acknowledgement() {
        let mut segment = segment(1);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let through = 5 + 2 * STREAM_MESSAGES_MAX as u64;
        let _ = segment.arrive(reliable(1, 0, 5, now));
        run(&mut segment, &mut notes, now);
        let _ = segment.arrive(reliable(2, 5, through, now));
        run(&mut segment, &mut notes, now);
        assert!(segment.acknowledge(0, through, now));
        let reach = Reach { after: 0, through: through - STREAM_MESSAGES_MAX as u64 };
        assert_eq!(segment.take_early_acks(), [EarlyAck { reach, is_named: false }]);
        let counted = (reach.through + 1..=through).filter_map(|offset| segment.acks(offset));
        assert_eq!(counted.map(|acks| acks.count).sum::<u64>(), STREAM_MESSAGES_MAX as u64);
    }

    #[test]
    fn a_frame_that_carries_again_keeps_its_place_among_the_batches() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(reliable(1, 0, 1, now));
        run(&mut segment, &mut notes, now);
        assert!(segment.acknowledge(1, 1, now));
        let later = now + Duration::from_secs(2);
        segment.look(&notes, later);
        let [want] = segment.take_carry_wants()[..] else { panic!("one state") };
        let _ = segment.arrive(reliable(2, 1, 1, now));
        segment.carried(want, Seq(2), Some(Bytes::from_static(b"carry at 2")), 0);
        let _ = segment.arrive(reliable(3, 1, 1, now));
        run(&mut segment, &mut notes, later);
        assert_eq!(notes.taken[&0], ["1: (0, 1]", "2: (1, 1]", "carry at 2", "3: (1, 1]"]);
        assert_eq!(notes.taken[&1].len(), 3, "who has acknowledged gets nothing again");
    }

    /// The look found nobody: the one had acknowledged, and the pass had still to reach the other.
    #[test]
    fn a_look_in_the_middle_of_a_pass_forgets_nobody() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        for seq in [1, 2] {
            let reach = Reach { after: seq - 1, through: seq };
            let level = Arc::into_inner(level(seq, now)).unwrap();
            let _ = segment.arrive(Arc::new(Level { reach, ..level }));
            segment.turn(1, &mut notes, now);
            assert!(segment.acknowledge(0, seq, now));
            if seq == 1 {
                run(&mut segment, &mut notes, now);
                assert!(segment.acknowledge(1, seq, now));
            }
        }
        let due = segment.poll_look().unwrap();
        segment.look(&notes, due);
        run(&mut segment, &mut notes, due);
        segment.check_invariants();
        assert!(segment.poll_look().is_some());
    }

    #[test]
    fn a_member_is_overdue_from_the_first_late_look_until_it_acknowledges_or_leaves() {
        let mut segment = segment(3);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(reliable(1, 0, 1, now));
        run(&mut segment, &mut notes, now);
        segment.look(&notes, now);
        assert_eq!(segment.overdue(), 0, "the acknowledgements are not due yet");
        assert!(segment.acknowledge(0, 1, now));
        // An outbox with owed frames is no excuse: the message has not arrived.
        notes.full.push(1);
        segment.look(&notes, now + Duration::from_secs(2));
        assert_eq!(segment.overdue(), 2);
        segment.leave(1);
        assert_eq!(segment.overdue(), 1);
        assert!(segment.acknowledge(2, 1, now));
        assert_eq!(segment.overdue(), 0);
        segment.check_invariants();
    }

    #[test]
    fn nobody_is_looked_for_where_everybody_has_acknowledged() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        assert_eq!(segment.poll_look(), None);
        let _ = segment.arrive(reliable(1, 0, 1, now));
        run(&mut segment, &mut notes, now);
        assert!(!segment.acknowledge(0, 2, now), "never sent");
        assert!(segment.acknowledge(0, 1, now) && segment.acknowledge(1, 1, now));
        assert!(!segment.acknowledge(0, 0, now), "backward");
        segment.look(&notes, segment.poll_look().unwrap());
        assert_eq!((segment.poll_look(), segment.take_carry_wants()), (None, Vec::new()));
    }

    #[test]
    fn a_frame_is_not_for_a_member_of_another_encoding_that_has_the_slot_now() {
        let mut segment = segment(0);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let former = segment.join(placed(1, 3, 0, 9), now);
        segment.join(placed(2, 9, 9, 9), now);
        segment.drained(former, Speed::Fast);
        let [want] = segment.take_wants()[..] else { panic!("one state") };
        segment.leave(former);
        let other = Entrant { encoding: Encoding::Proto, ..placed(3, 3, 0, 9) };
        assert_eq!(segment.join(other, now), former);
        segment.drained(former, Speed::Fast);
        assert!(segment.refreshed(want, refresh(9, 9, 9)).is_empty());
        run(&mut segment, &mut notes, now);
        assert!(notes.taken.is_empty(), "its own refresh is on the way");
    }

    #[test]
    fn a_member_is_asked_for_once_however_long_the_answer_takes() {
        let mut segment = segment(1);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(reliable(1, 0, 1, now));
        run(&mut segment, &mut notes, now);
        for seconds in 2..9 {
            segment.look(&notes, now + Duration::from_secs(seconds));
        }
        let [want] = segment.take_carry_wants()[..] else { panic!("one state, asked for once") };
        segment.carried(want, Seq(1), Some(Bytes::from_static(b"carry at 1")), 0);
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&0], ["1: (0, 1]", "carry at 1"]);
    }

    #[test]
    fn a_frame_that_was_refused_is_not_counted_as_written() {
        let mut segment = segment(2);
        let mut notes = Notes::default();
        let now = Now::made_up().instant;
        let _ = segment.arrive(reliable(1, 0, 1, now));
        run(&mut segment, &mut notes, now);
        segment.look(&notes, now + Duration::from_secs(2));
        let [want] = segment.take_carry_wants()[..] else { panic!("one state for both") };
        segment.carried(want, Seq(1), Some(Bytes::from_static(b"carry at 1")), 0);
        notes.full.push(0);
        let tallies: Vec<TurnTally> = (0..3).map(|_| segment.turn(128, &mut notes, now)).collect();
        assert_eq!(tallies.iter().map(|tally| tally.counts().written).sum::<u64>(), 1);
    }
}
