//! One room's members on one shard, and the pass that writes to them.
//!
//! A frame says from which seq it takes a member to which; a member takes it exactly if it stands at the former. So
//! one rule serves level frames, refreshes and members that join or leave while a pass is under way. Slots are
//! stable: a leaver leaves a hole, reused afterwards.
//!
//! Pure: whoever owns the segment gives it frames, turns and a [`Sink`], and sends on what it asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::carry::{Acked, CarryWant, Schedule};
use super::{Offer, Sink};
use crate::config::limits::{
    CARRY_LOOK_INTERVAL, CARRY_STATES_MAX, REFRESH_STATES_MAX, SEGMENT_QUEUED_MAX, STREAM_MESSAGES_MAX,
};
use crate::room::id::{Encoding, Epoch, RoomName, Run, Seq};
use crate::room::receipt::Acks;
use crate::room::{Census, Departure, Reach};

/// A batch as it travels to segments: the level frame of each encoding in use. Takes a member from `seq - 1` to `seq`.
#[derive(Debug)]
pub struct Level {
    /// Which room.
    pub room: RoomName,
    /// In which life.
    pub run: Run,
    /// Which batch.
    pub seq: Seq,
    /// By encoding; empty where no member uses it.
    pub frames: [Bytes; Encoding::ALL.len()],
    /// What it takes members over in the reliable stream.
    pub reach: Reach,
    /// The offsets in it, rising.
    pub offsets: Vec<u64>,
    /// Over how long devices spread their acknowledgements of those.
    pub ack_within: Duration,
    /// When its oldest message was accepted.
    pub oldest: Instant,
}

/// What a member that missed batches is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// How its frames are spelt.
    pub encoding: Encoding,
    /// The last seq it holds.
    pub since: Seq,
    /// The last offset of the reliable stream that was sent to it.
    pub sent: u64,
}

/// Who becomes a member, and what it holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant {
    /// Its connection on this shard.
    pub connection: u32,
    /// How its frames are spelt.
    pub encoding: Encoding,
    /// It holds every batch up to this.
    pub seq: Seq,
    /// Its place in the reliable stream.
    pub place: StreamPlace,
}

/// A joining member's place in the reliable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamPlace {
    /// The last offset that the welcome brought it.
    pub sent: u64,
    /// The last offset that had left in batches by then. If it is later than `sent`, the member is catching up.
    pub head: u64,
    /// What its cursor said it has.
    pub acked: u64,
    /// Receipts count it for messages behind this offset.
    pub counts_from: u64,
    /// A hash of the device's name; 0: it gave none.
    pub device: u64,
    /// Over how long devices spread their acknowledgements.
    pub ack_within: Duration,
}

/// One connection's place in the room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// It holds everything up to this; `VACANT` marks a hole.
    last_seq: Seq,
    /// The last offset of the reliable stream that was sent to it.
    sent: u64,
    connection: u32,
    encoding: Encoding,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Each batch so far was offered to it and taken.
    Level,
    /// It missed a batch or is catching up, and its connection is owed something: it asks when that has drained.
    Missed,
    /// It missed a batch and has asked for a refresh, or stands in line to ask.
    Asked,
}

/// No batch ever has this number.
const VACANT: Seq = Seq(u64::MAX);

/// One room's members on one shard.
#[derive(Debug)]
pub struct Segment {
    room: RoomName,
    run: Run,
    members: Vec<Member>,
    /// By slot; apart from `members`, so that a pass does not read it.
    acked: Vec<Acked>,
    holes: Vec<u32>,
    census: Census,
    /// The newest batch that arrived or is known to have been missed.
    seq: Seq,
    queue: VecDeque<Queued>,
    pass: Option<Pass>,
    visits: VecDeque<Visit>,
    asked: BTreeMap<Want, Vec<u32>>,
    /// Members, with the seq they stand at, that have to wait until fewer states are asked for.
    unasked: VecDeque<(u32, Seq)>,
    /// What to ask of the home next.
    wants: Vec<Want>,
    /// The life of the reliable stream; `None` while it is not known.
    epoch: Option<Epoch>,
    /// The last offset that a pass has begun to send.
    sent: u64,
    /// Invariant: members that have acknowledged everything up to `sent`.
    settled: u64,
    schedule: Schedule,
    /// When to look for members to carry for.
    look_at: Option<Instant>,
    carrying: BTreeMap<CarryWant, Vec<u32>>,
    carry_wants: Vec<CarryWant>,
    /// Acknowledgements of the newest messages, in order of offset.
    tallies: VecDeque<AckTally>,
    /// Tallies that had to make way, for the home to keep.
    tallies_given_up: Vec<(u64, Acks)>,
    /// Acknowledgements of messages without a tally here, for the home to count.
    early_acks: Vec<Reach>,
}

/// The acknowledgements of one message on this segment.
#[derive(Debug)]
struct AckTally {
    offset: u64,
    sent_at: Instant,
    acks: Acks,
}

#[derive(Debug)]
enum Queued {
    Level(Arc<Level>),
    /// Batches up to this seq never came: whoever stands before it has missed them.
    Gap(Seq),
    /// What the home composed for members that did not acknowledge in time: its place among the batches counts, since the
    /// frame repeats the seq of the one before.
    Carry {
        want: CarryWant,
        seq: Seq,
        frame: Bytes,
    },
}

/// A pass under way.
#[derive(Debug)]
struct Pass {
    frames: PassFrames,
    /// The next slot to visit, and the slot behind the last.
    next: usize,
    end: usize,
    oldest: Vec<Instant>,
}

/// What a pass writes: consecutive batches, by encoding, so that each member takes them in one vectored write.
#[derive(Debug, Default)]
pub struct PassFrames {
    from: Seq,
    to: Seq,
    /// What they take members over in the reliable stream.
    reach: Reach,
    frames: [Vec<Bytes>; Encoding::ALL.len()],
    /// How far in the reliable stream each of them takes a member.
    sent: Vec<u64>,
}

/// A frame on its way to the members that need it.
#[derive(Debug)]
struct Visit {
    slots: Vec<u32>,
    next: usize,
    frame: Bytes,
    brings: Brings,
}

/// What the frame of a visit brings.
#[derive(Debug, Clone, Copy)]
enum Brings {
    /// It takes those that asked for it as far as this.
    Refresh { want: Want, to: Refreshed },
    /// It repeats what those at this seq did not acknowledge.
    Carry { want: CarryWant, seq: Seq },
}

/// How far a refresh takes a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// It holds every batch up to this, or knows what it missed.
    pub seq: Seq,
    /// The last offset of the reliable stream that was sent to it.
    pub sent: u64,
    /// The last offset that had left in batches. If it is later than `sent`, the member goes on catching up.
    pub head: u64,
    /// Over how long devices spread their acknowledgements.
    pub ack_within: Duration,
    /// Messages told as skipped.
    pub skipped: u64,
}

/// A refresh as it comes from the home.
#[derive(Debug, Clone)]
pub struct RefreshFrame {
    /// Takes a member from where it asked to the room's seq.
    pub frame: Bytes,
    /// How far that is.
    pub to: Refreshed,
}

/// What one turn did, in numbers.
#[derive(Debug, Clone, Default)]
pub struct TurnTally {
    /// Members visited.
    pub visited: usize,
    /// Batches this turn's pass began with: the home may cut as many more.
    pub taken: usize,
    /// Level frames taken by members.
    pub level: u64,
    /// Refresh frames taken by members.
    pub refreshed: u64,
    /// Frames taken by members that did not acknowledge in time.
    pub carried: u64,
    /// Refresh frames after which their member still was not level with the reliable stream.
    pub catching_up: u64,
    /// Messages told to members as skipped.
    pub messages_skipped: u64,
    /// Frames a member could not take whole at once.
    pub queued: u64,
    /// Frames that members which missed an earlier one were not sent.
    pub skipped: u64,
    /// When the oldest message of each batch whose pass ended was accepted.
    pub written: Vec<Instant>,
}

/// What a pass over a slice of members left to be dealt with after the loop. Slots are relative to the slice.
#[derive(Debug, Default)]
pub struct PassTally {
    level: u64,
    queued: u64,
    skipped: u64,
    refused: Vec<u32>,
    late: Vec<u32>,
    missed: Vec<u32>,
}

/// Writes `frames` to those of `members` that stand where the frames begin. The others are few, and dealt with afterwards.
pub fn pass<S: Sink>(
    members: &mut [Member],
    frames: &PassFrames,
    sink: &mut S,
    tally: &mut PassTally,
    now: Instant,
) {
    for (slot, member) in members.iter_mut().enumerate() {
        // Who is catching up stands at this seq as well, but lacks what was sent before.
        if (member.last_seq, member.sent) != (frames.from, frames.reach.after) {
            tally.set_aside(slot, member, frames);
            continue;
        }
        let offered = &frames.frames[member.encoding.index()];
        let offer = sink.offer(member.connection, offered, now);
        (member.last_seq, member.sent) = (frames.to, frames.reach.through);
        match offer {
            Offer::Written => tally.level += offered.len() as u64,
            Offer::Queued => tally.queue(offered.len()),
            Offer::Refused { taken } => tally.refuse(slot, member, frames, taken),
        }
    }
}

impl PassTally {
    #[cold]
    fn set_aside(&mut self, slot: usize, member: &Member, frames: &PassFrames) {
        if member.last_seq >= frames.to {
            return; // A hole, or welcomed or refreshed past these frames.
        }
        let slot = u32::try_from(slot).expect("a segment has fewer than 2^32 slots");
        match member.standing {
            Standing::Level if member.last_seq > frames.from => self.late.push(slot),
            Standing::Level => self.missed.push(slot),
            Standing::Missed | Standing::Asked => self.skipped += frames.batches(),
        }
    }

    #[cold]
    fn queue(&mut self, frames: usize) {
        self.level += frames as u64;
        self.queued += frames as u64;
    }

    #[cold]
    fn refuse(&mut self, slot: usize, member: &mut Member, frames: &PassFrames, taken: usize) {
        let slot = u32::try_from(slot).expect("a segment has fewer than 2^32 slots");
        frames.taken_by(member, taken);
        self.level += taken as u64;
        self.skipped += frames.batches() - taken as u64;
        self.refused.push(slot);
    }
}

impl PassFrames {
    /// Frames that take members from `from` on, one per seq, by encoding.
    #[must_use]
    pub fn new(from: Seq, frames: [Vec<Bytes>; Encoding::ALL.len()]) -> Self {
        let batches = frames.iter().map(Vec::len).max().unwrap_or(0);
        let to = Seq(from.0 + batches as u64);
        Self { from, to, reach: Reach::default(), frames, sent: vec![0; batches] }
    }

    /// A member took the first `taken` of them only.
    fn taken_by(&self, member: &mut Member, taken: usize) {
        member.last_seq = Seq(self.from.0 + taken as u64);
        member.sent = taken.checked_sub(1).map_or(self.reach.after, |last| self.sent[last]);
    }

    fn batches(&self) -> u64 {
        self.to.0 - self.from.0
    }
}

impl Member {
    /// A member that holds every batch up to `last_seq`, and of the reliable stream what was sent by then.
    #[must_use]
    pub fn new(connection: u32, encoding: Encoding, last_seq: Seq) -> Self {
        Self { last_seq, sent: 0, connection, encoding, standing: Standing::Level }
    }
}

impl Segment {
    /// A room's segment, without members yet.
    #[must_use]
    pub fn new(room: RoomName, run: Run, seq: Seq, epoch: Option<Epoch>) -> Self {
        Self {
            schedule: Schedule::new(&room),
            room,
            run,
            members: Vec::new(),
            acked: Vec::new(),
            holes: Vec::new(),
            census: Census::default(),
            seq,
            queue: VecDeque::new(),
            pass: None,
            visits: VecDeque::new(),
            asked: BTreeMap::new(),
            unasked: VecDeque::new(),
            wants: Vec::new(),
            epoch,
            sent: 0,
            settled: 0,
            look_at: None,
            carrying: BTreeMap::new(),
            carry_wants: Vec::new(),
            tallies: VecDeque::new(),
            tallies_given_up: Vec::new(),
            early_acks: Vec::new(),
        }
    }

    /// Which room.
    #[must_use]
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// In which life.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// Its members, by encoding.
    #[must_use]
    pub fn census(&self) -> Census {
        self.census
    }

    /// The connections of its members.
    pub fn connections(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter(|member| member.last_seq != VACANT).map(|member| member.connection)
    }

    /// The life of the reliable stream; `None` while it is not known.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Takes in a member. Its slot, stable until it leaves.
    pub fn join(&mut self, entrant: Entrant, now: Instant) -> u32 {
        let Entrant { connection, encoding, seq, place } = entrant;
        let standing = if place.sent < place.head { Standing::Missed } else { Standing::Level };
        let member = Member { last_seq: seq, sent: place.sent, connection, encoding, standing };
        let acked = Acked {
            through: place.acked,
            dead_through: 0,
            counts_from: place.counts_from,
            device: place.device,
            brought_at: now,
            attempts: 0,
        };
        if self.census.members() == 0 {
            (self.seq, self.sent) = (self.seq.max(seq), self.sent.max(place.head));
        }
        self.census.add(encoding);
        self.settled += u64::from(acked.through >= self.sent);
        if place.sent > place.acked {
            self.expect_acks(place.sent, place.ack_within, now);
        }
        if let Some(hole) = self.holes.pop() {
            (self.members[hole as usize], self.acked[hole as usize]) = (member, acked);
            return hole;
        }
        self.members.push(member);
        self.acked.push(acked);
        u32::try_from(self.members.len() - 1).expect("a segment has fewer than 2^32 slots")
    }

    /// The member of a slot leaves.
    pub fn leave(&mut self, slot: u32) -> Departure {
        let member = &mut self.members[slot as usize];
        assert_ne!(member.last_seq, VACANT, "a member leaves once");
        member.last_seq = VACANT;
        let (encoding, acked) = (member.encoding, self.acked[slot as usize]);
        self.holes.push(slot);
        self.census.remove(encoding);
        self.settled -= u64::from(acked.through >= self.sent);
        let counted = acked.through.max(acked.counts_from);
        Departure { encoding, acked: counted, epoch: self.epoch, device: acked.device }
    }

    /// The member of a slot says that it has applied everything up to `offset`. Whether that can be.
    pub fn acknowledge(&mut self, slot: u32, offset: u64, now: Instant) -> bool {
        let (member, acked) = (&self.members[slot as usize], &mut self.acked[slot as usize]);
        if offset > member.sent || offset < acked.through {
            return false;
        }
        let mut counted = acked.through.max(acked.counts_from);
        let from = self.tallies.partition_point(|tally| tally.offset <= counted);
        for tally in self.tallies.range_mut(from..).take_while(|tally| tally.offset <= offset) {
            if counted + 1 < tally.offset {
                self.early_acks.push(Reach { after: counted, through: tally.offset - 1 });
            }
            tally.acks.add(now.saturating_duration_since(tally.sent_at));
            counted = tally.offset;
        }
        // No pass of this segment has brought these: they were sent before it was there, or came in refreshes.
        if counted < offset {
            self.early_acks.push(Reach { after: counted, through: offset });
        }
        self.settled += u64::from(acked.through < self.sent && offset >= self.sent);
        if offset > acked.through {
            (acked.through, acked.attempts) = (offset, 0);
        }
        true
    }

    /// The acknowledgements of a message, as far as this segment counts them.
    #[must_use]
    pub fn acks(&self, offset: u64) -> Option<&Acks> {
        let index = self.tallies.binary_search_by_key(&offset, |tally| tally.offset).ok()?;
        Some(&self.tallies[index].acks)
    }

    /// Tallies for the home to keep: those that had to make way or, where the segment ends, all of them.
    pub fn give_up_tallies(&mut self) -> Vec<(u64, Acks)> {
        if self.census.members() == 0 {
            let rest = self.tallies.drain(..).filter(|tally| tally.acks.count > 0);
            self.tallies_given_up.extend(rest.map(|tally| (tally.offset, tally.acks)));
        }
        std::mem::take(&mut self.tallies_given_up)
    }

    /// Acknowledgements for the home to count, since this was last called.
    pub fn take_early_acks(&mut self) -> Vec<Reach> {
        std::mem::take(&mut self.early_acks)
    }

    /// A batch arrived. `false`: it is of no use, since whoever is here holds it already.
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

    /// Batches up to `seq` exist; whatever of them did not come will not come.
    pub fn gap(&mut self, seq: Seq) {
        if seq > self.seq {
            self.seq = seq;
            self.queue.push_back(Queued::Gap(seq));
        }
    }

    /// The refresh for those that asked `want` arrived. `None`: they missed more than anyone can account for, and their
    /// connections, returned here, have to come back afresh.
    #[must_use]
    pub fn refreshed(&mut self, want: Want, refresh: Option<RefreshFrame>) -> Vec<u32> {
        // `seq` stays: what took these members further says nothing to those that did not ask.
        let slots = self.asked.remove(&want).unwrap_or_default();
        while self.asked.len() < REFRESH_STATES_MAX {
            let Some((slot, since)) = self.unasked.pop_front() else { break };
            if self.asker(slot, since).is_some() {
                self.ask(slot);
            }
        }
        let Some(RefreshFrame { frame, to }) = refresh else {
            return slots.iter().filter_map(|slot| Some(self.asker(*slot, want.since)?.connection)).collect();
        };
        self.visits.push_back(Visit { slots, next: 0, frame, brings: Brings::Refresh { want, to } });
        Vec::new()
    }

    /// What was asked for those that did not acknowledge `want` in time arrived. `None`: nothing of it is alive.
    pub fn carried(&mut self, want: CarryWant, seq: Seq, frame: Option<Bytes>, floor: u64) {
        self.schedule.forget_through(floor);
        match frame {
            Some(frame) => self.queue.push_back(Queued::Carry { want, seq, frame }),
            None => {
                for slot in self.carrying.remove(&want).unwrap_or_default() {
                    let acked = &mut self.acked[slot as usize];
                    if acked.through == want.reach.after {
                        acked.dead_through = acked.dead_through.max(want.reach.through);
                    }
                }
            }
        }
    }

    /// The connection of a member has drained: if the member missed a batch, it asks for a refresh now.
    pub fn drained(&mut self, slot: u32) {
        if self.members[slot as usize].standing == Standing::Missed {
            self.ask(slot);
        }
    }

    /// What to ask of the home, since this was last called.
    pub fn take_wants(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.wants)
    }

    /// Gives up what is under way and queued. How many frames members are not sent because of it.
    pub fn give_up(&mut self) -> u64 {
        let unvisited =
            self.pass.take().map_or(0, |pass| (pass.end - pass.next) as u64 * pass.frames.batches());
        let queued = self.queued_batches() as u64 * self.census.members();
        self.queue.clear();
        self.visits.clear();
        self.carrying.clear();
        unvisited + queued
    }

    /// Whether a turn would do anything.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pass.is_some() || !self.visits.is_empty() || !self.queue.is_empty()
    }

    /// Whether a pass is under way.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.pass.is_some()
    }

    /// Batches that wait for the next pass.
    #[must_use]
    pub fn queued_batches(&self) -> usize {
        self.queue.iter().filter(|queued| matches!(queued, Queued::Level(_))).count()
    }

    /// Visits up to `members_max` members: those a refresh came for, or the next of the pass. A pass begins only
    /// when no refresh is left to bring, so that a refreshed member meets the batch that follows its refresh.
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

    /// Takes the batches that follow one another out of the queue. How many.
    fn begin_pass(&mut self, now: Instant) -> usize {
        let (mut frames, mut oldest) = (PassFrames::default(), Vec::new());
        match self.queue.pop_front() {
            None => return 0,
            Some(Queued::Gap(seq)) => (frames.from, frames.to) = (seq, seq),
            Some(Queued::Carry { want, seq, frame }) => {
                let slots = self.carrying.remove(&want).unwrap_or_default();
                self.visits.push_back(Visit { slots, next: 0, frame, brings: Brings::Carry { want, seq } });
                return 0;
            }
            Some(Queued::Level(first)) => {
                (frames.from, frames.reach) = (Seq(first.seq.0 - 1), first.reach);
                self.begin_batch(&first, &mut frames, now);
                oldest.push(first.oldest);
            }
        }
        while let Some(Queued::Level(next)) = self.queue.front().filter(|_| frames.batches() > 0) {
            if next.seq != frames.to.next() {
                break;
            }
            let next = Arc::clone(next);
            self.begin_batch(&next, &mut frames, now);
            oldest.push(next.oldest);
            self.queue.pop_front();
        }
        let taken = oldest.len();
        self.pass = Some(Pass { frames, next: 0, end: self.members.len(), oldest });
        taken
    }

    /// A batch enters the pass that begins.
    fn begin_batch(&mut self, level: &Level, frames: &mut PassFrames, now: Instant) {
        frames.push(level);
        if level.reach.through <= self.sent {
            return;
        }
        self.sent = level.reach.through;
        // Only who was welcomed ahead of this batch may have acknowledged it: nearly nobody, but it has to be known.
        let living = self.members.iter().zip(&self.acked).filter(|(member, _)| member.last_seq != VACANT);
        self.settled = living.filter(|(_, acked)| acked.through >= self.sent).count() as u64;
        for offset in &level.offsets {
            self.tallies.push_back(AckTally { offset: *offset, sent_at: now, acks: Acks::default() });
        }
        while self.tallies.len() > STREAM_MESSAGES_MAX {
            let oldest = self.tallies.pop_front().expect("seen");
            self.tallies_given_up.push((oldest.offset, oldest.acks));
        }
        self.expect_acks(self.sent, level.ack_within, now);
    }

    fn expect_acks(&mut self, through: u64, ack_within: Duration, now: Instant) {
        let due = self.schedule.sent(through, ack_within, now);
        self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
    }

    /// When [`Self::look`] is to be called; `None` while everybody has acknowledged everything.
    #[must_use]
    pub fn poll_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks for members that did not acknowledge in time, and notes what to ask of the home for them. Those whose
    /// connection is owed something are left for later.
    pub fn look<S: Sink>(&mut self, sink: &S, now: Instant) {
        self.look_at = None;
        if self.settled == self.census.members() {
            return self.schedule.forget_through(self.sent);
        }
        let overdue_through = self.schedule.overdue_through(now);
        let mut next: Option<Instant> = None;
        let again = now + CARRY_LOOK_INTERVAL;
        for (slot, member) in self.members.iter().enumerate() {
            let acked = &mut self.acked[slot];
            if member.last_seq == VACANT || acked.settled() >= member.sent {
                continue;
            }
            let Some(due) = self.schedule.due(acked) else { continue };
            let is_due =
                due <= now && member.standing == Standing::Level && !sink.is_waiting(member.connection);
            let through = overdue_through.max(acked.settled() + 1).min(member.sent);
            let reach = Reach { after: acked.through, through };
            let want = CarryWant { encoding: member.encoding, reach };
            let is_known = self.carrying.contains_key(&want);
            if is_due && (is_known || self.carrying.len() < CARRY_STATES_MAX) {
                if !is_known {
                    self.carry_wants.push(want);
                }
                let slot = u32::try_from(slot).expect("a segment has fewer than 2^32 slots");
                self.carrying.entry(want).or_default().push(slot);
                (acked.brought_at, acked.attempts) = (now, acked.attempts.saturating_add(1));
            }
            let due = self.schedule.due(acked).unwrap_or(again).max(again);
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        self.look_at = next;
    }

    /// What to ask of the home for members that did not acknowledge in time, since this was last called.
    pub fn take_carry_wants(&mut self) -> Vec<CarryWant> {
        std::mem::take(&mut self.carry_wants)
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
        if frames.batches() == 0 {
            for (slot, member) in self.members[slots].iter().enumerate() {
                tally.set_aside_before(slot, member, frames.to);
            }
        } else {
            pass(&mut self.members[slots], frames, sink, &mut tally, now);
        }
        turn.level += tally.level;
        turn.queued += tally.queued;
        turn.skipped += tally.skipped;
        for slot in tally.refused {
            self.members[(first + slot) as usize].standing = Standing::Missed;
        }
        for slot in tally.missed {
            turn.skipped += frames.to.0 - self.members[(first + slot) as usize].last_seq.0;
            self.miss(first + slot, sink);
        }
        for slot in tally.late {
            self.offer_late(first + slot, frames, sink, now, turn);
        }
    }

    /// A member that was welcomed between the batches of a pass takes those after its welcome.
    fn offer_late<S: Sink>(
        &mut self,
        slot: u32,
        frames: &PassFrames,
        sink: &mut S,
        now: Instant,
        turn: &mut TurnTally,
    ) {
        let member = &mut self.members[slot as usize];
        let first = usize::try_from(member.last_seq.0 - frames.from.0).expect("a pass has few batches");
        let offered = &frames.frames[member.encoding.index()][first..];
        let taken = match sink.offer(member.connection, offered, now) {
            Offer::Written | Offer::Queued => offered.len(),
            Offer::Refused { taken } => {
                member.standing = Standing::Missed;
                taken
            }
        };
        frames.taken_by(member, first + taken);
        turn.level += taken as u64;
        turn.skipped += (offered.len() - taken) as u64;
    }

    fn visit<S: Sink>(&mut self, members_max: usize, sink: &mut S, now: Instant, turn: &mut TurnTally) {
        let Some(mut visit) = self.visits.pop_front() else { return };
        let end = visit.slots.len().min(visit.next + members_max);
        let mut latest = None;
        for slot in &visit.slots[visit.next..end] {
            match visit.brings {
                Brings::Refresh { want, to } => {
                    if self.bring_refresh(*slot, &visit.frame, want, to, (sink, now), turn) {
                        latest = Some(to);
                    }
                }
                Brings::Carry { want, seq } => {
                    let member = &self.members[*slot as usize];
                    // The slot may have another member by now.
                    let is_for_it = member.last_seq == seq
                        && member.encoding == want.encoding
                        && member.standing == Standing::Level
                        && self.acked[*slot as usize].through == want.reach.after;
                    // Refused or not: it is tried again after the next delay.
                    if is_for_it {
                        let _ = sink.offer(member.connection, std::slice::from_ref(&visit.frame), now);
                        turn.carried += 1;
                    }
                }
            }
        }
        if let Some(to) = latest {
            self.expect_acks(to.sent, to.ack_within, now);
        }
        turn.visited = end - visit.next;
        visit.next = end;
        if visit.next < visit.slots.len() {
            self.visits.push_front(visit);
        }
    }

    /// Brings a member the refresh it asked for. Whether there were reliable messages in it.
    fn bring_refresh<S: Sink>(
        &mut self,
        slot: u32,
        frame: &Bytes,
        want: Want,
        to: Refreshed,
        (sink, now): (&mut S, Instant),
        turn: &mut TurnTally,
    ) -> bool {
        let is_same = |member: &&mut Member| (member.sent, member.encoding) == (want.sent, want.encoding);
        let Some(member) = self.asker(slot, want.since).filter(is_same) else {
            return false;
        };
        if matches!(sink.offer(member.connection, std::slice::from_ref(frame), now), Offer::Refused { .. }) {
            member.standing = Standing::Missed;
            return false;
        }
        (member.last_seq, member.sent, member.standing) = (to.seq, to.sent, Standing::Level);
        turn.refreshed += 1;
        turn.messages_skipped += to.skipped;
        if to.sent > want.sent {
            self.acked[slot as usize].brought_at = now;
        }
        if to.sent < to.head {
            turn.catching_up += 1;
            self.miss(slot, sink);
        }
        to.sent > want.sent
    }

    /// The member of a slot, if it is still the one that asked at `since`.
    fn asker(&mut self, slot: u32, since: Seq) -> Option<&mut Member> {
        let member = self.members.get_mut(slot as usize)?;
        (member.last_seq == since && member.standing == Standing::Asked).then_some(member)
    }

    /// A member missed batches although its connection refused nothing.
    fn miss<S: Sink>(&mut self, slot: u32, sink: &S) {
        let member = &mut self.members[slot as usize];
        member.standing = Standing::Missed;
        if !sink.is_waiting(member.connection) {
            self.ask(slot);
        }
    }

    fn ask(&mut self, slot: u32) {
        let member = &mut self.members[slot as usize];
        member.standing = Standing::Asked;
        let want = Want { encoding: member.encoding, since: member.last_seq, sent: member.sent };
        if let Some(slots) = self.asked.get_mut(&want) {
            slots.push(slot);
        } else if self.asked.len() < REFRESH_STATES_MAX {
            self.asked.insert(want, vec![slot]);
            self.wants.push(want);
        } else {
            self.unasked.push_back((slot, want.since));
        }
    }

    /// Asserts what every mutation keeps; for the simulated world.
    pub fn check_invariants(&self) {
        let living = self.members.iter().filter(|member| member.last_seq != VACANT).count();
        assert_eq!(living as u64, self.census.members(), "the census counts members");
        assert_eq!(living + self.holes.len(), self.members.len(), "a slot is a member or a hole");
        assert!(self.queued_batches() <= SEGMENT_QUEUED_MAX, "the queue keeps its bound");
        assert!(self.asked.len() <= REFRESH_STATES_MAX, "the states asked for keep their bound");
    }
}

impl PassFrames {
    fn push(&mut self, level: &Level) {
        (self.to, self.reach.through) = (level.seq, level.reach.through);
        self.sent.push(level.reach.through);
        for (frames, frame) in self.frames.iter_mut().zip(&level.frames) {
            frames.push(frame.clone());
        }
    }
}

impl PassTally {
    /// A gap is known: whoever stands before it has missed what never came.
    fn set_aside_before(&mut self, slot: usize, member: &Member, seq: Seq) {
        if member.last_seq < seq && member.standing == Standing::Level {
            self.missed.push(u32::try_from(slot).expect("a segment has fewer than 2^32 slots"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    /// A sink that notes down what each connection took, and refuses those it is told to.
    #[derive(Default)]
    struct Notes {
        taken: BTreeMap<u32, Vec<Bytes>>,
        full: Vec<u32>,
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
    }

    fn room() -> RoomName {
        RoomName::parse("r1").unwrap()
    }

    fn level(seq: u64, now: Instant) -> Arc<Level> {
        let frame = Bytes::from(seq.to_string());
        Arc::new(Level {
            room: room(),
            run: Run(1),
            seq: Seq(seq),
            frames: [frame.clone(), frame],
            reach: Reach::default(),
            offsets: Vec::new(),
            ack_within: Duration::ZERO,
            oldest: now,
        })
    }

    fn segment(members: u32) -> Segment {
        let mut segment = Segment::new(room(), Run(1), Seq(0), None);
        for connection in 0..members {
            segment.join(entrant(connection, 0), Now::read().instant);
        }
        segment
    }

    fn entrant(connection: u32, seq: u64) -> Entrant {
        Entrant { connection, encoding: Encoding::Json, seq: Seq(seq), place: StreamPlace::default() }
    }

    fn run(segment: &mut Segment, notes: &mut Notes, now: Instant) -> TurnTally {
        let mut last = TurnTally::default();
        while segment.is_busy() {
            last = segment.turn(1, notes, now);
            segment.check_invariants();
        }
        last
    }

    #[test]
    fn batches_that_wait_leave_in_one_write_per_member() {
        let (mut segment, mut notes, now) = (segment(2), Notes::default(), Now::read().instant);
        let _ = segment.arrive(level(1, now));
        let _ = segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).taken, 2);
        assert_eq!(notes.taken[&0], ["1", "2"]);
        assert_eq!(notes.taken[&1], ["1", "2"]);
    }

    #[test]
    fn who_joins_during_a_pass_gets_nothing_twice_and_who_leaves_gets_nothing_more() {
        let (mut segment, mut notes, now) = (segment(3), Notes::default(), Now::read().instant);
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
        let (mut segment, mut notes, now) = (segment(2), Notes::default(), Now::read().instant);
        notes.full.push(0);
        let _ = segment.arrive(level(1, now));
        run(&mut segment, &mut notes, now);
        assert!(segment.take_wants().is_empty(), "not before it has drained");
        let _ = segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).skipped, 1);
        notes.full.clear();
        segment.drained(0);
        let want = Want { encoding: Encoding::Json, since: Seq(0), sent: 0 };
        assert_eq!(segment.take_wants(), [want]);
        let to = Refreshed { seq: Seq(2), sent: 0, head: 0, ack_within: Duration::ZERO, skipped: 2 };
        let frame = RefreshFrame { frame: Bytes::from_static(b"refresh to 2"), to };
        assert!(segment.refreshed(want, Some(frame)).is_empty());
        let _ = segment.arrive(level(3, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&0], ["refresh to 2", "3"]);
    }

    #[test]
    fn batches_that_never_came_make_everybody_ask_once() {
        let (mut segment, mut notes, now) = (segment(3), Notes::default(), Now::read().instant);
        segment.gap(Seq(4));
        run(&mut segment, &mut notes, now);
        assert_eq!(segment.take_wants().len(), 1, "they all stand at the same seq");
        segment.gap(Seq(4));
        assert!(!segment.is_busy(), "it is known already");
    }
}
