//! How far the members of a segment are in the reliable stream: what each has acknowledged, who has to be carried
//! something again and when, and the tallies that receipts are made of.
//!
//! Apart from the members themselves, so that a pass does not read it: what was *sent* to a member is in the member.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Sink;
use super::carry::{Acked, Schedule};
use super::pass::{Member, Standing};
use crate::limits::{CARRY_LOOK_INTERVAL, CARRY_STATES_MAX, STREAM_MESSAGES_MAX};
use crate::room::id::RoomName;
use crate::room::receipt::Acks;
use crate::room::{CarryWant, Reach};

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

impl StreamPlace {
    /// Of a member that was welcomed while nobody could say where the stream stands: it is in nobody's receipt.
    pub const UNKNOWN: Self =
        Self { sent: 0, head: 0, acked: 0, counts_from: u64::MAX, device: 0, ack_within: Duration::ZERO };
}

/// The cursors of a segment's members.
#[derive(Debug)]
pub(super) struct Cursors {
    /// By slot.
    acked: Vec<Acked>,
    /// The last offset that a pass has begun to send.
    sent: u64,
    /// Invariant: members that have acknowledged everything up to `sent`.
    settled: u64,
    schedule: Schedule,
    /// When to look for members to carry for.
    look_at: Option<Instant>,
    /// What is being asked of the home or has its place in the queue, and for whom.
    carrying: BTreeMap<CarryWant, Vec<u32>>,
    /// What to ask of the home next.
    wants: Vec<CarryWant>,
    /// Acknowledgements of the newest messages, in order of offset.
    tallies: VecDeque<Tally>,
    /// Tallies that had to make way, for the home to keep.
    given_up: Vec<(u64, Acks)>,
    /// There are no tallies up to this offset.
    tallied_after: u64,
    /// Acknowledgements of messages without a tally here, for the home to count.
    early: Vec<Reach>,
}

/// The acknowledgements of one message on this segment.
#[derive(Debug)]
struct Tally {
    offset: u64,
    sent_at: Instant,
    acks: Acks,
}

impl Cursors {
    pub(super) fn new(room: &RoomName) -> Self {
        Self {
            acked: Vec::new(),
            sent: 0,
            settled: 0,
            schedule: Schedule::new(room),
            look_at: None,
            carrying: BTreeMap::new(),
            wants: Vec::new(),
            tallies: VecDeque::new(),
            given_up: Vec::new(),
            tallied_after: 0,
            early: Vec::new(),
        }
    }

    /// The first member after none comes: what went before is no business of this life of the segment.
    pub(super) fn begin(&mut self, head: u64) {
        self.give_up_all();
        self.sent = self.sent.max(head);
        self.tallied_after = self.sent;
    }

    /// A member comes, in a slot of its own or that of one that left.
    pub(super) fn join(&mut self, slot: u32, place: StreamPlace, members: &[Member], now: Instant) {
        let acked = Acked {
            through: place.acked,
            dead_through: 0,
            counts_from: place.counts_from,
            device: place.device,
            brought_at: now,
            attempts: 0,
            is_asked_for: false,
        };
        match self.acked.get_mut(slot as usize) {
            Some(former) => *former = acked,
            None => self.acked.push(acked),
        }
        if place.sent > self.sent {
            // Its welcome has overtaken batches that still wait for a pass here.
            self.advance(place.sent, members, now);
        } else {
            self.settled += u64::from(acked.through >= self.sent);
        }
        if place.sent > place.acked {
            self.expect(place.sent, place.ack_within, now);
        }
    }

    /// The member of a slot leaves. What is known of it.
    pub(super) fn leave(&mut self, slot: u32) -> Acked {
        let acked = self.acked[slot as usize];
        self.settled -= u64::from(acked.through >= self.sent);
        acked
    }

    /// The member of a slot says that it has applied everything up to `offset`, and was sent no more than `sent`. Whether
    /// that can be.
    pub(super) fn acknowledge(&mut self, slot: u32, offset: u64, sent: u64, now: Instant) -> bool {
        let acked = &mut self.acked[slot as usize];
        if offset > sent || offset < acked.through {
            return false;
        }
        let counted = acked.through.max(acked.counts_from);
        self.settled += u64::from(acked.through < self.sent && offset >= self.sent);
        if offset > acked.through {
            (acked.through, acked.attempts) = (offset, 0);
        }
        let untallied = self.tallied_after.min(offset);
        if counted < untallied {
            self.early.push(Reach { after: counted, through: untallied });
        }
        let from = self.tallies.partition_point(|tally| tally.offset <= counted);
        for tally in self.tallies.range_mut(from..).take_while(|tally| tally.offset <= offset) {
            tally.acks.add(now.saturating_duration_since(tally.sent_at));
        }
        true
    }

    /// The last acknowledgement of a slot's member.
    pub(super) fn acked_through(&self, slot: u32) -> u64 {
        self.acked[slot as usize].through
    }

    /// Messages up to `through` are sent to `members`, or to the first of them, now. Offsets follow one another, so each of
    /// those that are new here gets its tally.
    pub(super) fn advance(&mut self, through: u64, members: &[Member], now: Instant) {
        if through <= self.sent {
            return;
        }
        let from = self.sent.max(through.saturating_sub(STREAM_MESSAGES_MAX as u64));
        if from > self.sent {
            self.tallied_after = from;
        }
        for offset in from + 1..=through {
            self.tallies.push_back(Tally { offset, sent_at: now, acks: Acks::default() });
        }
        while self.tallies.len() > STREAM_MESSAGES_MAX {
            let oldest = self.tallies.pop_front().expect("seen");
            self.tallied_after = oldest.offset;
            if oldest.acks.count > 0 {
                self.given_up.push((oldest.offset, oldest.acks));
            }
        }
        self.sent = through;
        // Nearly nobody can have acknowledged what is sent just now, but it has to be known.
        let living = members.iter().zip(&self.acked).filter(|(member, _)| !member.is_vacant());
        self.settled = living.filter(|(_, acked)| acked.through >= through).count() as u64;
    }

    /// Messages up to `through` are sent to somebody: acknowledgements are to come.
    pub(super) fn expect(&mut self, through: u64, ack_within: Duration, now: Instant) {
        let due = self.schedule.sent(through, ack_within, now);
        self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
    }

    /// The member of a slot was brought messages by a frame of its own.
    pub(super) fn brought(&mut self, slot: u32, now: Instant) {
        self.acked[slot as usize].brought_at = now;
    }

    pub(super) fn poll_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks for members that did not acknowledge in time, and notes what to ask of the home for them. Those whose
    /// connection is owed something, or that miss batches, are left for later.
    pub(super) fn look<S: Sink>(&mut self, members: &[Member], census: u64, sink: &S, now: Instant) {
        self.look_at = None;
        if self.settled == census {
            return self.schedule.forget_through(self.sent);
        }
        let overdue_through = self.schedule.overdue_through(now);
        let again = now + CARRY_LOOK_INTERVAL;
        let mut next: Option<Instant> = None;
        for (slot, (member, acked)) in (0..).zip(members.iter().zip(&mut self.acked)) {
            if member.is_vacant() || acked.settled() >= member.sent {
                continue;
            }
            let Some(due) = self.schedule.due(acked) else { continue };
            let through = overdue_through.max(acked.settled() + 1).min(member.sent);
            let want =
                CarryWant { encoding: member.encoding, reach: Reach { after: acked.through, through } };
            let has_room = self.carrying.len() < CARRY_STATES_MAX || self.carrying.contains_key(&want);
            let is_due = due <= now && member.standing == Standing::Level && !acked.is_asked_for;
            if is_due && has_room && !sink.is_waiting(member.connection) {
                let slots = self.carrying.entry(want).or_default();
                if slots.is_empty() {
                    self.wants.push(want);
                }
                slots.push(slot);
                (acked.brought_at, acked.attempts) = (now, acked.attempts.saturating_add(1));
                acked.is_asked_for = true;
            }
            let due = self.schedule.due(acked).unwrap_or(again).max(again);
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        self.look_at = next;
    }

    /// What to ask of the home, since this was last called.
    pub(super) fn take_wants(&mut self) -> Vec<CarryWant> {
        std::mem::take(&mut self.wants)
    }

    /// Whom the answer to a want is for.
    pub(super) fn take_carrying(&mut self, want: CarryWant) -> Vec<u32> {
        let slots = self.carrying.remove(&want).unwrap_or_default();
        for slot in &slots {
            self.acked[*slot as usize].is_asked_for = false;
        }
        slots
    }

    /// Nothing of what was wanted is alive: who lacks it needs it no more.
    pub(super) fn nothing_alive(&mut self, want: CarryWant) {
        for slot in self.take_carrying(want) {
            let acked = &mut self.acked[slot as usize];
            if acked.through == want.reach.after {
                acked.dead_through = acked.dead_through.max(want.reach.through);
            }
        }
    }

    /// Nothing up to `floor` is alive.
    pub(super) fn forget_through(&mut self, floor: u64) {
        self.schedule.forget_through(floor);
    }

    /// What was asked for is not going to be delivered.
    pub(super) fn give_up_carrying(&mut self) {
        self.carrying.clear();
        self.acked.iter_mut().for_each(|acked| acked.is_asked_for = false);
    }

    pub(super) fn acks(&self, offset: u64) -> Option<&Acks> {
        let index = self.tallies.binary_search_by_key(&offset, |tally| tally.offset).ok()?;
        Some(&self.tallies[index].acks)
    }

    /// Has the home keep all tallies.
    pub(super) fn give_up_all(&mut self) {
        let rest = self.tallies.drain(..).filter(|tally| tally.acks.count > 0);
        self.given_up.extend(rest.map(|tally| (tally.offset, tally.acks)));
    }

    /// Tallies for the home to keep, since this was last called.
    pub(super) fn take_given_up(&mut self) -> Vec<(u64, Acks)> {
        std::mem::take(&mut self.given_up)
    }

    /// Acknowledgements for the home to count, since this was last called.
    pub(super) fn take_early(&mut self) -> Vec<Reach> {
        std::mem::take(&mut self.early)
    }

    /// Asserts what every mutation keeps.
    pub(super) fn check_invariants(&self, members: &[Member]) {
        assert_eq!(members.len(), self.acked.len(), "a cursor for each slot");
        let living = members.iter().zip(&self.acked).filter(|(member, _)| !member.is_vacant());
        let settled = living.clone().filter(|(_, acked)| acked.through >= self.sent).count();
        assert_eq!(settled as u64, self.settled, "who has acknowledged everything is counted");
        for (member, acked) in living {
            assert!(acked.through <= member.sent, "nobody has acknowledged what it was not sent");
            let lacks = acked.settled() < member.sent && self.schedule.due(acked).is_some();
            assert!(!lacks || self.look_at.is_some(), "who lacks something is looked for");
        }
        assert!(self.carrying.len() <= CARRY_STATES_MAX, "the states asked for keep their bound");
        assert!(self.tallies.len() <= STREAM_MESSAGES_MAX);
    }
}
