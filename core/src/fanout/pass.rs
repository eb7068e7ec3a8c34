//! The pass: one walk over members, with the same frames for every member at the seq before the frames.
//!
//! A free function over slices, so tests and benches run the same code as a segment. No look-up, lock, log or
//! metric per member, and no allocation for a level member. Members with other needs go into the tally, and
//! the segment serves these members after the loop.

use std::time::Instant;

use bytes::Bytes;

use super::segment::Level;
use super::{Offer, Sink};
use crate::limits::SMALL_FRAME_BYTES_MAX;
use crate::room::Reach;
use crate::room::id::{Encoding, Seq};

/// One connection's place in a room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The member holds every batch up to this seq. [`VACANT`] marks a hole.
    pub(super) last_seq: Seq,
    /// Last offset of the reliable stream sent to the member.
    pub(super) sent: u64,
    pub(super) connection: u32,
    pub(super) encoding: Encoding,
    pub(super) standing: Standing,
}

/// In order of what a pass may do: a pass writes to the members up to a standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Standing {
    /// The member has taken every batch so far, and the device takes frames of any size fast enough.
    #[default]
    Level,
    /// The member has taken every batch so far. The device is slow or unproven: a large frame could keep a
    /// reliable message waiting for seconds.
    Small,
    /// The same, after a larger frame than those of passes: a welcome or a refresh. The segment asks for the
    /// room of the device before it offers more.
    Unseen,
    /// The member missed a batch or is catching up, and the connection is still owed frames. The segment asks
    /// for a refresh as soon as the outbox is empty.
    Missed,
    /// The segment has asked for a refresh, or keeps the member in line to ask.
    Asked,
}

impl Standing {
    /// True for a member that has taken every batch so far.
    pub(super) fn has_every_batch(self) -> bool {
        self < Self::Missed
    }
}

/// Seq of a hole. No batch ever has this number.
pub(super) const VACANT: Seq = Seq(u64::MAX);

/// Frames of one pass: consecutive batches, by encoding. A member takes all of them in one vectored write.
#[derive(Debug, Default)]
pub struct PassFrames {
    pub(super) from: Seq,
    pub(super) to: Seq,
    /// Part of the reliable stream in these batches.
    pub(super) reach: Reach,
    pub(super) frames: [Vec<Bytes>; Encoding::ALL.len()],
    /// Last offset of the reliable stream after each batch.
    pub(super) sent: Vec<u64>,
    /// Messages told as skipped by each batch.
    pub(super) skipped: Vec<u64>,
    /// Bytes of the frames of one encoding, the larger one.
    pub(super) bytes: usize,
    /// The pass writes to members up to this standing.
    pub(super) widest: Standing,
}

/// Result of a pass over a slice of members. Slots count from the begin of the slice.
#[derive(Debug, Default)]
pub struct PassTally {
    /// Holes, and members without an offer in the loop.
    pub(super) aside: usize,
    /// Frames taken, queued frames included.
    pub(super) level: u64,
    /// Level frames taken by members that refused a later frame of the pass.
    pub(super) partial: u64,
    /// Messages told as skipped in the frames of `partial`.
    pub(super) partial_skipped: u64,
    pub(super) queued: u64,
    /// Batches not taken by members.
    pub(super) skipped: u64,
    /// Members that refused a frame.
    pub(super) refused: Vec<u32>,
    /// Level members between two of the batches: welcomed after the first.
    pub(super) late: Vec<u32>,
    /// Level members before the first batch: an earlier batch never came.
    pub(super) missed: Vec<u32>,
    /// Members of slow or unproven devices, at the seq before frames that are large.
    pub(super) small: Vec<u32>,
}

/// Writes `frames` to every level member at the seq before the frames. The other members are few: the tally
/// lists the members to serve afterwards.
pub fn pass<S: Sink>(
    members: &mut [Member],
    frames: &PassFrames,
    sink: &mut S,
    tally: &mut PassTally,
    now: Instant,
) {
    for (slot, member) in members.iter_mut().enumerate() {
        if member.last_seq != frames.from || member.standing > frames.widest {
            tally.set_aside(slot, member, frames);
            continue;
        }
        let offered = &frames.frames[member.encoding as usize];
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
            return; // A hole, or a member welcomed or refreshed past these frames.
        }
        let slot = u32::try_from(slot).expect("a segment has fewer than 2^32 slots");
        match member.standing {
            Standing::Missed | Standing::Asked => self.skipped += frames.batches(),
            _ if member.last_seq > frames.from => self.late.push(slot),
            _ if member.last_seq < frames.from => self.missed.push(slot),
            _ => self.small.push(slot),
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

    /// Messages told as skipped in level frames. Counted after the pass, from the frames that were taken:
    /// members that took all frames were told all, so the pass itself counts nothing more.
    pub(super) fn messages_skipped(&self, frames: &PassFrames) -> u64 {
        let whole = (self.level - self.partial) / frames.batches();
        whole * frames.skipped.iter().sum::<u64>() + self.partial_skipped
    }

    /// Notes a level member before a gap: the batches of the gap will not come.
    pub(super) fn set_aside_before(&mut self, slot: usize, member: &Member, seq: Seq) {
        if member.last_seq < seq && member.standing.has_every_batch() {
            self.missed.push(u32::try_from(slot).expect("a segment has fewer than 2^32 slots"));
        }
    }
}

impl PassFrames {
    /// Frames for members at `from`: one frame per batch, by encoding. The batches have no reliable messages.
    pub fn new(from: Seq, frames: [Vec<Bytes>; Encoding::ALL.len()]) -> Self {
        let batches = frames.iter().map(Vec::len).max().unwrap_or(0);
        let to = Seq(from.0 + batches as u64);
        let bytes = bytes_of(&frames);
        let reach = Reach::default();
        let sent = vec![0; batches];
        let skipped = vec![0; batches];
        Self { from, to, reach, frames, sent, skipped, bytes, widest: widest(bytes) }
    }

    /// Puts a member behind the first `taken` frames. The rest was refused.
    pub(super) fn taken_by(&self, member: &mut Member, taken: usize) {
        member.last_seq = Seq(self.from.0 + taken as u64);
        member.sent = taken.checked_sub(1).map_or(self.reach.after, |last| self.sent[last]);
    }

    pub(super) fn batches(&self) -> u64 {
        self.to.0 - self.from.0
    }

    pub(super) fn push(&mut self, level: &Level) {
        (self.to, self.reach.through) = (level.seq, level.reach.through);
        self.sent.push(level.reach.through);
        self.skipped.push(level.skipped);
        for (frames, frame) in self.frames.iter_mut().zip(&level.frames) {
            frames.push(frame.clone());
        }
        self.bytes = bytes_of(&self.frames);
        self.widest = widest(self.bytes);
    }
}

/// The standing up to which a pass writes these frames. Small ones go to every device: a quiet room has no
/// slow path.
fn widest(bytes: usize) -> Standing {
    if bytes <= SMALL_FRAME_BYTES_MAX { Standing::Small } else { Standing::Level }
}

fn bytes_of(frames: &[Vec<Bytes>]) -> usize {
    let of_one = frames.iter().map(|frames| frames.iter().map(Bytes::len).sum());
    of_one.max().unwrap_or(0)
}

impl Member {
    /// A level member with every batch up to `last_seq`, and nothing of the reliable stream.
    pub fn new(connection: u32, encoding: Encoding, last_seq: Seq) -> Self {
        Self { last_seq, sent: 0, connection, encoding, standing: Standing::Level }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.last_seq == VACANT
    }
}
