//! One room's members on one shard, and the pass that writes to them.
//!
//! A frame says from which seq it takes a member to which; a member takes it exactly if it stands at the former. So
//! one rule serves level frames, refreshes and members that join or leave while a pass is under way. Slots are
//! stable: a leaver leaves a hole, reused afterwards.
//!
//! Pure: whoever owns the segment gives it frames, turns and a [`Sink`], and sends on what it asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Offer, Sink};
use crate::config::limits::{REFRESH_STATES_MAX, SEGMENT_QUEUED_MAX};
use crate::room::Census;
use crate::room::id::{Encoding, RoomName, Run, Seq};

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
}

/// One connection's place in the room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// It holds everything up to this; `VACANT` marks a hole.
    last_seq: Seq,
    connection: u32,
    encoding: Encoding,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Each batch so far was offered to it and taken.
    Level,
    /// It missed a batch, and its connection is owed something: it asks when that has drained.
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
}

#[derive(Debug)]
enum Queued {
    Level(Arc<Level>),
    /// Batches up to this seq never came: whoever stands before it has missed them.
    Gap(Seq),
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
    frames: [Vec<Bytes>; Encoding::ALL.len()],
}

/// A refresh on its way to the members that asked for it.
#[derive(Debug)]
struct Visit {
    slots: Vec<u32>,
    next: usize,
    since: Seq,
    to: Seq,
    frame: Bytes,
    /// Messages it tells a member as skipped.
    skipped: u64,
}

/// A refresh as it comes from the home: the frame, and how many messages it tells as skipped.
#[derive(Debug, Clone)]
pub struct RefreshFrame {
    /// Takes a member from where it asked to the room's seq.
    pub frame: Bytes,
    /// Messages of all types.
    pub skipped: u64,
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
        if member.last_seq != frames.from {
            tally.set_aside(slot, member, frames);
            continue;
        }
        let offered = &frames.frames[member.encoding.index()];
        let offer = sink.offer(member.connection, offered, now);
        member.last_seq = frames.to;
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
        member.last_seq = Seq(frames.from.0 + taken as u64);
        self.level += taken as u64;
        self.skipped += frames.batches() - taken as u64;
        self.refused.push(slot);
    }
}

impl PassFrames {
    /// Frames that take members from `from` on, one per seq, by encoding.
    #[must_use]
    pub fn new(from: Seq, frames: [Vec<Bytes>; Encoding::ALL.len()]) -> Self {
        let batches = frames.iter().map(Vec::len).max().unwrap_or(0) as u64;
        Self { from, to: Seq(from.0 + batches), frames }
    }

    fn batches(&self) -> u64 {
        self.to.0 - self.from.0
    }
}

impl Member {
    /// A member that holds everything up to `last_seq`.
    #[must_use]
    pub fn new(connection: u32, encoding: Encoding, last_seq: Seq) -> Self {
        Self { last_seq, connection, encoding, standing: Standing::Level }
    }
}

impl Segment {
    /// A room's segment, without members yet.
    #[must_use]
    pub fn new(room: RoomName, run: Run, seq: Seq) -> Self {
        Self {
            room,
            run,
            members: Vec::new(),
            holes: Vec::new(),
            census: Census::default(),
            seq,
            queue: VecDeque::new(),
            pass: None,
            visits: VecDeque::new(),
            asked: BTreeMap::new(),
            unasked: VecDeque::new(),
            wants: Vec::new(),
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

    /// Takes in a member that holds everything up to `seq`. Its slot, stable until it leaves.
    pub fn join(&mut self, connection: u32, encoding: Encoding, seq: Seq) -> u32 {
        let member = Member::new(connection, encoding, seq);
        if self.census.members() == 0 {
            self.seq = self.seq.max(seq);
        }
        self.census.add(encoding);
        if let Some(hole) = self.holes.pop() {
            self.members[hole as usize] = member;
            return hole;
        }
        self.members.push(member);
        u32::try_from(self.members.len() - 1).expect("a segment has fewer than 2^32 slots")
    }

    /// The member of a slot leaves. Its encoding.
    pub fn leave(&mut self, slot: u32) -> Encoding {
        let member = &mut self.members[slot as usize];
        assert_ne!(member.last_seq, VACANT, "a member leaves once");
        member.last_seq = VACANT;
        let encoding = member.encoding;
        self.holes.push(slot);
        let mut left = Census::default();
        left.add(encoding);
        self.census.subtract(left);
        encoding
    }

    /// A batch arrived.
    pub fn arrive(&mut self, level: Arc<Level>) {
        if level.seq <= self.seq {
            return; // It was made up for by a refresh that overtook nothing: the lane is a FIFO.
        }
        self.seq = level.seq;
        self.queue.push_back(Queued::Level(level));
        debug_assert!(self.queued_batches() <= SEGMENT_QUEUED_MAX, "the home stops cutting before");
    }

    /// Batches up to `seq` exist; whatever of them did not come will not come.
    pub fn gap(&mut self, seq: Seq) {
        if seq > self.seq {
            self.seq = seq;
            self.queue.push_back(Queued::Gap(seq));
        }
    }

    /// The refresh for those that asked `want` arrived; it takes them to `to`. `None`: they missed more than anyone
    /// can account for, and their connections, returned here, have to come back afresh.
    #[must_use]
    pub fn refreshed(&mut self, want: Want, to: Seq, refresh: Option<RefreshFrame>) -> Vec<u32> {
        // `seq` stays: what took these members to `to` says nothing to those that did not ask.
        let slots = self.asked.remove(&want).unwrap_or_default();
        while self.asked.len() < REFRESH_STATES_MAX {
            let Some((slot, since)) = self.unasked.pop_front() else { break };
            if self.asker(slot, since).is_some() {
                self.ask(slot);
            }
        }
        let Some(RefreshFrame { frame, skipped }) = refresh else {
            return slots.iter().filter_map(|slot| Some(self.asker(*slot, want.since)?.connection)).collect();
        };
        self.visits.push_back(Visit { slots, next: 0, since: want.since, to, frame, skipped });
        Vec::new()
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
            tally.taken = self.begin_pass();
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
    fn begin_pass(&mut self) -> usize {
        let (mut frames, mut oldest) = (PassFrames::default(), Vec::new());
        match self.queue.pop_front() {
            None => return 0,
            Some(Queued::Gap(seq)) => (frames.from, frames.to) = (seq, seq),
            Some(Queued::Level(first)) => {
                frames.from = Seq(first.seq.0 - 1);
                frames.push(&first);
                oldest.push(first.oldest);
            }
        }
        while let Some(Queued::Level(next)) = self.queue.front().filter(|_| frames.batches() > 0) {
            if next.seq != frames.to.next() {
                break;
            }
            frames.push(next);
            oldest.push(next.oldest);
            self.queue.pop_front();
        }
        let taken = oldest.len();
        self.pass = Some(Pass { frames, next: 0, end: self.members.len(), oldest });
        taken
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
        member.last_seq = Seq(member.last_seq.0 + taken as u64);
        turn.level += taken as u64;
        turn.skipped += (offered.len() - taken) as u64;
    }

    fn visit<S: Sink>(&mut self, members_max: usize, sink: &mut S, now: Instant, turn: &mut TurnTally) {
        let Some(mut visit) = self.visits.pop_front() else { return };
        let end = visit.slots.len().min(visit.next + members_max);
        for slot in &visit.slots[visit.next..end] {
            let Some(member) = self.asker(*slot, visit.since) else { continue };
            match sink.offer(member.connection, std::slice::from_ref(&visit.frame), now) {
                Offer::Written | Offer::Queued => {
                    (member.last_seq, member.standing) = (visit.to, Standing::Level);
                    turn.refreshed += 1;
                    turn.messages_skipped += visit.skipped;
                }
                Offer::Refused { .. } => member.standing = Standing::Missed,
            }
        }
        turn.visited = end - visit.next;
        visit.next = end;
        if visit.next < visit.slots.len() {
            self.visits.push_front(visit);
        }
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
        let want = Want { encoding: member.encoding, since: member.last_seq };
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
        self.to = level.seq;
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
            oldest: now,
        })
    }

    fn segment(members: u32) -> Segment {
        let mut segment = Segment::new(room(), Run(1), Seq(0));
        for connection in 0..members {
            segment.join(connection, Encoding::Json, Seq(0));
        }
        segment
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
        segment.arrive(level(1, now));
        segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).taken, 2);
        assert_eq!(notes.taken[&0], ["1", "2"]);
        assert_eq!(notes.taken[&1], ["1", "2"]);
    }

    #[test]
    fn who_joins_during_a_pass_gets_nothing_twice_and_who_leaves_gets_nothing_more() {
        let (mut segment, mut notes, now) = (segment(3), Notes::default(), Now::read().instant);
        segment.arrive(level(1, now));
        segment.turn(1, &mut notes, now);
        segment.leave(1);
        assert_eq!(segment.join(9, Encoding::Json, Seq(1)), 1, "the hole is used again");
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken.keys().copied().collect::<Vec<_>>(), [0, 2]);
        segment.arrive(level(2, now));
        run(&mut segment, &mut notes, now);
        assert_eq!(notes.taken[&9], ["2"]);
        assert_eq!(notes.taken[&0], ["1", "2"]);
    }

    #[test]
    fn who_refuses_a_batch_asks_when_it_has_drained_and_is_refreshed_before_the_next() {
        let (mut segment, mut notes, now) = (segment(2), Notes::default(), Now::read().instant);
        notes.full.push(0);
        segment.arrive(level(1, now));
        run(&mut segment, &mut notes, now);
        assert!(segment.take_wants().is_empty(), "not before it has drained");
        segment.arrive(level(2, now));
        assert_eq!(segment.turn(128, &mut notes, now).skipped, 1);
        notes.full.clear();
        segment.drained(0);
        let want = Want { encoding: Encoding::Json, since: Seq(0) };
        assert_eq!(segment.take_wants(), [want]);
        let frame = RefreshFrame { frame: Bytes::from_static(b"refresh to 2"), skipped: 2 };
        assert!(segment.refreshed(want, Seq(2), Some(frame)).is_empty());
        segment.arrive(level(3, now));
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
