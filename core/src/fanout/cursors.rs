//! Cursors of a segment's members in the reliable stream: acknowledgements, due carries, and tallies for
//! receipts.
//!
//! Apart from the members, so that a pass does not read the cursors. The offset *sent* to a member is in the
//! member.

use std::collections::{BTreeMap, VecDeque};
use std::mem::{replace, take};
use std::time::{Duration, Instant};

use super::Sink;
use super::carry::{Acked, Schedule};
use super::pass::Member;
use crate::limits::{CARRY_DELAY_MAX, CARRY_LOOK_INTERVAL, CARRY_STATES_MAX, STREAM_MESSAGES_MAX};
use crate::room::id::RoomName;
use crate::room::receipt::Acks;
use crate::room::{CarryWant, EarlyAck, Reach};

/// Place of a joining member in the reliable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamPlace {
    /// Last offset covered by the welcome.
    pub sent: u64,
    /// Last offset that had left in batches before the welcome. A member with `sent` < `head` is catching up.
    pub head: u64,
    /// Offset of the device's cursor. 0: no cursor.
    pub acked: u64,
    /// Receipts count the member for messages behind this offset.
    pub counts_from: u64,
    /// Hash of the device's name. 0: receipts count the member without a name.
    pub device: u64,
    /// Time over which devices spread the acknowledgements of the welcome.
    pub ack_within: Duration,
}

impl StreamPlace {
    /// Place of a member welcomed while the store does not answer. No receipt counts the member.
    pub const UNKNOWN: Self =
        Self { sent: 0, head: 0, acked: 0, counts_from: u64::MAX, device: 0, ack_within: Duration::ZERO };
}

#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// By slot.
    pub(super) acked: Vec<Acked>,
    /// Last offset in a begun pass, a refresh or a welcome on this segment.
    sent: u64,
    /// Invariant: the number of members with an acknowledgement of everything up to `sent`. A look ends at
    /// once if all members are settled.
    settled: u64,
    /// Invariant: the number of members with `is_overdue`.
    pub(super) overdue: u64,
    pub(super) schedule: Schedule,
    /// Moment of the next look for members to carry for. `None`: every member has acknowledged everything.
    pub(super) look_at: Option<Instant>,
    /// Carry -> the slots that need the carry, from the request to the home until the frame's turn in the
    /// queue.
    carrying: BTreeMap<CarryWant, Vec<u32>>,
    /// Requests for the home, not yet taken by the shard.
    pub(super) wants: Vec<CarryWant>,
    /// Tallies of the newest messages, in order of offset.
    tallies: VecDeque<Tally>,
    /// Offset and tally of messages without a place here, for the home to keep.
    pub(super) given_up: Vec<(u64, Acks)>,
    /// Last offset before the first tally.
    tallied_after: u64,
    /// Acknowledgements of messages without a tally here, for the home to count.
    pub(super) early: Vec<EarlyAck>,
}

/// Acknowledgements of one message on this segment.
#[derive(Debug)]
struct Tally {
    offset: u64,
    sent_at: Instant,
    acks: Acks,
}

impl Cursors {
    pub(super) fn new(room: &RoomName) -> Self {
        Self { schedule: Schedule::new(room), ..Self::default() }
    }

    /// Begins anew with the first member of an empty segment. The home keeps the tallies of earlier messages.
    pub(super) fn begin(&mut self, head: u64) {
        self.give_up_all();
        self.sent = self.sent.max(head);
        self.tallied_after = self.sent;
    }

    /// Adds the cursor of a member, in a new slot or in a hole.
    pub(super) fn join(&mut self, slot: u32, place: StreamPlace, members: &[Member], now: Instant) {
        let acked = Acked {
            through: place.acked,
            dead_through: 0,
            counts_from: place.counts_from,
            device: place.device,
            brought_at: now,
            attempts: 0,
            is_asked_for: false,
            is_overdue: false,
        };
        match self.acked.get_mut(slot as usize) {
            Some(former) => *former = acked,
            None => self.acked.push(acked),
        }
        if place.sent > self.sent {
            // The welcome has overtaken batches in the queue of this segment.
            self.advance(place.sent, members, now);
        } else {
            self.settled += u64::from(acked.through >= self.sent);
        }
        // The welcome brought messages, so an acknowledgement is to come.
        if place.sent > place.acked {
            self.expect(place.sent, place.ack_within, now);
        }
    }

    /// Removes a member from the count, and returns the cursor of the member.
    pub(super) fn leave(&mut self, slot: u32) -> Acked {
        let acked = self.acked[slot as usize];
        self.settled -= u64::from(acked.through >= self.sent);
        // The slot is a hole from here on, and no look reads it.
        self.overdue -= u64::from(take(&mut self.acked[slot as usize].is_overdue));
        acked
    }

    /// Counts an acknowledgement of everything up to `offset`. False for an offset above `sent` or below an
    /// earlier acknowledgement: no honest device says so.
    pub(super) fn acknowledge(&mut self, slot: u32, offset: u64, sent: u64, now: Instant) -> bool {
        let acked = &mut self.acked[slot as usize];
        if offset > sent || offset < acked.through {
            return false;
        }
        let counted = acked.through.max(acked.counts_from);
        self.settled += u64::from(acked.through < self.sent && offset >= self.sent);
        // An equal offset repeats an acknowledgement: the device has applied nothing new, so the attempts go
        // on.
        if offset > acked.through {
            (acked.through, acked.attempts) = (offset, 0);
            // A later message may be overdue as well: the next look says so.
            self.overdue -= u64::from(take(&mut acked.is_overdue));
        }
        // Messages up to `tallied_after` have no tally here: the home counts these acknowledgements.
        let untallied = self.tallied_after.min(offset);
        let is_named = acked.device != 0;
        if counted < untallied {
            self.early.push(EarlyAck { reach: Reach { after: counted, through: untallied }, is_named });
        }
        let from = self.tallies.partition_point(|tally| tally.offset <= counted);
        for tally in self.tallies.range_mut(from..).take_while(|tally| tally.offset <= offset) {
            tally.acks.add(now.saturating_duration_since(tally.sent_at), is_named);
        }
        true
    }

    /// Notes that messages up to `through` leave now, to all of `members` or to the first. Each new offset
    /// gets a tally.
    pub(super) fn advance(&mut self, through: u64, members: &[Member], now: Instant) {
        // A refresh or a welcome has brought these offsets before.
        if through <= self.sent {
            return;
        }
        // A jump of more than the tallies hold: the older messages go without a tally here.
        let from = self.sent.max(through.saturating_sub(STREAM_MESSAGES_MAX as u64));
        if from > self.sent {
            // With older tallies left in front of the gap, an acknowledgement inside it would be for neither
            // the home nor a tally.
            self.give_up_all();
            self.tallied_after = from;
        }
        for offset in from + 1..=through {
            self.tallies.push_back(Tally { offset, sent_at: now, acks: Acks::default() });
        }
        while self.tallies.len() > STREAM_MESSAGES_MAX {
            let oldest = self.tallies.pop_front().expect("seen");
            self.tallied_after = oldest.offset;
            if !oldest.acks.is_empty() {
                self.given_up.push((oldest.offset, oldest.acks));
            }
        }
        self.sent = through;
        // Counted anew: a member that came back with a newer cursor may have these messages already.
        let living = members.iter().zip(&self.acked).filter(|(member, _)| !member.is_vacant());
        self.settled = living.filter(|(_, acked)| acked.through >= through).count() as u64;
    }

    /// Notes that acknowledgements of messages up to `through` are to come, and moves the next look forward
    /// if need be.
    pub(super) fn expect(&mut self, through: u64, ack_within: Duration, now: Instant) {
        let due = self.schedule.sent(through, ack_within, now);
        self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
    }

    /// Notes a refresh with reliable messages for a slot's member: the delay of the next carry counts from
    /// now.
    pub(super) fn brought(&mut self, slot: u32, now: Instant) {
        self.acked[slot as usize].brought_at = now;
    }

    /// Looks for members with an overdue acknowledgement, and notes the carries to ask of the home.
    ///
    /// A member with owed frames is left for later: the message may be among the frames. A member that misses
    /// batches is left as well: the refresh brings reliable messages.
    pub(super) fn look<S: Sink>(&mut self, members: &[Member], census: u64, sink: &S, now: Instant) {
        self.look_at = None;
        // Every member has acknowledged everything: no next look, and no sending to remember.
        if self.settled == census {
            return self.schedule.forget_through(self.sent);
        }
        let overdue_through = self.schedule.overdue_through(now);
        let again = now + CARRY_LOOK_INTERVAL;
        let mut next: Option<Instant> = None;
        for (slot, (member, acked)) in (0..).zip(members.iter().zip(&mut self.acked)) {
            if member.is_vacant() {
                continue;
            }
            // No search for the many that have everything.
            let due = if acked.settled() < self.sent { self.schedule.due(acked) } else { None };
            let is_overdue = due.is_some_and(|due| due <= now || acked.attempts > 0);
            self.overdue += u64::from(is_overdue);
            self.overdue -= u64::from(replace(&mut acked.is_overdue, is_overdue));
            // A member without need, or one that misses batches.
            if acked.settled() >= member.sent {
                continue;
            }
            let Some(due) = due else { continue };
            // Never an empty reach, even for a member whose first message is not overdue yet.
            let through = overdue_through.max(acked.settled() + 1).min(member.sent);
            let want =
                CarryWant { encoding: member.encoding, reach: Reach { after: acked.through, through } };
            // The bound counts distinct frames: a further member of a known state is free.
            let has_room = self.carrying.len() < CARRY_STATES_MAX || self.carrying.contains_key(&want);
            let is_due = due <= now && member.standing.has_every_batch() && !acked.is_asked_for;
            if is_due && has_room && !sink.is_waiting(member.connection) {
                let slots = self.carrying.entry(want).or_default();
                if slots.is_empty() {
                    self.wants.push(want);
                }
                slots.push(slot);
                (acked.brought_at, acked.attempts) = (now, acked.attempts.saturating_add(1));
                acked.is_asked_for = true;
            }
            // Looks are spaced, so a due member without room or with owed frames does not make the segment
            // spin.
            let due = self.schedule.due(acked).unwrap_or(again).max(again);
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        // Of a member that misses batches no carry is due, and a later look finds that the message has died.
        self.look_at = next.or_else(|| (self.overdue > 0).then(|| now + CARRY_DELAY_MAX));
    }

    /// Has a further look follow, if some member has not acknowledged everything and no look is due.
    pub(super) fn look_again(&mut self, census: u64, now: Instant) {
        if self.settled < census {
            self.look_at.get_or_insert(now + CARRY_LOOK_INTERVAL);
        }
    }

    /// Takes the slots that wait for a carry. These members may be asked for again.
    pub(super) fn take_carrying(&mut self, want: CarryWant) -> Vec<u32> {
        let slots = self.carrying.remove(&want).unwrap_or_default();
        for slot in &slots {
            self.acked[*slot as usize].is_asked_for = false;
        }
        slots
    }

    /// Notes that no message of a wanted carry is alive.
    pub(super) fn nothing_alive(&mut self, want: CarryWant) {
        for slot in self.take_carrying(want) {
            let acked = &mut self.acked[slot as usize];
            // The slot may have another member by now, or the member may have acknowledged meanwhile.
            if acked.through == want.reach.after {
                acked.dead_through = acked.dead_through.max(want.reach.through);
            }
        }
    }

    /// Drops the carries under way. A later look asks for the members again.
    pub(super) fn give_up_carrying(&mut self) {
        self.carrying.clear();
        self.acked.iter_mut().for_each(|acked| acked.is_asked_for = false);
    }

    /// Named devices of members with an acknowledgement at or past `offset`.
    pub(super) fn devices_with(&self, offset: u64, members: &[Member]) -> Vec<u64> {
        let living = members.iter().zip(&self.acked).filter(|(member, _)| !member.is_vacant());
        let with = living.filter(|(_, acked)| acked.device != 0 && acked.through >= offset);
        with.map(|(_, acked)| acked.device).collect()
    }

    pub(super) fn acks(&self, offset: u64) -> Option<&Acks> {
        let index = self.tallies.binary_search_by_key(&offset, |tally| tally.offset).ok()?;
        Some(&self.tallies[index].acks)
    }

    /// Hands all tallies to the home.
    pub(super) fn give_up_all(&mut self) {
        let rest = self.tallies.drain(..).filter(|tally| !tally.acks.is_empty());
        self.given_up.extend(rest.map(|tally| (tally.offset, tally.acks)));
    }

    /// Asserts the invariants after a mutation.
    pub(super) fn check_invariants(&self, members: &[Member]) {
        assert_eq!(members.len(), self.acked.len(), "a cursor for each slot");
        let living = members.iter().zip(&self.acked).filter(|(member, _)| !member.is_vacant());
        let settled = living.clone().filter(|(_, acked)| acked.through >= self.sent).count();
        assert_eq!(settled as u64, self.settled, "settled members are counted");
        let overdue = self.acked.iter().filter(|acked| acked.is_overdue).count();
        assert_eq!(overdue as u64, self.overdue, "overdue members are counted");
        for (member, acked) in living {
            assert!(acked.through <= member.sent, "an acknowledgement is for a sent message");
            let lacks = acked.settled() < member.sent && self.schedule.due(acked).is_some();
            assert!(!lacks || self.look_at.is_some(), "a member that lacks a message is looked for");
        }
        assert!(self.carrying.len() <= CARRY_STATES_MAX, "the states asked for keep their bound");
        assert!(self.tallies.len() <= STREAM_MESSAGES_MAX);
    }
}
