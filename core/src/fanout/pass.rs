//! The pass itself: one walk over members, writing the same frames to all that stand where the frames begin.
//!
//! A free function over slices, so that it runs in tests and benches as it does in a segment. No allocation, look-up,
//! lock, log or metric per member; who needs more than the frames is noted down and dealt with after the loop.

use std::time::Instant;

use bytes::Bytes;

use super::segment::Level;
use super::{Offer, Sink};
use crate::room::Reach;
use crate::room::id::{Encoding, Seq};

/// One connection's place in the room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// It holds everything up to this; `VACANT` marks a hole.
    pub(super) last_seq: Seq,
    /// The last offset of the reliable stream that was sent to it.
    pub(super) sent: u64,
    pub(super) connection: u32,
    pub(super) encoding: Encoding,
    pub(super) standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Each batch so far was offered to it and taken.
    Level,
    /// It missed a batch or is catching up, and its connection is owed something: it asks when that has drained.
    Missed,
    /// It missed a batch and has asked for a refresh, or stands in line to ask.
    Asked,
}

/// No batch ever has this number.
pub(super) const VACANT: Seq = Seq(u64::MAX);

/// What a pass writes: consecutive batches, by encoding, so that each member takes them in one vectored write.
#[derive(Debug, Default)]
pub struct PassFrames {
    pub(super) from: Seq,
    pub(super) to: Seq,
    /// What they take members over in the reliable stream.
    pub(super) reach: Reach,
    pub(super) frames: [Vec<Bytes>; Encoding::ALL.len()],
    /// How far in the reliable stream each of them takes a member.
    pub(super) sent: Vec<u64>,
    /// Messages that each of them tells as skipped.
    pub(super) skipped: Vec<u64>,
}

/// What a pass over a slice of members left to be dealt with after the loop. Slots are relative to the slice.
#[derive(Debug, Default)]
pub struct PassTally {
    /// Holes, and members that were offered nothing.
    pub(super) aside: usize,
    pub(super) level: u64,
    /// Of the level frames, those of members that did not take all frames.
    pub(super) partial: u64,
    /// Messages that those told as skipped.
    pub(super) partial_skipped: u64,
    pub(super) queued: u64,
    pub(super) skipped: u64,
    pub(super) refused: Vec<u32>,
    pub(super) late: Vec<u32>,
    pub(super) missed: Vec<u32>,
}

/// Writes `frames` to those of `members` that are level and stand where the frames begin. The others are few, and dealt
/// with afterwards.
pub fn pass<S: Sink>(
    members: &mut [Member],
    frames: &PassFrames,
    sink: &mut S,
    tally: &mut PassTally,
    now: Instant,
) {
    for (slot, member) in members.iter_mut().enumerate() {
        if member.last_seq != frames.from || member.standing != Standing::Level {
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
        self.aside += 1;
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
        self.partial += taken as u64;
        self.partial_skipped += frames.skipped[..taken].iter().sum::<u64>();
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
        Self { from, to, reach: Reach::default(), frames, sent: vec![0; batches], skipped: vec![0; batches] }
    }

    /// A member took the first `taken` of them only.
    pub(super) fn taken_by(&self, member: &mut Member, taken: usize) {
        member.last_seq = Seq(self.from.0 + taken as u64);
        member.sent = taken.checked_sub(1).map_or(self.reach.after, |last| self.sent[last]);
    }

    pub(super) fn batches(&self) -> u64 {
        self.to.0 - self.from.0
    }
}

impl Member {
    /// A member that holds every batch up to `last_seq`, and of the reliable stream what was sent by then.
    #[must_use]
    pub fn new(connection: u32, encoding: Encoding, last_seq: Seq) -> Self {
        Self { last_seq, sent: 0, connection, encoding, standing: Standing::Level }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.last_seq == VACANT
    }
}

impl PassFrames {
    pub(super) fn push(&mut self, level: &Level) {
        (self.to, self.reach.through) = (level.seq, level.reach.through);
        self.sent.push(level.reach.through);
        self.skipped.push(level.skipped);
        for (frames, frame) in self.frames.iter_mut().zip(&level.frames) {
            frames.push(frame.clone());
        }
    }
}

impl PassTally {
    /// Messages told as skipped in level frames. Counted after the pass, from the frames that were taken: members that
    /// took all frames were told all, so the pass itself counts nothing more.
    pub(super) fn messages_skipped(&self, frames: &PassFrames) -> u64 {
        let whole = (self.level - self.partial) / frames.batches();
        whole * frames.skipped.iter().sum::<u64>() + self.partial_skipped
    }

    /// A gap is known: whoever stands before it has missed what never came.
    pub(super) fn set_aside_before(&mut self, slot: usize, member: &Member, seq: Seq) {
        if member.last_seq < seq && member.standing == Standing::Level {
            self.missed.push(u32::try_from(slot).expect("a segment has fewer than 2^32 slots"));
        }
    }
}
